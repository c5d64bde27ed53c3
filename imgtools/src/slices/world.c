/* The world: packages that can be chosen from, and the needs of each of their files.
 *
 * Needs come from three places: the per-file dependencies of the package header (a soname, an interpreter, a path;
 * rpm's generators found them at build time), the file itself (analyze.h: what the kernel opens, imports, commands,
 * links), and rules by hand. A parsed database of slices replaces the first two. */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze.h"
#include "world_internal.h"

int img_world_new(struct img_rpm_set *set, const struct img_world_opts *o, struct img_world **ret_w, struct err *err)
{
	struct img_world *w = calloc(1, sizeof(*w));

	if (w)
		w->is_member = calloc(img_rpm_set_count(set) + 1, 1);
	if (!w || !w->is_member) {
		img_world_free(w);
		return err_set(err, -ENOMEM, "out of memory");
	}
	w->set = set;
	w->o = *o;
	*ret_w = w;
	return 0;
}

void img_world_free(struct img_world *w)
{
	if (!w)
		return;
	img_analyze_free(w->analyze);
	img_tree_free(w->tree);
	img_rpm_aliases_free(w->aliases);
	for (size_t i = 0; i < w->n_texts; i++)
		free(w->texts[i]);
	free(w->texts);
	free(w->packages);
	free(w->is_member);
	free(w);
}

struct img_rpm_set *img_world_set(struct img_world *w)
{
	return w->set;
}

const struct img_world_opts *img_world_options(const struct img_world *w)
{
	return &w->o;
}

const struct img_rpm_aliases *img_world_aliases(const struct img_world *w)
{
	return w->aliases;
}

struct img_tree *img_world_tree(struct img_world *w)
{
	return w->tree;
}

const char *img_world_text(struct img_world *w, const char *s)
{
	char *copy;

	if (w->n_texts == w->cap_texts) {
		const size_t cap = w->cap_texts ? w->cap_texts * 2 : 256;
		char **grown = reallocarray(w->texts, cap, sizeof(*grown));

		if (!grown)
			return NULL;
		w->texts = grown;
		w->cap_texts = cap;
	}
	copy = strdup(s);
	if (copy)
		w->texts[w->n_texts++] = copy;
	return copy;
}

void img_slice_evr(const struct img_rpm *p, char buf[256])
{
	if (p->epoch)
		(void)snprintf(buf, 256, "%u:%s-%s", p->epoch, p->version, p->release);
	else
		(void)snprintf(buf, 256, "%s-%s", p->version, p->release);
}

/* ---- Members ---------------------------------------------------------------------------------------------- */

/* Who owns a path as it is written; package NULL: nobody. */
static int owner_of(struct img_world *w, const char *path, struct img_file_id *ret_id, struct err *err)
{
	struct err e = { 0 };
	int32_t file = -1;
	struct img_rpm *p = img_rpm_set_owner(w->set, path, &file, &e);

	if (!p && e.code)
		return err_set(err, e.code, "%s", e.msg);
	*ret_id = (struct img_file_id){ p, p ? (uint32_t)file : 0 };
	return 0;
}

static int add_member(struct img_world *w, struct img_rpm *p, struct err *err)
{
	int r;

	if (w->is_member[p->index])
		return 0;
	r = img_rpm_load(p, err);
	if (r < 0)
		return r;
	if (w->n == w->cap) {
		const size_t cap = w->cap ? w->cap * 2 : 64;
		struct img_rpm **grown = reallocarray(w->packages, cap, sizeof(struct img_rpm *));

		if (!grown)
			return -ENOMEM;
		w->packages = grown;
		w->cap = cap;
	}
	w->is_member[p->index] = true;
	p->is_preferred = true;
	w->packages[w->n++] = p;
	return 0;
}

/* The provider of a requirement, of a rich one ("(a or b)") the first that anyone provides; "(a if b)" is left out:
 * whether b is there is not known yet. NULL: nobody, or no need. */
struct img_rpm *img_world_provider(struct img_world *w, const struct img_rpm_dep *d, int32_t *ret_file, struct err *err)
{
	struct img_rpm_dep one = *d;
	struct img_rpm *best = NULL;
	char text[1024];

	*ret_file = -1;
	if (d->name[0] != '(')
		return img_rpm_set_provider(w->set, d, ret_file, err);
	if (strlen(d->name) >= sizeof(text) || strstr(d->name, " if ") || strstr(d->name, " unless "))
		return NULL;
	for (const char *s = d->name; *s;) {
		const size_t len = strcspn(s, "() ");
		int32_t file = -1;
		struct img_rpm *p;

		(void)snprintf(text, sizeof(text), "%.*s", (int)len, s);
		s += len;
		s += strspn(s, "() ");
		if (!len || !strcmp(text, "or") || !strcmp(text, "and") || !strcmp(text, "with") ||
		    strchr("<>=", text[0]))
			continue;
		one = (struct img_rpm_dep){ .name = text, .version = "" };
		p = img_rpm_set_provider(w->set, &one, &file, err);
		/* One that is there already meets the need without bringing anything. */
		if (p && (!best || (p->is_preferred && !best->is_preferred))) {
			best = p;
			*ret_file = file;
		}
	}
	return best;
}

bool img_world_is_internal(const struct img_rpm_dep *d)
{
	return strncmp(d->name, "rpmlib(", 7) == 0 || strncmp(d->name, "config(", 7) == 0;
}

/* What rules want of other packages is to be had too, required or not. */
static int add_by_rules(struct img_world *w, const struct img_rpm *p, struct err *err)
{
	const char *targets[2 * MAX_RULE_NEEDS];
	int r = 0;

	for (size_t f = 0; r == 0 && f < p->n_files; f++) {
		size_t n = img_rules_needs(w->o.rules, p->files[f].path, false, targets, MAX_RULE_NEEDS);

		n += img_rules_needs(w->o.rules, p->files[f].path, true, targets + n, MAX_RULE_NEEDS);
		for (size_t i = 0; r == 0 && i < n; i++) {
			const char *split = img_slice_split(targets[i]);
			struct img_file_id id = { 0 };
			char name[256];

			(void)snprintf(name, sizeof(name), "%.*s", split ? (int)(split - targets[i]) : 255, targets[i]);
			if (targets[i][0] == '/' && !strpbrk(targets[i], "*?["))
				r = owner_of(w, targets[i], &id, err);
			else if (targets[i][0] != '/')
				id.package = img_rpm_set_find(w->set, name);
			if (r == 0 && id.package)
				r = add_member(w, id.package, err);
		}
	}
	return r;
}

int img_world_load(struct img_world *w, struct img_rpm *const *packages, size_t n, struct err *err)
{
	const size_t before = w->n;
	int r = 0;

	/* Those that were asked for first: they win where several provide the same. */
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_member(w, packages[i], err);
	for (size_t i = before; r == 0 && i < w->n; i++) {
		struct img_rpm *p = w->packages[i];

		for (size_t k = 0; r == 0 && k < p->n_deps[IMG_RPM_REQUIRES]; k++) {
			const struct img_rpm_dep *d = &p->deps[IMG_RPM_REQUIRES][k];
			struct err e = { 0 };
			struct img_rpm *to;
			int32_t file;

			if (img_world_is_internal(d))
				continue;
			to = img_world_provider(w, d, &file, &e);
			/* Whether an unmet requirement matters shows when a file turns out to have it. */
			if (to)
				r = add_member(w, to, err);
			else if (e.code)
				r = err_set(err, e.code, "%s", e.msg);
		}
		if (r == 0)
			r = add_by_rules(w, p, err);
	}
	if (r == 0) {
		img_rpm_aliases_free(w->aliases);
		w->aliases = NULL;
		r = img_rpm_aliases_new(w->packages, w->n, &w->aliases);
	}
	return r;
}

static void on_bytes(uint64_t n, void *arg)
{
	const struct img_cut_progress *p = arg;

	if (p && p->step)
		p->step(n, p->arg);
}

/* An installed root as it stands; files of no package cannot be chosen. */
static int scan_root(struct img_world *w, struct err *err)
{
	int r = img_tree_scan(w->o.root, &w->tree, err);

	for (size_t i = 0; r == 0 && i < img_tree_count(w->tree); i++) {
		struct img_node *n = img_tree_at(w->tree, i);

		n->package = -1;
		n->user = NULL;
	}
	for (size_t i = 0; r == 0 && i < w->n; i++) {
		const struct img_rpm *p = w->packages[i];

		for (size_t f = 0; f < p->n_files; f++) {
			char path[IMG_PATH_MAX];
			struct img_node *n = img_rpm_canonical(w->aliases, p->files[f].path, path) == 0
			                             ? img_tree_find(w->tree, path)
			                             : NULL;

			if (n && n->package < 0 && n->type == p->files[f].type &&
			    img_rpm_file_is_installed(&p->files[f])) {
				n->package = p->index;
				n->user = &p->files[f];
			}
		}
	}
	return r;
}

int img_world_open(struct img_world *w, struct img_rpm *const *packages, size_t n, struct err *err)
{
	struct img_rpm_unpack_opts u = { .spool = w->o.spool, .on_bytes = on_bytes, .arg = (void *)w->o.progress };
	uint64_t total = 0;
	int r = img_world_load(w, packages, n, err);

	if (r < 0 || w->tree)
		return r;
	if (w->o.root) {
		r = scan_root(w, err);
		return r < 0 || w->o.kind != IMG_WORLD_FILES ? r : img_analyze_new(w->tree, &w->analyze, err);
	}
	w->tree = img_tree_new();
	if (!w->tree)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++)
		total += w->packages[i]->installed_size;
	/* A gigabyte in memory in all; what is more goes to the spool. */
	u.memory_bytes = ((uint64_t)1 << 30) / (w->n ? w->n : 1);
	u.aliases = w->aliases;
	/* A repository has packages that exclude each other; whether one such file was chosen shows later. */
	u.first_wins = true;
	if (w->o.progress && w->o.progress->begin)
		w->o.progress->begin("unpacking", total, w->o.progress->arg);
	r = img_rpm_unpack(w->packages, w->n, &u, w->tree, err);
	if (w->o.progress && w->o.progress->end)
		w->o.progress->end(w->o.progress->arg);
	if (r == 0 && w->o.kind == IMG_WORLD_FILES)
		r = img_analyze_new(w->tree, &w->analyze, err);
	return r;
}

/* ---- Paths ------------------------------------------------------------------------------------------------ */

struct img_file_id img_world_id(struct img_world *w, const struct img_node *n)
{
	struct img_rpm *p = n->package >= 0 ? img_rpm_set_at(w->set, (size_t)n->package) : NULL;
	struct img_file_id id = { p, 0 };

	if (p && n->user)
		id.file = (uint32_t)((const struct img_rpm_file *)n->user - p->files);
	else
		id.package = NULL;
	return id;
}

struct link_call {
	struct img_world *w;
	int (*on_link)(struct img_file_id link, void *arg);
	void *arg;
};

static void pass_link(struct img_node *link, void *arg)
{
	const struct link_call *c = arg;
	const struct img_file_id id = img_world_id(c->w, link);

	if (c->on_link && id.package)
		(void)c->on_link(id, c->arg);
}

int img_world_find(struct img_world *w, const char *path, struct img_file_id *ret_id,
                   int (*on_link)(struct img_file_id link, void *arg), void *arg, struct err *err)
{
	struct link_call call = { w, on_link, arg };
	char text[IMG_PATH_MAX];
	struct img_node *n;
	int r;

	*ret_id = (struct img_file_id){ 0 };
	if (w->tree) {
		if (img_tree_resolve(w->tree, path, false, &n, pass_link, &call) == 0)
			*ret_id = img_world_id(w, n);
		return 0;
	}
	r = img_rpm_clean_path(path, text);
	if (r < 0)
		return err_set(err, r, "%s: %s", path, strerror(-r));
	/* Without a tree the owners of the folders tell which of them are links. */
	for (int hops = 0; hops < IMG_SYMLINK_DEPTH; hops++) {
		struct img_file_id link = { 0 };
		struct img_rpm_aliases *one = NULL;
		char *slash;

		r = owner_of(w, text, ret_id, err);
		if (r < 0 || ret_id->package)
			return r;
		for (slash = strchr(text + 1, '/'); slash && !link.package; slash = strchr(slash + 1, '/')) {
			*slash = 0;
			r = owner_of(w, text, &link, err);
			*slash = '/';
			if (r < 0)
				return r;
			if (link.package && link.package->files[link.file].type != IMG_SYMLINK)
				link.package = NULL;
		}
		if (!link.package)
			return 0;
		if (on_link)
			(void)on_link(link, arg);
		r = img_rpm_aliases_new(&link.package, 1, &one);
		if (r == 0)
			r = img_rpm_canonical(one, text, text);
		img_rpm_aliases_free(one);
		if (r < 0)
			return err_set(err, r, "%s: %s", path, strerror(-r));
	}
	return 0;
}

bool img_world_has_slice(struct img_world *w, const char *name)
{
	const char *split = img_slice_split(name);
	char package[256];
	struct img_rpm *p;

	(void)snprintf(package, sizeof(package), "%.*s", split ? (int)(split - name) : 0, name);
	p = split ? img_rpm_set_find(w->set, package) : NULL;
	if (!p || img_rpm_load(p, NULL) < 0)
		return false;
	for (uint32_t i = 0; i < p->n_files; i++) {
		const char *role = img_world_slice(w, (struct img_file_id){ p, i });

		if (role && strcmp(role, split + 1) == 0)
			return true;
	}
	return false;
}

const char *img_world_slice(struct img_world *w, struct img_file_id id)
{
	const struct img_rpm_file *f = &id.package->files[id.file];

	if (!img_rpm_file_is_installed(f))
		return NULL;
	if (w->o.slices) {
		const struct img_slices_file *known = img_slices_file(w->o.slices, id.package->name, f->path);

		return known ? known->slice : NULL;
	}
	return img_rules_slice(w->o.rules, id.package, f);
}
