/* Host and hardware: what the machine is and what it is made of, from os-release, /proc and /sys. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "sys/sys_internal.h"

static void put_line(const struct sys_ctx *ctx, json_t *out, const char *key, const char *path)
{
	char line[2048];

	if (ag_sys_read_line(ctx, line, sizeof(line), "%s", path) == 0 && *line)
		ag_sys_set_text(out, key, line);
}

static void put_release(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(64 << 10);
	static const char *const keys[][2] = { { "PRETTY_NAME", "name" }, { "ID", "id" }, { "VERSION_ID", "version" } };
	char value[256];

	if (ag_sys_read(ctx, &buf, "/etc/os-release") < 0 && ag_sys_read(ctx, &buf, "/usr/lib/os-release") < 0) {
		ag_sys_note(out, "There is no os-release file: the system's name is not known.",
		            "没有 os-release 文件,无法得知系统名称。", NULL);
		return;
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (ag_sys_parse_assignment(ag_sys_buf_span(&buf), keys[i][0], value, sizeof(value)))
			ag_sys_set_text(out, keys[i][1], value);
	}
}

static void put_kernel(const struct sys_ctx *ctx, json_t *out)
{
	struct utsname u;
	uint64_t seconds;
	char line[256];
	struct sys_span s;

	put_line(ctx, out, "hostname", "/proc/sys/kernel/hostname");
	put_line(ctx, out, "kernel", "/proc/sys/kernel/osrelease");
	if (!*ctx->root && uname(&u) == 0)
		ag_sys_set_text(out, "architecture", u.machine);
	put_line(ctx, out, "boot_arguments", "/proc/cmdline");
	if (ag_sys_read_line(ctx, line, sizeof(line), "/proc/uptime") == 0 &&
	    ag_sys_number(ag_sys_span(line, strcspn(line, ".")), 10, &seconds))
		ag_sys_set_u64(out, "uptime_s", seconds);
	if (ag_sys_read_line(ctx, line, sizeof(line), "/proc/loadavg") == 0) {
		struct sys_span word;
		char text[32];

		s = ag_sys_span(line, strlen(line));
		if (ag_sys_next_word(&s, &word) && word.n < sizeof(text)) {
			memcpy(text, word.p, word.n);
			text[word.n] = '\0';
			ag_sys_set_real(out, "load1", strtod(text, NULL));
		}
	}
	if (ag_sys_read_line(ctx, line, sizeof(line), "/proc/sys/kernel/tainted") == 0 && strcmp(line, "0") != 0 &&
	    *line)
		ag_sys_set_text(out, "kernel_tainted", line);
}

/* What the firmware, the processor flags and the container runtimes say. */
static void put_virtualization(const struct sys_ctx *ctx, json_t *out)
{
	static const struct {
		const char *mark, *name;
	} vendors[] = { { "QEMU", "kvm/qemu" },         { "KVM", "kvm" },       { "VMware", "vmware" },
		        { "innotek", "virtualbox" },    { "Xen", "xen" },       { "Microsoft Corporation", "hyper-v" },
		        { "Amazon EC2", "amazon ec2" }, { "Google", "google" }, { "Alibaba Cloud", "alibaba cloud" },
		        { "OpenStack", "openstack" } };
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(1 << 20);
	char path[4096], vendor[256], product[256];
	const char *found = NULL, *container = NULL;

	(void)ag_sys_read_line(ctx, vendor, sizeof(vendor), "/sys/class/dmi/id/sys_vendor");
	(void)ag_sys_read_line(ctx, product, sizeof(product), "/sys/class/dmi/id/product_name");
	for (size_t i = 0; i < sizeof(vendors) / sizeof(vendors[0]) && !found; i++) {
		/* Microsoft and Google also build real machines: theirs say so in the product. */
		if (strstr(vendor, vendors[i].mark) || strstr(product, vendors[i].mark))
			found = vendors[i].name;
	}
	if (found && strcmp(found, "hyper-v") == 0 && !strstr(product, "Virtual"))
		found = NULL;
	if (!found && ag_sys_read(ctx, &buf, "/proc/cpuinfo") == 0 && memmem(buf.data, buf.len, " hypervisor", 11))
		found = "unknown hypervisor";
	ag_sys_set_text(out, "virtualization", found ? found : "none");
	if (*vendor || *product) {
		ag_sys_set_text(out, "vendor", vendor);
		ag_sys_set_text(out, "product", product);
	}
	if (ag_sys_path(ctx, path, sizeof(path), "/run/.containerenv") == 0 && access(path, F_OK) == 0)
		container = "podman";
	else if (ag_sys_path(ctx, path, sizeof(path), "/.dockerenv") == 0 && access(path, F_OK) == 0)
		container = "docker";
	else if (ag_sys_read_line(ctx, vendor, sizeof(vendor), "/run/systemd/container") == 0 && *vendor)
		container = vendor;
	if (container)
		ag_sys_set_text(out, "container", container);
}

void ag_sys_host(const struct sys_ctx *ctx, json_t *out)
{
	put_release(ctx, out);
	put_kernel(ctx, out);
	put_virtualization(ctx, out);
}

/* ---- Hardware -------------------------------------------------------------------------------------------- */

/* "model name : text" of the first processor. */
static void put_cpu_model(json_t *cpu, struct sys_span info)
{
	static const char *const names[] = { "model name", "Model Name", "CPU part", "cpu model", "Hardware" };
	struct sys_span line;

	while (ag_sys_next_line(&info, &line)) {
		const char *colon = memchr(line.p, ':', line.n);

		for (size_t i = 0; colon && i < sizeof(names) / sizeof(names[0]); i++) {
			struct sys_span value = ag_sys_span(colon + 1, line.n - (size_t)(colon - line.p) - 1);

			if (!ag_sys_starts(line, names[i]))
				continue;
			while (value.n && *value.p == ' ')
				value = ag_sys_span(value.p + 1, value.n - 1);
			ag_sys_set_span(cpu, "model", value);
			return;
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static size_t count_distinct(uint64_t *v, size_t n)
{
	size_t distinct = n ? 1 : 0;

	qsort(v, n, sizeof(*v), by_value);
	for (size_t i = 1; i < n; i++)
		distinct += v[i] != v[i - 1];
	return distinct;
}

static void put_topology(const struct sys_ctx *ctx, json_t *cpu)
{
	CLEANUP(freep) uint64_t *sockets = calloc(SYS_MAX_CPUS, sizeof(*sockets));
	CLEANUP(freep) uint64_t *cores = calloc(SYS_MAX_CPUS, sizeof(*cores));
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/sys/devices/system/cpu");
	size_t n = 0, threads = 0;
	const char *name;
	uint64_t khz;

	while (dir && sockets && cores && (name = ag_sys_next_entry(dir))) {
		uint64_t socket, core;

		if (strncmp(name, "cpu", 3) != 0 || !ag_sys_is_pid(name + 3))
			continue;
		threads++;
		if (n < SYS_MAX_CPUS &&
		    ag_sys_read_number(ctx, &socket, "/sys/devices/system/cpu/%s/topology/physical_package_id", name) &&
		    ag_sys_read_number(ctx, &core, "/sys/devices/system/cpu/%s/topology/core_id", name)) {
			sockets[n] = socket;
			cores[n++] = socket << 32 | (core & UINT32_MAX);
		}
	}
	if (threads)
		ag_sys_set_u64(cpu, "threads", threads);
	if (n) {
		ag_sys_set_u64(cpu, "cores", count_distinct(cores, n));
		ag_sys_set_u64(cpu, "sockets", count_distinct(sockets, n));
	}
	put_line(ctx, cpu, "online", "/sys/devices/system/cpu/online");
	if (ag_sys_read_number(ctx, &khz, "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"))
		ag_sys_set_real(cpu, "max_mhz", (double)khz / 1000);
	put_line(ctx, cpu, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
}

static void put_memory(json_t *memory, struct sys_span info)
{
	static const char *const keys[][2] = {
		{ "MemTotal", "total_bytes" },    { "MemFree", "free_bytes" },  { "MemAvailable", "available_bytes" },
		{ "Buffers", "buffers_bytes" },   { "Cached", "cached_bytes" }, { "SwapTotal", "swap_total_bytes" },
		{ "SwapFree", "swap_free_bytes" }
	};
	uint64_t v, size;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (ag_sys_keyed(info, keys[i][0], &v) && v <= UINT64_MAX / 1024)
			ag_sys_set_u64(memory, keys[i][1], v * 1024);
	}
	if (ag_sys_keyed(info, "HugePages_Total", &v) && v && ag_sys_keyed(info, "Hugepagesize", &size)) {
		ag_sys_set_u64(memory, "huge_pages", v);
		ag_sys_set_u64(memory, "huge_page_bytes", size * 1024);
	}
}

static void put_numa(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/sys/devices/system/node");
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(64 << 10);
	const char *name;

	while (dir && (name = ag_sys_next_entry(dir))) {
		json_t *node;
		char cpus[256];
		struct sys_span text, line, word;
		uint64_t kib;

		if (strncmp(name, "node", 4) != 0 || !ag_sys_is_pid(name + 4))
			continue;
		node = json_object();
		ag_sys_set_text(node, "node", name);
		if (ag_sys_read_line(ctx, cpus, sizeof(cpus), "/sys/devices/system/node/%s/cpulist", name) == 0)
			ag_sys_set_text(node, "cpus", cpus);
		if (ag_sys_read(ctx, &buf, "/sys/devices/system/node/%s/meminfo", name) == 0) {
			text = ag_sys_buf_span(&buf);
			while (ag_sys_next_line(&text, &line)) { /* "Node 0 MemTotal: 12 kB" */
				if (!ag_sys_skip_words(&line, 2) || !ag_sys_next_word(&line, &word) ||
				    !ag_sys_next_number(&line, &kib))
					continue;
				if (ag_sys_is(word, "MemTotal:"))
					ag_sys_set_u64(node, "total_bytes", kib * 1024);
				else if (ag_sys_is(word, "MemFree:"))
					ag_sys_set_u64(node, "free_bytes", kib * 1024);
			}
		}
		ag_sys_append_take(ag_sys_array(out, "numa"), node);
	}
}

static void put_disks(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/sys/block");
	const char *name;
	uint64_t sectors, rotational;
	char path[4096], model[128];

	while (dir && (name = ag_sys_next_entry(dir))) {
		json_t *disk;

		if (ag_sys_path(ctx, path, sizeof(path), "/sys/block/%s/device", name) < 0 || access(path, F_OK) != 0)
			continue; /* loop, ram, dm, md: in storage */
		if (!ag_sys_read_number(ctx, &sectors, "/sys/block/%s/size", name) || sectors == 0 ||
		    sectors > UINT64_MAX / 512)
			continue;
		disk = json_object();
		ag_sys_set_text(disk, "name", name);
		ag_sys_set_u64(disk, "size_bytes", sectors * 512);
		if (ag_sys_read_number(ctx, &rotational, "/sys/block/%s/queue/rotational", name))
			(void)json_object_set_new(disk, "rotational", json_boolean(rotational != 0));
		if (ag_sys_read_line(ctx, model, sizeof(model), "/sys/block/%s/device/model", name) == 0 && *model)
			ag_sys_set_text(disk, "model", model);
		ag_sys_append_take(ag_sys_array(out, "disks"), disk);
	}
}

void ag_sys_hardware(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(8 << 20);
	json_t *cpu = ag_sys_object(out, "cpu");

	if (ag_sys_read(ctx, &buf, "/proc/cpuinfo") == 0)
		put_cpu_model(cpu, ag_sys_buf_span(&buf));
	put_topology(ctx, cpu);
	if (ag_sys_read(ctx, &buf, "/proc/meminfo") == 0)
		put_memory(ag_sys_object(out, "memory"), ag_sys_buf_span(&buf));
	else
		ag_sys_note(out, "/proc/meminfo cannot be read: is /proc mounted?",
		            "无法读取 /proc/meminfo:/proc 挂载了吗?", NULL);
	put_numa(ctx, out);
	put_disks(ctx, out);
}
