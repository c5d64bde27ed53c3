/* Where keys and values of paged sequences lie. */
#ifndef GPU_KV_H
#define GPU_KV_H

#include "gpu/view.h"

/* Bytes of an element of the pool. */
static __host__ __device__ inline uint32_t gk_kv_elem_bytes(uint32_t dtype)
{
	return dtype == KN_F32 ? 4 : dtype == KN_F8_E4M3 ? 1 : 2;
}

/* Whether kernels know such a pool. */
static inline bool gk_kv_takes(const struct gk_kv *kv)
{
	return (kv->dtype <= KN_BF16 || kv->dtype == KN_F8_E4M3) && kv->k_dim <= KN_MAX_HEAD &&
	       kv->v_dim <= KN_MAX_HEAD;
}

/* Element offset of token t's vector of `dim` values for a head. */
GPU_FN size_t gk_kv_at(const gk_kv &kv, const uint32_t *pages, uint32_t t, uint32_t head, uint32_t dim)
{
	const uint32_t page = t / kv.page_tokens, slot = t - page * kv.page_tokens;

	return (((size_t)pages[page] * kv.n_kv_head + head) * kv.page_tokens + slot) * dim;
}

/* What values of a head are divided by before they are stored. */
GPU_FN float gk_kv_scale(const float *scales, uint32_t head)
{
	return scales ? scales[head] : 1.0f;
}

/* Without scales. */
GPU_FN void gk_kv_put(uint32_t dtype, void *pool, size_t at, float f)
{
	if (dtype == KN_F8_E4M3)
		((uint8_t *)pool)[at] = gpu_to_e4m3(f);
	else if (dtype == KN_F32)
		((float *)pool)[at] = f;
	else if (dtype == KN_BF16)
		((gpu_bf16 *)pool)[at] = gpu_to_bf16(f);
	else
		((gpu_f16 *)pool)[at] = gpu_to_f16(f);
}

/* Eight side by side; `at` is a multiple of 8, the pool begins at one of 16 bytes. */
GPU_FN void gk_kv_put8(uint32_t dtype, void *pool, size_t at, const float *f)
{
	const gk_view line = { pool,
		               dtype == KN_F32    ? (uint32_t)GK_F32
		               : dtype == KN_BF16 ? (uint32_t)GK_BF16
		                                  : (uint32_t)GK_F16,
		               0 };

	if (dtype == KN_F8_E4M3)
		*(uint2 *)((uint8_t *)pool + at) =
		        make_uint2(gpu_pack_e4m3(f[0], f[1]) | gpu_pack_e4m3(f[2], f[3]) << 16,
		                   gpu_pack_e4m3(f[4], f[5]) | gpu_pack_e4m3(f[6], f[7]) << 16);
	else
		gk_put8_at(line, at, f);
}

GPU_FN float gk_kv_get(uint32_t dtype, const void *pool, size_t at)
{
	if (dtype == KN_F32)
		return ((const float *)pool)[at];
	if (dtype == KN_F8_E4M3)
		return gpu_from_e4m3(((const uint8_t *)pool)[at]);
	return dtype == KN_BF16 ? gpu_from_bf16(((const gpu_bf16 *)pool)[at])
	                        : gpu_from_f16(((const gpu_f16 *)pool)[at]);
}

/* A row's sequence, place and page table; false: the row belongs to none. */
struct gk_place {
	const uint32_t *pages;
	uint32_t token;
};

GPU_FN bool gk_place_of_row(const gk_batch &b, uint32_t row, gk_place *place)
{
	const uint32_t s = b.row_seq[row];

	if (s == GK_WHOLE)
		return false;

	const gk_seq seq = b.seqs[s];

	place->pages = b.pages + seq.first_page;
	place->token = seq.kv_len - seq.n_q + (row - seq.row);
	return true;
}

#endif
