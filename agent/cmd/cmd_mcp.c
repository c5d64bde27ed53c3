/* ocai mcp: our tools for other programs (serve), and the tools of the servers in mcp.conf (list, call). */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "commands.h"
#include "mcp/mcp.h"

struct settings {
	const char *config, *lang;
	uint32_t timeout_s;
	bool json;
};

const struct opt mcp_opts[] = { { "json", 0, OPT_FLAG, offsetof(struct settings, json), NULL, "print one JSON document",
	                          NULL },
	                        { "config", 0, OPT_STR, offsetof(struct settings, config), "FILE",
	                          "servers of this file alone [mcp.conf]", NULL },
	                        { "timeout", 0, OPT_UINT, offsetof(struct settings, timeout_s), "SECONDS",
	                          "how long one request may take [30]", NULL },
	                        { "lang", 0, OPT_CHOICE, offsetof(struct settings, lang), "LANG",
	                          "language of the tools' descriptions [locale]", "zh,en" },
	                        { 0 } };

static int mcp_main(int argc, char **argv)
{
	return cmd_mcp(argc, argv);
}

static const struct opt_command command[] = { { "mcp", "[OPTION]... serve | list [SERVER] | call SERVER TOOL [JSON]",
	                                        "offer tools to other programs, use theirs", mcp_opts, mcp_main },
	                                      { 0 } };

static const struct opt_program program = { .name = "ocai", .summary = "", .commands = command };

static volatile sig_atomic_t cancelled;

static void on_signal(int number)
{
	(void)number;
	cancelled = 1;
}

/* Without SA_RESTART: a read that waits must end. */
static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

static int usage(const char *words)
{
	struct err err = { 0 };

	(void)err_set(&err, -EINVAL, "%s", words);
	return opt_usage_error(&program, command, &err);
}

static int failed(const struct err *err)
{
	(void)fprintf(stderr, "ocai: %s\n", err_text(err));
	return 1;
}

static int print_json(json_t *json)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(8 * AG_MCP_MAX_MESSAGE);
	int r = json ? base_json_append(&out, json) : -ENOMEM;

	json_decref(json);
	if (r == 0)
		(void)puts(base_buf_text(&out));
	return r < 0;
}

static int serve(const struct settings *s)
{
	const char *locale = setlocale(LC_MESSAGES, NULL);
	struct ag_tools_context context = {
		.chinese = s->lang ? strcmp(s->lang, "zh") == 0 : locale && strncmp(locale, "zh", 2) == 0,
		.cancel = &cancelled,
	};
	struct err err = { 0 };

	return ag_mcp_serve(STDIN_FILENO, STDOUT_FILENO, &context, &err) < 0 ? failed(&err) : 0;
}

/* A server's words may hold what a terminal would obey. */
static void print_clean(const char *text)
{
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p >= 32 ? *p != 127 : *p == '\n' || *p == '\t')
			(void)putchar(*p);
	}
}

static void print_tools(const char *server, const json_t *tools)
{
	json_t *tool;
	size_t i;

	json_array_foreach(tools, i, tool)
	{
		const char *name = json_string_value(json_object_get(tool, "name"));
		const char *words = json_string_value(json_object_get(tool, "description"));

		(void)printf("%s  ", server);
		print_clean(name ? name : "?");
		(void)printf("\n");
		if (words) {
			(void)printf("    ");
			print_clean(words);
			(void)printf("\n");
		}
	}
}

static int list_server(const struct ag_mcp_config *config, json_t *all)
{
	struct ag_mcp_client *client = NULL;
	json_t *tools = NULL;
	struct err err = { 0 };
	int r = ag_mcp_client_open(config, &cancelled, &client, &err);

	if (r == 0)
		r = ag_mcp_client_list(client, &tools, &err);
	ag_mcp_client_close(client);
	if (r < 0) {
		if (all)
			(void)json_object_set_new(all, config->name, json_pack("{s:s}", "error", err_text(&err)));
		return failed(&err);
	}
	if (all)
		(void)json_object_set_new(all, config->name, json_pack("{s:O}", "tools", tools));
	else
		print_tools(config->name, tools);
	json_decref(tools);
	return 0;
}

static int list(const struct settings *s, const struct ag_mcp_configs *configs, const char *name)
{
	json_t *all = s->json ? json_object() : NULL;
	int status = 0;

	if (configs->n == 0)
		(void)fprintf(stderr, "ocai: no server is configured (mcp.conf)\n");
	for (size_t i = 0; i < configs->n && !cancelled; i++) {
		const struct ag_mcp_config *c = &configs->items[i];

		if (ag_mcp_configs_find(configs, c->name) == c && (!name || strcmp(name, c->name) == 0))
			status |= list_server(c, all);
	}
	return s->json ? print_json(all) | status : status;
}

static int print_result(const struct settings *s, const json_t *result)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE);
	int is_error = json_is_true(json_object_get(result, "isError"));

	if (s->json)
		return print_json(json_incref((json_t *)result)) | is_error;
	if (ag_mcp_result_text(result, &text) < 0)
		return 1;
	print_clean(base_buf_text(&text));
	return is_error;
}

static int call(const struct settings *s, const struct ag_mcp_config *config, const char *tool, const char *args_text)
{
	struct ag_mcp_client *client = NULL;
	json_t *args = NULL, *result = NULL;
	struct err err = { 0 };
	int r = args_text ? base_json_parse("arguments", args_text, strlen(args_text), &args, &err) : 0;

	if (r < 0)
		return opt_usage_error(&program, command, &err);
	if (args && !json_is_object(args))
		r = err_set(&err, -EINVAL, "the arguments are not a JSON object");
	if (r == 0)
		r = ag_mcp_client_open(config, &cancelled, &client, &err);
	if (r == 0)
		r = ag_mcp_client_call(client, tool, args, &result, &err);
	ag_mcp_client_close(client);
	json_decref(args);
	if (r < 0)
		return failed(&err);
	r = print_result(s, result);
	json_decref(result);
	return r;
}

static int use_servers(const struct settings *s, char **words, int n)
{
	struct ag_mcp_configs configs = { 0 };
	const struct ag_mcp_config *one = NULL;
	struct err err = { 0 };
	int r = s->config ? ag_mcp_configs_read(&configs, s->config, &err) : ag_mcp_configs_load(&configs, &err);

	if (r == 0 && n > 1) {
		one = ag_mcp_configs_find(&configs, words[1]);
		if (!one)
			r = err_set(&err, -ENOENT, "no server '%s' is configured (mcp.conf)", words[1]);
	}
	for (size_t i = 0; i < configs.n && s->timeout_s; i++)
		configs.items[i].timeout_ms = s->timeout_s * 1000;
	if (r < 0)
		r = failed(&err);
	else if (strcmp(words[0], "list") == 0)
		r = list(s, &configs, n > 1 ? words[1] : NULL);
	else
		r = call(s, one, words[2], n > 3 ? words[3] : NULL);
	ag_mcp_configs_done(&configs);
	return r;
}

int cmd_mcp(int argc, char **argv)
{
	struct settings s = { 0 };
	struct err err = { 0 };
	int n = 0, r = opt_parse(&program, command, argc, argv, &s, &n, &err);

	if (r < 0)
		return opt_usage_error(&program, command, &err);
	if (r == OPT_EXIT_OK)
		return 0;
	if (s.timeout_s > 3600)
		return usage("timeout is 1 to 3600 seconds");
	catch_signals();
	if (n == 1 && strcmp(argv[0], "serve") == 0)
		return serve(&s);
	if ((n == 1 || n == 2) && strcmp(argv[0], "list") == 0)
		return use_servers(&s, argv, n);
	if ((n == 3 || n == 4) && strcmp(argv[0], "call") == 0)
		return use_servers(&s, argv, n);
	return usage("expected serve, list [SERVER], or call SERVER TOOL [JSON]");
}
