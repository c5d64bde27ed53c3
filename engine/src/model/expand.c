/* Weights in quantizations that not every backend's kernels take, made into ones that all take: FP8 with a scale for
 * each block of 128 x 128 (DeepSeek, Qwen), and MXFP4 (gpt-oss: 32 values of 4 bits share a power of two).
 *
 * A model that is computed exactly gets float32, which holds both without rounding. Others get Q8_0: MXFP4 fits it
 * exactly, since twice a 4-bit value is a whole number up to 12 and its scale a power of two; an FP8 value has three
 * bits of mantissa and is rounded to a 254th of the largest of its 32 neighbours. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/threadpool.h"
#include "model/load.h"

enum { Q8_BLOCK = 32, Q8_BYTES = 34, MX_BLOCK = 32, MX_BYTES = 16 };

/* The type that a matrix of `cols` columns is expanded to. */
static enum kn_dtype dtype_for(const struct loader *l, uint64_t cols)
{
	if (l->exact)
		return KN_F32;
	return cols % Q8_BLOCK == 0 ? KN_Q8_0 : KN_BF16;
}

/* ---- Rows, by all cores ---- */

/* A matrix being made; each thread has a line of cols values. */
struct rows {
	enum kn_dtype dtype;
	size_t cols, row_bytes;
	char *out;
	float *lines;
	const void *data, *scales; /* of the file: FP8 one scale for each block, MXFP4 [rows of the file, cols / 32] */
	const uint32_t *block;     /* FP8 */
	uint64_t first, step;      /* which rows of the file; step: MXFP4 only */
	size_t line_blocks, first_block; /* MXFP4: of a row of the file, which may be longer than cols */
};

static int for_rows(const struct loader *l, const char *name, struct rows *rows, uint64_t n, base_threadpool_fn fn)
{
	enum { GRAIN_VALUES = 64 << 10 };
	size_t grain = GRAIN_VALUES / rows->cols + 1;
	int r = *l->pool ? 0 : base_threadpool_new(0, l->pool, l->err);

	if (r < 0)
		return r;
	rows->lines = calloc(rows->cols, base_threadpool_size(*l->pool) * sizeof(*rows->lines));
	if (!rows->lines)
		return model_load_no_memory(l, name);
	base_threadpool_for(*l->pool, n, grain, fn, rows);
	free(rows->lines);
	return 0;
}

/* ---- FP8 ---- */

static uint64_t blocks_of(uint64_t n, uint32_t block)
{
	return (n + block - 1) / block;
}

/* The scales beside t: float32, one for each block. */
static int find_scales(const struct loader *l, const struct eng_tensor *t, const struct eng_tensor **ret_scales)
{
	const uint32_t *block = l->hp->fp8_block;
	const struct eng_tensor *s;
	char name[NAME_SIZE + 16];

	(void)snprintf(name, sizeof(name), "%s_scale_inv", t->name);
	s = eng_weights_find(l->m->weights, name);
	if (!s)
		return err_set(l->err, -ENOENT, "%s: tensor %s is missing", l->path, name);
	if (eng_weights_await(l->m->weights, s, l->err) < 0)
		return -EIO;
	if (block[0] == 0)
		return err_set(l->err, -ENOTSUP, "%s: %s: type %s, but the configuration has no quantization_config",
		               l->path, t->name, t->dtype_name);
	if (t->n_dims != 2 || s->dtype != KN_F32 || s->n_dims != 2 || s->shape[0] != blocks_of(t->shape[0], block[0]) ||
	    s->shape[1] != blocks_of(t->shape[1], block[1]))
		return err_set(l->err, -EINVAL,
		               "%s: %s: expected F32 [%" PRIu64 ", %" PRIu64 "], a scale for each block of %u x %u",
		               l->path, name, blocks_of(t->shape[0], block[0]), blocks_of(t->shape[1], block[1]),
		               block[0], block[1]);
	*ret_scales = s;
	return 0;
}

static void fp8_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct rows *m = arg;
	float *line = m->lines + worker * m->cols;
	uint64_t n_scales = blocks_of(m->cols, m->block[1]);

	for (size_t i = begin; i < end; i++) {
		uint64_t row = m->first + i;
		const char *scales = (const char *)m->scales + row / m->block[0] * n_scales * sizeof(float);

		kn_dequantize(KN_FP8_128, (const uint8_t *)m->data + row * m->cols, line, m->cols);
		for (size_t c = 0; c < m->cols; c++) {
			float scale;

			/* Mapped data may lie anywhere. */
			memcpy(&scale, scales + c / m->block[1] * sizeof(scale), sizeof(scale));
			line[c] *= scale;
		}
		kn_quantize(m->dtype, line, m->out + i * m->row_bytes, m->cols);
	}
}

int model_find_fp8(const struct loader *l, const struct eng_tensor *t, struct eng_tensor **ret)
{
	const struct eng_tensor *s = NULL;
	struct eng_tensor *found;
	int r = find_scales(l, t, &s);

	if (r < 0)
		return r;
	found = model_host_alloc(l->m, sizeof(*found));
	if (!found)
		return model_load_no_memory(l, t->name);
	*found = *t;
	found->dtype = KN_FP8_128;
	found->scales = s->data;
	*ret = found;
	return 0;
}

bool model_keeps_fp8(const struct loader *l)
{
	return !l->exact && l->hp->fp8_block[0] == 128 && l->hp->fp8_block[1] == 128 &&
	       kn_takes(l->m->backend, KN_FP8_128);
}

int model_expand_fp8(const struct loader *l, const struct eng_tensor *t, uint64_t from, uint64_t n,
                     const struct eng_tensor **ret_tensor)
{
	struct eng_tensor *made = model_host_alloc(l->m, sizeof(*made));
	struct rows rows;
	int r;

	if (!made)
		return model_load_no_memory(l, t->name);
	*made = *t;
	made->dtype = dtype_for(l, t->shape[1]);
	made->dtype_name = kn_dtype_info(made->dtype)->name;
	made->shape[0] = n;
	made->scales = NULL;
	rows = (struct rows){ .dtype = made->dtype,
		              .cols = t->shape[1],
		              .row_bytes = kn_row_bytes(made->dtype, t->shape[1]),
		              .data = t->data,
		              .scales = t->scales,
		              .block = l->hp->fp8_block,
		              .first = from };
	made->size_bytes = n * rows.row_bytes; /* at most 4 times what is mapped */
	made->data = rows.out = model_host_alloc(l->m, made->size_bytes);
	if (!rows.out)
		return model_load_no_memory(l, t->name);
	r = for_rows(l, t->name, &rows, n, fp8_rows);
	if (r == 0)
		*ret_tensor = made;
	return r;
}

/* ---- MXFP4 ---- */

static void mx_names(const char *name, char *blocks, char *scales)
{
	(void)snprintf(blocks, NAME_SIZE + 8, "%s_blocks", name);
	(void)snprintf(scales, NAME_SIZE + 8, "%s_scales", name);
}

bool model_expand_has_mxfp4(const struct loader *l, const char *name)
{
	char blocks[NAME_SIZE + 8], scales[NAME_SIZE + 8];

	mx_names(name, blocks, scales);
	return eng_weights_find(l->m->weights, blocks) && !eng_weights_find(l->m->weights, name);
}

/* U8 [n_expert, rows, cols / 32, 16] and U8 [n_expert, rows, cols / 32]. */
static int find_mx(const struct loader *l, const char *name, const uint64_t shape[3],
                   const struct eng_tensor **ret_blocks, const struct eng_tensor **ret_scales)
{
	char names[2][NAME_SIZE + 8];
	const struct eng_tensor *found[2];

	mx_names(name, names[0], names[1]);
	for (int i = 0; i < 2; i++) {
		const uint64_t want[4] = { shape[0], shape[1], shape[2] / MX_BLOCK, MX_BYTES };
		uint32_t n_dims = i == 0 ? 4 : 3;

		found[i] = eng_weights_find(l->m->weights, names[i]);
		if (!found[i])
			return err_set(l->err, -ENOENT, "%s: tensor %s is missing", l->path, names[i]);
		if (eng_weights_await(l->m->weights, found[i], l->err) < 0)
			return -EIO;
		if (strcmp(found[i]->dtype_name, "U8") != 0 || found[i]->n_dims != n_dims || shape[2] % MX_BLOCK != 0 ||
		    memcmp(found[i]->shape, want, n_dims * sizeof(*want)) != 0)
			return err_set(l->err, -EINVAL,
			               "%s: %s: expected U8 [%" PRIu64 ", %" PRIu64 ", %" PRIu64
			               "%s], blocks of %d values",
			               l->path, names[i], want[0], want[1], want[2], i == 0 ? ", 16" : "", MX_BLOCK);
	}
	*ret_blocks = found[0];
	*ret_scales = found[1];
	return 0;
}

/* Twice the value of 4 bits: sign, 2 of exponent, 1 of mantissa. */
static const int8_t e2m1_doubled[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* The scale of a block is 2^(bits - 127), 255: not a number. */
static float e8m0(uint8_t bits)
{
	return bits == 255 ? NAN : ldexpf(1, (int)bits - 127);
}

static void mx_row_f32(const uint8_t *blocks, const uint8_t *scales, size_t n_blocks, float *out)
{
	for (size_t b = 0; b < n_blocks; b++) {
		float half = e8m0(scales[b]) / 2;

		for (int i = 0; i < MX_BYTES; i++) {
			uint8_t pair = blocks[b * MX_BYTES + (size_t)i];

			*out++ = half * (float)e2m1_doubled[pair & 15];
			*out++ = half * (float)e2m1_doubled[pair >> 4];
		}
	}
}

/* Whether all the scales, halved, are normal or subnormal numbers of float16. */
static bool scales_fit_f16(const uint8_t *scales, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (scales[i] < 127 - 23 || scales[i] > 127 + 16)
			return false;
	}
	return true;
}

static void mx_row_q8(const uint8_t *blocks, const uint8_t *scales, size_t n_blocks, char *out)
{
	for (size_t b = 0; b < n_blocks; b++, out += Q8_BYTES) {
		float half = e8m0(scales[b]) / 2;
		int8_t *q = (int8_t *)out + 2;

		kn_quantize(KN_F16, &half, out, 1);
		for (int i = 0; i < MX_BYTES; i++) {
			uint8_t pair = blocks[b * MX_BYTES + (size_t)i];

			q[2 * i] = e2m1_doubled[pair & 15];
			q[2 * i + 1] = e2m1_doubled[pair >> 4];
		}
	}
}

/* As they are, in KN_MXFP4's order. */
static void mx_row_mx(const uint8_t *blocks, const uint8_t *scales, size_t n_blocks, char *out)
{
	for (size_t b = 0; b < n_blocks; b++, blocks += MX_BYTES) {
		uint8_t values[MX_BLOCK];

		for (int i = 0; i < MX_BLOCK; i++)
			values[i] = (uint8_t)(blocks[i / 2] >> i % 2 * 4 & 15);
		*out++ = (char)scales[b];
		for (int i = 0; i < MX_BYTES; i++)
			*out++ = (char)(values[i] | values[i + MX_BYTES] << 4);
	}
}

static void mx_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct rows *m = arg;
	float *line = m->lines + worker * m->cols;
	size_t n_blocks = m->cols / MX_BLOCK;

	for (size_t i = begin; i < end; i++) {
		uint64_t row = m->first + i * m->step;
		uint64_t block = row * m->line_blocks + m->first_block;
		const uint8_t *blocks = (const uint8_t *)m->data + block * MX_BYTES;
		const uint8_t *scales = (const uint8_t *)m->scales + block;

		if (m->dtype == KN_MXFP4) {
			mx_row_mx(blocks, scales, n_blocks, m->out + i * m->row_bytes);
		} else if (m->dtype == KN_Q8_0) {
			mx_row_q8(blocks, scales, n_blocks, m->out + i * m->row_bytes);
		} else {
			mx_row_f32(blocks, scales, n_blocks, line);
			kn_quantize(m->dtype, line, m->out + i * m->row_bytes, m->cols);
		}
	}
}

int model_expand_mxfp4(struct loader *l, const char *name, const uint64_t shape[3], uint64_t e, uint64_t first,
                       uint64_t step, uint32_t rows, struct span take, struct kn_mat *ret)
{
	const struct eng_tensor *blocks = NULL, *scales = NULL;
	size_t n_blocks, row_bytes, cols = take.n;
	struct rows m;
	int r = find_mx(l, name, shape, &blocks, &scales);

	if (r < 0)
		return r;
	if (take.first % MX_BLOCK || take.n % MX_BLOCK)
		return err_set(l->err, -ENOTSUP,
		               "%s: %s: rows of %" PRIu64
		               " values in MXFP4, %d to a block, cannot be divided among %u devices",
		               l->path, name, shape[2], MX_BLOCK, l->share.n);
	n_blocks = shape[2] / MX_BLOCK;
	*ret = (struct kn_mat){ .dtype = dtype_for(l, cols), .rows = rows, .cols = (uint32_t)cols };
	if (!l->exact && kn_takes(l->m->backend, KN_MXFP4))
		ret->dtype = KN_MXFP4;
	/* A scale that float16 cannot hold belongs to weights that round to nothing beside others, or to a damaged
	 * file. */
	if (ret->dtype == KN_Q8_0 &&
	    !scales_fit_f16((const uint8_t *)scales->data + e * shape[1] * n_blocks, shape[1] * n_blocks))
		ret->dtype = KN_BF16;
	row_bytes = kn_row_bytes(ret->dtype, cols);
	m = (struct rows){ .dtype = ret->dtype,
		           .cols = cols,
		           .row_bytes = row_bytes,
		           .out = model_host_alloc(l->m, rows * row_bytes),
		           .data = blocks->data,
		           .scales = scales->data,
		           .first = e * shape[1] + first,
		           .step = step,
		           .line_blocks = n_blocks,
		           .first_block = take.first / MX_BLOCK };
	if (!m.out)
		return model_load_no_memory(l, name);
	r = for_rows(l, name, &m, rows, mx_rows);
	if (r < 0)
		return r;
	ret->data = m.out;
	l->m->info.n_params += rows * cols;
	l->m->info.weight_bytes += rows * row_bytes;
	return model_mat(l->m, name, ret, l->err);
}
