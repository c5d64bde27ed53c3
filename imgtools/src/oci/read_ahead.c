/* Decoding in a thread of its own. Reading, hashing and decompressing a layer take about as long as writing its files
 * does: side by side an image of one layer is opened in the time of one of them. The blocks go round in a ring; errors
 * come where they stand in the stream. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "oci_internal.h"

enum { N_BLOCKS = 8, BLOCK_SIZE = 1 << 18 };

struct img_ahead {
	struct img_decoder *decoder; /* the thread's until it has ended */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* Protected by lock: */
	size_t n_written, n_read; /* blocks; a block in between is the reader's, any other the thread's */
	bool has_ended, must_stop;
	/* Of each block; set before it is counted as written. */
	size_t len[N_BLOCKS];
	unsigned char *data;
	int r; /* how it ended; behind the last block */
	struct err err;
	/* Of the reader: */
	size_t at;
};

static unsigned char *block(const struct img_ahead *a, size_t i)
{
	return a->data + i % N_BLOCKS * BLOCK_SIZE;
}

/* Fills a block as far as the stream goes; false at its end. */
static bool fill_block(struct img_ahead *a, size_t i)
{
	size_t len = 0;
	ssize_t n = 1;

	while (n > 0 && len < BLOCK_SIZE) {
		n = img_decoder_read(a->decoder, block(a, i) + len, BLOCK_SIZE - len, &a->err);
		if (n > 0)
			len += (size_t)n;
	}
	a->len[i % N_BLOCKS] = len;
	if (n < 0)
		a->r = (int)n;
	return n > 0;
}

static void *decode_ahead(void *arg)
{
	struct img_ahead *a = arg;
	bool goes_on = true;

	while (goes_on) {
		(void)pthread_mutex_lock(&a->lock);
		while (a->n_written - a->n_read == N_BLOCKS && !a->must_stop)
			(void)pthread_cond_wait(&a->changed, &a->lock);
		goes_on = !a->must_stop;
		(void)pthread_mutex_unlock(&a->lock);
		if (!goes_on)
			break;
		goes_on = fill_block(a, a->n_written);
		(void)pthread_mutex_lock(&a->lock);
		a->n_written++;
		a->has_ended = !goes_on;
		(void)pthread_cond_signal(&a->changed);
		(void)pthread_mutex_unlock(&a->lock);
	}
	return NULL;
}

/* The block to read from; false when there is none left. */
static bool await_block(struct img_ahead *a)
{
	bool is_there;

	(void)pthread_mutex_lock(&a->lock);
	while (a->n_read == a->n_written && !a->has_ended)
		(void)pthread_cond_wait(&a->changed, &a->lock);
	is_there = a->n_read < a->n_written;
	(void)pthread_mutex_unlock(&a->lock);
	return is_there;
}

static void give_back(struct img_ahead *a)
{
	a->at = 0;
	(void)pthread_mutex_lock(&a->lock);
	a->n_read++;
	(void)pthread_cond_signal(&a->changed);
	(void)pthread_mutex_unlock(&a->lock);
}

ssize_t img_ahead_read(struct img_ahead *a, void *buf, size_t size, struct err *err)
{
	size_t n;

	while (await_block(a)) {
		n = a->len[a->n_read % N_BLOCKS] - a->at;
		if (n > 0 || size == 0) {
			n = n < size ? n : size;
			memcpy(buf, block(a, a->n_read) + a->at, n);
			a->at += n;
			return (ssize_t)n;
		}
		give_back(a);
	}
	if (a->r < 0 && err)
		*err = a->err;
	return a->r;
}

int img_ahead_start(struct img_decoder *d, struct img_ahead **ret, struct err *err)
{
	struct img_ahead *a = calloc(1, sizeof(*a));
	int r;

	if (a)
		a->data = malloc((size_t)N_BLOCKS * BLOCK_SIZE);
	if (!a || !a->data) {
		free(a);
		return err_set(err, -ENOMEM, "out of memory");
	}
	a->decoder = d;
	(void)pthread_mutex_init(&a->lock, NULL);
	(void)pthread_cond_init(&a->changed, NULL);
	r = pthread_create(&a->thread, NULL, decode_ahead, a);
	if (r != 0) {
		free(a->data);
		free(a);
		return err_set(err, -r, "a thread: %s", strerror(r));
	}
	*ret = a;
	return 0;
}

void img_ahead_stop(struct img_ahead *a)
{
	if (!a)
		return;
	(void)pthread_mutex_lock(&a->lock);
	a->must_stop = true;
	(void)pthread_cond_signal(&a->changed);
	(void)pthread_mutex_unlock(&a->lock);
	(void)pthread_join(a->thread, NULL);
	(void)pthread_cond_destroy(&a->changed);
	(void)pthread_mutex_destroy(&a->lock);
	free(a->data);
	free(a);
}
