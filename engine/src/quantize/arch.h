/* What quantize knows of an architecture: the row of the table in map_hf.c. */
#ifndef ENG_QUANTIZE_ARCH_H
#define ENG_QUANTIZE_ARCH_H

#include <stdbool.h>

/* How a tensor's rows change on the way. */
enum qz_change {
	QZ_COPY,
	QZ_ROPE_ROWS_Q, /* rows of each head put in interleaved order, where the architecture wants it */
	QZ_ROPE_ROWS_K,
	QZ_EXPERTS,       /* one tensor per expert ({} in the name) becomes one of three dimensions */
	QZ_TRANSPOSE,     /* the last two of three dimensions change places */
	QZ_EVEN_ODD,      /* columns 2i become one tensor, columns 2i + 1 the one named after '|'; transposed */
	QZ_EVEN_ODD_BIAS, /* the same of a bias */
	QZ_SPLIT_KV_B,    /* multi-head latent attention: K part (transposed) and V part after '|' */
	QZ_SPLIT_QKVZ,    /* linear attention, by K heads: all of Q, then K, then V; the output gate after '|' */
	QZ_DECAY,         /* minus the exponential of its values */
	QZ_FLAT,          /* without dimensions of one */
	QZ_ADD_NOTHING,   /* a norm that multiplies by its weights where the others of the model do not */
};

struct qz_rule {
	const char *hf;   /* without "model." and "layers.N."; NULL ends the list */
	const char *gguf; /* without "blk.N." */
	enum qz_change change;
};

struct qz_arch {
	const char *model_type, *gguf;
	bool permute;       /* GGUF has Q and K for interleaved rotation, Hugging Face does not */
	bool norm_plus_one; /* Hugging Face stores the norms' distance from one */
	bool mla, sigmoid_router;
	bool hybrid;            /* most layers have linear attention */
	bool dense_lead;        /* the first layers may be dense where the others have experts */
	struct qz_rule own[24]; /* looked at before the common rules */
};

#endif
