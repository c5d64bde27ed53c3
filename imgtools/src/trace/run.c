/* What the sources of a trace share, and the choice between them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "trace_internal.h"
#include "tracer_internal.h"

/* "a 'b c'": each argument as a shell would need it. */
char *img_trace_read_cmdline(pid_t pid)
{
	CLEANUP(close_fdp) int fd = -1;
	char path[32], raw[IMG_TRACE_CMDLINE_MAX], *out = malloc(IMG_TRACE_CMDLINE_MAX);
	size_t len = 0, end;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, raw, sizeof(raw) - 1);
	if (!out)
		return NULL;
	raw[n > 0 ? n : 0] = '\0';
	for (const char *arg = raw; n > 0 && arg < raw + n; arg += strlen(arg) + 1) {
		bool plain = *arg && strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		                                 "%+,-./:=@_^") == strlen(arg);

		end = len;
		if (len + 3 < IMG_TRACE_CMDLINE_MAX && len)
			out[len++] = ' ';
		for (const char *c = arg; c == arg || *c; c++) {
			/* Room for what one character may need, a closing quote and the 0. */
			if (len + 8 > IMG_TRACE_CMDLINE_MAX) {
				out[end] = '\0';
				return out;
			}
			if (c == arg && !plain)
				out[len++] = '\'';
			if (*c == '\'') {
				memcpy(out + len, "'\\''", 4);
				len += 4;
			} else if (*c) {
				out[len++] = *c;
			} else {
				break;
			}
		}
		if (!plain)
			out[len++] = '\'';
	}
	out[len] = '\0';
	return out;
}

int img_trace_run(const struct img_run *run, enum img_trace_method method, struct img_trace **ret_trace,
                  struct img_run_result *ret_result, struct err *err)
{
	if (method == IMG_TRACE_FANOTIFY)
		return img_trace_fanotify(run, ret_trace, ret_result, err);
	return img_trace_ptrace(run, method == IMG_TRACE_STOPS, ret_trace, ret_result, err);
}
