/* Where a model comes from: an artifact of a registry, a manifest at an address, a manifest in a file, another member
 * of the cluster (model_peers.c). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/mapfile.h"
#include "node/node_internal.h"

enum { MAX_HOPS = 5, IDLE_MS = 20000 };

void node_model_source_done(struct flip_node *node, struct node_model_source *s)
{
	flip_model_free(s->model);
	node_image_unref(node->images, s->image);
	free(s->archives);
	free(s->seeds);
	*s = (struct node_model_source){ 0 };
}

/* ---- A manifest at an address ----------------------------------------------------------------------------------- */

static void note_location(void *arg, const char *line, size_t len)
{
	struct base_buf *place = arg;
	static const char name[] = "Location:";
	size_t n = strlen(name);

	if (len < n || strncasecmp(line, name, n) != 0)
		return;
	line += n;
	len -= n;
	while (len && (*line == ' ' || *line == '\t'))
		line++, len--;
	while (len && strchr("\r\n \t", line[len - 1]))
		len--;
	base_buf_reset(place);
	(void)base_buf_append(place, line, len);
}

static int is_stopping(void *arg)
{
	struct flip_node *node = arg;

	return node->queue.is_stopped && !node->keeper_runs;
}

/* `url` becomes the address that answered, which files without a place of their own are relative to. */
static int get_document(struct flip_node *node, struct base_buf *url, char *const *headers, struct base_buf *ret_body,
                        struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf place = BASE_BUF_INIT(8192);
	struct base_http *http = NULL;
	int r = base_http_new(&http, err);

	for (int hops = 0; r == 0; hops++) {
		struct base_http_response resp = { 0 };
		struct base_http_request req = { .method = "GET",
			                         .url = base_buf_text(url),
			                         .headers = hops ? NULL : (const char *const *)headers,
			                         .idle_timeout_ms = IDLE_MS,
			                         .max_response_bytes = FLIP_MODEL_MAX_DOCUMENT,
			                         .on_header = note_location,
			                         .on_header_arg = &place,
			                         .is_canceled = is_stopping,
			                         .is_canceled_arg = node };

		base_buf_reset(&place);
		r = base_http_request(http, &req, &resp, err);
		if (r < 0)
			break;
		if (resp.status / 100 == 2) {
			*ret_body = resp.body;
			break;
		}
		base_buf_done(&resp.body);
		if (resp.status / 100 != 3 || !place.len || hops == MAX_HOPS)
			r = err_set(err,
			            resp.status == 404                         ? -ENOENT
			            : resp.status == 401 || resp.status == 403 ? -EACCES
			                                                       : -EIO,
			            "%s: answers %ld", base_buf_text(url), resp.status);
		else if (strncmp(base_buf_text(&place), "http", 4) != 0 ||
		         (strncmp(base_buf_text(url), "https:", 6) == 0 && strncmp(place.data, "https:", 6) != 0))
			r = err_set(err, -EIO, "%s: sends us to %.200s", base_buf_text(url), base_buf_text(&place));
		else {
			base_buf_reset(url);
			r = base_buf_append(url, place.data, place.len);
		}
	}
	base_http_free(http);
	return r;
}

static int read_address(struct flip_node *node, const char *source, struct flip_model **ret_model, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf url = BASE_BUF_INIT(8192);
	char *lines[FLIP_S3_MAX_HEADERS + 1] = { NULL };
	CLEANUP(freep) char *address = NULL;
	struct base_buf body = { 0 };
	int r = flip_s3_is_url(source) ? flip_fetch_s3(node->fetch, source, &address, lines, err) : 0;

	if (r == 0 && (r = base_buf_puts(&url, address ? address : source)) < 0)
		(void)err_set(err, r, "%.200s: too long", source);
	if (r == 0)
		r = get_document(node, &url, lines, &body, err);
	flip_s3_headers_free(lines);
	/* Files of an object store are asked for by its own addresses. */
	if (r == 0)
		r = flip_model_parse(body.data, body.len, source, address ? source : base_buf_text(&url), ret_model,
		                     err);
	base_buf_done(&body);
	return r;
}

static int read_in_file(const char *path, struct flip_model **ret_model, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	int r = base_read_file(path, &text, err);

	if (r == 0)
		r = flip_model_parse(text.data, text.len, path, NULL, ret_model, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < (*ret_model)->n_files; i++) {
		const struct flip_model_file *f = &(*ret_model)->files[i];

		if (f->n_urls || !f->size)
			continue;
		r = err_set(err, -EINVAL, "%s: %s: no address to fetch it from", path, f->path);
		flip_model_free(*ret_model);
		*ret_model = NULL;
		return r;
	}
	return 0;
}

/* ---- An artifact ------------------------------------------------------------------------------------------------- */

static int to_buffer(void *arg, const void *data, size_t size, struct err *err)
{
	int r = base_buf_append(arg, data, size);

	return r < 0 ? err_set(err, r, "a manifest of a model that is too large") : 0;
}

/* As another member has it: the configuration is the model's own document, and its digest the model's. `anyone`: not
 * only who owns it. */
static int config_of_peers(struct flip_node *node, const struct node_image *image, bool anyone, struct base_buf *text)
{
	struct node_question q = { .kind = "model",
		                   .digest = image->doc.config.digest,
		                   .document = "manifest",
		                   .ref = image->ref,
		                   .manifest = image->manifest,
		                   .anyone = anyone,
		                   .sum = image->doc.config.digest };

	return node_peers_document(node, &q, text, NULL);
}

static int config_of_registry(struct flip_node *node, const struct node_image *image, struct base_buf *text,
                              struct err *err)
{
	struct flip_blob *blob = NULL;
	int r = flip_blob_open(node->fetch, image->ref, image->doc.config.digest, image->doc.config.size, &blob, err);

	if (r == 0)
		r = flip_blob_stream(blob, FLIP_FOREGROUND, to_buffer, text, err);
	flip_blob_close(blob);
	return r;
}

/* The configuration of an artifact of ours: a manifest, with the chunks' digests. */
static int read_ours(struct flip_node *node, const struct node_image *image, struct flip_artifact *a, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(FLIP_MODEL_MAX_DOCUMENT);
	struct flip_model *model = NULL;
	int r = config_of_peers(node, image, false, &text);

	if (r < 0)
		r = config_of_registry(node, image, &text, err);
	if (r < 0 && r != -EBADMSG && r != -ECANCELED) {
		base_buf_reset(&text);
		r = config_of_peers(node, image, true, &text) == 0 ? 0 : r;
	}
	if (r == 0)
		r = flip_model_parse(text.data, text.len, image->ref, NULL, &model, err);
	for (size_t i = 0; r == 0 && i < model->n_files; i++) {
		if (model->files[i].n_urls) { /* they would be asked instead of the registry */
			r = err_set(err, -EBADMSG, "%s: %s: an artifact's file with an address", image->ref,
			            model->files[i].path);
			flip_model_free(model);
		}
	}
	return r < 0 ? r : flip_artifact_set_manifest(a, model, image->ref, err);
}

/* Of a manifest that was read: the model that it is, and its archives. */
static int artifact_of(struct flip_node *node, const struct node_image *image, struct node_model_source *s,
                       struct err *err)
{
	struct flip_artifact a = { 0 };
	int r = flip_artifact_read(&image->doc, image->ref, &a, err);

	if (r == 0 && a.is_ours)
		r = read_ours(node, image, &a, err);
	if (r == 0 && a.model->n_files) {
		s->model = a.model;
		a.model = NULL;
	}
	if (r == 0) {
		s->archives = a.archives;
		s->n_archives = a.n_archives;
		a.archives = NULL;
	}
	flip_artifact_done(&a);
	return r;
}

static int read_artifact(struct flip_node *node, const char *source, struct node_model_source *s, struct err *err)
{
	int r;

	node_image_forget(node->images, source); /* its tag may have moved */
	r = node_image_get(node->images, node->fetch, source, NULL, &s->image, err);
	return r < 0 ? r : artifact_of(node, s->image, s, err);
}

bool node_model_is_of(const struct node_image *image, const char *digest)
{
	const struct img_descriptor *config = &image->doc.config;

	return config->media_type && strcmp(config->media_type, FLIP_MODEL_TYPE) == 0 &&
	       strcmp(config->digest, digest) == 0;
}

int node_model_adopt(struct flip_node *node, const struct node_image *image, const char *digest, struct err *err)
{
	struct node_model_source s = { 0 };
	struct node_layer *layer = NULL;
	int r = node_image_ref(node->images, image, &s.image);

	if (r == 0)
		r = artifact_of(node, s.image, &s, err);
	if (r == 0 && !s.model)
		r = err_set(err, -EBADMSG, "%s: has no files", image->ref);
	if (r == 0) {
		pthread_mutex_lock(&node->models_lock);
		if (node_layer_known(node, digest, &layer, NULL) < 0) /* else somebody here was faster */
			r = node_model_layer(node, &s, image->ref, false, &layer, err);
		pthread_mutex_unlock(&node->models_lock);
	}
	if (r == 0 && strcmp(layer->digest, digest) != 0)
		r = err_set(err, -EBADMSG, "%s: the configuration is not written as flip writes it", image->ref);
	node_layer_unref(layer);
	node_model_source_done(node, &s);
	return r;
}

int node_model_source_read(struct flip_node *node, const char *source, struct node_model_source *ret, struct err *err)
{
	struct node_model_source s = { 0 };
	int r;

	if (strncmp(source, NODE_PEERS_SOURCE, strlen(NODE_PEERS_SOURCE)) == 0) {
		r = node_model_of_peers(node, source, &s, err);
	} else if (strncmp(source, "http://", 7) == 0 || strncmp(source, "https://", 8) == 0 ||
	           flip_s3_is_url(source)) {
		r = read_address(node, source, &s.model, err);
		s.open = NODE_OPEN_BY_ID;
	} else if (source[0] == '/') {
		r = read_in_file(source, &s.model, err);
		s.open = NODE_OPEN_BY_ID;
	} else {
		r = read_artifact(node, source, &s, err);
	}
	if (r < 0) {
		node_model_source_done(node, &s);
		return r;
	}
	*ret = s;
	return 0;
}
