/* Ranges of blobs from registries: many at once, the urgent first, over few connections.
 *
 * One thread drives libcurl's multi interface: HTTP/2 streams (two connections, one of them the foreground's) or
 * kept-alive HTTP/1.1 connections, DNS and TLS sessions shared. Tokens are fetched once per repository and renewed once
 * for all that wait when they end; redirects to a blob store are remembered until they are refused. What blocks
 * (credential helpers, token services) runs on threads of its own.
 *
 * What may pass (refused, reset, stalled, cut short, 408, 429 with Retry-After, 500, 502-504) is tried again with
 * growing, jittered pauses, going on where the bytes ended. Mirrors come first and are left soon: at once when nobody
 * is there or it says 429, after one more attempt otherwise; the registry itself is the last. A mirror that failed is
 * passed over for 5 s, then twice as long each time.
 *
 * Ranges start in the order in which they were queued. Those of one blob that lie close together travel as one HTTP
 * request of at most 4 MiB: a gap is fetched along and thrown away when that costs less than another request would
 * (what the way moves in a stream's share of a round trip). A foreground range starts at once and takes along only what
 * touches its end. While one waits, no background is started and HTTP/1.1 background answers pause; of prefetch no more
 * is started than half of what the way holds anyway. */
#ifndef FLIP_FETCH_H
#define FLIP_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "fetch/s3.h"

enum flip_priority {
	FLIP_FOREGROUND, /* somebody's read waits for it */
	FLIP_PREFETCH,   /* will be read soon */
	FLIP_BACKGROUND, /* the rest; not started while anything above is under way */
	FLIP_PREHEAT,    /* what nobody has started yet; not while anything at all is */
	FLIP_N_PRIORITIES
};

struct flip_mirror {
	const char *host;     /* as in references: "docker.io"; NULL: any */
	const char *endpoint; /* "https://mirror.example:5000" or "http://..."; asked before the registry itself */
};

struct flip_fetch_opts {
	unsigned n_connections; /* per host, a quarter kept for the foreground; 0: 8. Four streams each (HTTP/2) */
	uint64_t max_rate;      /* bytes per second for prefetch and background; 0: no limit */
	unsigned n_retries;     /* per request, at the registry itself; 0: 5 */
	uint32_t retry_ms;      /* first pause; 0: 200 */
	uint32_t stall_s;       /* no byte for so long ends an attempt; 0: 20 */
	uint64_t max_queued;    /* bytes held for callers at once, a ceiling for memory; 0: 32 MiB */
	const char *auth_file;  /* docker's config.json; NULL: the usual places */
	const char *ca_file;    /* NULL: the system's */
	const char *netrc_file; /* for addresses that are no registry's; NULL: ~/.netrc */
	const char *s3_endpoint, *s3_region, *s3_credentials_file; /* for "s3://...": fetch/s3.h; NULL: as there */
	bool insecure;                     /* plain HTTP also beyond this host, certificates not verified */
	const struct flip_mirror *mirrors; /* borrowed during the call */
	size_t n_mirrors;
	uint32_t max_coalesce_gap; /* 0: decided by what was measured of the host, 1 MiB at most */
};

struct flip_fetch; /* the thread and its connections */

int flip_fetch_new(const struct flip_fetch_opts *o, struct flip_fetch **ret_fetch, struct err *err);
void flip_fetch_free(struct flip_fetch *f); /* what is queued ends with -ECANCELED; callbacks have ended afterwards */
/* The first half of it: everything queued has ended and nothing starts any more (-ECANCELED), but `f` is still valid.
 */
void flip_fetch_stop(struct flip_fetch *f);

/* So many others ask the same registry for what lies between our ranges, each for a part. From then on nothing that
 * nobody here wants is fetched along but what fits into a packet or two, and of HTTP/1.1 fewer connections are used
 * below the foreground: where all have many, one link's queue holds two packets of each, and some get nothing for
 * seconds. Cheap, any thread. */
void flip_fetch_share(struct flip_fetch *f, unsigned n_others);

/* A blob of a repository, "host/name[:tag]" and its digest. Nothing is asked before the first range. Counted: it may be
 * closed with ranges under way, and after flip_fetch_free(). */
struct flip_blob;
int flip_blob_open(struct flip_fetch *f, const char *ref, const char *digest, uint64_t size,
                   struct flip_blob **ret_blob, struct err *err);
/* The same of a file that lies at addresses (http, https, s3) instead of in a repository: asked in their order, the
 * earlier ones left as soon as mirrors are. Credentials for them come from ~/.netrc of whoever runs this, or from
 * netrc_file; those of object stores from where fetch/s3.h says. */
int flip_blob_open_urls(struct flip_fetch *f, const char *const *urls, size_t n_urls, const char *digest, uint64_t size,
                        struct flip_blob **ret_blob, struct err *err);
/* Several blobs one behind the other as one, which takes them over on success. Ranges do not cross from one to the
 * next: all of one flip_blob_read() are of one part. Not for flip_blob_stream(). */
int flip_blob_join(struct flip_fetch *f, struct flip_blob **parts_take, size_t n, struct flip_blob **ret_blob,
                   struct err *err);
void flip_blob_close(struct flip_blob *b);
uint64_t flip_blob_size(const struct flip_blob *b);

struct flip_range {
	uint64_t offset, size;
};

/* Told on the fetching thread, so it must be short (hand over to a pool): r 0 and the bytes of range i, valid during
 * the call only; or a negative errno and why: -EACCES, -ENOENT, -EIO, -ETIMEDOUT, -ECANCELED, -ENETUNREACH. Once for
 * each range, in any order. */
typedef void (*flip_range_done)(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err);

/* Queues ranges (copied) of at most 16 MiB each, none of them empty; -ENOBUFS when a million wait. Returns a number for
 * flip_fetch_raise(), or a negative errno. */
int64_t flip_blob_read(struct flip_blob *b, const struct flip_range *ranges, size_t n, enum flip_priority priority,
                       flip_range_done done, void *arg, struct err *err);
/* A read is waiting for what was queued as prefetch: moves it to the front. Unknown numbers are ignored. */
void flip_fetch_raise(struct flip_fetch *f, int64_t number, enum flip_priority priority);
/* What is not under way yet ends with -ECANCELED, told on the fetching thread as all else. */
void flip_fetch_cancel(struct flip_fetch *f, int64_t number);

/* The same and wait. Not from a callback. */
int flip_blob_read_wait(struct flip_blob *b, uint64_t offset, size_t size, void *ret_data, enum flip_priority priority,
                        struct err *err);

/* A whole blob in order, by parallel ranges with a bounded window (2 * n_connections ranges): sink gets its bytes in
 * sequence on the calling thread; its digest is verified, -EBADMSG otherwise. For layers without table of contents. */
typedef int (*flip_sink)(void *arg, const void *data, size_t size, struct err *err);
int flip_blob_stream(struct flip_blob *b, enum flip_priority priority, flip_sink sink, void *arg, struct err *err);

/* Manifests, indexes, configurations: by tag or digest (verified; NULL: the reference's own), at most 8 MiB; *ret_data
 * 0-terminated, caller's. */
int flip_fetch_manifest(struct flip_fetch *f, const char *ref, const char *tag_or_digest, char **ret_data,
                        size_t *ret_size, char ret_digest[72], char ret_media_type[128], struct err *err);

/* Whether the registry itself (no mirror) gives a blob or manifest of this repository to whoever comes with
 * `authorization` ("Bearer ..."; NULL: to anybody). 0; -EACCES, -ENOENT: no; others: it could not be asked. Waits. */
int flip_fetch_may_pull(struct flip_fetch *f, const char *ref, const char *digest, bool is_manifest,
                        const char *authorization, struct err *err);
/* What we would come with ("Bearer ...", "Basic ..."), the caller's; NULL: the registry has not asked for any so far.
 */
char *flip_fetch_authorization(struct flip_fetch *f, const char *ref);

/* For a client that asks for a document at "s3://..." itself: the address, and what it comes with (fetch/s3.h). */
int flip_fetch_s3(struct flip_fetch *f, const char *url, char **ret_address, char *ret_lines[FLIP_S3_MAX_HEADERS + 1],
                  struct err *err);

struct flip_fetch_stat {
	uint64_t n_requests, n_retries, n_ranges;
	uint64_t wire_bytes; /* of bodies, gaps included */
	uint64_t gap_bytes;  /* fetched along and thrown away */
	uint64_t n_queued[FLIP_N_PRIORITIES], n_active[FLIP_N_PRIORITIES];
	uint32_t rtt_us; /* of the host asked last: time to the first byte beyond the connection; 0: not known */
	uint64_t rate;   /* bytes per second, of the last seconds of activity */
};
void flip_fetch_stat(struct flip_fetch *f, struct flip_fetch_stat *ret_stat);

#endif
