/* Recurrent layers in the vector vocabulary; part of isa_impl.inc.h. */

static inline vf conv_part(const float *const *x, size_t kernel, const float *w, size_t ld_w, size_t c, size_t n)
{
	vf sum = v_set1(0);

	for (size_t j = 0; j < kernel; j++)
		sum = n == VL ? v_fma(v_load(w + j * ld_w + c), v_load(x[j] + c), sum)
		              : v_fma(v_load_part(w + j * ld_w + c, n), v_load_part(x[j] + c, n), sum);
	return v_mul(sum, v_sigmoid(sum));
}

static void conv_silu(float *out, const float *const *x, size_t kernel, const float *w, size_t ld_w, size_t n)
{
	size_t c = 0;

	for (; c + VL <= n; c += VL)
		v_store(out + c, conv_part(x, kernel, w, ld_w, c, VL));
	if (c < n)
		v_store_part(out + c, conv_part(x, kernel, w, ld_w, c, n - c), n - c);
}

static float dot(const float *a, const float *b, size_t n)
{
	vf sum = v_set1(0);
	size_t i = 0;

	for (; i + VL <= n; i += VL)
		sum = v_fma(v_load(a + i), v_load(b + i), sum);
	if (i < n)
		sum = v_fma(v_load_part(a + i, n - i), v_load_part(b + i, n - i), sum);
	return v_hsum(sum);
}

/* What one token does to a block of columns: its key, how much of the state is left, the change. */
struct delta_change {
	const float *k;
	float decay;
	vf of[CPU_DELTA_COLS / VL];
};

/* One pass over the state: puts the change of the token before in (NULL: there is none) and sums what k and q find
 * (k NULL: nothing is asked). */
ALWAYS_INLINE void delta_pass(const struct cpu_delta_block *b, size_t n_vec, const struct delta_change *change,
                              const float *k, const float *q, vf *known, vf *got)
{
	float *S = b->state;

	for (size_t c = 0; c < n_vec; c++)
		known[c] = got[c] = v_set1(0);
	for (size_t i = 0; i < b->k_dim; i++, S += b->ld_state) {
		UNROLL
		for (size_t c = 0; c < n_vec; c++) {
			vf s = v_load(S + c * VL);

			if (change) {
				s = v_fma(v_set1(change->k[i]), change->of[c], v_mul(v_set1(change->decay), s));
				v_store(S + c * VL, s);
			}
			if (k) {
				known[c] = v_fma(v_set1(k[i]), s, known[c]);
				got[c] = v_fma(v_set1(q[i]), s, got[c]);
			}
		}
	}
}

/* With S before a token, its decay g and its change d: the token finds k (g S) known and answers q (g S + k (x) d),
 * which is g (q S) + (q k) d. So one pass serves both, and the change is put in by the pass of the next token. Every
 * cell is rounded once a token and every sum runs in the order of k: the result is the same bits however the tokens are
 * cut into calls. */
ALWAYS_INLINE void delta_columns(const struct cpu_delta_block *b, size_t n_vec)
{
	vf known[CPU_DELTA_COLS / VL], got[CPU_DELTA_COLS / VL];
	struct delta_change change = { 0 };

	for (size_t t = 0; t < b->n; t++) {
		const float *k = b->k + t * b->ld, *q = b->q + t * b->ld, *v = b->v + t * b->ld;
		vf beta = v_set1(b->beta[t * b->ld_gates]), qk = v_set1(dot(q, k, b->k_dim));

		if (t > 0)
			delta_pass(b, n_vec, &change, k, q, known, got);
		else
			delta_pass(b, n_vec, NULL, k, q, known, got);
		change.k = k;
		change.decay = b->decay[t * b->ld_gates];
		UNROLL
		for (size_t c = 0; c < n_vec; c++) {
			vf new = v_sub(v_load(v + c * VL), v_mul(v_set1(change.decay), known[c]));

			change.of[c] = v_mul(beta, new);
			v_store(b->out + t * b->ld_out + c * VL,
			        v_fma(qk, change.of[c], v_mul(v_set1(change.decay), got[c])));
		}
	}
	delta_pass(b, n_vec, &change, NULL, NULL, known, got);
}

static void delta_block(const struct cpu_delta_block *b)
{
	if (b->n_cols == CPU_DELTA_COLS)
		delta_columns(b, CPU_DELTA_COLS / VL);
	else
		delta_columns(b, KN_DELTA_STEP / VL);
}
