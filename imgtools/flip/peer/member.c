/* See member.h. Rendezvous hashing: each member's weight for a group is a hash of both, the heaviest owns it. A member
 * that comes or goes moves only what it owns, and nobody has to agree with anybody: who has another view asks another
 * member, who then asks the origin; that costs a copy, not an error. */
#include "peer/member.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { BACK_OFF_US = 2000000, GARBAGE_US = 10000000, MAX_DOUBLINGS = 5, FORGIVEN_US = 30000000 };

/* ---- Hashing -------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* FNV-1a, then mixed: short names differ in few bits. */
uint64_t peer_hash(const void *data, size_t size)
{
	const uint8_t *p = data;
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < size; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return mix(h);
}

uint64_t peer_group_hash(const char *digest, uint64_t offset)
{
	return mix(peer_hash(digest, strlen(digest)) + 0x9e3779b97f4a7c15ull * (offset / FLIP_PEER_GROUP + 1));
}

/* ---- The table ------------------------------------------------------------------------------------------------ */

int peer_members_init(struct peer_members *m, const char *self, const char *zone)
{
	*m = (struct peer_members){ .self = PEER_NOBODY };
	(void)snprintf(m->self_name, sizeof(m->self_name), "%s", self);
	(void)snprintf(m->zone, sizeof(m->zone), "%s", zone ? zone : "");
	m->n_table = 256;
	m->table = malloc(m->n_table * sizeof(*m->table));
	if (!m->table)
		return -ENOMEM;
	memset(m->table, 0xff, m->n_table * sizeof(*m->table));
	return 0;
}

void peer_members_done(struct peer_members *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->items[i]);
	for (size_t i = 0; i < sizeof(m->shares) / sizeof(*m->shares); i++) {
		free(m->shares[i].owners);
		free(m->shares[i].counts);
	}
	free(m->items);
	free(m->table);
	*m = (struct peer_members){ 0 };
}

static uint32_t *slot_of(const struct peer_members *m, const char *name)
{
	size_t i = peer_hash(name, strlen(name)) & (m->n_table - 1);

	while (m->table[i] != PEER_NOBODY && strcmp(m->items[m->table[i]]->name, name) != 0)
		i = (i + 1) & (m->n_table - 1);
	return &m->table[i];
}

uint32_t peer_members_find(const struct peer_members *m, const char *name)
{
	return m->n ? *slot_of(m, name) : PEER_NOBODY;
}

static int grow_table(struct peer_members *m)
{
	size_t n = m->n_table * 2;
	uint32_t *table = malloc(n * sizeof(*table));

	if (!table)
		return -ENOMEM;
	memset(table, 0xff, n * sizeof(*table));
	free(m->table);
	m->table = table;
	m->n_table = n;
	for (size_t i = 0; i < m->n; i++)
		*slot_of(m, m->items[i]->name) = (uint32_t)i;
	return 0;
}

static struct peer_member *add(struct peer_members *m, const char *name)
{
	struct peer_member *x;

	if (m->n == PEER_MAX_MEMBERS || (2 * m->n >= m->n_table && grow_table(m) < 0))
		return NULL;
	if (m->n == m->cap) {
		size_t cap = m->cap ? m->cap * 2 : 64;
		struct peer_member **p = reallocarray(m->items, cap, sizeof(*p));

		if (!p)
			return NULL;
		m->items = p;
		m->cap = cap;
	}
	x = calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	(void)snprintf(x->name, sizeof(x->name), "%s", name);
	x->hash = peer_hash(name, strlen(name));
	*slot_of(m, name) = (uint32_t)m->n;
	m->items[m->n++] = x;
	return x;
}

int peer_members_set(struct peer_members *m, const struct peer_named *named, size_t n)
{
	uint64_t sum = 0;
	int r = 0;

	for (size_t i = 0; i < m->n; i++)
		m->items[i]->is_named = false;
	m->n_named = 0;
	m->has_zones = false;
	m->self = PEER_NOBODY;
	for (size_t i = 0; i < n; i++) {
		uint32_t at = peer_members_find(m, named[i].name);
		struct peer_member *x = at == PEER_NOBODY ? add(m, named[i].name) : m->items[at];

		if (!x) {
			r = -ENOMEM;
			continue;
		}
		if (x->is_named)
			continue;
		x->is_named = true;
		m->n_named++;
		sum += x->hash;
		memcpy(x->zone, named[i].zone, sizeof(x->zone));
		memcpy(x->fabric, named[i].fabric, sizeof(x->fabric));
		if (strcmp(x->name, m->self_name) == 0) {
			m->self = peer_members_find(m, x->name);
			(void)snprintf(x->zone, sizeof(x->zone), "%s", m->zone);
		}
		m->has_zones = m->has_zones || (m->zone[0] && strcmp(x->zone, m->zone) != 0);
	}
	if (sum != m->named_sum)
		m->version++;
	m->named_sum = sum;
	return r;
}

/* ---- How they were -------------------------------------------------------------------------------------------- */

bool peer_member_is_live(const struct peer_member *member, int64_t now_us)
{
	return member->is_named && member->bad_until_us <= now_us &&
	       (!member->is_on_trial || now_us - member->bad_until_us > FORGIVEN_US);
}

bool peer_member_awaits_trial(const struct peer_member *member, int64_t now_us)
{
	return member->is_named && member->is_on_trial && member->bad_until_us <= now_us && !member->n_active;
}

void peer_member_failed(struct peer_member *member, bool is_garbage, int64_t now_us, const char *why)
{
	unsigned doublings = member->n_bad < MAX_DOUBLINGS ? member->n_bad : MAX_DOUBLINGS;

	member->n_failed++;
	member->n_garbage += is_garbage;
	if (member->bad_until_us > now_us && !is_garbage)
		return; /* known already: what was under way with it fails together */
	member->n_bad++;
	member->is_on_trial = true;
	member->bad_until_us = now_us + (int64_t)((is_garbage ? GARBAGE_US : BACK_OFF_US) << doublings);
	(void)snprintf(member->why, sizeof(member->why), "%s", why);
	base_log(BASE_LOG_WARN, "peer %s: %s; left out for %d s", member->name, why,
	         (is_garbage ? GARBAGE_US : BACK_OFF_US) / 1000000 << doublings);
}

/* Answers may be taken back: a lie is found out only after its bytes have come. So what it did before is forgotten when
 * it has been good for a while, not with the first answer. */
void peer_member_worked(struct peer_member *member, int64_t now_us)
{
	if (!member->n_bad || now_us - member->bad_until_us < FORGIVEN_US)
		return;
	base_log(BASE_LOG_INFO, "peer %s: is as good as ever", member->name);
	member->n_bad = 0;
}

void peer_member_answered(struct peer_member *member)
{
	member->is_on_trial = false;
}

void peer_latencies_note(struct peer_latencies *l, int64_t us)
{
	l->us[l->n++ % PEER_LATENCIES] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t peer_latencies_slow_us(const struct peer_latencies *l)
{
	uint32_t sorted[PEER_LATENCIES];
	unsigned n = l->n < PEER_LATENCIES ? l->n : PEER_LATENCIES;

	if (n < 8)
		return 0;
	memcpy(sorted, l->us, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_u32);
	return sorted[n * 95 / 100];
}

/* ---- Who owns what -------------------------------------------------------------------------------------------- */

static bool is_among(uint32_t x, const uint32_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (list[i] == x)
			return true;
	}
	return false;
}

size_t peer_rank(const struct peer_members *m, uint64_t group, const char *zone, int64_t now_us, const uint32_t *tried,
                 size_t n_tried, uint32_t *ret, size_t max)
{
	uint64_t weights[16];
	size_t n = 0;

	max = max < 16 ? max : 16;
	for (size_t i = 0; i < m->n; i++) {
		const struct peer_member *x = m->items[i];
		uint64_t w;
		size_t at;

		if ((i != m->self && !peer_member_is_live(x, now_us)) || !x->is_named ||
		    (zone && strcmp(x->zone, zone) != 0) || is_among((uint32_t)i, tried, n_tried))
			continue;
		w = mix(x->hash ^ group);
		for (at = n; at > 0 && weights[at - 1] < w; at--)
			;
		if (at >= max)
			continue;
		n = n < max ? n + 1 : n;
		memmove(&weights[at + 1], &weights[at], (n - 1 - at) * sizeof(*weights));
		memmove(&ret[at + 1], &ret[at], (n - 1 - at) * sizeof(*ret));
		weights[at] = w;
		ret[at] = (uint32_t)i;
	}
	return n;
}

/* ---- Shares ----------------------------------------------------------------------------------------------------- */

enum { MAX_SHARED = 256, MAX_GROUPS = 1 << 17 };

static struct peer_shares *shares_of(struct peer_members *m, const char *digest)
{
	struct peer_shares *s = &m->shares[0];
	size_t cap;

	for (size_t i = 0; i < sizeof(m->shares) / sizeof(*m->shares); i++) {
		if (strcmp(m->shares[i].digest, digest) == 0) {
			s = &m->shares[i];
			break;
		}
		s = m->shares[i].used < s->used ? &m->shares[i] : s;
	}
	s->used = ++m->n_uses;
	if (strcmp(s->digest, digest) == 0 && s->version == m->version && s->counts)
		return s;
	(void)snprintf(s->digest, sizeof(s->digest), "%s", digest);
	s->version = m->version;
	s->n = 0;
	cap = m->n;
	free(s->counts);
	s->counts = calloc(cap ? cap : 1, sizeof(*s->counts));
	return s->counts ? s : NULL;
}

static uint32_t next_owner(const struct peer_members *m, const struct peer_shares *s, uint64_t group)
{
	uint32_t best[2] = { PEER_NOBODY, PEER_NOBODY };
	uint64_t weights[2] = { 0, 0 };

	for (size_t i = 0; i < m->n; i++) {
		uint64_t w = mix(m->items[i]->hash ^ group);

		if (!m->items[i]->is_named)
			continue;
		if (best[0] == PEER_NOBODY || w > weights[0]) {
			best[1] = best[0];
			weights[1] = weights[0];
			best[0] = (uint32_t)i;
			weights[0] = w;
		} else if (best[1] == PEER_NOBODY || w > weights[1]) {
			best[1] = (uint32_t)i;
			weights[1] = w;
		}
	}
	return best[1] != PEER_NOBODY && s->counts[best[1]] < s->counts[best[0]] ? best[1] : best[0];
}

uint32_t peer_owner(struct peer_members *m, const char *digest, uint64_t offset)
{
	uint64_t group = offset / FLIP_PEER_GROUP;
	struct peer_shares *s;

	if (m->n_named < 2 || m->n_named > MAX_SHARED || m->n > UINT16_MAX || group >= MAX_GROUPS ||
	    !(s = shares_of(m, digest)))
		return PEER_NOBODY;
	if (group >= s->cap) {
		size_t cap = s->cap ? s->cap : 512;
		uint16_t *p;

		while (cap <= group)
			cap *= 2;
		p = reallocarray(s->owners, cap, sizeof(*p));
		if (!p)
			return PEER_NOBODY;
		s->owners = p;
		s->cap = cap;
	}
	for (; s->n <= group; s->n++) {
		uint32_t owner = next_owner(m, s, peer_group_hash(digest, s->n * (uint64_t)FLIP_PEER_GROUP));

		s->counts[owner]++;
		s->owners[s->n] = (uint16_t)owner;
	}
	return s->owners[group];
}
