/* What samplers need of rows of logits: the row's maximum, its best, its masses, one draw.
 *
 * A vocabulary has 150,000 entries and a row is read three times: for the greatest value of every block of 64, for the
 * masses, which need the row's maximum, and, a few blocks of it, for the best and the draw. The first two are cut into
 * segments, so that one row keeps all threads busy. The best are those that are not below the n-th greatest of the
 * blocks' maxima; few others are looked at. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "ref/ref.h"

enum {
	BLOCK = CPU_PICK_BLOCK,
	CHUNK = 1024, /* values whose mass is kept */
	BLOCKS = CHUNK / BLOCK,
	SEGMENT = 16, /* chunks of an item of the parallel loops */
	PICK_LISTS = KN_MAX_BEST * sizeof(struct kn_best) + CPU_PICK_SCRATCH
};

struct call {
	struct cpu_backend *cpu;
	const float *logits;
	size_t ld, n, n_vocab;
	float softcap;
	const struct kn_pick *picks;
	uint32_t n_best;
	struct kn_best *ret_best;
	struct kn_picked *ret;
	size_t n_chunks, n_segments, scratch_bytes;
	double (*masses)[2]; /* [n][n_chunks]: of exp(x - max), of exp((x - max) * inv_temp); those that are wanted */
	float *maxima;       /* [n][n_chunks][BLOCKS] */
	float *tops;         /* [n][n_segments]: the greatest of a segment's */
	char *scratch; /* of each thread: a list of the best, room for find_best(), with filters for a whole row */
};

/* A chunk of a row: in place, or a copy with the cap put on and padded with minus infinity. */
static const float *chunk_at(const struct call *c, size_t row, size_t chunk, float *buf)
{
	const float *src = c->logits + row * c->ld + chunk * CHUNK;
	size_t n = c->n_vocab - chunk * CHUNK < CHUNK ? c->n_vocab - chunk * CHUNK : CHUNK;

	if (n == CHUNK && !(c->softcap > 0))
		return src;
	memcpy(buf, src, n * sizeof(*buf));
	if (c->softcap > 0) {
		c->cpu->isa->softcap(buf, n, c->softcap);
		for (size_t i = 0; i < n; i++)
			buf[i] = isnan(src[i]) ? -INFINITY : buf[i];
	}
	for (size_t i = n; i < CHUNK; i++)
		buf[i] = -INFINITY;
	return buf;
}

/* Chunks [first, end) of item `item` of the parallel loops. */
static size_t item_row(const struct call *c, size_t item, size_t *ret_first, size_t *ret_end)
{
	*ret_first = item % c->n_segments * SEGMENT;
	*ret_end = *ret_first + SEGMENT < c->n_chunks ? *ret_first + SEGMENT : c->n_chunks;
	return item / c->n_segments;
}

static void find_maxima(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;
	float buf[CHUNK];

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		size_t k, last, row = item_row(c, i, &k, &last);
		float top = -INFINITY;

		for (; k < last; k++) {
			float *maxima = c->maxima + (row * c->n_chunks + k) * BLOCKS;

			c->cpu->isa->maxima(maxima, chunk_at(c, row, k, buf), BLOCKS);
			for (size_t b = 0; b < BLOCKS; b++)
				top = maxima[b] > top ? maxima[b] : top;
		}
		c->tops[i] = top;
	}
}

static bool wants_masses(const struct kn_pick *pick)
{
	return !pick->no_log_sum || pick->inv_temp > 0;
}

static void find_masses(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;
	float buf[CHUNK];

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		size_t k, last, row = item_row(c, i, &k, &last);
		const struct kn_pick *pick = &c->picks[row];
		float inv_temp = pick->inv_temp, max = c->ret[row].max;

		for (; k < last && max > -INFINITY && wants_masses(pick); k++) {
			const float *x = chunk_at(c, row, k, buf);
			double *mass = c->masses[row * c->n_chunks + k];

			if (inv_temp > 0)
				mass[1] = c->cpu->isa->exp_sum(NULL, x, CHUNK, max, inv_temp);
			if (!pick->no_log_sum)
				mass[0] = inv_temp == 1 ? mass[1] : c->cpu->isa->exp_sum(NULL, x, CHUNK, max, 1);
		}
	}
}

/* ---- The best ---- */

/* A heap of the n greatest so far, the least of them at the top. */
static void sift_down(float *heap, size_t n)
{
	float x = heap[0];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (!(heap[child] < x))
			break;
		heap[i] = heap[child];
	}
	heap[i] = x;
}

/* The n-th greatest of `count` values; minus infinity where there are fewer. */
static float nth_greatest(float *heap, size_t n, const float *x, size_t count)
{
	for (size_t i = 0; i < n; i++)
		heap[i] = -INFINITY;
	for (size_t i = 0; i < count; i++) {
		if (x[i] > heap[0]) {
			heap[0] = x[i];
			sift_down(heap, n);
		}
	}
	return heap[0];
}

/* Above the threshold are at most BLOCK values of each of the fewer than n_best blocks whose maximum is; equal to it
 * may be any number, of which the first are taken. */
static void find_best(const struct call *c, size_t row, uint32_t n_best, struct kn_best *best, char *scratch)
{
	struct kn_best *above = (struct kn_best *)scratch, *equal = above + (size_t)n_best * BLOCK;
	const float *maxima = c->maxima + row * c->n_chunks * BLOCKS;
	float threshold = nth_greatest((float *)(equal + n_best), n_best, maxima, c->n_chunks * BLOCKS);
	size_t n_above = 0, n_equal = 0;
	float buf[CHUNK];

	for (size_t k = 0; k < c->n_chunks; k++) {
		const float *x = NULL;

		for (size_t b = 0; b < BLOCKS; b++) {
			/* Minus infinity is no candidate, be the threshold what it may. */
			if (!(maxima[k * BLOCKS + b] >= threshold && maxima[k * BLOCKS + b] > -INFINITY))
				continue;
			x = x ? x : chunk_at(c, row, k, buf);
			for (size_t i = b * BLOCK; i < (b + 1) * BLOCK; i++) {
				struct kn_best one = { x[i] > FLT_MAX ? FLT_MAX : x[i], (int32_t)(k * CHUNK + i) };

				if (x[i] > threshold)
					above[n_above++] = one;
				else if (x[i] == threshold && threshold > -INFINITY && n_equal < n_best)
					equal[n_equal++] = one;
			}
		}
	}
	qsort(above, n_above, sizeof(*above), ref_by_rank);
	for (uint32_t i = 0; i < n_best; i++) {
		if (i < n_above)
			best[i] = above[i];
		else if (i - n_above < n_equal)
			best[i] = equal[i - n_above];
		else
			best[i] = (struct kn_best){ -INFINITY, -1 };
	}
}

/* ---- The draw ---- */

/* The first of the greatest. */
static void take_greatest(const struct call *c, size_t row, struct kn_picked *ret)
{
	const float *maxima = c->maxima + row * c->n_chunks * BLOCKS, *x;
	size_t b = 0, i = 0;
	float buf[CHUNK];

	while (maxima[b] < ret->max)
		b++;
	x = chunk_at(c, row, b / BLOCKS, buf) + b % BLOCKS * BLOCK;
	while (!(x[i] >= ret->max))
		i++;
	ret->drawn = (int32_t)(b * BLOCK + i);
	ret->drawn_logit = ret->max;
}

/* Filters leave few nearly always, which are among the best. */
static void draw_filtered(const struct call *c, size_t row, double mass, char *scratch, struct kn_picked *ret)
{
	const struct kn_pick *pick = &c->picks[row];
	struct kn_best *list = (struct kn_best *)scratch, *all = (struct kn_best *)(scratch + PICK_LISTS);
	uint32_t n = pick->top_k > 0 && pick->top_k < KN_MAX_BEST ? pick->top_k : KN_MAX_BEST;
	float log_mass = ret->log_mass;

	find_best(c, row, n, list, scratch + KN_MAX_BEST * sizeof(*list));
	if (!ref_draw_listed(list, n, mass, pick, ret))
		ref_draw(c->logits + row * c->ld, c->n_vocab, c->softcap, pick, all, ret);
	ret->log_mass = log_mass;
}

static void draw(const struct call *c, size_t row, double mass, struct kn_picked *ret)
{
	const double(*masses)[2] = (const double(*)[2])c->masses + row * c->n_chunks;
	double want = c->picks[row].unit * mass, sum = 0, before = 0;
	float buf[CHUNK], p[CHUNK];
	const float *x;
	size_t chunk = 0, last = 0;

	/* The last chunk that has any mass, should rounding leave `want` at the very end. */
	for (size_t k = 0; k < c->n_chunks && !(sum > want); k++) {
		if (masses[k][1] > 0) {
			chunk = k;
			before = sum;
		}
		sum += masses[k][1];
	}
	sum = before;
	x = chunk_at(c, row, chunk, buf);
	(void)c->cpu->isa->exp_sum(p, x, CHUNK, ret->max, c->picks[row].inv_temp);
	for (size_t i = 0; i < CHUNK; i++) {
		if (p[i] > 0)
			last = i;
		sum += p[i];
		if (sum > want)
			break;
	}
	ret->drawn = (int32_t)(chunk * CHUNK + last);
	ret->drawn_logit = x[last] > FLT_MAX ? FLT_MAX : x[last];
}

static void finish_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;

	for (size_t row = begin; row < end; row++) {
		const double(*masses)[2] = (const double(*)[2])c->masses + row * c->n_chunks;
		struct kn_picked *ret = &c->ret[row];
		char *scratch = c->scratch + worker * c->scratch_bytes;
		double sum = 0, mass = 0;

		if (c->n_best > 0)
			find_best(c, row, c->n_best, c->ret_best + row * c->n_best, scratch);
		if (ret->max == -INFINITY)
			continue;
		take_greatest(c, row, ret);
		if (!c->picks[row].no_log_sum) {
			for (size_t k = 0; k < c->n_chunks; k++)
				sum += masses[k][0];
			ret->log_sum = (float)(ret->max + log(sum));
		}
		if (c->picks[row].inv_temp > 0) {
			for (size_t k = 0; k < c->n_chunks; k++)
				mass += masses[k][1];
			ret->log_mass = (float)log(mass);
			if (kn_pick_filters(&c->picks[row]))
				draw_filtered(c, row, mass, scratch, ret);
			else
				draw(c, row, mass, ret);
		}
	}
}

void cpu_pick(struct kn_backend *be, const float *logits, size_t ld, size_t n, size_t n_vocab, float softcap,
              const struct kn_pick *picks, uint32_t n_best, struct kn_best *ret_best, struct kn_picked *ret)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct call c = {
		.cpu = cpu,
		.logits = logits,
		.ld = ld,
		.n = n,
		.n_vocab = n_vocab,
		.softcap = softcap,
		.picks = picks,
		.n_best = n_best,
		.ret_best = ret_best,
		.ret = ret,
	};
	size_t per_row;
	bool filters = false, masses = false;

	for (size_t i = 0; i < n; i++) {
		filters = filters || kn_pick_filters(&picks[i]);
		masses = masses || wants_masses(&picks[i]);
	}
	c.scratch_bytes = PICK_LISTS + (filters ? n_vocab * sizeof(struct kn_best) : 0);
	c.n_chunks = (n_vocab + CHUNK - 1) / CHUNK;
	c.n_segments = (c.n_chunks + SEGMENT - 1) / SEGMENT;
	per_row = c.n_chunks * (sizeof(*c.masses) + BLOCKS * sizeof(*c.maxima)) + c.n_segments * sizeof(*c.tops);
	if (cpu_area_reserve(&cpu->picks, n * per_row + cpu->n_threads * c.scratch_bytes) < 0) {
		cpu->error = -ENOMEM;
		return;
	}
	c.masses = (double(*)[2])cpu->picks.p;
	c.maxima = (float *)(c.masses + n * c.n_chunks);
	c.tops = c.maxima + n * c.n_chunks * BLOCKS;
	c.scratch = (char *)(c.tops + n * c.n_segments);
	base_threadpool_for(cpu->pool, n * c.n_segments, 1, find_maxima, &c);
	for (size_t i = 0; i < n; i++) {
		float max = -INFINITY;

		for (size_t k = 0; k < c.n_segments; k++)
			max = c.tops[i * c.n_segments + k] > max ? c.tops[i * c.n_segments + k] : max;
		ret[i] = (struct kn_picked){ .max = max > FLT_MAX ? FLT_MAX : max };
	}
	if (masses)
		base_threadpool_for(cpu->pool, n * c.n_segments, 1, find_masses, &c);
	base_threadpool_for(cpu->pool, n, 1, finish_rows, &c);
}
