/* steady.h on Hopper's warpgroup instructions, for up to 128 rows of x a block: the same sums of the same terms in the
 * same order, by an instruction that adds 16 products to a sum as mma.sync does, so that the bits are those of few.h.
 *
 * A block makes 128 rows of W (gated: 64 of each of two matrices), a warpgroup 64 of them, which are the first operand
 * and come from registers: each lane holds the pieces that it would hold in few.h, and fetches them for itself, many
 * steps ahead (bfloat16 into a ring in shared memory of which every lane has its own part, so that nobody waits for
 * anybody; other types into registers). Rows of x are the second operand, 64 columns a step. A kernel before this one
 * has put them into memory as the instructions want them in shared memory, their columns where those pieces have theirs
 * (an instruction takes the first, then the last four columns of each 8), so that one thread brings a whole step by one
 * copy.
 *
 * Blocks of a cluster have the same rows and a group of classes each (steady.h); at the end each adds up some columns
 * of all, reading what the others left in their shared memory. */
#ifndef GPU_STEADY_SM90_H
#define GPU_STEADY_SM90_H

#include "gpu/steady_sm90_end.h"
#include "gpu/steady_sm90_rows.h"

#if SM90_CODE
/* Of a tile of x, whose lines are a sum's columns. */
GPU_FN sm90_desc s90_desc(const void *tile)
{
	return sm90_desc_of(tile, 16, 1024);
}

/* One step of the sum: 64 columns, w[half of the columns][row g, row g + 8]. */
template <int N> GPU_FN void s90_step(float (&acc)[N / 2], const uint4 (*w)[2], const uint4 *tile_x)
{
	sm90_desc b = s90_desc(tile_x);

#pragma unroll
	for (int h = 0; h < 2; h++, b = sm90_desc_add(b, 64)) {
		sm90_product_along(acc, w[h][0].x, w[h][1].x, w[h][0].y, w[h][1].y, b);
		sm90_product_along(acc, w[h][0].z, w[h][1].z, w[h][0].w, w[h][1].w, sm90_desc_add(b, 32));
	}
}

GPU_FN void s90_keep(uint4 (*w)[2])
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		sm90_keep(w[i / 2][i & 1]);
}
#endif

/* In 16 bytes. Up to 64 rows of x two blocks share a multiprocessor (of bfloat16).
 *
 * DEEP: x is as many steps ahead as W, as far as there is room, which is quicker for all but small tiles of bfloat16.
 * With those x is three ahead, and no wave waits for one that is a step behind.
 */
template <uint32_t TYPE, int N> struct s90_sizes {
	enum {
		DIRECT = TYPE == KN_BF16,
		DEEP = !DIRECT || N > 32,
		X = N * 8,
		X_STAGES = DIRECT     ? (N == 128  ? 8
		                         : N == 64 ? 7
		                                   : 5)
		           : N == 128 ? 9
		                      : 12,
		W = DIRECT ? STEADY_THREADS * 4 : 0,
		STAGES = N == 128  ? 5
		         : N == 64 ? 3
		                   : 4,
		RINGS = X_STAGES * X + STAGES * W,
		OUT = N * S90_LINE / 4,
		/* What the classes before gave is where the rings were, or beside them: registers are few for types
		 * that need some to be unpacked. */
		TOTAL = DIRECT ? (RINGS > OUT ? RINGS : OUT) : RINGS + OUT,
	};
};

struct s90_place {
	uint32_t tile, first, n_rows; /* rows of x [first, first + n_rows) */
	const uint4 *image;           /* theirs */
};

template <int N> GPU_FN s90_place s90_where(const steady_args &a, uint32_t n_tiles_x)
{
	const uint32_t across = (a.n_rows + N - 1) / N, y = blockIdx.x % across;
	s90_place p;

	p.tile = blockIdx.x / across; /* blocks of the same rows of W side by side */
	p.first = y * N;
	p.n_rows = a.n_rows - p.first < N ? a.n_rows - p.first : (uint32_t)N;
	p.image = (const uint4 *)a.image + (size_t)y * n_tiles_x * N * 8;
	return p;
}

enum { S90_CLASSES = STEADY_THREADS / 32 };

template <int N, bool GATED>
static __global__ void __launch_bounds__(STEADY_THREADS, N == 128 ? 1 : 2) steady90_kernel(GPU_PARAM steady_args a)
{
#if SM90_CODE
	typedef s90_sizes<KN_BF16, N> size;
	enum { STAGES = size::STAGES };
	__shared__ s90_ring<N, size::X_STAGES, size::DEEP> ring_x;
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const tiles = sm90_first_tile(shared), *const ring = tiles + size::X_STAGES * size::X + threadIdx.x;
	const uint32_t n_units = gk_n_units(a.job[0].w);
	const s90_place place = s90_where<N>(a, n_units);
	const uint32_t group = threadIdx.x / 128, row0 = place.tile * (GATED ? STEADY_ROWS / 2 : STEADY_ROWS);
	const uint32_t n_classes = S90_CLASSES / gridDim.z, class0 = blockIdx.z * n_classes;
	uint32_t n_steps = 0;

	for (uint32_t c = class0; c < class0 + n_classes && c < n_units; c++)
		n_steps += (n_units - c + S90_CLASSES - 1) / S90_CLASSES;
	const gk_mat &w = a.job[GATED ? group : 0].w;
	const uint32_t last_row = w.rows - 1;
	const uint8_t *from_w[2];
	steady_walk<S90_CLASSES, 1> ahead, ahead_x, now;
	float acc[N / 2], total[N / 2];
	uint4 held[2][2], next[2][2] = {};

#pragma unroll
	for (int p = 0; p < 2; p++) {
		const uint32_t row =
		        row0 + (GATED ? threadIdx.x % 128 : threadIdx.x) / 32 * 16 + (threadIdx.x & 31) / 4 + p * 8;

		from_w[p] = (const uint8_t *)w.values +
		            ((size_t)(row < last_row ? row : last_row) * w.ld + (threadIdx.x & 3) * 8) * 2;
	}
	ring_x.begin();
	ahead.begin(class0, n_units);
	ahead_x.begin(class0, n_units);
	now.begin(class0, n_units);

	/* This lane's pieces of a step, and back from where they arrive. */
	const auto slot = [&](uint32_t step) { return ring + step % STAGES * size::W; };
	const auto copy = [&](uint32_t step) {
		if (step < n_steps) {
			uint4 *const to = slot(step);

#pragma unroll
			for (int i = 0; i < 4; i++)
				sm90_copy16(to + i * STEADY_THREADS,
				            from_w[i & 1] + (size_t)ahead.unit * 128 + i / 2 * 64);
			ahead.next();
		}
		gpu_copy_commit();
	};
	const auto take = [&](uint32_t step, uint4(*to)[2]) {
		const uint4 *const from = slot(step);

		gpu_copy_wait<STAGES - 1>();
#pragma unroll
		for (int i = 0; i < 4; i++)
			to[i / 2][i & 1] = from[i * STEADY_THREADS];
	};

	for (uint32_t s = 0; s < STAGES; s++)
		copy(s);
	const auto bring = [&](uint32_t step) {
		if (threadIdx.x == 0 && step < n_steps) {
			ring_x.bring(tiles, place.image + (size_t)ahead_x.unit * size::X, step);
			ahead_x.next();
		}
		gpu_sync_wave();
	};

	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (uint32_t s = 0; s < ring_x.AHEAD; s++)
		bring(s);
#pragma unroll
	for (int i = 0; i < N / 2; i++)
		acc[i] = total[i] = 0.0f;
	take(0, held);
	for (uint32_t step = 0; step < n_steps; step++) {
		ring_x.wait(step);
		sm90_products_begin();
		s90_step<N>(acc, held, tiles + step % size::X_STAGES * size::X);
		sm90_products_end();
		copy(step + STAGES);
		bring(step + ring_x.AHEAD);
		if (step + 1 < n_steps)
			take(step + 1, next);
		sm90_products_done(acc);
		ring_x.release(step);
		s90_keep(held);
		if (now.ends_class()) {
#pragma unroll
			for (int i = 0; i < N / 2; i++) {
				total[i] += acc[i];
				acc[i] = 0.0f;
			}
		}
		now.next();
#pragma unroll
		for (int i = 0; i < 4; i++)
			held[i / 2][i & 1] = next[i / 2][i & 1];
	}
	__syncthreads(); /* the rings are free */
	s90_put_sums<N>((float *)tiles, total);
	sm90_cluster_sync();
	s90_finish<N, GATED, size::DEEP>(a, (const float *)tiles, row0, place.first, place.n_rows);
	sm90_cluster_sync(); /* nobody goes while others read */
#endif
}

template <uint32_t TYPE, int N, bool GATED>
static __global__ void __launch_bounds__(STEADY_THREADS, 1) steady90_scaled_kernel(GPU_PARAM steady_args a)
{
#if SM90_CODE
	typedef gk_format<TYPE> F;
	typedef s90_sizes<TYPE, N> size;
	enum {
		DEPTH = (int)F::SCALED == 3 ? 4
		        : F::UNIT == 64     ? 3
		                            : 2, /* units under way */
		PER_UNIT = F::CHUNKS / 2,    /* steps that a unit lasts */
		BY_UNIT = F::SCALED == 3,
	};
	static_assert((int)F::MINS == 0 && ((int)F::SCALED == 1 || (int)F::SCALED == 3),
	              "scales as they are applied here");
	__shared__ s90_ring<N, size::X_STAGES, size::DEEP> ring_x;
	GPU_DYN_SHARED(uint4, shared);
	uint4 *const tiles = sm90_first_tile(shared);
	float *const out = (float *)(tiles + size::RINGS);
	const uint32_t n_units = gk_n_units(a.job[0].w);
	const s90_place place = s90_where<N>(a, n_units * PER_UNIT);
	const uint32_t group = threadIdx.x / 128, row0 = place.tile * (GATED ? STEADY_ROWS / 2 : STEADY_ROWS);
	const uint32_t n_classes = S90_CLASSES / gridDim.z, class0 = blockIdx.z * n_classes;
	uint32_t n = 0;

	for (uint32_t c = class0; c < class0 + n_classes && c < n_units; c++)
		n += (n_units - c + S90_CLASSES - 1) / S90_CLASSES;
	const gk_mat &w = a.job[GATED ? group : 0].w;
	const uint32_t last16 = (w.rows - 1) / 16 * 16,
	               row16 = row0 + (GATED ? threadIdx.x % 128 : threadIdx.x) / 32 * 16;
	const few_at<F> at = few_point<F>(w, row16 < last16 ? row16 : last16, n_units);
	steady_walk<S90_CLASSES, 1> ahead, now;
	steady_walk<S90_CLASSES, PER_UNIT> ahead_x;
	few_raw<F> raw[DEPTH];
	float acc[N / 2], part[N / 2];
	uint32_t step = 0;
	bool first = true;

	ring_x.begin();
	ahead.begin(class0, n_units);
	ahead_x.begin(class0, n_units);
	now.begin(class0, n_units);
#pragma unroll
	for (uint32_t u = 0; u < DEPTH; u++) {
		if (u < n) {
			few_load<F>(raw[u], at, ahead.unit);
			ahead.next();
		}
	}
	const auto bring = [&](uint32_t of_step) {
		if (threadIdx.x == 0 && of_step < n * PER_UNIT) {
			ring_x.bring(tiles, place.image + (size_t)(ahead_x.unit * PER_UNIT + ahead_x.sub) * size::X,
			             of_step);
			ahead_x.next();
		}
		gpu_sync_wave();
	};

	gpu_dependents_may_start();
	gpu_dependency_wait();
	for (uint32_t s = 0; s < ring_x.AHEAD; s++)
		bring(s);
#pragma unroll
	for (int i = 0; i < N / 2; i++)
		acc[i] = part[i] = 0.0f;
	for (uint32_t i = 0; i < n; i += DEPTH) {
#pragma unroll
		for (uint32_t u = 0; u < DEPTH; u++) {
			if (i + u >= n)
				break;
#pragma unroll
			for (int sub = 0; sub < PER_UNIT; sub++, step++) {
				const uint4 *const tile_x = tiles + step % size::X_STAGES * size::X;
				uint4 held[2][2];

#pragma unroll
				for (int h = 0; h < 4; h++)
					held[h / 2][h & 1] = F::piece(raw[u].v[h & 1], sub * 2 + h / 2);
				ring_x.wait(step);
				sm90_products_begin();
#pragma unroll
				for (int h = 0; h < 2; h++) {
					const sm90_desc b = sm90_desc_add(s90_desc(tile_x), 64 * h);

					sm90_product_along(part, held[h][0].x, held[h][1].x, held[h][0].y, held[h][1].y,
					                   b);
					sm90_product_along(part, held[h][0].z, held[h][1].z, held[h][0].w, held[h][1].w,
					                   sm90_desc_add(b, 32));
					if (BY_UNIT && h == 0)
						continue;
					sm90_products_end();
					if (h == 1)
						bring(step + ring_x.AHEAD);
					sm90_products_done(part);
					s90_keep(held);
					if (h == 1)
						ring_x.release(step);
					if (BY_UNIT && sub + 1 < PER_UNIT)
						continue;

					float d[2], low;

#pragma unroll
					for (int s = 0; s < 2; s++)
						F::get_scale(raw[u].s[(int)F::SCALE_ROW ? s : 0], now.unit, sub * 2 + h,
						             0, &d[s], &low);
#pragma unroll
					for (int k = 0; k < N / 2; k++) {
						acc[k] = fmaf(d[k >> 1 & 1], part[k], acc[k]);
						part[k] = 0.0f;
					}
					if (h == 0)
						sm90_products_begin();
				}
			}
			if (now.ends_class()) {
				s90_add_sums<N>(out, acc, first);
				first = false;
			}
			now.next();
			if (i + u + DEPTH < n) {
				few_load<F>(raw[u], at, ahead.unit);
				ahead.next();
			}
		}
	}
	sm90_cluster_sync();
	s90_finish<N, GATED, size::DEEP>(a, out, row0, place.first, place.n_rows);
	sm90_cluster_sync(); /* nobody goes while others read */
#endif
}

/* ---- Launching ----------------------------------------------------------------------------------------------------
 */

template <uint32_t TYPE, int N> static inline int s90_launch(const steady_launch &l, void (*kernel)(const steady_args))
{
	steady_args a = *l.args;
	const uint32_t per_tile = a.gated ? STEADY_ROWS / 2 : STEADY_ROWS, across = (a.n_rows + N - 1) / N;
	const uint32_t n_tiles_x = gk_n_units(a.job[0].w) * gk_unit(TYPE) / 64;
	const size_t shared = (size_t)s90_sizes<TYPE, N>::TOTAL * sizeof(uint4) + 1024;
	const dim3 grid((a.job[0].w.rows + per_tile - 1) / per_tile * across, 1, a.n_groups);

	if (shared > l.ctx->smem_bytes || (size_t)across * n_tiles_x * N * 128 > l.room)
		return -EINVAL;
	gpu_launch(s90_image_kernel<N>, dim3(n_tiles_x, across), dim3(STEADY_THREADS), 0, l.ctx->stream, l.ctx->overlap,
	           a, gk_view_aligned(a.x));
#if defined(GPU_HOST)
	gpu_launch(kernel, grid, dim3(STEADY_THREADS), shared, l.ctx->stream, l.ctx->overlap, a);
#else
	cudaLaunchConfig_t config = {};
	cudaLaunchAttribute attrs[2] = {};

	config.gridDim = grid;
	config.blockDim = dim3(STEADY_THREADS);
	config.dynamicSmemBytes = shared;
	config.stream = (cudaStream_t)l.ctx->stream;
	attrs[0].id = cudaLaunchAttributeClusterDimension;
	attrs[0].val.clusterDim.x = attrs[0].val.clusterDim.y = 1;
	attrs[0].val.clusterDim.z = a.n_groups;
	attrs[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	attrs[1].val.programmaticStreamSerializationAllowed = 1;
	config.attrs = attrs;
	config.numAttrs = l.ctx->overlap ? 2 : 1;
	(void)cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
	(void)cudaLaunchKernelEx(&config, kernel, a);
#endif
	return 0;
}

template <uint32_t TYPE, int N> static inline int s90_launch_wide(const steady_launch &l)
{
	return s90_launch<TYPE, N>(l, l.args->gated ? steady90_scaled_kernel<TYPE, N, true>
	                                            : steady90_scaled_kernel<TYPE, N, false>);
}

template <uint32_t TYPE> static inline int s90_launch_scaled(const steady_launch &l)
{
	/* A scale for every 32 columns: registers are too few for 128. */
	enum { MOST = (int)gk_format<TYPE>::SCALED == 1 ? 64 : 128 };
	const uint32_t n = l.args->n_rows;

	return n <= 32   ? s90_launch_wide<TYPE, 32>(l)
	       : n <= 64 ? s90_launch_wide<TYPE, 64>(l)
	                 : s90_launch_wide<TYPE, MOST>(l);
}

#endif
