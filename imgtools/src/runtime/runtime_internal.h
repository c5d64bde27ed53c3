/* Between the files of the runtime: what the caller's side (runtime.c) prepares for the process that becomes the root's
 * first one (container.c), and what that one answers. */
#ifndef IMG_RUNTIME_INTERNAL_H
#define IMG_RUNTIME_INTERNAL_H

#include <signal.h>

#include "runtime.h"

enum { IMG_RUN_MAX_ROOTS = 128, IMG_RUN_MAX_GROUPS = 64, IMG_RUN_MAX_MOUNTS = 64, IMG_RUN_TEXT = 256 };

struct img_run_user {
	uid_t uid;
	gid_t gid;
	gid_t groups[IMG_RUN_MAX_GROUPS];
	size_t n_groups;
	char home[IMG_RUN_TEXT]; /* of the passwd line; "" when there is none */
};

/* Looks "name[:group]" up in etc/passwd and etc/group of the roots, the last root first; "uid" alone needs no line. */
int img_run_find_user(const char *const *roots, size_t n_roots, const char *user, struct img_run_user *ret,
                      struct err *err);

/* All the child needs, made before it is born: it must not allocate. */
struct img_run_child {
	const struct img_run *run;
	struct img_run_user user;
	bool must_set_user; /* not: the caller's user stays, or is the only one that the user namespace maps */
	const char *const *exec_paths; /* what to try for argv[0], NULL-terminated */
	const char *const *env;
	const char *scratch; /* folder to make when memory will not do: upper/, work/, root/; NULL without roots */
	bool has_user_namespace;
	int socket;                   /* to the caller, SOCK_SEQPACKET */
	int out_fd, errors_fd, in_fd; /* become 1, 2, 0; -1: as they are */
	sigset_t mask;                /* of the command */
};

enum img_run_message_type {
	IMG_RUN_GO = 'G',     /* caller -> child: go on */
	IMG_RUN_READY = 'R',  /* child -> caller: the root is there; descriptors: root, upper directory (or none) */
	IMG_RUN_FAILED = 'F', /* child -> caller: code, and what failed */
	IMG_RUN_STATUS = 'S', /* child -> caller: the command has ended, code is its wait status */
};

struct img_run_message {
	enum img_run_message_type type;
	int code;
	char text[IMG_RUN_TEXT];
};

/* The first process of the namespaces: makes the root, starts the command, waits for it. Does not return. */
void img_run_container_main(const struct img_run_child *c) __attribute__((noreturn));
/* The command in the host's own root. Does not return. */
void img_run_host_main(const struct img_run_child *c) __attribute__((noreturn));

int img_run_send(int socket, const struct img_run_message *m, const int *fds, size_t n_fds);
/* Waits for a message (with `flags` of recvmsg). ret_fds, for two, become -1 where none came. -EPIPE: the other side is
 * gone. */
int img_run_receive(int socket, struct img_run_message *ret, int ret_fds[2], int flags);

/* What lies in the upper directory, told as changes of the root; mount points of the runtime are left out. */
int img_run_read_changes(int upper_fd, const struct img_run *run, struct img_run_result *result, struct err *err);
/* Paths that the runtime itself mounts something on, besides run->mounts; NULL-terminated. */
extern const char *const img_run_mount_points[];

#endif
