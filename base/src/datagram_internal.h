/* Messages to a daemon's socket on this machine. */
#ifndef BASE_DATAGRAM_INTERNAL_H
#define BASE_DATAGRAM_INTERNAL_H

#include <stddef.h>

/* One datagram to a unix socket: a path, or an abstract name with '@' for its zero byte. A socket of its own each time:
 * messages are few, and the other side may be another one after its restart. -EINVAL: neither; -ENAMETOOLONG. */
int base_datagram_send(const char *name, const void *data, size_t len);

#endif
