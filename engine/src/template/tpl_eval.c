/* Expressions: one function per kind of node, and the scopes that names are looked up in.
 *
 * Scopes are chained frames; the outermost one is the globals array, one slot per name of the template,
 * filled from the context on first use. A name nobody set is Undefined, which prints as nothing. */
#include "tpl_interp.h"

#include <errno.h>
#include <string.h>

/* ---- Scopes ------------------------------------------------------------------------------------------- */

int eng_tpl_frame_new(struct tpl_rt *rt, struct tpl_frame *parent, struct tpl_frame **ret)
{
	struct tpl_frame *f = eng_tpl_arena_alloc(&rt->arena, sizeof(*f));

	if (!f)
		return eng_tpl_fail_memory(rt);
	f->parent = parent;
	*ret = f;
	return 0;
}

int eng_tpl_set_var(struct tpl_rt *rt, uint32_t name, struct tpl_value v)
{
	struct tpl_frame *f = rt->frame;
	struct tpl_var *vars;
	uint32_t cap;

	if (!f) {
		rt->globals[name] = v;
		return 0;
	}
	for (uint32_t i = 0; i < f->n; i++) {
		if (f->vars[i].name == name) {
			f->vars[i].value = v;
			return 0;
		}
	}
	if (f->n == f->cap) {
		cap = f->cap ? f->cap * 2 : 4;
		vars = eng_tpl_arena_array(&rt->arena, cap, sizeof(*vars));
		if (!vars)
			return eng_tpl_fail_memory(rt);
		if (f->n)
			memcpy(vars, f->vars, f->n * sizeof(*vars));
		f->vars = vars;
		f->cap = cap;
	}
	f->vars[f->n++] = (struct tpl_var){ .name = name, .value = v };
	return 0;
}

static int lookup_global(struct tpl_rt *rt, uint32_t name, struct tpl_value *ret)
{
	const struct tpl_value *text = &rt->tmpl->names[name];
	json_t *json;
	int r;

	if (rt->globals[name].type == TPL_MISSING) {
		json = json_object_getn(rt->context, text->u.s, text->len);
		if (json)
			r = eng_tpl_from_json(rt, json, &rt->globals[name]);
		else if (eng_tpl_find_global(text->u.s, text->len, &rt->globals[name]))
			r = 0;
		else
			r = eng_tpl_undef(rt, &rt->globals[name], "'%.*s' is undefined", (int)text->len, text->u.s);
		if (r < 0)
			return r;
	}
	*ret = rt->globals[name];
	return 0;
}

int eng_tpl_lookup(struct tpl_rt *rt, uint32_t name, struct tpl_value *ret)
{
	for (const struct tpl_frame *f = rt->frame; f; f = f->parent) {
		for (uint32_t i = 0; i < f->n; i++) {
			if (f->vars[i].name == name) {
				*ret = f->vars[i].value;
				return 0;
			}
		}
	}
	return lookup_global(rt, name, ret);
}

/* ---- Displays and arguments --------------------------------------------------------------------------- */

static int eval_list(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	enum tpl_list_kind kind = n->kind == TPL_N_TUPLE ? TPL_KIND_TUPLE : TPL_KIND_LIST;
	struct tpl_list *l;
	struct tpl_value v;
	int r = eng_tpl_list_new(rt, kind, n->n_items, &l);

	for (uint32_t i = 0; r == 0 && i < n->n_items; i++) {
		r = eng_tpl_eval(rt, n->items[i], &v);
		if (r == 0)
			r = eng_tpl_list_push(rt, l, v);
	}
	if (r < 0)
		return r;
	*ret = tpl_list_value(l);
	return 0;
}

static int eval_dict(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value k, v;
	struct tpl_dict *d;
	int r = eng_tpl_dict_new(rt, &d);

	for (uint32_t i = 0; r == 0 && i + 1 < n->n_items; i += 2) {
		r = eng_tpl_eval(rt, n->items[i], &k);
		if (r == 0)
			r = eng_tpl_eval(rt, n->items[i + 1], &v);
		if (r == 0)
			r = eng_tpl_dict_set(rt, d, k, v);
	}
	if (r < 0)
		return r;
	*ret = (struct tpl_value){ .type = TPL_DICT, .u.dict = d };
	return 0;
}

/* *args: appends its items to the positional ones. */
static int spread_star(struct tpl_rt *rt, const struct tpl_node *star, struct tpl_value **pos, size_t *n_pos)
{
	struct tpl_value v, *all;
	struct tpl_list *l;
	int r = eng_tpl_eval(rt, star, &v);

	if (r == 0)
		r = eng_tpl_iterate(rt, &v, &l);
	if (r < 0)
		return r;
	all = eng_tpl_arena_array(&rt->arena, *n_pos + l->n, sizeof(*all));
	if (!all)
		return eng_tpl_fail_memory(rt);
	if (*n_pos)
		memcpy(all, *pos, *n_pos * sizeof(*all));
	if (l->n)
		memcpy(all + *n_pos, l->v, l->n * sizeof(*all));
	*pos = all;
	*n_pos += l->n;
	return 0;
}

/* **kwargs: appends its entries to the named ones. */
static int spread_star_star(struct tpl_rt *rt, const struct tpl_node *star, struct tpl_args *args)
{
	struct tpl_value v, *names, *vals;
	int r = eng_tpl_eval(rt, star, &v);
	size_t n;

	if (r < 0)
		return r;
	if (v.type != TPL_DICT)
		return eng_tpl_fail(rt, -EINVAL, "argument after ** must be a mapping, not %s", eng_tpl_type_name(&v));
	n = args->n_kw + v.u.dict->n;
	names = eng_tpl_arena_array(&rt->arena, n, sizeof(*names));
	vals = eng_tpl_arena_array(&rt->arena, n, sizeof(*vals));
	if (!names || !vals)
		return eng_tpl_fail_memory(rt);
	if (args->n_kw) {
		memcpy(names, args->kw_names, args->n_kw * sizeof(*names));
		memcpy(vals, args->kw_vals, args->n_kw * sizeof(*vals));
	}
	for (size_t i = 0; i < v.u.dict->n; i++) {
		if (v.u.dict->keys[i].type != TPL_STR)
			return eng_tpl_fail(rt, -EINVAL, "keywords must be strings");
		names[args->n_kw + i] = v.u.dict->keys[i];
		vals[args->n_kw + i] = v.u.dict->vals[i];
	}
	args->kw_names = names;
	args->kw_vals = vals;
	args->n_kw = n;
	return 0;
}

int eng_tpl_eval_args(struct tpl_rt *rt, const struct tpl_call_args *call, struct tpl_args *ret)
{
	struct tpl_value *pos = NULL, *kw = NULL;
	size_t n_pos = call->n_pos;
	int r = 0;

	*ret = (struct tpl_args){ .kw_names = call->kw_names, .n_kw = call->n_kw };
	if (call->n_pos + call->n_kw) {
		pos = eng_tpl_arena_array(&rt->arena, (size_t)call->n_pos + call->n_kw, sizeof(*pos));
		if (!pos)
			return eng_tpl_fail_memory(rt);
		kw = pos + call->n_pos;
	}
	for (uint32_t i = 0; r == 0 && i < call->n_pos; i++)
		r = eng_tpl_eval(rt, call->pos[i], &pos[i]);
	for (uint32_t i = 0; r == 0 && i < call->n_kw; i++)
		r = eng_tpl_eval(rt, call->kw_vals[i], &kw[i]);
	if (r == 0 && call->star)
		r = spread_star(rt, call->star, &pos, &n_pos);
	ret->pos = pos;
	ret->n_pos = n_pos;
	ret->kw_vals = kw;
	if (r == 0 && call->star_star)
		r = spread_star_star(rt, call->star_star, ret);
	return r;
}

/* ---- Operators ---------------------------------------------------------------------------------------- */

static int eval_concat(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value sum = tpl_text("", 0), v, text;
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < n->n_items; i++) {
		r = eng_tpl_eval(rt, n->items[i], &v);
		if (r == 0)
			r = eng_tpl_to_text(rt, &v, &text);
		if (r < 0)
			return r;
		if (i == 0) {
			sum = text;
			sum.markup = false;
			continue;
		}
		r = eng_tpl_text_concat(rt, &sum, text.u.s, text.len, &sum);
	}
	*ret = sum;
	return r;
}

static int compare_once(struct tpl_rt *rt, enum tpl_op op, const struct tpl_value *a, const struct tpl_value *b,
                        bool *ret)
{
	static const char *const names[] = {
		[TPL_OP_LT] = "<", [TPL_OP_LE] = "<=", [TPL_OP_GT] = ">", [TPL_OP_GE] = ">="
	};
	int r, order;

	switch (op) {
	case TPL_OP_EQ:
		return eng_tpl_equal(rt, a, b, ret);
	case TPL_OP_NE:
		r = eng_tpl_equal(rt, a, b, ret);
		*ret = !*ret;
		return r;
	case TPL_OP_IN:
		return eng_tpl_contains(rt, a, b, ret);
	case TPL_OP_NOT_IN:
		r = eng_tpl_contains(rt, a, b, ret);
		*ret = !*ret;
		return r;
	default:
		r = eng_tpl_order(rt, a, b, names[op], &order);
		if (r < 0)
			return r;
		*ret = op == TPL_OP_LT   ? order < 0
		       : op == TPL_OP_LE ? order <= 0
		       : op == TPL_OP_GT ? order > 0
		                         : order >= 0;
		/* NaN is neither less, equal nor greater. */
		if ((a->type == TPL_FLOAT && a->u.f != a->u.f) || (b->type == TPL_FLOAT && b->u.f != b->u.f))
			*ret = false;
		return 0;
	}
}

/* a < b < c: each pair in turn, until one fails. */
static int eval_compare(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value left, right;
	bool holds = true;
	int r = eng_tpl_eval(rt, n->a, &left);

	for (uint32_t i = 0; r == 0 && holds && i < n->n_items; i++) {
		r = eng_tpl_eval(rt, n->items[i]->a, &right);
		if (r == 0)
			r = compare_once(rt, n->items[i]->op, &left, &right, &holds);
		left = right;
	}
	*ret = tpl_bool(holds);
	return r;
}

static int eval_binary(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value a, b;
	int r = eng_tpl_eval(rt, n->a, &a);

	if (r == 0)
		r = eng_tpl_eval(rt, n->b, &b);
	if (r < 0)
		return r;
	rt->line = n->line;
	return eng_tpl_binary(rt, n->op, &a, &b, ret);
}

static int eval_cond(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value test;
	int r = eng_tpl_eval(rt, n->b, &test);

	if (r < 0)
		return r;
	if (eng_tpl_truth(&test))
		return eng_tpl_eval(rt, n->a, ret);
	if (n->c)
		return eng_tpl_eval(rt, n->c, ret);
	return eng_tpl_undef(rt, ret,
	                     "the inline if-expression on line %u evaluated to false and no else section was defined.",
	                     n->line);
}

/* and, or: the operand that decides. */
static int eval_logic(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	int r = eng_tpl_eval(rt, n->a, ret);

	if (r < 0 || eng_tpl_truth(ret) == (n->kind == TPL_N_OR))
		return r;
	return eng_tpl_eval(rt, n->b, ret);
}

static int eval_item(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value of, key;
	int r = eng_tpl_eval(rt, n->a, &of);

	if (r == 0)
		r = eng_tpl_eval(rt, n->b, &key);
	return r < 0 ? r : eng_tpl_get_item(rt, &of, &key, ret);
}

static int eval_slice(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	const struct tpl_node *parts[3] = { n->b, n->c, n->d };
	struct tpl_value of, bounds[3];
	int r = eng_tpl_eval(rt, n->a, &of);

	for (int i = 0; r == 0 && i < 3; i++) {
		bounds[i] = tpl_none();
		if (parts[i])
			r = eng_tpl_eval(rt, parts[i], &bounds[i]);
	}
	return r < 0 ? r : eng_tpl_slice(rt, &of, bounds, ret);
}

static int eval_call(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value callee;
	struct tpl_args args;
	int r = eng_tpl_eval(rt, n->a, &callee);

	if (r == 0)
		r = eng_tpl_eval_args(rt, n->args, &args);
	if (r < 0)
		return r;
	rt->line = n->line;
	return eng_tpl_call(rt, &callee, &args, ret);
}

static int eval_filter(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value in;
	struct tpl_args args;
	int r = eng_tpl_eval(rt, n->a, &in);

	if (r == 0)
		r = eng_tpl_eval_args(rt, n->args, &args);
	if (r < 0)
		return r;
	rt->line = n->line;
	return eng_tpl_call_filter(rt, n->filter, &in, &args, ret);
}

static int eval_test(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value v, arg = { .type = TPL_MISSING };
	bool holds = false;
	int r = eng_tpl_eval(rt, n->a, &v);

	if (r == 0 && n->args->n_pos)
		r = eng_tpl_eval(rt, n->args->pos[0], &arg);
	if (r < 0)
		return r;
	rt->line = n->line;
	r = n->test->fn(rt, &v, &arg, &holds);
	*ret = tpl_bool(holds);
	return r;
}

static int eval_node(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_value v;
	int r;

	switch ((enum tpl_node_kind)n->kind) {
	case TPL_N_CONST:
		*ret = n->value;
		return 0;
	case TPL_N_NAME:
		return eng_tpl_lookup(rt, n->name, ret);
	case TPL_N_TUPLE:
	case TPL_N_LIST:
		return eval_list(rt, n, ret);
	case TPL_N_DICT:
		return eval_dict(rt, n, ret);
	case TPL_N_COND:
		return eval_cond(rt, n, ret);
	case TPL_N_AND:
	case TPL_N_OR:
		return eval_logic(rt, n, ret);
	case TPL_N_NOT:
		r = eng_tpl_eval(rt, n->a, &v);
		*ret = tpl_bool(r == 0 && !eng_tpl_truth(&v));
		return r;
	case TPL_N_NEG:
	case TPL_N_POS:
		r = eng_tpl_eval(rt, n->a, &v);
		return r < 0 ? r : eng_tpl_negate(rt, &v, n->kind == TPL_N_POS, ret);
	case TPL_N_BINARY:
		return eval_binary(rt, n, ret);
	case TPL_N_CONCAT:
		return eval_concat(rt, n, ret);
	case TPL_N_COMPARE:
		return eval_compare(rt, n, ret);
	case TPL_N_ATTR:
		r = eng_tpl_eval(rt, n->a, &v);
		return r < 0 ? r : eng_tpl_get_attr(rt, &v, n->value.u.s, n->value.len, ret);
	case TPL_N_ITEM:
		return eval_item(rt, n, ret);
	case TPL_N_SLICE:
		return eval_slice(rt, n, ret);
	case TPL_N_CALL:
		return eval_call(rt, n, ret);
	case TPL_N_FILTER:
		return eval_filter(rt, n, ret);
	case TPL_N_TEST:
		return eval_test(rt, n, ret);
	default:
		return eng_tpl_fail(rt, -EINVAL, "not an expression");
	}
}

int eng_tpl_eval(struct tpl_rt *rt, const struct tpl_node *node, struct tpl_value *ret)
{
	int r;

	if (node->kind == TPL_N_CONST) {
		*ret = node->value;
		return 0;
	}
	r = eng_tpl_step(rt, 1);
	if (r == 0)
		r = eng_tpl_enter(rt);
	if (r < 0)
		return r;
	rt->line = node->line;
	r = eval_node(rt, node, ret);
	tpl_leave(rt);
	return r;
}
