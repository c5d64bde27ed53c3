/* Databases of slices from any text. */
#include <stdint.h>
#include <string.h>

#include "slices/slices_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "bash", "libc6", "a" }, *const paths[] = { "/usr/bin/bash", "/a", "/lib" };
	struct img_slices *s = NULL;
	struct err err = { 0 };
	volatile size_t sum = 0;

	if (img_slices_parse("slices", (const char *)data, size, &s, &err) < 0)
		return 0;
	for (size_t i = 0; i < 9; i++) {
		const struct img_slices_file *f = img_slices_file(s, names[i / 3], paths[i % 3]);

		for (size_t k = 0; f && k < f->n_needs; k++)
			sum += strlen(f->needs[k].kind) + strlen(f->needs[k].what) +
			       (f->needs[k].path ? strlen(f->needs[k].path) : 0);
		sum += img_slices_evr(s, names[i / 3]) != NULL;
	}
	(void)sum;
	img_slices_free(s);
	return 0;
}
