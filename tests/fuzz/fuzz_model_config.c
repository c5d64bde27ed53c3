/* The bytes of a config.json to hyperparameters: whatever they are, an error with words or numbers that
 * are within their limits. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "model/hparams.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hparams hp;
	struct err err = { 0 };
	int r = hparams_parse_hf("config.json", data, size, &hp, &err);

	if (r < 0) {
		check(err.code == r && err.msg[0] != '\0');
		return 0;
	}
	check(hp.n_layer >= 1 && hp.n_layer <= HP_MAX_LAYERS && hp.n_embd >= 1 && hp.n_head >= 1);
	check(hp.n_vocab >= 1 && hp.n_ctx >= 1 && hp.n_rope >= !hp.arch->encoder && hp.n_rope <= 2);
	check(hp.arch->attn == ATTN_MLA || hp.n_head % hp.n_kv_head == 0);
	for (uint32_t i = 0; i < hp.n_layer; i++) {
		check(hp.layer[i].rope < hp.n_rope || hp.arch->encoder); /* which knows positions by heart */
		check(hp.layer[i].top_k <= hp.n_expert);
	}
	for (uint32_t i = 0; i < hp.n_rope; i++)
		check(hp.rope[i].n_rot >= 2 && hp.rope[i].n_rot <= 2 * ROPE_MAX_HALF);
	return 0;
}
