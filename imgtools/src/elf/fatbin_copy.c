/* Copying a file with holes where code was dropped. The kernel copies what stays (sharing it where the file system
 * can). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "elf/fatbin.h"

enum { CHUNK = 1 << 20 };

/* Where the kernel cannot copy between the two (other file systems, old kernels). */
static int copy_by_hand(int in, int out, uint64_t offset, uint64_t size)
{
	CLEANUP(freep) char *buf = malloc(CHUNK);

	if (!buf)
		return -ENOMEM;
	while (size > 0) {
		ssize_t n = pread(in, buf, size < CHUNK ? size : CHUNK, (off_t)offset);

		if (n == 0)
			return -ENODATA; /* shorter than it was */
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || pwrite(out, buf, (size_t)n, (off_t)offset) != n)
			return errno ? -errno : -EIO;
		offset += (uint64_t)n;
		size -= (uint64_t)n;
	}
	return 0;
}

static int copy_range(int in, int out, uint64_t offset, uint64_t size)
{
	off_t from = (off_t)offset, to = (off_t)offset;

	while (size > 0) {
		ssize_t n = copy_file_range(in, &from, out, &to, size, 0);

		if (n <= 0)
			return n < 0 && errno == ENOSPC ? -ENOSPC : copy_by_hand(in, out, (uint64_t)to, size);
		size -= (uint64_t)n;
	}
	return 0;
}

static int copy_kept(int in, int out, uint64_t size, const struct img_fatbin_plan *plan)
{
	uint64_t at = 0;

	for (size_t i = 0; i < plan->n_zero; i++) {
		int r = copy_range(in, out, at, plan->zero[i].offset - at);

		if (r < 0)
			return r;
		at = plan->zero[i].offset + plan->zero[i].size_bytes;
	}
	return at < size ? copy_range(in, out, at, size - at) : 0;
}

int img_fatbin_copy(const char *from, const char *to, const struct img_fatbin_plan *plan, struct err *err)
{
	CLEANUP(close_fdp) int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	CLEANUP(freep) char *tmp = NULL;
	struct timespec times[2];
	struct stat st;
	int r = 0;

	if (in < 0 || fstat(in, &st) < 0)
		return err_set(err, -errno, "%s: %s", from, strerror(errno));
	if (plan->n_zero > 0 &&
	    plan->zero[plan->n_zero - 1].offset + plan->zero[plan->n_zero - 1].size_bytes > (uint64_t)st.st_size)
		return err_set(err, -EINVAL, "%s: it has become shorter than when it was looked at", from);
	if (asprintf(&tmp, "%s.XXXXXX", to) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", to);
	out = mkostemp(tmp, O_CLOEXEC);
	if (out < 0)
		return err_set(err, -errno, "%s: %s", tmp, strerror(errno));
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	if (ftruncate(out, st.st_size) < 0)
		r = -errno;
	if (r == 0)
		r = copy_kept(in, out, (uint64_t)st.st_size, plan);
	if (r == 0 &&
	    (fchmod(out, st.st_mode & 07777) < 0 || futimens(out, times) < 0 || fsync(out) < 0 || rename(tmp, to) < 0))
		r = -errno;
	if (r < 0) {
		(void)unlink(tmp);
		return err_set(err, r, "%s: %s", to, strerror(-r));
	}
	return 0;
}
