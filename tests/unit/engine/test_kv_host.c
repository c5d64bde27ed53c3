/* Pages in host memory: found by their keys, given up in the order of use, damaged ones refused; and under any random
 * work free + cached + used = total, with little memory and with none. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv/host.h"
#include "test.h"

enum { PAGE = 4, BYTES = 2 * 256 + 88 }; /* lines of all quarters, and bytes behind them */

static atomic_size_t limit = SIZE_MAX; /* of memory */

static void *alloc(void *ctx, size_t bytes)
{
	(void)ctx;
	return bytes <= atomic_load(&limit) ? calloc(1, bytes) : NULL;
}

static void give_back(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

static void check(struct eng_kv_host *h)
{
	struct err err = { 0 };

	if (eng_kv_host_check(h, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static struct eng_kv_host_counts counts(struct eng_kv_host *h)
{
	struct eng_kv_host_counts c;

	check(h);
	eng_kv_host_counts(h, &c);
	assert_int_equal(c.n_free + c.n_cached + c.n_used, c.n_slots);
	return c;
}

static struct eng_kv_host *new_host(uint32_t n_slots)
{
	const struct eng_kv_host_config config = { .budget_bytes = n_slots * BYTES + BYTES / 2,
		                                   .page_bytes = BYTES,
		                                   .page_tokens = PAGE,
		                                   .alloc = alloc,
		                                   .free = give_back };
	struct eng_kv_host *h;
	struct err err = { 0 };

	if (eng_kv_host_new(&config, &h, &err) < 0)
		fail_msg("%s", err_text(&err));
	while (counts(h).n_slots < n_slots && !counts(h).is_short)
		(void)usleep(200);
	return h;
}

static struct eng_pc_key key_of(uint32_t n)
{
	struct eng_pc_key key = { { 0 } };

	memcpy(key.b, &n, sizeof(n));
	key.b[31] = 1;
	return key;
}

static uint32_t take(struct eng_kv_host *h, uint32_t n)
{
	const int32_t ids[PAGE] = { (int32_t)n };
	const struct eng_kv_host_page page = { .key = key_of(n), .ids = ids };

	return eng_kv_host_take(h, &page);
}

static void fill(struct eng_kv_host *h, uint32_t slot, uint32_t n)
{
	struct eng_kv_host_page page;

	eng_kv_host_page(h, slot, &page);
	assert_int_equal(page.ids[0], n);
	memset(page.bytes, (int)n & 255, BYTES);
	eng_kv_host_filled(h, slot, true);
}

static void await_complete(struct eng_kv_host *h, uint32_t slot)
{
	for (int n = 0; n < 1000000 && !eng_kv_host_is_complete(h, slot); n++)
		(void)usleep(100);
	assert_true(eng_kv_host_is_complete(h, slot));
}

static int compare(struct eng_kv_host *h, uint32_t slot)
{
	int r;

	eng_kv_host_compare(h, slot);
	while ((r = eng_kv_host_compared(h, slot)) == 0)
		(void)usleep(50);
	return r;
}

static void put(struct eng_kv_host *h, uint32_t n)
{
	uint32_t slot = take(h, n);

	assert_int_not_equal(slot, ENG_KV_NO_SLOT);
	fill(h, slot, n);
	await_complete(h, slot);
}

static uint32_t find(struct eng_kv_host *h, uint32_t n)
{
	const struct eng_pc_key key = key_of(n);

	return eng_kv_host_find(h, &key);
}

static void the_least_recently_used_page_goes_first(void **state)
{
	struct eng_kv_host *h = new_host(3);
	uint32_t slot;

	(void)state;
	for (uint32_t n = 0; n < 3; n++)
		put(h, n);
	assert_int_equal(counts(h).n_cached, 3);
	eng_kv_host_touch(h, find(h, 0));
	put(h, 3);
	assert_int_equal(find(h, 1), ENG_KV_NO_SLOT);
	slot = find(h, 2);
	eng_kv_host_hold(h, slot); /* the oldest, but somebody reads it */
	put(h, 4);
	assert_int_equal(find(h, 0), ENG_KV_NO_SLOT);
	assert_int_equal(find(h, 2), slot);
	assert_int_equal(counts(h).n_used, 1);
	assert_int_equal(counts(h).n_given_up, 2);
	eng_kv_host_release(h, slot);
	assert_int_equal(counts(h).n_cached, 3);
	eng_kv_host_free(h);
}

static void a_page_that_did_not_come_is_not_found(void **state)
{
	struct eng_kv_host *h = new_host(2);
	uint32_t slot = take(h, 7);

	(void)state;
	assert_int_equal(find(h, 7), slot);
	assert_false(eng_kv_host_is_complete(h, slot));
	eng_kv_host_filled(h, slot, false);
	assert_int_equal(find(h, 7), ENG_KV_NO_SLOT);
	assert_int_equal(counts(h).n_free, 2);
	eng_kv_host_free(h);
}

static void one_changed_bit_is_seen_wherever_it_is(void **state)
{
	struct eng_kv_host *h = new_host(2);

	(void)state;
	for (uint32_t at = 0; at < BYTES; at++) {
		struct eng_kv_host_page page;
		uint32_t slot;

		put(h, at);
		slot = find(h, at);
		eng_kv_host_hold(h, slot);
		assert_int_equal(compare(h, slot), 1);
		eng_kv_host_page(h, slot, &page);
		page.bytes[at] ^= (uint8_t)(1 << at % 8);
		assert_int_equal(compare(h, slot), -EBADMSG);
		assert_int_equal(find(h, at), ENG_KV_NO_SLOT);
		eng_kv_host_release(h, slot);
		assert_int_equal(counts(h).n_free + counts(h).n_cached, 2);
	}
	assert_int_equal(counts(h).n_damaged, BYTES);
	eng_kv_host_free(h);
}

static void a_budget_without_a_page_is_refused_and_no_memory_is_none(void **state)
{
	const struct eng_kv_host_config config = {
		.budget_bytes = BYTES - 1, .page_bytes = BYTES, .page_tokens = PAGE, .alloc = alloc, .free = give_back
	};
	struct eng_kv_host *h = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(eng_kv_host_new(&config, &h, &err), -EINVAL);
	assert_null(h);
	atomic_store(&limit, 0);
	h = new_host(5);
	assert_true(eng_kv_host_is_dead(h));
	assert_int_equal(take(h, 1), ENG_KV_NO_SLOT);
	assert_int_equal(counts(h).n_slots, 0);
	eng_kv_host_free(h);
	atomic_store(&limit, SIZE_MAX);
}

/* Against a model: what each slot that is used is for. */
enum { N_SLOTS = 12, N_KEYS = 40, STEPS = 30000 };

static void random_work_keeps_every_slot_accounted_for(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 4; seed++) {
		struct eng_kv_host *h = new_host(N_SLOTS);
		uint32_t filling[N_SLOTS], held[N_SLOTS], n_filling = 0, n_held = 0, n_found = 0;

		srand(seed);
		for (int step = 0; step < STEPS; step++) {
			uint32_t n = (uint32_t)rand() % N_KEYS, slot = find(h, n);
			int what = rand() % 10;

			if (what < 3 && slot == ENG_KV_NO_SLOT && n_filling < N_SLOTS / 2) {
				slot = take(h, n);
				if (slot != ENG_KV_NO_SLOT)
					filling[n_filling++] = slot;
			} else if (what < 6 && n_filling > 0) {
				struct eng_kv_host_page page;
				uint32_t at = (uint32_t)rand() % n_filling;

				eng_kv_host_page(h, filling[at], &page);
				memset(page.bytes, page.ids[0] & 255, BYTES);
				eng_kv_host_filled(h, filling[at], rand() % 5 != 0);
				filling[at] = filling[--n_filling];
			} else if (what == 6 && slot != ENG_KV_NO_SLOT && n_held < N_SLOTS / 3 &&
			           eng_kv_host_is_complete(h, slot)) {
				struct eng_kv_host_page page;

				eng_kv_host_hold(h, slot);
				eng_kv_host_page(h, slot, &page);
				assert_int_equal(page.bytes[BYTES - 1], n);
				assert_int_equal(compare(h, slot), 1);
				held[n_held++] = slot;
				n_found++;
			} else if (what == 7 && n_held > 0) {
				eng_kv_host_release(h, held[--n_held]);
			} else if (what == 8 && slot != ENG_KV_NO_SLOT) {
				eng_kv_host_touch(h, slot);
			} else if (what == 9 && rand() % 500 == 0) {
				eng_kv_host_flush(h);
				for (uint32_t k = 0; k < N_KEYS; k++)
					assert_int_equal(find(h, k), ENG_KV_NO_SLOT);
			}
			if (step % 16 == 0) {
				assert_true(counts(h).n_used >= n_filling);
				while (counts(h).n_used > n_filling + n_held) /* all sums are made */
					(void)usleep(20);
			}
		}
		while (n_filling > 0)
			eng_kv_host_filled(h, filling[--n_filling], false);
		while (n_held > 0)
			eng_kv_host_release(h, held[--n_held]);
		for (int n = 0; n < 1000000 && counts(h).n_used > 0; n++)
			(void)usleep(100);
		assert_int_equal(counts(h).n_used, 0);
		assert_true(n_found > 100 && counts(h).n_given_up > 100);
		assert_int_equal(counts(h).n_damaged, 0);
		eng_kv_host_flush(h);
		assert_int_equal(counts(h).n_free, N_SLOTS);
		eng_kv_host_free(h);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_least_recently_used_page_goes_first),
		cmocka_unit_test(a_page_that_did_not_come_is_not_found),
		cmocka_unit_test(one_changed_bit_is_seen_wherever_it_is),
		cmocka_unit_test(a_budget_without_a_page_is_refused_and_no_memory_is_none),
		cmocka_unit_test(random_work_keeps_every_slot_accounted_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
