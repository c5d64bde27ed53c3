/* Follows one JSON value (RFC 8259) byte by byte. Control characters inside strings pass: models write them, and
 * whoever hands the value on escapes them. */
#include <string.h>

#include "chatformat/chatformat.h"

enum {
	W_VALUE,        /* a value must begin */
	W_VALUE_OR_END, /* behind '[' */
	W_KEY_OR_END,   /* behind '{' */
	W_KEY,          /* behind ',' in an object */
	W_COLON,
	W_AFTER, /* behind a value inside a container */
	W_STRING,
	W_ESCAPE,
	W_HEX,
	W_KEY_STRING,
	W_KEY_ESCAPE,
	W_KEY_HEX,
	W_LITERAL,
	W_MINUS,
	W_ZERO,
	W_INT,
	W_POINT,
	W_FRACTION,
	W_E,
	W_E_SIGN,
	W_EXPONENT,
	W_DONE,
};

void eng_walk_init(struct walk *w)
{
	memset(w, 0, sizeof(*w));
}

bool eng_walk_in_string(const struct walk *w)
{
	return w->state == W_STRING || w->state == W_KEY_STRING;
}

static bool is_space(unsigned char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static bool in_object(const struct walk *w)
{
	unsigned level = w->depth - 1u;

	return w->depth > 0 && (w->in_object[level / 8] >> (level % 8) & 1);
}

static enum walk_result value_ended(struct walk *w)
{
	w->state = w->depth == 0 ? W_DONE : W_AFTER;
	return w->depth == 0 ? WALK_END : WALK_MORE;
}

static enum walk_result push(struct walk *w, bool object)
{
	unsigned level = w->depth;

	if (level >= WALK_MAX_DEPTH)
		return WALK_ERROR;
	w->in_object[level / 8] &= (uint8_t) ~(1u << (level % 8));
	if (object)
		w->in_object[level / 8] |= (uint8_t)(1u << (level % 8));
	w->depth++;
	w->state = object ? W_KEY_OR_END : W_VALUE_OR_END;
	return WALK_MORE;
}

static enum walk_result pop(struct walk *w)
{
	w->depth--;
	return value_ended(w);
}

static enum walk_result literal(struct walk *w, const char *rest)
{
	w->literal = rest;
	w->state = W_LITERAL;
	return WALK_MORE;
}

static enum walk_result begin_value(struct walk *w, unsigned char c)
{
	switch (c) {
	case '{':
		return push(w, true);
	case '[':
		return push(w, false);
	case '"':
		w->state = W_STRING;
		return WALK_MORE;
	case 't':
		return literal(w, "rue");
	case 'f':
		return literal(w, "alse");
	case 'n':
		return literal(w, "ull");
	case '-':
		w->state = W_MINUS;
		return WALK_MORE;
	case '0':
		w->state = W_ZERO;
		return WALK_MORE;
	default:
		w->state = W_INT;
		return is_digit(c) ? WALK_MORE : WALK_ERROR;
	}
}

static enum walk_result after(struct walk *w, unsigned char c)
{
	if (is_space(c))
		return WALK_MORE;
	if (c == ',') {
		w->state = in_object(w) ? W_KEY : W_VALUE;
		return WALK_MORE;
	}
	if (c == (in_object(w) ? '}' : ']'))
		return pop(w);
	return WALK_ERROR;
}

/* In a string: state is that of the plain string, the two behind it are those of its escapes. */
static enum walk_result string_byte(struct walk *w, unsigned char c)
{
	bool is_key = w->state >= W_KEY_STRING;
	uint8_t plain = is_key ? W_KEY_STRING : W_STRING;

	switch (w->state - plain) {
	case 1:
		if (c == 'u') {
			w->n_hex = 0;
			w->state = (uint8_t)(plain + 2);
			return WALK_MORE;
		}
		w->state = plain;
		return c != '\0' && strchr("\"\\/bfnrt", c) ? WALK_MORE : WALK_ERROR;
	case 2:
		if (!is_digit(c) && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F'))
			return WALK_ERROR;
		if (++w->n_hex == 4)
			w->state = plain;
		return WALK_MORE;
	default:
		break;
	}
	if (c == '\\') {
		w->state = (uint8_t)(plain + 1);
	} else if (c == '"') {
		if (!is_key)
			return value_ended(w);
		w->state = W_COLON;
	}
	return WALK_MORE;
}

static enum walk_result to(struct walk *w, uint8_t state)
{
	w->state = state;
	return WALK_MORE;
}

/* The number ended in front of c, which belongs to what is around it. */
static enum walk_result number_ended(struct walk *w, unsigned char c)
{
	if (value_ended(w) == WALK_END)
		return WALK_END_BEFORE;
	return after(w, c);
}

static enum walk_result number_byte(struct walk *w, unsigned char c)
{
	bool e = c == 'e' || c == 'E';

	switch (w->state) {
	case W_MINUS:
		return is_digit(c) ? to(w, c == '0' ? W_ZERO : W_INT) : WALK_ERROR;
	case W_ZERO:
	case W_INT:
		if (w->state == W_INT && is_digit(c))
			return WALK_MORE;
		if (c == '.')
			return to(w, W_POINT);
		return e ? to(w, W_E) : number_ended(w, c);
	case W_POINT:
		return is_digit(c) ? to(w, W_FRACTION) : WALK_ERROR;
	case W_FRACTION:
		if (is_digit(c))
			return WALK_MORE;
		return e ? to(w, W_E) : number_ended(w, c);
	case W_E:
		if (c == '+' || c == '-')
			return to(w, W_E_SIGN);
		return is_digit(c) ? to(w, W_EXPONENT) : WALK_ERROR;
	case W_E_SIGN:
		return is_digit(c) ? to(w, W_EXPONENT) : WALK_ERROR;
	default:
		return is_digit(c) ? WALK_MORE : number_ended(w, c);
	}
}

enum walk_result eng_walk_byte(struct walk *w, unsigned char c)
{
	switch (w->state) {
	case W_VALUE:
		return is_space(c) ? WALK_MORE : begin_value(w, c);
	case W_VALUE_OR_END:
		if (c == ']')
			return pop(w);
		return is_space(c) ? WALK_MORE : begin_value(w, c);
	case W_KEY_OR_END:
	case W_KEY:
		if (c == '}' && w->state == W_KEY_OR_END)
			return pop(w);
		if (is_space(c))
			return WALK_MORE;
		return c == '"' ? to(w, W_KEY_STRING) : WALK_ERROR;
	case W_COLON:
		if (is_space(c))
			return WALK_MORE;
		return c == ':' ? to(w, W_VALUE) : WALK_ERROR;
	case W_AFTER:
		return after(w, c);
	case W_STRING:
	case W_ESCAPE:
	case W_HEX:
	case W_KEY_STRING:
	case W_KEY_ESCAPE:
	case W_KEY_HEX:
		return string_byte(w, c);
	case W_LITERAL:
		if (c != (unsigned char)*w->literal)
			return WALK_ERROR;
		w->literal++;
		return *w->literal ? WALK_MORE : value_ended(w);
	case W_DONE:
		return WALK_END_BEFORE;
	default:
		return number_byte(w, c);
	}
}
