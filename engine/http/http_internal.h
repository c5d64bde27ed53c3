/* Shared by the front's files:
 *   server.c    sockets, open and close
 *   loop.c      a thread that accepts and serves connections
 *   exchange.c  one request and its answer: body in, reply or stream out
 *   watch.c     the thread that sees clients leave and keeps silent streams alive
 *   table.c     the table of routes; routes.c the small ones
 *   gen.c       requests that generate: submit, collect, finish; the API's shape through struct gen_api
 *   gen_shape.c what the shapes of their answers share
 *   speak.c     chat: prompt, and the parts of an answer
 *   many.c      requests with several engine requests in one answer: embed.c, rerank.c
 *   chat.c, completions.c, generate.c, ...   the shapes
 *
 * An exchange has two sides that may be alive at different times: the connection (a loop's
 * thread) and the work (the engine's thread, through events). Each holds a reference; exchange->lock
 * guards what both touch. Lock order: exchange, then engine or libmicrohttpd; server->lock is taken
 * alone or inside exchange->lock. */
#ifndef HTTP_INTERNAL_H
#define HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "engine.h"
#include "engine_http.h"
#include "params.h"

enum {
	HTTP_MAX_RESPONSE = 256 << 20,
	HTTP_MAX_SOCKETS = ENG_HTTP_MAX_SOCKETS,
	HTTP_MAX_HEAD = 64 << 10, /* request line and headers */
	/* The library's own ceiling for a connection, which it takes from the system as it is touched: what is beyond
	 * it is answered by a page of its own instead of JSON. */
	HTTP_CONNECTION_MEMORY = 256 << 10,
};

struct exchange;
struct http_loop;
struct http_store;

enum { HTTP_N_BUCKETS = 16 };
struct http_histogram {
	atomic_ullong counts[HTTP_N_BUCKETS + 1], sum_us;
};
struct http_times {
	struct http_histogram first_token, per_token, whole;
};

struct http_keys {
	unsigned char (*digests)[32];
	size_t n; /* 0: everybody is served */
};

struct eng_http {
	struct eng_engine *engine;
	struct eng_http_config config;
	char *socket_path;
	struct http_loop **loops; /* room for HTTP_MAX_SOCKETS * config.n_threads */
	size_t n_loops;
	int listen_fds[HTTP_MAX_SOCKETS];
	size_t n_listen_fds;
	uint16_t port;
	atomic_bool is_closing;
	int64_t started;                            /* seconds since 1970 */
	const char *tool_format, *reasoning_format; /* of the model, or as configured (engine_chat.h) */
	struct http_times times;
	struct http_keys keys;
	struct http_store *store; /* of responses */

	pthread_mutex_t lock;
	/* protected by lock */
	struct exchange *active; /* between the first byte of a request and its completion */
	uint64_t next_serial;
	uint64_t idle_since_ms; /* when the last one left */
	uint64_t n_http_requests, n_http_errors;

	/* watch.c */
	pthread_t watcher;
	bool has_watcher;
	int epoll_fd, wake_fd;
	atomic_bool watcher_stop;
	atomic_uint n_workers;   /* threads that change something for an operator */
	atomic_uint n_waiting;   /* exchanges that wait for the engine */
	atomic_uint n_exchanges; /* all that there are, also those that only the engine still has */
};

/* What happens to the work when the client is gone or the server closes: called once at most, with the
 * exchange locked. */
typedef void (*exchange_cancel_fn)(void *work);
typedef void (*exchange_free_fn)(void *work);

struct exchange {
	struct eng_http *http;
	struct exchange *prev, *next; /* in http->active; protected by http->lock */
	uint64_t serial;
	uint64_t client; /* see eng_request; set when the request is whole */
	atomic_uint refs;

	/* The connection's side. */
	struct http_loop *loop;
	struct MHD_Connection *conn;
	const struct route *route;
	char *url;
	struct base_buf body;
	bool body_too_large, is_dispatched, is_answered;
	bool is_refused; /* no key */

	pthread_mutex_t lock;
	/* protected by lock */
	struct base_buf out; /* the reply, or what the stream has not sent yet */
	size_t out_sent;     /* stream: bytes of out already sent */
	unsigned status;
	const char *content_type;
	bool is_stream;   /* answered by server-sent events */
	bool is_ready;    /* the reply is whole, or the stream has begun */
	bool is_finished; /* stream: nothing more comes */
	bool is_suspended;
	bool is_gone;       /* the client left; output goes nowhere */
	bool is_overflowed; /* stream: the reader was too slow */
	bool is_canceled;
	uint32_t adapter; /* that the request asks for; 0: none */
	char *rid;        /* the client's name for the request, or NULL */
	bool is_aborted;  /* by /abort_request: the answer so far is given */
	uint64_t last_write_ms;

	void *work;
	exchange_cancel_fn cancel;
	exchange_free_fn free_work;
};

struct route {
	const char *path;   /* a '*' at the end: any one more component */
	const char *method; /* "GET" or "POST" */
	void (*handle)(struct exchange *x);
	enum route_flags { ROUTE_PUBLIC = 1, ROUTE_ANTHROPIC = 2 /* its errors have that shape */ } flags;
};

static inline uint64_t http_now_ms(void)
{
	return (uint64_t)base_now_ms();
}

static inline uint64_t http_now_us(void)
{
	return (uint64_t)base_now_us();
}

/* auth.c */
int http_keys_read(const char *path, struct http_keys *keys, struct err *err);
void http_keys_done(struct http_keys *keys);
/* The values of the two headers, NULL when they are missing. */
bool http_is_allowed(const struct http_keys *keys, const char *authorization, const char *x_api_key);

/* times.c */
void http_times_add(struct http_histogram *h, uint64_t us);
void http_times_append(const struct http_times *t, struct base_buf *out);

/* exchange.c. The reply functions are called with the exchange locked and wake the connection. */
void exchange_ref(struct exchange *x);
void exchange_unref(struct exchange *x);
/* Iterates over what is active in the order of arrival, from *next (0 at first) on; the caller's
 * reference. */
struct exchange *exchange_next_active(struct eng_http *http, uint64_t *next);
void exchange_lock(struct exchange *x);
void exchange_unlock(struct exchange *x);
/* A whole reply, unless there is one already; body is empty afterwards. */
void exchange_reply(struct exchange *x, unsigned status, struct base_buf *body);
void exchange_reply_error(struct exchange *x, const struct http_error *e);
/* Shorthand: status, type and message. */
void exchange_fail(struct exchange *x, int status, const char *type, const char *code, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));
/* Server-sent events: bytes as given. The first write sends the status line. */
void exchange_stream(struct exchange *x, const void *data, size_t len);
void exchange_stream_end(struct exchange *x);
/* Appends one event; json has no end of line in it. name may be NULL. */
void http_event(const char *name, const struct base_buf *json, struct base_buf *out);
/* Cancels the work once. */
void exchange_cancel(struct exchange *x);
/* cls: the loop */
enum MHD_Result exchange_access(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **req_cls);
void exchange_completed(void *cls, struct MHD_Connection *conn, void **req_cls, enum MHD_RequestTerminationCode toe);
void http_error_body(const struct http_error *e, struct base_buf *out);

/* table.c. NULL with *ret_allow set: the path exists, for another method. */
const struct route *route_find(const char *path, const char *method, const char **ret_allow);

/* watch.c */
int watch_start(struct eng_http *http, struct err *err);
void watch_stop(struct eng_http *http);
void watch_add(struct exchange *x);
void watch_remove(struct exchange *x);

/* The handlers of other files. */
void handle_chat(struct exchange *x);
void handle_completion(struct exchange *x);
void handle_generate(struct exchange *x);
void handle_embeddings(struct exchange *x);
void handle_rerank(struct exchange *x);
void handle_messages(struct exchange *x);
void handle_count_tokens(struct exchange *x);
void handle_responses(struct exchange *x);
void handle_response_get(struct exchange *x);
void handle_response_delete(struct exchange *x);
/* native.c */
void handle_model_info(struct exchange *x);
void handle_server_info(struct exchange *x);
void handle_weight_version(struct exchange *x);
void handle_flush_cache(struct exchange *x);
void handle_abort(struct exchange *x);
void handle_pause(struct exchange *x);
void handle_continue(struct exchange *x);
void handle_health_generate(struct exchange *x);
void handle_update_weights(struct exchange *x);
/* llama.c */
void handle_props(struct exchange *x);
void handle_slots(struct exchange *x);
void handle_apply_template(struct exchange *x);
/* page.c */
void handle_page(struct exchange *x);
/* routes.c */
void handle_health(struct exchange *x);
void handle_models(struct exchange *x);
void handle_model(struct exchange *x);
void handle_tokenize(struct exchange *x);
void handle_detokenize(struct exchange *x);
void handle_metrics(struct exchange *x);

#endif
