/* The reader's extended attributes: the inode's own, then those it shares with others. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "erofs/erofs_internal.h"

struct attribute {
	const char *prefix, *rest;
	size_t prefix_len, rest_len;
	const uint8_t *value;
	size_t value_size;
	uint32_t size; /* of it all, as the next one begins behind it */
};

/* The attribute at `at`, none of it behind `end`. */
static int load_attribute(const struct flip_erofs *fs, uint64_t at, uint64_t end, struct attribute *ret_a)
{
	struct erofs_xattr x;
	uint64_t size;

	if (end > fs->size || at > end || end - at < sizeof(x))
		return -EBADMSG;
	memcpy(&x, fs->data + at, sizeof(x));
	size = sizeof(x) + x.name_len + (uint64_t)le16toh(x.value_size);
	if (size > end - at)
		return -EBADMSG;
	*ret_a = (struct attribute){ .prefix = flip_erofs_xattr_prefix(x.index),
		                     .rest = (const char *)fs->data + at + sizeof(x),
		                     .rest_len = x.name_len,
		                     .value = fs->data + at + sizeof(x) + x.name_len,
		                     .value_size = le16toh(x.value_size),
		                     .size = (uint32_t)((size + 3) & ~3ull) };
	if (!ret_a->prefix || memchr(ret_a->rest, '\0', ret_a->rest_len))
		return -EBADMSG;
	ret_a->prefix_len = strlen(ret_a->prefix);
	return 0;
}

struct cursor {
	const struct flip_erofs *fs;
	uint64_t shared_at; /* of the next shared attribute's number */
	uint64_t at, end;   /* of the next own attribute */
	unsigned n_shared;
};

static int begin(const struct flip_erofs *fs, uint64_t nid, struct cursor *ret_c)
{
	struct erofs_xattr_header h;
	struct flip_inode ino;
	int r = flip_erofs_inode(fs, nid, &ino);

	if (r < 0)
		return r;
	*ret_c = (struct cursor){ .fs = fs };
	if (ino.xattr_size == 0)
		return 0;
	memcpy(&h, fs->data + ino.xattr_at, sizeof(h));
	if (sizeof(h) + 4u * h.n_shared > ino.xattr_size)
		return -EBADMSG;
	ret_c->n_shared = h.n_shared;
	ret_c->shared_at = ino.xattr_at + sizeof(h);
	ret_c->at = ret_c->shared_at + 4u * h.n_shared;
	ret_c->end = ino.tail_at;
	return 0;
}

/* 1 and an attribute, 0 at the end. */
static int next(struct cursor *c, struct attribute *ret_a)
{
	uint32_t number;
	int r;

	if (c->at < c->end) {
		r = load_attribute(c->fs, c->at, c->end, ret_a);
		if (r == 0)
			c->at += ret_a->size;
		return r < 0 ? r : 1;
	}
	if (c->n_shared == 0)
		return 0;
	memcpy(&number, c->fs->data + c->shared_at, sizeof(number));
	c->shared_at += sizeof(number);
	c->n_shared--;
	r = load_attribute(c->fs, c->fs->xattr_at + 4ull * le32toh(number), c->fs->size, ret_a);
	return r < 0 ? r : 1;
}

static bool has_name(const struct attribute *a, const char *name)
{
	return strncmp(name, a->prefix, a->prefix_len) == 0 && strlen(name + a->prefix_len) == a->rest_len &&
	       memcmp(name + a->prefix_len, a->rest, a->rest_len) == 0;
}

static bool is_hidden(const struct attribute *a, bool with_overlay)
{
	return !with_overlay && (has_name(a, FLIP_XATTR_METACOPY) || has_name(a, FLIP_XATTR_REDIRECT));
}

int flip_erofs_getxattr(const struct flip_erofs *fs, uint64_t nid, const char *name, bool with_overlay,
                        const void **ret_value, size_t *ret_size)
{
	struct attribute a;
	struct cursor c;
	int r = begin(fs, nid, &c);

	while (r >= 0 && (r = next(&c, &a)) > 0) {
		if (!has_name(&a, name) || is_hidden(&a, with_overlay))
			continue;
		*ret_value = a.value;
		*ret_size = a.value_size;
		return 0;
	}
	return r < 0 ? r : -ENODATA;
}

ssize_t flip_erofs_listxattr(const struct flip_erofs *fs, uint64_t nid, bool with_overlay, char *buf, size_t size)
{
	struct attribute a;
	struct cursor c;
	size_t need = 0;
	int r = begin(fs, nid, &c);

	while (r >= 0 && (r = next(&c, &a)) > 0) {
		size_t len = a.prefix_len + a.rest_len + 1;

		if (is_hidden(&a, with_overlay))
			continue;
		if (size && len > size - need)
			return -ERANGE;
		if (size) {
			memcpy(buf + need, a.prefix, a.prefix_len);
			memcpy(buf + need + a.prefix_len, a.rest, a.rest_len);
			buf[need + len - 1] = '\0';
		}
		need += len;
	}
	return r < 0 ? r : (ssize_t)need;
}

/* ---- Digests ---------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "/ab/cdef..." */
static int parse_redirect(const char *text, size_t len, uint8_t ret_digest[32])
{
	uint8_t digest[32];
	const char *p = text + 1;

	if (len != FLIP_REDIRECT_SIZE || text[0] != '/' || text[3] != '/')
		return -EBADMSG;
	for (size_t i = 0; i < 32; i++, p += 2) {
		if (i == 1)
			p++;
		if (hex_digit(p[0]) < 0 || hex_digit(p[1]) < 0)
			return -EBADMSG;
		digest[i] = (uint8_t)(hex_digit(p[0]) << 4 | hex_digit(p[1]));
	}
	memcpy(ret_digest, digest, sizeof(digest));
	return 0;
}

int flip_erofs_digest(const struct flip_erofs *fs, uint64_t nid, uint8_t ret_digest[32])
{
	struct flip_inode ino;
	const void *value;
	size_t size;
	int r = flip_erofs_inode(fs, nid, &ino);

	if (r == 0)
		r = S_ISREG(ino.mode) ? flip_erofs_getxattr(fs, nid, FLIP_XATTR_REDIRECT, true, &value, &size)
		                      : -ENODATA;
	return r < 0 ? r : parse_redirect(value, size, ret_digest);
}
