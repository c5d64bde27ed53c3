/* Any bytes as an executable: its interpreter is a text within the limit, or there is none. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "trace/interp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char path[IMG_INTERP_MAX];
	int fd = memfd_create("input", MFD_CLOEXEC);

	if (fd < 0)
		return 0;
	if (write(fd, data, size) == (ssize_t)size && img_interp_of(fd, path) == 1) {
		size_t len = strnlen(path, sizeof(path));

		if (len == 0 || len == sizeof(path) || !memmem(data, size, path, len))
			abort();
	}
	(void)close(fd);
	return 0;
}
