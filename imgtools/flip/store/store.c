/* A store opened and closed: folders, lock, limits of the process. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/statfs.h>

#include "base/mapfile.h"
#include "store/store_internal.h"

enum {
	MAGIC_OVERLAY = 0x794c7630, /* include/uapi/linux/magic.h */
	MAGIC_FUSE = 0x65735546,
	MAGIC_NFS = 0x6969,
};

enum { RESERVE_BYTES = 1 << 20 };

static const uint64_t default_min_free = UINT64_C(1) << 30;

static int make_path(const char *path, struct err *err)
{
	int r = base_make_parents(path, 0755, err);

	if (r < 0)
		return r;
	/* The kernel's overlayfs enters objects/ with the rights of who mounted it; nobody else has business here. */
	return mkdir(path, 0711) < 0 && errno != EEXIST ? err_set(err, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int check_fs(struct flip_store *s, struct err *err)
{
	const char *what = NULL;
	struct statfs fs;

	if (fstatfs(s->dir_fd, &fs) < 0)
		return err_set(err, -errno, "%s: %s", s->dir, strerror(errno));
	if ((uint32_t)fs.f_type == MAGIC_OVERLAY)
		what = "overlayfs";
	else if ((uint32_t)fs.f_type == MAGIC_FUSE)
		what = "FUSE";
	else if ((uint32_t)fs.f_type == MAGIC_NFS)
		what = "NFS";
	if (what)
		return err_set(err, -ENOTSUP,
		               "%s: lies on %s; the store needs a file system of its own host (ext4, xfs)", s->dir,
		               what);
	return 0;
}

/* One for each process is enough to say who has it; the lock itself ends with the process. */
static int take_lock(struct flip_store *s, struct err *err)
{
	char pid[32] = "";
	ssize_t n;

	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0)
		return err_set(err, -errno, "%s/lock: %s", s->dir, strerror(errno));
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return err_set(err, -errno, "%s/lock: %s", s->dir, strerror(errno));
		n = pread(s->lock_fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
		return err_set(err, -EBUSY, "%s: another process%s%s has this store open", s->dir, *pid ? " " : "",
		               pid);
	}
	n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	/* Only words for others. */
	if (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, pid, (size_t)n, 0) < 0)
		return 0;
	return 0;
}

static int open_folder(struct flip_store *s, const char *name, unsigned mode, int *ret_fd, struct err *err)
{
	if (!s->opts.read_only && mkdirat(s->dir_fd, name, mode) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s/%s: %s", s->dir, name, strerror(errno));
	*ret_fd = openat(s->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (*ret_fd < 0)
		return err_set(err, -errno, "%s/%s: %s", s->dir, name, strerror(errno));
	return 0;
}

static int make_shard_folders(struct flip_store *s, int fd, const char *what, unsigned mode, struct err *err)
{
	char name[4];

	for (unsigned i = 0; i < STORE_N_SHARDS && !s->opts.read_only; i++) {
		(void)snprintf(name, sizeof(name), "%02x", i);
		if (mkdirat(fd, name, mode) < 0 && errno != EEXIST)
			return err_set(err, -errno, "%s/%s/%s: %s", s->dir, what, name, strerror(errno));
	}
	return 0;
}

static int open_folders(struct flip_store *s, struct err *err)
{
	int r = open_folder(s, "objects", 0755, &s->objects_fd, err);

	if (r == 0)
		r = open_folder(s, "partial", 0700, &s->partial_fd, err);
	if (r == 0)
		r = open_folder(s, "tmp", 0700, &s->tmp_fd, err);
	if (r == 0)
		r = open_folder(s, "layers", 0700, &s->layers_fd, err);
	if (r == 0)
		r = open_folder(s, "snapshots", 0700, &s->snapshots_fd, err);
	if (r == 0)
		r = make_shard_folders(s, s->objects_fd, "objects", 0755, err);
	if (r == 0)
		r = make_shard_folders(s, s->partial_fd, "partial", 0700, err);
	return r;
}

/* Every open object may hold a descriptor: as many as this process may have without asking anybody. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void init_locks(struct flip_store *s)
{
	pthread_condattr_t monotonic;

	(void)pthread_condattr_init(&monotonic);
	(void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	for (size_t i = 0; i < STORE_N_SHARDS; i++)
		(void)pthread_mutex_init(&s->shards[i].lock, NULL);
	(void)pthread_mutex_init(&s->slot_lock, NULL);
	(void)pthread_cond_init(&s->slot_freed, NULL);
	(void)pthread_mutex_init(&s->sync_lock, NULL);
	(void)pthread_mutex_init(&s->gc_lock, NULL);
	(void)pthread_mutex_init(&s->recount_lock, NULL);
	(void)pthread_mutex_init(&s->count_lock, NULL);
	(void)pthread_mutex_init(&s->dirty_lock, NULL);
	(void)pthread_mutex_init(&s->db_lock, NULL);
	(void)pthread_mutex_init(&s->drop_lock, NULL);
	(void)pthread_cond_init(&s->drop_wake, &monotonic);
	(void)pthread_condattr_destroy(&monotonic);
}

static void store_free(struct flip_store *s)
{
	if (!s)
		return;
	flip_db_close(s);
	for (size_t i = 0; i < STORE_N_SHARDS; i++) {
		free(s->shards[i].buckets);
		(void)pthread_mutex_destroy(&s->shards[i].lock);
	}
	(void)pthread_mutex_destroy(&s->slot_lock);
	(void)pthread_cond_destroy(&s->slot_freed);
	(void)pthread_mutex_destroy(&s->sync_lock);
	(void)pthread_mutex_destroy(&s->gc_lock);
	(void)pthread_mutex_destroy(&s->recount_lock);
	(void)pthread_mutex_destroy(&s->count_lock);
	(void)pthread_mutex_destroy(&s->dirty_lock);
	(void)pthread_mutex_destroy(&s->db_lock);
	(void)pthread_mutex_destroy(&s->drop_lock);
	(void)pthread_cond_destroy(&s->drop_wake);
	close_fdp(&s->objects_fd);
	close_fdp(&s->partial_fd);
	close_fdp(&s->tmp_fd);
	close_fdp(&s->layers_fd);
	close_fdp(&s->snapshots_fd);
	close_fdp(&s->dir_fd);
	close_fdp(&s->lock_fd); /* the last: whoever comes next finds everything closed */
	free(s->dirty);
	free(s->db_path);
	free(s->dir);
	free(s);
}

static void store_freep(struct flip_store **s)
{
	store_free(*s);
}

static struct flip_store *store_new(const struct flip_store_opts *o)
{
	static const struct flip_store_opts none;
	struct flip_store *s = calloc(1, sizeof(*s));
	uint64_t random = 0;

	if (!s)
		return NULL;
	s->opts = o ? *o : none;
	if (s->opts.min_free_bytes == 0)
		s->opts.min_free_bytes = default_min_free;
	s->dir_fd = s->objects_fd = s->partial_fd = s->tmp_fd = s->layers_fd = s->snapshots_fd = s->lock_fd = -1;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = (uint64_t)getpid();
	(void)snprintf(s->instance, sizeof(s->instance), "%016" PRIx64, random);
	init_locks(s);
	return s;
}

/* ---- The reserve: room for the database on a full disk, without which nothing could be removed any more -------- */

void flip_store_reserve(struct flip_store *s)
{
	CLEANUP(close_fdp) int fd = -1;
	struct statfs fs;

	if (s->opts.read_only || fstatfs(s->dir_fd, &fs) < 0 || (uint64_t)fs.f_bavail * fs.f_bsize < 4 * RESERVE_BYTES)
		return;
	fd = openat(s->dir_fd, "reserve", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && fallocate(fd, 0, 0, RESERVE_BYTES) < 0) /* where that cannot be done there is none */
		(void)unlinkat(s->dir_fd, "reserve", 0);
}

bool flip_store_use_reserve(struct flip_store *s)
{
	return !s->opts.read_only && unlinkat(s->dir_fd, "reserve", 0) == 0;
}

static int open_rows(struct flip_store *s, struct err *err)
{
	int r = flip_db_open(s, err);

	if (r == 0)
		r = flip_store_recover(s, err);
	return r;
}

int flip_store_open(const char *dir, const struct flip_store_opts *o, struct flip_store **ret_store, struct err *err)
{
	CLEANUP(store_freep) struct flip_store *s = store_new(o);
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	if (!s->opts.read_only) {
		r = make_path(dir, err);
		if (r < 0)
			return r;
		raise_limit();
	}
	s->dir = realpath(dir, NULL);
	if (!s->dir)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		return err_set(err, -errno, "%s: %s", s->dir, strerror(errno));
	r = check_fs(s, err);
	if (r == 0 && !s->opts.read_only)
		r = take_lock(s, err);
	if (r == 0)
		r = open_folders(s, err);
	if (r == 0)
		r = flip_store_read_boot(s->boot, err);
	if (r == 0)
		r = open_rows(s, err);
	if (r == -ENOSPC && flip_store_use_reserve(s)) {
		flip_db_close(s);
		if (err)
			err->code = 0;
		r = open_rows(s, err);
	}
	if (r < 0)
		return r;
	flip_store_reserve(s);
	*ret_store = s;
	s = NULL; /* now the caller's */
	return 0;
}

void flip_store_close(struct flip_store *s)
{
	if (!s)
		return;
	flip_drop_stop(s);
	if (!s->opts.read_only)
		(void)flip_store_sync_as(s, true, NULL); /* when it fails, the next opening knows */
	store_free(s);
}
