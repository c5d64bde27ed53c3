/* The vendor's library of products as the backend opens it, for programs that compare kernels with it. */
#ifndef BENCH_LIBRARY_H
#define BENCH_LIBRARY_H

#include "gpu/launch.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Onto this stream. NULL, with the reason on stderr: it is not here, or has no products by eight bits. */
struct bench_library *bench_library_open(void *stream);
/* l's product without an activation, by the library; l->rows.bound is a multiple of 4. -ENOTSUP: it has no kernel. */
int bench_library_product(struct bench_library *library, const struct gk_product *l);

#ifdef __cplusplus
}
#endif

#endif
