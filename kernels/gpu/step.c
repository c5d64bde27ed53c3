/* What differs from step to step, as one block of memory: numbers of rows, token ids, positions, sequences, their
 * pages, and how attention is cut. Its places depend only on bounds, which are rounded up, so that a program made for
 * them serves all steps within them; one copy brings it to the device. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"

enum { ALIGN = 256, ROW_COUNTS_BYTES = 256 };

/* ---- Bounds ---- */

/* Few steps where decoding is, since padding costs time there; coarser above. */
static uint32_t bucket(uint32_t n)
{
	uint32_t step = n <= 4 ? 1 : n <= 8 ? 4 : n <= 32 ? 8 : n <= 128 ? 16 : n <= 256 ? 32 : n <= 1024 ? 64 : 128;

	return (n + step - 1) / step * step;
}

static uint32_t power_of_two(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p *= 2;
	return n ? p : 0;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* ---- While recording ---- */

static int grow(void **p, size_t *cap, size_t need, size_t size)
{
	size_t n = *cap ? *cap : 256;
	void *grown;

	if (need <= *cap)
		return 0;
	while (n < need)
		n *= 2;
	grown = realloc(*p, n * size);
	if (!grown)
		return -ENOMEM;
	*p = grown;
	*cap = n;
	return 0;
}

uint16_t gpu_step_rows(struct gpu_backend *be, size_t n)
{
	struct gpu_step *s = &be->step;

	for (uint32_t i = 0; i < s->n_rows; i++) {
		if (s->rows[i].n == n)
			return (uint16_t)i;
	}
	if (s->n_rows == MAX_ROW_SLOTS)
		return NO_SLOT;
	s->rows[s->n_rows] = (struct gpu_rows_slot){ .n = (uint32_t)n, .least_room = UINT32_MAX };
	return (uint16_t)s->n_rows++;
}

static uint16_t new_ints(struct gpu_backend *be, const int32_t *from, size_t n, uint16_t rows)
{
	struct gpu_step *s = &be->step;

	if (s->n_ints == MAX_INT_SLOTS ||
	    grow((void **)&s->int_data, &s->cap_int_data, s->n_int_data + n, sizeof(*s->int_data)) < 0)
		return NO_SLOT;
	if (n)
		memcpy(s->int_data + s->n_int_data, from, n * sizeof(*from));
	s->ints[s->n_ints] =
	        (struct gpu_ints_slot){ .from = from, .at = s->n_int_data, .n = (uint32_t)n, .rows = rows };
	s->n_int_data += n;
	return (uint16_t)s->n_ints++;
}

uint16_t gpu_step_ints(struct gpu_backend *be, const int32_t *values, size_t n, uint16_t rows)
{
	struct gpu_step *s = &be->step;

	for (uint32_t i = 0; i < s->n_ints && values; i++) {
		const struct gpu_ints_slot *slot = &s->ints[i];

		if (slot->from == values && slot->n == n && slot->rows == rows &&
		    memcmp(s->int_data + slot->at, values, n * sizeof(*values)) == 0)
			return (uint16_t)i;
	}
	return new_ints(be, values, n, rows);
}

void gpu_step_ints_append(struct gpu_backend *be, uint16_t slot, int32_t value)
{
	struct gpu_step *s = &be->step;

	if (slot + 1u != s->n_ints ||
	    grow((void **)&s->int_data, &s->cap_int_data, s->n_int_data + 1, sizeof(*s->int_data)) < 0) {
		gpu_fail(be, -ENOMEM, "rmsnorm");
		return;
	}
	s->int_data[s->n_int_data++] = value;
	s->ints[slot].n++;
}

uint16_t gpu_step_batch(struct gpu_backend *be, const struct kn_seq *seqs, size_t n_seqs, uint32_t page_tokens,
                        uint32_t n_kv_head, uint32_t group)
{
	struct gpu_step *s = &be->step;
	struct gpu_batch_slot *b;

	for (uint32_t i = 0; i < s->n_batches; i++) {
		b = &s->batch[i];
		if (b->from != seqs || b->n_seqs != n_seqs || b->answer_rows != be->base.n_answer_rows ||
		    (page_tokens && b->page_tokens != page_tokens) ||
		    memcmp(s->seqs + b->at, seqs, n_seqs * sizeof(*seqs)) != 0)
			continue;
		if (n_kv_head && !b->group) {
			b->n_kv_head = n_kv_head;
			b->group = group;
		}
		if (!n_kv_head || (b->n_kv_head == n_kv_head && b->group == group))
			return (uint16_t)i;
	}
	if (s->n_batches == MAX_BATCH_SLOTS ||
	    grow((void **)&s->seqs, &s->cap_seqs, s->n_seqs + n_seqs, sizeof(*seqs)) < 0)
		return NO_SLOT;
	memcpy(s->seqs + s->n_seqs, seqs, n_seqs * sizeof(*seqs));
	b = &s->batch[s->n_batches];
	*b = (struct gpu_batch_slot){ .from = seqs,
		                      .at = s->n_seqs,
		                      .n_seqs = (uint32_t)n_seqs,
		                      .page_tokens = page_tokens,
		                      .n_kv_head = n_kv_head,
		                      .group = group,
		                      .answer_rows = be->base.n_answer_rows };
	for (size_t i = 0; i < n_seqs; i++) {
		uint32_t end = seqs[i].row + seqs[i].n_q;

		b->n_rows = end > b->n_rows ? end : b->n_rows;
		b->n_pages += page_tokens ? (seqs[i].kv_len + page_tokens - 1) / page_tokens : 0;
	}
	s->n_seqs += n_seqs;
	return (uint16_t)s->n_batches++;
}

/* ---- When all is recorded ---- */

static uint32_t place(size_t *at, size_t bytes)
{
	size_t here = *at;

	*at = (here + bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
	return (uint32_t)here;
}

/* Sequences whose pages are shared (an encoder's rows) have them once each; only their number counts here. */
static int plan_batch(struct gpu_backend *be, struct gpu_batch_slot *b, struct gk_seq *seqs, uint32_t i)
{
	struct gpu_step *s = &be->step;

	b->plan = (struct gk_plan){ .few = s->work + (size_t)2 * i * s->plan_room,
		                    .many = s->work + (size_t)(2 * i + 1) * s->plan_room,
		                    .merge = s->merge + (size_t)i * s->plan_room,
		                    .room = s->plan_room,
		                    .answer_rows = b->answer_rows };
	if (!b->group)
		return 0;
	return gk_plan_attention(&be->ctx, b->n_kv_head, b->group, seqs, b->n_seqs, &b->plan);
}

/* The lists are as long as the longest plan needs; they grow until it fits. */
static int plan_all(struct gpu_backend *be)
{
	struct gpu_step *s = &be->step;
	uint32_t most = 0, longest = 0, rows = 0, room;
	struct gk_seq *seqs;
	int r = 0;

	for (uint32_t i = 0; i < s->n_batches; i++) {
		most = max_u32(most, s->batch[i].n_seqs);
		rows = max_u32(rows, s->batch[i].n_rows);
	}
	for (size_t i = 0; i < s->n_seqs; i++)
		longest = s->seqs[i].kv_len > longest ? s->seqs[i].kv_len : longest;
	/* Scratch grows with these, and whenever it does programs are made anew: seldom, then. */
	be->limits.max_seqs = max_u32(be->limits.max_seqs, power_of_two(most));
	room = power_of_two(gk_plan_room(&be->ctx, rows, most, longest));
	if (room > s->plan_room) {
		free(s->work);
		free(s->merge);
		s->work = calloc((size_t)2 * MAX_BATCH_SLOTS * room, sizeof(*s->work));
		s->merge = calloc((size_t)MAX_BATCH_SLOTS * room, sizeof(*s->merge));
		s->plan_room = s->work && s->merge ? room : 0;
		if (!s->plan_room)
			return -ENOMEM;
	}
	seqs = calloc(most ? most : 1, sizeof(*seqs));
	if (!seqs)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->n_batches && r == 0; i++) {
		struct gpu_batch_slot *b = &s->batch[i];

		for (uint32_t k = 0; k < b->n_seqs; k++) {
			const struct kn_seq *q = &s->seqs[b->at + k];

			seqs[k] = (struct gk_seq){ .kv_len = q->kv_len, .n_q = q->n_q, .row = q->row };
		}
		r = plan_batch(be, b, seqs, i);
		if (be->deterministic)
			be->limits.max_parts = max_u32(be->limits.max_parts, power_of_two(b->plan.n_parts));
	}
	free(seqs);
	return r;
}

static void bound_rows(struct gpu_backend *be)
{
	/* Experts' kernels are chosen by these bounds, too. */
	const uint32_t least = be->limits.n_expert ? 0 : be->least_rows;
	struct gpu_step *s = &be->step;

	for (uint32_t i = 0; i < s->n_rows; i++) {
		struct gpu_rows_slot *r = &s->rows[i];

		r->bound = r->is_exact ? r->n : max_u32(bucket(r->n), least);
		if (r->bound > r->least_room)
			r->bound = r->least_room > r->n ? r->least_room : r->n;
	}
}

static void bound_batch(struct gpu_step *s, struct gpu_batch_slot *b)
{
	b->max_rows = bucket(b->n_rows);
	for (uint32_t i = 0; i < s->n_rows; i++) {
		if (s->rows[i].n == b->n_rows)
			b->max_rows = s->rows[i].bound;
	}
	b->max_seqs = bucket(b->n_seqs);
	b->max_pages = power_of_two(b->n_pages);
	b->max_few = power_of_two(b->plan.n_few);
	b->max_many = power_of_two(b->plan.n_many);
	b->max_merge = power_of_two(b->plan.n_merge);
}

static void free_blob(struct gpu_backend *be)
{
	struct gpu_step *s = &be->step;

	for (int i = 0; i < 2; i++) {
		gpu_rt_host_free(&be->rt, s->hosts[i]);
		s->hosts[i] = NULL;
	}
	gpu_rt_free(&be->rt, s->device);
	s->host = s->device = NULL;
}

static int blob_room(struct gpu_backend *be, size_t bytes)
{
	struct gpu_step *s = &be->step;
	size_t cap = s->cap ? s->cap : 1 << 20;
	int r;

	if (bytes <= s->cap)
		return 0;
	while (cap < bytes)
		cap *= 2;
	r = gpu_rt_sync(&be->rt);
	if (r < 0)
		return r;
	gpu_programs_forget(be); /* they know the old place */
	free_blob(be);
	s->cap = 0;
	for (int i = 0; i < 2; i++)
		s->hosts[i] = gpu_rt_host_alloc(&be->rt, cap);
	s->device = gpu_rt_alloc(&be->rt, cap);
	if (!s->hosts[0] || !s->hosts[1] || !s->device)
		return -ENOMEM;
	s->cap = cap;
	return 0;
}

static void fill_batch(struct gpu_step *s, const struct gpu_batch_slot *b)
{
	uint32_t *counts = (uint32_t *)(s->host + b->o_counts), *row_seq = (uint32_t *)(s->host + b->o_row_seq);
	uint32_t *pages = (uint32_t *)(s->host + b->o_pages), n_pages = 0;
	struct gk_seq *seqs = (struct gk_seq *)(s->host + b->o_seqs);

	memset(counts, 0, GK_N_COUNTS * sizeof(*counts));
	counts[GK_N_ROWS] = b->n_rows;
	counts[GK_N_SEQS] = b->n_seqs;
	counts[GK_N_FEW] = b->plan.n_few;
	counts[GK_N_MANY] = b->plan.n_many;
	counts[GK_N_MERGE] = b->plan.n_merge;
	counts[GK_N_SHARES] = b->plan.n_shares;
	for (uint32_t i = 0; i < b->max_rows; i++)
		row_seq[i] = GK_WHOLE;
	for (uint32_t i = 0; i < b->n_seqs; i++) {
		const struct kn_seq *q = &s->seqs[b->at + i];
		uint32_t n = b->page_tokens ? (q->kv_len + b->page_tokens - 1) / b->page_tokens : 0;

		seqs[i] = (struct gk_seq){ .kv_len = q->kv_len,
			                   .n_q = q->n_q,
			                   .row = q->row,
			                   .first_page = n_pages,
			                   .state = q->state,
			                   .keep = q->keep,
			                   .keep_after = q->keep_after };
		if (n)
			memcpy(pages + n_pages, q->pages, n * sizeof(*pages));
		n_pages += n;
		for (uint32_t t = 0; t < q->n_q; t++)
			row_seq[q->row + t] = i;
	}
	memcpy(s->host + b->o_few, b->plan.few, b->plan.n_few * sizeof(struct gk_work));
	memcpy(s->host + b->o_many, b->plan.many, b->plan.n_many * sizeof(struct gk_work));
	memcpy(s->host + b->o_merge, b->plan.merge, b->plan.n_merge * sizeof(struct gk_merge));
}

int gpu_step_layout(struct gpu_backend *be)
{
	struct gpu_step *s = &be->step;
	size_t at = 0;
	int r = plan_all(be);

	if (r < 0)
		return r;
	bound_rows(be);
	(void)place(&at, ROW_COUNTS_BYTES);
	for (uint32_t i = 0; i < s->n_ints; i++) {
		uint32_t bound = s->rows[s->ints[i].rows].bound;

		s->ints[i].offset = place(&at, bound * sizeof(int32_t));
	}
	for (uint32_t i = 0; i < s->n_batches; i++) {
		struct gpu_batch_slot *b = &s->batch[i];

		bound_batch(s, b);
		b->o_counts = place(&at, GK_N_COUNTS * sizeof(uint32_t));
		b->o_seqs = place(&at, b->max_seqs * sizeof(struct gk_seq));
		b->o_row_seq = place(&at, b->max_rows * sizeof(uint32_t));
		b->o_few = place(&at, b->max_few * sizeof(struct gk_work));
		b->o_many = place(&at, b->max_many * sizeof(struct gk_work));
		b->o_merge = place(&at, b->max_merge * sizeof(struct gk_merge));
		b->o_pages = place(&at, b->max_pages * sizeof(uint32_t));
	}
	s->bytes = at;
	return blob_room(be, at);
}

int gpu_step_send(struct gpu_backend *be)
{
	struct gpu_step *s = &be->step;
	uint32_t *counts;
	int r;

	s->turn ^= 1;
	s->host = s->hosts[s->turn];
	r = gpu_rt_event_wait(&be->rt, s->copied[s->turn]);
	if (r < 0)
		return r;
	counts = (uint32_t *)s->host;
	for (uint32_t i = 0; i < s->n_rows; i++)
		counts[i] = s->rows[i].n;
	for (uint32_t i = 0; i < s->n_ints; i++) {
		int32_t *to = (int32_t *)(s->host + s->ints[i].offset);
		uint32_t n = s->ints[i].n, bound = s->rows[s->ints[i].rows].bound;

		memcpy(to, s->int_data + s->ints[i].at, n * sizeof(*to));
		memset(to + n, 0, (bound - n) * sizeof(*to)); /* rows of nobody read what is there */
	}
	for (uint32_t i = 0; i < s->n_batches; i++)
		fill_batch(s, &s->batch[i]);
	r = gpu_rt_to_device(&be->rt, s->device, s->host, s->bytes);
	return r < 0 ? r : gpu_rt_event_record(&be->rt, s->copied[s->turn]);
}

void gpu_step_reset(struct gpu_backend *be)
{
	struct gpu_step *s = &be->step;

	s->n_rows = s->n_ints = s->n_batches = 0;
	s->n_int_data = s->n_seqs = 0;
}

void gpu_step_close(struct gpu_backend *be)
{
	struct gpu_step *s = &be->step;

	free(s->int_data);
	free(s->seqs);
	free(s->work);
	free(s->merge);
	free_blob(be);
}

/* ---- For launches ---- */

struct gk_rows gpu_rows_of(const struct gpu_backend *be, uint16_t slot)
{
	const struct gpu_rows_slot *r = &be->step.rows[slot];

	return (struct gk_rows){ .bound = r->bound, .n = (const uint32_t *)be->step.device + slot };
}

const int32_t *gpu_ints_of(const struct gpu_backend *be, uint16_t slot)
{
	return slot == NO_SLOT ? NULL : (const int32_t *)(be->step.device + be->step.ints[slot].offset);
}

void gpu_batch_of(const struct gpu_backend *be, uint16_t slot, struct gk_batch *ret)
{
	const struct gpu_batch_slot *b = &be->step.batch[slot];
	char *at = be->step.device;

	*ret = (struct gk_batch){ .counts = (const uint32_t *)(at + b->o_counts),
		                  .seqs = (const struct gk_seq *)(at + b->o_seqs),
		                  .pages = (const uint32_t *)(at + b->o_pages),
		                  .row_seq = (const uint32_t *)(at + b->o_row_seq),
		                  .few = (const struct gk_work *)(at + b->o_few),
		                  .many = (const struct gk_work *)(at + b->o_many),
		                  .merge = (const struct gk_merge *)(at + b->o_merge),
		                  .max_rows = b->max_rows,
		                  .max_seqs = b->max_seqs,
		                  .max_few = b->max_few,
		                  .max_many = b->max_many,
		                  .max_merge = b->max_merge };
}
