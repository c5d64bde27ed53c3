/* A safetensors file; or, when it begins like JSON, a shard index. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "weights/weights_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void read_index(const uint8_t *data, size_t size)
{
	struct eng_weights *w = calloc(1, sizeof(*w));
	int fd = memfd_create("index", MFD_CLOEXEC);
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (w && fd >= 0 && write(fd, data, size) == (ssize_t)size)
		(void)eng_safetensors_open_index(w, path, NULL);
	if (fd >= 0)
		(void)close(fd);
	eng_weights_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eng_weights *w;
	struct err err = { 0 };

	if (size > 0 && (data[0] == '{' || data[0] == ' '))
		read_index(data, size);
	if (eng_weights_parse("fuzz", data, size, &w, &err) < 0)
		return 0;
	for (size_t i = 0; i < eng_weights_count(w); i++) {
		const struct eng_tensor *t = eng_weights_at(w, i);
		const uint8_t *p = t->data;

		if (eng_weights_find(w, t->name) != t)
			abort();
		if (t->size_bytes)
			sink = (uint8_t)(p[0] ^ p[t->size_bytes - 1]);
	}
	eng_weights_close(w);
	return 0;
}
