/* The subcommands of slimtrace: each is one file cmd_NAME.c with its option table and its function. */
#ifndef IMG_SLIMTRACE_COMMANDS_H
#define IMG_SLIMTRACE_COMMANDS_H

#include "base/err.h"
#include "base/options.h"

extern const struct opt_program slimtrace_program; /* slimtrace.c */

/* Parses the options of the subcommand argv[0] into *dest, as opt_parse() does; the other arguments are moved to
 * argv[0..*ret_n_args). Returns -1 when the subcommand shall go on, else the exit code (help was printed, or wrong
 * usage told). */
int slimtrace_options(int argc, char **argv, void *dest, int *ret_n_args);

/* Tell what was wrong with the usage of a subcommand (returns 2), or what failed (returns 1). */
int slimtrace_usage(const char *command, const struct err *err);
int slimtrace_fail(const struct err *err);

extern const struct opt cut_opts[], slices_opts[];
int cmd_cut(int argc, char **argv);
int cmd_slices(int argc, char **argv);

extern const struct opt gpu_opts[];
int cmd_gpu(int argc, char **argv);
extern const struct opt trace_opts[];
int cmd_trace(int argc, char **argv);

extern const struct opt slim_opts[], why_opts[], report_opts[];
int cmd_slim(int argc, char **argv);
int cmd_why(int argc, char **argv);
int cmd_why_not(int argc, char **argv);
int cmd_report(int argc, char **argv);

extern const struct opt diff_opts[], sbom_opts[];
int cmd_diff(int argc, char **argv);
int cmd_sbom(int argc, char **argv);

#endif
