/* Ordinary images made lazily loadable, valid for everybody who knows nothing of it: eStargz or zstd:chunked.
 *
 * The source layer is decoded once, in one pass; its files are cut into chunks, compressed and hashed on all cores, and
 * written in order; memory stays below max_memory whatever the image. Files that a start needs come first, behind the
 * landmark the format knows. The same input and options give the same bytes, whatever the number of threads. */
#ifndef FLIP_CONVERT_H
#define FLIP_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "lazy/prefetch.h"
#include "lazy/toc.h"
#include "oci/oci.h"

struct flip_convert_opts {
	enum flip_format format;              /* FLIP_ESTARGZ or FLIP_ZSTD_CHUNKED */
	int level;                            /* 0: 6 for gzip, 9 for zstd */
	uint32_t chunk_bytes;                 /* 0: the measured default (docs/lazy-images.md) */
	const struct flip_prefetch *prefetch; /* NULL: entrypoint's closure (program, interpreter, libraries) */
	bool no_prefetch;
	unsigned n_threads;    /* 0: one per core */
	uint64_t max_memory;   /* 0: 256 MiB */
	const char *cache_dir; /* layers converted before with the same options are taken from here; NULL: none */
	const char *platform;  /* "linux/amd64": only this one of an index; NULL: all */
	const char *auth_file;
	bool insecure;
	img_progress_fn progress;
	void *progress_arg;
};

struct flip_convert_layer {
	char digest[IMG_DIGEST_SIZE], diff_id[IMG_DIGEST_SIZE], source_digest[IMG_DIGEST_SIZE];
	uint64_t size, source_size, unpacked_size;
	uint64_t n_chunks;
	bool from_cache;
};

struct flip_convert_result {
	char manifest_digest[IMG_DIGEST_SIZE]; /* of the index for a multi-architecture image */
	struct flip_convert_layer *layers;     /* of all its images */
	size_t n_layers;
};

/* Names as in oci/oci.h, on both sides. All of it under the new name, or nothing. */
int flip_convert(const char *source, const char *dest, const struct flip_convert_opts *o,
                 struct flip_convert_result *ret_result, struct err *err);
void flip_convert_result_done(struct flip_convert_result *r);

#endif
