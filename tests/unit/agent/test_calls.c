/* Tool calls put together from the pieces of a stream, from whole messages and from marked text. */
#include "test.h"

#include <errno.h>

#include "base/json.h"
#include "calls.h"

/* Each delta is the array of one piece; the calls as compact JSON. */
static char *assemble(const char *const *deltas, int *ret)
{
	struct ag_calls c;
	struct err err = { 0 };
	json_t *calls = NULL;
	char *text;

	*ret = 0;
	ag_calls_init(&c);
	for (size_t i = 0; deltas[i] && *ret == 0; i++) {
		json_t *piece = json_loads(deltas[i], JSON_DECODE_ANY, NULL);

		assert_non_null(piece);
		*ret = ag_calls_add(&c, piece, &err);
		json_decref(piece);
	}
	assert_int_equal(ag_calls_take(&c, &calls), 0);
	ag_calls_done(&c);
	text = calls ? json_dumps(calls, JSON_COMPACT) : strdup("none");
	json_decref(calls);
	return text;
}

#define CALL(id, name, args) \
	"{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"arguments\":\"" args "\"}}"

static void pieces_become_calls_whatever_the_server_leaves_out(void **state)
{
	static const struct {
		const char *what, *calls;
		const char *deltas[6];
	} cases[] = {
		{ "by index",
		  "[" CALL("a", "f", "{\\\"x\\\":1}") "," CALL("b", "g", "{}") "]",
		  { "[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}"
		    "]",
		    "[{\"index\":0,\"function\":{\"arguments\":\"{\\\"x\\\"\"}}]",
		    "[{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{\"}},{\"index\":0,"
		    "\"function\":{"
		    "\"arguments\":\":1}\"}}]",
		    "[{\"index\":1,\"function\":{\"arguments\":\"}\"}}]" } },
		{ "without index, by id",
		  "[" CALL("a", "f", "{}") "," CALL("b", "f", "{}") "]",
		  { "[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]",
		    "[{\"id\":\"b\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]",
		    "[{\"function\":{\"arguments\":\"}\"}}]" } },
		{ "without index and id, by name",
		  "[" CALL("call_1", "f", "{}") "," CALL("call_2", "g", "{}") "]",
		  { "[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"function\":{\"name\":\"g\",\"arguments\":"
		    "{}}}]" } },
		{ "index always 0, other ids",
		  "[" CALL("a", "f", "{}") "," CALL("b", "g", "{}") "]",
		  { "[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]",
		    "[{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]" } },
		{ "the name again in each piece",
		  "[" CALL("a", "f", "{}") "]",
		  { "[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]",
		    "[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"}\"}}]" } },
		{ "no arguments",
		  "[" CALL("a", "f", "{}") "]",
		  { "[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\"}}]" } },
		{ "no name", "[" CALL("a", "", "{}") "]", { "[{\"index\":7,\"id\":\"a\"}]" } },
		{ "nonsense", "none", { "[1,null,\"x\",[]]", "{}", "null", "5" } },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int r;
		char *calls = assemble(cases[i].deltas, &r);

		if (r != 0 || strcmp(calls, cases[i].calls) != 0)
			print_error("%s: %d %s\n", cases[i].what, r, calls);
		assert_int_equal(r, 0);
		assert_string_equal(calls, cases[i].calls);
		free(calls);
	}
}

static void too_many_and_too_long_calls_are_refused(void **state)
{
	struct ag_calls c;
	struct err err = { 0 };
	json_t *piece, *text;
	char *long_text = malloc(AG_CALLS_MAX_ARGS + 2);
	int r = 0;

	(void)state;
	ag_calls_init(&c);
	for (int i = 0; i < 100 && r == 0; i++) {
		piece = json_pack("[{s:i, s:{s:s}}]", "index", i, "function", "name", "f");
		r = ag_calls_add(&c, piece, &err);
		json_decref(piece);
	}
	assert_int_equal(r, -EFBIG);
	assert_int_equal(c.n, AG_CALLS_MAX);
	assert_non_null(strstr(err_text(&err), "more than 16 tools"));
	ag_calls_done(&c);

	memset(long_text, 'x', AG_CALLS_MAX_ARGS + 1);
	text = json_stringn(long_text, AG_CALLS_MAX_ARGS + 1);
	piece = json_pack("[{s:i, s:{s:s, s:o}}]", "index", 0, "function", "name", "f", "arguments", text);
	ag_calls_init(&c);
	assert_int_equal(ag_calls_add(&c, piece, &err), -EFBIG);
	ag_calls_done(&c);
	json_decref(piece);
	free(long_text);
}

static int on_text(void *arg, const char *text, size_t len)
{
	return base_buf_append(arg, text, len);
}

static void marked_calls_are_taken_out_of_the_text_however_it_is_cut(void **state)
{
	static const struct {
		const char *text, *left, *calls;
	} cases[] = {
		{ "Let me look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"<b>\"}}\n</tool_call>",
		  "Let me look.\n", "[" CALL("call_1", "f", "{\\\"x\\\":\\\"<b>\\\"}") "]" },
		{ "<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</"
		  "tool_call>",
		  "\n", "[" CALL("call_1", "f", "{}") "," CALL("call_2", "g", "{}") "]" },
		{ "a <tool_cal> b <<tool_call>{\"name\":\"f\"}", "a <tool_cal> b <",
		  "[" CALL("call_1", "f", "{}") "]" },
		{ "<tool_call>f(1)</tool_call>", "", "[" CALL("call_1", "", "f(1)") "]" },
		{ "if a < b: 中文 <tool", "if a < b: 中文 <tool", "none" },
		{ "", "", "none" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		for (size_t piece = 1; piece < 12; piece++) {
			struct base_buf left = BASE_BUF_INIT(1024);
			struct ag_calls c;
			struct ag_call_filter f;
			struct err err = { 0 };
			json_t *calls = NULL;
			char *text;
			size_t len = strlen(cases[i].text);

			ag_calls_init(&c);
			ag_call_filter_init(&f, &c, on_text, &left, &err);
			for (size_t at = 0; at < len; at += piece)
				assert_int_equal(ag_call_filter_text(&f, cases[i].text + at,
				                                     len - at < piece ? len - at : piece),
				                 0);
			assert_int_equal(ag_call_filter_finish(&f), 0);
			assert_string_equal(base_buf_text(&left), cases[i].left);
			assert_int_equal(ag_calls_take(&c, &calls), 0);
			text = calls ? json_dumps(calls, JSON_COMPACT) : strdup("none");
			assert_string_equal(text, cases[i].calls);
			free(text);
			json_decref(calls);
			ag_call_filter_done(&f);
			ag_calls_done(&c);
			base_buf_done(&left);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_become_calls_whatever_the_server_leaves_out),
		cmocka_unit_test(too_many_and_too_long_calls_are_refused),
		cmocka_unit_test(marked_calls_are_taken_out_of_the_text_however_it_is_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
