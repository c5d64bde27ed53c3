/* Element types: sizes, names, and values to and from float. One row per type in the table below; the
 * block formats themselves are in quant_block.c and quant_mx.c (32 values) and quant_k.c (256 values). */
#include "kernels.h"

#include <errno.h>
#include <math.h>
#include <strings.h>

#include "ref/half.h"
#include "ref/quant.h"

struct codec {
	struct kn_dtype_info info;
	void (*decode)(const uint8_t *src, float *dst);
	void (*encode)(const float *src, uint8_t *dst);
};

static void f32_decode(const uint8_t *src, float *dst)
{
	memcpy(dst, src, sizeof(*dst));
}

static void f32_encode(const float *src, uint8_t *dst)
{
	memcpy(dst, src, sizeof(*src));
}

static void f16_decode(const uint8_t *src, float *dst)
{
	*dst = kn_load_f16(src);
}

static void f16_encode(const float *src, uint8_t *dst)
{
	kn_store_u16(dst, kn_f32_to_f16(*src));
}

static void bf16_decode(const uint8_t *src, float *dst)
{
	*dst = kn_bf16_to_f32(kn_load_u16(src));
}

static void bf16_encode(const float *src, uint8_t *dst)
{
	kn_store_u16(dst, kn_f32_to_bf16(*src));
}

static void f8_decode(const uint8_t *src, float *dst)
{
	*dst = kn_e4m3_to_f32(*src);
}

static void f8_encode(const float *src, uint8_t *dst)
{
	*dst = kn_f32_to_e4m3(*src);
}

static const struct codec codecs[KN_N_DTYPES] = {
	[KN_F32] = { { "F32", 1, 4 }, f32_decode, f32_encode },
	[KN_F16] = { { "F16", 1, 2 }, f16_decode, f16_encode },
	[KN_BF16] = { { "BF16", 1, 2 }, bf16_decode, bf16_encode },
	[KN_Q8_0] = { { "Q8_0", 32, 34 }, kn_q8_0_decode, kn_q8_0_encode },
	[KN_Q4_0] = { { "Q4_0", 32, 18 }, kn_q4_0_decode, kn_q4_0_encode },
	[KN_Q4_1] = { { "Q4_1", 32, 20 }, kn_q4_1_decode, kn_q4_1_encode },
	[KN_Q5_0] = { { "Q5_0", 32, 22 }, kn_q5_0_decode, kn_q5_0_encode },
	[KN_Q5_1] = { { "Q5_1", 32, 24 }, kn_q5_1_decode, kn_q5_1_encode },
	[KN_Q4_K] = { { "Q4_K", 256, 144 }, kn_q4_k_decode, kn_q4_k_encode },
	[KN_Q5_K] = { { "Q5_K", 256, 176 }, kn_q5_k_decode, kn_q5_k_encode },
	[KN_Q6_K] = { { "Q6_K", 256, 210 }, kn_q6_k_decode, kn_q6_k_encode },
	[KN_F8_E4M3] = { { "F8_E4M3", 1, 1 }, f8_decode, f8_encode },
};

/* From KN_FP8_128 on. */
static const struct codec beyond[] = {
	{ { "FP8", 1, 1 }, f8_decode, f8_encode },
	{ { "MXFP4", 32, 17 }, kn_mxfp4_decode, kn_mxfp4_encode },
};

static const struct codec *codec_of(enum kn_dtype dtype)
{
	return dtype >= KN_FP8_128 ? &beyond[dtype - KN_FP8_128] : &codecs[dtype];
}

const struct kn_dtype_info *kn_dtype_info(enum kn_dtype dtype)
{
	return &codec_of(dtype)->info;
}

int kn_dtype_parse(const char *name, enum kn_dtype *ret_dtype, struct err *err)
{
	for (int i = 0; i < KN_F8_E4M3; i++) {
		if (strcasecmp(name, codecs[i].info.name) == 0) {
			*ret_dtype = (enum kn_dtype)i;
			return 0;
		}
	}
	for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
		if (strcasecmp(name, beyond[i].info.name) == 0) {
			*ret_dtype = (enum kn_dtype)(KN_FP8_128 + i);
			return 0;
		}
	}
	return err_set(err, -EINVAL,
	               "element type '%s': expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, "
	               "Q4_K, Q5_K, Q6_K, FP8 or MXFP4",
	               name);
}

size_t kn_row_bytes(enum kn_dtype dtype, size_t n)
{
	const struct kn_dtype_info *t = kn_dtype_info(dtype);
	size_t bytes;

	if (n % t->block_elems != 0 || __builtin_mul_overflow(n / t->block_elems, (size_t)t->block_bytes, &bytes))
		return 0;
	return bytes;
}

void kn_dequantize(enum kn_dtype dtype, const void *src, float *dst, size_t n)
{
	const struct codec *c = codec_of(dtype);
	const uint8_t *p = src;

	if (dtype == KN_F32) {
		memcpy(dst, src, n * sizeof(*dst));
		return;
	}
	if (dtype == KN_BF16) { /* the common case of loading, kept free of an indirect call per value */
		for (size_t i = 0; i < n; i++)
			dst[i] = kn_bf16_to_f32(kn_load_u16(p + 2 * i));
		return;
	}
	for (size_t i = 0; i < n; i += c->info.block_elems, p += c->info.block_bytes)
		c->decode(p, dst + i);
}

/* Block formats have no NaN or infinity: a NaN counts as 0, and magnitudes end where a scale would
 * leave binary16. */
static void finite_copy(const float *src, float *dst, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = isnan(src[i]) ? 0.0f : fminf(fmaxf(src[i], -6e4f), 6e4f);
}

void kn_quantize(enum kn_dtype dtype, const float *src, void *dst, size_t n)
{
	const struct codec *c = codec_of(dtype);
	float block[KN_SUPER];
	uint8_t *p = dst;

	for (size_t i = 0; i < n; i += c->info.block_elems, p += c->info.block_bytes) {
		if (c->info.block_elems == 1) {
			c->encode(src + i, p);
			continue;
		}
		finite_copy(src + i, block, c->info.block_elems);
		c->encode(block, p);
	}
}
