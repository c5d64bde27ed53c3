/* Attention over the paged cache, by online softmax (Milakov and Gimelshein, 2018) over steps of 64 keys.
 *
 * The rows of a query group (all query heads that read one K/V head, for consecutive tokens) form tiles of up
 * to 32, or 128 where there are kernels for many rows: K and V are read once for a tile. Steps begin at positions
 * divisible by 64 and sums are closed and merged part by part, at fixed positions, whether or not the parts are
 * computed by different threads: a query's result does not depend on the batch, on how its prompt was cut, or on the
 * threads.
 *
 * Single tokens of sequences that begin with the same pages (attn_share.c) meet the steps that they share
 * together, and those are read once for all of them; each goes on from there alone, if need be within a part.
 *
 * The kernels for many rows round, so which kernels a row takes must not depend on its neighbours where that promise
 * is to hold: in deterministic mode prompts take those for many, and answers the others. */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu/attn.h"

enum {
	TILE_ROWS = 32,
	MANY_ROWS = 128, /* of a tile */
	STEP = ATTN_STEP,
	SOFTMAX_ROWS = 16, /* of the kernels for many, between which memory is asked for more */
	SPLIT = 128,
	MANY_SPLIT = 512, /* keys per part */
	PARTS_BYTES = 64 << 20,
	CHUNKS = 8, /* of a loop over answers, per thread */
	SHARED_GRAIN = 2,
	SERIAL_WORK = 48 << 10, /* multiplications not worth a parallel loop */
};

/* Running softmax of a tile: greatest score, sum of exponentials, weighted values. */
struct state {
	float m[MANY_ROWS], l[MANY_ROWS];
	float *o; /* [rows][ld] */
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t pad16(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

static size_t tile_rows(const struct cpu_backend *cpu)
{
	return cpu->isa->attn_many ? MANY_ROWS : TILE_ROWS;
}

/* A thread's scratch. */
struct scratch {
	float *q, *s;            /* queries, scores */
	float *o_part, *o;       /* two states' values */
	uint16_t *qh, *ph;       /* queries and probabilities for the kernels for many rows */
	uint16_t *keys, *values; /* a step's, for those */
	struct attn_ahead ahead;
};

/* Floats of a thread's scratch, and that cut up. */
static size_t scratch_floats(size_t rows, size_t q_pad, size_t o_pad)
{
	return rows * (q_pad + q_pad / 2 + STEP + STEP / 2 + 2 * o_pad) + STEP / 2 * (q_pad + o_pad);
}

static struct scratch scratch_of(const struct cpu_backend *cpu, unsigned worker, size_t q_pad, size_t o_pad)
{
	size_t rows = tile_rows(cpu);
	struct scratch s;

	s.q = (float *)cpu->attn.p + worker * scratch_floats(rows, KN_MAX_HEAD, KN_MAX_HEAD);
	s.s = s.q + rows * q_pad;
	s.o_part = s.s + rows * STEP;
	s.o = s.o_part + rows * o_pad;
	s.qh = (uint16_t *)(s.o + rows * o_pad);
	s.ph = s.qh + rows * q_pad;
	s.keys = s.ph + rows * STEP;
	s.values = s.keys + STEP * q_pad;
	return s;
}

int cpu_attention_reserve(struct cpu_backend *cpu)
{
	int r = cpu_area_reserve(&cpu->attn, cpu->n_threads * scratch_floats(tile_rows(cpu), KN_MAX_HEAD, KN_MAX_HEAD) *
	                                             sizeof(float));

	return r < 0 ? r : cpu_area_reserve(&cpu->attn_parts, PARTS_BYTES);
}

static const float *q_row(const struct attn_call *c, const struct attn_tile *t, size_t r)
{
	size_t row = t->first_row + r, i = row / c->n_rep;
	size_t head = (size_t)t->kv_head * c->n_rep + row % c->n_rep;
	size_t token = t->members ? c->seqs[t->members[i]].row : t->seq->row + i;

	return c->q + token * c->ld_q + head * c->kv->k_dim;
}

static float *out_row(const struct attn_call *c, const struct attn_tile *t, size_t r)
{
	size_t row = t->first_row + r;
	size_t head = (size_t)t->kv_head * c->n_rep + row % c->n_rep;

	return c->out + (t->seq->row + row / c->n_rep) * c->ld_out + head * c->kv->v_dim;
}

/* Queries times the scale, padded with zeros. */
static void load_queries(const struct attn_call *c, const struct attn_tile *t, const struct scratch *w)
{
	for (size_t r = 0; r < t->n_rows; r++) {
		float *dst = w->q + r * c->q_pad;

		memcpy(dst, q_row(c, t, r), c->kv->k_dim * sizeof(*dst));
		c->cpu->isa->scale(dst, c->kv->k_dim, c->attn->scale);
		memset(dst + c->kv->k_dim, 0, (c->q_pad - c->kv->k_dim) * sizeof(*dst));
		if (t->many)
			c->cpu->isa->store[KN_BF16](w->qh + r * c->q_pad, dst, c->q_pad);
	}
}

/* Keys and values of [t0, t1) in the order of the kernels for many rows. */
static void pack_step(const struct attn_call *c, const struct attn_tile *t, const struct scratch *w, uint32_t t0,
                      uint32_t t1)
{
	const struct cpu_attn_many *many = c->cpu->isa->attn_many;
	size_t elem = attn_elem(c), ld_v = c->kv->v ? c->kv->v_dim : c->kv->k_dim, n;
	const void *k_rows[STEP] = { 0 }, *v_rows[STEP] = { 0 };

	for (uint32_t k = t0; k < t1; k += (uint32_t)n) {
		const void *pk, *pv;

		n = attn_page_run(c, t, k, t1, &pk, &pv);
		for (size_t i = 0; i < n; i++) {
			k_rows[k - t0 + i] = (const char *)pk + i * c->kv->k_dim * elem;
			v_rows[k - t0 + i] = (const char *)pv + i * ld_v * elem;
		}
	}
	many->keys(c->kv->dtype, w->keys, k_rows, c->kv->k_dim);
	many->values(c->kv->dtype, w->values, v_rows, c->kv->v_dim);
}

/* Scores of keys [t0, t1) into w->s [rows][STEP], with -infinity for those a row must not see. */
static void scores(const struct attn_call *c, const struct attn_tile *t, struct scratch *w, uint32_t t0, uint32_t t1)
{
	const struct cpu_isa *isa = c->cpu->isa;
	float *s = w->s;
	size_t n;

	if (t->many)
		isa->attn_many->qk(s, STEP, w->qh, c->q_pad, t->n_rows, w->keys, c->kv->k_dim);
	for (uint32_t k = t0; k < t1 && !t->many; k += (uint32_t)n) {
		const void *pk, *pv, *ahead;

		n = attn_page_run(c, t, k, t1, &pk, &pv);
		ahead = cpu_attn_ahead_take(&w->ahead, &n, c->kv->k_dim * attn_elem(c));
		isa->qk[c->kv->dtype](s + (k - t0), STEP, w->q, c->q_pad, t->n_rows, pk, c->kv->k_dim, n, c->kv->k_dim,
		                      ahead);
	}
	if (t->members && !(c->attn->softcap > 0))
		return;
	for (size_t r = 0; r < t->n_rows; r++) {
		uint32_t pos = t->members ? t->key_hi - 1 : attn_row_pos(c, t->seq, t->first_row + r),
		         lo = attn_first_key(c, pos);
		float *row = s + r * STEP;

		if (c->attn->softcap > 0)
			isa->softcap(row, t1 - t0, c->attn->softcap);
		for (uint32_t k = t0; k < lo && k < t1; k++)
			row[k - t0] = -INFINITY;
		for (uint32_t k = pos + 1 > t0 ? pos + 1 : t0; k < t0 + STEP; k++)
			row[k - t0] = -INFINITY;
	}
}

/* The rest of a step whose scores are there, by the kernels for many rows. */
static void weigh_many(const struct attn_call *c, const struct attn_tile *t, struct scratch *w, struct state *st,
                       uint32_t n_keys)
{
	const struct cpu_attn_many *many = c->cpu->isa->attn_many;
	size_t per_row = (n_keys * (c->kv->v ? 2 : 1) + t->n_rows - 1) / t->n_rows, n;
	float fade[SOFTMAX_ROWS];

	for (size_t first = 0; first < t->n_rows; first += n) {
		n = min_size(SOFTMAX_ROWS, t->n_rows - first);
		many->softmax(w->ph + first * STEP, STEP, w->s + first * STEP, STEP, n, st->m + first, st->l + first,
		              fade);
		for (size_t i = 0; i < n; i++) {
			if (fade[i] != 1)
				c->cpu->isa->scale(st->o + (first + i) * c->o_pad, c->kv->v_dim, fade[i]);
			cpu_attn_ahead_ask(&w->ahead, per_row);
		}
	}
	many->pv(st->o, c->o_pad, w->ph, STEP, t->n_rows, w->values, c->kv->v_dim);
}

/* One step of the online softmax: keys [t0, t1), t0 divisible by STEP. */
static void step(const struct attn_call *c, const struct attn_tile *t, struct scratch *w, struct state *st, uint32_t t0,
                 uint32_t t1)
{
	const struct cpu_isa *isa = c->cpu->isa;
	size_t ld_v = c->kv->v ? c->kv->v_dim : c->kv->k_dim, n;
	const void *ahead = NULL;

	if (t->many)
		pack_step(c, t, w, t0, t1);
	scores(c, t, w, t0, t1);
	if (t->many) {
		weigh_many(c, t, w, st, t1 - t0);
		return;
	}
	for (size_t r = 0; r < t->n_rows; r++) {
		float m = st->m[r], sum = isa->softmax_step(w->s + r * STEP, STEP, &m);

		if (m != st->m[r] && st->m[r] == -INFINITY) {
			st->m[r] = m; /* all else is zero */
		} else if (m != st->m[r]) {
			float fade = expf(st->m[r] - m);

			st->l[r] *= fade;
			isa->scale(st->o + r * c->o_pad, c->kv->v_dim, fade);
			st->m[r] = m;
		}
		st->l[r] += sum;
	}
	for (uint32_t k = t0; k < t1; k += (uint32_t)n) {
		const void *pk, *pv;

		n = attn_page_run(c, t, k, t1, &pk, &pv);
		if (c->kv->v)
			ahead = cpu_attn_ahead_take(&w->ahead, &n, ld_v * attn_elem(c));
		isa->pv[c->kv->dtype](st->o, c->o_pad, w->s + (k - t0), STEP, t->n_rows, pv, ld_v, n, c->kv->v_dim,
		                      ahead);
	}
}

static void state_clear(const struct attn_call *c, struct state *st, size_t n_rows)
{
	for (size_t r = 0; r < n_rows; r++) {
		st->m[r] = -INFINITY;
		st->l[r] = 0;
	}
	memset(st->o, 0, n_rows * c->o_pad * sizeof(float));
}

/* Keys [lo, hi), lo divisible by STEP. */
static void run_keys(const struct attn_call *c, const struct attn_tile *t, struct scratch *w, struct state *st,
                     uint32_t lo, uint32_t hi)
{
	for (uint32_t k = lo; k < hi; k += STEP)
		step(c, t, w, st, k, k + STEP < hi ? k + STEP : hi);
}

/* total += a part, whose m, l and o are given. */
static void merge(const struct attn_call *c, struct state *total, size_t n_rows, const float *m, const float *l,
                  const float *o)
{
	const struct cpu_isa *isa = c->cpu->isa;

	for (size_t r = 0; r < n_rows; r++) {
		float top = total->m[r] > m[r] ? total->m[r] : m[r], fade, weight;

		if (top == -INFINITY)
			continue;
		if (total->m[r] == -INFINITY) {
			total->m[r] = m[r];
			total->l[r] = l[r];
			memcpy(total->o + r * c->o_pad, o + r * c->o_pad, c->o_pad * sizeof(*o));
			continue;
		}
		fade = expf(total->m[r] - top);
		weight = expf(m[r] - top);
		total->m[r] = top;
		total->l[r] = total->l[r] * fade + l[r] * weight;
		isa->scale(total->o + r * c->o_pad, c->kv->v_dim, fade);
		isa->add(total->o + r * c->o_pad, o + r * c->o_pad, c->kv->v_dim, weight);
	}
}

/* Divides by the sum, to which a sink adds its share, and writes the result. */
static void finish(const struct attn_call *c, const struct attn_tile *t, const struct state *st)
{
	for (size_t r = 0; r < t->n_rows; r++) {
		float *dst = out_row(c, t, r), sum = st->l[r], factor = 1;

		if (c->attn->sinks) {
			float sink = c->attn->sinks[t->kv_head * c->n_rep + (t->first_row + r) % c->n_rep];
			float top = sink > st->m[r] ? sink : st->m[r];

			factor = expf(st->m[r] - top);
			sum = sum * factor + expf(sink - top);
		}
		memcpy(dst, st->o + r * c->o_pad, c->kv->v_dim * sizeof(*dst));
		c->cpu->isa->scale(dst, c->kv->v_dim, factor / sum);
	}
}

/* ---- Loops ---- */

static void run_tile(const struct attn_call *c, const struct attn_item *item, struct scratch *w)
{
	const struct attn_tile *t = &item->t;
	struct state part = { .o = w->o_part }, total = { .o = w->o };

	load_queries(c, t, w);
	if (item->lo / c->split < (item->hi - 1) / c->split)
		state_clear(c, &total, t->n_rows);
	for (uint32_t lo = item->lo, hi; lo < item->hi; lo = hi) {
		hi = (uint32_t)min_size((lo / c->split + 1) * c->split, item->hi);
		state_clear(c, &part, t->n_rows);
		run_keys(c, t, w, &part, lo, hi);
		if (lo == item->lo && hi == item->hi)
			finish(c, t, &part);
		else
			merge(c, &total, t->n_rows, part.m, part.l, part.o);
	}
	if (item->lo / c->split < (item->hi - 1) / c->split)
		finish(c, t, &total);
}

/* Where a part of a tile leaves m [part_rows], l [part_rows] and o. */
static float *part_at(const struct attn_call *c, size_t tile, size_t part)
{
	return c->parts + (tile * c->n_parts + part) * c->part_floats;
}

/* The results go to the members' own tiles. */
static void run_shared(const struct attn_call *c, const struct attn_item *item, struct scratch *w)
{
	struct state st = { .o = w->o_part };

	load_queries(c, &item->t, w);
	state_clear(c, &st, item->t.n_rows);
	run_keys(c, &item->t, w, &st, item->lo, item->hi);
	for (size_t i = 0; i < item->n_members; i++) {
		float *dst = part_at(c, item->share->tiles[item->first + i] + item->t.kv_head, item->part);

		memcpy(dst, st.m + i * c->n_rep, c->n_rep * sizeof(*dst));
		memcpy(dst + c->part_rows, st.l + i * c->n_rep, c->n_rep * sizeof(*dst));
		memcpy(dst + 2 * c->part_rows, st.o + i * c->n_rep * c->o_pad, c->n_rep * c->o_pad * sizeof(*dst));
	}
}

static void merge_parts(const struct attn_call *c, const struct attn_item *item, struct scratch *w)
{
	const struct attn_tile *t = &item->t;
	struct state total = { .o = w->o };

	state_clear(c, &total, t->n_rows);
	for (uint32_t p = t->key_lo / c->split; p * c->split < t->key_hi; p++) {
		const float *part = part_at(c, item->tile, p);

		merge(c, &total, t->n_rows, part, part + c->part_rows, part + 2 * c->part_rows);
	}
	finish(c, t, &total);
}

/* Who completes a tile merges its parts. */
static void run_part(const struct attn_call *c, const struct attn_item *item, struct scratch *w)
{
	float *dst = part_at(c, item->tile, item->part);
	size_t n_rows = item->t.n_rows;
	struct state st = { .o = dst + 2 * c->part_rows };

	load_queries(c, &item->t, w);
	if (item->resumes) {
		memcpy(st.m, dst, n_rows * sizeof(*dst));
		memcpy(st.l, dst + c->part_rows, n_rows * sizeof(*dst));
	} else {
		state_clear(c, &st, n_rows);
	}
	run_keys(c, &item->t, w, &st, item->lo, item->hi);
	memcpy(dst, st.m, n_rows * sizeof(*dst));
	memcpy(dst + c->part_rows, st.l, n_rows * sizeof(*dst));
	if (atomic_fetch_sub_explicit(&c->n_missing[item->tile], 1, memory_order_acq_rel) == 1)
		merge_parts(c, item, w);
}

static void run_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct attn_call *c = arg;
	struct scratch w = scratch_of(c->cpu, worker, c->q_pad, c->o_pad);
	struct attn_item item = { 0 };
	struct attn_walk walk;

	cpu_attn_walk_begin(&walk, c, begin, end);
	cpu_attn_ahead_begin(&w.ahead, c, begin, end);
	while (cpu_attn_walk_next(&walk, &item)) {
		if (item.lo >= item.hi)
			continue;
		if (c->loop == ATTN_TILES)
			run_tile(c, &item, &w);
		else if (c->loop == ATTN_SHARED)
			run_shared(c, &item, &w);
		else
			run_part(c, &item, &w);
	}
}

static void run_loop(struct attn_call *c, enum attn_loop loop, size_t grain)
{
	c->loop = loop;
	base_threadpool_for(c->cpu->pool, cpu_attn_items(c), grain, run_items, c);
}

/* What single tokens share, and where their tiles are. */
static void find_shares(struct attn_call *c)
{
	c->shares = cpu_shares_find(c->cpu, c->seqs, c->n_seqs, c->kv->page_tokens, STEP, &c->n_shares);
	for (size_t i = 0, tile = 0; i < c->n_seqs && c->n_shares; i++) {
		c->cpu->shares.first_tile[i] = (uint32_t)tile;
		tile += attn_tiles(c, &c->seqs[i]) * c->kv->n_kv_head;
	}
	for (size_t i = 0; i < c->n_shares; i++) {
		const struct cpu_share *share = &c->shares[i];

		for (size_t k = 0; k < share->n; k++)
			share->tiles[k] = c->cpu->shares.first_tile[share->members[k]];
	}
}

/* Takes room for the parts of so many tiles; false: there is not enough. */
static bool take_parts(struct attn_call *c, size_t n_tiles)
{
	size_t counts = (n_tiles * sizeof(*c->n_missing) + 63) / 64 * 64;
	size_t room = c->cpu->attn_parts.bytes, tile = c->n_parts * c->part_floats * sizeof(float);

	if (counts > room || n_tiles > (room - counts) / tile)
		return false;
	c->n_missing = (_Atomic uint32_t *)c->cpu->attn_parts.p;
	c->parts = (float *)(c->cpu->attn_parts.p + counts);
	for (size_t i = 0, tile_no = 0; i < c->n_seqs; i++) {
		size_t n = attn_tiles(c, &c->seqs[i]), heads = c->kv->n_kv_head;

		for (size_t k = 0; k < n; k++) {
			uint32_t parts = cpu_attn_own_parts(c, &c->seqs[i], k * heads);

			for (size_t h = 0; h < heads; h++)
				atomic_init(&c->n_missing[tile_no++], parts);
		}
	}
	return true;
}

/* Items of a thread's chunk: as many as possible follow each other, but each thread gets several chunks. */
static size_t grain_of(const struct attn_call *c, size_t n_items)
{
	size_t n = n_items / (CHUNKS * (size_t)c->cpu->n_threads);

	return n ? n : 1;
}

static void attend(struct cpu_backend *cpu, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn,
                   enum attn_kernels kernels)
{
	struct attn_call c = { .cpu = cpu,
		               .kernels = kernels,
		               .loop = ATTN_TILES,
		               .out = out,
		               .ld_out = ld_out,
		               .q = q,
		               .ld_q = ld_q,
		               .kv = kv,
		               .seqs = seqs,
		               .n_seqs = n_seqs,
		               .attn = attn,
		               .n_rep = attn->n_head / kv->n_kv_head,
		               .tile_rows = tile_rows(cpu),
		               .q_pad = cpu_pad32(kv->k_dim),
		               .o_pad = pad16(kv->v_dim) };
	size_t tiles = 0, work = 0, longest = 0, all = 0, most_q = 0;

	for (size_t i = 0; i < n_seqs; i++) {
		tiles += attn_tiles(&c, &seqs[i]) * kv->n_kv_head;
		work += (size_t)seqs[i].n_q * seqs[i].kv_len * attn->n_head * (kv->k_dim + kv->v_dim);
		longest = seqs[i].kv_len > longest ? seqs[i].kv_len : longest;
		all += seqs[i].kv_len;
		most_q = seqs[i].n_q > most_q ? seqs[i].n_q : most_q;
	}
	c.split = cpu_attn_takes_many(&c, most_q * c.n_rep) ? MANY_SPLIT : SPLIT;
	c.n_parts = (longest + c.split - 1) / c.split;
	c.part_rows = min_size(c.tile_rows, most_q * c.n_rep);
	if (cpu_attn_takes_many(&c, c.part_rows))
		c.part_rows = c.tile_rows;
	c.part_floats = c.part_rows * (2 + c.o_pad);
	if (c.n_parts > 1 && n_seqs > 1 && !attn->window && c.n_rep <= c.tile_rows)
		find_shares(&c);
	if (work < SERIAL_WORK) {
		c.n_shares = 0;
		run_items(&c, 0, tiles, 0);
	} else if (c.n_parts > 1 && (c.n_shares || tiles < 4 * (size_t)cpu->n_threads) && take_parts(&c, tiles)) {
		if (c.n_shares)
			run_loop(&c, ATTN_SHARED, SHARED_GRAIN);
		c.loop = ATTN_PARTS;
		run_loop(&c, ATTN_PARTS, grain_of(&c, cpu_attn_items(&c)));
	} else {
		bool even = most_q == 1 && longest * n_seqs <= 2 * all;

		c.n_shares = 0;
		run_loop(&c, ATTN_TILES, even ? grain_of(&c, tiles) : 1);
	}
}

void cpu_attention(struct kn_backend *be, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	size_t n = 0;

	if (kv->k_dim > KN_MAX_HEAD || kv->v_dim > KN_MAX_HEAD) {
		cpu->error = -ENOTSUP;
		return;
	}
	if (!be->tells_prompts) {
		attend(cpu, out, ld_out, q, ld_q, kv, seqs, n_seqs, attn, ATTN_BY_ROWS);
		return;
	}
	while (n < n_seqs && seqs[n].row < be->n_answer_rows)
		n++;
	if (n > 0)
		attend(cpu, out, ld_out, q, ld_q, kv, seqs, n, attn, ATTN_FOR_FEW);
	if (n < n_seqs)
		attend(cpu, out, ld_out, q, ld_q, kv, seqs + n, n_seqs - n, attn, ATTN_FOR_MANY);
}
