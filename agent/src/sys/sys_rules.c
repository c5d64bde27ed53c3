/* Findings: a table of rules over the document of facts.
 *
 * A rule looks at one number of an object, or of each object in a list. Above (or below) its first threshold it is a
 * warning, from the second on critical; a rule with `also` needs a second number too, so that a high latency of one
 * request or a long queue of an idle disk says nothing. Severity orders first, then how far the threshold was passed.
 * Thresholds are those of the usual practice for servers: PSI above 10 % means that work waits noticeably, a disk at
 * 90 % has no room left, steal above 10 % is another guest's load. Numbers in the sentences are the facts' own. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "sys/sys_internal.h"

enum { MAX_FINDINGS = 200 };

struct rule {
	const char *id;
	const char *where;  /* path of an object, or of a list of objects */
	const char *metric; /* its number; "#" is the list's length */
	double warn, critical;
	bool below; /* low is bad */
	const char *also;
	double also_at_least;
	const char *en, *zh;
	const char *next; /* commands that only read, separated by newlines */
};

#define NEVER 1e18

static const struct rule rules[] = {
	{ "oom-kill-now", "perf.memory", "oom_kills", 1, 1, false, NULL, 0,
	  "The kernel killed {oom_kills} processes for lack of memory during the sample.",
	  "采样期间内核因内存不足杀死了 {oom_kills} 个进程。",
	  "journalctl -k -b -g 'Out of memory|oom-kill'\nocai sys logs" },
	{ "oom-kill-boot", "perf.memory", "oom_kills_since_boot", 1, NEVER, false, NULL, 0,
	  "Since boot the kernel has killed {oom_kills_since_boot} processes for lack of memory.",
	  "开机以来内核因内存不足杀死了 {oom_kills_since_boot} 个进程。",
	  "journalctl -k -b -g 'Out of memory|oom-kill'" },
	{ "memory-low", "perf.memory", "available_percent", 10, 4, true, "total_bytes", 1,
	  "Only {available_bytes} of {total_bytes} memory is available ({available_percent} %); the largest process is "
	  "{perf.processes.largest_name} ({perf.processes.largest_pid}) with {perf.processes.largest_rss_bytes}.",
	  "可用内存只剩 {available_bytes}(共 {total_bytes},{available_percent}%);最大的进程是 "
	  "{perf.processes.largest_name}({perf.processes.largest_pid}),占 {perf.processes.largest_rss_bytes}。",
	  "ps -eo pid,rss,comm --sort=-rss | head\nfree -h" },
	{ "memory-pressure", "perf.pressure", "memory_some_percent", 10, 30, false, NULL, 0,
	  "Tasks waited for memory {memory_some_percent} % of the time (all of them: {memory_full_percent} %).",
	  "任务有 {memory_some_percent}% 的时间在等内存(全部任务同时等:{memory_full_percent}%)。",
	  "cat /proc/pressure/memory\nvmstat 1 5" },
	{ "swapping", "perf.memory", "swap_in_pages_per_s", 100, 2000, false, "swap_total_bytes", 1,
	  "The machine is reading from swap: {swap_in_pages_per_s} pages/s in, {swap_out_pages_per_s} pages/s out.",
	  "正在频繁换页:换入 {swap_in_pages_per_s} 页/秒,换出 {swap_out_pages_per_s} 页/秒。",
	  "vmstat 1 5\ngrep -H VmSwap /proc/[0-9]*/status" },
	{ "swap-full", "perf.memory", "swap_used_percent", 80, 95, false, "swap_total_bytes", 1,
	  "Swap is {swap_used_percent} % full ({swap_used_bytes} of {swap_total_bytes}).",
	  "交换空间已用 {swap_used_percent}%({swap_used_bytes} / {swap_total_bytes})。", "swapon --show\nfree -h" },
	{ "direct-reclaim", "perf.memory", "direct_reclaim_pages_per_s", 1000, 50000, false, NULL, 0,
	  "Processes must free memory themselves before they get some: {direct_reclaim_pages_per_s} pages/s scanned.",
	  "进程申请内存时被迫自己回收:每秒扫描 {direct_reclaim_pages_per_s} 页。",
	  "vmstat 1 5\ngrep -E 'pgscan|allocstall' /proc/vmstat" },
	{ "major-faults", "perf.memory", "major_faults_per_s", 500, 5000, false, NULL, 0,
	  "Programs wait for their own pages from disk: {major_faults_per_s} major faults/s.",
	  "程序在等待从磁盘读入自己的页面:每秒 {major_faults_per_s} 次主缺页。",
	  "ps -eo pid,maj_flt,comm --sort=-maj_flt | head" },
	{ "cpu-busy", "perf.cpu", "busy_percent", 90, 99, false, NULL, 0,
	  "The processors are {busy_percent} % busy (user {user_percent} %, system {system_percent} %), most "
	  "by {perf.processes.busiest_name} ({perf.processes.busiest_pid}) with {perf.processes.busiest_percent} % of "
	  "one.",
	  "CPU 忙碌 {busy_percent}%(用户态 {user_percent}%,内核态 {system_percent}%),占用最多的是 "
	  "{perf.processes.busiest_name}({perf.processes.busiest_pid}),为单核的 {perf.processes.busiest_percent}%。",
	  "ps -eo pid,pcpu,comm --sort=-pcpu | head\ntop -b -n 1 | head -20" },
	{ "cpu-one-full", "perf.cpu", "busiest_percent", 98, NEVER, false, NULL, 0,
	  "Processor {busiest_cpu} is {busiest_percent} % busy (all together: {busy_percent} %).",
	  "CPU {busiest_cpu} 忙碌 {busiest_percent}%(整体 {busy_percent}%)。",
	  "mpstat -P ALL 1 3\nps -eLo pid,psr,pcpu,comm --sort=-pcpu | head" },
	{ "cpu-pressure", "perf.pressure", "cpu_some_percent", 25, 70, false, NULL, 0,
	  "Tasks waited for a processor {cpu_some_percent} % of the time.",
	  "任务有 {cpu_some_percent}% 的时间在等 CPU。",
	  "cat /proc/pressure/cpu\nps -eo pid,pcpu,comm --sort=-pcpu | head" },
	{ "run-queue", "perf.run_queue", "running_per_cpu", 2, 8, false, "running", 4,
	  "{running} tasks want to run: {running_per_cpu} per processor.",
	  "有 {running} 个任务要运行:平均每个 CPU {running_per_cpu} 个。", "ps -eo state,pid,comm | grep ^R\nuptime" },
	{ "steal", "perf.cpu", "steal_percent", 10, 30, false, NULL, 0,
	  "The host takes {steal_percent} % of this guest's processor time.",
	  "宿主机占走了本虚拟机 {steal_percent}% 的 CPU 时间。", "vmstat 1 5" },
	{ "softirq", "perf.cpu", "irq_percent", 15, 40, false, NULL, 0,
	  "Interrupts take {irq_percent} % of the processors' time.", "中断占用了 {irq_percent}% 的 CPU 时间。",
	  "cat /proc/softirqs\ncat /proc/interrupts" },
	{ "system-time", "perf.cpu", "system_percent", 40, 80, false, NULL, 0,
	  "The kernel itself uses {system_percent} % of the processors' time.",
	  "内核态占用了 {system_percent}% 的 CPU 时间。", "perf top -g\npidstat -u 1 3" },
	{ "iowait", "perf.cpu", "iowait_percent", 20, 60, false, NULL, 0,
	  "Processors stood idle for disks {iowait_percent} % of the time.",
	  "CPU 有 {iowait_percent}% 的时间空闲等待磁盘。", "iostat -x 1 3\nps -eo state,pid,comm | grep ^D" },
	{ "io-pressure", "perf.pressure", "io_some_percent", 20, 60, false, NULL, 0,
	  "Tasks waited for input and output {io_some_percent} % of the time (all of them: {io_full_percent} %).",
	  "任务有 {io_some_percent}% 的时间在等 I/O(全部任务同时等:{io_full_percent}%)。",
	  "cat /proc/pressure/io\niostat -x 1 3" },
	{ "blocked", "perf.processes", "uninterruptible", 5, 50, false, NULL, 0,
	  "{uninterruptible} processes are in uninterruptible sleep (state D).",
	  "有 {uninterruptible} 个进程处于不可中断睡眠(D 状态)。", "ps -eo state,pid,wchan:32,comm | grep ^D" },
	{ "zombies", "perf.processes", "zombies", 20, NEVER, false, NULL, 0,
	  "{zombies} processes have ended and nobody has asked for their status.", "有 {zombies} 个僵尸进程。",
	  "ps -eo state,pid,ppid,comm | grep ^Z" },
	{ "disk-busy", "perf.disks", "util_percent", 90, 99, false, "queue", 1,
	  "Disk {name} is {util_percent} % busy with {queue} requests waiting on average (read {read_ms} ms, write "
	  "{write_ms} ms).",
	  "磁盘 {name} 忙碌 {util_percent}%,平均排队 {queue} 个请求(读 {read_ms} 毫秒,写 {write_ms} 毫秒)。",
	  "iostat -x 1 3\npidstat -d 1 3" },
	{ "disk-read-slow", "perf.disks", "read_ms", 30, 200, false, "reads_per_s", 5,
	  "Reads from disk {name} take {read_ms} ms on average ({reads_per_s} per second).",
	  "磁盘 {name} 的读平均耗时 {read_ms} 毫秒(每秒 {reads_per_s} 次)。",
	  "iostat -x 1 3\njournalctl -k -b -p err" },
	{ "disk-write-slow", "perf.disks", "write_ms", 60, 500, false, "writes_per_s", 5,
	  "Writes to disk {name} take {write_ms} ms on average ({writes_per_s} per second).",
	  "磁盘 {name} 的写平均耗时 {write_ms} 毫秒(每秒 {writes_per_s} 次)。",
	  "iostat -x 1 3\njournalctl -k -b -p err" },
	{ "net-drops", "perf.networks", "drops_per_s", 1, 100, false, NULL, 0,
	  "Interface {name} drops {drops_per_s} packets/s.", "网卡 {name} 每秒丢包 {drops_per_s} 个。",
	  "ip -s -s link show\nethtool -S {name}" },
	{ "net-errors", "perf.networks", "errors_per_s", 0.1, 10, false, NULL, 0,
	  "Interface {name} has {errors_per_s} errors/s: look at cable, optics and driver.",
	  "网卡 {name} 每秒出错 {errors_per_s} 次:检查线缆、光模块和驱动。", "ethtool -S {name}\nip -s -s link show" },
	{ "softnet-drops", "perf.network_stack", "softnet_drops_per_s", 0.1, 100, false, NULL, 0,
	  "The kernel's receive queue drops {softnet_drops_per_s} packets/s.",
	  "内核接收队列每秒丢包 {softnet_drops_per_s} 个。",
	  "cat /proc/net/softnet_stat\nsysctl net.core.netdev_max_backlog" },
	{ "tcp-resent", "perf.network_stack", "tcp_retransmitted_percent", 2, 10, false, NULL, 0,
	  "{tcp_retransmitted_percent} % of the TCP segments sent were sent again.",
	  "TCP 重传率 {tcp_retransmitted_percent}%。", "ss -ti\nnstat -az TcpRetransSegs" },
	{ "listen-overflow", "perf.network_stack", "listen_overflows_per_s", 0.1, 10, false, NULL, 0,
	  "A service accepts too slowly: {listen_overflows_per_s} connections/s were refused at its full queue.",
	  "有服务来不及接受连接:监听队列已满,每秒丢弃 {listen_overflows_per_s} 个连接。",
	  "ss -ltn\nnstat -az TcpExtListenOverflows" },
	{ "cgroup-throttled", "perf.cgroups", "throttled_percent", 10, 50, false, NULL, 0,
	  "Group {path} hits its CPU quota in {throttled_percent} % of the periods ({throttled_ms} ms lost).",
	  "控制组 {path} 在 {throttled_percent}% 的周期内触及 CPU 限额(损失 {throttled_ms} 毫秒)。",
	  "cat /sys/fs/cgroup{path}/cpu.max\ncat /sys/fs/cgroup{path}/cpu.stat" },
	{ "cgroup-memory-high", "perf.cgroups", "memory_high_events", 1, 1000, false, NULL, 0,
	  "Group {path} was slowed down {memory_high_events} times at its memory.high ({memory_bytes} in use).",
	  "控制组 {path} 触及 memory.high {memory_high_events} 次(正在使用 {memory_bytes})。",
	  "cat /sys/fs/cgroup{path}/memory.high\ncat /sys/fs/cgroup{path}/memory.events" },
	{ "cgroup-oom", "perf.cgroups", "oom_kills", 1, 1, false, NULL, 0,
	  "{oom_kills} processes of group {path} were killed at its memory limit.",
	  "控制组 {path} 有 {oom_kills} 个进程因内存限额被杀死。",
	  "cat /sys/fs/cgroup{path}/memory.max\ncat /sys/fs/cgroup{path}/memory.events" },
	{ "mount-full", "storage.mounts", "used_percent", 90, 97, false, "size_bytes", 1,
	  "{point} is {used_percent} % full: {available_bytes} of {size_bytes} left ({source}).",
	  "{point} 已用 {used_percent}%:剩余 {available_bytes} / {size_bytes}({source})。",
	  "du -xh --max-depth=1 {point} | sort -h\nocai sys storage" },
	{ "mount-inodes", "storage.mounts", "inodes_used_percent", 90, 98, false, NULL, 0,
	  "{point} has used {inodes_used_percent} % of its inodes.", "{point} 的 inode 已用 {inodes_used_percent}%。",
	  "df -i {point}\ndu --inodes -xd 1 {point} | sort -n" },
	{ "deleted-open", "storage.deleted_open", "bytes", 1073741824.0, 10737418240.0, false, NULL, 0,
	  "{files} deleted files are still open; their room cannot be reused before the processes close them.",
	  "有 {files} 个已删除的文件仍被打开,进程关闭之前空间无法释放。", "lsof +L1\nocai sys storage" },
	{ "raid-degraded", "storage.block_devices", "missing_members", 1, 1, false, NULL, 0,
	  "Array {name} ({kind}) lacks {missing_members} members.",
	  "阵列 {name}({kind})缺少 {missing_members} 个成员盘。", "cat /proc/mdstat\nmdadm --detail /dev/{name}" },
	{ "units-failed", "services.failed", "#", 1, NEVER, false, NULL, 0, "{#} units have failed: {list}.",
	  "有 {#} 个单元失败:{list}。", "systemctl --failed\nocai sys services" },
	{ "oom-in-journal", "logs.oom_kills", "#", 1, 10, false, NULL, 0,
	  "The journal of this boot records {#} kills for lack of memory: {list}.",
	  "本次启动的日志中有 {#} 次因内存不足的杀进程:{list}。", "journalctl -k -b -g 'Killed process'" },
	{ "error-flood", "logs.errors", "count", 100, 10000, false, NULL, 0,
	  "{unit} logged one error {count} times: {message}", "{unit} 把同一个错误记录了 {count} 次:{message}",
	  "journalctl -b -p err -u {unit}" },
	{ "interface-drops", "network.interfaces", "rx_drop_percent", 0.5, 5, false, "rx_packets", 10000,
	  "Interface {name} has dropped {rx_drop_percent} % of what it received ({rx_drops} packets).",
	  "网卡 {name} 丢弃了收到的 {rx_drop_percent}% 的包({rx_drops} 个)。",
	  "ip -s -s link show\nethtool -S {name}" },
	{ "failed-logins", "users.failed", "logins", 100, 10000, false, NULL, 0, "{logins} logins have failed.",
	  "有 {logins} 次登录失败。", "lastb | head -20\nocai sys users" },
	{ "security-updates", "packages.updates", "security", 1, NEVER, false, NULL, 0,
	  "{security} of {count} available updates close security holes ({critical} critical).",
	  "{count} 个可用更新中有 {security} 个修复安全漏洞(其中 {critical} 个为严重级别)。",
	  "dnf updateinfo list --security\nocai sys --updates" },
	{ "package-differs", "packages.verify.problems", "#", 1, NEVER, false, NULL, 0,
	  "{#} files differ from the package database: {list}.", "有 {#} 个文件与软件包数据库不一致:{list}。",
	  "rpm -V {packages.verify.package}" },
};

/* The first few names of a list's objects, for sentences about the list. */
static json_t *names_of(const json_t *list)
{
	static const char *const keys[] = { "unit", "process", "file", "name" };
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(2048);
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		const char *name = NULL;

		for (size_t k = 0; k < 4 && !name; k++)
			name = json_string_value(json_object_get(item, keys[k]));
		if (i == 5) {
			(void)base_buf_puts(&out, ", …");
			break;
		}
		(void)base_buf_printf(&out, "%s%.200s", i ? ", " : "", name ? name : "?");
	}
	return ag_sys_string(base_buf_text(&out), out.len);
}

/* A fact in a command becomes an argument that a person may paste: only plain characters, else the line is left
 * out. A command names one fact at most. */
static bool fact_is_plain(const json_t *facts, const json_t *document, const char *format)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@+,=";
	const char *open = strchr(format, '{'), *close = open ? strchr(open, '}') : NULL;
	char key[64];
	const char *v;

	if (!close || (size_t)(close - open) > sizeof(key))
		return true;
	memcpy(key, open + 1, (size_t)(close - open) - 1);
	key[close - open - 1] = '\0';
	v = json_string_value(ag_sys_lookup(facts, key));
	if (!v)
		v = json_string_value(ag_sys_lookup(document, key));
	return v && *v && *v != '-' && strspn(v, plain) == strlen(v);
}

static void put_next(const struct rule *rule, const json_t *facts, const json_t *document, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf line = BASE_BUF_INIT(4096);
	const char *p = rule->next;

	while (*p) {
		size_t n = strcspn(p, "\n");
		char format[256];

		if (n < sizeof(format)) {
			memcpy(format, p, n);
			format[n] = '\0';
			base_buf_reset(&line);
			if (fact_is_plain(facts, document, format) &&
			    ag_sys_expand(format, facts, document, &line) == 0)
				ag_sys_append_take(out, ag_sys_string(base_buf_text(&line), line.len));
		}
		p += n + (p[n] == '\n' ? 1 : 0);
	}
}

static int add_finding(const struct rule *rule, double value, const json_t *facts, const json_t *document, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf en = BASE_BUF_INIT(8192);
	CLEANUP(base_buf_done) struct base_buf zh = BASE_BUF_INIT(8192);
	bool critical = rule->below ? value <= rule->critical : value >= rule->critical;
	double passed = rule->below ? rule->warn / fmax(value, 0.01) : value / rule->warn;
	json_t *finding = json_object(), *copy = json_object(), *v;
	const char *key;

	if (!finding || !copy || json_array_size(out) >= MAX_FINDINGS) {
		json_decref(finding);
		json_decref(copy);
		return finding && copy ? 0 : -ENOMEM;
	}
	(void)ag_sys_expand(rule->en, facts, document, &en);
	(void)ag_sys_expand(rule->zh, facts, document, &zh);
	json_object_foreach((json_t *)(uintptr_t)facts, key, v)
	{
		if (!json_is_object(v) && !json_is_array(v))
			(void)json_object_set(copy, key, v);
	}
	ag_sys_set_text(finding, "rule", rule->id);
	ag_sys_set_text(finding, "severity", critical ? "critical" : "warning");
	/* Critical before all warnings; within one severity, by how far the threshold was passed. */
	ag_sys_set_real(finding, "score", (critical ? 1000 : 0) + 100 * log2(1 + fmin(passed, 1000)));
	ag_sys_set_span(finding, "en", ag_sys_buf_span(&en));
	ag_sys_set_span(finding, "zh", ag_sys_buf_span(&zh));
	put_next(rule, facts, document, ag_sys_array(finding, "next"));
	(void)json_object_set_new(finding, "facts", copy);
	return json_array_append_new(out, finding) < 0 ? -ENOMEM : 0;
}

static bool passes(const struct rule *rule, const json_t *object, double *ret_value)
{
	const json_t *v = json_object_get(object, rule->metric);

	if (!json_is_number(v))
		return false;
	if (rule->also && !(json_number_value(json_object_get(object, rule->also)) >= rule->also_at_least))
		return false;
	*ret_value = json_number_value(v);
	return rule->below ? *ret_value <= rule->warn : *ret_value >= rule->warn;
}

static int judge_length(const struct rule *rule, const json_t *list, const json_t *document, json_t *out)
{
	size_t n = json_array_size(list);
	json_t *facts;
	int r;

	if ((double)n < rule->warn)
		return 0;
	facts = json_object();
	ag_sys_set_u64(facts, "#", n);
	(void)json_object_set_new(facts, "list", names_of(list));
	r = add_finding(rule, (double)n, facts, document, out);
	json_decref(facts);
	return r;
}

static int judge_one(const struct rule *rule, const json_t *document, json_t *out)
{
	const json_t *at = ag_sys_lookup(document, rule->where), *item;
	double value;
	size_t i;
	int r = 0;

	if (json_is_object(at) && passes(rule, at, &value))
		return add_finding(rule, value, at, document, out);
	if (!json_is_array(at))
		return 0;
	if (strcmp(rule->metric, "#") == 0)
		return judge_length(rule, at, document, out);
	json_array_foreach(at, i, item)
	{
		if (r == 0 && passes(rule, item, &value))
			r = add_finding(rule, value, item, document, out);
	}
	return r;
}

static int by_score(const void *a, const void *b)
{
	double x = json_real_value(json_object_get(*(json_t *const *)a, "score"));
	double y = json_real_value(json_object_get(*(json_t *const *)b, "score"));

	return x > y ? -1 : x < y;
}

int ag_sys_judge(json_t *document)
{
	CLEANUP(freep) json_t **sorted = NULL;
	json_t *found = json_array(), *ranked = json_array();
	size_t n;
	int r = found && ranked ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]) && r == 0; i++)
		r = judge_one(&rules[i], document, found);
	n = json_array_size(found);
	sorted = calloc(n + 1, sizeof(*sorted));
	if (!sorted)
		r = -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++)
		sorted[i] = json_array_get(found, i);
	if (r == 0 && n)
		qsort(sorted, n, sizeof(*sorted), by_score);
	for (size_t i = 0; i < n && r == 0; i++)
		r = json_array_append(ranked, sorted[i]) < 0 ? -ENOMEM : 0;
	json_decref(found);
	if (r < 0) {
		json_decref(ranked);
		return r;
	}
	return json_object_set_new(document, "findings", ranked) < 0 ? -ENOMEM : 0;
}
