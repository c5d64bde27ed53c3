/* Choosing the source of a trace. */
#include <errno.h>
#include <time.h>

#include "tracer_internal.h"

uint64_t img_trace_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int img_trace_run(const struct img_run *run, enum img_trace_method method, struct img_trace **ret_trace,
                  struct img_run_result *ret_result, struct err *err)
{
	if (method == IMG_TRACE_PTRACE)
		return img_trace_ptrace(run, ret_trace, ret_result, err);
	return img_trace_fanotify(run, ret_trace, ret_result, err);
}
