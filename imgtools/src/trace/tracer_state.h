/* What the tracer knows of the processes it follows: shared by the part that follows them (tracer.c) and the part that
 * looks at what they touch (touch.c). Two threads at most, the one that waits for processes and the listener's: both
 * take the lock for whatever they do here. */
#ifndef IMG_TRACE_TRACER_STATE_H
#define IMG_TRACE_TRACER_STATE_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "calls.h"
#include "listener.h"
#include "names.h"
#include "trace.h"
#include "views.h"

enum { IMG_TRACER_BUCKETS = 4096 };

/* One process: what its threads share. */
struct img_tracee {
	uint32_t number; /* in the trace; 0: the runtime's own, not recorded */
	uint32_t parent;
	pid_t tgid;
	unsigned n_threads;
	bool is_recorded;
	struct img_view *view; /* NULL: to be found out before the next look-up */
	unsigned generation;   /* of the views, when it was */
	struct img_name *root;
	struct img_name *cwd; /* of cwd_path */
	char *cwd_path;
	char *program, *cmdline;
	int32_t exit_code;
};

struct img_tracee_thread {
	struct img_tracee_thread *next; /* in its bucket */
	pid_t tid;
	struct img_tracee *process;
	bool is_adopted;       /* its birth has not been told yet */
	struct img_name *exec; /* what its exec names, until that succeeds */
	struct img_view *exec_view;
	uint64_t exec_size;
	bool may_block; /* the last call may wait for others: it was `blocking` */
	struct seccomp_data blocking;
};

struct img_tracer {
	pthread_mutex_t lock; /* all below it */
	struct img_trace *trace;
	struct img_call_map calls;
	struct sock_fprog filter;
	struct img_listener *listener; /* NULL: calls are told of by stops */
	struct img_tracee_thread *buckets[IMG_TRACER_BUCKETS];
	size_t n_threads;
	struct img_views *views;
	uint32_t n_numbers;
	pid_t unborn[256]; /* adopted and ended before their birth was told; 0: free */
	uint64_t start_ns; /* of the first exec; 0: not yet */
	pid_t child;       /* the runtime's */
	bool has_root;     /* the child is an init that starts the command */
	bool is_killed;
	int error;                 /* -ENOMEM, -E2BIG: recording has stopped, the command goes on */
	char tracers[128];         /* programs that would have liked to be tracers */
	char listeners[128];       /* or to listen to others' calls */
	struct img_found found;    /* large; one look-up at a time */
	char first_exec[PATH_MAX]; /* what the command was called as */
};

/* One stop: who, what, and the arguments. */
struct img_stop {
	struct img_tracer *t;
	struct img_tracee_thread *th;
	struct img_tracee *p;
	const struct img_call *call;
	uint64_t args[6];
};

/* A call is about to happen: looks at what it names and records it. Can the call wait for another process? */
bool img_touch_call(struct img_stop *s);
/* An exec of `name` has happened; records it with what the kernel opened for it, and sets the process's program. */
void img_touch_exec(struct img_stop *s, struct img_name *name, uint64_t size);
/* The links that led to the command. */
void img_touch_first_exec(struct img_stop *s);
/* An exec did not succeed: its file was at least looked at. */
void img_touch_failed_exec(struct img_stop *s);
/* Bytes of the process; false when they cannot be read. */
bool img_touch_read(const struct img_stop *s, uint64_t address, void *data, size_t size);

#endif
