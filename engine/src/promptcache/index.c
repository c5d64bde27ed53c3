/* Entries in one array, found by a hash table of chains (names are digests: their first bytes are the hash), in a
 * doubly linked list by last use. The front is the newest. Use of an entry moves it to the front, then the one
 * before it in its prefix, and so on: each is in front of all that need it, so the end of the list is a leaf. */
#include "promptcache/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NONE = UINT32_MAX, FIRST_CAP = 256 };

struct entry {
	struct eng_pc_name name;
	uint32_t parent;
	uint32_t chain;        /* next in the hash chain, or the next free entry */
	uint32_t newer, older; /* list of uses */
	uint32_t n_children;
	bool is_used; /* not on the free list */
};

struct eng_pc_index {
	struct entry *entries;
	uint32_t *buckets;
	uint32_t cap; /* entries and buckets, a power of two */
	uint32_t n, free;
	uint32_t newest, oldest;
};

static bool is_root(const struct eng_pc_name *name)
{
	static const struct eng_pc_name zero;

	return memcmp(name, &zero, sizeof(zero)) == 0;
}

static uint32_t *bucket_of(const struct eng_pc_index *ix, const struct eng_pc_name *name)
{
	uint32_t h;

	memcpy(&h, name->b, sizeof(h));
	return &ix->buckets[h & (ix->cap - 1)];
}

static uint32_t find(const struct eng_pc_index *ix, const struct eng_pc_name *name)
{
	uint32_t at = *bucket_of(ix, name);

	while (at != NONE && memcmp(&ix->entries[at].name, name, sizeof(*name)) != 0)
		at = ix->entries[at].chain;
	return at;
}

/* Doubles the room; entries keep their numbers. */
static int grow(struct eng_pc_index *ix)
{
	uint32_t cap = ix->cap ? ix->cap * 2 : FIRST_CAP;
	struct entry *entries;
	uint32_t *buckets;

	if (cap > 1u << 30)
		return -ENOMEM;
	entries = realloc(ix->entries, cap * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	ix->entries = entries;
	buckets = realloc(ix->buckets, cap * sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	ix->buckets = buckets;
	for (uint32_t i = ix->cap; i < cap; i++)
		entries[i] = (struct entry){ .chain = i + 1 < cap ? i + 1 : ix->free };
	ix->free = ix->cap;
	ix->cap = cap;
	memset(buckets, 0xff, cap * sizeof(*buckets));
	for (uint32_t i = 0; i < cap; i++) {
		uint32_t *bucket = bucket_of(ix, &entries[i].name);

		if (!entries[i].is_used)
			continue;
		entries[i].chain = *bucket;
		*bucket = i;
	}
	return 0;
}

int eng_pc_index_new(struct eng_pc_index **ret_index)
{
	struct eng_pc_index *ix = calloc(1, sizeof(*ix));

	if (!ix)
		return -ENOMEM;
	ix->free = ix->newest = ix->oldest = NONE;
	if (grow(ix) < 0) {
		eng_pc_index_free(ix);
		return -ENOMEM;
	}
	*ret_index = ix;
	return 0;
}

void eng_pc_index_free(struct eng_pc_index *ix)
{
	if (!ix)
		return;
	free(ix->entries);
	free(ix->buckets);
	free(ix);
}

size_t eng_pc_index_count(const struct eng_pc_index *ix)
{
	return ix->n;
}

bool eng_pc_index_has(const struct eng_pc_index *ix, const struct eng_pc_name *name)
{
	return find(ix, name) != NONE;
}

/* ---- The list of uses ---- */

static void list_remove(struct eng_pc_index *ix, uint32_t at)
{
	struct entry *e = &ix->entries[at];

	*(e->newer != NONE ? &ix->entries[e->newer].older : &ix->newest) = e->older;
	*(e->older != NONE ? &ix->entries[e->older].newer : &ix->oldest) = e->newer;
}

static void list_push(struct eng_pc_index *ix, uint32_t at)
{
	struct entry *e = &ix->entries[at];

	e->newer = NONE;
	e->older = ix->newest;
	*(ix->newest != NONE ? &ix->entries[ix->newest].newer : &ix->oldest) = at;
	ix->newest = at;
}

static void use(struct eng_pc_index *ix, uint32_t at)
{
	for (; at != NONE; at = ix->entries[at].parent) {
		list_remove(ix, at);
		list_push(ix, at);
	}
}

void eng_pc_index_use(struct eng_pc_index *ix, const struct eng_pc_name *name)
{
	use(ix, find(ix, name));
}

/* ---- In and out ---- */

int eng_pc_index_add(struct eng_pc_index *ix, const struct eng_pc_name *name, const struct eng_pc_name *parent)
{
	uint32_t up = is_root(parent) ? NONE : find(ix, parent), at;
	struct entry *e;

	if (find(ix, name) != NONE)
		return -EEXIST;
	if (up == NONE && !is_root(parent))
		return -ENOENT;
	if (ix->free == NONE && grow(ix) < 0)
		return -ENOMEM;
	at = ix->free;
	e = &ix->entries[at];
	ix->free = e->chain;
	*e = (struct entry){ .name = *name, .parent = up, .chain = *bucket_of(ix, name), .is_used = true };
	*bucket_of(ix, name) = at;
	if (up != NONE)
		ix->entries[up].n_children++;
	ix->n++;
	list_push(ix, at);
	use(ix, at);
	return 0;
}

static void drop(struct eng_pc_index *ix, uint32_t at, struct eng_pc_name *ret_name, struct eng_pc_name *ret_parent)
{
	struct entry *e = &ix->entries[at];
	uint32_t *link = bucket_of(ix, &e->name);

	while (*link != at)
		link = &ix->entries[*link].chain;
	*link = e->chain;
	list_remove(ix, at);
	*ret_name = e->name;
	memset(ret_parent, 0, sizeof(*ret_parent));
	if (e->parent != NONE) {
		*ret_parent = ix->entries[e->parent].name;
		ix->entries[e->parent].n_children--;
	}
	e->is_used = false;
	e->chain = ix->free;
	ix->free = at;
	ix->n--;
}

bool eng_pc_index_pop(struct eng_pc_index *ix, const struct eng_pc_name *keep, struct eng_pc_name *ret_name,
                      struct eng_pc_name *ret_parent)
{
	if (ix->oldest == NONE || (keep && memcmp(&ix->entries[ix->oldest].name, keep, sizeof(*keep)) == 0))
		return false;
	drop(ix, ix->oldest, ret_name, ret_parent);
	return true;
}

static bool is_behind(const struct eng_pc_index *ix, uint32_t at, uint32_t root)
{
	while (at != NONE && at != root)
		at = ix->entries[at].parent;
	return at == root;
}

void eng_pc_index_remove(struct eng_pc_index *ix, const struct eng_pc_name *name,
                         void (*fn)(void *arg, const struct eng_pc_name *name, const struct eng_pc_name *parent),
                         void *arg)
{
	uint32_t root = find(ix, name);
	struct eng_pc_name gone, parent;

	if (root == NONE)
		return;
	/* From the oldest on: what is behind an entry is older than it, and so goes before it. */
	for (uint32_t at = ix->oldest, next; at != NONE; at = next) {
		next = ix->entries[at].newer;
		if (!is_behind(ix, at, root))
			continue;
		drop(ix, at, &gone, &parent);
		fn(arg, &gone, &parent);
	}
}

bool eng_pc_index_is_sound(const struct eng_pc_index *ix)
{
	uint32_t n = 0, n_children = 0, n_with_parent = 0;
	uint32_t *rank = calloc(ix->cap, sizeof(*rank));
	bool ok = rank != NULL;

	for (uint32_t at = ix->newest; ok && at != NONE; at = ix->entries[at].older) {
		const struct entry *e = &ix->entries[at];

		rank[at] = ++n;
		ok = e->is_used && find(ix, &e->name) == at && n <= ix->n;
		n_children += e->n_children;
		n_with_parent += e->parent != NONE;
		/* Who is needed came first. */
		ok = ok && (e->parent == NONE || rank[e->parent] != 0);
	}
	free(rank);
	return ok && n == ix->n && n_children == n_with_parent;
}
