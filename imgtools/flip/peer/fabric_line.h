/* Connections over libfabric, as much of it as peers need: connected endpoints (FI_EP_MSG), messages of 4 KiB that are
 * numbered by their order, and remote writes into slots that the asker has registered. Both the tcp and the verbs
 * provider have these natively, and a connection that says when its other end goes.
 *
 * libfabric is opened when it is first needed (dlopen): no package needs it. Without its headers at build time
 * fabric_line_none.c stands in, and says so.
 *
 * One thread uses a peer_fabric and all its lines; only peer_fabric_wake() is for any thread. */
#ifndef FLIP_PEER_FABRIC_LINE_H
#define FLIP_PEER_FABRIC_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "peer/fabric_wire.h"

enum {
	PEER_SLOTS = 6, /* that a line has for data, both as asker and as asked: together a question's 1 MiB and its
	                   frames */
	PEER_SLOT_SIZE = 176 << 10,
	PEER_LINE_MESSAGES = 32, /* that may be on their way to one end, and from it */
};

struct peer_fabric;
struct peer_line;

/* Told by peer_fabric_step(), on its thread. In any of them any line may be closed. */
struct peer_fabric_events {
	/* Somebody has connected to where we listen: an argument for the line's own events; NULL: it is sent away. */
	void *(*on_line)(void *arg, struct peer_line *l);
	void (*on_up)(void *line_arg);                                     /* messages may be sent */
	void (*on_message)(void *line_arg, const void *data, size_t size); /* up to PEER_MESSAGE_MAX bytes */
	/* The bytes of this slot of ours have left: it may be filled anew. Also when a message has left (slot -1):
	 * there is room for another. */
	void (*on_left)(void *line_arg, int slot);
	/* The other end has gone, or could not be reached: told once, nothing afterwards. The line is still to be
	 * closed. */
	void (*on_down)(void *line_arg, int r, const char *why);
};

/* Whether libfabric and this provider ("tcp", "verbs") are here; -ENOSYS and why not. */
int peer_fabric_check(const char *provider, struct err *err);
/* `listen` "HOST:PORT": as the asked side; NULL: as the asker. Addresses are numbers. */
int peer_fabric_open(const char *provider, const char *listen, const struct peer_fabric_events *events, void *arg,
                     struct peer_fabric **ret_fabric, struct err *err);
void peer_fabric_close(struct peer_fabric *f); /* with all its lines */
/* Tells what has happened; when nothing has, sleeps until something does, up to timeout_ms (-1: for ever). */
void peer_fabric_step(struct peer_fabric *f, int timeout_ms);
void peer_fabric_wake(struct peer_fabric *f); /* ends the sleep */

/* on_up or on_down comes later, never at once. */
int peer_line_connect(struct peer_fabric *f, const char *to, void *line_arg, struct peer_line **ret_line,
                      struct err *err);
void peer_line_close(struct peer_line *l);
const char *peer_line_from(const struct peer_line *l); /* the other end's address, where it is known */
/* PEER_SLOTS places of PEER_SLOT_SIZE bytes; until the line is closed. */
uint8_t *peer_line_slot(struct peer_line *l, unsigned slot);
/* What the asker says of its slots, so that they can be written to. */
void peer_line_offer(const struct peer_line *l, uint64_t *ret_key, uint64_t *ret_base);
/* The message is copied. -EAGAIN: too many are on their way, on_left tells when to try again. */
int peer_line_send(struct peer_line *l, const void *data, size_t size);
/* Bytes of a slot of ours to a place at the other end; a message that is sent afterwards arrives after them. -EAGAIN.
 */
int peer_line_write(struct peer_line *l, unsigned slot, size_t size, uint64_t key, uint64_t to);

#endif
