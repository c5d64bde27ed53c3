/* The import statements of Python source, found by its tokens: strings, comments, brackets and line joins are known,
 * the rest is passed over. A statement that stands in `try`, `if`, `with`, a loop or a function may never run: it is
 * weak. Classes run their bodies at once, so they do not weaken. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "analyze/analyze_internal.h"

enum { NAME_MAX_BYTES = 255, DEPTH_MAX = 64 };

struct scan {
	const char *p, *end;
	/* indentations of the blocks that weaken, outermost first */
	unsigned int weak_at[DEPTH_MAX];
	size_t n_weak;
	int (*on_import)(const struct img_python_import *i, void *arg);
	void *arg;
};

static bool is_name_byte(char c)
{
	return isalnum((unsigned char)c) || c == '_' || (c & 0x80);
}

/* At a quote: passes over the string, one or three quotes. Prefixes (r, b, f) were read as a name before; a backslash
 * hides the next byte in raw strings too, as far as the end of the string is concerned. */
static void skip_string(struct scan *s)
{
	char q = *s->p;
	bool three = s->end - s->p >= 3 && s->p[1] == q && s->p[2] == q;

	s->p += three ? 3 : 1;
	while (s->p < s->end) {
		if (*s->p == '\\') {
			s->p += s->end - s->p >= 2 ? 2 : 1;
		} else if (*s->p == q && (!three || (s->end - s->p >= 3 && s->p[1] == q && s->p[2] == q))) {
			s->p += three ? 3 : 1;
			return;
		} else if (*s->p == '\n' && !three) {
			return; /* broken source */
		} else {
			s->p++;
		}
	}
}

static void skip_comment(struct scan *s)
{
	while (s->p < s->end && *s->p != '\n')
		s->p++;
}

/* Blanks, and joined lines; within brackets also line ends and comments. */
static void skip_blanks(struct scan *s, bool in_brackets)
{
	while (s->p < s->end) {
		if (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' || *s->p == '\f')
			s->p++;
		else if (*s->p == '\\' && s->end - s->p >= 2 && (s->p[1] == '\n' || s->p[1] == '\r'))
			s->p += 2;
		else if (in_brackets && *s->p == '\n')
			s->p++;
		else if (in_brackets && *s->p == '#')
			skip_comment(s);
		else
			return;
	}
}

/* The rest of a statement: up to and without the '\n' or ';' that ends it, or behind the ':' that begins its body. */
static void skip_statement(struct scan *s)
{
	int depth = 0;

	while (s->p < s->end) {
		char c = *s->p;

		if (c == '"' || c == '\'') {
			skip_string(s);
			continue;
		}
		if (c == '#') {
			skip_comment(s);
			continue;
		}
		if (depth == 0 && (c == '\n' || c == ';'))
			return;
		s->p++;
		if (c == '(' || c == '[' || c == '{')
			depth++;
		else if ((c == ')' || c == ']' || c == '}') && depth > 0)
			depth--;
		else if (c == ':' && depth == 0)
			return; /* `if x: import y` on one line */
		else if (c == '\\' && s->p < s->end)
			s->p++;
	}
}

/* a.b.c; returns its length, 0 when there is none, or when it is too long. */
static size_t dotted_name(struct scan *s, char name[NAME_MAX_BYTES + 1], bool in_brackets)
{
	size_t n = 0;

	for (;;) {
		size_t before = n;

		skip_blanks(s, in_brackets);
		while (s->p < s->end && is_name_byte(*s->p)) {
			if (n < NAME_MAX_BYTES)
				name[n] = *s->p;
			n++;
			s->p++;
		}
		if (n == before)
			break;
		skip_blanks(s, in_brackets);
		if (s->p >= s->end || *s->p != '.')
			break;
		if (n < NAME_MAX_BYTES)
			name[n] = '.';
		n++;
		s->p++;
	}
	n = n > NAME_MAX_BYTES ? 0 : n;
	name[n] = 0;
	return n;
}

static void skip_as(struct scan *s, bool in_brackets)
{
	char alias[NAME_MAX_BYTES + 1];

	skip_blanks(s, in_brackets);
	if (s->end - s->p >= 3 && memcmp(s->p, "as", 2) == 0 && !is_name_byte(s->p[2])) {
		s->p += 2;
		(void)dotted_name(s, alias, in_brackets);
		skip_blanks(s, in_brackets);
	}
}

/* Behind `import`. */
static int import_statement(struct scan *s, bool is_weak)
{
	char name[NAME_MAX_BYTES + 1];

	for (;;) {
		struct img_python_import i = { .module = name, .is_weak = is_weak };
		int r;

		if (dotted_name(s, name, false) == 0)
			return 0;
		r = s->on_import(&i, s->arg);
		if (r < 0)
			return r;
		skip_as(s, false);
		if (s->p >= s->end || *s->p != ',')
			return 0;
		s->p++;
	}
}

/* Behind `from`. */
static int from_statement(struct scan *s, bool is_weak)
{
	char module[NAME_MAX_BYTES + 1], name[NAME_MAX_BYTES + 1], word[NAME_MAX_BYTES + 1];
	struct img_python_import i = { .module = module, .name = name, .is_weak = is_weak };
	const char *back;
	bool in_brackets = false;

	skip_blanks(s, false);
	while (s->p < s->end && (*s->p == '.' || *s->p == ' ')) {
		i.level += *s->p == '.';
		s->p++;
	}
	/* `from . import x`: the name is already the word `import`. */
	back = s->p;
	(void)dotted_name(s, module, false);
	if (strcmp(module, "import") == 0) {
		module[0] = 0;
		s->p = back;
	}
	skip_blanks(s, false);
	if (dotted_name(s, word, false) == 0 || strcmp(word, "import") != 0)
		return 0;
	skip_blanks(s, false);
	if (s->p < s->end && *s->p == '(') {
		in_brackets = true;
		s->p++;
	}
	for (;;) {
		int r;

		skip_blanks(s, in_brackets);
		if (s->p < s->end && *s->p == '*') {
			s->p++;
			memcpy(name, "*", 2);
		} else if (dotted_name(s, name, in_brackets) == 0) {
			return 0;
		}
		r = s->on_import(&i, s->arg);
		if (r < 0)
			return r;
		skip_as(s, in_brackets);
		if (s->p >= s->end || *s->p != ',')
			return 0;
		s->p++;
	}
}

static bool weakens(const char *word)
{
	static const char *const words[] = { "try", "except", "finally", "if",  "elif", "else",
		                             "def", "async",  "with",    "for", "while" };

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (strcmp(word, words[i]) == 0)
			return true;
	}
	return false;
}

/* One statement at p; `indent` is that of its line, `weak` what the statements before it on the line made it. */
static int statement(struct scan *s, unsigned int indent, bool *weak)
{
	char word[NAME_MAX_BYTES + 1];
	size_t n = 0;
	int r = 0;

	while (s->p < s->end && is_name_byte(*s->p)) {
		if (n < NAME_MAX_BYTES)
			word[n++] = *s->p;
		s->p++;
	}
	word[n] = 0;
	if (strcmp(word, "import") == 0) {
		r = import_statement(s, *weak);
	} else if (strcmp(word, "from") == 0) {
		r = from_statement(s, *weak);
	} else if (weakens(word)) {
		if (s->n_weak < DEPTH_MAX)
			s->weak_at[s->n_weak++] = indent;
		*weak = true;
	}
	return r;
}

int img_python_imports(const char *text, size_t size, int (*on_import)(const struct img_python_import *i, void *arg),
                       void *arg)
{
	struct scan s = { .p = text, .end = text + size, .on_import = on_import, .arg = arg };

	while (s.p < s.end) {
		unsigned int indent = 0;
		bool weak;

		for (; s.p < s.end && (*s.p == ' ' || *s.p == '\t' || *s.p == '\f'); s.p++)
			indent += *s.p == '\t' ? 8 - indent % 8 : 1;
		if (s.p < s.end && (*s.p == '\n' || *s.p == '\r')) {
			s.p++;
			continue;
		}
		if (s.p < s.end && *s.p == '#') {
			skip_comment(&s);
			continue;
		}
		while (s.n_weak > 0 && s.weak_at[s.n_weak - 1] >= indent)
			s.n_weak--;
		weak = s.n_weak > 0;
		do {
			int r;

			skip_blanks(&s, false);
			r = statement(&s, indent, &weak);
			if (r < 0)
				return r;
			skip_statement(&s);
			if (s.p < s.end && *s.p == ';')
				s.p++;
		} while (s.p < s.end && *s.p != '\n');
		if (s.p < s.end)
			s.p++;
	}
	return 0;
}
