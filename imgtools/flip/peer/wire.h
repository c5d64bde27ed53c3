/* What is said between members, as bytes (docs/formats/peer-protocol.md): frames of an answer, ranges of a question,
 * lists of holders. Everything here comes from outside and is refused with -EBADMSG when it is not what it should be.
 */
#ifndef FLIP_PEER_WIRE_H
#define FLIP_PEER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "fetch/fetch.h"
#include "peer/peer.h"

/* Numbers of n bytes, the lowest first. */
static inline void peer_put_le(uint8_t *out, uint64_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		out[i] = (uint8_t)(v >> 8 * i);
}

static inline uint64_t peer_get_le(const uint8_t *in, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)in[i] << 8 * i;
	return v;
}

enum { PEER_FRAME_SIZE = 24 };

enum peer_frame_form {
	PEER_FRAME_PACKED = 1,  /* as the origin has it */
	PEER_FRAME_PLAIN = 2,   /* a chunk's bytes */
	PEER_FRAME_ZSTD = 3,    /* a chunk's bytes, in one zstd frame that tells its size */
	PEER_FRAME_MISSING = 4, /* not here, and it will not come */
	PEER_FRAME_WAITING = 5, /* nothing to say yet, still here */
	PEER_FRAME_END = 6,     /* that was all; an answer that ends without it was cut */
};

struct peer_frame {
	enum peer_frame_form form;
	uint32_t size; /* of what follows */
	uint64_t offset, inner;
};

void peer_frame_write(const struct peer_frame *f, uint8_t out[PEER_FRAME_SIZE]);
int peer_frame_parse(const uint8_t in[PEER_FRAME_SIZE], struct peer_frame *ret_frame);

/* Frames out of a stream that comes in pieces of any size. */
struct peer_stream {
	uint8_t head[PEER_FRAME_SIZE];
	size_t n_head;
	struct peer_frame frame;
	uint8_t *data; /* of the frame at hand */
	size_t n_data, cap;
	bool has_ended;
	uint64_t max; /* bytes that frames may bring in all: what was asked for says how much that can be */
};
typedef int (*peer_frame_fn)(void *arg, const struct peer_frame *frame, const void *data);
void peer_stream_init(struct peer_stream *s, uint64_t max);
void peer_stream_done(struct peer_stream *s);
/* -EBADMSG, -ENOMEM, or what `each` returned when it was not 0. */
int peer_stream_take(struct peer_stream *s, const void *data, size_t size, peer_frame_fn each, void *arg);

/* "bytes=0-99,200-299": in order, not touching one another, at most `max`; the ends of ranges lie within `limit` bytes
 * in all. */
int peer_ranges_parse(const char *text, struct flip_range *ranges, size_t max, uint64_t limit, size_t *ret_n);
int peer_ranges_write(const struct flip_range *ranges, size_t n, struct base_buf *buf);

/* "host:port", "[v6]:port": what may be in a URL and a header. */
bool peer_name_is_valid(const char *name);
/* The next of "a:1,b:2" (spaces are passed over) into `ret`: 1, 0 at the end, -EBADMSG. *p moves on. */
int peer_name_next(const char **p, char ret[FLIP_PEER_NAME]);
bool peer_digest_is_valid(const char *digest);

#endif
