/* The listener's thread, and what depends on the machine: how an interrupted call is made to begin again. */
#include "listener.h"

#include <errno.h>
#include <linux/audit.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#include "calls.h"

/* Of linux/seccomp.h; older ones lack them. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
enum { WAKE_ON_SAME_PROCESSOR = 1 }; /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP */

struct img_listener {
	struct sock_fprog filter;
	img_listener_fn fn;
	void *arg;
	/* To [0]: a message with the descriptor to listen at, from the process; one without means the end. */
	int sockets[2];
	pthread_t thread;
	bool has_thread;
};

/* ---- The machine ------------------------------------------------------------------------------------------ */

#ifdef __x86_64__
#include <sys/user.h>

/* What the kernel has in place of a result until it knows whether a handler runs; never seen by programs
 * (include/linux/errno.h): again unless a handler without SA_RESTART runs; again in any case. */
enum { ERESTARTSYS = 512, ERESTARTNOINTR = 513 };
enum { CAN_RESTART = 1, CODE_SEGMENT_32 = 0x23 };

bool img_listener_was_interrupted(pid_t tid, struct seccomp_data *ret_call)
{
	struct user_regs_struct u;
	bool is_32;

	if (ptrace(PTRACE_GETREGS, tid, 0, &u) < 0 || (int)u.orig_rax < 0 || (int)u.rax != -ERESTARTSYS)
		return false;
	is_32 = u.cs == CODE_SEGMENT_32;
	*ret_call = (struct seccomp_data){ .nr = (int)u.orig_rax,
		                           .arch = is_32 ? AUDIT_ARCH_I386 : AUDIT_ARCH_X86_64,
		                           .instruction_pointer = u.rip };
	ret_call->args[0] = is_32 ? (uint32_t)u.rbx : u.rdi;
	ret_call->args[1] = is_32 ? (uint32_t)u.rcx : u.rsi;
	return true;
}

void img_listener_restart(pid_t tid)
{
	(void)ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rax), -(long)ERESTARTNOINTR);
}
#else
/* Elsewhere the kernel has made up its mind before the stop: calls are stopped at by ptrace there. */
enum { CAN_RESTART = 0 };

bool img_listener_was_interrupted(pid_t tid, struct seccomp_data *ret_call)
{
	return false;
}

void img_listener_restart(pid_t tid)
{
}
#endif

/* ---- The descriptor --------------------------------------------------------------------------------------- */

/* In the process to be traced: the stack only. fd -1: a message without one. */
static int send_descriptor(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fd >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* -1: none came. */
static int receive_descriptor(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	int fd;

	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) <= 0)
		return -1;
	c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

int img_listener_install(struct img_listener *l)
{
	int r, fd = img_call_install(&l->filter,
	                             SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);

	if (fd < 0)
		return fd;
	r = send_descriptor(l->sockets[1], fd);
	(void)close(fd);
	return r;
}

/* ---- The thread ------------------------------------------------------------------------------------------- */

/* One call. Errors mean that it is no more: interrupted, or its process killed. */
static void answer(struct img_listener *l, int fd)
{
	struct seccomp_notif call;
	struct seccomp_notif_resp go_on = { .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };

	memset(&call, 0, sizeof(call)); /* the kernel insists */
	if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
		return;
	l->fn(l->arg, (pid_t)call.pid, &call.data);
	go_on.id = call.id;
	(void)ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &go_on);
}

static void *listen_to_calls(void *arg)
{
	CLEANUP(close_fdp) int fd = -1;
	struct img_listener *l = arg;
	struct pollfd p[2] = { { .fd = l->sockets[0], .events = POLLIN }, { .fd = -1, .events = POLLIN } };

	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents) {
			int came = receive_descriptor(l->sockets[0]);

			if (came < 0 || fd >= 0) {
				if (came >= 0)
					(void)close(came);
				return NULL;
			}
			fd = came;
			p[1].fd = fd;
			/* Kernels before 6.6 refuse: slower, nothing else. */
			(void)ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, WAKE_ON_SAME_PROCESSOR);
		}
		if (p[1].revents & POLLIN)
			answer(l, fd);
		else if (p[1].revents)
			p[1].fd = -1; /* nobody is left who has the filter */
	}
}

int img_listener_new(const struct sock_fprog *filter, img_listener_fn fn, void *arg, struct img_listener **ret_listener,
                     struct err *err)
{
	struct img_listener *l;
	int r;

	if (!CAN_RESTART) {
		*ret_listener = NULL;
		return 0;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(err, -ENOMEM, "the tracer: out of memory");
	l->fn = fn;
	l->arg = arg;
	l->sockets[0] = l->sockets[1] = -1;
	r = img_call_filter_notifying(filter, &l->filter);
	if (r == 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, l->sockets) < 0)
		r = -errno;
	if (r < 0) {
		img_listener_free(l);
		return err_set(err, r, "the tracer: %s", strerror(-r));
	}
	*ret_listener = l;
	return 0;
}

int img_listener_start(struct img_listener *l, struct err *err)
{
	sigset_t all, old;
	int r;

	/* Signals are for the thread that waits for the command. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&l->thread, NULL, listen_to_calls, l);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r != 0)
		return err_set(err, -r, "a thread: %s", strerror(r));
	l->has_thread = true;
	return 0;
}

void img_listener_free(struct img_listener *l)
{
	if (!l)
		return;
	if (l->has_thread && send_descriptor(l->sockets[1], -1) == 0)
		(void)pthread_join(l->thread, NULL);
	for (int i = 0; i < 2; i++) {
		if (l->sockets[i] >= 0)
			(void)close(l->sockets[i]);
	}
	free(l->filter.filter);
	free(l);
}
