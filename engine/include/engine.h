/* ocai-engine as a library: open a model, submit requests, receive events.
 *
 *   struct eng_engine *e;
 *   eng_engine_open(&(struct eng_options){ .model_path = "model/" }, &e, &err);
 *   eng_submit(e, &(struct eng_request){ .ids = ids, .n_ids = n, .on_event = fn, .arg = me }, &id, &err);
 *
 * Threads: every function may be called from any thread; events come from the engine's own thread (from one of two,
 * where prompts and answers are computed on different devices; those of a request one after the other) and must not
 * block. Strings and ids in an event are borrowed for the call. */
#ifndef ENGINE_H
#define ENGINE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct eng_engine;

/* Where memory goes, known once weights are in place and before anything else is taken. Nothing grows afterwards
 * but what requests themselves hold. */
struct eng_memory_plan {
	uint64_t mapped_bytes; /* weights that stay in their files */
	uint64_t own_bytes;    /* weights repacked or converted beside them */
	uint64_t kv_bytes;
	uint32_t kv_pages, page_tokens;
	uint64_t state_bytes; /* models with recurrent layers: states of running requests and copies for prefixes */
	uint32_t n_states;
	uint64_t activation_bytes; /* of the largest step */
	uint64_t host_cache_bytes; /* beside the device: pages that gave way; 0: none */
	/* On the devices of answers, where those are others; the figures above are then those of prompts' devices,
	 * but own_bytes, which are all weights'. */
	uint64_t decode_kv_bytes;
	uint32_t decode_kv_pages;
	uint32_t n_ctx, max_running;
};

/* A LoRA adapter in PEFT's form, used by requests that name it. */
struct eng_lora {
	const char *name;
	const char *folder;
};

struct eng_options {
	const char *model_path;       /* Hugging Face folder or .gguf; NULL: the embedded default model */
	const struct eng_lora *loras; /* [n_loras], names different from each other and from the model's */
	size_t n_loras;
	const char *random_shape; /* benchmarks: "qwen3-0.6b" instead of a path */
	const char *random_dtype; /* "bf16" ... */
	bool text_only;           /* tokenizer and template without the weights: no requests */
	const char *served_name;  /* NULL: the last component of the path */
	const char *backend;      /* "auto", "ref", "cpu", "cuda", "hip"; NULL: auto */
	/* "exact": activations and K/V stay float32 where weights have 16 bits or more; "fast": as the backend is
	 * fastest; NULL or "auto": exact for a folder of at most 256 MiB of weights, where rounding shows and speed
	 * does not. */
	const char *precision;
	/* What K and V are kept in: "f32", "f16", "bf16", "f8" (e4m3, half the memory of 16 bits; not of the cpu
	 * backend); NULL or "auto": float32 where precision is exact, else 16 bits. */
	const char *kv_dtype;
	const char *isa; /* cpu backend: see kn_config */
	/* GPU: how many compute the model together (0: one, or as many as devices names), and which: the driver's
	 * numbers, "0,2" (NULL: the first ones). expert_parallel: each expert is on one of them, instead of a part of
	 * every one on all. */
	uint32_t tensor_parallel;
	const char *devices;
	bool expert_parallel;
	/* GPU: prompts and answers on different devices, each of which has the whole model and a K/V pool; both or
	 * neither. What is computed of a prompt is copied while the rest of it is. Several numbers on either side:
	 * so many compute together there, as many as on the other. The same one on both sides needs kv_bytes, which
	 * each takes. */
	const char *prefill_devices, *decode_devices;
	uint32_t n_ctx;       /* 0: min(the model's, 8192) */
	uint32_t n_threads;   /* 0: one per usable core */
	uint32_t max_running; /* 0: 32 */
	uint32_t max_queued;  /* 0: 256 */
	uint64_t kv_bytes; /* budget for the K/V pool; 0: enough for max_running * n_ctx (8 * n_ctx when that is 0 too),
	                      at most 1 GiB */
	/* Models with recurrent layers: budget for their states, one for each running request and the rest for copies
	 * where prompts can be taken over; no more requests run together than fit in half of it. 0: 1 GiB, or what
	 * max_running requests and a few copies take. */
	uint64_t state_bytes;
	/* Ids and log-probabilities of a request do not depend on batch, chunks, cache or neighbours, not even in the
	 * last bit; sampling without a seed draws from a fixed one. */
	bool deterministic;
	bool no_prefix_cache; /* every prompt is computed from its first token */
	bool no_speculation;  /* no tokens guessed from what the sequence has said before */
	bool no_ahead;        /* GPU: no step is begun before the tokens of the one before it are known */
	uint32_t step_ms; /* while answers stream, a step computes no more of prompts than takes this long; 0: 100 */
	/* Pages of K and V are also kept in this folder, at most so many bytes, and found again by the next process
	 * that opens the same model in the same way. NULL: not. 0 bytes: 4 GiB. */
	const char *cache_dir;
	uint64_t cache_bytes;
	/* GPU: pages of K and V that give way to others are kept in host memory, at most so many bytes, and come back
	 * when their prompts do; 0: not. write_through: copied as soon as they are complete, not when they give way. */
	uint64_t host_cache_bytes;
	bool host_write_through;
	/* Told what a person should know and is no failure; NULL: nobody. */
	void (*on_note)(void *arg, const char *text);
	/* Told the plan before K/V and activations are taken; NULL: nobody. */
	void (*on_plan)(void *arg, const struct eng_memory_plan *plan);
	void *plan_arg; /* also on_note's */
};

int eng_engine_open(const struct eng_options *options, struct eng_engine **ret_engine, struct err *err);
/* Refuses new requests and waits for the running ones, at most timeout_ms. */
void eng_engine_drain(struct eng_engine *e, uint32_t timeout_ms);
void eng_engine_close(struct eng_engine *e);

struct eng_info {
	const char *served_name, *model_path, *arch, *backend;
	uint32_t n_vocab, n_ctx, n_embd;
	uint64_t n_params, weight_bytes, kv_bytes_per_token;
	bool is_embedding; /* the model's own metadata asks for pooling */
	bool has_chat_template;
	const char *chat_template; /* its source, NULL: none */
	uint32_t max_running;
	const char *tool_format, *reasoning_format; /* what its template is written for (engine_chat.h), or "none" */
	int32_t bos_id;                             /* -1: none */
	const int32_t *eos_ids;
	size_t n_eos_ids;
};
const struct eng_info *eng_engine_info(const struct eng_engine *e);
/* The number of an adapter, for eng_request.adapter; 0: none is called so. */
uint32_t eng_engine_adapter(const struct eng_engine *e, const char *name);
/* Adapters by number, from 1 on; NULL behind the last. */
const char *eng_engine_adapter_name(const struct eng_engine *e, uint32_t adapter);

/* ---- Grammars: what an output may look like ----------------------------------------------------- */

enum eng_grammar_kind {
	ENG_GRAMMAR_JSON_OBJECT,    /* any JSON object; the text is not looked at */
	ENG_GRAMMAR_JSON_SCHEMA,    /* JSON Schema, draft 2020-12 (docs/structured-output.md says which part) */
	ENG_GRAMMAR_REGEX,          /* the whole output matches */
	ENG_GRAMMAR_EBNF,           /* `root ::= ...` */
	ENG_GRAMMAR_STRUCTURAL_TAG, /* JSON: free text in which tags hold values of schemas */
};

/* Compiled; immutable as far as callers see, counted, may be shared by requests and threads. Outlives no engine. */
struct eng_grammar;

/* -EINVAL: the text is wrong or asks for what is not supported; the message names the keyword and its JSON pointer,
 * or the position. -E2BIG: beyond a limit. -ENOTSUP: the engine has no tokenizer. Equal texts give the same grammar
 * while one of them is in use or was lately. */
int eng_grammar_compile(struct eng_engine *e, enum eng_grammar_kind kind, const char *text, size_t len,
                        struct eng_grammar **ret_grammar, struct err *err);
struct eng_grammar *eng_grammar_ref(struct eng_grammar *g);
void eng_grammar_unref(struct eng_grammar *g); /* NULL: nothing */

/* A text's tokens against the masks that a grammar gives, one after the other. */
struct eng_grammar_verdict {
	bool accepted;
	size_t token;                  /* refused: index of the token, n when the text ended too early */
	size_t offset;                 /* refused: bytes of the text that were still right */
	char expected[160];            /* refused: what could have come instead, for people */
	uint32_t n_allowed;            /* refused: tokens that the mask has there */
	uint64_t mask_ns, max_mask_ns; /* time that masks took: all, the slowest */
};
int eng_grammar_check(struct eng_engine *e, struct eng_grammar *g, const int32_t *ids, size_t n,
                      struct eng_grammar_verdict *ret, struct err *err);

/* ---- Requests ---------------------------------------------------------------------------------- */

struct eng_logit_bias {
	int32_t id;
	float bias;
};

struct eng_sampling {
	float temperature;                         /* 0: greedy */
	float top_p;                               /* 1: off */
	float min_p;                               /* 0: off */
	uint32_t top_k;                            /* 0: off */
	float repetition_penalty;                  /* 1: off; over prompt and output */
	float presence_penalty, frequency_penalty; /* over the output */
	bool has_seed;
	uint64_t seed;
	const struct eng_logit_bias *logit_bias;
	size_t n_logit_bias;
};

/* The model's own defaults (generation_config.json), else temperature 1, top_p 1. */
void eng_sampling_defaults(const struct eng_engine *e, struct eng_sampling *ret_sampling);

enum eng_request_kind { ENG_GENERATE, ENG_EMBED };

struct eng_event;
typedef void (*eng_event_fn)(void *arg, const struct eng_event *ev);

/* Everything is copied by eng_submit(). */
struct eng_request {
	enum eng_request_kind kind;
	uint32_t adapter;   /* eng_engine_adapter(); 0: the model as it is */
	const int32_t *ids; /* the prompt, at least one token */
	size_t n_ids;
	struct eng_sampling sampling;
	uint32_t max_new, min_new; /* max_new 0: up to the context */
	bool ignore_eos;
	bool keep_special;        /* special tokens appear in the text */
	const char *const *stops; /* stop strings; the text ends before them */
	size_t n_stops;
	bool include_stop;       /* the text ends after them instead */
	const int32_t *stop_ids; /* beside the model's EOS ids */
	size_t n_stop_ids;
	bool logprobs;         /* of each output token */
	uint32_t n_top;        /* alternatives per token, at most 20 */
	int64_t logprob_start; /* prompt logprobs from this position on; -1: none */
	const int32_t *scored; /* tokens whose log-probabilities are told wherever logprobs are, at most 1,024 */
	size_t n_scored;
	bool processed_logprobs; /* of the outputs: of the distribution that was drawn from (after bias, penalties,
	                          * temperature and filters) instead of the model's own */
	/* Who asks, any number that is the same for one client: under load, places go round among clients. 0: nobody
	 * in particular. */
	uint64_t client;
	struct eng_grammar *grammar; /* the output keeps to it; NULL: free text. eng_submit() takes its own reference */
	eng_event_fn on_event;
	void *arg;
};

struct eng_top {
	int32_t id;
	float logprob;
};

enum eng_finish { ENG_FINISH_STOP, ENG_FINISH_LENGTH, ENG_FINISH_ABORT, ENG_FINISH_ERROR };

enum eng_event_kind {
	ENG_EV_PROMPT, /* prompt logprobs for a range of positions (only when asked for), in order */
	ENG_EV_TOKEN,  /* one output token; its text may be empty (held back) */
	ENG_EV_EMBED,  /* the embedding */
	ENG_EV_DONE,   /* always the last one, exactly one */
};

struct eng_event {
	enum eng_event_kind kind;
	uint64_t request_id;
	/* TOKEN, PROMPT */
	int32_t id;        /* the token */
	uint32_t position; /* PROMPT: its position; TOKEN: index among the outputs */
	bool has_logprob;  /* false for the prompt's first token */
	float logprob;
	const struct eng_top *top; /* n_top entries, best first */
	uint32_t n_top;
	const float *scored; /* of eng_request.scored, in that order; NULL: none asked for, or has_logprob is false */
	/* TOKEN and DONE: text that became final; valid UTF-8, never part of a stop string */
	const char *text;
	size_t text_len;
	/* EMBED */
	const float *embedding; /* n_embd values, L2-normalized */
	uint32_t n_embedding;
	/* DONE */
	enum eng_finish finish;
	int32_t stop_id;       /* the EOS or stop id that ended it, else -1 */
	const char *stop_text; /* the stop string that ended it, else NULL */
	uint32_t n_prompt, n_output;
	uint32_t n_cached;       /* prompt tokens that were not computed for this request */
	const struct err *error; /* ENG_FINISH_ERROR */
};

/* -EINVAL (bad ids, prompt longer than the context: the message has the counts), -EBUSY (queue full),
 * -ESHUTDOWN (draining). After 0, DONE will come. */
int eng_submit(struct eng_engine *e, const struct eng_request *req, uint64_t *ret_id, struct err *err);
void eng_cancel(struct eng_engine *e, uint64_t id);
/* After -EBUSY: in how many seconds there will be room, by the rate at which requests end; 1 to 60. */
uint32_t eng_retry_after_s(struct eng_engine *e);
/* Forgets all cached prefixes. -EBUSY while requests run or wait. */
int eng_flush_cache(struct eng_engine *e);

/* ---- Operation ----------------------------------------------------------------------------------- */

/* Stops computing until eng_continue(); new requests wait. ABORT: the others end (ENG_FINISH_ABORT); RETRACT: they wait
 * again and are computed anew; HOLD: they keep what they have. */
enum eng_pause { ENG_PAUSE_ABORT, ENG_PAUSE_RETRACT, ENG_PAUSE_HOLD };
void eng_pause(struct eng_engine *e, enum eng_pause how);
void eng_continue(struct eng_engine *e);

/* Other weights of the same shape for what is computed from then on: waits until no request runs (those that come
 * meanwhile wait), loads beside the old ones, changes over, forgets cached prefixes. On failure the old ones stay.
 * version: a name for eng_weight_version(), NULL: as it is. Tokenizer and template stay. -EINVAL: another shape, no
 * such model; -EBUSY: another update, or requests are held; -ENOTSUP: an engine without weights of its own. Blocks. */
int eng_update_weights(struct eng_engine *e, const char *path, const char *version, struct err *err);
/* "default" at first. */
void eng_weight_version(struct eng_engine *e, char *ret_version, size_t size);

/* ---- Text -------------------------------------------------------------------------------------- */

/* *ret_ids is malloc'd, the caller's. */
int eng_tokenize(const struct eng_engine *e, const char *text, size_t len, bool add_special, bool parse_special,
                 int32_t **ret_ids, size_t *ret_n, struct err *err);
int eng_detokenize(const struct eng_engine *e, const int32_t *ids, size_t n, bool skip_special, struct base_buf *out,
                   struct err *err);
/* The raw bytes of one token, for logprobs' `bytes`. */
int eng_token_bytes(const struct eng_engine *e, int32_t id, struct base_buf *out);

/* messages: OpenAI-style array (content a string or typed parts). tools: array or NULL. kwargs: object
 * of extra template variables or NULL. add_generation_prompt is false when the last message is the
 * assistant's and shall be continued. -ENOTSUP when the model has no template. */
int eng_render_chat(const struct eng_engine *e, const json_t *messages, const json_t *tools, const json_t *kwargs,
                    bool add_generation_prompt, struct base_buf *out, struct err *err);

/* ---- Numbers ----------------------------------------------------------------------------------- */

struct eng_stats {
	uint64_t n_requests, n_done, n_aborted, n_failed, n_rejected;
	uint64_t prompt_tokens, cached_tokens, output_tokens;
	uint64_t prefill_ns, decode_ns;
	uint64_t n_steps, n_steps_ahead; /* computed; of them begun before the tokens of the one before were known */
	/* While there was something to compute: time, and of it, where the backend knows, what a device was busy. */
	uint64_t active_ns, device_busy_ns;
	uint64_t mask_ns,
	        mask_wait_ns;  /* masks of structured output: computed beside steps, and waited for behind them */
	uint64_t n_preempted;  /* set back because pages ran out, and computed again */
	uint64_t kv_evictions; /* cached pages given up */
	uint64_t drafted_tokens, draft_hits; /* speculation: guessed, and guessed right */
	uint64_t disk_tokens;                /* of cached_tokens: read from the cache folder */
	uint64_t host_tokens;                /* of cached_tokens: copied back from host memory */
	uint64_t n_loads_refused;            /* computing was faster than bringing pages from there */
	/* The cache in host memory: pages used + cached + free = total; given up for others there, found damaged, and
	 * lost because there was no room on the way; bytes that went there and came back. */
	uint32_t host_pages_used, host_pages_cached, host_pages_total;
	uint64_t host_pages_given_up, host_pages_damaged, host_pages_lost;
	uint64_t host_bytes_out, host_bytes_in;
	/* Prompts and answers on different devices: requests that went from one to the other, the time from their first
	 * token to where they could go on, and the bytes of K and V that were copied for that. */
	uint64_t n_handed, handed_ns, handed_bytes;
	uint64_t disk_bytes, disk_pages_read, disk_pages_written;
	uint64_t disk_pages_damaged, disk_write_errors;
	uint32_t n_running, n_queued;
	uint32_t kv_pages_used, kv_pages_cached, kv_pages_total; /* used + cached + free = total */
	/* Models with recurrent layers: slots for states. running + checkpoints + free = total */
	uint32_t states_running, state_checkpoints, states_total;
};
void eng_engine_stats(struct eng_engine *e, struct eng_stats *ret_stats);

#endif
