/* A table of contents as a peer sends it: what is taken can be read, and lies within the blob. */
#include <stdint.h>
#include <stdlib.h>

#include "node/tail.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum { BLOB = 1000 };
	struct node_tail *t = node_tail_new(NULL, BLOB);
	uint8_t out[BLOB];

	if (!t)
		return 0;
	if (node_tail_parse(t, data, size, NULL) == 0) {
		for (uint64_t at = 0; at < BLOB; at += 7) {
			for (size_t n = 1; n <= BLOB - at; n *= 3)
				(void)node_tail_read_at(t, at, n, out, NULL);
		}
		if (node_tail_read_at(t, BLOB, 1, out, NULL) == 0)
			abort();
	}
	node_tail_free(t);
	return 0;
}
