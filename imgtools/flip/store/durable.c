/* What survives the machine's going down.
 *
 * The kernel writes to the disk when and in what order it likes. The store counts epochs: whatever is completed carries
 * the number of the epoch in its inode's time of change (objects, set before the name is given: the journal of the file
 * system keeps that order) or in its row (layers). A sync ends the epoch, makes the file system write everything, and
 * then records the epoch as durable. When the machine was started again since (its boot id differs from the recorded
 * one), what carries a later number is hashed again, and removed when it is wrong; layers of a later number are
 * forgotten. Nothing is written for each object, no file is synced by itself.
 *
 * The bits of partial objects have a durable copy in their map (map.c), brought up to date here. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "store/store_internal.h"

enum {
	MAX_DIRTY = 1 << 17,       /* digests kept between two syncs; others lose unsynced blocks only */
	SYNC_MAPS = 512,           /* maps copied at once: descriptors */
	SYNC_MAP_BYTES = 16 << 20, /* and memory */
	N_HASHERS = 4,
};

int flip_store_read_boot(uint8_t ret_boot[STORE_BOOT_SIZE], struct err *err)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	uint8_t boot[STORE_BOOT_SIZE] = { 0 };
	char text[64];
	size_t n = 0;
	FILE *f = fopen(path, "re");

	if (!f || !fgets(text, sizeof(text), f)) {
		int r = errno ? -errno : -EIO;

		if (f)
			(void)fclose(f);
		return err_set(err, r, "%s: %s", path, strerror(-r));
	}
	(void)fclose(f);
	for (const char *p = text; *p && n < 2 * sizeof(boot); p++) {
		int value = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : -1;

		if (value < 0)
			continue;
		boot[n / 2] = (uint8_t)(boot[n / 2] << 4 | value);
		n++;
	}
	if (n != 2 * sizeof(boot))
		return err_set(err, -EBADMSG, "%s: not an id", path);
	memcpy(ret_boot, boot, sizeof(boot));
	return 0;
}

/* ---- Sync ----------------------------------------------------------------------------------------------------- */

static void dirty_append(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	if (s->n_dirty == s->cap_dirty) {
		size_t cap = s->cap_dirty ? 2 * s->cap_dirty : 64;
		void *p = cap > MAX_DIRTY ? NULL : realloc(s->dirty, cap * FLIP_DIGEST_SIZE);

		if (!p)
			return;
		s->dirty = p;
		s->cap_dirty = cap;
	}
	memcpy(s->dirty[s->n_dirty++], digest, FLIP_DIGEST_SIZE);
}

void flip_store_dirty(struct flip_object *o)
{
	struct flip_store *s = o->store;

	if (atomic_exchange(&o->is_dirty, true))
		return;
	pthread_mutex_lock(&s->dirty_lock);
	dirty_append(s, o->digest);
	pthread_mutex_unlock(&s->dirty_lock);
}

struct copy { /* of the live bits of one map */
	int fd;
	uint64_t n_blocks;
	void *bits;
};

/* 1: copied; 0: there is nothing to copy (it became complete, or was removed). The descriptor is kept: should the name
 * be given to another map meanwhile, the old one is written to, and nobody minds. */
static int copy_map(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], struct copy *ret_copy)
{
	CLEANUP(close_fdp) int fd = -1;
	CLEANUP(freep) void *bits = NULL;
	char name[STORE_NAME_SIZE + 4];
	uint8_t header[MAP_HEADER_SIZE];
	struct flip_object *o;
	struct map_head h;
	struct stat st;

	o = flip_object_find(s, digest);
	if (o) { /* before the bits are read: what comes later is noted again */
		atomic_store(&o->is_dirty, false);
		flip_object_unref(o);
	}
	flip_object_name(digest, name);
	(void)stpcpy(name + strlen(name), ".map");
	fd = openat(s->partial_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0 || flip_store_read_at(fd, header, sizeof(header), 0) < 0 ||
	    flip_map_parse(header, sizeof(header), (uint64_t)st.st_size, &h, NULL) < 0 ||
	    memcmp(h.digest, digest, FLIP_DIGEST_SIZE) != 0 || memcmp(h.boot, s->boot, STORE_BOOT_SIZE) != 0)
		return 0;
	bits = malloc((size_t)map_bits_size(h.n_blocks));
	if (!bits || flip_store_read_at(fd, bits, (size_t)map_bits_size(h.n_blocks), map_live_offset()) < 0)
		return 0;
	*ret_copy = (struct copy){ fd, h.n_blocks, bits };
	fd = -1;
	bits = NULL;
	return 1;
}

static int sync_fs(struct flip_store *s, struct err *err)
{
	return syncfs(s->dir_fd) < 0 ? err_set(err, -errno, "%s: syncing: %s", s->dir, strerror(errno)) : 0;
}

/* The maps of digests[*i...], as many as fit at once: copied, synced, written as durable. */
static int sync_maps(struct flip_store *s, uint8_t (*digests)[FLIP_DIGEST_SIZE], size_t n, size_t *i, struct err *err)
{
	CLEANUP(freep) struct copy *copies = malloc(SYNC_MAPS * sizeof(struct copy));
	uint64_t bytes = 0;
	size_t n_copies = 0;
	int r;

	if (!copies)
		return err_set(err, -ENOMEM, "out of memory");
	while (*i < n && n_copies < SYNC_MAPS && bytes < SYNC_MAP_BYTES) {
		if (copy_map(s, digests[(*i)++], &copies[n_copies]) == 1)
			bytes += map_bits_size(copies[n_copies++].n_blocks);
	}
	r = sync_fs(s, err);
	for (size_t c = 0; c < n_copies; c++) {
		uint64_t offset = map_durable_offset(copies[c].n_blocks);

		/* One that cannot be written is believed less after a power failure, no worse. */
		if (r == 0)
			(void)flip_store_write_at(copies[c].fd, copies[c].bits,
			                          (size_t)map_bits_size(copies[c].n_blocks), offset);
		(void)close(copies[c].fd);
		free(copies[c].bits);
	}
	return r;
}

static int record_durable(struct flip_store *s, uint64_t epoch, bool clean, struct err *err)
{
	int r;

	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, true, err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "durable_epoch", (int64_t)epoch, err);
	if (r == 0)
		r = flip_db_meta_set_blob(s, "boot", s->boot, STORE_BOOT_SIZE, err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "n_objects", atomic_load(&s->n_objects), err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "object_bytes", atomic_load(&s->object_bytes), err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "object_disk", atomic_load(&s->object_disk), err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "clean", clean && atomic_load(&s->is_counted), err);
	r = flip_db_end(s, r, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}

int flip_store_sync_as(struct flip_store *s, bool clean, struct err *err)
{
	uint8_t(*digests)[FLIP_DIGEST_SIZE];
	size_t n, i = 0;
	uint64_t epoch;
	int r;

	if (s->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	pthread_mutex_lock(&s->sync_lock);
	/* Who read the old number holds one of these locks until the name or row is there. */
	epoch = atomic_fetch_add(&s->epoch, 1);
	for (size_t k = 0; k < STORE_N_SHARDS; k++) {
		pthread_mutex_lock(&s->shards[k].lock);
		pthread_mutex_unlock(&s->shards[k].lock);
	}
	pthread_mutex_lock(&s->db_lock);
	pthread_mutex_unlock(&s->db_lock);

	pthread_mutex_lock(&s->dirty_lock);
	digests = s->dirty;
	n = s->n_dirty;
	s->dirty = NULL;
	s->n_dirty = s->cap_dirty = 0;
	pthread_mutex_unlock(&s->dirty_lock);

	do {
		r = sync_maps(s, digests, n, &i, err);
	} while (r == 0 && i < n);
	if (r == 0 && n > 0)
		r = sync_fs(s, err);
	if (r == 0)
		r = record_durable(s, epoch, clean, err);
	if (r < 0 && n > 0) { /* the next one tries again */
		pthread_mutex_lock(&s->dirty_lock);
		for (i = 0; i < n; i++)
			dirty_append(s, digests[i]);
		pthread_mutex_unlock(&s->dirty_lock);
	}
	for (i = 0; r == 0 && i < n; i++)
		flip_drop_synced(s, digests[i]);
	free(digests);
	pthread_mutex_unlock(&s->sync_lock);
	return r;
}

int flip_store_sync(struct flip_store *s, struct err *err)
{
	return flip_store_sync_as(s, false, err);
}

/* ---- After the machine went down ------------------------------------------------------------------------------ */

struct recheck {
	struct flip_store *store;
	uint64_t durable_epoch;
	atomic_uint next_folder;
	atomic_int_fast64_t max_epoch;
	atomic_int r;
};

struct recheck_folder {
	struct recheck *re;
	char folder[3];
};

static bool is_right(struct flip_store *s, const char *name, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	CLEANUP(close_fdp) int fd = openat(s->objects_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint8_t found[FLIP_DIGEST_SIZE];
	uint64_t size;

	return fd >= 0 && flip_store_hash_fd(fd, found, &size) == 0 && memcmp(found, digest, FLIP_DIGEST_SIZE) == 0;
}

static int recheck_object(void *arg, const char *file)
{
	struct recheck_folder *f = arg;
	struct flip_store *s = f->re->store;
	uint8_t digest[FLIP_DIGEST_SIZE];
	char name[STORE_NAME_SIZE];
	struct stat st;
	int64_t epoch, max;

	if (!flip_object_parse_name(f->folder, file, digest))
		return 0;
	flip_object_name(digest, name);
	if (fstatat(s->objects_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	epoch = (int64_t)st.st_mtim.tv_sec;
	if ((epoch < 0 || (uint64_t)epoch > f->re->durable_epoch) && !is_right(s, name, digest)) {
		if (unlinkat(s->objects_fd, name, 0) < 0 && errno != ENOENT) {
			atomic_store(&f->re->r, -errno);
			return 1;
		}
		return 0;
	}
	max = atomic_load(&f->re->max_epoch);
	while (epoch > max && !atomic_compare_exchange_weak(&f->re->max_epoch, &max, epoch))
		;
	flip_store_count(s, digest, 1, (int64_t)st.st_size);
	return 0;
}

static void *recheck_main(void *arg)
{
	struct recheck *re = arg;
	unsigned i;

	while (atomic_load(&re->r) == 0 && (i = atomic_fetch_add(&re->next_folder, 1)) < STORE_N_SHARDS) {
		struct recheck_folder f = { .re = re };
		int r;

		(void)snprintf(f.folder, sizeof(f.folder), "%02x", i);
		r = flip_store_each(re->store->objects_fd, f.folder, recheck_object, &f);
		if (r < 0)
			atomic_store(&re->r, r);
	}
	return NULL;
}

static int recheck_objects(struct flip_store *s, uint64_t durable_epoch, struct err *err)
{
	struct recheck re = { .store = s, .durable_epoch = durable_epoch };
	pthread_t threads[N_HASHERS];
	size_t n_threads = 0;
	int r;

	atomic_store(&s->n_objects, 0);
	atomic_store(&s->object_bytes, 0);
	atomic_store(&s->object_disk, 0);
	while (n_threads + 1 < N_HASHERS && pthread_create(&threads[n_threads], NULL, recheck_main, &re) == 0)
		n_threads++;
	(void)recheck_main(&re);
	while (n_threads > 0)
		(void)pthread_join(threads[--n_threads], NULL);
	r = atomic_load(&re.r);
	if (r < 0)
		return err_set(err, r, "%s/objects: %s", s->dir, strerror(-r));
	atomic_store(&s->is_counted, true);
	if (atomic_load(&re.max_epoch) >= (int64_t)atomic_load(&s->epoch))
		atomic_store(&s->epoch, (uint64_t)atomic_load(&re.max_epoch) + 1);
	return 0;
}

/* ---- After a kill --------------------------------------------------------------------------------------------- */

struct partial_folder {
	struct flip_store *store;
	char folder[3];
};

const char *flip_partial_judge(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	CLEANUP(close_fdp) int map_fd = -1;
	CLEANUP(freep) uint64_t *words = NULL;
	char name[STORE_NAME_SIZE], map_name[STORE_NAME_SIZE + 4];
	struct stat st;

	flip_object_name(digest, name);
	(void)stpcpy(stpcpy(map_name, name), ".map");
	map_fd = openat(s->partial_fd, map_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (map_fd < 0)
		return "a partial object without its map";
	if (fstatat(s->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return "the map of nothing";
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 ||
	    flip_map_load(map_fd, digest, (uint64_t)st.st_size, s->boot, true, &words, NULL) < 0)
		return "a partial object whose map does not fit";
	if (flip_store_look(s, digest, -1, NULL) == 1)
		return "a partial object that is complete in objects/";
	return NULL;
}

/* Halves without their other half, those that were just being made, and what became complete before its map went. */
static int tidy_partial(void *arg, const char *file)
{
	struct partial_folder *f = arg;
	char own[300], stem[256];
	size_t len = strlen(file);
	bool is_map = len > 4 && strcmp(file + len - 4, ".map") == 0;
	uint8_t digest[FLIP_DIGEST_SIZE];

	(void)snprintf(stem, sizeof(stem), "%.*s", (int)(is_map ? len - 4 : len), file);
	(void)snprintf(own, sizeof(own), "%s/%s", f->folder, file);
	/* The map first, whichever of them was met. */
	if (!flip_object_parse_name(f->folder, stem, digest))
		(void)flip_store_remove_tree(f->store->partial_fd, own);
	else if (flip_partial_judge(f->store, digest)) {
		flip_partial_forget(f->store, digest);
		(void)flip_store_remove_tree(f->store->partial_fd, own);
	}
	return 0;
}

static int remove_tmp(void *arg, const char *name)
{
	struct flip_store *s = arg;

	(void)flip_store_remove_tree(s->tmp_fd, name); /* what stays is found by fsck */
	return 0;
}

static void tidy(struct flip_store *s)
{
	char slot[16];

	for (unsigned i = 0; i < STORE_N_SHARDS; i++) {
		struct partial_folder f = { .store = s };

		for (unsigned k = 0; k < STORE_N_PUT_SLOTS; k++) {
			(void)snprintf(slot, sizeof(slot), "%02x/.put-%02x", i, k);
			(void)unlinkat(s->objects_fd, slot, 0);
		}
		(void)snprintf(f.folder, sizeof(f.folder), "%02x", i);
		(void)flip_store_each(s->partial_fd, f.folder, tidy_partial, &f);
	}
}

int flip_store_recover(struct flip_store *s, struct err *err)
{
	int64_t durable = 0, clean = 0, n_objects = 0, object_bytes = 0, object_disk = 0;
	uint8_t boot[STORE_BOOT_SIZE];
	bool is_known, went_down;
	int r = flip_db_meta_get(s, "durable_epoch", &durable, NULL, 0, err);

	is_known = r == 0 && flip_db_meta_get(s, "boot", NULL, boot, sizeof(boot), err) == 0;
	went_down = !is_known || memcmp(boot, s->boot, sizeof(boot)) != 0;
	(void)flip_db_meta_get(s, "clean", &clean, NULL, 0, NULL);
	(void)flip_db_meta_get(s, "n_objects", &n_objects, NULL, 0, NULL);
	(void)flip_db_meta_get(s, "object_bytes", &object_bytes, NULL, 0, NULL);
	(void)flip_db_meta_get(s, "object_disk", &object_disk, NULL, 0, NULL);
	atomic_store(&s->epoch, (uint64_t)durable + 1);
	atomic_store(&s->n_objects, n_objects);
	atomic_store(&s->object_bytes, object_bytes);
	atomic_store(&s->object_disk, object_disk);
	atomic_store(&s->is_counted, clean != 0);
	if (s->opts.read_only)
		return 0;

	(void)flip_store_each(s->tmp_fd, ".", remove_tmp, s);
	r = 0;
	if (!clean) {
		tidy(s);
		/* A database made anew knows less than the folders. */
		if (is_known)
			r = flip_layers_tidy(s, went_down ? (uint64_t)durable : INT64_MAX, err);
		if (r == 0 && is_known)
			r = flip_snapshots_tidy(s, err);
	}
	if (r < 0)
		return r;
	if (went_down && !clean) {
		r = recheck_objects(s, (uint64_t)durable, err);
		return r < 0 ? r : flip_store_sync(s, err);
	}
	/* On the disk before anything of this opening is. */
	pthread_mutex_lock(&s->db_lock);
	r = flip_db_begin(s, true, err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "object_disk", atomic_load(&s->object_disk), err);
	if (r == 0)
		r = flip_db_meta_set_int(s, "clean", 0, err);
	if (r == 0)
		r = flip_db_meta_set_blob(s, "boot", s->boot, sizeof(s->boot), err);
	r = flip_db_end(s, r, err);
	pthread_mutex_unlock(&s->db_lock);
	return r;
}
