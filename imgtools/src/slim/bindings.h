/* What was bound to what, as text with numbers: for stubs.c. */
#ifndef IMG_BINDINGS_H
#define IMG_BINDINGS_H

#include <stdio.h>

#include "base/buf.h"
#include "slim/slim.h"

struct img_binding {
	uint32_t from, to, symbol; /* offsets in text */
};

struct img_bindings {
	struct base_buf text; /* each word once, with its 0 byte */
	uint32_t *table;      /* offset + 1; 0: free */
	size_t table_cap, n_words;
	struct img_binding *uses;
	size_t n_uses, uses_cap;
	uint32_t *opened; /* by dlopen(), as it was named */
	size_t n_opened;
	uint32_t *loaded; /* that were initialised */
	size_t n_loaded;
};

/* One fact at a time: `from` took `symbol` from `to`; opened, initialised. */
int img_bindings_add(struct img_bindings *b, const char *from, const char *to, const char *symbol);
int img_bindings_add_opened(struct img_bindings *b, const char *path);
int img_bindings_add_loaded(struct img_bindings *b, const char *path);

#endif
