/* Layers with a state instead of K and V, shared out among threads: the convolution by channels, the delta rule by
 * heads and columns of their states, which do not know of each other. */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"
#include "ref/ref.h"

enum {
	CONV_PIECE = 512, /* channels */
	COPY_TOKENS = 4,  /* from so many tokens on, a block of columns is worth copying together */
};

static bool is_new(const struct kn_seq *seq)
{
	return seq->n_q == seq->kv_len;
}

/* ---- The convolution ---- */

struct conv_call {
	const struct cpu_isa *isa;
	float *out;
	size_t ld_out;
	const float *x;
	size_t ld_x;
	const struct kn_conv *conv;
	const struct kn_seq *seqs;
	size_t n_pieces;
};

/* Input t of a sequence's new tokens, of which those before the first come from the state. */
static const float *input(const struct conv_call *c, const struct kn_seq *seq, const float *state, ptrdiff_t t)
{
	return t < 0 ? state + ((ptrdiff_t)c->conv->kernel - 1 + t) * c->conv->n_channels
	             : c->x + ((size_t)seq->row + (size_t)t) * c->ld_x;
}

/* Some channels of one sequence. */
static void conv_piece(const struct conv_call *c, const struct kn_seq *seq, size_t first, size_t n)
{
	const struct kn_conv *conv = c->conv;
	float *state = conv->state + seq->state * conv->ld_state;
	ptrdiff_t before = (ptrdiff_t)conv->kernel - 1, n_q = seq->n_q;
	const float *x[KN_MAX_CONV];

	for (ptrdiff_t j = 0; is_new(seq) && j < before; j++)
		memset(state + (size_t)j * conv->n_channels + first, 0, n * sizeof(*state));
	for (ptrdiff_t t = 0; t < n_q; t++) {
		for (ptrdiff_t j = 0; j <= before; j++)
			x[j] = input(c, seq, state, t - before + j) + first;
		c->isa->conv_silu(c->out + ((size_t)seq->row + (size_t)t) * c->ld_out + first, x, conv->kernel,
		                  conv->w + first, conv->n_channels, n);
	}
	for (ptrdiff_t j = 0; seq->keep_after && j < before; j++)
		memcpy(conv->state + seq->keep * conv->ld_state + (size_t)j * conv->n_channels + first,
		       input(c, seq, state, (ptrdiff_t)seq->keep_after - before + j) + first, n * sizeof(*state));
	/* The oldest first: what is read lies behind what was written. */
	for (ptrdiff_t j = 0; j < before; j++)
		memcpy(state + (size_t)j * conv->n_channels + first, input(c, seq, state, n_q - before + j) + first,
		       n * sizeof(*state));
}

static void conv_pieces(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct conv_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		size_t first = i % c->n_pieces * CONV_PIECE, rest = c->conv->n_channels - first;

		conv_piece(c, &c->seqs[i / c->n_pieces], first, rest < CONV_PIECE ? rest : CONV_PIECE);
	}
}

static size_t count_tokens(const struct kn_seq *seqs, size_t n_seqs)
{
	size_t n = 0;

	for (size_t s = 0; s < n_seqs; s++)
		n += seqs[s].n_q;
	return n;
}

void cpu_conv_silu(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x,
                   const struct kn_conv *conv, const struct kn_seq *seqs, size_t n_seqs)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct conv_call call = { cpu->isa, out, ld_out, x, ld_x, conv, seqs, 0 };

	if (n_seqs == 0)
		return;
	call.n_pieces = (conv->n_channels + CONV_PIECE - 1) / CONV_PIECE;
	cpu_rows(cpu, n_seqs * call.n_pieces, count_tokens(seqs, n_seqs) * CONV_PIECE * conv->kernel / n_seqs,
	         conv_pieces, &call);
}

/* ---- The gated delta rule ---- */

struct delta_call {
	const struct cpu_backend *cpu;
	const struct cpu_isa *isa;
	const struct kn_delta *delta;
	float *out;
	size_t ld_out;
	float *qkv;
	size_t ld_qkv;
	float *ba;
	size_t ld_ba;
	const struct kn_seq *seqs;
	size_t n_blocks; /* of columns per head */
};

/* A row's q and k become of length 1 (and q as the rule wants it), its b and a what they stand for. */
static void prepare_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct delta_call *c = arg;
	const struct kn_delta *d = c->delta;
	float eps = d->eps / (float)d->k_dim, shorter = 1 / sqrtf((float)d->k_dim);

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		float *q = c->qkv + i * c->ld_qkv, *b = c->ba + i * c->ld_ba, *a = b + d->n_v_head;

		/* Of n values with a mean square of 1, the length is sqrt(n). */
		for (size_t h = 0; h < 2 * (size_t)d->n_k_head; h++)
			c->isa->rmsnorm(q + h * d->k_dim, q + h * d->k_dim, NULL, d->k_dim, eps);
		c->isa->scale(q, (size_t)d->n_k_head * d->k_dim, shorter * shorter);
		c->isa->scale(q + (size_t)d->n_k_head * d->k_dim, (size_t)d->n_k_head * d->k_dim, shorter);
		for (uint32_t h = 0; h < d->n_v_head; h++) {
			float x = a[h] + d->dt_bias[h];

			b[h] = 1 / (1 + expf(-b[h]));
			a[h] = expf(d->decay[h] * (x > 20 ? x : log1pf(expf(x))));
		}
	}
}

/* Whether a sequence's tokens are taken in chunks: there are many, and rounding may tell (where it may not, chunks
 * would have to begin at the same tokens however a prompt was cut). */
static bool in_chunks(const struct delta_call *c, const struct kn_seq *seq)
{
	return c->isa->delta_chunks && !c->cpu->base.tells_prompts && seq->n_q >= c->isa->many_tokens;
}

/* n tokens of the block, which then begins behind them. */
static void delta_tokens(const struct delta_call *c, struct cpu_delta_block *b, size_t n, float *scratch)
{
	b->n = n;
	if (n == 0)
		return;
	if (scratch)
		c->isa->delta_chunks(b, scratch);
	else
		c->isa->delta(b);
	b->q += n * b->ld;
	b->k += n * b->ld;
	b->v += n * b->ld;
	b->beta += n * b->ld_gates;
	b->decay += n * b->ld_gates;
	b->out += n * b->ld_out;
}

static void copy_columns(float *to, size_t ld_to, const float *from, size_t ld_from, size_t rows, size_t cols)
{
	for (size_t i = 0; i < rows; i++)
		memcpy(to + i * ld_to, from + i * ld_from, cols * sizeof(*to));
}

/* Some columns of one head of one sequence; scratch: for chunks, which take all columns. */
static void delta_piece(const struct delta_call *c, const struct kn_seq *seq, size_t head, size_t first, size_t n_cols,
                        float *scratch)
{
	const struct kn_delta *d = c->delta;
	size_t n_k = (size_t)d->n_k_head * d->k_dim, k_head = head / (d->n_v_head / d->n_k_head);
	size_t at = head * d->k_dim * d->v_dim + first;
	float *state = d->state + seq->state * d->ld_state + at;
	const float *q = c->qkv + seq->row * c->ld_qkv + k_head * d->k_dim;
	float together[KN_MAX_DELTA * CPU_DELTA_COLS] __attribute__((aligned(64)));
	struct cpu_delta_block b = { .state = state,
		                     .ld_state = d->v_dim,
		                     .k_dim = d->k_dim,
		                     .n_cols = n_cols,
		                     .q = q,
		                     .k = q + n_k,
		                     .v = c->qkv + seq->row * c->ld_qkv + 2 * n_k + head * d->v_dim + first,
		                     .beta = c->ba + seq->row * c->ld_ba + head,
		                     .decay = c->ba + seq->row * c->ld_ba + d->n_v_head + head,
		                     .ld = c->ld_qkv,
		                     .ld_gates = c->ld_ba,
		                     .out = c->out + seq->row * c->ld_out + head * d->v_dim + first,
		                     .ld_out = c->ld_out };
	bool copy = !scratch &&
	            seq->n_q >= COPY_TOKENS; /* rows of the state lie a power of two apart: bad for the cache's sets */

	for (size_t i = 0; is_new(seq) && i < d->k_dim; i++)
		memset(state + i * d->v_dim, 0, n_cols * sizeof(*state));
	if (copy) {
		copy_columns(together, n_cols, state, d->v_dim, d->k_dim, n_cols);
		b.state = together;
		b.ld_state = n_cols;
	}
	delta_tokens(c, &b, seq->keep_after, scratch);
	if (seq->keep_after)
		copy_columns(d->state + seq->keep * d->ld_state + at, d->v_dim, b.state, b.ld_state, d->k_dim, n_cols);
	delta_tokens(c, &b, seq->n_q - seq->keep_after, scratch);
	if (copy)
		copy_columns(state, d->v_dim, together, n_cols, d->k_dim, n_cols);
}

static void delta_pieces(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct delta_call *c = arg;
	size_t per_seq = c->n_blocks * c->delta->n_v_head;
	float *scratch = c->isa->delta_chunks ? (float *)c->cpu->delta.p + worker * CPU_DELTA_SCRATCH : NULL;

	for (size_t i = begin; i < end; i++) {
		const struct kn_seq *seq = &c->seqs[i / per_seq];
		size_t first = i % c->n_blocks * CPU_DELTA_COLS, rest = c->delta->v_dim - first;
		size_t head = i % per_seq / c->n_blocks;

		if (!in_chunks(c, seq)) /* what is left of the columns: a half block */
			delta_piece(c, seq, head, first, rest < CPU_DELTA_COLS ? rest : CPU_DELTA_COLS, NULL);
		else if (first == 0)
			delta_piece(c, seq, head, 0, c->delta->v_dim, scratch);
	}
}

void cpu_delta_rule(struct kn_backend *be, float *out, size_t ld_out, float *qkv, size_t ld_qkv, float *ba,
                    size_t ld_ba, const struct kn_delta *delta, const struct kn_seq *seqs, size_t n_seqs)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct delta_call call = { cpu, cpu->isa, delta, out, ld_out, qkv, ld_qkv, ba, ld_ba, seqs, 0 };
	size_t n_tokens = count_tokens(seqs, n_seqs), n_pieces;

	if (n_seqs == 0)
		return;
	call.n_blocks = (delta->v_dim + CPU_DELTA_COLS - 1) / CPU_DELTA_COLS;
	n_pieces = n_seqs * delta->n_v_head * call.n_blocks;
	/* Rows of a call follow each other. */
	call.qkv += seqs[0].row * ld_qkv;
	call.ba += seqs[0].row * ld_ba;
	cpu_rows(cpu, n_tokens, 4 * (size_t)delta->n_k_head * delta->k_dim, prepare_rows, &call);
	call.qkv = qkv;
	call.ba = ba;
	cpu_rows(cpu, n_pieces, n_tokens * delta->k_dim * CPU_DELTA_COLS / n_seqs, delta_pieces, &call);
}

/* ---- Gates ---- */

struct gate_call {
	const struct cpu_isa *isa;
	float *out;
	size_t ld_out;
	const float *x;
	size_t ld_x;
	const float *gate;
	size_t ld_gate;
	const float *w;
	size_t n_head, dim;
	float eps;
};

static void gated_norm_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct gate_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++) {
		for (size_t h = 0; h < c->n_head; h++)
			c->isa->gated_rmsnorm(c->out + i * c->ld_out + h * c->dim, c->x + i * c->ld_x + h * c->dim,
			                      c->gate + i * c->ld_gate + h * c->dim, c->w, c->dim, c->eps);
	}
}

void cpu_gated_rmsnorm(struct kn_backend *be, float *out, size_t ld_out, const float *x, size_t ld_x, const float *gate,
                       size_t ld_gate, const float *w, size_t n, size_t n_head, size_t dim, float eps)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct gate_call call = { cpu->isa, out, ld_out, x, ld_x, gate, ld_gate, w, n_head, dim, eps };

	cpu_rows(cpu, n, 2 * n_head * dim, gated_norm_rows, &call);
}

static void gate_rows(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct gate_call *c = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++)
		c->isa->scale(c->out + i * c->ld_out, c->dim, 1 / (1 + expf(-c->gate[i])));
}

void cpu_gate_rows(struct kn_backend *be, float *x, size_t ld_x, const float *gate, size_t n, size_t dim)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	struct gate_call call = { .isa = cpu->isa, .out = x, .ld_out = ld_x, .gate = gate, .dim = dim };

	cpu_rows(cpu, n, dim, gate_rows, &call);
}
