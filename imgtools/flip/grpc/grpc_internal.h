/* What the files of this room share: status codes, the wire's small encodings, the two sides of a connection. */
#ifndef FLIP_GRPC_INTERNAL_H
#define FLIP_GRPC_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "grpc/grpc.h"

enum {
	FLIP_GRPC_PREFIX = 5,             /* compressed flag, size in four bytes */
	FLIP_GRPC_MAX_REQUEST = 4 << 20,  /* one message in */
	FLIP_GRPC_MAX_MESSAGE = 16 << 20, /* one message out, or in on the client's side */
};

/* ---- Encodings (status.c, wire.c) ---- */

int flip_grpc_errno_of(unsigned status); /* the negative errno for a status; 0 for OK */
/* grpc-message: percent-encoded, at most `size` - 1 bytes; and back, in place of what is not an escape. */
void flip_grpc_percent_encode(const char *text, char *ret_text, size_t size);
void flip_grpc_percent_decode(const char *text, size_t len, char *ret_text, size_t size);
/* "100m" and the like, in nanoseconds; -EBADMSG. */
int flip_grpc_timeout_parse(const char *text, size_t len, uint64_t *ret_ns);
static inline uint64_t flip_grpc_now_ns(void)
{
	return (uint64_t)base_now_ns();
}

void flip_grpc_put_prefix(uint8_t prefix[FLIP_GRPC_PREFIX], size_t size);
size_t flip_grpc_get_size(const uint8_t prefix[FLIP_GRPC_PREFIX]);

/* A unix socket's address; -ENAMETOOLONG. */
struct sockaddr_un;
int flip_grpc_address(const char *path, struct sockaddr_un *ret_address, struct err *err);

/* ---- One connection of the server, without its socket: what comes from the peer is fed, what goes to it is taken.
 * One thread (the loop's). ---- */

struct flip_grpc_session;

int flip_grpc_session_new(struct flip_grpc_server *s, struct flip_grpc_session **ret_session, struct err *err);
void flip_grpc_session_free(struct flip_grpc_session *s); /* cancels its calls */
/* -EBADMSG when the peer broke the protocol so that the connection must end. */
int flip_grpc_session_feed(struct flip_grpc_session *s, const void *data, size_t size);
/* The next bytes for the peer, borrowed until the next call here; 0 size: nothing now. */
int flip_grpc_session_take(struct flip_grpc_session *s, const uint8_t **ret_data, size_t *ret_size);
bool flip_grpc_session_is_over(struct flip_grpc_session *s);
void flip_grpc_session_goaway(struct flip_grpc_session *s); /* cancels calls, says goodbye */
/* Answers calls whose time is over; the earliest time of the others, or UINT64_MAX. */
uint64_t flip_grpc_session_expire(struct flip_grpc_session *s, uint64_t now_ns);

/* ---- A server without a socket (core.c): methods, handlers' threads, calls. flip_grpc_serve() adds the loop. ---- */

int flip_grpc_server_new(const struct flip_grpc_method *methods, void *arg, unsigned n_handlers,
                         struct flip_grpc_server **ret_server, struct err *err);
void flip_grpc_server_free(struct flip_grpc_server *s);              /* waits for its handlers */
void flip_grpc_server_own(struct flip_grpc_server *s, void *memory); /* freed with it */
/* Readable when calls have something for their sessions; flip_grpc_server_pump() then hands it over. */
int flip_grpc_server_wake_fd(const struct flip_grpc_server *s);
void flip_grpc_server_pump(struct flip_grpc_server *s);

/* ---- The client's side with requests of several messages (containerd's Content.Write) ---- */

struct flip_grpc_stream;

int flip_grpc_stream_open(struct flip_grpc_client *c, const char *path, const struct flip_grpc_header *headers,
                          size_t n_headers, uint32_t timeout_ms, struct flip_grpc_stream **ret_stream, struct err *err);
/* Sends one message; `last` says that no more follow. -EPIPE when the peer has ended the call: its status is told by
 * flip_grpc_stream_receive(). */
int flip_grpc_stream_send(struct flip_grpc_stream *st, const void *data, size_t size, bool last, struct err *err);
/* One message, borrowed until the next call: 1; the end with status OK: 0; otherwise the status as an errno. */
int flip_grpc_stream_receive(struct flip_grpc_stream *st, const void **ret_data, size_t *ret_size, struct err *err);
void flip_grpc_stream_close(struct flip_grpc_stream *st); /* what is not over is canceled */

#endif
