/* A pool that runs one parallel loop at a time, made for loops of some tens of microseconds.
 *
 * The caller takes part. Chunks are handed out dynamically, and the caller waits until all chunks are
 * done, not until all threads have arrived: a worker whose core was taken away delays nothing but the
 * chunk it holds. Workers spin briefly after a loop and then sleep: an idle pool uses no CPU. */
#ifndef BASE_THREADPOOL_H
#define BASE_THREADPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct base_threadpool;

/* Runs items [begin, end); `worker` is 0..n_threads-1 and unique among those running now, so it may
 * index per-thread scratch. */
typedef void (*base_threadpool_fn)(void *arg, size_t begin, size_t end, unsigned worker);

/* n_threads counts the caller; 0 means one per core this process may use. */
int base_threadpool_new(unsigned n_threads, struct base_threadpool **ret_pool, struct err *err);
void base_threadpool_free(struct base_threadpool *pool);
unsigned base_threadpool_size(const struct base_threadpool *pool);

/* Calls fn over [0, n_items) in chunks of at most `grain` items (>= 1). Returns when all are done.
 * One caller at a time; not reentrant. */
void base_threadpool_for(struct base_threadpool *pool, size_t n_items, size_t grain, base_threadpool_fn fn, void *arg);

/* For loops of many short and equal chunks, one after the other: threads whose core another process uses stay away,
 * when waiting for them costs more than they are worth; they are tried again now and then. Call before the first loop.
 */
void base_threadpool_yield(struct base_threadpool *pool);
/* How many of the pool's threads take part at present. */
unsigned base_threadpool_active(const struct base_threadpool *pool);

/* Cores this process may use (affinity and cgroup quota), at least 1. */
unsigned base_cpu_count(void);

#endif
