/* One step of a runner: it is checked, the sequences are laid out as rows, the forward pass runs over all of them, and
 * outputs are computed only for the rows that were asked for. Begun and waited for apart, so that a backend that
 * computes by itself has the next step before this one is done; each of several devices does its share of it on a
 * thread (team.c). */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "model/internal.h"
#include "model/team.h"

/* The step begun last, when it was not waited for; else NULL. */
static const struct runner_flight *flight_before(const struct eng_runner *r)
{
	return r->n_begun > r->n_waited ? &r->flights[(r->n_begun - 1) % KN_MAX_AHEAD] : NULL;
}

static int check_ids(const struct eng_runner *r, const struct eng_step_seq *s, size_t i, struct err *err)
{
	const struct runner_flight *before = flight_before(r);

	if (s->from_row) {
		if (!before || s->n_ids != 1 || s->from_row > before->n_out)
			return err_set(err, -EINVAL, "step: sequence %zu: %u new tokens from row %u of %u", i, s->n_ids,
			               s->from_row - 1, before ? before->n_out : 0);
		return 0;
	}
	for (uint32_t t = 0; t < s->n_ids; t++) {
		if (s->ids[t] < 0 || (uint32_t)s->ids[t] >= r->model->hp.n_vocab)
			return err_set(err, -EINVAL, "step: token id %d is not below %u", s->ids[t],
			               r->model->hp.n_vocab);
	}
	return 0;
}

static int check_seq(const struct eng_runner *r, const struct eng_step_seq *s, size_t i, struct err *err)
{
	const struct hparams *hp = &r->model->hp;
	uint64_t end = (uint64_t)s->pos + s->n_ids;

	if (s->adapter > r->model->n_loras)
		return err_set(err, -EINVAL, "step: sequence %zu: adapter %u of %u", i, s->adapter, r->model->n_loras);
	if (hp->arch->encoder && s->pos != 0)
		return err_set(err, -EINVAL, "step: sequence %zu: an encoder takes a text as a whole", i);
	if (s->n_ids == 0 || s->n_out > s->n_ids)
		return err_set(err, -EINVAL, "step: sequence %zu: %u outputs of %u tokens", i, s->n_out, s->n_ids);
	if (end > hp->n_ctx)
		return err_set(err, -EINVAL, "step: sequence %zu: %llu tokens are beyond the model's context of %u", i,
		               (unsigned long long)end, hp->n_ctx);
	if (r->states && s->state >= r->config.n_states)
		return err_set(err, -EINVAL, "step: sequence %zu: state %u is not below %u", i, s->state,
		               r->config.n_states);
	if (r->states && s->keep_after && !r->be->keeps_states)
		return err_set(err, -EINVAL, "step: sequence %zu: backend %s keeps no states in a step", i,
		               r->ops->name);
	if (r->states && s->keep_after &&
	    (s->keep >= r->config.n_states || s->keep == s->state || s->keep_after > s->n_ids))
		return err_set(err, -EINVAL, "step: sequence %zu: state %u after %u of %u tokens cannot be kept in %u",
		               i, s->state, s->keep_after, s->n_ids, s->keep);
	if (r->states && s->pos != 0 && r->state_pos[s->state] != s->pos)
		return err_set(err, -EINVAL, "step: sequence %zu: position %u, its state %u has seen %u tokens", i,
		               s->pos, s->state, r->state_pos[s->state]);
	if (check_ids(r, s, i, err) < 0)
		return -EINVAL;
	for (uint64_t p = 0; p * r->config.page_tokens < end; p++) {
		if (s->pages[p] >= r->config.n_pages)
			return err_set(err, -EINVAL, "step: page %u is not below %u", s->pages[p], r->config.n_pages);
	}
	return 0;
}

static int check_step(const struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err)
{
	const struct runner_flight *before = flight_before(r);
	uint64_t n_tokens = 0, n_out = 0;
	int rc = 0;

	if (r->n_begun - r->n_waited == KN_MAX_AHEAD ||
	    (before && (!before->has_all_picks || !eng_runner_runs_ahead(r))))
		return err_set(err, -EINVAL, "step: the one before it has to be waited for");
	for (size_t i = 0; i < n_seqs && rc == 0; i++) {
		rc = check_seq(r, &seqs[i], i, err);
		if (rc == 0 && seqs[i].output != seqs[0].output)
			rc = err_set(err, -EINVAL, "step: one kind of output at a time");
		if (rc == 0 && i > 0 && r->be->tells_prompts && seqs[i].is_answer && !seqs[i - 1].is_answer)
			rc = err_set(err, -EINVAL, "step: answers come before prompts");
		n_tokens += seqs[i].n_ids;
		n_out += seqs[i].n_out;
	}
	if (rc < 0)
		return rc;
	if (n_seqs == 0 || n_tokens > r->config.max_tokens || n_out > r->config.max_outputs)
		return err_set(err, -EINVAL, "step: %llu tokens and %llu outputs, at most %u and %u",
		               (unsigned long long)n_tokens, (unsigned long long)n_out, r->config.max_tokens,
		               r->config.max_outputs);
	if (n_out && seqs[0].output == ENG_OUT_LOGITS && !r->model->head)
		return err_set(err, -ENOTSUP, "the model has no output matrix: it computes embeddings only");
	return 0;
}

/* One more sequence's rows, into the run before it when that has the same adapter. */
static void add_run(struct eng_runner *r, uint32_t adapter, uint32_t row, uint32_t n_rows)
{
	struct adapter_run *last = r->n_runs ? &r->runs[r->n_runs - 1] : NULL;

	if (last && last->adapter == adapter)
		last->n_rows += n_rows;
	else
		r->runs[r->n_runs++] = (struct adapter_run){ .adapter = adapter, .row = row, .n_rows = n_rows };
}

static void lay_out(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs)
{
	r->n_tokens = r->n_out = r->n_answer_rows = 0;
	r->n_seqs = n_seqs;
	r->n_runs = 0;
	for (size_t i = 0; i < n_seqs; i++) {
		const struct eng_step_seq *s = &seqs[i];

		r->seqs[i] = (struct kn_seq){
			.pages = s->pages,
			.kv_len = s->pos + s->n_ids,
			.n_q = s->n_ids,
			.row = r->n_tokens,
			.state = s->state,
			.keep = s->keep,
			.keep_after = s->keep_after,
		};
		if (r->states)
			r->state_pos[s->state] = s->pos + s->n_ids;
		if (r->states && s->keep_after)
			r->state_pos[s->keep] = s->pos + s->keep_after;
		if (r->runs)
			add_run(r, s->adapter, r->n_tokens, s->n_ids);
		if (s->is_answer)
			r->n_answer_rows += s->n_ids;
		for (uint32_t t = 0; t < s->n_ids; t++) {
			r->ids[r->n_tokens] = s->from_row ? KN_DRAWN(s->from_row - 1) : s->ids[t];
			r->pos[r->n_tokens++] = (int32_t)(s->pos + t);
		}
	}
}

/* The last norm over the rows that count, gathered, and the output matrix over those. */
static void compute_outputs(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs)
{
	const struct eng_model *m = r->model;
	const struct layer *last = &m->layers[m->hp.n_layer - 1];
	size_t dim = m->hp.n_embd;

	for (size_t i = 0; i < n_seqs; i++) {
		size_t first = r->seqs[i].row + seqs[i].n_ids - seqs[i].n_out;

		if (!seqs[i].n_out)
			continue;
		if (m->hp.arch->encoder)
			r->ops->layernorm(r->be, r->buf[B_OUT_H] + r->n_out * dim, dim, r->buf[B_X] + first * dim, dim,
			                  last->ffn_out_norm, last->ffn_out_bias, seqs[i].n_out, dim, m->hp.eps);
		else
			r->ops->rmsnorm(r->be, r->buf[B_OUT_H] + r->n_out * dim, dim, r->buf[B_X] + first * dim, dim,
			                m->out_norm, seqs[i].n_out, 1, dim, m->hp.eps);
		r->n_out += seqs[i].n_out;
	}
	if (r->n_out && seqs[0].output == ENG_OUT_LOGITS) {
		struct span rows = model_share_vocab(m->share, m->hp.n_vocab);
		const struct kn_matmul head = { .w = m->head,
			                        .out = r->buf[B_OUT] + rows.first,
			                        .ld_out = m->hp.n_vocab };

		r->ops->matmul(r->be, &head, 1, r->buf[B_OUT_H], dim, r->n_out);
		/* Each device picks from whole rows, so that all know what was drawn. */
		if (runner_is_divided(r))
			r->ops->all_gather(r->be, r->buf[B_OUT], m->hp.n_vocab, r->n_out,
			                   model_share_vocab_rows(m->share, m->hp.n_vocab), m->hp.n_vocab);
	}
}

void runner_cap_logits(const struct eng_runner *r, float *x, size_t n)
{
	float cap = r->model->hp.final_softcap;

	for (size_t i = 0; i < n && cap > 0; i++)
		x[i] = cap * tanhf(x[i] / cap);
}

bool eng_runner_picks(const struct eng_runner *r)
{
	return r->outputs != NULL;
}

bool eng_runner_is_async(const struct eng_runner *r)
{
	return r->ops->submit != NULL;
}

bool eng_runner_runs_ahead(const struct eng_runner *r)
{
	return r->ops->submit && r->outputs;
}

uint64_t eng_runner_busy_ns(const struct eng_runner *r)
{
	return r->ops->busy_ns ? r->ops->busy_ns(r->be) : 0;
}

static bool has_all_picks(const struct eng_step_seq *seqs, size_t n_seqs)
{
	for (size_t i = 0; i < n_seqs; i++) {
		if (seqs[i].n_out > 0 && !seqs[i].picks)
			return false;
	}
	return true;
}

static void begin(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs)
{
	struct runner_flight *f = &r->flights[r->n_begun % KN_MAX_AHEAD];

	lay_out(r, seqs, n_seqs);
	r->be->n_answer_rows = r->n_answer_rows;
	forward(r);
	r->be->n_answer_rows = UINT32_MAX; /* one kind of row from here on: they are few */
	compute_outputs(r, seqs, n_seqs);
	*f = (struct runner_flight){ .output = seqs[0].output,
		                     .n_out = r->n_out,
		                     .is_picked = runner_outputs_pick(r, seqs, n_seqs),
		                     .has_all_picks = r->outputs && has_all_picks(seqs, n_seqs) };
	if (r->ops->submit)
		r->ops->submit(r->be);
	r->n_begun++;
}

/* What all devices of a group do at once. */
struct team_step {
	struct eng_runner *r;
	const struct eng_step_seq *seqs;
	size_t n_seqs;
	int results[KN_MAX_RANKS];
};

static void begin_share(void *arg, uint32_t rank)
{
	const struct team_step *step = arg;

	begin(step->r->shares[rank], step->seqs, step->n_seqs);
}

int eng_runner_begin(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs, struct err *err)
{
	struct team_step step = { .r = r, .seqs = seqs, .n_seqs = n_seqs };
	int rc = check_step(r, seqs, n_seqs, err);

	if (rc < 0)
		return rc;
	if (r->team)
		runner_team_run(r->team, begin_share, &step);
	else
		begin(r, seqs, n_seqs);
	return 0;
}

static int wait_for(struct eng_runner *r)
{
	r->n_waited++;
	return r->ops->wait ? r->ops->wait(r->be) : r->ops->sync(r->be);
}

static void wait_share(void *arg, uint32_t rank)
{
	struct team_step *step = arg;

	step->results[rank] = wait_for(step->r->shares[rank]);
}

/* One that fails lets those go that wait for it, so each has to be waited for at the same time. */
static int wait_for_all(struct eng_runner *r)
{
	struct team_step step = { .r = r };
	int rc = 0;

	if (!r->team)
		return wait_for(r);
	runner_team_run(r->team, wait_share, &step);
	for (uint32_t i = 0; i < r->n_shares && rc == 0; i++)
		rc = step.results[i];
	return rc;
}

int eng_runner_wait(struct eng_runner *r, const float **ret_rows, struct err *err)
{
	const struct hparams *hp = &r->model->hp;
	const struct runner_flight *f = &r->flights[r->n_waited % KN_MAX_AHEAD];
	bool logits = f->output == ENG_OUT_LOGITS;
	float *out = r->buf[logits ? B_OUT : B_OUT_H];
	size_t n = (size_t)f->n_out * (logits ? hp->n_vocab : hp->n_embd);
	int rc;

	if (r->n_waited == r->n_begun)
		return err_set(err, -EINVAL, "no step was begun");
	rc = wait_for_all(r);
	if (rc < 0)
		return err_set(err, rc, "backend %s failed: %s", r->ops->name, strerror(-rc));
	*ret_rows = NULL;
	if (f->is_picked || n == 0)
		return 0;
	if (r->host_out) {
		r->ops->download(r->be, r->host_out, out, n * sizeof(*out));
		out = r->host_out;
	}
	if (logits)
		runner_cap_logits(r, out, n);
	*ret_rows = out;
	return 0;
}

int eng_runner_step(struct eng_runner *r, const struct eng_step_seq *seqs, size_t n_seqs, const float **ret_rows,
                    struct err *err)
{
	int rc = eng_runner_begin(r, seqs, n_seqs, err);

	return rc < 0 ? rc : eng_runner_wait(r, ret_rows, err);
}
