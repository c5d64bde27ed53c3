/* Pages that are not to stay in the page cache: those that whoever reads the file caches above us, and those of what
 * nobody has asked for. A page can only be dropped when it is clean, and writing it out takes time: for what is written
 * a thread does both, for ranges that it collects. The writer only notes a range; when notes pile up they are forgotten
 * and the kernel reclaims the pages when it wants to. What is read is dropped at once when it is clean, else after the
 * next sync, which writes it out anyway. */
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "store/store_internal.h"

enum {
	DROP_WAIT_MS = 300,        /* lets ranges of one object grow together, and small files gather */
	DROP_BATCH = 8 << 20,      /* bytes noted that end the wait */
	DROP_CEILING = 1024 << 20, /* bytes noted and not dropped yet; the disk is slower than the network then */
	DROP_AT_ONCE = 64,         /* objects */
};

/* Some of the list; each of its objects may be noted again from now on. */
static size_t take(struct flip_store *s, struct flip_object **ret_objects, uint64_t (*ret_ranges)[2], size_t max)
{
	size_t n = 0;

	while (s->drop_first && n < max) {
		struct flip_object *o = s->drop_first;

		s->drop_first = o->drop_next;
		o->is_dropping = false;
		ret_objects[n] = o;
		ret_ranges[n][0] = o->drop_begin;
		ret_ranges[n][1] = o->drop_end;
		n++;
	}
	if (!s->drop_first)
		s->drop_bytes = 0;
	return n;
}

static void drop(struct flip_object **objects, uint64_t (*ranges)[2], size_t n)
{
	/* All are started before the first is waited for. */
	for (size_t i = 0; i < n; i++) {
		int fd = flip_object_fd(objects[i]);

		if (fd >= 0)
			(void)sync_file_range(fd, (off_t)ranges[i][0], (off_t)(ranges[i][1] - ranges[i][0]),
			                      SYNC_FILE_RANGE_WRITE);
	}
	for (size_t i = 0; i < n; i++) {
		int fd = flip_object_fd(objects[i]);
		off_t begin = (off_t)ranges[i][0], size = (off_t)(ranges[i][1] - ranges[i][0]);

		if (fd >= 0) {
			(void)sync_file_range(fd, begin, size,
			                      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			                              SYNC_FILE_RANGE_WAIT_AFTER);
			(void)posix_fadvise(fd, begin, size, POSIX_FADV_DONTNEED);
		}
		flip_object_unref(objects[i]);
	}
}

static void *drop_main(void *arg)
{
	struct flip_object *objects[DROP_AT_ONCE];
	uint64_t ranges[DROP_AT_ONCE][2];
	struct flip_store *s = arg;
	size_t n;

	pthread_mutex_lock(&s->drop_lock);
	for (;;) {
		struct timespec until;

		while (!s->drop_first && !s->drop_end)
			pthread_cond_wait(&s->drop_wake, &s->drop_lock);
		if (!s->drop_first)
			break;
		(void)clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += DROP_WAIT_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		while (!s->drop_end && s->drop_bytes < DROP_BATCH &&
		       pthread_cond_timedwait(&s->drop_wake, &s->drop_lock, &until) != ETIMEDOUT)
			;
		do {
			n = take(s, objects, ranges, DROP_AT_ONCE);
			pthread_mutex_unlock(&s->drop_lock);
			drop(objects, ranges, n);
			pthread_mutex_lock(&s->drop_lock);
		} while (s->drop_first);
	}
	pthread_mutex_unlock(&s->drop_lock);
	return NULL;
}

void flip_drop_add(struct flip_object *o, uint64_t begin, uint64_t end)
{
	struct flip_store *s = o->store;

	pthread_mutex_lock(&s->drop_lock);
	if (s->drop_bytes >= DROP_CEILING || s->drop_end)
		goto out;
	if (!s->drop_started) {
		if (pthread_create(&s->drop_thread, NULL, drop_main, s) != 0)
			goto out;
		s->drop_started = true;
	}
	if (o->is_dropping) {
		o->drop_begin = begin < o->drop_begin ? begin : o->drop_begin;
		o->drop_end = end > o->drop_end ? end : o->drop_end;
	} else {
		o->is_dropping = true;
		o->drop_begin = begin;
		o->drop_end = end;
		o->drop_next = s->drop_first;
		s->drop_first = flip_object_ref(o);
	}
	s->drop_bytes += end - begin;
	pthread_cond_signal(&s->drop_wake);
out:
	pthread_mutex_unlock(&s->drop_lock);
}

void flip_object_handed_on(struct flip_object *o, uint64_t offset, size_t size)
{
	int fd;

	if (flip_object_is_complete(o))
		return;
	if (atomic_load(&o->is_dirty)) {
		atomic_store(&o->is_handed_on, true);
		return;
	}
	fd = flip_object_fd(o);
	if (fd >= 0)
		(void)posix_fadvise(fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
}

void flip_drop_synced(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	struct flip_object *o = flip_object_find(s, digest);
	bool is_wanted = o && !atomic_exchange(&o->is_handed_on, false);
	char name[STORE_NAME_SIZE];
	int fd;

	flip_object_unref(o);
	if (is_wanted)
		return;
	flip_object_name(digest, name);
	fd = openat(s->partial_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) /* complete by now */
		return;
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	(void)close(fd);
}

void flip_drop_stop(struct flip_store *s)
{
	pthread_mutex_lock(&s->drop_lock);
	s->drop_end = true;
	pthread_cond_signal(&s->drop_wake);
	pthread_mutex_unlock(&s->drop_lock);
	if (s->drop_started)
		(void)pthread_join(s->drop_thread, NULL);
	s->drop_started = false;
}
