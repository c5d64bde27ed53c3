/* A small vocabulary for tests of grammars: all bytes, and tokens that span several symbols. A text is cut greedily, so
 * that such tokens occur. grammar_setup() and grammar_teardown() are the group's. */
#ifndef GRAMMAR_TEST_H
#define GRAMMAR_TEST_H

#include <errno.h>

#include "grammar/grammar.h"
#include "test.h"

static const char *const words[] = {
	"{\"", "\":",  "\": ", "\",\"", "\"}",   "\"]",  "[\"",   "{}",   "[]",    "true", "false", "null",
	"12",  "00",   "ab",   "abc",   " \"",   "\\\"", "}}",    "},",   "1,",    "a\"",  "0.",    "\": {",
	"na",  "name", "me\"", "e\":",  "-",     "->",   "\xc3",  "\xa9", "é",     "中",   "文\"",  "\n  ",
	"   ", ", ",   "x-",   "x-a",   "\\u00", "e9",   "b\":1", "foo",  "\"foo", "T0",   "2024-", "ar",
};

enum { N_WORDS = sizeof(words) / sizeof(words[0]), N_VOCAB = 256 + N_WORDS };

static struct grammar_vocab *vocab;
static const uint8_t *tokens[N_VOCAB];
static uint32_t lens[N_VOCAB];

static inline int grammar_setup(void **state)
{
	static uint8_t bytes[256];

	(void)state;
	for (unsigned i = 0; i < 256; i++) {
		bytes[i] = (uint8_t)i;
		tokens[i] = &bytes[i];
		lens[i] = 1;
	}
	for (unsigned i = 0; i < N_WORDS; i++) {
		tokens[256 + i] = (const uint8_t *)words[i];
		lens[256 + i] = (uint32_t)strlen(words[i]);
	}
	return gr_grammar_vocab_from(tokens, lens, N_VOCAB, &vocab);
}

static inline int grammar_teardown(void **state)
{
	(void)state;
	gr_grammar_vocab_unref(vocab);
	return 0;
}

static inline struct eng_grammar *compile(enum eng_grammar_kind kind, const char *text)
{
	struct eng_grammar *g = NULL;
	struct err err = { 0 };

	if (gr_grammar_compile(vocab, kind, text, strlen(text), &g, &err) < 0)
		fail_msg("%s: %s", text, err_text(&err));
	return g;
}

/* The longest token that the text begins with. */
static inline int32_t cut(const char *text)
{
	int32_t best = (uint8_t)*text;

	for (int32_t i = 256; i < N_VOCAB; i++) {
		if (lens[i] > lens[best] && strncmp(text, (const char *)tokens[i], lens[i]) == 0)
			best = i;
	}
	return best;
}

static inline bool has(const uint64_t *mask, int32_t id)
{
	return mask[id / 64] >> (id % 64) & 1;
}

static inline bool accepts(struct eng_grammar *g, const char *text)
{
	struct eng_matcher *m = NULL;
	bool ok = true;

	assert_int_equal(eng_matcher_new(g, &m), 0);
	for (const char *p = text; *p && ok;) {
		int32_t id = cut(p);
		uint32_t n = 0;
		const uint64_t *mask = eng_matcher_mask(m, &n);

		assert_non_null(mask);
		ok = has(mask, id);
		/* The mask and the machine say the same. */
		assert_int_equal(eng_matcher_accept(m, id), ok ? 0 : -EINVAL);
		p += lens[id];
	}
	ok = ok && eng_matcher_can_end(m);
	eng_matcher_free(m);
	return ok;
}

#endif
