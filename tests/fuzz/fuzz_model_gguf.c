/* A GGUF file to a loaded model: keys to hyperparameters, tensors to matrices, and when all of it holds
 * together one token through the reference backend. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "model/internal.h"
#include "weights/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_token(const struct eng_model *m)
{
	const struct eng_runner_config config = {
		.n_pages = 1, .page_tokens = 1, .max_tokens = 1, .max_outputs = 1, .n_states = 1, .kv_dtype = KN_F16
	};
	const struct eng_step_seq seq = { .pages = &(uint32_t){ 0 }, .ids = &(int32_t){ 0 }, .n_ids = 1, .n_out = 1 };
	struct eng_runner *r;
	const float *rows;

	if (eng_runner_bytes(m, &config) > 64 << 20 || eng_runner_new(m, &config, &r, NULL) < 0)
		return;
	if (eng_runner_step(r, &seq, 1, &rows, NULL) < 0)
		abort();
	eng_runner_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kn_backend *be;
	struct eng_model *m = calloc(1, sizeof(*m));
	struct err err = { 0 };
	int r;

	if (!be && kn_ref_open(&(struct kn_config){ .max_tokens = 1 }, &be, NULL) < 0)
		abort();
	if (!m)
		return 0;
	m->backend = be;
	m->share = model_share_of(be);
	r = eng_weights_parse("fuzz.gguf", data, size, &m->weights, &err);
	if (r == 0 && eng_weights_is_gguf(m->weights)) {
		r = hparams_read_gguf("fuzz.gguf", m->weights, &m->hp, &err);
		r = r < 0 ? r : model_load(m, &m->hp, "fuzz.gguf", true, &err);
		r = r < 0 ? r : model_finish(m, &err);
		if (r == 0)
			one_token(m);
	}
	/* Words exactly when there is an error. */
	if (err.code != r || (r < 0) != (err.msg[0] != '\0'))
		abort();
	eng_model_close(m);
	return 0;
}
