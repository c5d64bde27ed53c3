/* Between the sources of records. */
#ifndef IMG_TRACE_TRACER_INTERNAL_H
#define IMG_TRACE_TRACER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "tracer.h"

/* The arguments of a process, quoted for a shell; the caller's, "" when it is gone, NULL: out of memory. */
char *img_trace_read_cmdline(pid_t pid);

/* img_trace_run() by each method. must_stop: no notifications. */
int img_trace_ptrace(const struct img_run *run, bool must_stop, struct img_trace **ret_trace,
                     struct img_run_result *ret_result, struct err *err);
int img_trace_fanotify(const struct img_run *run, struct img_trace **ret_trace, struct img_run_result *ret_result,
                       struct err *err);

#endif
