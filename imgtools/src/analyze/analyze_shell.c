/* The commands of a shell script, without running it: words in the place of a command. Quotes, comments,
 * here-documents, substitutions and reserved words are known; expansions are not done, so a word that holds one is
 * passed over. What is found is a hint (a weak need), never proof; arguments that are absolute paths of files that are
 * there count too, since scripts hand programs to other programs (`exec setpriv /usr/bin/x`). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"

enum { WORD_MAX = 512, HERE_MAX = 8 };

struct shell {
	const char *p, *end;
	char word[WORD_MAX];
	size_t len;
	bool is_plain;   /* the word holds no expansion */
	bool is_command; /* the next word is in the place of a command */
	/* here-documents whose text begins at the next line */
	char here[HERE_MAX][64];
	size_t n_here;
	int (*on_command)(const char *name, void *arg);
	void *arg;
};

/* Reserved words and builtins after which a command stands. */
static bool keeps_place(const char *w)
{
	static const char *const words[] = { "if",  "then",    "elif",   "else",    "while",  "until", "do",   "!",
		                             "{",   "time",    "exec",   "command", "sudo",   "nohup", "nice", "eval",
		                             "env", "builtin", "setsid", "xargs",   "chroot", "ionice" };

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (strcmp(w, words[i]) == 0)
			return true;
	}
	return false;
}

static bool is_assignment(const char *w)
{
	const char *eq = strchr(w, '=');

	if (!eq || eq == w)
		return false;
	for (const char *p = w; p < eq; p++) {
		if (*p != '_' && *p != '+' && (*p < '0' || *p > '9') && (*p < 'a' || *p > 'z') &&
		    (*p < 'A' || *p > 'Z'))
			return false;
	}
	return true;
}

static int word_ends(struct shell *s)
{
	int r = 0;

	if (s->len == 0)
		return 0;
	s->word[s->len < WORD_MAX ? s->len : WORD_MAX - 1] = 0;
	if (s->len >= WORD_MAX || !s->is_plain) {
		s->is_command = s->is_command && is_assignment(s->word);
	} else if (s->is_command) {
		if (is_assignment(s->word) || s->word[0] == '-') {
			/* still before the command, or an option of what kept its place */
		} else {
			r = s->on_command(s->word, s->arg);
			s->is_command = keeps_place(s->word);
		}
	} else if (s->word[0] == '/') {
		r = s->on_command(s->word, s->arg);
	}
	s->len = 0;
	s->is_plain = true;
	return r;
}

static void put(struct shell *s, char c)
{
	if (s->len < WORD_MAX)
		s->word[s->len++] = c;
}

static void single_quoted(struct shell *s)
{
	for (s->p++; s->p < s->end && *s->p != '\''; s->p++)
		put(s, *s->p);
}

static void skip_braces(struct shell *s, char open, char close)
{
	int depth = 0;

	for (; s->p < s->end; s->p++) {
		if (*s->p == '\\' && s->p + 1 < s->end)
			s->p++;
		else if (*s->p == open)
			depth++;
		else if (*s->p == close && --depth == 0)
			return;
	}
}

/* `<<WORD`, `<<-'WORD'`: remembers the word; `<<<` is a string. */
static void here_document(struct shell *s)
{
	char *w = s->here[s->n_here < HERE_MAX ? s->n_here : HERE_MAX - 1];
	size_t n = 0;

	s->p += 2;
	if (s->p < s->end && *s->p == '<')
		return;
	while (s->p < s->end && (*s->p == '-' || *s->p == ' ' || *s->p == '\t'))
		s->p++;
	for (; s->p < s->end && !strchr(" \t\n;&|<>()", *s->p); s->p++) {
		if (*s->p != '\'' && *s->p != '"' && *s->p != '\\' && n + 1 < sizeof(s->here[0]))
			w[n++] = *s->p;
	}
	w[n] = 0;
	s->p--;
	if (n > 0 && s->n_here < HERE_MAX)
		s->n_here++;
}

/* At the end of a line: passes over the texts of the here-documents that it announced. */
static void skip_here_documents(struct shell *s)
{
	for (size_t i = 0; i < s->n_here; i++) {
		size_t len = strlen(s->here[i]);

		while (s->p < s->end) {
			const char *line = s->p + 1, *eol;

			if (line >= s->end) {
				s->p = s->end;
				break;
			}
			eol = memchr(line, '\n', (size_t)(s->end - line));
			eol = eol ? eol : s->end;
			s->p = eol;
			while (line < eol && *line == '\t')
				line++;
			if ((size_t)(eol - line) == len && memcmp(line, s->here[i], len) == 0)
				break;
		}
	}
	s->n_here = 0;
}

/* What `$` begins. A substitution's commands are read as commands of their own by going on inside it. */
static int dollar(struct shell *s)
{
	s->is_plain = false;
	put(s, '$');
	if (s->p + 1 >= s->end)
		return 0;
	if (s->p[1] == '{') {
		s->p++;
		skip_braces(s, '{', '}');
	} else if (s->p[1] == '(' && s->p + 2 < s->end && s->p[2] == '(') {
		s->p++;
		skip_braces(s, '(', ')');
	} else if (s->p[1] == '(') {
		int r = word_ends(s);

		s->p++;
		s->is_command = true;
		return r;
	}
	return 0;
}

static int nested(struct shell *s, const char *from, const char *to, int depth);

/* Inside double quotes only substitutions matter; their text is read by one recursion. */
static int double_quoted(struct shell *s, int depth)
{
	for (s->p++; s->p < s->end && *s->p != '"'; s->p++) {
		if (*s->p == '\\' && s->p + 1 < s->end) {
			put(s, *++s->p);
		} else if (*s->p == '$' && s->p + 1 < s->end && s->p[1] == '(') {
			const char *from = s->p + 2;
			int r;

			s->is_plain = false;
			s->p++;
			skip_braces(s, '(', ')');
			r = nested(s, from, s->p < s->end ? s->p : s->end, depth);
			if (r < 0)
				return r;
		} else {
			s->is_plain = s->is_plain && *s->p != '$' && *s->p != '`';
			put(s, *s->p);
		}
	}
	return 0;
}

static int one_byte(struct shell *s, int depth)
{
	char c = *s->p;
	int r = 0;

	if (c == '#' && s->len == 0) {
		while (s->p + 1 < s->end && s->p[1] != '\n')
			s->p++;
	} else if (c == '\'') {
		single_quoted(s);
	} else if (c == '"') {
		return double_quoted(s, depth);
	} else if (c == '\\') {
		if (s->p + 1 < s->end && *++s->p != '\n')
			put(s, *s->p);
	} else if (c == '$') {
		return dollar(s);
	} else if (c == '<' && s->p + 1 < s->end && s->p[1] == '<') {
		r = word_ends(s);
		here_document(s);
	} else if (c == ' ' || c == '\t' || c == '<' || c == '>') {
		r = word_ends(s);
	} else if (c == '\n' || c == ';' || c == '&' || c == '|' || c == '(' || c == ')' || c == '`') {
		r = word_ends(s);
		s->is_command = true;
		if (c == '\n')
			skip_here_documents(s);
	} else {
		put(s, c);
	}
	return r;
}

static int run(struct shell *s, int depth)
{
	int r = 0;

	/* A quote that nobody closes leaves p at the end. */
	while (s->p < s->end && r >= 0) {
		r = one_byte(s, depth);
		if (s->p < s->end)
			s->p++;
	}
	return r < 0 ? r : word_ends(s);
}

static int nested(struct shell *s, const char *from, const char *to, int depth)
{
	struct shell *inner;
	int r;

	if (depth >= 8 || from >= to)
		return 0;
	inner = calloc(1, sizeof(*inner)); /* too large for a deep stack */
	if (!inner)
		return -ENOMEM;
	*inner = (struct shell){
		.p = from, .end = to, .is_plain = true, .is_command = true, .on_command = s->on_command, .arg = s->arg
	};
	r = run(inner, depth + 1);
	free(inner);
	return r;
}

int img_shell_commands(const char *text, size_t size, int (*on_command)(const char *name, void *arg), void *arg)
{
	struct shell s = { .p = text,
		           .end = text + size,
		           .is_plain = true,
		           .is_command = true,
		           .on_command = on_command,
		           .arg = arg };

	return run(&s, 0);
}
