/* The unigram language model of SentencePiece (Kudo, 2018): of all ways to cut a piece into vocabulary
 * entries, the one whose log-probabilities add up highest, found by Viterbi from left to right. A character
 * that is no entry of its own may be taken as unknown at the lowest score of the vocabulary minus 10.
 * Neighbouring unknowns are one. Sums are in double and ties keep the earlier path, as in the reference. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/tok_internal.h"

static const double UNK_PENALTY = 10.0;

int tok_unigram_index(struct eng_tokenizer *tok)
{
	struct tok_model *m = &tok->model;
	struct tok_prefix_entry *entries = calloc((size_t)tok->vocab.n_ids + 1, sizeof(*entries));
	size_t n = 0, len;
	const char *p;

	if (!entries)
		return -ENOMEM;
	m->min_score = 0.0;
	for (uint32_t id = 0; id < tok->vocab.n_ids; id++) {
		p = tok_vocab_get(&tok->vocab, (int32_t)id, &len);
		if (!p || isinf(m->scores[id]))
			continue; /* not used, or never made from text */
		if (n == 0 || m->scores[id] < m->min_score)
			m->min_score = m->scores[id];
		entries[n++] = (struct tok_prefix_entry){ p, (uint32_t)len, id };
	}
	return tok_prefixes_build(&m->prefixes, entries, n);
}

static void reach(struct tok_viterbi *node, double score, size_t from, int32_t id)
{
	if (node->from == UINT32_MAX || score > node->score)
		*node = (struct tok_viterbi){ score, (uint32_t)from, id };
}

/* Extends every path that ends at `at` by one entry. */
static void extend(const struct tok_model *m, struct tok_viterbi *path, const char *p, size_t n, size_t at)
{
	struct tok_prefix_walk walk;
	bool single = false;
	size_t char_len;
	int64_t id;

	(void)tok_utf8_get(p + at, n - at, &char_len);
	tok_prefix_start(&m->prefixes, &walk);
	for (size_t i = at; i < n && tok_prefix_step(&m->prefixes, &walk, (uint8_t)p[i], &id); i++) {
		if (id < 0)
			continue;
		reach(&path[i + 1], path[at].score + m->scores[id], at, (int32_t)id);
		single = single || i + 1 - at == char_len;
	}
	if (!single)
		reach(&path[at + char_len], path[at].score + (m->min_score - UNK_PENALTY), at, m->unk_id);
}

/* Writes the ends of the best path's entries, in order, to path[k..n].from and returns k. */
static size_t backtrack(struct tok_viterbi *path, size_t n, int32_t unk_id)
{
	size_t at = n, k = n + 1;

	/* Each step takes at least one byte: the list, filled from the back, never overtakes `at`. */
	while (at > 0) {
		struct tok_viterbi node = path[at];
		bool fused = k <= n && node.id == unk_id && path[k].id == unk_id;

		if (!fused || unk_id < 0) {
			k--;
			path[k].from = (uint32_t)at;
			path[k].id = node.id;
		}
		at = node.from;
	}
	return k;
}

static int push_piece(const struct eng_tokenizer *tok, const char *p, size_t n, struct eng_ids *ids, struct err *err)
{
	const struct tok_model *m = &tok->model;
	int32_t id = tok_vocab_find(&tok->vocab, p, n);
	bool bytes = m->byte_fallback;
	int r = 0;

	if (id >= 0)
		return eng_ids_push(ids, id);
	for (size_t i = 0; bytes && i < n; i++)
		bytes = m->byte_ids[(unsigned char)p[i]] >= 0;
	if (!bytes && m->unk_id < 0)
		return err_set(err, -EINVAL,
		               "tokenizer: the text has a character outside the vocabulary, "
		               "and there is no unknown token");
	if (!bytes)
		return eng_ids_push(ids, m->unk_id);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = eng_ids_push(ids, m->byte_ids[(unsigned char)p[i]]);
	return r;
}

int tok_unigram_encode(const struct eng_tokenizer *tok, struct tok_scratch *s, const char *p, size_t n,
                       struct eng_ids *ids, struct err *err)
{
	size_t len, k, begin = 0;
	int r;

	r = tok_grow(&s->path, &s->cap_path, n + 2, sizeof(*s->path));
	if (r < 0)
		return r;
	for (size_t i = 0; i <= n; i++)
		s->path[i] = (struct tok_viterbi){ 0.0, UINT32_MAX, -1 };
	for (size_t i = 0; i < n; i += len) {
		(void)tok_utf8_get(p + i, n - i, &len);
		extend(&tok->model, s->path, p, n, i);
	}
	k = backtrack(s->path, n, tok->model.unk_id);
	for (; r == 0 && k <= n; k++) {
		r = push_piece(tok, p + begin, s->path[k].from - begin, ids, err);
		begin = s->path[k].from;
	}
	return r;
}
