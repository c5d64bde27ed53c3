/* Several engine requests for one answer; see many.h. */
#include "many.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

enum { IN_FLIGHT = 16 };

static void many_free(void *work)
{
	struct many *m = work;

	for (size_t i = 0; i < m->n; i++) {
		free(m->parts[i].ids);
		free(m->parts[i].vector);
	}
	free(m->parts);
	http_params_done(&m->p);
	free(m);
}

static void many_cancel(void *work)
{
	struct many *m = work;

	for (size_t i = 0; i < m->n; i++) {
		if (m->parts[i].is_running)
			eng_cancel(m->x->http->engine, m->parts[i].request_id);
	}
}

static void finish(struct many *m)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(HTTP_MAX_RESPONSE);
	int r = m->n_submitted < m->n ? -ESHUTDOWN : 0; /* cancelled between two of them */

	if (r == 0 && !m->error.status)
		r = m->api->reply(m, &out);
	if (r < 0)
		gen_error_of(r, &(struct err){ 0 }, &m->error);
	if (m->error.status)
		exchange_reply_error(m->x, &m->error);
	else
		exchange_reply(m->x, 200, &out);
}

static void submit(struct many *m);

static void on_event(void *arg, const struct eng_event *ev)
{
	struct many_part *part = arg;
	struct many *m = part->many;
	struct exchange *x = m->x;

	exchange_lock(x);
	if (ev->kind != ENG_EV_DONE) {
		m->api->result(part, ev);
	} else {
		part->is_running = false;
		m->n_running--;
		if (!part->has_result)
			gen_error_of(ev->error ? ev->error->code : -ESHUTDOWN,
			             ev->error ? ev->error : &(struct err){ 0 }, &m->error);
		submit(m);
		if (m->n_running == 0)
			finish(m);
	}
	exchange_unlock(x);
	if (ev->kind == ENG_EV_DONE)
		exchange_unref(x);
}

/* Locked. Submits up to the limit; after the first failure nothing more. */
static void submit(struct many *m)
{
	while (m->n_submitted < m->n && m->n_running < IN_FLIGHT && !m->error.status && !m->x->is_canceled) {
		struct many_part *part = &m->parts[m->n_submitted];
		struct eng_request req = { .adapter = m->x->adapter,
			                   .ids = part->ids,
			                   .n_ids = part->n_ids,
			                   .logprob_start = -1,
			                   .client = m->x->client,
			                   .on_event = on_event,
			                   .arg = part };
		struct err err = { 0 };
		int r;

		m->api->request(m, &req);
		exchange_ref(m->x);
		r = eng_submit(m->x->http->engine, &req, &part->request_id, &err);
		if (r < 0) {
			exchange_unref(m->x);
			gen_error_of(r, &err, &m->error);
			return;
		}
		part->is_running = true;
		m->n_submitted++;
		m->n_running++;
	}
}

static int prepare(struct many *m, struct http_error *e)
{
	struct eng_sampling defaults;
	int r;

	eng_sampling_defaults(m->x->http->engine, &defaults);
	r = m->api->parse(base_buf_text(&m->x->body), m->x->body.len, &defaults, &m->p, e);
	if (r == 0)
		r = http_pick_adapter(m->x, m->p.body, e);
	if (r < 0)
		return r;
	m->parts = calloc(m->p.n_prompts, sizeof(*m->parts));
	if (!m->parts)
		return -ENOMEM;
	m->n = m->p.n_prompts;
	for (size_t i = 0; i < m->n; i++)
		m->parts[i].many = m;
	return m->api->prepare(m, e);
}

void http_handle_many(struct exchange *x, const struct many_api *api)
{
	struct many *m = calloc(1, sizeof(*m));
	struct http_error e = { 0 };
	int r = -ENOMEM;

	if (m) {
		m->x = x;
		m->api = api;
		r = prepare(m, &e);
	}
	exchange_lock(x);
	if (m) {
		x->work = m;
		x->cancel = many_cancel;
		x->free_work = many_free;
		watch_add(x);
	}
	if (r == 0 && !x->is_ready) { /* else the server ends, and has said so meanwhile */
		submit(m);
		e = m->error;
		r = m->n_running > 0 ? 0 : -EBUSY;
	}
	if (r < 0) {
		gen_error_of(r, &(struct err){ 0 }, &e);
		exchange_reply_error(x, &e);
	}
	exchange_unlock(x);
}
