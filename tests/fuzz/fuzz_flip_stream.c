/* Compressed streams. The first byte says in what pieces they come and are asked for. However it is cut, the same bytes
 * come out before the same end, and no more was taken from the source than there is. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "stream/decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_OUT = 1 << 20 }; /* a few bytes can be gigabytes */

struct input {
	const uint8_t *data;
	size_t size, at, step;
};

static ssize_t from_input(void *arg, void *buf, size_t size, struct err *err)
{
	struct input *in = arg;
	size_t n = in->size - in->at;

	(void)err;
	n = n < size ? n : size;
	n = n < in->step ? n : in->step;
	if (n)
		memcpy(buf, in->data + in->at, n);
	in->at += n;
	return (ssize_t)n;
}

/* Returns how many bytes came; *ret_last what the last call said. */
static size_t decode(const uint8_t *data, size_t size, size_t in_step, size_t out_step, uint8_t *out, ssize_t *ret_last)
{
	struct input in = { data, size, 0, in_step };
	struct flip_decoder *d;
	size_t n = 0;

	*ret_last = flip_decoder_new(from_input, &in, &d, NULL);
	if (*ret_last < 0)
		return 0;
	for (*ret_last = 1; *ret_last > 0 && n<MAX_OUT; n += *ret_last> 0 ? (size_t)*ret_last : 0) {
		size_t room = MAX_OUT - n < out_step ? MAX_OUT - n : out_step;

		*ret_last = flip_decoder_read(d, out + n, room, NULL);
		if (*ret_last > (ssize_t)room ||
		    (*ret_last < 0 && *ret_last != -EBADMSG && *ret_last != -EFBIG && *ret_last != -ENOMEM))
			abort();
	}
	if (flip_decoder_consumed(d) != in.at)
		abort();
	flip_decoder_free(d);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t whole[MAX_OUT], pieces[MAX_OUT];
	ssize_t last_whole, last_pieces;
	size_t n_whole, n_pieces;

	if (size == 0)
		return 0;
	n_whole = decode(data + 1, size - 1, SIZE_MAX, MAX_OUT, whole, &last_whole);
	n_pieces = decode(data + 1, size - 1, 1 + (data[0] & 15u), 1 + 37u * (data[0] >> 4), pieces, &last_pieces);
	/* Where the stream is damaged, how much came before may differ; not what it was. */
	if (memcmp(whole, pieces, n_whole < n_pieces ? n_whole : n_pieces) != 0)
		abort();
	if (last_whole >= 0 && last_pieces >= 0 && n_whole != n_pieces)
		abort();
	if (n_whole < MAX_OUT && n_pieces < MAX_OUT && (last_whole == 0) != (last_pieces == 0))
		abort();
	return 0;
}
