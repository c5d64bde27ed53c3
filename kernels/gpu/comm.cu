/* Sums and gathers between devices that read each other's memory, in one launch on each.
 *
 * Every rank has a space that all can reach: flags, a count of the calls so far, and two slots. A call (the epoch e)
 * copies what the rank has into its slot e % 2, tells all others in a flag of theirs, waits for their flags, and reads
 * their slots. Block b of a rank writes and reads the same part of all slots, so it waits for the blocks b of the others
 * only: no block depends on one behind it, and a launch ends however few of its blocks run at a time.
 *
 * Two slots are enough. Who writes a slot in epoch e + 2 has ended epoch e + 1 before, for which every other rank's flag
 * was needed; a rank sets that when its launch of epoch e has ended, and with it its reading of the slot.
 *
 * Sums go in the order of the ranks, from the slots, one's own too: the same bits everywhere. Larger messages than a slot
 * are several launches. One pass moves n - 1 times the message into each device, which for two is the least there is;
 * with more, large messages are the library's (nccl.c). */
#include <errno.h>

#include "gpu/view.h"

enum {
	COMM_THREADS = 256,
	COMM_BLOCKS = 128,
	UNIT = 8, /* values at a time */
	LOOKS = 1024, /* at a flag, before the host is asked whether that makes sense */
};

/* What a space begins with; flag [b][r]: the last epoch for which block b of rank r has filled its part. */
struct comm_head {
	uint32_t flags[COMM_BLOCKS][KN_MAX_RANKS];
	uint32_t epoch, done; /* this rank's own: calls that ended; blocks of this one that did */
	uint32_t reserved[62];
};

size_t gk_comm_bytes(size_t slot_bytes)
{
	return sizeof(comm_head) + 2 * slot_bytes;
}

uint32_t gk_comm_launches(size_t slot_bytes, uint32_t elem, uint32_t rows, uint32_t width)
{
	const size_t most = slot_bytes / ((size_t)((width + UNIT - 1) / UNIT) * UNIT * (elem == GK_F32 ? 4 : 2));

	return most ? (uint32_t)((rows + most - 1) / most) : 0;
}

size_t gk_comm_head_bytes(void)
{
	return sizeof(comm_head);
}

void gk_comm_look(const char *head, uint32_t n_ranks, struct gk_comm_seen *ret)
{
	const comm_head *h = (const comm_head *)head;

	ret->ended = __atomic_load_n(&h->epoch, __ATOMIC_RELAXED);
	for (uint32_t r = 0; r < n_ranks; r++) /* every launch has a block 0 */
		ret->heard[r] = __atomic_load_n(&h->flags[0][r], __ATOMIC_RELAXED);
}

/* ---- What another device sees ---------------------------------------------------------------------------------------- */

GPU_FN void comm_release(uint32_t *flag, uint32_t v)
{
#if GPU_PTX
	asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag), "r"(v) : "memory");
#elif defined(GPU_HIP)
	__hip_atomic_store(flag, v, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_SYSTEM);
#else
	__atomic_store_n(flag, v, __ATOMIC_RELEASE);
#endif
}

GPU_FN uint32_t comm_acquire(const uint32_t *flag)
{
#if GPU_PTX
	uint32_t v;

	asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(flag) : "memory");
	return v;
#elif defined(GPU_HIP)
	return __hip_atomic_load(flag, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_SYSTEM);
#else
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
#endif
}

/* false: the group is broken. */
GPU_FN bool comm_await(const uint32_t *flag, uint32_t epoch, const uint32_t *broken)
{
	for (uint32_t looks = 1; (int32_t)(comm_acquire(flag) - epoch) < 0; looks++) {
#if defined(GPU_HOST)
		gpu_host::spin();
		if (comm_acquire(broken))
			return false;
#else
		if (looks % LOOKS == 0 && comm_acquire(broken))
			return false;
#endif
	}
	return true;
}

/* ---- One call ---------------------------------------------------------------------------------------------------------- */

struct comm_args {
	gk_comm c;
	gk_view x;
	gk_rows rows;
	uint32_t row0, n_rows; /* of x, that this launch is about */
	uint32_t width, total; /* columns of a rank (all of them: a sum), and of x */
	bool whole;
};

GPU_FN comm_head *comm_head_of(const gk_comm &c, uint32_t rank)
{
	return (comm_head *)c.spaces[rank];
}

/* Rows of a slot lie behind each other, in whole units. */
GPU_FN gk_view comm_slot(const comm_args &a, uint32_t rank, uint32_t epoch)
{
	gk_view v;

	v.p = a.c.spaces[rank] + sizeof(comm_head) + (epoch & 1) * a.c.slot_bytes;
	v.elem = a.x.elem;
	v.ld = (a.width + UNIT - 1) / UNIT * UNIT;
	return v;
}

/* Columns of x that a rank has from `width * rank` on. */
GPU_FN uint32_t comm_width(const comm_args &a, uint32_t rank)
{
	const uint32_t first = rank * a.width;

	return first >= a.total ? 0 : a.total - first < a.width ? a.total - first : a.width;
}

/* This block's part is there for the others, and theirs for this one. */
GPU_FN void comm_meet(const comm_args &a, uint32_t epoch)
{
	const uint32_t t = threadIdx.x;

	__syncthreads();
	if (t < a.c.n_ranks) {
		comm_release(&comm_head_of(a.c, t)->flags[blockIdx.x][a.c.rank], epoch);
		(void)comm_await(&comm_head_of(a.c, a.c.rank)->flags[blockIdx.x][t], epoch, a.c.broken);
	}
	__syncthreads();
}

/* The last block counts the call. */
GPU_FN void comm_leave(const comm_args &a, uint32_t epoch)
{
	comm_head *own = comm_head_of(a.c, a.c.rank);

	__syncthreads();
	if (threadIdx.x == 0) {
		__threadfence();
		if (atomicAdd(&own->done, 1u) == gridDim.x - 1) {
			own->done = 0;
			own->epoch = epoch;
		}
	}
}

GPU_FN uint32_t comm_rows(const comm_args &a)
{
	const uint32_t n = gk_n_rows(a.rows);

	return n <= a.row0 ? 0 : n - a.row0 < a.n_rows ? n - a.row0 : a.n_rows;
}

static __global__ void __launch_bounds__(COMM_THREADS) reduce_kernel(GPU_PARAM comm_args a)
{
	gpu_dependency_wait();

	const uint32_t epoch = *(volatile uint32_t *)&comm_head_of(a.c, a.c.rank)->epoch + 1;
	const uint32_t per_row = (a.total + UNIT - 1) / UNIT, n = comm_rows(a) * per_row;
	const gk_view own = comm_slot(a, a.c.rank, epoch);
	const uint32_t first = blockIdx.x * COMM_THREADS + threadIdx.x, step = gridDim.x * COMM_THREADS;

	for (uint32_t i = first; i < n; i += step) {
		const uint32_t row = i / per_row, col = i % per_row * UNIT;
		float v[UNIT];

		gk_get8(a.x, a.row0 + row, col, a.total, a.whole, v);
		gk_put8(own, row, col, own.ld, true, v);
	}
	comm_meet(a, epoch);
	for (uint32_t i = first; i < n; i += step) {
		const uint32_t row = i / per_row, col = i % per_row * UNIT;
		float sum[UNIT] = { 0, 0, 0, 0, 0, 0, 0, 0 };

#pragma unroll 2
		for (uint32_t r = 0; r < a.c.n_ranks; r++) {
			float v[UNIT];

			gk_get8(comm_slot(a, r, epoch), row, col, own.ld, true, v);
#pragma unroll
			for (int k = 0; k < UNIT; k++)
				sum[k] += v[k];
		}
		gk_put8(a.x, a.row0 + row, col, a.total, a.whole, sum);
	}
	comm_leave(a, epoch);
}

/* As reduce_kernel, but what the others have goes to columns of its own. */
static __global__ void __launch_bounds__(COMM_THREADS) gather_kernel(GPU_PARAM comm_args a)
{
	gpu_dependency_wait();

	const uint32_t epoch = *(volatile uint32_t *)&comm_head_of(a.c, a.c.rank)->epoch + 1;
	const uint32_t per_row = (a.width + UNIT - 1) / UNIT, n = comm_rows(a) * per_row;
	const uint32_t n_own = comm_width(a, a.c.rank), at_own = a.c.rank * a.width;
	const gk_view own = comm_slot(a, a.c.rank, epoch);
	const uint32_t first = blockIdx.x * COMM_THREADS + threadIdx.x, step = gridDim.x * COMM_THREADS;

	for (uint32_t i = first; i < n; i += step) {
		const uint32_t row = i / per_row, col = i % per_row * UNIT;
		float v[UNIT];

		if (col >= n_own)
			continue;
		gk_get8(a.x, a.row0 + row, at_own + col, at_own + n_own, a.whole && col + UNIT <= n_own, v);
		gk_put8(own, row, col, own.ld, true, v);
	}
	comm_meet(a, epoch);
	for (uint32_t r = 0; r < a.c.n_ranks; r++) {
		const gk_view theirs = comm_slot(a, r, epoch);
		const uint32_t n_theirs = comm_width(a, r), at = r * a.width;

		if (r == a.c.rank)
			continue;
		for (uint32_t i = first; i < n; i += step) {
			const uint32_t row = i / per_row, col = i % per_row * UNIT;
			float v[UNIT];

			if (col >= n_theirs)
				continue;
			gk_get8(theirs, row, col, own.ld, true, v);
			gk_put8(a.x, a.row0 + row, at + col, at + n_theirs, a.whole && col + UNIT <= n_theirs, v);
		}
	}
	comm_leave(a, epoch);
}

static __global__ void __launch_bounds__(COMM_THREADS) clear_kernel(gk_view x, gk_rows rows, uint32_t dim, bool whole)
{
	gpu_dependency_wait();

	const uint32_t per_row = (dim + UNIT - 1) / UNIT, i = blockIdx.x * COMM_THREADS + threadIdx.x;
	const float zeros[UNIT] = { 0, 0, 0, 0, 0, 0, 0, 0 };

	if (i / per_row < gk_n_rows(rows))
		gk_put8(x, i / per_row, i % per_row * UNIT, dim, whole, zeros);
}

/* ---- Launches ------------------------------------------------------------------------------------------------------------ */

typedef void (*comm_kernel)(comm_args);

static int comm_launch(comm_kernel kernel, const gk_ctx *ctx, comm_args a)
{
	const uint32_t per_row = (a.width + UNIT - 1) / UNIT, elem = a.x.elem == GK_F32 ? 4 : 2;
	const size_t most = a.c.slot_bytes / ((size_t)per_row * UNIT * elem);

	if (most == 0 || a.c.n_ranks > KN_MAX_RANKS)
		return -EINVAL;
	for (uint32_t row0 = 0; row0 < a.rows.bound; row0 += a.n_rows) {
		size_t n_blocks;

		a.row0 = row0;
		a.n_rows = a.rows.bound - row0 < most ? a.rows.bound - row0 : (uint32_t)most;
		n_blocks = ((size_t)a.n_rows * per_row + COMM_THREADS - 1) / COMM_THREADS;
		gpu_launch(kernel, dim3(n_blocks < COMM_BLOCKS ? (uint32_t)n_blocks : (uint32_t)COMM_BLOCKS), dim3(COMM_THREADS), 0, ctx->stream,
		           ctx->overlap, a);
	}
	return gk_launched();
}

int gk_all_reduce(const struct gk_ctx *ctx, const struct gk_comm *comm, struct gk_view x, struct gk_rows rows,
                  uint32_t dim)
{
	comm_args a = {};

	a.c = *comm;
	a.x = x;
	a.rows = rows;
	a.width = a.total = dim;
	a.whole = dim % UNIT == 0 && gk_view_aligned(x);
	return comm_launch(reduce_kernel, ctx, a);
}

int gk_all_gather(const struct gk_ctx *ctx, const struct gk_comm *comm, struct gk_view x, struct gk_rows rows,
                  uint32_t width, uint32_t total)
{
	comm_args a = {};

	a.c = *comm;
	a.x = x;
	a.rows = rows;
	a.width = width;
	a.total = total;
	a.whole = width % UNIT == 0 && gk_view_aligned(x);
	return comm_launch(gather_kernel, ctx, a);
}

int gk_clear(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t dim)
{
	const size_t n = (size_t)rows.bound * ((dim + UNIT - 1) / UNIT);

	gpu_launch(clear_kernel, dim3((uint32_t)((n + COMM_THREADS - 1) / COMM_THREADS)), dim3(COMM_THREADS), 0, ctx->stream,
	           ctx->overlap, x, rows, dim, dim % UNIT == 0 && gk_view_aligned(x));
	return gk_launched();
}
