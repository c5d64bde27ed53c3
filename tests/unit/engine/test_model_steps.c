/* How a prompt is cut into steps and who shares a step must not matter; a step's limits are errors. */
#include <errno.h>

#include "model_fixture.h"
#include "sampler/sampler.h"

enum { PAGE = 8, N_PAGES = 64, MAX_TOKENS = 200 };

static struct kn_backend *be;

static int open_backend(void **state)
{
	const struct kn_config config = { .max_tokens = MAX_TOKENS };

	(void)state;
	srand(7);
	return kn_ref_open(&config, &be, NULL);
}

static int close_backend(void **state)
{
	(void)state;
	kn_backend_close(be);
	return 0;
}

/* All logits of a prompt computed in one step by a runner of its own. */
static float *whole(const struct eng_model *m, const struct reference *ref)
{
	struct eng_runner *r = new_runner(m, 32, PAGE, MAX_TOKENS);
	size_t n = (size_t)ref->n_ids * ref->n_vocab;
	float *out = malloc(n * sizeof(*out));
	uint32_t pages[32];
	struct eng_step_seq seq = { .pages = pages, .ids = ref->ids, .n_ids = ref->n_ids, .n_out = ref->n_ids };

	for (uint32_t i = 0; i < 32; i++)
		pages[i] = i;
	memcpy(out, step(r, &seq, 1), n * sizeof(*out));
	eng_runner_free(r);
	return out;
}

struct stream {
	struct reference ref;
	struct eng_kv_seq kv;
	float *expected;
	uint32_t pos;
};

/* Feeds all prompts to one runner, every step some of them, each a random piece: bit-identical to whole. */
static void pieces_and_neighbours_do_not_change_a_bit(void **state)
{
	const char *name = *state;
	struct eng_weights *refs = open_references(name);
	struct eng_model *m = open_fixture_model(name, be);
	struct eng_runner *r = new_runner(m, N_PAGES, PAGE, MAX_TOKENS);
	struct stream streams[2 * N_PROMPTS] = { 0 };
	struct eng_kv_pool *pool;
	int n_open = 2 * N_PROMPTS;

	assert_int_equal(eng_kv_pool_new(N_PAGES, PAGE, &pool), 0);
	for (int i = 0; i < 2 * N_PROMPTS; i++) {
		read_reference(refs, i % N_PROMPTS, &streams[i].ref);
		streams[i].expected = whole(m, &streams[i].ref);
	}
	while (n_open > 0) {
		struct eng_step_seq seqs[2 * N_PROMPTS];
		struct stream *who[2 * N_PROMPTS];
		const float *rows;
		size_t n = 0;

		for (int i = 0; i < 2 * N_PROMPTS; i++) {
			struct stream *s = &streams[i];
			uint32_t left = s->ref.n_ids - s->pos, take;

			if (left == 0 || rand() % 3 == 0)
				continue;
			take = 1 + (uint32_t)rand() % (left < 24 ? left : 24);
			assert_int_equal(eng_kv_seq_reserve(pool, &s->kv, s->pos + take), 0);
			who[n] = s;
			seqs[n++] = (struct eng_step_seq){ .pages = s->kv.pages,
				                           .ids = s->ref.ids + s->pos,
				                           .n_ids = take,
				                           .pos = s->pos,
				                           .state = (uint32_t)i,
				                           .n_out = (uint32_t)rand() % (take + 1) };
		}
		if (n == 0)
			continue;
		rows = step(r, seqs, n);
		for (size_t i = 0; i < n; i++) {
			size_t n_vocab = who[i]->ref.n_vocab, first;

			who[i]->pos += seqs[i].n_ids;
			first = who[i]->pos - seqs[i].n_out;
			/* A step in which nobody asks for rows has none. */
			for (uint32_t k = 0; k < seqs[i].n_out; k++, rows += n_vocab)
				assert_memory_equal(rows, who[i]->expected + (first + k) * n_vocab,
				                    n_vocab * sizeof(float));
			n_open -= who[i]->pos == who[i]->ref.n_ids;
		}
	}
	for (int i = 0; i < 2 * N_PROMPTS; i++) {
		eng_kv_seq_done(pool, &streams[i].kv);
		free(streams[i].expected);
	}
	eng_kv_pool_free(pool);
	eng_runner_free(r);
	eng_model_close(m);
	eng_weights_close(refs);
}

static void what_is_picked_is_of_the_rows(void **state)
{
	const struct eng_runner_config config = { .n_pages = 32,
		                                  .page_tokens = PAGE,
		                                  .max_tokens = MAX_TOKENS,
		                                  .max_outputs = MAX_TOKENS,
		                                  .kv_dtype = KN_F32 };
	const char *name = *state;
	struct eng_weights *refs = open_references(name);
	struct eng_model *m = open_fixture_model(name, be);
	const struct kn_pick picks[2] = { { 1, 0, 1, 0, 0.5, false }, { 0, 0, 0, 0, 0, false } };
	struct eng_runner *r = NULL;
	struct reference ref;
	const float *rows;
	float *all;
	uint32_t pages[32];
	struct eng_step_seq seq = { .pages = pages };

	for (uint32_t i = 0; i < 32; i++)
		pages[i] = i;
	read_reference(refs, 0, &ref);
	all = whole(m, &ref);
	assert_int_equal(eng_runner_new(m, &config, &r, NULL), 0);
	seq.ids = ref.ids;
	seq.n_ids = ref.n_ids;
	seq.n_out = 2;
	seq.picks = picks;
	seq.n_best = 3;
	assert_int_equal(eng_runner_step(r, &seq, 1, &rows, NULL), 0);
	assert_null(rows);
	for (uint32_t i = 0; i < 2; i++) {
		const float *want = all + (size_t)(ref.n_ids - 2 + i) * ref.n_vocab;
		struct eng_row row;

		eng_runner_row(r, i, &row);
		assert_null(row.logits);
		assert_in_range(row.n_best, 3, 32);
		assert_true(fabsf(row.best[0].logit - want[row.best[0].id]) < 1e-5f);
		assert_true(i == 0 || row.picked->drawn == row.best[0].id);
		assert_memory_equal(eng_row_logits(&row), want, ref.n_vocab * sizeof(float));
		for (uint32_t v = 0; v < ref.n_vocab; v++)
			assert_true(want[v] <= row.best[0].logit + 1e-5f);
		eng_runner_row(r, i, &row);
		assert_memory_equal(row.logits, want, ref.n_vocab * sizeof(float));
	}
	seq.picks = NULL; /* rows again, whole */
	assert_memory_equal(step(r, &seq, 1), all + (size_t)(ref.n_ids - 2) * ref.n_vocab,
	                    2 * ref.n_vocab * sizeof(float));
	free(all);
	eng_runner_free(r);
	eng_model_close(m);
	eng_weights_close(refs);
}

/* A copy of a state goes on as the original does, which goes on unharmed; a state at another position is refused. */
static void states_are_copied_and_checked(void **state)
{
	struct eng_weights *refs = open_references("formats/qwen3_next");
	struct eng_model *m = open_fixture_model("formats/qwen3_next", be);
	struct eng_runner *r = new_runner(m, 16, PAGE, MAX_TOKENS);
	struct reference ref;
	uint32_t pages[16];
	const float *rows;
	struct err err;
	float *expected;

	(void)state;
	for (uint32_t i = 0; i < 16; i++)
		pages[i] = i;
	read_reference(refs, 1, &ref);
	expected = whole(m, &ref);
	/* One copy is left by a step that goes further, one is made of another one. */
	(void)step(r,
	           &(struct eng_step_seq){
	                   .pages = pages, .ids = ref.ids, .n_ids = 47, .state = 0, .keep = 2, .keep_after = 40 },
	           1);
	eng_runner_state_copy(r, 5, 2);
	for (uint32_t slot = 2; slot <= 5; slot += 3) {
		struct eng_step_seq rest = { .pages = pages,
			                     .ids = ref.ids + 40,
			                     .n_ids = ref.n_ids - 40,
			                     .pos = 40,
			                     .n_out = 1,
			                     .state = slot };

		rows = step(r, &rest, 1);
		assert_memory_equal(rows, expected + (size_t)(ref.n_ids - 1) * ref.n_vocab,
		                    ref.n_vocab * sizeof(float));
		assert_int_equal(eng_runner_step(r, &rest, 1, &rows, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "position 40"));
		rest.keep_after = 1;
		rest.keep = slot;
		assert_int_equal(eng_runner_step(r, &rest, 1, &rows, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "cannot be kept"));
		rest.state = 8;
		assert_int_equal(eng_runner_step(r, &rest, 1, &rows, &err), -EINVAL);
		assert_non_null(strstr(err.msg, "state 8"));
	}
	free(expected);
	eng_runner_free(r);
	eng_model_close(m);
	eng_weights_close(refs);
}

static void bad_steps_are_refused_with_words(void **state)
{
	static const uint32_t pages[] = { 0, 1, 2, 3 }, far_pages[] = { 99 };
	static const int32_t ids[PAGE * 4] = { 1, 2, 3 }, high[] = { 640 }, low[] = { -1 };
	static const struct {
		struct eng_step_seq seq;
		const char *words;
	} cases[] = {
		{ { .pages = pages, .ids = high, .n_ids = 1 }, "token id 640" },
		{ { .pages = pages, .ids = low, .n_ids = 1 }, "token id -1" },
		{ { .pages = far_pages, .ids = ids, .n_ids = 1 }, "page 99" },
		{ { .pages = pages, .ids = ids, .n_ids = 0 }, "of 0 tokens" },
		{ { .pages = pages, .ids = ids, .n_ids = 1, .n_out = 2 }, "2 outputs of 1" },
		{ { .pages = pages, .ids = ids, .n_ids = 17 }, "17 tokens" },
		{ { .pages = pages, .ids = ids, .n_ids = 1, .pos = 2048 }, "context of 2048" },
		{ { .pages = pages, .ids = ids, .n_ids = 1, .pos = UINT32_MAX }, "context of 2048" },
	};
	struct eng_model *m = open_fixture_model("qwen3", be);
	struct eng_runner *r = new_runner(m, 4, PAGE, 16);
	struct eng_step_seq two[2] = { { .pages = pages, .ids = ids, .n_ids = 1 },
		                       { .pages = pages, .ids = ids, .n_ids = 1, .output = ENG_OUT_HIDDEN } };
	const float *rows = NULL;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(eng_runner_step(r, &cases[i].seq, 1, &rows, &err), -EINVAL);
		assert_non_null(strstr(err.msg, cases[i].words));
	}
	assert_int_equal(eng_runner_step(r, two, 2, &rows, &err), -EINVAL);
	assert_int_equal(eng_runner_step(r, two, 0, &rows, &err), -EINVAL);
	assert_null(rows);
	eng_runner_free(r);
	eng_model_close(m);
}

static void a_runner_says_what_it_takes_and_refuses_the_absurd(void **state)
{
	struct eng_runner_config c = {
		.n_pages = 10, .page_tokens = 16, .max_tokens = 8, .max_outputs = 8, .kv_dtype = KN_F16
	};
	struct eng_model *m = open_fixture_model("qwen3", be);
	struct eng_runner *r = NULL;
	uint64_t bytes = eng_runner_bytes(m, &c);

	(void)state;
	c.n_pages = 20;
	/* Ten more pages of 16 tokens cost what the model says K and V of 160 tokens do. */
	assert_int_equal(eng_runner_bytes(m, &c) - bytes, 160 * eng_model_info(m)->kv_bytes_per_token);
	c.kv_dtype = KN_Q8_0;
	assert_int_equal(eng_runner_new(m, &c, &r, NULL), -EINVAL);
	c.kv_dtype = KN_F32;
	c.max_outputs = 9;
	assert_int_equal(eng_runner_new(m, &c, &r, NULL), -EINVAL);
	c.max_outputs = 8;
	c.n_pages = UINT32_MAX;
	c.page_tokens = 1 << 16;
	assert_int_equal(eng_runner_new(m, &c, &r, NULL), -ENOMEM);
	assert_null(r);
	eng_model_close(m);
}

/* Rounded K and V: each value once, logits move by about that much. */
static void rounded_kv_stays_close(void **state)
{
	const enum kn_dtype types[] = { KN_F16, KN_BF16, KN_F8_E4M3 };
	const double limits[] = { 2e-3, 2e-2, 2e-1 };
	struct eng_weights *refs = open_references("qwen3");
	struct eng_model *m = open_fixture_model("qwen3", be);
	uint32_t pages[32];
	struct reference ref;

	(void)state;
	for (uint32_t i = 0; i < 32; i++)
		pages[i] = i;
	read_reference(refs, 1, &ref);
	for (int i = 0; i < 3; i++) {
		const struct eng_runner_config c = {
			.n_pages = 32, .page_tokens = PAGE, .max_tokens = 128, .max_outputs = 128, .kv_dtype = types[i]
		};
		struct eng_step_seq seq = { .pages = pages, .ids = ref.ids, .n_ids = ref.n_ids, .n_out = ref.n_ids };
		struct eng_runner *r;
		struct difference d;

		assert_int_equal(eng_runner_new(m, &c, &r, NULL), 0);
		d = compare_kept(step(r, &seq, 1), &ref);
		assert_true(d.rel_l2 < limits[i]);
		assert_true(d.rel_l2 > 1e-6); /* it was indeed rounded */
		eng_runner_free(r);
	}
	eng_model_close(m);
	eng_weights_close(refs);
}

int main(void)
{
	struct CMUnitTest tests[N_FIXTURE_MODELS + 6] = {
		cmocka_unit_test(states_are_copied_and_checked),
		cmocka_unit_test(bad_steps_are_refused_with_words),
		cmocka_unit_test(a_runner_says_what_it_takes_and_refuses_the_absurd),
		cmocka_unit_test(rounded_kv_stays_close),
		cmocka_unit_test_prestate(what_is_picked_is_of_the_rows, "qwen3"),
		cmocka_unit_test_prestate(what_is_picked_is_of_the_rows, "gemma3_text"),
	};

	for (int i = 0; i < N_FIXTURE_MODELS; i++)
		tests[6 + i] = (struct CMUnitTest){ .name = fixture_models[i],
			                            .test_func = pieces_and_neighbours_do_not_change_a_bit,
			                            .initial_state = (void *)fixture_models[i] };
	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
