/* The flows: from the words of a question to an answer, a command that runs, or code.
 *
 *   settings.c    configuration, environment and options in one struct; [profile NAME] sections
 *   assistants.c  one table: chat, cmd, code, sys, kb: prompt, tools, profile, what its answer is
 *   route.c       which assistant a question is for
 *   link.c        the backend of a profile: opt-in and masking for remote ones, streaming, Ctrl-C
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

enum { AG_MAX_PROFILES = 16, AG_MAX_KEYS = 40 + 5 * AG_MAX_PROFILES };

struct ag_profile {
	char name[64], section[80];
	const char *url, *model, *api_key_file;
	bool allow_remote;
	uint32_t context_tokens;
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

enum ag_output_rule {
	AG_OUTPUT_MARKDOWN, /* shown as it comes */
	AG_OUTPUT_COMMAND,  /* one command is taken out, the gate and the menu follow */
	AG_OUTPUT_CODE,     /* the code alone */
};

struct ag_assistant {
	const char *name;
	const char *keyword;               /* system prompt of a model trained for it (ocai-mini) */
	const char *system_en, *system_zh; /* of every other model */
	const char *tools;                 /* names of read-only tools it may use, comma separated; "" for none */
	enum ag_output_rule output;
	const char *about_en, *about_zh; /* one phrase for the person */
};

size_t ag_assistant_count(void);
const struct ag_assistant *ag_assistant_at(size_t i);
const struct ag_assistant *ag_assistant_find(const char *name); /* NULL when there is none */
size_t ag_assistant_index(const struct ag_assistant *a);
/* The system prompt for this model and language. */
const char *ag_assistant_system(const struct ag_assistant *a, const char *model, bool chinese);

/* For whom the question is. has_input: something is piped in or attached. Never NULL. */
const struct ag_assistant *ag_route(const char *question, bool has_input);

/* ---- Link -------------------------------------------------------------------------------------------------- */

struct ag_link {
	struct ag_backend *backend;
	struct base_buf model;
	char host[256];          /* of a remote backend, else "" */
	uint32_t context_tokens; /* of the model, as far as known */
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
/* The host of a url when it is not this machine: 1 and the name; 0 for loopback and unix sockets. */
int ag_url_remote_host(const char *url, char *host, size_t size);

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
/* Leaves out the oldest turns (never the system prompt nor the last message), then cuts the last message in its
 * middle, until all fits. Returns how many messages were left out. */
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

/* Streams the answer to io->out, rendered when that is a terminal; what came is appended to ret_text, also when the
 * stream ended in an error. */
int ag_show_stream(struct ag_link *link, const json_t *messages, uint32_t max_tokens, const struct ag_io *io,
                   struct base_buf *ret_text, struct err *err);

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

/* ---- Chat and code ------------------------------------------------------------------------------------------------
 */

/* One question, one answer. */
int ag_answer(const struct ag_settings *s, const struct ag_assistant *a, const struct ag_io *io, const char *question,
              const char *input, struct err *err);
/* Until /exit or the end of input. first: what was piped in, for the first turn, or NULL. */
int ag_chat(const struct ag_settings *s, const struct ag_io *io, const char *first, struct err *err);
/* The code of a model's answer: all fenced blocks, or the whole answer when it has none. */
int ag_extract_code(const char *text, size_t len, struct base_buf *out);

#endif
