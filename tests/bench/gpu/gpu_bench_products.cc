/* gpu_bench: products of matrices each way, what widening a matrix costs, and mixtures of experts. */
#include <math.h>

#include "gpu_bench.h"

static const char *const way_names[N_WAYS] = { "few", "bytes", "steady", "many" };

void bench_linear(const struct model_shape *s, int t, uint32_t n, enum way way)
{
	const bool many = way >= STEADY; /* normed before */
	const size_t bytes = gk_mat_bytes(types[t].type, s->rows, s->cols), each = bytes * (s->gated ? 2 : 1);
	const int copies = each > 400u << 20 ? 2 : (int)((300u << 20) / each) + 2;
	void *x = filled((size_t)n * s->cols * 4), *out = filled((size_t)n * s->rows * 4), *norm = filled(s->cols * 4);
	uint8_t *weights = (uint8_t *)filled(each * copies);
	const uint32_t elem = many || !s->norm ? GK_BF16 : GK_F32, out_elem = many || s->gated ? GK_BF16 : GK_F32;
	char name[128];
	double us;

	ctx.bytes = way == BYTES;
	ctx.fixed = way == STEADY;
	us = measure(copies * (each < 100u << 20 ? 4 : 1), [&](int i) {
		struct gk_job jobs[2] = {};
		struct gk_linear l = {};

		for (int j = 0; j < (s->gated ? 2 : 1); j++) {
			(void)gk_mat_describe(&jobs[j].w, types[t].type, s->rows, s->cols,
			                      weights + (i % copies) * each + j * bytes);
			jobs[j].out = view(out, out_elem, s->rows);
			jobs[j].accumulate = !many && !s->norm;
		}
		l.x = view(x, elem, s->cols);
		l.rows = rows_of(n);
		l.norm = s->norm && !many;
		l.norm_w = (const float *)norm;
		l.eps = 1e-6f;
		l.gated = s->gated;
		l.n_jobs = s->gated ? 2 : 1;
		l.jobs = jobs;
		return way == MANY ? gk_linear_many(&ctx, &l, false)
		       : ctx.fixed ? gk_linear_steady(&ctx, &l)
		                   : gk_linear_few(&ctx, &l);
	});
	ctx.bytes = ctx.fixed = false;
	(void)snprintf(name, sizeof(name), "%s %s %s M=%u", way_names[way], types[t].name, s->name, n);
	report(name, us, (double)s->rows * s->cols * (s->gated ? 2 : 1) * types[t].bits / 8,
	       2.0 * s->rows * s->cols * (s->gated ? 2 : 1) * n);
	(void)gpu_free(x);
	(void)gpu_free(out);
	(void)gpu_free(norm);
	(void)gpu_free(weights);
}

void bench_widen(const struct model_shape *s, int t)
{
	const size_t bytes = gk_mat_bytes(types[t].type, s->rows, s->cols);
	const int copies = (int)((300u << 20) / bytes) + 2;
	uint8_t *weights = (uint8_t *)filled(bytes * copies);
	void *out = filled((size_t)s->rows * s->cols * 2);
	char name[128];
	double us;

	us = measure(copies, [&](int i) {
		struct gk_mat m;

		(void)gk_mat_describe(&m, types[t].type, s->rows, s->cols, weights + i * bytes);
		return gk_mat_widen(&ctx, &m, out, s->cols);
	});
	(void)snprintf(name, sizeof(name), "widen %s %s", types[t].name, s->name);
	report(name, us, (double)s->rows * s->cols * (types[t].bits / 8 + 2), 0);
	(void)gpu_free(weights);
	(void)gpu_free(out);
}

/* ---- Mixtures ---------------------------------------------------------------------------------------------------- */

void bench_mixture(uint32_t n)
{
	enum { D = 2048, FF = 768, E = 128, TOP = 8, COPIES = 6 };
	const size_t each = (size_t)FF * D * 2, layer = (size_t)3 * E * each;
	const double taken = E * (1 - pow(1 - (double)TOP / E, n)), router_bytes = 4.0 * E * D;
	uint8_t *weights = (uint8_t *)filled(layer * COPIES);
	float *routers = (float *)filled((size_t)E * D * 4 * COPIES);
	void *x = filled((size_t)n * D * 4), *normed = filled((size_t)n * D * 4), *out = filled((size_t)n * D * 4);
	float *norm = (float *)filled(D * 4), *logits = (float *)filled((size_t)n * E * 4);
	int32_t *ids = device<int32_t>((size_t)n * TOP);
	float *scales = device<float>((size_t)n * TOP);
	struct gk_mat *mats = (struct gk_mat *)calloc((size_t)3 * E * COPIES, sizeof(*mats)), *tables;
	static const char *const names[] = { "router", "experts", "router and experts" };
	char name[64];

	for (size_t i = 0; i < (size_t)3 * E * COPIES; i++)
		(void)gk_mat_describe(&mats[i], KN_BF16, i / E % 3 == 2 ? D : FF, i / E % 3 == 2 ? FF : D,
		                      weights + i * each);
	tables = put(mats, (size_t)3 * E * COPIES);
	for (int what = 0; what < 3; what++) {
		const double us = measure(4 * COPIES, [&](int i) {
			const struct gk_mat *table = tables + (size_t)3 * E * (i % COPIES);
			struct gk_router r = {};
			struct gk_choice choice = {};
			struct gk_moe m = {};
			int e = 0;

			r.x = view(x, GK_F32, D);
			r.normed = m.x = view(normed, GK_F32, D);
			r.rows = m.rows = rows_of(n);
			r.norm = true;
			r.norm_w = norm;
			r.eps = 1e-6f;
			(void)gk_mat_describe(&r.w, KN_F32, E, D, routers + (size_t)E * D * (i % COPIES));
			r.logits = logits;
			choice.logits = logits;
			r.router.kind = KN_ROUTE_SOFTMAX;
			r.router.n_expert = m.n_expert = E;
			r.router.top_k = m.top_k = TOP;
			r.router.normalize = true;
			r.router.scale = 1.0f;
			choice.router = r.router;
			choice.ids = r.ids = ids;
			choice.weights = r.weights = scales;
			m.out = view(out, GK_F32, D);
			m.n_ff = FF;
			m.dim = D;
			m.act = KN_ACT_SILU;
			m.type_gate = m.type_up = m.type_down = KN_BF16;
			m.gate = table;
			m.up = table + E;
			m.down = table + 2 * E;
			m.ids = ids;
			m.weights = scales;
			if (what == 2) {
				m.choice = &choice;
				if (gk_moe_chooses(&ctx, &m))
					r.ids = nullptr;
				else
					m.choice = nullptr;
			}
			if (what != 1)
				e = gk_route_product(&ctx, &r);
			return what == 0 || e < 0 ? e : gk_moe(&ctx, &m);
		});

		(void)snprintf(name, sizeof(name), "mixture BF16, %s M=%u", names[what], n);
		report(name, us, (what == 1 ? 0 : router_bytes) + (what == 0 ? 0 : taken * 3 * (double)each), 0);
	}
	free(mats);
	for (void *p : { (void *)weights, (void *)routers, x, normed, out, (void *)norm, (void *)logits, (void *)ids,
	                 (void *)scales, (void *)tables })
		(void)gpu_free(p);
}
