/* Being told of calls by seccomp notifications (seccomp_unotify(2)): a thread of its own waits for them, has each
 * looked at while the process waits right before the call, and lets the call go on. As complete as stops by ptrace and
 * several times cheaper: from 6.6 on the kernel hands the processor directly from the process to the listener and back,
 * where a stop leaves the choice of processors to the scheduler, which spreads the two and wakes a sleeping one each
 * time.
 *
 * What ptrace does is still needed: births, execs, ends, signals. A process is told of here only after ptrace has told
 * of its birth, and waits there while ptrace tells of its exec. */
#ifndef IMG_TRACE_LISTENER_H
#define IMG_TRACE_LISTENER_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct img_listener;

/* In the listener's thread. */
typedef void (*img_listener_fn)(void *arg, pid_t tid, const struct seccomp_data *call);

/* With a copy of the filter. 0 and *ret_listener NULL: not on this kind of machine. */
int img_listener_new(const struct sock_fprog *filter, img_listener_fn fn, void *arg, struct img_listener **ret_listener,
                     struct err *err);
/* Starts the thread; before the filter is installed, or the calls would wait for ever. */
int img_listener_start(struct img_listener *l, struct err *err);
/* In the process to be traced, as img_call_install(): -EINVAL where the kernel is too old, -EBUSY where the process is
 * listened to already. */
int img_listener_install(struct img_listener *l);
/* Ends the thread. Processes that still have the filter would get ENOSYS for their calls. */
void img_listener_free(struct img_listener *l);

/* A signal interrupts a call that waits to be told of, which would then fail with EINTR although no such call ever
 * does. In a signal stop: was it in a call that may be such a one? Which? */
bool img_listener_was_interrupted(pid_t tid, struct seccomp_data *ret_call);
/* Then lets that call begin again after the signal's handler, as if the signal had come just before it. */
void img_listener_restart(pid_t tid);

#endif
