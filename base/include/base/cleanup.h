/* Scope-bound cleanup for locals (gcc and clang): CLEANUP(fn) runs fn(&variable) when it leaves scope.
 * To hand a pointer over, copy it out and set the local to NULL in a visible line. */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* For any malloc'd local: CLEANUP(freep) char *s = NULL; */
static inline void freep(void *p)
{
	free(*(void **)p);
}

/* For descriptors; -1 means none. */
static inline void close_fdp(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

#endif
