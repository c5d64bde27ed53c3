/* What was read of a layer's blob to get its table of contents: kept for peers, got from them. */
#ifndef FLIP_NODE_TAIL_H
#define FLIP_NODE_TAIL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "fetch/fetch.h"

struct node_tail;
/* `blob` is borrowed; NULL: only what node_tail_parse() brings can be read. */
struct node_tail *node_tail_new(struct flip_blob *blob, uint64_t blob_size);
void node_tail_free(struct node_tail *t);
/* A flip_read_at (lazy/toc.h): from what is there, else from the registry, and kept. -EBADMSG: not there, and no blob.
 */
int node_tail_read_at(void *tail, uint64_t offset, size_t size, void *data, struct err *err);
/* Ranges that somebody sent: -EBADMSG unless each lies within the blob and nothing is left over. */
int node_tail_parse(struct node_tail *t, const void *data, size_t size, struct err *err);
/* The file "tail" in a layer's folder. */
int node_tail_write(const struct node_tail *t, const char *dir, struct err *err);

#endif
