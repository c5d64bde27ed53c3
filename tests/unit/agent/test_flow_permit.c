/* What a tool of an answer may do: commands and files by the gate, the rules, the audit log and the person; tools of
 * MCP servers. */
#include "flow_scene.h"

#include <sys/stat.h>

/* ---- Permission ---- */

static void commands_go_through_the_gate(void **state)
{
	static const struct {
		const char *command, *persons, *words; /* persons NULL: nobody can be asked */
		bool run_read, asks;
	} cases[] = {
		{ "cat data.txt", "y", "exit code 0\nthe data", false, true },
		{ "cat data.txt", "n", "error: the user said no", false, true },
		{ "cat data.txt", "", "exit code 0\nthe data", true, false },
		{ "cat data.txt; exit 3", "", "exit code 3\nthe data", true, false },
		{ "cat data.txt", NULL, "exit code 0\nthe data", true, false },
		{ "cat data.txt", NULL, "nobody can be asked", false, false },
		{ "touch made", "n", "error: the user said no", true, true },
		{ "touch made", "y", "exit code 0", true, true },
		{ "touch made", NULL, "nobody can be asked", true, false },
		{ "rm -rf made", "yn", "error: the user said no", true, true },
		{ "rm -rf made", "yy", "exit code 0", true, true },
		{ "rm -rf / --no-preserve-root", "", "error: not allowed: ", true, false },
		{ "cat .ssh/id_rsa", "n", "error: the user said no", true, true }, /* reads, but a secret */
		{ "echo hi >&2; cat", "", "exit code 0\nhi\n", true, false },      /* no input, both outputs */
	};

	(void)state;
	(void)write_here("data.txt", "the data");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char call[2048];
		const char *const answers[] = { FAKE_MODELS, call, SAY("ok"), NULL };
		struct scene *c;

		(void)snprintf(call, sizeof(call), ONE_CALL("run_command", ARG("command", "%s")), cases[i].command);
		c = scene_new(answers);
		c->s.run_read = cases[i].run_read;
		if (cases[i].persons)
			c->person.answers = cases[i].persons;
		else
			c->io.ui = NULL;
		assert_int_equal(ask(c, "?"), 0);
		if (!strstr(message(c, 1, 0, "content"), cases[i].words))
			print_error("case %zu: %s\n", i, cases[i].command);
		assert_holds(message(c, 1, 0, "content"), cases[i].words);
		assert_int_equal(c->person.asked[0] != '\0', cases[i].asks);
		if (cases[i].asks)
			assert_holds(c->person.asked, cases[i].command);
		assert_string_equal(c->person.answers, ""); /* all were wanted */
		scene_free(c);
	}
}

static void rules_count_and_everything_is_in_the_audit_log(void **state)
{
	static const char *const answers[] = { FAKE_MODELS,
		                               FAKE_SSE(CALL_AT("0", "a", "run_command", ARG("command", "touch made"))
		                                                CALL_AT("1", "b", "run_command",
		                                                        ARG("command", "date -u")) FAKE_DONE),
		                               SAY("ok"), NULL };
	struct base_buf log = BASE_BUF_INIT(1 << 20);
	struct scene *c = scene_new(answers);
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/ocai", dir);
	(void)mkdir(path, 0700);
	(void)write_here("ocai/gate.rules", "allow touch *\ndeny date\n");
	c->s.run_read = true;
	assert_int_equal(ask(c, "?"), 0);
	assert_holds(message(c, 1, 1, "content"), "exit code 0");
	assert_holds(message(c, 1, 0, "content"), "error: not allowed: ");
	assert_string_equal(c->person.asked, "");
	read_here("ocai/audit.jsonl", &log);
	assert_holds(base_buf_text(&log), "\"command\":\"touch made\"");
	assert_holds(base_buf_text(&log), "\"command\":\"date -u\"");
	assert_holds(base_buf_text(&log), "\"origin\":\"tool\"");
	assert_int_equal(unlink("ocai/gate.rules"), 0);
	base_buf_done(&log);
	scene_free(c);
}

static void files_are_read_when_they_are_named_or_permitted(void **state)
{
	static const struct {
		const char *question, *persons, *folder, *words;
		bool attached;
	} cases[] = {
		{ "what is in %s?", "", NULL, "the data", false },
		{ "看看%s里有什么", "", NULL, "the data", false },
		{ "what is in data.txt.", "", NULL, "the data", false },
		{ "what is in ~/data.txt?", "", NULL, "the data", false },
		{ "?", "y", NULL, "the data", false },
		{ "?", "a", NULL, "the data", false },
		{ "?", "n", NULL, "error: the user said no", false },
		{ "?", NULL, NULL, "nobody can be asked", false },
		{ "?", NULL, dir, "the data", false },
		{ "?", NULL, "/usr", "nobody can be asked", false },
		{ "?", NULL, NULL, "the data", true },
	};
	char path[256], call[1024];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s", write_here("data.txt", "the data"));
	(void)snprintf(call, sizeof(call), ONE_CALL("read_file", ARG("path", "%s")), path);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *const answers[] = { FAKE_MODELS, call, SAY("ok"), NULL };
		const char *items[] = { cases[i].folder ? cases[i].folder : path };
		struct scene *c = scene_new(answers);
		char question[256];

		(void)snprintf(question, sizeof(question), cases[i].question, path);
		if (cases[i].persons)
			c->person.answers = cases[i].persons;
		else
			c->io.ui = NULL;
		if (cases[i].folder)
			c->s.tool_folders = (struct opt_list){ .items = items, .n = 1 };
		if (cases[i].attached)
			c->s.files = (struct opt_list){ .items = items, .n = 1 };
		assert_int_equal(ask(c, question), 0);
		if (!strstr(message(c, 1, 0, "content"), cases[i].words))
			print_error("case %zu: %s\n", i, question);
		assert_holds(message(c, 1, 0, "content"), cases[i].words);
		scene_free(c);
	}
}

static void a_link_does_not_lead_out_of_a_folder(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, NULL, SAY("ok"), NULL };
	const char *script[4], *folders[1];
	char call[1024], folder[128], link[160];
	struct scene *c;

	(void)state;
	(void)snprintf(folder, sizeof(folder), "%s/open", dir);
	(void)snprintf(link, sizeof(link), "%s/passwd", folder);
	(void)mkdir(folder, 0700);
	assert_int_equal(symlink("/etc/passwd", link), 0);
	(void)snprintf(call, sizeof(call), ONE_CALL("read_file", ARG("path", "%s")), link);
	memcpy(script, answers, sizeof(script));
	script[1] = call;
	folders[0] = folder;
	c = scene_new(script);
	c->s.tool_folders = (struct opt_list){ .items = folders, .n = 1 };
	c->io.ui = NULL;
	assert_int_equal(ask(c, "?"), 0);
	assert_holds(message(c, 1, 0, "content"), "nobody can be asked");
	scene_free(c);
}

static void a_person_can_stop_it_all_at_a_question(void **state)
{
	static const char *const answers[] = { FAKE_MODELS, ONE_CALL("run_command", ARG("command", "true")), SAY("no"),
		                               NULL };
	struct scene *c = scene_new(answers);

	(void)state;
	c->person.answers = "c";
	assert_int_equal(ask(c, "?"), -ECANCELED);
	scene_free(c);
}

/* ---- Tools of MCP servers ---- */

/* A server in sh: answers by the request's id and method. */
static const char mcp_server[] =
        "#!/bin/sh\n"
        "while read -r line; do\n"
        "  id=$(printf '%s' \"$line\" | sed -n 's/.*\"id\":\\([0-9]*\\).*/\\1/p')\n"
        "  case $line in\n"
        "  *'\"initialize\"'*) r='{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{"
        "\"name\":\"t\",\"version\":\"1\"}}' ;;\n"
        "  *tools/list*) "
        "r='{\"tools\":[{\"name\":\"look.up\",\"description\":\"looks\",\"inputSchema\":{\"type\":\"object\"}},"
        "{\"name\":\"write\",\"inputSchema\":{\"type\":\"object\"}}]}' ;;\n"
        "  *tools/call*) r='{\"content\":[{\"type\":\"text\",\"text\":\"found it\"}],\"isError\":false}' ;;\n"
        "  *) continue ;;\n"
        "  esac\n"
        "  printf '{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":%s}\\n' \"$id\" \"$r\"\n"
        "done\n";

static void tools_of_mcp_servers_join_and_ask(void **state)
{
	static const struct {
		const char *tool, *persons, *words;
	} cases[] = {
		{ "mcp_shop_look_up", NULL, "found it" }, /* allowed by mcp.conf */
		{ "mcp_shop_write", NULL, "error: a tool of another program needs the user's permission" },
		{ "mcp_shop_write", "y", "found it" },
		{ "mcp_shop_write", "n", "error: the user said no" },
	};
	char conf[512], path[160];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/ocai", dir);
	(void)mkdir(path, 0700);
	assert_int_equal(chmod(write_here("server", mcp_server), 0700), 0);
	(void)snprintf(conf, sizeof(conf),
	               "[shop]\ncommand = %s/server\nallow = look.up\n[gone]\ncommand = /does/not/exist\n", dir);
	(void)write_here("ocai/mcp.conf", conf);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char call[1024];
		const char *const answers[] = { FAKE_MODELS, call, SAY("ok"), NULL };
		struct scene *c;

		(void)snprintf(call, sizeof(call), ONE_CALL("%s", ARG("q", "thing")), cases[i].tool);
		c = scene_new(answers);
		if (cases[i].persons)
			c->person.answers = cases[i].persons;
		else
			c->io.ui = NULL;
		assert_int_equal(ask(c, "?"), 0);
		assert_holds(message(c, 1, 0, "content"), cases[i].words);
		assert_holds(c->err, "an MCP server cannot be used: gone");
		if (cases[i].persons)
			assert_holds(c->person.asked, "write of the MCP server shop with\n  {\"q\":\"thing\"}");
		scene_free(c);
	}
	assert_int_equal(unlink("ocai/mcp.conf"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_go_through_the_gate),
		cmocka_unit_test(rules_count_and_everything_is_in_the_audit_log),
		cmocka_unit_test(files_are_read_when_they_are_named_or_permitted),
		cmocka_unit_test(a_link_does_not_lead_out_of_a_folder),
		cmocka_unit_test(a_person_can_stop_it_all_at_a_question),
		cmocka_unit_test(tools_of_mcp_servers_join_and_ask),
	};

	return cmocka_run_group_tests(tests, make_dir, own_home_remove);
}
