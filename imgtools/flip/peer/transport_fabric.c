/* Questions over libfabric, and by HTTP where that does not get through. fabric_talk.c has the connections; here is
 * which way each question goes.
 *
 * Members without an address for libfabric are asked by HTTP, and so is whatever did not get through before its answer
 * had begun: a member that fails in this is asked by HTTP alone for a time that doubles.
 *
 * One thread owns all connections of libfabric; HTTP's has another one, and what both tell takes turns (`telling`). */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/log.h"
#include "peer/fabric_talk.h"
#include "peer/limit.h"
#include "peer/transport.h"

enum {
	TICK_MS = 100,
	TICK_US = 50000,
	MAX_FAILED = 256,
	HOLD_US = 5000000, /* a member is asked by HTTP alone, twice as long each time */
	MAX_DOUBLINGS = 6
};

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
	struct peer_talk *talk; /* that carries it; NULL: none yet, or HTTP */
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
	struct peer_talks *talks;
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
	peer_talks_wake(w->talks);
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

/* ---- By libfabric ----------------------------------------------------------------------------------------------- */

static void fall_back(struct call *c, const char *why)
{
	has_failed(c->w, c->to, why);
	atomic_fetch_add(&c->w->o.counts->fell_back, 1);
	ask_http(c);
}

static void on_joined(void *call)
{
	struct call *c = call;

	has_worked(c->w, c->to);
}

static int on_head(void *call, const struct peer_head *head)
{
	struct call *c = call;
	int r;

	c->head = *head;
	c->has_begun = true;
	if (head->status / 100 != 2)
		return 0; /* told at its end */
	pthread_mutex_lock(&c->w->telling);
	r = c->call.on_head(c->call.arg, &c->head);
	pthread_mutex_unlock(&c->w->telling);
	return r;
}

static int on_data(void *call, const void *data, size_t size)
{
	struct call *c = call;
	int r;

	pthread_mutex_lock(&c->w->telling);
	r = c->call.on_data(c->call.arg, data, size);
	pthread_mutex_unlock(&c->w->telling);
	return r;
}

static void on_end(void *call, bool was_cut)
{
	struct call *c = call;

	c->talk = NULL;
	end(c, was_cut ? -EIO : 0, "an answer was cut");
}

/* What becomes of the question depends on how far it came. */
static void on_lost(void *call, int r, const char *why, bool was_kept)
{
	struct call *c = call;

	c->talk = NULL;
	if (c->has_begun) {
		end(c, r, why);
	} else if (was_kept && !c->was_retried) {
		c->was_retried = true; /* the other end had just closed what was kept */
		begin(c);
	} else {
		fall_back(c, why);
	}
}

static void begin(struct call *c)
{
	struct err err = { 0 };
	int r = 1;

	if (*c->fabric && !is_held_off(c->w, c->to))
		r = peer_talks_ask(c->w->talks, c->fabric, c->path, (const char *const *)c->headers, c, &c->talk, &err);
	if (r < 0)
		fall_back(c, err_text(&err));
	else if (r > 0)
		ask_http(c);
}

/* ---- The thread ---- */

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
	peer_talk_close(c->talk);
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

static void *drive(void *arg)
{
	struct way *w = arg;
	bool goes_on = false, any;

	while (take_news(w, &any)) {
		int64_t now = peer_now_us();

		if (any || now - w->ticked_us >= TICK_US) {
			w->ticked_us = now;
			peer_talks_watch(w->talks, now);
			pthread_mutex_lock(&w->telling);
			goes_on = w->o.tick(w->o.arg);
			pthread_mutex_unlock(&w->telling);
		}
		peer_talks_step(w->talks, !LIST_EMPTY(&w->all) || goes_on ? TICK_MS : -1);
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
	peer_talks_wake(w->talks);
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
	peer_talks_wake(w->talks);
}

static void fabric_stop(void *transport)
{
	struct way *w = transport;
	struct call *c, *next;
	bool any;

	pthread_mutex_lock(&w->lock);
	w->stops = true;
	pthread_mutex_unlock(&w->lock);
	peer_talks_wake(w->talks);
	(void)pthread_join(w->thread, NULL);
	for (c = LIST_FIRST(&w->all); c; c = next) {
		next = LIST_NEXT(c, in_all);
		if (c->by_http)
			continue;
		if (c->talk)
			peer_talk_close(c->talk);
		end(c, -ECANCELED, NULL);
	}
	peer_transport_http.stop(w->http);
	(void)take_news(w, &any);
}

static void way_free(struct way *w)
{
	if (w->http)
		peer_transport_http.close(w->http);
	peer_talks_close(w->talks);
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
	static const struct peer_talks_events events = { on_joined, on_head, on_data, on_end, on_lost };
	struct peer_transport_opts http = *o;
	struct way *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&w->telling, NULL);
	(void)pthread_mutex_init(&w->lock, NULL);
	LIST_INIT(&w->all);
	w->last_new = &w->new_calls;
	w->o = *o;
	http.tick = no_tick;
	r = peer_talks_open(o->o->fabric_provider, o->token, o->counts, &events, &w->talks, err);
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
