/* Shell scripts: commands are found without reading outside; none is longer than its script, or empty. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_command(const char *name, void *arg)
{
	if (strlen(name) > *(size_t *)arg)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return img_shell_commands((const char *)data, size, on_command, &size) == 0 ? 0 : (abort(), 0);
}
