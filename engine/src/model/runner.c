/* A runner's memory: what it takes is planned from the model and the configuration, and taken when it is made; other
 * weights of the same shape may come in later. What it then does is in runner_step.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "model/team.h"

enum { MAX_STEP_TOKENS = 1 << 20, MAX_PAGE_TOKENS = 1 << 16, KV_LINE = 256 };

#define MAX_BYTES (1ull << 46) /* half of what a process can address */

/* Floats per row of each buffer; 0 where the model does not need it. */
static void plan_widths(const struct eng_model *m, uint64_t width[N_BUFS])
{
	const struct hparams *hp = &m->hp;
	uint32_t n_ff = 0, top_k = 0;
	bool out_norms = arch_tensor_name(hp->arch, S_ATTN_OUT_NORM, false) != NULL;

	for (uint32_t i = 0; i < hp->n_layer; i++) {
		n_ff = hp->layer[i].n_ff > n_ff ? hp->layer[i].n_ff : n_ff;
		top_k = hp->layer[i].top_k > top_k ? hp->layer[i].top_k : top_k;
	}
	memset(width, 0, N_BUFS * sizeof(*width));
	width[B_X] = width[B_H] = width[B_OUT_H] = hp->n_embd;
	width[B_T] = out_norms || m->share.n > 1 ? hp->n_embd : 0;
	if (hp->arch->attn == ATTN_MLA) {
		width[B_K] = hp->kv_lora + hp->qk_rope;
		width[B_Q] = hp->n_head * width[B_K];
		width[B_ATT] = (uint64_t)hp->n_head * hp->kv_lora;
		width[B_QA] = hp->q_lora;
		width[B_QN] = (uint64_t)hp->n_head * hp->qk_nope;
		width[B_MO] = (uint64_t)hp->n_head * hp->v_head;
	} else {
		width[B_ATT] = (uint64_t)hp->n_head * hp->head_dim;
		width[B_V] = (uint64_t)hp->n_kv_head * hp->head_dim;
		width[B_Q] = attention_row_heads(m, hp->n_head) * hp->head_dim;
		width[B_K] = attention_row_heads(m, hp->n_kv_head) * hp->head_dim;
	}
	if (hp->arch->gated_attn)
		width[B_Z] = width[B_ATT];
	if (hparams_state(hp)) {
		uint64_t n_v = (uint64_t)hp->linear.n_v_head * hp->linear.v_dim;

		width[B_MIX] = width[B_CONV] = hparams_linear_channels(hp);
		width[B_BA] = 2ull * hp->linear.n_v_head;
		width[B_Z] = width[B_Z] > n_v ? width[B_Z] : n_v;
		width[B_ATT] = width[B_ATT] > n_v ? width[B_ATT] : n_v;
	}
	width[B_GATE] = width[B_UP] = n_ff;
	width[B_ROUTE] = hp->n_expert;
	width[B_SHARE] = arch_tensor_name(hp->arch, S_SH_ROUTER, false) != NULL;
	width[B_WEIGHTS] = top_k; /* the chosen experts' numbers take as much again */
	width[B_LORA] = m->lora_rank;
	width[B_OUT] = m->head ? hp->n_vocab : 0;
}

static uint64_t buf_rows(const struct eng_runner_config *c, enum runner_buf b)
{
	return b == B_OUT_H || b == B_OUT ? c->max_outputs : c->max_tokens;
}

/* K and V of one layer: elements per token and K/V head. */
static void kv_shape(const struct hparams *hp, uint32_t *ret_heads, uint32_t *ret_k, uint32_t *ret_v, bool *ret_has_v)
{
	bool mla = hp->arch->attn == ATTN_MLA;

	*ret_heads = mla ? 1 : hp->n_kv_head;
	*ret_k = mla ? hp->kv_lora + hp->qk_rope : hp->head_dim;
	*ret_v = mla ? hp->kv_lora : hp->head_dim;
	*ret_has_v = !mla;
}

/* Bytes of one layer's K (or V) pool; UINT64_MAX when that is beyond counting. */
static uint64_t pool_bytes(const struct eng_runner_config *c, uint32_t n_heads, uint32_t dim)
{
	uint64_t n = (uint64_t)c->n_pages * c->page_tokens, per_token;

	per_token = (uint64_t)n_heads * dim * kn_dtype_info(c->kv_dtype)->block_bytes;
	return __builtin_mul_overflow(n, per_token, &n) ? UINT64_MAX : n;
}

/* Host memory of the step's tables, per token. */
static uint64_t host_bytes(const struct eng_runner_config *c)
{
	return c->max_tokens * (uint64_t)(2 * sizeof(int32_t) + 2 * sizeof(struct kn_seq) + sizeof(struct adapter_run));
}

/* Floats of the longer kind of output row. */
static uint64_t row_width(const uint64_t width[N_BUFS])
{
	return width[B_OUT] > width[B_OUT_H] ? width[B_OUT] : width[B_OUT_H];
}

/* Of one device's share. */
static uint64_t share_bytes(const struct eng_model *model, const struct eng_runner_config *config)
{
	uint64_t width[N_BUFS], total = host_bytes(config), layer;
	uint32_t n_heads, k_dim, v_dim;
	bool has_v;

	plan_widths(model, width);
	for (int b = 0; b < N_BUFS; b++)
		total += buf_rows(config, b) * width[b] * sizeof(float);
	total += config->max_tokens * width[B_WEIGHTS] * sizeof(int32_t);
	if (!kn_is_on_host(model->backend))
		total += config->max_outputs * row_width(width) * sizeof(float) + runner_outputs_bytes(config);
	kv_shape(&model->hp, &n_heads, &k_dim, &v_dim, &has_v);
	layer = pool_bytes(config, n_heads, k_dim + (has_v ? v_dim : 0));
	total += config->n_states * hparams_state(&model->hp) * sizeof(float);
	if (layer > (UINT64_MAX - total) / model->hp.n_layer)
		return UINT64_MAX;
	return total + layer * hparams_n_attention(&model->hp);
}

uint64_t eng_runner_bytes(const struct eng_model *model, const struct eng_runner_config *config)
{
	uint64_t total = share_bytes(model, config);

	for (uint32_t i = 1; i < model->share.n && total <= MAX_BYTES; i++)
		total += share_bytes(model->shares[i], config);
	return total;
}

static int check_config(const struct eng_model *m, const struct eng_runner_config *c, struct err *err)
{
	if (c->kv_dtype != KN_F32 && c->kv_dtype != KN_F16 && c->kv_dtype != KN_BF16 && c->kv_dtype != KN_F8_E4M3)
		return err_set(err, -EINVAL, "K/V cannot be kept in %s",
		               c->kv_dtype < KN_N_DTYPES ? kn_dtype_info(c->kv_dtype)->name : "that type");
	if (c->kv_dtype == KN_F8_E4M3 && strcmp(m->backend->ops->name, "cpu") == 0)
		return err_set(err, -ENOTSUP, "K/V cannot be kept in %s by backend cpu: cuda, hip and ref can",
		               kn_dtype_info(c->kv_dtype)->name);
	if (c->n_pages == 0 || c->page_tokens == 0 || c->page_tokens > MAX_PAGE_TOKENS || c->max_tokens == 0 ||
	    c->max_tokens > MAX_STEP_TOKENS || c->max_outputs == 0 || c->max_outputs > c->max_tokens)
		return err_set(err, -EINVAL, "runner: %u pages of %u tokens, %u tokens and %u outputs per step",
		               c->n_pages, c->page_tokens, c->max_tokens, c->max_outputs);
	if (hparams_state(&m->hp) && c->n_states == 0)
		return err_set(err, -EINVAL, "runner: the model has recurrent layers: no slots for their states");
	if (c->n_states && hparams_state(&m->hp) * sizeof(float) > MAX_BYTES / c->n_states)
		return err_set(err, -ENOMEM, "runner: more memory than can be addressed");
	if (eng_runner_bytes(m, c) > MAX_BYTES)
		return err_set(err, -ENOMEM, "runner: more memory than can be addressed");
	return 0;
}

/* A device's pools lie behind each other in one allocation, so that a page's parts are at equal distances: such a page
 * is copied as a whole. On the host each has its own, which is placed and given back by itself. */
static void *alloc_pool(struct eng_runner *r, uint32_t n_heads, uint32_t dim, char **io_next)
{
	uint64_t bytes = pool_bytes(&r->config, n_heads, dim);
	void *p = *io_next;

	if (!r->kv_memory)
		return r->ops->alloc(r->be, bytes);
	*io_next += bytes;
	return p;
}

static bool alloc_kv(struct eng_runner *r)
{
	const struct hparams *hp = &r->model->hp;
	uint32_t n_heads, k_dim, v_dim;
	uint64_t layer;
	char *next;
	bool has_v;

	kv_shape(hp, &n_heads, &k_dim, &v_dim, &has_v);
	layer = pool_bytes(&r->config, n_heads, k_dim) + (has_v ? pool_bytes(&r->config, n_heads, v_dim) : 0);
	r->kv = calloc(hp->n_layer, sizeof(*r->kv));
	r->pieces = calloc(hp->n_layer, 2 * sizeof(*r->pieces));
	if (!r->kv || !r->pieces)
		return false;
	/* Pools that are not whole lines would shift those behind them. */
	if (!kn_is_on_host(r->be) && hparams_n_attention(hp) > 0 && layer % KV_LINE == 0 &&
	    pool_bytes(&r->config, n_heads, k_dim) % KV_LINE == 0) {
		r->kv_memory = r->ops->alloc(r->be, layer * hparams_n_attention(hp));
		if (!r->kv_memory)
			return false;
	}
	next = r->kv_memory;
	for (uint32_t i = 0; i < hp->n_layer; i++) {
		struct kn_kv *kv = &r->kv[i];

		*kv = (struct kn_kv){ .dtype = r->config.kv_dtype,
			              .n_kv_head = n_heads,
			              .k_dim = k_dim,
			              .v_dim = v_dim,
			              .page_tokens = r->config.page_tokens };
		if (hp->layer[i].linear)
			continue;
		kv->k = alloc_pool(r, n_heads, k_dim, &next);
		kv->v = has_v ? alloc_pool(r, n_heads, v_dim, &next) : NULL;
		if (!kv->k || (has_v && !kv->v))
			return false;
	}
	return true;
}

static bool alloc_states(struct eng_runner *r)
{
	size_t n = hparams_state(&r->model->hp);

	if (n == 0)
		return true;
	r->states = r->ops->alloc(r->be, r->config.n_states * n * sizeof(*r->states));
	r->state_pos = calloc(r->config.n_states, sizeof(*r->state_pos));
	return r->states && r->state_pos;
}

static bool alloc_buffers(struct eng_runner *r)
{
	uint64_t width[N_BUFS];

	plan_widths(r->model, width);
	for (int b = 0; b < N_BUFS; b++) {
		if (!width[b])
			continue;
		r->buf[b] = r->ops->alloc(r->be, buf_rows(&r->config, b) * width[b] * sizeof(float));
		if (!r->buf[b])
			return false;
	}
	if (width[B_WEIGHTS]) {
		r->expert_ids = r->ops->alloc(r->be, r->config.max_tokens * width[B_WEIGHTS] * sizeof(int32_t));
		if (!r->expert_ids)
			return false;
	}
	if (!kn_is_on_host(r->be)) {
		r->host_out = calloc(r->config.max_outputs, row_width(width) * sizeof(float));
		if (!r->host_out)
			return false;
	}
	r->ids = calloc(r->config.max_tokens, sizeof(*r->ids));
	r->pos = calloc(r->config.max_tokens, sizeof(*r->pos));
	r->seqs = calloc(r->config.max_tokens, sizeof(*r->seqs));
	if (r->model->n_loras) {
		r->runs = calloc(r->config.max_tokens, sizeof(*r->runs));
		if (!r->runs)
			return false;
	}
	if (r->model->hp.arch->encoder) {
		r->row_seqs = calloc(r->config.max_tokens, sizeof(*r->row_seqs));
		if (!r->row_seqs)
			return false;
	}
	return r->ids && r->pos && r->seqs && runner_outputs_new(r) == 0;
}

static void set_ropes(struct eng_runner *r)
{
	const struct eng_model *model = r->model;
	uint32_t n_ctx = r->config.n_ctx ? r->config.n_ctx : model->hp.n_ctx;

	for (uint32_t i = 0; i < model->hp.n_rope; i++) {
		const struct rope_plan *plan = &model->hp.rope[i];
		bool is_long = plan->long_above && n_ctx > plan->long_above;

		r->rope[i] = (struct kn_rope){ .inv_freq = is_long ? model->inv_freq_long[i] : model->inv_freq[i],
			                       .n_rot = plan->n_rot,
			                       .scale = plan->scale,
			                       .interleaved = model->hp.rope_interleaved };
	}
}

/* What sizes buffers and pages: another model must agree in all of it. NULL: it does. */
static const char *first_difference(const struct hparams *a, const struct hparams *b)
{
	const struct {
		const char *name;
		uint64_t a, b;
	} numbers[] = {
		{ "the vocabulary", a->n_vocab, b->n_vocab },
		{ "the number of layers", a->n_layer, b->n_layer },
		{ "the width", a->n_embd, b->n_embd },
		{ "the number of heads", a->n_head, b->n_head },
		{ "the number of K/V heads", a->n_kv_head, b->n_kv_head },
		{ "the size of heads", a->head_dim, b->head_dim },
		{ "the attention's ranks", (uint64_t)a->q_lora << 32 | a->kv_lora,
		  (uint64_t)b->q_lora << 32 | b->kv_lora },
		{ "the attention's parts", (uint64_t)a->qk_nope << 32 | a->qk_rope,
		  (uint64_t)b->qk_nope << 32 | b->qk_rope },
		{ "the size of values", a->v_head, b->v_head },
		{ "the number of experts", a->n_expert, b->n_expert },
		{ "the size of experts", a->n_ff_exp, b->n_ff_exp },
		{ "the number of rotations", a->n_rope, b->n_rope },
		{ "the output matrix", a->headless, b->headless },
		{ "the heads of linear attention", (uint64_t)a->linear.n_k_head << 32 | a->linear.n_v_head,
		  (uint64_t)b->linear.n_k_head << 32 | b->linear.n_v_head },
		{ "the size of linear attention's heads", (uint64_t)a->linear.k_dim << 32 | a->linear.v_dim,
		  (uint64_t)b->linear.k_dim << 32 | b->linear.v_dim },
		{ "the convolution", a->linear.conv, b->linear.conv },
	};

	if (a->arch != b->arch)
		return "the architecture";
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (numbers[i].a != numbers[i].b)
			return numbers[i].name;
	}
	for (uint32_t i = 0; i < a->n_layer; i++) {
		if (a->layer[i].window != b->layer[i].window || a->layer[i].top_k != b->layer[i].top_k ||
		    a->layer[i].n_ff != b->layer[i].n_ff || a->layer[i].rope != b->layer[i].rope ||
		    a->layer[i].linear != b->layer[i].linear)
			return "a layer's kind";
	}
	return NULL;
}

int eng_runner_set_model(struct eng_runner *r, const struct eng_model *model, struct err *err)
{
	const char *what = first_difference(&r->model->hp, &model->hp);

	if (!what && (model->backend != r->be || model->share.n != r->model->share.n))
		what = "the backend";
	if (what)
		return err_set(err, -EINVAL, "the new weights are of another shape: %s differs", what);
	for (uint32_t i = 1; i < r->n_shares; i++) {
		r->shares[i]->model = model->shares[i];
		set_ropes(r->shares[i]);
	}
	r->model = model;
	set_ropes(r);
	return 0;
}

static int share_new(const struct eng_model *model, const struct eng_runner_config *config,
                     struct eng_runner **ret_runner, struct err *err)
{
	struct eng_runner *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, -ENOMEM, "runner: no memory");
	r->model = model;
	r->config = *config;
	r->be = model->backend;
	r->ops = model->backend->ops;
	set_ropes(r);
	if (!alloc_kv(r) || !alloc_states(r) || !alloc_buffers(r)) {
		eng_runner_free(r);
		return err_set(err, -ENOMEM, "runner: no memory for %.1f MiB",
		               (double)share_bytes(model, config) / (1 << 20));
	}
	*ret_runner = r;
	return 0;
}

int eng_runner_new(const struct eng_model *model, const struct eng_runner_config *config,
                   struct eng_runner **ret_runner, struct err *err)
{
	struct eng_runner *r = NULL;
	int rc = check_config(model, config, err);

	rc = rc < 0 ? rc : share_new(model, config, &r, err);
	if (rc < 0)
		return rc;
	if (model->share.n > 1) {
		r->n_shares = 1;
		r->shares[0] = r;
		for (uint32_t i = 1; i < model->share.n && rc == 0; i++) {
			rc = share_new(model->shares[i], config, &r->shares[i], err);
			r->n_shares += rc == 0;
		}
		if (rc == 0 && runner_team_new(model->share.n, &r->team) < 0)
			rc = err_set(err, -ENOMEM, "runner: no threads for %u devices", model->share.n);
	}
	if (rc < 0) {
		eng_runner_free(r);
		return rc;
	}
	*ret_runner = r;
	return 0;
}

void eng_runner_free(struct eng_runner *r)
{
	if (!r)
		return;
	runner_team_free(r->team);
	for (uint32_t i = 1; i < r->n_shares; i++)
		eng_runner_free(r->shares[i]);
	for (int b = 0; b < N_BUFS; b++) {
		if (r->buf[b])
			r->ops->free(r->be, r->buf[b]);
	}
	if (r->expert_ids)
		r->ops->free(r->be, r->expert_ids);
	if (r->kv_memory)
		r->ops->free(r->be, r->kv_memory);
	for (uint32_t i = 0; r->kv && !r->kv_memory && i < r->model->hp.n_layer; i++) {
		if (r->kv[i].k)
			r->ops->free(r->be, r->kv[i].k);
		if (r->kv[i].v)
			r->ops->free(r->be, r->kv[i].v);
	}
	if (r->states)
		r->ops->free(r->be, r->states);
	free(r->state_pos);
	free(r->kv);
	free(r->pieces);
	free(r->host_out);
	runner_outputs_free(r->outputs);
	free(r->ids);
	free(r->pos);
	free(r->seqs);
	free(r->row_seqs);
	free(r->runs);
	free(r);
}
