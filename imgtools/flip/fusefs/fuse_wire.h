/* What this room says to /dev/fuse by itself, without libfuse: the few structures and numbers of the kernel's protocol
 * (Documentation/filesystems/fuse.rst, uapi/linux/fuse.h) that it needs to begin on a descriptor whose INIT another
 * process has answered, to ask for a resend, and to register backing files. They are ABI; the system's header may be
 * older than they are. Also the one place that chooses libfuse's API version. */
#ifndef FLIP_FUSE_WIRE_H
#define FLIP_FUSE_WIRE_H

#include <assert.h>
#include <linux/types.h>
#include <sys/ioctl.h>

#if __has_include(<libfuse_config.h>)
#include <libfuse_config.h>
#endif
#if defined(FUSE_MINOR_VERSION) && FUSE_MINOR_VERSION >= 17
#define FUSE_USE_VERSION 317
#else
#define FUSE_USE_VERSION 31
#endif
#include <fuse_lowlevel.h>

/* Passthrough and its field of struct fuse_file_info came with 3.17, FUSE over io_uring with 3.18. */
#define FLIP_HAS_PASSTHROUGH (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17))
#define FLIP_HAS_URING (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18))

struct wire_in { /* before every request */
	__u32 len, opcode;
	__u64 unique, nodeid;
	__u32 uid, gid, pid;
	__u16 total_extlen, padding;
};
static_assert(sizeof(struct wire_in) == 40, "struct fuse_in_header");

struct wire_init { /* behind it, in INIT */
	__u32 major, minor, max_readahead, flags, flags2, unused[11];
};
static_assert(sizeof(struct wire_init) == 64, "struct fuse_init_in");

struct wire_out { /* before every answer; unique 0: a message to the kernel, its code in error */
	__u32 len;
	__s32 error;
	__u64 unique;
};
static_assert(sizeof(struct wire_out) == 16, "struct fuse_out_header");

struct wire_backing {
	__s32 fd;
	__u32 flags;
	__u64 padding;
};
static_assert(sizeof(struct wire_backing) == 16, "struct fuse_backing_map");

enum {
	WIRE_OP_OPEN = 14,
	WIRE_OP_INIT = 26,
	WIRE_NOTIFY_RESEND = 7,
};

#define WIRE_HAS_RESEND (1ull << 39)    /* of flags | flags2 << 32 */
#define WIRE_UNIQUE_RESEND (1ull << 63) /* of a request that is asked for again */

#define WIRE_BACKING_OPEN _IOW(229, 1, struct wire_backing)
#define WIRE_BACKING_CLOSE _IOW(229, 2, __u32)

#endif
