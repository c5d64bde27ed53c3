/* What the kernel can do, found out by doing it: a small image is mounted both ways in a private mount namespace, an
 * overlay with a data-only layer on top of it must show the content, and a FUSE mount tells what its kernel side offers
 * in the first request. A child does it, whose mounts vanish with it. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "erofs/erofs_mount.h"

enum { HAS_EROFS = 1, HAS_EROFS_FILE = 2, HAS_DATA_ONLY = 4, HAS_FUSE = 8, HAS_PASSTHROUGH = 16 };
enum { FUSE_WAIT_MS = 2000, FUSE_OPCODE_INIT = 26, FUSE_MIN_READ = 8192 };
#define FUSE_FLAG_INIT_EXT (1u << 30)
#define FUSE_FLAG2_PASSTHROUGH (1u << (37 - 32))

static const char content[] = "what the redirect leads to\n";

/* Everything the child needs, made before it is: it may only call what is safe after fork(). */
struct probe {
	char dir[256];
	char image[300], erofs[300], merged[300], objects[300], object_dir[320], object[400], overlay[700], file[320];
};

static const uint8_t *digest_of(const struct img_node *n, void *arg)
{
	(void)n;
	return arg;
}

static int write_image(const struct probe *p, const uint8_t digest[BASE_SHA256_SIZE])
{
	struct img_node n = { .path = "/f", .mode = 0444, .size = strlen(content), .package = -1, .layer = -1 };
	struct img_tree *t = img_tree_new();
	int r = t ? img_tree_add(t, &n, NULL, NULL) : -ENOMEM;

	if (r == 0)
		r = flip_erofs_write(t, digest_of, (void *)digest, p->image, NULL);
	img_tree_free(t);
	return r;
}

static int prepare(struct probe *p, const char *scratch_dir)
{
	uint8_t digest[BASE_SHA256_SIZE];
	char hex[BASE_SHA256_HEX_SIZE];
	int r = base_sha256_bytes(content, strlen(content), digest);

	if (r < 0)
		return r;
	base_sha256_hex(digest, hex);
	if (snprintf(p->dir, sizeof(p->dir), "%s/probe-XXXXXX", scratch_dir) >= (int)sizeof(p->dir) || !mkdtemp(p->dir))
		return -EINVAL;
	(void)snprintf(p->image, sizeof(p->image), "%s/image", p->dir);
	(void)snprintf(p->erofs, sizeof(p->erofs), "%s/erofs", p->dir);
	(void)snprintf(p->merged, sizeof(p->merged), "%s/merged", p->dir);
	(void)snprintf(p->objects, sizeof(p->objects), "%s/objects", p->dir);
	(void)snprintf(p->object_dir, sizeof(p->object_dir), "%s/%.2s", p->objects, hex);
	(void)snprintf(p->object, sizeof(p->object), "%s/%s", p->object_dir, hex + 2);
	(void)snprintf(p->file, sizeof(p->file), "%s/f", p->merged);
	/* Relative to the working directory, which is p->dir: a ':' in its path is no separator then. */
	(void)snprintf(p->overlay, sizeof(p->overlay), "lowerdir=erofs::objects,metacopy=on,redirect_dir=on");
	if (mkdir(p->erofs, 0700) < 0 || mkdir(p->merged, 0700) < 0 || mkdir(p->objects, 0700) < 0 ||
	    mkdir(p->object_dir, 0700) < 0)
		return -errno;
	r = base_write_file_atomic(p->object, content, strlen(content), 0444, NULL);
	return r < 0 ? r : write_image(p, digest);
}

static void clean(const struct probe *p)
{
	(void)unlink(p->object);
	(void)unlink(p->image);
	(void)rmdir(p->object_dir);
	(void)rmdir(p->objects);
	(void)rmdir(p->erofs);
	(void)rmdir(p->merged);
	(void)rmdir(p->dir);
}

/* ---- In the child ----------------------------------------------------------------------------------------- */

static bool shows_content(const char *path)
{
	char got[sizeof(content)];
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && read(fd, got, sizeof(got)) == (ssize_t)strlen(content) &&
	       memcmp(got, content, strlen(content)) == 0;
}

static int try_erofs(const struct probe *p)
{
	int found = 0;

	if (flip_erofs_mount_file(p->image, p->erofs, true) == 0)
		found = HAS_EROFS | HAS_EROFS_FILE;
	else if (flip_erofs_mount_loop(p->image, p->erofs, true) == 0)
		found = HAS_EROFS;
	if (found && chdir(p->dir) == 0 && mount("overlay", p->merged, "overlay", MS_RDONLY, p->overlay) == 0) {
		if (shows_content(p->file))
			found |= HAS_DATA_ONLY;
		(void)umount2(p->merged, MNT_DETACH);
	}
	return found;
}

/* The first request of a FUSE mount lists what the kernel offers: 40 bytes of header (length, opcode, ...), then
 * version, readahead, flags, and the second half of the flags. */
static int try_fuse(const struct probe *p)
{
	CLEANUP(close_fdp) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	union {
		uint32_t words[FUSE_MIN_READ / sizeof(uint32_t)];
		char bytes[FUSE_MIN_READ];
	} request;
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	char options[100];
	ssize_t n;

	if (fd < 0)
		return 0;
	(void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mount("probe", p->merged, "fuse", MS_RDONLY | MS_NODEV | MS_NOSUID, options) < 0)
		return 0;
	n = poll(&wait, 1, FUSE_WAIT_MS) == 1 ? read(fd, request.bytes, sizeof(request.bytes)) : 0;
	if (n < 60 || request.words[1] != FUSE_OPCODE_INIT || !(request.words[13] & FUSE_FLAG_INIT_EXT))
		return HAS_FUSE;
	return HAS_FUSE | (request.words[14] & FUSE_FLAG2_PASSTHROUGH ? HAS_PASSTHROUGH : 0);
}

static int try_all(const struct probe *p)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return 0;
	return try_erofs(p) | try_fuse(p);
}

void flip_kernel_probe(const char *scratch_dir, struct flip_kernel *ret_kernel)
{
	struct probe p = { .dir = "" };
	int status = 0, found = 0;

	if (geteuid() == 0 && prepare(&p, scratch_dir) == 0) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(try_all(&p));
		while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (pid > 0 && WIFEXITED(status))
			found = WEXITSTATUS(status);
	}
	if (p.dir[0])
		clean(&p);
	*ret_kernel = (struct flip_kernel){ .erofs = found & HAS_EROFS,
		                            .erofs_file = found & HAS_EROFS_FILE,
		                            .overlay_data_only = found & HAS_DATA_ONLY,
		                            .fuse = found & HAS_FUSE,
		                            .fuse_passthrough = found & HAS_PASSTHROUGH };
}
