/* What the tutorial's kernels offer to C. Arrays are on the host; each call copies them to the device and back, which
 * real programs do once and not per call.
 *
 * They return 0, or the run time's error code, which tutorial_error_words() explains. */
#ifndef TUTORIAL_H
#define TUTORIAL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[i] = a[i] + b[i], i < n */
int tutorial_vector_add(float *out, const float *a, const float *b, size_t n);

/* out[r][i] = exp(in[r][i]) / sum over i of exp(in[r][i]), row-major [n_rows, n_columns] */
int tutorial_softmax(float *out, const float *in, size_t n_rows, size_t n_columns);

const char *tutorial_error_words(int error);

#ifdef __cplusplus
}
#endif

#endif
