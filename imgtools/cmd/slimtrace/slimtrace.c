/* slimtrace: cuts images and package roots to the files that are needed, and says why each stays. One row per
 * subcommand. */
#include <locale.h>

#include "commands.h"

static const struct opt_command commands[] = {
	{ 0 },
};

const struct opt_program slimtrace_program = {
	.name = "slimtrace",
	.summary = "images and package roots cut to the files that are needed, with a reason for each",
	.commands = commands,
};

int main(int argc, char **argv)
{
	(void)setlocale(LC_ALL, "");
	return opt_main(&slimtrace_program, argc, argv);
}
