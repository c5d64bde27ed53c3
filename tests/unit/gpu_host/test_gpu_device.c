/* Whole models on a GPU, where there are a plugin and a device: every architecture,
 * compared with the stored references. Tolerances as on the host (test_gpu_models.c); matrix units sum in another
 * order. */
#include "../gpu/gpu_models.h"

#include <errno.h>

static const char *const kinds[] = { "cuda", "hip" };
static const char *kind;

static int find_device(void **state)
{
	const struct kn_config config = { .max_tokens = GPU_TOKENS };
	struct kn_backend *be = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !kind; i++) {
		struct err err = { 0 };

		if (kn_backend_open(kinds[i], &config, &be, &err) == 0) {
			kind = kinds[i];
			kn_backend_close(be);
		} else {
			print_message("%s\n", err_text(&err));
		}
	}
	return 0;
}

/* Tiny routers decide between near ones more often. */
static bool is_wide(const char *model)
{
	return strcmp(model, "gpt_oss") == 0 || strcmp(model, "formats/qwen3_next") == 0;
}

static void stays_close_to_the_reference(void **state)
{
	struct gpu_case c = { .model = *state, .max_piece = 40, .n_seqs = 5 };

	if (!kind)
		skip();
	c.kind = kind;
	c.tolerance = is_wide(c.model) ? 5e-2 : 2e-2;
	check_model(&c);
	c.exact = true;
	c.tolerance = 1e-4;
	check_model(&c);
}

/* As in decoding: graphs of several sizes, replayed. */
static void many_sequences_share_a_step(void **state)
{
	struct gpu_case c = { .model = *state, .max_piece = 1, .n_seqs = 24, .max_tokens = 30, .tolerance = 3e-2 };

	if (!kind)
		skip();
	if (is_wide(c.model))
		c.tolerance = 5e-2;
	if (strcmp(c.model, "formats/qwen3_next") == 0)
		c.n_seqs = 8; /* as many states as a fixture's runner has */
	c.kind = kind;
	check_model(&c);
}

/* Weights that stay in the types of their files. Rows in eight bits have 3 bits of fraction (test_gpu_fp8.c). */
static void stays_close_in_its_own_type(void **state)
{
	struct gpu_case c = { .model = *state, .max_piece = 40, .n_seqs = 5, .tolerance = 0.15 };

	if (!kind)
		skip();
	if (strcmp(c.model, "formats/gpt_oss-mxfp4") == 0)
		c.tolerance = 5e-2;
	c.kind = kind;
	check_model(&c);
	c.rows.own = UINT32_MAX; /* by the library, where there are kernels of our own, too */
	check_model(&c);
	c.rows.own = 0;
	c.max_piece = 1;
	c.max_tokens = 30;
	c.tolerance = 5e-2;
	check_model(&c);
}

/* Those of $OCAI_TEST_DEVICES; tests/bench/gpu/parallel.py sets it. */
static uint32_t n_devices(void)
{
	const char *text = getenv("OCAI_TEST_DEVICES");

	return text ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

static bool is_divisible(const char *model, uint32_t n)
{
	/* Two K/V heads are not normed together by more, nor two heads of linear attention divided. */
	if (strcmp(model, "olmo2") == 0 || strcmp(model, "formats/qwen3_next") == 0)
		return n <= 2;
	return n <= 4;
}

/* Several at once compute it together; mixtures once more with each expert on one of them. */
static void devices_agree_with_the_reference(void **state)
{
	struct gpu_case c = { .model = *state, .n_devices = n_devices(), .n_seqs = 5, .max_piece = 40 };
	bool is_mixture = strstr(c.model, "moe") || strstr(c.model, "gpt_oss") || strstr(c.model, "deepseek");

	if (!kind || c.n_devices < 2 || !is_divisible(c.model, c.n_devices))
		skip();
	c.kind = kind;
	for (int by_expert = 0; by_expert <= is_mixture; by_expert++) {
		c.by_expert = by_expert;
		c.exact = true;
		c.max_piece = 40;
		c.tolerance = 1e-4;
		check_model(&c);
		c.exact = false;
		c.tolerance = is_wide(c.model) ? 5e-2 : 2e-2;
		check_model(&c);
		c.max_piece = 1; /* graphs, replayed */
		c.tolerance = is_wide(c.model) ? 5e-2 : 3e-2;
		check_model(&c);
	}
}

int main(int argc, char **argv)
{
	static const char *const formats[] = { "formats/qwen3-fp8", "formats/gpt_oss-mxfp4" };
	enum { N_FORMATS = sizeof(formats) / sizeof(formats[0]) };
	static struct CMUnitTest tests[3 * N_FIXTURE_MODELS + N_FORMATS];
	static char names[N_FIXTURE_MODELS][80];

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* one by name, with * and ? */
	for (int m = 0; m < N_FIXTURE_MODELS; m++) {
		tests[m] = (struct CMUnitTest){ .name = fixture_models[m],
			                        .test_func = stays_close_to_the_reference,
			                        .initial_state = (void *)fixture_models[m] };
		tests[N_FIXTURE_MODELS + m] = (struct CMUnitTest){ .name = fixture_models[m],
			                                           .test_func = many_sequences_share_a_step,
			                                           .initial_state = (void *)fixture_models[m] };
	}
	for (int m = 0; m < N_FORMATS; m++)
		tests[2 * N_FIXTURE_MODELS + m] = (struct CMUnitTest){ .name = formats[m],
			                                               .test_func = stays_close_in_its_own_type,
			                                               .initial_state = (void *)formats[m] };
	for (int m = 0; m < N_FIXTURE_MODELS; m++) {
		(void)snprintf(names[m], sizeof(names[m]), "%s on several devices", fixture_models[m]);
		tests[2 * N_FIXTURE_MODELS + N_FORMATS + m] =
		        (struct CMUnitTest){ .name = names[m],
			                     .test_func = devices_agree_with_the_reference,
			                     .initial_state = (void *)fixture_models[m] };
	}
	return _cmocka_run_group_tests("models on a GPU", tests, 3 * N_FIXTURE_MODELS + N_FORMATS, find_device, NULL);
}
