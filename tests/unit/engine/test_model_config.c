/* config.json and folders as people bring them: older keys, absent keys, broken ones. */
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "model/hparams.h"
#include "model_fixture.h"

/* A fixture's config.json with `patch` (an object) merged in: null removes nothing, "$absent" removes. */
static json_t *patched(const char *model, const char *patch)
{
	json_t *config, *changes, *v;
	const char *key;
	char rest[128];

	(void)snprintf(rest, sizeof(rest), "models/%s/config.json", model);
	assert_int_equal(base_json_read_file(test_fixture(rest), 1 << 20, &config, NULL), 0);
	assert_int_equal(base_json_parse("patch", patch, strlen(patch), &changes, NULL), 0);
	json_object_foreach(changes, key, v)
	{
		if (json_is_string(v) && strcmp(json_string_value(v), "$absent") == 0)
			(void)json_object_del(config, key);
		else
			(void)json_object_set(config, key, v);
	}
	json_decref(changes);
	return config;
}

static int parse(const char *model, const char *patch, struct hparams *hp, struct err *err)
{
	json_t *config = patched(model, patch);
	char *text = json_dumps(config, 0);
	int r = hparams_parse_hf("config.json", text, strlen(text), hp, err);

	free(text);
	json_decref(config);
	return r;
}

static void assert_same(const char *model, const char *patch, const char *other_patch)
{
	static struct hparams a, b;
	struct err err = { 0 };

	if (parse(model, patch, &a, &err) < 0 || parse(model, other_patch, &b, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_memory_equal(&a, &b, sizeof(a));
}

static void older_rope_keys_mean_the_same(void **state)
{
	(void)state;
	assert_same("llama", "{}",
	            "{\"rope_parameters\": \"$absent\", \"rope_theta\": 500000.0, \"rope_scaling\": {\"factor\": 8.0,"
	            "\"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0, \"original_max_position_embeddings\": 256,"
	            "\"rope_type\": \"llama3\"}}");
	assert_same("qwen3-yarn", "{}",
	            "{\"rope_parameters\": \"$absent\", \"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"yarn\","
	            "\"factor\": 4.0, \"original_max_position_embeddings\": 512}}");
	assert_same("glm4_moe", "{}", "{\"rope_parameters\": \"$absent\", \"rope_theta\": 10000.0}");
	assert_same("gemma3_text", "{}",
	            "{\"rope_parameters\": \"$absent\", \"rope_theta\": 1000000.0, \"rope_local_base_freq\": 10000.0,"
	            "\"rope_scaling\": null}");
	assert_same("mistral", "{}", "{\"rope_parameters\": \"$absent\", \"rope_scaling\": null}");
}

static void absent_keys_have_the_defaults_of_transformers(void **state)
{
	static struct hparams hp;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(parse("llama", "{\"num_key_value_heads\": \"$absent\", \"head_dim\": \"$absent\"}", &hp, &err),
	                 0);
	assert_int_equal(hp.n_kv_head, 4);
	assert_int_equal(hp.head_dim, 16);
	assert_false(hp.tied);
	assert_int_equal(parse("qwen3", "{\"head_dim\": \"$absent\"}", &hp, &err), 0);
	assert_int_equal(hp.head_dim, 128);
	assert_int_equal(parse("gemma3_text",
	                       "{\"tie_word_embeddings\": \"$absent\", \"layer_types\": \"$absent\","
	                       "\"num_hidden_layers\": 6, \"query_pre_attn_scalar\": \"$absent\"}",
	                       &hp, &err),
	                 0);
	assert_true(hp.tied);
	assert_true(hp.attn_scale == 1.0f / 16);
	assert_true(hp.layer[4].window == 16 && hp.layer[5].window == 0);
	assert_true(hp.layer[4].rope == 1 && hp.layer[5].rope == 0);
	assert_int_equal(parse("mistral", "{\"sliding_window\": \"$absent\"}", &hp, &err), 0);
	assert_int_equal(hp.layer[0].window, 4096);
	assert_int_equal(parse("mistral", "{\"sliding_window\": null}", &hp, &err), 0);
	assert_int_equal(hp.layer[0].window, 0);
	assert_int_equal(parse("gpt_oss", "{\"layer_types\": \"$absent\", \"sliding_window\": \"$absent\"}", &hp, &err),
	                 0);
	assert_true(hp.layer[0].window == 128 && hp.layer[1].window == 0);
	assert_int_equal(parse("deepseek_v3", "{\"q_lora_rank\": null}", &hp, &err), 0);
	assert_int_equal(hp.q_lora, 0);
	assert_int_equal(parse("qwen2",
	                       "{\"use_sliding_window\": true, \"sliding_window\": 64,"
	                       "\"max_window_layers\": 2, \"layer_types\": \"$absent\"}",
	                       &hp, &err),
	                 0);
	assert_true(hp.layer[1].window == 0 && hp.layer[2].window == 64);
}

static void experts_may_be_described_per_layer(void **state)
{
	static struct hparams hp;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(
	        parse("hunyuan_v1_moe", "{\"moe_topk\": [3, 2, 1], \"num_shared_expert\": [1, 2, 0]}", &hp, &err), 0);
	assert_true(hp.layer[0].top_k == 3 && hp.layer[1].top_k == 2 && hp.layer[2].top_k == 1);
	assert_true(hp.layer[0].n_ff == 160 && hp.layer[1].n_ff == 320 && hp.layer[2].n_ff == 0);
	assert_int_equal(parse("qwen3_moe", "{\"mlp_only_layers\": [], \"decoder_sparse_step\": 2}", &hp, &err), 0);
	assert_true(hp.layer[0].top_k == 0 && hp.layer[1].top_k == 2 && hp.layer[2].top_k == 0);
}

static void yarn_reaches_beyond_the_written_context(void **state)
{
	static struct hparams hp;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(parse("qwen3",
	                       "{\"max_position_embeddings\": 512, \"rope_scaling\": {\"type\": \"yarn\","
	                       "\"factor\": 4.0, \"original_max_position_embeddings\": 512},"
	                       "\"rope_parameters\": \"$absent\"}",
	                       &hp, &err),
	                 0);
	assert_int_equal(hp.n_ctx, 2048);
}

static void deepseek_yarn_scales_attention(void **state)
{
	static struct hparams hp;
	struct err err = { 0 };
	double m = 0.1 * log(40) + 1;

	(void)state;
	assert_int_equal(parse("deepseek_v3",
	                       "{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 40,"
	                       "\"mscale\": 1.0, \"mscale_all_dim\": 1.0, \"rope_theta\": 10000,"
	                       "\"original_max_position_embeddings\": 512}}",
	                       &hp, &err),
	                 0);
	assert_true(fabs(hp.attn_scale - m * m / sqrt(32)) < 1e-6);
	assert_true(hp.rope[0].scale == 1);
}

/* ---- What is refused, and how ---- */

static const struct {
	const char *model, *patch, *words;
	int code;
} bad_configs[] = {
	{ "qwen3", "{\"hidden_size\": \"$absent\"}", "config.json: hidden_size: missing", -ENOENT },
	{ "qwen3", "{\"vocab_size\": null}", "config.json: vocab_size: missing", -ENOENT },
	{ "qwen3", "{\"num_hidden_layers\": \"$absent\"}", "num_hidden_layers: missing", -ENOENT },
	{ "qwen3", "{\"num_attention_heads\": \"$absent\"}", "num_attention_heads: missing", -ENOENT },
	{ "qwen3", "{\"intermediate_size\": \"$absent\"}", "intermediate_size: missing", -ENOENT },
	{ "qwen3", "{\"model_type\": \"$absent\"}", "model_type: missing", -ENOENT },
	{ "qwen3", "{\"model_type\": \"rwkv\"}", "model_type: \"rwkv\" is not supported", -ENOTSUP },
	{ "qwen3", "{\"model_type\": 3}", "model_type: expected a string, got an integer", -EINVAL },
	{ "qwen3", "{\"hidden_size\": \"64\"}", "hidden_size: expected an integer, got a string", -EINVAL },
	{ "qwen3", "{\"hidden_size\": 64.5}", "hidden_size: expected an integer", -EINVAL },
	{ "qwen3", "{\"hidden_size\": 0}", "hidden_size: 0 is not within", -EINVAL },
	{ "qwen3", "{\"hidden_size\": -64}", "hidden_size: -64 is not within", -EINVAL },
	{ "qwen3", "{\"num_hidden_layers\": 4000000000}", "num_hidden_layers: 4000000000 is not within", -EINVAL },
	{ "qwen3", "{\"vocab_size\": 1e15}", "vocab_size: 1000000000000000 is not within", -EINVAL },
	{ "qwen3", "{\"head_dim\": 9223372036854775807}", "head_dim: 9223372036854775807 is not within", -EINVAL },
	{ "qwen3", "{\"num_key_value_heads\": 3}", "not a multiple of 3 key/value heads", -EINVAL },
	{ "qwen3", "{\"head_dim\": 33}", "33 rotated dimensions", -EINVAL },
	{ "qwen3", "{\"rms_norm_eps\": -1}", "rms_norm_eps: -1 is out of range", -EINVAL },
	{ "qwen3", "{\"rms_norm_eps\": \"small\"}", "rms_norm_eps: expected a number", -EINVAL },
	{ "qwen3", "{\"hidden_act\": \"relu\"}", "hidden_act: \"relu\" is not supported", -ENOTSUP },
	{ "qwen3", "{\"tie_word_embeddings\": 1}", "tie_word_embeddings: expected true or false", -EINVAL },
	{ "qwen3", "{\"rope_parameters\": 7}", "rope_parameters: expected an object", -EINVAL },
	{ "qwen3", "{\"rope_parameters\": {\"rope_type\": \"spiral\"}}", "rope_type: \"spiral\" is not supported",
	  -ENOTSUP },
	{ "qwen3", "{\"rope_parameters\": {\"rope_theta\": 0}}", "rope_theta: 0 is out of range", -EINVAL },
	{ "qwen3", "{\"rope_parameters\": {\"rope_type\": \"linear\"}}", "rope factor: missing", -EINVAL },
	{ "llama", "{\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8}}", "low_freq_factor", -EINVAL },
	{ "phi3", "{\"rope_parameters\": {\"rope_type\": \"longrope\"}}", "short_factor: expected a list of 8",
	  -EINVAL },
	{ "phi3",
	  "{\"rope_parameters\": {\"rope_type\": \"longrope\", \"short_factor\": [1,1,1,1,1,1,1,1],"
	  "\"long_factor\": [1,1,1,1,1,1,1,\"x\"]}}",
	  "longrope: factor 7 is not positive", -EINVAL },
	{ "glm4_moe", "{\"partial_rotary_factor\": 2, \"rope_parameters\": {}}", "partial_rotary_factor", -EINVAL },
	{ "gpt_oss", "{\"layer_types\": [\"full_attention\"]}", "layer_types: fewer entries", -EINVAL },
	{ "gpt_oss", "{\"layer_types\": [1, 2, 3, 4]}", "layer_types: only", -ENOTSUP },
	{ "qwen3_moe", "{\"num_experts_per_tok\": 9}", "9 experts per token of 8", -EINVAL },
	{ "qwen3_moe", "{\"moe_intermediate_size\": \"$absent\"}", "moe_intermediate_size: missing", -ENOENT },
	{ "qwen3_moe", "{\"num_local_experts\": 1025}", "config.json: num_local_experts: 1025 is not within", -EINVAL },
	{ "qwen3_moe", "{\"num_local_experts\": 100000}", "num_local_experts: 100000 is not within", -EINVAL },
	{ "deepseek_v3", "{\"n_group\": 3}", "8 experts are not a multiple of 3 groups", -EINVAL },
	{ "deepseek_v3", "{\"topk_group\": 5}", "5 of 4 expert groups", -EINVAL },
	{ "deepseek_v3", "{\"topk_group\": 1}", "3 experts per token of 2", -EINVAL },
	{ "deepseek_v3", "{\"scoring_func\": \"softmax\"}", "scoring_func: only sigmoid", -ENOTSUP },
	{ "deepseek_v3", "{\"n_routed_experts\": 1025}", "config.json: n_routed_experts: 1025 is not within", -EINVAL },
	{ "deepseek_v3", "{\"kv_lora_rank\": 1024}", "a latent of 1024", -EINVAL },
	{ "deepseek_v3", "{\"qk_rope_head_dim\": 15}", "15 rotated dimensions", -EINVAL },
	{ "deepseek_v3", "{\"n_shared_experts\": 1000, \"moe_intermediate_size\": 1000000}", "n_shared_experts",
	  -EINVAL },
	{ "hunyuan_v1_moe", "{\"moe_topk\": [2, 2]}", "moe_topk: expected an integer for each layer", -EINVAL },
	{ "gemma3_text", "{\"query_pre_attn_scalar\": 0}", "query_pre_attn_scalar: out of range", -EINVAL },
	{ "gemma3_text", "{\"final_logit_softcapping\": -1}", "soft cap", -EINVAL },
	{ "qwen3", "{\"quantization_config\": {\"quant_method\": \"awq\"}}", "quant_method \"awq\" is not supported",
	  -ENOTSUP },
};

static void broken_configs_are_refused_naming_the_field(void **state)
{
	static struct hparams hp;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad_configs) / sizeof(bad_configs[0]); i++) {
		int r = parse(bad_configs[i].model, bad_configs[i].patch, &hp, &err);

		if (r >= 0)
			fail_msg("%s %s: accepted", bad_configs[i].model, bad_configs[i].patch);
		if (!strstr(err.msg, bad_configs[i].words) || strncmp(err.msg, "config.json: ", 13) != 0)
			fail_msg("%s %s: \"%s\"", bad_configs[i].model, bad_configs[i].patch, err.msg);
		assert_int_equal(r, bad_configs[i].code);
	}
}

/* ---- Folders ---- */

static char folder[64];

static void path_in_folder(const char *name, char path[128])
{
	(void)snprintf(path, 128, "%s/%s", folder, name);
}

static void put(const char *name, const void *data, size_t len)
{
	char path[128];

	path_in_folder(name, path);
	assert_int_equal(base_write_file_atomic(path, data, len, 0644, NULL), 0);
}

static int make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/ocai-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	static const char *const names[] = { "config.json", "model.safetensors", "modules.json",
		                             "1_Pooling/config.json", "1_Pooling" };
	char path[128];

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		path_in_folder(names[i], path);
		(void)remove(path);
	}
	return rmdir(folder);
}

/* Copies a fixture, in its weights replacing the first `from` after `after` by `to` of the same length. */
static void copy_model(const char *model, const char *after, const char *from, const char *to)
{
	struct base_buf data = BASE_BUF_INIT(1 << 24);
	char rest[128], *p;

	(void)snprintf(rest, sizeof(rest), "models/%s/config.json", model);
	assert_int_equal(base_read_file(test_fixture(rest), &data, NULL), 0);
	put("config.json", data.data, data.len);
	base_buf_reset(&data);
	(void)snprintf(rest, sizeof(rest), "models/%s/model.safetensors", model);
	assert_int_equal(base_read_file(test_fixture(rest), &data, NULL), 0);
	p = memmem(data.data, data.len, after, strlen(after));
	assert_non_null(p);
	p = memmem(p, data.len - (size_t)(p - data.data), from, strlen(from));
	assert_non_null(p);
	assert_int_equal(strlen(from), strlen(to));
	memcpy(p, to, strlen(to));
	put("model.safetensors", data.data, data.len);
	base_buf_done(&data);
}

static const struct {
	const char *model, *after, *from, *to, *words;
	int code;
} bad_weights[] = {
	{ "qwen3", "layers.1", "up_proj", "up_prox", "tensor model.layers.1.mlp.up_proj.weight is missing", -ENOENT },
	{ "qwen3", "lm_head", "lm_head", "lm_heap", "tensor lm_head.weight is missing", -ENOENT },
	{ "qwen3", "model.norm", "norm", "nurm", "tensor model.norm.weight is missing", -ENOENT },
	{ "qwen2", "layers.2", "k_proj.bias", "k_proj.bios", "layers.2.self_attn.k_proj.bias is missing", -ENOENT },
	{ "qwen3", "layers.0.mlp.gate_proj", "[160,64]", "[64,160]",
	  "layers.0.mlp.gate_proj.weight: shape [64, 160], the configuration asks for [160, 64]", -EINVAL },
	{ "qwen3", "layers.2.self_attn.q_norm", "[32]", "[31]", "q_norm", -EBADMSG },
	{ "qwen3", "layers.0.mlp.gate_proj", "\"BF16\"", "\"I16\" ", "gate_proj.weight: type I16 is not supported",
	  -ENOTSUP },
	{ "phi3", "layers.0.self_attn.qkv_proj", "[128,64]", "[64,128]", "qkv_proj.weight: shape [64, 128]", -EINVAL },
	{ "deepseek_v3", "layers.0.self_attn.kv_b_proj", "[128,32]", "[32,128]", "kv_b_proj.weight: shape", -EINVAL },
	{ "deepseek_v3", "layers.1.mlp.experts.7", "down_proj", "down_prox", "experts.7.down_proj.weight is missing",
	  -ENOENT },
	{ "gpt_oss", "layers.1.mlp.experts.gate_up_proj\"", "[8,64,320]", "[8,320,64]", "gate_up_proj: shape",
	  -EINVAL },
	{ "gpt_oss", "layers.1.self_attn.sinks", "sinks", "sanks", "self_attn.sinks is missing", -ENOENT },
	{ "gpt_oss", "experts.down_proj_bias", "bias", "bies", "down_proj_bias is missing", -ENOENT },
};

static void broken_weights_are_refused_naming_the_tensor(void **state)
{
	const struct kn_config config = { .max_tokens = 8 };
	struct eng_model *m = NULL;
	struct kn_backend *be;
	struct err err;

	(void)state;
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	for (size_t i = 0; i < sizeof(bad_weights) / sizeof(bad_weights[0]); i++) {
		int r;

		copy_model(bad_weights[i].model, bad_weights[i].after, bad_weights[i].from, bad_weights[i].to);
		r = eng_model_open(folder, true, be, &m, &err);
		assert_null(m);
		if (r != bad_weights[i].code)
			fail_msg("case %zu: %d \"%s\"", i, r, err.msg);
		if (!strstr(err.msg, bad_weights[i].words))
			fail_msg("case %zu: \"%s\"", i, err.msg);
	}
	kn_backend_close(be);
}

static int open_folder_with(const char *config, const char *modules, const char *pooling, struct err *err)
{
	const struct kn_config backend_config = { .max_tokens = 8 };
	struct eng_model *m = NULL;
	struct kn_backend *be;
	char path[128];
	int r;

	copy_model("qwen3", "model", "model", "model");
	if (config)
		put("config.json", config, strlen(config));
	put("modules.json", modules, strlen(modules));
	path_in_folder("1_Pooling", path);
	(void)mkdir(path, 0755);
	put("1_Pooling/config.json", pooling, strlen(pooling));
	assert_int_equal(kn_ref_open(&backend_config, &be, NULL), 0);
	r = eng_model_open(folder, true, be, &m, err);
	if (r == 0)
		r = eng_model_info(m)->pooling;
	eng_model_close(m);
	kn_backend_close(be);
	return r;
}

static void pooling_is_read_and_checked(void **state)
{
	const char *module = "[{\"type\": \"sentence_transformers.models.Transformer\", \"path\": \"\"},"
	                     "{\"type\": \"sentence_transformers.models.Pooling\", \"path\": \"1_Pooling\"}]";
	struct err err;

	(void)state;
	assert_int_equal(open_folder_with(NULL, module, "{\"pooling_mode_mean_tokens\": true}", &err), ENG_POOL_MEAN);
	assert_int_equal(open_folder_with(NULL, module, "{\"pooling_mode_cls_token\": true}", &err), ENG_POOL_CLS);
	assert_int_equal(open_folder_with(NULL, module, "{\"pooling_mode_max_tokens\": true}", &err), -ENOTSUP);
	assert_int_equal(open_folder_with(NULL, module, "{\"pooling_mode_cls_token\": 1}", &err), -EINVAL);
	assert_int_equal(open_folder_with(NULL, module, "{", &err), -EBADMSG);
	assert_int_equal(open_folder_with(NULL, "[1, {}, {\"type\": 3}]", "{}", &err), ENG_POOL_NONE);
	/* A path that leaves the folder is not followed. */
	assert_int_equal(open_folder_with(NULL, "[{\"type\": \"x.Pooling\", \"path\": \"../../etc\"}]", "{}", &err),
	                 ENG_POOL_NONE);
	assert_int_equal(open_folder_with("[]", module, "{}", &err), -EBADMSG);
}

static void what_is_no_model_is_refused(void **state)
{
	const struct kn_config config = { .max_tokens = 8 };
	struct eng_model *m = NULL;
	struct kn_backend *be;
	struct err err;
	char path[128];

	(void)state;
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	assert_int_equal(eng_model_open("/nonexistent", true, be, &m, &err), -ENOENT);
	path_in_folder("config.json", path);
	(void)remove(path);
	assert_int_equal(eng_model_open(folder, true, be, &m, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "config.json"));
	copy_model("qwen3", "model", "model", "model");
	path_in_folder("model.safetensors", path);
	assert_int_equal(eng_model_open(path, true, be, &m, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "a folder with config.json or a GGUF file"));
	assert_null(m);
	kn_backend_close(be);
}

/* ---- Rotary frequencies against their formulas ---- */

static void scaled_frequencies_follow_their_formulas(void **state)
{
	struct rope_params p;
	static struct rope_plan plan;

	(void)state;
	rope_params_init(&p);
	p.n_rot = 8;
	p.kind = ROPE_LINEAR;
	p.factor = 4;
	assert_int_equal(rope_plan_build(&p, 4096, &plan, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_true(fabs(plan.inv_freq[i] / (pow(10000, -i / 4.0) / 4) - 1) < 1e-6);

	p.kind = ROPE_ALPHA;
	p.alpha = 1000;
	assert_int_equal(rope_plan_build(&p, 4096, &plan, NULL), 0);
	for (int i = 0; i < 4; i++)
		assert_true(fabs(plan.inv_freq[i] / pow(10000 * pow(1000, 8 / 6.0), -i / 4.0) - 1) < 1e-5);
	assert_true(plan.scale == 1);

	p.kind = ROPE_LONGROPE;
	p.factor = 0;
	p.original_ctx = 1024;
	for (int i = 0; i < 4; i++) {
		p.short_factor[i] = 1 + 0.1f * (float)i;
		p.long_factor[i] = 2 + (float)i;
	}
	assert_int_equal(rope_plan_build(&p, 4096, &plan, NULL), 0);
	assert_int_equal(plan.long_above, 1024);
	assert_true(fabs(plan.scale - sqrt(1 + log(4) / log(1024))) < 1e-6);
	for (int i = 0; i < 4; i++) {
		assert_true(fabs(plan.inv_freq[i] * p.short_factor[i] / pow(10000, -i / 4.0) - 1) < 1e-6);
		assert_true(fabs(plan.inv_freq_long[i] * p.long_factor[i] / pow(10000, -i / 4.0) - 1) < 1e-6);
	}
}

/* Phi-3 with two sets of factors: the planned context chooses, once for all tokens. */
static void longrope_chooses_its_factors_by_the_planned_context(void **state)
{
	const char *patch = "{\"max_position_embeddings\": 256, \"original_max_position_embeddings\": 64,"
	                    "\"rope_parameters\": {\"rope_type\": \"longrope\", \"rope_theta\": 10000,"
	                    "\"original_max_position_embeddings\": 64, \"attention_factor\": 1,"
	                    "\"short_factor\": [1,1,1,1,1,1,1,1], \"long_factor\": [2,2,2,2,2,2,2,2]}}";
	const struct kn_config config = { .max_tokens = 8 };
	const int32_t ids[3] = { 5, 6, 7 };
	float logits[3][640];
	json_t *patched_config = patched("phi3", patch);
	char *text = json_dumps(patched_config, 0);
	struct eng_model *m;
	struct kn_backend *be;

	(void)state;
	copy_model("phi3", "model", "model", "model");
	put("config.json", text, strlen(text));
	assert_int_equal(kn_ref_open(&config, &be, NULL), 0);
	for (int i = 0; i < 3; i++) {
		const uint32_t n_ctx[] = { 0, 64, 65 }, page = 0;
		const struct eng_runner_config rc = { .n_pages = 1,
			                              .page_tokens = 16,
			                              .max_tokens = 4,
			                              .max_outputs = 4,
			                              .kv_dtype = KN_F32,
			                              .n_ctx = n_ctx[i] };
		const struct eng_step_seq seq = { .pages = &page, .ids = ids, .n_ids = 3, .n_out = 1 };
		struct eng_runner *r;

		m = open_model(folder, be);
		assert_int_equal(eng_runner_new(m, &rc, &r, NULL), 0);
		memcpy(logits[i], step(r, &seq, 1), sizeof(logits[i]));
		eng_runner_free(r);
		eng_model_close(m);
	}
	assert_memory_equal(logits[0], logits[2], sizeof(logits[0])); /* both long */
	assert_true(compare(logits[0], logits[1], 640).rel_l2 > 1e-3);
	free(text);
	json_decref(patched_config);
	kn_backend_close(be);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(older_rope_keys_mean_the_same),
		cmocka_unit_test(absent_keys_have_the_defaults_of_transformers),
		cmocka_unit_test(experts_may_be_described_per_layer),
		cmocka_unit_test(yarn_reaches_beyond_the_written_context),
		cmocka_unit_test(deepseek_yarn_scales_attention),
		cmocka_unit_test(broken_configs_are_refused_naming_the_field),
		cmocka_unit_test_setup_teardown(broken_weights_are_refused_naming_the_tensor, make_folder,
		                                remove_folder),
		cmocka_unit_test_setup_teardown(pooling_is_read_and_checked, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(what_is_no_model_is_refused, make_folder, remove_folder),
		cmocka_unit_test(scaled_frequencies_follow_their_formulas),
		cmocka_unit_test_setup_teardown(longrope_chooses_its_factors_by_the_planned_context, make_folder,
		                                remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
