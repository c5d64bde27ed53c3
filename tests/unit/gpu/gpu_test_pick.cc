/* What samplers get of rows of logits, against kernels/ref. */
#include "gpu_test.h"

struct pick_case {
	uint32_t n, n_vocab, n_best;
	float softcap, spread;
	uint32_t top_k;
	float top_p, min_p;
};

/* Sums of exponentials in another order; a draw may fall on the other side of a border that rounding moved. */
static const double TOL_SUM = 2e-5;

static float capped(const pick_case &c, float x)
{
	return c.softcap > 0 ? c.softcap * tanhf(x / c.softcap) : x;
}

/* v comes behind `id`, the best first. */
static bool is_after(const pick_case &c, const float *logits, uint32_t v, int32_t id)
{
	const float x = capped(c, logits[v]), y = capped(c, logits[id]);

	return x < y || (x == y && (int32_t)v > id) || isnan(x);
}

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
		CHECK(got.drawn == want.drawn || c.softcap > 0, "%s: drawn %d, not %d", what, got.drawn, want.drawn);
		return;
	}
	CHECK(fabs(got.log_mass - want.log_mass) < TOL_SUM * (1 + fabs(want.log_mass)), "%s: log_mass %g, not %g", what,
	      got.log_mass, want.log_mass);
	CHECK(got.drawn >= 0 && (uint32_t)got.drawn < c.n_vocab, "%s: drawn %d", what, got.drawn);
	if (got.drawn == want.drawn || got.drawn < 0 || (uint32_t)got.drawn >= c.n_vocab)
		return;

	/* What lies between the two draws, in the order of drawing, is less than rounding can be. */
	const bool ordered = c.top_k > 0 || c.top_p < 1;
	double mass = 0, between = 0;

	for (uint32_t v = 0; v < c.n_vocab; v++) {
		const float x = capped(c, logits[v]);
		const double m = isnan(x) ? 0 : exp(((double)x - want.max) * pick.inv_temp);

		mass += m;
		if ((int32_t)v == got.drawn || (int32_t)v == want.drawn)
			continue;
		if (ordered ? is_after(c, logits, v, got.drawn) != is_after(c, logits, v, want.drawn)
		            : ((int32_t)v > got.drawn) != ((int32_t)v > want.drawn))
			between += c.min_p > 0 && m < c.min_p ? 0 : m;
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
		picks.host[i].top_k = c.top_k;
		picks.host[i].top_p = c.top_p;
		picks.host[i].min_p = c.min_p;
		a.filters |= kn_pick_filters(&picks.host[i]);
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
	static const pick_case cases[] = {
		{ 3, 9001, 1, 0, 2, 0, 1, 0 },   { 5, 300, 32, 0, 3, 0, 1, 0 },   { 2, 20000, 256, 0, 1, 0, 1, 0 },
		{ 2, 4096, 7, 0, 1, 0, 1, 0 },   { 1, 5, 32, 0, 2, 0, 1, 0 },     { 3, 4097, 4, 20, 10, 0, 1, 0 },
		{ 4, 8192, 0, 0, 0.1f, 0, 1, 0 }, { 1, 70001, 256, 0, 1, 0, 1, 0 },
		/* Filters that the best suffice for, */
		{ 4, 9001, 0, 0, 2, 20, 1, 0 },  { 4, 5000, 3, 0, 3, 256, 0.9f, 0 }, { 4, 4097, 0, 0, 4, 0, 0.8f, 0 },
		{ 4, 300, 32, 0, 2, 50, 0.95f, 0.05f }, { 4, 9001, 0, 0, 4, 0, 1, 0.1f }, { 2, 5, 0, 0, 2, 20, 0.9f, 0 },
		/* and those that reach beyond. */
		{ 4, 9001, 0, 0, 0.2f, 0, 0.9f, 0 }, { 4, 9001, 4, 0, 0.2f, 0, 1, 0.2f },
		{ 3, 5000, 0, 0, 0.1f, 0, 0.95f, 0.7f }, { 2, 70001, 32, 0, 2, 0, 0.9f, 0 }, { 2, 4097, 0, 30, 0.3f, 0, 0.7f, 0 },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		check(cases[i], false);
		if (cases[i].n_vocab > 5 && cases[i].softcap == 0)
			check(cases[i], true);
	}
}

/* Rows of a few values, many times each: what is equal is drawn by id, also where it is half kept. */
GPU_TEST(equal_logits_are_drawn_in_their_order)
{
	const uint32_t n = 12, n_vocab = 6000;
	test_rows x(GK_F32, n, n_vocab, n_vocab);
	both<kn_pick> picks(n);
	both<kn_picked> picked(n);
	kn_best none;
	kn_picked want[n];
	struct gk_pick a = {};

	for (uint32_t i = 0; i < n * n_vocab; i++)
		x.host[i] = (float)(test_random() % 4);
	x.up();
	for (uint32_t i = 0; i < n; i++) {
		picks.host[i] = { 1.0f, 0, i % 3 == 0 ? 1.0f : 0.3f + 0.05f * (float)i, i % 3 == 1 ? 0.0f : 0.1f,
			          (i + 0.5) / n, false };
		if (i == 10)
			picks.host[i].unit = 0;
		if (i == 11)
			picks.host[i].unit = 1 - 1e-16;
	}
	picks.up();
	a.logits = x.view();
	a.rows = test_all(n);
	a.n_vocab = n_vocab;
	a.filters = true;
	a.picks = picks.device;
	a.picked = picked.device;
	CHECK(gk_pick_rows(&test_ctx, &a) == 0, "pick");
	test_sync("pick");
	picked.down();
	test_ref->ops->pick(test_ref, x.host, n_vocab, n, n_vocab, 0, picks.host, 0, &none, want);
	for (uint32_t i = 0; i < n; i++) {
		const int32_t off = picked.host[i].drawn - want[i].drawn;

		/* Of equal ones, a neighbour: eight of those 6,000 ids lie within the tolerance. */
		CHECK(picked.host[i].drawn_logit == want[i].drawn_logit && off > -8 && off < 8, "row %u: %d, not %d", i,
		      picked.host[i].drawn, want[i].drawn);
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
	picks.host[0].top_p = picks.host[1].top_p = 1;
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
