/* Shared by the files of chatformat: formats.c (the tables), parser.c (text, reasoning, sections), calls.c (what is
 * inside a call), pairs.c, python.c, harmony.c (channels), jsonwalk.c.
 *
 * The parser is a machine over single bytes, so that chunks cannot matter. Bytes wait in `hold` while they may be the
 * beginning of a mark, and in `raw` while they may be the beginning of a call. */
#ifndef ENG_CHATFORMAT_H
#define ENG_CHATFORMAT_H

#include "engine_chat.h"

enum {
	WALK_MAX_DEPTH = 256,
	CHAT_MAX_BYTES = 64 << 20,
	CHAT_MAX_NAME = 256,
	CHAT_MAX_JUNK = 64,
	CHAT_MAX_HEADER = 256
};

/* ---- A JSON value byte by byte ---- */

struct walk {
	uint8_t state, n_hex;
	uint16_t depth;
	const char *literal;                   /* what is left of true, false, null */
	uint8_t in_object[WALK_MAX_DEPTH / 8]; /* a bit per level */
};

enum walk_result { WALK_ERROR = -1, WALK_MORE, WALK_END, WALK_END_BEFORE /* the byte is not part of it */ };

void eng_walk_init(struct walk *w);
enum walk_result eng_walk_byte(struct walk *w, unsigned char c);
bool eng_walk_in_string(const struct walk *w);

/* ---- The tables ---- */

enum call_body {
	BODY_JSON,    /* {"name": .., "arguments": {..}}, one or an array */
	BODY_NAMED,   /* name, a mark, {..} */
	BODY_PAIRS,   /* name, then keys and values in marks */
	BODY_PYTHON,  /* [name(key=value, ..), ..] */
	BODY_HARMONY, /* channels */
};

enum id_style { ID_OPENAI, ID_NINE };

struct tool_format {
	const char *name;
	enum call_body body;
	enum id_style ids;
	bool is_special;          /* its marks are special tokens */
	bool is_bare;             /* the answer begins with the call, without a mark; the name must be known */
	const char *open, *close; /* around all calls; NULL: none */
	const char *call_open, *call_close; /* around each */
	const char *name_open;              /* in front of the name */
	const char *name_end[3];            /* what may end it; [0] is the proper one */
	const char *key_open, *value_open, *value_close, *body_close;
	const char
	        *key_close[3]; /* when there are several, the second says that the value is text, the third that not */
	bool trims_newlines;   /* one around each value */
	const char *signs[3];  /* all of them in a template tell the format */
};

struct reasoning_format {
	const char *name, *open, *close;
	const char *drop[2]; /* marks around the answer proper */
	bool is_special;
	const char *signs[2];
};

const struct tool_format *eng_chat_find_tools(const char *name);
const struct reasoning_format *eng_chat_find_reasoning(const char *name);

/* ---- The parser ---- */

enum chat_state {
	S_TEXT,
	S_REASONING,
	S_SECTION, /* before or between calls */
	S_OBJECT,  /* BODY_JSON: in the object around name and arguments */
	S_NAME,
	S_BEFORE_ARGS,
	S_ARGS,
	S_AFTER, /* between the arguments and the mark that ends the call */
	S_PAIR,
	S_KEY,
	S_BEFORE_VALUE,
	S_VALUE,
	S_PYTHON,
	S_HEADER, /* harmony */
	S_BODY,
	S_DROP,
};

/* Where in the object of BODY_JSON. */
enum object_state { O_KEY, O_IN_KEY, O_COLON, O_VALUE_START, O_VALUE, O_COMMA };
enum object_value { V_OTHER, V_NAME, V_ARGS };

/* Within a call of BODY_PYTHON; see python.c. */
struct python {
	uint8_t phase, n_quotes, n_digits, base;
	char quote;
	bool is_triple, is_key, is_first; /* is_first: of its container */
	uint16_t depth;
	uint32_t code, half;
	char closes[WALK_MAX_DEPTH]; /* what ends each container */
};

struct eng_chat_parser {
	struct eng_chat_parser_config config;
	const struct tool_format *tools;          /* NULL: none */
	const struct reasoning_format *reasoning; /* NULL: none */
	bool is_harmony, keeps_reasoning;         /* harmony: calls, reasoning are told as such */

	enum chat_state state;
	struct base_buf hold, raw, space; /* space: white space that is told when something follows it */
	bool has_text, has_reasoning, at_start;

	/* The part being joined. */
	enum eng_part_kind kind;
	struct base_buf out;

	/* The call. */
	uint32_t n_calls;
	bool is_committed, is_listed; /* told; in an array */
	struct base_buf name, key, value;
	struct walk walk;
	enum object_state object;
	enum object_value target;
	bool is_escaped, streams_args, is_string, begins_value, says_function;
	uint32_t n_pairs;
	struct python py;
	/* harmony */
	struct base_buf channel;
	int header_part;
	enum eng_part_kind body_kind;
	bool body_is_call, has_args;
};

/* parser.c */
void eng_chat_tell(struct eng_chat_parser *p, enum eng_part_kind kind, const char *text, size_t len);
void eng_chat_text(struct eng_chat_parser *p, const char *text, size_t len);
/* The call that is being read is none: its bytes become text. */
void eng_chat_give_up(struct eng_chat_parser *p);
/* Compares what is held with n marks (NULL: none): the index of the one that it begins with, -1 when it may become
 * one, -2 when it cannot. */
int eng_chat_match(const struct eng_chat_parser *p, const char *const *marks, size_t n);
void eng_chat_consume(struct eng_chat_parser *p, size_t n);
/* The call is told; false: no more are taken. */
bool eng_chat_begin_call(struct eng_chat_parser *p);
void eng_chat_end_call(struct eng_chat_parser *p);
void eng_chat_reset_call(struct eng_chat_parser *p);

/* Each: one step with at least one byte held; false when more bytes are needed. */
/* calls.c */
bool eng_chat_step_section(struct eng_chat_parser *p);
bool eng_chat_step_object(struct eng_chat_parser *p);
bool eng_chat_step_name(struct eng_chat_parser *p);
bool eng_chat_step_before_args(struct eng_chat_parser *p);
bool eng_chat_step_args(struct eng_chat_parser *p);
bool eng_chat_step_after(struct eng_chat_parser *p);
/* Control characters inside strings are escaped, so that what is told is JSON. */
void eng_chat_tell_args_byte(struct eng_chat_parser *p, char c, bool in_string);
/* pairs.c */
bool eng_chat_step_pair(struct eng_chat_parser *p);
bool eng_chat_step_key(struct eng_chat_parser *p);
bool eng_chat_step_before_value(struct eng_chat_parser *p);
bool eng_chat_step_value(struct eng_chat_parser *p);
/* python.c */
bool eng_chat_step_python(struct eng_chat_parser *p);
/* Behind the bracket that opens the arguments. */
void eng_chat_begin_python(struct eng_chat_parser *p);
/* harmony.c */
bool eng_chat_step_header(struct eng_chat_parser *p);
bool eng_chat_step_body(struct eng_chat_parser *p);
void eng_chat_finish_header(struct eng_chat_parser *p);

#endif
