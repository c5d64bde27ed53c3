/* A model's layer: made of its list of files, in the store like an image's, with the list (and the places of its files)
 * beside the index in "model.json". Where the files can be had from may change without the files changing: the document
 * is then written anew, and the blob that the node asks is replaced. What came from another member of the cluster has
 * no blob: peers are its origin. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "node/node_internal.h"

static void model_file(const char *dir, char ret_path[NODE_PATH + 32])
{
	(void)snprintf(ret_path, NODE_PATH + 32, "%s/model.json", dir);
}

static int read_model(const char *dir, struct flip_model **ret_model, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	char path[NODE_PATH + 32];
	int r;

	model_file(dir, path);
	r = base_read_file(path, &text, err);
	return r < 0 ? r : flip_model_parse(text.data, text.len, path, NULL, ret_model, err);
}

static int write_model(const char *dir, const struct flip_model *model, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	char path[NODE_PATH + 32];
	int r = flip_model_append(model, true, &text);

	model_file(dir, path);
	return r < 0 ? err_set(err, r, "%s: the list of files is too long", path)
	             : base_write_file_atomic(path, text.data, text.len, 0644, err);
}

/* One blob of each file: at its own addresses, else in the repository that the model is of. *ret_blob NULL: there is no
 * place but peers. */
static int open_blob(struct flip_node *node, const struct flip_model *model, const char *ref,
                     struct flip_blob **ret_blob, struct err *err)
{
	CLEANUP(freep) const struct flip_model_file **files = NULL;
	struct flip_blob **parts = NULL;
	size_t n = 0, n_open = 0;
	int r = strncmp(ref, NODE_PEERS_SOURCE, strlen(NODE_PEERS_SOURCE)) == 0 ? 0
	        : flip_model_contents(model, &files, &n) < 0 || !(parts = calloc(n + 1, sizeof(*parts)))
	                ? err_set(err, -ENOMEM, "out of memory")
	                : 0;

	*ret_blob = NULL;
	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct flip_model_file *f = files[i];
		char digest[IMG_DIGEST_SIZE] = "sha256:";

		base_sha256_hex(f->sha256, digest + strlen(digest));
		if (f->n_urls)
			r = flip_blob_open_urls(node->fetch, (const char *const *)f->urls, f->n_urls, digest, f->size,
			                        &parts[i], err);
		else
			r = flip_blob_open(node->fetch, ref, digest, f->size, &parts[i], err);
		if (r < 0)
			(void)err_prefix(err, r, "%s: ", f->path);
		else
			n_open++;
	}
	if (r == 0 && n)
		r = flip_blob_join(node->fetch, parts, n, ret_blob, err);
	for (size_t i = 0; r < 0 && i < n_open; i++)
		flip_blob_close(parts[i]);
	free(parts);
	return r;
}

int node_model_open(struct node_layer *layer, const struct flip_layer_row *row, struct err *err)
{
	struct flip_blob *blob = NULL;
	int r = read_model(layer->dir, &layer->model, err);

	if (r == 0) {
		layer->trouble = calloc(1, sizeof(*layer->trouble));
		r = layer->trouble ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0 && flip_index_format(layer->index) != FLIP_RAW)
		r = err_set(err, -EBADMSG, "%s: not the index of a model", layer->dir);
	if (r == 0)
		r = open_blob(layer->node, layer->model, row->ref ? row->ref : "", &blob, err);
	if (r < 0)
		return r;
	layer->blob = blob;
	/* From here on only names and sizes are asked for: the digests of the chunks are in the index. */
	for (size_t i = 0; i < layer->model->n_files; i++) {
		free(layer->model->files[i].chunks);
		layer->model->files[i].chunks = NULL;
		layer->model->files[i].n_chunks = 0;
	}
	return 0;
}

const char *node_model_path(const struct node_layer *layer, uint32_t chunk)
{
	const struct flip_index_object *o = flip_index_chunk_object(layer->index, chunk);

	for (size_t i = 0; i < layer->model->n_files; i++) {
		if (memcmp(layer->model->files[i].sha256, o->digest, sizeof(o->digest)) == 0)
			return layer->model->files[i].path;
	}
	return "a file";
}

/* ---- Made, or told of new places ---- */

static int make_layer(struct flip_node *node, const struct flip_model *model, const char *digest, const char *source,
                      bool keep, struct err *err)
{
	struct flip_layer_row row = { .blob_size = flip_model_blob_size(model),
		                      .kind = keep ? FLIP_LAYER_UNPACKED : FLIP_LAYER_LAZY,
		                      .ref = (char *)source,
		                      .media_type = (char *)FLIP_MODEL_TYPE };
	struct flip_toc *toc = NULL;
	char dir[NODE_PATH];
	int r = flip_store_layer_begin(node->store, digest, dir, sizeof(dir), err);

	if (r < 0)
		return r;
	(void)snprintf(row.digest, sizeof(row.digest), "%s", digest);
	r = flip_model_to_toc(model, &toc, err);
	if (r == 0)
		r = node_write_layer(toc, digest, row.blob_size, dir, err);
	flip_toc_free(toc);
	if (r == 0)
		r = write_model(dir, model, err);
	if (r == 0)
		r = flip_store_layer_commit(node->store, dir, &row, err);
	if (r < 0)
		flip_store_layer_abort(node->store, dir);
	return r;
}

static int replace_blob(struct node_layer *layer, const struct flip_model *model, const char *source, struct err *err)
{
	struct flip_node *node = layer->node;
	struct flip_blob *blob = NULL, *old, **list;
	char *ref = strdup(source);
	int r = ref ? write_model(layer->dir, model, err) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = open_blob(node, model, source, &blob, err);
	if (r == 0)
		r = flip_store_layer_touch(node->store, layer->digest, source, err);
	if (r < 0) {
		flip_blob_close(blob);
		free(ref);
		return r;
	}
	pthread_rwlock_wrlock(&node->layers_lock);
	list = reallocarray(layer->old_blobs, layer->n_old_blobs + 1, sizeof(struct flip_blob *));
	if (list) {
		layer->old_blobs = list;
		if (blob) { /* who reads relies on it that there is one still */
			old = atomic_exchange(&layer->blob, blob);
			if (old)
				list[layer->n_old_blobs++] = old;
			blob = NULL;
		}
		free(layer->ref);
		layer->ref = ref;
		ref = NULL;
	}
	pthread_rwlock_unlock(&node->layers_lock);
	flip_blob_close(blob);
	free(ref);
	return list ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* What peers are asked with, and what they may have. */
static int claim(struct node_layer *layer, const struct node_model_source *s, const char *image, struct err *err)
{
	int r = layer->node->peers && !s->is_local ? node_claim_use(layer, image, s->seeds ? s->seeds : "", err) : 0;

	if (r == 0 && s->open)
		node_layer_open_up(layer, s->open);
	return r;
}

int node_model_layer(struct flip_node *node, const struct node_model_source *s, const char *source, bool keep,
                     struct node_layer **ret_layer, struct err *err)
{
	CLEANUP(freep) char *image = NULL;
	char digest[IMG_DIGEST_SIZE];
	struct node_layer *layer;
	int r = flip_model_digest(s->model, digest, err);

	if (r == 0 && asprintf(&image, "%s%s%s", s->image ? s->image->ref : "", s->image ? " " : "",
	                       s->image ? s->image->manifest : "") < 0) {
		image = NULL;
		r = err_set(err, -ENOMEM, "out of memory");
	}
	if (r < 0)
		return r;
	if (node_layer_known(node, digest, &layer, NULL) == 0) {
		r = replace_blob(layer, s->model, source, err);
	} else {
		layer = NULL;
		if (node->peers && !s->is_local)
			node_claim_note(node, digest, image, s->seeds ? s->seeds : "");
		r = make_layer(node, s->model, digest, source, keep, err);
		if (r == 0)
			r = node_layer_known(node, digest, &layer, err);
	}
	if (r == 0)
		r = claim(layer, s, image, err);
	if (r < 0) {
		node_layer_unref(layer);
		return r;
	}
	*ret_layer = layer;
	return 0;
}

int node_model_document(const struct node_layer *layer, bool with_urls, struct base_buf *ret, struct err *err)
{
	struct flip_model *model = NULL;
	int r = layer->model ? read_model(layer->dir, &model, err)
	                     : err_set(err, -ENOENT, "%.19s: no model", layer->digest);

	if (r == 0 && (r = flip_model_append(model, with_urls, ret)) < 0)
		(void)err_set(err, r, "%s: the list of files is too long", layer->dir);
	flip_model_free(model);
	return r;
}
