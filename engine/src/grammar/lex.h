/* Terminals: a character automaton behind a decoder of bytes. The decoder reads UTF-8, and within JSON strings every
 * escape, so that patterns and lengths speak of characters however they are spelled. Between bytes all that is known is
 * a small state; a state that is not LEX_DEAD always has a way to the end. */
#ifndef ENG_GRAMMAR_LEX_H
#define ENG_GRAMMAR_LEX_H

#include "grammar/dfa.h"

/* ---- The decoder ---- */

enum decode_result {
	DECODE_DEAD,
	DECODE_MORE,  /* a part of a character: ranges[] holds those it can become */
	DECODE_CHAR,  /* cp */
	DECODE_QUOTE, /* the string's end */
};

struct decode_out {
	uint32_t cp;
	struct charset_range ranges[3];
	unsigned n_ranges;
};

#define DECODE_NONE 0u         /* between characters */
#define DECODE_OPEN (7u << 28) /* before the opening quote; gr_lex_step() and keys handle it */

/* partial: DECODE_NONE at first. in_string: as in a JSON string; otherwise plain UTF-8. */
enum decode_result gr_decode_step(uint32_t *partial, uint8_t byte, bool in_string, struct decode_out *out);

/* ---- Terminals ---- */

struct lex {
	bool is_string;    /* a JSON string with its quotes; otherwise plain text */
	struct dfa *dfa;   /* owned; NULL: any characters */
	uint32_t min, max; /* of the characters; min with dfa NULL only; max UINT32_MAX: no bound */
};

struct lex_state {
	uint32_t partial, q, count;
};

enum {
	LEX_DEAD = 0,
	LEX_GOES_ON = 1u << 0, /* more bytes can follow */
	LEX_ENDS = 1u << 1,    /* complete here */
};

void gr_lex_begin(const struct lex *lex, struct lex_state *ret);
/* Before any byte: LEX_DEAD when nothing is accepted at all. */
unsigned gr_lex_at_begin(struct lex *lex);
/* Flags. */
unsigned gr_lex_step(struct lex *lex, struct lex_state *s, uint8_t byte);
/* Whether all texts of up to n characters of these kinds (trie.h) may certainly follow. */
bool gr_lex_takes(struct lex *lex, const struct lex_state *s, uint16_t kinds, uint32_t n);

#endif
