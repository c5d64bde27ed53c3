/* A plugin of another version, for test_plugin.c. */
#include <errno.h>

#include "kernel_plugin.h"

const struct kn_plugin *kn_plugin_entry(void);

static int never(const struct kn_config *config, void (*note)(const char *text), struct kn_backend **ret_backend,
                 struct err *err)
{
	(void)config;
	(void)note;
	(void)ret_backend;
	(void)err;
	return -EIO;
}

const struct kn_plugin *kn_plugin_entry(void)
{
	static const struct kn_plugin plugin = {
		.abi = KN_PLUGIN_ABI + 1, .ops_bytes = sizeof(struct kn_ops), .name = "cuda", .open = never
	};

	return &plugin;
}
