/* Mapping, reading and atomically replacing files; making folders and going through them. */
#include "base/mapfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

int base_mapfile_open(const char *path, struct base_mapfile *ret_map, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct stat st;
	void *p;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "%s: not a regular file", path);
	if (st.st_size == 0) {
		*ret_map = (struct base_mapfile){ .dev = st.st_dev, .ino = st.st_ino };
		return 0;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return err_set(err, -errno, "%s: cannot map: %s", path, strerror(errno));
	*ret_map = (struct base_mapfile){
		.data = p, .size_bytes = (size_t)st.st_size, .dev = st.st_dev, .ino = st.st_ino
	};
	return 0;
}

void base_mapfile_close(struct base_mapfile *map)
{
	if (map->data)
		(void)munmap((void *)map->data, map->size_bytes);
	*map = (struct base_mapfile){ 0 };
}

void base_mapfile_cool(const struct base_mapfile *map)
{
	if (map->data)
		(void)madvise((void *)map->data, map->size_bytes,
		              MADV_DONTNEED); /* of a shared mapping: nothing is lost */
}

void base_mapfile_cool_part(const struct base_mapfile *map, const void *data, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), begin = (size_t)((const uint8_t *)data - map->data),
	       end = begin + size;

	begin = (begin + page - 1) / page * page;
	end = end / page * page;
	if (map->data && begin < end && end <= map->size_bytes)
		(void)madvise((void *)(map->data + begin), end - begin, MADV_DONTNEED);
}

int base_read_file(const char *path, struct base_buf *buf, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	char chunk[16384];
	ssize_t n;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (;;) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (n == 0)
			return base_buf_reserve(buf, 0);
		r = base_buf_append(buf, chunk, (size_t)n);
		if (r < 0)
			return err_set(err, r, "%s: larger than the limit of %zu bytes", path, buf->max);
	}
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int base_write_file_atomic(const char *path, const void *data, size_t len, unsigned mode, struct err *err)
{
	CLEANUP(freep) char *tmp = NULL;
	CLEANUP(close_fdp) int fd = -1;
	int r;

	if (asprintf(&tmp, "%s.XXXXXX", path) < 0) {
		tmp = NULL;
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", tmp, strerror(errno));
	r = write_all(fd, data, len);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0))
		r = -errno;
	if (r < 0) {
		(void)unlink(tmp);
		return err_set(err, r, "%s: %s", path, strerror(-r));
	}
	return 0;
}

static int make_folder(const char *path, unsigned mode, struct err *err)
{
	struct stat st;
	int code;

	if (mkdir(path, mode) == 0)
		return 0;
	code = errno; /* not always EEXIST where there is one: a read-only file system, a folder of others */
	if (stat(path, &st) < 0)
		return err_set(err, -code, "%s: %s", path, strerror(code));
	return S_ISDIR(st.st_mode) ? 0 : err_set(err, -ENOTDIR, "%s: not a folder", path);
}

int base_make_parents(const char *path, unsigned mode, struct err *err)
{
	char part[PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof(part))
		return err_set(err, -ENAMETOOLONG, "%.100s...: the name is too long", path);
	memcpy(part, path, n + 1);
	for (char *slash = *part ? strchr(part + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
		int r;

		*slash = '\0';
		r = make_folder(part, mode, err);
		if (r < 0)
			return r;
		*slash = '/';
	}
	return 0;
}

int base_make_folders(const char *path, unsigned mode, struct err *err)
{
	int r = base_make_parents(path, mode, err);

	return r < 0 ? r : make_folder(path, mode, err);
}

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), n_suffix = strlen(suffix);

	return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int call_for(const char *folder, const char *name, int (*fn)(void *arg, const char *path, struct err *err),
                    void *arg, struct err *err)
{
	char *path;
	int r;

	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = fn(arg, path, err);
	free(path);
	return r;
}

int base_each_file(const char *path, const char *suffix, int (*fn)(void *arg, const char *path, struct err *err),
                   void *arg, struct err *err)
{
	struct dirent **names;
	struct stat st;
	int n, r = 0;

	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return fn(arg, path, err);
	n = scandir(path, &names, NULL, by_bytes);
	if (n < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	for (int i = 0; i < n; i++) {
		if (r == 0 && ends_in(names[i]->d_name, suffix))
			r = call_for(path, names[i]->d_name, fn, arg, err);
		free(names[i]);
	}
	free(names);
	return r;
}
