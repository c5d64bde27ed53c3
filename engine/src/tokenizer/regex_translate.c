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
#include "tokenizer/tok_internal.h"

enum { MAX_DEPTH = 100 };

/* Contents of classes, without brackets. Each ends so that a following '-' cannot make a range of it. */
#define SPACE_SET \
	"\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{202f}\\x{205f}\\x{3000}\\x{2000}-\\x{200a}\\x{2028}-\\x{2029}"
#define WORD_SET                                                                                         \
	"\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}" \
	"\\x{1f170}-\\x{1f189}"
#define ALPHA_SET "\\p{L}\\p{M}\\p{Nl}\\x{24b6}-\\x{24e9}"
#define HEX_SET "0-9A-Fa-f"

struct tr {
	const char *where, *pattern, *p, *end;
	struct base_buf *out;
	struct err *err;
	size_t group[MAX_DEPTH]; /* where each open group began in out */
	size_t depth;
	size_t atom;   /* where the last repeatable thing began; SIZE_MAX: none */
	bool repeated; /* and it already has a quantifier */
};

/* A set of characters: the inside of a class, taken as it is or as its complement. */
struct set {
	struct base_buf text;
	bool negated;
};

static void set_done(struct set *set)
{
	base_buf_done(&set->text);
}

static int unsupported(struct tr *t, const char *what, const char *at)
{
	return err_set(t->err, -ENOTSUP, "%s: regex \"%.200s\": %s is not supported (at \"%.30s\")", t->where,
	               t->pattern, what, at);
}

static int malformed(struct tr *t, const char *what)
{
	return err_set(t->err, -EINVAL, "%s: regex \"%.200s\": %s", t->where, t->pattern, what);
}

static void put_cp(struct base_buf *out, uint32_t cp)
{
	if (cp >= 0x80 || isalnum((int)cp))
		(void)tok_utf8_append(out, cp);
	else
		(void)base_buf_printf(out, "\\x{%x}", cp);
}

static uint32_t take_cp(struct tr *t)
{
	size_t len;
	uint32_t cp = tok_utf8_get(t->p, (size_t)(t->end - t->p), &len);

	t->p += len;
	return cp;
}

/* ---- \p{...} --------------------------------------------------------------------------------- */

static const struct {
	const char *name, *set;
} properties[] = {
	{ "any", "\\x{0}-\\x{10ffff}" },
	{ "ascii", "\\x{0}-\\x{7f}" },
	{ "alpha", ALPHA_SET },
	{ "alphabetic", ALPHA_SET },
	{ "alnum", ALPHA_SET "\\p{Nd}" },
	{ "blank", "\\p{Zs}\\t" },
	{ "cntrl", "\\p{Cc}" },
	{ "digit", "\\p{Nd}" },
	{ "lower", "\\p{Ll}" },
	{ "upper", "\\p{Lu}" },
	{ "punct", "\\p{P}" },
	{ "space", SPACE_SET },
	{ "whitespace", SPACE_SET },
	{ "word", WORD_SET },
	{ "xdigit", HEX_SET },
	{ "letter", "\\p{L}" },
	{ "uppercaseletter", "\\p{Lu}" },
	{ "lowercaseletter", "\\p{Ll}" },
	{ "titlecaseletter", "\\p{Lt}" },
	{ "modifierletter", "\\p{Lm}" },
	{ "otherletter", "\\p{Lo}" },
	{ "lc", "\\p{Lu}\\p{Ll}\\p{Lt}" },
	{ "casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}" },
	{ "mark", "\\p{M}" },
	{ "nonspacingmark", "\\p{Mn}" },
	{ "spacingmark", "\\p{Mc}" },
	{ "enclosingmark", "\\p{Me}" },
	{ "number", "\\p{N}" },
	{ "decimalnumber", "\\p{Nd}" },
	{ "letternumber", "\\p{Nl}" },
	{ "othernumber", "\\p{No}" },
	{ "punctuation", "\\p{P}" },
	{ "connectorpunctuation", "\\p{Pc}" },
	{ "dashpunctuation", "\\p{Pd}" },
	{ "openpunctuation", "\\p{Ps}" },
	{ "closepunctuation", "\\p{Pe}" },
	{ "initialpunctuation", "\\p{Pi}" },
	{ "finalpunctuation", "\\p{Pf}" },
	{ "otherpunctuation", "\\p{Po}" },
	{ "symbol", "\\p{S}" },
	{ "mathsymbol", "\\p{Sm}" },
	{ "currencysymbol", "\\p{Sc}" },
	{ "modifiersymbol", "\\p{Sk}" },
	{ "othersymbol", "\\p{So}" },
	{ "separator", "\\p{Z}" },
	{ "spaceseparator", "\\p{Zs}" },
	{ "lineseparator", "\\p{Zl}" },
	{ "paragraphseparator", "\\p{Zp}" },
	{ "other", "\\p{C}" },
	{ "control", "\\p{Cc}" },
	{ "format", "\\p{Cf}" },
	{ "surrogate", "\\p{Cs}" },
	{ "privateuse", "\\p{Co}" },
	{ "unassigned", "\\p{Cn}" },
};

static const char *const short_categories[] = { "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me",
	                                        "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi",
	                                        "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl",
	                                        "Zp", "C",  "Cc", "Cf", "Cs", "Co", "Cn" };

static int property_by_name(struct tr *t, const char *name, size_t n, struct set *set)
{
	char key[48];
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		if (name[i] == ' ' || name[i] == '_' || name[i] == '-')
			continue;
		if (!isalnum((unsigned char)name[i]) || k + 1 >= sizeof(key))
			return unsupported(t, "this property", name);
		key[k++] = (char)tolower((unsigned char)name[i]);
	}
	key[k] = '\0';
	for (size_t i = 0; i < sizeof(short_categories) / sizeof(*short_categories); i++) {
		if (strcasecmp(key, short_categories[i]) == 0)
			return base_buf_printf(&set->text, "\\p{%s}", short_categories[i]);
	}
	for (size_t i = 0; i < sizeof(properties) / sizeof(*properties); i++) {
		if (strcmp(key, properties[i].name) == 0)
			return base_buf_puts(&set->text, properties[i].set);
	}
	/* A script; PCRE2 says so when it is none. */
	return base_buf_printf(&set->text, "\\p{sc:%.*s}", (int)n, name);
}

/* After "\p" or "\P". */
static int property(struct tr *t, bool negated, struct set *set)
{
	const char *close, *at = t->p - 2;

	if (t->p == t->end || *t->p != '{') {
		if (t->p < t->end && isalpha((unsigned char)*t->p)) {
			set->negated = negated;
			return property_by_name(t, t->p++, 1, set);
		}
		return malformed(t, "\\p without a name");
	}
	t->p++;
	close = memchr(t->p, '}', (size_t)(t->end - t->p));
	if (!close || close - t->p > 64)
		return malformed(t, "\\p{ without }");
	if (t->p < close && *t->p == '^') {
		negated = !negated;
		t->p++;
	}
	if (t->p == close)
		return unsupported(t, "an empty property", at);
	set->negated = negated;
	at = t->p;
	t->p = close + 1;
	return property_by_name(t, at, (size_t)(close - at), set);
}

/* ---- escapes that mean a character or a set -------------------------------------------------- */

static int hex_digits(struct tr *t, size_t min, size_t max, uint32_t *ret)
{
	uint32_t v = 0;
	size_t n = 0;

	for (; n < max && t->p < t->end && isxdigit((unsigned char)*t->p); n++, t->p++) {
		int c = tolower((unsigned char)*t->p);

		v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	if (n < min || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return malformed(t, "bad hexadecimal escape");
	*ret = v;
	return 0;
}

static int hex_escape(struct tr *t, char kind, uint32_t *ret)
{
	const char *at = t->p - 2;
	int r;

	if (kind == 'u')
		return hex_digits(t, 4, 4, ret);
	if (t->p < t->end && *t->p == '{') {
		t->p++;
		r = hex_digits(t, 1, 8, ret);
		if (r < 0)
			return r;
		if (t->p == t->end || *t->p != '}')
			return malformed(t, "\\x{ without }");
		t->p++;
		return 0;
	}
	r = hex_digits(t, 1, 2, ret);
	if (r == 0 && *ret >= 0x80)
		return unsupported(t, "a raw byte", at);
	return r;
}

/* The escape after a backslash as a character (returns 0, *ret_cp) or a set (1). Other kinds: 2, not taken. */
static int simple_escape(struct tr *t, uint32_t *ret_cp, struct set *set)
{
	static const char controls[] = "t\tn\nr\rf\fv\va\ae\x1b";
	char c = *t->p;
	int r;

	switch (c) {
	case 's':
	case 'S':
	case 'w':
	case 'W':
	case 'd':
	case 'D':
	case 'h':
	case 'H':
		t->p++;
		set->negated = isupper((unsigned char)c) != 0;
		c = (char)tolower((unsigned char)c);
		(void)base_buf_puts(&set->text, c == 's'   ? SPACE_SET
		                                : c == 'w' ? WORD_SET
		                                : c == 'd' ? "\\p{Nd}"
		                                           : HEX_SET);
		return 1;
	case 'p':
	case 'P':
		t->p++;
		r = property(t, c == 'P', set);
		return r < 0 ? r : 1;
	case 'x':
	case 'u':
		t->p++;
		return hex_escape(t, c, ret_cp);
	default:
		break;
	}
	for (const char *k = controls; *k; k += 2) {
		if (*k == c) {
			t->p++;
			*ret_cp = (unsigned char)k[1];
			return 0;
		}
	}
	if (c == '0') {
		t->p++;
		*ret_cp = 0;
		for (int i = 0; i < 2 && t->p < t->end && *t->p >= '0' && *t->p <= '7'; i++)
			*ret_cp = *ret_cp * 8 + (uint32_t)(*t->p++ - '0');
		return 0;
	}
	if (isalnum((unsigned char)c))
		return 2;
	*ret_cp = take_cp(t);
	return 0;
}

/* ---- classes --------------------------------------------------------------------------------- */

/* One operand of &&: characters in one class, plus alternatives that do not fit into a class. */
struct operand {
	struct base_buf flat, others; /* others: "|alt|alt" */
};

static int parse_class(struct tr *t, struct base_buf *out, bool *ret_flat, unsigned depth);

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
static void operand_add_set(struct operand *o, const struct set *set)
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

static int posix_bracket(struct tr *t, struct operand *o)
{
	CLEANUP(set_done) struct set set = { .text = BASE_BUF_INIT(4096) };
	const char *close = memmem(t->p, (size_t)(t->end - t->p), ":]", 2);
	const char *name = t->p;
	int r;

	if (name < close && *name == '^') {
		set.negated = true;
		name++;
	}
	r = property_by_name(t, name, (size_t)(close - name), &set);
	t->p = close + 2;
	if (r == 0)
		operand_add_set(o, &set);
	return r;
}

static bool is_posix_bracket(const struct tr *t)
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
static int class_item(struct tr *t, struct operand *o, uint32_t *ret_cp)
{
	CLEANUP(set_done) struct set set = { .text = BASE_BUF_INIT(4096) };
	int r;

	if (*t->p != '\\') {
		*ret_cp = take_cp(t);
		return 0;
	}
	t->p++;
	if (t->p == t->end)
		return malformed(t, "ends with a backslash");
	if (*t->p == 'b') {
		t->p++;
		*ret_cp = '\b';
		return 0;
	}
	r = simple_escape(t, ret_cp, &set);
	if (r == 1)
		operand_add_set(o, &set);
	if (r == 2)
		return unsupported(t, "this escape in a class", t->p - 1);
	return r;
}

/* A character, a range, or a set. */
static int class_range(struct tr *t, struct operand *o)
{
	uint32_t from, to;
	const char *back;
	int r;

	r = class_item(t, o, &from);
	if (r != 0)
		return r < 0 ? r : 0;
	put_cp(&o->flat, from);
	if (t->end - t->p < 2 || t->p[0] != '-' || t->p[1] == ']' || t->p[1] == '[')
		return 0;
	if (t->end - t->p > 2 && t->p[1] == '&' && t->p[2] == '&')
		return 0;
	back = t->p++;
	r = class_item(t, o, &to);
	if (r < 0)
		return r;
	if (r == 1) { /* a-\d: the dash is a dash; the set was added already */
		put_cp(&o->flat, '-');
		return 0;
	}
	if (to < from)
		return unsupported(t, "an empty range", back);
	(void)base_buf_putc(&o->flat, '-');
	put_cp(&o->flat, to);
	return 0;
}

static int class_nested(struct tr *t, struct operand *o, unsigned depth)
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
static int class_operand(struct tr *t, struct operand *o, bool first, unsigned depth)
{
	const char *begin = t->p;
	int r = 0;

	while (r == 0) {
		if (t->p == t->end)
			return malformed(t, "[ without ]");
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
static int parse_class(struct tr *t, struct base_buf *out, bool *ret_flat, unsigned depth)
{
	CLEANUP(base_buf_done) struct base_buf all = BASE_BUF_INIT(1 << 18);
	CLEANUP(operand_done) struct operand o;
	bool negated = false, first = true;
	int r;

	operand_init(&o);
	if (depth > 16)
		return unsupported(t, "this depth of classes", t->p);
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
		return malformed(t, "a class that is too long");
	if (negated)
		return base_buf_printf(out, "(?:(?!%s)(?s:.))", base_buf_text(&all));
	return base_buf_printf(out, "(?:%s)", base_buf_text(&all));
}

/* ---- everything else ------------------------------------------------------------------------- */

static void begin_atom(struct tr *t)
{
	t->atom = t->out->len;
	t->repeated = false;
}

static void no_atom(struct tr *t)
{
	t->atom = SIZE_MAX;
	t->repeated = false;
}

static int class_atom(struct tr *t)
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

static int escape_atom(struct tr *t)
{
	CLEANUP(set_done) struct set set = { .text = BASE_BUF_INIT(4096) };
	uint32_t cp = 0;
	int r;

	if (++t->p == t->end)
		return malformed(t, "ends with a backslash");
	begin_atom(t);
	r = simple_escape(t, &cp, &set);
	if (r < 0)
		return r;
	if (r == 0) {
		put_cp(t->out, cp);
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
		return unsupported(t, "this escape", t->p - 2);
	}
}

/* "(?imx-imx)" or "(?imx-imx:": the letters change meaning. */
static int group_options(struct tr *t)
{
	const char *at = t->p - 2;

	for (; t->p < t->end && *t->p != ':' && *t->p != ')'; t->p++) {
		if (*t->p == 'm' || *t->p == 's')
			(void)base_buf_putc(t->out, 's');
		else if (*t->p == 'i' || *t->p == '-')
			(void)base_buf_putc(t->out, *t->p);
		else
			return unsupported(t, "this group", at);
	}
	if (t->p == t->end)
		return malformed(t, "( without )");
	if (*t->p == ')') {
		/* In front of everything it means the same in both; later, Oniguruma opens a group here. */
		if (t->group[--t->depth] != 0)
			return unsupported(t, "an option in the middle", at);
		no_atom(t);
	}
	return base_buf_putc(t->out, *t->p++);
}

static int open_group(struct tr *t)
{
	static const char *const same[] = { "?:", "?=", "?!", "?>", "?<=", "?<!" };
	size_t left, n;

	if (t->depth == MAX_DEPTH)
		return unsupported(t, "this depth of groups", t->p);
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
				return unsupported(t, "this group", t->p);
			(void)base_buf_putc(t->out, *t->p);
		}
		if (t->p == t->end)
			return malformed(t, "( without )");
		return base_buf_putc(t->out, *t->p++);
	}
	if (left > 1 && t->p[1] == '#') {
		const char *close = memchr(t->p, ')', left);

		if (!close)
			return malformed(t, "( without )");
		t->p = close + 1;
		t->out->len = t->group[--t->depth];
		t->out->data[t->out->len] = '\0';
		return 0;
	}
	(void)base_buf_putc(t->out, '?');
	t->p++;
	return group_options(t);
}

static int close_group(struct tr *t)
{
	if (t->depth == 0)
		return malformed(t, ") without (");
	t->p++;
	t->atom = t->group[--t->depth];
	t->repeated = false;
	return base_buf_putc(t->out, ')');
}

/* Puts the last atom, with its quantifier, into a group of its own. */
static int wrap_atom(struct tr *t)
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

static int repeat(struct tr *t)
{
	char c = *t->p;
	int r;

	if (t->atom == SIZE_MAX)
		return malformed(t, "a quantifier with nothing to repeat");
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
static int interval(struct tr *t)
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
		return unsupported(t, "a repeat of more than 65535", t->p);
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

static int translate_one(struct tr *t)
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
		put_cp(t->out, take_cp(t));
		return 0;
	}
}

int tok_regex_translate(const char *where, const char *pattern, size_t n, struct base_buf *out, struct err *err)
{
	struct tr t = { .where = where, .pattern = pattern, .p = pattern, .end = pattern + n, .out = out, .err = err };
	int r = 0;

	no_atom(&t);
	r = base_buf_reserve(out, n + 1);
	while (r == 0 && t.p < t.end)
		r = translate_one(&t);
	if (r == 0 && t.depth)
		r = malformed(&t, "( without )");
	if (r == 0 && base_buf_error(out))
		r = err_set(err, -EFBIG, "%s: the regex is too long", where);
	return r;
}
