/* What the cpu backend picks of rows of logits, at every instruction set that this machine has, beside the reference.
 */
#include <float.h>

#include "cpu_test.h"

enum { ROWS = 5 };

static const uint32_t vocabularies[] = { 1, 63, 64, 1000, 1024, 1025, 40000 }, n_bests[] = { 0, 1, 32, KN_MAX_BEST };

/* For rows of spread 4 and 1 the best 256 are enough, or not. */
static const struct kn_pick filters[] = {
	{ .top_k = 20, .top_p = 1 },
	{ .top_p = 0.5f },
	{ .top_p = 0.999f },
	{ .top_k = KN_MAX_BEST, .top_p = 0.9f, .min_p = 0.01f },
	{ .top_p = 1, .min_p = 0.05f },
	{ .top_p = 1, .min_p = 1e-6f },
	{ .top_p = 0.99f, .min_p = 1e-5f },
};

/* The mass of ids below `id` and of those up to it, in double precision. */
static void bounds(const float *row, float softcap, const struct kn_pick *pick, const struct kn_picked *got, uint32_t n,
                   double *ret_below, double *ret_up_to)
{
	double whole = 0;

	*ret_below = *ret_up_to = 0;
	for (uint32_t v = 0; v < n; v++) {
		double x = isnan(row[v]) ? -INFINITY : softcap > 0 ? softcap * tanh((double)row[v] / softcap) : row[v];
		double p = exp(((x > FLT_MAX ? FLT_MAX : x) - got->max) * pick->inv_temp);

		whole += p;
		*ret_below += (int32_t)v < got->drawn ? p : 0;
		*ret_up_to += (int32_t)v <= got->drawn ? p : 0;
	}
	*ret_below /= whole;
	*ret_up_to /= whole;
}

/* Masses beyond the best are summed in single precision: that moves the border of top_p and the units' own, so what is
 * drawn near one is also right if the reference draws it a millionth away. */
static bool is_drawn_nearby(struct kn_backend *ref, const float *row, uint32_t n_vocab, const struct kn_pick *pick,
                            int32_t drawn)
{
	static const float moves[] = { 0, -1e-6f, 1e-6f };

	for (size_t i = 0; i < 9; i++) {
		struct kn_pick moved = *pick;
		struct kn_picked want;

		moved.top_p = fminf(1, moved.top_p * (1 + moves[i / 3]));
		moved.unit = fmin(fmax(0, moved.unit + (double)moves[i % 3]), 0.99999999999);
		ref->ops->pick(ref, row, n_vocab, 1, n_vocab, 0, &moved, 0, NULL, &want);
		if (want.drawn == drawn)
			return true;
	}
	return false;
}

static void compare(const float *logits, uint32_t n_vocab, uint32_t n_best, float softcap, const struct kn_pick *picks,
                    struct kn_backend *be, struct kn_backend *ref)
{
	static struct kn_best best[ROWS * KN_MAX_BEST], want_best[ROWS * KN_MAX_BEST];
	struct kn_picked got[ROWS], want[ROWS];
	float tolerance = softcap > 0 ? 1e-4f : 0;

	be->ops->pick(be, logits, n_vocab, ROWS, n_vocab, softcap, picks, n_best, best, got);
	assert_int_equal(be->ops->sync(be), 0);
	ref->ops->pick(ref, logits, n_vocab, ROWS, n_vocab, softcap, picks, n_best, want_best, want);
	for (uint32_t i = 0; i < ROWS; i++) {
		const float *row = logits + (size_t)i * n_vocab;
		double below, up_to;

		if (want[i].max > -INFINITY)
			assert_close("maximum", &got[i].max, &want[i].max, 1, tolerance, 0);
		else
			assert_true(got[i].max == -INFINITY);
		for (uint32_t k = 0; k < n_best; k++) {
			const struct kn_best *b = best + (size_t)i * n_best + k,
			                     *w = want_best + (size_t)i * n_best + k;

			/* The cap may round two logits to one. */
			if (softcap > 0 && w->id >= 0)
				assert_close("logit", &b->logit, &w->logit, 1, tolerance, 0);
			else
				assert_true(b->id == w->id && b->logit == w->logit);
		}
		if (want[i].max == -INFINITY)
			continue;
		if (!picks[i].no_log_sum)
			assert_close("log of the sum", &got[i].log_sum, &want[i].log_sum, 1, 1e-5f + tolerance, 1e-6f);
		if (!(picks[i].inv_temp > 0)) {
			if (softcap <= 0 && got[i].drawn != want[i].drawn)
				fail_msg("greatest of %u of %u: %d, not %d", i, n_vocab, got[i].drawn, want[i].drawn);
			continue;
		}
		assert_close("log of the mass", &got[i].log_mass, &want[i].log_mass, 1, 1e-5f + tolerance, 1e-6f);
		if (kn_pick_filters(&picks[i])) {
			if (softcap <= 0 && got[i].drawn != want[i].drawn &&
			    !is_drawn_nearby(ref, row, n_vocab, &picks[i], got[i].drawn))
				fail_msg("%u of %u, of the first %u, %g, from %g: %d drawn for %.9f, not %d", i,
				         n_vocab, picks[i].top_k, (double)picks[i].top_p, (double)picks[i].min_p,
				         got[i].drawn, picks[i].unit, want[i].drawn);
			continue;
		}
		bounds(row, softcap, &picks[i], &got[i], n_vocab, &below, &up_to);
		if (!(up_to > below && below <= picks[i].unit + 1e-6 && up_to >= picks[i].unit - 1e-6))
			fail_msg("%u of %u: %d drawn for %.9f, from %.9f to %.9f", i, n_vocab, got[i].drawn,
			         picks[i].unit, below, up_to);
	}
}

static void rows_are_picked_as_by_the_reference(void **state)
{
	struct kn_backend *ref = open_ref(), *be = open_cpu(*state, 3, 16);

	for (size_t v = 0; v < sizeof(vocabularies) / sizeof(vocabularies[0]); v++) {
		for (size_t b = 0; b < sizeof(n_bests) / sizeof(n_bests[0]); b++) {
			uint32_t n = vocabularies[v];
			float *x = gauss((size_t)ROWS * n);
			struct kn_pick picks[ROWS];

			for (uint32_t i = 0; i < ROWS; i++)
				picks[i] = (struct kn_pick){ .inv_temp = i == 0   ? 0
					                                 : i == 1 ? 1
					                                          : rng_u32() / 4e9f + 0.5f,
					                     .top_p = 1,
					                     .unit = i == 2   ? 0
					                             : i == 3 ? 0.99999999999
					                                      : rng_u32() / 4294967296.0 };
			for (size_t i = 0; i < (size_t)ROWS * n; i++) {
				x[i] *= i % 3 ? 4 : 1;
				if (rng_u32() % 50 == 0)
					x[i] = rng_u32() % 2 ? NAN : -INFINITY;
			}
			/* A row of few different values. */
			for (size_t i = 0; i < n; i++)
				x[(size_t)4 * n + i] = (float)(rng_u32() % 5);
			compare(x, n, n_bests[b], 0, picks, be, ref);
			compare(x, n, n_bests[b], 3, picks, be, ref);
			for (uint32_t i = 0; i < ROWS; i++)
				picks[i].no_log_sum = i % 3 < 2;
			compare(x, n, n_bests[b], 0, picks, be, ref);
			for (uint32_t f = 0; f < sizeof(filters) / sizeof(filters[0]); f++) {
				for (uint32_t i = 0; i < ROWS; i++) {
					picks[i].top_k = filters[f].top_k;
					picks[i].top_p = filters[f].top_p;
					picks[i].min_p = filters[f].min_p;
				}
				compare(x, n, n_bests[b], 0, picks, be, ref);
			}
			free(x);
		}
	}
	kn_backend_close(be);
	kn_backend_close(ref);
}

static void broken_rows_are_as_by_the_reference(void **state)
{
	enum { N = 2000 };
	struct kn_backend *ref = open_ref(), *be = open_cpu(*state, 2, 16);
	const struct kn_pick picks[ROWS] = { { 1, 0, 1, 0, 0.5, false },
		                             { 1, 0, 0.3f, 0, 0.5, false },
		                             { 1, 0, 1, 0, 0, false },
		                             { 2, 5, 1, 0.1f, 0.9, true },
		                             { 0, 0, 0, 0, 0, false } };
	float *x = gauss((size_t)ROWS * N);

	for (size_t i = 0; i < N; i++) {
		x[i] = i % 2 ? NAN : -INFINITY; /* nothing finite */
		x[N + i] = 7;                   /* all the same */
		x[2 * N + i] = -1e30f * (float)i;
	}
	x[3 * (size_t)N + 1234] = INFINITY;
	compare(x, N, 32, 0, picks, be, ref);
	compare(x, N, KN_MAX_BEST, 0, picks, be, ref);
	free(x);
	kn_backend_close(be);
	kn_backend_close(ref);
}

int main(void)
{
	struct CMUnitTest tests[32];
	size_t n = 0;

	for (const char *const *isa = kn_cpu_isas(); *isa && n + 2 <= sizeof(tests) / sizeof(tests[0]); isa++) {
		tests[n++] =
		        (struct CMUnitTest)cmocka_unit_test_prestate(rows_are_picked_as_by_the_reference, (void *)*isa);
		tests[n++] =
		        (struct CMUnitTest)cmocka_unit_test_prestate(broken_rows_are_as_by_the_reference, (void *)*isa);
	}
	return _cmocka_run_group_tests("cpu_pick", tests, n, NULL, NULL);
}
