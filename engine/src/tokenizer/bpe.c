/* Byte pair encoding: a piece begins as its characters; of all neighbours that may merge, the pair of lowest
 * rank does, the leftmost among equals, until none is left (Sennrich et al., 2016).
 *
 * Two kinds share the loop. With merges (tokenizer.json, GGUF "gpt2") a pair's rank is its place in the list.
 * With scores (SentencePiece BPE in GGUF "llama") two neighbours merge when their text together is in the
 * vocabulary, highest score first; there a symbol need not be in the vocabulary itself until the end.
 *
 * Short pieces, nearly all of them after a split, look through their ranks in an array. Long ones (models
 * without a pre-tokenizer hand over the whole text) keep a heap of (rank, position): entries that no longer
 * hold are recognised when they surface, because a pair's rank says which pair it was. n symbols cost
 * O(n log n). There is no word cache: with the array it would save little and need a lock. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chars.h"
#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

enum { SHORT_PIECE = 40 }; /* symbols; measured: about here the heap begins to win */

#define NONE UINT32_MAX

/* ---- the table of merges --------------------------------------------------------------------- */

static uint32_t pair_hash(uint32_t left, uint32_t right)
{
	uint64_t h = ((uint64_t)left << 32 | right) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint32_t)(h >> 32) ^ (uint32_t)(h >> 15);
}

int tok_merges_reserve(struct tok_model *m, uint32_t n)
{
	uint32_t n_slots = 64;

	if (n > 2u * TOK_MAX_IDS)
		return -E2BIG;
	while (n_slots < n + n / 2)
		n_slots *= 2;
	m->merges = malloc((size_t)n_slots * sizeof(*m->merges));
	if (!m->merges)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_slots; i++)
		m->merges[i].left = NONE;
	m->merge_mask = n_slots - 1;
	return 0;
}

/* A pair that comes twice has its later rank. At most the number reserved may be added. */
void tok_merges_add(struct tok_model *m, uint32_t left, uint32_t right, uint32_t rank, uint32_t result)
{
	uint32_t at = pair_hash(left, right) & m->merge_mask;

	while (m->merges[at].left != NONE && (m->merges[at].left != left || m->merges[at].right != right))
		at = (at + 1) & m->merge_mask;
	m->merges[at] = (struct tok_merge){ left, right, rank, result };
	m->n_merges++;
}

static int32_t long_merge_result(const struct eng_tokenizer *tok, const char *a, size_t a_n, const char *b, size_t b_n)
{
	CLEANUP(freep) char *joined = malloc(a_n + b_n);

	if (!joined)
		return -1;
	memcpy(joined, a, a_n);
	memcpy(joined + a_n, b, b_n);
	return tok_vocab_find(&tok->vocab, joined, a_n + b_n);
}

int32_t tok_merge_result(const struct eng_tokenizer *tok, int32_t left, int32_t right)
{
	size_t a_n, b_n, skip = tok->model.prefix_len;
	const char *a = tok_vocab_get(&tok->vocab, left, &a_n), *b = tok_vocab_get(&tok->vocab, right, &b_n);
	char joined[256];

	skip = skip < b_n ? skip : b_n;
	if (a_n + b_n - skip > tok->vocab.max_len)
		return -1;
	if (a_n + b_n - skip <= sizeof(joined)) {
		memcpy(joined, a, a_n);
		memcpy(joined + a_n, b + skip, b_n - skip);
		return tok_vocab_find(&tok->vocab, joined, a_n + b_n - skip);
	}
	return long_merge_result(tok, a, a_n, b + skip, b_n - skip);
}

static const struct tok_merge *find_merge(const struct tok_model *m, uint32_t left, uint32_t right)
{
	uint32_t at = pair_hash(left, right) & m->merge_mask;

	for (; m->merges[at].left != NONE; at = (at + 1) & m->merge_mask) {
		if (m->merges[at].left == left && m->merges[at].right == right)
			return &m->merges[at];
	}
	return NULL;
}

/* ---- the loop -------------------------------------------------------------------------------- */

struct bpe {
	const struct eng_tokenizer *tok;
	const struct tok_model *m;
	struct tok_scratch *s;
	struct tok_symbol *sym;
	const char *text;
	size_t n_sym;
};

/* The rank of merging two neighbours, NONE when they do not. */
static uint32_t pair_rank(const struct bpe *b, const struct tok_symbol *x, const struct tok_symbol *y,
                          int32_t *ret_result)
{
	const struct tok_merge *merge;
	int32_t id;

	if (b->m->kind == TOK_SCORED_BPE) {
		id = tok_vocab_find(&b->tok->vocab, b->text + x->begin, (size_t)x->len + y->len);
		*ret_result = id;
		return id < 0 ? NONE : b->m->ranks[id];
	}
	if (!b->m->merges)
		return NONE;
	merge = find_merge(b->m, (uint32_t)x->id, (uint32_t)y->id);
	if (!merge)
		return NONE;
	*ret_result = (int32_t)merge->result;
	return merge->rank;
}

static void merge_short(struct bpe *b)
{
	struct tok_symbol *sym = b->sym;
	uint32_t ranks[SHORT_PIECE];
	int32_t results[SHORT_PIECE];
	size_t n = b->n_sym, best;

	for (size_t i = 0; i + 1 < n; i++)
		ranks[i] = pair_rank(b, &sym[i], &sym[i + 1], &results[i]);
	while (n > 1) {
		best = 0;
		for (size_t i = 1; i + 1 < n; i++) {
			if (ranks[i] < ranks[best])
				best = i;
		}
		if (ranks[best] == NONE)
			break;
		sym[best].id = results[best];
		sym[best].len += sym[best + 1].len;
		n--;
		memmove(&sym[best + 1], &sym[best + 2], (n - best - 1) * sizeof(*sym));
		if (best + 1 < n) {
			memmove(&ranks[best + 1], &ranks[best + 2], (n - best - 2) * sizeof(*ranks));
			memmove(&results[best + 1], &results[best + 2], (n - best - 2) * sizeof(*results));
			ranks[best] = pair_rank(b, &sym[best], &sym[best + 1], &results[best]);
		}
		if (best > 0)
			ranks[best - 1] = pair_rank(b, &sym[best - 1], &sym[best], &results[best - 1]);
	}
	b->n_sym = n;
}

static int heap_push(struct tok_scratch *s, uint64_t key)
{
	size_t i = s->n_heap, up;
	int r = tok_grow(&s->heap, &s->cap_heap, i + 1, sizeof(*s->heap));

	if (r < 0)
		return r;
	s->n_heap++;
	for (; i > 0; i = up) {
		up = (i - 1) / 4;
		if (s->heap[up] <= key)
			break;
		s->heap[i] = s->heap[up];
	}
	s->heap[i] = key;
	return 0;
}

static uint64_t heap_pop(struct tok_scratch *s)
{
	uint64_t top = s->heap[0], last = s->heap[--s->n_heap];
	size_t i = 0, n = s->n_heap, child, best;

	for (;;) {
		child = 4 * i + 1;
		if (child >= n)
			break;
		best = child;
		for (size_t c = child + 1; c < child + 4 && c < n; c++) {
			if (s->heap[c] < s->heap[best])
				best = c;
		}
		if (s->heap[best] >= last)
			break;
		s->heap[i] = s->heap[best];
		i = best;
	}
	s->heap[i] = last;
	return top;
}

static int push_pair(struct bpe *b, uint32_t at)
{
	uint32_t next = b->sym[at].next, rank;
	int32_t result;

	if (next == NONE)
		return 0;
	rank = pair_rank(b, &b->sym[at], &b->sym[next], &result);
	return rank == NONE ? 0 : heap_push(b->s, (uint64_t)rank << 32 | at);
}

static int merge_long(struct bpe *b)
{
	struct tok_symbol *sym = b->sym;
	size_t n = 0;
	int r = 0;

	b->s->n_heap = 0;
	for (size_t i = 0; i < b->n_sym; i++) {
		sym[i].prev = i ? (uint32_t)i - 1 : NONE;
		sym[i].next = i + 1 < b->n_sym ? (uint32_t)i + 1 : NONE;
	}
	for (size_t i = 0; r == 0 && i < b->n_sym; i++)
		r = push_pair(b, (uint32_t)i);
	while (r == 0 && b->s->n_heap) {
		uint64_t top = heap_pop(b->s);
		uint32_t at = (uint32_t)top, next = sym[at].next;
		int32_t result;

		/* Merged away, or the pair that was meant is gone. */
		if (sym[at].len == 0 || next == NONE ||
		    pair_rank(b, &sym[at], &sym[next], &result) != (uint32_t)(top >> 32))
			continue;
		sym[at].id = result;
		sym[at].len += sym[next].len;
		sym[at].next = sym[next].next;
		sym[next].len = 0;
		if (sym[at].next != NONE)
			sym[sym[at].next].prev = at;
		r = push_pair(b, at);
		if (r == 0 && sym[at].prev != NONE)
			r = push_pair(b, sym[at].prev);
	}
	for (size_t i = 0; i < b->n_sym; i++) {
		if (sym[i].len)
			sym[n++] = sym[i];
	}
	b->n_sym = n;
	return r;
}

/* ---- the first symbols ----------------------------------------------------------------------- */

static int add_symbol(struct bpe *b, int32_t id, size_t begin, size_t len)
{
	int r = tok_grow(&b->s->symbols, &b->s->cap_symbols, b->n_sym + 1, sizeof(*b->sym));

	b->sym = b->s->symbols;
	if (r == 0)
		b->sym[b->n_sym++] = (struct tok_symbol){ .id = id, .begin = (uint32_t)begin, .len = (uint32_t)len };
	return r;
}

/* All bytes of the spelling as <0xNN>, or 1 when one of them is missing. */
static int add_bytes(struct bpe *b, const char *p, size_t n, size_t begin)
{
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		if (b->m->byte_ids[(unsigned char)p[i]] < 0)
			return 1;
	}
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_symbol(b, b->m->byte_ids[(unsigned char)p[i]], begin, 1);
	return r;
}

/* The character at [i, i + len) with the prefix and suffix it has as part of this word. */
static const char *spelling(struct bpe *b, size_t i, size_t len, size_t n, size_t *ret_n)
{
	struct base_buf *word = &b->s->word;
	bool prefix = b->m->prefix && i > 0, suffix = b->m->suffix && i + len == n;

	*ret_n = len;
	if (!prefix && !suffix)
		return b->text + i;
	base_buf_reset(word);
	if (prefix)
		(void)base_buf_append(word, b->m->prefix, b->m->prefix_len);
	(void)base_buf_append(word, b->text + i, len);
	if (suffix)
		(void)base_buf_append(word, b->m->suffix, b->m->suffix_len);
	*ret_n = word->len;
	return base_buf_text(word);
}

static int32_t char_id(const struct bpe *b, const char *p, size_t n, const char *spelled, size_t spelled_n)
{
	uint32_t cp;
	size_t len;

	if (spelled == p && n <= 2) {
		cp = tok_utf8_get(p, n, &len);
		if (cp < 512)
			return b->m->char_ids[cp];
	}
	return tok_vocab_find(&b->tok->vocab, spelled, spelled_n);
}

static int first_symbols(struct bpe *b, size_t n)
{
	const struct tok_model *m = b->m;
	size_t len, sn, unk_len = 0;
	const char *s;
	int32_t id;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i += len) {
		(void)tok_utf8_get(b->text + i, n - i, &len);
		s = spelling(b, i, len, n, &sn);
		id = char_id(b, b->text + i, len, s, sn);
		if (id >= 0) {
			if (unk_len)
				r = add_symbol(b, m->unk_id, i - unk_len, unk_len);
			unk_len = 0;
			if (r == 0)
				r = add_symbol(b, id, i, len);
			continue;
		}
		r = m->byte_fallback ? add_bytes(b, s, sn, i) : 1;
		if (r <= 0)
			continue;
		r = 0;
		if (m->unk_id < 0)
			continue; /* without an unknown token such a character vanishes */
		if (unk_len && !m->fuse_unk) {
			r = add_symbol(b, m->unk_id, i - unk_len, unk_len);
			unk_len = 0;
		}
		unk_len += len;
	}
	if (r == 0 && unk_len)
		r = add_symbol(b, m->unk_id, n - unk_len, unk_len);
	return r;
}

static int first_symbols_scored(struct bpe *b, size_t n)
{
	size_t len;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i += len) {
		(void)tok_utf8_get(b->text + i, n - i, &len);
		r = add_symbol(b, tok_vocab_find(&b->tok->vocab, b->text + i, len), i, len);
	}
	return r;
}

/* A scored symbol that never got into the vocabulary becomes bytes, or unknown. */
static int push_unknown(const struct bpe *b, const struct tok_symbol *sym, struct eng_ids *ids)
{
	int32_t id;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < sym->len; i++) {
		id = b->m->byte_ids[(unsigned char)b->text[sym->begin + i]];
		if (id < 0)
			return b->m->unk_id < 0 ? 0 : eng_ids_push(ids, b->m->unk_id);
		r = eng_ids_push(ids, id);
	}
	return r;
}

int tok_bpe_encode(const struct eng_tokenizer *tok, struct tok_scratch *s, const char *p, size_t n, struct eng_ids *ids)
{
	struct bpe b = { .tok = tok, .m = &tok->model, .s = s, .sym = s->symbols, .text = p };
	int32_t id;
	int r;

	if (b.m->ignore_merges) {
		id = tok_vocab_find(&tok->vocab, p, n);
		if (id >= 0)
			return eng_ids_push(ids, id);
	}
	r = b.m->kind == TOK_SCORED_BPE ? first_symbols_scored(&b, n) : first_symbols(&b, n);
	if (r < 0)
		return r;
	if (b.n_sym <= SHORT_PIECE)
		merge_short(&b);
	else
		r = merge_long(&b);
	for (size_t i = 0; r == 0 && i < b.n_sym; i++)
		r = b.sym[i].id >= 0 ? eng_ids_push(ids, b.sym[i].id) : push_unknown(&b, &b.sym[i], ids);
	return r;
}

/* ---- what loading prepares ------------------------------------------------------------------- */

void tok_model_index(struct eng_tokenizer *tok)
{
	struct tok_model *m = &tok->model;
	char text[8];

	for (int i = 0; i < 256; i++) {
		(void)snprintf(text, sizeof(text), "<0x%02X>", i);
		m->byte_ids[i] = tok_vocab_find(&tok->vocab, text, 6);
	}
	for (uint32_t cp = 0; cp < 512; cp++)
		m->char_ids[cp] = tok_vocab_find(&tok->vocab, text, base_utf8_put(cp, text));
}

struct scored {
	float score;
	uint32_t id;
};

static int by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;

	return x->score > y->score ? -1 : x->score < y->score;
}

/* Scores to ranks: highest first, equal ones alike, so that the leftmost of equals merges first. */
int tok_scored_index(struct eng_tokenizer *tok)
{
	uint32_t n = tok->vocab.n_ids, rank = 0;
	struct scored *list = calloc((size_t)n + 1, sizeof(*list));

	tok->model.ranks = calloc((size_t)n + 1, sizeof(*tok->model.ranks));
	if (!list || !tok->model.ranks) {
		free(list);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n; i++)
		list[i] = (struct scored){ (float)tok->model.scores[i], i };
	qsort(list, n, sizeof(*list), by_score);
	for (uint32_t i = 0; i < n; i++) {
		if (i && list[i].score < list[i - 1].score)
			rank++;
		tok->model.ranks[list[i].id] = rank;
	}
	free(list);
	return 0;
}

void tok_model_done(struct tok_model *m)
{
	free(m->prefix);
	free(m->suffix);
	free(m->merges);
	free(m->ranks);
	free(m->scores);
	tok_prefixes_done(&m->prefixes);
	*m = (struct tok_model){ 0 };
}
