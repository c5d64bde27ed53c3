/* The library that computes in plain loops (hipblaslt_plain.c), for programs that lie where it is looked for. */
#ifndef HIPBLASLT_PLAIN_H
#define HIPBLASLT_PLAIN_H

#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Opens it, and has the backend find it: in its folder, which is beside this program's own, behind those in `before`
 * ("" or "FOLDER:"). For dlsym(); NULL: there is none. It stays open. */
static inline void *open_plain_library(const char *before)
{
	char exe[4096], folder[4200], libs[4300];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (n <= 0)
		return NULL;
	exe[n] = '\0';
	(void)snprintf(folder, sizeof(folder), "%s/../../hipblaslt-plain", dirname(exe));
	(void)snprintf(libs, sizeof(libs), "%s%s", before, folder);
	if (setenv("OCAI_GPU_LIBS", libs, 1) < 0)
		return NULL;
	(void)snprintf(exe, sizeof(exe), "%.4000s/libhipblaslt.so.1", folder);
	return dlopen(exe, RTLD_NOW | RTLD_LOCAL);
}

#endif
