/* An image opened: its manifest found, its configuration read, its layers decoded side by side and put on top of each
 * other. Every digest that the image names is compared with what was read; a layer that is not what it says is named.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/threadpool.h"
#include "oci_internal.h"

/* One layer on its way from the source into the tree. */
struct layer_work {
	struct img_layer_job job;
	struct img_layer_entries entries;
	const struct img_descriptor *desc; /* NULL: of a docker-archive */
	char label[IMG_DIGEST_SIZE + 32];
	char *dir;
	int r;
	struct err err;
};

struct opening {
	const struct img_open_opts *opts;
	struct img_image *image;
	struct img_name name;
	struct img_blob_source source; /* ops NULL: a docker-archive */
	struct img_docker_archive docker;
	struct img_manifest manifest;
	struct layer_work *work;
	struct img_meter meter;
	_Atomic uint64_t n_bytes;
	bool reads_ahead; /* processors are left when each layer has one */
	struct err *err;
};

/* ---- The work folder -------------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	if (flag == FTW_D || flag == FTW_DNR)
		(void)chmod(path, 0700);
	(void)(flag == FTW_DP ? rmdir(path) : unlink(path));
	return 0;
}

static int open_everything(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)ftw;
	if ((flag == FTW_D || flag == FTW_DNR) && (st->st_mode & 0700) != 0700)
		(void)chmod(path, 0700);
	return 0;
}

/* Also where directories of an unpacked image forbid it to their owner. */
static void remove_tree(const char *path)
{
	if (geteuid() != 0)
		(void)nftw(path, open_everything, 32, FTW_PHYS);
	(void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

static int make_work_dir(struct opening *o)
{
	const char *base = o->opts->work_dir ? o->opts->work_dir : getenv("TMPDIR");
	char *path = NULL;

	base = base && base[0] ? base : "/var/tmp"; /* images are too large for a /tmp in memory */
	if (asprintf(&path, "%s/slimtrace-XXXXXX", base) < 0)
		return err_set(o->err, -ENOMEM, "out of memory");
	if (!mkdtemp(path)) {
		int r = err_set(o->err, -errno, "%s: %s", base, strerror(errno));

		free(path);
		return r;
	}
	o->image->work_dir = path;
	o->image->owns_work_dir = true;
	return 0;
}

/* ---- Manifest and configuration ---- */

static int open_source(struct opening *o)
{
	switch (o->name.place) {
	case IMG_PLACE_LAYOUT:
		return img_source_layout_open(&o->name, &o->source, o->err);
	case IMG_PLACE_OCI_ARCHIVE:
		return img_source_oci_archive_open(&o->name, o->image->work_dir, &o->source, o->err);
	case IMG_PLACE_REGISTRY:
		return img_source_registry_open(&o->name, o->image->work_dir, o->opts, &o->source, o->err);
	default:
		return img_docker_archive_open(&o->name, o->image->work_dir, &o->docker, o->err);
	}
}

/* From the root down through indexes to the manifest of our platform. */
static int find_manifest(struct opening *o)
{
	const struct img_source_ops *ops = o->source.ops;
	CLEANUP(freep) char *data = NULL;
	enum img_document kind = IMG_DOC_MANIFEST;
	char *digest = o->image->manifest_digest;
	size_t size = 0;
	int r = ops->root(o->source.state, &data, &size, digest, o->err);

	for (int depth = 0; r == 0; depth++) {
		const struct img_descriptor *d = NULL;
		struct img_index index = { 0 };
		char *next = NULL;

		r = img_document_kind(data, size, digest, &kind, o->err);
		if (r < 0 || kind == IMG_DOC_MANIFEST)
			break;
		if (depth == IMG_MAX_INDEX_DEPTH)
			return err_set(o->err, -EBADMSG, "%s: indexes within indexes without end", digest);
		r = img_index_parse(data, size, digest, &index, o->err);
		if (r == 0)
			r = img_index_choose(&index, o->opts->os, o->opts->arch, o->opts->variant, digest, &d, o->err);
		if (r == 0)
			r = ops->document(o->source.state, d, &next, &size, o->err);
		if (r == 0) {
			memcpy(digest, d->digest, IMG_DIGEST_SIZE);
			free(data);
			data = next;
		}
		img_index_done(&index);
	}
	return r == 0 ? img_manifest_parse(data, size, digest, &o->manifest, o->err) : r;
}

static int read_config(struct opening *o)
{
	CLEANUP(freep) char *data = NULL;
	const char *where = o->source.ops ? o->manifest.config.digest : "config";
	struct img_config **config = &o->image->config;
	size_t size = 0;
	int r;

	if (!o->source.ops)
		return img_config_parse(o->docker.config, o->docker.config_size, where, config, o->err);
	r = o->source.ops->document(o->source.state, &o->manifest.config, &data, &size, o->err);
	return r == 0 ? img_config_parse(data, size, where, config, o->err) : r;
}

/* ---- Layers ---- */

static int make_layers(struct opening *o)
{
	size_t n = o->source.ops ? o->manifest.n_layers : o->docker.n_layers, history = 0;
	struct img_config *c = o->image->config;

	if (c->diff_ids.n != n)
		return err_set(o->err, -EBADMSG, "config: %zu layers, the manifest has %zu", c->diff_ids.n, n);
	o->image->layers = calloc(n + 1, sizeof(*o->image->layers));
	o->work = calloc(n + 1, sizeof(*o->work));
	if (!o->image->layers || !o->work)
		return err_set(o->err, -ENOMEM, "out of memory");
	o->image->n_layers = n;
	for (size_t i = 0; i < n; i++) {
		struct img_layer *l = &o->image->layers[i];
		struct layer_work *w = &o->work[i];

		if (o->source.ops) {
			w->desc = &o->manifest.layers[i];
			memcpy(l->digest, w->desc->digest, IMG_DIGEST_SIZE);
			l->size = w->desc->size;
			l->media_type = w->desc->media_type ? strdup(w->desc->media_type) : NULL;
		} else {
			w->job.blob = o->docker.layers[i]; /* moves */
			o->docker.layers[i] = (struct img_blob){ 0 };
			l->size = w->job.blob.size;
		}
		memcpy(l->diff_id, c->diff_ids.items[i], IMG_DIGEST_SIZE);
		while (history < c->n_history && c->history[history].empty_layer)
			history++;
		if (history < c->n_history && c->history[history].created_by)
			l->created_by = strdup(c->history[history].created_by);
		history++;
		(void)snprintf(w->label, sizeof(w->label), "%.19s (%zu of %zu)", l->digest[0] ? l->digest : l->diff_id,
		               i + 1, n);
	}
	return 0;
}

static int check_layer(struct layer_work *w, const struct img_layer *l)
{
	if (l->digest[0] && strcmp(l->digest, w->job.digest) != 0)
		return err_set(&w->err, -EBADMSG, "layer %s: digest mismatch, the content is %s", w->label,
		               w->job.digest);
	if (strcmp(l->diff_id, w->job.diff_id) != 0)
		return err_set(&w->err, -EBADMSG, "layer %s: unpacked it is %s, the configuration says %s", w->label,
		               w->job.diff_id, l->diff_id);
	return 0;
}

static void decode_layer(struct opening *o, size_t i)
{
	struct layer_work *w = &o->work[i];

	if (w->desc) {
		w->r = o->source.ops->blob(o->source.state, w->desc, &w->job.blob, &w->err);
		if (w->r < 0) {
			(void)err_prefix(&w->err, w->r, "layer %s: ", w->label);
			return;
		}
	}
	if (asprintf(&w->dir, "%s/layer%zu", o->image->work_dir, i) < 0) {
		w->dir = NULL;
		w->r = err_set(&w->err, -ENOMEM, "out of memory");
		return;
	}
	if (mkdir(w->dir, 0700) < 0) {
		w->r = err_set(&w->err, -errno, "%s: %s", w->dir, strerror(errno));
		return;
	}
	w->job.dir = w->dir;
	w->job.label = w->label;
	w->job.limits = &o->opts->limits;
	w->job.n_bytes = &o->n_bytes;
	w->job.meter = &o->meter;
	w->job.reads_ahead = o->reads_ahead;
	w->r = img_layer_decode(&w->job, &w->entries, &w->err);
	if (w->r == 0)
		w->r = check_layer(w, &o->image->layers[i]);
	o->image->layers[i].unpacked_size = w->job.unpacked_size;
}

static void decode_layers(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct opening *o = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++)
		decode_layer(o, i);
}

/* A group of which upper layers have left one name is none any more. */
static int tidy_groups(struct img_tree *t, uint32_t n_groups)
{
	CLEANUP(freep) uint32_t *count = calloc((size_t)n_groups + 1, sizeof(*count));

	if (!count)
		return -ENOMEM;
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < img_tree_count(t); i++) {
			struct img_node *n = img_tree_at(t, i);

			if (!n)
				return -ENOMEM;
			if (pass == 0)
				count[n->link_group]++;
			else if (n->link_group && count[n->link_group] == 1)
				n->link_group = 0;
		}
	}
	return 0;
}

static int put_layers(struct opening *o)
{
	uint32_t next_group = 1;
	int r = 0;

	o->image->tree = img_tree_new();
	if (!o->image->tree)
		return err_set(o->err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < o->image->n_layers; i++) {
		struct layer_work *w = &o->work[i];

		if (w->r < 0) {
			if (o->err)
				*o->err = w->err;
			return w->r;
		}
		r = img_layer_apply(o->image->tree, &w->entries, (int32_t)i, w->label, &next_group, o->err);
		img_layer_entries_done(&w->entries);
	}
	if (r == 0 && tidy_groups(o->image->tree, next_group) < 0)
		r = err_set(o->err, -ENOMEM, "out of memory");
	return r;
}

static int read_layers(struct opening *o)
{
	struct base_threadpool *pool = NULL;
	unsigned n_threads = o->opts->n_threads ? o->opts->n_threads : base_cpu_count();
	uint64_t total = 0;
	int r;

	for (size_t i = 0; i < o->image->n_layers; i++)
		total += o->image->layers[i].size;
	o->reads_ahead = n_threads > o->image->n_layers;
	if (n_threads > o->image->n_layers)
		n_threads = o->image->n_layers ? (unsigned)o->image->n_layers : 1;
	r = base_threadpool_new(n_threads, &pool, o->err);
	if (r < 0)
		return r;
	img_meter_init(&o->meter, "unpacking", total, o->opts->progress, o->opts->progress_arg);
	base_threadpool_for(pool, o->image->n_layers, 1, decode_layers, o);
	base_threadpool_free(pool);
	img_meter_done(&o->meter);
	return put_layers(o);
}

/* ---- Images ---- */

static int open_image(struct opening *o)
{
	int r = make_work_dir(o);

	if (r == 0)
		r = open_source(o);
	if (r == 0 && o->source.ops)
		r = find_manifest(o);
	if (r == 0)
		r = read_config(o);
	if (r == 0)
		r = make_layers(o);
	if (r == 0 && !o->opts->config_only)
		r = read_layers(o);
	return r;
}

static void opening_done(struct opening *o)
{
	for (size_t i = 0; o->work && i < o->image->n_layers; i++) {
		img_layer_entries_done(&o->work[i].entries);
		img_blob_done(&o->work[i].job.blob);
		free(o->work[i].dir);
	}
	free(o->work);
	img_manifest_done(&o->manifest);
	img_docker_archive_done(&o->docker);
	if (o->source.ops)
		o->source.ops->close(o->source.state);
	img_name_done(&o->name);
}

int img_image_open(const char *name, const struct img_open_opts *opts, struct img_image **ret_image, struct err *err)
{
	static const struct img_open_opts defaults;
	struct opening o = { .opts = opts ? opts : &defaults, .err = err };
	int r = img_name_parse(name, &o.name, err);

	if (r < 0)
		return r;
	o.image = calloc(1, sizeof(*o.image));
	if (o.image)
		o.image->name = strdup(name);
	if (!o.image || !o.image->name) {
		img_name_done(&o.name);
		free(o.image);
		return err_set(err, -ENOMEM, "%s: out of memory", name);
	}
	r = open_image(&o);
	opening_done(&o);
	if (r < 0) {
		img_image_close(o.image);
		return err_prefix(err, r, "%s: ", name);
	}
	*ret_image = o.image;
	return 0;
}

void img_image_close(struct img_image *image)
{
	if (!image)
		return;
	if (image->work_dir && image->owns_work_dir)
		remove_tree(image->work_dir);
	for (size_t i = 0; i < image->n_layers; i++) {
		free(image->layers[i].media_type);
		free(image->layers[i].created_by);
	}
	free(image->layers);
	free(image->work_dir);
	free(image->name);
	img_tree_free(image->tree);
	img_config_free(image->config);
	free(image);
}

int img_image_unpack(struct img_image *image, const char *root, size_t *ret_n_skipped, struct err *err)
{
	struct img_write_opts o = { .clamp_mtime = -1, .move_sources = true };

	return img_tree_write_dir(image->tree, root, &o, ret_n_skipped, err);
}
