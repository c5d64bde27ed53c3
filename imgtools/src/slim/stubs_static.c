/* Who refers to which library, without running anything: the same facts that bindings.c reads from a run, out of symbol
 * tables.
 *
 * A file's undefined symbol is taken to be met by the first library in the breadth-first order of its own DT_NEEDED
 * that defines it in a version that fits, and by whoever defines it when none of these does (a module's host). Another
 * library may come first in a program, but when it becomes a stub, which defines nothing that others define, the search
 * goes on to this one. A program's own definition of another's data may be a copy of it (R_*_COPY), so that counts as a
 * reference. What may be opened at run time stays: libraries that nobody needs (modules), those whose names stand among
 * the strings of a file, and those of which a file that calls dlsym() has the name of a symbol as a string.
 *
 * This is more than what a run binds: functions that are referred to and never called count. */
#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "elf/elf.h"
#include "slim/bindings.h"

enum { MAX_SCAN = 1 << 30, MIN_NAME = 3 };

struct object {
	struct img_node *node;
	struct img_elf *elf;
	bool is_needed; /* by another */
};

struct entry { /* a name, and an object that goes by it or defines it */
	const char *name;
	const char *version; /* of a definition; NULL: none */
	uint32_t object;
	uint8_t type;
};

struct finder {
	struct img_tree *tree;
	struct img_bindings *b;
	struct object *objects;
	uint32_t n;
	struct entry *names, *defined; /* sorted */
	size_t n_names, cap_names, n_defined;
	uint32_t *rank; /* of each object in the search of one; 0: not in it */
	uint32_t *queue;
};

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	const int r = strcmp(x->name, y->name);

	return r ? r : x->object < y->object ? -1 : x->object > y->object;
}

/* The first entry of a name; the others follow. NULL: none. */
static const struct entry *first(const struct entry *list, size_t n, const char *name)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (strcmp(list[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && strcmp(list[lo].name, name) == 0 ? &list[lo] : NULL;
}

static bool is_last(const struct entry *e, const struct entry *list, size_t n)
{
	return e + 1 == list + n || strcmp(e[1].name, e->name) != 0;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- What there is ---------------------------------------------------------------------------------------- */

static int add_name(struct finder *f, const char *name, uint32_t object)
{
	if (f->n_names == f->cap_names) {
		const size_t cap = f->cap_names ? 2 * f->cap_names : 256;
		struct entry *more = reallocarray(f->names, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		f->names = more;
		f->cap_names = cap;
	}
	f->names[f->n_names++] = (struct entry){ .name = name, .object = object };
	return 0;
}

static int read_objects(struct finder *f)
{
	const size_t n = img_tree_count(f->tree);

	f->objects = calloc(n + 1, sizeof(*f->objects));
	if (!f->objects)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		img_tree_at(f->tree, i)->user = NULL;
	for (size_t i = 0; i < n; i++) {
		struct img_node *node = img_tree_at(f->tree, i);
		struct object *o = &f->objects[f->n];
		int r = 0;

		if (!img_elf_is(node) || img_elf_read(node, IMG_ELF_SYMBOLS, &o->elf, NULL) < 0)
			continue;
		o->node = node;
		node->user = o;
		r = add_name(f, base_name(node->path), f->n);
		if (r == 0 && o->elf->soname)
			r = add_name(f, o->elf->soname, f->n);
		f->n++;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Links are names, too. */
static int read_links(struct finder *f)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < img_tree_count(f->tree); i++) {
		struct img_node *node = img_tree_at(f->tree, i), *real;

		if (node->type != IMG_SYMLINK || !strstr(base_name(node->path), ".so") ||
		    img_tree_resolve(f->tree, node->path, true, &real, NULL, NULL) < 0 || !real->user)
			continue;
		r = add_name(f, base_name(node->path), (uint32_t)((struct object *)real->user - f->objects));
	}
	if (f->n_names)
		qsort(f->names, f->n_names, sizeof(*f->names), compare_entries);
	return r;
}

static int list_defined(struct finder *f)
{
	size_t n = 0;

	for (uint32_t i = 0; i < f->n; i++)
		n += f->objects[i].elf->n_symbols;
	f->defined = calloc(n + 1, sizeof(*f->defined));
	f->rank = calloc(f->n + 1, sizeof(*f->rank));
	f->queue = calloc(f->n + 1, sizeof(*f->queue));
	if (!f->defined || !f->rank || !f->queue)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->n; i++) {
		const struct img_elf *e = f->objects[i].elf;

		for (size_t k = 0; k < e->n_symbols; k++) {
			const struct img_elf_symbol *y = &e->symbols[k];

			if (y->is_defined)
				f->defined[f->n_defined++] = (struct entry){ y->name, y->version, i, y->type };
		}
	}
	if (f->n_defined)
		qsort(f->defined, f->n_defined, sizeof(*f->defined), compare_entries);
	return 0;
}

/* ---- References ------------------------------------------------------------------------------------------- */

/* Ranks what a file loads, itself first. */
static uint32_t search(struct finder *f, uint32_t start)
{
	uint32_t n = 0;

	memset(f->rank, 0, f->n * sizeof(*f->rank));
	f->queue[n++] = start;
	f->rank[start] = n;
	for (uint32_t i = 0; i < n; i++) {
		const struct img_elf *e = f->objects[f->queue[i]].elf;

		for (size_t k = 0; k < e->n_needed; k++) {
			const struct entry *x = first(f->names, f->n_names, base_name(e->needed[k]));

			for (; x; x = is_last(x, f->names, f->n_names) ? NULL : x + 1) {
				struct object *o = &f->objects[x->object];

				o->is_needed = true;
				if (f->rank[x->object] || o->elf->machine != e->machine ||
				    o->elf->elf_class != e->elf_class)
					continue;
				f->queue[n++] = x->object;
				f->rank[x->object] = n;
			}
		}
	}
	return n;
}

static bool fits(const struct img_elf_symbol *y, const struct entry *x)
{
	return !y->version || !x->version || strcmp(y->version, x->version) == 0;
}

static int use(struct finder *f, uint32_t from, const struct entry *x)
{
	return img_bindings_add(f->b, f->objects[from].node->path, f->objects[x->object].node->path, x->name);
}

/* Of those that define it the first in the search; all that come in question where none is in it. */
static int refer(struct finder *f, uint32_t from, const struct img_elf_symbol *y)
{
	const struct entry *begin = first(f->defined, f->n_defined, y->name), *best = NULL;
	int r = 0;

	for (const struct entry *x = begin; x; x = is_last(x, f->defined, f->n_defined) ? NULL : x + 1) {
		if (x->object != from && fits(y, x) && f->rank[x->object] &&
		    (!best || f->rank[x->object] < f->rank[best->object]))
			best = x;
	}
	if (best)
		return use(f, from, best);
	for (const struct entry *x = begin; r == 0 && x; x = is_last(x, f->defined, f->n_defined) ? NULL : x + 1) {
		if (x->object != from && fits(y, x))
			r = use(f, from, x);
	}
	return r;
}

/* A program's data that a library has as well: the program's may be a copy. */
static int refer_to_copy(struct finder *f, uint32_t from, const struct img_elf_symbol *y)
{
	const struct entry *x = y->type == STT_OBJECT ? first(f->defined, f->n_defined, y->name) : NULL;
	int r = 0;

	for (; r == 0 && x; x = is_last(x, f->defined, f->n_defined) ? NULL : x + 1) {
		if (x->object != from && f->rank[x->object] && x->type == STT_OBJECT)
			r = img_bindings_add_opened(f->b, f->objects[x->object].node->path);
	}
	return r;
}

struct strings {
	struct finder *f;
	uint32_t from;
	const char *data; /* all of the file */
	size_t size;
};

/* Names of what it is linked with stand in every file once; a second time they are a string of the program. */
static bool is_just_linked(const struct strings *x, const char *name)
{
	const struct img_elf *e = x->f->objects[x->from].elf;
	const size_t len = strlen(name);
	bool is_linked = e->soname && strcmp(e->soname, name) == 0;
	size_t n = 0;

	for (size_t i = 0; i < e->n_needed && !is_linked; i++)
		is_linked = strcmp(e->needed[i], name) == 0;
	for (const char *at = x->data, *end = at + x->size; is_linked && n < 2; at++) {
		at = memmem(at, (size_t)(end - at), name, len + 1);
		if (!at)
			break;
		n += at > x->data && at[-1] == 0;
	}
	return is_linked && n < 2;
}

static int on_library(const char *s, void *arg)
{
	struct strings *x = arg;
	const struct entry *e = first(x->f->names, x->f->n_names, base_name(s));
	int r = 0;

	if (e && is_just_linked(x, s))
		return 0;
	for (; r == 0 && e; e = is_last(e, x->f->names, x->f->n_names) ? NULL : e + 1) {
		if (e->object != x->from)
			r = img_bindings_add_opened(x->f->b, x->f->objects[e->object].node->path);
	}
	return r;
}

static bool asks_by_name(const struct img_elf *e)
{
	for (size_t i = 0; i < e->n_symbols; i++) {
		if (!e->symbols[i].is_defined &&
		    (strcmp(e->symbols[i].name, "dlsym") == 0 || strcmp(e->symbols[i].name, "dlvsym") == 0))
			return true;
	}
	return false;
}

static bool is_identifier(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)s[i]) && s[i] != '_')
			return false;
	}
	return len >= MIN_NAME && !isdigit((unsigned char)s[0]);
}

/* Strings that are names of others' symbols. Names of what is loaded anyway and bound otherwise do no harm here. */
static int refer_by_strings(const struct strings *strings)
{
	struct finder *f = strings->f;
	const uint32_t from = strings->from;
	int r = 0;

	for (const char *s = strings->data, *end = s + strings->size; r == 0 && s < end;) {
		const char *zero = memchr(s, 0, (size_t)(end - s));
		const size_t len = (size_t)((zero ? zero : end) - s);
		const struct entry *x = zero && is_identifier(s, len) ? first(f->defined, f->n_defined, s) : NULL;

		for (; r == 0 && x; x = is_last(x, f->defined, f->n_defined) ? NULL : x + 1) {
			if (x->object != from && !f->rank[x->object])
				continue; /* it is opened by a name of its own, if at all */
			if (x->object != from)
				r = use(f, from, x);
		}
		s += len + 1;
	}
	return r;
}

static int look_at(struct finder *f, uint32_t i)
{
	const struct object *o = &f->objects[i];
	CLEANUP(freep) void *data = NULL;
	struct strings strings = { .f = f, .from = i };
	int r = img_node_read_all(o->node, MAX_SCAN, &data, &strings.size, NULL);

	if (r < 0)
		return r;
	strings.data = data;
	(void)search(f, i);
	for (size_t k = 0; r == 0 && k < o->elf->n_symbols; k++) {
		const struct img_elf_symbol *y = &o->elf->symbols[k];

		if (!y->is_defined)
			r = refer(f, i, y);
		else if (o->elf->interp)
			r = refer_to_copy(f, i, y);
	}
	if (r == 0)
		r = img_elf_library_strings(o->node, on_library, &strings, NULL);
	if (r == -ENOEXEC || r == -EBADMSG)
		r = 0; /* no strings are to be had of it */
	return r == 0 && asks_by_name(o->elf) ? refer_by_strings(&strings) : r;
}

static void finder_done(struct finder *f)
{
	for (uint32_t i = 0; i < f->n; i++) {
		img_elf_free(f->objects[i].elf);
		f->objects[i].node->user = NULL;
	}
	free(f->objects);
	free(f->names);
	free(f->defined);
	free(f->rank);
	free(f->queue);
}

int img_bindings_of_tree(struct img_bindings *b, struct img_tree *t, struct err *err)
{
	CLEANUP(finder_done) struct finder f = { .tree = t, .b = b };
	int r = read_objects(&f);

	if (r == 0)
		r = read_links(&f);
	if (r == 0)
		r = list_defined(&f);
	for (uint32_t i = 0; r == 0 && i < f.n; i++)
		r = look_at(&f, i);
	/* What nobody needs is a module or a program. */
	for (uint32_t i = 0; r == 0 && i < f.n; i++) {
		const char *path = f.objects[i].node->path;

		r = img_bindings_add_loaded(b, path);
		if (r == 0 && !f.objects[i].is_needed)
			r = img_bindings_add_opened(b, path);
	}
	return r < 0 ? err_set(err, r, "%s", strerror(-r)) : 0;
}
