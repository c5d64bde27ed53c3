/* The gated delta rule for many tokens of a head, a chunk at a time (Yang et al., "Gated Delta Networks", 2024, in its
 * form with products of matrices); included by the level that may round differently when tokens are many.
 *
 * With G_t the sum of the logarithms of the chunk's decays up to token t, S the state before the chunk, and
 * e(t, j) = exp(G_t - G_j), what token t changes is
 *
 *   u_t = beta_t (v_t - e(t, 0) k_t S - sum over j < t of e(t, j) (k_t k_j) u_j)
 *   out_t =              e(t, 0) q_t S + sum over j <= t of e(t, j) (q_t k_j) u_j
 *
 * and the state after it e(n, 0) S + sum of e(n, j) k_j (x) u_j. All exponents are at most 0. */

enum { CHUNK = CPU_DELTA_CHUNK, COLS = CPU_DELTA_COLS, TILE_ROWS = 8, TILE_VECS = 2 };

/* c = keep * c + a b: c [r][n_vec * VL], a [r][n], b [n][COLS]. keep 0: c is not read. */
ALWAYS_INLINE void product_tile(size_t r, size_t n_vec, float *c, size_t ld_c, const float *a, size_t ld_a,
                                const float *b, size_t n, float keep)
{
	vf sum[TILE_ROWS][TILE_VECS];

	UNROLL
	for (size_t i = 0; i < r; i++) {
		UNROLL
		for (size_t j = 0; j < n_vec; j++)
			sum[i][j] = keep != 0 ? v_mul(v_set1(keep), v_load(c + i * ld_c + j * VL)) : v_set1(0);
	}
	for (size_t k = 0; k < n; k++) {
		vf row[TILE_VECS];

		UNROLL
		for (size_t j = 0; j < n_vec; j++)
			row[j] = v_load(b + k * COLS + j * VL);
		UNROLL
		for (size_t i = 0; i < r; i++) {
			vf x = v_set1(a[i * ld_a + k]);

			UNROLL
			for (size_t j = 0; j < n_vec; j++)
				sum[i][j] = v_fma(x, row[j], sum[i][j]);
		}
	}
	UNROLL
	for (size_t i = 0; i < r; i++) {
		UNROLL
		for (size_t j = 0; j < n_vec; j++)
			v_store(c + i * ld_c + j * VL, sum[i][j]);
	}
}

ALWAYS_INLINE void product_rows(size_t n_vec, float *c, size_t ld_c, const float *a, size_t ld_a, const float *b,
                                size_t rows, size_t n, float keep)
{
	size_t i = 0;

	for (; i + TILE_ROWS <= rows; i += TILE_ROWS)
		product_tile(TILE_ROWS, n_vec, c + i * ld_c, ld_c, a + i * ld_a, ld_a, b, n, keep);
	for (; i < rows; i++)
		product_tile(1, n_vec, c + i * ld_c, ld_c, a + i * ld_a, ld_a, b, n, keep);
}

/* Of COLS columns, or of half as many. */
static void product(float *c, size_t ld_c, const float *a, size_t ld_a, const float *b, size_t rows, size_t cols,
                    size_t n, float keep)
{
	if (cols == COLS)
		product_rows(COLS / VL, c, ld_c, a, ld_a, b, rows, n, keep);
	else
		product_rows(COLS / VL / 2, c, ld_c, a, ld_a, b, rows, n, keep);
}

/* Where a chunk's parts are in the scratch. */
struct chunk {
	float *state; /* [v_dim / COLS][k_dim][COLS]: the head's columns by blocks, which the first level of cache holds
	               */
	float *x;     /* [2][CHUNK][k_dim]: k, then q */
	float *k_turn;                  /* [k_dim][CHUNK]: k turned round, zeros behind the last */
	float *weight;                  /* [2][CHUNK][CHUNK]: what changes give to later changes, and to outputs */
	float *xs;                      /* [2][CHUNK][COLS]: k S, then q S */
	float *u;                       /* [CHUNK][COLS] */
	float left[CHUNK], beta[CHUNK]; /* e(t, 0) */
	float sums[CHUNK];
};

static void chunk_load(const struct cpu_delta_block *b, struct chunk *c, size_t first, size_t n)
{
	float sum = 0;

	memset(c->k_turn, 0, b->k_dim * CHUNK * sizeof(float));
	for (size_t t = 0; t < CHUNK; t++) {
		const float *k = b->k + (first + t) * b->ld, *q = b->q + (first + t) * b->ld;

		c->sums[t] = sum;
		if (t >= n)
			continue;
		memcpy(c->x + t * b->k_dim, k, b->k_dim * sizeof(*k));
		memcpy(c->x + (CHUNK + t) * b->k_dim, q, b->k_dim * sizeof(*q));
		for (size_t i = 0; i < b->k_dim; i++)
			c->k_turn[i * CHUNK + t] = k[i];
		/* Nothing is left of e^-80; its logarithm must stay a number. */
		sum += b->decay[(first + t) * b->ld_gates] > 1e-35f ? logf(b->decay[(first + t) * b->ld_gates])
		                                                    : -80.0f;
		c->sums[t] = sum;
		c->left[t] = expf(sum);
		c->beta[t] = b->beta[(first + t) * b->ld_gates];
	}
}

/* k k and q k, each with the decay between its two tokens. */
static void chunk_weights(const struct cpu_delta_block *b, struct chunk *c, size_t n)
{
	for (size_t half = 0; half < 2; half++)
		product(c->weight + half * CHUNK * CHUNK, CHUNK, c->x + half * CHUNK * b->k_dim, b->k_dim, c->k_turn, n,
		        CHUNK, b->k_dim, 0);
	for (size_t t = 0; t < n; t++) {
		float *to_change = c->weight + t * CHUNK, *to_out = to_change + CHUNK * CHUNK;

		for (size_t j = 0; j < CHUNK; j += VL) {
			/* Between a token and a later one there is none: what comes out is cleared. */
			vf e = v_exp(v_min(v_sub(v_set1(c->sums[t]), v_load(c->sums + j)), v_set1(0)));

			v_store(to_change + j, v_mul(v_load(to_change + j), v_mul(e, v_set1(-c->beta[t]))));
			v_store(to_out + j, v_mul(v_load(to_out + j), e));
		}
		memset(to_change + t, 0, (CHUNK - t) * sizeof(float));
		memset(to_out + t + 1, 0, (CHUNK - 1 - t) * sizeof(float));
	}
}

/* k by how much of each token's change is left after the chunk. */
static void chunk_fade(const struct cpu_delta_block *b, struct chunk *c, size_t n)
{
	vf e[CHUNK / VL];

	for (size_t j = 0; j < CHUNK / VL; j++)
		e[j] = v_exp(v_sub(v_set1(c->sums[n - 1]), v_load(c->sums + j * VL)));
	for (size_t i = 0; i < b->k_dim; i++) {
		for (size_t j = 0; j < CHUNK / VL; j++)
			v_store(c->k_turn + i * CHUNK + j * VL, v_mul(e[j], v_load(c->k_turn + i * CHUNK + j * VL)));
	}
}

/* Columns [at, at + cols). */
static void chunk_columns(const struct cpu_delta_block *b, struct chunk *c, size_t first, size_t n, size_t at,
                          size_t cols)
{
	float *state = c->state + at * b->k_dim, *out = b->out + first * b->ld_out + at;

	for (size_t half = 0; half < 2; half++)
		product(c->xs + half * CHUNK * COLS, COLS, c->x + half * CHUNK * b->k_dim, b->k_dim, state, n, cols,
		        b->k_dim, 0);
	for (size_t t = 0; t < n; t++) {
		const float *v = b->v + (first + t) * b->ld + at, *ks = c->xs + t * COLS, *qs = ks + CHUNK * COLS;
		vf left = v_set1(c->left[t]), beta = v_set1(c->beta[t]);
		float *u = c->u + t * COLS;

		for (size_t d = 0; d < cols; d += VL) {
			v_store(u + d, v_mul(beta, v_sub(v_load(v + d), v_mul(left, v_load(ks + d)))));
			v_store(out + t * b->ld_out + d, v_mul(left, v_load(qs + d)));
		}
		product(u, COLS, c->weight + t * CHUNK, CHUNK, c->u, 1, cols, t, 1);
	}
	product(out, b->ld_out, c->weight + CHUNK * CHUNK, CHUNK, c->u, n, cols, n, 1);
	product(state, COLS, c->k_turn, CHUNK, c->u, b->k_dim, cols, n, c->left[n - 1]);
}

static size_t block_width(const struct cpu_delta_block *b, size_t at)
{
	return b->n_cols - at < COLS ? b->n_cols - at : COLS;
}

static void delta_chunks(const struct cpu_delta_block *b, float *scratch)
{
	struct chunk c = { .state = scratch };
	size_t padded = (b->n_cols + COLS - 1) / COLS * COLS;

	c.x = c.state + padded * b->k_dim;
	c.k_turn = c.x + 2 * CHUNK * b->k_dim;
	c.weight = c.k_turn + CHUNK * b->k_dim;
	c.xs = c.weight + 2 * CHUNK * CHUNK;
	c.u = c.xs + 2 * CHUNK * COLS;
	for (size_t at = 0; at < b->n_cols; at += COLS) {
		for (size_t i = 0; i < b->k_dim; i++)
			memcpy(c.state + at * b->k_dim + i * COLS, b->state + i * b->ld_state + at,
			       block_width(b, at) * sizeof(float));
	}
	for (size_t first = 0; first < b->n; first += CHUNK) {
		size_t n = b->n - first < CHUNK ? b->n - first : CHUNK;

		chunk_load(b, &c, first, n);
		chunk_weights(b, &c, n);
		chunk_fade(b, &c, n);
		for (size_t at = 0; at < b->n_cols; at += COLS)
			chunk_columns(b, &c, first, n, at, block_width(b, at));
	}
	for (size_t at = 0; at < b->n_cols; at += COLS) {
		for (size_t i = 0; i < b->k_dim; i++)
			memcpy(b->state + i * b->ld_state + at, c.state + at * b->k_dim + i * COLS,
			       block_width(b, at) * sizeof(float));
	}
}
