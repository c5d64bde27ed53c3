/* Taking the command out of what models answer. */
#include "test.h"

#include "agent.h"

/* "" expects that nothing is taken. */
static const struct {
	const char *answer, *command;
} cases[] = {
	/* as asked */
	{ "ls -la", "ls -la" },
	{ "  df -h\n", "df -h" },
	{ "uptime", "uptime" },
	{ "sudo dnf makecache", "sudo dnf makecache" },
	{ "./configure", "./configure" },
	{ "/usr/bin/free -m", "/usr/bin/free -m" },
	{ "LANG=C sort a.txt", "LANG=C sort a.txt" },
	{ "echo 你好", "echo 你好" },
	{ "find / -name '报告*' -type f", "find / -name '报告*' -type f" },
	{ "awk '{print $1}' file | sort | uniq -c", "awk '{print $1}' file | sort | uniq -c" },
	{ "for i in 1 2 3; do echo $i; done", "for i in 1 2 3; do echo $i; done" },
	{ "[ -f /etc/passwd ] && echo yes", "[ -f /etc/passwd ] && echo yes" },
	{ "(cd /tmp && ls)", "(cd /tmp && ls)" },
	{ "cp a.txt .", "cp a.txt ." },
	{ "kill -9 `pidof nginx`", "kill -9 `pidof nginx`" },
	{ "tar czf b.tar.gz \\\n  /etc", "tar czf b.tar.gz \\\n  /etc" },
	{ "cat <<EOF >a\nhello\nEOF", "cat <<EOF >a\nhello\nEOF" },
	/* prompts */
	{ "$ ls", "ls" },
	{ "[root@host ~]# systemctl status sshd", "systemctl status sshd" },
	{ "[me@host tmp]$ ls", "ls" },
	/* fences */
	{ "```bash\nls -la\n```", "ls -la" },
	{ "```\nls -la\n```", "ls -la" },
	{ "```ls -la```", "ls -la" },
	{ "```sh\n$ ls -la\n```", "ls -la" },
	{ "Here you go:\n\n```bash\ndnf update\n```\n\nThis updates all packages.", "dnf update" },
	{ "```bash\n# list files\nls\n```", "ls" },
	{ "```bash\n# dnf update\n```", "dnf update" },
	{ "```bash\ncd /tmp\nls\n```", "cd /tmp\nls" },
	{ "```json\n{\"a\": 1}\n```\n```bash\nls\n```", "ls" },
	{ "```bash\nls -la", "ls -la" },
	{ "可以使用:\n```shell\nsystemctl restart nginx\n```", "systemctl restart nginx" },
	{ "```bash\ntar czf b.tgz \\\n    /etc \\\n    /var\n```", "tar czf b.tgz \\\n    /etc \\\n    /var" },
	{ "```bash\nfor i in 1 2; do\n  echo $i # here\n\ndone\n```", "for i in 1 2; do\n  echo $i # here\ndone" },
	{ "1. So:\n   ```bash\n   if true; then\n     ls\n   fi\n   ```", "if true; then\n  ls\nfi" },
	{ "```bash\n$ cd /tmp\n$ ls\n```", "cd /tmp\nls" },
	/* what is written to a file stays to the letter */
	{ "```bash\ncat >a.yml <<'EOF'\n# services\nweb:\n  image: x\n\n  > text\nEOF\n# start it\n  podman ps\n```",
	  "cat >a.yml <<'EOF'\n# services\nweb:\n  image: x\n\n  > text\nEOF\n  podman ps" },
	{ "   ```bash\n   cat <<-END | sort\n     b\n     a\n   END\n   ls\n   ```",
	  "cat <<-END | sort\n  b\n  a\nEND\nls" },
	{ "```bash\nwc -l <<<\"a b\"\n# count\nls\n```", "wc -l <<<\"a b\"\nls" },
	{ "```bash\necho $((1<<3))\n# count\nls\n```", "echo $((1<<3))\nls" },
	/* inline code */
	{ "`ls -la`", "ls -la" },
	{ "You can use `df -h` to see disk usage.", "df -h" },
	{ "Use the `du` tool: `du -sh /var/*`.", "du -sh /var/*" },
	{ "使用 `uname -r` 查看内核版本。", "uname -r" },
	{ "Run `uptime`.", "uptime" },
	/* labels and lines */
	{ "Command: ls -l", "ls -l" },
	{ "命令:ip addr show", "ip addr show" },
	{ "命令\xef\xbc\x9aip route", "ip route" },
	{ "The command is: free -m", "free -m" },
	{ "curl http://localhost:8080/health", "curl http://localhost:8080/health" },
	{ "```ls -la\n```", "ls -la" },
	{ "Sure! Here it is\n\nss -ltnp\n\nIt lists listening ports.", "ss -ltnp" },
	{ "# show memory\nfree -m", "free -m" },
	/* reasoning */
	{ "<think>\nThe user wants ls.\n</think>\n\nls", "ls" },
	{ "thinking without its beginning</think>\ndf -h", "df -h" },
	{ "<think>\nI never came to an end, maybe `ls`", "" },
	{ "<think></think>", "" },
	/* no command */
	{ "", "" },
	{ "   \n\n", "" },
	{ "NONE", "" },
	{ "Sorry, I cannot help with that.", "" },
	{ "I don't know.", "" },
	{ "没有这样的命令。", "" },
	{ "抱歉,我不知道", "" },
	{ "the quick brown fox jumps over it.", "" },
	{ "There is no command for this", "" },
	{ "```json\n{\"a\": 1}\n```", "" },
	{ "```\n```", "" },
	{ "``", "" },
	{ "`", "" },
	{ "# only a comment", "" },
	{ "ls\x1b[2K\x1b[1Gecho safe", "" },
	{ "rm -rf /tmp/x\rls", "" },
};

static void commands_are_taken_out_of_answers(void **state)
{
	size_t n_bad = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf out = BASE_BUF_INIT(4096);
		int r = ag_extract_command(cases[i].answer, strlen(cases[i].answer), &out);

		if (r != (cases[i].command[0] != 0) || strcmp(base_buf_text(&out), cases[i].command) != 0) {
			print_error("%s\n  expected: %s\n  got (%d): %s\n", cases[i].answer, cases[i].command, r,
			            base_buf_text(&out));
			n_bad++;
		}
		base_buf_done(&out);
	}
	assert_int_equal(n_bad, 0);
}

static void what_was_in_the_buffer_stays(void **state)
{
	struct base_buf out = BASE_BUF_INIT(64);

	(void)state;
	assert_int_equal(base_buf_puts(&out, "kept "), 0);
	assert_int_equal(ag_extract_command("Sorry.", 6, &out), 0);
	assert_string_equal(base_buf_text(&out), "kept ");
	assert_int_equal(ag_extract_command("ls -l", 5, &out), 1);
	assert_string_equal(base_buf_text(&out), "kept ls -l");
	base_buf_done(&out);
}

static void a_full_buffer_is_an_error(void **state)
{
	struct base_buf out = BASE_BUF_INIT(3);

	(void)state;
	assert_true(ag_extract_command("ls -la", 6, &out) < 0);
	base_buf_done(&out);
}

static const char *system_of(const char *model, const char *question)
{
	static char text[2048];
	json_t *m = ag_cmd_messages(model, question);

	assert_int_equal(json_array_size(m), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(m, 0), "role")), "system");
	assert_string_equal(json_string_value(json_object_get(json_array_get(m, 1), "role")), "user");
	assert_string_equal(json_string_value(json_object_get(json_array_get(m, 1), "content")), question);
	(void)snprintf(text, sizeof(text), "%s", json_string_value(json_object_get(json_array_get(m, 0), "content")));
	json_decref(m);
	return text;
}

static void the_prompt_depends_on_model_and_language(void **state)
{
	(void)state;
	assert_string_equal(system_of("ocai-mini", "list files"), "cmd");
	assert_string_equal(system_of("ocai-mini-q8", "列出文件"), "cmd");
	assert_non_null(strstr(system_of("qwen3", "list files"), "exactly one shell command"));
	assert_non_null(strstr(system_of("qwen3", "列出文件"), "一条"));
}

static void chinese_is_recognised(void **state)
{
	(void)state;
	assert_true(ag_is_chinese("查看内存"));
	assert_true(ag_is_chinese("show 内存"));
	assert_true(ag_is_chinese("\xf0\xa0\x80\x80")); /* U+20000 */
	assert_false(ag_is_chinese("show memory"));
	assert_false(ag_is_chinese("caf\xc3\xa9 \xf0\x9f\x98\x80")); /* accents and emoji */
	assert_false(ag_is_chinese("\xe3\x81\x82"));                 /* kana */
	assert_false(ag_is_chinese(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_are_taken_out_of_answers),
		cmocka_unit_test(what_was_in_the_buffer_stays),
		cmocka_unit_test(a_full_buffer_is_an_error),
		cmocka_unit_test(the_prompt_depends_on_model_and_language),
		cmocka_unit_test(chinese_is_recognised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
