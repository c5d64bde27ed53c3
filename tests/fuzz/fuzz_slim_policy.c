/* Policy files and patterns: whatever is read answers; a refusal has words. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "slim/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct img_policy *p = img_policy_new();
	struct err err = { 0 };

	if (!p)
		return 0;
	if (size < 4096 && img_policy_parse(p, (const char *)data, size, "fuzz", &err) < 0 && !err.msg[0])
		abort();
	(void)img_policy_drops(p, "/usr/lib/python3.11/os.py");
	for (unsigned int i = 0; i < IMG_N_POLICY_KEYS; i++) {
		if (strlen(img_policy_get(p, (enum img_policy_key)i)) > 4096)
			abort();
	}
	img_policy_free(p);
	return 0;
}
