/* Python source: import statements are found without reading outside, names are short, levels are dots that are there.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_import(const struct img_python_import *i, void *arg)
{
	if (strlen(i->module) > 255 || (i->name && strlen(i->name) > 255) || i->level > *(size_t *)arg)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return img_python_imports((const char *)data, size, on_import, &size) == 0 ? 0 : (abort(), 0);
}
