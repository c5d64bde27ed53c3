/* The second source: fanotify, for what runs long or was started by somebody else. The mark is on the file system
 * (FAN_MARK_FILESYSTEM), not on a mount: a container sees its root through a mount of its own, on which a mark of ours
 * would never fire. An overlay is a file system by itself, so its mark hears the container and nobody else; on an
 * ordinary file system everything is heard and what lies outside the root is dropped.
 *
 * An event carries a descriptor, whose link in /proc is the path: the container's own ("/usr/bin/x") when the process
 * has its own mount namespace, else ours ("/run/.../rootfs/usr/bin/x"). Seen are opens and execs, the kernel's own
 * included; not seen are stat, failed look-ups, symbolic links: a short run under ptrace, merged, adds them. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mapfile.h"

#include "interp.h"
#include "trace_internal.h"
#include "tracer_internal.h"

enum { N_BUCKETS = 1024, POLL_MS = 500 };

struct seen_process {
	struct seen_process *next;
	pid_t pid;
	uint64_t start; /* field 22 of its stat: another one with the same number is another process */
	uint32_t number, parent;
	char *program, *cmdline;
	bool needs_cmdline;          /* once the exec is through */
	char interp[IMG_INTERP_MAX]; /* what the kernel will open next for the exec; "" when nothing */
};

struct watcher {
	int fd;
	char *root;      /* the root's path here; NULL: none, all paths are the container's */
	bool is_alone;   /* the file system belongs to the root: whatever is heard counts */
	int lower_fd;    /* the root as it was before the run: what is not there is made by the command; -1 */
	pid_t ignore[2]; /* this process, the runtime's init */
	struct img_trace *trace;
	struct seen_process *buckets[N_BUCKETS];
	uint32_t n_processes;
	uint64_t start_ns;
	bool has_lost;
	int error;
	struct err *err;
};

/* ---- Processes ---------------------------------------------------------------------------------------------- */

/* Parent and start time, from /proc/PID/stat: "pid (name) state ppid ... " with any bytes in the name. */
static bool read_stat(pid_t pid, pid_t *ret_parent, uint64_t *ret_start)
{
	CLEANUP(close_fdp) int fd = -1;
	char path[32], text[1024], *p;
	unsigned long long start;
	int parent;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
	                 &parent, &start) != 2)
		return false;
	*ret_parent = parent;
	*ret_start = start;
	return true;
}

static struct seen_process *find_process(const struct watcher *w, pid_t pid)
{
	struct seen_process *p = w->buckets[(unsigned)pid % N_BUCKETS];

	while (p && p->pid != pid)
		p = p->next;
	return p;
}

static struct seen_process *add_process(struct watcher *w, pid_t pid)
{
	struct seen_process *p = calloc(1, sizeof(*p)), *parent;
	pid_t parent_pid = 0;

	if (!p)
		return NULL;
	p->pid = pid;
	p->number = ++w->n_processes;
	p->needs_cmdline = true;
	if (read_stat(pid, &parent_pid, &p->start)) {
		parent = find_process(w, parent_pid);
		p->parent = parent ? parent->number : 0;
		if (parent && parent->program)
			p->program = strdup(parent->program);
	}
	p->next = w->buckets[(unsigned)pid % N_BUCKETS];
	w->buckets[(unsigned)pid % N_BUCKETS] = p;
	return p;
}

static void note_process(struct watcher *w, const struct seen_process *p)
{
	struct img_trace_process tp = { p->number, p->parent, p->program, p->cmdline, -1 };
	int r = img_trace_add_process(w->trace, &tp);

	if (r < 0)
		w->error = r;
}

/* Its number may have gone to another process meanwhile; an exec is a good moment to look. */
static void retire_if_other(struct watcher *w, pid_t pid)
{
	struct seen_process *p = find_process(w, pid);
	uint64_t start;
	pid_t parent;

	if (p && p->start && read_stat(pid, &parent, &start) && start != p->start) {
		note_process(w, p);
		p->pid = 0; /* found no more; freed at the end */
	}
}

static void free_processes(struct watcher *w)
{
	for (size_t i = 0; i < N_BUCKETS; i++) {
		for (struct seen_process *p = w->buckets[i], *next; p; p = next) {
			next = p->next;
			free(p->program);
			free(p->cmdline);
			free(p);
		}
	}
}

static void note_all(struct watcher *w)
{
	for (size_t i = 0; i < N_BUCKETS; i++) {
		for (struct seen_process *p = w->buckets[i]; p; p = p->next) {
			if (p->pid)
				note_process(w, p);
		}
	}
}

/* ---- Events --------------------------------------------------------------------------------------------------- */

/* The path in the root of an event's file; NULL: it is none of the root's. `link` holds it. */
static const char *path_of(const struct watcher *w, int fd, char link[PATH_MAX])
{
	size_t len = w->root ? strlen(w->root) : 0;
	char proc[40];
	ssize_t n;

	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	n = readlink(proc, link, PATH_MAX - 1);
	if (n <= 0 || link[0] != '/')
		return NULL;
	link[n] = '\0';
	if (n > 10 && strcmp(link + n - 10, " (deleted)") == 0)
		return NULL;
	if (len > 1 && strncmp(link, w->root, len) == 0 && (link[len] == '/' || link[len] == '\0'))
		return link[len] ? link + len : "/";
	return w->is_alone || len == 1 ? link : NULL;
}

/* Is this the interpreter that the last exec named? By inode: the name may lead through links. */
static bool is_interp(const struct watcher *w, const struct seen_process *p, const struct stat *st)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	CLEANUP(close_fdp) int root = -1;
	CLEANUP(close_fdp) int fd = -1;
	char proc[40];
	struct stat want;

	if (!p->interp[0])
		return false;
	/* Not held open: a container's root must be free to be unmounted. */
	(void)snprintf(proc, sizeof(proc), "/proc/%d/root", (int)p->pid);
	root = open(w->root ? w->root : proc, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return false;
	fd = (int)syscall(SYS_openat2, root, p->interp, &how, sizeof(how));
	return fd >= 0 && fstat(fd, &want) == 0 && want.st_ino == st->st_ino && want.st_dev == st->st_dev;
}

static bool was_there_before(const struct watcher *w, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	CLEANUP(close_fdp) int fd = -1;

	if (w->lower_fd < 0)
		return true;
	fd = (int)syscall(SYS_openat2, w->lower_fd, path, &how, sizeof(how));
	return fd >= 0;
}

static void keep(struct watcher *w, const struct seen_process *p, const char *path, enum img_access access,
                 const struct stat *st)
{
	uint64_t now = (uint64_t)base_now_ns() - w->start_ns;
	struct img_trace_record r = { .path = path,
		                      .access = access,
		                      .pid = p->number,
		                      .count = 1,
		                      .first_ns = now,
		                      .last_ns = now,
		                      .size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0 };
	int n = img_trace_add(w->trace, &r);

	if (n < 0 && n != -EINVAL)
		w->error = n;
}

static void on_exec(struct watcher *w, struct seen_process *p, int fd, const char *path, const struct stat *st)
{
	enum img_access access = is_interp(w, p, st) ? IMG_ACCESS_KERNEL : IMG_ACCESS_EXEC;

	keep(w, p, path, access, st);
	if (img_interp_of(fd, p->interp) <= 0)
		p->interp[0] = '\0';
	if (access == IMG_ACCESS_KERNEL)
		return;
	free(p->program);
	p->program = strdup(path);
	p->needs_cmdline = true;
}

static void on_event(struct watcher *w, const struct fanotify_event_metadata *e)
{
	char link[PATH_MAX];
	const char *path = path_of(w, e->fd, link);
	struct seen_process *p;
	struct stat st;

	if (!path || e->pid == w->ignore[0] || e->pid == w->ignore[1] || fstat(e->fd, &st) < 0)
		return;
	if (e->mask & FAN_OPEN_EXEC)
		retire_if_other(w, e->pid);
	p = find_process(w, e->pid);
	if (!p)
		p = add_process(w, e->pid);
	if (!p) {
		w->error = -ENOMEM;
		return;
	}
	if (e->mask & FAN_OPEN_EXEC) {
		on_exec(w, p, e->fd, path, &st);
		return;
	}
	if (p->needs_cmdline) {
		free(p->cmdline);
		p->cmdline = img_trace_read_cmdline(p->pid);
		p->needs_cmdline = false;
	}
	if (S_ISDIR(st.st_mode))
		keep(w, p, path, IMG_ACCESS_READDIR, &st);
	else
		keep(w, p, path, was_there_before(w, path) ? IMG_ACCESS_OPEN : IMG_ACCESS_CREATE, &st);
}

/* All that is waiting. 0, or a negative errno. */
static int read_events(struct watcher *w)
{
	char buf[65536] __attribute__((aligned(8)));

	for (;;) {
		ssize_t n = read(w->fd, buf, sizeof(buf));
		const struct fanotify_event_metadata *e = (const void *)buf;

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		for (; FAN_EVENT_OK(e, n); e = FAN_EVENT_NEXT(e, n)) {
			if (e->vers != FANOTIFY_METADATA_VERSION)
				return -EPROTO;
			if (e->mask & FAN_Q_OVERFLOW)
				w->has_lost = true;
			if (e->fd < 0)
				continue;
			if (!w->error)
				on_event(w, e);
			(void)close(e->fd);
		}
	}
}

static int open_fanotify(struct watcher *w, const char *root)
{
	struct statfs fs;

	w->fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE,
	                      O_RDONLY | O_CLOEXEC | O_LARGEFILE | O_NOATIME);
	if (w->fd < 0)
		return err_set(w->err, -errno, "fanotify (this needs root): %s", strerror(errno));
	if (statfs(root, &fs) < 0)
		return err_set(w->err, -errno, "%s: %s", root, strerror(errno));
	w->is_alone = fs.f_type == OVERLAYFS_SUPER_MAGIC;
	if (fanotify_mark(w->fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN | FAN_OPEN_EXEC | FAN_ONDIR, AT_FDCWD,
	                  root) < 0)
		return err_set(w->err, -errno, "%s: fanotify cannot listen to its file system: %s", root,
		               strerror(errno));
	return 0;
}

static int watcher_init(struct watcher *w, struct err *err)
{
	*w = (struct watcher){ .fd = -1, .lower_fd = -1, .err = err, .start_ns = (uint64_t)base_now_ns() };
	w->ignore[0] = getpid();
	w->trace = img_trace_new();
	return w->trace ? 0 : err_set(err, -ENOMEM, "fanotify: out of memory");
}

static void watcher_done(struct watcher *w)
{
	free_processes(w);
	img_trace_free(w->trace);
	free(w->root);
	if (w->fd >= 0)
		(void)close(w->fd);
	if (w->lower_fd >= 0)
		(void)close(w->lower_fd);
}

/* The end: what is known of the processes, and the trace for the caller. */
static int finish(struct watcher *w, struct img_trace **ret_trace)
{
	note_all(w);
	if (w->error)
		return err_set(w->err, w->error, "the trace: %s",
		               w->error == -E2BIG ? "more than it can hold" : strerror(-w->error));
	*ret_trace = w->trace;
	w->trace = NULL;
	return 0;
}

/* ---- Listening to others -------------------------------------------------------------------------------------- */

static bool is_mounted(const char *root)
{
	char parent[PATH_MAX];
	struct stat here, above;

	(void)snprintf(parent, sizeof(parent), "%s/..", root);
	return stat(root, &here) == 0 && stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

int img_trace_watch(const char *root, const volatile sig_atomic_t *stop, struct img_trace **ret_trace, struct err *err)
{
	struct pollfd p = { .events = POLLIN };
	struct watcher w;
	bool was_mounted;
	int r = watcher_init(&w, err);

	if (r == 0) {
		w.root = realpath(root, NULL);
		r = w.root ? open_fanotify(&w, w.root) : err_set(err, -errno, "%s: %s", root, strerror(errno));
	}
	was_mounted = r == 0 && is_mounted(w.root);
	p.fd = w.fd;
	while (r == 0 && !*stop) {
		if (poll(&p, 1, POLL_MS) < 0 && errno != EINTR)
			r = -errno;
		if (r == 0)
			r = read_events(&w);
		if (r < 0)
			r = err_set(err, r, "fanotify: %s", strerror(-r));
		if (was_mounted && !is_mounted(w.root)) /* the container is gone */
			break;
	}
	if (r == 0)
		r = read_events(&w);
	if (r == 0)
		r = finish(&w, ret_trace);
	watcher_done(&w);
	return r;
}

/* ---- Listening to a run of ours ------------------------------------------------------------------------------- */

static int attach(void *arg, pid_t pid, int root_fd, struct err *err)
{
	struct watcher *w = arg;
	char root[40];
	int r;

	w->ignore[1] = pid;
	(void)snprintf(root, sizeof(root), "/proc/self/fd/%d", root_fd);
	r = open_fanotify(w, root);
	if (r == 0 && !w->is_alone)
		return err_set(err, -ENOTSUP,
		               "fanotify needs an overlay as the root, which cannot be had here: use ptrace");
	w->start_ns = (uint64_t)base_now_ns();
	return r;
}

static int wait_and_listen(void *arg, pid_t pid, const atomic_bool *must_end, int *ret_status, struct rusage *ret_usage,
                           struct err *err)
{
	struct watcher *w = arg;
	CLEANUP(close_fdp) int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p[2] = { { .fd = w->fd, .events = POLLIN }, { .fd = pidfd, .events = POLLIN } };
	int r = 0;

	if (pidfd < 0)
		return err_set(err, -errno, "pidfd_open: %s", strerror(errno));
	while (r == 0 && !p[1].revents) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			r = -errno;
		if (r == 0)
			r = read_events(w);
	}
	if (r == 0)
		r = read_events(w);
	if (r < 0)
		return err_set(err, r, "fanotify: %s", strerror(-r));
	while (wait4(pid, ret_status, __WALL, ret_usage) < 0) {
		if (errno != EINTR)
			return err_set(err, -errno, "waiting for the command: %s", strerror(errno));
	}
	return 0;
}

int img_trace_fanotify(const struct img_run *run, struct img_trace **ret_trace, struct img_run_result *ret_result,
                       struct err *err)
{
	static const struct img_run_watch watch = { .attach = attach, .wait = wait_and_listen };
	struct img_run watched = *run;
	struct watcher w;
	int r;

	if (run->n_roots == 0)
		return err_set(err, -EINVAL, "fanotify follows a root, not the host's own: name one");
	r = watcher_init(&w, err);
	if (r == 0) {
		/* Of several layers none alone can say what was there. */
		if (run->n_roots == 1)
			w.lower_fd = open(run->roots[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
		watched.watch = &watch;
		watched.watch_arg = &w;
		r = img_run(&watched, ret_result, err);
	}
	if (r == 0) {
		r = finish(&w, ret_trace);
		if (r < 0)
			img_run_result_done(ret_result);
		else if (w.has_lost)
			(void)snprintf(ret_result->notes, sizeof(ret_result->notes),
			               "events were lost: the trace is not complete");
	}
	watcher_done(&w);
	return r;
}
