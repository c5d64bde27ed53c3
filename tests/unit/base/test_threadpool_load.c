/* Threads stay away while their cores are others', and come back. */
#include "threadpool_load.h"

#include "test.h"

enum { MS = 1000000, WINDOW = 15 * MS };

/* Windows of which `percent` is lost while `spoilt` or more threads take part; returns how many do at the end. */
static unsigned run(struct pool_load *l, int windows, int percent, unsigned spoilt)
{
	for (int i = 0; i < windows; i++)
		base_load_add(l, WINDOW, l->n_active >= spoilt ? (int64_t)WINDOW * percent / 100 : 0);
	return l->n_active;
}

static void a_quiet_pool_keeps_all(void **state)
{
	struct pool_load l;

	(void)state;
	base_load_init(&l, 4);
	assert_int_equal(run(&l, 1000, 3, 0), 4);
}

/* Others run for a moment now and then, as on every machine: that costs less than a thread that stays away. */
static void single_interruptions_send_nobody_away(void **state)
{
	struct pool_load l;

	(void)state;
	base_load_init(&l, 4);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(run(&l, 1, i % 7 == 0 ? 60 : 0, 0), 4);
}

static void one_stolen_core_sends_one_away(void **state)
{
	struct pool_load l;
	int n_full = 0;

	(void)state;
	base_load_init(&l, 4);
	assert_int_equal(run(&l, 8, 35, 4), 3);
	/* Asked back less and less: in a minute the full pool is tried for a small part of the time. */
	for (int i = 0; i < 4000; i++)
		n_full += run(&l, 1, 35, 4) == 4;
	assert_in_range(n_full, 50, 400); /* a tenth at most */
	assert_true(l.n_active >= 3);
}

static void it_comes_back_when_the_core_is_free(void **state)
{
	struct pool_load l;

	(void)state;
	base_load_init(&l, 4);
	assert_int_equal(run(&l, 2000, 35, 4) | 1, 3 | 1);
	assert_int_equal(run(&l, 2100 / 15, 0, 4), 4); /* within the longest rest */
	/* And forgets: the next time it rests shortly. */
	(void)run(&l, 10, 0, 4);
	(void)run(&l, 20, 0, 4);
	assert_int_equal(run(&l, 8, 35, 4), 3);
	assert_int_equal(run(&l, 20, 0, 4), 4);
}

static void more_than_half_stay_whatever_comes(void **state)
{
	struct pool_load l;

	(void)state;
	for (unsigned n = 3; n < 20; n++) {
		base_load_init(&l, n);
		for (int i = 0; i < 300; i++)
			assert_true(run(&l, 1, 90, 0) > n / 2);
		assert_true(l.n_active < n);
	}
}

static void a_chunk_of_usual_length_is_no_loss(void **state)
{
	(void)state;
	assert_int_equal(base_load_lost(0, 0), 0);
	assert_int_equal(base_load_lost(300000, 10000), 0);  /* short in any case */
	assert_int_equal(base_load_lost(3 * MS, MS), 0);     /* chunks are long here */
	assert_int_equal(base_load_lost(3 * MS, 0), 3 * MS); /* no chunk of its own to compare with */
	assert_int_equal(base_load_lost(3 * MS, 10000), 3 * MS - 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_quiet_pool_keeps_all),
		cmocka_unit_test(single_interruptions_send_nobody_away),
		cmocka_unit_test(one_stolen_core_sends_one_away),
		cmocka_unit_test(it_comes_back_when_the_core_is_free),
		cmocka_unit_test(more_than_half_stay_whatever_comes),
		cmocka_unit_test(a_chunk_of_usual_length_is_no_loss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
