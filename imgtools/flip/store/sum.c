/* The digest of a large object while it arrives. Before it gets its name all of it is hashed; done at the end that
 * would be seconds for a model's file, after the last byte came, and a second reading of what may have left memory by
 * then. So whoever writes hashes on, over what is there without a gap from the beginning: often its own bytes, still in
 * memory.
 *
 * sum_lock guards the state alone, and nothing is taken while it is held; who holds o->lock may wait for it, as it is
 * held for a step at most. */
#include <errno.h>

#include "base/sha256.h"
#include "store/store_internal.h"

enum {
	SUM_FROM = 8 << 20, /* smaller ones are hashed at the end */
	SUM_STEP = 16 << 20,
	SUM_BUFFER = 256 << 10,
};

/* With sum_lock: over bytes that are there, up to `end`. */
static int hash_on(struct flip_object *o, int fd, uint64_t end)
{
	uint8_t *buf = malloc(SUM_BUFFER);
	int r = buf ? 0 : -ENOMEM;

	while (r == 0 && o->n_summed < end) {
		size_t n = end - o->n_summed < SUM_BUFFER ? (size_t)(end - o->n_summed) : SUM_BUFFER;

		r = flip_store_read_at(fd, buf, n, o->n_summed);
		if (r == 0) {
			base_sha256_update(o->sum, buf, n);
			o->n_summed += n;
		}
	}
	free(buf);
	return r;
}

/* Where the first gap behind what is hashed begins. */
static uint64_t first_gap(const struct flip_object *o)
{
	uint64_t first, n;

	if (!flip_map_missing(o->bits, o->n_blocks, o->n_summed / FLIP_STORE_BLOCK, &first, &n))
		return o->size;
	return first * FLIP_STORE_BLOCK;
}

void flip_sum_advance(struct flip_object *o, int fd, const void *data, size_t size, uint64_t offset)
{
	uint64_t end;

	if (o->size < SUM_FROM || pthread_mutex_trylock(&o->sum_lock) != 0)
		return; /* who hashes just now goes on with ours, if it follows */
	if (!o->sum && base_sha256_new(&o->sum) < 0)
		o->sum = NULL;
	if (o->sum && o->n_summed == offset) {
		base_sha256_update(o->sum, data, size);
		o->n_summed += size;
	}
	end = o->sum ? first_gap(o) : 0;
	if (end > o->n_summed)
		(void)hash_on(o, fd, end < o->n_summed + SUM_STEP ? end : o->n_summed + SUM_STEP); /* else at the end */
	pthread_mutex_unlock(&o->sum_lock);
}

void flip_sum_overwritten(struct flip_object *o, uint64_t offset, size_t size)
{
	uint64_t first = offset / FLIP_STORE_BLOCK, end = map_n_blocks(offset + size), missing, n;

	if (o->size < SUM_FROM ||
	    (flip_map_missing(o->bits, end, first, &missing, &n) && missing == first && n >= end - first))
		return;
	pthread_mutex_lock(&o->sum_lock);
	base_sha256_free(o->sum);
	o->sum = NULL;
	o->n_summed = 0;
	pthread_mutex_unlock(&o->sum_lock);
}

int flip_sum_finish(struct flip_object *o, int fd, uint8_t ret_digest[FLIP_DIGEST_SIZE])
{
	int r = 0;

	pthread_mutex_lock(&o->sum_lock);
	if (!o->sum)
		r = base_sha256_new(&o->sum);
	if (r == 0)
		r = hash_on(o, fd, o->size);
	if (r == 0) {
		base_sha256_final(o->sum, ret_digest);
		base_sha256_free(o->sum);
		o->sum = NULL;
		o->n_summed = 0;
	}
	pthread_mutex_unlock(&o->sum_lock);
	return r;
}

void flip_sum_free(struct flip_object *o)
{
	base_sha256_free(o->sum);
	(void)pthread_mutex_destroy(&o->sum_lock);
}
