/* Python: which files an import loads. Modules are found as importlib does: a package folder, an extension module,
 * source, byte code, folder by folder of sys.path, which is taken from the interpreters and virtual environments in the
 * tree and their .pth files. Beside a source its cached byte code is a need too: without it the start is several times
 * slower. A name that is nowhere is often a module built into the interpreter: such needs are weak and have no node. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"
#include "base/cleanup.h"

enum {
	SOURCE_MAX = 16 << 20,
	PTH_MAX = 64 << 10,
	PORTIONS_MAX = 8, /* folders of one namespace package */
};

static const char *const builtin_suffixes[] = { ".abi3.so", ".so" };

/* ---- sys.path ---- */

static bool has_dir(const struct img_analyze *a, const char *path)
{
	struct img_node *n = img_tree_find(a->tree, path);

	return n && n->type == IMG_DIR;
}

static int add_dir(struct img_analyze *a, const char *path)
{
	return has_dir(a, path) && !img_words_has(&a->python_dirs, path)
	               ? img_words_add(&a->python_dirs, path, strlen(path))
	               : 0;
}

/* A site folder and the folders that its .pth files name; lines that begin with `import` are code and are passed over.
 */
static int add_pth(struct img_analyze *a, const struct img_node *pth)
{
	CLEANUP(freep) char *text = NULL;
	const char *slash = strrchr(pth->path, '/');
	char path[IMG_PATH_MAX], joined[IMG_PATH_MAX];
	void *data;
	size_t size;
	int r = 0;

	if (img_node_read_all(pth, PTH_MAX, &data, &size, NULL) < 0)
		return 0;
	text = data;
	for (char *save = NULL, *line = strtok_r(text, "\r\n", &save); line && r == 0;
	     line = strtok_r(NULL, "\r\n", &save)) {
		if (line[0] == '#' || strncmp(line, "import ", 7) == 0)
			continue;
		if (snprintf(joined, sizeof(joined), "%.*s/%s", line[0] == '/' ? 0 : (int)(slash - pth->path),
		             pth->path, line) < (int)sizeof(joined) &&
		    img_path_normalize(joined, path) == 0)
			r = add_dir(a, path);
	}
	return r;
}

/* "/usr/lib64/python3.9" and what belongs to it. */
static int add_interpreter(struct img_analyze *a, const char *stdlib, size_t len)
{
	static const char *const below[] = { "", "/lib-dynload", "/site-packages", "/dist-packages" };
	const char *base = stdlib + len;
	char path[IMG_PATH_MAX];
	int r = 0;

	while (base[-1] != '/')
		base--;
	for (size_t i = 0; r == 0 && i < sizeof(below) / sizeof(*below); i++) {
		(void)snprintf(path, sizeof(path), "%.*s%s", (int)len, stdlib, below[i]);
		r = add_dir(a, path);
	}
	/* Debian's shared folder, the other word size's, and what is installed beside the system. */
	static const char *const beside[] = {
		"/usr/lib/python3/dist-packages",      "/usr/lib/%.*s/site-packages",
		"/usr/lib64/%.*s/site-packages",       "/usr/local/lib/%.*s/site-packages",
		"/usr/local/lib64/%.*s/site-packages", "/usr/local/lib/%.*s/dist-packages"
	};
	for (size_t i = 0; r == 0 && i < sizeof(beside) / sizeof(*beside); i++) {
		(void)snprintf(path, sizeof(path), beside[i], (int)(stdlib + len - base), base);
		r = add_dir(a, path);
	}
	return r;
}

int img_python_find_dirs(struct img_analyze *a)
{
	size_t n = img_tree_count(a->tree);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		const struct img_node *node = img_tree_at(a->tree, i);

		if (node->type == IMG_FILE && fnmatch("*/lib*/python3*/os.py", node->path, 0) == 0 &&
		    fnmatch("*/lib*/python3*/*/os.py", node->path, 0) != 0)
			r = add_interpreter(a, node->path, strlen(node->path) - strlen("/os.py"));
		else if (node->type == IMG_DIR && (fnmatch("*/lib/python3*/site-packages", node->path, 0) == 0))
			r = add_dir(a, node->path);
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		const struct img_node *node = img_tree_at(a->tree, i);

		if (node->type == IMG_FILE && fnmatch("*-packages/*.pth", node->path, 0) == 0)
			r = add_pth(a, node);
	}
	return r;
}

/* ---- Finding one module ---- */

/* Where a name was found: a file, or folders of a namespace package; a package has its folder too. */
struct found {
	struct img_node *file; /* NULL: namespace package */
	char dirs[PORTIONS_MAX][IMG_PATH_MAX];
	size_t n_dirs;
};

static struct img_node *file_at(struct img_look *k, const char *path)
{
	struct img_node *to;

	if (img_tree_resolve(k->a->tree, path, true, &to, NULL, NULL) < 0 || to->type != IMG_FILE)
		return NULL;
	return img_look_resolve(k, path, false);
}

/* `stem` + each suffix that a module may have. Extension modules carry the interpreter's tag: any is taken. */
static struct img_node *module_file(struct img_look *k, const char *stem)
{
	static const char *const tags[] = { ".cpython-36m", ".cpython-38",  ".cpython-39",  ".cpython-310",
		                            ".cpython-311", ".cpython-312", ".cpython-313", ".cpython-314" };
	static const char *const machines[] = { "-x86_64-linux-gnu.so", "-aarch64-linux-gnu.so",
		                                "-x86_64-linux-musl.so" };
	char path[IMG_PATH_MAX + 64];
	struct img_node *n;

	for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++) {
		for (size_t m = 0; m < sizeof(machines) / sizeof(*machines); m++) {
			(void)snprintf(path, sizeof(path), "%s%s%s", stem, tags[i], machines[m]);
			if (img_tree_find(k->a->tree, path))
				return file_at(k, path);
		}
	}
	for (size_t i = 0; i < sizeof(builtin_suffixes) / sizeof(*builtin_suffixes); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", stem, builtin_suffixes[i]);
		n = file_at(k, path);
		if (n)
			return n;
	}
	(void)snprintf(path, sizeof(path), "%s.py", stem);
	n = file_at(k, path);
	if (n)
		return n;
	(void)snprintf(path, sizeof(path), "%s.pyc", stem);
	return file_at(k, path);
}

/* One name in a list of folders. */
static bool find_name(struct img_look *k, char (*dirs)[IMG_PATH_MAX], size_t n_dirs, const char *name, size_t len,
                      struct found *ret)
{
	char path[IMG_PATH_MAX], init[IMG_PATH_MAX + 16];

	ret->file = NULL;
	ret->n_dirs = 0;
	for (size_t i = 0; i < n_dirs; i++) {
		struct img_node *dir;
		bool is_dir;

		if (snprintf(path, sizeof(path), "%s/%.*s", dirs[i], (int)len, name) >= (int)sizeof(path))
			continue;
		is_dir = img_tree_resolve(k->a->tree, path, true, &dir, NULL, NULL) == 0 && dir->type == IMG_DIR;
		if (is_dir) {
			(void)snprintf(init, sizeof(init), "%s/__init__", path);
			ret->file = module_file(k, init);
			if (ret->file) {
				memcpy(ret->dirs[0], path, sizeof(path));
				ret->n_dirs = 1;
				return true;
			}
		}
		ret->file = module_file(k, path);
		if (ret->file) {
			ret->n_dirs = 0;
			return true;
		}
		if (is_dir && ret->n_dirs < PORTIONS_MAX)
			memcpy(ret->dirs[ret->n_dirs++], path, sizeof(path));
	}
	return ret->n_dirs > 0;
}

/* The file, and the byte code cached for it, whatever the interpreter's version. */
static int tell(struct img_look *k, const char *module, struct img_node *file, bool is_weak)
{
	const char *slash = strrchr(file->path, '/'), *dot = strrchr(file->path, '.');
	char path[IMG_PATH_MAX + 64];

	(void)img_look_need(k, IMG_NEED_IMPORT, module, file, is_weak);
	if (strcmp(dot, ".py") != 0)
		return k->stopped;
	for (unsigned int minor = 6; minor < 20; minor++) {
		struct img_node *cached;

		(void)snprintf(path, sizeof(path), "%.*s/__pycache__/%.*s.cpython-3%u.pyc", (int)(slash - file->path),
		               file->path, (int)(dot - slash - 1), slash + 1, minor);
		cached = img_tree_find(k->a->tree, path);
		if (cached)
			(void)img_look_need(k, IMG_NEED_IMPORT, module, cached, is_weak);
	}
	return k->stopped;
}

/* A dotted name, from a list of folders: each package on the way is told. */
static int need_from(struct img_look *k, char (*dirs)[IMG_PATH_MAX], size_t n_dirs, const char *module, bool is_weak,
                     bool *ret_found)
{
	struct found *f = calloc(2, sizeof(*f)), *at = f;
	char name[256];

	*ret_found = false;
	if (!f)
		return k->stopped = -ENOMEM;
	for (const char *p = module;; p++) {
		size_t len = strcspn(p, ".");

		*ret_found = find_name(k, dirs, n_dirs, p, len, at);
		if (!*ret_found || k->stopped < 0)
			break;
		(void)snprintf(name, sizeof(name), "%.*s", (int)(p + len - module), module);
		if (at->file && tell(k, name, at->file, is_weak) < 0)
			break;
		p += len;
		if (*p == 0)
			break;
		dirs = at->dirs;
		n_dirs = at->n_dirs;
		at = at == f ? f + 1 : f;
	}
	free(f);
	return k->stopped;
}

/* All of sys.path as one array, `beside` first. NULL when out of memory. */
static char (*search_path(const struct img_analyze *a, const char *beside, size_t *ret_n))[IMG_PATH_MAX]
{
	char(*dirs)[IMG_PATH_MAX] = malloc((a->python_dirs.n + 1) * sizeof(*dirs));

	*ret_n = 0;
	if (!dirs)
		return NULL;
	if (beside)
		(void)snprintf(dirs[(*ret_n)++], IMG_PATH_MAX, "%s", beside);
	for (size_t i = 0; i < a->python_dirs.n; i++)
		(void)snprintf(dirs[(*ret_n)++], IMG_PATH_MAX, "%s", a->python_dirs.v[i]);
	return dirs;
}

int img_python_need(struct img_look *k, const char *module, const char *beside, bool is_weak, bool *ret_found)
{
	size_t n;
	char(*dirs)[IMG_PATH_MAX] = search_path(k->a, beside, &n);
	int r;

	if (!dirs)
		return k->stopped = -ENOMEM;
	r = need_from(k, dirs, n, module, is_weak, ret_found);
	free(dirs);
	return r;
}

/* ---- One file ---- */

struct imports_arg {
	struct img_look *k;
	char dir[IMG_PATH_MAX]; /* of the file */
	bool is_script;         /* outside sys.path: its folder is searched first */
};

static int absolute_import(struct imports_arg *x, const struct img_python_import *i)
{
	const char *beside = x->is_script ? x->dir : NULL;
	char full[1024];
	bool found;
	int r = img_python_need(x->k, i->module, beside, i->is_weak, &found);

	if (r == 0 && !found && !i->is_weak)
		r = img_look_need(x->k, IMG_NEED_IMPORT, i->module, NULL, true);
	/* `from a import b`: b may be a module of its own. */
	if (r == 0 && found && i->name && strcmp(i->name, "*") != 0) {
		(void)snprintf(full, sizeof(full), "%s.%s", i->module, i->name);
		r = img_python_need(x->k, full, beside, i->is_weak, &found);
	}
	return r;
}

static int relative_import(struct imports_arg *x, const struct img_python_import *i)
{
	char(*dir)[IMG_PATH_MAX] = malloc(sizeof(*dir));
	char full[1024];
	bool found = true;
	int r = 0;

	if (!dir)
		return x->k->stopped = -ENOMEM;
	(void)snprintf(*dir, sizeof(*dir), "%s", x->dir);
	for (unsigned int up = 1; up < i->level && strrchr(*dir, '/'); up++)
		*strrchr(*dir, '/') = 0;
	if (i->module[0])
		r = need_from(x->k, dir, 1, i->module, i->is_weak, &found);
	if (r == 0 && found && i->name && strcmp(i->name, "*") != 0) {
		(void)snprintf(full, sizeof(full), "%s%s%s", i->module, i->module[0] ? "." : "", i->name);
		r = need_from(x->k, dir, 1, full, i->is_weak, &found);
	}
	free(dir);
	return r;
}

static int on_import(const struct img_python_import *i, void *arg)
{
	struct imports_arg *x = arg;

	return i->level ? relative_import(x, i) : absolute_import(x, i);
}

int img_analyze_python(struct img_look *k)
{
	CLEANUP(freep) char *text = NULL;
	CLEANUP(freep) struct imports_arg *x = calloc(1, sizeof(*x));
	size_t size;

	if (!x)
		return k->stopped = -ENOMEM;
	text = img_look_text(k, SOURCE_MAX, &size);
	if (!text)
		return 0;
	x->k = k;
	(void)snprintf(x->dir, sizeof(x->dir), "%.*s", (int)(strrchr(k->n->path, '/') - k->n->path), k->n->path);
	x->is_script = true;
	for (size_t i = 0; i < k->a->python_dirs.n && x->is_script; i++) {
		size_t len = strlen(k->a->python_dirs.v[i]);

		x->is_script =
		        strncmp(x->dir, k->a->python_dirs.v[i], len) != 0 || (x->dir[len] != 0 && x->dir[len] != '/');
	}
	(void)img_python_imports(text, size, on_import, x);
	return k->stopped;
}
