/* A loaded model and the runner that computes with it.
 *
 * struct eng_model is immutable after load and may be shared: hyperparameters from config.json or GGUF
 * keys, weights mapped and prepared for one backend. struct eng_runner owns activations and the memory
 * of the K/V pages; one thread drives it, and nothing is allocated in eng_runner_step(). */
#ifndef ENG_MODEL_H
#define ENG_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels.h"

struct eng_weights;
struct eng_model;
struct eng_runner;
struct base_sha256;

/* What an embedding is made of: the hidden state of the last token, of the first, or the mean of all. NONE: the model
 * is not for embeddings. */
enum eng_pooling { ENG_POOL_NONE, ENG_POOL_LAST, ENG_POOL_MEAN, ENG_POOL_CLS };

/* What the file says of itself, for the scheduler and the facades. */
struct eng_model_info {
	char arch[64];           /* "qwen3", "deepseek_v3" */
	uint32_t n_vocab, n_ctx; /* n_ctx: the model's own limit */
	uint32_t n_layer, n_embd;
	uint64_t n_params;     /* weights stored */
	uint64_t weight_bytes; /* bytes read per decoded token: all weights but the embedding table when it is
	                        * not also the output matrix; of experts those that a token takes */
	/* Mixtures: in the layers that have experts, how many there are, how many a token takes, their weights, and
	 * the bytes that a token reads of them. */
	uint32_t n_expert, n_expert_used;
	uint64_t n_expert_params, expert_bytes;
	uint64_t mapped_bytes; /* the files that stay mapped */
	uint64_t own_bytes;    /* what loading took beside them: repacked, converted or made */
	uint64_t kv_bytes_per_token;
	uint64_t state_bytes; /* of a sequence's recurrent state; 0: the model has no recurrent layers */
	bool is_encoder;      /* a sequence is computed in one step, from its first token */
	enum eng_pooling pooling;
};

/* From a Hugging Face folder or a GGUF file. exact: weights in FP8 with blocks or MXFP4 become float32; else they stay
 * as they are where the backend takes them, and become Q8_0 elsewhere, which is a quarter of float32 and rounds FP8. */
int eng_model_open(const char *path, bool exact, struct kn_backend *backend, struct eng_model **ret_model,
                   struct err *err);
void eng_model_close(struct eng_model *model);
const struct eng_model_info *eng_model_info(const struct eng_model *model);
/* The open weights (GGUF metadata for tokenizer and template). */
const struct eng_weights *eng_model_weights(const struct eng_model *model);

/* Loads a LoRA adapter (a folder in PEFT's form) beside the model, before any runner of it is made. Returns its number,
 * from 1 on, for eng_step_seq.adapter. On failure close the model. */
int eng_model_add_lora(struct eng_model *model, const char *folder, struct err *err);

/* A model of a known shape with random weights, for benchmarks: "qwen3-0.6b", "qwen3-1.7b", "qwen3-8b",
 * "qwen3-30b-a3b"; with ":N" behind it, only its first N layers. dtype is the type of the matrices. -EINVAL lists the
 * names. */
int eng_model_random(const char *shape, enum kn_dtype dtype, struct kn_backend *backend, struct eng_model **ret_model,
                     struct err *err);

struct eng_runner_config {
	uint32_t n_pages; /* K/V pages to provide memory for */
	uint32_t page_tokens;
	uint32_t max_tokens;    /* most new tokens in one step */
	uint32_t max_outputs;   /* most output rows in one step */
	enum kn_dtype kv_dtype; /* KN_F32, KN_F16, KN_BF16 or, not of backend cpu, KN_F8_E4M3 */
	uint32_t n_states;      /* slots for recurrent states, at least one where the model has such */
	uint32_t n_ctx;         /* longest sequence planned; 0: the model's limit. Models with two sets of rotary
	                         * factors (Phi-3's longrope) choose by it, once */
};

/* Bytes that a runner of this configuration takes, for the memory plan. */
uint64_t eng_runner_bytes(const struct eng_model *model, const struct eng_runner_config *config);
int eng_runner_new(const struct eng_model *model, const struct eng_runner_config *config,
                   struct eng_runner **ret_runner, struct err *err);
void eng_runner_free(struct eng_runner *runner);
/* Computes with another model from the next step on. -EINVAL: its shape is not that of the first one; the message says
 * where. What is in the K/V pages is the caller's to forget. */
int eng_runner_set_model(struct eng_runner *runner, const struct eng_model *model, struct err *err);

enum eng_output {
	ENG_OUT_LOGITS, /* rows of n_vocab */
	ENG_OUT_HIDDEN, /* rows of n_embd: the last layer's output after the final norm */
};

struct eng_step_seq {
	const uint32_t *pages; /* the sequence's page table, long enough for pos + n_ids tokens */
	const int32_t *ids;    /* new tokens; not looked at with from_row */
	uint32_t n_ids;
	uint32_t from_row; /* its one new token is what row from_row - 1 of the step begun before it drew; 0: see ids */
	uint32_t pos;      /* tokens already in the cache */
	uint32_t n_out;    /* outputs for the last n_out of the new tokens */
	enum eng_output output;
	uint32_t adapter; /* 0: none */
	const struct kn_pick
	        *picks;  /* [n_out]: what is wanted of its rows of logits, where the backend picks; NULL: all */
	uint32_t n_best; /* of each row, where picks is set */
	bool is_answer;  /* the new tokens were sampled, not given */
	uint32_t state;  /* slot of its recurrent state, its own in this step; what is there counts when pos is not 0 */
	uint32_t keep, keep_after; /* slot for a copy of the state after so many of the new tokens; 0 tokens: none */
};

/* Computes all sequences' new tokens in one step and stores their K and V. Outputs of all sequences
 * follow each other in order; *ret_rows points at them (row stride: n_vocab for logits, n_embd for
 * hidden; one kind per step), host memory, valid until the next step. NULL: the backend picked, and
 * eng_runner_row() gives them one by one. Ids out of range are -EINVAL. With a backend that tells prompts
 * (kernels.h), sequences with answers come first. */
int eng_runner_step(struct eng_runner *runner, const struct eng_step_seq *seqs, size_t n_seqs, const float **ret_rows,
                    struct err *err);

/* The same in two halves, each as long as the whole thing may be: begin() returns as soon as all is on its way, with a
 * backend that computes by itself (is_async) long before it is done, and what seqs points at is the caller's again;
 * wait() gives the rows. A backend that picks takes a second step (runs_ahead) before the first was waited for, if
 * every row of that one is picked (or there is none): from_row names them. wait() is for the older one; its rows can
 * then not be fetched whole. At most two; -EINVAL else. */
bool eng_runner_is_async(const struct eng_runner *runner);
bool eng_runner_runs_ahead(const struct eng_runner *runner);
int eng_runner_begin(struct eng_runner *runner, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err);
int eng_runner_wait(struct eng_runner *runner, const float **ret_rows, struct err *err);
/* How long the device of an asynchronous backend has computed in steps that were waited for; else 0. */
uint64_t eng_runner_busy_ns(const struct eng_runner *runner);

/* Steps heed eng_step_seq.picks. */
bool eng_runner_picks(const struct eng_runner *runner);
struct eng_row;
/* The index-th output row of the step that was waited for last, valid until the next wait. */
void eng_runner_row(struct eng_runner *runner, uint32_t index, struct eng_row *ret_row);
/* Slot dst becomes a copy of slot src. Asynchronous, in order with steps. */
void eng_runner_state_copy(struct eng_runner *runner, uint32_t dst, uint32_t src);

/* One page of all layers as bytes, for copies of pages elsewhere. Both wait for the backend. */
uint64_t eng_runner_page_bytes(const struct eng_runner *runner);
void eng_runner_page_read(struct eng_runner *runner, uint32_t page, void *dst);
void eng_runner_page_write(struct eng_runner *runner, uint32_t page, const void *src);
/* The same beside the steps, from and to memory of _host_alloc(): see kn_ops.copy_begin. Only where _copies_pages(). */
bool eng_runner_copies_pages(const struct eng_runner *runner);
void *eng_runner_host_alloc(struct eng_runner *runner, size_t bytes); /* any thread, as the next */
void eng_runner_host_free(struct eng_runner *runner, void *p);
int eng_runner_page_copy(struct eng_runner *runner, uint32_t page, void *host, enum kn_way way, uint64_t *ret_ticket);
int eng_runner_copy_poll(struct eng_runner *runner, uint64_t ticket);
int eng_runner_copy_wait(struct eng_runner *runner, uint64_t ticket);
int eng_runner_copy_fence(struct eng_runner *runner, uint64_t ticket);
int eng_runner_copy_follow(struct eng_runner *runner, uint64_t ticket);
/* Pages that come from another runner of the same model, which another thread may drive: see kn_ops.copy_from. -ENOTSUP
 * with the reason: its pages are not like these. *ret_direct: from device to device. The other one lives longer. Then
 * _page_fetch() copies n pages in a row, its pages [from, from + n), into [page, page + n). */
int eng_runner_fetch_from(struct eng_runner *runner, struct eng_runner *other, bool *ret_direct, struct err *err);
int eng_runner_page_fetch(struct eng_runner *runner, uint32_t page, uint32_t from, uint32_t n, uint64_t *ret_ticket);
/* Pages [first, first + n) are free: their memory may be given back until they are used again. */
void eng_runner_page_discard(struct eng_runner *runner, uint32_t first, uint32_t n);
/* Adds what makes the bytes of a page what they are, beside the backend: the weights, the shape of a page and the
 * rotation. The weights are known by their files' sizes, times, beginnings and samples of their bytes. */
void eng_runner_fingerprint(const struct eng_runner *runner, struct base_sha256 *sha);

#endif
