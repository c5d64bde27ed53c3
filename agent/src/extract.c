/* The command in a model's answer. Small models obey "command only" most of the time; the rest is reasoning
 * in <think> tags, Markdown fences, inline code, a shell prompt in front, or a sentence around it.
 *
 * In order: what follows the reasoning; the first fence in a shell's language; the first inline code that
 * could be a command; what follows a colon; a line that could be one. "Could be" is a judgement of form,
 * made so that prose is refused rather than offered to run. Text with control characters is refused: it
 * could say one thing on the terminal and do another. */
#include "agent.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

enum { MAX_COMMAND = 4096 };

struct span {
	const char *s;
	size_t len;
};

static struct span trim(struct span t)
{
	while (t.len && isspace((unsigned char)t.s[0]))
		t.s++, t.len--;
	while (t.len && isspace((unsigned char)t.s[t.len - 1]))
		t.len--;
	return t;
}

static bool begins(struct span t, const char *with)
{
	size_t n = strlen(with);

	return t.len >= n && strncasecmp(t.s, with, n) == 0;
}

static struct span skip(struct span t, size_t n)
{
	return (struct span){ t.s + n, t.len - n };
}

static const char *find(struct span t, const char *what)
{
	return t.len ? memmem(t.s, t.len, what, strlen(what)) : NULL;
}

/* The next line, without its end; false at the end. */
static bool next_line(struct span *rest, struct span *ret_line)
{
	const char *nl;

	if (!rest->len)
		return false;
	nl = memchr(rest->s, '\n', rest->len);
	*ret_line = (struct span){ rest->s, nl ? (size_t)(nl - rest->s) : rest->len };
	*rest = skip(*rest, nl ? ret_line->len + 1 : rest->len);
	return true;
}

/* ---- Does it look like a command? --------------------------------------------------------------------- */

static bool word_in(struct span word, const char *const *list)
{
	for (; *list; list++) {
		if (strlen(*list) == word.len && strncasecmp(*list, word.s, word.len) == 0)
			return true;
	}
	return false;
}

static struct span first_word(struct span t)
{
	size_t n = 0;

	while (n < t.len && !isspace((unsigned char)t.s[n]))
		n++;
	return (struct span){ t.s, n };
}

/* NAME=value in front of a command. */
static bool is_assignment(struct span word)
{
	const char *eq = memchr(word.s, '=', word.len);

	if (!eq || eq == word.s || isdigit((unsigned char)word.s[0]))
		return false;
	for (const char *p = word.s; p < eq; p++) {
		if (!isalnum((unsigned char)*p) && *p != '_')
			return false;
	}
	return true;
}

static bool has_shell_syntax(struct span t)
{
	for (size_t i = 0; i < t.len; i++) {
		if (strchr("|<>$;&*=/~", t.s[i]) && t.s[i])
			return true;
		if (t.s[i] == '-' && i && t.s[i - 1] == ' ' && i + 1 < t.len && !isspace((unsigned char)t.s[i + 1]))
			return true;
	}
	return false;
}

static bool could_be_program(struct span word)
{
	if (!word.len || word.len > 128 || !(isalnum((unsigned char)word.s[0]) || strchr("./~_$\"'", word.s[0])))
		return false;
	for (size_t i = 0; i < word.len; i++) {
		if (!isalnum((unsigned char)word.s[i]) && !strchr("._+-/~$\"'{}@:;&|()\\*?", word.s[i]))
			return false;
	}
	return word.s[word.len - 1] != ':' && (word.s[word.len - 1] != '.' || word.len == 1);
}

/* A sentence: what English begins with, or a full stop after several words. */
static bool is_prose(struct span t)
{
	static const char *const openers[] = {
		"the",  "you",           "to",    "use",    "run",   "this", "here", "here's",  "sure",
		"i",    "i'm",           "it",    "please", "a",     "an",   "in",   "on",      "sorry",
		"none", "unfortunately", "there", "we",     "yes",   "no",   "as",   "execute", "command",
		"note", "simply",        "just",  "try",    "first", "that", "my",   "however", NULL
	};
	struct span word = first_word(t);
	size_t n_words = 0;

	for (size_t i = 0; i < t.len; i++)
		n_words += !isspace((unsigned char)t.s[i]) && (i == 0 || isspace((unsigned char)t.s[i - 1]));
	while (word.len && strchr(",.!;", word.s[word.len - 1]))
		word.len--;
	if (word_in(word, openers))
		return true;
	if (n_words >= 4 && strchr(".!?", t.s[t.len - 1]) && t.len > 1 && isalpha((unsigned char)t.s[t.len - 2]) &&
	    !has_shell_syntax(t))
		return true;
	/* Program names are lower case, with few exceptions that come with options. */
	return isupper((unsigned char)t.s[0]) && !has_shell_syntax(t);
}

static bool is_compound(struct span t)
{
	static const char *const words[] = { "for", "while", "until", "if", "case", "{", "[", "[[", "!", "((", NULL };

	return word_in(first_word(t), words) && has_shell_syntax(t);
}

static bool could_be_command(struct span line)
{
	struct span t = trim(line), word;

	if (!t.len || t.len > MAX_COMMAND)
		return false;
	for (size_t i = 0; i < t.len; i++) {
		if (iscntrl((unsigned char)t.s[i]) && t.s[i] != '\t' && t.s[i] != '\n')
			return false;
	}
	if (t.s[0] == '(' && t.s[t.len - 1] == ')')
		t = trim((struct span){ t.s + 1, t.len - 2 });
	if (is_compound(t))
		return true;
	if (!t.len || is_prose(t))
		return false;
	for (word = first_word(t); is_assignment(word); word = first_word(t)) {
		t = trim(skip(t, word.len));
		if (!t.len)
			return true; /* an assignment alone */
	}
	/* Chinese text: as an argument it is fine, as the end of a sentence it is one. */
	if (t.len >= 3 && memcmp(t.s + t.len - 3, "。", 3) == 0)
		return false;
	return could_be_program(word);
}

/* ---- Cleaning ------------------------------------------------------------------------------------------ */

/* "$ ls", "# ls" and "[root@host ~]# ls" are a prompt and a command. */
static struct span drop_prompt(struct span line)
{
	struct span t = trim(line);
	const char *end;

	if (begins(t, "$ ") || begins(t, "> "))
		return trim(skip(t, 2));
	if (t.len && t.s[0] == '[') {
		end = find(t, "]$ ");
		end = end ? end : find(t, "]# ");
		if (end && memchr(t.s, '@', (size_t)(end - t.s)))
			return trim(skip(t, (size_t)(end - t.s) + 3));
	}
	return t;
}

/* The word that ends the here-document begun in this line: empty when none is, or when none is seen to be. */
static struct span heredoc_word(struct span line)
{
	struct span t = line, word = { 0 };
	const char *mark;

	while ((mark = find(t, "<<"))) {
		t = skip(t, (size_t)(mark - t.s) + 2);
		if (begins(t, "<")) { /* <<< word */
			t = skip(t, 1);
			continue;
		}
		t = trim(skip(t, begins(t, "-")));
		t = skip(t, t.len && strchr("'\"\\", t.s[0]));
		word = (struct span){ t.s, 0 };
		while (word.len < t.len && (isalnum((unsigned char)t.s[word.len]) || t.s[word.len] == '_'))
			word.len++;
		if (word.len && isdigit((unsigned char)word.s[0])) /* a shift of bits */
			word.len = 0;
	}
	return word;
}

/* Blanks in front of a line. */
static size_t indent_of(struct span line)
{
	size_t n = 0;

	while (n < line.len && (line.s[n] == ' ' || line.s[n] == '\t'))
		n++;
	return n;
}

/* Lines of a code block: prompts, comments and the margin of the whole go, the rest stays as it is, and what is in a
 * here-document (a file to be written, in which blanks may count) stays to the letter. */
static int append_block(struct span block, struct base_buf *out)
{
	struct span line, t, inside = { 0 };
	size_t before = out->len, margin = 0;
	bool continued = false;

	while (next_line(&block, &line)) {
		size_t indent = indent_of(line);

		if (out->len == before)
			margin = indent;
		t = skip(line, indent < margin ? indent : margin);
		if (inside.len) {
			if (trim(t).len == inside.len && memcmp(trim(t).s, inside.s, inside.len) == 0)
				inside.len = 0;
		} else {
			struct span bare = continued ? t : drop_prompt(line);

			if (!continued && (!bare.len || bare.s[0] == '#')) {
				if (!begins(bare, "# ") || out->len > before || !could_be_command(skip(bare, 2)) ||
				    block.len)
					continue;
				bare = trim(skip(bare, 2)); /* the only line: a root prompt, not a comment */
			}
			if (out->len == before || bare.s > line.s + indent)
				t = bare; /* the first one, or one behind a prompt */
			inside = heredoc_word(t);
			while (t.len && isspace((unsigned char)t.s[t.len - 1]))
				t.len--;
		}
		if (out->len > before)
			(void)base_buf_putc(out, '\n');
		(void)base_buf_append(out, t.s, t.len);
		continued = t.len && t.s[t.len - 1] == '\\';
	}
	return base_buf_error(out);
}

static int accept(struct span t, struct base_buf *out)
{
	size_t before = out->len;
	int r;

	r = append_block(t, out);
	if (r < 0)
		return r;
	if (out->len > before && could_be_command((struct span){ out->data + before, out->len - before }))
		return 1;
	out->len = before;
	if (out->data)
		out->data[before] = '\0';
	return 0;
}

/* ---- Where it may be ----------------------------------------------------------------------------------- */

static bool is_shell_language(struct span tag)
{
	static const char *const names[] = { "",        "bash",          "sh",       "shell", "zsh",
		                             "console", "shell-session", "terminal", "cmd",   "command",
		                             "text",    "plaintext",     "fish",     "ksh",   NULL };

	return word_in(trim(tag), names);
}

static int from_fences(struct span text, struct base_buf *out)
{
	const char *open, *close;
	struct span rest = text, tag, body;
	int r;

	while ((open = find(rest, "```"))) {
		rest = skip(rest, (size_t)(open - rest.s) + 3);
		body = rest;
		close = find(rest, "```");
		if (close)
			body.len = (size_t)(close - rest.s);
		if (memchr(body.s, '\n', body.len)) {
			(void)next_line(&body, &tag);
			if (!is_shell_language(tag) && memchr(trim(tag).s, ' ', trim(tag).len))
				body = (struct span){ tag.s,
					              tag.len + 1 + body.len }; /* no tag: the command begins here */
			else if (!is_shell_language(tag))
				body.len = 0; /* another language */
		}
		r = accept(body, out);
		if (r != 0 || !close)
			return r;
		rest = skip(rest, (size_t)(close - rest.s) + 3);
	}
	return 0;
}

/* `command`: longer than one word first, for prose names programs in passing. */
static int from_inline_code(struct span text, struct base_buf *out)
{
	for (int pass = 0; pass < 2; pass++) {
		struct span rest = text, code;
		const char *open, *close;

		while ((open = memchr(rest.s, '`', rest.len))) {
			rest = skip(rest, (size_t)(open - rest.s) + 1);
			close = rest.len ? memchr(rest.s, '`', rest.len) : NULL;
			if (!close)
				break;
			code = (struct span){ rest.s, (size_t)(close - rest.s) };
			rest = skip(rest, code.len + 1);
			if ((pass || memchr(code.s, ' ', code.len)) && !memchr(code.s, '\n', code.len)) {
				int r = accept(code, out);

				if (r != 0)
					return r;
			}
			if (!rest.len)
				break;
		}
	}
	return 0;
}

/* "Command: ls -l", "可以使用命令:ls -l" */
static int from_label(struct span line, struct base_buf *out)
{
	for (size_t i = 0; i + 1 < line.len; i++) {
		if (i + 3 <= line.len && memcmp(line.s + i, "\xef\xbc\x9a", 3) == 0) /* the wide colon */
			return accept(skip(line, i + 3), out);
		if (line.s[i] == ':' && (line.s[i + 1] == ' ' || (i && (unsigned char)line.s[i - 1] >= 0x80)))
			return accept(skip(line, i + 1), out);
	}
	return 0;
}

static int from_lines(struct span text, struct base_buf *out)
{
	struct span rest = text, line, t;
	int r;

	/* A whole answer that is one command over several lines. */
	t = trim(text);
	if (memchr(t.s, '\n', t.len) && (find(t, "\\\n") || find(t, "<<") || is_compound(t)))
		return accept(t, out);
	while (next_line(&rest, &line)) {
		t = trim(line);
		if (t.len && t.s[0] == '#')
			continue;
		r = accept(t, out);
		if (r == 0)
			r = from_label(t, out);
		if (r != 0)
			return r;
	}
	return 0;
}

/* What follows the reasoning; nothing when it never ended. */
static struct span after_thinking(struct span text)
{
	const char *close;

	while ((close = find(text, "</think>")))
		text = skip(text, (size_t)(close - text.s) + 8);
	if (begins(trim(text), "<think>"))
		text.len = 0;
	return trim(text);
}

int ag_extract_command(const char *text, size_t len, struct base_buf *out)
{
	struct span t = after_thinking((struct span){ text, len });
	int r;

	if (!t.len)
		return 0;
	if (find(t, "```"))
		return from_fences(t, out);
	/* Backquotes are also shell syntax: only text that is no command as it stands is prose around code. */
	if (memchr(t.s, '`', t.len) && (t.s[0] == '`' || !could_be_command(t))) {
		r = from_inline_code(t, out);
		if (r != 0)
			return r;
	}
	return from_lines(t, out);
}
