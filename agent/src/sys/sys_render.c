/* The document as text: bars where looking beats reading, lists as tables, findings as numbered sentences.
 *
 * It renders what it finds: objects become lines, lists of objects become tables whose columns are the keys of their
 * items, units come from the keys' endings. A fact that a reader adds needs no change here, but a Chinese label if
 * it is to have one. Text in the document is printed without control characters, whoever wrote it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

#include "sys/sys_internal.h"

enum { MAX_ROWS = 12, MAX_COLUMNS = 12, MAX_CELL = 44, LABEL_WIDTH = 24, MAX_NESTING = 4 };

struct page {
	const struct ag_sys_style *style;
	struct base_buf *out;
	unsigned width;
};

static const struct {
	const char *key, *zh;
} labels[] = {
	{ "host", "主机" },
	{ "hardware", "硬件" },
	{ "gpu", "显卡与加速卡" },
	{ "packages", "软件包" },
	{ "services", "服务" },
	{ "logs", "日志" },
	{ "network", "网络" },
	{ "storage", "存储" },
	{ "users", "用户" },
	{ "perf", "性能" },
	{ "name", "名称" },
	{ "version", "版本" },
	{ "hostname", "主机名" },
	{ "kernel", "内核" },
	{ "architecture", "架构" },
	{ "boot_arguments", "启动参数" },
	{ "uptime_s", "已运行" },
	{ "virtualization", "虚拟化" },
	{ "container", "容器" },
	{ "model", "型号" },
	{ "threads", "线程数" },
	{ "cores", "核数" },
	{ "sockets", "插槽数" },
	{ "memory", "内存" },
	{ "disks", "磁盘" },
	{ "total_bytes", "总量" },
	{ "free_bytes", "空闲" },
	{ "available_bytes", "可用" },
	{ "size_bytes", "大小" },
	{ "used_percent", "已用" },
	{ "inodes_used_percent", "inode 已用" },
	{ "swap_total_bytes", "交换总量" },
	{ "swap_used_bytes", "交换已用" },
	{ "devices", "设备" },
	{ "count", "数量" },
	{ "recent", "最近安装" },
	{ "transactions", "安装历史" },
	{ "time_s", "时间" },
	{ "failed", "失败" },
	{ "unit", "单元" },
	{ "result", "结果" },
	{ "state", "状态" },
	{ "errors", "错误" },
	{ "message", "消息" },
	{ "interfaces", "网卡" },
	{ "addresses", "地址" },
	{ "address", "地址" },
	{ "routes", "路由" },
	{ "gateway", "网关" },
	{ "destination", "目的" },
	{ "device", "设备" },
	{ "listening", "监听端口" },
	{ "port", "端口" },
	{ "process", "进程" },
	{ "protocol", "协议" },
	{ "mounts", "挂载" },
	{ "point", "挂载点" },
	{ "source", "来源" },
	{ "type", "类型" },
	{ "block_devices", "块设备" },
	{ "deleted_open_files", "已删除但仍打开的文件" },
	{ "logged_in", "已登录" },
	{ "failed_logins", "登录失败" },
	{ "user", "用户" },
	{ "from", "来自" },
	{ "pressure", "压力" },
	{ "run_queue", "运行队列" },
	{ "networks", "网卡流量" },
	{ "network_stack", "协议栈" },
	{ "processes", "进程" },
	{ "top_cpu", "CPU 占用最多" },
	{ "top_memory", "内存占用最多" },
	{ "top_io", "磁盘读写最多" },
	{ "cgroups", "控制组" },
	{ "cpu", "处理器" },
	{ "path", "路径" },
	{ "file", "文件" },
	{ "owns", "文件归属" },
	{ "verify", "校验" },
	{ "seconds", "采样秒数" },
	{ "busy_percent", "忙碌" },
	{ "user_percent", "用户态" },
	{ "system_percent", "内核态" },
	{ "iowait_percent", "等待磁盘" },
	{ "irq_percent", "中断" },
	{ "steal_percent", "被宿主机占用" },
	{ "busiest_cpu", "最忙的 CPU 编号" },
	{ "busiest_percent", "最忙的 CPU" },
	{ "context_switches_per_s", "上下文切换" },
	{ "interrupts_per_s", "中断次数" },
	{ "forks_per_s", "新建进程" },
	{ "running", "可运行任务" },
	{ "blocked", "阻塞任务" },
	{ "running_per_cpu", "每 CPU 可运行任务" },
	{ "waiting_tasks", "平均等待任务" },
	{ "load1", "1 分钟负载" },
	{ "load5", "5 分钟负载" },
	{ "load15", "15 分钟负载" },
	{ "load1_per_cpu", "每 CPU 负载" },
	{ "cpu_some_percent", "等 CPU" },
	{ "cpu_full_percent", "全部等 CPU" },
	{ "memory_some_percent", "等内存" },
	{ "memory_full_percent", "全部等内存" },
	{ "io_some_percent", "等 I/O" },
	{ "io_full_percent", "全部等 I/O" },
	{ "available_percent", "可用" },
	{ "dirty_bytes", "脏页" },
	{ "writeback_bytes", "正在写回" },
	{ "slab_kept_bytes", "不可回收 slab" },
	{ "shared_bytes", "共享内存" },
	{ "swap_used_percent", "交换占用" },
	{ "swap_free_bytes", "交换空闲" },
	{ "swap_in_pages_per_s", "换入页" },
	{ "swap_out_pages_per_s", "换出页" },
	{ "major_faults_per_s", "主缺页" },
	{ "direct_reclaim_pages_per_s", "直接回收页" },
	{ "kswapd_pages_per_s", "后台回收页" },
	{ "alloc_stalls_per_s", "分配停顿" },
	{ "oom_kills", "OOM 杀进程" },
	{ "oom_kills_since_boot", "开机以来 OOM" },
	{ "util_percent", "利用率" },
	{ "queue", "队列" },
	{ "read_ms", "读毫秒" },
	{ "write_ms", "写毫秒" },
	{ "reads_per_s", "读次数" },
	{ "writes_per_s", "写次数" },
	{ "read_bytes_per_s", "读" },
	{ "write_bytes_per_s", "写" },
	{ "rx_bytes_per_s", "接收" },
	{ "tx_bytes_per_s", "发送" },
	{ "rx_packets_per_s", "收包" },
	{ "drops_per_s", "丢包" },
	{ "errors_per_s", "错包" },
	{ "rx_bytes", "接收" },
	{ "tx_bytes", "发送" },
	{ "rx_errors", "收错" },
	{ "rx_drops", "收丢" },
	{ "tx_errors", "发错" },
	{ "tx_drops", "发丢" },
	{ "rx_drop_percent", "丢包率" },
	{ "softnet_packets_per_s", "软中断收包" },
	{ "softnet_drops_per_s", "软中断丢包" },
	{ "softnet_squeezed_per_s", "软中断超时" },
	{ "tcp_segments_per_s", "TCP 发送段" },
	{ "tcp_retransmitted_percent", "TCP 重传率" },
	{ "tcp_retransmitted", "TCP 重传" },
	{ "tcp_established", "TCP 连接" },
	{ "tcp_listen_overflows", "监听队列溢出" },
	{ "udp_receive_buffer_errors", "UDP 接收缓冲错误" },
	{ "listen_overflows_per_s", "监听队列溢出" },
	{ "total", "总数" },
	{ "uninterruptible", "不可中断睡眠" },
	{ "zombies", "僵尸进程" },
	{ "busiest_name", "CPU 占用最多" },
	{ "busiest_pid", "其进程号" },
	{ "largest_name", "内存占用最多" },
	{ "largest_pid", "其进程号" },
	{ "largest_rss_bytes", "其常驻内存" },
	{ "cpu_percent", "CPU" },
	{ "rss_bytes", "常驻内存" },
	{ "throttled_percent", "限流周期" },
	{ "throttled_ms", "限流毫秒" },
	{ "memory_bytes", "内存" },
	{ "memory_high_events", "触及上限次数" },
	{ "id", "标识" },
	{ "vendor", "厂商" },
	{ "product", "产品" },
	{ "online", "在线" },
	{ "max_mhz", "最高频率 MHz" },
	{ "governor", "调频策略" },
	{ "buffers_bytes", "缓冲" },
	{ "cached_bytes", "缓存" },
	{ "installed_bytes", "安装大小" },
	{ "updates", "可用更新" },
	{ "security", "安全更新" },
	{ "critical", "严重" },
	{ "important", "重要" },
	{ "download_bytes", "下载大小" },
	{ "repositories", "软件仓库" },
	{ "repository", "软件仓库" },
	{ "metadata_time_s", "元数据时间" },
	{ "installed", "已安装" },
	{ "available", "可更新到" },
	{ "advisories", "公告" },
	{ "severity", "级别" },
	{ "title", "标题" },
	{ "transaction", "事务" },
	{ "first_packages", "部分软件包" },
	{ "files_checked", "已检查文件" },
	{ "problems", "不一致" },
	{ "differs", "差异" },
	{ "configuration", "配置文件" },
	{ "failed_units", "失败单元数" },
	{ "exit_status", "退出码" },
	{ "since_s", "自" },
	{ "error_entries", "错误条数" },
	{ "last_time_s", "最近时间" },
	{ "servers", "服务器" },
	{ "search", "搜索域" },
	{ "options", "选项" },
	{ "metric", "跃点" },
	{ "mapped_name", "映射名" },
	{ "kind", "种类" },
	{ "on", "位于" },
	{ "missing_members", "缺少成员" },
	{ "remote", "远程" },
	{ "error", "错误" },
	{ "deleted_open", "已删除但仍打开" },
	{ "files", "文件数" },
	{ "bytes", "大小" },
	{ "logins", "次数" },
	{ "line", "终端" },
	{ "class", "类别" },
	{ "driver", "驱动" },
	{ "device_id", "设备号" },
	{ "temperature_c", "温度 °C" },
	{ "power_w", "功率 W" },
	{ "memory_total_bytes", "显存" },
	{ "memory_used_bytes", "显存已用" },
};

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && strcmp(s + n - m, end) == 0;
}

/* "rx_bytes_per_s" -> "rx/s", "used_percent" -> "used": the unit is shown by the value. */
static void label_of(const struct page *p, const char *key, char *ret, size_t size)
{
	static const char *const units[] = { "_bytes_per_s", "_per_s", "_bytes", "_percent", "_s" };
	size_t n = strlen(key);

	for (size_t i = 0; p->style->chinese && i < sizeof(labels) / sizeof(labels[0]); i++) {
		if (strcmp(labels[i].key, key) == 0) {
			(void)snprintf(ret, size, "%s", labels[i].zh);
			return;
		}
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (ends_with(key, units[i]) && n > strlen(units[i])) {
			n -= strlen(units[i]);
			break;
		}
	}
	if (n >= size)
		n = size - 1;
	for (size_t i = 0; i < n; i++)
		ret[i] = key[i] == '_' ? ' ' : (unsigned char)key[i] < 32 || key[i] == 127 ? '?' : key[i];
	ret[n] = '\0';
}

/* Columns that text takes, cut to what fits: returns the bytes that fit, *ret_columns what they take. */
static size_t fit(const char *text, size_t n, unsigned max, unsigned *ret_columns)
{
	size_t at = 0;
	unsigned columns = 0;

	while (at < n) {
		utf8proc_int32_t c;
		utf8proc_ssize_t step =
		        utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
		unsigned w;

		if (step <= 0)
			break;
		w = (unsigned)utf8proc_charwidth(c);
		if (columns + w > max)
			break;
		columns += w;
		at += (size_t)step;
	}
	*ret_columns = columns;
	return at;
}

static unsigned columns_of(const char *text)
{
	unsigned columns;

	(void)fit(text, strlen(text), 100000, &columns);
	return columns;
}

/* Bytes of text a terminal may see. */
static void put_safe(struct base_buf *out, const char *text, size_t n)
{
	json_t *clean = ag_sys_string(text, n);

	if (clean)
		(void)base_buf_append(out, json_string_value(clean), json_string_length(clean));
	json_decref(clean);
}

static void put_padded(struct base_buf *out, const char *text, unsigned width)
{
	unsigned columns;
	size_t n = strlen(text), fits = fit(text, n, width, &columns);

	if (fits < n && width > 1) {
		fits = fit(text, n, width - 1, &columns);
		(void)base_buf_append(out, text, fits);
		(void)base_buf_puts(out, "~");
		columns++;
	} else {
		(void)base_buf_append(out, text, fits);
	}
	for (; columns < width; columns++)
		(void)base_buf_putc(out, ' ');
}

static void trim_line(struct base_buf *out)
{
	while (out->len && out->data[out->len - 1] == ' ')
		out->data[--out->len] = '\0';
}

static void paint(const struct page *p, const char *code)
{
	if (p->style->color)
		(void)base_buf_printf(p->out, "\033[%sm", code);
}

static void put_bytes(struct base_buf *out, double v)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	size_t unit = 0;

	for (; v >= 1024 && unit < 6; unit++)
		v /= 1024;
	(void)base_buf_printf(out, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

static void put_time(struct base_buf *out, json_int_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[64];

	if (seconds > 0 && localtime_r(&t, &tm) && strftime(text, sizeof(text), "%F %T", &tm))
		(void)base_buf_puts(out, text);
	else
		(void)base_buf_puts(out, "-");
}

static bool is_time(const char *key)
{
	return strcmp(key, "since_s") == 0 || ends_with(key, "time_s");
}

static void put_number(const struct page *p, const char *key, const json_t *v, struct base_buf *out)
{
	double d = json_number_value(v);

	if (strcmp(key, "uptime_s") == 0) {
		json_int_t s = json_integer_value(v);

		(void)base_buf_printf(out, p->style->chinese ? "%lld 天 %lld 小时 %lld 分" : "%lld d %lld h %lld min",
		                      (long long)(s / 86400), (long long)(s / 3600 % 24), (long long)(s / 60 % 60));
	} else if (is_time(key)) {
		put_time(out, json_integer_value(v));
	} else if (ends_with(key, "bytes") || ends_with(key, "bytes_per_s")) {
		put_bytes(out, d);
		if (ends_with(key, "_per_s"))
			(void)base_buf_puts(out, "/s");
	} else if (json_is_integer(v)) {
		(void)base_buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		(void)base_buf_puts(out, ends_with(key, "_percent") ? " %" : "");
	} else {
		(void)base_buf_printf(out, fabs(d) >= 100 ? "%.0f" : fabs(d) >= 10 ? "%.1f" : "%.2f", d);
		(void)base_buf_puts(out, ends_with(key, "_percent") ? " %" : ends_with(key, "_per_s") ? "/s" : "");
	}
}

/* Text for one cell; nothing for objects and for lists of them. */
static void put_value(const struct page *p, const char *key, const json_t *v, struct base_buf *out)
{
	const json_t *item;
	size_t i;

	if (json_is_string(v))
		put_safe(out, json_string_value(v), json_string_length(v));
	else if (json_is_number(v))
		put_number(p, key, v, out);
	else if (json_is_boolean(v))
		(void)base_buf_puts(out, json_is_true(v) ? (p->style->chinese ? "是" : "yes")
		                                         : (p->style->chinese ? "否" : "no"));
	json_array_foreach(v, i, item)
	{
		if (!json_is_string(item))
			continue;
		(void)base_buf_puts(out, i ? ", " : "");
		put_safe(out, json_string_value(item), json_string_length(item));
	}
}

/* ---- Tables ------------------------------------------------------------------------------------------------ */

struct table {
	const char *keys[MAX_COLUMNS]; /* borrowed from the list */
	unsigned widths[MAX_COLUMNS];
	size_t n;
};

/* Keys that a person does not need beside the others; JSON has them. */
static bool is_hidden(const char *key)
{
	static const char *const keys[] = { "device_id", "uid",         "waiting",    "rotational", "first_time_s",
		                            "read_only", "description", "rx_packets", "last_lines" };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(keys[i], key) == 0)
			return true;
	}
	return false;
}

static bool is_column(const struct table *t, const char *key)
{
	for (size_t i = 0; i < t->n; i++) {
		if (strcmp(t->keys[i], key) == 0)
			return true;
	}
	return false;
}

static void find_columns(const struct page *p, const json_t *list, struct table *t)
{
	char label[96];
	const char *key;
	json_t *item, *v;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (i >= MAX_ROWS)
			break;
		json_object_foreach(item, key, v)
		{
			CLEANUP(base_buf_done) struct base_buf cell = BASE_BUF_INIT(1 << 16);
			unsigned w;
			size_t c;

			if (json_is_object(v) || json_is_object(json_array_get(v, 0)) || is_hidden(key))
				continue;
			if (!is_column(t, key)) {
				if (t->n == MAX_COLUMNS)
					continue;
				label_of(p, key, label, sizeof(label));
				t->widths[t->n] = columns_of(label);
				t->keys[t->n++] = key;
			}
			for (c = 0; strcmp(t->keys[c], key) != 0; c++)
				;
			put_value(p, key, v, &cell);
			w = columns_of(base_buf_text(&cell));
			t->widths[c] = w > t->widths[c] ? w : t->widths[c];
		}
	}
}

/* The widest column gives way until the line fits; what still does not is left out from the right. */
static void fit_columns(const struct page *p, struct table *t)
{
	for (;;) {
		unsigned sum = 2;
		size_t widest = 0;

		for (size_t i = 0; i < t->n; i++) {
			sum += t->widths[i] + 2;
			widest = t->widths[i] > t->widths[widest] ? i : widest;
		}
		if (sum <= p->width || t->n == 0)
			return;
		if (t->widths[widest] > 14)
			t->widths[widest]--;
		else
			t->n--;
	}
}

static void put_rows(const struct page *p, const struct table *t, const json_t *list)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (i >= MAX_ROWS)
			break;
		(void)base_buf_puts(p->out, "  ");
		for (size_t c = 0; c < t->n; c++) {
			CLEANUP(base_buf_done) struct base_buf cell = BASE_BUF_INIT(1 << 16);

			put_value(p, t->keys[c], json_object_get(item, t->keys[c]), &cell);
			put_padded(p->out, base_buf_text(&cell), t->widths[c]);
			(void)base_buf_puts(p->out, c + 1 < t->n ? "  " : "");
		}
		trim_line(p->out);
		(void)base_buf_putc(p->out, '\n');
	}
	if (json_array_size(list) > MAX_ROWS)
		(void)base_buf_printf(p->out,
		                      p->style->chinese ? "  …… 另有 %zu 行(--json 显示全部)\n"
		                                        : "  ... and %zu more (--json shows all)\n",
		                      json_array_size(list) - MAX_ROWS);
}

static void put_heading(const struct page *p, const char *key)
{
	char label[96];

	label_of(p, key, label, sizeof(label));
	paint(p, "1");
	(void)base_buf_printf(p->out, "  %s\n", label);
	paint(p, "0");
}

static void put_table(const struct page *p, const char *key, const json_t *list)
{
	struct table t = { .n = 0 };
	char label[96];

	find_columns(p, list, &t);
	fit_columns(p, &t);
	if (t.n == 0)
		return;
	put_heading(p, key);
	paint(p, "2");
	(void)base_buf_puts(p->out, "  ");
	for (size_t c = 0; c < t.n; c++) {
		label_of(p, t.keys[c], label, sizeof(label));
		put_padded(p->out, label, t.widths[c]);
		(void)base_buf_puts(p->out, c + 1 < t.n ? "  " : "");
	}
	trim_line(p->out);
	paint(p, "0");
	(void)base_buf_putc(p->out, '\n');
	put_rows(p, &t, list);
}

/* ---- Objects ------------------------------------------------------------------------------------------------- */

static void put_notes(const struct page *p, const json_t *notes)
{
	const json_t *note;
	size_t i;

	json_array_foreach(notes, i, note)
	{
		const char *text = json_string_value(json_object_get(note, p->style->chinese ? "zh" : "en"));

		if (!text)
			continue;
		paint(p, "33");
		(void)base_buf_puts(p->out, "  ! ");
		put_safe(p->out, text, strlen(text));
		paint(p, "0");
		(void)base_buf_putc(p->out, '\n');
	}
}

static void put_line(const struct page *p, const char *key, const json_t *v)
{
	CLEANUP(base_buf_done) struct base_buf cell = BASE_BUF_INIT(1 << 16);
	char label[96];

	put_value(p, key, v, &cell);
	if (cell.len == 0)
		return;
	label_of(p, key, label, sizeof(label));
	(void)base_buf_puts(p->out, "  ");
	put_padded(p->out, label, LABEL_WIDTH);
	(void)base_buf_printf(p->out, " %s\n", base_buf_text(&cell));
}

static void put_object(const struct page *p, const json_t *object, unsigned depth)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		if (!json_is_object(v) && !json_is_object(json_array_get(v, 0)))
			put_line(p, key, v);
	}
	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		if (strcmp(key, "notes") == 0)
			continue;
		if (json_is_object(json_array_get(v, 0)))
			put_table(p, key, v);
		else if (json_is_object(v) && json_object_size(v) && depth < MAX_NESTING) {
			put_heading(p, key);
			put_object(p, v, depth + 1);
		}
	}
	put_notes(p, json_object_get(object, "notes"));
}

/* What a failed unit said last, below the table of units. */
static void put_last_lines(const struct page *p, const json_t *services)
{
	const json_t *unit, *line;
	size_t i, k;

	json_array_foreach(json_object_get(services, "failed"), i, unit)
	{
		const char *name = json_string_value(json_object_get(unit, "unit"));

		json_array_foreach(json_object_get(unit, "last_lines"), k, line)
		{
			if (!json_is_string(line) || !name)
				continue;
			(void)base_buf_puts(p->out, "  ");
			put_safe(p->out, name, strlen(name));
			(void)base_buf_puts(p->out, ": ");
			put_safe(p->out, json_string_value(line), json_string_length(line));
			(void)base_buf_putc(p->out, '\n');
		}
	}
}

/* ---- Bars ------------------------------------------------------------------------------------------------------ */

static void put_bar(const struct page *p, const char *label, double percent)
{
	unsigned room = p->width > LABEL_WIDTH + 16 ? p->width - LABEL_WIDTH - 14 : 10;
	double clamped = fmin(100, fmax(0, percent));
	unsigned cells;

	if (room > 40)
		room = 40;
	cells = (unsigned)lround(clamped * room / 100);
	(void)base_buf_puts(p->out, "  ");
	put_padded(p->out, label, LABEL_WIDTH);
	(void)base_buf_puts(p->out, p->style->ascii ? " [" : " ");
	paint(p, clamped >= 90 ? "31" : clamped >= 70 ? "33" : "32");
	for (unsigned i = 0; i < room; i++)
		(void)base_buf_puts(p->out, p->style->ascii ? (i < cells ? "#" : ".") : i < cells ? "█" : "░");
	paint(p, "0");
	(void)base_buf_printf(p->out, "%s %5.1f %%\n", p->style->ascii ? "]" : "", clamped);
}

static void put_bar_at(const struct page *p, const json_t *document, const char *path, bool rest, const char *en,
                       const char *zh)
{
	const json_t *v = ag_sys_lookup(document, path);

	if (json_is_number(v))
		put_bar(p, p->style->chinese ? zh : en, rest ? 100 - json_number_value(v) : json_number_value(v));
}

static void put_bars_of(const struct page *p, const json_t *list, const char *name_key, const char *value_key)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		const char *name = json_string_value(json_object_get(item, name_key));
		const json_t *v = json_object_get(item, value_key);

		if (name && json_is_number(v) && i < MAX_ROWS) {
			CLEANUP(base_buf_done) struct base_buf label = BASE_BUF_INIT(1 << 16);

			put_safe(&label, name, strlen(name));
			put_bar(p, base_buf_text(&label), json_number_value(v));
		}
	}
}

static void put_perf_bars(const struct page *p, const json_t *document)
{
	put_bar_at(p, document, "perf.cpu.busy_percent", false, "processors", "CPU 忙碌");
	put_bar_at(p, document, "perf.cpu.busiest_percent", false, "busiest processor", "最忙的 CPU");
	put_bar_at(p, document, "perf.memory.available_percent", true, "memory in use", "内存占用");
	put_bar_at(p, document, "perf.memory.swap_used_percent", false, "swap in use", "交换占用");
	put_bar_at(p, document, "perf.pressure.cpu_some_percent", false, "waiting for CPU", "等 CPU");
	put_bar_at(p, document, "perf.pressure.memory_some_percent", false, "waiting for memory", "等内存");
	put_bar_at(p, document, "perf.pressure.io_some_percent", false, "waiting for I/O", "等 I/O");
	put_bars_of(p, ag_sys_lookup(document, "perf.disks"), "name", "util_percent");
}

/* ---- Findings, the whole --------------------------------------------------------------------------------------- */

static void put_finding(const struct page *p, size_t number, const json_t *f)
{
	const char *text = json_string_value(json_object_get(f, p->style->chinese ? "zh" : "en"));
	const char *severity = json_string_value(json_object_get(f, "severity"));
	bool critical = severity && strcmp(severity, "critical") == 0;
	const json_t *next;
	size_t i;

	if (!text)
		return;
	(void)base_buf_printf(p->out, "  %zu. ", number);
	paint(p, critical ? "1;31" : "33");
	(void)base_buf_puts(p->out, p->style->chinese ? (critical ? "[严重] " : "[警告] ")
	                                              : (critical ? "[critical] " : "[warning] "));
	paint(p, "0");
	put_safe(p->out, text, strlen(text));
	(void)base_buf_putc(p->out, '\n');
	json_array_foreach(json_object_get(f, "next"), i, next)
	{
		if (!json_is_string(next))
			continue;
		(void)base_buf_puts(p->out, "       $ ");
		put_safe(p->out, json_string_value(next), json_string_length(next));
		(void)base_buf_putc(p->out, '\n');
	}
}

static void put_title(const struct page *p, const char *text)
{
	paint(p, "1;36");
	(void)base_buf_puts(p->out, p->style->ascii ? "== " : "━━ ");
	put_safe(p->out, text, strlen(text));
	(void)base_buf_puts(p->out, p->style->ascii ? " ==" : " ━━");
	paint(p, "0");
	(void)base_buf_putc(p->out, '\n');
}

static void put_findings(const struct page *p, const json_t *findings)
{
	const json_t *f;
	size_t i;

	put_title(p, p->style->chinese ? "发现" : "findings");
	json_array_foreach(findings, i, f) put_finding(p, i + 1, f);
	if (json_array_size(findings) == 0)
		(void)base_buf_puts(p->out,
		                    p->style->chinese ? "  没有超过阈值的指标。\n" : "  Nothing passed a threshold.\n");
}

int ag_sys_render(const json_t *document, const struct ag_sys_style *style, struct base_buf *out)
{
	const struct page p = { style, out, style->width >= 40 ? style->width : style->width ? 40 : 80 };
	const char *key;
	json_t *section;
	char label[96];

	json_object_foreach((json_t *)(uintptr_t)document, key, section)
	{
		if (strcmp(key, "findings") == 0 || !json_is_object(section))
			continue;
		label_of(&p, key, label, sizeof(label));
		put_title(&p, label);
		if (strcmp(key, "perf") == 0)
			put_perf_bars(&p, document);
		if (strcmp(key, "storage") == 0)
			put_bars_of(&p, json_object_get(section, "mounts"), "point", "used_percent");
		put_object(&p, section, 0);
		if (strcmp(key, "services") == 0)
			put_last_lines(&p, section);
		(void)base_buf_putc(out, '\n');
	}
	if (json_is_array(json_object_get(document, "findings")))
		put_findings(&p, json_object_get(document, "findings"));
	return base_buf_error(out);
}
