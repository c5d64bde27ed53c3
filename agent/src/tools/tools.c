/* The table of tools, and running one: arguments are checked against the row's schema first.
 *
 * Of JSON Schema only what the rows use is understood: type, properties, required, minimum, maximum,
 * additionalProperties false. */
#include "tools/tools.h"

#include <errno.h>
#include <string.h>

#include "base/json.h"
#include "tools/tools_internal.h"

static const struct ag_tool table[] = {
	{ "system_facts", "Facts of this machine",
	  "Measured facts of one part of this machine. services includes the failed units with their last lines, logs "
	  "the "
	  "errors of this boot and OOM kills, network the listening ports and their owners.",
	  "本机某一方面的实测信息。services 含失败的单元及其最后几行日志，logs 含本次启动以来的错误和 OOM，network "
	  "含监听端口及其进程。",
	  "{\"type\":\"object\",\"properties\":{\"section\":{\"type\":\"string\",\"enum\":[\"host\",\"hardware\","
	  "\"gpu\","
	  "\"services\",\"logs\",\"network\",\"storage\",\"users\"]}},\"required\":[\"section\"],"
	  "\"additionalProperties\":false}",
	  ag_tools_system_facts },
	{ "perf_sample", "Performance sample",
	  "Measures the machine for some seconds: processors, pressure, memory, disks, network, busiest processes and "
	  "control "
	  "groups; findings first.",
	  "采样若干秒：CPU、压力、内存、磁盘、网络、最忙的进程和控制组；先列出发现的问题。",
	  "{\"type\":\"object\",\"properties\":{\"seconds\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":30}},"
	  "\"additionalProperties\":false}",
	  ag_tools_perf_sample },
	{ "unit_log", "Log of a unit", "The newest journal lines of a systemd unit, oldest first.",
	  "某个 systemd 单元最新的日志，从旧到新。",
	  "{\"type\":\"object\",\"properties\":{\"unit\":{\"type\":\"string\"},\"lines\":{\"type\":\"integer\","
	  "\"minimum\":1,"
	  "\"maximum\":500}},\"required\":[\"unit\"],\"additionalProperties\":false}",
	  ag_tools_unit_log },
	{ "kb_search", "Search documents",
	  "Search the user's documents and manual pages; returns passages with file and line, to be cited.",
	  "在用户的文档和手册页中检索，返回带文件名和行号的段落，供引用。",
	  "{\"type\":\"object\",\"properties\":{\"query\":{\"type\":\"string\",\"description\":\"words to look for, "
	  "Chinese "
	  "or English\"},\"limit\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":20}},\"required\":[\"query\"],"
	  "\"additionalProperties\":false}",
	  ag_tools_kb_search },
	{ "read_file", "Read a file",
	  "Read lines of a text file of this machine (at most 400 lines); files with secrets are refused.",
	  "读取本机文本文件的若干行(最多 400 行)；含机密的文件会被拒绝。",
	  "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":\"absolute "
	  "path\"},\"line\":{"
	  "\"type\":\"integer\",\"minimum\":1,\"maximum\":1000000000,\"description\":\"first "
	  "line\"},\"count\":{\"type\":"
	  "\"integer\",\"minimum\":1,\"maximum\":400}},\"required\":[\"path\"],\"additionalProperties\":false}",
	  ag_tools_read_file },
	{ "man_page", "Manual page", "The text of an installed manual page, from a line on (at most 400 lines).",
	  "已安装手册页的文本，可从指定行开始(最多 400 行)。",
	  "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"section\":{\"type\":\"string\","
	  "\"description\":\"1 to "
	  "8\"},\"line\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":1000000}},\"required\":["
	  "\"name\"],\"additionalProperties\":false}",
	  ag_tools_man_page },
	{ "list_processes", "List processes",
	  "The processes that use most memory or CPU time: PID, user, state, memory, CPU, name.",
	  "占用内存或 CPU 时间最多的进程：PID、用户、状态、内存、CPU、名称。",
	  "{\"type\":\"object\",\"properties\":{\"sort\":{\"type\":\"string\",\"enum\":[\"memory\",\"cpu\"]},\"limit\":"
	  "{"
	  "\"type\":\"integer\",\"minimum\":1,\"maximum\":200}},\"additionalProperties\":false}",
	  ag_tools_list_processes },
	{ "disk_usage", "Disk usage", "Size, use and free space and inodes of the mounted file systems.",
	  "已挂载文件系统的容量、已用、可用空间和 inode。",
	  "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":\"only the file system "
	  "that "
	  "holds this path\"}},\"additionalProperties\":false}",
	  ag_tools_disk_usage },
	{ "package_info", "Package", "What the rpm database says of an installed package.",
	  "rpm 数据库中某个已安装软件包的信息。",
	  "{\"type\":\"object\",\"properties\":{\"package\":{\"type\":\"string\"}},\"required\":[\"package\"],"
	  "\"additionalProperties\":false}",
	  ag_tools_package_info },
	{ "package_owner", "Owner of a file", "Which installed package owns a file.",
	  "某个文件属于哪个已安装的软件包。",
	  "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":\"absolute path\"}},"
	  "\"required\":[\"path\"],\"additionalProperties\":false}",
	  ag_tools_package_owner },
	{ "package_verify", "Verify a package", "Compares a package's files with the rpm database: what has changed.",
	  "把软件包的文件与 rpm 数据库对比：哪些被改动过。",
	  "{\"type\":\"object\",\"properties\":{\"package\":{\"type\":\"string\"}},\"required\":[\"package\"],"
	  "\"additionalProperties\":false}",
	  ag_tools_package_verify },
	{ "package_history", "Installations", "The newest installations and updates of packages.",
	  "最近安装和更新的软件包。", "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}",
	  ag_tools_package_history },
};

size_t ag_tools_count(void)
{
	return sizeof(table) / sizeof(table[0]);
}

const struct ag_tool *ag_tools_at(size_t i)
{
	return i < ag_tools_count() ? &table[i] : NULL;
}

const struct ag_tool *ag_tools_find(const char *name)
{
	for (size_t i = 0; i < ag_tools_count(); i++) {
		if (strcmp(table[i].name, name) == 0)
			return &table[i];
	}
	return NULL;
}

static bool has_type(const json_t *value, const char *type)
{
	if (strcmp(type, "string") == 0)
		return json_is_string(value);
	if (strcmp(type, "integer") == 0)
		return json_is_integer(value);
	if (strcmp(type, "boolean") == 0)
		return json_is_boolean(value);
	return strcmp(type, "number") == 0 ? json_is_number(value) : false;
}

static bool is_in_enum(const json_t *value, const json_t *choices)
{
	size_t i;
	json_t *one;

	json_array_foreach(choices, i, one)
	{
		if (json_equal(one, value))
			return true;
	}
	return !choices;
}

static int check_value(const char *tool, const char *key, const json_t *value, const json_t *rule, struct err *err)
{
	const char *type = json_string_value(json_object_get(rule, "type"));
	const json_t *low = json_object_get(rule, "minimum"), *high = json_object_get(rule, "maximum");

	if (!rule)
		return err_set(err, -EINVAL, "%s: unknown argument '%s'", tool, key);
	if (type && !has_type(value, type))
		return err_set(err, -EINVAL, "%s: %s: expected %s, got %s", tool, key, type,
		               base_json_type_name(value));
	if (json_is_string(value) && strlen(json_string_value(value)) != json_string_length(value))
		return err_set(err, -EINVAL, "%s: %s: holds a NUL", tool, key);
	if (json_is_integer(value) && ((low && json_integer_value(value) < json_integer_value(low)) ||
	                               (high && json_integer_value(value) > json_integer_value(high))))
		return err_set(err, -EINVAL, "%s: %s: out of range", tool, key);
	if (!is_in_enum(value, json_object_get(rule, "enum")))
		return err_set(err, -EINVAL, "%s: %s: not one of the choices", tool, key);
	return 0;
}

static int check_args(const struct ag_tool *tool, const json_t *args, struct err *err)
{
	json_t *schema = json_loads(tool->schema, 0, NULL);
	const json_t *properties = json_object_get(schema, "properties");
	const char *key;
	json_t *value;
	size_t i;
	int r = 0;

	if (!schema)
		return err_set(err, -ENOMEM, "out of memory");
	if (args && !json_is_object(args))
		r = err_set(err, -EINVAL, "%s: the arguments are no object", tool->name);
	json_object_foreach((json_t *)args, key, value)
	{
		if (r == 0)
			r = check_value(tool->name, key, value, json_object_get(properties, key), err);
	}
	json_array_foreach(json_object_get(schema, "required"), i, value)
	{
		if (r == 0 && !json_object_get(args, json_string_value(value)))
			r = err_set(err, -EINVAL, "%s: the argument '%s' is missing", tool->name,
			            json_string_value(value));
	}
	json_decref(schema);
	return r;
}

/* Cuts what did not fit, at a character's end. */
static void say_cut(struct base_buf *out)
{
	size_t n = out->max - 64;

	if (out->max < 128)
		return;
	n = out->len < n ? out->len : n;
	while (n && n < out->len && ((unsigned char)out->data[n] & 0xc0) == 0x80)
		n--;
	out->len = n;
	out->error = 0;
	(void)base_buf_puts(out, "\n[cut: the output is too long]\n");
}

int ag_tools_run(const struct ag_tools_context *context, const char *name, const json_t *args, struct base_buf *out,
                 struct err *err)
{
	const struct ag_tool *tool = ag_tools_find(name);
	int r;

	if (!tool)
		return err_set(err, -ENOENT, "there is no tool '%s'", name);
	r = check_args(tool, args, err);
	if (r == 0)
		r = tool->run(context, args, out, err);
	if (r == 0 && base_buf_error(out) == -EFBIG)
		say_cut(out);
	return r < 0 ? r : base_buf_error(out);
}
