/* flip: containers that start before their image has arrived. One row per subcommand. */
#include "commands.h"

#include <locale.h>
#include <stdio.h>
#include <string.h>

#include "fusefs/fusefs.h"

static const struct opt_command commands[] = {
	{ "convert", "[OPTION]... SOURCE DESTINATION", "an image made lazily loadable, valid for everybody",
	  convert_opts, cmd_convert },
	{ "snapshotter", "[OPTION]...", "the daemon: a snapshotter for containerd", snapshotter_opts, cmd_snapshotter },
	{ "pull", "[OPTION]... IMAGE", "make an image known to containerd, ready to start", pull_opts, cmd_pull },
	{ "mount", "[OPTION]... IMAGE DIR", "an image's files at a folder, read-only", mount_opts, cmd_mount },
	{ "unmount", "[OPTION]... DIR", "end what `mount` began", mount_opts, cmd_unmount },
	{ "prefetch", "[OPTION]... IMAGE", "what a start of an image read, as it was recorded", prefetch_opts,
	  cmd_prefetch },
	{ "stat", "[OPTION]...", "what the daemon holds and does", stat_opts, cmd_stat },
	{ "top", "[OPTION]...", "the same, live", top_opts, cmd_top },
	{ "gc", "[OPTION]...", "remove what nothing uses", gc_opts, cmd_gc },
	{ "fsck", "[OPTION]...", "check every content against its digest", fsck_opts, cmd_fsck },
	{ "setup", "[OPTION]... containerd", "tell containerd of this snapshotter, or take it back", setup_opts,
	  cmd_setup },
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
	int r = flip_holder_run(argc, argv);

	if (r >= 0)
		return r;
	(void)setlocale(LC_ALL, "");
	return opt_main(&flip_program, argc, argv);
}
