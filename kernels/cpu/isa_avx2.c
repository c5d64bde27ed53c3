/* AVX2 with FMA and F16C: eight lanes, 16 registers. */
#include "cpu/vec_avx2.h"

#define D_R 4
#define D_T 3
#define D_R1 8
#define A_R 2
#define A_D 4
#include "cpu/isa_impl.inc.h"

const struct cpu_isa cpu_isa_avx2 = {
	.name = "avx2",
	.dense = { [KN_F32] = dense_f32_block, [KN_F16] = dense_f16_block, [KN_BF16] = dense_bf16_block },
	.panel = { [CPU_PANEL_8] = cpu_panel_8_avx2,
	           [CPU_PANEL_4] = cpu_panel_4_avx2,
	           [CPU_PANEL_4K] = cpu_panel_4k_avx2,
	           [CPU_PANEL_6K] = cpu_panel_6k_avx2 },
	.dense_rows = D_R1,
	ISA_COMMON,
};
