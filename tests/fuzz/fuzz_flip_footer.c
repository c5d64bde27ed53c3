/* Ends of blobs: footers of eStargz (both) and zstd:chunked (both), the packed table in front of them, and the position
 * that an annotation says. The first byte chooses whether there is an annotation, which ends at the first 0. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lazy/toc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct blob {
	const uint8_t *data;
	size_t size;
};

static int read_blob(void *arg, uint64_t offset, size_t size, void *data, struct err *err)
{
	const struct blob *b = arg;

	(void)err;
	if (offset > b->size || size > b->size - offset)
		abort(); /* what is asked for lies in the blob */
	if (size)
		memcpy(data, b->data + offset, size);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const name = "io.github.containers.zstd-chunked.manifest-position";
	struct flip_blob_desc d = { .digest = "sha256:fuzz", .names = &name };
	struct flip_toc *t = NULL;
	const char *position = NULL;
	struct blob b = { data, size };

	if (size && data[0] & 1) {
		const uint8_t *end = memchr(data + 1, 0, size - 1);

		if (!end)
			return 0;
		position = (const char *)data + 1;
		d.values = &position;
		d.n_annotations = 1;
		b.data = end + 1;
		b.size = size - (size_t)(end + 1 - data);
	} else if (size) {
		b = (struct blob){ data + 1, size - 1 };
	}
	d.size = b.size;
	if (flip_toc_read(&d, read_blob, &b, &t, NULL) == 0 && t->format != FLIP_PLAIN && !t->tree)
		abort();
	flip_toc_free(t);
	return 0;
}
