/* Folders whose weights are in a quantization that no kernel takes: FP8 in blocks and MXFP4, against references
 * computed from the dequantized weights; what they are expanded to; and files that say wrong things about them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mapfile.h"
#include "model_fixture.h"

struct format_case {
	const char *model;
	bool exact;
	/* Relative, of the row that half of all prompts' rows are better than: where rounding sends a token to another
	 * expert, the recurrent layers remember it to the end of the prompt. */
	double tolerance;
};

static struct eng_model *open_format(const char *model, bool exact, struct kn_backend *be)
{
	struct eng_model *m;
	struct err err = { 0 };

	if (eng_model_open(test_fixture(model), exact, be, &m, &err) < 0)
		fail_msg("%s", err_text(&err));
	return m;
}

static void logits_agree(void **state)
{
	const struct format_case *c = *state;
	const struct kn_config config = { .n_threads = 2, .max_tokens = 128, .exact = c->exact };
	struct eng_weights *refs = open_references(c->model);
	struct kn_backend *be;
	struct eng_model *m;
	struct eng_runner *r;
	struct reference ref;
	uint32_t pages[16], n = 0;
	double differences[N_PROMPTS * MAX_KEPT], d;

	assert_int_equal(c->exact ? kn_ref_open(&config, &be, NULL) : kn_cpu_open(&config, &be, NULL), 0);
	m = open_format(c->model, c->exact, be);
	r = new_runner(m, 16, 16, 128);
	for (uint32_t i = 0; i < 16; i++)
		pages[i] = (i * 5 + 3) % 16;
	for (int p = 0; p < N_PROMPTS; p++) {
		struct eng_step_seq seq = { .pages = pages, .ids = ref.ids };
		const float *rows;

		read_reference(refs, p, &ref);
		seq.n_ids = seq.n_out = ref.n_ids;
		rows = step(r, &seq, 1);
		n += kept_differences(rows, &ref, differences + n);
		if (c->exact)
			assert_true(compare(rows, reference_row(&ref, 0), ref.n_vocab).rel_l2 < 1e-5);
		rows += (size_t)(ref.n_ids - 1) * ref.n_vocab;
		for (uint32_t i = 0; c->exact && i < ref.n_gen; i++) {
			assert_int_equal(argmax(rows, ref.n_vocab), ref.gen[i]);
			seq.pos += seq.n_ids;
			seq.ids = &ref.gen[i];
			seq.n_ids = seq.n_out = 1;
			rows = step(r, &seq, 1);
		}
	}
	d = median(differences, n);
	print_message("%s %s: relative %.2e\n", c->model, c->exact ? "exact" : "fast", d);
	assert_true(d < c->tolerance);
	eng_runner_free(r);
	eng_model_close(m);
	kn_backend_close(be);
	eng_weights_close(refs);
}

/* Q8_0 holds every MXFP4 value: the reference backend computes the same with either. */
static void mxfp4_is_the_same_in_eight_bits(void **state)
{
	static float wide[512 * 640];
	const struct kn_config config = { .max_tokens = 128 };
	struct eng_weights *refs = open_references("formats/gpt_oss-mxfp4");
	struct reference ref;
	uint32_t pages[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	struct kn_backend *be;

	(void)state;
	read_reference(refs, 0, &ref);
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	for (int exact = 1; exact >= 0; exact--) {
		struct eng_model *m = open_format("formats/gpt_oss-mxfp4", exact, be);
		struct eng_runner *r = new_runner(m, 8, 16, 128);
		struct eng_step_seq seq = { .pages = pages, .ids = ref.ids, .n_ids = ref.n_ids, .n_out = ref.n_ids };
		const float *rows = step(r, &seq, 1);
		size_t n = (size_t)ref.n_ids * ref.n_vocab;

		assert_true(n <= sizeof(wide) / sizeof(wide[0]));
		if (exact)
			memcpy(wide, rows, n * sizeof(*rows));
		else
			assert_true(compare(rows, wide, n).rel_l2 < 1e-5);
		eng_runner_free(r);
		eng_model_close(m);
	}
	kn_backend_close(be);
	eng_weights_close(refs);
}

/* ---- What is wrong is named ---- */

/* Replaces what in the first `within` bytes by as many others. */
static void replace(char *data, size_t within, const char *what, const char *by)
{
	char *at = memmem(data, within, what, strlen(what));

	assert_non_null(at);
	assert_int_equal(strlen(what), strlen(by));
	memcpy(at, by, strlen(by));
}

/* A copy of a fixture's two files, in one of which something was replaced; folder[64]. */
static void copy_changed(const char *from, const char *const files[2], const char *file, const char *what,
                         const char *by, char *folder)
{
	char path[256];

	(void)snprintf(folder, 64, "/tmp/test-formats-XXXXXX");
	assert_non_null(mkdtemp(folder));
	for (size_t i = 0; i < 2; i++) {
		struct base_buf buf;

		base_buf_init(&buf, 16u << 20);
		(void)snprintf(path, sizeof(path), "%s/%s", from, files[i]);
		assert_int_equal(base_read_file(test_fixture(path), &buf, NULL), 0);
		if (strcmp(file, files[i]) == 0)
			replace(buf.data, buf.len < 65536 ? buf.len : 65536, what, by);
		(void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		assert_int_equal(base_write_file_atomic(path, buf.data, buf.len, 0644, NULL), 0);
		base_buf_done(&buf);
	}
}

static void remove_copy(const char *folder, const char *const files[2])
{
	char path[256];

	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		(void)unlink(path);
	}
	(void)rmdir(folder);
}

/* Opens a copy of the fixture in which one file was changed; the words of the error are in *err. */
static int open_changed(const char *model, const char *file, const char *what, const char *by, struct err *err)
{
	static const char *const files[] = { "config.json", "model.safetensors" };
	const struct kn_config config = { .max_tokens = 16 };
	struct kn_backend *be;
	struct eng_model *m = NULL;
	char folder[64];
	int r;

	copy_changed(model, files, file, what, by, folder);
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	r = eng_model_open(folder, true, be, &m, err);
	eng_model_close(m);
	kn_backend_close(be);
	remove_copy(folder, files);
	return r;
}

static void what_is_wrong_is_named(void **state)
{
	static const struct {
		const char *model, *file, *what, *by;
		int r;
		const char *words;
	} cases[] = {
		{ "formats/qwen3-fp8", "config.json", "\"fp8\"", "\"fp9\"", -ENOTSUP, "quant_method \"fp9\"" },
		{ "formats/qwen3-fp8", "config.json", "\"e4m3\"", "\"e5m2\"", -ENOTSUP, "fmt \"e5m2\"" },
		{ "formats/qwen3-fp8", "config.json", "weight_block_size", "weight_block_sizE", -ENOTSUP,
		  "weight_block_size: expected two sizes" },
		{ "formats/qwen3-fp8", "config.json", "quantization_config", "quantization_confiG", -ENOTSUP,
		  "no quantization_config" },
		{ "formats/qwen3-fp8", "model.safetensors", "q_proj.weight_scale_inv", "q_proj.weight_scale_xnv",
		  -ENOENT, "q_proj.weight_scale_inv is missing" },
		{ "formats/qwen3-fp8", "config.json", "128,\n   128", "128,\n   100", -EINVAL,
		  "a scale for each block of 128 x 100" },
		{ "formats/gpt_oss-mxfp4", "model.safetensors", "gate_up_proj_scales", "gate_up_proj_scalez", -ENOENT,
		  "gate_up_proj_scales is missing" },
		{ "formats/gpt_oss-mxfp4", "model.safetensors", "[4,64,2,16]", "[4,64,1,32]", -EINVAL,
		  "down_proj_blocks: expected U8 [4, 64, 2, 16]" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = { 0 };

		assert_int_equal(open_changed(cases[i].model, cases[i].file, cases[i].what, cases[i].by, &err),
		                 cases[i].r);
		if (!strstr(err_text(&err), cases[i].words))
			fail_msg("\"%s\" lacks \"%s\"", err_text(&err), cases[i].words);
	}
}

/* A backend that does not have the operations yet. */
static void recurrent_layers_need_a_backend_that_has_them(void **state)
{
	const struct kn_config config = { .max_tokens = 16 };
	struct kn_backend *be;
	struct eng_model *m = NULL;
	struct err err = { 0 };
	struct kn_ops without;
	const struct kn_ops *ops;

	(void)state;
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	ops = be->ops;
	without = *ops;
	without.delta_rule = NULL;
	be->ops = &without;
	assert_int_equal(eng_model_open(test_fixture("formats/qwen3_next"), true, be, &m, &err), -ENOTSUP);
	assert_non_null(strstr(err_text(&err), "has recurrent layers, which the backend ref does not compute"));
	be->ops = ops;
	kn_backend_close(be);
}

/* ---- Adapters ---- */

static struct eng_model *open_with_adapter(struct kn_backend *be)
{
	struct eng_model *m = open_format("formats/qwen3-lora", true, be);
	struct err err = { 0 };

	if (eng_model_add_lora(m, test_fixture("formats/qwen3-lora/adapter"), &err) != 1)
		fail_msg("%s", err_text(&err));
	return m;
}

/* Three sequences in one step, the middle one without the adapter: each as if it were alone. */
static void adapters_are_chosen_by_sequence(void **state)
{
	struct eng_weights *base = open_references("formats/qwen3-lora");
	struct eng_weights *adapted = open_references("formats/qwen3-lora/adapter");
	static const char *const isas[] = { NULL, "scalar" };

	(void)state;
	for (size_t b = 0; b < 3; b++) {
		struct kn_config config = { .n_threads = 2, .max_tokens = 128, .exact = true };
		uint32_t pages[3][4] = { { 0, 1, 2, 3 }, { 7, 6, 5, 4 }, { 8, 10, 9, 11 } };
		struct eng_step_seq seqs[3];
		struct reference refs[3];
		struct kn_backend *be;
		struct eng_model *m;
		struct eng_runner *r;
		const float *rows;

		config.isa = b > 0 ? isas[b - 1] : NULL;
		assert_int_equal(b == 0 ? kn_ref_open(&config, &be, NULL) : kn_cpu_open(&config, &be, NULL), 0);
		m = open_with_adapter(be);
		r = new_runner(m, 12, 16, 128);
		for (int i = 0; i < 3; i++) {
			read_reference(i == 1 ? base : adapted, i == 1 ? 0 : 2 - i, &refs[i]);
			refs[i].n_ids = refs[i].n_ids < 30 ? refs[i].n_ids : 30;
			seqs[i] = (struct eng_step_seq){ .pages = pages[i],
				                         .ids = refs[i].ids,
				                         .n_ids = refs[i].n_ids,
				                         .n_out = refs[i].n_ids,
				                         .adapter = i == 1 ? 0 : 1 };
		}
		rows = step(r, seqs, 3);
		for (int i = 0; i < 3; i++) {
			struct difference d = compare_kept(rows, &refs[i]);

			print_message("sequence %d: relative %.2e\n", i, d.rel_l2);
			assert_true(d.rel_l2 < 1e-4);
			rows += (size_t)refs[i].n_ids * refs[i].n_vocab;
		}
		eng_runner_free(r);
		eng_model_close(m);
		kn_backend_close(be);
	}
	eng_weights_close(base);
	eng_weights_close(adapted);
}

/* Adds a copy of the adapter in which one file was changed. */
static int add_changed(const char *file, const char *what, const char *by, struct err *err)
{
	static const char *const files[] = { "adapter_config.json", "adapter_model.safetensors" };
	const struct kn_config config = { .max_tokens = 16 };
	char folder[64];
	struct kn_backend *be;
	struct eng_model *m;
	int r;

	copy_changed("formats/qwen3-lora/adapter", files, file, what, by, folder);
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	m = open_format("formats/qwen3-lora", true, be);
	r = eng_model_add_lora(m, folder, err);
	eng_model_close(m);
	kn_backend_close(be);
	remove_copy(folder, files);
	return r;
}

static void wrong_adapters_are_named(void **state)
{
	static const struct {
		const char *file, *what, *by;
		int r;
		const char *words;
	} cases[] = {
		{ "adapter_config.json", "\"LORA\"", "\"IA_3\"", -ENOTSUP, "peft_type: \"IA_3\"" },
		{ "adapter_config.json", "\"bias\": \"none\"", "\"bias\": \"lora\"", -ENOTSUP, "bias: \"lora\"" },
		{ "adapter_config.json", "\"lora_alpha\": 16", "\"lora_alpha\":\"1\"", -EINVAL,
		  "lora_alpha: expected a number" },
		{ "adapter_config.json", "\"use_dora\": false", "\"use_dora\": true ", -ENOTSUP,
		  "use_dora is not supported" },
		{ "adapter_model.safetensors", "layers.0.mlp.down_proj.lora_B", "layers.0.mlp.down_proj.lora_C",
		  -ENOENT, "layers.0.mlp.down_proj.lora_B.weight is missing" },
		{ "adapter_model.safetensors", "layers.0.self_attn.q_proj.lora_A", "layers.9.self_attn.q_proj.lora_A",
		  -ENOTSUP, "layers.9.self_attn.q_proj.lora_A.weight: adapters of this" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = { 0 };

		assert_int_equal(add_changed(cases[i].file, cases[i].what, cases[i].by, &err), cases[i].r);
		if (!strstr(err_text(&err), cases[i].words))
			fail_msg("\"%s\" lacks \"%s\"", err_text(&err), cases[i].words);
	}
}

int main(void)
{
	/* These references were computed with rotary frequencies rounded to bfloat16, ours are float32: differences
	 * grow with the position, the first one has none. Fast: activations of eight bits, as the integer kernels have
	 * them. */
	static const struct format_case cases[] = {
		{ "formats/qwen3-fp8", true, 5e-3 },  { "formats/gpt_oss-mxfp4", true, 5e-3 },
		{ "formats/qwen3-fp8", false, 5e-2 }, { "formats/gpt_oss-mxfp4", false, 5e-2 },
		{ "formats/qwen3_next", true, 1e-5 }, { "formats/qwen3_next", false, 5e-2 },
	};
	const struct CMUnitTest tests[] = {
		{ "qwen3-fp8, exact", logits_agree, NULL, NULL, (void *)&cases[0] },
		{ "gpt_oss-mxfp4, exact", logits_agree, NULL, NULL, (void *)&cases[1] },
		{ "qwen3-fp8, fast", logits_agree, NULL, NULL, (void *)&cases[2] },
		{ "gpt_oss-mxfp4, fast", logits_agree, NULL, NULL, (void *)&cases[3] },
		{ "qwen3_next, exact", logits_agree, NULL, NULL, (void *)&cases[4] },
		{ "qwen3_next, fast", logits_agree, NULL, NULL, (void *)&cases[5] },
		cmocka_unit_test(mxfp4_is_the_same_in_eight_bits),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(recurrent_layers_need_a_backend_that_has_them),
		cmocka_unit_test(adapters_are_chosen_by_sequence),
		cmocka_unit_test(wrong_adapters_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
