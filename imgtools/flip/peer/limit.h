/* How much: token buckets, and what the machine says of its own pressure (PSI). */
#ifndef FLIP_PEER_LIMIT_H
#define FLIP_PEER_LIMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/fetch.h"

int64_t peer_now_us(void); /* monotonic */

/* A bucket fills at `rate` and holds a fifth of a second of it. Somebody's read may drive it below zero: the others pay
 * that back. What is fetched ahead may empty it, the rest leaves a quarter of it, what is preheated half. Thread-safe.
 */
struct peer_bucket {
	pthread_mutex_t lock;
	uint64_t rate; /* bytes a second; 0: no limit; protected by lock, as the rest */
	double factor; /* of the rate, 0..1: the throttle */
	double level;
	int64_t at_us;
};
void peer_bucket_init(struct peer_bucket *b, uint64_t rate);
void peer_bucket_done(struct peer_bucket *b);
void peer_bucket_throttle(struct peer_bucket *b, double factor);
/* Takes them; how long to wait before sending them, in microseconds (0: go). */
int64_t peer_bucket_take(struct peer_bucket *b, size_t n, enum flip_priority priority);
bool peer_bucket_is_empty(struct peer_bucket *b, enum flip_priority priority);

/* "some avg10=1.23 avg60=... avg300=... total=456" of a file of /proc/pressure: per cent, 0..100, and microseconds that
 * somebody has waited since the machine started; -EBADMSG. */
int peer_psi_parse(const char *text, size_t size, double *ret_avg10, uint64_t *ret_total_us);

/* What we may take from the machine while others wait for it. Disk and memory: beyond `max_percent` of pressure less by
 * as much as that is exceeded. The processor: while somebody waits for it at all, no more than one or two per cent of
 * it, since what a workload loses is what we take; how long it waits says little of that. Comes back slowly. */
struct peer_pressure {
	double factor; /* 0.02..1 */
	double cpu, io, memory;
	double share;         /* per cent of the processors that we took */
	uint64_t total_us[3]; /* of those, at the last look */
	uint64_t own_us;
	int64_t at_us;
};
void peer_pressure_init(struct peer_pressure *p);
#define PEER_PRESSURE_DIR "/proc/pressure"
/* Looks at dir when half a second has passed; true when it did. There are cpu, io and memory, or, in the folder of a
 * control group, cpu.pressure and so on. What counts is how long somebody has waited since the last look: the kernel's
 * averages are of ten seconds, which is late. own_us: processor time that what is slowed down has taken so far.
 * `max_percent` 100 or more: nothing is slowed down. */
bool peer_pressure_look(struct peer_pressure *p, const char *dir, double max_percent, int64_t now_us, uint64_t own_us);
/* Processor time of this thread, and of all of this process, in microseconds. */
uint64_t peer_thread_cpu_us(void);
uint64_t peer_process_cpu_us(void);

#endif
