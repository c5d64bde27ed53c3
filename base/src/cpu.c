/* How many cores this process may use: the affinity mask, then the tightest cgroup v2 quota on the way from our
 * group to the root ("cpu.max": "QUOTA PERIOD" in microseconds or "max PERIOD"; Documentation/admin-guide/
 * cgroup-v2.rst). A quota of one and a half cores counts as two: the half would be lost otherwise. */
#include "cpu_internal.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/threadpool.h"

static unsigned affinity_cpus(void)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);

	/* The kernel refuses a mask shorter than its own, whose size it does not tell. */
	for (int n = 1024; n <= 1 << 20; n *= 2) {
		cpu_set_t *set = CPU_ALLOC((size_t)n);
		size_t size = CPU_ALLOC_SIZE((size_t)n);
		int count = 0;

		if (!set)
			break;
		if (sched_getaffinity(0, size, set) == 0)
			count = CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (count > 0)
			return (unsigned)count;
	}
	return online > 0 ? (unsigned)online : 1;
}

/* The "0::PATH" line; 0, or -1 when this is no cgroup v2 system. */
static int own_cgroup(const char *proc_cgroup, char *path, size_t size)
{
	FILE *f = fopen(proc_cgroup, "re");
	char line[PATH_MAX];
	int r = -1;

	if (!f)
		return -1;
	while (r < 0 && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "0::/", 4) == 0 && snprintf(path, size, "%s", line + 3) < (int)size)
			r = 0;
	}
	(void)fclose(f);
	return r;
}

/* Cores allowed by one group's cpu.max, 0 for no limit. */
static unsigned quota_of(const char *mount, const char *group)
{
	unsigned long long quota, period, cores;
	char path[PATH_MAX];
	int n;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s%s/cpu.max", mount, group) >= (int)sizeof(path))
		return 0;
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fscanf(f, "%llu %llu", &quota, &period);
	(void)fclose(f);
	if (n != 2 || quota == 0 || period == 0)
		return 0;
	cores = quota / period + (quota % period != 0);
	return cores > UINT_MAX ? 0 : (unsigned)cores;
}

unsigned base_cgroup_cpus(const char *proc_cgroup, const char *mount)
{
	char group[PATH_MAX];
	unsigned least = 0;

	if (own_cgroup(proc_cgroup, group, sizeof(group)) < 0)
		return 0;
	for (;;) {
		char *slash = strrchr(group, '/');
		unsigned cores = quota_of(mount, group);

		if (cores && (!least || cores < least))
			least = cores;
		if (!slash)
			return least;
		*slash = '\0'; /* the root is the empty path, reached last */
	}
}

unsigned base_cpu_count(void)
{
	unsigned cpus = affinity_cpus();
	unsigned quota = base_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");

	return quota && quota < cpus ? quota : cpus;
}
