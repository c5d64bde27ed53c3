/* One command for one question. The catalogue is asked first: what it is certain of needs no model. Else a model that
 * was trained for commands gets the question, any other one also the nearest tasks; then the catalogue judges the
 * answer. A catalogue that cannot be opened costs its advice and nothing else. */
#include "flow/flow.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "know/know.h"

enum { MAX_COMMAND_TOKENS = 256, N_NEAREST = 5, N_HINTS = 4, MAX_COMMAND = 64 << 10 };

void ag_suggestion_init(struct ag_suggestion *g)
{
	*g = (struct ag_suggestion){ .model = BASE_BUF_INIT(4096),
		                     .command = BASE_BUF_INIT(MAX_COMMAND),
		                     .note = BASE_BUF_INIT(8192) };
}

void ag_suggestion_done(struct ag_suggestion *g)
{
	base_buf_done(&g->model);
	base_buf_done(&g->command);
	base_buf_done(&g->note);
}

static int gather(void *arg, const char *text, size_t len)
{
	return base_buf_append(arg, text, len);
}

static const struct ag_assistant *assistant_of(const struct ag_settings *s)
{
	return s->command_assistant ? s->command_assistant : ag_settings_assistant(s, "cmd");
}

static json_t *build_messages(const struct ag_settings *s, const struct ag_know *know, const char *model,
                              const char *question, const char *prompt)
{
	CLEANUP(base_buf_done) struct base_buf system = BASE_BUF_INIT(64 << 10);
	const struct ag_assistant *a = assistant_of(s);
	const char *words = ag_assistant_system(a, model, ag_is_chinese(question));
	json_t *messages = json_array();

	(void)base_buf_puts(&system, words);
	if (know && words != a->keyword) {
		(void)base_buf_puts(&system, "\n\nTasks that may fit (id | command | meaning):\n");
		(void)ag_know_prompt(know, question, N_NEAREST, &system);
	} else if (know) { /* what that model was trained with, after its keyword */
		(void)base_buf_puts(&system, "\n");
		(void)ag_know_hints(know, question, N_HINTS, &system);
	}
	if (ag_add_message(messages, "system", base_buf_text(&system), system.len) < 0 ||
	    ag_add_message(messages, "user", prompt, strlen(prompt)) < 0) {
		json_decref(messages);
		return NULL;
	}
	return messages;
}

/* The model's answer to the messages, which are built when its name is known; the command in it is appended. */
struct wanted {
	const struct ag_know *know;
	const char *question, *prompt;
	const char *command; /* that failed, or NULL */
};

static json_t *wanted_messages(const struct ag_settings *s, const struct wanted *w, const char *model)
{
	const char *first = w->command ? w->question : w->prompt;
	json_t *messages = build_messages(s, w->know, model, w->question, first);

	if (messages && w->command &&
	    (ag_add_message(messages, "assistant", w->command, strlen(w->command)) < 0 ||
	     ag_add_message(messages, "user", w->prompt, strlen(w->prompt)) < 0)) {
		json_decref(messages);
		return NULL;
	}
	return messages;
}

/* The word that the prompt asks for when there is no command. */
static bool says_none(const struct base_buf *text)
{
	const char *p = base_buf_text(text) + strspn(base_buf_text(text), " \t\r\n`\"*");

	return strncmp(p, "NONE", 4) == 0 && p[4 + strspn(p + 4, " \t\r\n`\"*.")] == '\0';
}

static int ask_wanted(const struct ag_settings *s, const struct wanted *w, struct ag_suggestion *ret,
                      struct base_buf *command, FILE *remarks, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(AG_MAX_ANSWER);
	struct ag_link link;
	json_t *messages;
	int r = ag_link_open(s, assistant_of(s), &link, err);

	if (r < 0)
		return r;
	if (link.host[0] && !s->quiet)
		(void)fprintf(remarks, "remote: %s\n", link.host);
	(void)base_buf_puts(&ret->model, base_buf_text(&link.model));
	messages = wanted_messages(s, w, base_buf_text(&link.model));
	if (messages) {
		(void)ag_trim_messages(messages, link.context_tokens > 2 * MAX_COMMAND_TOKENS
		                                         ? link.context_tokens - MAX_COMMAND_TOKENS
		                                         : link.context_tokens / 2);
		r = ag_link_stream(&link, messages,
		                   s->max_tokens < MAX_COMMAND_TOKENS ? s->max_tokens : MAX_COMMAND_TOKENS, gather,
		                   &text, err);
	} else {
		r = err_set(err, -EINVAL, "the question is not valid UTF-8 text");
	}
	json_decref(messages);
	ag_link_close(&link);
	if (r == 0 && ag_extract_command(base_buf_text(&text), text.len, command) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && command->len == 0)
		r = err_set(err, -ENODATA,
		            text.len == 0      ? "the model's answer was empty"
		            : says_none(&text) ? "the model knows no command for this"
		                               : "the model's answer holds no command");
	return r;
}

static int ask_model(const struct ag_settings *s, const struct ag_know *know, const char *question, const char *input,
                     struct ag_suggestion *ret, struct base_buf *command, FILE *remarks, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf prompt = BASE_BUF_INIT(1 << 20);
	struct wanted w = { .know = know, .question = question };
	int r = ag_join_prompt(question, input, &s->files, &prompt, err);

	w.prompt = base_buf_text(&prompt);
	return r < 0 ? r : ask_wanted(s, &w, ret, command, remarks, err);
}

int ag_suggest_fix(const struct ag_settings *s, const char *question, const char *command, int exit_code,
                   const char *errors, struct ag_suggestion *ret, FILE *remarks, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf prompt = BASE_BUF_INIT(64 << 10);
	struct wanted w = { .question = question, .command = command };
	int r;

	(void)base_buf_printf(
	        &prompt,
	        ag_is_chinese(question)
	                ? "这条命令失败了,退出码 %d。标准错误输出:\n%s\n请给出改正后的一条命令。"
	                : "The command failed with exit code %d. Its standard error:\n%s\nAnswer with one "
	                  "corrected command.",
	        exit_code, errors);
	w.prompt = base_buf_text(&prompt);
	ag_term_interrupt_begin();
	r = ask_wanted(s, &w, ret, &ret->command, remarks, err);
	ag_term_interrupt_end();
	return r;
}

/* The nearest tasks, for a person who gets no command. */
static void note_nearest(const struct ag_know *know, const char *question, struct base_buf *note)
{
	struct ag_know_match m[3];
	int n = ag_know_match(know, question, m, 3);

	for (int i = 0; i < n; i++) {
		(void)base_buf_printf(note, "    %s    # %s\n", m[i].command,
		                      ag_is_chinese(question) ? m[i].explain_zh : m[i].explain_en);
		ag_know_match_done(&m[i]);
	}
}

static int with_catalogue(const struct ag_settings *s, const struct ag_know *know, const char *question,
                          const char *input, struct ag_suggestion *ret, FILE *remarks, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf command = BASE_BUF_INIT(MAX_COMMAND);
	struct ag_know_answer answer;
	int r, d;

	if (!input && s->files.n == 0 && ag_know_decide(know, question, NULL, &answer) == 0 &&
	    answer.certainty == AG_KNOW_CERTAIN && answer.command[0]) {
		(void)base_buf_puts(&ret->model, "catalogue");
		return base_buf_puts(&ret->command, answer.command);
	}
	r = ask_model(s, know, question, input, ret, &command, remarks, err);
	if (r < 0 && r != -ENODATA)
		return r;
	d = ag_know_decide(know, question, base_buf_text(&command), &answer);
	if (d == 0 && answer.command[0]) {
		if (answer.reason[0])
			(void)base_buf_puts(&ret->note, answer.reason);
		return base_buf_puts(&ret->command, answer.command);
	}
	if (d < 0 && r == 0)
		return base_buf_puts(&ret->command, base_buf_text(&command));
	/* Nothing that can be offered: say why, and show what is nearest. */
	if (r == 0)
		r = err_set(err, -ENODATA, "not sure about this question%s%s", answer.reason[0] ? ": " : "",
		            answer.reason);
	note_nearest(know, question, &ret->note);
	return r;
}

int ag_suggest(const struct ag_settings *s, const char *question, const char *input, struct ag_suggestion *ret,
               FILE *remarks, struct err *err)
{
	struct ag_know *know = NULL;
	struct timespec begin, end;
	int r;

	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	/* The catalogue is of this system's tasks; an assistant of the configuration may be for others. */
	if (strcmp(assistant_of(s)->name, "cmd") != 0 || ag_know_open(NULL, &know, NULL) < 0)
		know = NULL;
	ag_term_interrupt_begin();
	if (know)
		r = with_catalogue(s, know, question, input, ret, remarks, err);
	else
		r = ask_model(s, NULL, question, input, ret, &ret->command, remarks, err);
	ag_term_interrupt_end();
	ag_know_close(know);
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	ret->seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
	return r;
}
