/* Performance: two samples, and the rates, shares and latencies between them. Every number is a difference of the
 * kernel's own counters over the measured time; a counter that went backwards (a device replaced, a process number
 * used again) counts as nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sys/sys_sample.h"

enum { N_TOP = 5, N_GROUPS = 10 };

struct window {
	const struct sys_sample *a, *b;
	double seconds;
};

static double delta(uint64_t before, uint64_t after)
{
	return after > before ? (double)(after - before) : 0;
}

static double rate(const struct window *w, uint64_t before, uint64_t after)
{
	return delta(before, after) / w->seconds;
}

static double share(double part, double whole)
{
	return whole > 0 ? 100 * part / whole : 0;
}

/* ---- Processor --------------------------------------------------------------------------------------------- */

static double busy_percent(const struct sys_cpu_times *a, const struct sys_cpu_times *b)
{
	double total = delta(ag_sys_cpu_total(a), ag_sys_cpu_total(b));

	/* Idle time is counted by ticks and may run a little ahead of the total. */
	return total > 0 ? fmax(0, 100 - share(delta(a->idle, b->idle) + delta(a->iowait, b->iowait), total)) : 0;
}

static void put_cpu(const struct window *w, json_t *out)
{
	const struct sys_cpu_times *a = &w->a->stat.all, *b = &w->b->stat.all;
	double total = delta(ag_sys_cpu_total(a), ag_sys_cpu_total(b));
	double busiest = -1;
	unsigned which = 0;

	ag_sys_set_u64(out, "threads", w->b->stat.n_cpus);
	ag_sys_set_real(out, "busy_percent", busy_percent(a, b));
	ag_sys_set_real(out, "user_percent", share(delta(a->user, b->user) + delta(a->nice, b->nice), total));
	ag_sys_set_real(out, "system_percent", share(delta(a->system, b->system), total));
	ag_sys_set_real(out, "iowait_percent", share(delta(a->iowait, b->iowait), total));
	ag_sys_set_real(out, "irq_percent", share(delta(a->irq, b->irq) + delta(a->softirq, b->softirq), total));
	ag_sys_set_real(out, "steal_percent", share(delta(a->steal, b->steal), total));
	for (unsigned i = 0; i < w->b->stat.n_cpus && i < w->a->stat.n_cpus; i++) {
		double busy = busy_percent(&w->a->stat.cpus[i], &w->b->stat.cpus[i]);

		if (busy > busiest) {
			busiest = busy;
			which = i;
		}
	}
	if (busiest >= 0) {
		ag_sys_set_u64(out, "busiest_cpu", which);
		ag_sys_set_real(out, "busiest_percent", busiest);
	}
	ag_sys_set_real(out, "context_switches_per_s",
	                rate(w, w->a->stat.context_switches, w->b->stat.context_switches));
	ag_sys_set_real(out, "interrupts_per_s", rate(w, w->a->stat.interrupts, w->b->stat.interrupts));
	ag_sys_set_real(out, "forks_per_s", rate(w, w->a->stat.forks, w->b->stat.forks));
}

static void put_run_queue(const struct sys_ctx *ctx, const struct window *w, json_t *out)
{
	static const char *const keys[] = { "load1", "load5", "load15" };
	unsigned n_cpus = w->b->stat.n_cpus ? w->b->stat.n_cpus : 1;
	char line[128];
	char *p = line, *end;

	ag_sys_set_u64(out, "running", w->b->stat.running);
	ag_sys_set_u64(out, "blocked", w->b->stat.blocked);
	ag_sys_set_real(out, "running_per_cpu", (double)w->b->stat.running / n_cpus);
	if (w->a->has_run_delay && w->b->has_run_delay)
		ag_sys_set_real(out, "waiting_tasks", /* on average, over the window */
		                delta(w->a->run_delay_ns, w->b->run_delay_ns) / 1e9 / w->seconds);
	if (ag_sys_read_line(ctx, line, sizeof(line), "/proc/loadavg") < 0)
		return;
	for (size_t i = 0; i < 3; i++, p = end) {
		double v = strtod(p, &end);

		if (end == p)
			return;
		ag_sys_set_real(out, keys[i], v);
		if (i == 0)
			ag_sys_set_real(out, "load1_per_cpu", v / n_cpus);
	}
}

static void put_pressure_of(const struct window *w, const struct sys_pressure *a, const struct sys_pressure *b,
                            const char *name, json_t *out)
{
	char key[64];

	(void)snprintf(key, sizeof(key), "%s_some_percent", name);
	ag_sys_set_real(out, key, fmin(100, delta(a->some_us, b->some_us) / 1e4 / w->seconds));
	if (!b->has_full)
		return;
	(void)snprintf(key, sizeof(key), "%s_full_percent", name);
	ag_sys_set_real(out, key, fmin(100, delta(a->full_us, b->full_us) / 1e4 / w->seconds));
}

static void put_pressures(const struct window *w, json_t *perf)
{
	static const char *const names[SYS_N_PRESSURES] = { "cpu", "memory", "io" };
	json_t *out = ag_sys_object(perf, "pressure");
	bool any = false;

	for (size_t i = 0; i < SYS_N_PRESSURES; i++) {
		if (!w->a->has_pressure[i] || !w->b->has_pressure[i])
			continue;
		put_pressure_of(w, &w->a->pressure[i], &w->b->pressure[i], names[i], out);
		any = true;
	}
	if (!any)
		ag_sys_note(perf, "The kernel offers no pressure information (PSI): boot with psi=1.",
		            "内核没有提供压力信息(PSI):可用启动参数 psi=1 打开。", NULL);
}

/* ---- Memory -------------------------------------------------------------------------------------------------- */

static void put_memory(const struct window *w, json_t *out)
{
	static const char *const keys[][2] = {
		{ "MemTotal", "total_bytes" },      { "MemAvailable", "available_bytes" }, { "Dirty", "dirty_bytes" },
		{ "Writeback", "writeback_bytes" }, { "SUnreclaim", "slab_kept_bytes" },   { "Shmem", "shared_bytes" }
	};
	struct sys_span info = ag_sys_buf_span(&w->b->meminfo);
	uint64_t v, total = 0, available = 0, swap = 0, swap_free = 0;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (ag_sys_keyed(info, keys[i][0], &v) && v <= UINT64_MAX / 1024)
			ag_sys_set_u64(out, keys[i][1], v * 1024);
	}
	if (ag_sys_keyed(info, "MemTotal", &total) && ag_sys_keyed(info, "MemAvailable", &available))
		ag_sys_set_real(out, "available_percent", share((double)available, (double)total));
	if (ag_sys_keyed(info, "SwapTotal", &swap) && ag_sys_keyed(info, "SwapFree", &swap_free) && swap >= swap_free &&
	    swap <= UINT64_MAX / 1024) {
		ag_sys_set_u64(out, "swap_total_bytes", swap * 1024);
		ag_sys_set_u64(out, "swap_used_bytes", (swap - swap_free) * 1024);
		ag_sys_set_real(out, "swap_used_percent", share((double)(swap - swap_free), (double)swap));
	}
	ag_sys_set_real(out, "swap_in_pages_per_s", rate(w, w->a->vm.swap_in, w->b->vm.swap_in));
	ag_sys_set_real(out, "swap_out_pages_per_s", rate(w, w->a->vm.swap_out, w->b->vm.swap_out));
	ag_sys_set_real(out, "major_faults_per_s", rate(w, w->a->vm.major_faults, w->b->vm.major_faults));
	ag_sys_set_real(out, "direct_reclaim_pages_per_s", rate(w, w->a->vm.scan_direct, w->b->vm.scan_direct));
	ag_sys_set_real(out, "kswapd_pages_per_s", rate(w, w->a->vm.scan_kswapd, w->b->vm.scan_kswapd));
	ag_sys_set_real(out, "alloc_stalls_per_s", rate(w, w->a->vm.alloc_stall, w->b->vm.alloc_stall));
	ag_sys_set_u64(out, "oom_kills", (uint64_t)delta(w->a->vm.oom_kills, w->b->vm.oom_kills));
	ag_sys_set_u64(out, "oom_kills_since_boot", w->b->vm.oom_kills);
}

/* ---- Disks and network ----------------------------------------------------------------------------------------- */

static json_t *disk_between(const struct window *w, const struct sys_disk *a, const struct sys_disk *b)
{
	json_t *out = json_object();
	double reads = delta(a->reads, b->reads), writes = delta(a->writes, b->writes), ms = w->seconds * 1000;

	ag_sys_set_text(out, "name", b->name);
	ag_sys_set_real(out, "util_percent", fmin(100, 100 * delta(a->busy_ms, b->busy_ms) / ms));
	ag_sys_set_real(out, "queue", delta(a->queue_ms, b->queue_ms) / ms);
	ag_sys_set_real(out, "read_ms", reads > 0 ? delta(a->read_ms, b->read_ms) / reads : 0);
	ag_sys_set_real(out, "write_ms", writes > 0 ? delta(a->write_ms, b->write_ms) / writes : 0);
	ag_sys_set_real(out, "reads_per_s", reads / w->seconds);
	ag_sys_set_real(out, "writes_per_s", writes / w->seconds);
	ag_sys_set_real(out, "read_bytes_per_s", 512 * rate(w, a->sectors_read, b->sectors_read));
	ag_sys_set_real(out, "write_bytes_per_s", 512 * rate(w, a->sectors_written, b->sectors_written));
	return out;
}

static void put_disks(const struct window *w, json_t *out)
{
	for (size_t i = 0; i < w->b->n_disks; i++) {
		for (size_t k = 0; k < w->a->n_disks; k++) {
			if (strcmp(w->a->disks[k].name, w->b->disks[i].name) != 0)
				continue;
			ag_sys_append_take(out, disk_between(w, &w->a->disks[k], &w->b->disks[i]));
			break;
		}
	}
}

static json_t *net_between(const struct window *w, const struct sys_netdev *a, const struct sys_netdev *b)
{
	json_t *out = json_object();

	ag_sys_set_text(out, "name", b->name);
	ag_sys_set_real(out, "rx_bytes_per_s", rate(w, a->rx_bytes, b->rx_bytes));
	ag_sys_set_real(out, "tx_bytes_per_s", rate(w, a->tx_bytes, b->tx_bytes));
	ag_sys_set_real(out, "rx_packets_per_s", rate(w, a->rx_packets, b->rx_packets));
	ag_sys_set_real(out, "drops_per_s", rate(w, a->rx_drops, b->rx_drops) + rate(w, a->tx_drops, b->tx_drops));
	ag_sys_set_real(out, "errors_per_s", rate(w, a->rx_errors, b->rx_errors) + rate(w, a->tx_errors, b->tx_errors));
	return out;
}

static void put_network(const struct window *w, json_t *perf)
{
	json_t *nets = ag_sys_array(perf, "networks"), *stack = ag_sys_object(perf, "network_stack");
	double sent = delta(w->a->tcp_out, w->b->tcp_out);

	for (size_t i = 0; i < w->b->n_nets; i++) {
		for (size_t k = 0; k < w->a->n_nets; k++) {
			if (strcmp(w->a->nets[k].name, w->b->nets[i].name) != 0)
				continue;
			ag_sys_append_take(nets, net_between(w, &w->a->nets[k], &w->b->nets[i]));
			break;
		}
	}
	ag_sys_set_real(stack, "softnet_packets_per_s", rate(w, w->a->softnet.processed, w->b->softnet.processed));
	ag_sys_set_real(stack, "softnet_drops_per_s", rate(w, w->a->softnet.dropped, w->b->softnet.dropped));
	ag_sys_set_real(stack, "softnet_squeezed_per_s", rate(w, w->a->softnet.squeezed, w->b->softnet.squeezed));
	ag_sys_set_real(stack, "tcp_segments_per_s", sent / w->seconds);
	/* A few resent segments of a few are no finding. */
	ag_sys_set_real(stack, "tcp_retransmitted_percent",
	                sent >= 100 ? share(delta(w->a->tcp_retransmitted, w->b->tcp_retransmitted), sent) : 0);
	ag_sys_set_real(stack, "listen_overflows_per_s", rate(w, w->a->listen_overflows, w->b->listen_overflows));
}

/* ---- Processes --------------------------------------------------------------------------------------------------- */

struct usage {
	const struct sys_process *p;
	double cpu_percent, read_per_s, write_per_s, rss_bytes;
};

static int by_cpu(const void *a, const void *b)
{
	double x = ((const struct usage *)a)->cpu_percent, y = ((const struct usage *)b)->cpu_percent;

	return x > y ? -1 : x < y;
}

static int by_rss(const void *a, const void *b)
{
	double x = ((const struct usage *)a)->rss_bytes, y = ((const struct usage *)b)->rss_bytes;

	return x > y ? -1 : x < y;
}

static int by_io(const void *a, const void *b)
{
	const struct usage *x = a, *y = b;
	double u = x->read_per_s + x->write_per_s, v = y->read_per_s + y->write_per_s;

	return u > v ? -1 : u < v;
}

static json_t *usage_object(const struct usage *u)
{
	char state[2] = { u->p->stat.state, '\0' };
	json_t *out = json_object();

	ag_sys_set_u64(out, "pid", u->p->stat.pid);
	ag_sys_set_text(out, "name", u->p->stat.comm);
	ag_sys_set_real(out, "cpu_percent", u->cpu_percent);
	ag_sys_set_u64(out, "rss_bytes", (uint64_t)u->rss_bytes);
	if (u->p->has_io) {
		ag_sys_set_real(out, "read_bytes_per_s", u->read_per_s);
		ag_sys_set_real(out, "write_bytes_per_s", u->write_per_s);
	}
	ag_sys_set_text(out, "state", state);
	return out;
}

/* Both arrays are sorted by number: one walk pairs them. A number used again has another start time. */
static size_t pair_processes(const struct window *w, struct usage *list)
{
	double tick = (double)sysconf(_SC_CLK_TCK), page = (double)sysconf(_SC_PAGESIZE);
	size_t k = 0;

	for (size_t i = 0; i < w->b->n_processes; i++) {
		const struct sys_process *b = &w->b->processes[i], *a;
		struct usage u = { .p = b, .rss_bytes = (double)b->stat.rss_pages * page };

		while (k < w->a->n_processes && w->a->processes[k].stat.pid < b->stat.pid)
			k++;
		a = k < w->a->n_processes ? &w->a->processes[k] : NULL;
		if (a && a->stat.pid == b->stat.pid && a->stat.start_time == b->stat.start_time) {
			u.cpu_percent = 100 *
			                (delta(a->stat.utime, b->stat.utime) + delta(a->stat.stime, b->stat.stime)) /
			                tick / w->seconds;
			if (a->has_io && b->has_io) {
				u.read_per_s = rate(w, a->read_bytes, b->read_bytes);
				u.write_per_s = rate(w, a->write_bytes, b->write_bytes);
			}
		}
		list[i] = u;
	}
	return w->b->n_processes;
}

static void put_top(struct usage *list, size_t n, int (*order)(const void *, const void *), json_t *out)
{
	static const struct sys_process nobody;
	const struct usage nothing = { .p = &nobody };

	qsort(list, n, sizeof(*list), order);
	for (size_t i = 0; i < n && i < N_TOP && order(&list[i], &nothing) < 0; i++)
		ag_sys_append_take(out, usage_object(&list[i]));
}

static void put_processes(const struct window *w, json_t *perf)
{
	CLEANUP(freep) struct usage *list = calloc(w->b->n_processes + 1, sizeof(*list));
	json_t *counts = ag_sys_object(perf, "processes");
	uint64_t states[128] = { 0 }, threads = 0;
	size_t n;

	if (!list)
		return;
	n = pair_processes(w, list);
	for (size_t i = 0; i < n; i++) {
		states[list[i].p->stat.state & 127]++;
		threads += list[i].p->stat.threads;
	}
	ag_sys_set_u64(counts, "total", n);
	ag_sys_set_u64(counts, "threads", threads);
	ag_sys_set_u64(counts, "uninterruptible", states['D']);
	ag_sys_set_u64(counts, "zombies", states['Z']);
	put_top(list, n, by_cpu, ag_sys_array(perf, "top_cpu"));
	if (n) {
		ag_sys_set_text(counts, "busiest_name", list[0].p->stat.comm);
		ag_sys_set_u64(counts, "busiest_pid", list[0].p->stat.pid);
		ag_sys_set_real(counts, "busiest_percent", list[0].cpu_percent);
	}
	put_top(list, n, by_rss, ag_sys_array(perf, "top_memory"));
	if (n) {
		ag_sys_set_text(counts, "largest_name", list[0].p->stat.comm);
		ag_sys_set_u64(counts, "largest_pid", list[0].p->stat.pid);
		ag_sys_set_u64(counts, "largest_rss_bytes", (uint64_t)list[0].rss_bytes);
	}
	put_top(list, n, by_io, ag_sys_array(perf, "top_io"));
	if (w->b->n_io_denied)
		ag_sys_note(perf, "The disk traffic of {n} processes of other users can only be seen by root.",
		            "有 {n} 个其他用户的进程,其磁盘读写只有 root 能看到。",
		            json_pack("{s:I}", "n", (json_int_t)w->b->n_io_denied));
}

/* ---- Control groups ---- */

static json_t *group_between(const struct window *w, const struct sys_cgroup *a, const struct sys_cgroup *b)
{
	json_t *out = json_object();

	ag_sys_set_text(out, "path", b->path);
	ag_sys_set_real(out, "cpu_percent", delta(a->usage_us, b->usage_us) / 1e4 / w->seconds);
	ag_sys_set_real(out, "throttled_percent",
	                share(delta(a->throttled, b->throttled), delta(a->periods, b->periods)));
	ag_sys_set_real(out, "throttled_ms", delta(a->throttled_us, b->throttled_us) / 1000);
	ag_sys_set_u64(out, "memory_bytes", b->memory_bytes);
	ag_sys_set_u64(out, "memory_high_events", (uint64_t)delta(a->memory_high_events, b->memory_high_events));
	ag_sys_set_u64(out, "oom_kills", (uint64_t)delta(a->memory_oom_kills, b->memory_oom_kills));
	put_pressure_of(w, &a->cpu, &b->cpu, "cpu", out);
	put_pressure_of(w, &a->memory, &b->memory, "memory", out);
	put_pressure_of(w, &a->io, &b->io, "io", out);
	return out;
}

static double group_trouble(const json_t *g)
{
	static const char *const keys[] = { "cpu_percent",    "throttled_percent", "memory_high_events",
		                            "oom_kills",      "cpu_some_percent",  "memory_some_percent",
		                            "io_some_percent" };
	double sum = 0;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		sum += json_number_value(json_object_get(g, keys[i]));
	return sum;
}

static int by_trouble(const void *a, const void *b)
{
	double x = group_trouble(*(json_t *const *)a), y = group_trouble(*(json_t *const *)b);

	return x > y ? -1 : x < y;
}

static void put_groups(const struct window *w, json_t *perf)
{
	CLEANUP(freep) json_t **list = calloc(w->b->n_cgroups + 1, sizeof(json_t *));
	json_t *out;
	size_t n = 0;

	if (!w->b->has_cgroups) {
		ag_sys_note(perf, "There is no cgroup version 2 hierarchy: groups were not looked at.",
		            "没有 cgroup v2 层级:未检查控制组。", NULL);
		return;
	}
	out = ag_sys_array(perf, "cgroups");
	for (size_t i = 0, k = 0; list && i < w->b->n_cgroups; i++) {
		/* The walk goes the same way twice: look behind the last match first. */
		for (size_t tries = 0; tries < w->a->n_cgroups; tries++, k++) {
			if (k >= w->a->n_cgroups)
				k = 0;
			if (strcmp(w->a->cgroups[k].path, w->b->cgroups[i].path) == 0) {
				list[n] = group_between(w, &w->a->cgroups[k], &w->b->cgroups[i]);
				n += list[n] != NULL;
				break;
			}
		}
	}
	if (n)
		qsort(list, n, sizeof(*list), by_trouble);
	for (size_t i = 0; i < n; i++) {
		if (i < N_GROUPS)
			ag_sys_append_take(out, list[i]);
		else
			json_decref(list[i]);
	}
}

/* ---- The whole ---- */

/* Sleeps in short pieces, so that Ctrl-C is answered. */
static void wait_seconds(const struct sys_ctx *ctx, double seconds)
{
	struct timespec now, piece;
	double end, left;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	end = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 + seconds;
	for (;;) {
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
		left = end - (double)now.tv_sec - (double)now.tv_nsec * 1e-9;
		if (left <= 0 || (ctx->opt->cancel && *ctx->opt->cancel))
			return;
		left = fmin(left, 0.1);
		piece = (struct timespec){ 0, (long)(left * 1e9) };
		(void)nanosleep(&piece, NULL);
	}
}

void ag_sys_perf_between(const struct sys_ctx *ctx, const struct sys_sample *a, const struct sys_sample *b, json_t *out)
{
	const struct window w = { a, b, fmax(b->time_s - a->time_s, 0.001) };

	ag_sys_set_real(out, "seconds", w.seconds);
	put_cpu(&w, ag_sys_object(out, "cpu"));
	put_run_queue(ctx, &w, ag_sys_object(out, "run_queue"));
	put_pressures(&w, out);
	put_memory(&w, ag_sys_object(out, "memory"));
	put_disks(&w, ag_sys_array(out, "disks"));
	put_network(&w, out);
	put_processes(&w, out);
	put_groups(&w, out);
}

void ag_sys_perf(const struct sys_ctx *ctx, json_t *out)
{
	struct sys_sample *a = NULL, *b = NULL;

	if (ag_sys_sample_take(ctx, &a) < 0) {
		ag_sys_note(out, "/proc/stat cannot be read: nothing can be measured.",
		            "无法读取 /proc/stat:无法测量。", NULL);
		return;
	}
	wait_seconds(ctx, ctx->opt->seconds > 0 ? ctx->opt->seconds : 10);
	if (ag_sys_sample_take(ctx, &b) == 0)
		ag_sys_perf_between(ctx, a, b, out);
	ag_sys_sample_free(a);
	ag_sys_sample_free(b);
}
