/* Models of known shapes with random weights, for benchmarks against other engines: the same bytes on every
 * machine. Values are sums of eight uniform bytes (close to Gaussian: excess kurtosis -0.15, nothing beyond
 * 4.9 sigma) of a splitmix64 stream per row: about one nanosecond each, so that an 8B model is made in a
 * minute. Such a file has no tokenizer ("none"). */
#include "quantize/quantize_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct shape {
	const char *name;
	uint32_t n_layer, n_embd, n_ff, n_head, n_kv_head, head_dim, n_vocab;
	bool tied;
} shapes[] = {
	{ "qwen3-0.6b", 28, 1024, 3072, 16, 8, 128, 151936, true },
	{ "qwen3-1.7b", 28, 2048, 6144, 16, 8, 128, 151936, true },
	{ "qwen3-8b", 36, 4096, 12288, 32, 8, 128, 151936, false },
};

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void qz_random_row(uint64_t seed, uint64_t row, float *dst, uint64_t n)
{
	/* Eight bytes of variance (256^2 - 1) / 12 each, mean 127.5. */
	const float scale = 0.02f / sqrtf(8.0f * 65535.0f / 12.0f);
	uint64_t state = seed * 0xd1342543de82ef95u + row, x;

	(void)splitmix64(&state); /* neighbouring rows start far apart */
	state ^= splitmix64(&state);
	for (uint64_t i = 0; i < n; i++) {
		x = splitmix64(&state);
		x = (x & 0x00ff00ff00ff00ffu) + (x >> 8 & 0x00ff00ff00ff00ffu);
		x = x * 0x0001000100010001u >> 48; /* the sum of the four 16-bit lanes */
		dst[i] = ((float)x - 1020.0f) * scale;
	}
}

static int add_matrix(struct qz_plan *plan, const char *name, uint64_t rows, uint64_t cols)
{
	struct qz_tensor *t = qz_plan_add(plan, name, 2, (const uint64_t[]){ rows, cols });

	if (!t)
		return -ENOMEM;
	t->random_seed = plan->n_tensors;
	return 0;
}

static int add_norm(struct qz_plan *plan, const char *name, uint64_t n)
{
	float ones[4096];

	for (uint64_t i = 0; i < n; i++)
		ones[i] = 1.0f;
	return qz_plan_add_values(plan, name, ones, n);
}

static int add_layer(struct qz_plan *plan, const struct shape *s, uint32_t layer)
{
	const struct {
		const char *name;
		uint32_t rows, cols; /* rows 0: a norm */
	} tensors[] = {
		{ "attn_norm", 0, s->n_embd },
		{ "attn_q", s->n_head * s->head_dim, s->n_embd },
		{ "attn_k", s->n_kv_head * s->head_dim, s->n_embd },
		{ "attn_v", s->n_kv_head * s->head_dim, s->n_embd },
		{ "attn_q_norm", 0, s->head_dim },
		{ "attn_k_norm", 0, s->head_dim },
		{ "attn_output", s->n_embd, s->n_head * s->head_dim },
		{ "ffn_norm", 0, s->n_embd },
		{ "ffn_gate", s->n_ff, s->n_embd },
		{ "ffn_up", s->n_ff, s->n_embd },
		{ "ffn_down", s->n_embd, s->n_ff },
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(tensors) / sizeof(tensors[0]); i++) {
		char name[64];

		(void)snprintf(name, sizeof(name), "blk.%u.%s.weight", layer, tensors[i].name);
		r = tensors[i].rows ? add_matrix(plan, name, tensors[i].rows, tensors[i].cols)
		                    : add_norm(plan, name, tensors[i].cols);
	}
	return r;
}

static int write_keys(struct qz_plan *plan, const struct shape *s)
{
	const struct {
		const char *rest;
		uint32_t value;
	} keys[] = {
		{ "block_count", s->n_layer },           { "context_length", 40960 },
		{ "embedding_length", s->n_embd },       { "feed_forward_length", s->n_ff },
		{ "attention.head_count", s->n_head },   { "attention.head_count_kv", s->n_kv_head },
		{ "attention.key_length", s->head_dim }, { "attention.value_length", s->head_dim },
		{ "rope.dimension_count", s->head_dim }, { "vocab_size", s->n_vocab },
	};
	int r;

	r = eng_gguf_add_string(plan->writer, "general.architecture", "qwen3", 5);
	if (r == 0)
		r = qz_key_text(plan, "general", "name", s->name);
	for (size_t i = 0; r == 0 && i < sizeof(keys) / sizeof(keys[0]); i++)
		r = qz_key_u32(plan, "qwen3", keys[i].rest, keys[i].value);
	if (r == 0)
		r = qz_key_f32(plan, "qwen3", "rope.freq_base", 1e6);
	if (r == 0)
		r = qz_key_f32(plan, "qwen3", "attention.layer_norm_rms_epsilon", 1e-6);
	return r == 0 ? eng_gguf_add_string(plan->writer, "tokenizer.ggml.model", "none", 4) : r;
}

static int plan_shape(struct qz_plan *plan, const struct shape *s)
{
	int r;

	plan->n_layer = s->n_layer;
	plan->tied = s->tied;
	r = write_keys(plan, s);
	if (r == 0)
		r = add_matrix(plan, "token_embd.weight", s->n_vocab, s->n_embd);
	for (uint32_t i = 0; r == 0 && i < s->n_layer; i++)
		r = add_layer(plan, s, i);
	if (r == 0)
		r = add_norm(plan, "output_norm.weight", s->n_embd);
	if (r == 0 && !s->tied)
		r = add_matrix(plan, "output.weight", s->n_vocab, s->n_embd);
	return r;
}

int qz_plan_random(struct qz_plan *plan, struct err *err)
{
	const char *name = plan->options->random_shape;
	int r;

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		if (strcmp(name, shapes[i].name) != 0)
			continue;
		r = plan_shape(plan, &shapes[i]);
		return r < 0 ? err_set(err, r, "%s: %s", name, strerror(-r)) : 0;
	}
	return err_set(err, -EINVAL, "shape '%s': expected qwen3-0.6b, qwen3-1.7b or qwen3-8b", name);
}
