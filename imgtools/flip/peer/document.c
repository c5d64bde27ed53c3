/* Questions that wait for one whole thing: a table of contents, a manifest. The owner is asked, then those next in
 * rank; with FLIP_PEER_HOLDER whoever is there, most likely first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "peer_internal.h"

enum { N_TRIES = 4, N_HOLDER_TRIES = 8, ANSWER_S = 4, MORE_S = 60, PATIENCE_US = 10000000, PAUSE_US = 200000 };

struct waiting {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct base_buf *body;
	struct flip_peers *p;
	int status, r; /* protected by lock, with is_done */
	bool is_done;
};

static int on_head(void *arg, const struct peer_head *head)
{
	struct waiting *w = arg;

	pthread_mutex_lock(&w->lock);
	w->status = head->status;
	pthread_mutex_unlock(&w->lock);
	return 0;
}

static int on_data(void *arg, const void *data, size_t size)
{
	struct waiting *w = arg;

	(void)peer_bucket_take(&w->p->down, size, true);
	atomic_fetch_add(&w->p->counts.received, size);
	return base_buf_append(w->body, data, size);
}

static void on_end(void *arg, int r)
{
	struct waiting *w = arg;

	pthread_mutex_lock(&w->lock);
	w->r = r;
	w->is_done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* 0: it is in `body`. -ENOENT: not there; -EBUSY: not yet; others: the member is not well. */
static int ask_one(struct flip_peers *p, const char *to, const struct peer_question *q, struct base_buf *body)
{
	struct waiting w = {
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .body = body, .p = p
	};
	struct peer_call call = {
		.to = to, .path = q->path, .on_head = on_head, .on_data = on_data, .on_end = on_end, .arg = &w
	};
	char **headers = peer_question_headers(p, q);
	bool was_patient = false;
	struct timespec until;
	uint64_t id;
	int r;

	if (!headers)
		return -ENOMEM;
	call.headers = (const char *const *)headers;
	r = p->transport->ask(p->way, &call, &id);
	peer_headers_free(headers);
	if (r < 0)
		return r;
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ANSWER_S;
	pthread_mutex_lock(&w.lock);
	while (!w.is_done) {
		if (pthread_cond_timedwait(&w.cond, &w.lock, &until) != ETIMEDOUT || w.is_done)
			continue;
		if (w.status && !was_patient) { /* it comes, slowly */
			was_patient = true;
			until.tv_sec += MORE_S;
		} else {
			p->transport->cancel(p->way, id);
			until.tv_sec += 3600;
		}
	}
	pthread_mutex_unlock(&w.lock);
	(void)pthread_mutex_destroy(&w.lock);
	(void)pthread_cond_destroy(&w.cond);
	if (w.r < 0)
		return w.r == -ENOENT ? -EIO : w.r;
	return w.status == 200 ? 0 : w.status == 404 || w.status == 403 ? -ENOENT : w.status == 503 ? -EBUSY : -EPROTO;
}

static uint32_t whom(struct flip_peers *p, uint64_t group, enum flip_peer_role most, const uint32_t *tried,
                     size_t n_tried)
{
	uint32_t ranked[16];
	size_t n = peer_rank(&p->members, group, NULL, peer_now_us(), tried, n_tried, ranked, 16);

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
	struct base_buf path = BASE_BUF_INIT(512);
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
		char name[FLIP_PEER_NAME];
		uint32_t m;

		pthread_mutex_lock(&p->lock);
		m = p->is_stopping ? PEER_NOBODY
		                   : whom(p, peer_group_hash(blob->digest, UINT64_MAX / 2), most, tried, n);
		if (m != PEER_NOBODY)
			memcpy(name, p->members.items[m]->name, sizeof(name));
		pthread_mutex_unlock(&p->lock);
		if (m == PEER_NOBODY) {
			r = most == FLIP_PEER_HOLDER ? -ENOENT : -EXDEV;
			break;
		}
		tried[n] = m;
		r = ask_one(p, name, &q, ret);
		for (int64_t began = peer_now_us(); r == -EBUSY && peer_now_us() - began < PATIENCE_US;) {
			(void)usleep(PAUSE_US);
			ret->len = before;
			r = ask_one(p, name, &q, ret);
		}
		if (r == 0) {
			atomic_fetch_add(&p->counts.documents_got, 1);
			*ret_from = m;
			break;
		}
		ret->len = before; /* of an answer that was cut */
		if (base_buf_error(ret))
			break;
		if (r != -ENOENT && r != -ECANCELED && r != -EBUSY) {
			pthread_mutex_lock(&p->lock);
			peer_member_failed(p->members.items[m], false, peer_now_us(), strerror(-r));
			pthread_mutex_unlock(&p->lock);
		}
		r = -ENOENT;
	}
	base_buf_done(&path);
	return r < 0 ? err_set(err, r, "no peer has the %s of %.19s", document, blob->digest) : 0;
}
