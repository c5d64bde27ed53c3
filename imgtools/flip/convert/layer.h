/* One layer on its way: its tar cut into segments (cut.c), each compressed by itself (pack.c), its table of contents
 * written behind them (toc_write.c). docs/formats/lazy-layers.md has the formats. */
#ifndef FLIP_LAYER_H
#define FLIP_LAYER_H

#include "lazy/prefetch.h"
#include "lazy/toc.h"
#include "line.h"
#include "oci/places.h"

enum {
	FLIP_POSITION_SIZE = 96,
	FLIP_MIN_CHUNK = 4 << 10,
	FLIP_MAX_CHUNK = 64 << 20,
};

/* Paths that come first, and the directories above them; sorted. */
struct flip_wanted {
	struct flip_wanted_path {
		char *path;
		bool is_file; /* named itself, not only above one that is */
	} * list;
	size_t n;
};
int flip_wanted_init(struct flip_wanted *w, const struct flip_prefetch *p); /* -ENOMEM */
void flip_wanted_done(struct flip_wanted *w);
const struct flip_wanted_path *flip_wanted_find(const struct flip_wanted *w, const char *path);

struct flip_layer_plan {
	const struct img_blob *blob;
	const char *label;
	enum flip_format format;
	int level;
	uint32_t chunk_bytes;
	const struct flip_prefetch *prefetch; /* NULL: none */
	unsigned n_workers;
	size_t max_memory;
	const char *temp_dir;
	struct img_meter *meter;
};

struct flip_layer_made {
	struct img_temp file;
	char source_digest[IMG_DIGEST_SIZE], digest[IMG_DIGEST_SIZE], diff_id[IMG_DIGEST_SIZE];
	char toc_digest[IMG_DIGEST_SIZE];
	char checksum[IMG_DIGEST_SIZE];    /* zstd:chunked: of the packed table */
	char position[FLIP_POSITION_SIZE]; /* zstd:chunked: where it is */
	uint64_t size, unpacked_size, n_chunks;
	bool source_is_plain; /* so its digest is also that of the tar */
};

/* Always to be given back, also after a failure: made->file. */
int flip_layer_convert(const struct flip_layer_plan *plan, struct flip_layer_made *made, struct err *err);

/* ---- Between cut.c, pack.c and toc_write.c ---- */

enum { FLIP_FIRST, FLIP_REST, FLIP_N_STREAMS }; /* what comes before the landmark, and behind it */

struct flip_made_chunk {
	uint64_t offset; /* of its member within its stream, then in the blob */
	uint32_t size, packed;
	uint8_t digest[32];
};

/* One entry of the table. */
struct flip_made_entry {
	char *path;
	char *json;            /* its members but those of the content; owned */
	uint64_t size;         /* of the content that it brings */
	uint64_t content_size; /* the same, or of what it is a hard link to */
	uint8_t digest[32];    /* of files with several chunks; the others' is that of the chunk */
	struct flip_made_chunk *chunks;
	uint32_t n_chunks;
	unsigned stream;
	bool is_dir;
};

/* What becomes one gzip member or zstd frame. */
struct flip_segment {
	struct flip_line_item item;
	unsigned stream;
	struct flip_made_chunk *chunk; /* its bytes come first; NULL: headers and padding only */
	uint8_t *raw, *packed;
	size_t n, cap, n_packed;
};

void flip_segment_free(struct flip_line_item *item);

struct flip_packer; /* compresses, hashes, writes */

int flip_packer_new(const struct flip_layer_plan *plan, struct flip_packer **ret_packer, struct err *err);
/* Takes the segment. */
int flip_packer_push(struct flip_packer *p, struct flip_segment *s, struct err *err);
/* All segments have been pushed: streams are joined. n_lead: segments at the beginning of the rest that go when there
 * is something first. *ret_base: what is to be added to offsets of each stream. */
int flip_packer_join(struct flip_packer *p, size_t n_lead, uint64_t ret_base[FLIP_N_STREAMS], struct err *err);
/* Table and footer behind it; everything of *made but source_digest and n_chunks is filled in. */
int flip_packer_finish(struct flip_packer *p, const struct base_buf *toc, struct flip_layer_made *made,
                       struct err *err);
void flip_packer_free(struct flip_packer *p);

/* The members of an entry that its header says, "{...", open. -ENOMEM. */
int flip_entry_json(const struct img_node *n, const char *path, const char *hardlink, char **ret_json);
/* The whole document; entries in order, `prefetch` as it applies to them. */
int flip_toc_append(struct flip_made_entry *const *entries, size_t n, enum flip_format format, uint32_t chunk_bytes,
                    const struct flip_prefetch *prefetch, struct base_buf *buf);

#endif
