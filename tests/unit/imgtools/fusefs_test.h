/* What the tests of the FUSE file system share: a mount namespace of their own, a folder, comparing contents. */
#ifndef FUSEFS_TEST_H
#define FUSEFS_TEST_H

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fusefs_owner.h"
#include "test.h"

struct fusefs_place {
	char dir[64], mountpoint[96], store[96], state[96];
};

static inline void remove_place(const struct fusefs_place *p)
{
	char command[160];

	(void)umount2(p->mountpoint, MNT_DETACH);
	(void)snprintf(command, sizeof(command), "rm -rf --one-file-system %s", p->dir);
	(void)!system(command);
}

/* False when this machine has no FUSE for us. */
static inline bool fusefs_can(void)
{
	int fd = geteuid() == 0 ? open("/dev/fuse", O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return false;
	(void)close(fd);
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static inline void make_place(struct fusefs_place *p)
{
	(void)snprintf(p->dir, sizeof(p->dir), "/var/tmp/test-fusefs-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	(void)snprintf(p->mountpoint, sizeof(p->mountpoint), "%s/mnt", p->dir);
	(void)snprintf(p->store, sizeof(p->store), "%s/store", p->dir);
	(void)snprintf(p->state, sizeof(p->state), "%s/state", p->dir);
	assert_int_equal(mkdir(p->mountpoint, 0755), 0);
	assert_int_equal(mkdir(p->store, 0755), 0);
}

static inline int open_object(const struct fusefs_place *p, uint64_t id)
{
	char path[300];

	owner_path(p->mountpoint, id, path, sizeof(path));
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* Whether [offset, offset + size) of the file are the pattern's; a read that fails is its negative errno. */
static inline int check_range(int fd, uint64_t id, uint64_t offset, size_t size)
{
	uint8_t *data = malloc(size);
	size_t done = 0;
	int r = 0;

	while (done < size && r == 0) {
		ssize_t n = pread(fd, data + done, size - done, (off_t)(offset + done));

		if (n <= 0)
			r = n < 0 ? -errno : -ENODATA;
		else
			done += (size_t)n;
	}
	for (size_t i = 0; i < size && r == 0; i++)
		if (data[i] != owner_byte(id, offset + i))
			r = -EBADMSG;
	free(data);
	return r;
}

#endif
