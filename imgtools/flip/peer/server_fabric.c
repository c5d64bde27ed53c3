/* Questions of others by libfabric. One thread owns all connections (visitors); each visitor that has asked something
 * has a thread of its own, which does what may take a while, as HTTP's have: it fills the visitor's slots, and the
 * first thread sends what is in them when the asker has room for it.
 *
 *   hello -> join: who does not know the secret gets no further -> welcome -> question -> head, data..., end ->
 * question
 *
 * A slot of ours is free again when its bytes have left, one of the asker's when it has said so. */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "peer/fabric_line.h"
#include "peer_internal.h"

enum {
	MAX_VISITORS = 128,
	TICK_MS = 500,
	JOIN_US = 5000000,  /* until we know who it is */
	IDLE_US = 75000000, /* without a question */
	TAKE_US = 30000000, /* without a slot being taken, while an answer waits */
	COMPLAIN_US = 10000000,
	MAX_OUT = PEER_SLOTS + 2 /* beside slots an answer has a head and an end */
};

struct out { /* of an answer, in its order */
	enum { OUT_HEAD, OUT_BYTES, OUT_END } what;
	unsigned slot;
	size_t size;
	bool was_cut;
};

struct visitor {
	LIST_ENTRY(visitor) in_all;
	struct peer_fabric_server *s;
	struct peer_line *line;
	struct peer_seal in, out;
	uint8_t nonce[PEER_NONCE];
	bool is_known, is_refused;
	uint64_t key, base; /* of the asker's slots */
	uint32_t slot_size, n_slots;
	uint32_t question, n_sent, n_taken; /* slots of this answer */
	uint8_t *text;                      /* of the question, while its parts come */
	size_t n_text, at_text;
	bool is_answering;
	uint8_t pending[PEER_MESSAGE_MAX]; /* a message that found no room */
	size_t n_pending;
	int64_t heard_us;

	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_gone, is_over; /* protected by lock, with all below: nobody is there any more; the thread has ended */
	uint8_t *asked;        /* a whole question for the thread */
	size_t n_asked;
	struct out outs[MAX_OUT];
	unsigned n_outs;
	bool is_busy[PEER_SLOTS];
	struct peer_head head;
};

struct peer_fabric_server {
	struct flip_peers *p;
	struct peer_fabric *fabric;
	pthread_t thread;
	_Atomic bool stops;
	LIST_HEAD(, visitor) all;
	unsigned n_all;
};

/* ---- The visitor's thread ---------------------------------------------------------------------------------------- */

static const char *header(void *fields, const char *name)
{
	return peer_fields_header(fields, name);
}

struct asking {
	struct peer_fields fields; /* the first, so that header() has them */
	const struct visitor *v;
};

static void from(void *arg, char *ret, size_t size)
{
	(void)snprintf(ret, size, "%s", peer_line_from(((const struct asking *)arg)->v->line));
}

static void push(struct visitor *v, const struct out *o)
{
	pthread_mutex_lock(&v->lock);
	v->outs[v->n_outs++] = *o; /* there is room: one for each slot, the head and the end */
	if (o->what == OUT_BYTES)
		v->is_busy[o->slot] = true;
	pthread_mutex_unlock(&v->lock);
	peer_fabric_wake(v->s->fabric);
}

static bool await_slot(struct visitor *v, unsigned slot)
{
	bool goes_on;

	pthread_mutex_lock(&v->lock);
	while (v->is_busy[slot] && !v->is_gone)
		pthread_cond_wait(&v->changed, &v->lock);
	goes_on = !v->is_gone;
	pthread_mutex_unlock(&v->lock);
	return goes_on;
}

/* The next bytes of a reply, at most `max`; 0: that was all. */
static ssize_t read_reply(struct peer_reply *r, size_t *at, uint8_t *to, size_t max)
{
	size_t left = (size_t)r->size - *at, want = left < max ? left : max;
	ssize_t n;

	if (r->answer)
		return peer_answer_read(r->answer, to, max);
	if (r->fd < 0) {
		if (want)
			memcpy(to, r->data + *at, want);
		*at += want;
		return (ssize_t)want;
	}
	do
		n = want ? pread(r->fd, to, want, (off_t)(r->offset + *at)) : 0;
	while (n < 0 && errno == EINTR);
	if (n < 0 || (n == 0 && want))
		return -EIO;
	*at += (size_t)n;
	return n;
}

static void answer(struct visitor *v, const uint8_t *text, size_t size)
{
	struct flip_peers *p = v->s->p;
	size_t max = v->slot_size < PEER_SLOT_SIZE ? v->slot_size : PEER_SLOT_SIZE, at = 0;
	struct asking asking = { .v = v };
	struct peer_asked asked = { "", header, NULL, from, &asking };
	struct peer_reply reply;
	ssize_t n = 0;

	if (peer_fields_parse(text, size, &asking.fields) < 0) /* the answer to what is no question */
		(void)peer_fields_parse("\1\1\0\0/", 5, &asking.fields);
	asked.path = asking.fields.text ? peer_fields_path(&asking.fields) : "";
	if (!asking.fields.text)
		return;
	peer_reply_to(p, &asked, &reply);
	v->head = (struct peer_head){ .status = (int)reply.status };
	(void)snprintf(v->head.words, sizeof(v->head.words), "%.159s", reply.words);
	(void)snprintf(v->head.holders, sizeof(v->head.holders), "%s", reply.holders);
	push(v, &(struct out){ .what = OUT_HEAD });
	for (unsigned slot = 0; reply.status / 100 == 2; slot = (slot + 1) % PEER_SLOTS) {
		if (!await_slot(v, slot)) {
			n = -ECANCELED;
			break;
		}
		n = read_reply(&reply, &at, peer_line_slot(v->line, slot), max);
		if (n <= 0)
			break;
		atomic_fetch_add(&p->counts.fabric.served_bytes, (uint64_t)n);
		push(v, &(struct out){ .what = OUT_BYTES, .slot = slot, .size = (size_t)n });
	}
	atomic_fetch_add(&p->counts.fabric.served, 1);
	peer_reply_done(&reply);
	peer_fields_done(&asking.fields);
	push(v, &(struct out){ .what = OUT_END, .was_cut = n < 0 });
}

static void *run(void *arg)
{
	struct visitor *v = arg;

	pthread_mutex_lock(&v->lock);
	for (;;) {
		uint8_t *text;
		size_t n;

		while (!v->asked && !v->is_gone)
			pthread_cond_wait(&v->changed, &v->lock);
		if (v->is_gone)
			break;
		text = v->asked;
		n = v->n_asked;
		v->asked = NULL;
		pthread_mutex_unlock(&v->lock);
		answer(v, text, n);
		free(text);
		pthread_mutex_lock(&v->lock);
	}
	v->is_over = true;
	pthread_mutex_unlock(&v->lock);
	peer_fabric_wake(v->s->fabric);
	return NULL;
}

/* ---- Visitors: all below is the server's thread's ---- */

/* Its slots are its thread's until that has ended; what it says meanwhile is passed over. */
static void leave(struct visitor *v)
{
	pthread_mutex_lock(&v->lock);
	v->is_gone = true;
	pthread_cond_signal(&v->changed);
	pthread_mutex_unlock(&v->lock);
}

static void visitor_free(struct visitor *v)
{
	LIST_REMOVE(v, in_all);
	v->s->n_all--;
	if (v->has_thread)
		(void)pthread_join(v->thread, NULL);
	peer_line_close(v->line);
	free(v->text);
	free(v->asked);
	(void)pthread_mutex_destroy(&v->lock);
	(void)pthread_cond_destroy(&v->changed);
	OPENSSL_cleanse(v, sizeof(*v));
	free(v);
}

static bool send_message(struct visitor *v, const struct peer_message *m)
{
	int n = peer_message_write(m, &v->out, v->pending);
	int r = n < 0 ? n : peer_line_send(v->line, v->pending, (size_t)n);

	v->n_pending = r == -EAGAIN ? (size_t)n : 0;
	if (r == 0 || r == -EAGAIN)
		return true;
	leave(v);
	return false;
}

/* Sends the first of what is to go, when it may. */
static bool send_one(struct visitor *v, const struct out *o)
{
	struct peer_message m = { .question = v->question };
	int r;

	switch (o->what) {
	case OUT_HEAD:
		m.type = PEER_MSG_HEAD;
		m.head = &v->head;
		return send_message(v, &m);
	case OUT_END:
		m.type = PEER_MSG_END;
		m.was_cut = o->was_cut;
		v->is_answering = false;
		return send_message(v, &m);
	case OUT_BYTES:
		break;
	}
	if (v->n_sent - v->n_taken >= v->n_slots)
		return false;
	m.slot = v->n_sent % v->n_slots;
	m.size = (uint32_t)o->size;
	if (o->size <= PEER_MESSAGE_INLINE) {
		m.type = PEER_MSG_INLINE;
		m.data = peer_line_slot(v->line, o->slot);
	} else {
		m.type = PEER_MSG_DATA;
		r = peer_line_write(v->line, o->slot, o->size, v->key, v->base + (uint64_t)m.slot * v->slot_size);
		if (r < 0) {
			if (r != -EAGAIN)
				leave(v);
			return false;
		}
	}
	v->n_sent++;
	return send_message(v, &m);
}

static void pump(struct visitor *v)
{
	for (;;) {
		struct out o;
		bool any;

		if (v->n_pending) {
			int r = peer_line_send(v->line, v->pending, v->n_pending);

			if (r == -EAGAIN)
				return;
			v->n_pending = 0;
			if (r < 0) {
				leave(v);
				return;
			}
		}
		pthread_mutex_lock(&v->lock);
		any = v->n_outs > 0 && !v->is_gone;
		o = v->outs[0];
		pthread_mutex_unlock(&v->lock);
		if (!any || !send_one(v, &o))
			return;
		pthread_mutex_lock(&v->lock);
		memmove(&v->outs[0], &v->outs[1], --v->n_outs * sizeof(v->outs[0]));
		if (o.what == OUT_BYTES && o.size <= PEER_MESSAGE_INLINE) {
			v->is_busy[o.slot] = false;
			pthread_cond_signal(&v->changed);
		}
		pthread_mutex_unlock(&v->lock);
	}
}

static void refuse(struct visitor *v, const char *why)
{
	struct peer_message m = { .type = PEER_MSG_REFUSE,
		                  .data = (const uint8_t *)why,
		                  .size = (uint32_t)strlen(why) };
	struct flip_peers *p = v->s->p;
	int64_t now = peer_now_us(), last = atomic_load(&p->complained_us);

	atomic_fetch_add(&p->counts.refused, 1);
	if ((!last || now - last >= COMPLAIN_US) && atomic_compare_exchange_strong(&p->complained_us, &last, now))
		base_log(BASE_LOG_WARN, "peers: a connection from %s by libfabric is refused: %s",
		         peer_line_from(v->line), why);
	v->is_refused = true; /* it hears why, and goes */
	(void)send_message(v, &m);
}

static void join(struct visitor *v, const struct peer_message *m)
{
	struct peer_message answer = { .type = PEER_MSG_WELCOME };
	struct peer_session session;

	if (peer_session_make(v->s->p->token, v->nonce, m->nonce, m, &session) < 0) {
		leave(v);
		return;
	}
	if (!peer_proof_is(m->proof, session.join_proof)) {
		refuse(v, "not of this cluster: another secret");
		return;
	}
	v->key = m->key;
	v->base = m->base;
	v->slot_size = m->slot_size;
	v->n_slots = m->n_slots;
	v->is_known = true;
	answer.proof = session.welcome_proof;
	if (!send_message(v, &answer))
		return;
	memcpy(v->in.key, session.of_asker, sizeof(v->in.key));
	memcpy(v->out.key, session.of_asked, sizeof(v->out.key));
	v->in.is_on = v->out.is_on = true;
	OPENSSL_cleanse(&session, sizeof(session));
}

static bool start_thread(struct visitor *v)
{
	if (!v->has_thread)
		v->has_thread = pthread_create(&v->thread, NULL, run, v) == 0;
	return v->has_thread;
}

static void take_part(struct visitor *v, const struct peer_message *m)
{
	if (!v->text && m->at == 0 && m->total && !v->is_answering && m->question != v->question) {
		v->text = malloc(m->total);
		v->n_text = m->total;
		v->at_text = 0;
		v->question = m->question;
	}
	if (!v->text || m->question != v->question || m->at != v->at_text || m->total != v->n_text) {
		refuse(v, "a question out of its turn");
		return;
	}
	memcpy(v->text + m->at, m->data, m->size);
	v->at_text += m->size;
	if (v->at_text < v->n_text)
		return;
	if (!start_thread(v)) {
		leave(v);
		return;
	}
	v->n_sent = v->n_taken = 0;
	v->is_answering = true;
	pthread_mutex_lock(&v->lock);
	v->asked = v->text;
	v->n_asked = v->n_text;
	pthread_cond_signal(&v->changed);
	pthread_mutex_unlock(&v->lock);
	v->text = NULL;
}

static void on_message(void *arg, const void *data, size_t size)
{
	struct visitor *v = arg;
	struct peer_message m;

	if (v->is_gone || v->is_refused)
		return;
	v->heard_us = peer_now_us();
	if (peer_message_parse(data, size, &v->in, &m, NULL) < 0) {
		refuse(v, "a message that is none, or is not signed as it should be");
	} else if (m.type == PEER_MSG_JOIN && !v->is_known) {
		join(v, &m);
	} else if (m.type == PEER_MSG_QUESTION && v->is_known) {
		take_part(v, &m);
	} else if (m.type == PEER_MSG_TAKEN && v->is_known) {
		if (m.question != v->question || !v->is_answering)
			return; /* of an answer that has ended */
		if (v->n_taken == v->n_sent) {
			refuse(v, "took what was not sent");
			return;
		}
		v->n_taken++;
		pump(v);
	} else {
		refuse(v, "a message out of its turn");
	}
}

static void on_up(void *arg)
{
	struct visitor *v = arg;
	struct peer_message m = { .type = PEER_MSG_HELLO, .nonce = v->nonce };

	(void)send_message(v, &m);
}

static void on_left(void *arg, int slot)
{
	struct visitor *v = arg;

	if (slot >= 0) {
		pthread_mutex_lock(&v->lock);
		v->is_busy[slot] = false;
		pthread_cond_signal(&v->changed);
		pthread_mutex_unlock(&v->lock);
	}
	pump(v);
}

static void on_down(void *arg, int r, const char *why)
{
	leave(arg);
}

static void *on_line(void *arg, struct peer_line *l)
{
	struct peer_fabric_server *s = arg;
	struct visitor *v = s->n_all < MAX_VISITORS ? calloc(1, sizeof(*v)) : NULL;

	if (!v || RAND_bytes(v->nonce, sizeof(v->nonce)) != 1) {
		free(v);
		return NULL;
	}
	v->s = s;
	v->line = l;
	v->heard_us = peer_now_us();
	(void)pthread_mutex_init(&v->lock, NULL);
	(void)pthread_cond_init(&v->changed, NULL);
	LIST_INSERT_HEAD(&s->all, v, in_all);
	s->n_all++;
	return v;
}

static void look_at(struct visitor *v, int64_t now)
{
	int64_t silent = now - v->heard_us;
	bool is_over;

	if (v->is_refused     ? silent > 1000000
	    : !v->is_known    ? silent > JOIN_US
	    : v->is_answering ? v->n_sent - v->n_taken >= v->n_slots && silent > TAKE_US
	                      : silent > IDLE_US)
		leave(v);
	pthread_mutex_lock(&v->lock);
	is_over = v->is_gone && (v->is_over || !v->has_thread);
	pthread_mutex_unlock(&v->lock);
	if (is_over)
		visitor_free(v);
	else
		pump(v);
}

static void *drive(void *arg)
{
	struct peer_fabric_server *s = arg;
	struct visitor *v, *next;

	while (!atomic_load(&s->stops)) {
		int64_t now = peer_now_us();

		for (v = LIST_FIRST(&s->all); v; v = next) {
			next = LIST_NEXT(v, in_all);
			look_at(v, now);
		}
		peer_fabric_step(s->fabric, LIST_EMPTY(&s->all) ? 3600000 : TICK_MS);
	}
	return NULL;
}

int peer_fabric_server_start(struct flip_peers *p, const char *listen, struct peer_fabric_server **ret, struct err *err)
{
	static const struct peer_fabric_events events = {
		.on_line = on_line, .on_up = on_up, .on_message = on_message, .on_left = on_left, .on_down = on_down
	};
	struct peer_fabric_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->p = p;
	LIST_INIT(&s->all);
	r = peer_fabric_open(p->o.fabric_provider, listen, &events, s, &s->fabric, err);
	if (r == 0 && (r = -pthread_create(&s->thread, NULL, drive, s)) < 0)
		(void)err_set(err, r, "a thread: %s", strerror(-r));
	if (r < 0) {
		peer_fabric_close(s->fabric);
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void peer_fabric_server_stop(struct peer_fabric_server *s)
{
	struct visitor *v;

	if (!s)
		return;
	atomic_store(&s->stops, true);
	peer_fabric_wake(s->fabric);
	(void)pthread_join(s->thread, NULL);
	LIST_FOREACH(v, &s->all, in_all)
	{
		leave(v);
	}
	while (!LIST_EMPTY(&s->all))
		visitor_free(LIST_FIRST(&s->all));
	peer_fabric_close(s->fabric);
	free(s);
}
