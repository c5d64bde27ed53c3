/* config.json of a Hugging Face folder to hyperparameters: the older keys (rope_theta, rope_scaling with
 * type or rope_type) and the newer ones (rope_parameters, flat or per layer type), with the defaults of
 * the transformers library for what is absent. Errors name file and field.
 *
 * The reader keeps the first error and turns every later call into nothing, so that it reads as the list
 * of fields that it is. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "model/hparams.h"

#define REQUIRED UINT32_MAX

struct cfg {
	const json_t *obj;
	const char *where;
	const struct arch *arch;
	struct hparams *hp;
	struct err *err;
	int r; /* the first error */
};

static void fail(struct cfg *c, int code, const char *key, const char *what)
{
	if (c->r == 0)
		c->r = err_set(c->err, code, "%s: %s: %s", c->where, key, what);
}

static uint32_t in_range(struct cfg *c, const char *key, int64_t v, uint32_t min, uint32_t max)
{
	if (c->r == 0 && (v < min || v > max))
		c->r = err_set(c->err, -EINVAL, "%s: %s: %lld is not within %u and %u", c->where, key, (long long)v,
		               min, max);
	return c->r == 0 ? (uint32_t)v : min;
}

/* A missing or null field is dflt; dflt REQUIRED makes that an error. */
static uint32_t get_u32(struct cfg *c, const char *key, uint32_t dflt, uint32_t min, uint32_t max)
{
	int64_t v = dflt;
	int r;

	if (c->r < 0)
		return min;
	r = base_json_opt_i64(c->obj, c->where, key, &v, c->err);
	if (r < 0)
		c->r = r;
	else if (r == 0 && dflt == REQUIRED)
		fail(c, -ENOENT, key, "missing");
	return in_range(c, key, v, min, max);
}

static double get_double_of(struct cfg *c, const json_t *obj, const char *key, double dflt)
{
	double v = dflt;
	int r;

	if (c->r < 0)
		return dflt;
	r = base_json_opt_double(obj, c->where, key, &v, c->err);
	if (r < 0)
		c->r = r;
	else if (!isfinite(v))
		fail(c, -EINVAL, key, "not a finite number");
	return v;
}

static double get_double(struct cfg *c, const char *key, double dflt)
{
	return get_double_of(c, c->obj, key, dflt);
}

static bool get_bool(struct cfg *c, const char *key, bool dflt)
{
	bool v = dflt;
	int r;

	if (c->r < 0)
		return dflt;
	r = base_json_opt_bool(c->obj, c->where, key, &v, c->err);
	if (r < 0)
		c->r = r;
	return v;
}

static const char *get_string_of(struct cfg *c, const json_t *obj, const char *key, const char *dflt)
{
	const char *v = dflt;
	int r;

	if (c->r < 0)
		return dflt;
	r = base_json_opt_string(obj, c->where, key, &v, c->err);
	if (r < 0)
		c->r = r;
	return v;
}

static json_t *get_array_of(struct cfg *c, const json_t *obj, const char *key)
{
	json_t *v = NULL;
	int r;

	if (c->r < 0)
		return NULL;
	r = base_json_opt_array(obj, c->where, key, &v, c->err);
	if (r < 0)
		c->r = r;
	return v;
}

static bool has(const struct cfg *c, const char *key)
{
	const json_t *v = json_object_get(c->obj, key);

	return v && !json_is_null(v);
}

static bool is_null(const struct cfg *c, const char *key)
{
	return json_is_null(json_object_get(c->obj, key));
}

/* The first of the names that is there: families disagree about what to call some fields. */
static const char *which(const struct cfg *c, const char *a, const char *b, const char *d)
{
	return has(c, a) ? a : has(c, b) ? b : has(c, d) ? d : a;
}

/* One number for all layers, or a list with one for each. */
static uint32_t get_u32_at(struct cfg *c, const char *key, uint32_t layer, uint32_t dflt, uint32_t min, uint32_t max)
{
	const json_t *v = json_object_get(c->obj, key);

	if (!json_is_array(v))
		return get_u32(c, key, dflt, min, max);
	v = json_array_get(v, layer);
	if (!json_is_integer(v)) {
		fail(c, -EINVAL, key, "expected an integer for each layer");
		return min;
	}
	return in_range(c, key, json_integer_value(v), min, max);
}

/* ---- Sizes ---- */

static void read_sizes(struct cfg *c)
{
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;
	uint32_t kv_default, dim_default;

	hp->n_vocab = get_u32(c, "vocab_size", REQUIRED, 1, HP_MAX_VOCAB);
	hp->n_embd = get_u32(c, "hidden_size", REQUIRED, 1, HP_MAX_EMBD);
	hp->n_layer = get_u32(c, "num_hidden_layers", REQUIRED, 1, HP_MAX_LAYERS);
	hp->n_head = get_u32(c, "num_attention_heads", REQUIRED, 1, HP_MAX_HEADS);
	hp->n_ctx = get_u32(c, "max_position_embeddings", a->n_ctx_default, 1, HP_MAX_CTX);
	hp->eps = (float)get_double(c, a->encoder ? "layer_norm_eps" : "rms_norm_eps", a->eps_default);
	hp->tied = get_bool(c, "tie_word_embeddings", a->tied_default);

	kv_default = is_null(c, "num_key_value_heads") || !a->kv_head_default ? hp->n_head : a->kv_head_default;
	hp->n_kv_head = get_u32(c, "num_key_value_heads", kv_default, 1, HP_MAX_HEADS);
	dim_default = is_null(c, "head_dim") || !a->head_dim_default ? hp->n_embd / hp->n_head : a->head_dim_default;
	hp->head_dim = get_u32(c, "head_dim", dim_default, 1, HP_MAX_HEAD_DIM);
}

static bool bias(struct cfg *c, enum bias kind, const char *key, const char *key_default, bool dflt)
{
	if (kind == BIAS_CONFIG)
		return get_bool(c, key ? key : key_default, dflt);
	return kind == BIAS_ALWAYS;
}

/* What only encoders have, and what of it is not known here. */
static void read_encoder(struct cfg *c)
{
	const char *positions = get_string_of(c, c->obj, "position_embedding_type", "absolute");

	c->hp->n_types = get_u32(c, "type_vocab_size", 2, 1, HP_MAX_TYPES);
	c->hp->headless = true;
	if (c->r == 0 && strcmp(positions, "absolute") != 0)
		fail(c, -ENOTSUP, "position_embedding_type", "only absolute positions are supported");
	if (get_bool(c, "is_decoder", false))
		fail(c, -ENOTSUP, "is_decoder", "not supported");
}

static void read_attention(struct cfg *c)
{
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;
	double scalar = hp->head_dim;

	hp->qkv_bias = bias(c, a->qkv_bias, a->attn_bias_key, "attention_bias", a->attn_bias_default);
	hp->o_bias = bias(c, a->o_bias, a->attn_bias_key, "attention_bias", a->attn_bias_default);
	hp->mlp_bias = bias(c, a->mlp_bias, a->mlp_bias_key, "mlp_bias", false);
	hp->qk_norm = a->qk_norm != QK_NORM_NONE && (!a->qk_norm_key || get_bool(c, a->qk_norm_key, false));
	hp->rope_interleaved = a->rope_interleaved;

	if (get_bool(c, "use_bidirectional_attention", false))
		fail(c, -ENOTSUP, "use_bidirectional_attention", "only causal attention is supported");
	if (a->has_query_scalar)
		scalar = get_double(c, "query_pre_attn_scalar", 256);
	if (a->attn == ATTN_MLA) {
		hp->q_lora = is_null(c, "q_lora_rank") ? 0 : get_u32(c, "q_lora_rank", 1536, 0, HP_MAX_EMBD);
		hp->kv_lora = get_u32(c, "kv_lora_rank", 512, 1, HP_MAX_HEAD_DIM);
		hp->qk_nope = get_u32(c, "qk_nope_head_dim", 128, 1, HP_MAX_HEAD_DIM);
		hp->qk_rope = get_u32(c, "qk_rope_head_dim", 64, 2, HP_MAX_HEAD_DIM);
		hp->v_head = get_u32(c, "v_head_dim", 128, 1, HP_MAX_HEAD_DIM);
		hp->rope_interleaved = get_bool(c, "rope_interleave", a->rope_interleaved);
		scalar = hp->qk_nope + hp->qk_rope;
	}
	if (c->r == 0 && !(scalar > 0 && scalar < 1e6))
		fail(c, -EINVAL, "query_pre_attn_scalar", "out of range");
	hp->attn_scale = (float)(1 / sqrt(scalar));
	hp->attn_softcap = (float)get_double(c, "attn_logit_softcapping", 0);
	hp->final_softcap = (float)get_double(c, "final_logit_softcapping", 0);
	hp->embed_scale = a->embed_scaled ? sqrtf((float)hp->n_embd) : 1;
}

static void read_activation(struct cfg *c)
{
	const char *key = has(c, "hidden_activation") ? "hidden_activation" : "hidden_act";
	const char *name = get_string_of(c, c->obj, key, NULL);

	c->hp->act = c->arch->act;
	/* gpt-oss calls its own kind "silu"; gemma3's older hidden_act is superseded by hidden_activation. */
	if (!name || c->arch->act == KN_ACT_SWIGLU_OSS || c->r < 0)
		return;
	if (c->arch->encoder && strcmp(name, "gelu") == 0)
		c->hp->act = KN_ACT_GELU;
	else if (c->arch->encoder)
		c->r = err_set(c->err, -ENOTSUP, "%s: %s: \"%s\" is not supported in encoders", c->where, key, name);
	else if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0)
		c->hp->act = KN_ACT_SILU;
	else if (strcmp(name, "gelu_pytorch_tanh") == 0 || strcmp(name, "gelu_new") == 0)
		c->hp->act = KN_ACT_GELU_TANH;
	else
		c->r = err_set(c->err, -ENOTSUP, "%s: %s: \"%s\" is not supported", c->where, key, name);
}

/* ---- Rotary positions ---- */

static void read_factors(struct cfg *c, const json_t *obj, const char *key, uint32_t n, float *ret)
{
	const json_t *list = get_array_of(c, obj, key);

	if (c->r < 0)
		return;
	if (!list || json_array_size(list) != n) {
		c->r = err_set(c->err, -EINVAL, "%s: %s: expected a list of %u numbers", c->where, key, n);
		return;
	}
	for (uint32_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);

		ret[i] = (float)json_number_value(v); /* 0 for what is no number, which longrope refuses */
	}
}

static int rope_kind(const char *type, bool has_alpha)
{
	if (strcmp(type, "default") == 0)
		return ROPE_DEFAULT;
	if (strcmp(type, "linear") == 0)
		return ROPE_LINEAR;
	/* Plain dynamic NTK starts to scale only beyond max_position_embeddings, which is our limit. */
	if (strcmp(type, "dynamic") == 0)
		return has_alpha ? ROPE_ALPHA : ROPE_DEFAULT;
	if (strcmp(type, "llama3") == 0)
		return ROPE_LLAMA3;
	if (strcmp(type, "yarn") == 0)
		return ROPE_YARN;
	if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0)
		return ROPE_LONGROPE;
	return -1;
}

/* p from one object of parameters (NULL: none given). */
static void read_rope_object(struct cfg *c, const json_t *obj, double theta, struct rope_params *p)
{
	const char *type;
	double partial = c->arch->partial_rotary ? c->arch->partial_rotary : 1;
	double orig;
	bool truncate = true;
	int kind, r;

	rope_params_init(p);
	partial = get_double(c, "partial_rotary_factor", partial);
	partial = get_double_of(c, obj, "partial_rotary_factor", partial);
	if (c->r == 0 && !(partial > 0 && partial <= 1))
		fail(c, -EINVAL, "partial_rotary_factor", "not within 0 and 1");
	if (c->r < 0)
		return;
	p->n_rot = c->arch->attn == ATTN_MLA ? c->hp->qk_rope : (uint32_t)(c->hp->head_dim * partial);
	p->theta = get_double_of(c, obj, "rope_theta", theta);
	type = get_string_of(c, obj, "type", "default");
	type = get_string_of(c, obj, "rope_type", type);
	p->alpha = get_double_of(c, obj, "alpha", 0);
	if (c->r < 0)
		return;
	kind = rope_kind(type, p->alpha > 0);
	if (kind < 0) {
		c->r = err_set(c->err, -ENOTSUP, "%s: rope_type: \"%s\" is not supported", c->where, type);
		return;
	}
	p->kind = (enum rope_kind)kind;
	p->factor = get_double_of(c, obj, "factor", 0);
	p->attn_factor = get_double_of(c, obj, "attention_factor", 0);
	p->low_freq_factor = get_double_of(c, obj, "low_freq_factor", 0);
	p->high_freq_factor = get_double_of(c, obj, "high_freq_factor", 0);
	p->beta_fast = get_double_of(c, obj, "beta_fast", p->beta_fast);
	p->beta_slow = get_double_of(c, obj, "beta_slow", p->beta_slow);
	p->mscale = get_double_of(c, obj, "mscale", 0);
	p->mscale_all = get_double_of(c, obj, "mscale_all_dim", 0);
	r = base_json_opt_bool(obj, c->where, "truncate", &truncate, c->err);
	if (r < 0 && c->r == 0)
		c->r = r;
	p->truncate = truncate;

	orig = get_double(c, "original_max_position_embeddings", c->hp->n_ctx);
	orig = get_double_of(c, obj, "original_max_position_embeddings", orig);
	if (c->r == 0 && !(orig >= 1 && orig <= HP_MAX_CTX))
		fail(c, -EINVAL, "original_max_position_embeddings", "out of range");
	if (c->r < 0)
		return;
	p->original_ctx = (uint32_t)orig;
	if (p->kind == ROPE_YARN && p->factor == 0)
		p->factor = (double)c->hp->n_ctx / orig;
	if (p->kind == ROPE_LONGROPE && p->n_rot <= 2 * ROPE_MAX_HALF) {
		read_factors(c, obj, "short_factor", p->n_rot / 2, p->short_factor);
		read_factors(c, obj, "long_factor", p->n_rot / 2, p->long_factor);
	}
}

static void build_rope(struct cfg *c, const struct rope_params *p, uint32_t index)
{
	int r;

	if (c->r < 0)
		return;
	r = rope_plan_build(p, c->hp->n_ctx, &c->hp->rope[index], c->err);
	if (r < 0)
		c->r = err_prefix(c->err, r, "%s: ", c->where);
	c->hp->n_rope = index + 1;
}

/* Effects of YaRN beyond the frequencies. */
static void apply_yarn(struct cfg *c, const struct rope_params *p)
{
	double reach = p->original_ctx * p->factor;
	double m;

	if (c->r < 0 || p->kind != ROPE_YARN)
		return;
	/* People switch YaRN on and leave max_position_embeddings as it was. */
	if (reach > c->hp->n_ctx && reach <= HP_MAX_CTX)
		c->hp->n_ctx = (uint32_t)reach;
	if (c->arch->attn == ATTN_MLA && p->mscale_all > 0) {
		m = rope_yarn_mscale(p->factor, p->mscale_all);
		c->hp->attn_scale *= (float)(m * m);
	}
}

static void read_rope(struct cfg *c)
{
	double theta = get_double(c, "rope_theta", c->arch->rope_theta);
	double theta_local = get_double(c, "rope_local_base_freq", c->arch->rope_theta_local);
	json_t *global = NULL, *local = NULL;
	struct rope_params p;
	const char *key = has(c, "rope_parameters") ? "rope_parameters" : "rope_scaling";
	int r;

	if (c->r < 0)
		return;
	r = base_json_opt_object(c->obj, c->where, key, &global, c->err);
	if (r < 0) {
		c->r = r;
		return;
	}
	if (json_is_object(json_object_get(global, "sliding_attention")))
		local = json_object_get(global, "sliding_attention");
	if (json_is_object(json_object_get(global, "full_attention")))
		global = json_object_get(global, "full_attention");

	read_rope_object(c, global, theta, &p);
	build_rope(c, &p, 0);
	apply_yarn(c, &p);
	if (local || theta_local > 0) {
		read_rope_object(c, local, theta_local > 0 ? theta_local : theta, &p);
		build_rope(c, &p, 1);
	}
}

/* ---- Which layers see a window ---- */

/* From layer_types; a kind of layer that is neither full nor windowed is one we do not have. */
static void windows_from_types(struct cfg *c, const json_t *types, uint32_t window)
{
	if (json_array_size(types) < c->hp->n_layer) {
		fail(c, -EINVAL, "layer_types", "fewer entries than layers");
		return;
	}
	for (uint32_t i = 0; i < c->hp->n_layer; i++) {
		const char *type = json_string_value(json_array_get(types, i));

		if (type && strcmp(type, "sliding_attention") == 0)
			c->hp->layer[i].window = window;
		else if (!type || strcmp(type, "full_attention") != 0)
			fail(c, -ENOTSUP, "layer_types", "only full_attention and sliding_attention are supported");
	}
}

static void read_windows(struct cfg *c)
{
	const struct arch *a = c->arch;
	uint32_t window, pattern, from = 0;
	const json_t *types;
	bool used = true;

	if (a->window == WINDOW_NONE || is_null(c, "sliding_window"))
		return;
	window = get_u32(c, "sliding_window", a->window_default, 0, INT32_MAX);
	if (a->window == WINDOW_ABOVE || a->window == WINDOW_IF_USED)
		used = get_bool(c, "use_sliding_window", false);
	if (a->window == WINDOW_ABOVE)
		from = get_u32(c, "max_window_layers", 28, 0, INT32_MAX);
	pattern = get_u32(c, which(c, "sliding_window_pattern", "_sliding_window_pattern", ""),
	                  a->window_pattern ? a->window_pattern : 1, 1, HP_MAX_LAYERS);
	types = get_array_of(c, c->obj, "layer_types");
	if (c->r < 0 || !used)
		return;
	if (types) {
		windows_from_types(c, types, window);
		return;
	}
	for (uint32_t i = from; i < c->hp->n_layer; i++) {
		if (a->window != WINDOW_PATTERN || (i + 1) % pattern != 0)
			c->hp->layer[i].window = window;
	}
}

/* ---- Layers with linear attention ---- */

static void linear_from_types(struct cfg *c, const json_t *types)
{
	if (json_array_size(types) < c->hp->n_layer) {
		fail(c, -EINVAL, "layer_types", "fewer entries than layers");
		return;
	}
	for (uint32_t i = 0; i < c->hp->n_layer; i++) {
		const char *type = json_string_value(json_array_get(types, i));

		c->hp->layer[i].linear = type && strcmp(type, "linear_attention") == 0;
		if (!c->hp->layer[i].linear && (!type || strcmp(type, "full_attention") != 0))
			fail(c, -ENOTSUP, "layer_types", "only full_attention and linear_attention are supported");
	}
}

static void read_linear(struct cfg *c)
{
	struct hparams *hp = c->hp;
	uint32_t every = get_u32(c, "full_attention_interval", 4, 1, HP_MAX_LAYERS);
	const json_t *types = get_array_of(c, c->obj, "layer_types");

	hp->linear.n_k_head = get_u32(c, "linear_num_key_heads", 16, 1, HP_MAX_HEADS);
	hp->linear.n_v_head = get_u32(c, "linear_num_value_heads", 32, 1, HP_MAX_HEADS);
	hp->linear.k_dim = get_u32(c, "linear_key_head_dim", 128, 1, KN_MAX_DELTA);
	hp->linear.v_dim = get_u32(c, "linear_value_head_dim", 128, 1, KN_MAX_DELTA);
	hp->linear.conv = get_u32(c, "linear_conv_kernel_dim", 4, 2, KN_MAX_CONV);
	if (c->r < 0)
		return;
	if (types) {
		linear_from_types(c, types);
		return;
	}
	for (uint32_t i = 0; i < hp->n_layer; i++)
		hp->layer[i].linear = (i + 1) % every != 0;
}

/* ---- Feed-forward: dense or experts ---- */

static bool is_dense_by_list(struct cfg *c, uint32_t layer)
{
	const json_t *list = get_array_of(c, c->obj, "mlp_only_layers"), *v;
	size_t i;

	json_array_foreach((json_t *)list, i, v)
	{
		if (json_is_integer(v) && json_integer_value(v) == layer)
			return true;
	}
	return false;
}

static void check_router_words(struct cfg *c)
{
	const char *score = get_string_of(c, c->obj, "scoring_func", NULL);
	const char *method = get_string_of(c, c->obj, "topk_method", NULL);

	if (c->r < 0 || c->arch->router != KN_ROUTE_SIGMOID)
		return;
	if (score && strcmp(score, "sigmoid") != 0)
		fail(c, -ENOTSUP, "scoring_func", "only sigmoid is supported");
	if (method && strcmp(method, "noaux_tc") != 0)
		fail(c, -ENOTSUP, "topk_method", "only noaux_tc is supported");
}

static void read_experts(struct cfg *c)
{
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;

	hp->router = a->router;
	hp->n_expert = get_u32_at(c, which(c, "num_experts", "num_local_experts", "n_routed_experts"), 0,
	                          a->n_expert_default, 1, HP_MAX_EXPERTS);
	hp->n_ff_exp = a->experts_use_ff ? get_u32(c, "intermediate_size", REQUIRED, 1, HP_MAX_FF)
	                                 : get_u32(c, "moe_intermediate_size", REQUIRED, 1, HP_MAX_FF);
	hp->normalize = a->normalize_always || get_bool(c, "norm_topk_prob", a->normalize_default);
	hp->route_scale =
	        (float)get_double(c, "routed_scaling_factor", a->route_scale_default ? a->route_scale_default : 1);
	if (a->router == KN_ROUTE_SIGMOID) {
		hp->n_group = get_u32(c, "n_group", a->n_group_default, 1, HP_MAX_EXPERTS);
		hp->top_group = get_u32(c, "topk_group", a->top_group_default, 1, HP_MAX_EXPERTS);
	}
	check_router_words(c);
}

static void read_ff(struct cfg *c)
{
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;
	uint32_t n_ff = get_u32(c, "intermediate_size", REQUIRED, 1, HP_MAX_FF);
	uint32_t n_dense, step, n_shared;

	if (a->moe)
		read_experts(c);
	n_dense = get_u32(c, "first_k_dense_replace", a->dense_default, 0, INT32_MAX);
	step = get_u32(c, "decoder_sparse_step", 1, 1, INT32_MAX);
	for (uint32_t i = 0; i < hp->n_layer && c->r == 0; i++) {
		struct hp_layer *l = &hp->layer[i];

		l->n_ff = n_ff;
		if (!a->moe || i < n_dense || (i + 1) % step != 0 || is_dense_by_list(c, i))
			continue;
		l->top_k = get_u32_at(c, which(c, "num_experts_per_tok", "moe_topk", ""), i, a->top_k_default, 1,
		                      HP_MAX_TOP_K);
		if (a->shared_ff_key) {
			l->n_ff = get_u32(c, a->shared_ff_key, a->shared_default, 0, HP_MAX_FF);
			continue;
		}
		n_shared = a->shared_expert ? get_u32_at(c, which(c, "n_shared_experts", "num_shared_expert", ""), i,
		                                         a->shared_default, 0, HP_MAX_EXPERTS)
		                            : 0;
		if (n_shared && hp->n_ff_exp > HP_MAX_FF / n_shared)
			fail(c, -EINVAL, "n_shared_experts", "out of range");
		l->n_ff = hp->n_ff_exp * n_shared;
	}
}

/* ---- The whole ---- */

/* FP8 with a scale for each block, as DeepSeek and Qwen ship it, and gpt-oss's MXFP4 are known. */
static void read_quantization(struct cfg *c, const json_t *quant)
{
	const char *method = json_string_value(json_object_get(quant, "quant_method"));
	const char *fmt = json_string_value(json_object_get(quant, "fmt"));
	const json_t *block = json_object_get(quant, "weight_block_size");

	if (method && strcmp(method, "mxfp4") == 0)
		return;
	if (!method || strcmp(method, "fp8") != 0) {
		c->r = err_set(c->err, -ENOTSUP, "%s: quantization_config: quant_method \"%.64s\" is not supported",
		               c->where, method ? method : "?");
		return;
	}
	if (fmt && strcmp(fmt, "e4m3") != 0) {
		c->r = err_set(c->err, -ENOTSUP, "%s: quantization_config: fmt \"%.64s\" is not supported", c->where,
		               fmt);
		return;
	}
	for (size_t i = 0; i < 2; i++) {
		json_int_t n = json_integer_value(json_array_get(block, i));

		if (json_array_size(block) != 2 || n < 1 || n > HP_MAX_FF) {
			c->r = err_set(c->err, -ENOTSUP,
			               "%s: quantization_config: weight_block_size: expected two sizes, as [128, 128]",
			               c->where);
			return;
		}
		c->hp->fp8_block[i] = (uint32_t)n;
	}
}

static void read_arch(struct cfg *c)
{
	const char *type = get_string_of(c, c->obj, "model_type", NULL);
	const json_t *names = get_array_of(c, c->obj, "architectures");
	const json_t *quant = json_object_get(c->obj, "quantization_config");
	const char *name = json_string_value(json_array_get(names, 0));

	if (c->r < 0)
		return;
	if (!type) {
		fail(c, -ENOENT, "model_type", "missing");
		return;
	}
	c->arch = arch_find_hf(type);
	if (!c->arch) {
		c->r = err_set(c->err, -ENOTSUP, "%s: model_type: \"%.64s\" is not supported", c->where, type);
		return;
	}
	c->hp->arch = c->arch;
	if (json_is_object(quant))
		read_quantization(c, quant);
	/* "Qwen3Model" has no output matrix, "Qwen3ForCausalLM" has. */
	c->hp->headless = name && !strstr(name, "ForCausalLM") && !strstr(name, "ForConditionalGeneration");
}

int hparams_parse_hf(const char *where, const void *data, size_t len, struct hparams *ret, struct err *err)
{
	CLEANUP(json_decrefp) json_t *obj = NULL;
	struct cfg c = { .where = where, .hp = ret, .err = err };

	memset(ret, 0, sizeof(*ret));
	c.r = base_json_parse(where, data, len, &obj, err);
	if (c.r == 0 && !json_is_object(obj))
		c.r = err_set(err, -EBADMSG, "%s: expected an object, got %s", where, base_json_type_name(obj));
	if (c.r < 0)
		return c.r;
	c.obj = obj;

	read_arch(&c);
	if (c.r < 0)
		return c.r;
	read_sizes(&c);
	read_attention(&c);
	if (c.arch->encoder)
		read_encoder(&c);
	read_activation(&c);
	if (!c.arch->encoder)
		read_rope(&c);
	read_windows(&c);
	if (c.arch->hybrid)
		read_linear(&c);
	read_ff(&c);
	return c.r < 0 ? c.r : hparams_check(where, ret, err);
}
