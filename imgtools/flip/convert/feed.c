/* See feed.h. gzip is inflated by ISA-L, which is several times as fast as zlib; both formats may come in many members
 * or frames, as lazily loadable layers do. */
#include "feed.h"

#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/sha256.h"

enum { IN_SIZE = 256 << 10, BLOCK_SIZE = 512 << 10, N_BLOCKS = 6, MAX_RATIO = 40000 };
static const uint64_t ratio_matters_from = 1u << 30;

enum codec { CODEC_PLAIN, CODEC_GZIP, CODEC_ZSTD };

struct block {
	size_t n;
	uint8_t data[BLOCK_SIZE];
};

struct flip_feed {
	const struct img_blob *blob;
	struct img_meter *meter;
	int fd;
	enum codec codec;
	uint8_t *in;
	size_t in_pos, in_len;
	uint64_t n_in, n_out;
	bool is_between; /* of two members or frames */
	struct inflate_state *gzip;
	ZSTD_DStream *zstd;
	struct base_sha256 *sha;
	/* The ring. first and n_full: protected by lock, as the rest. */
	struct block *blocks;
	size_t pos; /* in the first block; the reader's own */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned first, n_full;
	bool at_end, is_stopped;
	int error;
	struct err err;
};

/* ---- The thread ---------------------------------------------------------------------------------------------------
 */

/* More input: 0 at the end of the blob. */
static ssize_t fill(struct flip_feed *f, struct err *err)
{
	uint64_t left = f->blob->size - f->n_in;
	size_t want = left < IN_SIZE ? (size_t)left : IN_SIZE;
	ssize_t n = (ssize_t)want;

	if (want == 0)
		return 0;
	if (f->blob->path) {
		do
			n = pread(f->fd, f->in, want, (off_t)(f->blob->offset + f->n_in));
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return err_set(err, n < 0 ? -errno : -EBADMSG, "%s: %s", f->blob->path,
			               n < 0 ? strerror(errno) : "shorter than it should be");
	} else {
		memcpy(f->in, (const char *)f->blob->data + f->blob->offset + f->n_in, want);
	}
	base_sha256_update(f->sha, f->in, (size_t)n);
	f->n_in += (uint64_t)n;
	f->in_pos = 0;
	f->in_len = (size_t)n;
	if (img_meter_add(f->meter, (uint64_t)n) < 0)
		return err_set(err, -ECANCELED, "canceled");
	return n;
}

static int choose_codec(struct flip_feed *f, struct err *err)
{
	const uint8_t *p = f->in;

	if (f->in_len >= 3 && memcmp(p, "\x1f\x8b\x08", 3) == 0) {
		f->codec = CODEC_GZIP;
		f->gzip = malloc(sizeof(*f->gzip));
		if (!f->gzip)
			return err_set(err, -ENOMEM, "out of memory");
		isal_inflate_init(f->gzip);
		f->gzip->crc_flag = ISAL_GZIP;
	} else if (f->in_len >= 4 && (memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0 ||
	                              ((p[0] & 0xf0) == 0x50 && memcmp(p + 1, "\x2a\x4d\x18", 3) == 0))) {
		f->codec = CODEC_ZSTD;
		f->zstd = ZSTD_createDStream();
		if (!f->zstd)
			return err_set(err, -ENOMEM, "out of memory");
	} else if (f->in_len >= 6 && (memcmp(p,
	                                     "\xfd"
	                                     "7zXZ",
	                                     6) == 0 ||
	                              memcmp(p, "BZh", 3) == 0)) {
		return err_set(err, -ENOTSUP, "compressed by xz or bzip2, which image layers are not");
	}
	f->is_between = true;
	return 0;
}

static ssize_t step_gzip(struct flip_feed *f, uint8_t *out, size_t size, struct err *err)
{
	struct inflate_state *g = f->gzip;
	int r;

	if (f->is_between) {
		if (f->in[f->in_pos] == 0) { /* padding behind the last member, as tapes have it */
			f->in_pos++;
			return 0;
		}
		isal_inflate_reset(g);
		g->crc_flag = ISAL_GZIP;
		f->is_between = false;
	}
	g->next_in = f->in + f->in_pos;
	g->avail_in = (uint32_t)(f->in_len - f->in_pos);
	g->next_out = out;
	g->avail_out = (uint32_t)size;
	r = isal_inflate(g);
	if (r != ISAL_DECOMP_OK)
		return err_set(err, -EBADMSG, "gzip: broken data (%d)", r);
	f->in_pos = f->in_len - g->avail_in;
	f->is_between = g->block_state == ISAL_BLOCK_FINISH;
	return (ssize_t)(size - g->avail_out);
}

static ssize_t step_zstd(struct flip_feed *f, uint8_t *out, size_t size, struct err *err)
{
	ZSTD_inBuffer in = { f->in, f->in_len, f->in_pos };
	ZSTD_outBuffer o = { out, size, 0 };
	size_t r = ZSTD_decompressStream(f->zstd, &o, &in);

	if (ZSTD_isError(r))
		return err_set(err, -EBADMSG, "zstd: %s", ZSTD_getErrorName(r));
	f->in_pos = in.pos;
	f->is_between = r == 0;
	return (ssize_t)o.pos;
}

static ssize_t step_plain(struct flip_feed *f, uint8_t *out, size_t size)
{
	size_t n = f->in_len - f->in_pos;

	n = n < size ? n : size;
	memcpy(out, f->in + f->in_pos, n);
	f->in_pos += n;
	return (ssize_t)n;
}

/* The next bytes of the tar; 0 at its end. */
static ssize_t produce(struct flip_feed *f, uint8_t *out, size_t size, struct err *err)
{
	for (;;) {
		bool had_input = f->in_pos < f->in_len;
		ssize_t n = 0;

		if (!had_input) {
			/* Decoders may hold output back while all input is taken. */
			if (f->codec != CODEC_PLAIN && !f->is_between)
				n = f->codec == CODEC_GZIP ? step_gzip(f, out, size, err)
				                           : step_zstd(f, out, size, err);
			if (n != 0)
				return n;
			n = fill(f, err);
			if (n < 0)
				return n;
			if (n == 0 && f->codec != CODEC_PLAIN && !f->is_between)
				return err_set(err, -EBADMSG, "the compressed data end too early");
			if (n == 0)
				return 0;
		}
		n = f->codec == CODEC_GZIP   ? step_gzip(f, out, size, err)
		    : f->codec == CODEC_ZSTD ? step_zstd(f, out, size, err)
		                             : step_plain(f, out, size);
		if (n != 0)
			return n;
	}
}

static int fill_block(struct flip_feed *f, struct block *b, struct err *err)
{
	b->n = 0;
	while (b->n < BLOCK_SIZE) {
		ssize_t n = produce(f, b->data + b->n, BLOCK_SIZE - b->n, err);

		if (n < 0)
			return (int)n;
		if (n == 0)
			break;
		b->n += (size_t)n;
	}
	f->n_out += b->n;
	if (f->n_out > ratio_matters_from && f->n_out / MAX_RATIO > f->n_in)
		return err_set(err, -EFBIG, "%llu bytes out of %llu: no layer is packed so well",
		               (unsigned long long)f->n_out, (unsigned long long)f->n_in);
	return 0;
}

static void *feed_main(void *arg)
{
	struct flip_feed *f = arg;

	(void)pthread_mutex_lock(&f->lock);
	while (!f->is_stopped && !f->at_end && !f->error) {
		struct block *b = &f->blocks[(f->first + f->n_full) % N_BLOCKS];
		struct err err = { 0 };
		int r;

		if (f->n_full == N_BLOCKS) {
			(void)pthread_cond_wait(&f->changed, &f->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&f->lock);
		r = fill_block(f, b, &err);
		(void)pthread_mutex_lock(&f->lock);
		f->at_end = r == 0 && b->n < BLOCK_SIZE;
		f->n_full += r == 0 && b->n;
		if (r < 0) {
			f->error = r;
			f->err = err;
		}
		(void)pthread_cond_signal(&f->changed);
	}
	(void)pthread_mutex_unlock(&f->lock);
	return NULL;
}

/* ---- Who takes ------------------------------------------------------------------------------------------------------
 */

int flip_feed_open(const struct img_blob *blob, struct img_meter *meter, struct flip_feed **ret_feed, struct err *err)
{
	struct flip_feed *f = calloc(1, sizeof(*f));
	int r = 0;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->fd = -1;
	f->blob = blob;
	f->meter = meter;
	(void)pthread_mutex_init(&f->lock, NULL);
	(void)pthread_cond_init(&f->changed, NULL);
	f->in = malloc(IN_SIZE);
	f->blocks = malloc(N_BLOCKS * sizeof(*f->blocks));
	if (!f->in || !f->blocks || base_sha256_new(&f->sha) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && blob->path) {
		f->fd = open(blob->path, O_RDONLY | O_CLOEXEC);
		if (f->fd < 0)
			r = err_set(err, -errno, "%s: %s", blob->path, strerror(errno));
	}
	if (r == 0)
		r = (int)fill(f, err);
	if (r >= 0)
		r = choose_codec(f, err);
	if (r == 0) {
		r = -pthread_create(&f->thread, NULL, feed_main, f);
		f->has_thread = r == 0;
		if (r < 0)
			(void)err_set(err, r, "no thread: %s", strerror(-r));
	}
	if (r < 0) {
		flip_feed_close(f);
		return r;
	}
	*ret_feed = f;
	return 0;
}

ssize_t flip_feed_read(void *buf, size_t size, void *arg, struct err *err)
{
	struct flip_feed *f = arg;
	struct block *b;
	size_t n;

	(void)pthread_mutex_lock(&f->lock);
	while (!f->n_full && !f->at_end && !f->error)
		(void)pthread_cond_wait(&f->changed, &f->lock);
	if (!f->n_full) {
		int r = f->error;

		if (r < 0 && err)
			*err = f->err;
		(void)pthread_mutex_unlock(&f->lock);
		return r;
	}
	b = &f->blocks[f->first];
	(void)pthread_mutex_unlock(&f->lock);
	n = b->n - f->pos < size ? b->n - f->pos : size;
	memcpy(buf, b->data + f->pos, n);
	f->pos += n;
	if (f->pos == b->n) {
		f->pos = 0;
		(void)pthread_mutex_lock(&f->lock);
		f->first = (f->first + 1) % N_BLOCKS;
		f->n_full--;
		(void)pthread_cond_signal(&f->changed);
		(void)pthread_mutex_unlock(&f->lock);
	}
	return (ssize_t)n;
}

bool flip_feed_is_plain(const struct flip_feed *f)
{
	return f->codec == CODEC_PLAIN;
}

static void stop(struct flip_feed *f)
{
	if (!f->has_thread)
		return;
	(void)pthread_mutex_lock(&f->lock);
	f->is_stopped = true;
	(void)pthread_cond_signal(&f->changed);
	(void)pthread_mutex_unlock(&f->lock);
	(void)pthread_join(f->thread, NULL);
	f->has_thread = false;
}

int flip_feed_finish(struct flip_feed *f, char ret_digest[IMG_DIGEST_SIZE], struct err *err)
{
	CLEANUP(freep) char *buf = malloc(BLOCK_SIZE);
	uint8_t digest[BASE_SHA256_SIZE];
	ssize_t n;

	if (!buf)
		return err_set(err, -ENOMEM, "out of memory");
	while ((n = flip_feed_read(buf, BLOCK_SIZE, f, err)) > 0)
		continue;
	if (n < 0)
		return (int)n;
	stop(f);
	base_sha256_final(f->sha, digest);
	img_digest_set(ret_digest, digest);
	return 0;
}

void flip_feed_close(struct flip_feed *f)
{
	if (!f)
		return;
	stop(f);
	(void)pthread_mutex_destroy(&f->lock);
	(void)pthread_cond_destroy(&f->changed);
	base_sha256_free(f->sha);
	(void)ZSTD_freeDStream(f->zstd);
	free(f->gzip);
	free(f->in);
	free(f->blocks);
	close_fdp(&f->fd);
	free(f);
}
