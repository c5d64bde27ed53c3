/* RPM headers from any bytes: a package whose text and numbers can all be read, or an error. */
#include <stdint.h>
#include <string.h>

#include "rpm/rpm.h"
#include "slices/slices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_rpm *p = NULL;
	struct err err = { 0 };
	volatile size_t sum = 0;
	uint8_t caps[20];
	char nevra[512];

	if (img_rpm_parse(data, size, &p, &err) < 0)
		return 0;
	sum += strlen(img_rpm_nevra(p, nevra, sizeof(nevra))) + strlen(p->summary) + strlen(p->license);
	for (int k = 0; k < IMG_RPM_N_DEP_KINDS; k++) {
		for (size_t i = 0; i < p->n_deps[k]; i++)
			sum += strlen(p->deps[k][i].name) + strlen(p->deps[k][i].version);
	}
	for (size_t i = 0; i < p->n_files; i++) {
		const struct img_rpm_file *f = &p->files[i];

		sum += strlen(f->path) + strlen(f->user) + strlen(f->group) + strlen(f->target) + strlen(f->digest) +
		       strlen(f->langs) + strlen(img_slice_role(p, f));
		(void)img_rpm_caps_value(f->caps, caps);
		for (uint32_t k = 0; k < f->n_deps; k++)
			sum += strlen(p->deps[f->deps[k] >> 24][f->deps[k] & 0xffffff].name);
	}
	(void)sum;
	img_rpm_free(p);
	return 0;
}
