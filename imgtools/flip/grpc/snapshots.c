/* containerd.services.snapshots.v1 in front of a table of functions: a request is decoded within limits, checked,
 * handed on, and what comes back is encoded. Nothing is kept here, so the handlers need no lock. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <pb/snapshots.pb-c.h>

#include "base/cleanup.h"
#include "grpc/filter.h"
#include "grpc/pb.h"
#include "grpc/snapshots.h"
#include "grpc/snapshots_internal.h"

enum {
	N_HANDLERS = 32, /* Prepare may wait for the network: many images at a time */
	LIST_BATCH = 64, /* snapshots in one message of List */
	MAX_NAME = 4096,
};

void flip_mounts_done(struct flip_mounts *m)
{
	for (size_t i = 0; i < m->n; i++) {
		struct flip_mount *x = &m->items[i];

		free(x->type);
		free(x->source);
		free(x->target);
		for (size_t k = 0; k < x->n_options; k++)
			free(x->options[k]);
		free(x->options);
	}
	free(m->items);
	m->items = NULL;
	m->n = 0;
}

/* ---- Requests in ---- */

/* A decoded request; freed by its cleanup. */
struct request {
	struct flip_pb_memory memory;
	ProtobufCMessage *message;
	struct flip_label *labels;
};

static void request_done(struct request *q)
{
	free(q->labels);
	if (q->message)
		protobuf_c_message_free_unpacked(q->message, &q->memory.allocator);
}

static int request_decode(struct request *q, struct flip_grpc_call *call, const ProtobufCMessageDescriptor *type,
                          struct err *err)
{
	size_t size;
	const void *data = flip_grpc_request(call, &size);

	flip_pb_memory_init(&q->memory);
	return flip_pb_decode(type, data, size, &q->memory, &q->message, err);
}

static int check_name(const char *what, const char *name, struct err *err)
{
	if (!name[0])
		return err_set(err, -EINVAL, "the snapshot's %s is empty", what);
	if (strlen(name) > MAX_NAME)
		return err_set(err, -EINVAL, "the snapshot's %s is longer than %d bytes", what, MAX_NAME);
	return 0;
}

/* Decodes a request that is a snapshotter's name and a key. */
static int key_request(struct request *q, struct flip_grpc_call *call, const char **ret_key, struct err *err)
{
	int r = request_decode(q, call, &flip__pb__key_request__descriptor, err);

	if (r < 0)
		return r;
	*ret_key = ((Flip__Pb__KeyRequest *)q->message)->key;
	return check_name("key", *ret_key, err);
}

static const char *parent_of(const char *parent)
{
	return parent && parent[0] ? parent : NULL;
}

/* ---- Answers out ---- */

static int send_empty(struct flip_grpc_call *call)
{
	return flip_grpc_send(call, "", 0);
}

static int send_mounts(struct flip_grpc_call *call, const struct flip_mounts *m, struct err *err)
{
	Flip__Pb__MountsResponse response = FLIP__PB__MOUNTS_RESPONSE__INIT;
	CLEANUP(freep) Flip__Pb__Mount *items = calloc(m->n + 1, sizeof(*items));
	CLEANUP(freep) Flip__Pb__Mount **pointers = calloc(m->n + 1, sizeof(*pointers));

	if (!items || !pointers)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < m->n; i++) {
		const struct flip_mount *x = &m->items[i];

		flip__pb__mount__init(&items[i]);
		items[i].type = x->type ? x->type : items[i].type;
		items[i].source = x->source ? x->source : items[i].source;
		items[i].target = x->target ? x->target : items[i].target;
		items[i].options = x->options;
		items[i].n_options = x->n_options;
		pointers[i] = &items[i];
	}
	response.mounts = pointers;
	response.n_mounts = m->n;
	return flip_pb_send(call, &response.base);
}

static Flip__Pb__Timestamp to_time(int64_t ns)
{
	Flip__Pb__Timestamp t = FLIP__PB__TIMESTAMP__INIT;

	t.seconds = ns / 1000000000;
	t.nanos = (int32_t)(ns % 1000000000);
	if (t.nanos < 0) {
		t.seconds--;
		t.nanos += 1000000000;
	}
	return t;
}

int flip_snapshot_to_pb(const struct flip_snapshot *s, struct flip_pb_info *ret_info)
{
	struct flip_pb_info *i = ret_info;

	flip__pb__snapshot_info__init(&i->info);
	if (flip_pb_labels_out(s->labels, s->n_labels, &i->info.labels) < 0)
		return -ENOMEM;
	i->info.n_labels = s->n_labels;
	i->info.name = s->name;
	i->info.parent = s->parent ? s->parent : i->info.parent;
	i->info.kind = (Flip__Pb__Kind)s->kind; /* the same numbers */
	i->created = to_time(s->created_ns);
	i->updated = to_time(s->updated_ns);
	i->info.created_at = &i->created;
	i->info.updated_at = &i->updated;
	return 0;
}

static int send_snapshot(struct flip_grpc_call *call, const struct flip_snapshot *s, struct err *err)
{
	Flip__Pb__SnapshotResponse response = FLIP__PB__SNAPSHOT_RESPONSE__INIT;
	struct flip_pb_info info;
	int r = flip_snapshot_to_pb(s, &info);

	if (r < 0)
		return err_set(err, r, "out of memory");
	response.info = &info.info;
	r = flip_pb_send(call, &response.base);
	free(info.info.labels);
	return r;
}

/* ---- The methods ---- */

static int prepare_or_view(struct flip_grpc_call *call, struct flip_snapshots_service *v, bool is_view, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	CLEANUP(flip_mounts_done) struct flip_mounts mounts = { 0 };
	Flip__Pb__PrepareRequest *m;
	int r = request_decode(&q, call, &flip__pb__prepare_request__descriptor, err);

	if (r < 0)
		return r;
	m = (Flip__Pb__PrepareRequest *)q.message;
	r = check_name("key", m->key, err);
	if (r == 0)
		r = flip_pb_labels_in(m->labels, m->n_labels, &q.labels, err);
	if (r < 0)
		return r;
	r = (is_view ? v->ops->view : v->ops->prepare)(v->arg, m->key, parent_of(m->parent), q.labels, m->n_labels,
	                                               &mounts, err);
	return r < 0 ? r : send_mounts(call, &mounts, err);
}

static int on_prepare(struct flip_grpc_call *call, void *arg, struct err *err)
{
	return prepare_or_view(call, arg, false, err);
}

static int on_view(struct flip_grpc_call *call, void *arg, struct err *err)
{
	return prepare_or_view(call, arg, true, err);
}

static int on_mounts(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	CLEANUP(flip_mounts_done) struct flip_mounts mounts = { 0 };
	struct flip_snapshots_service *v = arg;
	const char *key;
	int r = key_request(&q, call, &key, err);

	if (r == 0)
		r = v->ops->mounts(v->arg, key, &mounts, err);
	return r < 0 ? r : send_mounts(call, &mounts, err);
}

static int on_commit(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	struct flip_snapshots_service *v = arg;
	Flip__Pb__CommitRequest *m;
	int r = request_decode(&q, call, &flip__pb__commit_request__descriptor, err);

	if (r < 0)
		return r;
	m = (Flip__Pb__CommitRequest *)q.message;
	r = check_name("name", m->name, err);
	if (r == 0)
		r = check_name("key", m->key, err);
	if (r == 0)
		r = flip_pb_labels_in(m->labels, m->n_labels, &q.labels, err);
	if (r == 0)
		r = v->ops->commit(v->arg, m->name, m->key, q.labels, m->n_labels, err);
	return r < 0 ? r : send_empty(call);
}

static int on_remove(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	struct flip_snapshots_service *v = arg;
	const char *key;
	int r = key_request(&q, call, &key, err);

	if (r == 0)
		r = v->ops->remove(v->arg, key, err);
	return r < 0 ? r : send_empty(call);
}

static int on_stat(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	CLEANUP(flip_snapshot_done) struct flip_snapshot s = { 0 };
	struct flip_snapshots_service *v = arg;
	const char *key;
	int r = key_request(&q, call, &key, err);

	if (r == 0)
		r = v->ops->stat(v->arg, key, &s, err);
	return r < 0 ? r : send_snapshot(call, &s, err);
}

static int on_update(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	CLEANUP(flip_snapshot_done) struct flip_snapshot now = { 0 };
	struct flip_snapshots_service *v = arg;
	struct flip_snapshot wanted = { 0 };
	Flip__Pb__UpdateSnapshotRequest *m;
	const char *const *paths;
	size_t n_paths;
	int r = request_decode(&q, call, &flip__pb__update_snapshot_request__descriptor, err);

	if (r < 0)
		return r;
	m = (Flip__Pb__UpdateSnapshotRequest *)q.message;
	r = m->info ? check_name("name", m->info->name, err) : err_set(err, -EINVAL, "no snapshot is named");
	if (r == 0)
		r = flip_pb_labels_in(m->info->labels, m->info->n_labels, &q.labels, err);
	if (r < 0)
		return r;
	wanted.name = m->info->name;
	wanted.parent = m->info->parent;
	wanted.kind = (enum flip_snapshot_kind)m->info->kind;
	wanted.labels = q.labels;
	wanted.n_labels = m->info->n_labels;
	paths = m->update_mask ? (const char *const *)m->update_mask->paths : NULL;
	n_paths = m->update_mask ? m->update_mask->n_paths : 0;
	r = flip_labels_check_paths(paths, n_paths, err);
	if (r == 0)
		r = v->ops->update(v->arg, &wanted, paths, n_paths, &now, err);
	return r < 0 ? r : send_snapshot(call, &now, err);
}

static int on_usage(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	Flip__Pb__UsageResponse response = FLIP__PB__USAGE_RESPONSE__INIT;
	struct flip_snapshots_service *v = arg;
	uint64_t size = 0, inodes = 0;
	const char *key;
	int r = key_request(&q, call, &key, err);

	if (r == 0)
		r = v->ops->usage(v->arg, key, &size, &inodes, err);
	if (r < 0)
		return r;
	response.size = size > INT64_MAX ? INT64_MAX : (int64_t)size;
	response.inodes = inodes > INT64_MAX ? INT64_MAX : (int64_t)inodes;
	return flip_pb_send(call, &response.base);
}

static int on_cleanup(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	struct flip_snapshots_service *v = arg;
	int r = request_decode(&q, call, &flip__pb__key_request__descriptor, err);

	if (r == 0)
		r = v->ops->cleanup(v->arg, err);
	return r < 0 ? r : send_empty(call);
}

/* ---- List: a batch is kept until it is full ---- */

struct listing {
	struct flip_grpc_call *call;
	const struct flip_filter *filter;
	struct flip_pb_info infos[LIST_BATCH];
	struct flip_snapshot copies[LIST_BATCH];
	size_t n;
};

static void listing_reset(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->infos[i].info.labels);
		flip_snapshot_done(&l->copies[i]);
	}
	l->n = 0;
}

static int listing_send(struct listing *l)
{
	Flip__Pb__ListSnapshotsResponse response = FLIP__PB__LIST_SNAPSHOTS_RESPONSE__INIT;
	Flip__Pb__SnapshotInfo *pointers[LIST_BATCH];
	int r;

	if (l->n == 0)
		return 0;
	for (size_t i = 0; i < l->n; i++)
		pointers[i] = &l->infos[i].info;
	response.info = pointers;
	response.n_info = l->n;
	r = flip_pb_send(l->call, &response.base);
	listing_reset(l);
	return r;
}

/* What each() is given is gone when it returns. */
static int snapshot_copy(const struct flip_snapshot *s, struct flip_snapshot *ret_copy)
{
	struct flip_snapshot c = *s;
	int r = 0;

	c.layer = NULL;
	c.labels = NULL;
	c.n_labels = 0;
	c.name = strdup(s->name ? s->name : "");
	c.parent = s->parent ? strdup(s->parent) : NULL;
	if (!c.name || (s->parent && !c.parent))
		r = -ENOMEM;
	if (r == 0)
		r = flip_labels_copy(s->labels, s->n_labels, &c.labels);
	if (r == 0)
		c.n_labels = s->n_labels;
	if (r < 0) {
		flip_snapshot_done(&c);
		return r;
	}
	*ret_copy = c;
	return 0;
}

static int list_one(void *arg, const struct flip_snapshot *s)
{
	struct listing *l = arg;
	int r;

	if (!flip_filter_matches(l->filter, s))
		return flip_grpc_is_canceled(l->call) ? -ECANCELED : 0;
	r = snapshot_copy(s, &l->copies[l->n]);
	if (r < 0)
		return r;
	r = flip_snapshot_to_pb(&l->copies[l->n], &l->infos[l->n]);
	if (r < 0) {
		flip_snapshot_done(&l->copies[l->n]);
		return r;
	}
	l->n++;
	return l->n < LIST_BATCH ? 0 : listing_send(l);
}

static int on_list(struct flip_grpc_call *call, void *arg, struct err *err)
{
	CLEANUP(request_done) struct request q = { 0 };
	CLEANUP(freep) struct listing *l = calloc(1, sizeof(*l));
	struct flip_snapshots_service *v = arg;
	Flip__Pb__ListSnapshotsRequest *m;
	struct flip_filter *filter = NULL;
	int r = request_decode(&q, call, &flip__pb__list_snapshots_request__descriptor, err);

	if (r < 0)
		return r;
	if (!l)
		return err_set(err, -ENOMEM, "out of memory");
	m = (Flip__Pb__ListSnapshotsRequest *)q.message;
	r = flip_filter_parse((const char *const *)m->filters, m->n_filters, &filter, err);
	if (r < 0)
		return r;
	l->call = call;
	l->filter = filter;
	r = v->ops->list(v->arg, list_one, l, err);
	if (r >= 0)
		r = listing_send(l);
	listing_reset(l);
	flip_filter_free(filter);
	return r;
}

/* ---- The service ---- */

const struct flip_grpc_method flip_snapshots_methods[] = {
	{ "/containerd.services.snapshots.v1.Snapshots/Prepare", on_prepare },
	{ "/containerd.services.snapshots.v1.Snapshots/View", on_view },
	{ "/containerd.services.snapshots.v1.Snapshots/Mounts", on_mounts },
	{ "/containerd.services.snapshots.v1.Snapshots/Commit", on_commit },
	{ "/containerd.services.snapshots.v1.Snapshots/Remove", on_remove },
	{ "/containerd.services.snapshots.v1.Snapshots/Stat", on_stat },
	{ "/containerd.services.snapshots.v1.Snapshots/Update", on_update },
	{ "/containerd.services.snapshots.v1.Snapshots/List", on_list },
	{ "/containerd.services.snapshots.v1.Snapshots/Usage", on_usage },
	{ "/containerd.services.snapshots.v1.Snapshots/Cleanup", on_cleanup },
	{ 0 },
};

int flip_snapshots_serve(const char *socket_path, const struct flip_snapshots_ops *ops, void *arg,
                         struct flip_grpc_server **ret_server, struct err *err)
{
	struct flip_snapshots_service *v = malloc(sizeof(*v));
	int r;

	if (!v)
		return err_set(err, -ENOMEM, "out of memory");
	v->ops = ops;
	v->arg = arg;
	r = flip_grpc_serve(socket_path, flip_snapshots_methods, v, N_HANDLERS, ret_server, err);
	if (r < 0) {
		free(v);
		return r;
	}
	flip_grpc_server_own(*ret_server, v);
	return 0;
}
