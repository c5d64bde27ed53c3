/* Rules by hand from any text, asked about files of a package. */
#include <stdint.h>
#include <string.h>

#include "slices/slices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const paths[] = { "/usr/bin/box", "/etc/box.conf", "/usr/lib64/libbox.so.1",
		                             "/usr/share/box" };
	struct img_rpm p = { .name = "box" };
	struct img_rules *r = NULL;
	const char *values[8];
	struct err err = { 0 };

	/* fnmatch() of long patterns with many stars takes its time; that is no finding. */
	if (size > 4096 || img_rules_new(&r) < 0)
		return 0;
	if (img_rules_parse(r, "rules", (const char *)data, size, &err) == 0) {
		for (size_t i = 0; i < 4; i++) {
			const struct img_rpm_file f = { .path = paths[i], .target = "" };
			const char *slice = img_rules_slice(r, &p, &f);

			(void)img_rules_needs(r, paths[i], i & 1, values, 8);
			(void)img_rules_unneeds(r, paths[i], slice ? slice : "");
		}
		(void)img_rules_slice_lines(r, "box_bins", "need", values, 8);
	}
	img_rules_free(r);
	return 0;
}
