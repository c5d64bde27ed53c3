/* A container registry (OCI distribution specification 1.1): manifests and blobs of one repository, in and out.
 *
 * Blobs are streamed from and to files, checked against their digests on the way, continued by range after a broken
 * connection. What may pass (a refused connection, 408, 429, 5xx) is tried again with growing, jittered pauses. Tokens
 * and passwords come from docker's config.json and its credential helpers and never leave for another host.
 *
 * One struct serves one repository and may be used by several threads at once. */
#ifndef IMG_REGISTRY_H
#define IMG_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct img_registry_opts {
	const char *auth_file; /* NULL: $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json, ~/.docker/config.json,
	                        * $XDG_RUNTIME_DIR/containers/auth.json: the first that is there */
	bool insecure;         /* plain HTTP if need be, certificates not verified; loopback may speak HTTP anyway */
	unsigned n_retries;    /* 0: 5 */
	uint32_t retry_ms;     /* first pause, doubled each time, half of it random; 0: 500 */
	uint32_t stall_s;      /* no byte for so long ends an attempt; 0: 60 */
	int (*is_canceled)(void *arg); /* asked now and then, from any thread; non-zero ends all with -ECANCELED */
	void *is_canceled_arg;
	const char *ca_file; /* copied; NULL: the system's */
};

/* The parts of "HOST/NAME[:TAG][@DIGEST]"; docker's short forms mean docker.io. */
struct img_reference {
	char *host;   /* "ghcr.io", "localhost:5000"; for connecting */
	char *name;   /* "library/debian" */
	char *tag;    /* NULL with a digest; "latest" when nothing is said */
	char *digest; /* NULL */
};
int img_reference_parse(const char *text, struct img_reference *ret_ref, struct err *err);
void img_reference_done(struct img_reference *ref);

struct img_registry;

/* Finds out whether and how the registry speaks. `text` as for img_reference_parse(). */
int img_registry_open(const char *text, const struct img_registry_opts *o, struct img_registry **ret_registry,
                      struct err *err);
void img_registry_close(struct img_registry *r);
const struct img_reference *img_registry_reference(const struct img_registry *r);

/* Told of bytes as they pass; non-zero stops (-ECANCELED). Any thread. */
typedef int (*img_registry_progress)(uint64_t n_bytes, void *arg);

/* Errors: -EACCES (401, 403), -ENOENT (404), -EBUSY (429, after the retries), -EBADMSG (not what it should be), -EIO.
 */

/* By tag or digest (NULL: the reference's own). *ret_data is the caller's, 0-terminated; its digest is verified when it
 * was asked for by one. */
int img_registry_get_manifest(struct img_registry *r, const char *tag_or_digest, char **ret_data, size_t *ret_size,
                              char ret_digest[72], struct err *err);
/* Into a new file at `path`, which exists only when all is right. */
int img_registry_get_blob(struct img_registry *r, const char *digest, uint64_t size, const char *path,
                          img_registry_progress progress, void *arg, struct err *err);
int img_registry_has_blob(struct img_registry *r, const char *digest, struct err *err); /* 1, 0 */
/* `size` bytes of a file from its beginning; nothing is sent when the registry has them. */
int img_registry_put_blob(struct img_registry *r, int fd, uint64_t size, const char *digest,
                          img_registry_progress progress, void *arg, struct err *err);
int img_registry_put_manifest(struct img_registry *r, const char *tag_or_digest, const char *media_type,
                              const void *data, size_t size, struct err *err);

/* ---- For a client that moves the bytes itself: where a registry is and who we are to it ---- */

/* Asks nothing. `endpoint` ("https://host[:port]", "http://...") is a mirror that is spoken to in the registry's place;
 * NULL: the registry of the name. */
int img_registry_prepare(const char *text, const char *endpoint, const struct img_registry_opts *o,
                         struct img_registry **ret_registry, struct err *err);
/* "https://host"; NULL while it must be found out, by img_registry_find(), which blocks. */
const char *img_registry_base(const struct img_registry *r);
int img_registry_find(struct img_registry *r, struct err *err);
/* The value of an Authorization header ("Bearer ..."), the caller's, and its generation; NULL: none yet, or no memory.
 */
char *img_registry_authorization(struct img_registry *r, unsigned *ret_generation);
/* Answers a challenge (WWW-Authenticate): a new value, of a new generation. `seen` is the generation that was refused:
 * when another thread was faster nothing is asked. Blocks; may run a credential helper. */
int img_registry_authorize(struct img_registry *r, const char *challenge, unsigned seen, struct err *err);
/* Comes with this value of an Authorization header from now on, somebody else's. */
int img_registry_present(struct img_registry *r, const char *authorization, struct err *err);
/* Whether a blob or manifest would be given: 0, -EACCES, -ENOENT. Nothing is fetched. */
int img_registry_may_pull(struct img_registry *r, const char *digest, bool is_manifest, struct err *err);
bool img_is_loopback(const char *host); /* with or without a port */
/* The first message in the body of a refusal, as ": words"; "" when there is none. */
void img_registry_message(const void *body, size_t body_size, char *out, size_t size);
/* How long to wait before attempt + 1: first_ms doubled each time, half of it chance, so that many clients do not come
 * back at once; not less than what was asked for (Retry-After); a minute at most. */
uint32_t img_retry_pause_ms(uint32_t first_ms, unsigned attempt, uint32_t asked_s);

#endif
