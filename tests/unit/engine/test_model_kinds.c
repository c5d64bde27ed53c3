/* Embedding models, and models of random weights. */
#include <errno.h>
#include <time.h>

#include "base/json.h"
#include "model_fixture.h"
#include "ref_backend.h"

static void last_token_embeddings_agree(void **state)
{
	struct eng_model *m = open_model(test_fixture("formats/qwen3-embedding"), be);
	struct eng_runner *r = new_runner(m, 16, 16, 128);
	json_t *cases, *c, *v;
	uint32_t pages[16];
	size_t i, j;

	(void)state;
	assert_int_equal(eng_model_info(m)->pooling, ENG_POOL_LAST);
	for (i = 0; i < 16; i++)
		pages[i] = (uint32_t)i;
	assert_int_equal(
	        base_json_read_file(test_fixture("formats/qwen3-embedding/expected.json"), 1 << 20, &cases, NULL), 0);
	assert_true(json_array_size(cases) > 0);
	json_array_foreach(cases, i, c)
	{
		struct eng_step_seq seq = { .pages = pages, .n_out = 1, .output = ENG_OUT_HIDDEN };
		int32_t ids[128];
		const float *row;
		double norm = 0;

		json_array_foreach(json_object_get(c, "ids"), j, v) ids[j] = (int32_t)json_integer_value(v);
		seq.ids = ids;
		seq.n_ids = (uint32_t)json_array_size(json_object_get(c, "ids"));
		row = step(r, &seq, 1);
		for (j = 0; j < eng_model_info(m)->n_embd; j++)
			norm += (double)row[j] * row[j];
		json_array_foreach(json_object_get(c, "embedding"), j, v)
		        assert_true(fabs(row[j] / sqrt(norm) - json_real_value(v)) < 1e-5);
		assert_int_equal(j, eng_model_info(m)->n_embd);
	}
	json_decref(cases);
	eng_runner_free(r);
	eng_model_close(m);
}

static void an_embedding_model_has_no_logits(void **state)
{
	struct eng_model *m = open_model(test_fixture("formats/qwen3-embedding"), be);
	struct eng_runner *r = new_runner(m, 1, 16, 1);
	const uint32_t page = 0;
	const int32_t id = 5;
	const struct eng_step_seq seq = { .pages = &page, .ids = &id, .n_ids = 1, .n_out = 1 };
	const float *rows;

	(void)state;
	assert_int_equal(eng_runner_step(r, &seq, 1, &rows, NULL), -ENOTSUP);
	eng_runner_free(r);
	eng_model_close(m);
}

static void a_random_model_has_its_shape_and_computes(void **state)
{
	const uint32_t page = 0;
	const int32_t id = 12345;
	const struct eng_step_seq seq = {
		.pages = &page, .ids = &id, .n_ids = 1, .n_out = 1, .output = ENG_OUT_HIDDEN
	};
	const struct eng_model_info *info;
	struct eng_model *m;
	struct eng_runner *r;
	struct timespec t0, t1;
	const float *row;
	double sum = 0;

	(void)state;
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	assert_int_equal(eng_model_random("qwen3-0.6b", KN_Q4_0, be, &m, NULL), 0);
	(void)clock_gettime(CLOCK_MONOTONIC, &t1);
	print_message("made in %.2f s\n", (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec));
	info = eng_model_info(m);
	assert_string_equal(info->arch, "qwen3");
	assert_int_equal(info->n_params, 596049920); /* as published */
	assert_int_equal(info->kv_bytes_per_token, 28 * 2 * 8 * 128 * 2);
	r = new_runner(m, 1, 16, 1);
	row = step(r, &seq, 1);
	for (uint32_t i = 0; i < info->n_embd; i++)
		sum += (double)row[i] * row[i];
	assert_true(fabs(sum / info->n_embd - 1) < 1e-3); /* normed by ones */
	eng_runner_free(r);
	eng_model_close(m);
}

static void a_random_model_may_be_cut_to_its_first_layers(void **state)
{
	struct eng_model *m = NULL;
	struct err err;

	(void)state;
	assert_int_equal(eng_model_random("qwen3-0.6b:1", KN_Q4_0, be, &m, NULL), 0);
	assert_int_equal(eng_model_info(m)->n_layer, 1);
	eng_model_close(m);
	m = NULL;
	assert_int_equal(eng_model_random("qwen3-0.6b:29", KN_Q4_0, be, &m, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "1 to 28 layers"));
	assert_int_equal(eng_model_random("qwen3-0.6b:", KN_Q4_0, be, &m, &err), -EINVAL);
	assert_null(m);
}

static void a_type_that_a_backend_lacks_is_refused(void **state)
{
	struct eng_model *m = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_model_random("qwen3-0.6b", KN_FP8_128, be, &m, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "does not take FP8"));
	assert_null(m);
}

static void an_unknown_random_shape_lists_the_known(void **state)
{
	struct eng_model *m = NULL;
	struct err err;

	(void)state;
	assert_int_equal(eng_model_random("qwen9", KN_BF16, be, &m, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "qwen3-0.6b, qwen3-1.7b, qwen3-8b, qwen3-30b-a3b"));
	assert_null(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(last_token_embeddings_agree),
		cmocka_unit_test(an_embedding_model_has_no_logits),
		cmocka_unit_test(a_random_model_has_its_shape_and_computes),
		cmocka_unit_test(a_random_model_may_be_cut_to_its_first_layers),
		cmocka_unit_test(a_type_that_a_backend_lacks_is_refused),
		cmocka_unit_test(an_unknown_random_shape_lists_the_known),
	};

	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
