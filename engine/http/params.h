/* JSON request bodies as typed parameters. Pure: no engine, no connection. A mistake of the client is an
 * http_error that names the field. */
#ifndef HTTP_PARAMS_H
#define HTTP_PARAMS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"

enum {
	HTTP_MAX_CHOICES = 128, /* n times prompts */
	HTTP_MAX_STOPS = 64,
	HTTP_MAX_TOP = 20,
	HTTP_MAX_SCORED = 1024,
};

/* What an error body says. status 0: no error. */
struct http_error {
	int status;
	const char *type; /* "invalid_request_error" */
	const char *code; /* or NULL */
	char param[96];   /* or empty */
	char message[ERR_MSG_SIZE];
};

/* 400 invalid_request_error; param NULL: the body as a whole. Returns -EINVAL. */
int http_bad_field(struct http_error *e, const char *param, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

struct http_prompt {
	const char *text; /* borrowed from the body; NULL: ids */
	size_t text_len;
	int32_t *ids;
	size_t n_ids;
	int32_t *scored; /* generate: tokens whose log-probabilities are wanted */
	size_t n_scored;
};

enum http_tool_choice { TOOLS_AUTO, TOOLS_NONE, TOOLS_REQUIRED, TOOLS_NAMED };

struct http_params {
	json_t *body; /* owns every borrowed string and value below */
	struct eng_sampling sampling;
	struct eng_logit_bias *logit_bias;
	const char **stops;
	size_t n_stops;
	int32_t *stop_ids;
	size_t n_stop_ids;
	uint32_t max_new, min_new;
	bool no_output; /* a maximum of 0 tokens was asked for: only the prompt is scored */
	bool ignore_eos, keep_special, include_stop;
	bool logprobs, processed_logprobs;
	uint32_t n_top;
	int64_t logprob_start;
	const char *grammar_param; /* the field that asked for structured output; NULL: none did */
	enum eng_grammar_kind grammar_kind;
	char *grammar_text;
	size_t grammar_len;
	uint32_t n;
	bool stream, include_usage, continuous_usage;

	struct http_prompt *prompts; /* completions, embeddings, generate */
	size_t n_prompts;
	bool is_batch;     /* generate: answered by an array */
	bool echo;         /* completions */
	bool logprob_text; /* generate: texts in logprob triples */

	const json_t *messages, *tools, *kwargs; /* chat */
	json_t *made;                            /* another protocol's body, which `body` was made from; owned */
	const char *reasoning_effort;
	bool add_generation_prompt;
	enum http_tool_choice tool_choice;
	const char *tool_name; /* TOOLS_NAMED */
	uint32_t max_calls;    /* 0: any number */
	bool joins_reasoning;  /* reasoning stays in the text */

	const char *rid; /* generate: the client's name for the request */

	const char *query, *instruction; /* rerank: borrowed; instruction may be NULL. The documents are the prompts */
	size_t query_len;
	uint32_t top_n; /* 0: all */
	bool return_documents;

	bool base64; /* embeddings */
	uint32_t dimensions;
};

/* Each parses a body; on success http_params_done() is due. `defaults` come from the model. */
typedef int (*http_parse_fn)(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                             struct http_error *e);
int http_parse_chat(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                    struct http_error *e);
int http_parse_completion(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                          struct http_error *e);
int http_parse_generate(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                        struct http_error *e);
int http_parse_embedding(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                         struct http_error *e);
int http_parse_rerank(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                      struct http_error *e);
/* Anthropic's messages and OpenAI's responses: turned into the body of a chat completion, and read as that. */
int http_parse_messages(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                        struct http_error *e);
int http_parse_responses(const char *data, size_t len, const struct eng_sampling *defaults, struct http_params *ret,
                         struct http_error *e);
void http_params_done(struct http_params *p);
/* constrain.c: fields that ask for structured output, into the grammar fields. */
int http_parse_constrained(const json_t *obj, struct http_params *p, struct http_error *e);

/* Fills chat (an empty object). before: messages in front of the body's own, or NULL. */
typedef int (*http_convert_fn)(const json_t *body, const json_t *before, json_t *chat, struct http_error *e);
int http_convert_messages(const json_t *body, const json_t *before, json_t *chat, struct http_error *e);
int http_convert_responses(const json_t *body, const json_t *before, json_t *chat, struct http_error *e);
/* body is taken, also on failure. */
int http_parse_converted(json_t *body, http_convert_fn convert, const json_t *before,
                         const struct eng_sampling *defaults, struct http_params *ret, struct http_error *e);
/* dst[to] = src[from], when it is there and not null. */
void http_copy_field(json_t *dst, const char *to, const json_t *src, const char *from);

/* ---- Typed fields, for the small routes ---- */

/* NULL for what is missing or null. */
const json_t *http_field(const json_t *obj, const char *key);
int http_parse_object(const char *data, size_t len, json_t **ret_body, struct http_error *e);
/* Missing or null leaves *ret and returns 0; 1 when read. */
int http_opt_bool(const json_t *obj, const char *key, bool *ret, struct http_error *e);
int http_opt_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret, struct http_error *e);
int http_opt_float(const json_t *obj, const char *key, double min, double max, float *ret, struct http_error *e);
/* An array of token ids. *ret_ids is malloc'd. */
int http_ids(const json_t *value, const char *param, int32_t **ret_ids, size_t *ret_n, struct http_error *e);

#endif
