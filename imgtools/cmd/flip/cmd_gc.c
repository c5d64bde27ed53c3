/* flip gc, flip fsck: asked of the daemon, which knows what is in use. */
#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "settings.h"

struct gc {
	const char *control;
	bool all, dry_run, json;
};

#define COMMON_OPTS                                                                                              \
	{ "dry-run", 'n', OPT_FLAG, offsetof(struct gc, dry_run), NULL, "only say what would be done", NULL },   \
	        { "json", 0, OPT_FLAG, offsetof(struct gc, json), NULL, "machine-readable output", NULL },       \
	{                                                                                                        \
		"control", 0, OPT_STR, offsetof(struct gc, control), "PATH", "the daemon's control socket", NULL \
	}

const struct opt fsck_opts[] = { COMMON_OPTS, { 0 } };

const struct opt gc_opts[] = {
	{ "all", 'a', OPT_FLAG, offsetof(struct gc, all), NULL, "also layers that were used in the last ten minutes",
	  NULL },
	COMMON_OPTS,
	{ 0 },
};

static uint64_t number(const json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

static void print_gc(const json_t *o)
{
	(void)printf("%llu layers, %llu contents, %llu parts, %.1f MB\n", (unsigned long long)number(o, "layers"),
	             (unsigned long long)number(o, "objects"), (unsigned long long)number(o, "partials"),
	             (double)number(o, "bytes") / 1e6);
}

static void print_fsck(const json_t *o)
{
	const json_t *findings = json_object_get(o, "findings");

	for (size_t i = 0; i < json_array_size(findings); i++)
		(void)printf("%s\n", json_string_value(json_array_get(findings, i)));
	(void)printf("%llu contents checked, %llu bad, %llu left over\n", (unsigned long long)number(o, "checked"),
	             (unsigned long long)number(o, "bad"), (unsigned long long)number(o, "leftover"));
}

static int run(int argc, char **argv, const char *name, void (*print)(const json_t *o), const char *bad)
{
	struct base_buf body = BASE_BUF_INIT(64 << 20);
	struct flip_settings s = { 0 };
	struct gc o = { 0 };
	struct err err = { 0 };
	json_t *doc = NULL;
	char path[64];
	int n, r = flip_options(argc, argv, &o, &n);
	bool is_bad = false;

	if (r >= 0)
		return r;
	if (n) {
		(void)err_set(&err, -EINVAL, "%s: not an argument", argv[0]);
		return flip_usage(name, &err);
	}
	(void)snprintf(path, sizeof(path), "/v1/%s?%s%s", name, o.dry_run ? "dry_run=1&" : "", o.all ? "all=1" : "");
	r = flip_settings_load(&s, &err);
	if (r == 0) {
		s.control = o.control ? o.control : s.control;
		r = flip_ask(&s, "POST", path, &body, &err);
	}
	if (r == 0)
		r = base_json_parse("the daemon's answer", body.data, body.len, &doc, &err);
	if (r == 0 && o.json)
		(void)printf("%s\n", base_buf_text(&body));
	else if (r == 0)
		print(doc);
	is_bad = bad && number(doc, bad) > 0;
	json_decref(doc);
	base_buf_done(&body);
	flip_settings_done(&s);
	return r < 0 ? flip_fail(&err) : is_bad;
}

int cmd_gc(int argc, char **argv)
{
	return run(argc, argv, "gc", print_gc, NULL);
}

/* Exit code 1 when something was wrong. */
int cmd_fsck(int argc, char **argv)
{
	return run(argc, argv, "fsck", print_fsck, "bad");
}
