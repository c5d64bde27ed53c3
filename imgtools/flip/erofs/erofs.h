/* The metadata of a layer as an EROFS image without file contents: the kernel mounts it, so that look-ups, stat and
 * directories need no daemon. Regular files carry trusted.overlay.metacopy and trusted.overlay.redirect with the path
 * of their object ("/ab/cdef..."), which overlayfs finds in its data-only lower layers: the store's objects first, the
 * FUSE mount of those still arriving second.
 *
 * The same file, mapped, is what the FUSE file system answers from where the kernel lacks EROFS or data-only layers: an
 * inode is its position (nid), a look-up is a search in the sorted directory blocks; nothing is allocated. On-disk
 * format: docs/formats/layer-metadata.md and the kernel's EROFS documentation. */
#ifndef FLIP_EROFS_H
#define FLIP_EROFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"
#include "tree/tree.h"

/* The content of a file node as its digest; NULL: an empty file. Called for regular files only. */
typedef const uint8_t *(*flip_digest_of)(const struct img_node *n, void *arg);

/* Writes the tree (in overlay's form: flip_tree_to_overlay()) atomically; the same tree, the same bytes. Hard-link
 * groups share an inode. Directories, symbolic links, devices, pipes, sockets, all xattrs, times to the nanosecond. */
int flip_erofs_write(struct img_tree *tree, flip_digest_of digest_of, void *arg, const char *path, struct err *err);

struct flip_erofs; /* mapped, immutable; any thread */

/* Checks the superblock and the root; what else is in the file is checked when it is walked: -EBADMSG, never a crash.
 */
int flip_erofs_open(const char *path, struct flip_erofs **ret_fs, struct err *err);
void flip_erofs_close(struct flip_erofs *fs);

uint64_t flip_erofs_root(const struct flip_erofs *fs);
uint64_t flip_erofs_n_inodes(const struct flip_erofs *fs);
/* 0, -ENOENT, -ENOTDIR, -EBADMSG. */
int flip_erofs_lookup(const struct flip_erofs *fs, uint64_t dir, const char *name, size_t name_len, uint64_t *ret_nid);
int flip_erofs_stat(const struct flip_erofs *fs, uint64_t nid, struct stat *ret_stat); /* st_ino = nid */
/* Entries behind position `pos` (0: from the first, "." and ".." included); fn returns non-zero to stop after... the
 * entry it refused is not passed. next_pos continues behind the entry. */
int flip_erofs_readdir(const struct flip_erofs *fs, uint64_t dir, uint64_t pos,
                       int (*fn)(void *arg, const char *name, size_t name_len, uint64_t nid, unsigned dtype,
                                 uint64_t next_pos),
                       void *arg);
/* Borrowed from the mapping, not 0-terminated. */
int flip_erofs_readlink(const struct flip_erofs *fs, uint64_t nid, const char **ret_target, size_t *ret_len);
/* The digest out of the redirect; -ENODATA for empty files and what is no regular file. */
int flip_erofs_digest(const struct flip_erofs *fs, uint64_t nid, uint8_t ret_digest[32]);
/* Borrowed value; with_overlay false hides metacopy and redirect (not opaque). -ENODATA. */
int flip_erofs_getxattr(const struct flip_erofs *fs, uint64_t nid, const char *name, bool with_overlay,
                        const void **ret_value, size_t *ret_size);
/* Names one behind the other, each with its 0, into buf; returns the size needed (size 0 asks only), -ERANGE. */
ssize_t flip_erofs_listxattr(const struct flip_erofs *fs, uint64_t nid, bool with_overlay, char *buf, size_t size);
/* Every path with its nid, for whoever maps paths to contents (prefetch lists, comparison). */
int flip_erofs_walk(const struct flip_erofs *fs,
                    int (*fn)(void *arg, const char *path, uint64_t nid, const struct stat *st), void *arg,
                    struct err *err);
int flip_erofs_resolve(const struct flip_erofs *fs, const char *path, uint64_t *ret_nid); /* no links followed */

/* ---- Mounts ------------------------------------------------------------------------------------------------- */

struct flip_kernel {
	bool erofs, erofs_file; /* EROFS at all; mounted from a file without a loop device (Linux 6.12) */
	bool overlay_data_only; /* overlayfs "lower::data" (Linux 6.5) */
	bool fuse, fuse_passthrough;
};
/* Tried out once in a private mount namespace, not guessed from the version. Needs root; all false without. */
void flip_kernel_probe(const char *scratch_dir, struct flip_kernel *ret_kernel);

/* Mounts the image read-only, from the file where the kernel can, else by a loop device that goes with the mount. */
int flip_erofs_mount(const char *image, const char *dir, const struct flip_kernel *k, struct err *err);
/* Unmounts, lazily when busy and `lazy`; not mounted is a success. */
int flip_unmount(const char *dir, bool lazy, struct err *err);
bool flip_is_mountpoint(const char *dir);

#endif
