/* The subcommands of ocai: one file each, with its option table. */
#ifndef OCAI_COMMANDS_H
#define OCAI_COMMANDS_H

#include "base/options.h"

extern const struct opt sys_opts[];
int cmd_sys(int argc, char **argv);

#endif
