/* Views (views.h). How a path of another mount namespace becomes one of the traced root: the mount it lies on is found
 * in the mountinfo of the process (proc(5): device, directory of the file system that is mounted, mount point), which
 * gives device and path within that file system; then a mount of the traced root that shows the same device and has
 * that path in it. What lies on a file system that the traced root does not have, a fresh tmpfs say, is no file of it.
 */
#include "views.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mapfile.h"

struct img_mount {
	char device[24]; /* "major:minor" */
	char *root;      /* what of the file system is shown */
	char *point;     /* where */
};

static void free_mounts(struct img_mount *mounts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(mounts[i].root);
		free(mounts[i].point);
	}
	free(mounts);
}

static void view_done(struct img_view *view)
{
	img_names_free(view->names);
	free_mounts(view->mounts, view->n_mounts);
	free_mounts(view->base_mounts, view->n_base_mounts);
	free(view->root_path);
}

static void view_free(struct img_view *view)
{
	if (!view)
		return;
	view_done(view);
	if (view->root_fd >= 0)
		(void)close(view->root_fd);
	free(view);
}

static uint64_t namespace_of(pid_t pid)
{
	char path[40];
	struct stat st;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

struct img_views *img_views_new(pid_t pid, int root_fd)
{
	struct img_views *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	v->base_pid = pid;
	v->base.root_fd = root_fd;
	v->base.namespace_inode = namespace_of(pid);
	v->base.names = img_names_new(root_fd);
	if (!v->base.names) {
		free(v);
		return NULL;
	}
	return v;
}

void img_views_free(struct img_views *v)
{
	if (!v)
		return;
	while (v->others) {
		struct img_view *view = v->others;

		v->others = view->next;
		view_free(view);
	}
	view_done(&v->base);
	free(v);
}

/* ---- mountinfo -------------------------------------------------------------------------------------------- */

/* \040 and the like, in place. */
static void unescape(char *text)
{
	char *out = text;

	for (const char *in = text; *in;) {
		if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' && in[3] >= '0' &&
		    in[3] <= '7') {
			*out++ = (char)((in[1] - '0') * 64 + (in[2] - '0') * 8 + (in[3] - '0'));
			in += 4;
		} else {
			*out++ = *in++;
		}
	}
	*out = '\0';
}

static int add_mount(struct img_mount **mounts, size_t *n, char *line)
{
	char *fields[5];
	struct img_mount *list, m;

	for (int i = 0; i < 5; i++) {
		fields[i] = strsep(&line, " ");
		if (!line)
			return 0;
	}
	unescape(fields[3]);
	unescape(fields[4]);
	(void)snprintf(m.device, sizeof(m.device), "%s", fields[2]);
	m.root = strdup(fields[3]);
	m.point = strdup(fields[4]);
	list = realloc(*mounts, (*n + 1) * sizeof(*list));
	if (list)
		*mounts = list;
	if (!list || !m.root || !m.point) {
		free(m.root);
		free(m.point);
		return -ENOMEM;
	}
	list[(*n)++] = m;
	return 0;
}

static int read_mounts(pid_t pid, struct img_mount **mounts, size_t *n)
{
	struct base_buf b = BASE_BUF_INIT(16u << 20);
	char path[40], *rest, *line;
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	r = base_read_file(path, &b, NULL);
	rest = b.data;
	while (r == 0 && rest && (line = strsep(&rest, "\n"))) {
		if (*line)
			r = add_mount(mounts, n, line);
	}
	base_buf_done(&b);
	return r;
}

/* Is path `dir` or below it? What is below, with its '/', or "". */
static const char *below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (len == 1)
		return strcmp(path, "/") == 0 ? "" : path;
	if (strncmp(path, dir, len) != 0 || (path[len] != '/' && path[len] != '\0'))
		return NULL;
	return path + len;
}

/* Later mounts hide earlier ones on the same point. */
static const struct img_mount *mount_of(const struct img_mount *mounts, size_t n, const char *path)
{
	const struct img_mount *best = NULL;

	for (size_t i = 0; i < n; i++) {
		if (below(path, mounts[i].point) && (!best || strlen(mounts[i].point) >= strlen(best->point)))
			best = &mounts[i];
	}
	return best;
}

static char *join(const char *dir, const char *rest)
{
	char *path;

	if (strcmp(dir, "/") == 0)
		return strdup(*rest ? rest : "/");
	return asprintf(&path, "%s%s", dir, rest) < 0 ? NULL : path;
}

static char *map_path(const struct img_view *view, const char *path)
{
	const struct img_mount *m = mount_of(view->mounts, view->n_mounts, path), *best = NULL;
	CLEANUP(freep) char *inner = m ? join(m->root, below(path, m->point)) : NULL;

	if (!inner)
		return NULL;
	for (size_t i = 0; i < view->n_base_mounts; i++) {
		const struct img_mount *b = &view->base_mounts[i];

		if (strcmp(b->device, m->device) == 0 && below(inner, b->root) &&
		    (!best || strlen(b->root) > strlen(best->root)))
			best = b;
	}
	return best ? join(best->point, below(inner, best->root)) : NULL;
}

const char *img_view_map(struct img_view *view, struct img_name *name)
{
	if (!view->root_path)
		return name->path;
	if (!name->has_mapped) {
		name->mapped = map_path(view, name->path);
		name->has_mapped = true;
	}
	return name->mapped;
}

const char *img_view_strip(const struct img_view *view, const char *path)
{
	const char *rest = view->root_path ? below(path, view->root_path) : path;

	return rest && !*rest ? "/" : rest;
}

/* ---- Whose view ------------------------------------------------------------------------------------------- */

static struct img_view *make_view(struct img_views *v, pid_t pid, uint64_t inode, const char *root)
{
	struct img_view *view = calloc(1, sizeof(*view));
	char path[40];

	if (!view)
		return NULL;
	(void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	view->root_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	view->namespace_inode = inode;
	view->root_path = strdup(root);
	view->names = view->root_fd >= 0 ? img_names_new(view->root_fd) : NULL;
	if (!view->names || !view->root_path || read_mounts(pid, &view->mounts, &view->n_mounts) < 0 ||
	    read_mounts(v->base_pid, &view->base_mounts, &view->n_base_mounts) < 0) {
		view_free(view);
		return NULL;
	}
	view->next = v->others;
	v->others = view;
	return view;
}

static struct img_view *other_view(struct img_views *v, pid_t pid, uint64_t inode, const char *root)
{
	for (struct img_view *view = v->others; view; view = view->next) {
		if (!view->is_retired && view->namespace_inode == inode && strcmp(view->root_path, root) == 0)
			return view;
	}
	return make_view(v, pid, inode, root);
}

struct img_view *img_views_of(struct img_views *v, pid_t pid, struct img_name **ret_root)
{
	uint64_t inode = namespace_of(pid);
	char path[40], root[PATH_MAX];
	struct img_lookup l = { .tid = pid, .tgid = pid, .text = root };
	struct img_found f;
	struct img_view *view;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	n = readlink(path, root, sizeof(root) - 1);
	if (!inode || n <= 0)
		return NULL;
	root[n] = '\0';
	if (inode != v->base.namespace_inode) {
		view = other_view(v, pid, inode, root);
		*ret_root = view ? img_names_root(view->names) : NULL;
		return view;
	}
	l.root = l.start = img_names_root(v->base.names);
	img_names_lookup(v->base.names, &l, &f);
	if (f.error)
		return NULL;
	*ret_root = f.name;
	return &v->base;
}

void img_views_changed(struct img_views *v)
{
	v->generation++;
	img_names_forget_all(v->base.names);
	for (struct img_view *view = v->others; view; view = view->next) {
		if (view->is_retired)
			continue;
		/* Nobody looks anything up in it any more, but names of it may still be held. */
		view->is_retired = true;
		img_names_detach(view->names);
		(void)close(view->root_fd);
		view->root_fd = -1;
	}
}
