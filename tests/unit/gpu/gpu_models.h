/* Whole models on a GPU backend, compared with the stored references: several sequences at a time, cut in pieces, so
 * that steps of all forms come by: prompts, single tokens, both together. */
#ifndef GPU_MODELS_H
#define GPU_MODELS_H

#include "gpu/open.h"
#include "model_fixture.h"

enum { GPU_PAGE = 8, GPU_PAGES = 96, GPU_TOKENS = 160 };

struct gpu_case {
	const char *model;
	const char *kind; /* a plugin's; NULL: the backend that the test is linked with */
	bool exact, no_fusion;
	uint32_t max_piece; /* new tokens of a sequence in one step */
	uint32_t n_seqs;
	uint32_t max_tokens; /* of each prompt that are computed; 0: all */
	double tolerance;    /* relative difference of the middle row */
	enum kn_dtype kv_dtype;
	struct kn_gpu_rows rows;
	uint32_t n_devices; /* that compute it together; 0: one */
	bool by_expert;
};

static inline void tell_failure(const char *backend, const char *op, const char *text)
{
	print_message("%s: %s: %s\n", backend, op, text);
}

static inline struct kn_backend *open_gpu(const struct gpu_case *c)
{
	static const uint32_t devices[KN_MAX_RANKS] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	const struct kn_config config = { .max_tokens = GPU_TOKENS,
		                          .exact = c->exact,
		                          .devices = devices,
		                          .n_devices = c->n_devices,
		                          .by_expert = c->by_expert,
		                          .gpu_rows = c->rows };
	const struct gpu_open how = { .no_fusion = c->no_fusion, .on_failure = tell_failure };
	struct kn_backend *be = NULL;
	struct err err = { 0 };

	if (c->kind && kn_backend_open(c->kind, &config, &be, &err) < 0)
		fail_msg("%s", err_text(&err));
	if (!c->kind && gpu_backend_open("gpu-test", &config, &how, &be, &err) < 0)
		fail_msg("%s", err_text(&err));
	return be;
}

struct gpu_stream {
	struct reference ref;
	struct eng_kv_seq kv;
	uint32_t pos, n; /* computed, to compute */
};

/* Not exact: weights stay in the types of their files. */
static inline struct eng_model *open_gpu_model(const struct gpu_case *c, struct kn_backend *be)
{
	struct eng_model *m;
	struct err err = { 0 };
	char path[256];

	(void)snprintf(path, sizeof(path), "%s%s", fixture_folder(c->model), c->model);
	if (eng_model_open(test_fixture(path), c->exact, be, &m, &err) < 0)
		fail_msg("%s", err_text(&err));
	return m;
}

static inline void check_model(const struct gpu_case *c)
{
	enum { MAX_STREAMS = 24, MAX_ROWS = 4096 };
	static struct gpu_stream streams[MAX_STREAMS];
	static double rel[MAX_ROWS];
	struct kn_backend *be = open_gpu(c);
	struct eng_weights *refs = open_references(c->model);
	struct eng_model *m = open_gpu_model(c, be);
	const struct eng_runner_config config = { .n_pages = GPU_PAGES,
		                                  .page_tokens = GPU_PAGE,
		                                  .max_tokens = GPU_TOKENS,
		                                  .max_outputs = GPU_TOKENS,
		                                  .kv_dtype = c->kv_dtype,
		                                  .n_states = 8 };
	struct eng_runner *r;
	struct eng_kv_pool *pool;
	uint32_t n_open = c->n_seqs, n_rows = 0;

	assert_int_equal(eng_runner_new(m, &config, &r, NULL), 0);
	srand(7);
	memset(streams, 0, sizeof(streams));
	assert_int_equal(eng_kv_pool_new(GPU_PAGES, GPU_PAGE, &pool), 0);
	for (uint32_t i = 0; i < c->n_seqs; i++) {
		read_reference(refs, (int)i % N_PROMPTS, &streams[i].ref);
		streams[i].n = streams[i].ref.n_ids;
		if (c->max_tokens && streams[i].n > c->max_tokens)
			streams[i].n = c->max_tokens;
	}
	while (n_open > 0) {
		struct eng_step_seq seqs[MAX_STREAMS];
		struct gpu_stream *who[MAX_STREAMS];
		const float *rows;
		uint32_t n = 0, room = GPU_TOKENS;

		for (uint32_t i = 0; i < c->n_seqs; i++) {
			struct gpu_stream *s = &streams[i];
			uint32_t left = s->n - s->pos, take;

			if (left == 0 || (c->n_seqs > 1 && rand() % 4 == 0))
				continue;
			take = 1 + (rand() % 2 ? (uint32_t)rand() % (left < c->max_piece ? left : c->max_piece) : 0);
			take = take < room ? take : room;
			if (take == 0 || eng_kv_seq_reserve(pool, &s->kv, s->pos + take) < 0)
				continue;
			room -= take;
			who[n] = s;
			seqs[n++] = (struct eng_step_seq){ .pages = s->kv.pages,
				                           .ids = s->ref.ids + s->pos,
				                           .n_ids = take,
				                           .pos = s->pos,
				                           .state = i,
				                           .n_out = 1 + (uint32_t)rand() % take };
		}
		if (n == 0)
			continue;
		rows = step(r, seqs, n);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t n_vocab = who[i]->ref.n_vocab;

			who[i]->pos += seqs[i].n_ids;
			for (uint32_t k = who[i]->pos - seqs[i].n_out; k < who[i]->pos; k++, rows += n_vocab) {
				const float *kept = reference_row(&who[i]->ref, k);

				assert_true(n_rows < MAX_ROWS);
				if (kept)
					rel[n_rows++] = compare(rows, kept, n_vocab).rel_l2;
			}
			if (who[i]->pos == who[i]->n) {
				eng_kv_seq_done(pool, &who[i]->kv);
				n_open--;
			}
		}
	}
	assert_true(n_rows > 0);
	qsort(rel, n_rows, sizeof(rel[0]), by_value);
	print_message("%s%s%s, %u devices%s: %u rows, relative: middle %.2e, worst %.2e\n", c->model,
	              c->exact ? " exact" : "", c->no_fusion ? " unfused" : "", c->n_devices ? c->n_devices : 1,
	              c->by_expert ? " by expert" : "", n_rows, rel[n_rows / 2], rel[n_rows - 1]);
	assert_true(rel[n_rows / 2] < c->tolerance);
	eng_kv_pool_free(pool);
	eng_runner_free(r);
	eng_model_close(m);
	kn_backend_close(be);
	eng_weights_close(refs);
}

#endif
