/* Debian's docker-registry, run for a test: HTTP or TLS, a store in the test's own folder. */
#ifndef REAL_REGISTRY_H
#define REAL_REGISTRY_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "own_network.h"
#include "tree_test.h"

/* `http` goes behind the address in its section, `rest` is sections of its own. */
static inline pid_t start_registry(const char *dir, unsigned port, const char *http, const char *rest)
{
	char text[20000], config[4200];
	pid_t pid;

	(void)snprintf(config, sizeof(config), "%s/config.yml", dir);
	(void)snprintf(text, sizeof(text),
	               "version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %s/data}\n"
	               "http: {addr: 127.0.0.1:%u%s}\n%s",
	               dir, port, http, rest);
	write_text(config, text);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int null = open("/dev/null", O_WRONLY);

		(void)dup2(null, 1);
		(void)dup2(null, 2);
		(void)execlp("docker-registry", "docker-registry", "serve", config, (char *)NULL);
		_exit(127);
	}
	return pid;
}

/* A cold start may take a while. */
static inline void wait_for_port(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		                 .sin_port = htons((uint16_t)port),
		                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	for (int i = 0; i < 2400; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0), r = connect(fd, (struct sockaddr *)&a, sizeof(a));

		(void)close(fd);
		if (r == 0)
			return;
		(void)usleep(50000);
	}
	fail_msg("docker-registry does not listen");
}

static inline void stop_registry(pid_t pid)
{
	int status = 0;

	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

#endif
