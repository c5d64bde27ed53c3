/* What is said on a fabric (libfabric), as bytes (docs/formats/peer-protocol.md): messages of at most 4 KiB, each with
 * a number and, once both sides have shown that they know the cluster's secret, a MAC. Everything here comes from
 * outside and is refused with -EBADMSG when it is not what it should be. Nothing of libfabric is needed for it. */
#ifndef FLIP_PEER_FABRIC_WIRE_H
#define FLIP_PEER_FABRIC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "peer/auth.h"
#include "peer/transport.h"

enum {
	PEER_MESSAGE_MAX = 4096,
	PEER_MESSAGE_HEAD = 24,
	PEER_MESSAGE_BODY = PEER_MESSAGE_MAX - PEER_MESSAGE_HEAD,
	PEER_MESSAGE_INLINE = PEER_MESSAGE_BODY - 4, /* bytes of an answer that fit into a message */
	PEER_MESSAGE_PART = PEER_MESSAGE_BODY - 12,  /* of a question */
	PEER_MAX_QUESTION = 80 << 10,                /* of all its parts */
	PEER_NONCE = 32,
	PEER_SLOT_MIN = 4 << 10, /* bytes of a place that the asker offers for what it asks */
	PEER_SLOT_MAX = 4 << 20,
	PEER_SLOTS_MAX = 64,
};

enum peer_message_type {
	PEER_MSG_HELLO = 1,    /* the asked one's nonce */
	PEER_MSG_JOIN = 2,     /* the asker's nonce, its proof, where its slots are */
	PEER_MSG_WELCOME = 3,  /* the asked one's proof */
	PEER_MSG_REFUSE = 4,   /* why there will be no answer */
	PEER_MSG_QUESTION = 5, /* a part of a question */
	PEER_MSG_HEAD = 6,     /* of an answer */
	PEER_MSG_DATA = 7,     /* so many bytes were written to the next slot */
	PEER_MSG_INLINE = 8,   /* the bytes themselves; the next slot stays unused */
	PEER_MSG_TAKEN = 9,    /* the asker has done with the oldest slot */
	PEER_MSG_END = 10,     /* of an answer */
};

/* Pointers are into what was parsed. */
struct peer_message {
	enum peer_message_type type;
	const uint8_t *nonce, *proof; /* HELLO, JOIN: PEER_NONCE; JOIN, WELCOME: PEER_NONCE */
	uint64_t key, base;           /* JOIN: of the slots, for remote writes */
	uint32_t slot_size, n_slots;  /* JOIN */
	uint32_t question;            /* QUESTION and what is behind it: the number of the question */
	uint32_t total, at;           /* QUESTION: bytes of all parts; the place of this one */
	uint32_t slot;                /* DATA */
	uint32_t size;                /* DATA: bytes in the slot; REFUSE, QUESTION, INLINE: of data */
	const uint8_t *data;          /* REFUSE, QUESTION, INLINE; may be given to the writer, too */
	bool was_cut;                 /* END */
	const struct peer_head *head; /* HEAD, to write */
};

/* What one side seals its messages with, and the other side opens them with. */
struct peer_seal {
	uint8_t key[32];
	bool is_on;
	uint32_t number; /* of the next message */
};

/* The keys of both directions and both proofs, of the secret and both nonces; `join` is the JOIN message's slots. */
struct peer_session {
	uint8_t of_asker[32], of_asked[32]; /* keys */
	uint8_t join_proof[PEER_NONCE], welcome_proof[PEER_NONCE];
};
int peer_session_make(const struct peer_token *t, const uint8_t asked_nonce[PEER_NONCE],
                      const uint8_t asker_nonce[PEER_NONCE], const struct peer_message *join, struct peer_session *ret);
bool peer_proof_is(const uint8_t a[PEER_NONCE], const uint8_t b[PEER_NONCE]); /* in constant time */

/* The message's bytes, numbered and sealed: their count, or -EINVAL when the data is too large. */
int peer_message_write(const struct peer_message *m, struct peer_seal *seal, uint8_t out[PEER_MESSAGE_MAX]);
/* -EBADMSG; -EACCES: the MAC is not right. ret_head (may be NULL) is filled from HEAD. */
int peer_message_parse(const uint8_t *in, size_t size, struct peer_seal *seal, struct peer_message *ret,
                       struct peer_head *ret_head);

/* ---- Questions ---- */

enum { PEER_N_FIELDS = 11 };
/* A question's path and headers; what is missing is "". */
struct peer_fields {
	char *text; /* the caller's to free, by peer_fields_done() */
	const char *value[PEER_N_FIELDS];
};
/* -EINVAL: a header that has no field here. -E2BIG. */
int peer_fields_write(const char *path, const char *const *headers, struct base_buf *buf);
int peer_fields_parse(const void *data, size_t size, struct peer_fields *ret);
void peer_fields_done(struct peer_fields *f);
const char *peer_fields_path(const struct peer_fields *f);
const char *peer_fields_header(const struct peer_fields *f, const char *name); /* "" when there is none */

#endif
