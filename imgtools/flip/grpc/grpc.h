/* gRPC over a unix socket (HTTP/2 by nghttp2, messages by protobuf-c): the little that containerd's plugin protocol
 * needs. One thread drives all connections; handlers run on a small pool and may block. */
#ifndef FLIP_GRPC_H
#define FLIP_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* Status codes of gRPC that are used here. */
enum flip_grpc_status {
	FLIP_GRPC_OK = 0,
	FLIP_GRPC_CANCELLED = 1,
	FLIP_GRPC_UNKNOWN = 2,
	FLIP_GRPC_INVALID_ARGUMENT = 3,
	FLIP_GRPC_DEADLINE_EXCEEDED = 4,
	FLIP_GRPC_NOT_FOUND = 5,
	FLIP_GRPC_ALREADY_EXISTS = 6,
	FLIP_GRPC_PERMISSION_DENIED = 7,
	FLIP_GRPC_RESOURCE_EXHAUSTED = 8,
	FLIP_GRPC_FAILED_PRECONDITION = 9,
	FLIP_GRPC_UNIMPLEMENTED = 12,
	FLIP_GRPC_INTERNAL = 13,
	FLIP_GRPC_UNAVAILABLE = 14,
};
enum flip_grpc_status flip_grpc_status_of(int errno_negative);

struct flip_grpc_call; /* one request that is being answered */
/* What came with it, one message (unary calls; more than 4 MiB is refused before). */
const void *flip_grpc_request(const struct flip_grpc_call *call, size_t *ret_size);
/* One message out: once for unary calls, as often as needed for streams; blocks while the peer does not read. Returns
 * -ECANCELED when the peer is gone. */
int flip_grpc_send(struct flip_grpc_call *call, const void *data, size_t size);
bool flip_grpc_is_canceled(const struct flip_grpc_call *call);

/* Answers one call; the return value becomes the status: 0, or a negative errno with err's words as grpc-message. */
typedef int (*flip_grpc_handler)(struct flip_grpc_call *call, void *arg, struct err *err);

struct flip_grpc_method {
	const char *path; /* "/containerd.services.snapshots.v1.Snapshots/Prepare" */
	flip_grpc_handler handler;
};

struct flip_grpc_server;
/* Replaces a socket that nobody answers at; -EADDRINUSE when somebody does. Mode 0600. methods ends with path NULL. */
int flip_grpc_serve(const char *socket_path, const struct flip_grpc_method *methods, void *arg, unsigned n_handlers,
                    struct flip_grpc_server **ret_server, struct err *err);
void flip_grpc_stop(struct flip_grpc_server *s); /* ends running calls' streams, waits for their handlers */

/* The other side, for one thread at a time. */
struct flip_grpc_client;
int flip_grpc_connect(const char *socket_path, struct flip_grpc_client **ret_client, struct err *err);
void flip_grpc_close(struct flip_grpc_client *c);
struct flip_grpc_header {
	const char *name, *value; /* metadata, such as "containerd-namespace" */
};
/* A unary or server-streaming call: reply is told each message and stops it with non-zero. A status other than OK is
 * returned as the errno that stands for it, with the peer's words in err. timeout_ms 0: none. */
int flip_grpc_call(struct flip_grpc_client *c, const char *path, const struct flip_grpc_header *headers,
                   size_t n_headers, const void *request, size_t size, uint32_t timeout_ms,
                   int (*reply)(void *arg, const void *data, size_t size), void *arg, struct err *err);

#endif
