/* What the files behind fabric_line.h share: the library's functions, and what a fabric and a line are made of.
 *
 *   fabric_open.c   the library, what a provider offers, cards; a fabric opened and closed
 *   fabric_line.c   one line: its memory and queues, what it sends and writes
 *   fabric_step.c   what happens on all of them, told; sleeping until something does */
#ifndef FLIP_PEER_FABRIC_INTERNAL_H
#define FLIP_PEER_FABRIC_INTERNAL_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>

#include "peer/fabric_line.h"
#include "peer/peer.h"

/* Of libfabric only these functions are symbols of the library; all others are reached through the objects that they
 * give, so that dlopen() is enough. There once peer_fabric_check() was 0. */
struct peer_libfabric {
	int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags,
	               const struct fi_info *hints, struct fi_info **info);
	void (*freeinfo)(struct fi_info *info);
	struct fi_info *(*dupinfo)(const struct fi_info *info);
	int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
	const char *(*strerror)(int r);
};
extern struct peer_libfabric peer_libfabric;

struct peer_domain { /* a network card, or what the provider has in its place */
	struct peer_domain *next;
	struct fid_fabric *fabric; /* who calls is of the one that we listen on */
	bool is_listening;
	struct fid_domain *domain;
	char *fabric_name, *name;
	uint64_t mr_mode;
	size_t key_size; /* bytes */
};

struct peer_fabric {
	char provider[32];
	struct peer_fabric_events events;
	void *arg;
	struct peer_domain *domains;
	struct fid_fabric *listens_on;
	struct fid_pep *pep;
	struct fi_info *pep_info; /* some providers go on looking into it */
	struct fid_eq *pep_events;
	int wake, pep_fd;
	LIST_HEAD(, peer_line) lines;
	size_t n_lines;
	struct pollfd *polled;
	size_t cap_polled;
};

/* What an operation carries along. */
struct peer_op {
	struct fi_context2 libfabrics;
	enum { PEER_OP_RECEIVE, PEER_OP_SEND, PEER_OP_WRITE } what;
	unsigned i; /* of the message's place, or of the slot */
};

struct peer_line {
	LIST_ENTRY(peer_line) in_lines;
	struct peer_fabric *f;
	void *arg;
	struct peer_domain *domain;
	struct fid_ep *ep;
	struct fid_cq *completions;
	struct fid_eq *events;
	int completions_fd, events_fd; /* theirs; poll says when to look */
	struct fid_mr *messages_mr, *slots_mr;
	uint8_t *memory; /* messages that come, that leave, slots */
	struct peer_op receives[PEER_LINE_MESSAGES], sends[PEER_LINE_MESSAGES], writes[PEER_SLOTS];
	unsigned free_sends[PEER_LINE_MESSAGES], n_free_sends;
	bool is_up, is_down, is_closed;
	char from[80];
};

/* ---- fabric_open.c ---------------------------------------------------------------------------------------------- */

/* libfabric's errors are errno's, and some beyond them: a negative errno. */
int peer_fabric_errno(int r);
/* What the provider offers for this address (NULL: any); freed by peer_libfabric.freeinfo(). */
int peer_fabric_info(const char *provider, const char *host, const char *port, uint64_t flags, struct fi_info **ret,
                     struct err *err);
/* "host:port" -> both, the brackets of IPv6 taken off. */
int peer_fabric_split(const char *where, char host[FLIP_PEER_NAME], const char **ret_port, struct err *err);
/* The one that a connection by this info is of: opened once, the fabric's. */
int peer_domain_of(struct peer_fabric *f, struct fi_info *info, bool is_asker, struct peer_domain **ret,
                   struct err *err);

/* ---- fabric_line.c ---------------------------------------------------------------------------------------------- */

/* With all its places for messages waiting for one; among the fabric's lines, freed by peer_fabric_reap(). */
int peer_line_new(struct peer_fabric *f, struct fi_info *info, bool is_asker, struct peer_line **ret, struct err *err);
void peer_line_free(struct peer_line *l);
uint8_t *peer_line_coming(struct peer_line *l, unsigned i); /* a place for messages that come */
int peer_line_receive(struct peer_line *l, unsigned i);     /* into that place; 0, or libfabric's error */

/* ---- fabric_step.c ---------------------------------------------------------------------------------------------- */

/* Frees the lines that are closed. */
void peer_fabric_reap(struct peer_fabric *f);

#endif
