/* Network: interfaces with addresses and counters, routes, who listens where, DNS. Addresses of a running machine
 * come from getifaddrs(); of a copied tree only those that its files hold. A socket's owner is found by looking for
 * its inode among the descriptors of all processes, once for all sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>

#include "sys/sys_internal.h"

enum { MAX_ROUTES = 500, MAX_LISTENERS = 5000 };

static json_t *interface_named(json_t *interfaces, const char *name)
{
	size_t i;
	json_t *v;

	json_array_foreach(interfaces, i, v)
	{
		const char *n = json_string_value(json_object_get(v, "name"));

		if (n && strcmp(n, name) == 0)
			return v;
	}
	return NULL;
}

static void put_counters(const struct sys_netdev *d, json_t *interface)
{
	ag_sys_set_u64(interface, "rx_bytes", d->rx_bytes);
	ag_sys_set_u64(interface, "tx_bytes", d->tx_bytes);
	ag_sys_set_u64(interface, "rx_packets", d->rx_packets);
	ag_sys_set_u64(interface, "rx_errors", d->rx_errors);
	ag_sys_set_u64(interface, "rx_drops", d->rx_drops);
	ag_sys_set_u64(interface, "tx_errors", d->tx_errors);
	ag_sys_set_u64(interface, "tx_drops", d->tx_drops);
	ag_sys_set_real(interface, "rx_drop_percent",
	                d->rx_packets ? 100.0 * (double)d->rx_drops / (double)d->rx_packets : 0);
}

static void put_interfaces(const struct sys_ctx *ctx, json_t *interfaces)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(4 << 20);
	static const char *const files[][2] = { { "operstate", "state" }, { "address", "mac" } };
	struct sys_span text, line;
	struct sys_netdev d;
	uint64_t v;
	char word[128];

	if (ag_sys_read(ctx, &buf, "/proc/net/dev") < 0)
		return;
	text = ag_sys_buf_span(&buf);
	while (ag_sys_next_line(&text, &line)) {
		json_t *interface;

		if (!ag_sys_parse_netdev(line, &d))
			continue;
		interface = json_object();
		ag_sys_set_text(interface, "name", d.name);
		/* A name is a path's part here: the kernel allows no slash in it, a hostile tree might. */
		for (size_t i = 0; i < 2 && !strchr(d.name, '/'); i++) {
			if (ag_sys_read_line(ctx, word, sizeof(word), "/sys/class/net/%s/%s", d.name, files[i][0]) == 0)
				ag_sys_set_text(interface, files[i][1], word);
		}
		if (!strchr(d.name, '/')) {
			if (ag_sys_read_number(ctx, &v, "/sys/class/net/%s/mtu", d.name))
				ag_sys_set_u64(interface, "mtu", v);
			if (ag_sys_read_number(ctx, &v, "/sys/class/net/%s/speed", d.name))
				ag_sys_set_u64(interface, "speed_mbit_per_s", v);
		}
		(void)ag_sys_array(interface, "addresses"); /* before the counters */
		put_counters(&d, interface);
		ag_sys_append_take(interfaces, interface);
	}
}

static unsigned prefix_length(const struct sockaddr *mask)
{
	unsigned bits = 0;

	if (mask && mask->sa_family == AF_INET)
		return (unsigned)__builtin_popcount(((const struct sockaddr_in *)(const void *)mask)->sin_addr.s_addr);
	if (mask && mask->sa_family == AF_INET6) {
		const struct sockaddr_in6 *m = (const void *)mask;

		for (int i = 0; i < 16; i++)
			bits += (unsigned)__builtin_popcount(m->sin6_addr.s6_addr[i]);
	}
	return bits;
}

static void put_addresses(json_t *interfaces)
{
	struct ifaddrs *list, *a;

	if (getifaddrs(&list) < 0)
		return;
	for (a = list; a; a = a->ifa_next) {
		char text[64], whole[80];
		const void *address;
		json_t *interface;

		if (!a->ifa_addr || (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
			continue;
		address = a->ifa_addr->sa_family == AF_INET
		                  ? (const void *)&((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr
		                  : (const void *)&((struct sockaddr_in6 *)(void *)a->ifa_addr)->sin6_addr;
		interface = interface_named(interfaces, a->ifa_name);
		if (!interface || !inet_ntop(a->ifa_addr->sa_family, address, text, sizeof(text)))
			continue;
		(void)snprintf(whole, sizeof(whole), "%s/%u", text, prefix_length(a->ifa_netmask));
		ag_sys_append_take(ag_sys_array(interface, "addresses"), ag_sys_string(whole, strlen(whole)));
	}
	freeifaddrs(list);
}

static void put_routes_of(const struct sys_ctx *ctx, const char *path,
                          bool (*parse)(struct sys_span, struct sys_route *), json_t *routes)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(16 << 20);
	struct sys_span text, line;
	struct sys_route r;
	char whole[96];

	if (ag_sys_read(ctx, &buf, "%s", path) < 0)
		return;
	text = ag_sys_buf_span(&buf);
	while (ag_sys_next_line(&text, &line) && json_array_size(routes) < MAX_ROUTES) {
		json_t *route;

		if (!parse(line, &r) || strcmp(r.device, "lo") == 0)
			continue;
		route = json_object();
		(void)snprintf(whole, sizeof(whole), "%s/%u", r.destination, (unsigned)r.prefix);
		ag_sys_set_text(route, "destination", r.prefix == 0 ? "default" : whole);
		if (strcmp(r.gateway, "0.0.0.0") != 0 && strcmp(r.gateway, "::") != 0)
			ag_sys_set_text(route, "gateway", r.gateway);
		ag_sys_set_text(route, "device", r.device);
		ag_sys_set_u64(route, "metric", r.metric);
		ag_sys_append_take(routes, route);
	}
}

/* ---- Listening sockets ---------------------------------------------------------------------------------- */

struct listener {
	uint64_t inode;
	json_t *object; /* borrowed from the section */
	bool owned;
};

struct listeners {
	struct listener *items;
	size_t n;
};

static void put_listeners_of(const struct sys_ctx *ctx, const char *protocol, json_t *out, struct listeners *l)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(64 << 20);
	struct sys_span text, line;
	struct sys_socket s;
	bool tcp = strncmp(protocol, "tcp", 3) == 0;

	if (ag_sys_read(ctx, &buf, "/proc/net/%s", protocol) < 0)
		return;
	text = ag_sys_buf_span(&buf);
	while (ag_sys_next_line(&text, &line) && l->n < MAX_LISTENERS) {
		json_t *socket;

		if (!ag_sys_parse_socket(line, &s) || s.state != (tcp ? 10 : 7) || s.has_peer)
			continue;
		socket = json_object();
		ag_sys_set_text(socket, "protocol", protocol);
		ag_sys_set_text(socket, "address", s.address);
		ag_sys_set_u64(socket, "port", s.port);
		ag_sys_set_u64(socket, "uid", s.uid);
		if (tcp)
			ag_sys_set_u64(socket, "waiting", s.rx_queue); /* connections not accepted yet */
		ag_sys_append_take(out, socket);
		l->items[l->n++] = (struct listener){ s.inode, socket, false };
	}
}

static int by_inode(const void *a, const void *b)
{
	const struct listener *x = a, *y = b;

	return x->inode < y->inode ? -1 : x->inode > y->inode;
}

static void own(const struct sys_ctx *ctx, const char *pid, struct listener *l)
{
	char comm[64];

	l->owned = true;
	ag_sys_set_u64(l->object, "pid", strtoull(pid, NULL, 10));
	if (ag_sys_read_line(ctx, comm, sizeof(comm), "/proc/%s/comm", pid) == 0)
		ag_sys_set_text(l->object, "process", comm);
}

/* False when the process may not be looked into. */
static bool look_for_sockets(const struct sys_ctx *ctx, const char *pid, struct listeners *l)
{
	char path[64], target[64];
	const char *name;
	CLEANUP(ag_sys_closedirp) DIR *dir = NULL;
	int fd;

	(void)snprintf(path, sizeof(path), "%.16s/fd", pid);
	fd = openat(ctx->proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno != EACCES;
	dir = fdopendir(fd);
	if (!dir) {
		(void)close(fd);
		return true;
	}
	while ((name = ag_sys_next_entry(dir))) {
		ssize_t n = readlinkat(fd, name, target, sizeof(target));
		struct listener key = { 0 }, *found;

		if (n < 10 || strncmp(target, "socket:[", 8) != 0 ||
		    !ag_sys_number(ag_sys_span(target + 8, (size_t)n - 9), 10, &key.inode))
			continue;
		found = bsearch(&key, l->items, l->n, sizeof(key), by_inode);
		if (found && !found->owned)
			own(ctx, pid, found);
	}
	return true;
}

static void find_owners(const struct sys_ctx *ctx, struct listeners *l, json_t *section)
{
	CLEANUP(ag_sys_closedirp) DIR *proc = ag_sys_opendir(ctx, "/proc");
	const char *name;
	size_t hidden = 0, unowned = 0;

	if (l->n)
		qsort(l->items, l->n, sizeof(*l->items), by_inode);
	while (proc && l->n && (name = ag_sys_next_entry(proc))) {
		if (ag_sys_is_pid(name))
			hidden += !look_for_sockets(ctx, name, l);
	}
	for (size_t i = 0; i < l->n; i++)
		unowned += !l->items[i].owned;
	if (hidden && unowned)
		ag_sys_note(section, "The owners of {n} listening sockets can only be seen by root.",
		            "有 {n} 个监听套接字的所属进程只有 root 能看到。",
		            json_pack("{s:I}", "n", (json_int_t)unowned));
}

static void put_listeners(const struct sys_ctx *ctx, json_t *section)
{
	static const char *const protocols[] = { "tcp", "tcp6", "udp", "udp6" };
	struct listeners l = { calloc(MAX_LISTENERS, sizeof(*l.items)), 0 };
	json_t *out = ag_sys_array(section, "listening");

	if (!l.items)
		return;
	for (size_t i = 0; i < 4; i++)
		put_listeners_of(ctx, protocols[i], out, &l);
	find_owners(ctx, &l, section);
	free(l.items);
}

/* ---- DNS, protocol counters ---------------------------------------------------------------------------------- */

static void put_dns(const struct sys_ctx *ctx, json_t *dns)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(64 << 10);
	struct sys_span text, line, word;

	if (ag_sys_read(ctx, &buf, "/etc/resolv.conf") < 0) {
		ag_sys_note(dns, "/etc/resolv.conf cannot be read.", "无法读取 /etc/resolv.conf。", NULL);
		return;
	}
	text = ag_sys_buf_span(&buf);
	while (ag_sys_next_line(&text, &line)) {
		const char *key;

		if (!ag_sys_next_word(&line, &word))
			continue;
		key = ag_sys_is(word, "nameserver")                            ? "servers"
		      : ag_sys_is(word, "search") || ag_sys_is(word, "domain") ? "search"
		      : ag_sys_is(word, "options")                             ? "options"
		                                                               : NULL;
		while (key && ag_sys_next_word(&line, &word))
			ag_sys_append_take(ag_sys_array(dns, key), ag_sys_string(word.p, word.n));
	}
}

static void put_protocols(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(1 << 20);
	uint64_t v;

	if (ag_sys_read(ctx, &buf, "/proc/net/snmp") == 0) {
		if (ag_sys_parse_snmp(ag_sys_buf_span(&buf), "Tcp", "RetransSegs", &v))
			ag_sys_set_u64(out, "tcp_retransmitted", v);
		if (ag_sys_parse_snmp(ag_sys_buf_span(&buf), "Tcp", "CurrEstab", &v))
			ag_sys_set_u64(out, "tcp_established", v);
		if (ag_sys_parse_snmp(ag_sys_buf_span(&buf), "Udp", "RcvbufErrors", &v))
			ag_sys_set_u64(out, "udp_receive_buffer_errors", v);
	}
	if (ag_sys_read(ctx, &buf, "/proc/net/netstat") == 0 &&
	    ag_sys_parse_snmp(ag_sys_buf_span(&buf), "TcpExt", "ListenOverflows", &v))
		ag_sys_set_u64(out, "tcp_listen_overflows", v);
}

void ag_sys_network(const struct sys_ctx *ctx, json_t *out)
{
	json_t *interfaces = ag_sys_array(out, "interfaces");
	json_t *routes = ag_sys_array(out, "routes");

	put_interfaces(ctx, interfaces);
	if (!*ctx->root)
		put_addresses(interfaces);
	put_routes_of(ctx, "/proc/net/route", ag_sys_parse_route, routes);
	put_routes_of(ctx, "/proc/net/ipv6_route", ag_sys_parse_route6, routes);
	put_listeners(ctx, out);
	put_dns(ctx, ag_sys_object(out, "dns"));
	put_protocols(ctx, ag_sys_object(out, "protocols"));
}
