/* Calls: spreading arguments over parameters, macros, and the functions every template has. */
#include "tpl_interp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- Arguments ------------------------------------------------------------------------------------------ */

/* The next name of a space-separated list, or NULL. */
static const char *next_param(const char **list, size_t *ret_len)
{
	const char *name = *list, *end;

	while (*name == ' ')
		name++;
	if (!*name)
		return NULL;
	end = strchrnul(name, ' ');
	*ret_len = (size_t)(end - name);
	*list = end;
	return name;
}

static int bind_keyword(struct tpl_rt *rt, const char *callee, const char *params, const struct tpl_value *name,
                        const struct tpl_value *v, struct tpl_value *out)
{
	const char *list = params, *param;
	size_t len;

	for (unsigned i = 0; (param = next_param(&list, &len)); i++) {
		if (len != name->len || memcmp(param, name->u.s, len) != 0)
			continue;
		if (out[i].type != TPL_MISSING)
			return eng_tpl_fail(rt, -EINVAL, "%s() got multiple values for argument '%.*s'", callee,
			                    (int)len, param);
		out[i] = *v;
		return 0;
	}
	return eng_tpl_fail(rt, -EINVAL, "%s() got an unexpected keyword argument '%.*s'", callee,
	                    (int)(name->len < 80 ? name->len : 80), name->u.s);
}

int eng_tpl_bind(struct tpl_rt *rt, const char *callee, const char *params, unsigned n_required,
                 const struct tpl_args *args, struct tpl_value out[TPL_MAX_PARAMS])
{
	const char *list = params, *param;
	unsigned n = 0;
	size_t len;
	int r = 0;

	while (next_param(&list, &len))
		out[n++].type = TPL_MISSING;
	if (args->n_pos > n)
		return eng_tpl_fail(rt, -EINVAL, "%s() takes at most %u argument%s (%zu given)", callee, n,
		                    n == 1 ? "" : "s", args->n_pos);
	for (size_t i = 0; i < args->n_pos; i++)
		out[i] = args->pos[i];
	for (size_t i = 0; r == 0 && i < args->n_kw; i++)
		r = bind_keyword(rt, callee, params, &args->kw_names[i], &args->kw_vals[i], out);
	if (r < 0)
		return r;
	list = params;
	for (unsigned i = 0; i < n_required; i++) {
		param = next_param(&list, &len);
		if (param && out[i].type == TPL_MISSING)
			return eng_tpl_fail(rt, -EINVAL, "%s() missing required argument: '%.*s'", callee, (int)len,
			                    param);
	}
	return 0;
}

int eng_tpl_arg_int(struct tpl_rt *rt, const struct tpl_value *arg, const char *what, int64_t def, int64_t *ret)
{
	if (arg->type == TPL_MISSING) {
		*ret = def;
		return 0;
	}
	if (arg->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, arg);
	if (arg->type != TPL_INT && arg->type != TPL_BOOL)
		return eng_tpl_fail(rt, -EINVAL, "%s: expected an integer, got '%s'", what, eng_tpl_type_name(arg));
	*ret = tpl_as_int(arg);
	return 0;
}

int eng_tpl_arg_text(struct tpl_rt *rt, const struct tpl_value *arg, const char *what, const char *def,
                     struct tpl_value *ret)
{
	if (arg->type == TPL_MISSING && def) {
		*ret = tpl_text(def, strlen(def));
		return 0;
	}
	if (arg->type == TPL_UNDEF)
		return eng_tpl_fail_undefined(rt, arg);
	if (arg->type != TPL_STR)
		return eng_tpl_fail(rt, -EINVAL, "%s: expected a string, got '%s'", what, eng_tpl_type_name(arg));
	*ret = *arg;
	return 0;
}

bool eng_tpl_arg_bool(const struct tpl_value *arg, bool def)
{
	return arg->type == TPL_MISSING ? def : eng_tpl_truth(arg);
}

/* ---- Macros ----------------------------------------------------------------------------------------------- */

/* Named arguments a macro has no parameter for: caller, or what it takes as kwargs. */
static int macro_extra_keyword(struct tpl_rt *rt, const struct tpl_node *n, const struct tpl_value *name,
                               const struct tpl_value *v, struct tpl_dict *kwargs)
{
	if (tpl_is_text(name, "caller") && (n->op & TPL_USES_CALLER))
		return eng_tpl_set_var(rt, rt->tmpl->name_caller, *v);
	if (n->op & TPL_USES_KWARGS)
		return eng_tpl_dict_set(rt, kwargs, *name, *v);
	return eng_tpl_fail(rt, -EINVAL, "macro '%.*s' takes no keyword argument '%.*s'", (int)n->value.len,
	                    n->value.u.s, (int)(name->len < 80 ? name->len : 80), name->u.s);
}

static int macro_keywords(struct tpl_rt *rt, const struct tpl_node *n, const struct tpl_args *args, bool *given)
{
	struct tpl_dict *kwargs = NULL;
	uint32_t p;
	int r = 0;

	if (n->op & TPL_USES_KWARGS)
		r = eng_tpl_dict_new(rt, &kwargs);
	for (size_t i = 0; r == 0 && i < args->n_kw; i++) {
		for (p = 0; p < n->n_items; p++) {
			if (n->items[p]->value.len == args->kw_names[i].len &&
			    memcmp(n->items[p]->value.u.s, args->kw_names[i].u.s, args->kw_names[i].len) == 0)
				break;
		}
		if (p == n->n_items) {
			r = macro_extra_keyword(rt, n, &args->kw_names[i], &args->kw_vals[i], kwargs);
		} else if (given[p]) {
			r = eng_tpl_fail(rt, -EINVAL, "macro '%.*s' got two values for argument '%.*s'",
			                 (int)n->value.len, n->value.u.s, (int)args->kw_names[i].len,
			                 args->kw_names[i].u.s);
		} else {
			given[p] = true;
			r = eng_tpl_set_var(rt, n->items[p]->name, args->kw_vals[i]);
		}
	}
	if (r == 0 && kwargs)
		r = eng_tpl_set_var(rt, rt->tmpl->name_kwargs,
		                    (struct tpl_value){ .type = TPL_DICT, .u.dict = kwargs });
	return r;
}

/* Parameters into the macro's frame, which is the current one; defaults see the parameters before them. */
static int macro_params(struct tpl_rt *rt, const struct tpl_node *n, const struct tpl_args *args)
{
	bool *given = eng_tpl_arena_alloc(&rt->arena, n->n_items);
	uint32_t first_default = n->n_items - n->n_defaults;
	struct tpl_list *varargs;
	struct tpl_value v;
	int r = 0;

	if (!given)
		return eng_tpl_fail_memory(rt);
	if (args->n_pos > n->n_items && !(n->op & TPL_USES_VARARGS))
		return eng_tpl_fail(rt, -EINVAL, "macro '%.*s' takes not more than %u argument(s)", (int)n->value.len,
		                    n->value.u.s, n->n_items);
	for (uint32_t i = 0; r == 0 && i < n->n_items && i < args->n_pos; i++) {
		given[i] = true;
		r = eng_tpl_set_var(rt, n->items[i]->name, args->pos[i]);
	}
	if (r == 0 && (n->op & TPL_USES_VARARGS)) {
		r = eng_tpl_list_new(rt, TPL_KIND_TUPLE, 0, &varargs);
		for (size_t i = n->n_items; r == 0 && i < args->n_pos; i++)
			r = eng_tpl_list_push(rt, varargs, args->pos[i]);
		if (r == 0)
			r = eng_tpl_set_var(rt, rt->tmpl->name_varargs, tpl_list_value(varargs));
	}
	if (r == 0)
		r = macro_keywords(rt, n, args, given);
	for (uint32_t i = 0; r == 0 && i < n->n_items; i++) {
		if (given[i])
			continue;
		if (i >= first_default)
			r = eng_tpl_eval(rt, n->defaults[i - first_default], &v);
		else
			r = eng_tpl_undef(rt, &v, "parameter '%.*s' was not provided", (int)n->items[i]->value.len,
			                  n->items[i]->value.u.s);
		if (r == 0)
			r = eng_tpl_set_var(rt, n->items[i]->name, v);
	}
	return r;
}

static int call_macro(struct tpl_rt *rt, const struct tpl_macro *macro, const struct tpl_args *args,
                      struct tpl_value *ret)
{
	struct tpl_frame *outer = rt->frame, *frame;
	struct tpl_value caller;
	int r = eng_tpl_frame_new(rt, macro->frame, &frame);

	if (r < 0)
		return r;
	rt->frame = frame;
	r = 0;
	if (macro->node->op & TPL_USES_CALLER) {
		r = eng_tpl_undef(rt, &caller, "No caller defined");
		if (r == 0)
			r = eng_tpl_set_var(rt, rt->tmpl->name_caller, caller);
	}
	if (r == 0)
		r = macro_params(rt, macro->node, args);
	rt->frame = outer;
	return r < 0 ? r : eng_tpl_capture(rt, macro->node->d, frame, ret);
}

/* ---- Functions ---------------------------------------------------------------------------------------------- */

static int fn_range(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	struct tpl_value b[TPL_MAX_PARAMS];
	int64_t start = 0, stop, step = 1, n = 0;
	struct tpl_list *l;
	int r = eng_tpl_bind(rt, "range", "start stop step", 1, args, b);

	if (r == 0)
		r = eng_tpl_arg_int(rt, &b[0], "range()", 0, &stop);
	if (r == 0 && b[1].type != TPL_MISSING) {
		start = stop;
		r = eng_tpl_arg_int(rt, &b[1], "range()", 0, &stop);
	}
	if (r == 0)
		r = eng_tpl_arg_int(rt, &b[2], "range()", 1, &step);
	if (r < 0)
		return r;
	if (step == 0)
		return eng_tpl_fail(rt, -EINVAL, "range() arg 3 must not be zero");
	if (step > 0 ? start < stop : start > stop) {
		/* Unsigned distances cannot overflow. */
		uint64_t gap = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
		uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;

		if ((gap - 1) / by >= TPL_MAX_RANGE)
			return eng_tpl_fail(rt, -E2BIG,
			                    "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
			                    TPL_MAX_RANGE);
		n = (int64_t)((gap - 1) / by + 1);
	}
	r = eng_tpl_list_new(rt, TPL_KIND_RANGE, (size_t)n, &l);
	for (int64_t i = 0; r == 0 && i < n; i++)
		/* Unsigned again: the product alone may leave the range that the sum stays in. */
		r = eng_tpl_list_push(rt, l, tpl_int((int64_t)((uint64_t)start + (uint64_t)i * (uint64_t)step)));
	if (r < 0)
		return r;
	l->start = start;
	l->stop = stop;
	l->step = step;
	*ret = tpl_list_value(l);
	return 0;
}

/* Entries of a mapping or of a sequence of pairs into d. */
static int dict_fill(struct tpl_rt *rt, struct tpl_dict *d, const struct tpl_value *from)
{
	struct tpl_list *items, *pair;
	int r = 0;

	if (from->type == TPL_DICT) {
		for (size_t i = 0; r == 0 && i < from->u.dict->n; i++)
			r = eng_tpl_dict_set(rt, d, from->u.dict->keys[i], from->u.dict->vals[i]);
		return r;
	}
	r = eng_tpl_iterate(rt, from, &items);
	for (size_t i = 0; r == 0 && i < items->n; i++) {
		r = eng_tpl_iterate(rt, &items->v[i], &pair);
		if (r == 0 && pair->n != 2)
			r = eng_tpl_fail(rt, -EINVAL,
			                 "dictionary update sequence element has length %zu; 2 is required", pair->n);
		if (r == 0)
			r = eng_tpl_dict_set(rt, d, pair->v[0], pair->v[1]);
	}
	return r;
}

static int make_dict(struct tpl_rt *rt, const char *callee, const struct tpl_args *args, struct tpl_dict **ret)
{
	struct tpl_dict *d;
	int r = eng_tpl_dict_new(rt, &d);

	if (r == 0 && args->n_pos > 1)
		r = eng_tpl_fail(rt, -EINVAL, "%s expected at most 1 argument, got %zu", callee, args->n_pos);
	if (r == 0 && args->n_pos)
		r = dict_fill(rt, d, &args->pos[0]);
	for (size_t i = 0; r == 0 && i < args->n_kw; i++)
		r = eng_tpl_dict_set(rt, d, args->kw_names[i], args->kw_vals[i]);
	*ret = d;
	return r;
}

static int fn_dict(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	ret->type = TPL_DICT;
	return make_dict(rt, "dict", args, &ret->u.dict);
}

static int fn_namespace(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	ret->type = TPL_NS;
	return make_dict(rt, "namespace", args, &ret->u.dict);
}

static int fn_cycler(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	struct tpl_cycler *c = eng_tpl_arena_alloc(&rt->arena, sizeof(*c));

	if (!args->n_pos || args->n_kw)
		return eng_tpl_fail(rt, -EINVAL, "at least one item has to be provided");
	if (!c)
		return eng_tpl_fail_memory(rt);
	c->items = (struct tpl_value *)args->pos; /* the arguments live as long as the render */
	c->n = args->n_pos;
	*ret = (struct tpl_value){ .type = TPL_CYCLER, .u.cycler = c };
	return 0;
}

static int fn_joiner(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	struct tpl_value b[TPL_MAX_PARAMS];
	struct tpl_cycler *c = eng_tpl_arena_alloc(&rt->arena, sizeof(*c));
	int r = eng_tpl_bind(rt, "joiner", "sep", 0, args, b);

	if (r < 0)
		return r;
	if (!c)
		return eng_tpl_fail_memory(rt);
	c->items = eng_tpl_arena_array(&rt->arena, 1, sizeof(*c->items));
	if (!c->items)
		return eng_tpl_fail_memory(rt);
	c->items[0] = b[0].type == TPL_MISSING ? tpl_text(", ", 2) : b[0];
	*ret = (struct tpl_value){ .type = TPL_JOINER, .u.cycler = c };
	return 0;
}

/* The template's own error: its message alone, for it is meant for whoever sent the messages. */
static int fn_raise_exception(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	struct tpl_value b[TPL_MAX_PARAMS], text;
	int r = eng_tpl_bind(rt, "raise_exception", "message", 1, args, b);

	(void)ret;
	if (r == 0)
		r = eng_tpl_to_text(rt, &b[0], &text);
	if (r < 0)
		return r;
	return err_set(rt->err, -EINVAL, "%.*s", (int)(text.len < ERR_MSG_SIZE ? text.len : ERR_MSG_SIZE), text.u.s);
}

static int fn_strftime_now(struct tpl_rt *rt, const struct tpl_args *args, struct tpl_value *ret)
{
	struct tpl_value b[TPL_MAX_PARAMS], fmt;
	char spec[256], text[1024];
	time_t now = time(NULL);
	struct tm tm;
	int r = eng_tpl_bind(rt, "strftime_now", "format", 1, args, b);

	if (r == 0)
		r = eng_tpl_arg_text(rt, &b[0], "strftime_now()", NULL, &fmt);
	if (r < 0)
		return r;
	if (fmt.len >= sizeof(spec) || memchr(fmt.u.s, 0, fmt.len))
		return eng_tpl_fail(rt, -EINVAL, "strftime_now(): the format is too long or holds a NUL");
	memcpy(spec, fmt.u.s, fmt.len);
	spec[fmt.len] = '\0';
	if (!localtime_r(&now, &tm))
		return eng_tpl_fail(rt, -EINVAL, "strftime_now(): no local time");
	return eng_tpl_text_copy(rt, text, strftime(text, sizeof(text), spec, &tm), ret);
}

static const struct tpl_func functions[] = {
	{ "range", fn_range },
	{ "dict", fn_dict },
	{ "namespace", fn_namespace },
	{ "cycler", fn_cycler },
	{ "joiner", fn_joiner },
	{ "raise_exception", fn_raise_exception },
	{ "strftime_now", fn_strftime_now },
};

bool eng_tpl_find_global(const char *name, size_t len, struct tpl_value *ret)
{
	for (size_t i = 0; i < sizeof(functions) / sizeof(*functions); i++) {
		if (strlen(functions[i].name) == len && memcmp(functions[i].name, name, len) == 0) {
			*ret = (struct tpl_value){ .type = TPL_FUNC, .u.func = &functions[i] };
			return true;
		}
	}
	return false;
}

/* ---- Calling anything ------------------------------------------------------------------------------------ */

static int call_method(struct tpl_rt *rt, const struct tpl_bound *bound, const struct tpl_args *args,
                       struct tpl_value *ret)
{
	struct tpl_value b[TPL_MAX_PARAMS];
	struct tpl_args spread = { .pos = b, .n_pos = TPL_MAX_PARAMS };
	int r;

	if (!bound->method->params)
		return bound->method->fn(rt, &bound->self, args, ret);
	r = eng_tpl_bind(rt, bound->method->name, bound->method->params, bound->method->n_required, args, b);
	return r < 0 ? r : bound->method->fn(rt, &bound->self, &spread, ret);
}

int eng_tpl_call_filter(struct tpl_rt *rt, const struct tpl_filter *filter, const struct tpl_value *in,
                        const struct tpl_args *args, struct tpl_value *ret)
{
	struct tpl_value b[TPL_MAX_PARAMS], input = *in; /* ret may be in */
	struct tpl_args spread = { .pos = b, .n_pos = TPL_MAX_PARAMS };
	int r;

	if (!filter->params)
		return filter->fn(rt, &input, args, ret);
	r = eng_tpl_bind(rt, filter->name, filter->params, filter->n_required, args, b);
	return r < 0 ? r : filter->fn(rt, &input, &spread, ret);
}

/* joiner(): nothing at first, its text from then on. */
static int call_joiner(struct tpl_cycler *c, struct tpl_value *ret)
{
	*ret = c->pos ? c->items[0] : tpl_text("", 0);
	c->pos = 1;
	return 0;
}

int eng_tpl_call(struct tpl_rt *rt, const struct tpl_value *callee, const struct tpl_args *args, struct tpl_value *ret)
{
	switch (callee->type) {
	case TPL_MACRO:
		return call_macro(rt, callee->u.macro, args, ret);
	case TPL_FUNC:
		return callee->u.func->fn(rt, args, ret);
	case TPL_METHOD:
		return call_method(rt, callee->u.bound, args, ret);
	case TPL_JOINER:
		return call_joiner(callee->u.cycler, ret);
	case TPL_UNDEF:
		return eng_tpl_fail_undefined(rt, callee);
	default:
		return eng_tpl_fail(rt, -EINVAL, "'%s' object is not callable", eng_tpl_type_name(callee));
	}
}
