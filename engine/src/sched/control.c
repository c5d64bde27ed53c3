/* What an operator asks of the scheduler: pausing, going on, and work that nothing may run beside. */
#include <errno.h>
#include <stdlib.h>

#include "sched/disk.h"
#include "sched/sched_internal.h"

struct sched_task {
	int (*fn)(void *arg, struct err *err);
	void *arg;
	struct err *err;
	int result;
	bool is_done;
};

bool sched_is_controlled(const struct eng_sched *s)
{
	return s->wants_sweep || s->wants_retract || s->task;
}

static void retract_all(struct eng_sched *s)
{
	sched_say(s);
	sched_retire_done(s);
	sched_split_retract(s); /* they came later than those that run */
	while (s->n_running > 0) {
		sched_disk_forget(s->running[s->n_running - 1]);
		sched_set_back(s, s->n_running - 1); /* the first one comes to stand in front */
	}
	sched_count_pages(s);
}

static void finish_task(struct eng_sched *s, struct sched_task *t, int result)
{
	if (result == 0) {
		sched_split_tend(s); /* what is not read any more */
		eng_kv_pool_flush(s->pool);
		sched_tier_flush(s);
		sched_count_pages(s);
	}
	(void)pthread_mutex_lock(&s->lock);
	t->result = result;
	t->is_done = true;
	s->task = NULL;
	(void)pthread_cond_broadcast(&s->idle);
	(void)pthread_mutex_unlock(&s->lock);
}

static void run_task(struct eng_sched *s, struct sched_task *t, bool is_paused, bool is_stopping)
{
	bool is_coming;

	sched_split_settle(s);
	is_coming = sched_split_is_busy(s); /* runs, as far as anybody else can see */
	if (is_stopping)
		finish_task(s, t, err_set(t->err, -ESHUTDOWN, "the engine is shutting down"));
	else if (s->n_running == 0 && !is_coming) {
		/* What those that wait hold is of what there was before. */
		sched_tier_stop(s);
		finish_task(s, t, t->fn(t->arg, t->err));
	} else if (is_paused)
		finish_task(s, t,
		            err_set(t->err, -EBUSY,
		                    "%u requests are held by a pause; pause with abort or retract instead",
		                    s->n_running + is_coming));
}

void eng_sched_set_cache(struct eng_sched *s, struct eng_pc *cache)
{
	struct eng_pc *old = s->config.cache;
	struct eng_pc_stats st = { 0 };

	sched_disk_finish(s); /* what was computed so far, for when its weights come back */
	sched_tier_stop(s);
	if (old)
		eng_pc_get_stats(old, &st);
	if (cache)
		eng_pc_set_ready(cache, sched_cache_is_ready, s);
	(void)pthread_mutex_lock(&s->lock);
	s->config.cache = cache;
	s->disk_before.pages_read += st.pages_read;
	s->disk_before.pages_written += st.pages_written;
	s->disk_before.n_damaged += st.n_damaged;
	s->disk_before.n_write_errors += st.n_write_errors;
	/* Who was set back knows pages by the names of the other. */
	for (struct sreq *r = s->queue; r; r = r->next)
		r->n_keys = 0;
	(void)pthread_mutex_unlock(&s->lock);
	/* Nobody has keys of the other but pages, and they are of weights that are no more. */
	eng_kv_pool_flush(s->pool);
	sched_tier_flush(s);
	if (cache)
		(void)eng_kv_pool_set_keys(s->pool, eng_pc_identity(cache));
	s->disk_patience = 1;
	sched_disk_open(s);
	eng_pc_close(old); /* it calls sched_cache_is_ready() until then */
}

bool sched_control(struct eng_sched *s, bool *ret_may_admit)
{
	struct sched_task *task;
	bool retract, paused, stopping;

	(void)pthread_mutex_lock(&s->lock);
	task = s->task;
	retract = s->wants_retract;
	s->wants_retract = false;
	stopping = s->is_stopping;
	paused = s->is_paused && !stopping;
	(void)pthread_mutex_unlock(&s->lock);
	*ret_may_admit = task == NULL;
	if (task || retract || paused || stopping)
		sched_come_down(s);
	if (retract)
		retract_all(s);
	if (task)
		run_task(s, task, paused, stopping);
	return !paused;
}

/* Locked. */
static void pause_one(struct eng_sched *s, enum eng_sched_pause how, bool is_paused)
{
	s->is_paused = is_paused;
	for (struct sreq *r = how == ENG_SCHED_ABORT ? s->queue : NULL; r; r = r->next)
		atomic_store(&r->cancelled, true);
	for (uint32_t i = 0; how == ENG_SCHED_ABORT && i < s->n_running; i++)
		atomic_store(&s->running[i]->cancelled, true);
	s->wants_sweep = s->wants_sweep || how == ENG_SCHED_ABORT;
	s->wants_retract = s->wants_retract || how == ENG_SCHED_RETRACT;
	s->has_news = true;
	(void)pthread_cond_signal(&s->wake);
}

void eng_sched_pause(struct eng_sched *s, enum eng_sched_pause how)
{
	struct eng_sched *o = s->split.answers;

	(void)pthread_mutex_lock(&s->lock);
	if (o) {
		(void)pthread_mutex_lock(&o->lock);
		pause_one(o, how, !s->is_draining);
	}
	pause_one(s, how, !s->is_draining);
	if (o)
		(void)pthread_mutex_unlock(&o->lock);
	(void)pthread_mutex_unlock(&s->lock);
	if (o && how == ENG_SCHED_ABORT)
		sched_split_cancel(s, 0); /* nobody is handed over any more, but some were */
}

void eng_sched_continue(struct eng_sched *s)
{
	if (s->split.answers)
		eng_sched_continue(s->split.answers);
	(void)pthread_mutex_lock(&s->lock);
	s->is_paused = false;
	s->has_news = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

/* A task that is to run when nobody runs in front; it waits for the other side, too. */
struct outer_task {
	struct eng_sched *answers;
	int (*fn)(void *arg, struct err *err);
	void *arg;
};

static int run_on_answers(void *arg, struct err *err)
{
	const struct outer_task *t = arg;

	return eng_sched_run_alone(t->answers, t->fn, t->arg, err);
}

int eng_sched_run_alone(struct eng_sched *s, int (*fn)(void *arg, struct err *err), void *arg, struct err *err)
{
	struct outer_task outer = { s->split.answers, fn, arg };
	struct sched_task task = { .fn = outer.answers ? run_on_answers : fn,
		                   .arg = outer.answers ? &outer : arg,
		                   .err = err };
	int r = 0;

	(void)pthread_mutex_lock(&s->lock);
	if (s->is_stopping)
		r = err_set(err, -ESHUTDOWN, "the engine is shutting down");
	else if (s->task)
		r = err_set(err, -EBUSY, "another change is being made");
	if (r == 0) {
		s->task = &task;
		s->has_news = true;
		(void)pthread_cond_signal(&s->wake);
		while (!task.is_done)
			(void)pthread_cond_wait(&s->idle, &s->lock);
		r = task.result;
	}
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}
