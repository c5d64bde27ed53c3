/* The memory plan of an engine: how many tokens of context, pages of K and V, recurrent states and rows of a step there
 * are, within budgets that were asked for or what devices have left behind the weights. Whoever opens the engine is
 * told it before anything is taken; nothing grows afterwards but what requests hold. */
#include <errno.h>
#include <string.h>

#include "engine_internal.h"

enum {
	DEFAULT_CTX = 8192,
	DEFAULT_RUNNING = 32,
	DEFAULT_CONTEXTS = 8, /* whose K and V the pool holds */
	MIN_OUTPUTS = 32,     /* rows of logits per step: prompt log-probabilities come in chunks of this */
	DRAFT_ROWS = 16,      /* rows beside those of the sequences themselves */
	PAGE_TOKENS = 32,
	MIN_CHECKPOINTS = 8,
};

static const uint64_t default_kv_bytes = 1ull << 30;
static const uint64_t default_state_bytes = 1ull << 30;
static const uint64_t gpu_reserve_bytes = 1ull << 30; /* of a device, for scratch, graphs, libraries; at most 1/8 */

/* Processors convert float16 in one instruction, matrix units of GPUs take bfloat16 as it is. */
int eng_plan_kv_dtype(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	static const struct {
		const char *name;
		enum kn_dtype dtype;
	} types[] = { { "f32", KN_F32 }, { "f16", KN_F16 }, { "bf16", KN_BF16 }, { "f8", KN_F8_E4M3 } };

	e->kv_dtype = e->is_exact ? KN_F32 : kn_is_on_host(e->backend) ? KN_F16 : KN_BF16;
	if (!o->kv_dtype || strcmp(o->kv_dtype, "auto") == 0)
		return 0;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(o->kv_dtype, types[i].name) == 0) {
			e->kv_dtype = types[i].dtype;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "K/V type \"%s\": expected auto, f32, f16, bf16 or f8", o->kv_dtype);
}

static int plan_context(const struct eng_engine *e, const struct eng_options *o, uint32_t *ret_ctx, struct err *err)
{
	uint32_t model_ctx = eng_model_info(e->model)->n_ctx;

	/* A prompt of an encoder is one step. */
	if (eng_model_info(e->model)->is_encoder && model_ctx > e->step_tokens)
		model_ctx = e->step_tokens;
	if (o->n_ctx > model_ctx)
		return err_set(err, -EINVAL, "a context of %u tokens was asked for, the model is made for %u", o->n_ctx,
		               model_ctx);
	*ret_ctx = o->n_ctx ? o->n_ctx : model_ctx < DEFAULT_CTX ? model_ctx : DEFAULT_CTX;
	return 0;
}

static uint64_t page_bytes(const struct eng_model *model, struct eng_runner_config config)
{
	uint64_t one, two;

	config.n_pages = 1;
	one = eng_runner_bytes(model, &config);
	config.n_pages = 2;
	two = eng_runner_bytes(model, &config);
	return two > one ? two - one : 1;
}

/* What each device has left behind the weights. All shares have the same number of pages: the fullest one counts. */
static uint64_t device_left(const struct kn_backend *be)
{
	uint64_t left = be->ops->free_bytes((struct kn_backend *)be);

	for (uint32_t i = 1; i < be->n_ranks; i++) {
		struct kn_backend *rank = be->ranks[i];
		uint64_t there = rank->ops->free_bytes(rank);

		left = there < left ? there : left;
	}
	return left;
}

/* What all have when activations and states are in them, too, less a reserve. */
static uint64_t device_budget(const struct kn_backend *be, const struct eng_model *model,
                              struct eng_runner_config config)
{
	uint32_t n = be->n_ranks ? be->n_ranks : 1;
	uint64_t left = device_left(be), taken, reserve;

	/* Of each device; a library for messages between several takes as much again when it is first used. */
	reserve = n > 1 ? 2 * gpu_reserve_bytes : gpu_reserve_bytes;
	reserve = left / 8 < reserve ? left / 8 : reserve;
	left *= n;
	config.n_pages = 0;
	taken = eng_runner_bytes(model, &config) + n * reserve;
	return left > taken ? left - taken : 0;
}

/* A budget that was asked for is filled, as is a device: what nobody uses caches prefixes. Else as many pages as the
 * requests asked for need at full length, or as a few do: more run together because few are that long. */
static int plan_pages(const struct kn_backend *be, const struct eng_model *model, const struct eng_options *o,
                      uint32_t n_ctx, struct eng_runner_config *config, struct err *err)
{
	uint64_t per_page = page_bytes(model, *config), per_seq = (n_ctx + PAGE_TOKENS - 1) / PAGE_TOKENS;
	bool on_device = !kn_is_on_host(be);
	uint64_t budget = o->kv_bytes ? o->kv_bytes : on_device ? device_budget(be, model, *config) : default_kv_bytes;
	uint64_t n = per_seq * (o->max_running ? o->max_running : DEFAULT_CONTEXTS);

	if (o->kv_bytes || on_device || n > budget / per_page)
		n = budget / per_page;
	if (n < per_seq && !o->kv_bytes && !on_device)
		n = per_seq;
	if (n == 0)
		return err_set(err, -EINVAL, "the K/V budget of %llu bytes does not hold one page of %llu bytes",
		               (unsigned long long)budget, (unsigned long long)per_page);
	config->n_pages = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
	return 0;
}

/* Of a device an eighth at most. */
static uint64_t state_budget(const struct eng_engine *e, const struct eng_options *o)
{
	uint64_t most = kn_is_on_host(e->backend) ? UINT64_MAX : device_left(e->backend) / 8;

	return o->state_bytes ? o->state_bytes : most < default_state_bytes ? most : default_state_bytes;
}

/* Recurrent models: a slot for each running request, and what the budget has beyond them for checkpoints. Of a budget
 * that was asked for, running requests get half at most. Before pages are planned, which get what these leave. */
static int plan_states(const struct eng_engine *e, const struct eng_options *o, struct eng_runner_config *config,
                       uint32_t *max_running, struct err *err)
{
	uint64_t each = eng_model_info(e->model)->state_bytes, n;

	if (each == 0)
		return 0;
	n = state_budget(e, o) / each;
	if (o->state_bytes && n < 2)
		return err_set(err, -EINVAL,
		               "the budget of %llu bytes does not hold a recurrent state and a copy, %llu bytes each",
		               (unsigned long long)o->state_bytes, (unsigned long long)each);
	if (o->state_bytes && *max_running > n / 2)
		*max_running = (uint32_t)(n / 2);
	if (!o->state_bytes && n < (uint64_t)*max_running + MIN_CHECKPOINTS)
		n = (uint64_t)*max_running + MIN_CHECKPOINTS;
	config->n_states = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX - 1;
	return 0;
}

/* A checkpoint for each page at most. */
static void bound_states(struct eng_runner_config *config, uint32_t max_running)
{
	uint64_t most = (uint64_t)config->n_pages + max_running;

	if (config->n_states > most)
		config->n_states = (uint32_t)most;
}

/* What recurrent layers rule out, for whoever asked for it. */
static void tell_limits(const struct eng_engine *e, const struct eng_options *o)
{
	if (!eng_model_info(e->model)->state_bytes || !o->on_note)
		return;
	if (!o->no_speculation)
		o->on_note(o->plan_arg,
		           "no speculation: the state of the model's recurrent layers cannot be taken back "
		           "when a guess was wrong");
	if (o->host_cache_bytes && !o->no_prefix_cache && !kn_is_on_host(e->backend))
		o->on_note(o->plan_arg,
		           "no host cache: the pages of a model with recurrent layers are of no use without "
		           "their states, which stay on the device");
	if (o->cache_dir && !o->no_prefix_cache)
		o->on_note(o->plan_arg, "no prompt cache on disk: the pages of a model with recurrent layers are of no "
		                        "use without their states, which are too large to be kept there");
}

/* Pages of a device only: on the host, they are there already. */
static uint64_t host_cache_bytes(const struct eng_engine *e, const struct eng_options *o)
{
	const struct eng_model_info *m = eng_model_info(e->model);

	if (o->host_cache_bytes && kn_is_on_host(e->backend) && o->on_note)
		o->on_note(o->plan_arg, "no host cache: this backend keeps K and V in host memory; see kv-bytes");
	return kn_is_on_host(e->backend) || o->no_prefix_cache || m->state_bytes || m->is_encoder ? 0
	                                                                                          : o->host_cache_bytes;
}

/* answers: what is planned for the devices of answers, or NULL. */
static void tell_plan(const struct eng_engine *e, const struct eng_options *o, const struct eng_runner_config *config,
                      const struct eng_runner_config *answers, uint32_t max_running, uint64_t host_bytes)
{
	const struct eng_model_info *m = eng_model_info(e->model);
	struct eng_memory_plan plan = { .mapped_bytes = m->mapped_bytes,
		                        .own_bytes = m->own_bytes,
		                        .kv_bytes = page_bytes(e->model, *config) * config->n_pages,
		                        .kv_pages = config->n_pages,
		                        .page_tokens = config->page_tokens,
		                        .state_bytes = m->state_bytes * config->n_states,
		                        .n_states = config->n_states,
		                        .n_ctx = config->n_ctx,
		                        .max_running = max_running,
		                        .host_cache_bytes = host_bytes };

	plan.activation_bytes = eng_runner_bytes(e->model, config) - plan.kv_bytes - plan.state_bytes;
	if (answers) {
		plan.own_bytes += eng_model_info(e->answers.model)->own_bytes;
		plan.decode_kv_bytes = page_bytes(e->answers.model, *answers) * answers->n_pages;
		plan.decode_kv_pages = answers->n_pages;
	}
	if (o->on_plan)
		o->on_plan(o->plan_arg, &plan);
}

int eng_plan_memory(const struct eng_engine *e, const struct eng_options *o, struct eng_plan *ret_plan, struct err *err)
{
	const struct eng_model_info *m = eng_model_info(e->model);
	uint32_t max_running = o->max_running ? o->max_running : DEFAULT_RUNNING, n_ctx = 0;
	struct eng_runner_config config = { .page_tokens = PAGE_TOKENS,
		                            .max_tokens = e->step_tokens,
		                            .kv_dtype = e->kv_dtype };
	struct eng_runner_config answers;
	uint64_t host_bytes = host_cache_bytes(e, o);
	bool is_split = e->answers.model != NULL;
	int r;

	if (max_running > e->step_tokens)
		return err_set(err, -EINVAL, "at most %u requests can run together, %u asked for", e->step_tokens,
		               max_running);
	r = plan_context(e, o, &n_ctx, err);
	if (r < 0)
		return r;
	config.n_ctx = n_ctx;
	config.max_outputs = max_running + DRAFT_ROWS > MIN_OUTPUTS ? max_running + DRAFT_ROWS : MIN_OUTPUTS;
	if (config.max_outputs > e->step_tokens || m->pooling == ENG_POOL_MEAN || m->pooling == ENG_POOL_CLS)
		config.max_outputs = e->step_tokens;
	r = plan_states(e, o, &config, &max_running, err);
	if (r == 0)
		r = plan_pages(e->backend, e->model, o, n_ctx, &config, err);
	answers = config;
	if (r == 0 && is_split)
		r = plan_pages(e->answers.backend, e->answers.model, o, n_ctx, &answers, err);
	if (r < 0)
		return r;
	bound_states(&config, max_running);
	tell_limits(e, o);
	tell_plan(e, o, &config, is_split ? &answers : NULL, max_running, host_bytes);
	*ret_plan = (struct eng_plan){
		.runner = config, .answers = answers, .max_running = max_running, .host_bytes = host_bytes
	};
	return 0;
}
