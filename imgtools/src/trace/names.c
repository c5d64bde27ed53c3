/* Path resolution with a cache (names.h). The rules are those of path_resolution(7): component by component, ".." stops
 * at the root of the process, at most 40 links. Two things differ from a plain walk:
 *
 * What is kept of a component are only the facts that seldom change, "is a directory" and "is a link to X"; the last
 * component is looked at each time, by its full path below the root, which also notices that a directory has gone.
 * Facts carry the epoch they were learnt in; a renamed directory or a mount begins a new epoch.
 *
 * Links in procfs mean something else to each reader: /proc/self/fd/3 is taken from the /proc of the tracer, by the
 * number the process has there, and the walk goes on at what it points to. */
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { PATH_BYTES = 4096, TEXT_BYTES = 2 * PATH_BYTES, MAX_LINKS = 40 };

struct img_names {
	int root_fd;
	struct img_name *root;
	struct img_name **buckets;
	size_t n_buckets, n_names;
	uint32_t epoch;
	size_t n_created; /* how often something was; 0: no need to look */
};

static void name_free(struct img_name *name)
{
	free((char *)name->mapped);
	free(name->target);
	free(name);
}

/* The path follows the struct. */
static struct img_name *name_new(struct img_name *parent, const char *text, size_t len)
{
	size_t parent_len = parent && parent->parent ? strlen(parent->path) : 0;
	struct img_name *name;
	char *path;

	if (parent_len + 1 + len >= PATH_BYTES)
		return NULL;
	name = calloc(1, sizeof(*name) + parent_len + 1 + len + 1);
	if (!name)
		return NULL;
	path = (char *)(name + 1);
	if (parent_len)
		memcpy(path, parent->path, parent_len);
	path[parent_len] = '/';
	memcpy(path + parent_len + 1, text, len);
	name->path = path;
	name->parent = parent;
	name->is_outside = parent && parent->is_outside;
	return name;
}

struct img_names *img_names_new(int root_fd)
{
	struct img_names *n = calloc(1, sizeof(*n));
	struct stat st;

	if (!n)
		return NULL;
	n->root_fd = root_fd;
	n->n_buckets = 1024;
	n->buckets = calloc(n->n_buckets, sizeof(*n->buckets));
	n->root = name_new(NULL, "", 0);
	if (!n->buckets || !n->root) {
		img_names_free(n);
		return NULL;
	}
	n->root->kind = IMG_NAME_DIR;
	if (fstatat(root_fd, ".", &st, AT_SYMLINK_NOFOLLOW) == 0)
		n->root->dev = st.st_dev;
	return n;
}

void img_names_detach(struct img_names *n)
{
	n->root_fd = -1;
}

void img_names_free(struct img_names *n)
{
	if (!n)
		return;
	for (size_t i = 0; n->buckets && i < n->n_buckets; i++) {
		for (struct img_name *name = n->buckets[i], *next; name; name = next) {
			next = name->next;
			name_free(name);
		}
	}
	if (n->root)
		name_free(n->root);
	free(n->buckets);
	free(n);
}

struct img_name *img_names_root(struct img_names *n)
{
	return n->root;
}

static uint32_t hash_name(const struct img_name *dir, const char *text, size_t len)
{
	uint32_t h = 2166136261u ^ (uint32_t)((uintptr_t)dir >> 4);

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)text[i]) * 16777619u;
	return h ^ h >> 15;
}

static void grow(struct img_names *n)
{
	size_t count = n->n_buckets * 2;
	struct img_name **buckets = calloc(count, sizeof(*buckets));

	if (!buckets)
		return; /* slower, not wrong */
	for (size_t i = 0; i < n->n_buckets; i++) {
		for (struct img_name *name = n->buckets[i], *next; name; name = next) {
			next = name->next;
			name->next = buckets[name->hash & (count - 1)];
			buckets[name->hash & (count - 1)] = name;
		}
	}
	free(n->buckets);
	n->buckets = buckets;
	n->n_buckets = count;
}

static const char *last_component(const struct img_name *name)
{
	return strrchr(name->path, '/') + 1;
}

/* The name below a directory (made when it is not known yet, which touches no file); NULL: out of memory, or too long.
 */
static struct img_name *child_of(struct img_names *n, struct img_name *dir, const char *text, size_t len)
{
	uint32_t hash = hash_name(dir, text, len);
	struct img_name *name;

	for (name = n->buckets[hash & (n->n_buckets - 1)]; name; name = name->next) {
		const char *have;

		if (name->hash != hash || name->parent != dir)
			continue;
		have = last_component(name);
		if (strlen(have) == len && memcmp(have, text, len) == 0)
			return name;
	}
	name = name_new(dir, text, len);
	if (!name)
		return NULL;
	name->hash = hash;
	name->next = n->buckets[hash & (n->n_buckets - 1)];
	n->buckets[hash & (n->n_buckets - 1)] = name;
	if (++n->n_names > n->n_buckets)
		grow(n);
	return name;
}

/* ---- Facts about one name --------------------------------------------------------------------------------- */

/* Another file system begins here: is it one that no image has a part in? */
static void look_at_mount(struct img_names *n, struct img_name *name)
{
	CLEANUP(close_fdp) int fd = openat(n->root_fd, name->path + 1, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return;
	name->is_proc = fs.f_type == PROC_SUPER_MAGIC;
	name->is_outside = name->is_proc || fs.f_type == SYSFS_MAGIC || fs.f_type == CGROUP_SUPER_MAGIC ||
	                   fs.f_type == CGROUP2_SUPER_MAGIC || fs.f_type == DEBUGFS_MAGIC ||
	                   fs.f_type == TRACEFS_MAGIC || fs.f_type == DEVPTS_SUPER_MAGIC;
}

static void read_target(struct img_names *n, struct img_name *name)
{
	char target[PATH_BYTES];
	ssize_t len = readlinkat(n->root_fd, name->path + 1, target, sizeof(target));

	free(name->target);
	name->target = len > 0 && len < (ssize_t)sizeof(target) ? strndup(target, (size_t)len) : NULL;
	name->kind = name->target ? IMG_NAME_LINK : IMG_NAME_OTHER;
}

/* lstat; sets kind. 0 or the errno. */
static int look(struct img_names *n, struct img_name *name, struct stat *st)
{
	int error;

	if (fstatat(n->root_fd, name->parent ? name->path + 1 : ".", st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
		error = errno;
		name->epoch = n->epoch;
		name->kind = error == ENOENT || error == ENOTDIR ? IMG_NAME_MISSING : IMG_NAME_OTHER;
		return name->kind == IMG_NAME_MISSING ? ENOENT : error;
	}
	if (S_ISLNK(st->st_mode)) {
		if (name->kind != IMG_NAME_LINK || name->epoch != n->epoch)
			read_target(n, name);
	} else {
		name->kind = S_ISDIR(st->st_mode) ? IMG_NAME_DIR : IMG_NAME_OTHER;
	}
	name->epoch = n->epoch;
	if (name->kind == IMG_NAME_DIR && name->dev != st->st_dev) {
		name->dev = st->st_dev;
		if (name->parent && st->st_dev != name->parent->dev)
			look_at_mount(n, name);
	}
	return 0;
}

/* Is it known to be a directory or a link, without asking again? */
static bool is_known(const struct img_names *n, const struct img_name *name)
{
	return name->epoch == n->epoch && (name->kind == IMG_NAME_DIR || name->kind == IMG_NAME_LINK);
}

/* ---- The walk --------------------------------------------------------------------------------------------- */

struct walk {
	struct img_names *n;
	const struct img_lookup *l;
	struct img_found *f;
	struct img_name *cur;
	char text[TEXT_BYTES]; /* what is still to be walked begins at `at` */
	size_t at;
	unsigned n_links;
	bool has_looked; /* f->st is that of `cur` */
};

static int fail(struct walk *w, struct img_name *name, int error)
{
	w->f->name = name;
	w->f->error = error;
	return -1;
}

/* Puts text in front of what is still to be walked. */
static bool prepend(struct walk *w, const char *text, const char *rest)
{
	size_t len = strlen(text), rest_len = strlen(rest);

	if (len + 1 + rest_len + 1 > sizeof(w->text))
		return false;
	memmove(w->text + len + 1, rest, rest_len + 1);
	memcpy(w->text, text, len);
	w->text[len] = '/';
	if (!rest_len) /* a slash at the end would demand a directory */
		w->text[len] = '\0';
	w->at = 0;
	return true;
}

/* The rest of a path that leads nowhere, made normal, for the record of the miss. */
static void keep_rest(struct walk *w, const char *rest)
{
	char *out = w->f->rest;
	size_t len = 0, max = sizeof(w->f->rest) - strlen(w->f->name->path);

	while (*rest) {
		size_t n = strcspn(rest, "/");

		if (n == 2 && rest[0] == '.' && rest[1] == '.') {
			while (len > 0 && out[--len] != '/')
				;
		} else if (n > 0 && !(n == 1 && rest[0] == '.')) {
			if (len + 1 + n >= max)
				break;
			out[len++] = '/';
			memcpy(out + len, rest, n);
			len += n;
		}
		rest += n + (rest[n] == '/');
	}
	out[len] = '\0';
}

/* `path` is what follows "/proc/": "self/fd/3/more". The length of the part that is a link to a file, of which
 * *ret_host is the tracer's name; 0 when it is none. */
static size_t proc_link(const struct walk *w, const char *path, char *ret_host, size_t size)
{
	static const char *const links[] = { "cwd", "root", "exe" };
	const char *p = path;
	size_t len;

	len = strcspn(p, "/");
	if ((len != 4 || memcmp(p, "self", 4) != 0) && (len != 11 || memcmp(p, "thread-self", 11) != 0))
		return 0;
	p += len + strspn(p + len, "/");
	if (strncmp(p, "task/", 5) == 0) {
		p += 5 + strcspn(p + 5, "/");
		p += strspn(p, "/");
	}
	for (size_t i = 0; i < 3; i++) {
		len = strlen(links[i]);
		if (strncmp(p, links[i], len) == 0 && (p[len] == '/' || p[len] == '\0')) {
			(void)snprintf(ret_host, size, "/proc/%d/%s", (int)w->l->tid, links[i]);
			return (size_t)(p - path) + len;
		}
	}
	if (strncmp(p, "fd/", 3) == 0 && (len = strspn(p + 3, "0123456789")) > 0 && len < 10) {
		(void)snprintf(ret_host, size, "/proc/%d/fd/%.*s", (int)w->l->tid, (int)len, p + 3);
		return (size_t)(p - path) + 3 + len;
	}
	return 0;
}

/* The walk stands at the root of a procfs. Goes on where a link of the process leads, else there is nothing to tell. */
static int walk_proc(struct walk *w, const char *rest)
{
	char host[64], target[PATH_BYTES], behind[PATH_BYTES];
	size_t len = proc_link(w, rest, host, sizeof(host));
	ssize_t n = -1;

	w->f->is_ignored = true;
	if (len == 0 || (rest[len] == '\0' && !w->l->follow) || ++w->n_links > MAX_LINKS)
		return fail(w, w->cur, 0);
	n = readlink(host, target, sizeof(target) - 1);
	if (n <= 0 || target[0] != '/')
		return fail(w, w->cur, 0);
	target[n] = '\0';
	(void)snprintf(behind, sizeof(behind), "%s", rest + len + strspn(rest + len, "/"));
	if (!prepend(w, target, behind))
		return fail(w, w->cur, 0);
	w->f->is_ignored = false;
	w->cur = w->n->root;
	w->has_looked = false;
	return 0;
}

/* A link in the way: where it leads comes before the rest. */
static int walk_link(struct walk *w, struct img_name *link, const char *rest)
{
	if (w->l->on_link)
		w->l->on_link(link, w->l->arg);
	if (++w->n_links > MAX_LINKS)
		return fail(w, link, ELOOP);
	if (!prepend(w, link->target, rest))
		return fail(w, link, ENAMETOOLONG);
	if (link->target[0] == '/')
		w->cur = w->l->root;
	w->has_looked = false;
	return 0;
}

/* One component [text, text + len); `rest` is behind it and its slashes. */
static int walk_name(struct walk *w, const char *text, size_t len, const char *rest, bool must_be_dir)
{
	struct img_name *name = child_of(w->n, w->cur, text, len);
	bool is_last = !*rest;
	int error = 0;

	if (!name)
		return fail(w, w->cur, len > 255 ? ENAMETOOLONG : ENOMEM);
	if (is_last || !is_known(w->n, name))
		error = look(w->n, name, &w->f->st);
	if (error) {
		w->f->is_last = is_last;
		w->f->name = name;
		keep_rest(w, rest);
		return fail(w, name, error == ENOENT ? ENOENT : is_last ? error : ENOTDIR);
	}
	if (name->kind == IMG_NAME_LINK && (!is_last || w->l->follow || must_be_dir))
		return walk_link(w, name, rest);
	if (name->kind != IMG_NAME_DIR && (!is_last || must_be_dir)) {
		w->f->name = name;
		keep_rest(w, rest);
		return fail(w, name, ENOTDIR);
	}
	w->cur = name;
	w->has_looked = is_last;
	return 0;
}

static void walk_all(struct walk *w)
{
	for (;;) {
		const char *text = w->text + w->at, *rest;
		char component[256];
		size_t len;

		text += strspn(text, "/");
		len = strcspn(text, "/");
		if (len == 0)
			break;
		rest = text + len + strspn(text + len, "/");
		w->at = (size_t)(rest - w->text);
		if (w->cur->is_proc) {
			if (walk_proc(w, text) < 0)
				return;
			continue;
		}
		if (len == 1 && text[0] == '.')
			continue;
		if (len == 2 && text[0] == '.' && text[1] == '.') {
			if (w->cur != w->l->root && w->cur->parent)
				w->cur = w->cur->parent;
			w->has_looked = false;
			continue;
		}
		if (len >= sizeof(component)) {
			(void)fail(w, w->cur, ENAMETOOLONG);
			return;
		}
		/* The text may be replaced meanwhile. */
		memcpy(component, text, len);
		if (walk_name(w, component, len, rest, text[len] == '/' && !*rest) < 0)
			return;
	}
	w->f->name = w->cur;
	if (!w->has_looked)
		w->f->error = look(w->n, w->cur, &w->f->st);
	w->f->is_ignored = w->cur->is_outside;
}

void img_names_lookup(struct img_names *n, const struct img_lookup *l, struct img_found *ret)
{
	struct walk w;
	size_t len = strlen(l->text);

	w.n = n;
	w.l = l;
	w.f = ret;
	w.at = 0;
	w.n_links = 0;
	w.has_looked = false;
	w.cur = l->text[0] == '/' ? l->root : l->start;
	ret->error = 0;
	ret->is_last = ret->is_ignored = false;
	ret->rest[0] = '\0';
	if (len >= PATH_BYTES) {
		(void)fail(&w, w.cur, ENAMETOOLONG);
		return;
	}
	memcpy(w.text, l->text, len + 1);
	walk_all(&w);
	if (ret->error && ret->name->is_outside)
		ret->is_ignored = true;
}

/* ---- Changes ---------------------------------------------------------------------------------------------- */

void img_names_forget(struct img_names *n, struct img_name *name)
{
	if (name->kind == IMG_NAME_DIR || name->kind == IMG_NAME_LINK)
		n->epoch++;
	name->kind = IMG_NAME_UNKNOWN;
	name->is_created = false;
}

void img_names_forget_all(struct img_names *n)
{
	n->epoch++;
}

void img_names_set_created(struct img_names *n, struct img_name *name)
{
	if (name->is_created)
		return;
	name->is_created = true;
	n->n_created++;
}

bool img_names_is_created(const struct img_names *n, const struct img_name *name)
{
	if (!n->n_created)
		return false;
	for (; name; name = name->parent) {
		if (name->is_created)
			return true;
	}
	return false;
}
