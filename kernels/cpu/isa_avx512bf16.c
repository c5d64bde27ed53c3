/* AVX-512 with BF16: products of bfloat16 pairs summed in float by one instruction (vdpbf16ps), for which
 * activations are rounded to bfloat16 too. Twice the rate of float products on Zen 4 and 5; where it is
 * slower than them (some Xeons run it at a quarter), cpu_isa_find() prefers plain AVX-512. */
#include "cpu/vec_avx512.h"

static inline __m512bh load_bf16x32(const uint16_t *p)
{
	return (__m512bh)_mm512_loadu_si512(p);
}

static inline __m512bh load_bf16x32_part(const uint16_t *p, size_t n)
{
	return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
}

#define D_R 4
#define D_T 6
#define D_R1 8
#define A_R 4
#define A_D 4
#define ISA_HAS_BF16
#include "cpu/isa_impl.inc.h"

#define DENSE(name) dense_bf16_##name
#define D_STEP 32
#define D_KBLOCK 1024
#define D_WV __m512bh
#define D_XV __m512bh
#define D_ELEM 2
#define D_LOAD_W(row, k) load_bf16x32((const uint16_t *)(row) + (k))
#define D_PART_W(row, k, n) load_bf16x32_part((const uint16_t *)(row) + (k), n)
#define D_LOAD_X(row, k) load_bf16x32((const uint16_t *)(row) + (k))
#define D_MAC(acc, w, x) _mm512_dpbf16_ps(acc, w, x)
#include "cpu/dense.inc.h"

static void prepare_bf16(void *dst, const float *x, size_t cols)
{
	store_bf16(dst, x, cols);
	memset((uint16_t *)dst + cols, 0, (cpu_pad32(cols) - cols) * sizeof(uint16_t));
}

const struct cpu_isa cpu_isa_avx512bf16 = {
	.name = "avx512bf16",
	.dense = { [KN_F32] = dense_f32_block, [KN_F16] = dense_f16_block, [KN_BF16] = dense_bf16_block },
	.dense_form = { [KN_BF16] = CPU_X_BF16 },
	.panel = { [CPU_PANEL_8] = cpu_panel_8_avx512,
	           [CPU_PANEL_4] = cpu_panel_4_avx512,
	           [CPU_PANEL_4K] = cpu_panel_4k_avx512,
	           [CPU_PANEL_6K] = cpu_panel_6k_avx512 },
	.dense_rows = D_R1,
	.prepare[CPU_X_BF16] = prepare_bf16,
	ISA_COMMON,
};
