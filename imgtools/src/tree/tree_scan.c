/* A root read into a tree. Directories wait on a list and are opened one at a time by a path that follows no link, so
 * neither a deep tree nor a link that someone plants meanwhile does harm.
 *
 * Another file system shows as the directory it is mounted on, empty. Only directories are asked for their device: on
 * an overlay, files report that of the layer they lie in. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tree_internal.h"

enum { MAX_XATTR_BYTES = 1 << 16 }; /* of names, and of one value: the kernel's own limits */

/* A name of a file with several. */
struct link_name {
	dev_t dev;
	ino_t ino;
	struct img_node *node;
};

struct scan {
	struct img_tree *tree;
	char *root; /* absolute */
	int root_fd;
	dev_t dev;
	char **todo; /* directories to read */
	size_t n_todo, todo_cap;
	struct link_name *links;
	size_t n_links, links_cap;
	struct err *err;
};

static int fail(struct scan *s, int r, const char *path)
{
	return err_set(s->err, r, "%s%s: %s", s->root, path, strerror(-r));
}

static int grow(void **array, size_t n, size_t *cap, size_t size)
{
	size_t want = *cap ? *cap * 2 : 64;
	void *p;

	if (n < *cap)
		return 0;
	p = reallocarray(*array, want, size);
	if (!p)
		return -ENOMEM;
	*array = p;
	*cap = want;
	return 0;
}

static int push_dir(struct scan *s, const char *path)
{
	char *copy = strdup(path);

	if (!copy || grow((void **)&s->todo, s->n_todo, &s->todo_cap, sizeof(*s->todo)) < 0) {
		free(copy);
		return fail(s, -ENOMEM, path);
	}
	s->todo[s->n_todo++] = copy;
	return 0;
}

static void free_xattrs(struct img_node *n)
{
	for (size_t i = 0; i < n->n_xattrs; i++) {
		free(n->xattrs[i].name);
		free(n->xattrs[i].value);
	}
	free(n->xattrs);
	n->xattrs = NULL;
	n->n_xattrs = 0;
}

static int add_xattr(const char *host, const char *name, struct img_node *n, char *scratch)
{
	ssize_t size = lgetxattr(host, name, scratch, MAX_XATTR_BYTES);
	struct img_xattr *x = &n->xattrs[n->n_xattrs];

	if (size < 0) /* ENODATA: removed meanwhile; EPERM: not for us to see */
		return errno == ENODATA || errno == EPERM || errno == EACCES ? 0 : -errno;
	x->name = strdup(name);
	x->value = malloc(size ? (size_t)size : 1);
	if (!x->name || !x->value) {
		free(x->name);
		free(x->value);
		return -ENOMEM;
	}
	memcpy(x->value, scratch, (size_t)size);
	x->size = (size_t)size;
	n->n_xattrs++;
	return 0;
}

/* The extended attributes of what `host` names, itself and not what it may point to. */
static int read_xattrs(const char *host, struct img_node *n)
{
	CLEANUP(freep) char *value = NULL;
	char names[4096], *p = names;
	CLEANUP(freep) char *big = NULL;
	size_t n_names = 0;
	ssize_t len = llistxattr(host, names, sizeof(names));
	int r = 0;

	if (len < 0 && errno == ERANGE) {
		big = p = malloc(MAX_XATTR_BYTES);
		if (!big)
			return -ENOMEM;
		len = llistxattr(host, big, MAX_XATTR_BYTES);
	}
	if (len < 0)
		return errno == ENOTSUP ? 0 : -errno;
	if (len == 0)
		return 0;
	for (ssize_t i = 0; i < len; i++)
		n_names += p[i] == '\0';
	value = malloc(MAX_XATTR_BYTES);
	n->xattrs = calloc(n_names, sizeof(*n->xattrs));
	if (!value || !n->xattrs)
		return -ENOMEM;
	for (const char *name = p; r == 0 && name < p + len; name += strlen(name) + 1)
		r = add_xattr(host, name, n, value);
	return r;
}

static void fill_node(struct img_node *n, const struct stat *st)
{
	n->type = img_type_of_mode(st->st_mode);
	n->mode = st->st_mode & 07777;
	n->uid = st->st_uid;
	n->gid = st->st_gid;
	n->size = n->type == IMG_FILE ? (uint64_t)st->st_size : 0;
	n->mtime_s = st->st_mtim.tv_sec;
	n->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	if (n->type == IMG_CHAR || n->type == IMG_BLOCK) {
		n->major = major(st->st_rdev);
		n->minor = minor(st->st_rdev);
	}
}

static int remember_link(struct scan *s, const struct stat *st, struct img_node *n)
{
	if (n->type != IMG_FILE || st->st_nlink < 2)
		return 0;
	if (grow((void **)&s->links, s->n_links, &s->links_cap, sizeof(*s->links)) < 0)
		return fail(s, -ENOMEM, n->path);
	s->links[s->n_links++] = (struct link_name){ .dev = st->st_dev, .ino = st->st_ino, .node = n };
	return 0;
}

static int scan_entry(struct scan *s, int dir_fd, const char *name, const char *path)
{
	struct img_node n = { .path = path, .package = -1, .layer = -1 }, *added = NULL;
	char target[IMG_PATH_MAX], host[PATH_MAX + IMG_PATH_MAX], by_fd[IMG_FD_PATH_SIZE];
	struct stat st;
	ssize_t len;
	int r;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(s, -errno, path);
	fill_node(&n, &st);
	(void)snprintf(host, sizeof(host), "%s%s", s->root, path);
	if (n.type == IMG_SYMLINK) {
		len = readlinkat(dir_fd, name, target, sizeof(target));
		if (len < 0 || len >= (ssize_t)sizeof(target))
			return fail(s, len < 0 ? -errno : -ENAMETOOLONG, path);
		target[len] = '\0';
		n.target = target;
	}
	if (n.type == IMG_FILE && n.size)
		n.source = host;
	img_fd_path(dir_fd, name, by_fd);
	r = read_xattrs(by_fd, &n);
	if (r == -ENOENT) { /* no /proc here */
		free_xattrs(&n);
		r = read_xattrs(host, &n);
	}
	if (r < 0)
		(void)fail(s, r, path);
	else
		r = img_tree_add(s->tree, &n, &added, s->err);
	free_xattrs(&n);
	if (r == 0)
		r = remember_link(s, &st, added);
	if (r == 0 && n.type == IMG_DIR && st.st_dev == s->dev && strcmp(path, "/") != 0)
		r = push_dir(s, path);
	return r;
}

static void closedirp(DIR **d)
{
	if (*d)
		(void)closedir(*d);
}

static int scan_dir(struct scan *s, const char *path)
{
	CLEANUP(closedirp) DIR *dir = NULL;
	struct dirent *de;
	int r = 0, fd = img_open_beneath(s->root_fd, path, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return fail(s, fd, path);
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return fail(s, -ENOMEM, path);
	}
	while (r == 0) {
		char child[IMG_PATH_MAX];
		int n;

		errno = 0;
		de = readdir(dir);
		if (!de)
			return errno ? fail(s, -errno, path) : 0;
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		n = snprintf(child, sizeof(child), "%s/%s", path[1] ? path : "", de->d_name);
		if (n < 0 || n >= (int)sizeof(child))
			return fail(s, -ENAMETOOLONG, path);
		r = scan_entry(s, dirfd(dir), de->d_name, child);
	}
	return r;
}

static int compare_links(const void *va, const void *vb)
{
	const struct link_name *a = va, *b = vb;

	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	return 0;
}

/* Groups get their final numbers in the order of the paths. */
static int renumber_by_path(struct scan *s)
{
	CLEANUP(freep) uint32_t *number = calloc(s->n_links + 1, sizeof(*number));
	uint32_t next = 1;

	for (size_t i = 0; number && i < img_tree_count(s->tree); i++) {
		struct img_node *n = img_tree_at(s->tree, i);

		if (!n)
			return fail(s, -ENOMEM, "/");
		if (!n->link_group)
			continue;
		if (!number[n->link_group])
			number[n->link_group] = next++;
		n->link_group = number[n->link_group];
	}
	return number ? 0 : fail(s, -ENOMEM, "/");
}

/* A name whose others lie outside the root is alone and gets no number. */
static int number_groups(struct scan *s)
{
	size_t first = 0;

	if (s->n_links == 0)
		return 0;
	qsort(s->links, s->n_links, sizeof(*s->links), compare_links);
	for (size_t i = 0; i < s->n_links; i++) {
		bool is_last = i + 1 == s->n_links || compare_links(&s->links[i], &s->links[i + 1]) != 0;

		s->links[i].node->link_group = is_last && i == first ? 0 : (uint32_t)first + 1;
		if (is_last)
			first = i + 1;
	}
	return renumber_by_path(s);
}

static int scan_all(struct scan *s)
{
	struct stat st;
	int r;

	if (fstat(s->root_fd, &st) < 0)
		return fail(s, -errno, "/");
	s->dev = st.st_dev;
	r = scan_entry(s, s->root_fd, ".", "/");
	if (r == 0)
		r = push_dir(s, "/");
	while (r == 0 && s->n_todo) {
		CLEANUP(freep) char *path = s->todo[--s->n_todo];

		r = scan_dir(s, path);
	}
	return r == 0 ? number_groups(s) : r;
}

int img_tree_scan(const char *root, struct img_tree **ret_tree, struct err *err)
{
	struct scan s = { .root_fd = -1, .err = err };
	int r = 0;

	s.root = realpath(root, NULL);
	if (!s.root)
		return err_set(err, -errno, "%s: %s", root, strerror(errno));
	if (strcmp(s.root, "/") == 0)
		s.root[0] = '\0'; /* paths begin with the slash */
	s.root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s.tree = img_tree_new();
	if (s.root_fd < 0)
		r = err_set(err, -errno, "%s: %s", root, strerror(errno));
	else if (!s.tree)
		r = err_set(err, -ENOMEM, "%s: out of memory", root);
	else
		r = scan_all(&s);
	while (s.n_todo)
		free(s.todo[--s.n_todo]);
	free(s.todo);
	free(s.links);
	free(s.root);
	close_fdp(&s.root_fd);
	if (r < 0) {
		img_tree_free(s.tree);
		return r;
	}
	*ret_tree = s.tree;
	return 0;
}
