/* An image written: nodes sorted into layers, layers packed side by side, then configuration and manifest made from
 * what came out. Nothing here asks for the time or for the machine: the same plan gives the same bytes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/threadpool.h"
#include "oci_internal.h"
#include "tree/tar.h"

struct layer_out {
	struct writing *w;
	bool *wanted; /* by position in the order of the tree */
	struct img_temp file;
	struct img_layer layer;
	int r;
	struct err err;
};

struct writing {
	const struct img_write_plan *plan;
	struct img_dest dest;
	enum img_compression compression;
	size_t n_layers;
	struct layer_out *layers;
	int32_t *layer_of; /* by position */
	size_t *parent;    /* by position; the root is its own */
	unsigned threads_per_layer;
	struct img_config *config;
	struct img_meter meter;
	struct err *err;
};

static int out_of_memory(struct writing *w)
{
	return err_set(w->err, -ENOMEM, "out of memory");
}

const char *img_layer_media_type(enum img_compression c)
{
	return c == IMG_ZSTD   ? IMG_TYPE_OCI_LAYER "+zstd"
	       : c == IMG_GZIP ? IMG_TYPE_OCI_LAYER "+gzip"
	                       : IMG_TYPE_OCI_LAYER;
}

/* ---- Which node goes where --------------------------------------------------------------------------------------- */

/* In the order of the paths the parent of a node is the last directory before it whose path is its own up to a '/'. */
static void find_parents(struct writing *w)
{
	struct img_tree *t = w->plan->tree;
	size_t cur = 0;

	for (size_t i = 1; i < img_tree_count(t); i++) {
		const char *path = img_tree_at(t, i)->path;

		for (;;) {
			const char *dir = img_tree_at(t, cur)->path;
			size_t len = cur ? strlen(dir) : 0;

			if (strncmp(path, dir, len) == 0 && path[len] == '/')
				break;
			cur = w->parent[cur];
		}
		w->parent[i] = cur;
		if (img_tree_at(t, i)->type == IMG_DIR)
			cur = i;
	}
}

/* All names of a file in the lowest layer of any: a link to a file of another layer would copy it. */
static int keep_groups_together(struct writing *w)
{
	struct img_tree *t = w->plan->tree;
	CLEANUP(freep) int32_t *lowest = NULL;
	uint32_t max = 0;

	for (size_t i = 0; i < img_tree_count(t); i++) {
		if (img_tree_at(t, i)->link_group > max)
			max = img_tree_at(t, i)->link_group;
	}
	lowest = max < (1u << 26) ? malloc(((size_t)max + 1) * sizeof(*lowest)) : NULL;
	if (!lowest)
		return out_of_memory(w);
	for (uint32_t g = 0; g <= max; g++)
		lowest[g] = INT32_MAX;
	for (size_t i = 0; i < img_tree_count(t); i++) {
		uint32_t g = img_tree_at(t, i)->link_group;

		if (g && w->layer_of[i] < lowest[g])
			lowest[g] = w->layer_of[i];
	}
	for (size_t i = 0; i < img_tree_count(t); i++) {
		uint32_t g = img_tree_at(t, i)->link_group;

		if (g)
			w->layer_of[i] = lowest[g];
	}
	return 0;
}

static int sort_nodes(struct writing *w)
{
	const struct img_write_plan *p = w->plan;
	size_t n = img_tree_count(p->tree);
	int r;

	w->layer_of = calloc(n, sizeof(*w->layer_of));
	w->parent = calloc(n, sizeof(*w->parent));
	if (!w->layer_of || !w->parent || !img_tree_at(p->tree, 0)) /* sorted from here on: threads only read */
		return out_of_memory(w);
	for (size_t i = 0; i < n && p->layer_of; i++) {
		const struct img_node *node = img_tree_at(p->tree, i);

		w->layer_of[i] = p->layer_of(node, p->layer_of_arg);
		if (w->layer_of[i] < 0 || (size_t)w->layer_of[i] >= w->n_layers)
			return err_set(w->err, -EINVAL, "%s: layer %d of %zu", node->path, w->layer_of[i], w->n_layers);
	}
	find_parents(w);
	r = keep_groups_together(w);
	for (size_t k = 0; r == 0 && k < w->n_layers; k++) {
		bool *wanted = calloc(n, sizeof(*wanted));

		if (!wanted)
			return out_of_memory(w);
		w->layers[k].wanted = wanted;
		for (size_t i = n; i-- > 0;) {
			wanted[i] = wanted[i] || (size_t)w->layer_of[i] == k;
			if (wanted[i])
				wanted[w->parent[i]] = true;
		}
	}
	return r;
}

/* ---- Layers ---- */

static bool is_wanted(size_t i, const struct img_node *n, void *arg)
{
	(void)n;
	return ((struct layer_out *)arg)->wanted[i];
}

/* Into the encoder, seen by whoever watches. */
struct watched {
	struct img_encoder *encoder;
	struct img_meter *meter;
};

static int encode(const void *data, size_t size, void *arg, struct err *err)
{
	struct watched *w = arg;
	int r = img_encoder_sink(data, size, w->encoder, err);

	if (r == 0 && img_meter_add(w->meter, size) < 0)
		r = err_set(err, -ECANCELED, "canceled");
	return r;
}

static int pack_layer(struct layer_out *l)
{
	struct writing *w = l->w;
	struct img_write_opts o = { .clamp_mtime = w->plan->epoch, .numeric_only = true };
	struct img_encoder *e = NULL;
	struct watched watched = { .meter = &w->meter };
	int r = img_temp_open(w->dest.temp_dir, &l->file, &l->err);

	if (r == 0)
		r = img_encoder_new(l->file.fd, w->compression, w->plan->level, w->threads_per_layer, &e, &l->err);
	watched.encoder = e;
	if (r == 0)
		r = img_tar_write_some(w->plan->tree, &o, is_wanted, l, encode, &watched, &l->err);
	if (r == 0)
		r = img_encoder_finish(e, &l->layer, &l->err);
	img_encoder_free(e);
	return r;
}

static void pack_layers(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct writing *w = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++)
		w->layers[i].r = pack_layer(&w->layers[i]);
}

static int make_layers(struct writing *w)
{
	unsigned n_threads = w->plan->n_threads ? w->plan->n_threads : base_cpu_count(), n_side;
	struct base_threadpool *pool = NULL;
	uint64_t total = 0;
	int r;

	n_side = w->n_layers < n_threads ? (unsigned)w->n_layers : n_threads;
	w->threads_per_layer = (n_threads + n_side - 1) / n_side;
	for (size_t i = 0; i < img_tree_count(w->plan->tree); i++)
		total += img_tree_at(w->plan->tree, i)->type == IMG_FILE ? img_tree_at(w->plan->tree, i)->size : 0;
	r = base_threadpool_new(n_side, &pool, w->err);
	if (r < 0)
		return r;
	img_meter_init(&w->meter, "packing", total, w->plan->progress, w->plan->progress_arg);
	base_threadpool_for(pool, w->n_layers, 1, pack_layers, w);
	base_threadpool_free(pool);
	img_meter_done(&w->meter);
	for (size_t i = 0; i < w->n_layers; i++) {
		if (w->layers[i].r < 0) {
			if (w->err)
				*w->err = w->layers[i].err;
			return w->layers[i].r;
		}
	}
	return 0;
}

/* ---- Configuration and manifest ---- */

static char *time_text(int64_t epoch)
{
	time_t t = (time_t)epoch;
	struct tm tm;
	char text[64];

	if (!gmtime_r(&t, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		return NULL;
	return strdup(text);
}

static size_t n_told_layers(const struct img_config *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_history; i++)
		n += !c->history[i].empty_layer;
	return n;
}

/* One entry for each of our layers, behind what the image tells of its past. */
static int add_history(struct writing *w)
{
	struct img_config *c = w->config;
	struct img_history *p;

	if (n_told_layers(c) == w->n_layers && !w->plan->layers)
		return 0;
	p = reallocarray(c->history, c->n_history + w->n_layers, sizeof(*p));
	if (!p)
		return out_of_memory(w);
	c->history = p;
	for (size_t i = 0; i < c->n_history; i++)
		c->history[i].empty_layer = true;
	for (size_t i = 0; i < w->n_layers; i++) {
		const struct img_layer_plan *lp = w->plan->layers ? &w->plan->layers[i] : NULL;
		struct img_history h = { .created = strdup(c->created),
			                 .created_by = strdup(lp && lp->created_by ? lp->created_by : "slimtrace"),
			                 .comment = lp && lp->comment ? strdup(lp->comment) : NULL };

		c->history[c->n_history++] = h;
		if (!h.created || !h.created_by || (lp && lp->comment && !h.comment))
			return out_of_memory(w);
	}
	return 0;
}

static int make_config(struct writing *w, struct base_buf *buf)
{
	struct img_config *c = w->plan->config ? img_config_copy(w->plan->config) : img_config_new();

	w->config = c;
	if (!c)
		return out_of_memory(w);
	if (w->plan->epoch >= 0 || !c->created) {
		free(c->created);
		c->created = time_text(w->plan->epoch >= 0 ? w->plan->epoch : 0);
		if (!c->created)
			return out_of_memory(w);
	}
	if (add_history(w) < 0)
		return -ENOMEM;
	img_strings_done(&c->diff_ids);
	for (size_t i = 0; i < w->n_layers; i++) {
		if (img_strings_add(&c->diff_ids, w->layers[i].layer.diff_id) < 0)
			return out_of_memory(w);
	}
	return img_config_append(c, buf) < 0 ? out_of_memory(w) : 0;
}

static int make_manifest(struct writing *w, const char *config_digest, size_t config_size, struct base_buf *buf)
{
	json_t *layers = json_array(), *doc;
	int r;

	for (size_t i = 0; i < w->n_layers; i++) {
		const struct img_layer *l = &w->layers[i].layer;

		(void)json_array_append_new(layers, json_pack("{s:s, s:s, s:I}", "mediaType",
		                                              img_layer_media_type(w->compression), "digest", l->digest,
		                                              "size", (json_int_t)l->size));
	}
	doc = json_pack("{s:i, s:s, s:{s:s, s:s, s:I}, s:o}", "schemaVersion", 2, "mediaType", IMG_TYPE_OCI_MANIFEST,
	                "config", "mediaType", IMG_TYPE_OCI_CONFIG, "digest", config_digest, "size",
	                (json_int_t)config_size, "layers", layers);
	if (doc && w->plan->n_annotations) {
		json_t *set = json_object();

		for (size_t i = 0; i < w->plan->n_annotations; i++)
			(void)json_object_set_new(set, w->plan->annotations[i].name,
			                          json_string(w->plan->annotations[i].value));
		(void)json_object_set_new(doc, "annotations", set);
	}
	r = doc ? base_json_append(buf, doc) : -ENOMEM;
	json_decref(doc);
	return r < 0 ? out_of_memory(w) : 0;
}

static int send_all(struct writing *w, struct img_write_result *res)
{
	struct base_buf config = BASE_BUF_INIT(IMG_MAX_JSON), manifest = BASE_BUF_INIT(IMG_MAX_JSON);
	int r = make_config(w, &config);

	if (r == 0) {
		img_digest_of(config.data, config.len, res->config_digest);
		r = make_manifest(w, res->config_digest, config.len, &manifest);
	}
	if (r == 0)
		img_digest_of(manifest.data, manifest.len, res->manifest_digest);
	for (size_t i = 0; r == 0 && i < w->n_layers; i++)
		r = w->dest.ops->layer(w->dest.state, &w->layers[i].file, &w->layers[i].layer, w->err);
	if (r == 0)
		r = w->dest.ops->config(w->dest.state, config.data, config.len, res->config_digest, w->err);
	if (r == 0)
		r = w->dest.ops->manifest(w->dest.state, manifest.data, manifest.len, res->manifest_digest, w->err);
	base_buf_done(&config);
	base_buf_done(&manifest);
	return r;
}

/* ---- The image ---- */

static int open_dest(struct writing *w, const struct img_name *name)
{
	static const struct img_config none;
	const struct img_config *c = w->plan->config ? w->plan->config : &none;

	switch (name->place) {
	case IMG_PLACE_LAYOUT:
		return img_dest_layout_open(name, c, &w->dest, w->err);
	case IMG_PLACE_REGISTRY:
		return img_dest_registry_open(name, w->plan, &w->dest, w->err);
	default:
		return img_dest_archive_open(name, c, &w->dest, w->err);
	}
}

static int fill_result(struct writing *w, struct img_write_result *res)
{
	res->layers = calloc(w->n_layers, sizeof(*res->layers));
	if (!res->layers)
		return out_of_memory(w);
	res->n_layers = w->n_layers;
	for (size_t i = 0; i < w->n_layers; i++) {
		res->layers[i] = w->layers[i].layer;
		res->layers[i].media_type = strdup(img_layer_media_type(w->compression));
		res->size += res->layers[i].size;
		res->unpacked_size += res->layers[i].unpacked_size;
	}
	return 0;
}

static void writing_done(struct writing *w)
{
	for (size_t i = 0; w->layers && i < w->n_layers; i++) {
		free(w->layers[i].wanted);
		img_temp_drop(&w->layers[i].file);
	}
	free(w->layers);
	free(w->layer_of);
	free(w->parent);
	img_config_free(w->config);
	if (w->dest.ops)
		w->dest.ops->close(w->dest.state);
}

static int write_image(struct writing *w, const struct img_name *name, struct img_write_result *res)
{
	int r;

	w->layers = calloc(w->n_layers, sizeof(*w->layers));
	if (!w->layers)
		return out_of_memory(w);
	for (size_t i = 0; i < w->n_layers; i++) {
		w->layers[i].w = w;
		w->layers[i].file.fd = -1;
	}
	r = sort_nodes(w);
	if (r == 0)
		r = open_dest(w, name);
	if (r < 0)
		return r;
	w->compression = w->dest.is_plain ? IMG_PLAIN : w->plan->compression;
	r = make_layers(w);
	if (r == 0)
		r = fill_result(w, res);
	return r == 0 ? send_all(w, res) : r;
}

int img_image_write(const char *name, const struct img_write_plan *plan, struct img_write_result *ret_result,
                    struct err *err)
{
	struct writing w = { .plan = plan, .n_layers = plan->n_layers ? plan->n_layers : 1, .err = err };
	struct img_write_result res = { 0 };
	struct img_name n = { 0 };
	int r = img_name_parse(name, &n, err);

	if (r < 0)
		return r;
	if (w.n_layers > IMG_MAX_LAYERS)
		r = err_set(err, -EINVAL, "%zu layers are too many", w.n_layers);
	if (r == 0)
		r = write_image(&w, &n, &res);
	writing_done(&w);
	if (n.place == IMG_PLACE_DOCKER_ARCHIVE)
		res.manifest_digest[0] = '\0';
	img_name_done(&n);
	if (r < 0) {
		img_write_result_done(&res);
		return err_prefix(err, r, "%s: ", name);
	}
	if (ret_result)
		*ret_result = res;
	else
		img_write_result_done(&res);
	return 0;
}

void img_write_result_done(struct img_write_result *r)
{
	for (size_t i = 0; i < r->n_layers; i++)
		free(r->layers[i].media_type);
	free(r->layers);
	*r = (struct img_write_result){ 0 };
}

int img_source_date_epoch(int64_t *ret_epoch, struct err *err)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	char *end = NULL;
	long long v;

	if (!text || !text[0]) {
		*ret_epoch = -1;
		return 0;
	}
	errno = 0;
	v = strtoll(text, &end, 10);
	if (errno || *end || v < 0 || v > 253402300799) /* the year 9999 */
		return err_set(err, -EINVAL, "SOURCE_DATE_EPOCH: \"%.40s\" is no number of seconds", text);
	*ret_epoch = v;
	return 0;
}
