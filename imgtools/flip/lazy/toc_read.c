/* Where the table of a blob is, and how its document comes out of it (docs/formats/lazy-layers.md).
 *
 * The end of the blob is read once, as much as a table usually takes; what is missing of it in a second range. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "toc_internal.h"
#include "tree/tar.h"

enum {
	GZIP_FOOTER = 51,
	GZIP_FOOTER_OLD = 47, /* of the format that eStargz came from */
	ZSTD_FOOTER = 40,
	ZSTD_FOOTER_NEW = 64, /* also says where the tar-split data are */
	ZSTD_SKIPPABLE_HEADER = 8,
	MIN_TAIL = 64 << 10,
	MAX_TAIL = 2 << 20,
	TAIL_SHARE = 64, /* of the blob */
	MAX_PACKED = 256 << 20,
	MANIFEST_TYPE = 1,
};

#define ANNOTATION_TOC "containerd.io/snapshot/stargz/toc.digest"
#define ANNOTATION_POSITION "io.github.containers.zstd-chunked.manifest-position"
#define ANNOTATION_POSITION_OLD "io.containers.zstd-chunked.manifest-position"
#define ANNOTATION_CHECKSUM "io.github.containers.zstd-chunked.manifest-checksum"
#define ANNOTATION_CHECKSUM_OLD "io.containers.zstd-chunked.manifest-checksum"

/* Where the packed table is. */
struct location {
	enum flip_format format;
	uint64_t offset, size;
	uint64_t unpacked; /* 0: not known */
	uint64_t payload;  /* end of what holds files */
};

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | p[i];
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static const char *annotation(const struct flip_blob_desc *d, const char *name, const char *other)
{
	for (size_t i = 0; i < d->n_annotations; i++) {
		if (strcmp(d->names[i], name) == 0 || (other && strcmp(d->names[i], other) == 0))
			return d->values[i];
	}
	return NULL;
}

/* A gzip member without content whose extra field says where the table is, as 16 hexadecimal digits and "STARGZ". */
static bool parse_gzip_footer(const uint8_t *tail, size_t n, uint64_t blob_size, struct location *ret)
{
	static const struct {
		size_t size, extra, digits;
	} kinds[] = { { GZIP_FOOTER, 26, 16 }, { GZIP_FOOTER_OLD, 22, 12 } };

	for (size_t i = 0; i < 2; i++) {
		const uint8_t *p;
		uint64_t offset = 0;
		bool is_hex = true;

		if (n < kinds[i].size)
			continue;
		p = tail + n - kinds[i].size;
		if (memcmp(p, "\x1f\x8b\x08", 3) != 0 || !(p[3] & 4) || p[10] != kinds[i].extra || p[11] != 0 ||
		    memcmp(p + kinds[i].digits + 16, "STARGZ", 6) != 0)
			continue;
		if (i == 0 && memcmp(p + 12, "SG\x16", 4) != 0)
			continue;
		for (size_t k = 0; k < 16; k++) {
			int c = p[kinds[i].digits + k];
			int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;

			is_hex = is_hex && v >= 0;
			offset = offset << 4 | (uint64_t)(v & 15);
		}
		if (!is_hex)
			continue;
		*ret = (struct location){ FLIP_ESTARGZ, offset, 0, 0, offset };
		/* Out of the blob: left to the caller to complain of. */
		ret->size = offset < blob_size - kinds[i].size ? blob_size - kinds[i].size - offset : 0;
		return true;
	}
	return false;
}

/* A skippable frame: position, packed and unpacked size and type of the manifest, [those of the tar-split], magic. */
static bool parse_zstd_footer(const uint8_t *tail, size_t n, struct location *ret)
{
	static const size_t sizes[] = { ZSTD_FOOTER, ZSTD_FOOTER_NEW };

	for (size_t i = 0; i < 2; i++) {
		const uint8_t *p, *head;

		if (n < sizes[i] + ZSTD_SKIPPABLE_HEADER)
			continue;
		p = tail + n - sizes[i];
		head = p - ZSTD_SKIPPABLE_HEADER;
		if (get32(head) != 0x184d2a50 || get32(head + 4) != sizes[i] ||
		    memcmp(p + sizes[i] - 8, "GnUlInUx", 8) != 0 || get64(p + 24) != MANIFEST_TYPE)
			continue;
		*ret = (struct location){ FLIP_ZSTD_CHUNKED, get64(p), get64(p + 8), get64(p + 16), 0 };
		return true;
	}
	return false;
}

/* "offset:size:unpacked size:type", all decimal. */
static int parse_position(const char *text, struct location *ret)
{
	uint64_t v[4];

	for (size_t i = 0; i < 4; i++) {
		char *end;

		if (*text < '0' || *text > '9')
			return -EBADMSG;
		errno = 0;
		v[i] = strtoull(text, &end, 10);
		if (errno || *end != (i < 3 ? ':' : '\0'))
			return -EBADMSG;
		text = end + 1;
	}
	if (v[3] != MANIFEST_TYPE)
		return -EBADMSG;
	*ret = (struct location){ FLIP_ZSTD_CHUNKED, v[0], v[1], v[2], 0 };
	return 0;
}

static int check_location(const struct flip_blob_desc *d, struct location *l, struct err *err)
{
	if (l->format == FLIP_ZSTD_CHUNKED)
		l->payload = l->offset >= ZSTD_SKIPPABLE_HEADER ? l->offset - ZSTD_SKIPPABLE_HEADER : 0;
	if (l->offset >= d->size || l->size == 0 || l->size > d->size - l->offset)
		return err_set(err, -EBADMSG, "%s: footer: the table of contents lies outside the blob", d->digest);
	if (l->size > MAX_PACKED || l->unpacked > FLIP_TOC_MAX_BYTES)
		return err_set(err, -EBADMSG, "%s: footer: a table of contents larger than is taken", d->digest);
	return 0;
}

/* ---- The document ----------------------------------------------------------------------------------------------- */

struct memory {
	const char *p;
	size_t n;
};

static ssize_t read_memory(void *buf, size_t size, void *arg, struct err *err)
{
	struct memory *m = arg;
	size_t n = size < m->n ? size : m->n;

	(void)err;
	memcpy(buf, m->p, n);
	m->p += n;
	m->n -= n;
	return (ssize_t)n;
}

/* The only entry of the tar that an eStargz table is packed as: where its bytes are. */
static int find_in_tar(const char *tar, size_t size, uint64_t *ret_offset, uint64_t *ret_size, struct err *err)
{
	struct memory m = { tar, size };
	const struct img_tar_entry *e;
	struct img_tar_in *in;
	int r = img_tar_in_new(read_memory, &m, &in);

	if (r < 0)
		return err_set(err, r, "out of memory");
	r = img_tar_next(in, &e, err);
	if (r == 1 && (strcmp(e->name, FLIP_TOC_NAME) != 0 || e->node.type != IMG_FILE))
		r = err_set(err, -EBADMSG, "expected an entry %s", FLIP_TOC_NAME);
	if (r == 0)
		r = err_set(err, -EBADMSG, "an empty tar");
	if (r == 1 && (e->data_offset > size || e->node.size > size - e->data_offset))
		r = err_set(err, -EBADMSG, "%s: cut short", FLIP_TOC_NAME);
	if (r == 1) {
		*ret_offset = e->data_offset;
		*ret_size = e->node.size;
	}
	img_tar_in_free(in);
	return r < 0 ? r : 0;
}

static int check_toc_digest(const struct flip_blob_desc *d, const struct flip_toc *toc, struct err *err)
{
	const char *want = annotation(d, ANNOTATION_TOC, NULL);
	uint8_t digest[32];

	if (!want)
		return 0;
	if (flip_digest_parse(want, strlen(want), digest) < 0)
		return err_set(err, -EBADMSG, "%s: annotation %s: no SHA-256 digest", d->digest, ANNOTATION_TOC);
	if (memcmp(digest, toc->toc_digest, sizeof(digest)) != 0)
		return err_set(err, -EBADMSG, "%s: the table of contents is not the one that %s names", d->digest,
		               ANNOTATION_TOC);
	return 0;
}

static int check_manifest_checksum(const struct flip_blob_desc *d, const void *packed, size_t size, struct err *err)
{
	const char *want = annotation(d, ANNOTATION_CHECKSUM, ANNOTATION_CHECKSUM_OLD);
	uint8_t digest[32], found[32];

	if (!want)
		return 0;
	if (flip_digest_parse(want, strlen(want), digest) < 0)
		return err_set(err, -EBADMSG, "%s: annotation %s: no SHA-256 digest", d->digest, ANNOTATION_CHECKSUM);
	if (base_sha256_bytes(packed, size, found) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", d->digest);
	if (memcmp(digest, found, sizeof(digest)) != 0)
		return err_set(err, -EBADMSG, "%s: the packed table of contents is not the one that %s names",
		               d->digest, ANNOTATION_CHECKSUM);
	return 0;
}

static void toc_freep(struct flip_toc **toc)
{
	flip_toc_free(*toc);
}

/* From the packed table, all of which is in `packed`, which is let go as soon as it is unpacked. */
static int parse_packed(const struct flip_blob_desc *d, const struct location *l, char **packed, const char *begin,
                        struct flip_toc **ret_toc, struct err *err)
{
	CLEANUP(toc_freep) struct flip_toc *toc = NULL;
	CLEANUP(freep) char *text = NULL;
	uint64_t offset = 0, size;
	size_t n = 0;
	int r = 0;

	if (l->format == FLIP_ZSTD_CHUNKED)
		r = check_manifest_checksum(d, begin, (size_t)l->size, err);
	if (r < 0)
		return r;
	r = flip_unpack_all(l->format, begin, (size_t)l->size, l->unpacked ? l->unpacked : FLIP_TOC_MAX_BYTES, &text,
	                    &n);
	if (r == 0 && l->unpacked && n != l->unpacked)
		r = -EBADMSG;
	if (r < 0)
		return err_set(err, r == -ENOMEM ? r : -EBADMSG, "%s: the table of contents cannot be unpacked: %s",
		               d->digest,
		               r == -EFBIG    ? "too large"
		               : r == -ENOMEM ? "out of memory"
		                              : "damaged, or not of the size that is said");
	free(*packed);
	*packed = NULL;
	size = n;
	if (l->format == FLIP_ESTARGZ)
		r = find_in_tar(text, n, &offset, &size, err);
	if (r < 0)
		return err_prefix(err, r, "%s: table of contents: ", d->digest);
	r = flip_toc_parse(l->format, text + offset, (size_t)size, l->payload, d->digest, &toc, err);
	if (r == 0)
		r = check_toc_digest(d, toc, err);
	if (r < 0)
		return r;
	*ret_toc = toc;
	toc = NULL;
	return 0;
}

static int read_range(const struct flip_blob_desc *d, flip_read_at read_at, void *arg, uint64_t offset, size_t size,
                      char **ret_data, struct err *err)
{
	char *data = malloc(size ? size : 1);
	int r;

	if (!data)
		return err_set(err, -ENOMEM, "%s: out of memory", d->digest);
	r = read_at(arg, offset, size, data, err);
	if (r < 0) {
		free(data);
		return err_prefix(err, r, "%s: ", d->digest);
	}
	*ret_data = data;
	return 0;
}

static int plain(const struct flip_blob_desc *d, struct flip_toc **ret_toc, struct err *err)
{
	struct flip_toc *toc;

	if (annotation(d, ANNOTATION_TOC, NULL))
		return err_set(err, -EBADMSG, "%s: annotation %s, but no table of contents at the end", d->digest,
		               ANNOTATION_TOC);
	toc = calloc(1, sizeof(*toc));
	if (!toc)
		return err_set(err, -ENOMEM, "%s: out of memory", d->digest);
	toc->format = FLIP_PLAIN;
	*ret_toc = toc;
	return 0;
}

/* The packed table, whose end lies in `tail` (the last n bytes of the blob): what is missing of it is read. *ret_data
 * is the caller's. */
static int complete(const struct flip_blob_desc *d, flip_read_at read_at, void *arg, const struct location *l,
                    const char *tail, size_t n, char **ret_data, struct err *err)
{
	uint64_t tail_at = d->size - n;
	size_t missing = (size_t)(tail_at - l->offset < l->size ? tail_at - l->offset : l->size);
	char *data = malloc((size_t)l->size);
	int r;

	if (!data)
		return err_set(err, -ENOMEM, "%s: out of memory", d->digest);
	r = read_at(arg, l->offset, missing, data, err);
	if (r < 0) {
		free(data);
		return err_prefix(err, r, "%s: ", d->digest);
	}
	memcpy(data + missing, tail, (size_t)l->size - missing);
	*ret_data = data;
	return 0;
}

static int read_by_footer(const struct flip_blob_desc *d, flip_read_at read_at, void *arg, struct flip_toc **ret_toc,
                          struct err *err)
{
	CLEANUP(freep) char *data = NULL, *all = NULL;
	uint64_t share = d->size / TAIL_SHARE;
	size_t n = share < MIN_TAIL ? MIN_TAIL : share > MAX_TAIL ? MAX_TAIL : (size_t)share;
	struct location l;
	int r;

	if (n > d->size)
		n = (size_t)d->size;
	r = read_range(d, read_at, arg, d->size - n, n, &data, err);
	if (r < 0)
		return r;
	if (!parse_gzip_footer((uint8_t *)data, n, d->size, &l) && !parse_zstd_footer((uint8_t *)data, n, &l))
		return plain(d, ret_toc, err);
	r = check_location(d, &l, err);
	if (r < 0)
		return r;
	if (l.offset >= d->size - n)
		return parse_packed(d, &l, &data, data + (l.offset - (d->size - n)), ret_toc, err);
	r = complete(d, read_at, arg, &l, data, n, &all, err);
	return r < 0 ? r : parse_packed(d, &l, &all, all, ret_toc, err);
}

int flip_toc_read(const struct flip_blob_desc *d, flip_read_at read_at, void *arg, struct flip_toc **ret_toc,
                  struct err *err)
{
	const char *position = annotation(d, ANNOTATION_POSITION, ANNOTATION_POSITION_OLD);
	CLEANUP(freep) char *data = NULL;
	struct location l;
	int r;

	if (!position)
		return read_by_footer(d, read_at, arg, ret_toc, err);
	if (parse_position(position, &l) < 0)
		return err_set(err, -EBADMSG, "%s: annotation %s: expected offset:size:size:1, not '%.64s'", d->digest,
		               ANNOTATION_POSITION, position);
	r = check_location(d, &l, err);
	if (r == 0)
		r = read_range(d, read_at, arg, l.offset, (size_t)l.size, &data, err);
	return r < 0 ? r : parse_packed(d, &l, &data, data, ret_toc, err);
}
