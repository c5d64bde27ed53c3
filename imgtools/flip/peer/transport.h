/* How questions travel to other members: one table per way. A question has headers and no body; its answer is a status,
 * a few headers and bytes as they come. HTTP/1.1 is the first way (transport_http.c); one over libfabric would be the
 * second: what is asked and answered stays the same. */
#ifndef FLIP_PEER_TRANSPORT_H
#define FLIP_PEER_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "peer/peer.h"

struct peer_head {
	int status;         /* as in HTTP */
	char holders[2048]; /* who has it, when the asked one is busy; "" */
	char words[160];    /* of an answer that is none of 2xx: why; "" */
};

struct peer_call {
	const char *to;                                           /* "host:port" */
	const char *path;                                         /* "/flip/1/..." */
	const char *const *headers;                               /* "Name: value", NULL ends; copied */
	int (*on_head)(void *arg, const struct peer_head *head);  /* non-zero: cut; when it is no 2xx, at its end */
	int (*on_data)(void *arg, const void *data, size_t size); /* non-zero: cut; only for 2xx */
	/* Once: 0, or a negative errno and why in words (during the call; NULL: the errno says it all). */
	void (*on_end)(void *arg, int r, const char *why);
	void *arg;
};

struct peer_transport_ops {
	const char *name;
	/* `tick` is called some ten times a second, on the thread that tells all else, while anything is under way or
	 * its last call returned true; and once after each ask. */
	int (*open)(const struct flip_peers_opts *o, bool (*tick)(void *arg), void *arg, void **ret_transport,
	            struct err *err);
	/* Any thread. *ret_id for cancel. On failure on_end is not called. */
	int (*ask)(void *transport, const struct peer_call *call, uint64_t *ret_id);
	/* Any thread; on_end comes with -ECANCELED, unless it came before. */
	void (*cancel)(void *transport, uint64_t id);
	/* Calls under way end with -ECANCELED; nothing is told afterwards, and ask() fails. */
	void (*stop)(void *transport);
	void (*close)(void *transport); /* after stop */
};

extern const struct peer_transport_ops peer_transport_http;

#endif
