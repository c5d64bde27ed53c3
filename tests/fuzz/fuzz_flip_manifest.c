/* Manifests and indexes of images, as registries send them. The first byte chooses which of the two. What is taken has
 * digests that name files safely, and is freed whether it was taken or not. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Folders are called by digests: 64 hexadecimal digits and nothing else. */
static void check_digest(const char *digest)
{
	if (strlen(digest) != 71 || memcmp(digest, "sha256:", 7) != 0 || strspn(digest + 7, "0123456789abcdef") != 64)
		abort();
}

static void check_manifest(const struct node_image *image)
{
	check_digest(image->config);
	for (size_t i = 0; i < image->n_layers; i++) {
		const struct node_image_layer *l = &image->layers[i];

		check_digest(l->digest);
		if (l->size > INT64_MAX || !node_image_layer(image, l->digest))
			abort();
		for (size_t k = 0; k < l->n_annotations; k++) {
			if (!l->names[k] || !l->values[k])
				abort();
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct node_image *image;
	char digest[72] = "";

	if (size == 0)
		return 0;
	if (data[0] & 1) {
		if (node_index_choose("fuzz", data + 1, size - 1, digest, NULL) == 0)
			check_digest(digest);
		else if (digest[0])
			abort(); /* outputs are untouched on failure */
		return 0;
	}
	image = calloc(1, sizeof(*image));
	if (!image)
		return 0;
	if (node_manifest_parse("fuzz", data + 1, size - 1, image, NULL) == 0)
		check_manifest(image);
	node_image_free(image);
	return 0;
}
