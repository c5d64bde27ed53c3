/* Manifests and indexes (OCI image specification 1.1, and docker's of schema 2, which have the same members), read as
 * untrusted JSON. Those that were read lately are kept, because containerd asks for each layer of an image by itself.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/sha256.h"
#include "node/image.h"
#include "oci/places.h"

enum { MAX_LAYERS = 1024, MAX_KEPT = 64, MAX_CONFIG = 8 << 20, MAX_ANNOTATIONS = 256 };

struct node_images {
	pthread_mutex_t lock;
	struct node_image *first; /* most recent first; protected by lock, as the counts */
	unsigned n;
};

static int get_digest(const json_t *o, const char *where, char ret[72], struct err *err)
{
	const char *text;
	int r = base_json_get_string(o, where, "digest", &text, err);

	if (r < 0)
		return r;
	if (!img_digest_is_valid(text))
		return err_set(err, -EBADMSG, "%s: digest: \"%.80s\" is no sha256 digest", where, text);
	memcpy(ret, text, 72);
	return 0;
}

static int get_size(const json_t *o, const char *where, uint64_t *ret, struct err *err)
{
	const json_t *v = json_object_get(o, "size");

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return err_set(err, -EBADMSG, "%s: size: expected a count of bytes", where);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int parse_annotations(json_t *o, const char *where, struct node_image_layer *layer, struct err *err)
{
	json_t *map = NULL, *value;
	const char *name;
	int r = base_json_opt_object(o, where, "annotations", &map, err);

	if (r <= 0)
		return r;
	if (json_object_size(map) > MAX_ANNOTATIONS)
		return err_set(err, -EBADMSG, "%s: more than %d annotations", where, MAX_ANNOTATIONS);
	layer->names = calloc(json_object_size(map) + 1, sizeof(*layer->names));
	layer->values = calloc(json_object_size(map) + 1, sizeof(*layer->values));
	if (!layer->names || !layer->values)
		return err_set(err, -ENOMEM, "out of memory");
	json_object_foreach(map, name, value)
	{
		if (!json_is_string(value))
			return err_set(err, -EBADMSG, "%s: annotation %.100s: expected a string", where, name);
		layer->names[layer->n_annotations] = strdup(name);
		layer->values[layer->n_annotations] = strdup(json_string_value(value));
		layer->n_annotations++;
		if (!layer->names[layer->n_annotations - 1] || !layer->values[layer->n_annotations - 1])
			return err_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static int parse_layer(json_t *o, const char *where, struct node_image_layer *layer, struct err *err)
{
	const char *type = NULL;
	int r;

	if (!json_is_object(o))
		return err_set(err, -EBADMSG, "%s: expected an object, got %s", where, base_json_type_name(o));
	r = get_digest(o, where, layer->digest, err);
	if (r == 0)
		r = get_size(o, where, &layer->size, err);
	if (r == 0)
		r = base_json_opt_string(o, where, "mediaType", &type, err);
	if (r < 0)
		return r;
	if (type && !(layer->media_type = strdup(type)))
		return err_set(err, -ENOMEM, "out of memory");
	return parse_annotations(o, where, layer, err);
}

int node_manifest_parse(const char *where, const void *data, size_t size, struct node_image *image, struct err *err)
{
	CLEANUP(json_decrefp) json_t *doc = NULL;
	json_t *config, *layers;
	char place[256];
	int r = base_json_parse(where, data, size, &doc, err);

	if (r < 0)
		return r;
	if (!json_is_object(doc))
		return err_set(err, -EBADMSG, "%s: expected an object, got %s", where, base_json_type_name(doc));
	if (base_json_get_object(doc, where, "config", &config, err) < 0 ||
	    base_json_get_array(doc, where, "layers", &layers, err) < 0)
		return -EBADMSG;
	(void)snprintf(place, sizeof(place), "%.200s: config", where);
	r = get_digest(config, place, image->config, err);
	if (r == 0)
		r = get_size(config, place, &image->config_size, err);
	if (r < 0)
		return r;
	if (json_array_size(layers) > MAX_LAYERS)
		return err_set(err, -EBADMSG, "%s: layers: more than %d", where, MAX_LAYERS);
	image->layers = calloc(json_array_size(layers) + 1, sizeof(*image->layers));
	if (!image->layers)
		return err_set(err, -ENOMEM, "out of memory");
	for (; r == 0 && image->n_layers < json_array_size(layers); image->n_layers++) {
		(void)snprintf(place, sizeof(place), "%.200s: layers[%zu]", where, image->n_layers);
		r = parse_layer(json_array_get(layers, image->n_layers), place, &image->layers[image->n_layers], err);
	}
	return r;
}

/* ---- Which image of an index ---------------------------------------------------------------------------------- */

int node_index_choose(const char *where, const void *data, size_t size, char ret_digest[72], struct err *err)
{
	const char *arch = img_host_arch();
	const char *variant = strcmp(arch, "arm64") == 0 ? "v8" : strcmp(arch, "arm") == 0 ? "v7" : NULL;
	const struct img_descriptor *d;
	struct img_index index = { 0 };
	int r = img_index_parse(data, size, where, &index, err);

	if (r == 0)
		r = img_index_choose(&index, "linux", arch, variant, where, &d, err);
	if (r == 0)
		memcpy(ret_digest, d->digest, IMG_DIGEST_SIZE);
	img_index_done(&index);
	return r;
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

void node_image_free(struct node_image *image)
{
	if (!image)
		return;
	for (size_t i = 0; image->layers && i < image->n_layers; i++) {
		struct node_image_layer *l = &image->layers[i];

		for (size_t k = 0; k < l->n_annotations; k++) {
			free(l->names[k]);
			free(l->values[k]);
		}
		free(l->names);
		free(l->values);
		free(l->media_type);
	}
	free(image->layers);
	free(image->ref);
	free(image->manifest_data);
	free(image->config_data);
	free(image->index_data);
	free(image);
}

static void image_freep(struct node_image **image)
{
	node_image_free(*image);
}

static int read_config(struct flip_fetch *fetch, struct node_image *image, struct err *err)
{
	uint8_t sum[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];
	struct flip_blob *blob;
	int r;

	if (image->config_size > MAX_CONFIG)
		return err_set(err, -EFBIG, "%s: the configuration is larger than %d bytes", image->ref, MAX_CONFIG);
	image->config_data = malloc(image->config_size + 1);
	if (!image->config_data)
		return err_set(err, -ENOMEM, "out of memory");
	r = flip_blob_open(fetch, image->ref, image->config, image->config_size, &blob, err);
	if (r < 0)
		return r;
	r = flip_blob_read_wait(blob, 0, image->config_size, image->config_data, FLIP_FOREGROUND, err);
	flip_blob_close(blob);
	if (r < 0)
		return r;
	image->config_data[image->config_size] = '\0';
	r = base_sha256_bytes(image->config_data, image->config_size, sum);
	if (r < 0)
		return r;
	base_sha256_hex(sum, hex);
	if (strcmp(hex, image->config + 7) != 0)
		return err_set(err, -EBADMSG, "%s: the configuration's digest is sha256:%s, not %s", image->ref, hex,
		               image->config);
	return 0;
}

int node_image_read(struct flip_fetch *fetch, const char *ref, const char *manifest_digest, bool with_config,
                    struct node_image **ret_image, struct err *err)
{
	CLEANUP(image_freep) struct node_image *image = calloc(1, sizeof(*image));
	enum img_document kind;
	int r;

	if (!image || !(image->ref = strdup(ref)))
		return err_set(err, -ENOMEM, "out of memory");
	r = flip_fetch_manifest(fetch, ref, manifest_digest, &image->manifest_data, &image->manifest_size,
	                        image->manifest, image->manifest_type, err);
	if (r < 0)
		return r;
	memcpy(image->top, image->manifest, sizeof(image->top));
	r = img_document_kind(image->manifest_data, image->manifest_size, ref, &kind, err);
	if (r < 0)
		return r;
	if (kind == IMG_DOC_INDEX) {
		char digest[72];

		image->index_data = image->manifest_data;
		image->index_size = image->manifest_size;
		memcpy(image->index_type, image->manifest_type, sizeof(image->index_type));
		image->manifest_data = NULL;
		r = node_index_choose(ref, image->index_data, image->index_size, digest, err);
		if (r == 0)
			r = flip_fetch_manifest(fetch, ref, digest, &image->manifest_data, &image->manifest_size,
			                        image->manifest, image->manifest_type, err);
		if (r < 0)
			return r;
	}
	r = node_manifest_parse(ref, image->manifest_data, image->manifest_size, image, err);
	if (r == 0 && with_config)
		r = read_config(fetch, image, err);
	if (r < 0)
		return r;
	*ret_image = image;
	image = NULL;
	return 0;
}

const struct node_image_layer *node_image_layer(const struct node_image *image, const char *digest)
{
	for (size_t i = 0; i < image->n_layers; i++) {
		if (strcmp(image->layers[i].digest, digest) == 0)
			return &image->layers[i];
	}
	return NULL;
}

/* ---- Those that are kept --------------------------------------------------------------------------------------- */

struct node_images *node_images_new(void)
{
	struct node_images *images = calloc(1, sizeof(*images));

	if (images)
		(void)pthread_mutex_init(&images->lock, NULL);
	return images;
}

void node_images_free(struct node_images *images)
{
	if (!images)
		return;
	while (images->first) {
		struct node_image *i = images->first;

		images->first = i->next;
		node_image_free(i);
	}
	(void)pthread_mutex_destroy(&images->lock);
	free(images);
}

static void drop(struct node_images *images, struct node_image *image)
{
	if (--image->n_refs == 0)
		node_image_free(image);
}

/* With the lock held: to the front; the last one goes when there are too many. */
static void keep(struct node_images *images, struct node_image *image)
{
	struct node_image **p = &images->first;

	image->n_refs++;
	image->next = images->first;
	images->first = image;
	if (++images->n <= MAX_KEPT)
		return;
	while ((*p)->next)
		p = &(*p)->next;
	image = *p;
	*p = NULL;
	images->n--;
	drop(images, image);
}

/* With the lock held. A tag may have moved since: the caller notices by the layer that is not in the image, forgets it
 * and reads anew. */
static struct node_image *find(struct node_images *images, const char *ref, const char *digest)
{
	for (struct node_image *i = images->first; i; i = i->next) {
		if (strcmp(i->ref, ref) == 0 &&
		    (!digest || !*digest || strcmp(digest, i->manifest) == 0 || strcmp(digest, i->top) == 0))
			return i;
	}
	return NULL;
}

int node_image_get(struct node_images *images, struct flip_fetch *fetch, const char *ref, const char *manifest_digest,
                   struct node_image **ret_image, struct err *err)
{
	const char *by = manifest_digest && *manifest_digest ? manifest_digest : NULL;
	struct node_image *image;
	int r;

	pthread_mutex_lock(&images->lock);
	image = find(images, ref, by);
	if (image)
		image->n_refs++;
	pthread_mutex_unlock(&images->lock);
	if (image) {
		*ret_image = image;
		return 0;
	}
	r = node_image_read(fetch, ref, by, false, &image, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&images->lock);
	image->n_refs = 1;
	keep(images, image);
	pthread_mutex_unlock(&images->lock);
	*ret_image = image;
	return 0;
}

void node_image_forget(struct node_images *images, const char *ref)
{
	pthread_mutex_lock(&images->lock);
	for (struct node_image **p = &images->first, *i; (i = *p);) {
		if (strcmp(i->ref, ref) != 0) {
			p = &i->next;
			continue;
		}
		*p = i->next;
		images->n--;
		drop(images, i);
	}
	pthread_mutex_unlock(&images->lock);
}

int node_image_ref(struct node_images *images, const struct node_image *image, struct node_image **ret_image)
{
	pthread_mutex_lock(&images->lock);
	*ret_image = (struct node_image *)image; /* what is counted is not what is read */
	(*ret_image)->n_refs++;
	pthread_mutex_unlock(&images->lock);
	return 0;
}

void node_image_unref(struct node_images *images, struct node_image *image)
{
	if (!image)
		return;
	pthread_mutex_lock(&images->lock);
	drop(images, image);
	pthread_mutex_unlock(&images->lock);
}
