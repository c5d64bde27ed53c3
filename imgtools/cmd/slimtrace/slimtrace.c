/* slimtrace: cuts images and package roots to the files that are needed, and says why each stays. One row per
 * subcommand. */
#include "commands.h"
#include "packages.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

static const struct opt_command commands[] = {
	{ "cut", "[OPTION]... SLICE|PACKAGE|PATH...", "a root, tar or image of slices of packages", cut_opts, cmd_cut },
	{ "slices", "[OPTION]... [DIR] [PACKAGE]...", "the slices of packages, as text", slices_opts, cmd_slices },
	{ "gpu", "[OPTION]... FILE...", "GPU code in files, by architecture; copies without the rest", gpu_opts,
	  cmd_gpu },
	{ "trace", "[OPTION]... -- COMMAND [ARGUMENT]...", "run a command and write down what it touches", trace_opts,
	  cmd_trace },
	{ "slim", "[OPTION]... --image IMAGE --out IMAGE", "an image or a root cut to what is needed, and tried",
	  slim_opts, cmd_slim },
	{ "why", "[OPTION]... PATH...", "why a file stays: the chain of reasons", why_opts, cmd_why },
	{ "why-not", "[OPTION]... PATH...", "why a file goes, who may want it, what keeps it", why_opts, cmd_why_not },
	{ "report", "[OPTION]...", "what stays and what goes, as tables or as a page", report_opts, cmd_report },
	{ "diff", "[OPTION]... A B", "what differs between two images or roots", diff_opts, cmd_diff },
	{ "sbom", "[OPTION]... IMAGE|ROOT", "bill of materials: SPDX or CycloneDX", sbom_opts, cmd_sbom },
	{ 0 },
};

const struct opt_program slimtrace_program = {
	.name = "slimtrace",
	.summary = "images and package roots cut to the files that are needed, with a reason for each",
	.commands = commands,
};

int slimtrace_usage(const char *command, const struct err *err)
{
	return opt_usage_error(&slimtrace_program, opt_find_command(&slimtrace_program, command), err);
}

int slimtrace_fail(const struct err *err)
{
	return opt_failed(&slimtrace_program, err);
}

int slimtrace_options(int argc, char **argv, void *dest, int *ret_n_args)
{
	return opt_begin(&slimtrace_program, argc, argv, dest, ret_n_args);
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], PACKAGES_CLEANER) == 0)
		return packages_clean(argc - 2, argv + 2);
	(void)setlocale(LC_ALL, "");
	return opt_main(&slimtrace_program, argc, argv);
}
