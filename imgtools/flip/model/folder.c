/* A folder as a model: names first, then the digests, a file for each thread at a time and the large ones first, so
 * that the last thread is not left with the largest. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "base/threadpool.h"
#include "model/flip_model.h"

enum { MAX_DEPTH = 16 };

/* ---- Names ---- */

static int add_entry(struct flip_model *m, int dir_fd, const char *name, const char *path, unsigned depth,
                     struct err *err);

static int add_folder(struct flip_model *m, int fd, const char *below, unsigned depth, struct err *err)
{
	DIR *dir = fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		r = err_set(err, -errno, "%s: %s", below, strerror(errno));
		(void)close(fd);
		return r;
	}
	if (depth > MAX_DEPTH)
		r = err_set(err, -ELOOP, "%s: folders are nested too deeply", below);
	while (r == 0 && (errno = 0, e = readdir(dir))) {
		char path[IMG_PATH_MAX];

		if (e->d_name[0] == '.') /* ".", "..", and what tools keep there */
			continue;
		if (snprintf(path, sizeof(path), "%s%s%s", below, *below ? "/" : "", e->d_name) >= (int)sizeof(path))
			r = err_set(err, -ENAMETOOLONG, "%.200s...: too long", below);
		else
			r = add_entry(m, dirfd(dir), e->d_name, path, depth, err);
	}
	if (r == 0 && errno)
		r = err_set(err, -errno, "%s: %s", below, strerror(errno));
	(void)closedir(dir);
	return r;
}

/* Links are followed to files only (Hugging Face's cache is made of them), so that no folder comes twice. */
static int add_entry(struct flip_model *m, int dir_fd, const char *name, const char *path, unsigned depth,
                     struct err *err)
{
	struct flip_model_file *f;
	struct stat st;
	int fd, r;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (S_ISLNK(st.st_mode) && (fstatat(dir_fd, name, &st, 0) < 0 || !S_ISREG(st.st_mode)))
		return err_set(err, -EINVAL, "%s: a link to what is no file", path);
	if (S_ISDIR(st.st_mode)) {
		fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		return fd < 0 ? err_set(err, -errno, "%s: %s", path, strerror(errno))
		              : add_folder(m, fd, path, depth + 1, err);
	}
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: neither file nor folder", path);
	r = flip_model_add(m, path, &f, err);
	if (r == 0)
		f->size = (uint64_t)st.st_size;
	return r;
}

/* ---- Digests ---- */

struct hashing {
	int dir_fd;
	const char *dir;
	uint32_t chunk_size;
	struct flip_model_file **files; /* the largest first */
	size_t n_files;
	_Atomic bool is_over;
	_Atomic uint64_t n_bytes;
	uint64_t n_total;
	flip_model_progress progress;
	void *arg;
	pthread_mutex_t lock;
	int r; /* protected by lock, as err */
	struct err err;
};

static int read_chunk(int fd, uint8_t *data, size_t size)
{
	for (size_t got = 0; got < size;) {
		ssize_t n = read(fd, data + got, size - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		got += (size_t)n;
	}
	return 0;
}

static int hash_file(struct hashing *h, struct flip_model_file *f, uint8_t *buf, struct err *err)
{
	CLEANUP(close_fdp) int fd = openat(h->dir_fd, f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t n = (size_t)(f->size / h->chunk_size + (f->size % h->chunk_size != 0));
	struct base_sha256 *sum = NULL;
	int r = fd < 0 ? -errno : base_sha256_new(&sum);

	if (r == 0 && n > 1) {
		f->chunks = calloc(n, sizeof(*f->chunks));
		f->n_chunks = f->chunks ? n : 0;
		r = f->chunks ? 0 : -ENOMEM;
	}
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	for (size_t i = 0; r == 0 && i < n; i++) {
		uint64_t left = f->size - (uint64_t)i * h->chunk_size;
		size_t size = left < h->chunk_size ? (size_t)left : h->chunk_size;

		r = read_chunk(fd, buf, size);
		if (r == 0 && f->n_chunks)
			r = base_sha256_bytes(buf, size, f->chunks[i]);
		if (r == 0)
			base_sha256_update(sum, buf, size);
		if (r == 0 &&
		    (atomic_load(&h->is_over) ||
		     (h->progress && h->progress(h->arg, atomic_fetch_add(&h->n_bytes, size) + size, h->n_total))))
			r = -ECANCELED;
	}
	if (r == 0 && read(fd, buf, 1) > 0)
		r = -EPIPE;
	if (r == 0)
		base_sha256_final(sum, f->sha256);
	base_sha256_free(sum);
	return r == -EPIPE ? err_set(err, r, "%s/%s: changes while it is read", h->dir, f->path)
	       : r < 0     ? err_set(err, r, "%s/%s: %s", h->dir, f->path, strerror(-r))
	                   : 0;
}

static void hash_files(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct hashing *h = arg;
	CLEANUP(freep) uint8_t *buf = malloc(h->chunk_size);
	struct err err = { 0 };
	int r = buf ? 0 : err_set(&err, -ENOMEM, "out of memory");

	(void)worker;
	for (size_t i = begin; r == 0 && i < end && !atomic_load(&h->is_over); i++)
		r = hash_file(h, h->files[i], buf, &err);
	if (r < 0) {
		(void)pthread_mutex_lock(&h->lock);
		if (h->r == 0) {
			h->r = r;
			h->err = err;
		}
		(void)pthread_mutex_unlock(&h->lock);
		atomic_store(&h->is_over, true);
	}
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = (*(struct flip_model_file *const *)a)->size, y = (*(struct flip_model_file *const *)b)->size;

	return x > y ? -1 : x < y;
}

static int hash_all(struct hashing *h, unsigned n_threads, struct err *err)
{
	struct base_threadpool *pool = NULL;
	int r = base_threadpool_new(n_threads, &pool, err);

	if (r < 0)
		return r;
	qsort(h->files, h->n_files, sizeof(*h->files), by_size);
	base_threadpool_for(pool, h->n_files, 1, hash_files, h);
	base_threadpool_free(pool);
	if (h->r < 0 && err)
		*err = h->err;
	return h->r;
}

int flip_model_of_folder(const char *dir, uint32_t chunk_size, unsigned n_threads, flip_model_progress progress,
                         void *arg, struct flip_model **ret_model, struct err *err)
{
	struct hashing h = { .dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		             .dir = dir,
		             .chunk_size = chunk_size,
		             .progress = progress,
		             .arg = arg,
		             .lock = PTHREAD_MUTEX_INITIALIZER };
	struct flip_model *m = calloc(1, sizeof(*m));
	int fd, r = h.dir_fd < 0 ? err_set(err, -errno, "%s: %s", dir, strerror(errno)) : 0;

	if (r == 0 && !m)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0) {
		fd = fcntl(h.dir_fd, F_DUPFD_CLOEXEC, 0);
		r = fd < 0 ? err_set(err, -errno, "%s: %s", dir, strerror(errno)) : add_folder(m, fd, "", 0, err);
		if (r < 0)
			(void)err_prefix(err, r, "%s: ", dir);
	}
	if (r == 0 && m->n_files == 0)
		r = err_set(err, -ENOENT, "%s: no files in it", dir);
	if (r == 0) {
		m->chunk_size = chunk_size;
		h.files = calloc(m->n_files, sizeof(*h.files));
		r = h.files ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; r == 0 && i < m->n_files; i++)
		h.files[h.n_files++] = &m->files[i];
	if (r == 0) {
		h.n_total = flip_model_size(m);
		r = hash_all(&h, n_threads, err);
	}
	if (r == 0)
		r = flip_model_settle(m, dir, err);
	free(h.files);
	(void)pthread_mutex_destroy(&h.lock);
	close_fdp(&h.dir_fd);
	if (r < 0) {
		flip_model_free(m);
		return r;
	}
	*ret_model = m;
	return 0;
}
