/* A key's file is opened once and judged by what was opened, so that nothing can be put in its place meanwhile. */
#include "key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

enum { MAX_KEY_BYTES = 16 << 10 };

static int read_line(int fd, const char *path, char *line, size_t size, struct err *err)
{
	size_t n = 0;
	ssize_t got;

	while (n + 1 < size && (got = read(fd, line + n, size - 1 - n)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		n += (size_t)got;
	}
	line[n] = '\0';
	n = strcspn(line, "\r\n");
	if (n == 0)
		return err_set(err, -EINVAL, "%s: the key file is empty", path);
	if (n + 1 == size)
		return err_set(err, -EFBIG, "%s: the key is longer than %zu bytes", path, size - 2);
	line[n] = '\0';
	return 0;
}

int ag_key_header(const char *path, char **ret_header, struct err *err)
{
	CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char line[MAX_KEY_BYTES];
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (S_ISREG(st.st_mode) && (st.st_mode & 077))
		return err_set(err, -EPERM, "%s: others can read the key (mode %03o); chmod 600 it", path,
		               (unsigned)st.st_mode & 0777);
	r = read_line(fd, path, line, sizeof(line), err);
	if (r < 0)
		return r;
	return asprintf(ret_header, "Authorization: Bearer %s", line) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
}
