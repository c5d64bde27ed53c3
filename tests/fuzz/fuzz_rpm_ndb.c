/* Package databases of the ndb kind. */
#include <stdint.h>

#include "rpm/rpm_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_rpm_set *s = NULL;
	struct err err = { 0 };

	if (img_rpm_set_new(NULL, &s) < 0)
		return 0;
	if (img_rpm_ndb_parse(s, data, size, &err) == 0) {
		for (size_t i = 0; i < img_rpm_set_count(s); i++)
			(void)img_rpm_set_find(s, img_rpm_set_at(s, i)->name);
		(void)img_rpm_set_owner(s, "/usr/bin/sh", NULL, &err);
	}
	img_rpm_set_free(s);
	return 0;
}
