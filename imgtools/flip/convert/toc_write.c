/* Tables of contents as text. Compact: a table is fetched before anything else can be. Names are written as the bytes
 * they are, also where they are no UTF-8. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/sha256.h"
#include "layer.h"

enum { MAX_ENTRY = 8 << 20 };

static void put_string(struct base_buf *b, const char *text)
{
	(void)base_buf_putc(b, '"');
	for (const char *p = text; *p; p++) {
		size_t n = 0;

		while (p[n] && (unsigned char)p[n] >= 0x20 && p[n] != '"' && p[n] != '\\')
			n++;
		(void)base_buf_append(b, p, n);
		p += n;
		if (!*p)
			break;
		if ((unsigned char)*p < 0x20)
			(void)base_buf_printf(b, "\\u%04x", (unsigned char)*p);
		else
			(void)base_buf_append(b, (char[]){ '\\', *p }, 2);
	}
	(void)base_buf_putc(b, '"');
}

static void put_base64(struct base_buf *b, const uint8_t *p, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < n; i += 3) {
		uint32_t v =
		        (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		char four[4] = { digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
			         i + 2 < n ? digits[v & 63] : '=' };

		(void)base_buf_append(b, four, 4);
	}
}

static void put_number(struct base_buf *b, const char *name, uint64_t v)
{
	if (v)
		(void)base_buf_printf(b, ",\"%s\":%llu", name, (unsigned long long)v);
}

/* RFC 3339 knows the years 0 to 9999. */
static void put_time(struct base_buf *b, const struct img_node *n)
{
	time_t t = (time_t)n->mtime_s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || tm.tm_year < 2 - 1900 || tm.tm_year > 9999 - 1900)
		return;
	(void)base_buf_printf(b, ",\"modtime\":\"%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1,
	                      tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (n->mtime_ns)
		(void)base_buf_printf(b, ".%09u", n->mtime_ns);
	(void)base_buf_puts(b, "Z\"");
}

static const char *type_name(enum img_type type)
{
	switch (type) {
	case IMG_DIR:
		return "dir";
	case IMG_SYMLINK:
		return "symlink";
	case IMG_CHAR:
		return "char";
	case IMG_BLOCK:
		return "block";
	case IMG_FIFO:
		return "fifo";
	default:
		return "reg";
	}
}

static void put_name(struct base_buf *b, const char *path, bool is_dir)
{
	char name[IMG_PATH_MAX + 4];
	size_t len = strlen(path + 1);

	memcpy(name, path + 1, len);
	if (is_dir) {
		if (!len)
			name[len++] = '.';
		name[len++] = '/';
	}
	name[len] = '\0';
	put_string(b, name);
}

int flip_entry_json(const struct img_node *n, const char *path, const char *hardlink, char **ret_json)
{
	struct base_buf b = BASE_BUF_INIT(MAX_ENTRY);

	(void)base_buf_puts(&b, "{\"name\":");
	put_name(&b, path, n->type == IMG_DIR);
	(void)base_buf_printf(&b, ",\"type\":\"%s\"", hardlink ? "hardlink" : type_name(n->type));
	if (n->type == IMG_FILE && !hardlink)
		put_number(&b, "size", n->size);
	put_time(&b, n);
	if (hardlink || n->type == IMG_SYMLINK) {
		(void)base_buf_puts(&b, ",\"linkName\":");
		if (hardlink)
			put_name(&b, hardlink, false);
		else
			put_string(&b, n->target);
	}
	put_number(&b, "mode", n->mode);
	put_number(&b, "uid", n->uid);
	put_number(&b, "gid", n->gid);
	put_number(&b, "devMajor", n->major);
	put_number(&b, "devMinor", n->minor);
	for (size_t i = 0; i < n->n_xattrs; i++) {
		(void)base_buf_puts(&b, i ? "," : ",\"xattrs\":{");
		put_string(&b, n->xattrs[i].name);
		(void)base_buf_puts(&b, ":\"");
		put_base64(&b, n->xattrs[i].value, n->xattrs[i].size);
		(void)base_buf_putc(&b, '"');
	}
	if (n->n_xattrs)
		(void)base_buf_putc(&b, '}');
	*ret_json = base_buf_take(&b);
	base_buf_done(&b);
	return *ret_json ? 0 : -ENOMEM;
}

static void put_digest(struct base_buf *b, const char *name, const uint8_t digest[32])
{
	char hex[BASE_SHA256_HEX_SIZE];

	base_sha256_hex(digest, hex);
	(void)base_buf_printf(b, ",\"%s\":\"sha256:%s\"", name, hex);
}

/* A file's first chunk is part of its own entry; chunk sizes are said where there are several. */
static void put_chunk(struct base_buf *b, const struct flip_made_entry *e, uint32_t i, uint32_t chunk_bytes)
{
	const struct flip_made_chunk *c = &e->chunks[i];

	put_number(b, "offset", c->offset);
	put_number(b, "chunkOffset", (uint64_t)i * chunk_bytes);
	if (e->n_chunks > 1)
		put_number(b, "chunkSize", c->size);
	put_digest(b, "chunkDigest", c->digest);
}

static void put_entry(struct base_buf *b, const struct flip_made_entry *e, enum flip_format format,
                      uint32_t chunk_bytes)
{
	(void)base_buf_puts(b, e->json);
	if (e->n_chunks) {
		const struct flip_made_chunk *last = &e->chunks[e->n_chunks - 1];

		put_digest(b, "digest", e->n_chunks == 1 ? e->chunks[0].digest : e->digest);
		put_chunk(b, e, 0, chunk_bytes);
		if (format == FLIP_ZSTD_CHUNKED)
			put_number(b, "endOffset", last->offset + last->packed);
	}
	(void)base_buf_putc(b, '}');
	for (uint32_t i = 1; i < e->n_chunks; i++) {
		(void)base_buf_puts(b, ",\n{\"name\":");
		put_name(b, e->path, false);
		(void)base_buf_puts(b, ",\"type\":\"chunk\"");
		put_chunk(b, e, i, chunk_bytes);
		if (format == FLIP_ZSTD_CHUNKED && i == e->n_chunks - 1)
			put_number(b, "endOffset", e->chunks[i].offset + e->chunks[i].packed);
		(void)base_buf_putc(b, '}');
	}
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp((*(struct flip_made_entry *const *)a)->path, (*(struct flip_made_entry *const *)b)->path);
}

/* The items that this layer has, their sizes made definite. */
static int put_prefetch(struct base_buf *b, struct flip_made_entry *const *entries, size_t n,
                        const struct flip_prefetch *p)
{
	struct flip_made_entry **sorted = malloc((n + 1) * sizeof(struct flip_made_entry *));
	bool is_first = true;

	if (!sorted)
		return -ENOMEM;
	if (n)
		memcpy(sorted, entries, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_entries);
	for (size_t i = 0; i < p->n; i++) {
		struct flip_made_entry want = { .path = p->items[i].path }, *key = &want, **found;
		uint64_t offset = p->items[i].offset, size = p->items[i].size;

		found = bsearch(&key, sorted, n, sizeof(*sorted), compare_entries);
		if (!found || offset >= (*found)->content_size)
			continue;
		if (size > (*found)->content_size - offset)
			size = (*found)->content_size - offset;
		(void)base_buf_puts(b, is_first ? ",\n\"flipPrefetch\":[\n[" : ",\n[");
		put_string(b, p->items[i].path);
		(void)base_buf_printf(b, ",%llu,%llu]", (unsigned long long)offset, (unsigned long long)size);
		is_first = false;
	}
	free(sorted);
	if (!is_first)
		(void)base_buf_putc(b, ']');
	return 0;
}

int flip_toc_append(struct flip_made_entry *const *entries, size_t n, enum flip_format format, uint32_t chunk_bytes,
                    const struct flip_prefetch *prefetch, struct base_buf *buf)
{
	(void)base_buf_puts(buf, "{\"version\":1,\"entries\":[");
	for (size_t i = 0; i < n; i++) {
		(void)base_buf_puts(buf, i ? ",\n" : "\n");
		put_entry(buf, entries[i], format, chunk_bytes);
	}
	(void)base_buf_putc(buf, ']');
	if (prefetch && put_prefetch(buf, entries, n, prefetch) < 0)
		return -ENOMEM;
	(void)base_buf_puts(buf, "}\n");
	return base_buf_error(buf);
}
