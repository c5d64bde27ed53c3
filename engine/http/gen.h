/* A request that makes the engine generate: one or more choices (prompts times n), each an engine
 * request. gen.c submits them, collects their text and log-probabilities and knows when all are done;
 * struct gen_api gives the shape that one protocol wants. Everything here runs with the exchange locked. */
#ifndef HTTP_GEN_H
#define HTTP_GEN_H

#include "engine_chat.h"
#include "http_internal.h"

enum { GEN_N_LP = 6, GEN_MAX_MARKS = 4096, GEN_TEXT_MAX = 64 << 20 };

struct gen;

/* Where one token's entry begins in the pending log-probabilities, and how many bytes of text it has. */
struct gen_mark {
	uint32_t offset[GEN_N_LP];
	uint32_t n_bytes;
};

/* A tool call of a chat's answer. */
struct gen_call {
	char id[40];
	struct base_buf name, args;
};

struct choice {
	struct gen *gen;
	uint32_t index;  /* of the choice in the answer */
	uint32_t prompt; /* which prompt it answers */
	uint64_t request_id;
	bool is_submitted, is_done;

	struct base_buf text;              /* all of it (replies, chat), or since the last chunk (streams of deltas) */
	struct base_buf lp[GEN_N_LP];      /* log-probabilities as JSON elements, each followed by ',' */
	struct base_buf pending[GEN_N_LP]; /* of tokens whose text is still held back */
	struct gen_mark *marks;            /* of the pending ones */
	size_t n_marks;
	struct base_buf ids;  /* output ids as JSON elements */
	uint64_t text_offset; /* completions: characters before the next token */
	bool has_begun;       /* stream: the first chunk is out */

	/* Chat. */
	struct eng_chat_parser *parser; /* NULL: the answer is text */
	struct base_buf reasoning, unsent;
	struct gen_call *calls;
	size_t n_calls;
	uint32_t n_reasoning; /* tokens */
	bool is_cut;          /* ended by us behind its last call */
	int item, n_items;    /* stream of responses or messages: the kind of the open item (-1: none), items so far */

	enum eng_finish finish;
	int32_t stop_id;
	char *stop_text;
	uint32_t n_output, n_cached;
	uint64_t first_us, last_us; /* when its first and its latest token came */
};

struct gen_api {
	/* Appends one token's entries to dst[GEN_N_LP]: c->pending, or c->lp where they need not wait for text. */
	void (*logprob)(struct choice *c, const struct eng_event *ev, struct base_buf *dst);
	/* Stream: sends what c holds. `last`: with the reason for the end. */
	void (*chunk)(struct choice *c, bool last);
	/* Chat, stream: a part of the answer, already kept in the choice; chunk() is then called for the last only. */
	void (*part)(struct choice *c, const struct eng_part *part);
	/* Stream: before anything else (may be NULL). */
	void (*begin)(struct gen *g);
	/* Stream: all choices are done. */
	void (*end)(struct gen *g);
	/* Stream: it failed after its beginning; NULL: an error event. */
	void (*fail)(struct gen *g);
	/* The whole reply. */
	void (*reply)(struct gen *g, struct base_buf *out);
	bool cumulative;  /* text and log-probabilities are not cleared after a chunk */
	bool lp_all;      /* entries for every token, also for one that gives no text */
	bool is_chat;     /* answers are parsed into parts */
	bool wants_parts; /* part() is called for whole replies too */
	bool has_no_done; /* a stream ends without [DONE] */
};

struct gen {
	struct exchange *x;
	const struct gen_api *api;
	struct http_params p;
	struct eng_grammar *grammar; /* NULL: free text */
	char id[40];
	int64_t created;
	struct choice *choices;
	uint32_t n_choices, n_open;
	uint32_t *n_prompt;      /* tokens of each prompt */
	struct http_error error; /* the first failure */
	uint64_t start_ms, start_us;
	uint64_t sequence; /* responses: numbers its events */
	void *extra;       /* the protocol's own, freed by free_extra */
	void (*free_extra)(void *extra);
};

/* Starts the work for parsed parameters (moved, also on failure). id_prefix: "chatcmpl-". extra (may be NULL) is
 * the work's too. */
void gen_start(struct exchange *x, const struct gen_api *api, struct http_params *p, const char *id_prefix, void *extra,
               void (*free_extra)(void *));
/* Parses with the given function and starts. */
void gen_handle(struct exchange *x, http_parse_fn parse, const struct gen_api *api, const char *id_prefix);
/* Maps an engine's refusal to a status; the first one stays. */
void gen_error_of(int code, const struct err *err, struct http_error *e);
/* The ids of one prompt, given or tokenized; the caller's to free. */
int gen_prompt_ids(struct exchange *x, const struct http_prompt *q, bool add_special, int32_t **ret_ids, size_t *ret_n,
                   struct http_error *e);

/* ---- adapter.c ---- */

/* Into x->adapter; 404 when there are adapters and none is called so. */
int http_pick_adapter(struct exchange *x, const json_t *body, struct http_error *e);
/* The refusal of a name; `field` is where the request has it. -ENOENT. */
int http_model_not_found(struct http_error *e, const char *field, const char *name);

/* ---- speak.c: a chat's prompt, and its answer in parts ---- */

int gen_render_chat(struct exchange *x, const struct http_params *p, struct base_buf *out, struct http_error *e);
/* Tool calls that a chat must make, or may, as a grammar for the answer. */
int gen_constrain_calls(struct gen *g, struct http_error *e);
int gen_open_parsers(struct gen *g, const char *prompt, size_t len, struct http_error *e);
void gen_speak(struct choice *c, const char *text, size_t len);
void gen_speak_end(struct choice *c);
void gen_speak_done(struct choice *c);
const char *gen_chat_finish(const struct choice *c); /* also "tool_calls" */

/* ---- gen_shape.c: for those who write an answer in one protocol's shape ---- */

/* "stop", "length", "abort", "error". */
const char *gen_finish_name(const struct choice *c);
/* The model's name for answers. */
const char *gen_model(const struct exchange *x);
/* A random id: prefix and 24 characters. */
void gen_make_id(const char *prefix, char *ret_id, size_t size);
/* A JSON string. */
void gen_string(struct base_buf *out, const struct base_buf *text);
/* A list made of elements that each end in ',' : "[a,b]". */
void gen_list(struct base_buf *out, const struct base_buf *elements);
/* A finite JSON number; minus infinity becomes -9999, as the API's users expect. */
void gen_number(struct base_buf *out, float x);
/* Number of UTF-8 characters. */
size_t gen_chars(const char *text, size_t len);
/* Sends "data: " + out + blank line, and empties out. */
void gen_send(struct gen *g, struct base_buf *out);
/* The same with a line "event: name" in front. */
void gen_send_event(struct gen *g, const char *name, struct base_buf *out);
/* OpenAI's common fields: opens the object of a reply or chunk up to `"choices":[`, and closes it; usage is null in
 * every chunk but the last when it was asked for. */
void gen_head(const struct gen *g, const char *object, struct base_buf *out);
void gen_tail(const struct gen *g, struct base_buf *out);
void gen_usage(const struct gen *g, struct base_buf *out); /* the usage object */
void gen_send_usage(struct gen *g, const char *object);    /* the chunk with it, where it was asked for */

#endif
