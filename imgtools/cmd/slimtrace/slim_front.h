/* What slim, why and report share: the options that say what is looked at, and what is printed of it. */
#ifndef IMG_SLIMTRACE_SLIM_FRONT_H
#define IMG_SLIMTRACE_SLIM_FRONT_H

#include "base/json.h"
#include "commands.h"
#include "elf/fatbin.h"
#include "slim/job.h"

struct slim_options {
	const char *image, *root, *out, *policy, *user, *cwd, *save_trace, *gpu_archs, *gpu_ptx, *layers, *pyc, *html,
	        *compression;
	const char *auth_file, *work_dir;
	struct opt_list keep, drop, entries, traces, runs, checks, env, settings;
	bool drop_ir, force, repair, stub_unbound, json, quiet, insecure;
	struct img_gpu_archs archs; /* gpu_archs, gpu_ptx and drop_ir as they are meant */
	uint32_t limit, level;
	double timeout_s;
};

/* The rows of the option tables that all three have. */
#define SLIM_INPUT_OPTIONS                                                                                                \
	{ "image", 'i',                                                                                                   \
	  OPT_STR, offsetof(struct slim_options, image),                                                                  \
	  "IMAGE", "oci:DIR[:TAG], oci-archive:, docker-archive:FILE, docker://HOST/NAME",                                \
	  NULL },                                                                                                         \
	        { "root", 'r', OPT_STR, offsetof(struct slim_options, root), "DIR", "a root instead of an image", NULL }, \
	        { "trace",  't',                                                                                          \
		  OPT_LIST, offsetof(struct slim_options, traces),                                                        \
		  "FILE",   "keep what this trace touched; repeatable",                                                   \
		  NULL },                                                                                                 \
	        { "run",     0,                                                                                           \
		  OPT_LIST,  offsetof(struct slim_options, runs),                                                         \
		  "COMMAND", "run this in the image and keep what it touches; - is the image's own command; repeatable",  \
		  NULL },                                                                                                 \
	        { "entry",   0,                                                                                           \
		  OPT_LIST,  offsetof(struct slim_options, entries),                                                      \
		  "PROGRAM", "a further program that must work; repeatable",                                              \
		  NULL },                                                                                                 \
	        { "keep",       'k',                                                                                      \
		  OPT_LIST,     offsetof(struct slim_options, keep),                                                      \
		  "PATH|SLICE", "keep this path (a pattern), package or slice, and what it needs; repeatable",            \
		  NULL },                                                                                                 \
	        { "drop",    0,                                                                                           \
		  OPT_LIST,  offsetof(struct slim_options, drop),                                                         \
		  "PATTERN", "drop this whatever needs it; repeatable",                                                   \
		  NULL },                                                                                                 \
	        { "policy", 'p', OPT_STR, offsetof(struct slim_options, policy), "FILE", "read policy from this file",    \
		  NULL },                                                                                                 \
	        { "set",       's',                                                                                       \
		  OPT_LIST,    offsetof(struct slim_options, settings),                                                   \
		  "KEY=VALUE", "one policy: timezones=UTC, locales=de_DE.UTF-8, licences=yes, ...; repeatable",           \
		  NULL },                                                                                                 \
	        { "env",        'e',                                                                                      \
		  OPT_LIST,     offsetof(struct slim_options, env),                                                       \
		  "NAME=VALUE", "environment of the runs; repeatable",                                                    \
		  NULL },                                                                                                 \
	        { "user", 'u', OPT_STR, offsetof(struct slim_options, user), "USER[:GROUP]", "user of the runs", NULL },  \
	        { "cwd", 'C', OPT_STR, offsetof(struct slim_options, cwd), "DIR", "working folder of the runs", NULL },   \
	        { "timeout",          0,   OPT_DOUBLE, offsetof(struct slim_options, timeout_s), "SECONDS",               \
		  "of one run [300]", NULL },                                                                             \
	        { "auth-file", 0,                                                                                         \
		  OPT_STR,     offsetof(struct slim_options, auth_file),                                                  \
		  "FILE",      "passwords for registries [docker's and podman's]",                                        \
		  NULL },                                                                                                 \
	        { "insecure", 0,                                                                                          \
		  OPT_FLAG,   offsetof(struct slim_options, insecure),                                                    \
		  NULL,       "registries by plain HTTP, certificates unchecked",                                         \
		  NULL },                                                                                                 \
	        { "work-dir", 0,                                                                                          \
		  OPT_STR,    offsetof(struct slim_options, work_dir),                                                    \
		  "DIR",      "folder for what lies there meanwhile [a new one in $TMPDIR or /var/tmp]",                  \
		  NULL },                                                                                                 \
	        { "json", 0, OPT_FLAG, offsetof(struct slim_options, json), NULL, "print one JSON document", NULL },      \
	{                                                                                                                 \
		"quiet", 'q', OPT_FLAG, offsetof(struct slim_options, quiet), NULL, "no steps on standard error", NULL    \
	}

/* Opens the job and makes the plan. Returns -1 when all is well, else the exit code. */
int slim_front_open(const char *command, struct slim_options *o, struct img_job **ret_job);
void slim_front_done(struct slim_options *o);

json_t *slim_front_text(const char *text);

/* "18.3 MB" */
const char *slim_front_size(uint64_t bytes, char buf[32]);
void slim_front_print_sums(const struct img_slim_sums *s, size_t limit, FILE *out);
json_t *slim_front_sums_json(const struct img_slim_sums *s);
/* The chain of reasons from a root down to a node. */
void slim_front_print_chain(const struct img_slim_plan *p, uint32_t node, FILE *out);
json_t *slim_front_chain_json(const struct img_slim_plan *p, uint32_t node);

#endif
