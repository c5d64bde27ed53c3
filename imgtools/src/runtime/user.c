/* Who a command runs as: "name", "uid", "name:group", "uid:gid" (the User of an image's configuration), looked up in
 * the passwd and group files of the root, not of the host. The files are opened within the root, whatever links the
 * image has there, and are read line by line with a limit: they are outside bytes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/buf.h"
#include "base/cleanup.h"

#include "runtime_internal.h"

static int open_within(const char *root, const char *path)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT };
	CLEANUP(close_fdp) int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return -1;
	return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* The whole file of the uppermost root that has it; nothing when none has. */
static int read_file(const char *const *roots, size_t n_roots, const char *path, struct base_buf *b)
{
	for (size_t i = n_roots; i-- > 0;) {
		CLEANUP(close_fdp) int fd = open_within(roots[i], path);
		struct stat st;
		char chunk[4096];
		ssize_t n;

		if (fd < 0)
			continue;
		if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) /* deleted in this layer */
			return 0;
		while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
			if (base_buf_append(b, chunk, (size_t)n) < 0)
				return base_buf_error(b);
		}
		return n < 0 ? -errno : 0;
	}
	return 0;
}

static bool parse_id(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long v;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end || v >= UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* The fields of the next line of *text, separated by ':'; the line is cut up. False at the end. */
static bool next_line(char **text, char *fields[], size_t n_fields)
{
	char *line = strsep(text, "\n");

	if (!line)
		return false;
	for (size_t i = 0; i < n_fields; i++)
		fields[i] = line ? strsep(&line, ":") : NULL;
	return true;
}

/* passwd: name:x:uid:gid:gecos:home:shell */
static bool find_passwd(char *text, const char *who, uint32_t id, bool is_id, struct img_run_user *u, char *ret_name,
                        size_t name_size)
{
	char *f[6];

	while (text && next_line(&text, f, 6)) {
		uint32_t uid, gid;

		if (!f[5] || !parse_id(f[2], &uid) || !parse_id(f[3], &gid))
			continue;
		if (is_id ? uid != id : strcmp(f[0], who) != 0)
			continue;
		u->uid = uid;
		u->gid = gid;
		(void)snprintf(u->home, sizeof(u->home), "%s", f[5]);
		(void)snprintf(ret_name, name_size, "%s", f[0]);
		return true;
	}
	return false;
}

static bool is_member(char *members, const char *name)
{
	char *m;

	while ((m = strsep(&members, ","))) {
		if (strcmp(m, name) == 0)
			return true;
	}
	return false;
}

/* group: name:x:gid:members. The group that was asked for, and those that the user is a member of. */
static bool find_groups(char *text, const char *group, const char *name, struct img_run_user *u)
{
	bool found = false;
	char *f[4];

	while (text && next_line(&text, f, 4)) {
		uint32_t gid;

		if (!f[2] || !parse_id(f[2], &gid))
			continue;
		if (group && strcmp(f[0], group) == 0) {
			u->gid = gid;
			found = true;
		}
		if (!group && f[3] && *name && is_member(f[3], name) && u->n_groups < IMG_RUN_MAX_GROUPS)
			u->groups[u->n_groups++] = gid;
	}
	return found;
}

int img_run_find_user(const char *const *roots, size_t n_roots, const char *user, struct img_run_user *ret,
                      struct err *err)
{
	struct base_buf passwd = BASE_BUF_INIT(4u << 20), groups = BASE_BUF_INIT(4u << 20);
	struct img_run_user u = { .home = "/" };
	CLEANUP(freep) char *copy = strdup(user);
	char *group, *who, name[IMG_RUN_TEXT] = "";
	uint32_t id = 0;
	bool is_id, known;
	int r;

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	group = copy;
	who = strsep(&group, ":");
	is_id = parse_id(who, &id);
	r = read_file(roots, n_roots, "etc/passwd", &passwd);
	if (r == 0)
		r = read_file(roots, n_roots, "etc/group", &groups);
	if (r < 0) {
		r = err_set(err, r, "user %s: reading etc/passwd and etc/group of the root: %s", user, strerror(-r));
		goto out;
	}
	known = find_passwd(passwd.data, who, id, is_id, &u, name, sizeof(name));
	if (!known && !is_id) {
		r = err_set(err, -ENOENT, "user %s: not in etc/passwd of the root", user);
		goto out;
	}
	if (!known)
		u.uid = id;
	if (group && parse_id(group, &id))
		u.gid = id;
	else if (group && !find_groups(groups.data, group, name, &u))
		r = err_set(err, -ENOENT, "group %s: not in etc/group of the root", group);
	else if (!group)
		(void)find_groups(groups.data, NULL, name, &u);
	if (r == 0)
		*ret = u;
out:
	base_buf_done(&passwd);
	base_buf_done(&groups);
	return r;
}
