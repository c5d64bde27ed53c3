/* Every parser of kernel text, on the same bytes: as a whole file and line by line. */
#include <stdint.h>
#include <stdlib.h>

#include "sys/sys_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_line(struct sys_span line)
{
	struct sys_pid_stat p;
	struct sys_disk d;
	struct sys_netdev n;
	struct sys_socket s;
	struct sys_mount m;
	struct sys_route r;
	struct sys_span message;
	uint64_t priority, usec;

	if (ag_sys_parse_kmsg(line, &priority, &usec, &message) && message.n > line.n)
		abort();
	(void)ag_sys_parse_pid_stat(line, &p);
	(void)ag_sys_parse_disk(line, &d);
	(void)ag_sys_parse_netdev(line, &n);
	if (ag_sys_parse_socket(line, &s) && s.port > 65535)
		abort();
	if (ag_sys_parse_mount(line, &m) && (m.point.n == 0 || m.source.n == 0))
		abort();
	if (ag_sys_parse_route(line, &r) && r.prefix > 32)
		abort();
	if (ag_sys_parse_route6(line, &r) && r.prefix > 128)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct sys_span whole = ag_sys_span((const char *)data, size);
	struct sys_span text = whole, line;
	struct sys_stat stat;
	struct sys_pressure pressure;
	struct sys_softnet softnet;
	uint64_t v;
	char value[16];
	char *copy;
	json_t *string;

	(void)ag_sys_parse_stat(whole, &stat);
	if (stat.n_cpus > SYS_MAX_CPUS)
		abort();
	ag_sys_stat_done(&stat);
	(void)ag_sys_parse_pressure(whole, &pressure);
	(void)ag_sys_parse_softnet(whole, &softnet);
	(void)ag_sys_keyed(whole, "MemTotal", &v);
	(void)ag_sys_parse_snmp(whole, "Tcp", "RetransSegs", &v);
	(void)ag_sys_parse_assignment(whole, "NAME", value, sizeof(value));
	while (ag_sys_next_line(&text, &line))
		parse_line(line);
	copy = malloc(size + 1);
	if (copy) {
		memcpy(copy, data, size);
		if (ag_sys_unescape(copy, size) > size)
			abort();
		free(copy);
	}
	string = ag_sys_string((const char *)data, size);
	if (!string)
		abort(); /* any bytes become some text */
	for (const char *c = json_string_value(string); *c; c++) {
		if ((unsigned char)*c < 32 || *c == 127)
			abort();
	}
	json_decref(string);
	return 0;
}
