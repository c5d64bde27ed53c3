/* Calls written as Python: [name(key=value, ..), ..], values being literals. Told as JSON while they come: strings byte
 * by byte, words (numbers, True, None) at their end.
 *
 * Left out: positional arguments, strings with a prefix or side by side, sets, complex numbers; a call that holds one
 * has no end. A word that is no literal is told as a string. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "chatformat/chatformat.h"

enum phase {
	PY_KEY, /* a keyword, or the end of the call */
	PY_IN_KEY,
	PY_EQUALS,
	PY_VALUE,
	PY_ITEM,     /* in a list: a value, or its end */
	PY_DICT_KEY, /* or its end */
	PY_COLON,
	PY_AFTER, /* behind a value: a comma, or the end */
	PY_WORD,
	PY_OPEN,  /* behind the first quote */
	PY_EMPTY, /* behind a second one */
	PY_STRING,
	PY_ESCAPE,
	PY_DIGITS, /* of an escape */
};

enum { MAX_WORD = 4096 };

/* ---- Telling ---- */

static void tell(struct eng_chat_parser *p, const char *text)
{
	eng_chat_tell(p, ENG_PART_ARGS, text, strlen(text));
}

static void tell_char(struct eng_chat_parser *p, char c)
{
	if (c == '"' || c == '\\')
		tell(p, "\\");
	eng_chat_tell_args_byte(p, c, true);
}

static void tell_code(struct eng_chat_parser *p, uint32_t cp)
{
	char u[5] = { 0 };

	if (cp < 0x80) {
		tell_char(p, (char)cp);
		return;
	}
	if (cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
		cp = 0xfffd;
	if (cp < 0x800) {
		u[0] = (char)(0xc0 | cp >> 6);
	} else if (cp < 0x10000) {
		u[0] = (char)(0xe0 | cp >> 12);
		u[1] = (char)(0x80 | (cp >> 6 & 63));
	} else {
		u[0] = (char)(0xf0 | cp >> 18);
		u[1] = (char)(0x80 | (cp >> 12 & 63));
		u[2] = (char)(0x80 | (cp >> 6 & 63));
	}
	u[strlen(u)] = (char)(0x80 | (cp & 63));
	tell(p, u);
}

/* The first half of a surrogate pair waits for the second. */
static void flush_half(struct eng_chat_parser *p)
{
	if (p->py.half)
		tell_code(p, 0xfffd);
	p->py.half = 0;
}

/* ---- Containers ---- */

static bool open_container(struct eng_chat_parser *p, char close)
{
	struct python *py = &p->py;

	if (py->depth == WALK_MAX_DEPTH)
		return false;
	py->closes[py->depth++] = close;
	py->is_first = true;
	tell(p, close == '}' ? "{" : "[");
	py->phase = close == '}' ? PY_DICT_KEY : PY_ITEM;
	return true;
}

/* Commas are told in front of what follows them: Python takes one behind the last as well. */
static void begin_item(struct eng_chat_parser *p)
{
	if (!p->py.is_first)
		tell(p, ", ");
	p->py.is_first = false;
}

static bool close_container(struct eng_chat_parser *p, char c)
{
	struct python *py = &p->py;

	if (py->depth == 0) {
		if (c != ')')
			return false;
		tell(p, py->is_first ? "{}" : "}");
		p->state = S_SECTION;
		eng_chat_end_call(p);
		return true;
	}
	if (py->closes[--py->depth] != c)
		return false;
	tell(p, c == '}' ? "}" : "]");
	py->is_first = false;
	py->phase = PY_AFTER;
	return true;
}

/* ---- Words ---- */

static bool is_digits(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
	}
	return n > 0;
}

/* Python's decimal numbers as JSON has them: "1_000.", ".5e3", "+2"; false: it is none. */
static bool tell_decimal(struct eng_chat_parser *p, const char *word)
{
	char number[MAX_WORD + 16], *at = number;
	const char *digits = word + (*word == '+' || *word == '-'), *point, *exponent;
	size_t n_int, n_fraction = 0;

	exponent = digits + strcspn(digits, "eE");
	point = digits + strcspn(digits, ".");
	if (point > exponent)
		point = exponent;
	n_int = (size_t)(point - digits);
	if (point < exponent)
		n_fraction = (size_t)(exponent - point - 1);
	if ((n_int > 0 && !is_digits(digits, n_int)) || (n_fraction > 0 && !is_digits(point + 1, n_fraction)) ||
	    n_int + n_fraction == 0)
		return false;
	if (*exponent) {
		const char *power = exponent + 1 + (exponent[1] == '+' || exponent[1] == '-');

		if (!is_digits(power, strlen(power)))
			return false;
	}
	while (n_int > 1 && *digits == '0') {
		digits++;
		n_int--;
	}
	if (*word == '-')
		*at++ = '-';
	if (n_int == 0)
		*at++ = '0';
	memcpy(at, digits, n_int);
	at += n_int;
	if (point < exponent) {
		*at++ = '.';
		if (n_fraction == 0)
			*at++ = '0';
		memcpy(at, point + 1, n_fraction);
		at += n_fraction;
	}
	memcpy(at, exponent, strlen(exponent) + 1);
	tell(p, number);
	return true;
}

/* 0x1f, 0o17, 0b11. */
static bool tell_based(struct eng_chat_parser *p, const char *word)
{
	const char *digits = word + (*word == '+' || *word == '-');
	char number[32], *end;
	unsigned long long v;
	int base;

	if (digits[0] != '0' || !digits[1] || !digits[2] || !isxdigit((unsigned char)digits[2]))
		return false;
	base = strchr("xX", digits[1]) ? 16 : strchr("oO", digits[1]) ? 8 : strchr("bB", digits[1]) ? 2 : 0;
	if (base == 0 || strlen(digits + 2) > (base == 16 ? 15 : base == 8 ? 20 : 60))
		return false;
	v = strtoull(digits + 2, &end, base);
	if (*end)
		return false;
	(void)snprintf(number, sizeof(number), "%s%llu", *word == '-' ? "-" : "", v);
	tell(p, number);
	return true;
}

static void tell_word(struct eng_chat_parser *p)
{
	static const char *const literals[][2] = { { "True", "true" }, { "False", "false" }, { "None", "null" },
		                                   { "true", "true" }, { "false", "false" }, { "null", "null" } };
	char word[MAX_WORD + 8];
	size_t n = 0;

	for (size_t i = 0; i < p->value.len; i++) {
		char c = p->value.data[i];
		bool is_between = c == '_' && i > 0 && i + 1 < p->value.len &&
		                  isalnum((unsigned char)p->value.data[i - 1]) &&
		                  isalnum((unsigned char)p->value.data[i + 1]);

		if (!is_between)
			word[n++] = c;
	}
	word[n] = '\0';
	for (size_t i = 0; i < 6 && !p->py.is_key; i++) {
		if (strcmp(word, literals[i][0]) == 0) {
			tell(p, literals[i][1]);
			return;
		}
	}
	if (!p->py.is_key && (tell_decimal(p, word) || tell_based(p, word)))
		return;
	tell(p, "\"");
	for (size_t i = 0; i < p->value.len; i++)
		tell_char(p, p->value.data[i]);
	tell(p, "\"");
}

static bool is_word_char(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("_.+-", c)) || (unsigned char)c >= 0x80;
}

/* ---- Strings ---- */

static void value_ended(struct eng_chat_parser *p)
{
	p->py.phase = p->py.is_key ? PY_COLON : PY_AFTER;
}

static void string_ended(struct eng_chat_parser *p)
{
	flush_half(p);
	tell(p, "\"");
	value_ended(p);
}

static void string_byte(struct eng_chat_parser *p, char c)
{
	struct python *py = &p->py;

	if (c == py->quote) {
		if (!py->is_triple || ++py->n_quotes == 3)
			string_ended(p);
		return;
	}
	/* Quotes that did not end it. */
	for (; py->n_quotes > 0; py->n_quotes--)
		tell_char(p, py->quote);
	if (c == '\\') {
		py->phase = PY_ESCAPE;
		return;
	}
	flush_half(p);
	tell_char(p, c);
}

static void code_ended(struct eng_chat_parser *p)
{
	struct python *py = &p->py;
	uint32_t cp = py->code;

	py->phase = PY_STRING;
	if (py->half && cp >= 0xdc00 && cp < 0xe000) {
		cp = 0x10000 + ((py->half - 0xd800) << 10) + (cp - 0xdc00);
		py->half = 0;
	}
	flush_half(p);
	if (cp >= 0xd800 && cp < 0xdc00)
		py->half = cp;
	else
		tell_code(p, cp);
}

static bool begin_digits(struct eng_chat_parser *p, uint8_t n, uint8_t base, uint32_t code)
{
	struct python *py = &p->py;

	py->code = code;
	py->n_digits = n;
	py->base = base;
	py->phase = PY_DIGITS;
	if (n == 0)
		code_ended(p);
	return true;
}

static bool escape_byte(struct eng_chat_parser *p, char c)
{
	static const char names[] = "abfnrtv", codes[] = "\a\b\f\n\r\t\v";
	const char *at = c ? strchr(names, c) : NULL;

	p->py.phase = PY_STRING;
	if (c == 'x')
		return begin_digits(p, 2, 16, 0);
	if (c == 'u')
		return begin_digits(p, 4, 16, 0);
	if (c == 'U')
		return begin_digits(p, 8, 16, 0);
	if (c >= '0' && c <= '7')
		return begin_digits(p, 2, 8, (uint32_t)(c - '0'));
	flush_half(p);
	if (at) {
		tell_char(p, codes[at - names]);
	} else if (c == '\\' || c == '\'' || c == '"') {
		tell_char(p, c);
	} else if (c != '\n') { /* unknown ones stay; a line that goes on */
		tell_char(p, '\\');
		tell_char(p, c);
	}
	return true;
}

/* False: the byte is not one of them. */
static bool digit_byte(struct eng_chat_parser *p, char c)
{
	struct python *py = &p->py;
	bool is_digit = py->base == 8 ? c >= '0' && c <= '7' : isxdigit((unsigned char)c) != 0;

	if (!is_digit) {
		code_ended(p);
		return false;
	}
	py->code = py->code * py->base + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
	if (--py->n_digits == 0)
		code_ended(p);
	return true;
}

/* ---- Bytes ---- */

static bool begin_value(struct eng_chat_parser *p, char c, bool is_key)
{
	struct python *py = &p->py;

	py->is_key = is_key;
	if (c == '"' || c == '\'') {
		py->quote = c;
		py->is_triple = false;
		py->n_quotes = 0;
		py->half = 0;
		tell(p, "\"");
		py->phase = PY_OPEN;
		return true;
	}
	if (is_word_char(c)) {
		base_buf_reset(&p->value);
		(void)base_buf_putc(&p->value, c);
		py->phase = PY_WORD;
		return true;
	}
	if (is_key)
		return false;
	return c == '['   ? open_container(p, ']')
	       : c == '(' ? open_container(p, ')')
	                  : c == '{' && open_container(p, '}');
}

/* True: taken. False, with the phase as it was: it is wrong here. */
static bool outside_byte(struct eng_chat_parser *p, char c)
{
	struct python *py = &p->py;

	switch ((enum phase)py->phase) {
	case PY_KEY:
		if (c == ')')
			return close_container(p, c);
		if (!isalpha((unsigned char)c) && c != '_')
			return false;
		base_buf_reset(&p->key);
		(void)base_buf_putc(&p->key, c);
		py->phase = PY_IN_KEY;
		return true;
	case PY_EQUALS:
		if (c != '=')
			return false;
		tell(p, py->is_first ? "{\"" : ", \"");
		py->is_first = false;
		eng_chat_tell(p, ENG_PART_ARGS, base_buf_text(&p->key), p->key.len);
		tell(p, "\": ");
		py->phase = PY_VALUE;
		return true;
	case PY_VALUE:
		return begin_value(p, c, false);
	case PY_ITEM:
		if (c == py->closes[py->depth - 1])
			return close_container(p, c);
		begin_item(p);
		return begin_value(p, c, false);
	case PY_DICT_KEY:
		if (c == '}')
			return close_container(p, c);
		begin_item(p);
		return begin_value(p, c, true);
	case PY_COLON:
		if (c != ':')
			return false;
		tell(p, ": ");
		py->phase = PY_VALUE;
		return true;
	default: /* PY_AFTER */
		if (c != ',')
			return close_container(p, c);
		py->phase = py->depth == 0 ? PY_KEY : py->closes[py->depth - 1] == '}' ? PY_DICT_KEY : PY_ITEM;
		return true;
	}
}

/* What is no part of the word, the name or the string any more is looked at again. */
bool eng_chat_step_python(struct eng_chat_parser *p)
{
	struct python *py = &p->py;
	char c = p->hold.data[0];
	bool is_taken = true;

	switch ((enum phase)py->phase) {
	case PY_IN_KEY:
		is_taken = isalnum((unsigned char)c) || c == '_';
		if (is_taken && p->key.len < CHAT_MAX_NAME)
			(void)base_buf_putc(&p->key, c);
		else
			py->phase = PY_EQUALS;
		break;
	case PY_WORD:
		is_taken = is_word_char(c) && (p->value.len < MAX_WORD || ((unsigned char)c & 0xc0) == 0x80);
		if (is_taken && p->value.len < MAX_WORD + 4) {
			(void)base_buf_putc(&p->value, c);
		} else {
			tell_word(p);
			value_ended(p);
		}
		break;
	case PY_OPEN:
		py->phase = c == py->quote ? PY_EMPTY : PY_STRING;
		is_taken = c == py->quote;
		break;
	case PY_EMPTY:
		is_taken = py->is_triple = c == py->quote;
		py->phase = PY_STRING;
		if (!is_taken)
			string_ended(p);
		break;
	case PY_STRING:
		string_byte(p, c);
		break;
	case PY_ESCAPE:
		(void)escape_byte(p, c);
		break;
	case PY_DIGITS:
		is_taken = digit_byte(p, c);
		break;
	default:
		if (c != ' ' && c != '\t' && c != '\n' && c != '\r' && !outside_byte(p, c)) {
			eng_chat_give_up(p);
			return true;
		}
		break;
	}
	if (is_taken && p->hold.len > 0)
		eng_chat_consume(p, 1);
	return true;
}

void eng_chat_begin_python(struct eng_chat_parser *p)
{
	p->py = (struct python){ .phase = PY_KEY, .is_first = true };
	p->state = S_PYTHON;
}
