/* An assembly line: items are put on it in order, worked on by many threads at once, and taken off in the same order by
 * one. What is on the line at a time is bounded by its cost in bytes. */
#ifndef FLIP_LINE_H
#define FLIP_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* The first member of what is put on a line. */
struct flip_line_item {
	struct flip_line_item *next, *next_work;
	size_t cost;
	bool is_done;
};

struct flip_line_ops {
	/* State of one worker thread (a compressor); NULL: out of memory. */
	void *(*worker_new)(void *arg);
	void (*worker_free)(void *worker);
	int (*work)(void *arg, void *worker, struct flip_line_item *item, struct err *err); /* many threads */
	int (*take)(void *arg, struct flip_line_item *item, struct err *err);               /* one thread, in order */
	void (*item_free)(struct flip_line_item *item); /* after take, or instead of it after an error */
};

struct flip_line;

int flip_line_new(const struct flip_line_ops *ops, void *arg, unsigned n_workers, size_t max_cost,
                  struct flip_line **ret_line, struct err *err);
/* Waits while the line is full; one item always fits. The item is the line's from here on, also after an error, which
 * is the first that any thread met. */
int flip_line_push(struct flip_line *line, struct flip_line_item *item, size_t cost, struct err *err);
/* Waits until all are taken, ends the threads. 0 or the first error. */
int flip_line_finish(struct flip_line *line, struct err *err);

#endif
