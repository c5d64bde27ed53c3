/* Chunks under way: loads.c has them, reads.c asks for them. */
#ifndef NODE_LOADS_H
#define NODE_LOADS_H

#include "node/node_internal.h"

struct waiter {
	struct waiter *next;
	node_load_fn fn;
	void *arg;
};

struct node_load {              /* a chunk under way */
	struct node_load *next; /* in its bucket; protected by loads_lock, as the next two */
	enum flip_priority priority;
	struct waiter *waiters;
	int64_t number;               /* of fetch; 0 until it is known; protected by loads_lock, as the next five */
	int most;                     /* who may be asked for it: enum flip_peer_role, or NODE_ORIGIN */
	unsigned n_ways;              /* under way */
	bool has_origin, has_holders; /* a way to the registry, to whoever has it, was tried */
	uint8_t n_again;              /* peers were asked once more, because one has lied */
	bool is_over;
	bool is_queued;           /* counted by the queue */
	bool is_preheat;          /* as what is preheated */
	struct node_layer *layer; /* a reference */
	uint32_t chunk;
	struct flip_object *store; /* a reference */
};

enum node_why {                   /* the origin is asked */
	        NODE_WHY_OURS,    /* to us belongs the group, or there are no peers */
	        NODE_WHY_RELAYED, /* a peer wants it of us */
	        NODE_WHY_INSTEAD, /* peers should have had it */
};

/* With loads_lock held, as the next two. NULL: none is under way. */
struct node_load *node_loads_find(struct flip_node *node, const struct node_layer *layer, uint32_t chunk);
/* A new one, without waiters; to be submitted. NULL: no memory. */
struct node_load *node_loads_new(struct node_layer *layer, uint32_t chunk, struct flip_object *store,
                                 enum flip_priority priority);
/* fn is called once, with 0 or why it did not come. -ENOMEM: it is not. */
int node_loads_wait(struct node_load *load, node_load_fn fn, void *arg);

/* Asks for loads that are in the table already, with one way each; all of one layer and with the same `most`. From the
 * call on a load may be over and gone, as with the next. */
void node_loads_submit(struct node_layer *layer, struct node_load *const *loads, size_t n, enum flip_priority priority,
                       int most, enum node_why why);
/* The registry, the addresses, or members who have it for everybody. */
void node_loads_ask_origin(struct node_layer *layer, struct node_load *const *loads, size_t n,
                           enum flip_priority priority, enum node_why why);

#endif
