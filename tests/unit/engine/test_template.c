/* The template interpreter's own promises: errors and their words, limits, nothing half written. What
 * it renders is compared with Jinja in test_template_cases.c. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "base/json.h"
#include "template/template.h"

struct result {
	int r;
	struct err err;
	struct base_buf out;
};

static void run(struct result *res, const char *source, const char *context)
{
	struct eng_template *tmpl = NULL;
	json_t *json = NULL;

	*res = (struct result){ .out = BASE_BUF_INIT(8 << 20) };
	assert_int_equal(base_json_parse("context", context, strlen(context), &json, NULL), 0);
	res->r = eng_template_parse("chat_template.jinja", source, strlen(source), &tmpl, &res->err);
	if (res->r == 0)
		res->r = eng_template_render(tmpl, json, &res->out, &res->err);
	eng_template_free(tmpl);
	json_decref(json);
}

static void expect_text(const char *source, const char *context, const char *text)
{
	struct result res;

	run(&res, source, context);
	if (res.r < 0)
		print_error("%s\n", res.err.msg);
	assert_int_equal(res.r, 0);
	assert_string_equal(base_buf_text(&res.out), text);
	base_buf_done(&res.out);
}

static void expect_error(const char *source, int code, const char *words)
{
	struct result res;

	run(&res, source, "{}");
	if (res.r != code || !strstr(res.err.msg, words))
		print_error("%s\n  -> %d %s\n", source, res.r, res.r < 0 ? res.err.msg : base_buf_text(&res.out));
	assert_int_equal(res.r, code);
	assert_non_null(strstr(res.err.msg, words));
	assert_int_equal(res.out.len, 0);
	base_buf_done(&res.out);
}

static void unsupported_constructs_are_named_with_their_line(void **state)
{
	static const struct {
		const char *source, *words;
	} cases[] = {
		{ "a\n{% include 'x' %}", "chat_template.jinja:2: block 'include' is not supported" },
		{ "{% extends 'x' %}", "'extends'" },
		{ "{% block a %}{% endblock %}", "'block'" },
		{ "{% from 'x' import y %}", "'from'" },
		{ "{% do x.append(1) %}", "'do'" },
		{ "{% autoescape true %}{% endautoescape %}", "'autoescape'" },
		{ "\n\n{{ x|xmlattr }}", "chat_template.jinja:3: filter 'xmlattr' is not supported" },
		{ "{{ x is weird }}", "test 'weird' is not supported" },
		{ "{% for x in y recursive %}{% endfor %}", "recursive for loops are not supported" },
		{ "{{ '\\N{DASH}' }}", "named characters" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		expect_error(cases[i].source, -ENOTSUP, cases[i].words);
}

static void syntax_errors_name_the_line(void **state)
{
	static const struct {
		const char *source, *words;
	} cases[] = {
		{ "a\nb {{ 1 + }}", "chat_template.jinja:2: unexpected end of print statement" },
		{ "{% if x %}", "expected 'elif'" },
		{ "{% for x in y %}\n", "expected 'else'" },
		{ "{% endfor %}", "unexpected 'endfor'" },
		{ "{{ 'abc }}", "unexpected end of string" },
		{ "{{ (1 }}", "unexpected '}'" },
		{ "{{ 99999999999999999999 }}", "64 bits" },
		{ "{# x", "Missing end of comment tag" },
		{ "{% break %}", "only inside a for loop" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		expect_error(cases[i].source, -EBADMSG, cases[i].words);
}

static void raise_exception_gives_its_message_alone(void **state)
{
	struct result res;

	(void)state;
	run(&res, "text before {{ raise_exception('Roles must alternate') }}", "{}");
	assert_int_equal(res.r, -EINVAL);
	assert_string_equal(res.err.msg, "Roles must alternate");
	assert_int_equal(res.out.len, 0);
	base_buf_done(&res.out);
}

static void run_time_errors_name_the_line(void **state)
{
	(void)state;
	expect_error("a\n\n{{ messages[0].content }}", -EINVAL, "chat_template.jinja:3: 'messages' is undefined");
	expect_error("{{ {}.x.y }}", -EINVAL, "'dict object' has no attribute 'x'");
	expect_error("{{ none + 1 }}", -EINVAL, "unsupported operand type(s) for +: 'NoneType' and 'int'");
	expect_error("{{ 9223372036854775807 + 1 }}", -ERANGE, "64 bits");
	expect_error("{{ -9223372036854775807 * 3 }}", -ERANGE, "64 bits");
	expect_error("{{ 3 ** 99 }}", -ERANGE, "64 bits");
	expect_error("{{ (-9223372036854775807 - 1) // -1 }}", -ERANGE, "64 bits");
}

static void failed_renders_leave_the_output_as_it_was(void **state)
{
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	struct eng_template *tmpl = NULL;
	json_t *context = json_object();
	const char *source = "some text {{ nothing.at.all }}";

	(void)state;
	assert_int_equal(base_buf_puts(&out, "kept"), 0);
	assert_int_equal(eng_template_parse("t", source, strlen(source), &tmpl, NULL), 0);
	assert_int_equal(eng_template_render(tmpl, context, &out, NULL), -EINVAL);
	assert_string_equal(base_buf_text(&out), "kept");
	assert_int_equal(base_buf_error(&out), 0);
	eng_template_free(tmpl);
	json_decref(context);
	base_buf_done(&out);
}

static void endless_work_ends_at_the_limits(void **state)
{
	static const char *const sources[] = {
		/* steps */
		"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
		/* depth */
		"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
		/* memory: doubling text and lists */
		"{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
		"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
		"{{ 'x' * 9999999999 }}",
		"{{ [0] * 9999999999 }}",
		"{{ range(100001) }}",
		/* output */
		"{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
		/* a list inside itself, printed */
		"{% set l = [] %}{% set _ = l.append(l) %}{{ l }}",
		"{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}",
		/* a list that grows while it is walked */
		"{% set l = [1] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(sources) / sizeof(*sources); i++)
		expect_error(sources[i], -E2BIG, ":1: ");
}

static void deep_nesting_is_refused_by_the_parser(void **state)
{
	char source[4096] = "{{ ", *p;

	(void)state;
	memset(source + 3, '(', 150);
	(void)snprintf(source + 153, sizeof(source) - 153, "1");
	memset(source + 154, ')', 150);
	(void)snprintf(source + 304, sizeof(source) - 304, " }}");
	expect_error(source, -E2BIG, "nested deeper");
	p = source;
	for (int i = 0; i < 200; i++)
		p = stpcpy(p, "{% if 1 %}");
	expect_error(source, -E2BIG, "nested deeper");
}

static void long_chains_are_not_nesting(void **state)
{
	char *source = calloc(1, 1 << 16), *p = source;

	(void)state;
	p = stpcpy(p, "{% if 0 %}{% ");
	for (int i = 0; i < 1000; i++)
		p = stpcpy(p, "elif 0 %}{% ");
	p = stpcpy(p, "else %}yes{% endif %}{{ (''");
	for (int i = 0; i < 1000; i++)
		p = stpcpy(p, " ~ 'a'");
	(void)stpcpy(p, ")|length }}");
	expect_text(source, "{}", "yes1000");
	free(source);
	expect_text("{% set ns = namespace(s='') %}{% for i in range(20000) %}{% set ns.s = ns.s ~ 'abc' %}{% endfor %}"
	            "{{ ns.s|length }}",
	            "{}", "60000");
}

static void context_of_any_depth_and_type_is_safe(void **state)
{
	char context[2400] = "{\"x\": ";
	struct result res;

	(void)state;
	expect_text("{{ a }} {{ b }} {{ c }} {{ d }} {{ e }}",
	            "{\"a\": -5, \"b\": 1.50, \"c\": null, \"d\": [true], \"e\": \"\"}", "-5 1.5 None [True] ");
	memset(context + 6, '[', 500);
	memset(context + 506, ']', 500);
	(void)stpcpy(context + 1006, "}");
	run(&res, "{{ x }}", context);
	assert_int_equal(res.r, -E2BIG);
	base_buf_done(&res.out);
}

static void strings_may_hold_nul_and_any_unicode(void **state)
{
	struct base_buf out = BASE_BUF_INIT(1024);
	struct eng_template *tmpl = NULL;
	json_t *context = json_pack("{s:s%}", "s", "a\0b", (size_t)3);
	const char *source = "{{ s }}{{ s|length }}{{ '😀你'|length }}";

	(void)state;
	assert_int_equal(eng_template_parse("t", source, strlen(source), &tmpl, NULL), 0);
	assert_int_equal(eng_template_render(tmpl, context, &out, NULL), 0);
	assert_int_equal(out.len, 5);
	assert_memory_equal(out.data, "a\0b32", 5);
	eng_template_free(tmpl);
	json_decref(context);
	base_buf_done(&out);
}

static void strftime_now_is_the_local_time(void **state)
{
	char year[16];
	time_t now = time(NULL);
	struct tm tm;

	(void)state;
	assert_non_null(localtime_r(&now, &tm));
	(void)strftime(year, sizeof(year), "%Y-%m", &tm);
	expect_text("{{ strftime_now('%Y-%m') }}", "{}", year);
}

static void mutable_lists_and_dicts_change(void **state)
{
	(void)state;
	expect_text("{% set l = [1] %}{% set _ = l.append(2) %}{% set _ = l.extend([3]) %}{% set _ = l.insert(0, 0) %}"
	            "{{ l }}{{ l.pop() }}{{ l.pop(0) }}{{ l }}",
	            "{}", "[0, 1, 2, 3]30[1, 2]");
	expect_text("{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}, c=3) %}{{ d.pop('a') }}{{ d }}"
	            "{{ d.setdefault('z', 9) }}{{ d|length }}",
	            "{}", "1{'b': 2, 'c': 3}93");
}

static void large_dicts_keep_order_and_find_keys(void **state)
{
	(void)state;
	expect_text("{% set d = {} %}{% for i in range(300) %}{% set _ = d.update({i ~ '': i}) %}{% endfor %}"
	            "{{ d['0'] }} {{ d['299'] }} {{ d.get('300') }} {{ d|length }} {{ (d|list)[:3] }} "
	            "{{ d.pop('150') }} {{ '150' in d }} {{ d['151'] }} {{ d|first }}",
	            "{}", "0 299 None 300 ['0', '1', '2'] 150 False 151 0");
	expect_text("{% set d = dict() %}{% for i in range(20) %}{% set _ = d.update({i: 'n', (i, 's'): 't'}) %}{% "
	            "endfor %}"
	            "{{ d[19] }}{{ d[19.0] }}{{ d[(3, 's')] }}{{ d|length }}",
	            "{}", "nnt40");
}

struct shared {
	const struct eng_template *tmpl;
	bool same;
};

static void *render_many(void *arg)
{
	struct shared *s = arg;
	json_t *context = json_pack("{s:[{s:s}]}", "messages", "content", "x");
	struct base_buf out = BASE_BUF_INIT(1 << 16);

	s->same = true;
	for (int i = 0; i < 200; i++) {
		base_buf_reset(&out);
		if (eng_template_render(s->tmpl, context, &out, NULL) < 0 ||
		    strcmp(base_buf_text(&out), "1x-2x-3x-") != 0)
			s->same = false;
	}
	base_buf_done(&out);
	json_decref(context);
	return NULL;
}

static void one_template_serves_many_threads(void **state)
{
	const char *source = "{% macro m(i) %}{{ i }}{{ messages[0].content }}-{% endmacro %}"
	                     "{% for i in [1, 2, 3] %}{{ m(i) }}{% endfor %}";
	struct eng_template *tmpl = NULL;
	struct shared s[4];
	pthread_t threads[4];

	(void)state;
	assert_int_equal(eng_template_parse("t", source, strlen(source), &tmpl, NULL), 0);
	for (int i = 0; i < 4; i++) {
		s[i] = (struct shared){ .tmpl = tmpl };
		assert_int_equal(pthread_create(&threads[i], NULL, render_many, &s[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_true(s[i].same);
	}
	eng_template_free(tmpl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unsupported_constructs_are_named_with_their_line),
		cmocka_unit_test(syntax_errors_name_the_line),
		cmocka_unit_test(raise_exception_gives_its_message_alone),
		cmocka_unit_test(run_time_errors_name_the_line),
		cmocka_unit_test(failed_renders_leave_the_output_as_it_was),
		cmocka_unit_test(endless_work_ends_at_the_limits),
		cmocka_unit_test(deep_nesting_is_refused_by_the_parser),
		cmocka_unit_test(long_chains_are_not_nesting),
		cmocka_unit_test(context_of_any_depth_and_type_is_safe),
		cmocka_unit_test(strings_may_hold_nul_and_any_unicode),
		cmocka_unit_test(strftime_now_is_the_local_time),
		cmocka_unit_test(mutable_lists_and_dicts_change),
		cmocka_unit_test(large_dicts_keep_order_and_find_keys),
		cmocka_unit_test(one_template_serves_many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
