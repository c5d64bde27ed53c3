/* base_numa_nodes() over a table of nodes of one's own, for tests. */
#ifndef BASE_NUMA_INTERNAL_H
#define BASE_NUMA_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

enum { BASE_NUMA_CPUS = 4096 };

/* `dir` stands for /sys/devices/system/node; allowed [BASE_NUMA_CPUS]. */
uint64_t base_numa_nodes_at(const char *dir, const bool *allowed);

#endif
