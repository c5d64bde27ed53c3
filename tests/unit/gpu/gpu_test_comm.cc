/* Sums and gathers between devices: several threads of this process, each a rank with memory of its own. On the host only:
 * devices do it by way of the backend (tests/bench/gpu/comm_bench.c). */
#include "gpu_test.h"

#if defined(GPU_HOST)
#include <pthread.h>

enum { MOST_CALLS = 24, LEAST_SLOT = 4096 };

/* One call, the same for all ranks. */
struct call {
	uint32_t n, bound, dim, ld, elem;
	bool gathers;
	uint32_t width;
};

struct rank {
	struct gk_comm comm;
	const struct call *calls;
	uint32_t n_calls;
	test_rows *rows[MOST_CALLS];
	uint32_t *n; /* [n_calls] actual numbers, as a step has them */
	int result;
};

static void *run_rank(void *arg)
{
	rank *r = (rank *)arg;
	struct gk_ctx ctx = test_ctx;

	for (uint32_t i = 0; i < r->n_calls && r->result == 0; i++) {
		const call &c = r->calls[i];
		const struct gk_rows rows = { c.bound, &r->n[i] };

		r->result = c.gathers ? gk_all_gather(&ctx, &r->comm, r->rows[i]->view(), rows, c.width, c.dim)
		                      : gk_all_reduce(&ctx, &r->comm, r->rows[i]->view(), rows, c.dim);
	}
	return nullptr;
}

static call random_call()
{
	static const uint32_t elems[] = { GK_F32, GK_BF16 };
	call c = {};

	c.bound = 1 + test_random() % 9;
	c.n = test_random() % 5 ? c.bound : test_random() % (c.bound + 1);
	c.dim = test_random() % 3 ? 8 * (1 + test_random() % 60) : 1 + test_random() % 400;
	c.ld = c.dim + (test_random() % 2 ? 0 : test_random() % 9);
	c.elem = elems[test_random() % 2];
	c.gathers = test_random() % 2;
	c.width = test_random() % 2 ? c.dim : 0;
	return c;
}

static bool is_mine(const call &c, uint32_t rank, uint32_t col)
{
	return !c.gathers || col / c.width == rank;
}

/* What a column has to be; -0 counts as 0. */
static float want_at(const call &c, const float *const *before, uint32_t n_ranks, size_t at, uint32_t col)
{
	float sum = 0;

	for (uint32_t r = 0; r < n_ranks; r++)
		sum += is_mine(c, r, col) ? before[r][at] : 0;
	return sum;
}

static void compare(const call &c, rank *ranks, const float *const *before, uint32_t n_ranks, uint32_t i)
{
	const test_rows &first = *ranks[0].rows[i];
	uint32_t wrong = 0;

	for (uint32_t row = 0; row < c.bound; row++) {
		for (uint32_t col = 0; col < c.ld; col++) {
			const size_t at = (size_t)row * c.ld + col;
			const bool touched = row < c.n && col < c.dim;
			float want = want_at(c, before, n_ranks, at, col < c.dim ? col : 0);

			if (c.elem == GK_BF16)
				want = gpu_from_bf16(gpu_to_bf16(want));
			for (uint32_t r = 0; r < n_ranks; r++) {
				const float got = ranks[r].rows[i]->host[at];

				/* The same bits for everybody, and nothing beside the rows. */
				wrong += touched ? got != want || memcmp(&got, &first.host[at], 4) != 0 : got != before[r][at];
			}
		}
	}
	CHECK(wrong == 0, "call %u, %s of %u (bound %u) x %u (ld %u), element %u: %u values", i,
	      c.gathers ? "gather" : "sum", c.n, c.bound, c.dim, c.ld, c.elem, wrong);
}

static void run_group(uint32_t n_ranks, const call *calls, uint32_t n_calls, size_t slot_bytes, uint32_t *broken)
{
	rank ranks[KN_MAX_RANKS] = {};
	pthread_t threads[KN_MAX_RANKS];
	float *before[MOST_CALLS][KN_MAX_RANKS];
	char *spaces[KN_MAX_RANKS];

	for (uint32_t r = 0; r < n_ranks; r++) {
		spaces[r] = (char *)aligned_alloc(256, (gk_comm_bytes(slot_bytes) + 255) / 256 * 256);
		memset(spaces[r], 0, gk_comm_bytes(slot_bytes));
	}
	for (uint32_t r = 0; r < n_ranks; r++) {
		ranks[r].comm.rank = r;
		ranks[r].comm.n_ranks = n_ranks;
		ranks[r].comm.slot_bytes = slot_bytes;
		ranks[r].comm.broken = broken;
		memcpy(ranks[r].comm.spaces, spaces, sizeof(spaces));
		ranks[r].calls = calls;
		ranks[r].n_calls = n_calls;
		ranks[r].n = (uint32_t *)calloc(n_calls, sizeof(uint32_t));
		for (uint32_t i = 0; i < n_calls; i++) {
			test_rows *x = ranks[r].rows[i] = new test_rows(calls[i].elem, calls[i].bound, calls[i].dim, calls[i].ld);

			x->random(1.0f);
			ranks[r].n[i] = calls[i].n;
			before[i][r] = (float *)malloc(sizeof(float) * calls[i].bound * calls[i].ld);
			memcpy(before[i][r], x->host, sizeof(float) * calls[i].bound * calls[i].ld);
		}
	}
	for (uint32_t r = 0; r < n_ranks; r++) {
		if (pthread_create(&threads[r], nullptr, run_rank, &ranks[r]) != 0)
			abort();
	}
	for (uint32_t r = 0; r < n_ranks; r++) {
		(void)pthread_join(threads[r], nullptr);
		CHECK(ranks[r].result == 0, "rank %u: %d", r, ranks[r].result);
	}
	for (uint32_t i = 0; i < n_calls; i++) {
		for (uint32_t r = 0; r < n_ranks; r++)
			ranks[r].rows[i]->down();
		if (!*broken)
			compare(calls[i], ranks, before[i], n_ranks, i);
	}
	for (uint32_t r = 0; r < n_ranks; r++) {
		for (uint32_t i = 0; i < n_calls; i++) {
			delete ranks[r].rows[i];
			free(before[i][r]);
		}
		free(ranks[r].n);
		free(spaces[r]);
	}
}

GPU_TEST(ranks_sum_and_gather_whatever_comes)
{
	for (int turn = 0; turn < 12; turn++) {
		const uint32_t n_ranks = 2 + test_random() % 4;
		call calls[MOST_CALLS];
		uint32_t broken = 0;

		for (int i = 0; i < MOST_CALLS; i++) {
			calls[i] = random_call();
			/* Whole parts, or a last one that is shorter, or none for some. */
			calls[i].width = (calls[i].dim + n_ranks - 1) / n_ranks;
			if (test_random() % 3 == 0)
				calls[i].width = (calls[i].width + 7) / 8 * 8;
		}
		/* Small slots: one call is several launches. */
		run_group(n_ranks, calls, MOST_CALLS, turn % 2 ? LEAST_SLOT : 64 << 10, &broken);
	}
}

GPU_TEST(nobody_waits_in_a_broken_group)
{
	const call calls[] = { { 2, 2, 64, 64, GK_F32, false, 64 } };
	rank r = {};
	uint32_t broken = 1, n = 2;
	char *spaces[2];
	test_rows x(GK_F32, 2, 64, 64);

	for (char *&s : spaces) {
		s = (char *)aligned_alloc(256, (gk_comm_bytes(LEAST_SLOT) + 255) / 256 * 256);
		memset(s, 0, gk_comm_bytes(LEAST_SLOT));
	}
	r.comm.n_ranks = 2;
	r.comm.slot_bytes = LEAST_SLOT;
	r.comm.broken = &broken;
	memcpy(r.comm.spaces, spaces, sizeof(spaces));
	r.calls = calls;
	r.n_calls = 1;
	r.rows[0] = &x;
	r.n = &n;
	x.random(1.0f);
	(void)run_rank(&r); /* the other one never comes */
	CHECK(r.result == 0, "%d", r.result);
	for (char *s : spaces)
		free(s);
}

GPU_TEST(a_row_that_fits_no_slot_is_refused)
{
	const struct gk_rows rows = { 1, nullptr };
	struct gk_comm comm = {};
	test_rows x(GK_F32, 1, 2048, 2048);

	comm.n_ranks = 2;
	comm.slot_bytes = LEAST_SLOT;
	CHECK(gk_all_reduce(&test_ctx, &comm, x.view(), rows, 2048) < 0, "sum");
}
#endif

GPU_TEST(rows_are_cleared_and_nothing_else)
{
	static const uint32_t elems[] = { GK_F32, GK_BF16 };

	for (int i = 0; i < 6; i++) {
		const uint32_t dim = i < 3 ? 64 : 61, ld = dim + (uint32_t)i, bound = 5;
		test_rows x(elems[i % 2], bound, dim, ld);
		both<uint32_t> n(1);
		struct gk_rows rows = { bound, n.device };
		uint32_t wrong = 0;

		n.host[0] = 3;
		n.up();
		for (uint32_t k = 0; k < bound * ld; k++)
			x.host[k] = 1.0f;
		x.up();
		CHECK(gk_clear(&test_ctx, x.view(), rows, dim) == 0, "clear");
		test_sync("clear");
		x.down();
		for (uint32_t k = 0; k < bound * ld; k++)
			wrong += x.host[k] != (k / ld < 3 && k % ld < dim ? 0.0f : 1.0f);
		CHECK(wrong == 0, "%u values of rows of %u", wrong, dim);
	}
}
