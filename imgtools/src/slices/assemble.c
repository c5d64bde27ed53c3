/* From a list of chosen files to the tree of a root: the files, the folders above them as their packages have them,
 * what is generated, the package database, the manifest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "assembly.h"

static const char manifest_path[] = "/usr/share/slimtrace/manifest";

/* ---- Bytes ------------------------------------------------------------------------------------------------ */

/* Where a file of a package is in the trees. */
static int place(const struct img_assembly *a, const char *path, char ret_path[IMG_PATH_MAX])
{
	return img_rpm_canonical(a->aliases ? a->aliases : img_world_aliases(a->w), path, ret_path);
}

static bool wants_chosen(const struct img_rpm *p, size_t file, void *arg)
{
	const struct img_assembly *a = arg;
	const char *path = p->files[file].path;
	size_t lo = 0, hi = a->cut->n_items;

	if (p->files[file].type == IMG_DIR)
		return true;
	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (strcmp(a->cut->items[mid].path, path) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < a->cut->n_items && strcmp(a->cut->items[lo].path, path) == 0; lo++) {
		if (a->cut->items[lo].id.package == p)
			return true;
	}
	return false;
}

/* Without a world that was unpacked (headers only, slices from a database): what was chosen, and only that. */
static int unpack_chosen(struct img_assembly *a)
{
	static const char *const tops[] = { "/bin", "/sbin", "/lib", "/lib64", "/usr/lib64", "/usr/sbin" };
	const struct img_world_opts *wo = img_world_options(a->w);
	struct img_rpm_unpack_opts u = { .wants = wants_chosen, .arg = a, .spool = wo->spool };
	CLEANUP(freep) struct img_rpm **list = NULL;
	size_t n = 0;
	int r = 0;

	list = calloc(a->cut->n_items + sizeof(tops) / sizeof(tops[0]) + 1, sizeof(struct img_rpm *));
	a->own = a->from = img_tree_new();
	if (!list || !a->own)
		return -ENOMEM;
	for (size_t i = 0; i < a->cut->n_items; i++)
		a->cut->items[i].id.package->user = NULL;
	for (size_t i = 0; i < a->cut->n_items; i++) {
		struct img_rpm *p = a->cut->items[i].id.package;

		if (!p->user)
			list[n++] = p;
		p->user = a;
	}
	/* The owners of the links that paths go through. */
	for (size_t i = 0; i < sizeof(tops) / sizeof(tops[0]); i++) {
		struct err e = { 0 };
		struct img_rpm *p = img_rpm_set_owner(img_world_set(a->w), tops[i], NULL, &e);

		if (!p && e.code)
			return err_set(a->err, e.code, "%s", e.msg);
		for (size_t k = 0; p && k < n; k++) {
			if (list[k] == p)
				p = NULL;
		}
		if (p)
			list[n++] = p;
	}
	r = img_rpm_aliases_new(list, n, &a->aliases);
	u.aliases = a->aliases;
	u.memory_bytes = ((uint64_t)1 << 30) / (n ? n : 1);
	return r < 0 ? r : img_rpm_unpack(list, n, &u, a->own, a->err);
}

/* ---- Files ------------------------------------------------------------------------------------------------ */

int img_cut_add_parents(struct img_assembly *a, const char *path)
{
	char dir[IMG_PATH_MAX];
	const char *slash = path;
	int r = 0;

	while (r == 0 && (slash = strchr(slash + 1, '/'))) {
		const struct img_node *have, *n;

		(void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
		have = img_tree_find(a->to, dir);
		n = img_tree_find(a->from, dir);
		if (!have && n && n->type == IMG_DIR)
			r = img_tree_add(a->to, n, NULL, a->err);
	}
	return r;
}

/* Of packages that have the same path the tree has one file: it has to be the one that was chosen. */
static int check_owner(const struct img_assembly *a, const struct img_cut_item *item, const struct img_node *n)
{
	const struct img_rpm_file *f = &item->id.package->files[item->id.file], *g = n->user;
	struct img_rpm *other = n->package >= 0 ? img_rpm_set_at(img_world_set(a->w), (size_t)n->package) : NULL;

	if (!other || !g || f == g || f->type == IMG_DIR)
		return 0;
	if (f->type == g->type && strcmp(f->digest, g->digest) == 0 && strcmp(f->target, g->target) == 0)
		return 0;
	return err_set(a->err, -EEXIST, "%s: %s and %s both have it, and not the same", item->path,
	               item->id.package->name, other->name);
}

static int add_items(struct img_assembly *a)
{
	for (size_t i = 0; i < a->cut->n_items; i++) {
		const struct img_cut_item *item = &a->cut->items[i];
		const struct img_node *n, *have;
		char path[IMG_PATH_MAX];
		int r = place(a, item->path, path);

		if (r < 0)
			return err_set(a->err, r, "%s: %s", item->path, strerror(-r));
		n = img_tree_find(a->from, path);
		have = img_tree_find(a->to, path);
		if (!n)
			return err_set(a->err, -ENOENT, "%s of %s is not in its payload", item->path,
			               item->id.package->name);
		r = check_owner(a, item, n);
		if (r < 0)
			return r;
		/* A folder of one package where another has a link to a folder is that link. */
		if (have && (have->type == n->type || n->type == IMG_DIR))
			continue;
		r = img_cut_add_parents(a, path);
		if (r == 0)
			r = img_tree_add(a->to, n, NULL, a->err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- Owners ----------------------------------------------------------------------------------------------- */

static bool wants_tables(const struct img_rpm *p, size_t file, void *arg)
{
	(void)arg;
	return strcmp(p->files[file].path, "/etc/passwd") == 0 || strcmp(p->files[file].path, "/etc/group") == 0;
}

static char *text_of(struct img_tree *t, const char *path)
{
	struct img_node *n;
	char *text;
	size_t size;

	if (!t || img_tree_resolve(t, path, true, &n, NULL, NULL) < 0 || n->type != IMG_FILE ||
	    img_node_read_all(n, 4u << 20, (void **)&text, &size, NULL) < 0)
		return NULL;
	return text;
}

int img_cut_read_tables(struct img_assembly *a, char **ret_passwd, char **ret_group)
{
	const struct img_rpm_unpack_opts u = { .wants = wants_tables, .n_threads = 1 };
	struct img_tree *t;
	struct img_rpm *p;
	struct err e = { 0 };
	int r = 0;

	*ret_passwd = text_of(a->from, "/etc/passwd");
	*ret_group = text_of(a->from, "/etc/group");
	if (*ret_passwd && *ret_group)
		return 0;
	p = img_rpm_set_owner(img_world_set(a->w), "/etc/passwd", NULL, &e);
	if (!p || !p->location)
		return e.code ? err_set(a->err, e.code, "%s", e.msg) : 0;
	t = img_tree_new();
	if (!t)
		return -ENOMEM;
	r = img_rpm_unpack(&p, 1, &u, t, a->err);
	free(*ret_passwd);
	free(*ret_group);
	*ret_passwd = text_of(t, "/etc/passwd");
	*ret_group = text_of(t, "/etc/group");
	img_tree_free(t);
	return r;
}

static bool has_other_owners(const struct img_cut *cut)
{
	for (size_t i = 0; i < cut->n_items; i++) {
		const struct img_rpm_file *f = &cut->items[i].id.package->files[cut->items[i].id.file];

		if (strcmp(f->user, "root") != 0 || strcmp(f->group, "root") != 0)
			return true;
	}
	return false;
}

/* ---- Database and manifest -------------------------------------------------------------------------------- */

static bool is_in_root(const struct img_rpm *p, size_t file, void *arg)
{
	const struct img_assembly *a = arg;
	const struct img_rpm_file *f = &p->files[file];
	const struct img_node *n;
	char path[IMG_PATH_MAX];

	if (place(a, f->path, path) < 0)
		return false;
	n = img_tree_find(a->to, path);
	if (!n)
		return false;
	/* A folder that is there is everyone's; a file is its package's. */
	return f->type == IMG_DIR ? n->type == IMG_DIR : n->user == f;
}

static const char *db_path(const struct img_assembly *a)
{
	struct img_rpm *p;

	if (a->o->db_path)
		return a->o->db_path;
	if (img_rpm_set_db_path(img_world_set(a->w)))
		return img_rpm_set_db_path(img_world_set(a->w));
	p = img_rpm_set_owner(img_world_set(a->w), "/usr/lib/sysimage/rpm", NULL, NULL);
	return p ? "/usr/lib/sysimage/rpm" : "/var/lib/rpm";
}

static int add_manifest(struct img_assembly *a)
{
	struct base_buf out = BASE_BUF_INIT(256u << 20);
	int r;

	(void)base_buf_puts(&out, "slimtrace-manifest 1\n");
	for (size_t i = 0; i < a->cut->n_packages; i++) {
		const struct img_rpm *p = a->cut->packages[i];
		size_t n = 0;
		char evr[256];

		for (size_t f = 0; f < p->n_files; f++)
			n += is_in_root(p, f, a);
		img_slice_evr(p, evr);
		(void)base_buf_printf(&out, "package\t%s\t%s\t%s\t%zu\t%zu\n", p->name, evr, p->arch, n, p->n_files);
		for (size_t f = 0; f < p->n_files; f++) {
			if (is_in_root(p, f, a) && p->files[f].type != IMG_DIR)
				(void)base_buf_printf(&out, "%s\n", p->files[f].path);
		}
	}
	r = base_buf_error(&out) ? base_buf_error(&out) : img_cut_add_text(a, manifest_path, out.data, out.len);
	base_buf_done(&out);
	return r;
}

static int add_database(struct img_assembly *a)
{
	const struct img_rpmdb_opts o = { .mode = a->o->db, .install_time = a->time, .clamp_mtime = a->o->epoch };
	char path[IMG_PATH_MAX];
	int r;

	if (a->o->no_db)
		return 0;
	(void)snprintf(path, sizeof(path), "%s/rpmdb.sqlite", db_path(a));
	r = img_cut_add_parents(a, path);
	if (r < 0)
		return r;
	return img_rpmdb_write(a->cut->packages, a->cut->n_packages, is_in_root, a, &o, db_path(a), a->to, a->err);
}

/* ---- Together --------------------------------------------------------------------------------------------- */

static int compare_u32(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int count(struct img_tree *t, struct img_cut_stats *s)
{
	uint32_t *groups = calloc(img_tree_count(t) + 1, sizeof(*groups));
	size_t n_groups = 0;

	if (!groups)
		return -ENOMEM;
	for (size_t i = 0; i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);

		s->n_dirs += n->type == IMG_DIR;
		s->n_links += n->type == IMG_SYMLINK;
		s->n_files += n->type == IMG_FILE;
		if (n->type != IMG_FILE)
			continue;
		s->bytes += n->size;
		if (n->link_group && bsearch(&n->link_group, groups, n_groups, sizeof(*groups), compare_u32))
			s->bytes -= n->size;
		else if (n->link_group) {
			groups[n_groups++] = n->link_group;
			qsort(groups, n_groups, sizeof(*groups), compare_u32);
		}
	}
	free(groups);
	return 0;
}

static int64_t newest(const struct img_cut *cut)
{
	int64_t t = 0;

	for (size_t i = 0; i < cut->n_packages; i++)
		t = (int64_t)cut->packages[i]->build_time > t ? (int64_t)cut->packages[i]->build_time : t;
	return t;
}

static struct img_node *parent_of(struct img_tree *t, const struct img_node *n)
{
	const size_t len = (size_t)(strrchr(n->path, '/') - n->path);
	char dir[IMG_PATH_MAX];

	(void)snprintf(dir, sizeof(dir), "%.*s", len ? (int)len : 1, n->path);
	return n->path[1] ? img_tree_find(t, dir) : NULL;
}

/* A folder of several packages has several times. With something in it, it gets the newest of that: a time that depends
 * on nothing but what was chosen. */
static void settle_times(struct img_tree *t)
{
	for (size_t i = 0; i < img_tree_count(t); i++) {
		struct img_node *dir = parent_of(t, img_tree_at(t, i));

		if (dir)
			dir->mtime_s = INT64_MIN;
	}
	/* Backwards: what is below comes after its folder. */
	for (size_t i = img_tree_count(t); i-- > 0;) {
		const struct img_node *n = img_tree_at(t, i);
		struct img_node *dir = parent_of(t, n);

		if (dir && n->mtime_s > dir->mtime_s)
			dir->mtime_s = n->mtime_s;
	}
	if (img_tree_count(t) == 1)
		img_tree_at(t, 0)->mtime_s = 0;
}

static int assemble(struct img_assembly *a, struct img_cut_stats *s)
{
	CLEANUP(freep) char *passwd = NULL;
	CLEANUP(freep) char *group = NULL;
	int r = a->from ? 0 : unpack_chosen(a);

	if (r == 0)
		r = add_items(a);
	/* In an installed root the numbers are there. */
	if (r == 0 && !img_world_options(a->w)->root && has_other_owners(a->cut))
		r = img_cut_read_tables(a, &passwd, &group);
	if (r == 0 && !img_world_options(a->w)->root)
		r = img_rpm_fix_owners(a->to, passwd, group, &s->n_unknown_owners, s->unknown_owner);
	if (r == 0)
		r = img_cut_generate(a);
	if (r == 0 && !a->o->no_manifest)
		r = add_manifest(a);
	if (r == 0)
		r = add_database(a);
	if (r == 0)
		settle_times(a->to);
	return r < 0 ? r : count(a->to, s);
}

int img_cut_tree(struct img_world *w, const struct img_cut *c, const struct img_cut_write_opts *o,
                 struct img_tree **ret_tree, struct img_cut_stats *ret_stats, struct err *err)
{
	struct img_assembly a = { .w = w, .cut = c, .o = o, .from = img_world_tree(w), .err = err };
	struct img_cut_stats s = { 0 };
	int r;

	a.time = o->epoch >= 0 ? o->epoch : newest(c);
	a.to = img_tree_new();
	r = a.to ? assemble(&a, &s) : -ENOMEM;
	img_rpm_aliases_free(a.aliases);
	img_tree_free(a.own);
	if (r < 0) {
		img_tree_free(a.to);
		return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
	}
	*ret_tree = a.to;
	*ret_stats = s;
	return 0;
}
