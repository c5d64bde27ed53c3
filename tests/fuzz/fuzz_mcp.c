/* MCP from both sides: the input's lines are messages to a server, and then an event stream in pieces. Whatever comes,
 * each answer is one line of JSON. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "mcp/mcp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_event(void *arg, const char *data, size_t len)
{
	size_t *total = arg;

	(void)data;
	*total += len;
	return 0;
}

static void check_answer(const struct base_buf *out)
{
	json_t *json = NULL;

	if (out->len == 0)
		return;
	if (out->data[out->len - 1] != '\n' || memchr(out->data, '\n', out->len - 1) ||
	    base_json_parse("answer", out->data, out->len - 1, &json, NULL) < 0)
		abort();
	json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* No knowledge base: kb_search fails by itself. */
	const struct ag_tools_context context = { .kb_path = "/nonexistent/kb.sqlite" };
	const char *s = (const char *)data, *end = s + size;
	struct base_buf out = BASE_BUF_INIT(64u << 20);
	struct ag_mcp_server *server = NULL;
	struct ag_mcp_sse sse;
	size_t total = 0;

	if (ag_mcp_server_new(&context, &server) < 0)
		return 0;
	while (s < end) {
		const char *newline = memchr(s, '\n', (size_t)(end - s)), *stop = newline ? newline : end;

		base_buf_reset(&out);
		if (ag_mcp_server_handle(server, s, (size_t)(stop - s), &out) == 0)
			check_answer(&out);
		s = newline ? newline + 1 : end;
	}
	ag_mcp_server_free(server);
	base_buf_done(&out);

	ag_mcp_sse_init(&sse);
	for (size_t i = 0; i < size; i += 7)
		(void)ag_mcp_sse_feed(&sse, (const char *)data + i, size - i < 7 ? size - i : 7, on_event, &total);
	if (total > size)
		abort();
	ag_mcp_sse_done(&sse);
	return 0;
}
