/* The assembly line: order, limits, errors. */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "test.h"

#include "convert/line.h"

enum { N_ITEMS = 2000, MAX_COST = 64 };

struct item {
	struct flip_line_item item;
	int number, worked;
};

struct state {
	_Atomic int n_alive, n_most;
	int n_taken, fail_work_at, fail_take_at;
};

static struct state *now; /* for item_free, which has no argument of its own */

static void *worker_new(void *arg)
{
	return arg;
}

static void worker_free(void *worker)
{
	(void)worker;
}

static int work(void *arg, void *worker, struct flip_line_item *item, struct err *err)
{
	struct state *s = arg;
	struct item *i = (struct item *)item;

	(void)worker;
	if (i->number % 7 == 0)
		(void)usleep(50); /* overtaken by those behind */
	i->worked = i->number * 3;
	return i->number == s->fail_work_at ? err_set(err, -EIO, "work %d", i->number) : 0;
}

static int take(void *arg, struct flip_line_item *item, struct err *err)
{
	struct state *s = arg;
	struct item *i = (struct item *)item;

	assert_int_equal(i->number, s->n_taken);
	assert_int_equal(i->worked, i->number * 3);
	s->n_taken++;
	return i->number == s->fail_take_at ? err_set(err, -ENOSPC, "take %d", i->number) : 0;
}

static void item_free(struct flip_line_item *item)
{
	atomic_fetch_sub(&now->n_alive, 1);
	free(item);
}

static const struct flip_line_ops ops = { worker_new, worker_free, work, take, item_free };

static int push_all(struct flip_line *line, struct state *s, struct err *err)
{
	for (int n = 0; n < N_ITEMS; n++) {
		struct item *i = calloc(1, sizeof(*i));
		int alive = atomic_fetch_add(&s->n_alive, 1) + 1, r;

		i->number = n;
		if (alive > s->n_most)
			s->n_most = alive;
		r = flip_line_push(line, &i->item, 1, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void items_are_taken_in_order_and_never_too_many(void **state)
{
	struct state s = { .fail_work_at = -1, .fail_take_at = -1 };
	struct flip_line *line;

	(void)state;
	now = &s;
	assert_int_equal(flip_line_new(&ops, &s, 4, MAX_COST, &line, NULL), 0);
	assert_int_equal(push_all(line, &s, NULL), 0);
	assert_int_equal(flip_line_finish(line, NULL), 0);
	assert_int_equal(s.n_taken, N_ITEMS);
	assert_int_equal(s.n_alive, 0);
	/* The one that waits to be pushed, and the one that is being freed. */
	assert_in_range(s.n_most, 1, MAX_COST + 2);
}

static void the_first_error_ends_it_and_nothing_leaks(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct state s = { .fail_work_at = i ? 700 : -1, .fail_take_at = i ? -1 : 700 };
		struct flip_line *line;
		struct err err = { 0 };
		int r;

		now = &s;
		assert_int_equal(flip_line_new(&ops, &s, 3, MAX_COST, &line, NULL), 0);
		r = push_all(line, &s, &err);
		assert_int_equal(r, i ? -EIO : -ENOSPC);
		assert_string_equal(err.msg, i ? "work 700" : "take 700");
		assert_int_equal(flip_line_finish(line, &err), r);
		assert_int_equal(s.n_alive, 0);
	}
}

static void an_item_larger_than_the_line_passes_alone(void **state)
{
	struct state s = { .fail_work_at = -1, .fail_take_at = -1 };
	struct flip_line *line;

	(void)state;
	now = &s;
	assert_int_equal(flip_line_new(&ops, &s, 2, MAX_COST, &line, NULL), 0);
	for (int n = 0; n < 3; n++) {
		struct item *i = calloc(1, sizeof(*i));

		i->number = n;
		s.n_alive++;
		assert_int_equal(flip_line_push(line, &i->item, 10 * MAX_COST, NULL), 0);
	}
	assert_int_equal(flip_line_finish(line, NULL), 0);
	assert_int_equal(s.n_taken, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(items_are_taken_in_order_and_never_too_many),
		cmocka_unit_test(the_first_error_ends_it_and_nothing_leaks),
		cmocka_unit_test(an_item_larger_than_the_line_passes_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
