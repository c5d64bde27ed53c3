/* tar, read as a stream: ustar and old headers, pax extended headers (POSIX.1-2001), GNU tar's long names and base-256
 * numbers. Every byte is someone else's: sizes are checked before they are used, an extended header has a ceiling, and
 * what is not understood is refused rather than guessed, because an archive that two programs read differently is a way
 * to hide things. Global pax headers are passed over, as container runtimes do; sparse entries are refused, as the OCI
 * image specification advises against them.
 *
 * Names come out as they stand in the archive. Making them safe is the caller's part. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "tar.h"

enum { SKIP_SIZE = 1 << 16, NAME_SIZE = 100, PREFIX_SIZE = 155 };

struct img_tar_in {
	img_source source;
	img_source_skip skip_source; /* NULL: it can only be read */
	void *arg;
	uint64_t offset; /* in the archive */
	uint64_t left;   /* bytes of the current entry not read yet */
	uint64_t padding;
	bool at_end;

	struct img_tar_entry entry;
	char *name, *link; /* from 'x', 'L', 'K'; else NULL */
	char ustar_name[NAME_SIZE + PREFIX_SIZE + 2], ustar_link[NAME_SIZE + 1];
	struct img_xattr xattrs[IMG_TAR_MAX_XATTRS];
	size_t n_xattrs;
	bool has_size, has_uid, has_gid, has_mtime;
	uint64_t pax_size, pax_uid, pax_gid;
	int64_t pax_mtime_s;
	uint32_t pax_mtime_ns;
	char skip[SKIP_SIZE];
};

int img_tar_in_new(img_source source, void *arg, struct img_tar_in **ret_in)
{
	struct img_tar_in *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->source = source;
	in->arg = arg;
	*ret_in = in;
	return 0;
}

void img_tar_in_set_skip(struct img_tar_in *in, img_source_skip skip)
{
	in->skip_source = skip;
}

static void forget_extensions(struct img_tar_in *in)
{
	free(in->name);
	free(in->link);
	in->name = in->link = NULL;
	while (in->n_xattrs) {
		in->n_xattrs--;
		free(in->xattrs[in->n_xattrs].name);
		free(in->xattrs[in->n_xattrs].value);
	}
	in->has_size = in->has_uid = in->has_gid = in->has_mtime = false;
}

void img_tar_in_free(struct img_tar_in *in)
{
	if (!in)
		return;
	forget_extensions(in);
	free(in);
}

/* What the entry is called in messages: its name as far as it is known. */
static const char *label(const struct img_tar_in *in)
{
	return in->name ? in->name : in->ustar_name[0] ? in->ustar_name : "first entry";
}

static int bad(const struct img_tar_in *in, struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "%s: %s (at byte %llu of the archive)", label(in), what,
	               (unsigned long long)in->entry.offset);
}

/* ---- Bytes -------------------------------------------------------------------------------------------------- */

/* As much as there is, up to size: less only at the end. */
static ssize_t read_full(struct img_tar_in *in, void *buf, size_t size, struct err *err)
{
	size_t got = 0;

	while (got < size) {
		ssize_t n = in->source((char *)buf + got, size - got, in->arg, err);

		if (n < 0)
			return n;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	in->offset += got;
	return (ssize_t)got;
}

static int skip_bytes(struct img_tar_in *in, uint64_t n, struct err *err)
{
	if (n && in->skip_source) {
		in->offset += n;
		return in->skip_source(n, in->arg, err) < 0 ? bad(in, err, "the archive ends in the middle of it") : 0;
	}
	while (n) {
		size_t want = n < SKIP_SIZE ? (size_t)n : SKIP_SIZE;
		ssize_t got = read_full(in, in->skip, want, err);

		if (got < 0)
			return (int)got;
		if ((size_t)got < want)
			return bad(in, err, "the archive ends in the middle of it");
		n -= want;
	}
	return 0;
}

ssize_t img_tar_read(struct img_tar_in *in, void *buf, size_t size, struct err *err)
{
	size_t want = in->left < size ? (size_t)in->left : size;
	ssize_t got;

	if (want == 0)
		return 0;
	got = read_full(in, buf, want, err);
	if (got < 0)
		return got;
	in->left -= (uint64_t)got;
	if ((size_t)got < want)
		return bad(in, err, "the archive ends in the middle of it");
	return got;
}

/* ---- Fields ------------------------------------------------------------------------------------------------- */

/* Octal with spaces around, or base 256 when the first bit is set; -1: neither, or too large for a signed number. */
static int64_t get_number(const unsigned char *p, size_t size)
{
	uint64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80) {
		if (p[0] != 0x80) /* negative, or more than 64 bits */
			return -1;
		for (i = 1; i < size; i++) {
			if (v >> 55)
				return -1;
			v = v << 8 | p[i];
		}
		return (int64_t)v;
	}
	while (i < size && p[i] == ' ')
		i++;
	for (; i < size && p[i] >= '0' && p[i] <= '7'; i++) {
		if (v >> 60)
			return -1;
		v = v << 3 | (uint64_t)(p[i] - '0');
	}
	for (; i < size; i++) {
		if (p[i] != ' ' && p[i] != '\0')
			return -1;
		if (p[i] == '\0')
			break;
	}
	return (int64_t)v;
}

static bool checksum_is_right(const unsigned char *block)
{
	int64_t want = get_number(block + 148, 8), plain = 0, with_sign = 0;

	for (size_t i = 0; i < IMG_TAR_BLOCK; i++) {
		unsigned char c = i >= 148 && i < 156 ? ' ' : block[i];

		plain += c;
		with_sign += (signed char)c;
	}
	return want == plain || want == with_sign;
}

static void get_text(const unsigned char *p, size_t size, char *ret_text)
{
	size_t len = strnlen((const char *)p, size);

	memcpy(ret_text, p, len);
	ret_text[len] = '\0';
}

/* ---- Extended headers ----------------------------------------------------------------------------------------- */

static int parse_unsigned(const char *text, size_t len, uint64_t *ret)
{
	uint64_t v = 0;

	if (len == 0 || len > 19)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EBADMSG;
		v = v * 10 + (uint64_t)(text[i] - '0');
	}
	if (v > INT64_MAX)
		return -EBADMSG;
	*ret = v;
	return 0;
}

/* "-1.5" is second -2 and 500,000,000 ns. Digits beyond the ninth are dropped. */
static int parse_time(const char *text, size_t len, int64_t *ret_s, uint32_t *ret_ns)
{
	const char *dot = memchr(text, '.', len);
	size_t whole = dot ? (size_t)(dot - text) : len;
	bool negative = len && text[0] == '-';
	uint32_t ns = 0, unit = 100000000;
	uint64_t s = 0;

	if (whole > (size_t)negative && parse_unsigned(text + negative, whole - negative, &s) < 0)
		return -EBADMSG;
	if (whole == (size_t)negative && !dot)
		return -EBADMSG;
	for (size_t i = whole + 1; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EBADMSG;
		ns += unit * (uint32_t)(text[i] - '0');
		unit /= 10;
	}
	if (s > (uint64_t)INT64_MAX / 2)
		return -EBADMSG;
	*ret_s = negative ? -(int64_t)s - (ns ? 1 : 0) : (int64_t)s;
	*ret_ns = negative && ns ? 1000000000 - ns : ns;
	return 0;
}

static int take_text(struct img_tar_in *in, char **slot, const char *value, size_t len, struct err *err)
{
	char *copy;

	if (memchr(value, 0, len))
		return bad(in, err, "a name with a 0 byte");
	copy = strndup(value, len);
	if (!copy)
		return err_set(err, -ENOMEM, "%s: out of memory", label(in));
	free(*slot);
	*slot = copy;
	if (!len) { /* an empty value takes the record back */
		free(*slot);
		*slot = NULL;
	}
	return 0;
}

static int take_xattr(struct img_tar_in *in, const char *name, size_t name_len, const char *value, size_t len,
                      struct err *err)
{
	struct img_xattr *x = NULL;
	void *copy;

	if (name_len == 0 || name_len > 255 || memchr(name, 0, name_len))
		return bad(in, err, "an extended attribute with no proper name");
	for (size_t i = 0; i < in->n_xattrs; i++) {
		if (strlen(in->xattrs[i].name) == name_len && memcmp(in->xattrs[i].name, name, name_len) == 0)
			x = &in->xattrs[i];
	}
	if (!x && in->n_xattrs == IMG_TAR_MAX_XATTRS)
		return bad(in, err, "too many extended attributes");
	copy = malloc(len ? len : 1);
	if (!copy)
		return err_set(err, -ENOMEM, "%s: out of memory", label(in));
	memcpy(copy, value, len);
	if (!x) {
		x = &in->xattrs[in->n_xattrs];
		*x = (struct img_xattr){ .name = strndup(name, name_len) };
		if (!x->name) {
			free(copy);
			return err_set(err, -ENOMEM, "%s: out of memory", label(in));
		}
		in->n_xattrs++;
	}
	free(x->value);
	x->value = copy;
	x->size = len;
	return 0;
}

static int take_number(struct img_tar_in *in, const char *value, size_t len, bool *has, uint64_t *slot, struct err *err)
{
	if (!len) {
		*has = false;
		return 0;
	}
	if (parse_unsigned(value, len, slot) < 0)
		return bad(in, err, "a number in its extended header that is none");
	*has = true;
	return 0;
}

static int take_record(struct img_tar_in *in, const char *key, size_t key_len, const char *value, size_t len,
                       struct err *err)
{
	static const char xattr[] = "SCHILY.xattr.", sparse[] = "GNU.sparse.";

#define IS(text) (key_len == strlen(text) && memcmp(key, text, key_len) == 0)
	if (IS("path"))
		return take_text(in, &in->name, value, len, err);
	if (IS("linkpath"))
		return take_text(in, &in->link, value, len, err);
	if (IS("size"))
		return take_number(in, value, len, &in->has_size, &in->pax_size, err);
	if (IS("uid"))
		return take_number(in, value, len, &in->has_uid, &in->pax_uid, err);
	if (IS("gid"))
		return take_number(in, value, len, &in->has_gid, &in->pax_gid, err);
	if (IS("mtime")) {
		in->has_mtime = len > 0;
		if (len && parse_time(value, len, &in->pax_mtime_s, &in->pax_mtime_ns) < 0)
			return bad(in, err, "a time in its extended header that is none");
		return 0;
	}
#undef IS
	if (key_len >= strlen(xattr) && memcmp(key, xattr, strlen(xattr)) == 0)
		return take_xattr(in, key + strlen(xattr), key_len - strlen(xattr), value, len, err);
	if (key_len >= strlen(sparse) && memcmp(key, sparse, strlen(sparse)) == 0)
		return bad(in, err, "a sparse entry, which image layers do not have");
	return 0;
}

/* Records "LEN KEY=VALUE\n", one after the other, LEN in decimal and counting itself. */
static int parse_pax(struct img_tar_in *in, const char *data, size_t size, struct err *err)
{
	while (size) {
		const char *space = memchr(data, ' ', size < 20 ? size : 20), *eq;
		uint64_t len = 0;
		size_t head;
		int r;

		if (!space || parse_unsigned(data, (size_t)(space - data), &len) < 0)
			return bad(in, err, "an extended header without its length");
		head = (size_t)(space - data) + 1;
		if (len > size || len < head + 2 || data[len - 1] != '\n')
			return bad(in, err, "an extended header of a wrong length");
		eq = memchr(space + 1, '=', (size_t)len - head);
		if (!eq || eq == space + 1)
			return bad(in, err, "an extended header without a key");
		r = take_record(in, space + 1, (size_t)(eq - space - 1), eq + 1, (size_t)(data + len - 1 - (eq + 1)),
		                err);
		if (r < 0)
			return r;
		data += len;
		size -= (size_t)len;
	}
	return 0;
}

/* The content of a header that extends the next one, 0-terminated. */
static int read_extension(struct img_tar_in *in, uint64_t size, char **ret_data, struct err *err)
{
	CLEANUP(freep) char *data = NULL;
	ssize_t got;
	int r;

	if (size > IMG_TAR_MAX_PAX)
		return bad(in, err, "an extended header larger than is taken");
	data = malloc((size_t)size + 1);
	if (!data)
		return err_set(err, -ENOMEM, "%s: out of memory", label(in));
	got = read_full(in, data, (size_t)size, err);
	if (got < 0)
		return (int)got;
	if ((size_t)got < size)
		return bad(in, err, "the archive ends in its extended header");
	data[size] = '\0';
	r = skip_bytes(in, -size % IMG_TAR_BLOCK, err);
	if (r < 0)
		return r;
	*ret_data = data;
	data = NULL;
	return 0;
}

static int take_extension(struct img_tar_in *in, char type, uint64_t size, struct err *err)
{
	CLEANUP(freep) char *data = NULL;
	int r = read_extension(in, size, &data, err);

	if (r < 0 || type == 'g')
		return r;
	if (type == 'x')
		return parse_pax(in, data, (size_t)size, err);
	return take_text(in, type == 'L' ? &in->name : &in->link, data, strnlen(data, (size_t)size), err);
}

/* ---- Entries -------------------------------------------------------------------------------------------------- */

static void names_of_header(struct img_tar_in *in, const unsigned char *block)
{
	char name[NAME_SIZE + 1], prefix[PREFIX_SIZE + 1] = "";

	get_text(block, NAME_SIZE, name);
	get_text(block + 157, NAME_SIZE, in->ustar_link);
	if (memcmp(block + 257, "ustar", 6) == 0)
		get_text(block + 345, PREFIX_SIZE, prefix);
	(void)snprintf(in->ustar_name, sizeof(in->ustar_name), "%s%s%s", prefix, prefix[0] ? "/" : "", name);
}

static int type_of_header(struct img_tar_in *in, char type, struct err *err)
{
	static const char types[] = "0\0"
	                            "712345"
	                            "6";
	static const enum img_type ours[] = { IMG_FILE, IMG_FILE,  IMG_FILE, IMG_FILE, IMG_SYMLINK,
		                              IMG_CHAR, IMG_BLOCK, IMG_DIR,  IMG_FIFO };
	const char *p = memchr(types, type, sizeof(types) - 1);
	size_t len = strlen(in->entry.name);

	if (!p)
		return bad(in, err,
		           type == 'S' ? "a sparse entry, which image layers do not have"
		                       : "a type of entry that is not known");
	in->entry.node.type = ours[p - types];
	in->entry.is_hardlink = type == '1';
	if (in->entry.node.type == IMG_FILE && type != '1' && len && in->entry.name[len - 1] == '/')
		in->entry.node.type = IMG_DIR; /* as tar of the seventies said it */
	return 0;
}

static int fill_entry(struct img_tar_in *in, const unsigned char *block, struct err *err)
{
	struct img_node *n = &in->entry.node;
	int64_t mode = get_number(block + 100, 8), size = get_number(block + 124, 12);
	int64_t uid = in->has_uid ? (int64_t)in->pax_uid : get_number(block + 108, 8);
	int64_t gid = in->has_gid ? (int64_t)in->pax_gid : get_number(block + 116, 8);
	int64_t mtime = get_number(block + 136, 12), major, minor;
	int r;

	in->entry.name = in->name ? in->name : in->ustar_name;
	in->entry.linkname = in->link ? in->link : in->ustar_link;
	*n = (struct img_node){ .package = -1, .layer = -1, .xattrs = in->xattrs, .n_xattrs = in->n_xattrs };
	r = type_of_header(in, (char)block[156], err);
	if (r < 0)
		return r;
	if (in->has_size)
		size = (int64_t)in->pax_size;
	if (mode < 0 || size < 0 || uid < 0 || gid < 0 || uid > UINT32_MAX || gid > UINT32_MAX)
		return bad(in, err, "a number in its header that is none");
	n->mode = (uint32_t)mode & 07777;
	n->uid = (uint32_t)uid;
	n->gid = (uint32_t)gid;
	n->size = n->type == IMG_FILE && !in->entry.is_hardlink ? (uint64_t)size : 0;
	n->mtime_s = in->has_mtime ? in->pax_mtime_s : mtime < 0 ? 0 : mtime;
	n->mtime_ns = in->has_mtime ? in->pax_mtime_ns : 0;
	if (n->type == IMG_CHAR || n->type == IMG_BLOCK) {
		major = get_number(block + 329, 8);
		minor = get_number(block + 337, 8);
		if (major < 0 || minor < 0 || major > UINT32_MAX || minor > UINT32_MAX)
			return bad(in, err, "a device number that is none");
		n->major = (uint32_t)major;
		n->minor = (uint32_t)minor;
	}
	in->entry.data_offset = in->offset;
	in->left = n->size;
	in->padding = -n->size % IMG_TAR_BLOCK;
	return 0;
}

static bool is_zero(const unsigned char *block)
{
	return block[0] == 0 && memcmp(block, block + 1, IMG_TAR_BLOCK - 1) == 0;
}

/* One header block: 1 read, 0 the end of the archive. */
static int read_block(struct img_tar_in *in, unsigned char *block, struct err *err)
{
	ssize_t got = read_full(in, block, IMG_TAR_BLOCK, err);

	if (got < 0)
		return (int)got;
	if (got == 0 || (got == IMG_TAR_BLOCK && is_zero(block))) {
		in->at_end = true;
		return 0;
	}
	if (got < IMG_TAR_BLOCK)
		return bad(in, err, "the archive ends in a header behind it");
	if (!checksum_is_right(block))
		return bad(in, err, "what follows it is no tar header");
	return 1;
}

int img_tar_next(struct img_tar_in *in, const struct img_tar_entry **ret_entry, struct err *err)
{
	unsigned char block[IMG_TAR_BLOCK];
	bool is_extended = false;
	int r;

	if (in->at_end)
		return 0;
	r = skip_bytes(in, in->left, err);
	if (r == 0)
		r = skip_bytes(in, in->padding, err);
	if (r < 0)
		return r;
	in->left = in->padding = 0;
	forget_extensions(in);
	in->entry.offset = in->offset;
	for (;;) {
		char type;
		int64_t size;

		r = read_block(in, block, err);
		if (r == 0 && is_extended)
			return bad(in, err, "an extended header with nothing behind it");
		if (r <= 0)
			return r;
		type = (char)block[156];
		if (!type || !strchr("xgLK", type))
			break;
		size = get_number(block + 124, 12);
		if (size < 0)
			return bad(in, err, "an extended header of a wrong length");
		r = take_extension(in, type, (uint64_t)size, err);
		if (r < 0)
			return r;
		is_extended = is_extended || type != 'g';
		if (!is_extended)
			in->entry.offset = in->offset;
	}
	names_of_header(in, block);
	r = fill_entry(in, block, err);
	if (r < 0)
		return r;
	if (!in->entry.name[0])
		return bad(in, err, "an entry without a name");
	*ret_entry = &in->entry;
	return 1;
}
