/* The part of EROFS's on-disk format that a layer's metadata uses (docs/formats/layer-metadata.md). Little-endian,
 * blocks of 4 KiB, inodes at multiples of 32 bytes from the beginning of the file. */
#ifndef EROFS_FORMAT_H
#define EROFS_FORMAT_H

#include <assert.h>
#include <stdint.h>

enum {
	EROFS_BLOCK_BITS = 12,
	EROFS_BLOCK = 1 << EROFS_BLOCK_BITS,
	EROFS_SLOT = 32,       /* inode number n lies at n * EROFS_SLOT */
	EROFS_SUPER_AT = 1024, /* of the superblock; the checksum covers from here to the end of block 0 */
	EROFS_NAME_MAX = 255,
	EROFS_MAX_CHUNK_BITS = 31, /* a chunk is at most EROFS_BLOCK << 31: 8 TiB */
	EROFS_DEV_MAX_MAJOR = 0xfff,
	EROFS_DEV_MAX_MINOR = 0xfffff,
};

#define EROFS_MAGIC 0xe0f5e1e2u
#define EROFS_HOLE 0xffffffffu /* a block address: nothing there */

enum { EROFS_COMPAT_CHECKSUM = 1, EROFS_COMPAT_MTIME = 2, EROFS_COMPAT_XATTR_FILTER = 4 };
enum { EROFS_INCOMPAT_CHUNKS = 4 };

/* Where the data of an inode are: i_format, bits 1 to 3; bit 0 tells the extended inode. */
enum { EROFS_PLAIN = 0, EROFS_INLINE = 2, EROFS_CHUNKS = 4 };
enum { EROFS_FORMAT_EXTENDED = 1, EROFS_FORMAT_LAYOUT_SHIFT = 1, EROFS_FORMAT_BITS = 0xf };

struct erofs_super {
	uint32_t magic, checksum, feature_compat;
	uint8_t block_bits, ext_slots;
	uint16_t root_nid;
	uint64_t n_inodes;
	uint64_t epoch; /* the mtime of compact inodes */
	uint32_t epoch_ns;
	uint32_t n_blocks;
	uint32_t meta_block;  /* inode 0 lies there */
	uint32_t xattr_block; /* shared attribute 0 lies there */
	uint8_t uuid[16];
	uint8_t volume_name[16];
	uint32_t feature_incompat;
	uint8_t not_used[44]; /* compression, devices, prefixes: none */
} __attribute__((packed));
static_assert(sizeof(struct erofs_super) == 128, "superblock");

/* data: block of the first byte, or the device number, or for chunks the size of a chunk as bits beyond a block. */
struct erofs_compact {
	uint16_t format, xattr_count, mode, nlink;
	uint32_t size, reserved, data, ino;
	uint16_t uid, gid;
	uint32_t reserved2;
} __attribute__((packed));
static_assert(sizeof(struct erofs_compact) == 32, "compact inode");

struct erofs_extended {
	uint16_t format, xattr_count, mode, reserved;
	uint64_t size;
	uint32_t data, ino, uid, gid;
	uint64_t mtime;
	uint32_t mtime_ns, nlink;
	uint8_t reserved2[16];
} __attribute__((packed));
static_assert(sizeof(struct erofs_extended) == 64, "extended inode");

/* Behind an inode with attributes: xattr_count is 1 for this header and one for each 4 bytes behind it. First n_shared
 * numbers of shared attributes (their place in the shared area in units of 4 bytes), then the inode's own. */
struct erofs_xattr_header {
	uint32_t name_filter; /* bit set: no attribute whose name has this hash */
	uint8_t n_shared;
	uint8_t reserved[7];
} __attribute__((packed));
static_assert(sizeof(struct erofs_xattr_header) == 12, "header of attributes");

/* Then the name without what the index stands for, and the value; the next begins at a multiple of 4. */
struct erofs_xattr {
	uint8_t name_len, index;
	uint16_t value_size;
} __attribute__((packed));
static_assert(sizeof(struct erofs_xattr) == 4, "attribute");

enum {
	EROFS_XATTR_USER = 1,
	EROFS_XATTR_ACL_ACCESS = 2,
	EROFS_XATTR_ACL_DEFAULT = 3,
	EROFS_XATTR_TRUSTED = 4,
	EROFS_XATTR_SECURITY = 6,
};

/* A block of a directory: these, sorted by name over all blocks, then their names, without anything between. The last
 * name ends at the first 0 byte or at the end of the block. */
struct erofs_dirent {
	uint64_t nid;
	uint16_t name_at;
	uint8_t type, reserved;
} __attribute__((packed));
static_assert(sizeof(struct erofs_dirent) == 12, "directory entry");

enum { EROFS_FT_REG = 1, EROFS_FT_DIR, EROFS_FT_CHR, EROFS_FT_BLK, EROFS_FT_FIFO, EROFS_FT_SOCK, EROFS_FT_SYMLINK };

#endif
