/* The files of a source: folders walked in the order of their names, single files, manual pages, package documents.
 *
 * Symbolic links are followed; a folder or file that was seen already (device and inode) is not entered again, so that
 * loops end and one text is not found twice. Hidden names are left out of folders, and so are secrets
 * (tools.h). What cannot be read is told and skipped. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "kb/kb_internal.h"
#include "tools/tools.h"

enum { MAX_DEPTH = 64, MAX_FILES = 1000000 };

struct seen {
	dev_t dev;
	ino_t ino;
};

struct scan {
	struct ag_kb *kb;
	ag_kb_file_fn fn;
	void *arg;
	uint64_t *n_skipped;
	struct seen *table; /* open addressing; ino 0 is free */
	size_t n, cap;
	bool sections_only; /* manual pages of the sections for administrators */
};

static int seen_insert(struct seen *table, size_t cap, const struct seen *key)
{
	size_t i = (size_t)((key->ino * 0x9e3779b97f4a7c15u) ^ key->dev) & (cap - 1);

	for (; table[i].ino; i = (i + 1) & (cap - 1)) {
		if (table[i].ino == key->ino && table[i].dev == key->dev)
			return 1;
	}
	table[i] = *key;
	return 0;
}

/* 1 when it was there already. */
static int see(struct scan *sc, const struct stat *st)
{
	struct seen key = { st->st_dev, st->st_ino };
	int r;

	if (sc->n * 2 >= sc->cap) {
		size_t cap = sc->cap ? sc->cap * 2 : 1024;
		struct seen *table;

		if (sc->n >= MAX_FILES)
			return -EFBIG;
		table = calloc(cap, sizeof(*table));
		if (!table)
			return -ENOMEM;
		for (size_t i = 0; i < sc->cap; i++) {
			if (sc->table[i].ino)
				(void)seen_insert(table, cap, &sc->table[i]);
		}
		free(sc->table);
		sc->table = table;
		sc->cap = cap;
	}
	r = seen_insert(sc->table, sc->cap, &key);
	sc->n += r == 0;
	return r;
}

static void skip(struct scan *sc, const char *path, const char *why)
{
	(*sc->n_skipped)++;
	ag_kb_notice(sc->kb, "skipped %s: %s", path, why);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

static int read_names(DIR *dir, char ***ret_names, size_t *ret_n)
{
	char **names = NULL;
	size_t n = 0, cap = 0;
	struct dirent *de;

	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		if (n == cap) {
			size_t more = cap ? cap * 2 : 64;
			char **longer = more > MAX_FILES * 2 ? NULL : realloc(names, more * sizeof(*names));

			if (!longer)
				break;
			names = longer;
			cap = more;
		}
		names[n] = strdup(de->d_name);
		if (!names[n])
			break;
		n++;
	}
	if (de) {
		names_free(names, n);
		return -ENOMEM;
	}
	if (n)
		qsort(names, n, sizeof(*names), by_name);
	*ret_names = names;
	*ret_n = n;
	return 0;
}

static int visit(struct scan *sc, const char *path, unsigned depth);

/* In a tree of manual pages: sections 1, 5, 7 and 8, and the Chinese translations of them. */
static bool is_wanted(const struct scan *sc, const char *name, unsigned depth)
{
	if (!sc->sections_only)
		return true;
	if (depth == 0)
		return strncmp(name, "zh", 2) == 0 ||
		       (strncmp(name, "man", 3) == 0 && name[3] && strchr("1578", name[3]));
	if (strncmp(name, "man", 3) == 0 && depth == 1)
		return name[3] && strchr("1578", name[3]);
	return true;
}

static int visit_folder(struct scan *sc, const char *path, unsigned depth)
{
	CLEANUP(base_buf_done) struct base_buf child = BASE_BUF_INIT(PATH_MAX);
	DIR *dir = opendir(path);
	char **names = NULL;
	size_t n = 0;
	int r;

	if (!dir) {
		skip(sc, path, strerror(errno));
		return 0;
	}
	r = read_names(dir, &names, &n);
	(void)closedir(dir);
	for (size_t i = 0; i < n && r == 0; i++) {
		if (!is_wanted(sc, names[i], depth))
			continue;
		base_buf_reset(&child);
		if (base_buf_printf(&child, "%s%s%s", path, strcmp(path, "/") == 0 ? "" : "/", names[i]) < 0)
			skip(sc, path, "a path in it is too long");
		else
			r = visit(sc, base_buf_text(&child), depth + 1);
	}
	names_free(names, n);
	return r;
}

static int visit(struct scan *sc, const char *path, unsigned depth)
{
	struct stat st;
	int r;

	if (ag_kb_is_cancelled(sc->kb))
		return -ECANCELED;
	if (stat(path, &st) < 0) {
		skip(sc, path, errno == ELOOP ? "symbolic links in a circle" : strerror(errno));
		return 0;
	}
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return 0;
	r = see(sc, &st);
	if (r)
		return r < 0 ? r : 0;
	if (S_ISREG(st.st_mode)) {
		char resolved[PATH_MAX];

		if (realpath(path, resolved) && ag_tools_is_secret_path(resolved)) {
			skip(sc, path, "it may hold secrets");
			return 0;
		}
		return sc->fn(sc->arg, path);
	}
	if (depth >= MAX_DEPTH) {
		skip(sc, path, "too deep");
		return 0;
	}
	return visit_folder(sc, path, depth);
}

/* The folders of MANPATH, else the usual ones. */
static int scan_man(struct scan *sc, struct err *err)
{
	const char *env = getenv("MANPATH");
	CLEANUP(freep) char *copy = strdup(env && *env ? env : "/usr/local/share/man:/usr/share/man");
	char *save = NULL, *rest = copy;
	int r = 0, n = 0;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	sc->sections_only = true;
	for (char *dir; r == 0 && (dir = strtok_r(rest, ":", &save)); rest = NULL) {
		struct stat st;

		if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
			continue;
		n++;
		r = visit(sc, dir, 0);
	}
	return r == 0 && n == 0 ? err_set(err, -ENOENT, "there are no manual pages on this system") : r;
}

int ag_kb_scan(struct ag_kb *kb, const char *source, uint64_t *n_skipped, ag_kb_file_fn fn, void *arg, struct err *err)
{
	struct scan sc = { .kb = kb, .fn = fn, .arg = arg, .n_skipped = n_skipped };
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(PATH_MAX);
	struct stat st;
	int r;

	if (strcmp(source, "man") == 0) {
		r = scan_man(&sc, err);
	} else {
		if (strncmp(source, "doc:", 4) == 0)
			r = base_buf_printf(&path, "/usr/share/doc/%s", source + 4);
		else
			r = base_buf_puts(&path, source);
		if (r < 0)
			r = err_set(err, -ENAMETOOLONG, "%s: the path is too long", source);
		else if (stat(base_buf_text(&path), &st) < 0)
			r = err_set(err, -errno, "%s: %s", base_buf_text(&path), strerror(errno));
		else if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
			r = err_set(err, -EINVAL, "%s: neither a folder nor a file", base_buf_text(&path));
		else
			r = visit(&sc, base_buf_text(&path), 0);
	}
	free(sc.table);
	if (r == -ECANCELED)
		return err_set(err, r, "cancelled; `ocai kb update` goes on");
	if (r == -EFBIG)
		return err_set(err, r, "%s: more than %d files", source, MAX_FILES);
	return r;
}

int ag_kb_source_name(const char *what, struct base_buf *out, struct err *err)
{
	char resolved[PATH_MAX];

	if (strcmp(what, "man") == 0)
		return base_buf_puts(out, what);
	if (strncmp(what, "doc:", 4) == 0) {
		if (!what[4] || what[4] == '.' || strchr(what, '/'))
			return err_set(err, -EINVAL, "%s: expected doc:PACKAGE", what);
		return base_buf_puts(out, what);
	}
	if (!*what)
		return err_set(err, -EINVAL, "an empty path");
	/* What is gone can still be named, to be removed. */
	if (realpath(what, resolved))
		return base_buf_puts(out, resolved);
	if (what[0] == '/')
		return base_buf_puts(out, what);
	if (!getcwd(resolved, sizeof(resolved)))
		return err_set(err, -errno, "%s: %s", what, strerror(errno));
	return base_buf_printf(out, "%s/%s", resolved, what);
}
