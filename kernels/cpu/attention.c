/* Attention over the paged cache, by online softmax (Milakov and Gimelshein, 2018) over steps of 64 keys.
 *
 * The rows of a query group (all query heads that read one K/V head, for consecutive tokens) form tiles of up
 * to 32, or 128 where there are kernels for many rows: K and V are read once for a tile. Steps begin at positions
 * divisible by 64 and sums are closed and merged part by part, at fixed positions, whether or not the parts are
 * computed by different threads: a query's result does not depend on the batch, on how its prompt was cut, or on the
 * threads.
 *
 * Single tokens of sequences that begin with the same pages (attn_share.c) meet the parts that they share
 * together, and those are read once for all of them.
 *
 * The kernels for many rows round, so which kernels a row takes must not depend on its neighbours where that promise
 * is to hold: in deterministic mode prompts take those for many, and answers the others. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

enum {
	TILE_ROWS = 32,
	MANY_ROWS = 128, /* of a tile */
	FEW_ROWS = 24,   /* up to as many take the ordinary kernels */
	STEP = CPU_ATTN_TOKENS,
	SPLIT = 128,
	MANY_SPLIT = 512, /* keys per part */
	PARTS_BYTES = 64 << 20,
	PIECE = 16,
	STREAM_ROWS = 8,        /* with few rows, memory is what is waited for: see run_ahead() */
	SERIAL_WORK = 48 << 10, /* multiplications not worth a parallel loop */
};

/* Running softmax of a tile: greatest score, sum of exponentials, weighted values. */
struct state {
	float m[MANY_ROWS], l[MANY_ROWS];
	float *o; /* [rows][ld] */
};

enum kernels { BY_ROWS, FOR_FEW, FOR_MANY };

struct call {
	struct cpu_backend *cpu;
	enum kernels kernels;
	float *out;
	size_t ld_out;
	const float *q;
	size_t ld_q;
	const struct kn_kv *kv;
	const struct kn_seq *seqs;
	size_t n_seqs;
	const struct kn_attn *attn;
	uint32_t n_rep; /* query heads per K/V head */
	size_t tile_rows, q_pad, o_pad;
	const struct cpu_share *shares;
	size_t n_shares, share_items;
	uint32_t split; /* keys per part */
	size_t n_parts; /* parts that items are split into; 1 when they are not */
	size_t part_rows, part_floats;
};

/* Some rows of one query group of one sequence. Row r is token first_row + r ... of the flattened
 * [token][head of the group]. */
struct tile {
	const struct kn_seq *seq;
	uint32_t kv_head;
	size_t first_row, n_rows;
	uint32_t pos_lo, pos_hi; /* of the first and last row */
	uint32_t key_lo, key_hi; /* keys seen by any row: [lo, hi) */
	bool many;               /* rows for the kernels for many */
	const uint32_t *members; /* single tokens of these sequences, on keys that all see; or NULL */
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

static uint32_t row_pos(const struct call *c, const struct kn_seq *seq, size_t row)
{
	return seq->kv_len - seq->n_q + (uint32_t)(row / c->n_rep);
}

static uint32_t first_key(const struct call *c, uint32_t pos)
{
	return c->attn->window && pos + 1 > c->attn->window ? pos + 1 - c->attn->window : 0;
}

static bool takes_many(const struct call *c, size_t n_rows)
{
	return c->cpu->isa->attn_many && (c->kernels == FOR_MANY || (c->kernels == BY_ROWS && n_rows > FEW_ROWS));
}

static size_t n_tiles(const struct call *c, const struct kn_seq *seq)
{
	return ((size_t)seq->n_q * c->n_rep + c->tile_rows - 1) / c->tile_rows;
}

static void tile_init(const struct call *c, struct tile *t, const struct kn_seq *seq, uint32_t kv_head, size_t index)
{
	t->members = NULL;
	t->seq = seq;
	t->kv_head = kv_head;
	t->first_row = index * c->tile_rows;
	t->n_rows = min_size(c->tile_rows, (size_t)seq->n_q * c->n_rep - t->first_row);
	t->pos_lo = row_pos(c, seq, t->first_row);
	t->pos_hi = row_pos(c, seq, t->first_row + t->n_rows - 1);
	t->key_lo = first_key(c, t->pos_lo);
	t->key_hi = t->pos_hi + 1;
	t->many = takes_many(c, t->n_rows);
}

static const float *q_row(const struct call *c, const struct tile *t, size_t r)
{
	size_t row = t->first_row + r, i = row / c->n_rep;
	size_t head = (size_t)t->kv_head * c->n_rep + row % c->n_rep;
	size_t token = t->members ? c->seqs[t->members[i]].row : t->seq->row + i;

	return c->q + token * c->ld_q + head * c->kv->k_dim;
}

static float *out_row(const struct call *c, const struct tile *t, size_t r)
{
	size_t row = t->first_row + r;
	size_t head = (size_t)t->kv_head * c->n_rep + row % c->n_rep;

	return c->out + (t->seq->row + row / c->n_rep) * c->ld_out + head * c->kv->v_dim;
}

/* Queries times the scale, padded with zeros. */
static void load_queries(const struct call *c, const struct tile *t, const struct scratch *w)
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

/* Keys and values of [t0, t1) in the order of the kernels for many rows. */
static void pack_step(const struct call *c, const struct tile *t, const struct scratch *w, uint32_t t0, uint32_t t1)
{
	const struct cpu_attn_many *many = c->cpu->isa->attn_many;
	size_t elem = c->kv->dtype == KN_F32 ? 4 : 2, ld_v = c->kv->v ? c->kv->v_dim : c->kv->k_dim, n;
	const void *k_rows[STEP] = { 0 }, *v_rows[STEP] = { 0 };

	for (uint32_t k = t0; k < t1; k += (uint32_t)n) {
		const void *pk, *pv;

		n = page_run(c, t, k, t1, &pk, &pv);
		for (size_t i = 0; i < n; i++) {
			k_rows[k - t0 + i] = (const char *)pk + i * c->kv->k_dim * elem;
			v_rows[k - t0 + i] = (const char *)pv + i * ld_v * elem;
		}
	}
	many->keys(c->kv->dtype, w->keys, k_rows, c->kv->k_dim);
	many->values(c->kv->dtype, w->values, v_rows, c->kv->v_dim);
}

/* Few rows wait for memory: while the keys of a piece are multiplied its values are asked for, and with those the
 * keys of the next step. Returns how many of the n keys (or values) from k on the product should take. */
static size_t run_ahead(const struct call *c, const struct tile *t, uint32_t k, size_t n, bool values)
{
	size_t elem = c->kv->dtype == KN_F32 ? 4 : 2, bytes;
	uint32_t from = values ? k + STEP : k;
	const void *pk, *pv;
	const char *p;

	if (t->n_rows > STREAM_ROWS)
		return n;
	n = min_size(n, PIECE);
	if (from < t->key_hi && (c->kv->v || values)) {
		bytes = min_size(n, page_run(c, t, from, t->key_hi, &pk, &pv)) *
		        (values ? c->kv->k_dim : c->kv->v_dim) * elem;
		p = values ? pk : pv;
		for (size_t i = 0; i < bytes; i += 64)
			__builtin_prefetch(p + i, 0, 2);
	}
	return n;
}

/* Scores of keys [t0, t1) into w->s [rows][STEP], with -infinity for those a row must not see. */
static void scores(const struct call *c, const struct tile *t, const struct scratch *w, uint32_t t0, uint32_t t1)
{
	const struct cpu_isa *isa = c->cpu->isa;
	float *s = w->s;
	size_t n;

	if (t->many)
		isa->attn_many->qk(s, STEP, w->qh, c->q_pad, t->n_rows, w->keys, c->kv->k_dim);
	for (uint32_t k = t0; k < t1 && !t->many; k += (uint32_t)n) {
		const void *pk, *pv;

		n = run_ahead(c, t, k, page_run(c, t, k, t1, &pk, &pv), false);
		isa->qk[c->kv->dtype](s + (k - t0), STEP, w->q, c->q_pad, t->n_rows, pk, c->kv->k_dim, n, c->kv->k_dim);
	}
	if (t->members && !(c->attn->softcap > 0))
		return;
	for (size_t r = 0; r < t->n_rows; r++) {
		uint32_t pos = t->members ? t->key_hi - 1 : row_pos(c, t->seq, t->first_row + r),
		         lo = first_key(c, pos);
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
static void step(const struct call *c, const struct tile *t, const struct scratch *w, struct state *st, uint32_t t0,
                 uint32_t t1)
{
	const struct cpu_isa *isa = c->cpu->isa;
	size_t ld_v = c->kv->v ? c->kv->v_dim : c->kv->k_dim, n;

	if (t->many)
		pack_step(c, t, w, t0, t1);
	scores(c, t, w, t0, t1);
	for (size_t r = 0; r < t->n_rows; r++) {
		float m = st->m[r], sum = isa->softmax_step(w->s + r * STEP, STEP, &m);

		if (m != st->m[r]) {
			float fade = expf(st->m[r] - m);

			st->l[r] *= fade;
			isa->scale(st->o + r * c->o_pad, c->kv->v_dim, fade);
			st->m[r] = m;
		}
		st->l[r] += sum;
		if (t->many)
			isa->store[KN_BF16](w->ph + r * STEP, w->s + r * STEP, STEP);
	}
	if (t->many) {
		isa->attn_many->pv(st->o, c->o_pad, w->ph, STEP, t->n_rows, w->values, c->kv->v_dim);
		return;
	}
	for (uint32_t k = t0; k < t1; k += (uint32_t)n) {
		const void *pk, *pv;

		n = run_ahead(c, t, k, page_run(c, t, k, t1, &pk, &pv), true);
		isa->pv[c->kv->dtype](st->o, c->o_pad, w->s + (k - t0), STEP, t->n_rows, pv, ld_v, n, c->kv->v_dim);
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

/* Keys [lo, hi), lo divisible by STEP. */
static void run_keys(const struct call *c, const struct tile *t, const struct scratch *w, struct state *st, uint32_t lo,
                     uint32_t hi)
{
	for (uint32_t k = lo; k < hi; k += STEP)
		step(c, t, w, st, k, k + STEP < hi ? k + STEP : hi);
}

/* All keys of part `part` that the tile sees. */
static void run_part(const struct call *c, const struct tile *t, const struct scratch *w, struct state *st,
                     uint32_t part)
{
	uint32_t lo = part * c->split, hi = lo + c->split;

	lo = lo < t->key_lo ? t->key_lo / STEP * STEP : lo;
	hi = hi < t->key_hi ? hi : t->key_hi;
	state_clear(c, st, t->n_rows);
	run_keys(c, t, w, st, lo, hi);
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

static void run_tile(const struct call *c, const struct tile *t, unsigned worker)
{
	struct scratch w = scratch_of(c->cpu, worker, c->q_pad, c->o_pad);
	struct state part = { .o = w.o_part }, total = { .o = w.o };

	load_queries(c, t, &w);
	state_clear(c, &total, t->n_rows);
	for (uint32_t p = t->key_lo / c->split; p * c->split < t->key_hi; p++) {
		run_part(c, t, &w, &part, p);
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

/* Where a part of a tile leaves m [part_rows], l [part_rows] and o. */
static float *part_at(const struct call *c, size_t tile, size_t part)
{
	return (float *)c->cpu->attn_parts.p + (tile * c->n_parts + part) * c->part_floats;
}

/* Item `index` of the parts that are shared: some of one share's members, one head, one part. The results go to the
 * members' own tiles. */
static void run_shared(const struct call *c, size_t index, unsigned worker)
{
	const struct cpu_share *share = c->shares;
	struct scratch w = scratch_of(c->cpu, worker, c->q_pad, c->o_pad);
	struct state st = { .o = w.o_part };
	struct tile t = { 0 };
	size_t part, most = c->tile_rows / c->n_rep, first, n;

	while (index >= cpu_share_items(share, most, c->kv->n_kv_head, c->split))
		index -= cpu_share_items(share++, most, c->kv->n_kv_head, c->split);
	t.kv_head = (uint32_t)(index % c->kv->n_kv_head);
	part = index / c->kv->n_kv_head % (share->n_keys / c->split);
	first = index / c->kv->n_kv_head / (share->n_keys / c->split) * most;
	n = min_size(most, share->n - first);
	t.members = share->members + first;
	t.seq = &c->seqs[t.members[0]];
	t.n_rows = n * c->n_rep;
	t.key_hi = share->n_keys;
	t.many = takes_many(c, t.n_rows);
	load_queries(c, &t, &w);
	run_part(c, &t, &w, &st, (uint32_t)part);
	for (size_t i = 0; i < n; i++) {
		float *dst = part_at(c, share->tiles[first + i] + t.kv_head, part);

		memcpy(dst, st.m + i * c->n_rep, c->n_rep * sizeof(*dst));
		memcpy(dst + c->part_rows, st.l + i * c->n_rep, c->n_rep * sizeof(*dst));
		memcpy(dst + 2 * c->part_rows, st.o + i * c->n_rep * c->o_pad, c->n_rep * c->o_pad * sizeof(*dst));
	}
}

/* Keys that the tile's only token shares with others. */
static uint32_t shared_keys(const struct call *c, const struct tile *t)
{
	size_t s = (size_t)(t->seq - c->seqs);

	return c->n_shares ? c->cpu->shares.n_keys[s] : 0;
}

static void run_parts(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;

	for (size_t k = begin; k < end; k++) {
		size_t i = k - c->share_items, tile = i / c->n_parts, p = i % c->n_parts;
		struct scratch w = scratch_of(c->cpu, worker, c->q_pad, c->o_pad);
		struct state st;
		struct tile t;
		float *dst;

		if (k < c->share_items) {
			run_shared(c, k, worker);
			continue;
		}
		tile_at(c, &t, tile);
		if (p * c->split >= t.key_hi || p < t.key_lo / c->split || p * c->split < shared_keys(c, &t))
			continue;
		dst = part_at(c, tile, p);
		st.o = dst + 2 * c->part_rows;
		load_queries(c, &t, &w);
		run_part(c, &t, &w, &st, (uint32_t)p);
		memcpy(dst, st.m, t.n_rows * sizeof(*dst));
		memcpy(dst + c->part_rows, st.l, t.n_rows * sizeof(*dst));
	}
}

static void merge_tiles(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct call *c = arg;

	for (size_t i = begin; i < end; i++) {
		struct state total = { .o = scratch_of(c->cpu, worker, c->q_pad, c->o_pad).o };
		struct tile t;

		tile_at(c, &t, i);
		state_clear(c, &total, t.n_rows);
		for (uint32_t p = t.key_lo / c->split; p * c->split < t.key_hi; p++) {
			float *part = part_at(c, i, p);

			merge(c, &total, t.n_rows, part, part + c->part_rows, part + 2 * c->part_rows);
		}
		finish(c, &t, &total);
	}
}

/* What single tokens share, and in how many items that is computed. */
static void find_shares(struct call *c)
{
	c->shares = cpu_shares_find(c->cpu, c->seqs, c->n_seqs, c->kv->page_tokens, c->split, &c->n_shares);
	for (size_t i = 0, tile = 0; i < c->n_seqs && c->n_shares; i++) {
		c->cpu->shares.first_tile[i] = (uint32_t)tile;
		tile += n_tiles(c, &c->seqs[i]) * c->kv->n_kv_head;
	}
	for (size_t i = 0; i < c->n_shares; i++) {
		const struct cpu_share *share = &c->shares[i];

		for (size_t k = 0; k < share->n; k++)
			share->tiles[k] = c->cpu->shares.first_tile[share->members[k]];
		c->share_items += cpu_share_items(share, c->tile_rows / c->n_rep, c->kv->n_kv_head, c->split);
	}
}

static void attend(struct cpu_backend *cpu, float *out, size_t ld_out, const float *q, size_t ld_q,
                   const struct kn_kv *kv, const struct kn_seq *seqs, size_t n_seqs, const struct kn_attn *attn,
                   enum kernels kernels)
{
	struct call c = { .cpu = cpu,
		          .kernels = kernels,
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
	size_t tiles = 0, work = 0, longest = 0, most_q = 0, parts;

	for (size_t i = 0; i < n_seqs; i++) {
		tiles += n_tiles(&c, &seqs[i]) * kv->n_kv_head;
		work += (size_t)seqs[i].n_q * seqs[i].kv_len * attn->n_head * (kv->k_dim + kv->v_dim);
		longest = seqs[i].kv_len > longest ? seqs[i].kv_len : longest;
		most_q = seqs[i].n_q > most_q ? seqs[i].n_q : most_q;
	}
	c.split = takes_many(&c, most_q * c.n_rep) ? MANY_SPLIT : SPLIT;
	parts = (longest + c.split - 1) / c.split;
	if (parts > 1 && n_seqs > 1 && !attn->window && c.n_rep <= c.tile_rows)
		find_shares(&c);
	c.n_parts = parts;
	c.part_rows = min_size(c.tile_rows, most_q * c.n_rep);
	if (takes_many(&c, c.part_rows))
		c.part_rows = c.tile_rows;
	c.part_floats = c.part_rows * (2 + c.o_pad);
	if (work < SERIAL_WORK) {
		run_tiles(&c, 0, tiles, 0);
	} else if (parts > 1 && (c.n_shares || tiles < 4 * (size_t)cpu->n_threads) &&
	           tiles * parts <= cpu->attn_parts.bytes / (c.part_floats * sizeof(float))) {
		base_threadpool_for(cpu->pool, c.share_items + tiles * parts, 1, run_parts, &c);
		cpu_rows(cpu, tiles, c.part_rows * c.o_pad, merge_tiles, &c);
	} else {
		base_threadpool_for(cpu->pool, tiles, 1, run_tiles, &c);
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
		attend(cpu, out, ld_out, q, ld_q, kv, seqs, n_seqs, attn, BY_ROWS);
		return;
	}
	while (n < n_seqs && seqs[n].row < be->n_answer_rows)
		n++;
	if (n > 0)
		attend(cpu, out, ld_out, q, ld_q, kv, seqs, n, attn, FOR_FEW);
	if (n < n_seqs)
		attend(cpu, out, ld_out, q, ld_q, kv, seqs + n, n_seqs - n, attn, FOR_MANY);
}
