/* A model's answer against facts; the first byte parts them. Facts hold all of their own numbers. */
#include <stdint.h>
#include <stdlib.h>

#include "flow/flow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf out = BASE_BUF_INIT(8192);
	const char *text = (const char *)data + 1;
	size_t cut;

	if (size == 0)
		return 0;
	cut = (size - 1) * data[0] / 256;
	(void)ag_numbers_unknown(text, cut, text + cut, size - 1 - cut, &out);
	base_buf_reset(&out);
	if (ag_numbers_unknown(text, size - 1, text, size - 1, &out) > 0)
		abort();
	base_buf_done(&out);
	return 0;
}
