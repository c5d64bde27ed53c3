/* Memory of packed weights: many matrices share a mapping, for one of a megabyte has no large page of its own, and
 * large pages are what they are read from fastest: the page of 4 KiB is where prefetching by the processor ends, and on
 * a virtual machine each costs two walks.
 *
 * A mapping is filled from its beginning and goes back when the last matrix in it is gone, so a model that takes
 * another's place leaves nothing behind but, for its own time, the mapping that both have a part in. The first ones are
 * small, as models may be. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/numa.h"
#include "cpu/cpu.h"

enum {
	LEAST_BYTES = 256 << 10,
	MOST_BYTES = 32 << 20, /* but for a matrix that is larger */
	GROWTH = 4,
	HUGE_BYTES = 2 << 20,
	ALIGN = 64,
};

struct arena {
	struct arena *next;
	char *p;
	size_t bytes, used;
	size_t n_parts;
};

static struct {
	pthread_mutex_t lock;
	struct arena *first; /* the newest; only that one has room */
} arenas = { .lock = PTHREAD_MUTEX_INITIALIZER };

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

/* Of whole large pages where they fit, and at the beginning of one. */
static char *map(size_t bytes)
{
	size_t more = bytes >= HUGE_BYTES ? HUGE_BYTES : 0, before, after;
	char *p = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (more) {
		before = (HUGE_BYTES - (uintptr_t)p % HUGE_BYTES) % HUGE_BYTES;
		after = more - before;
		if (before)
			(void)munmap(p, before);
		p += before;
		if (after)
			(void)munmap(p + bytes, after);
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	}
	base_numa_spread(p, bytes);
	return p;
}

static struct arena *arena_new(size_t least)
{
	size_t bytes = arenas.first ? arenas.first->bytes * GROWTH : LEAST_BYTES;
	struct arena *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	bytes = bytes < MOST_BYTES ? bytes : MOST_BYTES;
	bytes = bytes > least ? bytes : least;
	a->bytes = round_up(bytes, bytes >= HUGE_BYTES ? HUGE_BYTES : 4096);
	a->p = map(a->bytes);
	if (!a->p) {
		free(a);
		return NULL;
	}
	a->next = arenas.first;
	arenas.first = a;
	return a;
}

void *cpu_arena_take(size_t bytes)
{
	struct arena *a;
	void *p = NULL;

	if (bytes == 0 || bytes > SIZE_MAX / 4)
		return NULL;
	bytes = round_up(bytes, ALIGN);
	(void)pthread_mutex_lock(&arenas.lock);
	a = arenas.first;
	if (!a || a->bytes - a->used < bytes)
		a = arena_new(bytes);
	if (a) {
		p = a->p + a->used;
		a->used += bytes;
		a->n_parts++;
	}
	(void)pthread_mutex_unlock(&arenas.lock);
	return p;
}

void cpu_arena_give(void *p)
{
	struct arena **at;

	if (!p)
		return;
	(void)pthread_mutex_lock(&arenas.lock);
	for (at = &arenas.first; *at; at = &(*at)->next) {
		struct arena *a = *at;

		if ((uintptr_t)p - (uintptr_t)a->p >= a->bytes)
			continue;
		if (--a->n_parts == 0) {
			*at = a->next;
			(void)munmap(a->p, a->bytes);
			free(a);
		}
		break;
	}
	(void)pthread_mutex_unlock(&arenas.lock);
}
