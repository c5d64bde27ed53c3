/* The cgroup half of base_cpu_count(), apart so that its parsing can be tested on files of our own. */
#ifndef BASE_CPU_INTERNAL_H
#define BASE_CPU_INTERNAL_H

/* Cores that the CPU quota of this process's cgroup (v2) and of its ancestors allows, rounded up; 0 when there is
 * no limit. `proc_cgroup` stands for /proc/self/cgroup, `mount` for /sys/fs/cgroup. */
unsigned base_cgroup_cpus(const char *proc_cgroup, const char *mount);

#endif
