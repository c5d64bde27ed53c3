/* The flows: from the words of a question to an answer, a command that runs, or code.
 *
 *   settings.c    configuration, environment and options in one struct; [profile NAME] sections
 *   assistants.c  one table: chat, cmd, code, sys, kb: prompt, tools, profile, what its answer is
 *   route.c       which assistant a question is for
 *   link.c        the backend of a profile: opt-in and masking for remote ones, streaming, Ctrl-C
 *   loop.c        an answer with tools: model, calls, results, until it is final or a limit is reached
 *   toolbox.c     the tools of one answer: our table, commands, MCP servers; each call checked, bounded, ended in time
 *   consent.c     what a tool may do unasked, what it has to ask for, what it may not
 *   capture.c     a function in a process of its own, its output kept, ended by time or Ctrl-C
 *   numbers.c     numbers in an answer that no fact holds
 *   passages.c    passages of the knowledge base for a question, and the list of sources behind the answer
 *   talk.c        prompts: standard input and files joined and bounded, a conversation cut to the context
 *   record.c      history that may fail without stopping anything
 *   suggest.c     one command for one question: catalogue, model, or both
 *   act.c         menu, form, gate, running, and the fix after a failure
 *   run.c         a command in the user's shell, its errors seen and kept
 *   chat.c        the conversation
 *
 * Asking a person goes through struct ag_ui, so that tests can answer. Strings in structs are borrowed. */
#ifndef AG_FLOW_H
#define AG_FLOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "agent.h"
#include "base/buf.h"
#include "base/config.h"
#include "base/err.h"
#include "gate/gate.h"
#include "history/history.h"
#include "term/term.h"

/* ---- Settings ------------------------------------------------------------------------------------------- */

enum {
	AG_MAX_PROFILES = 16,
	AG_MAX_OWN = 16, /* [assistant NAME] sections */
	AG_MAX_NAME = 64,
	AG_MAX_RESULT = 60 << 10, /* bytes of a tool's result */
	AG_MAX_KEYS = 48 + 6 * AG_MAX_PROFILES + 10 * AG_MAX_OWN,
};

struct ag_profile {
	char name[AG_MAX_NAME], section[AG_MAX_NAME + 16]; /* name: the first field */
	const char *url, *model, *api_key_file;
	bool allow_remote, has_tools;
	uint32_t context_tokens;
};

enum ag_output_rule {
	AG_OUTPUT_MARKDOWN, /* shown as it comes */
	AG_OUTPUT_COMMAND,  /* one command is taken out, the gate and the menu follow */
	AG_OUTPUT_CODE,     /* the code alone */
};

struct ag_assistant {
	const char *name;
	const char *keyword; /* system prompt of ocai-mini, the embedded model; NULL: it was not trained for this */
	const char *system_en, *system_zh; /* of every other model */
	const char *tools;                 /* names of tools it may use, comma separated; "*" all; "" none */
	enum ag_output_rule output;
	bool checks_numbers;             /* numbers in its answer are compared with the facts it was given */
	bool cites_passages;             /* it gets passages of the knowledge base and cites them */
	bool measures;                   /* this machine is measured for it first */
	const char *about_en, *about_zh; /* one phrase for the person */
	const char *profile;             /* of an assistant of the configuration, or NULL */
};

struct ag_own_assistant {                                  /* [assistant NAME] */
	char name[AG_MAX_NAME], section[AG_MAX_NAME + 16]; /* name: the first field */
	const char *prompt, *prompt_zh, *tools, *output, *about, *profile;
	bool check_numbers, passages, measures;
	struct ag_assistant row; /* made of the above */
};

struct ag_settings {
	/* options */
	bool print, json, quiet, show_config, no_history;
	const char *opt_url, *opt_model, *opt_profile, *color;
	const char *language, *output; /* code */
	const char *resume;            /* chat */
	bool is_resumed;
	struct opt_list files; /* --attach */
	uint32_t limit;        /* history */
	bool all;              /* history */
	/* configuration */
	const char *profile, *url, *model, *api_key_file, *engine, *engine_model;
	uint32_t timeout_s, start_timeout_s, idle_exit_s, max_tokens, context_tokens;
	bool allow_remote, keep_history;
	const char *profile_of[8]; /* by assistant */
	/* tools */
	bool tools_enabled, run_read;
	uint32_t max_steps, tool_time_s, max_result_bytes;
	struct opt_list tool_folders;
	struct ag_own_assistant own[AG_MAX_OWN];
	size_t n_own;
	const struct ag_assistant *command_assistant; /* whom ag_suggest() asks; NULL: cmd */
	struct ag_profile profiles[AG_MAX_PROFILES];
	size_t n_profiles;
	struct base_config_key keys[AG_MAX_KEYS]; /* what the config object points to */
};

/* Built-in values, then the configuration's. *s must stay where it is while the config object lives. root: prefix of
 * the system's files for tests, or NULL. */
int ag_settings_load(struct ag_settings *s, const char *root, struct base_config **ret_config, struct err *err);
/* Whether the values make sense; -EINVAL with words. */
int ag_settings_check(const struct ag_settings *s, struct err *err);
/* The locale wants Chinese. */
bool ag_locale_is_chinese(void);

/* ---- Assistants ------------------------------------------------------------------------------------------ */

size_t ag_assistant_count(void);
const struct ag_assistant *ag_assistant_at(size_t i);
const struct ag_assistant *ag_assistant_find(const char *name); /* of the table; NULL when there is none */
size_t ag_assistant_index(const struct ag_assistant *a);        /* a is of the table */
/* Of the configuration, else of the table. */
const struct ag_assistant *ag_settings_assistant(const struct ag_settings *s, const char *name);
/* The system prompt for this model and language; NULL when the model cannot do it. */
const char *ag_assistant_system(const struct ag_assistant *a, const char *model, bool chinese);
/* The model is the embedded one, which does commands and nothing else. */
bool ag_model_is_embedded(const char *model);
/* Whether this model can be this assistant; -ENOTSUP with words that say what to do. */
int ag_assistant_check(const struct ag_assistant *a, const char *model, bool chinese, struct err *err);
/* The assistant may use the tool of this name. */
bool ag_assistant_has_tool(const struct ag_assistant *a, const char *tool);

/* For whom the question is. has_input: something is piped in or attached. Never NULL. */
const struct ag_assistant *ag_route(const char *question, bool has_input);

/* ---- Link -------------------------------------------------------------------------------------------------- */

struct ag_link {
	struct ag_backend *backend;
	struct base_buf model;
	char host[256];          /* of a remote backend, else "" */
	uint32_t context_tokens; /* of the model, as far as known */
	bool no_tools;           /* the profile or the server says that it cannot use any */
	const struct ag_settings *settings;
	const struct ag_assistant *assistant;
};

/* Connects the backend of the assistant's profile; starts this user's engine when none is configured. A remote host
 * without opt-in: -EPERM. Finds the model. */
int ag_link_open(const struct ag_settings *s, const struct ag_assistant *a, struct ag_link *ret_link, struct err *err);
void ag_link_close(struct ag_link *link);
/* Streams the answer to the messages; a remote backend gets them with secrets masked. Ctrl-C between
 * ag_term_interrupt_begin() and _end() stops it with -ECANCELED. An engine that had gone to sleep is woken once.
 * A leading <think>...</think> is left out. */
int ag_link_stream(struct ag_link *link, const json_t *messages, uint32_t max_tokens, ag_text_fn on_text, void *arg,
                   struct err *err);
/* One request: tools may be NULL. */
struct ag_turn {
	const json_t *messages, *tools;
	bool no_calls; /* answer now */
	uint32_t max_tokens;
};
/* The same with tools; *ret_calls as in ag_backend_converse(). A server that refuses tools is asked again without, and
 * link->no_tools is set. */
int ag_link_converse(struct ag_link *link, const struct ag_turn *turn, ag_text_fn on_text, void *arg,
                     json_t **ret_calls, struct err *err);

/* ---- Talk --------------------------------------------------------------------------------------------------- */

enum { AG_MAX_QUESTION = 32000, AG_MAX_INPUT = 24000, AG_MAX_FILE = 24000, AG_MAX_ANSWER = 1 << 20 };

/* Reads to the end of fd and keeps its beginning and its end, at most max_bytes together, as clean UTF-8; what was
 * left out is said in the middle. is_canceled may be NULL. */
int ag_read_bounded(int fd, size_t max_bytes, struct base_buf *out, struct err *err);
int ag_read_bounded_file(const char *path, size_t max_bytes, struct base_buf *out, struct err *err);
/* The order is always: the question, standard input, then the files as they were named. input, names may be NULL. */
int ag_join_prompt(const char *question, const char *input, const struct opt_list *files, struct base_buf *out,
                   struct err *err);
/* Tokens of the text, guessed from above: a Chinese character is one, three other bytes are one. */
size_t ag_guess_tokens(const char *text, size_t len);
/* Leaves out the oldest turns (never the system prompt, the last question nor what follows it), then cuts the results
 * of tools, the oldest first, then the last question, in their middle, until all fits. Returns how many messages were
 * left out. */
int ag_trim_messages(json_t *messages, size_t max_tokens);
int ag_add_message(json_t *messages, const char *role, const char *text, size_t len);

/* ---- History that may fail ------------------------------------------------------------------------------------ */

struct ag_record {
	struct ag_history *history; /* NULL: none is kept */
	int64_t session;
	FILE *err;
};

/* Opens the history unless the settings say no; why it cannot is said once, on err. */
void ag_record_open(struct ag_record *r, const struct ag_settings *s, FILE *err);
void ag_record_begin(struct ag_record *r, const char *kind, const char *model, const char *title);
void ag_record_add(struct ag_record *r, const char *role, const char *text, size_t len);
void ag_record_close(struct ag_record *r);

/* ---- Asking the person ---------------------------------------------------------------------------------------- */

/* What the terminal room offers, as a table; see term/term.h for the meaning. */
struct ag_ui {
	void *arg;
	int (*menu)(void *arg, const struct ag_term_menu *menu, struct err *err);
	int (*edit)(void *arg, const struct ag_term_edit *edit, struct base_buf *ret_text, struct err *err);
	int (*confirm)(void *arg, const char *question, bool is_yes_default, struct err *err);
	int (*form)(void *arg, const char *title, const struct ag_term_field *fields, size_t n_fields,
	            struct base_buf *values, struct err *err);
	void (*quiet)(void *arg, bool begins); /* keys are not echoed until it ends; may be NULL */
};

extern const struct ag_ui ag_ui_of_term;  /* arg is to be a struct ag_term * */
extern const struct ag_ui ag_ui_of_lines; /* arg: FILE *, each line is one turn; only edit is there */

/* Where a flow talks: answers go to out, remarks to err; ui is NULL when nobody can be asked. */
struct ag_io {
	FILE *out, *err;
	const struct ag_ui *ui;
	struct ag_term_look look; /* of out */
	bool chinese;
};

/* Streams one answer to io->out, rendered when that is a terminal; what came is appended to ret_text, also when the
 * stream ended in an error. Where it is no terminal and tools are offered, the text is shown when it turns out to be
 * final: what a model says between its calls is for people who watch. */
int ag_show_stream(struct ag_link *link, const struct ag_turn *turn, const struct ag_io *io, struct base_buf *ret_text,
                   json_t **ret_calls, struct err *err);

/* ---- Tools ---- */

struct ag_toolbox; /* one answer's, or one conversation's; one thread */

/* The tools that the assistant's row, the settings and the model's context allow, at most max_tokens of schemas. MCP
 * servers are connected here; those that fail are named on io->err. All arguments are borrowed. */
int ag_toolbox_new(const struct ag_link *link, const struct ag_io *io, size_t max_tokens, struct ag_toolbox **ret_box,
                   struct err *err);
void ag_toolbox_free(struct ag_toolbox *box);
const json_t *ag_toolbox_schemas(const struct ag_toolbox *box); /* of the API; empty when there are no tools */
/* Paths in a person's own words may be read without asking. */
void ag_toolbox_allow_paths(struct ag_toolbox *box, const char *words);
/* Whether this call may be made, asking the person where that is needed. -ECANCELED: the person stopped it all; any
 * other error is told to the model: no such tool, no permission, arguments that cannot be right. */
int ag_toolbox_permit(struct ag_toolbox *box, const char *name, const json_t *args, struct err *err);
/* Makes the call that was permitted just before and appends its result, clean text of at most the settings' size. It
 * ends after timeout_ms. -ECANCELED: Ctrl-C; any other error is the tool's, its words for the model. */
int ag_toolbox_run(struct ag_toolbox *box, const char *name, const json_t *args, uint32_t timeout_ms,
                   struct base_buf *out, struct err *err);

/* Appends the system prompt, with the rules of tools when there are any. */
void ag_system_words(const struct ag_assistant *a, const char *model, bool chinese, const struct ag_toolbox *box,
                     struct base_buf *out);

/* The conversation goes on until the model gives an answer without calls, or the settings' limits are reached: then it
 * is to answer with what it has. Steps are shown on io->err, the answer on io->out. The messages of calls and results
 * are appended to `messages`, the final answer is appended to ret_text and not to them. facts (may be NULL): results
 * are appended. toolbox NULL: one answer without tools. */
int ag_loop(struct ag_link *link, struct ag_toolbox *box, json_t *messages, uint32_t max_tokens, const struct ag_io *io,
            struct base_buf *ret_text, struct base_buf *facts, struct err *err);

enum ag_tool_risk {
	AG_TOOL_FREE, /* looks at facts that are no one's secret */
	AG_TOOL_FILE, /* reads a file */
	AG_TOOL_MCP,  /* another program does what it does */
};
/* Consent to one call: 1 it may run, 0 it may not (words for the model in err), -ECANCELED the person stopped all. */
struct ag_consent {
	const struct ag_settings *settings;
	const struct ag_io *io;
	const struct opt_list *named;  /* real paths of the person's own words */
	bool always_files, always_mcp; /* "yes, for all" was chosen */
};
int ag_consent_file(struct ag_consent *c, const char *path, struct err *err);
int ag_consent_mcp(struct ag_consent *c, const char *server, const char *tool, const json_t *args, struct err *err);
/* The gate's decision on the command, with the user's rules; *ret_decision for the audit, the caller's. */
int ag_consent_command(struct ag_consent *c, const struct ag_gate_rules *rules, const char *command,
                       struct ag_gate_decision **ret_decision, struct err *err);

/* Runs fn in a child process of a session of its own, its standard output and error kept (the beginning, up to the
 * ceiling of out), its standard input empty. *ret_status is what it exited with, 128 + signal. -ECANCELED for Ctrl-C,
 * -ETIMEDOUT: it was killed with all of its group, and what came before is kept. */
int ag_capture(int (*fn)(void *arg), void *arg, uint32_t timeout_ms, struct base_buf *out, int *ret_status,
               struct err *err);

/* Appends the numbers of the answer that occur in none of the facts, "42 %, 1.5", each once; returns how many. A number
 * that a fact gives when rounded, or in another unit of bytes, is there. List numbers, code, and what is part of a word
 * are not looked at. */
int ag_numbers_unknown(const char *answer, size_t answer_len, const char *facts, size_t facts_len,
                       struct base_buf *out);

/* ---- Passages ---- */

struct ag_passages {
	struct base_buf text; /* for the prompt, numbered from 1 */
	struct base_buf list; /* a line for each: "[1] path:line (title)\n" */
	size_t n;
	double cover;   /* share of the question's words that the best passage has, 0 to 1 */
	size_t n_words; /* of the question */
	bool is_manual; /* the best passage is of a manual page */
};
/* The passages that answer best, of the user's knowledge base; n is 0 when there is none, or no knowledge base.
 * remarks: where a person is told of a damaged database, or NULL. *ret is to be given back also when it failed. */
int ag_passages_find(const char *question, struct ag_passages *ret, FILE *remarks, struct err *err);
void ag_passages_done(struct ag_passages *p);
/* Appends the lines of the list that the answer cites; all, when it cites none. */
int ag_passages_sources(const struct ag_passages *p, const char *answer, struct base_buf *out);

/* ---- Commands -------------------------------------------------------------------------------------------------- */

struct ag_suggestion {
	struct base_buf model, command, note; /* note: a remark of the catalogue, or empty */
	double seconds;
};

void ag_suggestion_init(struct ag_suggestion *g);
void ag_suggestion_done(struct ag_suggestion *g);
/* -ENODATA when the answer holds no command. input: what was piped in, or NULL. */
int ag_suggest(const struct ag_settings *s, const char *question, const char *input, struct ag_suggestion *ret,
               FILE *remarks, struct err *err);

/* The same after `command` has failed: a corrected one. The catalogue is not asked. */
int ag_suggest_fix(const struct ag_settings *s, const char *question, const char *command, int exit_code,
                   const char *errors, struct ag_suggestion *ret, FILE *remarks, struct err *err);

/* The first placeholder <name> of a command line: its offset and length with the brackets; false: none. */
bool ag_find_placeholder(const char *command, size_t from, size_t *ret_at, size_t *ret_len);
/* The command with each placeholder replaced by the value of its name, quoted as its place in the line needs. */
int ag_fill_placeholders(const char *command, const char *const *names, const char *const *values, size_t n,
                         struct base_buf *out);

struct ag_run_result {
	int exit_code;          /* 128 + signal */
	struct base_buf errors; /* the end of its standard error */
};

/* Runs the line in the user's shell, on the terminal. Fails only when it could not be started. */
int ag_run_command(const char *command, struct ag_run_result *ret, struct err *err);

/* Menu, gate, running, fixing. Returns the exit code of what ran last, 0 when nothing ran, negative for an error of
 * ours. */
int ag_act(const struct ag_settings *s, const struct ag_io *io, const char *question, struct ag_suggestion *g,
           struct ag_record *record, struct err *err);

/* ---- Chat and code ---- */

/* One question, one answer, with the tools, passages and checks that the assistant's row says. -ENOTSUP: the model
 * cannot be this assistant; nothing was shown. -ENODATA: passages were to be cited and there are none. */
int ag_answer(const struct ag_settings *s, const struct ag_assistant *a, const struct ag_io *io, const char *question,
              const char *input, struct err *err);
/* Until /exit or the end of input. first: what was piped in, for the first turn, or NULL. */
int ag_chat(const struct ag_settings *s, const struct ag_io *io, const char *first, struct err *err);
/* The code of a model's answer: all fenced blocks, or the whole answer when it has none. */
int ag_extract_code(const char *text, size_t len, struct base_buf *out);

#endif
