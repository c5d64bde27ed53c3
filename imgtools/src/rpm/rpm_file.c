/* Package files: lead, signature header, main header; and what is compressed behind them.
 *
 *    0  96  lead, of which only the magic ed ab ee db and the kind of package (0: binary) still matter
 *   96   .  signature header: 8 bytes of magic, a header as in rpm_header.c, padded to a multiple of 8
 *    .   .  main header: 8 bytes of magic, a header
 *    .   .  payload: cpio, compressed
 *
 * The signature header holds digests of the main header (magic included); they are checked. Signatures are not: trust
 * in a package is established where it is fetched (rpmkeys, dnf with gpgcheck), and here its bytes are compared with
 * what its own header says. */
#include <archive.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/library.h"
#include "rpm_internal.h"

static const uint8_t header_magic[4] = { 0x8e, 0xad, 0xe8, 0x01 };

static int read_at(int fd, void *buf, size_t size, uint64_t offset, const char *path, struct err *err)
{
	size_t done = 0;

	while (done < size) {
		const ssize_t n = pread(fd, (char *)buf + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "%s: %s", path, strerror(errno));
		if (n == 0)
			return err_set(err, -EBADMSG, "%s: the file is cut short", path);
		done += (size_t)n;
	}
	return 0;
}

/* Reads the header at `offset` with its magic; *ret_data begins with the magic. */
static int read_header(int fd, uint64_t offset, const char *path, const char *what, uint8_t **ret_data,
                       size_t *ret_size, struct err *err)
{
	CLEANUP(freep) uint8_t *data = NULL;
	uint8_t intro[RPM_MAGIC_SIZE + 8];
	struct stat st;
	size_t size;
	int r;

	r = read_at(fd, intro, sizeof(intro), offset, path, err);
	if (r < 0)
		return r;
	size = img_rpm_hdr_size(intro + RPM_MAGIC_SIZE);
	if (memcmp(intro, header_magic, sizeof(header_magic)) != 0 || size == 0)
		return err_set(err, -EBADMSG, "%s: %s: not an RPM header", path, what);
	/* The size is a claim: no memory for more than the file has. */
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < offset + RPM_MAGIC_SIZE + size)
		return err_set(err, -EBADMSG, "%s: %s: the file is cut short", path, what);
	data = malloc(RPM_MAGIC_SIZE + size);
	if (!data)
		return -ENOMEM;
	r = read_at(fd, data, RPM_MAGIC_SIZE + size, offset, path, err);
	if (r < 0)
		return r;
	*ret_data = data;
	*ret_size = RPM_MAGIC_SIZE + size;
	data = NULL;
	return 0;
}

static int check_digest(const uint8_t *data, size_t size, const EVP_MD *md, const char *hex)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	char text[2 * EVP_MAX_MD_SIZE + 1];
	unsigned n;

	if (EVP_Digest(data, size, digest, &n, md, NULL) != 1)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		(void)snprintf(text + (size_t)i * 2, 3, "%02x", digest[i]);
	return strcasecmp(text, hex) == 0 ? 0 : -EBADMSG;
}

static int check_header(const struct img_rpm_hdr *signature, const uint8_t *data, size_t size, const char *path,
                        struct err *err)
{
	const char *sha256 = img_rpm_hdr_string(signature, RPM_SIGTAG_SHA256);
	const char *sha1 = img_rpm_hdr_string(signature, RPM_SIGTAG_SHA1);

	if (sha256 && check_digest(data, size, EVP_sha256(), sha256) < 0)
		return err_set(err, -EBADMSG, "%s: the header is not the one that its SHA-256 was made of", path);
	if (!sha256 && sha1 && check_digest(data, size, EVP_sha1(), sha1) < 0)
		return err_set(err, -EBADMSG, "%s: the header is not the one that its SHA-1 was made of", path);
	return 0;
}

/* Moves the bytes behind the magic to the front, where the package keeps them. */
static uint8_t *without_magic(uint8_t *data, size_t *size)
{
	*size -= RPM_MAGIC_SIZE;
	memmove(data, data + RPM_MAGIC_SIZE, *size);
	return data;
}

/* Reads the package file into p, which has a location. */
static int read_file(struct img_rpm *p, struct err *err)
{
	CLEANUP(freep) uint8_t *signature = NULL, *header = NULL;
	CLEANUP(close_fdp) int fd = -1;
	struct img_rpm_priv *priv = p->priv;
	size_t signature_size, header_size;
	uint8_t lead[RPM_LEAD_SIZE];
	struct img_rpm_hdr h;
	uint64_t offset;
	int r;

	fd = open(p->location, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", p->location, strerror(errno));
	r = read_at(fd, lead, sizeof(lead), 0, p->location, err);
	if (r < 0)
		return r;
	if (memcmp(lead, "\xed\xab\xee\xdb", 4) != 0)
		return err_set(err, -EBADMSG, "%s: not an RPM package", p->location);
	if (lead[6] != 0 || lead[7] != 0)
		return err_set(err, -EINVAL, "%s: a source package", p->location);
	r = read_header(fd, RPM_LEAD_SIZE, p->location, "signature header", &signature, &signature_size, err);
	if (r < 0)
		return r;
	r = img_rpm_hdr_init(&h, signature + RPM_MAGIC_SIZE, signature_size - RPM_MAGIC_SIZE, p->location, err);
	if (r < 0)
		return r;
	offset = RPM_LEAD_SIZE + ((signature_size + 7) & ~(size_t)7);
	r = read_header(fd, offset, p->location, "header", &header, &header_size, err);
	if (r == 0)
		r = check_header(&h, header, header_size, p->location, err);
	if (r < 0)
		return r;

	p->payload_offset = offset + header_size;
	free(priv->header);
	free(priv->signature);
	p->header = priv->header = without_magic(header, &header_size);
	p->signature = priv->signature = without_magic(signature, &signature_size);
	p->header_size = header_size;
	p->signature_size = signature_size;
	header = signature = NULL;
	img_rpm_unfill(p);
	r = img_rpm_fill(p, err);
	return r < 0 ? err_prefix(err, r, "%s: ", p->location) : 0;
}

int img_rpm_open(const char *path, struct img_rpm **ret_package, struct err *err)
{
	struct img_rpm *p = img_rpm_new();
	struct img_rpm_priv *priv;
	int r;

	if (!p)
		return -ENOMEM;
	priv = p->priv;
	p->location = priv->location = strdup(path);
	r = p->location ? read_file(p, err) : -ENOMEM;
	if (r < 0) {
		img_rpm_free(p);
		return r;
	}
	*ret_package = p;
	return 0;
}

int img_rpm_load(struct img_rpm *p, struct err *err)
{
	return p->is_loaded ? 0 : read_file(p, err);
}

/* ---- Compressed bytes --------------------------------------------------------------------------------------- */

/* libarchive's functions, each by its name without "archive_". Loaded for the first file (base/library.h). */
#define ARCHIVE_FUNCTIONS(X)         \
	X(error_string)              \
	X(read_data_block)           \
	X(read_free)                 \
	X(read_new)                  \
	X(read_next_header)          \
	X(read_open_fd)              \
	X(read_support_filter_bzip2) \
	X(read_support_filter_gzip)  \
	X(read_support_filter_lzma)  \
	X(read_support_filter_xz)    \
	X(read_support_filter_zstd)  \
	X(read_support_format_raw)
static struct {
#define X(f) __typeof__(&archive_##f) f;
	ARCHIVE_FUNCTIONS(X)
#undef X
	struct err failure; /* why there are none */
} libarchive;

static void libarchive_load(void)
{
#define X(f) { "archive_" #f, &libarchive.f },
	static const struct base_symbol symbols[] = { ARCHIVE_FUNCTIONS(X) };
#undef X

	(void)base_library_load("libarchive.so.13", symbols, sizeof(symbols) / sizeof(symbols[0]), &libarchive.failure);
}

static void archive_freep(struct archive **a)
{
	if (*a)
		(void)libarchive.read_free(*a);
}

int img_rpm_decompress(const char *path, uint64_t offset, img_rpm_bytes sink, void *arg, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	CLEANUP(archive_freep) struct archive *a = NULL;
	CLEANUP(close_fdp) int fd = -1;
	struct archive_entry *entry;
	const void *block;
	size_t size;
	la_int64_t at;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (lseek(fd, (off_t)offset, SEEK_SET) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	(void)pthread_once(&once, libarchive_load);
	if (libarchive.failure.code)
		return err_set(err, libarchive.failure.code, "%s: %s", path, libarchive.failure.msg);
	a = libarchive.read_new();
	if (!a)
		return -ENOMEM;
	(void)libarchive.read_support_filter_gzip(a);
	(void)libarchive.read_support_filter_bzip2(a);
	(void)libarchive.read_support_filter_xz(a);
	(void)libarchive.read_support_filter_lzma(a);
	(void)libarchive.read_support_filter_zstd(a);
	(void)libarchive.read_support_format_raw(a);
	if (libarchive.read_open_fd(a, fd, 1 << 17) != ARCHIVE_OK ||
	    libarchive.read_next_header(a, &entry) != ARCHIVE_OK)
		return err_set(err, -EBADMSG, "%s: %s", path,
		               libarchive.error_string(a) ? libarchive.error_string(a) : "nothing in it");
	while ((r = libarchive.read_data_block(a, &block, &size, &at)) == ARCHIVE_OK) {
		r = sink(block, size, arg, err);
		if (r != 0)
			return r < 0 ? r : 0; /* positive: has seen enough */
	}
	if (r != ARCHIVE_EOF)
		return err_set(err, -EBADMSG, "%s: %s", path,
		               libarchive.error_string(a) ? libarchive.error_string(a) : "cannot be decompressed");
	return 0;
}
