/* Sets of code points, as sorted ranges that neither touch nor overlap. */
#ifndef ENG_GRAMMAR_CHARSET_H
#define ENG_GRAMMAR_CHARSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CS_MAX = 0x10ffff };

struct charset_range {
	uint32_t lo, hi;
};

struct charset {
	struct charset_range *ranges;
	uint32_t n, cap;
};

void gr_charset_done(struct charset *s);
/* Any order; gr_charset_finish() sorts and joins. -ENOMEM. */
int gr_charset_add(struct charset *s, uint32_t lo, uint32_t hi);
int gr_charset_add_set(struct charset *s, const struct charset *other);
void gr_charset_finish(struct charset *s);
/* Both want finished sets. The complement leaves surrogates out: they are no characters. */
int gr_charset_invert(struct charset *s);
bool gr_charset_has(const struct charset *s, uint32_t cp);
/* Whether any code point of lo..hi is in it. */
bool gr_charset_meets(const struct charset *s, uint32_t lo, uint32_t hi);

/* \d \D \w \W \s \S by their letter. Where ECMA-262 and Python disagree (is é a word character?) each class holds
 * only what it holds in both. */
int gr_charset_add_class(struct charset *s, char letter);
/* \p{name}: a general category (L, Lu, Nd ...). -EINVAL: no such. */
int gr_charset_add_category(struct charset *s, const char *name, size_t len, bool invert);

#endif
