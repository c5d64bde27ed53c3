/* ocai: the assistant in the terminal. One row per subcommand; words that are none of them are a question. */
#include <locale.h>

#include "commands.h"

static const struct opt_command commands[] = {
	{ "ask", "[OPTION]... QUESTION...", "answer by the assistant the question is for (the default)", ask_opts,
	  cmd_ask },
	{ "chat", "[OPTION]...", "talk, with history", chat_opts, cmd_chat },
	{ "cmd", "[OPTION]... QUESTION...", "suggest one command; run it when told to", cmd_opts, cmd_cmd },
	{ "code", "[OPTION]... QUESTION...", "write code", code_opts, cmd_code },
	{ "sys", "[OPTION]... [host|hardware|gpu|packages|services|logs|network|storage|users|perf|all]...",
	  "facts about this machine, and what slows it down", sys_opts, cmd_sys },
	{ "history", "list|show ID|search WORDS|rm ID|export ID", "what was asked and answered", history_opts,
	  cmd_history },
	{ "config", "[OPTION]...", "show the merged configuration", config_opts, cmd_config },
	{ "kb", "[OPTION]... add WHAT... | list | rm WHAT... | search QUESTION... | update",
	  "documents that answers may cite", kb_opts, cmd_kb },
	{ "mcp", "[OPTION]... serve | list [SERVER] | call SERVER TOOL [JSON]",
	  "offer tools to other programs, use theirs", mcp_opts, cmd_mcp },
	{ 0 }
};

const struct opt_program ocai_program = {
	.name = "ocai",
	.summary = "assistant for the administration of this machine",
	.commands = commands,
	.default_command = "ask",
};

const struct opt_command *ocai_command(const char *name)
{
	return opt_find_command(&ocai_program, name);
}

int main(int argc, char **argv)
{
	(void)setlocale(LC_ALL, "");
	return opt_main(&ocai_program, argc, argv);
}
