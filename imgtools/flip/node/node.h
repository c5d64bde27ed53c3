/* The daemon of a node: puts store, fetch, lazy, erofs, fusefs and grpc together.
 *
 * It knows layers (an index and a metadata image each), mounts them, answers reads of what has not arrived by one fetch
 * per chunk, plays prefetch lists back and records them, and serves containerd's snapshots API and a control socket.
 *
 * Folders below opts.root: what the store keeps (store/store.h), m/ID (metadata mounts), fuse (the FUSE file system).
 * Mounts outlive the process: a daemon that starts again finds them and goes on. */
#ifndef FLIP_NODE_H
#define FLIP_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "fetch/fetch.h"
#include "fusefs/fusefs.h"
#include "grpc/snapshots.h"
#include "peer/peer.h"
#include "store/store.h"

struct flip_node;

enum flip_lower {
	FLIP_LOWER_AUTO,  /* EROFS where the kernel can, else FUSE trees */
	FLIP_LOWER_EROFS, /* metadata by EROFS, contents by overlayfs data-only layers */
	FLIP_LOWER_FUSE,  /* whole trees by FUSE */
};

struct flip_node_opts {
	const char *root;
	struct flip_store_opts store;
	struct flip_fetch_opts fetch;
	enum flip_lower lower;
	enum flip_io_uring io_uring;
	unsigned n_threads;         /* decoding and unpacking; 0: one per core */
	uint32_t max_readahead;     /* of the kernel on the FUSE mount, bytes; 0: 128 KiB */
	uint64_t passthrough_min;   /* 0: 64 KiB */
	uint64_t prefetch_window;   /* bytes of chunks asked for ahead of their arrival; 0: 32 MiB */
	bool no_prefetch;           /* lists are not played back */
	bool no_record;             /* first starts are not recorded */
	bool no_background;         /* what no list names is fetched only when read */
	uint32_t record_quiet_s;    /* a recording ends when nothing was read for so long; 0: 10 */
	uint32_t background_wait_s; /* after the last foreground read, before the rest is fetched; 0: 5 */
	uint32_t preheat_pressure;  /* per cent of PSI beyond which preheating slows down; 0: 20; 100: never */
	const char *pressure_dir;   /* where that is read (peer/limit.h); NULL: /proc/pressure */
	const char *models_dir;     /* where models are mounted by name; NULL: /run/flip/models */
	struct flip_peers_opts peers;
	bool trust_peers; /* every member may have what any member has: the registry is not asked whether it may */
	bool peers_tags;  /* what a tag means is believed of peers while the registry is away */
	const char *holder_socket; /* keeps the FUSE session over our death; NULL: ROOT/holder.sock; "": none */
};

/* Opens the store, goes on with the FUSE session of a process before us or mounts a new one, and mounts the layers that
 * snapshots use. */
int flip_node_start(const struct flip_node_opts *o, struct flip_node **ret_node, struct err *err);
/* unmount: layers and the FUSE file system too (running containers lose their files); else they stay for the next
 * process. */
void flip_node_stop(struct flip_node *node, bool unmount);

extern const struct flip_snapshots_ops flip_node_snapshots_ops; /* arg: the node */

/* An image made ready below one mount point, read-only, for people and scripts (`flip mount`). */
int flip_node_mount(struct flip_node *node, const char *ref, const char *dir, struct err *err);
int flip_node_unmount(struct flip_node *node, const char *dir, struct err *err);

/* All of an image whose layers are known, fetched below all else: before anybody starts it. -ENOENT: none of them is.
 */
int flip_node_preheat(struct flip_node *node, const char *ref, struct err *err);

/* ---- Models: folders of files, by name (model/flip_model.h) ---- */

/* Makes a model known and begins to fetch it in the background; returns when its list of files is known. `source`: a
 * registry's artifact, the address of a manifest, or the absolute path of one. A model of that name that is complete
 * stays until the new one is. */
struct flip_model_pull {
	const char *name, *source;
	const char *shown; /* what is told as its source: a folder that is put into this store; NULL: the source */
	bool keep;         /* never evicted, as nobody can be asked for it again */
	bool preheat;      /* fetched below all else, and while the machine has nothing better to do */
};
int flip_node_model_pull(struct flip_node *node, const struct flip_model_pull *p, struct err *err);
/* The model (NULL: all) as a JSON array. -ENOENT. */
int flip_node_models(struct flip_node *node, const char *name, struct base_buf *buf, struct err *err);
/* Its files stay until garbage is collected. -ENOENT. */
int flip_node_model_remove(struct flip_node *node, const char *name, struct err *err);
/* Read-only at `dir` (NULL: below opts.models_dir, made when missing; nothing is done when it is there already), and
 * fetched ahead from now on. */
int flip_node_model_mount(struct flip_node *node, const char *name, const char *dir, char *ret_dir, size_t dir_size,
                          struct err *err);

/* What `flip stat --json` prints: one JSON object. */
int flip_node_stat(struct flip_node *node, struct base_buf *buf);
/* The same as Prometheus text. */
int flip_node_metrics(struct flip_node *node, struct base_buf *buf);

/* What `flip peers --json` prints: one JSON object. */
int flip_node_peers(struct flip_node *node, struct base_buf *buf);

/* Manifest and configuration of an image as JSON, for `flip pull`; of peers while the registry is away. */
int flip_node_image(struct flip_node *node, const char *ref, struct base_buf *buf, struct err *err);

/* The control socket: HTTP on a unix socket (docs/formats/flip-control.md). */
struct flip_control;
int flip_control_start(struct flip_node *node, const char *socket_path, struct flip_control **ret_control,
                       struct err *err);
void flip_control_stop(struct flip_control *c);

#endif
