/* From template source to tokens.
 *
 * Outside the delimiters everything is text; whitespace control is done here, so that the parser never
 * sees it. As transformers sets Jinja up: trim_blocks (the newline after a block or comment goes),
 * lstrip_blocks (blanks between the start of a line and a block or comment go), one newline at the end
 * of the source goes. `-` strips all whitespace on its side, `+` keeps what the two settings would take.
 * All line ends become \n first. Inside delimiters, an end delimiter counts only when brackets balance. */
#include "tpl_ast.h"
#include "tpl_interp.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BRACKETS = 200 };

struct lexer {
	struct eng_template *tmpl;
	struct err *err;
	const char *s;
	size_t n, pos;
	uint32_t line;
	bool line_starting; /* the last token ended with a newline (or there is none yet) */
	char brackets[MAX_BRACKETS];
	size_t n_brackets;
};

static int lex_error(struct lexer *lx, const char *what)
{
	return err_set(lx->err, -EBADMSG, "%s:%u: %s", lx->tmpl->where, lx->line, what);
}

static int push(struct lexer *lx, enum tpl_token_kind kind, enum tpl_op op, struct tpl_value value)
{
	struct eng_template *t = lx->tmpl;
	struct tpl_token *p;
	size_t cap;

	if (t->n_tokens == t->cap_tokens) {
		cap = t->cap_tokens ? t->cap_tokens * 2 : 256;
		p = realloc(t->tokens, cap * sizeof(*p));
		if (!p)
			return err_set(lx->err, -ENOMEM, "%s: out of memory", t->where);
		t->tokens = p;
		t->cap_tokens = cap;
	}
	t->tokens[t->n_tokens++] =
	        (struct tpl_token){ .kind = (uint8_t)kind, .op = (uint8_t)op, .line = lx->line, .value = value };
	return 0;
}

/* Moves to `to`, counting lines. */
static void advance(struct lexer *lx, size_t to)
{
	for (; lx->pos < to; lx->pos++)
		lx->line += lx->s[lx->pos] == '\n';
}

static size_t skip_space(const struct lexer *lx, size_t at)
{
	uint32_t cp;
	size_t n;

	while (at < lx->n) {
		n = eng_tpl_utf8_next(lx->s + at, lx->n - at, &cp);
		if (!eng_tpl_is_space(cp))
			break;
		at += n;
	}
	return at;
}

static bool starts(const struct lexer *lx, size_t at, const char *text)
{
	size_t n = strlen(text);

	return at <= lx->n && lx->n - at >= n && memcmp(lx->s + at, text, n) == 0;
}

/* The text before a delimiter, after whitespace control. `sign` is the delimiter's. */
static size_t trimmed_end(const struct lexer *lx, size_t begin, size_t end, char sign, bool lstrip)
{
	size_t at = end, n;
	uint32_t cp;

	if (sign == '-') {
		while (at > begin) {
			n = eng_tpl_utf8_prev(lx->s + begin, at - begin);
			(void)eng_tpl_utf8_next(lx->s + at - n, n, &cp);
			if (!eng_tpl_is_space(cp))
				break;
			at -= n;
		}
		return at;
	}
	if (sign == '+' || !lstrip)
		return end;
	while (at > begin && lx->s[at - 1] != '\n')
		at--;
	if (at == begin && !lx->line_starting)
		return end;
	return skip_space(lx, at) >= end ? at : end;
}

/* Pushes text [begin, end) if any is left; the position moves to `to`. */
static int push_text(struct lexer *lx, size_t begin, size_t end, size_t to)
{
	int r = 0;

	if (end > begin)
		r = push(lx, TPL_TOK_TEXT, TPL_OP_NONE, tpl_text(lx->s + begin, end - begin));
	advance(lx, to);
	return r;
}

/* Position after a block's or comment's end delimiter at `at` with its whitespace control, 0 if none. */
static size_t end_delimiter(const struct lexer *lx, size_t at, const char *close)
{
	if (starts(lx, at, "-") && starts(lx, at + 1, close))
		return skip_space(lx, at + 1 + strlen(close));
	if (close[0] != '}' && starts(lx, at, "+") && starts(lx, at + 1, close))
		return at + 1 + strlen(close);
	if (!starts(lx, at, close))
		return 0;
	at += strlen(close);
	if (close[0] != '}' && starts(lx, at, "\n")) /* trim_blocks; variables are left alone */
		at++;
	return at;
}

static int lex_comment(struct lexer *lx, size_t at)
{
	size_t end = 0;

	for (; at < lx->n; at++) {
		end = end_delimiter(lx, at, "#}");
		if (end)
			break;
	}
	if (!end)
		return lex_error(lx, "Missing end of comment tag");
	advance(lx, end);
	lx->line_starting = lx->s[end - 1] == '\n';
	return 0;
}

/* At "{%", is it {% word %}? Then the position after it, else 0. The end is `close_trims` or plain. */
static size_t match_raw_tag(const struct lexer *lx, size_t at, const char *word, bool close_trims, char *ret_sign)
{
	*ret_sign = 0;
	at += 2;
	if (at < lx->n && (lx->s[at] == '-' || lx->s[at] == '+'))
		*ret_sign = lx->s[at++];
	at = skip_space(lx, at);
	if (!starts(lx, at, word))
		return 0;
	at = skip_space(lx, at + strlen(word));
	if (close_trims)
		return end_delimiter(lx, at, "%}");
	if (starts(lx, at, "-%}"))
		return skip_space(lx, at + 3);
	return starts(lx, at, "%}") ? at + 2 : 0;
}

static int lex_raw(struct lexer *lx, size_t body)
{
	size_t end = 0, at;
	char sign = 0;
	int r;

	lx->line_starting = lx->s[body - 1] == '\n';
	for (at = body; at < lx->n; at++) {
		if (!starts(lx, at, "{%"))
			continue;
		end = match_raw_tag(lx, at, "endraw", true, &sign);
		if (end)
			break;
	}
	if (!end)
		return lex_error(lx, "Missing end of raw directive");
	r = push_text(lx, body, trimmed_end(lx, body, at, sign, true), end);
	lx->line_starting = lx->s[end - 1] == '\n';
	return r;
}

/* ---- Tokens inside delimiters ----------------------------------------------------------------------- */

static const struct {
	char text[3];
	uint8_t op;
} operators[] = {
	{ "//", TPL_OP_FLOORDIV }, { "**", TPL_OP_POW },   { "==", TPL_OP_EQ },      { "!=", TPL_OP_NE },
	{ ">=", TPL_OP_GE },       { "<=", TPL_OP_LE },    { "+", TPL_OP_ADD },      { "-", TPL_OP_SUB },
	{ "/", TPL_OP_DIV },       { "*", TPL_OP_MUL },    { "%", TPL_OP_MOD },      { "~", TPL_OP_TILDE },
	{ ">", TPL_OP_GT },        { "<", TPL_OP_LT },     { "=", TPL_OP_ASSIGN },   { ".", TPL_OP_DOT },
	{ ":", TPL_OP_COLON },     { "|", TPL_OP_PIPE },   { ",", TPL_OP_COMMA },    { ";", TPL_OP_SEMICOLON },
	{ "(", TPL_OP_LPAREN },    { ")", TPL_OP_RPAREN }, { "[", TPL_OP_LBRACKET }, { "]", TPL_OP_RBRACKET },
	{ "{", TPL_OP_LBRACE },    { "}", TPL_OP_RBRACE },
};

static int lex_bracket(struct lexer *lx, char c)
{
	char open = c == ')' ? '(' : c == ']' ? '[' : '{';
	char text[64];

	if (c == '(' || c == '[' || c == '{') {
		if (lx->n_brackets == MAX_BRACKETS)
			return lex_error(lx, "brackets nest too deep");
		lx->brackets[lx->n_brackets++] = c;
		return 0;
	}
	if (c != ')' && c != ']' && c != '}')
		return 0;
	if (lx->n_brackets == 0 || lx->brackets[lx->n_brackets - 1] != open) {
		(void)snprintf(text, sizeof(text), "unexpected '%c'", c);
		return lex_error(lx, text);
	}
	lx->n_brackets--;
	return 0;
}

static int lex_operator(struct lexer *lx)
{
	char text[64];
	int r;

	for (size_t i = 0; i < sizeof(operators) / sizeof(*operators); i++) {
		if (!starts(lx, lx->pos, operators[i].text))
			continue;
		r = lex_bracket(lx, operators[i].text[0]);
		if (r == 0)
			r = push(lx, TPL_TOK_OP, operators[i].op, tpl_none());
		lx->pos += strlen(operators[i].text);
		return r;
	}
	(void)snprintf(text, sizeof(text), "unexpected char '%c'",
	               isprint((unsigned char)lx->s[lx->pos]) ? lx->s[lx->pos] : '?');
	return lex_error(lx, text);
}

/* Digits with single underscores between them; returns the position after. */
static size_t skip_digits(const struct lexer *lx, size_t at, int base)
{
	size_t i = at;

	while (i < lx->n) {
		if (lx->s[i] == '_' && i > at && i + 1 < lx->n && isxdigit((unsigned char)lx->s[i + 1]))
			i++;
		if (base == 16 ? !isxdigit((unsigned char)lx->s[i]) : !(lx->s[i] >= '0' && lx->s[i] < '0' + base))
			break;
		i++;
	}
	return i;
}

/* Copies digits without underscores. */
static int plain_digits(struct lexer *lx, size_t begin, size_t end, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = begin; i < end; i++) {
		if (lx->s[i] == '_')
			continue;
		if (n + 1 >= size)
			return lex_error(lx, "number too long");
		out[n++] = lx->s[i];
	}
	out[n] = '\0';
	return 0;
}

static int lex_integer(struct lexer *lx, size_t begin, size_t end, int base)
{
	char text[128];
	long long v;
	int r;

	r = plain_digits(lx, begin, end, text, sizeof(text));
	if (r < 0)
		return r;
	errno = 0;
	v = strtoll(text, NULL, base);
	if (errno == ERANGE)
		return lex_error(lx, "integer does not fit 64 bits");
	lx->pos = end;
	return push(lx, TPL_TOK_INT, TPL_OP_NONE, tpl_int(v));
}

static int lex_number(struct lexer *lx)
{
	size_t begin = lx->pos, end, exp;
	bool is_float = false;
	char text[512];
	int base = 0, r;

	if (lx->s[begin] == '0' && begin + 1 < lx->n) {
		switch (lx->s[begin + 1] | 0x20) {
		case 'x':
			base = 16;
			break;
		case 'o':
			base = 8;
			break;
		case 'b':
			base = 2;
			break;
		}
		end = base ? skip_digits(lx, begin + 2, base) : 0;
		if (base && end > begin + 2)
			return lex_integer(lx, begin + 2, end, base);
	}
	end = skip_digits(lx, begin, 10);
	/* "1.": an integer and an attribute access; "x.1.2" has items 1 and 2 */
	if (begin > 0 && lx->s[begin - 1] == '.')
		return lex_integer(lx, begin, end, 10);
	if (end + 1 < lx->n && lx->s[end] == '.' && isdigit((unsigned char)lx->s[end + 1])) {
		end = skip_digits(lx, end + 1, 10);
		is_float = true;
	}
	if (end < lx->n && (lx->s[end] | 0x20) == 'e') {
		exp = end + 1;
		if (exp < lx->n && (lx->s[exp] == '+' || lx->s[exp] == '-'))
			exp++;
		if (exp < lx->n && isdigit((unsigned char)lx->s[exp])) {
			end = skip_digits(lx, exp, 10);
			is_float = true;
		}
	}
	if (!is_float)
		return lex_integer(lx, begin, end, 10);
	r = plain_digits(lx, begin, end, text, sizeof(text));
	if (r < 0)
		return r;
	lx->pos = end;
	return push(lx, TPL_TOK_FLOAT, TPL_OP_NONE, tpl_float(strtod(text, NULL)));
}

static int hex_value(const char *s, size_t n, uint32_t *ret)
{
	uint32_t v = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isxdigit((unsigned char)s[i]))
			return -EINVAL;
		v = v << 4 | (uint32_t)(isdigit((unsigned char)s[i]) ? s[i] - '0' : (s[i] | 0x20) - 'a' + 10);
	}
	*ret = v;
	return 0;
}

/* \xHH, \uHHHH, \UHHHHHHHH at s[0] == the letter; returns bytes taken or an error. Two escaped surrogates
 * that make a pair are joined, as JSON has them. */
static int unescape_hex(struct lexer *lx, const char *s, size_t len, struct base_buf *out)
{
	size_t digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : 8;
	uint32_t cp, low;

	if (len < 1 + digits || hex_value(s + 1, digits, &cp) < 0)
		return lex_error(lx, "truncated \\ escape in string");
	if (cp > 0x10ffff)
		return lex_error(lx, "illegal Unicode character in string");
	if (s[0] == 'u' && cp >= 0xd800 && cp < 0xdc00 && len >= 11 && s[5] == '\\' && s[6] == 'u' &&
	    hex_value(s + 7, 4, &low) == 0 && low >= 0xdc00 && low < 0xe000) {
		eng_tpl_utf8_put(out, 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00));
		return 11;
	}
	eng_tpl_utf8_put(out, cp);
	return (int)(1 + digits);
}

/* One escape, s[0] being the character after the backslash; returns bytes taken or an error. */
static int unescape_one(struct lexer *lx, const char *s, size_t len, struct base_buf *out)
{
	static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
	const char *p = memchr(from, s[0], sizeof(from) - 1);
	uint32_t cp = 0;
	int n = 0;

	if (p) {
		(void)base_buf_putc(out, to[p - from]);
		return 1;
	}
	if (s[0] == '\n')
		return 1;
	if (s[0] == 'x' || s[0] == 'u' || s[0] == 'U')
		return unescape_hex(lx, s, len, out);
	if (s[0] == 'N')
		return err_set(lx->err, -ENOTSUP, "%s:%u: named characters (\\N{...}) in strings are not supported",
		               lx->tmpl->where, lx->line);
	while (n < 3 && (size_t)n < len && s[n] >= '0' && s[n] <= '7')
		cp = cp << 3 | (uint32_t)(s[n++] - '0');
	if (n) {
		eng_tpl_utf8_put(out, cp);
		return n;
	}
	(void)base_buf_putc(out, '\\'); /* unknown escapes stay, with their backslash */
	return 0;
}

static int lex_string(struct lexer *lx)
{
	char quote = lx->s[lx->pos];
	size_t begin = lx->pos + 1, end = begin, size;
	struct base_buf buf = BASE_BUF_INIT(TPL_MAX_SOURCE);
	char *copy;
	int r;

	while (end < lx->n && lx->s[end] != quote)
		end += lx->s[end] == '\\' ? 2 : 1;
	if (end >= lx->n)
		return lex_error(lx, "unexpected end of string");
	for (size_t i = begin; i < end;) {
		if (lx->s[i] != '\\') {
			(void)base_buf_putc(&buf, lx->s[i++]);
			continue;
		}
		r = unescape_one(lx, lx->s + i + 1, end - i - 1, &buf);
		if (r < 0) {
			base_buf_done(&buf);
			return r;
		}
		i += 1 + (size_t)r;
	}
	size = buf.len;
	copy = base_buf_error(&buf) ? NULL : eng_tpl_arena_alloc(&lx->tmpl->arena, size);
	if (copy && size)
		memcpy(copy, buf.data, size);
	base_buf_done(&buf);
	if (!copy)
		return lex_error(lx, "out of memory");
	r = push(lx, TPL_TOK_STR, TPL_OP_NONE, tpl_text(copy, size));
	advance(lx, end + 1);
	return r;
}

static bool is_name_char(char c, bool first)
{
	return c == '_' || isalpha((unsigned char)c) || (unsigned char)c >= 0x80 ||
	       (!first && isdigit((unsigned char)c));
}

static int lex_inside_one(struct lexer *lx)
{
	size_t end;
	int r;

	if (isdigit((unsigned char)lx->s[lx->pos]))
		return lex_number(lx);
	if (lx->s[lx->pos] == '\'' || lx->s[lx->pos] == '"')
		return lex_string(lx);
	if (!is_name_char(lx->s[lx->pos], true))
		return lex_operator(lx);
	for (end = lx->pos; end < lx->n && is_name_char(lx->s[end], false);)
		end++;
	r = push(lx, TPL_TOK_NAME, TPL_OP_NONE, tpl_text(lx->s + lx->pos, end - lx->pos));
	lx->pos = end;
	return r;
}

/* Tokens up to and with the end delimiter. */
static int lex_inside(struct lexer *lx, const char *close, enum tpl_token_kind end_kind)
{
	size_t end;
	int r;

	lx->n_brackets = 0;
	for (;;) {
		advance(lx, skip_space(lx, lx->pos));
		if (lx->pos >= lx->n)
			return lex_error(lx, close[0] == '}' ? "unexpected end of template, expected '}}'"
			                                     : "unexpected end of template, expected '%}'");
		end = lx->n_brackets ? 0 : end_delimiter(lx, lx->pos, close);
		if (end) {
			r = push(lx, end_kind, TPL_OP_NONE, tpl_none());
			advance(lx, end);
			lx->line_starting = lx->s[end - 1] == '\n';
			return r;
		}
		r = lex_inside_one(lx);
		if (r < 0)
			return r;
	}
}

/* The text up to the next delimiter, and what that delimiter opens. */
static int lex_outside(struct lexer *lx)
{
	size_t begin = lx->pos, at, raw, open_end;
	char sign = 0, raw_sign;
	bool is_var;
	int r;

	for (at = begin; at + 1 < lx->n; at++) {
		if (lx->s[at] == '{' && (lx->s[at + 1] == '{' || lx->s[at + 1] == '%' || lx->s[at + 1] == '#'))
			break;
	}
	if (at + 1 >= lx->n)
		return push_text(lx, begin, lx->n, lx->n);
	is_var = lx->s[at + 1] == '{';
	open_end = at + 2;
	if (open_end < lx->n && (lx->s[open_end] == '-' || lx->s[open_end] == '+'))
		sign = lx->s[open_end++];
	raw = lx->s[at + 1] == '%' ? match_raw_tag(lx, at, "raw", false, &raw_sign) : 0;
	r = push_text(lx, begin, trimmed_end(lx, begin, at, sign, !is_var), raw ? raw : open_end);
	if (r < 0)
		return r;
	if (raw)
		return lex_raw(lx, raw);
	if (lx->s[at + 1] == '#')
		return lex_comment(lx, lx->pos);
	r = push(lx, is_var ? TPL_TOK_VAR_BEGIN : TPL_TOK_BLOCK_BEGIN, TPL_OP_NONE, tpl_none());
	if (r < 0)
		return r;
	return is_var ? lex_inside(lx, "}}", TPL_TOK_VAR_END) : lex_inside(lx, "%}", TPL_TOK_BLOCK_END);
}

int eng_tpl_lex(struct eng_template *tmpl, struct err *err)
{
	struct lexer lx = {
		.tmpl = tmpl, .err = err, .s = tmpl->source, .n = tmpl->source_len, .line = 1, .line_starting = true
	};
	int r = 0;

	while (r == 0 && lx.pos < lx.n)
		r = lex_outside(&lx);
	return r < 0 ? r : push(&lx, TPL_TOK_EOF, TPL_OP_NONE, tpl_none());
}
