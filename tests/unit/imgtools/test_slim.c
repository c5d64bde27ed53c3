/* From a tree to a slim tree: policy, entry points, hard links, sums, layers, trials' words. */
#include <errno.h>

#include "oci/oci.h"
#include "slim/job.h"
#include "slim/slim.h"
#include "tree_test.h"

static struct img_slim_plan *plan_of(struct img_tree *t, const struct img_policy *policy, const struct img_config *c)
{
	struct img_slim_opts o = { .tree = t, .policy = policy, .config = c };
	struct img_slim_plan *p = NULL;
	struct err err = { 0 };

	if (img_slim_plan_new(&o, &p, &err) < 0)
		fail_msg("%s", err_text(&err));
	return p;
}

static struct img_tree *slim_of(const struct img_slim_plan *p)
{
	struct img_tree *t = NULL;

	assert_int_equal(img_slim_tree(p, &t, NULL), 0);
	return t;
}

static void set(struct img_policy *p, const char *key, const char *value)
{
	assert_int_equal(img_policy_set(p, key, value, NULL), 0);
}

static struct img_node *add_program(struct img_tree *t, const char *path)
{
	struct img_node *n = add_file(t, path, "program");

	n->mode = 0755;
	return n;
}

static void patterns_are_those_of_a_shell_and_two_stars(void **state)
{
	(void)state;
	assert_true(img_path_matches("/usr/lib/*.so", "/usr/lib/a.so"));
	assert_false(img_path_matches("/usr/lib/*.so", "/usr/lib/x/a.so"));
	assert_true(img_path_matches("/usr/**.so", "/usr/lib/x/a.so"));
	assert_true(img_path_matches("**/libssl.so*", "/usr/lib64/libssl.so.3"));
	assert_true(img_path_matches("/opt/app/", "/opt/app"));
	assert_true(img_path_matches("/opt/app/", "/opt/app/x/y"));
	assert_false(img_path_matches("/opt/app/", "/opt/apple"));
	assert_true(img_path_matches("/usr/share/locale/de*/", "/usr/share/locale/de_AT/x"));
	assert_true(img_path_matches("/a\\*b", "/a*b"));
	assert_false(img_path_matches("/a\\*b", "/axb"));
	assert_true(img_path_matches("/exact", "/exact"));
	assert_false(img_path_matches("/exact", "/exact/below"));
}

static void policy_files_are_read_and_faults_have_a_line(void **state)
{
	static const char text[] = "# x\n[policy]\ntimezones = UTC, Europe/Berlin\nlicences = yes\n[keep]\npath = /a/\n"
	                           "path = /b\n[drop]\npath = /b*\n";
	struct img_policy *p = img_policy_new();
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_policy_parse(p, text, strlen(text), "x", &err), 0);
	assert_string_equal(img_policy_get(p, IMG_POLICY_TIMEZONES), "UTC, Europe/Berlin");
	assert_string_equal(img_policy_get(p, IMG_POLICY_LICENCES), "yes");
	assert_true(img_policy_drops(p, "/bx"));
	assert_false(img_policy_drops(p, "/b")); /* keep wins */
	assert_int_equal(img_policy_parse(p, "[policy]\nno = such\n", 18, "y", &err), -EINVAL);
	assert_string_equal(err.msg, "y:2: no: no such policy");
	assert_int_equal(img_policy_parse(p, "[keep]\npath = relative\n", 23, "y", &err), -EINVAL);
	assert_int_equal(img_policy_parse(p, "[policy]\ngconv = perhaps\n", 25, "y", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "yes,no,auto"));
	assert_int_equal(img_policy_parse(p, "nonsense\n", 9, "y", &err), -EBADMSG);
	img_policy_free(p);
}

static void rules_keep_what_no_code_names(void **state)
{
	struct img_tree *t = img_tree_new(), *s;
	struct img_policy *policy = img_policy_new();
	struct img_slim_plan *p;

	(void)state;
	(void)add_file(t, "/etc/passwd", "root:x:0:0::/:/bin/sh\n");
	(void)add_file(t, "/etc/shadow", "root:*:\n");
	(void)add_file(t, "/usr/lib64/libssl.so.3", "x");
	(void)add_file(t, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "certificates");
	(void)add_dir(t, "/etc/pki/tls/certs");
	(void)add_link(t, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
	(void)add_file(t, "/usr/share/zoneinfo/Europe/Berlin", "zone");
	(void)add_file(t, "/usr/share/zoneinfo/Asia/Tokyo", "zone");
	(void)add_file(t, "/usr/share/doc/x/copyright", "free");
	assert_int_equal(img_policy_keep(policy, "/usr/lib64/libssl.so.3"), 0);
	set(policy, "timezones", "Europe/Berlin");
	p = plan_of(t, policy, NULL);
	s = slim_of(p);
	assert_non_null(img_tree_find(s, "/etc/passwd"));
	assert_null(img_tree_find(s, "/etc/shadow"));
	assert_non_null(img_tree_find(s, "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"));
	assert_non_null(img_tree_find(s, "/etc/pki/tls/certs/ca-bundle.crt"));
	assert_non_null(img_tree_find(s, "/usr/share/zoneinfo/Europe/Berlin"));
	assert_null(img_tree_find(s, "/usr/share/zoneinfo/Asia/Tokyo"));
	assert_null(img_tree_find(s, "/usr/share/doc/x/copyright"));
	assert_int_equal(img_tree_find(s, "/tmp")->mode, 01777);
	assert_non_null(img_tree_find(s, "/run"));
	img_tree_free(s);
	img_slim_plan_free(p);
	img_policy_free(policy);
	img_tree_free(t);
}

static void rules_that_do_not_apply_keep_nothing(void **state)
{
	struct img_tree *t = img_tree_new(), *s;
	struct img_policy *policy = img_policy_new();
	struct img_slim_plan *p;

	(void)state;
	(void)add_file(t, "/usr/lib64/libssl.so.3", "x");
	(void)add_file(t, "/etc/ssl/certs/ca-certificates.crt", "certificates");
	(void)add_file(t, "/etc/passwd", "x\n");
	set(policy, "users", "no");
	set(policy, "tmp", "no");
	p = plan_of(t, policy, NULL);
	s = slim_of(p);
	assert_int_equal(img_tree_count(s), 1); /* no TLS library stays, so no certificates do; "/" is always there */
	img_tree_free(s);
	img_slim_plan_free(p);
	img_policy_free(policy);
	img_tree_free(t);
}

static void locales_and_terminals_come_by_name(void **state)
{
	struct img_tree *t = img_tree_new(), *s;
	struct img_policy *policy = img_policy_new();
	struct img_slim_plan *p;

	(void)state;
	(void)add_file(t, "/usr/lib/locale/C.utf8/LC_CTYPE", "x");
	(void)add_file(t, "/usr/lib/locale/de_DE.utf8/LC_CTYPE", "x");
	(void)add_file(t, "/usr/lib/locale/fr_FR.utf8/LC_CTYPE", "x");
	(void)add_file(t, "/usr/share/locale/de/LC_MESSAGES/x.mo", "x");
	(void)add_file(t, "/usr/share/terminfo/v/vt100", "x");
	(void)add_file(t, "/usr/share/terminfo/x/xterm", "x");
	set(policy, "locales", "de_DE.UTF-8");
	set(policy, "terminfo", "vt100");
	p = plan_of(t, policy, NULL);
	s = slim_of(p);
	assert_non_null(img_tree_find(s, "/usr/lib/locale/C.utf8/LC_CTYPE"));
	assert_non_null(img_tree_find(s, "/usr/lib/locale/de_DE.utf8/LC_CTYPE"));
	assert_non_null(img_tree_find(s, "/usr/share/locale/de/LC_MESSAGES/x.mo"));
	assert_null(img_tree_find(s, "/usr/lib/locale/fr_FR.utf8/LC_CTYPE"));
	assert_non_null(img_tree_find(s, "/usr/share/terminfo/v/vt100"));
	assert_null(img_tree_find(s, "/usr/share/terminfo/x/xterm"));
	img_tree_free(s);
	img_slim_plan_free(p);
	img_policy_free(policy);
	img_tree_free(t);
}

static struct img_config *config_of(const char *json)
{
	struct img_config *c = NULL;
	struct err err = { 0 };

	if (img_config_parse(json, strlen(json), "config", &c, &err) < 0)
		fail_msg("%s", err_text(&err));
	return c;
}

static void entry_point_health_check_and_working_folder_are_roots(void **state)
{
	struct img_config *c = config_of(
	        "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]},"
	        "\"config\":{"
	        "\"Entrypoint\":[\"/bin/sh\",\"-c\",\"exec server --port 1\"],\"Env\":[\"PATH=/opt/bin:/bin\"],"
	        "\"WorkingDir\":\"/app\",\"Healthcheck\":{\"Test\":[\"CMD-SHELL\",\"probe || exit 1\"]}}}");
	struct img_tree *t = img_tree_new(), *s;
	struct img_policy *policy = img_policy_new();
	struct img_slim_plan *p;

	(void)state;
	(void)add_program(t, "/bin/sh");
	(void)add_program(t, "/opt/bin/server");
	(void)add_program(t, "/bin/probe");
	(void)add_program(t, "/bin/other");
	(void)add_file(t, "/app/data/x", "x");
	p = plan_of(t, policy, c);
	s = slim_of(p);
	assert_non_null(img_tree_find(s, "/bin/sh"));
	assert_non_null(img_tree_find(s, "/opt/bin/server"));
	assert_non_null(img_tree_find(s, "/bin/probe"));
	assert_null(img_tree_find(s, "/bin/other"));
	assert_non_null(img_tree_find(s, "/app/data/x")); /* nothing was traced: all of it may be wanted */
	img_tree_free(s);
	img_slim_plan_free(p);
	img_policy_free(policy);
	img_config_free(c);
	img_tree_free(t);
}

static void hard_links_count_once_and_single_names_become_plain(void **state)
{
	struct img_tree *t = img_tree_new(), *s;
	struct img_policy *policy = img_policy_new();
	struct img_slim_sums sums;
	struct img_slim_plan *p;
	uint64_t n_files, n_links;

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "/bin/name%u", i);
		add_program(t, path)->link_group = 7;
	}
	add_file(t, "/bin/a", "12345")->link_group = 8;
	add_file(t, "/bin/b", "12345")->link_group = 8;
	assert_int_equal(img_tree_bytes(t, &n_files, &n_links), strlen("program") + 5);
	assert_int_equal(n_files, 5);
	assert_int_equal(img_policy_keep(policy, "/bin/name1"), 0);
	assert_int_equal(img_policy_keep(policy, "/bin/[ab]"), 0);
	p = plan_of(t, policy, NULL);
	s = slim_of(p);
	assert_int_equal(img_tree_find(s, "/bin/name1")->link_group, 0);
	assert_int_equal(img_tree_find(s, "/bin/a")->link_group, 8);
	assert_int_equal(img_slim_sums(p, s, &sums), 0);
	assert_int_equal(sums.all.kept_bytes, strlen("program") + 5);
	assert_int_equal(sums.all.dropped_bytes, 0);
	assert_int_equal(sums.all.n_dropped, 2);
	img_slim_sums_done(&sums);
	img_tree_free(s);
	img_slim_plan_free(p);
	img_policy_free(policy);
	img_tree_free(t);
}

static void layers_are_kept_with_what_was_added_on_top(void **state)
{
	struct img_tree *t = img_tree_new();
	struct img_slim_layers l;

	(void)state;
	add_file(t, "/a", "x")->layer = 0;
	add_file(t, "/b", "x")->layer = 2;
	add_file(t, "/new", "x")->layer = -1;
	assert_int_equal(img_slim_layers(t, NULL, IMG_LAYERS_KEEP, 3, &l, NULL), 0);
	assert_int_equal(l.n, 3);
	assert_int_equal(img_tree_find(t, "/a")->layer, 0);
	assert_int_equal(img_tree_find(t, "/b")->layer, 2);
	assert_int_equal(img_tree_find(t, "/new")->layer, 2);
	img_slim_layers_done(&l);
	assert_int_equal(img_slim_layers(t, NULL, IMG_LAYERS_ONE, 3, &l, NULL), 0);
	assert_int_equal(l.n, 1);
	assert_int_equal(img_tree_find(t, "/b")->layer, 0);
	img_slim_layers_done(&l);
	img_tree_free(t);
}

static void command_lines_are_split_without_a_shell(void **state)
{
	struct img_trial t;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_trial_init(&t, "  a 'b c' \"d \\\"e\\\" $f\"  g\\ h ''", true, &err), 0);
	assert_string_equal(t.argv[0], "a");
	assert_string_equal(t.argv[1], "b c");
	assert_string_equal(t.argv[2], "d \"e\" $f");
	assert_string_equal(t.argv[3], "g h");
	assert_string_equal(t.argv[4], "");
	assert_null(t.argv[5]);
	assert_true(t.is_check);
	img_trial_done(&t);
	assert_int_equal(img_trial_init(&t, "a 'b", false, &err), -EINVAL);
	assert_int_equal(img_trial_init(&t, "   ", false, &err), -EINVAL);
}

static void kinds_of_files_are_told_by_path(void **state)
{
	static const struct {
		const char *path, *category;
	} cases[] = {
		{ "/usr/share/man/man1/x.1.gz", "manual pages" },
		{ "/usr/share/doc/x/README", "documentation" },
		{ "/usr/share/doc/x/copyright", "licences" },
		{ "/usr/lib64/gconv/UTF-16.so", "character sets" },
		{ "/usr/lib64/libz.so.1.2", "libraries" },
		{ "/usr/lib/python3.9/__pycache__/os.cpython-39.pyc", "Python byte code" },
		{ "/usr/lib/python3.9/os.py", "Python sources" },
		{ "/usr/bin/ls", "programs" },
		{ "/srv/x", "other" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct img_node n = { .path = cases[i].path };

		assert_string_equal(img_slim_category(&n), cases[i].category);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patterns_are_those_of_a_shell_and_two_stars),
		cmocka_unit_test(policy_files_are_read_and_faults_have_a_line),
		cmocka_unit_test(rules_keep_what_no_code_names),
		cmocka_unit_test(rules_that_do_not_apply_keep_nothing),
		cmocka_unit_test(locales_and_terminals_come_by_name),
		cmocka_unit_test(entry_point_health_check_and_working_folder_are_roots),
		cmocka_unit_test(hard_links_count_once_and_single_names_become_plain),
		cmocka_unit_test(layers_are_kept_with_what_was_added_on_top),
		cmocka_unit_test(command_lines_are_split_without_a_shell),
		cmocka_unit_test(kinds_of_files_are_told_by_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
