/* One page of K and V as a file; docs/formats/kv-page.md has the bytes. */
#ifndef ENG_PC_PAGE_FILE_H
#define ENG_PC_PAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { ENG_PC_KEY_SIZE = 32, ENG_PC_MAX_TOKENS = 1 << 16 };

/* What a prefix of whole pages is known by: a digest over model, precision and all of its tokens. All zero: the
 * empty prefix. */
struct eng_pc_key {
	uint8_t b[ENG_PC_KEY_SIZE];
};

struct eng_pc_page {
	struct eng_pc_key identity, parent, key;
	uint32_t n_tokens;
	uint64_t compute_ns; /* what computing the page took when it was made; 0: not known */
	uint64_t payload_bytes;
};

/* The key of `parent` continued by one page's ids. */
int eng_pc_key_next(const struct eng_pc_key *identity, const struct eng_pc_key *parent, const int32_t *ids,
                    uint32_t n_ids, struct eng_pc_key *ret_key);
/* Bytes in front of the payload, a multiple of 64. */
size_t eng_pc_header_bytes(uint32_t n_tokens);
/* Writes the header of a page whose payload lies behind it: page->key is filled in. */
int eng_pc_page_seal(struct eng_pc_page *page, const int32_t *ids, uint8_t *file);
/* Checks a whole file, whose header may lie elsewhere than its payload: -EBADMSG when anything in it is not as it was
 * written. */
int eng_pc_page_parse(const uint8_t *header, size_t header_bytes, const void *payload, size_t payload_bytes,
                      struct eng_pc_page *ret_page, struct err *err);

#endif
