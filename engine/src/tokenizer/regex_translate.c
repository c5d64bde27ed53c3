/* Oniguruma's regex syntax, which tokenizer.json is written in, to PCRE2's.
 *
 * Both speak nearly the same language; this pass rewrites what differs (Oniguruma doc/RE, version 6.9;
 * pcre2pattern(3)) and refuses, naming it, what has no counterpart:
 *   \s \w \b     Unicode's White_Space and word characters, which PCRE2 defines a little differently
 *   \h           a hexadecimal digit there, a horizontal space here
 *   [a[bc]&&[^d]]  nested classes and intersections: flattened where possible, else alternatives and lookaheads
 *   \p{Letter}, \p{Han}  long names to short ones; scripts by Script, not by Script_Extensions
 *   (?m)         "dot matches newline" there, (?s) here; ^ and $ always match at lines there
 *   a{1,3}+      a repeat of a repeat there, possessive here; {,n}; a**
 *   \uHHHH, \x{...}, \v
 * A character is always written so that PCRE2 cannot read it as syntax. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/regex_translate.h"
#include "tokenizer/tok_internal.h"

/* ---- classes --------------------------------------------------------------------------------- */

/* One operand of &&: characters in one class, plus alternatives that do not fit into a class. */
struct operand {
	struct base_buf flat, others; /* others: "|alt|alt" */
};

static int parse_class(struct tok_tr *t, struct base_buf *out, bool *ret_flat, unsigned depth);

static void operand_init(struct operand *o)
{
	base_buf_init(&o->flat, 1 << 18);
	base_buf_init(&o->others, 1 << 18);
}

static void operand_done(struct operand *o)
{
	base_buf_done(&o->flat);
	base_buf_done(&o->others);
}

/* A complement of one property stays flat (\P); any other complement becomes an alternative. */
static void operand_add_set(struct operand *o, const struct tok_tr_set *set)
{
	const char *s = base_buf_text(&set->text);
	const char *close;

	if (!set->negated) {
		(void)base_buf_append(&o->flat, s, set->text.len);
		return;
	}
	close = strchr(s, '}');
	if (strncmp(s, "\\p{", 3) == 0 && close && close[1] == '\0')
		(void)base_buf_printf(&o->flat, "\\P%s", s + 2);
	else if (strcmp(s, SPACE_SET) == 0)
		/* PCRE2's \S lacks only U+180E, which is no white space any more. */
		(void)base_buf_puts(&o->flat, "\\x{180e}\\S");
	else
		(void)base_buf_printf(&o->others, "|[^%s]", s);
}

static int posix_bracket(struct tok_tr *t, struct operand *o)
{
	CLEANUP(tok_tr_set_done) struct tok_tr_set set = { .text = BASE_BUF_INIT(4096) };
	const char *close = memmem(t->p, (size_t)(t->end - t->p), ":]", 2);
	const char *name = t->p;
	int r;

	if (name < close && *name == '^') {
		set.negated = true;
		name++;
	}
	r = tok_tr_property(t, name, (size_t)(close - name), &set);
	t->p = close + 2;
	if (r == 0)
		operand_add_set(o, &set);
	return r;
}

static bool is_posix_bracket(const struct tok_tr *t)
{
	const char *close = memmem(t->p, (size_t)(t->end - t->p), ":]", 2);

	if (!close || close - t->p > 12 || close == t->p)
		return false;
	for (const char *p = t->p; p < close; p++) {
		if (!isalpha((unsigned char)*p) && !(p == t->p && *p == '^'))
			return false;
	}
	return true;
}

/* A single character at t->p as *ret_cp (0), or a set added to the operand (1). */
static int class_item(struct tok_tr *t, struct operand *o, uint32_t *ret_cp)
{
	CLEANUP(tok_tr_set_done) struct tok_tr_set set = { .text = BASE_BUF_INIT(4096) };
	int r;

	if (*t->p != '\\') {
		*ret_cp = tok_tr_take_cp(t);
		return 0;
	}
	t->p++;
	if (t->p == t->end)
		return tok_tr_malformed(t, "ends with a backslash");
	if (*t->p == 'b') {
		t->p++;
		*ret_cp = '\b';
		return 0;
	}
	r = tok_tr_escape(t, ret_cp, &set);
	if (r == 1)
		operand_add_set(o, &set);
	if (r == 2)
		return tok_tr_unsupported(t, "this escape in a class", t->p - 1);
	return r;
}

/* A character, a range, or a set. */
static int class_range(struct tok_tr *t, struct operand *o)
{
	uint32_t from, to;
	const char *back;
	int r;

	r = class_item(t, o, &from);
	if (r != 0)
		return r < 0 ? r : 0;
	tok_tr_put_cp(&o->flat, from);
	if (t->end - t->p < 2 || t->p[0] != '-' || t->p[1] == ']' || t->p[1] == '[')
		return 0;
	if (t->end - t->p > 2 && t->p[1] == '&' && t->p[2] == '&')
		return 0;
	back = t->p++;
	r = class_item(t, o, &to);
	if (r < 0)
		return r;
	if (r == 1) { /* a-\d: the dash is a dash; the set was added already */
		tok_tr_put_cp(&o->flat, '-');
		return 0;
	}
	if (to < from)
		return tok_tr_unsupported(t, "an empty range", back);
	(void)base_buf_putc(&o->flat, '-');
	tok_tr_put_cp(&o->flat, to);
	return 0;
}

static int class_nested(struct tok_tr *t, struct operand *o, unsigned depth)
{
	CLEANUP(base_buf_done) struct base_buf inner = BASE_BUF_INIT(1 << 18);
	bool flat;
	int r;

	r = parse_class(t, &inner, &flat, depth + 1);
	if (r < 0)
		return r;
	if (flat)
		return base_buf_append(&o->flat, inner.data, inner.len);
	return base_buf_printf(&o->others, "|%s", base_buf_text(&inner));
}

/* Up to "&&" or "]", neither taken. */
static int class_operand(struct tok_tr *t, struct operand *o, bool first, unsigned depth)
{
	const char *begin = t->p;
	int r = 0;

	while (r == 0) {
		if (t->p == t->end)
			return tok_tr_malformed(t, "[ without ]");
		if (*t->p == ']' && !(first && t->p == begin))
			return 0;
		if (*t->p == '&' && t->end - t->p > 1 && t->p[1] == '&')
			return 0;
		if (*t->p == '[') {
			t->p++;
			if (t->p < t->end && *t->p == ':') {
				t->p++;
				if (is_posix_bracket(t)) {
					r = posix_bracket(t, o);
					continue;
				}
				t->p--;
			}
			r = class_nested(t, o, depth);
		} else {
			r = class_range(t, o);
		}
	}
	return r;
}

/* The operand as something that matches one character. */
static int operand_atom(const struct operand *o, struct base_buf *out)
{
	const char *others = base_buf_text(&o->others);

	if (o->others.len == 0 && o->flat.len == 0)
		return base_buf_puts(out, "(?!)");
	if (o->others.len == 0)
		return base_buf_printf(out, "[%s]", base_buf_text(&o->flat));
	if (o->flat.len == 0)
		return base_buf_printf(out, "(?:%s)", others + 1);
	return base_buf_printf(out, "(?:[%s]%s)", base_buf_text(&o->flat), others);
}

/* After "[". With *ret_flat, out holds the inside of a class; else an atom that matches one character. */
static int parse_class(struct tok_tr *t, struct base_buf *out, bool *ret_flat, unsigned depth)
{
	CLEANUP(base_buf_done) struct base_buf all = BASE_BUF_INIT(1 << 18);
	CLEANUP(operand_done) struct operand o;
	bool negated = false, first = true;
	int r;

	operand_init(&o);
	if (depth > 16)
		return tok_tr_unsupported(t, "this depth of classes", t->p);
	if (t->p < t->end && *t->p == '^') {
		negated = true;
		t->p++;
	}
	for (;; first = false) {
		r = class_operand(t, &o, first, depth);
		if (r < 0)
			return r;
		if (*t->p == ']')
			break;
		t->p += 2; /* && */
		(void)base_buf_puts(&all, "(?=");
		(void)operand_atom(&o, &all);
		(void)base_buf_putc(&all, ')');
		base_buf_reset(&o.flat);
		base_buf_reset(&o.others);
	}
	t->p++;
	*ret_flat = false;
	if (all.len == 0 && o.others.len == 0 && o.flat.len) {
		*ret_flat = !negated;
		return base_buf_printf(out, negated ? "[^%s]" : "%s", base_buf_text(&o.flat));
	}
	(void)operand_atom(&o, &all);
	r = base_buf_error(&all) | base_buf_error(&o.flat) | base_buf_error(&o.others);
	if (r < 0)
		return tok_tr_malformed(t, "a class that is too long");
	if (negated)
		return base_buf_printf(out, "(?:(?!%s)(?s:.))", base_buf_text(&all));
	return base_buf_printf(out, "(?:%s)", base_buf_text(&all));
}

/* ---- everything else ------------------------------------------------------------------------- */

static void begin_atom(struct tok_tr *t)
{
	t->atom = t->out->len;
	t->repeated = false;
}

static void no_atom(struct tok_tr *t)
{
	t->atom = SIZE_MAX;
	t->repeated = false;
}

static int class_atom(struct tok_tr *t)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(1 << 18);
	bool flat;
	int r;

	r = parse_class(t, &text, &flat, 0);
	if (r < 0)
		return r;
	begin_atom(t);
	return base_buf_printf(t->out, flat ? "[%s]" : "%s", base_buf_text(&text));
}

static int escape_atom(struct tok_tr *t)
{
	CLEANUP(tok_tr_set_done) struct tok_tr_set set = { .text = BASE_BUF_INIT(4096) };
	uint32_t cp = 0;
	int r;

	if (++t->p == t->end)
		return tok_tr_malformed(t, "ends with a backslash");
	begin_atom(t);
	r = tok_tr_escape(t, &cp, &set);
	if (r < 0)
		return r;
	if (r == 0) {
		tok_tr_put_cp(t->out, cp);
		return 0;
	}
	if (r == 1)
		return base_buf_printf(t->out, set.negated ? "[^%s]" : "[%s]", base_buf_text(&set.text));
	switch (*t->p++) {
	case 'b':
		return base_buf_puts(t->out,
		                     "(?:(?<=[" WORD_SET "])(?![" WORD_SET "])|(?<![" WORD_SET "])(?=[" WORD_SET "]))");
	case 'B':
		return base_buf_puts(t->out,
		                     "(?:(?<=[" WORD_SET "])(?=[" WORD_SET "])|(?<![" WORD_SET "])(?![" WORD_SET "]))");
	case 'N':
		return base_buf_puts(t->out, "[^\\n]");
	case 'O':
		return base_buf_puts(t->out, "(?s:.)");
	case 'A':
	case 'z':
	case 'Z':
	case 'G':
	case 'R':
	case 'X':
	case 'K':
	case '1':
	case '2':
	case '3':
	case '4':
	case '5':
	case '6':
	case '7':
	case '8':
	case '9':
		(void)base_buf_putc(t->out, '\\');
		return base_buf_putc(t->out, t->p[-1]);
	default:
		return tok_tr_unsupported(t, "this escape", t->p - 2);
	}
}

/* "(?imx-imx)" or "(?imx-imx:": the letters change meaning. */
static int group_options(struct tok_tr *t)
{
	const char *at = t->p - 2;

	for (; t->p < t->end && *t->p != ':' && *t->p != ')'; t->p++) {
		if (*t->p == 'm' || *t->p == 's')
			(void)base_buf_putc(t->out, 's');
		else if (*t->p == 'i' || *t->p == '-')
			(void)base_buf_putc(t->out, *t->p);
		else
			return tok_tr_unsupported(t, "this group", at);
	}
	if (t->p == t->end)
		return tok_tr_malformed(t, "( without )");
	if (*t->p == ')') {
		/* In front of everything it means the same in both; later, Oniguruma opens a group here. */
		if (t->group[--t->depth] != 0)
			return tok_tr_unsupported(t, "an option in the middle", at);
		no_atom(t);
	}
	return base_buf_putc(t->out, *t->p++);
}

static int open_group(struct tok_tr *t)
{
	static const char *const same[] = { "?:", "?=", "?!", "?>", "?<=", "?<!" };
	size_t left, n;

	if (t->depth == TOK_TR_MAX_DEPTH)
		return tok_tr_unsupported(t, "this depth of groups", t->p);
	t->group[t->depth++] = t->out->len;
	no_atom(t);
	(void)base_buf_putc(t->out, '(');
	t->p++;
	left = (size_t)(t->end - t->p);
	if (left == 0 || *t->p != '?')
		return 0;
	for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
		n = strlen(same[i]);
		if (left >= n && memcmp(t->p, same[i], n) == 0) {
			t->p += n;
			return base_buf_append(t->out, same[i], n);
		}
	}
	if (left > 2 && t->p[1] == '<' && isalpha((unsigned char)t->p[2])) {
		for (; t->p < t->end && *t->p != '>'; t->p++) {
			if (!isalnum((unsigned char)*t->p) && !strchr("?<_", *t->p))
				return tok_tr_unsupported(t, "this group", t->p);
			(void)base_buf_putc(t->out, *t->p);
		}
		if (t->p == t->end)
			return tok_tr_malformed(t, "( without )");
		return base_buf_putc(t->out, *t->p++);
	}
	if (left > 1 && t->p[1] == '#') {
		const char *close = memchr(t->p, ')', left);

		if (!close)
			return tok_tr_malformed(t, "( without )");
		t->p = close + 1;
		t->out->len = t->group[--t->depth];
		t->out->data[t->out->len] = '\0';
		return 0;
	}
	(void)base_buf_putc(t->out, '?');
	t->p++;
	return group_options(t);
}

static int close_group(struct tok_tr *t)
{
	if (t->depth == 0)
		return tok_tr_malformed(t, ") without (");
	t->p++;
	t->atom = t->group[--t->depth];
	t->repeated = false;
	return base_buf_putc(t->out, ')');
}

/* Puts the last atom, with its quantifier, into a group of its own. */
static int wrap_atom(struct tok_tr *t)
{
	struct base_buf *o = t->out;
	int r;

	r = base_buf_reserve(o, 4);
	if (r < 0)
		return r;
	memmove(o->data + t->atom + 3, o->data + t->atom, o->len - t->atom);
	memcpy(o->data + t->atom, "(?:", 3);
	o->len += 3;
	o->data[o->len] = '\0';
	return base_buf_putc(o, ')');
}

static int repeat(struct tok_tr *t)
{
	char c = *t->p;
	int r;

	if (t->atom == SIZE_MAX)
		return tok_tr_malformed(t, "a quantifier with nothing to repeat");
	if (t->repeated) {
		r = wrap_atom(t);
		if (r < 0)
			return r;
	}
	(void)base_buf_putc(t->out, c);
	t->p++;
	if (t->p < t->end && (*t->p == '?' || *t->p == '+'))
		(void)base_buf_putc(t->out, *t->p++);
	t->repeated = true;
	return 0;
}

/* Digits up to 100,000 (Oniguruma's limit); -1 when there are none. */
static long interval_number(const char **p, const char *end)
{
	long v = -1;

	for (; *p < end && isdigit((unsigned char)**p) && v <= 100000; (*p)++)
		v = (v < 0 ? 0 : v) * 10 + (**p - '0');
	return v;
}

/* "{n}", "{n,}", "{n,m}", "{,m}"; anything else is a brace. */
static int interval(struct tok_tr *t)
{
	const char *p = t->p + 1;
	long lo = interval_number(&p, t->end), hi = lo;
	bool comma = p < t->end && *p == ',';
	int r;

	if (comma) {
		p++;
		hi = interval_number(&p, t->end);
	}
	if (p == t->end || *p != '}' || (lo < 0 && hi < 0) || t->atom == SIZE_MAX) {
		t->p++;
		begin_atom(t);
		return base_buf_puts(t->out, "\\x{7b}");
	}
	if (lo > 65535 || hi > 65535)
		return tok_tr_unsupported(t, "a repeat of more than 65535", t->p);
	if (t->repeated) {
		r = wrap_atom(t);
		if (r < 0)
			return r;
	}
	if (lo < 0)
		lo = 0;
	(void)base_buf_printf(t->out, "{%ld", lo);
	if (comma && hi >= 0)
		(void)base_buf_printf(t->out, ",%ld", hi);
	else if (comma)
		(void)base_buf_putc(t->out, ',');
	(void)base_buf_putc(t->out, '}');
	t->p = p + 1;
	t->repeated = true;
	/* A lazy interval reads the same, but "{n}?" is optional there; "+" repeats, it is not possessive. */
	if (t->p < t->end && *t->p == '?' && comma)
		return base_buf_putc(t->out, *t->p++);
	return 0;
}

static int translate_one(struct tok_tr *t)
{
	switch (*t->p) {
	case '\\':
		return escape_atom(t);
	case '[':
		t->p++;
		return class_atom(t);
	case '(':
		return open_group(t);
	case ')':
		return close_group(t);
	case '*':
	case '+':
	case '?':
		return repeat(t);
	case '{':
		return interval(t);
	case '|':
		no_atom(t);
		return base_buf_putc(t->out, *t->p++);
	case '^':
	case '$':
	case '.':
		begin_atom(t);
		return base_buf_putc(t->out, *t->p++);
	default:
		begin_atom(t);
		tok_tr_put_cp(t->out, tok_tr_take_cp(t));
		return 0;
	}
}

int tok_regex_translate(const char *where, const char *pattern, size_t n, struct base_buf *out, struct err *err)
{
	struct tok_tr t = {
		.where = where, .pattern = pattern, .p = pattern, .end = pattern + n, .out = out, .err = err
	};
	int r = 0;

	no_atom(&t);
	r = base_buf_reserve(out, n + 1);
	while (r == 0 && t.p < t.end)
		r = translate_one(&t);
	if (r == 0 && t.depth)
		r = tok_tr_malformed(&t, "( without )");
	if (r == 0 && base_buf_error(out))
		r = err_set(err, -EFBIG, "%s: the regex is too long", where);
	return r;
}
