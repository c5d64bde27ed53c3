/* Opening what is inside a root without ever leaving it. openat2() does it in one call; where a kernel or a seccomp
 * filter refuses that, each component is opened by itself with O_NOFOLLOW. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tree_internal.h"

static int open_by_component(int root_fd, const char *path, int flags)
{
	int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	for (const char *p = path + strspn(path, "/"); *p;) {
		size_t len = strcspn(p, "/");
		bool is_last = p[len] == '\0';
		char name[256];
		int next;

		if (len >= sizeof(name)) {
			(void)close(fd);
			return -ENAMETOOLONG;
		}
		memcpy(name, p, len);
		name[len] = '\0';
		next = openat(fd, name, (is_last ? flags : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (next < 0)
			next = -errno;
		(void)close(fd);
		if (next < 0)
			return next;
		fd = next;
		p += len;
		p += strspn(p, "/");
	}
	return fd;
}

int img_open_beneath(int root_fd, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)flags | O_CLOEXEC,
		                .mode = flags & O_CREAT ? 0600 : 0,
		                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	const char *relative = path + strspn(path, "/");
	long fd;

	if (!*relative)
		return (fd = openat(root_fd, ".", flags | O_CLOEXEC)) < 0 ? -errno : (int)fd;
	do
		fd = syscall(SYS_openat2, root_fd, relative, &how, sizeof(how));
	while (fd < 0 && errno == EAGAIN); /* a rename elsewhere during the walk */
	if (fd >= 0)
		return (int)fd;
	return errno == ENOSYS || errno == EPERM ? open_by_component(root_fd, relative, flags) : -errno;
}

void img_fd_path(int dir_fd, const char *name, char ret_path[IMG_FD_PATH_SIZE])
{
	(void)snprintf(ret_path, IMG_FD_PATH_SIZE, "/proc/self/fd/%d/%.255s", dir_fd, name);
}
