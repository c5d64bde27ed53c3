/* Tool calls, reasoning, and the protocols for chat, over an engine that says what it is told to (parrot.h): what is
 * streamed, joined, is what is answered whole. */
#include <sys/stat.h>

#include "http_test.h"

#include "parrot.h"

static struct served server;

static int start_server(void **state)
{
	(void)state;
	serve_with(&server, &(struct eng_options){ 0 }, (struct eng_http_config){ 0 });
	return 0;
}

static int stop_server(void **state)
{
	(void)state;
	serve_end(&server);
	return 0;
}

#define TOOLS                                                                                                \
	"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":" \
	"\"object\","                                                                                        \
	"\"properties\":{\"city\":{\"type\":\"string\"}}}}},{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]"
#define TWO_CALLS                                                                                                \
	"<think>\\nhm \xe5\xa5\xbd\\n</think>\\n\\nI look.\\n<tool_call>\\n{\\\"name\\\": \\\"get_weather\\\", " \
	"\\\"arguments\\\": "                                                                                    \
	"{\\\"city\\\": \\\"\xe5\x8c\x97\xe4\xba\xac\\\"}}\\n</tool_call>\\n<tool_call>\\n{\\\"name\\\": "       \
	"\\\"now\\\", "                                                                                          \
	"\\\"arguments\\\": {}}\\n</tool_call>"

/* ---- Streams ---- */

/* The data lines of a body, parsed; "event: x" lines are checked against the type inside. */
static json_t *events_of(const char *body, bool *ret_done)
{
	json_t *events = json_array();
	char *copy = strdup(body), *save = NULL, name[128] = "";

	*ret_done = false;
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (line[0] == ':')
			continue;
		if (strncmp(line, "event: ", 7) == 0) {
			(void)snprintf(name, sizeof(name), "%s", line + 7);
		} else if (strcmp(line, "data: [DONE]") == 0) {
			*ret_done = true;
		} else {
			json_t *v;

			assert_memory_equal(line, "data: ", 6);
			v = json_loads(line + 6, JSON_REJECT_DUPLICATES, NULL);
			assert_non_null(v);
			if (name[0])
				assert_string_equal(str_at(v, "type"), name);
			(void)json_array_append_new(events, v);
		}
	}
	free(copy);
	return events;
}

static json_t *ask_events(const char *path, const char *body, bool *ret_done)
{
	struct answer a;
	json_t *events;

	ask(&server, path, body, &a);
	if (a.status != 200)
		fail_msg("%ld: %s", a.status, a.text);
	assert_non_null(strstr(a.type, "text/event-stream"));
	events = events_of(a.text, ret_done);
	answer_done(&a);
	return events;
}

static void join(struct base_buf *b, const json_t *text)
{
	(void)base_buf_append(b, json_string_value(text), json_string_length(text));
}

/* ---- OpenAI: chat ---- */

static void calls_and_reasoning_are_fields_of_their_own(void **state)
{
	struct answer a;

	(void)state;
	ask_ok(&server, "/v1/chat/completions",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"SAY:" TWO_CALLS "\"}]," TOOLS "}", &a);
	assert_string_equal(str_at(a.json, "choices.0.message.content"), "I look.");
	assert_string_equal(str_at(a.json, "choices.0.message.reasoning_content"), "hm \xe5\xa5\xbd");
	assert_int_equal(json_array_size(at(a.json, "choices.0.message.tool_calls")), 2);
	assert_string_equal(str_at(a.json, "choices.0.message.tool_calls.0.function.name"), "get_weather");
	assert_string_equal(str_at(a.json, "choices.0.message.tool_calls.0.function.arguments"),
	                    "{\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}");
	assert_string_equal(str_at(a.json, "choices.0.message.tool_calls.0.type"), "function");
	assert_memory_equal(str_at(a.json, "choices.0.message.tool_calls.1.id"), "call_", 5);
	assert_string_not_equal(str_at(a.json, "choices.0.message.tool_calls.0.id"),
	                        str_at(a.json, "choices.0.message.tool_calls.1.id"));
	assert_string_equal(str_at(a.json, "choices.0.finish_reason"), "tool_calls");
	assert_true(int_at(a.json, "usage.completion_tokens_details.reasoning_tokens") > 0);
	answer_done(&a);
}

static void a_stream_of_calls_keeps_the_rules(void **state)
{
	struct base_buf text = BASE_BUF_INIT(1 << 20), thought = BASE_BUF_INIT(1 << 20), args[2];
	json_t *events, *ev;
	size_t i, n_named = 0, n_finish = 0, n_role = 0;
	bool is_done;

	(void)state;
	base_buf_init(&args[0], 1 << 20);
	base_buf_init(&args[1], 1 << 20);
	events = ask_events("/v1/chat/completions",
	                    "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"SAY:" TWO_CALLS
	                    "\"}]," TOOLS "}",
	                    &is_done);
	assert_true(is_done);
	json_array_foreach(events, i, ev)
	{
		json_t *delta = at(ev, "choices.0.delta"), *call = at(delta, "tool_calls.0"), *f = at(call, "function");
		long long k = int_at(call, "index");

		assert_int_equal(n_finish, 0);
		n_role += at(delta, "role") != NULL;
		n_finish += json_is_string(at(ev, "choices.0.finish_reason"));
		join(&text, at(delta, "content"));
		join(&thought, at(delta, "reasoning_content"));
		if (!call)
			continue;
		assert_in_range(k, 0, 1);
		assert_null(at(f, "id"));
		if (at(call, "id")) { /* the first of its call */
			assert_int_equal(k, n_named++);
			assert_string_equal(str_at(call, "type"), "function");
			assert_true(json_string_length(at(f, "name")) > 0);
		} else {
			assert_int_equal(k, n_named - 1);
			assert_null(at(f, "name"));
		}
		join(&args[k], at(f, "arguments"));
	}
	assert_int_equal(n_role, 1);
	assert_int_equal(n_named, 2);
	assert_int_equal(n_finish, 1);
	assert_string_equal(str_at(json_array_get(events, i - 1), "choices.0.finish_reason"), "tool_calls");
	assert_string_equal(base_buf_text(&text), "I look.");
	assert_string_equal(base_buf_text(&thought), "hm \xe5\xa5\xbd");
	assert_string_equal(base_buf_text(&args[0]), "{\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}");
	assert_string_equal(base_buf_text(&args[1]), "{}");
	json_decref(events);
	base_buf_done(&text);
	base_buf_done(&thought);
	base_buf_done(&args[0]);
	base_buf_done(&args[1]);
}

static void the_client_decides_about_calls_and_reasoning(void **state)
{
	static const char *const raw = "<think>\nhm \xe5\xa5\xbd\n</think>\n\nI look.\n<tool_call>";
	struct answer a;

	(void)state;
	/* No tools: what looks like a call is text. */
	ask_ok(&server, "/v1/chat/completions",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"SAY:" TWO_CALLS "\"}]}", &a);
	assert_null(at(a.json, "choices.0.message.tool_calls"));
	assert_non_null(strstr(str_at(a.json, "choices.0.message.content"), "<tool_call>"));
	assert_string_equal(str_at(a.json, "choices.0.finish_reason"), "stop");
	answer_done(&a);
	ask_ok(&server, "/v1/chat/completions",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"SAY:" TWO_CALLS "\"}],\"tool_choice\":\"none\"," TOOLS
	       "}",
	       &a);
	assert_null(at(a.json, "choices.0.message.tool_calls"));
	answer_done(&a);
	ask_ok(&server, "/v1/chat/completions",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"SAY:" TWO_CALLS "\"}],\"separate_reasoning\":false}",
	       &a);
	assert_memory_equal(str_at(a.json, "choices.0.message.content"), raw, strlen(raw));
	assert_null(at(a.json, "choices.0.message.reasoning_content"));
	answer_done(&a);
	/* One call at most: the rest is not even computed. */
	ask_ok(&server, "/v1/chat/completions",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"SLOW:SAY:" TWO_CALLS
	       "\"}],\"parallel_tool_calls\":false," TOOLS "}",
	       &a);
	assert_int_equal(json_array_size(at(a.json, "choices.0.message.tool_calls")), 1);
	assert_string_equal(str_at(a.json, "choices.0.finish_reason"), "tool_calls");
	answer_done(&a);
}

static void a_forced_call_is_constrained(void **state)
{
	static const char *const choices[] = { "\"required\"",
		                               "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}" };
	struct answer a;
	char body[2048];

	(void)state;
	for (int i = 0; i < 2; i++) {
		(void)snprintf(body, sizeof(body),
		               "{\"messages\":[{\"role\":\"user\",\"content\":\"CALL:[{\\\"name\\\":\\\"now\\\","
		               "\\\"arguments\\\":"
		               "{}}]\"}],\"tool_choice\":%s," TOOLS "}",
		               choices[i]);
		ask_ok(&server, "/v1/chat/completions", body, &a);
		assert_true(json_is_null(at(a.json, "choices.0.message.content")));
		assert_string_equal(str_at(a.json, "choices.0.message.tool_calls.0.function.name"), "now");
		assert_string_equal(str_at(a.json, "choices.0.finish_reason"), "tool_calls");
		answer_done(&a);
	}
	ask(&server, "/v1/chat/completions",
	    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":{\"type\":\"function\",\"function\":"
	    "{"
	    "\"name\":\"nope\"}}," TOOLS "}",
	    &a);
	assert_int_equal(a.status, 400);
	assert_string_equal(str_at(a.json, "error.param"), "tool_choice");
	answer_done(&a);
}

static void logprobs_come_with_their_text(void **state)
{
	struct answer a;
	json_t *events, *ev;
	size_t i, n = 0;
	bool is_done;

	(void)state;
	ask_ok(&server, "/v1/chat/completions",
	       "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"logprobs\":true,\"top_logprobs\":2}", &a);
	events = ask_events(
	        "/v1/chat/completions",
	        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"logprobs\":true,\"top_logprobs\":2,"
	        "\"stream\":true}",
	        &is_done);
	json_array_foreach(events, i, ev) n += json_array_size(at(ev, "choices.0.logprobs.content"));
	assert_true(n > 0);
	assert_int_equal(json_array_size(at(a.json, "choices.0.logprobs.content.0.top_logprobs")), 2);
	answer_done(&a);
	json_decref(events);
}

/* ---- Anthropic ---- */

#define ANTHROPIC_TOOLS                                                                                           \
	"\"tools\":[{\"name\":\"get_weather\",\"input_schema\":{\"type\":\"object\"}},{\"name\":\"now\",\"input_" \
	"schema\":{}}]"

static void messages_are_blocks(void **state)
{
	struct answer a;

	(void)state;
	ask_ok(&server, "/v1/messages",
	       "{\"model\":\"m\",\"max_tokens\":1000,\"system\":[{\"type\":\"text\",\"text\":\"Be "
	       "brief.\"}],\"messages\":[{"
	       "\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"SAY:" TWO_CALLS "\"}]}]," ANTHROPIC_TOOLS
	       "}",
	       &a);
	assert_string_equal(str_at(a.json, "type"), "message");
	assert_string_equal(str_at(a.json, "role"), "assistant");
	assert_int_equal(json_array_size(at(a.json, "content")), 4);
	assert_string_equal(str_at(a.json, "content.0.thinking"), "hm \xe5\xa5\xbd");
	assert_string_equal(str_at(a.json, "content.1.text"), "I look.");
	assert_string_equal(str_at(a.json, "content.2.type"), "tool_use");
	assert_string_equal(str_at(a.json, "content.2.input.city"), "\xe5\x8c\x97\xe4\xba\xac");
	assert_string_equal(str_at(a.json, "stop_reason"), "tool_use");
	assert_int_equal(int_at(a.json, "usage.cache_read_input_tokens"), 2);
	assert_true(int_at(a.json, "usage.input_tokens") > 0);
	answer_done(&a);
	/* A result comes back. */
	ask_ok(&server, "/v1/messages",
	       "{\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\","
	       "\"content\":[{"
	       "\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"now\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{"
	       "\"type\":"
	       "\"tool_result\",\"tool_use_id\":\"t1\",\"content\":[{\"type\":\"text\",\"text\":\"noon\"}]}]}]"
	       "," ANTHROPIC_TOOLS "}",
	       &a);
	assert_string_equal(str_at(a.json, "content.0.text"), "TOOL:noon");
	assert_string_equal(str_at(a.json, "stop_reason"), "end_turn");
	answer_done(&a);
	ask_ok(&server, "/v1/messages",
	       "{\"max_tokens\":100,\"stop_sequences\":[\"END\"],\"messages\":[{\"role\":\"user\",\"content\":\"SAY:"
	       "one END two"
	       "\"}]}",
	       &a);
	assert_string_equal(str_at(a.json, "content.0.text"), "one ");
	assert_string_equal(str_at(a.json, "stop_reason"), "stop_sequence");
	assert_string_equal(str_at(a.json, "stop_sequence"), "END");
	answer_done(&a);
	ask_ok(&server, "/v1/messages", "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", &a);
	assert_string_equal(str_at(a.json, "stop_reason"), "max_tokens");
	assert_int_equal(int_at(a.json, "usage.output_tokens"), 2);
	answer_done(&a);
}

static void a_stream_of_messages_keeps_the_order(void **state)
{
	struct base_buf seen = BASE_BUF_INIT(1 << 20), json = BASE_BUF_INIT(1 << 20);
	const char *before = "";
	json_t *events, *ev;
	bool is_done;
	size_t i;

	(void)state;
	events = ask_events(
	        "/v1/messages",
	        "{\"max_tokens\":1000,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"SAY:" TWO_CALLS
	        "\"}]," ANTHROPIC_TOOLS "}",
	        &is_done);
	assert_false(is_done);
	json_array_foreach(events, i, ev)
	{
		const char *type = str_at(ev, "type");

		if (strcmp(type, before) != 0)
			(void)base_buf_printf(&seen, "%s ", type);
		if (at(ev, "index"))
			assert_in_range(int_at(ev, "index"), 0, 3);
		if (int_at(ev, "index") == 2)
			join(&json, at(ev, "delta.partial_json"));
		before = type;
	}
#define BLOCK "content_block_start content_block_delta content_block_stop "
	assert_string_equal(base_buf_text(&seen),
	                    "message_start ping " BLOCK BLOCK BLOCK BLOCK "message_delta message_stop ");
	assert_string_equal(base_buf_text(&json), "{\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}");
	assert_string_equal(str_at(json_array_get(events, i - 2), "delta.stop_reason"), "tool_use");
	json_decref(events);
	base_buf_done(&seen);
	base_buf_done(&json);
}

static void refusals_have_the_protocols_shape(void **state)
{
	static const char *const bad[] = {
		"{",
		"{\"messages\":[]}",
		"{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}",
		"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
		"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":\"web_search_20250305\"}]}",
		"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":{\"type\":\"some\"}}",
		"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"output_config\":{\"format\":{}}}",
		"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"output_format\":{\"type\":\"json_schema\"}}",
	};
	struct answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ask(&server, "/v1/messages", bad[i], &a);
		assert_int_equal(a.status, 400);
		assert_string_equal(str_at(a.json, "type"), "error");
		assert_string_equal(str_at(a.json, "error.type"), "invalid_request_error");
		assert_true(json_string_length(at(a.json, "error.message")) > 0);
		answer_done(&a);
	}
	ask_ok(&server, "/v1/messages/count_tokens", "{\"messages\":[{\"role\":\"user\",\"content\":\"12345\"}]}", &a);
	assert_int_equal(int_at(a.json, "input_tokens"), 5);
	answer_done(&a);
}

/* ---- Responses ---- */

#define FLAT_TOOLS                                                                                                    \
	"\"tools\":[{\"type\":\"function\",\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\"}},{\"type\":" \
	"\"function\","                                                                                               \
	"\"name\":\"now\",\"parameters\":{}},{\"type\":\"web_search\"}]"

static void responses_are_items(void **state)
{
	struct answer a;

	(void)state;
	ask_ok(&server, "/v1/responses",
	       "{\"model\":\"m\",\"instructions\":\"Be brief.\",\"input\":\"SAY:" TWO_CALLS "\"," FLAT_TOOLS "}", &a);
	assert_string_equal(str_at(a.json, "object"), "response");
	assert_string_equal(str_at(a.json, "status"), "completed");
	assert_int_equal(json_array_size(at(a.json, "output")), 4);
	assert_string_equal(str_at(a.json, "output.0.type"), "reasoning");
	assert_string_equal(str_at(a.json, "output.0.content.0.text"), "hm \xe5\xa5\xbd");
	assert_string_equal(str_at(a.json, "output.1.content.0.text"), "I look.");
	assert_string_equal(str_at(a.json, "output.2.type"), "function_call");
	assert_string_equal(str_at(a.json, "output.2.arguments"), "{\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}");
	assert_string_equal(str_at(a.json, "output.3.name"), "now");
	assert_string_equal(str_at(a.json, "instructions"), "Be brief.");
	assert_true(int_at(a.json, "usage.output_tokens_details.reasoning_tokens") > 0);
	answer_done(&a);
	ask_ok(&server, "/v1/responses", "{\"input\":\"x\",\"max_output_tokens\":2}", &a);
	assert_string_equal(str_at(a.json, "status"), "incomplete");
	assert_string_equal(str_at(a.json, "incomplete_details.reason"), "max_output_tokens");
	assert_string_equal(str_at(a.json, "output.0.status"), "incomplete");
	answer_done(&a);
}

static void a_response_can_be_continued(void **state)
{
	struct answer a, b, c;
	char body[1024], path[256];

	(void)state;
	ask_ok(&server, "/v1/responses", "{\"input\":\"SAY:" TWO_CALLS "\"," FLAT_TOOLS "}", &a);
	(void)snprintf(
	        body, sizeof(body),
	        "{\"previous_response_id\":\"%s\",\"input\":[{\"type\":\"function_call_output\",\"call_id\":\"%s\","
	        "\"output\":\"rain\"}]," FLAT_TOOLS "}",
	        str_at(a.json, "id"), str_at(a.json, "output.2.call_id"));
	ask_ok(&server, "/v1/responses", body, &b);
	assert_string_equal(str_at(b.json, "output.0.content.0.text"), "TOOL:rain");
	assert_string_equal(str_at(b.json, "previous_response_id"), str_at(a.json, "id"));
	(void)snprintf(path, sizeof(path), "/v1/responses/%s", str_at(a.json, "id"));
	ask_ok(&server, path, NULL, &c);
	assert_true(json_equal(c.json, a.json));
	answer_done(&c);
	ask(&server, "/v1/responses", "{\"previous_response_id\":\"resp_nope\",\"input\":\"x\"}", &c);
	assert_int_equal(c.status, 404);
	assert_string_equal(str_at(c.json, "error.code"), "previous_response_not_found");
	answer_done(&c);
	/* The client keeps the conversation itself; replayed items need neither id nor status. */
	ask_ok(&server, "/v1/responses",
	       "{\"store\":false,\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"x\"}]},"
	       "{\"type\":"
	       "\"reasoning\",\"summary\":[]},{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"now\","
	       "\"arguments\":\"{}\"},{"
	       "\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"noon\"}]}",
	       &c);
	assert_string_equal(str_at(c.json, "output.0.content.0.text"), "TOOL:noon");
	(void)snprintf(path, sizeof(path), "/v1/responses/%s", str_at(c.json, "id"));
	answer_done(&c);
	ask(&server, path, NULL, &c);
	assert_int_equal(c.status, 404);
	answer_done(&c);
	answer_done(&b);
	answer_done(&a);
}

static void a_stream_of_responses_lives_its_whole_life(void **state)
{
	static const char *const reasoning[] = { "response.output_item.added",    "response.content_part.added",
		                                 "response.reasoning_text.delta", "response.reasoning_text.done",
		                                 "response.content_part.done",    "response.output_item.done" };
	struct base_buf order = BASE_BUF_INIT(1 << 20), args = BASE_BUF_INIT(1 << 20);
	const char *before = "";
	json_t *events, *ev, *last = NULL;
	bool is_done;
	size_t i;

	(void)state;
	events = ask_events("/v1/responses", "{\"stream\":true,\"input\":\"SAY:" TWO_CALLS "\"," FLAT_TOOLS "}",
	                    &is_done);
	json_array_foreach(events, i, ev)
	{
		assert_int_equal(int_at(ev, "sequence_number"), i);
		if (strcmp(str_at(ev, "type"), before) != 0)
			(void)base_buf_printf(&order, "%s ", str_at(ev, "type"));
		before = str_at(ev, "type");
		if (int_at(ev, "output_index") == 2 && strcmp(before, "response.function_call_arguments.delta") == 0)
			join(&args, at(ev, "delta"));
		/* Ids are those of the end. */
		last = at(json_array_get(events, json_array_size(events) - 1), "response");
		if (at(ev, "item"))
			assert_string_equal(
			        str_at(ev, "item.id"),
			        str_at(json_array_get(at(last, "output"), (size_t)int_at(ev, "output_index")), "id"));
	}
	assert_memory_equal(base_buf_text(&order), "response.created response.in_progress ", 38);
	for (i = 0; i < 6; i++)
		assert_string_equal(str_at(json_array_get(events, i < 3 ? i + 2 : 0), "type"),
		                    i < 3 ? reasoning[i] : "response.created");
	for (i = 0; i < 6; i++)
		assert_non_null(strstr(base_buf_text(&order), reasoning[i]));
	assert_non_null(strstr(base_buf_text(&order),
	                       "response.output_text.delta response.output_text.done response.content_part.done "
	                       "response.output_item.done response.output_item.added "
	                       "response.function_call_arguments.delta response.function_call_arguments.done "
	                       "response.output_item.done "));
	assert_string_equal(before, "response.completed");
	assert_string_equal(base_buf_text(&args), "{\"city\": \"\xe5\x8c\x97\xe4\xba\xac\"}");
	assert_int_equal(json_array_size(at(last, "output")), 4);
	json_decref(events);
	base_buf_done(&order);
	base_buf_done(&args);
}

/* ---- Keys ---- */

static void keys_are_asked_for(void **state)
{
	static const char *const wrong[] = { "Authorization: Bearer nope", "X-Api-Key: sk-on",
		                             "Authorization: sk-one" };
	static const char *const right[] = { "Authorization: Bearer sk-one", "X-Api-Key: sk-two",
		                             "authorization: bearer sk-two" };
	char path[] = "/tmp/ocai-keys-XXXXXX", url[128];
	int fd = mkstemp(path);
	struct served s;
	struct answer a;
	struct err err = { 0 };

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "# of the test\nsk-one\n\n  sk-two \n", 32), 32);
	serve_with(&s, &(struct eng_options){ 0 }, (struct eng_http_config){ .api_key_file = path });
	(void)snprintf(url, sizeof(url), "%s/v1/models", s.url);
	for (int i = 0; i < 6; i++) {
		const char *headers[] = { i < 3 ? wrong[i] : right[i - 3], NULL };
		struct base_http_request req = { .method = "GET", .url = url, .headers = headers };
		struct base_http_response resp = { 0 };

		assert_int_equal(base_http_request(s.client, &req, &resp, &err), 0);
		assert_int_equal(resp.status, i < 3 ? 401 : 200);
		if (i < 3)
			assert_non_null(strstr(base_buf_text(&resp.body), "authentication_error"));
		assert_null(strstr(base_buf_text(&resp.body), "sk-"));
		base_buf_done(&resp.body);
	}
	ask(&s, "/v1/chat/completions", "{}", &a);
	assert_int_equal(a.status, 401);
	answer_done(&a);
	ask(&s, "/v1/messages", "{}", &a);
	assert_int_equal(a.status, 401);
	assert_string_equal(str_at(a.json, "error.type"), "authentication_error");
	answer_done(&a);
	ask(&s, "/health", NULL, &a);
	assert_int_equal(a.status, 200);
	answer_done(&a);
	serve_end(&s);
	/* A file that others may read is refused. */
	assert_int_equal(fchmod(fd, 0640), 0);
	assert_int_equal(eng_engine_open(&(struct eng_options){ 0 }, &s.engine, &err), 0);
	assert_int_equal(eng_http_open(s.engine, &(struct eng_http_config){ .host = "127.0.0.1", .api_key_file = path },
	                               &s.http, &err),
	                 -EACCES);
	assert_non_null(strstr(err_text(&err), "0640"));
	eng_engine_close(s.engine);
	(void)close(fd);
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_and_reasoning_are_fields_of_their_own),
		cmocka_unit_test(a_stream_of_calls_keeps_the_rules),
		cmocka_unit_test(the_client_decides_about_calls_and_reasoning),
		cmocka_unit_test(a_forced_call_is_constrained),
		cmocka_unit_test(logprobs_come_with_their_text),
		cmocka_unit_test(messages_are_blocks),
		cmocka_unit_test(a_stream_of_messages_keeps_the_order),
		cmocka_unit_test(refusals_have_the_protocols_shape),
		cmocka_unit_test(responses_are_items),
		cmocka_unit_test(a_response_can_be_continued),
		cmocka_unit_test(a_stream_of_responses_lives_its_whole_life),
		cmocka_unit_test(keys_are_asked_for),
	};

	return cmocka_run_group_tests(tests, start_server, stop_server);
}
