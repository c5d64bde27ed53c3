/* Any bytes as etc/passwd and etc/group of a root (cut at the first zero byte), and the user that is looked for (the
 * first line). */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/runtime_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char root[64];

static void clean(void)
{
	img_run_remove_tree(root);
}

static int make_root(void)
{
	char path[128];

	(void)snprintf(root, sizeof(root), "%s/fuzz-user-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	if (!mkdtemp(root))
		return -1;
	(void)atexit(clean);
	(void)snprintf(path, sizeof(path), "%s/etc", root);
	return mkdir(path, 0755);
}

static void put(const char *name, const uint8_t *data, size_t size)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/etc/%s", root, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nl = size ? memchr(data, '\n', size) : NULL;
	size_t len = nl ? (size_t)(nl - data) : size, half;
	const char *roots[1] = { root };
	struct img_run_user user = { .n_groups = 0 };
	const uint8_t *zero;
	char *who;

	if (!root[0] && make_root() < 0)
		return 0;
	who = strndup((const char *)data, len);
	data += nl ? len + 1 : len;
	size -= nl ? len + 1 : len;
	zero = size ? memchr(data, 0, size) : NULL;
	half = zero ? (size_t)(zero - data) : size;
	put("passwd", data, half);
	put("group", zero ? zero + 1 : data, zero ? size - half - 1 : 0);
	if (who && img_run_find_user(roots, 1, who, &user, NULL) == 0 &&
	    (user.n_groups > IMG_RUN_MAX_GROUPS || strnlen(user.home, sizeof(user.home)) == sizeof(user.home)))
		abort();
	free(who);
	return 0;
}
