/* Index files: any bytes are refused or can be walked from end to end. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lazy/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct flip_index *ix)
{
	const uint32_t *list;
	size_t n = flip_index_prefetch(ix, &list);

	for (size_t i = 0; i < flip_index_n_objects(ix); i++) {
		const struct flip_index_object *o = flip_index_object(ix, i);

		if (flip_index_find(ix, o->digest) != o)
			abort();
	}
	for (size_t i = 0; i < flip_index_n_chunks(ix); i++) {
		const struct flip_index_object *o = flip_index_chunk_object(ix, i);

		if (i < o->first_chunk || i >= (size_t)o->first_chunk + o->n_chunks)
			abort();
	}
	for (size_t i = 0; i < n; i++) {
		if (flip_index_chunk(ix, list[i])->blob_size == 0)
			abort();
	}
	if (strlen(flip_index_blob(ix)) > 71)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("index", MFD_CLOEXEC);
	struct flip_index *ix = NULL;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (fd >= 0 && write(fd, data, size) == (ssize_t)size && flip_index_open(path, &ix, NULL) == 0)
		walk(ix);
	flip_index_close(ix);
	if (fd >= 0)
		(void)close(fd);
	return 0;
}
