/* Users: the utmp records of who is logged in, and failed logins from btmp (mode 0600: root's). Records have the
 * fixed size of glibc's struct utmp; a torn last record is left out. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <utmp.h>

#include "sys/sys_internal.h"

enum { MAX_FAILED_BYTES = 4 << 20, MAX_LISTED = 100 };

static struct sys_span field(const char *p, size_t size)
{
	return ag_sys_span(p, strnlen(p, size));
}

static json_t *record(const struct utmp *u)
{
	json_t *out = json_object();

	ag_sys_set_span(out, "user", field(u->ut_user, sizeof(u->ut_user)));
	ag_sys_set_span(out, "line", field(u->ut_line, sizeof(u->ut_line)));
	if (u->ut_host[0])
		ag_sys_set_span(out, "from", field(u->ut_host, sizeof(u->ut_host)));
	ag_sys_set_u64(out, "time_s", u->ut_tv.tv_sec > 0 ? (uint64_t)u->ut_tv.tv_sec : 0);
	return out;
}

static void put_logged_in(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(8 << 20);
	json_t *list = ag_sys_array(out, "logged_in");
	struct utmp u;

	if (ag_sys_read(ctx, &buf, "/run/utmp") < 0 && ag_sys_read(ctx, &buf, "/var/run/utmp") < 0) {
		ag_sys_note(out, "There is no /run/utmp: who is logged in is not known.",
		            "没有 /run/utmp:不知道谁已登录。", NULL);
		return;
	}
	for (size_t at = 0; at + sizeof(u) <= buf.len && json_array_size(list) < MAX_LISTED; at += sizeof(u)) {
		memcpy(&u, buf.data + at, sizeof(u));
		if (u.ut_type == USER_PROCESS)
			ag_sys_append_take(list, record(&u));
	}
}

/* The end of the file is what matters: it grows without end under attack. */
static int read_tail(const struct sys_ctx *ctx, const char *path, struct base_buf *buf, bool *ret_cut)
{
	char full[4096];
	CLEANUP(close_fdp) int fd = -1;
	off_t size, from = 0;
	char piece[16384];
	ssize_t n;

	if (ag_sys_path(ctx, full, sizeof(full), "%s", path) < 0)
		return -ENAMETOOLONG;
	fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	size = lseek(fd, 0, SEEK_END);
	if (size > MAX_FAILED_BYTES) {
		from = (size - MAX_FAILED_BYTES) / (off_t)sizeof(struct utmp) * (off_t)sizeof(struct utmp);
		*ret_cut = true;
	}
	if (lseek(fd, from, SEEK_SET) < 0)
		return -errno;
	while ((n = read(fd, piece, sizeof(piece))) > 0 && base_buf_append(buf, piece, (size_t)n) == 0)
		;
	return 0;
}

static json_t *group_for(json_t *groups, const struct utmp *u)
{
	struct sys_span user = field(u->ut_user, sizeof(u->ut_user)), host = field(u->ut_host, sizeof(u->ut_host));
	json_t *name = ag_sys_string(user.p, user.n), *from = ag_sys_string(host.p, host.n), *g, *found = NULL;
	size_t i;

	json_array_foreach(groups, i, g)
	{
		if (json_equal(json_object_get(g, "user"), name) && json_equal(json_object_get(g, "from"), from)) {
			found = g;
			break;
		}
	}
	if (!found && json_array_size(groups) < MAX_LISTED) {
		found = json_object();
		(void)json_object_set(found, "user", name);
		(void)json_object_set(found, "from", from);
		ag_sys_append_take(groups, found);
	}
	json_decref(name);
	json_decref(from);
	return found;
}

static void put_failed(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(2 * MAX_FAILED_BYTES);
	json_t *groups = ag_sys_array(out, "failed_logins");
	uint64_t total = 0;
	struct utmp u;
	bool cut = false;
	int r = read_tail(ctx, "/var/log/btmp", &buf, &cut);

	if (r == -EACCES) {
		ag_sys_note(out, "Failed logins (/var/log/btmp) can only be read by root.",
		            "登录失败记录(/var/log/btmp)只有 root 能读取。", NULL);
		return;
	}
	if (r < 0)
		return;
	for (size_t at = 0; at + sizeof(u) <= buf.len; at += sizeof(u)) {
		json_t *g;

		memcpy(&u, buf.data + at, sizeof(u));
		if (u.ut_type == EMPTY)
			continue;
		total++;
		g = group_for(groups, &u);
		if (!g)
			continue;
		ag_sys_set_u64(g, "count", (uint64_t)json_integer_value(json_object_get(g, "count")) + 1);
		ag_sys_set_u64(g, "last_time_s", u.ut_tv.tv_sec > 0 ? (uint64_t)u.ut_tv.tv_sec : 0);
	}
	ag_sys_set_u64(ag_sys_object(out, "failed"), "logins", total);
	if (cut)
		ag_sys_note(out, "Only the latest 4 MiB of /var/log/btmp were read.",
		            "只读取了 /var/log/btmp 最近的 4 MiB。", NULL);
}

void ag_sys_users(const struct sys_ctx *ctx, json_t *out)
{
	put_logged_in(ctx, out);
	put_failed(ctx, out);
}
