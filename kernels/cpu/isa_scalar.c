/* Any machine: what the compiler makes of vectors of four floats. Weights below 16 bits are dequantized in
 * chunks of rows (matmul.c) and multiplied as floats. */
#include "cpu/vec_scalar.h"

#define D_R 4
#define D_T 2
#define D_R1 8
#define A_R 2
#define A_D 2
#include "cpu/isa_impl.inc.h"

const struct cpu_isa cpu_isa_scalar = {
	.name = "scalar",
	.dense = { [KN_F32] = dense_f32_block, [KN_F16] = dense_f16_block, [KN_BF16] = dense_bf16_block },
	.dense_rows = D_R1,
	ISA_COMMON,
};
