/* What quantize writes as float32 computes the reference's logits, through the ordinary GGUF loader. */
#include <unistd.h>

#include "model_fixture.h"
#include "engine_quantize.h"

static struct kn_backend *be;

static int open_backend(void **state)
{
	const struct kn_config config = { .max_tokens = 128 };

	(void)state;
	return kn_ref_open(&config, &be, NULL);
}

static int close_backend(void **state)
{
	(void)state;
	kn_backend_close(be);
	return 0;
}

static void convert(const char *name, const char *path, enum kn_dtype dtype)
{
	char fixture[256];
	struct eng_quantize_options o = { .output_path = path,
		                          .dtype = dtype,
		                          .embed_dtype = KN_N_DTYPES,
		                          .output_dtype = KN_N_DTYPES,
		                          .n_threads = 1 };
	struct eng_quantize_result result;
	struct err err = { 0 };

	(void)snprintf(fixture, sizeof(fixture), "models/%s", name);
	o.model_path = test_fixture(fixture);
	if (eng_quantize(&o, &result, &err) < 0)
		fail_msg("%s: %s", name, err_text(&err));
}

/* The worst over the prompts, of the first max_ids tokens of each. */
static struct difference run(const char *name, const char *path, uint32_t max_ids)
{
	static const uint32_t pages[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	struct eng_model *m = open_model(path, be);
	struct eng_weights *references = open_references(name);
	struct eng_runner *runner = new_runner(m, 8, 16, 128);
	struct difference worst = { 0, 0 };

	for (int prompt = 0; prompt < N_PROMPTS; prompt++) {
		struct reference ref;
		struct eng_step_seq seq;
		struct difference d;

		read_reference(references, prompt, &ref);
		ref.n_ids = ref.n_ids < max_ids ? ref.n_ids : max_ids;
		seq = (struct eng_step_seq){
			.pages = pages, .ids = ref.ids, .n_ids = ref.n_ids, .n_out = ref.n_ids, .output = ENG_OUT_LOGITS
		};
		d = compare(step(runner, &seq, 1), ref.logits, (size_t)ref.n_ids * ref.n_vocab);
		worst.max_abs = fmax(worst.max_abs, d.max_abs);
		worst.rel_l2 = fmax(worst.rel_l2, d.rel_l2);
	}
	eng_runner_free(runner);
	eng_weights_close(references);
	eng_model_close(m);
	return worst;
}

static void written_models_give_the_reference_logits(void **state)
{
	char path[] = "/tmp/ocai-test-XXXXXX.gguf";
	int fd = mkstemps(path, 5);

	(void)state;
	assert_true(fd >= 0);
	(void)close(fd);
	for (size_t i = 0; i < N_FIXTURE_MODELS; i++) {
		/* GGUF's llama has no window: Mistral agrees as far as its window of 24 reaches. */
		uint32_t max_ids = strcmp(fixture_models[i], "mistral") == 0 ? 24 : 128;
		struct difference d;

		convert(fixture_models[i], path, KN_F32);
		d = run(fixture_models[i], path, max_ids);
		if (!(d.max_abs <= 1e-3 && d.rel_l2 <= 1e-4))
			fail_msg("%s: off by %g, relative %g", fixture_models[i], d.max_abs, d.rel_l2);
	}
	(void)unlink(path);
}

/* Not a measure of quality (the fixtures' weights are random), but a wrong layout would give 1 and more. */
static void quantized_models_stay_near(void **state)
{
	static const struct {
		enum kn_dtype dtype;
		double bound;
	} cases[] = { { KN_BF16, 1e-4 }, { KN_Q8_0, 0.05 }, { KN_Q5_1, 0.25 }, { KN_Q4_0, 0.5 } };
	char path[] = "/tmp/ocai-test-XXXXXX.gguf";
	int fd = mkstemps(path, 5);

	(void)state;
	assert_true(fd >= 0);
	(void)close(fd);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct difference d;

		convert("qwen3", path, cases[i].dtype);
		d = run("qwen3", path, 128);
		if (!(d.rel_l2 <= cases[i].bound))
			fail_msg("%s: relative difference %g above %g", kn_dtype_info(cases[i].dtype)->name, d.rel_l2,
			         cases[i].bound);
	}
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_models_give_the_reference_logits),
		cmocka_unit_test(quantized_models_stay_near),
	};

	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
