/* The system calls that name files, and the seccomp filter that stops at them. */
#ifndef IMG_TRACE_CALLS_H
#define IMG_TRACE_CALLS_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum img_call_op {
	IMG_CALL_OPEN,   /* flags in argument `aux` */
	IMG_CALL_OPEN2,  /* a struct open_how at `aux` */
	IMG_CALL_CREAT,  /* open to write, from nothing */
	IMG_CALL_LOOK,   /* needs it to exist; follows links */
	IMG_CALL_LLOOK,  /* the same, of a link itself */
	IMG_CALL_LOOKAT, /* AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH in argument `aux` */
	IMG_CALL_READLINK,
	IMG_CALL_EXEC,    /* flags in argument `aux`, if any */
	IMG_CALL_READDIR, /* of the descriptor in `path` */
	IMG_CALL_MAKE,    /* a new name */
	IMG_CALL_REMOVE,
	IMG_CALL_RENAME,  /* and in dirfd2, path2 the new name */
	IMG_CALL_LINK,    /* the same; flags in `aux`, if any */
	IMG_CALL_CONNECT, /* a socket address at `path` of length `aux` */
	IMG_CALL_BIND,
	IMG_CALL_VIEW, /* what names mean may be different afterwards: chroot, mount, ...; `path` must exist */
	IMG_CALL_PTRACE,
	IMG_CALL_LISTEN, /* wants to be told of calls itself, by seccomp */
};

enum { IMG_CALL_NONE = -1 }; /* no such argument; for dirfd: the working directory */

struct img_call {
	const char *name;
	enum img_call_op op;
	int8_t dirfd, path, aux, dirfd2, path2; /* numbers of arguments, or IMG_CALL_NONE */
};

/* Which row of the table a number is, in the machine's own architecture and in that of its 32-bit programs: row + 1, or
 * 0 for none. */
enum { IMG_CALL_NUMBERS = 1024 };
struct img_call_map {
	uint8_t native[IMG_CALL_NUMBERS], compat[IMG_CALL_NUMBERS];
};

void img_call_map_init(struct img_call_map *m);
/* The call that a process is about to make; NULL: none of ours. 32-bit programs may call
 * for sockets by one number (socketcall): then args[1] is where the arguments are, see img_call_is_packed(). */
const struct img_call *img_call_of(const struct img_call_map *m, const struct seccomp_data *d);
bool img_call_is_packed(const struct seccomp_data *d);

/* The filter for this machine and, where it has them, its 32-bit programs; it stops with SECCOMP_RET_TRACE.
 * ret_prog->filter is the caller's, free(). */
int img_call_filter(struct sock_fprog *ret_prog, struct err *err);
/* A copy that stops with SECCOMP_RET_USER_NOTIF instead. */
int img_call_filter_notifying(const struct sock_fprog *prog, struct sock_fprog *ret_prog);
/* In the process to be traced: system calls only. `flags` of seccomp(2). Without the right to install a filter it gives
 * up the right to gain rights (no_new_privs) first, as the kernel wants. 0, the descriptor that the flags ask for, or a
 * negative errno. */
int img_call_install(const struct sock_fprog *prog, unsigned flags);

#endif
