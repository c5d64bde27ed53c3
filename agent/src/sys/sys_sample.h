/* One moment of the machine's counters, as plain numbers; sys_perf.c looks at what lies between two of them. */
#ifndef AG_SYS_SAMPLE_H
#define AG_SYS_SAMPLE_H

#include "sys/sys_internal.h"

struct sys_process {
	struct sys_pid_stat stat;
	uint64_t read_bytes, write_bytes;
	bool has_io;
};

struct sys_cgroup {
	char *path; /* below the cgroup root, "/system.slice/x.service" */
	uint64_t usage_us, periods, throttled, throttled_us;
	uint64_t memory_bytes, memory_high_events, memory_oom_kills;
	struct sys_pressure cpu, memory, io;
};

enum sys_pressure_kind { SYS_PRESSURE_CPU, SYS_PRESSURE_MEMORY, SYS_PRESSURE_IO, SYS_N_PRESSURES };

struct sys_vm { /* /proc/vmstat; pages or events since boot */
	uint64_t swap_in, swap_out, major_faults, scan_direct, scan_kswapd, alloc_stall, oom_kills;
};

struct sys_sample {
	double time_s; /* monotonic */
	struct sys_stat stat;
	struct sys_pressure pressure[SYS_N_PRESSURES];
	bool has_pressure[SYS_N_PRESSURES];
	struct base_buf meminfo;
	struct sys_vm vm;
	uint64_t run_delay_ns;
	bool has_run_delay;
	struct sys_softnet softnet;
	uint64_t tcp_out, tcp_retransmitted, listen_overflows;
	struct sys_disk *disks;
	struct sys_netdev *nets;
	struct sys_process *processes; /* sorted by process number */
	struct sys_cgroup *cgroups;
	size_t n_disks, n_nets, n_processes, n_cgroups;
	size_t n_io_denied;
	bool has_cgroups;
};

/* What could not be read stays zero. Fails without memory and without /proc/stat. */
int ag_sys_sample_take(const struct sys_ctx *ctx, struct sys_sample **ret);
void ag_sys_sample_free(struct sys_sample *s);
/* What happened from a to b (later), into the section perf. */
void ag_sys_perf_between(const struct sys_ctx *ctx, const struct sys_sample *a, const struct sys_sample *b,
                         json_t *out);

#endif
