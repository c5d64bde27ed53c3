/* Questions over libfabric: a connection carries one question at a time and is kept for the next, as with HTTP/1.1;
 * what is answered is written into its slots by the other end (remote writes), told of by short messages, and handed on
 * from there. The slots are what the other end may be ahead: it waits for each to be taken.
 *
 * Members without an address for it are asked by HTTP, and so is whatever did not get through before its answer had
 * begun: a member that fails in this is asked by HTTP alone for a time that doubles. A question is ended by ending its
 * connection.
 *
 * One thread owns all connections; HTTP's has another one, and what both tell takes turns (`telling`). */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/log.h"
#include "peer/fabric_line.h"
#include "peer/limit.h"
#include "peer/transport.h"

enum {
	TICK_MS = 100,
	TICK_US = 50000,
	JOIN_US = 1500000,  /* for each step of a connection, until both ends know each other */
	IDLE_US = 60000000, /* a connection is kept without a question; less than the other end keeps it */
	MAX_TALKS = 40,
	MAX_FAILED = 256,
	HOLD_US = 5000000, /* a member is asked by HTTP alone, twice as long each time */
	MAX_DOUBLINGS = 6
};

struct talk;

struct call {
	LIST_ENTRY(call) in_all;
	struct call *next; /* while it is new, or over */
	struct way *w;
	uint64_t id, http_id;
	char *to, *fabric, *path, **headers;
	struct peer_call call; /* its functions and their argument */
	struct peer_head head;
	bool has_begun; /* its head, or more, has come */
	bool by_http, was_retried;
	struct talk *talk;
};

struct talk { /* a connection */
	LIST_ENTRY(talk) in_all;
	struct way *w;
	struct peer_line *line;
	char to[FLIP_PEER_NAME];
	bool has_joined, is_ready, was_used;
	struct peer_seal in, out;
	struct peer_session session;
	struct call *call;                       /* NULL: it is free */
	uint32_t question, next_slot, n_to_take; /* slots that are done with and not said so yet */
	struct base_buf text;                    /* of the question */
	size_t at_text;
	uint8_t pending[PEER_MESSAGE_MAX]; /* a message that found no room */
	size_t n_pending;
	int64_t since_us;
};

struct failed { /* a member with which it did not work */
	char to[FLIP_PEER_NAME];
	int64_t until_us;
	unsigned n;
};

struct cancel {
	struct cancel *next;
	uint64_t id;
};

struct way {
	struct peer_transport_opts o;
	struct peer_fabric *fabric;
	void *http;
	pthread_t thread;
	pthread_mutex_t telling; /* held while anything is told; before `lock`, never after it */
	pthread_mutex_t lock;
	struct call *new_calls, **last_new; /* protected by lock, as all up to `stops` */
	struct call *over;                  /* that HTTP has told the end of */
	struct cancel *cancels;
	uint64_t last_id;
	bool stops;
	LIST_HEAD(, call) all;
	LIST_HEAD(, talk) talks;
	unsigned n_talks;
	struct failed *failed[MAX_FAILED];
	int64_t ticked_us;
};

static void begin(struct call *c);

/* ---- Calls ---------------------------------------------------------------------------------------------------- */

static void call_free(struct call *c)
{
	for (size_t i = 0; c->headers && c->headers[i]; i++)
		free(c->headers[i]);
	free(c->headers);
	free(c->to);
	free(c->fabric);
	free(c->path);
	free(c);
}

static void end(struct call *c, int r, const char *why)
{
	struct way *w = c->w;

	pthread_mutex_lock(&w->telling);
	if (r == 0 && c->head.status / 100 != 2 && c->call.on_head(c->call.arg, &c->head) != 0)
		r = -ECANCELED;
	c->call.on_end(c->call.arg, r, r == -ECANCELED ? NULL : why);
	pthread_mutex_unlock(&w->telling);
	LIST_REMOVE(c, in_all);
	call_free(c);
}

/* ---- By HTTP, on its thread ------------------------------------------------------------------------------------- */

static int http_head(void *arg, const struct peer_head *head)
{
	struct call *c = arg;
	int r;

	pthread_mutex_lock(&c->w->telling);
	r = c->call.on_head(c->call.arg, head);
	pthread_mutex_unlock(&c->w->telling);
	return r;
}

static int http_data(void *arg, const void *data, size_t size)
{
	struct call *c = arg;
	int r;

	pthread_mutex_lock(&c->w->telling);
	r = c->call.on_data(c->call.arg, data, size);
	pthread_mutex_unlock(&c->w->telling);
	return r;
}

static void http_end(void *arg, int r, const char *why)
{
	struct call *c = arg;
	struct way *w = c->w;

	pthread_mutex_lock(&w->telling);
	c->call.on_end(c->call.arg, r, why);
	pthread_mutex_unlock(&w->telling);
	pthread_mutex_lock(&w->lock);
	c->next = w->over;
	w->over = c;
	pthread_mutex_unlock(&w->lock);
	peer_fabric_wake(w->fabric);
}

static bool no_tick(void *arg)
{
	return false;
}

static void ask_http(struct call *c)
{
	struct peer_call h = { .to = c->to,
		               .path = c->path,
		               .headers = (const char *const *)c->headers,
		               .on_head = http_head,
		               .on_data = http_data,
		               .on_end = http_end,
		               .arg = c };
	int r;

	c->by_http = true;
	r = peer_transport_http.ask(c->w->http, &h, &c->http_id);
	if (r < 0)
		end(c, r, NULL);
}

/* ---- Who fails ------------------------------------------------------------------------------------------------- */

static struct failed **place_of(struct way *w, const char *to)
{
	struct failed **oldest = &w->failed[0];

	for (size_t i = 0; i < MAX_FAILED; i++) {
		struct failed **f = &w->failed[i];

		if (*f && strcmp((*f)->to, to) == 0)
			return f;
		if (*oldest && (!*f || (*f)->until_us < (*oldest)->until_us))
			oldest = f;
	}
	return oldest;
}

static bool is_held_off(struct way *w, const char *to)
{
	const struct failed *f = *place_of(w, to);

	return f && strcmp(f->to, to) == 0 && f->until_us > peer_now_us();
}

static void has_failed(struct way *w, const char *to, const char *why)
{
	struct failed **place = place_of(w, to), *f = *place;
	int64_t now = peer_now_us();

	if (f && strcmp(f->to, to) == 0 && f->until_us > now)
		return; /* known already: what was under way with it fails together */
	if (!f && !(f = *place = calloc(1, sizeof(*f))))
		return;
	if (strcmp(f->to, to) != 0)
		*f = (struct failed){ .n = 0 };
	(void)snprintf(f->to, sizeof(f->to), "%s", to);
	f->until_us = now + ((int64_t)HOLD_US << (f->n < MAX_DOUBLINGS ? f->n : MAX_DOUBLINGS));
	f->n++;
	base_log(BASE_LOG_WARN, "peer %s: libfabric: %s; asked by HTTP for %lld s", to, why,
	         (long long)(f->until_us - now) / 1000000);
}

static void has_worked(struct way *w, const char *to)
{
	struct failed **place = place_of(w, to);

	if (!*place || strcmp((*place)->to, to) != 0)
		return;
	free(*place);
	*place = NULL;
}

/* ---- Connections ----------------------------------------------------------------------------------------------- */

static void talk_free(struct talk *t)
{
	LIST_REMOVE(t, in_all);
	t->w->n_talks--;
	if (t->line)
		peer_line_close(t->line);
	base_buf_done(&t->text);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

/* The connection is of no more use; what becomes of its question depends on how far it came. */
static void fail(struct talk *t, int r, const char *why)
{
	struct way *w = t->w;
	struct call *c = t->call;
	bool was_used = t->was_used && t->is_ready;
	char text[160];

	(void)snprintf(text, sizeof(text), "%s", why);
	talk_free(t);
	if (!c)
		return;
	c->talk = NULL;
	if (c->has_begun) {
		end(c, r, text);
	} else if (was_used && !c->was_retried) {
		c->was_retried = true; /* the other end had just closed what was kept */
		begin(c);
	} else {
		has_failed(w, c->to, text);
		atomic_fetch_add(&w->o.counts->fell_back, 1);
		ask_http(c);
	}
}

/* 0, or it has failed and `t` is gone. */
static int send_message(struct talk *t, const struct peer_message *m)
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
static int flush(struct talk *t)
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
	while (!t->n_pending && (t->n_to_take || t->at_text < t->text.len)) {
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

static void put_question(struct talk *t)
{
	struct call *c = t->call;
	int r;

	t->question++;
	t->next_slot = t->n_to_take = 0; /* the other end begins anew, too */
	t->at_text = 0;
	base_buf_reset(&t->text);
	r = peer_fields_write(c->path, (const char *const *)c->headers, &t->text);
	if (r < 0) { /* too large a question: HTTP may take it */
		t->call = NULL;
		c->talk = NULL;
		base_buf_reset(&t->text);
		ask_http(c);
		return;
	}
	atomic_fetch_add(&t->w->o.counts->asked, 1);
	(void)flush(t);
}

static void join(struct talk *t, const struct peer_message *hello)
{
	uint8_t nonce[PEER_NONCE];
	struct peer_message m = { .type = PEER_MSG_JOIN,
		                  .nonce = nonce,
		                  .proof = t->session.join_proof,
		                  .slot_size = PEER_SLOT_SIZE,
		                  .n_slots = PEER_SLOTS };

	peer_line_offer(t->line, &m.key, &m.base);
	if (RAND_bytes(nonce, sizeof(nonce)) != 1 ||
	    peer_session_make(t->w->o.token, hello->nonce, nonce, &m, &t->session) < 0) {
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

static void welcome(struct talk *t, const struct peer_message *m)
{
	if (!peer_proof_is(m->proof, t->session.welcome_proof)) {
		fail(t, -EACCES, "does not know our secret");
		return;
	}
	memcpy(t->in.key, t->session.of_asked, sizeof(t->in.key));
	t->in.is_on = t->is_ready = true;
	t->since_us = peer_now_us();
	if (t->call) {
		has_worked(t->w, t->call->to);
		put_question(t);
	}
}

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

/* 0, or the question was cut by who asked it, and `t` is gone. */
static int tell_head(struct talk *t, const struct peer_head *head)
{
	struct call *c = t->call;
	int r = 0;

	c->head = *head;
	c->has_begun = true;
	if (head->status / 100 != 2)
		return 0; /* told at its end */
	pthread_mutex_lock(&c->w->telling);
	r = c->call.on_head(c->call.arg, &c->head);
	pthread_mutex_unlock(&c->w->telling);
	if (r != 0)
		fail(t, -ECANCELED, "");
	return r;
}

static void tell_data(struct talk *t, const void *data, size_t size)
{
	struct call *c = t->call;
	int r;

	atomic_fetch_add(&c->w->o.counts->received, size);
	pthread_mutex_lock(&c->w->telling);
	r = c->call.on_data(c->call.arg, data, size);
	pthread_mutex_unlock(&c->w->telling);
	if (r != 0) {
		fail(t, -ECANCELED, "");
		return;
	}
	t->next_slot = (t->next_slot + 1) % PEER_SLOTS;
	t->n_to_take++;
	(void)flush(t);
}

static void answer_ended(struct talk *t, bool was_cut)
{
	struct call *c = t->call;

	t->call = NULL;
	c->talk = NULL;
	t->was_used = true;
	t->since_us = peer_now_us();
	end(c, was_cut ? -EIO : 0, "an answer was cut");
}

static void take_answer(struct talk *t, const struct peer_message *m, const struct peer_head *head)
{
	bool has_body = t->call && t->call->has_begun && t->call->head.status / 100 == 2;

	if (!t->is_ready || !t->call || m->question != t->question || t->at_text < t->text.len)
		fail(t, -EBADMSG, "sent an answer to nothing");
	else if (m->type == PEER_MSG_HEAD && !t->call->has_begun)
		(void)tell_head(t, head);
	else if (m->type == PEER_MSG_DATA && has_body && m->slot == t->next_slot && m->size <= PEER_SLOT_SIZE)
		tell_data(t, peer_line_slot(t->line, m->slot), m->size);
	else if (m->type == PEER_MSG_INLINE && has_body)
		tell_data(t, m->data, m->size);
	else if (m->type == PEER_MSG_END && t->call->has_begun)
		answer_ended(t, m->was_cut);
	else
		fail(t, -EBADMSG, "sent an answer that is none");
}

static void on_message(void *arg, const void *data, size_t size)
{
	struct talk *t = arg;
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
	struct talk *t = arg;

	t->since_us = peer_now_us(); /* it says hello */
}

static void on_left(void *arg, int slot)
{
	struct talk *t = arg;

	if (slot < 0)
		(void)flush(t);
}

static void on_down(void *arg, int r, const char *why)
{
	fail(arg, r, why);
}

/* ---- The thread ---------------------------------------------------------------------------------------------------
 */

static struct talk *free_talk(struct way *w, const char *to)
{
	struct talk *t;

	LIST_FOREACH(t, &w->talks, in_all)
	{
		if (t->is_ready && !t->call && strcmp(t->to, to) == 0)
			return t;
	}
	return NULL;
}

/* One that is free makes way for one to somebody else. */
static bool make_room(struct way *w)
{
	struct talk *t, *oldest = NULL;

	if (w->n_talks < MAX_TALKS)
		return true;
	LIST_FOREACH(t, &w->talks, in_all)
	{
		if (t->is_ready && !t->call && (!oldest || t->since_us < oldest->since_us))
			oldest = t;
	}
	if (oldest)
		talk_free(oldest);
	return oldest != NULL;
}

static int new_talk(struct call *c, struct err *err)
{
	struct way *w = c->w;
	struct talk *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	t->w = w;
	t->since_us = peer_now_us();
	base_buf_init(&t->text, 2 * PEER_MAX_QUESTION);
	(void)snprintf(t->to, sizeof(t->to), "%s", c->fabric);
	LIST_INSERT_HEAD(&w->talks, t, in_all);
	w->n_talks++;
	r = peer_line_connect(w->fabric, c->fabric, t, &t->line, err);
	if (r < 0) {
		talk_free(t);
		return r;
	}
	t->call = c;
	c->talk = t;
	return 0;
}

static void begin(struct call *c)
{
	struct way *w = c->w;
	struct err err = { 0 };
	struct talk *t;

	if (!*c->fabric || is_held_off(w, c->to)) {
		ask_http(c);
	} else if ((t = free_talk(w, c->fabric))) {
		t->call = c;
		c->talk = t;
		put_question(t);
	} else if (!make_room(w)) {
		ask_http(c);
	} else if (new_talk(c, &err) < 0) {
		has_failed(w, c->to, err_text(&err));
		atomic_fetch_add(&w->o.counts->fell_back, 1);
		ask_http(c);
	}
}

static void cancel(struct way *w, uint64_t id)
{
	struct call *c;

	LIST_FOREACH(c, &w->all, in_all)
	{
		if (c->id == id)
			break;
	}
	if (!c)
		return;
	if (c->by_http) {
		peer_transport_http.cancel(w->http, c->http_id);
		return;
	}
	if (!c->has_begun)
		has_failed(w, c->to, "has not answered");
	talk_free(c->talk);
	end(c, -ECANCELED, NULL);
}

/* False when it is time to end. */
static bool take_news(struct way *w, bool *ret_any)
{
	struct call *c, *over, *next;
	struct cancel *x, *after;
	bool goes_on;

	pthread_mutex_lock(&w->lock);
	c = w->new_calls;
	w->new_calls = NULL;
	w->last_new = &w->new_calls;
	over = w->over;
	w->over = NULL;
	x = w->cancels;
	w->cancels = NULL;
	goes_on = !w->stops;
	pthread_mutex_unlock(&w->lock);
	*ret_any = c || x;
	for (; over; over = next) {
		next = over->next;
		LIST_REMOVE(over, in_all);
		call_free(over);
	}
	for (; c; c = next) {
		next = c->next;
		LIST_INSERT_HEAD(&w->all, c, in_all);
		begin(c);
	}
	for (; x; x = after) {
		after = x->next;
		cancel(w, x->id);
		free(x);
	}
	return goes_on;
}

/* Connections that do not come about, and those that nobody needs. */
static void watch(struct way *w, int64_t now)
{
	struct talk *t, *next;

	for (t = LIST_FIRST(&w->talks); t; t = next) {
		next = LIST_NEXT(t, in_all);
		if (t->is_ready && !t->call && now - t->since_us > IDLE_US)
			talk_free(t);
		else if (!t->is_ready && now - t->since_us > JOIN_US) {
			fail(t, -ETIMEDOUT, "no connection");
			next = LIST_FIRST(&w->talks); /* the list may be another */
		}
	}
}

static void *drive(void *arg)
{
	struct way *w = arg;
	bool goes_on = false, any;

	while (take_news(w, &any)) {
		int64_t now = peer_now_us();

		if (any || now - w->ticked_us >= TICK_US) {
			w->ticked_us = now;
			watch(w, now);
			pthread_mutex_lock(&w->telling);
			goes_on = w->o.tick(w->o.arg);
			pthread_mutex_unlock(&w->telling);
		}
		peer_fabric_step(w->fabric, !LIST_EMPTY(&w->all) || goes_on ? TICK_MS
		                            : LIST_EMPTY(&w->talks)         ? 3600000
		                                                            : IDLE_US / 4000);
	}
	return NULL;
}

/* ---- The callers' side ---------------------------------------------------------------------------------------- */

static int copy_call(struct call *c, const struct peer_call *call)
{
	size_t n = 0;

	while (call->headers[n])
		n++;
	c->headers = calloc(n + 1, sizeof(*c->headers));
	c->to = strdup(call->to);
	c->fabric = strdup(call->fabric ? call->fabric : "");
	c->path = strdup(call->path);
	if (!c->headers || !c->to || !c->fabric || !c->path)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (!(c->headers[i] = strdup(call->headers[i])))
			return -ENOMEM;
	}
	c->call = *call;
	c->call.to = c->call.fabric = c->call.path = NULL;
	c->call.headers = NULL;
	return 0;
}

static int fabric_ask(void *transport, const struct peer_call *call, uint64_t *ret_id)
{
	struct way *w = transport;
	struct call *c = calloc(1, sizeof(*c));
	int r = c ? copy_call(c, call) : -ENOMEM;

	if (r == 0) {
		c->w = w;
		pthread_mutex_lock(&w->lock);
		r = w->stops ? -ECANCELED : 0;
		if (r == 0) {
			c->id = *ret_id = ++w->last_id;
			*w->last_new = c;
			w->last_new = &c->next;
		}
		pthread_mutex_unlock(&w->lock);
	}
	if (r < 0) {
		if (c)
			call_free(c);
		return r;
	}
	peer_fabric_wake(w->fabric);
	return 0;
}

static void fabric_cancel(void *transport, uint64_t id)
{
	struct way *w = transport;
	struct cancel *x = malloc(sizeof(*x));

	if (!x)
		return; /* it ends by itself */
	x->id = id;
	pthread_mutex_lock(&w->lock);
	x->next = w->cancels;
	w->cancels = x;
	pthread_mutex_unlock(&w->lock);
	peer_fabric_wake(w->fabric);
}

static void fabric_stop(void *transport)
{
	struct way *w = transport;
	struct call *c, *next;
	bool any;

	pthread_mutex_lock(&w->lock);
	w->stops = true;
	pthread_mutex_unlock(&w->lock);
	peer_fabric_wake(w->fabric);
	(void)pthread_join(w->thread, NULL);
	for (c = LIST_FIRST(&w->all); c; c = next) {
		next = LIST_NEXT(c, in_all);
		if (c->by_http)
			continue;
		if (c->talk)
			c->talk->call = NULL;
		end(c, -ECANCELED, NULL);
	}
	peer_transport_http.stop(w->http);
	(void)take_news(w, &any);
	while (!LIST_EMPTY(&w->talks))
		talk_free(LIST_FIRST(&w->talks));
}

static void way_free(struct way *w)
{
	if (w->http)
		peer_transport_http.close(w->http);
	peer_fabric_close(w->fabric);
	for (size_t i = 0; i < MAX_FAILED; i++)
		free(w->failed[i]);
	while (w->cancels) {
		struct cancel *x = w->cancels;

		w->cancels = x->next;
		free(x);
	}
	(void)pthread_mutex_destroy(&w->telling);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

static void fabric_close(void *transport)
{
	way_free(transport);
}

static int fabric_open(const struct peer_transport_opts *o, void **ret, struct err *err)
{
	static const struct peer_fabric_events events = {
		.on_up = on_up, .on_message = on_message, .on_left = on_left, .on_down = on_down
	};
	struct peer_transport_opts http = *o;
	struct way *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&w->telling, NULL);
	(void)pthread_mutex_init(&w->lock, NULL);
	LIST_INIT(&w->all);
	LIST_INIT(&w->talks);
	w->last_new = &w->new_calls;
	w->o = *o;
	http.tick = no_tick;
	r = peer_fabric_open(o->o->fabric_provider, NULL, &events, w, &w->fabric, err);
	if (r == 0)
		r = peer_transport_http.open(&http, &w->http, err);
	if (r == 0 && (r = -pthread_create(&w->thread, NULL, drive, w)) < 0) {
		peer_transport_http.stop(w->http);
		(void)err_set(err, r, "peers cannot be asked: %s", strerror(-r));
	}
	if (r < 0) {
		way_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

const struct peer_transport_ops peer_transport_fabric = { "fabric",      fabric_open, fabric_ask,
	                                                  fabric_cancel, fabric_stop, fabric_close };
