/* library.h over gemm.h, with as much of a backend as that looks at. */
#include "library.h"

#include <stdio.h>

#include "gpu/gemm.h"

struct bench_library {
	struct gpu_backend be;
	struct gpu_gemm *gemm;
};

struct bench_library *bench_library_open(void *stream)
{
	static struct bench_library library; /* for as long as the program runs */
	char reason[512] = "it does not know scales of blocks";

	library.be.rt.stream = stream;
	library.gemm = gpu_gemm_open(&library.be, reason, sizeof(reason));
	if (library.gemm && gpu_gemm8_known(library.gemm))
		return &library;
	(void)fprintf(stderr, "no library: %s\n", reason);
	return NULL;
}

static int product16(struct bench_library *library, const struct gk_product *l)
{
	const struct gpu_gemm_desc d = { .rows = l->rows.bound,
		                         .n = l->n,
		                         .k = l->w[0].cols,
		                         .x = l->x,
		                         .w = l->w[0].values,
		                         .out = l->out.p,
		                         .ld_x = l->ld_x,
		                         .ld_w = l->w[0].ld,
		                         .ld_out = l->out.ld,
		                         .out_is_f32 = l->out.elem == GK_F32,
		                         .accumulate = l->accumulate };

	return gpu_gemm_run(library->gemm, &d);
}

int bench_library_product(struct bench_library *library, const struct gk_product *l)
{
	if (l->w[0].type == KN_BF16)
		return product16(library, l);

	const struct gpu_gemm8_desc d = { .rows = l->rows.bound,
		                          .n = l->n,
		                          .k = l->w[0].cols,
		                          .w = &l->w[0],
		                          .x = l->x,
		                          .x_scale = l->x_scale,
		                          .out = l->out.p,
		                          .ld_x = l->ld_x,
		                          .ld_out = l->out.ld,
		                          .out_is_f32 = l->out.elem == GK_F32,
		                          .accumulate = l->accumulate };

	return gpu_gemm8_run(library->gemm, &d);
}
