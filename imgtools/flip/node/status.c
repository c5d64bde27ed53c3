/* What the node knows of itself: one JSON object for `flip stat`, the same as Prometheus text for /metrics. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/json.h"
#include "node/node_internal.h"

static uint64_t resident_bytes(void)
{
	unsigned long long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%llu %llu", &size, &resident) != 2)
			resident = 0;
		(void)fclose(f);
	}
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(void)
{
	struct rusage u;

	(void)getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static json_t *store_json(struct flip_node *node)
{
	struct flip_store_stat s = { 0 };

	(void)flip_store_stat(node->store, &s, NULL);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "objects", (json_int_t)s.n_objects, "object_bytes",
	                 (json_int_t)s.object_bytes, "partials", (json_int_t)s.n_partials, "partial_bytes",
	                 (json_int_t)s.partial_bytes, "layers", (json_int_t)s.n_layers, "snapshots",
	                 (json_int_t)s.n_snapshots, "disk_bytes", (json_int_t)s.disk_bytes, "free_bytes",
	                 (json_int_t)s.free_bytes);
}

static json_t *fetch_json(struct flip_node *node)
{
	struct flip_fetch_stat s = { 0 };

	flip_fetch_stat(node->fetch, &s);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:I}", "requests",
	                 (json_int_t)s.n_requests, "retries", (json_int_t)s.n_retries, "ranges", (json_int_t)s.n_ranges,
	                 "wire_bytes", (json_int_t)s.wire_bytes, "gap_bytes", (json_int_t)s.gap_bytes,
	                 "queued_foreground", (json_int_t)s.n_queued[FLIP_FOREGROUND], "queued_prefetch",
	                 (json_int_t)s.n_queued[FLIP_PREFETCH], "queued_background",
	                 (json_int_t)s.n_queued[FLIP_BACKGROUND], "queued_preheat",
	                 (json_int_t)s.n_queued[FLIP_PREHEAT], "active",
	                 (json_int_t)(s.n_active[0] + s.n_active[1] + s.n_active[2] + s.n_active[3]), "rtt_us",
	                 (int)s.rtt_us, "rate", (json_int_t)s.rate);
}

static json_t *fuse_json(struct flip_node *node)
{
	struct flip_fs_stat s = { 0 };

	flip_fs_stat(node->fs, &s);
	return json_pack("{s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "passthrough", s.passthrough, "io_uring",
	                 s.io_uring, "resend", s.resend, "lookups", (json_int_t)s.n_lookups, "opens",
	                 (json_int_t)s.n_opens, "opens_passthrough", (json_int_t)s.n_opens_passthrough, "reads",
	                 (json_int_t)s.n_reads, "read_bytes", (json_int_t)s.read_bytes, "errors",
	                 (json_int_t)s.n_errors);
}

static json_t *reads_json(struct flip_node *node)
{
	size_t n_loads;
	uint64_t n_preheat;
	unsigned percent;

	node_queue_preheat_stat(node, &n_preheat, &percent);

	pthread_mutex_lock(&node->loads_lock);
	n_loads = node->n_loads;
	pthread_mutex_unlock(&node->loads_lock);
	return json_pack(
	        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "reads",
	        (json_int_t)atomic_load(&node->n_reads), "waited", (json_int_t)atomic_load(&node->n_reads_waited),
	        "errors", (json_int_t)atomic_load(&node->n_read_errors), "wait_us",
	        (json_int_t)atomic_load(&node->read_wait_us), "foreground_bytes",
	        (json_int_t)atomic_load(&node->foreground_bytes), "prefetch_bytes",
	        (json_int_t)atomic_load(&node->prefetch_bytes), "background_bytes",
	        (json_int_t)atomic_load(&node->background_bytes), "preheat_bytes",
	        (json_int_t)atomic_load(&node->preheat_bytes), "preheat_chunks", (json_int_t)n_preheat,
	        "preheat_percent", (json_int_t)percent, "bad_chunks", (json_int_t)atomic_load(&node->bad_chunks),
	        "loads", (json_int_t)n_loads, "peer_bytes", (json_int_t)atomic_load(&node->peer_bytes),
	        "origin_own_bytes", (json_int_t)atomic_load(&node->origin_own_bytes), "origin_relayed_bytes",
	        (json_int_t)atomic_load(&node->origin_relayed_bytes), "origin_instead_bytes",
	        (json_int_t)atomic_load(&node->origin_instead_bytes));
}

static json_t *layer_json(const struct node_layer *l)
{
	return json_pack("{s:s, s:i, s:s, s:b, s:I, s:I, s:I}", "digest", l->digest, "id", (int)l->id, "ref",
	                 l->ref ? l->ref : "", "lazy", node_layer_can_fetch(l), "files",
	                 (json_int_t)flip_erofs_n_inodes(l->meta), "contents",
	                 (json_int_t)flip_index_n_objects(l->index), "blob_bytes",
	                 (json_int_t)flip_index_blob_size(l->index));
}

static json_t *layers_json(struct flip_node *node)
{
	json_t *list = json_array();

	pthread_rwlock_rdlock(&node->layers_lock);
	for (size_t i = 0; i < node->n_layers; i++) {
		if (node->layers[i])
			(void)json_array_append_new(list, layer_json(node->layers[i]));
	}
	pthread_rwlock_unlock(&node->layers_lock);
	return list;
}

static json_t *stat_json(struct flip_node *node)
{
	return json_pack("{s:s, s:s, s:I, s:f, s:o, s:o, s:o, s:o, s:o}", "version", OCAI_VERSION, "lower",
	                 node->use_erofs ? "erofs" : "fuse", "rss_bytes", (json_int_t)resident_bytes(), "cpu_s",
	                 cpu_seconds(), "store", store_json(node), "fetch", fetch_json(node), "fuse", fuse_json(node),
	                 "reads", reads_json(node), "layers", layers_json(node));
}

int flip_node_stat(struct flip_node *node, struct base_buf *buf)
{
	json_t *o = stat_json(node);
	int r = o ? base_json_append(buf, o) : -ENOMEM;

	json_decref(o);
	return r;
}

/* Which members only ever grow. */
static bool is_counter(const char *group, const char *name)
{
	if (strcmp(group, "store") == 0)
		return false;
	return strncmp(name, "queued", 6) != 0 && strcmp(name, "active") != 0 && strcmp(name, "rtt_us") != 0 &&
	       strcmp(name, "rate") != 0 && strcmp(name, "loads") != 0 && strcmp(name, "preheat_chunks") != 0 &&
	       strcmp(name, "preheat_percent") != 0;
}

int flip_node_metrics(struct flip_node *node, struct base_buf *buf)
{
	static const char *const groups[] = { "store", "fetch", "fuse", "reads" };
	json_t *o = stat_json(node), *value;
	const char *name;

	if (!o)
		return -ENOMEM;
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
		json_object_foreach(json_object_get(o, groups[i]), name, value)
		{
			bool counter = is_counter(groups[i], name);

			if (!json_is_integer(value))
				continue;
			(void)base_buf_printf(buf, "# TYPE flip_%s_%s%s %s\nflip_%s_%s%s %" JSON_INTEGER_FORMAT "\n",
			                      groups[i], name, counter ? "_total" : "", counter ? "counter" : "gauge",
			                      groups[i], name, counter ? "_total" : "", json_integer_value(value));
		}
	}
	(void)base_buf_printf(buf, "# TYPE flip_resident_bytes gauge\nflip_resident_bytes %" JSON_INTEGER_FORMAT "\n",
	                      json_integer_value(json_object_get(o, "rss_bytes")));
	(void)base_buf_printf(buf, "# TYPE flip_cpu_seconds_total counter\nflip_cpu_seconds_total %.3f\n",
	                      json_real_value(json_object_get(o, "cpu_s")));
	json_decref(o);
	return node->peers ? flip_peers_metrics(node->peers, buf) : base_buf_error(buf);
}
