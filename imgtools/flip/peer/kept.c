/* Two memories of what was served lately, both small and both only hints: pieces as they came from the origin (the
 * store has only what they decode to, which is three times as much on the way), and who was given which group. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer_internal.h"

enum { BUCKETS = 4096, GROUPS = 4096, NAMES = 8 };

struct entry {
	struct entry *next; /* in its bucket */
	TAILQ_ENTRY(entry) in_order;
	uint64_t key, offset;
	char digest[72];
	struct kept_piece *piece;
};

struct group { /* one place for each hash: a later group takes an older one's */
	uint64_t hash;
	unsigned n;
	char names[NAMES][FLIP_PEER_NAME];
};

struct kept {
	pthread_mutex_t lock; /* of all below */
	uint64_t max, bytes;
	struct entry *buckets[BUCKETS];
	TAILQ_HEAD(, entry) order; /* the oldest first */
	struct group *groups[GROUPS];
};

void kept_piece_unref(struct kept_piece *k)
{
	if (k && atomic_fetch_sub(&k->n_refs, 1) == 1)
		free(k);
}

struct kept *kept_new(uint64_t max_bytes)
{
	struct kept *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->max = max_bytes;
	TAILQ_INIT(&k->order);
	(void)pthread_mutex_init(&k->lock, NULL);
	return k;
}

static struct entry **slot_of(struct kept *k, uint64_t key, const char *digest, uint64_t offset)
{
	struct entry **p = &k->buckets[key % BUCKETS];

	while (*p && ((*p)->key != key || (*p)->offset != offset || strcmp((*p)->digest, digest) != 0))
		p = &(*p)->next;
	return p;
}

static void drop(struct kept *k, struct entry *e)
{
	struct entry **p = slot_of(k, e->key, e->digest, e->offset);

	*p = e->next;
	TAILQ_REMOVE(&k->order, e, in_order);
	k->bytes -= e->piece->size;
	kept_piece_unref(e->piece);
	free(e);
}

void kept_free(struct kept *k)
{
	if (!k)
		return;
	while (!TAILQ_EMPTY(&k->order))
		drop(k, TAILQ_FIRST(&k->order));
	for (size_t i = 0; i < GROUPS; i++)
		free(k->groups[i]);
	(void)pthread_mutex_destroy(&k->lock);
	free(k);
}

static uint64_t key_of(const char *digest, uint64_t offset)
{
	return peer_hash(digest, strlen(digest)) ^ peer_hash(&offset, sizeof(offset));
}

void kept_put(struct kept *k, const char *digest, uint64_t offset, const void *data, size_t size)
{
	uint64_t key = key_of(digest, offset);
	struct entry *e, **p;

	if (size > k->max / 4)
		return;
	pthread_mutex_lock(&k->lock);
	e = *slot_of(k, key, digest, offset);
	pthread_mutex_unlock(&k->lock);
	if (e)
		return;
	e = calloc(1, sizeof(*e));
	if (e)
		e->piece = malloc(sizeof(*e->piece) + size);
	if (!e || !e->piece) {
		free(e);
		return;
	}
	atomic_init(&e->piece->n_refs, 1);
	e->piece->size = size;
	memcpy(e->piece->data, data, size);
	e->key = key;
	e->offset = offset;
	(void)snprintf(e->digest, sizeof(e->digest), "%s", digest);
	pthread_mutex_lock(&k->lock);
	p = slot_of(k, key, digest, offset);
	if (*p)
		drop(k, *p);
	while (k->bytes + size > k->max)
		drop(k, TAILQ_FIRST(&k->order));
	p = slot_of(k, key, digest, offset);
	*p = e;
	TAILQ_INSERT_TAIL(&k->order, e, in_order);
	k->bytes += size;
	pthread_mutex_unlock(&k->lock);
}

struct kept_piece *kept_get(struct kept *k, const char *digest, uint64_t offset)
{
	struct kept_piece *piece = NULL;
	struct entry *e;

	pthread_mutex_lock(&k->lock);
	e = *slot_of(k, key_of(digest, offset), digest, offset);
	if (e) {
		piece = e->piece;
		atomic_fetch_add(&piece->n_refs, 1);
	}
	pthread_mutex_unlock(&k->lock);
	return piece;
}

uint64_t kept_bytes(struct kept *k)
{
	uint64_t bytes;

	pthread_mutex_lock(&k->lock);
	bytes = k->bytes;
	pthread_mutex_unlock(&k->lock);
	return bytes;
}

/* ---- Holders ---------------------------------------------------------------------------------------------------- */

void kept_note_holder(struct kept *k, uint64_t hash, const char *name)
{
	struct group *g;

	if (!peer_name_is_valid(name))
		return;
	pthread_mutex_lock(&k->lock);
	g = k->groups[hash % GROUPS];
	if (!g)
		g = k->groups[hash % GROUPS] = calloc(1, sizeof(*g));
	if (g) {
		bool is_known = false;

		if (g->hash != hash)
			g->n = 0;
		g->hash = hash;
		for (unsigned i = 0; i < g->n && i < NAMES; i++)
			is_known = is_known || strcmp(g->names[i], name) == 0;
		if (!is_known)
			(void)snprintf(g->names[g->n++ % NAMES], FLIP_PEER_NAME, "%s", name);
	}
	pthread_mutex_unlock(&k->lock);
}

void kept_holders(struct kept *k, uint64_t hash, const char *asker, struct base_buf *ret)
{
	const struct group *g;

	pthread_mutex_lock(&k->lock);
	g = k->groups[hash % GROUPS];
	for (unsigned i = 0; g && g->hash == hash && i < g->n && i < NAMES; i++) {
		if (strcmp(g->names[i], asker) != 0)
			(void)base_buf_printf(ret, "%s%s", ret->len ? "," : "", g->names[i]);
	}
	pthread_mutex_unlock(&k->lock);
}
