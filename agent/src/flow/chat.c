/* The conversation: a line that begins with a slash is for the program, anything else for the model. Ctrl-C stops an
 * answer, never the program; what had come of it stays in the conversation. A question whose answer failed is not lost:
 * it can be called back with the arrow key, and it is in the history. */
#include "flow/flow.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

enum { PROMPT_BYTES = 1 << 20, LINE_BYTES = 64 << 10, SAVE_BYTES = 64 << 20 };

struct chat {
	struct ag_settings s; /* a copy: /model changes it */
	const struct ag_io *io;
	const struct ag_assistant *assistant;
	struct ag_link link;
	struct ag_toolbox *box; /* while linked */
	bool is_linked;
	json_t *messages; /* without the system prompt, which depends on the model */
	struct ag_record record;
	struct base_buf attached; /* goes with the next question */
	struct base_buf named;    /* what was attached, by name: tools may read it */
	struct base_buf model;    /* chosen by /model */
	char **lines;             /* questions, for the arrow keys */
	size_t n_lines;
	bool is_over;
};

static const char *tr(const struct chat *c, const char *en, const char *zh)
{
	return c->io->chinese ? zh : en;
}

static void say_error(const struct chat *c, const struct err *err)
{
	(void)fprintf(c->io->err, "ocai: %s\n", err_text(err));
}

static void say_failure(const struct chat *c, int r, const struct err *err)
{
	if (r == -ECANCELED)
		(void)fprintf(c->io->err, "%s\n", tr(c, "(stopped)", "(已停止)"));
	else
		say_error(c, err);
}

/* ---- Model ------------------------------------------------------------------------------------------------------- */

static void link_down(struct chat *c)
{
	ag_toolbox_free(c->box);
	c->box = NULL;
	if (c->is_linked)
		ag_link_close(&c->link);
	c->is_linked = false;
}

static int link_up(struct chat *c, struct err *err)
{
	int r;

	if (c->is_linked)
		return 0;
	r = ag_link_open(&c->s, c->assistant, &c->link, err);
	if (r < 0)
		return r;
	c->is_linked = true;
	r = ag_toolbox_new(&c->link, c->io, c->link.context_tokens / 8, &c->box, err);
	if (r < 0) {
		link_down(c);
		return r;
	}
	if (c->link.host[0] && !c->s.quiet)
		(void)fprintf(c->io->err, "remote: %s\n", c->link.host);
	return 0;
}

/* System prompt and conversation, cut to what the model can hold. */
static json_t *outgoing(struct chat *c, const char *question, uint32_t room)
{
	CLEANUP(base_buf_done) struct base_buf system = BASE_BUF_INIT(PROMPT_BYTES);
	json_t *all = json_array(), *message;
	size_t i;
	int n;

	ag_system_words(c->assistant, base_buf_text(&c->link.model), ag_is_chinese(question) || c->io->chinese, c->box,
	                &system);
	(void)ag_add_message(all, "system", base_buf_text(&system), system.len);
	json_array_foreach(c->messages, i, message)(void)
	        json_array_append_new(all, json_deep_copy(message)); /* trimming may cut the last one */
	n = ag_trim_messages(all, c->link.context_tokens - room);
	if (n > 0 && !c->s.quiet)
		(void)fprintf(c->io->err,
		              tr(c, "(%d earlier messages no longer fit the model's context)\n",
		                 "(较早的 %d 条消息已超出模型上下文)\n"),
		              n);
	return all;
}

static void remember_line(struct chat *c, const char *line)
{
	char **lines = reallocarray(c->lines, c->n_lines + 1, sizeof(*lines));

	if (!lines)
		return;
	c->lines = lines;
	lines[c->n_lines] = strdup(line);
	c->n_lines += lines[c->n_lines] != NULL;
}

/* Before it is asked: whatever happens then, the question is in the history. */
static void record_question(struct chat *c, const char *question, const struct base_buf *prompt)
{
	if (c->record.session == 0)
		ag_record_begin(&c->record, "chat", c->is_linked ? base_buf_text(&c->link.model) : "", question);
	ag_record_add(&c->record, "user", base_buf_text(prompt), prompt->len);
}

static int answer(struct chat *c, const char *question, const struct base_buf *prompt, struct base_buf *text,
                  struct err *err)
{
	uint32_t room;
	json_t *messages;
	int r = link_up(c, err);

	if (r == 0)
		r = ag_assistant_check(c->assistant, base_buf_text(&c->link.model),
		                       c->io->chinese || ag_is_chinese(question), err);
	record_question(c, question, prompt);
	if (r < 0)
		return r;
	room = c->link.context_tokens / 2 < c->s.max_tokens ? c->link.context_tokens / 2 : c->s.max_tokens;
	messages = outgoing(c, question, room);
	ag_toolbox_allow_paths(c->box, question);
	ag_toolbox_allow_paths(c->box, base_buf_text(&c->named));
	r = ag_loop(&c->link, c->box, messages, room, c->io, text, NULL, err);
	json_decref(messages);
	return r;
}

/* One turn. Errors are said here; the conversation goes on. */
static void turn(struct chat *c, const char *question)
{
	CLEANUP(base_buf_done)
	struct base_buf prompt = BASE_BUF_INIT(PROMPT_BYTES), text = BASE_BUF_INIT(AG_MAX_ANSWER);
	struct err err = { 0 };
	int r;

	(void)base_buf_puts(&prompt, question);
	(void)base_buf_append(&prompt, base_buf_text(&c->attached), c->attached.len);
	r = base_buf_error(&prompt) ? err_set(&err, -EFBIG, "the question and what goes with it are too long")
	                            : ag_add_message(c->messages, "user", base_buf_text(&prompt), prompt.len);
	if (r < 0) {
		say_error(c, &err);
		return;
	}
	ag_term_interrupt_begin();
	r = answer(c, question, &prompt, &text, &err);
	ag_term_interrupt_end();
	if (text.len) {
		(void)ag_add_message(c->messages, "assistant", text.data, text.len);
		ag_record_add(&c->record, "assistant", text.data, text.len);
	} else {
		(void)json_array_remove(c->messages, json_array_size(c->messages) - 1);
	}
	if (text.len || r == 0)
		base_buf_reset(&c->attached);
	if (r < 0)
		say_failure(c, r, &err);
	else if (text.len == 0)
		(void)fprintf(c->io->err, "%s\n", tr(c, "(the model's answer was empty)", "(模型没有回答)"));
	if (r < 0 && r != -ECANCELED && r != -ENOTSUP)
		link_down(c); /* the next question connects anew */
}

/* ---- Slash commands ---- */

static void do_help(struct chat *c, const char *arg)
{
	(void)fputs(tr(c,
	               "/help          this list\n"
	               "/model [NAME]  show or change the model\n"
	               "/attach FILE   put a file into the next question\n"
	               "/save FILE     write the conversation to a file\n"
	               "/clear         begin a new conversation\n"
	               "/exit          leave (also Ctrl-D); Ctrl-C stops an answer\n",
	               "/help          显示本列表\n"
	               "/model [名称]  查看或更换模型\n"
	               "/attach 文件   把文件放进下一个问题\n"
	               "/save 文件     把对话保存到文件\n"
	               "/clear         开始新的对话\n"
	               "/exit          退出(或 Ctrl-D);Ctrl-C 停止回答\n"),
	            c->io->out);
}

static void do_model(struct chat *c, const char *arg)
{
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(LINE_BYTES);
	struct err err = { 0 };
	int r;

	if (*arg) {
		link_down(c);
		base_buf_reset(&c->model);
		(void)base_buf_puts(&c->model, arg);
		c->s.opt_model = base_buf_text(&c->model);
	}
	ag_term_interrupt_begin();
	r = link_up(c, &err);
	ag_term_interrupt_end();
	if (r < 0) {
		say_failure(c, r, &err);
		return;
	}
	/* The name is the server's. */
	(void)ag_term_sanitize(&clean, base_buf_text(&c->link.model), c->link.model.len, c->io->look.ascii_only);
	(void)fprintf(c->io->out, "%s\n", base_buf_text(&clean));
}

static void do_attach(struct chat *c, const char *arg)
{
	const char *const names[] = { arg };
	const struct opt_list one = { .items = (const char **)names, .n = 1 };
	struct err err = { 0 };

	if (!*arg)
		(void)fprintf(c->io->err, "ocai: %s\n", tr(c, "/attach needs a file", "/attach 后面要有文件名"));
	else if (ag_join_prompt("", NULL, &one, &c->attached, &err) < 0)
		say_error(c, &err);
	else {
		(void)base_buf_printf(&c->named, "%s\n", arg);
		(void)fprintf(c->io->out, tr(c, "%s goes with the next question\n", "%s 会随下一个问题一起发送\n"),
		              arg);
	}
}

static void do_save(struct chat *c, const char *arg)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(SAVE_BYTES);
	const json_t *message;
	struct err err = { 0 };
	size_t i;

	if (!*arg) {
		(void)fprintf(c->io->err, "ocai: %s\n", tr(c, "/save needs a file", "/save 后面要有文件名"));
		return;
	}
	json_array_foreach(c->messages, i, message)(void) base_buf_printf(
	        &text, "%s## %s\n\n%s\n", i ? "\n" : "", json_string_value(json_object_get(message, "role")),
	        json_string_value(json_object_get(message, "content")));
	if (base_write_file_atomic(arg, base_buf_text(&text), text.len, 0600, &err) < 0)
		say_error(c, &err);
	else
		(void)fprintf(c->io->out, tr(c, "saved to %s\n", "已保存到 %s\n"), arg);
}

static void do_clear(struct chat *c, const char *arg)
{
	(void)json_array_clear(c->messages);
	base_buf_reset(&c->attached);
	c->record.session = 0;
	(void)fprintf(c->io->out, "%s\n", tr(c, "a new conversation", "新的对话"));
}

static void do_exit(struct chat *c, const char *arg)
{
	c->is_over = true;
}

static const struct {
	const char *name;
	void (*run)(struct chat *c, const char *arg);
} slash_commands[] = {
	{ "/help", do_help },   { "/model", do_model }, { "/attach", do_attach }, { "/save", do_save },
	{ "/clear", do_clear }, { "/exit", do_exit },   { "/quit", do_exit },     { NULL, NULL },
};

static void slash(struct chat *c, const char *line)
{
	size_t n = strcspn(line, " \t"), i;
	const char *arg = line + n + strspn(line + n, " \t");

	for (i = 0; slash_commands[i].name; i++) {
		if (strlen(slash_commands[i].name) == n && strncmp(slash_commands[i].name, line, n) == 0)
			break;
	}
	if (slash_commands[i].name)
		slash_commands[i].run(c, arg);
	else
		(void)fprintf(c->io->err,
		              tr(c, "ocai: %.*s: no such command; /help lists them\n",
		                 "ocai: 没有 %.*s 命令;/help 列出全部\n"),
		              (int)n, line);
	(void)fflush(c->io->out);
}

/* ---- The loop ---- */

/* A question that found no answer is no part of the conversation: the next one takes its place. */
static void drop_unanswered(json_t *messages)
{
	size_t n = json_array_size(messages);
	const char *role = n ? json_string_value(json_object_get(json_array_get(messages, n - 1), "role")) : NULL;

	if (role && strcmp(role, "user") == 0)
		(void)json_array_remove(messages, n - 1);
}

static int resume_message(void *arg, const struct ag_history_message *m)
{
	if (strcmp(m->role, "user") == 0)
		drop_unanswered(arg);
	else if (strcmp(m->role, "assistant") != 0)
		return 0;
	return ag_add_message(arg, m->role, m->text, strlen(m->text));
}

static int resume(struct chat *c, struct err *err)
{
	int64_t id = 0;
	char *end;
	int r;

	if (!c->record.history)
		return err_set(err, -ENOENT, "there is no history to resume from");
	if (c->s.resume && *c->s.resume && strcmp(c->s.resume, "last") != 0) {
		id = strtoll(c->s.resume, &end, 10);
		if (*end || id <= 0)
			return err_set(err, -EINVAL, "--resume: '%s' is not the number of a session", c->s.resume);
	} else {
		r = ag_history_last(c->record.history, "chat", &id, err);
		if (r < 0)
			return r;
	}
	r = ag_history_show(c->record.history, id, resume_message, c->messages, err);
	if (r < 0)
		return r;
	drop_unanswered(c->messages);
	c->record.session = id;
	if (!c->s.quiet)
		(void)fprintf(c->io->err, tr(c, "(session %lld: %zu messages)\n", "(会话 %lld:%zu 条消息)\n"),
		              (long long)id, json_array_size(c->messages));
	return 0;
}

static int earlier_line(void *ctx, size_t back, struct base_buf *ret_entry)
{
	const struct chat *c = ctx;

	return back >= c->n_lines ? 0 : base_buf_puts(ret_entry, c->lines[c->n_lines - 1 - back]) < 0 ? 0 : 1;
}

static int read_turn(struct chat *c, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf line = BASE_BUF_INIT(LINE_BYTES);
	const struct ag_term_edit e = {
		.prompt = "> ", .multi_line = true, .max_bytes = AG_MAX_QUESTION, .history = earlier_line, .ctx = c
	};
	const char *text;
	int r = c->io->ui->edit(c->io->ui->arg, &e, &line, err);

	if (r == -ECANCELED)
		return 0;
	if (r <= 0) {
		c->is_over = true;
		return r;
	}
	text = base_buf_text(&line);
	if (strspn(text, " \t\r\n") == line.len)
		return 0;
	remember_line(c, text);
	if (text[0] == '/' && !strchr(text, '\n') && !memchr(text + 1, '/', strcspn(text, " \t") - 1))
		slash(c, text);
	else
		turn(c, text);
	return 0;
}

static void chat_done(struct chat *c)
{
	link_down(c);
	ag_record_close(&c->record);
	json_decref(c->messages);
	base_buf_done(&c->attached);
	base_buf_done(&c->named);
	base_buf_done(&c->model);
	for (size_t i = 0; i < c->n_lines; i++)
		free(c->lines[i]);
	free(c->lines);
}

int ag_chat(const struct ag_settings *s, const struct ag_io *io, const char *first, struct err *err)
{
	struct chat c = { .s = *s,
		          .io = io,
		          .assistant = ag_settings_assistant(s, "chat"),
		          .messages = json_array(),
		          .attached = BASE_BUF_INIT(PROMPT_BYTES),
		          .named = BASE_BUF_INIT(PROMPT_BYTES),
		          .model = BASE_BUF_INIT(4096) };
	int r = 0;

	ag_record_open(&c.record, s, io->err);
	if (s->is_resumed)
		r = resume(&c, err);
	if (r == 0 && (first || s->files.n))
		r = ag_join_prompt("", first, &s->files, &c.attached, err);
	if (r == 0 && !s->quiet && io->ui != NULL && io->look.is_terminal)
		(void)fprintf(io->err, "%s\n",
		              tr(&c, "ocai chat: /help lists commands, Ctrl-D leaves",
		                 "ocai chat:/help 查看命令,Ctrl-D 退出"));
	while (r >= 0 && !c.is_over)
		r = read_turn(&c, err);
	chat_done(&c);
	return r < 0 ? r : 0;
}
