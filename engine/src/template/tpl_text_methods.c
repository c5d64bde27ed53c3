/* The methods of Python's str, but for those that cut it (tpl_text_split.c). Arguments arrive bound: args->pos[i] is
 * parameter i or TPL_MISSING. */
#include "tpl_interp.h"

#include <errno.h>
#include <string.h>
#include <utf8proc.h>

static TPL_METHOD(m_upper)
{
	(void)args;
	return eng_tpl_text_case(rt, self, true, ret);
}

static TPL_METHOD(m_lower)
{
	(void)args;
	return eng_tpl_text_case(rt, self, false, ret);
}

static TPL_METHOD(m_capitalize)
{
	(void)args;
	return eng_tpl_text_capitalize(rt, self, ret);
}

static bool is_letter(uint32_t cp)
{
	utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);

	return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

/* title() and swapcase() decide per character. */
static int map_case(struct tpl_rt *rt, const struct tpl_value *self, bool swap, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	bool after_letter = false, upper;
	uint32_t cp;
	int r;

	for (size_t i = 0; i < self->len;) {
		i += eng_tpl_utf8_next(self->u.s + i, self->len - i, &cp);
		upper = swap ? utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LL : !after_letter;
		after_letter = is_letter(cp);
		eng_tpl_utf8_put(&buf, (uint32_t)(upper ? utf8proc_toupper((utf8proc_int32_t)cp)
		                                        : utf8proc_tolower((utf8proc_int32_t)cp)));
	}
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

static TPL_METHOD(m_title)
{
	(void)args;
	return map_case(rt, self, false, ret);
}

static TPL_METHOD(m_swapcase)
{
	(void)args;
	return map_case(rt, self, true, ret);
}

static int strip(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool left, bool right,
                 struct tpl_value *ret)
{
	const struct tpl_value *chars = &args->pos[0];

	if (chars->type != TPL_MISSING && chars->type != TPL_NONE && chars->type != TPL_STR)
		return eng_tpl_fail(rt, -EINVAL, "strip arg must be None or str");
	*ret = eng_tpl_text_strip(self, chars, left, right);
	return 0;
}

static TPL_METHOD(m_strip)
{
	return strip(rt, self, args, true, true, ret);
}

static TPL_METHOD(m_lstrip)
{
	return strip(rt, self, args, true, false, ret);
}

static TPL_METHOD(m_rstrip)
{
	return strip(rt, self, args, false, true, ret);
}

static bool has_affix(const struct tpl_value *self, const struct tpl_value *affix, bool end)
{
	return self->len >= affix->len &&
	       memcmp(self->u.s + (end ? self->len - affix->len : 0), affix->u.s, affix->len) == 0;
}

/* startswith, endswith: one text or a tuple of them, within optional bounds. */
static int test_affix(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool end,
                      struct tpl_value *ret)
{
	const struct tpl_value *affix = &args->pos[0], *one;
	struct tpl_value bounds[3] = { tpl_none(), tpl_none(), tpl_none() }, within = *self;
	bool found = false;
	size_t n = 1;
	int r = 0;

	for (int i = 0; i < 2; i++)
		bounds[i] = args->pos[i + 1].type == TPL_MISSING ? tpl_none() : args->pos[i + 1];
	if (bounds[0].type != TPL_NONE || bounds[1].type != TPL_NONE)
		r = eng_tpl_slice(rt, self, bounds, &within);
	if (r < 0)
		return r;
	if (affix->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, affix);
	if (tpl_is_kind(affix, TPL_KIND_TUPLE))
		n = affix->u.list->n;
	for (size_t i = 0; !found && i < n; i++) {
		one = affix->type == TPL_LIST ? &affix->u.list->v[i] : affix;
		if (one->type != TPL_STR)
			return eng_tpl_fail(rt, -EINVAL, "%s first arg must be str or a tuple of str, not %s",
			                    end ? "endswith" : "startswith", eng_tpl_type_name(one));
		found = has_affix(&within, one, end);
	}
	*ret = tpl_bool(found);
	return 0;
}

static TPL_METHOD(m_startswith)
{
	return test_affix(rt, self, args, false, ret);
}

static TPL_METHOD(m_endswith)
{
	return test_affix(rt, self, args, true, ret);
}

static int remove_affix(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool end,
                        struct tpl_value *ret)
{
	struct tpl_value affix;
	int r = eng_tpl_arg_text(rt, &args->pos[0], end ? "removesuffix()" : "removeprefix()", NULL, &affix);

	if (r < 0)
		return r;
	*ret = *self;
	if (!has_affix(self, &affix, end))
		return 0;
	*ret = tpl_text(self->u.s + (end ? 0 : affix.len), self->len - affix.len);
	return 0;
}

static TPL_METHOD(m_removeprefix)
{
	return remove_affix(rt, self, args, false, ret);
}

static TPL_METHOD(m_removesuffix)
{
	return remove_affix(rt, self, args, true, ret);
}

/* ---- Searching and joining ---------------------------------------------------------------------------------- */

/* Code point position of args[0] within optional bounds, -1 when it is not there. */
static int find_position(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool last,
                         int64_t *ret)
{
	struct tpl_value needle, within = *self, bounds[3] = { tpl_none(), tpl_none(), tpl_none() };
	int64_t at;
	int r = eng_tpl_arg_text(rt, &args->pos[0], "find()", NULL, &needle);

	for (int i = 0; i < 2; i++)
		bounds[i] = args->pos[i + 1].type == TPL_MISSING ? tpl_none() : args->pos[i + 1];
	if (r == 0 && (bounds[0].type != TPL_NONE || bounds[1].type != TPL_NONE))
		r = eng_tpl_slice(rt, self, bounds, &within);
	if (r == 0)
		r = eng_tpl_step(rt, within.len >> 4);
	if (r < 0)
		return r;
	at = last ? eng_tpl_rfind(within.u.s, within.len, needle.u.s, needle.len)
	          : eng_tpl_find(within.u.s, within.len, needle.u.s, needle.len, 0);
	*ret = at < 0 ? -1 : (int64_t)eng_tpl_utf8_count(self->u.s, (size_t)(within.u.s - self->u.s) + (size_t)at);
	return 0;
}

static int find_common(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool last,
                       bool must, struct tpl_value *ret)
{
	int64_t at = -1;
	int r = find_position(rt, self, args, last, &at);

	if (r == 0 && at < 0 && must)
		return eng_tpl_fail(rt, -EINVAL, "substring not found");
	*ret = tpl_int(at);
	return r;
}

static TPL_METHOD(m_find)
{
	return find_common(rt, self, args, false, false, ret);
}

static TPL_METHOD(m_rfind)
{
	return find_common(rt, self, args, true, false, ret);
}

static TPL_METHOD(m_index)
{
	return find_common(rt, self, args, false, true, ret);
}

static TPL_METHOD(m_rindex)
{
	return find_common(rt, self, args, true, true, ret);
}

static TPL_METHOD(m_count)
{
	struct tpl_value needle;
	int64_t n = 0, at = 0;
	int r = eng_tpl_arg_text(rt, &args->pos[0], "count()", NULL, &needle);

	if (r < 0)
		return r;
	if (needle.len == 0)
		n = (int64_t)eng_tpl_utf8_count(self->u.s, self->len) + 1;
	while (needle.len && (at = eng_tpl_find(self->u.s, self->len, needle.u.s, needle.len, (size_t)at)) >= 0) {
		at += (int64_t)needle.len;
		n++;
	}
	*ret = tpl_int(n);
	return eng_tpl_step(rt, self->len >> 4);
}

static TPL_METHOD(m_replace)
{
	struct tpl_value from, to;
	int64_t count;
	int r = eng_tpl_arg_text(rt, &args->pos[0], "replace()", NULL, &from);

	if (r == 0)
		r = eng_tpl_arg_text(rt, &args->pos[1], "replace()", NULL, &to);
	if (r == 0)
		r = eng_tpl_arg_int(rt, &args->pos[2], "replace()", -1, &count);
	return r < 0 ? r : eng_tpl_text_replace(rt, self, &from, &to, count, ret);
}

static TPL_METHOD(m_join)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct tpl_list *l;
	int r = eng_tpl_iterate(rt, &args->pos[0], &l);

	for (size_t i = 0; r == 0 && i < l->n; i++) {
		if (l->v[i].type != TPL_STR) {
			r = eng_tpl_fail(rt, -EINVAL, "sequence item %zu: expected str instance, %s found", i,
			                 eng_tpl_type_name(&l->v[i]));
			break;
		}
		if (i)
			(void)base_buf_append(&buf, self->u.s, self->len);
		(void)base_buf_append(&buf, l->v[i].u.s, l->v[i].len);
	}
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

static TPL_METHOD(m_format)
{
	return eng_tpl_format_braces(rt, self, args, ret);
}

/* ---- Padding ---------------------------------------------------------------------------------------------------- */

static int pad(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, char align,
               struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct tpl_value fill;
	int64_t width, n = (int64_t)eng_tpl_utf8_count(self->u.s, self->len), before, total;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "width", 0, &width);

	if (r == 0)
		r = eng_tpl_arg_text(rt, &args->pos[1], "fill character", align == '0' ? "0" : " ", &fill);
	if (r == 0 && eng_tpl_utf8_count(fill.u.s, fill.len) != 1)
		r = eng_tpl_fail(rt, -EINVAL, "The fill character must be exactly one character long");
	if (r == 0 && width > 1 << 20)
		r = eng_tpl_fail_memory(rt);
	if (r < 0)
		return r;
	total = width > n ? width - n : 0;
	/* Python's center() puts the odd blank left when the width is odd. */
	before = align == '<' ? 0 : align == '^' ? total / 2 + (total & width & 1) : total;
	for (int64_t i = 0; i < before; i++)
		(void)base_buf_append(&buf, fill.u.s, fill.len);
	(void)base_buf_append(&buf, self->u.s, self->len);
	for (int64_t i = before; i < total; i++)
		(void)base_buf_append(&buf, fill.u.s, fill.len);
	r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

static TPL_METHOD(m_ljust)
{
	return pad(rt, self, args, '<', ret);
}

static TPL_METHOD(m_rjust)
{
	return pad(rt, self, args, '>', ret);
}

static TPL_METHOD(m_center)
{
	return pad(rt, self, args, '^', ret);
}

static TPL_METHOD(m_zfill)
{
	struct tpl_value sign = tpl_text(self->u.s, 0), digits = *self, width[TPL_MAX_PARAMS] = { args->pos[0] };
	const struct tpl_args padded = { .pos = width };
	int64_t n;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "zfill()", 0, &n);

	if (r < 0)
		return r;
	if (self->len && (self->u.s[0] == '+' || self->u.s[0] == '-')) {
		sign.len = 1;
		digits = tpl_text(self->u.s + 1, self->len - 1);
		width[0] = tpl_int(n > 0 ? n - 1 : 0);
	}
	r = pad(rt, &digits, &padded, '0', ret);
	return r < 0 || !sign.len ? r : eng_tpl_text_concat(rt, &sign, ret->u.s, ret->len, ret);
}

/* ---- Questions --------------------------------------------------------------------------------------------------- */

static bool is_digit(uint32_t cp)
{
	return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}

static bool is_alnum(uint32_t cp)
{
	return is_letter(cp) || is_digit(cp);
}

static bool is_ascii(uint32_t cp)
{
	return cp < 0x80;
}

/* Not empty, and all characters are. */
static int all_are(const struct tpl_value *self, bool (*is)(uint32_t cp), struct tpl_value *ret)
{
	bool all = self->len > 0;
	uint32_t cp;

	for (size_t i = 0; all && i < self->len;) {
		i += eng_tpl_utf8_next(self->u.s + i, self->len - i, &cp);
		all = is(cp);
	}
	*ret = tpl_bool(all);
	return 0;
}

static TPL_METHOD(m_isdigit)
{
	(void)rt, (void)args;
	return all_are(self, is_digit, ret);
}

static TPL_METHOD(m_isalpha)
{
	(void)rt, (void)args;
	return all_are(self, is_letter, ret);
}

static TPL_METHOD(m_isalnum)
{
	(void)rt, (void)args;
	return all_are(self, is_alnum, ret);
}

static TPL_METHOD(m_isspace)
{
	(void)rt, (void)args;
	return all_are(self, eng_tpl_is_space, ret);
}

static TPL_METHOD(m_isascii)
{
	(void)rt, (void)args;
	*ret = tpl_bool(true);
	return self->len ? all_are(self, is_ascii, ret) : 0;
}

/* Some letter has case, and none has the other one. */
static bool has_only_case(const struct tpl_value *self, bool upper)
{
	utf8proc_category_t c;
	bool some = false;
	uint32_t cp;

	for (size_t i = 0; i < self->len;) {
		i += eng_tpl_utf8_next(self->u.s + i, self->len - i, &cp);
		c = utf8proc_category((utf8proc_int32_t)cp);
		if (c == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU) || c == UTF8PROC_CATEGORY_LT)
			return false;
		some |= c == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
	}
	return some;
}

static TPL_METHOD(m_isupper)
{
	(void)rt, (void)args;
	*ret = tpl_bool(has_only_case(self, true));
	return 0;
}

static TPL_METHOD(m_islower)
{
	(void)rt, (void)args;
	*ret = tpl_bool(has_only_case(self, false));
	return 0;
}

const struct tpl_method eng_tpl_text_methods[] = {
	{ "capitalize", "", 0, m_capitalize },
	{ "casefold", "", 0, m_lower },
	{ "center", "width fillchar", 1, m_center },
	{ "count", "sub", 1, m_count },
	{ "endswith", "suffix start end", 1, m_endswith },
	{ "find", "sub start end", 1, m_find },
	{ "format", NULL, 0, m_format },
	{ "index", "sub start end", 1, m_index },
	{ "isalnum", "", 0, m_isalnum },
	{ "isalpha", "", 0, m_isalpha },
	{ "isascii", "", 0, m_isascii },
	{ "isdecimal", "", 0, m_isdigit },
	{ "isdigit", "", 0, m_isdigit },
	{ "islower", "", 0, m_islower },
	{ "isnumeric", "", 0, m_isdigit },
	{ "isspace", "", 0, m_isspace },
	{ "isupper", "", 0, m_isupper },
	{ "join", "iterable", 1, m_join },
	{ "ljust", "width fillchar", 1, m_ljust },
	{ "lower", "", 0, m_lower },
	{ "lstrip", "chars", 0, m_lstrip },
	{ "partition", "sep", 1, eng_tpl_m_partition },
	{ "removeprefix", "prefix", 1, m_removeprefix },
	{ "removesuffix", "suffix", 1, m_removesuffix },
	{ "replace", "old new count", 2, m_replace },
	{ "rfind", "sub start end", 1, m_rfind },
	{ "rindex", "sub start end", 1, m_rindex },
	{ "rjust", "width fillchar", 1, m_rjust },
	{ "rpartition", "sep", 1, eng_tpl_m_rpartition },
	{ "rsplit", "sep maxsplit", 0, eng_tpl_m_rsplit },
	{ "rstrip", "chars", 0, m_rstrip },
	{ "split", "sep maxsplit", 0, eng_tpl_m_split },
	{ "splitlines", "keepends", 0, eng_tpl_m_splitlines },
	{ "startswith", "prefix start end", 1, m_startswith },
	{ "strip", "chars", 0, m_strip },
	{ "swapcase", "", 0, m_swapcase },
	{ "title", "", 0, m_title },
	{ "upper", "", 0, m_upper },
	{ "zfill", "width", 1, m_zfill },
	{ 0 },
};
