/* The asker's connections over libfabric. Each joins (hello, join, welcome), carries one question at a time and is kept
 * for the next, as with HTTP/1.1. What is answered is written into its slots by the other end (remote writes), told of
 * by short messages, and handed on from there. The slots are what the other end may be ahead: it waits for each to be
 * taken. A question is ended by ending its connection.
 *
 * A peer_talks owns its fabric and all its connections; a peer_talk is one of them, for as long as it carries a
 * question. What becomes of a question whose connection is lost is its owner's to decide (transport_fabric.c). One
 * thread uses them all; only peer_talks_wake() is for any thread. */
#ifndef FLIP_PEER_FABRIC_TALK_H
#define FLIP_PEER_FABRIC_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "peer/transport.h"

struct peer_talks;
struct peer_talk;

/* Told on that thread, each with the question's `call`. */
struct peer_talks_events {
	void (*on_joined)(void *call);                             /* a new connection: both know the secret */
	int (*on_head)(void *call, const struct peer_head *head);  /* non-zero: cut */
	int (*on_data)(void *call, const void *data, size_t size); /* only for 2xx; non-zero: cut */
	void (*on_end)(void *call, bool was_cut);                  /* by the other end; the connection is free */
	/* The connection is gone, and the question's pointer to it with it: -ECANCELED, when it was cut here. was_kept:
	 * it had carried another question before, so the other end may just have closed it. */
	void (*on_lost)(void *call, int r, const char *why, bool was_kept);
};

/* `token` NULL: none; it and `counts` are borrowed. */
int peer_talks_open(const char *provider, const struct peer_token *token, struct peer_fabric_counts *counts,
                    const struct peer_talks_events *events, struct peer_talks **ret_talks, struct err *err);
void peer_talks_close(struct peer_talks *s); /* nothing is told */

/* A question by a connection to `to` ("HOST:PORT") that is free, or by a new one, which is then in *ret_talk: set
 * before anything is told, which may be before this returns. 1: not by this way (it is too large, or too many
 * connections are in use); negative: there is no connection, and why. */
int peer_talks_ask(struct peer_talks *s, const char *to, const char *path, const char *const *headers, void *call,
                   struct peer_talk **ret_talk, struct err *err);
/* Nothing more is told of its question. */
void peer_talk_close(struct peer_talk *t);

/* Tells what has happened; when nothing has, sleeps until something does, up to timeout_ms; -1: until a connection has
 * to be looked at. */
void peer_talks_step(struct peer_talks *s, int timeout_ms);
void peer_talks_wake(struct peer_talks *s);
/* Ends connections that do not come about, and those that nobody needs. Some times a second. */
void peer_talks_watch(struct peer_talks *s, int64_t now_us);

#endif
