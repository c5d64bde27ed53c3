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
	char fabric[FLIP_PEER_NAME]; /* where it listens for libfabric, "host:port"; "": nowhere */
};

struct peer_member {
	char name[FLIP_PEER_NAME];
	char zone[PEER_ZONE];
	char fabric[FLIP_PEER_NAME];
	uint64_t hash, zone_hash;       /* of the names */
	bool is_named;                  /* by the membership, now */
	int64_t bad_until_us;           /* left out until then */
	bool is_on_trial;               /* was left out: nothing depends on it until it has answered a question */
	unsigned n_bad;                 /* times in a row */
	int64_t piece_us;               /* when it has given us something last */
	int64_t busy_since_us, busy_us; /* that it says so, and has said so last; 0: it did not */
	unsigned n_active;              /* questions of ours under way */
	unsigned n_serving;             /* of theirs */
	uint64_t n_asked, n_failed, n_garbage, received, sent;
	char why[128]; /* it was left out for, the last time */
};

struct peer_latencies { /* of the last answers, of all members */
	uint32_t us[PEER_LATENCIES];
	unsigned n;
};

struct peer_shares { /* of one blob, as far as somebody has asked */
	char digest[72];
	uint64_t version, used; /* of the members; when */
	uint16_t *owners;       /* of groups */
	uint32_t *counts;       /* groups of each member */
	size_t n, cap;
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
	struct peer_latencies first_byte, first_piece;
	struct peer_shares shares[8]; /* of the blobs asked for last */
	uint64_t version, n_uses;     /* version: who is named has changed so often */
	uint64_t named_sum;           /* of their hashes */
};

int peer_members_init(struct peer_members *m, const char *self, const char *zone);
void peer_members_done(struct peer_members *m);
/* Who is there now, all of them. -ENOMEM. */
int peer_members_set(struct peer_members *m, const struct peer_named *named, size_t n);
uint32_t peer_members_find(const struct peer_members *m, const char *name); /* or PEER_NOBODY */

bool peer_member_is_live(const struct peer_member *member, int64_t now_us);
/* No longer left out, and to be tried with a question that others are asked too. */
bool peer_member_awaits_trial(const struct peer_member *member, int64_t now_us);
void peer_member_failed(struct peer_member *member, bool is_garbage, int64_t now_us, const char *why);
void peer_member_worked(struct peer_member *member, int64_t now_us);
/* It has answered as it should: no more on trial. */
void peer_member_answered(struct peer_member *member);

void peer_latencies_note(struct peer_latencies *l, int64_t us);
/* The 95th of a hundred of those that were noted; 0: too few. */
uint32_t peer_latencies_slow_us(const struct peer_latencies *l);

/* ---- Who owns what -------------------------------------------------------------------------------------------- */

uint64_t peer_hash(const void *data, size_t size);
uint64_t peer_group_hash(const char *digest, uint64_t offset);

/* Who of all that are named, live or not, is to own the group at this place of the blob: of the two with the highest
 * weights the one to whom fewer of the groups before it belong, so that nobody has a fifth more to give than others.
 * PEER_NOBODY: the highest weight decides, because members or groups are too many for such a table. */
uint32_t peer_owner(struct peer_members *m, const char *digest, uint64_t offset);

/* Members in the order in which rendezvous hashing has them for this group: the best `max` that are live and not among
 * those `tried`; ourselves included. In one zone (`zone` not NULL), or of all. */
size_t peer_rank(const struct peer_members *m, uint64_t group, const char *zone, int64_t now_us, const uint32_t *tried,
                 size_t n_tried, uint32_t *ret, size_t max);

#endif
