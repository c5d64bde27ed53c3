/* Bytes from one thread to another, with a ceiling on how many are on the way. */
#ifndef FLIP_PIPE_H
#define FLIP_PIPE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct flip_pipe;

struct flip_pipe *flip_pipe_new(size_t max_bytes); /* NULL: out of memory */
void flip_pipe_free(struct flip_pipe *p);          /* when both sides have ended */

/* Waits for room. -EPIPE when the reader has gone. */
int flip_pipe_write(struct flip_pipe *p, const void *data, size_t size);
/* At least one byte unless it is the end: 0, or what the writer ended with. */
ssize_t flip_pipe_read(struct flip_pipe *p, void *buf, size_t size, struct err *err);
/* No more comes: r 0, or the failure that the reader gets after the bytes that are there. err may be NULL. */
void flip_pipe_end(struct flip_pipe *p, int r, const struct err *err);
/* The reader wants no more. */
void flip_pipe_break(struct flip_pipe *p);

#endif
