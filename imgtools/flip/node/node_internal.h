/* What the files of the node share. Locks are taken in this order: layers_lock, loads_lock, queue.lock. */
#ifndef FLIP_NODE_INTERNAL_H
#define FLIP_NODE_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/log.h"
#include "erofs/erofs.h"
#include "lazy/index.h"
#include "lazy/prefetch.h"
#include "model/flip_model.h"
#include "node/image.h"
#include "node/node.h"
#include "node/tail.h"
#include "node/work.h"
#include "peer/limit.h"
#include "peer/peer.h"

enum { NODE_MAX_LAYERS = 1u << 20, NODE_PATH = 512 };

/* What a line of the log is about, for whoever searches the journal; NULL where it is about none. */
#define NODE_FIELDS(image, layer) \
	((const struct base_log_field[]){ { "FLIP_IMAGE", (image) }, { "FLIP_LAYER", (layer) }, { 0 } })

struct node_trouble {
	int r; /* 0: nothing yet */
	unsigned n;
	char text[ERR_MSG_SIZE];
};

/* What we come to peers with: claims.c. Its members never change; they live as long as their layer. */
struct node_claim {
	char *image; /* "REF sha256:MANIFEST", by which they find the layer and ask a registry; "": they need none */
	char *ref;   /* REF; NULL: none */
	char *seeds; /* members that are its origin: flip_peer_blob.seeds; "": it has another one */
	struct node_claim *_Atomic next;
};
enum {                      /* what members of the cluster may have without a registry's word */
       NODE_OPEN_BY_ID = 1, /* whoever knows the layer's digest: a list of addresses */
       NODE_OPEN_BY_NAME,   /* and whoever asks for the model's name: a folder that somebody put into the cluster */
};

/* A layer that is known in this process. Lives as long as somebody holds a reference; the table holds one. */
struct node_layer {
	struct flip_node *node;
	uint32_t id; /* small, the same for ever on this node: the folder m/ID, the inode numbers of trees */
	char digest[72];
	char dir[NODE_PATH];      /* the store's folder of it */
	struct flip_index *index; /* immutable */
	struct flip_erofs *meta;  /* immutable */
	/* NULL for layers without table of contents. A model's is replaced when it is pulled from somewhere else; those
	 * of before are closed with the layer. */
	struct flip_blob *_Atomic blob;
	struct flip_blob **old_blobs; /* protected by layers_lock, as n_old_blobs and ref */
	size_t n_old_blobs;
	char *ref;
	struct flip_model *model;          /* whose files these are, by name; NULL: an image's layer. Immutable */
	struct node_trouble *trouble;      /* of a model: what went wrong last; protected by complaints_lock */
	struct node_claim *_Atomic claims; /* the one that peers are asked with, and those of before; NULL: none are */
	_Atomic unsigned open;             /* 0, or NODE_OPEN_... */
	_Atomic(uint32_t *) by_blob;       /* chunks by their places in the blob, once a peer has asked: peers.c */
	_Atomic unsigned n_refs;
	_Atomic bool is_mounted;
	_Atomic bool is_prefetched;  /* its own list was queued */
	_Atomic bool is_list_played; /* the list of the image that it is the uppermost layer of */
	_Atomic bool is_wanted;      /* a container stands on it: the rest may be fetched too */
	_Atomic bool is_preheated;   /* nobody yet: that rest is fetched below all else */
	_Atomic bool is_rest_queued;
	_Atomic bool has_failed; /* a chunk of the rest did not come: to be tried again */
	_Atomic uint64_t n_foreground, n_prefetched, n_background; /* bytes of chunks that arrived for it */
};

/* Object table: digest -> where its chunks are. Open addressing over 60-bit prefixes of digests. */
struct node_object_slot {
	uint64_t id;           /* 0: free */
	uint32_t layer : 31;   /* index into layers[] */
	bool is_contested : 1; /* another layer says otherwise of its chunks: contested.c */
	uint32_t object;       /* index into the layer's index */
};

struct node_load; /* reads.c */

/* Chunks to be fetched ahead, in order. */
struct node_queue_item {
	struct node_layer *layer; /* a reference */
	uint32_t *chunks;
	size_t n, next;
	enum flip_priority priority;
	struct node_queue_item *after;
};

struct node_queue {
	pthread_mutex_t lock;
	struct node_queue_item *first[FLIP_N_PRIORITIES], **last[FLIP_N_PRIORITIES];
	uint64_t in_flight;         /* bytes asked for and not arrived */
	uint64_t preheat_in_flight; /* those of them that are preheated */
	bool is_stopped;
	int64_t rests_until_ms; /* after a failure; protected by lock */
	/* What is preheated waits while the machine's own work does (PSI); protected by lock */
	struct peer_pressure pressure;
	int64_t preheated_us;        /* a chunk was asked for last */
	_Atomic bool is_pump_queued; /* a job that will look is waiting to run */
};

struct node_lower;     /* mounts.c, below */
struct node_recording; /* record.c */
struct node_pull;      /* layers.c: a layer that is being made ready */

enum { NODE_COMPLAINTS = 32 };

struct node_complaint { /* complain.c: what was said lately; all of it protected by complaints_lock */
	uint32_t layer;
	int r;      /* 0: free */
	unsigned n; /* more of it that were not said */
	int64_t last_ms;
};

struct flip_node {
	struct flip_node_opts opts;
	char root[NODE_PATH], fuse_dir[NODE_PATH], objects_dir[NODE_PATH], holder[NODE_PATH], state[64];
	struct flip_kernel kernel;
	bool use_erofs;
	struct flip_store *store;
	struct flip_fetch *fetch;
	struct flip_fs *fs;
	struct flip_work *work;    /* decoding, verifying, writing; short */
	struct flip_work *pullers; /* whole layers; long */

	pthread_rwlock_t layers_lock;
	struct node_layer **layers; /* by position; NULL where one was removed */
	size_t n_layers, cap_layers;
	struct node_object_slot *slots;
	size_t n_slots, n_used; /* n_slots a power of two */

	pthread_mutex_t loads_lock;
	struct node_load **loads; /* hash table of what is under way */
	size_t n_loads;

	struct node_queue queue;

	pthread_mutex_t models_lock; /* one change of a model's rows at a time; taken before all others */
	pthread_mutex_t pulls_lock;
	pthread_cond_t pulls_changed;
	struct node_pull *pulls;
	struct node_images *images; /* manifests that were read lately */

	struct node_recording *recordings; /* protected by record_lock */
	_Atomic bool is_recording;         /* whether there are any: asked by every read */
	pthread_mutex_t record_lock;

	pthread_mutex_t complaints_lock;
	struct node_complaint complaints[NODE_COMPLAINTS];

	struct flip_peers *peers;       /* NULL: none */
	struct node_verdicts *verdicts; /* who may have what: verdicts.c */
	_Atomic uint64_t peer_bytes;
	/* Bytes that the registry was asked for: groups of ours, for peers who asked us, because peers have failed. */
	_Atomic uint64_t origin_own_bytes, origin_relayed_bytes, origin_instead_bytes;

	pthread_t keeper; /* sync, recordings, background, low space */
	pthread_mutex_t keeper_lock;
	pthread_cond_t keeper_wake;
	bool keeper_runs, keeper_stops;
	_Atomic bool has_next_models; /* versions that wait until they are complete */
	_Atomic bool has_gone_layers; /* the store removed some by itself */
	_Atomic bool keeper_dozes;    /* looks seldom: see node_keeper_wake() */

	_Atomic int64_t last_foreground_ms;
	_Atomic uint64_t n_reads, n_reads_waited, n_read_errors, read_wait_us;
	_Atomic uint64_t foreground_bytes, prefetch_bytes, background_bytes, preheat_bytes, bad_chunks;
	_Atomic int64_t urgent_ms; /* something that is not preheated was asked for, or came, last */
	_Atomic bool is_dirty;     /* something was written since the last sync */
};

/* ---- layers.c --------------------------------------------------------------------------------------------------- */

/* The layer, made ready when it is not: its table read, or all of it pulled and unpacked. Several callers for one
 * digest wait for the same work. `image` names the descriptor and where to fetch from. A reference. */
int node_layer_get(struct flip_node *node, const struct node_image *image, const char *digest,
                   struct node_layer **ret_layer, struct err *err);
/* Waits until a layer that is being made ready is: -EBUSY: not yet, -ENOENT: it was not to be. */
int node_layer_wait(struct flip_node *node, const char *digest, unsigned max_ms, struct node_layer **ret_layer,
                    struct err *err);
/* Starts the same without waiting, for the layers that will be asked for next. image NULL: a model that `member` of the
 * cluster has, as it asks us for it. */
void node_layer_start(struct flip_node *node, const struct node_image *image, const char *member, const char *digest);
/* One that was made ready before, by this process or another. -ENOENT. */
int node_layer_known(struct flip_node *node, const char *digest, struct node_layer **ret_layer, struct err *err);
void node_layer_unref(struct node_layer *layer);
int node_layer_mount(struct node_layer *layer, struct err *err);
/* The path that overlayfs takes as lower layer of it. */
void node_layer_lower(const struct node_layer *layer, char *ret_path, size_t size);
void node_layers_free(struct flip_node *node);
/* Layers that the store has no more: unmounted and forgotten. */
int node_layers_drop_removed(struct flip_node *node, struct err *err);
/* Opens the store's folder of a layer and puts it into the tables. */
int node_layer_load(struct flip_node *node, const char *digest, struct node_layer **ret_layer, struct err *err);

/* ---- objects.c -------------------------------------------------------------------------------------------------- */

/* With layers_lock held for writing. */
int node_objects_add(struct flip_node *node, uint32_t layer);
int node_objects_rebuild(struct flip_node *node);
extern const struct flip_fs_ops node_fs_ops;

/* The store's object of a content of the layer: where its chunks have no digests, what is not seen before it is whole.
 */
int node_object_open(struct node_layer *layer, const struct flip_index_object *object, struct flip_object **ret,
                     struct err *err);
/* Whether layers disagree about the content's chunks. */
bool node_object_is_contested(struct flip_node *node, const uint8_t digest[FLIP_DIGEST_SIZE]);

/* ---- contested.c ------------------------------------------------------------------------------------------------ */

/* Whether both say the same of its chunks, or each is verified as a whole anyway. */
bool node_contents_agree(const struct flip_index *a, const struct flip_index_object *in_a, const struct flip_index *b,
                         const struct flip_index_object *in_b);
/* All of the content into the store, by what this layer says of it, verified against its name. */
int node_fetch_whole(struct node_layer *layer, const struct flip_index_object *object, struct err *err);
/* The same for all of the layer's contents that others contest. */
int node_settle_contested(struct node_layer *layer, struct err *err);

/* ---- reads.c ---------------------------------------------------------------------------------------------------- */

int node_reads_init(struct flip_node *node);
void node_reads_done(struct flip_node *node);

/* Somebody waits for bytes of a content that is arriving: answered when all of it is there. */
void node_read(struct node_layer *layer, const struct flip_index_object *object, struct flip_object *store,
               uint64_t offset, size_t size, struct flip_fs_read *read);
/* What a reader in sequence will ask for next. */
void node_read_ahead(struct node_layer *layer, const struct flip_index_object *object, uint64_t offset, size_t size);
/* Fetches chunks of a layer that are not there and not under way. Returns how many bytes of the blob were asked for. */
uint64_t node_load_chunks(struct node_layer *layer, const uint32_t *chunks, size_t n, enum flip_priority priority);

/* Somebody else waits for a chunk: told once, on any thread, perhaps before this returns; then it is in the store, or
 * r < 0. `most`: who may be asked for it, a role of peers or NODE_ORIGIN (the registry alone). A negative errno: not
 * told. */
enum { NODE_ORIGIN = -1 };
typedef void (*node_load_fn)(void *arg, int r);
int node_load_for_peer(struct node_layer *layer, uint32_t chunk, struct flip_object *store, enum flip_priority priority,
                       int most, node_load_fn fn, void *arg);

/* ---- claims.c ---------------------------------------------------------------------------------------------------- */

void node_claims_load(struct node_layer *layer);
void node_claims_free(struct node_layer *layer);
/* For a layer that is not made yet. */
void node_claim_note(struct flip_node *node, const char *digest, const char *image, const char *seeds);
/* From now on peers are asked with this. */
int node_claim_use(struct node_layer *layer, const char *image, const char *seeds, struct err *err);
/* It is of this image too. */
void node_claim_add(struct node_layer *layer, const char *ref, const char *manifest);
void node_layer_open_up(struct node_layer *layer, unsigned how);
/* It has an origin: a registry or address, or members that have all of it. */
bool node_layer_can_fetch(const struct node_layer *layer);
/* Whether we have the layer from this reference's repository, or at least registry. */
bool node_claims_name(const struct node_layer *layer, const char *ref, bool repository);
bool node_ref_is_of(const char *a, const char *b, bool repository);

/* ---- peers.c, model_peers.c, verdicts.c, tail.c ---- */

int node_peers_start(struct flip_node *node, struct err *err);
/* "REF sha256:..." -> both; the digest may be missing. -EBADMSG. */
int node_image_split(const char *image, char *ref, size_t ref_size, char digest[72]);
/* The layer that the asker wants, made ready when that takes no longer than wait_ms (0: only one that is known).
 * -EBUSY: that takes longer; it is to come again. */
int node_peers_layer(struct flip_node *node, const struct flip_peer_ask *ask, unsigned wait_ms,
                     struct node_layer **ret_layer, struct err *err);
/* "sha256:...", which is one. */
int node_digest_bytes(const char *text, uint8_t ret[FLIP_DIGEST_SIZE]);
int node_peers_serve(struct node_layer *layer, const struct flip_peer_ask *ask, struct flip_peer_answer *answer);
int node_peers_content(struct node_layer *layer, const char *content, uint64_t offset, uint64_t size, int *ret_fd,
                       uint64_t *ret_size, struct err *err);
enum { NODE_PEER_WAIT_MS = 1500 /* the patience of an asker is longer */ };
extern const struct flip_peer_provider node_model_provider;
/* Asks peers for pieces of a layer's blob; as flip_peers_read(). */
int node_peers_read(struct node_layer *layer, const struct flip_peer_piece *pieces, size_t n,
                    enum flip_priority priority, int most, flip_peer_done done, void *arg);
/* A document of a blob, for peers; all strings are the caller's. */
struct node_question {
	const char *kind, *digest;  /* of the blob */
	const char *document;       /* as flip_peers_document() */
	const char *ref, *manifest; /* the image that it is of, and its manifest (NULL: none is named); ref NULL: what
	                               the cluster may have is asked for by its digest alone */
	const char *seeds;          /* members that are asked first; or NULL */
	bool anyone;                /* not only who owns it, but whoever has it */
	/* What says whether an answer is right: its digest, and a function (either may be NULL). By -EBADMSG it was
	 * not: who sent it is left out, for the reason in *err, and the next one asked, NODE_PEER_LIES of them at most.
	 * Other errors end the search. */
	const char *sum;
	int (*check)(void *arg, const struct base_buf *text, struct err *err);
	void *arg;
};
enum { NODE_PEER_LIES = 4 };
/* Into ret, which is empty. -ENOENT, or -EXDEV when it is ours to ask the registry for (not with `anyone`). */
int node_peers_document(struct flip_node *node, const struct node_question *q, struct base_buf *ret, struct err *err);
/* -EBADMSG: these bytes have another digest. */
int node_document_is(const char *digest, const struct base_buf *text, struct err *err);
/* documents.c: manifests, and what references meant, kept for peers and asked of them while the registry is away. */
void node_documents_use(struct flip_node *node);
/* The image's configuration, for whoever starts it while the registry is away. */
void node_keep_config(struct flip_node *node, const struct node_image *image);
int node_document_find(struct flip_node *node, const char *digest, const char *document, struct base_buf *ret,
                       struct err *err);
/* What we come with for an image of this reference: flip_peer_blob.grant; the caller's, NULL: no memory. */
char *node_grant_of(struct flip_node *node, const char *ref);

struct node_verdicts;
struct node_verdicts *node_verdicts_new(void);
void node_verdicts_free(struct node_verdicts *v);
/* A blob or manifest of the reference's repository. `had`: this node has it from there itself, which counts while the
 * registry is away. */
struct node_wanted {
	const char *ref, *digest;
	bool is_manifest, had;
};
/* Whether whoever sent the grant may have it: 0 or -EACCES. Asks the registry, and remembers what it said. */
int node_may_have(struct flip_node *node, const struct node_wanted *w, const char *grant, struct err *err);
/* Finds out whether anybody may have it, while the registry is there. */
void node_note_public(struct flip_node *node, const char *ref, const char *digest, bool is_manifest);
/* The same, on another thread. */
void node_note_public_later(struct flip_node *node, const char *ref, const char *digest, bool is_manifest);

/* ---- prefetch.c ------------------------------------------------------------------------------------------------- */

void node_queue_init(struct flip_node *node);
void node_queue_done(struct flip_node *node);
/* A queued chunk of `n_bytes` was asked for; it has arrived or failed, which asks for the next. */
void node_queue_asked(struct flip_node *node, uint64_t n_bytes, bool is_preheat);
void node_queue_arrived(struct flip_node *node, uint64_t n_bytes, bool is_preheat);
/* One that failed: nothing is asked ahead for some seconds. */
void node_queue_failed(struct flip_node *node);
/* Somebody wants something now, whatever failed before. */
void node_queue_resume(struct flip_node *node);
/* Now and then: not while room is short; else on with what waits. */
void node_queue_watch(struct flip_node *node, bool is_short);
bool node_queue_is_idle(struct flip_node *node); /* nothing waits, and what will come is asked for at once */
bool node_queue_preheats(struct flip_node *node);
/* Chunks that wait to be preheated, and what the machine's pressure leaves of the pace, per cent. */
void node_queue_preheat_stat(struct flip_node *node, uint64_t *ret_chunks, unsigned *ret_percent);
/* The lists for a chain of layers, uppermost first: the node's own recording for this image, else those in the layers;
 * plays back what it finds. True when there was one. */
bool node_prefetch_image(struct flip_node *node, const char *ref, struct node_layer *const *layers, size_t n_layers);
/* A layer's own list, at once. */
void node_prefetch_layer(struct node_layer *layer);
/* All chunks of a layer that are missing, as they lie in the blob. */
void node_queue_rest(struct node_layer *layer, enum flip_priority priority);
/* Nothing more of the layer is asked for ahead. */
void node_queue_drop(struct node_layer *layer);

/* ---- record.c --------------------------------------------------------------------------------------------------- */

/* From now on what is read of these layers is written down, until it is quiet; then kept as the image's list. */
void node_record_start(struct flip_node *node, const char *ref, struct node_layer *const *layers, size_t n_layers);
void node_record_read(struct node_layer *layer, uint32_t chunk);
/* Ends those that have been quiet for long enough (all of them when `now_ms` is INT64_MAX). */
void node_record_finish(struct flip_node *node, int64_t now_ms);
bool node_record_is_running(struct flip_node *node);

/* ---- unpack.c --------------------------------------------------------------------------------------------------- */

/* A layer without table of contents: pulled by parallel ranges, decoded and taken apart while it arrives; its contents
 * go into the store, index and metadata into dir. */
int node_unpack(struct flip_node *node, const struct node_image *image, const struct img_descriptor *desc,
                struct flip_blob *blob, const char *dir, struct err *err);
/* Index and metadata image out of a table of contents (whose tree is changed to overlay's form). */
int node_write_layer(struct flip_toc *toc, const char *blob_digest, uint64_t blob_size, const char *dir,
                     struct err *err);

/* ---- snapshots.c ------------------------------------------------------------------------------------------------ */

/* What containers of before stand on is to be fetched to its end, as if they had just been started. */
int node_want_started(struct flip_node *node, struct err *err);

/* ---- upkeep.c --------------------------------------------------------------------------------------------------- */

/* Folders of snapshots that have no row, layers nobody uses, contents no layer names; what the budget demands. */
/* `all`: also layers that were used a moment ago. */
int node_gc(struct flip_node *node, bool all, bool dry_run, struct flip_gc_result *ret_result, struct err *err);
int node_cleanup(void *node, struct err *err); /* what containerd calls */
/* For the gc that the store begins itself: struct flip_store_opts. */
int node_walk_index(void *node, const char *layer_dir, int (*each)(void *each_arg, const uint8_t digest[32]),
                    void *each_arg, struct err *err);
void node_layers_gone(void *node);
int node_keeper_start(struct flip_node *node, struct err *err);
void node_keeper_stop(struct flip_node *node);
void node_keeper_wake(struct flip_node *node); /* there is something to watch; cheap */

/* ---- mount_image.c ---------------------------------------------------------------------------------------------- */

#define NODE_MOUNT_PREFIX "flip-mount/" /* of the rows that keep the layers of our own mounts */
enum { NODE_MAX_MOUNTED = 500 };
/* The folder can be mounted at. */
int node_mount_check(const char *dir, struct err *err);
/* The chain, uppermost first, read-only at `dir`, and rows that keep its layers. */
int node_mount_layers(struct flip_node *node, const struct node_lower *lowers, size_t n, const char *dir,
                      struct err *err);
/* Whether what is mounted there is this layer, uppermost. */
bool node_mount_shows(struct flip_node *node, const char *dir, const char *digest);
/* A mount of ours ends, lazily: what is open stays. */
int node_mount_end(struct flip_node *node, const char *dir, struct err *err);
/* Rows of mounts that were ended by others. */
void node_forget_ended_mounts(struct flip_node *node);

/* ---- models.c --------------------------------------------------------------------------------------------------- */

#define NODE_MODEL_PREFIX                                                                           \
	"flip-model/" /* of the rows that keep the layers of models; NODE_NEXT_PREFIX: of a version \
	                 that takes the place of the one that is there when it is complete */
#define NODE_NEXT_PREFIX "flip-model-next/"
/* Models that were not complete are fetched to their end. */
int node_models_start(struct flip_node *node, struct err *err);
/* New versions that have become complete take their places. */
void node_models_settle(struct flip_node *node);
/* How much of a layer's files is here. */
void node_layer_here(struct node_layer *layer, uint64_t *ret_here, uint64_t *ret_size);
/* The id of the model whose name has this digest, as far as it is open by its name. -ENOENT. */
int node_model_by_name(struct flip_node *node, const char *name_digest, char ret_id[72]);

/* ---- model_layer.c ---------------------------------------------------------------------------------------------- */

/* The layer of a model that was read: made, or where it is known already told the places that it can be had from now.
 * keep: what it holds cannot be fetched again, and is not evicted. With models_lock. */
struct node_model_source;
int node_model_layer(struct flip_node *node, const struct node_model_source *s, const char *source, bool keep,
                     struct node_layer **ret_layer, struct err *err);
/* The model's list of files as it lies beside the layer's index, with its chunks; for peers. */
int node_model_document(const struct node_layer *layer, bool with_urls, struct base_buf *ret, struct err *err);
/* For a layer that is being opened out of `dir`: its files' names, and the blob that is made of them. */
int node_model_open(struct node_layer *layer, const struct flip_layer_row *row, struct err *err);
/* Which file a chunk is of. */
const char *node_model_path(const struct node_layer *layer, uint32_t chunk);

/* ---- layer_table.c ----------------------------------------------------------------------------------------------- */

/* The table and what it was made from, both the caller's. A layer without one has a table of format FLIP_PLAIN. */
int node_table_read(struct flip_node *node, const struct node_image *image, const struct img_descriptor *d,
                    struct flip_blob *blob, struct node_tail **ret_tail, struct flip_toc **ret_toc, struct err *err);
/* A content of several chunks without digests of their own could be verified only as a whole; one too large for a range
 * could not be asked for. */
bool node_table_can_be_lazy(const struct flip_toc *toc);

/* ---- model_source.c ---------------------------------------------------------------------------------------------- */

/* A model as its source says: "HOST/NAME[:TAG]" (an artifact of a registry), "http://..." or "https://..." (a manifest
 * there; "s3://..." too), an absolute path (a manifest in a file), "peers:NAME[@sha256:ID]" (what another member has).
 * Archives of an artifact become layers of their own, unpacked. */
#define NODE_PEERS_SOURCE "peers:"
struct node_model_source {
	struct flip_model *model; /* NULL: all of it are archives */
	struct node_image *image; /* a reference; NULL: no registry's */
	size_t *archives;         /* layers of the image, lowest first */
	size_t n_archives;
	char *seeds;   /* members that have all of it; NULL: it has another origin */
	bool is_local; /* a folder of this machine: nobody else is asked for it */
	unsigned open; /* 0 or NODE_OPEN_... */
};
int node_model_source_read(struct flip_node *node, const char *source, struct node_model_source *ret, struct err *err);
void node_model_source_done(struct flip_node *node, struct node_model_source *s);
/* Whether the artifact is the model of this digest, without asking anybody. */
bool node_model_is_of(const struct node_image *image, const char *digest);
/* Its layer made, for peers who ask for it: nobody here has named it. */
int node_model_adopt(struct flip_node *node, const struct node_image *image, const char *digest, struct err *err);

/* ---- model_peers.c ----------------------------------------------------------------------------------------------- */

/* "peers:...": who has it, and its list of files. */
int node_model_of_peers(struct flip_node *node, const char *source, struct node_model_source *ret, struct err *err);
/* The layer of a model that a member asks us for, by what it says of it; with its addresses, if it has any. */
int node_model_adopt_held(struct flip_node *node, const char *member, const char *digest, struct err *err);

/* ---- complain.c ------------------------------------------------------------------------------------------------- */

/* A warning about a layer, at most one in some seconds for each r (negative) of it. */
void node_complain(struct node_layer *layer, int r, const char *what);
/* The same of one chunk; of a model with the name of its file, and kept for who waits for the model. */
void node_complain_chunk(struct node_layer *layer, uint32_t chunk, int r, const char *what);
/* Whether trying again would not help: wrong bytes, not allowed, not there. */
bool node_is_final(int r);
/* What was not said, once it is over. */
void node_complaints_end(struct flip_node *node, int64_t now_ms);

/* ---- mounts.c --------------------------------------------------------------------------------------------------- */

/* How the chain is mounted: `layers` uppermost first; plain folders have a path and no layer. upper NULL: read-only. */
struct node_lower {
	struct node_layer *layer; /* a reference, or NULL */
	char path[NODE_PATH];
};
int node_compose_mount(struct flip_node *node, const struct node_lower *lowers, size_t n, const char *upper,
                       const char *work, struct flip_mounts *ret_mounts, struct err *err);
/* Performs it at `target`. */
int node_do_mount(const struct flip_mounts *m, const char *target, struct err *err);

#endif
