/* Rotary position embedding: from a configuration's parameters to inverse frequencies. */
#ifndef ENG_MODEL_ROPE_H
#define ENG_MODEL_ROPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { ROPE_MAX_HALF = 512 /* most rotated pairs per head */ };

enum rope_kind {
	ROPE_DEFAULT,
	ROPE_LINEAR,   /* frequencies divided by factor */
	ROPE_ALPHA,    /* Hunyuan's NTK: the base grows with alpha */
	ROPE_LLAMA3,   /* low frequencies divided, a smooth band between */
	ROPE_YARN,     /* Peng et al., 2023 */
	ROPE_LONGROPE, /* a factor per pair; one set for short, one for long contexts (Ding et al., 2024) */
};

/* As the configuration says; 0 where it says nothing and that is not a value. */
struct rope_params {
	enum rope_kind kind;
	uint32_t n_rot; /* even, at most 2 * ROPE_MAX_HALF */
	double theta;
	double factor;
	double attn_factor; /* 0: derived */
	double alpha;
	double low_freq_factor, high_freq_factor;
	double beta_fast, beta_slow;
	double mscale, mscale_all; /* DeepSeek's YaRN */
	bool truncate;             /* YaRN: round the ends of the band to whole pairs */
	uint32_t original_ctx;
	float short_factor[ROPE_MAX_HALF], long_factor[ROPE_MAX_HALF];
	bool has_freq_factors; /* GGUF's rope_freqs: short_factor divides, whatever the kind */
};

struct rope_plan {
	uint32_t n_rot;
	float scale; /* multiplies sin and cos */
	float inv_freq[ROPE_MAX_HALF];
	uint32_t long_above; /* contexts longer than this use the second set; 0: there is none */
	float inv_freq_long[ROPE_MAX_HALF];
};

void rope_params_init(struct rope_params *p);
/* -EINVAL naming the parameter when one is missing or absurd. */
int rope_plan_build(const struct rope_params *p, uint32_t n_ctx, struct rope_plan *ret, struct err *err);
/* YaRN's magnitude correction. */
double rope_yarn_mscale(double factor, double mscale);

#endif
