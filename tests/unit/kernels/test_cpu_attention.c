/* The cpu backend's attention and K/V store, for every instruction set of this machine, compared with the
 * reference backend over page boundaries, windows, sinks, grouped heads and a cache without V.
 *
 * Tolerance: scores are float sums of up to 576 products and the exponential is good to 2 units in the last
 * place, so a probability is off by less than about 1e-5 of itself, and a result, a mean of values of size 1 to
 * 4, by less than 4e-5; both backends read the same rounded cache.
 *
 * The level that takes many rows as bfloat16 rounds queries, keys, probabilities and values by up to 2^-9 of
 * themselves: a score, a sum of such products with random signs and of size 1, is off by some 2^-8, so is a
 * probability, and a result of size 4 by 2^-7 at most in practice. Two and a half times that is allowed. */
#include "cpu_test.h"

static bool rounds_many_rows(const char *isa)
{
	return strcmp(isa, "amxbf16") == 0;
}

struct shape {
	enum kn_dtype dtype;
	uint32_t n_head, n_kv_head, k_dim, v_dim, page_tokens;
	bool no_v;
	uint32_t window;
	float softcap;
	bool sinks;
	uint32_t lens[3], n_q[3]; /* sequences: tokens in the cache, new ones; 0 ends */
};

struct cache {
	struct kn_kv kv;
	uint32_t n_pages;
	uint32_t *tables[3];
};

static size_t elem(enum kn_dtype dtype)
{
	return dtype == KN_F32 ? 4 : 2;
}

/* Pages of the sequences dealt in turns, so that neighbours in a sequence are not neighbours in memory. */
static void cache_init(struct cache *c, const struct shape *s, struct kn_backend *be)
{
	uint32_t next = 0;
	size_t tokens;

	c->n_pages = 0;
	for (int i = 0; i < 3; i++)
		c->n_pages += (s->lens[i] + s->page_tokens - 1) / s->page_tokens;
	for (int i = 0; i < 3; i++)
		c->tables[i] = calloc(c->n_pages + 1, sizeof(uint32_t));
	for (uint32_t p = 0; next < c->n_pages; p++) {
		for (int i = 0; i < 3; i++) {
			if (p * s->page_tokens < s->lens[i])
				c->tables[i][p] = c->n_pages - 1 - next++;
		}
	}
	tokens = (size_t)c->n_pages * s->page_tokens * s->n_kv_head;
	c->kv = (struct kn_kv){ .dtype = s->dtype,
		                .n_kv_head = s->n_kv_head,
		                .k_dim = s->k_dim,
		                .v_dim = s->v_dim,
		                .page_tokens = s->page_tokens };
	/* 0xff: what was never stored is not a number, and must not be read. */
	c->kv.k = be->ops->alloc(be, tokens * s->k_dim * elem(s->dtype));
	memset(c->kv.k, 0xff, tokens * s->k_dim * elem(s->dtype));
	if (!s->no_v) {
		c->kv.v = be->ops->alloc(be, tokens * s->v_dim * elem(s->dtype));
		memset(c->kv.v, 0xff, tokens * s->v_dim * elem(s->dtype));
	}
}

static void cache_done(struct cache *c, struct kn_backend *be)
{
	be->ops->free(be, c->kv.k);
	be->ops->free(be, c->kv.v);
	for (int i = 0; i < 3; i++)
		free(c->tables[i]);
}

/* The sequences with their first `len` tokens, of which the last n_q are new. Returns rows. */
static size_t sequences(const struct shape *s, const struct cache *c, bool fill, struct kn_seq seqs[3], size_t *ret_n)
{
	uint32_t row = 0;

	*ret_n = 0;
	for (int i = 0; i < 3 && s->lens[i]; i++) {
		uint32_t n_q = fill ? s->lens[i] : s->n_q[i];

		seqs[(*ret_n)++] =
		        (struct kn_seq){ .pages = c->tables[i], .kv_len = s->lens[i], .n_q = n_q, .row = row };
		row += n_q;
	}
	return row;
}

static void fill(const struct shape *s, struct cache *c, struct kn_backend *be, const float *k, const float *v)
{
	struct kn_seq seqs[3];
	size_t n;

	sequences(s, c, true, seqs, &n);
	be->ops->kv_store(be, &c->kv, k, (size_t)s->n_kv_head * s->k_dim, s->no_v ? NULL : v,
	                  (size_t)s->n_kv_head * s->v_dim, seqs, n);
}

static void check(const struct shape *s, const char *isa, unsigned n_threads)
{
	struct kn_backend *ref = open_ref(), *cpu = open_cpu(isa, n_threads, 64);
	struct cache a, b;
	struct kn_seq seqs[3];
	size_t n_seqs, all, n, pool;
	float *k, *v, *q, *want, *got, *sinks = gauss(s->n_head);
	struct kn_attn attn = { .n_head = s->n_head,
		                .scale = 1 / sqrtf((float)s->k_dim),
		                .window = s->window,
		                .softcap = s->softcap,
		                .sinks = s->sinks ? sinks : NULL };

	cache_init(&a, s, ref);
	cache_init(&b, s, cpu);
	all = sequences(s, &a, true, seqs, &n_seqs);
	k = gauss(all * s->n_kv_head * s->k_dim);
	v = gauss(all * s->n_kv_head * s->v_dim);
	fill(s, &a, ref, k, v);
	fill(s, &b, cpu, k, v);
	pool = (size_t)a.n_pages * s->page_tokens * s->n_kv_head * elem(s->dtype);
	assert_memory_equal(a.kv.k, b.kv.k, pool * s->k_dim);
	if (!s->no_v)
		assert_memory_equal(a.kv.v, b.kv.v, pool * s->v_dim);

	n = sequences(s, &a, false, seqs, &n_seqs);
	q = gauss(n * s->n_head * s->k_dim);
	want = gauss(n * s->n_head * s->v_dim);
	got = gauss(n * s->n_head * s->v_dim);
	ref->ops->attention(ref, want, (size_t)s->n_head * s->v_dim, q, (size_t)s->n_head * s->k_dim, &a.kv, seqs,
	                    n_seqs, &attn);
	cpu->ops->attention(cpu, got, (size_t)s->n_head * s->v_dim, q, (size_t)s->n_head * s->k_dim, &b.kv, seqs,
	                    n_seqs, &attn);
	assert_int_equal(cpu->ops->sync(cpu), 0);
	assert_close(isa, got, want, n * s->n_head * s->v_dim, rounds_many_rows(isa) ? 2e-2f : 4e-5f, 1e-5f);

	cache_done(&a, ref);
	cache_done(&b, cpu);
	kn_backend_close(ref);
	kn_backend_close(cpu);
	free(k);
	free(v);
	free(q);
	free(want);
	free(got);
	free(sinks);
}

static void check_all(const struct shape *shapes, size_t n)
{
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		for (size_t i = 0; i < n; i++)
			check(&shapes[i], *isa, 3);
	}
}

#define CHECK(shapes) check_all(shapes, sizeof(shapes) / sizeof(*(shapes)))

static void prompts_of_odd_lengths_agree(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F32, 2, 1, 16, 16, 16, .lens = { 1 }, .n_q = { 1 } },
		{ KN_F32, 3, 3, 7, 5, 16, .lens = { 2, 3, 5 }, .n_q = { 2, 3, 5 } },
		{ KN_F32, 4, 2, 64, 64, 16, .lens = { 7, 17, 33 }, .n_q = { 7, 17, 33 } },
		{ KN_F16, 4, 2, 64, 64, 16, .lens = { 65, 64, 63 }, .n_q = { 65, 64, 63 } },
		{ KN_BF16, 6, 2, 40, 24, 32, .lens = { 66, 130 }, .n_q = { 66, 130 } },
		{ KN_F16, 16, 8, 128, 128, 64, .lens = { 100 }, .n_q = { 100 } },
	};

	(void)state;
	CHECK(shapes);
}

static void single_tokens_on_long_caches_agree(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F32, 4, 2, 32, 32, 16, .lens = { 511, 512, 513 }, .n_q = { 1, 1, 1 } },
		{ KN_F16, 8, 1, 64, 64, 64, .lens = { 1500 }, .n_q = { 1 } },
		{ KN_BF16, 2, 2, 48, 80, 24, .lens = { 1100, 3 }, .n_q = { 2, 1 } },
	};

	(void)state;
	CHECK(shapes);
}

static void pages_that_do_not_divide_a_step_agree(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F32, 2, 1, 16, 16, 1, .lens = { 70 }, .n_q = { 3 } },
		{ KN_F16, 2, 1, 32, 32, 24, .lens = { 200, 25 }, .n_q = { 5, 25 } },
		{ KN_BF16, 2, 1, 32, 32, 100, .lens = { 150, 100 }, .n_q = { 9, 1 } },
	};

	(void)state;
	CHECK(shapes);
}

static void windows_agree(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F32, 2, 1, 16, 16, 16, .window = 1, .lens = { 40 }, .n_q = { 40 } },
		{ KN_F32, 2, 1, 16, 16, 16, .window = 17, .lens = { 100, 10 }, .n_q = { 100, 10 } },
		{ KN_F16, 4, 2, 64, 64, 32, .window = 64, .lens = { 200 }, .n_q = { 77 } },
		{ KN_F16, 4, 2, 32, 32, 32, .window = 600, .lens = { 1400 }, .n_q = { 1 } },
		{ KN_F32, 4, 2, 32, 32, 16, .window = 30, .lens = { 1400 }, .n_q = { 1 } },
	};

	(void)state;
	CHECK(shapes);
}

static void sinks_and_soft_caps_agree(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F32, 4, 2, 32, 32, 16, .sinks = true, .lens = { 33, 1 }, .n_q = { 33, 1 } },
		{ KN_F16, 8, 2, 64, 64, 16, .sinks = true, .window = 20, .lens = { 90 }, .n_q = { 90 } },
		{ KN_BF16, 4, 2, 32, 32, 16, .softcap = 2, .lens = { 70 }, .n_q = { 70 } },
		{ KN_F32, 4, 2, 32, 32, 16, .softcap = 30, .sinks = true, .lens = { 1030 }, .n_q = { 1 } },
	};

	(void)state;
	CHECK(shapes);
}

static void a_cache_whose_values_are_the_beginning_of_its_keys_agrees(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F32, 4, 1, 40, 32, 16, .no_v = true, .lens = { 50 }, .n_q = { 50 } },
		{ KN_BF16, 16, 1, 576, 512, 64, .no_v = true, .lens = { 600 }, .n_q = { 1 } },
		{ KN_F16, 40, 1, 576, 512, 64, .no_v = true, .lens = { 70 }, .n_q = { 5 } },
	};

	(void)state;
	CHECK(shapes);
}

/* Results for the last n_q tokens of one sequence of `len`. */
static float *attend_tail(const struct shape *s, const char *isa, unsigned n_threads, const float *k, const float *v,
                          const float *q, uint32_t n_q)
{
	struct kn_backend *cpu = open_cpu(isa, n_threads, 64);
	size_t head = (size_t)s->n_head * s->k_dim;
	float *out = gauss((size_t)n_q * s->n_head * s->v_dim);
	struct kn_attn attn = { .n_head = s->n_head, .scale = 0.2f, .window = s->window };
	struct cache c;
	struct kn_seq seq;

	cache_init(&c, s, cpu);
	fill(s, &c, cpu, k, v);
	seq = (struct kn_seq){ .pages = c.tables[0], .kv_len = s->lens[0], .n_q = n_q };
	cpu->ops->attention(cpu, out, (size_t)s->n_head * s->v_dim, q + (s->lens[0] - n_q) * head, head, &c.kv, &seq, 1,
	                    &attn);
	cache_done(&c, cpu);
	kn_backend_close(cpu);
	return out;
}

static void results_do_not_depend_on_threads_or_on_how_a_prompt_is_cut(void **state)
{
	static const struct shape shapes[] = {
		{ KN_F16, 4, 2, 64, 64, 16, .lens = { 1100 } },
		{ KN_F32, 3, 1, 40, 24, 48, .lens = { 600 }, .window = 100 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		const struct shape *s = &shapes[i];
		uint32_t len = s->lens[0];
		float *k = gauss((size_t)len * s->n_kv_head * s->k_dim),
		      *v = gauss((size_t)len * s->n_kv_head * s->v_dim);
		float *q = gauss((size_t)len * s->n_head * s->k_dim);
		size_t row = (size_t)s->n_head * s->v_dim;

		for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
			float *all = attend_tail(s, *isa, 1, k, v, q, len);

			for (unsigned t = 1; t <= 5; t++) {
				static const uint32_t tails[] = { 1, 2, 5, 33, 300 };

				float *tail = attend_tail(s, *isa, t, k, v, q, tails[t - 1]);
				float *one = attend_tail(s, *isa, 1, k, v, q, tails[t - 1]);

				assert_same(*isa, tail, one, tails[t - 1] * row);
				if (!rounds_many_rows(*isa))
					assert_same(*isa, tail, all + (len - tails[t - 1]) * row, tails[t - 1] * row);
				free(tail);
				free(one);
			}
			free(all);
		}
		free(k);
		free(v);
		free(q);
	}
}

/* Single tokens whose sequences begin with the same pages: as many as `shared`[i] of sequence i are those of sequence
 * 0. The results are those of each alone. */
static void tokens_that_share_pages_get_what_they_would_get_alone(void **state)
{
	enum { N = 9, HEADS = 6, KV_HEADS = 2, DIM = 40, PAGE = 24, PAGES = 30, TOTAL = N * PAGES };
	static const uint32_t shared[N] = { 30, 22, 0, 22, 11, 6, 3, 22, 29 };
	static const uint32_t lens[N] = { 700, 529, 300, 700, 530, 145, 72, 600, 720 };
	float *k = gauss((size_t)TOTAL * PAGE * KV_HEADS * DIM), *v = gauss((size_t)TOTAL * PAGE * KV_HEADS * DIM);
	float *q = gauss((size_t)N * HEADS * DIM), *sinks = gauss(HEADS);
	uint32_t pages[N][PAGES];

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		for (uint32_t p = 0; p < PAGES; p++)
			pages[i][p] = p < shared[i] ? PAGES - 1 - p : i * PAGES + p;
	}
	for (uint32_t p = 0; p < PAGES; p++)
		pages[0][p] = PAGES - 1 - p;
	for (const char *const *isa = kn_cpu_isas(); *isa; isa++) {
		struct kn_backend *cpu = open_cpu(*isa, 3, 64);
		struct kn_kv kv = {
			.dtype = KN_F16, .n_kv_head = KV_HEADS, .k_dim = DIM, .v_dim = DIM, .page_tokens = PAGE
		};
		struct kn_attn attn = { .n_head = HEADS, .scale = 0.2f, .sinks = sinks };
		float *together = gauss((size_t)N * HEADS * DIM), *alone = gauss((size_t)N * HEADS * DIM);
		uint32_t all[TOTAL];
		struct kn_seq seqs[N], whole = { .pages = all, .kv_len = TOTAL * PAGE, .n_q = TOTAL * PAGE };

		for (uint32_t p = 0; p < TOTAL; p++)
			all[p] = p;
		kv.k = cpu->ops->alloc(cpu, (size_t)TOTAL * PAGE * KV_HEADS * DIM * 2);
		kv.v = cpu->ops->alloc(cpu, (size_t)TOTAL * PAGE * KV_HEADS * DIM * 2);
		cpu->ops->kv_store(cpu, &kv, k, KV_HEADS * DIM, v, KV_HEADS * DIM, &whole, 1);
		for (uint32_t i = 0; i < N; i++) {
			seqs[i] = (struct kn_seq){ .pages = pages[i], .kv_len = lens[i], .n_q = 1, .row = i };
			cpu->ops->attention(cpu, alone, HEADS * DIM, q, HEADS * DIM, &kv, &seqs[i], 1, &attn);
		}
		cpu->ops->attention(cpu, together, HEADS * DIM, q, HEADS * DIM, &kv, seqs, N, &attn);
		assert_int_equal(cpu->ops->sync(cpu), 0);
		assert_same(*isa, together, alone, (size_t)N * HEADS * DIM);
		cpu->ops->free(cpu, kv.k);
		cpu->ops->free(cpu, kv.v);
		kn_backend_close(cpu);
		free(together);
		free(alone);
	}
	free(k);
	free(v);
	free(q);
	free(sinks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompts_of_odd_lengths_agree),
		cmocka_unit_test(single_tokens_on_long_caches_agree),
		cmocka_unit_test(pages_that_do_not_divide_a_step_agree),
		cmocka_unit_test(windows_agree),
		cmocka_unit_test(sinks_and_soft_caps_agree),
		cmocka_unit_test(a_cache_whose_values_are_the_beginning_of_its_keys_agrees),
		cmocka_unit_test(results_do_not_depend_on_threads_or_on_how_a_prompt_is_cut),
		cmocka_unit_test(tokens_that_share_pages_get_what_they_would_get_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
