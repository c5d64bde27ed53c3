/* MCP: the server's answers line by line, the event stream, the configuration, the client against small shell servers;
 * and the tools behind it. */
#include "test.h"

#include <errno.h>
#include <unistd.h>

#include "base/json.h"
#include "mcp/mcp.h"

static const struct ag_tools_context english = { .kb_path = "/nonexistent/kb.sqlite" };

/* Sends the messages, in order; the last one's answer, parsed; NULL when none was due. */
static json_t *talk(const char *const *messages)
{
	struct ag_mcp_server *server = NULL;
	struct base_buf out = BASE_BUF_INIT(16 << 20);
	json_t *answer = NULL;

	assert_int_equal(ag_mcp_server_new(&english, &server), 0);
	for (; *messages; messages++) {
		base_buf_reset(&out);
		assert_int_equal(ag_mcp_server_handle(server, *messages, strlen(*messages), &out), 0);
	}
	if (out.len)
		assert_int_equal(base_json_parse("answer", out.data, out.len, &answer, NULL), 0);
	ag_mcp_server_free(server);
	base_buf_done(&out);
	return answer;
}

static json_int_t error_code(const char *const *messages)
{
	json_t *answer = talk(messages);
	json_int_t code = json_integer_value(json_object_get(json_object_get(answer, "error"), "code"));

	json_decref(answer);
	return code;
}

#define INIT(revision) \
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"" revision "\"}}"
#define CALL(tool, args)                                                                       \
	"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"" tool \
	"\",\"arguments\":" args "}}"

static void each_revision_is_agreed_on(void **state)
{
	static const char *const cases[][2] = { { INIT("2024-11-05"), "2024-11-05" },
		                                { INIT("2025-03-26"), "2025-03-26" },
		                                { INIT("2025-06-18"), "2025-06-18" },
		                                { INIT("2099-01-01"), "2025-06-18" } };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		json_t *a = talk((const char *const[]){ cases[i][0], NULL });

		assert_string_equal(json_string_value(json_object_get(json_object_get(a, "result"), "protocolVersion")),
		                    cases[i][1]);
		json_decref(a);
	}
}

static void bad_messages_get_the_codes_of_json_rpc(void **state)
{
	(void)state;
	assert_int_equal(error_code((const char *const[]){ "{", NULL }), -32700);
	assert_int_equal(error_code((const char *const[]){ "7", NULL }), -32600);
	assert_int_equal(error_code((const char *const[]){ "{\"id\":1,\"method\":\"ping\"}", NULL }), -32600);
	assert_int_equal(error_code((const char *const[]){ CALL("disk_usage", "{}"), NULL }), -32600);
	assert_int_equal(error_code((const char *const[]){
	                         INIT("2025-06-18"), "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"nothing\"}", NULL }),
	                 -32601);
	assert_int_equal(error_code((const char *const[]){ INIT("2025-06-18"), CALL("nothing", "{}"), NULL }), -32602);
	assert_int_equal(error_code((const char *const[]){ INIT("2025-06-18"), CALL("disk_usage", "[]"), NULL }),
	                 -32602);
}

static void notices_and_answers_are_not_answered(void **state)
{
	(void)state;
	assert_null(
	        talk((const char *const[]){ "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}", NULL }));
	assert_null(talk((const char *const[]){ "{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}", NULL }));
}

static void batches_belong_to_the_older_revisions(void **state)
{
	static const char batch[] =
	        "[{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"},{\"jsonrpc\":\"2.0\",\"method\":"
	        "\"x\"},{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\"}]";
	json_t *a = talk((const char *const[]){ INIT("2025-03-26"), batch, NULL });

	(void)state;
	assert_int_equal(json_array_size(a), 2);
	json_decref(a);
	assert_int_equal(error_code((const char *const[]){ INIT("2025-06-18"), batch, NULL }), -32600);
}

static void assert_refused(const char *tool, const char *args, const char *words)
{
	struct base_buf out = BASE_BUF_INIT(AG_TOOLS_MAX_OUTPUT);
	json_t *json = json_loads(args, JSON_ALLOW_NUL, NULL);
	struct err err = { 0 };

	assert_non_null(json);
	assert_true(ag_tools_run(&english, tool, json, &out, &err) < 0);
	if (!strstr(err_text(&err), words))
		fail_msg("%s: %s", args, err_text(&err));
	json_decref(json);
	base_buf_done(&out);
}

static void arguments_are_checked_against_the_schema(void **state)
{
	(void)state;
	assert_refused("read_file", "{}", "'path' is missing");
	assert_refused("read_file", "{\"path\":1}", "expected string, got");
	assert_refused("read_file", "{\"path\":\"/x\",\"line\":0}", "line: out of range");
	assert_refused("read_file", "{\"path\":\"/x\",\"more\":0}", "unknown argument 'more'");
	assert_refused("read_file", "{\"path\":\"/x\\u0000\"}", "holds a NUL");
	assert_refused("list_processes", "{\"sort\":\"name\"}", "not one of the choices");
	assert_refused("nothing", "{}", "there is no tool");
}

static void secrets_are_not_shown(void **state)
{
	char path[] = "/tmp/test_mcp.XXXXXX", link[64], args[128];
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "-----BEGIN RSA PRIVATE KEY-----\nMII\n", 36), 36);
	(void)close(fd);
	(void)snprintf(args, sizeof(args), "{\"path\":\"%s\"}", path);
	assert_refused("read_file", args, "private key");
	(void)unlink(path);
	(void)snprintf(link, sizeof(link), "%s.link", path);
	assert_int_equal(symlink("/proc/self/environ", link), 0);
	(void)snprintf(args, sizeof(args), "{\"path\":\"%s\"}", link);
	assert_refused("read_file", args, "refused");
	(void)unlink(link);
	assert_refused("read_file", "{\"path\":\"/dev/null\"}", "not a regular file");
	assert_refused("man_page", "{\"name\":\"../../etc/passwd\"}", "not the name");
	assert_true(ag_tools_is_secret_path("/etc/shadow-"));
	assert_true(ag_tools_is_secret_path("/home/u/.ssh/id_ed25519"));
	assert_true(ag_tools_is_secret_path("/etc/pki/tls/private/server.pem"));
	assert_false(ag_tools_is_secret_path("/home/u/.ssh/id_ed25519.pub"));
	assert_false(ag_tools_is_secret_path("/etc/passwd"));
}

static void every_schema_is_json_of_an_object(void **state)
{
	(void)state;
	for (size_t i = 0; i < ag_tools_count(); i++) {
		json_t *schema = json_loads(ag_tools_at(i)->schema, 0, NULL);

		assert_string_equal(json_string_value(json_object_get(schema, "type")), "object");
		json_decref(schema);
	}
}

static int join_event(void *arg, const char *data, size_t len)
{
	(void)base_buf_append(arg, data, len);
	return base_buf_putc(arg, '|');
}

static void events_are_decoded_whatever_the_pieces(void **state)
{
	static const char stream[] =
	        "event: m\ndata: {\"a\":\ndata: 1}\n\n: hello\r\ndata:two\r\n\r\nid: 3\n\ndata: lost";

	(void)state;
	for (size_t piece = 1; piece < sizeof(stream); piece++) {
		struct base_buf out = BASE_BUF_INIT(4096);
		struct ag_mcp_sse sse;

		ag_mcp_sse_init(&sse);
		for (size_t i = 0; i + 1 < sizeof(stream); i += piece)
			assert_int_equal(
			        ag_mcp_sse_feed(&sse, stream + i,
			                        sizeof(stream) - 1 - i < piece ? sizeof(stream) - 1 - i : piece,
			                        join_event, &out),
			        0);
		assert_string_equal(base_buf_text(&out), "{\"a\":\n1}|two|");
		ag_mcp_sse_done(&sse);
		base_buf_done(&out);
	}
}

/* ---- Configuration and client ------------------------------------------------------------------------- */

static int read_config(const char *text, struct ag_mcp_configs *configs, struct err *err)
{
	char path[] = "/tmp/test_mcp.XXXXXX";
	int fd = mkstemp(path), r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	(void)close(fd);
	r = ag_mcp_configs_read(configs, path, err);
	(void)unlink(path);
	return r;
}

static void commands_are_split_like_words_of_the_shell(void **state)
{
	struct ag_mcp_configs configs = { 0 };
	const struct ag_mcp_config *c;

	(void)state;
	assert_int_equal(
	        read_config("[a]\ncommand = npx -y 'some server' \"x y\" a\\ b ''\nenv = A=1, B=2 3\ntimeout = 5\n",
	                    &configs, NULL),
	        0);
	c = ag_mcp_configs_find(&configs, "a");
	assert_non_null(c);
	assert_string_equal(c->argv[2], "some server");
	assert_string_equal(c->argv[3], "x y");
	assert_string_equal(c->argv[4], "a b");
	assert_string_equal(c->argv[5], "");
	assert_null(c->argv[6]);
	assert_string_equal(c->env[1], "B=2 3");
	assert_int_equal(c->timeout_ms, 5000);
	assert_int_equal(read_config("[a]\nurl = http://x/\n", &configs, NULL), 0);
	assert_string_equal(ag_mcp_configs_find(&configs, "a")->url, "http://x/");
	ag_mcp_configs_done(&configs);
}

static void bad_configurations_are_named(void **state)
{
	static const char *const cases[][2] = { { "[a]\ntimeout = x\ncommand = y\n", "[a] timeout" },
		                                { "[a]\nenv = x\n", "either command or url" },
		                                { "[a]\ncommand = 'x\n", "a quote is not closed" },
		                                { "[a]\ncolour = x\n", "[a] colour: unknown" },
		                                { "command = x\n", "expected a section" } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ag_mcp_configs configs = { 0 };
		struct err err = { 0 };

		assert_true(read_config(cases[i][0], &configs, &err) < 0);
		if (!strstr(err_text(&err), cases[i][1]))
			fail_msg("%s", err_text(&err));
		ag_mcp_configs_done(&configs);
	}
}

static int open_script(const char *script, uint32_t timeout_ms, struct err *err)
{
	char *argv[] = { "sh", "-c", (char *)script, NULL };
	const struct ag_mcp_config config = { .name = "s", .argv = argv, .timeout_ms = timeout_ms };
	struct ag_mcp_client *client = NULL;
	int r = ag_mcp_client_open(&config, NULL, &client, err);

	ag_mcp_client_close(client);
	return r;
}

static void bad_servers_are_refused_with_words(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(open_script("echo 'no licence' >&2; exit 1", 300000, &err), -EPIPE);
	assert_non_null(strstr(err_text(&err), "no licence"));
	assert_int_equal(open_script("echo garbage; cat >/dev/null", 300000, NULL), -EBADMSG);
	assert_int_equal(open_script("cat >/dev/null", 100, NULL), -ETIMEDOUT);
	assert_int_equal(open_script("head -c 9000000 /dev/zero | tr '\\0' x; cat >/dev/null", 300000, NULL), -EFBIG);
	assert_int_equal(
	        open_script("echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"1999\"}}'; cat "
	                    ">/dev/null",
	                    300000, NULL),
	        -EPROTO);
	assert_int_equal(open_script("echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"message\":\"go away\"}}'; cat "
	                             ">/dev/null",
	                             300000, &err),
	                 -EREMOTEIO);
	assert_non_null(strstr(err_text(&err), "go away"));
}

static void a_small_server_is_used(void **state)
{
	char *argv[] = {
		"sh", "-c",
		"read l; echo '{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}'; read l; "
		"echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2024-11-05\"}}'; read l; read "
		"l; echo "
		"'{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}}'",
		NULL
	};
	const struct ag_mcp_config config = { .name = "s", .argv = argv, .timeout_ms = 300000 };
	struct base_buf text = BASE_BUF_INIT(100);
	struct ag_mcp_client *client = NULL;
	json_t *result = NULL;

	(void)state;
	assert_int_equal(ag_mcp_client_open(&config, NULL, &client, NULL), 0);
	assert_string_equal(ag_mcp_client_revision(client), "2024-11-05");
	assert_int_equal(ag_mcp_client_call(client, "t", NULL, &result, NULL), 0);
	assert_int_equal(ag_mcp_result_text(result, &text), 0);
	assert_string_equal(base_buf_text(&text), "hi\n");
	json_decref(result);
	base_buf_done(&text);
	ag_mcp_client_close(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_revision_is_agreed_on),
		cmocka_unit_test(bad_messages_get_the_codes_of_json_rpc),
		cmocka_unit_test(notices_and_answers_are_not_answered),
		cmocka_unit_test(notices_and_answers_are_not_answered),
		cmocka_unit_test(batches_belong_to_the_older_revisions),
		cmocka_unit_test(arguments_are_checked_against_the_schema),
		cmocka_unit_test(secrets_are_not_shown),
		cmocka_unit_test(every_schema_is_json_of_an_object),
		cmocka_unit_test(events_are_decoded_whatever_the_pieces),
		cmocka_unit_test(commands_are_split_like_words_of_the_shell),
		cmocka_unit_test(bad_configurations_are_named),
		cmocka_unit_test(bad_servers_are_refused_with_words),
		cmocka_unit_test(a_small_server_is_used),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
