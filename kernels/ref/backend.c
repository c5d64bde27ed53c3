/* The one place where a backend is chosen by name. */
#include <errno.h>
#include <string.h>

#include "kernel_plugin.h"

int kn_backend_open(const char *kind, const struct kn_config *config, struct kn_backend **ret_backend, struct err *err)
{
	if (strcmp(kind, "ref") == 0)
		return kn_ref_open(config, ret_backend, err);
	if (strcmp(kind, "cpu") == 0)
		return kn_cpu_open(config, ret_backend, err);
	if (strcmp(kind, "cuda") == 0 || strcmp(kind, "hip") == 0)
		return kn_plugin_open(kind, config, ret_backend, err);
	return err_set(err, -EINVAL, "no backend is called \"%s\" (ref, cpu, cuda, hip)", kind);
}
