/* The part of containerd's own API that `flip pull` needs: an image is made known to containerd with its manifest and
 * configuration in the content store and its layers as snapshots of our plugin, without their blobs. */
#ifndef FLIP_CONTAINERD_H
#define FLIP_CONTAINERD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/store.h"

struct flip_containerd; /* one thread at a time */

/* socket NULL: /run/containerd/containerd.sock; ns NULL: "default". */
int flip_containerd_open(const char *socket, const char *ns, struct flip_containerd **ret_c, struct err *err);
void flip_containerd_close(struct flip_containerd *c);

int flip_containerd_version(struct flip_containerd *c, char *ret_version, size_t size, struct err *err);
/* A lease keeps what is added from containerd's garbage collection until the image refers to it. */
int flip_containerd_lease(struct flip_containerd *c, uint32_t expire_s, struct err *err);
int flip_containerd_end_lease(struct flip_containerd *c, struct err *err);
/* Content: -EEXIST is a success. labels: "containerd.io/gc.ref.content.0" and the like. */
int flip_containerd_put_content(struct flip_containerd *c, const char *digest, const void *data, size_t size,
                                const struct flip_label *labels, size_t n_labels, struct err *err);
/* Prepares a layer by the named snapshotter: 1 when it said that it is there ("already exists"), 0 when an ordinary
 * active snapshot was made instead (the caller unpacks or removes it). */
int flip_containerd_prepare(struct flip_containerd *c, const char *snapshotter, const char *key, const char *parent,
                            const struct flip_label *labels, size_t n_labels, struct err *err);
int flip_containerd_remove_snapshot(struct flip_containerd *c, const char *snapshotter, const char *key,
                                    struct err *err);
int flip_containerd_stat_snapshot(struct flip_containerd *c, const char *snapshotter, const char *key,
                                  struct err *err); /* 0, -ENOENT */
/* Creates the image or points it to a new manifest. */
int flip_containerd_put_image(struct flip_containerd *c, const char *name, const char *media_type, const char *digest,
                              uint64_t size, struct err *err);

#endif
