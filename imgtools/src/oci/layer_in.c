/* One layer decoded into a list of entries. Names are made normal and checked here, each by itself; what an entry means
 * for the tree below it is decided when the layer is applied. The bytes of files go into files named 0, 1, 2, ... in a
 * folder of ours: while a layer is decoded, no name out of it is ever a path of this host. That also lets all layers be
 * decoded at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "oci_internal.h"
#include "tree/tar.h"

enum { CHUNK = 1 << 16, DEFAULT_MAX_ENTRIES = 4 << 20, DEFAULT_RATIO = 500 };
static const uint64_t default_max_bytes = 256ull << 30;

struct layer {
	struct img_layer_job *job;
	struct img_decoder *decoder;
	struct img_ahead *ahead; /* NULL: the decoder is read here */
	struct img_tar_in *tar;
	struct img_layer_entries *entries;
	int dir_fd; /* -1: bytes are passed over */
	char *chunk;
	struct err *err;
};

static ssize_t from_decoder(void *buf, size_t size, void *arg, struct err *err)
{
	struct layer *l = arg;
	ssize_t n = l->ahead ? img_ahead_read(l->ahead, buf, size, err) : img_decoder_read(l->decoder, buf, size, err);
	uint64_t max = l->job->limits->max_bytes ? l->job->limits->max_bytes : default_max_bytes;

	if (n > 0 && l->job->n_bytes && atomic_fetch_add(l->job->n_bytes, (uint64_t)n) + (uint64_t)n > max)
		return err_set(err, -EFBIG, "the layers are larger than %llu bytes", (unsigned long long)max);
	return n;
}

static int refuse(struct layer *l, const struct img_tar_entry *te, const char *what)
{
	return err_set(l->err, -EBADMSG, "%s: %s", te->name, what);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

/* A name of the archive as a path of the tree. */
static int safe_path(struct layer *l, const struct img_tar_entry *te, const char *name, const char *what,
                     char ret_path[IMG_PATH_MAX])
{
	char text[128];
	int r;

	if (name[0] == '/') {
		(void)snprintf(text, sizeof(text), "an absolute %s", what);
		return refuse(l, te, text);
	}
	r = img_path_normalize(name, ret_path);
	if (r == 0)
		return 0;
	(void)snprintf(text, sizeof(text), r == -ENAMETOOLONG ? "the %s is too long" : "the %s leads upwards by \"..\"",
	               what);
	return refuse(l, te, text);
}

/* ".wh.NAME" says that NAME of the layers below is gone, ".wh..wh..opq" that all of its directory is. Returns the kind;
 * -ENODATA for records of the union file system that made the layer. *path becomes what is meant. */
static int whiteout_of(struct layer *l, const struct img_tar_entry *te, char path[IMG_PATH_MAX])
{
	char *name = strrchr(path, '/') + 1;

	if (strstr(path, "/.wh.") && strstr(path, "/.wh.") + 1 != name &&
	    strncmp(strstr(path, "/.wh."), "/.wh..wh.", 9) != 0)
		return refuse(l, te, "is below a whiteout");
	if (strncmp(name, ".wh.", 4) != 0)
		return strstr(path, "/.wh..wh.") ? -ENODATA : IMG_ENTRY_NODE;
	if (strcmp(name, ".wh..wh..opq") == 0) {
		name[name - path > 1 ? -1 : 0] = '\0';
		return IMG_ENTRY_OPAQUE;
	}
	if (strncmp(name, ".wh..wh.", 8) == 0)
		return -ENODATA;
	if (te->node.type != IMG_FILE || te->is_hardlink || te->node.size)
		return refuse(l, te, "a whiteout that is no empty file");
	if (!name[4] || strcmp(name + 4, ".") == 0 || strcmp(name + 4, "..") == 0)
		return refuse(l, te, "a whiteout of nothing that can be removed");
	memmove(name, name + 4, strlen(name + 4) + 1);
	return IMG_ENTRY_WHITEOUT;
}

/* ---- Nodes ---- */

/* Devices that a container has anyway; everything else opens the host's disks or memory to whoever reads the root. */
static bool is_harmless_device(const struct img_node *n)
{
	static const uint32_t ok[][2] = { { 0, 0 }, { 1, 3 }, { 1, 5 },    { 1, 7 },    { 1, 8 }, { 1, 9 },
		                          { 5, 0 }, { 5, 1 }, { 10, 200 }, { 10, 229 }, { 5, 2 } };

	for (size_t i = 0; n->type == IMG_CHAR && i < sizeof(ok) / sizeof(*ok); i++) {
		if (n->major == ok[i][0] && n->minor == ok[i][1])
			return true;
	}
	return false;
}

static int add_entry(struct layer *l, struct img_layer_entry **ret)
{
	struct img_layer_entries *e = l->entries;
	uint64_t max = l->job->limits->max_entries ? l->job->limits->max_entries : DEFAULT_MAX_ENTRIES;

	if (e->n >= max)
		return err_set(l->err, -EFBIG, "more than %llu entries", (unsigned long long)max);
	if (e->n == e->cap) {
		size_t cap = e->cap ? e->cap * 2 : 256;
		void *p = reallocarray(e->list, cap, sizeof(*e->list));

		if (!p)
			return err_set(l->err, -ENOMEM, "out of memory");
		e->list = p;
		e->cap = cap;
	}
	*ret = &e->list[e->n++];
	**ret = (struct img_layer_entry){ 0 };
	return 0;
}

/* Records that an overlay keeps for itself are not content. */
static bool is_overlay_xattr(const char *name)
{
	return strncmp(name, "trusted.overlay.", 16) == 0 || strncmp(name, "user.overlay.", 13) == 0;
}

static int copy_xattrs(const struct img_node *from, struct img_node *to)
{
	if (!from->n_xattrs)
		return 0;
	to->xattrs = calloc(from->n_xattrs, sizeof(*to->xattrs));
	if (!to->xattrs)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_xattrs; i++) {
		const struct img_xattr *x = &from->xattrs[i];
		struct img_xattr *y = &to->xattrs[to->n_xattrs];

		if (is_overlay_xattr(x->name))
			continue;
		*y = (struct img_xattr){ strdup(x->name), malloc(x->size ? x->size : 1), x->size };
		to->n_xattrs++;
		if (!y->name || !y->value)
			return -ENOMEM;
		memcpy(y->value, x->value, x->size);
	}
	return 0;
}

static bool is_zero(const char *p, size_t n)
{
	return n && p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* The bytes of the entry that the tar reader stands on; whole chunks of zeros become holes. */
static int store_bytes(struct layer *l, int fd, uint64_t size)
{
	uint64_t offset = 0;
	ssize_t n;

	while (offset < size) {
		size_t got = 0, want = size - offset < CHUNK ? (size_t)(size - offset) : CHUNK;

		for (; got < want; got += (size_t)n) {
			n = img_tar_read(l->tar, l->chunk + got, want - got, l->err);
			if (n < 0)
				return (int)n;
		}
		if (!is_zero(l->chunk, got)) {
			for (size_t done = 0; done < got; done += (size_t)n) {
				n = pwrite(fd, l->chunk + done, got - done, (off_t)(offset + done));
				if (n < 0 && errno != EINTR)
					return err_set(l->err, -errno, "%s: %s", l->job->dir, strerror(errno));
				n = n < 0 ? 0 : n;
			}
		}
		offset += got;
	}
	return ftruncate(fd, (off_t)size) < 0 ? err_set(l->err, -errno, "%s: %s", l->job->dir, strerror(errno)) : 0;
}

static int store_file(struct layer *l, struct img_node *n)
{
	CLEANUP(close_fdp) int fd = -1;
	char name[24];

	if (l->dir_fd < 0 || n->size == 0)
		return 0;
	(void)snprintf(name, sizeof(name), "%zu", l->entries->n - 1);
	if (asprintf(&n->source, "%s/%s", l->job->dir, name) < 0) {
		n->source = NULL;
		return err_set(l->err, -ENOMEM, "out of memory");
	}
	fd = openat(l->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(l->err, -errno, "%s: %s", n->source, strerror(errno));
	return store_bytes(l, fd, n->size);
}

static int take_node(struct layer *l, const struct img_tar_entry *te, const char *path)
{
	struct img_layer_entry *e = NULL;
	struct img_node *n;
	char link_to[IMG_PATH_MAX];
	int r;

	if ((te->node.type == IMG_CHAR || te->node.type == IMG_BLOCK) && !l->job->limits->allow_devices &&
	    !is_harmless_device(&te->node))
		return refuse(l, te, "a device of the host");
	if (te->node.type == IMG_SYMLINK && (!te->linkname[0] || strlen(te->linkname) >= IMG_PATH_MAX))
		return refuse(l, te, "a symbolic link without a proper target");
	if (te->is_hardlink && (r = safe_path(l, te, te->linkname, "target of a hard link", link_to)) < 0)
		return r;
	if (!path[1] && te->node.type != IMG_DIR)
		return refuse(l, te, "the root is a directory");
	r = add_entry(l, &e);
	if (r < 0)
		return r;
	n = &e->node;
	*n = te->node;
	n->xattrs = NULL;
	n->n_xattrs = 0;
	n->path = strdup(path);
	e->kind = te->is_hardlink ? IMG_ENTRY_HARDLINK : IMG_ENTRY_NODE;
	if (te->is_hardlink)
		e->link_to = strdup(link_to);
	if (n->type == IMG_SYMLINK)
		n->target = strdup(te->linkname);
	if (!n->path || (te->is_hardlink && !e->link_to) || (n->type == IMG_SYMLINK && !n->target) ||
	    copy_xattrs(&te->node, n) < 0)
		return err_set(l->err, -ENOMEM, "out of memory");
	return n->type == IMG_FILE && !te->is_hardlink ? store_file(l, n) : 0;
}

static int take_entry(struct layer *l, const struct img_tar_entry *te)
{
	struct img_layer_entry *e = NULL;
	char path[IMG_PATH_MAX];
	int r = safe_path(l, te, te->name, "name", path), kind;

	if (r < 0)
		return r;
	kind = whiteout_of(l, te, path);
	if (kind == -ENODATA)
		return 0;
	if (kind < 0)
		return kind;
	if (kind == IMG_ENTRY_NODE)
		return take_node(l, te, path);
	r = add_entry(l, &e);
	if (r < 0)
		return r;
	e->kind = (enum img_entry_kind)kind;
	e->node.path = strdup(path);
	return e->node.path ? 0 : err_set(l->err, -ENOMEM, "out of memory");
}

/* ---- The layer ---- */

void img_layer_entries_done(struct img_layer_entries *e)
{
	for (size_t i = 0; i < e->n; i++) {
		struct img_node *n = &e->list[i].node;

		for (size_t k = 0; k < n->n_xattrs; k++) {
			free(n->xattrs[k].name);
			free(n->xattrs[k].value);
		}
		free(n->xattrs);
		free((char *)n->path);
		free(n->target);
		free(n->source);
		free(n->data);
		free(e->list[i].link_to);
	}
	free(e->list);
	*e = (struct img_layer_entries){ 0 };
}

/* What is behind the end of the tar belongs to the digests. */
static int end_reading_ahead(struct layer *l)
{
	ssize_t n = l->ahead ? 1 : 0;

	while (n > 0)
		n = img_ahead_read(l->ahead, l->chunk, CHUNK, l->err);
	img_ahead_stop(l->ahead);
	l->ahead = NULL;
	return (int)n;
}

static int decode(struct layer *l)
{
	const struct img_tar_entry *te = NULL;
	int r;

	if (l->job->dir) {
		l->dir_fd = open(l->job->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (l->dir_fd < 0)
			return err_set(l->err, -errno, "%s: %s", l->job->dir, strerror(errno));
	}
	l->chunk = malloc(CHUNK);
	if (!l->chunk || img_tar_in_new(from_decoder, l, &l->tar) < 0)
		return err_set(l->err, -ENOMEM, "out of memory");
	r = img_decoder_open(&l->job->blob, l->job->limits->max_ratio ? l->job->limits->max_ratio : DEFAULT_RATIO,
	                     l->job->meter, &l->decoder, l->err);
	if (r == 0 && l->job->reads_ahead)
		r = img_ahead_start(l->decoder, &l->ahead, l->err);
	if (r < 0)
		return r;
	while ((r = img_tar_next(l->tar, &te, l->err)) > 0) {
		r = take_entry(l, te);
		if (r < 0)
			return r;
	}
	if (r == 0)
		r = end_reading_ahead(l);
	if (r < 0)
		return r;
	return img_decoder_finish(l->decoder, l->job->digest, l->job->diff_id, &l->job->unpacked_size, l->err);
}

int img_layer_decode(struct img_layer_job *job, struct img_layer_entries *ret_entries, struct err *err)
{
	struct img_layer_entries entries = { 0 };
	struct layer l = { .job = job, .entries = &entries, .dir_fd = -1, .err = err };
	int r = decode(&l);

	img_ahead_stop(l.ahead);
	img_decoder_close(l.decoder);
	img_tar_in_free(l.tar);
	close_fdp(&l.dir_fd);
	free(l.chunk);
	if (r < 0) {
		img_layer_entries_done(&entries);
		return err_prefix(err, r, "layer %s: ", job->label);
	}
	*ret_entries = entries;
	return 0;
}
