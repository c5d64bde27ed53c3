/* Regular expressions, the part of ECMA-262 and Python that describes a regular language: literals, . \d \w \s and
 * their complements, classes, \p{..}, groups, |, * + ? {n} {n,m} (greedy or not: the language is the same), ^ and $.
 * Refused by name: back-references, look-around, word boundaries, inline flags. */
#include <errno.h>
#include <string.h>

#include "base/chars.h"
#include "grammar/ast.h"

struct parser {
	struct ast_pool *pool;
	const char *text;
	size_t len, pos;
	unsigned depth;
	struct err *err;
};

static int fail(struct parser *p, const char *what)
{
	return err_set(p->err, -EINVAL, "regular expression: %s at position %zu", what, p->pos);
}

static int too_large(struct err *err)
{
	return err_set(err, -E2BIG, "the expression is too large");
}

static bool at_end(const struct parser *p)
{
	return p->pos >= p->len;
}

static bool next_is(const struct parser *p, const char *word)
{
	size_t n = strlen(word);

	return p->len - p->pos >= n && memcmp(p->text + p->pos, word, n) == 0;
}

/* ---- Escapes ---- */

static int hex_digits(const char *text, size_t len, size_t *pos, size_t n, uint32_t *ret)
{
	uint32_t v = 0;

	if (len - *pos < n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int h = base_hex_value(text[*pos + i]);

		if (h < 0)
			return -EINVAL;
		v = v * 16 + (uint32_t)h;
	}
	*pos += n;
	*ret = v;
	return 0;
}

/* \u{1F600}: one to six digits */
static int braced_hex(const char *text, size_t len, size_t *pos, uint32_t *ret)
{
	uint32_t v = 0;
	size_t i = *pos + 1, begin = i;

	for (; i < len && base_hex_value(text[i]) >= 0 && i - begin < 6; i++)
		v = v * 16 + (uint32_t)base_hex_value(text[i]);
	if (i == begin || i >= len || text[i] != '}')
		return -EINVAL;
	*pos = i + 1;
	*ret = v;
	return 0;
}

/* \u0041, \u{1F600}, \ud83d\ude00, \x41, \U0001F600; pos is behind the letter */
static int hex_escape(char letter, const char *text, size_t len, size_t *pos, uint32_t *ret)
{
	size_t n = letter == 'x' ? 2 : letter == 'u' ? 4 : 8, at;
	uint32_t low = 0;

	if (letter == 'u' && *pos < len && text[*pos] == '{')
		return braced_hex(text, len, pos, ret);
	if (hex_digits(text, len, pos, n, ret) < 0)
		return -EINVAL;
	at = *pos + 2;
	if (letter == 'u' && *ret >= 0xd800 && *ret <= 0xdbff && len - *pos >= 6 && text[*pos] == '\\' &&
	    text[*pos + 1] == 'u' && hex_digits(text, len, &at, 4, &low) == 0 && low >= 0xdc00 && low <= 0xdfff) {
		*ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
		*pos = at;
	}
	return 0;
}

static int category_escape(const char *text, size_t len, size_t *pos, bool invert, struct charset *set)
{
	const char *end;
	size_t begin = *pos + 1;

	if (*pos < len && text[*pos] != '{') {
		(*pos)++;
		return gr_charset_add_category(set, text + *pos - 1, 1, invert);
	}
	end = *pos < len ? memchr(text + begin, '}', len - begin) : NULL;
	if (!end)
		return -EINVAL;
	*pos = (size_t)(end - text) + 1;
	return gr_charset_add_category(set, text + begin, (size_t)(end - text) - begin, invert);
}

/* An escape inside or outside of a class, "\" consumed. 1: a set was added, 0: one character is in *ret_cp. */
static int escape(const char *text, size_t len, size_t *pos, struct charset *set, uint32_t *ret_cp,
                  const char **ret_why)
{
	static const char names[] = "fnrtv0", values[] = "\f\n\r\t\v";
	const char *hit;
	char c;
	size_t n;

	*ret_why = "a wrong escape";
	if (*pos >= len)
		return -EINVAL;
	c = text[*pos];
	if (strchr("dDwWsS", c) && c) {
		(*pos)++;
		return gr_charset_add_class(set, c) < 0 ? -ENOMEM : 1;
	}
	if (c == 'p' || c == 'P') {
		(*pos)++;
		*ret_why = "an unknown \\p{..}";
		return category_escape(text, len, pos, c == 'P', set) < 0 ? -EINVAL : 1;
	}
	if (c == 'x' || c == 'u' || c == 'U') {
		(*pos)++;
		if (hex_escape(c, text, len, pos, ret_cp) < 0 || *ret_cp > CS_MAX ||
		    (*ret_cp >= 0xd800 && *ret_cp <= 0xdfff))
			return -EINVAL;
		return 0;
	}
	if (c >= '1' && c <= '9') {
		*ret_why = "a back-reference, which is not supported,";
		return -EINVAL;
	}
	hit = c ? strchr(names, c) : NULL;
	if (hit) {
		(*pos)++;
		*ret_cp = (unsigned char)values[hit - names];
		return 0;
	}
	if (c == 'c' && *pos + 1 < len) {
		*ret_cp = (unsigned char)text[*pos + 1] & 31u;
		*pos += 2;
		return 0;
	}
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
		*ret_why = c == 'b' || c == 'B' ? "a word boundary, which is not supported,"
		           : c == 'k'           ? "a back-reference, which is not supported,"
		                                : "an unknown escape";
		return -EINVAL;
	}
	n = base_utf8_get(text + *pos, len - *pos, ret_cp);
	*pos += n;
	return n ? 0 : -EINVAL;
}

/* ---- Classes ---- */

/* One member: 1: a set, which was added; 0: a character. */
static int class_member(const char *text, size_t len, size_t *pos, struct charset *set, uint32_t *ret_cp,
                        const char **ret_why)
{
	size_t n;

	if (text[*pos] == '\\') {
		(*pos)++;
		if (*pos < len && text[*pos] == 'b') { /* in a class it is the backspace */
			(*pos)++;
			*ret_cp = 8;
			return 0;
		}
		return escape(text, len, pos, set, ret_cp, ret_why);
	}
	*ret_why = "invalid UTF-8";
	n = base_utf8_get(text + *pos, len - *pos, ret_cp);
	*pos += n;
	return n ? 0 : -EINVAL;
}

static int class_body(const char *text, size_t len, size_t *pos, struct charset *set, const char **ret_why)
{
	static const char letters[] = "dDwWsS";
	uint32_t lo = 0, hi = 0;
	unsigned classes = 0;
	bool is_first = true;

	for (;; is_first = false) {
		const char *hit = NULL;
		int r;

		*ret_why = "a class without its \"]\"";
		if (*pos >= len)
			return -EINVAL;
		if (text[*pos] == ']' && !is_first)
			break;
		if (text[*pos] == ']') /* [] matches nothing in ECMA-262 and begins a class with "]" in Python */
			return *ret_why = "an empty class", -EINVAL;
		if (text[*pos] == '[' && *pos + 1 < len && text[*pos + 1] == ':')
			return *ret_why = "a POSIX class, which is not supported,", -EINVAL;
		if (text[*pos] == '\\' && *pos + 1 < len && text[*pos + 1])
			hit = strchr(letters, text[*pos + 1]);
		if (hit)
			classes |= 1u << (hit - letters);
		r = class_member(text, len, pos, set, &lo, ret_why);
		if (r < 0)
			return r;
		hi = lo;
		if (r == 0 && *pos + 1 < len && text[*pos] == '-' && text[*pos + 1] != ']') {
			(*pos)++;
			r = class_member(text, len, pos, set, &hi, ret_why);
			if (r < 0)
				return r;
			if (r == 1 || hi < lo)
				return *ret_why = "a range in the wrong order", -EINVAL;
		}
		if (r == 0 && gr_charset_add(set, lo, hi) < 0)
			return -ENOMEM;
	}
	(*pos)++;
	/* [\s\S]: a class and its complement are everything, also what dialects disagree on */
	if (classes & (classes >> 1) & 0x15)
		return gr_charset_add(set, 0, CS_MAX) < 0 ? -ENOMEM : 0;
	return 0;
}

int gr_ast_parse_class(const char *text, size_t len, size_t *pos, struct charset *ret, struct err *err)
{
	struct charset set = { 0 };
	const char *why = NULL;
	bool invert = *pos < len && text[*pos] == '^';
	int r;

	if (invert)
		(*pos)++;
	r = class_body(text, len, pos, &set, &why);
	gr_charset_finish(&set);
	if (r == 0 && invert)
		r = gr_charset_invert(&set);
	if (r < 0) {
		gr_charset_done(&set);
		return r == -ENOMEM ? err_set(err, r, "out of memory")
		                    : err_set(err, r, "%s at position %zu", why, *pos);
	}
	*ret = set;
	return 0;
}

/* ---- Structure ---- */

static int parse_alternatives(struct parser *p, struct ast **ret);

static int parse_number(struct parser *p, uint32_t *ret)
{
	uint32_t v = 0;
	size_t begin = p->pos;

	for (; !at_end(p) && p->text[p->pos] >= '0' && p->text[p->pos] <= '9'; p->pos++) {
		v = v * 10 + (uint32_t)(p->text[p->pos] - '0');
		if (v > AST_MAX_REPEAT)
			return err_set(p->err, -E2BIG, "regular expression: more than %d repetitions at position %zu",
			               AST_MAX_REPEAT, begin);
	}
	if (p->pos == begin)
		return 0;
	*ret = v;
	return 1;
}

/* {n} {n,} {n,m}; 0: it is none, and the brace is a character */
static int parse_braces(struct parser *p, uint32_t *min, uint32_t *max)
{
	size_t begin = p->pos++;
	int r = parse_number(p, min);

	if (r < 0)
		return r;
	if (r == 0 && !next_is(p, ","))
		goto literal;
	*max = *min;
	if (next_is(p, ",")) {
		int r2;

		p->pos++;
		*max = AST_INFINITE;
		if (r == 0)
			*min = 0;
		r2 = parse_number(p, max);
		if (r2 < 0)
			return r2;
		if (r == 0 && r2 == 0)
			goto literal;
	}
	if (!next_is(p, "}"))
		goto literal;
	p->pos++;
	return *max < *min ? fail(p, "a repeat whose maximum is below its minimum") : 1;
literal:
	p->pos = begin;
	return 0;
}

static int parse_repeats(struct parser *p, struct ast **atom)
{
	for (int n = 0; !at_end(p); n++) {
		uint32_t min = 0, max = AST_INFINITE;
		int r = 1;

		if (next_is(p, "{")) {
			r = parse_braces(p, &min, &max);
		} else if (next_is(p, "+")) {
			min = 1;
			p->pos++;
		} else if (next_is(p, "?")) {
			max = 1;
			p->pos++;
		} else if (next_is(p, "*")) {
			p->pos++;
		} else {
			return 0;
		}
		if (r <= 0)
			return r;
		if (n > 0)
			return fail(p, "a repeat of a repeat");
		if (next_is(p, "?")) /* as few as possible: the same language */
			p->pos++;
		else if (next_is(p, "+"))
			return fail(p, "a possessive repeat, which is not supported,");
		*atom = gr_ast_repeat(p->pool, *atom, min, max);
		if (!*atom)
			return too_large(p->err);
	}
	return 0;
}

static int skip_group_head(struct parser *p)
{
	const char *end;

	if (!next_is(p, "?"))
		return 0;
	if (next_is(p, "?:")) {
		p->pos += 2;
		return 0;
	}
	if (next_is(p, "?=") || next_is(p, "?!") || next_is(p, "?<=") || next_is(p, "?<!"))
		return fail(p, "a look-around assertion, which is not supported,");
	if (next_is(p, "?P=") || next_is(p, "?P>"))
		return fail(p, "a back-reference, which is not supported,");
	if (next_is(p, "?<") || next_is(p, "?P<")) {
		end = memchr(p->text + p->pos, '>', p->len - p->pos);
		if (!end)
			return fail(p, "a group name without its \">\"");
		p->pos = (size_t)(end - p->text) + 1;
		return 0;
	}
	return fail(p, "inline flags or another extension, which is not supported,");
}

static int parse_group(struct parser *p, struct ast **ret)
{
	int r;

	if (++p->depth > AST_MAX_DEPTH)
		return err_set(p->err, -E2BIG, "regular expression: groups nest deeper than %d levels", AST_MAX_DEPTH);
	r = skip_group_head(p);
	if (r == 0)
		r = parse_alternatives(p, ret);
	if (r == 0 && !next_is(p, ")"))
		r = fail(p, "a group without its \")\"");
	p->pos++;
	p->depth--;
	return r;
}

/* Any character but the ends of lines, of either dialect. */
static int set_dot(struct charset *s)
{
	if (gr_charset_add(s, '\n', '\n') < 0 || gr_charset_add(s, '\r', '\r') < 0 ||
	    gr_charset_add(s, 0x2028, 0x2029) < 0)
		return -ENOMEM;
	return gr_charset_invert(s);
}

static int parse_set(struct parser *p, struct ast **ret)
{
	struct ast *a = gr_ast_new(p->pool, AST_SET);
	const char *why = NULL;
	uint32_t cp = 0;
	size_t n;
	int r;

	if (!a)
		return too_large(p->err);
	*ret = a;
	switch (p->text[p->pos]) {
	case '.':
		p->pos++;
		return set_dot(&a->set) < 0 ? err_set(p->err, -ENOMEM, "out of memory") : 0;
	case '[':
		p->pos++;
		r = gr_ast_parse_class(p->text, p->len, &p->pos, &a->set, p->err);
		return r < 0 ? err_prefix(p->err, r, "regular expression: ") : 0;
	case '\\':
		p->pos++;
		r = escape(p->text, p->len, &p->pos, &a->set, &cp, &why);
		if (r < 0)
			return fail(p, why);
		gr_charset_finish(&a->set);
		if (r == 0)
			r = gr_charset_add(&a->set, cp, cp);
		return r < 0 ? err_set(p->err, r, "out of memory") : 0;
	default:
		n = base_utf8_get(p->text + p->pos, p->len - p->pos, &cp);
		if (n == 0)
			return fail(p, "invalid UTF-8");
		p->pos += n;
		return gr_charset_add(&a->set, cp, cp) < 0 ? err_set(p->err, -ENOMEM, "out of memory") : 0;
	}
}

static int parse_atom(struct parser *p, struct ast **ret)
{
	char c = p->text[p->pos];

	if (c == '(') {
		p->pos++;
		return parse_group(p, ret);
	}
	if (c == '^' || c == '$' || next_is(p, "\\A") || next_is(p, "\\Z") || next_is(p, "\\z")) {
		bool is_begin = c == '^' || next_is(p, "\\A");

		p->pos += c == '\\' ? 2 : 1;
		*ret = gr_ast_new(p->pool, is_begin ? AST_BEGIN : AST_END);
		return *ret ? 0 : too_large(p->err);
	}
	if (c == '*' || c == '+' || c == '?')
		return fail(p, "a repeat of nothing");
	return parse_set(p, ret);
}

static int parse_sequence(struct parser *p, struct ast **ret)
{
	struct ast *cat = gr_ast_new(p->pool, AST_CAT), *atom = NULL;
	int r = 0;

	if (!cat)
		return too_large(p->err);
	while (r == 0 && !at_end(p) && p->text[p->pos] != '|' && p->text[p->pos] != ')') {
		r = parse_atom(p, &atom);
		if (r == 0)
			r = parse_repeats(p, &atom);
		if (r == 0)
			gr_ast_append(cat, atom);
	}
	*ret = cat;
	return r;
}

static int parse_alternatives(struct parser *p, struct ast **ret)
{
	struct ast *alt = gr_ast_new(p->pool, AST_ALT), *seq = NULL;
	int r;

	if (!alt)
		return too_large(p->err);
	for (;;) {
		r = parse_sequence(p, &seq);
		if (r < 0)
			return r;
		gr_ast_append(alt, seq);
		if (!next_is(p, "|"))
			break;
		p->pos++;
	}
	*ret = alt;
	return 0;
}

int gr_ast_parse_regex(struct ast_pool *pool, const char *text, size_t len, struct ast **ret, struct err *err)
{
	struct parser p = { .pool = pool, .text = text, .len = len, .err = err };
	int r = parse_alternatives(&p, ret);

	if (r == 0 && !at_end(&p))
		r = fail(&p, "a \")\" without its group");
	return r;
}
