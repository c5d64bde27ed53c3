/* Deterministic mode on a GPU plugin whose launchers are plain loops, those of answers summing otherwise than those of
 * prompts (attention; products, where the library's kernels are not alike): a row that is taken for the other kind, or
 * fused otherwise among others, gives other bits. With a real device (OCAI_TEST_DEVICE=cuda or hip) the same is asked
 * of its kernels. */
#include <stdlib.h>

#include "deterministic.h"
#include "host_plugin.h"

static void folder(const char *name, const char *kv_dtype, int repetitions)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fixtures/%s%s", test_dir(), strchr(name, '/') ? "" : "models/", name);
	one_result_under_random_load(
	        (struct eng_options){ .model_path = path, .precision = "fast", .kv_dtype = kv_dtype }, repetitions);
}

static void prompts_and_answers_in_one_step(void **state)
{
	(void)state;
	folder("qwen3", NULL, 12);
	folder("qwen3", "f8", 3);
}

/* A library that has other bits for few rows than for many: answers have kernels of ours. */
static void answers_summed_otherwise_than_prompts(void **state)
{
	(void)state;
	assert_int_equal(setenv("PLAIN_NOT_ALIKE", "1", 1), 0);
	folder("qwen3", NULL, 8);
	folder("qwen3", "f8", 2);
	folder("gemma3_text", NULL, 2);
	assert_int_equal(unsetenv("PLAIN_NOT_ALIKE"), 0);
}

static void answers_set_back_and_returned(void **state)
{
	(void)state;
	answers_are_set_back_and_returned();
}

static void weights_of_eight_bits(void **state)
{
	(void)state;
	folder("formats/qwen3-fp8", NULL, 4);
}

static void experts_windows_and_sinks(void **state)
{
	(void)state;
	folder("gpt_oss", NULL, 4);
}

static void latent_attention_and_grouped_experts(void **state)
{
	(void)state;
	folder("deepseek_v3", NULL, 4);
}

static void softcaps_and_norms_on_both_sides(void **state)
{
	(void)state;
	folder("gemma3_text", NULL, 4);
}

static void recurrent_states(void **state)
{
	(void)state;
	folder("formats/qwen3_next", NULL, 4);
}

static int use_plugin(void **state)
{
	(void)state;
	use_host_plugin();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompts_and_answers_in_one_step),
		cmocka_unit_test(answers_summed_otherwise_than_prompts),
		cmocka_unit_test(answers_set_back_and_returned),
		cmocka_unit_test(weights_of_eight_bits),
		cmocka_unit_test(experts_windows_and_sinks),
		cmocka_unit_test(latent_attention_and_grouped_experts),
		cmocka_unit_test(softcaps_and_norms_on_both_sides),
		cmocka_unit_test(recurrent_states),
	};
	const char *device = getenv("OCAI_TEST_DEVICE");

	deterministic_backend = device ? device : "cuda";
	return cmocka_run_group_tests(tests, device ? NULL : use_plugin, NULL);
}
