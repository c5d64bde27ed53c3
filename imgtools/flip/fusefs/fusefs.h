/* One FUSE file system for all images of a node:
 *
 *   /objects/ab/cdef...   every content that a mounted layer names, by digest: the data-only layer of overlayfs for
 * what is still arriving. One inode for one content, so that its pages are cached once for all images /layers/NAME/...
 * whole trees of layers, answered from the mapped metadata (erofs/erofs.h): where the kernel has no EROFS or no
 * data-only layers, and for programs that want a tree
 *
 * Which bytes a content has comes from whoever owns the store, through struct flip_fs_ops. Complete contents of at
 * least passthrough_min bytes are opened by passthrough (one backing id per object), small ones are cached by the
 * kernel over opens, what is still arriving is read through ops->read in whole chunks. Inode numbers are made of ids
 * that never change, so that a daemon that starts again serves what the old one's users hold.
 *
 * The session's descriptor can be handed to the next process: flip_fs_fd(), flip_fs_opts.session_fd. Requests that the
 * old process had taken and not answered are asked for again (FUSE_NOTIFY_RESEND, Linux 6.9). */
#ifndef FLIP_FUSEFS_H
#define FLIP_FUSEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "erofs/erofs.h"

struct flip_fs_read; /* a read that is being answered */

struct flip_fs_ops {
	/* The object of this digest as a number that is the same for ever on this node (> 0), and its size; 0 when no
	 * layer names it. Must not block. */
	uint64_t (*object_find)(void *arg, const uint8_t digest[32], uint64_t *ret_size);
	/* Its size again, by the number alone: the kernel asks for attributes without a name, in another process's
	 * time, too. -ENOENT when nobody names it any more. Must not block. */
	int (*object_size)(void *arg, uint64_t id, uint64_t *ret_size);
	/* Opens it: *ret_handle is passed to read and close. *ret_fd >= 0: it is complete and may be read by this
	 * descriptor (owned by the handle); -1: still arriving. 0 or a negative errno. */
	int (*object_open)(void *arg, uint64_t id, void **ret_handle, int *ret_fd);
	void (*object_close)(void *arg, void *handle);
	/* Bytes [offset, offset + size) of what is arriving. Answers by flip_fs_reply_*(), now or later, on any thread,
	 * exactly once. */
	void (*object_read)(void *arg, void *handle, uint64_t offset, size_t size, struct flip_fs_read *read);
	/* The layer of this name (the 64 hexadecimal digits of its digest), or NULL. The pointer must stay valid until
	 * flip_fs_forget_layer() returned. *ret_id: a number < 2^24 that is the same for ever. */
	const struct flip_erofs *(*layer_find)(void *arg, const char *name, uint32_t *ret_id);
	const struct flip_erofs *(*layer_by_id)(void *arg, uint32_t id);
	/* For listing /layers; NULL at the end. */
	const char *(*layer_at)(void *arg, size_t i);
};

/* Bytes out of memory, copied before it returns, or out of a descriptor at offset. A negative errno by _error. */
void flip_fs_reply_data(struct flip_fs_read *read, const void *data, size_t size);
void flip_fs_reply_fd(struct flip_fs_read *read, int fd, uint64_t offset, size_t size);
void flip_fs_reply_error(struct flip_fs_read *read, int r);

enum flip_io_uring { FLIP_URING_AUTO, FLIP_URING_ON, FLIP_URING_OFF };

struct flip_fs_opts {
	const struct flip_fs_ops *ops;
	void *arg;
	const char *mountpoint;
	unsigned n_threads;       /* that read requests; 0: one per core, 2 at least */
	uint32_t max_readahead;   /* bytes the kernel reads ahead; 0: 128 KiB */
	uint64_t passthrough_min; /* 0: 64 KiB; UINT64_MAX: never */
	/* AUTO: when the kernel's parameter fuse.enable_uring is on and the session is not to be handed over: who waits
	 * for an answer when the process dies gets none from the next. ON: -EOPNOTSUPP where it cannot be had. */
	enum flip_io_uring io_uring;
	/* Where what the next process must know is kept (who has what open, and how): a file on a tmpfs such as /run,
	 * made by the first process, mapped. NULL: the session is not to be handed over. */
	const char *state_path;
	int session_fd; /* borrowed; -1: mount anew; else the descriptor of a living mount at `mountpoint` to go on with
	                 */
};

struct flip_fs;

/* With session_fd: -ENODATA, -ESTALE, -EOPNOTSUPP, -ENOTTY, -ENODEV: that session cannot be gone on with, it takes a
 * new mount. */
int flip_fs_start(const struct flip_fs_opts *o, struct flip_fs **ret_fs, struct err *err);
/* Takes no more requests; to be called before flip_fs_stop(), so that the owner can end its reads in between: they must
 * all be answered, flip_fs_stop() waits for that. Not `unmount`: errors are kept back, the next process is asked. */
void flip_fs_pause(struct flip_fs *fs, bool unmount);
/* Stops answering. unmount: also ends the mount (lazily), for good; else it lives on in the descriptor's other copies
 * and its users wait for the next process. */
void flip_fs_stop(struct flip_fs *fs, bool unmount);
int flip_fs_fd(const struct flip_fs *fs); /* borrowed */
/* A layer goes away: to be called when layer_find and layer_by_id no longer give it. Its tree answers ESTALE from now
 * on, the kernel forgets its directory, and nobody uses its pointer after this returned. Not from within an operation.
 */
void flip_fs_forget_layer(struct flip_fs *fs, uint32_t id);

struct flip_fs_stat {
	bool passthrough, io_uring, resend; /* negotiated */
	uint64_t n_lookups, n_opens, n_opens_passthrough, n_reads, read_bytes, n_errors;
};
void flip_fs_stat(struct flip_fs *fs, struct flip_fs_stat *ret_stat);

/* The holder: a tiny process that keeps the session's descriptor over the daemon's death: this program again, so its
 * main() begins with flip_holder_run(). It ends when told to, and when the mount has ended. It is in a session of its
 * own, but in the daemon's control group: a manager that ends whole groups ends it, too. Under systemd the service's
 * descriptor store does the same (FileDescriptorStoreMax=1 in the unit) and is preferred when $NOTIFY_SOCKET is set;
 * both are used where the manager does not tell ($FDSTORE) that it has room. */
#define FLIP_HOLDER_COMMAND "hold-session"
int flip_holder_run(int argc, char **argv);                                 /* -1: not meant; else the exit code */
int flip_holder_put(const char *socket_path, int fd, struct err *err);      /* starts the holder when there is none */
int flip_holder_get(const char *socket_path, int *ret_fd, struct err *err); /* -ENOENT: no holder, or nothing in it */
int flip_holder_end(const char *socket_path, struct err *err);

#endif
