/* Attention over the paged cache, by online softmax (Milakov and Gimelshein, 2018) over steps of 64 keys.
 *
 * The rows of a query group (all query heads that read one K/V head, for consecutive tokens) form tiles of up
 * to 32: K and V are read once for a tile. Steps begin at positions divisible by 64 and sums are closed and
 * merged every SPLIT keys, at positions divisible by it, whether or not the parts are computed by different
 * threads: a query's result does not depend on the batch, on how its prompt was cut, or on the threads. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

enum {
	TILE_ROWS = 32,
	STEP = CPU_ATTN_TOKENS,
	SPLIT = 512, /* keys per part */
	PARTS_BYTES = 64 << 20,
	SERIAL_WORK = 48 << 10, /* multiplications not worth a parallel loop */
};

/* Running softmax of a tile: greatest score, sum of exponentials, weighted values. */
struct state {
	float m[TILE_ROWS], l[TILE_ROWS];
	float *o; /* [rows][ld] */
};

struct call {
	struct cpu_backend *cpu;
	float *out;
	size_t ld_out;
	const float *q;
	size_t ld_q;
	const struct kn_kv *kv;
	const struct kn_seq *seqs;
	size_t n_seqs;
	const struct kn_attn *attn;
	uint32_t n_rep; /* query heads per K/V head */
	size_t q_pad, o_pad;
	size_t n_parts; /* parts that items are split into; 1 when they are not */
	size_t part_floats;
};

/* Some rows of one query group of one sequence. Row r is token first_row + r ... of the flattened
 * [token][head of the group]. */
struct tile {
	const struct kn_seq *seq;
	uint32_t kv_head;
	size_t first_row, n_rows;
	uint32_t pos_lo, pos_hi; /* of the first and last row */
	uint32_t key_lo, key_hi; /* keys seen by any row: [lo, hi) */
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t pad16(size_t n)
{
	return (n + 15) & ~(size_t)15;
}

/* Floats of a thread's scratch: queries, scores, two states' values. */
static size_t scratch_floats(size_t q_pad, size_t o_pad)
{
	return TILE_ROWS * (q_pad + STEP + 2 * o_pad);
}

int cpu_attention_reserve(struct cpu_backend *cpu)
{
	int r = cpu_area_reserve(&cpu->attn, cpu->n_threads * scratch_floats(KN_MAX_HEAD, KN_MAX_HEAD) * sizeof(float));

	return r < 0 ? r : cpu_area_reserve(&cpu->attn_parts, PARTS_BYTES);
}

static uint32_t row_pos(const struct call *c, const struct kn_seq *seq, size_t row)
{
	return seq->kv_len - seq->n_q + (uint32_t)(row / c->n_rep);
}

static uint32_t first_key(const struct call *c, uint32_t pos)
{
	return c->attn->window && pos + 1 > c->attn->window ? pos + 1 - c->attn->window : 0;
}

static size_t n_tiles(const struct call *c, const struct kn_seq *seq)
{
	return ((size_t)seq->n_q * c->n_rep + TILE_ROWS - 1) / TILE_ROWS;
}

static void tile_init(const struct call *c, struct tile *t, const struct kn_seq *seq, uint32_t kv_head, size_t index)
{
	t->seq = seq;
	t->kv_head = kv_head;
	t->first_row = index * TILE_ROWS;
	t->n_rows = min_size(TILE_ROWS, (size_t)seq->n_q * c->n_rep - t->first_row);
	t->pos_lo = row_pos(c, seq, t->first_row);
	t->pos_hi = row_pos(c, seq, t->first_row + t->n_rows - 1);
	t->key_lo = first_key(c, t->pos_lo);
	t->key_hi = t->pos_hi + 1;
}

static const float *q_row(const struct call *c, const struct tile *t, size_t r)
{
	size_t row = t->first_row + r;
	size_t head = (size_t)t->kv_head * c->n_rep + row % c->n_rep;

	return c->q + (t->seq->row + row / c->n_rep) * c->ld_q + head * c->kv->k_dim;
}

static float *out_row(const struct call *c, const struct tile *t, size_t r)
{
	size_t row = t->first_row + r;
	size_t head = (size_t)t->kv_head * c->n_rep + row % c->n_rep;

	return c->out + (t->seq->row + row / c->n_rep) * c->ld_out + head * c->kv->v_dim;
}

/* Queries times the scale, padded with zeros. */
static void load_queries(const struct call *c, const struct tile *t, float *q)
{
	for (size_t r = 0; r < t->n_rows; r++) {
		float *dst = q + r * c->q_pad;

		memcpy(dst, q_row(c, t, r), c->kv->k_dim * sizeof(*dst));
		c->cpu->isa->scale(dst, c->kv->k_dim, c->attn->scale);
		memset(dst + c->kv->k_dim, 0, (c->q_pad - c->kv->k_dim) * sizeof(*dst));
	}
}

/* Keys [from, to) lie in a run of this page: how many, and where. */
static size_t page_run(const struct call *c, const struct tile *t, uint32_t from, uint32_t to, const void **ret_k,
                       const void **ret_v)
{
	const struct kn_kv *kv = c->kv;
	size_t elem = kv->dtype == KN_F32 ? 4 : 2;
	uint32_t page = t->seq->pages[from / kv->page_tokens], at = from % kv->page_tokens;
	size_t slot = ((size_t)page * kv->n_kv_head + t->kv_head) * kv->page_tokens + at;

	*ret_k = (const char *)kv->k + slot * kv->k_dim * elem;
	*ret_v = kv->v ? (const char *)kv->v + slot * kv->v_dim * elem : *ret_k;
	return min_size(kv->page_tokens - at, to - from);
}

/* Scores of keys [t0, t1) into s [rows][STEP], with -infinity for those a row must not see. */
static void scores(const struct call *c, const struct tile *t, const float *q, float *s, uint32_t t0, uint32_t t1)
{
	const struct cpu_isa *isa = c->cpu->isa;
	size_t n;

	for (uint32_t k = t0; k < t1; k += (uint32_t)n) {
		const void *pk, *pv;

		n = page_run(c, t, k, t1, &pk, &pv);
		isa->qk[c->kv->dtype](s + (k - t0), STEP, q, c->q_pad, t->n_rows, pk, c->kv->k_dim, n, c->kv->k_dim);
	}
	for (size_t r = 0; r < t->n_rows; r++) {
		uint32_t pos = row_pos(c, t->seq, t->first_row + r), lo = first_key(c, pos);
		float *row = s + r * STEP;

		if (c->attn->softcap > 0)
			isa->softcap(row, t1 - t0, c->attn->softcap);
		for (uint32_t k = t0; k < lo && k < t1; k++)
			row[k - t0] = -INFINITY;
		for (uint32_t k = pos + 1 > t0 ? pos + 1 : t0; k < t0 + STEP; k++)
			row[k - t0] = -INFINITY;
	}
}

/* One step of the online softmax: keys [t0, t1), t0 divisible by STEP. */
static void step(const struct call *c, const struct tile *t, const float *q, float *s, struct state *st, uint32_t t0,
                 uint32_t t1)
{
	const struct cpu_isa *isa = c->cpu->isa;
	size_t ld_v = c->kv->v ? c->kv->v_dim : c->kv->k_dim, n;

	scores(c, t, q, s, t0, t1);
	for (size_t r = 0; r < t->n_rows; r++) {
		float m = st->m[r], sum = isa->softmax_step(s + r * STEP, STEP, &m);

		if (m != st->m[r]) {
			float fade = expf(st->m[r] - m);

			st->l[r] *= fade;
			isa->scale(st->o + r * c->o_pad, c->kv->v_dim, fade);
			st->m[r] = m;
		}
		st->l[r] += sum;
	}
	for (uint32_t k = t0; k < t1; k += (uint32_t)n) {
		const void *pk, *pv;

		n = page_run(c, t, k, t1, &pk, &pv);
		isa->pv[c->kv->dtype](st->o, c->o_pad, s + (k - t0), STEP, t->n_rows, pv, ld_v, n, c->kv->v_dim);
	}
}

static void state_clear(const struct call *c, struct state *st, size_t n_rows)
{
	for (size_t r = 0; r < n_rows; r++) {
		st->m[r] = -INFINITY;
		st->l[r] = 0;
	}
	memset(st->o, 0, n_rows * c->o_pad * sizeof(float));
}

/* All keys of part `part` that the tile sees. */
static void run_part(const struct call *c, const struct tile *t, const float *q, float *s, struct state *st,
                     uint32_t part)
{
	uint32_t lo = part * SPLIT, hi = lo + SPLIT;

	lo = lo < t->key_lo ? t->key_lo / STEP * STEP : lo;
	hi = hi < t->key_hi ? hi : t->key_hi;
	state_clear(c, st, t->n_rows);
	for (uint32_t k = lo; k < hi; k += STEP)
		step(c, t, q, s, st, k, k + STEP < hi ? k + STEP : hi);
}

/* total += a part, whose m, l and o are given. */
static void merge(const struct call *c, struct state *total, size_t n_rows, const float *m, const float *l, float *o)
{
	const struct cpu_isa *isa = c->cpu->isa;

	for (size_t r = 0; r < n_rows; r++) {
		float top = total->m[r] > m[r] ? total->m[r] : m[r], fade, weight;

		if (top == -INFINITY)
			continue;
		fade = expf(total->m[r] - top);
		weight = expf(m[r] - top);
		total->m[r] = top;
		total->l[r] = total->l[r] * fade + l[r] * weight;
		isa->scale(total->o + r * c->o_pad, c->kv->v_dim, fade);
		isa->add(total->o + r * c->o_pad, o + r * c->o_pad, c->kv->v_dim, weight);
	}
}

/* Divides by the sum, to which a sink adds its share, and writes the result. */
static void finish(const struct call *c, const struct tile *t, const struct state *st)
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

/* The thread's scratch, cut up. */
static void scratch_of(const struct call *c, unsigned worker, float **q, float **s, struct state *part,
                       struct state *total)
{
	float *p = (float *)c->cpu->attn.p + worker * scratch_floats(KN_MAX_HEAD, KN_MAX_HEAD);

	*q = p;
	*s = *q + TILE_ROWS * c->q_pad;
	part->o = *s + TILE_ROWS * STEP;
	total->o = part->o + TILE_ROWS * c->o_pad;
}

static void run_tile(const struct call *c, const struct tile *t, unsigned worker)
{
	struct state part, total;
	float *q, *s;

	scratch_of(c, worker, &q, &s, &part, &total);
	load_queries(c, t, q);
	state_clear(c, &total, t->n_rows);
	for (uint32_t p = t->key_lo / SPLIT; p * SPLIT < t->key_hi; p++) {
		run_part(c, t, q, s, &part, p);
		merge(c, &total, t->n_rows, part.m, part.l, part.o);
	}
	finish(c, t, &total);
}

/* ---- Loops over tiles ---- */

/* Tile number `index` over all sequences: sequence, K/V head, tile; late tiles, which see more, come first. */
static void tile_at(const struct call *c, struct tile *t, size_t index)
{
	const struct kn_seq *seq = c->seqs;

	while (index >= n_tiles(c, seq) * c->kv->n_kv_head) {
		index -= n_tiles(c, seq) * c->kv->n_kv_head;
		seq++;
	}
	tile_init(c, t, seq, (uint32_t)(index % c->kv->n_kv_head), n_tiles(c, seq) - 1 - index / c->kv->n_kv_head);
}

static void run_tiles(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;

	for (size_t i = begin; i < end; i++) {
		struct tile t;

		tile_at(c, &t, i);
		run_tile(c, &t, worker);
	}
}

/* Where a part of a tile leaves m, l and o. */
static float *part_at(const struct call *c, size_t tile, size_t part)
{
	return (float *)c->cpu->attn_parts.p + (tile * c->n_parts + part) * c->part_floats;
}

static void run_parts(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;

	for (size_t i = begin; i < end; i++) {
		size_t tile = i / c->n_parts, p = i % c->n_parts;
		float *q, *s, *dst = part_at(c, tile, p);
		struct state st, unused;
		struct tile t;

		tile_at(c, &t, tile);
		if (p * SPLIT >= t.key_hi || p < t.key_lo / SPLIT)
			continue;
		scratch_of(c, worker, &q, &s, &st, &unused);
		load_queries(c, &t, q);
		st.o = dst + 2 * TILE_ROWS;
		run_part(c, &t, q, s, &st, (uint32_t)p);
		memcpy(dst, st.m, t.n_rows * sizeof(*dst));
		memcpy(dst + TILE_ROWS, st.l, t.n_rows * sizeof(*dst));
	}
}

static void merge_tiles(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;

	for (size_t i = begin; i < end; i++) {
		float *q, *s;
		struct state unused, total;
		struct tile t;

		tile_at(c, &t, i);
		scratch_of(c, worker, &q, &s, &unused, &total);
		state_clear(c, &total, t.n_rows);
		for (uint32_t p = t.key_lo / SPLIT; p * SPLIT < t.key_hi; p++) {
			float *part = part_at(c, i, p);

			merge(c, &total, t.n_rows, part, part + TILE_ROWS, part + 2 * TILE_ROWS);
		}
		finish(c, &t, &total);
	}
}

void cpu_attention(struct kn_backend *be, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct call c = { .cpu = cpu,
		          .out = out,
		          .ld_out = ld_out,
		          .q = q,
		          .ld_q = ld_q,
		          .kv = kv,
		          .seqs = seqs,
		          .n_seqs = n_seqs,
		          .attn = attn,
		          .n_rep = attn->n_head / kv->n_kv_head,
		          .q_pad = pad16(kv->k_dim),
		          .o_pad = pad16(kv->v_dim) };
	size_t tiles = 0, work = 0, longest = 0, parts;

	if (kv->k_dim > KN_MAX_HEAD || kv->v_dim > KN_MAX_HEAD) {
		cpu->error = -ENOTSUP;
		return;
	}
	for (size_t i = 0; i < n_seqs; i++) {
		tiles += n_tiles(&c, &seqs[i]) * kv->n_kv_head;
		work += (size_t)seqs[i].n_q * seqs[i].kv_len * attn->n_head * (kv->k_dim + kv->v_dim);
		longest = seqs[i].kv_len > longest ? seqs[i].kv_len : longest;
	}
	parts = (longest + SPLIT - 1) / SPLIT;
	c.n_parts = parts;
	c.part_floats = TILE_ROWS * (2 + c.o_pad);
	if (work < SERIAL_WORK) {
		run_tiles(&c, 0, tiles, 0);
	} else if (parts > 1 && tiles < 4 * (size_t)cpu->n_threads &&
	           tiles * parts <= cpu->attn_parts.bytes / (c.part_floats * sizeof(float))) {
		base_threadpool_for(cpu->pool, tiles * parts, 1, run_parts, &c);
		cpu_rows(cpu, tiles, TILE_ROWS * c.o_pad, merge_tiles, &c);
	} else {
		base_threadpool_for(cpu->pool, tiles, 1, run_tiles, &c);
	}
}
