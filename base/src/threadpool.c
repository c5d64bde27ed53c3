/* The thread pool.
 *
 * One signed counter, `unclaimed`, hands out chunks: who subtracts one from a positive value owns that chunk. The
 * values of `loop` are read only after such a claim, and the caller does not return (so does not overwrite `loop`)
 * before every claimed chunk was reported in `unfinished`. From these two facts follows what a late worker may do:
 * one that wakes, or resumes between its look at the counter and its subtraction, after the loop ended gets a value
 * <= 0 and touches nothing else; and if the next loop has begun meanwhile its subtraction is an ordinary claim on
 * that one. A claim carries no memory of an earlier loop, so there is no ABA to guard against, and no generation.
 *
 * Which chunk a claim becomes is another matter: each worker has a run of neighbouring chunks and takes them from its
 * front; who has none left takes from the back of another's. Neighbouring chunks lie next to each other in memory, and
 * what prefetches one runs into the next: with four threads weights are read up to a quarter faster than when the
 * threads take turns. There are as many claims as chunks, so whoever holds one finds a chunk in one round.
 *
 * Sleeping: a worker that saw no work for a while sleeps on the futex `epoch`, which changes with every loop. The
 * pairs (epoch, n_sleepers) and (unfinished, caller_sleeps) are each written and read crosswise by two sides, both
 * sequentially consistent, so at least one side sees the other: no wake-up is lost. A wake-up too many costs a look
 * around.
 *
 * In a pool that yields (base_threadpool_yield), worker numbers from `n_active` on sleep on that word, whatever there
 * is to do; threadpool_load.c says how many are active. */
#include "base/clock.h"
#include "base/threadpool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "threadpool_load.h"

enum {
	CACHE_LINE = 64,
	MAX_THREADS = 4096,
	/* Longer than the serial stretch between two loops of a token, shorter than anyone notices on a power meter. */
	SPIN_NS = 50000,
	/* With more threads than cores, whoever spins keeps another one from working. */
	SPIN_CROWDED_NS = 2000,
	PAUSES_PER_CLOCK_LOOK = 32,
	WINDOW_NS = 15000000, /* of what base_load_add() is told */
	IDLE_NS = 3000000,    /* longer between loops: other work has begun */
};

struct loop {
	base_threadpool_fn fn;
	void *arg;
	size_t n_items;
	size_t grain;
	unsigned n_runs;
};

/* Of the chunks first..last-1 none is taken: `last` in the upper half, `first` in the lower one. */
struct run {
	_Alignas(CACHE_LINE) _Atomic uint64_t chunks;
};

struct worker {
	struct base_threadpool *pool;
	pthread_t thread;
	unsigned index;
};

struct base_threadpool {
	_Alignas(CACHE_LINE) _Atomic int64_t unclaimed;  /* below zero: that many came too late */
	_Alignas(CACHE_LINE) _Atomic int64_t unfinished; /* chunks not yet reported */
	_Atomic uint32_t caller_sleeps;                  /* futex: the caller waits for unfinished == 0 */
	_Alignas(CACHE_LINE) _Atomic uint32_t epoch;     /* futex: changes when a loop begins and at the end */
	_Atomic uint32_t n_sleepers;
	_Atomic bool stop;
	_Atomic uint32_t n_active;             /* futex: workers from this number on stay away */
	_Alignas(CACHE_LINE) struct loop loop; /* valid for whoever holds a claimed chunk */
	unsigned n_threads;                    /* with the caller; constant */
	unsigned n_started;
	int64_t spin_ns;
	struct worker *workers; /* n_threads - 1 */
	struct run *runs;       /* n_threads; of a loop its n_runs first */

	/* The caller's. */
	bool yields;
	struct pool_load load;
	struct window {
		int64_t begin_ns, end_ns; /* end: of the last loop */
		int64_t cpu_ns;           /* the caller's processor time at its begin */
		int64_t lost_ns, slept_ns;
		long n_switches, n_sleeps; /* all that the caller gave its core up for; those in here */
	} window;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	/* Any return (woken, changed already, a signal) makes the caller look again. */
	(void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void cpu_pause(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("isb" ::: "memory");
#else
	__asm__ volatile("" ::: "memory");
#endif
}

static bool is_active(struct base_threadpool *pool, unsigned worker)
{
	return worker < atomic_load_explicit(&pool->n_active, memory_order_relaxed);
}

static uint64_t run_of(uint64_t first, uint64_t last)
{
	return last << 32 | first;
}

/* A chunk for whoever holds a claim. */
static size_t take_chunk(struct base_threadpool *pool, unsigned worker)
{
	unsigned n = pool->loop.n_runs, own = worker % n;

	for (unsigned r = own;; r = r + 1 < n ? r + 1 : 0) {
		_Atomic uint64_t *chunks = &pool->runs[r].chunks;
		uint64_t old = atomic_load_explicit(chunks, memory_order_relaxed);

		for (;;) {
			uint64_t first = old & UINT32_MAX, last = old >> 32;
			uint64_t left = r == own ? run_of(first + 1, last) : run_of(first, last - 1);

			if (first >= last)
				break;
			if (atomic_compare_exchange_weak_explicit(chunks, &old, left, memory_order_relaxed,
			                                          memory_order_relaxed))
				return r == own ? first : last - 1;
		}
	}
}

/* Claims and runs chunks until none is left, then reports them all at once. Returns how many. */
static int64_t run_chunks(struct base_threadpool *pool, unsigned worker)
{
	int64_t n_done = 0;

	while (atomic_load_explicit(&pool->unclaimed, memory_order_relaxed) > 0 && is_active(pool, worker)) {
		int64_t left = atomic_fetch_sub_explicit(&pool->unclaimed, 1, memory_order_acquire);
		const struct loop *loop = &pool->loop;
		size_t begin, n;

		if (left <= 0)
			break;
		begin = take_chunk(pool, worker) * loop->grain;
		n = loop->n_items - begin;
		loop->fn(loop->arg, begin, begin + (n < loop->grain ? n : loop->grain), worker);
		n_done++;
	}
	if (n_done == 0)
		return 0;
	/* After this subtraction the loop may be over: only the pool itself may be touched. */
	if (atomic_fetch_sub(&pool->unfinished, n_done) == n_done && atomic_exchange(&pool->caller_sleeps, 0))
		futex_wake(&pool->caller_sleeps, 1);
	return n_done;
}

static bool has_work(struct base_threadpool *pool)
{
	return atomic_load_explicit(&pool->unclaimed, memory_order_relaxed) > 0;
}

/* Returns when there may be work for this worker, or at the end. */
static void wait_for_work(struct base_threadpool *pool, unsigned worker)
{
	int64_t deadline = base_now_ns() + pool->spin_ns;
	uint32_t epoch, n_active = atomic_load(&pool->n_active);

	if (worker >= n_active) {
		if (!atomic_load(&pool->stop))
			futex_wait(&pool->n_active, n_active);
		return;
	}
	do {
		for (int i = 0; i < PAUSES_PER_CLOCK_LOOK; i++) {
			if (has_work(pool) || atomic_load_explicit(&pool->stop, memory_order_relaxed))
				return;
			cpu_pause();
		}
	} while (base_now_ns() < deadline);

	epoch = atomic_load(&pool->epoch);
	/* A loop that began before the load above shows here; one that begins after it changes the epoch. */
	if (has_work(pool) || atomic_load(&pool->stop))
		return;
	atomic_fetch_add(&pool->n_sleepers, 1);
	futex_wait(&pool->epoch, epoch);
	atomic_fetch_sub(&pool->n_sleepers, 1);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct base_threadpool *pool = w->pool;

	while (!atomic_load(&pool->stop)) {
		(void)run_chunks(pool, w->index);
		wait_for_work(pool, w->index);
	}
	return NULL;
}

static int start_workers(struct base_threadpool *pool, struct err *err)
{
	sigset_t all, old;
	int r = 0;

	/* Signals belong to the program's own threads. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (r == 0 && pool->n_started + 1 < pool->n_threads) {
		struct worker *w = &pool->workers[pool->n_started];

		*w = (struct worker){ .pool = pool, .index = pool->n_started + 1 };
		r = pthread_create(&w->thread, NULL, worker_main, w);
		if (r == 0) {
			(void)pthread_setname_np(w->thread, "pool");
			pool->n_started++;
		}
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0)
		return err_set(err, -r, "cannot start thread %u of %u: %s", pool->n_started + 2, pool->n_threads,
		               strerror(r));
	return 0;
}

int base_threadpool_new(unsigned n_threads, struct base_threadpool **ret_pool, struct err *err)
{
	unsigned cpus = base_cpu_count();
	struct base_threadpool *pool;
	int r;

	if (n_threads == 0)
		n_threads = cpus < MAX_THREADS ? cpus : MAX_THREADS;
	if (n_threads > MAX_THREADS)
		return err_set(err, -EINVAL, "%u threads: more than %d", n_threads, MAX_THREADS);
	pool = aligned_alloc(CACHE_LINE, sizeof(*pool)); /* a multiple of the line by its members' alignment */
	if (!pool)
		return err_set(err, -ENOMEM, "thread pool: out of memory");
	memset(pool, 0, sizeof(*pool));
	pool->n_threads = n_threads;
	atomic_init(&pool->n_active, n_threads);
	base_load_init(&pool->load, n_threads);
	pool->spin_ns = n_threads <= cpus ? SPIN_NS : SPIN_CROWDED_NS;
	pool->workers = calloc(n_threads, sizeof(*pool->workers));
	pool->runs = aligned_alloc(CACHE_LINE, n_threads * sizeof(*pool->runs));
	r = pool->workers && pool->runs ? start_workers(pool, err)
	                                : err_set(err, -ENOMEM, "thread pool: out of memory");
	if (r < 0) {
		base_threadpool_free(pool);
		return r;
	}
	*ret_pool = pool;
	return 0;
}

static void set_active(struct base_threadpool *pool, unsigned n)
{
	atomic_store(&pool->n_active, n);
	futex_wake(&pool->n_active, INT_MAX);
}

void base_threadpool_free(struct base_threadpool *pool)
{
	if (!pool)
		return;
	atomic_store(&pool->stop, true);
	atomic_fetch_add(&pool->epoch, 1);
	futex_wake(&pool->epoch, INT_MAX);
	set_active(pool, pool->n_threads + 1); /* another value than those who stay away wait for */
	for (unsigned i = 0; i < pool->n_started; i++)
		(void)pthread_join(pool->workers[i].thread, NULL);
	free(pool->workers);
	free(pool->runs);
	free(pool);
}

unsigned base_threadpool_size(const struct base_threadpool *pool)
{
	return pool->n_threads;
}

static void wait_until_finished(struct base_threadpool *pool)
{
	int64_t deadline, asleep;

	if (atomic_load_explicit(&pool->unfinished, memory_order_acquire) == 0)
		return;
	deadline = base_now_ns() + pool->spin_ns;
	do {
		for (int i = 0; i < PAUSES_PER_CLOCK_LOOK; i++) {
			cpu_pause();
			if (atomic_load_explicit(&pool->unfinished, memory_order_acquire) == 0)
				return;
		}
	} while (base_now_ns() < deadline);
	/* Whoever finishes last takes the flag down and wakes us; so may a worker that finished the loop before this
	 * one and was held up, hence the second look and the loop. */
	asleep = base_now_ns();
	for (;; pool->window.n_sleeps++) {
		atomic_store(&pool->caller_sleeps, 1);
		if (atomic_load(&pool->unfinished) == 0)
			break;
		futex_wait(&pool->caller_sleeps, 1);
	}
	atomic_store(&pool->caller_sleeps, 0);
	pool->window.slept_ns += base_now_ns() - asleep;
}

/* ---- Yielding cores ---- */

void base_threadpool_yield(struct base_threadpool *pool)
{
	pool->yields = pool->n_threads > 2;
}

unsigned base_threadpool_active(const struct base_threadpool *pool)
{
	return atomic_load(&pool->n_active);
}

static void begin_window(struct base_threadpool *pool, int64_t now)
{
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage) < 0)
		usage.ru_nvcsw = 0;
	pool->window = (struct window){ .begin_ns = now,
		                        .end_ns = now,
		                        .cpu_ns = base_clock_ns(CLOCK_THREAD_CPUTIME_ID),
		                        .n_switches = usage.ru_nvcsw };
}

/* What the caller's own core was taken from it: time that it neither ran nor slept. 0 when it also waited for something
 * outside the pool. */
static int64_t callers_loss(const struct window *w, int64_t now)
{
	int64_t lost = now - w->begin_ns - (base_clock_ns(CLOCK_THREAD_CPUTIME_ID) - w->cpu_ns) - w->slept_ns;
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage) < 0 || usage.ru_nvcsw - w->n_switches > w->n_sleeps)
		return 0;
	return lost > 0 ? lost : 0;
}

/* A loop ended now, after the caller had waited wait_ns for the others; its own chunks took chunk_ns each. */
static void learn(struct base_threadpool *pool, int64_t now, int64_t wait_ns, int64_t chunk_ns)
{
	struct window *w = &pool->window;

	w->end_ns = now;
	w->lost_ns += base_load_lost(wait_ns, chunk_ns);
	if (now - w->begin_ns < WINDOW_NS)
		return;
	base_load_add(&pool->load, now - w->begin_ns, w->lost_ns + callers_loss(w, now));
	begin_window(pool, now);
	if (pool->load.n_active != base_threadpool_active(pool))
		set_active(pool, pool->load.n_active);
}

void base_threadpool_for(struct base_threadpool *pool, size_t n_items, size_t grain, base_threadpool_fn fn, void *arg)
{
	size_t n_chunks, n_runs;
	uint32_t n_sleepers;
	int64_t begin = 0, own_end, end, n_own;

	if (n_items == 0)
		return;
	if (grain == 0)
		grain = 1;
	if (n_items / grain >= UINT32_MAX)
		grain = n_items / (UINT32_MAX / 2);
	n_chunks = n_items / grain + (n_items % grain != 0);
	if (n_chunks == 1 || pool->n_threads == 1) {
		for (size_t begin = 0; begin < n_items; begin += n_items - begin < grain ? n_items - begin : grain)
			fn(arg, begin, n_items - begin < grain ? n_items : begin + grain, 0);
		return;
	}
	if (pool->yields) {
		begin = base_now_ns();
		if (begin - pool->window.end_ns > IDLE_NS)
			begin_window(pool, begin);
	}
	n_runs = base_threadpool_active(pool);
	pool->loop = (struct loop){ fn, arg, n_items, grain, (unsigned)n_runs };
	for (size_t r = 0; r < n_runs; r++)
		atomic_store_explicit(&pool->runs[r].chunks, run_of(n_chunks * r / n_runs, n_chunks * (r + 1) / n_runs),
		                      memory_order_relaxed);
	atomic_store_explicit(&pool->unfinished, (int64_t)n_chunks, memory_order_relaxed);
	atomic_store_explicit(&pool->unclaimed, (int64_t)n_chunks, memory_order_release);
	atomic_fetch_add(&pool->epoch, 1);
	n_sleepers = atomic_load(&pool->n_sleepers);
	if (n_sleepers) /* no more than there are chunks beside the caller's own */
		futex_wake(&pool->epoch, n_chunks - 1 < n_sleepers ? (int)(n_chunks - 1) : (int)n_sleepers);
	n_own = run_chunks(pool, 0);
	if (!pool->yields) {
		wait_until_finished(pool);
		return;
	}
	own_end = base_now_ns();
	wait_until_finished(pool);
	end = base_now_ns();
	learn(pool, end, end - own_end, n_own ? (own_end - begin) / n_own : 0);
}
