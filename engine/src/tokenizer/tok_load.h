/* What the files that read tokenizer.json share. */
#ifndef ENG_TOK_LOAD_H
#define ENG_TOK_LOAD_H

#include <jansson.h>

#include "tokenizer/tok_internal.h"

enum { TOK_WHERE_SIZE = 256, TOK_MAX_NESTING = 16 };

struct tok_loader {
	struct eng_tokenizer *tok;
	const char *file;
	struct err *err;
	unsigned depth;
};

int tok_load_no_memory(struct tok_loader *ld, const char *where);
/* A string as malloc'd memory; strings from JSON may hold U+0000, so the length travels along. */
int tok_load_text(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, char **ret,
                  size_t *ret_n);
int tok_load_bool(struct tok_loader *ld, const json_t *obj, const char *where, const char *key, bool otherwise,
                  bool *ret);

/* One kind of component, and what reads it; a table ends with a NULL type. */
struct tok_component {
	const char *type;
	int (*load)(struct tok_loader *ld, const json_t *obj, const char *where);
};

extern const struct tok_component tok_postprocessors[];

/* Each object of the array `key`, by its type. */
int tok_load_sequence(struct tok_loader *ld, const json_t *obj, const char *where, const char *key,
                      const struct tok_component *table);
/* normalizer, pre_tokenizer, decoder, post_processor of the document's root. */
int tok_load_components(struct tok_loader *ld, const json_t *root);

#endif
