/* The gate's parser, rules, verdicts, audit log and masks. */
#include "test.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "gate/gate.h"

static const struct ag_gate_context context = { "/home/me", "/home/me/src", "/dev/sda2 / xfs rw 0 0\n" };

static int parses(const char *line)
{
	struct ag_gate_tree *tree = NULL;
	int r = ag_gate_parse(line, strlen(line), &tree, NULL);

	ag_gate_tree_free(tree);
	return r;
}

static void shell_grammar_is_accepted(void **state)
{
	static const char *const lines[] = {
		"",
		"# only a comment",
		"a && b || c; d &",
		"if a; then b; elif c; then d; else e; fi > f",
		"for i in 1 2; do echo $i; done",
		"for ((i=0;i<3;i++)); do echo; done",
		"case $x in a|b) ls;; (c) rm;; *) ;; esac",
		"f() { ls; }; function g { ls; }; f",
		"cat <<EOF <<-'X' | sh\na $(b)\nEOF\n\tc\n\tX\nls",
		"echo $'a\\x41' \"a $(echo \"b `date`\")\" ${x:-$(ls)} ${#x} ${x//a/b} ${!y} $((1+(2*3)))",
		"x=(1 2 3) y+=z z[1]=2; declare -a q=(1 2)",
		"[[ a =~ ^(b|c)$ && ! -f x ]]",
		"diff <(ls) <(ls x) > >(tee y) 2>&1 &>z {fd}>w <<< word",
		"! time -p (cd /; ls) |& { ls; }",
		"ls !(x|y) \\\n  -l",
		"((x > 1)) && ((cd a); ls)",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (parses(lines[i]) != 0)
			fail_msg("refused: %s", lines[i]);
}

static void broken_lines_are_refused(void **state)
{
	static const char *const lines[] = { "a &&", ";",       "ls )",   "echo \"x", "echo 'x", "echo $(ls",
		                             "`ls",  "if a",    "for in", "while a;", "f() ls",  "{ ls",
		                             "(ls",  "a | | b", "echo >", "echo ${x", "[[ a",    "case x in",
		                             "done", "x=(1 2",  "& ls" };

	(void)state;
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (parses(lines[i]) != -EBADMSG)
			fail_msg("accepted: %s", lines[i]);
}

static void deep_nesting_is_refused_not_followed(void **state)
{
	char line[4096];

	(void)state;
	memset(line, '(', sizeof(line));
	line[sizeof(line) - 1] = '\0';
	assert_int_equal(parses(line), -EBADMSG);
	for (size_t i = 0; i + 2 < sizeof(line); i += 2)
		memcpy(line + i, "$(", 2);
	assert_int_equal(parses(line), -EBADMSG);
}

static void the_longest_line_is_bounded(void **state)
{
	size_t len = AG_GATE_MAX_LINE + 1;
	char *line = malloc(len);
	struct ag_gate_tree *tree = NULL;
	struct ag_gate_decision *d = NULL;

	(void)state;
	assert_non_null(line);
	for (size_t i = 0; i < len; i++)
		line[i] = i % 2 ? ';' : 'a';
	assert_int_equal(ag_gate_parse(line, len, &tree, NULL), -EBADMSG);
	assert_null(tree);
	assert_int_equal(ag_gate_decide(NULL, line, len - 1, &context, &d), 0);
	assert_true(d->verdict >= AG_GATE_ASK);
	ag_gate_decision_free(d);
	free(line);
}

/* Every cut and every changed byte of a rich line: no crash, and what does not parse is never read-only. */
static void any_damage_to_a_line_is_survived(void **state)
{
	static const char line[] = "for i in a {b,c}; do x=$(ls \"$i\" | sed 's/a/b/' 2>&1) && [[ $x ]] || rm "
	                           "${x:-`y`} <<E >o\nt $((1))\nE\ndone";
	char copy[sizeof(line)];

	(void)state;
	for (size_t i = 0; i < sizeof(line) - 1; i++) {
		for (int c = 0; c < 256; c += i % 3 + 1) {
			struct ag_gate_risk *risk = NULL;
			struct ag_gate_tree *tree = NULL;

			memcpy(copy, line, sizeof(line));
			copy[i] = (char)c;
			assert_int_equal(ag_gate_assess(copy, c ? sizeof(line) - 1 : i, &context, &risk), 0);
			if (ag_gate_parse(copy, c ? sizeof(line) - 1 : i, &tree, NULL) < 0)
				assert_true(risk->class != AG_GATE_READ && (risk->flags & AG_GATE_UNKNOWN));
			ag_gate_tree_free(tree);
			ag_gate_risk_free(risk);
		}
	}
}

static const char rules_text[] = "# ours\n"
                                 "allow systemctl restart nginx\n"
                                 "allow dnf install *\n"
                                 "allow rm -rf ./build\n"
                                 "allow > /tmp/*\n"
                                 "allow echo *\n"
                                 "ask ls /secret*\n"
                                 "deny systemctl stop *\n"
                                 "deny curl\n"
                                 "deny dnf install telnet\n"
                                 "deny git push -f\n"
                                 "deny sudo -i\n";

static void rules_decide_with_deny_above_all(void **state)
{
	static const struct {
		const char *line;
		enum ag_gate_verdict verdict;
	} cases[] = {
		{ "ls", AG_GATE_RUN },
		{ "systemctl restart nginx", AG_GATE_RUN },
		{ "sudo systemctl restart nginx", AG_GATE_RUN },
		{ "systemctl restart nginx; ls", AG_GATE_RUN },
		{ "systemctl restart nginx --force", AG_GATE_ASK },
		{ "systemctl restart sshd", AG_GATE_ASK },
		{ "systemctl restart nginx && touch x", AG_GATE_ASK },
		{ "systemctl restart nginx > /etc/x.conf", AG_GATE_ASK_TWICE },
		{ "echo a > /tmp/x", AG_GATE_RUN },
		{ "echo a > /srv/x", AG_GATE_ASK },
		{ "dnf install -y nginx", AG_GATE_RUN },
		{ "dnf install telnet", AG_GATE_DENY },
		{ "dnf -y install nginx telnet", AG_GATE_DENY },
		{ "dnf install $(cat list)", AG_GATE_ASK_TWICE },
		{ "rm -rf ./build", AG_GATE_ASK },
		{ "rm -rf ./build2", AG_GATE_ASK_TWICE },
		{ "rm -rf ./build /", AG_GATE_DENY },
		{ "rm -rf /", AG_GATE_DENY },
		{ "ls /secrets", AG_GATE_ASK },
		{ "systemctl stop nginx", AG_GATE_DENY },
		{ "systemctl --no-block stop nginx", AG_GATE_DENY },
		{ "sudo -u root env A=b /usr/bin/systemctl stop nginx", AG_GATE_DENY },
		{ "bash -c 'systemctl stop nginx'", AG_GATE_DENY },
		{ "x=stop; systemctl $x nginx", AG_GATE_DENY },
		{ "systemctl $what nginx", AG_GATE_ASK_TWICE },
		{ "ls; curl -s x", AG_GATE_DENY },
		{ "echo $(curl x)", AG_GATE_DENY },
		{ "git push origin main -f", AG_GATE_DENY },
		{ "git push origin main", AG_GATE_ASK },
		{ "sudo -i", AG_GATE_DENY },
		{ "sudo ls", AG_GATE_RUN },
		{ "cat /etc/shadow", AG_GATE_ASK },
		{ "echo 'unclosed", AG_GATE_ASK_TWICE },
	};
	struct ag_gate_rules *rules = NULL;

	(void)state;
	assert_int_equal(ag_gate_rules_new(&rules), 0);
	assert_int_equal(ag_gate_rules_parse(rules, rules_text, strlen(rules_text), "test.rules", NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ag_gate_decision *d = NULL;

		assert_int_equal(ag_gate_decide(rules, cases[i].line, strlen(cases[i].line), &context, &d), 0);
		if (d->verdict != cases[i].verdict)
			fail_msg("%s: %s (%s), expected %s", cases[i].line, ag_gate_verdict_name(d->verdict), d->reason,
			         ag_gate_verdict_name(cases[i].verdict));
		assert_true(*d->reason);
		assert_true(d->verdict == AG_GATE_RUN || *d->permit);
		ag_gate_decision_free(d);
	}
	ag_gate_rules_free(rules);
}

static void an_allow_for_everything_does_not_lift_built_in_denials(void **state)
{
	struct ag_gate_rules *rules = NULL;
	struct ag_gate_decision *d = NULL;

	(void)state;
	assert_int_equal(ag_gate_rules_new(&rules), 0);
	assert_int_equal(ag_gate_rules_add(rules, AG_GATE_ALLOW, "* *", "test", NULL), 0);
	assert_int_equal(ag_gate_decide(rules, "sudo rm -rf /", 13, &context, &d), 0);
	assert_int_equal(d->verdict, AG_GATE_DENY);
	ag_gate_decision_free(d);
	ag_gate_rules_free(rules);
}

static void the_offered_rule_permits_the_command(void **state)
{
	static const char line[] = "sudo systemctl restart 'nginx'";
	struct ag_gate_rules *rules = NULL;
	struct ag_gate_decision *d = NULL;

	(void)state;
	assert_int_equal(ag_gate_rules_new(&rules), 0);
	assert_int_equal(ag_gate_decide(rules, line, strlen(line), &context, &d), 0);
	assert_int_equal(d->verdict, AG_GATE_ASK);
	assert_string_equal(d->rule, "systemctl restart nginx");
	assert_non_null(strstr(d->permit, "allow systemctl restart nginx"));
	assert_int_equal(ag_gate_rules_add(rules, AG_GATE_ALLOW, d->rule, "test", NULL), 0);
	ag_gate_decision_free(d);
	assert_int_equal(ag_gate_decide(rules, line, strlen(line), &context, &d), 0);
	assert_int_equal(d->verdict, AG_GATE_RUN);
	ag_gate_decision_free(d);
	ag_gate_rules_free(rules);
}

static void a_bad_rule_names_its_line(void **state)
{
	struct ag_gate_rules *rules = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ag_gate_rules_new(&rules), 0);
	assert_int_equal(ag_gate_rules_parse(rules, "allow ls\npermit x\n", 18, "f", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "f:2"));
	assert_int_equal(ag_gate_rules_parse(rules, "allow  \n", 8, "f", NULL), -EINVAL);
	ag_gate_rules_free(rules);
}

static char folder[] = "/tmp/gate-test-XXXXXX";

static const char *in_folder(const char *name)
{
	static char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void saved_rules_are_read_back_and_private(void **state)
{
	struct ag_gate_rules *rules = NULL;
	struct ag_gate_decision *d = NULL;
	struct stat st;

	(void)state;
	assert_int_equal(ag_gate_rules_save(in_folder("deep/gate.rules"), AG_GATE_ALLOW, "touch a", NULL), 0);
	assert_int_equal(ag_gate_rules_save(in_folder("deep/gate.rules"), AG_GATE_DENIES, "touch b", NULL), 0);
	assert_int_equal(ag_gate_rules_save(in_folder("deep/gate.rules"), AG_GATE_ALLOW, "a\nallow *", NULL), -EINVAL);
	assert_int_equal(stat(in_folder("deep/gate.rules"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ag_gate_rules_new(&rules), 0);
	assert_int_equal(ag_gate_rules_read(rules, in_folder("none"), NULL), 0);
	assert_int_equal(ag_gate_rules_read(rules, in_folder("deep/gate.rules"), NULL), 0);
	assert_int_equal(ag_gate_decide(rules, "touch a; touch b", 7, &context, &d), 0);
	assert_int_equal(d->verdict, AG_GATE_RUN);
	ag_gate_decision_free(d);
	assert_int_equal(ag_gate_decide(rules, "touch a; touch b", 16, &context, &d), 0);
	assert_int_equal(d->verdict, AG_GATE_DENY);
	ag_gate_decision_free(d);
	assert_int_equal(chmod(in_folder("deep/gate.rules"), 0666), 0);
	assert_int_equal(ag_gate_rules_read(rules, in_folder("deep/gate.rules"), NULL), -EPERM);
	ag_gate_rules_free(rules);
}

static void the_audit_log_holds_masked_lines_and_is_private(void **state)
{
	struct ag_gate_audit_entry e = { .command = "mysql --password=hunter2 \"x\"\n",
		                         .cwd = "/srv",
		                         .origin = "cmd",
		                         .class = AG_GATE_CHANGE,
		                         .verdict = AG_GATE_ASK,
		                         .ran = true,
		                         .exit_code = 3 };
	json_error_t error;
	struct stat st;
	char text[2048];
	json_t *line;
	FILE *f;

	(void)state;
	assert_int_equal(ag_gate_audit(in_folder("audit/log"), &e, 0, NULL), 0);
	assert_int_equal(ag_gate_audit(in_folder("audit/log"), &e, 0, NULL), 0);
	assert_int_equal(stat(in_folder("audit/log"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	f = fopen(in_folder("audit/log"), "r");
	assert_non_null(f);
	for (int i = 0; i < 2; i++) {
		assert_non_null(fgets(text, sizeof(text), f));
		assert_null(strstr(text, "hunter2"));
		line = json_loads(text, 0, &error);
		assert_non_null(line);
		assert_string_equal(json_string_value(json_object_get(line, "verdict")), "ask");
		assert_int_equal(json_integer_value(json_object_get(line, "exit_code")), 3);
		json_decref(line);
	}
	assert_null(fgets(text, sizeof(text), f));
	(void)fclose(f);
}

static void the_audit_log_rotates_at_its_bound_and_follows_no_link(void **state)
{
	struct ag_gate_audit_entry e = { .command = "ls", .cwd = "/", .origin = "cmd" };
	char link_to[256];
	struct stat st;

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(ag_gate_audit(in_folder("small"), &e, 1000, NULL), 0);
	assert_int_equal(stat(in_folder("small"), &st), 0);
	assert_true(st.st_size > 0 && st.st_size <= 1000);
	assert_int_equal(stat(in_folder("small.1"), &st), 0);
	assert_true(st.st_size > 0 && st.st_size <= 1000);
	(void)snprintf(link_to, sizeof(link_to), "%s", in_folder("small"));
	assert_int_equal(symlink(link_to, in_folder("link")), 0);
	assert_int_equal(ag_gate_audit(in_folder("link"), &e, 0, NULL), -ELOOP);
}

static void secrets_are_masked(void **state)
{
	static const struct {
		const char *text, *masked;
	} cases[] = {
		{ "nothing here", "nothing here" },
		{ "password=hunter2", "password=[secret:password]" },
		{ "DB_PASSWORD='a b' x", "DB_PASSWORD='[secret:password]' x" },
		{ "{\"api_key\": \"abc\", \"n\": 1}", "{\"api_key\": \"[secret:api-key]\", \"n\": 1}" },
		{ "mysql --password=x -u me", "mysql --password=[secret:password] -u me" },
		{ "tool --token abcd next", "tool --token [secret:token] next" },
		{ "the password is wrong", "the password is wrong" },
		{ "echo $PASSWORD; password=$P", "echo $PASSWORD; password=$P" },
		{ "https://me:s3cret@host/x", "https://me:[secret:password]@host/x" },
		{ "https://host:8080/x@y", "https://host:8080/x@y" },
		{ "curl -H 'Authorization: Bearer abc.def' u",
		  "curl -H 'Authorization: Bearer [secret:authorization]' u" },
		{ "Authorization: Basic dXNlcg==\nX: y", "Authorization: Basic [secret:authorization]\nX: y" },
		{ "key AKIAIOSFODNN7EXAMPLE.", "key [secret:aws-key]" },
		{ "ghp_0123456789abcdefghijklmnopqrstuvwxyz", "[secret:token]" },
		{ "sk-abcdefghijklmnopqrstuvwx", "[secret:api-key]" },
		{ "task-list of sk-8", "task-list of sk-8" },
		{ "a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b",
		  "a [secret:private-key] b" },
		{ "-----BEGIN OPENSSH PRIVATE KEY-----\ncut", "[secret:private-key]" },
		{ "-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----\nMII" },
		{ "root:$6$salt$abcdefghijklmnopqrst:1", "root:[secret:hash]:1" },
		{ "\xe5\xaf\x86\xe7\xa0\x81\xef\xbc\x9a"
		  "abc123",
		  "\xe5\xaf\x86\xe7\xa0\x81\xef\xbc\x9a[secret:password]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct base_buf out = BASE_BUF_INIT(4096);
		int n = ag_gate_mask(cases[i].text, strlen(cases[i].text), &out);

		assert_string_equal(base_buf_text(&out), cases[i].masked);
		assert_int_equal(n, strcmp(cases[i].text, cases[i].masked) != 0);
		base_buf_done(&out);
	}
}

static void masking_into_a_full_buffer_is_an_error(void **state)
{
	struct base_buf out = BASE_BUF_INIT(8);

	(void)state;
	assert_int_equal(ag_gate_mask("password=1234567890", 19, &out), -EFBIG);
	base_buf_done(&out);
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	static const char *const names[] = { "deep/gate.rules", "deep",    "audit/log", "audit",
		                             "small",           "small.1", "link",      "" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)remove(in_folder(names[i]));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shell_grammar_is_accepted),
		cmocka_unit_test(broken_lines_are_refused),
		cmocka_unit_test(deep_nesting_is_refused_not_followed),
		cmocka_unit_test(the_longest_line_is_bounded),
		cmocka_unit_test(any_damage_to_a_line_is_survived),
		cmocka_unit_test(rules_decide_with_deny_above_all),
		cmocka_unit_test(an_allow_for_everything_does_not_lift_built_in_denials),
		cmocka_unit_test(the_offered_rule_permits_the_command),
		cmocka_unit_test(a_bad_rule_names_its_line),
		cmocka_unit_test(saved_rules_are_read_back_and_private),
		cmocka_unit_test(the_audit_log_holds_masked_lines_and_is_private),
		cmocka_unit_test(the_audit_log_rotates_at_its_bound_and_follows_no_link),
		cmocka_unit_test(secrets_are_masked),
		cmocka_unit_test(masking_into_a_full_buffer_is_an_error),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
