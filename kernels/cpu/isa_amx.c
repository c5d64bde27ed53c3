/* AVX-512 with tile registers (AMX): panels meet sixteen tokens at a time, the rest is as in plain AVX-512. */
#include "cpu/vec_avx512.h"

#define D_R 4
#define D_T 6
#define D_R1 8
#define A_R 4
#define A_D 4
#include "cpu/isa_impl.inc.h"

const struct cpu_isa cpu_isa_amx = {
	.name = "amx",
	.dense = { [KN_F32] = dense_f32_block, [KN_F16] = dense_f16_block, [KN_BF16] = dense_bf16_block },
	.panel = { [CPU_PANEL_8] = cpu_panel_8_amx,
	           [CPU_PANEL_4] = cpu_panel_4_amx,
	           [CPU_PANEL_4K] = cpu_panel_4k_amx,
	           [CPU_PANEL_6K] = cpu_panel_6k_amx },
	.dense_rows = D_R1,
	ISA_COMMON,
};
