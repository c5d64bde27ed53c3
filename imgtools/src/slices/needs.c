/* The needs of one file.
 *
 * They come from three places: the per-file dependencies of the package header (a soname, an interpreter, a path; rpm's
 * generators found them at build time), the file itself (analyze.h: what the kernel opens, imports, commands, links),
 * and rules by hand. A parsed database of slices replaces the first two. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "world_internal.h"

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
		if (img_world_is_internal(d))
			continue;
		if (strncmp(d->name, "rtld(", 5) == 0) {
			tell_linker(t, d);
			continue;
		}
		n.what = d->name;
		n.is_weak = kind == IMG_RPM_RECOMMENDS;
		n.to.package = img_world_provider(t->w, d, &file, &e);
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
		n.to = img_world_id(t->w, need->to);
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
