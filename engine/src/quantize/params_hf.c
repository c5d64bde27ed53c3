/* config.json to ARCH.* keys, under the names that llama.cpp gave them. What is common is a table of
 * integers and floats; rotary scaling, mixtures of experts and latent attention have a function each. */
#include "quantize/quantize_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "quantize/arch.h"

static const char where[] = "config.json";

struct params {
	struct qz_plan *plan;
	const struct qz_arch *arch;
	const json_t *config;
	const json_t *rope; /* rope_parameters or rope_scaling; NULL when there is none */
	uint32_t n_embd, n_head, n_kv_head, head_dim, n_ctx;
	struct err *err;
};

/* -------- reading ------------------------------------------------------------------------------------- */

static int need_u32(struct params *p, const char *key, uint32_t *ret)
{
	return base_json_get_u32(p->config, where, key, ret, p->err);
}

/* The value or the default; errors are left in *r, which stops later reads. */
static uint32_t opt_u32(struct params *p, const json_t *obj, const char *key, uint32_t fallback, int *r)
{
	uint32_t v = fallback;
	int got = *r < 0 ? 0 : base_json_opt_u32(obj, where, key, &v, p->err);

	if (got < 0)
		*r = got;
	return v;
}

static double opt_double(struct params *p, const json_t *obj, const char *key, double fallback, int *r)
{
	double v = fallback;
	int got = *r < 0 ? 0 : base_json_opt_double(obj, where, key, &v, p->err);

	if (got < 0)
		*r = got;
	return v;
}

/* A number, or the first of an array of them (Hunyuan writes one per layer; they must agree). */
static int per_layer_u32(struct params *p, const char *key, uint32_t *ret)
{
	json_t *v = json_object_get(p->config, key), *item;
	size_t i;

	if (!json_is_array(v))
		return need_u32(p, key, ret);
	json_array_foreach(v, i, item)
	{
		if (!json_is_integer(item) || json_integer_value(item) != json_integer_value(json_array_get(v, 0)) ||
		    json_integer_value(item) < 0 || json_integer_value(item) > 65536)
			return err_set(p->err, -ENOTSUP, "%s: %s: layers that differ cannot be written", where, key);
	}
	if (json_array_size(v) == 0)
		return err_set(p->err, -EINVAL, "%s: %s: empty", where, key);
	*ret = (uint32_t)json_integer_value(json_array_get(v, 0));
	return 0;
}

/* -------- writing ------------------------------------------------------------------------------------- */

static int key_u32(struct params *p, const char *rest, uint32_t value)
{
	return qz_key_u32(p->plan, p->arch->gguf, rest, value);
}

static int key_f32(struct params *p, const char *rest, double value)
{
	return qz_key_f32(p->plan, p->arch->gguf, rest, value);
}

static int key_bool(struct params *p, const char *rest, bool value)
{
	char key[128];

	(void)snprintf(key, sizeof(key), "%s.%s", p->arch->gguf, rest);
	return eng_gguf_add_bool(p->plan->writer, key, value);
}

static int write_common(struct params *p)
{
	int r = 0;
	uint32_t n_ff = opt_u32(p, p->config, "intermediate_size", 0, &r);
	uint32_t n_vocab = opt_u32(p, p->config, "vocab_size", 0, &r);
	double eps = opt_double(p, p->config, "rms_norm_eps", 1e-6, &r);
	const struct {
		const char *rest;
		uint32_t value;
	} keys[] = {
		{ "block_count", p->plan->n_layer },
		{ "context_length", p->n_ctx },
		{ "embedding_length", p->n_embd },
		{ "feed_forward_length", n_ff },
		{ "attention.head_count", p->n_head },
		{ "attention.head_count_kv", p->arch->mla ? 1 : p->n_kv_head },
		{ "vocab_size", n_vocab },
	};

	if (r == 0)
		r = key_f32(p, "attention.layer_norm_rms_epsilon", eps);
	for (size_t i = 0; r == 0 && i < sizeof(keys) / sizeof(keys[0]); i++)
		r = key_u32(p, keys[i].rest, keys[i].value);
	return r;
}

static int write_head_sizes(struct params *p)
{
	int r;

	if (!p->arch->mla) {
		r = key_u32(p, "attention.key_length", p->head_dim);
		return r == 0 ? key_u32(p, "attention.value_length", p->head_dim) : r;
	}
	/* Latent attention counts as attention with one K/V head: the latent and the rotated part. */
	uint32_t rank = 0, rope = 0, nope = 0, v = 0, q_rank;

	r = need_u32(p, "kv_lora_rank", &rank);
	r = r == 0 ? need_u32(p, "qk_rope_head_dim", &rope) : r;
	r = r == 0 ? need_u32(p, "qk_nope_head_dim", &nope) : r;
	r = r == 0 ? need_u32(p, "v_head_dim", &v) : r;
	q_rank = opt_u32(p, p->config, "q_lora_rank", 0, &r);
	r = r == 0 ? key_u32(p, "attention.kv_lora_rank", rank) : r;
	r = r == 0 && q_rank ? key_u32(p, "attention.q_lora_rank", q_rank) : r;
	r = r == 0 ? key_u32(p, "attention.key_length", rank + rope) : r;
	r = r == 0 ? key_u32(p, "attention.value_length", rank) : r;
	r = r == 0 ? key_u32(p, "attention.key_length_mla", nope + rope) : r;
	r = r == 0 ? key_u32(p, "attention.value_length_mla", v) : r;
	return r;
}

/* -------- experts ------------------------------------------------------------------------------------- */

/* Sizes are read off the tensors: configurations disagree on which key means what. */
static const struct qz_tensor *planned(const struct params *p, const char *suffix)
{
	for (size_t i = 0; i < p->plan->n_tensors; i++) {
		const struct qz_tensor *t = &p->plan->tensors[i];
		const char *dot = strncmp(t->name, "blk.", 4) == 0 ? strchr(t->name + 4, '.') : NULL;

		if (dot && strcmp(dot + 1, suffix) == 0)
			return t;
	}
	return NULL;
}

static int write_router(struct params *p)
{
	int r = 0;
	uint32_t n_group = opt_u32(p, p->config, "n_group", 0, &r);
	uint32_t top_group = opt_u32(p, p->config, "topk_group", 0, &r);
	double scale = opt_double(p, p->config, "routed_scaling_factor", 0.0, &r);
	bool norm = false;
	int has_norm = r < 0 ? r : base_json_opt_bool(p->config, where, "norm_topk_prob", &norm, p->err);

	r = has_norm < 0 ? has_norm : 0;
	if (r == 0 && n_group)
		r = key_u32(p, "expert_group_count", n_group);
	if (r == 0 && top_group)
		r = key_u32(p, "expert_group_used_count", top_group);
	if (r == 0 && scale != 0.0)
		r = key_f32(p, "expert_weights_scale", scale);
	if (r == 0 && has_norm > 0)
		r = key_bool(p, "expert_weights_norm", norm);
	if (r == 0 && p->arch->sigmoid_router)
		r = key_u32(p, "expert_gating_func", 2);
	return r;
}

static const struct qz_tensor *planned_in(const struct params *p, uint32_t layer, const char *suffix)
{
	char name[64];

	(void)snprintf(name, sizeof(name), "blk.%u.%s", layer, suffix);
	for (size_t i = 0; i < p->plan->n_tensors; i++) {
		if (strcmp(p->plan->tensors[i].name, name) == 0)
			return &p->plan->tensors[i];
	}
	return NULL;
}

/* Layers without experts must be the first ones; GGUF can say nothing else. */
static int write_dense_layers(struct params *p)
{
	uint32_t n_dense = 0, n_lead = 0;

	for (uint32_t i = 0; i < p->plan->n_layer; i++) {
		if (!planned_in(p, i, "ffn_down.weight"))
			continue;
		n_lead += n_dense++ == i;
	}
	if (n_dense != n_lead)
		return err_set(p->err, -ENOTSUP, "%s: dense layers after layers with experts cannot be written", where);
	if (n_dense == 0)
		return 0;
	if (!p->arch->dense_lead)
		qz_note(p->plan, "the first %u layers are dense: llama.cpp cannot load such a %s", n_dense,
		        p->arch->gguf);
	return key_u32(p, "leading_dense_block_count", n_dense);
}

static int write_experts(struct params *p)
{
	const struct qz_tensor *down = planned(p, "ffn_down_exps.weight"),
	                       *shared = planned(p, "ffn_down_shexp.weight");
	uint32_t top_k = 0, n_shared;
	int r = 0;

	if (!down)
		return 0;
	r = json_object_get(p->config, "moe_topk") ? per_layer_u32(p, "moe_topk", &top_k)
	                                           : need_u32(p, "num_experts_per_tok", &top_k);
	n_shared = opt_u32(p, p->config, "n_shared_experts", 1, &r);
	r = r == 0 ? key_u32(p, "expert_count", (uint32_t)down->shape[0]) : r;
	r = r == 0 ? key_u32(p, "expert_used_count", top_k) : r;
	r = r == 0 ? key_u32(p, "expert_feed_forward_length", (uint32_t)down->cols) : r;
	if (r == 0 && shared) {
		r = key_u32(p, "expert_shared_count", n_shared);
		r = r == 0 ? key_u32(p, "expert_shared_feed_forward_length", (uint32_t)shared->cols) : r;
	}
	r = r == 0 ? write_dense_layers(p) : r;
	return r == 0 ? write_router(p) : r;
}

/* -------- rotary positions ------------------------------------------------------------------------------ */

/* One divisor per pair: what llama3's scheme makes of each frequency. */
static int add_llama3_factors(struct params *p)
{
	int r = 0;
	double base = opt_double(p, p->config, "rope_theta", 10000.0, &r), factor, low, high, old_ctx;
	uint32_t n = p->head_dim / 2;
	CLEANUP(freep) float *factors = calloc(n ? n : 1, sizeof(*factors));

	base = opt_double(p, p->rope, "rope_theta", base, &r);
	factor = opt_double(p, p->rope, "factor", 8.0, &r);
	low = opt_double(p, p->rope, "low_freq_factor", 1.0, &r);
	high = opt_double(p, p->rope, "high_freq_factor", 4.0, &r);
	old_ctx = opt_double(p, p->rope, "original_max_position_embeddings", 8192.0, &r);
	if (r < 0 || !factors)
		return r < 0 ? r : -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		double freq = pow(base, -2.0 * i / p->head_dim), wavelength = 2.0 * M_PI / freq;
		double smooth = (old_ctx / wavelength - low) / (high - low);

		factors[i] = wavelength < old_ctx / high  ? 1.0f
		             : wavelength > old_ctx / low ? (float)factor
		                                          : (float)(1.0 / ((1.0 - smooth) / factor + smooth));
	}
	return qz_plan_add_values(p->plan, "rope_freqs.weight", factors, n);
}

static int add_factor_list(struct params *p, const char *key, const char *name)
{
	json_t *list = json_object_get(p->rope, key), *item;
	size_t n = json_array_size(list), i;
	CLEANUP(freep) float *factors = NULL;

	if (!json_is_array(list) || n == 0)
		return 0;
	factors = calloc(n, sizeof(*factors));
	if (!factors)
		return -ENOMEM;
	json_array_foreach(list, i, item) factors[i] = (float)json_number_value(item);
	return qz_plan_add_values(p->plan, name, factors, n);
}

/* The attention factor that goes with longrope's lists. */
static int write_longrope(struct params *p, uint32_t old_ctx)
{
	double scale = old_ctx ? (double)p->n_ctx / old_ctx : 1.0;
	int r;

	r = key_f32(p, "rope.scaling.attn_factor", scale > 1.0 ? sqrt(1.0 + log(scale) / log((double)old_ctx)) : 1.0);
	r = r == 0 ? add_factor_list(p, "long_factor", "rope_factors_long.weight") : r;
	return r == 0 ? add_factor_list(p, "short_factor", "rope_factors_short.weight") : r;
}

static int write_yarn(struct params *p)
{
	static const struct {
		const char *key, *rest;
	} extra[] = {
		{ "attention_factor", "rope.scaling.yarn_attn_factor" },
		{ "beta_fast", "rope.scaling.yarn_beta_fast" },
		{ "beta_slow", "rope.scaling.yarn_beta_slow" },
	};
	int r = 0;
	uint32_t old_ctx = opt_u32(p, p->rope, "original_max_position_embeddings", p->n_ctx, &r);
	double mscale = opt_double(p, p->rope, "mscale_all_dim", 0.0, &r);

	r = r == 0 ? qz_key_text(p->plan, p->arch->gguf, "rope.scaling.type", "yarn") : r;
	r = r == 0 ? key_u32(p, "rope.scaling.original_context_length", old_ctx) : r;
	for (size_t i = 0; r == 0 && i < sizeof(extra) / sizeof(extra[0]); i++) {
		double v = opt_double(p, p->rope, extra[i].key, NAN, &r);

		if (r == 0 && !isnan(v))
			r = key_f32(p, extra[i].rest, v);
	}
	if (r == 0 && mscale != 0.0)
		r = key_f32(p, "rope.scaling.yarn_log_multiplier", 0.1 * mscale);
	return r;
}

static int write_scaling(struct params *p, const char *type, double base)
{
	int r = 0;
	double factor = opt_double(p, p->rope, "factor", 1.0, &r), alpha = opt_double(p, p->rope, "alpha", 0.0, &r);
	uint32_t old_ctx;

	if (r < 0)
		return r;
	if (strcmp(type, "dynamic") == 0 && alpha > 0.0) /* Hunyuan: a larger base, known beforehand */
		return key_f32(p, "rope.freq_base", base * pow(alpha, p->head_dim / (p->head_dim - 2.0)));
	r = key_f32(p, "rope.freq_base", base);
	if (r < 0 || strcmp(type, "default") == 0)
		return r;
	if (strcmp(type, "llama3") == 0)
		return add_llama3_factors(p);
	if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0) {
		old_ctx = opt_u32(p, p->config, "original_max_position_embeddings", p->n_ctx, &r);
		old_ctx = opt_u32(p, p->rope, "original_max_position_embeddings", old_ctx, &r);
		return r == 0 ? write_longrope(p, old_ctx) : r;
	}
	if (strcmp(type, "yarn") == 0)
		r = write_yarn(p);
	else if (strcmp(type, "linear") == 0)
		r = qz_key_text(p->plan, p->arch->gguf, "rope.scaling.type", "linear");
	else
		return err_set(p->err, -ENOTSUP, "%s: rope type '%s' cannot be written", where, type);
	return r == 0 ? key_f32(p, "rope.scaling.factor", factor) : r;
}

static int write_rope(struct params *p)
{
	static const char *const type_keys[] = { "type", "rope_type" };
	const char *type = "default";
	uint32_t n_rot = p->head_dim;
	double base, part;
	int r = 0;

	base = opt_double(p, p->config, "rope_theta", 10000.0, &r);
	base = opt_double(p, p->rope, "rope_theta", base, &r);
	part = opt_double(p, p->config, "partial_rotary_factor", 1.0, &r);
	part = opt_double(p, p->rope, "partial_rotary_factor", part, &r);
	for (size_t i = 0; r >= 0 && i < 2; i++)
		r = base_json_opt_string(p->rope, where, type_keys[i], &type, p->err);
	if (r < 0)
		return r;
	if (!(part > 0.0 && part <= 1.0))
		return err_set(p->err, -ERANGE, "%s: partial_rotary_factor: out of range", where);
	n_rot = (uint32_t)(part * p->head_dim);
	r = p->arch->mla ? need_u32(p, "qk_rope_head_dim", &n_rot) : 0;
	r = r == 0 ? key_u32(p, "rope.dimension_count", n_rot) : r;
	return r == 0 ? write_scaling(p, type, base) : r;
}

/* -------- what only some have ------------------------------------------------------------------------------ */

static int write_window(struct params *p)
{
	bool used = true;
	uint32_t window = 0;
	int r = base_json_opt_bool(p->config, where, "use_sliding_window", &used, p->err);

	if (r >= 0)
		r = base_json_opt_u32(p->config, where, "sliding_window", &window, p->err);
	if (r < 0)
		return r;
	if (strcmp(p->arch->gguf, "phi3") == 0) /* 0 tells Phi-4 from its elders, which assume a window */
		return key_u32(p, "attention.sliding_window", used ? window : 0);
	if (!used || window == 0)
		return 0;
	if (strcmp(p->arch->model_type, "mistral") == 0)
		qz_note(p->plan, "a window of %u tokens: llama.cpp's llama architecture ignores it beyond that length",
		        window);
	return key_u32(p, "attention.sliding_window", window);
}

/* gemma3: local layers have a base of their own; the pattern is written when it is not the usual one. */
static int write_local_layers(struct params *p)
{
	const json_t *local = json_object_get(json_object_get(p->config, "rope_parameters"), "sliding_attention");
	int r = 0;
	double base = opt_double(p, p->config, "rope_local_base_freq", 0.0, &r), scalar;
	uint32_t pattern = opt_u32(p, p->config, "_sliding_window_pattern", 0, &r);

	base = json_is_object(local) ? opt_double(p, local, "rope_theta", base, &r) : base;
	pattern = opt_u32(p, p->config, "sliding_window_pattern", pattern, &r); /* this one wins when loading, too */
	scalar = opt_double(p, p->config, "query_pre_attn_scalar", 0.0, &r);
	if (r == 0 && base > 0.0)
		r = key_f32(p, "rope.freq_base_swa", base);
	if (r == 0 && pattern > 0)
		r = key_u32(p, "attention.sliding_window_pattern", pattern);
	if (r == 0 && scalar > 0.0 && scalar != p->head_dim)
		r = key_f32(p, "attention.scale", 1.0 / sqrt(scalar));
	return r;
}

/* Every how many layers there is one with full attention, which is all that GGUF can say. */
static int full_attention_interval(struct params *p, uint32_t *ret)
{
	const json_t *types = json_object_get(p->config, "layer_types"), *type;
	uint32_t every = 0;
	size_t i;
	int r = 0;

	*ret = opt_u32(p, p->config, "full_attention_interval", 4, &r);
	json_array_foreach((json_t *)types, i, type)
	{
		const char *name = json_string_value(type);
		bool full = name && strcmp(name, "full_attention") == 0;

		if (full && every == 0)
			every = (uint32_t)i + 1;
		if (every && full != ((i + 1) % every == 0))
			return err_set(p->err, -ENOTSUP,
			               "%s: layer_types: only every n-th layer can have full attention", where);
	}
	if (json_array_size(types) > 0)
		*ret = every ? every : (uint32_t)json_array_size(types) + 1;
	return r;
}

static int write_linear(struct params *p)
{
	uint32_t k_heads = 0, v_heads = 0, k_dim = 0, v_dim = 0, kernel = 0, every = 0;
	int r;

	r = need_u32(p, "linear_num_key_heads", &k_heads);
	r = r == 0 ? need_u32(p, "linear_num_value_heads", &v_heads) : r;
	r = r == 0 ? need_u32(p, "linear_key_head_dim", &k_dim) : r;
	r = r == 0 ? need_u32(p, "linear_value_head_dim", &v_dim) : r;
	r = r == 0 ? need_u32(p, "linear_conv_kernel_dim", &kernel) : r;
	r = r == 0 ? full_attention_interval(p, &every) : r;
	r = r == 0 ? key_u32(p, "ssm.group_count", k_heads) : r;
	r = r == 0 ? key_u32(p, "ssm.time_step_rank", v_heads) : r;
	r = r == 0 ? key_u32(p, "ssm.state_size", k_dim) : r;
	r = r == 0 ? key_u32(p, "ssm.inner_size", v_heads * v_dim) : r;
	r = r == 0 ? key_u32(p, "ssm.conv_kernel", kernel) : r;
	return r == 0 ? key_u32(p, "full_attention_interval", every) : r;
}

int qz_write_params(struct qz_plan *plan, const struct qz_arch *arch, const json_t *config, struct err *err)
{
	struct params p = { .plan = plan, .arch = arch, .config = config, .err = err };
	const json_t *rope = json_object_get(config, "rope_parameters"), *full;
	int r;

	if (!json_is_object(rope))
		rope = json_object_get(config, "rope_scaling");
	full = json_object_get(rope, "full_attention");
	p.rope = json_is_object(full) ? full : rope;
	r = need_u32(&p, "hidden_size", &p.n_embd);
	r = r == 0 ? need_u32(&p, "num_attention_heads", &p.n_head) : r;
	r = r == 0 ? need_u32(&p, "max_position_embeddings", &p.n_ctx) : r;
	if (r == 0 && (p.n_head == 0 || p.n_head > p.n_embd))
		r = err_set(err, -ERANGE, "%s: num_attention_heads: out of range", where);
	p.n_kv_head = opt_u32(&p, config, "num_key_value_heads", p.n_head, &r);
	p.head_dim = opt_u32(&p, config, "head_dim", r == 0 ? p.n_embd / p.n_head : 0, &r);
	if (r == 0 && (p.head_dim == 0 || p.head_dim > 65536))
		r = err_set(err, -ERANGE, "%s: head_dim: out of range", where);
	if (r < 0)
		return r;
	r = eng_gguf_add_string(plan->writer, "general.architecture", arch->gguf, strlen(arch->gguf));
	r = r == 0 ? write_common(&p) : r;
	r = r == 0 ? write_head_sizes(&p) : r;
	r = r == 0 ? write_experts(&p) : r;
	r = r == 0 ? write_rope(&p) : r;
	r = r == 0 ? write_window(&p) : r;
	r = r == 0 && arch->hybrid ? write_linear(&p) : r;
	r = r == 0 && strcmp(arch->gguf, "gemma3") == 0 ? write_local_layers(&p) : r;
	if (r < 0 && err && !err->code)
		return err_set(err, r, "writing the %s keys: %s", arch->gguf, strerror(-r));
	return r;
}
