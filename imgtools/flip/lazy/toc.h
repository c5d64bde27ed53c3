/* The table of contents of a lazily loadable layer: what the tar holds and where in the blob each chunk of it lies.
 *
 * Two formats are read, ours and other people's: eStargz (gzip members, TOC as the last tar entry, 51 or 47 byte
 * footer; docs/formats/lazy-layers.md) and zstd:chunked (manifest in a skippable frame, found by the descriptor's
 * annotations or by the footer). The bytes come through a callback, so that a registry, a file or a test can give them.
 */
#ifndef FLIP_TOC_H
#define FLIP_TOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "tree/tree.h"

enum flip_format {
	FLIP_ESTARGZ,
	FLIP_ZSTD_CHUNKED,
	FLIP_PLAIN, /* no table of contents */
	FLIP_RAW,   /* no tar either: contents one behind the other, as they are (model/flip_model.h) */
};

struct flip_toc_chunk {
	uint64_t offset;       /* in the content */
	uint32_t size;         /* of the content, uncompressed */
	uint64_t blob_offset;  /* of the gzip member or zstd frame that holds it */
	uint32_t blob_size;    /* of that member, as far as it must be fetched */
	uint64_t inner_offset; /* of the chunk's bytes in what the member decodes to (several small files share one) */
	uint8_t digest[32];    /* of the chunk's bytes; has_digest false: only the file's digest can be checked */
	bool has_digest;
};

/* One distinct content of the layer; node->user of its tree's file nodes points here (NULL for empty files). */
struct flip_toc_content {
	uint8_t digest[32]; /* of the whole content: its name in the store */
	uint64_t size;
	uint32_t first_chunk, n_chunks;
};

struct flip_toc {
	enum flip_format format;
	struct img_tree *tree; /* as in the tar: whiteouts are entries ".wh.NAME" still; see flip_tree_to_overlay() */
	struct flip_toc_content *contents;
	size_t n_contents;
	struct flip_toc_chunk *chunks;
	size_t n_chunks;
	uint64_t prefetch_end;  /* blob bytes before this were marked as prefetch by the landmark; 0: none */
	uint8_t toc_digest[32]; /* of the uncompressed document, to be compared with the annotation */
	/* Our own extension (docs/formats/prefetch.md): chunks in the order in which a run needed them; NULL: none. */
	uint32_t *prefetch;
	size_t n_prefetch;
};

/* `size` bytes at `offset` of the blob into data: 0 or a negative errno. */
typedef int (*flip_read_at)(void *arg, uint64_t offset, size_t size, void *data, struct err *err);

struct flip_blob_desc {
	const char *digest, *media_type;
	uint64_t size;
	/* Annotations of the descriptor: "containerd.io/snapshot/stargz/toc.digest",
	 * "io.github.containers.zstd-chunked.manifest-position", "...manifest-checksum" and the like. */
	const char *const *names, *const *values;
	size_t n_annotations;
};

/* Finds out the format and reads the table: one range for the end of the blob, one more if the table is longer.
 * *ret_toc->format FLIP_PLAIN (and no tree) is a success: an ordinary layer. -EBADMSG names blob, entry and field. When
 * the annotation gives the table's digest it is verified. */
int flip_toc_read(const struct flip_blob_desc *desc, flip_read_at read_at, void *arg, struct flip_toc **ret_toc,
                  struct err *err);
void flip_toc_free(struct flip_toc *toc);

/* The documents themselves, from bytes. */
int flip_toc_parse(enum flip_format format, const void *json, size_t size, uint64_t blob_size, const char *where,
                   struct flip_toc **ret_toc, struct err *err);

/* Whiteouts as overlayfs wants them: ".wh.NAME" becomes a character device 0/0 called NAME, ".wh..wh..opq" becomes
 * trusted.overlay.opaque = "y" on its directory; landmarks and the table's own entry go. */
int flip_tree_to_overlay(struct img_tree *tree, struct err *err);

#endif
