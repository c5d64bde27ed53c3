/* Memory nodes: parts of memory, each near to some of the processors. */
#ifndef BASE_NUMA_H
#define BASE_NUMA_H

#include <stddef.h>
#include <stdint.h>

/* The nodes, as bits, whose processors this process may use; nodes from 64 on are not seen. 0 where the system does not
 * tell. */
uint64_t base_numa_nodes(void);

/* Spreads memory that was mapped and not yet written over those nodes, so that all of their buses are read when all
 * threads read all of it. Nothing happens with one node, or where it is not permitted: then the system's own policy
 * stands. */
void base_numa_spread(void *p, size_t size);

#endif
