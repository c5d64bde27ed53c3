/* A tree written as a root. Everything is made through the descriptor of the directory it goes into, and those are
 * opened by paths that follow no link: what else happens in the file system meanwhile, nothing is written outside.
 *
 * Directories are made 0700 and get their owner, mode, attributes and times last, from the deepest up: by then nothing
 * is added to them any more. Owner before mode before attributes: changing the owner clears set-uid bits and
 * capabilities. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tree_internal.h"

enum { COPY_SIZE = 1 << 18, MAX_LINK_GROUP = 1 << 26 };

struct write {
	struct img_tree *tree;
	const char *root;
	const struct img_write_opts *opts;
	char *absolute; /* path of the root */
	int root_fd;
	int dir_fd; /* of the directory `dir`; -1: none yet */
	char dir[IMG_PATH_MAX];
	struct img_node **first; /* by link group: the name that was written */
	uint32_t max_group;
	bool is_root;
	size_t n_skipped;
	char *buffer;
	struct err *err;
};

static int fail(struct write *w, int r, const char *path)
{
	return err_set(w->err, r, "%s%s: %s", w->root, path, strerror(-r));
}

static const char *name_of(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* Makes w->dir_fd the directory that `path` is in. */
static int enter_parent(struct write *w, const char *path)
{
	size_t len = (size_t)(strrchr(path, '/') - path);
	int fd;

	if (w->dir_fd >= 0 && strlen(w->dir) == len && memcmp(w->dir, path, len) == 0)
		return 0;
	close_fdp(&w->dir_fd);
	w->dir_fd = -1;
	memcpy(w->dir, path, len);
	w->dir[len] = '\0';
	fd = img_open_beneath(w->root_fd, w->dir, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fail(w, fd, path);
	w->dir_fd = fd;
	return 0;
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

/* What a user may not do, or the file system below cannot keep, is counted and passed over. */
static int tolerate(struct write *w, int error, const char *path)
{
	bool is_refused = error == EPERM || error == EACCES || error == EINVAL || error == ENOTSUP;

	if ((is_refused && !w->is_root) || error == ENOTSUP) {
		w->n_skipped++;
		return 0;
	}
	return fail(w, -error, path);
}

static void times_of(const struct write *w, const struct img_node *n, struct timespec ts[2])
{
	int64_t clamp = w->opts->clamp_mtime;

	ts[0] = (struct timespec){ .tv_nsec = UTIME_OMIT };
	ts[1] = (struct timespec){ .tv_sec = n->mtime_s, .tv_nsec = n->mtime_ns };
	if (clamp >= 0 && n->mtime_s >= clamp)
		ts[1] = (struct timespec){ .tv_sec = clamp };
}

static int put_xattrs(struct write *w, const struct img_node *n)
{
	char host[IMG_FD_PATH_SIZE];
	int r = 0;

	img_fd_path(w->dir_fd, n->path[1] ? name_of(n->path) : ".", host);
	for (size_t i = 0; r == 0 && i < n->n_xattrs; i++) {
		const struct img_xattr *x = &n->xattrs[i];

		if (lsetxattr(host, x->name, x->value, x->size, 0) < 0)
			r = tolerate(w, errno, n->path);
	}
	return r;
}

/* All of a node that is in its inode, by its name in w->dir_fd. */
static int put_attributes(struct write *w, const struct img_node *n)
{
	const char *name = n->path[1] ? name_of(n->path) : ".";
	struct timespec ts[2];
	int r = 0;

	if (fchownat(w->dir_fd, name, n->uid, n->gid, AT_SYMLINK_NOFOLLOW) < 0)
		r = tolerate(w, errno, n->path);
	if (r == 0 && n->type != IMG_SYMLINK && fchmodat(w->dir_fd, name, n->mode, AT_SYMLINK_NOFOLLOW) < 0)
		r = fail(w, -errno, n->path);
	if (r == 0)
		r = put_xattrs(w, n);
	times_of(w, n, ts);
	if (r == 0 && utimensat(w->dir_fd, name, ts, AT_SYMLINK_NOFOLLOW) < 0)
		r = fail(w, -errno, n->path);
	return r;
}

/* ---- Bytes of files --------------------------------------------------------------------------------------- */

static int write_all(struct write *w, int fd, const char *data, size_t size, uint64_t offset, const char *path)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(w, -errno, path);
		data += n;
		size -= (size_t)n;
		offset += (size_t)n;
	}
	return 0;
}

/* One run of data from the source: in the kernel where it can, by hand where it cannot. */
static int copy_range(struct write *w, int in, int out, uint64_t offset, uint64_t size, const char *path)
{
	bool by_kernel = true;
	off_t from = (off_t)offset, to = (off_t)offset;
	int r;

	while (size) {
		size_t want = size < (1u << 30) ? (size_t)size : 1u << 30;
		ssize_t n = 0;

		if (by_kernel) {
			n = copy_file_range(in, &from, out, &to, want, 0);
			by_kernel = n > 0;
		}
		if (!by_kernel) {
			n = pread(in, w->buffer, want < COPY_SIZE ? want : COPY_SIZE, from);
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return fail(w, -errno, path);
			if (n == 0)
				return err_set(w->err, -EIO, "%s: ends at byte %llu, its size was larger", path,
				               (unsigned long long)from);
			r = write_all(w, out, w->buffer, (size_t)n, (uint64_t)to, path);
			if (r < 0)
				return r;
			from += n;
			to += n;
		}
		size -= (uint64_t)n;
	}
	return 0;
}

static int copy_source(struct write *w, int in, int out, const struct img_node *n)
{
	uint64_t offset = 0;
	int r = 0;

	while (r == 0 && offset < n->size) {
		off_t data = lseek(in, (off_t)offset, SEEK_DATA), hole;
		struct stat st;

		if (data < 0 && errno == ENXIO) { /* a hole up to the end */
			if (fstat(in, &st) < 0 || (uint64_t)st.st_size < n->size)
				return err_set(w->err, -EIO, "%s: shorter than its %llu bytes", n->source,
				               (unsigned long long)n->size);
			break;
		}
		hole = data < 0 ? -1 : lseek(in, data, SEEK_HOLE);
		if (data < 0 || hole < 0) { /* the file system has no such thing */
			data = (off_t)offset;
			hole = (off_t)n->size;
		}
		if ((uint64_t)data >= n->size)
			break;
		if ((uint64_t)hole > n->size)
			hole = (off_t)n->size;
		r = copy_range(w, in, out, (uint64_t)data, (uint64_t)(hole - data), n->source);
		offset = (uint64_t)hole;
	}
	return r;
}

static int fill_file(struct write *w, int out, const struct img_node *n)
{
	CLEANUP(close_fdp) int in = -1;
	int r = img_node_open(n, &in, w->err);

	if (r < 0)
		return r;
	if (in >= 0)
		r = copy_source(w, in, out, n);
	else
		r = write_all(w, out, n->data, (size_t)n->size, 0, n->path);
	if (r == 0 && ftruncate(out, (off_t)n->size) < 0)
		r = fail(w, -errno, n->path);
	return r;
}

/* ---- Nodes ------------------------------------------------------------------------------------------------ */

static int make_link(struct write *w, const struct img_node *n, const struct img_node *first)
{
	CLEANUP(close_fdp) int fd = -1;
	char dir[IMG_PATH_MAX];
	size_t len = (size_t)(strrchr(first->path, '/') - first->path);

	memcpy(dir, first->path, len);
	dir[len] = '\0';
	fd = img_open_beneath(w->root_fd, dir, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return fail(w, fd, first->path);
	if (linkat(fd, name_of(first->path), w->dir_fd, name_of(n->path), 0) < 0)
		return fail(w, -errno, n->path);
	return 0;
}

/* 1: moved, 0: has to be copied. */
static int try_move(struct write *w, struct img_node *n)
{
	struct stat st;
	char *source;

	if (!w->opts->move_sources || !n->source || n->data || !n->size || lstat(n->source, &st) < 0 ||
	    !S_ISREG(st.st_mode) || (uint64_t)st.st_size != n->size || st.st_nlink != 1)
		return 0;
	if (asprintf(&source, "%s%s", w->absolute, n->path) < 0)
		return fail(w, -ENOMEM, n->path);
	if (renameat2(AT_FDCWD, n->source, w->dir_fd, name_of(n->path), RENAME_NOREPLACE) < 0) {
		int r = -errno;

		free(source);
		return r == -EXDEV || r == -EINVAL ? 0 : fail(w, r, n->path);
	}
	free(n->source);
	n->source = source;
	return 1;
}

/* Another name of a file that was moved: its bytes are there now. */
static int follow_move(struct write *w, struct img_node *n, const struct img_node *first)
{
	char *source = NULL;

	if (!w->opts->move_sources || !n->source || !first->source)
		return 0;
	source = strdup(first->source);
	if (!source)
		return fail(w, -ENOMEM, n->path);
	free(n->source);
	n->source = source;
	return 0;
}

static int make_file(struct write *w, struct img_node *n)
{
	CLEANUP(close_fdp) int fd = -1;
	int r;

	if (n->link_group && w->first[n->link_group]) {
		r = make_link(w, n, w->first[n->link_group]);
		return r == 0 ? follow_move(w, n, w->first[n->link_group]) : r;
	}
	r = try_move(w, n);
	if (r != 0) {
		if (r > 0)
			r = put_attributes(w, n);
		if (r == 0 && n->link_group)
			w->first[n->link_group] = n;
		return r;
	}
	fd = openat(w->dir_fd, name_of(n->path), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(w, -errno, n->path);
	r = fill_file(w, fd, n);
	if (r == 0)
		r = put_attributes(w, n);
	if (r == 0 && n->link_group)
		w->first[n->link_group] = n;
	return r;
}

static int make_special(struct write *w, const struct img_node *n)
{
	mode_t type = n->type == IMG_CHAR    ? S_IFCHR
	              : n->type == IMG_BLOCK ? S_IFBLK
	              : n->type == IMG_FIFO  ? S_IFIFO
	                                     : S_IFSOCK;

	if (mknodat(w->dir_fd, name_of(n->path), type | 0600, makedev(n->major, n->minor)) < 0) {
		/* Devices need more than being root of a namespace. */
		if (errno == EPERM && (n->type == IMG_CHAR || n->type == IMG_BLOCK)) {
			w->n_skipped++;
			return 0;
		}
		return fail(w, -errno, n->path);
	}
	return put_attributes(w, n);
}

static int make_node(struct write *w, struct img_node *n)
{
	int r = enter_parent(w, n->path);

	if (r < 0)
		return r;
	switch (n->type) {
	case IMG_DIR:
		return mkdirat(w->dir_fd, name_of(n->path), 0700) < 0 ? fail(w, -errno, n->path) : 0;
	case IMG_SYMLINK:
		if (symlinkat(n->target, w->dir_fd, name_of(n->path)) < 0)
			return fail(w, -errno, n->path);
		return put_attributes(w, n);
	case IMG_FILE:
		return make_file(w, n);
	default:
		return make_special(w, n);
	}
}

static int is_empty_dir(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);

	if (!dir) {
		int r = -errno;

		close_fdp(&copy);
		return r;
	}
	while (n < 3 && readdir(dir))
		n++; /* "." and ".." are always there */
	(void)closedir(dir);
	return n < 3;
}

static int open_root(struct write *w)
{
	int r;

	if (mkdir(w->root, 0700) < 0 && errno != EEXIST)
		return fail(w, -errno, "");
	w->root_fd = open(w->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->root_fd < 0)
		return fail(w, -errno, "");
	r = is_empty_dir(w->root_fd);
	if (r < 0)
		return fail(w, r, "");
	return r > 0 ? 0 : fail(w, -ENOTEMPTY, "");
}

static int prepare(struct write *w)
{
	for (size_t i = 0; i < img_tree_count(w->tree); i++) {
		struct img_node *n = img_tree_at(w->tree, i);

		if (!n)
			return fail(w, -ENOMEM, "");
		if (n->link_group > w->max_group)
			w->max_group = n->link_group;
	}
	if (w->max_group > MAX_LINK_GROUP)
		return fail(w, -E2BIG, "");
	w->first = calloc((size_t)w->max_group + 1, sizeof(struct img_node *));
	w->buffer = malloc(COPY_SIZE);
	w->absolute = realpath(w->root, NULL);
	return w->first && w->buffer && w->absolute ? 0 : fail(w, -ENOMEM, "");
}

static int finish_dirs(struct write *w)
{
	int r = 0;

	for (size_t i = img_tree_count(w->tree); r == 0 && i-- > 0;) {
		struct img_node *n = img_tree_at(w->tree, i);

		if (n->type != IMG_DIR)
			continue;
		r = enter_parent(w, n->path); /* of "/": itself, and its name there is "." */
		if (r == 0)
			r = put_attributes(w, n);
	}
	return r;
}

/* Root of the machine, not of a user namespace where most owners do not exist. */
static bool is_real_root(void)
{
	unsigned inside = 0, outside = 1, count = 0;
	FILE *f;

	if (geteuid() != 0)
		return false;
	f = fopen("/proc/self/uid_map", "re");
	if (!f)
		return true;
	if (fscanf(f, "%u %u %u", &inside, &outside, &count) != 3)
		count = 0;
	(void)fclose(f);
	return inside == 0 && outside == 0 && count == UINT32_MAX;
}

int img_tree_write_dir(struct img_tree *t, const char *root, const struct img_write_opts *o, size_t *ret_n_skipped,
                       struct err *err)
{
	struct write w = {
		.tree = t, .root = root, .opts = o, .root_fd = -1, .dir_fd = -1, .is_root = is_real_root(), .err = err
	};
	int r = open_root(&w);

	if (r == 0)
		r = prepare(&w);
	for (size_t i = 1; r == 0 && i < img_tree_count(t); i++)
		r = make_node(&w, img_tree_at(t, i));
	if (r == 0)
		r = finish_dirs(&w);
	close_fdp(&w.dir_fd);
	close_fdp(&w.root_fd);
	free(w.first);
	free(w.absolute);
	free(w.buffer);
	if (r == 0 && ret_n_skipped)
		*ret_n_skipped = w.n_skipped;
	return r;
}
