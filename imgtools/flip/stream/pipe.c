/* A ring under a lock. Both sides move large blocks, so the lock is taken some thousand times per gigabyte. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "stream/pipe.h"

struct flip_pipe {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t max, begin, n; /* protected by lock, as the rest */
	bool is_ended, is_broken;
	int result;
	struct err err;
	uint8_t bytes[];
};

struct flip_pipe *flip_pipe_new(size_t max_bytes)
{
	struct flip_pipe *p = malloc(sizeof(*p) + max_bytes);

	if (!p)
		return NULL;
	*p = (struct flip_pipe){ .max = max_bytes };
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_cond_init(&p->changed, NULL);
	return p;
}

void flip_pipe_free(struct flip_pipe *p)
{
	if (!p)
		return;
	(void)pthread_cond_destroy(&p->changed);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

int flip_pipe_write(struct flip_pipe *p, const void *data, size_t size)
{
	const uint8_t *from = data;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	while (size) {
		size_t end, n;

		while (p->n == p->max && !p->is_broken)
			pthread_cond_wait(&p->changed, &p->lock);
		if (p->is_broken) {
			r = -EPIPE;
			break;
		}
		end = (p->begin + p->n) % p->max;
		n = smaller(size, smaller(p->max - p->n, p->max - end));
		/* Room that nobody else writes to: the copy needs no lock. */
		pthread_mutex_unlock(&p->lock);
		memcpy(p->bytes + end, from, n);
		pthread_mutex_lock(&p->lock);
		p->n += n;
		from += n;
		size -= n;
		pthread_cond_signal(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

ssize_t flip_pipe_read(struct flip_pipe *p, void *buf, size_t size, struct err *err)
{
	size_t n;

	pthread_mutex_lock(&p->lock);
	while (!p->n && !p->is_ended)
		pthread_cond_wait(&p->changed, &p->lock);
	if (!p->n) {
		int r = p->result;

		if (r < 0 && err)
			*err = p->err;
		pthread_mutex_unlock(&p->lock);
		return r;
	}
	n = smaller(size, smaller(p->n, p->max - p->begin));
	pthread_mutex_unlock(&p->lock);
	memcpy(buf, p->bytes + p->begin, n);
	pthread_mutex_lock(&p->lock);
	p->begin = (p->begin + n) % p->max;
	p->n -= n;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return (ssize_t)n;
}

void flip_pipe_end(struct flip_pipe *p, int r, const struct err *err)
{
	pthread_mutex_lock(&p->lock);
	p->is_ended = true;
	p->result = r;
	if (err)
		p->err = *err;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

void flip_pipe_break(struct flip_pipe *p)
{
	pthread_mutex_lock(&p->lock);
	p->is_broken = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}
