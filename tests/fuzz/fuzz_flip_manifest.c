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

static void check_manifest(const struct img_manifest *m)
{
	check_digest(m->config.digest);
	for (size_t i = 0; i < m->n_layers; i++) {
		const struct img_descriptor *l = &m->layers[i];

		check_digest(l->digest);
		if (l->size > INT64_MAX)
			abort();
		for (size_t k = 0; k < l->n_annotations; k++) {
			if (!l->names[k] || !l->values[k])
				abort();
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_manifest manifest;
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
	if (img_manifest_parse(data + 1, size - 1, "fuzz", &manifest, NULL) == 0) {
		check_manifest(&manifest);
		img_manifest_done(&manifest);
	}
	return 0;
}
