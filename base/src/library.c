#include "base/library.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

int base_library_load(const char *file, const struct base_symbol *symbols, size_t n, struct err *err)
{
	void *library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);

	if (!library)
		return err_set(err, -ELIBACC, "%s", dlerror());
	for (size_t i = 0; i < n; i++) {
		void *function = dlsym(library, symbols[i].name);

		if (!function)
			return err_set(err, -ELIBACC, "%s has no %s", file, symbols[i].name);
		memcpy(symbols[i].slot, &function, sizeof(function));
	}
	return 0;
}
