/* containerd's snapshots API (containerd.services.snapshots.v1) as a table of functions: the service decodes, calls,
 * encodes. Works with containerd 1.6, 1.7 and 2.x as a proxy plugin of type "snapshot". */
#ifndef FLIP_SNAPSHOTS_H
#define FLIP_SNAPSHOTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "grpc/grpc.h"
#include "store/store.h"

struct flip_mount {
	char *type, *source, *target;
	char **options;
	size_t n_options;
};
struct flip_mounts {
	struct flip_mount *items; /* owned; flip_mounts_done() */
	size_t n;
};
void flip_mounts_done(struct flip_mounts *m);

/* Errors as negative errno: -EEXIST becomes ALREADY_EXISTS (which is how Prepare says "this layer is here"), -ENOENT
 * NOT_FOUND, -EINVAL INVALID_ARGUMENT, -EBUSY FAILED_PRECONDITION. `arg` first. Called from several threads. */
struct flip_snapshots_ops {
	int (*prepare)(void *arg, const char *key, const char *parent, const struct flip_label *labels, size_t n_labels,
	               struct flip_mounts *ret_mounts, struct err *err);
	int (*view)(void *arg, const char *key, const char *parent, const struct flip_label *labels, size_t n_labels,
	            struct flip_mounts *ret_mounts, struct err *err);
	int (*mounts)(void *arg, const char *key, struct flip_mounts *ret_mounts, struct err *err);
	int (*commit)(void *arg, const char *name, const char *key, const struct flip_label *labels, size_t n_labels,
	              struct err *err);
	int (*remove)(void *arg, const char *key, struct err *err);
	int (*stat)(void *arg, const char *key, struct flip_snapshot *ret_snapshot, struct err *err);
	/* field_mask paths "labels", "labels.NAME"; none: all that may change. Returns the new state. */
	int (*update)(void *arg, const struct flip_snapshot *wanted, const char *const *paths, size_t n_paths,
	              struct flip_snapshot *ret_snapshot, struct err *err);
	/* filters as containerd writes them ("labels.\"a\"==b", "name==x", "kind==committed", joined by commas, any of
	 * several): each() for those that match. */
	int (*list)(void *arg, int (*each)(void *each_arg, const struct flip_snapshot *s), void *each_arg,
	            struct err *err);
	int (*usage)(void *arg, const char *key, uint64_t *ret_size, uint64_t *ret_inodes, struct err *err);
	int (*cleanup)(void *arg, struct err *err);
};

/* What update() has to store: the labels that a snapshot has now and those wanted, put together as the paths say.
 * A wanted label that is missing, or empty under its own path, is removed. -EINVAL: a path of something that never
 * changes. The result is the caller's, flip_labels_free(). */
int flip_labels_merge(const struct flip_label *now, size_t n_now, const struct flip_label *wanted, size_t n_wanted,
                      const char *const *paths, size_t n_paths, struct flip_label **ret_labels, size_t *ret_n,
                      struct err *err);
void flip_labels_free(struct flip_label *labels, size_t n);

/* Serves the API at a socket. The filters of List are applied here. */
int flip_snapshots_serve(const char *socket_path, const struct flip_snapshots_ops *ops, void *arg,
                         struct flip_grpc_server **ret_server, struct err *err);

#endif
