/* What the files of this room share. */
#ifndef EROFS_INTERNAL_H
#define EROFS_INTERNAL_H

#include "base/mapfile.h"
#include "erofs/erofs.h"
#include "erofs/erofs_format.h"

/* CRC-32C over what the superblock's checksum covers, the checksum itself taken as 0. `block` is block 0. */
uint32_t flip_erofs_checksum(const uint8_t *block);

/* "user.x" -> EROFS_XATTR_USER and "x"; 0 for a name of no kind that the format (or a Linux file system) knows. */
uint8_t flip_erofs_xattr_split(const char *name, const char **ret_rest);
const char *flip_erofs_xattr_prefix(uint8_t index); /* "user."; NULL for an index that is none */
/* The bit of the name filter that a name falls on. */
unsigned flip_erofs_xattr_bit(uint8_t index, const char *rest, size_t len);

/* The attributes by which overlayfs finds a file's content. */
#define FLIP_XATTR_METACOPY "trusted.overlay.metacopy"
#define FLIP_XATTR_REDIRECT "trusted.overlay.redirect"
#define FLIP_XATTR_OPAQUE "trusted.overlay.opaque"
#define FLIP_XATTR_OVERLAY "trusted.overlay."
enum { FLIP_REDIRECT_SIZE = 66 }; /* "/ab/" and 62 more hexadecimal digits */

/* Written into the superblock's volume name: which of the two it is decides how the image is mounted. */
#define FLIP_EROFS_LABEL "flip"
#define FLIP_EROFS_LABEL_ACL "flip acl" /* some inode has a POSIX ACL */

struct flip_erofs {
	struct base_mapfile map; /* empty when the bytes are someone else's */
	const uint8_t *data;
	size_t size;
	uint64_t meta_at, xattr_at; /* bytes */
	uint64_t root, n_inodes;
	uint64_t epoch;
	uint32_t epoch_ns;
};

/* Looks at the superblock and the root of bytes in memory, which stay the caller's; the checksum is not compared.
 * `where` names them in errors. */
int flip_erofs_use(const uint8_t *data, size_t size, const char *where, struct flip_erofs *ret_fs, struct err *err);

/* An inode, decoded. */
struct flip_inode {
	uint64_t nid;
	uint64_t xattr_at, tail_at; /* bytes in the file: attributes; what is behind them */
	uint64_t size;
	uint32_t xattr_size;
	uint32_t data, mode, uid, gid, nlink, mtime_ns;
	int64_t mtime_s;
	unsigned layout;
};
int flip_erofs_inode(const struct flip_erofs *fs, uint64_t nid, struct flip_inode *ret_ino);

#endif
