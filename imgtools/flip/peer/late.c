/* Questions that take long, and members that only say so. One that says nothing for stall_ms is ended and its member
 * left out; one that is slow to say the first thing, or to give the next piece, while somebody reads is asked elsewhere
 * too, of those who have it (a hedge: no owner fetches anything for it).
 *
 * A member may say all the time that it waits, or that it is busy. Owners do wait for the registry, and when that is
 * slow all of them do: so the next in rank is asked for one piece of it too (a probe), and when that one has it first,
 * the member is left out. */
#include <string.h>

#include "peer_internal.h"

enum {
	HEDGE_MIN_US = 30000,
	HEDGE_MAX_US = 1000000,
	HEDGE_FIRST_US = 300000,
	HEAD_MAX_US = 10000000,
	PATIENCE_US = 5000000, /* while nothing is known of others */
	PATIENCE_MIN_US = 3000000,
	PROBE_US = 5000000, /* while nothing is known of others */
	PROBE_MIN_US = 3000000,
	PROBE_MAX_US = 8000000,
	BUSY_AGAIN_US = 5000000,  /* who has not said so for as long was not busy all the time */
	BUSY_LIMIT_US = 10000000, /* a layer is being made ready, on a machine with other work */
};

/* How long an answer may go on saying that it waits. Owners wait for the registry: when that is slow, all of them do.
 */
static int64_t patience_us(const struct flip_peers *p)
{
	int64_t us = peer_latencies_slow_us(&p->members.first_piece) * INT64_C(4);

	return us == 0 ? PATIENCE_US : us < PATIENCE_MIN_US ? PATIENCE_MIN_US : us > PEER_PIECE_US ? PEER_PIECE_US : us;
}

/* ---- Whom not to believe ----------------------------------------------------------------------------------------- */

/* Others give what this member was asked for earlier. */
void peer_member_accuse(struct flip_peers *p, uint32_t member, int64_t now)
{
	struct call *c;

	if (now - p->members.items[member]->piece_us < PROBE_MIN_US)
		return; /* it has given something else meanwhile */
	LIST_FOREACH(c, &p->calls, in_calls)
	{
		if (c->member != member || c->has_piece || c->is_canceled || c->is_trial ||
		    now - c->started_us < PROBE_MIN_US)
			continue;
		c->is_canceled = c->is_slow = true;
		p->transport->cancel(p->way, c->id);
	}
}

/* In a herd each member has one question of ours answered in any case, and an owner that cannot yet is one that waits.
 */
bool peer_is_busy_for_ever(const struct call *c, int64_t now)
{
	struct peer_member *m = c->p->members.items[c->member];
	bool others_give = peer_latencies_slow_us(&c->p->members.first_piece) != 0;
	int64_t limit = others_give ? patience_us(c->p) : BUSY_LIMIT_US;

	if (!m->busy_since_us || c->started_us - m->busy_us > BUSY_AGAIN_US)
		m->busy_since_us = c->started_us;
	m->busy_us = now;
	return now - (m->busy_since_us > m->piece_us ? m->busy_since_us : m->piece_us) > limit;
}

/* ---- Elsewhere --------------------------------------------------------------------------------------------------- */

/* Of our zone, if there is one: what crosses between zones is dear. */
static uint32_t another_holder(struct flip_peers *p, const struct call *c, int64_t now)
{
	uint32_t far = PEER_NOBODY;

	for (unsigned i = 0; i < c->blob->n_holders; i++) {
		uint32_t m = c->blob->holders[i];
		const struct peer_member *x = p->members.items[m];

		if (m == c->member || m == p->members.self || !peer_member_is_live(x, now))
			continue;
		if (strcmp(x->zone, p->members.zone) == 0)
			return m;
		far = m;
	}
	return far;
}

static void hedge(struct flip_peers *p, struct call *c, int64_t now)
{
	uint32_t other = another_holder(p, c, now);

	if (other == PEER_NOBODY)
		return;
	for (size_t i = 0; i < c->n; i++) {
		struct piece *x = c->pieces[i];

		if (!x || x->is_over || x->is_hedged || x->is_queued || x->priority != FLIP_FOREGROUND)
			continue;
		x->is_hedged = true;
		atomic_fetch_add(&p->counts.hedges, 1);
		peer_piece_ask(p, x, other, FLIP_PEER_HOLDER);
	}
}

/* What nobody waits for may take longer: who is only slow is not to be taken for dead, for what it was asked for would
 * then leave the origin once more, and make the others slower. */
static int64_t patience(enum flip_priority priority)
{
	return priority >= FLIP_BACKGROUND ? PEER_PATIENCE : 1;
}

void peer_calls_raise(struct flip_peers *p, const char *digest, uint64_t offset, enum flip_priority priority)
{
	struct call *c;

	LIST_FOREACH(c, &p->calls, in_calls)
	{
		size_t at = peer_call_place(c, offset);

		if (c->priority > priority && at < c->n && c->offsets[at] == offset && c->pieces[at] &&
		    strcmp(c->blob->digest, digest) == 0)
			c->priority = priority;
	}
}

/* How long a member may give nothing at all before somebody else is asked whether it must be so. */
static int64_t probe_us(const struct flip_peers *p)
{
	int64_t us = peer_latencies_slow_us(&p->members.first_piece) * INT64_C(2);

	return us == 0 ? PROBE_US : us < PROBE_MIN_US ? PROBE_MIN_US : us > PROBE_MAX_US ? PROBE_MAX_US : us;
}

static void probe(struct flip_peers *p, struct call *c, int64_t now)
{
	uint32_t out[PEER_PROBES + 1] = { c->member };

	memcpy(out + 1, c->probed, c->n_probes * sizeof(*out));
	for (size_t i = 0; i < c->n; i++) {
		struct piece *x = c->pieces[i];
		uint32_t other;

		/* The first piece of it: of all who ask the member for the same it is the same. */
		if (!x || x->is_over || x->is_queued || x->is_resting || x->n_calls != 1)
			continue;
		other = peer_piece_probe(p, x, out, c->n_probes + 1);
		if (other == PEER_NOBODY)
			continue; /* after this member it is ours */
		x->suspect = c->member;
		c->probed[c->n_probes++] = other;
		c->probed_us = now;
		return;
	}
	c->n_probes = PEER_PROBES;
}

/* It gives nothing of what it was asked for, nor anything else. */
static bool is_suspect(const struct flip_peers *p, const struct call *c, int64_t now, int64_t limit)
{
	return c->role != FLIP_PEER_HOLDER && c->has_head && !c->is_trial && !c->has_piece &&
	       c->n_probes < PEER_PROBES && now - c->started_us > limit &&
	       now - p->members.items[c->member]->piece_us > limit && now - c->probed_us > limit;
}

void peer_calls_watch(struct flip_peers *p, int64_t now)
{
	int64_t slow = peer_latencies_slow_us(&p->members.first_byte) * INT64_C(3) / 2, pieces = patience_us(p);
	int64_t slow_piece = peer_latencies_slow_us(&p->members.first_piece) * INT64_C(3) / 2;
	int64_t head = (int64_t)p->o.stall_ms * 1400;
	struct call *c;

	/* To the first word it may take longer: whether we may have it is asked of a registry. And where all are slow,
	 * none of them stalls. */
	head = head > 2 * slow ? head : 2 * slow < HEAD_MAX_US ? 2 * slow : HEAD_MAX_US;
	slow = slow == 0             ? HEDGE_FIRST_US
	       : slow < HEDGE_MIN_US ? HEDGE_MIN_US
	       : slow > HEDGE_MAX_US ? HEDGE_MAX_US
	                             : slow;
	slow_piece = slow_piece && slow_piece < 2 * HEDGE_MIN_US ? 2 * HEDGE_MIN_US : slow_piece;
	LIST_FOREACH(c, &p->calls, in_calls)
	{
		int64_t times = c->is_trial ? 1 : patience(c->priority);

		if (c->is_canceled)
			continue;
		if (now - c->last_us > times * (c->has_head ? (int64_t)p->o.stall_ms * 1000 : head) ||
		    now - c->piece_us > (c->is_trial ? (int64_t)p->o.stall_ms * 1000 : times * pieces)) {
			c->is_canceled = true;
			p->transport->cancel(p->way, c->id);
		} else if (is_suspect(p, c, now, patience(c->priority) * probe_us(p))) {
			probe(p, c, now);
		} else if (c->priority == FLIP_FOREGROUND && !c->is_trial &&
		           ((!c->bytes && now - c->started_us > slow) ||
		            (slow_piece && now - c->piece_us > slow_piece))) {
			hedge(p, c, now);
		}
	}
}
