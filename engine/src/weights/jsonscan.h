/* A pull scanner for the two JSON shapes that weights come with: a safetensors header and a shard index.
 * They have up to a hundred thousand entries of fixed form, and building a tree of them first would be
 * most of the time that opening a model takes. */
#ifndef ENG_WEIGHTS_JSONSCAN_H
#define ENG_WEIGHTS_JSONSCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "weights/names.h"

struct eng_scan {
	const char *where; /* for messages: file and part */
	const char *begin, *p, *end;
	struct eng_arena *arena; /* strings are put here */
	struct err *err;
};

/* All return 0 or -EBADMSG (-ENOMEM) with err set, naming the byte. */
int eng_scan_expect(struct eng_scan *s, char c);
/* Decoded, NUL-terminated, in the arena; refuses text that is not printable UTF-8. */
int eng_scan_string(struct eng_scan *s, const char **ret_text, size_t *ret_len);
int eng_scan_u64(struct eng_scan *s, uint64_t *ret);
/* Any value, at most 32 levels deep. */
int eng_scan_skip(struct eng_scan *s);
/* Nothing but white space may be left. */
int eng_scan_end(struct eng_scan *s);

/* Inside a list or object that ends with `close`: 1 when another item follows (its comma is consumed),
 * 0 when it ended. *first starts as true. */
int eng_scan_next(struct eng_scan *s, char close, bool *first);

#endif
