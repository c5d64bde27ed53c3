/* What several subcommands share (main.c). */
#ifndef OCAI_ENGINE_COMMON_H
#define OCAI_ENGINE_COMMON_H

#include "base/options.h"
#include "commands.h"
#include "engine.h"

/* Parses the options of the command that argv[0] names into dest. OPT_RUN: go on, with *ret_n_args
 * positional arguments from argv[0] on; otherwise *ret_exit is the exit code. */
int command_parse(int argc, char **argv, void *dest, int *ret_n_args, int *ret_exit);
/* "ocai-engine: message" on stderr; returns 1. */
int command_failed(const struct err *err);
/* The message of wrong usage and the hint; returns 2. */
int command_usage(const char *command, const struct err *err);

/* Where a model comes from and how it is computed; part of several commands' options. */
struct model_options {
	const char *model, *backend, *precision, *kv_dtype, *isa, *log_level, *devices;
	const char *prefill_devices, *decode_devices;
	uint32_t n_ctx, n_threads, tensor_parallel;
	bool deterministic, expert_parallel;
};

/* Rows of an option table for a `struct model_options` that is the member `m` of `type`. */
/* clang-format off */
#define MODEL_OPTS(type, m) \
	{ "model", 'm', OPT_STR, offsetof(type, m.model), "PATH", \
	  "Hugging Face folder or GGUF file [the embedded model]", NULL }, \
	{ "ctx", 'c', OPT_UINT, offsetof(type, m.n_ctx), "TOKENS", "context length [the model's, at most 8192]", NULL }, \
	{ "threads", 't', OPT_UINT, offsetof(type, m.n_threads), "N", "threads [one per usable core]", NULL }, \
	{ "backend", 0, OPT_CHOICE, offsetof(type, m.backend), "NAME", "what computes [auto]", "auto,cpu,ref,cuda,hip" }, \
	{ "devices", 0, OPT_STR, offsetof(type, m.devices), "LIST", \
	  "GPUs to compute on together, as 0,1 [the first one]", NULL }, \
	{ "tensor-parallel", 0, OPT_UINT, offsetof(type, m.tensor_parallel), "N", \
	  "how many GPUs share each layer [as many as --devices names]", NULL }, \
	{ "expert-parallel", 0, OPT_FLAG, offsetof(type, m.expert_parallel), NULL, \
	  "with several GPUs: each expert is on one of them [no]", NULL }, \
	{ "prefill-devices", 0, OPT_STR, offsetof(type, m.prefill_devices), "LIST", \
	  "GPUs that compute prompts, while others answer [no others]", NULL }, \
	{ "decode-devices", 0, OPT_STR, offsetof(type, m.decode_devices), "LIST", \
	  "GPUs that compute answers to them [no others]", NULL }, \
	{ "precision", 0, OPT_CHOICE, offsetof(type, m.precision), "KIND", \
	  "float32 throughout, or what is fastest [auto: exact for small folders]", "auto,exact,fast" }, \
	{ "kv-dtype", 0, OPT_CHOICE, offsetof(type, m.kv_dtype), "TYPE", \
	  "what K and V are kept in [auto: 16 bits, f32 where precision is exact]", "auto,f32,f16,bf16,f8" }, \
	{ "deterministic", 0, OPT_FLAG, offsetof(type, m.deterministic), NULL, \
	  "the same bits whatever else is computed", NULL }, \
	{ "isa", 0, OPT_STR, offsetof(type, m.isa), "NAME", \
	  "instruction set of the cpu backend: scalar, avx2, avx512 ... [the best]", NULL }, \
	{ "log-level", 0, OPT_CHOICE, offsetof(type, m.log_level), "LEVEL", "what is logged on stderr [info]", \
	  "error,warn,info,debug" }
/* clang-format on */

/* Sets the log level and fills the engine's options. */
void model_options_apply(const struct model_options *m, struct eng_options *ret_options);

/* Where `serve` listens as it is configured (files, environment, defaults). The strings live as long as *ret_config,
 * which the caller frees, also after an error (NULL then). */
struct base_config;
int serve_address(const char **ret_host, uint32_t *ret_port, const char **ret_socket, struct base_config **ret_config,
                  struct err *err);

/* The positional arguments joined by spaces, or standard input when there are none or "-". malloc'd. */
int read_text(int n_args, char **args, char **ret_text, size_t *ret_len, struct err *err);

#endif
