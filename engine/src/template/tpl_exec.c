/* Statements: each writes to the current output; what a loop or macro sets stays in its scope.
 *
 * The scoping that chat templates rely on: `if` shares its surroundings' scope; a loop body gets a fresh
 * one per iteration, so a `set` in it is gone with the iteration (hence namespace()); macros, call,
 * filter, set and generation blocks have one of their own. */
#include "tpl_interp.h"

#include <errno.h>
#include <string.h>

static int exec_output(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value v;
	int r = eng_tpl_eval(rt, n->a, &v);

	return r < 0 ? r : eng_tpl_str(rt, &v, rt->out);
}

static int exec_if(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value v;
	int r;

	for (; n; n = n->c) {
		if (n->kind != TPL_N_IF)
			return eng_tpl_exec(rt, n); /* the else body */
		r = eng_tpl_eval(rt, n->a, &v);
		if (r < 0)
			return r;
		if (eng_tpl_truth(&v))
			return eng_tpl_exec(rt, n->b);
	}
	return TPL_NEXT;
}

/* ---- Assignment ----------------------------------------------------------------------------------------- */

static int assign(struct tpl_rt *rt, const struct tpl_node *target, const struct tpl_value *v);

static int assign_attr(struct tpl_rt *rt, const struct tpl_node *target, const struct tpl_value *v)
{
	struct tpl_value ns;
	int r = eng_tpl_lookup(rt, target->name, &ns);

	if (r < 0)
		return r;
	if (ns.type != TPL_NS)
		return eng_tpl_fail(rt, -EINVAL, "cannot assign attribute on non-namespace object");
	return eng_tpl_dict_set(rt, ns.u.dict, target->value, *v);
}

static int assign_tuple(struct tpl_rt *rt, const struct tpl_node *target, const struct tpl_value *v)
{
	struct tpl_list *l;
	int r = eng_tpl_iterate(rt, v, &l);

	if (r < 0)
		return r;
	if (l->n < target->n_items)
		return eng_tpl_fail(rt, -EINVAL, "not enough values to unpack (expected %u, got %zu)", target->n_items,
		                    l->n);
	if (l->n > target->n_items)
		return eng_tpl_fail(rt, -EINVAL, "too many values to unpack (expected %u)", target->n_items);
	for (uint32_t i = 0; r == 0 && i < target->n_items; i++)
		r = assign(rt, target->items[i], &l->v[i]);
	return r;
}

static int assign(struct tpl_rt *rt, const struct tpl_node *target, const struct tpl_value *v)
{
	switch (target->kind) {
	case TPL_N_NAME:
		return eng_tpl_set_var(rt, target->name, *v);
	case TPL_N_NSREF:
		return assign_attr(rt, target, v);
	default:
		return assign_tuple(rt, target, v);
	}
}

static int exec_set(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value v;
	int r = eng_tpl_eval(rt, n->b, &v);

	return r < 0 ? r : assign(rt, n->a, &v);
}

/* ---- Bodies that become a text ---------------------------------------------------------------------------- */

int eng_tpl_capture(struct tpl_rt *rt, const struct tpl_node *body, struct tpl_frame *frame, struct tpl_value *ret)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)TPL_MAX_OUTPUT_MIB << 20);
	struct tpl_frame *outer_frame = rt->frame;
	struct base_buf *outer_out = rt->out;
	int r;

	rt->out = &buf;
	rt->frame = frame;
	r = eng_tpl_exec(rt, body);
	rt->out = outer_out;
	rt->frame = outer_frame;
	if (r >= 0)
		r = eng_tpl_text_from_buf(rt, &buf, ret);
	base_buf_done(&buf);
	return r;
}

static int capture_in_new_scope(struct tpl_rt *rt, const struct tpl_node *body, struct tpl_value *ret)
{
	struct tpl_frame *f;
	int r = eng_tpl_frame_new(rt, rt->frame, &f);

	return r < 0 ? r : eng_tpl_capture(rt, body, f, ret);
}

/* Applies `x|f|g` to a text, where the innermost filter of the chain has no input of its own. */
static int apply_chain(struct tpl_rt *rt, const struct tpl_node *chain, struct tpl_value *v)
{
	struct tpl_args args;
	int r = 0;

	if (!chain)
		return 0;
	r = eng_tpl_enter(rt);
	if (r < 0)
		return r;
	r = apply_chain(rt, chain->a, v);
	tpl_leave(rt);
	if (r == 0)
		r = eng_tpl_eval_args(rt, chain->args, &args);
	return r < 0 ? r : eng_tpl_call_filter(rt, chain->filter, v, &args, v);
}

static int exec_set_block(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value v;
	int r = capture_in_new_scope(rt, n->d, &v);

	if (r == 0)
		r = apply_chain(rt, n->b, &v);
	return r < 0 ? r : assign(rt, n->a, &v);
}

static int exec_filter_block(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value v;
	int r = capture_in_new_scope(rt, n->d, &v);

	if (r == 0)
		r = apply_chain(rt, n->b, &v);
	return r < 0 ? r : eng_tpl_str(rt, &v, rt->out);
}

static int exec_scope(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_frame *outer = rt->frame;
	int r = eng_tpl_frame_new(rt, outer, &rt->frame);

	if (r == 0)
		r = eng_tpl_exec(rt, n->d);
	rt->frame = outer;
	return r;
}

static int exec_with(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_frame *outer = rt->frame, *inner;
	struct tpl_value v;
	int r = eng_tpl_frame_new(rt, outer, &inner);

	for (uint32_t i = 0; r == 0 && i + 1 < n->n_items; i += 2) {
		r = eng_tpl_eval(rt, n->items[i + 1], &v); /* seen from outside */
		rt->frame = inner;
		if (r == 0)
			r = assign(rt, n->items[i], &v);
		rt->frame = outer;
	}
	rt->frame = inner;
	if (r == 0)
		r = eng_tpl_exec(rt, n->d);
	rt->frame = outer;
	return r;
}

/* ---- Macros ------------------------------------------------------------------------------------------------- */

static int make_macro(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_value *ret)
{
	struct tpl_macro *m = eng_tpl_arena_alloc(&rt->arena, sizeof(*m));

	if (!m)
		return eng_tpl_fail_memory(rt);
	m->node = n;
	m->frame = rt->frame;
	for (struct tpl_frame *f = rt->frame; f && !f->captured; f = f->parent)
		f->captured = true;
	*ret = (struct tpl_value){ .type = TPL_MACRO, .u.macro = m };
	return 0;
}

static int exec_macro(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value v;
	int r = make_macro(rt, n, &v);

	return r < 0 ? r : eng_tpl_set_var(rt, n->name, v);
}

/* {% call f(x) %}: f(x, caller=the body). */
static int exec_call_block(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_value callee, v, *names, *vals;
	struct tpl_args args;
	int r = eng_tpl_eval(rt, n->a->a, &callee);

	if (r == 0)
		r = eng_tpl_eval_args(rt, n->a->args, &args);
	if (r < 0)
		return r;
	names = eng_tpl_arena_array(&rt->arena, args.n_kw + 1, sizeof(*names));
	vals = eng_tpl_arena_array(&rt->arena, args.n_kw + 1, sizeof(*vals));
	if (!names || !vals)
		return eng_tpl_fail_memory(rt);
	if (args.n_kw) {
		memcpy(names, args.kw_names, args.n_kw * sizeof(*names));
		memcpy(vals, args.kw_vals, args.n_kw * sizeof(*vals));
	}
	names[args.n_kw] = tpl_text("caller", 6);
	r = make_macro(rt, n->b, &vals[args.n_kw]);
	if (r < 0)
		return r;
	args.kw_names = names;
	args.kw_vals = vals;
	args.n_kw++;
	r = eng_tpl_call(rt, &callee, &args, &v);
	return r < 0 ? r : eng_tpl_str(rt, &v, rt->out);
}

/* ---- Loops -------------------------------------------------------------------------------------------------- */

static int fresh_frame(struct tpl_rt *rt, struct tpl_frame *parent, struct tpl_frame **frame)
{
	if (*frame && !(*frame)->captured) {
		(*frame)->n = 0;
		return 0;
	}
	return eng_tpl_frame_new(rt, parent, frame);
}

/* The items that pass the loop's own `if`. */
static int filter_items(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_list **items)
{
	struct tpl_frame *outer = rt->frame, *frame = NULL;
	struct tpl_list *kept, *all = *items;
	struct tpl_value v;
	int r = eng_tpl_list_new(rt, TPL_KIND_LIST, 0, &kept);

	for (size_t i = 0; r == 0 && i < all->n; i++) {
		r = fresh_frame(rt, outer, &frame);
		if (r < 0)
			break;
		rt->frame = frame;
		r = assign(rt, n->a, &all->v[i]);
		if (r == 0)
			r = eng_tpl_eval(rt, n->c, &v);
		rt->frame = outer;
		if (r == 0 && eng_tpl_truth(&v))
			r = eng_tpl_list_push(rt, kept, all->v[i]);
	}
	*items = kept;
	return r;
}

static int run_loop(struct tpl_rt *rt, const struct tpl_node *n, struct tpl_loop *loop)
{
	struct tpl_frame *outer = rt->frame, *frame = NULL;
	struct tpl_value self = { .type = TPL_LOOP, .u.loop = loop };
	int r = TPL_NEXT;

	for (; loop->index < loop->items->n; loop->index++) {
		r = fresh_frame(rt, outer, &frame);
		if (r < 0)
			break;
		rt->frame = frame;
		r = eng_tpl_set_var(rt, rt->tmpl->name_loop, self);
		if (r == 0)
			r = assign(rt, n->a, &loop->items->v[loop->index]);
		if (r == 0)
			r = eng_tpl_exec(rt, n->d);
		rt->frame = outer;
		if (r < 0 || r == TPL_BREAK)
			break;
	}
	return r < 0 ? r : TPL_NEXT;
}

static int exec_for(struct tpl_rt *rt, const struct tpl_node *n)
{
	struct tpl_loop *loop;
	struct tpl_list *items;
	struct tpl_value v;
	int r = eng_tpl_eval(rt, n->b, &v);

	if (r == 0)
		r = eng_tpl_iterate(rt, &v, &items);
	if (r == 0 && n->c)
		r = filter_items(rt, n, &items);
	if (r < 0)
		return r;
	if (items->n == 0)
		return n->e ? eng_tpl_exec(rt, n->e) : TPL_NEXT;
	loop = eng_tpl_arena_alloc(&rt->arena, sizeof(*loop));
	if (!loop)
		return eng_tpl_fail_memory(rt);
	loop->items = items;
	loop->depth = 1;
	return run_loop(rt, n, loop);
}

/* ---- Dispatch ----------------------------------------------------------------------------------------------- */

static int write_text(struct tpl_rt *rt, const struct tpl_value *text)
{
	if (base_buf_append(rt->out, text->u.s, text->len) < 0)
		return eng_tpl_fail(rt, -E2BIG, "the output is larger than allowed");
	return eng_tpl_step(rt, text->len >> 6);
}

static int exec_node(struct tpl_rt *rt, const struct tpl_node *n)
{
	int r = TPL_NEXT;

	switch ((enum tpl_node_kind)n->kind) {
	case TPL_N_BODY:
		for (uint32_t i = 0; r == TPL_NEXT && i < n->n_items; i++)
			r = eng_tpl_exec(rt, n->items[i]);
		return r;
	case TPL_N_TEXT:
		return write_text(rt, &n->value);
	case TPL_N_OUTPUT:
		return exec_output(rt, n);
	case TPL_N_IF:
		return exec_if(rt, n);
	case TPL_N_FOR:
		return exec_for(rt, n);
	case TPL_N_SET:
		return exec_set(rt, n);
	case TPL_N_SET_BLOCK:
		return exec_set_block(rt, n);
	case TPL_N_MACRO:
		return exec_macro(rt, n);
	case TPL_N_CALL_BLOCK:
		return exec_call_block(rt, n);
	case TPL_N_FILTER_BLOCK:
		return exec_filter_block(rt, n);
	case TPL_N_WITH:
		return exec_with(rt, n);
	case TPL_N_SCOPE:
		return exec_scope(rt, n);
	case TPL_N_BREAK:
		return TPL_BREAK;
	case TPL_N_CONTINUE:
		return TPL_CONTINUE;
	default:
		return eng_tpl_fail(rt, -EINVAL, "not a statement");
	}
}

int eng_tpl_exec(struct tpl_rt *rt, const struct tpl_node *node)
{
	int r = eng_tpl_step(rt, 1);

	if (r == 0)
		r = eng_tpl_enter(rt);
	if (r < 0)
		return r;
	rt->line = node->line;
	r = exec_node(rt, node);
	tpl_leave(rt);
	return r;
}
