/* The system calls that name files, and the seccomp filter that stops at them: the value a stop carries is the number
 * of a row of the table, so that the tracer needs no system call numbers of any architecture. */
#ifndef IMG_TRACE_CALLS_H
#define IMG_TRACE_CALLS_H

#include <linux/filter.h>
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
};

enum { IMG_CALL_NONE = -1 }; /* no such argument; for dirfd: the working directory */

struct img_call {
	const char *name;
	enum img_call_op op;
	int8_t dirfd, path, aux, dirfd2, path2; /* numbers of arguments, or IMG_CALL_NONE */
};

const struct img_call *img_call_at(unsigned data); /* NULL: none of ours */

/* The filter for this machine and, where it has them, its 32-bit programs. ret_prog->filter is the caller's, free(). */
int img_call_filter(struct sock_fprog *ret_prog, struct err *err);
/* In the process to be traced: system calls only. Without the right to install a filter it gives up the right to gain
 * rights (no_new_privs) first, as the kernel wants. */
int img_call_install(const struct sock_fprog *prog);

#endif
