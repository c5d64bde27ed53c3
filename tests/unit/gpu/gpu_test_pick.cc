/* What samplers get of rows of logits, against kernels/ref. */
#include "gpu_test.h"

struct pick_case {
	uint32_t n, n_vocab, n_best;
	float softcap, spread;
};

/* Sums of exponentials in another order; a draw may fall on the other side of a border that rounding moved. */
static const double TOL_SUM = 2e-5;

static void check_row(const pick_case &c, const float *logits, const kn_pick &pick, const kn_best *best,
                      const kn_best *want_best, const kn_picked &got, const kn_picked &want, const char *what)
{
	CHECK(got.max == want.max || fabsf(got.max - want.max) < 1e-5f * fabsf(want.max), "%s: max %g, not %g", what, got.max,
	      want.max);
	for (uint32_t k = 0; k < c.n_best; k++) {
		const bool same = best[k].id == want_best[k].id ||
		                  (best[k].id >= 0 && want_best[k].id >= 0 && c.softcap > 0 &&
		                   fabsf(best[k].logit - want_best[k].logit) < 1e-5f * c.softcap);

		CHECK(same, "%s: best %u is %d, not %d", what, k, best[k].id, want_best[k].id);
	}
	if (want.max == -INFINITY)
		return;
	CHECK(fabs(got.log_sum - want.log_sum) < TOL_SUM * (1 + fabs(want.log_sum)), "%s: log_sum %g, not %g", what,
	      got.log_sum, want.log_sum);
	if (!(pick.inv_temp > 0)) {
		CHECK(got.drawn == -1, "%s: drawn %d", what, got.drawn);
		return;
	}
	CHECK(fabs(got.log_mass - want.log_mass) < TOL_SUM * (1 + fabs(want.log_mass)), "%s: log_mass %g, not %g", what,
	      got.log_mass, want.log_mass);
	CHECK(got.drawn >= 0 && (uint32_t)got.drawn < c.n_vocab, "%s: drawn %d", what, got.drawn);
	if (got.drawn == want.drawn || got.drawn < 0 || (uint32_t)got.drawn >= c.n_vocab)
		return;

	/* What lies between the two draws is less than rounding can be. */
	double mass = 0, between = 0;
	const int32_t from = got.drawn < want.drawn ? got.drawn : want.drawn;
	const int32_t to = got.drawn < want.drawn ? want.drawn : got.drawn;

	for (uint32_t v = 0; v < c.n_vocab; v++) {
		const float x = c.softcap > 0 ? c.softcap * tanhf(logits[v] / c.softcap) : logits[v];
		const double m = isnan(x) ? 0 : exp(((double)x - want.max) * pick.inv_temp);

		mass += m;
		if ((int32_t)v > from && (int32_t)v < to)
			between += m;
	}
	CHECK(between <= TOL_SUM * mass, "%s: drawn %d, not %d: %g of %g between", what, got.drawn, want.drawn, between, mass);
}

static void check(const pick_case &c, bool broken)
{
	test_rows x(GK_F32, c.n, c.n_vocab, c.n_vocab + 3);
	both<kn_pick> picks(c.n);
	both<kn_best> best((size_t)c.n * c.n_best);
	both<kn_picked> picked(c.n);
	kn_best *want_best = (kn_best *)calloc((size_t)c.n * c.n_best + 1, sizeof(*want_best));
	kn_picked *want = (kn_picked *)calloc(c.n, sizeof(*want));
	struct gk_pick a = {};

	x.random(c.spread);
	for (uint32_t i = 0; i < c.n; i++) {
		picks.host[i].inv_temp = i % 3 == 2 ? 0.0f : 0.5f + (float)i;
		picks.host[i].unit = (test_random() >> 8) / (double)(1 << 24);
		/* Equal ones, far apart and side by side. */
		for (uint32_t k = 0; k < 3; k++)
			x.host[i * x.ld + (k * (c.n_vocab - 1)) / 2] = 3 * c.spread;
		if (broken && i == 0) {
			for (uint32_t v = 0; v < c.n_vocab; v++)
				x.host[v] = v % 2 ? NAN : -INFINITY;
		} else if (broken) {
			x.host[i * x.ld + 1] = NAN;
			x.host[i * x.ld + 2] = -INFINITY;
			x.host[i * x.ld + 3] = i == 1 ? INFINITY : 0.0f;
		}
	}
	x.up();
	picks.up();
	a.logits = x.view();
	a.rows = test_all(c.n);
	a.n_vocab = c.n_vocab;
	a.n_best = c.n_best;
	a.softcap = c.softcap;
	a.picks = picks.device;
	a.best = best.device;
	a.picked = picked.device;
	CHECK(gk_pick_rows(&test_ctx, &a) == 0, "pick");
	test_sync("pick");
	best.down();
	picked.down();
	test_ref->ops->pick(test_ref, x.host, x.ld, c.n, c.n_vocab, c.softcap, picks.host, c.n_best, want_best, want);
	for (uint32_t i = 0; i < c.n; i++) {
		char what[96];

		snprintf(what, sizeof(what), "row %u of %u x %u, %u best%s", i, c.n, c.n_vocab, c.n_best, broken ? ", broken" : "");
		check_row(c, x.host + (size_t)i * x.ld, picks.host[i], best.host + (size_t)i * c.n_best,
		          want_best + (size_t)i * c.n_best, picked.host[i], want[i], what);
	}
	free(want);
	free(want_best);
}

GPU_TEST(the_best_the_sums_and_a_draw_are_those_of_the_reference)
{
	static const pick_case cases[] = { { 3, 9001, 1, 0, 2 },    { 5, 300, 32, 0, 3 }, { 2, 20000, 256, 0, 1 },
		                           { 2, 4096, 7, 0, 1 },    { 1, 5, 32, 0, 2 },   { 3, 4097, 4, 20, 10 },
		                           { 4, 8192, 0, 0, 0.1f } };

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		check(cases[i], false);
		if (cases[i].n_vocab > 5 && cases[i].softcap == 0)
			check(cases[i], true);
	}
}

GPU_TEST(draws_at_the_ends_of_a_row_are_in_it)
{
	const uint32_t n_vocab = 5000;
	test_rows x(GK_F32, 2, n_vocab, n_vocab);
	both<kn_pick> picks(2);
	both<kn_picked> picked(2);
	both<kn_best> best(2);
	struct gk_pick a = {};

	x.random(1.0f);
	for (uint32_t v = 4000; v < n_vocab; v++)
		x.host[n_vocab + v] = -INFINITY; /* no mass there */
	x.up();
	picks.host[0].inv_temp = picks.host[1].inv_temp = 1.0f;
	picks.host[0].unit = 0;
	picks.host[1].unit = 1 - 1e-16;
	picks.up();
	a.logits = x.view();
	a.rows = test_all(2);
	a.n_vocab = n_vocab;
	a.n_best = 1;
	a.picks = picks.device;
	a.best = best.device;
	a.picked = picked.device;
	CHECK(gk_pick_rows(&test_ctx, &a) == 0, "pick");
	test_sync("pick");
	picked.down();
	CHECK(picked.host[0].drawn == 0, "drawn %d", picked.host[0].drawn);
	CHECK(picked.host[1].drawn >= 3990 && picked.host[1].drawn < 4000, "drawn %d", picked.host[1].drawn);
}
