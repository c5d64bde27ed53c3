/* Tools over the facts of `ocai sys`: a section, a sample of the machine's load, a unit's lines, packages. The text is
 * what a person would be shown, so that every number has its unit. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "sys/sys.h"
#include "tools/tools_internal.h"

enum { WIDTH = 120, DEFAULT_SECONDS = 2, DEFAULT_LINES = 50 };

static struct ag_sys_options options_of(const struct ag_tools_context *c)
{
	return (struct ag_sys_options){ .root = c->root };
}

static int show(const struct ag_tools_context *c, const json_t *document, struct base_buf *out, struct err *err)
{
	const struct ag_sys_style style = { .chinese = c->chinese, .ascii = true, .width = WIDTH };
	int r = ag_sys_render(document, &style, out);

	return r < 0 && r != -EFBIG ? err_set(err, r, "the facts cannot be shown: %s", strerror(-r)) : 0;
}

static int collect_and_show(const struct ag_tools_context *c, unsigned sections, const struct ag_sys_options *options,
                            struct base_buf *out, struct err *err)
{
	json_t *document = NULL;
	int r = ag_sys_collect(sections, options, &document, err);

	if (r == 0)
		r = show(c, document, out, err);
	json_decref(document);
	return r;
}

int ag_tools_system_facts(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	const struct ag_sys_options options = options_of(c);
	unsigned section;
	int r = ag_sys_section_parse(json_string_value(json_object_get(args, "section")), &section, err);

	return r < 0 ? r : collect_and_show(c, section, &options, out, err);
}

int ag_tools_perf_sample(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	struct ag_sys_options options = options_of(c);
	uint32_t seconds = DEFAULT_SECONDS;
	int r = base_json_opt_u32(args, "perf_sample", "seconds", &seconds, err);

	options.seconds = seconds;
	return r < 0 ? r : collect_and_show(c, AG_SYS_PERF, &options, out, err);
}

int ag_tools_unit_log(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	const char *unit = json_string_value(json_object_get(args, "unit"));
	const struct ag_sys_options options = options_of(c);
	char with_suffix[300];
	json_t *lines = NULL, *line;
	uint32_t n = DEFAULT_LINES;
	size_t i;
	int r = base_json_opt_u32(args, "unit_log", "lines", &n, err);

	if (r < 0)
		return r;
	if (strlen(unit) > 255 || strchr(unit, '/'))
		return err_set(err, -EINVAL, "unit_log: '%.40s' is not the name of a unit", unit);
	/* As systemctl does: a name without a kind is a service. */
	(void)snprintf(with_suffix, sizeof(with_suffix), "%s%s", unit, strchr(unit, '.') ? "" : ".service");
	r = ag_sys_unit_log(with_suffix, n, &options, &lines, err);
	if (r < 0)
		return r;
	json_array_foreach(lines, i, line)(void) base_buf_printf(out, "%s\n", json_string_value(line));
	if (i == 0)
		(void)base_buf_printf(out, c->chinese ? "%s 没有日志。\n" : "%s has no lines.\n", with_suffix);
	json_decref(lines);
	return 0;
}

/* ---- Packages ---------------------------------------------------------------------------------------------------- */

static void add_dates(json_t *list)
{
	json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		time_t t = (time_t)json_integer_value(json_object_get(one, "time_s"));
		char text[64];
		struct tm tm;

		if (json_is_integer(json_object_get(one, "time_s")) && localtime_r(&t, &tm) &&
		    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
			(void)json_object_set_new(one, "time", json_string(text));
		(void)json_object_del(one, "time_s");
	}
}

/* Shows these members of the packages section and its notes, and nothing else of it. */
static int show_packages(const struct ag_tools_context *c, const struct ag_sys_options *options,
                         const char *const *members, struct base_buf *out, struct err *err)
{
	json_t *document = NULL, *all, *part = json_object(), *wanted;
	int r = ag_sys_collect(AG_SYS_PACKAGES, options, &document, err);

	if (r < 0) {
		json_decref(part);
		return r;
	}
	all = json_object_get(document, "packages");
	for (size_t i = 0; members[i]; i++) {
		json_t *member = json_object_get(all, members[i]);

		add_dates(json_is_array(member) ? member : json_object_get(member, "packages"));
		if (member)
			(void)json_object_set(part, members[i], member);
	}
	if (json_object_get(all, "notes"))
		(void)json_object_set(part, "notes", json_object_get(all, "notes"));
	wanted = json_pack("{s:o}", "packages", part);
	r = wanted ? show(c, wanted, out, err) : err_set(err, -ENOMEM, "out of memory");
	json_decref(wanted);
	json_decref(document);
	return r;
}

int ag_tools_package_owner(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	struct ag_sys_options options = options_of(c);

	options.owns = json_string_value(json_object_get(args, "path"));
	if (options.owns[0] != '/')
		return err_set(err, -EINVAL, "%s: expected an absolute path", options.owns);
	return show_packages(c, &options, (const char *const[]){ "owns", NULL }, out, err);
}

int ag_tools_package_verify(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	struct ag_sys_options options = options_of(c);

	options.verify = json_string_value(json_object_get(args, "package"));
	return show_packages(c, &options, (const char *const[]){ "verify", NULL }, out, err);
}

int ag_tools_package_info(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	struct ag_sys_options options = options_of(c);

	options.package = json_string_value(json_object_get(args, "package"));
	return show_packages(c, &options, (const char *const[]){ "query", NULL }, out, err);
}

int ag_tools_package_history(const struct ag_tools_context *c, const json_t *args, struct base_buf *out,
                             struct err *err)
{
	const struct ag_sys_options options = options_of(c);

	(void)args;
	return show_packages(c, &options,
	                     (const char *const[]){ "count", "installed_bytes", "transactions", "recent", NULL }, out,
	                     err);
}
