/* Any bytes as a request of the snapshots API (the first byte chooses its type), decoded within the limit and packed
 * again; the filters of a List are parsed and tried; labels are merged by the paths of an Update. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/filter.h"
#include "grpc/pb.h"
#include "grpc/snapshots_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct flip_label labels[] = { { "containerd.io/snapshot.ref", "sha256:0" }, { "a", "1" }, { "b.c", "" } };

static void try_filters(const Flip__Pb__ListSnapshotsRequest *m)
{
	struct flip_snapshot s = { .name = "default/1/key",
		                   .kind = FLIP_SNAPSHOT_COMMITTED,
		                   .labels = labels,
		                   .n_labels = sizeof(labels) / sizeof(*labels) };
	struct flip_filter *f = NULL;
	struct err err = { 0 };

	if (flip_filter_parse((const char *const *)m->filters, m->n_filters, &f, &err) < 0) {
		if (f || !err.code)
			abort();
		return;
	}
	(void)flip_filter_matches(f, &s);
	flip_filter_free(f);
}

static void try_update(const Flip__Pb__UpdateSnapshotRequest *m)
{
	struct flip_label *wanted = NULL, *merged = NULL;
	size_t n = 0;

	if (!m->info || flip_pb_labels_in(m->info->labels, m->info->n_labels, &wanted, NULL) < 0)
		return;
	if (flip_labels_merge(labels, sizeof(labels) / sizeof(*labels), wanted, m->info->n_labels,
	                      m->update_mask ? (const char *const *)m->update_mask->paths : NULL,
	                      m->update_mask ? m->update_mask->n_paths : 0, &merged, &n, NULL) == 0)
		flip_labels_free(merged, n);
	free(wanted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ProtobufCMessageDescriptor *const types[] = {
		&flip__pb__prepare_request__descriptor,         &flip__pb__key_request__descriptor,
		&flip__pb__commit_request__descriptor,          &flip__pb__update_snapshot_request__descriptor,
		&flip__pb__list_snapshots_request__descriptor,  &flip__pb__mounts_response__descriptor,
		&flip__pb__list_snapshots_response__descriptor, &flip__pb__usage_response__descriptor,
	};
	const ProtobufCMessageDescriptor *type;
	struct flip_pb_memory memory;
	ProtobufCMessage *m = NULL;
	uint8_t *packed = NULL;
	size_t n = 0;

	if (size == 0)
		return 0;
	type = types[data[0] % (sizeof(types) / sizeof(*types))];
	flip_pb_memory_init(&memory);
	if (flip_pb_decode(type, data + 1, size - 1, &memory, &m, NULL) < 0)
		return 0;
	if (type == &flip__pb__list_snapshots_request__descriptor)
		try_filters((Flip__Pb__ListSnapshotsRequest *)m);
	if (type == &flip__pb__update_snapshot_request__descriptor)
		try_update((Flip__Pb__UpdateSnapshotRequest *)m);
	if (flip_pb_encode(m, &packed, &n) == 0)
		free(packed);
	protobuf_c_message_free_unpacked(m, &memory.allocator);
	return 0;
}
