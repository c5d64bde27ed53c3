/* The cpu backend: opened for the best instruction set of this machine, or for one by name.
 *
 * Scratch is address space for the worst case of kn_config.max_tokens and the widest matrix seen, mapped
 * without reservation: pages become memory when a call first needs them, and nothing is allocated after
 * set-up. */
#include "cpu/cpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ref/ref.h"

enum {
	DEFAULT_MAX_TOKENS = 512,
	HUGE_BYTES = 2 << 20,
	LARGE_BYTES = 8 << 20,
};

/* ---- Address space ---- */

int cpu_area_reserve(struct cpu_area *area, size_t bytes)
{
	void *p;

	bytes = (bytes + 4095) & ~(size_t)4095;
	if (bytes <= area->bytes)
		return 0;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	/* Large pages where the system offers them: weights are read end to end, and page walks cost 15 %. */
	if (bytes >= HUGE_BYTES)
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	cpu_area_release(area);
	area->p = p;
	area->bytes = bytes;
	return 0;
}

void cpu_area_release(struct cpu_area *area)
{
	if (area->p)
		(void)munmap(area->p, area->bytes);
	area->p = NULL;
	area->bytes = 0;
}

/* Keys and values are read from all over their pool: in large pages, where the system offers them, a thread reads 14
 * GB/s of them and otherwise 10. What is smaller is not worth the memory that a page of it takes as a whole. Pages come
 * as they are written; the beginning is where it would be otherwise, for what is used together must not begin at
 * the same places of the caches. */
static void *cpu_alloc(struct kn_backend *be, size_t bytes)
{
	void *p = ref_alloc(be, bytes);
	uintptr_t begin = ((uintptr_t)p + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES,
	          end = ((uintptr_t)p + bytes) / HUGE_BYTES * HUGE_BYTES;

	if (p && bytes >= LARGE_BYTES)
		(void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
	return p;
}

/* Allocations of some size come from mmap(), a page at a time as they are written. */
static void cpu_discard(struct kn_backend *be, void *p, size_t bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = ((uintptr_t)p + page - 1) / page * page,
	          end = ((uintptr_t)p + bytes) / page * page;

	(void)be;
	if (begin < end)
		(void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static size_t max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* Experts' rows: each token has top_k of them. They are computed in slices of as many as fit here. */
size_t cpu_moe_rows(const struct cpu_backend *cpu)
{
	return max_size(cpu->max_tokens, 16) * CPU_MOE_FACTOR;
}

int cpu_reserve(struct cpu_backend *cpu, size_t cols)
{
	size_t rows = cpu->max_tokens + CPU_ROW_PAD, moe_rows = cpu_moe_rows(cpu);
	int r = 0;

	if (cols <= cpu->max_cols)
		return 0;
	if (cols > UINT32_MAX / 4)
		return -EINVAL;
	for (int f = 0; f < CPU_N_XFORMS && r == 0; f++) {
		size_t stride = cpu_xform_stride((enum cpu_xform)f, cols);

		r = cpu_area_reserve(&cpu->x[f], rows * stride);
		if (r == 0)
			r = cpu_area_reserve(&cpu->hx[f], (moe_rows + CPU_ROW_PAD) * stride);
	}
	if (r == 0)
		r = cpu_area_reserve(&cpu->moe, moe_rows * (3 * cols * sizeof(float)));
	if (r == 0) {
		size_t per_thread =
		        max_size(cpu->rows_per_thread, CPU_SCRATCH_BYTES + CPU_SCRATCH_COLS * cpu_pad32(cols));

		r = cpu_area_reserve(&cpu->rows, cpu->n_threads * per_thread);
		if (r == 0)
			cpu->rows_per_thread = per_thread;
	}
	if (r == 0)
		cpu->max_cols = cols;
	return r;
}

/* ---- Open and close ---- */

static int cpu_sync(struct kn_backend *be)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;
	int r = cpu->error;

	cpu->error = 0;
	return r;
}

static void cpu_close(struct kn_backend *be)
{
	struct cpu_backend *cpu = (struct cpu_backend *)be;

	base_threadpool_free(cpu->pool);
	for (int f = 0; f < CPU_N_XFORMS; f++) {
		cpu_area_release(&cpu->x[f]);
		cpu_area_release(&cpu->hx[f]);
	}
	cpu_area_release(&cpu->rows);
	cpu_area_release(&cpu->delta);
	cpu_area_release(&cpu->moe);
	cpu_area_release(&cpu->moe_index);
	cpu_area_release(&cpu->attn);
	cpu_area_release(&cpu->attn_parts);
	cpu_area_release(&cpu->shares.area);
	cpu_area_release(&cpu->picks);
	for (int i = 0; i < CPU_ROPE_CACHES; i++)
		cpu_area_release(&cpu->rope[i].area);
	free(cpu);
}

static const struct kn_ops cpu_ops = {
	.name = "cpu",
	.close = cpu_close,
	.sync = cpu_sync,
	.alloc = cpu_alloc,
	.free = ref_free,
	.discard = cpu_discard,
	.upload = ref_upload,
	.download = ref_download,
	.copy = ref_copy,
	.mat_init = cpu_mat_init,
	.mat_done = cpu_mat_done,
	.embed = cpu_embed,
	.rmsnorm = cpu_rmsnorm,
	.layernorm = cpu_layernorm,
	.matmul = cpu_matmul,
	.norm_matmul = cpu_norm_matmul,
	.rope = cpu_rope,
	.kv_store = cpu_kv_store,
	.qkv_store = cpu_qkv_store,
	.attention = cpu_attention,
	.conv_silu = cpu_conv_silu,
	.delta_rule = cpu_delta_rule,
	.gated_rmsnorm = cpu_gated_rmsnorm,
	.gate_rows = cpu_gate_rows,
	.act_mul = cpu_act_mul,
	.add = cpu_add,
	.gated = cpu_gated,
	.route = cpu_route,
	.moe = cpu_moe,
	.pick = cpu_pick,
};

int kn_cpu_open(const struct kn_config *config, struct kn_backend **ret_backend, struct err *err)
{
	const struct cpu_isa *isa = cpu_isa_find(config->isa, config->exact, config->deterministic);
	struct cpu_backend *cpu;
	int r;

	if (!isa)
		return err_set(err, -ENOTSUP, "this processor cannot run the instruction set \"%s\"",
		               config->isa ? config->isa : "");
	cpu = calloc(1, sizeof(*cpu));
	if (!cpu)
		return err_set(err, -ENOMEM, "no memory for the cpu backend");
	cpu->base = (struct kn_backend){ .ops = &cpu_ops,
		                         .tells_prompts = config->deterministic && isa->many_tokens,
		                         .keeps_states = true,
		                         .n_answer_rows = UINT32_MAX };
	cpu->isa = isa;
	cpu->max_tokens = config->max_tokens ? config->max_tokens : DEFAULT_MAX_TOKENS;
	r = base_threadpool_new(config->n_threads, &cpu->pool, err);
	if (r < 0) {
		free(cpu);
		return r;
	}
	cpu->n_threads = base_threadpool_size(cpu->pool);
	(void)snprintf(cpu->base.device, sizeof(cpu->base.device), "%u threads", cpu->n_threads);
	base_threadpool_yield(cpu->pool);
	r = cpu_attention_reserve(cpu);
	if (r == 0)
		r = cpu_shares_reserve(cpu);
	if (r == 0)
		r = cpu_rope_reserve(cpu);
	if (r == 0)
		r = cpu_area_reserve(&cpu->moe_index, (2 * cpu_moe_rows(cpu) + 2 * CPU_MAX_EXPERTS) * sizeof(uint32_t));
	if (r == 0 && isa->delta_chunks)
		r = cpu_area_reserve(&cpu->delta, cpu->n_threads * CPU_DELTA_SCRATCH * sizeof(float));
	if (r == 0)
		r = cpu_reserve(cpu, 1024);
	if (r < 0) {
		cpu_close(&cpu->base);
		return err_set(err, r, "no address space for scratch of %zu tokens", cpu->max_tokens);
	}
	*ret_backend = &cpu->base;
	return 0;
}
