/* Sampling: logits to one token id, and log-probabilities.
 *
 * Candidates are (logit, id) pairs. Filters that need an order (top-k, top-p) select the best part with
 * quickselect and sort only that: a vocabulary of 150k entries is never sorted whole. Logits come from a
 * model and may hold anything; NaN counts as minus infinity and plus infinity as the largest float, so
 * that no comparison and no sum below meets them.
 *
 * Random numbers: xoshiro256** (Blackman and Vigna, 2018), seeded through splitmix64. */
#include "sampler/sampler_internal.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- Random numbers ---- */

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static inline uint64_t rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static uint64_t rng_next(uint64_t s[4])
{
	uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

double sampler_unit(uint64_t s[4])
{
	return (double)(rng_next(s) >> 11) * 0x1p-53;
}

static void rng_seed(struct eng_sampler *s)
{
	uint64_t seed = s->p.seed;

	if (!s->p.has_seed && getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		seed = (uint64_t)(uintptr_t)s; /* no entropy source: still differs between requests */
	for (int i = 0; i < 4; i++)
		s->rng[i] = splitmix64(&seed);
}

/* ---- Life ---- */

static bool wants_counts(const struct eng_sampling *p)
{
	return p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f;
}

static int copy_bias(struct eng_sampler *s, const struct eng_sampling *p)
{
	if (p->n_logit_bias == 0)
		return 0;
	s->bias = calloc(p->n_logit_bias, sizeof(*s->bias));
	if (!s->bias)
		return -ENOMEM;
	memcpy(s->bias, p->logit_bias, p->n_logit_bias * sizeof(*s->bias));
	s->p.logit_bias = s->bias;
	return 0;
}

int eng_sampler_new(const struct eng_sampling *sampling, uint32_t n_vocab, struct eng_sampler **ret_sampler)
{
	struct eng_sampler *s = calloc(1, sizeof(*s));

	if (!s || n_vocab == 0) {
		free(s);
		return s ? -EINVAL : -ENOMEM;
	}
	s->p = *sampling;
	s->p.logit_bias = NULL;
	s->n_vocab = n_vocab;
	/* 0 means "not set" for a multiplier. */
	if (!(s->p.repetition_penalty > 0.0f))
		s->p.repetition_penalty = 1.0f;
	s->logits = calloc(n_vocab, sizeof(*s->logits));
	if (s->p.temperature > 0.0f)
		s->cands = calloc(n_vocab, sizeof(*s->cands));
	if (wants_counts(&s->p)) {
		s->n_out = calloc(n_vocab, sizeof(*s->n_out));
		s->n_all = calloc(n_vocab, sizeof(*s->n_all));
	}
	if (copy_bias(s, sampling) < 0 || !s->logits || (s->p.temperature > 0.0f && !s->cands) ||
	    (wants_counts(&s->p) && (!s->n_out || !s->n_all))) {
		eng_sampler_free(s);
		return -ENOMEM;
	}
	rng_seed(s);
	*ret_sampler = s;
	return 0;
}

void eng_sampler_free(struct eng_sampler *s)
{
	if (!s)
		return;
	free(s->bias);
	free(s->n_out);
	free(s->n_all);
	free(s->logits);
	free(s->cands);
	free(s);
}

void eng_sampler_accept(struct eng_sampler *s, int32_t id, bool is_output)
{
	if (!s->n_all || id < 0 || (uint32_t)id >= s->n_vocab)
		return;
	s->n_all[id]++;
	if (is_output)
		s->n_out[id]++;
}

/* ---- Changes to the logits ---- */

static inline float sane(float x)
{
	if (isnan(x))
		return -INFINITY;
	return x > FLT_MAX ? FLT_MAX : x;
}

static void apply_penalties(struct eng_sampler *s)
{
	const struct eng_sampling *p = &s->p;

	for (uint32_t i = 0; i < s->n_vocab; i++) {
		float x = s->logits[i];

		if (s->n_all[i] == 0)
			continue;
		x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
		if (s->n_out[i] > 0)
			x -= p->presence_penalty + p->frequency_penalty * (float)s->n_out[i];
		s->logits[i] = sane(x);
	}
}

static void prepare_logits(struct eng_sampler *s, const float *logits)
{
	for (uint32_t i = 0; i < s->n_vocab; i++)
		s->logits[i] = sane(logits[i]);
	for (size_t i = 0; i < s->p.n_logit_bias; i++) {
		const struct eng_logit_bias *b = &s->bias[i];

		if (b->id >= 0 && (uint32_t)b->id < s->n_vocab)
			s->logits[b->id] = sane(s->logits[b->id] + b->bias);
	}
	if (s->n_all)
		apply_penalties(s);
}

/* The greatest of n, what is not a number aside; in four chains of four, which a vocabulary is long enough for. */
static float greatest(const float *x, uint32_t n)
{
	typedef float four __attribute__((vector_size(16)));
	typedef int32_t bits __attribute__((vector_size(16)));
	float lanes[16], max = -INFINITY;
	uint32_t i = 0;

	for (int k = 0; k < 16; k++)
		lanes[k] = -INFINITY;
	if (n >= 16) {
		four m[4];

		memcpy(m, lanes, sizeof(m));
		for (; i + 16 <= n; i += 16) {
			for (int k = 0; k < 4; k++) {
				bits more;
				four v;

				memcpy(&v, x + i + 4 * k, sizeof(v));
				more = v > m[k];
				m[k] = (four)((more & (bits)v) | (~more & (bits)m[k]));
			}
		}
		memcpy(lanes, m, sizeof(m));
	}
	for (; i < n; i++)
		max = x[i] > max ? x[i] : max;
	for (int k = 0; k < 16; k++)
		max = lanes[k] > max ? lanes[k] : max;
	return max;
}

/* The first of the greatest; 0 when there is none. */
static int32_t best_id(const float *logits, uint32_t n)
{
	float max = greatest(logits, n);

	if (max == -INFINITY)
		return 0;
	max = max > FLT_MAX ? FLT_MAX : max; /* as sane() has it */
	for (uint32_t i = 0; i < n; i++) {
		if (logits[i] >= max)
			return (int32_t)i;
	}
	return 0;
}

/* ---- Selection of the best ---- */

/* Higher logit first, then lower id. */
static inline bool before(const struct cand *a, const struct cand *b)
{
	return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static int compare_cands(const void *a, const void *b)
{
	return before(a, b) ? -1 : before(b, a) ? 1 : 0;
}

static inline void swap_cands(struct cand *a, struct cand *b)
{
	struct cand t = *a;

	*a = *b;
	*b = t;
}

/* Hoare's quickselect: afterwards the k best are c[0..k), in no order. Ids are distinct, so the order is
 * strict and equal logits do no harm. */
static void select_best(struct cand *c, size_t n, size_t k)
{
	size_t lo = 0, hi = n;

	while (k > lo && k < hi && hi - lo > 1) {
		struct cand pivot;
		size_t i = lo, j = hi - 1, mid = lo + (hi - 1 - lo) / 2; /* never the last: both parts shrink */

		/* Median of three in the middle. */
		if (before(&c[mid], &c[lo]))
			swap_cands(&c[mid], &c[lo]);
		if (before(&c[hi - 1], &c[lo]))
			swap_cands(&c[hi - 1], &c[lo]);
		if (before(&c[hi - 1], &c[mid]))
			swap_cands(&c[hi - 1], &c[mid]);
		pivot = c[mid];
		for (;;) {
			while (before(&c[i], &pivot))
				i++;
			while (before(&pivot, &c[j]))
				j--;
			if (i >= j)
				break;
			swap_cands(&c[i++], &c[j--]);
		}
		/* [lo, j] is before or equal to the pivot, (j, hi) after or equal. */
		if (k <= j + 1)
			hi = j + 1;
		else
			lo = j + 1;
	}
}

/* Sorts the k best to the front. */
static void sort_best(struct cand *c, size_t n, size_t k)
{
	if (k < n)
		select_best(c, n, k);
	qsort(c, k, sizeof(*c), compare_cands);
}

static double mass_of(const struct cand *c, size_t n, float max, float inv_temp)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += exp(((double)c[i].logit - max) * inv_temp);
	return sum;
}

/* Sorts the smallest set of best candidates whose mass reaches top_p to the front; its size. */
static size_t keep_top_p(struct cand *c, size_t n, float max, float inv_temp, float top_p)
{
	double want = mass_of(c, n, max, inv_temp) * top_p, sum = 0;

	/* The set is nearly always small: try the best 256 first, then four times as many. */
	for (size_t part = 256;; part *= 4) {
		if (part > n)
			part = n;
		sort_best(c, n, part);
		sum = 0;
		for (size_t i = 0; i < part; i++) {
			sum += exp(((double)c[i].logit - max) * inv_temp);
			if (sum >= want)
				return i + 1;
		}
		if (part == n)
			return n;
	}
}

static size_t keep_min_p(struct cand *c, size_t n, float max, float inv_temp, float min_p)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (exp(((double)c[i].logit - max) * inv_temp) >= min_p)
			c[kept++] = c[i];
	}
	return kept > 0 ? kept : 1;
}

static int32_t draw(struct eng_sampler *s, const struct cand *c, size_t n, float max, float inv_temp)
{
	double u = sampler_unit(s->rng) * mass_of(c, n, max, inv_temp), sum = 0;
	size_t last = 0;

	for (size_t i = 0; i < n; i++) {
		double p = exp(((double)c[i].logit - max) * inv_temp);

		if (p > 0)
			last = i;
		sum += p;
		if (u < sum)
			return c[i].id;
	}
	return c[last].id; /* rounding left u at the very end */
}

/* What is drawn from: n candidates, their best logit and the inverse temperature. n 0: nothing is drawn, it is
 * `best`. */
struct choice {
	int32_t best;
	size_t n;
	float max, inv_temp;
};

static struct choice narrow(struct eng_sampler *s, const float *logits)
{
	struct choice ch = { 0 };
	size_t n = 0;

	/* Nothing alters the logits: no copy. */
	if (s->p.temperature <= 0.0f && s->p.n_logit_bias == 0 && !s->n_all) {
		ch.best = best_id(logits, s->n_vocab);
		return ch;
	}
	prepare_logits(s, logits);
	ch.best = best_id(s->logits, s->n_vocab);
	ch.max = s->logits[ch.best];
	/* Nothing to choose from: every logit was minus infinity or NaN. */
	if (s->p.temperature <= 0.0f || !s->cands || ch.max == -INFINITY)
		return ch;
	ch.inv_temp = 1.0f / s->p.temperature;
	if (!(ch.inv_temp <= FLT_MAX))
		return ch;
	for (uint32_t i = 0; i < s->n_vocab; i++) {
		if (s->logits[i] > -INFINITY)
			s->cands[n++] = (struct cand){ s->logits[i], (int32_t)i };
	}
	/* Sorted also when it leaves all of a few: backends that pick draw in that order, too. */
	if (s->p.top_k > 0 && (s->p.top_k < n || n <= KN_MAX_BEST)) {
		size_t kept = s->p.top_k < n ? s->p.top_k : n;

		sort_best(s->cands, n, kept);
		n = kept;
	}
	if (s->p.top_p < 1.0f)
		n = keep_top_p(s->cands, n, ch.max, ch.inv_temp, s->p.top_p);
	if (s->p.min_p > 0.0f)
		n = keep_min_p(s->cands, n, ch.max, ch.inv_temp, s->p.min_p);
	ch.n = n;
	return ch;
}

int32_t eng_sampler_pick(struct eng_sampler *s, const float *logits)
{
	struct choice ch = narrow(s, logits);

	return ch.n > 0 ? draw(s, s->cands, ch.n, ch.max, ch.inv_temp) : ch.best;
}

/* ---- Log-probabilities ---- */

/* Keeps top[0..n_top) sorted, best first; n_top is small. */
static void insert_top(struct eng_top *top, uint32_t *n, uint32_t n_top, int32_t id, float logit)
{
	uint32_t i;

	if (*n == n_top && logit <= top[n_top - 1].logprob)
		return;
	i = *n < n_top ? (*n)++ : n_top - 1;
	while (i > 0 && top[i - 1].logprob < logit) {
		top[i] = top[i - 1];
		i--;
	}
	top[i] = (struct eng_top){ id, logit };
}

static float log_sum_of(const float *logits, uint32_t n_vocab)
{
	float max = -INFINITY;
	double sum = 0;

	for (uint32_t i = 0; i < n_vocab; i++) {
		if (sane(logits[i]) > max)
			max = sane(logits[i]);
	}
	for (uint32_t i = 0; i < n_vocab && max > -INFINITY; i++) {
		float x = sane(logits[i]);

		if (x > -INFINITY)
			sum += exp((double)x - max);
	}
	return max > -INFINITY ? (float)(max + log(sum)) : 0.0f;
}

float eng_logprobs(const float *logits, uint32_t n_vocab, int32_t id, uint32_t n_top, struct eng_top *ret_top)
{
	float log_sum = log_sum_of(logits, n_vocab);
	uint32_t n = 0;

	for (uint32_t i = 0; i < n_vocab && n_top > 0; i++)
		insert_top(ret_top, &n, n_top, (int32_t)i, sane(logits[i]));
	for (uint32_t i = 0; i < n_top; i++) {
		if (i < n)
			ret_top[i].logprob -= log_sum;
		else
			ret_top[i] = (struct eng_top){ -1, -INFINITY };
	}
	return id >= 0 && (uint32_t)id < n_vocab ? sane(logits[id]) - log_sum : -INFINITY;
}

void eng_logprobs_of(const float *logits, uint32_t n_vocab, const int32_t *ids, size_t n, float *ret)
{
	float log_sum = log_sum_of(logits, n_vocab);

	for (size_t i = 0; i < n; i++)
		ret[i] = ids[i] >= 0 && (uint32_t)ids[i] < n_vocab ? sane(logits[ids[i]]) - log_sum : -INFINITY;
}

float eng_sampler_logprobs(struct eng_sampler *s, const float *logits, int32_t id, uint32_t n_top,
                           struct eng_top *ret_top)
{
	struct choice ch = narrow(s, logits);
	float result = -INFINITY;
	double log_mass;

	for (uint32_t i = 0; i < n_top; i++)
		ret_top[i] = (struct eng_top){ -1, -INFINITY };
	if (ch.n == 0) {
		if (n_top > 0)
			ret_top[0] = (struct eng_top){ ch.best, 0.0f };
		return id == ch.best ? 0.0f : -INFINITY;
	}
	log_mass = log(mass_of(s->cands, ch.n, ch.max, ch.inv_temp));
	for (size_t i = 0; i < ch.n && result == -INFINITY; i++) {
		if (s->cands[i].id == id)
			result = (float)(((double)s->cands[i].logit - ch.max) * ch.inv_temp - log_mass);
	}
	if (n_top > ch.n)
		n_top = (uint32_t)ch.n;
	if (n_top > 0)
		sort_best(s->cands, ch.n, n_top);
	for (uint32_t i = 0; i < n_top; i++)
		ret_top[i] = (struct eng_top){ s->cands[i].id,
			                       (float)(((double)s->cands[i].logit - ch.max) * ch.inv_temp - log_mass) };
	return result;
}

void eng_sampler_logprobs_of(struct eng_sampler *s, const float *logits, const int32_t *ids, size_t n, float *ret)
{
	struct choice ch = narrow(s, logits);
	double log_mass;

	if (ch.n == 0) {
		for (size_t i = 0; i < n; i++)
			ret[i] = ids[i] == ch.best ? 0.0f : -INFINITY;
		return;
	}
	/* The candidates hold their logits: the scratch can say who is one. */
	for (size_t i = 0; i < n; i++)
		s->logits[ids[i]] = -INFINITY;
	for (size_t i = 0; i < ch.n; i++)
		s->logits[s->cands[i].id] = s->cands[i].logit;
	log_mass = log(mass_of(s->cands, ch.n, ch.max, ch.inv_temp));
	for (size_t i = 0; i < n; i++)
		ret[i] = (float)(((double)s->logits[ids[i]] - ch.max) * ch.inv_temp - log_mass);
}
