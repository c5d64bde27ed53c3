/* The host side of the GPU backend over launchers in plain loops: recording, types, fusion and steps of all forms, for
 * every architecture. In float32 the results are the reference's; with activations in bfloat16 (8 bits of mantissa)
 * each product is off by some 2^-9, and now and then a token takes another expert: hence the middle row, and for
 * gpt_oss, whose tiny router decides between near ones most often, a wider limit. */
#include "../gpu/gpu_models.h"

uint32_t plain_launches(void);

static void in_float32_it_is_the_reference(void **state)
{
	const struct gpu_case c = { .model = *state, .exact = true, .max_piece = 40, .n_seqs = 5, .tolerance = 1e-4 };

	check_model(&c);
}

static void in_bfloat16_it_stays_close(void **state)
{
	struct gpu_case c = { .model = *state, .max_piece = 30, .n_seqs = 4, .tolerance = 2e-2 };
	uint32_t fused, plain;

	/* Rounding sends tokens to other experts now and then. */
	if (strcmp(c.model, "gpt_oss") == 0 || strcmp(c.model, "formats/qwen3_next") == 0)
		c.tolerance = 5e-2;
	(void)plain_launches();
	check_model(&c);
	fused = plain_launches();
	c.no_fusion = true;
	check_model(&c);
	plain = plain_launches();
	/* The library gets all that it can take. */
	c.no_fusion = false;
	c.rows = (struct kn_gpu_rows){ .widened = 17, .biased = 17 };
	check_model(&c);
	print_message("%u launches instead of %u\n", fused, plain);
	assert_true(fused < plain);
}

/* Steps of many sequences with one token each, as in decoding. */
static void many_sequences_share_a_step(void **state)
{
	const struct gpu_case c = {
		.model = *state, .exact = true, .max_piece = 1, .n_seqs = 24, .max_tokens = 16, .tolerance = 1e-4
	};

	check_model(&c);
}

int main(void)
{
	static struct CMUnitTest tests[2 * N_FIXTURE_MODELS + 2];
	static char names[2 * N_FIXTURE_MODELS + 2][80];
	size_t n = 0;

	for (int m = 0; m < N_FIXTURE_MODELS; m++) {
		(void)snprintf(names[n], sizeof(names[n]), "%s in float32", fixture_models[m]);
		tests[n] = (struct CMUnitTest){ .name = names[n],
			                        .test_func = in_float32_it_is_the_reference,
			                        .initial_state = (void *)fixture_models[m] };
		n++;
		(void)snprintf(names[n], sizeof(names[n]), "%s in bfloat16", fixture_models[m]);
		tests[n] = (struct CMUnitTest){ .name = names[n],
			                        .test_func = in_bfloat16_it_stays_close,
			                        .initial_state = (void *)fixture_models[m] };
		n++;
	}
	tests[n++] = (struct CMUnitTest){ .name = "many sequences of qwen3",
		                          .test_func = many_sequences_share_a_step,
		                          .initial_state = (void *)"qwen3" };
	tests[n++] = (struct CMUnitTest){ .name = "many sequences of deepseek_v3",
		                          .test_func = many_sequences_share_a_step,
		                          .initial_state = (void *)"deepseek_v3" };
	return _cmocka_run_group_tests("models on the host side of the GPU backend", tests, n, NULL, NULL);
}
