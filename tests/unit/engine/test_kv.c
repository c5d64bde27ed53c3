#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kv/kv.h"
#include "test.h"

static void a_sequence_gets_just_the_pages_it_needs(void **state)
{
	struct eng_kv_seq seq = { 0 };
	struct eng_kv_pool *pool;

	(void)state;
	assert_int_equal(eng_kv_pool_new(10, 16, &pool), 0);
	assert_int_equal(eng_kv_seq_reserve(pool, &seq, 1), 0);
	assert_int_equal(seq.n_pages, 1);
	assert_int_equal(eng_kv_seq_reserve(pool, &seq, 16), 0);
	assert_int_equal(seq.n_pages, 1);
	assert_int_equal(eng_kv_seq_reserve(pool, &seq, 17), 0);
	assert_int_equal(seq.n_pages, 2);
	assert_int_equal(eng_kv_pool_n_available(pool), 8);
	eng_kv_seq_done(pool, &seq);
	assert_int_equal(eng_kv_pool_n_available(pool), 10);
	eng_kv_pool_free(pool);
}

static void a_full_pool_refuses_and_changes_nothing(void **state)
{
	struct eng_kv_seq a = { 0 }, b = { 0 };
	struct eng_kv_pool *pool;

	(void)state;
	assert_int_equal(eng_kv_pool_new(4, 8, &pool), 0);
	assert_int_equal(eng_kv_seq_reserve(pool, &a, 20), 0);
	assert_int_equal(eng_kv_seq_reserve(pool, &b, 9), -ENOSPC);
	assert_int_equal(b.n_pages, 0);
	assert_null(b.pages);
	assert_int_equal(eng_kv_seq_reserve(pool, &b, 8), 0);
	assert_int_equal(eng_kv_seq_reserve(pool, &b, UINT32_MAX), -ENOSPC);
	assert_int_equal(b.n_pages, 1);
	assert_int_equal(eng_kv_pool_check(pool, NULL), 0);
	eng_kv_seq_done(pool, &a);
	eng_kv_seq_done(pool, &b);
	eng_kv_pool_free(pool);
}

static void truncating_frees_only_pages_without_kept_tokens(void **state)
{
	struct eng_kv_seq seq = { 0 };
	struct eng_kv_pool *pool;

	(void)state;
	assert_int_equal(eng_kv_pool_new(8, 4, &pool), 0);
	assert_int_equal(eng_kv_seq_reserve(pool, &seq, 15), 0);
	seq.n_tokens = 15;
	eng_kv_seq_truncate(pool, &seq, 5);
	assert_int_equal(seq.n_tokens, 5);
	assert_int_equal(seq.n_pages, 2);
	eng_kv_seq_truncate(pool, &seq, 100); /* nothing to forget */
	assert_int_equal(seq.n_tokens, 5);
	assert_int_equal(seq.n_pages, 2);
	eng_kv_seq_done(pool, &seq);
	eng_kv_pool_free(pool);
}

/* Random reservations and truncations of many sequences: no page has two owners, none is lost. */
static void random_use_never_shares_or_loses_a_page(void **state)
{
	enum { N_SEQ = 7, N_PAGES = 50, PAGE = 3 };
	struct eng_kv_seq seqs[N_SEQ] = { 0 };
	struct eng_kv_pool *pool;

	(void)state;
	srand(1);
	assert_int_equal(eng_kv_pool_new(N_PAGES, PAGE, &pool), 0);
	for (int step = 0; step < 5000; step++) {
		struct eng_kv_seq *s = &seqs[rand() % N_SEQ];
		uint32_t want = (uint32_t)rand() % 60, held = s->n_pages;
		int owner[N_PAGES] = { 0 }, n_used = 0;

		if (rand() % 2) {
			int r = eng_kv_seq_reserve(pool, s, want);

			assert_true(r == 0 || r == -ENOSPC);
			assert_true(r == 0 ? s->n_pages * PAGE >= want : s->n_pages == held);
		} else {
			eng_kv_seq_truncate(pool, s, want);
		}
		for (int i = 0; i < N_SEQ; i++) {
			for (uint32_t p = 0; p < seqs[i].n_pages; p++, n_used++)
				assert_int_equal(owner[seqs[i].pages[p]]++, 0);
		}
		assert_int_equal(eng_kv_pool_n_available(pool) + (uint32_t)n_used, N_PAGES);
		assert_int_equal(eng_kv_pool_check(pool, NULL), 0);
	}
	for (int i = 0; i < N_SEQ; i++)
		eng_kv_seq_done(pool, &seqs[i]);
	assert_int_equal(eng_kv_pool_n_available(pool), N_PAGES);
	eng_kv_pool_free(pool);
}

static void pages_given_back_in_a_step_are_nobodys_until_it_has_landed(void **state)
{
	struct eng_kv_seq a = { 0 }, b = { 0 };
	struct eng_kv_counts c;
	struct eng_kv_pool *pool;

	(void)state;
	assert_int_equal(eng_kv_pool_new(4, 8, &pool), 0);
	assert_int_equal(eng_kv_seq_reserve(pool, &a, 24), 0);
	eng_kv_pool_hold(pool, true);
	eng_kv_seq_done(pool, &a);
	eng_kv_pool_counts(pool, &c);
	assert_int_equal(c.n_used, 3);
	assert_int_equal(eng_kv_seq_reserve(pool, &b, 9), -ENOSPC);
	assert_int_equal(eng_kv_seq_reserve(pool, &b, 8), 0);
	assert_int_equal(eng_kv_pool_check(pool, NULL), 0);
	/* The next step is in the air: what comes back now is held for that one. */
	eng_kv_pool_let_go(pool);
	eng_kv_seq_done(pool, &b);
	eng_kv_pool_counts(pool, &c);
	assert_int_equal(c.n_free, 3);
	assert_int_equal(c.n_used, 1);
	eng_kv_pool_hold(pool, false);
	eng_kv_pool_let_go(pool);
	eng_kv_pool_counts(pool, &c);
	assert_int_equal(c.n_free, 4);
	assert_int_equal(eng_kv_pool_check(pool, NULL), 0);
	eng_kv_pool_free(pool);
}

static void a_pool_of_nothing_is_refused(void **state)
{
	struct eng_kv_pool *pool = NULL;

	(void)state;
	assert_int_equal(eng_kv_pool_new(0, 16, &pool), -EINVAL);
	assert_int_equal(eng_kv_pool_new(16, 0, &pool), -EINVAL);
	assert_null(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sequence_gets_just_the_pages_it_needs),
		cmocka_unit_test(a_full_pool_refuses_and_changes_nothing),
		cmocka_unit_test(truncating_frees_only_pages_without_kept_tokens),
		cmocka_unit_test(random_use_never_shares_or_loses_a_page),
		cmocka_unit_test(pages_given_back_in_a_step_are_nobodys_until_it_has_landed),
		cmocka_unit_test(a_pool_of_nothing_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
