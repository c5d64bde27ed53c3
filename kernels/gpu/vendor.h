/* Where vendors' libraries are looked for. */
#ifndef GPU_VENDOR_H
#define GPU_VENDOR_H

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The library of that name in the first of the folders, A:B:..., that has one which can be opened. NULL: none has, or
 * folders is NULL. */
static inline void *gpu_open_in(const char *folders, const char *name)
{
	char path[4096];

	while (folders && *folders) {
		size_t n = strcspn(folders, ":");
		void *library = NULL;

		if (n > 0 && (size_t)snprintf(path, sizeof(path), "%.*s/%s", (int)n, folders, name) < sizeof(path))
			library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		if (library)
			return library;
		folders += n + (folders[n] == ':');
	}
	return NULL;
}

#endif
