/* ocai-engine run: one prompt, its answer on standard output as it comes. */
#include "common.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

struct run {
	struct model_options m;
	const char *system;
	double temperature, top_p, min_p, repetition_penalty;
	uint32_t top_k, max_tokens;
	uint64_t seed;
	bool raw, ignore_eos, verbose;
};

/* Below zero: not given. */
static const double unset = -1;

const struct opt cmd_run_opts[] = {
	MODEL_OPTS(struct run, m),
	{ "raw", 'r', OPT_FLAG, offsetof(struct run, raw), NULL, "no chat template: the model continues the prompt",
	  NULL },
	{ "system", 's', OPT_STR, offsetof(struct run, system), "TEXT", "a system message in front", NULL },
	{ "max-tokens", 'n', OPT_UINT, offsetof(struct run, max_tokens), "N",
	  "longest answer; 0: up to the context [0]", NULL },
	{ "temperature", 'T', OPT_DOUBLE, offsetof(struct run, temperature), "X",
	  "0: always the likeliest [the model's]", NULL },
	{ "top-p", 0, OPT_DOUBLE, offsetof(struct run, top_p), "X", "[the model's]", NULL },
	{ "top-k", 0, OPT_UINT, offsetof(struct run, top_k), "N", "[the model's]", NULL },
	{ "min-p", 0, OPT_DOUBLE, offsetof(struct run, min_p), "X", "[the model's]", NULL },
	{ "repetition-penalty", 0, OPT_DOUBLE, offsetof(struct run, repetition_penalty), "X", "[the model's]", NULL },
	{ "seed", 0, OPT_U64, offsetof(struct run, seed), "N", "repeatable sampling [random]", NULL },
	{ "ignore-eos", 0, OPT_FLAG, offsetof(struct run, ignore_eos), NULL, "go on behind the end token", NULL },
	{ "verbose", 'v', OPT_FLAG, offsetof(struct run, verbose), NULL, "token counts on standard error at the end",
	  NULL },
	{ 0 }
};

/* Between the engine's thread, which must not wait, and ours, which writes. */
struct output {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct base_buf text;
	bool is_done;
	struct err error;
	enum eng_finish finish;
	uint32_t n_prompt, n_output;
};

static void on_event(void *arg, const struct eng_event *ev)
{
	struct output *o = arg;

	(void)pthread_mutex_lock(&o->lock);
	if (ev->text_len)
		(void)base_buf_append(&o->text, ev->text, ev->text_len);
	if (ev->kind == ENG_EV_DONE) {
		o->is_done = true;
		o->finish = ev->finish;
		o->n_prompt = ev->n_prompt;
		o->n_output = ev->n_output;
		if (ev->error)
			o->error = *ev->error;
	}
	(void)pthread_cond_signal(&o->cond);
	(void)pthread_mutex_unlock(&o->lock);
}

/* Writes until the request is done. False when standard output is gone. */
static bool write_all(struct output *o)
{
	bool ok = true, done = false;

	while (!done) {
		CLEANUP(freep) char *text = NULL;
		size_t len;

		(void)pthread_mutex_lock(&o->lock);
		while (o->text.len == 0 && !o->is_done)
			(void)pthread_cond_wait(&o->cond, &o->lock);
		len = o->text.len;
		text = len ? base_buf_take(&o->text) : NULL;
		done = o->is_done;
		(void)pthread_mutex_unlock(&o->lock);
		if (text && (fwrite(text, 1, len, stdout) != len || fflush(stdout) != 0))
			ok = false;
		if (!ok)
			return false;
	}
	return ok;
}

static int render(const struct run *o, struct eng_engine *e, const char *prompt, size_t len, struct base_buf *out,
                  struct err *err)
{
	json_t *messages = json_array();
	int r;

	if (o->system)
		(void)json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "system", "content", o->system));
	(void)json_array_append_new(messages, json_pack("{s:s,s:s%}", "role", "user", "content", prompt, len));
	r = eng_render_chat(e, messages, NULL, NULL, true, out, err);
	json_decref(messages);
	return r;
}

static void apply_sampling(const struct run *o, struct eng_sampling *s)
{
	if (o->temperature >= 0)
		s->temperature = (float)o->temperature;
	if (o->top_p >= 0)
		s->top_p = (float)o->top_p;
	if (o->min_p >= 0)
		s->min_p = (float)o->min_p;
	if (o->repetition_penalty > 0)
		s->repetition_penalty = (float)o->repetition_penalty;
	if (o->top_k != UINT32_MAX)
		s->top_k = o->top_k;
	s->has_seed = o->seed != UINT64_MAX;
	s->seed = o->seed;
}

static int answer(const struct run *o, struct eng_engine *e, const char *prompt, size_t len, struct output *out,
                  struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(64 << 20);
	CLEANUP(freep) int32_t *ids = NULL;
	bool use_template = !o->raw && eng_engine_info(e)->has_chat_template;
	struct eng_request req = { .logprob_start = -1,
		                   .max_new = o->max_tokens,
		                   .ignore_eos = o->ignore_eos,
		                   .on_event = on_event,
		                   .arg = out };
	uint64_t id = 0;
	size_t n = 0;
	int r;

	r = use_template ? render(o, e, prompt, len, &text, err) : base_buf_append(&text, prompt, len);
	if (r == 0)
		r = eng_tokenize(e, base_buf_text(&text), text.len, !use_template, true, &ids, &n, err);
	if (r < 0)
		return r;
	eng_sampling_defaults(e, &req.sampling);
	apply_sampling(o, &req.sampling);
	req.ids = ids;
	req.n_ids = n;
	r = eng_submit(e, &req, &id, err);
	if (r < 0)
		return r;
	if (!write_all(out)) {
		eng_cancel(e, id);
		eng_engine_drain(e, 10000);
		return err_set(err, -EIO, "standard output: %s", strerror(errno));
	}
	if (out->finish == ENG_FINISH_ERROR)
		return err_set(err, -EIO, "%s", err_text(&out->error));
	return 0;
}

int cmd_run(int argc, char **argv)
{
	struct run o = { .temperature = unset,
		         .top_p = unset,
		         .min_p = unset,
		         .repetition_penalty = unset,
		         .top_k = UINT32_MAX,
		         .seed = UINT64_MAX,
		         .m.log_level = "warn" };
	struct output out = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	CLEANUP(freep) char *prompt = NULL;
	struct eng_engine *engine = NULL;
	struct eng_options options;
	struct err err = { 0 };
	int r, n_args = 0, exit_code = 0;
	size_t len = 0;

	if (command_parse(argc, argv, &o, &n_args, &exit_code) != OPT_RUN)
		return exit_code;
	base_buf_init(&out.text, 64 << 20);
	model_options_apply(&o.m, &options);
	options.max_running = 1;
	r = read_text(n_args, argv, &prompt, &len, &err);
	if (r == 0)
		r = eng_engine_open(&options, &engine, &err);
	if (r == 0)
		r = answer(&o, engine, prompt, len, &out, &err);
	if (r == 0) {
		(void)putchar('\n');
		if (o.verbose)
			(void)fprintf(stderr, "%u prompt tokens, %u output tokens\n", out.n_prompt, out.n_output);
	}
	eng_engine_close(engine);
	base_buf_done(&out.text);
	return r < 0 ? command_failed(&err) : 0;
}
