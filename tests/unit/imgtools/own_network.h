/* A network of the test's own, so that no port that it chooses is anybody else's before it listens there. Where that
 * may not be had (it takes root), ports are those that nobody uses at the moment. */
#ifndef OWN_NETWORK_H
#define OWN_NETWORK_H

#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test.h"

static bool network_is_own;

/* First thing in main(). */
static inline void own_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		return;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	network_is_own = fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0;
	if (!network_is_own)
		print_message("no network of its own: there is no loopback in it\n");
	if (fd >= 0)
		(void)close(fd);
}

/* Of 127.0.0.1, another one each time; below those that the kernel gives to whoever connects. */
static inline unsigned own_port(void)
{
	static unsigned last = 20000;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);
	int fd;

	if (network_is_own)
		return ++last;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	(void)close(fd);
	return ntohs(a.sin_port);
}

/* "127.0.0.1:PORT" */
static inline void own_address(char *ret, size_t size)
{
	(void)snprintf(ret, size, "127.0.0.1:%u", own_port());
}

#endif
