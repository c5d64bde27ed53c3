/* An engine that says what it is told to, behind the whole of engine.h: the HTTP front over it shows what it does with
 * any answer. Linked in place of the real one.
 *
 * A token is a byte. The prompt of a chat is "TOOL:" and the last message when that is a tool's result, else the last
 * user's message; the answer is what stands behind "SAY:" in it, else "I am a parrot.". "SLOW:" in front makes it take
 * a moment for each piece. Pieces are of 1 to 7 bytes, whole characters. A grammar's text that begins with "[" is not
 * looked at: an answer that is constrained is what stands behind "CALL:". */
#ifndef PARROT_H
#define PARROT_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "engine.h"

struct eng_grammar {
	atomic_uint refs;
};

struct eng_engine {
	struct eng_info info;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* protected by lock */
	struct parrot_job *jobs;
	uint64_t next_id;
	struct eng_stats stats;
};

struct parrot_job {
	struct parrot_job *next;
	struct eng_engine *e;
	uint64_t id;
	uint32_t max_new, n_prompt;
	bool logprobs, is_constrained;
	uint32_t n_top;
	char *prompt;
	char *stop; /* the first stop string */
	atomic_bool cancelled;
	eng_event_fn on_event;
	void *arg;
};

int eng_engine_open(const struct eng_options *options, struct eng_engine **ret_engine, struct err *err)
{
	struct eng_engine *e = calloc(1, sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->info = (struct eng_info){ .served_name = "parrot",
		                     .model_path = "/models/parrot",
		                     .arch = "parrot",
		                     .backend = "none",
		                     .n_vocab = 256,
		                     .n_ctx = 1 << 20,
		                     .n_embd = 8,
		                     .has_chat_template = true,
		                     .tool_format = "hermes",
		                     .reasoning_format = "think",
		                     .bos_id = -1 };
	(void)pthread_mutex_init(&e->lock, NULL);
	(void)pthread_cond_init(&e->changed, NULL);
	e->next_id = 1;
	*ret_engine = e;
	return 0;
}

void eng_engine_drain(struct eng_engine *e, uint32_t timeout_ms)
{
	(void)pthread_mutex_lock(&e->lock);
	while (e->jobs)
		(void)pthread_cond_wait(&e->changed, &e->lock);
	(void)pthread_mutex_unlock(&e->lock);
}

void eng_engine_close(struct eng_engine *e)
{
	eng_engine_drain(e, 0);
	(void)pthread_mutex_destroy(&e->lock);
	(void)pthread_cond_destroy(&e->changed);
	free(e);
}

const struct eng_info *eng_engine_info(const struct eng_engine *e)
{
	return &e->info;
}

void eng_sampling_defaults(const struct eng_engine *e, struct eng_sampling *ret_sampling)
{
	*ret_sampling = (struct eng_sampling){ .temperature = 1, .top_p = 1, .repetition_penalty = 1 };
}

/* ---- Speaking ---- */

static size_t parrot_piece(const char *text, unsigned *seed)
{
	size_t n = 1 + (size_t)rand_r(seed) % 7, len = strlen(text);

	if (n > len)
		n = len;
	while (n < len && ((unsigned char)text[n] & 0xc0) == 0x80)
		n++;
	return n;
}

static void *parrot_speak(void *arg)
{
	struct parrot_job *j = arg, **link;
	struct eng_engine *e = j->e;
	const char *say = strstr(j->prompt, j->is_constrained ? "CALL:" : "SAY:");
	const char *text = say                                   ? strchr(say, ':') + 1
	                   : strncmp(j->prompt, "TOOL:", 5) == 0 ? j->prompt
	                                                         : "I am a parrot.";
	bool is_slow = strstr(j->prompt, "SLOW:") != NULL;
	const char *stop = j->stop ? strstr(text, j->stop) : NULL;
	size_t len = stop ? (size_t)(stop - text) : strlen(text);
	struct eng_top top[20];
	struct eng_event ev = { .kind = ENG_EV_TOKEN, .request_id = j->id, .stop_id = -1, .top = top };
	struct eng_event done = {
		.kind = ENG_EV_DONE, .request_id = j->id, .n_prompt = j->n_prompt, .stop_id = -1, .n_cached = 2
	};
	unsigned seed = (unsigned)j->id;

	for (uint32_t i = 0; i < 20; i++)
		top[i] = (struct eng_top){ (int32_t)('a' + i), -0.1f * (float)(i + 1) };
	while (len > 0 && done.n_output < j->max_new && !atomic_load(&j->cancelled)) {
		size_t n = parrot_piece(text, &seed);

		n = n > len ? len : n;
		ev.id = (unsigned char)text[0];
		ev.text = text;
		ev.text_len = n;
		ev.has_logprob = j->logprobs;
		ev.logprob = -0.1f;
		ev.n_top = j->n_top;
		ev.position = done.n_output++;
		j->on_event(j->arg, &ev);
		text += n;
		len -= n;
		if (is_slow)
			(void)usleep(20000);
	}
	done.finish = atomic_load(&j->cancelled) ? ENG_FINISH_ABORT : len > 0 ? ENG_FINISH_LENGTH : ENG_FINISH_STOP;
	done.stop_text = done.finish == ENG_FINISH_STOP && stop ? j->stop : NULL;
	done.text = "";
	(void)pthread_mutex_lock(&e->lock);
	e->stats.n_done++;
	e->stats.n_aborted += done.finish == ENG_FINISH_ABORT;
	e->stats.n_running--;
	(void)pthread_mutex_unlock(&e->lock);
	j->on_event(j->arg, &done);
	(void)pthread_mutex_lock(&e->lock);
	for (link = &e->jobs; *link != j; link = &(*link)->next)
		;
	*link = j->next;
	(void)pthread_cond_broadcast(&e->changed);
	(void)pthread_mutex_unlock(&e->lock);
	free(j->prompt);
	free(j->stop);
	free(j);
	return NULL;
}

int eng_submit(struct eng_engine *e, const struct eng_request *req, uint64_t *ret_id, struct err *err)
{
	struct parrot_job *j = calloc(1, sizeof(*j));
	pthread_attr_t attr;
	pthread_t thread;

	if (!j)
		return -ENOMEM;
	j->prompt = calloc(1, req->n_ids + 1);
	if (!j->prompt || req->n_ids == 0) {
		free(j->prompt);
		free(j);
		return err_set(err, -EINVAL, "the prompt is empty");
	}
	for (size_t i = 0; i < req->n_ids; i++)
		j->prompt[i] = (char)req->ids[i];
	j->e = e;
	j->n_prompt = (uint32_t)req->n_ids;
	j->max_new = req->max_new ? req->max_new : UINT32_MAX;
	j->logprobs = req->logprobs;
	j->n_top = req->n_top;
	j->is_constrained = req->grammar != NULL;
	j->stop = req->n_stops ? strdup(req->stops[0]) : NULL;
	j->on_event = req->on_event;
	j->arg = req->arg;
	(void)pthread_mutex_lock(&e->lock);
	*ret_id = j->id = e->next_id++;
	j->next = e->jobs;
	e->jobs = j;
	e->stats.n_requests++;
	e->stats.n_running++;
	(void)pthread_mutex_unlock(&e->lock);
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, parrot_speak, j) != 0)
		abort();
	(void)pthread_attr_destroy(&attr);
	return 0;
}

void eng_cancel(struct eng_engine *e, uint64_t id)
{
	(void)pthread_mutex_lock(&e->lock);
	for (struct parrot_job *j = e->jobs; j; j = j->next) {
		if (j->id == id)
			atomic_store(&j->cancelled, true);
	}
	(void)pthread_mutex_unlock(&e->lock);
}

void eng_engine_stats(struct eng_engine *e, struct eng_stats *ret_stats)
{
	(void)pthread_mutex_lock(&e->lock);
	*ret_stats = e->stats;
	(void)pthread_mutex_unlock(&e->lock);
}

/* ---- Operation ---- */

uint32_t eng_engine_adapter(const struct eng_engine *e, const char *name)
{
	return 0;
}

const char *eng_engine_adapter_name(const struct eng_engine *e, uint32_t adapter)
{
	return NULL;
}

uint32_t eng_retry_after_s(struct eng_engine *e)
{
	return 7;
}

int eng_flush_cache(struct eng_engine *e)
{
	int r;

	(void)pthread_mutex_lock(&e->lock);
	r = e->jobs ? -EBUSY : 0;
	(void)pthread_mutex_unlock(&e->lock);
	return r;
}

void eng_pause(struct eng_engine *e, enum eng_pause how)
{
}

void eng_continue(struct eng_engine *e)
{
}

int eng_update_weights(struct eng_engine *e, const char *path, const char *version, struct err *err)
{
	return err_set(err, -ENOTSUP, "a parrot weighs nothing");
}

void eng_weight_version(struct eng_engine *e, char *ret_version, size_t size)
{
	(void)snprintf(ret_version, size, "default");
}

int eng_grammar_compile(struct eng_engine *e, enum eng_grammar_kind kind, const char *text, size_t len,
                        struct eng_grammar **ret_grammar, struct err *err)
{
	*ret_grammar = calloc(1, sizeof(**ret_grammar));
	atomic_init(&(*ret_grammar)->refs, 1);
	return 0;
}

struct eng_grammar *eng_grammar_ref(struct eng_grammar *g)
{
	atomic_fetch_add(&g->refs, 1);
	return g;
}

void eng_grammar_unref(struct eng_grammar *g)
{
	if (g && atomic_fetch_sub(&g->refs, 1) == 1)
		free(g);
}

/* ---- Text ---- */

int eng_tokenize(const struct eng_engine *e, const char *text, size_t len, bool add_special, bool parse_special,
                 int32_t **ret_ids, size_t *ret_n, struct err *err)
{
	*ret_ids = calloc(len + 1, sizeof(**ret_ids));
	for (size_t i = 0; i < len; i++)
		(*ret_ids)[i] = (unsigned char)text[i];
	*ret_n = len;
	return 0;
}

int eng_detokenize(const struct eng_engine *e, const int32_t *ids, size_t n, bool skip_special, struct base_buf *out,
                   struct err *err)
{
	for (size_t i = 0; i < n; i++)
		(void)base_buf_putc(out, (char)ids[i]);
	return 0;
}

int eng_token_bytes(const struct eng_engine *e, int32_t id, struct base_buf *out)
{
	return base_buf_putc(out, (char)id);
}

int eng_render_chat(const struct eng_engine *e, const json_t *messages, const json_t *tools, const json_t *kwargs,
                    bool add_generation_prompt, struct base_buf *out, struct err *err)
{
	for (size_t i = json_array_size(messages); i-- > 0;) {
		const json_t *m = json_array_get(messages, i), *content = json_object_get(m, "content");
		const char *role = json_string_value(json_object_get(m, "role"));

		if (json_is_array(content))
			content = json_object_get(json_array_get(content, 0), "text");
		if (strcmp(role, "user") != 0 && strcmp(role, "tool") != 0)
			continue;
		if (strcmp(role, "tool") == 0)
			(void)base_buf_puts(out, "TOOL:");
		return base_buf_puts(out, json_string_value(content));
	}
	return err_set(err, -EINVAL, "nobody asks");
}

#endif
