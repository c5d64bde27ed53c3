/* Filters over sequences: order, groups, aggregates. What Jinja makes a generator has no length here
 * either; unlike there, it can be walked more than once. */
#include "tpl_interp.h"
#include "tpl_select.h"

#include <errno.h>
#include <string.h>

#define FILTER(name)                                                                                \
	static int name(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, \
	                struct tpl_value *ret)

/* ---- Sorting ------------------------------------------------------------------------------------------------ */

struct keyed {
	struct tpl_value key, value;
};

/* Stable merge sort; the comparison may fail. Reversing keeps equal items in their order, as Python does. */
static int merge_sort(struct tpl_rt *rt, struct keyed *a, struct keyed *tmp, size_t n, bool reverse)
{
	size_t half = n / 2, i = 0, k = half, out = 0;
	int r, order;

	if (n < 2)
		return 0;
	r = merge_sort(rt, a, tmp, half, reverse);
	if (r == 0)
		r = merge_sort(rt, a + half, tmp, n - half, reverse);
	while (r == 0 && i < half && k < n) {
		r = eng_tpl_order(rt, &a[k].key, &a[i].key, "<", &order);
		tmp[out++] = (reverse ? order > 0 : order < 0) ? a[k++] : a[i++];
	}
	if (r < 0)
		return r;
	while (i < half)
		tmp[out++] = a[i++];
	while (k < n)
		tmp[out++] = a[k++];
	memcpy(a, tmp, n * sizeof(*a));
	return 0;
}

static int fold_case(struct tpl_rt *rt, bool fold, struct tpl_value *v)
{
	return fold && v->type == TPL_STR ? eng_tpl_text_case(rt, v, false, v) : 0;
}

/* The sort key: the attribute, several of them ("a,b") as a tuple, or the item itself. */
static int sort_key(struct tpl_rt *rt, const struct tpl_value *item, const struct tpl_value *attr, bool fold,
                    struct tpl_value *ret)
{
	struct tpl_value part, v;
	struct tpl_list *l;
	const char *comma;
	size_t begin = 0, end;
	int r;

	if (attr->type != TPL_STR || !memchr(attr->u.s, ',', attr->len)) {
		r = eng_tpl_attr_path(rt, item, attr, NULL, ret);
		return r < 0 ? r : fold_case(rt, fold, ret);
	}
	r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &l);
	while (r == 0 && begin <= attr->len) {
		comma = memchr(attr->u.s + begin, ',', attr->len - begin);
		end = comma ? (size_t)(comma - attr->u.s) : attr->len;
		part = tpl_text(attr->u.s + begin, end - begin);
		r = eng_tpl_attr_path(rt, item, &part, NULL, &v);
		if (r == 0)
			r = fold_case(rt, fold, &v);
		if (r == 0)
			r = eng_tpl_list_push(rt, l, v);
		begin = end + 1;
	}
	*ret = tpl_list_value(l);
	return r;
}

static int sort_values(struct tpl_rt *rt, const struct tpl_list *items, const struct tpl_value *attr, bool fold,
                       bool reverse, struct tpl_list **ret)
{
	struct keyed *a = eng_tpl_arena_array(&rt->arena, items->n, sizeof(*a));
	struct keyed *tmp = eng_tpl_arena_array(&rt->arena, items->n, sizeof(*tmp));
	struct tpl_list *l;
	int r = a && tmp ? 0 : eng_tpl_fail_memory(rt);

	for (size_t i = 0; r == 0 && i < items->n; i++) {
		a[i].value = items->v[i];
		r = sort_key(rt, &items->v[i], attr, fold, &a[i].key);
	}
	if (r == 0)
		r = merge_sort(rt, a, tmp, items->n, reverse);
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_LIST, items->n, &l);
	for (size_t i = 0; r == 0 && i < items->n; i++)
		r = eng_tpl_list_push(rt, l, a[i].value);
	if (r < 0)
		return r;
	*ret = l;
	return 0;
}

FILTER(f_sort)
{
	struct tpl_list *items, *sorted;
	int r = eng_tpl_iterate(rt, in, &items);

	if (r == 0)
		r = sort_values(rt, items, &args->pos[2], !eng_tpl_arg_bool(&args->pos[1], false),
		                eng_tpl_arg_bool(&args->pos[0], false), &sorted);
	if (r < 0)
		return r;
	*ret = tpl_list_value(sorted);
	return 0;
}

FILTER(f_dictsort)
{
	struct tpl_value pos = tpl_int(0);
	const struct tpl_value *by = &args->pos[1];
	struct tpl_list *items, *sorted;
	int r = 0;

	if (in->type != TPL_DICT)
		return eng_tpl_fail(rt, -EINVAL, "dictsort needs a mapping, not %s", eng_tpl_type_name(in));
	if (by->type != TPL_MISSING) {
		if (!tpl_is_text(by, "key") && !tpl_is_text(by, "value"))
			return eng_tpl_fail(rt, -EINVAL, "You can only sort by either \"key\" or \"value\"");
		pos = tpl_int(tpl_is_text(by, "value"));
	}
	r = eng_tpl_dict_items(rt, in->u.dict, TPL_KIND_LIST, &items);
	if (r == 0)
		r = sort_values(rt, items, &pos, !eng_tpl_arg_bool(&args->pos[0], false),
		                eng_tpl_arg_bool(&args->pos[2], false), &sorted);
	if (r < 0)
		return r;
	*ret = tpl_list_value(sorted);
	return 0;
}

FILTER(f_groupby)
{
	struct tpl_value key, last_key = tpl_none(), attr = args->pos[0], first;
	const struct tpl_value *def = args->pos[1].type == TPL_MISSING ? NULL : &args->pos[1];
	bool fold = !eng_tpl_arg_bool(&args->pos[2], false), same = false;
	struct tpl_list *items, *groups, *group = NULL, *pair;
	struct keyed *a, *tmp;
	int r = eng_tpl_iterate(rt, in, &items);

	if (r < 0)
		return r;
	a = eng_tpl_arena_array(&rt->arena, items->n, sizeof(*a));
	tmp = eng_tpl_arena_array(&rt->arena, items->n, sizeof(*tmp));
	if (!a || !tmp)
		return eng_tpl_fail_memory(rt);
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		a[i].value = items->v[i];
		r = eng_tpl_attr_path(rt, &items->v[i], &attr, def, &a[i].key);
		if (r == 0)
			r = fold_case(rt, fold, &a[i].key);
	}
	if (r == 0)
		r = merge_sort(rt, a, tmp, items->n, false);
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &groups);
	for (size_t i = 0; r == 0 && i < items->n; i++, last_key = key) {
		key = a[i].key;
		if (i)
			r = eng_tpl_equal(rt, &key, &last_key, &same);
		if (r == 0 && (!i || !same)) {
			r = eng_tpl_attr_path(rt, &a[i].value, &attr, def, &first); /* the name as it is spelled */
			if (r == 0)
				r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &group);
			if (r == 0)
				r = eng_tpl_list_new(rt, TPL_KIND_GROUP, 2, &pair);
			if (r == 0)
				r = eng_tpl_list_push(rt, pair, first);
			if (r == 0)
				r = eng_tpl_list_push(rt, pair, tpl_list_value(group));
			if (r == 0)
				r = eng_tpl_list_push(rt, groups, tpl_list_value(pair));
		}
		if (r == 0)
			r = eng_tpl_list_push(rt, group, a[i].value);
	}
	if (r < 0)
		return r;
	*ret = tpl_list_value(groups);
	return 0;
}

/* ---- Picking and aggregating ----------------------------------------------------------------------------------- */

FILTER(f_unique)
{
	bool fold = !eng_tpl_arg_bool(&args->pos[0], false);
	struct tpl_list *items, *l;
	struct tpl_dict *seen;
	struct tpl_value key, *found;
	int r = eng_tpl_iterate(rt, in, &items);

	if (r == 0)
		r = eng_tpl_dict_new(rt, &seen);
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, 0, &l);
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		r = sort_key(rt, &items->v[i], &args->pos[1], fold, &key);
		if (r == 0)
			r = eng_tpl_dict_get(rt, seen, &key, &found);
		if (r < 0 || found)
			continue;
		r = eng_tpl_dict_set(rt, seen, key, tpl_none());
		if (r == 0)
			r = eng_tpl_list_push(rt, l, items->v[i]);
	}
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

static int extreme(struct tpl_rt *rt, const struct tpl_value *in, const struct tpl_args *args, bool max,
                   struct tpl_value *ret)
{
	bool fold = !eng_tpl_arg_bool(&args->pos[0], false);
	struct tpl_value best_key, key;
	struct tpl_list *items;
	size_t best = 0;
	int order, r = eng_tpl_iterate(rt, in, &items);

	if (r < 0)
		return r;
	if (items->n == 0)
		return eng_tpl_undef(rt, ret, "No aggregated item, sequence was empty.");
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		r = sort_key(rt, &items->v[i], &args->pos[1], fold, &key);
		if (r == 0 && i == 0)
			best_key = key;
		else if (r == 0)
			r = eng_tpl_order(rt, &key, &best_key, max ? ">" : "<", &order);
		if (r == 0 && i && (max ? order > 0 : order < 0)) {
			best_key = key;
			best = i;
		}
	}
	*ret = items->v[best];
	return r;
}

FILTER(f_max)
{
	return extreme(rt, in, args, true, ret);
}

FILTER(f_min)
{
	return extreme(rt, in, args, false, ret);
}

FILTER(f_sum)
{
	struct tpl_value sum = args->pos[1].type == TPL_MISSING ? tpl_int(0) : args->pos[1], v;
	struct tpl_list *items;
	int r = eng_tpl_iterate(rt, in, &items);

	for (size_t i = 0; r == 0 && i < items->n; i++) {
		r = eng_tpl_attr_path(rt, &items->v[i], &args->pos[0], NULL, &v);
		if (r == 0)
			r = eng_tpl_binary(rt, TPL_OP_ADD, &sum, &v, &sum);
	}
	*ret = sum;
	return r;
}

FILTER(f_join)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct tpl_value sep = tpl_text("", 0), v;
	struct tpl_list *items;
	int r = eng_tpl_iterate(rt, in, &items);

	if (r == 0 && args->pos[0].type != TPL_MISSING)
		r = eng_tpl_to_text(rt, &args->pos[0], &sep);
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		if (i)
			(void)base_buf_append(&buf, sep.u.s, sep.len);
		r = eng_tpl_attr_path(rt, &items->v[i], &args->pos[1], NULL, &v);
		if (r == 0)
			r = eng_tpl_str(rt, &v, &buf);
	}
	if (r == 0)
		r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

FILTER(f_first)
{
	struct tpl_list *items;
	int r = eng_tpl_iterate(rt, in, &items);

	(void)args;
	if (r < 0)
		return r;
	if (items->n == 0)
		return eng_tpl_undef(rt, ret, "No first item, sequence was empty.");
	*ret = items->v[0];
	return 0;
}

FILTER(f_last)
{
	struct tpl_list *items;
	int r = eng_tpl_iterate(rt, in, &items);

	(void)args;
	if (r < 0)
		return r;
	if (items->n == 0)
		return eng_tpl_undef(rt, ret, "No last item, sequence was empty.");
	*ret = items->v[items->n - 1];
	return 0;
}

FILTER(f_length)
{
	int64_t n = 0;
	int r = eng_tpl_length(rt, in, &n);

	(void)args;
	*ret = tpl_int(n);
	return r;
}

/* ---- Reshaping --------------------------------------------------------------------------------------------------- */

FILTER(f_list)
{
	struct tpl_list *items, *l;
	int r = eng_tpl_iterate(rt, in, &items);

	(void)args;
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_LIST, items->n, &l);
	for (size_t i = 0; r == 0 && i < items->n; i++)
		r = eng_tpl_list_push(rt, l, items->v[i]);
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

FILTER(f_items)
{
	struct tpl_list *l;
	int r;

	(void)args;
	if (in->type == TPL_UNDEF)
		r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, 0, &l);
	else if (in->type == TPL_DICT)
		r = eng_tpl_dict_items(rt, in->u.dict, TPL_KIND_GENERATOR, &l);
	else
		return eng_tpl_fail(rt, -EINVAL, "Can only get item pairs from a mapping.");
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

FILTER(f_reverse)
{
	struct tpl_value back[3] = { tpl_none(), tpl_none(), tpl_int(-1) };
	struct tpl_list *items, *l;
	int r;

	(void)args;
	if (in->type == TPL_STR)
		return eng_tpl_slice(rt, in, back, ret);
	r = eng_tpl_iterate(rt, in, &items);
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, items->n, &l);
	for (size_t i = r == 0 ? items->n : 0; r == 0 && i-- > 0;)
		r = eng_tpl_list_push(rt, l, items->v[i]);
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

/* Items [begin, end) as a list of their own, appended to `to`. */
static int push_part(struct tpl_rt *rt, struct tpl_list *to, const struct tpl_list *items, size_t begin, size_t end,
                     const struct tpl_value *fill, size_t n_fill)
{
	struct tpl_list *part;
	int r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &part);

	for (size_t i = begin; r == 0 && i < end; i++)
		r = eng_tpl_list_push(rt, part, items->v[i]);
	for (size_t i = 0; r == 0 && i < n_fill; i++)
		r = eng_tpl_list_push(rt, part, *fill);
	return r < 0 ? r : eng_tpl_list_push(rt, to, tpl_list_value(part));
}

FILTER(f_batch)
{
	const struct tpl_value *fill = &args->pos[1];
	bool fills = fill->type != TPL_MISSING && fill->type != TPL_NONE;
	struct tpl_list *items, *l;
	int64_t size;
	size_t end;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "batch", 0, &size);

	if (r == 0 && (size < 1 || size > TPL_MAX_RANGE))
		r = eng_tpl_fail(rt, -EINVAL, "batch: the size must be between 1 and %d", TPL_MAX_RANGE);
	if (r == 0)
		r = eng_tpl_iterate(rt, in, &items);
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, 0, &l);
	for (size_t i = 0; r == 0 && i < items->n; i = end) {
		end = items->n - i < (size_t)size ? items->n : i + (size_t)size;
		r = push_part(rt, l, items, i, end, fill, fills ? (size_t)size - (end - i) : 0);
	}
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

FILTER(f_slice)
{
	const struct tpl_value *fill = &args->pos[1];
	bool fills = fill->type != TPL_MISSING && fill->type != TPL_NONE;
	struct tpl_list *items, *l;
	int64_t n = 0;
	size_t begin = 0, size;
	int r = eng_tpl_arg_int(rt, &args->pos[0], "slice", 0, &n);

	if (r == 0 && (n < 1 || n > TPL_MAX_RANGE))
		r = eng_tpl_fail(rt, -EINVAL, "slice: the count must be between 1 and %d", TPL_MAX_RANGE);
	if (r == 0)
		r = eng_tpl_iterate(rt, in, &items);
	if (r == 0)
		r = eng_tpl_list_new(rt, TPL_KIND_GENERATOR, 0, &l);
	for (size_t i = 0; r == 0 && i < (size_t)n; i++, begin += size) {
		bool longer = i < items->n % (size_t)n;

		size = items->n / (size_t)n + longer;
		r = push_part(rt, l, items, begin, begin + size, fill, fills && !longer);
	}
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

const struct tpl_filter eng_tpl_seq_filters[] = {
	{ "batch", "linecount fill_with", 1, f_batch },
	{ "count", "", 0, f_length },
	{ "dictsort", "case_sensitive by reverse", 0, f_dictsort },
	{ "first", "", 0, f_first },
	{ "groupby", "attribute default case_sensitive", 1, f_groupby },
	{ "items", "", 0, f_items },
	{ "join", "d attribute", 0, f_join },
	{ "last", "", 0, f_last },
	{ "length", "", 0, f_length },
	{ "list", "", 0, f_list },
	{ "max", "case_sensitive attribute", 0, f_max },
	{ "min", "case_sensitive attribute", 0, f_min },
	{ "reverse", "", 0, f_reverse },
	{ "slice", "slices fill_with", 1, f_slice },
	{ "sort", "reverse case_sensitive attribute", 0, f_sort },
	{ "sum", "attribute start", 0, f_sum },
	{ "unique", "case_sensitive attribute", 0, f_unique },
	{ 0 },
};
