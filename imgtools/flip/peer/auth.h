/* Whether a question comes from a member of the cluster: a secret that all of them share, which is never sent. Each
 * question carries a time, a number used once and the HMAC-SHA256 over them and all that the question says:
 *
 *   Flip-Auth: 1 SECONDS NONCE HMAC      (docs/formats/peer-protocol.md)
 *
 * A question that somebody recorded is good for a minute, for the same answer. With mutual TLS certificates say who
 * asks, and the secret may be left out. */
#ifndef FLIP_PEER_AUTH_H
#define FLIP_PEER_AUTH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { PEER_AUTH_SIZE = 160, PEER_TOKEN_MIN = 16, PEER_TOKEN_MAX = 4096, PEER_AUTH_WINDOW_S = 60, PEER_N_SIGNED = 8 };

struct peer_token;

/* A file that only its owner reads, of 16 bytes or more; white space at its end is not part of it. -EACCES: others may
 * read it. */
int peer_token_load(const char *path, struct peer_token **ret_token, struct err *err);
void peer_token_free(struct peer_token *t);

/* `parts` (up to PEER_N_SIGNED texts) is what is signed; `now_s` the time. */
int peer_auth_sign(const struct peer_token *t, const char *const *parts, size_t n, int64_t now_s,
                   char ret[PEER_AUTH_SIZE]);
/* 0 or -EACCES; in constant time as far as the secret goes. */
int peer_auth_check(const struct peer_token *t, const char *value, const char *const *parts, size_t n, int64_t now_s);
/* HMAC of any text for other proofs, as hexadecimal. */
int peer_token_hmac(const struct peer_token *t, const char *const *parts, size_t n, char ret_hex[65]);

#endif
