/* The index of a layer: which contents it has and where their chunks lie in the blob. A compact file, mapped read-only
 * and used in place (docs/formats/layer-index.md): nothing is parsed or allocated when it is opened or searched. */
#ifndef FLIP_INDEX_H
#define FLIP_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "lazy/toc.h"

struct flip_index; /* immutable; any thread */

struct flip_index_object {
	uint8_t digest[32];
	uint64_t size;
	uint32_t first_chunk, n_chunks;
};

struct flip_index_chunk {
	uint64_t offset; /* in the content */
	uint64_t blob_offset;
	uint64_t inner_offset;
	uint32_t size, blob_size;
	uint8_t digest[32]; /* all zero: not known, the whole content must be there before it can be verified */
};

/* Writes the file (atomically); contents of an ordinary layer (FLIP_PLAIN) may have no chunks; what flip_index_open()
 * refuses is never written. */
int flip_index_write(const struct flip_toc *toc, const char *blob_digest, uint64_t blob_size, const char *path,
                     struct err *err);
/* Checks header, sizes, order and every range (all in O(file)); -EBADMSG names the file and the field. */
int flip_index_open(const char *path, struct flip_index **ret_index, struct err *err);
void flip_index_cool(
        const struct flip_index *ix); /* its pages, read when it was opened, are no longer this process's */
void flip_index_close(struct flip_index *ix);

enum flip_format flip_index_format(const struct flip_index *ix);
const char *flip_index_blob(const struct flip_index *ix); /* "sha256:..." */
uint64_t flip_index_blob_size(const struct flip_index *ix);
size_t flip_index_n_objects(const struct flip_index *ix);
size_t flip_index_n_chunks(const struct flip_index *ix);
const struct flip_index_object *flip_index_object(const struct flip_index *ix, size_t i); /* sorted by digest */
const struct flip_index_chunk *flip_index_chunk(const struct flip_index *ix, size_t i);
/* NULL: not in this layer. */
const struct flip_index_object *flip_index_find(const struct flip_index *ix, const uint8_t digest[32]);
/* Which object a chunk belongs to. */
const struct flip_index_object *flip_index_chunk_object(const struct flip_index *ix, size_t chunk);
/* Chunks in the order of need, when the image brought a list; the landmark's whole range otherwise; 0: nothing. */
size_t flip_index_prefetch(const struct flip_index *ix, const uint32_t **ret_chunks);

/* Whether only the whole of a content can be verified: it has several chunks, and their digests are not known. */
bool flip_index_is_unverified(const struct flip_index *ix, const struct flip_index_object *object);
/* Whether the chunk's own bytes (chunk->size of them) have its digest, when it is known: 0 or -EBADMSG. */
int flip_chunk_verify(const struct flip_index_chunk *chunk, const void *data, struct err *err);
/* Decodes the member or frame of a chunk (`data`, blob_size bytes or more) and gives the chunk's own bytes: chunk->size
 * of them into `out`. Verified against the digest unless it is all zero. Any thread. -EBADMSG. */
int flip_chunk_decode(enum flip_format format, const struct flip_index_chunk *chunk, const void *data, size_t size,
                      void *out, struct err *err);

#endif
