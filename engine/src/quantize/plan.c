/* The plan's rows: collecting tensors, and making the bytes of one from its source, rows in parallel. */
#include "quantize/quantize_internal.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threadpool.h"

void qz_note(const struct qz_plan *plan, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!plan->options->note)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	plan->options->note(plan->options->note_arg, text);
}

struct qz_tensor *qz_plan_add(struct qz_plan *plan, const char *name, uint32_t n_dims, const uint64_t *shape)
{
	struct qz_tensor *t;

	if (plan->n_tensors == plan->cap_tensors) {
		size_t cap = plan->cap_tensors ? 2 * plan->cap_tensors : 256;

		t = reallocarray(plan->tensors, cap, sizeof(*t));
		if (!t)
			return NULL;
		plan->tensors = t;
		plan->cap_tensors = cap;
	}
	t = &plan->tensors[plan->n_tensors];
	*t = (struct qz_tensor){ .n_dims = n_dims, .rows = 1, .cols = 1, .order = plan->n_tensors, .plan = plan };
	t->name = eng_arena_copy(&plan->arena, name, strlen(name));
	if (!t->name)
		return NULL;
	for (uint32_t i = 0; i < n_dims; i++) {
		t->shape[i] = shape[i];
		if (i + 1 < n_dims)
			t->rows *= shape[i];
	}
	if (n_dims)
		t->cols = shape[n_dims - 1];
	if (t->rows && t->cols > plan->max_cols)
		plan->max_cols = t->cols;
	t->view = (struct qz_view){ .part_rows = t->rows ? t->rows : 1,
		                    .block_rows = t->rows ? t->rows : 1,
		                    .row_stride = t->cols,
		                    .col_stride = 1 };
	t->layer = strncmp(name, "blk.", 4) == 0     ? strtoll(name + 4, NULL, 10)
	           : strncmp(name, "output", 6) == 0 ? INT64_MAX
	                                             : -1;
	plan->n_tensors++;
	return t;
}

int qz_from_tensor(struct qz_tensor *t, const struct eng_tensor *source)
{
	t->parts = (const struct eng_tensor **)calloc(1, sizeof(*t->parts));
	if (!t->parts)
		return -ENOMEM;
	t->parts[0] = source;
	t->n_parts = 1;
	return 0;
}

int qz_plan_add_values(struct qz_plan *plan, const char *name, const float *values, uint64_t n)
{
	float *copy = calloc(n ? n : 1, sizeof(*copy));
	struct qz_tensor *t = copy ? qz_plan_add(plan, name, 1, &n) : NULL;

	if (!t) {
		free(copy);
		return -ENOMEM;
	}
	memcpy(copy, values, n * sizeof(*copy));
	t->values = copy;
	return 0;
}

/* ---- Rows ------------------------------------------------------------------------------------------- */

/* n values of the source from element `start` on, `stride` apart. Strides other than 1 only ever come with
 * types of one value per block. */
static void read_elements(const struct eng_tensor *source, uint64_t start, uint64_t stride, float *dst, uint64_t n)
{
	const struct kn_dtype_info *info = kn_dtype_info(source->dtype);
	const uint8_t *data = source->data;

	if (stride == 1) {
		kn_dequantize(source->dtype, data + start / info->block_elems * info->block_bytes, dst, n);
		return;
	}
	for (uint64_t i = 0; i < n; i++)
		kn_dequantize(source->dtype, data + (start + i * stride) * info->block_bytes, dst + i, 1);
}

static void read_row(const struct qz_tensor *t, uint64_t r, float *dst)
{
	const struct qz_view *v = &t->view;
	uint64_t i = r % v->part_rows, at;

	if (t->values) {
		memcpy(dst, t->values + r * t->cols, t->cols * sizeof(*dst));
		return;
	}
	if (t->random_seed) {
		qz_random_row(t->random_seed, r, dst, t->cols);
		return;
	}
	if (t->source_row)
		i = t->source_row[r];
	if (v->permute) { /* pairs (j, j + half) of a head become neighbours */
		uint64_t head = i / v->permute, k = i % v->permute;

		i = head * v->permute + (k & 1) * (v->permute / 2) + k / 2;
	}
	at = v->offset + i / v->block_rows * v->block_stride + i % v->block_rows * v->row_stride;
	read_elements(t->parts[r / v->part_rows], at, v->col_stride, dst, t->cols);
	if (v->add != 0.0f) {
		for (uint64_t c = 0; c < t->cols; c++)
			dst[c] += v->add;
	}
}

struct job {
	const struct qz_tensor *t;
	uint8_t *dst;
	size_t row_bytes;
	_Atomic uint64_t bad_row; /* 1 + a row with a value that is not finite; 0: none */
};

static bool all_finite(const float *x, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		if (!isfinite(x[i]))
			return false;
	}
	return true;
}

static void make_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	struct job *job = arg;
	const struct qz_tensor *t = job->t;
	float *row = t->plan->scratch + worker * t->plan->max_cols;

	for (size_t r = begin; r < end; r++) {
		read_row(t, r, row);
		if (!all_finite(row, t->cols))
			atomic_store(&job->bad_row, r + 1);
		kn_quantize(t->dtype, row, job->dst + r * job->row_bytes, t->cols);
	}
}

/* eng_gguf_make_fn */
static int make_tensor(void *arg, void *dst, uint64_t size, struct err *err)
{
	const struct qz_tensor *t = arg;
	struct job job = { .t = t, .dst = dst, .row_bytes = kn_row_bytes(t->dtype, t->cols) };
	size_t grain = 65536 / (t->cols ? t->cols : 1) + 1;

	if (size == 0)
		return 0;
	base_threadpool_for(t->plan->pool, t->rows, grain, make_rows, &job);
	if (job.bad_row)
		return err_set(err, -EBADMSG, "tensor '%s': row %llu has a value that is not finite", t->name,
		               (unsigned long long)(job.bad_row - 1));
	return 0;
}

int qz_plan_write(struct qz_plan *plan, struct err *err)
{
	int r;

	plan->scratch = calloc(plan->max_cols + 1, base_threadpool_size(plan->pool) * sizeof(*plan->scratch));
	if (!plan->scratch)
		return err_set(err, -ENOMEM, "%s: out of memory", plan->options->output_path);
	for (size_t i = 0; i < plan->n_tensors; i++) {
		struct qz_tensor *t = &plan->tensors[i];

		r = eng_gguf_add_tensor_made(plan->writer, t->name, t->dtype, t->n_dims, t->shape, make_tensor, t);
		if (r < 0)
			return err_set(err, r, "tensor '%s': %s", t->name,
			               r == -EEXIST ? "two tensors of the model become this one" : strerror(-r));
	}
	return eng_gguf_write(plan->writer, plan->options->output_path, err);
}

/* ---- Keys ------------------------------------------------------------------------------------------- */

static const char *full_key(char buf[128], const char *arch, const char *rest)
{
	(void)snprintf(buf, 128, "%s.%s", arch, rest);
	return buf;
}

int qz_key_u32(struct qz_plan *plan, const char *arch, const char *rest, uint32_t value)
{
	char key[128];

	return eng_gguf_add_u32(plan->writer, full_key(key, arch, rest), value);
}

int qz_key_f32(struct qz_plan *plan, const char *arch, const char *rest, double value)
{
	char key[128];

	return eng_gguf_add_f32(plan->writer, full_key(key, arch, rest), (float)value);
}

int qz_key_text(struct qz_plan *plan, const char *arch, const char *rest, const char *value)
{
	char key[128];

	return eng_gguf_add_string(plan->writer, full_key(key, arch, rest), value, strlen(value));
}
