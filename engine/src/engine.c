/* The facade behind engine.h: one model, its tokenizer and template, one runner, one scheduler.
 *
 * When it opens, the weights come first, then the memory for the rest is planned (plan.c) and taken. */
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
	DEFAULT_QUEUED = 256,
	STEP_TOKENS = 512,      /* one prefill chunk */
	GPU_STEP_TOKENS = 2048, /* the same where a device has to be filled */
};

static const uint64_t exact_bytes = 256ull << 20; /* the largest folder that is computed exactly unasked */

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

static int start(struct eng_engine *e, const struct eng_options *o, struct err *err)
{
	const struct eng_model_info *m = eng_model_info(e->model);
	struct eng_sched_config sched = { .max_queued = o->max_queued ? o->max_queued : DEFAULT_QUEUED,
		                          .tokenizer = e->meta.tokenizer,
		                          .eos_ids = e->meta.eos_ids,
		                          .n_eos_ids = e->meta.n_eos_ids,
		                          .deterministic = o->deterministic,
		                          .no_prefix_cache = o->no_prefix_cache,
		                          .no_speculation = o->no_speculation,
		                          .no_ahead = o->no_ahead,
		                          .step_ms = o->step_ms,
		                          .write_through = o->host_write_through,
		                          .on_note = o->on_note,
		                          .note_arg = o->plan_arg };
	struct eng_exec exec, answers;
	struct eng_plan plan;
	bool is_split = e->answers.model != NULL;
	int r = eng_plan_memory(e, o, &plan, err);

	if (r == 0)
		r = eng_runner_new(e->model, &plan.runner, &e->runner, err);
	if (r == 0 && is_split)
		r = eng_answers_start(e, &plan.answers, &answers, err);
	if (r < 0)
		return r;
	if (o->cache_dir && !o->no_prefix_cache && !m->state_bytes) {
		r = eng_cache_keep(e, o, plan.runner.page_tokens, err);
		if (r == 0)
			r = eng_cache_open(e, e->path, &sched.cache, err);
		if (r < 0)
			return r;
	}
	sched.max_running = plan.max_running;
	sched.host_bytes = plan.host_bytes;
	sched.pooling = m->pooling;
	sched.whole_prompts = m->is_encoder;
	eng_exec_of(e->runner, e->backend, m, &plan.runner, &exec);
	sched.answers = is_split ? &answers : NULL;
	if (exec.runs_ahead && plan.runner.n_states > 0 && o->on_note)
		o->on_note(o->plan_arg, "recurrent layers: steps are computed one at a time");
	e->info.n_ctx = plan.runner.n_ctx;
	e->info.max_running = plan.max_running;
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
		r = eng_plan_kv_dtype(e, options, err);
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
