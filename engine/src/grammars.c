/* Grammars of the engine: compiled over its tokenizer's vocabulary, kept for the next request that has the same one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "engine_internal.h"
#include "grammar/grammar.h"
#include "tokenizer/tokenizer.h"

void eng_grammars_init(struct eng_grammars *gs)
{
	(void)pthread_mutex_init(&gs->lock, NULL);
}

void eng_grammars_done(struct eng_grammars *gs)
{
	for (size_t i = 0; i < ENG_KEPT_GRAMMARS; i++)
		eng_grammar_unref(gs->kept[i]);
	gr_grammar_vocab_unref(gs->vocab);
	(void)pthread_mutex_destroy(&gs->lock);
	memset(gs, 0, sizeof(*gs));
}

/* The vocabulary, made at the first call: it takes some hundred milliseconds for a large one. */
static int vocab_of(struct eng_engine *e, struct err *err)
{
	if (e->grammars.vocab)
		return 0;
	if (!e->meta.tokenizer)
		return err_set(err, -ENOTSUP, "structured output needs a tokenizer, the model has none");
	return gr_grammar_vocab_new(e->meta.tokenizer, &e->grammars.vocab, err);
}

int eng_grammar_compile(struct eng_engine *e, enum eng_grammar_kind kind, const char *text, size_t len,
                        struct eng_grammar **ret_grammar, struct err *err)
{
	struct eng_grammars *gs = &e->grammars;
	struct eng_grammar *g = NULL;
	int r;

	(void)pthread_mutex_lock(&gs->lock);
	r = vocab_of(e, err);
	for (size_t i = 0; i < ENG_KEPT_GRAMMARS && r == 0 && !g; i++) {
		if (gs->kept[i] && gr_grammar_is(gs->kept[i], kind, text, len))
			g = eng_grammar_ref(gs->kept[i]);
	}
	(void)pthread_mutex_unlock(&gs->lock);
	if (r == 0 && !g) {
		/* Outside of the lock: others need not wait. Two may compile the same; both are right. */
		r = gr_grammar_compile(gs->vocab, kind, text, len, &g, err);
		if (r == 0) {
			(void)pthread_mutex_lock(&gs->lock);
			eng_grammar_unref(gs->kept[gs->next]);
			gs->kept[gs->next] = eng_grammar_ref(g);
			gs->next = (gs->next + 1) % ENG_KEPT_GRAMMARS;
			(void)pthread_mutex_unlock(&gs->lock);
		}
	}
	if (r < 0)
		return r;
	*ret_grammar = g;
	return 0;
}

/* ---- Checking a text ---- */

static void add_expected(char *out, size_t size, const char *text)
{
	size_t n = strlen(out);

	(void)snprintf(out + n, size - n, "%s%s", n ? ", " : "", text);
}

/* "a" to "z", "\n", ...: the bytes that may come next. */
static void describe(struct eng_matcher *m, char *out, size_t size)
{
	uint64_t bits[4];
	char one[32];

	out[0] = '\0';
	eng_matcher_bytes(m, bits);
	if (eng_matcher_can_end(m))
		add_expected(out, size, "the end");
	for (unsigned b = 0; b < 128; b++) {
		unsigned end = b;

		if (!(bits[b / 64] >> (b % 64) & 1))
			continue;
		while (end + 1 < 128 && (bits[(end + 1) / 64] >> ((end + 1) % 64) & 1))
			end++;
		if (b < 0x20 || b == 0x7f)
			(void)snprintf(one, sizeof(one), end > b ? "\\x%02x-\\x%02x" : "\\x%02x", b, end);
		else
			(void)snprintf(one, sizeof(one), end > b ? "'%c'-'%c'" : "'%c'", (char)b, (char)end);
		add_expected(out, size, one);
		b = end;
	}
	if (bits[2] | bits[3])
		add_expected(out, size, "characters beyond ASCII");
	if (!*out)
		add_expected(out, size, "nothing");
}

/* 1: allowed and taken, 0: refused. */
static int check_token(struct eng_matcher *m, int32_t id, uint32_t n_vocab, struct eng_grammar_verdict *v,
                       struct err *err)
{
	uint64_t begin = (uint64_t)base_now_ns(), ns;
	const uint64_t *mask = eng_matcher_mask(m, &v->n_allowed);
	bool is_allowed;
	int r;

	if (!mask)
		return err_set(err, eng_matcher_error(m), "the grammar met a limit: %s",
		               strerror(-eng_matcher_error(m)));
	ns = (uint64_t)base_now_ns() - begin;
	v->mask_ns += ns;
	v->max_mask_ns = ns > v->max_mask_ns ? ns : v->max_mask_ns;
	is_allowed = id >= 0 && (uint32_t)id < n_vocab && (mask[id / 64] >> (id % 64) & 1);
	if (!is_allowed)
		return 0;
	r = eng_matcher_accept(m, id);
	return r < 0 ? err_set(err, r, "token %d is in the mask and was not taken", id) : 1;
}

static int check_tokens(struct eng_engine *e, struct eng_matcher *m, const int32_t *ids, size_t n,
                        struct eng_grammar_verdict *v, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf bytes = BASE_BUF_INIT(1 << 20);
	uint32_t n_vocab = eng_tokenizer_n_vocab(e->meta.tokenizer);
	int r = 1;

	for (v->token = 0; v->token < n; v->token++) {
		base_buf_reset(&bytes);
		(void)eng_tokenizer_token_bytes(e->meta.tokenizer, ids[v->token], &bytes);
		r = check_token(m, ids[v->token], n_vocab, v, err);
		if (r <= 0)
			break;
		v->offset += bytes.len;
	}
	if (r < 0)
		return r;
	if (r == 0) {
		size_t taken = eng_matcher_accept_bytes(m, bytes.data, bytes.len);

		/* Every byte would do: the mask and the machine disagree. A special token has no bytes in the mask. */
		if (taken == bytes.len && taken > 0 && !eng_tokenizer_is_special(e->meta.tokenizer, ids[v->token]))
			return err_set(err, -EIO, "token %d is not in the mask, but its bytes are right",
			               ids[v->token]);
		v->offset += taken;
	}
	v->accepted = r == 1 && eng_matcher_can_end(m);
	if (!v->accepted)
		describe(m, v->expected, sizeof(v->expected));
	return 0;
}

int eng_grammar_check(struct eng_engine *e, struct eng_grammar *g, const int32_t *ids, size_t n,
                      struct eng_grammar_verdict *ret, struct err *err)
{
	struct eng_matcher *m = NULL;
	int r = eng_matcher_new(g, &m);

	memset(ret, 0, sizeof(*ret));
	if (r < 0)
		return err_set(err, r, "the grammar: %s", strerror(-r));
	r = check_tokens(e, m, ids, n, ret, err);
	eng_matcher_free(m);
	return r;
}
