/* Peers: what this node has, given to others; what others have, asked for before a registry is.
 * imgtools/flip/peer/peer.h
 *
 * Things travel in pieces of a blob. A blob is named by its digest and is what an origin serves ranges of: a layer, or
 * a file of a model. A piece is what can be verified by itself: a member or frame of a layer (which holds one chunk, or
 * several small ones), a chunk of a model's file. Both sides speak of a piece by its place in the blob, so a request
 * carries a digest and ranges, nothing else. What a piece looks like on the way is the sender's choice: as the origin
 * has it (packed), or the bytes of the store (plain). docs/formats/peer-protocol.md is the protocol.
 *
 * How to use it, for a kind of blob (node/peers.c: layers; node/model_peers.c: models):
 *
 *   serving   flip_peers_provide(): a table of functions by which requests of others are answered; each piece is given
 *             back by flip_peer_give_*() at once or later, from any thread, as it comes: that is how an owner relays
 *             while it receives.
 *   asking    flip_peers_read(): each piece is told once or (plain) once for each of its chunks, or with an error:
 *             nobody has it, or nobody is there: ask the origin. flip_peers_role() tells beforehand whether a piece is
 *             ours to ask the origin for. The caller verifies. What is wrong goes to flip_peers_blame(), and is asked
 *             for again, here or there.
 *
 * Who is asked: pieces are grouped by FLIP_PEER_GROUP bytes of the blob; rendezvous hashing of the group over the live
 * members, and who of the first two has less of the blob, says who owns it. The owner asks the origin, everybody else
 * the owner; one who is busy names others who have it. Members that stall, refuse or send garbage are left out for a
 * time that doubles, and tried again then. */
#ifndef FLIP_PEER_H
#define FLIP_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "fetch/fetch.h"

enum {
	FLIP_PEER_GROUP = 64 << 10, /* bytes of a blob that have one owner */
	FLIP_PEER_MAX_PIECE = 16 << 20,
	FLIP_PEER_MAX_PIECES = 512, /* of one request; flip_peers_read() cuts what is more into several */
	FLIP_PEER_NAME = 128,       /* of a member, with the 0: "host:port", as it advertises itself */
	FLIP_PEER_TRACE = 33,       /* of a trace id, with the 0 */
	FLIP_PEER_MAX_SHORT = 4096, /* of a document that everyone is asked for */
	FLIP_PEER_MAX_SEEDS = 8,
};

struct flip_peers;

struct flip_peers_opts {
	const char *listen;     /* "0.0.0.0:8422"; NULL or "": off, flip_peers_new() gives NULL */
	const char *advertise;  /* "10.0.0.5:8422", our name among members; NULL: the address of the route to them */
	const char *zone;       /* "" : none */
	const char *members;    /* "static:HOST:PORT[+FABRIC][@ZONE],...", "dns:NAME:PORT[+PORT]", "file:PATH",
	                         * "etcd:http://HOST:2379[,...][/PREFIX]"; FABRIC: [HOST:]PORT for libfabric */
	const char *token_file; /* the cluster's shared secret, mode 0600 or 0400; NULL: certificates, or -EACCES */
	const char *cert_file, *key_file, *ca_file; /* mutual TLS; NULL: plain HTTP */
	const char *etcd_ca_file;
	const char *transport;        /* "http" (NULL), "fabric": libfabric where it is here, else HTTP */
	const char *fabric_provider;  /* libfabric's: "tcp" (NULL), "verbs" */
	const char *fabric_listen;    /* "HOST:PORT"; NULL: the host of listen, the port after its */
	const char *fabric_advertise; /* its address, as members are told; NULL: that of our name */
	uint64_t max_up, max_down;    /* bytes a second; 0: none */
	uint64_t link;                /* bytes a second of the link; 0: not known */
	unsigned link_share;          /* per cent of the link that peers may use, each way; 0: 100 */
	unsigned max_uploads;         /* requests that are served at once; 0: 32 */
	unsigned max_asked;           /* requests of ours at once; 0: 32 */
	unsigned disk_queue;          /* reads of the store at once for others; 0: 4 */
	unsigned psi_percent;         /* pressure (limit.h) beyond which uploads are throttled; 0: 20;
	                                 100: never */
	const char *pressure_dir;     /* where it is read (limit.h); NULL: /proc/pressure */
	uint64_t cache_bytes;         /* pieces as they came, kept in memory for others; 0: 64 MiB */
	uint32_t stall_ms;            /* a peer that says nothing for so long is left; 0: 2500 */
	uint32_t grant_s;             /* how long a verdict of the registry counts; 0: 60 */
};

/* *ret_peers NULL with 0: switched off. Nothing is served before flip_peers_start(). */
int flip_peers_new(const struct flip_peers_opts *o, struct flip_peers **ret_peers, struct err *err);
/* After the kinds were told. */
int flip_peers_start(struct flip_peers *p, struct err *err);
/* Questions end with -ECANCELED, answers are cut; nothing is called any more afterwards. */
void flip_peers_stop(struct flip_peers *p);
void flip_peers_free(struct flip_peers *p);

/* ---- Asking --------------------------------------------------------------------------------------------------- */

struct flip_peer_blob {
	const char *kind;   /* "layer", "model": which table answers at the other side; static */
	const char *digest; /* "sha256:..." */
	/* What proves that we may have it (docs/formats/peer-protocol.md). `image` is "HOST/NAME:TAG sha256:MANIFEST",
	 * by which an owner that does not know the blob finds it; NULL: it need not. */
	const char *image;
	const char *grant; /* NULL: "public" */
	/* Members that have all of it, "HOST:PORT,HOST:PORT": where it has no origin but them they are asked in its
	 * place, and own nothing of it, so that what each of them sends is sent once. NULL: none. */
	const char *seeds;
};

struct flip_peer_piece {
	uint64_t offset; /* in the blob, as the origin has it */
	uint32_t size;
	uint64_t inner; /* of one chunk in what the piece decodes to; a plain answer is of this chunk alone */
};

enum flip_peer_form {
	FLIP_PEER_PACKED = 1, /* the piece as the origin has it, all of it */
	FLIP_PEER_PLAIN = 2,  /* the chunk itself */
};

struct flip_peer_bytes {
	enum flip_peer_form form;
	const void *data; /* during the call */
	size_t size;
	unsigned from; /* for flip_peers_blame() */
};

/* On the asking thread, so it must be short (hand over to a pool). Once for each piece: r 0 and bytes, or r negative.
 */
typedef void (*flip_peer_done)(void *arg, size_t i, int r, const struct flip_peer_bytes *bytes);

enum flip_peer_role {
	FLIP_PEER_HOLDER, /* gives what is there */
	FLIP_PEER_OWNER,  /* and fetches the rest from the origin: never from peers, so that questions do not run in
	                   * circles */
	FLIP_PEER_RELAY,  /* the owner within a zone: fetches the rest from the owner, or from the origin */
};

/* Whom we would ask for the piece at this place, asking nobody above `most`: a role, or -EXDEV: it is ours, ask the
 * origin; also when nobody else is there. Of the blob digest and seeds are looked at. */
int flip_peers_role(struct flip_peers *p, const struct flip_peer_blob *blob, uint64_t offset, enum flip_peer_role most);
/* Pieces and strings are copied; done() is called on another thread, perhaps before this returns; not at all after a
 * negative errno. `arg` must live until the last piece was told. `most`: FLIP_PEER_RELAY for reads of our own,
 * FLIP_PEER_OWNER for what we were asked for as a relay, FLIP_PEER_HOLDER when the origin has failed: whoever has it.
 * `trace`: NULL makes one.
 */
int flip_peers_read(struct flip_peers *p, const struct flip_peer_blob *blob, const struct flip_peer_piece *pieces,
                    size_t n, enum flip_priority priority, enum flip_peer_role most, const char *trace,
                    flip_peer_done done, void *arg);
/* Somebody waits for what was asked for ahead. */
void flip_peers_raise(struct flip_peers *p, const char *digest, uint64_t offset, enum flip_priority priority);
/* What `from` sent was not what it should be: it is left out, for a time that doubles. */
void flip_peers_blame(struct flip_peers *p, unsigned from, const char *what);
/* Whether anybody is there to be asked. Cheap. */
bool flip_peers_are_there(const struct flip_peers *p);
unsigned flip_peers_others(const struct flip_peers *p); /* how many */

/* A whole document of a blob: "tail" (a layer's table of contents), "manifest" and the like, as its provider defines
 * them; at most `max` bytes of `ret` are used. Waits; asks the owner, then others. The caller verifies, and blames
 * *ret_from. -ENOENT: nobody has it. -EXDEV: ours to ask the origin for; not with FLIP_PEER_HOLDER. */
int flip_peers_document(struct flip_peers *p, const struct flip_peer_blob *blob, const char *document,
                        enum flip_peer_role most, struct base_buf *ret, unsigned *ret_from, struct err *err);
/* The same of every member that is live, a few at a time, as holders: `each` is told whoever has the document, on this
 * thread. Documents of FLIP_PEER_MAX_SHORT bytes at most. Returns how many have it. */
typedef void (*flip_peer_found)(void *arg, const char *member, const char *text, size_t size);
int flip_peers_everyone(struct flip_peers *p, const struct flip_peer_blob *blob, const char *document,
                        flip_peer_found each, void *arg, struct err *err);

/* ---- Serving -------------------------------------------------------------------------------------------------- */

struct flip_peer_answer; /* to one request; lives until all that was promised has been given */

struct flip_peer_ask {
	const char *kind, *digest, *image, *grant, *trace; /* image, grant: "" when none; all valid during the call */
	const char *asker;                                 /* its name among members, as it says; "": none */
	const char *document, *content;                    /* NULL: another question */
	enum flip_priority priority;
	enum flip_peer_role role;
	const struct flip_range *ranges; /* whole pieces of the blob, in order */
	size_t n_ranges;
};

/* Called on threads of the server, several at once. */
struct flip_peer_provider {
	bool is_dense; /* its bytes are not worth compressing */
	/* Whether the asker may have the blob: 0, -EACCES, -ENOENT (not known here, and role or image do not let us get
	 * it). May wait for a registry; verdicts are to be kept. */
	int (*allow)(void *arg, const struct flip_peer_ask *ask, struct err *err);
	/* Gives every piece of the ranges: what is there now, the rest as it comes. Each piece that will come later is
	 * promised first (flip_peer_promise). What is neither given nor promised is what we do not have. `ask` is gone
	 * when this returns, `answer` lives until all promises are settled. */
	int (*serve)(void *arg, const struct flip_peer_ask *ask, struct flip_peer_answer *answer, struct err *err);
	/* A document by name, appended. -ENOENT. May wait while it is being made. */
	int (*document)(void *arg, const struct flip_peer_ask *ask, const char *document, struct base_buf *ret,
	                struct err *err);
	/* Bytes [offset, offset + size) of a content of the blob, by its own digest, all of them there (size 0: to the
	 * end): a descriptor that the server closes, and the content's size; sent by sendfile. NULL: contents are not
	 * given. */
	int (*content)(void *arg, const struct flip_peer_ask *ask, const char *content, uint64_t offset, uint64_t size,
	               int *ret_fd, uint64_t *ret_size, struct err *err);
};
/* `kind` is static. Before flip_peers_start(). */
int flip_peers_provide(struct flip_peers *p, const char *kind, const struct flip_peer_provider *provider, void *arg);

/* n more answers will come: each is any number of _give and _refuse, and one _settle at its end. -ECANCELED: the asker
 * has gone, nothing more is needed (and nothing was promised). */
int flip_peer_promise(struct flip_peer_answer *a, unsigned n);
void flip_peer_settle(struct flip_peer_answer *a);
/* A chunk that lies in a file, complete: read when its turn comes. `fd` is borrowed until release(arg), which is called
 * once, from any thread. */
void flip_peer_give_plain(struct flip_peer_answer *a, uint64_t offset, uint64_t inner, int fd, uint64_t file_offset,
                          size_t size, void (*release)(void *arg), void *arg);
/* A piece as it came, out of flip_peers_remember(): 1, or 0 when it is not there any more. */
int flip_peer_give_remembered(struct flip_peer_answer *a, uint64_t offset);
/* It will not come. */
void flip_peer_refuse(struct flip_peer_answer *a, uint64_t offset, uint64_t inner);

/* Verified bytes of a piece as they came, kept for a while (cache_bytes) so that others get them as small as they are
 * at the origin. */
void flip_peers_remember(struct flip_peers *p, const char *digest, uint64_t offset, const void *data, size_t size);

/* HMAC of a text by the cluster's secret, as hexadecimal: proof of knowing it without sending it. -ENOENT: there is no
 * secret (certificates only). */
int flip_peers_proof(struct flip_peers *p, const char *text, char ret_hex[65]);
bool flip_peers_proof_is(const char hex[65], const char *given); /* in constant time */

/* ---- What goes on --------------------------------------------------------------------------------------------- */

/* One JSON object (`flip peers --json`), and Prometheus text. */
int flip_peers_stat(struct flip_peers *p, struct base_buf *buf);
int flip_peers_metrics(struct flip_peers *p, struct base_buf *buf);

#endif
