/* One question on its way. Its frames are told as they come; what is left when it ends goes on to the next who may have
 * it. How long it may take: late.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <zstd.h>

#include "base/log.h"
#include "peer_internal.h"

enum { BUSY_US = 100000 };

/* ---- Headers ---------------------------------------------------------------------------------------------------- */

void peer_headers_free(char **headers)
{
	for (size_t i = 0; headers && headers[i]; i++)
		free(headers[i]);
	free(headers);
}

static int add(char **headers, size_t *n, const char *name, const char *value)
{
	if (!value || !*value)
		return 0;
	if (asprintf(&headers[*n], "%s: %s", name, value) < 0) {
		headers[*n] = NULL;
		return -ENOMEM;
	}
	(*n)++;
	return 0;
}

char **peer_question_headers(const struct flip_peers *p, const struct peer_question *q)
{
	char **h = calloc(16, sizeof(*h)), auth[PEER_AUTH_SIZE] = "", priority[2] = { (char)('0' + q->priority), 0 };
	const char *parts[] = { q->path,
		                q->range ? q->range : "",
		                q->image ? q->image : "",
		                q->grant ? q->grant : "",
		                q->role ? q->role : "",
		                p->name };
	size_t n = 0;
	int r = h ? 0 : -ENOMEM;

	if (r == 0 && p->token)
		r = peer_auth_sign(p->token, parts, sizeof(parts) / sizeof(*parts), (int64_t)time(NULL), auth);
	if (r == 0 && (add(h, &n, "Range", q->range) < 0 || add(h, &n, "Flip-Peer", p->name) < 0 ||
	               add(h, &n, "Flip-Image", q->image) < 0 || add(h, &n, "Flip-Grant", q->grant) < 0 ||
	               add(h, &n, "Flip-Role", q->role) < 0 || add(h, &n, "Flip-Priority", priority) < 0 ||
	               add(h, &n, "Flip-Trace", q->trace) < 0 || add(h, &n, "Flip-Accept", "zstd") < 0 ||
	               add(h, &n, "Flip-Auth", auth) < 0))
		r = -ENOMEM;
	if (r < 0) {
		peer_headers_free(h);
		return NULL;
	}
	return h;
}

/* ---- Frames ----------------------------------------------------------------------------------------------------- */

static int compare_pieces(const void *a, const void *b)
{
	const struct piece *x = *(struct piece *const *)a, *y = *(struct piece *const *)b;

	if (x->what.offset != y->what.offset)
		return x->what.offset < y->what.offset ? -1 : 1;
	return x->what.inner < y->what.inner ? -1 : x->what.inner > y->what.inner;
}

/* The first piece at this place of the blob. */
size_t peer_call_place(const struct call *c, uint64_t offset)
{
	size_t lo = 0, hi = c->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (c->offsets[mid] < offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int garbage(struct call *c, const char *why)
{
	c->is_garbage = true;
	(void)snprintf(c->why, sizeof(c->why), "%s", why);
	return -EBADMSG;
}

/* Tells a piece its bytes, with the lock let go: the piece stays ours by the question's count of its batch. */
static void tell(struct call *c, size_t at, const struct flip_peer_bytes *bytes)
{
	struct flip_peers *p = c->p;
	struct piece *x = c->pieces[at];
	struct batch *b = x->batch;
	bool is_first = !x->is_over;

	c->pieces[at] = NULL;
	c->n_left--;
	x->n_calls -= !c->is_trial;
	c->piece_us = peer_now_us();
	if (!c->has_piece && !c->is_trial)
		peer_latencies_note(&p->members.first_piece, c->piece_us - c->started_us);
	c->has_piece = true;
	p->members.items[c->member]->piece_us = c->piece_us;
	peer_member_answered(p->members.items[c->member]);
	if (is_first && x->suspect != PEER_NOBODY && x->suspect != c->member)
		peer_member_accuse(p, x->suspect, c->piece_us);
	if (is_first) {
		peer_piece_over(p, x, 0);
		atomic_fetch_add(&p->counts.pieces_got, 1);
		if (c->is_hedge)
			atomic_fetch_add(&p->counts.hedge_wins, 1);
		pthread_mutex_unlock(&p->lock);
		b->done(b->arg, (size_t)(x - b->pieces), 0, bytes);
		pthread_mutex_lock(&p->lock);
	}
	peer_batch_unref(p, b);
}

static int take_packed(struct call *c, const struct peer_frame *f, const void *data)
{
	struct flip_peer_bytes bytes = { FLIP_PEER_PACKED, data, f->size, c->member };

	for (size_t i = peer_call_place(c, f->offset); i < c->n && c->offsets[i] == f->offset; i++) {
		if (!c->pieces[i])
			continue;
		if (c->pieces[i]->what.size != f->size)
			return garbage(c, "sent a piece of another size");
		tell(c, i, &bytes);
	}
	return 0;
}

static int take_plain(struct call *c, const struct peer_frame *f, const void *data)
{
	struct flip_peer_bytes bytes = { FLIP_PEER_PLAIN, data, f->size, c->member };
	void *plain = NULL;

	if (f->form == PEER_FRAME_ZSTD) {
		unsigned long long size = ZSTD_getFrameContentSize(data, f->size);

		if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size == 0 ||
		    size > FLIP_PEER_MAX_PIECE)
			return garbage(c, "sent a chunk that does not tell its size");
		plain = malloc((size_t)size);
		if (!plain)
			return -ENOMEM;
		if (ZSTD_decompress(plain, (size_t)size, data, f->size) != size) {
			free(plain);
			return garbage(c, "sent a chunk that cannot be decompressed");
		}
		bytes.data = plain;
		bytes.size = (size_t)size;
	}
	for (size_t i = peer_call_place(c, f->offset); i < c->n && c->offsets[i] == f->offset; i++) {
		if (c->pieces[i] && c->pieces[i]->what.inner == f->inner)
			tell(c, i, &bytes);
	}
	free(plain);
	return 0;
}

/* Whom it was asked of in vain. A holder that an owner has named, or that was to be quicker, is no owner: the owner is
 * asked again, not the next in rank. */
static uint32_t tried_by(const struct call *c, const struct piece *x)
{
	return c->role == FLIP_PEER_HOLDER && x->most != FLIP_PEER_HOLDER ? PEER_NOBODY : c->member;
}

/* It will not come from there: on to the next. */
static void take_missing(struct call *c, const struct peer_frame *f)
{
	for (size_t i = peer_call_place(c, f->offset); i < c->n && c->offsets[i] == f->offset; i++) {
		struct piece *x = c->pieces[i];

		if (!x || x->what.inner != f->inner)
			continue;
		c->pieces[i] = NULL;
		c->n_left--;
		x->n_calls -= !c->is_trial;
		if (!c->is_trial)
			peer_piece_next(c->p, x, tried_by(c, x));
		peer_batch_unref(c->p, x->batch);
	}
}

static int on_frame(void *arg, const struct peer_frame *f, const void *data)
{
	struct call *c = arg;

	switch (f->form) {
	case PEER_FRAME_PACKED:
		peer_blob_has(c->blob, c->member);
		return take_packed(c, f, data);
	case PEER_FRAME_PLAIN:
	case PEER_FRAME_ZSTD:
		peer_blob_has(c->blob, c->member);
		return take_plain(c, f, data);
	case PEER_FRAME_MISSING:
		take_missing(c, f);
		return 0;
	case PEER_FRAME_WAITING:
	case PEER_FRAME_END:
		break;
	}
	return 0;
}

/* ---- What the transport tells ----------------------------------------------------------------------------------- */

static int on_head(void *arg, const struct peer_head *head)
{
	struct call *c = arg;

	pthread_mutex_lock(&c->p->lock);
	c->head = *head;
	c->has_head = true;
	c->first_us = c->last_us = peer_now_us();
	if (head->status == 200) {
		peer_latencies_note(&c->p->members.first_byte, c->first_us - c->started_us);
		c->p->members.items[c->member]->busy_since_us = 0;
	} else if (head->status < 500) {
		peer_member_answered(c->p->members.items[c->member]);
	}
	pthread_mutex_unlock(&c->p->lock);
	return 0;
}

static int on_data(void *arg, const void *data, size_t size)
{
	struct call *c = arg;
	struct flip_peers *p = c->p;
	int r;

	(void)peer_bucket_take(&p->down, size, FLIP_FOREGROUND);
	atomic_fetch_add(&p->counts.received, size);
	pthread_mutex_lock(&p->lock);
	c->last_us = peer_now_us();
	c->bytes += size;
	p->members.items[c->member]->received += size;
	r = peer_stream_take(&c->stream, data, size, on_frame, c);
	if (r == -EBADMSG && !c->is_garbage)
		(void)garbage(c, "sent frames that are none");
	peer_pump(p);
	peer_unlock_and_tell(p);
	return r;
}

/* What did not come leaves the question: `next` says where to, unless somebody else is asked for it already. */
static void leave_all(struct call *c, void (*next)(struct call *c, struct piece *x, void *arg), void *arg)
{
	for (size_t i = 0; i < c->n; i++) {
		struct piece *x = c->pieces[i];

		if (!x)
			continue;
		c->pieces[i] = NULL;
		x->n_calls -= !c->is_trial;
		if (!c->is_trial && !x->is_over && !x->n_calls && !x->is_queued && !x->is_resting)
			next(c, x, arg);
		peer_batch_unref(c->p, x->batch);
	}
}

struct holders { /* that somebody who is busy has named */
	uint32_t members[PEER_HOLDERS];
	unsigned n, turn;
	int64_t now;
};

/* In a herd holders are busy too: two of them are tried, then it waits, longer each time. */
static void to_holder(struct call *c, struct piece *x, void *arg)
{
	const struct holders *h = arg;
	unsigned round = x->n_hops++ / 3;

	if (h->n && x->n_hops % 3 != 0)
		peer_piece_ask(c->p, x, h->members[h->turn % h->n], FLIP_PEER_HOLDER);
	else
		peer_piece_rest(c->p, x,
		                h->now + (BUSY_US << (round < 4 ? round : 4)) + (int64_t)(h->turn % 100) * 1000);
}

/* What is left of it, after an answer that was no list of pieces. */
static void send_on(struct call *c, int64_t now)
{
	struct flip_peers *p = c->p;
	struct holders h = { .turn = (unsigned)(now / 1000), .now = now };
	const char *next = c->head.holders;
	char name[FLIP_PEER_NAME];

	while (h.n < PEER_HOLDERS && peer_name_next(&next, name) > 0) {
		uint32_t m = peer_members_find(&p->members, name);

		if (m != PEER_NOBODY && m != p->members.self && peer_member_is_live(p->members.items[m], now) &&
		    !peer_blob_is_lacked(c->blob, m, now))
			h.members[h.n++] = m;
	}
	leave_all(c, to_holder, &h);
}

static void to_next(struct call *c, struct piece *x, void *arg)
{
	(void)arg;
	peer_piece_next(c->p, x, tried_by(c, x));
}

static void judge(struct call *c, int r, const char *words, int64_t now)
{
	struct flip_peers *p = c->p;
	struct peer_member *m = p->members.items[c->member];
	char why[256];

	if (p->is_stopping)
		return;
	if (c->is_garbage) {
		atomic_fetch_add(&p->counts.garbage, 1);
		peer_member_failed(m, true, now, c->why);
	} else if (c->is_canceled) {
		peer_member_failed(m, false, now,
		                   c->is_slow    ? "says that it waits for what others give"
		                   : c->has_head ? "stalls"
		                                 : "does not answer");
	} else if (r < 0) {
		(void)snprintf(why, sizeof(why), "%s", words ? words : strerror(-r));
		peer_member_failed(m, false, now, why);
	} else if (c->head.status == 200 && !c->stream.has_ended) {
		peer_member_failed(m, false, now, "an answer was cut");
	} else if (c->head.status == 401 || c->head.status == 400 || (c->head.status >= 500 && c->head.status != 503)) {
		(void)snprintf(why, sizeof(why), "answers with status %d%s%s", c->head.status,
		               c->head.words[0] ? ": " : "", c->head.words);
		peer_member_failed(m, false, now, why);
	} else if (c->head.status == 404 || c->head.status == 403) {
		peer_blob_lacks(c->blob, c->member, now);
	} else if (c->head.status == 503 && (c->is_trial || peer_is_busy_for_ever(c, now))) {
		peer_member_failed(m, false, now, "is busy all the time");
		m->busy_since_us = 0;
	} else if (c->head.status == 200) {
		peer_member_answered(m);
		peer_member_worked(m, now);
	}
}

static void call_free(struct call *c)
{
	peer_stream_done(&c->stream);
	free(c->pieces);
	free(c->offsets);
	free(c);
}

static void on_end(void *arg, int r, const char *why)
{
	struct call *c = arg;
	struct flip_peers *p = c->p;
	int64_t now = peer_now_us();

	pthread_mutex_lock(&p->lock);
	judge(c, r, why, now);
	base_log(BASE_LOG_DEBUG,
	         "trace %s: peer %s: %.19s: status %d, %llu bytes in %lld ms, %zu pieces of %zu did not come%s%s",
	         c->trace, p->members.items[c->member]->name, c->blob->digest, c->head.status,
	         (unsigned long long)c->bytes, (long long)(now - c->started_us) / 1000, c->n_left, c->n,
	         r < 0 ? ": " : "", r < 0 ? strerror(-r) : "");
	LIST_REMOVE(c, in_calls);
	p->n_calls--;
	p->members.items[c->member]->n_active--;
	if (r == 0 && c->head.status == 503 && peer_member_is_live(p->members.items[c->member], now))
		send_on(c, now);
	else
		leave_all(c, to_next, NULL);
	peer_blob_unref(p, c->blob);
	call_free(c);
	peer_pump(p);
	pthread_cond_broadcast(&p->changed);
	peer_unlock_and_tell(p);
}

/* ---- Starting --------------------------------------------------------------------------------------------------- */

static const char *role_name(enum flip_peer_role role)
{
	return role == FLIP_PEER_HOLDER ? "holder" : role == FLIP_PEER_OWNER ? "owner" : "relay";
}

/* The places of the pieces as ranges, neighbours joined. */
static int write_ranges(const struct call *c, struct base_buf *buf, uint64_t *ret_bytes)
{
	struct flip_range *ranges = malloc(c->n * sizeof(*ranges));
	size_t n = 0;
	int r;

	if (!ranges)
		return -ENOMEM;
	*ret_bytes = 0;
	for (size_t i = 0; i < c->n; i++) {
		const struct flip_peer_piece *x = &c->pieces[i]->what;
		struct flip_range *last = n ? &ranges[n - 1] : NULL;

		/* Every chunk of a piece may come by itself, packed or not. */
		*ret_bytes += (uint64_t)x->size + FLIP_PEER_MAX_PIECE;
		if (last && x->offset <= last->offset + last->size) {
			uint64_t end = x->offset + x->size;

			if (end > last->offset + last->size)
				last->size = end - last->offset;
		} else {
			ranges[n++] = (struct flip_range){ x->offset, x->size };
		}
	}
	r = peer_ranges_write(ranges, n, buf);
	free(ranges);
	return r;
}

static int ask(struct call *c)
{
	struct flip_peers *p = c->p;
	struct base_buf range = BASE_BUF_INIT(PEER_MAX_TEXT), path = BASE_BUF_INIT(512);
	struct peer_question q = { .image = c->blob->image,
		                   .grant = c->blob->grant,
		                   .role = role_name(c->role),
		                   .trace = c->trace,
		                   .priority = c->priority };
	struct peer_call call = { .to = p->members.items[c->member]->name,
		                  .fabric = p->members.items[c->member]->fabric,
		                  .on_head = on_head,
		                  .on_data = on_data,
		                  .on_end = on_end,
		                  .arg = c };
	char **headers = NULL;
	uint64_t max = 0;
	int r = write_ranges(c, &range, &max);

	peer_stream_init(&c->stream, max);
	if (r == 0)
		r = base_buf_printf(&path, "/flip/1/%s/%s", c->blob->kind, c->blob->digest);
	q.path = call.path = base_buf_text(&path);
	q.range = base_buf_text(&range);
	if (r == 0 && !(headers = peer_question_headers(p, &q)))
		r = -ENOMEM;
	call.headers = (const char *const *)headers;
	if (r == 0)
		r = p->transport->ask(p->way, &call, &c->id);
	peer_headers_free(headers);
	base_buf_done(&range);
	base_buf_done(&path);
	return r;
}

static int call_start(struct flip_peers *p, uint32_t member, struct piece **pieces, size_t n, bool is_trial)
{
	struct call *c = calloc(1, sizeof(*c));
	int r = -ENOMEM;

	if (c) {
		c->pieces = malloc(n * sizeof(struct piece *));
		c->offsets = malloc(n * sizeof(*c->offsets));
	}
	if (c && c->pieces && c->offsets) {
		memcpy(c->pieces, pieces, n * sizeof(struct piece *));
		qsort(c->pieces, n, sizeof(*c->pieces), compare_pieces);
		c->p = p;
		c->member = member;
		c->blob = pieces[0]->batch->blob;
		c->role = is_trial ? FLIP_PEER_HOLDER : pieces[0]->role;
		c->is_trial = is_trial;
		c->priority = pieces[0]->priority;
		c->n = c->n_left = n;
		c->started_us = c->last_us = c->piece_us = peer_now_us();
		memcpy(c->trace, pieces[0]->batch->trace, sizeof(c->trace));
		for (size_t i = 0; i < n; i++) {
			c->offsets[i] = c->pieces[i]->what.offset;
			c->is_hedge = !is_trial && (c->is_hedge || (c->pieces[i]->is_hedged && c->pieces[i]->n_calls));
		}
		r = ask(c);
	}
	if (r < 0) {
		if (c)
			call_free(c);
		for (size_t i = 0; i < n; i++) {
			if (!is_trial && !pieces[i]->n_calls)
				peer_piece_over(p, pieces[i], r);
		}
		return r;
	}
	for (size_t i = 0; i < n; i++) {
		pieces[i]->n_calls += !is_trial;
		pieces[i]->batch->n_refs++;
	}
	c->blob->n_refs++;
	LIST_INSERT_HEAD(&p->calls, c, in_calls);
	p->n_calls++;
	p->members.items[member]->n_active++;
	p->members.items[member]->n_asked++;
	return 0;
}

int peer_call_start(struct flip_peers *p, uint32_t member, struct piece **pieces, size_t n)
{
	return call_start(p, member, pieces, n, false);
}

/* A piece that somebody else is being asked for; of whom, does not matter. */
static struct piece *any_piece(const struct flip_peers *p)
{
	const struct call *c;

	LIST_FOREACH(c, &p->calls, in_calls)
	{
		for (size_t i = 0; !c->is_trial && i < c->n; i++) {
			if (c->pieces[i] && !c->pieces[i]->is_over)
				return c->pieces[i];
		}
	}
	return NULL;
}

void peer_trials(struct flip_peers *p, int64_t now)
{
	if (p->is_stopping || LIST_EMPTY(&p->calls))
		return;
	for (uint32_t m = 0; m < p->members.n; m++) {
		struct piece *x;

		if (!peer_member_awaits_trial(p->members.items[m], now) || !(x = any_piece(p)))
			continue;
		(void)call_start(p, m, &x, 1, true);
	}
}
