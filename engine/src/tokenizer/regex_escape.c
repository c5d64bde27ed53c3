/* What one escape or property of Oniguruma means: a character, or a set in PCRE2's words. */
#include "tokenizer/regex_translate.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tokenizer/tok_internal.h"

void tok_tr_set_done(struct tok_tr_set *set)
{
	base_buf_done(&set->text);
}

int tok_tr_unsupported(struct tok_tr *t, const char *what, const char *at)
{
	return err_set(t->err, -ENOTSUP, "%s: regex \"%.200s\": %s is not supported (at \"%.30s\")", t->where,
	               t->pattern, what, at);
}

int tok_tr_malformed(struct tok_tr *t, const char *what)
{
	return err_set(t->err, -EINVAL, "%s: regex \"%.200s\": %s", t->where, t->pattern, what);
}

void tok_tr_put_cp(struct base_buf *out, uint32_t cp)
{
	if (cp >= 0x80 || isalnum((int)cp))
		(void)tok_utf8_append(out, cp);
	else
		(void)base_buf_printf(out, "\\x{%x}", cp);
}

uint32_t tok_tr_take_cp(struct tok_tr *t)
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

int tok_tr_property(struct tok_tr *t, const char *name, size_t n, struct tok_tr_set *set)
{
	char key[48];
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		if (name[i] == ' ' || name[i] == '_' || name[i] == '-')
			continue;
		if (!isalnum((unsigned char)name[i]) || k + 1 >= sizeof(key))
			return tok_tr_unsupported(t, "this property", name);
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
static int property(struct tok_tr *t, bool negated, struct tok_tr_set *set)
{
	const char *close, *at = t->p - 2;

	if (t->p == t->end || *t->p != '{') {
		if (t->p < t->end && isalpha((unsigned char)*t->p)) {
			set->negated = negated;
			return tok_tr_property(t, t->p++, 1, set);
		}
		return tok_tr_malformed(t, "\\p without a name");
	}
	t->p++;
	close = memchr(t->p, '}', (size_t)(t->end - t->p));
	if (!close || close - t->p > 64)
		return tok_tr_malformed(t, "\\p{ without }");
	if (t->p < close && *t->p == '^') {
		negated = !negated;
		t->p++;
	}
	if (t->p == close)
		return tok_tr_unsupported(t, "an empty property", at);
	set->negated = negated;
	at = t->p;
	t->p = close + 1;
	return tok_tr_property(t, at, (size_t)(close - at), set);
}

/* ---- escapes that mean a character or a set -------------------------------------------------- */

static int hex_digits(struct tok_tr *t, size_t min, size_t max, uint32_t *ret)
{
	uint32_t v = 0;
	size_t n = 0;

	for (; n < max && t->p < t->end && isxdigit((unsigned char)*t->p); n++, t->p++) {
		int c = tolower((unsigned char)*t->p);

		v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	if (n < min || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
		return tok_tr_malformed(t, "bad hexadecimal escape");
	*ret = v;
	return 0;
}

static int hex_escape(struct tok_tr *t, char kind, uint32_t *ret)
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
			return tok_tr_malformed(t, "\\x{ without }");
		t->p++;
		return 0;
	}
	r = hex_digits(t, 1, 2, ret);
	if (r == 0 && *ret >= 0x80)
		return tok_tr_unsupported(t, "a raw byte", at);
	return r;
}

int tok_tr_escape(struct tok_tr *t, uint32_t *ret_cp, struct tok_tr_set *set)
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
	*ret_cp = tok_tr_take_cp(t);
	return 0;
}
