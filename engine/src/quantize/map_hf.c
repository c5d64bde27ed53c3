/* From Hugging Face tensor names to GGUF's. Rules are data: those of an architecture first, then those that
 * most share. A tensor without a rule is an error that names it: nothing is dropped silently but what is
 * known to carry no weight (stored rotary tables) or is noted (prediction layers beyond the model's own). */
#include "quantize/quantize_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "quantize/arch.h"

static const struct qz_rule common[] = {
	{ "embed_tokens.weight", "token_embd.weight", QZ_COPY },
	{ "norm.weight", "output_norm.weight", QZ_COPY },
	{ "lm_head.weight", "output.weight", QZ_COPY },
	{ "input_layernorm.weight", "attn_norm.weight", QZ_COPY },
	{ "post_attention_layernorm.weight", "ffn_norm.weight", QZ_COPY },
	{ "self_attn.q_proj.weight", "attn_q.weight", QZ_ROPE_ROWS_Q },
	{ "self_attn.k_proj.weight", "attn_k.weight", QZ_ROPE_ROWS_K },
	{ "self_attn.v_proj.weight", "attn_v.weight", QZ_COPY },
	{ "self_attn.o_proj.weight", "attn_output.weight", QZ_COPY },
	{ "self_attn.q_proj.bias", "attn_q.bias", QZ_ROPE_ROWS_Q },
	{ "self_attn.k_proj.bias", "attn_k.bias", QZ_ROPE_ROWS_K },
	{ "self_attn.v_proj.bias", "attn_v.bias", QZ_COPY },
	{ "self_attn.o_proj.bias", "attn_output.bias", QZ_COPY },
	{ "self_attn.q_norm.weight", "attn_q_norm.weight", QZ_COPY },
	{ "self_attn.k_norm.weight", "attn_k_norm.weight", QZ_COPY },
	{ "mlp.gate_proj.weight", "ffn_gate.weight", QZ_COPY },
	{ "mlp.up_proj.weight", "ffn_up.weight", QZ_COPY },
	{ "mlp.down_proj.weight", "ffn_down.weight", QZ_COPY },
	{ "mlp.gate_proj.bias", "ffn_gate.bias", QZ_COPY },
	{ "mlp.up_proj.bias", "ffn_up.bias", QZ_COPY },
	{ "mlp.down_proj.bias", "ffn_down.bias", QZ_COPY },
	{ "mlp.gate.weight", "ffn_gate_inp.weight", QZ_COPY },
	{ "mlp.gate.e_score_correction_bias", "exp_probs_b.bias", QZ_COPY },
	{ "mlp.experts.{}.gate_proj.weight", "ffn_gate_exps.weight", QZ_EXPERTS },
	{ "mlp.experts.{}.up_proj.weight", "ffn_up_exps.weight", QZ_EXPERTS },
	{ "mlp.experts.{}.down_proj.weight", "ffn_down_exps.weight", QZ_EXPERTS },
	{ "mlp.shared_experts.gate_proj.weight", "ffn_gate_shexp.weight", QZ_COPY },
	{ "mlp.shared_experts.up_proj.weight", "ffn_up_shexp.weight", QZ_COPY },
	{ "mlp.shared_experts.down_proj.weight", "ffn_down_shexp.weight", QZ_COPY },
	{ NULL, NULL, QZ_COPY },
};

static const struct qz_arch archs[] = {
	{ .model_type = "llama", .gguf = "llama", .permute = true },
	{ .model_type = "mistral", .gguf = "llama", .permute = true },
	{ .model_type = "qwen2", .gguf = "qwen2" },
	{ .model_type = "qwen3", .gguf = "qwen3" },
	{ .model_type = "qwen3_moe", .gguf = "qwen3moe" },
	{ .model_type = "qwen3_next",
	  .gguf = "qwen3next",
	  .norm_plus_one = true,
	  .hybrid = true,
	  .own = { { "post_attention_layernorm.weight", "post_attention_norm.weight", QZ_COPY },
	           { "linear_attn.in_proj_qkvz.weight", "attn_qkv.weight|attn_gate.weight", QZ_SPLIT_QKVZ },
	           { "linear_attn.in_proj_ba.weight", "ssm_ba.weight", QZ_COPY },
	           { "linear_attn.conv1d.weight", "ssm_conv1d.weight", QZ_FLAT },
	           { "linear_attn.A_log", "ssm_a", QZ_DECAY },
	           { "linear_attn.dt_bias", "ssm_dt.bias", QZ_COPY },
	           { "linear_attn.norm.weight", "ssm_norm.weight", QZ_ADD_NOTHING },
	           { "linear_attn.out_proj.weight", "ssm_out.weight", QZ_COPY },
	           { "mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight", QZ_COPY },
	           { "mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight", QZ_COPY },
	           { "mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight", QZ_COPY },
	           { "mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", QZ_FLAT } } },
	{ .model_type = "ernie4_5", .gguf = "ernie4_5" },
	{ .model_type = "olmo2",
	  .gguf = "olmo2",
	  .own = { { "post_attention_layernorm.weight", "post_attention_norm.weight", QZ_COPY },
	           { "post_feedforward_layernorm.weight", "post_ffw_norm.weight", QZ_COPY } } },
	{ .model_type = "gemma3_text",
	  .gguf = "gemma3",
	  .norm_plus_one = true,
	  .own = { { "post_attention_layernorm.weight", "post_attention_norm.weight", QZ_COPY },
	           { "pre_feedforward_layernorm.weight", "ffn_norm.weight", QZ_COPY },
	           { "post_feedforward_layernorm.weight", "post_ffw_norm.weight", QZ_COPY } } },
	{ .model_type = "phi3",
	  .gguf = "phi3",
	  .own = { { "self_attn.qkv_proj.weight", "attn_qkv.weight", QZ_COPY },
	           { "mlp.gate_up_proj.weight", "ffn_up.weight", QZ_COPY } } },
	{ .model_type = "glm4_moe",
	  .gguf = "glm4moe",
	  .sigmoid_router = true,
	  .dense_lead = true,
	  .own = { { "post_attention_layernorm.weight", "post_attention_norm.weight", QZ_COPY } } },
	{ .model_type = "hunyuan_v1_dense",
	  .gguf = "hunyuan-dense",
	  .own = { { "self_attn.query_layernorm.weight", "attn_q_norm.weight", QZ_COPY },
	           { "self_attn.key_layernorm.weight", "attn_k_norm.weight", QZ_COPY } } },
	{ .model_type = "hunyuan_v1_moe",
	  .gguf = "hunyuan-moe",
	  .own = { { "self_attn.query_layernorm.weight", "attn_q_norm.weight", QZ_COPY },
	           { "self_attn.key_layernorm.weight", "attn_k_norm.weight", QZ_COPY },
	           { "mlp.gate.wg.weight", "ffn_gate_inp.weight", QZ_COPY },
	           { "mlp.shared_mlp.gate_proj.weight", "ffn_gate_shexp.weight", QZ_COPY },
	           { "mlp.shared_mlp.up_proj.weight", "ffn_up_shexp.weight", QZ_COPY },
	           { "mlp.shared_mlp.down_proj.weight", "ffn_down_shexp.weight", QZ_COPY } } },
	{ .model_type = "deepseek_v3",
	  .gguf = "deepseek2",
	  .mla = true,
	  .sigmoid_router = true,
	  .dense_lead = true,
	  .own = { { "self_attn.q_a_proj.weight", "attn_q_a.weight", QZ_COPY },
	           { "self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight", QZ_COPY },
	           { "self_attn.q_b_proj.weight", "attn_q_b.weight", QZ_COPY },
	           { "self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight", QZ_COPY },
	           { "self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", QZ_COPY },
	           { "self_attn.kv_b_proj.weight", "attn_k_b.weight|attn_v_b.weight", QZ_SPLIT_KV_B } } },
	{ .model_type = "gpt_oss",
	  .gguf = "gpt-oss",
	  .own = { { "post_attention_layernorm.weight", "post_attention_norm.weight", QZ_COPY },
	           { "self_attn.sinks", "attn_sinks.weight", QZ_COPY },
	           { "mlp.router.weight", "ffn_gate_inp.weight", QZ_COPY },
	           { "mlp.router.bias", "ffn_gate_inp.bias", QZ_COPY },
	           { "mlp.experts.gate_up_proj", "ffn_gate_exps.weight|ffn_up_exps.weight", QZ_EVEN_ODD },
	           { "mlp.experts.gate_up_proj_bias", "ffn_gate_exps.bias|ffn_up_exps.bias", QZ_EVEN_ODD_BIAS },
	           { "mlp.experts.down_proj", "ffn_down_exps.weight", QZ_TRANSPOSE },
	           { "mlp.experts.down_proj_bias", "ffn_down_exps.bias", QZ_COPY } } },
};

const struct qz_arch *qz_arch_find(const char *model_type)
{
	for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++) {
		if (strcmp(model_type, archs[i].model_type) == 0)
			return &archs[i];
	}
	return NULL;
}

/* ---- Matching a name ---------------------------------------------------------------------------------- */

/* What is left of a name without "model." and "layers.N."; *layer is -1 outside the layers. */
static const char *strip(const char *name, long *layer)
{
	char *end;

	*layer = -1;
	if (strncmp(name, "model.", 6) == 0)
		name += 6;
	if (strncmp(name, "layers.", 7) != 0)
		return name;
	*layer = strtol(name + 7, &end, 10);
	return *end == '.' && *layer >= 0 && *layer < 100000 ? end + 1 : name;
}

/* {} matches a number, which is returned in *expert. */
static bool matches(const char *pattern, const char *name, unsigned long *expert)
{
	const char *hole = strstr(pattern, "{}");
	size_t n = hole ? (size_t)(hole - pattern) : 0;
	char *end;

	if (!hole)
		return strcmp(pattern, name) == 0;
	if (strncmp(pattern, name, n) != 0 || name[n] < '0' || name[n] > '9')
		return false;
	*expert = strtoul(name + n, &end, 10);
	return strcmp(hole + 2, end) == 0;
}

static const struct qz_rule *find_rule(const struct qz_arch *arch, const char *name, unsigned long *expert)
{
	const struct qz_rule *lists[] = { arch->own, common };

	for (size_t l = 0; l < 2; l++) {
		for (const struct qz_rule *rule = lists[l]; rule->hf; rule++) {
			if (matches(rule->hf, name, expert))
				return rule;
		}
	}
	return NULL;
}

/* ---- Planning ------------------------------------------------------------------------------------------ */

struct mapper {
	struct qz_plan *plan;
	const struct qz_arch *arch;
	uint32_t n_head, n_kv_head, n_expert, nope, v_dim;
	uint32_t lin_k_head, lin_v_head, lin_k_dim, lin_v_dim; /* linear attention */
	bool tied;
	bool noted_extra;
	struct err *err;
};

static int no_memory(struct mapper *m)
{
	return err_set(m->err, -ENOMEM, "%s: out of memory", m->plan->options->model_path);
}

static int bad_shape(struct mapper *m, const struct eng_tensor *s, const char *expected)
{
	return err_set(m->err, -EBADMSG, "%s: tensor '%s': its shape does not fit config.json: expected %s",
	               m->plan->options->model_path, s->name, expected);
}

/* The first or second of the names in a rule, with the layer's prefix. */
static struct qz_tensor *add_target(struct mapper *m, const char *names, int which, long layer, uint32_t n_dims,
                                    const uint64_t *shape)
{
	const char *bar = strchr(names, '|'), *name = which ? bar + 1 : names;
	int len = !which && bar ? (int)(bar - names) : (int)strlen(name);
	char full[128];

	if (layer >= 0)
		(void)snprintf(full, sizeof(full), "blk.%ld.%.*s", layer, len, name);
	else
		(void)snprintf(full, sizeof(full), "%.*s", len, name);
	return qz_plan_add(m->plan, full, n_dims, shape);
}

static int add_copy(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	struct qz_tensor *t = add_target(m, rule->gguf, 0, layer, s->n_dims, s->shape);
	uint32_t heads = rule->change == QZ_ROPE_ROWS_Q ? m->n_head : m->n_kv_head;
	uint64_t out = s->n_dims ? s->shape[0] : 1;

	if (!t || qz_from_tensor(t, s) < 0)
		return no_memory(m);
	if (m->arch->norm_plus_one && rule->change != QZ_ADD_NOTHING && s->n_dims == 1 &&
	    strstr(rule->gguf, "norm.weight"))
		t->view.add = 1.0f;
	if (!m->arch->permute || (rule->change != QZ_ROPE_ROWS_Q && rule->change != QZ_ROPE_ROWS_K))
		return 0;
	if (heads == 0 || out % heads || out / heads % 2)
		return bad_shape(m, s, "rows of whole heads");
	t->view.permute = (uint32_t)(out / heads);
	if (s->n_dims == 1) { /* a bias: read as a column, one value per row */
		t->rows = t->view.part_rows = t->view.block_rows = out;
		t->cols = t->view.row_stride = 1;
	}
	return 0;
}

/* Expert 0 stands for all: the others are looked up by name. */
static int add_experts(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	uint64_t shape[3] = { m->n_expert, s->shape[0], s->shape[1] };
	const char *hole = strstr(s->name, ".experts.0."), *rest;
	struct qz_tensor *t;
	char name[512];

	if (s->n_dims != 2 || !hole || m->n_expert == 0)
		return bad_shape(m, s, "one matrix per expert");
	t = add_target(m, rule->gguf, 0, layer, 3, shape);
	if (!t)
		return no_memory(m);
	t->parts = (const struct eng_tensor **)calloc(m->n_expert, sizeof(*t->parts));
	if (!t->parts)
		return no_memory(m);
	t->n_parts = m->n_expert;
	t->view.part_rows = t->view.block_rows = s->shape[0] ? s->shape[0] : 1;
	rest = hole + strlen(".experts.0.");
	for (uint32_t e = 0; e < m->n_expert; e++) {
		(void)snprintf(name, sizeof(name), "%.*s.experts.%u.%s", (int)(hole - s->name), s->name, e, rest);
		t->parts[e] = eng_weights_find(m->plan->weights, name);
		if (!t->parts[e])
			return err_set(m->err, -EBADMSG, "%s: tensor '%s' is missing", m->plan->options->model_path,
			               name);
		if (t->parts[e]->n_dims != 2 || t->parts[e]->shape[0] != s->shape[0] ||
		    t->parts[e]->shape[1] != s->shape[1] || t->parts[e]->dtype != s->dtype)
			return bad_shape(m, t->parts[e], "all experts alike");
	}
	return 0;
}

static bool is_single(const struct eng_tensor *s)
{
	return s->dtype < KN_N_DTYPES && kn_dtype_info(s->dtype)->block_elems == 1;
}

static int add_view(struct mapper *m, const struct qz_rule *rule, int which, long layer, const struct eng_tensor *s,
                    uint32_t n_dims, const uint64_t *shape, const struct qz_view *view)
{
	struct qz_tensor *t = add_target(m, rule->gguf, which, layer, n_dims, shape);

	if (!t || qz_from_tensor(t, s) < 0)
		return no_memory(m);
	t->view = *view;
	t->view.part_rows = t->rows ? t->rows : 1;
	return 0;
}

/* [a, b, c] becomes [a, c / step, b], from column `first` of c on in steps of `step`. */
static int add_transposed(struct mapper *m, const struct qz_rule *rule, int which, long layer,
                          const struct eng_tensor *s, uint64_t first, uint64_t step)
{
	uint64_t shape[3] = { s->shape[0], s->shape[2] / step, s->shape[1] };
	struct qz_view view = { .block_rows = shape[1] ? shape[1] : 1,
		                .offset = first,
		                .block_stride = s->shape[1] * s->shape[2],
		                .row_stride = step,
		                .col_stride = s->shape[2] };

	return add_view(m, rule, which, layer, s, 3, shape, &view);
}

static int add_even_odd(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	bool bias = rule->change == QZ_EVEN_ODD_BIAS;
	int r = 0;

	if (s->n_dims != (bias ? 2u : 3u) || s->shape[s->n_dims - 1] % 2 || !is_single(s))
		return bad_shape(m, s, "gate and up columns in turn");
	for (int which = 0; r == 0 && which < 2; which++) {
		uint64_t shape[2] = { s->shape[0], s->shape[1] / 2 };
		struct qz_view view = {
			.block_rows = 1, .offset = (uint64_t)which, .block_stride = s->shape[1], .col_stride = 2
		};

		r = bias ? add_view(m, rule, which, layer, s, 2, shape, &view)
		         : add_transposed(m, rule, which, layer, s, (uint64_t)which, 2);
	}
	return r;
}

/* [head * (nope + v), rank] becomes K [head, rank, nope] and V [head, v, rank]. */
static int add_kv_b(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	uint64_t rank = s->shape[1], block = (uint64_t)(m->nope + m->v_dim) * rank;
	uint64_t k_shape[3] = { m->n_head, rank, m->nope }, v_shape[3] = { m->n_head, m->v_dim, rank };
	struct qz_view k = {
		.block_rows = rank ? rank : 1, .block_stride = block, .row_stride = 1, .col_stride = rank
	};
	struct qz_view v = { .block_rows = m->v_dim ? m->v_dim : 1,
		             .offset = m->nope * rank,
		             .block_stride = block,
		             .row_stride = rank,
		             .col_stride = 1 };
	int r;

	if (s->n_dims != 2 || s->shape[0] != (uint64_t)m->n_head * (m->nope + m->v_dim) || !is_single(s) || rank < 2)
		return bad_shape(m, s, "[heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]");
	r = add_view(m, rule, 0, layer, s, 3, k_shape, &k);
	return r == 0 ? add_view(m, rule, 1, layer, s, 3, v_shape, &v) : r;
}

/* Rows `first` to `first` + n of each of n_groups groups of `of`, as rows [at, ...) of the target. */
static uint32_t list_groups(uint32_t *rows, uint32_t at, uint32_t n_groups, uint32_t of, uint32_t first, uint32_t n)
{
	for (uint32_t g = 0; g < n_groups; g++) {
		for (uint32_t i = 0; i < n; i++)
			rows[at++] = g * of + first + i;
	}
	return at;
}

static int add_qkvz(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	uint32_t groups = m->lin_k_head, k = m->lin_k_dim, v = groups ? m->lin_v_head / groups * m->lin_v_dim : 0,
	         of = 2 * k + 2 * v, n;

	if (groups == 0 || s->n_dims != 2 || s->shape[0] != (uint64_t)groups * of || of == 0)
		return bad_shape(m, s, "the rows of Q, K, V and a gate, by K heads");
	for (int which = 0; which < 2; which++) {
		uint64_t shape[2] = { (uint64_t)groups * (which ? v : 2 * k + v), s->shape[1] };
		struct qz_tensor *t = add_target(m, rule->gguf, which, layer, 2, shape);

		if (!t || qz_from_tensor(t, s) < 0)
			return no_memory(m);
		t->view.block_rows = s->shape[0];
		t->source_row = calloc(shape[0] ? shape[0] : 1, sizeof(*t->source_row));
		if (!t->source_row)
			return no_memory(m);
		if (which) {
			(void)list_groups(t->source_row, 0, groups, of, 2 * k + v, v);
			continue;
		}
		n = list_groups(t->source_row, 0, groups, of, 0, k);
		n = list_groups(t->source_row, n, groups, of, k, k);
		(void)list_groups(t->source_row, n, groups, of, 2 * k, v);
	}
	return 0;
}

static int add_decay(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	uint64_t n = s->n_dims == 1 ? s->shape[0] : 0;
	struct qz_tensor *t;
	float *values;

	if (n == 0 || n > 65536 || !is_single(s))
		return bad_shape(m, s, "one number per head");
	values = calloc(n, sizeof(*values));
	t = values ? add_target(m, rule->gguf, 0, layer, 1, &n) : NULL;
	if (!t) {
		free(values);
		return no_memory(m);
	}
	kn_dequantize(s->dtype, s->data, values, n);
	for (uint64_t i = 0; i < n; i++)
		values[i] = -expf(values[i]);
	t->values = values;
	return 0;
}

static int add_flat(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	uint64_t shape[4];
	uint32_t n_dims = 0;
	struct qz_tensor *t;

	for (uint32_t i = 0; i < s->n_dims; i++) {
		if (s->shape[i] != 1)
			shape[n_dims++] = s->shape[i];
	}
	t = add_target(m, rule->gguf, 0, layer, n_dims, shape);
	return t && qz_from_tensor(t, s) == 0 ? 0 : no_memory(m);
}

static int add_by_rule(struct mapper *m, const struct qz_rule *rule, long layer, const struct eng_tensor *s)
{
	switch (rule->change) {
	case QZ_EXPERTS:
		return add_experts(m, rule, layer, s);
	case QZ_TRANSPOSE:
		if (s->n_dims != 3 || !is_single(s))
			return bad_shape(m, s, "three dimensions");
		return add_transposed(m, rule, 0, layer, s, 0, 1);
	case QZ_EVEN_ODD:
	case QZ_EVEN_ODD_BIAS:
		return add_even_odd(m, rule, layer, s);
	case QZ_SPLIT_KV_B:
		return add_kv_b(m, rule, layer, s);
	case QZ_SPLIT_QKVZ:
		return add_qkvz(m, rule, layer, s);
	case QZ_DECAY:
		return add_decay(m, rule, layer, s);
	case QZ_FLAT:
		return add_flat(m, rule, layer, s);
	default:
		return add_copy(m, rule, layer, s);
	}
}

static int map_one(struct mapper *m, const struct eng_tensor *s)
{
	const struct qz_rule *rule;
	unsigned long expert = 0;
	const char *name;
	long layer;

	name = strip(s->name, &layer);
	if (strstr(name, "rotary_emb.inv_freq"))
		return 0;
	if (layer >= (long)m->plan->n_layer) {
		if (!m->noted_extra)
			qz_note(m->plan, "tensors of layer %ld (prediction layers beyond the model's %u) are left out",
			        layer, m->plan->n_layer);
		m->noted_extra = true;
		return 0;
	}
	rule = find_rule(m->arch, name, &expert);
	if (!rule)
		return err_set(m->err, -ENOTSUP, "%s: tensor '%s' has no place in a GGUF of architecture %s",
		               m->plan->options->model_path, s->name, m->arch->gguf);
	if (m->tied && strcmp(rule->gguf, "output.weight") == 0)
		return 0;
	if (expert > 0)
		return 0; /* stacked when expert 0 comes by */
	if (s->dtype == KN_N_DTYPES)
		return err_set(m->err, -ENOTSUP, "%s: tensor '%s': elements of type %s cannot be converted",
		               m->plan->options->model_path, s->name, s->dtype_name);
	if (s->n_dims > 4)
		return bad_shape(m, s, "at most four dimensions");
	return add_by_rule(m, rule, layer, s);
}

static int read_linear(struct mapper *m, const json_t *config, const char *where)
{
	const struct {
		const char *key;
		uint32_t *ret;
	} keys[] = {
		{ "linear_num_key_heads", &m->lin_k_head },
		{ "linear_num_value_heads", &m->lin_v_head },
		{ "linear_key_head_dim", &m->lin_k_dim },
		{ "linear_value_head_dim", &m->lin_v_dim },
	};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		int r = base_json_get_u32(config, where, keys[i].key, keys[i].ret, m->err);

		if (r < 0)
			return r;
		if (*keys[i].ret == 0 || *keys[i].ret > 4096)
			return err_set(m->err, -ERANGE, "%s: %s: out of range", where, keys[i].key);
	}
	return 0;
}

int qz_map_tensors(struct qz_plan *plan, const struct qz_arch *arch, const json_t *config, struct err *err)
{
	static const char *const expert_keys[] = { "num_local_experts", "num_experts", "n_routed_experts" };
	struct mapper m = { .plan = plan, .arch = arch, .err = err };
	const char *where = "config.json";
	int r;

	r = base_json_get_u32(config, where, "num_attention_heads", &m.n_head, err);
	m.n_kv_head = m.n_head;
	if (r >= 0)
		r = base_json_opt_u32(config, where, "num_key_value_heads", &m.n_kv_head, err);
	for (size_t i = 0; r >= 0 && i < sizeof(expert_keys) / sizeof(expert_keys[0]); i++)
		r = base_json_opt_u32(config, where, expert_keys[i], &m.n_expert, err);
	if (r >= 0 && arch->mla) {
		r = base_json_get_u32(config, where, "qk_nope_head_dim", &m.nope, err);
		if (r >= 0)
			r = base_json_get_u32(config, where, "v_head_dim", &m.v_dim, err);
	}
	if (r >= 0 && arch->hybrid)
		r = read_linear(&m, config, where);
	if (r >= 0)
		r = base_json_opt_bool(config, where, "tie_word_embeddings", &m.tied, err);
	if (m.n_expert > 65536 || m.n_head > 65536 || m.nope > 65536 || m.v_dim > 65536)
		r = err_set(err, -ERANGE, "%s: a head or expert count is out of range", where);
	for (size_t i = 0; r >= 0 && i < eng_weights_count(plan->weights); i++)
		r = map_one(&m, eng_weights_at(plan->weights, i));
	if (r < 0)
		return r;
	/* No output matrix in the file means the same as tied, whatever the configuration says. */
	plan->tied = true;
	for (size_t i = 0; i < plan->n_tensors; i++) {
		if (strcmp(plan->tensors[i].name, "output.weight") == 0)
			plan->tied = false;
	}
	return 0;
}
