/* Answers of models: the first byte picks the formats, the second how the rest is cut. Whatever a model writes, any
 * way of cutting it tells the same, calls are numbered, arguments are JSON, and text stays whole characters. */
#include <stdlib.h>
#include <string.h>

#include "engine/chat_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const struct base_buf *a, const struct base_buf *b)
{
	return a->len == b->len && memcmp(base_buf_text(a), base_buf_text(b), a->len) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eng_chat_parser_config c = { 0 };
	struct told whole, cut;
	size_t n_tools = 0, n_reasoning = 0;

	if (size < 2)
		return 0;
	while (eng_chat_tool_format(n_tools))
		n_tools++;
	while (eng_chat_reasoning_format(n_reasoning))
		n_reasoning++;
	/* Names that are beyond the last: none. */
	if (data[0] % 32 < n_tools)
		c.tool_format = eng_chat_tool_format(data[0] % 32);
	if (data[0] / 32 < n_reasoning)
		c.reasoning_format = eng_chat_reasoning_format(data[0] / 32);
	c.max_calls = data[1] % 4;
	tell_all(&c, (const char *)data + 2, size - 2, 0, &whole);
	tell_all(&c, (const char *)data + 2, size - 2, 2u + data[1], &cut);
	if (!same(&whole.text, &cut.text) || !same(&whole.reasoning, &cut.reasoning) || !same(&whole.calls, &cut.calls))
		abort();
	if (is_utf8((const char *)data + 2, size - 2) && (whole.is_bad || cut.is_bad))
		abort();
	if (c.max_calls > 0 && whole.n_calls > c.max_calls)
		abort();
	told_done(&whole);
	told_done(&cut);
	return 0;
}
