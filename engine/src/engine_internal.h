/* Shared by the facade's files: engine.c (open, requests), plan.c (memory), grammars.c (grammars of outputs), meta.c
 * (what the model's own files say about text and sampling), cache.c (the prompt cache), chat.c (templates), text.c
 * (tokens), paths.c (where the default model is), operate.c (pause, other weights), adapters.c (LoRA by name), exec.c
 * (the scheduler's way to a runner), answers.c (devices, and answers on others than prompts). */
#ifndef ENG_ENGINE_INTERNAL_H
#define ENG_ENGINE_INTERNAL_H

#include <pthread.h>

#include "engine.h"
#include "model/model.h"
#include "sched/sched.h"

struct eng_engine;
enum { ENG_MAX_VERSION = 128 };

struct eng_weights;
struct eng_tokenizer;
struct eng_template;
struct grammar_vocab;

/* What tokenizer_config.json, generation_config.json, config.json and the template files (or the GGUF
 * keys) say. Everything is owned. */
struct eng_meta {
	struct eng_tokenizer *tokenizer;            /* NULL: random weights */
	struct eng_template *chat, *chat_tools;     /* NULL: none; chat_tools: used when tools are given */
	json_t *special;                            /* "bos_token" -> "<s>", ... for templates */
	const char *tool_format, *reasoning_format; /* what the templates are written for; NULL: no template */
	char *chat_text;                            /* the chat template's source */
	bool args_as_text, null_as_empty;           /* the shape that they want earlier calls in, see chat.c */
	struct eng_sampling sampling;
	int32_t bos_id;
	int32_t *eos_ids;
	size_t n_eos_ids;
};

/* path: the folder or the GGUF file that `weights` came from. */
int eng_meta_load(const char *path, const struct eng_weights *weights, struct eng_meta *meta, struct err *err);
void eng_meta_done(struct eng_meta *meta);
void eng_meta_default_sampling(struct eng_sampling *s);

/* Finds the shape of earlier tool calls that the template can write. */
void eng_chat_probe(struct eng_engine *e);

/* The path of the embedded default model; malloc'd. -ENOENT lists where it was looked for. */
int eng_default_model_path(char **ret_path, struct err *err);

/* Bytes of the *.safetensors files of a folder; a negative errno when it is none. */
int eng_folder_weight_bytes(const char *path, uint64_t *ret_bytes);

/* e->kv_dtype by the options. */
int eng_plan_kv_dtype(struct eng_engine *e, const struct eng_options *o, struct err *err);
/* How memory is divided when weights are in place. */
struct eng_plan {
	struct eng_runner_config runner;
	struct eng_runner_config answers; /* of the devices of answers, where those are others */
	uint32_t max_running;
	uint64_t host_bytes; /* for pages that gave way, beside a device */
};
/* Plans for e's model, backends and kv_dtype, and tells the plan and what the model rules out. -EINVAL: what was asked
 * for does not fit. */
int eng_plan_memory(const struct eng_engine *e, const struct eng_options *o, struct eng_plan *ret_plan,
                    struct err *err);

struct eng_pc;
/* What of the options the prompt cache needs, also when other weights come; strings are owned. */
struct eng_cache {
	char *dir; /* NULL: there is no cache */
	char *isa, *random_shape, *random_dtype;
	uint64_t bytes;
	uint32_t page_tokens;
	bool deterministic;
	uint8_t identity[32]; /* of the pages in use */
	void (*on_note)(void *arg, const char *text);
	void *note_arg;
};
int eng_cache_keep(struct eng_engine *e, const struct eng_options *o, uint32_t page_tokens, struct err *err);
void eng_cache_done(struct eng_engine *e);
/* The cache of the runner's model, whose files are at `path`. NULL and a note when another process has it, or when it
 * may not be used. 1; 0: it is the one that is open already. */
int eng_cache_open(struct eng_engine *e, const char *path, struct eng_pc **ret_pc, struct err *err);

enum { ENG_KEPT_GRAMMARS = 32 };

/* Grammars compiled lately, so that requests with the same one share its masks. Zero is empty. */
struct eng_grammars {
	pthread_mutex_t lock;
	struct grammar_vocab *vocab; /* made for the first one */
	struct eng_grammar *kept[ENG_KEPT_GRAMMARS];
	size_t next;
};
void eng_grammars_init(struct eng_grammars *gs);
void eng_grammars_done(struct eng_grammars *gs);

struct eng_adapter {
	char *name, *folder;
};
/* Copies the names; refuses two alike. */
int eng_adapters_keep(struct eng_engine *e, const struct eng_options *o, struct err *err);
/* Loads all of them beside a model that no runner has yet. */
int eng_adapters_load(const struct eng_engine *e, struct eng_model *model, struct err *err);
void eng_adapters_done(struct eng_engine *e);

/* Devices by the driver's numbers; n 0: the first one. n_decode: those that answer, when they are others. */
struct eng_devices {
	uint32_t numbers[KN_MAX_RANKS], n;
	uint32_t decode[KN_MAX_RANKS], n_decode;
};
int eng_devices_read(const struct eng_options *o, struct eng_devices *ret, struct err *err);

void eng_exec_of(struct eng_runner *runner, const struct kn_backend *backend, const struct eng_model_info *m,
                 const struct eng_runner_config *config, struct eng_exec *ret);
/* Its runner copies pages from another one. */
void eng_exec_fetches(struct eng_exec *exec);

/* Can the loaded model be computed by two backends? -ENOTSUP with the reason. */
int eng_answers_check(const struct eng_engine *e, struct err *err);
/* The runner of e->answers, when e->runner is there, and how the scheduler drives it. */
int eng_answers_start(struct eng_engine *e, const struct eng_runner_config *config, struct eng_exec *ret_exec,
                      struct err *err);

struct eng_engine {
	char *path, *served_name, *backend_name;
	bool is_exact; /* see eng_options.precision */
	enum kn_dtype kv_dtype;
	struct kn_backend *backend;
	uint32_t step_tokens;     /* most rows of one step */
	struct eng_model *model;  /* NULL, and no runner nor scheduler: text only */
	struct eng_weights *gguf; /* text only: the file whose keys have the vocabulary */
	struct eng_runner *runner;
	/* Where answers are computed on other devices than prompts, the same model there; else NULL. */
	struct {
		struct kn_backend *backend;
		struct eng_model *model;
		struct eng_runner *runner;
	} answers;
	void (*on_note)(void *arg, const char *text); /* see eng_options, while the engine opens */
	void *note_arg;
	struct eng_sched *sched;
	struct eng_meta meta;
	struct eng_grammars grammars;
	struct eng_cache cache;
	struct eng_adapter *adapters; /* [n_adapters] */
	size_t n_adapters;
	struct eng_info info;
	pthread_mutex_t lock;
	char arch[64];
	bool generates;
	char weight_version[ENG_MAX_VERSION]; /* protected by lock */
};

#endif
