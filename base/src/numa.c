/* Nodes from sysfs (node<N>/cpulist: "0-3,8-11"; Documentation/ABI/stable/sysfs-devices-node), placement by mbind(2) as
 * it is: this is all that would be wanted of libnuma.
 *
 * Weights are read whole by all threads together, in chunks that nobody owns, so no thread has a part that should lie
 * near it; what counts is that every node's bus carries its share. First touch alone may put all of them where the
 * loading thread ran. */
#include "base/numa.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numa_internal.h"

enum { MAX_NODES = 64 };

/* Is one of the processors in the list allowed? What is no list has none. */
static bool has_allowed(FILE *f, const bool *allowed)
{
	unsigned first, last;
	bool found = false;
	int c = ',';

	while (c == ',' && fscanf(f, "%u", &first) == 1) {
		last = first;
		c = fgetc(f);
		if (c == '-') {
			if (fscanf(f, "%u", &last) != 1)
				return found;
			c = fgetc(f);
		}
		for (unsigned i = first; i <= last && i < BASE_NUMA_CPUS; i++)
			found = found || allowed[i];
	}
	return found;
}

uint64_t base_numa_nodes_at(const char *dir, const bool *allowed)
{
	uint64_t nodes = 0;

	for (unsigned i = 0; i < MAX_NODES; i++) {
		char path[4096];
		FILE *f;

		if (snprintf(path, sizeof(path), "%s/node%u/cpulist", dir, i) >= (int)sizeof(path))
			return 0;
		f = fopen(path, "re");
		if (!f)
			continue; /* numbers may have gaps */
		if (has_allowed(f, allowed))
			nodes |= 1ull << i;
		(void)fclose(f);
	}
	return nodes;
}

uint64_t base_numa_nodes(void)
{
	bool allowed[BASE_NUMA_CPUS] = { false };
	cpu_set_t *set = CPU_ALLOC(BASE_NUMA_CPUS);
	size_t size = CPU_ALLOC_SIZE(BASE_NUMA_CPUS);

	if (!set)
		return 0;
	CPU_ZERO_S(size, set);
	if (sched_getaffinity(0, size, set) == 0) {
		for (size_t i = 0; i < BASE_NUMA_CPUS; i++)
			allowed[i] = CPU_ISSET_S(i, size, set);
	}
	CPU_FREE(set);
	return base_numa_nodes_at("/sys/devices/system/node", allowed);
}

static uint64_t nodes_at_first_use;

static void look(void)
{
	nodes_at_first_use = base_numa_nodes();
}

void base_numa_spread(void *p, size_t size)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned long mask[MAX_NODES / (8 * sizeof(unsigned long))] = { 0 };

	(void)pthread_once(&once, look);
	if ((nodes_at_first_use & (nodes_at_first_use - 1)) == 0) /* none or one */
		return;
	for (unsigned i = 0; i < MAX_NODES; i++) {
		if (nodes_at_first_use & 1ull << i)
			mask[i / (8 * sizeof(*mask))] |= 1ul << i % (8 * sizeof(*mask));
	}
	/* The kernel takes one bit less than it is told. A refusal leaves things as they are. */
	(void)syscall(SYS_mbind, p, size, MPOL_INTERLEAVE, mask, (unsigned long)MAX_NODES + 1, 0);
}
