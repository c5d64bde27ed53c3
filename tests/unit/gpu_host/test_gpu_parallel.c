/* Models on several devices that compute them together, over launchers in plain loops: every architecture, divided by
 * heads and columns and, where it has experts, by those. In float32 the results are the reference's but for the order
 * of sums; what cannot be divided is refused with a reason. */
#include <errno.h>

#include "../gpu/gpu_models.h"

struct parallel_case {
	const char *model;
	uint32_t n;
	bool by_expert;
};

/* Tiny routers decide between near ones more often when activations are rounded. */
static double tolerance(const char *model)
{
	return strcmp(model, "gpt_oss") == 0 || strcmp(model, "formats/qwen3_next") == 0 ? 5e-2 : 2e-2;
}

static void devices_agree_with_the_reference(void **state)
{
	const struct parallel_case *p = *state;
	struct gpu_case c = { .model = p->model,
		              .exact = true,
		              .max_piece = 40,
		              .n_seqs = 5,
		              .max_tokens = 40,
		              .tolerance = 1e-4,
		              .n_devices = p->n,
		              .by_expert = p->by_expert };

	check_model(&c);
	c.exact = false;
	c.max_piece = 30;
	c.n_seqs = 4;
	c.tolerance = tolerance(p->model);
	check_model(&c);
	c.max_piece = 1;
	c.no_fusion = true;
	check_model(&c);
}

/* Weights that stay in the types of their files. Products of many rows have those in eight bits, too, where weights are
 * FP8 (test_gpu_fp8.c). */
static void formats_are_divided_between_blocks(void **state)
{
	const struct parallel_case *p = *state;
	struct gpu_case c = { .model = p->model,
		              .max_piece = 30,
		              .n_seqs = 2,
		              .max_tokens = 30,
		              .tolerance = strstr(p->model, "fp8") ? 0.15 : 5e-2,
		              .n_devices = p->n,
		              .by_expert = p->by_expert };

	check_model(&c);
	c.max_piece = 1;
	c.tolerance = 5e-2;
	check_model(&c);
}

static struct kn_backend *open_devices(uint32_t n, bool exact, bool by_expert)
{
	const struct gpu_case c = { .exact = exact, .n_devices = n, .by_expert = by_expert };

	return open_gpu(&c);
}

static void what_cannot_be_divided_is_refused(void **state)
{
	static const struct {
		const char *model;
		uint32_t n;
		bool by_expert, exact;
		const char *words;
	} cases[] = {
		{ "models/qwen3", 3, false, true, "4 attention heads cannot be divided among 3 devices" },
		{ "models/qwen3", 8, false, true, "4 attention heads cannot be divided among 8 devices" },
		{ "models/olmo2", 4, false, true, "a norm over all of 2 key/value heads" },
		{ "formats/qwen3_next", 4, false, true, "2 heads of linear attention" },
		{ "formats/bert-embedding", 2, false, true, "an encoder is computed on one device" },
		{ "formats/gpt_oss-mxfp4", 4, false, false, "MXFP4, 32 to a block, cannot be divided among 4" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct kn_backend *be = open_devices(cases[i].n, cases[i].exact, cases[i].by_expert);
		struct eng_model *m = NULL;
		struct err err = { 0 };

		assert_int_equal(eng_model_open(test_fixture(cases[i].model), cases[i].exact, be, &m, &err), -ENOTSUP);
		if (!strstr(err_text(&err), cases[i].words))
			fail_msg("%s", err_text(&err));
		assert_null(m);
		kn_backend_close(be);
	}
}

static void devices_are_named_once(void **state)
{
	static const uint32_t twice[] = { 0, 1, 0 };
	const struct kn_config config = { .max_tokens = 8, .devices = twice, .n_devices = 3 };
	struct kn_backend *be = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(gpu_backend_open("gpu-test", &config, NULL, &be, &err), -EINVAL);
	assert_non_null(strstr(err_text(&err), "device 0 twice"));
	assert_null(be);
}

/* What the devices have together is the model, but for what each has. */
static void shares_are_smaller(void **state)
{
	struct kn_backend *one = open_devices(1, true, false), *four = open_devices(4, true, false);
	const struct eng_runner_config config = {
		.n_pages = 8, .page_tokens = GPU_PAGE, .max_tokens = 16, .max_outputs = 4, .kv_dtype = KN_F32
	};
	const struct eng_model_info *a, *b;
	struct eng_model *whole, *parts;
	struct eng_runner *r, *rs;

	(void)state;
	assert_int_equal(eng_model_open(test_fixture("models/deepseek_v3"), true, one, &whole, NULL), 0);
	assert_int_equal(eng_model_open(test_fixture("models/deepseek_v3"), true, four, &parts, NULL), 0);
	a = eng_model_info(whole);
	b = eng_model_info(parts);
	assert_int_equal(a->n_params, b->n_params);
	assert_true(b->weight_bytes > a->weight_bytes && b->weight_bytes < 2 * a->weight_bytes);
	assert_int_equal(b->kv_bytes_per_token, 4 * a->kv_bytes_per_token); /* the latent is everybody's */
	assert_int_equal(eng_runner_new(whole, &config, &r, NULL), 0);
	assert_int_equal(eng_runner_new(parts, &config, &rs, NULL), 0);
	assert_int_equal(eng_runner_page_bytes(rs), 4 * eng_runner_page_bytes(r));
	eng_runner_free(r);
	eng_runner_free(rs);
	eng_model_close(whole);
	eng_model_close(parts);
	kn_backend_close(one);
	kn_backend_close(four);
}

/* Pages go out and come back with all devices' parts. */
static void pages_are_everybodys(void **state)
{
	struct kn_backend *be = open_devices(2, true, false);
	const struct eng_runner_config config = {
		.n_pages = 4, .page_tokens = GPU_PAGE, .max_tokens = 16, .max_outputs = 4, .kv_dtype = KN_F32
	};
	static const int32_t ids[] = { 5, 9, 13, 200, 7, 41, 99, 300, 12 };
	const uint32_t before[] = { 0, 1 }, after[] = { 2, 3 };
	struct eng_step_seq s = { .pages = before, .ids = ids, .n_ids = 8, .n_out = 1 };
	struct eng_model *m;
	struct eng_runner *r;
	const float *rows;
	float want[640];
	char *page;

	(void)state;
	assert_int_equal(eng_model_open(test_fixture("models/qwen3"), true, be, &m, NULL), 0);
	assert_int_equal(eng_runner_new(m, &config, &r, NULL), 0);
	assert_int_equal(eng_runner_step(r, &s, 1, &rows, NULL), 0);
	page = malloc(eng_runner_page_bytes(r));
	assert_non_null(page);
	eng_runner_page_read(r, 0, page);
	s = (struct eng_step_seq){ .pages = before, .ids = ids + 8, .n_ids = 1, .pos = 8, .n_out = 1 };
	assert_int_equal(eng_runner_step(r, &s, 1, &rows, NULL), 0);
	memcpy(want, rows, sizeof(want));
	eng_runner_page_write(r, 2, page);
	s.pages = after;
	assert_int_equal(eng_runner_step(r, &s, 1, &rows, NULL), 0);
	assert_memory_equal(want, rows, sizeof(want));
	free(page);
	eng_runner_free(r);
	eng_model_close(m);
	kn_backend_close(be);
}

/* A rank that fails: the step is an error, and so is every one after it; nobody waits for ever. */
static void a_failure_is_everybodys(void **state)
{
	struct kn_backend *be = open_devices(2, true, false);
	const struct eng_runner_config config = {
		.n_pages = 4, .page_tokens = GPU_PAGE, .max_tokens = 16, .max_outputs = 4, .kv_dtype = KN_F32
	};
	static const int32_t ids[] = { 5, 9, 13 };
	const uint32_t pages[] = { 0 };
	const struct eng_step_seq s = { .pages = pages, .ids = ids, .n_ids = 3, .n_out = 1 };
	float nowhere[4];
	struct eng_model *m;
	struct eng_runner *r;
	const float *rows;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_model_open(test_fixture("models/qwen3"), true, be, &m, NULL), 0);
	assert_int_equal(eng_runner_new(m, &config, &r, NULL), 0);
	assert_int_equal(eng_runner_step(r, &s, 1, &rows, NULL), 0);
	/* Memory that is no device's: the second rank gives up its next step. */
	be->ranks[1]->ops->clear(be->ranks[1], nowhere, 4, 1, 4);
	assert_true(eng_runner_step(r, &s, 1, &rows, &err) < 0);
	assert_true(eng_runner_step(r, &s, 1, &rows, &err) < 0);
	eng_runner_free(r);
	eng_model_close(m);
	kn_backend_close(be);
}

static bool is_mixture(const char *model)
{
	static const char *const mixtures[] = { "deepseek_v3", "glm4_moe",       "gpt_oss",
		                                "qwen3_moe",   "hunyuan_v1_moe", "formats/qwen3_next" };

	for (size_t i = 0; i < sizeof(mixtures) / sizeof(mixtures[0]); i++) {
		if (strcmp(mixtures[i], model) == 0)
			return true;
	}
	return false;
}

int main(void)
{
	enum { MOST = 4 * N_FIXTURE_MODELS + 16 };
	static struct CMUnitTest tests[MOST];
	static struct parallel_case cases[MOST];
	static char names[MOST][80];
	static const struct parallel_case formats[] = { { "formats/qwen3-fp8", 2, false },
		                                        { "formats/qwen3-fp8", 4, false },
		                                        { "formats/gpt_oss-mxfp4", 2, false },
		                                        { "formats/gpt_oss-mxfp4", 4, true } };
	size_t n = 0, n_cases;

	for (int i = 0; i < N_FIXTURE_MODELS; i++) {
		const char *model = fixture_models[i];

		for (uint32_t k = 2; k <= 4; k += 2) {
			/* Two K/V heads are not normed together by four, nor two heads of linear attention divided. */
			if (k == 4 && (strcmp(model, "olmo2") == 0 || strcmp(model, "formats/qwen3_next") == 0))
				continue;
			cases[n++] = (struct parallel_case){ model, k, false };
			if (is_mixture(model))
				cases[n++] = (struct parallel_case){ model, k, true };
		}
	}
	n_cases = n;
	for (size_t i = 0; i < n_cases; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%s on %u devices%s", cases[i].model, cases[i].n,
		               cases[i].by_expert ? ", by expert" : "");
		tests[i] = (struct CMUnitTest){ .name = names[i],
			                        .test_func = devices_agree_with_the_reference,
			                        .initial_state = &cases[i] };
	}
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++, n++) {
		(void)snprintf(names[n], sizeof(names[n]), "%s on %u devices%s", formats[i].model, formats[i].n,
		               formats[i].by_expert ? ", by expert" : "");
		tests[n] = (struct CMUnitTest){ .name = names[n],
			                        .test_func = formats_are_divided_between_blocks,
			                        .initial_state = (void *)&formats[i] };
	}
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(what_cannot_be_divided_is_refused);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(devices_are_named_once);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(shares_are_smaller);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(pages_are_everybodys);
	tests[n++] = (struct CMUnitTest)cmocka_unit_test(a_failure_is_everybodys);
	return _cmocka_run_group_tests("models on several devices", tests, n, NULL, NULL);
}
