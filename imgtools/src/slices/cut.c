/* Cut: from requests to files, breadth first along needs, so that the reason kept for a file is a shortest one. A
 * request is a slice (bash_bins), a package (bash: its slices that matter at run time), a path, a glob of paths, or a
 * Python module (python:json). */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "slices_internal.h"

/* What is known of one file: index of its item + 1. */
struct marks {
	uint32_t *item; /* by file */
};

struct cutter {
	struct img_world *w;
	const struct img_cut_opts *o;
	struct img_cut *cut;
	size_t cap_items;
	struct marks *marks; /* by package index */
	size_t n_marks;
	struct err *err;
	const char *request; /* being expanded */
	struct img_file_id from;
	char **done_slices; /* expanded already */
	size_t n_done;
};

/* ---- Choosing --------------------------------------------------------------------------------------------- */

static bool is_excluded(const struct cutter *c, const char *path)
{
	for (size_t i = 0; i < c->o->n_excludes; i++) {
		if (fnmatch(c->o->excludes[i], path, 0) == 0)
			return true;
	}
	return false;
}

static int choose(struct cutter *c, struct img_file_id id, const char *kind, const char *what)
{
	const struct img_rpm_file *f = &id.package->files[id.file];
	struct marks *m;

	if (f->flags & IMG_RPMFILE_GHOST || !img_rpm_file_is_installed(f) || is_excluded(c, f->path))
		return 0;
	if ((size_t)id.package->index >= c->n_marks)
		return -EINVAL;
	m = &c->marks[id.package->index];
	if (!m->item) {
		m->item = calloc(id.package->n_files + 1, sizeof(*m->item));
		if (!m->item)
			return -ENOMEM;
	}
	if (m->item[id.file])
		return 0;
	if (c->cut->n_items == c->cap_items) {
		const size_t cap = c->cap_items ? c->cap_items * 2 : 256;
		struct img_cut_item *grown = reallocarray(c->cut->items, cap, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		c->cut->items = grown;
		c->cap_items = cap;
	}
	what = img_world_text(c->w, what ? what : "");
	if (!what)
		return -ENOMEM;
	c->cut->items[c->cut->n_items++] =
	        (struct img_cut_item){ .id = id, .path = f->path, .why = { kind, what, c->from } };
	m->item[id.file] = (uint32_t)c->cut->n_items;
	return 0;
}

/* An unmet need: an error that says who has it, or counted. */
static int miss(struct cutter *c, const char *kind, const char *what, const char *owner)
{
	char text[480];

	if (owner)
		(void)snprintf(text, sizeof(text), "%.200s (%.60s) needs %.150s (%s), which no package has", owner,
		               c->from.package ? c->from.package->name : "", what, kind);
	else
		(void)snprintf(text, sizeof(text), "%.200s: no package has it", what);
	if (c->cut->n_missing++ == 0)
		(void)snprintf(c->cut->first_missing, sizeof(c->cut->first_missing), "%s", text);
	if (owner && c->o->ignore_missing)
		return 0;
	return err_set(c->err, -ENOENT, "%s%s", text,
	               owner ? "; --exclude leaves that file out, --ignore-missing goes on without" : "");
}

/* ---- Slices ----------------------------------------------------------------------------------------------- */

/* Locales that a package has are its files. */
static int choose_locales(struct cutter *c, const char *generator)
{
	const char *cursor = NULL;
	struct img_locale l;
	int r;

	while ((r = img_locale_next(generator, &cursor, &l, c->err)) == 1) {
		const size_t len = strlen(l.dir);
		struct err e = { 0 };
		struct img_rpm *p = img_locale_owner(img_world_set(c->w), &l, &e);

		r = e.code ? err_set(c->err, e.code, "%s", e.msg) : p ? img_rpm_load(p, c->err) : 0;
		for (uint32_t f = 0; r == 0 && p && f < p->n_files; f++) {
			const char *path = p->files[f].path;

			if (strncmp(path, l.dir, len) == 0 && (path[len] == '/' || !path[len]))
				r = choose(c, (struct img_file_id){ p, f }, "generate", l.name);
		}
		if (r < 0)
			return r;
	}
	return r;
}

static int want_generated(struct cutter *c, const char *name)
{
	const char **grown;

	for (size_t i = 0; i < c->cut->n_generate; i++) {
		if (strcmp(c->cut->generate[i], name) == 0)
			return 0;
	}
	grown = reallocarray(c->cut->generate, c->cut->n_generate + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->cut->generate = grown;
	c->cut->generate[c->cut->n_generate] = img_world_text(c->w, name);
	if (!c->cut->generate[c->cut->n_generate++])
		return -ENOMEM;
	return img_locale_is(name) ? choose_locales(c, name) : 0;
}

static int expand_target(struct cutter *c, const char *target, const char *kind, bool is_optional);

/* What rules say of a slice as a whole. */
static int expand_rules(struct cutter *c, const char *slice)
{
	const char *values[64];
	size_t n;
	int r = 0;

	n = img_rules_slice_lines(c->o->rules, slice, "generate", values, 64);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = want_generated(c, values[i]);
	n = img_rules_slice_lines(c->o->rules, slice, "need", values, 64);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = expand_target(c, values[i], "rule", false);
	n = img_rules_slice_lines(c->o->rules, slice, "want", values, 64);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = expand_target(c, values[i], "rule", true);
	return r;
}

static int is_done(struct cutter *c, const char *slice)
{
	char **grown;

	for (size_t i = 0; i < c->n_done; i++) {
		if (strcmp(c->done_slices[i], slice) == 0)
			return 1;
	}
	grown = reallocarray(c->done_slices, c->n_done + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->done_slices = grown;
	c->done_slices[c->n_done] = strdup(slice);
	return c->done_slices[c->n_done++] ? 0 : -ENOMEM;
}

/* All files of a package in one slice (role NULL: in those that matter at run time). Returns how many. */
static int expand_slice(struct cutter *c, struct img_rpm *p, const char *role, const char *kind, const char *what)
{
	char name[512];
	int n = 0, r;

	r = img_rpm_load(p, c->err);
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), "%s%s%s", p->name, role ? "_" : "", role ? role : "");
	r = is_done(c, name);
	if (r)
		return r;
	for (uint32_t i = 0; i < p->n_files; i++) {
		const struct img_file_id id = { p, i };
		const char *slice = img_world_slice(c->w, id);

		if (!slice || (role ? strcmp(slice, role) != 0 : !img_slice_role_is_runtime(slice)))
			continue;
		r = choose(c, id, kind, what);
		if (r < 0)
			return r;
		n++;
	}
	r = role ? expand_rules(c, name) : 0;
	for (size_t i = 0; r == 0 && !role && img_slice_role_at(i, NULL); i++) {
		if (!img_slice_role_is_runtime(img_slice_role_at(i, NULL)))
			continue;
		(void)snprintf(name, sizeof(name), "%s_%s", p->name, img_slice_role_at(i, NULL));
		r = expand_rules(c, name);
	}
	return r < 0 ? r : n;
}

static int choose_link(struct img_file_id link, void *arg)
{
	struct cutter *c = arg;

	return choose(c, link, "link", c->request);
}

/* Every path that fits, of all packages. */
static int expand_glob(struct cutter *c, const char *pattern, const char *kind)
{
	int n = 0, r;

	for (size_t i = 0; i < img_rpm_set_count(img_world_set(c->w)); i++) {
		struct img_rpm *p = img_rpm_set_at(img_world_set(c->w), i);

		/* A rule speaks of what is at hand, not of every package of a repository. */
		if (strcmp(kind, "rule") == 0 && !p->is_loaded)
			continue;
		r = img_rpm_load(p, c->err);
		for (uint32_t k = 0; r == 0 && k < p->n_files; k++) {
			if (!img_request_fits(pattern, p->files[k].path))
				continue;
			r = choose(c, (struct img_file_id){ p, k }, kind, pattern);
			n++;
		}
		if (r < 0)
			return r;
	}
	return n;
}

/* A path or a slice, from a request or a rule. */
static int expand_target(struct cutter *c, const char *target, const char *kind, bool is_optional)
{
	struct img_file_id id;
	const char *role;
	struct img_rpm *p;
	int n;

	c->request = target;
	if (img_request_is_glob(target)) {
		n = expand_glob(c, target, kind);
		return n < 0 ? n : n == 0 && !is_optional ? miss(c, kind, target, NULL) : 0;
	}
	if (target[0] == '/') {
		n = img_world_find(c->w, target, &id, choose_link, c, c->err);
		if (n < 0)
			return n;
		if (!id.package)
			return is_optional ? 0 : miss(c, kind, target, NULL);
		return choose(c, id, kind, target);
	}
	p = img_request_slice(c->w, target, &role);
	if (!p)
		return is_optional ? 0 : err_set(c->err, -ENOENT, "%s: there is no such package", target);
	n = expand_slice(c, p, role, kind, target);
	if (n == 0 && role && !is_optional && !img_world_has_slice(c->w, target))
		return err_set(c->err, -ENOENT, "%s: package %s has no files in that slice (see `slimtrace slices`)",
		               target, p->name);
	return n < 0 ? n : 0;
}

/* ---- Following -------------------------------------------------------------------------------------------- */

/* ".../dist-packages/numpy/" of ".../dist-packages/numpy/core/x.py": how much of a path names a Python package that is
 * not part of Python itself. 0: none. */
static size_t module_len(const char *path)
{
	static const char *const tops[] = { "/dist-packages/", "/site-packages/" };

	for (size_t i = 0; i < 2; i++) {
		const char *top = strstr(path, tops[i]);
		const char *end = top ? strchr(top + strlen(tops[i]), '/') : NULL;

		if (end)
			return (size_t)(end + 1 - path);
	}
	return 0;
}

/* An import that may never run (in try, if, a function) is followed within one Python package all the same: its parts
 * belong together, while what a library might need of others is what makes roots large. Python's own library is written
 * the other way: what stands in a function there is rarely needed. */
static bool is_within_module(struct img_file_id from, const struct img_file_need *n)
{
	const char *path = from.package->files[from.file].path;
	const size_t len = module_len(path);

	return n->to.package && strcmp(n->kind, "import") == 0 && len &&
	       strncmp(n->to.package->files[n->to.file].path, path, len) == 0;
}

static int on_need(const struct img_file_need *n, void *arg, struct err *err)
{
	struct cutter *c = arg;

	(void)err;
	if (n->slice && !n->is_missing)
		return expand_target(c, n->slice, n->kind, n->is_weak);
	if (n->is_weak && (n->is_missing || (!c->o->with_weak && !is_within_module(c->from, n))))
		return 0;
	if (n->is_missing) {
		if (is_excluded(c, n->what))
			return 0;
		return miss(c, n->kind, n->what, c->from.package->files[c->from.file].path);
	}
	return choose(c, n->to, n->kind, n->what);
}

/* Requirements of a package that no file of it is the reason for: "python3-numpy needs python3". */
static int follow_package(struct cutter *c, struct img_rpm *p)
{
	CLEANUP(freep) bool *has_file = calloc(p->n_deps[IMG_RPM_REQUIRES] + 1, 1);
	int r = has_file ? 0 : -ENOMEM;

	for (size_t f = 0; r == 0 && f < p->n_files; f++) {
		for (uint32_t k = 0; k < p->files[f].n_deps; k++) {
			if (p->files[f].deps[k] >> 24 == IMG_RPM_REQUIRES)
				has_file[p->files[f].deps[k] & 0xffffff] = true;
		}
	}
	for (size_t i = 0; r == 0 && i < p->n_deps[IMG_RPM_REQUIRES]; i++) {
		const struct img_rpm_dep *d = &p->deps[IMG_RPM_REQUIRES][i];
		struct img_rpm *to;
		int32_t file = -1;

		if (has_file[i] || strncmp(d->name, "rpmlib(", 7) == 0 || d->name[0] == '(')
			continue;
		to = img_rpm_set_provider(img_world_set(c->w), d, &file, c->err);
		if (!to)
			r = miss(c, "rpm", d->name, p->name);
		else if (d->name[0] == '/')
			r = expand_target(c, d->name, "rpm", false);
		else
			r = expand_slice(c, to, NULL, "rpm", d->name);
		r = r > 0 ? 0 : r;
	}
	return r;
}

static int follow_all(struct cutter *c)
{
	CLEANUP(freep) bool *followed = calloc(c->n_marks + 1, 1);
	int r = followed ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < c->cut->n_items; i++) {
		const struct img_cut_item item = c->cut->items[i]; /* the array moves */

		c->from = item.id;
		r = img_world_needs(c->w, item.id, on_need, c, c->err);
		if (r == 0 && c->o->with_requires && !followed[item.id.package->index]) {
			followed[item.id.package->index] = true;
			r = follow_package(c, item.id.package);
		}
	}
	return r;
}

/* ---- Together --------------------------------------------------------------------------------------------- */

static int by_path(const void *a, const void *b)
{
	const struct img_cut_item *x = a, *y = b;
	const int r = strcmp(x->path, y->path);

	return r ? r : strcmp(x->id.package->name, y->id.package->name);
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct img_rpm *const *)a)->name, (*(const struct img_rpm *const *)b)->name);
}

/* Packages with a file that is more than a folder: those only lead to files of others. */
static int list_packages(struct cutter *c)
{
	struct img_cut *cut = c->cut;
	CLEANUP(freep) bool *has = calloc(c->n_marks + 1, 1);

	cut->packages = calloc(cut->n_items + 1, sizeof(struct img_rpm *));
	if (!cut->packages || !has)
		return -ENOMEM;
	for (size_t i = 0; i < cut->n_items; i++) {
		struct img_rpm *p = cut->items[i].id.package;

		if (has[p->index] ||
		    (p->files[cut->items[i].id.file].type == IMG_DIR && cut->items[i].why.from.package))
			continue;
		has[p->index] = true;
		cut->packages[cut->n_packages++] = p;
	}
	qsort(cut->packages, cut->n_packages, sizeof(struct img_rpm *), by_name);
	if (cut->n_items)
		qsort(cut->items, cut->n_items, sizeof(*cut->items), by_path);
	return 0;
}

/* A database of slices speaks of certain versions. */
static int check_versions(const struct cutter *c)
{
	const struct img_slices *s = img_world_options(c->w)->slices;

	for (size_t i = 0; s && i < c->cut->n_packages; i++) {
		const struct img_rpm *p = c->cut->packages[i];
		const char *known = img_slices_evr(s, p->name);
		char evr[256];

		img_slice_evr(p, evr);
		if (known && strcmp(known, evr) != 0)
			return err_set(c->err, -EINVAL,
			               "the slices are of %s %s, the packages have %s: make the slices again "
			               "(slimtrace slices)",
			               p->name, known, evr);
	}
	return 0;
}

int img_cut_resolve(struct img_world *w, const struct img_cut_opts *o, struct img_cut **ret_cut, struct err *err)
{
	struct cutter c = { .w = w, .o = o, .err = err };
	CLEANUP(freep) struct img_rpm **packages = NULL;
	size_t n = 0;
	int r;

	c.cut = calloc(1, sizeof(*c.cut));
	c.n_marks = img_rpm_set_count(img_world_set(w));
	c.marks = calloc(c.n_marks + 1, sizeof(*c.marks));
	r = c.cut && c.marks ? img_request_packages(w, o, &packages, &n, err) : -ENOMEM;
	if (r == 0 && (!img_world_options(w)->slices || img_world_options(w)->root))
		r = img_world_options(w)->kind == IMG_WORLD_FILES || img_world_options(w)->root
		            ? img_world_open(w, packages, n, err)
		            : img_world_load(w, packages, n, err);
	for (size_t i = 0; r == 0 && i < o->n_requests; i++)
		r = expand_target(&c, o->requests[i], "asked for", false);
	for (size_t i = 0; r == 0 && i < o->n_generate; i++)
		r = want_generated(&c, o->generate[i]);
	if (r == 0)
		r = follow_all(&c);
	if (r == 0)
		r = list_packages(&c);
	if (r == 0)
		r = check_versions(&c);
	for (size_t i = 0; c.marks && i < c.n_marks; i++)
		free(c.marks[i].item);
	free(c.marks);
	for (size_t i = 0; i < c.n_done; i++)
		free(c.done_slices[i]);
	free(c.done_slices);
	if (r < 0) {
		img_cut_free(c.cut);
		return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
	}
	*ret_cut = c.cut;
	return 0;
}

void img_cut_free(struct img_cut *c)
{
	if (!c)
		return;
	free(c->items);
	free(c->packages);
	free(c->generate);
	free(c);
}
