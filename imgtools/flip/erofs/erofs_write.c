/* The second half of the writer: the bytes. Format: erofs_format.h; places: erofs_plan.c. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "erofs/erofs_plan.h"

struct writer {
	const struct flip_erofs_plan *plan;
	uint8_t *image;
	size_t size;
	flip_digest_of digest_of;
	void *arg;
};

static uint32_t mode_of(const struct img_node *n)
{
	static const uint32_t types[] = {
		[IMG_FILE] = S_IFREG,  [IMG_DIR] = S_IFDIR,  [IMG_SYMLINK] = S_IFLNK, [IMG_CHAR] = S_IFCHR,
		[IMG_BLOCK] = S_IFBLK, [IMG_FIFO] = S_IFIFO, [IMG_SOCKET] = S_IFSOCK
	};

	return types[n->type] | n->mode;
}

static uint8_t dirent_type(const struct img_node *n)
{
	static const uint8_t types[] = {
		[IMG_FILE] = EROFS_FT_REG,   [IMG_DIR] = EROFS_FT_DIR,   [IMG_SYMLINK] = EROFS_FT_SYMLINK,
		[IMG_CHAR] = EROFS_FT_CHR,   [IMG_BLOCK] = EROFS_FT_BLK, [IMG_FIFO] = EROFS_FT_FIFO,
		[IMG_SOCKET] = EROFS_FT_SOCK
	};

	return types[n->type];
}

/* The kernel's 32-bit form: minor's low byte, 12 bits of major, the rest of minor. */
static uint32_t device_number(const struct img_node *n)
{
	return (n->minor & 0xff) | n->major << 8 | (n->minor & ~0xffu) << 12;
}

/* ---- Attributes ------------------------------------------------------------------------------------------- */

static uint8_t *put_xattr(uint8_t *p, struct erofs_xattr_header *h, const char *name, const void *value, size_t size)
{
	const char *rest;
	uint8_t index = flip_erofs_xattr_split(name, &rest);
	size_t len = strlen(rest);
	struct erofs_xattr x = { .name_len = (uint8_t)len, .index = index, .value_size = htole16((uint16_t)size) };

	memcpy(p, &x, sizeof(x));
	memcpy(p + sizeof(x), rest, len);
	if (size)
		memcpy(p + sizeof(x) + len, value, size);
	h->name_filter = htole32(le32toh(h->name_filter) & ~(1u << flip_erofs_xattr_bit(index, rest, len)));
	return p + flip_erofs_xattr_entry_size(len, size);
}

static void redirect_of(const uint8_t digest[BASE_SHA256_SIZE], char ret_path[FLIP_REDIRECT_SIZE + 1])
{
	char hex[BASE_SHA256_HEX_SIZE];

	base_sha256_hex(digest, hex);
	ret_path[0] = '/';
	memcpy(ret_path + 1, hex, 2);
	ret_path[3] = '/';
	memcpy(ret_path + 4, hex + 2, sizeof(hex) - 2);
}

static int put_xattrs(struct writer *w, const struct flip_erofs_item *it, uint8_t *p, struct err *err)
{
	struct erofs_xattr_header header = { .name_filter = htole32(UINT32_MAX) };
	const struct img_node *n = it->node;
	uint8_t *at = p + sizeof(header);

	if (flip_erofs_has_content(n)) {
		const uint8_t *digest = w->digest_of(n, w->arg);
		char redirect[FLIP_REDIRECT_SIZE + 1];

		if (!digest)
			return err_set(err, -EINVAL, "%s: a file with content and no digest", n->path);
		redirect_of(digest, redirect);
		at = put_xattr(at, &header, FLIP_XATTR_METACOPY, NULL, 0);
		at = put_xattr(at, &header, FLIP_XATTR_REDIRECT, redirect, FLIP_REDIRECT_SIZE);
	}
	for (size_t i = 0; i < n->n_xattrs; i++) {
		if (flip_erofs_keeps_xattr(n, &n->xattrs[i]))
			at = put_xattr(at, &header, n->xattrs[i].name, n->xattrs[i].value, n->xattrs[i].size);
	}
	assert(at == p + it->xattr_size);
	memcpy(p, &header, sizeof(header));
	return 0;
}

/* ---- Directories ------------------------------------------------------------------------------------------ */

static uint64_t nid_of(const struct flip_erofs_plan *p, uint32_t item)
{
	return p->items[item].at / EROFS_SLOT;
}

/* How many names from the cursor on go into one block. */
static uint32_t names_in_block(struct flip_erofs_cursor c)
{
	uint32_t used = 0, n = 0, item;
	const char *name;
	size_t len;

	while (flip_erofs_cursor_next(&c, &name, &len, &item)) {
		used += (uint32_t)(sizeof(struct erofs_dirent) + len);
		if (used > EROFS_BLOCK)
			break;
		n++;
	}
	return n;
}

static void put_dir_block(const struct flip_erofs_plan *plan, struct flip_erofs_cursor *c, uint8_t *block)
{
	uint32_t n = names_in_block(*c), name_at = n * (uint32_t)sizeof(struct erofs_dirent), item = 0;
	const char *name = NULL;
	size_t len = 0;

	for (uint32_t i = 0; i < n && flip_erofs_cursor_next(c, &name, &len, &item); i++) {
		struct erofs_dirent d = { .nid = htole64(nid_of(plan, item)),
			                  .name_at = htole16((uint16_t)name_at),
			                  .type = dirent_type(plan->items[item].node) };

		memcpy(block + i * sizeof(d), &d, sizeof(d));
		memcpy(block + name_at, name, len);
		name_at += (uint32_t)len;
	}
}

/* The last block of a directory is in the tail when the inode has one. */
static void put_dir(struct writer *w, uint32_t dir, uint8_t *tail)
{
	const struct flip_erofs_item *it = &w->plan->items[dir];
	struct flip_erofs_cursor c = { .plan = w->plan, .dir = dir };

	for (uint32_t i = 0; i < it->n_blocks; i++)
		put_dir_block(w->plan, &c, w->image + ((uint64_t)it->first_block + i) * EROFS_BLOCK);
	if (it->tail_size)
		put_dir_block(w->plan, &c, tail);
}

/* ---- Inodes ----------------------------------------------------------------------------------------------- */

static uint32_t data_of(const struct flip_erofs_item *it)
{
	switch (it->node->type) {
	case IMG_CHAR:
	case IMG_BLOCK:
		return device_number(it->node);
	case IMG_FIFO:
	case IMG_SOCKET:
		return 0;
	default:
		return it->layout == EROFS_CHUNKS ? it->chunk_bits : it->n_blocks ? it->first_block : 0;
	}
}

static uint8_t *put_inode(const struct flip_erofs_item *it, uint32_t number, uint8_t *p)
{
	uint16_t format = (uint16_t)(it->layout << EROFS_FORMAT_LAYOUT_SHIFT | it->is_extended);
	uint16_t xattr_count = 0;
	const struct img_node *n = it->node;

	if (it->xattr_size)
		xattr_count = (uint16_t)((it->xattr_size - sizeof(struct erofs_xattr_header)) / 4 + 1);
	if (it->is_extended) {
		struct erofs_extended e = { .format = htole16(format),
			                    .xattr_count = htole16(xattr_count),
			                    .mode = htole16((uint16_t)mode_of(n)),
			                    .size = htole64(it->size),
			                    .data = htole32(data_of(it)),
			                    .ino = htole32(number),
			                    .uid = htole32(n->uid),
			                    .gid = htole32(n->gid),
			                    .mtime = htole64((uint64_t)n->mtime_s),
			                    .mtime_ns = htole32(n->mtime_ns),
			                    .nlink = htole32(it->nlink) };

		memcpy(p, &e, sizeof(e));
		return p + sizeof(e);
	}
	struct erofs_compact c = { .format = htole16(format),
		                   .xattr_count = htole16(xattr_count),
		                   .mode = htole16((uint16_t)mode_of(n)),
		                   .nlink = htole16((uint16_t)it->nlink),
		                   .size = htole32((uint32_t)it->size),
		                   .data = htole32(data_of(it)),
		                   .ino = htole32(number),
		                   .uid = htole16((uint16_t)n->uid),
		                   .gid = htole16((uint16_t)n->gid) };

	memcpy(p, &c, sizeof(c));
	return p + sizeof(c);
}

static int put_item(struct writer *w, uint32_t i, uint32_t number, struct err *err)
{
	static const uint32_t hole = EROFS_HOLE;
	const struct flip_erofs_item *it = &w->plan->items[i];
	uint8_t *tail = put_inode(it, number, w->image + it->at);
	int r = 0;

	if (it->xattr_size)
		r = put_xattrs(w, it, tail, err);
	tail += it->xattr_size;
	if (it->node->type == IMG_DIR)
		put_dir(w, i, tail);
	else if (it->node->type == IMG_SYMLINK)
		memcpy(it->tail_size ? tail : w->image + (uint64_t)it->first_block * EROFS_BLOCK, it->node->target,
		       it->size);
	else if (it->layout == EROFS_CHUNKS)
		memcpy(tail, &hole, sizeof(hole));
	return r;
}

/* ---- Superblock ------------------------------------------------------------------------------------------- */

static int put_super(struct writer *w, struct err *err)
{
	const struct flip_erofs_plan *p = w->plan;
	struct erofs_super s = { .magic = htole32(EROFS_MAGIC),
		                 .feature_compat = htole32(EROFS_COMPAT_CHECKSUM | EROFS_COMPAT_MTIME |
		                                           EROFS_COMPAT_XATTR_FILTER),
		                 .block_bits = EROFS_BLOCK_BITS,
		                 .root_nid = htole16((uint16_t)nid_of(p, 0)),
		                 .n_inodes = htole64(p->n_inodes),
		                 .epoch = htole64(p->epoch),
		                 .epoch_ns = htole32(p->epoch_ns),
		                 .n_blocks = htole32((uint32_t)p->n_blocks),
		                 .feature_incompat = htole32(EROFS_INCOMPAT_CHUNKS) };
	uint8_t digest[BASE_SHA256_SIZE];
	const char *label = p->has_acl ? FLIP_EROFS_LABEL_ACL : FLIP_EROFS_LABEL;

	memcpy(s.volume_name, label, strlen(label));
	memcpy(w->image + EROFS_SUPER_AT, &s, sizeof(s));
	/* Overlayfs tells lower file systems apart by it: the digest of all else as a UUID of version 8. */
	if (base_sha256_bytes(w->image, w->size, digest) < 0)
		return err_set(err, -EIO, "SHA-256 is not available");
	memcpy(s.uuid, digest, sizeof(s.uuid));
	s.uuid[6] = (uint8_t)((s.uuid[6] & 0x0f) | 0x80);
	s.uuid[8] = (uint8_t)((s.uuid[8] & 0x3f) | 0x80);
	memcpy(w->image + EROFS_SUPER_AT, &s, sizeof(s));
	s.checksum = htole32(flip_erofs_checksum(w->image));
	memcpy(w->image + EROFS_SUPER_AT, &s, sizeof(s));
	return 0;
}

static int put_all(struct writer *w, struct err *err)
{
	uint32_t number = 0;
	int r = 0;

	w->size = (size_t)w->plan->n_blocks * EROFS_BLOCK;
	w->image = calloc(1, w->size);
	if (!w->image)
		return err_set(err, -ENOMEM, "no memory for %zu bytes", w->size);
	for (uint32_t i = 0; r == 0 && i < w->plan->n_items; i++) {
		if (w->plan->items[i].inode == i)
			r = put_item(w, i, ++number, err);
	}
	return r < 0 ? r : put_super(w, err);
}

int flip_erofs_write(struct img_tree *tree, flip_digest_of digest_of, void *arg, const char *path, struct err *err)
{
	struct flip_erofs_plan plan = { 0 };
	struct writer w = { .plan = &plan, .digest_of = digest_of, .arg = arg };
	int r = flip_erofs_plan_make(tree, &plan, err);

	if (r == 0)
		r = put_all(&w, err);
	if (r < 0)
		r = err_prefix(err, r, "%s: ", path);
	else
		r = base_write_file_atomic(path, w.image, w.size, 0644, err);
	free(w.image);
	flip_erofs_plan_done(&plan);
	return r;
}
