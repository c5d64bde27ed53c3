/* Tool calls in what a model or a server writes. The first byte chooses: marked blocks in text, whose rest and calls
 * must not depend on how the text was cut; or an array of pieces, which give calls that are JSON or an error. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "calls.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_text(void *arg, const char *text, size_t len)
{
	return base_buf_append(arg, text, len);
}

/* The text that is left, then the calls, in out; the result. */
static int take_text(const char *text, size_t len, size_t step, struct base_buf *out)
{
	struct ag_calls calls;
	struct ag_call_filter filter;
	json_t *json = NULL;
	int r = 0;

	ag_calls_init(&calls);
	ag_call_filter_init(&filter, &calls, on_text, out, NULL);
	for (size_t i = 0; i < len && r == 0; i += step)
		r = ag_call_filter_text(&filter, text + i, len - i < step ? len - i : step);
	if (r == 0)
		r = ag_call_filter_finish(&filter);
	/* Text is UTF-8 when it comes from a server: others give no calls here. */
	if (r == 0 && ag_calls_take(&calls, &json) == 0 && json)
		(void)base_json_append(out, json);
	json_decref(json);
	ag_call_filter_done(&filter);
	ag_calls_done(&calls);
	return r;
}

static void fuzz_text(const char *text, size_t len, size_t step)
{
	struct base_buf whole = BASE_BUF_INIT(8 << 20), pieces = BASE_BUF_INIT(8 << 20);
	int a = take_text(text, len, len ? len : 1, &whole), b = take_text(text, len, step, &pieces);

	if (a != b || whole.len != pieces.len || memcmp(base_buf_text(&whole), base_buf_text(&pieces), whole.len) != 0)
		abort();
	base_buf_done(&whole);
	base_buf_done(&pieces);
}

static void fuzz_pieces(const char *text, size_t len)
{
	struct ag_calls calls;
	json_t *deltas = NULL, *delta, *json = NULL;
	size_t i;
	int r = 0;

	if (base_json_parse("deltas", text, len, &deltas, NULL) < 0)
		return;
	ag_calls_init(&calls);
	json_array_foreach(deltas, i, delta)
	{
		if (r == 0)
			r = ag_calls_add(&calls, delta, NULL);
	}
	if (ag_calls_take(&calls, &json) < 0 || json_array_size(json) != calls.n)
		abort();
	json_array_foreach(json, i, delta)
	{
		if (!json_is_string(json_object_get(json_object_get(delta, "function"), "arguments")) ||
		    json_string_length(json_object_get(delta, "id")) == 0)
			abort();
	}
	json_decref(json);
	ag_calls_done(&calls);
	json_decref(deltas);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 0x80)
		fuzz_pieces((const char *)data + 1, size - 1);
	else
		fuzz_text((const char *)data + 1, size - 1, 1 + data[0] % 17);
	return 0;
}
