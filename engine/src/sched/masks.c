/* See masks.h. A matcher that meets a limit keeps the error; whoever applies its mask finds it. */
#include "base/clock.h"
#include "sched/masks.h"

#include <errno.h>
#include <stdlib.h>

#include "grammar/grammar.h"

static void *run(void *arg)
{
	struct sched_masks *m = arg;

	(void)pthread_mutex_lock(&m->lock);
	while (!m->is_stopping) {
		uint32_t n = m->n, n_allowed;
		uint64_t begin;

		if (n == 0) {
			(void)pthread_cond_wait(&m->wake, &m->lock);
			continue;
		}
		(void)pthread_mutex_unlock(&m->lock);
		begin = (uint64_t)base_now_ns();
		for (uint32_t i = 0; i < n; i++)
			(void)eng_matcher_mask(m->list[i], &n_allowed);
		(void)pthread_mutex_lock(&m->lock);
		m->work_ns += (uint64_t)base_now_ns() - begin;
		m->n = 0;
		(void)pthread_cond_signal(&m->done);
	}
	(void)pthread_mutex_unlock(&m->lock);
	return NULL;
}

int sched_masks_init(struct sched_masks *m, uint32_t max)
{
	*m = (struct sched_masks){ .list = calloc(max, sizeof(struct eng_matcher *)) };
	(void)pthread_mutex_init(&m->lock, NULL);
	(void)pthread_cond_init(&m->wake, NULL);
	(void)pthread_cond_init(&m->done, NULL);
	return m->list ? 0 : -ENOMEM;
}

void sched_masks_done(struct sched_masks *m)
{
	(void)pthread_mutex_lock(&m->lock);
	m->is_stopping = true;
	(void)pthread_cond_signal(&m->wake);
	(void)pthread_mutex_unlock(&m->lock);
	if (m->has_thread)
		(void)pthread_join(m->thread, NULL);
	(void)pthread_cond_destroy(&m->wake);
	(void)pthread_cond_destroy(&m->done);
	(void)pthread_mutex_destroy(&m->lock);
	free(m->list);
}

void sched_masks_add(struct sched_masks *m, struct eng_matcher *matcher)
{
	if (!eng_matcher_has_mask(matcher))
		m->list[m->n_begun++] = matcher;
}

void sched_masks_begin(struct sched_masks *m)
{
	if (m->n_begun > 0 && !m->has_thread) {
		m->has_thread = pthread_create(&m->thread, NULL, run, m) == 0;
		if (m->has_thread)
			(void)pthread_setname_np(m->thread, "eng-masks");
	}
	/* Without a thread each mask is computed when it is wanted. */
	if (m->n_begun == 0 || !m->has_thread)
		return;
	(void)pthread_mutex_lock(&m->lock);
	m->n = m->n_begun;
	(void)pthread_cond_signal(&m->wake);
	(void)pthread_mutex_unlock(&m->lock);
}

void sched_masks_end(struct sched_masks *m)
{
	uint64_t begin;

	if (m->n_begun == 0)
		return;
	m->n_begun = 0;
	begin = (uint64_t)base_now_ns();
	(void)pthread_mutex_lock(&m->lock);
	while (m->n > 0)
		(void)pthread_cond_wait(&m->done, &m->lock);
	(void)pthread_mutex_unlock(&m->lock);
	m->wait_ns += (uint64_t)base_now_ns() - begin;
}
