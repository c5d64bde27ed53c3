/* Pages that leave the pool for host memory and the disk and come back: always the same output as without, also when
 * memory is not to be had, copies fail, pages are damaged, requests go while theirs come, and weights change. */
#include <signal.h>
#include <sys/resource.h>

#include "cache_dir.h"
#include "sched_test.h"

enum { POOL = 24, LONG = 48 };

static bool write_through, may_refuse;
static atomic_uint n_notes;

static void note(void *arg, const char *text)
{
	(void)arg;
	assert_non_null(strstr(text, "host cache"));
	atomic_fetch_add(&n_notes, 1);
}

/* The tier's memory comes on a thread of its own. */
static void await_slots(struct world *w, uint32_t n)
{
	for (int ms = 0; ms < 120000 && stats_of(w).host_pages_total < n; ms++)
		(void)usleep(1000);
	assert_int_equal(stats_of(w).host_pages_total, n);
}

static void world_with(struct world *w, uint32_t max_running, uint32_t n_pages, uint32_t n_slots, bool on_disk)
{
	struct eng_sched_config config = { .max_running = max_running,
		                           .max_queued = 100,
		                           .host_bytes = n_slots * FAKE_PAGE * sizeof(int32_t),
		                           .write_through = write_through,
		                           .no_speculation = true,
		                           .always_load = !may_refuse,
		                           .on_note = note };
	const struct eng_pc_config cache = { .dir = cache_dir,
		                             .budget_bytes = 1 << 20,
		                             .page_tokens = FAKE_PAGE,
		                             .page_bytes = FAKE_PAGE * sizeof(int32_t) };
	struct err err = { 0 };

	if (on_disk && eng_pc_open(&cache, &config.cache, &err) < 0)
		fail_msg("%s", err_text(&err));
	world_init_as(w, config, n_pages);
	atomic_store(&w->f.delay_us, 1500);
	await_slots(w, n_slots);
}

/* One request alone, answered rightly; its cached tokens. */
static uint32_t ask(struct world *w, uint32_t seed, uint32_t n, uint32_t max_new)
{
	int32_t ids[CTX];
	struct client c;
	struct eng_request req = greedy(&c, ids, n, max_new);

	prompt_of(ids, n, seed);
	client_init(&c);
	submit(w, &c, &req);
	client_wait(&c);
	assert_int_equal(c.done.finish, ENG_FINISH_LENGTH);
	expect_continuation(w, ids, n, &c, max_new);
	return c.done.n_cached;
}

/* What is on its way when a request ends has come. */
static void await_quiet(struct world *w)
{
	for (int ms = 0; ms < 120000 && stats_of(w).host_pages_used > 0; ms++)
		(void)usleep(1000);
	assert_int_equal(stats_of(w).host_pages_used, 0);
}

static void what_was_given_up_comes_back_from_the_host(void **state)
{
	struct eng_stats st;
	struct world w;

	(void)state;
	world_with(&w, 2, POOL, 100, false);
	assert_int_equal(ask(&w, 1, LONG, 4), 0);
	for (uint32_t seed = 2; seed < 5; seed++)
		(void)ask(&w, seed, LONG, 4); /* two of these fill the pool */
	await_quiet(&w);
	assert_true(stats_of(&w).kv_evictions >= LONG / FAKE_PAGE);
	assert_int_equal(stats_of(&w).host_pages_lost, 0);
	assert_int_equal(ask(&w, 1, LONG, 4), LONG - FAKE_PAGE);
	st = stats_of(&w);
	assert_true(st.host_tokens >= LONG / 2 && st.host_tokens <= LONG);
	assert_int_equal(st.host_bytes_in, st.host_tokens * sizeof(int32_t));
	assert_int_equal(st.host_pages_damaged + st.n_loads_refused, 0);
	world_done(&w);
}

/* Each page goes once, although it is given up again and again. */
static void a_page_that_came_back_goes_for_nothing(void **state)
{
	struct world w;

	(void)state;
	world_with(&w, 2, POOL, 100, false);
	for (int round = 0; round < 5; round++) {
		for (uint32_t seed = 1; seed < 4; seed++)
			(void)ask(&w, seed, LONG, 1);
	}
	await_quiet(&w);
	assert_true(stats_of(&w).kv_evictions > 2 * 3 * LONG / FAKE_PAGE);
	assert_int_equal(stats_of(&w).host_bytes_out, 3 * LONG * sizeof(int32_t));
	assert_int_equal(atomic_load(&w.f.n_out), 3 * LONG / FAKE_PAGE);
	world_done(&w);
}

/* While it waits for its turn, its pages come. */
static void pages_come_while_a_request_waits(void **state)
{
	static struct client c[2];
	int32_t ids[2][LONG];
	struct eng_stats st;
	struct world w;

	(void)state;
	world_with(&w, 1, 2 * POOL, 100, false);
	for (uint32_t seed = 1; seed < 6; seed++)
		(void)ask(&w, seed, LONG, 1);
	await_quiet(&w);
	atomic_store(&w.f.delay_us, 20000); /* so that there is time to see it */
	for (int i = 0; i < 2; i++) {
		struct eng_request req = greedy(&c[i], ids[i], i ? LONG : 8, i ? 2 : 56);

		prompt_of(ids[i], i ? LONG : 8, i ? 1 : 77);
		client_init(&c[i]);
		submit(&w, &c[i], &req);
	}
	do {
		st = stats_of(&w);
		(void)usleep(500);
	} while (st.n_queued > 0 && st.host_bytes_in < (LONG - FAKE_PAGE) * sizeof(int32_t));
	assert_int_equal(st.n_queued, 1);
	for (int i = 0; i < 2; i++) {
		client_wait(&c[i]);
		expect_continuation(&w, ids[i], i ? LONG : 8, &c[i], i ? 2 : 56);
	}
	assert_int_equal(c[1].done.n_cached, LONG - FAKE_PAGE);
	assert_int_equal(stats_of(&w).host_tokens, LONG - FAKE_PAGE);
	world_done(&w);
}

/* What waits gives its pages back when somebody who runs needs them, and gets its answer all the same. */
static void who_runs_goes_before_who_waits(void **state)
{
	static struct client c[3];
	int32_t ids[3][LONG];
	struct world w;

	(void)state;
	world_with(&w, 1, POOL, 100, false);
	for (int round = 0; round < 4; round++) {
		for (uint32_t seed = 1; seed < 4; seed++)
			(void)ask(&w, seed, LONG, 1);
		for (int i = 0; i < 3; i++) {
			struct eng_request req = greedy(&c[i], ids[i], i ? LONG : 6, i ? 2 : 56);

			prompt_of(ids[i], i ? LONG : 6, i ? (uint32_t)i : 80 + (uint32_t)round);
			client_init(&c[i]);
			submit(&w, &c[i], &req);
		}
		for (int i = 0; i < 3; i++) {
			client_wait(&c[i]);
			expect_continuation(&w, ids[i], i ? LONG : 6, &c[i], i ? 2 : 56);
		}
	}
	assert_true(stats_of(&w).host_tokens > 0);
	world_done(&w);
}

static void what_is_slower_than_computing_is_not_brought(void **state)
{
	struct eng_stats st;
	struct world w;

	(void)state;
	may_refuse = true;
	world_with(&w, 2, POOL, 100, false);
	may_refuse = false;
	atomic_store(&w.f.delay_us, 100);
	atomic_store(&w.f.copy_us, 400000);
	for (int round = 0; round < 6; round++) {
		for (uint32_t seed = 1; seed < 4; seed++)
			(void)ask(&w, seed, LONG, 1);
	}
	st = stats_of(&w);
	assert_true(st.n_loads_refused > 5);
	assert_true(st.host_tokens > 0 && st.host_tokens < 3 * LONG); /* what was tried */
	world_done(&w);
}

static void without_memory_everything_goes_on(void **state)
{
	struct world w;

	(void)state;
	atomic_store(&n_notes, 0);
	for (int life = 0; life < 2; life++) {
		struct eng_sched_config config = { .max_running = 2,
			                           .max_queued = 9,
			                           .host_bytes = 1600,
			                           .always_load = true,
			                           .write_through = write_through,
			                           .on_note = note };
		const struct eng_pc_config cache = {
			.dir = cache_dir, .budget_bytes = 1 << 20, .page_tokens = FAKE_PAGE, .page_bytes = FAKE_PAGE * 4
		};

		assert_int_equal(eng_pc_open(&cache, &config.cache, NULL), 0);
		world_host_limit = 100;
		world_init_as(&w, config, POOL);
		world_host_limit = SIZE_MAX / 2;
		atomic_store(&w.f.delay_us, 20000); /* reading is worth it */
		for (uint32_t seed = 1; seed < 4; seed++)
			(void)ask(&w, seed, LONG, 2);
		for (int ms = 0; ms < 120000 && atomic_load(&n_notes) == (unsigned)life; ms++)
			(void)usleep(1000);
		assert_int_equal(atomic_load(&n_notes), life + 1);
		assert_int_equal(stats_of(&w).host_tokens, 0);
		if (life) /* the disk serves without the host */
			assert_true(stats_of(&w).disk_tokens > 0);
		world_done(&w);
	}
}

static void copies_that_fail_cost_the_copy_alone(void **state)
{
	struct world w;

	(void)state;
	world_with(&w, 3, POOL, 40, false);
	atomic_store(&w.f.fail_every, 3);
	for (int round = 0; round < 8; round++) {
		for (uint32_t seed = 1; seed < 5; seed++)
			(void)ask(&w, seed, LONG, 2);
	}
	assert_true(stats_of(&w).host_bytes_out > 0 && stats_of(&w).host_pages_lost > 0);
	world_done(&w);
}

static void damaged_pages_are_computed_again(void **state)
{
	struct eng_stats st;
	struct world w;

	(void)state;
	world_with(&w, 2, POOL, 60, false);
	for (uint32_t seed = 1; seed < 5; seed++)
		(void)ask(&w, seed, LONG, 1);
	await_quiet(&w);
	for (size_t at = 3; at < atomic_load(&w.f.host_bytes); at += 5 * FAKE_PAGE * sizeof(int32_t))
		atomic_load(&w.f.host_memory)[at] ^= 16;
	for (uint32_t seed = 1; seed < 5; seed++)
		(void)ask(&w, seed, LONG, 1);
	st = stats_of(&w);
	assert_true(st.host_pages_damaged > 0);
	world_done(&w);
}

static void who_leaves_while_pages_come_leaves_nothing(void **state)
{
	enum { N = 60 };
	static struct client c[N];
	int32_t ids[N][LONG];
	struct world w;

	(void)state;
	world_with(&w, 3, POOL, 40, false);
	for (uint32_t seed = 1; seed < 5; seed++)
		(void)ask(&w, seed, LONG, 1);
	atomic_store(&w.f.copy_us, 2000);
	for (int i = 0; i < N; i++) {
		struct eng_request req = greedy(&c[i], ids[i], LONG, 3);

		prompt_of(ids[i], LONG, 1 + (uint32_t)i % 4);
		client_init(&c[i]);
		submit(&w, &c[i], &req);
		if (i % 3 == 0)
			(void)usleep(100 * (useconds_t)(i % 7));
		if (i % 5)
			eng_sched_cancel(w.s, c[i].id);
	}
	for (int i = 0; i < N; i++) {
		client_wait(&c[i]);
		if (c[i].done.finish != ENG_FINISH_ABORT)
			expect_continuation(&w, ids[i], LONG, &c[i], 3);
	}
	world_done(&w);
}

static int nothing(void *arg, struct err *err)
{
	(void)err;
	atomic_fetch_add((atomic_uint *)arg, 1);
	return 0;
}

/* Other weights come while requests run, and others wait whose pages come already. */
static void other_weights_have_no_use_for_any_page(void **state)
{
	static struct client c[3];
	int32_t ids[3][LONG];
	atomic_uint n_tasks = 0;
	struct eng_stats st;
	struct world w;

	(void)state;
	world_with(&w, 1, 2 * POOL, 100, false);
	for (uint32_t seed = 1; seed < 6; seed++)
		(void)ask(&w, seed, LONG, 1);
	for (int i = 0; i < 3; i++) {
		struct eng_request req = greedy(&c[i], ids[i], i ? LONG : 6, i ? 2 : 20);

		prompt_of(ids[i], i ? LONG : 6, i ? (uint32_t)i : 90);
		client_init(&c[i]);
		submit(&w, &c[i], &req);
	}
	assert_int_equal(eng_sched_run_alone(w.s, nothing, &n_tasks, NULL), 0);
	for (int i = 0; i < 3; i++) {
		client_wait(&c[i]);
		expect_continuation(&w, ids[i], i ? LONG : 6, &c[i], i ? 2 : 20);
	}
	assert_int_equal(atomic_load(&n_tasks), 1);
	/* Of the two that waited, one may have run before the change. */
	assert_int_equal(c[2].done.n_cached, 0);
	await_quiet(&w);
	st = stats_of(&w);
	assert_true(st.host_pages_cached <= 3 * LONG / FAKE_PAGE && st.kv_pages_cached <= 3 * LONG / FAKE_PAGE);
	assert_int_equal(eng_sched_flush(w.s), 0);
	st = stats_of(&w);
	assert_int_equal(st.host_pages_cached + st.kv_pages_cached, 0);
	assert_int_equal(ask(&w, 3, LONG, 1), 0);
	world_done(&w);
}

/* ---- With the disk behind it ---- */

/* Pages reach the disk by way of the host, of the pool and of the host alone, and come back the same way. */
static void a_restart_finds_prompts_on_disk(void **state)
{
	struct eng_stats st;
	struct world w;

	(void)state;
	for (int life = 0; life < 2; life++) {
		world_with(&w, 2, POOL, 60, true);
		for (uint32_t seed = 1; seed < 5; seed++) {
			uint32_t n = ask(&w, seed, LONG, 2);

			assert_int_equal(n, life ? LONG - FAKE_PAGE : 0);
		}
		st = stats_of(&w);
		assert_int_equal(st.disk_tokens, life ? 4 * (LONG - FAKE_PAGE) : 0);
		assert_int_equal(st.host_tokens, 0);
		if (life) /* again: now the host has them */
			assert_int_equal(ask(&w, 1, LONG, 2), LONG - FAKE_PAGE);
		assert_true(stats_of(&w).host_tokens > 0 || !life);
		world_done(&w);
	}
}

/* As the process before would have left it. */
static void leave_speed(uint64_t device, double step_ns, double read_ns)
{
	struct eng_pc_speed speed = { .device = device, .read_ns = read_ns };
	uint8_t file[ENG_PC_SPEED_BYTES];
	char path[512];
	FILE *f;

	for (int i = 0; i < ENG_PC_SPEED_STEPS; i++) {
		speed.steps[i].n = 16 << i;
		speed.steps[i].ns = step_ns;
	}
	assert_int_equal(eng_pc_speed_seal(&speed, file), 0);
	(void)snprintf(path, sizeof(path), "%s/%032d/speed", cache_dir, 0);
	f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(file, sizeof(file), 1, f), 1);
	assert_int_equal(fclose(f), 0);
}

/* The first prompt after a restart: cached tokens. */
static uint32_t ask_after_restart(uint32_t n_slots, uint64_t device, double step_ns, double read_ns,
                                  struct eng_stats *ret_stats)
{
	struct world w;
	uint32_t n;

	leave_speed(device, step_ns, read_ns);
	may_refuse = true;
	world_with(&w, 2, POOL, n_slots, true);
	may_refuse = false;
	n = ask(&w, 1, LONG, 1);
	*ret_stats = stats_of(&w);
	world_done(&w);
	return n;
}

/* What the process before kept of its speed is compared with what reading took, before anything was computed. */
static void what_was_kept_decides_at_the_first_prompt(void **state)
{
	struct eng_stats st;
	struct world w;

	(void)state;
	for (uint32_t n_slots = 0; n_slots <= 60; n_slots += 60) {
		world_with(&w, 2, POOL, n_slots, true);
		(void)ask(&w, 1, LONG, 1);
		world_done(&w);
		/* A quick device and a slow disk. */
		assert_int_equal(ask_after_restart(n_slots, 0, 1e4, 1e15, &st), 0);
		assert_int_equal(st.disk_tokens, 0);
		assert_int_equal(st.n_loads_refused, 1);
		assert_int_equal(st.disk_pages_read, 0);
		/* Another device was slow: nothing is known of this one. */
		assert_int_equal(ask_after_restart(n_slots, 5, 1e17, 1, &st), 0);
		assert_int_equal(st.disk_tokens, 0);
		assert_int_equal(st.disk_pages_read, 0);
		/* This one was. */
		assert_int_equal(ask_after_restart(n_slots, 0, 1e17, 1, &st), LONG - FAKE_PAGE);
		assert_int_equal(st.disk_tokens, LONG - FAKE_PAGE);
		assert_int_equal(st.n_loads_refused, 0);
	}
}

/* A host with fewer slots than a prompt has pages still passes them on. */
static void a_small_host_passes_pages_on(void **state)
{
	struct world w;

	(void)state;
	for (int life = 0; life < 3; life++) {
		world_with(&w, 2, POOL, 3, true);
		for (uint32_t seed = 1; seed < 4; seed++)
			(void)ask(&w, seed, LONG, 2);
		if (life)
			assert_true(stats_of(&w).disk_tokens > 0);
		world_done(&w);
	}
}

static void a_full_disk_costs_the_disk_alone(void **state)
{
	struct rlimit before, tiny = { 8, RLIM_INFINITY };
	struct eng_stats st;
	struct world w;

	(void)state;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	tiny.rlim_max = before.rlim_max;
	world_with(&w, 2, POOL, 60, true);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tiny), 0);
	for (int round = 0; round < 2; round++) {
		for (uint32_t seed = 1; seed < 4; seed++)
			(void)ask(&w, seed, LONG, 2);
	}
	for (int ms = 0; ms < 120000 && stats_of(&w).disk_write_errors == 0; ms++)
		(void)usleep(1000);
	st = stats_of(&w);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_true(st.disk_write_errors > 0 && st.host_tokens > 0);
	assert_int_equal(st.disk_pages_written, 0);
	world_done(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_given_up_comes_back_from_the_host),
		cmocka_unit_test(a_page_that_came_back_goes_for_nothing),
		cmocka_unit_test(pages_come_while_a_request_waits),
		cmocka_unit_test(who_runs_goes_before_who_waits),
		cmocka_unit_test(what_is_slower_than_computing_is_not_brought),
		cmocka_unit_test_setup_teardown(without_memory_everything_goes_on, make_cache_dir, remove_cache_dir),
		cmocka_unit_test(copies_that_fail_cost_the_copy_alone),
		cmocka_unit_test(damaged_pages_are_computed_again),
		cmocka_unit_test(who_leaves_while_pages_come_leaves_nothing),
		cmocka_unit_test(other_weights_have_no_use_for_any_page),
		cmocka_unit_test_setup_teardown(a_restart_finds_prompts_on_disk, make_cache_dir, remove_cache_dir),
		cmocka_unit_test_setup_teardown(what_was_kept_decides_at_the_first_prompt, make_cache_dir,
		                                remove_cache_dir),
		cmocka_unit_test_setup_teardown(a_small_host_passes_pages_on, make_cache_dir, remove_cache_dir),
		cmocka_unit_test_setup_teardown(a_full_disk_costs_the_disk_alone, make_cache_dir, remove_cache_dir),
	};
	int failed = 0;

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* one by name, with * and ? */
	fake_copies = true;
	failed = cmocka_run_group_tests_name("write-back", tests, NULL, NULL);
	fake_picks = fake_ahead = true;
	failed += cmocka_run_group_tests_name("write-back, ahead", tests, NULL, NULL);
	write_through = true;
	return failed + cmocka_run_group_tests_name("write-through, ahead", tests, NULL, NULL);
}
