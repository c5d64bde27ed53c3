/* What is done now and then, by a thread of its own: what was written made durable, recordings ended, the rest of
 * wanted layers fetched when nobody reads, room made when there is too little. And garbage collection, whoever asks for
 * it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <malloc.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "node/node_internal.h"

enum {
	TICK_S = 2,       /* while something is to be watched */
	IDLE_S = 30,      /* else */
	SYNC_S = 10,      /* between two syncs */
	BACKGROUND_S = 5, /* of quiet before the rest is fetched */
	GC_PAUSE_S = 60,  /* between two attempts to make room */
	MIN_AGE_S = 600,  /* a layer that nobody uses is kept for so long */
};

/* ---- Garbage ---- */

int node_walk_index(void *arg, const char *layer_dir, int (*each)(void *each_arg, const uint8_t digest[32]),
                    void *each_arg, struct err *err)
{
	char path[NODE_PATH + 32];
	struct flip_index *ix = NULL;
	int r;

	(void)snprintf(path, sizeof(path), "%s/index", layer_dir);
	r = flip_index_open(path, &ix, err);
	for (size_t i = 0; r == 0 && i < flip_index_n_objects(ix); i++) {
		const struct flip_index_object *o = flip_index_object(ix, i);
		uint8_t name[FLIP_DIGEST_SIZE];

		r = each(each_arg, o->digest);
		if (r == 0 && flip_index_is_unverified(ix, o) && (r = flip_store_unverified_name(o->digest, name)) == 0)
			r = each(each_arg, name);
	}
	flip_index_close(ix);
	return r;
}

int node_gc(struct flip_node *node, bool all, bool dry_run, struct flip_gc_result *ret_result, struct err *err)
{
	int r;

	node_forget_ended_mounts(node);
	r = flip_store_gc(node->store, all ? 0 : MIN_AGE_S, dry_run, node_walk_index, node, ret_result, err);
	return r < 0 || dry_run ? r : node_layers_drop_removed(node, err);
}

/* Not here: whoever writes may be an operation of the file system, which layers that go wait for. */
void node_layers_gone(void *arg)
{
	struct flip_node *node = arg;

	atomic_store(&node->has_gone_layers, true);
	pthread_mutex_lock(&node->keeper_lock);
	pthread_cond_signal(&node->keeper_wake);
	pthread_mutex_unlock(&node->keeper_lock);
}

/* Folders without a row are what a crash leaves, and the store tidies them when it is opened. */
int node_cleanup(void *arg, struct err *err)
{
	struct flip_gc_result result;

	return node_gc(arg, false, false, &result, err);
}

/* ---- The keeper ---- */

static void fetch_the_rest(struct flip_node *node, int64_t now_ms)
{
	int64_t wait = (node->opts.background_wait_s ? node->opts.background_wait_s : BACKGROUND_S) * INT64_C(1000);
	struct node_layer *layer = NULL;
	bool try_again;

	if (node->opts.no_background || node->queue.is_stopped || node_record_is_running(node) ||
	    now_ms - atomic_load(&node->last_foreground_ms) < wait)
		return;
	try_again = node_queue_is_idle(node);
	pthread_rwlock_rdlock(&node->layers_lock);
	for (size_t i = 0; i < node->n_layers && !layer; i++) {
		struct node_layer *l = node->layers[i];

		/* What did not come, because the registry was not there or the disk was full. */
		if (l && try_again && atomic_exchange(&l->has_failed, false))
			atomic_store(&l->is_rest_queued, false);
		if (l && node_layer_can_fetch(l) && atomic_load(&l->is_wanted) &&
		    !atomic_exchange(&l->is_rest_queued, true)) {
			layer = l;
			atomic_fetch_add(&l->n_refs, 1);
		}
	}
	pthread_rwlock_unlock(&node->layers_lock);
	if (layer) {
		node_queue_rest(layer, atomic_load(&layer->is_preheated) ? FLIP_PREHEAT : FLIP_BACKGROUND);
		if (!atomic_load(&layer->is_wanted)) /* collected, or removed, meanwhile */
			node_queue_drop(layer);
	}
	node_layer_unref(layer);
}

static bool is_short_of_room(struct flip_node *node)
{
	uint64_t min = node->opts.store.min_free_bytes ? node->opts.store.min_free_bytes : UINT64_C(1) << 30;
	struct flip_store_stat st;

	if (flip_store_stat(node->store, &st, NULL) < 0)
		return false;
	return st.free_bytes < min ||
	       (node->opts.store.budget_bytes && st.object_bytes + st.partial_bytes > node->opts.store.budget_bytes);
}

/* Nothing is fetched ahead while room is short; what somebody reads still is, as long as the disk takes it. */
static void watch_room(struct flip_node *node, int64_t now_ms, int64_t *last_gc_ms)
{
	bool is_short = is_short_of_room(node);
	struct flip_gc_result result = { 0 };
	struct err err = { 0 };

	node_queue_watch(node, is_short);
	if (!is_short || now_ms - *last_gc_ms < GC_PAUSE_S * INT64_C(1000))
		return;
	*last_gc_ms = now_ms;
	if (node_gc(node, false, false, &result, &err) < 0)
		base_log(BASE_LOG_WARN, "making room: %s", err_text(&err));
	else
		base_log(BASE_LOG_INFO, "made room: %llu contents, %llu layers, %llu MB",
		         (unsigned long long)result.n_objects, (unsigned long long)result.n_layers,
		         (unsigned long long)result.n_bytes / 1000000);
}

static void *keep(void *arg)
{
	struct flip_node *node = arg;
	int64_t last_sync_ms = base_now_ms(), last_gc_ms = 0;

	pthread_mutex_lock(&node->keeper_lock);
	while (!node->keeper_stops) {
		bool busy;
		struct timespec until;
		struct err err = { 0 };
		int64_t now_ms;

		/* Who makes us busy from here on wakes us. */
		atomic_store(&node->keeper_dozes, true);
		busy = atomic_load(&node->is_dirty) || node_record_is_running(node) ||
		       base_now_ms() - atomic_load(&node->last_foreground_ms) < 60000 || node_queue_preheats(node);
		atomic_store(&node->keeper_dozes, !busy);
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += busy ? TICK_S : IDLE_S;
		(void)pthread_cond_timedwait(&node->keeper_wake, &node->keeper_lock, &until);
		if (node->keeper_stops)
			break;
		pthread_mutex_unlock(&node->keeper_lock);
		now_ms = base_now_ms();
		if (atomic_exchange(&node->has_gone_layers, false) && node_layers_drop_removed(node, &err) < 0)
			base_log(BASE_LOG_WARN, "%s", err_text(&err));
		node_record_finish(node, now_ms);
		if (busy || !node_queue_is_idle(node))
			watch_room(node, now_ms, &last_gc_ms);
		node_complaints_end(node, now_ms);
		node_models_settle(node);
		fetch_the_rest(node, now_ms);
		if (now_ms - last_sync_ms >= SYNC_S * INT64_C(1000) && atomic_exchange(&node->is_dirty, false)) {
			last_sync_ms = now_ms;
			if (flip_store_sync(node->store, &err) < 0)
				base_log(BASE_LOG_WARN, "%s", err_text(&err));
			(void)malloc_trim(0);
		}
		pthread_mutex_lock(&node->keeper_lock);
	}
	pthread_mutex_unlock(&node->keeper_lock);
	return NULL;
}

void node_keeper_wake(struct flip_node *node)
{
	if (!atomic_exchange(&node->keeper_dozes, false))
		return;
	pthread_mutex_lock(&node->keeper_lock);
	pthread_cond_signal(&node->keeper_wake);
	pthread_mutex_unlock(&node->keeper_lock);
}

int node_keeper_start(struct flip_node *node, struct err *err)
{
	int r = pthread_create(&node->keeper, NULL, keep, node);

	if (r)
		return err_set(err, -r, "a thread: %s", strerror(r));
	node->keeper_runs = true;
	return 0;
}

void node_keeper_stop(struct flip_node *node)
{
	if (!node->keeper_runs)
		return;
	pthread_mutex_lock(&node->keeper_lock);
	node->keeper_stops = true;
	pthread_cond_signal(&node->keeper_wake);
	pthread_mutex_unlock(&node->keeper_lock);
	(void)pthread_join(node->keeper, NULL);
	node->keeper_runs = false;
}
