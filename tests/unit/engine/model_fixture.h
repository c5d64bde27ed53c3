/* Stored references of tests/fixtures/models and ways to run a model over them. */
#ifndef MODEL_FIXTURE_H
#define MODEL_FIXTURE_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels.h"
#include "kv/kv.h"
#include "model/model.h"
#include "test.h"
#include "weights/weights.h"

static const char *const fixture_models[] = {
	"llama",       "qwen2",          "qwen3",   "qwen3-yarn",         "qwen3_moe",   "mistral",
	"deepseek_v3", "glm4_moe",       "gpt_oss", "hunyuan_v1_dense",   "gemma3_text", "phi3",
	"ernie4_5",    "hunyuan_v1_moe", "olmo2",   "formats/qwen3_next",
};
enum { N_FIXTURE_MODELS = sizeof(fixture_models) / sizeof(fixture_models[0]), N_PROMPTS = 3 };

/* One prompt's reference. Of a long prompt the logits are kept at some positions only: whoever compares asks by
 * position (reference_row), or for all that are kept (compare_kept). A test may lower n_ids to compute fewer tokens. */
struct reference {
	int32_t ids[512], gen[64];
	int32_t kept[512]; /* positions, ascending, with the first and the last */
	uint32_t n_ids, n_gen, n_vocab, n_kept;
	const float *logits; /* [n_kept, n_vocab], borrowed from the open file */
};

static inline uint32_t read_ids(const struct eng_weights *w, const char *name, int32_t *ids, size_t max)
{
	const struct eng_tensor *t = eng_weights_find(w, name);

	assert_non_null(t);
	assert_string_equal(t->dtype_name, "I64");
	assert_true(t->shape[0] <= max);
	for (uint64_t i = 0; i < t->shape[0]; i++) {
		int64_t v;

		memcpy(&v, (const char *)t->data + i * sizeof(v), sizeof(v));
		ids[i] = (int32_t)v;
	}
	return (uint32_t)t->shape[0];
}

static inline void read_reference(const struct eng_weights *w, int prompt, struct reference *ref)
{
	const struct eng_tensor *t;
	char name[32];

	(void)snprintf(name, sizeof(name), "ids_%d", prompt);
	ref->n_ids = read_ids(w, name, ref->ids, 512);
	(void)snprintf(name, sizeof(name), "gen_%d", prompt);
	ref->n_gen = read_ids(w, name, ref->gen, 64);
	(void)snprintf(name, sizeof(name), "rows_%d", prompt);
	ref->n_kept = ref->n_ids;
	for (uint32_t i = 0; i < ref->n_ids; i++)
		ref->kept[i] = (int32_t)i;
	if (eng_weights_find(w, name))
		ref->n_kept = read_ids(w, name, ref->kept, 512);
	assert_in_range(ref->n_kept, 1, ref->n_ids);
	for (uint32_t i = 1; i < ref->n_kept; i++)
		assert_true(ref->kept[i] > ref->kept[i - 1]);
	assert_int_equal(ref->kept[0], 0);
	assert_int_equal(ref->kept[ref->n_kept - 1], ref->n_ids - 1);
	(void)snprintf(name, sizeof(name), "logits_%d", prompt);
	t = eng_weights_find(w, name);
	assert_non_null(t);
	assert_int_equal(t->dtype, KN_F32);
	assert_int_equal(t->shape[0], ref->n_kept);
	ref->n_vocab = (uint32_t)t->shape[1];
	ref->logits = t->data;
}

/* The logits after the token at position, or NULL where they were not kept. */
static inline const float *reference_row(const struct reference *ref, uint32_t position)
{
	for (uint32_t i = 0; i < ref->n_kept; i++) {
		if (ref->kept[i] == (int32_t)position)
			return ref->logits + (size_t)i * ref->n_vocab;
	}
	return NULL;
}

/* "qwen3" is among models/, "formats/qwen3-fp8" says where it is. */
static inline const char *fixture_folder(const char *model)
{
	return strchr(model, '/') ? "" : "models/";
}

static inline struct eng_weights *open_references(const char *model)
{
	struct eng_weights *w;
	struct err err = { 0 };
	char path[256];

	(void)snprintf(path, sizeof(path), "%s%s/expected.safetensors", fixture_folder(model), model);
	if (eng_weights_open(test_fixture(path), &w, &err) < 0)
		fail_msg("%s", err_text(&err));
	return w;
}

static inline struct eng_model *open_model(const char *path, struct kn_backend *be)
{
	struct eng_model *m;
	struct err err = { 0 };

	if (eng_model_open(path, true, be, &m, &err) < 0)
		fail_msg("%s", err_text(&err));
	return m;
}

static inline struct eng_model *open_fixture_model(const char *name, struct kn_backend *be)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s%s", fixture_folder(name), name);
	return open_model(test_fixture(path), be);
}

static inline struct eng_runner *new_runner(const struct eng_model *m, uint32_t n_pages, uint32_t page_tokens,
                                            uint32_t max_tokens)
{
	const struct eng_runner_config config = { .n_pages = n_pages,
		                                  .page_tokens = page_tokens,
		                                  .max_tokens = max_tokens,
		                                  .max_outputs = max_tokens,
		                                  .kv_dtype = KN_F32,
		                                  .n_states = 8 };
	struct eng_runner *r;
	struct err err = { 0 };

	if (eng_runner_new(m, &config, &r, &err) < 0)
		fail_msg("%s", err_text(&err));
	return r;
}

static inline const float *step(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n)
{
	const float *rows;
	struct err err = { 0 };

	if (eng_runner_step(r, seqs, n, &rows, &err) < 0)
		fail_msg("%s", err_text(&err));
	return rows;
}

struct difference {
	double max_abs, rel_l2;
};

/* Sums for a difference over several rows. */
struct difference_sums {
	double max_abs, diff, norm;
};

static inline void add_difference(struct difference_sums *s, const float *a, const float *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double e = fabs((double)a[i] - b[i]);

		if (!(e <= s->max_abs)) /* a NaN stays */
			s->max_abs = e;
		s->diff += e * e;
		s->norm += (double)b[i] * b[i];
	}
}

static inline struct difference compare(const float *a, const float *b, size_t n)
{
	struct difference_sums s = { 0, 0, 0 };

	add_difference(&s, a, b, n);
	return (struct difference){ s.max_abs, sqrt(s.diff / s.norm) };
}

/* rows [n_ids, n_vocab] of all positions against those that are kept, as one. */
static inline struct difference compare_kept(const float *rows, const struct reference *ref)
{
	struct difference_sums s = { 0, 0, 0 };

	for (uint32_t i = 0; i < ref->n_ids; i++) {
		const float *kept = reference_row(ref, i);

		if (kept)
			add_difference(&s, rows + (size_t)i * ref->n_vocab, kept, ref->n_vocab);
	}
	return (struct difference){ s.max_abs, sqrt(s.diff / s.norm) };
}

static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

enum { MAX_KEPT = 512 };

/* The relative difference of each kept row; rows as for compare_kept. Returns how many there are. */
static inline uint32_t kept_differences(const float *rows, const struct reference *ref, double ret[static MAX_KEPT])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < ref->n_ids; i++) {
		const float *kept = reference_row(ref, i);

		if (kept)
			ret[n++] = compare(rows + (size_t)i * ref->n_vocab, kept, ref->n_vocab).rel_l2;
	}
	return n;
}

/* The one that half of them are better than. */
static inline double median(double *values, uint32_t n)
{
	qsort(values, n, sizeof(values[0]), by_value);
	return values[n / 2];
}

static inline int32_t argmax(const float *x, uint32_t n)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < n; i++) {
		if (x[i] > x[best])
			best = i;
	}
	return (int32_t)best;
}

#endif
