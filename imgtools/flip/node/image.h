/* Manifests as the node needs them: which layers an image has, how large they are, and their annotations (without which
 * a table of contents could not be trusted). */
#ifndef FLIP_NODE_IMAGE_H
#define FLIP_NODE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "fetch/fetch.h"
#include "oci/places.h"

struct node_image {
	char *ref;         /* as it was asked for */
	char manifest[72]; /* digest of the manifest for this machine */
	char top[72];      /* of what the reference named: the index, or the manifest itself */
	char *manifest_data, *config_data,
	        *index_data; /* as they came; config and index only when asked for, else NULL */
	size_t manifest_size, index_size;
	char manifest_type[128], index_type[128];
	struct img_manifest doc; /* layers: lowest first */
	struct node_image *next; /* of the list of those kept */
	unsigned n_refs;
};

/* Those that were read lately: by reference and, when given, the manifest's digest. Thread-safe. */
struct node_images;
struct node_images *node_images_new(void);
void node_images_free(struct node_images *images);
/* Where documents are looked for while the registry is away, and told of what was read. `which` is a digest, or NULL
 * for the reference's own tag. Set before the first image is read. */
struct node_elsewhere {
	int (*get)(void *arg, const char *ref, const char *which, char **ret_data, size_t *ret_size,
	           char ret_digest[72], char ret_media_type[128], struct err *err);
	/* Its configuration, of the size that the manifest tells; verified by the caller. */
	int (*get_config)(void *arg, const struct node_image *image, char *ret_data);
	void (*keep)(void *arg, const struct node_image *image);
};
void node_images_elsewhere(struct node_images *images, const struct node_elsewhere *ops, void *arg);
/* Reads it when it is not kept; a reference, ended by node_image_unref(). */
int node_image_get(struct node_images *images, struct flip_fetch *fetch, const char *ref, const char *manifest_digest,
                   struct node_image **ret_image, struct err *err);
int node_image_ref(struct node_images *images, const struct node_image *image, struct node_image **ret_image);
void node_image_unref(struct node_images *images, struct node_image *image);
void node_image_forget(struct node_images *images, const char *ref); /* its tag may have moved */

/* Reads it anew, with configuration; owned by the caller, node_image_free(). For `flip pull`. */
int node_image_read(struct flip_fetch *fetch, const char *ref, const char *manifest_digest, bool with_config,
                    struct node_image **ret_image, struct err *err);
/* The same as the daemon reads it: while the registry is away from elsewhere. */
int node_image_read_here(struct node_images *images, struct flip_fetch *fetch, const char *ref,
                         struct node_image **ret_image, struct err *err);
void node_image_free(struct node_image *image);
/* Its configuration, verified, the caller's; 0-terminated. `images` NULL: of the registry only. */
int node_image_config(struct flip_fetch *fetch, const struct node_images *images, const struct node_image *image,
                      char **ret_data, struct err *err);

/* An image with its configuration, as `GET /v1/image` gives it. NULL: no memory, or no UTF-8. */
json_t *node_image_json(const struct node_image *image);
int node_image_of_json(const json_t *o, struct node_image **ret_image, struct err *err);

/* Which manifest of an index is for this machine; the index's bytes. */
int node_index_choose(const char *where, const void *data, size_t size, char ret_digest[72], struct err *err);
const struct img_descriptor *node_image_layer(const struct node_image *image, const char *digest); /* NULL */

#endif
