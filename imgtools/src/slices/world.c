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
#include "base/cleanup.h"
#include "slices_internal.h"

enum { MAX_RULE_NEEDS = 64 };

struct img_world {
	struct img_rpm_set *set;
	struct img_world_opts o;
	struct img_rpm **packages; /* loaded, to choose from, by index */
	size_t n, cap;
	bool *is_member; /* by index of the set */
	struct img_rpm_aliases *aliases;
	struct img_tree *tree;
	struct img_analyze *analyze;
	char **texts;
	size_t n_texts, cap_texts;
};

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

size_t img_world_packages(struct img_world *w, struct img_rpm *const **ret_packages)
{
	*ret_packages = w->packages;
	return w->n;
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
static struct img_rpm *provider(struct img_world *w, const struct img_rpm_dep *d, int32_t *ret_file, struct err *err)
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

static bool is_internal(const struct img_rpm_dep *d)
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

			if (is_internal(d))
				continue;
			to = provider(w, d, &file, &e);
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

			if (n && n->package < 0 && n->type == p->files[f].type) {
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

static struct img_file_id id_of_node(struct img_world *w, const struct img_node *n)
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
	const struct img_file_id id = id_of_node(c->w, link);

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
			*ret_id = id_of_node(w, n);
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

	if (w->o.slices) {
		const struct img_slices_file *known = img_slices_file(w->o.slices, id.package->name, f->path);

		return known ? known->slice : NULL;
	}
	return img_rules_slice(w->o.rules, id.package, f);
}

/* ---- Needs ------------------------------------------------------------------------------------------------ */

struct teller {
	struct img_world *w;
	struct img_file_id from;
	const char *path;
	img_file_need_sink sink;
	void *arg;
	struct err *err;
	struct img_file_id *told;
	size_t n_told, cap_told;
	int r;
	/* of the need at hand, for links on the way */
	const char *kind;
	bool is_weak;
};

static void tell(struct teller *t, const struct img_file_need *n)
{
	if (t->r < 0 ||
	    (n->to.package && img_rules_unneeds(t->w->o.rules, t->path, n->to.package->files[n->to.file].path)))
		return;
	if (n->to.package) {
		if (n->to.package == t->from.package && n->to.file == t->from.file)
			return;
		for (size_t i = 0; i < t->n_told; i++) {
			if (t->told[i].package == n->to.package && t->told[i].file == n->to.file)
				return;
		}
		if (t->n_told == t->cap_told) {
			const size_t cap = t->cap_told ? t->cap_told * 2 : 16;
			struct img_file_id *grown = reallocarray(t->told, cap, sizeof(*grown));

			if (!grown) {
				t->r = -ENOMEM;
				return;
			}
			t->told = grown;
			t->cap_told = cap;
		}
		if (!n->is_weak) /* a weak need does not hide a strong one that comes later */
			t->told[t->n_told++] = n->to;
	}
	t->r = t->sink(n, t->arg, t->err);
}

static int tell_link(struct img_file_id link, void *arg)
{
	struct teller *t = arg;
	const struct img_file_need n = {
		.kind = "link", .what = link.package->files[link.file].path, .is_weak = t->is_weak, .to = link
	};

	tell(t, &n);
	return 0;
}

/* A need for a path; the links on the way are needs too. */
static void tell_path(struct teller *t, const char *kind, const char *what, const char *path, bool is_weak,
                      bool is_missing_ok)
{
	struct img_file_need n = { .kind = kind, .what = what, .is_weak = is_weak };

	t->is_weak = is_weak;
	if (t->r == 0)
		t->r = img_world_find(t->w, path, &n.to, tell_link, t, t->err);
	n.is_missing = !n.to.package;
	if (t->r == 0 && !(n.is_missing && is_missing_ok))
		tell(t, &n);
}

/* What a link leads to, one step; further links are needs of that file. */
static void tell_target(struct teller *t, const struct img_rpm_file *f)
{
	const char *slash = strrchr(t->path, '/');
	char path[2 * IMG_PATH_MAX];
	int n;

	if (f->target[0] == '/')
		n = snprintf(path, sizeof(path), "%s", f->target);
	else
		n = snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - t->path), t->path, f->target);
	/* A link that leads nowhere is what the package has: no error. */
	if (n > 0 && (size_t)n < IMG_PATH_MAX)
		tell_path(t, "link", f->target, path, false, true);
}

/* "libz.so.1()(64bit)" is provided by libz.so.1.2.13; what is opened is the link libz.so.1 beside it. */
static void tell_soname(struct teller *t, const struct img_rpm_dep *d, struct img_file_id to, bool is_weak)
{
	const char *dir = to.package->files[to.file].path;
	const size_t len = strcspn(d->name, "(");
	char path[IMG_PATH_MAX];
	int n;

	if (!d->name[len] || !memmem(d->name, len, ".so", 3))
		return;
	n = snprintf(path, sizeof(path), "%.*s%.*s", (int)(strrchr(dir, '/') + 1 - dir), dir, (int)len, d->name);
	if (n > 0 && (size_t)n < sizeof(path) && strcmp(path, dir) != 0)
		tell_path(t, "rpm", d->name, path, is_weak, true);
}

/* What the kernel opens to start a program that is linked dynamically; from headers alone only a name is known. */
static void tell_linker(struct teller *t, const struct img_rpm_dep *d)
{
	static const struct {
		const char *arch, *path;
	} linkers[] = { { "x86_64", "/lib64/ld-linux-x86-64.so.2" },
		        { "aarch64", "/lib/ld-linux-aarch64.so.1" },
		        { "riscv64", "/lib/ld-linux-riscv64-lp64d.so.1" },
		        { "loongarch64", "/lib64/ld-linux-loongarch-lp64d.so.1" },
		        { "ppc64le", "/lib64/ld64.so.2" },
		        { "s390x", "/lib/ld64.so.1" } };

	for (size_t i = 0; !t->w->analyze && i < sizeof(linkers) / sizeof(linkers[0]); i++) {
		if (strcmp(t->from.package->arch, linkers[i].arch) == 0)
			tell_path(t, "rpm", d->name, linkers[i].path, false, false);
	}
}

static void tell_deps(struct teller *t, const struct img_rpm_file *f)
{
	const struct img_rpm *p = t->from.package;

	for (uint32_t i = 0; t->r == 0 && i < f->n_deps; i++) {
		const uint32_t kind = f->deps[i] >> 24;
		const struct img_rpm_dep *d;
		struct img_file_need n = { .kind = "rpm" };
		struct err e = { 0 };
		int32_t file = -1;

		if (kind != IMG_RPM_REQUIRES && kind != IMG_RPM_RECOMMENDS)
			continue;
		d = &p->deps[kind][f->deps[i] & 0xffffff];
		if (is_internal(d))
			continue;
		if (strncmp(d->name, "rtld(", 5) == 0) {
			tell_linker(t, d);
			continue;
		}
		n.what = d->name;
		n.is_weak = kind == IMG_RPM_RECOMMENDS;
		n.to.package = provider(t->w, d, &file, &e);
		if (!n.to.package && e.code)
			t->r = err_set(t->err, e.code, "%s", e.msg);
		else if (!n.to.package)
			n.is_missing = true;
		else if (file >= 0) {
			n.to.file = (uint32_t)file;
			tell_soname(t, d, n.to, n.is_weak);
		} else if (d->name[0] == '/') {
			tell_path(t, n.kind, n.what, d->name, n.is_weak, false);
			continue;
		} else {
			n.slice = n.to.package->name;
			n.to.package = NULL;
		}
		if (t->r == 0)
			tell(t, &n);
	}
}

static int on_need(const struct img_need *need, void *arg)
{
	struct teller *t = arg;
	struct img_file_need n = { .kind = img_need_kind_name(need->kind), .is_weak = need->is_weak };

	n.what = img_world_text(t->w, need->what);
	if (!n.what)
		return t->r = -ENOMEM;
	if (need->to)
		n.to = id_of_node(t->w, need->to);
	n.is_missing = !n.to.package;
	/* A command of a script that nobody has is no reason to fail: scripts try what there is. */
	if (!(n.is_missing && (n.is_weak || need->kind == IMG_NEED_COMMAND || need->kind == IMG_NEED_DATA ||
	                       need->kind == IMG_NEED_CONFIG || need->kind == IMG_NEED_IMPORT)))
		tell(t, &n);
	return t->r;
}

static void tell_contents(struct teller *t)
{
	struct img_node *node;
	struct err e = { 0 };
	const char *note;
	int r;

	if (img_tree_resolve(t->w->tree, t->path, false, &node, NULL, NULL) < 0 || node->type != IMG_FILE)
		return;
	/* Another package's file of this name stands there. */
	if (node->package != t->from.package->index)
		return;
	r = img_analyze_file(t->w->analyze, node, on_need, t, &note, &e);
	/* What the sink said of its own failure stays. */
	if (r < 0 && t->r == 0)
		t->r = err_set(t->err, r, "%s", err_text(&e));
}

static void tell_rules(struct teller *t)
{
	const char *targets[MAX_RULE_NEEDS];

	for (int want = 0; want < 2; want++) {
		const size_t n = img_rules_needs(t->w->o.rules, t->path, want, targets, MAX_RULE_NEEDS);

		for (size_t i = 0; t->r == 0 && i < n; i++) {
			struct img_file_need need = { .kind = "rule", .what = targets[i] };

			const bool is_glob = strncmp(targets[i], "python:", 7) == 0 || strpbrk(targets[i], "*?[");

			if (targets[i][0] == '/' && !is_glob) {
				tell_path(t, "rule", targets[i], targets[i], false, want);
				continue;
			}
			need.slice = targets[i];
			/* What such a target stands for is found when it is expanded. */
			need.is_weak = want && is_glob;
			if (!want || need.is_weak || img_world_has_slice(t->w, targets[i]))
				tell(t, &need);
		}
	}
}

/* A path of one package; package NULL: it does not have it. */
static int file_of(struct img_world *w, const char *package, const char *path, struct img_file_id *ret_id,
                   struct err *err)
{
	struct img_rpm *p = img_rpm_set_find(w->set, package);
	int r = p ? img_rpm_load(p, err) : 0;

	*ret_id = (struct img_file_id){ 0 };
	for (uint32_t i = 0; r == 0 && p && i < p->n_files; i++) {
		if (strcmp(p->files[i].path, path) == 0)
			*ret_id = (struct img_file_id){ p, i };
	}
	return r;
}

static void tell_known(struct teller *t, const struct img_slices_file *known)
{
	for (size_t i = 0; t->r == 0 && i < known->n_needs; i++) {
		const struct img_slices_need *k = &known->needs[i];
		struct img_file_need n = { .kind = k->kind,
			                   .what = k->what,
			                   .is_weak = k->is_weak,
			                   .is_missing = k->is_missing,
			                   .slice = k->slice };

		if (k->path) {
			t->r = file_of(t->w, k->package, k->path, &n.to, t->err);
			if (t->r == 0 && !n.to.package)
				t->r = err_set(
				        t->err, -ENOENT,
				        "%s: needs %s of %s, as the slices say, which the packages do not have: are "
				        "the slices of another repository?",
				        t->path, k->path, k->package);
		}
		if (t->r == 0)
			tell(t, &n);
	}
}

int img_world_needs(struct img_world *w, struct img_file_id id, img_file_need_sink sink, void *arg, struct err *err)
{
	const struct img_rpm_file *f = &id.package->files[id.file];
	struct teller t = { .w = w, .from = id, .sink = sink, .arg = arg, .err = err };
	char path[IMG_PATH_MAX];

	t.path = f->path;
	if (w->aliases && img_rpm_canonical(w->aliases, f->path, path) == 0)
		t.path = path;
	if (w->o.slices) {
		const struct img_slices_file *known = img_slices_file(w->o.slices, id.package->name, f->path);

		if (known)
			tell_known(&t, known);
	} else {
		if (f->type == IMG_SYMLINK)
			tell_target(&t, f);
		else if (f->type == IMG_FILE)
			tell_deps(&t, f);
		if (w->analyze && f->type == IMG_FILE && t.r == 0)
			tell_contents(&t);
	}
	if (t.r == 0)
		tell_rules(&t);
	free(t.told);
	return t.r;
}
