#include "base/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "test.h"

struct dest {
	bool json, verbose;
	const char *model, *backend;
	uint32_t ctx;
	uint64_t seed, memory;
	double temperature;
	struct opt_list headers;
};

static const struct opt opts[] = {
	{ "model", 'm', OPT_STR, offsetof(struct dest, model), "FILE", "model file to load", NULL },
	{ "ctx", 'c', OPT_UINT, offsetof(struct dest, ctx), "TOKENS", "context length [4096]", NULL },
	{ "seed", 0, OPT_U64, offsetof(struct dest, seed), "N", "seed", NULL },
	{ "memory", 0, OPT_SIZE, offsetof(struct dest, memory), "SIZE", "memory for the cache", NULL },
	{ "temperature", 't', OPT_DOUBLE, offsetof(struct dest, temperature), "T", "temperature", NULL },
	{ "backend", 0, OPT_CHOICE, offsetof(struct dest, backend), "NAME", "backend [auto]", "auto,cpu,cuda" },
	{ "header", 'H', OPT_LIST, offsetof(struct dest, headers), "LINE", "header to send", NULL },
	{ "json", 'j', OPT_FLAG, offsetof(struct dest, json), NULL, "machine-readable output", NULL },
	{ "verbose", 'v', OPT_FLAG, offsetof(struct dest, verbose), NULL, "say more", NULL },
	{ 0 },
};

static int run_marker(int argc, char **argv);
static int run_full(int argc, char **argv);

static const struct opt_command commands[] = {
	{ "serve", "[OPTION]...", "answer requests", opts, run_marker },
	{ "fill", "[OPTION]...", "write a lot", opts, run_full },
	{ "keep", "[OPTION]... list [ID] | rm ID", "keep things", NULL, run_full },
	{ "look", "[OPTION]... [host|users]...", "look at things", NULL, run_full },
	{ 0 },
};
static const struct opt_program prog = { "prog", "Does things.", commands, NULL };
static const struct opt_program prog_default = { "other", "Does things.", commands, "serve" };

static int marker_argc;
static const char *marker_argv0;

static int run_marker(int argc, char **argv)
{
	marker_argc = argc;
	marker_argv0 = argv[0];
	return 7;
}

static int run_full(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	(void)puts("some output");
	return 0;
}

/* Parses a NULL-terminated list; argv is the caller's so that the moved arguments can be looked at. */
static int parse(char **argv, struct dest *d, int *ret_n_args, struct err *err)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return opt_parse(&prog, &commands[0], argc, argv, d, ret_n_args, err);
}

#define ARGV(...) ((char *[]){ "serve", __VA_ARGS__, NULL })

static void every_type_is_read_in_each_spelling(void **state)
{
	struct dest d = { 0 };
	int n = -1;

	(void)state;
	assert_int_equal(parse(ARGV("--model=a=b", "--ctx", "4096", "--seed=18446744073709551615", "--memory=3G",
	                            "-t0.5", "--backend", "cpu", "-H", "a", "--header=b", "-jv"),
	                       &d, &n, NULL),
	                 OPT_RUN);
	assert_int_equal(n, 0);
	assert_string_equal(d.model, "a=b");
	assert_int_equal(d.ctx, 4096);
	assert_true(d.seed == UINT64_MAX);
	assert_true(d.memory == UINT64_C(3) << 30);
	assert_true(d.temperature == 0.5);
	assert_string_equal(d.backend, "cpu");
	assert_int_equal(d.headers.n, 2);
	assert_string_equal(d.headers.items[0], "a");
	assert_string_equal(d.headers.items[1], "b");
	assert_true(d.json && d.verbose);
	opt_list_done(&d.headers);
	assert_int_equal(d.headers.n, 0);
}

static void sizes_take_suffixes_of_1024(void **state)
{
	static const struct {
		char *text;
		uint64_t bytes;
	} cases[] = { { "7", 7 },        { "2K", 2048 },      { "2k", 2048 },
		      { "1M", 1 << 20 }, { "1MiB", 1 << 20 }, { "5T", UINT64_C(5) << 40 } };
	int n;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dest d = { 0 };

		assert_int_equal(parse(ARGV("--memory", cases[i].text), &d, &n, NULL), OPT_RUN);
		assert_true(d.memory == cases[i].bytes);
	}
}

static void positional_arguments_move_to_the_front(void **state)
{
	char **argv = ARGV("one", "-j", "-", "--ctx=1", "--", "--json", "-x");
	struct dest d = { 0 };
	int n = 0;

	(void)state;
	assert_int_equal(parse(argv, &d, &n, NULL), OPT_RUN);
	assert_int_equal(n, 4);
	assert_string_equal(argv[0], "one");
	assert_string_equal(argv[1], "-");
	assert_string_equal(argv[2], "--json");
	assert_string_equal(argv[3], "-x");
}

static void no_clears_a_flag(void **state)
{
	struct dest d = { .json = true };
	int n;

	(void)state;
	assert_int_equal(parse(ARGV("--no-json"), &d, &n, NULL), OPT_RUN);
	assert_false(d.json);
}

static void a_list_replaces_what_was_configured(void **state)
{
	struct dest d = { 0 };
	int n;

	(void)state;
	assert_int_equal(parse(ARGV("-Hold"), &d, &n, NULL), OPT_RUN);
	assert_int_equal(parse(ARGV("-j"), &d, &n, NULL), OPT_RUN);
	assert_int_equal(d.headers.n, 1);
	assert_int_equal(parse(ARGV("-Hx", "-Hy"), &d, &n, NULL), OPT_RUN);
	assert_int_equal(d.headers.n, 2);
	assert_string_equal(d.headers.items[0], "x");
	opt_list_done(&d.headers);
}

static void wrong_usage_names_the_option(void **state)
{
	static const struct {
		char *a, *b;
		const char *words;
	} cases[] = {
		{ "--modle", NULL, "unknown option '--modle'" },
		{ "--mode=x", NULL, "unknown option '--mode'" },
		{ "-x", NULL, "unknown option '-x'" },
		{ "--ctx", NULL, "option '--ctx' needs a value" },
		{ "-c", NULL, "option '-c' needs a value" },
		{ "--ctx", "", "--ctx: '' is not a whole number" },
		{ "--ctx", "12x", "--ctx: '12x' is not a whole number" },
		{ "--ctx", "-1", "--ctx: '-1' is not a whole number" },
		{ "--ctx", "4294967296", "--ctx: '4294967296' is too large (at most 4294967295)" },
		{ "--seed", "18446744073709551616", "--seed: '18446744073709551616' is too large" },
		{ "--memory", "1X", "--memory: '1X' is not a size (a number, then K, M, G or T)" },
		{ "--memory", "99999999999T", "--memory: '99999999999T' is too large" },
		{ "--temperature", "warm", "--temperature: 'warm' is not a number" },
		{ "-t", "nan", "-t: 'nan' is not a number" },
		{ "--backend", "cp", "--backend: 'cp' is not one of auto,cpu,cuda" },
		{ "--json=yes", NULL, "option '--json' takes no value" },
		{ "--no-model", NULL, "unknown option '--no-model'" },
	};
	int n = -1;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dest d = { .ctx = 5 };
		struct err err = { 0 };

		assert_int_equal(parse(ARGV(cases[i].a, cases[i].b), &d, &n, &err), -EINVAL);
		assert_string_equal(err_text(&err), cases[i].words);
		assert_int_equal(d.ctx, 5);
		assert_int_equal(n, -1);
	}
}

/* ---- What is printed: stdout goes to a file for the time of one call ---------------------------------- */

struct capture {
	FILE *file;
	int saved;
};

static void capture_begin(struct capture *c)
{
	(void)fflush(stdout);
	c->file = tmpfile();
	assert_non_null(c->file);
	c->saved = dup(STDOUT_FILENO);
	assert_true(dup2(fileno(c->file), STDOUT_FILENO) >= 0);
}

static void capture_end(struct capture *c, char *text, size_t size)
{
	size_t n;

	(void)fflush(stdout);
	assert_true(dup2(c->saved, STDOUT_FILENO) >= 0);
	(void)close(c->saved);
	rewind(c->file);
	n = fread(text, 1, size - 1, c->file);
	text[n] = '\0';
	(void)fclose(c->file);
}

static int main_of(const struct opt_program *p, char **argv, char *text, size_t size)
{
	struct capture c;
	int argc = 0, code;

	while (argv[argc])
		argc++;
	capture_begin(&c);
	code = opt_main(p, argc, argv);
	capture_end(&c, text, size);
	return code;
}

#define MAIN(p, text, ...) main_of((p), ((char *[]){ "prog", __VA_ARGS__, NULL }), (text), sizeof(text))

static void help_is_aligned(void **state)
{
	char text[8192];
	const char *a, *b;

	(void)state;
	assert_int_equal(MAIN(&prog, text, "--help"), 0);
	assert_non_null(strstr(text, "Usage: prog COMMAND"));
	assert_non_null(strstr(text, "  serve  answer requests\n"));

	(void)memset(text, 0, sizeof(text));
	FILE *out = fmemopen(text, sizeof(text), "w");

	opt_help(&prog, &commands[0], out);
	assert_int_equal(fclose(out), 0);
	assert_non_null(strstr(text, "Usage: prog serve [OPTION]...\n"));
	a = strstr(text, "  -m, --model=FILE");
	b = strstr(text, "      --backend=NAME");
	assert_non_null(a);
	assert_non_null(b);
	assert_int_equal(strstr(a, "model file") - a, strstr(b, "backend [auto] (auto, cpu, cuda)") - b);
}

static void the_named_command_runs_with_its_arguments(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(MAIN(&prog, text, "serve", "-j"), 7);
	assert_int_equal(marker_argc, 2);
	assert_string_equal(marker_argv0, "serve");
}

static void the_default_command_gets_everything(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(MAIN(&prog_default, text, "what", "now"), 7);
	assert_int_equal(marker_argc, 3);
	assert_int_equal(MAIN(&prog_default, text, "-j"), 7);
	assert_int_equal(MAIN(&prog_default, text, NULL), 7);
	assert_int_equal(marker_argc, 1);
}

static void an_unknown_command_is_wrong_usage(void **state)
{
	char text[64];

	(void)state;
	assert_int_equal(MAIN(&prog, text, "sevre"), 2);
	assert_int_equal(MAIN(&prog, text, "--colour"), 2);
	assert_int_equal(MAIN(&prog, text, "--completion=tcsh"), 2);
	assert_string_equal(text, "");
}

static void version_and_names_are_printed(void **state)
{
	char text[2048];

	(void)state;
	assert_int_equal(MAIN(&prog, text, "--version"), 0);
	assert_string_equal(text, "prog " OCAI_VERSION "\n");
	assert_int_equal(MAIN(&prog, text, "--option-names"), 0);
	assert_non_null(strstr(text, "serve\n--model\n-m\n--ctx\n"));
}

static void a_full_disk_is_a_failure(void **state)
{
	int saved, full, code;

	(void)state;
	full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	if (full < 0)
		skip();
	(void)fflush(stdout);
	saved = dup(STDOUT_FILENO);
	(void)dup2(full, STDOUT_FILENO);
	code = opt_main(&prog, 2, (char *[]){ "prog", "fill", NULL });
	clearerr(stdout);
	(void)dup2(saved, STDOUT_FILENO);
	(void)close(saved);
	(void)close(full);
	assert_int_equal(code, 1);
}

/* Runs the script in a real shell and asks it what it would offer. */
static void bash_completes_commands_options_and_choices(void **state)
{
	static const struct {
		const char *words; /* COMP_WORDS, the last is being typed */
		const char *reply;
	} cases[] = {
		{ "prog se", "serve" },
		{ "prog serve --mo", "--model" },
		{ "prog serve --backend cu", "cuda" },
		{ "prog serve --backend = cu", "cuda" },
		{ "prog serve --seed 1", "" },
		{ "prog keep r", "rm" },
		{ "prog keep rm li", "" },
		{ "prog look ho us", "users" },
		{ "other --mo", "--model" },
		{ "other --backend cu", "cuda" },
		{ "other what --tem", "--temperature" },
	};
	char path[] = "/tmp/test-completion-XXXXXX", script[8192], other[8192], cmd[1024], reply[128];
	int fd = mkstemp(path);
	FILE *f;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(MAIN(&prog, script, "--completion=bash"), 0);
	assert_int_equal(MAIN(&prog_default, other, "--completion=bash"), 0);
	assert_int_equal(write(fd, script, strlen(script)), (ssize_t)strlen(script));
	assert_int_equal(write(fd, other, strlen(other)), (ssize_t)strlen(other));
	(void)close(fd);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		(void)snprintf(cmd, sizeof(cmd),
		               "bash -c 'compopt() { :; }; . %s; COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); "
		               "_$COMP_WORDS; echo \"${COMPREPLY[*]}\"'",
		               path, cases[i].words);
		f = popen(cmd, "r");
		assert_non_null(f);
		assert_non_null(fgets(reply, sizeof(reply), f));
		assert_int_equal(pclose(f), 0);
		reply[strcspn(reply, "\n")] = '\0';
		assert_string_equal(reply, cases[i].reply);
	}
	(void)unlink(path);
}

static void zsh_completion_describes_every_option(void **state)
{
	char script[8192];

	(void)state;
	assert_int_equal(MAIN(&prog, script, "--completion=zsh"), 0);
	assert_ptr_equal(strstr(script, "#compdef prog\n"), script);
	assert_non_null(strstr(script, "'--ctx=[context length \\[4096\\]]:TOKENS:'"));
	assert_non_null(strstr(script, "'--backend=[backend \\[auto\\]]:NAME:(auto cpu cuda)'"));
	assert_non_null(strstr(script, "'*-H+[header to send]:LINE:'"));
	assert_non_null(strstr(script, "'1:argument:(list rm)' \\\n"));
	assert_non_null(strstr(script, "'*:argument:(host users)'\n"));
	assert_non_null(strstr(script, "*)\n\t\t_arguments '--help[show help]' '--version[show the version]'\n"));
	assert_int_equal(MAIN(&prog_default, script, "--completion=zsh"), 0);
	assert_non_null(strstr(strstr(script, "\t*)\n"), "'--ctx=["));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_is_read_in_each_spelling),
		cmocka_unit_test(sizes_take_suffixes_of_1024),
		cmocka_unit_test(positional_arguments_move_to_the_front),
		cmocka_unit_test(no_clears_a_flag),
		cmocka_unit_test(a_list_replaces_what_was_configured),
		cmocka_unit_test(wrong_usage_names_the_option),
		cmocka_unit_test(help_is_aligned),
		cmocka_unit_test(the_named_command_runs_with_its_arguments),
		cmocka_unit_test(the_default_command_gets_everything),
		cmocka_unit_test(an_unknown_command_is_wrong_usage),
		cmocka_unit_test(version_and_names_are_printed),
		cmocka_unit_test(a_full_disk_is_a_failure),
		cmocka_unit_test(bash_completes_commands_options_and_choices),
		cmocka_unit_test(zsh_completion_describes_every_option),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
