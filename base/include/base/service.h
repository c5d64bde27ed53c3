/* What a service manager hands to a daemon and wants to hear from it: listening sockets and notifications, by the
 * protocols of sd_listen_fds(3) and sd_notify(3), which are a few environment variables. */
#ifndef BASE_SERVICE_H
#define BASE_SERVICE_H

#include <stddef.h>

#include "base/err.h"

/* The listening stream sockets that came with the process (LISTEN_PID, LISTEN_FDS), close-on-exec from now on; the
 * caller's. The count, 0 when there are none, or a negative errno: more than max, or a descriptor that is no
 * listening stream socket. The variables are removed, so that children do not take them for theirs: only the first
 * call finds something. Before other threads start. */
int base_service_sockets(int *ret_fds, size_t max, struct err *err);

/* Tells the service manager ("READY=1", "STOPPING=1"), if it asked to be told (NOTIFY_SOCKET). */
void base_service_notify(const char *text);

#endif
