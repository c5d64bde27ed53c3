/* ocai: the assistant in the terminal. So far: cmd, one suggested command for one question. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/config.h"
#include "base/json.h"
#include "base/options.h"
#include "commands.h"

enum { MAX_QUESTION = 32000, MAX_ANSWER = 1 << 20, MAX_OUTPUT = 64 << 10 };

struct settings {
	const char *url, *model, *api_key_file, *engine, *engine_model;
	uint32_t timeout_s, start_timeout_s, idle_exit_s, max_tokens;
	bool print, json, show_config;
};

static const struct opt cmd_opts[] = {
	{ "print", 'p', OPT_FLAG, offsetof(struct settings, print), NULL, "print the command alone", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct settings, json), NULL, "print one JSON object", NULL },
	{ "url", 0, OPT_STR, offsetof(struct settings, url), "URL",
	  "OpenAI-compatible server, or unix:/path [an engine of your own, started when needed]", NULL },
	{ "model", 0, OPT_STR, offsetof(struct settings, model), "NAME", "model to ask [the server's first]", NULL },
	{ "timeout", 0, OPT_UINT, offsetof(struct settings, timeout_s), "SECONDS",
	  "how long the server may be silent [120]", NULL },
	{ "show-config", 0, OPT_FLAG, offsetof(struct settings, show_config), NULL,
	  "print the merged configuration and where each value came from", NULL },
	{ 0 }
};

static const struct base_config_key keys[] = {
	{ "backend", "url", "OCAI_URL", OPT_STR, offsetof(struct settings, url), "server to ask", NULL },
	{ "backend", "model", "OCAI_MODEL", OPT_STR, offsetof(struct settings, model), "model to ask", NULL },
	{ "backend", "api-key-file", "OCAI_API_KEY_FILE", OPT_STR, offsetof(struct settings, api_key_file),
	  "file that holds the server's key", NULL },
	{ "backend", "timeout", "OCAI_TIMEOUT", OPT_UINT, offsetof(struct settings, timeout_s),
	  "seconds the server may be silent", NULL },
	{ "backend", "max-tokens", NULL, OPT_UINT, offsetof(struct settings, max_tokens), "longest answer", NULL },
	{ "engine", "program", "OCAI_ENGINE", OPT_STR, offsetof(struct settings, engine), "engine to start", NULL },
	{ "engine", "model", NULL, OPT_STR, offsetof(struct settings, engine_model), "model it serves", NULL },
	{ "engine", "start-timeout", NULL, OPT_UINT, offsetof(struct settings, start_timeout_s),
	  "seconds until it must be ready", NULL },
	{ "engine", "idle-exit", NULL, OPT_UINT, offsetof(struct settings, idle_exit_s),
	  "seconds without a question until it ends", NULL },
	{ 0 }
};

static int cmd_main(int argc, char **argv);

static const struct opt_command commands[] = {
	{ "cmd", "[OPTION]... QUESTION...", "suggest one command (and run nothing)", cmd_opts, cmd_main },
	{ "kb", "[OPTION]... add WHAT... | list | rm WHAT... | search QUESTION... | update",
	  "documents that answers may cite", kb_opts, cmd_kb },
	{ "mcp", "[OPTION]... serve | list [SERVER] | call SERVER TOOL [JSON]",
	  "offer tools to other programs, use theirs", mcp_opts, cmd_mcp },
	{ 0 }
};

static const struct opt_program program = {
	.name = "ocai",
	.summary = "assistant for the administration of this machine",
	.commands = commands,
};

static int usage(const char *words)
{
	struct err err = { 0 };

	(void)err_set(&err, -EINVAL, "%s", words);
	return opt_usage_error(&program, &commands[0], &err);
}

static const char *nonempty(const char *s)
{
	return s && *s ? s : NULL;
}

/* The question's words, joined by blanks. */
static int join_words(char **words, int n, struct base_buf *out)
{
	for (int i = 0; i < n; i++) {
		if (i)
			(void)base_buf_putc(out, ' ');
		(void)base_buf_puts(out, words[i]);
	}
	return base_buf_error(out);
}

/* Connects: to the server that was named, else to this user's engine. */
static int connect_backend(const struct settings *s, struct ag_backend **ret_backend, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf url = BASE_BUF_INIT(8192);
	const struct ag_engine_options engine = { .program = nonempty(s->engine),
		                                  .model = nonempty(s->engine_model),
		                                  .start_timeout_ms = s->start_timeout_s * 1000,
		                                  .idle_exit_s = s->idle_exit_s };
	int r;

	if (nonempty(s->url))
		return ag_backend_open(s->url, nonempty(s->api_key_file), s->timeout_s * 1000, ret_backend, err);
	r = ag_engine_ensure(&engine, &url, err);
	return r < 0 ? r : ag_backend_open(base_buf_text(&url), NULL, s->timeout_s * 1000, ret_backend, err);
}

struct answer {
	struct base_buf model, text, command;
};

static int ask(const struct settings *s, const char *question, struct answer *a, struct err *err)
{
	struct ag_backend *b = NULL;
	json_t *messages = NULL;
	int r = connect_backend(s, &b, err);

	if (r == 0)
		r = nonempty(s->model) ? base_buf_puts(&a->model, s->model) : ag_backend_model(b, &a->model, err);
	if (r == 0) {
		messages = ag_cmd_messages(base_buf_text(&a->model), question);
		if (!messages)
			r = err_set(err, -EINVAL, "the question is not valid UTF-8 text");
	}
	if (r == 0)
		r = ag_backend_ask(b, base_buf_text(&a->model), messages, s->max_tokens, &a->text, err);
	json_decref(messages);
	ag_backend_close(b);
	if (r < 0)
		return r;
	r = ag_extract_command(base_buf_text(&a->text), a->text.len, &a->command);
	if (r > 0)
		return 0;
	if (r == 0 && a->text.len == 0)
		return err_set(err, -ENODATA, "the model's answer was empty");
	return r == 0 ? err_set(err, -ENODATA, "the model's answer holds no command")
	              : err_set(err, r, "out of memory");
}

static int print_json(const char *question, const struct answer *a, double seconds)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(4 * MAX_ANSWER);
	json_t *json = json_pack("{s:s, s:s, s:s, s:f}", "question", question, "command", base_buf_text(&a->command),
	                         "model", base_buf_text(&a->model), "seconds", seconds);
	int r = json ? base_json_append(&out, json) : -EINVAL;

	json_decref(json);
	if (r == 0)
		(void)printf("%s\n", base_buf_text(&out));
	return r;
}

static void print_suggestion(const char *question, const char *command)
{
	(void)puts(ag_is_chinese(question) ? "建议的命令(没有执行):" : "Suggested command (not run):");
	(void)printf("\n    ");
	for (const char *p = command; *p; p++) {
		(void)putchar(*p);
		if (*p == '\n')
			(void)printf("    ");
	}
	(void)printf("\n\n");
}

static int run_question(const struct settings *s, const char *question)
{
	struct answer a = { BASE_BUF_INIT(4096), BASE_BUF_INIT(MAX_ANSWER), BASE_BUF_INIT(MAX_OUTPUT) };
	struct timespec begin, end;
	struct err err = { 0 };
	int r;

	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	r = ask(s, question, &a, &err);
	/* Our engine may have ended itself, idle, just before the question. */
	if (r == -ECONNREFUSED && !nonempty(s->url)) {
		base_buf_reset(&a.model);
		r = ask(s, question, &a, &err);
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	if (r < 0)
		(void)fprintf(stderr, "ocai: %s\n", err_text(&err));
	else if (s->json)
		r = print_json(question, &a,
		               (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9);
	else if (s->print)
		(void)printf("%s\n", base_buf_text(&a.command));
	else
		print_suggestion(question, base_buf_text(&a.command));
	base_buf_done(&a.model);
	base_buf_done(&a.text);
	base_buf_done(&a.command);
	return r < 0 ? 1 : 0;
}

static int check_limits(const struct settings *s)
{
	if (s->timeout_s == 0 || s->timeout_s > 86400 || s->start_timeout_s == 0 || s->start_timeout_s > 86400)
		return usage("timeouts are 1 to 86400 seconds");
	if (s->max_tokens == 0 || s->max_tokens > 65536)
		return usage("max-tokens is 1 to 65536");
	return 0;
}

static int cmd_main(int argc, char **argv)
{
	static const struct base_config_paths paths = { .product = "ocai", .program = "ocai", .user = true };
	CLEANUP(base_buf_done) struct base_buf question = BASE_BUF_INIT(MAX_QUESTION);
	struct settings s = { .timeout_s = 120, .start_timeout_s = 60, .idle_exit_s = 900, .max_tokens = 256 };
	struct base_config *config = NULL;
	struct err err = { 0 };
	int n_words = 0, r;

	r = base_config_load(&paths, keys, &s, &config, &err);
	if (r < 0) {
		(void)fprintf(stderr, "ocai: %s\n", err_text(&err));
		return 1;
	}
	r = opt_parse(&program, &commands[0], argc, argv, &s, &n_words, &err);
	if (r < 0)
		r = opt_usage_error(&program, &commands[0], &err);
	else if (r == OPT_EXIT_OK)
		r = 0;
	else if (s.show_config)
		base_config_show(config, &s, stdout);
	else if (n_words == 0)
		r = usage("a question is missing");
	else if (join_words(argv, n_words, &question) < 0)
		r = usage("the question is too long");
	else if (strspn(base_buf_text(&question), " \t\r\n") == question.len)
		r = usage("the question is empty");
	else if ((r = check_limits(&s)) == 0)
		r = run_question(&s, base_buf_text(&question));
	base_config_free(config);
	return r;
}

int main(int argc, char **argv)
{
	(void)setlocale(LC_ALL, "");
	return opt_main(&program, argc, argv);
}
