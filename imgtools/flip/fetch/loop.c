/* The one thread. A turn: what the callers want is taken in, what may start is started, libcurl moves what is under
 * way, what has ended goes on or is told. Between turns it sleeps until a socket, a note or a due time wakes it.
 *
 * What may start: the foreground always, as far as connections and memory go; prefetch only while the foreground does
 * not wait, or as far as it fills what the way to the host holds anyway (half of rate times round trip), so that far
 * hosts do not idle while somebody waits for a first byte; the background only when nothing else was under way for a
 * while, what is preheated when that is not either; and where connections are not shared (HTTP/1) its bytes stop while
 * the foreground's come. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fetch_internal.h"

enum { REST_US = 50000 }; /* so long nothing else was under way before the background starts */

void flip_fetch_wake(struct flip_fetch *f)
{
	(void)curl_multi_wakeup(f->multi);
}

void flip_fetch_due(struct flip_fetch *f, int64_t due)
{
	if (due < f->next_due)
		f->next_due = due;
}

/* ---- Notes ---- */

static void end_waiting(struct flip_fetch *f, struct fetch_batch *batch, int r, const struct err *err)
{
	/* The last one frees the batch. */
	for (size_t i = 0, n = batch->n, left = batch->n_left; i < n && left; i++) {
		struct fetch_range *range = &batch->ranges[i];

		if (range->is_done)
			continue;
		left--;
		if (range->job)
			continue;
		flip_queue_remove(f, range);
		flip_range_end(f, range, r, NULL, err);
	}
}

static void take_read(struct flip_fetch *f, struct fetch_batch *batch)
{
	struct err err = { 0 };

	if (flip_queue_add(f, batch) == 0)
		return;
	(void)err_set(&err, -EIO, "out of memory for %zu ranges", batch->n);
	for (size_t i = 0, n = batch->n; i < n; i++)
		flip_range_end(f, &batch->ranges[i], -EIO, NULL, &err);
}

static void take_raise(struct flip_fetch *f, struct fetch_batch *batch, enum flip_priority priority)
{
	for (size_t i = 0; i < batch->n; i++) {
		struct fetch_range *r = &batch->ranges[i];

		if (r->job)
			flip_job_raise(r->job, priority);
		else if (!r->is_done)
			flip_queue_raise(f, r, priority);
	}
}

static void take_notes(struct flip_fetch *f)
{
	struct fetch_notes notes = STAILQ_HEAD_INITIALIZER(notes);
	struct err err = { 0 };

	(void)pthread_mutex_lock(&f->lock);
	STAILQ_CONCAT(&notes, &f->notes);
	TAILQ_CONCAT(&f->waiting, &f->documents, in_documents);
	(void)pthread_mutex_unlock(&f->lock);
	(void)err_set(&err, -ECANCELED, "canceled");
	while (!STAILQ_EMPTY(&notes)) {
		struct fetch_note *n = STAILQ_FIRST(&notes);
		struct fetch_batch *batch = n->kind == NOTE_READ ? n->batch : flip_batch_find(f, n->number);

		STAILQ_REMOVE_HEAD(&notes, in_notes);
		if (n->kind == NOTE_READ)
			take_read(f, batch);
		else if (batch && n->kind == NOTE_RAISE)
			take_raise(f, batch, n->priority);
		else if (batch)
			end_waiting(f, batch, -ECANCELED, &err);
		free(n);
	}
}

static void take_tasks(struct flip_fetch *f)
{
	struct fetch_task *done;
	struct fetch_job *j, *next;

	(void)pthread_mutex_lock(&f->lock);
	done = f->tasks_done;
	f->tasks_done = NULL;
	(void)pthread_mutex_unlock(&f->lock);
	while (done) {
		struct fetch_task *t = done;
		struct fetch_door *d = t->door;
		struct err err = t->err;
		int r = t->r;

		done = t->next;
		flip_door_end_task(f, t);
		for (j = TAILQ_FIRST(&f->jobs); j; j = next) {
			next = TAILQ_NEXT(j, in_jobs);
			if (j->state == JOB_AT_DOOR && &j->repo->doors[j->door] == d)
				flip_job_task_ended(j, r, &err);
		}
	}
}

/* ---- Starting ---- */

/* Bytes below the foreground that may be on their way while the foreground waits. */
static uint64_t allowance(const struct fetch_origin *o)
{
	return o->capacity / 1000 * o->rtt_us / 1000 / 2;
}

static bool memory_allows(const struct flip_fetch *f, uint64_t size, enum flip_priority priority)
{
	uint64_t limit = f->o.max_queued;

	if (priority != FLIP_FOREGROUND)
		limit -= limit / 4; /* the foreground finds some */
	return f->held == 0 || (size <= limit && f->held <= limit - size);
}

/* The bucket holds a quarter of a second; a request may leave it in debt. */
static bool rate_allows(struct flip_fetch *f)
{
	double most = (double)f->o.max_rate / 4;

	if (!f->o.max_rate)
		return true;
	f->tokens += (double)(f->now - f->tokens_at) * (double)f->o.max_rate / 1e6;
	f->tokens = f->tokens < most ? f->tokens : most;
	f->tokens_at = f->now;
	if (f->tokens > 0)
		return true;
	flip_fetch_due(f, f->now + (int64_t)((1 - f->tokens) * 1e6 / (double)f->o.max_rate) + 1000);
	return false;
}

/* How much travels at once: all streams shall have something to do. */
static uint64_t request_size(const struct flip_fetch *f, const struct fetch_range *seed, const struct fetch_origin *o,
                             bool ignores_ranges)
{
	const struct flip_blob *b = seed->batch->blob;
	unsigned free_streams = o->limit > o->n_active ? o->limit - o->n_active : 1;
	uint64_t max = b->waiting_bytes / free_streams, most = FETCH_MAX_REQUEST;

	if (seed->priority == FLIP_FOREGROUND)
		most = seed->size + (uint64_t)FETCH_MAX_TAKEN < most ? seed->size + FETCH_MAX_TAKEN : most;
	else if (f->o.max_rate && f->o.max_rate / 4 < most)
		most = f->o.max_rate / 4;
	if (max < FETCH_MIN_REQUEST)
		max = FETCH_MIN_REQUEST;
	if (max > most || ignores_ranges) /* it all comes anyway */
		max = most;
	if (f->held < f->o.max_queued && max > f->o.max_queued - f->held)
		max = f->o.max_queued - f->held;
	return max;
}

static void start_ranges(struct flip_fetch *f, struct fetch_range *seed, unsigned door, bool is_limited)
{
	struct flip_blob *b = seed->batch->blob;
	struct fetch_door *d = &b->repo->doors[door];
	uint64_t gap = b->ignores_ranges[door] ? FETCH_MAX_REQUEST : flip_door_gap(f, d);
	uint64_t max = request_size(f, seed, d->origin, b->ignores_ranges[door]);
	struct fetch_job *j = flip_job_new(f, b->repo, door);
	struct err err = { 0 };

	if (is_limited && max > allowance(d->origin) - d->origin->low_bytes)
		max = allowance(d->origin) - d->origin->low_bytes;
	if (j && flip_job_take(j, seed, gap, max) == 0) {
		if (j->priority != FLIP_FOREGROUND)
			f->tokens -= (double)(j->end - j->start);
		flip_job_go(j);
		return;
	}
	(void)err_set(&err, -EIO, "out of memory for a range of %u bytes", seed->size);
	if (!j || !j->n_ranges) {
		flip_queue_remove(f, seed);
		flip_range_end(f, seed, -EIO, NULL, &err);
	}
	if (j)
		flip_job_fail(j, -EIO, &err);
}

/* The oldest range of a priority that may start now; a range whose host is busy does not hold up the others. */
static struct fetch_range *find_ready(struct flip_fetch *f, enum flip_priority priority, bool is_limited,
                                      unsigned *ret_door)
{
	struct fetch_range *best = NULL;
	struct flip_blob *b;

	TAILQ_FOREACH(b, &f->queued, in_queued)
	{
		struct fetch_range *r = TAILQ_FIRST(&b->fifo[priority]);
		const struct fetch_origin *o;
		int door;

		if (!r || (best && best->seq < r->seq))
			continue;
		door = flip_door_choose(f, b->repo, b, 0);
		o = b->repo->doors[door].origin;
		if (!memory_allows(f, r->size, priority) ||
		    !flip_door_is_ready(f, b->repo, b, (unsigned)door, priority))
			continue;
		if (is_limited && o->low_bytes + r->size > allowance(o))
			continue;
		best = r;
		*ret_door = (unsigned)door;
	}
	return best;
}

static void start_documents(struct flip_fetch *f)
{
	struct fetch_document *d = TAILQ_FIRST(&f->waiting);

	while (d) {
		struct fetch_document *next = TAILQ_NEXT(d, in_documents);
		unsigned door = (unsigned)flip_door_choose(f, d->repo, NULL, 0);

		if (flip_door_is_ready(f, d->repo, NULL, door, FLIP_FOREGROUND)) {
			struct fetch_job *j = flip_job_new(f, d->repo, door);

			if (!j)
				return;
			TAILQ_REMOVE(&f->waiting, d, in_documents);
			j->doc = d;
			flip_job_go(j);
		}
		d = next;
	}
}

/* Whether somebody's wait is under way: who rests before another attempt takes nobody's place. */
static unsigned count_running(const struct flip_fetch *f, enum flip_priority priority)
{
	const struct fetch_job *j;
	unsigned n = 0;

	if (!f->counts.n_active[priority])
		return 0;
	TAILQ_FOREACH(j, &f->jobs, in_jobs)
	n += j->priority == priority && j->state != JOB_RESTS;
	return n;
}

static void start_all(struct flip_fetch *f, enum flip_priority priority, bool is_limited)
{
	struct fetch_range *r;
	unsigned door = 0;

	while ((priority == FLIP_FOREGROUND || rate_allows(f)) && f->counts.n_queued[priority] &&
	       (r = find_ready(f, priority, is_limited, &door)))
		start_ranges(f, r, door, is_limited);
}

static void start_what_may(struct flip_fetch *f)
{
	bool foreground_waits;

	f->lacks_memory = false;
	start_documents(f);
	start_all(f, FLIP_FOREGROUND, false);
	if (f->lacks_memory)
		return; /* what becomes free is the foreground's */
	foreground_waits = count_running(f, FLIP_FOREGROUND) > 0;
	start_all(f, FLIP_PREFETCH, foreground_waits);
	/* Who reads one piece after the other has just ended when the next one comes. */
	if (foreground_waits || f->counts.n_queued[FLIP_PREFETCH] || count_running(f, FLIP_PREFETCH))
		f->busy_until = f->now + REST_US;
	if (f->busy_until > f->now) {
		if (f->counts.n_queued[FLIP_BACKGROUND] || f->counts.n_queued[FLIP_PREHEAT])
			flip_fetch_due(f, f->busy_until);
		return;
	}
	start_all(f, FLIP_BACKGROUND, false);
	if (!f->counts.n_queued[FLIP_BACKGROUND] && !count_running(f, FLIP_BACKGROUND))
		start_all(f, FLIP_PREHEAT, false);
}

/* libcurl's own limit is on the mean speed of the last seconds and sees a stall late. */
static void end_stalled(struct flip_fetch *f)
{
	int64_t patience = (int64_t)f->o.stall_s * 1000000;
	struct fetch_job *next;

	for (struct fetch_job *j = TAILQ_FIRST(&f->jobs); j; j = next) {
		next = TAILQ_NEXT(j, in_jobs);
		if (j->state != JOB_RUNS)
			continue;
		if (j->is_paused)
			j->moved_at = f->now;
		else if (f->now - j->moved_at > patience)
			flip_job_ended(j, CURLE_OPERATION_TIMEDOUT);
		else
			flip_fetch_due(f, j->moved_at + patience + 1000);
	}
}

/* With HTTP/2 the streams' weights say it. */
static void pause_background(struct flip_fetch *f)
{
	bool stop = count_running(f, FLIP_FOREGROUND) > 0;
	struct fetch_job *j;

	TAILQ_FOREACH(j, &f->jobs, in_jobs)
	{
		bool want = stop && j->priority >= FLIP_BACKGROUND && !j->repo->doors[j->door].origin->is_h2;

		if (j->state != JOB_RUNS || !j->status || j->is_paused == want)
			continue;
		j->is_paused = want;
		(void)curl_easy_pause(j->easy, want ? CURLPAUSE_RECV : CURLPAUSE_CONT);
	}
}

/* ---- Turns ---- */

static void resume_rested(struct flip_fetch *f)
{
	struct fetch_job *j = TAILQ_FIRST(&f->jobs);

	while (j) {
		struct fetch_job *next = TAILQ_NEXT(j, in_jobs);

		if (j->state == JOB_RESTS && j->due <= f->now)
			flip_job_go(j);
		else if (j->state == JOB_RESTS)
			flip_fetch_due(f, j->due);
		j = next;
	}
}

static bool take_ended(struct flip_fetch *f)
{
	bool any = false;
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(f->multi, &left))) {
		struct fetch_job *j = NULL;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&j);
		flip_job_ended(j, code);
		any = true;
	}
	return any;
}

/* Bytes per second of what came lately, over all hosts. */
static void measure_rate(struct flip_fetch *f)
{
	enum { WINDOW_US = 500000 };
	int64_t time = f->now - f->rate_start;

	if (time < WINDOW_US)
		return;
	if (f->rate_bytes) {
		uint64_t now = f->rate_bytes * 1000000 / (uint64_t)time;

		f->counts.rate = f->counts.rate && time < 4 * WINDOW_US ? (f->counts.rate * 3 + now) / 4 : now;
	}
	f->rate_start = f->now;
	f->rate_bytes = 0;
}

static void turn(struct flip_fetch *f)
{
	int n_running = 0;
	bool any;

	f->next_due = INT64_MAX;
	f->now = base_now_us();
	take_notes(f);
	take_tasks(f);
	end_stalled(f);
	resume_rested(f);
	start_what_may(f);
	pause_background(f);
	(void)curl_multi_perform(f->multi, &n_running);
	f->now = base_now_us();
	any = take_ended(f);
	measure_rate(f);
	if (!any) {
		int64_t wait_ms = f->next_due == INT64_MAX ? 60000 : (f->next_due - f->now + 999) / 1000;

		wait_ms = wait_ms < 0 ? 0 : wait_ms > 60000 ? 60000 : wait_ms;
		(void)curl_multi_poll(f->multi, NULL, 0, (int)wait_ms, NULL);
	}
}

static void end_document(struct flip_fetch *f, struct fetch_document *d, const struct err *err)
{
	(void)pthread_mutex_lock(&f->lock);
	d->r = -ECANCELED;
	if (d->err)
		*d->err = *err;
	d->is_done = true;
	(void)pthread_cond_broadcast(&f->document_done);
	(void)pthread_mutex_unlock(&f->lock);
}

/* Everything ends, whatever state it is in; callbacks may still ask for more, which then ends too. */
static void end_all(struct flip_fetch *f)
{
	struct err err = { 0 };
	struct fetch_document *d;
	struct fetch_job *j;
	struct flip_blob *b;

	(void)err_set(&err, -ECANCELED, "canceled: the fetcher ends");
	(void)pthread_mutex_lock(&f->lock);
	f->is_over = true; /* nothing is accepted from here on */
	(void)pthread_mutex_unlock(&f->lock);
	take_notes(f);
	while ((d = TAILQ_FIRST(&f->waiting))) {
		TAILQ_REMOVE(&f->waiting, d, in_documents);
		end_document(f, d, &err);
	}
	while ((j = TAILQ_FIRST(&f->jobs)))
		flip_job_fail(j, -ECANCELED, &err);
	while ((b = TAILQ_FIRST(&f->queued))) {
		struct fetch_range *r = b->sorted[b->n_sorted - 1];

		flip_queue_remove(f, r);
		flip_range_end(f, r, -ECANCELED, NULL, &err);
	}
	while (f->n_tasks) {
		take_tasks(f);
		if (f->n_tasks)
			(void)curl_multi_poll(f->multi, NULL, 0, 1000, NULL);
	}
	take_notes(f); /* raises and cancels of callbacks */
}

void *flip_fetch_loop(void *arg)
{
	struct flip_fetch *f = arg;
	sigset_t all;

	/* Signals are for the program's own threads; SIGPIPE, which libcurl leaves to us, is for nobody. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, NULL);
	while (!atomic_load(&f->is_stopping))
		turn(f);
	end_all(f);
	return NULL;
}
