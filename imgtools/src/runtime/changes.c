/* What a run changed: the overlay's upper directory read as changes of the root (Documentation/filesystems/overlayfs of
 * the kernel: a character device 0/0 says "deleted", the xattr "opaque" says "what was here before is gone"). A
 * directory that is there only because something below it changed is no change. Content is hashed, so that two runs can
 * be compared after both are gone. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "runtime_internal.h"

enum { MAX_DEPTH = 256, MAX_CHANGES = 1 << 20 };

struct walk {
	const struct img_run *run;
	int *roots; /* descriptors of run->roots */
	struct img_run_result *result;
	size_t cap;
	struct err *err;
	char path[4096]; /* in the root, of what is looked at */
};

static int failed(struct walk *w, int code)
{
	return err_set(w->err, code, "%s: what the command changed cannot be read: %s", w->path, strerror(-code));
}

static bool is_mount_point(const struct walk *w)
{
	for (const char *const *p = img_run_mount_points; *p; p++) {
		bool is_tmp = strcmp(*p, "/tmp") == 0 || strcmp(*p, "/run") == 0;
		bool is_net = strncmp(*p, "/etc/", 5) == 0;

		if ((is_tmp && !w->run->fresh_tmp) || (is_net && w->run->own_network_files))
			continue;
		if (strcmp(w->path, *p) == 0)
			return true;
	}
	for (size_t i = 0; i < w->run->n_mounts; i++) {
		if (strcmp(w->path, w->run->mounts[i].target) == 0)
			return true;
	}
	return false;
}

/* A directory that had to be made for a mount point, or for the working directory. */
static bool is_above_mount_point(const struct walk *w)
{
	size_t len = strlen(w->path);

	for (const char *const *p = img_run_mount_points; *p; p++) {
		if (strncmp(*p, w->path, len) == 0 && (*p)[len] == '/')
			return true;
	}
	for (size_t i = 0; i < w->run->n_mounts; i++) {
		const char *target = w->run->mounts[i].target;

		if (strncmp(target, w->path, len) == 0 && target[len] == '/')
			return true;
	}
	return w->run->cwd && strncmp(w->run->cwd, w->path, len) == 0 &&
	       (w->run->cwd[len] == '/' || w->run->cwd[len] == '\0');
}

/* Whether the root has had this path, and as what. */
static bool was_there(const struct walk *w, struct stat *st)
{
	struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };

	for (size_t i = w->run->n_roots; i-- > 0;) {
		CLEANUP(close_fdp) int fd = (int)syscall(SYS_openat2, w->roots[i], w->path, &how, sizeof(how));

		if (fd < 0)
			continue;
		if (fstat(fd, st) < 0)
			return false;
		return !(S_ISCHR(st->st_mode) && st->st_rdev == 0);
	}
	return false;
}

static int hash_file(int dir, const char *name, uint8_t digest[BASE_SHA256_SIZE])
{
	CLEANUP(close_fdp) int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);
	CLEANUP(freep) char *chunk = malloc(65536);
	struct base_sha256 *state;
	ssize_t n;

	if (fd < 0)
		return errno == EACCES ? 0 : -errno; /* as a user: a file that its owner may not read */
	if (!chunk || base_sha256_new(&state) < 0)
		return -ENOMEM;
	while ((n = read(fd, chunk, 65536)) > 0)
		base_sha256_update(state, chunk, (size_t)n);
	base_sha256_final(state, digest);
	base_sha256_free(state);
	return n < 0 ? -errno : 0;
}

static int add_change(struct walk *w, int dir, const char *name, const struct stat *st, enum img_change_kind kind)
{
	struct img_run_result *res = w->result;
	struct img_change c = { .kind = kind };
	int r = 0;

	if (res->n_changes == MAX_CHANGES)
		return failed(w, -E2BIG);
	if (res->n_changes == w->cap) {
		size_t cap = w->cap ? w->cap * 2 : 16;
		struct img_change *list = realloc(res->changes, cap * sizeof(*list));

		if (!list)
			return failed(w, -ENOMEM);
		res->changes = list;
		w->cap = cap;
	}
	if (kind != IMG_CHANGE_DELETED) {
		c.mode = st->st_mode;
		c.size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
		if (S_ISREG(st->st_mode))
			r = hash_file(dir, name, c.sha256);
		if (S_ISLNK(st->st_mode)) {
			char target[4096];
			ssize_t n = readlinkat(dir, name, target, sizeof(target));

			c.target = n >= 0 ? strndup(target, (size_t)n) : NULL;
			if (!c.target)
				r = n < 0 ? -errno : -ENOMEM;
		}
	}
	c.path = strdup(w->path);
	if (r == 0 && !c.path)
		r = -ENOMEM;
	if (r < 0) {
		free(c.path);
		free(c.target);
		return failed(w, r);
	}
	res->changes[res->n_changes++] = c;
	return 0;
}

static int walk_dir(struct walk *w, int fd, unsigned depth);

static int walk_entry(struct walk *w, int dir, const char *name, unsigned depth)
{
	size_t len = strlen(w->path), before = w->result->n_changes;
	struct stat st, old;
	bool was;
	int r = 0, sub;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return failed(w, -errno);
	if (len + strlen(name) + 2 > sizeof(w->path))
		return failed(w, -ENAMETOOLONG);
	(void)snprintf(w->path + len, sizeof(w->path) - len, "/%s", name);
	was = was_there(w, &old);
	if (is_mount_point(w)) {
		;
	} else if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0)) {
		r = add_change(w, dir, name, &st, IMG_CHANGE_DELETED);
	} else if (S_ISDIR(st.st_mode)) {
		bool is_new = !was || !S_ISDIR(old.st_mode);
		bool is_changed = !is_new && ((st.st_mode ^ old.st_mode) & 07777) != 0;

		sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 && errno != EACCES)
			r = failed(w, -errno);
		if (is_new || is_changed)
			r = add_change(w, dir, name, &st, is_new ? IMG_CHANGE_ADDED : IMG_CHANGE_MODIFIED);
		if (r == 0 && sub >= 0)
			r = walk_dir(w, sub, depth + 1); /* closes it */
		else if (sub >= 0)
			(void)close(sub);
		/* Made by us and empty: no change of the command's. */
		if (r == 0 && is_new && w->result->n_changes == before + 1 && is_above_mount_point(w)) {
			free(w->result->changes[before].path);
			w->result->n_changes--;
		}
	} else {
		r = add_change(w, dir, name, &st, was ? IMG_CHANGE_MODIFIED : IMG_CHANGE_ADDED);
	}
	w->path[len] = '\0';
	return r;
}

static int walk_dir(struct walk *w, int fd, unsigned depth)
{
	struct dirent *de;
	DIR *dir = fdopendir(fd);
	int r = 0;

	if (!dir) {
		r = failed(w, -errno);
		(void)close(fd);
		return r;
	}
	if (depth > MAX_DEPTH)
		r = failed(w, -ELOOP);
	while (r == 0 && (de = readdir(dir))) {
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
			r = walk_entry(w, dirfd(dir), de->d_name, depth);
	}
	(void)closedir(dir);
	return r;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct img_change *)a)->path, ((const struct img_change *)b)->path);
}

int img_run_read_changes(int upper_fd, const struct img_run *run, struct img_run_result *result, struct err *err)
{
	struct walk w = { .run = run, .result = result, .err = err };
	int fd = openat(upper_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
	int roots[IMG_RUN_MAX_ROOTS];

	if (fd < 0)
		return err_set(err, -errno, "what the command changed cannot be read: %s", strerror(errno));
	for (size_t i = 0; i < run->n_roots; i++)
		roots[i] = open(run->roots[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
	w.roots = roots;
	r = walk_dir(&w, fd, 0);
	for (size_t i = 0; i < run->n_roots; i++) {
		if (roots[i] >= 0)
			(void)close(roots[i]);
	}
	if (result->n_changes)
		qsort(result->changes, result->n_changes, sizeof(*result->changes), by_path);
	return r;
}

/* ---- Removing a scratch directory --------------------------------------------------------------------------- */

static void remove_below(int fd, unsigned depth)
{
	DIR *dir = fdopendir(fd);
	struct dirent *de;

	if (!dir) {
		(void)close(fd);
		return;
	}
	while (depth < MAX_DEPTH && (de = readdir(dir))) {
		const char *name = de->d_name;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		if (unlinkat(dirfd(dir), name, 0) == 0 || (errno != EISDIR && errno != EPERM))
			continue;
		(void)fchmodat(dirfd(dir), name, 0700, 0);
		fd = openat(dirfd(dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			remove_below(fd, depth + 1);
		(void)unlinkat(dirfd(dir), name, AT_REMOVEDIR);
	}
	(void)closedir(dir);
}

void img_run_remove_tree(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0)
		remove_below(fd, 0);
	(void)rmdir(path);
}
