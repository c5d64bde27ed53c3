/* What a GPU plugin offers the program that loads it: libocai-engine-cuda.so and libocai-engine-hip.so export one
 * function, kn_plugin_entry(). Both sides are built from one tree; abi says so. */
#ifndef KERNEL_PLUGIN_H
#define KERNEL_PLUGIN_H

#include "kernels.h"

/* Counts up with every change of kernels.h or of this file that a plugin built before would misread. */
enum { KN_PLUGIN_ABI = 6 };

struct kn_plugin {
	uint32_t abi;
	uint32_t ops_bytes; /* sizeof(struct kn_ops): catches what was forgotten to be counted */
	const char *name;   /* "cuda", "hip" */
	/* -ENODEV with the reason: no driver, no device, one too old. note (may be NULL) is told what a person should
	 * know and is no failure. */
	int (*open)(const struct kn_config *config, void (*note)(const char *text), struct kn_backend **ret_backend,
	            struct err *err);
};

typedef const struct kn_plugin *(*kn_plugin_entry_fn)(void);

/* The host program's side (kernels/plugin.c). -ENOENT: the plugin is not installed; -ELIBACC: it cannot be loaded, or
 * is of another version; else what open() says. */
int kn_plugin_open(const char *kind, const struct kn_config *config, struct kn_backend **ret_backend, struct err *err);

#endif
