/* What the subcommands share: settings from all layers, the question's words, and who can be asked. */
#ifndef AGENT_FRONT_H
#define AGENT_FRONT_H

#include "base/config.h"
#include "commands.h"
#include "flow/flow.h"

struct front {
	struct ag_settings s;
	struct base_config *config;
	const struct opt_command *command;
	struct base_buf question, input; /* input: what was piped in */
	bool has_input;
	struct ag_term *term;
	struct ag_ui ui;
	struct ag_io io;
	int n_words;
};

#define FRONT_BACKEND_OPTS                                                                                 \
	{ "url",   0,                                                                                      \
	  OPT_STR, offsetof(struct ag_settings, opt_url),                                                  \
	  "URL",   "OpenAI-compatible server, or unix:/path [an engine of your own, started when needed]", \
	  NULL },                                                                                          \
	        { "model", 0,                                                                              \
		  OPT_STR, offsetof(struct ag_settings, opt_model),                                        \
		  "NAME",  "model to ask [the server's first]",                                            \
		  NULL },                                                                                  \
	        { "profile", 0,                                                                            \
		  OPT_STR,   offsetof(struct ag_settings, opt_profile),                                    \
		  "NAME",    "[profile NAME] of the configuration",                                        \
		  NULL },                                                                                  \
	        { "timeout", 0,                                                                            \
		  OPT_UINT,  offsetof(struct ag_settings, timeout_s),                                      \
		  "SECONDS", "how long the server may be silent [120]",                                    \
		  NULL },                                                                                  \
	        { "attach", 'a',                                                                           \
		  OPT_LIST, offsetof(struct ag_settings, files),                                           \
		  "FILE",   "put a file into the question; may be repeated",                               \
		  NULL },                                                                                  \
	        { "no-history", 0,                                                                         \
		  OPT_FLAG,     offsetof(struct ag_settings, no_history),                                  \
		  NULL,         "keep nothing of this in the history",                                     \
		  NULL },                                                                                  \
	        { "color",                                                                                 \
		  0,                                                                                       \
		  OPT_CHOICE,                                                                              \
		  offsetof(struct ag_settings, color),                                                     \
		  "WHEN",                                                                                  \
		  "colours [auto]",                                                                        \
		  "auto,always,never" },                                                                   \
	        { "quiet",  'q',                                                                           \
		  OPT_FLAG, offsetof(struct ag_settings, quiet),                                           \
		  NULL,     "the answer alone: no menu, no remarks",                                       \
		  NULL },                                                                                  \
	{                                                                                                  \
		"show-config", 0, OPT_FLAG, offsetof(struct ag_settings, show_config), NULL,               \
		        "print the merged configuration and where each value came from", NULL              \
	}

/* Reads configuration and options. 0: go on; otherwise *ret_code is the exit code and the front is done. */
int front_begin(struct front *f, const char *name, int argc, char **argv, int *ret_code);
/* Joins words into the question and reads what is piped in. The same convention. */
int front_read_question(struct front *f, char **words, int n, int *ret_code);
/* Opens the terminal for questions to the person, when there is one. */
void front_open_term(struct front *f);
/* The same where the person looks at standard output and has not asked for the answer alone. */
void front_open_asking(struct front *f);
int front_usage(const struct front *f, const char *words);
/* Says the error, when r is one; the exit code. */
int front_end(struct front *f, int r, const struct err *err);

/* The flows behind cmd, code and ask, for a front that is ready; exit codes. */
int front_cmd(struct front *f);
int front_answer(struct front *f, const struct ag_assistant *a);
int front_chat(struct front *f);

#endif
