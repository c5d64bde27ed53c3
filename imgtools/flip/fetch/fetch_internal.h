/* What the files of this room share.
 *
 *   parts.c  blobs at addresses, and several blobs as one
 *   s3.c, s3_sign.c  addresses of object stores, requests signed for them
 *   fetch.c  the callers' side: blobs, ranges and numbers; everything they want goes to the loop as a note
 *   loop.c   the one thread: notes taken in, what may start is started, libcurl driven
 *   queue.c  ranges that wait: in order of arrival by priority, by offset for coalescing
 *   door.c   where a repository is asked: the mirrors and the registry, how each of them was lately, tokens
 *   job.c    one request on its way: what is asked for, bytes taken in, what to do when it ends
 *   whole.c  those who wait: one range, whole blobs in order, documents
 *
 * All state belongs to the loop's thread except what says otherwise. */
#ifndef FLIP_FETCH_INTERNAL_H
#define FLIP_FETCH_INTERNAL_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "fetch/fetch.h"
#include "fetch/s3.h"
#include "registry/registry.h"

enum {
	FETCH_MAX_RANGE = 16 << 20,
	FETCH_MAX_REQUEST = 4 << 20,   /* what is taken along: a foreground read waits for no more than this */
	FETCH_MIN_REQUEST = 256 << 10, /* what is taken along however many streams are idle */
	FETCH_MAX_TAKEN = 1 << 20,     /* behind a foreground range */
	FETCH_MAX_GAP = 1 << 20,
	FETCH_SHARED_GAP = 4 << 10, /* while others fetch what lies between */
	FETCH_FIRST_GAP = 32 << 10, /* while nothing is known of a host */
	FETCH_MAX_DOCUMENT = 8 << 20,
	FETCH_MAX_RANGES = 1 << 20, /* waiting at once, a ceiling for memory */
	FETCH_MAX_DOORS = 8,
	FETCH_MAX_HOPS = 10,
	FETCH_MAX_IDLE_REPOS = 256
};

/* ---- Places ---- */

/* A host and port, whatever is asked there. Lives as long as the fetcher. */
struct fetch_origin {
	struct fetch_origin *next;
	char *name;         /* immutable */
	unsigned n_active;  /* jobs that have a connection or stream */
	unsigned n_low;     /* of those, below the foreground */
	uint64_t low_bytes; /* that those were to bring */
	unsigned limit;     /* of n_active */
	bool is_h2;
	bool is_warm[2];     /* it has a connection for the foreground, for the others; where streams share them */
	int64_t quiet_until; /* 429: nothing is started before */
	int64_t bad_until;   /* a mirror that failed is passed over until then */
	unsigned n_bad;      /* times in a row */
	uint32_t rtt_us;     /* request to first byte; 0: not known */
	uint64_t capacity;   /* bytes per second that it has managed; 0: not known */
	uint64_t burst;      /* bytes per second of one answer's body while it comes, lately */
	uint64_t tick_bytes; /* since tick_start */
	int64_t tick_start;
};

/* A repository at an origin. */
struct fetch_door {
	struct fetch_origin *origin;
	struct img_registry *registry;
	char *url;  /* of the one blob that is asked for here; NULL: a registry's */
	char *base; /* "https://host:port" of url */
	bool is_mirror;
	bool is_s3;     /* url is signed */
	bool is_found;  /* its scheme is known */
	bool is_proven; /* it let somebody in; until it does only one at a time knocks */
	bool redirects; /* its blobs lie elsewhere */
	unsigned n_knocking;
	int64_t refused_until;
	char *authorization; /* NULL: none */
	unsigned generation; /* of it */
	struct fetch_task *task;
};

struct fetch_repo {
	struct fetch_repo *next; /* protected by f->lock, with refs */
	unsigned refs;
	char *host, *name; /* immutable, with ns and n_doors */
	char *ns;          /* "docker.io", what mirrors know the host as */
	unsigned n_doors;  /* the last is the registry itself */
	struct fetch_door doors[FETCH_MAX_DOORS];
};

/* What blocks (a credential helper, a token service, finding out a scheme) is done by a thread of its own. */
struct fetch_task {
	struct fetch_task *next; /* protected by f->lock */
	struct flip_fetch *f;
	struct fetch_repo *repo; /* counted */
	struct fetch_door *door;
	pthread_t thread;
	char *challenge; /* NULL: find the scheme */
	unsigned seen;
	int r;
	struct err err;
};

/* ---- Work ---- */

struct fetch_range {
	TAILQ_ENTRY(fetch_range) in_fifo; /* while it waits */
	struct fetch_batch *batch;
	struct fetch_job *job; /* NULL: waits */
	uint64_t offset;
	uint64_t seq; /* order of arrival */
	uint32_t size;
	uint8_t priority;
	bool is_done;
};
TAILQ_HEAD(fetch_fifo, fetch_range);

/* The ranges of one flip_blob_read(). */
struct fetch_batch {
	struct fetch_batch *next_of_number; /* chain of f->numbers */
	struct flip_blob *blob;             /* counted */
	int64_t number;
	flip_range_done done;
	void *arg;
	size_t n, n_left;
	struct fetch_range ranges[];
};

struct flip_blob {
	_Atomic unsigned refs;
	struct flip_fetch *f; /* counted */
	struct fetch_repo *repo;
	char digest[72];
	uint64_t size;
	/* A joined one has parts and no repository: it only passes on. Immutable. */
	struct flip_blob **parts;
	uint64_t *starts;
	size_t n_parts;
	/* The loop's: */
	TAILQ_ENTRY(flip_blob) in_queued; /* while ranges wait */
	bool is_queued;
	struct fetch_fifo fifo[FLIP_N_PRIORITIES];
	struct fetch_range **sorted; /* all that wait, by offset */
	size_t n_sorted, sorted_size;
	uint64_t waiting_bytes;
	char *target[FETCH_MAX_DOORS]; /* where the door sent us; NULL: not asked yet, or refused there */
	bool is_missing[FETCH_MAX_DOORS], ignores_ranges[FETCH_MAX_DOORS];
	unsigned n_asking; /* jobs that may bring a target */
};
TAILQ_HEAD(fetch_blobs, flip_blob);

/* A manifest or the like; in the memory of the thread that waits for it. */
struct fetch_document {
	TAILQ_ENTRY(fetch_document) in_documents;
	struct fetch_repo *repo; /* counted by the caller */
	const char *which;
	bool is_blob; /* a configuration */
	struct base_buf body;
	char media_type[128], digest[72];
	int r;
	struct err *err;
	bool is_done; /* protected by f->lock */
};
TAILQ_HEAD(fetch_documents, fetch_document);

enum job_state {
	JOB_AT_DOOR, /* waits for the door's task */
	JOB_RESTS,   /* until `due` */
	JOB_RUNS
};

struct fetch_job {
	TAILQ_ENTRY(fetch_job) in_jobs;
	struct flip_fetch *f;
	struct flip_blob *blob;      /* counted; NULL: a document */
	struct fetch_document *doc;  /* NULL: ranges */
	struct fetch_repo *repo;     /* of either, counted by it */
	struct fetch_range **ranges; /* by their ends */
	size_t n_ranges, n_told;
	uint64_t start, end; /* of the blob */
	uint64_t gaps;       /* bytes of it that nobody wants */
	uint64_t got;        /* bytes of it that are in data */
	uint8_t *data;
	enum flip_priority priority;

	enum job_state state;
	int64_t due;
	unsigned door;      /* index */
	unsigned tried;     /* doors that were given up, a bit each */
	unsigned n_retries; /* at this door */
	unsigned n_refused; /* 401 in a row */
	unsigned n_hops, n_forgotten;
	long manifest_status; /* a document's, before it was looked for among the blobs */
	uint64_t got_before;  /* at the start of this attempt */
	struct err err;       /* of the latest failure */
	int error;

	CURL *easy; /* while it runs */
	struct curl_slist *headers;
	char *url;
	bool is_sent;        /* url came with a redirect */
	bool is_elsewhere;   /* at another host */
	bool is_low;         /* on a connection of those below the foreground */
	bool is_paused;      /* its bytes are not read */
	int64_t moved_at;    /* its last byte, or its start */
	bool counts;         /* in origin->n_active */
	bool knocks;         /* in door->n_knocking */
	bool is_asking;      /* in blob->n_asking */
	unsigned generation; /* of the authorization that was sent */
	long status;         /* 0: no answer yet */
	bool is_bad;         /* err says why the answer is not taken */
	uint64_t skip;       /* bytes of a 200 answer before what is wanted */
	struct base_buf words;
	char message[CURL_ERROR_SIZE];
};
TAILQ_HEAD(fetch_jobs, fetch_job);

enum note_kind { NOTE_READ, NOTE_RAISE, NOTE_CANCEL };

struct fetch_note {
	STAILQ_ENTRY(fetch_note) in_notes;
	enum note_kind kind;
	struct fetch_batch *batch; /* NOTE_READ */
	int64_t number;
	enum flip_priority priority;
};
STAILQ_HEAD(fetch_notes, fetch_note);

enum { FETCH_N_NUMBERS = 4096 }; /* a power of two */

struct fetch_counts {
	_Atomic uint64_t n_requests, n_retries, n_ranges, wire_bytes, gap_bytes;
	_Atomic uint64_t n_queued[FLIP_N_PRIORITIES], n_active[FLIP_N_PRIORITIES];
	_Atomic uint32_t rtt_us;
	_Atomic uint64_t rate;
};

struct flip_fetch {
	_Atomic unsigned refs; /* the owner's and each blob's */
	struct flip_fetch_opts o;
	char *auth_file, *ca_file, *netrc_file, *s3_endpoint, *s3_region, *s3_credentials_file;
	pthread_mutex_t s3_lock;     /* taken after lock */
	struct flip_s3 *s3;          /* NULL: not asked for yet; protected by s3_lock */
	struct flip_mirror *mirrors; /* copies */
	pthread_t thread;
	atomic_bool is_stopping;
	atomic_uint n_sharers; /* others that ask for other parts of the same */
	struct fetch_counts counts;

	pthread_mutex_t lock;
	pthread_cond_t document_done;
	struct fetch_notes notes;         /* protected by lock, with all below */
	struct fetch_documents documents; /* new ones */
	struct fetch_task *tasks_done;
	struct fetch_repo *repos;
	struct fetch_origin *origins;
	size_t n_ranges; /* not called back yet */
	int64_t last_number;
	bool is_over; /* the loop takes no more */

	/* The loop's: */
	CURLM *multi;
	CURLSH *share;
	CURL *idle[16];
	unsigned n_idle, n_tasks;
	struct fetch_blobs queued;
	struct fetch_documents waiting; /* documents not started */
	struct fetch_jobs jobs;
	struct fetch_batch *numbers[FETCH_N_NUMBERS];
	uint64_t last_seq;
	uint64_t held;     /* bytes of jobs' buffers */
	bool lacks_memory; /* of this turn: a range that was next did not fit */
	int64_t now;       /* microseconds, monotonic; of this turn */
	double tokens;     /* bytes that may be fetched below the foreground; for max_rate */
	int64_t tokens_at;
	uint64_t rate_bytes;
	int64_t rate_start;
	int64_t busy_until; /* nothing of the background is started before */
	int64_t next_due;   /* of this turn; INT64_MAX: nothing waits for a time */
};

/* loop.c */
void *flip_fetch_loop(void *arg);
void flip_fetch_wake(struct flip_fetch *f);
void flip_fetch_due(struct flip_fetch *f, int64_t due); /* come back then, at the latest */

/* fetch.c */
int flip_blob_new(struct flip_fetch *f, const char *digest, uint64_t size, const char *where,
                  struct flip_blob **ret_blob, struct err *err); /* without a repository yet */
void flip_blob_unref(struct flip_blob *b);

/* parts.c: the address of "s3://...", and what a request of it comes with */
int flip_fetch_s3_address(struct flip_fetch *f, const char *url, char **ret_address, struct err *err);
int flip_fetch_s3_headers(struct flip_fetch *f, const char *address, const char *range,
                          char *ret_lines[FLIP_S3_MAX_HEADERS + 1], struct err *err);

/* parts.c: a range of a joined blob is its part's; NULL: of none. *offset becomes that of the part. */
struct flip_blob *flip_blob_part(const struct flip_blob *b, uint64_t *offset, uint64_t size);

/* queue.c */
int flip_queue_add(struct flip_fetch *f, struct fetch_batch *batch);
void flip_queue_remove(struct flip_fetch *f, struct fetch_range *r);
void flip_queue_raise(struct flip_fetch *f, struct fetch_range *r, enum flip_priority priority);
/* Takes a range and the neighbours that travel along out of the queue; 0: no memory, nothing taken. */
struct fetch_span {
	struct fetch_range **ranges; /* the caller's; by their ends */
	size_t n;
	uint64_t start, end;
	uint64_t gaps; /* bytes of it that nobody wants */
};
size_t flip_queue_take(struct flip_fetch *f, struct fetch_range *seed, uint64_t gap, uint64_t max,
                       struct fetch_span *ret_span);
struct fetch_batch *flip_batch_find(struct flip_fetch *f, int64_t number);
/* Tells the caller, once. */
void flip_range_end(struct flip_fetch *f, struct fetch_range *r, int res, const void *data, const struct err *err);

/* door.c */
int flip_repo_get(struct flip_fetch *f, const char *ref, struct fetch_repo **ret_repo, struct err *err);
/* The one of these addresses. */
int flip_repo_get_urls(struct flip_fetch *f, const char *const *urls, size_t n_urls, struct fetch_repo **ret_repo,
                       struct err *err);
const char *flip_door_base(const struct fetch_door *d); /* "https://host" */
void flip_repo_put(struct flip_fetch *f, struct fetch_repo *repo);
void flip_repos_free(struct flip_fetch *f);
int flip_door_choose(struct flip_fetch *f, const struct fetch_repo *repo, const struct flip_blob *b, unsigned tried);
bool flip_door_is_ready(struct flip_fetch *f, const struct fetch_repo *repo, const struct flip_blob *b, unsigned door,
                        enum flip_priority priority);
uint64_t flip_door_gap(const struct flip_fetch *f, const struct fetch_door *d);
int flip_door_start_task(struct flip_fetch *f, struct fetch_repo *repo, struct fetch_door *d, const char *challenge,
                         struct err *err);
/* The door's task has ended: joined, the door brought up to date. */
void flip_door_end_task(struct flip_fetch *f, struct fetch_task *t);
void flip_door_works(struct flip_fetch *f, struct fetch_door *d);
void flip_door_fails(struct flip_fetch *f, struct fetch_door *d, long status);
void flip_origin_bytes(struct flip_fetch *f, struct fetch_origin *o, size_t n);

/* job.c: what a job holds, and its request */
void *flip_buffer_new(size_t size); /* NULL: no memory */
void flip_buffer_free(void *p, size_t size);
struct fetch_job *flip_job_new(struct flip_fetch *f, struct fetch_repo *repo, unsigned door);
int flip_job_take(struct fetch_job *j, struct fetch_range *seed, uint64_t gap, uint64_t max);
void flip_job_enter(struct fetch_job *j, unsigned door); /* counted there */
void flip_job_leave(struct fetch_job *j);
void flip_job_let_in(struct fetch_job *j); /* does not knock any more */
void flip_job_raise(struct fetch_job *j, enum flip_priority priority);
int flip_job_launch(struct fetch_job *j, struct err *err);
void flip_job_land(struct fetch_job *j);                               /* the handle goes back */
void flip_job_finish(struct fetch_job *j);                             /* all is there; frees it */
void flip_job_fail(struct fetch_job *j, int r, const struct err *err); /* the rest is told; frees it */

/* flow.c: what happens next */
void flip_job_go(struct fetch_job *j);                   /* an attempt, if its door is open */
void flip_job_ended(struct fetch_job *j, CURLcode code); /* libcurl is through with it */
void flip_job_task_ended(struct fetch_job *j, int r, const struct err *err);

#endif
