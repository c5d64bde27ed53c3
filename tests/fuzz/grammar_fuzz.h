/* The grammar's fuzz targets but for the kind of grammar: any bytes are compiled or refused with words, and what was
 * compiled is walked along its masks, over a small vocabulary. */
#ifndef GRAMMAR_FUZZ_H
#define GRAMMAR_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "grammar/grammar.h"

/* All bytes, and what spans several symbols. */
static struct grammar_vocab *fuzz_vocab(void)
{
	static const char *const words[] = { "{\"",  "\":", "\", \"", "\"}",   "[]",   "true", "null",
		                             "12",   "ab",  " \"",    "\\u00", "\\\"", "}}",   "1,",
		                             "\xc3", "é",   "中",     "a\"",   "0.",   "abc" };
	static struct grammar_vocab *v;
	const uint8_t *tokens[256 + sizeof(words) / sizeof(words[0])];
	uint32_t lens[sizeof(tokens) / sizeof(tokens[0])], n = 0;
	static uint8_t bytes[256];

	if (v)
		return v;
	for (; n < 256; n++) {
		bytes[n] = (uint8_t)n;
		tokens[n] = &bytes[n];
		lens[n] = 1;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++, n++) {
		tokens[n] = (const uint8_t *)words[i];
		lens[n] = (uint32_t)strlen(words[i]);
	}
	if (gr_grammar_vocab_from(tokens, lens, n, &v) < 0)
		abort();
	return v;
}

/* The k-th token of the mask. */
static int32_t fuzz_pick(const uint64_t *mask, uint32_t k)
{
	for (uint32_t i = 0;; i++) {
		uint32_t n = (uint32_t)__builtin_popcountll(mask[i]);
		uint64_t w = mask[i];

		if (k >= n) {
			k -= n;
			continue;
		}
		for (; k > 0; k--)
			w &= w - 1;
		return (int32_t)(i * 64 + (uint32_t)__builtin_ctzll(w));
	}
}

/* Follows the mask by choices out of data: what it allows is taken, and there is always a way on or an end; single
 * bytes are allowed exactly when the machine takes them. */
static void fuzz_walk(struct eng_grammar *g, const uint8_t *data, size_t size, unsigned steps)
{
	struct eng_matcher *m = NULL;
	uint32_t n = 0, seed = 12345;

	if (eng_matcher_new(g, &m) < 0)
		return;
	for (unsigned i = 0; i < steps; i++) {
		const uint64_t *mask = eng_matcher_mask(m, &n);
		uint64_t bytes[4];

		if (!mask)
			break;
		eng_matcher_bytes(m, bytes);
		if (eng_matcher_error(m))
			break;
		if (memcmp(bytes, mask, sizeof(bytes)) != 0 || (n == 0 && !eng_matcher_can_end(m)))
			abort();
		if (n == 0)
			break;
		seed = seed * 1664525u + 1013904223u + (size ? data[i % size] : 0);
		if (eng_matcher_accept(m, fuzz_pick(mask, (seed >> 8) % n)) < 0 && !eng_matcher_error(m))
			abort();
	}
	eng_matcher_free(m);
}

static int fuzz_grammar(enum eng_grammar_kind kind, const uint8_t *data, size_t size)
{
	struct eng_grammar *g = NULL;
	struct err err = { 0 };

	if (gr_grammar_compile(fuzz_vocab(), kind, (const char *)data, size, &g, &err) < 0) {
		if (err.code == 0)
			abort();
		return 0;
	}
	fuzz_walk(g, data, size, 24);
	eng_grammar_unref(g);
	return 0;
}

#endif
