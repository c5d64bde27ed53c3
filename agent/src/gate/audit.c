/* The audit log: one JSON object a line, in the order of time. The log is opened for appending, locked while a line is
 * written in one write(), and synced, so that lines of several programs do not mix and a crash leaves whole lines. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "risk_internal.h"

enum { MAX_AUDIT_BYTES = 4 * 1024 * 1024, MAX_COMMAND_BYTES = 16 * 1024 };

int ag_gate_audit_path(struct base_buf *ret_path, struct err *err)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

	if (state && *state == '/')
		return base_buf_printf(ret_path, "%s/ocai/audit.jsonl", state);
	if (!home || *home != '/')
		return err_set(err, -ENOENT, "HOME is not set, so there is no place for the audit log");
	return base_buf_printf(ret_path, "%s/.local/state/ocai/audit.jsonl", home);
}

static int put_string(struct base_buf *b, const char *key, const char *value)
{
	(void)base_buf_printf(b, ",\"%s\":", key);
	return base_json_append_string(b, value, strlen(value));
}

static int put_line(struct base_buf *b, const struct ag_gate_audit_entry *e)
{
	struct base_buf masked = BASE_BUF_INIT(MAX_COMMAND_BYTES * 2);
	const char *command = e->command ? e->command : "";
	size_t len = strnlen(command, MAX_COMMAND_BYTES);
	char stamp[64] = "", cwd[PATH_MAX] = "";
	struct timespec now;
	struct tm tm;
	int r;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (gmtime_r(&now.tv_sec, &tm))
		(void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	if (!e->cwd && !getcwd(cwd, sizeof(cwd)))
		cwd[0] = '\0';
	r = ag_gate_mask(command, len, &masked);
	(void)base_buf_printf(b, "{\"time\":\"%s.%03ldZ\",\"uid\":%u", stamp, now.tv_nsec / 1000000,
	                      (unsigned)getuid());
	(void)put_string(b, "origin", e->origin ? e->origin : "");
	(void)put_string(b, "cwd", e->cwd ? e->cwd : cwd);
	/* a command that cannot be masked is not written at all */
	(void)put_string(b, "command", r < 0 ? "[not recorded: it could not be masked]" : base_buf_text(&masked));
	if (command[len])
		(void)base_buf_puts(b, ",\"cut\":true");
	(void)put_string(b, "class", ag_gate_class_name(e->class));
	(void)put_string(b, "verdict", ag_gate_verdict_name(e->verdict));
	(void)base_buf_printf(b, ",\"ran\":%s,\"exit_code\":", e->ran ? "true" : "false");
	if (e->ran)
		(void)base_buf_printf(b, "%d}\n", e->exit_code);
	else
		(void)base_buf_puts(b, "null}\n");
	base_buf_done(&masked);
	return base_buf_error(b);
}

/* Opens and locks the log; another program may have rotated it between the two, so the name is looked at again. */
static int open_locked(const char *path, int *ret_fd, struct stat *st, struct err *err)
{
	for (unsigned turn = 0; turn < 16; turn++) {
		CLEANUP(close_fdp) int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		struct stat named;

		if (fd < 0)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (flock(fd, LOCK_EX) < 0 || fstat(fd, st) < 0)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (!S_ISREG(st->st_mode))
			return err_set(err, -EINVAL, "%s: not a regular file", path);
		if (lstat(path, &named) < 0 || named.st_ino != st->st_ino || named.st_dev != st->st_dev)
			continue;
		*ret_fd = fd;
		fd = -1;
		return 0;
	}
	return err_set(err, -EAGAIN, "%s: it is being rotated all the time", path);
}

static int append_line(const char *path, const struct base_buf *line, uint64_t max_bytes, struct err *err)
{
	for (unsigned turn = 0;; turn++) {
		CLEANUP(close_fdp) int fd = -1;
		CLEANUP(freep) char *old = NULL;
		struct stat st;
		ssize_t n;
		int r = open_locked(path, &fd, &st, err);

		if (r < 0)
			return r;
		if (st.st_size > 0 && (uint64_t)st.st_size + line->len > max_bytes && turn == 0) {
			if (asprintf(&old, "%s.1", path) < 0)
				return err_set(err, -ENOMEM, "out of memory");
			if (rename(path, old) < 0)
				return err_set(err, -errno, "%s: %s", old, strerror(errno));
			continue;
		}
		if ((st.st_mode & 077) && fchmod(fd, 0600) < 0)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		n = write(fd, line->data, line->len);
		if (n == (ssize_t)line->len)
			return fdatasync(fd) < 0 && errno != EINVAL && errno != EROFS
			               ? err_set(err, -errno, "%s: %s", path, strerror(errno))
			               : 0;
		r = n < 0 ? -errno : -ENOSPC;
		if (n > 0 && ftruncate(fd, st.st_size) < 0) /* no half lines */
			r = -errno;
		return err_set(err, r, "%s: %s", path, strerror(-r));
	}
}

int ag_gate_audit(const char *path, const struct ag_gate_audit_entry *entry, uint64_t max_bytes, struct err *err)
{
	struct base_buf line = BASE_BUF_INIT(512 * 1024);
	int r = put_line(&line, entry);

	if (r < 0)
		(void)err_set(err, r, "%s: the entry is too large", path);
	if (r >= 0)
		r = base_make_parents(path, 0700, err);
	if (r >= 0)
		r = append_line(path, &line, max_bytes ? max_bytes : MAX_AUDIT_BYTES, err);
	base_buf_done(&line);
	return r < 0 ? r : 0;
}
