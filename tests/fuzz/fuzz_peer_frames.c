/* An answer of a peer: the same frames come out however it is cut into pieces, never more bytes than were allowed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "peer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
	uint64_t n, bytes, mixed;
};

static int each(void *arg, const struct peer_frame *f, const void *data)
{
	struct sum *s = arg;
	uint8_t head[PEER_FRAME_SIZE];
	struct peer_frame again;

	peer_frame_write(f, head);
	if (peer_frame_parse(head, &again) < 0 || again.offset != f->offset || again.inner != f->inner ||
	    again.size != f->size || again.form != f->form)
		abort();
	s->n++;
	s->bytes += f->size;
	for (uint32_t i = 0; i < f->size; i++)
		s->mixed = s->mixed * 31 + ((const uint8_t *)data)[i];
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum { MAX = 100000 };
	struct peer_stream whole, cut;
	struct sum a = { 0 }, b = { 0 };
	int r, q = 0;

	peer_stream_init(&whole, MAX);
	peer_stream_init(&cut, MAX);
	r = peer_stream_take(&whole, data, size, each, &a);
	for (size_t i = 0, n; i < size && q == 0; i += n) {
		n = 1 + data[i] % 7;
		n = n < size - i ? n : size - i;
		q = peer_stream_take(&cut, data + i, n, each, &b);
	}
	if (r != q || a.n != b.n || a.mixed != b.mixed || a.bytes > MAX)
		abort();
	peer_stream_done(&whole);
	peer_stream_done(&cut);
	return 0;
}
