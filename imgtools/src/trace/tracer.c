/* The tracer: follows a command and all it starts with ptrace (PTRACE_SEIZE), and is woken by a seccomp filter right
 * before each call that names a file. What the call will find is looked up at that moment, while the process waits
 * (names.c); there is no second stop after the call, which is what makes it cheap. Whether an exec succeeded is told by
 * the kernel anyway.
 *
 *   seccomp stop   look the path up, record, let it run
 *   fork, clone    the child is traced from its first instruction on
 *   exec           what was looked up before it is recorded now, with what the kernel opened for it; an exec by a
 *                  thread ends the others and takes over the number of the first
 *   other stops    signals are handed on, a stopped group stays stopped (PTRACE_LISTEN)
 *
 * Records begin with the command's own first exec: what the runtime does before is none of its business. */
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "calls.h"
#include "interp.h"
#include "names.h"
#include "trace_internal.h"
#include "tracer_internal.h"
#include "views.h"

enum { N_BUCKETS = 4096, SOCKETCALL_386 = 102 };

/* One process: what its threads share. */
struct process {
	uint32_t number; /* in the trace; 0: the runtime's own, not recorded */
	uint32_t parent;
	pid_t tgid;
	unsigned n_threads;
	bool is_recorded;
	struct img_view *view; /* NULL: to be found out before the next look-up */
	unsigned generation;   /* of the views, when it was */
	struct img_name *root;
	struct img_name *cwd; /* of cwd_path */
	char *cwd_path;
	char *program, *cmdline;
	int32_t exit_code;
};

struct thread {
	struct thread *next; /* in its bucket */
	pid_t tid;
	struct process *process; /* NULL: stopped before the kernel told whose child it is */
	bool waits;              /* such a one, stopped */
	struct img_name *exec;   /* what its exec names, until that succeeds */
	struct img_view *exec_view;
	uint64_t exec_size;
};

struct tracer {
	struct img_trace *trace;
	struct sock_fprog filter;
	struct thread *buckets[N_BUCKETS];
	size_t n_threads;
	struct img_views *views;
	uint32_t n_numbers;
	uint64_t start_ns; /* of the first exec; 0: not yet */
	pid_t child;       /* the runtime's */
	bool has_root;     /* the child is an init that starts the command */
	bool is_killed;
	int error;                 /* -ENOMEM, -E2BIG: recording has stopped, the command goes on */
	char tracers[128];         /* programs that would have liked to be tracers */
	struct img_found found;    /* large; one look-up at a time */
	char first_exec[PATH_MAX]; /* what the command was called as */
};

/* ---- Threads and processes ---------------------------------------------------------------------------------- */

static struct thread **bucket_of(struct tracer *t, pid_t tid)
{
	return &t->buckets[(unsigned)tid % N_BUCKETS];
}

static struct thread *find_thread(struct tracer *t, pid_t tid)
{
	struct thread *th = *bucket_of(t, tid);

	while (th && th->tid != tid)
		th = th->next;
	return th;
}

static struct thread *add_thread(struct tracer *t, pid_t tid)
{
	struct thread *th = calloc(1, sizeof(*th));

	if (!th)
		return NULL;
	th->tid = tid;
	th->next = *bucket_of(t, tid);
	*bucket_of(t, tid) = th;
	t->n_threads++;
	return th;
}

static struct process *process_new(struct tracer *t, pid_t tgid, const struct process *parent)
{
	struct process *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->tgid = tgid;
	p->exit_code = -1;
	/* The runtime's init has no number; its child, the command, is 1. */
	if (parent || !t->has_root)
		p->number = ++t->n_numbers;
	if (parent) {
		p->parent = parent->number;
		p->is_recorded = parent->is_recorded;
		p->program = parent->program ? strdup(parent->program) : NULL;
		p->cmdline = parent->cmdline ? strdup(parent->cmdline) : NULL;
	}
	return p;
}

static void note_process(struct tracer *t, const struct process *p)
{
	struct img_trace_process tp = { .pid = p->number,
		                        .parent = p->parent,
		                        .program = p->program,
		                        .cmdline = p->cmdline,
		                        .exit_code = p->exit_code };
	int r;

	if (!p->number || !p->is_recorded)
		return;
	r = img_trace_add_process(t->trace, &tp);
	if (r < 0)
		t->error = r;
}

static void process_unref(struct tracer *t, struct process *p)
{
	if (!p || --p->n_threads > 0)
		return;
	note_process(t, p);
	free(p->cwd_path);
	free(p->program);
	free(p->cmdline);
	free(p);
}

static void remove_thread(struct tracer *t, struct thread *th)
{
	struct thread **link = bucket_of(t, th->tid);

	while (*link != th)
		link = &(*link)->next;
	*link = th->next;
	t->n_threads--;
	process_unref(t, th->process);
	free(th);
}

static void join_process(struct thread *th, struct process *p)
{
	th->process = p;
	p->n_threads++;
}

/* The new thread of a fork, vfork or clone; the kernel may have told of its first stop before it told of its birth. */
static void on_birth(struct tracer *t, struct thread *parent)
{
	unsigned long message;
	struct thread *th;
	struct process *p = parent->process;
	pid_t tid;

	if (!p || ptrace(PTRACE_GETEVENTMSG, parent->tid, 0, &message) < 0)
		return;
	tid = (pid_t)message;
	th = find_thread(t, tid);
	if (!th)
		th = add_thread(t, tid);
	if (!th || th->process)
		return;
	/* Does it belong to the group of its parent? */
	if (syscall(SYS_tgkill, p->tgid, tid, 0) < 0 && errno == ESRCH)
		p = process_new(t, tid, p);
	if (!p) {
		t->error = -ENOMEM;
		p = parent->process;
	}
	join_process(th, p);
	if (th->waits) {
		th->waits = false;
		(void)ptrace(PTRACE_CONT, tid, 0, 0);
	}
}

/* ---- Records ---------------------------------------------------------------------------------------------- */

static void keep(struct tracer *t, const struct process *p, const char *path, enum img_access access, uint64_t size,
                 int error)
{
	uint64_t now = img_trace_now_ns() - t->start_ns;
	struct img_trace_record r = { .path = path,
		                      .access = access,
		                      .pid = p->number,
		                      .count = 1,
		                      .first_ns = now,
		                      .last_ns = now,
		                      .size = size,
		                      .error = error };
	int n;

	if (!p->is_recorded || t->error)
		return;
	n = img_trace_add(t->trace, &r);
	if (n < 0 && n != -EINVAL)
		t->error = n;
}

/* Something at a name; what the command has made itself stays "created", whatever is done to it later. */
static void record(struct tracer *t, const struct process *p, struct img_name *name, enum img_access access,
                   uint64_t size)
{
	const char *path;

	if (name->is_outside)
		return;
	path = img_view_map(p->view, name);
	if (!path)
		return;
	if (img_names_is_created(p->view->names, name))
		access = IMG_ACCESS_CREATE;
	keep(t, p, path, access, size, 0);
}

static void record_miss(struct tracer *t, const struct process *p, const struct img_found *f)
{
	const char *path = img_view_map(p->view, f->name);
	char whole[PATH_MAX];

	if (!path || (f->error != ENOENT && f->error != ENOTDIR))
		return;
	if (f->rest[0]) {
		if (snprintf(whole, sizeof(whole), "%s%s", path, f->rest) >= (int)sizeof(whole))
			return;
		path = whole;
	}
	keep(t, p, path, IMG_ACCESS_MISS, 0, f->error);
}

struct link_context {
	struct tracer *t;
	const struct process *p;
};

static void on_link(struct img_name *link, void *arg)
{
	struct link_context *c = arg;

	record(c->t, c->p, link, IMG_ACCESS_READLINK, 0);
}

static uint64_t size_of(const struct img_found *f)
{
	return f->error == 0 && S_ISREG(f->st.st_mode) ? (uint64_t)f->st.st_size : 0;
}

/* ---- Looking things up ------------------------------------------------------------------------------------ */

/* One stop: who, what, and the arguments. */
struct stop {
	struct tracer *t;
	struct thread *th;
	struct process *p;
	const struct img_call *call;
	uint64_t args[6];
};

/* The 0-terminated text at an address of the process. False when it cannot be read. */
static bool read_text(const struct stop *s, uint64_t address, char text[PATH_MAX])
{
	size_t n = 0;

	while (n < PATH_MAX) {
		/* Never beyond the page: the next may not be there. Most paths are short. */
		size_t room = 4096 - (size_t)((address + n) & 4095), want = n == 0 && room > 256 ? 256 : room;
		struct iovec local = { text + n, want < PATH_MAX - n ? want : PATH_MAX - n };
		struct iovec remote = { (void *)(uintptr_t)(address + n), local.iov_len };
		ssize_t got = process_vm_readv(s->th->tid, &local, 1, &remote, 1, 0);

		if (got <= 0)
			return false;
		if (memchr(text + n, '\0', (size_t)got))
			return true;
		n += (size_t)got;
	}
	return false;
}

static bool read_bytes(const struct stop *s, uint64_t address, void *data, size_t size)
{
	struct iovec local = { data, size }, remote = { (void *)(uintptr_t)address, size };

	return process_vm_readv(s->th->tid, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static bool find_view(struct stop *s)
{
	struct process *p = s->p;

	if (p->view && p->generation == s->t->views->generation)
		return true;
	p->view = img_views_of(s->t->views, s->th->tid, &p->root);
	p->generation = s->t->views->generation;
	p->cwd = NULL;
	return p->view != NULL;
}

/* The directory that a link in /proc of the process leads to. */
static struct img_name *directory_at(struct stop *s, const char *proc_link, char *ret_path)
{
	char host[64];
	const char *path;
	ssize_t n;
	struct img_lookup l = { .tid = s->th->tid, .tgid = s->p->tgid };
	struct img_found *f = &s->t->found;

	(void)snprintf(host, sizeof(host), "/proc/%d/%s", (int)s->th->tid, proc_link);
	n = readlink(host, ret_path, PATH_MAX - 1);
	if (n <= 0 || ret_path[0] != '/')
		return NULL;
	ret_path[n] = '\0';
	path = img_view_strip(s->p->view, ret_path);
	if (!path)
		return NULL;
	l.root = l.start = img_names_root(s->p->view->names);
	l.text = path;
	img_names_lookup(s->p->view->names, &l, f);
	return f->error ? NULL : f->name;
}

static struct img_name *working_directory(struct stop *s)
{
	struct process *p = s->p;
	char host[64], path[PATH_MAX];
	ssize_t n;

	(void)snprintf(host, sizeof(host), "/proc/%d/cwd", (int)s->th->tid);
	n = readlink(host, path, sizeof(path) - 1);
	if (n <= 0)
		return NULL;
	path[n] = '\0';
	if (p->cwd && strcmp(p->cwd_path, path) == 0)
		return p->cwd;
	p->cwd = directory_at(s, "cwd", path);
	free(p->cwd_path);
	p->cwd_path = strdup(path);
	if (!p->cwd_path)
		p->cwd = NULL;
	return p->cwd;
}

/* Where a relative path of this call begins. */
static struct img_name *directory_of(struct stop *s, int dirfd_arg)
{
	int fd = dirfd_arg < 0 ? AT_FDCWD : (int)s->args[dirfd_arg];
	char link[32], path[PATH_MAX];

	if (fd == AT_FDCWD)
		return working_directory(s);
	if (fd < 0)
		return NULL;
	(void)snprintf(link, sizeof(link), "fd/%d", fd);
	return directory_at(s, link, path);
}

enum { FOLLOW = 1, WITHIN_DIRECTORY = 2 };

/* Looks up `text`, as this process means it. False: nothing to tell of. */
static bool look_up(struct stop *s, int dirfd_arg, const char *text, unsigned how, struct img_found *f)
{
	struct link_context links = { s->t, s->p };
	struct img_lookup l = { .root = s->p->root,
		                .text = text,
		                .follow = how & FOLLOW,
		                .tid = s->th->tid,
		                .tgid = s->p->tgid,
		                .on_link = on_link,
		                .arg = &links };

	if (text[0] != '/' || (how & WITHIN_DIRECTORY)) {
		l.start = directory_of(s, dirfd_arg);
		if (!l.start)
			return false;
		if (how & WITHIN_DIRECTORY)
			l.root = l.start;
	}
	img_names_lookup(s->p->view->names, &l, f);
	return !f->is_ignored;
}

/* The same for the path in an argument; an empty one names nothing. */
static bool look_up_arg(struct stop *s, int dirfd_arg, int path_arg, unsigned how, struct img_found *f)
{
	char text[PATH_MAX];

	if (!find_view(s) || !read_text(s, s->args[path_arg], text) || !text[0])
		return false;
	return look_up(s, dirfd_arg, text, how, f);
}

/* ---- The calls -------------------------------------------------------------------------------------------- */

static void make(struct stop *s, struct img_found *f)
{
	img_names_forget(s->p->view->names, f->name);
	img_names_set_created(s->p->view->names, f->name);
	record(s->t, s->p, f->name, IMG_ACCESS_CREATE, 0);
}

static void do_open(struct stop *s, uint64_t flags, unsigned how)
{
	struct img_found *f = &s->t->found;
	enum img_access access = IMG_ACCESS_OPEN;

	if (!(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL))
		how |= FOLLOW;
	if (!look_up_arg(s, s->call->dirfd, s->call->path, how, f))
		return;
	if (f->error == ENOENT && f->is_last && (flags & O_CREAT) && !(flags & O_PATH)) {
		make(s, f);
	} else if (f->error == ENOENT || f->error == ENOTDIR) {
		record_miss(s->t, s->p, f);
	} else {
		if (f->error || S_ISDIR(f->st.st_mode) || (flags & O_PATH) || (flags & O_TMPFILE) == O_TMPFILE)
			access = IMG_ACCESS_STAT; /* as far as it goes: what a directory holds is read later */
		else if (S_ISLNK(f->st.st_mode))
			access = IMG_ACCESS_READLINK;
		else if ((flags & (O_CREAT | O_TRUNC)) == (O_CREAT | O_TRUNC))
			access = IMG_ACCESS_CREATE; /* its content does not matter, nor would its absence */
		record(s->t, s->p, f->name, access, size_of(f));
		if (access == IMG_ACCESS_CREATE)
			img_names_set_created(s->p->view->names, f->name);
	}
}

static void do_open2(struct stop *s)
{
	uint64_t how[3]; /* flags, mode, resolve */

	if (s->args[s->call->aux + 1] < sizeof(how) || !read_bytes(s, s->args[s->call->aux], how, sizeof(how)))
		return;
	do_open(s, how[0], how[2] & (RESOLVE_IN_ROOT | RESOLVE_BENEATH) ? WITHIN_DIRECTORY : 0);
}

static void do_look(struct stop *s, unsigned how)
{
	struct img_found *f = &s->t->found;
	enum img_access access = IMG_ACCESS_STAT;

	if (!look_up_arg(s, s->call->dirfd, s->call->path, how, f))
		return;
	if (f->error == ENOENT || f->error == ENOTDIR) {
		record_miss(s->t, s->p, f);
		return;
	}
	if (s->call->op == IMG_CALL_READLINK && f->error == 0 && S_ISLNK(f->st.st_mode))
		access = IMG_ACCESS_READLINK;
	record(s->t, s->p, f->name, access, size_of(f));
}

/* A new name; when it is taken already, the call will say so, and needs that. */
static void do_make(struct stop *s)
{
	struct img_found *f = &s->t->found;

	if (!look_up_arg(s, s->call->dirfd, s->call->path, 0, f))
		return;
	if (f->error == ENOENT && f->is_last)
		make(s, f);
	else if (f->error)
		record_miss(s->t, s->p, f);
	else
		record(s->t, s->p, f->name, IMG_ACCESS_STAT, size_of(f));
}

static void do_remove(struct stop *s)
{
	struct img_found *f = &s->t->found;

	if (!look_up_arg(s, s->call->dirfd, s->call->path, 0, f))
		return;
	if (f->error) {
		record_miss(s->t, s->p, f);
		return;
	}
	record(s->t, s->p, f->name, IMG_ACCESS_STAT, size_of(f));
	img_names_forget(s->p->view->names, f->name);
}

/* rename and link: the old name is needed, the new one is made. */
static void do_rename(struct stop *s)
{
	struct img_found *f = &s->t->found;
	unsigned how = s->call->aux >= 0 && (s->args[s->call->aux] & AT_SYMLINK_FOLLOW) ? FOLLOW : 0;

	if (look_up_arg(s, s->call->dirfd, s->call->path, how, f)) {
		if (f->error) {
			record_miss(s->t, s->p, f);
			return;
		}
		record(s->t, s->p, f->name, IMG_ACCESS_OPEN, size_of(f));
		if (s->call->op == IMG_CALL_RENAME)
			img_names_forget(s->p->view->names, f->name);
	}
	if (!look_up_arg(s, s->call->dirfd2, s->call->path2, 0, f))
		return;
	if (f->error == ENOENT && !f->is_last)
		record_miss(s->t, s->p, f);
	else if (f->error == 0 || f->error == ENOENT)
		make(s, f);
}

static void do_readdir(struct stop *s)
{
	struct img_name *dir;

	if (!find_view(s))
		return;
	s->call = &(const struct img_call){ .dirfd = s->call->path };
	dir = directory_of(s, s->call->dirfd);
	if (dir)
		record(s->t, s->p, dir, IMG_ACCESS_READDIR, 0);
}

static void do_socket(struct stop *s)
{
	struct img_found *f = &s->t->found;
	struct sockaddr_un sun = { 0 };
	char text[sizeof(sun.sun_path) + 1] = "";
	uint64_t length = s->args[2], address = s->args[1];

	if (length > sizeof(sun))
		length = sizeof(sun);
	if (length <= sizeof(sun.sun_family) || !read_bytes(s, address, &sun, length) || sun.sun_family != AF_UNIX ||
	    !sun.sun_path[0] || !find_view(s))
		return;
	memcpy(text, sun.sun_path, sizeof(sun.sun_path));
	if (!look_up(s, IMG_CALL_NONE, text, s->call->op == IMG_CALL_BIND ? 0 : FOLLOW, f))
		return;
	if (s->call->op == IMG_CALL_BIND && f->error == ENOENT && f->is_last)
		make(s, f);
	else if (f->error)
		record_miss(s->t, s->p, f);
	else
		record(s->t, s->p, f->name, s->call->op == IMG_CALL_BIND ? IMG_ACCESS_STAT : IMG_ACCESS_CONNECT, 0);
}

/* Whether it succeeds is known when the kernel says so: on_exec(). */
static void do_exec(struct stop *s)
{
	struct img_found *f = &s->t->found;
	uint64_t flags = s->call->aux >= 0 ? s->args[s->call->aux] : 0;
	char text[PATH_MAX], link[32];

	if (!find_view(s) || !read_text(s, s->args[s->call->path], text))
		return;
	if (!text[0]) {
		if (!(flags & AT_EMPTY_PATH))
			return;
		(void)snprintf(link, sizeof(link), "fd/%d", (int)s->args[s->call->dirfd]);
		s->th->exec = directory_at(s, link, text);
		s->th->exec_size = size_of(f);
	} else {
		if (!look_up(s, s->call->dirfd, text, flags & AT_SYMLINK_NOFOLLOW ? 0 : FOLLOW, f))
			return;
		if (f->error == ENOENT || f->error == ENOTDIR) {
			record_miss(s->t, s->p, f);
			return;
		}
		s->th->exec = f->name;
		s->th->exec_size = size_of(f);
		if (!s->p->is_recorded)
			memcpy(s->t->first_exec, text, strlen(text) + 1);
	}
	s->th->exec_view = s->p->view;
}

static void do_ptrace(struct stop *s)
{
	size_t len = strlen(s->t->tracers);
	const char *program = s->p->program ? s->p->program : "?";

	if (!strstr(s->t->tracers, program))
		(void)snprintf(s->t->tracers + len, sizeof(s->t->tracers) - len, "%s%s", len ? ", " : "", program);
}

static void do_call(struct stop *s)
{
	switch (s->call->op) {
	case IMG_CALL_OPEN:
		do_open(s, s->args[s->call->aux], 0);
		break;
	case IMG_CALL_OPEN2:
		do_open2(s);
		break;
	case IMG_CALL_CREAT:
		do_open(s, O_CREAT | O_WRONLY | O_TRUNC, 0);
		break;
	case IMG_CALL_LOOK:
		do_look(s, FOLLOW);
		break;
	case IMG_CALL_LLOOK:
	case IMG_CALL_READLINK:
		do_look(s, 0);
		break;
	case IMG_CALL_LOOKAT:
		do_look(s, s->args[s->call->aux] & AT_SYMLINK_NOFOLLOW ? 0 : FOLLOW);
		break;
	case IMG_CALL_EXEC:
		do_exec(s);
		break;
	case IMG_CALL_READDIR:
		do_readdir(s);
		break;
	case IMG_CALL_MAKE:
		do_make(s);
		break;
	case IMG_CALL_REMOVE:
		do_remove(s);
		break;
	case IMG_CALL_RENAME:
	case IMG_CALL_LINK:
		do_rename(s);
		break;
	case IMG_CALL_CONNECT:
	case IMG_CALL_BIND:
		do_socket(s);
		break;
	case IMG_CALL_VIEW:
		if (s->call->path >= 0)
			do_look(s, FOLLOW);
		img_views_changed(s->t->views);
		break;
	case IMG_CALL_PTRACE:
		do_ptrace(s);
		break;
	}
}

static void on_call(struct tracer *t, struct thread *th)
{
	struct __ptrace_syscall_info info;
	struct stop s = { .t = t, .th = th, .p = th->process };
	uint32_t args32[3];

	if (!s.p || ptrace(PTRACE_GET_SYSCALL_INFO, th->tid, sizeof(info), &info) < 0 ||
	    info.op != PTRACE_SYSCALL_INFO_SECCOMP)
		return;
	s.call = img_call_at(info.seccomp.ret_data);
	/* Before the command is executed only the exec itself is of interest. */
	if (!s.call || (!s.p->is_recorded && s.call->op != IMG_CALL_EXEC))
		return;
	if (th->exec && s.p->view == th->exec_view) /* it has failed */
		record(t, s.p, th->exec, IMG_ACCESS_STAT, th->exec_size);
	th->exec = NULL;
	memcpy(s.args, info.seccomp.args, sizeof(s.args));
	if (info.arch == AUDIT_ARCH_I386 && info.seccomp.nr == SOCKETCALL_386) {
		if (!read_bytes(&s, s.args[1], args32, sizeof(args32)))
			return;
		for (int i = 0; i < 3; i++)
			s.args[i] = args32[i];
	}
	do_call(&s);
}

/* ---- Exec ------------------------------------------------------------------------------------------------- */

/* "a 'b c'": each argument as a shell would need it. */
static char *read_cmdline(pid_t pid)
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

/* What the kernel opens for an executable: its interpreter, and the interpreter of that. */
static void record_interpreters(struct tracer *t, struct thread *th, struct img_view *view, struct img_name *name)
{
	struct link_context links = { t, th->process };
	struct img_found *f = &t->found;
	char path[IMG_INTERP_MAX];

	for (int depth = 0; depth < IMG_INTERP_DEPTH; depth++) {
		CLEANUP(close_fdp)
		int fd = openat(view->root_fd, name->path + 1,
		                O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
		struct img_lookup l = { .root = th->process->root,
			                .text = path,
			                .follow = true,
			                .tid = th->tid,
			                .tgid = th->process->tgid,
			                .on_link = on_link,
			                .arg = &links };

		if (fd < 0 || img_interp_of(fd, path) <= 0)
			return;
		l.start = l.root;
		img_names_lookup(view->names, &l, f);
		if (f->is_ignored)
			return;
		if (f->error) {
			record_miss(t, th->process, f);
			return;
		}
		record(t, th->process, f->name, IMG_ACCESS_KERNEL, size_of(f));
		name = f->name;
	}
}

/* All other threads of the process are gone now. */
static void drop_other_threads(struct tracer *t, const struct thread *keep_this)
{
	const struct process *p = keep_this->process;

	if (p->n_threads == 1)
		return;
	for (size_t i = 0; i < N_BUCKETS; i++) {
		for (struct thread *th = t->buckets[i], *next; th; th = next) {
			next = th->next;
			if (th != keep_this && th->process == p)
				remove_thread(t, th);
		}
	}
}

/* Recording begins; also the links that led to the command belong to it. */
static void on_first_exec(struct tracer *t, struct thread *th)
{
	struct stop s = { .t = t, .th = th, .p = th->process };

	t->start_ns = img_trace_now_ns();
	th->process->is_recorded = th->process->number != 0;
	if (t->first_exec[0] && find_view(&s))
		(void)look_up(&s, IMG_CALL_NONE, t->first_exec, FOLLOW, &t->found);
}

static void on_exec(struct tracer *t, struct thread *th)
{
	unsigned long message = 0;
	struct thread *old;
	struct process *p = th->process;
	struct img_name *name;
	const char *path;

	if (!p)
		return;
	/* The one that called exec may have been another thread; it has become this one. */
	(void)ptrace(PTRACE_GETEVENTMSG, th->tid, 0, &message);
	old = (pid_t)message != th->tid ? find_thread(t, (pid_t)message) : NULL;
	if (old && old->process == p) {
		th->exec = old->exec;
		th->exec_view = old->exec_view;
		th->exec_size = old->exec_size;
	}
	drop_other_threads(t, th);
	name = th->exec;
	th->exec = NULL;
	if (!p->is_recorded)
		on_first_exec(t, th);
	free(p->cmdline);
	p->cmdline = read_cmdline(p->tgid);
	if (name && p->view == th->exec_view) {
		record(t, p, name, IMG_ACCESS_EXEC, th->exec_size);
		record_interpreters(t, th, th->exec_view, name);
		path = img_view_map(p->view, name);
		free(p->program);
		p->program = path ? strdup(path) : NULL;
	}
	note_process(t, p);
}

/* ---- Stops ------------------------------------------------------------------------------------------------ */

static bool stops_group(int sig)
{
	return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

static void on_stop(struct tracer *t, pid_t tid, int status)
{
	struct thread *th = find_thread(t, tid);
	int event = status >> 16, sig = WSTOPSIG(status);

	if (!th) {
		th = add_thread(t, tid);
		if (!th) {
			t->error = -ENOMEM;
			(void)ptrace(PTRACE_CONT, tid, 0, 0);
			return;
		}
	}
	if (!th->process) {
		/* Its birth has not been told yet: it waits for that, so that nothing of it is lost. */
		th->waits = true;
		return;
	}
	switch (event) {
	case PTRACE_EVENT_SECCOMP:
		on_call(t, th);
		break;
	case PTRACE_EVENT_FORK:
	case PTRACE_EVENT_VFORK:
	case PTRACE_EVENT_CLONE:
		on_birth(t, th);
		break;
	case PTRACE_EVENT_EXEC:
		on_exec(t, th);
		break;
	case PTRACE_EVENT_STOP:
		if (stops_group(sig)) {
			(void)ptrace(PTRACE_LISTEN, tid, 0, 0);
			return;
		}
		break;
	default: /* a signal, on its way to the process */
		(void)ptrace(PTRACE_CONT, tid, 0, sig);
		return;
	}
	(void)ptrace(PTRACE_CONT, tid, 0, 0);
}

static void on_end(struct tracer *t, pid_t tid, int status)
{
	struct thread *th = find_thread(t, tid);

	if (!th)
		return;
	if (th->process && th->process->tgid == tid)
		th->process->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	remove_thread(t, th);
}

/* The time is over: in the host's own root nobody else ends the command's children. */
static void kill_all(struct tracer *t)
{
	t->is_killed = true;
	for (size_t i = 0; i < N_BUCKETS; i++) {
		for (struct thread *th = t->buckets[i]; th; th = th->next)
			(void)kill(th->process ? th->process->tgid : th->tid, SIGKILL);
	}
}

/* ---- Between runtime and tracer ----------------------------------------------------------------------------- */

static int prepare(void *arg)
{
	struct tracer *t = arg;

	return img_call_install(&t->filter);
}

static int attach(void *arg, pid_t pid, int root_fd, struct err *err)
{
	static const unsigned long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
	                                     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	struct tracer *t = arg;
	struct process *p;
	struct thread *th;

	t->child = pid;
	t->views = img_views_new(pid, root_fd);
	p = process_new(t, pid, NULL);
	th = add_thread(t, pid);
	if (!t->views || !p || !th) {
		free(p);
		return err_set(err, -ENOMEM, "the tracer: out of memory");
	}
	join_process(th, p);
	if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		return err_set(err, -errno, "the command cannot be traced: ptrace: %s", strerror(errno));
	return 0;
}

static int wait_all(void *arg, pid_t pid, const volatile bool *must_end, int *ret_status, struct rusage *ret_usage,
                    struct err *err)
{
	struct tracer *t = arg;
	struct rusage usage;
	bool has_ended = false;
	int status;

	while (!has_ended || t->n_threads > 0) {
		pid_t tid = wait4(-1, &status, __WALL | __WNOTHREAD, &usage);

		if (*must_end && !t->is_killed)
			kill_all(t);
		if (tid < 0) {
			if (errno == EINTR)
				continue;
			if (errno == ECHILD && has_ended)
				break;
			return err_set(err, -errno, "waiting for the command: %s", strerror(errno));
		}
		if (WIFSTOPPED(status)) {
			on_stop(t, tid, status);
			continue;
		}
		on_end(t, tid, status);
		if (tid == pid) {
			has_ended = true;
			*ret_status = status;
			*ret_usage = usage;
		}
	}
	return 0;
}

static void tracer_done(struct tracer *t)
{
	for (size_t i = 0; i < N_BUCKETS; i++) {
		while (t->buckets[i])
			remove_thread(t, t->buckets[i]);
	}
	img_views_free(t->views);
	img_trace_free(t->trace);
	free(t->filter.filter);
	free(t);
}

static void add_notes(const struct tracer *t, struct img_run_result *result)
{
	size_t len = strlen(result->notes);

	if (t->tracers[0])
		(void)snprintf(
		        result->notes + len, sizeof(result->notes) - len,
		        "%sptrace is used by the command itself (%s), which it cannot while it is traced by ptrace: "
		        "--method fanotify does without",
		        len ? "; " : "", t->tracers);
}

int img_trace_ptrace(const struct img_run *run, struct img_trace **ret_trace, struct img_run_result *ret_result,
                     struct err *err)
{
	static const struct img_run_watch watch = { .prepare = prepare, .attach = attach, .wait = wait_all };
	struct tracer *t = calloc(1, sizeof(*t));
	struct img_run watched = *run;
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "the tracer: out of memory");
	t->trace = img_trace_new();
	t->has_root = run->n_roots > 0;
	r = t->trace ? img_call_filter(&t->filter, err) : err_set(err, -ENOMEM, "the tracer: out of memory");
	if (r == 0) {
		watched.watch = &watch;
		watched.watch_arg = t;
		r = img_run(&watched, ret_result, err);
	}
	if (r == 0 && t->error) {
		r = err_set(err, t->error, "the trace: %s",
		            t->error == -E2BIG ? "more than it can hold" : strerror(-t->error));
		img_run_result_done(ret_result);
	}
	if (r == 0) {
		add_notes(t, ret_result);
		*ret_trace = t->trace;
		t->trace = NULL;
	}
	tracer_done(t);
	return r;
}
