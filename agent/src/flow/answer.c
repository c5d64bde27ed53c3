/* One question, one answer: streamed to the terminal as rendered Markdown, to a pipe as it is. */
#include "flow/flow.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

enum { PROMPT_BYTES = 1 << 20 };

struct show {
	struct ag_term_md *md; /* NULL: plain */
	struct ag_term_look look;
	FILE *out;
	struct base_buf *text;
	int write_errno; /* why the place for the answer takes no more, or 0 */
};

static int write_out(void *ctx, const char *bytes, size_t len)
{
	struct show *s = ctx;

	/* A reader that went away, or a full disk: no use to go on. */
	if (fwrite(bytes, 1, len, s->out) == len && fflush(s->out) == 0)
		return 0;
	s->write_errno = errno;
	return -EIO;
}

/* The window may have changed its size since the program began, or since the last word. */
static bool is_resized(struct show *s)
{
	struct ag_term_look now;

	ag_term_look_at(fileno(s->out), NULL, &now);
	if (!now.is_terminal || (now.columns == s->look.columns && now.rows == s->look.rows))
		return false;
	s->look.columns = now.columns;
	s->look.rows = now.rows;
	return true;
}

static int show_text(void *arg, const char *text, size_t len)
{
	struct show *s = arg;
	int r = base_buf_append(s->text, text, len);

	if (s->md && is_resized(s))
		ag_term_md_resize(s->md, s->look.columns, s->look.rows);
	if (r == 0)
		r = s->md ? ag_term_md_feed(s->md, text, len) : write_out(s, text, len);
	return r;
}

static int gather(void *arg, const char *text, size_t len)
{
	return base_buf_append(arg, text, len);
}

static void end_line(const struct ag_io *io, const struct base_buf *text, size_t begin)
{
	if (text->len > begin && text->data[text->len - 1] != '\n')
		(void)fputc('\n', io->out);
}

/* Not shown until it is known to be the answer. */
static int show_when_final(struct ag_link *link, const struct ag_turn *turn, const struct ag_io *io,
                           struct base_buf *ret_text, json_t **ret_calls, struct err *err)
{
	size_t begin = ret_text->len;
	int r = ag_link_converse(link, turn, gather, ret_text, ret_calls, err);

	if (*ret_calls)
		return r;
	(void)fwrite(base_buf_text(ret_text) + begin, 1, ret_text->len - begin, io->out);
	end_line(io, ret_text, begin);
	return fflush(io->out) == 0 || r < 0 ? r : err_set(err, -EIO, "cannot write the answer: %s", strerror(errno));
}

int ag_show_stream(struct ag_link *link, const struct ag_turn *turn, const struct ag_io *io, struct base_buf *ret_text,
                   json_t **ret_calls, struct err *err)
{
	struct show s = { .out = io->out, .look = io->look, .text = ret_text };
	size_t begin = ret_text->len;
	bool quiet = io->look.is_terminal && io->ui && io->ui->quiet;
	int r = 0;

	if (!io->look.is_terminal && turn->tools && !turn->no_calls && !link->no_tools)
		return show_when_final(link, turn, io, ret_text, ret_calls, err);
	if (io->look.is_terminal) {
		(void)is_resized(&s);
		r = ag_term_md_new(&s.look, write_out, &s, &s.md);
	}
	if (r < 0)
		return err_set(err, r, "out of memory");
	if (quiet)
		io->ui->quiet(io->ui->arg, true);
	r = ag_link_converse(link, turn, show_text, &s, ret_calls, err);
	if (s.md) {
		(void)ag_term_md_finish(s.md);
		ag_term_md_free(s.md);
	} else {
		end_line(io, ret_text, begin);
	}
	if (fflush(io->out) != 0 && r == 0)
		s.write_errno = errno;
	if (quiet)
		io->ui->quiet(io->ui->arg, false);
	return s.write_errno ? err_set(err, -EIO, "cannot write the answer: %s", strerror(s.write_errno)) : r;
}

/* The answer of a code assistant, whole, then the code alone. */
static int finish_code(const struct ag_io *io, const struct base_buf *text, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf code = BASE_BUF_INIT(AG_MAX_ANSWER);
	int r = ag_extract_code(base_buf_text(text), text->len, &code);

	if (r < 0)
		return err_set(err, r, "out of memory");
	if (code.len == 0)
		return err_set(err, -ENODATA, "the model's answer was empty");
	(void)fwrite(code.data, 1, code.len, io->out);
	return fflush(io->out) == 0 ? 0 : err_set(err, -EIO, "cannot write the code: %s", strerror(errno));
}

/* ---- What goes to the model ------------------------------------------------------------------------------------ */

/* All that belongs to one answer. */
struct answer {
	const struct ag_settings *s;
	const struct ag_assistant *a;
	const struct ag_io *io;
	const char *question, *input;
	struct ag_link link;
	struct ag_passages passages;
	struct ag_toolbox *box;
	json_t *messages;
	struct base_buf text, facts;
	uint32_t room; /* tokens for the answer */
	bool chinese;  /* the question is */
};

static int build_messages(struct answer *q, struct err *err)
{
	CLEANUP(base_buf_done)
	struct base_buf prompt = BASE_BUF_INIT(PROMPT_BYTES), system = BASE_BUF_INIT(PROMPT_BYTES);
	int r;

	ag_system_words(q->a, base_buf_text(&q->link.model), q->chinese, q->box, &system);
	if (q->a->output == AG_OUTPUT_CODE && q->s->language)
		(void)base_buf_printf(&prompt, "%s: ", q->s->language);
	r = ag_join_prompt(q->question, q->input, &q->s->files, &prompt, err);
	if (r == 0 && q->passages.n)
		r = base_buf_printf(&prompt, "\n\n--- passages ---\n%s--- end ---", base_buf_text(&q->passages.text));
	if (r >= 0 && (ag_add_message(q->messages, "system", base_buf_text(&system), system.len) < 0 ||
	               ag_add_message(q->messages, "user", base_buf_text(&prompt), prompt.len) < 0))
		r = err_set(err, -EINVAL, "the question is not valid UTF-8 text");
	/* All of it are facts: a number that the person wrote may be said again. */
	(void)base_buf_append(&q->facts, base_buf_text(&prompt), prompt.len);
	(void)base_buf_putc(&q->facts, '\n');
	return r < 0 ? r : 0;
}

/* ---- What stands behind the answer ---- */

/* Without tools or facts there was nothing to take numbers from, and nothing to compare with. */
static void check_numbers(const struct answer *q)
{
	CLEANUP(base_buf_done) struct base_buf unknown = BASE_BUF_INIT(4096);

	if (!q->a->checks_numbers || ag_numbers_unknown(base_buf_text(&q->text), q->text.len, base_buf_text(&q->facts),
	                                                q->facts.len, &unknown) <= 0)
		return;
	(void)fprintf(q->io->err,
	              q->io->chinese ? "注意:回答中的这些数字不在测得的事实里: %s\n"
	                             : "note: these numbers of the answer are in none of the measured facts: %s\n",
	              base_buf_text(&unknown));
}

static void list_sources(const struct answer *q)
{
	CLEANUP(base_buf_done) struct base_buf list = BASE_BUF_INIT(1 << 20);
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(4 << 20);

	if (q->passages.n == 0 || ag_passages_sources(&q->passages, base_buf_text(&q->text), &list) < 0 ||
	    ag_term_sanitize(&clean, base_buf_text(&list), list.len,
	                     q->io->look.is_terminal && q->io->look.ascii_only) < 0)
		return;
	(void)fprintf(q->io->out, "\n%s\n%s", q->io->chinese ? "来源:" : "Sources:", base_buf_text(&clean));
	(void)fflush(q->io->out);
}

static void record(const struct answer *q)
{
	struct ag_record record;

	ag_record_open(&record, q->s, q->io->err);
	ag_record_begin(&record, q->a->name, base_buf_text(&q->link.model), q->question);
	ag_record_add(&record, "user", q->question, strlen(q->question));
	ag_record_add(&record, "assistant", base_buf_text(&q->text), q->text.len);
	ag_record_close(&record);
}

/* ---- One answer ---- */

static int find_passages(struct answer *q, struct err *err)
{
	int r = q->a->cites_passages ? ag_passages_find(q->question, &q->passages, q->io->err, err) : 0;

	if (r == 0 && q->a->cites_passages && q->passages.n == 0)
		r = err_set(err, -ENODATA,
		            q->io->chinese ? "知识库里没有与此有关的内容(`ocai kb list` 列出来源,`ocai kb add` 添加)"
		                           : "your documents hold nothing about this (`ocai kb list` shows them, "
		                             "`ocai kb add` adds some)");
	return r;
}

static int run(struct answer *q, struct err *err)
{
	int r;

	q->room = q->link.context_tokens / 2 < q->s->max_tokens ? q->link.context_tokens / 2 : q->s->max_tokens;
	if (q->a->output == AG_OUTPUT_MARKDOWN) {
		r = ag_toolbox_new(&q->link, q->io, q->link.context_tokens / 8, &q->box, err);
		if (r < 0)
			return r;
		ag_toolbox_allow_paths(q->box, q->question);
	}
	r = build_messages(q, err);
	if (r < 0)
		return r;
	if (q->a->output == AG_OUTPUT_MARKDOWN)
		return ag_loop(&q->link, q->box, q->messages, q->room, q->io, &q->text, &q->facts, err);
	(void)ag_trim_messages(q->messages, q->link.context_tokens - q->room);
	r = ag_link_stream(&q->link, q->messages, q->room, gather, &q->text, err);
	return r == 0 && q->a->output == AG_OUTPUT_CODE ? finish_code(q->io, &q->text, err) : r;
}

static int open_and_run(struct answer *q, struct err *err)
{
	int r = ag_link_open(q->s, q->a, &q->link, err);

	if (r < 0)
		return r;
	r = ag_assistant_check(q->a, base_buf_text(&q->link.model), q->io->chinese || q->chinese, err);
	if (r == 0)
		r = find_passages(q, err);
	if (r == 0) {
		if (q->link.host[0] && !q->s->quiet)
			(void)fprintf(q->io->err, "remote: %s\n", q->link.host);
		r = run(q, err);
		record(q);
	}
	if (r == 0) {
		list_sources(q);
		check_numbers(q);
	}
	ag_toolbox_free(q->box);
	ag_link_close(&q->link);
	return r;
}

int ag_answer(const struct ag_settings *s, const struct ag_assistant *a, const struct ag_io *io, const char *question,
              const char *input, struct err *err)
{
	struct answer q = { .s = s,
		            .a = a,
		            .io = io,
		            .question = question,
		            .input = input,
		            .messages = json_array(),
		            .text = BASE_BUF_INIT(AG_MAX_ANSWER),
		            .facts = BASE_BUF_INIT(8 << 20),
		            .chinese = ag_is_chinese(question) };
	int r;

	ag_term_interrupt_begin();
	r = open_and_run(&q, err);
	ag_term_interrupt_end();
	ag_passages_done(&q.passages);
	json_decref(q.messages);
	base_buf_done(&q.text);
	base_buf_done(&q.facts);
	return r;
}

/* ---- Code out of an answer ---------------------------------------------------------------------------------- */

/* Bytes of the fence (``` or ~~~, up to three blanks before it) a line begins with, or 0; its character. */
static size_t fence_at(const char *line, size_t len, char *ret_char)
{
	size_t i = 0, n = 0;

	while (i < len && i < 3 && line[i] == ' ')
		i++;
	if (i == len || (line[i] != '`' && line[i] != '~'))
		return 0;
	*ret_char = line[i];
	while (i + n < len && line[i + n] == *ret_char)
		n++;
	return n >= 3 ? n : 0;
}

int ag_extract_code(const char *text, size_t len, struct base_buf *out)
{
	size_t open = 0, n_blocks = 0;
	char open_char = 0, c = 0;

	for (size_t i = 0; i < len;) {
		const char *line = text + i, *newline = memchr(line, '\n', len - i);
		size_t n = newline ? (size_t)(newline - line) : len - i, fence = fence_at(line, n, &c);

		i += n + (newline != NULL);
		if (open && fence >= open && c == open_char) {
			open = 0;
			continue;
		}
		if (!open && fence) {
			if (n_blocks++)
				(void)base_buf_putc(out, '\n');
			open = fence;
			open_char = c;
			continue;
		}
		if (open) {
			(void)base_buf_append(out, line, n);
			(void)base_buf_putc(out, '\n');
		}
	}
	if (n_blocks == 0 && len) {
		(void)base_buf_append(out, text, len);
		if (text[len - 1] != '\n')
			(void)base_buf_putc(out, '\n');
	}
	return base_buf_error(out);
}
