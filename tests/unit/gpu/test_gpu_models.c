/* Whole models on the GPU backend as it is, kernels included, on the host shim: few tokens, since every thread of a
 * block is a fiber. tests/unit/gpu_host has all architectures over plain loops. */
#include "gpu_models.h"

static void stays_close_to_the_reference(void **state)
{
	check_model(*state);
}

int main(void)
{
	static const struct gpu_case cases[] = {
		{ .model = "qwen3", .exact = true, .max_piece = 20, .n_seqs = 2, .max_tokens = 24, .tolerance = 1e-4 },
		{ .model = "qwen3", .max_piece = 20, .n_seqs = 2, .max_tokens = 24, .tolerance = 2e-2 },
		{ .model = "qwen3",
		  .max_piece = 20,
		  .n_seqs = 2,
		  .max_tokens = 24,
		  .tolerance = 2e-2,
		  .kv_dtype = KN_BF16 },
		{ .model = "qwen3",
		  .max_piece = 20,
		  .n_seqs = 2,
		  .max_tokens = 24,
		  .tolerance = 1e-1,
		  .kv_dtype = KN_F8_E4M3 },
		{ .model = "gemma3_text", .max_piece = 20, .n_seqs = 2, .max_tokens = 20, .tolerance = 2e-2 },
		{ .model = "gpt_oss", .max_piece = 20, .n_seqs = 2, .max_tokens = 20, .tolerance = 5e-2 },
		{ .model = "formats/qwen3_next",
		  .exact = true,
		  .max_piece = 20,
		  .n_seqs = 2,
		  .max_tokens = 20,
		  .tolerance = 1e-4 },
		{ .model = "deepseek_v3", .max_piece = 20, .n_seqs = 2, .max_tokens = 20, .tolerance = 2e-2 },
		{ .model = "formats/qwen3-fp8", .max_piece = 20, .n_seqs = 1, .max_tokens = 20, .tolerance = 2e-2 },
		{ .model = "formats/gpt_oss-mxfp4", .max_piece = 20, .n_seqs = 1, .max_tokens = 20, .tolerance = 5e-2 },
		/* Several devices: threads of this process, which meet in kernels. */
		{ .model = "qwen3",
		  .exact = true,
		  .max_piece = 12,
		  .n_seqs = 2,
		  .max_tokens = 12,
		  .tolerance = 1e-4,
		  .n_devices = 2 },
		{ .model = "qwen3", .max_piece = 12, .n_seqs = 2, .max_tokens = 12, .tolerance = 2e-2, .n_devices = 4 },
		{ .model = "olmo2", .max_piece = 12, .n_seqs = 1, .max_tokens = 12, .tolerance = 2e-2, .n_devices = 2 },
		{ .model = "deepseek_v3",
		  .exact = true,
		  .max_piece = 12,
		  .n_seqs = 2,
		  .max_tokens = 12,
		  .tolerance = 1e-4,
		  .n_devices = 4 },
		{ .model = "gpt_oss",
		  .max_piece = 12,
		  .n_seqs = 2,
		  .max_tokens = 12,
		  .tolerance = 5e-2,
		  .n_devices = 2,
		  .by_expert = true },
		{ .model = "qwen3_moe",
		  .max_piece = 6, /* few rows take another way through the experts */
		  .n_seqs = 2,
		  .max_tokens = 12,
		  .tolerance = 2e-2,
		  .n_devices = 4,
		  .by_expert = true },
	};
	enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };
	static struct CMUnitTest tests[N_CASES];

	for (int n = 0; n < N_CASES; n++)
		tests[n] = (struct CMUnitTest){ .name = cases[n].model,
			                        .test_func = stays_close_to_the_reference,
			                        .initial_state = (void *)&cases[n] };
	return _cmocka_run_group_tests("models on the host shim", tests, N_CASES, NULL, NULL);
}
