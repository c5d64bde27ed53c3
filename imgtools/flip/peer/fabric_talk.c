/* See fabric_talk.h; docs/formats/peer-protocol.md has what is said. */
#include "peer/fabric_talk.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "peer/fabric_line.h"
#include "peer/limit.h"

enum {
	JOIN_US = 1500000,  /* for each step of a connection, until both ends know each other */
	IDLE_US = 60000000, /* a connection is kept without a question; less than the other end keeps it */
	MAX_TALKS = 40,
	NEVER_MS = 3600000
};

struct peer_talk {
	LIST_ENTRY(peer_talk) in_all;
	struct peer_talks *s;
	struct peer_line *line;
	char to[FLIP_PEER_NAME];
	bool has_joined, is_ready, was_used;
	struct peer_seal in, out;
	struct peer_session session;
	void *call;                              /* NULL: it is free */
	bool has_head, has_body;                 /* its answer's head has come; was a 2xx */
	uint32_t question, next_slot, n_to_take; /* slots that are done with and not said so yet */
	struct base_buf text;                    /* of the question */
	size_t at_text;
	uint8_t pending[PEER_MESSAGE_MAX]; /* a message that found no room */
	size_t n_pending;
	int64_t since_us;
};

struct peer_talks {
	struct peer_fabric *fabric;
	const struct peer_token *token;
	struct peer_fabric_counts *counts;
	struct peer_talks_events events;
	LIST_HEAD(, peer_talk) all;
	unsigned n;
};

void peer_talk_close(struct peer_talk *t)
{
	LIST_REMOVE(t, in_all);
	t->s->n--;
	if (t->line)
		peer_line_close(t->line);
	base_buf_done(&t->text);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

/* The connection is of no more use. */
static void fail(struct peer_talk *t, int r, const char *why)
{
	struct peer_talks *s = t->s;
	void *call = t->call;
	bool was_kept = t->was_used && t->is_ready;
	char text[160];

	(void)snprintf(text, sizeof(text), "%s", why); /* it may lie in what is freed */
	peer_talk_close(t);
	if (call)
		s->events.on_lost(call, r, text, was_kept);
}

/* ---- What is said ----------------------------------------------------------------------------------------------- */

/* 0, or it has failed and `t` is gone. */
static int send_message(struct peer_talk *t, const struct peer_message *m)
{
	int n = peer_message_write(m, &t->out, t->pending), r;

	if (n < 0) {
		fail(t, n, strerror(-n));
		return n;
	}
	r = peer_line_send(t->line, t->pending, (size_t)n);
	t->n_pending = r == -EAGAIN ? (size_t)n : 0;
	if (r < 0 && r != -EAGAIN) {
		fail(t, r, strerror(-r));
		return r;
	}
	return 0;
}

/* What is to be said, as far as there is room for it. 0, or `t` is gone. */
static int flush(struct peer_talk *t)
{
	if (t->n_pending) {
		int r = peer_line_send(t->line, t->pending, t->n_pending);

		if (r == -EAGAIN)
			return 0;
		if (r < 0) {
			fail(t, r, strerror(-r));
			return r;
		}
		t->n_pending = 0;
	}
	while (t->is_ready && !t->n_pending && (t->n_to_take || t->at_text < t->text.len)) {
		struct peer_message m = { .type = PEER_MSG_TAKEN, .question = t->question };

		if (t->n_to_take) {
			t->n_to_take--;
		} else {
			size_t left = t->text.len - t->at_text;

			m.type = PEER_MSG_QUESTION;
			m.total = (uint32_t)t->text.len;
			m.at = (uint32_t)t->at_text;
			m.data = (const uint8_t *)t->text.data + t->at_text;
			m.size = (uint32_t)(left < PEER_MESSAGE_PART ? left : PEER_MESSAGE_PART);
			t->at_text += m.size;
		}
		if (send_message(t, &m) < 0)
			return -EIO;
	}
	return 0;
}

static void put_question(struct peer_talk *t)
{
	t->question++;
	t->next_slot = t->n_to_take = 0; /* the other end begins anew, too */
	atomic_fetch_add(&t->s->counts->asked, 1);
	(void)flush(t);
}

static void join(struct peer_talk *t, const struct peer_message *hello)
{
	uint8_t nonce[PEER_NONCE];
	struct peer_message m = { .type = PEER_MSG_JOIN,
		                  .nonce = nonce,
		                  .proof = t->session.join_proof,
		                  .slot_size = PEER_SLOT_SIZE,
		                  .n_slots = PEER_SLOTS };

	peer_line_offer(t->line, &m.key, &m.base);
	if (RAND_bytes(nonce, sizeof(nonce)) != 1 ||
	    peer_session_make(t->s->token, hello->nonce, nonce, &m, &t->session) < 0) {
		fail(t, -ENOMEM, "no session can be made");
		return;
	}
	t->has_joined = true;
	t->since_us = peer_now_us();
	if (send_message(t, &m) < 0)
		return;
	memcpy(t->out.key, t->session.of_asker, sizeof(t->out.key));
	t->out.is_on = true;
}

static void welcome(struct peer_talk *t, const struct peer_message *m)
{
	if (!peer_proof_is(m->proof, t->session.welcome_proof)) {
		fail(t, -EACCES, "does not know our secret");
		return;
	}
	memcpy(t->in.key, t->session.of_asked, sizeof(t->in.key));
	t->in.is_on = t->is_ready = true;
	t->since_us = peer_now_us();
	if (t->call) {
		t->s->events.on_joined(t->call);
		put_question(t);
	}
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

static void tell_head(struct peer_talk *t, const struct peer_head *head)
{
	t->has_head = true;
	t->has_body = head->status / 100 == 2;
	if (t->s->events.on_head(t->call, head) != 0)
		fail(t, -ECANCELED, "");
}

static void tell_data(struct peer_talk *t, const void *data, size_t size)
{
	atomic_fetch_add(&t->s->counts->received, size);
	if (t->s->events.on_data(t->call, data, size) != 0) {
		fail(t, -ECANCELED, "");
		return;
	}
	t->next_slot = (t->next_slot + 1) % PEER_SLOTS;
	t->n_to_take++;
	(void)flush(t);
}

static void answer_ended(struct peer_talk *t, bool was_cut)
{
	void *call = t->call;

	t->call = NULL;
	t->was_used = true;
	t->since_us = peer_now_us();
	t->s->events.on_end(call, was_cut);
}

static void take_answer(struct peer_talk *t, const struct peer_message *m, const struct peer_head *head)
{
	if (!t->is_ready || !t->call || m->question != t->question || t->at_text < t->text.len)
		fail(t, -EBADMSG, "sent an answer to nothing");
	else if (m->type == PEER_MSG_HEAD && !t->has_head)
		tell_head(t, head);
	else if (m->type == PEER_MSG_DATA && t->has_body && m->slot == t->next_slot && m->size <= PEER_SLOT_SIZE)
		tell_data(t, peer_line_slot(t->line, m->slot), m->size);
	else if (m->type == PEER_MSG_INLINE && t->has_body)
		tell_data(t, m->data, m->size);
	else if (m->type == PEER_MSG_END && t->has_head)
		answer_ended(t, m->was_cut);
	else
		fail(t, -EBADMSG, "sent an answer that is none");
}

static void on_message(void *arg, const void *data, size_t size)
{
	struct peer_talk *t = arg;
	struct peer_message m;
	struct peer_head head;
	char why[164];
	int r = peer_message_parse(data, size, &t->in, &m, &head);

	if (r < 0) {
		fail(t, r, r == -EACCES ? "sent a message with another MAC" : "sent a message that is none");
	} else if (m.type == PEER_MSG_HELLO && !t->has_joined) {
		join(t, &m);
	} else if (m.type == PEER_MSG_WELCOME && t->has_joined && !t->is_ready) {
		welcome(t, &m);
	} else if (m.type == PEER_MSG_REFUSE) {
		for (uint32_t i = 0; i < m.size; i++)
			why[i] = m.data[i] >= ' ' && m.data[i] < 127 ? (char)m.data[i] : ' ';
		why[m.size] = '\0';
		fail(t, -EACCES, why);
	} else if (m.type >= PEER_MSG_HEAD && m.type != PEER_MSG_TAKEN) {
		take_answer(t, &m, &head);
	} else {
		fail(t, -EBADMSG, "sent a message out of its turn");
	}
}

static void on_up(void *arg)
{
	struct peer_talk *t = arg;

	t->since_us = peer_now_us(); /* it says hello */
}

static void on_left(void *arg, int slot)
{
	struct peer_talk *t = arg;

	if (slot < 0)
		(void)flush(t);
}

static void on_down(void *arg, int r, const char *why)
{
	fail(arg, r, why);
}

/* ---- All of them ------------------------------------------------------------------------------------------------ */

static struct peer_talk *free_talk(struct peer_talks *s, const char *to)
{
	struct peer_talk *t;

	LIST_FOREACH(t, &s->all, in_all)
	{
		if (t->is_ready && !t->call && strcmp(t->to, to) == 0)
			return t;
	}
	return NULL;
}

/* One that is free makes way for one to somebody else. */
static bool make_room(struct peer_talks *s)
{
	struct peer_talk *t, *oldest = NULL;

	if (s->n < MAX_TALKS)
		return true;
	LIST_FOREACH(t, &s->all, in_all)
	{
		if (t->is_ready && !t->call && (!oldest || t->since_us < oldest->since_us))
			oldest = t;
	}
	if (oldest)
		peer_talk_close(oldest);
	return oldest != NULL;
}

static struct peer_talk *new_talk(struct peer_talks *s, const char *to)
{
	struct peer_talk *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->s = s;
	t->since_us = peer_now_us();
	base_buf_init(&t->text, 2 * PEER_MAX_QUESTION);
	(void)snprintf(t->to, sizeof(t->to), "%s", to);
	LIST_INSERT_HEAD(&s->all, t, in_all);
	s->n++;
	return t;
}

int peer_talks_ask(struct peer_talks *s, const char *to, const char *path, const char *const *headers, void *call,
                   struct peer_talk **ret_talk, struct err *err)
{
	struct peer_talk *t = free_talk(s, to);
	int r;

	if (!t && !make_room(s))
		return 1;
	if (!t && !(t = new_talk(s, to)))
		return err_set(err, -ENOMEM, "out of memory");
	t->at_text = 0;
	base_buf_reset(&t->text);
	if (peer_fields_write(path, headers, &t->text) < 0) {
		base_buf_reset(&t->text);
		if (!t->line)
			peer_talk_close(t);
		return 1;
	}
	t->has_head = t->has_body = false;
	if (!t->line) {
		r = peer_line_connect(s->fabric, to, t, &t->line, err);
		if (r < 0) {
			peer_talk_close(t);
			return r;
		}
	}
	t->call = call;
	*ret_talk = t;
	if (t->is_ready)
		put_question(t); /* else when it has joined */
	return 0;
}

void peer_talks_watch(struct peer_talks *s, int64_t now_us)
{
	struct peer_talk *t, *next;

	for (t = LIST_FIRST(&s->all); t; t = next) {
		next = LIST_NEXT(t, in_all);
		if (t->is_ready && !t->call && now_us - t->since_us > IDLE_US) {
			peer_talk_close(t);
		} else if (!t->is_ready && now_us - t->since_us > JOIN_US) {
			fail(t, -ETIMEDOUT, "no connection");
			next = LIST_FIRST(&s->all); /* the list may be another */
		}
	}
}

void peer_talks_step(struct peer_talks *s, int timeout_ms)
{
	peer_fabric_step(s->fabric, timeout_ms >= 0 ? timeout_ms : LIST_EMPTY(&s->all) ? NEVER_MS : IDLE_US / 4000);
}

void peer_talks_wake(struct peer_talks *s)
{
	peer_fabric_wake(s->fabric);
}

int peer_talks_open(const char *provider, const struct peer_token *token, struct peer_fabric_counts *counts,
                    const struct peer_talks_events *events, struct peer_talks **ret_talks, struct err *err)
{
	static const struct peer_fabric_events of_lines = {
		.on_up = on_up, .on_message = on_message, .on_left = on_left, .on_down = on_down
	};
	struct peer_talks *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	LIST_INIT(&s->all);
	s->token = token;
	s->counts = counts;
	s->events = *events;
	r = peer_fabric_open(provider, NULL, &of_lines, s, &s->fabric, err);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret_talks = s;
	return 0;
}

void peer_talks_close(struct peer_talks *s)
{
	if (!s)
		return;
	while (!LIST_EMPTY(&s->all))
		peer_talk_close(LIST_FIRST(&s->all));
	peer_fabric_close(s->fabric);
	free(s);
}
