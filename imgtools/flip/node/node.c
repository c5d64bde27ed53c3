/* Starting and stopping, in the order in which the parts need each other: store, fetch, layers, FUSE, keeper. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sha256.h"
#include "base/threadpool.h"
#include "node/node_internal.h"

enum { N_PULLERS = 4 };

static int make_dir(const char *path, struct err *err)
{
	if (mkdir(path, 0711) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	return 0;
}

/* Where the file system notes what is open: on a tmpfs, gone with the mounts at the next boot; by the root's name, as
 * there may be several nodes on one machine. */
static int make_state_path(struct flip_node *node, struct err *err)
{
	uint8_t sum[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];
	int r = base_sha256_bytes(node->root, strlen(node->root), sum);

	if (r < 0)
		return err_set(err, r, "out of memory");
	base_sha256_hex(sum, hex);
	(void)snprintf(node->state, sizeof(node->state), "/run/flip/session-%.16s", hex);
	return make_dir("/run/flip", err);
}

static int make_paths(struct flip_node *node, const char *root, struct err *err)
{
	char *real;
	char m[NODE_PATH + 8];
	int r;

	if (make_dir(root, err) < 0)
		return -errno;
	real = realpath(root, NULL);
	if (!real)
		return err_set(err, -errno, "%s: %s", root, strerror(errno));
	/* overlayfs takes ':' and ',' for its own; long paths leave no room for layers. */
	r = strpbrk(real, ":,\\") ? err_set(err, -EINVAL, "%s: ':', ',' and '\\' cannot be part of the path", real)
	    : strlen(real) > 200  ? err_set(err, -ENAMETOOLONG, "%s: longer than 200 bytes", real)
	                          : 0;
	if (r == 0) {
		(void)snprintf(node->root, sizeof(node->root), "%s", real);
		(void)snprintf(node->fuse_dir, sizeof(node->fuse_dir), "%.200s/fuse", real);
		(void)snprintf(node->objects_dir, sizeof(node->objects_dir), "%.200s/objects", real);
		(void)snprintf(node->holder, sizeof(node->holder), "%.200s/holder.sock", real);
		r = make_state_path(node, err);
	}
	if (r == 0) {
		(void)snprintf(m, sizeof(m), "%.200s/m", real);
		r = make_dir(m, err);
	}
	free(real);
	return r;
}

static void init_locks(struct flip_node *node)
{
	(void)pthread_rwlock_init(&node->layers_lock, NULL);
	(void)pthread_mutex_init(&node->loads_lock, NULL);
	(void)pthread_mutex_init(&node->models_lock, NULL);
	(void)pthread_mutex_init(&node->pulls_lock, NULL);
	(void)pthread_cond_init(&node->pulls_changed, NULL);
	(void)pthread_mutex_init(&node->record_lock, NULL);
	(void)pthread_mutex_init(&node->complaints_lock, NULL);
	(void)pthread_mutex_init(&node->keeper_lock, NULL);
	(void)pthread_cond_init(&node->keeper_wake, NULL);
	node_queue_init(node);
}

/* Layers of the store, so that their contents have numbers before the first look-up: the kernel may still hold files of
 * a process before us. One that cannot be read is told and left out. */
static int load_layer(const struct flip_layer_row *row, void *arg)
{
	struct node_layer *layer;
	struct err err = { 0 };

	if (node_layer_load(arg, row->digest, &layer, &err) == 0)
		node_layer_unref(layer);
	else
		base_log_with(BASE_LOG_WARN, NODE_FIELDS(NULL, row->digest), "layer %s: %s", row->digest,
		              err_text(&err));
	return 0;
}

static int choose_lower(struct flip_node *node, struct err *err)
{
	bool can;

	flip_kernel_probe(node->root, &node->kernel);
	can = node->kernel.erofs && node->kernel.overlay_data_only;
	if (node->opts.lower == FLIP_LOWER_EROFS && !can)
		return err_set(err, -ENOTSUP, "this kernel has no %s",
		               node->kernel.erofs ? "data-only layers" : "EROFS");
	node->use_erofs = can && node->opts.lower != FLIP_LOWER_FUSE;
	return 0;
}

static bool has_holder(const struct flip_node *node)
{
	return !node->opts.holder_socket || *node->opts.holder_socket;
}

static const char *holder_of(const struct flip_node *node)
{
	return node->opts.holder_socket ? node->opts.holder_socket : node->holder;
}

/* Something new at the mount point. What is there ends: a mount whose session cannot be gone on with answers nothing.
 */
static int mount_fs(struct flip_node *node, struct flip_fs_opts *o, struct err *err)
{
	int r;

	(void)flip_unmount(node->fuse_dir, true, NULL);
	r = make_dir(node->fuse_dir, err);
	if (r == 0)
		r = flip_fs_start(o, &node->fs, err);
	if (r == 0 && has_holder(node))
		r = flip_holder_put(holder_of(node), flip_fs_fd(node->fs), err);
	if (r == 0)
		base_log(BASE_LOG_INFO, "%s: mounted", node->fuse_dir);
	return r;
}

/* Goes on with the session of the process before us: 1, or 0 when there is none that could be. Whatever is wrong with
 * what was left (the notes about it lost, another mount's, of io_uring; a descriptor that is no session), a daemon that
 * starts is worth more than one that does not: containers over that mount are lost either way. Not so where another
 * process has it, or this one lacks something: the next start may go on. */
static int go_on_with_fs(struct flip_node *node, struct flip_fs_opts *o, struct err *ret_err)
{
	struct err err = { 0 };
	int fd = -1, r;

	if (!has_holder(node) || flip_holder_get(holder_of(node), &fd, NULL) < 0 || fd < 0)
		return 0;
	if (!flip_is_mountpoint(node->fuse_dir)) { /* of before the machine was restarted, or somebody unmounted it */
		(void)close(fd);
		return 0;
	}
	o->session_fd = fd;
	r = flip_fs_start(o, &node->fs, &err);
	o->session_fd = -1;
	(void)close(fd);
	if (r == -EBUSY || r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -EAGAIN) {
		if (ret_err)
			*ret_err = err;
		return r;
	}
	if (r < 0)
		base_log(BASE_LOG_WARN, "%s; mounting anew, what was mounted before is lost", err_text(&err));
	else
		base_log(BASE_LOG_INFO, "%s: going on with the mount that is there", node->fuse_dir);
	return r == 0;
}

static int start_fs(struct flip_node *node, struct err *err)
{
	struct flip_fs_opts o = { .ops = &node_fs_ops,
		                  .arg = node,
		                  .mountpoint = node->fuse_dir,
		                  .max_readahead = node->opts.max_readahead,
		                  .passthrough_min = node->opts.passthrough_min,
		                  .io_uring = node->opts.io_uring,
		                  .state_path = has_holder(node) ? node->state : NULL,
		                  .session_fd = -1 };
	int r = go_on_with_fs(node, &o, err);

	return r < 0 ? r : r > 0 ? 0 : mount_fs(node, &o, err);
}

/* What containers of before stand on: mounted again when the machine was restarted. */
static int mount_used(const struct flip_snapshot *s, void *arg)
{
	struct node_layer *layer;
	struct err err = { 0 };
	int r;

	if (!s->layer || !*s->layer)
		return 0;
	r = node_layer_known(arg, s->layer, &layer, &err);
	if (r == 0) {
		r = node_layer_mount(layer, &err);
		node_layer_unref(layer);
	}
	if (r < 0)
		base_log(BASE_LOG_WARN, "%s: %s", s->name, err_text(&err));
	return 0;
}

int flip_node_start(const struct flip_node_opts *o, struct flip_node **ret_node, struct err *err)
{
	struct flip_node *node = calloc(1, sizeof(*node));
	unsigned n_threads = o->n_threads ? o->n_threads : base_cpu_count();
	int r;

	if (!node)
		return err_set(err, -ENOMEM, "out of memory");
	node->opts = *o;
	init_locks(node);
	node->opts.store.index_walk = node_walk_index;
	node->opts.store.layers_gone = node_layers_gone;
	node->opts.store.index_arg = node;
	r = make_paths(node, o->root, err);
	if (r == 0)
		r = flip_store_open(node->root, &node->opts.store, &node->store, err);
	if (r == 0)
		r = choose_lower(node, err);
	if (r == 0 && (!(node->images = node_images_new()) || node_reads_init(node) < 0))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = flip_work_new(n_threads, &node->work, err);
	if (r == 0)
		r = flip_work_new(N_PULLERS, &node->pullers, err);
	if (r == 0)
		r = flip_fetch_new(&o->fetch, &node->fetch, err);
	if (r == 0)
		r = flip_peers_new(&o->peers, &node->peers, err);
	if (r == 0 && node->peers) {
		node_documents_use(node);
		node->verdicts = node_verdicts_new();
		r = node->verdicts ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	if (r == 0)
		r = flip_store_layers(node->store, load_layer, node, err);
	if (r == 0)
		r = start_fs(node, err);
	if (r == 0)
		r = flip_store_snapshots(node->store, mount_used, node, err);
	if (r == 0)
		r = node_want_started(node, err);
	if (r == 0)
		r = node_models_start(node, err);
	if (r == 0)
		r = node_keeper_start(node, err);
	if (r == 0)
		r = node_peers_start(node, err);
	if (r < 0) {
		flip_node_stop(node, false);
		return r;
	}
	*ret_node = node;
	return 0;
}

static int unmount_layers(struct flip_node *node)
{
	for (size_t i = 0; i < node->n_layers; i++) {
		char path[NODE_PATH + 128];

		if (!node->layers[i] || !node->use_erofs)
			continue;
		node_layer_lower(node->layers[i], path, sizeof(path));
		(void)flip_unmount(path, true, NULL);
	}
	return 0;
}

void flip_node_stop(struct flip_node *node, bool unmount)
{
	if (!node)
		return;
	if (node->fs)
		flip_fs_pause(node->fs, unmount);
	node_keeper_stop(node);
	pthread_mutex_lock(&node->queue.lock);
	node->queue.is_stopped = true;
	pthread_mutex_unlock(&node->queue.lock);
	/* What is under way ends with an error, and with it the reads that wait; where the mount lives on they are kept
	 * back and asked of the next process. */
	flip_fetch_stop(node->fetch);
	flip_peers_stop(node->peers);
	flip_work_free(node->pullers);
	flip_work_free(node->work);
	if (node->fs)
		flip_fs_stop(node->fs, unmount);
	node_record_finish(node, INT64_MAX);
	if (unmount) {
		unmount_layers(node);
		if (has_holder(node))
			(void)flip_holder_end(holder_of(node), NULL);
	}
	node_queue_done(node);
	node_layers_free(node);
	flip_fetch_free(node->fetch);
	flip_peers_free(node->peers);
	node_verdicts_free(node->verdicts);
	node_reads_done(node);
	node_images_free(node->images);
	flip_store_close(node->store);
	free(node);
}
