/* What both readers keep names in: memory for the strings, and a hash table from name to number. */
#ifndef ENG_WEIGHTS_NAMES_H
#define ENG_WEIGHTS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Memory that is only ever freed as a whole. */
struct eng_arena {
	struct eng_arena_chunk *head;
};

void eng_arena_done(struct eng_arena *arena);
/* Unaligned bytes; NULL when there is no memory. */
char *eng_arena_alloc(struct eng_arena *arena, size_t len);
/* A NUL-terminated copy. */
char *eng_arena_copy(struct eng_arena *arena, const char *text, size_t len);

struct eng_name_slot {
	const char *name; /* borrowed; NULL: free */
	size_t len;
	uint32_t hash, value;
};

/* Zero-initialized is empty. */
struct eng_names {
	struct eng_name_slot *slots;
	size_t n, n_slots; /* n_slots is a power of two, or 0 */
	uint64_t seed;     /* so that a file cannot be written to collide */
};

void eng_names_done(struct eng_names *names);
/* -EEXIST when the name is there already. The name must outlive the table. */
int eng_names_add(struct eng_names *names, const char *name, size_t len, uint32_t value);
bool eng_names_find(const struct eng_names *names, const char *name, size_t len, uint32_t *ret_value);

/* Valid UTF-8 without control characters: fit for a message and a log line. */
bool eng_name_is_printable(const char *name, size_t len);

#endif
