/* How questions travel to other members: one table per way. A question has headers and no body; its answer is a status,
 * a few headers and bytes as they come. HTTP/1.1 is the first way (transport_http.c), libfabric the second
 * (transport_fabric.c), which takes the first where it does not get through: what is asked and answered is the same. */
#ifndef FLIP_PEER_TRANSPORT_H
#define FLIP_PEER_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "peer/auth.h"
#include "peer/peer.h"

struct peer_head {
	int status;         /* as in HTTP */
	char holders[2048]; /* who has it, when the asked one is busy; "" */
	char words[160];    /* of an answer that is none of 2xx: why; "" */
};

struct peer_call {
	const char *to;             /* "host:port" */
	const char *fabric;         /* where the same member listens for libfabric; NULL or "": nowhere that is known */
	const char *path;           /* "/flip/1/..." */
	const char *const *headers; /* "Name: value", NULL ends; copied */
	int (*on_head)(void *arg, const struct peer_head *head);  /* non-zero: cut; when it is no 2xx, at its end */
	int (*on_data)(void *arg, const void *data, size_t size); /* non-zero: cut; only for 2xx */
	/* Once: 0, or a negative errno and why in words (during the call; NULL: the errno says it all). */
	void (*on_end)(void *arg, int r, const char *why);
	void *arg;
};

struct peer_fabric_counts {
	_Atomic uint64_t asked, received, fell_back, served, served_bytes;
};

struct peer_transport_opts { /* valid until close() */
	const struct flip_peers_opts *o;
	const struct peer_token *token; /* NULL: none */
	struct peer_fabric_counts *counts;
	/* Called some ten times a second while anything is under way or its last call returned true; and once after
	 * each ask. It and all that is told never run beside each other. */
	bool (*tick)(void *arg);
	void *arg;
};

struct peer_transport_ops {
	const char *name;
	int (*open)(const struct peer_transport_opts *o, void **ret_transport, struct err *err);
	/* Any thread. *ret_id for cancel. On failure on_end is not called. */
	int (*ask)(void *transport, const struct peer_call *call, uint64_t *ret_id);
	/* Any thread; on_end comes with -ECANCELED, unless it came before. */
	void (*cancel)(void *transport, uint64_t id);
	/* Calls under way end with -ECANCELED; nothing is told afterwards, and ask() fails. */
	void (*stop)(void *transport);
	void (*close)(void *transport); /* after stop */
};

extern const struct peer_transport_ops peer_transport_http, peer_transport_fabric;

#endif
