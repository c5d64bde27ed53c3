/* What quantize writes as float32 computes the reference's logits, through the ordinary GGUF loader. */
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "engine_quantize.h"
#include "model_fixture.h"
#include "ref_backend.h"

static void convert_folder(const char *folder, const char *path, enum kn_dtype dtype)
{
	struct eng_quantize_options o = { .model_path = folder,
		                          .output_path = path,
		                          .dtype = dtype,
		                          .embed_dtype = KN_N_DTYPES,
		                          .output_dtype = KN_N_DTYPES,
		                          .n_threads = 1 };
	struct eng_quantize_result result;
	struct err err = { 0 };

	if (eng_quantize(&o, &result, &err) < 0)
		fail_msg("%s: %s", folder, err_text(&err));
}

static void convert(const char *name, const char *path, enum kn_dtype dtype)
{
	char fixture[256];

	(void)snprintf(fixture, sizeof(fixture), "%s%s", fixture_folder(name), name);
	convert_folder(test_fixture(fixture), path, dtype);
}

/* The worst over the prompts. */
static struct difference run(const char *name, const char *path)
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
		seq = (struct eng_step_seq){
			.pages = pages, .ids = ref.ids, .n_ids = ref.n_ids, .n_out = ref.n_ids, .output = ENG_OUT_LOGITS
		};
		d = compare_kept(step(runner, &seq, 1), &ref);
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
		struct difference d;

		convert(fixture_models[i], path, KN_F32);
		d = run(fixture_models[i], path);
		if (!(d.max_abs <= 1e-3 && d.rel_l2 <= 1e-4))
			fail_msg("%s: off by %g, relative %g", fixture_models[i], d.max_abs, d.rel_l2);
	}
	(void)unlink(path);
}

/* The fixture's folder with some keys of config.json replaced: DIR/config.json, and links to the rest. */
static void make_variant(const char *name, const char *changes, const char *dir)
{
	static const char *const rest[] = { "model.safetensors", "tokenizer.json", "tokenizer_config.json" };
	char from[512], to[512], relative[256];
	json_t *config, *more = json_loads(changes, 0, NULL);

	(void)snprintf(relative, sizeof(relative), "models/%s/config.json", name);
	assert_int_equal(base_json_read_file(test_fixture(relative), 1 << 20, &config, NULL), 0);
	assert_int_equal(json_object_update_recursive(config, more), 0);
	(void)snprintf(to, sizeof(to), "%s/config.json", dir);
	assert_int_equal(json_dump_file(config, to, 0), 0);
	for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++) {
		(void)snprintf(relative, sizeof(relative), "models/%s/%s", name, rest[i]);
		assert_non_null(realpath(test_fixture(relative), from));
		(void)snprintf(to, sizeof(to), "%s/%s", dir, rest[i]);
		assert_int_equal(symlink(from, to), 0);
	}
	json_decref(config);
	json_decref(more);
}

static void remove_variant(const char *dir)
{
	static const char *const names[] = { "config.json", "model.safetensors", "tokenizer.json",
		                             "tokenizer_config.json", "model.gguf" };
	char path[512];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(dir), 0);
}

/* Logits of 96 tokens; the caller's. */
static float *logits_of(const char *path, size_t *ret_n)
{
	static const uint32_t pages[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	struct eng_model *m = open_model(path, be);
	struct eng_runner *runner = new_runner(m, 8, 16, 128);
	int32_t ids[96];
	struct eng_step_seq seq = { .pages = pages, .ids = ids, .n_ids = 96, .n_out = 96, .output = ENG_OUT_LOGITS };
	float *copy;

	for (int i = 0; i < 96; i++)
		ids[i] = 5 + (i * 37) % 200;
	*ret_n = (size_t)96 * eng_model_info(m)->n_vocab;
	copy = malloc(*ret_n * sizeof(*copy));
	assert_non_null(copy);
	memcpy(copy, step(runner, &seq, 1), *ret_n * sizeof(*copy));
	eng_runner_free(runner);
	eng_model_close(m);
	return copy;
}

static void what_configurations_seldom_say_is_written_and_read(void **state)
{
	static const struct {
		const char *name, *changes;
	} cases[] = {
		{ "gemma3_text", "{\"query_pre_attn_scalar\": 11}" },
		{ "gemma3_text", "{\"sliding_window_pattern\": 2, \"layer_types\": null}" },
		{ "qwen3-yarn", "{\"rope_parameters\": {\"attention_factor\": 1.6}}" },
		{ "qwen3-yarn", "{\"rope_parameters\": {\"beta_fast\": 16, \"beta_slow\": 2}}" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char dir[] = "/tmp/ocai-test-XXXXXX", path[64], plain_path[64];
		float *plain, *folder, *file;
		struct difference d;
		size_t n;

		assert_non_null(mkdtemp(dir));
		make_variant(cases[i].name, cases[i].changes, dir);
		(void)snprintf(path, sizeof(path), "%s/model.gguf", dir);
		(void)snprintf(plain_path, sizeof(plain_path), "models/%s", cases[i].name);
		convert_folder(dir, path, KN_F32);
		plain = logits_of(test_fixture(plain_path), &n);
		folder = logits_of(dir, &n);
		file = logits_of(path, &n);
		d = compare(folder, plain, n);
		if (d.max_abs < 1e-3)
			fail_msg("%s with %s: the change shows nowhere", cases[i].name, cases[i].changes);
		d = compare(file, folder, n);
		if (!(d.max_abs <= 1e-3 && d.rel_l2 <= 1e-4))
			fail_msg("%s with %s: off by %g, relative %g", cases[i].name, cases[i].changes, d.max_abs,
			         d.rel_l2);
		free(plain);
		free(folder);
		free(file);
		remove_variant(dir);
	}
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
		d = run("qwen3", path);
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
		cmocka_unit_test(what_configurations_seldom_say_is_written_and_read),
		cmocka_unit_test(quantized_models_stay_near),
	};

	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
