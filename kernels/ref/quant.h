/* One block of each quantized type, decoded and encoded; what dtype.c's table is made of. */
#ifndef KN_REF_QUANT_H
#define KN_REF_QUANT_H

#include <stdint.h>

enum { KN_BLOCK = 32, KN_SUPER = 256 };

/* src is one block's bytes, dst its values. */
void kn_q8_0_decode(const uint8_t *src, float *dst);
void kn_q4_0_decode(const uint8_t *src, float *dst);
void kn_q4_1_decode(const uint8_t *src, float *dst);
void kn_q5_0_decode(const uint8_t *src, float *dst);
void kn_q5_1_decode(const uint8_t *src, float *dst);
void kn_q4_k_decode(const uint8_t *src, float *dst);
void kn_q5_k_decode(const uint8_t *src, float *dst);
void kn_q6_k_decode(const uint8_t *src, float *dst);
void kn_mxfp4_decode(const uint8_t *src, float *dst);

/* src is finite (dtype.c sees to it) and at most 6e4 in magnitude, so that scales fit binary16. */
void kn_q8_0_encode(const float *src, uint8_t *dst);
void kn_q4_0_encode(const float *src, uint8_t *dst);
void kn_q4_1_encode(const float *src, uint8_t *dst);
void kn_q5_0_encode(const float *src, uint8_t *dst);
void kn_q5_1_encode(const float *src, uint8_t *dst);
void kn_q4_k_encode(const float *src, uint8_t *dst);
void kn_q5_k_encode(const float *src, uint8_t *dst);
void kn_q6_k_encode(const float *src, uint8_t *dst);
void kn_mxfp4_encode(const float *src, uint8_t *dst);

#endif
