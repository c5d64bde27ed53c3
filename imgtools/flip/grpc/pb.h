/* Between the messages on the wire (generated, <pb/NAME.pb-c.h>) and our structs. */
#ifndef FLIP_GRPC_PB_H
#define FLIP_GRPC_PB_H

#include <pb/common.pb-c.h>
#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "grpc/grpc_internal.h"
#include "store/store.h"

enum { FLIP_MAX_LABELS = 4096 }; /* of one snapshot, image or content */

/* Decoding with a ceiling on memory: a small message can describe a large tree of empty ones. */
struct flip_pb_memory {
	ProtobufCAllocator allocator; /* given to unpack and free */
	size_t used;
};
void flip_pb_memory_init(struct flip_pb_memory *m);
/* -EBADMSG, with the words. The result is freed by protobuf_c_message_free_unpacked(, &m->allocator). */
int flip_pb_decode(const ProtobufCMessageDescriptor *type, const void *data, size_t size, struct flip_pb_memory *m,
                   ProtobufCMessage **ret_message, struct err *err);

/* Borrowed names and values in an array of ours; -ENOMEM, -EINVAL (a label without a name, too many). free() it. */
int flip_pb_labels_in(Flip__Pb__Label *const *labels, size_t n, struct flip_label **ret_labels, struct err *err);
/* The other way: one block for the pointers and the messages behind them, borrowed texts; NULL and n 0 for none. */
int flip_pb_labels_out(const struct flip_label *labels, size_t n, Flip__Pb__Label ***ret_labels);

/* The whole message in memory of its own. */
int flip_pb_encode(const ProtobufCMessage *message, uint8_t **ret_data, size_t *ret_size);
int flip_pb_send(struct flip_grpc_call *call, const ProtobufCMessage *message);

#endif
