/* Whole contents: written under a temporary name in their own folder and renamed there. In the same folder, because a
 * rename between folders takes a lock of the whole file system, and a folder of temporary files is one lock for all
 * writers: 4 threads were 4 to 15 times slower that way. The temporary names are few and always the same
 * ("ab/.put-3f"), so that what a killed process left is found without reading millions of names. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "base/clock.h"
#include "store/store_internal.h"

enum {
	LOOK_AT_SPACE_BYTES = 16 << 20, /* written between two looks at the free space */
	GC_PAUSE_MS = 10000,            /* between two gcs that the store begins for the limit's sake */
};

/* ---- Temporary names ------------------------------------------------------------------------------------------ */

static bool slot_try(struct flip_store *s, unsigned *ret_slot)
{
	uint_fast64_t taken = atomic_load(&s->put_slots);

	while (~(uint64_t)taken) {
		unsigned slot = (unsigned)__builtin_ctzll(~(uint64_t)taken);

		if (atomic_compare_exchange_weak(&s->put_slots, &taken, taken | UINT64_C(1) << slot)) {
			*ret_slot = slot;
			return true;
		}
	}
	return false;
}

static unsigned slot_take(struct flip_store *s)
{
	unsigned slot;

	if (slot_try(s, &slot))
		return slot;
	pthread_mutex_lock(&s->slot_lock);
	s->n_slot_waiters++;
	while (!slot_try(s, &slot))
		pthread_cond_wait(&s->slot_freed, &s->slot_lock);
	s->n_slot_waiters--;
	pthread_mutex_unlock(&s->slot_lock);
	return slot;
}

void flip_slot_give(struct flip_store *s, unsigned slot)
{
	/* Nobody waits unless all are taken; who gives back the first of them looks under the lock. */
	if (atomic_fetch_and(&s->put_slots, ~(UINT64_C(1) << slot)) == UINT64_MAX) {
		pthread_mutex_lock(&s->slot_lock);
		pthread_cond_broadcast(&s->slot_freed);
		pthread_mutex_unlock(&s->slot_lock);
	}
}

int flip_store_tmp(struct flip_store *s, char *ret_path, size_t path_size, struct err *err)
{
	char name[64];
	int n;

	flip_store_tmp_name(s, name);
	n = snprintf(ret_path, path_size, "%s/tmp/%s", s->dir, name);
	if (n < 0 || (size_t)n >= path_size)
		return err_set(err, -ENAMETOOLONG, "%s/tmp/%s: too long", s->dir, name);
	return 0;
}

/* ---- Space ---------------------------------------------------------------------------------------------------- */

int flip_store_full(struct flip_store *s, int r, const char *doing, struct err *err)
{
	if (r == -ENOSPC || r == -EDQUOT)
		return err_set(err, -ENOSPC, "%s: %s: no space left on the device, nothing more to remove", s->dir,
		               doing);
	return err_set(err, r, "%s: %s: %s", s->dir, doing, strerror(-r));
}

static bool look_low(struct flip_store *s)
{
	struct statvfs v;
	bool is_low = false;

	if (fstatvfs(s->dir_fd, &v) == 0)
		is_low = (uint64_t)v.f_bavail * v.f_frsize < s->opts.min_free_bytes;
	atomic_store(&s->unchecked_bytes, 0);
	atomic_store(&s->is_low, is_low);
	return is_low;
}

int flip_store_make_room(struct flip_store *s, uint64_t size, bool for_put, struct err *err)
{
	int64_t last, now;
	bool is_over;

	if (!atomic_load(&s->is_low) && atomic_fetch_add(&s->unchecked_bytes, size) + size < LOOK_AT_SPACE_BYTES)
		return 0;
	is_over = s->opts.budget_bytes &&
	          (uint64_t)atomic_load(&s->object_bytes) > s->opts.budget_bytes; /* about: partial ones are not in */
	if (!look_low(s) && !is_over)
		return 0;
	last = atomic_load(&s->last_gc_ms);
	now = base_now_ms();
	if ((last == 0 || now - last >= GC_PAUSE_MS) && atomic_compare_exchange_strong(&s->last_gc_ms, &last, now))
		(void)flip_store_emergency_gc(s);
	if (for_put && look_low(s))
		return err_set(err, -ENOSPC, "%s: less than %llu bytes are free, nothing more to remove", s->dir,
		               (unsigned long long)s->opts.min_free_bytes);
	return 0;
}

/* ---- Putting -------------------------------------------------------------------------------------------------- */

void flip_store_count(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], int64_t n, int64_t bytes)
{
	int64_t disk = (bytes + (n > 0 ? 4095 : -4095)) / 4096 * 4096;

	pthread_mutex_lock(&s->count_lock);
	atomic_fetch_add(&s->n_objects, n);
	atomic_fetch_add(&s->object_bytes, bytes);
	atomic_fetch_add(&s->object_disk, disk);
	if (digest[0] < s->n_recounted) {
		s->recount.n += n;
		s->recount.bytes += bytes;
		s->recount.disk += disk;
	}
	pthread_mutex_unlock(&s->count_lock);
}

/* The time of change is the epoch of the store (durable.c), the time of access that of the last use (gc.c): what is
 * known of an object lies in its inode, and costs no row anywhere. */
int flip_store_stamp(struct flip_store *s, int fd, bool set_mode)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_sec = (time_t)atomic_load(&s->epoch) } };

	if (set_mode && fchmod(fd, 0444) < 0)
		return -errno;
	return futimens(fd, times) < 0 ? -errno : 0;
}

/* Renames what is in from_fd/from to the object, unless it is there. Under no lock. */
static int name_object(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], int fd, bool set_mode, int from_fd,
                       const char *from, uint64_t size, bool *ret_was_there)
{
	struct shard *sh = shard_of(s, digest);
	char name[STORE_NAME_SIZE];
	bool was_there = false;
	int r;

	flip_object_name(digest, name);
	pthread_mutex_lock(&sh->lock);
	r = flip_store_stamp(s, fd, set_mode);
	if (r == 0 && renameat2(from_fd, from, s->objects_fd, name, RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r == -EEXIST) {
		was_there = true;
		r = flip_store_look(s, digest, STORE_TOUCH_PUT_S, NULL) < 0 ? -EIO : 0;
	} else if (r == 0) {
		flip_store_count(s, digest, 1, (int64_t)size);
		if (!flip_shard_find(sh, digest)) /* who has it open tidies up when it is closed */
			flip_partial_forget(s, digest);
	}
	pthread_mutex_unlock(&sh->lock);
	if (r == 0)
		*ret_was_there = was_there;
	return r;
}

int flip_store_put_new(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], const void *data, size_t size,
                       bool *ret_was_there, struct err *err)
{
	unsigned slot = slot_take(s);
	bool was_there = false;
	char tmp[16];
	int fd, r;

	(void)snprintf(tmp, sizeof(tmp), "%02x/.put-%02x", digest[0], slot);
	fd = openat(s->objects_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0444);
	r = fd < 0 ? -errno : flip_store_write_at(fd, data, size, 0);
	if (r == 0)
		r = name_object(s, digest, fd, false, s->objects_fd, tmp, size, &was_there);
	if (r < 0 || was_there)
		(void)unlinkat(s->objects_fd, tmp, 0);
	close_fdp(&fd);
	flip_slot_give(s, slot);
	if (r < 0)
		return flip_store_full(s, r, "putting an object", err);
	*ret_was_there = was_there;
	return 0;
}

/* Whether there is something of it already: 1 (complete), 0, negative errno; a reference when it is arriving. A file of
 * another size is damaged (its content is fixed by its name) and makes room for the right one. */
static int find_for_put(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size,
                        struct flip_object **ret_open, struct err *err)
{
	struct shard *sh = shard_of(s, digest);
	char name[STORE_NAME_SIZE];
	struct flip_object *o;
	uint64_t old_size = 0;
	int r;

	flip_object_name(digest, name);
	pthread_mutex_lock(&sh->lock);
	r = flip_store_look(s, digest, STORE_TOUCH_PUT_S, &old_size);
	if (r == 1 && old_size != size) {
		r = unlinkat(s->objects_fd, name, 0) < 0 ? -errno : 0;
		if (r == 0)
			flip_store_count(s, digest, -1, -(int64_t)old_size);
	}
	o = flip_shard_find(sh, digest);
	if (r == 0 && o && o->size == size && !flip_object_is_complete(o)) {
		atomic_fetch_add(&o->n_refs, 1);
		*ret_open = o;
	}
	pthread_mutex_unlock(&sh->lock);
	return r < 0 ? err_set(err, r, "%s/objects/%s: %s", s->dir, name, strerror(-r)) : r;
}

int flip_store_put(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], const void *data, size_t size,
                   bool *ret_was_there, struct err *err)
{
	struct flip_object *o = NULL;
	int r;

	if (s->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	r = find_for_put(s, digest, size, &o, err);
	if (r < 0)
		return r;
	if (r == 1) {
		*ret_was_there = true;
		return 0;
	}
	if (o) { /* those who wait for it see it complete */
		r = flip_object_write(o, data, size, 0, true, err);
		flip_object_unref(o);
		if (r == 0)
			*ret_was_there = false;
		return r;
	}
	r = flip_store_make_room(s, size, true, err);
	if (r == 0) {
		r = flip_store_put_new(s, digest, data, size, ret_was_there, err);
		if (r == -ENOSPC && flip_store_emergency_gc(s) == 0)
			r = flip_store_put_new(s, digest, data, size, ret_was_there, err);
	}
	return r;
}

int flip_store_put_file(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], const char *path,
                        bool *ret_was_there, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct flip_object *o = NULL;
	bool was_there = true;
	struct stat st;
	int r;

	if (s->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a regular file", path);
	r = find_for_put(s, digest, (uint64_t)st.st_size, &o, err);
	if (r < 0)
		return r;
	/* Whoever waits for one that is arriving gets its bytes where they are asked for; the next to open it finds
	 * this. */
	flip_object_unref(o);
	if (r == 0) {
		r = name_object(s, digest, fd, true, AT_FDCWD, path, (uint64_t)st.st_size, &was_there);
		if (r < 0)
			return err_set(err, r, "%s: into the store: %s", path, strerror(-r));
	}
	if (was_there && unlink(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	*ret_was_there = was_there;
	return 0;
}
