/* Prefetch lists: what is read is written and read again the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lazy/prefetch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf b = BASE_BUF_INIT(64u << 20);
	struct flip_prefetch a = { 0 }, again = { 0 };

	if (flip_prefetch_parse(data, size, "fuzz", &a, NULL) < 0)
		return 0;
	if (flip_prefetch_append(&a, &b) < 0 || flip_prefetch_parse(b.data, b.len, "again", &again, NULL) < 0 ||
	    a.n != again.n)
		abort();
	for (size_t i = 0; i < a.n; i++) {
		if (strcmp(a.items[i].path, again.items[i].path) != 0 || a.items[i].offset != again.items[i].offset ||
		    a.items[i].size != again.items[i].size)
			abort();
	}
	flip_prefetch_done(&a);
	flip_prefetch_done(&again);
	base_buf_done(&b);
	return 0;
}
