/* tar archives of images: listed once, members read where they lie. The list is a tree, so that the symbolic links that
 * `docker save` once used for layers that come twice are followed by the rules of trees, within the archive. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "oci_internal.h"
#include "tree/tar.h"

enum { MAX_MEMBERS = 1 << 20, COPY_SIZE = 1 << 18 };

struct img_archive {
	char *path;
	struct img_tree *members; /* node->package is an index into offsets */
	uint64_t *offsets;
	size_t n, cap;
};

struct reader {
	int fd;
	uint64_t pos, size;
};

static ssize_t read_file(void *buf, size_t size, void *arg, struct err *err)
{
	struct reader *rd = arg;
	ssize_t n;

	do
		n = pread(rd->fd, buf, size, (off_t)rd->pos);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	rd->pos += (uint64_t)n;
	return n;
}

static int skip_file(uint64_t n, void *arg, struct err *err)
{
	struct reader *rd = arg;

	(void)err;
	if (n > rd->size - rd->pos)
		return -EBADMSG;
	rd->pos += n;
	return 0;
}

static int add_member(struct img_archive *a, const struct img_tar_entry *te, struct err *err)
{
	struct img_node n = { .type = te->node.type, .size = te->node.size, .layer = -1 };
	char path[IMG_PATH_MAX];

	if (te->is_hardlink || (n.type != IMG_FILE && n.type != IMG_SYMLINK))
		return 0;
	if (img_path_normalize(te->name, path) < 0)
		return err_set(err, -EBADMSG, "%.200s: a name that leads upwards", te->name);
	if (a->n == MAX_MEMBERS)
		return err_set(err, -EBADMSG, "more than %d members", MAX_MEMBERS);
	if (a->n == a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 64;
		uint64_t *p = reallocarray(a->offsets, cap, sizeof(*p));

		if (!p)
			return err_set(err, -ENOMEM, "out of memory");
		a->offsets = p;
		a->cap = cap;
	}
	n.path = path;
	n.target = (char *)te->linkname;
	n.package = (int32_t)a->n;
	a->offsets[a->n++] = te->data_offset;
	return img_tree_add(a->members, &n, NULL, err);
}

static int list_members(struct img_archive *a, int fd, uint64_t size, struct err *err)
{
	struct reader rd = { .fd = fd, .size = size };
	const struct img_tar_entry *te = NULL;
	struct img_tar_in *in = NULL;
	int r;

	a->members = img_tree_new();
	if (!a->members || img_tar_in_new(read_file, &rd, &in) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	img_tar_in_set_skip(in, skip_file);
	while ((r = img_tar_next(in, &te, err)) > 0) {
		r = add_member(a, te, err);
		if (r < 0)
			break;
	}
	img_tar_in_free(in);
	return r;
}

static bool is_compressed(int fd)
{
	unsigned char p[4] = { 0 };

	return pread(fd, p, 4, 0) == 4 &&
	       ((p[0] == 0x1f && p[1] == 0x8b) || (p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd));
}

/* The archive plain, in the work folder; a->path becomes its name. */
static int unpack(struct img_archive *a, uint64_t size, const char *work_dir, int *fd, struct err *err)
{
	struct img_blob b = { .path = a->path, .size = size };
	CLEANUP(freep) char *buf = malloc(COPY_SIZE);
	struct img_decoder *d = NULL;
	char *path = NULL;
	int out = -1, r;
	ssize_t n = 0;

	if (!buf || asprintf(&path, "%s/archive.tar", work_dir) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = img_decoder_open(&b, 0, NULL, &d, err);
	if (r == 0) {
		out = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (out < 0)
			r = err_set(err, -errno, "%s: %s", path, strerror(errno));
	}
	while (r == 0 && (n = img_decoder_read(d, buf, COPY_SIZE, err)) > 0)
		r = img_write_all(out, buf, (size_t)n, err);
	if (r == 0 && n < 0)
		r = (int)n;
	img_decoder_close(d);
	if (r < 0) {
		close_fdp(&out);
		free(path);
		return r;
	}
	free(a->path);
	a->path = path;
	(void)close(*fd);
	*fd = out;
	return 0;
}

int img_archive_open(const char *path, const char *work_dir, struct img_archive **ret_archive, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct img_archive *a;
	struct stat st;
	int r = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a file", path);
	a = calloc(1, sizeof(*a));
	if (!a || !(a->path = strdup(path))) {
		free(a);
		return err_set(err, -ENOMEM, "out of memory");
	}
	if (is_compressed(fd)) {
		r = unpack(a, (uint64_t)st.st_size, work_dir, &fd, err);
		if (r == 0 && fstat(fd, &st) < 0)
			r = err_set(err, -errno, "%s", strerror(errno));
	}
	if (r == 0)
		r = list_members(a, fd, (uint64_t)st.st_size, err);
	if (r < 0) {
		img_archive_close(a);
		return err_prefix(err, r, "%s: ", path);
	}
	*ret_archive = a;
	return 0;
}

void img_archive_close(struct img_archive *a)
{
	if (!a)
		return;
	img_tree_free(a->members);
	free(a->offsets);
	free(a->path);
	free(a);
}

int img_archive_find(const struct img_archive *a, const char *name, struct img_blob *ret_blob, struct err *err)
{
	struct img_node *n = NULL;
	char *path;

	if (img_tree_resolve(a->members, name, true, &n, NULL, NULL) < 0 || n->type != IMG_FILE)
		return err_set(err, -ENOENT, "%s: %.200s: no such member", a->path, name);
	path = strdup(a->path);
	if (!path)
		return err_set(err, -ENOMEM, "out of memory");
	*ret_blob = (struct img_blob){ .path = path, .offset = a->offsets[n->package], .size = n->size };
	return 0;
}
