/* The two models that look words up: WordPiece takes the longest entry that begins the word, then the
 * longest that continues it (spelled with a prefix, "##"), and gives up on the whole word when one is
 * missing (Wu et al., 2016); WordLevel knows whole words only. */
#include <errno.h>
#include <string.h>

#include "tokenizer/tok_internal.h"

static int unknown(const struct eng_tokenizer *tok, struct eng_ids *ids, struct err *err)
{
	if (tok->model.unk_id < 0)
		return err_set(err, -EINVAL,
		               "tokenizer: the text has a word outside the vocabulary, "
		               "and there is no unknown token");
	return eng_ids_push(ids, tok->model.unk_id);
}

int tok_wordlevel_encode(const struct eng_tokenizer *tok, const char *p, size_t n, struct eng_ids *ids, struct err *err)
{
	int32_t id = tok_vocab_find(&tok->vocab, p, n);

	return id >= 0 ? eng_ids_push(ids, id) : unknown(tok, ids, err);
}

static size_t count_chars(const char *p, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += ((unsigned char)p[i] & 0xc0) != 0x80;
	return k;
}

/* The longest entry that word[prefix + at ..] begins with, the word being spelled with the prefix when it
 * continues. Returns its length without the prefix, 0 when there is none. */
static size_t longest(const struct eng_tokenizer *tok, struct base_buf *word, size_t at, int32_t *ret_id)
{
	const struct tok_model *m = &tok->model;
	size_t skip = at ? 0 : m->prefix_len, end = word->len, from = m->prefix_len + at;
	char *p = word->data + at; /* where the prefix goes: over what was taken already */

	if (at)
		memcpy(p, m->prefix, m->prefix_len);
	/* Nothing longer than the longest entry: a word of any length costs linear time. */
	if (end - from > tok->vocab.max_len) {
		end = from + tok->vocab.max_len + 1;
		end = tok_utf8_back(word->data, end);
	}
	while (end > from) {
		*ret_id = tok_vocab_find(&tok->vocab, p + skip, end - at - skip);
		if (*ret_id >= 0)
			return end - from;
		end = tok_utf8_back(word->data, end);
	}
	return 0;
}

int tok_wordpiece_encode(const struct eng_tokenizer *tok, struct tok_scratch *s, const char *p, size_t n,
                         struct eng_ids *ids, struct err *err)
{
	size_t at = 0, first = ids->n, len;
	int32_t id;
	int r;

	if (count_chars(p, n) > tok->model.max_word_chars)
		return unknown(tok, ids, err);
	base_buf_reset(&s->word);
	(void)base_buf_append(&s->word, tok->model.prefix, tok->model.prefix_len);
	r = base_buf_append(&s->word, p, n);
	for (; r == 0 && at < n; at += len) {
		len = longest(tok, &s->word, at, &id);
		if (len == 0) {
			ids->n = first;
			return unknown(tok, ids, err);
		}
		r = eng_ids_push(ids, id);
	}
	return r;
}
