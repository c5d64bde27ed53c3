/* The command line: one pass over argv, GNU conventions. Options and positional arguments may be mixed; the
 * positional ones are moved to the front of argv as they are met, which is safe because they only move left.
 * Long names are not abbreviated: a script that used an abbreviation would break with the next option added. */
#include "base/options.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options_internal.h"

enum { MAX_OPTS = 256 };

/* One pass over one command's arguments. */
struct parse {
	const struct opt_program *prog;
	const struct opt_command *cmd;
	int argc;
	char **argv;
	int next; /* index of the argument looked at next */
	char *dest;
	bool list_seen[MAX_OPTS]; /* the first use of a list option drops what a configuration file had put there */
	struct err *err;
};

bool base_option_is_last_command(const struct opt_command *cmd)
{
	return !cmd->name && !cmd->run;
}

static int set_option(struct parse *p, const struct opt *o, const char *what, const char *text)
{
	void *field = p->dest + o->offset;

	if (o->type == OPT_LIST) {
		size_t i = (size_t)(o - p->cmd->opts);

		assert(i < MAX_OPTS);
		if (!p->list_seen[i])
			opt_list_done(field);
		p->list_seen[i] = true;
	}
	return base_option_set(o->type, o->choices, what, text, field, p->err);
}

static const struct opt *find_long(const struct opt *opts, const char *name, size_t len)
{
	for (const struct opt *o = opts; o && o->name; o++) {
		if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
			return o;
	}
	return NULL;
}

static const struct opt *find_short(const struct opt *opts, char c)
{
	for (const struct opt *o = opts; o && o->name; o++) {
		if (o->short_name == c)
			return o;
	}
	return NULL;
}

static void print_version(const struct opt_program *prog)
{
	(void)printf("%s %s\n", prog->name, OCAI_VERSION);
}

/* The value that stands in the next argument; NULL with the error set when there is none. */
static const char *next_value(struct parse *p, const char *what)
{
	if (p->next < p->argc)
		return p->argv[p->next++];
	(void)err_set(p->err, -EINVAL, "option '%s' needs a value", what);
	return NULL;
}

/* --name, --name=value, --no-name; arg is without the dashes. */
static int parse_long(struct parse *p, const char *arg)
{
	size_t len = strcspn(arg, "=");
	const char *value = arg[len] ? arg + len + 1 : NULL;
	const struct opt *o = find_long(p->cmd->opts, arg, len);
	bool negated = false;
	char what[80];

	(void)snprintf(what, sizeof(what), "--%.*s", (int)len, arg);
	if (!o && !value && strcmp(arg, "help") == 0) {
		opt_help(p->prog, p->cmd, stdout);
		return OPT_EXIT_OK;
	}
	if (!o && !value && strcmp(arg, "version") == 0) {
		print_version(p->prog);
		return OPT_EXIT_OK;
	}
	if (!o && !value && strcmp(arg, "option-names") == 0) {
		base_option_names(p->prog, p->cmd, stdout);
		return OPT_EXIT_OK;
	}
	if (!o && len > 3 && strncmp(arg, "no-", 3) == 0) {
		o = find_long(p->cmd->opts, arg + 3, len - 3);
		negated = true;
	}
	if (!o || (negated && o->type != OPT_FLAG))
		return err_set(p->err, -EINVAL, "unknown option '%s'", what);
	if (o->type == OPT_FLAG) {
		if (value)
			return err_set(p->err, -EINVAL, "option '%s' takes no value", what);
		*(bool *)(p->dest + o->offset) = !negated;
		return OPT_RUN;
	}
	if (!value)
		value = next_value(p, what);
	return value ? set_option(p, o, what, value) : -EINVAL;
}

/* -x, -xvalue, -x value, -abc; arg is without the dash and not empty. */
static int parse_short(struct parse *p, const char *arg)
{
	for (; *arg; arg++) {
		const struct opt *o = find_short(p->cmd->opts, *arg);
		char what[3] = { '-', *arg, '\0' };
		const char *value;

		if (!o && *arg == 'h') {
			opt_help(p->prog, p->cmd, stdout);
			return OPT_EXIT_OK;
		}
		if (!o)
			return err_set(p->err, -EINVAL, "unknown option '-%s'", arg);
		if (o->type == OPT_FLAG) {
			*(bool *)(p->dest + o->offset) = true;
			continue;
		}
		value = arg[1] ? arg + 1 : next_value(p, what);
		return value ? set_option(p, o, what, value) : -EINVAL;
	}
	return OPT_RUN;
}

int opt_parse(const struct opt_program *prog, const struct opt_command *cmd, int argc, char **argv, void *dest,
              int *ret_n_args, struct err *err)
{
	struct parse p = { .prog = prog, .cmd = cmd, .argc = argc, .argv = argv, .next = 1, .dest = dest, .err = err };
	bool options_over = false;
	int n_args = 0, r;

	while (p.next < argc) {
		char *arg = argv[p.next++];

		if (options_over || arg[0] != '-' || arg[1] == '\0') {
			argv[n_args++] = arg;
			continue;
		}
		if (strcmp(arg, "--") == 0) {
			options_over = true;
			continue;
		}
		r = arg[1] == '-' ? parse_long(&p, arg + 2) : parse_short(&p, arg + 1);
		if (r != OPT_RUN)
			return r;
	}
	*ret_n_args = n_args;
	return OPT_RUN;
}

int opt_usage_error(const struct opt_program *prog, const struct opt_command *cmd, const struct err *err)
{
	const char *space = cmd && cmd->name ? " " : "", *name = cmd && cmd->name ? cmd->name : "";

	(void)fprintf(stderr, "%s: %s\nTry '%s%s%s --help' for more information.\n", prog->name, err_text(err),
	              prog->name, space, name);
	return 2;
}

/* Buffered output that never reached the disk is a failure even after everything else went well. */
static int finish(const struct opt_program *prog, int code)
{
	int failed = ferror(stdout);

	errno = 0;
	if (fflush(stdout) == EOF || failed) {
		(void)fprintf(stderr, "%s: standard output: %s\n", prog->name, strerror(errno ? errno : EIO));
		return code ? code : 1;
	}
	return code;
}

const struct opt_command *opt_find_command(const struct opt_program *prog, const char *name)
{
	for (const struct opt_command *c = prog->commands; !base_option_is_last_command(c); c++) {
		if (c->name && strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

int opt_begin(const struct opt_program *prog, int argc, char **argv, void *dest, int *ret_n_args)
{
	const struct opt_command *cmd = opt_find_command(prog, argv[0]);
	struct err err = { 0 };
	int r = opt_parse(prog, cmd, argc, argv, dest, ret_n_args, &err);

	if (r == OPT_EXIT_OK)
		return 0;
	return r < 0 ? opt_usage_error(prog, cmd, &err) : -1;
}

int opt_failed(const struct opt_program *prog, const struct err *err)
{
	(void)fprintf(stderr, "%s: %s\n", prog->name, err_text(err));
	return 1;
}

/* The options that belong to the program, not to a command: -1 when argv[1] is none of them, else the exit code. */
static int program_option(const struct opt_program *prog, const char *arg)
{
	struct err err = { 0 };

	if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
		opt_help(prog, NULL, stdout);
	else if (strcmp(arg, "--version") == 0)
		print_version(prog);
	else if (strcmp(arg, "--option-names") == 0)
		base_option_names(prog, NULL, stdout);
	else if (strncmp(arg, "--completion=", 13) != 0)
		return -1;
	else if (base_option_completion(prog, arg + 13, stdout, &err) < 0)
		return opt_usage_error(prog, NULL, &err);
	return 0;
}

/* A standard stream that the caller has closed would become the next file that is opened, and results would be written
 * into it. Reading finds the end, writing fails as it should. */
static void hold_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", O_RDONLY);
	}
}

int opt_main(const struct opt_program *prog, int argc, char **argv)
{
	const struct opt_command *cmd = prog->commands->name ? NULL : prog->commands;
	struct err err = { 0 };
	int code;

	hold_standard_streams();
	if (argc > 1) {
		code = program_option(prog, argv[1]);
		if (code >= 0)
			return finish(prog, code);
	}
	if (cmd) /* a program without subcommands */
		return finish(prog, cmd->run(argc, argv));

	if (argc > 1 && argv[1][0] != '-')
		cmd = opt_find_command(prog, argv[1]);
	if (cmd)
		return finish(prog, cmd->run(argc - 1, argv + 1));
	if (prog->default_command) {
		/* Everything on the line belongs to it; argv[0] stays the program's name. */
		cmd = opt_find_command(prog, prog->default_command);
		assert(cmd);
		return finish(prog, cmd->run(argc, argv));
	}
	if (argc < 2) {
		opt_help(prog, NULL, stdout);
		return finish(prog, 0);
	}
	(void)err_set(&err, -EINVAL, argv[1][0] == '-' ? "unknown option '%s'" : "unknown command '%s'", argv[1]);
	return opt_usage_error(prog, NULL, &err);
}
