/* The store of a node: every distinct file content once, named by its SHA-256, on the host's own file system.
 *
 *   objects/ab/cdef...   complete contents, mode 0444: read by overlayfs as they are (data-only lower layer); time of
 *                        access: last use; time of change: the epoch in which it came
 *   partial/ab/cdef...   sparse files of the final size that are still arriving, and .map beside them: which 4 KiB
 *                        blocks are there
 *   layers/HEX/          what is derived of one layer: index (lazy/index.h), image.erofs (erofs/erofs.h)
 *   snapshots/N/         upper and work folders of the snapshots that are written to
 *   store.db             SQLite, WAL: layers, snapshots, notes, what is durable
 *   tmp/, lock, reserve  scratch, who has it, room for the database on a full disk
 *
 * Byte by byte and what a crash may leave: docs/formats/node-store.md.
 *
 * Bytes are verified by the caller before they are given here; a block's bit is set after its bytes are written.
 * Processes may be killed at any point. After a power failure nothing that was not synced before is believed: see
 * flip_store_open(). One process holds the store at a time (a lock file); its functions may be called from any thread.
 * The store must not lie on overlayfs: FUSE passthrough and overlay lower layers over it need a real file system. */
#ifndef FLIP_STORE_H
#define FLIP_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum { FLIP_DIGEST_SIZE = 32, FLIP_STORE_BLOCK = 4096 };

struct flip_store;

/* Calls each() for every object that the index in a layer's folder names: given by the caller, so that the store knows
 * no formats. each() returns non-zero to stop, which is returned. */
typedef int (*flip_index_walk)(void *arg, const char *layer_dir,
                               int (*each)(void *each_arg, const uint8_t digest[FLIP_DIGEST_SIZE]), void *each_arg,
                               struct err *err);

struct flip_store_opts {
	uint64_t budget_bytes;   /* objects and partials together; 0: none */
	uint64_t min_free_bytes; /* of the file system; below it gc runs and background fetching stops; 0: 1 GiB */
	bool read_only;          /* to look beside the process that has it: no lock, nothing is changed */
	/* For the gc that the store begins itself when space runs out; NULL: only what is arriving and not open may go
	 * then. Called on the thread that writes. */
	flip_index_walk index_walk;
	/* That gc has removed layers; on the thread that writes, which holds nothing of the store. NULL: nobody cares.
	 */
	void (*layers_gone)(void *arg);
	void *index_arg; /* of both */
};

/* Makes the folders when they are missing. When the machine was restarted since the store was last synced, what was not
 * covered by a sync is checked again or forgotten (partial blocks), before this returns. -EBUSY: another process has
 * it. -ENOTSUP: on a file system that cannot serve (overlayfs, tmpfs is fine for tests). */
int flip_store_open(const char *dir, const struct flip_store_opts *o, struct flip_store **ret_store, struct err *err);
void flip_store_close(struct flip_store *s);

/* ---- Objects ------------------------------------------------------------------------------------------------- */

struct flip_object; /* one content, complete or arriving; shared by all who opened it */

/* The object of this digest and size, an arriving one when it is not there (its files are made with its first bytes, or
 * when its descriptor is asked for). Counted: every open needs its unref. -EBADMSG: it is there or open with another
 * size. -EFBIG: more than 2^40 bytes. */
int flip_object_open(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size,
                     struct flip_object **ret_object, struct err *err);
/* The same for a content whose parts nobody can verify, only the whole. What is written of it lies apart, under another
 * name, where nobody finds it who asks for the digest; it becomes the object when all of it is there and has the
 * digest. Has it another one, the last write fails with -EBADMSG and nothing of it is kept. Whoever reads it waits
 * until it is complete: flip_object_has() says only what has arrived. */
int flip_object_open_unverified(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size,
                                struct flip_object **ret_object, struct err *err);
/* The name under which it lies: for flip_index_walk, so that gc leaves it alone while it arrives. */
int flip_store_unverified_name(const uint8_t digest[FLIP_DIGEST_SIZE], uint8_t ret_name[FLIP_DIGEST_SIZE]);
struct flip_object *flip_object_ref(struct flip_object *o);
void flip_object_unref(struct flip_object *o);

/* Whether a complete one is there, without opening it: 1, 0 (and the size when asked for). */
bool flip_store_has(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t *ret_size);

bool flip_object_is_complete(const struct flip_object *o); /* never goes back to false while opened */
uint64_t flip_object_size(const struct flip_object *o);
/* A descriptor for reading, valid as long as the object is held: what is complete stays readable by it even when gc
 * unlinks the name. Opened at the first call; a negative errno (-EMFILE, -ENOSPC). */
int flip_object_fd(const struct flip_object *o);
/* Whether every byte of [offset, offset + size) is there; what lies behind the end counts as there. */
bool flip_object_has(const struct flip_object *o, uint64_t offset, uint64_t size);
/* The first range of missing bytes at or behind offset: 1 and the range, or 0. */
int flip_object_next_missing(const struct flip_object *o, uint64_t offset, uint64_t *ret_offset, uint64_t *ret_size);

/* Verified bytes. Blocks that the range covers wholly (or up to the end of the object) are there afterwards; when the
 * last one is, and the whole has the digest it is named by, the object becomes complete: it gets its name in objects/
 * (rename, never half). Writing what is there again is harmless. `keep_cached` false: the pages are dropped from the
 * page cache soon, for what the kernel caches above us anyway. Parts of blocks are joined while the object is open, and
 * forgotten with it. -ENOSPC: nothing is marked. Any thread; several at once for different ranges. */
int flip_object_write(struct flip_object *o, const void *data, size_t size, uint64_t offset, bool keep_cached,
                      struct err *err);
/* These bytes were given to somebody who caches them above us: the pages of what is still arriving are not kept twice.
 * They go at once when they are on the disk, else with the next sync. What is complete stays: the next one reads it
 * here. */
void flip_object_handed_on(struct flip_object *o, uint64_t offset, size_t size);
/* A whole content in one go, the way of small files and of unpacking: same rules. *ret_was_there: nothing written.
 * -ENOSPC also while less than min_free_bytes are free after gc: unpacking must not fill the disk. */
int flip_store_put(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], const void *data, size_t size,
                   bool *ret_was_there, struct err *err);
/* The same out of a file of ours on the same file system (renamed, not copied; gone from its place on success). */
int flip_store_put_file(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], const char *path,
                        bool *ret_was_there, struct err *err);
/* What a scratch file for flip_store_put_file() is called: an unused name in the store's tmp folder. */
int flip_store_tmp(struct flip_store *s, char *ret_path, size_t path_size, struct err *err);

/* Makes all that was written so far durable (one syncfs); called by the daemon now and then and at the end. */
int flip_store_sync(struct flip_store *s, struct err *err);

/* ---- Layers, images, snapshots: what is known across restarts ------------------------------------------------- */

enum flip_layer_kind {
	FLIP_LAYER_LAZY,     /* index + EROFS image; objects fetched when needed */
	FLIP_LAYER_UNPACKED, /* index + EROFS image; all objects were there once, the blob has no table of contents */
};

struct flip_layer_row {
	char digest[72];  /* of the blob, "sha256:..." */
	char diff_id[72]; /* "" when not known */
	uint64_t blob_size;
	enum flip_layer_kind kind;
	char *ref; /* an image reference that it can be fetched by, "host/name:tag"; last one wins */
	char *media_type;
	char *annotations; /* JSON object of the descriptor's annotations, or NULL */
	int64_t last_used; /* seconds since 1970 */
};
void flip_layer_row_done(struct flip_layer_row *r);

/* The folder of a layer, "DIR/layers/HEX"; made by flip_store_layer_begin() under another name and moved by _commit.
 * Begin before putting the layer's objects: gc leaves alone what came or was asked for since the oldest layer that is
 * begun. When the machine goes down before the next sync, the layer is forgotten (its snapshots are not): it has to be
 * pulled again. After a failed _commit, _abort. */
int flip_store_layer_begin(struct flip_store *s, const char *digest, char *ret_dir, size_t dir_size, struct err *err);
int flip_store_layer_commit(struct flip_store *s, const char *begun_dir, const struct flip_layer_row *row,
                            struct err *err);
void flip_store_layer_abort(struct flip_store *s, const char *begun_dir);
int flip_store_layer_get(struct flip_store *s, const char *digest, struct flip_layer_row *ret_row, char *ret_dir,
                         size_t dir_size, struct err *err); /* -ENOENT */
int flip_store_layer_touch(struct flip_store *s, const char *digest, const char *ref, struct err *err);
/* fn returns non-zero to stop, which is returned. */
int flip_store_layers(struct flip_store *s, int (*fn)(const struct flip_layer_row *row, void *arg), void *arg,
                      struct err *err);

enum flip_snapshot_kind { FLIP_SNAPSHOT_VIEW = 1, FLIP_SNAPSHOT_ACTIVE, FLIP_SNAPSHOT_COMMITTED };

struct flip_label {
	char *name, *value;
};

/* A snapshot of containerd: names are unique; a committed one may be the parent of others. */
struct flip_snapshot {
	uint64_t id; /* never used again; its folder is snapshots/ID */
	enum flip_snapshot_kind kind;
	char *name, *parent; /* parent NULL or "": none */
	char *layer;         /* digest of the lazy or unpacked layer that it is; NULL: its folder's "fs" */
	struct flip_label *labels;
	size_t n_labels;
	int64_t created_ns, updated_ns; /* since 1970 */
	uint64_t size, inodes;          /* of a committed one, as measured then */
};
void flip_snapshot_done(struct flip_snapshot *s);

/* Changes of snapshots are on the disk when the function returns. */
/* New row and an empty folder snapshots/ID (0700); -EEXIST when the name is taken, -ENOENT when the parent is missing
 * or not committed. The id is filled in. */
int flip_store_snapshot_add(struct flip_store *s, struct flip_snapshot *snapshot, struct err *err);
int flip_store_snapshot_get(struct flip_store *s, const char *name, struct flip_snapshot *ret_snapshot,
                            struct err *err);
/* The active `key` becomes the committed `name`, in one transaction. */
int flip_store_snapshot_commit(struct flip_store *s, const char *key, const char *name, const struct flip_label *labels,
                               size_t n_labels, uint64_t size, uint64_t inodes, struct err *err);
/* Replaces the labels and the time of change. */
int flip_store_snapshot_update(struct flip_store *s, const char *name, const struct flip_label *labels, size_t n_labels,
                               struct err *err);
/* The row, and the folder with all that is in it (not what is mounted there). -EBUSY while it has children. */
int flip_store_snapshot_remove(struct flip_store *s, const char *name, struct err *err);
int flip_store_snapshots(struct flip_store *s, int (*fn)(const struct flip_snapshot *snapshot, void *arg), void *arg,
                         struct err *err);

/* Small named facts (the prefetch list of an image that was recorded here, ...): set, get (caller frees), -ENOENT. */
int flip_store_note_set(struct flip_store *s, const char *kind, const char *name, const void *data, size_t size,
                        struct err *err);
int flip_store_note_get(struct flip_store *s, const char *kind, const char *name, void **ret_data, size_t *ret_size,
                        struct err *err);

/* ---- Upkeep --------------------------------------------------------------------------------------------------- */

struct flip_store_stat {
	uint64_t n_objects, object_bytes;   /* complete */
	uint64_t n_partials, partial_bytes; /* what is there of them */
	uint64_t n_layers, n_snapshots;
	uint64_t disk_bytes; /* allocated: objects, partials, layers, database; not what containers wrote (snapshots) */
	uint64_t free_bytes; /* of the file system */
};
int flip_store_stat(struct flip_store *s, struct flip_store_stat *ret_stat, struct err *err);

struct flip_gc_result {
	uint64_t n_layers, n_objects, n_partials, n_bytes; /* removed */
};
/* Removes layers that no snapshot uses and that were not used for min_age_s, then objects that no layer's index names
 * and that were not put or asked for in that time; then, while over the budget or short of space, what was used least
 * recently of partial objects and of complete ones of layers that can be fetched again (not of unpacked ones). Objects
 * that are open stay. index_walk NULL: objects are not judged by layers, so only partial ones may go. When an index
 * cannot be read, the same, and its error is returned at the end. */
int flip_store_gc(struct flip_store *s, int64_t min_age_s, bool dry_run, flip_index_walk index_walk, void *arg,
                  struct flip_gc_result *ret_result, struct err *err);

struct flip_fsck_result {
	uint64_t n_checked, n_bad, n_leftover; /* objects read and hashed; wrong ones; files that belong to nothing */
};
/* Reads every complete object and compares its digest, checks sizes, folders and rows against each other. Bad ones are
 * moved away (or only reported, with dry_run); report gets one line for each finding. */
int flip_store_fsck(struct flip_store *s, bool dry_run, void (*report)(void *arg, const char *line), void *arg,
                    struct flip_fsck_result *ret_result, struct err *err);

#endif
