#include "datagram_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

int base_datagram_send(const char *name, const void *data, size_t len)
{
	CLEANUP(close_fdp) int fd = -1;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	size_t n = strlen(name);

	if (name[0] != '/' && name[0] != '@')
		return -EINVAL;
	if (n >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, name, n);
	if (name[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || sendto(fd, data, len, MSG_NOSIGNAL, (struct sockaddr *)&sun,
	                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		return -errno;
	return 0;
}
