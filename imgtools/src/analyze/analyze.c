/* The table of analyzers and what they share: looking things up in the tree as the kernel and the shell would. */
#include "analyze/analyze.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"
#include "elf/elf.h"

static const char *const kind_names[IMG_N_NEED_KINDS] = {
	[IMG_NEED_INTERP] = "interpreter", [IMG_NEED_SONAME] = "needed",        [IMG_NEED_DLOPEN] = "dlopen",
	[IMG_NEED_SHEBANG] = "shebang",    [IMG_NEED_COMMAND] = "command",      [IMG_NEED_IMPORT] = "import",
	[IMG_NEED_DATA] = "data",          [IMG_NEED_CONFIG] = "configuration", [IMG_NEED_LINK] = "link",
	[IMG_NEED_LANDMARK] = "landmark",
};

const char *img_need_kind_name(enum img_need_kind kind)
{
	return (unsigned int)kind < IMG_N_NEED_KINDS ? kind_names[kind] : "unknown";
}

int img_words_add(struct img_words *l, const char *s, size_t len)
{
	if (l->n == l->cap) {
		char **more = reallocarray(l->v, 2 * l->cap + 8, sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->v = more;
		l->cap = 2 * l->cap + 8;
	}
	l->v[l->n] = strndup(s, len);
	if (!l->v[l->n])
		return -ENOMEM;
	l->n++;
	return 0;
}

bool img_words_has(const struct img_words *l, const char *s)
{
	for (size_t i = 0; i < l->n; i++) {
		if (strcmp(l->v[i], s) == 0)
			return true;
	}
	return false;
}

void img_words_done(struct img_words *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct img_words){ 0 };
}

/* ---- Looking up ---- */

int img_look_need(struct img_look *k, enum img_need_kind kind, const char *what, struct img_node *to, bool is_weak)
{
	struct img_need need = { .from = k->n, .kind = kind, .what = what, .to = to, .is_weak = is_weak };
	int r;

	if (k->stopped < 0)
		return k->stopped;
	r = k->sink(&need, k->arg);
	k->stopped = r < 0 ? r : 0;
	return k->stopped;
}

struct links {
	struct img_node *v[IMG_SYMLINK_DEPTH];
	size_t n;
};

static void on_link(struct img_node *link, void *arg)
{
	struct links *l = arg;

	if (l->n < IMG_SYMLINK_DEPTH)
		l->v[l->n++] = link;
}

struct img_node *img_look_resolve(struct img_look *k, const char *path, bool is_weak)
{
	struct links links = { .n = 0 };
	struct img_node *to = NULL;

	if (img_tree_resolve(k->a->tree, path, true, &to, on_link, &links) < 0)
		return NULL;
	for (size_t i = 0; i < links.n; i++)
		(void)img_look_need(k, IMG_NEED_LINK, links.v[i]->path, links.v[i], is_weak);
	return to;
}

struct img_node *img_look_command(struct img_look *k, const char *name, bool is_weak)
{
	static const char *const dirs[] = { "/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
		                            "/usr/bin",        "/sbin",          "/bin" };
	char path[IMG_PATH_MAX];

	if (name[0] == '/')
		return img_look_resolve(k, name, is_weak);
	if (strchr(name, '/'))
		return NULL;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		struct img_node *to;

		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dirs[i], name) >= sizeof(path) ||
		    img_tree_resolve(k->a->tree, path, true, &to, NULL, NULL) < 0 || to->type != IMG_FILE ||
		    !(to->mode & 0111))
			continue;
		return img_look_resolve(k, path, is_weak);
	}
	return NULL;
}

char *img_look_text(struct img_look *k, size_t max_size, size_t *ret_size)
{
	struct err err = { 0 };
	void *data;

	if (k->n->size == 0)
		return NULL;
	if (img_node_read_all(k->n, max_size, &data, ret_size, &err) < 0) {
		(void)snprintf(k->a->note, sizeof(k->a->note), "%s", err_text(&err));
		k->note = k->a->note;
		return NULL;
	}
	return data;
}

/* ---- The table ---- */

static bool is_script(const struct img_node *n)
{
	char magic[2];

	return n->size > 2 && img_node_read(n, magic, 2, 0, NULL) == 2 && memcmp(magic, "#!", 2) == 0;
}

static bool is_python(const struct img_node *n)
{
	return fnmatch("*.py", n->path, 0) == 0;
}

static bool is_config(const struct img_node *n)
{
	return strncmp(n->path, "/etc/", 5) == 0 || fnmatch("*/systemd/*.service", n->path, 0) == 0;
}

static const struct {
	bool (*takes)(const struct img_node *n);
	int (*look)(struct img_look *k);
} analyzers[] = {
	{ img_elf_is, img_analyze_elf },
	{ is_script, img_analyze_script },
	{ is_python, img_analyze_python },
	{ is_config, img_analyze_config },
};

int img_analyze_file(struct img_analyze *a, struct img_node *n, img_need_sink sink, void *arg, const char **ret_note,
                     struct err *err)
{
	struct img_look k = { .a = a, .n = n, .sink = sink, .arg = arg };
	struct img_node *to;

	if (ret_note)
		*ret_note = NULL;
	if (n->type == IMG_SYMLINK) {
		to = img_look_resolve(&k, n->path, false);
		(void)img_look_need(&k, IMG_NEED_LINK, n->target, to, false);
	}
	for (size_t i = 0; n->type == IMG_FILE && n->size > 0 && i < sizeof(analyzers) / sizeof(*analyzers); i++) {
		if (analyzers[i].takes(n) && analyzers[i].look(&k) < 0)
			break;
	}
	if (ret_note)
		*ret_note = k.note;
	if (k.stopped == 0)
		return 0;
	if (err && err->code) /* the sink's own words */
		return k.stopped;
	return err_set(err, k.stopped, "%s: %s", n->path, strerror(-k.stopped));
}

int img_analyze_new(struct img_tree *t, struct img_analyze **ret_a, struct err *err)
{
	struct img_analyze *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return err_set(err, -ENOMEM, "out of memory");
	a->tree = t;
	r = img_elf_find_dirs(a);
	if (r == 0)
		r = img_python_find_dirs(a);
	if (r < 0) {
		img_analyze_free(a);
		return err_set(err, r, "%s", strerror(-r));
	}
	*ret_a = a;
	return 0;
}

void img_analyze_free(struct img_analyze *a)
{
	if (!a)
		return;
	img_words_done(&a->library_dirs);
	img_words_done(&a->python_dirs);
	free(a);
}
