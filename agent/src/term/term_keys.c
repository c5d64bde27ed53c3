/* Bytes to keys. What terminals send (ECMA-48 sequences as xterm, VTE, the Linux console, rxvt, tmux and the "CSI u"
 * family spell them), decoded without a clock: the caller says when nothing more came, which is the only
 * difference between the Escape key and the beginning of a sequence.
 *
 * A paste (ESC [200~ ... ESC [201~) is one event, so that nothing in it acts as a key. */
#include <errno.h>
#include <string.h>
#include <utf8proc.h>

#include "term.h"

enum {
	ESC = 0x1B,
	MAX_SEQUENCE = 32,   /* bytes; a longer one is dropped */
	N_PARAMS = 4,        /* numbers in a sequence that count */
	INPUT_MAX = 1 << 20, /* bytes waiting; callers decode as they feed */
	PASTE_MAX = 1 << 20, /* bytes of a paste; what is beyond is dropped */
};

static const char paste_end[] = "\033[201~";

void ag_term_keys_init(struct ag_term_keys *k)
{
	memset(k, 0, sizeof(*k));
	base_buf_init(&k->in, INPUT_MAX);
	base_buf_init(&k->raw, PASTE_MAX);
	base_buf_init(&k->paste, 3 * (size_t)PASTE_MAX); /* an invalid byte becomes U+FFFD */
}

void ag_term_keys_done(struct ag_term_keys *k)
{
	base_buf_done(&k->in);
	base_buf_done(&k->raw);
	base_buf_done(&k->paste);
}

int ag_term_keys_feed(struct ag_term_keys *k, const void *bytes, size_t n)
{
	if (k->pos) {
		memmove(k->in.data, k->in.data + k->pos, k->in.len - k->pos);
		k->in.len -= k->pos;
		k->pos = 0;
	}
	return base_buf_append(&k->in, bytes, n);
}

bool ag_term_keys_is_waiting(const struct ag_term_keys *k)
{
	return !k->in_paste && k->pos < k->in.len;
}

static int key(struct ag_term_key *out, enum ag_term_key_type type, unsigned mods, uint32_t ch)
{
	*out = (struct ag_term_key){ .type = type, .mods = mods, .ch = ch };
	return 1;
}

/* ---- One byte -------------------------------------------------------------------------------------------------- */

static void control_key(unsigned char c, struct ag_term_key *out)
{
	switch (c) {
	case 0x00:
		(void)key(out, AG_KEY_CHAR, AG_MOD_CTRL, ' ');
		break;
	case '\b':
	case 0x7F:
		(void)key(out, AG_KEY_BACKSPACE, 0, 0);
		break;
	case '\t':
		(void)key(out, AG_KEY_TAB, 0, 0);
		break;
	case '\r':
		(void)key(out, AG_KEY_ENTER, 0, 0);
		break;
	case ESC:
		(void)key(out, AG_KEY_ESCAPE, 0, 0);
		break;
	default:
		(void)key(out, AG_KEY_CHAR, AG_MOD_CTRL, c < 27 ? c + 'a' - 1u : c + '@' + 0u);
	}
}

/* How many bytes a sequence with this first byte has. */
static size_t utf8_need(unsigned char c)
{
	return c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
}

/* Bytes taken, 0 when more are needed. */
static size_t plain_key(const unsigned char *s, size_t len, bool timed_out, struct ag_term_key *out)
{
	utf8proc_int32_t cp;
	size_t have = 1, need = utf8_need(s[0]);

	if (s[0] < 0x20 || s[0] == 0x7F) {
		control_key(s[0], out);
		return 1;
	}
	if (!need) {
		(void)key(out, AG_KEY_INVALID, 0, s[0]);
		return 1;
	}
	while (have < need && have < len && (s[have] & 0xC0) == 0x80)
		have++;
	if (have == len && have < need && !timed_out)
		return 0;
	if (have == need && utf8proc_iterate(s, (utf8proc_ssize_t)need, &cp) == (utf8proc_ssize_t)need) {
		(void)key(out, AG_KEY_CHAR, 0, (uint32_t)cp);
		return need;
	}
	(void)key(out, AG_KEY_INVALID, 0, s[0]);
	return 1;
}

/* ---- Sequences --------------------------------------------------------------------------------------------------- */

/* The last byte of CSI or SS3. */
static bool letter_key(unsigned char last, unsigned mods, struct ag_term_key *out)
{
	static const struct {
		unsigned char last;
		enum ag_term_key_type type;
	} table[] = {
		{ 'A', AG_KEY_UP },   { 'B', AG_KEY_DOWN }, { 'C', AG_KEY_RIGHT }, { 'D', AG_KEY_LEFT },
		{ 'H', AG_KEY_HOME }, { 'F', AG_KEY_END },  { 'M', AG_KEY_ENTER }, { 'Z', AG_KEY_TAB },
	};

	if (last >= 'P' && last <= 'S')
		return key(out, AG_KEY_FUNCTION, mods, last - 'P' + 1u);
	if (last >= 'a' && last <= 'd') /* rxvt: arrows with shift */
		return letter_key((unsigned char)(last - 'a' + 'A'), mods | AG_MOD_SHIFT, out);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].last == last)
			return key(out, table[i].type, mods | (last == 'Z' ? AG_MOD_SHIFT : 0), 0);
	}
	return false;
}

/* The number of ESC [ n ~ . */
static bool tilde_key(unsigned number, unsigned mods, struct ag_term_key *out)
{
	static const enum ag_term_key_type edit[] = {
		AG_KEY_UNKNOWN, AG_KEY_HOME,      AG_KEY_INSERT, AG_KEY_DELETE, AG_KEY_END,
		AG_KEY_PAGE_UP, AG_KEY_PAGE_DOWN, AG_KEY_HOME,   AG_KEY_END,
	};
	static const unsigned char function[] = { 11, 12, 13, 14, 15, 17, 18, 19, 20, 21,
		                                  23, 24, 25, 26, 28, 29, 31, 32, 33, 34 };

	if (number && number < sizeof(edit) / sizeof(edit[0]))
		return key(out, edit[number], mods, 0);
	for (unsigned i = 0; i < sizeof(function); i++) {
		if (function[i] == number)
			return key(out, AG_KEY_FUNCTION, mods, i + 1);
	}
	return false;
}

/* A key told by its code point: CSI code ; mods u, and CSI 27 ; mods ; code ~ . */
static bool coded_key(unsigned code, unsigned mods, struct ag_term_key *out)
{
	if (code == 27 || code == 13 || code == 9 || code == 127 || code == 8) {
		control_key((unsigned char)code, out);
		out->mods = mods;
		return true;
	}
	if (code < 0x20 || code > 0x10FFFF || (code >= 0x7F && code < 0xA0) || (code >= 0xD800 && code < 0xE000))
		return false;
	/* Ctrl-C and Ctrl-Shift-C are one key here, as they are in one byte. */
	if ((mods & AG_MOD_CTRL) && code >= 'A' && code <= 'Z')
		code += 'a' - 'A';
	return key(out, AG_KEY_CHAR, (mods & (AG_MOD_ALT | AG_MOD_CTRL)), code);
}

static unsigned mods_of(unsigned param)
{
	unsigned bits = param ? param - 1 : 0;

	return (bits & 1 ? AG_MOD_SHIFT : 0u) | (bits & 2 ? AG_MOD_ALT : 0u) | (bits & 4 ? AG_MOD_CTRL : 0u);
}

static size_t read_params(const unsigned char *s, size_t len, unsigned params[N_PARAMS])
{
	size_t n = 0;

	memset(params, 0, N_PARAMS * sizeof(params[0]));
	for (size_t i = 0; i < len; i++) {
		if (s[i] == ';')
			n++;
		else if (n < N_PARAMS && s[i] >= '0' && s[i] <= '9' && params[n] < 10000000)
			params[n] = params[n] * 10 + (s[i] - '0');
		else if (s[i] == ':') /* sub-parameters (alternate keys) do not count here */
			while (i + 1 < len && s[i + 1] != ';')
				i++;
	}
	return n + 1 < N_PARAMS ? n + 1 : N_PARAMS;
}

/* s: after ESC [, len: with the last byte. */
static void csi_key(struct ag_term_keys *k, const unsigned char *s, size_t len, unsigned alt, struct ag_term_key *out)
{
	unsigned params[N_PARAMS], mods;
	size_t n = read_params(s, len - 1, params);
	unsigned char last = s[len - 1];
	bool known = false;

	mods = alt | (n >= 2 ? mods_of(params[1]) : 0);
	if (last == '~' && params[0] == 200)
		k->in_paste = true;
	else if (last == '~' && params[0] == 27 && n >= 3)
		known = coded_key(params[2], mods, out);
	else if (last == '~')
		known = tilde_key(params[0], mods, out);
	else if (last == '^' || last == '@') /* rxvt: with ctrl, with ctrl and shift */
		known = tilde_key(params[0], mods | AG_MOD_CTRL | (last == '@' ? AG_MOD_SHIFT : 0u), out);
	else if (last == 'u')
		known = coded_key(params[0], mods, out);
	else if (last != 'M') /* a mouse's */
		known = letter_key(last, mods, out);
	if (!known)
		(void)key(out, AG_KEY_UNKNOWN, 0, 0);
}

/* After ESC [: bytes of the sequence with its last one, 0 when more are needed. *ret_ok: it is one. */
static size_t csi_len(const unsigned char *s, size_t len, bool *ret_ok)
{
	size_t i = 0;

	*ret_ok = false;
	if (len && s[0] == '[') { /* the Linux console's F1 to F5: ESC [ [ A */
		*ret_ok = len > 1 && s[1] >= 'A' && s[1] <= 'E';
		return len > 1 ? 1 + (size_t)*ret_ok : 0;
	}
	while (i < len && i < MAX_SEQUENCE && s[i] >= 0x20 && s[i] < 0x40)
		i++;
	if (i == MAX_SEQUENCE)
		return i;
	if (i == len)
		return 0;
	*ret_ok = s[i] >= 0x40 && s[i] < 0x7F;
	return i + (size_t)*ret_ok;
}

/* At ESC. Bytes taken, 0 when more are needed. */
static size_t escape_key(struct ag_term_keys *k, const unsigned char *s, size_t len, bool timed_out, unsigned alt,
                         struct ag_term_key *out)
{
	bool ok;
	size_t n;

	if (len == 1) {
		(void)key(out, AG_KEY_ESCAPE, alt, 0);
		return timed_out ? 1 : 0;
	}
	if (s[1] == ESC && !alt) { /* Alt and a key that is itself a sequence; or Escape pressed twice */
		n = escape_key(k, s + 1, len - 1, timed_out, AG_MOD_ALT, out);
		if (n == 1)
			return key(out, AG_KEY_ESCAPE, 0, 0), 1;
		return n ? n + 1 : 0;
	}
	if (s[1] == ESC)
		return key(out, AG_KEY_ESCAPE, 0, 0), 1;
	if ((s[1] == '[' || s[1] == 'O') && len == 2) {
		(void)key(out, AG_KEY_CHAR, AG_MOD_ALT, s[1]);
		return timed_out ? 2 : 0;
	}
	if (s[1] == 'O' && s[2] >= 'A' && s[2] < 0x7F) {
		if (s[2] == 'a' || s[2] == 'b' || s[2] == 'c' || s[2] == 'd') /* rxvt: arrows with ctrl */
			(void)letter_key((unsigned char)(s[2] - 'a' + 'A'), alt | AG_MOD_CTRL, out);
		else if (!letter_key(s[2], alt, out))
			(void)key(out, AG_KEY_UNKNOWN, 0, 0);
		return 3;
	}
	if (s[1] == '[') {
		n = csi_len(s + 2, len - 2, &ok);
		(void)key(out, AG_KEY_UNKNOWN, 0, 0);
		if (!n && (timed_out || len - 2 >= MAX_SEQUENCE))
			return len;
		if (ok && s[2] == '[')
			(void)key(out, AG_KEY_FUNCTION, alt, s[3] - 'A' + 1u);
		else if (ok)
			csi_key(k, s + 2, n, alt, out);
		/* A byte that cannot be in a sequence ends it and is looked at by itself. */
		return n || ok ? n + 2 : s[2] < 0x20 || s[2] >= 0x7F ? 2 : 0;
	}
	n = plain_key(s + 1, len - 1, timed_out, out);
	if (n && out->type == AG_KEY_INVALID)
		return key(out, AG_KEY_ESCAPE, 0, 0), 1;
	out->mods |= AG_MOD_ALT;
	return n ? n + 1 : 0;
}

/* ---- Paste ------------------------------------------------------------------------------------------------------- */

/* Carriage returns to newlines; what terminals filter or not, no control character is left. */
static int finish_paste(struct ag_term_keys *k, struct ag_term_key *out)
{
	char *s = k->raw.data;
	size_t n = 0;

	for (size_t i = 0; i < k->raw.len; i++) {
		if (s[i] == '\r' && i + 1 < k->raw.len && s[i + 1] == '\n')
			continue;
		s[n++] = s[i] == '\r' ? '\n' : s[i];
	}
	base_buf_reset(&k->paste);
	(void)ag_term_sanitize(&k->paste, n ? s : "", n, false);
	base_buf_reset(&k->raw);
	k->in_paste = false;
	*out = (struct ag_term_key){ .type = AG_KEY_PASTE, .text = base_buf_text(&k->paste), .len = k->paste.len };
	return 1;
}

/* Bytes at the end of s that may be the beginning of the paste's end. */
static size_t half_end(const char *s, size_t len)
{
	size_t n = len < sizeof(paste_end) - 2 ? len : sizeof(paste_end) - 2;

	while (n && memcmp(s + len - n, paste_end, n) != 0)
		n--;
	return n;
}

static int paste_key(struct ag_term_keys *k, struct ag_term_key *out)
{
	const char *s = k->in.data + k->pos;
	size_t len = k->in.len - k->pos, take, room = PASTE_MAX - k->raw.len;
	const char *end = len ? memmem(s, len, paste_end, sizeof(paste_end) - 1) : NULL;

	take = end ? (size_t)(end - s) : len - half_end(s, len);
	(void)base_buf_append(&k->raw, s, take < room ? take : room);
	k->pos += take;
	if (!end)
		return 0;
	k->pos += sizeof(paste_end) - 1;
	return finish_paste(k, out);
}

int ag_term_keys_next(struct ag_term_keys *k, bool timed_out, struct ag_term_key *ret_key)
{
	struct ag_term_key found;
	size_t taken;

	while (k->pos < k->in.len || k->in_paste) {
		const unsigned char *s = (const unsigned char *)k->in.data + k->pos;
		size_t len = k->in.len - k->pos;

		if (k->in_paste) {
			if (!paste_key(k, &found))
				return 0;
			*ret_key = found;
			return 1;
		}
		taken = s[0] == ESC ? escape_key(k, s, len, timed_out, 0, &found)
		                    : plain_key(s, len, timed_out, &found);
		if (!taken)
			return 0;
		k->pos += taken;
		if (k->in_paste)
			continue;
		*ret_key = found;
		return 1;
	}
	return 0;
}
