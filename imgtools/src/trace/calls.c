/* The table of calls and the filter made of it (libseccomp). Everything not in the table runs at full speed; the kernel
 * answers for it from a bitmap.
 *
 * fstat() of the C library is, on many systems, newfstatat(fd, "", AT_EMPTY_PATH): one for each open file, and nothing
 * new to learn. A filter cannot look at the path, but it can at the flags: exactly AT_EMPTY_PATH is let through. What
 * is lost is a stat of a name relative to a directory with exactly these flags, which no library does.
 *
 * io_uring opens files without any system call that could be stopped at; it is answered with "not implemented", which
 * programs that use it are prepared for (containers usually get the same answer). */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ROW(call, what, dir, file, extra)                                                                    \
	{                                                                                                    \
		.name = call, .op = IMG_CALL_##what, .dirfd = dir, .path = file, .aux = extra, .dirfd2 = NO, \
		.path2 = NO                                                                                  \
	}
#define ROW2(call, what, dir, file, dir2, file2, extra)                                                        \
	{                                                                                                      \
		.name = call, .op = IMG_CALL_##what, .dirfd = dir, .path = file, .aux = extra, .dirfd2 = dir2, \
		.path2 = file2                                                                                 \
	}
#define NO IMG_CALL_NONE

static const struct img_call calls[] = {
	ROW("open", OPEN, NO, 0, 1),
	ROW("openat", OPEN, 0, 1, 2),
	ROW("openat2", OPEN2, 0, 1, 2),
	ROW("creat", CREAT, NO, 0, NO),
	ROW("stat", LOOK, NO, 0, NO),
	ROW("stat64", LOOK, NO, 0, NO),
	ROW("lstat", LLOOK, NO, 0, NO),
	ROW("lstat64", LLOOK, NO, 0, NO),
	ROW("newfstatat", LOOKAT, 0, 1, 3),
	ROW("fstatat64", LOOKAT, 0, 1, 3),
	ROW("statx", LOOKAT, 0, 1, 2),
	ROW("access", LOOK, NO, 0, NO),
	ROW("faccessat", LOOK, 0, 1, NO),
	ROW("faccessat2", LOOKAT, 0, 1, 3),
	ROW("readlink", READLINK, NO, 0, NO),
	ROW("readlinkat", READLINK, 0, 1, NO),
	ROW("execve", EXEC, NO, 0, NO),
	ROW("execveat", EXEC, 0, 1, 4),
	ROW("getdents", READDIR, NO, 0, NO),
	ROW("getdents64", READDIR, NO, 0, NO),
	ROW("chdir", LOOK, NO, 0, NO),
	ROW("statfs", LOOK, NO, 0, NO),
	ROW("statfs64", LOOK, NO, 0, NO),
	ROW("truncate", LOOK, NO, 0, NO),
	ROW("truncate64", LOOK, NO, 0, NO),
	ROW("chmod", LOOK, NO, 0, NO),
	ROW("fchmodat", LOOK, 0, 1, NO),
	ROW("fchmodat2", LOOKAT, 0, 1, 3),
	ROW("chown", LOOK, NO, 0, NO),
	ROW("chown32", LOOK, NO, 0, NO),
	ROW("lchown", LLOOK, NO, 0, NO),
	ROW("lchown32", LLOOK, NO, 0, NO),
	ROW("fchownat", LOOKAT, 0, 1, 4),
	ROW("utime", LOOK, NO, 0, NO),
	ROW("utimes", LOOK, NO, 0, NO),
	ROW("futimesat", LOOK, 0, 1, NO),
	ROW("utimensat", LOOKAT, 0, 1, 3),
	ROW("utimensat_time64", LOOKAT, 0, 1, 3),
	ROW("getxattr", LOOK, NO, 0, NO),
	ROW("lgetxattr", LLOOK, NO, 0, NO),
	ROW("listxattr", LOOK, NO, 0, NO),
	ROW("llistxattr", LLOOK, NO, 0, NO),
	ROW("setxattr", LOOK, NO, 0, NO),
	ROW("lsetxattr", LLOOK, NO, 0, NO),
	ROW("removexattr", LOOK, NO, 0, NO),
	ROW("lremovexattr", LLOOK, NO, 0, NO),
	ROW("inotify_add_watch", LOOK, NO, 1, NO),
	ROW("name_to_handle_at", LOOK, 0, 1, NO),
	ROW("open_tree", LOOKAT, 0, 1, 2),
	ROW("mkdir", MAKE, NO, 0, NO),
	ROW("mkdirat", MAKE, 0, 1, NO),
	ROW("mknod", MAKE, NO, 0, NO),
	ROW("mknodat", MAKE, 0, 1, NO),
	ROW("symlink", MAKE, NO, 1, NO),
	ROW("symlinkat", MAKE, 1, 2, NO),
	ROW("unlink", REMOVE, NO, 0, NO),
	ROW("unlinkat", REMOVE, 0, 1, NO),
	ROW("rmdir", REMOVE, NO, 0, NO),
	ROW2("rename", RENAME, NO, 0, NO, 1, NO),
	ROW2("renameat", RENAME, 0, 1, 2, 3, NO),
	ROW2("renameat2", RENAME, 0, 1, 2, 3, NO),
	ROW2("link", LINK, NO, 0, NO, 1, NO),
	ROW2("linkat", LINK, 0, 1, 2, 3, 4),
	ROW("connect", CONNECT, NO, 1, 2),
	ROW("bind", BIND, NO, 1, 2),
	ROW("chroot", VIEW, NO, 0, NO),
	ROW("mount", VIEW, NO, 1, NO),
	ROW("umount", VIEW, NO, 0, NO),
	ROW("umount2", VIEW, NO, 0, NO),
	ROW("move_mount", VIEW, NO, NO, NO),
	ROW("pivot_root", VIEW, NO, NO, NO),
	ROW("unshare", VIEW, NO, NO, NO),
	ROW("setns", VIEW, NO, NO, NO),
	ROW("ptrace", PTRACE, NO, NO, NO),
	ROW("seccomp", LISTEN, NO, NO, NO),
};
enum { N_CALLS = sizeof(calls) / sizeof(calls[0]) };

/* ---- Numbers ---------------------------------------------------------------------------------------------- */

/* Of 32-bit x86, where calls for sockets have numbers of their own and a common one, which takes their place in that
 * (linux/net.h) as its first argument. */
enum { SOCKETCALL = 102, BIND = 361, CONNECT = 362, SOCKETCALL_BIND = 2, SOCKETCALL_CONNECT = 3 };

static void set_number(uint8_t *rows, int number, size_t i)
{
	if (number >= 0 && number < IMG_CALL_NUMBERS)
		rows[number] = (uint8_t)(i + 1);
}

void img_call_map_init(struct img_call_map *m)
{
	const bool has_compat = seccomp_arch_native() == SCMP_ARCH_X86_64 || seccomp_arch_native() == SCMP_ARCH_X86;

	memset(m, 0, sizeof(*m));
	for (size_t i = 0; i < N_CALLS; i++) {
		set_number(m->native, seccomp_syscall_resolve_name(calls[i].name), i);
		if (!has_compat)
			continue;
		set_number(m->compat, seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86, calls[i].name), i);
		if (strcmp(calls[i].name, "bind") == 0)
			set_number(m->compat, BIND, i);
		else if (strcmp(calls[i].name, "connect") == 0)
			set_number(m->compat, CONNECT, i);
	}
}

bool img_call_is_packed(const struct seccomp_data *d)
{
	return d->arch == AUDIT_ARCH_I386 && d->nr == SOCKETCALL;
}

const struct img_call *img_call_of(const struct img_call_map *m, const struct seccomp_data *d)
{
	const uint8_t *rows = d->arch == AUDIT_ARCH_I386 ? m->compat : m->native;
	int number = d->nr;

	if (img_call_is_packed(d))
		number = d->args[0] == SOCKETCALL_BIND ? BIND : d->args[0] == SOCKETCALL_CONNECT ? CONNECT : -1;
	if (number < 0 || number >= IMG_CALL_NUMBERS || !rows[number])
		return NULL;
	return &calls[rows[number] - 1];
}

/* ---- The filter ------------------------------------------------------------------------------------------- */

static int add_rule(scmp_filter_ctx ctx, const char *name)
{
	const uint32_t stop = SCMP_ACT_TRACE(0);
	int nr = seccomp_syscall_resolve_name(name);

	if (nr == __NR_SCMP_ERROR)
		return 0; /* not known to this libseccomp */
	if (strcmp(name, "newfstatat") == 0)
		return seccomp_rule_add(ctx, stop, nr, 1, SCMP_A3(SCMP_CMP_NE, AT_EMPTY_PATH, 0));
	if (strcmp(name, "ptrace") == 0) /* PTRACE_TRACEME; a tracer's other requests are not our business */
		return seccomp_rule_add(ctx, stop, nr, 1, SCMP_A0(SCMP_CMP_EQ, 0, 0));
	if (strcmp(name, "seccomp") == 0)
		return seccomp_rule_add(ctx, stop, nr, 2, SCMP_A0(SCMP_CMP_EQ, SECCOMP_SET_MODE_FILTER, 0),
		                        SCMP_A1(SCMP_CMP_MASKED_EQ, SECCOMP_FILTER_FLAG_NEW_LISTENER,
		                                SECCOMP_FILTER_FLAG_NEW_LISTENER));
	return seccomp_rule_add(ctx, stop, nr, 0);
}

static int add_rules(scmp_filter_ctx ctx)
{
	int r = 0;

	/* Programs of an architecture that the filter does not know run untraced rather than not at all. */
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ALLOW);
	if (r == 0 && seccomp_arch_native() == SCMP_ARCH_X86_64)
		r = seccomp_arch_add(ctx, SCMP_ARCH_X86);
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree; older ones have a list */
	for (size_t i = 0; r == 0 && i < N_CALLS; i++)
		r = add_rule(ctx, calls[i].name);
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(io_uring_setup), 0);
	return r;
}

/* libseccomp only writes to descriptors. */
static int export_program(scmp_filter_ctx ctx, struct sock_fprog *ret)
{
	CLEANUP(close_fdp) int fd = memfd_create("filter", MFD_CLOEXEC);
	struct sock_filter *code;
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	r = seccomp_export_bpf(ctx, fd);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || st.st_size > BPF_MAXINSNS * (off_t)sizeof(*code))
		return -E2BIG;
	code = malloc((size_t)st.st_size);
	if (!code)
		return -ENOMEM;
	if (pread(fd, code, (size_t)st.st_size, 0) != st.st_size) {
		free(code);
		return -EIO;
	}
	ret->filter = code;
	ret->len = (unsigned short)((size_t)st.st_size / sizeof(*code));
	return 0;
}

int img_call_filter(struct sock_fprog *ret_prog, struct err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int r;

	if (!ctx)
		return err_set(err, -ENOMEM, "the seccomp filter: out of memory");
	r = add_rules(ctx);
	if (r == 0)
		r = export_program(ctx, ret_prog);
	seccomp_release(ctx);
	return r < 0 ? err_set(err, r, "the seccomp filter: %s", strerror(-r)) : 0;
}

int img_call_filter_notifying(const struct sock_fprog *prog, struct sock_fprog *ret_prog)
{
	struct sock_filter *code = malloc(prog->len * sizeof(*code));

	if (!code)
		return -ENOMEM;
	memcpy(code, prog->filter, prog->len * sizeof(*code));
	for (size_t i = 0; i < prog->len; i++) {
		if (code[i].code == (BPF_RET | BPF_K) && (code[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_TRACE)
			code[i].k = SECCOMP_RET_USER_NOTIF;
	}
	ret_prog->filter = code;
	ret_prog->len = prog->len;
	return 0;
}

int img_call_install(const struct sock_fprog *prog, unsigned flags)
{
	long r;

	/* Without the flag the processor's guard against speculation would slow the command down. */
	flags |= SECCOMP_FILTER_FLAG_SPEC_ALLOW;
	r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, prog);
	if (r < 0 && errno == EACCES && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, prog);
	return r < 0 ? -errno : (int)r;
}
