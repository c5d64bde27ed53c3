/* Inside of the store: what its source files share. The story of the on-disk form is docs/formats/node-store.md.
 *
 * Locks, in the order in which they are taken (any may be left out):
 *   gc_lock          one gc or fsck at a time
 *   sync_lock        one sync at a time
 *   object->lock     files, edges and completion of one object that is arriving
 *   shard->lock      the table of open objects of one first byte, and every change of names in objects/ab, partial/ab
 *   db_lock          the SQLite connection; layers/ and snapshots/ change under it
 * recount_lock comes before the shards' locks. drop_lock, dirty_lock and count_lock are leaves: nothing else is taken
 * while they are held. */
#ifndef FLIP_STORE_INTERNAL_H
#define FLIP_STORE_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "store/store.h"

enum {
	STORE_N_SHARDS = 256,   /* by the first byte of the digest, as the folders are */
	STORE_N_PUT_SLOTS = 64, /* puts of small files at once, each with a temporary name of its own */
	STORE_NAME_SIZE = 72,   /* "ab/" and 62 digits, ".map", the NUL */
	STORE_BOOT_SIZE = 16,
	STORE_TOUCH_PUT_S = 60,    /* a use younger than that is not written down again: for what is put, */
	STORE_TOUCH_OPEN_S = 3600, /* and for what is opened */
};

/* A ceiling for what a table of contents may claim: 32 MiB of bits. */
#define STORE_MAX_OBJECT (UINT64_C(1) << 40)

/* ---- The map of a partial object (map.c) -------------------------------------------------------------------- */

enum { MAP_HEADER_SIZE = 128 };

struct map_head {
	uint64_t size;
	uint64_t n_blocks;
	uint8_t digest[FLIP_DIGEST_SIZE];
	uint8_t boot[STORE_BOOT_SIZE]; /* of the machine's run in which the live bits were written */
};

static inline uint64_t map_n_blocks(uint64_t size)
{
	return size / FLIP_STORE_BLOCK + (size % FLIP_STORE_BLOCK != 0);
}
/* Bytes of one bitmap: whole 64-bit words. */
static inline uint64_t map_bits_size(uint64_t n_blocks)
{
	return (n_blocks / 64 + (n_blocks % 64 != 0)) * 8;
}
static inline uint64_t map_live_offset(void)
{
	return MAP_HEADER_SIZE;
}
static inline uint64_t map_durable_offset(uint64_t n_blocks)
{
	return MAP_HEADER_SIZE + map_bits_size(n_blocks);
}

void flip_map_format(const struct map_head *h, uint8_t out[MAP_HEADER_SIZE]);
/* The header of a map file of file_size bytes; -EBADMSG when it is none or does not fit its own numbers. */
int flip_map_parse(const uint8_t *data, size_t size, uint64_t file_size, struct map_head *ret_head, struct err *err);
/* Bits behind the last block cleared; the number of blocks that are there. */
uint64_t flip_map_tidy(uint64_t *words, uint64_t n_blocks);
/* Reads the bits that may be believed: the live ones of this run of the machine, else the durable ones, which then
 * become the live ones in the file. *ret_words has map_bits_size() bytes, the caller's. -EBADMSG: of no use. */
int flip_map_load(int fd, const uint8_t digest[FLIP_DIGEST_SIZE], uint64_t size, const uint8_t boot[STORE_BOOT_SIZE],
                  bool read_only, uint64_t **ret_words, struct err *err);
/* The first run of clear bits at or behind `block`; false: none. */
bool flip_map_missing(const _Atomic uint64_t *words, uint64_t n_blocks, uint64_t block, uint64_t *ret_first,
                      uint64_t *ret_n);
/* Whether [first, first + n) is set. */
bool flip_map_has(const _Atomic uint64_t *words, uint64_t first, uint64_t n);

/* ---- Objects ------------------------------------------------------------------------------------------------ */

struct edge { /* bytes [begin, end) of one block that lie there without its other bytes */
	uint64_t begin, end;
};

struct flip_object {
	struct flip_store *store;
	uint8_t digest[FLIP_DIGEST_SIZE];  /* it is found by, and its partial files are named by */
	uint8_t content[FLIP_DIGEST_SIZE]; /* of the whole; another one where the parts are not verified */
	uint64_t size, n_blocks;
	struct flip_object *next; /* in its shard; protected by shard->lock */
	bool is_listed;           /* in its shard; protected by shard->lock */
	atomic_uint n_refs;       /* goes to 0 under shard->lock only */
	atomic_bool is_complete;
	atomic_int read_fd; /* -1: not opened yet; set under lock */

	pthread_mutex_t lock;
	/* protected by lock */
	int write_fd, map_fd; /* of a partial one whose files exist, else -1 */
	unsigned n_writers;
	uint64_t n_missing;
	struct edge *edges; /* sorted */
	size_t n_edges, cap_edges;
	bool is_refused;          /* all is there and it is not what the digest says */
	atomic_bool is_dirty;     /* in store->dirty since the last sync */
	atomic_bool is_handed_on; /* and given away meanwhile: see flip_object_handed_on() */

	_Atomic uint64_t *bits; /* NULL: nothing is there (or all) */

	pthread_mutex_t sum_lock; /* sum.c; a leaf */
	struct base_sha256 *sum;  /* protected by sum_lock: of the first n_summed bytes; NULL: of none */
	uint64_t n_summed;

	/* protected by store->drop_lock */
	struct flip_object *drop_next;
	bool is_dropping;
	uint64_t drop_begin, drop_end;
};

struct shard {
	pthread_mutex_t lock;
	struct flip_object **buckets;
	size_t n_buckets, n; /* n_buckets: a power of two */
};

struct flip_store {
	char *dir;
	struct flip_store_opts opts;
	int dir_fd, objects_fd, partial_fd, tmp_fd, layers_fd, snapshots_fd, lock_fd;
	uint8_t boot[STORE_BOOT_SIZE];
	char instance[17]; /* in names of temporary files: which opening of the store made them */
	atomic_uint_fast64_t n_tmp;
	atomic_uint_fast64_t epoch; /* what is completed now carries this number; see durable.c */

	struct shard shards[STORE_N_SHARDS];
	/* Complete objects, counted as they come and go; changed under count_lock. About right only after a crash,
	 * until somebody counts (stat, gc): folder by folder, and what comes and goes meanwhile in a folder that is
	 * counted already goes into the new count, too. */
	atomic_int_fast64_t n_objects, object_bytes, object_disk;
	atomic_bool is_counted;
	pthread_mutex_t recount_lock, count_lock;
	unsigned n_recounted; /* folders; protected by count_lock, as the next one */
	struct object_count {
		int64_t n, bytes, disk;
	} recount;
	atomic_uint_fast64_t put_slots; /* a set bit: taken */
	pthread_mutex_t slot_lock;
	pthread_cond_t slot_freed;
	unsigned n_slot_waiters; /* protected by slot_lock */

	pthread_mutex_t sync_lock, gc_lock;

	pthread_mutex_t dirty_lock;
	uint8_t (*dirty)[FLIP_DIGEST_SIZE]; /* partial objects written since the last sync */
	size_t n_dirty, cap_dirty;

	pthread_mutex_t db_lock;
	sqlite3 *db;
	char *db_path;
	struct layer_begun { /* protected by db_lock */
		int64_t since_s;
		unsigned n;
	} begun;

	pthread_mutex_t drop_lock; /* drop.c */
	pthread_cond_t drop_wake;
	pthread_t drop_thread;
	bool drop_started, drop_end;
	struct flip_object *drop_first;
	uint64_t drop_bytes;

	atomic_uint_fast64_t unchecked_bytes; /* written since free space was looked at */
	atomic_bool is_low;
	atomic_int_fast64_t last_gc_ms; /* of those that the store began itself */
};

/* ---- Small things (files.c) ----------------------------------------------------------------------------------- */

/* "ab/cdef..." */
void flip_object_name(const uint8_t digest[FLIP_DIGEST_SIZE], char ret_name[STORE_NAME_SIZE]);
/* The digest of folder name "ab" and file name of 62 digits, lower case; false: it is no such name. */
bool flip_object_parse_name(const char *folder, const char *file, uint8_t ret_digest[FLIP_DIGEST_SIZE]);
int flip_store_read_at(int fd, void *data, size_t size, uint64_t offset);        /* all or -EIO at the end */
int flip_store_write_at(int fd, const void *data, size_t size, uint64_t offset); /* all */
/* Removes a file or a whole folder; does not enter other mounts (-EBUSY then). Missing is a success. */
int flip_store_remove_tree(int dir_fd, const char *name);
/* Moves a folder or file of the store into tmp/ under a new name, so that it is gone at once. */
int flip_store_discard(struct flip_store *s, int dir_fd, const char *name);
/* Each entry but "." and ".."; fn returns non-zero to stop. -ENOENT when there is no such folder. */
int flip_store_each(int dir_fd, const char *name, int (*fn)(void *arg, const char *name), void *arg);
/* A file written whole (renamed over), not synced; a name below a folder of the store. */
int flip_store_write_small(struct flip_store *s, int dir_fd, const char *name, const void *data, size_t size);
int flip_store_hash_fd(int fd, uint8_t ret_digest[FLIP_DIGEST_SIZE], uint64_t *ret_size);
void flip_store_tmp_name(struct flip_store *s, char ret_name[64]);
int64_t flip_store_now_s(void);

/* ---- Objects, inside (object.c, write.c, put.c) --------------------------------------------------------------- */

static inline bool is_unverified(const struct flip_object *o)
{
	return memcmp(o->digest, o->content, FLIP_DIGEST_SIZE) != 0;
}
static inline struct shard *shard_of(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE])
{
	return &s->shards[digest[0]];
}
/* Both under shard->lock. */
struct flip_object *flip_shard_find(struct shard *sh, const uint8_t digest[FLIP_DIGEST_SIZE]);
void flip_shard_unlist(struct shard *sh, struct flip_object *o);
/* A reference when it is open: NULL otherwise. */
struct flip_object *flip_object_find(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE]);
/* Under shard->lock: the complete file's size and whether it is there; its time of use is renewed when older than
 * touch_s (< 0: left). 1, 0, negative errno. */
int flip_store_look(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], int64_t touch_s, uint64_t *ret_size);
/* Under shard->lock: the files of a partial object that nobody needs any more, when there are some. */
void flip_partial_forget(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE]);
/* Marks `fd` as a complete object of this epoch; under shard->lock, right before it gets its name. */
int flip_store_stamp(struct flip_store *s, int fd, bool set_mode);
/* Partial files of an object that is arriving, made when they are missing; under o->lock. */
int flip_object_make_files(struct flip_object *o, struct err *err);
/* The partial files become the object; under o->lock (or before others see it), shard->lock taken inside unless
 * has_shard. */
int flip_object_finish(struct flip_object *o, bool has_shard, struct err *err);
/* The whole content, written and named; under no lock. -ENOSPC as it comes. */
int flip_store_put_new(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], const void *data, size_t size,
                       bool *ret_was_there, struct err *err);
void flip_slot_give(struct flip_store *s, unsigned slot); /* its bit in put_slots is cleared */
/* One object that came or went: 1 and its size, or both negative; under its shard's lock. */
void flip_store_count(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE], int64_t n, int64_t bytes);
/* Counts all of them anew, when the count is not known to be right; under no lock but gc_lock. */
int flip_store_recount(struct flip_store *s, struct err *err);
int flip_store_full(struct flip_store *s, int r, const char *doing, struct err *err); /* words for -ENOSPC and others */

/* Before and after writing: looks at the free space now and then. for_put: -ENOSPC below the limit. */
int flip_store_make_room(struct flip_store *s, uint64_t size, bool for_put, struct err *err);
/* After an -ENOSPC: gc once; 0: it is worth trying again. */
int flip_store_emergency_gc(struct flip_store *s);
/* Of the file system; UINT64_MAX when it does not say. */
uint64_t flip_store_free_bytes(struct flip_store *s);

/* store.c: a megabyte kept for the database; given up when the disk is full (true: there was one), taken again by gc.
 */
void flip_store_reserve(struct flip_store *s);
bool flip_store_use_reserve(struct flip_store *s);

/* ---- sum.c ---------------------------------------------------------------------------------------------------- */

/* After the bytes were written and their bits set, by who keeps `fd` open: hashes on when that costs little. */
void flip_sum_advance(struct flip_object *o, int fd, const void *data, size_t size, uint64_t offset);
/* Before the bits are set, under o->lock: somebody else had written there, maybe other bytes (of another table): what
 * is hashed is what lies there in the end. */
void flip_sum_overwritten(struct flip_object *o, uint64_t offset, size_t size);
/* When all of it is there: the digest of the whole. A negative errno when it cannot be read; once. */
int flip_sum_finish(struct flip_object *o, int fd, uint8_t ret_digest[FLIP_DIGEST_SIZE]);
void flip_sum_free(struct flip_object *o);

/* ---- drop.c --------------------------------------------------------------------------------------------------- */

void flip_drop_add(struct flip_object *o, uint64_t begin, uint64_t end);
void flip_drop_stop(struct flip_store *s);
/* After a sync: the pages of a partial object that somebody was given, or that nobody has open. */
void flip_drop_synced(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE]);

/* ---- durable.c ------------------------------------------------------------------------------------------------ */

int flip_store_read_boot(uint8_t ret_boot[STORE_BOOT_SIZE], struct err *err);
void flip_store_dirty(struct flip_object *o);                              /* after its bits were written to the file */
int flip_store_sync_as(struct flip_store *s, bool clean, struct err *err); /* clean: nothing follows it */
/* Why the files of a partial object are of no use; NULL: they are as they should be. */
const char *flip_partial_judge(struct flip_store *s, const uint8_t digest[FLIP_DIGEST_SIZE]);
/* What has to be done when the store was not closed, or the machine went down: see flip_store_open(). */
int flip_store_recover(struct flip_store *s, struct err *err);

/* ---- db.c ----------------------------------------------------------------------------------------------------- */

int flip_db_open(struct flip_store *s, struct err *err);
void flip_db_close(struct flip_store *s);
int flip_db_error(struct flip_store *s, const char *doing, struct err *err);
int flip_db_prepare(struct flip_store *s, const char *sql, sqlite3_stmt **ret_stmt, struct err *err);
void flip_db_finalizep(sqlite3_stmt **stmt);
/* 1: a row, 0: done. */
int flip_db_step(struct flip_store *s, sqlite3_stmt *stmt, struct err *err);
int flip_db_begin(struct flip_store *s, bool durable, struct err *err);
int flip_db_commit(struct flip_store *s, struct err *err);
void flip_db_rollback(struct flip_store *s);
/* Commits when r is 0, else takes back and returns r. */
int flip_db_end(struct flip_store *s, int r, struct err *err);
int flip_db_meta_get(struct flip_store *s, const char *key, int64_t *ret_number, void *ret_blob, size_t blob_size,
                     struct err *err); /* -ENOENT; ret_number or ret_blob NULL */
int flip_db_meta_set_int(struct flip_store *s, const char *key, int64_t number, struct err *err);
int flip_db_meta_set_blob(struct flip_store *s, const char *key, const void *data, size_t size, struct err *err);
void flip_db_bind_text(sqlite3_stmt *stmt, int i, const char *text); /* NULL stays NULL */
char *flip_db_text(sqlite3_stmt *stmt, int column, int *oom);        /* a copy; NULL for NULL */

/* ---- layers.c, snapshots.c: what the others need of them ------------------------------------------------------ */

int flip_layers_rebuild(struct flip_store *s, struct err *err);    /* rows out of the folders, for a new database */
int flip_snapshots_rebuild(struct flip_store *s, struct err *err); /* the same */
/* Forgets layers that were committed after the durable epoch, rows without a folder, folders without a row. */
int flip_layers_tidy(struct flip_store *s, uint64_t durable_epoch, struct err *err);
int flip_snapshots_tidy(struct flip_store *s, struct err *err);  /* folders without a row */
bool flip_snapshot_parse_id(const char *name, uint64_t *ret_id); /* of a folder in snapshots/ */
bool flip_snapshot_has_row(struct flip_store *s, uint64_t id);
int flip_layer_remove(struct flip_store *s, const char *digest, struct err *err);
/* "sha256:" and 64 lower case digits: the digits; NULL otherwise. */
const char *flip_layer_hex(const char *digest);

#endif
