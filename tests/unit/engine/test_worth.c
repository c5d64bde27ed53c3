/* Loading pages is never slower than computing them, but for what finding that out takes: random devices, disks and
 * prompts over several lives of a process, in a time that is reckoned and not waited for. */
#include <math.h>
#include <string.h>

#include "sched/pace.h"
#include "sched/worth.h"
#include "test.h"

enum { PAGE = 32, MOST = 2048, N_PROMPTS = 12, LIVES = 4, REQUESTS = 60, WORLDS = 400 };

static uint64_t seed;

static double draw(double from, double to)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return from + (to - from) * (double)(seed >> 11) / (double)(1ull << 53);
}

static double draw_wide(double from, double to) /* as likely within each power of ten */
{
	return from * pow(to / from, draw(0, 1));
}

/* What a world does; the policy sees none of it. */
struct world {
	double step_ns, token_ns, depth_ns; /* a step takes the first or its tokens, and more with what is before it */
	double host_begin_ns, host_page_ns; /* loads from host memory */
	double disk_page_ns, slow_disk_ns; /* a page from disk; at the beginning of a life, as nothing is cached then */
};

/* What one life knows. */
struct life {
	struct eng_pace pace;
	struct worth worth;
	double read_ns;
};

static double step_time(const struct world *w, uint32_t n, uint32_t depth)
{
	double work = w->token_ns * n;

	return (work > w->step_ns ? work : w->step_ns) + w->depth_ns * n * depth;
}

/* Computes a prompt from `from` on; learns. */
static double compute(const struct world *w, struct life *l, uint32_t from, uint32_t n)
{
	double all = 0;

	for (uint32_t take; from < n; from += take) {
		double ns;

		take = n - from < MOST ? n - from : MOST;
		ns = step_time(w, take, from);
		if (l)
			eng_pace_learn(&l->pace, take, 0, (uint64_t)ns);
		all += ns;
	}
	return all;
}

/* From the disk, as the scheduler does it: a few pages, then more as long as that is quicker. */
static double load(const struct world *w, struct life *l, uint32_t n_pages, double read_ns, uint32_t *ret_n)
{
	uint32_t at = 0;
	double ns = 0;

	while (at < n_pages) {
		uint32_t left = n_pages - at, may;
		bool is_slow;

		may = sched_worth_goes_on(&l->worth, eng_pace_prompt_ns(&l->pace, (uint64_t)left * PAGE, MOST), left,
		                          left, l->read_ns, at, &is_slow);
		if (may == 0)
			break;
		may = may > 16 ? 16 : may;
		for (uint32_t i = 0; i < may; i++) {
			ns += read_ns;
			l->read_ns = l->read_ns > 0 ? l->read_ns + 0.3 * (read_ns - l->read_ns) : read_ns;
		}
		at += may;
	}
	*ret_n = at;
	return ns;
}

/* What is known when a process starts: what the one before kept. */
static void begin_life(struct life *l, const struct life *before)
{
	*l = (struct life){ 0 };
	sched_worth_init(&l->worth);
	if (before) {
		memcpy(l->pace.steps, before->pace.steps, sizeof(l->pace.steps));
		l->read_ns = before->read_ns;
	}
}

static void run_world(bool on_disk)
{
	const double token_ns = draw_wide(2e3, 1e7);
	const struct world w = { .step_ns = draw_wide(1e6, 1e8),
		                 .token_ns = token_ns,
		                 .depth_ns = token_ns / draw_wide(2e4, 1e6),
		                 .host_begin_ns = draw_wide(1e4, 1e8),
		                 .host_page_ns = draw_wide(1e4, 1e8),
		                 .disk_page_ns = draw_wide(1e5, 1e9),
		                 .slow_disk_ns = draw_wide(1e5, 1e9) };
	uint32_t lengths[N_PROMPTS];
	bool is_known[N_PROMPTS] = { false };
	double policy = 0, computing = 0, best = 0, longest = 0, slow = w.host_begin_ns + w.host_page_ns * 501;
	struct life l, before;

	for (int i = 0; i < N_PROMPTS; i++)
		lengths[i] = PAGE * (uint32_t)(1 + draw_wide(1, 500));
	for (int life = 0; life < LIVES; life++) {
		begin_life(&l, life ? &before : NULL);
		for (int k = 0; k < REQUESTS; k++) {
			int p = (int)draw(0, N_PROMPTS);
			uint32_t n = lengths[p], pages = n / PAGE, got = 0;
			double whole = compute(&w, NULL, 0, n), spent = 0, quickest = whole;
			double read = k < 5 ? w.slow_disk_ns : w.disk_page_ns;
			double known = eng_pace_prompt_ns(&l.pace, n, MOST);

			if (is_known[p] && on_disk) {
				/* Behind a process that knew nothing, pages say what they took. */
				if (sched_worth_begins(&l.worth, known, pages, pages, l.read_ns))
					spent = load(&w, &l, pages, read, &got);
				quickest = pages * read < whole ? pages * read : whole;
			} else if (is_known[p]) {
				double ns = w.host_begin_ns + w.host_page_ns * pages;

				if (sched_worth_begins(&l.worth, known, pages, 0, 0)) {
					spent = ns;
					got = pages;
					sched_worth_learn(&l.worth, pages, ns);
				}
				quickest = ns < whole ? ns : whole;
			}
			spent += compute(&w, &l, got * PAGE, n);
			is_known[p] = true;
			policy += spent;
			computing += whole;
			best += quickest;
			longest = whole > longest ? whole : longest;
		}
		before = l;
	}
	/* A twentieth is for trials, as much again for guesses that are near, and each life learns: what a load takes
	 * from the first one, what the disk takes from some pages. */
	if (on_disk)
		slow = 40 * (w.disk_page_ns > w.slow_disk_ns ? w.disk_page_ns : w.slow_disk_ns);
	if (policy > computing * 1.1 + LIVES * (slow + longest))
		fail_msg("%s: %.3g s, computing alone %.3g", on_disk ? "disk" : "host", policy * 1e-9,
		         computing * 1e-9);
	assert_true(policy >= best * 0.999);
}

static void loading_is_never_slower_than_computing(void **state)
{
	(void)state;
	seed = 20261123;
	for (int i = 0; i < WORLDS; i++)
		run_world(i % 2);
}

/* A device that computes a prompt of 8,192 in 0.37 s, a disk that takes 1.4 s, and a process that has just started:
 * what was kept is enough to refuse, whatever short prompts came since. */
static void a_slow_disk_is_refused_at_the_first_prompt(void **state)
{
	struct eng_pace kept = { 0 }, pace = { 0 };
	struct worth w;

	(void)state;
	for (int i = 0; i < 4; i++)
		eng_pace_learn(&kept, 2048, 0, 92500000);
	memcpy(pace.steps, kept.steps, sizeof(pace.steps));
	sched_worth_init(&w);
	assert_false(sched_worth_begins(&w, eng_pace_prompt_ns(&pace, 8192, 2048), 256, 256, 5.4e6));
	eng_pace_learn(&pace, 64, 0, 8000000);
	sched_worth_init(&w);
	assert_false(sched_worth_begins(&w, eng_pace_prompt_ns(&pace, 8192, 2048), 256, 256, 5.4e6));
	/* The host's memory is quick enough. */
	sched_worth_learn(&w, 256, 5e7);
	assert_true(sched_worth_begins(&w, eng_pace_prompt_ns(&pace, 8192, 2048), 256, 0, 0));
}

/* With nothing known, some pages are read, and what they tell decides. */
static void with_nothing_known_the_first_pages_tell(void **state)
{
	struct worth w;
	bool is_slow;

	(void)state;
	sched_worth_init(&w);
	assert_true(sched_worth_begins(&w, 0, 256, 256, 0));
	assert_int_equal(sched_worth_goes_on(&w, 0, 256, 256, 0, 0, &is_slow), WORTH_PROBES);
	assert_int_equal(sched_worth_goes_on(&w, 0, 254, 254, 0, WORTH_PROBES, &is_slow), 0);
	assert_false(is_slow);
	assert_int_equal(sched_worth_goes_on(&w, 254 * 1.4e6, 254, 254, 5.4e6, WORTH_PROBES, &is_slow), 0);
	assert_true(is_slow);
	assert_int_equal(sched_worth_goes_on(&w, 254 * 1.4e7, 254, 254, 5.4e6, WORTH_PROBES, &is_slow), 254);
	assert_false(is_slow);
}

/* What steps of one size took bounds what larger ones take from below, and smaller ones from above. */
static void sizes_that_were_not_seen_are_bounded(void **state)
{
	struct eng_pace p = { 0 };

	(void)state;
	assert_true(eng_pace_prompt_ns(&p, 8192, 2048) == 0);
	eng_pace_learn(&p, 64, 0, 8000000);
	assert_true(eng_pace_prompt_ns(&p, 64, 2048) == 8e6);
	assert_true(eng_pace_prompt_ns(&p, 2048, 2048) == 8e6);
	assert_true(eng_pace_prompt_ns(&p, 8192, 2048) == 32e6);
	assert_true(eng_pace_prompt_ns(&p, 16, 2048) == 2e6);
	eng_pace_learn(&p, 256, 0, 14000000); /* 31,250 each from there on */
	assert_true(eng_pace_prompt_ns(&p, 2048, 2048) == 14e6 + 1792 * 31250.0);
	eng_pace_learn(&p, 2048, 0, 90000000);
	assert_true(eng_pace_prompt_ns(&p, 8192, 2048) == 360e6);
	assert_true(eng_pace_prompt_ns(&p, 1024, 2048) == 45e6);
	/* The first one was long in coming. */
	for (int i = 0; i < 8; i++)
		eng_pace_learn(&p, 2048, 0, 45000000);
	assert_true(eng_pace_prompt_ns(&p, 2048, 2048) < 46e6);
	/* A single prompt token beside answers is no prompt's step. */
	eng_pace_learn(&p, 1, 30, 1000);
	assert_true(p.n_prompts == 11);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loading_is_never_slower_than_computing),
		cmocka_unit_test(a_slow_disk_is_refused_at_the_first_prompt),
		cmocka_unit_test(with_nothing_known_the_first_pages_tell),
		cmocka_unit_test(sizes_that_were_not_seen_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
