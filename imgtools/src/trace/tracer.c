/* The tracer: follows a command and all it starts with ptrace (PTRACE_SEIZE), and is woken by a seccomp filter right
 * before each call that names a file. What the call will find is looked up at that moment, while the process waits
 * (names.c); there is no second stop after the call, which is what makes it cheap. Whether an exec succeeded is told by
 * the kernel anyway.
 *
 *   call           look the path up, record, let it run: told of by a seccomp notification, in a thread of its own
 *                  (listener.c), or, where that cannot be had, by a ptrace stop
 *   fork, clone    the child is traced from its first instruction on
 *   exec           what was looked up before it is recorded now, with what the kernel opened for it; an exec by a
 *                  thread ends the others and takes over the number of the first
 *   other stops    signals are handed on, a stopped group stays stopped (PTRACE_LISTEN)
 *
 * Records begin with the command's own first exec: what the runtime does before is none of its business. */
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "base/clock.h"
#include "trace_internal.h"
#include "tracer_internal.h"
#include "tracer_state.h"

/* ---- Threads and processes ---------------------------------------------------------------------------------- */

static struct img_tracee_thread **bucket_of(struct img_tracer *t, pid_t tid)
{
	return &t->buckets[(unsigned)tid % IMG_TRACER_BUCKETS];
}

static struct img_tracee_thread *find_thread(struct img_tracer *t, pid_t tid)
{
	struct img_tracee_thread *th = *bucket_of(t, tid);

	while (th && th->tid != tid)
		th = th->next;
	return th;
}

static struct img_tracee_thread *add_thread(struct img_tracer *t, pid_t tid)
{
	struct img_tracee_thread *th = calloc(1, sizeof(*th));

	if (!th)
		return NULL;
	th->tid = tid;
	th->next = *bucket_of(t, tid);
	*bucket_of(t, tid) = th;
	t->n_threads++;
	return th;
}

static struct img_tracee *process_new(struct img_tracer *t, pid_t tgid, const struct img_tracee *parent)
{
	struct img_tracee *p = calloc(1, sizeof(*p));

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

static void note_process(struct img_tracer *t, const struct img_tracee *p)
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

static void process_unref(struct img_tracer *t, struct img_tracee *p)
{
	if (!p || --p->n_threads > 0)
		return;
	note_process(t, p);
	free(p->cwd_path);
	free(p->program);
	free(p->cmdline);
	free(p);
}

static void remove_thread(struct img_tracer *t, struct img_tracee_thread *th)
{
	struct img_tracee_thread **link = bucket_of(t, th->tid);

	while (*link != th)
		link = &(*link)->next;
	*link = th->next;
	t->n_threads--;
	process_unref(t, th->process);
	free(th);
}

static void join_process(struct img_tracee_thread *th, struct img_tracee *p)
{
	th->process = p;
	p->n_threads++;
}

/* Adopted, and ended already: its birth, when it is told at last, is no news. */
static void keep_unborn(struct img_tracer *t, pid_t tid)
{
	for (size_t i = 0; i < sizeof(t->unborn) / sizeof(t->unborn[0]); i++) {
		if (!t->unborn[i]) {
			t->unborn[i] = tid;
			return;
		}
	}
}

static bool forget_unborn(struct img_tracer *t, pid_t tid)
{
	for (size_t i = 0; i < sizeof(t->unborn) / sizeof(t->unborn[0]); i++) {
		if (t->unborn[i] == tid) {
			t->unborn[i] = 0;
			return true;
		}
	}
	return false;
}

/* The new thread of a fork, vfork or clone; its own first stop may have been told before. */
static void on_birth(struct img_tracer *t, struct img_tracee_thread *parent)
{
	unsigned long message;
	struct img_tracee_thread *th;
	struct img_tracee *p = parent->process;
	pid_t tid;

	if (ptrace(PTRACE_GETEVENTMSG, parent->tid, 0, &message) < 0)
		return;
	tid = (pid_t)message;
	th = find_thread(t, tid);
	if (th)
		th->is_adopted = false;
	if (th || forget_unborn(t, tid))
		return;
	th = add_thread(t, tid);
	/* Does it belong to the group of its parent? */
	if (th && syscall(SYS_tgkill, p->tgid, tid, 0) < 0 && errno == ESRCH)
		p = process_new(t, tid, p);
	if (!th || !p) {
		t->error = -ENOMEM;
		p = parent->process;
	}
	if (th)
		join_process(th, p);
}

/* The number behind `name` in /proc/PID/status, or 0. */
static pid_t status_number(const char *status, const char *name)
{
	const char *line = strstr(status, name);

	return line ? (pid_t)strtol(line + strlen(name), NULL, 10) : 0;
}

/* A thread that stops before its birth was told, which may never be: its parent can have been killed meanwhile. */
static struct img_tracee_thread *adopt(struct img_tracer *t, pid_t tid)
{
	CLEANUP(close_fdp) int fd = -1;
	char path[32], status[4096] = "";
	struct img_tracee_thread *th = add_thread(t, tid), *group, *parent;
	struct img_tracee *p = NULL, nobody = { .is_recorded = t->start_ns != 0 };
	pid_t tgid;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (th)
		th->is_adopted = true;
	if (!th || fd < 0 || read(fd, status, sizeof(status) - 1) <= 0)
		return th;
	tgid = status_number(status, "\nTgid:");
	group = tgid != tid ? find_thread(t, tgid) : NULL;
	parent = find_thread(t, status_number(status, "\nPPid:"));
	if (group)
		p = group->process;
	else
		p = process_new(t, tid, parent && parent->process ? parent->process : &nobody);
	if (p)
		join_process(th, p);
	return th;
}

/* ---- Calls and execs ---------------------------------------------------------------------------------------- */

/* A thread is about to make a call, and waits. */
static void on_call(struct img_tracer *t, struct img_tracee_thread *th, const struct seccomp_data *d)
{
	struct img_stop s = { .t = t, .th = th, .p = th->process, .call = img_call_of(&t->calls, d) };
	uint32_t args32[3];

	/* Before the command is executed only the exec itself is of interest. */
	if (!s.p || !s.call || (!s.p->is_recorded && s.call->op != IMG_CALL_EXEC))
		return;
	if (th->exec)
		img_touch_failed_exec(&s);
	th->exec = NULL;
	memcpy(s.args, d->args, sizeof(s.args));
	if (img_call_is_packed(d)) {
		if (!img_touch_read(&s, s.args[1], args32, sizeof(args32)))
			return;
		for (int i = 0; i < 3; i++)
			s.args[i] = args32[i];
	}
	th->may_block = img_touch_call(&s);
	if (th->may_block)
		th->blocking = *d;
}

/* The same in the listener's thread. One that is not known has been killed: ptrace told of its birth before it ran. */
static void on_notification(void *arg, pid_t tid, const struct seccomp_data *d)
{
	struct img_tracer *t = arg;
	struct img_tracee_thread *th;

	(void)pthread_mutex_lock(&t->lock);
	th = find_thread(t, tid);
	if (th)
		on_call(t, th, d);
	(void)pthread_mutex_unlock(&t->lock);
}

static void on_seccomp_stop(struct img_tracer *t, struct img_tracee_thread *th)
{
	struct __ptrace_syscall_info info;
	struct seccomp_data d;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, th->tid, sizeof(info), &info) < 0 || info.op != PTRACE_SYSCALL_INFO_SECCOMP)
		return;
	d.nr = (int)info.seccomp.nr;
	d.arch = info.arch;
	d.instruction_pointer = info.instruction_pointer;
	memcpy(d.args, info.seccomp.args, sizeof(d.args));
	on_call(t, th, &d);
}

/* All other threads of the process are gone now. */
static void drop_other_threads(struct img_tracer *t, const struct img_tracee_thread *keep_this)
{
	const struct img_tracee *p = keep_this->process;

	if (p->n_threads == 1)
		return;
	for (size_t i = 0; i < IMG_TRACER_BUCKETS; i++) {
		for (struct img_tracee_thread *th = t->buckets[i], *next; th; th = next) {
			next = th->next;
			if (th != keep_this && th->process == p)
				remove_thread(t, th);
		}
	}
}

/* Recording begins; also the links that led to the command belong to it. */
static void on_first_exec(struct img_tracer *t, struct img_tracee_thread *th)
{
	struct img_stop s = { .t = t, .th = th, .p = th->process };

	t->start_ns = (uint64_t)base_now_ns();
	th->process->is_recorded = th->process->number != 0;
	img_touch_first_exec(&s);
}

static void on_exec(struct img_tracer *t, struct img_tracee_thread *th)
{
	unsigned long message = 0;
	struct img_tracee_thread *old;
	struct img_tracee *p = th->process;
	struct img_name *name;
	struct img_stop s = { .t = t, .th = th, .p = p };

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
	p->cmdline = img_trace_read_cmdline(p->tgid);
	if (name && p->view == th->exec_view)
		img_touch_exec(&s, name, th->exec_size);
	note_process(t, p);
}

/* ---- Stops ------------------------------------------------------------------------------------------------ */

static bool stops_group(int sig)
{
	return sig == SIGSTOP || sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

/* A signal on its way to a thread that may wait to be told of: for the program it then came right before the call. A
 * call that was told of already, and waits for something else by now, is what the signal was sent for, perhaps. */
static void on_signal(struct img_tracer *t, const struct img_tracee_thread *th)
{
	const struct seccomp_data *b = &th->blocking;
	struct seccomp_data d;

	if (!t->listener || !img_listener_was_interrupted(th->tid, &d) || !img_call_of(&t->calls, &d))
		return;
	if (th->may_block && d.nr == b->nr && d.arch == b->arch && d.instruction_pointer == b->instruction_pointer &&
	    d.args[0] == b->args[0] && d.args[1] == b->args[1])
		return;
	img_listener_restart(th->tid);
}

static void on_stop(struct img_tracer *t, pid_t tid, int status)
{
	struct img_tracee_thread *th = find_thread(t, tid);
	int event = status >> 16, sig = WSTOPSIG(status);

	if (!th)
		th = adopt(t, tid);
	if (!th || !th->process) {
		t->error = th ? t->error : -ENOMEM;
		(void)ptrace(PTRACE_CONT, tid, 0, event ? 0 : sig);
		return;
	}
	switch (event) {
	case PTRACE_EVENT_SECCOMP:
		on_seccomp_stop(t, th);
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
	default:
		on_signal(t, th);
		(void)ptrace(PTRACE_CONT, tid, 0, sig);
		return;
	}
	(void)ptrace(PTRACE_CONT, tid, 0, 0);
}

static void on_end(struct img_tracer *t, pid_t tid, int status)
{
	struct img_tracee_thread *th = find_thread(t, tid);

	if (!th)
		return;
	if (th->process && th->process->tgid == tid)
		th->process->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	if (th->is_adopted)
		keep_unborn(t, tid);
	remove_thread(t, th);
}

/* The time is over: in the host's own root nobody else ends the command's children. */
static void kill_all(struct img_tracer *t)
{
	t->is_killed = true;
	for (size_t i = 0; i < IMG_TRACER_BUCKETS; i++) {
		for (struct img_tracee_thread *th = t->buckets[i]; th; th = th->next)
			(void)kill(th->process ? th->process->tgid : th->tid, SIGKILL);
	}
}

/* ---- Between runtime and tracer ----------------------------------------------------------------------------- */

static int prepare(void *arg)
{
	struct img_tracer *t = arg;
	int r = t->listener ? img_listener_install(t->listener) : -EINVAL;

	/* Too old a kernel, or somebody listens already (to slimtrace as well). */
	return r == -EINVAL || r == -EBUSY ? img_call_install(&t->filter, 0) : r;
}

static int attach(void *arg, pid_t pid, int root_fd, struct err *err)
{
	static const unsigned long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
	                                     PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	struct img_tracer *t = arg;
	struct img_tracee *p;
	struct img_tracee_thread *th;

	t->child = pid;
	/* The command itself may leave its mount namespace; the runtime's init does not, nor do we. */
	t->views = img_views_new(t->has_root ? pid : getpid(), root_fd);
	p = process_new(t, pid, NULL);
	th = add_thread(t, pid);
	if (!t->views || !p || !th) {
		free(p);
		return err_set(err, -ENOMEM, "the tracer: out of memory");
	}
	join_process(th, p);
	if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		return err_set(err, -errno, "the command cannot be traced: ptrace: %s", strerror(errno));
	return t->listener ? img_listener_start(t->listener, err) : 0;
}

/* What wait4() said; tid < 0: nothing, it was interrupted. */
static void on_news(struct img_tracer *t, pid_t tid, int status, bool must_end)
{
	(void)pthread_mutex_lock(&t->lock);
	if (must_end && !t->is_killed)
		kill_all(t);
	if (tid >= 0 && WIFSTOPPED(status))
		on_stop(t, tid, status);
	else if (tid >= 0)
		on_end(t, tid, status);
	(void)pthread_mutex_unlock(&t->lock);
}

static int wait_all(void *arg, pid_t pid, const atomic_bool *must_end, int *ret_status, struct rusage *ret_usage,
                    struct err *err)
{
	struct img_tracer *t = arg;
	struct rusage usage;
	bool has_ended = false;
	int status;

	/* Only this thread changes n_threads. */
	while (!has_ended || t->n_threads > 0) {
		pid_t tid = wait4(-1, &status, __WALL | __WNOTHREAD, &usage);

		if (tid < 0 && errno == ECHILD && has_ended)
			break;
		if (tid < 0 && errno != EINTR)
			return err_set(err, -errno, "waiting for the command: %s", strerror(errno));
		on_news(t, tid, status, *must_end);
		if (tid == pid && !WIFSTOPPED(status)) {
			has_ended = true;
			*ret_status = status;
			*ret_usage = usage;
		}
	}
	return 0;
}

static void drop_threads(struct img_tracer *t)
{
	for (size_t i = 0; i < IMG_TRACER_BUCKETS; i++) {
		while (t->buckets[i])
			remove_thread(t, t->buckets[i]);
	}
}

static struct img_tracer *tracer_new(bool has_root)
{
	struct img_tracer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	(void)pthread_mutex_init(&t->lock, NULL);
	t->has_root = has_root;
	img_call_map_init(&t->calls);
	t->trace = img_trace_new();
	return t;
}

static void tracer_done(struct img_tracer *t)
{
	img_listener_free(t->listener);
	drop_threads(t);
	img_views_free(t->views);
	img_trace_free(t->trace);
	free(t->filter.filter);
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
}

static void add_note(struct img_run_result *result, const char *what, const char *programs, const char *instead)
{
	size_t len = strlen(result->notes);

	if (programs[0])
		(void)snprintf(result->notes + len, sizeof(result->notes) - len,
		               "%s%s used by the command itself (%s), which it cannot while it is traced: "
		               "--method %s does without",
		               len ? "; " : "", what, programs, instead);
}

static int make_ready(struct img_tracer *t, bool must_stop, struct err *err)
{
	int r = t->trace ? img_call_filter(&t->filter, err) : err_set(err, -ENOMEM, "the tracer: out of memory");

	return r == 0 && !must_stop ? img_listener_new(&t->filter, on_notification, t, &t->listener, err) : r;
}

int img_trace_ptrace(const struct img_run *run, bool must_stop, struct img_trace **ret_trace,
                     struct img_run_result *ret_result, struct err *err)
{
	static const struct img_run_watch watch = { .prepare = prepare, .attach = attach, .wait = wait_all };
	struct img_tracer *t = tracer_new(run->n_roots > 0);
	struct img_run watched = *run;
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "the tracer: out of memory");
	r = make_ready(t, must_stop, err);
	if (r == 0) {
		watched.watch = &watch;
		watched.watch_arg = t;
		r = img_run(&watched, ret_result, err);
		/* While there is a trace to tell of them in. */
		img_listener_free(t->listener);
		t->listener = NULL;
		drop_threads(t);
	}
	if (r == 0 && t->error) {
		r = err_set(err, t->error, "the trace: %s",
		            t->error == -E2BIG ? "more than it can hold" : strerror(-t->error));
		img_run_result_done(ret_result);
	}
	if (r == 0) {
		add_note(ret_result, "ptrace is", t->tracers, "fanotify");
		add_note(ret_result, "seccomp notifications are", t->listeners, "stops");
		*ret_trace = t->trace;
		t->trace = NULL;
	}
	tracer_done(t);
	return r;
}
