/* What a model says as events of a stream: the first byte cuts the text into pieces, each becomes an event. The agent's
 * reader must find as many events, however the bytes arrive, and joined the text again, its broken characters replaced.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "http_internal.h"
#include "sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	struct base_buf text;
	size_t n;
};

static int on_event(void *arg, const char *data, size_t len)
{
	struct seen *seen = arg;
	json_t *v = json_loadb(data, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

	if (!json_is_string(v))
		abort();
	(void)base_buf_append(&seen->text, json_string_value(v), json_string_length(v));
	json_decref(v);
	seen->n++;
	return 0;
}

static void read_back(const struct base_buf *stream, size_t step, struct seen *seen)
{
	struct ag_sse s;

	*seen = (struct seen){ BASE_BUF_INIT(8 << 20), 0 };
	ag_sse_init(&s, 8 << 20);
	for (size_t i = 0; i < stream->len; i += step) {
		if (ag_sse_feed(&s, stream->data + i, stream->len - i < step ? stream->len - i : step, on_event, seen) <
		    0)
			abort();
	}
	ag_sse_done(&s);
}

/* What of the pieces must come out: each of them as JSON has it. */
static size_t write_events(const uint8_t *data, size_t size, size_t piece, struct base_buf *stream,
                           struct base_buf *text)
{
	struct base_buf json = BASE_BUF_INIT(8 << 20);
	size_t n = 0;

	for (size_t i = 0; i < size; i += piece, n++) {
		json_t *v;

		base_buf_reset(&json);
		(void)base_json_append_string(&json, (const char *)data + i, size - i < piece ? size - i : piece);
		http_event(n % 2 ? "delta" : NULL, &json, stream);
		v = json_loadb(base_buf_text(&json), json.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		if (!v)
			abort();
		(void)base_buf_append(text, json_string_value(v), json_string_length(v));
		json_decref(v);
	}
	base_buf_done(&json);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf stream = BASE_BUF_INIT(8 << 20), text = BASE_BUF_INIT(8 << 20);
	struct seen whole, pieces;
	size_t n;

	if (size < 2)
		return 0;
	n = write_events(data + 1, size - 1, 1 + data[0] % 64, &stream, &text);
	read_back(&stream, stream.len, &whole);
	read_back(&stream, 1 + data[0] / 16, &pieces);
	if (whole.n != n || pieces.n != n || whole.text.len != text.len || pieces.text.len != text.len ||
	    memcmp(base_buf_text(&whole.text), base_buf_text(&text), text.len) != 0 ||
	    memcmp(base_buf_text(&pieces.text), base_buf_text(&text), text.len) != 0)
		abort();
	base_buf_done(&whole.text);
	base_buf_done(&pieces.text);
	base_buf_done(&stream);
	base_buf_done(&text);
	return 0;
}
