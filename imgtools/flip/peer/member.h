/* Who is there: the members that a membership (membership.h) names, how each of them was lately, and which of them owns
 * what. */
#ifndef FLIP_PEER_MEMBER_H
#define FLIP_PEER_MEMBER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "peer/peer.h"

enum { PEER_MAX_MEMBERS = 1 << 16, PEER_ZONE = 64, PEER_LATENCIES = 64, PEER_NOBODY = UINT32_MAX };

struct peer_named { /* as a membership says it */
	char name[FLIP_PEER_NAME];
	char zone[PEER_ZONE];
};

struct peer_member {
	char name[FLIP_PEER_NAME];
	char zone[PEER_ZONE];
	uint64_t hash, zone_hash; /* of the names */
	bool is_named;            /* by the membership, now */
	int64_t bad_until_us;     /* left out until then */
	unsigned n_bad;           /* times in a row */
	unsigned n_active;        /* questions of ours under way */
	uint64_t n_asked, n_failed, n_garbage, received, sent;
	char why[128]; /* it was left out for, the last time */
};

/* All of it is protected by the caller's lock (the asking side's). Members are never removed, so that numbers stay. */
struct peer_members {
	struct peer_member **items;
	size_t n, cap;
	uint32_t self; /* PEER_NOBODY: we are not among them */
	char self_name[FLIP_PEER_NAME], zone[PEER_ZONE];
	bool has_zones; /* more than one of them */
	size_t n_named;
	uint32_t *table; /* open addressing by name */
	size_t n_table;
	uint32_t latency_us[PEER_LATENCIES]; /* to the first byte, of the last answers, of all members */
	unsigned n_latencies;
};

int peer_members_init(struct peer_members *m, const char *self, const char *zone);
void peer_members_done(struct peer_members *m);
/* Who is there now, all of them. -ENOMEM. */
int peer_members_set(struct peer_members *m, const struct peer_named *named, size_t n);
uint32_t peer_members_find(const struct peer_members *m, const char *name); /* or PEER_NOBODY */

bool peer_member_is_live(const struct peer_member *member, int64_t now_us);
void peer_member_failed(struct peer_member *member, bool is_garbage, int64_t now_us, const char *why);
void peer_member_worked(struct peer_member *member, int64_t now_us);
void peer_members_note_latency(struct peer_members *m, uint32_t us);
/* The 95th of a hundred of those that were noted; 0: too few. */
uint32_t peer_members_slow_us(const struct peer_members *m);

/* ---- Who owns what -------------------------------------------------------------------------------------------- */

uint64_t peer_hash(const void *data, size_t size);
uint64_t peer_group_hash(const char *digest, uint64_t offset);

/* Members in the order in which rendezvous hashing has them for this group: the best `max` that are live and not among
 * those `tried`; ourselves included. In one zone (`zone` not NULL), or of all. */
size_t peer_rank(const struct peer_members *m, uint64_t group, const char *zone, int64_t now_us, const uint32_t *tried,
                 size_t n_tried, uint32_t *ret, size_t max);

#endif
