/* Which allocation an address belongs to. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"

/* The number of allocations that begin at or below p. */
static uint32_t upper(const struct gpu_heap *heap, const char *p)
{
	uint32_t lo = 0, hi = heap->n;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (heap->allocs[mid].base <= p)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

uint32_t gpu_heap_find(const struct gpu_heap *heap, const void *p)
{
	uint32_t i = upper(heap, p);

	if (i == 0 || (size_t)((const char *)p - heap->allocs[i - 1].base) >= heap->allocs[i - 1].bytes)
		return UINT32_MAX;
	return i - 1;
}

int gpu_heap_add(struct gpu_heap *heap, void *base, size_t bytes)
{
	uint32_t i = upper(heap, base);

	if (heap->n == heap->cap) {
		uint32_t cap = heap->cap ? 2 * heap->cap : 64;
		struct gpu_alloc *grown = realloc(heap->allocs, cap * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		heap->allocs = grown;
		heap->cap = cap;
	}
	memmove(&heap->allocs[i + 1], &heap->allocs[i], (heap->n - i) * sizeof(*heap->allocs));
	heap->allocs[i] = (struct gpu_alloc){ .base = base, .bytes = bytes };
	heap->n++;
	for (uint32_t k = 0; k < heap->n; k++)
		heap->allocs[k].home += k != i && heap->allocs[k].home_ld && heap->allocs[k].home >= i;
	return 0;
}

void gpu_heap_remove(struct gpu_heap *heap, uint32_t i)
{
	heap->n--;
	memmove(&heap->allocs[i], &heap->allocs[i + 1], (heap->n - i) * sizeof(*heap->allocs));
	for (uint32_t k = 0; k < heap->n; k++)
		heap->allocs[k].home -= heap->allocs[k].home_ld && heap->allocs[k].home > i;
}
