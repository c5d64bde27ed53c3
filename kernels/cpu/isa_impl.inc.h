/* Everything of an instruction set that is written in the vector vocabulary (vec_*.h): dense products for
 * F32, F16 and BF16, attention, and the operations row by row. Included once by each isa_*.c after its
 * vocabulary, with ISA(name) naming things. */

#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/unroll.h"

/* ---- Dense products ---- */

#define DENSE(name) dense_f32_##name
#define D_STEP VL
#define D_KBLOCK 1024
#define D_WV vf
#define D_XV vf
#define D_ELEM 4
#define D_LOAD_W(row, k) v_load((const float *)(row) + (k))
#define D_PART_W(row, k, n) v_load_part((const float *)(row) + (k), n)
#define D_LOAD_X(row, k) v_load((const float *)(row) + (k))
#define D_MAC(acc, w, x) v_fma(w, x, acc)
#include "cpu/dense.inc.h"

#define DENSE(name) dense_f16_##name
#define D_STEP VL
#define D_KBLOCK 1024
#define D_WV vf
#define D_XV vf
#define D_ELEM 2
#define D_LOAD_W(row, k) v_load_f16((const uint16_t *)(row) + (k))
#define D_PART_W(row, k, n) v_load_f16_part((const uint16_t *)(row) + (k), n)
#define D_LOAD_X(row, k) v_load((const float *)(row) + (k))
#define D_MAC(acc, w, x) v_fma(w, x, acc)
#include "cpu/dense.inc.h"

#ifndef ISA_HAS_BF16
#define DENSE(name) dense_bf16_##name
#define D_STEP VL
#define D_KBLOCK 1024
#define D_WV vf
#define D_XV vf
#define D_ELEM 2
#define D_LOAD_W(row, k) v_load_bf16((const uint16_t *)(row) + (k))
#define D_PART_W(row, k, n) v_load_bf16_part((const uint16_t *)(row) + (k), n)
#define D_LOAD_X(row, k) v_load((const float *)(row) + (k))
#define D_MAC(acc, w, x) v_fma(w, x, acc)
#include "cpu/dense.inc.h"
#endif

/* ---- Preparing activations ---- */

static void prepare_f32(void *dst, const float *x, size_t cols)
{
	memcpy(dst, x, cols * sizeof(*x));
	memset((float *)dst + cols, 0, (cpu_pad32(cols) - cols) * sizeof(*x));
}

static void store_f32(void *dst, const float *src, size_t n)
{
	memcpy(dst, src, n * sizeof(*src));
}

static void load_f32(float *dst, const void *src, size_t n)
{
	memcpy(dst, src, n * sizeof(*dst));
}

static void store_f16(void *dst, const float *src, size_t n)
{
	uint16_t *p = dst, tmp[VL];
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store_f16(p + i, v_load(src + i));
	if (i < n) {
		v_store_f16(tmp, v_load_part(src + i, n - i));
		memcpy(p + i, tmp, (n - i) * sizeof(*p));
	}
}

static void store_bf16(void *dst, const float *src, size_t n)
{
	uint16_t *p = dst, tmp[VL];
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store_bf16(p + i, v_load(src + i));
	if (i < n) {
		v_store_bf16(tmp, v_load_part(src + i, n - i));
		memcpy(p + i, tmp, (n - i) * sizeof(*p));
	}
}

static void load_f16(float *dst, const void *src, size_t n)
{
	const uint16_t *p = src;
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(dst + i, v_load_f16(p + i));
	if (i < n)
		v_store_part(dst + i, v_load_f16_part(p + i, n - i), n - i);
}

static void load_bf16(float *dst, const void *src, size_t n)
{
	const uint16_t *p = src;
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(dst + i, v_load_bf16(p + i));
	if (i < n)
		v_store_part(dst + i, v_load_bf16_part(p + i, n - i), n - i);
}

/* Blocks of 32: d = max |x| / 127, q = x / d to the nearest; a block of (nearly) zeros has scale 0. A value that is
 * infinite or not a number makes the scale not a number, and so every product. */
static void prepare_q8(void *dst, const float *x, size_t cols)
{
	struct cpu_q8 row = cpu_q8_row(dst, cols);
	int8_t *q = (int8_t *)row.q;
	float *d = (float *)row.d, *dsum = (float *)row.dsum;
	int32_t *nsum32 = (int32_t *)row.nsum32, *nsum16 = (int32_t *)row.nsum16;

	for (size_t b = 0; b < cols / 32; b++) {
		const float *src = x + b * 32;
		vf m = v_set1(0), zero = v_set1(0);
		float max, inv;
		uint32_t sum[2];

		for (size_t i = 0; i < 32; i += VL) {
			vf a = v_load(src + i);

			m = v_max(m, v_max(a, v_sub(v_set1(0), a)));
			zero = v_fma(a, v_set1(0), zero);
		}
		max = v_hmax(m);
		inv = max > 1e-30f ? 127 / max : 0;
		d[b] = inv > 0 ? max / 127 : 0;
		d[b] += v_hsum(zero);
		/* Unsigned: what is not a number becomes any integer, and may overflow. */
		sum[0] = 0 - (uint32_t)v_quantize16(q + b * 32, src, inv);
		sum[1] = 0 - (uint32_t)v_quantize16(q + b * 32 + 16, src + 16, inv);
		nsum16[2 * b] = (int32_t)sum[0];
		nsum16[2 * b + 1] = (int32_t)sum[1];
		nsum32[b] = (int32_t)(sum[0] + sum[1]);
		dsum[b] = d[b] * (float)nsum32[b];
	}
}

/* ---- Exponential and activations ---- */

/* e^x to about 2 units in the last place; 0 below -87. With n = round(x / ln 2), e^x = 2^n e^r,
 * |r| <= ln 2 / 2, and the Taylor polynomial of degree 7 for e^r. */
static inline vf v_exp(vf x)
{
	vf c = v_max(v_min(x, v_set1(88.0f)), v_set1(-87.0f));
	vf magic = v_fma(c, v_set1(1.44269504f), v_set1(12582912.0f));
	vf n = v_sub(magic, v_set1(12582912.0f));
	vf r = v_fma(n, v_set1(-0x1.62e4p-1f), c); /* ln 2 in two parts: the first product is exact */
	vf p = v_set1(1.0f / 5040);

	r = v_fma(n, v_set1(-0x1.7f7d1cp-20f), r);
	p = v_fma(p, r, v_set1(1.0f / 720));
	p = v_fma(p, r, v_set1(1.0f / 120));
	p = v_fma(p, r, v_set1(1.0f / 24));
	p = v_fma(p, r, v_set1(1.0f / 6));
	p = v_fma(p, r, v_set1(0.5f));
	p = v_fma(p, r, v_set1(1.0f));
	p = v_fma(p, r, v_set1(1.0f));
	return v_zero_below(v_mul(p, v_pow2_of_magic(magic)), x, -87.0f);
}

static inline vf v_sigmoid(vf x)
{
	return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_set1(0), x))));
}

/* tanh x = 1 - 2 / (e^2x + 1) */
static inline vf v_tanh(vf x)
{
	return v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(v_exp(v_add(x, x)), v_set1(1.0f))));
}

static inline vf act_silu(vf g, vf u)
{
	return v_mul(v_mul(g, v_sigmoid(g)), u);
}

static inline vf act_sigmoid(vf g, vf u)
{
	return v_mul(v_sigmoid(g), u);
}

static inline vf act_gelu_tanh(vf g, vf u)
{
	vf cube = v_mul(v_mul(g, g), g);
	vf inner = v_mul(v_set1(0.79788456f), v_fma(v_set1(0.044715f), cube, g));

	return v_mul(v_mul(v_mul(v_set1(0.5f), g), v_add(v_set1(1.0f), v_tanh(inner))), u);
}

static inline vf act_swiglu_oss(vf g, vf u)
{
	g = v_min(g, v_set1(7.0f));
	u = v_max(v_min(u, v_set1(7.0f)), v_set1(-7.0f));
	return v_mul(v_mul(g, v_sigmoid(v_mul(v_set1(1.702f), g))), v_add(u, v_set1(1.0f)));
}

/* erf z for z >= 0 to 1.5e-7 (Abramowitz and Stegun 7.1.26); x erf(x / sqrt 2) is the same for x and -x. */
static inline vf act_gelu(vf g, vf u)
{
	vf a = v_max(g, v_sub(v_set1(0), g)), z = v_mul(a, v_set1(0.70710678f));
	vf t = v_div(v_set1(1.0f), v_fma(v_set1(0.3275911f), z, v_set1(1.0f)));
	vf p = v_set1(1.061405429f);

	(void)u;
	p = v_fma(p, t, v_set1(-1.453152027f));
	p = v_fma(p, t, v_set1(1.421413741f));
	p = v_fma(p, t, v_set1(-0.284496736f));
	p = v_fma(p, t, v_set1(0.254829592f));
	p = v_mul(v_mul(p, t), v_exp(v_sub(v_set1(0), v_mul(z, z))));
	return v_mul(v_set1(0.5f), v_fma(a, v_sub(v_set1(1.0f), p), g));
}

#define ACT_LOOP(fn)                                                                                                \
	do {                                                                                                        \
		size_t i = 0;                                                                                       \
		for (; i + VL <= n; i += VL)                                                                        \
			v_store(out + i, fn(v_load(gate + i), v_load(up + i)));                                     \
		if (i < n)                                                                                          \
			v_store_part(out + i, fn(v_load_part(gate + i, n - i), v_load_part(up + i, n - i)), n - i); \
	} while (0)

static void act_mul(enum kn_act act, float *out, const float *gate, const float *up, size_t n)
{
	switch (act) {
	case KN_ACT_SILU:
		ACT_LOOP(act_silu);
		break;
	case KN_ACT_GELU_TANH:
		ACT_LOOP(act_gelu_tanh);
		break;
	case KN_ACT_SWIGLU_OSS:
		ACT_LOOP(act_swiglu_oss);
		break;
	case KN_ACT_GELU:
		ACT_LOOP(act_gelu);
		break;
	case KN_ACT_SIGMOID:
		ACT_LOOP(act_sigmoid);
		break;
	}
}

/* ---- Row by row ---- */

/* Four chains of sums: a row is short and its latency shows. */
static float sum_squares(const float *x, size_t n)
{
	vf s[4] = { v_set1(0), v_set1(0), v_set1(0), v_set1(0) };
	size_t i = 0;

	for (; i + 4 * VL <= n; i += 4 * VL) {
		UNROLL
		for (size_t j = 0; j < 4; j++) {
			vf a = v_load(x + i + j * VL);

			s[j] = v_fma(a, a, s[j]);
		}
	}
	for (; i + VL <= n; i += VL)
		s[0] = v_fma(v_load(x + i), v_load(x + i), s[0]);
	if (i < n) {
		vf a = v_load_part(x + i, n - i);

		s[1] = v_fma(a, a, s[1]);
	}
	return v_hsum(v_add(v_add(s[0], s[1]), v_add(s[2], s[3])));
}

static void rmsnorm(float *out, const float *x, const float *w, size_t n, float eps)
{
	vf scale = v_set1(1.0f / sqrtf(sum_squares(x, n) / (float)n + eps));
	size_t i = 0;

	for (; i + VL <= n; i += VL) {
		vf y = v_mul(v_load(x + i), scale);

		v_store(out + i, w ? v_mul(y, v_load(w + i)) : y);
	}
	if (i < n) {
		vf y = v_mul(v_load_part(x + i, n - i), scale);

		v_store_part(out + i, w ? v_mul(y, v_load_part(w + i, n - i)) : y, n - i);
	}
}

static void gated_rmsnorm(float *out, const float *x, const float *gate, const float *w, size_t n, float eps)
{
	vf scale = v_set1(1.0f / sqrtf(sum_squares(x, n) / (float)n + eps));
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(out + i, act_silu(v_load(gate + i), v_mul(v_mul(v_load(x + i), scale), v_load(w + i))));
	if (i < n)
		v_store_part(out + i,
		             act_silu(v_load_part(gate + i, n - i),
		                      v_mul(v_mul(v_load_part(x + i, n - i), scale), v_load_part(w + i, n - i))),
		             n - i);
}

/* Sum of (x - shift), or of its square. */
static float sum_shifted(const float *x, size_t n, float shift, bool squared)
{
	vf s = v_set1(0), minus = v_set1(shift);
	float rest = 0;
	size_t i = 0;

	for (; i + VL <= n; i += VL) {
		vf a = v_sub(v_load(x + i), minus);

		s = squared ? v_fma(a, a, s) : v_add(s, a);
	}
	for (; i < n; i++)
		rest += squared ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
	return v_hsum(s) + rest;
}

static void layernorm(float *out, const float *x, const float *w, const float *b, size_t n, float eps)
{
	float mean = sum_shifted(x, n, 0, false) / (float)n;
	float scale = 1.0f / sqrtf(sum_shifted(x, n, mean, true) / (float)n + eps);
	vf m = v_set1(mean), s = v_set1(scale);
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(out + i, v_fma(v_mul(v_sub(v_load(x + i), m), s), v_load(w + i), v_load(b + i)));
	for (; i < n; i++)
		out[i] = (x[i] - mean) * scale * w[i] + b[i];
}

static void add_scaled(float *x, const float *y, size_t n, float scale)
{
	vf s = v_set1(scale);
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(x + i, v_fma(v_load(y + i), s, v_load(x + i)));
	if (i < n)
		v_store_part(x + i, v_fma(v_load_part(y + i, n - i), s, v_load_part(x + i, n - i)), n - i);
}

static void scale_row(float *x, size_t n, float a)
{
	vf s = v_set1(a);
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(x + i, v_mul(v_load(x + i), s));
	if (i < n)
		v_store_part(x + i, v_mul(v_load_part(x + i, n - i), s), n - i);
}

static void rotate(float *a, float *b, const float *cos, const float *sin, size_t n)
{
	size_t i = 0;

	for (; i + VL <= n; i += VL) {
		vf x = v_load(a + i), y = v_load(b + i), c = v_load(cos + i), s = v_load(sin + i);

		v_store(a + i, v_sub(v_mul(x, c), v_mul(y, s)));
		v_store(b + i, v_add(v_mul(y, c), v_mul(x, s)));
	}
	for (; i < n; i++) {
		float x = a[i], y = b[i];

		a[i] = x * cos[i] - y * sin[i];
		b[i] = y * cos[i] + x * sin[i];
	}
}

/* ---- Attention ---- */

static void softcap(float *x, size_t n, float cap)
{
	vf c = v_set1(cap), inv = v_set1(1 / cap);
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		v_store(x + i, v_mul(c, v_tanh(v_mul(v_load(x + i), inv))));
	if (i < n)
		v_store_part(x + i, v_mul(c, v_tanh(v_mul(v_load_part(x + i, n - i), inv))), n - i);
}

static void maxima(float *ret, const float *x, size_t n_blocks)
{
	for (size_t b = 0; b < n_blocks; b++, x += CPU_PICK_BLOCK) {
		vf m = v_set1(-INFINITY);

		/* Of what is not a number and another, v_max() gives the other when it comes second. */
		for (size_t i = 0; i < CPU_PICK_BLOCK; i += VL)
			m = v_max(v_load(x + i), m);
		ret[b] = v_hmax(m);
	}
}

static double exp_sum(float *p, const float *x, size_t n, float max, float a)
{
	vf m = v_set1(max), factor = v_set1(a), sum = v_set1(0);
	float lanes[VL];
	double total = 0;

	for (size_t i = 0; i < n; i += VL) {
		vf v = v_min(v_max(v_load(x + i), v_set1(-INFINITY)), v_set1(FLT_MAX));
		vf e = v_exp(v_mul(v_sub(v, m), factor));

		if (p)
			v_store(p + i, e);
		sum = v_add(sum, e);
	}
	v_store(lanes, sum);
	for (size_t i = 0; i < VL; i++)
		total += lanes[i];
	return total;
}

/* n is a multiple of 16: rows of scores are padded with -infinity. */
static float softmax_step(float *s, size_t n, float *m)
{
	vf max = v_set1(*m), sum = v_set1(0);

	for (size_t i = 0; i < n; i += VL)
		max = v_max(max, v_load(s + i));
	*m = v_hmax(max);
	if (*m == -INFINITY) { /* no key of this step is visible */
		memset(s, 0, n * sizeof(*s));
		return 0;
	}
	max = v_set1(*m);
	for (size_t i = 0; i < n; i += VL) {
		vf p = v_exp(v_sub(v_load(s + i), max));

		v_store(s + i, p);
		sum = v_add(sum, p);
	}
	return v_hsum(sum);
}

#define ATTN(name) name##_f32
#define ATTN_TYPE float
#define A_LOAD v_load
#define A_PART v_load_part
#include "cpu/attn.inc.h"

#define ATTN(name) name##_f16
#define ATTN_TYPE uint16_t
#define A_LOAD v_load_f16
#define A_PART v_load_f16_part
#include "cpu/attn.inc.h"

#define ATTN(name) name##_bf16
#define ATTN_TYPE uint16_t
#define A_LOAD v_load_bf16
#define A_PART v_load_bf16_part
#include "cpu/attn.inc.h"

#include "cpu/recurrent.inc.h"

#define ISA_COMMON                                                                                               \
	.prepare[CPU_X_F32] = prepare_f32, .prepare[CPU_X_Q8] = prepare_q8, .qk = { qk_f32, qk_f16, qk_bf16 },   \
	.pv = { pv_f32, pv_f16, pv_bf16 }, .softmax_step = softmax_step, .scale = scale_row, .softcap = softcap, \
	.maxima = maxima, .exp_sum = exp_sum, .rmsnorm = rmsnorm, .layernorm = layernorm, .act_mul = act_mul,    \
	.add = add_scaled, .rotate = rotate, .conv_silu = conv_silu, .delta = delta_block,                       \
	.gated_rmsnorm = gated_rmsnorm, .store = { store_f32, store_f16, store_bf16 },                           \
	.load = { load_f32, load_f16, load_bf16 }
