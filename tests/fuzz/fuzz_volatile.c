/* Any output of a command: masking never makes it longer, keeps its lines, and does the same twice. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compare.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t count_lines(const char *text, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < size; i++)
		n += text[i] == '\n';
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf a = BASE_BUF_INIT(1u << 20), b = BASE_BUF_INIT(1u << 20);
	char *path = strndup((const char *)data, size);

	if (img_volatile_mask((const char *)data, size, &a) == 0) {
		if (a.len > size || count_lines(a.data, a.len) != count_lines((const char *)data, size))
			abort();
		if (img_volatile_mask((const char *)data, size, &b) == 0 &&
		    (a.len != b.len || (a.len && memcmp(a.data, b.data, a.len) != 0)))
			abort();
	}
	if (path)
		(void)img_volatile_path(path);
	free(path);
	base_buf_done(&a);
	base_buf_done(&b);
	return 0;
}
