/* Mounting an image: from the file itself where the kernel can (Linux 6.12), else by a loop device that the kernel lets
 * go with the mount. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "erofs/erofs_mount.h"

enum { LOOP_MAJOR_NUMBER = 7, LOOP_TRIES = 64 };

int flip_erofs_mount_file(const char *source, const char *dir, bool with_acl)
{
	return mount(source, dir, "erofs", MS_RDONLY | MS_NOATIME, with_acl ? NULL : "noacl") < 0 ? -errno : 0;
}

/* /dev/loopN; where /dev is not the kernel's own and lacks it, a node of our own for as long as it takes. */
static int open_loop(int number)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "/dev/loop%d", number);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 || errno != ENOENT)
		return fd < 0 ? -errno : fd;
	(void)snprintf(path, sizeof(path), "/dev/.flip-loop%d-%d", number, (int)getpid());
	if (mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR_NUMBER, (unsigned)number)) < 0)
		return -errno;
	fd = open(path, O_RDWR | O_CLOEXEC);
	fd = fd < 0 ? -errno : fd;
	(void)unlink(path);
	return fd;
}

static int configure_loop(int loop, int file, const char *image)
{
	struct loop_config c = { .fd = (__u32)file,
		                 .block_size = EROFS_BLOCK,
		                 .info = { .lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR } };

	(void)snprintf((char *)c.info.lo_file_name, sizeof(c.info.lo_file_name), "%s", image);
	return ioctl(loop, LOOP_CONFIGURE, &c) < 0 ? -errno : 0;
}

/* A free device that reads the image; someone else may be quicker with one, then the next is tried. */
static int attach_loop(const char *image)
{
	CLEANUP(close_fdp) int file = open(image, O_RDONLY | O_CLOEXEC);
	CLEANUP(close_fdp) int control = -1;
	int r = -EBUSY;

	if (file < 0)
		return -errno;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return -errno;
	for (int i = 0; i < LOOP_TRIES && r == -EBUSY; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE), loop = number < 0 ? -errno : open_loop(number);

		if (loop < 0)
			return loop;
		r = configure_loop(loop, file, image);
		if (r == 0)
			return loop;
		(void)close(loop);
	}
	return r;
}

int flip_erofs_mount_loop(const char *image, const char *dir, bool with_acl)
{
	CLEANUP(close_fdp) int loop = attach_loop(image);
	char source[64];

	if (loop < 0)
		return loop;
	(void)snprintf(source, sizeof(source), "/proc/self/fd/%d", loop);
	return flip_erofs_mount_file(source, dir, with_acl);
}

/* The label tells whether an inode has an ACL: without, the kernel need not look for one at every check. What others
 * wrote has no label of ours, and may have ACLs. */
static int read_label(const char *image, bool *ret_with_acl, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(image, O_RDONLY | O_CLOEXEC);
	char label[sizeof(((struct erofs_super *)NULL)->volume_name)] = FLIP_EROFS_LABEL;
	struct erofs_super s;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", image, strerror(errno));
	if (pread(fd, &s, sizeof(s), EROFS_SUPER_AT) != (ssize_t)sizeof(s))
		return err_set(err, -EBADMSG, "%s: no EROFS image", image);
	*ret_with_acl = memcmp(s.volume_name, label, sizeof(label)) != 0;
	/* A few MB that the first start needs anyway: in one go rather than block by block. */
	(void)posix_fadvise(fd, 0, st.st_size, POSIX_FADV_WILLNEED);
	return 0;
}

int flip_erofs_mount(const char *image, const char *dir, const struct flip_kernel *k, struct err *err)
{
	bool with_acl = true;
	int r = read_label(image, &with_acl, err);

	if (r < 0)
		return r;
	if (!k->erofs)
		return err_set(err, -ENOSYS, "%s: this kernel has no EROFS", image);
	r = k->erofs_file ? flip_erofs_mount_file(image, dir, with_acl) : -ENOTBLK;
	if (r == -ENOTBLK || r == -EINVAL) /* also: from a file system whose files it does not take */
		r = flip_erofs_mount_loop(image, dir, with_acl);
	return r < 0 ? err_set(err, r, "%s: cannot mount on %s: %s", image, dir, strerror(-r)) : 0;
}

int flip_unmount(const char *dir, bool lazy, struct err *err)
{
	if (umount2(dir, UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT)
		return 0;
	if (errno == EBUSY && lazy && umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH) == 0)
		return 0;
	return err_set(err, -errno, "%s: cannot unmount: %s", dir, strerror(errno));
}

bool flip_is_mountpoint(const char *dir)
{
	struct statx x;

	if (statx(AT_FDCWD, dir, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &x) < 0)
		return errno == ENOTCONN || errno == ECONNABORTED; /* its file system's server is dead */
	return x.stx_attributes_mask & x.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}
