/* How wide text is, where it may be cut, and what of it may reach a terminal.
 *
 * The unit is the grapheme (UAX #29, by utf8proc): what a person takes for one character, such as a letter with
 * its accents or a family of emoji joined by U+200D. Its width is that of its widest code point (UAX #11: wide and
 * full-width are 2); two regional indicators and emoji presentation (U+FE0F) make 2 as well. Terminals disagree
 * about rare sequences; for Chinese, Latin and plain emoji they agree with this.
 *
 * Lines break at blanks, and between wide characters as UAX #14 and GB/T 15834 have it: closing and pausing
 * punctuation does not begin a line, opening punctuation does not end one, a dash or an ellipsis of two
 * characters is not torn apart. */
#include <errno.h>
#include <string.h>
#include <utf8proc.h>

#include "term_internal.h"

enum {
	MAX_GRAPHEME = 256, /* bytes; stacked accents beyond that are cut between code points */
	TAB = 8,
	VARIATION_EMOJI = 0xFE0F,
	REPLACEMENT = 0xFFFD,
};

/* Bytes of the code point at s, 0 when it is none. */
static size_t decode(const char *s, size_t len, int32_t *ret_cp)
{
	utf8proc_int32_t cp;
	utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)(len < 4 ? len : 4), &cp);

	if (n <= 0 || cp < 0)
		return 0;
	*ret_cp = cp;
	return (size_t)n;
}

static bool is_regional(int32_t cp)
{
	return cp >= 0x1F1E6 && cp <= 0x1F1FF;
}

static unsigned code_point_width(int32_t cp)
{
	int w = utf8proc_charwidth(cp);

	return w < 0 ? 0 : w > 2 ? 2 : (unsigned)w;
}

struct ag_term_cell ag_term_cell_at(const char *text, size_t len)
{
	unsigned char first = (unsigned char)text[0];
	struct ag_term_cell cell = { 1, first >= 0x20 && first != 0x7F };
	utf8proc_int32_t state = 0;
	int32_t cp, next;
	size_t n;

	if (first < 0x80 && (len == 1 || (unsigned char)text[1] < 0x80))
		return cell;
	n = decode(text, len, &cp);
	if (!n)
		return cell;
	cell = (struct ag_term_cell){ n, code_point_width(cp) };
	while (cell.len < len && cell.len < MAX_GRAPHEME) {
		n = decode(text + cell.len, len - cell.len, &next);
		if (!n || utf8proc_grapheme_break_stateful(cp, next, &state))
			break;
		if (next == VARIATION_EMOJI || (is_regional(cp) && is_regional(next)))
			cell.width = 2;
		else if (code_point_width(next) > cell.width)
			cell.width = code_point_width(next);
		cell.len += n;
		cp = next;
	}
	return cell;
}

size_t ag_term_cell_before(const char *text, size_t len)
{
	size_t start = len, n = 0;

	if (!len)
		return 0;
	/* Back to where a grapheme surely begins: ASCII, or far enough at the start of a code point. */
	do
		start--;
	while (start && len - start < 2 * MAX_GRAPHEME && ((unsigned char)text[start] >= 0x80 || start == len - 1));
	while (start && ((unsigned char)text[start] & 0xC0) == 0x80)
		start--;
	for (; start < len; start += n)
		n = ag_term_cell_at(text + start, len - start).len;
	return n;
}

unsigned ag_term_columns(const char *text, size_t len, unsigned column)
{
	unsigned start = column;
	struct ag_term_cell cell;

	for (size_t i = 0; i < len; i += cell.len) {
		cell = ag_term_cell_at(text + i, len - i);
		column += text[i] == '\t' ? TAB - column % TAB : cell.width;
	}
	return column - start;
}

size_t ag_term_prefix(const char *text, size_t len, unsigned columns)
{
	unsigned used = 0;
	size_t i = 0;

	while (i < len) {
		struct ag_term_cell cell = ag_term_cell_at(text + i, len - i);

		used += text[i] == '\t' ? TAB - used % TAB : cell.width;
		if (used > columns)
			break;
		i += cell.len;
	}
	return i;
}

int ag_term_clip(struct base_buf *out, const char *text, size_t len, unsigned columns, bool utf8)
{
	const char *dots = utf8 ? "…" : "...";
	unsigned need = utf8 ? 1 : 3;

	if (ag_term_prefix(text, len, columns) == len)
		return base_buf_append(out, text, len);
	if (columns < need)
		return base_buf_append(out, text, ag_term_prefix(text, len, columns));
	(void)base_buf_append(out, text, ag_term_prefix(text, len, columns - need)); /* the error stays in out */
	return base_buf_puts(out, dots);
}

/* ---- Lines ------------------------------------------------------------------------------------------------- */

static bool in_set(int32_t cp, const char *set)
{
	size_t len = strlen(set), n;
	int32_t one;

	for (size_t i = 0; i < len; i += n) {
		n = decode(set + i, len - i, &one);
		if (!n)
			return false;
		if (one == cp)
			return true;
	}
	return false;
}

static bool cannot_begin_line(int32_t cp)
{
	return in_set(cp, "，。、；：？！）》」』】〕〉］｝〗〙”’…—～％‰℃·・ー々〻ぁぃぅぇぉっゃゅょァィゥェォッャュョ"
	                  "｡､｣),.;:?!]}%\"'>");
}

static bool cannot_end_line(int32_t cp)
{
	return in_set(cp, "（《「『【〔〈［｛〖〘“‘￥＄｢([{$\"'<#");
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* May a line end between these two neighbours? Blanks are the caller's. */
static bool may_break(int32_t before, int32_t after, bool is_wide)
{
	return is_wide && !cannot_end_line(before) && !cannot_begin_line(after);
}

static size_t without_blanks(const char *text, size_t len)
{
	while (len && is_blank(text[len - 1]))
		len--;
	return len;
}

static size_t skip_blanks(const char *text, size_t len, size_t from)
{
	while (from < len && is_blank(text[from]))
		from++;
	return from;
}

/* The last code point of a grapheme decides with the first of the next one; accents do not change a rule, so the
 * first ones of both will do. */
static int32_t first_of(const char *text, size_t len)
{
	int32_t cp;

	return decode(text, len, &cp) ? cp : REPLACEMENT;
}

size_t ag_term_wrap(const char *text, size_t len, unsigned columns, size_t *ret_next)
{
	size_t i = 0, fit = 0; /* fit: the last place where a line may end, 0 for none */
	unsigned column = 0, width, before_width = 0;
	int32_t cp, before = ' ';
	bool seen = false; /* something that is no blank */

	while (i < len) {
		struct ag_term_cell cell = ag_term_cell_at(text + i, len - i);

		if (is_blank(text[i])) {
			column += text[i] == '\t' ? TAB - column % TAB : 1;
			i++;
			if (seen || column > columns)
				fit = i;
			before = ' ';
			before_width = 1;
			continue;
		}
		cp = first_of(text + i, len - i);
		width = cell.width;
		if (before != ' ' && may_break(before, cp, before_width == 2 || width == 2))
			fit = i;
		if (column + width > columns && i) {
			if (!fit)
				fit = i;
			*ret_next = skip_blanks(text, len, fit);
			return without_blanks(text, fit);
		}
		column += width;
		before = cp;
		before_width = width;
		seen = true;
		i += cell.len;
	}
	*ret_next = len;
	return without_blanks(text, len);
}

/* ---- What may pass -------------------------------------------------------------------------------------------- */

/* Control characters, line separators of Unicode, overrides of writing direction (text would read other than it
 * is), and tags (text that nobody sees). */
static bool is_harmful(int32_t cp)
{
	return (cp < 0x20 && cp != '\n' && cp != '\t') || (cp >= 0x7F && cp < 0xA0) || (cp >= 0x2028 && cp <= 0x202E) ||
	       (cp >= 0x2066 && cp <= 0x2069) || (cp >= 0xE0000 && cp <= 0xE007F);
}

int ag_term_sanitize(struct base_buf *out, const char *text, size_t len, bool ascii_only)
{
	const char *unknown = ascii_only ? "?" : "\xEF\xBF\xBD";
	size_t n, plain = 0; /* bytes since the last look that pass as they are */
	int32_t cp;

	for (size_t i = 0; i < len; i += n) {
		n = decode(text + i, len - i, &cp);
		if (n && !is_harmful(cp) && !(ascii_only && cp >= 0x80)) {
			plain += n;
			continue;
		}
		(void)base_buf_append(out, text + i - plain, plain);
		plain = 0;
		if (!n || (!is_harmful(cp) && code_point_width(cp)))
			(void)base_buf_puts(out, unknown);
		if (!n)
			n = 1;
	}
	return base_buf_append(out, text + len - plain, plain);
}

/* ---- Our own drawing: text with style sequences ------------------------------------------------------------- */

/* Bytes of the style sequence (ESC [ ... m) at text, 0 when there is none. */
static size_t sgr_len(const char *text, size_t len)
{
	size_t i = 2;

	if (len < 3 || text[0] != '\033' || text[1] != '[')
		return 0;
	while (i < len && ((text[i] >= '0' && text[i] <= '9') || text[i] == ';'))
		i++;
	return i < len && text[i] == 'm' ? i + 1 : 0;
}

unsigned term_drawn_columns(const char *text, size_t len)
{
	unsigned columns = 0;

	for (size_t i = 0, n; i < len; i += n) {
		n = sgr_len(text + i, len - i);
		if (!n) {
			struct ag_term_cell cell = ag_term_cell_at(text + i, len - i);

			n = cell.len;
			columns += cell.width;
		}
	}
	return columns;
}

void term_append_drawn(struct base_buf *out, const char *text, size_t len, unsigned columns)
{
	unsigned used = 0;
	bool styled = false;

	for (size_t i = 0, n; i < len; i += n) {
		n = sgr_len(text + i, len - i);
		if (n) {
			styled = true;
		} else {
			struct ag_term_cell cell = ag_term_cell_at(text + i, len - i);

			n = cell.len;
			if (used + cell.width > columns) {
				if (styled)
					(void)base_buf_puts(out, "\033[0m");
				return;
			}
			used += cell.width;
		}
		(void)base_buf_append(out, text + i, n);
	}
}

void term_sanitize_drawn(struct base_buf *out, const char *text, size_t len, bool ascii_only)
{
	size_t from = 0, i = 0, n;

	while (i < len) {
		n = sgr_len(text + i, len - i);
		if (!n) {
			i++;
			continue;
		}
		(void)ag_term_sanitize(out, text + from, i - from, ascii_only);
		(void)base_buf_append(out, text + i, n);
		i += n;
		from = i;
	}
	(void)ag_term_sanitize(out, text + from, len - from, ascii_only);
}
