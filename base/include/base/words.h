/* A command line in one string, split into words as a shell does: blanks separate, quotes and backslashes keep
 * together, nothing is expanded. */
#ifndef BASE_WORDS_H
#define BASE_WORDS_H

#include <stddef.h>

/* *ret_words is a NULL-terminated array of *ret_n strings, the caller's (base_words_free()). -EINVAL: a quote is not
 * closed; -E2BIG: more than 4095 words; -ENOMEM. No words at all are no error. */
int base_words_split(const char *text, char ***ret_words, size_t *ret_n);
void base_words_free(char **words); /* NULL does nothing */

#endif
