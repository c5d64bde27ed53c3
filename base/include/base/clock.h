/* Time as numbers: the monotonic clock, for what is measured and waited for, and the wall clock, for what is written
 * down. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t base_clock_ns(clockid_t clock)
{
	struct timespec ts;

	(void)clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static inline int64_t base_now_ns(void)
{
	return base_clock_ns(CLOCK_MONOTONIC);
}

static inline int64_t base_now_us(void)
{
	return base_now_ns() / 1000;
}

static inline int64_t base_now_ms(void)
{
	return base_now_ns() / 1000000;
}

static inline double base_now_s(void)
{
	return (double)base_now_ns() * 1e-9;
}

/* Since 1970. */
static inline int64_t base_wall_ns(void)
{
	return base_clock_ns(CLOCK_REALTIME);
}

#endif
