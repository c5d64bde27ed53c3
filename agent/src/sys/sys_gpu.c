/* Graphics and compute devices: the PCI class for all, NVML for NVIDIA (opened at run time; the few functions and
 * the structure sizes are those of the public NVML API reference), sysfs for amdgpu. A driver without NVML still
 * shows through /proc/driver/nvidia. */
#include <stdio.h>
#include <stdlib.h>

#include "base/library.h"
#include "sys/sys_internal.h"

struct nvml_memory { /* nvmlMemory_t */
	unsigned long long total, free, used;
};

struct nvml_utilization { /* nvmlUtilization_t */
	unsigned gpu, memory;
};

struct nvml {
	int (*init)(void);
	int (*shutdown)(void);
	int (*count)(unsigned *);
	int (*handle)(unsigned, void **);
	int (*name)(void *, char *, unsigned);
	int (*memory)(void *, struct nvml_memory *);
	int (*utilization)(void *, struct nvml_utilization *);
	int (*temperature)(void *, int, unsigned *);
	int (*power)(void *, unsigned *);
};

static bool nvml_open(struct nvml *n)
{
	const struct base_symbol symbols[] = { { "nvmlInit_v2", &n->init },
		                               { "nvmlShutdown", &n->shutdown },
		                               { "nvmlDeviceGetCount_v2", &n->count },
		                               { "nvmlDeviceGetHandleByIndex_v2", &n->handle },
		                               { "nvmlDeviceGetName", &n->name },
		                               { "nvmlDeviceGetMemoryInfo", &n->memory },
		                               { "nvmlDeviceGetUtilizationRates", &n->utilization },
		                               { "nvmlDeviceGetTemperature", &n->temperature },
		                               { "nvmlDeviceGetPowerUsage", &n->power } };

	return base_library_load("libnvidia-ml.so.1", symbols, sizeof(symbols) / sizeof(symbols[0]), NULL) == 0;
}

static json_t *nvml_device(const struct nvml *n, void *device)
{
	json_t *out = json_object();
	struct nvml_memory memory;
	struct nvml_utilization use;
	char name[128] = "";
	unsigned v;

	if (n->name(device, name, sizeof(name) - 1) == 0)
		ag_sys_set_text(out, "name", name);
	if (n->memory(device, &memory) == 0) {
		ag_sys_set_u64(out, "memory_total_bytes", memory.total);
		ag_sys_set_u64(out, "memory_used_bytes", memory.used);
	}
	if (n->utilization(device, &use) == 0)
		ag_sys_set_u64(out, "busy_percent", use.gpu);
	if (n->temperature(device, 0, &v) == 0)
		ag_sys_set_u64(out, "temperature_c", v);
	if (n->power(device, &v) == 0)
		ag_sys_set_real(out, "power_w", v / 1000.0);
	return out;
}

static void put_nvml(json_t *out)
{
	struct nvml n = { 0 };
	unsigned count = 0;
	void *device;

	if (!nvml_open(&n)) {
		ag_sys_note(out,
		            "The NVIDIA driver is loaded, but libnvidia-ml.so.1 cannot be opened: no use and memory.",
		            "NVIDIA 驱动已加载,但打不开 libnvidia-ml.so.1:没有使用率和显存数据。", NULL);
		return;
	}
	if (n.init() != 0) {
		ag_sys_note(out, "NVML cannot start: driver and library versions may differ.",
		            "NVML 启动失败:驱动与库的版本可能不一致。", NULL);
	} else {
		(void)n.count(&count);
		for (unsigned i = 0; i < count; i++) {
			if (n.handle(i, &device) == 0)
				ag_sys_append_take(ag_sys_array(out, "nvidia"), nvml_device(&n, device));
		}
		(void)n.shutdown();
	}
}

static void put_nvidia(const struct sys_ctx *ctx, json_t *out)
{
	char line[512];

	if (ag_sys_read_line(ctx, line, sizeof(line), "/proc/driver/nvidia/version") < 0)
		return;
	ag_sys_set_text(out, "nvidia_driver", line);
	if (!*ctx->root)
		put_nvml(out);
}

static void put_amdgpu(const struct sys_ctx *ctx, const char *address, json_t *device)
{
	static const char *const files[][2] = { { "gpu_busy_percent", "busy_percent" },
		                                { "mem_info_vram_total", "memory_total_bytes" },
		                                { "mem_info_vram_used", "memory_used_bytes" } };
	uint64_t v;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		if (ag_sys_read_number(ctx, &v, "/sys/bus/pci/devices/%s/%s", address, files[i][0]))
			ag_sys_set_u64(device, files[i][1], v);
	}
}

static const char *vendor_name(const char *id)
{
	static const char *const names[][2] = {
		{ "0x10de", "NVIDIA" }, { "0x1002", "AMD" },   { "0x8086", "Intel" },        { "0x1a03", "ASPEED" },
		{ "0x102b", "Matrox" }, { "0x1234", "QEMU" },  { "0x1af4", "virtio" },       { "0x15ad", "VMware" },
		{ "0x19e5", "Huawei" }, { "0x1d94", "Hygon" }, { "0x1ed5", "Moore Threads" }
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(id, names[i][0]) == 0)
			return names[i][1];
	}
	return id;
}

void ag_sys_gpu(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/sys/bus/pci/devices");
	char class[32], id[32], path[4096], driver[256];
	json_t *devices = ag_sys_array(out, "devices");
	const char *name;

	while (dir && (name = ag_sys_next_entry(dir))) {
		json_t *device;
		ssize_t n;

		if (ag_sys_read_line(ctx, class, sizeof(class), "/sys/bus/pci/devices/%s/class", name) < 0)
			continue;
		/* 03xxxx display, 12xxxx processing accelerator */
		if (strncmp(class, "0x03", 4) != 0 && strncmp(class, "0x12", 4) != 0)
			continue;
		device = json_object();
		ag_sys_set_text(device, "address", name);
		ag_sys_set_text(device, "class", strncmp(class, "0x03", 4) == 0 ? "display" : "accelerator");
		if (ag_sys_read_line(ctx, id, sizeof(id), "/sys/bus/pci/devices/%s/vendor", name) == 0)
			ag_sys_set_text(device, "vendor", vendor_name(id));
		if (ag_sys_read_line(ctx, id, sizeof(id), "/sys/bus/pci/devices/%s/device", name) == 0)
			ag_sys_set_text(device, "device_id", id);
		if (ag_sys_path(ctx, path, sizeof(path), "/sys/bus/pci/devices/%s/driver", name) == 0 &&
		    (n = readlink(path, driver, sizeof(driver) - 1)) > 0) {
			const char *base;

			driver[n] = '\0';
			base = strrchr(driver, '/');
			ag_sys_set_text(device, "driver", base ? base + 1 : driver);
		}
		put_amdgpu(ctx, name, device);
		ag_sys_append_take(devices, device);
	}
	put_nvidia(ctx, out);
	if (json_array_size(devices) == 0)
		ag_sys_note(out, "No display or accelerator device is on the PCI bus.",
		            "PCI 总线上没有显示或加速设备。", NULL);
}
