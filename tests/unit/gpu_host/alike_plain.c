/* Values that tell orders of sums apart, in plain loops: as alike.h says, not the device's. */
#include "gpu/alike.h"
#include "plain.h"

static uint32_t mixed(uint32_t a, uint32_t b)
{
	uint64_t s = ((uint64_t)a << 32 | b) * 6364136223846793005u + 1442695040888963407u;

	s ^= s >> 29;
	return (uint32_t)((s * 6364136223846793005u) >> 32);
}

int gk_alike_values(const struct gk_ctx *ctx, const struct gk_alike *a)
{
	uint32_t half = a->cols / 2;

	(void)ctx;
	for (uint32_t i = 0; i < a->rows; i++) {
		for (uint32_t k = 0; k < a->ld; k++) {
			uint32_t v = mixed(i + (a->is_x ? 1u << 20 : 0), half ? k % half : 0);
			uint32_t sign = (v >> 31) ^ (a->is_x && k >= half);
			uint16_t bits = (uint16_t)(sign << 15 | (120 + v % 6) << 7 | (v >> 20 & 127));

			if (a->eight_bits)
				((uint8_t *)a->p)[(size_t)i * a->ld + k] =
				        k < 2 * half ? (uint8_t)(sign << 7 | (3 + v % 9) << 3 | (v >> 20 & 7)) : 0;
			else
				((uint16_t *)a->p)[(size_t)i * a->ld + k] = k < 2 * half ? bits : 0;
		}
	}
	return 0;
}

int gk_alike_scales(const struct gk_ctx *ctx, const struct gk_alike *a)
{
	(void)ctx;
	for (size_t i = 0; i < (size_t)a->rows * a->ld; i++)
		((float *)a->p)[i] = 1.0f / 64;
	return 0;
}

int gk_alike_summands(const struct gk_ctx *ctx, void *p, uint32_t elem, uint32_t rows, uint32_t ld)
{
	const struct gk_view v = { .p = p, .elem = elem, .ld = ld };

	(void)ctx;
	for (uint32_t i = 0; i < rows; i++) {
		for (uint32_t k = 0; k < ld; k++)
			plain_put(&v, i, k, ((float)(mixed(~i, k) >> 8) - 8388608.0f) / 8589934592.0f);
	}
	return 0;
}

int gk_alike_count(const struct gk_ctx *ctx, const void *a, const void *b, size_t n, uint32_t *ret_n)
{
	(void)ctx;
	*ret_n = 0;
	for (size_t i = 0; i < n; i++)
		*ret_n += ((const uint32_t *)a)[i] != ((const uint32_t *)b)[i];
	return 0;
}
