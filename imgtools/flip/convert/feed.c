/* See feed.h. */
#include "feed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "stream/decode.h"

enum { BLOCK_SIZE = 512 << 10, N_BLOCKS = 6 };

struct block {
	size_t n;
	uint8_t data[BLOCK_SIZE];
};

struct flip_feed {
	const struct img_blob *blob;
	struct img_meter *meter;
	int fd;
	uint64_t n_in;
	struct flip_decoder *decoder;
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

/* ---- The thread ---- */

/* Stored bytes, hashed as they pass; a flip_source. */
static ssize_t read_stored(void *arg, void *buf, size_t size, struct err *err)
{
	struct flip_feed *f = arg;
	uint64_t left = f->blob->size - f->n_in;
	size_t want = left < size ? (size_t)left : size;
	ssize_t n = (ssize_t)want;

	if (want == 0)
		return 0;
	if (f->blob->path) {
		do
			n = pread(f->fd, buf, want, (off_t)(f->blob->offset + f->n_in));
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return err_set(err, n < 0 ? -errno : -EBADMSG, "%s: %s", f->blob->path,
			               n < 0 ? strerror(errno) : "shorter than it should be");
	} else {
		memcpy(buf, (const char *)f->blob->data + f->blob->offset + f->n_in, want);
	}
	base_sha256_update(f->sha, buf, (size_t)n);
	f->n_in += (uint64_t)n;
	if (img_meter_add(f->meter, (uint64_t)n) < 0)
		return err_set(err, -ECANCELED, "canceled");
	return n;
}

static int fill_block(struct flip_feed *f, struct block *b, struct err *err)
{
	b->n = 0;
	while (b->n < BLOCK_SIZE) {
		ssize_t n = flip_decoder_read(f->decoder, b->data + b->n, BLOCK_SIZE - b->n, err);

		if (n < 0)
			return (int)n;
		if (n == 0)
			break;
		b->n += (size_t)n;
	}
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

/* ---- Who takes ---- */

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
	f->blocks = malloc(N_BLOCKS * sizeof(*f->blocks));
	if (!f->blocks || base_sha256_new(&f->sha) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && blob->path) {
		f->fd = open(blob->path, O_RDONLY | O_CLOEXEC);
		if (f->fd < 0)
			r = err_set(err, -errno, "%s: %s", blob->path, strerror(errno));
	}
	if (r == 0)
		r = flip_decoder_new(read_stored, f, &f->decoder, err);
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
	return flip_decoder_is_plain(f->decoder);
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
	flip_decoder_free(f->decoder);
	free(f->blocks);
	close_fdp(&f->fd);
	free(f);
}
