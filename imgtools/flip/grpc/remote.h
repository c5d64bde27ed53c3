/* What the labels of a Prepare say about the layer that it is for: docs/formats/snapshot-labels.md. */
#ifndef FLIP_REMOTE_H
#define FLIP_REMOTE_H

#include <stddef.h>

#include "base/err.h"
#include "store/store.h"

struct flip_remote_labels {
	/* Borrowed of the labels; NULL: not said. */
	const char *target;   /* the name that the committed snapshot is to have: the chain id of its layers */
	const char *ref;      /* "host/name:tag" */
	const char *layer;    /* digest of the blob */
	const char *manifest; /* digest */
	/* This layer and those above it, as far as they were listed; of memory of its own. Only a hint. */
	char **layers;
	size_t n_layers;
};

/* 1: a layer that may be mounted without its blob (target, ref and layer are there); 0: an ordinary snapshot, nothing
 * is filled in; -EINVAL: such labels with digests that are none; -ENOMEM. */
int flip_remote_labels_read(const struct flip_label *labels, size_t n_labels, struct flip_remote_labels *ret_remote,
                            struct err *err);
void flip_remote_labels_done(struct flip_remote_labels *r);

#endif
