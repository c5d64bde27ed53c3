/* ocai-engine health: asks a running server whether it is well. For health checks of images, units and scripts, where
 * no other HTTP client is at hand: one request over a plain socket, answered by the exit code. */
#include "common.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/config.h"

struct health {
	const char *host, *socket;
	uint32_t port, timeout_s;
};

const struct opt cmd_health_opts[] = {
	{ "host", 'H', OPT_STR, offsetof(struct health, host), "ADDRESS",
	  "where it listens [as serve is configured, this machine]", NULL },
	{ "port", 'p', OPT_UINT, offsetof(struct health, port), "PORT", "TCP port [as serve is configured, 8080]",
	  NULL },
	{ "socket", 0, OPT_STR, offsetof(struct health, socket), "PATH", "ask over a unix socket instead", NULL },
	{ "timeout", 0, OPT_UINT, offsetof(struct health, timeout_s), "SECONDS", "how long to wait [5]", NULL },
	{ 0 }
};

/* Of each step; a server that accepts and says nothing is not well. */
static int set_timeout(int fd, uint32_t seconds)
{
	const struct timeval tv = { .tv_sec = (time_t)seconds };

	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) < 0 ||
	                       setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) < 0
	               ? -errno
	               : 0;
}

static int connect_unix(const struct health *o, int *ret_fd, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	CLEANUP(close_fdp) int fd = -1;

	if (strlen(o->socket) >= sizeof(addr.sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: longer than the path of a socket may be", o->socket);
	memcpy(addr.sun_path, o->socket, strlen(o->socket));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || set_timeout(fd, o->timeout_s) < 0 ||
	    connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return err_set(err, -errno, "%s: %s", o->socket, strerror(errno));
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* An address that stands for all of the machine's own is asked on the loopback. */
static const char *own_address(const char *host)
{
	if (!host || !host[0] || strcmp(host, "0.0.0.0") == 0)
		return "127.0.0.1";
	return strcmp(host, "::") == 0 ? "::1" : host;
}

static int connect_tcp(const struct health *o, int *ret_fd, struct err *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	const char *host = own_address(o->host);
	struct addrinfo *list = NULL;
	char port[16];
	int r, reason = EHOSTUNREACH;

	(void)snprintf(port, sizeof(port), "%u", o->port);
	r = getaddrinfo(host, port, &hints, &list);
	if (r != 0)
		return err_set(err, -EHOSTUNREACH, "%s: %s", host, gai_strerror(r));
	for (struct addrinfo *a = list; a; a = a->ai_next) {
		int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);

		if (fd >= 0 && set_timeout(fd, o->timeout_s) == 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
			freeaddrinfo(list);
			*ret_fd = fd;
			return 0;
		}
		reason = errno;
		if (fd >= 0)
			(void)close(fd);
	}
	freeaddrinfo(list);
	return err_set(err, -reason, "%s port %s: %s", host, port,
	               reason == EINPROGRESS ? "no answer in time" : strerror(reason));
}

/* The status line is all that counts. */
static int ask(int fd, struct err *err)
{
	static const char request[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	char answer[64];
	size_t len = 0;
	ssize_t n;

	if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(request) - 1)
		return err_set(err, -EIO, "the request could not be sent: %s", strerror(errno));
	while (len < sizeof(answer) - 1 && (n = recv(fd, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
		len += (size_t)n;
	answer[len] = 0;
	if (strncmp(answer, "HTTP/1.", 7) != 0 || len < 12)
		return err_set(err, -EIO, "%s", len ? "the answer is not HTTP" : "no answer in time");
	if (strncmp(answer + 9, "200", 3) != 0)
		return err_set(err, -EIO, "the server answers %.3s", answer + 9);
	return 0;
}

int cmd_health(int argc, char **argv)
{
	struct health o = { .timeout_s = 5 };
	CLEANUP(close_fdp) int fd = -1;
	struct base_config *config = NULL;
	struct err err = { 0 };
	int r, n_args = 0, exit_code = 0;

	r = serve_address(&o.host, &o.port, &o.socket, &config, &err);
	if (r < 0)
		return command_failed(&err);
	if (o.host && o.host[0])
		o.socket = NULL; /* it listens on both; TCP is what others use */
	if (command_parse(argc, argv, &o, &n_args, &exit_code) != OPT_RUN)
		goto out;
	if (n_args > 0 || o.port == 0 || o.port > UINT16_MAX || o.timeout_s == 0 || o.timeout_s > 3600) {
		if (n_args > 0)
			(void)err_set(&err, -EINVAL, "unexpected argument '%s'", argv[0]);
		else
			(void)err_set(&err, -EINVAL, "--port takes 1 to 65535, --timeout 1 to 3600");
		exit_code = command_usage("health", &err);
		goto out;
	}
	r = o.socket && o.socket[0] ? connect_unix(&o, &fd, &err) : connect_tcp(&o, &fd, &err);
	if (r == 0)
		r = ask(fd, &err);
	if (r < 0)
		exit_code = command_failed(&err);
	else
		(void)puts("ok");
out:
	base_config_free(config);
	return exit_code;
}
