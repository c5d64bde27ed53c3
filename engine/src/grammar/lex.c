/* Decoding bytes to characters for automata. A partial character is one number: what it is (4 bits), how far (2 bits),
 * and the bits read so far. After every byte of it, the characters it can still become are known as ranges; if none of
 * them leads on, the byte is refused, so that no token ends within a character that cannot be completed. */
#include "grammar/lex.h"
#include "grammar/trie.h"

#include <string.h>

#include "base/chars.h"

enum { UTF8 = 1, BACKSLASH = 2, HEX = 3, HIGH = 4, HIGH_BACKSLASH = 5, HEX_LOW = 6 };

static uint32_t pack(uint32_t kind, uint32_t n, uint32_t value)
{
	return kind << 28 | n << 26 | value;
}

static void add_range(struct decode_out *out, uint32_t lo, uint32_t hi)
{
	if (lo <= hi)
		out->ranges[out->n_ranges++] = (struct charset_range){ lo, hi };
}

static enum decode_result more(const struct decode_out *out)
{
	return out->n_ranges > 0 ? DECODE_MORE : DECODE_DEAD;
}

/* left: bytes still to come behind bits */
static enum decode_result utf8_part(uint32_t *partial, uint32_t left, uint32_t bits, uint32_t min,
                                    struct decode_out *out)
{
	uint32_t lo = bits << (6 * left), hi = ((bits + 1) << (6 * left)) - 1;

	if (lo < min)
		lo = min;
	if (hi > CS_MAX)
		hi = CS_MAX;
	if (lo >= 0xd800 && hi <= 0xdfff)
		return DECODE_DEAD;
	add_range(out, lo, hi);
	*partial = pack(UTF8, left, bits);
	return more(out);
}

static enum decode_result utf8_lead(uint32_t *partial, uint8_t b, struct decode_out *out)
{
	if (b < 0xc2 || b > 0xf4)
		return DECODE_DEAD;
	if (b < 0xe0)
		return utf8_part(partial, 1, b & 0x1fu, 0x80, out);
	if (b < 0xf0)
		return utf8_part(partial, 2, b & 0x0fu, 0x800, out);
	return utf8_part(partial, 3, b & 0x07u, 0x10000, out);
}

static enum decode_result utf8_next(uint32_t *partial, uint8_t b, struct decode_out *out)
{
	uint32_t left = *partial >> 26 & 3, bits = (*partial & 0x3ffffff) << 6 | (b & 0x3fu);

	if ((b & 0xc0) != 0x80)
		return DECODE_DEAD;
	if (left > 1) /* what was too small or too large died with its second byte, see utf8_part() */
		return utf8_part(partial, left - 1, bits, left == 3 ? 0x10000 : bits < 0x10 * 64 ? 0x800 : 0, out);
	*partial = DECODE_NONE;
	out->cp = bits;
	return DECODE_CHAR;
}

static uint32_t clip(uint32_t x, uint32_t lo, uint32_t hi)
{
	return x < lo ? lo : x > hi ? hi : x;
}

/* The characters that \u with the given first digits can begin. */
static void hex_ranges(uint32_t n, uint32_t value, struct decode_out *out)
{
	uint32_t shift = 4 * (4 - n), lo = value << shift, hi = ((value + 1) << shift) - 1;

	if (lo < 0xd800)
		add_range(out, lo, clip(hi, lo, 0xd7ff));
	if (hi > 0xdfff)
		add_range(out, clip(lo, 0xe000, 0xffff), hi);
	if (lo <= 0xdbff && hi >= 0xd800)
		add_range(out, 0x10000 + ((clip(lo, 0xd800, 0xdbff) - 0xd800) << 10),
		          0x10000 + ((clip(hi, 0xd800, 0xdbff) - 0xd800) << 10) + 0x3ff);
}

static enum decode_result hex_next(uint32_t *partial, uint8_t b, struct decode_out *out)
{
	uint32_t n = *partial >> 26 & 3, value = *partial & 0xffff;
	int h = base_hex_value(b);

	if (h < 0)
		return DECODE_DEAD;
	value = value * 16 + (uint32_t)h;
	if (n < 3) {
		*partial = pack(HEX, n + 1, value);
		hex_ranges(n + 1, value, out);
		return more(out);
	}
	if (value >= 0xd800 && value <= 0xdbff) {
		*partial = pack(HIGH, 0, value - 0xd800);
		hex_ranges(4, value, out);
		return more(out);
	}
	if (value >= 0xdc00 && value <= 0xdfff)
		return DECODE_DEAD;
	*partial = DECODE_NONE;
	out->cp = value;
	return DECODE_CHAR;
}

/* The second half of a pair: the first is above the 12 bits of digits. */
static enum decode_result low_next(uint32_t *partial, uint8_t b, struct decode_out *out)
{
	uint32_t n = *partial >> 26 & 3, high = *partial >> 12 & 0x3ff, digits = *partial & 0xfff;
	int h = base_hex_value(b);
	uint32_t shift, lo, hi;

	if (h < 0)
		return DECODE_DEAD;
	digits = digits * 16 + (uint32_t)h;
	n++;
	shift = 4 * (4 - n);
	lo = digits << shift;
	hi = ((digits + 1) << shift) - 1;
	if (hi < 0xdc00 || lo > 0xdfff)
		return DECODE_DEAD;
	lo = 0x10000 + (high << 10) + (clip(lo, 0xdc00, 0xdfff) - 0xdc00);
	hi = 0x10000 + (high << 10) + (clip(hi, 0xdc00, 0xdfff) - 0xdc00);
	if (n < 4) {
		*partial = pack(HEX_LOW, n, high << 12 | digits);
		add_range(out, lo, hi);
		return DECODE_MORE;
	}
	*partial = DECODE_NONE;
	out->cp = lo;
	return DECODE_CHAR;
}

static enum decode_result backslash_next(uint32_t *partial, uint8_t b, struct decode_out *out)
{
	static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	const char *hit = b ? strchr(names, b) : NULL;

	if (b == 'u') {
		*partial = pack(HEX, 0, 0);
		add_range(out, 0, CS_MAX);
		return DECODE_MORE;
	}
	if (!hit)
		return DECODE_DEAD;
	*partial = DECODE_NONE;
	out->cp = (uint8_t)values[hit - names];
	return DECODE_CHAR;
}

static enum decode_result first_byte(uint32_t *partial, uint8_t b, bool in_string, struct decode_out *out)
{
	if (b >= 0x80)
		return utf8_lead(partial, b, out);
	if (in_string && b == '"')
		return DECODE_QUOTE;
	if (in_string && b == '\\') {
		*partial = pack(BACKSLASH, 0, 0);
		add_range(out, 0, CS_MAX);
		return DECODE_MORE;
	}
	if (in_string && b < 0x20)
		return DECODE_DEAD;
	out->cp = b;
	return DECODE_CHAR;
}

enum decode_result gr_decode_step(uint32_t *partial, uint8_t b, bool in_string, struct decode_out *out)
{
	uint32_t kind = *partial >> 28, value = *partial & 0x3ffffff;

	out->n_ranges = 0;
	switch (kind) {
	case 0:
		return first_byte(partial, b, in_string, out);
	case UTF8:
		return utf8_next(partial, b, out);
	case BACKSLASH:
		return backslash_next(partial, b, out);
	case HEX:
		return hex_next(partial, b, out);
	case HIGH:
	case HIGH_BACKSLASH:
		if (b != (kind == HIGH ? '\\' : 'u'))
			return DECODE_DEAD;
		*partial = kind == HIGH ? pack(HIGH_BACKSLASH, 0, value) : pack(HEX_LOW, 0, value << 12);
		add_range(out, 0x10000 + (value << 10), 0x10000 + (value << 10) + 0x3ff);
		return DECODE_MORE;
	case HEX_LOW:
		return low_next(partial, b, out);
	default:
		return DECODE_DEAD;
	}
}

/* ---- Terminals ---- */

void gr_lex_begin(const struct lex *lex, struct lex_state *ret)
{
	*ret = (struct lex_state){ .partial = lex->is_string ? DECODE_OPEN : DECODE_NONE,
		                   .q = lex->dfa ? gr_dfa_start(lex->dfa) : 0 };
}

static bool accepts(const struct lex *lex, const struct lex_state *s)
{
	return lex->dfa ? gr_dfa_accepts(lex->dfa, s->q) : s->count >= lex->min;
}

/* Characters that may follow the next one. */
static uint32_t left_after_next(const struct lex *lex, const struct lex_state *s)
{
	return lex->max == UINT32_MAX ? UINT32_MAX - 1 : lex->max - s->count - 1;
}

static bool continues(const struct lex *lex, const struct lex_state *s)
{
	if (s->count >= lex->max)
		return false;
	return !lex->dfa || gr_dfa_meets(lex->dfa, s->q, 0, CS_MAX, left_after_next(lex, s));
}

unsigned gr_lex_at_begin(struct lex *lex)
{
	struct lex_state s;

	gr_lex_begin(lex, &s);
	if (lex->dfa ? s.q == DFA_DEAD || gr_dfa_distance(lex->dfa, s.q) > lex->max : lex->min > lex->max)
		return LEX_DEAD;
	if (lex->is_string)
		return LEX_GOES_ON;
	return (continues(lex, &s) ? LEX_GOES_ON : 0u) | (accepts(lex, &s) ? LEX_ENDS : 0u);
}

static bool can_become(struct lex *lex, const struct lex_state *s, const struct decode_out *out)
{
	if (s->count >= lex->max)
		return false;
	for (unsigned i = 0; i < out->n_ranges; i++) {
		if (!lex->dfa ||
		    gr_dfa_meets(lex->dfa, s->q, out->ranges[i].lo, out->ranges[i].hi, left_after_next(lex, s)))
			return true;
	}
	return false;
}

static unsigned take(struct lex *lex, struct lex_state *s, uint32_t cp)
{
	uint32_t counted = lex->max != UINT32_MAX ? lex->max : lex->dfa ? 0 : lex->min;

	if (s->count >= lex->max)
		return LEX_DEAD;
	if (s->count < counted)
		s->count++;
	if (lex->dfa) {
		s->q = gr_dfa_next(lex->dfa, s->q, cp);
		if (s->q == DFA_DEAD ||
		    (lex->max != UINT32_MAX && gr_dfa_distance(lex->dfa, s->q) > lex->max - s->count))
			return LEX_DEAD;
	}
	if (lex->is_string)
		return LEX_GOES_ON;
	return (continues(lex, s) ? LEX_GOES_ON : 0u) | (accepts(lex, s) ? LEX_ENDS : 0u);
}

unsigned gr_lex_step(struct lex *lex, struct lex_state *s, uint8_t byte)
{
	struct decode_out out;

	if (s->partial == DECODE_OPEN) {
		s->partial = DECODE_NONE;
		return byte == '"' ? LEX_GOES_ON : LEX_DEAD;
	}
	switch (gr_decode_step(&s->partial, byte, lex->is_string, &out)) {
	case DECODE_MORE:
		return can_become(lex, s, &out) ? LEX_GOES_ON : LEX_DEAD;
	case DECODE_CHAR:
		return take(lex, s, out.cp);
	case DECODE_QUOTE:
		return accepts(lex, s) ? LEX_ENDS : LEX_DEAD;
	case DECODE_DEAD:
		break;
	}
	return LEX_DEAD;
}

bool gr_lex_takes(struct lex *lex, const struct lex_state *s, uint16_t kinds, uint32_t n)
{
	uint32_t left = lex->max == UINT32_MAX ? UINT32_MAX : lex->max - s->count;

	if (s->partial != DECODE_NONE || (kinds & CHAR_SPECIAL) || n > left)
		return false;
	/* With a maximum the way to acceptance must fit in as well, wherever those characters lead. */
	if (lex->dfa && lex->max != UINT32_MAX && left - n < gr_dfa_farthest(lex->dfa))
		return false;
	return !lex->dfa || gr_dfa_takes(lex->dfa, s->q, kinds, n);
}
