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

int ag_show_stream(struct ag_link *link, const json_t *messages, uint32_t max_tokens, const struct ag_io *io,
                   struct base_buf *ret_text, struct err *err)
{
	struct show s = { .out = io->out, .look = io->look, .text = ret_text };
	size_t begin = ret_text->len;
	int r = 0;

	if (io->look.is_terminal) {
		(void)is_resized(&s);
		r = ag_term_md_new(&s.look, write_out, &s, &s.md);
	}
	if (r < 0)
		return err_set(err, r, "out of memory");
	r = ag_link_stream(link, messages, max_tokens, show_text, &s, err);
	if (s.md) {
		(void)ag_term_md_finish(s.md);
		ag_term_md_free(s.md);
	} else if (ret_text->len > begin && ret_text->data[ret_text->len - 1] != '\n') {
		(void)fputc('\n', io->out);
	}
	if (fflush(io->out) != 0 && r == 0)
		s.write_errno = errno;
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

static int gather(void *arg, const char *text, size_t len)
{
	return base_buf_append(arg, text, len);
}

static int build_messages(const struct ag_settings *s, const struct ag_assistant *a, const struct ag_link *link,
                          const char *question, const char *input, json_t **ret_messages, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf prompt = BASE_BUF_INIT(PROMPT_BYTES);
	const char *system = ag_assistant_system(a, base_buf_text(&link->model), ag_is_chinese(question));
	json_t *messages = json_array();
	int r;

	if (a->output == AG_OUTPUT_CODE && s->language)
		(void)base_buf_printf(&prompt, "%s: ", s->language);
	r = ag_join_prompt(question, input, &s->files, &prompt, err);
	if (r == 0 && (ag_add_message(messages, "system", system, strlen(system)) < 0 ||
	               ag_add_message(messages, "user", base_buf_text(&prompt), prompt.len) < 0))
		r = err_set(err, -EINVAL, "the question is not valid UTF-8 text");
	if (r < 0) {
		json_decref(messages);
		return r;
	}
	*ret_messages = messages;
	return 0;
}

int ag_answer(const struct ag_settings *s, const struct ag_assistant *a, const struct ag_io *io, const char *question,
              const char *input, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(AG_MAX_ANSWER);
	struct ag_record record;
	struct ag_link link;
	json_t *messages = NULL;
	int r;

	ag_term_interrupt_begin();
	r = ag_link_open(s, a, &link, err);
	if (r < 0) {
		ag_term_interrupt_end();
		return r;
	}
	if (link.host[0] && !s->quiet)
		(void)fprintf(io->err, "remote: %s\n", link.host);
	r = build_messages(s, a, &link, question, input, &messages, err);
	if (r == 0) {
		uint32_t room = link.context_tokens / 2 < s->max_tokens ? link.context_tokens / 2 : s->max_tokens;

		(void)ag_trim_messages(messages, link.context_tokens - room);
		if (a->output == AG_OUTPUT_MARKDOWN)
			r = ag_show_stream(&link, messages, room, io, &text, err);
		else
			r = ag_link_stream(&link, messages, room, gather, &text, err);
		if (r == 0 && a->output == AG_OUTPUT_CODE)
			r = finish_code(io, &text, err);
		ag_record_open(&record, s, io->err);
		ag_record_begin(&record, a->name, base_buf_text(&link.model), question);
		ag_record_add(&record, "user", question, strlen(question));
		ag_record_add(&record, "assistant", base_buf_text(&text), text.len);
		ag_record_close(&record);
	}
	ag_term_interrupt_end();
	json_decref(messages);
	ag_link_close(&link);
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
