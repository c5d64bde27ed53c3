/* The subcommands of ocai: each is one file cmd_NAME.c with its option table and its function. */
#ifndef AGENT_COMMANDS_H
#define AGENT_COMMANDS_H

#include "base/options.h"

extern const struct opt_program ocai_program; /* ocai.c */
/* The row of this name, which must be there. */
const struct opt_command *ocai_command(const char *name);

extern const struct opt ask_opts[], cmd_opts[], chat_opts[], code_opts[], history_opts[], config_opts[];

int cmd_ask(int argc, char **argv);
int cmd_cmd(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_code(int argc, char **argv);
int cmd_history(int argc, char **argv);
int cmd_config(int argc, char **argv);

extern const struct opt sys_opts[];
int cmd_sys(int argc, char **argv);

extern const struct opt kb_opts[];
int cmd_kb(int argc, char **argv);
extern const struct opt mcp_opts[];
int cmd_mcp(int argc, char **argv);

#endif
