/* Inverse frequencies and the attention factor of each scaling method, as transformers computes them, in
 * float where it does: at far positions a frequency's last bit decides the angle. */
#include "model/rope.h"

#include <errno.h>
#include <math.h>
#include <string.h>

void rope_params_init(struct rope_params *p)
{
	memset(p, 0, sizeof(*p));
	p->theta = 10000;
	p->beta_fast = 32;
	p->beta_slow = 1;
	p->truncate = true;
}

double rope_yarn_mscale(double factor, double mscale)
{
	return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static void plain(double theta, uint32_t n_rot, float *inv_freq)
{
	for (uint32_t i = 0; i < n_rot / 2; i++)
		inv_freq[i] = 1.0f / powf((float)theta, (float)(2 * i) / (float)n_rot);
}

static void llama3(const struct rope_params *p, float *inv_freq)
{
	double low_wave = p->original_ctx / p->low_freq_factor;
	double high_wave = p->original_ctx / p->high_freq_factor;

	for (uint32_t i = 0; i < p->n_rot / 2; i++) {
		double wave = 2 * M_PI / inv_freq[i];
		double smooth;

		if (wave < high_wave)
			continue;
		if (wave > low_wave) {
			inv_freq[i] = (float)(inv_freq[i] / p->factor);
			continue;
		}
		smooth = (p->original_ctx / wave - p->low_freq_factor) / (p->high_freq_factor - p->low_freq_factor);
		inv_freq[i] = (float)((1 - smooth) * inv_freq[i] / p->factor + smooth * inv_freq[i]);
	}
}

/* The pair that turns `turns` times over the original context. */
static double yarn_pair(const struct rope_params *p, double turns)
{
	return p->n_rot * log(p->original_ctx / (turns * 2 * M_PI)) / (2 * log(p->theta));
}

static void yarn(const struct rope_params *p, float *inv_freq)
{
	double low = yarn_pair(p, p->beta_fast), high = yarn_pair(p, p->beta_slow);

	if (p->truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, p->n_rot - 1.0);
	if (low == high)
		high += 0.001;
	for (uint32_t i = 0; i < p->n_rot / 2; i++) {
		double ramp = fmin(fmax((i - low) / (high - low), 0), 1);

		inv_freq[i] = (float)(inv_freq[i] / p->factor * ramp + inv_freq[i] * (1 - ramp));
	}
}

static double yarn_attn_factor(const struct rope_params *p)
{
	if (p->attn_factor > 0)
		return p->attn_factor;
	if (p->mscale > 0 && p->mscale_all > 0)
		return rope_yarn_mscale(p->factor, p->mscale) / rope_yarn_mscale(p->factor, p->mscale_all);
	return rope_yarn_mscale(p->factor, 1);
}

static int longrope(const struct rope_params *p, uint32_t n_ctx, struct rope_plan *plan, struct err *err)
{
	double factor = p->factor > 0 ? p->factor : (double)n_ctx / p->original_ctx;

	for (uint32_t i = 0; i < p->n_rot / 2; i++) {
		if (!(p->short_factor[i] > 0) || !(p->long_factor[i] > 0))
			return err_set(err, -EINVAL, "longrope: factor %u is not positive", i);
		plan->inv_freq_long[i] = plan->inv_freq[i] / p->long_factor[i];
		plan->inv_freq[i] /= p->short_factor[i];
	}
	plan->long_above = p->original_ctx;
	if (p->attn_factor > 0)
		plan->scale = (float)p->attn_factor;
	else if (factor > 1)
		plan->scale = (float)sqrt(1 + log(factor) / log(p->original_ctx));
	return 0;
}

static int check(const struct rope_params *p, struct err *err)
{
	bool needs_ctx = p->kind == ROPE_LLAMA3 || p->kind == ROPE_YARN || p->kind == ROPE_LONGROPE;
	bool needs_factor = p->kind == ROPE_LINEAR || p->kind == ROPE_LLAMA3 || p->kind == ROPE_YARN;

	if (p->n_rot == 0 || p->n_rot % 2 || p->n_rot > 2 * ROPE_MAX_HALF)
		return err_set(err, -EINVAL, "rope: %u rotated dimensions (expected an even number up to %d)", p->n_rot,
		               2 * ROPE_MAX_HALF);
	if (!(p->theta > 1 && p->theta <= 1e15))
		return err_set(err, -EINVAL, "rope_theta: %g is out of range", p->theta);
	if (needs_factor && !(p->factor >= 1e-3 && p->factor <= 1e6))
		return err_set(err, -EINVAL, "rope factor: %s", p->factor == 0 ? "missing" : "out of range");
	if (needs_ctx && p->original_ctx < 2)
		return err_set(err, -EINVAL, "rope original_max_position_embeddings: missing or too small");
	if (!(p->attn_factor >= 0 && p->attn_factor <= 1000))
		return err_set(err, -EINVAL, "rope attention_factor: %g is out of range", p->attn_factor);
	if (p->kind == ROPE_ALPHA && !(p->alpha > 0 && p->alpha <= 1e9 && p->n_rot > 2))
		return err_set(err, -EINVAL, "rope alpha: %g is out of range", p->alpha);
	if (p->kind == ROPE_LLAMA3 && !(p->low_freq_factor > 0 && p->high_freq_factor > p->low_freq_factor))
		return err_set(err, -EINVAL, "rope low_freq_factor, high_freq_factor: missing or not increasing");
	if (p->kind == ROPE_YARN && !(p->beta_slow > 0 && p->beta_fast >= p->beta_slow && p->beta_fast < 1e9))
		return err_set(err, -EINVAL, "rope beta_fast, beta_slow: out of range");
	if (p->kind == ROPE_YARN && !(fabs(p->mscale) < 1e3 && fabs(p->mscale_all) < 1e3))
		return err_set(err, -EINVAL, "rope mscale: out of range");
	return 0;
}

int rope_plan_build(const struct rope_params *p, uint32_t n_ctx, struct rope_plan *ret, struct err *err)
{
	double theta = p->theta;
	int r = check(p, err);

	if (r < 0)
		return r;
	memset(ret, 0, sizeof(*ret));
	ret->n_rot = p->n_rot;
	ret->scale = 1;
	if (p->kind == ROPE_ALPHA)
		theta *= pow(p->alpha, (double)p->n_rot / (p->n_rot - 2));
	plain(theta, p->n_rot, ret->inv_freq);

	switch (p->kind) {
	case ROPE_DEFAULT:
	case ROPE_ALPHA:
		break;
	case ROPE_LINEAR:
		for (uint32_t i = 0; i < p->n_rot / 2; i++)
			ret->inv_freq[i] = (float)(ret->inv_freq[i] / p->factor);
		break;
	case ROPE_LLAMA3:
		llama3(p, ret->inv_freq);
		break;
	case ROPE_YARN:
		yarn(p, ret->inv_freq);
		ret->scale = (float)yarn_attn_factor(p);
		break;
	case ROPE_LONGROPE:
		return longrope(p, n_ctx, ret, err);
	}
	for (uint32_t i = 0; p->has_freq_factors && i < p->n_rot / 2; i++) {
		if (!(p->short_factor[i] > 0))
			return err_set(err, -EINVAL, "rope_freqs: factor %u is not positive", i);
		ret->inv_freq[i] /= p->short_factor[i];
	}
	return 0;
}
