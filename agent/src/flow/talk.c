/* What is put into a prompt, and what is left out when it is too much.
 *
 *   QUESTION
 *
 *   --- standard input ---
 *   ...
 *   --- end ---
 *   --- file NAME ---
 *   ...
 *   --- end ---
 *
 * Of long input its beginning and its end are kept, the end being three times as long: in logs the end is what one
 * asks about. */
#include "flow/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

enum { READ_BYTES = 16 << 10, PROMPT_BYTES = 1 << 20, BYTES_PER_TOKEN = 3, TOKENS_PER_MESSAGE = 8 };

/* A place at or after i (before: at or before) where a character starts. */
static size_t char_start(const char *text, size_t len, size_t i)
{
	while (i < len && ((unsigned char)text[i] & 0xc0) == 0x80)
		i++;
	return i;
}

/* Ceiling for what is read of endless input; a log that long is to be cut by the person. */
enum { MAX_READ = 64 << 20 };

struct window {
	struct base_buf head, tail; /* tail is a ring of its ceiling */
	size_t ring_at;
	size_t n_lost;
};

static void window_add(struct window *w, const char *p, size_t n)
{
	size_t k = w->head.max - w->head.len;

	k = k < n ? k : n;
	(void)base_buf_append(&w->head, p, k);
	for (p += k, n -= k; n; p++, n--) {
		if (w->tail.len < w->tail.max) {
			(void)base_buf_putc(&w->tail, *p);
			continue;
		}
		w->tail.data[w->ring_at] = *p;
		w->ring_at = (w->ring_at + 1) % w->tail.len;
		w->n_lost++;
	}
}

static int window_finish(struct window *w, struct base_buf *out)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(w->tail.max + 1);
	size_t head = w->head.len, from = 0;

	(void)base_buf_append(&text, base_buf_text(&w->tail) + w->ring_at, w->tail.len - w->ring_at);
	(void)base_buf_append(&text, base_buf_text(&w->tail), w->ring_at);
	if (w->n_lost == 0) {
		(void)base_buf_reserve(&w->head, 0);
		w->head.max += w->tail.max; /* in one piece, so that no character is cut at the seam */
		(void)base_buf_append(&w->head, base_buf_text(&text), text.len);
		return ag_term_sanitize(out, base_buf_text(&w->head), w->head.len, false);
	}
	while (head && ((unsigned char)w->head.data[head - 1] & 0xc0) == 0x80)
		head--;
	if (head && (unsigned char)w->head.data[head - 1] >= 0xc0)
		head--;
	from = char_start(base_buf_text(&text), text.len, 0);
	(void)ag_term_sanitize(out, base_buf_text(&w->head), head, false);
	(void)base_buf_printf(out, "\n[... %zu bytes left out ...]\n", w->n_lost);
	return ag_term_sanitize(out, base_buf_text(&text) + from, text.len - from, false);
}

int ag_read_bounded(int fd, size_t max_bytes, struct base_buf *out, struct err *err)
{
	struct window w = { .head = BASE_BUF_INIT(max_bytes / 4), .tail = BASE_BUF_INIT(max_bytes - max_bytes / 4) };
	char buf[READ_BYTES];
	size_t total = 0;
	ssize_t n;
	int r = 0;

	while (total < MAX_READ && (n = read(fd, buf, sizeof(buf))) != 0) {
		if (n < 0 && errno == EINTR && !ag_term_interrupt_asked())
			continue;
		if (n < 0) {
			r = err_set(err, -errno, "reading: %s", strerror(errno));
			break;
		}
		window_add(&w, buf, (size_t)n);
		total += (size_t)n;
	}
	if (r == 0)
		r = window_finish(&w, out);
	base_buf_done(&w.head);
	base_buf_done(&w.tail);
	return r;
}

int ag_read_bounded_file(const char *path, size_t max_bytes, struct base_buf *out, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int r;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	r = ag_read_bounded(fd, max_bytes, out, err);
	return r < 0 ? err_prefix(err, r, "%s: ", path) : r;
}

static void add_part(struct base_buf *out, const char *title, const char *text, size_t len)
{
	(void)base_buf_printf(out, "\n\n--- %s ---\n", title);
	(void)base_buf_append(out, text, len);
	(void)base_buf_puts(out, len && text[len - 1] == '\n' ? "--- end ---" : "\n--- end ---");
}

int ag_join_prompt(const char *question, const char *input, const struct opt_list *files, struct base_buf *out,
                   struct err *err)
{
	int r = base_buf_puts(out, question);

	if (input && *input)
		add_part(out, "standard input", input, strlen(input));
	for (size_t i = 0; files && i < files->n && r >= 0; i++) {
		CLEANUP(base_buf_done)
		struct base_buf text = BASE_BUF_INIT(4 * AG_MAX_FILE), title = BASE_BUF_INIT(8192);

		r = ag_read_bounded_file(files->items[i], AG_MAX_FILE, &text, err);
		if (r < 0)
			return r;
		(void)base_buf_puts(&title, "file ");
		(void)ag_term_sanitize(&title, files->items[i], strlen(files->items[i]), false);
		add_part(out, base_buf_text(&title), base_buf_text(&text), text.len);
	}
	return base_buf_error(out)
	               ? err_set(err, base_buf_error(out), "the question and what goes with it are too long")
	               : 0;
}

/* ---- Conversation ------------------------------------------------------------------------------------------- */

size_t ag_guess_tokens(const char *text, size_t len)
{
	size_t n_chars = 0, n_bytes = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= 0xe0)
			n_chars++;
		else if (c < 0x80)
			n_bytes++;
		else if (c >= 0xc0)
			n_bytes += 2;
	}
	return n_chars + (n_bytes + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN;
}

int ag_add_message(json_t *messages, const char *role, const char *text, size_t len)
{
	json_t *message = json_pack("{s:s, s:o?}", "role", role, "content", json_stringn(text, len));

	if (!message || !json_is_string(json_object_get(message, "content"))) {
		json_decref(message);
		return -EINVAL;
	}
	return json_array_append_new(messages, message) == 0 ? 0 : -ENOMEM;
}

static size_t message_tokens(const json_t *message)
{
	const json_t *content = json_object_get(message, "content");

	size_t n = TOKENS_PER_MESSAGE + ag_guess_tokens(json_string_value(content), json_string_length(content));

	for (size_t i = 0; i < json_array_size(json_object_get(message, "tool_calls")); i++) {
		const json_t *call = json_array_get(json_object_get(message, "tool_calls"), i);
		const json_t *args = json_object_get(json_object_get(call, "function"), "arguments");

		n += 2 * TOKENS_PER_MESSAGE + ag_guess_tokens(json_string_value(args), json_string_length(args));
	}
	return n;
}

static size_t all_tokens(const json_t *messages)
{
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(messages); i++)
		n += message_tokens(json_array_get(messages, i));
	return n;
}

/* Takes the middle out of a message until it is about max_tokens. */
static int cut_message(json_t *message, size_t max_tokens)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(PROMPT_BYTES * 4);
	const char *old = json_string_value(json_object_get(message, "content"));
	size_t len = json_string_length(json_object_get(message, "content")), keep = len, head, tail;

	while (keep > 64 &&
	       ag_guess_tokens(old, keep / 4) + ag_guess_tokens(old + len - (keep - keep / 4), keep - keep / 4) >
	               max_tokens)
		keep -= keep / 8;
	head = char_start(old, len, keep / 4);
	tail = char_start(old, len, len - (keep - keep / 4));
	if (tail <= head)
		return 0;
	(void)base_buf_append(&text, old, head);
	(void)base_buf_puts(&text, "\n[... left out ...]\n");
	(void)base_buf_append(&text, old + tail, len - tail);
	if (base_buf_error(&text))
		return base_buf_error(&text);
	return json_object_set_new(message, "content", json_stringn(base_buf_text(&text), text.len)) == 0 ? 0 : -ENOMEM;
}

static bool has_role(const json_t *messages, size_t i, const char *role)
{
	const char *r = json_string_value(json_object_get(json_array_get(messages, i), "role"));

	return r && strcmp(r, role) == 0;
}

/* The last question: what follows it belongs to its answer and stays. */
static size_t last_question(const json_t *messages)
{
	size_t i = json_array_size(messages);

	while (i > 0 && !has_role(messages, i - 1, "user"))
		i--;
	return i ? i - 1 : json_array_size(messages) - 1;
}

/* Cuts message i so that all of them fit, down to what min_tokens hold. */
static int cut_to_fit(json_t *messages, size_t i, size_t max_tokens, size_t min_tokens)
{
	size_t all = all_tokens(messages), own = message_tokens(json_array_get(messages, i));
	size_t others = all - own + TOKENS_PER_MESSAGE + 8;

	if (all <= max_tokens)
		return 0;
	return cut_message(json_array_get(messages, i),
	                   max_tokens > others + min_tokens ? max_tokens - others : min_tokens);
}

int ag_trim_messages(json_t *messages, size_t max_tokens)
{
	size_t first = has_role(messages, 0, "system"), question;
	int n_left_out = 0, r = 0;

	if (json_array_size(messages) <= first)
		return 0;
	while ((question = last_question(messages)) > first && all_tokens(messages) > max_tokens) {
		/* A conversation does not begin with an answer. */
		do {
			(void)json_array_remove(messages, first);
			n_left_out++;
			question--;
		} while (question > first && !has_role(messages, first, "user"));
	}
	/* Then what tools said, the oldest first, and the question itself. */
	for (size_t i = question + 1; r == 0 && i < json_array_size(messages); i++) {
		if (has_role(messages, i, "tool"))
			r = cut_to_fit(messages, i, max_tokens, 64);
	}
	if (r == 0)
		r = cut_to_fit(messages, question, max_tokens, 16);
	return r < 0 ? r : n_left_out;
}
