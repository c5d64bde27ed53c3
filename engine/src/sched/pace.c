/* Two small models of time. Prompts: nanoseconds per token, smoothed. Decoding: a line through the steps seen so
 * far, by weighted least squares, whose slope is the cost of one more row. */
#include "sched/pace.h"

#include <stddef.h>

enum { MIN_CHUNK = 32, FIRST_CHUNK = 64, TELLING = 16 };

static const double weight = 0.05; /* of the newest step */
static const double first_guess = 0.06;

static int size_of(double n)
{
	int k = 0;

	while (k + 1 < ENG_PACE_SIZES && n >= 2.0 * TELLING * (double)(1 << k))
		k++;
	return k;
}

/* The first step of a size prepares what the others have: it soon counts no more. */
static void learn_prompt(struct eng_pace *p, double n, double ns)
{
	struct eng_pace_steps *s = &p->steps[size_of(n)];
	double share;

	p->n_prompts++;
	if (s->n <= 0) {
		*s = (struct eng_pace_steps){ n, ns };
		return;
	}
	share = ns * s->n < s->ns * n ? 0.5 : 0.1;
	s->n += share * (n - s->n);
	s->ns += share * (ns - s->ns);
}

/* A token of a larger step takes less; a larger step takes no less than a smaller one, and grows at least as it did
 * between the two largest that were seen, since it is bound by memory first and by arithmetic then. */
static double step_ns(const struct eng_pace *p, double n)
{
	const struct eng_pace_steps *below = NULL, *before = NULL;
	int at = size_of(n);
	double slope;

	if (n <= 0)
		return 0;
	for (int k = at; k < ENG_PACE_SIZES; k++) {
		if (p->steps[k].n > 0)
			return p->steps[k].ns / p->steps[k].n * n;
	}
	for (int k = at - 1; k >= 0 && !before; k--) {
		if (p->steps[k].n > 0)
			*(below ? &before : &below) = &p->steps[k];
	}
	if (!below)
		return 0;
	slope = before && below->n > before->n ? (below->ns - before->ns) / (below->n - before->n) : 0;
	return below->ns + (slope > 0 ? slope * (n - below->n) : 0);
}

double eng_pace_prompt_ns(const struct eng_pace *p, uint64_t n, uint32_t most)
{
	return (double)(n / most) * step_ns(p, most) + step_ns(p, (double)(n % most));
}

void eng_pace_learn(struct eng_pace *p, uint32_t n_prefill, uint32_t n_decode, uint64_t ns)
{
	double x = n_decode, y = (double)ns;

	if (n_prefill >= TELLING) {
		double each = y / (n_prefill + n_decode);

		p->prompt_token_ns =
		        p->prompt_token_ns > 0 ? p->prompt_token_ns + 0.2 * (each - p->prompt_token_ns) : each;
		learn_prompt(p, n_prefill + n_decode, y);
	}
	if (n_prefill > 0 || n_decode == 0)
		return;
	if (!p->has_steps) {
		p->x = x;
		p->y = y;
		p->xx = x * x;
		p->xy = x * y;
		p->has_steps = true;
		return;
	}
	/* A step that waited for the processor says nothing of its size. */
	if (y > 4 * p->y * (x / p->x > 1 ? x / p->x : 1))
		y = p->y;
	p->x += weight * (x - p->x);
	p->y += weight * (y - p->y);
	p->xx += weight * (x * x - p->xx);
	p->xy += weight * (x * y - p->xy);
}

uint32_t eng_pace_prompt_tokens(const struct eng_pace *p, uint64_t step_ns)
{
	double n = p->prompt_token_ns > 0 ? (double)step_ns / p->prompt_token_ns : FIRST_CHUNK;

	return n < MIN_CHUNK ? MIN_CHUNK : n > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)n;
}

double eng_pace_row_cost(const struct eng_pace *p, uint32_t n_rows)
{
	double spread = p->xx - p->x * p->x, slope, step;

	/* Steps that were all alike do not tell what another row would cost. */
	if (!p->has_steps || spread < 0.01 * p->xx || n_rows == 0)
		return first_guess * n_rows;
	slope = (p->xy - p->x * p->y) / spread;
	step = p->y + slope * (n_rows - p->x);
	if (slope <= 0 || step <= 0)
		return first_guess;
	return slope * n_rows / step;
}
