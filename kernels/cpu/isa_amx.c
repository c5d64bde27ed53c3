/* AVX-512 with tile registers (AMX), twice: `amx` multiplies panels with int8 activations, sixteen tokens at a time, to
 * the very bits of `avx512`; `amxbf16` makes bfloat16 of weights and activations when tokens are many, twice as
 * fast. */
#include "cpu/vec_avx512.h"

#define D_R 4
#define D_T 6
#define D_R1 8
#define A_R 4
#define A_D 4
#include "cpu/isa_impl.inc.h"
#include "cpu/delta_chunk.inc.h"

static void prepare_bf16(void *dst, const float *x, size_t cols)
{
	store_bf16(dst, x, cols);
	memset((uint16_t *)dst + cols, 0, (cpu_pad32(cols) - cols) * sizeof(uint16_t));
}

#define AMX_COMMON                                                                                         \
	.dense = { [KN_F32] = dense_f32_block, [KN_F16] = dense_f16_block, [KN_BF16] = dense_bf16_block }, \
	.panel = { [CPU_PANEL_8] = cpu_panel_8_amx,                                                        \
		   [CPU_PANEL_4] = cpu_panel_4_amx,                                                        \
		   [CPU_PANEL_4K] = cpu_panel_4k_amx,                                                      \
		   [CPU_PANEL_6K] = cpu_panel_6k_amx },                                                    \
	.dense_rows = D_R1, .prepare[CPU_X_BF16] = prepare_bf16, ISA_COMMON

const struct cpu_isa cpu_isa_amx = { .name = "amx", AMX_COMMON };

static const struct cpu_attn_many attn_many = {
	cpu_many_keys_amx, cpu_many_values_amx, cpu_many_qk_amx, cpu_many_softmax_amx, cpu_many_pv_amx,
};

const struct cpu_isa cpu_isa_amxbf16 = {
	.name = "amxbf16",
	.many_dense = { [KN_F16] = cpu_many_f16_amx, [KN_BF16] = cpu_many_bf16_amx },
	.many_panel = { [CPU_PANEL_8] = cpu_many_panel_8_amx,
	                [CPU_PANEL_4] = cpu_many_panel_4_amx,
	                [CPU_PANEL_4K] = cpu_many_panel_4k_amx,
	                [CPU_PANEL_6K] = cpu_many_panel_6k_amx },
	.many_tokens = 12,
	.attn_many = &attn_many,
	.delta_chunks = delta_chunks,
	AMX_COMMON,
};
