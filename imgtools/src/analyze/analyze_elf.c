/* ELF files: the interpreter that the kernel opens, the libraries that ld.so loads, those that may be opened at run
 * time.
 *
 * Libraries are looked up as ld.so does: RUNPATH (or RPATH) of the file, then the folders of /etc/ld.so.conf, which the
 * cache holds, then the built-in ones. In each folder the subfolders glibc-hwcaps/LEVEL come first on machines of that
 * level: all are reported, since the image may run on any. A library of another class or machine is passed over. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"
#include "base/cleanup.h"
#include "elf/elf.h"

static const char *const built_in_dirs[] = {
	"/lib64",
	"/usr/lib64",
	"/lib/x86_64-linux-gnu",
	"/usr/lib/x86_64-linux-gnu",
	"/lib/aarch64-linux-gnu",
	"/usr/lib/aarch64-linux-gnu",
	"/lib",
	"/usr/lib",
};

static const char *const hwcaps[] = { "glibc-hwcaps/x86-64-v4", "glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2" };

enum {
	CONF_MAX = 1 << 20,
	CONF_DEPTH = 8, /* includes within includes */
};

/* ---- Search folders ---- */

static int read_conf(struct img_analyze *a, const char *path, int depth);

/* An include line names files by a pattern: those of the tree that match, in order. */
static int include_conf(struct img_analyze *a, const char *pattern, int depth)
{
	char full[IMG_PATH_MAX];

	if (snprintf(full, sizeof(full), "%s%s", pattern[0] == '/' ? "" : "/etc/", pattern) >= (int)sizeof(full))
		return 0;
	for (size_t i = 0; i < img_tree_count(a->tree); i++) {
		const struct img_node *n = img_tree_at(a->tree, i);
		int r;

		if (n->type == IMG_DIR || fnmatch(full, n->path, FNM_PATHNAME) != 0)
			continue;
		r = read_conf(a, n->path, depth + 1);
		if (r < 0)
			return r;
	}
	return 0;
}

static int conf_line(struct img_analyze *a, char *line, int depth)
{
	size_t len;

	line += strspn(line, " \t");
	line[strcspn(line, "#")] = 0;
	len = strlen(line);
	while (len > 0 && strchr(" \t\r", line[len - 1]))
		line[--len] = 0;
	if (len == 0)
		return 0;
	if (strncmp(line, "include", 7) == 0 && strchr(" \t", line[7]))
		return include_conf(a, line + 7 + strspn(line + 7, " \t"), depth);
	if (line[0] != '/' || img_words_has(&a->library_dirs, line))
		return 0;
	return img_words_add(&a->library_dirs, line, len);
}

static int read_conf(struct img_analyze *a, const char *path, int depth)
{
	CLEANUP(freep) char *text = NULL;
	struct img_node *n;
	void *data;
	size_t size;
	int r = 0;

	if (depth > CONF_DEPTH || img_tree_resolve(a->tree, path, true, &n, NULL, NULL) < 0 || n->type != IMG_FILE ||
	    img_node_read_all(n, CONF_MAX, &data, &size, NULL) < 0)
		return 0;
	text = data;
	for (char *line = text, *next; line && r == 0; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		r = conf_line(a, line, depth);
	}
	return r;
}

int img_elf_find_dirs(struct img_analyze *a)
{
	int r = read_conf(a, "/etc/ld.so.conf", 0);

	for (size_t i = 0; r == 0 && i < sizeof(built_in_dirs) / sizeof(*built_in_dirs); i++) {
		if (!img_words_has(&a->library_dirs, built_in_dirs[i]))
			r = img_words_add(&a->library_dirs, built_in_dirs[i], strlen(built_in_dirs[i]));
	}
	return r;
}

/* ---- Libraries ---- */

static bool same_kind(const struct img_elf *e, const struct img_node *n)
{
	uint8_t head[20];
	uint16_t machine;

	if (n->type != IMG_FILE || img_node_read(n, head, sizeof(head), 0, NULL) != (ssize_t)sizeof(head) ||
	    memcmp(head, "\177ELF", 4) != 0)
		return false;
	machine = e->data == 1 ? (uint16_t)(head[18] | head[19] << 8) : (uint16_t)(head[18] << 8 | head[19]);
	return head[4] == e->elf_class && head[5] == e->data && machine == e->machine;
}

/* One folder and its variants by processor; true when the plain name was there. */
static bool look_in(struct img_look *k, const struct img_elf *e, const char *dir, size_t dir_len, const char *name,
                    enum img_need_kind kind, bool is_weak)
{
	char path[IMG_PATH_MAX];
	struct img_node *to;

	for (size_t i = 0; i < sizeof(hwcaps) / sizeof(*hwcaps); i++) {
		if (snprintf(path, sizeof(path), "%.*s/%s/%s", (int)dir_len, dir, hwcaps[i], name) <
		            (int)sizeof(path) &&
		    img_tree_resolve(k->a->tree, path, true, &to, NULL, NULL) == 0 && same_kind(e, to)) {
			to = img_look_resolve(k, path, is_weak);
			(void)img_look_need(k, kind, name, to, is_weak);
		}
	}
	if (snprintf(path, sizeof(path), "%.*s/%s", (int)dir_len, dir, name) >= (int)sizeof(path) ||
	    img_tree_resolve(k->a->tree, path, true, &to, NULL, NULL) < 0 || !same_kind(e, to))
		return false;
	to = img_look_resolve(k, path, is_weak);
	(void)img_look_need(k, kind, name, to, is_weak);
	return true;
}

/* A search path of the file: entries between colons, $ORIGIN, $LIB and $PLATFORM replaced. */
static bool look_along(struct img_look *k, const struct img_elf *e, const char *list, const char *name,
                       enum img_need_kind kind, bool is_weak)
{
	const char *slash = strrchr(k->n->path, '/');
	int origin_len = (int)(slash - k->n->path);

	while (list && *list) {
		size_t len = strcspn(list, ":");
		char dir[IMG_PATH_MAX];
		size_t n = 0;
		bool fits = true;

		for (size_t i = 0; i < len && fits;) {
			const char *with = NULL;
			int with_len = 0;
			size_t skip = 1;

			if (strncmp(list + i, "$ORIGIN", 7) == 0 || strncmp(list + i, "${ORIGIN}", 9) == 0) {
				with = k->n->path;
				with_len = origin_len;
				skip = list[i + 1] == '{' ? 9 : 7;
			} else if (strncmp(list + i, "$LIB", 4) == 0 || strncmp(list + i, "${LIB}", 6) == 0) {
				with = e->elf_class == 2 ? "lib64" : "lib";
				with_len = (int)strlen(with);
				skip = list[i + 1] == '{' ? 6 : 4;
			}
			fits = n + (size_t)with_len + 1 < sizeof(dir);
			if (fits && with) {
				memcpy(dir + n, with, (size_t)with_len);
				n += (size_t)with_len;
			} else if (fits) {
				dir[n++] = list[i];
			}
			i += skip;
		}
		if (fits && n > 0 && look_in(k, e, dir, n, name, kind, is_weak))
			return true;
		list += len;
		list += *list == ':';
	}
	return false;
}

/* Returns whether it was found; a strong need that was not is reported with no node. */
static bool need_library(struct img_look *k, const struct img_elf *e, const char *name, enum img_need_kind kind,
                         bool is_weak)
{
	if (strchr(name, '/')) {
		struct img_node *to = name[0] == '/' ? img_look_resolve(k, name, is_weak) : NULL;

		if (to || !is_weak)
			(void)img_look_need(k, kind, name, to, is_weak);
		return to != NULL;
	}
	if (look_along(k, e, e->runpath ? e->runpath : e->rpath, name, kind, is_weak))
		return true;
	for (size_t i = 0; i < k->a->library_dirs.n; i++) {
		const char *dir = k->a->library_dirs.v[i];

		if (look_in(k, e, dir, strlen(dir), name, kind, is_weak))
			return true;
	}
	if (!is_weak)
		(void)img_look_need(k, kind, name, NULL, false);
	return false;
}

/* ---- One file ---- */

struct strings_arg {
	struct img_look *k;
	const struct img_elf *e;
};

static int on_library_string(const char *s, void *arg)
{
	struct strings_arg *x = arg;

	for (size_t i = 0; i < x->e->n_needed; i++) {
		if (strcmp(x->e->needed[i], s) == 0)
			return 0;
	}
	if (x->e->soname && strcmp(x->e->soname, s) == 0)
		return 0;
	(void)need_library(x->k, x->e, s, IMG_NEED_DLOPEN, true);
	return x->k->stopped;
}

/* Python itself: what it opens or looks for before it runs anything. */
static int python_start(struct img_look *k)
{
	static const char *const modules[] = { "encodings",
		                               "encodings.aliases",
		                               "encodings.utf_8",
		                               "encodings.ascii",
		                               "encodings.latin_1",
		                               "codecs",
		                               "io",
		                               "abc",
		                               "site",
		                               "os",
		                               "stat",
		                               "posixpath",
		                               "genericpath",
		                               "_collections_abc",
		                               "_sitebuiltins",
		                               "importlib.util",
		                               "importlib.machinery",
		                               "runpy" };
	bool found;
	char path[IMG_PATH_MAX];

	for (size_t i = 0; i < sizeof(modules) / sizeof(*modules); i++)
		(void)img_python_need(k, modules[i], NULL, false, &found);
	for (size_t i = 0; i < k->a->python_dirs.n; i++) {
		struct img_node *to;

		(void)snprintf(path, sizeof(path), "%s/os.py", k->a->python_dirs.v[i]);
		to = img_tree_find(k->a->tree, path);
		if (to)
			(void)img_look_need(k, IMG_NEED_LANDMARK, "os.py", to, false);
		(void)snprintf(path, sizeof(path), "%s/lib-dynload", k->a->python_dirs.v[i]);
		to = img_tree_find(k->a->tree, path);
		if (to)
			(void)img_look_need(k, IMG_NEED_LANDMARK, "lib-dynload", to, false);
	}
	return k->stopped;
}

static void elf_freep(struct img_elf **e)
{
	img_elf_free(*e);
}

int img_analyze_elf(struct img_look *k)
{
	CLEANUP(elf_freep) struct img_elf *e = NULL;
	struct err err = { 0 };
	struct strings_arg x = { .k = k };
	const char *base = strrchr(k->n->path, '/') + 1;
	int r = img_elf_read(k->n, IMG_ELF_HEADER, &e, &err);

	if (r == -ENOMEM)
		return k->stopped = r;
	if (r < 0) {
		(void)snprintf(k->a->note, sizeof(k->a->note), "%s", err_text(&err));
		k->note = k->a->note;
		return 0;
	}
	if (e->interp)
		(void)img_look_need(k, IMG_NEED_INTERP, e->interp, img_look_resolve(k, e->interp, false), false);
	for (size_t i = 0; i < e->n_needed && k->stopped == 0; i++)
		(void)need_library(k, e, e->needed[i], IMG_NEED_SONAME, false);
	x.e = e;
	r = e->is_dynamic ? img_elf_library_strings(k->n, on_library_string, &x, NULL) : 0;
	if (r < 0 && k->stopped == 0 && r == -ENOMEM)
		k->stopped = r;
	if (e->interp && (fnmatch("python3*", base, 0) == 0 || strcmp(base, "python") == 0))
		return python_start(k);
	return k->stopped;
}
