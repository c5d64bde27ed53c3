/* Taking a sample: the counters of the whole machine, then of every disk, interface, process and cgroup.
 *
 * It must be quick with ten thousand processes, so a process costs an open, a read and a close per file, below one
 * open /proc; a process that is gone by then is skipped. Control groups are bounded in number and depth. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "sys/sys_sample.h"

enum { MAX_PROCESSES = 200000, MAX_CGROUPS = 500, MAX_DEPTH = 8, MAX_DEVICES = 4096 };

/* Room for one more item of this size in a growing array, or false. */
static bool grow(void **items, size_t n, size_t item_size, size_t max)
{
	void *grown;

	/* Capacities are 64, 128, ...: an array of n items is full when n is one of them. */
	if (n >= max)
		return false;
	if (n != 0 && (n < 64 || (n & (n - 1)) != 0))
		return true;
	grown = realloc(*items, (n ? n * 2 : 64) * item_size);
	if (!grown)
		return false;
	*items = grown;
	return true;
}

static void read_vm(const struct sys_ctx *ctx, struct base_buf *buf, struct sys_vm *vm)
{
	struct sys_span text, line, word;
	uint64_t v;

	if (ag_sys_read(ctx, buf, "/proc/vmstat") < 0)
		return;
	text = ag_sys_buf_span(buf);
	while (ag_sys_next_line(&text, &line)) {
		if (!ag_sys_next_word(&line, &word) || !ag_sys_next_number(&line, &v))
			continue;
		if (ag_sys_is(word, "pswpin"))
			vm->swap_in = v;
		else if (ag_sys_is(word, "pswpout"))
			vm->swap_out = v;
		else if (ag_sys_is(word, "pgmajfault"))
			vm->major_faults = v;
		else if (ag_sys_is(word, "oom_kill"))
			vm->oom_kills = v;
		else if (ag_sys_is(word, "pgscan_kswapd"))
			vm->scan_kswapd = v;
		else if (ag_sys_is(word, "pgscan_direct"))
			vm->scan_direct = v;
		else if (ag_sys_starts(word, "allocstall"))
			vm->alloc_stall += v; /* one counter per memory zone */
	}
}

/* "cpuN ..." of /proc/schedstat: field 8 is the time tasks waited to run, in ns (Documentation/scheduler). */
static void read_schedstat(const struct sys_ctx *ctx, struct base_buf *buf, struct sys_sample *s)
{
	struct sys_span text, line, word;
	uint64_t v;

	if (ag_sys_read(ctx, buf, "/proc/schedstat") < 0)
		return;
	text = ag_sys_buf_span(buf);
	while (ag_sys_next_line(&text, &line)) {
		if (ag_sys_next_word(&line, &word) && ag_sys_starts(word, "cpu") && ag_sys_skip_words(&line, 7) &&
		    ag_sys_next_number(&line, &v)) {
			s->run_delay_ns += v;
			s->has_run_delay = true;
		}
	}
}

static void read_disks(const struct sys_ctx *ctx, struct base_buf *buf, struct sys_sample *s)
{
	struct sys_span text, line;
	struct sys_disk d;
	char path[4096];

	if (ag_sys_read(ctx, buf, "/proc/diskstats") < 0)
		return;
	text = ag_sys_buf_span(buf);
	while (ag_sys_next_line(&text, &line)) {
		if (!ag_sys_parse_disk(line, &d) || strchr(d.name, '/') || strncmp(d.name, "loop", 4) == 0 ||
		    strncmp(d.name, "ram", 3) == 0)
			continue;
		/* Partitions are not in /sys/block. */
		if (ag_sys_path(ctx, path, sizeof(path), "/sys/block/%s", d.name) < 0 || access(path, F_OK) != 0)
			continue;
		if (!grow((void **)&s->disks, s->n_disks, sizeof(d), MAX_DEVICES))
			return;
		s->disks[s->n_disks++] = d;
	}
}

static void read_nets(const struct sys_ctx *ctx, struct base_buf *buf, struct sys_sample *s)
{
	struct sys_span text, line;
	struct sys_netdev d;

	if (ag_sys_read(ctx, buf, "/proc/net/dev") < 0)
		return;
	text = ag_sys_buf_span(buf);
	while (ag_sys_next_line(&text, &line)) {
		if (!ag_sys_parse_netdev(line, &d))
			continue;
		if (!grow((void **)&s->nets, s->n_nets, sizeof(d), MAX_DEVICES))
			return;
		s->nets[s->n_nets++] = d;
	}
}

static void read_protocols(const struct sys_ctx *ctx, struct base_buf *buf, struct sys_sample *s)
{
	if (ag_sys_read(ctx, buf, "/proc/net/softnet_stat") == 0)
		(void)ag_sys_parse_softnet(ag_sys_buf_span(buf), &s->softnet);
	if (ag_sys_read(ctx, buf, "/proc/net/snmp") == 0) {
		(void)ag_sys_parse_snmp(ag_sys_buf_span(buf), "Tcp", "OutSegs", &s->tcp_out);
		(void)ag_sys_parse_snmp(ag_sys_buf_span(buf), "Tcp", "RetransSegs", &s->tcp_retransmitted);
	}
	if (ag_sys_read(ctx, buf, "/proc/net/netstat") == 0)
		(void)ag_sys_parse_snmp(ag_sys_buf_span(buf), "TcpExt", "ListenOverflows", &s->listen_overflows);
}

/* ---- Processes ----------------------------------------------------------------------------------------------- */

static void read_process(const struct sys_ctx *ctx, const char *pid, struct sys_sample *s)
{
	struct sys_process p = { 0 };
	char text[4096], path[32];
	size_t n;
	int r;

	(void)snprintf(path, sizeof(path), "%.10s/stat", pid);
	if (ag_sys_read_at(ctx->proc_fd, path, text, sizeof(text), &n) < 0 ||
	    !ag_sys_parse_pid_stat(ag_sys_span(text, n), &p.stat))
		return;
	/* Kernel threads (children of number 2) do their input and output for others. */
	if (p.stat.ppid != 2 && p.stat.pid != 2) {
		(void)snprintf(path, sizeof(path), "%.10s/io", pid);
		r = ag_sys_read_at(ctx->proc_fd, path, text, sizeof(text), &n);
		p.has_io = r == 0 && ag_sys_keyed(ag_sys_span(text, n), "read_bytes", &p.read_bytes) &&
		           ag_sys_keyed(ag_sys_span(text, n), "write_bytes", &p.write_bytes);
		s->n_io_denied += r == -EACCES;
	}
	if (grow((void **)&s->processes, s->n_processes, sizeof(p), MAX_PROCESSES))
		s->processes[s->n_processes++] = p;
}

static int by_pid(const void *a, const void *b)
{
	const struct sys_process *x = a, *y = b;

	return x->stat.pid < y->stat.pid ? -1 : x->stat.pid > y->stat.pid;
}

static void read_processes(const struct sys_ctx *ctx, struct sys_sample *s)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/proc");
	const char *name;

	while (dir && (name = ag_sys_next_entry(dir))) {
		if (ag_sys_is_pid(name))
			read_process(ctx, name, s);
	}
	if (s->n_processes)
		qsort(s->processes, s->n_processes, sizeof(*s->processes), by_pid);
}

/* ---- Control groups (version 2) ------------------------------------------------------------------------------- */

static bool group_file(int dir, const char *name, char *text, size_t size, struct sys_span *ret)
{
	size_t n;

	if (ag_sys_read_at(dir, name, text, size, &n) < 0)
		return false;
	*ret = ag_sys_span(text, n);
	return true;
}

static void read_group(int dir, struct sys_cgroup *g)
{
	char text[8192];
	struct sys_span s;

	if (group_file(dir, "cpu.stat", text, sizeof(text), &s)) {
		(void)ag_sys_keyed(s, "usage_usec", &g->usage_us);
		(void)ag_sys_keyed(s, "nr_periods", &g->periods);
		(void)ag_sys_keyed(s, "nr_throttled", &g->throttled);
		(void)ag_sys_keyed(s, "throttled_usec", &g->throttled_us);
	}
	if (group_file(dir, "memory.events", text, sizeof(text), &s)) {
		(void)ag_sys_keyed(s, "high", &g->memory_high_events);
		(void)ag_sys_keyed(s, "oom_kill", &g->memory_oom_kills);
	}
	if (group_file(dir, "memory.current", text, sizeof(text), &s))
		(void)ag_sys_next_number(&s, &g->memory_bytes);
	if (group_file(dir, "cpu.pressure", text, sizeof(text), &s))
		(void)ag_sys_parse_pressure(s, &g->cpu);
	if (group_file(dir, "memory.pressure", text, sizeof(text), &s))
		(void)ag_sys_parse_pressure(s, &g->memory);
	if (group_file(dir, "io.pressure", text, sizeof(text), &s))
		(void)ag_sys_parse_pressure(s, &g->io);
}

/* Takes fd. The root itself is the machine, which the other counters tell. */
static void walk_groups(int fd, const char *path, unsigned depth, struct sys_sample *s)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		(void)close(fd);
		return;
	}
	if (depth > 0) {
		struct sys_cgroup g = { .path = strdup(path) };

		if (!g.path || !grow((void **)&s->cgroups, s->n_cgroups, sizeof(g), MAX_CGROUPS)) {
			free(g.path);
			return;
		}
		read_group(fd, &g);
		s->cgroups[s->n_cgroups++] = g;
	}
	while (depth < MAX_DEPTH && (e = readdir(dir))) {
		char below[4096];
		int child;

		if (e->d_name[0] == '.' || (e->d_type != DT_DIR && e->d_type != DT_UNKNOWN) ||
		    snprintf(below, sizeof(below), "%s/%s", path, e->d_name) >= (int)sizeof(below))
			continue;
		child = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (child >= 0)
			walk_groups(child, below, depth + 1, s);
	}
}

static void read_groups(const struct sys_ctx *ctx, struct sys_sample *s)
{
	static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
	char path[4096];

	for (size_t i = 0; i < 2; i++) {
		int fd;

		if (ag_sys_path(ctx, path, sizeof(path), "%s/cgroup.controllers", roots[i]) < 0 ||
		    access(path, F_OK) != 0 || ag_sys_path(ctx, path, sizeof(path), "%s", roots[i]) < 0)
			continue;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			continue;
		s->has_cgroups = true;
		walk_groups(fd, "", 0, s);
		return;
	}
}

static void read_pressures(const struct sys_ctx *ctx, struct base_buf *buf, struct sys_sample *s)
{
	static const char *const names[SYS_N_PRESSURES] = { "cpu", "memory", "io" };

	for (size_t i = 0; i < SYS_N_PRESSURES; i++)
		s->has_pressure[i] = ag_sys_read(ctx, buf, "/proc/pressure/%s", names[i]) == 0 &&
		                     ag_sys_parse_pressure(ag_sys_buf_span(buf), &s->pressure[i]);
}

int ag_sys_sample_take(const struct sys_ctx *ctx, struct sys_sample **ret)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(16 << 20);
	struct sys_sample *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	base_buf_init(&s->meminfo, 64 << 10);
	s->time_s = base_now_s();
	r = ag_sys_read(ctx, &buf, "/proc/stat");
	if (r == 0 && !ag_sys_parse_stat(ag_sys_buf_span(&buf), &s->stat))
		r = -EBADMSG;
	if (r < 0) {
		ag_sys_sample_free(s);
		return r;
	}
	read_pressures(ctx, &buf, s);
	(void)ag_sys_read(ctx, &s->meminfo, "/proc/meminfo");
	read_vm(ctx, &buf, &s->vm);
	read_schedstat(ctx, &buf, s);
	read_disks(ctx, &buf, s);
	read_nets(ctx, &buf, s);
	read_protocols(ctx, &buf, s);
	read_groups(ctx, s);
	read_processes(ctx, s);
	*ret = s;
	return 0;
}

void ag_sys_sample_free(struct sys_sample *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_cgroups; i++)
		free(s->cgroups[i].path);
	free(s->cgroups);
	free(s->processes);
	free(s->disks);
	free(s->nets);
	base_buf_done(&s->meminfo);
	ag_sys_stat_done(&s->stat);
	free(s);
}
