/* Arrays that double. */
#ifndef ENG_GRAMMAR_GROW_H
#define ENG_GRAMMAR_GROW_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Room for one more element than the n that *array (a pointer to elements of this size) has. 0 or -ENOMEM. */
static inline int gr_grow(void *array, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t want = *cap ? *cap * 2 : 16;
	void *p;

	if (n < *cap)
		return 0;
	p = realloc(*(void **)array, want * size);
	if (!p)
		return -ENOMEM;
	*(void **)array = p;
	*cap = want;
	return 0;
}

#endif
