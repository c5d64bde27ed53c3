/* An owner of contents for the tests of the FUSE file system: a few files of a folder, made up of a pattern, that can
 * be incomplete, slow or broken on demand. Its settings and counters are in shared memory, so that a test can turn
 * them while the file system runs in another process, and outlives it. */
#ifndef TEST_FUSEFS_OWNER_H
#define TEST_FUSEFS_OWNER_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fusefs/fusefs.h"

enum { OWNER_FILES = 64, OWNER_DELAYED = 4096 };

struct owner_shared {
	atomic_ulong size[OWNER_FILES + 1]; /* by id; ids count from 1 */
	atomic_bool complete[OWNER_FILES + 1];
	atomic_int n_fail[OWNER_FILES + 1]; /* so many reads fail, -1: all */
	atomic_int delay_ms;                /* of each read of what is not complete; -1: never answered */
	atomic_ulong n_reads, n_opened, n_closed;
};

struct owner_delayed {
	struct flip_fs_read *read;
	uint64_t id, offset, size;
	int64_t due_ms;
};

struct owner {
	char dir[256];
	struct owner_shared *shared;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct owner_delayed delayed[OWNER_DELAYED];
	size_t n_delayed;
	bool is_ending;
};

static inline uint8_t owner_byte(uint64_t id, uint64_t offset)
{
	uint64_t x = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull + id * 0xbf58476d1ce4e5b9ull;

	return (uint8_t)((x ^ x >> 31) >> (offset % 8 * 8));
}

static inline void owner_digest(uint64_t id, uint8_t digest[32])
{
	for (size_t i = 0; i < 32; i++)
		digest[i] = (uint8_t)(id * 7 + i);
}

/* "/objects/ab/cdef..." below the mount */
static inline void owner_path(const char *mountpoint, uint64_t id, char *path, size_t size)
{
	uint8_t digest[32];
	int n = snprintf(path, size, "%s/objects/", mountpoint);

	owner_digest(id, digest);
	for (size_t i = 0; i < 32; i++)
		n += snprintf(path + n, size - (size_t)n, i == 1 ? "/%02x" : "%02x", digest[i]);
}

static inline void owner_file(const struct owner *o, uint64_t id, char *path, size_t size)
{
	(void)snprintf(path, size, "%s/%llu", o->dir, (unsigned long long)id);
}

static inline int64_t owner_now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline int owner_add(struct owner *o, uint64_t id, uint64_t size, bool complete)
{
	uint8_t *data = malloc(size ? size : 1);
	char path[300];
	int fd, ok;

	owner_file(o, id, path, sizeof(path));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (uint64_t i = 0; data && i < size; i++)
		data[i] = owner_byte(id, i);
	ok = fd >= 0 && data && write(fd, data, size) == (ssize_t)size;
	if (fd >= 0)
		(void)close(fd);
	free(data);
	o->shared->size[id] = size;
	atomic_store(&o->shared->complete[id], complete);
	return ok ? 0 : -EIO;
}

/* ---- What the file system asks ---------------------------------------------------------------------------- */

static inline uint64_t owner_find(void *arg, const uint8_t digest[32], uint64_t *ret_size)
{
	struct owner *o = arg;

	for (uint64_t id = 1; id <= OWNER_FILES; id++) {
		uint8_t d[32];

		owner_digest(id, d);
		if (o->shared->size[id] && memcmp(d, digest, 32) == 0) {
			*ret_size = o->shared->size[id];
			return id;
		}
	}
	return 0;
}

static inline int owner_size(void *arg, uint64_t id, uint64_t *ret_size)
{
	struct owner *o = arg;

	if (id == 0 || id > OWNER_FILES || !o->shared->size[id])
		return -ENOENT;
	*ret_size = o->shared->size[id];
	return 0;
}

struct owner_handle {
	uint64_t id;
	int fd;
};

static inline int owner_open(void *arg, uint64_t id, void **ret_handle, int *ret_fd)
{
	struct owner *o = arg;
	struct owner_handle *h = malloc(sizeof(*h));
	char path[300];

	if (!h)
		return -ENOMEM;
	owner_file(o, id, path, sizeof(path));
	h->id = id;
	h->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (h->fd < 0) {
		free(h);
		return -errno;
	}
	atomic_fetch_add(&o->shared->n_opened, 1);
	*ret_handle = h;
	*ret_fd = atomic_load(&o->shared->complete[id]) ? h->fd : -1;
	return 0;
}

static inline void owner_close(void *arg, void *handle)
{
	struct owner *o = arg;
	struct owner_handle *h = handle;

	atomic_fetch_add(&o->shared->n_closed, 1);
	(void)close(h->fd);
	free(h);
}

static inline void owner_answer(struct owner *o, const struct owner_delayed *d)
{
	char path[300];
	uint8_t *data;
	int fd, fail = atomic_load(&o->shared->n_fail[d->id]);

	if (fail > 0)
		atomic_fetch_sub(&o->shared->n_fail[d->id], 1);
	if (fail) {
		flip_fs_reply_error(d->read, -EIO);
		return;
	}
	if (d->id % 2) { /* both ways of answering */
		owner_file(o, d->id, path, sizeof(path));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		flip_fs_reply_fd(d->read, fd, d->offset, d->size);
		(void)close(fd);
		return;
	}
	data = malloc(d->size);
	for (uint64_t i = 0; i < d->size; i++)
		data[i] = owner_byte(d->id, d->offset + i);
	flip_fs_reply_data(d->read, data, d->size);
	free(data);
}

static inline void owner_read(void *arg, void *handle, uint64_t offset, size_t size, struct flip_fs_read *read)
{
	struct owner *o = arg;
	struct owner_handle *h = handle;
	int delay = atomic_load(&o->shared->delay_ms);
	struct owner_delayed d = { .read = read, .id = h->id, .offset = offset, .size = size };

	atomic_fetch_add(&o->shared->n_reads, 1);
	d.due_ms = delay < 0 ? INT64_MAX : owner_now_ms() + delay;
	(void)pthread_mutex_lock(&o->lock);
	if (delay != 0 && o->n_delayed < OWNER_DELAYED) {
		o->delayed[o->n_delayed++] = d;
		(void)pthread_cond_signal(&o->changed);
		(void)pthread_mutex_unlock(&o->lock);
		return;
	}
	(void)pthread_mutex_unlock(&o->lock);
	owner_answer(o, &d);
}

/* Answers what is due, on a thread of its own; at the end all that is left, with an error. */
static inline void *owner_serve(void *arg)
{
	struct owner *o = arg;

	(void)pthread_mutex_lock(&o->lock);
	while (!o->is_ending || o->n_delayed > 0) {
		struct timespec until;
		struct owner_delayed d = { 0 };

		for (size_t i = 0; i < o->n_delayed && !d.read; i++) {
			if (o->is_ending || o->delayed[i].due_ms <= owner_now_ms()) {
				d = o->delayed[i];
				o->delayed[i] = o->delayed[--o->n_delayed];
			}
		}
		if (d.read) {
			bool is_ending = o->is_ending;

			(void)pthread_mutex_unlock(&o->lock);
			if (is_ending)
				flip_fs_reply_error(d.read, -EIO);
			else
				owner_answer(o, &d);
			(void)pthread_mutex_lock(&o->lock);
			continue;
		}
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 2000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		(void)pthread_cond_timedwait(&o->changed, &o->lock, &until);
	}
	(void)pthread_mutex_unlock(&o->lock);
	return NULL;
}

static const struct flip_fs_ops owner_ops = {
	.object_find = owner_find,
	.object_size = owner_size,
	.object_open = owner_open,
	.object_close = owner_close,
	.object_read = owner_read,
};

static inline struct owner *owner_new(const char *dir)
{
	struct owner *o = calloc(1, sizeof(*o));

	(void)snprintf(o->dir, sizeof(o->dir), "%s", dir);
	o->shared = mmap(NULL, sizeof(*o->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	(void)pthread_mutex_init(&o->lock, NULL);
	(void)pthread_cond_init(&o->changed, NULL);
	return o;
}

static inline void owner_start(struct owner *o)
{
	o->is_ending = false;
	(void)pthread_create(&o->thread, NULL, owner_serve, o);
}

/* Between flip_fs_pause() and flip_fs_stop(), which waits for the answers. */
static inline void owner_stop(struct owner *o)
{
	(void)pthread_mutex_lock(&o->lock);
	o->is_ending = true;
	(void)pthread_cond_signal(&o->changed);
	(void)pthread_mutex_unlock(&o->lock);
	(void)pthread_join(o->thread, NULL);
}

static inline void owner_free(struct owner *o)
{
	(void)munmap(o->shared, sizeof(*o->shared));
	(void)pthread_mutex_destroy(&o->lock);
	(void)pthread_cond_destroy(&o->changed);
	free(o);
}

#endif
