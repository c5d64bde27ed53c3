/* The snapshots service without its socket, for snapshots*.c and for tests that feed it. */
#ifndef FLIP_GRPC_SNAPSHOTS_INTERNAL_H
#define FLIP_GRPC_SNAPSHOTS_INTERNAL_H

#include <pb/snapshots.pb-c.h>

#include "grpc/snapshots.h"

struct flip_snapshots_service {
	const struct flip_snapshots_ops *ops;
	void *arg;
};

/* Handlers for flip_grpc_server_new(), whose arg is a service. */
extern const struct flip_grpc_method flip_snapshots_methods[];

/* A snapshot as a message that borrows its texts; free(info.labels). Not to be moved. */
struct flip_pb_info {
	Flip__Pb__SnapshotInfo info;
	Flip__Pb__Timestamp created, updated;
};
int flip_snapshot_to_pb(const struct flip_snapshot *s, struct flip_pb_info *ret_info);

/* -EINVAL unless all are "labels" or "labels.NAME". */
int flip_labels_check_paths(const char *const *paths, size_t n_paths, struct err *err);
int flip_labels_copy(const struct flip_label *labels, size_t n, struct flip_label **ret_labels);

#endif
