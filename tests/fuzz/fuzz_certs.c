/* Files of certificates, of all formats: whatever they hold, what is written is PEM, and a refusal has words. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "slices/certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct base_buf out = BASE_BUF_INIT(16u << 20);
	struct img_certs *c = img_certs_new();
	struct err err = { 0 };
	size_t n = 0;
	int r;

	if (!c)
		return 0;
	for (int kind = IMG_CERTS_ANCHORS; kind <= IMG_CERTS_BLOCKED; kind++) {
		r = img_certs_add(c, (enum img_certs_kind)kind, "fuzz", data, size, &err);
		if (r < 0 && !err.msg[0])
			abort();
		r = img_certs_write(c, &out, &n);
		if (r == 0 && n > 0 && strncmp(base_buf_text(&out), "-----BEGIN CERTIFICATE-----\n", 28) != 0)
			abort();
	}
	base_buf_done(&out);
	img_certs_free(c);
	return 0;
}
