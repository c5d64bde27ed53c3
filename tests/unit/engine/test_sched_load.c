/* Many threads, random requests, cancels, small memory, a disk that forgets: every request ends once with what it
 * alone would get, and at the end every page is accounted for. */
#include <pthread.h>

#include "sched_test.h"

enum { N_THREADS = 6, PER_THREAD = 300, TIER_PER_THREAD = 200, AT_ONCE = 9, POOL = 40 };

static struct world w;
static char cache_dir[64];
static uint32_t n_host_slots; /* of a tier in host memory; 0: none */

struct worker {
	pthread_t thread;
	unsigned seed;
	uint32_t n_cancelled, n_refused, n_whole, n_embedded;
};

struct job {
	struct client c;
	int32_t ids[CTX];
	uint32_t n_ids, max_new;
	bool is_embed, is_cancelled, is_open;
};

/* A few beginnings, so that much is shared, and some ends. */
static void random_prompt(struct job *j, unsigned *seed)
{
	uint32_t from = rand_r(seed) % 5, same = rand_r(seed) % 3 ? 24 : 0;

	j->n_ids = 1 + (uint32_t)rand_r(seed) % 48;
	if (rand_r(seed) % 5 == 0) { /* what others are answered comes back as a prompt */
		prompt_of(j->ids, 9, from);
		for (uint32_t i = 9; i < j->n_ids; i++) {
			int32_t all[CTX];

			for (uint32_t k = 0; k < i; k++)
				all[k] = fake_cell(&w.f, j->ids[k], k >= 9);
			j->ids[i] = fake_next(&w.f, all, i);
		}
		return;
	}
	prompt_of(j->ids, rand_r(seed) % 6 ? j->n_ids : (j->n_ids = 9), from);
	for (uint32_t i = same; i < j->n_ids; i++)
		j->ids[i] = rand_r(seed) % 250;
}

static void begin(struct worker *me, struct job *j)
{
	struct eng_request req;
	int r;

	random_prompt(j, &me->seed);
	j->max_new = 1 + (uint32_t)rand_r(&me->seed) % (CTX - j->n_ids);
	j->is_embed = rand_r(&me->seed) % 12 == 0;
	j->is_cancelled = false;
	client_init(&j->c);
	req = greedy(&j->c, j->ids, j->n_ids, j->max_new);
	req.kind = j->is_embed ? ENG_EMBED : ENG_GENERATE;
	req.client = (uint64_t)rand_r(&me->seed) % 4;
	req.logprobs = rand_r(&me->seed) % 4 == 0;
	req.processed_logprobs = rand_r(&me->seed) % 2;
	req.logprob_start = rand_r(&me->seed) % 6 ? -1 : rand_r(&me->seed) % 20;
	if (j->is_embed)
		req.logprob_start = -1;
	if (rand_r(&me->seed) % 8 == 0) { /* leaves in the middle of its answer */
		j->c.cancel_in = w.s;
		j->c.cancel_after = 1 + (size_t)rand_r(&me->seed) % 5;
		j->is_cancelled = true;
	}
	r = eng_sched_submit(w.s, &req, &j->c.id, NULL);
	assert_true(r == 0 || r == -EBUSY);
	j->is_open = r == 0;
	me->n_refused += r < 0;
	if (j->is_open && rand_r(&me->seed) % 8 == 0) { /* leaves anywhere */
		eng_sched_cancel(w.s, j->c.id);
		j->is_cancelled = true;
	}
}

static void end(struct worker *me, struct job *j)
{
	client_wait(&j->c);
	j->is_open = false;
	assert_int_equal(j->c.n_done, 1);
	assert_int_equal(j->c.n_late, 0);
	if (j->c.done.finish == ENG_FINISH_ABORT) {
		assert_true(j->is_cancelled);
		me->n_cancelled++;
	} else if (j->is_embed) {
		assert_int_equal(j->c.n_embedding, FAKE_EMBD);
		me->n_embedded++;
	} else {
		assert_int_equal(j->c.done.finish, ENG_FINISH_LENGTH);
		expect_continuation(&w, j->ids, j->n_ids, &j->c, j->max_new);
		me->n_whole++;
	}
}

static void *work(void *arg)
{
	struct worker *me = arg;
	struct job *jobs = calloc(AT_ONCE, sizeof(*jobs));

	assert_non_null(jobs);
	for (int i = 0, n = n_host_slots ? TIER_PER_THREAD : PER_THREAD; i < n; i++) {
		struct job *j = &jobs[(uint32_t)rand_r(&me->seed) % AT_ONCE];

		if (j->is_open)
			end(me, j);
		begin(me, j);
		if (rand_r(&me->seed) % 50 == 0)
			(void)eng_sched_flush(w.s);
		if (rand_r(&me->seed) % 10 == 0) {
			struct eng_stats st;

			eng_sched_stats(w.s, &st);
			assert_true(st.kv_pages_used + st.kv_pages_cached <= st.kv_pages_total);
			assert_true(st.host_pages_used + st.host_pages_cached <= st.host_pages_total);
			(void)eng_sched_retry_s(w.s);
		}
	}
	for (int i = 0; i < AT_ONCE; i++) {
		if (jobs[i].is_open)
			end(me, &jobs[i]);
	}
	free(jobs);
	return NULL;
}

/* n_states: of a recurrent model, which has no use for the disk. */
static void random_load(unsigned seed, bool deterministic, uint32_t n_states)
{
	struct eng_sched_config config = { .max_running = 8, .max_queued = 24, .deterministic = deterministic };
	/* A disk cache of 60 pages, with files removed by evictions all the time. */
	struct eng_pc_config cache = { .dir = cache_dir,
		                       .page_tokens = FAKE_PAGE,
		                       .page_bytes = FAKE_PAGE * sizeof(int32_t) };
	struct worker workers[N_THREADS];
	uint32_t n_whole = 0, n_cancelled = 0, n_refused = 0;
	struct eng_stats st;
	struct err err = { 0 };

	print_message("random load, seed %u%s, %u states\n", seed, deterministic ? ", deterministic" : "", n_states);
	cache.budget_bytes = 60 * (eng_pc_header_bytes(FAKE_PAGE) + cache.page_bytes);
	if (n_states == 0 && eng_pc_open(&cache, &config.cache, &err) < 0)
		fail_msg("%s", err_text(&err));
	config.host_bytes = n_host_slots * cache.page_bytes;
	config.write_through = n_host_slots && seed % 2;
	config.always_load = n_host_slots > 0;
	world_init_states(&w, config, POOL, n_states, 3, seed % 2);
	atomic_store(&w.f.delay_us, 100);
	atomic_store(&w.f.fail_every, n_host_slots ? 50 : 0);
	atomic_store(&w.g.delay_us, 100);
	atomic_store(&w.g.fail_every, 60);
	for (unsigned i = 0; i < N_THREADS; i++) {
		workers[i] = (struct worker){ .seed = seed * 100 + i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < N_THREADS; i++) {
		(void)pthread_join(workers[i].thread, NULL);
		n_whole += workers[i].n_whole;
		n_cancelled += workers[i].n_cancelled;
		n_refused += workers[i].n_refused;
	}
	eng_sched_stats(w.s, &st);
	print_message("%u whole, %u cancelled, %u refused; %llu set back, %llu tokens cached, %llu of them from disk\n",
	              n_whole, n_cancelled, n_refused, (unsigned long long)st.n_preempted,
	              (unsigned long long)st.cached_tokens, (unsigned long long)st.disk_tokens);
	assert_true(n_whole > 0 && n_cancelled > 0 && st.n_preempted > 0 && st.cached_tokens > 0);
	assert_int_equal(st.disk_pages_damaged, 0);
	if (n_host_slots) {
		print_message("%llu tokens from the host; %llu pages given up there, %llu lost; %llu loads refused\n",
		              (unsigned long long)st.host_tokens, (unsigned long long)st.host_pages_given_up,
		              (unsigned long long)st.host_pages_lost, (unsigned long long)st.n_loads_refused);
		assert_int_equal(st.host_pages_total, n_host_slots);
		assert_int_equal(st.host_pages_damaged, 0);
		assert_true(st.host_tokens > 0 && st.host_pages_given_up > 0 && st.host_bytes_in > 0);
	}
	if (world_answer_pages) {
		print_message("%llu handed over, %llu bytes\n", (unsigned long long)st.n_handed,
		              (unsigned long long)st.handed_bytes);
		assert_int_equal(st.kv_pages_total, POOL + world_answer_pages);
		assert_true(st.n_handed > n_whole / 2 && st.handed_bytes > 0);
	}
	world_done(&w); /* checks the pools, and the host's */
}

/* Pages go to a host with fewer slots than the pool has pages, and to the disk and back, some copies failing. */
static void nothing_is_lost_between_the_tiers(void **state)
{
	char cmd[128];

	(void)state;
	(void)snprintf(cache_dir, sizeof(cache_dir), "/tmp/ocai-sched-load-XXXXXX");
	assert_non_null(mkdtemp(cache_dir));
	for (unsigned seed = 1; seed <= 2; seed++) {
		n_host_slots = seed == 1 ? 30 : 12;
		random_load(seed + 10, seed == 2, 0);
	}
	n_host_slots = 0;
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", cache_dir);
	assert_int_equal(system(cmd), 0);
}

/* With a backend that tells prompts from answers: prompts that answers were given to come back as longer prompts, and
 * requests are set back in the middle of their answers. */
static void answers_stay_answers_under_random_load(void **state)
{
	char cmd[128];

	(void)state;
	(void)snprintf(cache_dir, sizeof(cache_dir), "/tmp/ocai-sched-load-XXXXXX");
	assert_non_null(mkdtemp(cache_dir));
	random_load(3, true, 0);
	random_load(5, true, 20);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", cache_dir);
	assert_int_equal(system(cmd), 0);
}

static void nothing_is_lost_under_random_load(void **state)
{
	char cmd[128];

	(void)state;
	(void)snprintf(cache_dir, sizeof(cache_dir), "/tmp/ocai-sched-load-XXXXXX");
	assert_non_null(mkdtemp(cache_dir));
	for (unsigned seed = 1; seed <= 2; seed++)
		random_load(seed, false, 0);
	random_load(3, false, 20);
	random_load(4, false, 5); /* fewer than could run */
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", cache_dir);
	assert_int_equal(system(cmd), 0);
}

/* Two backends: pools of different sizes, and some copies between them fail; with a tier behind the first one, too. */
static void nothing_is_lost_between_prompts_and_answers(void **state)
{
	static const uint32_t pages[] = { 40, 22, 70 };
	char cmd[128];

	(void)state;
	(void)snprintf(cache_dir, sizeof(cache_dir), "/tmp/ocai-sched-load-XXXXXX");
	assert_non_null(mkdtemp(cache_dir));
	for (unsigned seed = 0; seed < 3; seed++) {
		world_answer_pages = pages[seed];
		n_host_slots = seed == 2 ? 30 : 0;
		random_load(seed + 20, seed == 1, 0);
	}
	world_answer_pages = n_host_slots = 0;
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", cache_dir);
	assert_int_equal(system(cmd), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_under_random_load),
		cmocka_unit_test(answers_stay_answers_under_random_load),
		cmocka_unit_test(nothing_is_lost_between_the_tiers),
		cmocka_unit_test(nothing_is_lost_between_prompts_and_answers),
	};
	int failed;

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* one by name, with * and ? */
	fake_copies = true;                      /* where a tier is asked for */
	failed = cmocka_run_group_tests_name("rows", tests, NULL, NULL);

	fake_picks = true;
	failed += cmocka_run_group_tests_name("picked", tests, NULL, NULL);
	fake_ahead = true;
	return failed + cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
