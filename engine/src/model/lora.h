/* LoRA adapters in PEFT's form: low-rank additions to a model's matrices, several at once, chosen for each sequence.
 * y += scale * B (A x), with A [rank, in] and B [out, rank]. */
#ifndef ENG_MODEL_LORA_H
#define ENG_MODEL_LORA_H

#include "model/internal.h"

/* The matrices that an adapter may add to. */
enum lora_target { LORA_Q, LORA_K, LORA_V, LORA_O, LORA_GATE, LORA_UP, LORA_DOWN, N_LORA_TARGETS };

struct lora_pair {
	struct kn_mat a, b; /* b with the scale in it; a.rows 0: the adapter leaves this matrix alone */
};

struct lora {
	uint32_t rank;           /* the largest of its pairs */
	struct lora_pair *pairs; /* [n_layer][N_LORA_TARGETS], host memory of the model */
};

/* Adds what the adapters of the step's sequences add: out [n_tokens, ld_out] += of in [n_tokens, ld_in]. Nothing to do
 * for rows without an adapter. */
void model_lora_add(struct eng_runner *r, uint32_t il, enum lora_target target, const float *in, size_t ld_in,
                    float *out, size_t ld_out);

#endif
