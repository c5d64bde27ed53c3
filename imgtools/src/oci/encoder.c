/* A layer on its way out: a tar in, hashed, compressed, hashed again, into a file that has no name yet.
 *
 * zstd always works in its multi-threaded mode, also with one thread: its jobs are cut by size, so that the number of
 * threads does not change the bytes, whereas the single-threaded mode would. gzip has one thread; its header carries
 * neither a name nor a time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "oci_internal.h"

enum { OUT_SIZE = 1 << 18, ZSTD_LEVEL = 9, GZIP_LEVEL = 6 };

struct img_encoder {
	int fd; /* borrowed */
	enum img_compression compression;
	ZSTD_CStream *zs;
	z_stream z;
	bool has_z;
	struct base_sha256 *packed, *unpacked;
	uint64_t n_in, n_out;
	unsigned char out[OUT_SIZE];
};

int img_write_all(int fd, const void *data, size_t size, struct err *err)
{
	const char *p = data;

	while (size) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "writing: %s", strerror(errno));
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

/* ---- Files without a name --------------------------------------------------------------------------------------- */

int img_temp_open(const char *dir, struct img_temp *ret_temp, struct err *err)
{
	struct img_temp t = { .fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644) };

	if (t.fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		if (asprintf(&t.path, "%s/.slimtrace-XXXXXX", dir) < 0)
			return err_set(err, -ENOMEM, "out of memory");
		t.fd = mkostemp(t.path, O_CLOEXEC);
		if (t.fd >= 0)
			(void)fchmod(t.fd, 0644);
	}
	if (t.fd < 0) {
		int r = err_set(err, -errno, "%s: %s", dir, strerror(errno));

		free(t.path);
		return r;
	}
	*ret_temp = t;
	return 0;
}

void img_temp_drop(struct img_temp *t)
{
	if (t->path)
		(void)unlink(t->path);
	free(t->path);
	if (t->fd >= 0)
		(void)close(t->fd);
	*t = (struct img_temp){ .fd = -1 };
}

/* A file without a name cannot replace another in one step: it gets a name beside it first. */
static int link_and_rename(int fd, const char *path, bool keep_old)
{
	char from[64], *beside = NULL;
	int r;

	(void)snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, from, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (errno != EEXIST || keep_old)
		return errno == EEXIST ? 0 : -errno;
	if (asprintf(&beside, "%s.%d.new", path, (int)getpid()) < 0)
		return -ENOMEM;
	(void)unlink(beside);
	r = linkat(AT_FDCWD, from, AT_FDCWD, beside, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
	if (r == 0 && rename(beside, path) < 0) {
		r = -errno;
		(void)unlink(beside);
	}
	free(beside);
	return r;
}

int img_temp_publish(struct img_temp *t, const char *path, bool keep_old, struct err *err)
{
	int r = fsync(t->fd) < 0 ? -errno : 0;

	if (r == 0 && t->path)
		r = rename(t->path, path) < 0 ? -errno : 0;
	else if (r == 0)
		r = link_and_rename(t->fd, path, keep_old);
	if (r < 0)
		(void)err_set(err, r, "%s: %s", path, strerror(-r));
	else if (t->path)
		t->path[0] = '\0'; /* it has its name: nothing to remove */
	if (t->path && !t->path[0]) {
		free(t->path);
		t->path = NULL;
	}
	img_temp_drop(t);
	return r;
}

/* ---- Compression ---- */

static int set_up(struct img_encoder *e, int level, unsigned n_threads)
{
	if (base_sha256_new(&e->packed) < 0 || base_sha256_new(&e->unpacked) < 0)
		return -ENOMEM;
	if (e->compression == IMG_GZIP) {
		if (deflateInit2(&e->z, level ? level : GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
			return -EINVAL;
		e->has_z = true;
	}
	if (e->compression == IMG_ZSTD) {
		e->zs = ZSTD_createCStream();
		if (!e->zs)
			return -ENOMEM;
		if (ZSTD_isError(ZSTD_CCtx_setParameter(e->zs, ZSTD_c_compressionLevel, level ? level : ZSTD_LEVEL)) ||
		    ZSTD_isError(ZSTD_CCtx_setParameter(e->zs, ZSTD_c_checksumFlag, 1)))
			return -EINVAL;
		(void)ZSTD_CCtx_setParameter(e->zs, ZSTD_c_nbWorkers, n_threads ? (int)n_threads : 1);
	}
	return 0;
}

int img_encoder_new(int fd, enum img_compression c, int level, unsigned n_threads, struct img_encoder **ret,
                    struct err *err)
{
	struct img_encoder *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_set(err, -ENOMEM, "out of memory");
	e->fd = fd;
	e->compression = c;
	r = set_up(e, level, n_threads);
	if (r < 0) {
		img_encoder_free(e);
		return err_set(err, r, r == -EINVAL ? "compression level %d is not known" : "out of memory", level);
	}
	*ret = e;
	return 0;
}

void img_encoder_free(struct img_encoder *e)
{
	if (!e)
		return;
	if (e->has_z)
		(void)deflateEnd(&e->z);
	(void)ZSTD_freeCStream(e->zs);
	base_sha256_free(e->packed);
	base_sha256_free(e->unpacked);
	free(e);
}

static int put(struct img_encoder *e, const void *data, size_t size, struct err *err)
{
	base_sha256_update(e->packed, data, size);
	e->n_out += size;
	return img_write_all(e->fd, data, size, err);
}

static int deflate_some(struct img_encoder *e, const void *data, size_t size, int flush, struct err *err)
{
	int r = Z_OK, w;

	e->z.next_in = (Bytef *)data;
	e->z.avail_in = (uInt)size;
	do {
		e->z.next_out = e->out;
		e->z.avail_out = OUT_SIZE;
		r = deflate(&e->z, flush);
		if (r == Z_STREAM_ERROR)
			return err_set(err, -EIO, "gzip: cannot compress");
		w = put(e, e->out, OUT_SIZE - e->z.avail_out, err);
		if (w < 0)
			return w;
	} while (e->z.avail_in || (flush == Z_FINISH && r != Z_STREAM_END));
	return 0;
}

static int zstd_some(struct img_encoder *e, const void *data, size_t size, ZSTD_EndDirective how, struct err *err)
{
	ZSTD_inBuffer in = { data, size, 0 };
	size_t left;

	do {
		ZSTD_outBuffer out = { e->out, OUT_SIZE, 0 };
		int r;

		left = ZSTD_compressStream2(e->zs, &out, &in, how);
		if (ZSTD_isError(left))
			return err_set(err, -EIO, "zstd: %s", ZSTD_getErrorName(left));
		r = put(e, e->out, out.pos, err);
		if (r < 0)
			return r;
	} while (in.pos < in.size || (how == ZSTD_e_end && left));
	return 0;
}

int img_encoder_sink(const void *data, size_t size, void *encoder, struct err *err)
{
	struct img_encoder *e = encoder;
	const char *p = data;
	int r = 0;

	base_sha256_update(e->unpacked, data, size);
	e->n_in += size;
	if (e->compression == IMG_PLAIN)
		return put(e, data, size, err);
	while (size && r == 0) { /* zlib counts in unsigned int */
		size_t n = size < (1u << 30) ? size : 1u << 30;

		r = e->compression == IMG_GZIP ? deflate_some(e, p, n, Z_NO_FLUSH, err)
		                               : zstd_some(e, p, n, ZSTD_e_continue, err);
		p += n;
		size -= n;
	}
	return r;
}

int img_encoder_finish(struct img_encoder *e, struct img_layer *ret_layer, struct err *err)
{
	uint8_t digest[BASE_SHA256_SIZE];
	int r = e->compression == IMG_GZIP   ? deflate_some(e, NULL, 0, Z_FINISH, err)
	        : e->compression == IMG_ZSTD ? zstd_some(e, NULL, 0, ZSTD_e_end, err)
	                                     : 0;

	if (r < 0)
		return r;
	base_sha256_final(e->packed, digest);
	img_digest_set(ret_layer->digest, digest);
	base_sha256_final(e->unpacked, digest);
	img_digest_set(ret_layer->diff_id, digest);
	ret_layer->size = e->n_out;
	ret_layer->unpacked_size = e->n_in;
	return 0;
}
