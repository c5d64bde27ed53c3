/* Quantizing fixtures: names, rearranged rows, metadata, and what is refused. */
#include "test.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/mapfile.h"
#include "quantize/quantize_internal.h"

static char out_path[128], folder[64];
static char last_note[512];

static int make_paths(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/ocai-test-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(out_path, sizeof(out_path), "%s/out.gguf", folder);
	last_note[0] = '\0';
	return 0;
}

static int drop_paths(void **state)
{
	static const char *const names[] = { "out.gguf", "again.gguf", "config.json", "model.safetensors" };
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		(void)unlink(path);
	}
	return rmdir(folder);
}

static void keep_note(void *arg, const char *text)
{
	(void)arg;
	(void)snprintf(last_note, sizeof(last_note), "%s", text);
}

static struct eng_quantize_options options_for(const char *model, enum kn_dtype dtype)
{
	return (struct eng_quantize_options){ .model_path = model,
		                              .output_path = out_path,
		                              .dtype = dtype,
		                              .embed_dtype = KN_N_DTYPES,
		                              .output_dtype = KN_N_DTYPES,
		                              .n_threads = 2,
		                              .note = keep_note };
}

static struct eng_weights *open_or_fail(const char *path)
{
	struct eng_weights *w = NULL;
	struct err err = { 0 };

	if (eng_weights_open(path, &w, &err) < 0)
		fail_msg("%s", err.msg);
	return w;
}

/* Writes the fixture as GGUF and opens both. */
static void convert(const char *fixture, enum kn_dtype dtype, struct eng_weights **ret_source,
                    struct eng_weights **ret_target)
{
	char path[256];
	struct eng_quantize_options o;
	struct eng_quantize_result result;
	struct err err = { 0 };

	(void)snprintf(path, sizeof(path), "models/%s", fixture);
	o = options_for(test_fixture(path), dtype);
	if (eng_quantize(&o, &result, &err) < 0)
		fail_msg("%s: %s", fixture, err.msg);
	*ret_source = open_or_fail(o.model_path);
	*ret_target = open_or_fail(out_path);
	assert_int_equal(result.n_tensors, eng_weights_count(*ret_target));
}

/* Element i of a tensor as float; types of one value per block. */
static float at(const struct eng_weights *w, const char *name, uint64_t i)
{
	const struct eng_tensor *t = eng_weights_find(w, name);
	float f;

	if (!t)
		fail_msg("no tensor %s", name);
	assert_true(i * kn_dtype_info(t->dtype)->block_bytes < t->size_bytes);
	kn_dequantize(t->dtype, (const uint8_t *)t->data + i * kn_dtype_info(t->dtype)->block_bytes, &f, 1);
	return f;
}

static void assert_text(const struct eng_weights *w, const char *key, const char *expected)
{
	const char *text;
	size_t len;

	assert_int_equal(eng_gguf_get_string(w, key, &text, &len, NULL), 0);
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(text, expected, len);
}

static void assert_u32(const struct eng_weights *w, const char *key, uint32_t expected)
{
	uint32_t u = ~expected;

	if (eng_gguf_get_u32(w, key, &u, NULL) < 0)
		fail_msg("no key %s", key);
	assert_int_equal(u, expected);
}

static void every_architecture_of_the_fixtures_can_be_written(void **state)
{
	static const struct {
		const char *fixture, *arch;
		uint32_t n_layer;
	} cases[] = {
		{ "llama", "llama", 3 },
		{ "mistral", "llama", 3 },
		{ "qwen2", "qwen2", 3 },
		{ "qwen3", "qwen3", 3 },
		{ "qwen3-yarn", "qwen3", 3 },
		{ "qwen3_moe", "qwen3moe", 3 },
		{ "phi3", "phi3", 3 },
		{ "gemma3_text", "gemma3", 3 },
		{ "olmo2", "olmo2", 3 },
		{ "glm4_moe", "glm4moe", 3 },
		{ "gpt_oss", "gpt-oss", 4 },
		{ "deepseek_v3", "deepseek2", 3 },
		{ "ernie4_5", "ernie4_5", 3 },
		{ "hunyuan_v1_dense", "hunyuan-dense", 3 },
		{ "hunyuan_v1_moe", "hunyuan-moe", 3 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct eng_weights *source, *target;
		char key[64];

		convert(cases[i].fixture, KN_F32, &source, &target);
		assert_text(target, "general.architecture", cases[i].arch);
		(void)snprintf(key, sizeof(key), "%s.block_count", cases[i].arch);
		assert_u32(target, key, cases[i].n_layer);
		assert_non_null(eng_weights_find(target, "token_embd.weight"));
		assert_non_null(eng_weights_find(target, "output_norm.weight"));
		/* Nothing lost: what was in the one is in the other (rope_freqs and norms + 1 aside). */
		assert_true(eng_weights_bytes(target) >= 2 * eng_weights_bytes(source));
		eng_weights_close(source);
		eng_weights_close(target);
	}
}

static void names_and_values_survive(void **state)
{
	static const char *const pairs[][2] = {
		{ "model.embed_tokens.weight", "token_embd.weight" },
		{ "lm_head.weight", "output.weight" },
		{ "model.norm.weight", "output_norm.weight" },
		{ "model.layers.2.input_layernorm.weight", "blk.2.attn_norm.weight" },
		{ "model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight" },
		{ "model.layers.1.self_attn.k_norm.weight", "blk.1.attn_k_norm.weight" },
		{ "model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight" },
	};
	struct eng_weights *source, *target;

	(void)state;
	convert("qwen3", KN_BF16, &source, &target);
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		const struct eng_tensor *t = eng_weights_find(target, pairs[i][1]);
		uint64_t n = 1;

		assert_non_null(t);
		assert_int_equal(t->dtype, t->n_dims == 1 ? KN_F32 : KN_BF16);
		for (uint32_t d = 0; d < t->n_dims; d++)
			n *= t->shape[d];
		for (uint64_t k = 0; k < n; k++)
			assert_float_equal(at(target, pairs[i][1], k), at(source, pairs[i][0], k), 0);
	}
	eng_weights_close(source);
	eng_weights_close(target);
}

static void llama_rows_of_q_and_k_become_interleaved(void **state)
{
	enum { HEAD = 16, COLS = 64 };
	struct eng_weights *source, *target;

	(void)state;
	convert("llama", KN_F32, &source, &target);
	for (unsigned row = 0; row < 64; row++) {
		unsigned head = row / HEAD, i = row % HEAD, from = head * HEAD + i % 2 * (HEAD / 2) + i / 2;

		assert_float_equal(at(target, "blk.1.attn_q.weight", row * COLS + 5),
		                   at(source, "model.layers.1.self_attn.q_proj.weight", from * COLS + 5), 0);
		if (row < 32)
			assert_float_equal(at(target, "blk.1.attn_k.weight", row * COLS + 7),
			                   at(source, "model.layers.1.self_attn.k_proj.weight", from * COLS + 7), 0);
		assert_float_equal(at(target, "blk.1.attn_output.weight", row * COLS + 7),
		                   at(source, "model.layers.1.self_attn.o_proj.weight", row * COLS + 7), 0);
	}
	/* llama3's frequency divisors: fast pairs stay, the slowest are divided by the factor. */
	assert_float_equal(at(target, "rope_freqs.weight", 0), 1.0f, 0);
	assert_float_equal(at(target, "rope_freqs.weight", 7), 8.0f, 0);
	eng_weights_close(source);
	eng_weights_close(target);
}

static void experts_are_stacked(void **state)
{
	enum { FF = 48, DIM = 64 };
	struct eng_weights *source, *target;
	const struct eng_tensor *t;

	(void)state;
	convert("qwen3_moe", KN_F32, &source, &target);
	t = eng_weights_find(target, "blk.1.ffn_gate_exps.weight");
	assert_non_null(t);
	assert_true(t->n_dims == 3 && t->shape[0] == 8 && t->shape[1] == FF && t->shape[2] == DIM);
	assert_float_equal(at(target, "blk.1.ffn_gate_exps.weight", (5 * FF + 3) * DIM + 9),
	                   at(source, "model.layers.1.mlp.experts.5.gate_proj.weight", 3 * DIM + 9), 0);
	assert_u32(target, "qwen3moe.expert_count", 8);
	assert_u32(target, "qwen3moe.expert_used_count", 2);
	assert_u32(target, "qwen3moe.expert_feed_forward_length", FF);
	assert_non_null(strstr(last_note, "llama.cpp cannot load"));
	eng_weights_close(source);
	eng_weights_close(target);
}

static void gate_and_up_columns_are_separated_and_transposed(void **state)
{
	enum { FF = 160, DIM = 64 };
	struct eng_weights *source, *target;

	(void)state;
	convert("gpt_oss", KN_F32, &source, &target);
	for (unsigned e = 0; e < 8; e += 7) {
		for (unsigned f = 0; f < FF; f += 53) {
			for (unsigned d = 0; d < DIM; d += 21) {
				uint64_t from = (uint64_t)(e * DIM + d) * 2 * FF + 2 * f;

				assert_float_equal(at(target, "blk.1.ffn_gate_exps.weight", (e * FF + f) * DIM + d),
				                   at(source, "model.layers.1.mlp.experts.gate_up_proj", from), 0);
				assert_float_equal(at(target, "blk.1.ffn_up_exps.weight", (e * FF + f) * DIM + d),
				                   at(source, "model.layers.1.mlp.experts.gate_up_proj", from + 1), 0);
				assert_float_equal(
				        at(target, "blk.1.ffn_down_exps.weight", (e * DIM + d) * FF + f),
				        at(source, "model.layers.1.mlp.experts.down_proj", (e * FF + f) * DIM + d), 0);
			}
			assert_float_equal(
			        at(target, "blk.1.ffn_up_exps.bias", e * FF + f),
			        at(source, "model.layers.1.mlp.experts.gate_up_proj_bias", e * 2 * FF + 2 * f + 1), 0);
		}
	}
	eng_weights_close(source);
	eng_weights_close(target);
}

static void latent_attention_is_split_in_two(void **state)
{
	enum { NOPE = 16, V = 16, RANK = 32 };
	static const char from[] = "model.layers.1.self_attn.kv_b_proj.weight";
	struct eng_weights *source, *target;

	(void)state;
	convert("deepseek_v3", KN_F32, &source, &target);
	for (unsigned h = 0; h < 4; h++) {
		for (unsigned i = 0; i < NOPE; i++) {
			for (unsigned l = 0; l < RANK; l += 11) {
				assert_float_equal(at(target, "blk.1.attn_k_b.weight", (h * RANK + l) * NOPE + i),
				                   at(source, from, (h * (NOPE + V) + i) * RANK + l), 0);
				assert_float_equal(at(target, "blk.1.attn_v_b.weight", (h * V + i) * RANK + l),
				                   at(source, from, (h * (NOPE + V) + NOPE + i) * RANK + l), 0);
			}
		}
	}
	assert_u32(target, "deepseek2.attention.head_count_kv", 1);
	assert_u32(target, "deepseek2.attention.key_length", 48);
	assert_u32(target, "deepseek2.attention.key_length_mla", 32);
	eng_weights_close(source);
	eng_weights_close(target);
}

static void gemma_norms_gain_their_one(void **state)
{
	struct eng_weights *source, *target;

	(void)state;
	convert("gemma3_text", KN_F32, &source, &target);
	for (unsigned i = 0; i < 64; i += 9)
		assert_float_equal(at(target, "blk.0.ffn_norm.weight", i),
		                   at(source, "model.layers.0.pre_feedforward_layernorm.weight", i) + 1.0f, 0);
	assert_null(eng_weights_find(target, "output.weight"));
	eng_weights_close(source);
	eng_weights_close(target);
}

static int count_texts(void *arg, uint64_t i, const char *text, size_t len)
{
	(void)text;
	(void)len;
	*(uint64_t *)arg = i + 1;
	return 0;
}

static int text_at(void *arg, uint64_t i, const char *text, size_t len)
{
	if (i != 2)
		return 0;
	(void)base_buf_append(arg, text, len);
	return 1;
}

static void the_vocabulary_goes_along(void **state)
{
	CLEANUP(base_buf_done) struct base_buf file = BASE_BUF_INIT(1u << 20), third = BASE_BUF_INIT(100);
	struct eng_weights *source, *target;
	const char *text;
	int32_t *types;
	uint64_t n = 0;
	size_t len;

	(void)state;
	convert("qwen3", KN_F32, &source, &target);
	assert_text(target, "tokenizer.ggml.model", "gpt2");
	assert_text(target, "tokenizer.ggml.pre", "qwen2");
	assert_int_equal(eng_gguf_each_string(target, "tokenizer.ggml.tokens", count_texts, &n, NULL), 0);
	assert_int_equal(n, 640);
	assert_int_equal(eng_gguf_each_string(target, "tokenizer.ggml.tokens", text_at, &third, NULL), 1);
	assert_string_equal(base_buf_text(&third), "<|im_end|>");
	assert_int_equal(eng_gguf_get_i32_array(target, "tokenizer.ggml.token_type", &types, &n, NULL), 0);
	assert_int_equal(types[2], 3);
	assert_int_equal(types[100], 1);
	assert_int_equal(types[639], 5);
	free(types);
	assert_u32(target, "tokenizer.ggml.eos_token_id", 2);
	assert_int_equal(eng_gguf_each_string(target, "tokenizer.ggml.merges", count_texts, &n, NULL), 0);
	assert_int_equal(n, 235);
	assert_int_equal(base_read_file(test_fixture("models/qwen3/tokenizer.json"), &file, NULL), 0);
	assert_int_equal(eng_gguf_get_string(target, "ocai.tokenizer_json", &text, &len, NULL), 0);
	assert_int_equal(len, file.len);
	assert_memory_equal(text, file.data, len);
	base_buf_reset(&file);
	assert_int_equal(base_read_file(test_fixture("models/qwen3/chat_template.jinja"), &file, NULL), 0);
	assert_text(target, "tokenizer.chat_template", base_buf_text(&file));
	eng_weights_close(source);
	eng_weights_close(target);
}

static void a_gguf_can_be_quantized_again(void **state)
{
	struct eng_weights *source, *target, *again;
	struct eng_quantize_options o = options_for(out_path, KN_Q8_0);
	struct eng_quantize_result result;
	const struct eng_tensor *t;
	struct err err = { 0 };
	float a[64], b[64];
	char path[128];
	uint64_t n;

	(void)state;
	convert("qwen3", KN_F32, &source, &target);
	(void)snprintf(path, sizeof(path), "%s/again.gguf", folder);
	o.output_path = path;
	if (eng_quantize(&o, &result, &err) < 0)
		fail_msg("%s", err.msg);
	again = open_or_fail(path);
	assert_int_equal(eng_weights_count(again), eng_weights_count(target));
	assert_u32(again, "general.file_type", 7);
	assert_u32(again, "qwen3.block_count", 3);
	assert_text(again, "tokenizer.ggml.pre", "qwen2");
	assert_int_equal(eng_gguf_each_string(again, "tokenizer.ggml.tokens", count_texts, &n, NULL), 0);
	assert_int_equal(n, 640);
	t = eng_weights_find(again, "blk.1.attn_q.weight");
	assert_int_equal(t->dtype, KN_Q8_0);
	kn_dequantize(t->dtype, t->data, a, 64);
	kn_dequantize(KN_F32, eng_weights_find(target, "blk.1.attn_q.weight")->data, b, 64);
	for (int i = 0; i < 64; i++)
		assert_float_equal(a[i], b[i], 0.005f);
	eng_weights_close(source);
	eng_weights_close(target);
	eng_weights_close(again);
}

static void types_follow_the_options_and_fall_back_with_a_note(void **state)
{
	struct eng_quantize_options o = options_for(NULL, KN_Q4_K);
	struct eng_quantize_result result;
	struct eng_weights *w;

	(void)state;
	o.model_path = test_fixture("models/qwen3");
	o.embed_dtype = KN_Q8_0;
	o.output_dtype = KN_F16;
	assert_int_equal(eng_quantize(&o, &result, NULL), 0);
	assert_non_null(strstr(last_note, "not whole blocks"));
	w = open_or_fail(out_path);
	assert_int_equal(eng_weights_find(w, "token_embd.weight")->dtype, KN_Q8_0);
	assert_int_equal(eng_weights_find(w, "output.weight")->dtype, KN_F16);
	assert_int_equal(eng_weights_find(w, "blk.0.attn_q.weight")->dtype, KN_Q4_0);   /* 64 columns */
	assert_int_equal(eng_weights_find(w, "blk.2.ffn_down.weight")->dtype, KN_Q8_0); /* would be Q6_K */
	assert_int_equal(eng_weights_find(w, "blk.0.attn_norm.weight")->dtype, KN_F32);
	eng_weights_close(w);
}

/* ---- Refused ------------------------------------------------------------------------------------------- */

static void put(const char *name, const void *data, size_t size)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(base_write_file_atomic(path, data, size, 0644, NULL), 0);
}

/* A folder with this configuration and one f32 tensor of the name, shape [2, 32], first value `first`. */
static void put_model(const char *config, const char *tensor, float first)
{
	char header[256];
	uint8_t file[1024] = { 0 };
	int len = snprintf(header, sizeof(header),
	                   "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2,32],\"data_offsets\":[0,256]}}", tensor);

	put("config.json", config, strlen(config));
	file[0] = (uint8_t)len;
	memcpy(file + 8, header, (size_t)len);
	memcpy(file + 8 + len, &first, sizeof(first));
	put("model.safetensors", file, 8 + (size_t)len + 256);
}

#define CONFIG(type)                                                                                         \
	"{\"model_type\":\"" type "\",\"num_hidden_layers\":1,\"num_attention_heads\":2,\"hidden_size\":32," \
	"\"max_position_embeddings\":64,\"vocab_size\":2,\"intermediate_size\":32}"

static void what_cannot_be_written_is_named(void **state)
{
	static const struct {
		const char *config, *tensor;
		float first;
		int code;
		const char *words;
	} cases[] = {
		{ CONFIG("mamba"), "model.embed_tokens.weight", 0, -ENOTSUP, "architecture 'mamba'" },
		{ CONFIG("qwen3"), "model.layers.0.ssm.weight", 0, -ENOTSUP,
		  "'model.layers.0.ssm.weight' has no place" },
		{ CONFIG("qwen3"), "model.embed_tokens.weight", NAN, -EBADMSG, "'token_embd.weight': row 0" },
		{ CONFIG("qwen3"), "model.embed_tokens.weight", INFINITY, -EBADMSG, "not finite" },
		{ "{\"model_type\":\"qwen3\"}", "model.norm.weight", 0, -ENOENT, "num_hidden_layers: missing" },
		{ "{}", "model.norm.weight", 0, -ENOENT, "model_type: missing" },
		{ "[", "model.norm.weight", 0, -EBADMSG, "config.json" },
	};
	struct eng_quantize_options o = options_for(folder, KN_Q4_0);
	struct eng_quantize_result result;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct err err = { 0 };

		put_model(cases[i].config, cases[i].tensor, cases[i].first);
		assert_int_equal(eng_quantize(&o, &result, &err), cases[i].code);
		if (!strstr(err.msg, cases[i].words))
			fail_msg("message '%s' lacks '%s'", err.msg, cases[i].words);
		assert_int_equal(access(out_path, F_OK), -1);
	}
}

static void types_that_gguf_lacks_are_refused(void **state)
{
	struct eng_quantize_options o = options_for(NULL, KN_FP8_128);
	struct eng_quantize_result result;
	struct err err = { 0 };

	(void)state;
	o.random_shape = "qwen3-0.6b";
	assert_int_equal(eng_quantize(&o, &result, &err), -ENOTSUP);
	assert_string_equal(err_text(&err), "GGUF files have no element type FP8");
	o.dtype = KN_Q8_0;
	o.output_dtype = KN_MXFP4;
	assert_int_equal(eng_quantize(&o, &result, &err), -ENOTSUP);
}

static void an_unknown_shape_lists_the_known(void **state)
{
	struct eng_quantize_options o = options_for(NULL, KN_Q4_0);
	struct eng_quantize_result result;
	struct err err = { 0 };

	(void)state;
	o.random_shape = "qwen9";
	assert_int_equal(eng_quantize(&o, &result, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "qwen3-0.6b"));
}

static void random_rows_are_gaussian_and_repeat(void **state)
{
	enum { N = 65536 };
	static float x[N], y[N];
	double sum = 0, squares = 0, both = 0;

	(void)state;
	qz_random_row(3, 7, x, N);
	qz_random_row(3, 7, y, N);
	assert_memory_equal(x, y, sizeof(x));
	qz_random_row(3, 8, y, N);
	for (int i = 0; i < N; i++) {
		sum += x[i];
		squares += x[i] * x[i];
		both += x[i] * y[i];
	}
	assert_float_equal(sum / N, 0.0f, 0.0004f);
	assert_float_equal(sqrt(squares / N), 0.02f, 0.0002f);
	assert_float_equal(both / squares, 0.0f, 0.02f); /* neighbouring rows are unrelated */
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_paths, drop_paths)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_architecture_of_the_fixtures_can_be_written),
		T(names_and_values_survive),
		T(llama_rows_of_q_and_k_become_interleaved),
		T(experts_are_stacked),
		T(gate_and_up_columns_are_separated_and_transposed),
		T(latent_attention_is_split_in_two),
		T(gemma_norms_gain_their_one),
		T(the_vocabulary_goes_along),
		T(a_gguf_can_be_quantized_again),
		T(types_follow_the_options_and_fall_back_with_a_note),
		T(what_cannot_be_written_is_named),
		T(types_that_gguf_lacks_are_refused),
		T(an_unknown_shape_lists_the_known),
		T(random_rows_are_gaussian_and_repeat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
