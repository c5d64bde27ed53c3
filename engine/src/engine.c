/* The facade behind engine.h: one model, its tokenizer and template, one runner, one scheduler.
 *
 * Memory is planned when the engine opens: weights, K/V pages within the budget, activations for the
 * largest step. Whoever opens it is told the plan first (eng_options.on_plan). Nothing grows afterwards but what
 * requests hold. */
#include "engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine_internal.h"
#include "weights/flip.h"
#include "weights/weights.h"

enum {
	DEFAULT_CTX = 8192,
	DEFAULT_RUNNING = 32,
	DEFAULT_CONTEXTS = 8, /* whose K and V the pool holds */
	DEFAULT_QUEUED = 256,
	STEP_TOKENS = 512,      /* one prefill chunk */
	GPU_STEP_TOKENS = 2048, /* the same where a device has to be filled */
	MIN_OUTPUTS = 32,       /* rows of logits per step: prompt log-probabilities come in chunks of this */
	DRAFT_ROWS = 16,        /* rows beside those of the sequences themselves */
	PAGE_TOKENS = 32,
	MIN_CHECKPOINTS = 8,
};

static const uint64_t default_kv_bytes = 1ull << 30;
static const uint64_t default_state_bytes = 1ull << 30;
static const uint64_t gpu_reserve_bytes = 1ull << 30; /* of a device, for scratch, graphs, libraries; at most 1/8 */
static const uint64_t exact_bytes = 256ull << 20;     /* the largest folder that is computed exactly unasked */

/* ---- Opening ---- */

/* The last component of the path, without ".gguf". */
static char *name_of(const char *path)
{
	size_t end = strlen(path), begin;
	char *name;

	while (end > 1 && path[end - 1] == '/')
		end--;
	begin = end;
	while (begin > 0 && path[begin - 1] != '/')
		begin--;
	name = strndup(path + begin, end - begin);
	if (name && strlen(name) > 5 && strcmp(name + strlen(name) - 5, ".gguf") == 0)
		name[strlen(name) - 5] = '\0';
	return name;
}

static int set_names(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	bool is_flip = !o->random_shape && o->model_path && eng_path_is_flip(o->model_path);
	int r;

	if (o->random_shape)
		e->path = strdup(o->random_shape);
	else if (is_flip) {
		r = eng_flip_path(o->model_path, &e->path, err);
		if (r < 0)
			return r;
	} else if (o->model_path)
		e->path = strdup(o->model_path);
	else {
		r = eng_default_model_path(&e->path, err);
		if (r < 0)
			return r;
	}
	if (e->path && o->served_name)
		e->served_name = strdup(o->served_name);
	else if (e->path) /* what flip calls it, whatever its file is called */
		e->served_name = name_of(is_flip ? o->model_path : e->path);
	e->backend_name = strdup(o->backend ? o->backend : "auto");
	return e->served_name && e->backend_name ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int load_random(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	enum kn_dtype dtype = KN_BF16;
	int r = 0;

	if (o->random_dtype)
		r = kn_dtype_parse(o->random_dtype, &dtype, err);
	if (r == 0)
		r = eng_model_random(o->random_shape, dtype, e->backend, &e->model, err);
	if (r == 0 && e->answers.backend)
		r = eng_model_random(o->random_shape, dtype, e->answers.backend, &e->answers.model, err);
	eng_meta_default_sampling(&e->meta.sampling);
	e->meta.bos_id = -1;
	return r;
}

/* Keys of a GGUF file without its tensors; a folder needs no weights at all. */
static int load_text(struct eng_engine *e, struct err *err)
{
	struct stat st;
	int r = 0;

	if (stat(e->path, &st) < 0)
		return err_set(err, -errno, "%s: %s", e->path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		r = eng_weights_open(e->path, &e->gguf, err);
	return r < 0 ? r : eng_meta_load(e->path, e->gguf, &e->meta, err);
}

static int set_precision(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	uint64_t bytes = 0;

	if (strcmp(e->backend_name, "ref") == 0 || (o->precision && strcmp(o->precision, "exact") == 0))
		e->is_exact = true;
	else if (!o->precision || strcmp(o->precision, "auto") == 0)
		e->is_exact = !o->random_shape && eng_folder_weight_bytes(e->path, &bytes) == 0 && bytes <= exact_bytes;
	else if (strcmp(o->precision, "fast") != 0)
		return err_set(err, -EINVAL, "precision \"%s\": expected auto, exact or fast", o->precision);
	return 0;
}

static int open_one(struct eng_engine *e, const struct eng_options *o, const char *kind, struct err *err)
{
	bool on_gpu = strcmp(kind, "cuda") == 0 || strcmp(kind, "hip") == 0;
	struct eng_devices devices;
	int r = eng_devices_read(o, &devices, err);
	struct kn_config config = { .n_threads = o->n_threads,
		                    .max_tokens = on_gpu ? GPU_STEP_TOKENS : STEP_TOKENS,
		                    .isa = o->isa,
		                    .exact = e->is_exact,
		                    .deterministic = o->deterministic,
		                    .devices = devices.numbers,
		                    .n_devices = devices.n,
		                    .by_expert = o->expert_parallel };
	char *name;

	if (r == 0 && devices.n > 0 && !on_gpu)
		r = err_set(err, -ENOTSUP, "backend %s computes on the host: it has no devices to choose", kind);
	r = r < 0 ? r : kn_backend_open(kind, &config, &e->backend, err);
	if (r == 0 && devices.n_decode > 0) {
		config.devices = devices.decode;
		config.n_devices = devices.n_decode;
		r = kn_backend_open(kind, &config, &e->answers.backend, err);
		if (r < 0) { /* another kind may be tried */
			kn_backend_close(e->backend);
			e->backend = NULL;
		}
	}
	if (r < 0)
		return r;
	e->step_tokens = config.max_tokens;
	name = strdup(kind);
	if (!name)
		return err_set(err, -ENOMEM, "out of memory");
	free(e->backend_name);
	e->backend_name = name;
	return 0;
}

/* "auto" is a GPU where its plugin is installed and works. One that is installed and does not is worth a word. */
static int open_backend(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	static const char *const gpus[] = { "cuda", "hip" };

	if (strcmp(e->backend_name, "auto") != 0)
		return open_one(e, o, e->backend_name, err);
	for (size_t i = 0; i < sizeof(gpus) / sizeof(gpus[0]); i++) {
		struct err why = { 0 };
		int r = open_one(e, o, gpus[i], &why);

		if (r == 0)
			return 0;
		if (r != -ENOENT && o->on_note)
			o->on_note(o->plan_arg, err_text(&why));
	}
	return open_one(e, o, "cpu", err);
}

static int load(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	int r;

	r = set_precision(e, o, err);
	if (r < 0)
		return r;
	r = open_backend(e, o, err);
	if (r < 0)
		return r;
	if (o->random_shape)
		return load_random(e, o, err);
	r = eng_model_open(e->path, e->is_exact, e->backend, &e->model, err);
	r = r < 0 ? r : eng_adapters_load(e, e->model, err);
	if (r == 0 && e->answers.backend)
		r = eng_answers_check(e, err);
	if (r == 0 && e->answers.backend) {
		r = eng_model_open(e->path, e->is_exact, e->answers.backend, &e->answers.model, err);
		r = r < 0 ? r : eng_adapters_load(e, e->answers.model, err);
	}
	if (r < 0)
		return r;
	return eng_meta_load(e->path, eng_model_weights(e->model), &e->meta, err);
}

/* ---- The memory plan ---- */

static uint32_t or_default(uint32_t value, uint32_t def)
{
	return value ? value : def;
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

/* Processors convert float16 in one instruction, matrix units of GPUs take bfloat16 as it is. */
static int set_kv_dtype(struct eng_engine *e, const struct eng_options *o, struct err *err)
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

static int start(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	const struct eng_model_info *m = eng_model_info(e->model);
	uint32_t max_running = or_default(o->max_running, DEFAULT_RUNNING), n_ctx = 0;
	struct eng_runner_config config = { .page_tokens = PAGE_TOKENS,
		                            .max_tokens = e->step_tokens,
		                            .kv_dtype = e->kv_dtype };
	struct eng_sched_config sched = { .max_queued = or_default(o->max_queued, DEFAULT_QUEUED),
		                          .tokenizer = e->meta.tokenizer,
		                          .eos_ids = e->meta.eos_ids,
		                          .n_eos_ids = e->meta.n_eos_ids,
		                          .deterministic = o->deterministic,
		                          .no_prefix_cache = o->no_prefix_cache,
		                          .no_speculation = o->no_speculation,
		                          .no_ahead = o->no_ahead,
		                          .step_ms = o->step_ms,
		                          .host_bytes = host_cache_bytes(e, o),
		                          .write_through = o->host_write_through,
		                          .on_note = o->on_note,
		                          .note_arg = o->plan_arg };
	struct eng_runner_config decode;
	struct eng_exec exec, answers;
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
	decode = config;
	if (r == 0 && is_split)
		r = plan_pages(e->answers.backend, e->answers.model, o, n_ctx, &decode, err);
	if (r < 0)
		return r;
	bound_states(&config, max_running);
	tell_limits(e, o);
	tell_plan(e, o, &config, is_split ? &decode : NULL, max_running, sched.host_bytes);
	r = eng_runner_new(e->model, &config, &e->runner, err);
	if (r == 0 && is_split)
		r = eng_answers_start(e, &decode, &answers, err);
	if (r < 0)
		return r;
	if (o->cache_dir && !o->no_prefix_cache && !m->state_bytes) {
		r = eng_cache_keep(e, o, config.page_tokens, err);
		if (r == 0)
			r = eng_cache_open(e, e->path, &sched.cache, err);
		if (r < 0)
			return r;
	}
	sched.max_running = max_running;
	sched.pooling = m->pooling;
	sched.whole_prompts = m->is_encoder;
	eng_exec_of(e->runner, e->backend, m, &config, &exec);
	sched.answers = is_split ? &answers : NULL;
	if (exec.runs_ahead && config.n_states > 0 && o->on_note)
		o->on_note(o->plan_arg, "recurrent layers: steps are computed one at a time");
	e->info.n_ctx = n_ctx;
	e->info.max_running = max_running;
	return eng_sched_new(&exec, &sched, &e->sched, err);
}

static void fill_info(struct eng_engine *e)
{
	static const struct eng_model_info none;
	const struct eng_model_info *m = e->model ? eng_model_info(e->model) : &none;
	uint32_t n_ctx = e->info.n_ctx, max_running = e->info.max_running;

	/* Copies: the model may be changed for another one. */
	(void)snprintf(e->arch, sizeof(e->arch), "%s", m->arch);
	e->generates = e->model && m->pooling == ENG_POOL_NONE && !m->is_encoder;
	e->info = (struct eng_info){ .served_name = e->served_name,
		                     .model_path = e->path,
		                     .arch = e->arch,
		                     .backend = e->backend_name,
		                     .n_vocab = m->n_vocab,
		                     .n_ctx = n_ctx,
		                     .n_embd = m->n_embd,
		                     .n_params = m->n_params,
		                     .weight_bytes = m->weight_bytes,
		                     .kv_bytes_per_token = m->kv_bytes_per_token / (e->kv_dtype == KN_F8_E4M3 ? 2 : 1),
		                     .is_embedding = m->pooling != ENG_POOL_NONE,
		                     .has_chat_template = e->meta.chat != NULL,
		                     .chat_template = e->meta.chat_text,
		                     .max_running = max_running,
		                     .tool_format = e->meta.tool_format ? e->meta.tool_format : "none",
		                     .reasoning_format = e->meta.reasoning_format ? e->meta.reasoning_format : "none",
		                     .bos_id = e->meta.bos_id,
		                     .eos_ids = e->meta.eos_ids,
		                     .n_eos_ids = e->meta.n_eos_ids };
}

int eng_engine_open(const struct eng_options *options, struct eng_engine **ret_engine, struct err *err)
{
	struct eng_engine *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_set(err, -ENOMEM, "out of memory");
	eng_grammars_init(&e->grammars);
	(void)pthread_mutex_init(&e->lock, NULL);
	(void)snprintf(e->weight_version, sizeof(e->weight_version), "default");
	e->on_note = options->on_note;
	e->note_arg = options->plan_arg;
	r = set_names(e, options, err);
	r = r < 0 ? r : eng_adapters_keep(e, options, err);
	if (r == 0 && options->text_only)
		r = load_text(e, err);
	if (r == 0 && !options->text_only)
		r = load(e, options, err);
	if (r == 0 && !options->text_only)
		r = set_kv_dtype(e, options, err);
	if (r == 0 && !options->text_only)
		r = start(e, options, err);
	if (r < 0) {
		eng_engine_close(e);
		return r;
	}
	eng_chat_probe(e);
	fill_info(e);
	*ret_engine = e;
	return 0;
}

void eng_engine_drain(struct eng_engine *e, uint32_t timeout_ms)
{
	if (e->sched)
		(void)eng_sched_drain(e->sched, timeout_ms); /* what is left is aborted by close */
}

void eng_engine_close(struct eng_engine *e)
{
	if (!e)
		return;
	eng_sched_free(e->sched);
	eng_grammars_done(&e->grammars);
	eng_runner_free(e->answers.runner); /* it reads the other's pages */
	eng_runner_free(e->runner);
	eng_meta_done(&e->meta);
	eng_adapters_done(e);
	eng_cache_done(e);
	eng_model_close(e->answers.model);
	eng_model_close(e->model);
	eng_weights_close(e->gguf);
	kn_backend_close(e->answers.backend);
	kn_backend_close(e->backend);
	free(e->path);
	free(e->served_name);
	free(e->backend_name);
	(void)pthread_mutex_destroy(&e->lock);
	free(e);
}

/* ---- Requests ---- */

const struct eng_info *eng_engine_info(const struct eng_engine *e)
{
	return &e->info;
}

void eng_sampling_defaults(const struct eng_engine *e, struct eng_sampling *ret_sampling)
{
	*ret_sampling = e->meta.sampling;
}

static int check_kind(const struct eng_engine *e, const struct eng_request *req, struct err *err)
{
	if (!e->sched)
		return err_set(err, -ENOTSUP, "the engine was opened without weights");
	if (req->kind == ENG_GENERATE && !e->generates)
		return err_set(err, -EINVAL, "%s is an embedding model, it does not generate text", e->served_name);
	if (req->adapter > e->n_adapters)
		return err_set(err, -EINVAL, "adapter %u of %zu", req->adapter, e->n_adapters);
	return 0;
}

int eng_submit(struct eng_engine *e, const struct eng_request *req, uint64_t *ret_id, struct err *err)
{
	int r = check_kind(e, req, err);

	return r < 0 ? r : eng_sched_submit(e->sched, req, ret_id, err);
}

void eng_cancel(struct eng_engine *e, uint64_t id)
{
	if (e->sched)
		eng_sched_cancel(e->sched, id);
}

uint32_t eng_retry_after_s(struct eng_engine *e)
{
	return e->sched ? eng_sched_retry_s(e->sched) : 1;
}

int eng_flush_cache(struct eng_engine *e)
{
	return e->sched ? eng_sched_flush(e->sched) : 0;
}

void eng_engine_stats(struct eng_engine *e, struct eng_stats *ret_stats)
{
	memset(ret_stats, 0, sizeof(*ret_stats));
	if (e->sched)
		eng_sched_stats(e->sched, ret_stats);
}
