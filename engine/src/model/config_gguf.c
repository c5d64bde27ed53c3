/* GGUF's keys to hyperparameters. The keys are those of the GGUF specification, each behind the name of the
 * architecture: "qwen3.block_count". What GGUF has no key for comes from the architecture's row.
 *
 * As in config_hf.c the first error sticks and silences what follows. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/hparams.h"
#include "weights/weights.h"

#define REQUIRED UINT32_MAX

enum { KEY_SIZE = 128 };

struct cfg {
	const struct eng_weights *weights;
	const char *where;
	const struct arch *arch;
	struct hparams *hp;
	struct err *err;
	int r; /* the first error */
};

static void key_of(const struct cfg *c, const char *name, char key[KEY_SIZE])
{
	(void)snprintf(key, KEY_SIZE, "%s.%s", c->arch->gguf, name);
}

static void fail(struct cfg *c, int code, const char *name, const char *what)
{
	if (c->r == 0)
		c->r = err_set(c->err, code, "%s: %s.%s: %s", c->where, c->arch->gguf, name, what);
}

/* A key that is not there is no error and must leave no words behind: getters fill a probe. True when the
 * key was read. */
static bool was_read(struct cfg *c, int r, const struct err *probe)
{
	if (r < 0 && r != -ENOENT && c->r == 0)
		c->r = err_set(c->err, r, "%s", err_text(probe));
	return r == 0;
}

static uint32_t get_u32(struct cfg *c, const char *name, uint32_t dflt, uint32_t min, uint32_t max)
{
	struct err probe = { 0 };
	char key[KEY_SIZE];
	uint32_t v = dflt;
	int r;

	if (c->r < 0)
		return min;
	key_of(c, name, key);
	r = eng_gguf_get_u32(c->weights, key, &v, &probe);
	if (!was_read(c, r, &probe) && dflt == REQUIRED)
		fail(c, -ENOENT, name, "missing");
	if (c->r == 0 && (v < min || v > max))
		c->r = err_set(c->err, -EINVAL, "%s: %s: %u is not within %u and %u", c->where, key, v, min, max);
	return c->r == 0 ? v : min;
}

static double get_double(struct cfg *c, const char *name, double dflt)
{
	struct err probe = { 0 };
	char key[KEY_SIZE];
	float v = 0;

	if (c->r < 0)
		return dflt;
	key_of(c, name, key);
	if (!was_read(c, eng_gguf_get_f32(c->weights, key, &v, &probe), &probe))
		return dflt;
	if (!isfinite(v))
		fail(c, -EINVAL, name, "not a finite number");
	return c->r == 0 ? v : dflt;
}

static bool get_bool(struct cfg *c, const char *name, bool dflt)
{
	struct err probe = { 0 };
	char key[KEY_SIZE];
	bool v = dflt;

	if (c->r < 0)
		return dflt;
	key_of(c, name, key);
	(void)was_read(c, eng_gguf_get_bool(c->weights, key, &v, &probe), &probe);
	return v;
}

/* A number that may be an array with one for each layer: the same in all. */
static uint32_t get_uniform(struct cfg *c, const char *name, uint32_t dflt, uint32_t min, uint32_t max)
{
	CLEANUP(freep) int32_t *v = NULL;
	struct err probe = { 0 };
	char key[KEY_SIZE];
	uint64_t n = 0;

	if (c->r < 0)
		return min;
	key_of(c, name, key);
	if (!was_read(c, eng_gguf_get_i32_array(c->weights, key, &v, &n, &probe), &probe) || n <= 1)
		return get_u32(c, name, dflt, min, max);
	for (uint64_t i = 1; i < n; i++) {
		if (v[i] != v[0])
			fail(c, -ENOTSUP, name, "layers that differ are not supported");
	}
	if (c->r == 0 && (v[0] < 0 || (uint32_t)v[0] < min || (uint32_t)v[0] > max))
		fail(c, -EINVAL, name, "out of range");
	return c->r == 0 ? (uint32_t)v[0] : min;
}

/* The text of a key compared with a word. */
static bool text_is(const struct cfg *c, const char *name, const char *word)
{
	const char *text;
	char key[KEY_SIZE];
	size_t len;

	key_of(c, name, key);
	return eng_gguf_get_string(c->weights, key, &text, &len, NULL) == 0 && len == strlen(word) &&
	       memcmp(text, word, len) == 0;
}

static void read_arch(struct cfg *c)
{
	const char *text;
	char name[64];
	size_t len;
	int r = eng_gguf_get_string(c->weights, "general.architecture", &text, &len, c->err);

	if (r < 0) {
		c->r = r;
		return;
	}
	(void)snprintf(name, sizeof(name), "%.*s", len < sizeof(name) ? (int)len : 0, text);
	c->arch = arch_find_gguf(name);
	if (!c->arch)
		c->r = err_set(c->err, -ENOTSUP, "%s: general.architecture: \"%.*s\" is not supported", c->where,
		               len < 64 ? (int)len : 64, text);
	c->hp->arch = c->arch;
}

static void read_sizes(struct cfg *c)
{
	const struct eng_tensor *embed = eng_weights_find(c->weights, arch_tensor_name(c->arch, S_EMBED, true));
	struct hparams *hp = c->hp;
	uint32_t n_mtp, rows = 0;

	if (embed && embed->n_dims == 2 && embed->shape[0] <= HP_MAX_VOCAB)
		rows = (uint32_t)embed->shape[0];
	hp->n_vocab = rows ? rows : get_u32(c, "vocab_size", REQUIRED, 1, HP_MAX_VOCAB);
	hp->n_embd = get_u32(c, "embedding_length", REQUIRED, 1, HP_MAX_EMBD);
	hp->n_layer = get_u32(c, "block_count", REQUIRED, 1, HP_MAX_LAYERS);
	/* Layers that predict further tokens are counted in, and not used. */
	n_mtp = get_u32(c, "nextn_predict_layers", 0, 0, HP_MAX_LAYERS);
	if (c->r == 0 && n_mtp >= hp->n_layer)
		fail(c, -EINVAL, "nextn_predict_layers", "no layer is left");
	hp->n_layer -= c->r == 0 ? n_mtp : 0;
	hp->n_head = get_uniform(c, "attention.head_count", REQUIRED, 1, HP_MAX_HEADS);
	hp->n_kv_head = get_uniform(c, "attention.head_count_kv", hp->n_head, 1, HP_MAX_HEADS);
	hp->head_dim = get_u32(c, "attention.key_length", hp->n_embd / hp->n_head, 1, HP_MAX_HEAD_DIM);
	hp->n_ctx = get_u32(c, "context_length", REQUIRED, 1, HP_MAX_CTX);
	hp->eps = (float)get_double(c, "attention.layer_norm_rms_epsilon", c->arch->eps_default);
	hp->act = c->arch->act;
}

static void read_attention(struct cfg *c)
{
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;
	double scalar = hp->head_dim;
	uint32_t per_head;
	char name[KEY_SIZE];

	hp->qk_norm = a->qk_norm != QK_NORM_NONE;
	if (a->qk_norm_key) { /* the tensors tell */
		(void)snprintf(name, sizeof(name), "blk.0.%s", arch_tensor_name(a, S_Q_NORM, true));
		hp->qk_norm = eng_weights_find(c->weights, name) != NULL;
	}
	hp->rope_interleaved = a->gguf_rope_interleaved;
	/* Files without attention.scale (below): the largest Gemma 3 is the one whose scalar is not head_dim. */
	if (a->has_query_scalar && hp->n_layer == 62)
		scalar = (double)hp->n_embd / hp->n_head;
	if (a->attn == ATTN_MLA) {
		hp->q_lora = get_u32(c, "attention.q_lora_rank", 0, 0, HP_MAX_EMBD);
		hp->kv_lora = get_u32(c, "attention.kv_lora_rank", REQUIRED, 1, HP_MAX_HEAD_DIM);
		hp->qk_rope = get_u32(c, "rope.dimension_count", REQUIRED, 2, HP_MAX_HEAD_DIM);
		/* Newer files describe the latent by key_length and the heads by key_length_mla. */
		per_head = get_u32(c, "attention.key_length_mla", hp->head_dim, 1, HP_MAX_HEAD_DIM);
		hp->v_head = get_u32(c, "attention.value_length", hp->head_dim, 1, HP_MAX_HEAD_DIM);
		hp->v_head = get_u32(c, "attention.value_length_mla", hp->v_head, 1, HP_MAX_HEAD_DIM);
		if (c->r == 0 && per_head <= hp->qk_rope)
			fail(c, -EINVAL, "attention.key_length", "not more than rope.dimension_count");
		hp->qk_nope = per_head - hp->qk_rope;
		scalar = per_head;
	}
	hp->attn_scale = (float)get_double(c, "attention.scale", 0);
	if (c->r == 0 && !(hp->attn_scale >= 0))
		fail(c, -EINVAL, "attention.scale", "negative");
	if (hp->attn_scale == 0) /* written by some converters for "the usual one" */
		hp->attn_scale = (float)(1 / sqrt(scalar));
	hp->attn_softcap = (float)get_double(c, "attn_logit_softcapping", 0);
	hp->final_softcap = (float)get_double(c, "final_logit_softcapping", 0);
	hp->embed_scale = a->embed_scaled ? sqrtf((float)hp->n_embd) : 1;
}

/* ---- Rotary positions ---- */

/* A tensor of one factor per rotated pair; false when it is not there. */
static bool read_factors(struct cfg *c, const char *name, uint32_t n, float *ret)
{
	const struct eng_tensor *t = eng_weights_find(c->weights, name);

	if (!t || c->r < 0)
		return false;
	if (t->dtype != KN_F32 || t->n_dims != 1 || t->shape[0] != n) {
		c->r = err_set(c->err, -EINVAL, "%s: %s: expected %u floats", c->where, name, n);
		return false;
	}
	kn_dequantize(KN_F32, t->data, ret, n);
	return true;
}

static void read_scaling(struct cfg *c, struct rope_params *p)
{
	double attn_factor = get_double(c, "rope.scaling.attn_factor", 0);
	double yarn_factor = get_double(c, "rope.scaling.yarn_attn_factor", 0);
	double log_multiplier = get_double(c, "rope.scaling.yarn_log_multiplier", 0);

	p->factor = get_double(c, "rope.scaling.factor", 0);
	p->original_ctx = get_u32(c, "rope.scaling.original_context_length", c->hp->n_ctx, 1, HP_MAX_CTX);
	p->beta_fast = get_double(c, "rope.scaling.yarn_beta_fast", p->beta_fast);
	p->beta_slow = get_double(c, "rope.scaling.yarn_beta_slow", p->beta_slow);
	p->truncate = !c->arch->gguf_yarn_exact_ends;
	if (text_is(c, "rope.scaling.type", "linear")) {
		p->kind = ROPE_LINEAR;
	} else if (text_is(c, "rope.scaling.type", "yarn")) {
		p->kind = ROPE_YARN;
		p->mscale = p->mscale_all = 10 * log_multiplier; /* stored as 0.1 * mscale_all_dim */
		/* The one is config.json's attention_factor, all of it; the other comes on top of YaRN's own. */
		if (yarn_factor > 0)
			p->attn_factor = yarn_factor;
		else if (attn_factor > 0)
			p->attn_factor = attn_factor * rope_yarn_mscale(p->factor, 1);
	}
	if (p->n_rot > 2 * ROPE_MAX_HALF)
		return; /* refused by rope_plan_build() */
	if (read_factors(c, "rope_factors_long.weight", p->n_rot / 2, p->long_factor) &&
	    read_factors(c, "rope_factors_short.weight", p->n_rot / 2, p->short_factor)) {
		p->kind = ROPE_LONGROPE;
		p->attn_factor = attn_factor;
		p->factor = 0;
	} else {
		p->has_freq_factors = read_factors(c, "rope_freqs.weight", p->n_rot / 2, p->short_factor);
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

static void read_rope(struct cfg *c)
{
	struct hparams *hp = c->hp;
	uint32_t n_rot = c->arch->attn == ATTN_MLA ? hp->qk_rope : hp->head_dim;
	double local = get_double(c, "rope.freq_base_swa", c->arch->rope_theta_local), m;
	struct rope_params p;

	rope_params_init(&p);
	p.n_rot = get_u32(c, "rope.dimension_count", n_rot, 2, HP_MAX_HEAD_DIM);
	p.theta = get_double(c, "rope.freq_base", c->arch->rope_theta);
	read_scaling(c, &p);
	build_rope(c, &p, 0);
	if (c->r == 0 && p.kind == ROPE_YARN && c->arch->attn == ATTN_MLA && p.mscale_all > 0) {
		m = rope_yarn_mscale(p.factor, p.mscale_all);
		hp->attn_scale *= (float)(m * m);
	}
	if (c->arch->rope_theta_local > 0) {
		n_rot = p.n_rot;
		rope_params_init(&p);
		p.n_rot = n_rot;
		p.theta = local;
		build_rope(c, &p, 1);
	}
}

/* ---- Layers ---- */

static void read_windows(struct cfg *c)
{
	const struct arch *a = c->arch;
	bool all = a->window == WINDOW_ALL || a->gguf_window_all;
	uint32_t window, pattern;

	if (!all && a->window != WINDOW_PATTERN)
		return;
	pattern = get_u32(c, "attention.sliding_window_pattern", all ? 1 : a->window_pattern, 1, HP_MAX_LAYERS);
	window = get_u32(c, "attention.sliding_window", 0, 0, INT32_MAX);
	for (uint32_t i = 0; i < c->hp->n_layer && c->r == 0; i++) {
		if (all || (i + 1) % pattern != 0)
			c->hp->layer[i].window = window;
	}
}

/* Named as those of state-space models. */
static void read_linear(struct cfg *c)
{
	struct hparams *hp = c->hp;
	uint32_t every = get_u32(c, "full_attention_interval", 4, 1, HP_MAX_LAYERS), inner;

	hp->linear.n_k_head = get_u32(c, "ssm.group_count", REQUIRED, 1, HP_MAX_HEADS);
	hp->linear.n_v_head = get_u32(c, "ssm.time_step_rank", REQUIRED, 1, HP_MAX_HEADS);
	hp->linear.k_dim = get_u32(c, "ssm.state_size", REQUIRED, 1, KN_MAX_DELTA);
	inner = get_u32(c, "ssm.inner_size", REQUIRED, 1, HP_MAX_LINEAR);
	hp->linear.v_dim = inner / hp->linear.n_v_head;
	if (c->r == 0 && (inner % hp->linear.n_v_head || hp->linear.v_dim > KN_MAX_DELTA))
		fail(c, -EINVAL, "ssm.inner_size", "not the values of ssm.time_step_rank heads");
	hp->linear.conv = get_u32(c, "ssm.conv_kernel", REQUIRED, 2, KN_MAX_CONV);
	for (uint32_t i = 0; i < hp->n_layer && c->r == 0; i++)
		hp->layer[i].linear = (i + 1) % every != 0;
}

static void read_router(struct cfg *c)
{
	enum { GATING_SOFTMAX = 1, GATING_SIGMOID = 2 };
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;
	uint32_t gating = get_u32(c, "expert_gating_func", 0, 0, UINT32_MAX - 1);

	hp->router = a->router;
	/* DeepSeek-V2 shares the name "deepseek2" with V3. */
	if (a->router == KN_ROUTE_SIGMOID && gating == GATING_SOFTMAX)
		hp->router = KN_ROUTE_SOFTMAX;
	hp->n_group = get_u32(c, "expert_group_count", a->n_group_default ? 1 : 0, 0, HP_MAX_EXPERTS);
	hp->top_group = get_u32(c, "expert_group_used_count", hp->n_group ? 1 : 0, 0, HP_MAX_EXPERTS);
	if (hp->router != KN_ROUTE_SIGMOID && hp->n_group > 1)
		fail(c, -ENOTSUP, "expert_group_count", "groups without sigmoid gating are not supported");
	hp->normalize = a->normalize_always ||
	                get_bool(c, "expert_weights_norm", a->normalize_default || a->router == KN_ROUTE_SOFTMAX);
	hp->route_scale = (float)get_double(c, "expert_weights_scale", 1);
	if (hp->route_scale == 0) /* written by some converters for "none" */
		hp->route_scale = 1;
}

static void read_ff(struct cfg *c)
{
	const struct arch *a = c->arch;
	struct hparams *hp = c->hp;
	uint32_t n_ff = get_uniform(c, "feed_forward_length", a->moe ? 0 : REQUIRED, a->moe ? 0 : 1, HP_MAX_FF);
	uint32_t top_k = 0, n_dense = 0, n_shared = 0, n_ff_shared;

	if (a->moe) {
		hp->n_expert = get_u32(c, "expert_count", REQUIRED, 1, HP_MAX_EXPERTS);
		top_k = get_u32(c, "expert_used_count", REQUIRED, 1, HP_MAX_TOP_K);
		hp->n_ff_exp = get_u32(c, "expert_feed_forward_length", n_ff, 1, HP_MAX_FF);
		n_dense = get_u32(c, "leading_dense_block_count", 0, 0, HP_MAX_LAYERS);
		if (a->shared_expert)
			n_shared = get_u32(c, "expert_shared_count", a->shared_ff_key ? 1 : a->shared_default, 0, 64);
		read_router(c);
	}
	n_ff_shared = get_u32(c, "expert_shared_feed_forward_length", n_shared * hp->n_ff_exp, 0, HP_MAX_FF);
	for (uint32_t i = 0; i < hp->n_layer && c->r == 0; i++) {
		bool dense = !a->moe || i < n_dense;

		if (dense && n_ff == 0)
			fail(c, -EINVAL, "feed_forward_length", "missing");
		hp->layer[i].top_k = dense ? 0 : top_k;
		hp->layer[i].n_ff = dense ? n_ff : a->shared_expert ? n_ff_shared : 0;
	}
}

int hparams_read_gguf(const char *where, const struct eng_weights *weights, struct hparams *ret, struct err *err)
{
	struct cfg c = { .weights = weights, .where = where, .hp = ret, .err = err };

	memset(ret, 0, sizeof(*ret));
	read_arch(&c);
	if (c.r < 0)
		return c.r;
	read_sizes(&c);
	read_attention(&c);
	read_rope(&c);
	read_windows(&c);
	if (c.arch->hybrid)
		read_linear(&c);
	read_ff(&c);
	return c.r < 0 ? c.r : hparams_check(where, ret, err);
}
