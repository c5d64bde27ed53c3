/* Two small models of time. Prompts: nanoseconds per token, smoothed. Decoding: a line through the steps seen so
 * far, by weighted least squares, whose slope is the cost of one more row. */
#include "sched/pace.h"

enum { MIN_CHUNK = 32, FIRST_CHUNK = 64, TELLING = 16 };

static const double weight = 0.05; /* of the newest step */
static const double first_guess = 0.06;

void eng_pace_learn(struct eng_pace *p, uint32_t n_prefill, uint32_t n_decode, uint64_t ns)
{
	double x = n_decode, y = (double)ns;

	if (n_prefill >= TELLING) {
		double each = y / (n_prefill + n_decode);

		p->prompt_token_ns =
		        p->prompt_token_ns > 0 ? p->prompt_token_ns + 0.2 * (each - p->prompt_token_ns) : each;
	}
	if (n_prefill > 0 || n_decode == 0)
		return;
	if (!p->has_steps) {
		*p = (struct eng_pace){ p->prompt_token_ns, x, y, x * x, x * y, true };
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
