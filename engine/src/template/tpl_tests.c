/* Tests: what may follow `is`, and what select() and its relatives take by name. */
#include "tpl_interp.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define TEST(name) static int name(struct tpl_rt *rt, const struct tpl_value *v, const struct tpl_value *arg, bool *ret)

/* Most tests only look at the type. */
#define TYPE_TEST(name, condition)   \
	TEST(name)                   \
	{                            \
		(void)rt, (void)arg; \
		*ret = (condition);  \
		return 0;            \
	}

TYPE_TEST(t_defined, v->type != TPL_UNDEF)
TYPE_TEST(t_undefined, v->type == TPL_UNDEF)
TYPE_TEST(t_none, v->type == TPL_NONE)
TYPE_TEST(t_boolean, v->type == TPL_BOOL)
TYPE_TEST(t_true, v->type == TPL_BOOL && v->u.b)
TYPE_TEST(t_false, v->type == TPL_BOOL && !v->u.b)
TYPE_TEST(t_integer, v->type == TPL_INT)
TYPE_TEST(t_float, v->type == TPL_FLOAT)
TYPE_TEST(t_number, tpl_is_number(v))
TYPE_TEST(t_string, v->type == TPL_STR)
TYPE_TEST(t_mapping, v->type == TPL_DICT)
TYPE_TEST(t_escaped, v->type == TPL_STR && v->markup)
/* An Undefined can be iterated, measured and (failing then) called. */
TYPE_TEST(t_iterable, v->type == TPL_STR || v->type == TPL_LIST || v->type == TPL_DICT || v->type == TPL_UNDEF)
TYPE_TEST(t_sequence, v->type == TPL_STR || v->type == TPL_DICT || v->type == TPL_UNDEF ||
                              (v->type == TPL_LIST && v->u.list->kind <= TPL_KIND_RANGE))
TYPE_TEST(t_callable, v->type == TPL_MACRO || v->type == TPL_FUNC || v->type == TPL_METHOD || v->type == TPL_JOINER ||
                              v->type == TPL_UNDEF)
TYPE_TEST(t_filter, v->type == TPL_STR && eng_tpl_find_filter(v->u.s, v->len))
TYPE_TEST(t_test, v->type == TPL_STR && eng_tpl_find_test(v->u.s, v->len))

static int remainder_of(struct tpl_rt *rt, const struct tpl_value *v, int64_t by, int64_t equals, bool *ret)
{
	struct tpl_value divisor = tpl_int(by), rest, wanted = tpl_int(equals);
	int r = eng_tpl_binary(rt, TPL_OP_MOD, v, &divisor, &rest);

	return r < 0 ? r : eng_tpl_equal(rt, &rest, &wanted, ret);
}

TEST(t_odd)
{
	(void)arg;
	return remainder_of(rt, v, 2, 1, ret);
}

TEST(t_even)
{
	(void)arg;
	return remainder_of(rt, v, 2, 0, ret);
}

TEST(t_divisibleby)
{
	struct tpl_value rest, zero = tpl_int(0);
	int r = eng_tpl_binary(rt, TPL_OP_MOD, v, arg, &rest);

	return r < 0 ? r : eng_tpl_equal(rt, &rest, &zero, ret);
}

static int test_case(struct tpl_rt *rt, const struct tpl_value *v, const char *method, bool *ret)
{
	const struct tpl_args none = { 0 };
	struct tpl_value text, answer;
	int r = eng_tpl_to_text(rt, v, &text);

	if (r == 0)
		r = eng_tpl_find_method(&text, method, strlen(method))->fn(rt, &text, &none, &answer);
	*ret = r == 0 && eng_tpl_truth(&answer);
	return r;
}

TEST(t_lower)
{
	(void)arg;
	return test_case(rt, v, "islower", ret);
}

TEST(t_upper)
{
	(void)arg;
	return test_case(rt, v, "isupper", ret);
}

TEST(t_eq)
{
	return eng_tpl_equal(rt, v, arg, ret);
}

TEST(t_ne)
{
	int r = eng_tpl_equal(rt, v, arg, ret);

	*ret = !*ret;
	return r;
}

TEST(t_in)
{
	return eng_tpl_contains(rt, v, arg, ret);
}

TEST(t_lt)
{
	int order = 0, r = eng_tpl_order(rt, v, arg, "<", &order);

	*ret = order < 0;
	return r;
}

TEST(t_le)
{
	int order = 0, r = eng_tpl_order(rt, v, arg, "<=", &order);

	*ret = order <= 0;
	return r;
}

TEST(t_gt)
{
	int order = 0, r = eng_tpl_order(rt, v, arg, ">", &order);

	*ret = order > 0;
	return r;
}

TEST(t_ge)
{
	int order = 0, r = eng_tpl_order(rt, v, arg, ">=", &order);

	*ret = order >= 0;
	return r;
}

/* `is` of Python: the same object; plain values are the same when they are equal. */
TEST(t_sameas)
{
	if (v->type != arg->type) {
		*ret = false;
		return 0;
	}
	if (v->type == TPL_LIST || v->type == TPL_DICT) {
		*ret = v->u.list == arg->u.list;
		return 0;
	}
	return eng_tpl_equal(rt, v, arg, ret);
}

static const struct tpl_test tests[] = {
	{ "boolean", 0, t_boolean },
	{ "callable", 0, t_callable },
	{ "defined", 0, t_defined },
	{ "divisibleby", 1, t_divisibleby },
	{ "eq", 1, t_eq },
	{ "equalto", 1, t_eq },
	{ "==", 1, t_eq },
	{ "escaped", 0, t_escaped },
	{ "even", 0, t_even },
	{ "false", 0, t_false },
	{ "filter", 0, t_filter },
	{ "float", 0, t_float },
	{ "ge", 1, t_ge },
	{ ">=", 1, t_ge },
	{ "gt", 1, t_gt },
	{ "greaterthan", 1, t_gt },
	{ ">", 1, t_gt },
	{ "in", 1, t_in },
	{ "integer", 0, t_integer },
	{ "iterable", 0, t_iterable },
	{ "le", 1, t_le },
	{ "<=", 1, t_le },
	{ "lower", 0, t_lower },
	{ "lt", 1, t_lt },
	{ "lessthan", 1, t_lt },
	{ "<", 1, t_lt },
	{ "mapping", 0, t_mapping },
	{ "ne", 1, t_ne },
	{ "!=", 1, t_ne },
	{ "none", 0, t_none },
	{ "number", 0, t_number },
	{ "odd", 0, t_odd },
	{ "sameas", 1, t_sameas },
	{ "sequence", 0, t_sequence },
	{ "string", 0, t_string },
	{ "test", 0, t_test },
	{ "true", 0, t_true },
	{ "undefined", 0, t_undefined },
	{ "upper", 0, t_upper },
};

const struct tpl_test *eng_tpl_find_test(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		if (strlen(tests[i].name) == len && memcmp(tests[i].name, name, len) == 0)
			return &tests[i];
	}
	return NULL;
}
