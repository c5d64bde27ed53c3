/* Libraries that are opened when their functions are first needed, not when the program starts. With all that they need
 * themselves (TLS, Kerberos, XML, ...) some cost the dynamic linker more than the rest of a short command.
 *
 * Such a library does not stand among those that a program names as needed, so generators of package dependencies do
 * not see it: a package must require it in so many words, as `Requires: libcurl.so.4()(64bit)`. */
#ifndef BASE_LIBRARY_H
#define BASE_LIBRARY_H

#include <stddef.h>

#include "base/err.h"

struct base_symbol {
	const char *name;
	void *slot; /* address of a function pointer of the right type */
};

/* Opens the library, which stays open for good, and fills all slots. -ELIBACC when it is not here or lacks one of them;
 * then no slot may be used. Callers keep threads apart (pthread_once). */
int base_library_load(const char *file, const struct base_symbol *symbols, size_t n, struct err *err);

#endif
