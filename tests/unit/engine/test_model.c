/* Whole models against references computed by transformers in float32 (tests/fixtures/README.md). */
#include "model_fixture.h"
#include "ref_backend.h"

static void logits_and_greedy_continuation_agree(void **state)
{
	const char *name = *state;
	struct eng_weights *refs = open_references(name);
	struct eng_model *m = open_fixture_model(name, be);
	struct eng_runner *r = new_runner(m, 16, 16, 128);
	uint32_t pages[16];
	struct reference ref;

	for (uint32_t i = 0; i < 16; i++)
		pages[i] = (i * 5 + 3) % 16; /* scattered */
	for (int p = 0; p < N_PROMPTS; p++) {
		struct eng_step_seq seq = { .pages = pages };
		struct difference d;
		const float *rows;

		read_reference(refs, p, &ref);
		assert_int_equal(ref.n_vocab, eng_model_info(m)->n_vocab);
		seq.ids = ref.ids;
		seq.n_ids = seq.n_out = ref.n_ids;
		rows = step(r, &seq, 1);
		d = compare_kept(rows, &ref);
		print_message("%s prompt %d: max %.2e, relative %.2e\n", name, p, d.max_abs, d.rel_l2);
		assert_true(d.max_abs < 1e-3);
		assert_true(d.rel_l2 < 1e-4);

		rows += (size_t)(ref.n_ids - 1) * ref.n_vocab;
		for (uint32_t i = 0; i < ref.n_gen; i++) {
			int32_t id = argmax(rows, ref.n_vocab);

			assert_int_equal(id, ref.gen[i]);
			seq.pos += seq.n_ids;
			seq.ids = &ref.gen[i];
			seq.n_ids = seq.n_out = 1;
			rows = step(r, &seq, 1);
		}
	}
	eng_runner_free(r);
	eng_model_close(m);
	eng_weights_close(refs);
}

int main(void)
{
	struct CMUnitTest tests[N_FIXTURE_MODELS];

	for (int i = 0; i < N_FIXTURE_MODELS; i++)
		tests[i] = (struct CMUnitTest){ .name = fixture_models[i],
			                        .test_func = logits_and_greedy_continuation_agree,
			                        .initial_state = (void *)fixture_models[i] };
	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
