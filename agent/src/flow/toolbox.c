/* The tools of one answer, in one table: the read-only tools of tools.c, run_command, and what the servers of mcp.conf
 * offer, each with its schema as the API wants it and the way it is permitted and run.
 *
 * Our own tools and commands run in a child process (capture.c). Results are cleaned of what would act on a terminal
 * and cut to a size that the model's context can bear. A tool that does not fit into the schemas' share of the context
 * is left out: the table's order is the order of usefulness. */
#include "flow/flow.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "mcp/mcp.h"
#include "tools/tools.h"

enum {
	MAX_TOOLS = 128,
	MAX_PATHS = 64,
	MAX_API_NAME = 64,
	MIN_RESULT = 1024,
	MAX_DESCRIPTION = 1024,
	MAX_LINE = 16384,
	NOTE_BYTES = 64,
};

struct entry {
	char name[MAX_API_NAME + 1]; /* as the model sees it */
	enum { OURS, COMMAND, MCP } kind;
	const struct ag_tool *tool;         /* OURS */
	struct ag_mcp_client *client;       /* MCP */
	const struct ag_mcp_config *config; /* MCP */
	char *remote_name;                  /* MCP: as the server calls it */
};

struct ag_toolbox {
	const struct ag_link *link;
	const struct ag_io *io;
	struct entry entries[MAX_TOOLS];
	size_t n;
	json_t *schemas;
	size_t tokens_left;
	struct ag_consent consent;
	struct opt_list named; /* real paths, ours */
	struct ag_gate_rules *rules;
	struct ag_gate_decision *decision; /* of the command that was permitted last */
	struct ag_mcp_configs configs;
	struct ag_mcp_client **clients;
	size_t n_clients;
};

static const char command_schema[] =
        "{\"type\":\"object\",\"properties\":{\"command\":{\"type\":\"string\",\"description\":\"one line of shell\"}},"
        "\"required\":[\"command\"],\"additionalProperties\":false}";

/* ---- The table ---- */

static const struct entry *find(const struct ag_toolbox *box, const char *name)
{
	for (size_t i = 0; i < box->n; i++) {
		if (strcmp(box->entries[i].name, name) == 0)
			return &box->entries[i];
	}
	return NULL;
}

/* parameters is taken. False when there is no room, for the table or in the context. */
static bool add_entry(struct ag_toolbox *box, const struct entry *e, const char *description, json_t *parameters)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(1 << 20);
	json_t *schema = json_pack("{s:s, s:{s:s, s:s, s:o}}", "type", "function", "function", "name", e->name,
	                           "description", description, "parameters", parameters);
	size_t tokens;

	if (!schema)
		return false;
	tokens = base_json_append(&text, schema) < 0 ? SIZE_MAX : ag_guess_tokens(base_buf_text(&text), text.len);
	if (box->n == MAX_TOOLS || tokens > box->tokens_left || find(box, e->name)) {
		json_decref(schema);
		return false;
	}
	if (json_array_append_new(box->schemas, schema) < 0)
		return false;
	box->tokens_left -= tokens;
	box->entries[box->n++] = *e;
	return true;
}

static void add_ours(struct ag_toolbox *box, const struct ag_assistant *a)
{
	for (size_t i = 0; i < ag_tools_count(); i++) {
		const struct ag_tool *tool = ag_tools_at(i);
		struct entry e = { .kind = OURS, .tool = tool };

		if (!ag_assistant_has_tool(a, tool->name))
			continue;
		(void)snprintf(e.name, sizeof(e.name), "%s", tool->name);
		(void)add_entry(box, &e, box->io->chinese ? tool->description_zh : tool->description_en,
		                json_loads(tool->schema, 0, NULL));
	}
}

static void add_command(struct ag_toolbox *box, const struct ag_assistant *a)
{
	struct entry e = { .name = "run_command", .kind = COMMAND };

	if (ag_assistant_has_tool(a, e.name))
		(void)add_entry(
		        box, &e,
		        box->io->chinese
		                ? "在本机运行一条 shell 命令并返回其输出；用户会被询问。只在其他工具不够用时使用。"
		                : "Run a shell command on this machine and return its output; the user may be "
		                  "asked. Only when the other tools do not do.",
		        json_loads(command_schema, 0, NULL));
}

/* ---- MCP servers ---- */

/* "mcp_SERVER_TOOL" of the characters that the API allows. */
static void api_name(const char *server, const char *tool, char *ret, size_t size)
{
	(void)snprintf(ret, size, "mcp_%s_%s", server, tool);
	for (char *p = ret; *p; p++) {
		if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-')
			*p = '_';
	}
}

static void add_server_tools(struct ag_toolbox *box, const struct ag_mcp_config *config, struct ag_mcp_client *client,
                             const json_t *tools)
{
	const json_t *tool;
	size_t i;

	json_array_foreach(tools, i, tool)
	{
		const char *name = json_string_value(json_object_get(tool, "name"));
		const char *words = json_string_value(json_object_get(tool, "description"));
		json_t *schema = json_object_get(tool, "inputSchema");
		struct entry e = { .kind = MCP, .client = client, .config = config };
		CLEANUP(base_buf_done) struct base_buf about = BASE_BUF_INIT(4 * MAX_DESCRIPTION);

		if (!name || !*name)
			continue;
		api_name(config->name, name, e.name, sizeof(e.name));
		e.remote_name = strdup(name);
		(void)ag_term_clip(&about, words ? words : name, strlen(words ? words : name), MAX_DESCRIPTION, true);
		if (!e.remote_name ||
		    !add_entry(box, &e, base_buf_text(&about),
		               json_is_object(schema) ? json_incref(schema) : json_pack("{s:s}", "type", "object")))
			free(e.remote_name);
	}
}

static int add_server(struct ag_toolbox *box, const struct ag_mcp_config *config, struct err *err)
{
	struct ag_mcp_client *client = NULL;
	json_t *tools = NULL;
	char host[256];
	int r;

	if (config->url && ag_url_remote_host(config->url, host, sizeof(host)) && !box->link->settings->quiet)
		(void)fprintf(box->io->err, "remote: %s (MCP: %s)\n", host, config->name);
	r = ag_mcp_client_open(config, ag_term_interrupt_flag(), &client, err);

	if (r < 0)
		return r;
	r = ag_mcp_client_list(client, &tools, err);
	if (r < 0) {
		ag_mcp_client_close(client);
		return r;
	}
	box->clients[box->n_clients++] = client;
	add_server_tools(box, config, client, tools);
	json_decref(tools);
	return 0;
}

/* A server that does not answer costs its tools and a remark. */
static int add_servers(struct ag_toolbox *box, struct err *err)
{
	int r = ag_mcp_configs_load(&box->configs, err);

	if (r < 0)
		return r;
	box->clients = calloc(box->configs.n + 1, sizeof(struct ag_mcp_client *));
	if (!box->clients)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < box->configs.n; i++) {
		const struct ag_mcp_config *config = &box->configs.items[i];
		struct err words = { 0 };

		if (ag_mcp_configs_find(&box->configs, config->name) != config)
			continue; /* a later section replaces it */
		r = add_server(box, config, &words);
		if (r == -ECANCELED)
			return err_set(err, r, "stopped");
		if (r < 0)
			(void)fprintf(box->io->err, "ocai: %s: %s\n",
			              box->io->chinese ? "MCP 服务器不可用" : "an MCP server cannot be used",
			              err_text(&words));
	}
	return 0;
}

/* ---- Life ---- */

int ag_toolbox_new(const struct ag_link *link, const struct ag_io *io, size_t max_tokens, struct ag_toolbox **ret_box,
                   struct err *err)
{
	struct ag_toolbox *box = calloc(1, sizeof(*box));
	const struct ag_assistant *a = link->assistant;
	int r = 0;

	if (!box || !(box->schemas = json_array())) {
		free(box);
		return err_set(err, -ENOMEM, "out of memory");
	}
	box->link = link;
	box->io = io;
	box->tokens_left = max_tokens;
	box->consent = (struct ag_consent){ .settings = link->settings, .io = io, .named = &box->named };
	if (!link->no_tools && !ag_model_is_embedded(base_buf_text(&link->model)) && a->tools[0]) {
		add_ours(box, a);
		add_command(box, a);
		if (ag_assistant_has_tool(a, "mcp"))
			r = add_servers(box, err);
	}
	for (size_t i = 0; r == 0 && i < link->settings->files.n; i++)
		ag_toolbox_allow_paths(box, link->settings->files.items[i]);
	if (r < 0) {
		ag_toolbox_free(box);
		return r;
	}
	*ret_box = box;
	return 0;
}

void ag_toolbox_free(struct ag_toolbox *box)
{
	if (!box)
		return;
	for (size_t i = 0; i < box->n_clients; i++)
		ag_mcp_client_close(box->clients[i]);
	free(box->clients);
	for (size_t i = 0; i < box->n; i++)
		free(box->entries[i].remote_name);
	for (size_t i = 0; i < box->named.n; i++)
		free((char *)box->named.items[i]);
	opt_list_done(&box->named);
	ag_mcp_configs_done(&box->configs);
	ag_gate_decision_free(box->decision);
	ag_gate_rules_free(box->rules);
	json_decref(box->schemas);
	free(box);
}

const json_t *ag_toolbox_schemas(const struct ag_toolbox *box)
{
	return box->schemas;
}

/* ---- Paths that the person named ---- */

static void allow_path(struct ag_toolbox *box, const char *word, size_t len)
{
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(PATH_MAX);
	const char *home = getenv("HOME"), **items;
	char *real;

	while (len && strchr(".,;:?!)", word[len - 1]))
		len--; /* the sentence's, not the path's */
	if (len >= 2 && word[0] == '~' && word[1] == '/' && home) {
		(void)base_buf_puts(&path, home);
		word++;
		len--;
	}
	if (len == 0 || box->named.n == MAX_PATHS || base_buf_append(&path, word, len) < 0 ||
	    memchr(word, '\0', len) != NULL)
		return;
	real = realpath(base_buf_text(&path), NULL);
	items = real ? reallocarray(box->named.items, box->named.n + 1, sizeof(*items)) : NULL;
	if (!items) {
		free(real);
		return;
	}
	box->named.items = items;
	items[box->named.n++] = real;
}

static bool is_path_char(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("._/~+@%=:,-", c));
}

void ag_toolbox_allow_paths(struct ag_toolbox *box, const char *words)
{
	/* Words as blanks and quotes part them, then runs of plain characters: Chinese text leaves no blanks. */
	for (const char *p = words; *p;) {
		size_t n = strcspn(p, " \t\r\n\"'`");

		if (n)
			allow_path(box, p, n);
		p += n + (p[n] != '\0');
	}
	for (const char *p = words; *p;) {
		size_t n = 0;

		while (is_path_char(p[n]))
			n++;
		if (n)
			allow_path(box, p, n);
		p += n ? n : 1;
	}
}

/* ---- Permission ---- */

static int unknown_tool(const struct ag_toolbox *box, const char *name, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf names = BASE_BUF_INIT(400);

	for (size_t i = 0; i < box->n; i++)
		(void)base_buf_printf(&names, "%s%s", i ? ", " : "", box->entries[i].name);
	return err_set(err, -ENOENT, "there is no tool '%.64s'; there are: %s", name, base_buf_text(&names));
}

/* What the tool would open, with no link on the way; a copy of the arguments that names it so. */
static json_t *real_arguments(const json_t *args)
{
	CLEANUP(freep) char *real = realpath(json_string_value(json_object_get(args, "path")), NULL);
	json_t *copy = real ? json_copy((json_t *)args) : NULL;

	if (copy && json_object_set_new(copy, "path", json_string(real)) < 0) {
		json_decref(copy);
		return NULL;
	}
	return copy;
}

static int permit_file(struct ag_toolbox *box, const json_t *args, struct err *err)
{
	const char *path = json_string_value(json_object_get(args, "path"));
	CLEANUP(json_decrefp) json_t *real = NULL;

	if (!path || path[0] != '/')
		return err_set(err, -EINVAL, "read_file: path: expected an absolute path");
	real = real_arguments(args);
	if (!real)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	return ag_consent_file(&box->consent, json_string_value(json_object_get(real, "path")), err);
}

static void audit(struct ag_toolbox *box, const char *command, bool ran, int exit_code)
{
	CLEANUP(base_buf_done) struct base_buf path = BASE_BUF_INIT(8192);
	const struct ag_gate_audit_entry entry = { .command = command,
		                                   .origin = "tool",
		                                   .class = box->decision->risk->class,
		                                   .verdict = box->decision->verdict,
		                                   .ran = ran,
		                                   .exit_code = exit_code };
	struct err err = { 0 };
	int r = ag_gate_audit_path(&path, &err);

	if (r >= 0)
		r = ag_gate_audit(base_buf_text(&path), &entry, 0, &err);
	if (r < 0)
		(void)fprintf(box->io->err, "ocai: %s: %s\n",
		              box->io->chinese ? "没有写入审计日志" : "not in the audit log", err_text(&err));
}

static int permit_command(struct ag_toolbox *box, const json_t *args, struct err *err)
{
	const json_t *value = json_object_get(args, "command");
	const char *command = json_string_value(value);
	int r;

	if (!command || !*command || strlen(command) != json_string_length(value) || strlen(command) > MAX_LINE)
		return err_set(err, -EINVAL, "run_command: command: expected a line of shell of at most %d bytes",
		               MAX_LINE);
	/* Rules that cannot be read may forbid this very command: nothing runs. */
	if (!box->rules && (r = ag_gate_rules_load(&box->rules, err)) < 0)
		return r;
	ag_gate_decision_free(box->decision);
	box->decision = NULL;
	r = ag_consent_command(&box->consent, box->rules, command, &box->decision, err);
	if (r <= 0 && box->decision)
		audit(box, command, false, 0);
	return r;
}

int ag_toolbox_permit(struct ag_toolbox *box, const char *name, const json_t *args, struct err *err)
{
	const struct entry *e = find(box, name);
	int r = 1;

	if (!e)
		return unknown_tool(box, name, err);
	if (e->kind == COMMAND)
		r = permit_command(box, args, err);
	else if (e->kind == MCP && !ag_mcp_config_allows(e->config, e->remote_name))
		r = ag_consent_mcp(&box->consent, e->config->name, e->remote_name, args, err);
	else if (e->kind == OURS && strcmp(name, "read_file") == 0)
		r = permit_file(box, args, err);
	return r == 0 ? -EACCES : r < 0 ? r : 0;
}

/* ---- Running ---- */

struct ours {
	const struct ag_tools_context *context;
	const char *name;
	const json_t *args;
};

static void print_all(const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(STDOUT_FILENO, text, len);

		if (n <= 0)
			return;
		text += n;
		len -= (size_t)n;
	}
}

/* In the child: the result, or the error's words and status 1. */
static int run_ours_child(void *arg)
{
	const struct ours *o = arg;
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(AG_TOOLS_MAX_OUTPUT);
	struct err err = { 0 };
	int r = ag_tools_run(o->context, o->name, o->args, &out, &err);

	if (r < 0)
		print_all(err_text(&err), strlen(err_text(&err)));
	else
		print_all(base_buf_text(&out), out.len);
	return r < 0;
}

static int run_ours(struct ag_toolbox *box, const struct entry *e, const json_t *args, uint32_t timeout_ms,
                    struct base_buf *raw, struct err *err)
{
	const struct ag_tools_context context = { .chinese = box->io->chinese };
	CLEANUP(json_decrefp) json_t *real = strcmp(e->name, "read_file") == 0 ? real_arguments(args) : NULL;
	struct ours o = { .context = &context, .name = e->name, .args = real ? real : args };
	int status = 0, r = ag_capture(run_ours_child, &o, timeout_ms, raw, &status, err);

	if (r < 0)
		return r;
	if (status > 1)
		return err_set(err, -EIO, "%s ended with status %d", e->name, status);
	return status ? err_set(err, -EIO, "%s", base_buf_text(raw)) : 0;
}

static int run_shell_child(void *arg)
{
	static const char *const quiet[][2] = { { "PAGER", "cat" },       { "SYSTEMD_PAGER", "cat" },
		                                { "TERM", "dumb" },       { "NO_COLOR", "1" },
		                                { "COLUMNS", "200" },     { "GIT_PAGER", "cat" },
		                                { "SYSTEMD_COLORS", "0" } };

	for (size_t i = 0; i < sizeof(quiet) / sizeof(*quiet); i++)
		(void)setenv(quiet[i][0], quiet[i][1], 1);
	(void)execl("/bin/sh", "sh", "-c", (const char *)arg, (char *)NULL);
	return 127;
}

static int run_command(struct ag_toolbox *box, const json_t *args, uint32_t timeout_ms, struct base_buf *raw,
                       struct err *err)
{
	const char *command = json_string_value(json_object_get(args, "command"));
	CLEANUP(base_buf_done) struct base_buf output = BASE_BUF_INIT(raw->max - NOTE_BYTES);
	int status = 0, r = ag_capture(run_shell_child, (void *)command, timeout_ms, &output, &status, err);

	if (r != -EAGAIN)
		audit(box, command, true, status);
	if (r < 0)
		return r;
	(void)base_buf_printf(raw, "exit code %d\n", status);
	return base_buf_append(raw, base_buf_text(&output), output.len);
}

/* Of what goes to another host, the secrets stay here. */
static json_t *arguments_for(const struct ag_mcp_config *config, const json_t *args)
{
	CLEANUP(base_buf_done)
	struct base_buf text = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE), masked = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE);
	json_t *copy = NULL;
	char host[256];

	if (!config->url || !ag_url_remote_host(config->url, host, sizeof(host)))
		return json_incref((json_t *)args);
	if (base_json_append(&text, args) < 0 || ag_gate_mask(base_buf_text(&text), text.len, &masked) < 0 ||
	    base_json_parse("arguments", base_buf_text(&masked), masked.len, &copy, NULL) < 0)
		return NULL;
	return copy;
}

/* The call, within the server's own limit and that of the answer. */
static int call_server(struct ag_toolbox *box, const struct entry *e, const json_t *args, uint32_t timeout_ms,
                       json_t **ret_result, struct err *err)
{
	struct ag_mcp_config *config = &box->configs.items[e->config - box->configs.items];
	uint32_t usual_ms = config->timeout_ms;
	int r;

	config->timeout_ms = timeout_ms < usual_ms ? timeout_ms : usual_ms;
	r = ag_mcp_client_call(e->client, e->remote_name, args, ret_result, err);
	config->timeout_ms = usual_ms;
	return r;
}

static int run_mcp(struct ag_toolbox *box, const struct entry *e, const json_t *args, uint32_t timeout_ms,
                   struct base_buf *raw, struct err *err)
{
	CLEANUP(json_decrefp) json_t *sent = arguments_for(e->config, args);
	CLEANUP(json_decrefp) json_t *result = NULL;
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE);
	size_t room = raw->max - NOTE_BYTES;
	int r;

	if (!sent)
		return err_set(err, -EBADMSG, "the secrets in the arguments cannot be masked, so they were not sent");
	r = call_server(box, e, sent, timeout_ms, &result, err);
	if (r < 0)
		return r;
	r = ag_mcp_result_text(result, &text);
	if (r < 0)
		return err_set(err, r, "%s: the result is too long", e->config->name);
	if (json_is_true(json_object_get(result, "isError")))
		return err_set(err, -EREMOTEIO, "%s", base_buf_text(&text));
	if (text.len <= room)
		return base_buf_append(raw, base_buf_text(&text), text.len);
	(void)base_buf_append(raw, text.data, room);
	return base_buf_printf(raw, "\n[cut: %zu more bytes]\n", text.len - room);
}

/* A quarter of the context, in bytes of three to a token, and no more than the settings allow. */
static size_t result_bytes(const struct ag_toolbox *box)
{
	size_t bearable = (size_t)box->link->context_tokens * 3 / 4, max = box->link->settings->max_result_bytes;

	bearable = bearable < MIN_RESULT ? MIN_RESULT : bearable;
	return max && max < bearable ? max : bearable < AG_MAX_RESULT ? bearable : AG_MAX_RESULT;
}

int ag_toolbox_run(struct ag_toolbox *box, const char *name, const json_t *args, uint32_t timeout_ms,
                   struct base_buf *out, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf raw = BASE_BUF_INIT(result_bytes(box));
	const struct entry *e = find(box, name);
	int r;

	if (!e)
		return unknown_tool(box, name, err);
	r = e->kind == OURS      ? run_ours(box, e, args, timeout_ms, &raw, err)
	    : e->kind == COMMAND ? run_command(box, args, timeout_ms, &raw, err)
	                         : run_mcp(box, e, args, timeout_ms, &raw, err);
	if (r < 0)
		return r;
	return ag_term_sanitize(out, base_buf_text(&raw), raw.len, false) < 0
	               ? err_set(err, -EFBIG, "the result is too long")
	               : 0;
}
