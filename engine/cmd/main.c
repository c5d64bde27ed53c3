/* ocai-engine: serve, run, measure and convert language models. */
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"

static const struct opt_command commands[] = {
	{ "serve", "[OPTION]...", "serve a model over HTTP (OpenAI-compatible)", cmd_serve_opts, cmd_serve },
	{ "health", "[OPTION]...", "ask a running server whether it is well", cmd_health_opts, cmd_health },
	{ "run", "[OPTION]... [PROMPT]...", "answer one prompt on standard output", cmd_run_opts, cmd_run },
	{ "bench", "[OPTION]...", "measure prefill and decode speed", cmd_bench_opts, cmd_bench },
	{ "tokenize", "[OPTION]... [TEXT|ID]...", "text to token ids, or back", cmd_tokenize_opts, cmd_tokenize },
	{ "check-schema", "[OPTION]... [--instance FILE]", "whether structured output accepts a text",
	  cmd_check_schema_opts, cmd_check_schema },
	{ "quantize", "[OPTION]... -o FILE", "convert a model to a (smaller) GGUF file", cmd_quantize_opts,
	  cmd_quantize },
	{ 0 }
};

const struct opt_program engine_program = {
	.name = "ocai-engine",
	.summary = "LLM inference engine: loads Hugging Face folders and GGUF files, speaks the OpenAI API",
	.commands = commands,
};

const struct opt_command *engine_command(const char *name)
{
	return opt_find_command(&engine_program, name);
}

int command_usage(const char *command, const struct err *err)
{
	return opt_usage_error(&engine_program, engine_command(command), err);
}

int command_parse(int argc, char **argv, void *dest, int *ret_n_args, int *ret_exit)
{
	const struct opt_command *cmd = engine_command(argv[0]);
	struct err err = { 0 };
	int r = opt_parse(&engine_program, cmd, argc, argv, dest, ret_n_args, &err);

	if (r < 0)
		*ret_exit = opt_usage_error(&engine_program, cmd, &err);
	else if (r == OPT_EXIT_OK)
		*ret_exit = 0;
	return r;
}

int command_failed(const struct err *err)
{
	(void)fflush(stdout);
	(void)fprintf(stderr, "ocai-engine: %s\n", err_text(err));
	return 1;
}

void model_options_apply(const struct model_options *m, struct eng_options *ret_options)
{
	enum base_log_level level;

	if (m->log_level && base_log_level_parse(m->log_level, &level, NULL) == 0)
		base_log_set_level(level);
	*ret_options = (struct eng_options){ .model_path = m->model,
		                             .backend = m->backend,
		                             .precision = m->precision,
		                             .kv_dtype = m->kv_dtype,
		                             .isa = m->isa,
		                             .n_ctx = m->n_ctx,
		                             .n_threads = m->n_threads,
		                             .deterministic = m->deterministic,
		                             .devices = m->devices,
		                             .tensor_parallel = m->tensor_parallel,
		                             .prefill_devices = m->prefill_devices,
		                             .decode_devices = m->decode_devices,
		                             .expert_parallel = m->expert_parallel };
}

static int read_stdin(struct base_buf *buf, struct err *err)
{
	char chunk[16384];
	size_t n;

	while ((n = fread(chunk, 1, sizeof(chunk), stdin)) > 0)
		(void)base_buf_append(buf, chunk, n);
	if (ferror(stdin))
		return err_set(err, -EIO, "standard input: %s", strerror(errno));
	if (base_buf_error(buf))
		return err_set(err, base_buf_error(buf), "standard input: %s", strerror(-base_buf_error(buf)));
	return 0;
}

int read_text(int n_args, char **args, char **ret_text, size_t *ret_len, struct err *err)
{
	struct base_buf buf = BASE_BUF_INIT(64 << 20);
	int r = 0;

	(void)base_buf_append(&buf, "", 0);
	if (n_args == 0 || (n_args == 1 && strcmp(args[0], "-") == 0)) {
		r = read_stdin(&buf, err);
	} else {
		for (int i = 0; i < n_args; i++) {
			(void)base_buf_puts(&buf, i ? " " : "");
			(void)base_buf_puts(&buf, args[i]);
		}
	}
	*ret_len = buf.len;
	if (r == 0 && buf.len == 0)
		*ret_text = strdup("");
	else if (r == 0)
		*ret_text = base_buf_take(&buf);
	base_buf_done(&buf);
	if (r == 0 && !*ret_text)
		return err_set(err, -ENOMEM, "out of memory");
	return r;
}

int main(int argc, char **argv)
{
	return opt_main(&engine_program, argc, argv);
}
