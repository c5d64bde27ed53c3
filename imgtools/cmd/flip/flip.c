/* flip: containers that start before their image has arrived. One row per subcommand. */
#include "commands.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static const struct opt_command commands[] = {
	{ "convert", "[OPTION]... SOURCE DESTINATION", "an image made lazily loadable, valid for everybody",
	  convert_opts, cmd_convert },
	{ 0 },
};

const struct opt_program flip_program = {
	.name = "flip",
	.summary = "containers that start before their image has arrived",
	.commands = commands,
};

static const struct opt_command *find(const char *name)
{
	const struct opt_command *c = commands;

	while (c->name && strcmp(c->name, name) != 0)
		c++;
	return c;
}

int flip_usage(const char *command, const struct err *err)
{
	return opt_usage_error(&flip_program, find(command), err);
}

int flip_fail(const struct err *err)
{
	(void)fprintf(stderr, "flip: %s\n", err_text(err));
	return 1;
}

int flip_options(int argc, char **argv, void *dest, int *ret_n_args)
{
	const struct opt_command *c = find(argv[0]);
	struct err err = { 0 };
	int r = opt_parse(&flip_program, c, argc, argv, dest, ret_n_args, &err);

	if (r == OPT_EXIT_OK)
		return 0;
	return r < 0 ? opt_usage_error(&flip_program, c, &err) : -1;
}

int main(int argc, char **argv)
{
	(void)setlocale(LC_ALL, "");
	return opt_main(&flip_program, argc, argv);
}
