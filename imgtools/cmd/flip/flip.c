/* flip: containers that start before their image has arrived. One row per subcommand. */
#include "commands.h"

#include <locale.h>
#include <pthread.h>

#include "fusefs/fusefs.h"

static const struct opt_command commands[] = {
	{ "convert", "[OPTION]... SOURCE DESTINATION", "an image made lazily loadable, valid for everybody",
	  convert_opts, cmd_convert },
	{ "snapshotter", "[OPTION]...", "the daemon: a snapshotter for containerd", snapshotter_opts, cmd_snapshotter },
	{ "pull", "[OPTION]... IMAGE", "make an image known to containerd, ready to start", pull_opts, cmd_pull },
	{ "mount", "[OPTION]... IMAGE DIR", "an image's files at a folder, read-only", mount_opts, cmd_mount },
	{ "unmount", "[OPTION]... DIR", "end what `mount` began", mount_opts, cmd_unmount },
	{ "model",
	  "[OPTION]... pull SOURCE [NAME] | list | mount NAME [DIR] | remove NAME | push DIR REF | "
	  "seed DIR [NAME] | serve DIR | manifest DIR",
	  "models: fetched, mounted, given to others", model_opts, cmd_model },
	{ "prefetch", "[OPTION]... IMAGE", "what a start of an image read, as it was recorded", prefetch_opts,
	  cmd_prefetch },
	{ "stat", "[OPTION]...", "what the daemon holds and does", stat_opts, cmd_stat },
	{ "top", "[OPTION]...", "the same, live", top_opts, cmd_top },
	{ "peers", "[OPTION]...", "who else is there, and who has what", peers_opts, cmd_peers },
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

int flip_usage(const char *command, const struct err *err)
{
	return opt_usage_error(&flip_program, opt_find_command(&flip_program, command), err);
}

int flip_fail(const struct err *err)
{
	return opt_failed(&flip_program, err);
}

int flip_options(int argc, char **argv, void *dest, int *ret_n_args)
{
	return opt_begin(&flip_program, argc, argv, dest, ret_n_args);
}

void flip_block_signals(sigset_t *ret_signals)
{
	(void)sigemptyset(ret_signals);
	(void)sigaddset(ret_signals, SIGTERM);
	(void)sigaddset(ret_signals, SIGINT);
	(void)sigaddset(ret_signals, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
	int r = flip_holder_run(argc, argv);

	if (r >= 0)
		return r;
	(void)setlocale(LC_ALL, "");
	return opt_main(&flip_program, argc, argv);
}
