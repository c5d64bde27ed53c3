/* What the folder has: keys, in the order of their last use. A page is of no use without those before it, so
 * using one uses all of those too, and the least recently used one never has another behind it. Not thread-safe. */
#ifndef ENG_PC_INDEX_H
#define ENG_PC_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptcache/page_file.h"

/* File names hold this much of a key. */
enum { ENG_PC_NAME_BYTES = 16 };

struct eng_pc_name {
	uint8_t b[ENG_PC_NAME_BYTES];
};

struct eng_pc_index;

int eng_pc_index_new(struct eng_pc_index **ret_index);
void eng_pc_index_free(struct eng_pc_index *ix);
size_t eng_pc_index_count(const struct eng_pc_index *ix);
bool eng_pc_index_has(const struct eng_pc_index *ix, const struct eng_pc_name *name);
/* As the most recently used one. -ENOENT: the page before it is not there; -EEXIST; -ENOMEM. parent all zero: it is
 * the first of its prefix. */
int eng_pc_index_add(struct eng_pc_index *ix, const struct eng_pc_name *name, const struct eng_pc_name *parent);
/* It and those before it were used. */
void eng_pc_index_use(struct eng_pc_index *ix, const struct eng_pc_name *name);
/* Removes the least recently used one; false when there is none, or when it is `keep` (NULL: nothing is kept). */
bool eng_pc_index_pop(struct eng_pc_index *ix, const struct eng_pc_name *keep, struct eng_pc_name *ret_name,
                      struct eng_pc_name *ret_parent);
/* Removes this one and all behind it, the last ones first, telling each. */
void eng_pc_index_remove(struct eng_pc_index *ix, const struct eng_pc_name *name,
                         void (*fn)(void *arg, const struct eng_pc_name *name, const struct eng_pc_name *parent),
                         void *arg);
/* Checks order and links; for tests. */
bool eng_pc_index_is_sound(const struct eng_pc_index *ix);

#endif
