/* Lists of what a start of an image reads, in order: recorded by the node on a first start, or made from a trace
 * (trace/trace.h), and played back before somebody waits for it. Text, one line a range, docs/formats/prefetch.md:
 *
 *   flip-prefetch 1
 *   /usr/bin/python3.11 0 65536
 *   /usr/lib/libx.so.1 1048576 131072
 *
 * Paths rather than digests, so that a list made from one build of an image serves the next. */
#ifndef FLIP_PREFETCH_H
#define FLIP_PREFETCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct flip_prefetch_item {
	char *path;            /* in the image; normal (tree/tree.h) */
	uint64_t offset, size; /* size UINT64_MAX: to the end */
};

struct flip_prefetch {
	struct flip_prefetch_item *items; /* in order of need */
	size_t n;
};

int flip_prefetch_add(struct flip_prefetch *p, const char *path, uint64_t offset, uint64_t size); /* -ENOMEM, -EINVAL */
int flip_prefetch_parse(const void *data, size_t size, const char *where, struct flip_prefetch *ret_list,
                        struct err *err);
int flip_prefetch_append(const struct flip_prefetch *p, struct base_buf *buf);
void flip_prefetch_done(struct flip_prefetch *p);
/* A trace file of `slimtrace trace`: files opened, in order, whole; programs and libraries included. */
int flip_prefetch_from_trace(const char *path, struct flip_prefetch *ret_list, struct err *err);

#endif
