/* The subcommands of ocai: one file each, with its option table. */
#ifndef OCAI_COMMANDS_H
#define OCAI_COMMANDS_H

#include "base/options.h"

extern const struct opt kb_opts[];
int cmd_kb(int argc, char **argv);
extern const struct opt mcp_opts[];
int cmd_mcp(int argc, char **argv);

#endif
