/* What samplers need of rows of logits, so that the rows stay here: the best, sums of exponentials, and one draw.
 *
 * A row is cut into chunks that fit the registers of a block. The first kernel reads the logits once: each chunk's greatest, its
 * sums beside that, and its best, sorted. The second joins a row's chunks; a draw looks again only at the chunk it
 * falls into. Filters are applied to the KN_MAX_BEST best, which nearly always are enough; where they are not,
 * thresholds of the logit are tried out on the whole row (seek()). Chunks are the same whatever else is in the call, so
 * are the results.
 *
 * A draw is that of kernels/ref for the same number, unless that lies so near to the border of two tokens that rounding
 * decides: sums are in double, but their terms are float's exponentials, some 1e-6 of the whole off. */
#include <errno.h>
#include <float.h>

#include "gpu/pick_keys.h"
#include "gpu/view.h"

enum { CHUNK = PICK_CHUNK, THREADS = PICK_THREADS, SLICE = PICK_SLICE };

/* Sums of exp(x - max) and of exp((x - max) * inv_temp) over a chunk. */
struct part {
	float max, sum, mass;
	uint32_t id; /* the first of the greatest */
};

GPU_FN float sane_logit(const gk_pick &a, float x)
{
	if (x != x)
		return -INFINITY;
	if (a.softcap > 0)
		x = a.softcap * tanhf(x / a.softcap);
	return x > FLT_MAX ? FLT_MAX : x;
}

GPU_FN float logit_at(const gk_pick &a, uint32_t row, uint32_t v)
{
	return sane_logit(a, gk_get(a.logits, row, v));
}

/* How many of the best are sorted out. */
static __host__ __device__ __forceinline__ uint32_t n_listed(const gk_pick &a)
{
	return a.filters ? (uint32_t)KN_MAX_BEST : a.n_best;
}

static __global__ void pick_parts(gk_pick a, part *parts, order_key *best)
{
	__shared__ lowest_scratch lowest;
	__shared__ float sums[32];
	const uint32_t row = blockIdx.x, p = blockIdx.y, begin = p * CHUNK;
	const uint32_t n_best = n_listed(a);
	order_key keys[SLICE], first = NO_KEY;
	float sum = 0, mass = 0, max, inv_temp;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;
	parts += (size_t)row * gridDim.y + p;
#pragma unroll
	for (uint32_t i = 0; i < SLICE; i++) {
		const uint32_t v = begin + i * THREADS + threadIdx.x;

		keys[i] = v < a.n_vocab ? key_of(logit_at(a, row, v), v) : NO_KEY;
		first = lower(first, keys[i]);
	}
	first = lowest_of_block(first, lowest.keys);
	max = logit_of(first);
	inv_temp = a.picks[row].inv_temp;
#pragma unroll
	for (uint32_t i = 0; i < SLICE; i++) {
		const float below = logit_of(keys[i]) - max;

		if (keys[i] == NO_KEY || !(max > -INFINITY))
			continue;
		sum += expf(below);
		mass += inv_temp > 0 ? expf(below * inv_temp) : 0.0f;
	}
	sum = gpu_block_sum(sum, sums);
	mass = gpu_block_sum(mass, sums);
	if (threadIdx.x == 0)
		*parts = { max, sum, mass, (uint32_t)first };
	if (n_best == 0)
		return;
	lowest_sorted(keys, n_best, &lowest);
	best += ((size_t)row * gridDim.y + p) * n_best;
	for (uint32_t k = threadIdx.x; k < n_best; k += THREADS)
		best[k] = lowest.keys[k];
}

/* The best of the lists of all chunks, sorted, to s->keys[0, n_best). */
GPU_FN void join_best(const order_key *best, uint32_t n_best, uint32_t n_parts, lowest_scratch *s)
{
	const uint32_t n = n_parts * n_best;
	order_key keys[SLICE];

	keys[0] = NO_KEY; /* the best of those before */
	for (uint32_t begin = 0; begin < n; begin += (SLICE - 1) * THREADS) {
#pragma unroll
		for (uint32_t i = 1; i < SLICE; i++) {
			const uint32_t k = begin + (i - 1) * THREADS + threadIdx.x;

			keys[i] = k < n ? best[k] : NO_KEY;
		}
		lowest_sorted(keys, n_best, s);
		keys[0] = threadIdx.x < n_best ? s->keys[threadIdx.x] : NO_KEY;
		__syncthreads();
	}
}

/* Where the running sum of exp((x - max) * inv_temp) over the chunk passes `want`; by all threads. */
GPU_FN uint32_t draw_in_chunk(const gk_pick &a, uint32_t row, uint32_t begin, float max, float inv_temp, double want,
                              double *slices)
{
	__shared__ uint32_t id;
	const uint32_t end = begin + CHUNK < a.n_vocab ? begin + CHUNK : a.n_vocab;
	const uint32_t from = begin + threadIdx.x * SLICE;
	double sum = 0;

	for (uint32_t v = from; v < from + SLICE && v < end; v++)
		sum += expf((logit_at(a, row, v) - max) * inv_temp);
	slices[threadIdx.x] = sum;
	__syncthreads();
	if (threadIdx.x == 0) {
		uint32_t slice = 0, last = 0;
		double before = 0;

		for (uint32_t s = 0; s < THREADS; s++) {
			if (slices[s] > 0)
				last = s;
		}
		while (slice < last && before + slices[slice] <= want)
			before += slices[slice++];
		/* Rounding may leave `want` at the very end: then it is the last that has any mass. */
		for (uint32_t v = begin + slice * SLICE; v < begin + (slice + 1) * SLICE && v < end; v++) {
			const float m = expf((logit_at(a, row, v) - max) * inv_temp);

			if (m > 0)
				id = v;
			before += m;
			if (before > want)
				break;
		}
	}
	__syncthreads();
	return id;
}

/* ---- Draws among some --------------------------------------------------------------------------------------- */

/* A row, and how it is drawn from. */
struct draw_row {
	uint32_t row;
	float max;
	kn_pick pick;
	double mass; /* of the whole row */
};

/* To every thread. scratch: THREADS / 32 values. */
GPU_FN double sum_of_block(double v, double *scratch)
{
	for (int m = 16; m > 0; m >>= 1)
		v += gpu_shfl_xor(v, m);
	if ((threadIdx.x & 31) == 0)
		scratch[threadIdx.x >> 5] = v;
	__syncthreads();
	v = 0;
	for (uint32_t g = 0; g < THREADS / 32; g++)
		v += scratch[g];
	__syncthreads();
	return v;
}

/* Rank of a logit: the better, the lower. */
GPU_FN uint32_t rank_of(float x)
{
	return (uint32_t)(key_of(x, 0) >> 32);
}

enum { SEEK_BITS = 3, SEEKS = 1 << SEEK_BITS, AT_ONCE = 16 };

/* v and every THREADS-th behind it; minus infinity beyond the row. Loaded together: each alone would wait for memory.
 */
GPU_FN void load_logits(const gk_pick &a, uint32_t row, uint32_t v, float x[AT_ONCE])
{
	const float *from = (const float *)a.logits.p + (size_t)row * a.logits.ld;

	for (uint32_t k = 0; k < AT_ONCE; k++)
		x[k] = v + k * THREADS < a.n_vocab ? from[v + k * THREADS] : -INFINITY;
	for (uint32_t k = 0; k < AT_ONCE; k++)
		x[k] = sane_logit(a, x[k]);
}

/* The mass of all ids up to a rank, for SEEKS ranks from `first` on, `step` apart. */
GPU_FN void masses_up_to(const gk_pick &a, const draw_row &d, uint32_t first, uint32_t step, double *scratch,
                         double ret[SEEKS])
{
	for (int j = 0; j < SEEKS; j++)
		ret[j] = 0;
	for (uint32_t v = threadIdx.x; v < a.n_vocab; v += AT_ONCE * THREADS) {
		float x[AT_ONCE];

		load_logits(a, d.row, v, x);
		for (int k = 0; k < AT_ONCE; k++) {
			const float m = expf((x[k] - d.max) * d.pick.inv_temp);
			const uint32_t rank = rank_of(x[k]);

			for (int j = 0; j < SEEKS; j++)
				ret[j] += rank <= first + (uint32_t)j * step ? m : 0.0f;
		}
	}
	for (int j = 0; j < SEEKS; j++)
		ret[j] = sum_of_block(ret[j], scratch);
}

/* The id at which the running sum of masses, the best first, reaches `want` (beyond: is above it); by all threads. */
GPU_FN order_key seek(const gk_pick &a, const draw_row &d, double want, bool beyond, double *scratch)
{
	__shared__ uint32_t counts[THREADS];
	__shared__ uint32_t id;
	const uint32_t slice = (a.n_vocab + THREADS - 1) / THREADS;
	const uint32_t from = threadIdx.x * slice, end = from + slice < a.n_vocab ? from + slice : a.n_vocab;
	double mass[SEEKS], before = 0;
	uint32_t rank = 0;

	/* Rounding may leave `want` at the very end: then it is the last that has any mass. */
	masses_up_to(a, d, ~0u, 0, scratch, mass);
	if (beyond && want >= mass[0])
		beyond = false;
	want = want < mass[0] ? want : mass[0];
	/* The first rank at which it is reached, three bits at a time. */
	for (int shift = 32; shift > 0;) {
		const int bits = shift % SEEK_BITS ? shift % SEEK_BITS : SEEK_BITS;
		uint32_t j = 0;

		shift -= bits;
		masses_up_to(a, d, rank + ((1u << shift) - 1), 1u << shift, scratch, mass);
		while (j + 1 < 1u << bits && (beyond ? mass[j] <= want : mass[j] < want))
			before = mass[j++];
		rank += j << shift;
	}

	/* Equal ones by id. */
	uint32_t n_equal = 0;

#pragma unroll 8
	for (uint32_t v = from; v < end; v++)
		n_equal += rank_of(logit_at(a, d.row, v)) == rank;
	counts[threadIdx.x] = n_equal;
	__syncthreads();
	if (threadIdx.x == 0) {
		const double each = expf((logit_of((order_key)rank << 32) - d.max) * d.pick.inv_temp);
		const double turn = each > 0 ? (want - before) / each : 0;
		uint32_t total = 0, nth = 0, t = 0;

		for (uint32_t i = 0; i < THREADS; i++)
			total += counts[i];
		/* Counted from 0. */
		if (turn > 0)
			nth = beyond ? (uint32_t)floor(turn) : (uint32_t)ceil(turn) - 1;
		nth = nth < total ? nth : total ? total - 1 : 0;
		while (t + 1 < THREADS && nth >= counts[t])
			nth -= counts[t++];
		id = 0;
		for (uint32_t v = t * slice; v < (t + 1) * slice && v < a.n_vocab; v++) {
			if (rank_of(logit_at(a, d.row, v)) != rank)
				continue;
			id = v;
			if (nth-- == 0)
				break;
		}
	}
	__syncthreads();

	const order_key found = (order_key)rank << 32 | id;

	__syncthreads();
	return found;
}

/* Over the whole row: the filters keep more than the list holds, so there is no top_k. */
GPU_FN uint32_t draw_in_row(const gk_pick &a, const draw_row &d, double *slices)
{
	__shared__ uint32_t id;
	const bool ordered = d.pick.top_p < 1;
	const order_key last = ordered ? seek(a, d, d.mass * d.pick.top_p, false, slices) : NO_KEY;
	const double least = d.pick.min_p > 0 ? log((double)d.pick.min_p) : -INFINITY;
	const uint32_t slice = (a.n_vocab + THREADS - 1) / THREADS;
	const uint32_t from = threadIdx.x * slice, end = from + slice < a.n_vocab ? from + slice : a.n_vocab;
	double kept = 0;

#pragma unroll 8
	for (uint32_t v = from; v < end; v++) {
		const float x = logit_at(a, d.row, v);

		if (key_of(x, v) <= last && ((double)x - d.max) * d.pick.inv_temp >= least)
			kept += expf((x - d.max) * d.pick.inv_temp);
	}

	const double mass = sum_of_block(kept, slices);

	if (ordered) {
		const order_key drawn = seek(a, d, d.pick.unit * mass, true, slices);

		return (uint32_t)(drawn < last ? drawn : last);
	}
	slices[threadIdx.x] = kept;
	__syncthreads();
	if (threadIdx.x == 0) {
		const double want = d.pick.unit * mass;
		double before = 0;
		uint32_t t = 0, has = 0;

		for (uint32_t i = 0; i < THREADS; i++)
			has = slices[i] > 0 ? i : has;
		while (t < has && before + slices[t] <= want)
			before += slices[t++];
		id = 0;
		for (uint32_t v = t * slice; v < (t + 1) * slice && v < a.n_vocab && before <= want; v++) {
			const float x = logit_at(a, d.row, v);

			if (((double)x - d.max) * d.pick.inv_temp < least)
				continue;
			id = v;
			before += expf((x - d.max) * d.pick.inv_temp);
		}
	}
	__syncthreads();
	return id;
}

/* Among the best, which are all that there are or that count; NO_ID: they are too few. By all threads; run is used up.
 */
#define NO_ID UINT32_MAX
GPU_FN uint32_t draw_in_list(const draw_row &d, order_key *run, double *masses)
{
	__shared__ uint32_t n_kept, id;
	const uint32_t i = threadIdx.x;
	const bool ordered = d.pick.top_k > 0 || d.pick.top_p < 1;
	const float x = run[i] == NO_KEY ? -INFINITY : logit_of(run[i]);
	const order_key mine = run[i];

	masses[i] = x > -INFINITY ? exp(((double)x - d.max) * d.pick.inv_temp) : -1.0;
	__syncthreads();
	if (i == 0) {
		uint32_t n = 0;
		bool has_all;

		while (n < KN_MAX_BEST && masses[n] >= 0 && !(d.pick.top_k > 0 && n == d.pick.top_k))
			n++;
		has_all = n < KN_MAX_BEST || n == d.pick.top_k;
		if (d.pick.top_p < 1) {
			double want = 0, sum = 0;
			uint32_t kept = 0;

			for (uint32_t k = 0; k < n && has_all; k++)
				want += masses[k];
			want = (has_all ? want : d.mass) * d.pick.top_p;
			while (kept < n && (kept == 0 || sum < want))
				sum += masses[kept++];
			has_all = has_all || sum >= want;
			n = kept;
		}
		if (d.pick.min_p > 0) {
			uint32_t kept = 0;

			while (kept < n && masses[kept] >= d.pick.min_p)
				kept++;
			has_all = has_all || kept < n;
			n = kept > 0 ? kept : 1;
		}
		n_kept = has_all ? n : 0;
	}
	__syncthreads();

	const uint32_t n = n_kept;

	if (n == 0) {
		__syncthreads();
		return NO_ID;
	}
	/* Each id with its place among the masses; in the order of ids where that is the order of drawing. */
	run[i] = i < n ? (order_key)(uint32_t)mine << 32 | i : NO_KEY;
	if (!ordered)
		sort_keys(run, KN_MAX_BEST);
	__syncthreads();
	if (i == 0) {
		double whole = 0, sum = 0, want;

		for (uint32_t k = 0; k < n; k++)
			whole += masses[(uint32_t)run[k]];
		want = d.pick.unit * whole;
		for (uint32_t k = 0; k < n && sum <= want; k++) {
			if (masses[(uint32_t)run[k]] > 0)
				id = (uint32_t)(run[k] >> 32);
			sum += masses[(uint32_t)run[k]];
		}
	}
	__syncthreads();
	return id;
}

static __global__ void pick_join(gk_pick a, const part *parts, const order_key *best, uint32_t n_parts)
{
	__shared__ lowest_scratch lowest;
	__shared__ double slices[THREADS];
	const uint32_t row = blockIdx.x, n_list = n_listed(a);
	kn_picked got = { -INFINITY, 0, 0, 0, 0 };
	double sum = 0, mass = 0;

	gpu_dependents_may_start();
	gpu_dependency_wait();
	if (row >= gk_n_rows(a.rows))
		return;

	const kn_pick pick = a.picks[row];
	order_key *run = lowest.keys;

	parts += (size_t)row * n_parts;
	if (n_list > 0) {
		join_best(best + (size_t)row * n_parts * n_list, n_list, n_parts, &lowest);
		for (uint32_t k = threadIdx.x; k < a.n_best; k += blockDim.x) {
			const float x = run[k] == NO_KEY ? -INFINITY : logit_of(run[k]);
			const int32_t id = x > -INFINITY ? (int32_t)(uint32_t)run[k] : -1;

			a.best[(size_t)row * a.n_best + k] = { x, id };
		}
		__syncthreads();
	}
	/* Every thread sums all chunks, in their order. */
	for (uint32_t p = 0; p < n_parts; p++) {
		if (parts[p].max > got.max) {
			got.max = got.drawn_logit = parts[p].max;
			got.drawn = (int32_t)parts[p].id;
		}
	}
	for (uint32_t p = 0; p < n_parts && got.max > -INFINITY; p++) {
		if (parts[p].max == -INFINITY)
			continue;
		sum += (double)parts[p].sum * expf(parts[p].max - got.max);
		mass += (double)parts[p].mass * expf((parts[p].max - got.max) * pick.inv_temp);
	}
	if (got.max > -INFINITY)
		got.log_sum = got.max + (float)log(sum);
	if (got.max > -INFINITY && pick.inv_temp > 0) {
		const draw_row d = { row, got.max, pick, mass };
		double want = pick.unit * mass, before = 0;
		uint32_t chosen = 0;

		got.log_mass = (float)log(mass);
		if (pick.top_k > 0 || pick.top_p < 1 || pick.min_p > 0) {
			chosen = draw_in_list(d, run, slices);
			if (chosen == NO_ID)
				chosen = draw_in_row(a, d, slices);
			got.drawn = (int32_t)chosen;
		} else {
			for (uint32_t p = 0; p < n_parts; p++) {
				const double m =
				        parts[p].max > -INFINITY
				                ? (double)parts[p].mass * expf((parts[p].max - got.max) * pick.inv_temp)
				                : 0;

				if (m <= 0)
					continue;
				chosen = p;
				if (before + m > want)
					break;
				before += m;
			}
			got.drawn = (int32_t)draw_in_chunk(a, row, chosen * CHUNK, got.max, pick.inv_temp,
			                                   want > before ? want - before : 0, slices);
		}
		got.drawn_logit = logit_at(a, row, (uint32_t)got.drawn);
	}
	if (threadIdx.x == 0)
		a.picked[row] = got;
}

size_t gk_pick_scratch(uint32_t rows, uint32_t n_vocab, uint32_t n_best)
{
	const size_t n_parts = (n_vocab + CHUNK - 1) / CHUNK;

	return rows * n_parts * (sizeof(part) + (size_t)n_best * sizeof(order_key));
}

int gk_pick_rows(const struct gk_ctx *ctx, const struct gk_pick *a)
{
	const unsigned n_parts = (a->n_vocab + CHUNK - 1) / CHUNK;
	part *parts = (part *)ctx->scratch;
	order_key *best = (order_key *)(parts + (size_t)a->rows.bound * n_parts);

	if (a->n_vocab == 0 || a->n_best > KN_MAX_BEST || (a->filters && a->logits.elem != GK_F32) ||
	    gk_pick_scratch(a->rows.bound, a->n_vocab, n_listed(*a)) > ctx->scratch_bytes)
		return -EINVAL;
	gpu_launch(pick_parts, dim3(a->rows.bound, n_parts), dim3(THREADS), 0, ctx->stream,
	           ctx->overlap, *a, parts, best);
	gpu_launch(pick_join, dim3(a->rows.bound), dim3(THREADS), 0, ctx->stream, ctx->overlap, *a, (const part *)parts,
	           (const order_key *)best, n_parts);
	return gk_launched();
}
