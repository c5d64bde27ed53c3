/* Mixture of experts: routing, and the experts' products with the rows of a batch grouped by expert.
 *
 * Each (token, choice) pair is a row. Rows are sorted by expert, stably, so that every expert's weights are
 * read once for all its rows; gate and up of all experts are one parallel loop, down another. A token's
 * results are added in the order of its choices, whatever the batch. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "ref/ref.h"

/* ---- Routing ---- */

static float sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

/* A group is worth the sum of its two best scores. */
static float group_worth(const float *score, size_t n)
{
	float best = -INFINITY, second = -INFINITY;

	for (size_t e = 0; e < n; e++) {
		if (score[e] > best) {
			second = best;
			best = score[e];
		} else if (score[e] > second) {
			second = score[e];
		}
	}
	return n > 1 ? best + second : best;
}

/* Marks the experts that may not be chosen: those outside the best groups. */
static void close_groups(const struct kn_router *r, const float *score, bool *taken)
{
	uint32_t size = r->n_expert / r->n_group;
	float worth[KN_MAX_EXPERTS];

	for (uint32_t g = 0; g < r->n_group; g++)
		worth[g] = group_worth(score + g * size, size);
	for (uint32_t g = 0; g < r->n_group; g++) {
		uint32_t n_better = 0;

		for (uint32_t o = 0; o < r->n_group; o++)
			n_better += worth[o] > worth[g] || (worth[o] == worth[g] && o < g);
		if (n_better >= r->top_group)
			memset(taken + g * size, true, size);
	}
}

static void choose(const struct kn_router *r, const float *score, bool *taken, int32_t *ids)
{
	for (uint32_t k = 0; k < r->top_k; k++) {
		int32_t best = -1;

		for (uint32_t e = 0; e < r->n_expert; e++) {
			if (!taken[e] && (best < 0 || score[e] > score[best]))
				best = (int32_t)e;
		}
		/* Fewer experts than choices, after what is not a number: stay within the table. */
		ids[k] = best < 0 ? 0 : best;
		taken[ids[k]] = true;
	}
}

static void weigh(const struct kn_router *r, const float *logits, const int32_t *ids, float *weights)
{
	double max = -INFINITY, all = 0, chosen = 0;

	for (uint32_t e = 0; e < r->n_expert; e++)
		max = fmax(max, logits[e]);
	for (uint32_t k = 0; k < r->top_k; k++) {
		if (r->kind == KN_ROUTE_SIGMOID)
			weights[k] = sigmoid(logits[ids[k]]);
		else
			all += exp(logits[ids[k]] - max);
	}
	if (r->kind == KN_ROUTE_SOFTMAX) {
		all = 0;
		for (uint32_t e = 0; e < r->n_expert; e++)
			all += exp(logits[e] - max);
	}
	for (uint32_t k = 0; k < r->top_k; k++) {
		if (r->kind != KN_ROUTE_SIGMOID)
			weights[k] = (float)(exp(logits[ids[k]] - max) / all);
		chosen += weights[k];
	}
	for (uint32_t k = 0; k < r->top_k; k++) {
		if (r->normalize)
			weights[k] = (float)(weights[k] / (chosen + 1e-20));
		weights[k] *= r->scale;
	}
}

struct route_call {
	const struct kn_router *r;
	const float *logits;
	int32_t *ids;
	float *weights;
};

static void route_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct route_call *c = arg;
	const struct kn_router *r = c->r;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		const float *logits = c->logits + i * r->n_expert;
		float score[KN_MAX_EXPERTS];
		bool taken[KN_MAX_EXPERTS] = { false };

		for (uint32_t e = 0; e < r->n_expert; e++)
			score[e] = r->kind == KN_ROUTE_SIGMOID ? sigmoid(logits[e]) + (r->bias ? r->bias[e] : 0)
			                                       : logits[e];
		if (r->n_group > 1 && r->top_group < r->n_group)
			close_groups(r, score, taken);
		choose(r, score, taken, c->ids + i * r->top_k);
		weigh(r, logits, c->ids + i * r->top_k, c->weights + i * r->top_k);
	}
}

void cpu_route(struct kn_backend *be, const struct kn_router *router, const float *logits, size_t n, int32_t *ret_ids,
               float *ret_weights)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct route_call call = { router, logits, ret_ids, ret_weights };

	if (router->n_expert > KN_MAX_EXPERTS) {
		cpu->error = -ENOTSUP;
		memset(ret_ids, 0, n * router->top_k * sizeof(*ret_ids));
		memset(ret_weights, 0, n * router->top_k * sizeof(*ret_weights));
		return;
	}
	cpu_rows(cpu, n, (size_t)router->n_expert * router->top_k * 4, route_rows, &call);
}

/* ---- Experts ---- */

struct moe_call {
	struct cpu_backend *cpu;
	const struct kn_moe *moe;
	size_t dim;
	uint32_t top_k;
	bool prompts; /* whose rows they are */
	/* rows sorted by expert */
	uint32_t *tok;   /* [rows] token of a row */
	uint32_t *slot;  /* [n, top_k] row of a choice */
	uint32_t *start; /* [n_expert + 1] first row of an expert */
	float *gate, *up, *y;
	/* combining */
	float *out;
	size_t ld_out;
	const float *weights;
};

/* Counting sort of the choices by expert. */
static void group_rows(struct moe_call *c, const int32_t *ids, size_t n)
{
	uint32_t n_expert = c->moe->n_expert, *next = c->start + CPU_MAX_EXPERTS;
	size_t rows = n * c->top_k;

	memset(c->start, 0, (n_expert + 1) * sizeof(*c->start));
	for (size_t i = 0; i < rows; i++)
		c->start[ids[i] + 1]++;
	for (uint32_t e = 0; e < n_expert; e++) {
		c->start[e + 1] += c->start[e];
		next[e] = c->start[e];
	}
	for (size_t i = 0; i < rows; i++) {
		uint32_t row = next[ids[i]]++;

		c->slot[i] = row;
		c->tok[row] = (uint32_t)(i / c->top_k);
	}
}

static struct cpu_task expert_task(const struct moe_call *c, const struct kn_mat *w, uint32_t e, float *out,
                                   const float *bias)
{
	return (struct cpu_task){
		.w = &w[e],
		.first = c->start[e],
		.n = c->start[e + 1] - c->start[e],
		.out = out + c->start[e] * (size_t)w[e].rows,
		.ld_out = w[e].rows,
		.bias = bias ? bias + e * (size_t)w[e].rows : NULL,
		.many = cpu_is_many(c->cpu, c->start[e + 1] - c->start[e], c->prompts),
	};
}

/* Every expert with rows: gate and up of prepared x, or down of prepared hidden rows, both in the order of rows. */
static void run_experts(const struct moe_call *c, bool down)
{
	const struct kn_moe *moe = c->moe;
	struct cpu_task tasks[CPU_MAX_TASKS];
	size_t n = 0;

	for (uint32_t e = 0; e < moe->n_expert; e++) {
		if (c->start[e] == c->start[e + 1])
			continue;
		if (n + 2 > CPU_MAX_TASKS) {
			cpu_tasks_run(c->cpu, tasks, n, c->cpu->hx);
			n = 0;
		}
		if (down) {
			tasks[n++] = expert_task(c, moe->down, e, c->y, moe->down_bias);
		} else {
			tasks[n++] = expert_task(c, moe->gate, e, c->gate, moe->gate_bias);
			tasks[n++] = expert_task(c, moe->up, e, c->up, moe->up_bias);
		}
	}
	if (n)
		cpu_tasks_run(c->cpu, tasks, n, c->cpu->hx);
}

static void combine_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct moe_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		for (uint32_t k = 0; k < c->top_k; k++)
			c->cpu->isa->add(c->out + i * c->ld_out, c->y + c->slot[i * c->top_k + k] * c->dim, c->dim,
			                 c->weights[i * c->top_k + k]);
	}
}

/* Forms of x that the experts' matrices ask for, each for its rows. */
static unsigned forms_of(const struct moe_call *c, const struct kn_mat *m)
{
	unsigned forms = 0;

	for (uint32_t e = 0; e < c->moe->n_expert; e++) {
		size_t n = c->start[e + 1] - c->start[e];

		if (n > 0)
			forms |= 1u << cpu_form_of(c->cpu, &m[e], cpu_is_many(c->cpu, n, c->prompts));
	}
	return forms;
}

static void moe_slice(struct moe_call *c, const float *x, size_t ld_x, size_t n, const int32_t *ids)
{
	const struct kn_moe *moe = c->moe;
	size_t rows = n * c->top_k, n_ff = moe->n_ff;

	group_rows(c, ids, n);
	cpu_prepare(c->cpu, c->cpu->hx, forms_of(c, moe->gate) | forms_of(c, moe->up), x, ld_x, c->tok, rows, c->dim);
	run_experts(c, false);
	cpu_act_mul(&c->cpu->base, moe->act, c->gate, n_ff, c->gate, n_ff, c->up, n_ff, rows, n_ff);
	cpu_prepare(c->cpu, c->cpu->hx, forms_of(c, moe->down), c->gate, n_ff, NULL, rows, n_ff);
	run_experts(c, true);
	cpu_rows(c->cpu, n, c->dim * c->top_k, combine_rows, c);
}

void cpu_moe(struct kn_backend *be, const struct kn_moe *moe, float *out, size_t ld_out, const float *x, size_t ld_x,
             size_t n, size_t dim, uint32_t top_k, const int32_t *ids, const float *weights)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct moe_call c = { .cpu = cpu, .moe = moe, .dim = dim, .top_k = top_k, .ld_out = ld_out };
	size_t slice, end, capacity = cpu_moe_rows(cpu), n_answers = cpu_answer_rows(cpu, n);

	if (n == 0 || top_k == 0)
		return;
	if (moe->n_expert >= CPU_MAX_EXPERTS || top_k > capacity) {
		cpu->error = -ENOTSUP;
		return;
	}
	/* Grows only for matrices that another backend of this kind prepared. */
	if (cpu_reserve(cpu, dim > moe->n_ff ? dim : moe->n_ff) < 0) {
		cpu->error = -ENOMEM;
		return;
	}
	c.tok = (uint32_t *)cpu->moe_index.p;
	c.slot = c.tok + capacity;
	c.start = c.slot + capacity;
	c.gate = (float *)cpu->moe.p;
	c.up = c.gate + capacity * moe->n_ff;
	c.y = c.up + capacity * moe->n_ff;
	slice = capacity / top_k < cpu->max_tokens ? capacity / top_k : cpu->max_tokens;
	for (size_t i = 0; i < n; i = end) {
		c.prompts = i >= n_answers;
		end = c.prompts ? n : n_answers;
		end = end - i < slice ? end : i + slice;
		c.out = out + i * ld_out;
		c.weights = weights + i * top_k;
		moe_slice(&c, x + i * ld_x, ld_x, end - i, ids + i * top_k);
	}
}
