/* The assistant as a library: find or start a backend, ask it, take the command out of its answer.
 *
 * Nothing here runs what a model says. Strings in structs the caller fills are borrowed for the call. */
#ifndef AGENT_H
#define AGENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* ---- Backend: an OpenAI-compatible server -------------------------------------------------------- */

struct ag_backend; /* one connection, one thread */

/* url: "http://host:port" or "https://..." (with or without "/v1" at the end), or "unix:/path/of/socket".
 * api_key_file: its first line is sent as a bearer token; NULL for none; readable by others: -EPERM. timeout_ms: the
 * longest silence. */
int ag_backend_open(const char *url, const char *api_key_file, uint32_t timeout_ms, struct ag_backend **ret_backend,
                    struct err *err);
void ag_backend_close(struct ag_backend *b);

/* 0 when it is ready; -EAGAIN while it loads; -ECONNREFUSED when nobody is there; other errors as they are. */
int ag_backend_health(struct ag_backend *b, struct err *err);
/* The id of the first model it serves, appended. */
int ag_backend_model(struct ag_backend *b, struct base_buf *ret_id, struct err *err);
/* Greedy answer to the messages, appended. */
int ag_backend_ask(struct ag_backend *b, const char *model, const json_t *messages, uint32_t max_tokens,
                   struct base_buf *ret_answer, struct err *err);

/* A piece of an answer: whole UTF-8 characters, not NUL-terminated. Non-zero stops the answer. */
typedef int (*ag_text_fn)(void *arg, const char *text, size_t len);
/* The same, streamed. -ECANCELED when on_text or the cancel function stopped it, -EPIPE when it broke off: what came
 * before was handed over. A server that does not stream gives it in one piece. */
int ag_backend_stream(struct ag_backend *b, const char *model, const json_t *messages, uint32_t max_tokens,
                      ag_text_fn on_text, void *arg, struct err *err);
/* What is asked for. tools: an array of {"type": "function", ...}, or NULL. */
struct ag_backend_request {
	const char *model;
	const json_t *messages, *tools;
	bool no_calls; /* the model is to answer now, without calling any of the tools */
	uint32_t max_tokens;
};
/* The same with tools: *ret_calls is what the model wants called, an array of {"id", "type", "function": {"name",
 * "arguments" (text, whatever the model wrote)}} as its message carries them, or NULL; the caller's. A <tool_call>
 * block in the text is a call too. */
int ag_backend_converse(struct ag_backend *b, const struct ag_backend_request *request, ag_text_fn on_text, void *arg,
                        json_t **ret_calls, struct err *err);
/* Asked several times a second while a request runs; non-zero ends it with -ECANCELED. NULL: never. */
void ag_backend_set_cancel(struct ag_backend *b, int (*cancel)(void *arg), void *arg);
/* The context of the model that ag_backend_model() found; 0 when the server did not say. */
uint32_t ag_backend_context_tokens(const struct ag_backend *b);

/* The host of a url when it is not this machine: 1 and the name; 0 for loopback and unix sockets. */
int ag_url_remote_host(const char *url, char *host, size_t size);

/* ---- The engine of this user ----------------------------------------------------------------------- */

struct ag_engine_options {
	const char *program;       /* ocai-engine; NULL: beside this program, then in PATH */
	const char *model;         /* NULL: the engine's default */
	const char *runtime_dir;   /* NULL: $XDG_RUNTIME_DIR/ocai, else /tmp/ocai-UID */
	uint32_t start_timeout_ms; /* 0: 60 s */
	uint32_t idle_exit_s;      /* 0: 900 */
	/* Asked several times a second while the start is waited for; non-zero ends the wait with -ECANCELED, and the
	 * engine starts on. NULL: never. */
	int (*is_canceled)(void *arg);
	void *is_canceled_arg;
};

/* Makes sure that this user's engine answers on its socket, starting it when needed, and appends its url
 * ("unix:..."). Callers at the same time start only one. A failed start reports the end of its log. */
int ag_engine_ensure(const struct ag_engine_options *options, struct base_buf *ret_url, struct err *err);

/* ---- Words ------------------------------------------------------------------------------------------ */

/* The text has Chinese characters: answer in Chinese. */
bool ag_is_chinese(const char *text);
/* System and user message for "one command for this question", as this model wants them; the caller's. */
json_t *ag_cmd_messages(const char *model, const char *question);
/* Takes the command out of a model's answer (reasoning, prose, Markdown): 1 and the command appended, or
 * 0 when there is none. Negative when out may not grow. */
int ag_extract_command(const char *text, size_t len, struct base_buf *out);

#endif
