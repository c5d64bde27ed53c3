/* What the readers of this room share: files below a root prefix, cutting text into words, values into JSON. */
#ifndef AG_SYS_INTERNAL_H
#define AG_SYS_INTERNAL_H

#include <dirent.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "sys/sys.h"

struct sys_ctx {
	const struct ag_sys_options *opt;
	const char *root; /* "" for this machine, without a slash at the end */
	int proc_fd;      /* root/proc as a folder, or -1 */
};

/* ---- Text (sys_text.c) ------------------------------------------------------------------------------ */

struct sys_span { /* borrowed bytes; none of these functions reads outside them */
	const char *p;
	size_t n;
};

static inline struct sys_span ag_sys_span(const char *p, size_t n)
{
	return (struct sys_span){ p, n };
}

bool ag_sys_next_line(struct sys_span *text, struct sys_span *ret_line);
bool ag_sys_next_word(struct sys_span *line, struct sys_span *ret_word); /* words are separated by blanks */
bool ag_sys_skip_words(struct sys_span *line, unsigned n);
bool ag_sys_is(struct sys_span s, const char *text);
bool ag_sys_starts(struct sys_span s, const char *text);
/* All of the word is a number of this base (10 or 16) that fits; else false and *ret untouched. */
bool ag_sys_number(struct sys_span word, unsigned base, uint64_t *ret);
bool ag_sys_next_number(struct sys_span *line, uint64_t *ret); /* the next word, decimal */
/* "Key: 12 kB" or "key 12": the number behind a key that begins a line; false when missing. */
bool ag_sys_keyed(struct sys_span text, const char *key, uint64_t *ret);
/* Octal escapes (\040) of mount tables undone, in place; returns the new length. */
size_t ag_sys_unescape(char *text, size_t n);

/* ---- Files (sys_text.c) ----------------------------------------------------------------------------- */

int ag_sys_path(const struct sys_ctx *ctx, char *ret, size_t size, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
/* Replaces buf's content by the file's, up to the buffer's ceiling. */
int ag_sys_read(const struct sys_ctx *ctx, struct base_buf *buf, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* The same for a file in an open folder. */
int ag_sys_read_at(int dir_fd, const char *name, char *ret, size_t size, size_t *ret_len);
/* The first line of a small file, without blanks around it. */
int ag_sys_read_line(const struct sys_ctx *ctx, char *ret, size_t size, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
bool ag_sys_read_number(const struct sys_ctx *ctx, uint64_t *ret, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
DIR *ag_sys_opendir(const struct sys_ctx *ctx, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ag_sys_closedirp(DIR **dir);
/* The next entry that is not . or ..; NULL at the end. */
const char *ag_sys_next_entry(DIR *dir);
bool ag_sys_is_pid(const char *name);

static inline struct sys_span ag_sys_buf_span(const struct base_buf *b)
{
	return ag_sys_span(base_buf_text(b), b->len);
}

/* ---- JSON (sys_text.c): a failed allocation costs the value ------------------------------------------- */

/* Text of unknown origin: valid UTF-8 without control characters, others become '?'. */
json_t *ag_sys_string(const char *p, size_t n);
void ag_sys_set_text(json_t *obj, const char *key, const char *text);
void ag_sys_set_span(json_t *obj, const char *key, struct sys_span text);
void ag_sys_set_u64(json_t *obj, const char *key, uint64_t value);
void ag_sys_set_real(json_t *obj, const char *key, double value); /* rounded to 1/100 */
/* A sentence about what could not be read. values (taken, may be NULL) fill "{key}" in both. */
void ag_sys_note(json_t *section, const char *en, const char *zh, json_t *values);
/* Appends the template with each {path} replaced: looked up in `first`, then in `second`. */
int ag_sys_expand(const char *format, const json_t *first, const json_t *second, struct base_buf *out);
/* obj["a"]["b"] for "a.b"; NULL when missing. */
const json_t *ag_sys_lookup(const json_t *obj, const char *path);
/* obj[key], made as an empty array or object when missing; NULL without memory. */
json_t *ag_sys_array(json_t *obj, const char *key);
json_t *ag_sys_object(json_t *obj, const char *key);
void ag_sys_append_take(json_t *array, json_t *value);

/* ---- Parsers of kernel text (sys_parse.c) -------------------------------------------------------------- */

struct sys_cpu_times {
	uint64_t user, nice, system, idle, iowait, irq, softirq, steal;
};
uint64_t ag_sys_cpu_total(const struct sys_cpu_times *t);

enum { SYS_MAX_CPUS = 4096 };

struct sys_stat { /* /proc/stat */
	struct sys_cpu_times all;
	struct sys_cpu_times *cpus; /* indexed by number; freed by ag_sys_stat_done() */
	unsigned n_cpus;            /* highest number + 1 */
	uint64_t context_switches, interrupts, forks, boot_time, running, blocked;
};
bool ag_sys_parse_stat(struct sys_span text, struct sys_stat *ret);
void ag_sys_stat_done(struct sys_stat *s);

struct sys_pressure { /* microseconds since boot; avg10 in percent */
	uint64_t some_us, full_us;
	double some_avg10, full_avg10;
	bool has_full;
};
bool ag_sys_parse_pressure(struct sys_span text, struct sys_pressure *ret);

struct sys_pid_stat { /* /proc/PID/stat */
	uint64_t pid, ppid, utime, stime, start_time, rss_pages, threads, major_faults, block_delay;
	char state;
	char comm[68];
};
bool ag_sys_parse_pid_stat(struct sys_span text, struct sys_pid_stat *ret);

struct sys_disk { /* one line of /proc/diskstats */
	char name[64];
	uint64_t major, minor;
	uint64_t reads, sectors_read, read_ms, writes, sectors_written, write_ms, in_flight, busy_ms, queue_ms;
};
bool ag_sys_parse_disk(struct sys_span line, struct sys_disk *ret);

struct sys_netdev { /* one line of /proc/net/dev */
	char name[64];
	uint64_t rx_bytes, rx_packets, rx_errors, rx_drops, tx_bytes, tx_packets, tx_errors, tx_drops;
};
bool ag_sys_parse_netdev(struct sys_span line, struct sys_netdev *ret);

struct sys_softnet {
	uint64_t processed, dropped, squeezed;
};
bool ag_sys_parse_softnet(struct sys_span text, struct sys_softnet *ret); /* summed over processors */

struct sys_socket { /* one line of /proc/net/{tcp,tcp6,udp,udp6} */
	char address[64];
	uint64_t port, state, rx_queue, tx_queue, uid, inode;
	bool has_peer;
};
bool ag_sys_parse_socket(struct sys_span line, struct sys_socket *ret);

struct sys_mount {                                               /* one line of /proc/self/mountinfo */
	struct sys_span device_id, point, type, source, options; /* still escaped, borrowed */
};
bool ag_sys_parse_mount(struct sys_span line, struct sys_mount *ret);

struct sys_route { /* one line of /proc/net/route */
	char device[64], destination[64], gateway[64];
	uint64_t prefix, metric;
};
bool ag_sys_parse_route(struct sys_span line, struct sys_route *ret);
bool ag_sys_parse_route6(struct sys_span line, struct sys_route *ret); /* /proc/net/ipv6_route */

/* /proc/net/snmp and netstat: the number under `name` of the pair of lines "Section:". */
bool ag_sys_parse_snmp(struct sys_span text, const char *section, const char *name, uint64_t *ret);
/* One record of /dev/kmsg; the message is borrowed. */
bool ag_sys_parse_kmsg(struct sys_span record, uint64_t *ret_priority, uint64_t *ret_usec,
                       struct sys_span *ret_message);
/* KEY=value files with shell quotes (os-release): the value copied without them. */
bool ag_sys_parse_assignment(struct sys_span text, const char *key, char *ret, size_t size);

/* ---- Labels (sys_labels.c) -------------------------------------------------------------------------------- */

bool ag_sys_key_ends(const char *key, const char *end);
/* "rx_bytes_per_s" -> "rx/s", "used_percent" -> "used": the unit is shown by the value. */
void ag_sys_label(const char *key, bool chinese, char *ret, size_t size);

/* ---- Sections: each fills its object --------------------------------------------------------------------- */

void ag_sys_host(const struct sys_ctx *ctx, json_t *out);
void ag_sys_hardware(const struct sys_ctx *ctx, json_t *out);
void ag_sys_gpu(const struct sys_ctx *ctx, json_t *out);
void ag_sys_packages(const struct sys_ctx *ctx, json_t *out);
void ag_sys_services(const struct sys_ctx *ctx, json_t *out);
void ag_sys_logs(const struct sys_ctx *ctx, json_t *out);
void ag_sys_network(const struct sys_ctx *ctx, json_t *out);
void ag_sys_storage(const struct sys_ctx *ctx, json_t *out);
void ag_sys_users(const struct sys_ctx *ctx, json_t *out);
void ag_sys_perf(const struct sys_ctx *ctx, json_t *out);

#endif
