/* Where a conversion keeps what comes and goes. The folder's lock says that its conversion lives: one that was killed
 * left a folder that anyone may lock, and the next conversion removes it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "job.h"

#define PREFIX "flip-convert-"

enum { ATTEMPTS = 100 };

static void remove_dir(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d)))
		(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		(void)closedir(d);
	(void)rmdir(path);
}

/* A descriptor with the folder's lock; -1 when another process has it, or another user. */
static int lock_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static void remove_dead(const char *base)
{
	DIR *d = opendir(base);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		CLEANUP(close_fdp) int fd = -1;
		CLEANUP(freep) char *path = NULL;

		if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0 || asprintf(&path, "%s/%s", base, e->d_name) < 0)
			continue;
		fd = lock_dir(path);
		if (fd >= 0)
			remove_dir(path);
	}
	if (d)
		(void)closedir(d);
}

/* 1, or 0 when another one took the folder for a dead one's before it was locked. */
static int make_once(const char *base, struct flip_work_dir *ret_dir, struct err *err)
{
	CLEANUP(freep) char *path = NULL;
	struct stat st;
	int fd;

	if (asprintf(&path, "%s/" PREFIX "XXXXXX", base) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	if (!mkdtemp(path))
		return err_set(err, -errno, "%s: %s", base, strerror(errno));
	fd = lock_dir(path);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink > 0) {
		ret_dir->path = path;
		ret_dir->fd = fd;
		path = NULL;
		return 1;
	}
	if (fd >= 0)
		(void)close(fd);
	return 0;
}

int flip_work_dir_make(struct flip_work_dir *ret_dir, struct err *err)
{
	const char *base = getenv("TMPDIR");
	int r = 0;

	base = base && base[0] ? base : "/var/tmp"; /* layers are too large for a /tmp in memory */
	remove_dead(base);
	for (int i = 0; r == 0 && i < ATTEMPTS; i++)
		r = make_once(base, ret_dir, err);
	if (r == 0)
		r = err_set(err, -EAGAIN, "%s: no folder can be made", base);
	return r < 0 ? r : 0;
}

void flip_work_dir_done(struct flip_work_dir *d)
{
	if (d->path)
		remove_dir(d->path);
	free(d->path);
	close_fdp(&d->fd);
	*d = (struct flip_work_dir){ .fd = -1 };
}
