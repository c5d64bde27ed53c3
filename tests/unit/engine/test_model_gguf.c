/* Every fixture written as GGUF, as converters write it (names, keys, stacked experts, permuted rows of Q
 * and K for llama, the one added to Gemma's norms), loads to the same model. The names come from the same
 * table that the loader uses; the keys and layouts are spelled out here. */
#include <errno.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "model/hparams.h"
#include "model_fixture.h"
#include "ref_backend.h"
#include "weights/gguf_write.h"

/* ---- A converter ---- */

struct conv {
	struct eng_gguf_writer *out;
	struct eng_weights *in;
	struct hparams hp;
	json_t *config, *rope;
	enum kn_dtype dtype; /* of matrices */
	bool dequantize;     /* round to dtype, but store as float */
	bool split_kv_b;     /* newer files keep MLA's expansions apart */
	void *kept[4096];    /* tensors wait until the file is written */
	size_t n_kept;
};

static void *keep(struct conv *c, size_t bytes)
{
	void *p = malloc(bytes);

	assert_non_null(p);
	assert_true(c->n_kept < 4096);
	c->kept[c->n_kept++] = p;
	return p;
}

static float *read_tensor(struct conv *c, const char *name, size_t *ret_n)
{
	const struct eng_tensor *t = eng_weights_find(c->in, name);
	float *v;

	if (!t)
		return NULL;
	*ret_n = 1;
	for (uint32_t i = 0; i < t->n_dims; i++)
		*ret_n *= t->shape[i];
	v = keep(c, *ret_n * sizeof(*v));
	kn_dequantize(t->dtype, t->data, v, *ret_n);
	return v;
}

static void add(struct conv *c, const char *name, uint32_t n_dims, const uint64_t *shape, float *v, size_t n)
{
	bool is_matrix = n_dims > 1 && strstr(name, ".bias") == NULL && strstr(name, "gate_inp") == NULL;
	enum kn_dtype dtype = is_matrix ? c->dtype : KN_F32;
	void *data = keep(c, kn_row_bytes(dtype, n));

	kn_quantize(dtype, v, data, n);
	if (c->dequantize) {
		kn_dequantize(dtype, data, v, n);
		dtype = KN_F32;
		data = v;
	}
	assert_int_equal(eng_gguf_add_tensor(c->out, name, dtype, n_dims, shape, data), 0);
}

/* Rows of each head from halves (i, i + n/2) to pairs (2i, 2i + 1). */
static void permute(struct conv *c, float *v, uint32_t n_head, size_t row)
{
	uint32_t dim = c->hp.head_dim;
	float *old = keep(c, n_head * dim * row * sizeof(float));

	memcpy(old, v, n_head * dim * row * sizeof(float));
	for (uint32_t h = 0; h < n_head; h++) {
		for (uint32_t i = 0; i < dim; i++) {
			uint32_t from = i % 2 ? i / 2 + dim / 2 : i / 2;

			memcpy(v + ((size_t)h * dim + i) * row, old + ((size_t)h * dim + from) * row,
			       row * sizeof(float));
		}
	}
}

static void replace_suffix(char *name, size_t size, const char *old, const char *new)
{
	char *p = strstr(name, old);

	assert_non_null(p);
	(void)snprintf(p, size - (size_t)(p - name), "%s", new);
}

/* One tensor (or its experts, stacked) under its GGUF name. */
static void convert_slot(struct conv *c, enum slot slot, uint32_t il)
{
	const struct arch *a = c->hp.arch, *g = arch_find_gguf(a->gguf);
	const char *hf = arch_tensor_name(a, slot, false), *gguf = arch_tensor_name(g, slot, true), *hole;
	bool per_head_qk = slot == S_Q || slot == S_K;
	char from[256], to[256];
	uint64_t shape[3];
	const struct eng_tensor *t;
	size_t n = 0, n_one = 0;
	float *v = NULL;

	hole = hf ? strstr(hf, "{}") : NULL;
	if (!hf || !gguf || (hole && !c->hp.n_expert))
		return;
	(void)snprintf(to, sizeof(to), slot < S_FIRST_IN_LAYER ? "%.0u%s" : "blk.%u.%s",
	               slot < S_FIRST_IN_LAYER ? 0 : il, gguf);
	for (uint32_t e = 0; e < (hole ? c->hp.n_expert : 1); e++) {
		size_t len = slot < S_FIRST_IN_LAYER
		                     ? (size_t)snprintf(from, sizeof(from), "%s", slot == S_HEAD ? "" : "model.")
		                     : (size_t)snprintf(from, sizeof(from), "model.layers.%u.", il);
		float *one;

		if (hole)
			(void)snprintf(from + len, sizeof(from) - len, "%.*s%u%s", (int)(hole - hf), hf, e, hole + 2);
		else
			(void)snprintf(from + len, sizeof(from) - len, "%s", hf);
		one = read_tensor(c, from, &n_one);
		if (!one)
			return;
		if (!v)
			v = keep(c, n_one * sizeof(float) * (hole ? c->hp.n_expert : 1));
		memcpy(v + n, one, n_one * sizeof(float));
		n += n_one;
	}
	t = eng_weights_find(c->in, from);
	shape[0] = c->hp.n_expert;
	memcpy(shape + (hole ? 1 : 0), t->shape, t->n_dims * sizeof(*shape));
	if (a->norm_plus_one && strstr(to, "norm.weight")) {
		for (size_t i = 0; i < n; i++)
			v[i] += 1;
	}
	if (per_head_qk && g->gguf_rope_interleaved && !a->rope_interleaved)
		permute(c, v, slot == S_Q ? c->hp.n_head : c->hp.n_kv_head, c->hp.n_embd);
	add(c, to, t->n_dims + (hole ? 1 : 0), shape, v, n);

	if (strstr(from, ".weight") && strstr(to, ".weight")) {
		replace_suffix(from, sizeof(from), ".weight", ".bias");
		replace_suffix(to, sizeof(to), ".weight", ".bias");
		v = read_tensor(c, from, &n);
		if (v)
			add(c, to, 1, &(uint64_t){ n }, v, n);
	}
}

/* gpt-oss: [n_expert, in, 2 * out] with gate and up alternating, to the usual three. */
static void convert_alternating(struct conv *c, uint32_t il)
{
	uint64_t n_exp = c->hp.n_expert, ff = c->hp.n_ff_exp, dim = c->hp.n_embd;
	uint64_t in_shape[3] = { n_exp, ff, dim }, out_shape[3] = { n_exp, dim, ff }, ff_bias[2] = { n_exp, ff };
	uint64_t dim_bias[2] = { n_exp, dim };
	static const char *const halves[] = { "gate", "up" };
	char name[128];
	size_t n;
	float *v, *w;

	for (uint64_t half = 0; half < 2; half++) {
		(void)snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.gate_up_proj", il);
		v = read_tensor(c, name, &n);
		w = keep(c, n / 2 * sizeof(float));
		for (uint64_t e = 0; e < n_exp; e++) {
			for (uint64_t f = 0; f < ff; f++) {
				for (uint64_t d = 0; d < dim; d++)
					w[(e * ff + f) * dim + d] = v[(e * dim + d) * 2 * ff + 2 * f + half];
			}
		}
		(void)snprintf(name, sizeof(name), "blk.%u.ffn_%s_exps.weight", il, halves[half]);
		add(c, name, 3, in_shape, w, n / 2);
		(void)snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.gate_up_proj_bias", il);
		v = read_tensor(c, name, &n);
		w = keep(c, n / 2 * sizeof(float));
		for (uint64_t i = 0; i < n / 2; i++)
			w[i] = v[2 * i + half];
		(void)snprintf(name, sizeof(name), "blk.%u.ffn_%s_exps.bias", il, halves[half]);
		add(c, name, 2, ff_bias, w, n / 2);
	}
	(void)snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.down_proj", il);
	v = read_tensor(c, name, &n);
	w = keep(c, n * sizeof(float));
	for (uint64_t e = 0; e < n_exp; e++) {
		for (uint64_t d = 0; d < dim; d++) {
			for (uint64_t f = 0; f < ff; f++)
				w[(e * dim + d) * ff + f] = v[(e * ff + f) * dim + d];
		}
	}
	(void)snprintf(name, sizeof(name), "blk.%u.ffn_down_exps.weight", il);
	add(c, name, 3, out_shape, w, n);
	(void)snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.down_proj_bias", il);
	v = read_tensor(c, name, &n);
	(void)snprintf(name, sizeof(name), "blk.%u.ffn_down_exps.bias", il);
	add(c, name, 2, dim_bias, v, n);
}

/* Newer DeepSeek files: K's expansion turned round per head, V's beside it. */
static void convert_split_kv_b(struct conv *c, uint32_t il)
{
	uint64_t heads = c->hp.n_head, lora = c->hp.kv_lora, nope = c->hp.qk_nope, vd = c->hp.v_head;
	uint64_t k_shape[3] = { heads, lora, nope }, v_shape[3] = { heads, vd, lora };
	char name[128];
	float *kv, *k = keep(c, heads * lora * nope * sizeof(float)), *v = keep(c, heads * lora * vd * sizeof(float));
	size_t n;

	(void)snprintf(name, sizeof(name), "model.layers.%u.self_attn.kv_b_proj.weight", il);
	kv = read_tensor(c, name, &n);
	for (uint64_t h = 0; h < heads; h++) {
		const float *head = kv + h * (nope + vd) * lora;

		for (uint64_t i = 0; i < lora; i++) {
			for (uint64_t j = 0; j < nope; j++)
				k[(h * lora + i) * nope + j] = head[j * lora + i];
		}
		memcpy(v + h * vd * lora, head + nope * lora, vd * lora * sizeof(float));
	}
	(void)snprintf(name, sizeof(name), "blk.%u.attn_k_b.weight", il);
	add(c, name, 3, k_shape, k, heads * lora * nope);
	(void)snprintf(name, sizeof(name), "blk.%u.attn_v_b.weight", il);
	add(c, name, 3, v_shape, v, heads * lora * vd);
}

static void key_u32(struct conv *c, const char *name, uint32_t v)
{
	char key[128];

	(void)snprintf(key, sizeof(key), "%s.%s", c->hp.arch->gguf, name);
	assert_int_equal(eng_gguf_add_u32(c->out, key, v), 0);
}

static void key_f32(struct conv *c, const char *name, double v)
{
	char key[128];

	(void)snprintf(key, sizeof(key), "%s.%s", c->hp.arch->gguf, name);
	assert_int_equal(eng_gguf_add_f32(c->out, key, (float)v), 0);
}

static double rope_number(const struct conv *c, const char *key)
{
	return json_number_value(json_object_get(c->rope, key));
}

static void write_rope(struct conv *c)
{
	const char *type = json_string_value(json_object_get(c->rope, "rope_type"));
	double theta = rope_number(c, "rope_theta");
	const struct rope_plan *plan = &c->hp.rope[0];
	char key[128];

	key_f32(c, "rope.freq_base", theta);
	key_u32(c, "rope.dimension_count", plan->n_rot);
	if (strcmp(type, "llama3") == 0) {
		uint64_t n = plan->n_rot / 2;
		float *factors = keep(c, n * sizeof(float));

		for (uint64_t i = 0; i < n; i++)
			factors[i] = (float)(pow(theta, -2.0 * (double)i / plan->n_rot) / plan->inv_freq[i]);
		add(c, "rope_freqs.weight", 1, &n, factors, n);
	} else if (strcmp(type, "yarn") == 0) {
		(void)snprintf(key, sizeof(key), "%s.rope.scaling.type", c->hp.arch->gguf);
		assert_int_equal(eng_gguf_add_string(c->out, key, "yarn", 4), 0);
		key_f32(c, "rope.scaling.factor", rope_number(c, "factor"));
		key_u32(c, "rope.scaling.original_context_length",
		        (uint32_t)rope_number(c, "original_max_position_embeddings"));
	}
}

static void write_keys(struct conv *c)
{
	const struct hparams *hp = &c->hp;
	const struct arch *a = hp->arch;
	uint32_t n_dense = 0;

	assert_int_equal(eng_gguf_add_string(c->out, "general.architecture", a->gguf, strlen(a->gguf)), 0);
	key_u32(c, "block_count", hp->n_layer);
	key_u32(c, "context_length", hp->n_ctx);
	key_u32(c, "embedding_length", hp->n_embd);
	key_u32(c, "feed_forward_length",
	        (uint32_t)json_integer_value(json_object_get(c->config, "intermediate_size")));
	key_u32(c, "attention.head_count", hp->n_head);
	key_u32(c, "attention.head_count_kv", a->attn == ATTN_MLA ? 1 : hp->n_kv_head);
	key_f32(c, "attention.layer_norm_rms_epsilon", hp->eps);
	if (a->attn == ATTN_MLA) {
		key_u32(c, "attention.q_lora_rank", hp->q_lora);
		key_u32(c, "attention.kv_lora_rank", hp->kv_lora);
		key_u32(c, "attention.key_length",
		        c->split_kv_b ? hp->kv_lora + hp->qk_rope : hp->qk_nope + hp->qk_rope);
		key_u32(c, "attention.value_length", c->split_kv_b ? hp->kv_lora : hp->v_head);
		if (c->split_kv_b) {
			key_u32(c, "attention.key_length_mla", hp->qk_nope + hp->qk_rope);
			key_u32(c, "attention.value_length_mla", hp->v_head);
		}
	} else {
		key_u32(c, "attention.key_length", hp->head_dim);
		key_u32(c, "attention.value_length", hp->head_dim);
	}
	if (a->window != WINDOW_NONE && hp->layer[0].window)
		key_u32(c, "attention.sliding_window", hp->layer[0].window);
	while (n_dense < hp->n_layer && !hp->layer[n_dense].top_k)
		n_dense++;
	if (hp->n_expert) {
		key_u32(c, "expert_count", hp->n_expert);
		key_u32(c, "expert_used_count", hp->layer[n_dense].top_k);
		key_u32(c, "expert_feed_forward_length", hp->n_ff_exp);
		key_u32(c, "expert_shared_count", a->shared_expert);
		key_u32(c, "leading_dense_block_count", n_dense);
		key_u32(c, "expert_group_count", hp->n_group);
		key_u32(c, "expert_group_used_count", hp->top_group);
		key_f32(c, "expert_weights_scale", hp->route_scale);
		key_u32(c, "expert_gating_func", hp->router == KN_ROUTE_SIGMOID ? 2 : 1);
	}
	write_rope(c);
}

static void convert(const char *model, struct conv *c, const char *path)
{
	struct base_buf text = BASE_BUF_INIT(1 << 20);
	struct err err = { 0 };
	char rest[256];

	(void)snprintf(rest, sizeof(rest), "models/%s/config.json", model);
	assert_int_equal(base_read_file(test_fixture(rest), &text, &err), 0);
	assert_int_equal(hparams_parse_hf(rest, text.data, text.len, &c->hp, &err), 0);
	assert_int_equal(base_json_parse(rest, text.data, text.len, &c->config, &err), 0);
	base_buf_done(&text);
	c->rope = json_object_get(c->config, "rope_parameters");
	if (json_object_get(c->rope, "full_attention"))
		c->rope = json_object_get(c->rope, "full_attention");
	(void)snprintf(rest, sizeof(rest), "models/%s", model);
	assert_int_equal(eng_weights_open(test_fixture(rest), &c->in, &err), 0);
	assert_int_equal(eng_gguf_writer_new(&c->out), 0);

	write_keys(c);
	for (int s = 0; s < S_FIRST_IN_LAYER; s++)
		convert_slot(c, (enum slot)s, 0);
	for (uint32_t il = 0; il < c->hp.n_layer; il++) {
		for (int s = S_FIRST_IN_LAYER; s < N_SLOTS; s++) {
			bool own_way = c->hp.arch->sinks && (s == S_EXP_GATE_UP || s == S_EXP_DOWN);

			if (!own_way && !(c->split_kv_b && s == S_KV_B))
				convert_slot(c, (enum slot)s, il);
		}
		if (c->hp.arch->sinks)
			convert_alternating(c, il);
		if (c->split_kv_b)
			convert_split_kv_b(c, il);
	}
	if (eng_gguf_write(c->out, path, &err) < 0)
		fail_msg("%s", err_text(&err));
	eng_gguf_writer_free(c->out);
	eng_weights_close(c->in);
	json_decref(c->config);
	for (size_t i = 0; i < c->n_kept; i++)
		free(c->kept[i]);
}

/* ---- Tests ---- */

static struct eng_model *open_converted(const char *model, enum kn_dtype dtype, bool dequantize, bool split_kv_b)
{
	struct conv *c = calloc(1, sizeof(*c));
	struct eng_model *m;
	char path[64];

	assert_non_null(c);
	c->dtype = dtype;
	c->dequantize = dequantize;
	c->split_kv_b = split_kv_b;
	(void)snprintf(path, sizeof(path), "/tmp/ocai-test-%d.gguf", (int)getpid());
	convert(model, c, path);
	free(c);
	m = open_model(path, be);
	(void)unlink(path); /* mapped: it lives on */
	return m;
}

/* Logits of the longest prompt, to be freed. */
static float *logits_of(const struct eng_model *m, const struct reference *ref)
{
	struct eng_runner *r = new_runner(m, 16, 16, 128);
	size_t n = (size_t)ref->n_ids * ref->n_vocab;
	float *out = malloc(n * sizeof(*out));
	uint32_t pages[16];
	struct eng_step_seq seq = { .pages = pages, .ids = ref->ids, .n_ids = ref->n_ids, .n_out = ref->n_ids };

	for (uint32_t i = 0; i < 16; i++)
		pages[i] = i;
	memcpy(out, step(r, &seq, 1), n * sizeof(*out));
	eng_runner_free(r);
	return out;
}

static void check_against_reference(const char *name, enum kn_dtype dtype, bool split_kv_b)
{
	struct eng_weights *refs = open_references(name);
	struct eng_model *m = open_converted(name, dtype, false, split_kv_b);
	struct reference ref;
	struct difference d;
	float *logits;

	read_reference(refs, 1, &ref);
	logits = logits_of(m, &ref);
	d = compare_kept(logits, &ref);
	print_message("%s as %s: max %.2e, relative %.2e\n", name, kn_dtype_info(dtype)->name, d.max_abs, d.rel_l2);
	assert_true(d.max_abs < 1e-3);
	assert_true(d.rel_l2 < 1e-4);
	free(logits);
	eng_model_close(m);
	eng_weights_close(refs);
}

static void the_same_model_comes_out_of_gguf(void **state)
{
	const char *name = *state;

	check_against_reference(name, KN_F32, false);
	check_against_reference(name, KN_BF16, false);
}

static void split_expansions_of_the_latent_are_read(void **state)
{
	(void)state;
	check_against_reference("deepseek_v3", KN_F32, true);
}

/* Quantized weights give what their dequantized values give: exactly the same sums on ref. */
static void quantized_files_compute_with_their_dequantized_values(void **state)
{
	static const char *const names[] = { "llama", "qwen2", "qwen3", "gemma3_text", "phi3", "hunyuan_v1_moe" };
	static const enum kn_dtype types[] = { KN_Q8_0, KN_Q4_0 };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct eng_weights *refs = open_references(names[i]);
		struct reference ref;

		read_reference(refs, 1, &ref);
		for (int t = 0; t < 2; t++) {
			struct eng_model *q = open_converted(names[i], types[t], false, false);
			struct eng_model *f = open_converted(names[i], types[t], true, false);
			float *a = logits_of(q, &ref), *b = logits_of(f, &ref);
			size_t n = (size_t)ref.n_ids * ref.n_vocab;
			struct difference d = compare(a, b, n), rounding = compare_kept(a, &ref);

			print_message("%s as %s: %.1e of its dequantized self, %.2e of the original\n", names[i],
			              kn_dtype_info(types[t])->name, d.rel_l2, rounding.rel_l2);
			assert_true(d.rel_l2 < 1e-6);
			/* Random weights forgive less than trained ones; this is to see that it is the model. */
			assert_true(rounding.rel_l2 < (types[t] == KN_Q8_0 ? 0.05 : 0.6));
			free(a);
			free(b);
			eng_model_close(q);
			eng_model_close(f);
		}
		eng_weights_close(refs);
	}
}

int main(void)
{
	size_t n = 2;
	struct CMUnitTest tests[2 + N_FIXTURE_MODELS] = {
		cmocka_unit_test(split_expansions_of_the_latent_are_read),
		cmocka_unit_test(quantized_files_compute_with_their_dequantized_values),
	};

	for (int i = 0; i < N_FIXTURE_MODELS; i++) {
		/* Converters write mistral as llama, whose keys have no window: it is not the same model. */
		if (strcmp(fixture_models[i], "mistral") == 0)
			continue;
		/* What is not in models/ is written by quantize in test_quantize_logits.c. */
		if (strchr(fixture_models[i], '/'))
			continue;
		tests[n++] = (struct CMUnitTest){ .name = fixture_models[i],
			                          .test_func = the_same_model_comes_out_of_gguf,
			                          .initial_state = (void *)fixture_models[i] };
	}
	return _cmocka_run_group_tests("gguf", tests, n, open_backend, close_backend);
}
