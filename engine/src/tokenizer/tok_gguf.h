/* Shared by the two files that read the tokenizer inside a GGUF file. */
#ifndef ENG_TOK_GGUF_H
#define ENG_TOK_GGUF_H

#include <stddef.h>

#include "tokenizer/tok_internal.h"

enum {
	TOK_PRE_IGNORE_MERGES = 1u << 0,
	TOK_PRE_ADD_BOS = 1u << 1, /* unless the file says */
	TOK_PRE_ADD_SEP = 1u << 2,
	TOK_PRE_NFC = 1u << 3,
};

struct tok_gguf_pre {
	const char *names;      /* separated by spaces */
	const char *regexes[7]; /* ended by NULL */
	unsigned flags;
};

/* NULL when the name is not known. */
const struct tok_gguf_pre *tok_gguf_pre_find(const char *name, size_t n);

#endif
