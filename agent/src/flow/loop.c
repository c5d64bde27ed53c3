/* An answer with tools. The model is asked, what it wants called is permitted, run and handed back, and it is asked
 * again, until it answers without calls.
 *
 *   [1] system_facts {"section":"storage"} ... 0.2 s, 3.1 KiB
 *   [2] run_command {"command":"df -h"} ... the user said no
 *
 * It ends for certain: after max-steps calls or time-limit seconds (without those a person took to answer a question),
 * or when the model makes the same call again and again, no more is run, the model is told why, and is to answer with
 * what it has; if it calls once more instead, that is the end. Whatever is wrong with a call (an unknown tool,
 * arguments that are no JSON, a failure) is told to the model, which may do better. Ctrl-C ends it at any point. */
#include "flow/flow.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"

enum { MAX_REPEATS = 2, SHOWN_COLUMNS = 72, RESULT_MAX = 4 * AG_MAX_RESULT };

struct loop {
	struct ag_link *link;
	struct ag_toolbox *box;
	json_t *messages;
	const struct ag_io *io;
	struct base_buf *facts; /* or NULL */
	json_t *seen;           /* calls already made, as keys; the step as value */
	uint32_t n_steps, n_repeats;
	int64_t deadline_ms;
	bool must_answer;
};

static const char *tr(const struct loop *l, const char *en, const char *zh)
{
	return l->io->chinese ? zh : en;
}

/* ---- What the person sees ---- */

static bool is_shown(const struct loop *l)
{
	const struct ag_settings *s = l->link->settings;

	return !s->quiet && !s->print && !s->json;
}

static void show_begin(const struct loop *l, const char *name, const char *args)
{
	CLEANUP(base_buf_done)
	struct base_buf clean = BASE_BUF_INIT(1 << 20), line = BASE_BUF_INIT(4096), one = BASE_BUF_INIT(1 << 20);

	if (!is_shown(l))
		return;
	(void)base_buf_printf(&one, "%.64s %s", *name ? name : "?", args);
	for (size_t i = 0; i < one.len; i++) {
		if (one.data[i] == '\n' || one.data[i] == '\t')
			one.data[i] = ' ';
	}
	(void)ag_term_sanitize(&clean, base_buf_text(&one), one.len, false);
	(void)ag_term_clip(&line, base_buf_text(&clean), clean.len, SHOWN_COLUMNS, true);
	(void)fprintf(l->io->err, "[%u] %s ...", (unsigned)l->n_steps, base_buf_text(&line));
	(void)fflush(l->io->err);
}

static void show_end(const struct loop *l, int64_t ms, size_t bytes, int r, const struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(4096), line = BASE_BUF_INIT(4096);
	const char *words = err_text(err);

	if (!is_shown(l))
		return;
	if (r < 0) {
		(void)ag_term_sanitize(&clean, words, strcspn(words, "\n"), false);
		(void)ag_term_clip(&line, base_buf_text(&clean), clean.len, SHOWN_COLUMNS, true);
		(void)fprintf(l->io->err, " %s\n", base_buf_text(&line));
	} else {
		(void)fprintf(l->io->err, " %lld.%lld s, ", (long long)(ms / 1000), (long long)(ms % 1000 / 100));
		if (bytes < 1024)
			(void)fprintf(l->io->err, "%zu bytes\n", bytes);
		else
			(void)fprintf(l->io->err, "%zu.%zu KiB\n", bytes / 1024, bytes % 1024 * 10 / 1024);
	}
	(void)fflush(l->io->err);
}

/* ---- One call ---- */

static int add_result(struct loop *l, const json_t *call, const char *text, size_t len)
{
	json_t *message = json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", json_object_get(call, "id"),
	                            "content", json_stringn(text, len));

	return message && json_array_append_new(l->messages, message) == 0 ? 0 : -ENOMEM;
}

/* Why no tool is run any more, or NULL. */
static const char *limit_words(const struct loop *l)
{
	if (l->n_steps >= l->link->settings->max_steps)
		return "not run: the limit of calls is reached. Answer now with what you have.";
	if (base_now_ms() >= l->deadline_ms)
		return "not run: the time for tools is over. Answer now with what you have.";
	if (l->n_repeats >= MAX_REPEATS)
		return "not run: you repeat yourself. Answer now with what you have.";
	return NULL;
}

/* 0 and the arguments; the text is the model's. */
static int parse_args(const json_t *call, json_t **ret_args, struct err *err)
{
	const json_t *text = json_object_get(json_object_get(call, "function"), "arguments");
	const char *name = json_string_value(json_object_get(json_object_get(call, "function"), "name"));
	struct err words = { 0 };
	int r;

	if (!name || !*name)
		return err_set(err, -EBADMSG,
		               "the call names no tool; it is to be {\"name\": ..., \"arguments\": {...}}");
	r = base_json_parse("arguments", json_string_value(text), json_string_length(text), ret_args, &words);
	if (r < 0)
		return err_set(err, r, "not run: %s", err_text(&words));
	if (json_is_object(*ret_args))
		return 0;
	json_decref(*ret_args);
	*ret_args = NULL;
	return err_set(err, -EBADMSG, "not run: the arguments are not a JSON object");
}

/* The step in which the same call was made before, or 0; else it is noted. */
static uint32_t repeated(struct loop *l, const char *name, const json_t *args)
{
	CLEANUP(freep) char *text = json_dumps(args, JSON_COMPACT | JSON_SORT_KEYS);
	CLEANUP(base_buf_done) struct base_buf key = BASE_BUF_INIT(1 << 20);
	uint32_t step;

	if (!text || base_buf_printf(&key, "%s %s", name, text) < 0)
		return 0;
	step = (uint32_t)json_integer_value(json_object_get(l->seen, base_buf_text(&key)));
	if (step == 0)
		(void)json_object_set_new(l->seen, base_buf_text(&key), json_integer(l->n_steps));
	return step;
}

/* Permission, then the call itself. What went wrong is in err, for the model. */
static int permit_and_run(struct loop *l, const char *name, const json_t *args, const char *shown, struct base_buf *out,
                          struct err *err)
{
	int64_t begin = base_now_ms(), left;
	uint32_t before = repeated(l, name, args);
	int r;

	if (before) {
		l->n_repeats++;
		r = err_set(err, -EALREADY, "not run: the same call was made in step %u; its result is above",
		            (unsigned)before);
	} else {
		r = ag_toolbox_permit(l->box, name, args, err);
		l->deadline_ms += base_now_ms() - begin; /* a person's time does not count */
	}
	show_begin(l, name, shown);
	begin = base_now_ms();
	left = l->deadline_ms - begin;
	if (r == 0)
		r = ag_toolbox_run(l->box, name, args, left > 0 ? (uint32_t)left : 1, out, err);
	show_end(l, base_now_ms() - begin, out->len, r, err);
	return r;
}

static int make_call(struct loop *l, const json_t *call, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(RESULT_MAX);
	const json_t *function = json_object_get(call, "function");
	const char *name = json_string_value(json_object_get(function, "name"));
	const char *shown = json_string_value(json_object_get(function, "arguments"));
	const char *limit = limit_words(l);
	CLEANUP(json_decrefp) json_t *args = NULL;
	struct err words = { 0 };
	int r;

	if (limit) {
		l->must_answer = true;
		return add_result(l, call, limit, strlen(limit));
	}
	l->n_steps++;
	r = parse_args(call, &args, &words);
	if (r < 0) {
		show_begin(l, name ? name : "", shown ? shown : "");
		show_end(l, 0, 0, r, &words);
	} else {
		r = permit_and_run(l, name, args, shown, &out, &words);
	}
	if (r == -ECANCELED || ag_term_interrupt_asked())
		return err_set(err, -ECANCELED, "stopped");
	if (r < 0) {
		base_buf_reset(&out);
		(void)base_buf_printf(&out, "error: %s", err_text(&words));
	} else if (out.len == 0) {
		(void)base_buf_puts(&out, "(no output)");
	}
	if (l->facts && r == 0) {
		(void)base_buf_append(l->facts, out.data, out.len);
		(void)base_buf_putc(l->facts, '\n');
	}
	r = add_result(l, call, base_buf_text(&out), out.len);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

/* ---- The conversation ---- */

static int make_calls(struct loop *l, const struct base_buf *said, json_t *calls, struct err *err)
{
	json_t *message = json_pack("{s:s, s:o, s:O}", "role", "assistant", "content",
	                            json_stringn(base_buf_text(said), said->len), "tool_calls", calls);
	const json_t *call;
	size_t i;
	int r = message && json_array_append_new(l->messages, message) == 0 ? 0
	                                                                    : err_set(err, -ENOMEM, "out of memory");

	json_array_foreach(calls, i, call)
	{
		if (r == 0)
			r = make_call(l, call, err);
	}
	return r;
}

static size_t schema_tokens(const struct loop *l)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(8 << 20);

	return base_json_append(&text, ag_toolbox_schemas(l->box)) < 0
	               ? 0
	               : ag_guess_tokens(base_buf_text(&text), text.len);
}

/* 1: it called tools and is to be asked again; 0: said is the answer. */
static int step(struct loop *l, uint32_t max_tokens, size_t room, struct base_buf *said, struct err *err)
{
	const json_t *tools = l->box ? ag_toolbox_schemas(l->box) : NULL;
	const struct ag_turn turn = { .messages = l->messages,
		                      .tools = json_array_size(tools) ? tools : NULL,
		                      .no_calls = l->must_answer,
		                      .max_tokens = max_tokens };
	CLEANUP(json_decrefp) json_t *calls = NULL;
	int r;

	(void)ag_trim_messages(l->messages, room);
	r = ag_show_stream(l->link, &turn, l->io, said, &calls, err);
	if (r < 0 || !calls)
		return r;
	if (l->must_answer)
		return said->len ? 0
		                 : err_set(err, -ELOOP,
		                           tr(l, "the model went on calling tools and gave no answer (%u calls)",
		                              "模型一直在调用工具,没有给出回答(%u 次调用)"),
		                           (unsigned)l->n_steps);
	r = make_calls(l, said, calls, err);
	return r < 0 ? r : 1;
}

int ag_loop(struct ag_link *link, struct ag_toolbox *box, json_t *messages, uint32_t max_tokens, const struct ag_io *io,
            struct base_buf *ret_text, struct base_buf *facts, struct err *err)
{
	struct loop l = { .link = link, .box = box, .messages = messages, .io = io, .facts = facts };
	size_t room = link->context_tokens - max_tokens, schemas = box ? schema_tokens(&l) : 0;
	int r = 1;

	room = room > schemas ? room - schemas : 0;
	l.deadline_ms = base_now_ms() + (int64_t)link->settings->tool_time_s * 1000;
	l.seen = json_object();
	l.must_answer = link->settings->max_steps == 0;
	while (r > 0) {
		CLEANUP(base_buf_done) struct base_buf said = BASE_BUF_INIT(AG_MAX_ANSWER);

		if (ag_term_interrupt_asked())
			r = err_set(err, -ECANCELED, "stopped");
		else
			r = step(&l, max_tokens, room, &said, err);
		if (r <= 0)
			(void)base_buf_append(ret_text, base_buf_text(&said), said.len);
	}
	json_decref(l.seen);
	return r;
}
