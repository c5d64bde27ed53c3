/* Products with weight matrices: x is prepared once for all jobs, and all jobs' blocks are one parallel loop.
 *
 * A loop item is some rows of one matrix for some of the tokens. For few tokens the weights are read once at
 * memory speed and items only need to be long enough to hide the hand-out. For many, the tokens of an item are
 * as many as stay in the second-level cache, and consecutive items share them. */
#include <errno.h>
#include <string.h>

#include "cpu/cpu.h"

enum {
	DEQUANT_ROWS = 8,         /* rows dequantized at a time where no kernel reads the type itself */
	ITEM_BYTES = 96 << 10,    /* weights of an item when tokens are few */
	TOKENS_BYTES = 384 << 10, /* prepared tokens of an item: under half of the second-level cache */
	ITEM_WORK = 8 << 20,      /* multiplications of an item when tokens are many */
	MANY_BYTES = 5 << 18,     /* the same two where a kernel for many tokens unpacks weights for them */
	MANY_WORK = 32 << 20,
	MANY_ROWS = 32,
	SERIAL_VALUES = 16 << 10, /* less than this is prepared faster than threads are woken */
};

/* ---- Matrices ---- */

struct pack_call {
	const struct kn_mat *m;
	enum cpu_panel panel;
	char *dst;
	size_t panel_bytes;
};

static void pack_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct pack_call *c = arg;

	(void)worker;
	for (size_t p = begin; p < end; p++)
		cpu_panel_pack(c->panel, c->m, p, c->dst + p * c->panel_bytes);
}

int cpu_mat_init(struct kn_backend *be, struct kn_mat *m)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	enum cpu_panel panel = cpu_panel_of(m->dtype);
	size_t n_panels = ((size_t)m->rows + CPU_PANEL_ROWS - 1) / CPU_PANEL_ROWS;
	struct pack_call call;
	int r;

	if (kn_row_bytes(m->dtype, m->cols) == 0)
		return -EINVAL;
	r = cpu_reserve(cpu, m->cols);
	if (r < 0)
		return r;
	m->packed = NULL;
	m->packed_bytes = 0;
	if (!cpu->isa->panel[panel] || m->rows == 0)
		return 0;
	call = (struct pack_call){ .m = m, .panel = panel, .panel_bytes = cpu_panel_bytes(panel, m->cols) };
	if (call.panel_bytes > SIZE_MAX / 2 / n_panels)
		return -ENOMEM;
	call.dst = cpu_arena_take(n_panels * call.panel_bytes);
	if (!call.dst)
		return -ENOMEM;
	base_threadpool_for(cpu->pool, n_panels, 4, pack_items, &call);
	m->packed = call.dst;
	m->packed_bytes = n_panels * call.panel_bytes;
	return 0;
}

void cpu_mat_done(struct kn_backend *be, struct kn_mat *m)
{
	(void)be;
	cpu_arena_give(m->packed);
	m->packed = NULL;
	m->packed_bytes = 0;
	m->data = NULL;
}

/* ---- Preparing x ---- */

/* Rows that are multiplied, through an RMS norm first where there are weights of one. */
struct rows {
	const float *x;
	size_t ld;
	const float *norm;
	float eps;
};

struct prepare_call {
	struct cpu_backend *cpu;
	struct cpu_area *to;
	unsigned forms;
	struct rows in;
	const uint32_t *list;
	size_t cols;
};

static void prepare_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct prepare_call *c = arg;
	const struct cpu_isa *isa = c->cpu->isa;
	float *normed = (float *)(c->cpu->rows.p + worker * c->cpu->rows_per_thread);

	for (size_t i = begin; i < end; i++) {
		const float *x = c->in.x + (c->list ? c->list[i] : i) * c->in.ld;

		if (c->in.norm) {
			isa->rmsnorm(normed, x, c->in.norm, c->cols, c->in.eps);
			x = normed;
		}
		for (int f = 0; f < CPU_N_XFORMS; f++) {
			if (c->forms & 1u << f)
				isa->prepare[f](c->to[f].p + i * cpu_xform_stride((enum cpu_xform)f, c->cols), x,
				                c->cols);
		}
	}
}

static void prepare(struct cpu_backend *cpu, struct cpu_area *to, unsigned forms, const struct rows *in,
                    const uint32_t *list, size_t n, size_t cols)
{
	struct prepare_call call = { cpu, to, forms, *in, list, cols };

	if (n * cols <= SERIAL_VALUES)
		prepare_items(&call, 0, n, 0);
	else
		base_threadpool_for(cpu->pool, n, (n + 4 * cpu->n_threads - 1) / (4 * cpu->n_threads), prepare_items,
		                    &call);
}

void cpu_prepare(struct cpu_backend *cpu, struct cpu_area *to, unsigned forms, const float *x, size_t ld_x,
                 const uint32_t *list, size_t n, size_t cols)
{
	prepare(cpu, to, forms, &(struct rows){ .x = x, .ld = ld_x }, list, n, cols);
}

/* ---- Tasks ---- */

static bool reads_panels(const struct cpu_backend *cpu, const struct kn_mat *m)
{
	return m->packed && cpu->isa->panel[cpu_panel_of(m->dtype)];
}

/* The kernel for many tokens, when they are many. Where prompts are told from answers it is not the number that counts,
 * and of 16-bit weights that kernel is good enough for one answer and far better for several. */
static cpu_block_fn many_fn(const struct cpu_backend *cpu, const struct kn_mat *m, bool many)
{
	const struct cpu_isa *isa = cpu->isa;

	if (!many && (!cpu->base.tells_prompts || reads_panels(cpu, m)))
		return NULL;
	return reads_panels(cpu, m) ? isa->many_panel[cpu_panel_of(m->dtype)] : isa->many_dense[m->dtype];
}

enum cpu_xform cpu_form_of(const struct cpu_backend *cpu, const struct kn_mat *m, bool many)
{
	if (many_fn(cpu, m, many))
		return CPU_X_BF16;
	if (reads_panels(cpu, m))
		return CPU_X_Q8;
	return cpu->isa->dense[m->dtype] ? cpu->isa->dense_form[m->dtype] : CPU_X_F32;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Chooses the kernel and cuts the product into items. */
static void plan(const struct cpu_backend *cpu, struct cpu_task *t, size_t first_item)
{
	const struct kn_mat *m = t->w;
	size_t unit, rows, row_bytes = kn_row_bytes(m->dtype, m->cols), tokens_bytes = TOKENS_BYTES, work = ITEM_WORK;
	size_t n_mats = t->gate ? 2 : 1;
	cpu_block_fn many = many_fn(cpu, m, t->many);

	t->packed = reads_panels(cpu, m);
	t->form = cpu_form_of(cpu, m, t->many);
	t->in_place = !t->packed && (many || cpu->isa->dense[m->dtype]);
	if (many) {
		t->fn = many;
		unit = MANY_ROWS;
		tokens_bytes = MANY_BYTES;
		work = MANY_WORK;
	} else if (t->packed) {
		t->fn = cpu->isa->panel[cpu_panel_of(m->dtype)];
		unit = 2 * CPU_PANEL_ROWS;
	} else {
		t->fn = t->in_place ? cpu->isa->dense[m->dtype] : cpu->isa->dense[KN_F32];
		unit = t->in_place ? cpu->isa->dense_rows : DEQUANT_ROWS;
	}
	t->item_toks = tokens_bytes / cpu_xform_stride(t->form, m->cols);
	t->item_toks = many ? t->item_toks / 32 * 32 : t->item_toks / 6 * 6;
	t->item_toks = min_size(t->item_toks < 32 ? 24 : t->item_toks, CPU_MAX_ITEM_TOKENS);
	t->item_toks = min_size(t->item_toks, t->n);
	rows = ITEM_BYTES / row_bytes / n_mats;
	rows = min_size(rows, work / ((size_t)m->cols * t->item_toks * n_mats));
	/* Small matrices: still a few items for each thread. */
	rows = min_size(rows, m->rows / (4 * (size_t)cpu->n_threads));
	rows = rows / unit * unit;
	t->item_rows = rows ? rows : unit;
	t->n_row_items = (m->rows + t->item_rows - 1) / t->item_rows;
	t->first_item = first_item;
}

static size_t n_items(const struct cpu_task *t)
{
	return t->n_row_items * ((t->n + t->item_toks - 1) / t->item_toks);
}

struct tasks_call {
	struct cpu_backend *cpu;
	const struct cpu_task *tasks;
	size_t n_tasks;
	const struct cpu_area *x;
};

/* Rows that no kernel reads: made floats, a few at a time, in this thread's scratch. */
static void run_dequantized(struct cpu_backend *cpu, const struct kn_mat *m, struct cpu_block *b, size_t row,
                            size_t n_rows)
{
	size_t row_bytes = kn_row_bytes(m->dtype, m->cols), n;
	float *scratch = b->scratch; /* DEQUANT_ROWS rows */
	float *out = b->out;

	b->w = (const char *)scratch;
	b->ld_w = cpu_pad32(m->cols) * sizeof(float);
	for (size_t r = 0; r < n_rows; r += n) {
		n = min_size(DEQUANT_ROWS, n_rows - r);
		for (size_t i = 0; i < n; i++)
			kn_dequantize(m->dtype, (const char *)m->data + (row + r + i) * row_bytes,
			              scratch + i * cpu_pad32(m->cols), m->cols);
		b->out = out + r;
		b->rows = (uint32_t)n;
		cpu->isa->dense[KN_F32](b);
		if (b->bias)
			b->bias += n;
	}
}

static void run_item(const struct tasks_call *c, const struct cpu_task *t, size_t item, unsigned worker)
{
	const struct kn_mat *m = t->w;
	size_t row = item % t->n_row_items * t->item_rows, tok = item / t->n_row_items * t->item_toks;
	size_t n_rows = min_size(t->item_rows, m->rows - row), n = min_size(t->item_toks, t->n - tok);
	struct cpu_block b = {
		.rows = (uint32_t)n_rows,
		.cols = m->cols,
		.x = c->x[t->form].p,
		.ld_x = cpu_xform_stride(t->form, m->cols),
		.first = t->first + tok,
		.n = n,
		.out = t->out ? t->out + tok * t->ld_out + row : NULL,
		.ld_out = t->ld_out,
		.bias = t->bias ? t->bias + row : NULL,
		.accumulate = t->accumulate,
		.scratch = c->cpu->rows.p + worker * c->cpu->rows_per_thread,
	};
	struct cpu_gate gate;

	if (t->packed) {
		b.ld_w = cpu_panel_bytes(cpu_panel_of(m->dtype), m->cols);
		b.w = (const char *)m->packed + row / CPU_PANEL_ROWS * b.ld_w;
	} else if (t->in_place) {
		b.ld_w = kn_row_bytes(m->dtype, m->cols);
		b.w = (const char *)m->data + row * b.ld_w;
	}
	if (t->gate) {
		const char *up = t->packed ? t->gate->up->packed : t->gate->up->data;

		gate = (struct cpu_gate){ .up = up + (b.w - (const char *)(t->packed ? m->packed : m->data)),
			                  .up_bias = t->gate->up_bias ? t->gate->up_bias + row : NULL,
			                  .isa = c->cpu->isa,
			                  .act = t->gate->act,
			                  .h = t->gate->h + tok * t->gate->ld_h + row * sizeof(uint16_t),
			                  .ld_h = t->gate->ld_h };
		b.gate = &gate;
	}
	if (t->packed || t->in_place) {
		t->fn(&b);
	} else {
		run_dequantized(c->cpu, m, &b, row, n_rows);
	}
}

static void run_items(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct tasks_call *c = arg;
	size_t t = 0;

	for (size_t i = begin; i < end; i++) {
		while (t + 1 < c->n_tasks && c->tasks[t + 1].first_item <= i)
			t++;
		run_item(c, &c->tasks[t], i - c->tasks[t].first_item, worker);
	}
}

void cpu_tasks_run(struct cpu_backend *cpu, struct cpu_task *tasks, size_t n_tasks, const struct cpu_area *x)
{
	struct tasks_call call = { .cpu = cpu, .tasks = tasks, .n_tasks = n_tasks, .x = x };
	size_t total = 0;

	for (size_t i = 0; i < n_tasks; i++) {
		plan(cpu, &tasks[i], total);
		total += n_items(&tasks[i]);
	}
	base_threadpool_for(cpu->pool, total, 1, run_items, &call);
}

/* ---- The operations ---- */

static struct rows rows_from(const struct rows *in, size_t first)
{
	struct rows r = *in;

	r.x += first * r.ld;
	return r;
}

static void matmul_slice(struct cpu_backend *cpu, const struct kn_matmul *jobs, size_t n_jobs, const struct rows *in,
                         size_t first, size_t n, bool prompts)
{
	struct rows from = rows_from(in, first);
	size_t cols = jobs[0].w->cols;
	bool many = cpu_is_many(cpu, n, prompts);
	unsigned forms = 0;

	for (size_t j = 0; j < n_jobs; j++)
		forms |= 1u << cpu_form_of(cpu, jobs[j].w, many);
	prepare(cpu, cpu->x, forms, &from, NULL, n, cols);
	for (size_t j = 0; j < n_jobs; j += CPU_MAX_TASKS) {
		struct cpu_task tasks[CPU_MAX_TASKS];
		size_t n_tasks = min_size(CPU_MAX_TASKS, n_jobs - j);

		for (size_t i = 0; i < n_tasks; i++) {
			const struct kn_matmul *job = &jobs[j + i];

			tasks[i] = (struct cpu_task){
				.w = job->w,
				.n = n,
				.out = job->out + first * job->ld_out,
				.ld_out = job->ld_out,
				.bias = job->bias,
				.accumulate = job->flags & KN_ACCUMULATE,
				.many = many,
			};
		}
		cpu_tasks_run(cpu, tasks, n_tasks, cpu->x);
	}
}

/* Rows of one kind. */
static void matmul_rows(struct cpu_backend *cpu, const struct kn_matmul *jobs, size_t n_jobs, const struct rows *in,
                        size_t first, size_t n, bool prompts)
{
	for (size_t end = first + n, k; first < end; first += k) {
		k = min_size(cpu->max_tokens, end - first);
		matmul_slice(cpu, jobs, n_jobs, in, first, k, prompts);
	}
}

void cpu_norm_matmul(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
                     size_t n, const float *norm, float eps)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	const struct rows in = { x, ld_x, norm, eps };
	size_t n_answers = cpu_answer_rows(cpu, n);

	if (n_jobs == 0 || n == 0)
		return;
	/* Grows only for matrices that another backend of this kind prepared. */
	if (cpu_reserve(cpu, jobs[0].w->cols) < 0) {
		cpu->error = -ENOMEM;
		return;
	}
	matmul_rows(cpu, jobs, n_jobs, &in, 0, n_answers, false);
	matmul_rows(cpu, jobs, n_jobs, &in, n_answers, n - n_answers, true);
}

void cpu_matmul(struct kn_backend *be, const struct kn_matmul *jobs, size_t n_jobs, const float *x, size_t ld_x,
                size_t n)
{
	cpu_norm_matmul(be, jobs, n_jobs, x, ld_x, n, NULL, 0);
}

/* Whether a block of these matrices can be computed in one go: gate and up side by side, whose products become what
 * down takes as soon as both are there. */
static bool gates_in_one(const struct cpu_backend *cpu, const struct kn_gated *g, bool many)
{
	cpu_block_fn fn = many_fn(cpu, g->gate, many);

	return fn && fn == many_fn(cpu, g->up, many) && g->gate->rows == g->up->rows && g->gate->rows % 32 == 0 &&
	       many_fn(cpu, g->down, many);
}

static void gated_slice(struct cpu_backend *cpu, const struct kn_gated *g, float *out, size_t ld_out,
                        const struct rows *in, size_t n)
{
	size_t stride = cpu_xform_stride(CPU_X_BF16, g->gate->rows);
	const struct cpu_gate_task gate = {
		.up = g->up, .up_bias = g->up_bias, .act = g->act, .h = cpu->hx[CPU_X_BF16].p, .ld_h = stride
	};
	struct cpu_task pair = { .w = g->gate, .n = n, .bias = g->gate_bias, .many = true, .gate = &gate };
	struct cpu_task down = { .w = g->down,
		                 .n = n,
		                 .out = out,
		                 .ld_out = ld_out,
		                 .bias = g->down_bias,
		                 .accumulate = g->flags & KN_ACCUMULATE,
		                 .many = true };

	prepare(cpu, cpu->x, 1u << CPU_X_BF16, in, NULL, n, g->gate->cols);
	cpu_tasks_run(cpu, &pair, 1, cpu->x);
	cpu_tasks_run(cpu, &down, 1, cpu->hx);
}

/* By the operations that it consists of. */
static void gated_in_parts(struct cpu_backend *cpu, const struct kn_gated *g, float *out, size_t ld_out,
                           const struct rows *in, size_t n, bool prompts)
{
	size_t n_ff = g->gate->rows;
	float *gate = g->gate_out, *up = g->up_out;
	const struct rows hidden = { .x = gate, .ld = n_ff };
	const struct kn_matmul in_jobs[] = { { .w = g->gate, .out = gate, .ld_out = n_ff, .bias = g->gate_bias },
		                             { .w = g->up, .out = up, .ld_out = n_ff, .bias = g->up_bias } };
	const struct kn_matmul down = {
		.w = g->down, .out = out, .ld_out = ld_out, .bias = g->down_bias, .flags = g->flags
	};

	matmul_slice(cpu, in_jobs, 2, in, 0, n, prompts);
	cpu_act_mul(&cpu->base, g->act, gate, n_ff, gate, n_ff, up, n_ff, n, n_ff);
	matmul_slice(cpu, &down, 1, &hidden, 0, n, prompts);
}

void cpu_gated(struct kn_backend *be, const struct kn_gated *g, float *out, size_t ld_out, const float *x, size_t ld_x,
               size_t n)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	size_t n_answers = cpu_answer_rows(cpu, n),
	       cols = g->gate->cols > g->gate->rows ? g->gate->cols : g->gate->rows;
	const struct rows in = { x, ld_x, g->norm, g->eps };

	/* Grows only for matrices that another backend of this kind prepared. */
	if (cpu_reserve(cpu, cols) < 0) {
		cpu->error = -ENOMEM;
		return;
	}
	for (size_t i = 0, k; i < n; i += k) {
		bool prompts = i >= n_answers;
		struct rows from = rows_from(&in, i);

		k = min_size(cpu->max_tokens, (prompts ? n : n_answers) - i);
		if (gates_in_one(cpu, g, cpu_is_many(cpu, k, prompts)))
			gated_slice(cpu, g, out + i * ld_out, ld_out, &from, k);
		else
			gated_in_parts(cpu, g, out + i * ld_out, ld_out, &from, k, prompts);
	}
}
