/* Recording what a command touches. Two sources of the same records:
 *
 * img_trace_run() follows the command and all it starts with ptrace, stopped by a seccomp filter only at the calls that
 * name files: complete, in order, with failed look-ups; a program that is a tracer itself cannot be traced, one that
 * listens to seccomp notifications itself only by IMG_TRACE_STOPS.
 * img_trace_watch_*() listens with fanotify to everything that opens files of one file system: for long runs and for
 * containers that others started; sees no stat, no failed look-up and no symbolic link. */
#ifndef IMG_TRACE_TRACER_H
#define IMG_TRACE_TRACER_H

#include <signal.h>

#include "runtime/runtime.h"
#include "trace/trace.h"

enum img_trace_method {
	IMG_TRACE_PTRACE, /* with seccomp notifications, where the kernel has them */
	IMG_TRACE_FANOTIFY,
	IMG_TRACE_STOPS, /* by ptrace alone: slower, the same records */
};

/* Runs the command (run->watch is taken) and records it. No other child of the calling thread may end meanwhile: the
 * thread waits for all of its own. run->roots empty: the host's own root; then it ends when the last process has, and
 * fanotify is not possible. ret_result as img_run(); its notes say what could not be seen. */
int img_trace_run(const struct img_run *run, enum img_trace_method method, struct img_trace **ret_trace,
                  struct img_run_result *ret_result, struct err *err);

/* Listens to the file system that is mounted on `root` (a container's merged root) until *stop is not 0 (set by a
 * signal handler, say). Needs root. */
int img_trace_watch(const char *root, const volatile sig_atomic_t *stop, struct img_trace **ret_trace, struct err *err);

/* The merged root of a container of containerd; waits until it is mounted, *stop is not 0 (-EINTR), or, when timeout_ms
 * is not 0, so long (-ETIMEDOUT). *ret_root is the caller's, free(). */
int img_trace_find_container(const char *id, const volatile sig_atomic_t *stop, unsigned timeout_ms, char **ret_root,
                             struct err *err);

#endif
