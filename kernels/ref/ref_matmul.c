/* Products with weight matrices of any type. A row of weights is dequantized in chunks that stay in the
 * first-level cache, and each chunk meets a tile of tokens before the next one is read. */
#include <stddef.h>

#include "ref/ref.h"

enum { TILE = 16 /* tokens that share one dequantized chunk */ };

/* Values [from, from + n) of row `row`; `from` is a multiple of REF_CHUNK. */
static void read_row(const struct kn_mat *m, size_t row, size_t from, size_t n, float *dst)
{
	size_t row_bytes = kn_row_bytes(m->dtype, m->cols);
	const char *p = (const char *)m->data + row * row_bytes;

	kn_dequantize(m->dtype, p + (from ? kn_row_bytes(m->dtype, from) : 0), dst, n);
}

void ref_embed(struct kn_backend *be, float *out, size_t ld_out, const struct kn_mat *m, const int32_t *ids, size_t n,
               float scale)
{
	(void)be;
	for (size_t i = 0; i < n; i++) {
		float *row = out + i * ld_out;

		read_row(m, (size_t)ids[i], 0, m->cols, row);
		for (size_t c = 0; c < m->cols; c++)
			row[c] *= scale;
	}
}

static double dot(const float *a, const float *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

/* One output feature for up to TILE tokens. */
static void matmul_row(const struct kn_matmul *job, size_t row, const float *x, size_t ld_x, size_t n, float *out)
{
	const struct kn_mat *w = job->w;
	double acc[TILE] = { 0 };
	float chunk[REF_CHUNK];

	for (size_t c = 0; c < w->cols; c += REF_CHUNK) {
		size_t len = w->cols - c < REF_CHUNK ? w->cols - c : REF_CHUNK;

		read_row(w, row, c, len, chunk);
		for (size_t i = 0; i < n; i++)
			acc[i] += dot(chunk, x + i * ld_x + c, len);
	}
	for (size_t i = 0; i < n; i++) {
		float *o = out + i * job->ld_out + row;
		double y = acc[i] + (job->bias ? job->bias[row] : 0);

		*o = (float)(job->flags & KN_ACCUMULATE ? *o + y : y);
	}
}

void ref_matmul(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
                size_t n)
{
	(void)be;
	for (size_t j = 0; j < n_jobs; j++) {
		for (size_t i = 0; i < n; i += TILE) {
			size_t tile = n - i < TILE ? n - i : TILE;

			for (size_t row = 0; row < jobs[j].w->rows; row++)
				matmul_row(&jobs[j], row, x + i * ld_x, ld_x, tile, jobs[j].out + i * jobs[j].ld_out);
		}
	}
}
