/* Parsers of the kernel's text files, each from pointer and length to plain numbers.
 *
 * The formats are those of Documentation/filesystems/proc.rst, admin-guide/iostats.rst and accounting/psi.rst of the
 * Linux kernel. Fields that a newer kernel appends are ignored, fields that an older one lacks are zero; a line
 * without the fields that matter is refused. Everything here is fuzzed: nothing may assume a good file. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#include "sys/sys_internal.h"

uint64_t ag_sys_cpu_total(const struct sys_cpu_times *t)
{
	return t->user + t->nice + t->system + t->idle + t->iowait + t->irq + t->softirq + t->steal;
}

static bool copy_word(struct sys_span word, char *ret, size_t size)
{
	if (word.n >= size)
		word.n = size - 1;
	memcpy(ret, word.p, word.n);
	ret[word.n] = '\0';
	return word.n > 0;
}

static bool parse_cpu_line(struct sys_span line, struct sys_cpu_times *ret)
{
	uint64_t *const fields[] = { &ret->user,   &ret->nice, &ret->system,  &ret->idle,
		                     &ret->iowait, &ret->irq,  &ret->softirq, &ret->steal };
	size_t i = 0;

	memset(ret, 0, sizeof(*ret));
	while (i < sizeof(fields) / sizeof(fields[0]) && ag_sys_next_number(&line, fields[i]))
		i++;
	return i >= 4;
}

/* Grows the array to hold number `index`, zeroing what is new. */
static bool reserve_cpu(struct sys_stat *s, uint64_t index)
{
	struct sys_cpu_times *cpus;

	if (index < s->n_cpus)
		return true;
	if (index >= SYS_MAX_CPUS)
		return false;
	cpus = realloc(s->cpus, (index + 1) * sizeof(*cpus));
	if (!cpus)
		return false;
	memset(cpus + s->n_cpus, 0, (index + 1 - s->n_cpus) * sizeof(*cpus));
	s->cpus = cpus;
	s->n_cpus = (unsigned)index + 1;
	return true;
}

bool ag_sys_parse_stat(struct sys_span text, struct sys_stat *ret)
{
	struct sys_span line, word;
	struct sys_cpu_times t;
	uint64_t index;
	bool seen = false;

	memset(ret, 0, sizeof(*ret));
	while (ag_sys_next_line(&text, &line)) {
		if (!ag_sys_next_word(&line, &word))
			continue;
		if (ag_sys_is(word, "cpu")) {
			seen = parse_cpu_line(line, &ret->all) || seen;
		} else if (ag_sys_starts(word, "cpu")) {
			if (ag_sys_number(ag_sys_span(word.p + 3, word.n - 3), 10, &index) &&
			    parse_cpu_line(line, &t) && reserve_cpu(ret, index))
				ret->cpus[index] = t;
		} else if (ag_sys_is(word, "ctxt")) {
			(void)ag_sys_next_number(&line, &ret->context_switches);
		} else if (ag_sys_is(word, "intr")) {
			(void)ag_sys_next_number(&line, &ret->interrupts);
		} else if (ag_sys_is(word, "processes")) {
			(void)ag_sys_next_number(&line, &ret->forks);
		} else if (ag_sys_is(word, "btime")) {
			(void)ag_sys_next_number(&line, &ret->boot_time);
		} else if (ag_sys_is(word, "procs_running")) {
			(void)ag_sys_next_number(&line, &ret->running);
		} else if (ag_sys_is(word, "procs_blocked")) {
			(void)ag_sys_next_number(&line, &ret->blocked);
		}
	}
	return seen;
}

void ag_sys_stat_done(struct sys_stat *s)
{
	free(s->cpus);
	s->cpus = NULL;
	s->n_cpus = 0;
}

/* "12.34" */
static bool parse_decimal(struct sys_span word, double *ret)
{
	const char *dot = memchr(word.p, '.', word.n);
	size_t whole_n = dot ? (size_t)(dot - word.p) : word.n;
	struct sys_span rest = dot ? ag_sys_span(dot + 1, word.n - whole_n - 1) : ag_sys_span("0", 1);
	uint64_t whole, part;
	double scale = 1;

	if (rest.n > 6 || !ag_sys_number(ag_sys_span(word.p, whole_n), 10, &whole) || !ag_sys_number(rest, 10, &part))
		return false;
	for (size_t i = 0; i < rest.n; i++)
		scale *= 10;
	*ret = (double)whole + (double)part / scale;
	return true;
}

bool ag_sys_parse_pressure(struct sys_span text, struct sys_pressure *ret)
{
	struct sys_span line, word;
	bool seen = false;

	memset(ret, 0, sizeof(*ret));
	while (ag_sys_next_line(&text, &line)) {
		bool some;

		if (!ag_sys_next_word(&line, &word) || !(ag_sys_is(word, "some") || ag_sys_is(word, "full")))
			continue;
		some = ag_sys_is(word, "some");
		while (ag_sys_next_word(&line, &word)) {
			if (ag_sys_starts(word, "avg10="))
				(void)parse_decimal(ag_sys_span(word.p + 6, word.n - 6),
				                    some ? &ret->some_avg10 : &ret->full_avg10);
			else if (ag_sys_starts(word, "total=") && ag_sys_number(ag_sys_span(word.p + 6, word.n - 6), 10,
			                                                        some ? &ret->some_us : &ret->full_us)) {
				seen = true;
				ret->has_full = ret->has_full || !some;
			}
		}
	}
	return seen;
}

/* The name stands in parentheses and may itself hold blanks and parentheses: the last one closes it. */
bool ag_sys_parse_pid_stat(struct sys_span text, struct sys_pid_stat *ret)
{
	const char *open = memchr(text.p, '(', text.n), *close = memrchr(text.p, ')', text.n);
	struct sys_span head, rest, word;
	uint64_t ignored;

	memset(ret, 0, sizeof(*ret));
	if (!open || !close || close < open)
		return false;
	head = ag_sys_span(text.p, (size_t)(open - text.p));
	rest = ag_sys_span(close + 1, text.n - (size_t)(close - text.p) - 1);
	if (!ag_sys_next_number(&head, &ret->pid) || !ag_sys_next_word(&rest, &word))
		return false;
	(void)copy_word(ag_sys_span(open + 1, (size_t)(close - open) - 1), ret->comm, sizeof(ret->comm));
	ret->state = word.p[0];
	/* Fields 4 ppid, 12 majflt, 14 utime, 15 stime, 20 threads, 22 starttime, 24 rss, 42 block delay. */
	if (!ag_sys_next_number(&rest, &ret->ppid) || !ag_sys_skip_words(&rest, 7) ||
	    !ag_sys_next_number(&rest, &ret->major_faults) || !ag_sys_skip_words(&rest, 1) ||
	    !ag_sys_next_number(&rest, &ret->utime) || !ag_sys_next_number(&rest, &ret->stime) ||
	    !ag_sys_skip_words(&rest, 4) || !ag_sys_next_number(&rest, &ret->threads) || !ag_sys_skip_words(&rest, 1) ||
	    !ag_sys_next_number(&rest, &ret->start_time) || !ag_sys_next_number(&rest, &ignored) ||
	    !ag_sys_next_number(&rest, &ret->rss_pages))
		return false;
	if (ag_sys_skip_words(&rest, 17))
		(void)ag_sys_next_number(&rest, &ret->block_delay);
	return true;
}

bool ag_sys_parse_disk(struct sys_span line, struct sys_disk *ret)
{
	uint64_t merged;
	struct sys_span word;

	memset(ret, 0, sizeof(*ret));
	return ag_sys_next_number(&line, &ret->major) && ag_sys_next_number(&line, &ret->minor) &&
	       ag_sys_next_word(&line, &word) && copy_word(word, ret->name, sizeof(ret->name)) &&
	       ag_sys_next_number(&line, &ret->reads) && ag_sys_next_number(&line, &merged) &&
	       ag_sys_next_number(&line, &ret->sectors_read) && ag_sys_next_number(&line, &ret->read_ms) &&
	       ag_sys_next_number(&line, &ret->writes) && ag_sys_next_number(&line, &merged) &&
	       ag_sys_next_number(&line, &ret->sectors_written) && ag_sys_next_number(&line, &ret->write_ms) &&
	       ag_sys_next_number(&line, &ret->in_flight) && ag_sys_next_number(&line, &ret->busy_ms) &&
	       ag_sys_next_number(&line, &ret->queue_ms);
}

bool ag_sys_parse_netdev(struct sys_span line, struct sys_netdev *ret)
{
	const char *colon = memrchr(line.p, ':', line.n);
	struct sys_span head, word;

	memset(ret, 0, sizeof(*ret));
	if (!colon)
		return false;
	head = ag_sys_span(line.p, (size_t)(colon - line.p));
	line = ag_sys_span(colon + 1, line.n - head.n - 1);
	return ag_sys_next_word(&head, &word) && copy_word(word, ret->name, sizeof(ret->name)) &&
	       ag_sys_next_number(&line, &ret->rx_bytes) && ag_sys_next_number(&line, &ret->rx_packets) &&
	       ag_sys_next_number(&line, &ret->rx_errors) && ag_sys_next_number(&line, &ret->rx_drops) &&
	       ag_sys_skip_words(&line, 4) && ag_sys_next_number(&line, &ret->tx_bytes) &&
	       ag_sys_next_number(&line, &ret->tx_packets) && ag_sys_next_number(&line, &ret->tx_errors) &&
	       ag_sys_next_number(&line, &ret->tx_drops);
}

bool ag_sys_parse_softnet(struct sys_span text, struct sys_softnet *ret)
{
	struct sys_span line, word;
	uint64_t v[3];
	bool seen = false;

	memset(ret, 0, sizeof(*ret));
	while (ag_sys_next_line(&text, &line)) {
		int i = 0;

		while (i < 3 && ag_sys_next_word(&line, &word) && ag_sys_number(word, 16, &v[i]))
			i++;
		if (i < 3)
			continue;
		ret->processed += v[0];
		ret->dropped += v[1];
		ret->squeezed += v[2];
		seen = true;
	}
	return seen;
}

/* The kernel prints addresses as 32-bit words in the machine's byte order (little-endian where we run). */
static bool parse_hex_address(struct sys_span hex, char *ret, size_t size)
{
	uint32_t words[4];
	size_t n = hex.n / 8;
	uint64_t v;

	if ((hex.n != 8 && hex.n != 32))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!ag_sys_number(ag_sys_span(hex.p + i * 8, 8), 16, &v))
			return false;
		words[i] = (uint32_t)v;
	}
	return inet_ntop(n == 1 ? AF_INET : AF_INET6, words, ret, (socklen_t)size) != NULL;
}

/* "0100007F:0277" */
static bool split_endpoint(struct sys_span word, struct sys_span *ret_address, uint64_t *ret_port)
{
	const char *colon = memchr(word.p, ':', word.n);

	if (!colon)
		return false;
	*ret_address = ag_sys_span(word.p, (size_t)(colon - word.p));
	return ag_sys_number(ag_sys_span(colon + 1, word.n - ret_address->n - 1), 16, ret_port) && *ret_port <= 65535;
}

bool ag_sys_parse_socket(struct sys_span line, struct sys_socket *ret)
{
	struct sys_span word, address, queue;
	uint64_t peer_port;
	const char *colon;

	memset(ret, 0, sizeof(*ret));
	if (!ag_sys_skip_words(&line, 1) || !ag_sys_next_word(&line, &word) ||
	    !split_endpoint(word, &address, &ret->port) ||
	    !parse_hex_address(address, ret->address, sizeof(ret->address)))
		return false;
	if (!ag_sys_next_word(&line, &word) || !split_endpoint(word, &address, &peer_port))
		return false;
	ret->has_peer = peer_port != 0;
	if (!ag_sys_next_word(&line, &word) || !ag_sys_number(word, 16, &ret->state))
		return false;
	if (!ag_sys_next_word(&line, &queue) || !(colon = memchr(queue.p, ':', queue.n)) ||
	    !ag_sys_number(ag_sys_span(queue.p, (size_t)(colon - queue.p)), 16, &ret->tx_queue) ||
	    !ag_sys_number(ag_sys_span(colon + 1, queue.n - (size_t)(colon - queue.p) - 1), 16, &ret->rx_queue))
		return false;
	return ag_sys_skip_words(&line, 2) && ag_sys_next_number(&line, &ret->uid) && ag_sys_skip_words(&line, 1) &&
	       ag_sys_next_number(&line, &ret->inode);
}

/* "36 35 98:0 /root /point opts [optional]... - type source superopts" */
bool ag_sys_parse_mount(struct sys_span line, struct sys_mount *ret)
{
	struct sys_span word;

	memset(ret, 0, sizeof(*ret));
	if (!ag_sys_skip_words(&line, 2) || !ag_sys_next_word(&line, &ret->device_id) || !ag_sys_skip_words(&line, 1) ||
	    !ag_sys_next_word(&line, &ret->point) || !ag_sys_next_word(&line, &ret->options))
		return false;
	do {
		if (!ag_sys_next_word(&line, &word))
			return false;
	} while (!ag_sys_is(word, "-"));
	return ag_sys_next_word(&line, &ret->type) && ag_sys_next_word(&line, &ret->source);
}

bool ag_sys_parse_route(struct sys_span line, struct sys_route *ret)
{
	struct sys_span device, destination, gateway, mask;
	uint64_t flags, mask_value;

	memset(ret, 0, sizeof(*ret));
	if (!ag_sys_next_word(&line, &device) || !ag_sys_next_word(&line, &destination) ||
	    !ag_sys_next_word(&line, &gateway) || !ag_sys_next_word(&line, &mask) || !ag_sys_number(mask, 16, &flags) ||
	    !ag_sys_skip_words(&line, 2) || !ag_sys_next_number(&line, &ret->metric) ||
	    !ag_sys_next_word(&line, &mask) || mask.n != 8 || !ag_sys_number(mask, 16, &mask_value))
		return false;
	ret->prefix = (uint64_t)__builtin_popcountll(mask_value);
	return (flags & 1) && copy_word(device, ret->device, sizeof(ret->device)) && destination.n == 8 &&
	       parse_hex_address(destination, ret->destination, sizeof(ret->destination)) && gateway.n == 8 &&
	       parse_hex_address(gateway, ret->gateway, sizeof(ret->gateway));
}

/* Here the 128 bits stand in network order. */
static bool parse_address6(struct sys_span hex, char *ret, size_t size)
{
	uint8_t bytes[16];
	uint64_t v;

	if (hex.n != 32)
		return false;
	for (size_t i = 0; i < 16; i++) {
		if (!ag_sys_number(ag_sys_span(hex.p + i * 2, 2), 16, &v))
			return false;
		bytes[i] = (uint8_t)v;
	}
	return inet_ntop(AF_INET6, bytes, ret, (socklen_t)size) != NULL;
}

/* destination prefix source prefix gateway metric refcount use flags device */
bool ag_sys_parse_route6(struct sys_span line, struct sys_route *ret)
{
	struct sys_span destination, prefix, gateway, metric, flags, device;
	uint64_t flag_bits;

	memset(ret, 0, sizeof(*ret));
	return ag_sys_next_word(&line, &destination) && ag_sys_next_word(&line, &prefix) &&
	       ag_sys_skip_words(&line, 2) && ag_sys_next_word(&line, &gateway) && ag_sys_next_word(&line, &metric) &&
	       ag_sys_skip_words(&line, 2) && ag_sys_next_word(&line, &flags) && ag_sys_next_word(&line, &device) &&
	       parse_address6(destination, ret->destination, sizeof(ret->destination)) &&
	       ag_sys_number(prefix, 16, &ret->prefix) && ret->prefix <= 128 &&
	       parse_address6(gateway, ret->gateway, sizeof(ret->gateway)) && ag_sys_number(metric, 16, &ret->metric) &&
	       ag_sys_number(flags, 16, &flag_bits) && (flag_bits & 1) &&
	       copy_word(device, ret->device, sizeof(ret->device));
}

bool ag_sys_parse_snmp(struct sys_span text, const char *section, const char *name, uint64_t *ret)
{
	struct sys_span names, values, a, b;

	while (ag_sys_next_line(&text, &names)) {
		if (!ag_sys_starts(names, section) || names.n <= strlen(section) || names.p[strlen(section)] != ':')
			continue;
		if (!ag_sys_next_line(&text, &values))
			return false;
		while (ag_sys_next_word(&names, &a) && ag_sys_next_word(&values, &b)) {
			if (ag_sys_is(a, name))
				return ag_sys_number(b, 10, ret);
		}
	}
	return false;
}

bool ag_sys_parse_assignment(struct sys_span text, const char *key, char *ret, size_t size)
{
	struct sys_span line;
	size_t n = strlen(key), out = 0;

	while (ag_sys_next_line(&text, &line)) {
		char quote = 0;

		if (!ag_sys_starts(line, key) || line.n <= n || line.p[n] != '=')
			continue;
		for (size_t i = n + 1; i < line.n && out + 1 < size; i++) {
			char c = line.p[i];

			if (!quote && (c == '"' || c == '\'')) {
				quote = c;
			} else if (c == quote && quote) {
				quote = 0;
			} else if (c == '\\' && quote != '\'' && i + 1 < line.n) {
				ret[out++] = line.p[++i];
			} else {
				ret[out++] = c;
			}
		}
		ret[out] = '\0';
		return true;
	}
	return false;
}

/* "3,1234,5678901,-;text\n KEY=value": priority and facility, number, microseconds since boot, flags; then the
 * message's first line (Documentation/ABI/testing/dev-kmsg). */
bool ag_sys_parse_kmsg(struct sys_span record, uint64_t *ret_priority, uint64_t *ret_usec, struct sys_span *ret_message)
{
	const char *semicolon = memchr(record.p, ';', record.n), *p = record.p;
	uint64_t fields[3];

	if (!semicolon)
		return false;
	for (size_t i = 0; i < 3; i++) {
		const char *end = memchr(p, ',', (size_t)(semicolon - p));

		if (!end)
			end = semicolon;
		if (!ag_sys_number(ag_sys_span(p, (size_t)(end - p)), 10, &fields[i]))
			return false;
		p = end < semicolon ? end + 1 : semicolon;
	}
	*ret_priority = fields[0];
	*ret_usec = fields[2];
	record = ag_sys_span(semicolon + 1, record.n - (size_t)(semicolon - record.p) - 1);
	if (!ag_sys_next_line(&record, ret_message))
		*ret_message = record;
	return true;
}
