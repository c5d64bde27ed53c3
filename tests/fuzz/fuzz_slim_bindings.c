/* What ld.so is said to have printed: read without reading outside, no more pairs than lines. */
#include <stdint.h>
#include <stdlib.h>

#include "slim/slim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_bindings *b = img_bindings_new();
	size_t n_lines = 1;

	for (size_t i = 0; i < size; i++)
		n_lines += data[i] == '\n';
	if (b && img_bindings_parse(b, (const char *)data, size) == 0 && img_bindings_count(b) > n_lines)
		abort();
	img_bindings_free(b);
	return 0;
}
