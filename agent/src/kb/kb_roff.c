/* Readable text out of manual pages: the macros of man(7) and mdoc(7), and as much roff as pages use.
 *
 * This is no formatter. Requests that shape the page are dropped, macros that carry words keep them, escapes become
 * their characters; conditions are taken as a terminal would ("n" true, "t" false, all others false); macro definitions
 * and strings for them are skipped, save simple strings. Words are filled into lines until a paragraph ends or a line
 * is long enough to be one of a passage; in literal text (.nf, .EX, .Bd -literal) lines stay. Facts: groff_man(7),
 * groff_mdoc(7), groff_char(7). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "base/cleanup.h"
#include "kb/kb_internal.h"

enum { MAX_ARGS = 16, MAX_STRINGS = 32, FILL_BYTES = 400, MAX_DEPTH = 8 };

struct roff {
	struct ag_kb_doc *doc;
	struct base_buf text; /* the line being filled */
	uint32_t line, text_line;
	bool para, literal, name_wanted, table, no_space;
	int skip_blocks;  /* depth of a \{ that is not taken */
	bool last_if;     /* for .el */
	char end_mark[8]; /* a definition is skipped until ".MARK" */
	char page[64];    /* the name in .Nm */
	struct {
		char name[8], value[24];
	} strings[MAX_STRINGS];
	size_t n_strings;
};

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

/* ---- Words ------------------------------------------------------------------------------------------ */

static int flush(struct roff *r)
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

static int paragraph(struct roff *r)
{
	int e = flush(r);

	r->para = true;
	return e;
}

static int blank(struct roff *r)
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

static int put_named(struct roff *r, const char *name, size_t n)
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

static int put_string(struct roff *r, const char *name, size_t n)
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
static int escape(struct roff *r, const char **s, const char *end)
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

static int put(struct roff *r, const char *s, size_t len)
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

static int put_word(struct roff *r, const char *s, size_t len)
{
	int e = blank(r);

	return e ? e : put(r, s, len);
}

static int text_line(struct roff *r, const char *s, size_t len)
{
	bool indented = len && (*s == ' ' || *s == '\t');
	int e = 0;

	if (r->literal || indented || r->table)
		e = flush(r);
	if (e == 0)
		e = r->text.len ? put_word(r, s, len) : (r->text_line = r->line, put(r, s, len));
	if (e == 0 && (r->literal || r->table || r->text.len > FILL_BYTES))
		e = flush(r);
	return e;
}

/* ---- Macro lines -------------------------------------------------------------------------------------- */

struct args {
	const char *s[MAX_ARGS];
	size_t len[MAX_ARGS], n;
};

/* Blank-separated; "..." holds blanks, "" within it is a quote (kept as one byte of it). */
static void split_args(const char *s, const char *end, struct args *a)
{
	a->n = 0;
	while (a->n < MAX_ARGS) {
		bool quoted;

		while (s < end && (*s == ' ' || *s == '\t'))
			s++;
		if (s == end || (end - s >= 2 && s[0] == '\\' && s[1] == '"'))
			return;
		quoted = *s == '"';
		s += quoted;
		a->s[a->n] = s;
		while (s < end && (quoted ? *s != '"' : *s != ' ' && *s != '\t')) {
			if (*s == '\\' && s + 1 < end)
				s++;
			s++;
		}
		a->len[a->n] = (size_t)(s - a->s[a->n]);
		a->n++;
		s += quoted && s < end;
	}
}

static int put_args(struct roff *r, const struct args *a, size_t from, bool spaced)
{
	int e = 0;

	for (size_t i = from; i < a->n && e == 0; i++)
		e = spaced || i == from ? put_word(r, a->s[i], a->len[i]) : put(r, a->s[i], a->len[i]);
	return e;
}

static int heading(struct roff *r, const struct args *a, unsigned level)
{
	int e = paragraph(r);

	if (e == 0)
		e = put_args(r, a, 0, true);
	if (e == 0 && r->text.len) /* level 1 is the page itself */
		e = ag_kb_doc_line(r->doc, r->text.data, r->text.len, r->line, level + 1, true);
	base_buf_reset(&r->text);
	r->para = true;
	r->literal = false;
	return e;
}

/* ".TH NAME SECTION": the document's title is name(section). */
static int page_title(struct roff *r, const struct args *a)
{
	int e = 0;

	if (r->doc->title[0] || a->n < 1)
		return 0;
	e = put(r, a->s[0], a->len[0]);
	for (size_t i = 0; i < r->text.len; i++) {
		char *c = &r->text.data[i];

		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
	}
	if (e == 0 && a->n > 1) {
		(void)base_buf_putc(&r->text, '(');
		(void)put(r, a->s[1], a->len[1]);
		e = base_buf_putc(&r->text, ')');
	}
	if (e == 0 && r->text.len && r->text.len < sizeof(r->doc->title))
		memcpy(r->doc->title, r->text.data, r->text.len + 1);
	base_buf_reset(&r->text);
	return e;
}

static bool is_in(const char *name, const char *list)
{
	size_t n = strlen(name);

	for (const char *p = list; n && (p = strstr(p, name)); p += n) {
		if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	}
	return false;
}

/* mdoc's enclosures: what opens, and what closes at the end of the line (NULL: a macro of its own does). */
static const struct {
	const char *name, *open, *close;
} enclosures[] = {
	{ "Op", "[", "]" },   { "Oo", "[", NULL },  { "Bq", "[", "]" },   { "Bo", "[", NULL },
	{ "Pq", "(", ")" },   { "Po", "(", NULL },  { "Dq", "\"", "\"" }, { "Do", "\"", NULL },
	{ "Qq", "\"", "\"" }, { "Qo", "\"", NULL }, { "Sq", "'", "'" },   { "So", "'", NULL },
	{ "Ql", "'", "'" },   { "Aq", "<", ">" },   { "Ao", "<", NULL },  { "Brq", "{", "}" },
};

static const struct {
	const char *name, *text;
} closings[] = { { "Oc", "]" },  { "Bc", "]" }, { "Pc", ")" }, { "Dc", "\"" },
	         { "Qc", "\"" }, { "Sc", "'" }, { "Ac", ">" } };

struct mdoc {
	const struct args *a;
	size_t i;      /* the argument to look at next */
	char macro[8]; /* whose words they are */
	const char *closers[MAX_ARGS + 1];
	size_t n_closers;
};

static bool is_callable(const struct args *a, size_t i)
{
	static const char callable[] = "Ad An Ao Ac Ap Aq Ar Bo Bc Bq Brq Cd Cm Do Dc Dq Dv Dx Em Er Ev Fa Fl Fn Ft Fx "
	                               "Ic In Li Lk Ms Mt Nm No Ns Nx Oc Oo Op Ot Ox Pa Pc Pf Po Pq Qc Ql Qo Qq Sc So "
	                               "Sq St Sx Sy Tn Ux Va Vt Xc Xo Xr";
	char name[4] = "";

	if (i >= a->n || a->len[i] < 2 || a->len[i] > 3)
		return false;
	memcpy(name, a->s[i], a->len[i]);
	return is_in(name, callable);
}

static int open_joined(struct roff *r, const char *text)
{
	int e = put_word(r, text, strlen(text));

	r->no_space = true;
	return e;
}

/* What a macro writes before its words. */
static int mdoc_open(struct roff *r, struct mdoc *m)
{
	for (size_t i = 0; i < sizeof(enclosures) / sizeof(enclosures[0]); i++) {
		if (strcmp(m->macro, enclosures[i].name) != 0)
			continue;
		if (enclosures[i].close)
			m->closers[m->n_closers++] = enclosures[i].close;
		return open_joined(r, enclosures[i].open);
	}
	for (size_t i = 0; i < sizeof(closings) / sizeof(closings[0]); i++) {
		if (strcmp(m->macro, closings[i].name) == 0) {
			r->no_space = false;
			return base_buf_puts(&r->text, closings[i].text);
		}
	}
	if (strcmp(m->macro, "Ns") == 0)
		r->no_space = r->text.len > 0;
	else if (strcmp(m->macro, "Fl") == 0)
		return open_joined(r, "-");
	else if (strcmp(m->macro, "Nm") == 0 && (m->i == m->a->n || is_callable(m->a, m->i)))
		return put_word(r, r->page, strlen(r->page));
	else if (strcmp(m->macro, "Ar") == 0 && m->i == m->a->n)
		return put_word(r, "file ...", 8);
	else if (strcmp(m->macro, "Ap") == 0) {
		int e = base_buf_putc(&r->text, '\'');

		r->no_space = true;
		return e;
	}
	return 0;
}

static int mdoc_punctuation(struct roff *r, struct mdoc *m)
{
	int e = 0;

	r->no_space = false;
	/* at the end it stands behind what is closed there */
	while (m->i + 1 == m->a->n && m->n_closers && e == 0)
		e = base_buf_puts(&r->text, m->closers[--m->n_closers]);
	return e ? e : put(r, m->a->s[m->i], m->a->len[m->i]);
}

static int mdoc_word(struct roff *r, struct mdoc *m, size_t index)
{
	const char *s = m->a->s[m->i];
	size_t n = m->a->len[m->i];
	int e = 0;

	if (n == 1 && strchr(".,;:?!)]", *s))
		return mdoc_punctuation(r, m);
	if (strcmp(m->macro, "Xr") == 0 && index == 1) {
		(void)base_buf_putc(&r->text, '(');
		(void)put(r, s, n);
		return base_buf_putc(&r->text, ')');
	}
	if (strcmp(m->macro, "Fl") == 0 && index > 0 && *s != '|')
		e = open_joined(r, "-");
	if (e == 0)
		e = put_word(r, s, n);
	if (strcmp(m->macro, "Nm") == 0 && !r->page[0] && n < sizeof(r->page)) {
		memcpy(r->page, s, n);
		r->page[n] = '\0';
	}
	if (strcmp(m->macro, "Pf") == 0 || (n == 1 && strchr("([", *s)))
		r->no_space = true;
	return e;
}

/* A line of callable macros and words. */
static int mdoc_words(struct roff *r, const char *name, const struct args *a)
{
	struct mdoc m = { .a = a };
	int e = 0;

	(void)snprintf(m.macro, sizeof(m.macro), "%s", name);
	for (;;) {
		size_t index = 0;

		e = mdoc_open(r, &m);
		for (; m.i < a->n && e == 0; m.i++, index++) {
			/* the word behind Pf is never a macro */
			if (is_callable(a, m.i) && !(index == 0 && strcmp(m.macro, "Pf") == 0))
				break;
			e = mdoc_word(r, &m, index);
		}
		if (e || m.i >= a->n)
			break;
		(void)snprintf(m.macro, sizeof(m.macro), "%.*s", (int)a->len[m.i], a->s[m.i]);
		m.i++;
	}
	while (m.n_closers && e == 0) {
		r->no_space = false;
		e = base_buf_puts(&r->text, m.closers[--m.n_closers]);
	}
	return e;
}

static void define_string(struct roff *r, const struct args *a)
{
	if (a->n < 1 || a->n > 2 || r->n_strings == MAX_STRINGS || a->len[0] >= sizeof(r->strings[0].name) ||
	    (a->n == 2 && (a->len[1] >= sizeof(r->strings[0].value) || memchr(a->s[1], '\\', a->len[1]))))
		return;
	memcpy(r->strings[r->n_strings].name, a->s[0], a->len[0]);
	r->strings[r->n_strings].name[a->len[0]] = '\0';
	r->strings[r->n_strings].value[0] = '\0';
	if (a->n == 2) {
		memcpy(r->strings[r->n_strings].value, a->s[1], a->len[1]);
		r->strings[r->n_strings].value[a->len[1]] = '\0';
	}
	r->n_strings++;
}

static int item(struct roff *r, const struct args *a, const char *name)
{
	int e = paragraph(r);

	if (e == 0 && strcmp(name, "IP") == 0 && a->n)
		e = put_word(r, a->s[0], a->len[0]);
	else if (e == 0 && strcmp(name, "It") == 0 && a->n)
		e = mdoc_words(r, "No", a);
	return e;
}

static void begin_definition(struct roff *r, const struct args *a, bool ignore)
{
	size_t at = ignore ? 0 : 1;

	(void)snprintf(r->end_mark, sizeof(r->end_mark), ".");
	if (a->n > at && a->len[at] && a->len[at] < sizeof(r->end_mark)) {
		memcpy(r->end_mark, a->s[at], a->len[at]);
		r->end_mark[a->len[at]] = '\0';
	}
}

static int macro_line(struct roff *r, const char *s, const char *end, int depth);

/* .if, .ie, .el: only "n" and "!t" hold. */
static int condition(struct roff *r, const char *name, const char *s, const char *end, int depth)
{
	bool holds = strcmp(name, "el") == 0 ? !r->last_if : false, negated = false;

	while (s < end && *s == ' ')
		s++;
	if (strcmp(name, "el") != 0) {
		if (s < end && *s == '!') {
			negated = true;
			s++;
		}
		holds = (s < end && *s == 'n' && (s + 1 == end || s[1] == ' ')) != negated;
		if (s < end && *s == '\'') /* 'a'b': three quotes */
			for (int quotes = 0; s < end && quotes < 3; s++)
				quotes += *s == '\'';
		while (s < end && *s != ' ')
			s++;
		while (s < end && *s == ' ')
			s++;
		r->last_if = holds;
	}
	if (end - s >= 2 && s[0] == '\\' && s[1] == '{') {
		s += 2;
		if (!holds) {
			if (!memmem(s, (size_t)(end - s), "\\}", 2))
				r->skip_blocks = 1;
			return 0;
		}
	}
	if (!holds || s == end || depth >= MAX_DEPTH)
		return 0;
	if (*s == '.' || *s == '\'')
		return macro_line(r, s + 1, end, depth + 1);
	return *s == '\\' && end - s < 2 ? 0 : text_line(r, s, (size_t)(end - s));
}

static int structure(struct roff *r, const char *name, const struct args *a, bool *ret_known)
{
	*ret_known = true;
	if (is_in(name, "TH Dt"))
		return page_title(r, a);
	if (is_in(name, "SH Sh"))
		return heading(r, a, 1);
	if (is_in(name, "SS Ss"))
		return heading(r, a, 2);
	if (is_in(name, "PP P LP Pp TP TQ HP IP It"))
		return item(r, a, name);
	if (is_in(name, "br sp RS RE SY YS El Ed Bl"))
		return flush(r);
	if (is_in(name, "nf EX Bd") && (name[0] != 'B' || (a->n && a->len[0] > 2 && strchr("lu", a->s[0][1])))) {
		r->literal = true;
		return flush(r);
	}
	if (is_in(name, "fi EE")) {
		r->literal = false;
		return flush(r);
	}
	if (is_in(name, "TS TE")) {
		r->table = name[1] == 'S';
		return flush(r);
	}
	if (is_in(name, "de de1 am ig")) {
		begin_definition(r, a, name[0] == 'i');
		return 0;
	}
	if (strcmp(name, "ds") == 0) {
		define_string(r, a);
		return 0;
	}
	*ret_known = false;
	return 0;
}

static int macro_line(struct roff *r, const char *s, const char *end, int depth)
{
	char name[8] = "";
	struct args a;
	bool known;
	size_t n = 0;
	int e;

	while (s < end && (*s == ' ' || *s == '\t'))
		s++;
	while (s < end && *s != ' ' && *s != '\t' && !(*s == '\\' && n) && n + 1 < sizeof(name))
		name[n++] = *s++;
	name[n] = '\0';
	if (n == 0 || name[0] == '\\')
		return 0;
	if (is_in(name, "if ie el"))
		return condition(r, name, s, end, depth);
	split_args(s, end, &a);
	e = structure(r, name, &a, &known);
	if (strcmp(name, "Ed") == 0)
		r->literal = false;
	if (known)
		return e;
	if (strcmp(name, "Nd") == 0) {
		e = put_word(r, "-", 1);
		return e ? e : put_args(r, &a, 0, true);
	}
	if (is_in(name, "B I SM SB R"))
		e = put_args(r, &a, 0, true);
	else if (is_in(name, "BI BR IB IR RB RI"))
		e = put_args(r, &a, 0, false);
	else if (is_in(name, "OP")) {
		e = put_word(r, "[", 1);
		r->no_space = true;
		e = e ? e : put_args(r, &a, 0, true);
		e = e ? e : base_buf_putc(&r->text, ']');
	} else if (is_in(name, "UR MT MR"))
		e = put_args(r, &a, 0, true);
	else if (name[0] >= 'A' && name[0] <= 'Z' && name[1] >= 'a' && name[1] <= 'z' && !name[2] &&
	         !is_in(name, "Dd Os Sm Bk Ek Rs Re Db"))
		e = mdoc_words(r, name, &a);
	if (e == 0 && (r->literal || r->text.len > FILL_BYTES))
		e = flush(r);
	return e;
}

/* Lines of a skipped definition or of a block that is not taken: true when this one is part of it. */
static bool is_skipped(struct roff *r, const char *s, size_t len)
{
	if (r->end_mark[0]) {
		size_t n = strlen(r->end_mark);

		if (len >= n + 1 && s[0] == '.' && memcmp(s + 1, r->end_mark, n) == 0 &&
		    (len == n + 1 || s[n + 1] == ' '))
			r->end_mark[0] = '\0';
		return true;
	}
	if (r->skip_blocks == 0)
		return false;
	for (size_t i = 0; i + 1 < len && r->skip_blocks; i++) {
		if (s[i] == '\\' && s[i + 1] == '{')
			r->skip_blocks++;
		else if (s[i] == '\\' && s[i + 1] == '}')
			r->skip_blocks--;
	}
	return true;
}

/* A table begins with its options (ending in ';') and its format (ending in '.'). */
static bool is_table_layout(const char *s, size_t len, bool *layout)
{
	if (!*layout)
		return len >= 2 && len <= 2 && memcmp(s, "T{", 2) == 0;
	if (len && s[len - 1] == '.')
		*layout = false;
	return true;
}

static int one_line(struct roff *r, const char *s, size_t len, bool *layout)
{
	if (len && s[len - 1] == '\r')
		len--;
	if (is_skipped(r, s, len))
		return 0;
	if (len && (s[0] == '.' || s[0] == '\'')) {
		if (len >= 3 && s[0] == '.' && s[1] == 'T' && s[2] == 'S')
			*layout = true;
		return macro_line(r, s + 1, s + len, 0);
	}
	if (r->table && is_table_layout(s, len, layout))
		return 0;
	if (len == 0)
		return paragraph(r);
	return text_line(r, s, len);
}

int ag_kb_extract_roff(const char *data, size_t len, struct ag_kb_doc *doc)
{
	struct roff *r = calloc(1, sizeof(*r));
	const char *end = data + len;
	bool layout = false;
	int e = 0;

	if (!r)
		return -ENOMEM;
	r->doc = doc;
	r->para = true;
	base_buf_init(&r->text, doc->text.max);
	for (const char *s = data; s < end && e == 0;) {
		const char *newline = memchr(s, '\n', (size_t)(end - s));

		r->line++;
		e = one_line(r, s, (size_t)((newline ? newline : end) - s), &layout);
		s = newline ? newline + 1 : end;
	}
	if (e == 0)
		e = flush(r);
	base_buf_done(&r->text);
	free(r);
	return e;
}
