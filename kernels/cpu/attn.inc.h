/* The two products of attention for one type of K and V: the template.
 *
 * Scores: like dense.inc.h, one chain of sums per score along the head's dimensions. Values: one chain per
 * output along the tokens. Neither depends on the tile, so that a query's result is the same alone and
 * within a prompt.
 *
 * The includer defines ATTN(name), ATTN_TYPE, A_LOAD(p) and A_PART(p, n); A_R query rows (a multiple of 4)
 * meet A_T keys, or A_D vectors of values, in registers. */

ALWAYS_INLINE void ATTN(qk_tile)(size_t R, size_t T, float *s, size_t ld_s, const float *q, size_t ld_q,
                                 const ATTN_TYPE *k, size_t ld_k, size_t dim)
{
	vf acc[24];
	size_t n_full = dim / VL * VL;

	UNROLL
	for (size_t i = 0; i < R * T; i++)
		acc[i] = v_set1(0);
	for (size_t d = 0; d < n_full; d += VL) {
		vf kv[6];

		UNROLL
		for (size_t t = 0; t < T; t++)
			kv[t] = A_LOAD(k + t * ld_k + d);
		UNROLL
		for (size_t r = 0; r < R; r++) {
			vf qv = v_load(q + r * ld_q + d);

			UNROLL
			for (size_t t = 0; t < T; t++)
				acc[r * T + t] = v_fma(qv, kv[t], acc[r * T + t]);
		}
	}
	if (n_full < dim) {
		UNROLL
		for (size_t t = 0; t < T; t++) {
			vf kv = A_PART(k + t * ld_k + n_full, dim - n_full);

			UNROLL
			for (size_t r = 0; r < R; r++)
				acc[r * T + t] = v_fma(v_load(q + r * ld_q + n_full), kv, acc[r * T + t]);
		}
	}
	UNROLL
	for (size_t r = 0; r < R; r++) {
		if (T == 4) {
			v_hsum4_store(s + r * ld_s, acc[r * T], acc[r * T + 1], acc[r * T + 2], acc[r * T + 3]);
		} else {
			UNROLL
			for (size_t t = 0; t < T; t++)
				s[r * ld_s + t] = v_hsum(acc[r * T + t]);
		}
	}
}

ALWAYS_INLINE void ATTN(qk_rows)(size_t R, float *s, size_t ld_s, const float *q, size_t ld_q, const ATTN_TYPE *k,
                                 size_t ld_k, size_t n_t, size_t dim, const ATTN_TYPE *ahead)
{
	size_t t = 0;

	for (; t + 4 <= n_t; t += 4) {
		for (size_t i = 0; ahead && i < 4 * ld_k; i += 64 / sizeof(*k))
			__builtin_prefetch(ahead + t * ld_k + i, 0, 2);
		ATTN(qk_tile)(R, 4, s + t, ld_s, q, ld_q, k + t * ld_k, ld_k, dim);
	}
	for (; t < n_t; t++)
		ATTN(qk_tile)(R, 1, s + t, ld_s, q, ld_q, k + t * ld_k, ld_k, dim);
}

/* The first rows do the asking. */
static void ATTN(qk)(float *s, size_t ld_s, const float *q, size_t ld_q, size_t n_q, const void *k, size_t ld_k,
                     size_t n_t, size_t dim, const void *ahead)
{
	size_t r = 0;

	for (; r + A_R <= n_q; r += A_R)
		ATTN(qk_rows)(A_R, s + r * ld_s, ld_s, q + r * ld_q, ld_q, k, ld_k, n_t, dim, r ? NULL : ahead);
	for (; r + 2 <= n_q; r += 2)
		ATTN(qk_rows)(2, s + r * ld_s, ld_s, q + r * ld_q, ld_q, k, ld_k, n_t, dim, r ? NULL : ahead);
	for (; r < n_q; r++)
		ATTN(qk_rows)(1, s + r * ld_s, ld_s, q + r * ld_q, ld_q, k, ld_k, n_t, dim, r ? NULL : ahead);
}

ALWAYS_INLINE void ATTN(pv_tile)(size_t R, size_t D, float *o, size_t ld_o, const float *p, size_t ld_p,
                                 const ATTN_TYPE *v, size_t ld_v, size_t n_t, const ATTN_TYPE *ahead)
{
	vf acc[24];

	UNROLL
	for (size_t r = 0; r < R; r++)
		UNROLL
	for (size_t d = 0; d < D; d++)
		acc[r * D + d] = v_load(o + r * ld_o + d * VL);
	for (size_t t = 0; t < n_t; t++) {
		vf vv[8];

		UNROLL
		for (size_t d = 0; d < D * VL; d += 64 / sizeof(*v))
			__builtin_prefetch(ahead + t * ld_v + d, 0, 2);
		UNROLL
		for (size_t d = 0; d < D; d++)
			vv[d] = A_LOAD(v + t * ld_v + d * VL);
		UNROLL
		for (size_t r = 0; r < R; r++) {
			vf pv = v_set1(p[r * ld_p + t]);

			UNROLL
			for (size_t d = 0; d < D; d++)
				acc[r * D + d] = v_fma(pv, vv[d], acc[r * D + d]);
		}
	}
	UNROLL
	for (size_t r = 0; r < R; r++)
		UNROLL
	for (size_t d = 0; d < D; d++)
		v_store(o + r * ld_o + d * VL, acc[r * D + d]);
}

/* The last dimensions, fewer than a vector. */
static void ATTN(pv_tail)(float *o, const float *p, const ATTN_TYPE *v, size_t ld_v, size_t n_t, size_t n)
{
	vf acc = v_load_part(o, n);

	for (size_t t = 0; t < n_t; t++)
		acc = v_fma(v_set1(p[t]), A_PART(v + t * ld_v, n), acc);
	v_store_part(o, acc, n);
}

ALWAYS_INLINE void ATTN(pv_rows)(size_t R, float *o, size_t ld_o, const float *p, size_t ld_p, const ATTN_TYPE *v,
                                 size_t ld_v, size_t n_t, size_t dim, const ATTN_TYPE *ahead)
{
	size_t d = 0;

	for (; d + A_D * VL <= dim; d += A_D * VL)
		ATTN(pv_tile)(R, A_D, o + d, ld_o, p, ld_p, v + d, ld_v, n_t, ahead + d);
	for (; d + VL <= dim; d += VL)
		ATTN(pv_tile)(R, 1, o + d, ld_o, p, ld_p, v + d, ld_v, n_t, ahead + d);
	if (d < dim) {
		for (size_t r = 0; r < R; r++)
			ATTN(pv_tail)(o + r * ld_o + d, p + r * ld_p, v + d, ld_v, n_t, dim - d);
	}
}

static void ATTN(pv)(float *o, size_t ld_o, const float *p, size_t ld_p, size_t n_q, const void *v, size_t ld_v,
                     size_t n_t, size_t dim, const void *ahead)
{
	size_t r = 0;

	/* Asking for what is at work costs no more than a test would. */
	if (!ahead)
		ahead = v;
	for (; r + A_R <= n_q; r += A_R)
		ATTN(pv_rows)(A_R, o + r * ld_o, ld_o, p + r * ld_p, ld_p, v, ld_v, n_t, dim, r ? v : ahead);
	for (; r + 2 <= n_q; r += 2)
		ATTN(pv_rows)(2, o + r * ld_o, ld_o, p + r * ld_p, ld_p, v, ld_v, n_t, dim, r ? v : ahead);
	for (; r < n_q; r++)
		ATTN(pv_rows)(1, o + r * ld_o, ld_o, p + r * ld_p, ld_p, v, ld_v, n_t, dim, r ? v : ahead);
}

#undef ATTN
#undef ATTN_TYPE
#undef A_LOAD
#undef A_PART
