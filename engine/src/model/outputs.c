/* Rows of logits that stay with the backend: it picks what samplers need, and a whole row is fetched when somebody
 * asks for it. A vocabulary has 150,000 entries; a GPU is done with the next step before so many rows have come over.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"
#include "sampler/sampler.h"

/* Of one step. */
struct step_outputs {
	uint32_t n_best;           /* of each row */
	struct kn_picked *picked;  /* [max_outputs] */
	struct kn_best *best;      /* [max_outputs, n_best] */
	bool *has_picks, *is_here; /* [max_outputs]: the row was asked to be picked; it was fetched */
};

struct outputs {
	struct kn_pick *picks;                   /* [max_outputs], of the step being begun */
	struct step_outputs steps[KN_MAX_AHEAD]; /* as eng_runner.flights */
};

static const uint64_t bytes_per_row =
        sizeof(struct kn_pick) +
        KN_MAX_AHEAD * (sizeof(struct kn_picked) + KN_MAX_BEST * sizeof(struct kn_best) + 2 * sizeof(bool));

uint64_t runner_outputs_bytes(const struct eng_runner_config *config)
{
	return config->max_outputs * bytes_per_row;
}

static bool alloc_step(struct step_outputs *o, size_t n)
{
	o->picked = calloc(n, sizeof(*o->picked));
	o->best = calloc(n * KN_MAX_BEST, sizeof(*o->best));
	o->has_picks = calloc(n, sizeof(*o->has_picks));
	o->is_here = calloc(n, sizeof(*o->is_here));
	return o->picked && o->best && o->has_picks && o->is_here;
}

int runner_outputs_new(struct eng_runner *r)
{
	size_t n = r->config.max_outputs;
	bool has_all = true;
	struct outputs *o;

	if (!r->ops->pick || !r->model->head)
		return 0;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	r->outputs = o;
	o->picks = calloc(n, sizeof(*o->picks));
	for (int i = 0; i < KN_MAX_AHEAD; i++)
		has_all = alloc_step(&o->steps[i], n) && has_all;
	return o->picks && has_all ? 0 : -ENOMEM;
}

void runner_outputs_free(struct outputs *o)
{
	if (!o)
		return;
	free(o->picks);
	for (int i = 0; i < KN_MAX_AHEAD; i++) {
		free(o->steps[i].picked);
		free(o->steps[i].best);
		free(o->steps[i].has_picks);
		free(o->steps[i].is_here);
	}
	free(o);
}

bool runner_outputs_pick(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs)
{
	struct step_outputs *o;
	uint32_t n = 0, n_best = 0;
	bool any = false;

	if (!r->outputs)
		return false;
	o = &r->outputs->steps[r->n_begun % KN_MAX_AHEAD];
	for (size_t i = 0; i < n_seqs; i++) {
		const struct eng_step_seq *s = &seqs[i];

		for (uint32_t k = 0; k < s->n_out; k++, n++) {
			o->has_picks[n] = s->picks != NULL;
			o->is_here[n] = false;
			r->outputs->picks[n] = s->picks ? s->picks[k] : (struct kn_pick){ 0 };
			any = any || s->picks;
		}
		if (s->picks && s->n_best > n_best)
			n_best = s->n_best;
	}
	if (!any || n == 0 || seqs[0].output != ENG_OUT_LOGITS)
		return false;
	/* Few different numbers: a backend may prepare itself for each. */
	o->n_best = n_best == 0 ? 0 : n_best <= 32 ? 32 : KN_MAX_BEST;
	r->ops->pick(r->be, r->buf[B_OUT], r->model->hp.n_vocab, n, r->model->hp.n_vocab, r->model->hp.final_softcap,
	             r->outputs->picks, o->n_best, o->best, o->picked);
	return true;
}

/* Of the step that was waited for last. */
static struct step_outputs *landed(const struct eng_runner *r)
{
	return &r->outputs->steps[(r->n_waited - 1) % KN_MAX_AHEAD];
}

/* From where the backend left it, or, where that is host memory, in place: the cap is put on once. */
static const float *fetch(void *ctx, uint32_t index)
{
	struct eng_runner *r = ctx;
	size_t n = r->model->hp.n_vocab;
	float *src = r->buf[B_OUT] + index * n, *row = r->host_out ? r->host_out + index * n : src;

	assert(r->n_begun == r->n_waited); /* or the next step's rows are there */
	if (landed(r)->is_here[index])
		return row;
	if (r->host_out)
		r->ops->download(r->be, row, src, n * sizeof(*row));
	runner_cap_logits(r, row, n);
	landed(r)->is_here[index] = true;
	return row;
}

void eng_runner_row(struct eng_runner *r, uint32_t index, struct eng_row *ret_row)
{
	const struct step_outputs *o = landed(r);

	*ret_row = (struct eng_row){ .fetch = fetch, .ctx = r, .index = index };
	if (o->is_here[index])
		ret_row->logits = fetch(r, index);
	if (!o->has_picks[index])
		return;
	ret_row->picked = &o->picked[index];
	ret_row->best = o->best + (size_t)index * o->n_best;
	ret_row->n_best = o->n_best;
}
