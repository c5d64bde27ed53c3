/* The one symbol of a plugin. GPU_KIND is its name, set by the build. */
#include <stdio.h>

#include "gpu/open.h"
#include "kernel_plugin.h"

static void (*tell)(const char *text);

static void on_failure(const char *backend, const char *op, const char *text)
{
	char line[512];

	(void)snprintf(line, sizeof(line), "backend %s: %s failed%s%s", backend, op, *text ? ": " : "", text);
	if (tell)
		tell(line);
}

static void on_note(const char *backend, const char *text)
{
	char line[512];

	(void)snprintf(line, sizeof(line), "backend %s: %s", backend, text);
	if (tell)
		tell(line);
}

static int open_backend(const struct kn_config *config, void (*note)(const char *text), struct kn_backend **ret_backend,
                        struct err *err)
{
	static const struct gpu_open how = { .on_failure = on_failure, .on_note = on_note };

	tell = note;
	return gpu_backend_open(GPU_KIND, config, &how, ret_backend, err);
}

__attribute__((visibility("default"))) const struct kn_plugin *kn_plugin_entry(void);

const struct kn_plugin *kn_plugin_entry(void)
{
	static const struct kn_plugin plugin = {
		.abi = KN_PLUGIN_ABI, .ops_bytes = sizeof(struct kn_ops), .name = GPU_KIND, .open = open_backend
	};

	return &plugin;
}
