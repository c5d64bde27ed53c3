/* A table of contents being parsed: the entry at hand (toc_entry.c) and what became of those before it (toc.c). */
#ifndef FLIP_TOC_INTERNAL_H
#define FLIP_TOC_INTERNAL_H

#include "lazy_internal.h"

#define FLIP_LANDMARK ".prefetch.landmark"
#define FLIP_NO_LANDMARK ".no.prefetch.landmark"
#define FLIP_TOC_NAME "stargz.index.json"

enum { FLIP_MAX_XATTRS = 256, FLIP_TYPE_SIZE = 16 };

/* The members of one entry. */
struct flip_toc_entry {
	char name[IMG_PATH_MAX], link[IMG_PATH_MAX];
	char type[FLIP_TYPE_SIZE];
	bool has_name, has_digest, has_chunk_digest;
	uint64_t size, offset, end_offset, chunk_offset, chunk_size, inner_offset;
	uint32_t mode, uid, gid, major, minor;
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint8_t digest[32], chunk_digest[32];
	struct img_xattr *xattrs; /* owned, with what they point to */
	size_t n_xattrs;
};

struct flip_raw_chunk {
	struct flip_toc_chunk c;
	uint64_t end; /* of its member, when the table says so; 0 */
};

struct flip_raw_content {
	struct flip_toc_content c;
	struct img_node *node;
	size_t same_as, place; /* the first content of this digest; where that is in the end */
};

struct flip_raw_link {
	struct img_node *node, *of;
};

struct flip_toc_parser {
	const char *where;
	uint64_t blob_size;
	struct flip_json json;
	struct flip_toc_entry entry;
	size_t n_entries;
	struct img_tree *tree;
	struct img_node *file; /* whose chunks are being read */
	uint64_t file_size, file_done;
	size_t file_first;
	uint8_t file_digest[32];
	struct flip_raw_chunk *chunks;
	size_t n_chunks, cap_chunks;
	struct flip_raw_content *contents;
	size_t n_contents, cap_contents;
	struct flip_raw_link *links;
	size_t n_links;
	uint32_t last_group;
	uint64_t prefetch_end;
	struct flip_prefetch prefetch;
};

/* The document; flip_toc_take_entry() is called with each entry in p->entry. */
int flip_toc_document(struct flip_toc_parser *p, struct err *err);
void flip_toc_entry_reset(struct flip_toc_entry *e);
int flip_toc_take_entry(struct flip_toc_parser *p, struct err *err);
int flip_toc_bad(const struct flip_toc_parser *p, struct err *err, const char *field, const char *what);

#endif
