/* The order of what several devices do, shaken: each rank is late where it likes, cannot capture a graph when another
 * one can, and some messages go by the library; steps of 1 to 64 sequences and of prompts, one ahead of the host. What
 * comes out is what comes out without all that, bit by bit, and nobody waits for ever; those who do are told of. */
#include <errno.h>
#include <libgen.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "../gpu/gpu_models.h"
#include "gpu/backend.h"
#include "gpu/comm_internal.h"
#include "sampler/sampler.h"

enum { MOST_SEQS = 64, ROUNDS = 26, AHEAD = 3, LONGEST = 96, PAGES_EACH = LONGEST / GPU_PAGE, STEP_TOKENS = 160 };

extern bool gpu_rt_host_streams;
extern void (*gpu_rt_host_delay)(void);
extern _Thread_local bool plain_launches_sum; /* comm_plain.c */
struct gpu_rt_host_graphs {
	int (*begin)(struct gpu_rt *rt);
	int (*end)(struct gpu_rt *rt);
	int (*launch)(struct gpu_rt *rt);
};
extern const struct gpu_rt_host_graphs *gpu_rt_host_graphs;

/* ---- What a rank does of its own accord ---- */

static _Thread_local uint32_t coin;
static atomic_uint n_coins, n_replayed, n_failed;

static uint32_t toss(void)
{
	if (coin == 0)
		coin = 1 + 7919 * atomic_fetch_add(&n_coins, 1);
	coin = coin * 1664525u + 1013904223u;
	return coin >> 12;
}

static void be_late(void)
{
	uint32_t n = toss();

	if (n % 32 == 0)
		(void)usleep(n / 32 % 400);
	else if (n % 3 == 0)
		(void)sched_yield();
}

static struct gpu_backend *backend_of(struct gpu_rt *rt)
{
	return (struct gpu_backend *)((char *)rt - offsetof(struct gpu_backend, rt));
}

static _Thread_local char *real_step;

/* Under capture numbers of rows are zero, so that nothing happens. */
static int begin_capture(struct gpu_rt *rt)
{
	struct gpu_backend *be = backend_of(rt);
	char *zeros;

	if (toss() % 4 == 0) {
		atomic_fetch_add(&n_failed, 1);
		return -EIO;
	}
	zeros = calloc(1, be->step.cap);
	assert_non_null(zeros);
	real_step = be->step.device;
	be->step.device = zeros;
	return 0;
}

static int end_capture(struct gpu_rt *rt)
{
	struct gpu_backend *be = backend_of(rt);

	free(be->step.device);
	be->step.device = real_step;
	if (toss() % 4)
		return 0;
	atomic_fetch_add(&n_failed, 1);
	return -EIO;
}

static int launch_graph(struct gpu_rt *rt)
{
	struct gpu_backend *be = backend_of(rt);

	atomic_fetch_add(&n_replayed, 1);
	return gpu_issue(be, be->last_program);
}

static const struct gpu_rt_host_graphs graphs = { begin_capture, end_capture, launch_graph };

/* ---- A crowd ---- */

struct crowd {
	int32_t ids[MOST_SEQS][LONGEST];
	uint32_t pages[MOST_SEQS][PAGES_EACH], n[MOST_SEQS];
	struct kn_pick picks[LONGEST];
	uint32_t seed;
};

static uint32_t draw(struct crowd *c, uint32_t below)
{
	c->seed = c->seed * 1664525u + 1013904223u;
	return (c->seed >> 8) % below;
}

static void take_drawn(struct eng_runner *r, struct crowd *c, uint32_t n_seqs, uint32_t first)
{
	for (uint32_t i = 0; i < n_seqs; i++) {
		struct eng_row row;

		eng_runner_row(r, i, &row);
		assert_non_null(row.picked);
		c->ids[first + i][c->n[first + i]++] = row.picked->drawn;
	}
}

/* A few steps of answers, each begun before the one before it was waited for. */
static void answer(struct eng_runner *r, struct crowd *c, uint32_t n_seqs, uint32_t first)
{
	struct eng_step_seq seqs[MOST_SEQS];
	const float *rows;

	for (uint32_t k = 0; k <= AHEAD; k++) {
		for (uint32_t i = 0; i < n_seqs && k < AHEAD; i++) {
			uint32_t s = first + i, at = c->n[s] - 1 + (k > 0);

			seqs[i] = (struct eng_step_seq){ .pages = c->pages[s],
				                         .ids = &c->ids[s][at],
				                         .n_ids = 1,
				                         .from_row = k ? i + 1 : 0,
				                         .pos = at,
				                         .n_out = 1,
				                         .picks = c->picks,
				                         .is_answer = true };
		}
		if (k < AHEAD)
			assert_int_equal(eng_runner_begin(r, seqs, n_seqs, NULL), 0);
		if (k == 0)
			continue;
		assert_int_equal(eng_runner_wait(r, &rows, NULL), 0);
		take_drawn(r, c, n_seqs, first);
	}
}

/* Some begin anew: their prompts in one step. */
static void prompts(struct eng_runner *r, struct crowd *c, uint32_t n_seqs, uint32_t first)
{
	uint32_t room = STEP_TOKENS, n = 0;
	struct eng_step_seq seqs[MOST_SEQS];
	const float *rows;

	for (; n < n_seqs; n++) {
		uint32_t s = first + n, len = 1 + draw(c, 40);

		if (len > room)
			break;
		room -= len;
		c->n[s] = len;
		for (uint32_t i = 0; i < len; i++)
			c->ids[s][i] = (int32_t)draw(c, 250);
		seqs[n] = (struct eng_step_seq){
			.pages = c->pages[s], .ids = c->ids[s], .n_ids = len, .n_out = 1, .picks = c->picks
		};
	}
	assert_int_equal(eng_runner_step(r, seqs, n, &rows, NULL), 0);
	take_drawn(r, c, n, first);
}

static void run_crowd(const char *model, uint32_t n_devices, bool exact, bool is_shaken, struct crowd *c)
{
	static const uint32_t devices[] = { 0, 1, 2, 3 };
	static const uint32_t sizes[] = { 1, 2, 3, 5, 8, 17, 32, 33, 48, 64 };
	const struct kn_config config = {
		.max_tokens = STEP_TOKENS, .exact = exact, .devices = devices, .n_devices = n_devices
	};
	/* Of the fixtures' widths: up to 16 rows are kept as graphs, the others have some sums in the library. */
	const struct gpu_open how = { .on_failure = tell_failure,
		                      .one_shot_bytes = is_shaken ? 2048 : 0,
		                      .captured_bytes = is_shaken ? 16 * 64 * 4 : 0 };
	const struct eng_runner_config rc = { .n_pages = MOST_SEQS * PAGES_EACH,
		                              .page_tokens = GPU_PAGE,
		                              .max_tokens = STEP_TOKENS,
		                              .max_outputs = MOST_SEQS,
		                              .kv_dtype = exact ? KN_F32 : KN_BF16 };
	const struct gpu_case g = { .model = model, .exact = exact };
	struct kn_backend *be = NULL;
	struct eng_model *m;
	struct eng_runner *r;
	struct err err = { 0 };

	gpu_rt_host_streams = is_shaken; /* the library takes them for devices */
	gpu_rt_host_delay = is_shaken ? be_late : NULL;
	gpu_rt_host_graphs = is_shaken ? &graphs : NULL;
	if (gpu_backend_open("gpu-test", &config, &how, &be, &err) < 0)
		fail_msg("%s", err_text(&err));
	m = open_gpu_model(&g, be);
	assert_int_equal(eng_runner_new(m, &rc, &r, NULL), 0);
	memset(c, 0, sizeof(*c));
	for (uint32_t i = 0; i < MOST_SEQS * PAGES_EACH; i++)
		c->pages[i / PAGES_EACH][i % PAGES_EACH] = (i * 5) % (MOST_SEQS * PAGES_EACH);
	for (uint32_t i = 0; i < MOST_SEQS; i++) {
		c->picks[i] = (struct kn_pick){ .top_p = 1 };
		c->ids[i][c->n[i]++] = (int32_t)(i * 3);
	}
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t n = sizes[draw(c, sizeof(sizes) / sizeof(sizes[0]))], first = draw(c, MOST_SEQS - n + 1);
		bool is_full = false;

		for (uint32_t i = first; i < first + n; i++)
			is_full |= c->n[i] + AHEAD >= LONGEST;
		if (is_full || draw(c, 4) == 0)
			prompts(r, c, n, first);
		else
			answer(r, c, n, first);
	}
	eng_runner_free(r);
	eng_model_close(m);
	kn_backend_close(be);
	gpu_rt_host_streams = false;
	gpu_rt_host_delay = NULL;
	gpu_rt_host_graphs = NULL;
}

struct order_case {
	const char *model;
	uint32_t n_devices;
	bool exact;
};

static void lateness_changes_nothing(void **state)
{
	const struct order_case *o = *state;
	static struct crowd want, got;

	atomic_store(&n_replayed, 0);
	atomic_store(&n_failed, 0);
	run_crowd(o->model, o->n_devices, o->exact, false, &want);
	run_crowd(o->model, o->n_devices, o->exact, true, &got);
	assert_memory_equal(want.n, got.n, sizeof(want.n));
	assert_memory_equal(want.ids, got.ids, sizeof(want.ids));
	print_message("%u programs replayed, %u captures failed\n", atomic_load(&n_replayed), atomic_load(&n_failed));
	assert_true(atomic_load(&n_replayed) > 0 && atomic_load(&n_failed) > 0);
}

/* ---- Who waits in vain ---- */

static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;
static char notes[8192];

static void keep_note(const char *backend, const char *text)
{
	(void)backend;
	(void)pthread_mutex_lock(&notes_lock);
	(void)snprintf(notes + strlen(notes), sizeof(notes) - strlen(notes), "%s\n", text);
	(void)pthread_mutex_unlock(&notes_lock);
}

static bool was_noted(const char *text)
{
	bool found;

	(void)pthread_mutex_lock(&notes_lock);
	found = strstr(notes, text) != NULL;
	(void)pthread_mutex_unlock(&notes_lock);
	return found;
}

static void show_notes(void)
{
	(void)pthread_mutex_lock(&notes_lock);
	print_message("%s", notes);
	(void)pthread_mutex_unlock(&notes_lock);
}

static struct kn_backend *open_watched(uint32_t ms)
{
	static const uint32_t devices[] = { 0, 1 };
	const struct kn_config config = { .max_tokens = 8, .exact = true, .devices = devices, .n_devices = 2 };
	const struct gpu_open how = { .on_failure = tell_failure, .on_note = keep_note, .watch_ms = ms };
	struct kn_backend *be = NULL;

	notes[0] = '\0';
	assert_int_equal(gpu_backend_open("gpu-test", &config, &how, &be, NULL), 0);
	return be;
}

struct sums {
	struct kn_backend *be;
	uint32_t n_sums, dim;
	uint32_t forgets_at; /* before the n-th, from 1 on, the rank forgets its programs; 0: never */
	float last;
	int result;
};

/* Each a step of its own. */
static void *do_sums(void *arg)
{
	struct sums *s = arg;
	const struct kn_ops *ops = s->be->ops;
	float *x = ops->alloc(s->be, 4 * s->dim * sizeof(float)), ones[64];

	assert_true(s->dim <= 16);
	for (size_t i = 0; i < 64; i++)
		ones[i] = 1;
	ops->upload(s->be, x, ones, 4 * s->dim * sizeof(float));
	for (uint32_t i = 0; i < s->n_sums && s->result == 0; i++) {
		if (i + 1 == s->forgets_at)
			ops->free(s->be, ops->alloc(s->be, 64));
		ops->all_reduce(s->be, x, s->dim, 4, s->dim);
		s->result = ops->sync(s->be);
	}
	if (s->result == 0)
		ops->download(s->be, &s->last, x, sizeof(s->last));
	ops->free(s->be, x);
	return NULL;
}

static void run_sums(struct sums *a, struct sums *b)
{
	pthread_t threads[2];

	assert_int_equal(pthread_create(&threads[0], NULL, do_sums, a), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, do_sums, b), 0);
	(void)pthread_join(threads[0], NULL);
	(void)pthread_join(threads[1], NULL);
}

static void *let_go(void *arg)
{
	struct kn_backend *be = arg;
	float nowhere[4];

	while (!was_noted("rank 1"))
		(void)usleep(1000);
	be->ops->clear(be, nowhere, 4, 1, 4); /* a failure of the other rank's */
	return NULL;
}

static void who_waits_alone_is_told_of(void **state)
{
	struct kn_backend *be = open_watched(20);
	struct sums a = { .be = be->ranks[0], .n_sums = 1, .dim = 16 };
	pthread_t other;

	(void)state;
	assert_int_equal(pthread_create(&other, NULL, let_go, be->ranks[1]), 0);
	(void)do_sums(&a);
	(void)pthread_join(other, NULL);
	assert_true(a.result < 0);
	show_notes();
	assert_true(was_noted("rank 0 (device 0) is there before the others for"));
	assert_true(was_noted("rank 1 (device 1) does nothing"));
	assert_true(was_noted("it has ended sum 0, all that were launched; has heard of 0 0"));
	kn_backend_close(be);
}

/* One launches its sum late: the others wait for it on their devices. */
static _Thread_local bool holds_sums;

static void hold_sums(void)
{
	while (holds_sums && plain_launches_sum && !was_noted("rank 1"))
		(void)usleep(500);
}

static void *do_sums_late(void *arg)
{
	holds_sums = true;
	return do_sums(arg);
}

static void a_sum_that_somebody_is_late_for_is_named(void **state)
{
	struct kn_backend *be = open_watched(20);
	struct sums a = { .be = be->ranks[0], .n_sums = 1, .dim = 16 },
	            b = { .be = be->ranks[1], .n_sums = 1, .dim = 16 };
	pthread_t other;

	(void)state;
	gpu_rt_host_delay = hold_sums;
	assert_int_equal(pthread_create(&other, NULL, do_sums_late, &b), 0);
	(void)do_sums(&a); /* by then it may have been given up */
	(void)pthread_join(other, NULL);
	gpu_rt_host_delay = NULL;
	show_notes();
	if (!was_noted("is there before the others")) /* the thread of the other came late, too */
		assert_true(
		        was_noted("it has ended sum 0, next is message 1 of 1, a sum of 4 x 16 float32, of program 1 "
		                  "(launched one by one); has heard of 0 1") ||
		        was_noted("it has ended sum 0, next is message 1 of 1, a sum of 4 x 16 float32, of program 1 "
		                  "(launched one by one); has heard of 1 0"));
	kn_backend_close(be);
}

/* A device that never ends what it was given, as one does whose counterpart launched something else. */
static atomic_bool is_held;

static void hold_still(void)
{
	while (atomic_load(&is_held))
		(void)usleep(500);
}

static void *await_break(void *arg)
{
	(void)arg;
	while (!was_noted("wait for each other in vain"))
		(void)usleep(1000);
	atomic_store(&is_held, false);
	return NULL;
}

static void devices_that_wait_for_ever_are_given_up(void **state)
{
	struct kn_backend *be = open_watched(20);
	struct sums a = { .be = be->ranks[0], .n_sums = 1, .dim = 16 },
	            b = { .be = be->ranks[1], .n_sums = 1, .dim = 16 };
	pthread_t other;

	(void)state;
	atomic_store(&is_held, true);
	gpu_rt_host_delay = hold_still;
	assert_int_equal(pthread_create(&other, NULL, await_break, NULL), 0);
	(void)be->ops->sync(be); /* comes back when the watch has given up */
	(void)pthread_join(other, NULL);
	gpu_rt_host_delay = NULL;
	show_notes();
	assert_true(was_noted("rank 0 (device 0) waits for its device for"));
	run_sums(&a, &b);
	assert_true(a.result < 0 && b.result < 0);
	kn_backend_close(be);
}

/* Ranks that come with sums of different sizes: an error, before anything is launched. */
static void different_sums_are_refused(void **state)
{
	struct kn_backend *be = open_watched(0);
	struct sums a = { .be = be->ranks[0], .n_sums = 1, .dim = 16 },
	            b = { .be = be->ranks[1], .n_sums = 1, .dim = 8 };

	(void)state;
	run_sums(&a, &b);
	assert_true(a.result < 0 && b.result < 0);
	kn_backend_close(be);
}

/* Ranks go step by step where one of them alone has a program for the first time, and all know that. */
static void who_begins_anew_takes_the_others_along(void **state)
{
	struct kn_backend *be = open_watched(0);
	struct sums a = { .be = be->ranks[0], .n_sums = 6, .dim = 16, .forgets_at = 4 };
	struct sums b = { .be = be->ranks[1], .n_sums = 6, .dim = 16 };
	const struct gpu_comm *comm = gpu_of(be)->comm;

	(void)state;
	run_sums(&a, &b);
	assert_true(a.result == 0 && b.result == 0);
	assert_true(a.last == 64 && b.last == 64);
	for (int rank = 0; rank < 2; rank++) /* two more around the message, in the first and the fourth */
		assert_int_equal(comm->meets[rank], 6 + 2 * 2);
	kn_backend_close(be);
}

static void name_library(void)
{
	char exe[4096], path[4200];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	assert_true(n > 0);
	exe[n] = '\0';
	(void)snprintf(path, sizeof(path), "%s/../../nccl-plain", dirname(exe));
	assert_int_equal(setenv("OCAI_GPU_LIBS", path, 1), 0);
}

int main(int argc, char **argv)
{
	static const struct order_case cases[] = {
		{ "qwen3", 2, true },
		{ "qwen3", 4, false },
		{ "qwen3_moe", 2, false },
		{ "deepseek_v3", 4, true },
	};
	enum { N = sizeof(cases) / sizeof(cases[0]) };
	static char names[N][80];
	struct CMUnitTest tests[N + 5] = {
		cmocka_unit_test(who_waits_alone_is_told_of),
		cmocka_unit_test(a_sum_that_somebody_is_late_for_is_named),
		cmocka_unit_test(devices_that_wait_for_ever_are_given_up),
		cmocka_unit_test(different_sums_are_refused),
		cmocka_unit_test(who_begins_anew_takes_the_others_along),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	name_library();
	for (int i = 0; i < N; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%s%s on %u devices that are late", cases[i].model,
		               cases[i].exact ? " exact" : "", cases[i].n_devices);
		tests[5 + i] = (struct CMUnitTest){ .name = names[i],
			                            .test_func = lateness_changes_nothing,
			                            .initial_state = (void *)&cases[i] };
	}
	return _cmocka_run_group_tests("the order of devices", tests, N + 5, NULL, NULL);
}
