/* Spelling to id by open addressing, id to spelling by an array into one pool; and the sorted list that
 * stands in for a trie.
 *
 * A vocabulary has 30,000 to 260,000 entries and is read once, so what counts is few allocations (one pool)
 * and few cache misses (hash and id side by side; the bytes are compared only when the hashes agree). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tok_internal.h"

int tok_grow(void *array_ptr, size_t *cap, size_t n, size_t elem_size)
{
	void **array = array_ptr;
	size_t want = *cap;
	void *p;

	if (n <= *cap)
		return 0;
	if (want > SIZE_MAX / 2 / elem_size)
		return -ENOMEM;
	want += want / 2 + 16;
	if (want < n)
		want = n;
	p = reallocarray(*array, want, elem_size);
	if (!p)
		return -ENOMEM;
	*array = p;
	*cap = want;
	return 0;
}

/* Eight bytes at a time, multiplied and folded; the tail is read as one partial word. */
static uint32_t hash_bytes(const char *p, size_t n)
{
	uint64_t h = n * UINT64_C(0x9e3779b97f4a7c15), w;

	while (n >= 8) {
		memcpy(&w, p, 8);
		h = (h ^ w) * UINT64_C(0xff51afd7ed558ccd);
		h ^= h >> 32;
		p += 8;
		n -= 8;
	}
	w = 0;
	for (size_t i = 0; i < n; i++)
		w |= (uint64_t)(unsigned char)p[i] << 8 * i;
	h = (h ^ w) * UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 29;
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	return (uint32_t)(h >> 32);
}

void tok_vocab_done(struct tok_vocab *v)
{
	free(v->pool);
	free(v->by_id);
	free(v->slots);
	*v = (struct tok_vocab){ 0 };
}

static int rehash(struct tok_vocab *v, uint32_t n_slots)
{
	struct tok_slot *slots = calloc(n_slots, sizeof(*slots));
	uint32_t mask = n_slots - 1, at;

	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; v->slots && i <= v->mask; i++) {
		if (!v->slots[i].id1)
			continue;
		at = v->slots[i].hash & mask;
		while (slots[at].id1)
			at = (at + 1) & mask;
		slots[at] = v->slots[i];
	}
	free(v->slots);
	v->slots = slots;
	v->mask = mask;
	return 0;
}

int tok_vocab_reserve(struct tok_vocab *v, uint32_t n_entries, size_t n_bytes)
{
	uint32_t n_slots = 64;
	int r;

	if (n_entries > TOK_MAX_IDS)
		n_entries = TOK_MAX_IDS;
	while (n_slots / 4 * 3 <= n_entries)
		n_slots *= 2;
	if (!v->slots || n_slots > v->mask + 1) {
		r = rehash(v, n_slots);
		if (r < 0)
			return r;
	}
	return tok_grow(&v->pool, &v->pool_cap, n_bytes, 1);
}

/* The slot of this spelling, or the empty one where it belongs. */
static struct tok_slot *slot_of(const struct tok_vocab *v, const char *p, size_t n, uint32_t hash)
{
	uint32_t at = hash & v->mask;
	const struct tok_str *s;

	for (; v->slots[at].id1; at = (at + 1) & v->mask) {
		if (v->slots[at].hash != hash)
			continue;
		s = &v->by_id[v->slots[at].id1 - 1];
		if (s->len == n && memcmp(v->pool + s->off, p, n) == 0)
			break;
	}
	return &v->slots[at];
}

static int grow_ids(struct tok_vocab *v, uint32_t id)
{
	size_t cap = v->cap_ids;
	int r;

	r = tok_grow(&v->by_id, &cap, (size_t)id + 1, sizeof(*v->by_id));
	if (r < 0)
		return r;
	v->cap_ids = (uint32_t)cap;
	for (; v->n_ids <= id; v->n_ids++)
		v->by_id[v->n_ids] = (struct tok_str){ 0, UINT32_MAX };
	return 0;
}

int tok_vocab_add(struct tok_vocab *v, const char *p, size_t n, uint32_t id)
{
	struct tok_slot *slot;
	uint32_t hash;
	int r;

	if (id >= TOK_MAX_IDS || n > TOK_MAX_PIECE_BYTES || v->pool_len + n > UINT32_MAX)
		return -ERANGE;
	if (id < v->n_ids && v->by_id[id].len != UINT32_MAX)
		return -EEXIST;
	if (!v->slots || v->n_used >= v->mask / 4 * 3) {
		r = rehash(v, v->slots ? (v->mask + 1) * 2 : 64);
		if (r < 0)
			return r;
	}
	r = id >= v->n_ids ? grow_ids(v, id) : 0;
	if (r == 0)
		r = tok_grow(&v->pool, &v->pool_cap, v->pool_len + n, 1);
	if (r < 0)
		return r;
	hash = hash_bytes(p, n);
	slot = slot_of(v, p, n, hash);
	r = slot->id1 != 0;
	if (n)
		memcpy(v->pool + v->pool_len, p, n);
	v->by_id[id] = (struct tok_str){ (uint32_t)v->pool_len, (uint32_t)n };
	v->pool_len += n;
	v->n_used += !r;
	if (n > v->max_len)
		v->max_len = (uint32_t)n;
	*slot = (struct tok_slot){ hash, id + 1 };
	return r;
}

int32_t tok_vocab_find(const struct tok_vocab *v, const char *p, size_t n)
{
	if (!v->slots)
		return -1;
	return (int32_t)slot_of(v, p, n, hash_bytes(p, n))->id1 - 1;
}

const char *tok_vocab_get(const struct tok_vocab *v, int32_t id, size_t *ret_len)
{
	if (id < 0 || (uint32_t)id >= v->n_ids || v->by_id[id].len == UINT32_MAX)
		return NULL;
	*ret_len = v->by_id[id].len;
	return v->pool + v->by_id[id].off;
}

/* ---- the sorted list ------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
	const struct tok_prefix_entry *x = a, *y = b;
	int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);

	if (c)
		return c;
	if (x->n != y->n)
		return x->n < y->n ? -1 : 1;
	return x->value < y->value ? -1 : x->value > y->value;
}

int tok_prefixes_build(struct tok_prefixes *t, struct tok_prefix_entry *entries, size_t n)
{
	size_t kept = 0, b = 0;

	if (n > UINT32_MAX / 2) {
		free(entries);
		return -EFBIG;
	}
	if (n)
		qsort(entries, n, sizeof(*entries), compare_entries);
	for (size_t i = 0; i < n; i++) {
		if (!entries[i].n)
			continue; /* the empty spelling matches nowhere */
		if (kept && entries[kept - 1].n == entries[i].n &&
		    memcmp(entries[kept - 1].p, entries[i].p, entries[i].n) == 0)
			kept--; /* sorted by value: the later one is higher */
		entries[kept++] = entries[i];
	}
	t->entries = entries;
	t->n = (uint32_t)kept;
	for (uint32_t i = 0; i < t->n; i++) {
		while (b <= (unsigned char)entries[i].p[0])
			t->first[b++] = i;
	}
	while (b <= 256)
		t->first[b++] = t->n;
	return 0;
}

void tok_prefixes_done(struct tok_prefixes *t)
{
	free(t->entries);
	*t = (struct tok_prefixes){ 0 };
}

void tok_prefix_start(const struct tok_prefixes *t, struct tok_prefix_walk *w)
{
	*w = (struct tok_prefix_walk){ 0, t->n, 0 };
}

/* First entry of [lo, hi) whose byte at depth is >= byte; all of them are longer than depth. */
static uint32_t lower_bound(const struct tok_prefixes *t, uint32_t lo, uint32_t hi, size_t depth, unsigned byte)
{
	uint32_t mid;

	while (lo < hi) {
		mid = lo + (hi - lo) / 2;
		if ((unsigned char)t->entries[mid].p[depth] < byte)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool tok_prefix_step(const struct tok_prefixes *t, struct tok_prefix_walk *w, uint8_t byte, int64_t *ret_value)
{
	*ret_value = -1;
	if (!t->entries)
		return false;
	if (w->depth == 0) {
		w->lo = t->first[byte];
		w->hi = t->first[byte + 1];
	} else {
		if (w->lo < w->hi && t->entries[w->lo].n == w->depth)
			w->lo++; /* the one that ended here sorts first */
		w->lo = lower_bound(t, w->lo, w->hi, w->depth, byte);
		w->hi = lower_bound(t, w->lo, w->hi, w->depth, byte + 1u);
	}
	if (w->lo >= w->hi)
		return false;
	w->depth++;
	if (t->entries[w->lo].n == w->depth)
		*ret_value = t->entries[w->lo].value;
	return true;
}
