/* Recipes: every key into its field, variables, includes, refusals; annotations in a written image. */
#include <errno.h>

#include "oci_test.h"

#include "oci/recipe.h"

static struct img_recipe *recipe_of(const char *text)
{
	struct img_recipe *r = NULL;
	struct err err = { 0 };

	assert_int_equal(img_recipe_new(NULL, &r), 0);
	assert_int_equal(img_recipe_define(r, "VERSION=1.2", &err), 0);
	if (img_recipe_parse(r, "t", NULL, text, strlen(text), &err) < 0)
		fail_msg("%s", err.msg);
	return r;
}

static json_t *document_of(const struct img_config *c)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	json_t *doc;

	assert_int_equal(img_config_append(c, &b), 0);
	doc = json_loadb(b.data, b.len, 0, NULL);
	assert_non_null(doc);
	base_buf_done(&b);
	return doc;
}

static void every_key_has_its_field(void **state)
{
	struct img_recipe *r = recipe_of("[image]\n"
	                                 "entrypoint = /usr/bin/x \"a b\"\n"
	                                 "cmd = serve --version ${VERSION}\n"
	                                 "user = 7:8\n"
	                                 "workdir = /w\n"
	                                 "stop-signal = SIGINT\n"
	                                 "author = me\n"
	                                 "env = A=1\n"
	                                 "env = B=x y=z\n"
	                                 "env = A=2\n"
	                                 "port = 80/tcp 53/udp\n"
	                                 "volume = /data\n"
	                                 "healthcheck = x health\n"
	                                 "healthcheck-interval = 500ms\n"
	                                 "healthcheck-timeout = 2s\n"
	                                 "healthcheck-start-period = 1h\n"
	                                 "healthcheck-retries = 4\n"
	                                 "[labels]\n"
	                                 "a.b = $${VERSION} is ${VERSION}\n"
	                                 "[annotations]\n"
	                                 "z = 1\n"
	                                 "a = 2\n"
	                                 "z = 3\n"
	                                 "[files]\n"
	                                 "request = p_bins /x\n"
	                                 "request = q\n"
	                                 "exclude = /y\n"
	                                 "generate = users\n"
	                                 "[layers]\n"
	                                 "low = libc_libs\n"
	                                 "high = p\n"
	                                 "low = /z\n");
	const struct img_config *c = r->config;
	json_t *doc, *health;

	(void)state;
	assert_int_equal(c->entrypoint.n, 2);
	assert_string_equal(c->entrypoint.items[1], "a b");
	assert_string_equal(c->cmd.items[2], "1.2");
	assert_string_equal(c->user, "7:8");
	assert_string_equal(c->workdir, "/w");
	assert_string_equal(c->stop_signal, "SIGINT");
	assert_string_equal(c->author, "me");
	assert_int_equal(c->env.n, 2);
	assert_string_equal(img_config_env(c, "A"), "2");
	assert_string_equal(img_config_env(c, "B"), "x y=z");
	assert_int_equal(c->exposed_ports.n, 2);
	assert_string_equal(c->volumes.items[0], "/data");
	assert_string_equal(c->labels[0].value, "${VERSION} is 1.2");
	assert_int_equal(r->n_annotations, 2);
	assert_string_equal(r->annotations[0].name, "a");
	assert_string_equal(r->annotations[1].value, "3");
	assert_int_equal(r->requests.n, 3);
	assert_int_equal(r->excludes.n, 1);
	assert_int_equal(r->generate.n, 1);
	assert_int_equal(r->n_layers, 2);
	assert_string_equal(r->layers[0].name, "low");
	assert_int_equal(r->layers[0].requests.n, 2);

	doc = document_of(c);
	health = json_object_get(json_object_get(doc, "config"), "Healthcheck");
	assert_string_equal(json_string_value(json_array_get(json_object_get(health, "Test"), 0)), "CMD");
	assert_string_equal(json_string_value(json_array_get(json_object_get(health, "Test"), 2)), "health");
	assert_int_equal(json_integer_value(json_object_get(health, "Interval")), 500000000);
	assert_int_equal(json_integer_value(json_object_get(health, "Timeout")), 2000000000);
	assert_true(json_integer_value(json_object_get(health, "StartPeriod")) == 3600000000000);
	assert_int_equal(json_integer_value(json_object_get(health, "Retries")), 4);
	json_decref(doc);
	img_recipe_free(r);
}

static void nothing_behind_the_sign_empties_a_list(void **state)
{
	struct img_recipe *r = recipe_of("[image]\nport = 80/tcp\nenv = A=1\ncmd = a b\nuser = 5\nhealthcheck = x\n"
	                                 "[files]\ngenerate = users\n"
	                                 "[image]\nport =\nenv =\ncmd =\nuser =\nhealthcheck = none\n"
	                                 "[files]\ngenerate =\n");
	json_t *doc, *test;

	(void)state;
	assert_int_equal(r->config->exposed_ports.n + r->config->env.n + r->config->cmd.n + r->generate.n, 0);
	assert_null(r->config->user);
	doc = document_of(r->config);
	test = json_object_get(json_object_get(json_object_get(doc, "config"), "Healthcheck"), "Test");
	assert_int_equal(json_array_size(test), 1);
	assert_string_equal(json_string_value(json_array_get(test, 0)), "NONE");
	json_decref(doc);
	img_recipe_free(r);
}

static void mistakes_are_refused_with_file_and_line(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "[image]\n\nusr = 5\n", "t:3: there is no key \"usr\" in [image]" },
		{ "[what]\nx = 5\n", "t:2: there is no key \"x\" in [what]" },
		{ "[files]\nx = 5\n", "no key" },
		{ "[recipe]\ninclude = other\n", "not from here" },
		{ "[image]\ncmd = ${NOBODY}\n", "nothing defines ${NOBODY}" },
		{ "[image]\ncmd = ${VERSION\n", "without NAME" },
		{ "[image]\ncmd = ${}\n", "without NAME" },
		{ "[image]\ncmd = 'open\n", "is not what this key takes" },
		{ "[image]\nenv = A\n", "is not what this key takes" },
		{ "[image]\nenv = =x\n", "is not what this key takes" },
		{ "[image]\nhealthcheck =\n", "is not what this key takes" },
		{ "[image]\nhealthcheck-interval = 5\n", "is not what this key takes" },
		{ "[image]\nhealthcheck-interval = 9999999999s\n", "is not what this key takes" },
		{ "[image]\nhealthcheck-interval = 9999999h\n", "is not what this key takes" },
		{ "[image]\nhealthcheck-retries = 0\n", "is not what this key takes" },
		{ "[image]\nhealthcheck-retries = 3x\n", "is not what this key takes" },
		{ "[image]\ncmd = \xff\n", "not UTF-8" },
		{ "[labels]\na\xff = 1\n", "not UTF-8" },
		{ "[image]\nno sign\n", "t:2: neither" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct img_recipe *r = NULL;
		struct err err = { 0 };

		assert_int_equal(img_recipe_new(NULL, &r), 0);
		assert_int_equal(img_recipe_define(r, "VERSION=1.2", &err), 0);
		assert_int_equal(img_recipe_parse(r, "t", NULL, cases[i].text, strlen(cases[i].text), &err), -EINVAL);
		if (!strstr(err.msg, cases[i].words))
			fail_msg("\"%s\" says \"%s\", not \"%s\"", cases[i].text, err.msg, cases[i].words);
		img_recipe_free(r);
	}
}

static void single_lines_come_from_the_command_line(void **state)
{
	struct img_recipe *r = recipe_of("");
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_recipe_set_text(r, "image.entrypoint=/bin/sh -c 'a=b'", &err), 0);
	assert_string_equal(r->config->entrypoint.items[2], "a=b");
	assert_int_equal(img_recipe_set_text(r, "labels.org.example.x=1=2", &err), 0);
	assert_string_equal(r->config->labels[0].name, "org.example.x");
	assert_string_equal(r->config->labels[0].value, "1=2");
	assert_int_equal(img_recipe_set_text(r, "image", &err), -EINVAL);
	assert_int_equal(img_recipe_set_text(r, "image=x.y", &err), -EINVAL);
	assert_int_equal(img_recipe_set_text(r, "image.=x", &err), -EINVAL);
	assert_int_equal(img_recipe_set_text(r, "image.nothing=x", &err), -EINVAL);
	assert_int_equal(img_recipe_define(r, "A", &err), -EINVAL);
	assert_int_equal(img_recipe_define(r, "=x", &err), -EINVAL);
	assert_int_equal(img_recipe_define(r, "A-B=x", &err), -EINVAL);
	img_recipe_free(r);
}

static void a_file_includes_others_beside_it(void **state)
{
	char *dir = temp_dir();
	const char *family = "[image]\nuser = 1\ncmd = a\n[layers]\nbase = libc\n",
	           *image = "[recipe]\ninclude = sub/family\n[image]\ncmd = b\n[layers]\ntop = x\n",
	           *loop = "[recipe]\ninclude = loop\n";
	struct img_recipe *r = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(mkdir(in_dir(dir, "sub"), 0755), 0);
	write_text(in_dir(dir, "sub/family"), family);
	write_text(in_dir(dir, "image"), image);
	write_text(in_dir(dir, "loop"), loop);
	assert_int_equal(img_recipe_new(NULL, &r), 0);
	assert_int_equal(img_recipe_read(r, in_dir(dir, "image"), &err), 0);
	assert_string_equal(r->config->user, "1");
	assert_string_equal(r->config->cmd.items[0], "b");
	assert_string_equal(r->layers[0].name, "base");
	assert_string_equal(r->layers[1].name, "top");
	img_recipe_free(r);

	assert_int_equal(img_recipe_new(NULL, &r), 0);
	assert_int_equal(img_recipe_read(r, in_dir(dir, "loop"), &err), -EINVAL);
	assert_non_null(strstr(err.msg, "include each other"));
	img_recipe_free(r);
	drop_dir(dir);
}

/* The manifest of a layout's only image. */
static json_t *manifest_at(const char *dir)
{
	char name[128];
	json_t *index = json_load_file(in_dir(dir, "layout/index.json"), 0, NULL), *manifest;

	assert_non_null(index);
	(void)snprintf(
	        name, sizeof(name), "layout/blobs/sha256/%s",
	        json_string_value(json_object_get(json_array_get(json_object_get(index, "manifests"), 0), "digest")) +
	                7);
	json_decref(index);
	manifest = json_load_file(in_dir(dir, name), 0, NULL);
	assert_non_null(manifest);
	return manifest;
}

static void annotations_are_the_manifests(void **state)
{
	const struct img_label annotations[] = { { (char *)"a", (char *)"1" }, { (char *)"b", (char *)"2" } };
	struct img_tree *t = img_tree_new();
	struct img_write_plan plan = { .tree = t, .annotations = annotations, .n_annotations = 2, .epoch = 0 };
	char *dir = temp_dir(), name[4200];
	json_t *m, *set;

	(void)state;
	assert_non_null(t);
	(void)snprintf(name, sizeof(name), "oci:%s/layout:x", dir);
	assert_int_equal(img_image_write(name, &plan, NULL, NULL), 0);
	m = manifest_at(dir);
	set = json_object_get(m, "annotations");
	assert_int_equal(json_object_size(set), 2);
	assert_string_equal(json_string_value(json_object_get(set, "b")), "2");
	json_decref(m);
	img_tree_free(t);
	drop_dir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_key_has_its_field),
		cmocka_unit_test(nothing_behind_the_sign_empties_a_list),
		cmocka_unit_test(mistakes_are_refused_with_file_and_line),
		cmocka_unit_test(single_lines_come_from_the_command_line),
		cmocka_unit_test(a_file_includes_others_beside_it),
		cmocka_unit_test(annotations_are_the_manifests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
