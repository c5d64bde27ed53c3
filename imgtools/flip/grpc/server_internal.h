/* The server's inside: who holds a call, and which fields belong to whom. */
#ifndef FLIP_GRPC_SERVER_INTERNAL_H
#define FLIP_GRPC_SERVER_INTERNAL_H

#include <nghttp2/nghttp2.h>
#include <pthread.h>
#include <stdatomic.h>

#include "grpc_internal.h"

enum {
	FLIP_GRPC_MAX_STREAMS = 128,            /* of one connection */
	FLIP_GRPC_MAX_HEADERS = 16 << 10,       /* bytes of one request's headers, as HTTP/2 counts them */
	FLIP_GRPC_MAX_REQUEST_BYTES = 64 << 20, /* requests of all connections that are held at a time */
	FLIP_GRPC_OUT_HIGH = 256 << 10,         /* more waits until the peer has read */
	FLIP_GRPC_MAX_HANDLERS = 256,
};

/* Held by its session while the stream is open, by the queue or the handler until it has returned, and by each posting:
 * the last of them frees it. */
struct flip_grpc_call {
	struct flip_grpc_server *server;

	/* Of the session's thread until the call is queued, read-only for its handler after that. */
	const struct flip_grpc_method *method;
	struct base_buf request; /* prefix and message */
	size_t request_held;     /* counted in the server's request_bytes */

	/* Of the session's thread. */
	struct flip_grpc_session *session; /* NULL: the stream is closed */
	struct flip_grpc_call *prev, *next;
	int32_t stream_id;
	uint64_t deadline_ns; /* UINT64_MAX: none */
	size_t header_bytes;
	bool is_post, is_grpc; /* as its headers say */
	bool has_headers_sent; /* the answer has begun */
	bool is_answered;      /* by us: what the handler has to say comes too late */
	bool is_ended;         /* the trailers are on their way */

	/* Protected by server->lock. */
	unsigned n_refs;
	struct flip_grpc_call *next_queued, *next_posted;
	bool is_queued, is_posted, is_canceled, is_done;
	int result;
	struct err err;
	struct base_buf out; /* what the peer has not taken; read from out_pos on */
	size_t out_pos;
	pthread_cond_t drained;
};

struct flip_grpc_loop; /* server.c: socket and connections */

struct flip_grpc_server {
	const struct flip_grpc_method *methods;
	void *arg, *owned;
	atomic_size_t request_bytes;
	int wake_fd;
	struct flip_grpc_loop *loop;
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *options;

	pthread_mutex_t lock;
	pthread_cond_t has_work;
	struct flip_grpc_call *queue, **queue_end; /* protected by lock, as all below */
	struct flip_grpc_call *posted;
	size_t n_queued;
	unsigned n_threads, n_idle, max_threads;
	pthread_t *threads;
	bool is_stopping;
};

/* core.c, for the session's thread */
struct flip_grpc_call *flip_grpc_call_new(struct flip_grpc_server *s);
void flip_grpc_call_unref(struct flip_grpc_call *call);
int flip_grpc_call_queue(struct flip_grpc_call *call);   /* -EAGAIN: no thread can be had */
void flip_grpc_call_cancel(struct flip_grpc_call *call); /* its handler is told; one that has not begun never will */
/* Moves up to size bytes out; *ret_is_end: nothing follows. */
size_t flip_grpc_call_read(struct flip_grpc_call *call, uint8_t *ret_data, size_t size, bool *ret_is_end);

/* session.c: the handler has something to say. */
void flip_grpc_session_on_call(struct flip_grpc_session *s, struct flip_grpc_call *call);
int flip_grpc_session_callbacks(nghttp2_session_callbacks **ret_callbacks, nghttp2_option **ret_options);

/* All signals are blocked in threads of ours: they are the program's. */
int flip_grpc_thread(pthread_t *ret_thread, void *(*fn)(void *arg), void *arg);

#endif
