/* The subcommands of slimtrace: each is one file cmd_NAME.c with its option table and its function. */
#ifndef IMG_SLIMTRACE_COMMANDS_H
#define IMG_SLIMTRACE_COMMANDS_H

#include "base/options.h"

extern const struct opt_program slimtrace_program; /* slimtrace.c */

#endif
