/* Storage: mounts with their use and inodes, block devices with device-mapper and md names, deleted files that are
 * still open. Only file systems with room of their own are shown; those of a server that may hang are not asked. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "sys/sys_internal.h"

enum { MAX_MOUNTS = 4096, MAX_DELETED = 200, MAX_FDS = 400000 };

static bool is_listed(struct sys_span type, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (ag_sys_is(type, names[i]))
			return true;
	}
	return false;
}

/* Kernel interfaces without room, and images that are full by nature. */
static bool is_pseudo(struct sys_span type)
{
	static const char *const names[] = { "proc",     "sysfs",      "cgroup",   "cgroup2",    "devpts",
		                             "mqueue",   "debugfs",    "tracefs",  "securityfs", "pstore",
		                             "bpf",      "configfs",   "fusectl",  "autofs",     "binfmt_misc",
		                             "nsfs",     "rpc_pipefs", "efivarfs", "selinuxfs",  "hugetlbfs",
		                             "squashfs", "iso9660",    "erofs",    "devtmpfs",   "ramfs",
		                             "nfsd" };

	return is_listed(type, names, sizeof(names) / sizeof(names[0]));
}

static bool is_remote(struct sys_span type)
{
	static const char *const names[] = { "nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "afs" };

	return is_listed(type, names, sizeof(names) / sizeof(names[0])) || ag_sys_starts(type, "fuse.");
}

static char *unescaped(struct sys_span s)
{
	char *text = strndup(s.p, s.n);

	if (text)
		text[ag_sys_unescape(text, s.n)] = '\0';
	return text;
}

static double percent(double part, double whole)
{
	return whole > 0 ? 100.0 * part / whole : 0;
}

static void put_use(const struct sys_ctx *ctx, const char *point, json_t *mount)
{
	struct statvfs v;
	char path[4096];
	uint64_t unit, used;

	if (ag_sys_path(ctx, path, sizeof(path), "%s", point) < 0)
		return;
	if (statvfs(path, &v) < 0) {
		ag_sys_set_text(mount, "error", strerror(errno));
		return;
	}
	unit = v.f_frsize ? v.f_frsize : v.f_bsize;
	used = v.f_blocks > v.f_bfree ? v.f_blocks - v.f_bfree : 0;
	ag_sys_set_u64(mount, "size_bytes", (uint64_t)v.f_blocks * unit);
	/* What nothing can be written to is as full as it was made. */
	if (v.f_flag & ST_RDONLY)
		return;
	ag_sys_set_u64(mount, "available_bytes", (uint64_t)v.f_bavail * unit);
	/* What is reserved for root is neither used nor available: the share is of what others could fill. */
	ag_sys_set_real(mount, "used_percent", percent((double)used, (double)used + (double)v.f_bavail));
	if (v.f_files)
		ag_sys_set_real(mount, "inodes_used_percent",
		                percent((double)v.f_files - (double)v.f_ffree, (double)v.f_files));
}

static bool seen_before(const json_t *mounts, const char *device, const char *source)
{
	size_t i;
	const json_t *m;

	json_array_foreach(mounts, i, m)
	{
		const char *d = json_string_value(json_object_get(m, "device_id"));
		const char *s = json_string_value(json_object_get(m, "source"));

		if (d && s && strcmp(d, device) == 0 && strcmp(s, source) == 0)
			return true;
	}
	return false;
}

static void put_mount(const struct sys_ctx *ctx, const struct sys_mount *m, json_t *mounts)
{
	CLEANUP(freep) char *point = unescaped(m->point);
	CLEANUP(freep) char *source = unescaped(m->source);
	CLEANUP(freep) char *device = strndup(m->device_id.p, m->device_id.n);
	json_t *mount;

	/* Bind mounts of one file system (containers have many): the first stands for all. */
	if (!point || !source || !device || seen_before(mounts, device, source))
		return;
	mount = json_object();
	ag_sys_set_text(mount, "point", point);
	ag_sys_set_text(mount, "source", source);
	ag_sys_set_span(mount, "type", m->type);
	ag_sys_set_text(mount, "device_id", device);
	(void)json_object_set_new(mount, "read_only",
	                          json_boolean(ag_sys_is(m->options, "ro") || ag_sys_starts(m->options, "ro,")));
	if (is_remote(m->type))
		(void)json_object_set_new(mount, "remote", json_true());
	else
		put_use(ctx, point, mount);
	ag_sys_append_take(mounts, mount);
}

static void put_mounts(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(16 << 20);
	json_t *mounts = ag_sys_array(out, "mounts");
	struct sys_span text, line;
	struct sys_mount m;

	if (ag_sys_read(ctx, &buf, "/proc/self/mountinfo") < 0) {
		ag_sys_note(out, "/proc/self/mountinfo cannot be read: mounts are not known.",
		            "无法读取 /proc/self/mountinfo:不知道挂载情况。", NULL);
		return;
	}
	text = ag_sys_buf_span(&buf);
	while (ag_sys_next_line(&text, &line) && json_array_size(mounts) < MAX_MOUNTS) {
		if (ag_sys_parse_mount(line, &m) && !is_pseudo(m.type))
			put_mount(ctx, &m, mounts);
	}
}

static void put_members(const struct sys_ctx *ctx, const char *name, json_t *device)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/sys/block/%s/slaves", name);
	const char *member;

	while (dir && (member = ag_sys_next_entry(dir)))
		ag_sys_append_take(ag_sys_array(device, "on"), ag_sys_string(member, strlen(member)));
}

static void put_block_devices(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(ag_sys_closedirp) DIR *dir = ag_sys_opendir(ctx, "/sys/block");
	char text[256];
	const char *name;
	uint64_t v;

	while (dir && (name = ag_sys_next_entry(dir))) {
		json_t *device;

		if (!ag_sys_read_number(ctx, &v, "/sys/block/%s/size", name) || v == 0 || v > UINT64_MAX / 512)
			continue;
		device = json_object();
		ag_sys_set_text(device, "name", name);
		ag_sys_set_u64(device, "size_bytes", v * 512);
		if (ag_sys_read_line(ctx, text, sizeof(text), "/sys/block/%s/dm/name", name) == 0)
			ag_sys_set_text(device, "mapped_name", text);
		if (ag_sys_read_line(ctx, text, sizeof(text), "/sys/block/%s/dm/uuid", name) == 0)
			ag_sys_set_text(device, "kind",
			                strncmp(text, "LVM-", 4) == 0     ? "lvm"
			                : strncmp(text, "CRYPT-", 6) == 0 ? "crypt"
			                : strncmp(text, "mpath-", 6) == 0 ? "multipath"
			                                                  : "device-mapper");
		if (ag_sys_read_line(ctx, text, sizeof(text), "/sys/block/%s/md/level", name) == 0) {
			ag_sys_set_text(device, "kind", text);
			if (ag_sys_read_number(ctx, &v, "/sys/block/%s/md/degraded", name))
				ag_sys_set_u64(device, "missing_members", v);
		}
		put_members(ctx, name, device);
		ag_sys_append_take(ag_sys_array(out, "block_devices"), device);
	}
}

struct deleted_scan {
	json_t *files;
	uint64_t bytes, count;
	size_t fds_seen, unreadable;
};

static void look_at_fd(int fd_dir, const char *pid, const char *name, struct deleted_scan *scan)
{
	static const char mark[] = " (deleted)";
	char target[4096];
	struct stat st;
	json_t *file;
	ssize_t n = readlinkat(fd_dir, name, target, sizeof(target) - 1);

	if (n <= (ssize_t)sizeof(mark) || target[0] != '/' ||
	    memcmp(target + n - (ssize_t)sizeof(mark) + 1, mark, sizeof(mark) - 1) != 0)
		return;
	/* Memory that only looks like a file. */
	if (strncmp(target, "/memfd:", 7) == 0 || strncmp(target, "/dev/", 5) == 0 || strncmp(target, "/SYSV", 5) == 0)
		return;
	if (fstatat(fd_dir, name, &st, 0) < 0 || !S_ISREG(st.st_mode) || st.st_blocks <= 0)
		return;
	scan->count++;
	scan->bytes += (uint64_t)st.st_blocks * 512;
	if (json_array_size(scan->files) >= MAX_DELETED)
		return;
	file = json_object();
	ag_sys_set_u64(file, "bytes", (uint64_t)st.st_blocks * 512);
	ag_sys_set_u64(file, "pid", strtoull(pid, NULL, 10));
	ag_sys_set_span(file, "path", ag_sys_span(target, (size_t)n - sizeof(mark) + 1));
	ag_sys_append_take(scan->files, file);
}

static void look_at_process(const struct sys_ctx *ctx, const char *pid, struct deleted_scan *scan)
{
	char path[64];
	CLEANUP(ag_sys_closedirp) DIR *dir = NULL;
	const char *name;
	int fd;

	(void)snprintf(path, sizeof(path), "%.16s/fd", pid);
	fd = openat(ctx->proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		scan->unreadable += fd < 0 && errno == EACCES;
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	while ((name = ag_sys_next_entry(dir)) && scan->fds_seen++ < MAX_FDS)
		look_at_fd(dirfd(dir), pid, name, scan);
}

static void put_deleted(const struct sys_ctx *ctx, json_t *out)
{
	CLEANUP(ag_sys_closedirp) DIR *proc = ag_sys_opendir(ctx, "/proc");
	struct deleted_scan scan = { .files = ag_sys_array(out, "deleted_open_files") };
	const char *name;
	json_t *total = ag_sys_object(out, "deleted_open");

	while (proc && (name = ag_sys_next_entry(proc))) {
		if (ag_sys_is_pid(name))
			look_at_process(ctx, name, &scan);
	}
	ag_sys_set_u64(total, "files", scan.count);
	ag_sys_set_u64(total, "bytes", scan.bytes);
	if (scan.unreadable)
		ag_sys_note(out, "Open files of {n} processes of other users can only be seen by root.",
		            "另有 {n} 个其他用户的进程,其打开的文件只有 root 能看到。",
		            json_pack("{s:I}", "n", (json_int_t)scan.unreadable));
	if (scan.fds_seen > MAX_FDS)
		ag_sys_note(out, "There are very many open files: not all were looked at.",
		            "打开的文件太多,没有全部查看。", NULL);
}

void ag_sys_storage(const struct sys_ctx *ctx, json_t *out)
{
	put_mounts(ctx, out);
	put_block_devices(ctx, out);
	put_deleted(ctx, out);
}
