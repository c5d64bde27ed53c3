/* The inside of a run: the first process of new namespaces makes the root (overlay, /dev, /proc, /sys), changes into it
 * with pivot_root, starts the command and then is its init: it reaps, hands signals on and tells the caller how the
 * command ended. Everything here runs between clone() and exec in a copy of a process that may have had threads: system
 * calls and the stack only.
 *
 * The image is not trusted: once pivot_root has happened, its symbolic links lead nowhere but into itself, so only
 * after that are directories made and mounts put on them. What comes from the host is taken hold of before (open_tree)
 * and put in place after (move_mount). */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mapfile.h"
#include "runtime_internal.h"

const char *const img_run_mount_points[] = { "/dev",       "/proc", "/sys", "/tmp", "/run", "/etc/resolv.conf",
	                                     "/etc/hosts", NULL };

static const char *const devices[] = { "null", "zero", "full", "random", "urandom", "tty", NULL };
enum { N_DEVICES = 6 };

/* What a container usually may. */
static const unsigned kept_capabilities[] = {
	CAP_CHOWN,       CAP_DAC_OVERRIDE,     CAP_FOWNER,  CAP_FSETID,     CAP_KILL,
	CAP_SETGID,      CAP_SETUID,           CAP_SETPCAP, CAP_SYS_CHROOT, CAP_SETFCAP,
	CAP_AUDIT_WRITE, CAP_NET_BIND_SERVICE, CAP_NET_RAW,
};

/* Descriptors of mounts that are taken from the host; -1: not there. */
struct taken {
	int devices[N_DEVICES];
	int sys, proc, resolv, hosts;
	int mounts[IMG_RUN_MAX_MOUNTS];
};

static void fail(const struct img_run_child *c, int code, const char *what) __attribute__((noreturn));
static void fail(const struct img_run_child *c, int code, const char *what)
{
	struct img_run_message m = { .type = IMG_RUN_FAILED, .code = code };

	(void)snprintf(m.text, sizeof(m.text), "%s", what);
	(void)img_run_send(c->socket, &m, NULL, 0);
	_exit(127);
}

static void fail_errno(const struct img_run_child *c, const char *what) __attribute__((noreturn));
static void fail_errno(const struct img_run_child *c, const char *what)
{
	fail(c, -errno, what);
}

static void await_go(const struct img_run_child *c)
{
	struct img_run_message m;

	if (img_run_receive(c->socket, &m, NULL, 0) < 0 || m.type != IMG_RUN_GO)
		_exit(127);
}

/* ---- The root --------------------------------------------------------------------------------------------- */

static int take(const char *path, bool recursive)
{
	return open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));
}

static void take_from_host(const struct img_run_child *c, struct taken *t)
{
	char path[64];

	for (size_t i = 0; i < N_DEVICES; i++) {
		(void)snprintf(path, sizeof(path), "/dev/%s", devices[i]);
		t->devices[i] = take(path, false);
	}
	t->sys = take("/sys", false);
	t->proc = take("/proc", true);
	t->resolv = c->run->own_network_files ? -1 : take("/etc/resolv.conf", false);
	t->hosts = c->run->own_network_files ? -1 : take("/etc/hosts", false);
	for (size_t i = 0; i < c->run->n_mounts; i++) {
		t->mounts[i] = take(c->run->mounts[i].source, true);
		if (t->mounts[i] < 0)
			fail_errno(c, c->run->mounts[i].source);
	}
}

/* The overlay on ./root with ./upper and ./work; layers by descriptor, so that neither ',' and ':' in a path nor its
 * length matter. 0 or -errno. */
static int mount_overlay_with(const struct img_run_child *c, const int *roots, const char *more_options)
{
	char options[4096];
	size_t len;

	len = (size_t)snprintf(options, sizeof(options), "upperdir=upper,workdir=work%s%s,lowerdir=", more_options,
	                       c->has_user_namespace ? ",userxattr" : "");
	/* The first lowerdir is the uppermost. */
	for (size_t i = c->run->n_roots; i-- > 0;)
		len += (size_t)snprintf(options + len, sizeof(options) - len, "/proc/self/fd/%d%s", roots[i],
		                        i ? ":" : "");
	return mount("overlay", "root", "overlay", 0, options) < 0 ? -errno : 0;
}

/* Makes the folders of an overlay in the working directory and mounts it. 0 or -errno. */
static int make_overlay(const struct img_run_child *c, const int *roots)
{
	int r;

	if (mkdir("root", 0755) < 0 || mkdir("upper", 0755) < 0 || mkdir("work", 0755) < 0)
		return -errno;
	/* `volatile` spares a sync of the whole file system at the end; kernels before 5.10 do not know it. */
	r = mount_overlay_with(c, roots, ",volatile");
	return r == -EINVAL ? mount_overlay_with(c, roots, "") : r;
}

/* The overlay with its upper directory in memory, hidden from all others by being mounted over /tmp. Faster than any
 * disk, and nothing is left behind whatever happens. 0 or -errno; then nothing is mounted. */
static int make_overlay_in_memory(const struct img_run_child *c, const int *roots)
{
	int r;

	if (mount("tmpfs", "/tmp", "tmpfs", 0, "mode=0755") < 0)
		return -errno;
	r = chdir("/tmp") < 0 ? -errno : make_overlay(c, roots);
	if (r < 0 && (chdir("/") < 0 || umount2("/tmp", MNT_DETACH) < 0))
		fail_errno(c, "/tmp");
	return r;
}

static int make_overlay_on_disk(const struct img_run_child *c, const int *roots)
{
	if (mkdir(c->scratch, 0700) < 0 || chdir(c->scratch) < 0)
		return -errno;
	return make_overlay(c, roots);
}

/* The merged root looks as its upper directory does. */
static int take_over_looks(const struct stat *st)
{
	int upper = open("upper", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (upper >= 0 && fchownat(upper, "", st->st_uid, st->st_gid, AT_EMPTY_PATH) < 0)
		errno = 0; /* as a user: it stays ours */
	(void)chmod("upper", st->st_mode & 07777);
	return upper;
}

/* Mounts the root and makes it the working directory; *ret_upper is the upper directory or -1. Notes what could not be
 * had. */
static void mount_root(const struct img_run_child *c, int *ret_upper, struct img_run_message *note)
{
	const char *top = c->run->roots[c->run->n_roots - 1];
	struct stat st = { .st_mode = 0755 };
	int roots[IMG_RUN_MAX_ROOTS], r;

	for (size_t i = 0; i < c->run->n_roots; i++) {
		roots[i] = open(c->run->roots[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (roots[i] < 0)
			fail_errno(c, c->run->roots[i]);
	}
	(void)fstat(roots[c->run->n_roots - 1], &st);
	r = c->run->scratch ? -ENOTSUP : make_overlay_in_memory(c, roots);
	if (r < 0)
		r = make_overlay_on_disk(c, roots);
	*ret_upper = r == 0 ? take_over_looks(&st) : -1;
	if (r < 0 && c->run->n_roots > 1)
		fail(c, r, "an overlay of the layers");
	if (r < 0) {
		(void)snprintf(note->text, sizeof(note->text), "no overlay here (%s): the root is read-only",
		               strerror(-r));
		if (mount(top, "root", NULL, MS_BIND | MS_REC, NULL) < 0)
			fail_errno(c, top);
	}
	if (chdir("root") < 0)
		fail_errno(c, "the root");
	for (size_t i = 0; i < c->run->n_roots; i++)
		(void)close(roots[i]);
}

/* An empty file to mount on, where there is nothing yet. */
static int make_file(const char *path)
{
	char dir[4096];
	const char *slash = strrchr(path, '/');
	int fd;

	if (!slash || (size_t)(slash - path) >= sizeof(dir))
		return -ENAMETOOLONG;
	memcpy(dir, path, (size_t)(slash - path));
	dir[slash - path] = '\0';
	if (access(path, F_OK) == 0)
		return 0;
	if (*dir && base_make_folders(dir, 0755, NULL) < 0)
		return -errno;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	if (fd < 0)
		return -errno;
	(void)close(fd);
	return 0;
}

/* Puts a taken mount on a path of the root. */
static int put(int tree_fd, const char *target, bool is_read_only)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
	struct stat st;
	int r;

	if (tree_fd < 0)
		return -ENOENT;
	if (fstat(tree_fd, &st) < 0)
		return -errno;
	r = S_ISDIR(st.st_mode) ? base_make_folders(target, 0755, NULL) : make_file(target);
	if (r < 0)
		return r;
	if (move_mount(tree_fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS) < 0)
		return -errno;
	if (is_read_only && mount_setattr(AT_FDCWD, target, AT_RECURSIVE, &attr, sizeof(attr)) < 0)
		return -errno;
	return 0;
}

static void fill_dev(const struct img_run_child *c, const struct taken *t)
{
	char path[64];

	if (base_make_folders("/dev", 0755, NULL) < 0 ||
	    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=0755,size=64k") < 0)
		fail_errno(c, "/dev");
	for (size_t i = 0; i < N_DEVICES; i++) {
		(void)snprintf(path, sizeof(path), "/dev/%s", devices[i]);
		(void)put(t->devices[i], path, false);
	}
	if (symlink("/proc/self/fd", "/dev/fd") < 0 || symlink("/proc/self/fd/0", "/dev/stdin") < 0 ||
	    symlink("/proc/self/fd/1", "/dev/stdout") < 0 || symlink("/proc/self/fd/2", "/dev/stderr") < 0 ||
	    symlink("pts/ptmx", "/dev/ptmx") < 0 || mkdir("/dev/pts", 0755) < 0 || mkdir("/dev/shm", 0755) < 0)
		fail_errno(c, "/dev");
	(void)mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
	(void)mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
}

/* Within the new root, the old one still beneath it (a new proc needs to see one that hides nothing). */
static void fill_root(const struct img_run_child *c, const struct taken *t, bool is_read_only)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };

	/* First of all: without an overlay this is the root itself, and nothing may be made in it. */
	if (is_read_only && mount_setattr(AT_FDCWD, ".", 0, &attr, sizeof(attr)) < 0)
		fail_errno(c, "making the root read-only");
	if (base_make_folders("/proc", 0755, NULL) < 0)
		fail_errno(c, "/proc");
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 &&
	    put(t->proc, "/proc", false) < 0)
		fail_errno(c, "/proc");
	fill_dev(c, t);
	(void)put(t->sys, "/sys", true);
	if (c->run->fresh_tmp || is_read_only) {
		(void)base_make_folders("/tmp", 0755, NULL);
		(void)base_make_folders("/run", 0755, NULL);
		(void)mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
		(void)mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
	}
	(void)put(t->resolv, "/etc/resolv.conf", false);
	(void)put(t->hosts, "/etc/hosts", false);
	for (size_t i = 0; i < c->run->n_mounts; i++) {
		int r = put(t->mounts[i], c->run->mounts[i].target, c->run->mounts[i].read_only);

		if (r < 0)
			fail(c, r, c->run->mounts[i].target);
	}
	if (c->run->cwd)
		(void)base_make_folders(c->run->cwd, 0755, NULL);
}

static void close_taken(const struct taken *t, size_t n_mounts)
{
	for (size_t i = 0; i < N_DEVICES; i++)
		(void)close(t->devices[i]);
	(void)close(t->sys);
	(void)close(t->proc);
	(void)close(t->resolv);
	(void)close(t->hosts);
	for (size_t i = 0; i < n_mounts; i++)
		(void)close(t->mounts[i]);
}

static void enter_root(const struct img_run_child *c, struct img_run_message *note)
{
	int upper, fds[2];
	struct taken t;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		fail_errno(c, "making mounts private");
	take_from_host(c, &t);
	mount_root(c, &upper, note);
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		fail_errno(c, "pivot_root");
	/* The old root now lies on top of the new one, which nobody notices who begins at "/". */
	if (chdir("/") < 0)
		fail_errno(c, "/");
	fill_root(c, &t, upper < 0);
	close_taken(&t, c->run->n_mounts);
	if (umount2(".", MNT_DETACH) < 0)
		fail_errno(c, "leaving the old root");
	(void)sethostname(c->run->hostname ? c->run->hostname : "slimtrace",
	                  strlen(c->run->hostname ? c->run->hostname : "slimtrace"));

	fds[0] = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	fds[1] = upper;
	note->type = IMG_RUN_READY;
	if (fds[0] < 0 || img_run_send(c->socket, note, fds, upper >= 0 ? 2 : 1) < 0)
		fail_errno(c, "the root");
	(void)close(fds[0]);
	(void)close(upper);
}

/* ---- The command ------------------------------------------------------------------------------------------ */

static bool is_kept(unsigned cap)
{
	for (size_t i = 0; i < sizeof(kept_capabilities) / sizeof(kept_capabilities[0]); i++) {
		if (kept_capabilities[i] == cap)
			return true;
	}
	return false;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	for (unsigned cap = 0; cap <= 63; cap++) {
		if (!is_kept(cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
			return -errno;
	}
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (unsigned cap = 0; cap <= 63; cap++) {
		if (is_kept(cap))
			continue;
		data[cap / 32].permitted &= ~(1u << (cap % 32));
		data[cap / 32].effective &= ~(1u << (cap % 32));
		data[cap / 32].inheritable &= ~(1u << (cap % 32));
	}
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* A user namespace that has one user denies setgroups() for good; who is the user already lacks nothing. */
static bool is_user_already(const struct img_run_user *u)
{
	return getuid() == u->uid && geteuid() == u->uid && getgid() == u->gid && getegid() == u->gid;
}

static void become_user(const struct img_run_child *c)
{
	const struct img_run_user *u = &c->user;
	char what[160];

	if (!c->must_set_user)
		return;
	if (setgroups(u->n_groups, u->groups) < 0) {
		if (errno == EPERM && is_user_already(u))
			return;
		fail_errno(c, "the command's groups: setgroups (see /proc/self/setgroups)");
	}
	if (setresgid(u->gid, u->gid, u->gid) < 0) {
		(void)snprintf(what, sizeof(what), "the command's group %u: setresgid (see /proc/self/gid_map)",
		               u->gid);
		fail_errno(c, what);
	}
	if (setresuid(u->uid, u->uid, u->uid) < 0) {
		(void)snprintf(what, sizeof(what), "the command's user %u: setresuid (see /proc/self/uid_map)", u->uid);
		fail_errno(c, what);
	}
}

static void redirect(int fd, int to)
{
	if (fd >= 0)
		(void)dup2(fd, to);
}

static void run_command(const struct img_run_child *c) __attribute__((noreturn));
static void run_command(const struct img_run_child *c)
{
	const struct img_run *run = c->run;
	int error = ENOENT, r;

	redirect(c->in_fd, 0);
	redirect(c->out_fd, 1);
	redirect(c->errors_fd, 2);
	if (run->cwd && chdir(run->cwd) < 0)
		fail_errno(c, run->cwd);
	if (run->watch && run->watch->prepare) {
		r = run->watch->prepare(run->watch_arg);
		if (r < 0)
			fail(c, r, "preparing the trace");
	}
	r = run->n_roots > 0 && !run->privileged ? drop_capabilities() : 0;
	if (r < 0)
		fail(c, r, "dropping capabilities");
	become_user(c);
	(void)sigprocmask(SIG_SETMASK, &c->mask, NULL);
	for (const char *const *path = c->exec_paths; *path; path++) {
		(void)execve(*path, (char *const *)run->argv, (char *const *)c->env);
		if (errno != ENOENT && errno != ENOTDIR && (error == ENOENT || errno != EACCES))
			error = errno;
		if (error != ENOENT && error != EACCES)
			break;
	}
	fail(c, -error, run->argv[0]);
}

void img_run_host_main(const struct img_run_child *c)
{
	if (c->run->null_stdin)
		(void)setsid(); /* so that all of it can be killed */
	await_go(c);
	run_command(c);
}

/* Until the command has ended. Signals come from outside (a person, a supervisor); what the terminal sends has reached
 * the command already, as it is in the same process group. */
static void be_init(const struct img_run_child *c, pid_t command) __attribute__((noreturn));
static void be_init(const struct img_run_child *c, pid_t command)
{
	struct img_run_message m = { .type = IMG_RUN_STATUS };
	sigset_t all;
	siginfo_t info;

	(void)sigfillset(&all);
	for (;;) {
		int sig = sigwaitinfo(&all, &info), status;
		pid_t pid;

		if (sig < 0)
			continue;
		if (sig != SIGCHLD) {
			if (info.si_code != SI_KERNEL)
				(void)kill(command, sig);
			continue;
		}
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			if (pid != command)
				continue;
			m.code = status;
			(void)img_run_send(c->socket, &m, NULL, 0);
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		}
	}
}

void img_run_container_main(const struct img_run_child *c)
{
	struct img_run_message note = { 0 };
	sigset_t all;
	pid_t pid;

	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)umask(022);
	await_go(c); /* the user namespace has its map */
	enter_root(c, &note);
	await_go(c); /* the watcher watches */
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid < 0)
		fail_errno(c, "starting the command");
	if (pid == 0)
		run_command(c);
	be_init(c, pid);
}
