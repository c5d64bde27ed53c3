/* Names: an arena of chunks, and open addressing with linear probing at a load of at most one half. */
#include "weights/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/chars.h"

enum { CHUNK_BYTES = 64 << 10, FIRST_SLOTS = 64 };

struct eng_arena_chunk {
	struct eng_arena_chunk *next;
	size_t used, size;
	char data[];
};

void eng_arena_done(struct eng_arena *arena)
{
	while (arena->head) {
		struct eng_arena_chunk *next = arena->head->next;

		free(arena->head);
		arena->head = next;
	}
}

char *eng_arena_alloc(struct eng_arena *arena, size_t len)
{
	struct eng_arena_chunk *c = arena->head;
	char *p;

	if (!c || c->size - c->used < len) {
		size_t size = len > CHUNK_BYTES ? len : CHUNK_BYTES;

		if (size > SIZE_MAX - sizeof(*c))
			return NULL;
		c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		*c = (struct eng_arena_chunk){ .next = arena->head, .size = size };
		arena->head = c;
	}
	p = c->data + c->used;
	c->used += len;
	return p;
}

char *eng_arena_copy(struct eng_arena *arena, const char *text, size_t len)
{
	char *p = len < SIZE_MAX ? eng_arena_alloc(arena, len + 1) : NULL;

	if (!p)
		return NULL;
	if (len)
		memcpy(p, text, len);
	p[len] = '\0';
	return p;
}

void eng_names_done(struct eng_names *names)
{
	free(names->slots);
	*names = (struct eng_names){ 0 };
}

static uint32_t hash_name(uint64_t seed, const char *name, size_t len)
{
	uint64_t h = seed ^ len, word;

	for (; len >= 8; name += 8, len -= 8) {
		memcpy(&word, name, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 32;
	}
	word = 0;
	if (len)
		memcpy(&word, name, len);
	h = (h ^ word) * 0x9e3779b97f4a7c15u;
	h ^= h >> 29;
	h *= 0xbf58476d1ce4e5b9u;
	return (uint32_t)(h >> 32);
}

/* The slot that holds the name, or the free one where it belongs. */
static struct eng_name_slot *probe(const struct eng_names *names, uint32_t hash, const char *name, size_t len)
{
	for (size_t i = hash & (names->n_slots - 1);; i = (i + 1) & (names->n_slots - 1)) {
		struct eng_name_slot *s = &names->slots[i];

		if (!s->name || (s->hash == hash && s->len == len && memcmp(s->name, name, len) == 0))
			return s;
	}
}

static int grow(struct eng_names *names)
{
	struct eng_names bigger = { .n = names->n, .seed = names->seed };

	bigger.n_slots = names->n_slots ? names->n_slots * 2 : FIRST_SLOTS;
	bigger.slots = calloc(bigger.n_slots, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	/* Without entropy the table still works; only crafted collisions would be possible. */
	if (!names->n_slots && getrandom(&bigger.seed, sizeof(bigger.seed), GRND_NONBLOCK) < 0)
		bigger.seed = 0;
	for (size_t i = 0; i < names->n_slots; i++) {
		const struct eng_name_slot *s = &names->slots[i];

		if (s->name)
			*probe(&bigger, s->hash, s->name, s->len) = *s;
	}
	free(names->slots);
	*names = bigger;
	return 0;
}

int eng_names_add(struct eng_names *names, const char *name, size_t len, uint32_t value)
{
	struct eng_name_slot *s;
	uint32_t hash;

	if (names->n * 2 >= names->n_slots && grow(names) < 0)
		return -ENOMEM;
	hash = hash_name(names->seed, name, len);
	s = probe(names, hash, name, len);
	if (s->name)
		return -EEXIST;
	*s = (struct eng_name_slot){ .name = name, .len = len, .hash = hash, .value = value };
	names->n++;
	return 0;
}

bool eng_names_find(const struct eng_names *names, const char *name, size_t len, uint32_t *ret_value)
{
	const struct eng_name_slot *s;

	if (!names->n_slots)
		return false;
	s = probe(names, hash_name(names->seed, name, len), name, len);
	if (!s->name)
		return false;
	*ret_value = s->value;
	return true;
}

bool eng_name_is_printable(const char *name, size_t len)
{
	uint32_t cp;
	size_t n;

	for (size_t i = 0; i < len; i += n) {
		n = base_utf8_get(name + i, len - i, &cp);
		if (n == 0 || cp < 0x20 || cp == 0x7f)
			return false;
	}
	return true;
}
