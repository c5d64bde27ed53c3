/* tar, written: ustar headers, and a pax header in front where ustar has no room (POSIX.1-2001, "pax Interchange
 * Format"). Extended attributes are SCHILY.xattr records, as containers have them.
 *
 * The same tree gives the same bytes: nothing here depends on the machine, on the time, or on whether a source happens
 * to be stored sparsely. That is also why holes are written out as zeros (they compress to nothing, and the OCI image
 * specification warns against sparse entries). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "tar.h"
#include "tree_internal.h"

/* The header block: name of the field, offset, size. */
enum {
	NAME_AT = 0,
	NAME_SIZE = 100,
	MODE_AT = 100,
	UID_AT = 108,
	GID_AT = 116,
	ID_SIZE = 8,
	SIZE_AT = 124,
	MTIME_AT = 136,
	NUMBER_SIZE = 12,
	CHECKSUM_AT = 148,
	TYPE_AT = 156,
	LINK_AT = 157,
	LINK_SIZE = 100,
	MAGIC_AT = 257,
	UNAME_AT = 265,
	GNAME_AT = 297,
	OWNER_SIZE = 32,
	MAJOR_AT = 329,
	MINOR_AT = 337,
};

enum { COPY_SIZE = 1 << 18, MAX_PAX = 1 << 26, MAX_LINK_GROUP = 1 << 26 };

static int put(struct img_tar_out *out, const void *data, size_t size, struct err *err)
{
	int r = size ? out->sink(data, size, out->arg, err) : 0;

	if (r >= 0)
		out->offset += size;
	return r < 0 ? r : 0;
}

static int pad(struct img_tar_out *out, struct err *err)
{
	static const char zeros[IMG_TAR_BLOCK];

	return put(out, zeros, (size_t)(-out->offset % IMG_TAR_BLOCK), err);
}

/* An octal field with its NUL; what does not fit (a pax record says it then) becomes 0. */
static void put_octal(char *block, size_t at, size_t size, uint64_t value)
{
	if (value >> (3 * (size - 1)))
		value = 0;
	for (size_t i = size - 1; i-- > 0; value >>= 3)
		block[at + i] = (char)('0' + (value & 7));
}

static bool fits_octal(uint64_t value, size_t size)
{
	return value >> (3 * (size - 1)) == 0;
}

static void put_text(char *block, size_t at, size_t size, const char *text)
{
	size_t len = strlen(text);

	memcpy(block + at, text, len < size ? len : size);
}

static void put_checksum(char *block)
{
	unsigned sum = 0;

	memset(block + CHECKSUM_AT, ' ', 8);
	for (size_t i = 0; i < IMG_TAR_BLOCK; i++)
		sum += (unsigned char)block[i];
	(void)snprintf(block + CHECKSUM_AT, 8, "%06o", sum);
}

/* "LEN KEY=VALUE\n", where LEN counts itself. */
static void pax_record(struct base_buf *b, const char *key, const void *value, size_t size)
{
	size_t body = strlen(key) + size + 3, len = body + 1;
	char digits[24];

	while (len != body + (size_t)snprintf(digits, sizeof(digits), "%zu", len))
		len = body + strlen(digits);
	(void)base_buf_printf(b, "%s %s=", digits, key);
	(void)base_buf_append(b, value, size);
	(void)base_buf_putc(b, '\n');
}

static void pax_number(struct base_buf *b, const char *key, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	pax_record(b, key, text, strlen(text));
}

/* Seconds with their fraction, rounded to nothing: -1.5 is second -2 and 500,000,000 ns. */
static void pax_time(struct base_buf *b, int64_t s, uint32_t ns)
{
	char text[48];
	size_t len;

	if (s < 0 && ns) {
		s++;
		ns = 1000000000 - ns;
		(void)snprintf(text, sizeof(text), "%s%lld.%09u", s == 0 ? "-" : "", (long long)s, ns);
	} else {
		(void)snprintf(text, sizeof(text), "%lld.%09u", (long long)s, ns);
	}
	len = strlen(text);
	while (text[len - 1] == '0')
		text[--len] = '\0';
	if (text[len - 1] == '.')
		text[--len] = '\0';
	pax_record(b, "mtime", text, len);
}

/* What of one entry goes into its headers. */
struct entry {
	char name[IMG_PATH_MAX + 2];
	const char *link;
	char type;
	uint64_t size;
	int64_t mtime_s;
	uint32_t mtime_ns;
};

static void entry_of(const struct img_node *n, const char *link_to, const struct img_write_opts *o, struct entry *e)
{
	static const char types[] = { [IMG_FILE] = '0',  [IMG_DIR] = '5',  [IMG_SYMLINK] = '2', [IMG_CHAR] = '3',
		                      [IMG_BLOCK] = '4', [IMG_FIFO] = '6', [IMG_SOCKET] = '0' };

	(void)snprintf(e->name, sizeof(e->name), "%s%s", n->path[1] ? n->path + 1 : ".", n->type == IMG_DIR ? "/" : "");
	e->link = link_to ? link_to + 1 : n->type == IMG_SYMLINK ? n->target : "";
	e->type = link_to ? '1' : types[n->type];
	e->size = n->type == IMG_FILE && !link_to ? n->size : 0;
	e->mtime_s = n->mtime_s;
	e->mtime_ns = n->mtime_ns;
	if (o->clamp_mtime >= 0 && n->mtime_s >= o->clamp_mtime) {
		e->mtime_s = o->clamp_mtime;
		e->mtime_ns = 0;
	}
}

static void pax_records(struct base_buf *b, const struct img_node *n, const struct entry *e)
{
	char key[512];

	if (strlen(e->name) > NAME_SIZE)
		pax_record(b, "path", e->name, strlen(e->name));
	if (strlen(e->link) > LINK_SIZE)
		pax_record(b, "linkpath", e->link, strlen(e->link));
	if (!fits_octal(e->size, NUMBER_SIZE))
		pax_number(b, "size", e->size);
	if (!fits_octal(n->uid, ID_SIZE))
		pax_number(b, "uid", n->uid);
	if (!fits_octal(n->gid, ID_SIZE))
		pax_number(b, "gid", n->gid);
	if (e->mtime_s < 0 || e->mtime_ns || !fits_octal((uint64_t)e->mtime_s, NUMBER_SIZE))
		pax_time(b, e->mtime_s, e->mtime_ns);
	for (size_t i = 0; i < n->n_xattrs && e->type != '1'; i++) {
		(void)snprintf(key, sizeof(key), "SCHILY.xattr.%s", n->xattrs[i].name);
		pax_record(b, key, n->xattrs[i].value, n->xattrs[i].size);
	}
}

static void fill_header(char block[IMG_TAR_BLOCK], const struct img_node *n, const struct entry *e, const char *uname,
                        const char *gname)
{
	memset(block, 0, IMG_TAR_BLOCK);
	put_text(block, NAME_AT, NAME_SIZE, e->name);
	put_octal(block, MODE_AT, ID_SIZE, n->mode);
	put_octal(block, UID_AT, ID_SIZE, n->uid);
	put_octal(block, GID_AT, ID_SIZE, n->gid);
	put_octal(block, SIZE_AT, NUMBER_SIZE, e->size);
	put_octal(block, MTIME_AT, NUMBER_SIZE, e->mtime_s < 0 ? 0 : (uint64_t)e->mtime_s);
	block[TYPE_AT] = e->type;
	put_text(block, LINK_AT, LINK_SIZE, e->link);
	memcpy(block + MAGIC_AT,
	       "ustar\0"
	       "00",
	       8);
	put_text(block, UNAME_AT, OWNER_SIZE - 1, uname ? uname : "");
	put_text(block, GNAME_AT, OWNER_SIZE - 1, gname ? gname : "");
	put_octal(block, MAJOR_AT, ID_SIZE, n->major);
	put_octal(block, MINOR_AT, ID_SIZE, n->minor);
	put_checksum(block);
}

static int put_pax(struct img_tar_out *out, const struct base_buf *records, struct err *err)
{
	static const struct img_node plain = { .mode = 0644 };
	struct entry e = { .name = "PaxHeaders/x", .link = "", .type = 'x', .size = records->len };
	char block[IMG_TAR_BLOCK];
	int r;

	fill_header(block, &plain, &e, NULL, NULL);
	r = put(out, block, sizeof(block), err);
	if (r == 0)
		r = put(out, records->data, records->len, err);
	return r == 0 ? pad(out, err) : r;
}

static int put_bytes(struct img_tar_out *out, const struct img_node *n, struct err *err)
{
	CLEANUP(close_fdp) int fd = -1;
	CLEANUP(freep) char *buf = NULL;
	int r = img_node_open(n, &fd, err);

	if (r < 0)
		return r;
	if (fd < 0)
		return put(out, n->data, (size_t)n->size, err);
	buf = malloc(COPY_SIZE);
	if (!buf)
		return err_set(err, -ENOMEM, "%s: out of memory", n->path);
	for (uint64_t left = n->size; left;) {
		ssize_t got = read(fd, buf, left < COPY_SIZE ? (size_t)left : COPY_SIZE);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set(err, -errno, "%s: %s", n->source, strerror(errno));
		if (got == 0)
			return err_set(err, -EIO, "%s: %llu bytes shorter than it was", n->source,
			               (unsigned long long)left);
		r = put(out, buf, (size_t)got, err);
		if (r < 0)
			return r;
		left -= (uint64_t)got;
	}
	return 0;
}

int img_tar_write_header(struct img_tar_out *out, const struct img_node *n, const char *link_to, const char *uname,
                         const char *gname, const struct img_write_opts *o, struct err *err)
{
	struct base_buf records = BASE_BUF_INIT(MAX_PAX);
	char block[IMG_TAR_BLOCK];
	struct entry e;
	int r = 0;

	entry_of(n, link_to, o, &e);
	pax_records(&records, n, &e);
	if (base_buf_error(&records))
		r = err_set(err, base_buf_error(&records), "%s: cannot hold its attributes", n->path);
	if (r == 0 && records.len)
		r = put_pax(out, &records, err);
	base_buf_done(&records);
	if (r < 0)
		return r;
	fill_header(block, n, &e, uname, gname);
	return put(out, block, sizeof(block), err);
}

int img_tar_write_padding(struct img_tar_out *out, struct err *err)
{
	return pad(out, err);
}

int img_tar_write_node(struct img_tar_out *out, const struct img_node *n, const char *link_to, const char *uname,
                       const char *gname, const struct img_write_opts *o, struct err *err)
{
	int r;

	if (n->type == IMG_SOCKET)
		return 0;
	r = img_tar_write_header(out, n, link_to, uname, gname, o, err);
	if (r == 0 && n->type == IMG_FILE && !link_to && n->size)
		r = put_bytes(out, n, err);
	return r == 0 ? pad(out, err) : r;
}

int img_tar_write_end(struct img_tar_out *out, struct err *err)
{
	static const char zeros[2 * IMG_TAR_BLOCK];

	return put(out, zeros, sizeof(zeros), err);
}

/* ---- Names of users and groups: those of the tree itself, so that the host's do not matter -------------------- */

struct owner {
	uint32_t id;
	char name[OWNER_SIZE];
};

struct owners {
	struct owner *list;
	size_t n;
};

static void add_owner(struct owners *o, const char *line, size_t len)
{
	const char *end = line + len, *colon = memchr(line, ':', len), *number;
	struct owner *p;

	if (!colon || colon == line || (size_t)(colon - line) >= OWNER_SIZE)
		return;
	number = memchr(colon + 1, ':', (size_t)(end - colon - 1));
	if (!number || number + 1 == end || number[1] < '0' || number[1] > '9')
		return;
	p = reallocarray(o->list, o->n + 1, sizeof(*p));
	if (!p)
		return;
	o->list = p;
	p += o->n++;
	p->id = (uint32_t)strtoul(number + 1, NULL, 10);
	memset(p->name, 0, sizeof(p->name));
	memcpy(p->name, line, (size_t)(colon - line));
}

/* NAME:x:ID:..., of /etc/passwd or /etc/group. A tree that has none has no names. */
static void read_owners(const struct img_tree *t, const char *path, struct owners *o)
{
	CLEANUP(freep) void *data = NULL;
	struct img_node *n = NULL;
	size_t size = 0;

	if (img_tree_resolve(t, path, true, &n, NULL, NULL) < 0 ||
	    img_node_read_all(n, 1 << 20, &data, &size, NULL) < 0)
		return;
	for (const char *p = data, *end = p + size; p < end;) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = nl ? (size_t)(nl - p) : (size_t)(end - p);

		add_owner(o, p, len);
		p += len + 1;
	}
}

static const char *owner_name(const struct owners *o, uint32_t id)
{
	for (size_t i = 0; i < o->n; i++) {
		if (o->list[i].id == id)
			return o->list[i].name;
	}
	return NULL;
}

/* ---- Trees -------------------------------------------------------------------------------------------------- */

/* A root that is only there because every tree has one is not an entry. */
static bool is_plain_root(const struct img_node *n)
{
	return !n->path[1] && n->mode == 0755 && n->uid == 0 && n->gid == 0 && n->mtime_s == 0 && n->mtime_ns == 0 &&
	       n->n_xattrs == 0;
}

static int first_names(struct img_tree *t, const char ***ret_first, struct err *err)
{
	uint32_t max = 0;

	for (size_t i = 0; i < img_tree_count(t); i++) {
		struct img_node *n = img_tree_at(t, i);

		if (!n)
			return err_set(err, -ENOMEM, "tar: out of memory");
		if (n->link_group > max)
			max = n->link_group;
	}
	if (max > MAX_LINK_GROUP)
		return err_set(err, -E2BIG, "tar: link group %u", max);
	*ret_first = calloc((size_t)max + 1, sizeof(char *));
	return *ret_first ? 0 : err_set(err, -ENOMEM, "tar: out of memory");
}

int img_tar_write_some(struct img_tree *t, const struct img_write_opts *o,
                       bool (*is_wanted)(size_t i, const struct img_node *n, void *arg), void *wanted_arg,
                       img_sink sink, void *arg, struct err *err)
{
	struct img_tar_out out = { .sink = sink, .arg = arg };
	struct owners users = { 0 }, groups = { 0 };
	CLEANUP(freep) const char **first = NULL;
	int r = first_names(t, &first, err);

	if (r == 0 && !o->numeric_only) {
		read_owners(t, "/etc/passwd", &users);
		read_owners(t, "/etc/group", &groups);
	}
	for (size_t i = 0; r == 0 && i < img_tree_count(t); i++) {
		const struct img_node *n = img_tree_at(t, i);
		const char *link_to = NULL;

		if (is_plain_root(n) || (is_wanted && !is_wanted(i, n, wanted_arg)))
			continue;
		if (n->link_group) {
			link_to = first[n->link_group];
			if (!link_to)
				first[n->link_group] = n->path;
		}
		r = img_tar_write_node(&out, n, link_to, owner_name(&users, n->uid), owner_name(&groups, n->gid), o,
		                       err);
	}
	if (r == 0)
		r = img_tar_write_end(&out, err);
	free(users.list);
	free(groups.list);
	return r;
}

int img_tree_write_tar(struct img_tree *t, const struct img_write_opts *o, img_sink sink, void *arg, struct err *err)
{
	return img_tar_write_some(t, o, NULL, NULL, sink, arg, err);
}
