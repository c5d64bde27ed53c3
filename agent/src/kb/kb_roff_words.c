/* The text of manual pages: escapes become their characters, words are filled into lines. What a line of macros says is
 * kb_roff.c's matter. Facts: groff(7), groff_char(7). */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "kb/kb_roff.h"

static const struct {
	const char *name, *text;
} chars[] = {
	{ "aq", "'" }, { "dq", "\"" }, { "lq", "“" },  { "rq", "”" }, { "oq", "‘" }, { "cq", "’" }, { "em", "—" },
	{ "en", "–" }, { "hy", "-" },  { "mi", "-" },  { "bu", "•" }, { "co", "©" }, { "rg", "®" }, { "tm", "™" },
	{ "ha", "^" }, { "ti", "~" },  { "rs", "\\" }, { "ga", "`" }, { "aa", "'" }, { "or", "|" }, { "ba", "|" },
	{ "br", "|" }, { "sl", "/" },  { "sh", "#" },  { "at", "@" }, { "Do", "$" }, { "lB", "[" }, { "rB", "]" },
	{ "lC", "{" }, { "rC", "}" },  { "la", "<" },  { "ra", ">" }, { "->", "→" }, { "<-", "←" }, { ">=", "≥" },
	{ "<=", "≤" }, { "!=", "≠" },  { "==", "≡" },  { "+-", "±" }, { "mu", "×" }, { "di", "÷" }, { "de", "°" },
	{ "mc", "µ" }, { "sc", "§" },  { "Fo", "«" },  { "Fc", "»" }, { "fo", "‹" }, { "fc", "›" }, { "pl", "+" },
	{ "eq", "=" }, { "**", "*" },  { "ul", "_" },  { "ru", "_" }, { "if", "∞" }, { "'e", "é" }, { "`e", "è" },
	{ ":a", "ä" }, { ":o", "ö" },  { ":u", "ü" },  { ":A", "Ä" }, { ":O", "Ö" }, { ":U", "Ü" }, { "ss", "ß" },
	{ "'a", "á" }, { "'i", "í" },  { "'o", "ó" },  { ",c", "ç" }, { "Eu", "€" }, { "tf", "∴" }, { "OK", "✓" },
};

int kb_roff_flush(struct kb_roff *r)
{
	int e = 0;

	if (r->text.len) {
		e = ag_kb_doc_line(r->doc, r->text.data, r->text.len, r->text_line ? r->text_line : r->line, 0,
		                   r->para);
		r->para = false;
	}
	base_buf_reset(&r->text);
	r->text_line = 0;
	r->no_space = false;
	return e;
}

int kb_roff_paragraph(struct kb_roff *r)
{
	int e = kb_roff_flush(r);

	r->para = true;
	return e;
}

static int blank(struct kb_roff *r)
{
	if (r->text.len == 0) {
		r->text_line = r->line;
		return 0;
	}
	if (r->no_space) {
		r->no_space = false;
		return 0;
	}
	return r->text.data[r->text.len - 1] == ' ' ? 0 : base_buf_putc(&r->text, ' ');
}

static int put_named(struct kb_roff *r, const char *name, size_t n)
{
	uint8_t utf8[4];

	for (size_t i = 0; i < sizeof(chars) / sizeof(chars[0]); i++) {
		if (strlen(chars[i].name) == n && memcmp(chars[i].name, name, n) == 0)
			return base_buf_puts(&r->text, chars[i].text);
	}
	if (n >= 5 && n <= 7 && name[0] == 'u') {
		char hex[8] = { 0 }, *rest;
		unsigned long c;

		memcpy(hex, name + 1, n - 1);
		c = strtoul(hex, &rest, 16);
		if (!*rest && c >= 32 && c <= 0x10ffff && !(c >= 0xd800 && c < 0xe000))
			return base_buf_append(&r->text, utf8, (size_t)utf8proc_encode_char((int32_t)c, utf8));
	}
	return 0; /* unknown: nothing, as a terminal without it */
}

static int put_string(struct kb_roff *r, const char *name, size_t n)
{
	static const struct {
		const char *name, *text;
	} known[] = { { "lq", "\"" }, { "rq", "\"" }, { "L\"", "\"" }, { "R\"", "\"" },
		      { "--", "--" }, { "R", "®" },   { "Tm", "™" } };

	for (size_t i = 0; i < r->n_strings; i++) {
		if (strlen(r->strings[i].name) == n && memcmp(r->strings[i].name, name, n) == 0)
			return base_buf_puts(&r->text, r->strings[i].value);
	}
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strlen(known[i].name) == n && memcmp(known[i].name, name, n) == 0)
			return base_buf_puts(&r->text, known[i].text);
	}
	return 0;
}

/* The name behind an escape: "x", "(xx" or "[xxx]"; *s moves behind it. */
static const char *escape_name(const char **s, const char *end, size_t *ret_n)
{
	const char *p = *s, *close;

	*ret_n = 0;
	if (p == end)
		return p;
	if (*p == '(' && end - p >= 3) {
		*s = p + 3;
		*ret_n = 2;
		return p + 1;
	}
	if (*p == '[') {
		close = memchr(p, ']', (size_t)(end - p));
		*s = close ? close + 1 : end;
		*ret_n = (size_t)((close ? close : end) - p - 1);
		return p + 1;
	}
	*s = p + 1;
	*ret_n = 1;
	return p;
}

/* An argument in quotes of its own choice: \h'...' */
static void skip_quoted(const char **s, const char *end)
{
	const char *close;

	if (*s == end)
		return;
	close = memchr(*s + 1, **s, (size_t)(end - *s - 1));
	*s = close ? close + 1 : end;
}

/* \s, \s+2, \s(12, \s[..], \s'..' */
static void skip_size(const char **s, const char *end)
{
	const char *p = *s;
	size_t n;

	if (p < end && (*p == '+' || *p == '-'))
		p++;
	if (p < end && (*p == '(' || *p == '[')) {
		(void)escape_name(&p, end, &n);
	} else if (p < end && *p == '\'') {
		skip_quoted(&p, end);
	} else if (p < end) {
		bool two = *p >= '1' && *p <= '3';

		p++;
		if (two && p < end && *p >= '0' && *p <= '9')
			p++;
	}
	*s = p;
}

/* What follows a backslash at *s. */
static int escape(struct kb_roff *r, const char **s, const char *end)
{
	const char *name;
	char c = *(*s)++;
	size_t n;

	switch (c) {
	case 'f':
	case 'F':
	case 'm':
	case 'M':
	case 'n':
	case 'g':
	case 'k':
	case 'V':
	case 'Y':
		if (c == 'n' && *s < end && (**s == '+' || **s == '-'))
			(*s)++;
		(void)escape_name(s, end, &n);
		return 0;
	case '*':
		name = escape_name(s, end, &n);
		return put_string(r, name, n);
	case '(':
	case '[':
		(*s)--;
		name = escape_name(s, end, &n);
		return put_named(r, name, n);
	case 'C':
		if (*s < end) {
			name = *s + 1;
			skip_quoted(s, end);
			return *s > name ? put_named(r, name, (size_t)(*s - name - 1)) : 0;
		}
		return 0;
	case 's':
		skip_size(s, end);
		return 0;
	case 'A':
	case 'b':
	case 'B':
	case 'D':
	case 'h':
	case 'H':
	case 'l':
	case 'L':
	case 'N':
	case 'o':
	case 'R':
	case 'S':
	case 'v':
	case 'w':
	case 'x':
	case 'X':
	case 'Z':
		skip_quoted(s, end);
		return 0;
	case 'e':
	case 'E':
	case '\\':
		return base_buf_putc(&r->text, '\\');
	case '-':
	case '.':
	case '\'':
	case '`':
	case '_':
		return base_buf_putc(&r->text, c);
	case ' ':
	case '~':
	case '0':
	case 't':
		return base_buf_putc(&r->text, ' ');
	case 'c':
		r->no_space = true;
		return 0;
	case '"':
	case '#':
		*s = end;
		return 0;
	case '&':
	case ')':
	case '|':
	case '^':
	case '/':
	case ',':
	case ':':
	case '%':
	case 'd':
	case 'u':
	case 'p':
	case 'r':
	case 'z':
	case '{':
	case '}':
	case '!':
	case '?':
	case 'a':
		return 0;
	default:
		return (unsigned char)c >= 32 ? base_buf_putc(&r->text, c) : 0;
	}
}

int kb_roff_put(struct kb_roff *r, const char *s, size_t len)
{
	const char *end = s + len;
	int e = 0;

	while (s < end && e == 0) {
		if (*s == '\\' && s + 1 < end) {
			s++;
			e = escape(r, &s, end);
		} else if (*s == '\t') {
			s++;
			e = base_buf_puts(&r->text, "  ");
		} else {
			const char *stop = s + 1;

			while (stop < end && *stop != '\\' && *stop != '\t')
				stop++;
			e = base_buf_append(&r->text, s, (size_t)(stop - s));
			s = stop;
		}
	}
	return e;
}

int kb_roff_put_word(struct kb_roff *r, const char *s, size_t len)
{
	int e = blank(r);

	return e ? e : kb_roff_put(r, s, len);
}

int kb_roff_text_line(struct kb_roff *r, const char *s, size_t len)
{
	bool indented = len && (*s == ' ' || *s == '\t');
	int e = 0;

	if (r->literal || indented || r->table)
		e = kb_roff_flush(r);
	if (e == 0)
		e = r->text.len ? kb_roff_put_word(r, s, len) : (r->text_line = r->line, kb_roff_put(r, s, len));
	if (e == 0 && (r->literal || r->table || r->text.len > KB_ROFF_FILL_BYTES))
		e = kb_roff_flush(r);
	return e;
}
