/* Questions that wait for one whole thing: a table of contents, a manifest. The owner is asked, then those next in
 * rank; with FLIP_PEER_HOLDER whoever is there, most likely first; or everyone, for who has what. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "peer_internal.h"

enum {
	N_TRIES = 4,
	N_HOLDER_TRIES = 8,
	N_AT_ONCE = 16, /* of everyone */
	LOOK_S = 2,     /* so often it is looked whether an answer gets on */
	MAX_LOOKS = 30,
	MAX_SILENT = 2, /* looks without a first word */
	LOOK_BYTES = 16 << 10,
	PATIENCE_US = 5000000, /* with one who is busy */
	PAUSE_US = 200000
};

struct waiting {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct base_buf *body;
	struct flip_peers *p;
	int status, r; /* protected by lock, with all below */
	bool is_done;
	size_t n_bytes;
	char why[256];
	uint64_t id; /* of the transport */
	struct timespec until;
};

static int on_head(void *arg, const struct peer_head *head)
{
	struct waiting *w = arg;

	pthread_mutex_lock(&w->lock);
	w->status = head->status;
	(void)snprintf(w->why, sizeof(w->why), "answers with status %d%s%s", head->status, head->words[0] ? ": " : "",
	               head->words);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static int on_data(void *arg, const void *data, size_t size)
{
	struct waiting *w = arg;

	(void)peer_bucket_take(&w->p->down, size, FLIP_FOREGROUND);
	atomic_fetch_add(&w->p->counts.received, size);
	pthread_mutex_lock(&w->lock);
	w->n_bytes += size;
	pthread_mutex_unlock(&w->lock);
	return base_buf_append(w->body, data, size);
}

static void on_end(void *arg, int r, const char *why)
{
	struct waiting *w = arg;

	pthread_mutex_lock(&w->lock);
	w->r = r;
	if (r < 0 && r != -ECANCELED)
		(void)snprintf(w->why, sizeof(w->why), "%s", why ? why : strerror(-r));
	w->is_done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* Where a member listens for libfabric; "" when it does not. */
static void fabric_of(struct flip_peers *p, const char *name, char ret[FLIP_PEER_NAME])
{
	uint32_t m;

	pthread_mutex_lock(&p->lock);
	m = peer_members_find(&p->members, name);
	(void)snprintf(ret, FLIP_PEER_NAME, "%s", m == PEER_NOBODY ? "" : p->members.items[m]->fabric);
	pthread_mutex_unlock(&p->lock);
}

/* What was begun must be waited for. */
static int begin(struct flip_peers *p, const char *to, const struct peer_question *q, struct base_buf *body,
                 struct waiting *w)
{
	char fabric[FLIP_PEER_NAME];
	struct peer_call call = { .to = to,
		                  .fabric = fabric,
		                  .path = q->path,
		                  .on_head = on_head,
		                  .on_data = on_data,
		                  .on_end = on_end,
		                  .arg = w };
	char **headers = peer_question_headers(p, q);
	int r;

	*w = (struct waiting){
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .body = body, .p = p
	};
	if (!headers)
		return -ENOMEM;
	fabric_of(p, to, fabric);
	(void)clock_gettime(CLOCK_REALTIME, &w->until);
	w->until.tv_sec += LOOK_S;
	call.headers = (const char *const *)headers;
	r = p->transport->ask(p->way, &call, &w->id);
	peer_headers_free(headers);
	return r;
}

/* 0: it is in the body. -ENOENT: not there; -EBUSY: not yet; others: the member is not well. */
static int await(struct waiting *w)
{
	struct flip_peers *p = w->p;
	unsigned n_looks = 0, n_silent = 0;
	size_t seen = 0;
	bool gave_up = false;

	pthread_mutex_lock(&w->lock);
	while (!w->is_done) {
		if (pthread_cond_timedwait(&w->cond, &w->lock, &w->until) != ETIMEDOUT || w->is_done)
			continue;
		if (w->status ? (!n_looks || w->n_bytes - seen >= LOOK_BYTES) && n_looks < MAX_LOOKS
		              : ++n_silent < MAX_SILENT) {
			n_looks += w->status != 0; /* it comes, slowly */
			seen = w->n_bytes;
			w->until.tv_sec += LOOK_S;
		} else {
			(void)snprintf(w->why, sizeof(w->why), "%s",
			               w->status ? "a document does not get on" : "does not answer");
			gave_up = true;
			p->transport->cancel(p->way, w->id);
			w->until.tv_sec += 3600;
		}
	}
	pthread_mutex_unlock(&w->lock);
	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_cond_destroy(&w->cond);
	if (w->r < 0)
		return gave_up && w->status ? -ETIMEDOUT : w->r == -ENOENT ? -EIO : w->r;
	return w->status == 200                       ? 0
	       : w->status == 404 || w->status == 403 ? -ENOENT
	       : w->status == 503                     ? -EBUSY
	                                              : -EPROTO;
}

static int ask_one(struct flip_peers *p, const char *to, const struct peer_question *q, struct base_buf *body,
                   char ret_why[256])
{
	struct waiting w;
	int r = begin(p, to, q, body, &w);

	if (r == 0)
		r = await(&w);
	else
		(void)snprintf(w.why, sizeof(w.why), "%s", strerror(-r));
	memcpy(ret_why, w.why, sizeof(w.why));
	return r;
}

/* What was wrong was the member. */
static void failed(struct flip_peers *p, const char *name, int r, const char *why)
{
	uint32_t m;

	if (r == -ENOENT || r == -ECANCELED || r == -EBUSY)
		return;
	pthread_mutex_lock(&p->lock);
	m = peer_members_find(&p->members, name);
	if (m != PEER_NOBODY)
		peer_member_failed(p->members.items[m], false, peer_now_us(), why);
	pthread_mutex_unlock(&p->lock);
}

static bool is_among(uint32_t member, const uint32_t *list, size_t n)
{
	while (n > 0 && list[n - 1] != member)
		n--;
	return n > 0;
}

static uint32_t whom(struct flip_peers *p, const char *seed_names, uint64_t group, enum flip_peer_role most,
                     const uint32_t *tried, size_t n_tried)
{
	uint32_t ranked[16], seeds[FLIP_PEER_MAX_SEEDS];
	unsigned n_seeds = most == FLIP_PEER_HOLDER ? peer_seeds(p, seed_names, seeds) : 0;
	size_t n = peer_rank(&p->members, group, NULL, peer_now_us(), tried, n_tried, ranked, 16);

	for (unsigned i = 0; i < n_seeds; i++) {
		if (!is_among(seeds[i], tried, n_tried) &&
		    peer_member_is_live(p->members.items[seeds[i]], peer_now_us()))
			return seeds[i];
	}
	for (size_t i = 0; i < n; i++) {
		if (ranked[i] != p->members.self)
			return ranked[i];
		if (most != FLIP_PEER_HOLDER)
			return PEER_NOBODY; /* ours */
	}
	return PEER_NOBODY;
}

int flip_peers_document(struct flip_peers *p, const struct flip_peer_blob *blob, const char *document,
                        enum flip_peer_role most, struct base_buf *ret, unsigned *ret_from, struct err *err)
{
	size_t max = most == FLIP_PEER_HOLDER ? N_HOLDER_TRIES : N_TRIES, before = ret->len;
	uint32_t tried[N_HOLDER_TRIES];
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(512);
	char trace[FLIP_PEER_TRACE];
	struct peer_question q = { .image = blob->image,
		                   .grant = blob->grant ? blob->grant : "public",
		                   .role = most == FLIP_PEER_HOLDER ? "holder" : "owner",
		                   .trace = trace };
	int r = -ENOENT;

	if (!p || !atomic_load(&p->n_live))
		return err_set(err, most == FLIP_PEER_HOLDER ? -ENOENT : -EXDEV, "no peers");
	peer_trace_new(trace);
	if (base_buf_printf(&path, "/flip/1/%s/%s/%s", blob->kind, blob->digest, document) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	q.path = base_buf_text(&path);
	atomic_fetch_add(&p->counts.documents_asked, 1);
	for (size_t n = 0; n < max; n++) {
		char name[FLIP_PEER_NAME], why[256];
		uint32_t m;

		pthread_mutex_lock(&p->lock);
		m = p->is_stopping ? PEER_NOBODY
		                   : whom(p, blob->seeds ? blob->seeds : "",
		                          peer_group_hash(blob->digest, UINT64_MAX / 2), most, tried, n);
		if (m != PEER_NOBODY)
			memcpy(name, p->members.items[m]->name, sizeof(name));
		pthread_mutex_unlock(&p->lock);
		if (m == PEER_NOBODY) {
			r = most == FLIP_PEER_HOLDER ? -ENOENT : -EXDEV;
			break;
		}
		tried[n] = m;
		r = ask_one(p, name, &q, ret, why);
		for (int64_t began = peer_now_us(); r == -EBUSY && peer_now_us() - began < PATIENCE_US;) {
			(void)usleep(PAUSE_US);
			ret->len = before;
			r = ask_one(p, name, &q, ret, why);
		}
		if (r == 0) {
			atomic_fetch_add(&p->counts.documents_got, 1);
			*ret_from = m;
			break;
		}
		ret->len = before; /* of an answer that was cut */
		if (base_buf_error(ret))
			break;
		failed(p, name, r, why);
		r = -ENOENT;
	}
	return r < 0 ? err_set(err, r, "no peer has the %s of %.19s", document, blob->digest) : 0;
}

/* ---- Everyone --------------------------------------------------------------------------------------------------- */

/* The names of all others that are live, the caller's. */
static size_t live_names(struct flip_peers *p, char (**ret_names)[FLIP_PEER_NAME])
{
	char(*names)[FLIP_PEER_NAME] = NULL;
	int64_t now = peer_now_us();
	size_t n = 0;

	pthread_mutex_lock(&p->lock);
	names = calloc(p->members.n + 1, sizeof(*names));
	for (size_t i = 0; names && i < p->members.n && !p->is_stopping; i++) {
		if (i != p->members.self && peer_member_is_live(p->members.items[i], now))
			memcpy(names[n++], p->members.items[i]->name, sizeof(*names));
	}
	pthread_mutex_unlock(&p->lock);
	*ret_names = names;
	return n;
}

int flip_peers_everyone(struct flip_peers *p, const struct flip_peer_blob *blob, const char *document,
                        flip_peer_found each, void *arg, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(512);
	char(*names)[FLIP_PEER_NAME] = NULL;
	char trace[FLIP_PEER_TRACE];
	struct peer_question q = {
		.image = blob->image, .grant = blob->grant ? blob->grant : "public", .role = "holder", .trace = trace
	};
	size_t n, n_found = 0;

	if (!p || !atomic_load(&p->n_live))
		return 0;
	peer_trace_new(trace);
	n = live_names(p, &names);
	if (!names || base_buf_printf(&path, "/flip/1/%s/%s/%s", blob->kind, blob->digest, document) < 0) {
		free(names);
		return err_set(err, -ENOMEM, "out of memory");
	}
	q.path = base_buf_text(&path);
	atomic_fetch_add(&p->counts.documents_asked, 1);
	for (size_t first = 0; first < n; first += N_AT_ONCE) {
		size_t n_now = n - first < N_AT_ONCE ? n - first : N_AT_ONCE;
		struct base_buf bodies[N_AT_ONCE];
		struct waiting waiting[N_AT_ONCE];
		int r[N_AT_ONCE];

		for (size_t i = 0; i < n_now; i++) {
			base_buf_init(&bodies[i], FLIP_PEER_MAX_SHORT);
			r[i] = begin(p, names[first + i], &q, &bodies[i], &waiting[i]);
		}
		for (size_t i = 0; i < n_now; i++) {
			if (r[i] == 0)
				r[i] = await(&waiting[i]);
			if (r[i] == 0 && base_buf_error(&bodies[i]) == 0) {
				n_found++;
				each(arg, names[first + i], base_buf_text(&bodies[i]), bodies[i].len);
			} else if (r[i] < 0) {
				failed(p, names[first + i], r[i], waiting[i].why[0] ? waiting[i].why : strerror(-r[i]));
			}
			base_buf_done(&bodies[i]);
		}
	}
	free(names);
	return (int)n_found;
}
