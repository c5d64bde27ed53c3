/* slimtrace cut: slices and paths of packages as a root, a tar or an image. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "commands.h"
#include "oci/oci.h"
#include "oci/recipe.h"
#include "packages.h"

struct cut {
	struct packages_opts from;
	const char *out, *slices, *rpmdb, *db_path, *recipe, *compression, *auth_file;
	struct opt_list excludes, generate, defines, settings;
	uint32_t level;
	bool insecure, weak, with_requires, ignore_missing, headers_only, no_manifest, dry_run, json;
};

const struct opt cut_opts[] = {
	PACKAGES_OPTS(struct cut),
	{ "out", 'o', OPT_STR, offsetof(struct cut, out), "WHERE", "a new folder, tar:FILE, or an image (oci:DIR:TAG)",
	  NULL },
	{ "slices", 0, OPT_STR, offsetof(struct cut, slices), "FILE", "needs from a database of slimtrace slices",
	  NULL },
	{ "exclude", 0, OPT_LIST, offsetof(struct cut, excludes), "GLOB", "leave paths out, whatever needs them",
	  NULL },
	{ "generate", 0, OPT_LIST, offsetof(struct cut, generate), "WHAT",
	  "make users, user:NAME:UID[:HOME], tmp, dir:PATH:MODE[:UID[:GID]], ca-bundle, locale or locale:NAME,...",
	  NULL },
	{ "recipe", 'f', OPT_STR, offsetof(struct cut, recipe), "FILE",
	  "what is asked for, layers, and the image's configuration", NULL },
	{ "define", 'D', OPT_LIST, offsetof(struct cut, defines), "NAME=VALUE", "what ${NAME} in the recipe stands for",
	  NULL },
	{ "set", 's', OPT_LIST, offsetof(struct cut, settings), "SECTION.KEY=VALUE",
	  "one line of a recipe: image.entrypoint=..., labels.NAME=..., layers.NAME=...", NULL },
	{ "compression", 0, OPT_CHOICE, offsetof(struct cut, compression), "HOW", "of layers [zstd]",
	  "zstd,gzip,none" },
	{ "level", 0, OPT_UINT, offsetof(struct cut, level), "LEVEL", "of compression [9, gzip 6]", NULL },
	{ "auth-file", 0, OPT_STR, offsetof(struct cut, auth_file), "FILE",
	  "passwords for registries [docker's and podman's]", NULL },
	{ "insecure", 0, OPT_FLAG, offsetof(struct cut, insecure), NULL,
	  "registries by plain HTTP, certificates unchecked", NULL },
	{ "weak", 0, OPT_FLAG, offsetof(struct cut, weak), NULL, "follow needs that may never come up too", NULL },
	{ "with-requires", 0, OPT_FLAG, offsetof(struct cut, with_requires), NULL,
	  "follow what packages require for no file in particular", NULL },
	{ "ignore-missing", 0, OPT_FLAG, offsetof(struct cut, ignore_missing), NULL,
	  "go on where no package has what is needed", NULL },
	{ "headers-only", 0, OPT_FLAG, offsetof(struct cut, headers_only), NULL,
	  "needs from package headers alone: faster, does not see imports and scripts", NULL },
	{ "rpmdb", 0, OPT_CHOICE, offsetof(struct cut, rpmdb), "KIND",
	  "package database: absent files marked, in signed headers too, present files only, none [marked]",
	  "marked,signed,short,none" },
	{ "db-path", 0, OPT_STR, offsetof(struct cut, db_path), "PATH", "where it goes [as packages say, /var/lib/rpm]",
	  NULL },
	{ "no-manifest", 0, OPT_FLAG, offsetof(struct cut, no_manifest), NULL,
	  "no list of files in /usr/share/slimtrace", NULL },
	{ "dry-run", 'n', OPT_FLAG, offsetof(struct cut, dry_run), NULL, "tell what would be in it, write nothing",
	  NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct cut, json), NULL, "one document with every file and its reason", NULL },
	{ 0 },
};

/* The layers of an image: those of the recipe, what else packages have, and what belongs to none; without empty ones.
 */
struct layers {
	struct img_layer_plan *plans;
	size_t n; /* 0: all in one */
};

static const char *layer_name(const struct layers *l, size_t i)
{
	return l->n ? l->plans[i].comment : "all files";
}

/* Numbers the layers that have something anew, without gaps. */
static int name_layers(struct img_tree *t, const struct img_recipe *recipe, struct layers *ret_layers)
{
	const size_t n = recipe->n_layers + 2;
	CLEANUP(freep) int32_t *number = calloc(n, sizeof(*number));
	struct layers l = { .plans = calloc(n, sizeof(*l.plans)) };

	if (!number || !l.plans) {
		free(l.plans);
		return -ENOMEM;
	}
	for (size_t i = 0; i < img_tree_count(t); i++)
		number[img_tree_at(t, i)->layer] = 1;
	for (size_t i = 0; i < n; i++) {
		if (!number[i])
			continue;
		number[i] = (int32_t)l.n;
		l.plans[l.n++] = (struct img_layer_plan){ "slimtrace cut", i < recipe->n_layers ? recipe->layers[i].name
			                                                   : i == recipe->n_layers ? "packages"
			                                                                           : "database" };
	}
	for (size_t i = 0; i < img_tree_count(t); i++)
		img_tree_at(t, i)->layer = number[img_tree_at(t, i)->layer];
	*ret_layers = l;
	return 0;
}

/* ---- Telling ---------------------------------------------------------------------------------------------- */

static const char *path_of(struct img_file_id id)
{
	return id.package->files[id.file].path;
}

static uint64_t bytes_of(const struct img_cut *c, const struct img_rpm *p, size_t *ret_n)
{
	uint64_t bytes = 0;

	*ret_n = 0;
	for (size_t i = 0; i < c->n_items; i++) {
		const struct img_file_id id = c->items[i].id;
		const struct img_rpm_file *f = &id.package->files[id.file];

		if (id.package != p || f->type == IMG_DIR)
			continue;
		++*ret_n;
		bytes += f->type == IMG_FILE && (!f->link_group || f->link_group == id.file + 1) ? f->size : 0;
	}
	return bytes;
}

static void print_items(const struct img_cut *c)
{
	for (size_t i = 0; i < c->n_items; i++) {
		const struct img_cut_reason *why = &c->items[i].why;

		if (why->from.package)
			(void)printf("%s\t%s\t%s %s of %s\n", c->items[i].path, c->items[i].id.package->name, why->kind,
			             why->what, path_of(why->from));
		else
			(void)printf("%s\t%s\t%s %s\n", c->items[i].path, c->items[i].id.package->name, why->kind,
			             why->what);
	}
}

static void print_summary(const struct img_cut *c, const struct img_cut_stats *s, const char *out)
{
	char size[32];
	size_t n;

	for (size_t i = 0; i < c->n_packages; i++) {
		const struct img_rpm *p = c->packages[i];
		const uint64_t bytes = bytes_of(c, p, &n);

		(void)printf("%-28s %5zu of %5zu files  %10s of %10s\n", p->name, n, p->n_files,
		             packages_size(bytes, size), packages_size(p->installed_size, (char[32]){ 0 }));
	}
	if (s)
		(void)printf("%s: %zu packages, %zu files, %zu links, %zu folders, %s\n", out, c->n_packages,
		             s->n_files, s->n_links, s->n_dirs, packages_size(s->bytes, size));
	if (c->n_missing)
		(void)fprintf(stderr, "slimtrace: %zu needs are not met; the first: %s\n", c->n_missing,
		              c->first_missing);
	if (s && s->n_unknown_owners)
		(void)fprintf(stderr,
		              "slimtrace: %zu files belong to root instead of owners that /etc/passwd lacks (%s)\n",
		              s->n_unknown_owners, s->unknown_owner);
}

/* Paths are bytes; JSON is text: what is no UTF-8 is escaped as \xNN. */
static json_t *json_path(const char *path)
{
	json_t *text = json_string(path);
	char buf[4 * IMG_PATH_MAX];
	size_t n = 0;

	if (text)
		return text;
	for (; *path && n + 5 < sizeof(buf); path++) {
		if ((unsigned char)*path >= 0x80)
			n += (size_t)snprintf(buf + n, 5, "\\x%02x", (unsigned char)*path);
		else
			buf[n++] = *path;
	}
	buf[n] = 0;
	return json_string(buf);
}

/* The image as it was written: where its bytes are, layer by layer. */
static json_t *json_image(const struct img_write_result *w, const struct layers *l)
{
	json_t *layers = json_array();

	for (size_t i = 0; i < w->n_layers; i++)
		(void)json_array_append_new(layers,
		                            json_pack("{s:s, s:s, s:s, s:I, s:I}", "name", layer_name(l, i), "digest",
		                                      w->layers[i].digest, "diff_id", w->layers[i].diff_id, "bytes",
		                                      (json_int_t)w->layers[i].unpacked_size, "packed_bytes",
		                                      (json_int_t)w->layers[i].size));
	return json_pack("{s:s, s:s, s:I, s:I, s:o}", "digest", w->manifest_digest, "config_digest", w->config_digest,
	                 "bytes", (json_int_t)w->unpacked_size, "packed_bytes", (json_int_t)w->size, "layers", layers);
}

static int print_json(const struct img_cut *c, const struct img_cut_stats *s, const struct img_write_result *written,
                      const struct layers *l, const char *out, bool is_signed)
{
	json_t *doc = json_object(), *packages = json_array(), *files = json_array();
	struct base_buf buf = BASE_BUF_INIT(1u << 30);
	char nevra[512];
	size_t n;
	int r;

	for (size_t i = 0; i < c->n_packages; i++) {
		const uint64_t bytes = bytes_of(c, c->packages[i], &n);

		(void)json_array_append_new(packages,
		                            json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "name", c->packages[i]->name,
		                                      "nevra", img_rpm_nevra(c->packages[i], nevra, sizeof(nevra)),
		                                      "files", (json_int_t)n, "files_of_package",
		                                      (json_int_t)c->packages[i]->n_files, "bytes", (json_int_t)bytes,
		                                      "bytes_of_package", (json_int_t)c->packages[i]->installed_size));
	}
	for (size_t i = 0; i < c->n_items; i++) {
		const struct img_cut_item *item = &c->items[i];
		const struct img_rpm_file *f = &item->id.package->files[item->id.file];

		(void)json_array_append_new(
		        files,
		        json_pack("{s:o, s:s, s:I, s:s, s:o, s:o}", "path", json_path(item->path), "package",
		                  item->id.package->name, "bytes", (json_int_t)(f->type == IMG_FILE ? f->size : 0),
		                  "reason", item->why.kind, "what", json_path(item->why.what), "from",
		                  item->why.from.package ? json_path(path_of(item->why.from)) : json_null()));
	}
	(void)json_object_set_new(doc, "out", out ? json_path(out) : json_null());
	(void)json_object_set_new(doc, "packages", packages);
	(void)json_object_set_new(doc, "files", files);
	(void)json_object_set_new(doc, "signatures", json_string(is_signed ? "checked" : "not checked"));
	(void)json_object_set_new(doc, "unmet", json_integer((json_int_t)c->n_missing));
	if (s) {
		(void)json_object_set_new(doc, "n_files", json_integer((json_int_t)s->n_files));
		(void)json_object_set_new(doc, "n_links", json_integer((json_int_t)s->n_links));
		(void)json_object_set_new(doc, "bytes", json_integer((json_int_t)s->bytes));
	}
	if (written->n_layers)
		(void)json_object_set_new(doc, "image", json_image(written, l));
	r = base_json_append(&buf, doc);
	if (r == 0)
		(void)puts(base_buf_text(&buf));
	base_buf_done(&buf);
	json_decref(doc);
	return r;
}

/* ---- Writing ---------------------------------------------------------------------------------------------- */

static int write_stdio(const void *data, size_t size, void *arg, struct err *err)
{
	return fwrite(data, 1, size, arg) == size ? 0 : err_set(err, -errno, "%s", strerror(errno));
}

/* Under another name first: what stands under the final one is whole. */
static int write_tar(struct img_tree *t, const struct img_write_opts *w, const char *path, struct err *err)
{
	CLEANUP(freep) char *part = NULL;
	FILE *f;
	int r;

	if (asprintf(&part, "%s.part", path) < 0)
		return -ENOMEM;
	packages_unfinished(part);
	f = fopen(part, "we");
	if (!f) {
		packages_unfinished(NULL);
		return err_set(err, -errno, "%s: %s", part, strerror(errno));
	}
	r = img_tree_write_tar(t, w, write_stdio, f, err);
	if (fflush(f) != 0 && r == 0)
		r = err_set(err, -errno, "%s: %s", part, strerror(errno));
	if (fclose(f) != 0 && r == 0)
		r = err_set(err, -errno, "%s: %s", part, strerror(errno));
	if (r == 0 && rename(part, path) < 0)
		r = err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (r < 0)
		(void)unlink(part);
	packages_unfinished(NULL);
	return r;
}

static int write_root(struct img_tree *t, const struct img_write_opts *w, const char *path, struct err *err)
{
	CLEANUP(freep) char *part = NULL;
	CLEANUP(freep) char *inside = NULL;
	size_t len = strlen(path), n_skipped = 0;
	int r;

	while (len > 1 && path[len - 1] == '/')
		len--;
	if (asprintf(&part, "%.*s.part-XXXXXX", (int)len, path) < 0)
		return -ENOMEM;
	/* An empty folder may stand there: rename() replaces it. */
	if (rmdir(path) < 0 && errno != ENOENT)
		return err_set(err, -errno, "%s: %s", path, errno == ENOTEMPTY ? "is not empty" : strerror(errno));
	r = packages_make_unfinished(part, err);
	if (r < 0)
		return r;
	/* With the dot the folder is never made again once a signal took it away. */
	r = asprintf(&inside, "%s/.", part) < 0 ? -ENOMEM : img_tree_write_dir(t, inside, w, &n_skipped, err);
	if (r == 0 && rename(part, path) < 0)
		r = err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (r < 0)
		packages_remove_tree(part);
	else if (n_skipped)
		(void)fprintf(stderr, "slimtrace: %zu owners, modes or devices could not be set (not root?)\n",
		              n_skipped);
	packages_unfinished(NULL);
	return r;
}

static int stop_on_signal(const struct img_progress *p, void *arg)
{
	return packages_must_stop();
}

static int32_t layer_of(const struct img_node *n, void *arg)
{
	(void)arg;
	return n->layer;
}

/* Interrupted, it takes back what it has put into the layout. */
static int write_image(struct img_tree *t, const struct cut *o, const struct img_recipe *recipe, const struct layers *l,
                       int64_t epoch, struct img_write_result *ret_written, struct err *err)
{
	struct img_write_plan plan = { .tree = t,
		                       .layer_of = l->n ? layer_of : NULL,
		                       .layers = l->plans,
		                       .n_layers = l->n,
		                       .config = recipe->config,
		                       .annotations = recipe->annotations,
		                       .n_annotations = recipe->n_annotations,
		                       .compression = !o->compression || strcmp(o->compression, "zstd") == 0 ? IMG_ZSTD
		                                      : strcmp(o->compression, "gzip") == 0                  ? IMG_GZIP
		                                                                            : IMG_PLAIN,
		                       .level = (int)o->level,
		                       .epoch = epoch,
		                       .auth_file = o->auth_file,
		                       .insecure = o->insecure,
		                       .progress = stop_on_signal };
	int r;

	packages_write_begin();
	r = img_image_write(o->out, &plan, ret_written, err);
	packages_write_end();
	return r;
}

static int write_out(struct img_tree *t, const struct cut *o, const struct img_recipe *recipe, const struct layers *l,
                     int64_t epoch, struct img_write_result *ret_written, struct err *err)
{
	const struct img_write_opts w = { .clamp_mtime = epoch };

	if (strncmp(o->out, "tar:", 4) == 0)
		return write_tar(t, &w, o->out + 4, err);
	if (img_name_is_image(o->out))
		return write_image(t, o, recipe, l, epoch, ret_written, err);
	return write_root(t, &w, o->out, err);
}

/* ---- Together --------------------------------------------------------------------------------------------- */

static int set_layers(struct img_world *w, const struct img_cut_opts *co, const struct img_recipe *recipe,
                      struct img_tree *t, struct layers *ret_layers, struct err *err)
{
	CLEANUP(freep) struct img_cut_layer *layers = calloc(recipe->n_layers + 1, sizeof(*layers));
	int r;

	if (!layers)
		return -ENOMEM;
	if (recipe->n_layers == 0)
		return 0;
	for (size_t i = 0; i < recipe->n_layers; i++)
		layers[i] = (struct img_cut_layer){ (const char *const *)recipe->layers[i].requests.items,
			                            recipe->layers[i].requests.n };
	r = img_cut_layers(w, co, layers, recipe->n_layers, t, err);
	return r < 0 ? r : name_layers(t, recipe, ret_layers);
}

static int cut(const struct cut *o, struct img_world *w, const struct img_cut_opts *co, const struct img_recipe *recipe,
               int64_t epoch, struct err *err)
{
	struct img_cut_write_opts wo = { .no_db = strcmp(o->rpmdb, "none") == 0,
		                         .db = strcmp(o->rpmdb, "signed") == 0  ? IMG_RPMDB_SIGNED
		                               : strcmp(o->rpmdb, "short") == 0 ? IMG_RPMDB_SHORT
		                                                                : IMG_RPMDB_MARKED,
		                         .db_path = o->db_path,
		                         .no_manifest = o->no_manifest,
		                         .epoch = epoch };
	struct img_write_result written = { 0 };
	struct layers layers = { 0 };
	struct img_cut_stats stats = { 0 };
	struct img_tree *tree = NULL;
	struct img_cut *c = NULL;
	int r = img_cut_resolve(w, co, &c, err);

	if (r < 0)
		return r;
	if (!o->dry_run) {
		r = img_cut_tree(w, c, &wo, &tree, &stats, err);
		if (r == 0)
			r = set_layers(w, co, recipe, tree, &layers, err);
		if (r == 0)
			r = write_out(tree, o, recipe, &layers, epoch, &written, err);
	}
	if (r == 0 && o->json)
		r = print_json(c, o->dry_run ? NULL : &stats, &written, &layers, o->out, o->from.keys.n > 0);
	else if (r == 0) {
		if (o->dry_run)
			print_items(c);
		print_summary(c, o->dry_run ? NULL : &stats, o->out);
	}
	img_write_result_done(&written);
	free(layers.plans);
	img_tree_free(tree);
	img_cut_free(c);
	return r;
}

/* What the command line asks for goes into the recipe: one list of each kind. */
static int read_recipe(const struct cut *o, int n, char **args, struct img_recipe *recipe, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < o->defines.n; i++)
		r = img_recipe_define(recipe, o->defines.items[i], err);
	if (r < 0)
		return err_prefix(err, r, "--define: ");
	if (o->recipe)
		r = img_recipe_read(recipe, o->recipe, err);
	for (size_t i = 0; r == 0 && i < o->settings.n; i++) {
		r = img_recipe_set_text(recipe, o->settings.items[i], err);
		if (r < 0)
			return err_prefix(err, r, "--set: ");
	}
	for (int i = 0; r == 0 && i < n; i++)
		r = img_strings_add(&recipe->requests, args[i]);
	for (size_t i = 0; r == 0 && i < recipe->n_layers; i++) {
		for (size_t k = 0; r == 0 && k < recipe->layers[i].requests.n; k++)
			r = img_strings_add(&recipe->requests, recipe->layers[i].requests.items[k]);
	}
	for (size_t i = 0; r == 0 && i < o->excludes.n; i++)
		r = img_strings_add(&recipe->excludes, o->excludes.items[i]);
	for (size_t i = 0; r == 0 && i < o->generate.n; i++)
		r = img_strings_add(&recipe->generate, o->generate.items[i]);
	if (r == 0 && recipe->requests.n == 0)
		r = err_set(err, -EINVAL, "%s: nothing is asked for", o->recipe ? o->recipe : "--set");
	return r;
}

static int run(const struct cut *o, const struct img_recipe *recipe, struct err *err)
{
	CLEANUP(packages_close) struct packages p = { 0 };
	struct img_world_opts wo = { .kind = o->headers_only ? IMG_WORLD_HEADERS : IMG_WORLD_FILES };
	struct img_cut_opts co = { .requests = (const char *const *)recipe->requests.items,
		                   .n_requests = recipe->requests.n,
		                   .excludes = (const char *const *)recipe->excludes.items,
		                   .n_excludes = recipe->excludes.n,
		                   .generate = (const char *const *)recipe->generate.items,
		                   .n_generate = recipe->generate.n,
		                   .with_weak = o->weak,
		                   .with_requires = o->with_requires,
		                   .ignore_missing = o->ignore_missing };
	struct img_slices *slices = NULL;
	struct img_world *w = NULL;
	int64_t epoch = -1;
	int r;

	r = img_source_date_epoch(&epoch, err);
	if (r == 0)
		r = packages_open(&o->from, &p, err);
	if (r == 0 && o->slices)
		r = img_slices_read(o->slices, &slices, err);
	wo.rules = co.rules = p.rules;
	wo.slices = slices;
	wo.root = o->from.root;
	wo.spool = p.spool;
	wo.progress = co.progress = packages_progress();
	if (r == 0)
		r = img_world_new(p.set, &wo, &w, err);
	if (r == 0)
		r = cut(o, w, &co, recipe, epoch, err);
	img_world_free(w);
	img_slices_free(slices);
	return r;
}

static int cut_by_recipe(const struct cut *o, int n, char **args, struct err *err)
{
	struct img_recipe *recipe = NULL;
	int r = img_recipe_new(NULL, &recipe);

	if (r == 0)
		r = read_recipe(o, n, args, recipe, err);
	if (r == 0)
		r = run(o, recipe, err);
	img_recipe_free(recipe);
	return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
}

int cmd_cut(int argc, char **argv)
{
	struct cut o = { .rpmdb = "marked" };
	struct err err = { 0 };
	int n, rc = slimtrace_options(argc, argv, &o, &n);

	if (rc < 0 && n == 0 && !o.recipe && o.settings.n == 0) {
		(void)err_set(&err, -EINVAL, "nothing is asked for: name slices, packages or paths");
		rc = slimtrace_usage("cut", &err);
	} else if (rc < 0 && !o.out && !o.dry_run) {
		(void)err_set(&err, -EINVAL, "--out is missing");
		rc = slimtrace_usage("cut", &err);
	} else if (rc < 0 && o.level > 22) {
		(void)err_set(&err, -EINVAL, "--level: at most 22");
		rc = slimtrace_usage("cut", &err);
	} else if (rc < 0)
		rc = cut_by_recipe(&o, n, argv, &err) < 0 ? slimtrace_fail(&err) : 0;
	packages_opts_done(&o.from);
	opt_list_done(&o.excludes);
	opt_list_done(&o.generate);
	opt_list_done(&o.defines);
	opt_list_done(&o.settings);
	return rc;
}
