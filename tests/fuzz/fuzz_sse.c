/* Events do not depend on how the bytes were cut into pieces: the first byte of the input says how. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	struct base_buf text;
	size_t n;
};

static int on_event(void *arg, const char *data, size_t len)
{
	struct seen *seen = arg;

	seen->n++;
	(void)base_buf_append(&seen->text, data, len);
	(void)base_buf_putc(&seen->text, '\0');
	return seen->n == 1000;
}

static int parse(struct seen *seen, const char *bytes, size_t size, size_t step)
{
	struct ag_sse s;
	int r = 0;

	*seen = (struct seen){ BASE_BUF_INIT(1 << 20), 0 };
	ag_sse_init(&s, 512);
	for (size_t i = 0; i < size && r == 0; i += step)
		r = ag_sse_feed(&s, bytes + i, size - i < step ? size - i : step, on_event, seen);
	ag_sse_done(&s);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole, pieces;
	int a, b;

	if (size == 0)
		return 0;
	a = parse(&whole, (const char *)data + 1, size - 1, size);
	b = parse(&pieces, (const char *)data + 1, size - 1, 1 + data[0] % 17);
	if (a != b || whole.n != pieces.n || whole.text.len != pieces.text.len ||
	    memcmp(base_buf_text(&whole.text), base_buf_text(&pieces.text), whole.text.len) != 0)
		abort();
	base_buf_done(&whole.text);
	base_buf_done(&pieces.text);
	return 0;
}
