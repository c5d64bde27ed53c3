/* Logs: what this boot's journal holds at priority error and worse, grouped by unit and message, and OOM kills.
 *
 * Messages are grouped with their numbers taken out ("port 8080" and "port 9090" are one message), newest first, so
 * that a flood of one message stays one line. The journal is read from its end, a bounded number of entries. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "sys/sys_systemd.h"

enum { MAX_ENTRIES = 50000, MAX_GROUPS = 1000, MAX_LISTED = 50, MAX_MESSAGE = 300 };

int ag_sys_journal_open(const struct systemd *sd, const struct sys_ctx *ctx, sd_journal **ret)
{
	char path[4096];
	int r;

	if (!*ctx->root)
		return sd->sd_journal_open(ret, SD_JOURNAL_LOCAL_ONLY);
	r = ag_sys_path(ctx, path, sizeof(path), "/var/log/journal");
	return r < 0 ? r : sd->sd_journal_open_directory(ret, path, 0);
}

/* The value of a field of the current entry; borrowed until the journal moves. */
static bool journal_field(const struct systemd *sd, sd_journal *j, const char *name, struct sys_span *ret)
{
	const void *data;
	size_t n, head = strlen(name) + 1;

	if (sd->sd_journal_get_data(j, name, &data, &n) < 0 || n < head)
		return false;
	*ret = ag_sys_span((const char *)data + head, n - head);
	return true;
}

void ag_sys_journal_tail(const struct systemd *sd, const struct sys_ctx *ctx, const char *unit, unsigned n,
                         json_t *lines)
{
	static const char *const fields[] = { "_SYSTEMD_UNIT", "UNIT" }; /* what it said, what systemd said of it */
	sd_journal *j = NULL;
	struct sys_span message;
	char match[320];

	if (!unit || ag_sys_journal_open(sd, ctx, &j) < 0)
		return;
	for (size_t i = 0; i < 2; i++) {
		int len = snprintf(match, sizeof(match), "%s=%s", fields[i], unit);

		if (len > 0 && (size_t)len < sizeof(match))
			(void)sd->sd_journal_add_match(j, match, (size_t)len);
		if (i == 0)
			(void)sd->sd_journal_add_disjunction(j);
	}
	if (sd->sd_journal_seek_tail(j) >= 0) {
		while (n-- && sd->sd_journal_previous(j) > 0) {
			if (journal_field(sd, j, "MESSAGE", &message))
				(void)json_array_insert_new(
				        lines, 0,
				        ag_sys_string(message.p, message.n < MAX_MESSAGE ? message.n : MAX_MESSAGE));
		}
	}
	sd->sd_journal_close(j);
}

/* The message with each run of digits as one '#'. */
static size_t fold_numbers(struct sys_span message, char *ret, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < message.n && n + 1 < size; i++) {
		char c = message.p[i];

		if (c >= '0' && c <= '9') {
			if (n == 0 || ret[n - 1] != '#')
				ret[n++] = '#';
		} else {
			ret[n++] = c == '\0' ? ' ' : c;
		}
	}
	ret[n] = '\0';
	return n;
}

/* "Out of memory: Killed process 123 (name) ..." and the cgroup's variant. */
static void put_oom(struct sys_span message, uint64_t time_s, json_t *kills)
{
	static const char mark[] = "Killed process ";
	const char *at = memmem(message.p, message.n, mark, sizeof(mark) - 1), *open, *close;
	struct sys_span rest, word;
	json_t *kill;
	uint64_t pid;

	if (!at || json_array_size(kills) >= MAX_LISTED)
		return;
	rest = ag_sys_span(at + sizeof(mark) - 1, message.n - (size_t)(at - message.p) - sizeof(mark) + 1);
	if (!ag_sys_next_word(&rest, &word) || !ag_sys_number(word, 10, &pid))
		return;
	kill = json_object();
	ag_sys_set_u64(kill, "time_s", time_s);
	ag_sys_set_u64(kill, "pid", pid);
	open = memchr(rest.p, '(', rest.n);
	close = open ? memchr(open, ')', rest.n - (size_t)(open - rest.p)) : NULL;
	if (close)
		ag_sys_set_span(kill, "process", ag_sys_span(open + 1, (size_t)(close - open) - 1));
	(void)json_object_set_new(kill, "limit_of_group",
	                          json_boolean(memmem(message.p, message.n, "Memory cgroup", 13) != NULL));
	ag_sys_append_take(kills, kill);
}

static void count_entry(json_t *groups, struct sys_span unit, struct sys_span message, uint64_t time_s)
{
	char key[MAX_MESSAGE + 300];
	size_t head;
	json_t *group, *name;

	if (message.n > MAX_MESSAGE)
		message.n = MAX_MESSAGE;
	if (unit.n > 256)
		unit.n = 256;
	memcpy(key, unit.p, unit.n);
	key[unit.n] = ' ';
	head = unit.n + 1;
	name = ag_sys_string(key, head + fold_numbers(message, key + head, sizeof(key) - head));
	group = name ? json_object_get(groups, json_string_value(name)) : NULL;
	if (!group && name && json_object_size(groups) < MAX_GROUPS) {
		group = json_object();
		ag_sys_set_span(group, "unit", unit);
		ag_sys_set_span(group, "message", message);
		ag_sys_set_u64(group, "count", 0);
		ag_sys_set_u64(group, "last_time_s", time_s); /* read backwards: the first seen is the latest */
		(void)json_object_set_new_nocheck(groups, json_string_value(name), group);
	}
	if (group) {
		ag_sys_set_u64(group, "count", (uint64_t)json_integer_value(json_object_get(group, "count")) + 1);
		ag_sys_set_u64(group, "first_time_s", time_s);
	}
	json_decref(name);
}

static int by_count(const void *a, const void *b)
{
	json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "count"));
	json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "count"));

	return x > y ? -1 : x < y;
}

static void list_groups(json_t *groups, json_t *out)
{
	CLEANUP(freep) json_t **sorted = calloc(json_object_size(groups) + 1, sizeof(json_t *));
	const char *key;
	json_t *group;
	size_t n = 0;

	if (!sorted)
		return;
	json_object_foreach(groups, key, group) sorted[n++] = group;
	qsort(sorted, n, sizeof(*sorted), by_count);
	for (size_t i = 0; i < n && i < MAX_LISTED; i++)
		(void)json_array_append(out, sorted[i]);
}

/* Errors of this boot; priorities are alternatives to each other. */
static void add_matches(const struct systemd *sd, const struct sys_ctx *ctx, sd_journal *j)
{
	char match[64] = "PRIORITY=0", id[64], boot[80] = "_BOOT_ID=";
	size_t n = strlen(boot);

	for (char p = '0'; p <= '3'; p++) {
		match[9] = p;
		(void)sd->sd_journal_add_match(j, match, 10);
	}
	if (ag_sys_read_line(ctx, id, sizeof(id), "/proc/sys/kernel/random/boot_id") < 0)
		return;
	for (const char *c = id; *c; c++) {
		if (*c != '-')
			boot[n++] = *c;
	}
	(void)sd->sd_journal_add_match(j, boot, n);
}

static void read_entry(const struct systemd *sd, sd_journal *j, json_t *groups, json_t *out)
{
	struct sys_span message, unit;
	uint64_t usec = 0;
	char name[256];

	(void)sd->sd_journal_get_realtime_usec(j, &usec);
	/* Data of one field is only good until the next is asked for. */
	if (!journal_field(sd, j, "_SYSTEMD_UNIT", &unit) && !journal_field(sd, j, "SYSLOG_IDENTIFIER", &unit))
		unit = ag_sys_span("?", 1);
	if (unit.n > sizeof(name))
		unit.n = sizeof(name);
	memcpy(name, unit.p, unit.n);
	if (!journal_field(sd, j, "MESSAGE", &message))
		return;
	put_oom(message, usec / 1000000, ag_sys_array(out, "oom_kills"));
	count_entry(groups, ag_sys_span(name, unit.n), message, usec / 1000000);
}

/* ---- Without a journal: the kernel's own buffer -------------------------------------------------------------- */

static bool read_kernel_record(struct sys_span record, uint64_t boot_time, json_t *groups, json_t *out)
{
	uint64_t priority, usec;
	struct sys_span message;

	/* The kernel's own are facility 0: programs write here too. */
	if (!ag_sys_parse_kmsg(record, &priority, &usec, &message) || priority > 3)
		return false;
	put_oom(message, boot_time + usec / 1000000, ag_sys_array(out, "oom_kills"));
	count_entry(groups, ag_sys_span("kernel", 6), message, boot_time + usec / 1000000);
	return true;
}

/* Each read gives one record; -EPIPE says that some were overwritten meanwhile. */
static int read_kernel_buffer(const struct sys_ctx *ctx, json_t *groups, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf stat = BASE_BUF_INIT(4 << 20);
	CLEANUP(close_fdp) int fd = -1;
	uint64_t boot_time = 0, n = 0;
	char path[4096], record[8192];

	if (ag_sys_path(ctx, path, sizeof(path), "/dev/kmsg") < 0)
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ag_sys_read(ctx, &stat, "/proc/stat") == 0)
		(void)ag_sys_keyed(ag_sys_buf_span(&stat), "btime", &boot_time);
	for (unsigned i = 0; i < 4 * MAX_ENTRIES; i++) {
		ssize_t len = read(fd, record, sizeof(record));

		if (len < 0 && (errno == EINTR || errno == EPIPE))
			continue;
		if (len <= 0)
			break;
		n += read_kernel_record(ag_sys_span(record, (size_t)len), boot_time, groups, out);
	}
	ag_sys_set_u64(out, "error_entries", n);
	return 0;
}

/* A container or an unprivileged user may have neither. */
static void read_without_journal(const struct sys_ctx *ctx, json_t *groups, json_t *out)
{
	int r = read_kernel_buffer(ctx, groups, out);

	ag_sys_note(out, "There is no journal here, or it may not be read.", "这里没有 journal 日志,或无权读取。",
	            NULL);
	if (r == -EPERM || r == -EACCES)
		ag_sys_note(out, "The kernel's messages can only be read by root.", "内核消息只有 root 能读取。", NULL);
	else if (r == 0)
		ag_sys_note(out, "Shown are the kernel's own messages.", "这里显示的是内核自己的消息。", NULL);
}

static bool has_journal(const struct systemd *sd, const struct sys_ctx *ctx, sd_journal *j)
{
	return *ctx->root || sd->sd_journal_has_runtime_files(j) > 0 || sd->sd_journal_has_persistent_files(j) > 0;
}

static void read_journal(const struct systemd *sd, const struct sys_ctx *ctx, sd_journal *j, json_t *groups,
                         json_t *out)
{
	uint64_t n = 0;

	add_matches(sd, ctx, j);
	if (sd->sd_journal_seek_tail(j) >= 0) {
		while (n < MAX_ENTRIES && sd->sd_journal_previous(j) > 0) {
			read_entry(sd, j, groups, out);
			n++;
		}
	}
	ag_sys_set_u64(out, "error_entries", n);
	if (n == MAX_ENTRIES)
		ag_sys_note(out, "Only the latest {n} errors were read.", "只读取了最近的 {n} 条错误。",
		            json_pack("{s:i}", "n", MAX_ENTRIES));
	if (!*ctx->root && geteuid() != 0)
		ag_sys_note(out, "Only root and members of the group systemd-journal see the whole journal.",
		            "只有 root 和 systemd-journal 组的成员能看到全部日志。", NULL);
}

void ag_sys_logs(const struct sys_ctx *ctx, json_t *out)
{
	const struct systemd *sd = ag_sys_systemd();
	json_t *groups = json_object();
	sd_journal *j = NULL;

	(void)ag_sys_array(out, "errors");
	(void)ag_sys_array(out, "oom_kills");
	if (!sd)
		ag_sys_note(out, "libsystemd is not on this machine, or too old: the journal cannot be read.",
		            "本机没有 libsystemd,或版本太旧:无法读取日志。", NULL);
	if (sd && ag_sys_journal_open(sd, ctx, &j) >= 0 && has_journal(sd, ctx, j))
		read_journal(sd, ctx, j, groups, out);
	else
		read_without_journal(ctx, groups, out);
	if (j)
		sd->sd_journal_close(j);
	list_groups(groups, json_object_get(out, "errors"));
	json_decref(groups);
}
