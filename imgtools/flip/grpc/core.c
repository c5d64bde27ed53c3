/* Calls and the threads that answer them.
 *
 * A call is made by its session when a request's headers arrive and queued when its message is whole. A handler's
 * thread takes it, and what the handler sends is put into the call and "posted": the session's thread is woken by
 * an eventfd and moves it into the stream as far as the peer's windows allow. So nghttp2 is used by one thread only,
 * and a handler that sends more than the peer reads sleeps. Threads are started when calls wait and none is idle. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "server_internal.h"

int flip_grpc_thread(pthread_t *ret_thread, void *(*fn)(void *arg), void *arg)
{
	sigset_t all, before;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = -pthread_create(ret_thread, NULL, fn, arg);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* ---- Calls ---- */

struct flip_grpc_call *flip_grpc_call_new(struct flip_grpc_server *s)
{
	struct flip_grpc_call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->server = s;
	call->n_refs = 1;
	call->deadline_ns = UINT64_MAX;
	base_buf_init(&call->request, FLIP_GRPC_PREFIX + FLIP_GRPC_MAX_REQUEST);
	base_buf_init(&call->out, FLIP_GRPC_PREFIX + FLIP_GRPC_MAX_MESSAGE + FLIP_GRPC_OUT_HIGH);
	(void)pthread_cond_init(&call->drained, NULL);
	return call;
}

/* With the lock held; true: the caller frees it after unlocking. */
static bool drop_ref(struct flip_grpc_call *call)
{
	return --call->n_refs == 0;
}

static void call_free(struct flip_grpc_call *call)
{
	(void)atomic_fetch_sub(&call->server->request_bytes, call->request_held);
	base_buf_done(&call->request);
	base_buf_done(&call->out);
	(void)pthread_cond_destroy(&call->drained);
	free(call);
}

void flip_grpc_call_unref(struct flip_grpc_call *call)
{
	struct flip_grpc_server *s = call->server;
	bool is_last;

	(void)pthread_mutex_lock(&s->lock);
	is_last = drop_ref(call);
	(void)pthread_mutex_unlock(&s->lock);
	if (is_last)
		call_free(call);
}

/* With the lock held. */
static void post(struct flip_grpc_call *call)
{
	struct flip_grpc_server *s = call->server;
	uint64_t one = 1;

	if (call->is_posted || call->is_canceled)
		return; /* nobody listens to a canceled one */
	if (!s->posted)
		(void)!write(s->wake_fd, &one, sizeof(one)); /* fails only when it is awake anyway */
	call->is_posted = true;
	call->n_refs++;
	call->next_posted = s->posted;
	s->posted = call;
}

void flip_grpc_server_pump(struct flip_grpc_server *s)
{
	struct flip_grpc_call *call, *next;
	uint64_t n;
	bool is_last;

	(void)!read(s->wake_fd, &n, sizeof(n));
	(void)pthread_mutex_lock(&s->lock);
	call = s->posted;
	s->posted = NULL;
	(void)pthread_mutex_unlock(&s->lock);
	for (; call; call = next) {
		(void)pthread_mutex_lock(&s->lock);
		next = call->next_posted;
		call->is_posted = false;
		(void)pthread_mutex_unlock(&s->lock);
		if (call->session)
			flip_grpc_session_on_call(call->session, call);
		(void)pthread_mutex_lock(&s->lock);
		is_last = drop_ref(call);
		(void)pthread_mutex_unlock(&s->lock);
		if (is_last)
			call_free(call);
	}
}

int flip_grpc_server_wake_fd(const struct flip_grpc_server *s)
{
	return s->wake_fd;
}

void flip_grpc_call_cancel(struct flip_grpc_call *call)
{
	struct flip_grpc_server *s = call->server;

	(void)pthread_mutex_lock(&s->lock);
	call->is_canceled = true;
	if (call->is_queued) {
		struct flip_grpc_call **at = &s->queue;

		while (*at != call)
			at = &(*at)->next_queued;
		*at = call->next_queued;
		if (s->queue_end == &call->next_queued)
			s->queue_end = at;
		s->n_queued--;
		call->is_queued = false;
		(void)drop_ref(call); /* never the last: the session holds it */
	}
	(void)pthread_cond_broadcast(&call->drained);
	(void)pthread_mutex_unlock(&s->lock);
}

size_t flip_grpc_call_read(struct flip_grpc_call *call, uint8_t *ret_data, size_t size, bool *ret_is_end)
{
	struct flip_grpc_server *s = call->server;
	size_t n;

	(void)pthread_mutex_lock(&s->lock);
	n = call->out.len - call->out_pos;
	if (n > size)
		n = size;
	if (n)
		memcpy(ret_data, call->out.data + call->out_pos, n);
	call->out_pos += n;
	*ret_is_end = call->is_done && call->out_pos == call->out.len;
	if (call->out_pos == call->out.len) {
		base_buf_reset(&call->out);
		call->out_pos = 0;
	}
	(void)pthread_cond_broadcast(&call->drained);
	(void)pthread_mutex_unlock(&s->lock);
	return n;
}

/* ---- What handlers use ---- */

const void *flip_grpc_request(const struct flip_grpc_call *call, size_t *ret_size)
{
	*ret_size = call->request.len - FLIP_GRPC_PREFIX;
	return call->request.data + FLIP_GRPC_PREFIX;
}

bool flip_grpc_is_canceled(const struct flip_grpc_call *call)
{
	bool is_canceled;

	(void)pthread_mutex_lock(&call->server->lock);
	is_canceled = call->is_canceled;
	(void)pthread_mutex_unlock(&call->server->lock);
	return is_canceled;
}

/* With the lock held: room for `size` more, or nothing waits at all. */
static bool may_append(const struct flip_grpc_call *call, size_t size)
{
	size_t waiting = call->out.len - call->out_pos;

	return waiting == 0 || waiting + size <= FLIP_GRPC_OUT_HIGH;
}

int flip_grpc_send(struct flip_grpc_call *call, const void *data, size_t size)
{
	struct flip_grpc_server *s = call->server;
	uint8_t prefix[FLIP_GRPC_PREFIX];
	int r = 0;

	if (size > FLIP_GRPC_MAX_MESSAGE)
		return -EFBIG;
	flip_grpc_put_prefix(prefix, size);
	(void)pthread_mutex_lock(&s->lock);
	while (!call->is_canceled && !may_append(call, size))
		(void)pthread_cond_wait(&call->drained, &s->lock);
	if (call->is_canceled) {
		r = -ECANCELED;
	} else {
		if (call->out_pos) { /* little is left */
			memmove(call->out.data, call->out.data + call->out_pos, call->out.len - call->out_pos);
			call->out.len -= call->out_pos;
			call->out_pos = 0;
		}
		r = base_buf_reserve(&call->out, sizeof(prefix) + size);
		if (r == 0) {
			(void)base_buf_append(&call->out, prefix, sizeof(prefix));
			(void)base_buf_append(&call->out, data, size);
			post(call);
		}
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- Threads ---- */

/* With the lock held, also when it returns; not while the handler runs. */
static void run_next(struct flip_grpc_server *s)
{
	struct flip_grpc_call *call = s->queue;
	struct err err = { 0 };
	bool is_last;
	int r;

	s->queue = call->next_queued;
	if (!s->queue)
		s->queue_end = &s->queue;
	s->n_queued--;
	call->is_queued = false;
	(void)pthread_mutex_unlock(&s->lock);

	r = call->method->handler(call, s->arg, &err);
	if (r < 0 && err.code == 0)
		(void)err_set(&err, r, "%s", strerror(-r));

	(void)pthread_mutex_lock(&s->lock);
	call->is_done = true;
	call->result = r < 0 ? r : 0;
	call->err = err;
	post(call);
	is_last = drop_ref(call);
	(void)pthread_mutex_unlock(&s->lock);
	if (is_last)
		call_free(call);
	(void)pthread_mutex_lock(&s->lock);
}

static void *handler_thread(void *arg)
{
	struct flip_grpc_server *s = arg;

	(void)pthread_mutex_lock(&s->lock);
	for (;;) {
		if (s->queue) {
			run_next(s);
			continue;
		}
		if (s->is_stopping)
			break;
		s->n_idle++;
		(void)pthread_cond_wait(&s->has_work, &s->lock);
		s->n_idle--;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return NULL;
}

int flip_grpc_call_queue(struct flip_grpc_call *call)
{
	struct flip_grpc_server *s = call->server;
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	if (s->n_queued >= s->n_idle && s->n_threads < s->max_threads &&
	    flip_grpc_thread(&s->threads[s->n_threads], handler_thread, s) == 0)
		s->n_threads++;
	if (s->n_threads == 0) {
		r = -EAGAIN;
	} else {
		call->n_refs++;
		call->is_queued = true;
		call->next_queued = NULL;
		*s->queue_end = call;
		s->queue_end = &call->next_queued;
		s->n_queued++;
		(void)pthread_cond_signal(&s->has_work);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- The server ---- */

int flip_grpc_server_new(const struct flip_grpc_method *methods, void *arg, unsigned n_handlers,
                         struct flip_grpc_server **ret_server, struct err *err)
{
	struct flip_grpc_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "gRPC: out of memory");
	if (n_handlers == 0)
		n_handlers = 1;
	s->methods = methods;
	s->arg = arg;
	s->max_threads = n_handlers < FLIP_GRPC_MAX_HANDLERS ? n_handlers : FLIP_GRPC_MAX_HANDLERS;
	s->queue_end = &s->queue;
	(void)pthread_mutex_init(&s->lock, NULL);
	(void)pthread_cond_init(&s->has_work, NULL);
	s->threads = calloc(s->max_threads, sizeof(*s->threads));
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = !s->threads ? -ENOMEM : s->wake_fd < 0 ? -errno : flip_grpc_session_callbacks(&s->callbacks, &s->options);
	if (r < 0) {
		flip_grpc_server_free(s);
		return err_set(err, r, "gRPC: %s", strerror(-r));
	}
	*ret_server = s;
	return 0;
}

void flip_grpc_server_free(struct flip_grpc_server *s)
{
	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->is_stopping = true;
	(void)pthread_cond_broadcast(&s->has_work);
	(void)pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->n_threads; i++)
		(void)pthread_join(s->threads[i], NULL);
	if (s->wake_fd >= 0) {
		flip_grpc_server_pump(s); /* what was posted last */
		(void)close(s->wake_fd);
	}
	nghttp2_session_callbacks_del(s->callbacks);
	nghttp2_option_del(s->options);
	free(s->threads);
	free(s->owned);
	(void)pthread_cond_destroy(&s->has_work);
	(void)pthread_mutex_destroy(&s->lock);
	free(s);
}

void flip_grpc_server_own(struct flip_grpc_server *s, void *memory)
{
	s->owned = memory;
}
