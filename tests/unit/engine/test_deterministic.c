/* Deterministic mode on the cpu backend: all kinds of models, instruction sets and weights. */
#include <errno.h>
#include <unistd.h>

#include "deterministic.h"
#include "engine_quantize.h"
#include "kernels.h"

static void folder(const char *name, const char *precision, const char *isa, int repetitions)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/fixtures/%s%s", test_dir(), strchr(name, '/') ? "" : "models/", name);
	one_result_under_random_load((struct eng_options){ .model_path = path, .precision = precision, .isa = isa },
	                             repetitions);
}

static void float_activations(void **state)
{
	(void)state;
	folder("qwen3", NULL, NULL, 50);
}

static void sixteen_bit_activations(void **state)
{
	(void)state;
	folder("qwen3", "fast", NULL, 9);
}

static void every_instruction_set(void **state)
{
	const char *const *isas = kn_cpu_isas();

	(void)state;
	for (size_t i = 0; isas[i]; i++) {
		print_message("%s\n", isas[i]);
		folder("llama", "fast", isas[i], 12);
	}
}

static void answers_set_back_and_returned(void **state)
{
	(void)state;
	answers_are_set_back_and_returned();
}

static void experts_windows_and_sinks(void **state)
{
	(void)state;
	folder("gpt_oss", NULL, NULL, 9);
}

static void latent_attention_and_grouped_experts(void **state)
{
	(void)state;
	folder("deepseek_v3", "fast", NULL, 9);
}

static void softcaps_and_norms_on_both_sides(void **state)
{
	(void)state;
	folder("gemma3_text", "fast", NULL, 9);
}

static void recurrent_states(void **state)
{
	(void)state;
	folder("formats/qwen3_next", NULL, NULL, 20);
	folder("formats/qwen3_next", "fast", NULL, 9);
}

static void quantized(enum kn_dtype dtype)
{
	char path[] = "/tmp/ocai-deterministic-XXXXXX";
	int fd = mkstemp(path);
	struct eng_quantize_options o = { .model_path = test_fixture("models/qwen3"),
		                          .output_path = path,
		                          .dtype = dtype,
		                          .embed_dtype = KN_N_DTYPES,
		                          .output_dtype = KN_N_DTYPES,
		                          .n_threads = 1 };
	struct eng_quantize_result result;
	struct err err = { 0 };
	int r;

	assert_true(fd >= 0);
	(void)close(fd);
	r = eng_quantize(&o, &result, &err);
	if (r == 0)
		one_result_under_random_load((struct eng_options){ .model_path = path, .precision = "fast" }, 50);
	(void)unlink(path);
	if (r < 0)
		fail_msg("%s", err_text(&err));
}

static void eight_bit_weights(void **state)
{
	(void)state;
	quantized(KN_Q8_0);
}

static void four_bit_weights(void **state)
{
	(void)state;
	quantized(KN_Q4_0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(float_activations),
		cmocka_unit_test(sixteen_bit_activations),
		cmocka_unit_test(recurrent_states),
		cmocka_unit_test(every_instruction_set),
		cmocka_unit_test(answers_set_back_and_returned),
		cmocka_unit_test(experts_windows_and_sinks),
		cmocka_unit_test(latent_attention_and_grouped_experts),
		cmocka_unit_test(softcaps_and_norms_on_both_sides),
		cmocka_unit_test(eight_bit_weights),
		cmocka_unit_test(four_bit_weights),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
