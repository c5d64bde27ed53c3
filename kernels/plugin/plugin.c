/* Finding and loading a GPU plugin. The program needs none: where it is not installed, or there is no driver, the
 * reason is said and the caller takes the CPU. A plugin that was opened once stays loaded. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "kernel_plugin.h"

enum { PATH_BYTES = 4096 };

static void note(const char *text)
{
	base_log(BASE_LOG_INFO, "%s", text);
}

/* The folder of the running program, without a '/' at its end; "" when it is not known. */
static void program_folder(char *folder, size_t bytes)
{
	ssize_t n = readlink("/proc/self/exe", folder, bytes - 1);
	char *slash;

	folder[n < 0 ? 0 : n] = '\0';
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
}

/* $OCAI_PLUGIN_DIR alone where it is set; else beside the program as it was built or installed, then where the package
 * puts it. */
static int find(const char *kind, char *path, size_t bytes)
{
	static const char *const beside[] = { "/../plugins", "/../lib64/ocai", "/../lib/ocai" };
	static const char *const installed[] = { OCAI_PREFIX "/lib64/ocai", OCAI_PREFIX "/lib/ocai" };
	const char *named = getenv("OCAI_PLUGIN_DIR");
	char folder[PATH_BYTES];

	if (named && *named) {
		(void)snprintf(path, bytes, "%s/libocai-engine-%s.so", named, kind);
		return access(path, R_OK) == 0 ? 0 : -ENOENT;
	}
	program_folder(folder, sizeof(folder));
	for (size_t i = 0; *folder && i < sizeof(beside) / sizeof(beside[0]); i++) {
		if ((size_t)snprintf(path, bytes, "%s%s/libocai-engine-%s.so", folder, beside[i], kind) < bytes &&
		    access(path, R_OK) == 0)
			return 0;
	}
	for (size_t i = 0; i < sizeof(installed) / sizeof(installed[0]); i++) {
		(void)snprintf(path, bytes, "%s/libocai-engine-%s.so", installed[i], kind);
		if (access(path, R_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

/* The HIP plugin names its runtime's functions without naming a library, whose version changes with every release of
 * ROCm: whichever is here is loaded first. */
static int load_hip_runtime(struct err *err)
{
	static const char *const names[] = { "libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (dlopen(names[i], RTLD_NOW | RTLD_GLOBAL))
			return 0;
	}
	return err_set(err, -ELIBACC, "backend hip: no ROCm here: libamdhip64.so.7, .6 and .5 cannot be loaded");
}

static int load(const char *kind, const char *path, const struct kn_plugin **ret_plugin, struct err *err)
{
	void *library;
	void *symbol;
	kn_plugin_entry_fn entry;
	const struct kn_plugin *p;

	if (strcmp(kind, "hip") == 0 && load_hip_runtime(err) < 0)
		return -ELIBACC;
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return err_set(err, -ELIBACC, "backend %s: %s", kind, dlerror());
	symbol = dlsym(library, "kn_plugin_entry");
	memcpy(&entry, &symbol, sizeof(entry));
	p = symbol ? entry() : NULL;
	if (!p || p->abi != KN_PLUGIN_ABI || p->ops_bytes != sizeof(struct kn_ops) || strcmp(p->name, kind) != 0) {
		int r = !p ? err_set(err, -ELIBACC, "backend %s: %s is not one of its plugins", kind, path)
		           : err_set(err, -ELIBACC,
		                     "backend %s: %s is of another version (abi %u, this program's is %d)", kind, path,
		                     p->abi, KN_PLUGIN_ABI);

		(void)dlclose(library);
		return r;
	}
	*ret_plugin = p;
	return 0;
}

int kn_plugin_open(const char *kind, const struct kn_config *config, struct kn_backend **ret_backend, struct err *err)
{
	const struct kn_plugin *plugin = NULL;
	char path[PATH_BYTES + 64];
	int r = find(kind, path, sizeof(path));

	if (r < 0)
		return err_set(err, r, "backend %s: its plugin libocai-engine-%s.so is not installed", kind, kind);
	r = load(kind, path, &plugin, err);
	return r < 0 ? r : plugin->open(config, note, ret_backend, err);
}
