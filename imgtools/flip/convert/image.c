/* The documents of an image: read, and written again with other layers. What they say beside (labels, history,
 * annotations, fields that nobody knows) stays; media types become those of OCI, as zstd layers and annotations have no
 * place in Docker's. Of an index, images that are no images (attestations, platform "unknown") are left out: they speak
 * of digests that are no more. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "job.h"

#define POSITION "io.github.containers.zstd-chunked.manifest-position"
#define CHECKSUM "io.github.containers.zstd-chunked.manifest-checksum"
#define POSITION_OLD "io.containers.zstd-chunked.manifest-position"
#define CHECKSUM_OLD "io.containers.zstd-chunked.manifest-checksum"

static int out_of_memory(struct flip_job *j)
{
	return err_set(j->err, -ENOMEM, "out of memory");
}

/* ---- Reading ---- */

/* The layer's place in the job; a known digest keeps its own. */
static int add_layer(struct flip_job *j, const struct img_descriptor *d, size_t *ret_i)
{
	struct flip_job_layer *p;

	for (size_t i = 0; d->digest[0] && i < j->n_layers; i++) {
		if (strcmp(j->layers[i].desc.digest, d->digest) == 0) {
			*ret_i = i;
			return 0;
		}
	}
	p = realloc(j->layers, (j->n_layers + 1) * sizeof(*p));
	if (!p)
		return out_of_memory(j);
	j->layers = p;
	p[j->n_layers] = (struct flip_job_layer){ .desc = *d, .made = { .file = { .fd = -1 } } };
	*ret_i = j->n_layers++;
	return 0;
}

static int read_config(struct flip_job *j, struct flip_job_image *image)
{
	const char *where = image->manifest.config.digest;
	CLEANUP(freep) char *data = NULL;
	size_t size = 0;
	int r = j->source.ops->document(j->source.state, &image->manifest.config, &data, &size, j->err);

	return r < 0 ? r : base_json_parse(where, data, size, &image->config, j->err);
}

static bool is_tar(const struct img_descriptor *d)
{
	return !d->media_type || strstr(d->media_type, "tar");
}

static int read_image(struct flip_job *j, const void *data, size_t size, const char *where)
{
	struct flip_job_image *image = &j->images[j->n_images++];
	int r = img_manifest_parse(data, size, where, &image->manifest, j->err);

	if (r == 0)
		r = base_json_parse(where, data, size, &image->document, j->err);
	if (r == 0)
		r = read_config(j, image);
	if (r < 0)
		return r;
	image->layers = calloc(image->manifest.n_layers + 1, sizeof(*image->layers));
	if (!image->layers)
		return out_of_memory(j);
	for (size_t i = 0; r == 0 && i < image->manifest.n_layers; i++) {
		const struct img_descriptor *d = &image->manifest.layers[i];

		if (!is_tar(d))
			return err_set(j->err, -ENOTSUP, "%s: layer %s: %s is no file system", where, d->digest,
			               d->media_type);
		r = add_layer(j, d, &image->layers[image->n_layers++]);
	}
	return r;
}

/* "linux/arm64/v8" as three texts in buf. */
static int parse_platform(const char *text, char buf[128], const char *ret_parts[3], struct err *err)
{
	char *p = buf, *slash;

	if (strlen(text) >= 128)
		return err_set(err, -EINVAL, "%.40s...: not a platform", text);
	memcpy(buf, text, strlen(text) + 1);
	for (int i = 0; i < 3; i++) {
		ret_parts[i] = p;
		slash = p ? strchr(p, '/') : NULL;
		if (slash)
			*slash++ = '\0';
		p = slash;
	}
	if (!ret_parts[1] || !ret_parts[0][0] || !ret_parts[1][0])
		return err_set(err, -EINVAL, "%s: not a platform: expected OS/ARCHITECTURE", text);
	return 0;
}

static bool is_image(const struct img_descriptor *d)
{
	return !d->os || strcmp(d->os, "unknown") != 0;
}

/* All images of an index. */
static int read_index(struct flip_job *j, const struct img_index *index)
{
	json_t *list = json_object_get(j->index, "manifests");
	int r = 0;

	j->images = calloc(index->n + 1, sizeof(*j->images));
	if (!j->images)
		return out_of_memory(j);
	for (size_t i = 0; r == 0 && i < index->n; i++) {
		const struct img_descriptor *d = &index->list[i];
		CLEANUP(freep) char *data = NULL;
		enum img_document kind;
		size_t size = 0;

		if (!is_image(d))
			continue;
		r = j->source.ops->document(j->source.state, d, &data, &size, j->err);
		if (r == 0)
			r = img_document_kind(data, size, d->digest, &kind, j->err);
		if (r == 0 && kind == IMG_DOC_INDEX)
			r = err_set(j->err, -ENOTSUP, "%s: an index within an index; convert its images singly",
			            d->digest);
		if (r == 0)
			r = read_image(j, data, size, d->digest);
		if (r == 0)
			j->images[j->n_images - 1].index_entry = json_array_get(list, i);
	}
	if (r == 0 && j->n_images == 0)
		r = err_set(j->err, -ENOENT, "an index without images");
	return r;
}

static int read_chosen(struct flip_job *j, const struct img_index *index, const char *where)
{
	CLEANUP(freep) char *data = NULL;
	const struct img_descriptor *d;
	const char *parts[3];
	char buf[128];
	size_t size = 0;
	int r = parse_platform(j->o->platform, buf, parts, j->err);

	if (r == 0)
		r = img_index_choose(index, parts[0], parts[1], parts[2], where, &d, j->err);
	if (r == 0)
		r = j->source.ops->document(j->source.state, d, &data, &size, j->err);
	j->images = calloc(1, sizeof(*j->images));
	if (r == 0 && !j->images)
		r = out_of_memory(j);
	return r < 0 ? r : read_image(j, data, size, d->digest);
}

static int read_docker(struct flip_job *j)
{
	struct flip_job_image *image;
	const json_t *ids;
	int r;

	image = j->images = calloc(1, sizeof(*j->images));
	if (!image)
		return out_of_memory(j);
	j->n_images = 1;
	image->layers = calloc(j->docker.n_layers + 1, sizeof(*image->layers));
	if (!image->layers)
		return out_of_memory(j);
	r = base_json_parse("config", j->docker.config, j->docker.config_size, &image->config, j->err);
	ids = json_object_get(json_object_get(image->config, "rootfs"), "diff_ids");
	for (size_t i = 0; r == 0 && i < j->docker.n_layers; i++) {
		struct img_descriptor d = { .size = j->docker.layers[i].size };
		const char *id = json_string_value(json_array_get(ids, i));
		size_t k;

		if (!id || !img_digest_is_valid(id))
			return err_set(j->err, -EBADMSG, "config: rootfs.diff_ids: %zu: no SHA-256 digest", i);
		r = add_layer(j, &d, &k);
		if (r < 0)
			return r;
		memcpy(j->layers[k].want_diff_id, id, IMG_DIGEST_SIZE);
		j->layers[k].blob = j->docker.layers[i]; /* moves */
		j->docker.layers[i] = (struct img_blob){ 0 };
		image->layers[image->n_layers++] = k;
	}
	return r;
}

int flip_job_read(struct flip_job *j)
{
	CLEANUP(freep) char *data = NULL;
	char digest[IMG_DIGEST_SIZE] = "";
	struct img_index index = { 0 };
	enum img_document kind;
	size_t size = 0;
	int r;

	if (!j->source.ops)
		return read_docker(j);
	r = j->source.ops->root(j->source.state, &data, &size, digest, j->err);
	if (r == 0)
		r = img_document_kind(data, size, digest, &kind, j->err);
	if (r < 0)
		return r;
	if (kind == IMG_DOC_MANIFEST) {
		j->images = calloc(1, sizeof(*j->images));
		return j->images ? read_image(j, data, size, digest) : out_of_memory(j);
	}
	r = img_index_parse(data, size, digest, &index, j->err);
	if (r == 0 && j->o->platform) {
		r = read_chosen(j, &index, digest);
	} else if (r == 0) {
		r = base_json_parse(digest, data, size, &j->index, j->err);
		if (r == 0)
			r = read_index(j, &index);
	}
	img_index_done(&index);
	return r;
}

void flip_job_images_done(struct flip_job *j)
{
	for (size_t i = 0; i < j->n_images; i++) {
		struct flip_job_image *image = &j->images[i];

		img_manifest_done(&image->manifest);
		json_decref(image->document);
		json_decref(image->config);
		free(image->layers);
	}
	free(j->images);
	json_decref(j->index);
}

/* ---- Writing ---- */

static json_t *layer_descriptor(const struct flip_job *j, const json_t *old, const struct flip_layer_made *m)
{
	bool is_gzip = j->set.format == FLIP_ESTARGZ;
	json_t *d = json_object(), *names = json_object();
	char size[32];

	/* What others said of the layer, but not what was true of its old bytes. */
	json_object_update(names, json_object_get(old, "annotations"));
	for (size_t i = 0; i < 4; i++) {
		static const char *const gone[] = { POSITION, POSITION_OLD, CHECKSUM, CHECKSUM_OLD };

		(void)json_object_del(names, gone[i]);
	}
	(void)json_object_del(names, "io.github.containers.zstd-chunked.tarsplit-position");
	(void)json_object_del(names, "io.github.containers.zstd-chunked.tarsplit-checksum");
	(void)snprintf(size, sizeof(size), "%llu", (unsigned long long)m->unpacked_size);
	(void)json_object_set_new(names, FLIP_ANNOTATION_TOC, json_string(m->toc_digest));
	(void)json_object_set_new(names, FLIP_ANNOTATION_SIZE, json_string(size));
	if (!is_gzip) { /* both names: of containers/storage, and of stargz-snapshotter before 0.13 */
		(void)json_object_set_new(names, POSITION, json_string(m->position));
		(void)json_object_set_new(names, CHECKSUM, json_string(m->checksum));
		(void)json_object_set_new(names, POSITION_OLD, json_string(m->position));
		(void)json_object_set_new(names, CHECKSUM_OLD, json_string(m->checksum));
	}
	(void)json_object_set_new(d, "mediaType",
	                          json_string(is_gzip ? IMG_TYPE_OCI_LAYER "+gzip" : IMG_TYPE_OCI_LAYER "+zstd"));
	(void)json_object_set_new(d, "digest", json_string(m->digest));
	(void)json_object_set_new(d, "size", json_integer((json_int_t)m->size));
	(void)json_object_set_new(d, "annotations", names);
	return d;
}

static int dump(struct flip_job *j, const json_t *doc, struct base_buf *buf)
{
	return base_json_append(buf, doc) < 0 || base_buf_error(buf) ? out_of_memory(j) : 0;
}

static int make_config(struct flip_job *j, struct flip_job_image *image, struct base_buf *buf)
{
	json_t *rootfs = json_object_get(image->config, "rootfs"), *ids = json_array();

	if (!json_is_object(rootfs)) {
		json_decref(ids);
		return err_set(j->err, -EBADMSG, "configuration: rootfs: missing");
	}
	for (size_t i = 0; i < image->n_layers; i++)
		(void)json_array_append_new(ids, json_string(j->layers[image->layers[i]].made.diff_id));
	(void)json_object_set_new(rootfs, "diff_ids", ids);
	return dump(j, image->config, buf);
}

static int make_manifest(struct flip_job *j, struct flip_job_image *image, const struct base_buf *config,
                         const char *config_digest, struct base_buf *buf)
{
	json_t *old = json_object_get(image->document, "layers"), *layers = json_array(), *doc, *names;
	int r;

	for (size_t i = 0; i < image->n_layers; i++)
		(void)json_array_append_new(
		        layers, layer_descriptor(j, json_array_get(old, i), &j->layers[image->layers[i]].made));
	doc = json_pack("{s:i, s:s, s:{s:s, s:s, s:I}, s:o}", "schemaVersion", 2, "mediaType", IMG_TYPE_OCI_MANIFEST,
	                "config", "mediaType", IMG_TYPE_OCI_CONFIG, "digest", config_digest, "size",
	                (json_int_t)config->len, "layers", layers);
	names = json_object_get(image->document, "annotations");
	if (doc && json_is_object(names))
		(void)json_object_set(doc, "annotations", names);
	r = doc ? dump(j, doc, buf) : out_of_memory(j);
	json_decref(doc);
	return r;
}

static int send_layers(struct flip_job *j, struct flip_job_image *image)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < image->n_layers; i++) {
		struct flip_job_layer *l = &j->layers[image->layers[i]];
		struct img_layer layer = { .size = l->made.size, .unpacked_size = l->made.unpacked_size };

		if (l->is_sent)
			continue;
		memcpy(layer.digest, l->made.digest, IMG_DIGEST_SIZE);
		memcpy(layer.diff_id, l->made.diff_id, IMG_DIGEST_SIZE);
		r = j->dest.ops->layer(j->dest.state, &l->made.file, &layer, j->err);
		l->is_sent = true;
	}
	return r;
}

static int send_image(struct flip_job *j, struct flip_job_image *image)
{
	struct base_buf config = BASE_BUF_INIT(IMG_MAX_JSON), manifest = BASE_BUF_INIT(IMG_MAX_JSON);
	char config_digest[IMG_DIGEST_SIZE] = "";
	int r = send_layers(j, image);

	if (r == 0)
		r = make_config(j, image, &config);
	if (r == 0) {
		img_digest_of(config.data, config.len, config_digest);
		r = make_manifest(j, image, &config, config_digest, &manifest);
	}
	if (r == 0)
		r = j->dest.ops->config(j->dest.state, config.data, config.len, config_digest, j->err);
	if (r == 0) {
		img_digest_of(manifest.data, manifest.len, image->digest);
		image->size = manifest.len;
		r = (j->index ? j->dest.ops->part : j->dest.ops->manifest)(j->dest.state, manifest.data, manifest.len,
		                                                           image->digest, j->err);
	}
	base_buf_done(&config);
	base_buf_done(&manifest);
	return r;
}

static int send_index(struct flip_job *j, char ret_digest[IMG_DIGEST_SIZE])
{
	struct base_buf buf = BASE_BUF_INIT(IMG_MAX_JSON);
	json_t *list = json_array();
	int r;

	for (size_t i = 0; i < j->n_images; i++) {
		struct flip_job_image *image = &j->images[i];
		json_t *d = json_copy(image->index_entry); /* platform and annotations stay */

		(void)json_object_set_new(d, "mediaType", json_string(IMG_TYPE_OCI_MANIFEST));
		(void)json_object_set_new(d, "digest", json_string(image->digest));
		(void)json_object_set_new(d, "size", json_integer((json_int_t)image->size));
		(void)json_array_append_new(list, d);
	}
	(void)json_object_set_new(j->index, "manifests", list);
	(void)json_object_set_new(j->index, "mediaType", json_string(IMG_TYPE_OCI_INDEX));
	r = dump(j, j->index, &buf);
	if (r == 0) {
		img_digest_of(buf.data, buf.len, ret_digest);
		r = j->dest.ops->manifest(j->dest.state, buf.data, buf.len, ret_digest, j->err);
	}
	base_buf_done(&buf);
	return r;
}

int flip_job_send(struct flip_job *j, char ret_digest[IMG_DIGEST_SIZE])
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->n_images; i++)
		r = send_image(j, &j->images[i]);
	if (r < 0)
		return r;
	if (j->index)
		return send_index(j, ret_digest);
	memcpy(ret_digest, j->images[0].digest, IMG_DIGEST_SIZE);
	return 0;
}
