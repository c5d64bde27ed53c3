/* What a model's answer says beside its text: reasoning and tool calls, as the model's family writes them.
 *
 * A parser takes the answer in pieces of any size and tells its parts in order. What it tells, joined by kind, is the
 * same for every way of cutting the answer. Text that turns out not to be a call is told as text. */
#ifndef ENGINE_CHAT_H
#define ENGINE_CHAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum eng_part_kind {
	ENG_PART_TEXT,
	ENG_PART_REASONING,
	ENG_PART_CALL,     /* a call begins; text is the whole name */
	ENG_PART_ARGS,     /* more of its arguments: joined they are a JSON object */
	ENG_PART_CALL_END, /* its arguments are whole; missing when the answer ended or broke before */
};

/* Never empty but for CALL_END; whole UTF-8 characters where the answer has them. Borrowed for the call. */
struct eng_part {
	enum eng_part_kind kind;
	uint32_t call; /* which one, from 0 */
	const char *text;
	size_t len;
};
typedef void (*eng_part_fn)(void *arg, const struct eng_part *part);

struct eng_chat_parser;

struct eng_chat_parser_config {
	const char *tool_format;      /* a name from eng_chat_tool_format(); NULL or "none": calls are text */
	const char *reasoning_format; /* likewise; NULL or "none": reasoning is text */
	const json_t *tools;          /* OpenAI's array, for the types of arguments; borrowed; may be NULL */
	const char *prompt;           /* the rendered prompt: an answer may begin inside reasoning; may be NULL */
	size_t prompt_len;
	uint32_t max_calls; /* what follows the last one is dropped; 0: any number */
	eng_part_fn on_part;
	void *arg;
};

/* -EINVAL: an unknown format. */
int eng_chat_parser_new(const struct eng_chat_parser_config *config, struct eng_chat_parser **ret_parser,
                        struct err *err);
void eng_chat_parser_feed(struct eng_chat_parser *p, const char *text, size_t len);
/* The answer is over: what was held back is told. */
void eng_chat_parser_finish(struct eng_chat_parser *p);
/* Nothing that follows will be told. */
bool eng_chat_parser_is_full(const struct eng_chat_parser *p);
void eng_chat_parser_free(struct eng_chat_parser *p);

/* ---- Formats --------------------------------------------------------------------------------------- */

/* The i-th name, NULL behind the last. */
const char *eng_chat_tool_format(size_t i);
const char *eng_chat_reasoning_format(size_t i);
/* What a chat template is written for; "none" when it shows nothing. */
const char *eng_chat_detect_tools(const char *tmpl, size_t len);
const char *eng_chat_detect_reasoning(const char *tmpl, size_t len);
/* The marks of the format are special tokens: the answer's text must keep them. */
bool eng_chat_needs_special(const char *tool_format, const char *reasoning_format);
/* The prompt leaves the model in the middle of reasoning; *ret_close is what ends it. */
bool eng_chat_is_open_reasoning(const char *reasoning_format, const char *prompt, size_t len, const char **ret_close);

/* An id for a call, as the format's templates accept it back: at least 32 bytes. */
void eng_chat_call_id(const char *tool_format, char *ret_id, size_t size);

/* A JSON schema for answers that are calls and nothing else, an array in the format "json"; for constrained
 * generation. name NULL: any of the tools. The caller's reference. */
json_t *eng_chat_call_schema(const json_t *tools, const char *name, uint32_t max_calls);

#endif
