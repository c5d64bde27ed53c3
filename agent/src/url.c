/* Whether an address is this machine. */
#include "agent.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

int ag_url_remote_host(const char *url, char *host, size_t size)
{
	const char *p = strstr(url, "://"), *end, *at;
	struct in_addr v4;
	size_t n;

	host[0] = '\0';
	if (strncmp(url, "unix:", 5) == 0 || !p)
		return 0;
	p += 3;
	n = strcspn(p, "/?#\\");
	at = memrchr(p, '@', n); /* what stands before it is a name and a password */
	if (at) {
		n -= (size_t)(at + 1 - p);
		p = at + 1;
	}
	end = *p == '[' ? memchr(p, ']', n) : memchr(p, ':', n);
	if (end)
		n = (size_t)(end - p) + (*p == '[');
	(void)snprintf(host, size, "%.*s", (int)(n < size ? n : size - 1), p);
	if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
	    (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127)) {
		host[0] = '\0';
		return 0;
	}
	return 1;
}
