/* Takes a command out of the input. What comes out holds no control characters. */
#include <stdint.h>
#include <stdlib.h>

#include "agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf out = BASE_BUF_INIT(1 << 16);

	if (ag_extract_command((const char *)data, size, &out) > 0) {
		for (size_t i = 0; i < out.len; i++) {
			if ((unsigned char)out.data[i] < 32 && out.data[i] != '\n' && out.data[i] != '\t')
				abort();
		}
	}
	base_buf_done(&out);
	return 0;
}
