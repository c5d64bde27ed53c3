/* What flip asks of containerd: leases, content, snapshots by a named snapshotter, images, the version.
 *
 * Every call carries the namespace and, once there is one, the lease, as metadata. Content goes up by the one call of
 * containerd's that takes a stream of requests: each is answered, so a message's end is known before the next. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <pb/containerd.pb-c.h>
#include <pb/snapshots.pb-c.h>

#include "base/cleanup.h"
#include "grpc/containerd.h"
#include "grpc/pb.h"

#define SERVICES "/containerd.services."
#define LABEL_TARGET "containerd.io/snapshot.ref"

enum {
	CALL_MS = 60 * 1000,
	PREPARE_MS = 15 * 60 * 1000, /* a snapshotter may wait for the network */
	CHUNK = 1 << 20,             /* of content in one message */
	ID_SIZE = 64,
};

struct flip_containerd {
	struct flip_grpc_client *client;
	char *ns;
	char lease[ID_SIZE]; /* "": none */
	unsigned n_refs;     /* names of writes, never twice */
	char prefix[32];     /* of all names of this process */
};

int flip_containerd_open(const char *socket, const char *ns, struct flip_containerd **ret_c, struct err *err)
{
	struct flip_containerd *c = calloc(1, sizeof(*c));
	uint64_t number;
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		number = (uint64_t)getpid() << 32 ^ flip_grpc_now_ns();
	(void)snprintf(c->prefix, sizeof(c->prefix), "flip-%016llx", (unsigned long long)number);
	c->ns = strdup(ns ? ns : "default");
	r = c->ns ? flip_grpc_connect(socket ? socket : "/run/containerd/containerd.sock", &c->client, err)
	          : err_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		flip_containerd_close(c);
		return r;
	}
	*ret_c = c;
	return 0;
}

void flip_containerd_close(struct flip_containerd *c)
{
	if (!c)
		return;
	flip_grpc_close(c->client);
	free(c->ns);
	free(c);
}

/* ---- Calls ---- */

static size_t fill_headers(const struct flip_containerd *c, struct flip_grpc_header headers[2])
{
	headers[0] = (struct flip_grpc_header){ "containerd-namespace", c->ns };
	headers[1] = (struct flip_grpc_header){ "containerd-lease", c->lease };
	return c->lease[0] ? 2 : 1;
}

static int keep_reply(void *arg, const void *data, size_t size)
{
	struct base_buf *reply = arg;

	base_buf_reset(reply);
	return base_buf_append(reply, data, size);
}

/* One message there and one back; reply may be NULL. */
static int call(struct flip_containerd *c, const char *path, const ProtobufCMessage *request, uint32_t timeout_ms,
                struct base_buf *reply, struct err *err)
{
	CLEANUP(freep) uint8_t *data = NULL;
	struct flip_grpc_header headers[2];
	size_t size, n_headers = fill_headers(c, headers);
	int r = flip_pb_encode(request, &data, &size);

	if (r < 0)
		return err_set(err, r, "%s: the request is too large", path);
	r = flip_grpc_call(c->client, path, headers, n_headers, data, size, timeout_ms, reply ? keep_reply : NULL,
	                   reply, err);
	return r < 0 ? err_prefix(err, r, "containerd: ") : r;
}

static int labels_out(const struct flip_label *labels, size_t n, Flip__Pb__Label ***ret_labels, struct err *err)
{
	if (n > FLIP_MAX_LABELS)
		return err_set(err, -E2BIG, "more than %d labels", FLIP_MAX_LABELS);
	return flip_pb_labels_out(labels, n, ret_labels) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}

int flip_containerd_version(struct flip_containerd *c, char *ret_version, size_t size, struct err *err)
{
	Flip__Pb__Empty request = FLIP__PB__EMPTY__INIT;
	struct base_buf reply = BASE_BUF_INIT(FLIP_GRPC_MAX_MESSAGE);
	struct flip_pb_memory memory;
	ProtobufCMessage *m = NULL;
	int r = call(c, SERVICES "version.v1.Version/Version", &request.base, CALL_MS, &reply, err);

	flip_pb_memory_init(&memory);
	if (r == 0)
		r = flip_pb_decode(&flip__pb__version_response__descriptor, base_buf_text(&reply), reply.len, &memory,
		                   &m, err);
	if (r == 0) {
		(void)snprintf(ret_version, size, "%s", ((Flip__Pb__VersionResponse *)m)->version);
		protobuf_c_message_free_unpacked(m, &memory.allocator);
	}
	base_buf_done(&reply);
	return r;
}

/* ---- Leases ---- */

int flip_containerd_lease(struct flip_containerd *c, uint32_t expire_s, struct err *err)
{
	Flip__Pb__CreateLeaseRequest request = FLIP__PB__CREATE_LEASE_REQUEST__INIT;
	CLEANUP(freep) Flip__Pb__Label **pb_labels = NULL;
	char when[32], id[ID_SIZE];
	struct flip_label label = { .name = "containerd.io/gc.expire", .value = when };
	time_t t = time(NULL) + (time_t)expire_s;
	struct tm tm;
	int r;

	if (c->lease[0])
		return err_set(err, -EEXIST, "there is a lease already: %s", c->lease);
	(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
	(void)snprintf(id, sizeof(id), "%s-%u", c->prefix, ++c->n_refs);
	r = labels_out(&label, 1, &pb_labels, err);
	if (r < 0)
		return r;
	request.id = id;
	request.labels = pb_labels;
	request.n_labels = 1;
	r = call(c, SERVICES "leases.v1.Leases/Create", &request.base, CALL_MS, NULL, err);
	if (r == 0)
		memcpy(c->lease, id, sizeof(id));
	return r;
}

int flip_containerd_end_lease(struct flip_containerd *c, struct err *err)
{
	Flip__Pb__DeleteLeaseRequest request = FLIP__PB__DELETE_LEASE_REQUEST__INIT;
	char id[ID_SIZE];
	int r;

	if (!c->lease[0])
		return 0;
	memcpy(id, c->lease, sizeof(id));
	c->lease[0] = '\0'; /* a lease cannot hold itself */
	request.id = id;
	r = call(c, SERVICES "leases.v1.Leases/Delete", &request.base, CALL_MS, NULL, err);
	return r == -ENOENT ? 0 : r; /* it has expired */
}

/* ---- Content ---- */

/* One message of a write and its answer. */
static int write_step(struct flip_grpc_stream *st, Flip__Pb__WriteContentRequest *request, struct err *err)
{
	CLEANUP(freep) uint8_t *data = NULL;
	bool is_last = request->action == FLIP__PB__WRITE_ACTION__COMMIT;
	const void *reply;
	size_t size;
	int r = flip_pb_encode(&request->base, &data, &size);

	if (r < 0)
		return err_set(err, r, "content: a message is too large");
	r = flip_grpc_stream_send(st, data, size, is_last, err);
	if (r < 0 && r != -EPIPE)
		return r;
	r = flip_grpc_stream_receive(st, &reply, &size, err);
	if (r == 0)
		return err_set(err, -EPROTO, "content: the write ended without an answer");
	if (r < 0 || !is_last)
		return r < 0 ? r : 0;
	/* To the end, which says whether all is well; containerd tells the last answer twice. */
	while ((r = flip_grpc_stream_receive(st, &reply, &size, err)) > 0)
		continue;
	return r;
}

static int write_content(struct flip_grpc_stream *st, Flip__Pb__WriteContentRequest *request, const void *data,
                         size_t size, struct err *err)
{
	size_t n_labels = request->n_labels, at = 0;
	int r;

	request->n_labels = 0;
	request->action = FLIP__PB__WRITE_ACTION__WRITE;
	for (; size - at > CHUNK; at += CHUNK) {
		request->offset = (int64_t)at;
		request->data = (ProtobufCBinaryData){ .data = (uint8_t *)data + at, .len = CHUNK };
		r = write_step(st, request, err);
		if (r < 0)
			return r;
	}
	request->n_labels = n_labels;
	request->action = FLIP__PB__WRITE_ACTION__COMMIT;
	request->offset = (int64_t)at;
	request->data = (ProtobufCBinaryData){ .data = (uint8_t *)data + at, .len = size - at };
	return write_step(st, request, err);
}

/* What is there already gets the labels all the same: they hold what it refers to. */
static int update_labels(struct flip_containerd *c, const char *digest, Flip__Pb__Label **labels, size_t n,
                         struct err *err)
{
	Flip__Pb__UpdateContentRequest request = FLIP__PB__UPDATE_CONTENT_REQUEST__INIT;
	Flip__Pb__ContentInfo info = FLIP__PB__CONTENT_INFO__INIT;
	Flip__Pb__FieldMask mask = FLIP__PB__FIELD_MASK__INIT;
	char **paths = calloc(n + 1, sizeof(*paths));
	int r = 0;

	if (!paths)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n && r == 0; i++) {
		if (asprintf(&paths[i], "labels.%s", labels[i]->name) < 0) {
			paths[i] = NULL;
			r = err_set(err, -ENOMEM, "out of memory");
		}
	}
	info.digest = (char *)digest;
	info.labels = labels;
	info.n_labels = mask.n_paths = n;
	mask.paths = paths;
	request.info = &info;
	request.update_mask = &mask;
	if (r == 0)
		r = call(c, SERVICES "content.v1.Content/Update", &request.base, CALL_MS, NULL, err);
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
	return r;
}

static void abort_write(struct flip_containerd *c, char *ref)
{
	Flip__Pb__AbortContentRequest request = FLIP__PB__ABORT_CONTENT_REQUEST__INIT;

	request.ref = ref;
	/* What fails here is collected by containerd some day. */
	(void)call(c, SERVICES "content.v1.Content/Abort", &request.base, CALL_MS, NULL, NULL);
}

int flip_containerd_put_content(struct flip_containerd *c, const char *digest, const void *data, size_t size,
                                const struct flip_label *labels, size_t n_labels, struct err *err)
{
	Flip__Pb__WriteContentRequest request = FLIP__PB__WRITE_CONTENT_REQUEST__INIT;
	CLEANUP(freep) Flip__Pb__Label **pb_labels = NULL;
	struct flip_grpc_header headers[2];
	size_t n_headers = fill_headers(c, headers);
	struct flip_grpc_stream *st = NULL;
	char ref[ID_SIZE];
	int r = labels_out(labels, n_labels, &pb_labels, err);

	if (r < 0)
		return r;
	(void)snprintf(ref, sizeof(ref), "%s-%u", c->prefix, ++c->n_refs);
	request.ref = ref;
	request.expected = (char *)digest;
	request.total = (int64_t)size;
	request.labels = pb_labels;
	request.n_labels = n_labels;
	r = flip_grpc_stream_open(c->client, SERVICES "content.v1.Content/Write", headers, n_headers, CALL_MS, &st,
	                          err);
	if (r < 0)
		return r;
	r = write_content(st, &request, data, size, err);
	flip_grpc_stream_close(st);
	if (r == -EEXIST) {
		r = n_labels ? update_labels(c, digest, pb_labels, n_labels, err) : 0;
		if (r == 0 && err)
			*err = (struct err){ 0 };
	} else if (r < 0) {
		abort_write(c, ref);
	}
	return r < 0 ? err_prefix(err, r, "content %s: ", digest) : 0;
}

/* ---- Snapshots ---- */

static int key_call(struct flip_containerd *c, const char *path, const char *snapshotter, const char *key,
                    struct err *err)
{
	Flip__Pb__KeyRequest request = FLIP__PB__KEY_REQUEST__INIT;
	int r;

	request.snapshotter = (char *)snapshotter;
	request.key = (char *)key;
	r = call(c, path, &request.base, CALL_MS, NULL, err);
	return r < 0 ? err_prefix(err, r, "snapshot %s: ", key) : 0;
}

int flip_containerd_remove_snapshot(struct flip_containerd *c, const char *snapshotter, const char *key,
                                    struct err *err)
{
	return key_call(c, SERVICES "snapshots.v1.Snapshots/Remove", snapshotter, key, err);
}

int flip_containerd_stat_snapshot(struct flip_containerd *c, const char *snapshotter, const char *key, struct err *err)
{
	return key_call(c, SERVICES "snapshots.v1.Snapshots/Stat", snapshotter, key, err);
}

/* Whether "already exists" means what the labels ask for: the snapshot that they name is there. */
static int target_exists(struct flip_containerd *c, const char *snapshotter, const struct flip_label *labels,
                         size_t n_labels, struct err *err)
{
	for (size_t i = 0; i < n_labels; i++) {
		if (strcmp(labels[i].name, LABEL_TARGET) == 0 &&
		    flip_containerd_stat_snapshot(c, snapshotter, labels[i].value, NULL) == 0) {
			if (err)
				*err = (struct err){ 0 };
			return 1;
		}
	}
	return -EEXIST;
}

int flip_containerd_prepare(struct flip_containerd *c, const char *snapshotter, const char *key, const char *parent,
                            const struct flip_label *labels, size_t n_labels, struct err *err)
{
	Flip__Pb__PrepareRequest request = FLIP__PB__PREPARE_REQUEST__INIT;
	CLEANUP(freep) Flip__Pb__Label **pb_labels = NULL;
	int r = labels_out(labels, n_labels, &pb_labels, err);

	if (r < 0)
		return r;
	request.snapshotter = (char *)snapshotter;
	request.key = (char *)key;
	request.parent = parent ? (char *)parent : request.parent;
	request.labels = pb_labels;
	request.n_labels = n_labels;
	r = call(c, SERVICES "snapshots.v1.Snapshots/Prepare", &request.base, PREPARE_MS, NULL, err);
	if (r == -EEXIST)
		r = target_exists(c, snapshotter, labels, n_labels, err);
	return r < 0 ? err_prefix(err, r, "snapshot %s: ", key) : r;
}

/* ---- Images ---- */

int flip_containerd_put_image(struct flip_containerd *c, const char *name, const char *media_type, const char *digest,
                              uint64_t size, struct err *err)
{
	Flip__Pb__ImageRequest request = FLIP__PB__IMAGE_REQUEST__INIT;
	Flip__Pb__Image image = FLIP__PB__IMAGE__INIT;
	Flip__Pb__Descriptor target = FLIP__PB__DESCRIPTOR__INIT;
	Flip__Pb__FieldMask mask = FLIP__PB__FIELD_MASK__INIT;
	char *paths[] = { "target" };
	int r;

	target.media_type = (char *)media_type;
	target.digest = (char *)digest;
	target.size = (int64_t)size;
	image.name = (char *)name;
	image.target = &target;
	request.image = &image;
	r = call(c, SERVICES "images.v1.Images/Create", &request.base, CALL_MS, NULL, err);
	if (r == -EEXIST) {
		if (err)
			*err = (struct err){ 0 };
		mask.paths = paths;
		mask.n_paths = 1;
		request.update_mask = &mask;
		r = call(c, SERVICES "images.v1.Images/Update", &request.base, CALL_MS, NULL, err);
	}
	return r < 0 ? err_prefix(err, r, "image %s: ", name) : 0;
}
