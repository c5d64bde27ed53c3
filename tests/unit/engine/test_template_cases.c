/* Rendering against what the real Jinja rendered: tests/fixtures/templates, written by its
 * make_expected.py. Both tables live there: one-liners over one context, and templates in the style of
 * the model families over a set of conversations. */
#include "test.h"

#include <dirent.h>

#include "base/json.h"
#include "base/mapfile.h"
#include "template/template.h"

static json_t *load(const char *rest)
{
	struct err err = { 0 };
	json_t *json = NULL;

	if (base_json_read_file(test_fixture(rest), 16 << 20, &json, &err) < 0)
		fail_msg("%s", err_text(&err));
	return json;
}

/* 1 when the result is what was expected; prints what differs. */
static int agrees(const char *what, const char *source, size_t len, const json_t *context, const json_t *expected)
{
	struct base_buf out = BASE_BUF_INIT(1 << 20);
	struct eng_template *tmpl = NULL;
	struct err err = { 0 };
	const json_t *text = json_object_get(expected, "text"), *error = json_object_get(expected, "error");
	int r, ok;

	r = eng_template_parse("template", source, len, &tmpl, &err);
	if (r == 0)
		r = eng_template_render(tmpl, context, &out, &err);
	if (text)
		ok = r == 0 && out.len == json_string_length(text) &&
		     memcmp(base_buf_text(&out), json_string_value(text), out.len) == 0;
	else
		ok = error && r < 0 && err.code == r && err.msg[0] && out.len == 0;
	if (!ok)
		print_error("%s\n  expected: %s\n  got:      %s\n", what, text ? json_string_value(text) : "an error",
		            r < 0 ? err_text(&err) : base_buf_text(&out));
	eng_template_free(tmpl);
	base_buf_done(&out);
	return ok;
}

static void expressions_and_statements_render_as_jinja_does(void **state)
{
	json_t *all = load("templates/cases.json"), *cases = json_object_get(all, "cases"), *c;
	size_t i, n_ok = 0;

	(void)state;
	assert_true(json_array_size(cases) >= 180);
	json_array_foreach(cases, i, c)
	{
		const json_t *source = json_object_get(c, "template");

		n_ok += agrees(json_string_value(source), json_string_value(source), json_string_length(source),
		               json_object_get(all, "context"), c);
	}
	assert_int_equal(n_ok, json_array_size(cases));
	json_decref(all);
}

static void check_family(const char *name, const json_t *contexts)
{
	struct base_buf source = BASE_BUF_INIT(1 << 20);
	struct err err = { 0 };
	char path[512];
	const char *key;
	json_t *expected, *context;

	(void)snprintf(path, sizeof(path), "templates/%s.jinja", name);
	if (base_read_file(test_fixture(path), &source, &err) < 0)
		fail_msg("%s", err_text(&err));
	(void)snprintf(path, sizeof(path), "templates/expected/%s.json", name);
	expected = load(path);
	json_object_foreach((json_t *)contexts, key, context)
	{
		(void)snprintf(path, sizeof(path), "%s: %s", name, key);
		assert_true(agrees(path, base_buf_text(&source), source.len, context, json_object_get(expected, key)));
	}
	json_decref(expected);
	base_buf_done(&source);
}

static void templates_in_the_style_of_the_families_render_as_jinja_does(void **state)
{
	static const char *const names[] = { "channels",  "chatml_tools", "content_parts", "documents",
		                             "fullwidth", "headers",      "inst",          "simple_generation",
		                             "thinking",  "turns",        "visible_text" };
	json_t *contexts = load("templates/contexts.json");

	(void)state;
	assert_true(json_object_size(contexts) >= 14);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		check_family(names[i], contexts);
	json_decref(contexts);
}

/* The special tokens a template may mention, as transformers passes them. */
static void add_special_token(json_t *context, const json_t *config, const char *key)
{
	const json_t *token = json_object_get(config, key);

	if (json_is_object(token))
		token = json_object_get(token, "content");
	if (json_is_string(token))
		(void)json_object_set(context, key, (json_t *)token);
}

/* 1 when the model has an expected chat and it was checked. */
static int check_model(const char *name)
{
	struct base_buf source = BASE_BUF_INIT(1 << 20);
	struct err err = { 0 };
	char path[512];
	json_t *expected, *config, *context, *chat, *want;

	(void)snprintf(path, sizeof(path), "models/%s/expected.json", name);
	expected = load(path);
	chat = json_object_get(expected, "chat");
	if (!chat) {
		json_decref(expected);
		return 0;
	}
	(void)snprintf(path, sizeof(path), "models/%s/tokenizer_config.json", name);
	config = load(path);
	(void)snprintf(path, sizeof(path), "models/%s/chat_template.jinja", name);
	if (base_read_file(test_fixture(path), &source, &err) < 0)
		fail_msg("%s", err_text(&err));
	context = json_pack("{s:O, s:b}", "messages", json_object_get(chat, "messages"), "add_generation_prompt", 1);
	add_special_token(context, config, "bos_token");
	add_special_token(context, config, "eos_token");
	want = json_pack("{s:O}", "text", json_object_get(chat, "text"));
	assert_true(agrees(name, base_buf_text(&source), source.len, context, want));
	json_decref(want);
	json_decref(context);
	json_decref(config);
	json_decref(expected);
	base_buf_done(&source);
	return 1;
}

static void chats_of_the_model_fixtures_render_byte_equal(void **state)
{
	DIR *dir = opendir(test_fixture("models"));
	struct dirent *de;
	int n = 0;

	(void)state;
	assert_non_null(dir);
	while ((de = readdir(dir))) {
		if (de->d_name[0] != '.')
			n += check_model(de->d_name);
	}
	(void)closedir(dir);
	assert_true(n >= 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(expressions_and_statements_render_as_jinja_does),
		cmocka_unit_test(templates_in_the_style_of_the_families_render_as_jinja_does),
		cmocka_unit_test(chats_of_the_model_fixtures_render_byte_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
