/* The subcommands of ocai-engine. Each lives in cmd_NAME.c with its option table; main.c lists them. */
#ifndef OCAI_ENGINE_COMMANDS_H
#define OCAI_ENGINE_COMMANDS_H

#include "base/options.h"

/* Defined in main.c: what opt_parse() and opt_usage_error() want to know. */
extern const struct opt_program engine_program;
/* The entry of engine_program.commands with that name; never NULL for those below. */
const struct opt_command *engine_command(const char *name);

extern const struct opt cmd_serve_opts[];
extern const struct opt cmd_health_opts[];
extern const struct opt cmd_run_opts[];
extern const struct opt cmd_bench_opts[];
extern const struct opt cmd_tokenize_opts[];
extern const struct opt cmd_check_schema_opts[];
extern const struct opt cmd_quantize_opts[];

/* Return the exit code. */
int cmd_serve(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_check_schema(int argc, char **argv);
int cmd_quantize(int argc, char **argv);

#endif
