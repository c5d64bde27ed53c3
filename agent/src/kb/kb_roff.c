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

#include "base/cleanup.h"
#include "kb/kb_roff.h"

enum { MAX_ARGS = 16, MAX_DEPTH = 8 };

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

static int put_args(struct kb_roff *r, const struct args *a, size_t from, bool spaced)
{
	int e = 0;

	for (size_t i = from; i < a->n && e == 0; i++)
		e = spaced || i == from ? kb_roff_put_word(r, a->s[i], a->len[i]) : kb_roff_put(r, a->s[i], a->len[i]);
	return e;
}

static int heading(struct kb_roff *r, const struct args *a, unsigned level)
{
	int e = kb_roff_paragraph(r);

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
static int page_title(struct kb_roff *r, const struct args *a)
{
	int e = 0;

	if (r->doc->title[0] || a->n < 1)
		return 0;
	e = kb_roff_put(r, a->s[0], a->len[0]);
	for (size_t i = 0; i < r->text.len; i++) {
		char *c = &r->text.data[i];

		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
	}
	if (e == 0 && a->n > 1) {
		(void)base_buf_putc(&r->text, '(');
		(void)kb_roff_put(r, a->s[1], a->len[1]);
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

static int open_joined(struct kb_roff *r, const char *text)
{
	int e = kb_roff_put_word(r, text, strlen(text));

	r->no_space = true;
	return e;
}

/* What a macro writes before its words. */
static int mdoc_open(struct kb_roff *r, struct mdoc *m)
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
		return kb_roff_put_word(r, r->page, strlen(r->page));
	else if (strcmp(m->macro, "Ar") == 0 && m->i == m->a->n)
		return kb_roff_put_word(r, "file ...", 8);
	else if (strcmp(m->macro, "Ap") == 0) {
		int e = base_buf_putc(&r->text, '\'');

		r->no_space = true;
		return e;
	}
	return 0;
}

static int mdoc_punctuation(struct kb_roff *r, struct mdoc *m)
{
	int e = 0;

	r->no_space = false;
	/* at the end it stands behind what is closed there */
	while (m->i + 1 == m->a->n && m->n_closers && e == 0)
		e = base_buf_puts(&r->text, m->closers[--m->n_closers]);
	return e ? e : kb_roff_put(r, m->a->s[m->i], m->a->len[m->i]);
}

static int mdoc_word(struct kb_roff *r, struct mdoc *m, size_t index)
{
	const char *s = m->a->s[m->i];
	size_t n = m->a->len[m->i];
	int e = 0;

	if (n == 1 && strchr(".,;:?!)]", *s))
		return mdoc_punctuation(r, m);
	if (strcmp(m->macro, "Xr") == 0 && index == 1) {
		(void)base_buf_putc(&r->text, '(');
		(void)kb_roff_put(r, s, n);
		return base_buf_putc(&r->text, ')');
	}
	if (strcmp(m->macro, "Fl") == 0 && index > 0 && *s != '|')
		e = open_joined(r, "-");
	if (e == 0)
		e = kb_roff_put_word(r, s, n);
	if (strcmp(m->macro, "Nm") == 0 && !r->page[0] && n < sizeof(r->page)) {
		memcpy(r->page, s, n);
		r->page[n] = '\0';
	}
	if (strcmp(m->macro, "Pf") == 0 || (n == 1 && strchr("([", *s)))
		r->no_space = true;
	return e;
}

/* A line of callable macros and words. */
static int mdoc_words(struct kb_roff *r, const char *name, const struct args *a)
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

static void define_string(struct kb_roff *r, const struct args *a)
{
	if (a->n < 1 || a->n > 2 || r->n_strings == KB_ROFF_MAX_STRINGS || a->len[0] >= sizeof(r->strings[0].name) ||
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

static int item(struct kb_roff *r, const struct args *a, const char *name)
{
	int e = kb_roff_paragraph(r);

	if (e == 0 && strcmp(name, "IP") == 0 && a->n)
		e = kb_roff_put_word(r, a->s[0], a->len[0]);
	else if (e == 0 && strcmp(name, "It") == 0 && a->n)
		e = mdoc_words(r, "No", a);
	return e;
}

static void begin_definition(struct kb_roff *r, const struct args *a, bool ignore)
{
	size_t at = ignore ? 0 : 1;

	(void)snprintf(r->end_mark, sizeof(r->end_mark), ".");
	if (a->n > at && a->len[at] && a->len[at] < sizeof(r->end_mark)) {
		memcpy(r->end_mark, a->s[at], a->len[at]);
		r->end_mark[a->len[at]] = '\0';
	}
}

static int macro_line(struct kb_roff *r, const char *s, const char *end, int depth);

/* .if, .ie, .el: only "n" and "!t" hold. */
static int condition(struct kb_roff *r, const char *name, const char *s, const char *end, int depth)
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
	return *s == '\\' && end - s < 2 ? 0 : kb_roff_text_line(r, s, (size_t)(end - s));
}

static int structure(struct kb_roff *r, const char *name, const struct args *a, bool *ret_known)
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
		return kb_roff_flush(r);
	if (is_in(name, "nf EX Bd") && (name[0] != 'B' || (a->n && a->len[0] > 2 && strchr("lu", a->s[0][1])))) {
		r->literal = true;
		return kb_roff_flush(r);
	}
	if (is_in(name, "fi EE")) {
		r->literal = false;
		return kb_roff_flush(r);
	}
	if (is_in(name, "TS TE")) {
		r->table = name[1] == 'S';
		return kb_roff_flush(r);
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

static int macro_line(struct kb_roff *r, const char *s, const char *end, int depth)
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
		e = kb_roff_put_word(r, "-", 1);
		return e ? e : put_args(r, &a, 0, true);
	}
	if (is_in(name, "B I SM SB R"))
		e = put_args(r, &a, 0, true);
	else if (is_in(name, "BI BR IB IR RB RI"))
		e = put_args(r, &a, 0, false);
	else if (is_in(name, "OP")) {
		e = kb_roff_put_word(r, "[", 1);
		r->no_space = true;
		e = e ? e : put_args(r, &a, 0, true);
		e = e ? e : base_buf_putc(&r->text, ']');
	} else if (is_in(name, "UR MT MR"))
		e = put_args(r, &a, 0, true);
	else if (name[0] >= 'A' && name[0] <= 'Z' && name[1] >= 'a' && name[1] <= 'z' && !name[2] &&
	         !is_in(name, "Dd Os Sm Bk Ek Rs Re Db"))
		e = mdoc_words(r, name, &a);
	if (e == 0 && (r->literal || r->text.len > KB_ROFF_FILL_BYTES))
		e = kb_roff_flush(r);
	return e;
}

/* Lines of a skipped definition or of a block that is not taken: true when this one is part of it. */
static bool is_skipped(struct kb_roff *r, const char *s, size_t len)
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

static int one_line(struct kb_roff *r, const char *s, size_t len, bool *layout)
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
		return kb_roff_paragraph(r);
	return kb_roff_text_line(r, s, len);
}

int ag_kb_extract_roff(const char *data, size_t len, struct ag_kb_doc *doc)
{
	struct kb_roff *r = calloc(1, sizeof(*r));
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
		e = kb_roff_flush(r);
	base_buf_done(&r->text);
	free(r);
	return e;
}
