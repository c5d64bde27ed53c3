/* ocai-engine quantize: a model as a GGUF file with other element types. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "commands.h"
#include "engine_quantize.h"

struct quantize {
	const char *model, *random, *type, *embed_type, *output_type, *output;
	uint32_t threads;
	bool pure, json;
};

const struct opt cmd_quantize_opts[] = {
	{ "model", 'm', OPT_STR, offsetof(struct quantize, model), "PATH", "Hugging Face folder or GGUF file", NULL },
	{ "random", 0, OPT_CHOICE, offsetof(struct quantize, random), "SHAPE",
	  "a model of that shape with random weights", "qwen3-0.6b,qwen3-1.7b,qwen3-8b" },
	{ "type", 't', OPT_STR, offsetof(struct quantize, type), "TYPE",
	  "q4_0, q8_0, q4_k, q6_k, bf16, f16, f32, q4_1, q5_0, q5_1 or q5_k [q4_k]", NULL },
	{ "embed-type", 0, OPT_STR, offsetof(struct quantize, embed_type), "TYPE", "of the token embeddings", NULL },
	{ "output-type", 0, OPT_STR, offsetof(struct quantize, output_type), "TYPE", "of the output matrix", NULL },
	{ "pure", 0, OPT_FLAG, offsetof(struct quantize, pure), NULL, "every matrix of the same type, no mix", NULL },
	{ "output", 'o', OPT_STR, offsetof(struct quantize, output), "FILE", "the GGUF file to write", NULL },
	{ "threads", 0, OPT_UINT, offsetof(struct quantize, threads), "N", "threads [one per usable core]", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct quantize, json), NULL, "machine-readable output", NULL },
	{ 0 },
};

static void print_note(void *arg, const char *text)
{
	(void)arg;
	base_log(BASE_LOG_WARN, "%s", text);
}

/* The options' words as library options; err names what is wrong. */
static int read_options(const struct quantize *q, int n_args, char **argv, struct eng_quantize_options *o,
                        struct err *err)
{
	int r = 0;

	if (n_args > 0)
		return err_set(err, -EINVAL, "unexpected argument '%s'", argv[0]);
	if (!q->model == !q->random)
		return err_set(err, -EINVAL, "one of --model and --random is needed");
	if (!q->output)
		return err_set(err, -EINVAL, "--output is needed");
	*o = (struct eng_quantize_options){
		.model_path = q->model,
		.random_shape = q->random,
		.output_path = q->output,
		.embed_dtype = KN_N_DTYPES,
		.output_dtype = KN_N_DTYPES,
		.pure = q->pure,
		.n_threads = q->threads,
		.note = print_note,
	};
	r = kn_dtype_parse(q->type, &o->dtype, err);
	if (r == 0 && q->embed_type)
		r = kn_dtype_parse(q->embed_type, &o->embed_dtype, err);
	if (r == 0 && q->output_type)
		r = kn_dtype_parse(q->output_type, &o->output_dtype, err);
	return r;
}

static void report(const struct quantize *q, const struct eng_quantize_result *result, double seconds)
{
	double bits = result->n_params ? 8.0 * (double)result->size_bytes / (double)result->n_params : 0.0;

	if (q->json)
		(void)printf("{\"tensors\":%llu,\"parameters\":%llu,\"bytes\":%llu,\"bits_per_weight\":%.3f,"
		             "\"seconds\":%.3f}\n",
		             (unsigned long long)result->n_tensors, (unsigned long long)result->n_params,
		             (unsigned long long)result->size_bytes, bits, seconds);
	else
		(void)printf("%s: %llu tensors, %.1f M parameters, %.1f MiB (%.2f bits per weight) in %.1f s\n",
		             q->output, (unsigned long long)result->n_tensors, (double)result->n_params / 1e6,
		             (double)result->size_bytes / 1048576.0, bits, seconds);
}

int cmd_quantize(int argc, char **argv)
{
	const struct opt_command *cmd = engine_command("quantize");
	struct quantize q = { .type = "q4_k" };
	struct eng_quantize_options options;
	struct eng_quantize_result result;
	struct err err = { 0 };
	double start = base_now_s();
	int n_args = 0, r;

	r = opt_parse(&engine_program, cmd, argc, argv, &q, &n_args, &err);
	if (r == OPT_EXIT_OK)
		return 0;
	if (r == 0)
		r = read_options(&q, n_args, argv, &options, &err);
	if (r < 0)
		return opt_usage_error(&engine_program, cmd, &err);
	r = eng_quantize(&options, &result, &err);
	if (r < 0) {
		base_log(BASE_LOG_ERROR, "%s", err_text(&err));
		return 1;
	}
	report(&q, &result, base_now_s() - start);
	return 0;
}
