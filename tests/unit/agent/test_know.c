/* The task catalogue: its parser, matching with slots, and the judgement of a model's command. */
#include "test.h"
#include "catalogue.h"

#include <errno.h>

#include "../../../agent/src/know/know.h"

static const char small[] = "@look = show|print\n"
                            "[svc.status] read\n"
                            "$ systemctl status {unit}\n"
                            "% systemd\n"
                            "? zh 查看服务的状态 ; en Shows the state of a service\n"
                            "zh <look>{unit}(服务|)的?状态 ; 查看{unit}状态\n"
                            "en <look> (the |)status of {unit}\n"
                            "[file.grep] read\n"
                            "$ grep \"{word}\" {file}\n"
                            "en find {word} in {file}\n"
                            "[file.swap] change\n"
                            "$ mv {a:file} {b:file}\n"
                            "en rename {a:file} to {b:file}\n"
                            "[awk.col] read\n"
                            "$ awk '{print ${n}}' {file}\n"
                            "en column {n} of {file}\n";

static struct ag_know *parse(const char *text)
{
	struct ag_know *k = NULL;
	struct err err = { 0 };

	if (ag_know_parse("test", text, strlen(text), &k, &err) < 0)
		fail_msg("%s", err_text(&err));
	return k;
}

static void expect_command(const struct ag_know *k, const char *question, const char *command)
{
	struct ag_know_match m;

	assert_int_equal(ag_know_match(k, question, &m, 1), 1);
	assert_string_equal(m.command, command);
	ag_know_match_done(&m);
}

static void a_small_catalogue_answers(void **state)
{
	struct ag_know *k = parse(small);
	struct ag_know_match m;

	(void)state;
	assert_int_equal(ag_know_n_tasks(k), 4);
	assert_int_equal(ag_know_match(k, "print the status of nginx", &m, 1), 1);
	assert_string_equal(m.id, "svc.status");
	assert_string_equal(m.command, "systemctl status nginx");
	assert_string_equal(m.explain_zh, "查看服务的状态");
	assert_string_equal(m.explain_en, "Shows the state of a service");
	assert_string_equal(m.packages, "systemd");
	assert_int_equal(m.n_slots, 1);
	assert_string_equal(m.slots[0].type, "unit");
	assert_string_equal(m.slots[0].value, "nginx");
	ag_know_match_done(&m);
	expect_command(k, "查看nginx服务的状态", "systemctl status nginx");
	ag_know_close(k);
}

static void a_slot_that_the_question_does_not_fill_stays_open(void **state)
{
	struct ag_know *k = parse(small);
	struct ag_know_match m;

	(void)state;
	assert_int_equal(ag_know_match(k, "查看状态", &m, 1), 1);
	assert_string_equal(m.command, "systemctl status <unit>");
	assert_int_equal(m.n_unfilled, 1);
	assert_int_not_equal(m.certainty, AG_KNOW_CERTAIN);
	ag_know_match_done(&m);
	ag_know_close(k);
}

static void values_are_quoted_for_their_place(void **state)
{
	struct ag_know *k = parse(small);

	(void)state;
	expect_command(k, "find a$(reboot)b in x.log", "grep \"a\\$(reboot)b\" x.log");
	expect_command(k, "rename a.txt to ~/b;reboot.txt", "mv a.txt ~/b");
	expect_command(k, "rename /tmp/a&b to b.txt", "mv '/tmp/a&b' b.txt");
	expect_command(k, "column 3 of data.csv", "awk '{print $3}' data.csv");
	ag_know_close(k);
}

static void a_value_never_begins_with_a_dash(void **state)
{
	struct ag_know *k = parse(small);
	struct ag_know_match m;

	(void)state;
	assert_int_equal(ag_know_match(k, "show status of --force", &m, 1), 1);
	assert_null(strstr(m.command, "--force"));
	ag_know_match_done(&m);
	ag_know_close(k);
}

static void mistakes_name_file_and_line(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "[a] maybe\n", "f:1: risk is none of" },
		{ "[a] read\n$ ls\n\nen (ls|\n", "f:4: a group is not closed" },
		{ "[a] read\n$ ls\nen show)\n", "f:3: ')' or '|' outside a group" },
		{ "[a] read\n$ ls\nen show {pkg}\n", "f:3: a wording has a slot that the command has not" },
		{ "[a] read\n$ ls\nen <nothing>\n", "f:3: an unknown <name>" },
		{ "[a] read\n[b] read\n", "f:2: the task before this line" },
		{ "[a] read\nen ls\n", "f:2: a wording before the command" },
		{ "$ ls\n", "f:1: a line before the first [id]" },
		{ "[a] read\n$ ls\nen x\n[a] read\n$ ls\nen y\n", "task a occurs twice" },
		{ "[a] read\n$ ls\nen files?\n", "f:3: '?' after a Latin word" },
		{ "[a] read\n$ ls\n? list\n", "f:3: not ? zh" },
		{ "[a] read\n$ ls\nen ((((((((((x))))))))))\n", "f:3: groups too deep" },
		{ "hello\n", "f:1: a line before" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ag_know *k = NULL;
		struct err err = { 0 };

		assert_int_equal(ag_know_parse("f", cases[i].text, strlen(cases[i].text), &k, &err), -EBADMSG);
		assert_null(k);
		if (!strstr(err.msg, cases[i].words))
			fail_msg("\"%s\" lacks \"%s\"", err.msg, cases[i].words);
	}
}

static void a_missing_folder_is_an_error(void **state)
{
	struct ag_know *k = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ag_know_open("/nonexistent/knowledge", &k, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent/knowledge"));
}

static void slots_are_taken_out_of_questions(void **state)
{
	static const char *const cases[][2] = {
		{ "查看哪个进程占用80端口", "ss -tlnp | grep :80" },
		{ "open port 8443 in the firewall",
		  "firewall-cmd --permanent --add-port=8443/tcp && firewall-cmd --reload" },
		{ "power off in ten minutes", "shutdown -h +10" },
		{ "十分钟后关机", "shutdown -h +10" },
		{ "把日志清理到只剩500兆", "journalctl --vacuum-size=500M" },
		{ "ssh登录root@10.2.3.4", "ssh root@10.2.3.4" },
		{ "show the size of /var/lib/docker", "du -sh /var/lib/docker" },
		{ "给eth0配置静态ip 10.1.1.5/24，网关10.1.1.1",
		  "nmcli connection modify eth0 ipv4.method manual ipv4.addresses 10.1.1.5/24 ipv4.gateway 10.1.1.1 && "
		  "nmcli "
		  "connection up eth0" },
		{ "md5 of image.iso", "md5sum image.iso" },
		{ "instal htop", "dnf install htop" },
		{ "查看podman容器web的日志", "podman logs web" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_command(*state, cases[i][0], cases[i][1]);
}

static void a_plain_question_is_certain(void **state)
{
	struct ag_know_match m;

	assert_int_equal(ag_know_match(*state, "安装nginx", &m, 1), 1);
	assert_int_equal(m.certainty, AG_KNOW_CERTAIN);
	assert_int_equal(m.risk, AG_KNOW_CHANGE);
	ag_know_match_done(&m);
}

static void nonsense_is_unsure(void **state)
{
	static const char *const cases[] = { "今天天气怎么样", "write me a poem about autumn leaves", "zzz qqq",
		                             "？？？" };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ag_know_match m;

		if (ag_know_match(*state, cases[i], &m, 1) == 0)
			continue;
		assert_int_equal(m.certainty, AG_KNOW_UNSURE);
		ag_know_match_done(&m);
	}
}

static void an_empty_question_has_no_tasks(void **state)
{
	struct ag_know_match m;

	assert_int_equal(ag_know_match(*state, "", &m, 1), 0);
	assert_int_equal(ag_know_match(*state, "   ", &m, 1), 0);
}

/* Commands that the embedded model gave, or could give, for questions that mean something else. */
static void wrong_commands_of_the_model_are_caught(void **state)
{
	static const struct {
		const char *question, *model, *want;
	} cases[] = {
		{ "let https through the firewall for good", "systemctl disable --now firewalld",
		  "firewall-cmd --permanent --add-service=https && firewall-cmd --reload" },
		{ "先把 zhangsan 的账号锁住", "usermod -aG wheel zhangsan", "usermod -L zhangsan" },
		{ "md5 of image.iso", "mount -o loop image.iso /mnt", "md5sum image.iso" },
		{ "power off in ten minutes", "shutdown -h +1", "shutdown -h +10" },
		{ "查看磁盘使用情况", "rm -rf /var/log", "df -h" },
		{ "how full is the disk", "mkfs.xfs /dev/sda1", "df -h" },
		{ "swap 开了没有", "dnf install -y swap", "swapon --show" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ag_know_answer a;

		assert_int_equal(ag_know_decide(*state, cases[i].question, cases[i].model, &a), 0);
		assert_string_equal(a.command, cases[i].want);
		assert_true(a.from_catalogue);
		assert_int_equal(a.verdict, AG_KNOW_PREFER_CATALOGUE);
		assert_int_equal(ag_know_check_answer(*state, cases[i].question, cases[i].model, &a), 0);
		assert_string_equal(a.command, "");
		assert_true(a.reason[0] != '\0');
	}
}

static void a_question_that_asks_never_upgrades(void **state)
{
	struct ag_know_answer a;

	assert_int_equal(ag_know_decide(*state, "anything to update on this host", "dnf upgrade -y", &a), 0);
	assert_null(strstr(a.command, "upgrade"));
}

static void a_good_command_is_accepted(void **state)
{
	static const char *const cases[][2] = {
		{ "帮我看下 mysqld 起来没", "systemctl status mysqld" },
		{ "install nginx", "sudo yum install -y nginx" },
		{ "删除 /tmp/old.log", "rm /tmp/old.log" },
		{ "restart the sshd service", "systemctl restart sshd.service" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ag_know_answer a;

		assert_int_equal(ag_know_check_answer(*state, cases[i][0], cases[i][1], &a), 0);
		assert_int_equal(a.verdict, AG_KNOW_ACCEPT);
		assert_string_equal(a.command, cases[i][1]);
	}
}

static void a_prompt_lists_the_nearest_tasks(void **state)
{
	struct base_buf out = BASE_BUF_INIT(65536);

	assert_int_equal(ag_know_prompt(*state, "which process uses port 80", 3, &out), 0);
	assert_non_null(strstr(base_buf_text(&out), "ss -tlnp | grep :{port}"));
	base_buf_done(&out);
}

static void long_and_broken_questions_do_no_harm(void **state)
{
	struct ag_know_match m;
	char text[5000];

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	if (ag_know_match(*state, text, &m, 1) > 0)
		ag_know_match_done(&m);
	for (size_t i = 0; i + 1 < sizeof(text); i++)
		text[i] = (char)(i % 3 == 0 ? 0xe7 : i % 7 == 0 ? ' ' : 0x9b);
	if (ag_know_match(*state, text, &m, 1) > 0)
		ag_know_match_done(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_small_catalogue_answers),
		cmocka_unit_test(a_slot_that_the_question_does_not_fill_stays_open),
		cmocka_unit_test(values_are_quoted_for_their_place),
		cmocka_unit_test(a_value_never_begins_with_a_dash),
		cmocka_unit_test(mistakes_name_file_and_line),
		cmocka_unit_test(a_missing_folder_is_an_error),
		cmocka_unit_test(slots_are_taken_out_of_questions),
		cmocka_unit_test(a_plain_question_is_certain),
		cmocka_unit_test(nonsense_is_unsure),
		cmocka_unit_test(an_empty_question_has_no_tasks),
		cmocka_unit_test(wrong_commands_of_the_model_are_caught),
		cmocka_unit_test(a_question_that_asks_never_upgrades),
		cmocka_unit_test(a_good_command_is_accepted),
		cmocka_unit_test(a_prompt_lists_the_nearest_tasks),
		cmocka_unit_test(long_and_broken_questions_do_no_harm),
	};

	return cmocka_run_group_tests(tests, open_catalogue, close_catalogue);
}
