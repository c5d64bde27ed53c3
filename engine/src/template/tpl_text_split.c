/* The methods of Python's str that cut a text into pieces, named in tpl_text_methods.c. Pieces are parts of the same
 * memory. */
#include "tpl_interp.h"

#include <errno.h>

static size_t skip_blanks(const struct tpl_value *v, size_t i, bool blanks)
{
	uint32_t cp;
	size_t n;

	while (i < v->len) {
		n = eng_tpl_utf8_next(v->u.s + i, v->len - i, &cp);
		if (eng_tpl_is_space(cp) != blanks)
			break;
		i += n;
	}
	return i;
}

static int split_blanks(struct tpl_rt *rt, const struct tpl_value *v, int64_t max, struct tpl_list *l)
{
	size_t i = skip_blanks(v, 0, true), end;
	int r = 0;

	while (r == 0 && i < v->len) {
		if (max >= 0 && (int64_t)l->n == max)
			return eng_tpl_list_push(rt, l, tpl_text(v->u.s + i, v->len - i));
		end = skip_blanks(v, i, false);
		r = eng_tpl_list_push(rt, l, tpl_text(v->u.s + i, end - i));
		i = skip_blanks(v, end, true);
	}
	return r;
}

/* From the right: the pieces come last first. */
static int rsplit_blanks(struct tpl_rt *rt, const struct tpl_value *v, int64_t max, struct tpl_list *l)
{
	const struct tpl_value any = { 0 };
	struct tpl_value rest = eng_tpl_text_strip(v, &any, false, true);
	size_t begin, n;
	uint32_t cp;
	int r = 0;

	while (r == 0 && rest.len) {
		if (max >= 0 && (int64_t)l->n == max)
			return eng_tpl_list_push(rt, l, rest);
		for (begin = rest.len; begin > 0; begin -= n) {
			n = eng_tpl_utf8_prev(rest.u.s, begin);
			(void)eng_tpl_utf8_next(rest.u.s + begin - n, n, &cp);
			if (eng_tpl_is_space(cp))
				break;
		}
		r = eng_tpl_list_push(rt, l, tpl_text(rest.u.s + begin, rest.len - begin));
		rest.len = begin;
		rest = eng_tpl_text_strip(&rest, &any, false, true);
	}
	return r;
}

static int split_on(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *sep, int64_t max,
                    struct tpl_list *l)
{
	size_t at = 0;
	int64_t next;
	int r = 0;

	while (r == 0 && (max < 0 || (int64_t)l->n < max)) {
		next = eng_tpl_find(v->u.s, v->len, sep->u.s, sep->len, at);
		if (next < 0)
			break;
		r = eng_tpl_list_push(rt, l, tpl_text(v->u.s + at, (size_t)next - at));
		at = (size_t)next + sep->len;
	}
	return r < 0 ? r : eng_tpl_list_push(rt, l, tpl_text(v->u.s + at, v->len - at));
}

static int rsplit_on(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *sep, int64_t max,
                     struct tpl_list *l)
{
	size_t end = v->len;
	int64_t at;
	int r = 0;

	while (r == 0 && (max < 0 || (int64_t)l->n < max)) {
		at = eng_tpl_rfind(v->u.s, end, sep->u.s, sep->len);
		if (at < 0)
			break;
		r = eng_tpl_list_push(rt, l, tpl_text(v->u.s + at + sep->len, end - (size_t)at - sep->len));
		end = (size_t)at;
	}
	return r < 0 ? r : eng_tpl_list_push(rt, l, tpl_text(v->u.s, end));
}

static void reverse_items(struct tpl_list *l)
{
	for (size_t i = 0; i < l->n / 2; i++) {
		struct tpl_value v = l->v[i];

		l->v[i] = l->v[l->n - 1 - i];
		l->v[l->n - 1 - i] = v;
	}
}

static int split(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool right,
                 struct tpl_value *ret)
{
	const struct tpl_value *sep = &args->pos[0];
	struct tpl_list *l;
	int64_t max;
	int r = eng_tpl_arg_int(rt, &args->pos[1], "split()", -1, &max);

	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &l);
	if (r < 0)
		return r;
	if (sep->type == TPL_MISSING || sep->type == TPL_NONE) {
		r = right ? rsplit_blanks(rt, self, max, l) : split_blanks(rt, self, max, l);
	} else {
		if (sep->type == TPL_UNDEF)
			return eng_tpl_fail_undefined(rt, sep);
		if (sep->type != TPL_STR)
			return eng_tpl_fail(rt, -EINVAL, "must be str or None, not %s", eng_tpl_type_name(sep));
		if (sep->len == 0)
			return eng_tpl_fail(rt, -EINVAL, "empty separator");
		r = right ? rsplit_on(rt, self, sep, max, l) : split_on(rt, self, sep, max, l);
	}
	if (right)
		reverse_items(l);
	*ret = tpl_list_value(l);
	return r;
}

TPL_METHOD(eng_tpl_m_split)
{
	return split(rt, self, args, false, ret);
}

TPL_METHOD(eng_tpl_m_rsplit)
{
	return split(rt, self, args, true, ret);
}

TPL_METHOD(eng_tpl_m_splitlines)
{
	bool keep = eng_tpl_arg_bool(&args->pos[0], false);
	size_t begin = 0, n;
	struct tpl_list *l;
	uint32_t cp;
	int r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &l);

	for (size_t i = 0; r == 0 && i < self->len;) {
		n = eng_tpl_utf8_next(self->u.s + i, self->len - i, &cp);
		if (!((cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
		      cp == 0x2029)) {
			i += n;
			continue;
		}
		if (cp == '\r' && i + 1 < self->len && self->u.s[i + 1] == '\n')
			n = 2;
		r = eng_tpl_list_push(rt, l, tpl_text(self->u.s + begin, i - begin + (keep ? n : 0)));
		i += n;
		begin = i;
	}
	if (r == 0 && begin < self->len)
		r = eng_tpl_list_push(rt, l, tpl_text(self->u.s + begin, self->len - begin));
	*ret = tpl_list_value(l);
	return r;
}

static int partition(struct tpl_rt *rt, const struct tpl_value *self, const struct tpl_args *args, bool right,
                     struct tpl_value *ret)
{
	struct tpl_value sep, none = tpl_text("", 0);
	struct tpl_list *l;
	int64_t at = -1;
	int r = eng_tpl_arg_text(rt, &args->pos[0], "partition()", NULL, &sep);

	if (r == 0 && sep.len == 0)
		r = eng_tpl_fail(rt, -EINVAL, "empty separator");
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_TUPLE, 3, &l);
	if (r < 0)
		return r;
	at = right ? eng_tpl_rfind(self->u.s, self->len, sep.u.s, sep.len)
	           : eng_tpl_find(self->u.s, self->len, sep.u.s, sep.len, 0);
	l->n = 3;
	l->v[0] = l->v[1] = l->v[2] = none;
	if (at < 0) {
		l->v[right ? 2 : 0] = *self;
	} else {
		l->v[0] = tpl_text(self->u.s, (size_t)at);
		l->v[1] = sep;
		l->v[2] = tpl_text(self->u.s + at + sep.len, self->len - (size_t)at - sep.len);
	}
	*ret = tpl_list_value(l);
	return 0;
}

TPL_METHOD(eng_tpl_m_partition)
{
	return partition(rt, self, args, false, ret);
}

TPL_METHOD(eng_tpl_m_rpartition)
{
	return partition(rt, self, args, true, ret);
}
