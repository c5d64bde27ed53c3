/* One output's way through a grammar: its set of confs, advanced by tokens, and the mask of what may come next. */
#include "grammar/grammar.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar_internal.h"

enum { COLLECT_FRAMES = 2048 };

struct eng_matcher {
	struct eng_grammar *g;
	struct machine m;
	struct conf *set; /* [GR_MAX_CONFS] */
	uint32_t n;
	uint64_t *bits;
	uint32_t n_allowed;
	bool has_mask;
};

static void keep(struct eng_matcher *x, uint32_t begin, uint32_t n)
{
	x->has_mask = x->has_mask && n == x->n && memcmp(x->set, x->m.arena + begin, n * sizeof(*x->set)) == 0;
	memcpy(x->set, x->m.arena + begin, n * sizeof(*x->set));
	x->n = n;
}

int eng_matcher_new(struct eng_grammar *g, struct eng_matcher **ret)
{
	struct eng_matcher *x = calloc(1, sizeof(*x));
	uint32_t n;
	int r;

	if (!x)
		return -ENOMEM;
	r = gr_machine_init(&x->m, g);
	x->set = calloc(GR_MAX_CONFS, sizeof(*x->set));
	x->bits = calloc(g->vocab->n_words + 1, sizeof(*x->bits));
	x->g = eng_grammar_ref(g);
	if (r == 0 && (!x->set || !x->bits))
		r = -ENOMEM;
	if (r == 0) {
		(void)pthread_mutex_lock(&g->lock);
		n = gr_machine_start(&x->m);
		keep(x, x->m.out, n);
		(void)pthread_mutex_unlock(&g->lock);
		r = x->m.error;
	}
	if (r < 0) {
		eng_matcher_free(x);
		return r;
	}
	*ret = x;
	return 0;
}

void eng_matcher_free(struct eng_matcher *x)
{
	if (!x)
		return;
	gr_machine_done(&x->m);
	free(x->set);
	free(x->bits);
	eng_grammar_unref(x->g);
	free(x);
}

/* ---- Masks ---- */

static int compute_mask(struct eng_matcher *x)
{
	int r = 0;

	memset(x->bits, 0, x->g->vocab->n_words * sizeof(*x->bits));
	x->m.n_arena = 0;
	x->m.n_steps = 0;
	for (uint32_t i = 0; i < x->n && r == 0; i++)
		r = gr_mask_add(&x->m, &x->set[i], x->bits);
	x->n_allowed = 0;
	for (uint32_t i = 0; i < x->g->vocab->n_words; i++)
		x->n_allowed += (uint32_t)__builtin_popcountll(x->bits[i]);
	return r;
}

const uint64_t *eng_matcher_mask(struct eng_matcher *x, uint32_t *ret_n)
{
	int r = x->m.error;

	if (!x->has_mask && r == 0) {
		(void)pthread_mutex_lock(&x->g->lock);
		r = compute_mask(x);
		(void)pthread_mutex_unlock(&x->g->lock);
		x->has_mask = r == 0;
	}
	if (r < 0) {
		x->m.error = r;
		return NULL;
	}
	*ret_n = x->n_allowed;
	return x->bits;
}

bool eng_matcher_has_mask(const struct eng_matcher *x)
{
	return x->has_mask;
}

static void apply(const uint64_t *mask, uint32_t n_mask, float *logits, uint32_t n_vocab)
{
	uint32_t n = n_mask < n_vocab ? n_mask : n_vocab;

	for (uint32_t i = 0; i < n; i += 64) {
		uint64_t off = ~mask[i / 64];

		if (n - i < 64)
			off &= (1ull << (n - i)) - 1;
		if (off == UINT64_MAX) {
			for (uint32_t k = 0; k < 64; k++)
				logits[i + k] = -INFINITY;
			continue;
		}
		for (; off; off &= off - 1)
			logits[i + (uint32_t)__builtin_ctzll(off)] = -INFINITY;
	}
	for (uint32_t i = n; i < n_vocab; i++)
		logits[i] = -INFINITY;
}

int eng_matcher_apply(struct eng_matcher *x, float *logits, uint32_t n_vocab, struct err *err)
{
	uint32_t n_allowed = 0;
	const uint64_t *mask = eng_matcher_mask(x, &n_allowed);

	if (!mask)
		return err_set(err, x->m.error, "structured output: %s",
		               x->m.error == -E2BIG ? "the grammar is too ambiguous or too large here"
		                                    : strerror(-x->m.error));
	if (n_allowed == 0 && !eng_matcher_can_end(x))
		return err_set(err, -EILSEQ, "structured output: no token of the vocabulary can come next");
	apply(mask, x->g->vocab->n, logits, n_vocab);
	return 0;
}

/* ---- The way ---- */

static size_t advance(struct eng_matcher *x, const uint8_t *p, size_t len, bool all_or_nothing)
{
	uint32_t begin = 0, n = x->n, n_frames = x->m.n_frames;
	size_t i;

	x->m.n_arena = n;
	x->m.n_steps = 0;
	if (x->m.cap_arena < GR_MAX_CONFS) {
		struct conf *arena = realloc(x->m.arena, GR_MAX_CONFS * sizeof(*arena));

		if (!arena) {
			x->m.error = -ENOMEM;
			return 0;
		}
		x->m.arena = arena;
		x->m.cap_arena = GR_MAX_CONFS;
	}
	memcpy(x->m.arena, x->set, n * sizeof(*x->set));
	for (i = 0; i < len; i++) {
		uint32_t k = gr_machine_step(&x->m, begin, n, p[i]);

		if (k == 0)
			break;
		/* Only the newest set stays. */
		memmove(x->m.arena, x->m.arena + x->m.out, k * sizeof(*x->m.arena));
		x->m.n_arena = n = k;
	}
	if (i < len && all_or_nothing) {
		gr_machine_cut_frames(&x->m, n_frames);
		return 0;
	}
	keep(x, 0, n);
	if (x->m.n_frames > COLLECT_FRAMES && gr_machine_collect(&x->m, x->set, x->n) < 0)
		x->m.error = -ENOMEM;
	return i;
}

int eng_matcher_accept(struct eng_matcher *x, int32_t token)
{
	const struct grammar_vocab *v = x->g->vocab;
	size_t len, n;

	if (token < 0 || (uint32_t)token >= v->n)
		return -EINVAL;
	len = v->offsets[token + 1] - v->offsets[token];
	if (len == 0)
		return -EINVAL;
	(void)pthread_mutex_lock(&x->g->lock);
	n = x->m.error ? 0 : advance(x, v->bytes + v->offsets[token], len, true);
	(void)pthread_mutex_unlock(&x->g->lock);
	if (x->m.error)
		return x->m.error;
	return n == len ? 0 : -EINVAL;
}

size_t eng_matcher_accept_bytes(struct eng_matcher *x, const void *bytes, size_t len)
{
	size_t n;

	(void)pthread_mutex_lock(&x->g->lock);
	n = x->m.error ? 0 : advance(x, bytes, len, false);
	(void)pthread_mutex_unlock(&x->g->lock);
	return n;
}

bool eng_matcher_can_end(const struct eng_matcher *x)
{
	for (uint32_t i = 0; i < x->n; i++) {
		if (x->set[i].node == GR_NONE)
			return true;
	}
	return false;
}

bool eng_matcher_must_end(const struct eng_matcher *x)
{
	return x->n == 1 && x->set[0].node == GR_NONE;
}

int eng_matcher_error(const struct eng_matcher *x)
{
	return x->m.error;
}

void eng_matcher_bytes(struct eng_matcher *x, uint64_t ret_bits[4])
{
	uint32_t n_frames = x->m.n_frames;

	memset(ret_bits, 0, 4 * sizeof(*ret_bits));
	(void)pthread_mutex_lock(&x->g->lock);
	for (unsigned b = 0; b < 256 && x->m.error == 0; b++) {
		x->m.n_arena = 0;
		x->m.out = 0;
		for (uint32_t i = 0; i < x->n; i++)
			gr_machine_emit(&x->m, &x->set[i]);
		if (gr_machine_step(&x->m, 0, x->n, (uint8_t)b) > 0)
			ret_bits[b / 64] |= 1ull << (b % 64);
		gr_machine_cut_frames(&x->m, n_frames);
	}
	(void)pthread_mutex_unlock(&x->g->lock);
}
