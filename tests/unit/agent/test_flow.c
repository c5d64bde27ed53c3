/* Routing, assistants, prompts, placeholders, settings: what needs no terminal and no server. */
#include "test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flow/flow.h"
#include "own_home.h"

static void questions_find_their_assistant(void **state)
{
	static const struct {
		const char *question, *assistant;
		bool has_input;
	} cases[] = {
		{ "如何更新yum源", "cmd", false },
		{ "查看内存", "cmd", false },
		{ "list open ports", "cmd", false },
		{ "show disk usage", "cmd", false },
		{ "how do i restart nginx", "cmd", false },
		{ "what is my ip address", "cmd", false },
		{ "哪个进程占用8080端口", "cmd", false },
		{ "systemctl", "cmd", false },
		{ "what is a symlink", "chat", false },
		{ "什么是inode", "chat", false },
		{ "explain selinux contexts", "chat", false },
		{ "硬链接和软链接的区别", "chat", false },
		{ "hello", "chat", false },
		{ "你好", "chat", false },
		{ "write a python script that counts lines", "code", false },
		{ "写一个脚本备份数据库", "code", false },
		{ "a systemd unit file for redis", "code", false },
		{ "why is this server slow", "sys", false },
		{ "这台服务器为什么这么慢", "sys", false },
		{ "系统体检", "sys", false },
		{ "知识库里怎么说备份的", "kb", false },
		{ "according to the docs how do backups work", "kb", false },
		{ "why?", "chat", true },
		{ "show the errors", "chat", true },
		{ "为什么失败", "chat", true },
		{ "write a script that parses this", "code", true },
		{ "machinery", "cmd", false }, /* no word boundary: not "machine" */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *name = ag_route(cases[i].question, cases[i].has_input)->name;

		if (strcmp(name, cases[i].assistant) != 0)
			print_error("%s -> %s\n", cases[i].question, name);
		assert_string_equal(name, cases[i].assistant);
	}
}

static void every_assistant_has_words_in_both_languages(void **state)
{
	(void)state;
	for (size_t i = 0; i < ag_assistant_count(); i++) {
		const struct ag_assistant *a = ag_assistant_at(i);

		assert_ptr_equal(ag_assistant_find(a->name), a);
		assert_int_equal(ag_assistant_index(a), i);
		assert_true(ag_is_chinese(ag_assistant_system(a, "qwen3", true)));
		assert_false(ag_is_chinese(ag_assistant_system(a, "qwen3", false)));
		if (a->keyword)
			assert_string_equal(ag_assistant_system(a, "ocai-mini-2", true), a->keyword);
		else
			assert_null(ag_assistant_system(a, "ocai-mini-2", true));
	}
	assert_null(ag_assistant_find("nobody"));
}

static void the_embedded_model_does_commands_and_nothing_else(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ag_assistant_check(ag_assistant_find("cmd"), "ocai-mini", false, &err), 0);
	assert_int_equal(ag_assistant_check(ag_assistant_find("chat"), "qwen3", false, &err), 0);
	assert_int_equal(ag_assistant_check(ag_assistant_find("chat"), "ocai-mini", false, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "only suggests commands"));
	assert_non_null(strstr(err_text(&err), "url in [backend]"));
	assert_int_equal(ag_assistant_check(ag_assistant_find("code"), "ocai-mini", true, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "只会给出命令"));
}

static void an_assistants_tools_are_names_or_all(void **state)
{
	struct ag_assistant a = { .tools = "kb_search, man_page" };

	(void)state;
	assert_true(ag_assistant_has_tool(&a, "kb_search"));
	assert_true(ag_assistant_has_tool(&a, "man_page"));
	assert_false(ag_assistant_has_tool(&a, "man"));
	assert_false(ag_assistant_has_tool(&a, "run_command"));
	a.tools = "*";
	assert_true(ag_assistant_has_tool(&a, "run_command"));
	a.tools = "";
	assert_false(ag_assistant_has_tool(&a, "man_page"));
}

static void remote_hosts_are_told_from_local_ones(void **state)
{
	static const struct {
		const char *url, *host; /* "" for local */
	} cases[] = {
		{ "http://localhost:8080", "" },
		{ "http://127.0.0.1", "" },
		{ "http://127.9.9.9:1/v1", "" },
		{ "http://[::1]:80/", "" },
		{ "unix:/run/x.sock", "" },
		{ "https://llm.example.org/v1", "llm.example.org" },
		{ "http://10.0.0.1:80", "10.0.0.1" },
		{ "http://localhost.evil.org", "localhost.evil.org" },
		{ "http://127.0.0.1@evil.org/", "evil.org" },
		{ "http://evil.org/@127.0.0.1", "evil.org" },
		{ "http://127.0.0.1.evil.org", "127.0.0.1.evil.org" },
		{ "http://[2001:db8::1]:80", "[2001:db8::1]" },
	};
	char host[64];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(ag_url_remote_host(cases[i].url, host, sizeof(host)), cases[i].host[0] != '\0');
		assert_string_equal(host, cases[i].host);
	}
}

/* ---- Placeholders -------------------------------------------------------------------------------------------- */

static void placeholders_are_found_and_redirections_are_not(void **state)
{
	static const struct {
		const char *command, *first; /* "" for none */
	} cases[] = {
		{ "useradd <name>", "<name>" },
		{ "tar czf <file> <dir>/x", "<file>" },
		{ "firewall-cmd --add-port=<port>/tcp", "<port>" },
		{ "echo \"<user-name>\"", "<user-name>" },
		{ "dnf install <软件包>", "<软件包>" },
		{ "sort <in >out", "" },
		{ "cat <in>out", "" },
		{ "cat <<EOF", "" },
		{ "cat 0<in>", "" },
		{ "diff <(ls a) <(ls b)", "" },
		{ "test 1 -lt 2", "" },
		{ "echo <>", "" },
	};
	size_t at, len;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		bool found = ag_find_placeholder(cases[i].command, 0, &at, &len);

		if (found != (cases[i].first[0] != '\0'))
			print_error("%s\n", cases[i].command);
		assert_int_equal(found, cases[i].first[0] != '\0');
		if (found) {
			assert_int_equal(len, strlen(cases[i].first));
			assert_memory_equal(cases[i].command + at, cases[i].first, len);
		}
	}
}

static void values_stay_one_word_in_any_quotes(void **state)
{
	static const struct {
		const char *command, *value, *filled;
	} cases[] = {
		{ "useradd <x>", "bob", "useradd bob" },
		{ "useradd <x>", "bob; rm -rf /", "useradd 'bob; rm -rf /'" },
		{ "ls <x>/y", "a b", "ls 'a b'/y" },
		{ "echo '<x>'", "it's", "echo 'it'\\''s'" },
		{ "echo \"<x>\"", "$(id) `id` \"", "echo \"\\$(id) \\`id\\` \\\"\"" },
		{ "echo <x>", "it's", "echo 'it'\\''s'" },
		{ "echo <x>", "", "echo ''" },
		{ "echo <x> <x>", "a", "echo a a" },
		{ "echo <y>", "a", "echo <y>" },
		{ "echo \\' <x>", "$a", "echo \\' '$a'" },
	};
	static const char *const names[] = { "x" };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf out = BASE_BUF_INIT(1024);

		assert_int_equal(ag_fill_placeholders(cases[i].command, names, &cases[i].value, 1, &out), 0);
		assert_string_equal(base_buf_text(&out), cases[i].filled);
		base_buf_done(&out);
	}
}

/* ---- Prompts ----------------------------------------------------------------------------------------------------- */

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/ocai-flow-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void the_prompt_has_question_input_and_files_in_this_order(void **state)
{
	const char *path = write_here("a.txt", "file's text\n");
	const char *items[] = { path };
	const struct opt_list files = { .items = items, .n = 1 };
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	struct err err = { 0 };
	char want[1024];

	(void)state;
	assert_int_equal(ag_join_prompt("why?", "log line", &files, &out, &err), 0);
	(void)snprintf(
	        want, sizeof(want),
	        "why?\n\n--- standard input ---\nlog line\n--- end ---\n\n--- file %s ---\nfile's text\n--- end ---",
	        path);
	assert_string_equal(base_buf_text(&out), want);
	base_buf_done(&out);
	items[0] = "/nonexistent";
	assert_int_equal(ag_join_prompt("why?", NULL, &files, &out, &err), -ENOENT);
	base_buf_done(&out);
}

static void long_input_keeps_its_ends_and_whole_characters(void **state)
{
	struct base_buf out = BASE_BUF_INIT(1 << 20), text = BASE_BUF_INIT(1 << 20);
	struct err err = { 0 };

	(void)state;
	(void)base_buf_puts(&text, "BEGIN");
	for (int i = 0; i < 5000; i++)
		(void)base_buf_puts(&text, "字");
	(void)base_buf_puts(&text, "\033[31mEND\xff");
	for (size_t max = 1000; max < 1012; max++) {
		assert_int_equal(ag_read_bounded_file(write_here("long", base_buf_text(&text)), max, &out, &err), 0);
		assert_true(out.len < 1100);
		assert_memory_equal(base_buf_text(&out), "BEGIN字", 8);
		assert_non_null(strstr(base_buf_text(&out), "bytes left out ...]"));
		assert_non_null(strstr(base_buf_text(&out), "END"));
		assert_null(strchr(base_buf_text(&out), '\033'));
		/* jansson refuses what is no UTF-8 */
		json_t *json = json_stringn(base_buf_text(&out), out.len);

		assert_non_null(json);
		json_decref(json);
		base_buf_reset(&out);
	}
	assert_int_equal(ag_read_bounded_file(write_here("long", base_buf_text(&text)), 100000, &out, &err), 0);
	assert_null(strstr(base_buf_text(&out), "left out"));
	base_buf_done(&out);
	base_buf_done(&text);
}

static json_t *conversation(int n_turns, const char *last)
{
	json_t *m = json_array();

	assert_int_equal(ag_add_message(m, "system", "s", 1), 0);
	for (int i = 0; i < n_turns; i++) {
		assert_int_equal(ag_add_message(m, "user", "a question of some length", 25), 0);
		assert_int_equal(ag_add_message(m, "assistant", "an answer of some length", 24), 0);
	}
	assert_int_equal(ag_add_message(m, "user", last, strlen(last)), 0);
	return m;
}

static const char *text_at(const json_t *m, size_t i, const char *key)
{
	return json_string_value(json_object_get(json_array_get(m, i), key));
}

static void a_long_conversation_loses_its_oldest_turns(void **state)
{
	json_t *m = conversation(20, "now?");

	(void)state;
	assert_int_equal(ag_trim_messages(m, 10000), 0);
	assert_int_equal(json_array_size(m), 42);
	assert_true(ag_trim_messages(m, 120) > 0);
	assert_true(json_array_size(m) < 12);
	assert_string_equal(text_at(m, 0, "role"), "system");
	assert_string_equal(text_at(m, 1, "role"), "user");
	assert_string_equal(text_at(m, json_array_size(m) - 1, "content"), "now?");
	json_decref(m);
}

static void results_of_tools_are_cut_before_the_question_is(void **state)
{
	json_t *m = conversation(3, "the question");
	struct base_buf text = BASE_BUF_INIT(1 << 20);

	(void)state;
	for (int i = 0; i < 3000; i++)
		(void)base_buf_puts(&text, "some words ");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(
		        json_array_append_new(m, json_pack("{s:s, s:s, s:[{s:s, s:s, s:{s:s, s:s}}]}", "role",
		                                           "assistant", "content", "", "tool_calls", "id", "c", "type",
		                                           "function", "function", "name", "f", "arguments", "{}")),
		        0);
		assert_int_equal(ag_add_message(m, "tool", base_buf_text(&text), text.len), 0);
	}
	assert_int_equal(ag_trim_messages(m, 15000), 6); /* the older turns go first */
	assert_int_equal(json_array_size(m), 6);
	assert_string_equal(text_at(m, 1, "content"), "the question");
	assert_non_null(strstr(text_at(m, 3, "content"), "left out"));
	assert_null(strstr(text_at(m, 5, "content"), "left out"));
	assert_int_equal(ag_trim_messages(m, 1000), 0);
	assert_int_equal(json_array_size(m), 6);
	assert_string_equal(text_at(m, 1, "content"), "the question");
	assert_non_null(strstr(text_at(m, 5, "content"), "left out"));
	json_decref(m);
	base_buf_done(&text);
}

static void a_message_too_long_by_itself_is_cut_in_its_middle(void **state)
{
	struct base_buf text = BASE_BUF_INIT(1 << 20);
	const char *cut;
	json_t *m;

	(void)state;
	(void)base_buf_puts(&text, "头");
	for (int i = 0; i < 3000; i++)
		(void)base_buf_puts(&text, "中");
	(void)base_buf_puts(&text, "尾");
	m = conversation(2, base_buf_text(&text));
	assert_int_equal(ag_trim_messages(m, 500), 4);
	assert_int_equal(json_array_size(m), 2);
	cut = text_at(m, 1, "content");
	assert_non_null(cut);
	assert_true(ag_guess_tokens(cut, strlen(cut)) < 500);
	assert_memory_equal(cut, "头中", 6);
	assert_string_equal(cut + strlen(cut) - 6, "中尾");
	assert_non_null(strstr(cut, "left out"));
	json_decref(m);
	base_buf_done(&text);
}

static void code_is_taken_out_of_its_fences(void **state)
{
	static const struct {
		const char *answer, *code;
	} cases[] = {
		{ "Here:\n```python\nprint(1)\n```\nDone.", "print(1)\n" },
		{ "print(1)", "print(1)\n" },
		{ "```\na\n```\ntext\n```sh\nb\n```\n", "a\n\nb\n" },
		{ "````md\n```\ninner\n```\n````\n", "```\ninner\n```\n" },
		{ "~~~c\nint x;\n~~~", "int x;\n" },
		{ "```c\ncut off", "cut off\n" },
		{ "", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf out = BASE_BUF_INIT(1024);

		assert_int_equal(ag_extract_code(cases[i].answer, strlen(cases[i].answer), &out), 0);
		assert_string_equal(base_buf_text(&out), cases[i].code);
		base_buf_done(&out);
	}
}

/* ---- Settings ---- */

static void profiles_are_sections_of_their_own(void **state)
{
	static struct ag_settings s;
	struct base_config *config = NULL;
	struct err err = { 0 };
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/ocai", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)write_here("ocai/ocai.conf", "[backend]\nprofile = big\n[profile big]\nurl = https://x.example/v1\n"
	                                   "allow-remote = yes\n  [profile small]\nmodel = tiny\ncontext = 512\n"
	                                   "[assistants]\ncode = small\n[assistant k8s]\nprompt = You know kubectl.\n"
	                                   "tools = man_page\noutput = command\nprofile = big\n[assistant chat]\n"
	                                   "prompt-zh = 简短\n[tools]\nfolders = /etc,/srv\nrun-read = yes\n");
	assert_int_equal(setenv("XDG_CONFIG_HOME", dir, 1), 0);
	if (ag_settings_load(&s, "/nonexistent", &config, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_int_equal(s.n_profiles, 2);
	assert_string_equal(s.profile, "big");
	assert_string_equal(s.profiles[0].url, "https://x.example/v1");
	assert_true(s.profiles[0].allow_remote);
	assert_string_equal(s.profiles[1].model, "tiny");
	assert_int_equal(s.profiles[1].context_tokens, 512);
	assert_false(s.profiles[1].allow_remote);
	assert_string_equal(s.profile_of[ag_assistant_index(ag_assistant_find("code"))], "small");
	assert_int_equal(ag_settings_check(&s, &err), 0);
	opt_list_done(&s.tool_folders);
	base_config_free(config);
}

static void an_assistant_of_the_configuration_is_a_row(void **state)
{
	static struct ag_settings s;
	struct base_config *config = NULL;
	const struct ag_assistant *a;
	struct err err = { 0 };

	(void)state; /* the file is that of the test before */
	if (ag_settings_load(&s, "/nonexistent", &config, &err) < 0)
		fail_msg("%s", err_text(&err));
	a = ag_settings_assistant(&s, "k8s");
	assert_non_null(a);
	assert_string_equal(ag_assistant_system(a, "qwen", true), "You know kubectl.");
	assert_string_equal(a->tools, "man_page");
	assert_int_equal(a->output, AG_OUTPUT_COMMAND);
	assert_string_equal(a->profile, "big");
	a = ag_settings_assistant(&s, "chat"); /* what it does not say is the table's */
	assert_string_equal(a->system_zh, "简短");
	assert_string_equal(a->system_en, ag_assistant_find("chat")->system_en);
	assert_string_equal(a->tools, "*");
	assert_ptr_equal(ag_settings_assistant(&s, "sys"), ag_assistant_find("sys"));
	assert_null(ag_settings_assistant(&s, "nobody"));
	assert_int_equal(s.tool_folders.n, 2);
	assert_true(s.run_read && s.tools_enabled);
	opt_list_done(&s.tool_folders);
	base_config_free(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(questions_find_their_assistant),
		cmocka_unit_test(every_assistant_has_words_in_both_languages),
		cmocka_unit_test(the_embedded_model_does_commands_and_nothing_else),
		cmocka_unit_test(an_assistants_tools_are_names_or_all),
		cmocka_unit_test(remote_hosts_are_told_from_local_ones),
		cmocka_unit_test(placeholders_are_found_and_redirections_are_not),
		cmocka_unit_test(values_stay_one_word_in_any_quotes),
		cmocka_unit_test(the_prompt_has_question_input_and_files_in_this_order),
		cmocka_unit_test(long_input_keeps_its_ends_and_whole_characters),
		cmocka_unit_test(a_long_conversation_loses_its_oldest_turns),
		cmocka_unit_test(results_of_tools_are_cut_before_the_question_is),
		cmocka_unit_test(a_message_too_long_by_itself_is_cut_in_its_middle),
		cmocka_unit_test(code_is_taken_out_of_its_fences),
		cmocka_unit_test(profiles_are_sections_of_their_own),
		cmocka_unit_test(an_assistant_of_the_configuration_is_a_row),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
