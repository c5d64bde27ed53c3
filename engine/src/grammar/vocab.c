/* A tokenizer's tokens as byte strings, and the trie over them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "grammar/grammar_internal.h"
#include "tokenizer/tokenizer.h"

enum { MAX_TOKEN_BYTES = 1 << 16, STRING_MASKS_BYTES = 32 << 20 };

static void vocab_free(struct grammar_vocab *v)
{
	(void)pthread_mutex_destroy(&v->lock);
	gr_mask_cache_done(&v->strings);
	gr_trie_done(&v->trie);
	gr_trie_done(&v->closing);
	free(v->chars);
	free(v->offsets);
	free(v->bytes);
	free(v);
}

struct grammar_vocab *gr_grammar_vocab_ref(struct grammar_vocab *v)
{
	(void)atomic_fetch_add(&v->refs, 1);
	return v;
}

void gr_grammar_vocab_unref(struct grammar_vocab *v)
{
	if (v && atomic_fetch_sub(&v->refs, 1) == 1)
		vocab_free(v);
}

static struct grammar_vocab *vocab_new(uint32_t n)
{
	struct grammar_vocab *v = calloc(1, sizeof(*v));

	if (!v)
		return NULL;
	atomic_init(&v->refs, 1);
	(void)pthread_mutex_init(&v->lock, NULL);
	v->n = n;
	v->n_words = (n + 63) / 64;
	v->strings.max_bytes = STRING_MASKS_BYTES;
	v->offsets = calloc((size_t)n + 1, sizeof(*v->offsets));
	if (!v->offsets) {
		vocab_free(v);
		return NULL;
	}
	return v;
}

/* From within a string: how many characters the bytes are, a begun one counted, 255 when they do not stay within it.
 * True in *ret_closes: they close it. */
static uint8_t chars_in_string(const uint8_t *p, uint32_t len, bool *ret_closes)
{
	enum decode_result r = DECODE_CHAR;
	struct decode_out out;
	uint32_t partial = DECODE_NONE, n = 0;

	for (uint32_t i = 0; i < len && r != DECODE_DEAD && r != DECODE_QUOTE; i++) {
		r = gr_decode_step(&partial, p[i], true, &out);
		n += r == DECODE_CHAR;
	}
	*ret_closes = r == DECODE_QUOTE;
	n += partial != DECODE_NONE;
	return len == 0 || r == DECODE_DEAD || r == DECODE_QUOTE || n > 254 ? 255 : (uint8_t)n;
}

/* bytes and offsets are set. */
static int vocab_finish(struct grammar_vocab *v)
{
	struct trie_entry *entries = calloc((size_t)v->n + 1, sizeof(*entries));
	size_t n = 0;
	int r;

	v->chars = calloc((size_t)v->n + 1, sizeof(*v->chars));
	if (!entries || !v->chars) {
		free(entries);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < v->n; i++) {
		entries[i] = (struct trie_entry){ .bytes = v->bytes + v->offsets[i],
			                          .len = v->offsets[i + 1] - v->offsets[i],
			                          .token = (int32_t)i };
		if (entries[i].len > v->most_chars)
			v->most_chars = entries[i].len; /* a character has a byte at least */
	}
	r = gr_trie_build(&v->trie, entries, v->n);
	for (uint32_t i = 0; i < v->n; i++) {
		bool closes = false;

		v->chars[i] = chars_in_string(v->bytes + v->offsets[i], v->offsets[i + 1] - v->offsets[i], &closes);
		if (closes)
			entries[n++] = (struct trie_entry){ .bytes = v->bytes + v->offsets[i],
				                            .len = v->offsets[i + 1] - v->offsets[i],
				                            .token = (int32_t)i };
	}
	if (r == 0)
		r = gr_trie_build(&v->closing, entries, n);
	free(entries);
	return r;
}

static int take_bytes(struct grammar_vocab *v, struct base_buf *all)
{
	if (base_buf_error(all))
		return base_buf_error(all);
	(void)base_buf_putc(all, 0); /* never empty */
	v->bytes = (uint8_t *)base_buf_take(all);
	return v->bytes ? vocab_finish(v) : -ENOMEM;
}

int gr_grammar_vocab_from(const uint8_t *const *tokens, const uint32_t *lens, uint32_t n, struct grammar_vocab **ret)
{
	CLEANUP(base_buf_done) struct base_buf all = BASE_BUF_INIT(1u << 30);
	struct grammar_vocab *v = vocab_new(n);
	int r;

	if (!v)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (lens[i] > 0)
			(void)base_buf_append(&all, tokens[i], lens[i]);
		v->offsets[i + 1] = (uint32_t)all.len;
	}
	r = take_bytes(v, &all);
	if (r < 0) {
		vocab_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

int gr_grammar_vocab_new(const struct eng_tokenizer *tok, struct grammar_vocab **ret, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf all = BASE_BUF_INIT(1u << 30);
	struct grammar_vocab *v = vocab_new(eng_tokenizer_n_vocab(tok));
	int r;

	if (!v)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < v->n; i++) {
		size_t before = all.len;

		/* Special tokens are no text; an absurdly long one would only make the trie deep. */
		if (!eng_tokenizer_is_special(tok, (int32_t)i))
			(void)eng_tokenizer_token_bytes(tok, (int32_t)i, &all);
		if (all.len - before > MAX_TOKEN_BYTES - 1)
			all.len = before;
		v->offsets[i + 1] = (uint32_t)all.len;
	}
	r = take_bytes(v, &all);
	if (r < 0) {
		vocab_free(v);
		return err_set(err, r, "the vocabulary: %s", strerror(-r));
	}
	*ret = v;
	return 0;
}
