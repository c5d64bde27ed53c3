/* Tools that show the state of the system, read from /proc and statvfs(3). */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <mntent.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "tools/tools_internal.h"

enum { MAX_PROCESSES = 65536 };

struct process {
	uint32_t pid;
	uid_t uid;
	char state, name[32];
	uint64_t rss_kib, cpu_ms;
};

/* /proc/PID/stat: "pid (name) state ..."; the name may hold anything, so the last ')' ends it. */
static int parse_stat(char *text, struct process *p)
{
	char *open = strchr(text, '('), *close = strrchr(text, ')');
	uint64_t user, system;
	int64_t rss;
	long ticks = sysconf(_SC_CLK_TCK), page = sysconf(_SC_PAGESIZE);

	if (!open || !close || close < open || ticks <= 0)
		return -EBADMSG;
	*close = '\0';
	(void)snprintf(p->name, sizeof(p->name), "%s", open + 1);
	for (char *c = p->name; *c; c++) {
		if ((unsigned char)*c < 32 || (unsigned char)*c >= 127)
			*c = '?';
	}
	if (sscanf(close + 1,
	           " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64
	           " %*s %*s %*s %*s %*s %*s %*s %*s %" SCNd64,
	           &p->state, &user, &system, &rss) != 4)
		return -EBADMSG;
	p->cpu_ms = (user + system) * 1000 / (uint64_t)ticks;
	p->rss_kib = rss > 0 ? (uint64_t)rss * ((uint64_t)page / 1024) : 0;
	return 0;
}

static int read_process(const char *pid, struct process *p)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(8192);
	char path[64];
	struct stat st;

	(void)snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
	if (base_read_file(path, &text, NULL) < 0 || stat(path, &st) < 0)
		return -ENOENT; /* it ended meanwhile */
	p->pid = (uint32_t)strtoul(pid, NULL, 10);
	p->uid = st.st_uid;
	return text.data ? parse_stat(text.data, p) : -EBADMSG;
}

static int by_memory(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	return x->rss_kib != y->rss_kib ? (x->rss_kib > y->rss_kib ? -1 : 1) : (x->pid > y->pid) - (x->pid < y->pid);
}

static int by_cpu(const void *a, const void *b)
{
	const struct process *x = a, *y = b;

	return x->cpu_ms != y->cpu_ms ? (x->cpu_ms > y->cpu_ms ? -1 : 1) : (x->pid > y->pid) - (x->pid < y->pid);
}

static int read_processes(struct process **ret_list, size_t *ret_n)
{
	struct process *list = NULL;
	size_t n = 0, cap = 0;
	struct dirent *de;
	DIR *dir = opendir("/proc");
	int r = 0;

	if (!dir)
		return -errno;
	while (r == 0 && n < MAX_PROCESSES && (de = readdir(dir))) {
		if (de->d_name[0] < '1' || de->d_name[0] > '9')
			continue;
		if (n == cap) {
			struct process *longer = realloc(list, (cap = cap ? cap * 2 : 256) * sizeof(*list));

			if (!longer) {
				r = -ENOMEM;
				break;
			}
			list = longer;
		}
		if (read_process(de->d_name, &list[n]) == 0)
			n++;
	}
	(void)closedir(dir);
	if (r < 0) {
		free(list);
		return r;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

int ag_tools_list_processes(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	const char *sort = json_string_value(json_object_get(args, "sort"));
	CLEANUP(freep) struct process *list = NULL;
	uint32_t limit = 20;
	size_t n = 0;
	int r = base_json_opt_u32(args, "list_processes", "limit", &limit, err);

	(void)c;
	if (r < 0)
		return r;
	r = read_processes(&list, &n);
	if (r < 0)
		return err_set(err, r, "/proc: %s", strerror(-r));
	if (n)
		qsort(list, n, sizeof(*list), sort && strcmp(sort, "cpu") == 0 ? by_cpu : by_memory);
	(void)base_buf_printf(out, "%zu processes\n%8s %-16s S %12s %12s NAME\n", n, "PID", "USER", "RSS(KiB)",
	                      "CPU(s)");
	for (size_t i = 0; i < n && i < limit; i++) {
		const struct process *p = &list[i];
		const struct passwd *pw = getpwuid(p->uid);
		char uid[16];

		(void)snprintf(uid, sizeof(uid), "%u", (unsigned)p->uid);
		(void)base_buf_printf(out, "%8u %-16.16s %c %12" PRIu64 " %10" PRIu64 ".%" PRIu64 " %s\n",
		                      (unsigned)p->pid, pw ? pw->pw_name : uid, p->state, p->rss_kib, p->cpu_ms / 1000,
		                      p->cpu_ms % 1000 / 100, p->name);
	}
	return 0;
}

/* ---- File systems ----------------------------------------------------------------------------------------- */

static bool is_real(const char *type)
{
	static const char *const virtual[] = { "proc",      "sysfs",       "devtmpfs", "devpts",     "cgroup",
		                               "cgroup2",   "mqueue",      "debugfs",  "tracefs",    "securityfs",
		                               "pstore",    "bpf",         "autofs",   "configfs",   "fusectl",
		                               "hugetlbfs", "binfmt_misc", "efivarfs", "rpc_pipefs", "nsfs",
		                               "ramfs",     "selinuxfs" };

	for (size_t i = 0; i < sizeof(virtual) / sizeof(virtual[0]); i++) {
		if (strcmp(type, virtual[i]) == 0)
			return false;
	}
	return true;
}

static void put_file_system(struct base_buf *out, const char *source, const char *type, const char *dir)
{
	struct statvfs v;
	uint64_t unit, total, avail, used;

	if (statvfs(dir, &v) < 0 || v.f_blocks == 0)
		return;
	unit = v.f_frsize;
	total = v.f_blocks * unit >> 20;
	used = (v.f_blocks - v.f_bfree) * unit >> 20;
	avail = v.f_bavail * unit >> 20;
	(void)base_buf_printf(out, "%s on %s (%s): %" PRIu64 " MiB, used %" PRIu64 ", free %" PRIu64 ", %.1f %%",
	                      source, dir, type, total, used, avail,
	                      used + avail ? 100.0 * (double)used / (double)(used + avail) : 0.0);
	if (v.f_files)
		(void)base_buf_printf(out, "; inodes %.1f %%",
		                      100.0 * (double)(v.f_files - v.f_ffree) / (double)v.f_files);
	(void)base_buf_printf(out, "%s\n", v.f_flag & ST_RDONLY ? "; read-only" : "");
}

int ag_tools_disk_usage(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	const char *path = json_string_value(json_object_get(args, "path"));
	struct stat want, st;
	char buf[8192];
	struct mntent m;
	FILE *mounts;

	(void)c;
	if (path && stat(path, &want) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	mounts = setmntent("/proc/self/mounts", "re");
	if (!mounts)
		return err_set(err, -errno, "/proc/self/mounts: %s", strerror(errno));
	while (getmntent_r(mounts, &m, buf, sizeof(buf))) {
		if (path ? stat(m.mnt_dir, &st) < 0 || st.st_dev != want.st_dev : !is_real(m.mnt_type))
			continue;
		put_file_system(out, m.mnt_fsname, m.mnt_type, m.mnt_dir);
		if (path)
			break;
	}
	(void)endmntent(mounts);
	return 0;
}
