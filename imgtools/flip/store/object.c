/* Open objects: a table in 256 shards by the first byte of the digest, as the folders on disk. A shard's lock guards
 * its part of the table and every change of names in its folders, so that looking whether a file is there, opening it,
 * giving it its name and removing it exclude each other, while different shards do not meet.
 *
 * Opening touches as little as it can: what is complete costs one stat and no descriptor, what is not there costs
 * nothing more until its first bytes come. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/sha256.h"
#include "store/store_internal.h"

enum { FIRST_BUCKETS = 16 };

static size_t bucket_of(const struct shard *sh, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	uint64_t h;

	memcpy(&h, digest + 8, sizeof(h)); /* of a SHA-256: as good as random */
	return (size_t)h & (sh->n_buckets - 1);
}

struct flip_object *flip_shard_find(struct shard *sh, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	struct flip_object *o;

	if (sh->n_buckets == 0)
		return NULL;
	for (o = sh->buckets[bucket_of(sh, digest)]; o; o = o->next) {
		if (memcmp(o->digest, digest, FLIP_DIGEST_SIZE) == 0)
			return o;
	}
	return NULL;
}

static int shard_grow(struct shard *sh)
{
	size_t n_old = sh->n_buckets, n = n_old ? 2 * n_old : FIRST_BUCKETS;
	struct flip_object **old = sh->buckets, **buckets = calloc(n, sizeof(struct flip_object *));

	if (!buckets)
		return -ENOMEM;
	sh->buckets = buckets;
	sh->n_buckets = n;
	for (size_t i = 0; i < n_old; i++) {
		while (old[i]) {
			struct flip_object *o = old[i];
			size_t b = bucket_of(sh, o->digest);

			old[i] = o->next;
			o->next = buckets[b];
			buckets[b] = o;
		}
	}
	free(old);
	return 0;
}

static int shard_list(struct shard *sh, struct flip_object *o)
{
	size_t b;

	if (sh->n >= sh->n_buckets && shard_grow(sh) < 0)
		return -ENOMEM;
	b = bucket_of(sh, o->digest);
	o->next = sh->buckets[b];
	sh->buckets[b] = o;
	sh->n++;
	o->is_listed = true;
	return 0;
}

void flip_shard_unlist(struct shard *sh, struct flip_object *o)
{
	struct flip_object **p;

	if (!o->is_listed)
		return;
	for (p = &sh->buckets[bucket_of(sh, o->digest)]; *p != o; p = &(*p)->next)
		;
	*p = o->next;
	sh->n--;
	o->is_listed = false;
}

int flip_store_look(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], int64_t touch_s, uint64_t *ret_size)
{
	char name[STORE_NAME_SIZE];
	struct stat st;

	flip_object_name(digest, name);
	if (fstatat(s->objects_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (touch_s >= 0 && !s->opts.read_only) {
		int64_t age_s = flip_store_now_s() - (int64_t)st.st_atim.tv_sec;

		if (age_s > touch_s || age_s < -touch_s) {
			struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, { .tv_nsec = UTIME_OMIT } };

			/* Only the order of eviction suffers when this fails. */
			(void)utimensat(s->objects_fd, name, times, AT_SYMLINK_NOFOLLOW);
		}
	}
	if (ret_size)
		*ret_size = (uint64_t)st.st_size;
	return 1;
}

void flip_partial_forget(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	char name[STORE_NAME_SIZE], map_name[STORE_NAME_SIZE + 4];

	flip_object_name(digest, name);
	(void)stpcpy(stpcpy(map_name, name), ".map");
	if (unlinkat(s->partial_fd, map_name, 0) == 0)
		(void)unlinkat(s->partial_fd, name, 0);
}

bool flip_store_has(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t *ret_size)
{
	return flip_store_look(s, digest, -1, ret_size) == 1;
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

static void object_free(struct flip_object *o)
{
	int fd = atomic_load(&o->read_fd);

	if (fd >= 0)
		(void)close(fd);
	close_fdp(&o->write_fd);
	close_fdp(&o->map_fd);
	free(o->edges);
	free((void *)o->bits);
	(void)pthread_mutex_destroy(&o->lock);
	flip_sum_free(o);
	free(o);
}

static struct flip_object *object_new(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE],
                                      const uint8_t content[FLIP_DIGEST_SIZE], uint64_t size)
{
	struct flip_object *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->store = s;
	memcpy(o->digest, digest, FLIP_DIGEST_SIZE);
	memcpy(o->content, content, FLIP_DIGEST_SIZE);
	o->size = size;
	o->n_blocks = map_n_blocks(size);
	o->n_missing = o->n_blocks;
	o->write_fd = o->map_fd = -1;
	atomic_init(&o->read_fd, -1);
	atomic_init(&o->n_refs, 1);
	(void)pthread_mutex_init(&o->lock, NULL);
	(void)pthread_mutex_init(&o->sum_lock, NULL);
	return o;
}

/* The partial files of an earlier opening, when they are of use; else they are removed. */
static int load_partial(struct flip_object *o, struct err *err)
{
	CLEANUP(close_fdp) int data_fd = -1;
	CLEANUP(close_fdp) int map_fd = -1;
	struct flip_store *s = o->store;
	int flags = (s->opts.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW, r;
	char name[STORE_NAME_SIZE], map_name[STORE_NAME_SIZE + 4];
	uint64_t *words = NULL;
	struct stat st;

	flip_object_name(o->digest, name);
	(void)stpcpy(stpcpy(map_name, name), ".map");
	data_fd = openat(s->partial_fd, name, flags);
	if (data_fd < 0)
		return errno == ENOENT ? 0 : err_set(err, -errno, "%s/partial/%s: %s", s->dir, name, strerror(errno));
	map_fd = openat(s->partial_fd, map_name, flags);
	r = map_fd < 0 ? -errno : 0;
	if (r == 0 && (fstat(data_fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != o->size))
		r = -EBADMSG;
	if (r == 0)
		r = flip_map_load(map_fd, o->digest, o->size, s->boot, s->opts.read_only, &words, NULL);
	if (r < 0 && r != -EBADMSG && r != -ENOENT && r != -EFBIG)
		return err_set(err, r, "%s/partial/%s: %s", s->dir, name, strerror(-r));
	if (r < 0) { /* of no use: begun anew */
		if (!s->opts.read_only) {
			(void)unlinkat(s->partial_fd, map_name, 0);
			(void)unlinkat(s->partial_fd, name, 0);
		}
		return 0;
	}
	o->n_missing = o->n_blocks - flip_map_tidy(words, o->n_blocks);
	o->bits = (_Atomic uint64_t *)words;
	o->write_fd = data_fd;
	o->map_fd = map_fd;
	data_fd = map_fd = -1;
	/* Killed between the last bit and the name. What gets another name is finished when no lock is held. */
	if (o->n_missing == 0 && !s->opts.read_only && !is_unverified(o))
		return flip_object_finish(o, true, err);
	return 0;
}

/* Under shard->lock, for what is not open yet. */
static int load_object(struct flip_object *o, struct err *err)
{
	uint64_t size = 0;
	int r = flip_store_look(o->store, o->content, STORE_TOUCH_OPEN_S, &size);
	char name[STORE_NAME_SIZE];

	flip_object_name(o->content, name);
	if (r < 0)
		return err_set(err, r, "%s/objects/%s: %s", o->store->dir, name, strerror(-r));
	if (r == 0)
		return load_partial(o, err);
	if (size != o->size)
		return err_set(err, -EBADMSG, "%s/objects/%s: %llu bytes, %llu were asked for", o->store->dir, name,
		               (unsigned long long)size, (unsigned long long)o->size);
	o->n_missing = 0;
	atomic_store(&o->is_complete, true);
	return 0;
}

static int open_listed(struct flip_object *o, uint64_t size, struct err *err)
{
	if (o->size != size)
		return err_set(err, -EBADMSG, "an object is open with %llu bytes, %llu were asked for",
		               (unsigned long long)o->size, (unsigned long long)size);
	atomic_fetch_add(&o->n_refs, 1);
	return 0;
}

/* An empty content is there as soon as somebody asks for it: nothing has to arrive. */
static int make_empty(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], struct err *err)
{
	uint8_t empty[FLIP_DIGEST_SIZE];
	bool was_there;

	if (base_sha256_bytes("", 0, empty) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	if (memcmp(empty, digest, FLIP_DIGEST_SIZE) != 0)
		return err_set(err, -EBADMSG, "an object of 0 bytes whose digest is not that of nothing");
	return flip_store_put(s, digest, "", 0, &was_there, err);
}

static int open_object(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE],
                       const uint8_t content[FLIP_DIGEST_SIZE], uint64_t size, struct flip_object **ret_object,
                       struct err *err)
{
	struct shard *sh = shard_of(s, digest);
	struct flip_object *o;
	int r = 0;

	if (size > STORE_MAX_OBJECT)
		return err_set(err, -EFBIG, "an object of %llu bytes", (unsigned long long)size);
	if (size == 0 && !s->opts.read_only) {
		r = make_empty(s, content, err);
		if (r < 0)
			return r;
	}
	pthread_mutex_lock(&sh->lock);
	o = flip_shard_find(sh, digest);
	if (o) {
		r = open_listed(o, size, err);
	} else {
		o = object_new(s, digest, content, size);
		r = o ? load_object(o, err) : err_set(err, -ENOMEM, "out of memory");
		if (r == 0 && shard_list(sh, o) < 0)
			r = err_set(err, -ENOMEM, "out of memory");
		if (r < 0 && o)
			object_free(o);
	}
	pthread_mutex_unlock(&sh->lock);
	if (r < 0)
		return r;
	*ret_object = o;
	return 0;
}

int flip_object_open(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size,
                     struct flip_object **ret_object, struct err *err)
{
	return open_object(s, digest, digest, size, ret_object, err);
}

/* ---- What cannot be verified in parts --------------------------------------------------------------------------- */

int flip_store_unverified_name(const uint8_t digest[FLIP_DIGEST_SIZE], uint8_t ret_name[FLIP_DIGEST_SIZE])
{
	static const char prefix[] = "flip: not verified in parts";
	uint8_t text[sizeof(prefix) + FLIP_DIGEST_SIZE];

	memcpy(text, prefix, sizeof(prefix));
	memcpy(text + sizeof(prefix), digest, FLIP_DIGEST_SIZE);
	return base_sha256_bytes(text, sizeof(text), ret_name);
}

int flip_object_open_unverified(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size,
                                struct flip_object **ret_object, struct err *err)
{
	uint8_t name[FLIP_DIGEST_SIZE];
	struct flip_object *o;
	int r = flip_store_unverified_name(digest, name);

	if (r < 0)
		return err_set(err, r, "out of memory");
	if (size == 0 || flip_store_has(s, digest, NULL))
		return flip_object_open(s, digest, size, ret_object, err);
	r = open_object(s, name, digest, size, &o, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&o->lock);
	if (o->n_missing == 0 && !flip_object_is_complete(o) && !s->opts.read_only)
		r = flip_object_finish(o, false, err);
	pthread_mutex_unlock(&o->lock);
	if (r < 0) {
		flip_object_unref(o);
		return r;
	}
	*ret_object = o;
	return 0;
}

struct flip_object *flip_object_find(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	struct shard *sh = shard_of(s, digest);
	struct flip_object *o;

	pthread_mutex_lock(&sh->lock);
	o = flip_shard_find(sh, digest);
	if (o)
		atomic_fetch_add(&o->n_refs, 1);
	pthread_mutex_unlock(&sh->lock);
	return o;
}

struct flip_object *flip_object_ref(struct flip_object *o)
{
	atomic_fetch_add(&o->n_refs, 1);
	return o;
}

/* Somebody may have put the whole meanwhile: then nobody will look for the parts. Under shard->lock, the last use. */
static void leave_partial(struct flip_object *o)
{
	if (!flip_object_is_complete(o) && o->write_fd >= 0 && !o->store->opts.read_only &&
	    flip_store_look(o->store, o->content, -1, NULL) == 1)
		flip_partial_forget(o->store, o->digest);
}

void flip_object_unref(struct flip_object *o)
{
	unsigned n = o ? atomic_load(&o->n_refs) : 0;
	struct shard *sh;
	bool is_last;

	if (!o)
		return;
	while (n > 1) { /* the last one goes under the lock, so that nobody finds what is being freed */
		if (atomic_compare_exchange_weak(&o->n_refs, &n, n - 1))
			return;
	}
	sh = shard_of(o->store, o->digest);
	pthread_mutex_lock(&sh->lock);
	is_last = atomic_fetch_sub(&o->n_refs, 1) == 1;
	if (is_last) {
		flip_shard_unlist(sh, o);
		leave_partial(o);
	}
	pthread_mutex_unlock(&sh->lock);
	if (is_last)
		object_free(o);
}

/* ---- Questions ------------------------------------------------------------------------------------------------ */

bool flip_object_is_complete(const struct flip_object *o)
{
	return atomic_load_explicit(&o->is_complete, memory_order_acquire);
}

uint64_t flip_object_size(const struct flip_object *o)
{
	return o->size;
}

int flip_object_fd(const struct flip_object *object)
{
	struct flip_object *o = (struct flip_object *)object; /* opened at the first question: the same to the caller */
	int fd = atomic_load_explicit(&o->read_fd, memory_order_acquire), r = 0;
	char name[STORE_NAME_SIZE];

	if (fd >= 0)
		return fd;
	pthread_mutex_lock(&o->lock);
	fd = atomic_load(&o->read_fd);
	if (fd < 0) {
		if (!flip_object_is_complete(o) && o->write_fd < 0)
			r = flip_object_make_files(o, NULL);
		flip_object_name(flip_object_is_complete(o) ? o->content : o->digest, name);
		if (r == 0) {
			fd = openat(flip_object_is_complete(o) ? o->store->objects_fd : o->store->partial_fd, name,
			            O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
			r = fd < 0 ? -errno : 0;
		}
		/* The holes of a sparse file would be read ahead as zeros, and who reads it reads ahead himself. */
		if (r == 0 && !flip_object_is_complete(o))
			(void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
		if (r == 0)
			atomic_store_explicit(&o->read_fd, fd, memory_order_release);
	}
	pthread_mutex_unlock(&o->lock);
	return r < 0 ? r : fd;
}

bool flip_object_has(const struct flip_object *o, uint64_t offset, uint64_t size)
{
	_Atomic uint64_t *bits;
	uint64_t end, first;

	if (flip_object_is_complete(o) || size == 0 || offset >= o->size)
		return true;
	bits = __atomic_load_n(&o->bits, __ATOMIC_ACQUIRE);
	if (!bits)
		return flip_object_is_complete(o);
	end = size < o->size - offset ? offset + size : o->size;
	first = offset / FLIP_STORE_BLOCK;
	return flip_map_has(bits, first, map_n_blocks(end) - first);
}

int flip_object_next_missing(const struct flip_object *o, uint64_t offset, uint64_t *ret_offset, uint64_t *ret_size)
{
	uint64_t first = offset / FLIP_STORE_BLOCK, n, begin, end;
	_Atomic uint64_t *bits;

	if (flip_object_is_complete(o) || offset >= o->size)
		return 0;
	bits = __atomic_load_n(&o->bits, __ATOMIC_ACQUIRE);
	if (!bits) {
		if (flip_object_is_complete(o))
			return 0;
		n = o->n_blocks - first;
	} else if (!flip_map_missing(bits, o->n_blocks, first, &first, &n)) {
		/* Who set the last bit may be hashing the whole under the lock: then it is complete, or refused. */
		pthread_mutex_lock((pthread_mutex_t *)&o->lock);
		pthread_mutex_unlock((pthread_mutex_t *)&o->lock);
		return 0;
	}
	begin = first * FLIP_STORE_BLOCK > offset ? first * FLIP_STORE_BLOCK : offset;
	end = (first + n) * FLIP_STORE_BLOCK < o->size ? (first + n) * FLIP_STORE_BLOCK : o->size;
	*ret_offset = begin;
	*ret_size = end - begin;
	return 1;
}
