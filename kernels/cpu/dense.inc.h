/* Products with weights read in place, row by row: the template for one type of weight.
 *
 * Both operands run along the columns, so a tile of R weight rows and T tokens keeps R * T vectors of
 * partial sums, each summed across its lanes once at the end. Every output has one chain of sums in column
 * order, whatever the tile: a token's result does not depend on how many tokens there are, and reading in
 * place needs no second copy of a mapped file. A tile of weight rows stays in the first-level cache while
 * tokens stream from the second.
 *
 * The includer defines DENSE(name) to give names; D_STEP, values per step; D_KBLOCK, columns of a tile
 * that fit half the first-level cache; the types D_WV and D_XV of a
 * step's weights and activations; D_ELEM, bytes of a weight; D_LOAD_W(row, k), D_PART_W(row, k, n), D_LOAD_X(row, k)
 * with row a `const char *`; D_MAC(acc, w, x); and the tiles D_R x D_T for many tokens (D_T at most 6) and D_R1 x 1 (at
 * most 8 rows, a multiple of D_R) for one. D_R, D_T and D_R1 stay defined, the others not. */

ALWAYS_INLINE void DENSE(finish)(const struct cpu_block *b, size_t R, size_t T, const vf *acc, size_t row, size_t tok)
{
	UNROLL
	for (size_t t = 0; t < T; t++) {
		float *out = b->out + (tok + t) * b->ld_out + row;
		float sums[8];

		UNROLL
		for (size_t r = 0; r + 4 <= R; r += 4)
			v_hsum4_store(sums + r, acc[r * T + t], acc[(r + 1) * T + t], acc[(r + 2) * T + t],
			              acc[(r + 3) * T + t]);
		UNROLL
		for (size_t r = R / 4 * 4; r < R; r++)
			sums[r] = v_hsum(acc[r * T + t]);
		for (size_t r = 0; r < R; r++) {
			float y = sums[r];

			if (b->bias)
				y += b->bias[row + r];
			out[r] = b->accumulate ? out[r] + y : y;
		}
	}
}

/* acc += the products of columns [from, to). R and T are constants at every call: the loops over them vanish and
 * acc lives in registers. `from` is a multiple of D_STEP, `to` too unless it is the end. */
ALWAYS_INLINE void DENSE(span)(const struct cpu_block *b, size_t R, size_t T, size_t row, size_t tok, size_t from,
                               size_t to, vf *acc)
{
	const char *w = b->w + row * b->ld_w;
	const char *x[6];
	size_t n_full = to / D_STEP * D_STEP;

	UNROLL
	for (size_t t = 0; t < T; t++)
		x[t] = cpu_block_x(b, tok + t);
	for (size_t k = from; k < n_full; k += D_STEP) {
		D_XV xv[6];

		UNROLL
		for (size_t t = 0; t < T; t++)
			xv[t] = D_LOAD_X(x[t], k);
		UNROLL
		for (size_t r = 0; r < R; r++) {
			D_WV wv = D_LOAD_W(w + r * b->ld_w, k);

			/* One token waits for memory alone, and the hardware's guess stops at page ends: the
			 * same place of the rows after these, which are read next. */
			if (T == 1 && R == D_R1)
				__builtin_prefetch(w + (r + R) * b->ld_w + k * D_ELEM, 0, 2);
			UNROLL
			for (size_t t = 0; t < T; t++)
				acc[r * T + t] = D_MAC(acc[r * T + t], wv, xv[t]);
		}
	}
	if (n_full < to) {
		UNROLL
		for (size_t r = 0; r < R; r++) {
			D_WV wv = D_PART_W(w + r * b->ld_w, n_full, to - n_full);

			UNROLL
			for (size_t t = 0; t < T; t++)
				acc[r * T + t] = D_MAC(acc[r * T + t], wv, D_LOAD_X(x[t], n_full));
		}
	}
}

ALWAYS_INLINE void DENSE(tile)(const struct cpu_block *b, size_t R, size_t T, size_t row, size_t tok)
{
	vf acc[24];

	UNROLL
	for (size_t i = 0; i < R * T; i++)
		acc[i] = v_set1(0);
	DENSE(span)(b, R, T, row, tok, 0, b->cols, acc);
	DENSE(finish)(b, R, T, acc, row, tok);
}

/* Long rows would push each other out of the first-level cache: columns go in blocks of D_KBLOCK, each for all
 * tiles of tokens, whose sums wait in memory meanwhile. The chains are the same as without blocks. Returns the
 * tokens done. */
ALWAYS_INLINE size_t DENSE(blocked_tiles)(const struct cpu_block *b, size_t row)
{
	vf saved[CPU_MAX_ITEM_TOKENS / D_T][D_R * D_T], acc[24];
	size_t n_tiles = b->n / D_T;

	memset(saved, 0, n_tiles * sizeof(saved[0]));
	for (size_t k = 0; k < b->cols; k += D_KBLOCK) {
		size_t to = k + D_KBLOCK < b->cols ? k + D_KBLOCK : b->cols;

		for (size_t i = 0; i < n_tiles; i++) {
			UNROLL
			for (size_t j = 0; j < D_R * D_T; j++)
				acc[j] = saved[i][j];
			DENSE(span)(b, D_R, D_T, row, i * D_T, k, to, acc);
			if (to == b->cols)
				DENSE(finish)(b, D_R, D_T, acc, row, i * D_T);
			UNROLL
			for (size_t j = 0; j < D_R * D_T; j++)
				saved[i][j] = acc[j];
		}
	}
	return n_tiles * D_T;
}

/* All tokens for one tile of rows; meanwhile the next tile's weights are asked for, a part with each tile of
 * tokens: they come from memory or the third-level cache, and the hardware's own guess stops at every page end. */
ALWAYS_INLINE void DENSE(row_tiles)(const struct cpu_block *b, size_t R, size_t row)
{
	size_t tok = 0;
	const char *next = b->w + (row + R) * b->ld_w;
	const char *end = row + 2 * R <= b->rows ? next + R * b->ld_w : next;
	size_t part = (R * b->ld_w * D_T / b->n + 127) / 64 * 64;

	if (R == D_R && b->cols > D_KBLOCK && b->n >= 2 * D_T)
		tok = DENSE(blocked_tiles)(b, row);
	for (; tok + D_T <= b->n; tok += D_T) {
		for (const char *stop = next + part < end ? next + part : end; next < stop; next += 64)
			__builtin_prefetch(next);
		DENSE(tile)(b, R, D_T, row, tok);
	}
	switch (b->n - tok) {
	case 5:
		DENSE(tile)(b, R, D_T > 5 ? 5 : 1, row, tok);
		break;
	case 4:
		DENSE(tile)(b, R, D_T > 4 ? 4 : 1, row, tok);
		break;
	case 3:
		DENSE(tile)(b, R, D_T > 3 ? 3 : 1, row, tok);
		break;
	case 2:
		DENSE(tile)(b, R, D_T > 2 ? 2 : 1, row, tok);
		break;
	case 1:
		DENSE(tile)(b, R, 1, row, tok);
		break;
	default:
		break;
	}
}

static void DENSE(block)(const struct cpu_block *b)
{
	size_t row = 0;

	if (b->n == 1) {
		for (; row + D_R1 <= b->rows; row += D_R1)
			DENSE(tile)(b, D_R1, 1, row, 0);
	}
	for (; row + D_R <= b->rows; row += D_R)
		DENSE(row_tiles)(b, D_R, row);
	for (; row < b->rows; row++)
		DENSE(row_tiles)(b, 1, row);
}

#undef DENSE
#undef D_STEP
#undef D_KBLOCK
#undef D_WV
#undef D_XV
#undef D_ELEM
#undef D_LOAD_W
#undef D_PART_W
#undef D_LOAD_X
#undef D_MAC
