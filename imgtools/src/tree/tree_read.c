/* The bytes of file nodes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tree_internal.h"

int img_node_open(const struct img_node *n, int *ret_fd, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	struct stat st;

	if (n->type != IMG_FILE)
		return err_set(err, -EINVAL, "%s: not a file", n->path);
	if (n->data || n->size == 0) {
		*ret_fd = -1;
		return 0;
	}
	if (!n->source)
		return err_set(err, -ENODATA, "%s: its bytes are not here", n->path);
	/* O_NONBLOCK: should it have become a FIFO, nobody waits for its other end. */
	fd = open(n->source, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", n->source, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: not a regular file any more", n->source);
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static ssize_t read_some(int fd, const struct img_node *n, void *buf, size_t size, uint64_t offset, struct err *err)
{
	size_t got = 0;

	if (offset >= n->size)
		return 0;
	if (size > n->size - offset)
		size = (size_t)(n->size - offset);
	if (size > SSIZE_MAX)
		size = SSIZE_MAX;
	if (fd < 0) {
		memcpy(buf, (const char *)n->data + offset, size);
		return (ssize_t)size;
	}
	while (got < size) {
		ssize_t r = pread(fd, (char *)buf + got, size - got, (off_t)(offset + got));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_set(err, -errno, "%s: %s", n->source, strerror(errno));
		if (r == 0)
			break;
		got += (size_t)r;
	}
	return (ssize_t)got;
}

ssize_t img_node_read(const struct img_node *n, void *buf, size_t size, uint64_t offset, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	int r = img_node_open(n, &fd, err);

	return r < 0 ? r : read_some(fd, n, buf, size, offset, err);
}

int img_node_read_all(const struct img_node *n, uint64_t max_size, void **ret_data, size_t *ret_size, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	CLEANUP(freep) char *data = NULL;
	int r = img_node_open(n, &fd, err);
	ssize_t got;

	if (r < 0)
		return r;
	if (n->size > max_size || n->size >= SSIZE_MAX)
		return err_set(err, -EFBIG, "%s: %llu bytes, more than the %llu that are taken", n->path,
		               (unsigned long long)n->size, (unsigned long long)max_size);
	data = malloc((size_t)n->size + 1);
	if (!data)
		return err_set(err, -ENOMEM, "%s: out of memory", n->path);
	got = read_some(fd, n, data, (size_t)n->size, 0, err);
	if (got < 0)
		return (int)got;
	data[got] = '\0';
	*ret_data = data;
	*ret_size = (size_t)got;
	data = NULL;
	return 0;
}
