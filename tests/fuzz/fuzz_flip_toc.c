/* Tables of contents of both formats. The first byte chooses the format. What is taken fills its files, lies in the
 * blob, can be made an overlay and an index. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lazy/toc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BLOB_SIZE = 1 << 20 };

static void check(const struct flip_toc *t)
{
	for (size_t i = 0; i < t->n_contents; i++) {
		const struct flip_toc_content *c = &t->contents[i];
		uint64_t done = 0;

		if (c->size == 0 || c->n_chunks == 0 || c->n_chunks > t->n_chunks - c->first_chunk)
			abort();
		for (uint32_t k = c->first_chunk; k < c->first_chunk + c->n_chunks; k++) {
			const struct flip_toc_chunk *chunk = &t->chunks[k];

			if (chunk->offset != done || chunk->blob_size == 0 || chunk->blob_offset >= BLOB_SIZE ||
			    chunk->blob_size > BLOB_SIZE - chunk->blob_offset)
				abort();
			done += chunk->size;
		}
		if (done != c->size)
			abort();
	}
	for (size_t i = 0; i < t->n_prefetch; i++) {
		if (t->prefetch[i] >= t->n_chunks)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct flip_toc *t = NULL;

	if (size == 0)
		return 0;
	if (flip_toc_parse(data[0] & 1 ? FLIP_ZSTD_CHUNKED : FLIP_ESTARGZ, data + 1, size - 1, BLOB_SIZE, "fuzz", &t,
	                   NULL) < 0)
		return 0;
	check(t);
	if (flip_tree_to_overlay(t->tree, NULL) == 0 && img_tree_find(t->tree, "/.prefetch.landmark"))
		abort();
	flip_toc_free(t);
	return 0;
}
