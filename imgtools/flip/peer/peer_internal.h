/* What the files of this room share.
 *
 *   peers.c      opening, closing, what is known of it all
 *   asking.c     our questions: which piece is asked of whom, what becomes of it
 *   call.c       one question on its way: its headers, its frames
 *   late.c       those that take long: hedges, probes, whom not to believe
 *   document.c   the questions that wait: tables of contents, manifests
 *   question.c   questions of others: who asks, how many at once, what is answered
 *   server.c     the way that they come by HTTP
 *   server_tls.c its server, its certificates, which may change
 *   server_fabric.c   the way that they come by libfabric
 *   answer.c     one answer of ours: pieces as they come, paced
 *   kept.c       pieces as they came, in memory; who was given what
 *   member.c     who is there, how they were, who owns what
 *   membership.c, member_etcd.c, etcd_json.c   where the list of members comes from
 *   transport_http.c, transport_fabric.c       the ways that ours take
 *   fabric_line.c, fabric_wire.c               connections of libfabric, what is said on them
 *   wire.c, auth.c, limit.c                    bytes, secrets, amounts
 *
 * Locks: p->lock is the asking side's (members, blobs, pieces, calls) and is never held while somebody is told;
 * server.c, answer.c and kept.c have locks of their own, which are taken after it, if at all. */
#ifndef FLIP_PEER_INTERNAL_H
#define FLIP_PEER_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "peer/auth.h"
#include "peer/limit.h"
#include "peer/member.h"
#include "peer/membership.h"
#include "peer/transport.h"
#include "peer/wire.h"

enum {
	PEER_MAX_TRIES = 3,     /* members that were asked for a piece in vain, before the origin is */
	PEER_MAX_HOPS = 100,    /* answers of any kind without the piece */
	PEER_PER_MEMBER = 4,    /* questions to one member at once, fewer among many; one more for the foreground */
	PEER_HOLDERS = 8,       /* remembered of a blob, and named to others */
	PEER_MAX_IMAGE = 1024,  /* bytes of an image's name with its digest */
	PEER_MAX_GRANT = 16384, /* of a proof */
	PEER_MAX_DOCUMENT = 256 << 20,
	PEER_MAX_TEXT = 48 << 10, /* of one question's headers */
	PEER_PROBES = 3,
	PEER_PIECE_US = 20000000, /* without a piece: nobody waits longer, whatever all the others take */
	PEER_PATIENCE = 3,        /* times as long, for what nobody waits for */
};

/* ---- Asking ---- */

struct asked_blob { /* what pieces are of; kept while any is, and a while longer for what is known of it */
	struct asked_blob *next;
	const char *kind;
	char digest[72];
	char *image, *grant, *seeds; /* never NULL */
	unsigned n_refs;
	uint32_t holders[PEER_HOLDERS]; /* who gave us something of it */
	unsigned n_holders;
	struct {
		uint32_t member;
		int64_t until_us;
	} lacks[16]; /* who said that it has none of it */
	unsigned next_lack;
};

/* What is to be told once the lock is let go. */
struct told {
	struct told *next;
	struct piece *piece;
	int r;
};

struct piece {
	struct told told;
	TAILQ_ENTRY(piece) in_list; /* of the member that is to be asked, or of those that wait */
	struct batch *batch;
	struct flip_peer_piece what;
	enum flip_priority priority;
	enum flip_peer_role role, most; /* as which it is to be asked for now */
	bool is_queued, is_resting, is_over;
	bool is_hedged;
	uint8_t n_calls, n_tried, n_hops;
	uint32_t member;  /* of whose queue */
	uint32_t suspect; /* who has not given it while another one is asked for it; or PEER_NOBODY */
	uint32_t tried[PEER_MAX_TRIES * 3];
	int64_t due_us; /* while it rests */
};
TAILQ_HEAD(piece_list, piece);

struct batch {
	struct asked_blob *blob; /* counted */
	flip_peer_done done;
	void *arg;
	char trace[FLIP_PEER_TRACE];
	size_t n, n_refs; /* each piece that is not over or not told, each question that has one */
	struct piece pieces[];
};

struct call { /* call.c */
	LIST_ENTRY(call) in_calls;
	struct flip_peers *p;
	uint32_t member;
	struct asked_blob *blob; /* counted */
	enum flip_peer_role role;
	enum flip_priority priority;
	struct piece **pieces; /* by offset and inner; NULL where it was told */
	uint64_t *offsets;     /* of theirs */
	size_t n, n_left;
	uint64_t id; /* of the transport */
	struct peer_stream stream;
	struct peer_head head;
	bool has_head, is_hedge, is_trial, is_garbage, is_canceled; /* is_trial: not counted by its piece */
	bool is_slow;                                               /* canceled because others were faster */
	char why[96];                                               /* it is garbage */
	int64_t started_us, first_us, last_us, piece_us;            /* the last byte, the last piece */
	bool has_piece;
	uint32_t probed[PEER_PROBES]; /* who was asked for a piece of it, to see whether others have to wait too */
	unsigned n_probes;
	int64_t probed_us;
	uint64_t bytes;
	char trace[FLIP_PEER_TRACE];
};

struct queue {
	struct piece_list list[FLIP_N_PRIORITIES]; /* of one member */
};

/* ---- Serving ---- */

struct kept_piece { /* bytes that are shared by answers under way and the memory */
	_Atomic unsigned n_refs;
	size_t size;
	uint8_t data[];
};
void kept_piece_unref(struct kept_piece *k);

struct kept;
struct kept *kept_new(uint64_t max_bytes);
void kept_free(struct kept *k);
void kept_put(struct kept *k, const char *digest, uint64_t offset, const void *data, size_t size);
struct kept_piece *kept_get(struct kept *k, const char *digest, uint64_t offset); /* a reference, or NULL */
uint64_t kept_bytes(struct kept *k);
/* Who was given all that it asked for of a group: named to those who come when we are busy. */
void kept_note_holder(struct kept *k, uint64_t group, const char *name);
/* Up to max of them, "a:1,b:2"; not `asker`. */
void kept_holders(struct kept *k, uint64_t group, const char *asker, struct base_buf *ret);

struct provider {
	const char *kind;
	struct flip_peer_provider ops;
	void *arg;
};

struct counts {
	_Atomic uint64_t pieces_asked, pieces_got, pieces_gone_to_origin, pieces_ours, received, hedges, hedge_wins;
	_Atomic uint64_t served, served_bytes, served_packed, served_plain, served_zstd, busy, refused, forbidden,
	        missing;
	_Atomic uint64_t documents_asked, documents_got, documents_served, contents_served;
	_Atomic uint64_t garbage;
	struct peer_fabric_counts fabric;
};

struct flip_peers {
	struct flip_peers_opts o; /* with strings of our own */
	char *strings[16];
	unsigned n_strings;
	char name[FLIP_PEER_NAME];
	char fabric_listen[FLIP_PEER_NAME],
	        fabric_name[FLIP_PEER_NAME]; /* where, and as members are told; "": HTTP only */
	struct peer_token *token;            /* NULL: certificates only */
	const struct peer_transport_ops *transport;
	void *way; /* the transport's */
	const struct peer_membership_ops *membership;
	const char *where;
	void *list; /* the membership's */
	bool has_list, has_stopped;
	struct provider providers[4];
	unsigned n_providers;
	struct counts counts;
	struct peer_bucket up, down;

	pthread_mutex_t lock; /* of all below, up to the server's */
	pthread_cond_t changed;
	bool is_stopping;
	struct peer_members members;
	struct queue **queues; /* one for each member */
	size_t n_queues, n_queued;
	struct asked_blob *blobs;
	size_t n_blobs;
	LIST_HEAD(, call) calls;
	unsigned n_calls;
	struct piece_list resting;
	struct told *told, **last_told;
	_Atomic unsigned n_live; /* others that are named; read without the lock */

	struct peer_server *server;
	struct peer_fabric_server *fabric_server; /* NULL: HTTP only */
	_Atomic int64_t complained_us;            /* of questions that were refused */
	struct kept *kept;
	_Atomic unsigned n_serving;
	_Atomic bool server_stops;
	pthread_mutex_t disk_lock;
	pthread_cond_t disk_free;
	unsigned n_disk;
	_Atomic unsigned pace_percent; /* what the machine's pressure leaves us */
	pthread_mutex_t pressure_lock;
	struct peer_pressure pressure;
	uint64_t own_us; /* processor time of answers; protected by pressure_lock */
};

/* asking.c; with the lock where it says so */
void peer_pump(struct flip_peers *p);                                         /* locked: starts what may start */
void peer_unlock_and_tell(struct flip_peers *p);                              /* lets the lock go, then tells */
void peer_piece_over(struct flip_peers *p, struct piece *x, int r);           /* locked */
void peer_piece_next(struct flip_peers *p, struct piece *x, uint32_t failed); /* locked: whom to ask now */
void peer_piece_rest(struct flip_peers *p, struct piece *x, int64_t due_us);  /* locked */
void peer_piece_ask(struct flip_peers *p, struct piece *x, uint32_t member, enum flip_peer_role role); /* locked */
/* Locked: asks somebody else too, next in rank after those of `out`. Who it is, or PEER_NOBODY: nobody was asked. */
uint32_t peer_piece_probe(struct flip_peers *p, struct piece *x, const uint32_t *out, size_t n_out);
void peer_blob_has(struct asked_blob *b, uint32_t member);
void peer_blob_lacks(struct asked_blob *b, uint32_t member, int64_t now_us);
bool peer_blob_is_lacked(const struct asked_blob *b, uint32_t member, int64_t now_us);
void peer_blob_unref(struct flip_peers *p, struct asked_blob *b); /* locked */
void peer_blob_free(struct asked_blob *b);
/* The members of this list that are known, ourselves left out. locked */
unsigned peer_seeds(const struct flip_peers *p, const char *seeds, uint32_t ret[FLIP_PEER_MAX_SEEDS]);
void peer_piece_drop(struct flip_peers *p, struct piece *x); /* locked: out of its queue, we are stopping */
bool peer_tick(void *p);
void peer_batch_unref(struct flip_peers *p, struct batch *b); /* locked */
void peer_trace_new(char ret[FLIP_PEER_TRACE]);

/* call.c */
/* locked; when it fails the pieces are over */
int peer_call_start(struct flip_peers *p, uint32_t member, struct piece **pieces, size_t n);
size_t peer_call_place(const struct call *c, uint64_t offset); /* the first of its pieces at this place or behind it */
/* Locked: who was left out is asked for a piece that another one is asked for too. */
void peer_trials(struct flip_peers *p, int64_t now_us);
/* The headers of a question, each to be freed, NULL at the end; NULL: no memory. */
struct peer_question {
	const char *path, *image, *grant, *range, *role, *trace;
	enum flip_priority priority;
};
char **peer_question_headers(const struct flip_peers *p, const struct peer_question *q);
void peer_headers_free(char **headers);

/* late.c; locked */
void peer_calls_watch(struct flip_peers *p, int64_t now_us); /* stalled ones, hedges, probes */
/* Somebody waits for a piece that was asked for already. */
void peer_calls_raise(struct flip_peers *p, const char *digest, uint64_t offset, enum flip_priority priority);
/* Another one has given what this member was asked for earlier. */
void peer_member_accuse(struct flip_peers *p, uint32_t member, int64_t now_us);
/* The member of this question, which it did not answer for being busy, has said nothing else for too long. */
bool peer_is_busy_for_ever(const struct call *c, int64_t now_us);

/* question.c */
/* A question of another member, as a way has brought it. */
struct peer_asked {
	const char *path;
	const char *(*header)(void *arg, const char *name); /* "" when there is none */
	/* Whether its asker has shown a good certificate; NULL: this way has none, only the secret says who asks. */
	bool (*is_certified)(void *arg, char *ret_why, size_t why_size);
	void (*from)(void *arg, char *ret, size_t size); /* the asker's address; may leave ret */
	void *arg;
};
/* What it is to be answered with: status and, with 2xx, one of answer, fd and data (which may be NULL when size is 0);
 * else words. */
struct peer_reply {
	unsigned status;
	char words[ERR_MSG_SIZE], holders[2048];
	struct flip_peer_answer *answer;
	int fd;                       /* -1: none */
	uint64_t offset, size, whole; /* of fd; size: of data, too */
	char *data;
};
/* May take a while: a registry is asked, a document is made. */
void peer_reply_to(struct flip_peers *p, const struct peer_asked *asked, struct peer_reply *ret);
void peer_reply_done(struct peer_reply *r);                   /* what was not taken out of it */
void peer_answer_left(struct flip_peers *p, uint32_t member); /* its place is free */

/* server.c */
int peer_server_start(struct flip_peers *p, struct err *err);
void peer_server_stop(struct flip_peers *p);

/* server_tls.c */
struct peer_server;
/* Takes the socket over, also when it fails. */
int peer_server_open(struct flip_peers *p, int fd_take, MHD_AccessHandlerCallback handle,
                     struct peer_server **ret_server, struct err *err);
void peer_server_close(struct peer_server *s);
bool peer_certificate_is_good(struct MHD_Connection *c, char *ret_why, size_t why_size);

/* server_fabric.c */
struct peer_fabric_server;
int peer_fabric_server_start(struct flip_peers *p, const char *listen, struct peer_fabric_server **ret,
                             struct err *err);
void peer_fabric_server_stop(struct peer_fabric_server *s);

/* answer.c */
/* `member`: the asker among members, or PEER_NOBODY. */
struct flip_peer_answer *peer_answer_new(struct flip_peers *p, const struct flip_peer_ask *ask, const char *asker,
                                         uint32_t member, bool zstd);
void peer_answer_served(struct flip_peer_answer *a); /* all was promised that will be */
/* Up to `max` bytes of it, waiting for the first of them, at the pace that limits allow: their count, 0 at the end, or
 * a negative errno: it is to be cut. */
ssize_t peer_answer_read(struct flip_peer_answer *a, void *to, size_t max);
void peer_answer_gone(struct flip_peer_answer *a); /* the server's part of it: it was sent, or its asker has gone */

const struct provider *peer_provider_of(const struct flip_peers *p, const char *kind);
/* Sleeps until n bytes may be sent. */
void peer_pace(struct flip_peers *p, size_t n, enum flip_priority priority);

#endif
