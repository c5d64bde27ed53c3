/* The reader: superblock, inodes, directories, links. Works in the mapping, allocates nothing, and takes no byte of the
 * file for granted: every position is checked against the file's size before it is looked at, loops end because each
 * step reads further on or halves what is left. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "erofs/erofs_internal.h"

/* ---- Opening ---------------------------------------------------------------------------------------------- */

int flip_erofs_use(const uint8_t *data, size_t size, const char *where, struct flip_erofs *ret_fs, struct err *err)
{
	struct flip_erofs fs = { .data = data, .size = size };
	struct flip_inode root;
	struct erofs_super s;

	if (size < EROFS_BLOCK)
		return err_set(err, -EBADMSG, "%s: %zu bytes are no EROFS image", where, size);
	memcpy(&s, data + EROFS_SUPER_AT, sizeof(s));
	if (le32toh(s.magic) != EROFS_MAGIC)
		return err_set(err, -EBADMSG, "%s: not an EROFS image (magic)", where);
	if (s.block_bits != EROFS_BLOCK_BITS)
		return err_set(err, -EBADMSG, "%s: blocks of 2^%u bytes", where, s.block_bits);
	if (le32toh(s.feature_incompat) & ~(uint32_t)EROFS_INCOMPAT_CHUNKS)
		return err_set(err, -EBADMSG, "%s: feature_incompat 0x%x", where, le32toh(s.feature_incompat));
	if ((uint64_t)le32toh(s.n_blocks) * EROFS_BLOCK > size)
		return err_set(err, -EBADMSG, "%s: %zu bytes, but %u blocks in the superblock", where, size,
		               le32toh(s.n_blocks));
	fs.meta_at = (uint64_t)le32toh(s.meta_block) * EROFS_BLOCK;
	fs.xattr_at = (uint64_t)le32toh(s.xattr_block) * EROFS_BLOCK;
	fs.root = le16toh(s.root_nid);
	fs.n_inodes = le64toh(s.n_inodes);
	fs.epoch = le64toh(s.epoch);
	fs.epoch_ns = le32toh(s.epoch_ns);
	if (flip_erofs_inode(&fs, fs.root, &root) < 0 || !S_ISDIR(root.mode))
		return err_set(err, -EBADMSG, "%s: root_nid %u is no directory", where, le16toh(s.root_nid));
	*ret_fs = fs;
	return 0;
}

int flip_erofs_open(const char *path, struct flip_erofs **ret_fs, struct err *err)
{
	struct flip_erofs *fs = calloc(1, sizeof(*fs));
	struct base_mapfile map = { 0 };
	struct erofs_super s;
	int r;

	if (!fs)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	r = base_mapfile_open(path, &map, err);
	if (r == 0)
		r = flip_erofs_use(map.data, map.size_bytes, path, fs, err);
	if (r == 0) {
		memcpy(&s, map.data + EROFS_SUPER_AT, sizeof(s));
		if (!(le32toh(s.feature_compat) & EROFS_COMPAT_CHECKSUM) ||
		    le32toh(s.checksum) != flip_erofs_checksum(map.data))
			r = err_set(err, -EBADMSG, "%s: the superblock's checksum is wrong", path);
	}
	if (r < 0) {
		base_mapfile_close(&map);
		free(fs);
		return r;
	}
	fs->map = map;
	*ret_fs = fs;
	return 0;
}

void flip_erofs_close(struct flip_erofs *fs)
{
	if (!fs)
		return;
	base_mapfile_close(&fs->map);
	free(fs);
}

uint64_t flip_erofs_root(const struct flip_erofs *fs)
{
	return fs->root;
}

uint64_t flip_erofs_n_inodes(const struct flip_erofs *fs)
{
	return fs->n_inodes;
}

/* ---- Inodes ----------------------------------------------------------------------------------------------- */

/* `size` bytes at `at`; NULL when the file does not have them. */
static const uint8_t *bytes_at(const struct flip_erofs *fs, uint64_t at, uint64_t size)
{
	return at <= fs->size && size <= fs->size - at ? fs->data + at : NULL;
}

static bool decode_extended(const uint8_t *p, struct flip_inode *ino, unsigned *ret_n_xattr)
{
	struct erofs_extended e;

	memcpy(&e, p, sizeof(e));
	*ret_n_xattr = le16toh(e.xattr_count);
	ino->mode = le16toh(e.mode);
	ino->size = le64toh(e.size);
	ino->data = le32toh(e.data);
	ino->uid = le32toh(e.uid);
	ino->gid = le32toh(e.gid);
	ino->nlink = le32toh(e.nlink);
	ino->mtime_s = (int64_t)le64toh(e.mtime);
	ino->mtime_ns = le32toh(e.mtime_ns);
	return ino->size <= INT64_MAX && ino->mtime_ns < 1000000000;
}

static bool decode_compact(const struct flip_erofs *fs, const uint8_t *p, struct flip_inode *ino, unsigned *ret_n_xattr)
{
	struct erofs_compact c;

	memcpy(&c, p, sizeof(c));
	*ret_n_xattr = le16toh(c.xattr_count);
	ino->mode = le16toh(c.mode);
	ino->size = le32toh(c.size);
	ino->data = le32toh(c.data);
	ino->uid = le16toh(c.uid);
	ino->gid = le16toh(c.gid);
	ino->nlink = le16toh(c.nlink);
	ino->mtime_s = (int64_t)fs->epoch;
	ino->mtime_ns = fs->epoch_ns;
	return ino->mtime_ns < 1000000000;
}

static bool is_known_type(uint32_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) ||
	       S_ISSOCK(mode);
}

int flip_erofs_inode(const struct flip_erofs *fs, uint64_t nid, struct flip_inode *ret_ino)
{
	struct flip_inode ino = { .nid = nid };
	unsigned format, n_xattr = 0;
	const uint8_t *p;
	uint64_t at, isize;
	bool is_good;

	if (nid > fs->size / EROFS_SLOT)
		return -EBADMSG;
	at = fs->meta_at + nid * EROFS_SLOT;
	p = bytes_at(fs, at, sizeof(struct erofs_compact));
	if (!p)
		return -EBADMSG;
	format = (unsigned)p[0] | (unsigned)p[1] << 8;
	isize = format & EROFS_FORMAT_EXTENDED ? sizeof(struct erofs_extended) : sizeof(struct erofs_compact);
	if (format & ~(unsigned)EROFS_FORMAT_BITS || !bytes_at(fs, at, isize))
		return -EBADMSG;
	ino.layout = format >> EROFS_FORMAT_LAYOUT_SHIFT;
	is_good = format & EROFS_FORMAT_EXTENDED ? decode_extended(p, &ino, &n_xattr)
	                                         : decode_compact(fs, p, &ino, &n_xattr);
	ino.xattr_at = at + isize;
	if (n_xattr)
		ino.xattr_size = (uint32_t)(sizeof(struct erofs_xattr_header) + 4 * (n_xattr - 1));
	ino.tail_at = ino.xattr_at + ino.xattr_size;
	if (!is_good || !is_known_type(ino.mode) || !bytes_at(fs, ino.xattr_at, ino.xattr_size) ||
	    (ino.layout != EROFS_PLAIN && ino.layout != EROFS_INLINE && ino.layout != EROFS_CHUNKS))
		return -EBADMSG;
	*ret_ino = ino;
	return 0;
}

int flip_erofs_stat(const struct flip_erofs *fs, uint64_t nid, struct stat *ret_stat)
{
	struct flip_inode ino;
	int r = flip_erofs_inode(fs, nid, &ino);

	if (r < 0)
		return r;
	*ret_stat = (struct stat){ .st_ino = nid,
		                   .st_mode = ino.mode,
		                   .st_nlink = ino.nlink,
		                   .st_uid = ino.uid,
		                   .st_gid = ino.gid,
		                   .st_size = (off_t)ino.size,
		                   .st_blksize = EROFS_BLOCK,
		                   .st_blocks = (blkcnt_t)(ino.size / 512 + (ino.size % 512 != 0)) };
	ret_stat->st_mtim.tv_sec = ino.mtime_s;
	ret_stat->st_mtim.tv_nsec = (long)ino.mtime_ns;
	ret_stat->st_atim = ret_stat->st_ctim = ret_stat->st_mtim;
	if (S_ISCHR(ino.mode) || S_ISBLK(ino.mode))
		ret_stat->st_rdev = makedev(ino.data >> 8 & 0xfff, (ino.data & 0xff) | (ino.data >> 12 & 0xfff00));
	return 0;
}

/* Bytes [block * EROFS_BLOCK, ...) of a directory or a link: those of one block, or of what is left in the tail. NULL
 * beyond the end and for what the file does not have. */
static const uint8_t *data_block(const struct flip_erofs *fs, const struct flip_inode *ino, uint64_t block,
                                 uint32_t *ret_size)
{
	uint64_t left = block < ino->size / EROFS_BLOCK + 1 ? ino->size - block * EROFS_BLOCK : 0;
	uint32_t size = left < EROFS_BLOCK ? (uint32_t)left : EROFS_BLOCK;

	if (size == 0)
		return NULL;
	*ret_size = size;
	if (ino->layout == EROFS_INLINE && size < EROFS_BLOCK)
		return bytes_at(fs, ino->tail_at, size);
	if (ino->layout == EROFS_CHUNKS || block > fs->size / EROFS_BLOCK)
		return NULL;
	return bytes_at(fs, ((uint64_t)ino->data + block) * EROFS_BLOCK, size);
}

int flip_erofs_readlink(const struct flip_erofs *fs, uint64_t nid, const char **ret_target, size_t *ret_len)
{
	struct flip_inode ino;
	const uint8_t *p;
	uint32_t size;
	int r = flip_erofs_inode(fs, nid, &ino);

	if (r < 0)
		return r;
	if (!S_ISLNK(ino.mode))
		return -EINVAL;
	p = data_block(fs, &ino, 0, &size);
	if (!p || size != ino.size)
		return -EBADMSG;
	*ret_target = (const char *)p;
	*ret_len = size;
	return 0;
}

/* ---- Directories ------------------------------------------------------------------------------------------ */

struct dir_block {
	const uint8_t *p;
	uint32_t size, n;
};

struct entry {
	const char *name;
	size_t len;
	uint64_t nid;
	unsigned type;
};

static int load_dir(const struct flip_erofs *fs, uint64_t nid, struct flip_inode *ino)
{
	int r = flip_erofs_inode(fs, nid, ino);

	if (r < 0)
		return r;
	if (!S_ISDIR(ino->mode))
		return -ENOTDIR;
	/* What it has must be in the file: this also bounds every loop over its blocks. */
	return ino->size <= fs->size ? 0 : -EBADMSG;
}

static int load_block(const struct flip_erofs *fs, const struct flip_inode *dir, uint64_t block, struct dir_block *b)
{
	struct erofs_dirent d;
	unsigned first;

	b->p = data_block(fs, dir, block, &b->size);
	if (!b->p || b->size < sizeof(d))
		return -EBADMSG;
	memcpy(&d, b->p, sizeof(d));
	first = le16toh(d.name_at);
	if (first < sizeof(d) || first % sizeof(d) != 0 || first > b->size)
		return -EBADMSG;
	b->n = first / (uint32_t)sizeof(d);
	return 0;
}

static int load_entry(const struct dir_block *b, uint32_t i, struct entry *ret_entry)
{
	struct erofs_dirent d, next;
	uint32_t begin, end;

	memcpy(&d, b->p + i * sizeof(d), sizeof(d));
	begin = le16toh(d.name_at);
	if (i + 1 < b->n) {
		memcpy(&next, b->p + (i + 1) * sizeof(d), sizeof(d));
		end = le16toh(next.name_at);
	} else {
		end = begin < b->size ? begin + (uint32_t)strnlen((const char *)b->p + begin, b->size - begin) : begin;
	}
	if (begin < b->n * sizeof(d) || begin >= end || end > b->size || end - begin > EROFS_NAME_MAX ||
	    memchr(b->p + begin, '/', end - begin) || memchr(b->p + begin, '\0', end - begin))
		return -EBADMSG;
	*ret_entry = (struct entry){
		.name = (const char *)b->p + begin, .len = end - begin, .nid = le64toh(d.nid), .type = d.type
	};
	return 0;
}

static int compare_entry(const char *name, size_t len, const struct entry *e)
{
	int c = memcmp(name, e->name, len < e->len ? len : e->len);

	return c ? c : len < e->len ? -1 : len > e->len;
}

/* The last block whose first name is not behind `name`. */
static int find_block(const struct flip_erofs *fs, const struct flip_inode *dir, const char *name, size_t len,
                      struct dir_block *ret_block)
{
	uint64_t low = 0, high = (dir->size + EROFS_BLOCK - 1) / EROFS_BLOCK;
	bool has_one = false;

	while (low < high) {
		uint64_t mid = low + (high - low) / 2;
		struct dir_block b;
		struct entry first;
		int r = load_block(fs, dir, mid, &b);

		if (r == 0)
			r = load_entry(&b, 0, &first);
		if (r < 0)
			return r;
		if (compare_entry(name, len, &first) < 0) {
			high = mid;
		} else {
			*ret_block = b;
			has_one = true;
			low = mid + 1;
		}
	}
	return has_one ? 0 : -ENOENT;
}

int flip_erofs_lookup(const struct flip_erofs *fs, uint64_t dir, const char *name, size_t name_len, uint64_t *ret_nid)
{
	uint32_t low = 0, high;
	struct flip_inode ino;
	struct dir_block b;
	int r = load_dir(fs, dir, &ino);

	if (r < 0)
		return r;
	if (name_len == 0 || name_len > EROFS_NAME_MAX)
		return -ENOENT;
	r = find_block(fs, &ino, name, name_len, &b);
	if (r < 0)
		return r;
	high = b.n;
	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		struct entry e;
		int c;

		r = load_entry(&b, mid, &e);
		if (r < 0)
			return r;
		c = compare_entry(name, name_len, &e);
		if (c == 0) {
			*ret_nid = e.nid;
			return 0;
		}
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return -ENOENT;
}

static unsigned dtype_of(unsigned type)
{
	static const uint8_t types[] = {
		[EROFS_FT_REG] = DT_REG,    [EROFS_FT_DIR] = DT_DIR,   [EROFS_FT_CHR] = DT_CHR,
		[EROFS_FT_BLK] = DT_BLK,    [EROFS_FT_FIFO] = DT_FIFO, [EROFS_FT_SOCK] = DT_SOCK,
		[EROFS_FT_SYMLINK] = DT_LNK
	};

	return type < sizeof(types) ? types[type] : DT_UNKNOWN;
}

/* A position is that of the entry in the directory's bytes, as the kernel's own is. */
int flip_erofs_readdir(const struct flip_erofs *fs, uint64_t dir, uint64_t pos,
                       int (*fn)(void *arg, const char *name, size_t name_len, uint64_t nid, unsigned dtype,
                                 uint64_t next_pos),
                       void *arg)
{
	struct flip_inode ino;
	int r = load_dir(fs, dir, &ino);

	if (r < 0)
		return r;
	while (pos < ino.size) {
		uint64_t block = pos / EROFS_BLOCK;
		uint32_t i =
		        (uint32_t)((pos % EROFS_BLOCK + sizeof(struct erofs_dirent) - 1) / sizeof(struct erofs_dirent));
		struct dir_block b;

		r = load_block(fs, &ino, block, &b);
		for (; r == 0 && i < b.n; i++) {
			uint64_t next = block * EROFS_BLOCK + (i + 1) * sizeof(struct erofs_dirent);
			struct entry e;

			if (i + 1 == b.n)
				next = (block + 1) * EROFS_BLOCK;
			r = load_entry(&b, i, &e);
			if (r == 0 && fn(arg, e.name, e.len, e.nid, dtype_of(e.type), next))
				return 0;
		}
		if (r < 0)
			return r;
		pos = (block + 1) * EROFS_BLOCK;
	}
	return 0;
}

int flip_erofs_resolve(const struct flip_erofs *fs, const char *path, uint64_t *ret_nid)
{
	uint64_t nid = fs->root;

	while (*path) {
		size_t len = strcspn(path, "/");
		int r = len ? flip_erofs_lookup(fs, nid, path, len, &nid) : 0;

		if (r < 0)
			return r;
		path += len + (path[len] == '/');
	}
	*ret_nid = nid;
	return 0;
}
