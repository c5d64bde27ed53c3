/* Where the root of a container of containerd is: the shim of each task keeps a bundle, a folder named after the
 * container below its state folder, in which `rootfs` is mounted. Docker's containers have their root elsewhere: there
 * config.json of the bundle (OCI runtime specification, "root") says where. */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/mapfile.h"

#include "tracer_internal.h"

static const char bundles[] = "io.containerd.runtime.v2.task"; /* STATE/this/NAMESPACE/ID */

static bool is_mount_point(const char *path)
{
	struct stat here, above;
	char parent[4096];

	(void)snprintf(parent, sizeof(parent), "%s/..", path);
	return stat(path, &here) == 0 && S_ISDIR(here.st_mode) && stat(parent, &above) == 0 &&
	       here.st_dev != above.st_dev;
}

/* "root": { "path": ... } of the bundle; NULL when there is none. */
static char *root_of_config(const char *bundle)
{
	CLEANUP(freep) char *file = NULL;
	json_t *config = NULL, *root;
	const char *path;
	char *ret = NULL;

	if (asprintf(&file, "%s/config.json", bundle) < 0) {
		file = NULL;
		return NULL;
	}
	if (base_json_read_file(file, 16u << 20, &config, NULL) < 0)
		return NULL;
	if (base_json_get_object(config, file, "root", &root, NULL) == 0 &&
	    base_json_get_string(root, file, "path", &path, NULL) == 0 &&
	    asprintf(&ret, "%s%s%s", path[0] == '/' ? "" : bundle, path[0] == '/' ? "" : "/", path) < 0)
		ret = NULL;
	json_decref(config);
	return ret;
}

/* .../io.containerd.runtime.v2.task/NAMESPACE/ID/rootfs among the mounts, wherever the state folder is. */
static char *find_mounted(const char *id)
{
	struct base_buf b = BASE_BUF_INIT(16u << 20);
	char pattern[512], *rest, *line, *root = NULL;

	(void)snprintf(pattern, sizeof(pattern), "*/%s/*/%s/rootfs", bundles, id);
	if (base_read_file("/proc/self/mountinfo", &b, NULL) < 0) {
		base_buf_done(&b);
		return NULL;
	}
	rest = b.data;
	while (!root && rest && (line = strsep(&rest, "\n"))) {
		char *field = NULL;

		for (int i = 0; i < 5 && line; i++)
			field = strsep(&line, " ");
		if (field && line && fnmatch(pattern, field, 0) == 0)
			root = strdup(field);
	}
	base_buf_done(&b);
	return root;
}

static char *find_docker(const char *id)
{
	char *root = NULL, bundle[512];

	(void)snprintf(bundle, sizeof(bundle), "/run/containerd/%s/moby/%s", bundles, id);
	root = root_of_config(bundle);
	if (root && !is_mount_point(root)) {
		free(root);
		root = NULL;
	}
	return root;
}

/* The mounted root of the container; NULL: not there (yet). */
static char *find_root(const char *id)
{
	char *root = find_mounted(id);

	return root ? root : find_docker(id);
}

int img_trace_find_container(const char *id, const volatile sig_atomic_t *stop, unsigned timeout_ms, char **ret_root,
                             struct err *err)
{
	uint64_t deadline = (uint64_t)base_now_ns() + timeout_ms * 1000000ull;
	CLEANUP(close_fdp) int mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	struct pollfd p = { .fd = mounts, .events = POLLPRI };

	if (!*id || strlen(id) > 128 ||
	    strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != strlen(id) ||
	    id[0] == '.')
		return err_set(err, -EINVAL, "\"%s\" is no name of a container", id);
	for (;;) {
		char *root = find_root(id);

		if (root) {
			*ret_root = root;
			return 0;
		}
		if (*stop)
			return err_set(err, -EINTR, "container %s: it did not appear", id);
		if (timeout_ms && (uint64_t)base_now_ns() > deadline)
			return err_set(err, -ETIMEDOUT, "container %s: not there after %u ms", id, timeout_ms);
		/* A new mount wakes us at once: the container's first file must not be missed. */
		(void)poll(&p, 1, 100);
	}
}
