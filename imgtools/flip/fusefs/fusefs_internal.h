/* Inside of fusefs/: the numbers of inodes, the table of open files, the objects that are open.
 *
 * Locks: a shard's lock guards the objects in it with their uses; slots->lock guards the list of free slots. A shard's
 * lock may be held when slots->lock is taken, not the other way round. layers_lock is held for reading while a
 * handler uses a layer's mapping. */
#ifndef FLIP_FUSEFS_INTERNAL_H
#define FLIP_FUSEFS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fusefs/fuse_wire.h"
#include "fusefs/fusefs.h"

/* ---- Inode numbers ---------------------------------------------------------------------------------------- */

/* They are made of what never changes, so that none is kept in memory and the next process knows them all:
 *
 *   1                               the root
 *   2, 3                            /objects, /layers
 *   256 + b                         /objects/bb
 *   1 << 62 | object                an object, 62 bits
 *   2 << 62 | layer << 38 | nid     an inode of a layer: 24 bits, 38 bits */
enum { NODE_ROOT = 1, NODE_OBJECTS = 2, NODE_LAYERS = 3, NODE_PREFIX = 256 };
enum node_class { NODE_FIXED, NODE_OBJECT, NODE_TREE };

#define NODE_ID_MASK ((1ull << 62) - 1)
#define NODE_NID_BITS 38
#define NODE_NID_MASK ((1ull << NODE_NID_BITS) - 1)

static inline enum node_class node_class(uint64_t node)
{
	return (enum node_class)(node >> 62);
}

static inline uint64_t node_of_object(uint64_t id)
{
	return (uint64_t)NODE_OBJECT << 62 | (id & NODE_ID_MASK);
}

static inline uint64_t node_of_layer(uint32_t layer, uint64_t nid)
{
	return (uint64_t)NODE_TREE << 62 | (uint64_t)(layer & 0xffffff) << NODE_NID_BITS | (nid & NODE_NID_MASK);
}

static inline uint32_t layer_of_node(uint64_t node)
{
	return (uint32_t)(node >> NODE_NID_BITS) & 0xffffff;
}

/* ---- Open files: a table that the next process reads ------------------------------------------------------ */

struct slot {
	uint64_t unique; /* of the request that opened it */
	uint64_t node, object;
	uint32_t backing_id;         /* 0: read through this process, cached by the kernel */
	_Atomic uint32_t generation; /* odd while it is in use; written last */
};

struct state_header;

struct slots {
	struct state_header *header; /* mapped */
	struct slot *slot;           /* mapped, SLOTS_MAX of them */
	pthread_mutex_t lock;
	uint32_t *free; /* protected by lock */
	uint32_t n_free, n_top;
	char *path; /* NULL: nobody else will read it */
	int fd;
};

enum { SLOTS_MAX = 1u << 20 };

enum { STATE_PASSTHROUGH = 1u << 0, STATE_URING = 1u << 1 };

/* path NULL: in memory only. fresh: whatever was there is forgotten. */
int slots_open(const char *path, bool fresh, struct slots **ret_slots, struct err *err);
void slots_close(struct slots *s, bool remove);
/* What the first process settled with the kernel. */
void slots_set_session(struct slots *s, uint32_t connection, const struct wire_init *init, uint32_t flags);
/* -ENODATA when nothing was settled. */
int slots_get_session(const struct slots *s, uint32_t *ret_connection, struct wire_init *ret_init, uint32_t *ret_flags);
/* *ret_fh names the slot for good: -ENFILE. */
int slots_take(struct slots *s, const struct slot *value, uint64_t *ret_fh);
/* Copies it out; false when it is free already (a release that was asked for twice). */
bool slots_peek(const struct slots *s, uint64_t fh, struct slot *ret_value);
void slots_drop(struct slots *s, uint64_t fh); /* what slots_peek() found */
/* The open file that the request made; an answered request is not found again. */
bool slots_find_unique(const struct slots *s, uint64_t unique, uint64_t *ret_fh);
/* Those in use, *i counts from 0. */
bool slots_next(const struct slots *s, uint32_t *i, struct slot *ret_value, uint64_t *ret_fh);

static inline uint32_t slot_of_fh(uint64_t fh)
{
	return (uint32_t)fh & (SLOTS_MAX - 1);
}

/* ---- Objects that are open -------------------------------------------------------------------------------- */

/* How the kernel has one inode open: all by passthrough or all cached, never both. */
struct use {
	struct use *next;
	uint64_t node;
	uint32_t n_cached, n_passthrough;
};

struct object {
	struct object *next; /* in its bucket */
	uint64_t id, size;
	struct use *uses;
	uint32_t n_open;
	uint32_t n_passthrough; /* over all inodes */
	uint32_t backing_id;    /* 0: not registered */
	bool is_adopted;        /* read by a file whose opening is not known */
	/* The owner's handles: while it arrives, and once it was found complete. Set once under the lock, read without:
	 * the pointer before the flag. */
	void *arriving, *done;
	atomic_bool has_arriving;
	atomic_int fd; /* of done; -1 */
};

enum { N_SHARDS = 64, N_BUCKETS = 256 };

struct shard {
	pthread_mutex_t lock;
	struct object *bucket[N_BUCKETS];
};

struct opening {
	uint64_t fh;
	uint32_t backing_id; /* 0: cached */
};

int objects_init(struct flip_fs *fs);
void objects_done(struct flip_fs *fs);
/* Counts the open files that the process before left. */
int objects_restore(struct flip_fs *fs);
int object_open(struct flip_fs *fs, uint64_t node, uint64_t object, uint64_t unique, struct opening *ret);
void object_release(struct flip_fs *fs, uint64_t fh);
/* Ready to be read: with its descriptor or with a handle of what arrives. Valid until the file is released. */
int object_for_read(struct flip_fs *fs, uint64_t fh, uint64_t node, struct object **ret_object);

/* ---- Reads ------------------------------------------------------------------------------------------------ */

struct flip_fs_read {
	struct flip_fs *fs;
	fuse_req_t req;
	atomic_bool is_answered;
	struct flip_fs_read *next; /* in the pool */
};

void fs_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *fi);
void reads_wait(struct flip_fs *fs); /* until the owner has answered all it was asked */
void reads_done(struct flip_fs *fs);

/* ---- Trees of layers -------------------------------------------------------------------------------------- */

/* One entry of a directory: its attributes are filled in for readdirplus only; else inode number and type are. Non-zero
 * ends the listing before it. */
typedef int (*entry_fn)(void *arg, const char *name, const struct stat *st, uint64_t next_pos);

/* Of inodes of layers. All: -ESTALE when the layer is gone, -EBADMSG for what is damaged. */
int layer_lookup(struct flip_fs *fs, const char *name, struct stat *ret_stat);
int layers_list(struct flip_fs *fs, uint64_t pos, entry_fn fn, void *arg);
int tree_lookup(struct flip_fs *fs, uint64_t parent, const char *name, struct stat *ret_stat);
int tree_stat(struct flip_fs *fs, uint64_t node, struct stat *ret_stat);
int tree_list(struct flip_fs *fs, uint64_t node, uint64_t pos, bool with_attr, entry_fn fn, void *arg);
int tree_readlink(struct flip_fs *fs, uint64_t node, char *target, size_t size); /* 0-terminated */
ssize_t tree_getxattr(struct flip_fs *fs, uint64_t node, const char *name, void *value, size_t size);
ssize_t tree_listxattr(struct flip_fs *fs, uint64_t node, char *names, size_t size);
int tree_object(struct flip_fs *fs, uint64_t node, uint64_t *ret_object); /* -ENODATA: an empty file */

/* ---- The file system -------------------------------------------------------------------------------------- */

struct counters {
	atomic_uint_fast64_t lookups, opens, passthrough, reads, bytes, errors;
};

struct seen_layer { /* whose directory the kernel may hold */
	struct seen_layer *next;
	uint32_t id;
	char name[];
};

struct flip_fs {
	struct flip_fs_ops ops;
	void *arg;
	char *mountpoint;
	uint32_t max_readahead;
	uint64_t passthrough_min;
	bool want_uring;

	int fd; /* of the session; libfuse has a duplicate */
	uint32_t connection;
	struct fuse_session *session;
	struct slots *slots;
	bool passthrough, io_uring, resend;
	bool has_init, is_mounted;
	atomic_bool stopping,
	        keep_alive; /* keep_alive: the mount lives on, so errors while stopping are not passed on */

	pthread_t *threads;
	unsigned n_threads;

	struct shard *shards;
	_Atomic(struct object *) *slot_object; /* by slot; set before the file is open, cleared when it is released */

	pthread_mutex_t reads_lock;
	pthread_cond_t reads_idle;
	struct flip_fs_read *read_pool; /* protected by reads_lock, as the counts are */
	size_t n_pool, n_reads_out;

	pthread_rwlock_t layers_lock;
	pthread_mutex_t seen_lock;
	struct seen_layer *seen; /* protected by seen_lock */

	struct counters n;
};

/* Requests of one file are in order: a release comes after the last read was answered. That order is made by the
 * kernel; for the language, and for ThreadSanitizer, it is made by the counters: counted before an answer, seen after a
 * request was received. */
static inline void fs_count(atomic_uint_fast64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_release);
}

static inline void fs_see_counted(struct counters *n)
{
	(void)atomic_load_explicit(&n->opens, memory_order_acquire);
	(void)atomic_load_explicit(&n->bytes, memory_order_acquire);
	(void)atomic_load_explicit(&n->errors, memory_order_acquire);
}

/* Of the request that this thread is answering. */
extern _Thread_local uint64_t request_unique;

enum { FS_MAX_READ = 1u << 20, FS_BUFFER = FS_MAX_READ + 4096 };

/* For as long as anything can be: contents and layers never change. */
#define FS_FOREVER 1e9

/* The content behind an inode. -ESTALE: its layer is gone; -ENODATA: an empty file. */
int node_object(struct flip_fs *fs, uint64_t node, uint64_t *ret_object);

void fs_fill_dir(uint64_t node, struct stat *st);
bool fs_is_fixed_dir(uint64_t node);
void fs_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void fs_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t pos, struct fuse_file_info *fi);
void fs_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t pos, struct fuse_file_info *fi);
extern const struct fuse_lowlevel_ops fs_operations;
void fs_init_connection(struct flip_fs *fs, struct fuse_conn_info *conn);

#endif
