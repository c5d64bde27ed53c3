/* The subcommands of flip: each is one file cmd_NAME.c with its option table and its function. */
#ifndef FLIP_COMMANDS_H
#define FLIP_COMMANDS_H

#include <signal.h>

#include "base/err.h"
#include "base/options.h"

extern const struct opt_program flip_program; /* flip.c */

/* Parses the options of the subcommand argv[0] into *dest, as opt_parse() does; the other arguments are moved to
 * argv[0..*ret_n_args). Returns -1 when the subcommand shall go on, else the exit code (help was printed, or wrong
 * usage told). */
int flip_options(int argc, char **argv, void *dest, int *ret_n_args);

/* Tell what was wrong with the usage of a subcommand (returns 2), or what failed (returns 1). */
int flip_usage(const char *command, const struct err *err);
int flip_fail(const struct err *err);

/* SIGTERM, SIGINT and SIGHUP wait for sigwait(); SIGPIPE is ignored. Before there are threads, so that only the one
 * that waits gets them. */
void flip_block_signals(sigset_t *ret_signals);

extern const struct opt convert_opts[];
int cmd_convert(int argc, char **argv);
extern const struct opt snapshotter_opts[];
int cmd_snapshotter(int argc, char **argv);
extern const struct opt pull_opts[];
int cmd_pull(int argc, char **argv);
extern const struct opt mount_opts[];
int cmd_mount(int argc, char **argv);
int cmd_unmount(int argc, char **argv);
extern const struct opt prefetch_opts[];
int cmd_prefetch(int argc, char **argv);
extern const struct opt stat_opts[], top_opts[];
int cmd_stat(int argc, char **argv);
int cmd_top(int argc, char **argv);
extern const struct opt peers_opts[];
int cmd_peers(int argc, char **argv);
extern const struct opt gc_opts[], fsck_opts[];
int cmd_gc(int argc, char **argv);
int cmd_fsck(int argc, char **argv);
extern const struct opt model_opts[];
int cmd_model(int argc, char **argv);
extern const struct opt setup_opts[];
int cmd_setup(int argc, char **argv);

#endif
