/* A stored layer as the tar it holds: read, hashed, decompressed, hashed again. What it is compressed with is told by
 * its first bytes, not by what the manifest calls it. gzip may come in several members and zstd in several frames
 * (lazily loaded images are made so). A layer that grows beyond reason is refused while it grows. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "oci_internal.h"

enum { IN_SIZE = 1 << 17 };
static const uint64_t ratio_matters_from = 1u << 30;

enum codec { CODEC_PLAIN, CODEC_GZIP, CODEC_ZSTD };

struct img_decoder {
	const struct img_blob *blob;
	struct img_meter *meter;
	uint32_t max_ratio;
	int fd;
	uint64_t n_in, n_out; /* bytes of the blob read; bytes that came out */
	enum codec codec;
	unsigned char in[IN_SIZE];
	size_t in_pos, in_len;
	z_stream z;
	bool has_z, between; /* between: at the end of a member or frame */
	ZSTD_DStream *zs;
	struct base_sha256 *packed, *unpacked;
};

/* ---- Progress ---- */

void img_meter_init(struct img_meter *m, const char *what, uint64_t total, img_progress_fn fn, void *arg)
{
	*m = (struct img_meter){ .fn = fn, .arg = arg, .now = { .what = what, .total = total } };
	(void)pthread_mutex_init(&m->lock, NULL);
}

void img_meter_done(struct img_meter *m)
{
	if (m->fn && !m->is_canceled)
		(void)m->fn(&m->now, m->arg);
	(void)pthread_mutex_destroy(&m->lock);
}

int img_meter_add(struct img_meter *m, uint64_t n)
{
	int64_t ms;
	int r;

	if (!m || !m->fn)
		return 0;
	ms = base_now_ms();
	(void)pthread_mutex_lock(&m->lock);
	m->now.done += n;
	if (ms - m->last_ms >= 100 && !m->is_canceled) {
		m->last_ms = ms;
		m->is_canceled = m->fn(&m->now, m->arg) != 0;
	}
	r = m->is_canceled ? -ECANCELED : 0;
	(void)pthread_mutex_unlock(&m->lock);
	return r;
}

/* ---- Bytes of the blob ---- */

/* More input: 0 at the end of the blob. */
static ssize_t fill(struct img_decoder *d, struct err *err)
{
	uint64_t left = d->blob->size - d->n_in;
	size_t want = left < IN_SIZE ? (size_t)left : IN_SIZE;
	ssize_t n = 0;

	if (want == 0)
		return 0;
	if (d->blob->path) {
		do
			n = pread(d->fd, d->in, want, (off_t)(d->blob->offset + d->n_in));
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return err_set(err, -errno, "%s: %s", d->blob->path, strerror(errno));
		if (n == 0)
			return err_set(err, -EBADMSG, "%s: ends before its %llu bytes", d->blob->path,
			               (unsigned long long)d->blob->size);
	} else {
		n = (ssize_t)want;
		memcpy(d->in, (const char *)d->blob->data + d->blob->offset + d->n_in, want);
	}
	base_sha256_update(d->packed, d->in, (size_t)n);
	d->n_in += (uint64_t)n;
	d->in_pos = 0;
	d->in_len = (size_t)n;
	if (img_meter_add(d->meter, (uint64_t)n) < 0)
		return err_set(err, -ECANCELED, "canceled");
	return n;
}

static int choose_codec(struct img_decoder *d, struct err *err)
{
	static const unsigned char xz[] = { 0xfd, '7', 'z', 'X', 'Z' };
	const unsigned char *p = d->in;
	size_t n = d->in_len;

	if (n >= 3 && p[0] == 0x1f && p[1] == 0x8b && p[2] == 8) {
		d->codec = CODEC_GZIP;
		if (inflateInit2(&d->z, 15 + 16) != Z_OK)
			return err_set(err, -ENOMEM, "out of memory");
		d->has_z = true;
	} else if (n >= 4 && ((p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd) ||
	                      ((p[0] & 0xf0) == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18))) {
		d->codec = CODEC_ZSTD; /* a frame, or a frame to be skipped */
		d->zs = ZSTD_createDStream();
		if (!d->zs)
			return err_set(err, -ENOMEM, "out of memory");
	} else if (n >= sizeof(xz) && memcmp(p, xz, sizeof(xz)) == 0) {
		return err_set(err, -ENOTSUP, "compressed by xz, which image layers are not");
	} else if (n >= 10 && memcmp(p, "BZh", 3) == 0 && memcmp(p + 4, "1AY&SY", 6) == 0) {
		return err_set(err, -ENOTSUP, "compressed by bzip2, which image layers are not");
	}
	return 0;
}

int img_decoder_open(const struct img_blob *b, uint32_t max_ratio, struct img_meter *meter, struct img_decoder **ret,
                     struct err *err)
{
	struct img_decoder *d = calloc(1, sizeof(*d));
	int r = 0;

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	d->fd = -1;
	d->blob = b;
	d->meter = meter;
	d->max_ratio = max_ratio;
	d->between = true;
	if (base_sha256_new(&d->packed) < 0 || base_sha256_new(&d->unpacked) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && b->path) {
		d->fd = open(b->path, O_RDONLY | O_CLOEXEC);
		if (d->fd < 0)
			r = err_set(err, -errno, "%s: %s", b->path, strerror(errno));
	}
	if (r == 0)
		r = (int)fill(d, err);
	if (r >= 0)
		r = choose_codec(d, err);
	if (r < 0) {
		img_decoder_close(d);
		return r;
	}
	*ret = d;
	return 0;
}

void img_decoder_close(struct img_decoder *d)
{
	if (!d)
		return;
	if (d->has_z)
		(void)inflateEnd(&d->z);
	(void)ZSTD_freeDStream(d->zs);
	base_sha256_free(d->packed);
	base_sha256_free(d->unpacked);
	close_fdp(&d->fd);
	free(d);
}

/* ---- Decompression ---- */

/* One step of each codec: moves in_pos, returns the bytes that came out; sets between. */
static ssize_t step_gzip(struct img_decoder *d, void *buf, size_t size, struct err *err)
{
	int r;

	if (d->between && d->in[d->in_pos] == 0) { /* padding behind the last member, as tapes have it */
		d->in_pos++;
		return 0;
	}
	d->z.next_in = d->in + d->in_pos;
	d->z.avail_in = (uInt)(d->in_len - d->in_pos);
	d->z.next_out = buf;
	d->z.avail_out = size < (1u << 30) ? (uInt)size : 1u << 30;
	size = d->z.avail_out;
	r = inflate(&d->z, Z_NO_FLUSH);
	d->in_pos = d->in_len - d->z.avail_in;
	d->between = false;
	if (r == Z_STREAM_END) {
		d->between = true;
		r = inflateReset(&d->z);
	}
	if (r != Z_OK && r != Z_BUF_ERROR)
		return err_set(err, r == Z_MEM_ERROR ? -ENOMEM : -EBADMSG, "gzip: %s",
		               d->z.msg ? d->z.msg : "broken data");
	return (ssize_t)(size - d->z.avail_out);
}

static ssize_t step_zstd(struct img_decoder *d, void *buf, size_t size, struct err *err)
{
	ZSTD_inBuffer in = { d->in, d->in_len, d->in_pos };
	ZSTD_outBuffer out = { buf, size, 0 };
	size_t r = ZSTD_decompressStream(d->zs, &out, &in);

	if (ZSTD_isError(r))
		return err_set(err, -EBADMSG, "zstd: %s", ZSTD_getErrorName(r));
	d->in_pos = in.pos;
	d->between = r == 0;
	return (ssize_t)out.pos;
}

static ssize_t step_plain(struct img_decoder *d, void *buf, size_t size)
{
	size_t n = d->in_len - d->in_pos;

	n = n < size ? n : size;
	memcpy(buf, d->in + d->in_pos, n);
	d->in_pos += n;
	return (ssize_t)n;
}

/* zstd may hold output back while it has taken all input: ask it again with none. */
static ssize_t flush_zstd(struct img_decoder *d, void *buf, size_t size, struct err *err)
{
	return d->codec == CODEC_ZSTD && !d->between ? step_zstd(d, buf, size, err) : 0;
}

static int check_size(const struct img_decoder *d, struct err *err)
{
	if (d->n_out > ratio_matters_from && d->max_ratio && d->n_out / d->max_ratio > d->n_in)
		return err_set(err, -EFBIG, "%llu bytes out of %llu: more than %u times as many",
		               (unsigned long long)d->n_out, (unsigned long long)d->n_in, d->max_ratio);
	return 0;
}

ssize_t img_decoder_read(struct img_decoder *d, void *buf, size_t size, struct err *err)
{
	ssize_t n = 0;

	while (n == 0 && size) {
		if (d->in_pos == d->in_len) {
			ssize_t got = flush_zstd(d, buf, size, err);

			if (got == 0)
				got = fill(d, err);
			else
				n = got;
			if (got < 0)
				return got;
			if (got == 0)
				break;
			if (n)
				break;
		}
		n = d->codec == CODEC_GZIP   ? step_gzip(d, buf, size, err)
		    : d->codec == CODEC_ZSTD ? step_zstd(d, buf, size, err)
		                             : step_plain(d, buf, size);
		if (n < 0)
			return n;
	}
	if (n == 0 && size && d->codec != CODEC_PLAIN && !d->between)
		return err_set(err, -EBADMSG, "the compressed data ends too early");
	base_sha256_update(d->unpacked, buf, (size_t)n);
	d->n_out += (uint64_t)n;
	return check_size(d, err) < 0 ? -EFBIG : n;
}

int img_decoder_finish(struct img_decoder *d, char ret_digest[IMG_DIGEST_SIZE], char ret_diff_id[IMG_DIGEST_SIZE],
                       uint64_t *ret_unpacked, struct err *err)
{
	CLEANUP(freep) char *buf = malloc(IN_SIZE);
	uint8_t digest[BASE_SHA256_SIZE];
	ssize_t n;

	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	while ((n = img_decoder_read(d, buf, IN_SIZE, err)) > 0)
		continue;
	if (n < 0)
		return (int)n;
	base_sha256_final(d->packed, digest);
	img_digest_set(ret_digest, digest);
	base_sha256_final(d->unpacked, digest);
	img_digest_set(ret_diff_id, digest);
	*ret_unpacked = d->n_out;
	return 0;
}
