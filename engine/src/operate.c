/* What an operator does with an open engine: pause it, go on, give it other weights. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine_internal.h"

void eng_pause(struct eng_engine *e, enum eng_pause how)
{
	static const enum eng_sched_pause hows[] = { [ENG_PAUSE_ABORT] = ENG_SCHED_ABORT,
		                                     [ENG_PAUSE_RETRACT] = ENG_SCHED_RETRACT,
		                                     [ENG_PAUSE_HOLD] = ENG_SCHED_HOLD };

	if (e->sched)
		eng_sched_pause(e->sched, hows[how]);
}

void eng_continue(struct eng_engine *e)
{
	if (e->sched)
		eng_sched_continue(e->sched);
}

/* ---- Weights ---- */

struct update {
	struct eng_engine *e;
	const char *path, *version;
};

/* The pages of these weights may be there from before. */
static void change_cache(struct eng_engine *e, const char *path)
{
	struct eng_pc *pc = NULL;
	struct err err = { 0 };
	int r = e->cache.dir ? eng_cache_open(e, path, &pc, &err) : 0;

	if (r < 0 && e->cache.on_note)
		e->cache.on_note(e->cache.note_arg, err_text(&err));
	if (r != 0)
		eng_sched_set_cache(e->sched, pc);
}

static int open_beside(struct eng_engine *e, const char *path, struct kn_backend *be, struct eng_model **ret,
                       struct err *err)
{
	struct eng_model *model = NULL;
	int r = eng_model_open(path, e->is_exact, be, &model, err);

	if (r == 0) {
		r = eng_adapters_load(e, model, err);
		if (r < 0)
			eng_model_close(model);
	}
	if (r == 0)
		*ret = model;
	return r == -ENOENT ? -EINVAL : r;
}

/* On the scheduler's thread, alone: the backend's threads are free to repack. */
static int change_over(void *arg, struct err *err)
{
	struct update *u = arg;
	struct eng_engine *e = u->e;
	struct eng_model *model = NULL, *answers = NULL;
	int r = open_beside(e, u->path, e->backend, &model, err);

	if (r == 0 && e->answers.backend)
		r = open_beside(e, u->path, e->answers.backend, &answers, err);
	/* What the second one would refuse, the first one refuses, too. */
	r = r < 0 ? r : eng_runner_set_model(e->runner, model, err);
	if (r == 0 && answers)
		r = eng_runner_set_model(e->answers.runner, answers, err);
	if (r < 0) {
		eng_model_close(answers);
		eng_model_close(model);
		return r;
	}
	eng_model_close(e->model);
	e->model = model;
	if (answers) {
		eng_model_close(e->answers.model);
		e->answers.model = answers;
	}
	change_cache(e, u->path);
	if (u->version) {
		(void)pthread_mutex_lock(&e->lock);
		(void)snprintf(e->weight_version, sizeof(e->weight_version), "%s", u->version);
		(void)pthread_mutex_unlock(&e->lock);
	}
	return 0;
}

int eng_update_weights(struct eng_engine *e, const char *path, const char *version, struct err *err)
{
	struct update u = { e, path, version };

	if (!e->sched || !eng_model_weights(e->model))
		return err_set(err, -ENOTSUP, "%s has no weights of its own to change", e->served_name);
	if (version && strlen(version) >= ENG_MAX_VERSION)
		return err_set(err, -EINVAL, "the version is longer than %d bytes", ENG_MAX_VERSION - 1);
	return eng_sched_run_alone(e->sched, change_over, &u, err);
}

void eng_weight_version(struct eng_engine *e, char *ret_version, size_t size)
{
	(void)pthread_mutex_lock(&e->lock);
	(void)snprintf(ret_version, size, "%s", e->weight_version);
	(void)pthread_mutex_unlock(&e->lock);
}
