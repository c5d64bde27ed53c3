/* Answers on their way out: the first byte picks the protocol and whether it is a stream, the rest is what a model
 * says (parrot.h). Whatever that is, a stream is made of events whose data is JSON, and a reply is JSON. */
#include <stdlib.h>
#include <string.h>

#include "engine/parrot.h"
#include "http_internal.h"
#include "store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct route anthropic = { "/v1/messages", "POST", handle_messages, ROUTE_ANTHROPIC };

static void (*const handlers[])(struct exchange *x) = { handle_chat, handle_completion, handle_generate,
	                                                handle_messages, handle_responses };

static struct eng_http http;

static void set_up(void)
{
	if (http.engine)
		return;
	http.config.stream_buffer_bytes = 64 << 20;
	http.epoll_fd = http.wake_fd = -1;
	http.tool_format = "hermes";
	http.reasoning_format = "think";
	http.store = http_store_new(4, 1 << 20);
	(void)pthread_mutex_init(&http.lock, NULL);
	if (!http.store || eng_engine_open(NULL, &http.engine, NULL) < 0)
		abort();
}

static void make_body(const uint8_t *data, size_t size, unsigned kind, bool stream, struct base_buf *out)
{
	static const char *const begins[] = { "{\"messages\":[{\"role\":\"user\",\"content\":", "{\"prompt\":",
		                              "{\"text\":", "{\"messages\":[{\"role\":\"user\",\"content\":",
		                              "{\"input\":" };
	static const char *const ends[] = {
		"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"logprobs\":true",
		",\"logprobs\":1", "", "}],\"tools\":[{\"name\":\"f\",\"input_schema\":{}}]",
		",\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]"
	};
	struct base_buf text = BASE_BUF_INIT(1 << 20);

	(void)base_buf_puts(&text, "SAY:");
	(void)base_buf_append(&text, data, size);
	(void)base_buf_puts(out, begins[kind]);
	(void)base_json_append_string(out, text.data, text.len);
	(void)base_buf_printf(out, "%s,\"stream\":%s}", ends[kind], stream ? "true" : "false");
	base_buf_done(&text);
}

static void check_json(const char *text, size_t len)
{
	json_t *v = json_loadb(text, len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);

	if (!v)
		abort();
	json_decref(v);
}

static void check_line(const char *line, size_t len)
{
	if (len == 0 || line[0] == ':' || (len > 7 && memcmp(line, "event: ", 7) == 0))
		return;
	if (len < 7 || memcmp(line, "data: ", 6) != 0)
		abort();
	if (len != 12 || memcmp(line, "data: [DONE]", 12) != 0)
		check_json(line + 6, len - 6);
}

static void check_stream(const struct base_buf *out)
{
	const char *at = base_buf_text(out), *end = at + out->len;

	if (out->len < 2 || end[-1] != '\n' || end[-2] != '\n')
		abort();
	while (at < end) {
		const char *line = memchr(at, '\n', (size_t)(end - at));

		check_line(at, (size_t)(line - at));
		at = line + 1;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct exchange *x;
	unsigned kind;
	bool stream;

	if (size < 1 || size > 4096)
		return 0;
	set_up();
	kind = (data[0] & 0x7fu) % 5;
	stream = data[0] & 0x80;
	x = calloc(1, sizeof(*x));
	if (!x)
		return 0;
	x->http = &http;
	atomic_init(&x->refs, 1);
	(void)pthread_mutex_init(&x->lock, NULL);
	base_buf_init(&x->body, 1 << 20);
	base_buf_init(&x->out, HTTP_MAX_RESPONSE);
	x->route = kind == 3 ? &anthropic : NULL;
	make_body(data + 1, size - 1, kind, stream, &x->body);
	handlers[kind](x);
	eng_engine_drain(http.engine, 0);
	if (!x->is_ready)
		abort();
	if (x->is_stream)
		check_stream(&x->out);
	else
		check_json(base_buf_text(&x->out), x->out.len);
	exchange_unref(x);
	return 0;
}
