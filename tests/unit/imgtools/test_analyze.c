/* What files need, without running them: on small trees made here. */
#include <errno.h>
#include <limits.h>

#include "analyze/analyze.h"
#include "analyze/analyze_internal.h"
#include "tree_test.h"

/* "kind what -> /path" or "kind what -> -", weak ones with a '?' behind the kind; one per line. */
static int tell(const struct img_need *n, void *arg)
{
	return base_buf_printf(arg, "%s%s %s -> %s\n", img_need_kind_name(n->kind), n->is_weak ? "?" : "", n->what,
	                       n->to ? n->to->path : "-");
}

static char *needs_of(struct img_tree *t, const char *path)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct img_analyze *a = NULL;
	struct err err = { 0 };

	if (img_analyze_new(t, &a, &err) < 0)
		fail_msg("%s", err_text(&err));
	(void)base_buf_puts(&b, "");
	assert_int_equal(img_analyze_file(a, img_tree_find(t, path), tell, &b, NULL, NULL), 0);
	img_analyze_free(a);
	return b.data ? base_buf_take(&b) : strdup("");
}

static void assert_has(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("\"%s\" is not in:\n%s", line, text);
}

static void assert_lacks(const char *text, const char *line)
{
	if (strstr(text, line))
		fail_msg("\"%s\" is in:\n%s", line, text);
}

static struct img_node *add_program(struct img_tree *t, const char *path, const char *text)
{
	struct img_node *n = add_file(t, path, text);

	n->mode = 0755;
	return n;
}

static struct img_node *add_host_file(struct img_tree *t, const char *path, const char *source)
{
	char real[PATH_MAX];
	struct stat st;

	if (stat(source, &st) < 0 || !realpath(source, real))
		skip();
	return add_node(
	        t,
	        (struct img_node){
	                .path = path, .type = IMG_FILE, .mode = 0755, .size = (uint64_t)st.st_size, .source = real });
}

static void program_needs_interpreter_and_libraries_with_their_links(void **state)
{
	struct img_tree *t = img_tree_new();
	char *text;

	(void)state;
	if (access("/lib64/ld-linux-x86-64.so.2", R_OK) < 0 ||
	    access("/lib/x86_64-linux-gnu/libtinfo.so.6", R_OK) < 0 || access("/bin/bash", R_OK) < 0)
		skip();
	(void)add_host_file(t, "/usr/bin/bash", "/bin/bash");
	(void)add_host_file(t, "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2");
	(void)add_host_file(t, "/usr/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6");
	(void)add_host_file(t, "/usr/lib/x86_64-linux-gnu/libtinfo.so.6.4", "/lib/x86_64-linux-gnu/libtinfo.so.6");
	(void)add_link(t, "/usr/lib/x86_64-linux-gnu/libtinfo.so.6", "libtinfo.so.6.4");
	(void)add_dir(t, "/usr/lib64");
	(void)add_link(t, "/lib64", "usr/lib64");
	(void)add_link(t, "/usr/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
	(void)add_link(t, "/lib", "usr/lib");
	text = needs_of(t, "/usr/bin/bash");
	assert_has(text, "interpreter /lib64/ld-linux-x86-64.so.2 -> /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n");
	assert_has(text, "link /lib64 -> /lib64\n");
	assert_has(text, "needed libtinfo.so.6 -> /usr/lib/x86_64-linux-gnu/libtinfo.so.6.4\n");
	assert_has(text, "link /usr/lib/x86_64-linux-gnu/libtinfo.so.6 -> /usr/lib/x86_64-linux-gnu/libtinfo.so.6\n");
	assert_has(text, "needed libc.so.6 -> /usr/lib/x86_64-linux-gnu/libc.so.6\n");
	free(text);
	img_tree_free(t);
}

static void script_needs_its_interpreter_and_commands(void **state)
{
	struct img_tree *t = img_tree_new();
	char *text;

	(void)state;
	(void)add_program(t, "/usr/bin/dash", "ELF");
	(void)add_link(t, "/usr/bin/sh", "dash");
	(void)add_link(t, "/bin", "usr/bin");
	(void)add_program(t, "/usr/bin/mkdir", "x");
	(void)add_program(t, "/usr/bin/mktemp", "x");
	(void)add_program(t, "/usr/bin/cat", "x");
	(void)add_program(t, "/usr/sbin/nginx", "x");
	(void)add_program(t, "/usr/bin/never", "x");
	(void)add_program(t, "/start",
	                  "#!/bin/sh -e\n# never here\nmkdir -p /run/x && T=$(mktemp -d)\n"
	                  "cat <<EOF\nnever\nEOF\nexec nginx -g 'never on;'\n");
	text = needs_of(t, "/start");
	assert_has(text, "shebang /bin/sh -> /usr/bin/dash\n");
	assert_has(text, "link /bin -> /bin\n");
	assert_has(text, "link /usr/bin/sh -> /usr/bin/sh\n");
	assert_has(text, "command? mkdir -> /usr/bin/mkdir\n");
	assert_has(text, "command? mktemp -> /usr/bin/mktemp\n");
	assert_has(text, "command? cat -> /usr/bin/cat\n");
	assert_has(text, "command? nginx -> /usr/sbin/nginx\n");
	assert_lacks(text, "never");
	free(text);
	img_tree_free(t);
}

static void env_of_the_first_line_is_seen_through(void **state)
{
	struct img_tree *t = img_tree_new();
	char *text;

	(void)state;
	(void)add_program(t, "/usr/bin/env", "x");
	(void)add_program(t, "/usr/bin/perl", "x");
	(void)add_program(t, "/a", "#!/usr/bin/env -S X=1 perl -w\n");
	text = needs_of(t, "/a");
	assert_has(text, "shebang /usr/bin/env -> /usr/bin/env\n");
	assert_has(text, "shebang perl -> /usr/bin/perl\n");
	free(text);
	img_tree_free(t);
}

static struct img_tree *python_tree(void)
{
	struct img_tree *t = img_tree_new();

	(void)add_file(t, "/usr/lib/python3.11/os.py", "import abc\n");
	(void)add_file(t, "/usr/lib/python3.11/abc.py", "x\n");
	(void)add_file(t, "/usr/lib/python3.11/__pycache__/abc.cpython-311.pyc", "x");
	(void)add_file(t, "/usr/lib/python3.11/json/__init__.py", "x\n");
	(void)add_file(t, "/usr/lib/python3.11/json/decoder.py",
	               "from . import scanner\nfrom .sub.deep import thing\n");
	(void)add_file(t, "/usr/lib/python3.11/json/scanner.py", "x\n");
	(void)add_file(t, "/usr/lib/python3.11/json/sub/__init__.py", "x\n");
	(void)add_file(t, "/usr/lib/python3.11/json/sub/deep.py", "x\n");
	(void)add_file(t, "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", "x");
	(void)add_file(t, "/usr/lib/python3/dist-packages/numpy/__init__.py", "x\n");
	(void)add_file(t, "/usr/lib/python3/dist-packages/numpy/core/_multi.cpython-311-x86_64-linux-gnu.so", "x");
	(void)add_file(t, "/usr/lib/python3/dist-packages/numpy/core/__init__.py", "x");
	return t;
}

static void import_needs_packages_above_and_byte_code(void **state)
{
	struct img_tree *t = python_tree();
	char *text;

	(void)state;
	(void)add_file(t, "/app/main.py",
	               "import json.decoder, abc as b\nimport _ssl\nfrom numpy.core import _multi\nimport sys\n"
	               "import helper\n");
	(void)add_file(t, "/app/helper.py", "x\n");
	text = needs_of(t, "/app/main.py");
	assert_has(text, "import json -> /usr/lib/python3.11/json/__init__.py\n");
	assert_has(text, "import json.decoder -> /usr/lib/python3.11/json/decoder.py\n");
	assert_has(text, "import abc -> /usr/lib/python3.11/abc.py\n");
	assert_has(text, "import abc -> /usr/lib/python3.11/__pycache__/abc.cpython-311.pyc\n");
	assert_has(text, "import _ssl -> /usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so\n");
	assert_has(text, "import numpy -> /usr/lib/python3/dist-packages/numpy/__init__.py\n");
	assert_has(text, "import numpy.core._multi -> "
	                 "/usr/lib/python3/dist-packages/numpy/core/_multi.cpython-311-x86_64-linux-gnu.so\n");
	assert_has(text, "import? sys -> -\n"); /* built into the interpreter */
	assert_has(text, "import helper -> /app/helper.py\n");
	free(text);
	img_tree_free(t);
}

static void relative_imports_start_at_the_package(void **state)
{
	struct img_tree *t = python_tree();
	char *text = needs_of(t, "/usr/lib/python3.11/json/decoder.py");

	(void)state;
	assert_has(text, "import scanner -> /usr/lib/python3.11/json/scanner.py\n");
	assert_has(text, "import sub.deep -> /usr/lib/python3.11/json/sub/deep.py\n");
	free(text);
	img_tree_free(t);
}

static int on_import(const struct img_python_import *i, void *arg)
{
	return base_buf_printf(arg, "%u%s:%s%s%s ", i->level, i->module, i->name ? i->name : "", i->is_weak ? "?" : "",
	                       i->name ? "" : "-");
}

static void assert_imports(const char *source, const char *expected)
{
	struct base_buf b = BASE_BUF_INIT(1 << 16);

	assert_int_equal(img_python_imports(source, strlen(source), on_import, &b), 0);
	assert_string_equal(base_buf_text(&b), expected);
	base_buf_done(&b);
}

static void import_statements_are_found_by_tokens(void **state)
{
	(void)state;
	assert_imports("import a.b , c as d\n", "0a.b:- 0c:- ");
	assert_imports("from a import (b,  # first\n   c as d,\n)\n", "0a:b 0a:c ");
	assert_imports("from . import x\nfrom ..y import *\n", "1:x 2y:* ");
	assert_imports("'''\nimport no\n'''\n# import no\nx = 'import no'; import yes\n", "0yes:- ");
	assert_imports("try:\n  import a\nexcept E:\n  import b\nimport c\n", "0a:?- 0b:?- 0c:- ");
	assert_imports("def f():\n\tif x:\n\t\timport a\nclass C:\n  import b\n", "0a:?- 0b:- ");
	assert_imports("if x: import a\nimport b", "0a:?- 0b:- ");
	assert_imports("import \\\n  a\n", "0a:- ");
	assert_imports("x = {\n  'import': 1\n}\nimport a\n", "0a:- ");
	assert_imports("importer = 1\nfrom_x = 2\nimport\n", "");
	assert_imports("import a\r\nimport b\r\n", "0a:- 0b:- ");
	assert_imports("f = lambda: 1\nimport a\n", "0a:- ");
}

static int on_command(const char *name, void *arg)
{
	return base_buf_printf(arg, "%s ", name);
}

static void assert_commands(const char *script, const char *expected)
{
	struct base_buf b = BASE_BUF_INIT(1 << 16);

	assert_int_equal(img_shell_commands(script, strlen(script), on_command, &b), 0);
	assert_string_equal(base_buf_text(&b), expected);
	base_buf_done(&b);
}

static void commands_stand_where_commands_stand(void **state)
{
	(void)state;
	assert_commands("a b | c && d; e &\nf", "a c d e f ");
	assert_commands("if a; then b; else c; fi\n", "if a then b else c fi ");
	assert_commands("X=1 Y=2 cmd arg\n", "cmd ");
	assert_commands("echo \"now: $(date +%s) `id -u`\"\n", "echo date ");
	assert_commands("$X run; \"$Y\" run\n", "");
	assert_commands("exec /usr/sbin/x -f /etc/y\n", "exec /usr/sbin/x /etc/y ");
	assert_commands("cat <<'E'\nno\nE\nyes\n", "cat yes ");
	assert_commands("cat <<-E >out\n\tno\n\tE\nyes\n", "cat yes ");
	assert_commands("# no\nyes # no\n", "yes ");
	assert_commands("a=${b:-no yes} c\n", "c ");
	assert_commands("(( 1 + 2 ))\n", "1 ");
}

static void configuration_names_modules(void **state)
{
	struct img_tree *t = img_tree_new();
	char *text;

	(void)state;
	(void)add_file(t, "/usr/lib64/libnss_sss.so.2", "x");
	(void)add_file(t, "/usr/lib64/security/pam_unix.so", "x");
	(void)add_file(t, "/etc/nsswitch.conf", "# x\npasswd: files sss [NOTFOUND=return] none\n");
	(void)add_file(t, "/etc/pam.d/common-auth", "auth required pam_unix.so nullok\n");
	(void)add_file(t, "/etc/pam.d/login", "@include common-auth\n");
	text = needs_of(t, "/etc/nsswitch.conf");
	assert_string_equal(text, "configuration? libnss_sss.so.2 -> /usr/lib64/libnss_sss.so.2\n");
	free(text);
	text = needs_of(t, "/etc/pam.d/common-auth");
	assert_has(text, "pam_unix.so -> /usr/lib64/security/pam_unix.so\n");
	free(text);
	text = needs_of(t, "/etc/pam.d/login");
	assert_has(text, "configuration common-auth -> /etc/pam.d/common-auth\n");
	free(text);
	img_tree_free(t);
}

static void broken_files_have_no_needs_but_a_note(void **state)
{
	struct img_tree *t = img_tree_new();
	struct base_buf b = BASE_BUF_INIT(4096);
	struct img_analyze *a = NULL;
	const char *note = NULL;

	(void)state;
	(void)add_file(t, "/x", "\177ELF\2\1\1 and nothing of an ELF file behind it, but long enough to be looked at");
	(void)add_link(t, "/l", "/nowhere");
	assert_int_equal(img_analyze_new(t, &a, NULL), 0);
	assert_int_equal(img_analyze_file(a, img_tree_find(t, "/x"), tell, &b, &note, NULL), 0);
	assert_int_equal(b.len, 0);
	assert_non_null(note);
	assert_int_equal(img_analyze_file(a, img_tree_find(t, "/l"), tell, &b, &note, NULL), 0);
	assert_string_equal(base_buf_text(&b), "link /nowhere -> -\n");
	base_buf_done(&b);
	img_analyze_free(a);
	img_tree_free(t);
}

static int refuse(const struct img_need *n, void *arg)
{
	return arg ? err_set(arg, -EDQUOT, "no more of %s", n->what) : -EDQUOT;
}

static void a_sink_that_fails_has_the_last_word(void **state)
{
	struct img_tree *t = img_tree_new();
	struct err own = { 0 }, silent = { 0 };
	struct img_analyze *a = NULL;

	(void)state;
	(void)add_link(t, "/l", "/nowhere");
	assert_int_equal(img_analyze_new(t, &a, NULL), 0);
	assert_int_equal(img_analyze_file(a, img_tree_find(t, "/l"), refuse, &own, NULL, &own), -EDQUOT);
	assert_string_equal(err_text(&own), "no more of /nowhere");
	assert_int_equal(img_analyze_file(a, img_tree_find(t, "/l"), refuse, NULL, NULL, &silent), -EDQUOT);
	assert_has(err_text(&silent), "/l: ");
	img_analyze_free(a);
	img_tree_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(program_needs_interpreter_and_libraries_with_their_links),
		cmocka_unit_test(script_needs_its_interpreter_and_commands),
		cmocka_unit_test(env_of_the_first_line_is_seen_through),
		cmocka_unit_test(import_needs_packages_above_and_byte_code),
		cmocka_unit_test(relative_imports_start_at_the_package),
		cmocka_unit_test(import_statements_are_found_by_tokens),
		cmocka_unit_test(commands_stand_where_commands_stand),
		cmocka_unit_test(configuration_names_modules),
		cmocka_unit_test(broken_files_have_no_needs_but_a_note),
		cmocka_unit_test(a_sink_that_fails_has_the_last_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
