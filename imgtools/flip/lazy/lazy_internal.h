/* What the files of this room share: pulling values out of a JSON text, decompressing within bounds, names of the
 * formats. */
#ifndef FLIP_LAZY_INTERNAL_H
#define FLIP_LAZY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "lazy/index.h"
#include "lazy/prefetch.h"
#include "lazy/toc.h"

/* ---- JSON, value by value (json_pull.c) ----------------------------------------------------------------------------
 *
 * A table of contents has hundreds of thousands of members: it is read where it lies, without a document in memory.
 * Functions return 0 or -EBADMSG; `p` stands at the offending byte then. */

enum { FLIP_JSON_DEPTH = 64 };

struct flip_json {
	const char *begin, *p, *end;
	char *scratch; /* for strings with escapes; grows with the longest of them */
	size_t scratch_size;
};

/* Valid until the next string is read: in the text itself, or in the scratch. Not 0-terminated. */
struct flip_text {
	const char *p;
	size_t n;
};

void flip_json_init(struct flip_json *j, const void *text, size_t size);
void flip_json_done(struct flip_json *j);
/* The first byte of the next value, 0 at the end of the text. */
char flip_json_peek(struct flip_json *j);
/* Walks an object or array: *first is true before the first call. 1: a member (its key in *ret_key) or an item is next,
 * 0: the closing bracket was passed. */
int flip_json_open(struct flip_json *j, char bracket);
int flip_json_member(struct flip_json *j, bool *first, struct flip_text *ret_key);
int flip_json_item(struct flip_json *j, bool *first);
int flip_json_string(struct flip_json *j, struct flip_text *ret_text);
int flip_json_unsigned(struct flip_json *j, uint64_t *ret);
int flip_json_skip(struct flip_json *j); /* any value */
int flip_json_end(struct flip_json *j);  /* nothing but white space is left */

static inline bool flip_text_is(const struct flip_text *t, const char *s)
{
	size_t i = 0;

	while (i < t->n && s[i] && s[i] == t->p[i])
		i++;
	return i == t->n && !s[i];
}

/* ---- Values that are written as text (text_value.c) ------------------------------------------------------------- */

/* "2024-01-31T23:59:59.5+01:00" (RFC 3339). */
int flip_time_parse(const struct flip_text *text, int64_t *ret_s, uint32_t *ret_ns);
/* "sha256:" and 64 hexadecimal digits. */
int flip_digest_parse(const char *text, size_t size, uint8_t ret_digest[32]);
/* Standard alphabet, padded; *ret_data is the caller's. -EBADMSG, -ENOMEM. */
int flip_base64_parse(const struct flip_text *text, void **ret_data, size_t *ret_size);

/* ---- Decompression within bounds (unpack.c) ---- */

enum { FLIP_TOC_MAX_BYTES = 512 << 20 /* of a table as JSON */ };

/* One whole gzip member or zstd frame of unknown size, at most max bytes: *ret_data is the caller's. -EBADMSG, -EFBIG,
 * -ENOMEM. */
int flip_unpack_all(enum flip_format format, const void *data, size_t size, size_t max, char **ret_data,
                    size_t *ret_size);
/* Bytes [skip, skip + n_out) of what a member or frame decodes to; what follows is not looked at. */
int flip_unpack_part(enum flip_format format, const void *data, size_t size, uint64_t skip, void *out, size_t n_out);

#endif
