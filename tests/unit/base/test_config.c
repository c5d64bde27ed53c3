/* Layers, sources, warnings and errors, on a root of its own under /tmp. */
#include "base/config.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "test.h"

struct dest {
	const char *model, *backend;
	uint32_t ctx;
	uint64_t memory;
	bool metrics;
	double temperature;
	struct opt_list hosts;
};

static const struct base_config_key keys[] = {
	{ "engine", "model", "TEST_MODEL", OPT_STR, offsetof(struct dest, model), "model", NULL },
	{ "engine", "backend", NULL, OPT_CHOICE, offsetof(struct dest, backend), "backend", "auto,cpu" },
	{ "engine", "ctx", "TEST_CTX", OPT_UINT, offsetof(struct dest, ctx), "context", NULL },
	{ "engine", "memory", NULL, OPT_SIZE, offsetof(struct dest, memory), "memory", NULL },
	{ "server", "metrics", NULL, OPT_FLAG, offsetof(struct dest, metrics), "metrics", NULL },
	{ "server", "temperature", NULL, OPT_DOUBLE, offsetof(struct dest, temperature), "temperature", NULL },
	{ "server", "hosts", NULL, OPT_LIST, offsetof(struct dest, hosts), "hosts", NULL },
	{ 0 },
};

static char root[64];
static char last_warning[512];

static void remember(void *arg, enum base_log_level level, const char *line)
{
	(void)arg;
	if (level == BASE_LOG_WARN)
		(void)snprintf(last_warning, sizeof(last_warning), "%s", line);
}

static int set_up(void **state)
{
	(void)state;
	(void)snprintf(root, sizeof(root), "/tmp/test-config-XXXXXX");
	last_warning[0] = '\0';
	base_log_set_sink(remember, NULL);
	return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
	char cmd[128];

	(void)state;
	base_log_set_sink(NULL, NULL);
	(void)unsetenv("TEST_MODEL");
	(void)unsetenv("TEST_CTX");
	(void)unsetenv("XDG_CONFIG_HOME");
	(void)snprintf(cmd, sizeof(cmd), "rm -rf %s", root);
	return system(cmd);
}

static void put(const char *path, const char *text)
{
	char full[512];
	FILE *f;

	(void)snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *p = full + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		(void)mkdir(full, 0755);
		*p = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int load(struct dest *d, bool user, struct base_config **ret, struct err *err)
{
	const struct base_config_paths paths = { .product = "ocai", .program = "engine", .root = root, .user = user };

	return base_config_load(&paths, keys, d, ret, err);
}

static void built_in_values_stand_without_any_file(void **state)
{
	struct dest d = { .ctx = 4096, .model = "built" };
	struct base_config *config = NULL;

	(void)state;
	assert_int_equal(load(&d, false, &config, NULL), 0);
	assert_int_equal(d.ctx, 4096);
	assert_string_equal(d.model, "built");
	base_config_free(config);
}

static void later_layers_win(void **state)
{
	struct dest d = { .ctx = 1 };
	struct base_config *config = NULL;
	char text[2048], want[256], xdg[128];
	FILE *out;

	(void)state;
	put("/usr/lib/ocai/engine.conf", "[engine]\nmodel = vendor\nctx = 10\nmemory = 2G\n[server]\nmetrics = yes\n");
	put("/etc/ocai/engine.conf", "# ours\n[engine]\n  ctx = 20\nbackend=cpu\n");
	put("/usr/lib/ocai/engine.conf.d/10-a.conf", "[engine]\nctx = 30\n");
	put("/usr/lib/ocai/engine.conf.d/50-b.conf", "[engine]\nctx = 31\nmodel = hidden\n");
	put("/etc/ocai/engine.conf.d/50-b.conf", "[engine]\nctx = 32\n");
	put("/etc/ocai/engine.conf.d/20-c.conf", "[engine]\nctx = 33\n");
	put("/etc/ocai/engine.conf.d/99-no.txt", "[engine]\nctx = 34\n");
	put("/home/ocai/engine.conf", "[server]\ntemperature = 0.5\nhosts = a, b ,,c\n");
	(void)snprintf(xdg, sizeof(xdg), "%s/home", root);
	(void)setenv("XDG_CONFIG_HOME", xdg, 1);
	(void)setenv("TEST_MODEL", "from-env", 1);
	(void)setenv("TEST_CTX", "", 1);

	assert_int_equal(load(&d, true, &config, NULL), 0);
	assert_string_equal(d.model, "from-env");
	assert_int_equal(d.ctx, 32); /* the last drop-in by name, /etc hiding /usr/lib */
	assert_true(d.memory == UINT64_C(2) << 30);
	assert_string_equal(d.backend, "cpu");
	assert_true(d.metrics);
	assert_true(d.temperature == 0.5);
	assert_int_equal(d.hosts.n, 3);
	assert_string_equal(d.hosts.items[1], "b");

	memset(text, 0, sizeof(text));
	out = fmemopen(text, sizeof(text), "w");
	base_config_show(config, &d, out);
	assert_int_equal(fclose(out), 0);
	assert_non_null(strstr(text, "[engine]\nmodel = from-env  ; environment TEST_MODEL\n"));
	(void)snprintf(want, sizeof(want), "ctx = 32  ; %s/etc/ocai/engine.conf.d/50-b.conf:2\n", root);
	assert_non_null(strstr(text, want));
	assert_non_null(strstr(text, "hosts = a, b, c  ; "));

	opt_list_done(&d.hosts);
	base_config_free(config);
}

static void the_user_folder_is_for_those_who_ask(void **state)
{
	struct dest d = { .ctx = 1 };
	struct base_config *config = NULL;
	char xdg[128];

	(void)state;
	put("/home/ocai/engine.conf", "[engine]\nctx = 5\n");
	(void)snprintf(xdg, sizeof(xdg), "%s/home", root);
	(void)setenv("XDG_CONFIG_HOME", xdg, 1);
	assert_int_equal(load(&d, false, &config, NULL), 0);
	assert_int_equal(d.ctx, 1);
	base_config_free(config);
}

static void a_list_replaces_the_earlier_one(void **state)
{
	struct dest d = { 0 };
	struct base_config *config = NULL;

	(void)state;
	put("/usr/lib/ocai/engine.conf", "[server]\nhosts = a,b\n");
	put("/etc/ocai/engine.conf", "[server]\nhosts = c\n");
	assert_int_equal(load(&d, false, &config, NULL), 0);
	assert_int_equal(d.hosts.n, 1);
	assert_string_equal(d.hosts.items[0], "c");
	opt_list_done(&d.hosts);
	base_config_free(config);
}

static void an_unknown_key_is_warned_about(void **state)
{
	struct dest d = { 0 };
	struct base_config *config = NULL;

	(void)state;
	put("/etc/ocai/engine.conf", "[engine]\n\ncolour = red\nctx = 7\n[server]\nctx = 8\n");
	assert_int_equal(load(&d, false, &config, NULL), 0);
	assert_int_equal(d.ctx, 7);
	assert_non_null(strstr(last_warning, "engine.conf:6: unknown key 'ctx' in section [server]"));
	base_config_free(config);
}

static void bad_content_is_an_error_with_file_and_line(void **state)
{
	static const struct {
		const char *text;
		const char *words;
	} cases[] = {
		{ "[engine]\n\nctx = many\n", "engine.conf:3: ctx: 'many' is not a whole number" },
		{ "[engine]\nbackend = tpu\n", "engine.conf:2: backend: 'tpu' is not one of auto,cpu" },
		{ "[server]\nmetrics = perhaps\n", "engine.conf:2: metrics: 'perhaps' is neither true nor false" },
		{ "[engine]\nctx\n", "engine.conf:2: neither '[section]' nor 'key = value'" },
		{ "[engine\nctx = 1\n", "engine.conf:1: neither '[section]' nor 'key = value'" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct base_config *config = NULL;
		struct dest d = { 0 };
		struct err err = { 0 };

		put("/etc/ocai/engine.conf", cases[i].text);
		assert_int_equal(load(&d, false, &config, &err), -EINVAL);
		assert_null(config);
		assert_non_null(strstr(err_text(&err), cases[i].words));
	}
}

static void a_line_too_long_for_the_parser_is_not_cut(void **state)
{
	struct dest d = { 0 };
	struct base_config *config = NULL;
	struct err err = { 0 };
	char text[1024] = "[engine]\nmodel = ";

	(void)state;
	memset(text + strlen(text), 'x', 180); /* still fits */
	put("/etc/ocai/engine.conf", text);
	assert_int_equal(load(&d, false, &config, NULL), 0);
	assert_int_equal(strlen(d.model), 180);
	base_config_free(config);

	config = NULL;
	memset(text + strlen(text), 'x', 300);
	put("/etc/ocai/engine.conf", text);
	assert_int_equal(load(&d, false, &config, &err), -EINVAL);
	assert_non_null(strstr(err_text(&err), "engine.conf:2: the line is too long"));
}

static void a_bad_environment_value_is_named(void **state)
{
	struct dest d = { 0 };
	struct base_config *config = NULL;
	struct err err = { 0 };

	(void)state;
	(void)setenv("TEST_CTX", "x", 1);
	assert_int_equal(load(&d, false, &config, &err), -EINVAL);
	assert_string_equal(err_text(&err), "environment TEST_CTX: ctx: 'x' is not a whole number");
}

#define IN_A_ROOT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_A_ROOT(built_in_values_stand_without_any_file),
		IN_A_ROOT(later_layers_win),
		IN_A_ROOT(the_user_folder_is_for_those_who_ask),
		IN_A_ROOT(a_list_replaces_the_earlier_one),
		IN_A_ROOT(an_unknown_key_is_warned_about),
		IN_A_ROOT(bad_content_is_an_error_with_file_and_line),
		IN_A_ROOT(a_line_too_long_for_the_parser_is_not_cut),
		IN_A_ROOT(a_bad_environment_value_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
