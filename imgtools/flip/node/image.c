/* Manifests of images, and which one of an index. Those that were read lately are kept, because containerd asks for
 * each layer of an image by itself.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "node/image.h"

enum { MAX_KEPT = 64, MAX_CONFIG = 8 << 20 };

struct node_images {
	pthread_mutex_t lock;
	const struct node_elsewhere *elsewhere; /* or NULL */
	void *elsewhere_arg;
	struct node_image *first; /* most recent first; protected by lock, as the counts */
	unsigned n;
};

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
	img_manifest_done(&image->doc);
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

static bool is_away(int r)
{
	return r < 0 && r != -EACCES && r != -ENOENT && r != -EBADMSG && r != -EINVAL && r != -ECANCELED;
}

static int fetch_config(struct flip_fetch *fetch, const struct node_image *image, char *data, struct err *err)
{
	struct flip_blob *blob;
	int r = flip_blob_open(fetch, image->ref, image->doc.config.digest, image->doc.config.size, &blob, err);

	if (r < 0)
		return r;
	r = flip_blob_read_wait(blob, 0, image->doc.config.size, data, FLIP_FOREGROUND, err);
	flip_blob_close(blob);
	return r;
}

int node_image_config(struct flip_fetch *fetch, const struct node_images *images, const struct node_image *image,
                      char **ret_data, struct err *err)
{
	uint64_t size = image->doc.config.size;
	CLEANUP(freep) char *data = NULL;
	uint8_t sum[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];
	int r;

	if (size > MAX_CONFIG)
		return err_set(err, -EFBIG, "%s: the configuration is larger than %d bytes", image->ref, MAX_CONFIG);
	data = malloc(size + 1);
	if (!data)
		return err_set(err, -ENOMEM, "out of memory");
	r = fetch_config(fetch, image, data, err);
	if (is_away(r) && images && images->elsewhere &&
	    images->elsewhere->get_config(images->elsewhere_arg, image, data) == 0)
		r = 0;
	if (r < 0)
		return r;
	data[size] = '\0';
	r = base_sha256_bytes(data, size, sum);
	if (r < 0)
		return r;
	base_sha256_hex(sum, hex);
	if (strcmp(hex, image->doc.config.digest + 7) != 0)
		return err_set(err, -EBADMSG, "%s: the configuration's digest is sha256:%s, not %s", image->ref, hex,
		               image->doc.config.digest);
	*ret_data = data;
	data = NULL;
	return 0;
}

/* By the registry; while it is away, from elsewhere. */
static int read_document(struct flip_fetch *fetch, const struct node_images *images, const char *ref, const char *which,
                         char **ret_data, size_t *ret_size, char ret_digest[72], char ret_type[128], struct err *err)
{
	int r = flip_fetch_manifest(fetch, ref, which, ret_data, ret_size, ret_digest, ret_type, err);

	if (!is_away(r) || !images || !images->elsewhere)
		return r;
	return images->elsewhere->get(images->elsewhere_arg, ref, which, ret_data, ret_size, ret_digest, ret_type,
	                              NULL) == 0
	               ? 0
	               : r;
}

static int read_image(struct flip_fetch *fetch, const struct node_images *images, const char *ref,
                      const char *manifest_digest, bool with_config, struct node_image **ret_image, struct err *err)
{
	CLEANUP(image_freep) struct node_image *image = calloc(1, sizeof(*image));
	enum img_document kind;
	int r;

	if (!image || !(image->ref = strdup(ref)))
		return err_set(err, -ENOMEM, "out of memory");
	r = read_document(fetch, images, ref, manifest_digest, &image->manifest_data, &image->manifest_size,
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
			r = read_document(fetch, images, ref, digest, &image->manifest_data, &image->manifest_size,
			                  image->manifest, image->manifest_type, err);
		if (r < 0)
			return r;
	}
	r = img_manifest_parse(image->manifest_data, image->manifest_size, ref, &image->doc, err);
	if (r == 0 && with_config)
		r = node_image_config(fetch, images, image, &image->config_data, err);
	if (r < 0)
		return r;
	*ret_image = image;
	image = NULL;
	return 0;
}

int node_image_read(struct flip_fetch *fetch, const char *ref, const char *manifest_digest, bool with_config,
                    struct node_image **ret_image, struct err *err)
{
	return read_image(fetch, NULL, ref, manifest_digest, with_config, ret_image, err);
}

int node_image_read_here(struct node_images *images, struct flip_fetch *fetch, const char *ref,
                         struct node_image **ret_image, struct err *err)
{
	return read_image(fetch, images, ref, NULL, true, ret_image, err);
}

/* ---- As a document ---- */

json_t *node_image_json(const struct node_image *image)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s%, s:s%}", "ref", image->ref, "digest", image->manifest, "type",
	                      image->manifest_type, "top", image->top, "manifest", image->manifest_data,
	                      image->manifest_size, "config", image->config_data, (size_t)image->doc.config.size);

	if (o && image->index_data &&
	    json_object_set_new(o, "index",
	                        json_pack("{s:s, s:s%}", "type", image->index_type, "data", image->index_data,
	                                  image->index_size)) < 0) {
		json_decref(o);
		o = NULL;
	}
	return o;
}

static int take_text(const json_t *o, const char *name, char **ret, size_t *ret_size)
{
	const json_t *text = json_object_get(o, name);
	size_t size = json_string_length(text);

	if (!json_is_string(text))
		return -EBADMSG;
	*ret = malloc(size + 1);
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, json_string_value(text), size + 1);
	*ret_size = size;
	return 0;
}

int node_image_of_json(const json_t *o, struct node_image **ret_image, struct err *err)
{
	CLEANUP(image_freep) struct node_image *image = calloc(1, sizeof(*image));
	const json_t *index = json_object_get(o, "index");
	const char *digest = json_string_value(json_object_get(o, "digest"));
	const char *top = json_string_value(json_object_get(o, "top"));
	const char *type = json_string_value(json_object_get(o, "type"));
	const char *index_type = json_string_value(json_object_get(index, "type"));
	size_t size = 0;
	int r;

	if (!image)
		return err_set(err, -ENOMEM, "out of memory");
	if (!digest || !top || !type || strlen(digest) >= sizeof(image->manifest) ||
	    strlen(top) >= sizeof(image->top) || (index && !index_type))
		return err_set(err, -EBADMSG, "the daemon's answer is no image");
	(void)snprintf(image->manifest, sizeof(image->manifest), "%s", digest);
	(void)snprintf(image->top, sizeof(image->top), "%s", top);
	(void)snprintf(image->manifest_type, sizeof(image->manifest_type), "%s", type);
	r = take_text(o, "ref", &image->ref, &size);
	if (r == 0)
		r = take_text(o, "manifest", &image->manifest_data, &image->manifest_size);
	if (r == 0 && index) {
		(void)snprintf(image->index_type, sizeof(image->index_type), "%s", index_type);
		r = take_text(index, "data", &image->index_data, &image->index_size);
	}
	if (r == 0)
		r = take_text(o, "config", &image->config_data, &size);
	if (r < 0)
		return err_set(err, r, "the daemon's answer is no image");
	r = img_manifest_parse(image->manifest_data, image->manifest_size, image->ref, &image->doc, err);
	if (r == 0 && image->doc.config.size != size)
		r = err_set(err, -EBADMSG, "%s: the configuration has another size", image->ref);
	if (r < 0)
		return r;
	*ret_image = image;
	image = NULL;
	return 0;
}

const struct img_descriptor *node_image_layer(const struct node_image *image, const char *digest)
{
	for (size_t i = 0; i < image->doc.n_layers; i++) {
		if (strcmp(image->doc.layers[i].digest, digest) == 0)
			return &image->doc.layers[i];
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

void node_images_elsewhere(struct node_images *images, const struct node_elsewhere *ops, void *arg)
{
	images->elsewhere = ops;
	images->elsewhere_arg = arg;
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
	r = read_image(fetch, images, ref, by, false, &image, err);
	if (r < 0)
		return r;
	if (images->elsewhere)
		images->elsewhere->keep(images->elsewhere_arg, image);
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
