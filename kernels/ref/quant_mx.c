/* MXFP4, one block of the OCP's microscaling formats (v1.0): u8 s, u8 qs[16]; x = 2^(s - 127) * q.
 *
 * q is a sign, two bits of exponent (bias 1) and one of fraction: 0, 0.5, 1, 1.5, 2, 3, 4, 6. Byte j of qs holds value
 * j in its low four bits and value j + 16 in its high four. s = 255 is no number. */
#include <math.h>

#include "ref/quant.h"

static const float values[8] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6 };

static float value_of(unsigned q)
{
	return q & 8 ? -values[q & 7] : values[q & 7];
}

void kn_mxfp4_decode(const uint8_t *src, float *dst)
{
	float d = src[0] == 255 ? NAN : ldexpf(1, (int)src[0] - 127);

	for (int j = 0; j < KN_BLOCK / 2; j++) {
		dst[j] = d * value_of(src[1 + j] & 15u);
		dst[j + KN_BLOCK / 2] = d * value_of(src[1 + j] >> 4);
	}
}

/* The nearest, of two equally near ones that whose last bit is 0. */
static unsigned nearest(float x)
{
	static const float between[7] = { 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5 };
	float a = fabsf(x);
	unsigned q = 0;

	while (q < 7 && (a > between[q] || (q % 2 == 1 && a == between[q])))
		q++;
	return q | (x < 0 ? 8u : 0u);
}

/* As the format's authors choose the scale: the greatest magnitude falls into the highest exponent. */
void kn_mxfp4_encode(const float *src, uint8_t *dst)
{
	float most = 0, by;
	int exponent = 0;

	for (int i = 0; i < KN_BLOCK; i++)
		most = fmaxf(most, fabsf(src[i]));
	if (most > 0)
		(void)frexpf(most, &exponent); /* most is in [2^(exponent - 1), 2^exponent) */
	exponent = most > 0 ? exponent - 3 : -127;
	exponent = exponent < -127 ? -127 : exponent;
	by = ldexpf(1, -exponent);
	dst[0] = (uint8_t)(exponent + 127);
	for (int j = 0; j < KN_BLOCK / 2; j++)
		dst[1 + j] = (uint8_t)(nearest(src[j] * by) | nearest(src[j + KN_BLOCK / 2] * by) << 4);
}
