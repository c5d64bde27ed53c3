/* Messages decoded within limits, encoded, and labels between the two shapes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "grpc/pb.h"

enum { MAX_DECODED = 32 << 20 };

static void *limited_alloc(void *arg, size_t size)
{
	struct flip_pb_memory *m = arg;

	/* Only what is taken counts: a message is decoded once and freed. The room for malloc's own words is counted.
	 */
	if (size > MAX_DECODED || m->used > MAX_DECODED - size)
		return NULL;
	m->used += size + 2 * sizeof(void *);
	return malloc(size ? size : 1);
}

static void limited_free(void *arg, void *p)
{
	(void)arg;
	free(p);
}

void flip_pb_memory_init(struct flip_pb_memory *m)
{
	m->allocator = (ProtobufCAllocator){ .alloc = limited_alloc, .free = limited_free, .allocator_data = m };
	m->used = 0;
}

int flip_pb_decode(const ProtobufCMessageDescriptor *type, const void *data, size_t size, struct flip_pb_memory *m,
                   ProtobufCMessage **ret_message, struct err *err)
{
	ProtobufCMessage *message = protobuf_c_message_unpack(type, &m->allocator, size, data);

	if (!message)
		return err_set(err, -EBADMSG, "not a message of the type %s, or one too large", type->short_name);
	*ret_message = message;
	return 0;
}

int flip_pb_labels_in(Flip__Pb__Label *const *labels, size_t n, struct flip_label **ret_labels, struct err *err)
{
	struct flip_label *out;

	if (n > FLIP_MAX_LABELS)
		return err_set(err, -EINVAL, "more than %d labels", FLIP_MAX_LABELS);
	out = calloc(n ? n : 1, sizeof(*out));
	if (!out)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		if (!labels[i]->name[0]) {
			free(out);
			return err_set(err, -EINVAL, "a label without a name");
		}
		out[i] = (struct flip_label){ .name = labels[i]->name, .value = labels[i]->value };
	}
	*ret_labels = out;
	return 0;
}

int flip_pb_labels_out(const struct flip_label *labels, size_t n, Flip__Pb__Label ***ret_labels)
{
	struct {
		Flip__Pb__Label *pointer;
		Flip__Pb__Label message;
	} *size = NULL;
	Flip__Pb__Label **pointers, *messages;

	if (n == 0) {
		*ret_labels = NULL;
		return 0;
	}
	pointers = calloc(n, sizeof(size->pointer) + sizeof(size->message));
	if (!pointers)
		return -ENOMEM;
	messages = (Flip__Pb__Label *)(void *)(pointers + n);
	for (size_t i = 0; i < n; i++) {
		flip__pb__label__init(&messages[i]);
		messages[i].name = labels[i].name;
		messages[i].value = labels[i].value;
		pointers[i] = &messages[i];
	}
	*ret_labels = pointers;
	return 0;
}

int flip_pb_encode(const ProtobufCMessage *message, uint8_t **ret_data, size_t *ret_size)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	uint8_t *data;

	if (size > FLIP_GRPC_MAX_MESSAGE)
		return -EFBIG;
	data = malloc(size ? size : 1);
	if (!data)
		return -ENOMEM;
	*ret_size = protobuf_c_message_pack(message, data);
	*ret_data = data;
	return 0;
}

int flip_pb_send(struct flip_grpc_call *call, const ProtobufCMessage *message)
{
	CLEANUP(freep) uint8_t *data = NULL;
	size_t size;
	int r = flip_pb_encode(message, &data, &size);

	return r < 0 ? r : flip_grpc_send(call, data, size);
}
