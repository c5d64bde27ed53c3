/* Any bytes: ranges lie within the file, in order, apart from each other, and the counts agree with them. */
#include <stdint.h>
#include <stdlib.h>

#include "elf/fatbin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct img_gpu_archs archs[] = { { { 90 }, 1, IMG_GPU_PTX_ONE, false },
		                                      { { 80, 103 }, 2, IMG_GPU_PTX_NEEDED, false },
		                                      { { 75 }, 1, IMG_GPU_PTX_ONE, true } };
	const struct img_gpu_archs *a = &archs[size ? data[0] % 3 : 0];
	struct img_fatbin_plan p;
	uint64_t at = 0, sum = 0;

	if (img_fatbin_plan(data, size, a, NULL, NULL, &p, NULL) < 0)
		return 0;
	for (size_t i = 0; i < p.n_zero; i++) {
		must(p.zero[i].offset >= at && p.zero[i].offset <= size &&
		     p.zero[i].size_bytes <= size - p.zero[i].offset);
		at = p.zero[i].offset + p.zero[i].size_bytes;
		sum += p.zero[i].size_bytes;
	}
	must(sum == p.dropped_bytes && sum <= p.payload_bytes && p.n_dropped <= p.n_entries && p.payload_bytes <= size);
	img_fatbin_plan_done(&p);
	return 0;
}
