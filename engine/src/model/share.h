/* What each of several devices has of a model that they compute together (tensor parallel): its heads, its columns of
 * the feed-forward, its rows of the output matrix; or whole experts. What is small, and what attention's cache holds
 * for all heads alike, every one has. */
#ifndef ENG_MODEL_SHARE_H
#define ENG_MODEL_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels.h"

struct hparams;

struct share {
	uint32_t rank, n; /* n 1: the whole */
	bool by_expert;
};

/* Of a number of things in a row: [first, first + n). */
struct span {
	uint32_t first, n;
};

struct share model_share_of(const struct kn_backend *backend);
/* n / share.n of them; the whole is a multiple. */
struct span model_share_even(struct share share, uint32_t n);
/* With fewer K/V heads than ranks, several have the same one. */
struct span model_share_kv_heads(struct share share, uint32_t n_kv_head);
/* Rows of the output matrix: as many for each rank, in steps of 16, the last ones what is left. */
uint32_t model_share_vocab_rows(struct share share, uint32_t n_vocab);
struct span model_share_vocab(struct share share, uint32_t n_vocab);
/* Of experts: which of them, and which columns of each. */
struct span model_share_experts(struct share share, uint32_t n_expert);
struct span model_share_expert_ff(struct share share, uint32_t n_ff);

/* The numbers of one share: as the whole's, but for heads and sizes of the feed-forward. n_vocab and n_expert stay.
 * -ENOTSUP with the reason: the model cannot be divided so. */
int model_share_hparams(const char *where, const struct hparams *whole, struct share share, struct hparams *ret,
                        struct err *err);

#endif
