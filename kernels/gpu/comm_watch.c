/* Who waits for whom, when nobody goes on. Ranks wait for each other on their devices, and what goes wrong there (one
 * that launches something else, or nothing) shows as nothing at all. So each rank's thread says what it does, and a
 * thread of its own looks now and then: when one has waited for long, it reads of every device how many sums it has
 * ended and which ones it has heard the others come to, and tells: the sum, its shape, its place in the program. When
 * all that are at work do nothing but wait for their devices, and those come no further, the group is broken: requests
 * end with an error instead of never. Threads that have not met yet are waited for: they may be reading weights. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu/comm_internal.h"

/* Looks within the time after which a wait is told of, and how many times that until the group is broken. */
enum { DEFAULT_MS = 10000, LOOKS = 4, PATIENCE = 6, ANSWER_MS = 1000 };

struct comm_watch {
	pthread_t thread;
	uint32_t ms;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool is_stopping; /* protected by lock */
	/* Of each device, to read what it knows while it computes; NULL: the host sees its memory. */
	void *streams[KN_MAX_RANKS], *events[KN_MAX_RANKS];
	char *heads[KN_MAX_RANKS]; /* pinned */
	bool is_lost[KN_MAX_RANKS];
};

/* What was seen of a rank. */
struct sight {
	enum gpu_comm_doing doing;
	uint64_t since_ns, n_programs;
	bool answers; /* the device does */
	struct gk_comm_seen seen;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- What ranks say ---- */

void gpu_comm_says(struct gpu_backend *be, enum gpu_comm_doing what)
{
	struct comm_rank *s = be->comm ? &be->comm->state[be->base.rank] : NULL;

	if (!s)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->doing = what;
	s->since_ns = now_ns();
	(void)pthread_mutex_unlock(&s->lock);
}

void gpu_comm_runs(struct gpu_backend *be, const struct gpu_program *p)
{
	struct gpu_comm *comm = be->comm;
	struct comm_rank *s;
	struct comm_run *run;
	uint32_t n_shown = p->n_messages < COMM_SHOWN ? p->n_messages : COMM_SHOWN;

	if (!comm || p->n_messages == 0)
		return;
	s = &comm->state[be->base.rank];
	(void)pthread_mutex_lock(&s->lock);
	s->doing = COMM_LAUNCHES;
	s->since_ns = now_ns();
	run = &s->runs[++s->n_programs % COMM_RUNS];
	run->number = s->n_programs;
	run->first_sum = s->n_sums + 1;
	run->n_messages = p->n_messages;
	run->is_graph = p->graph && !comm->by_step[be->base.rank];
	run->by_library = p->by_library;
	memcpy(run->messages, p->messages, n_shown * sizeof(run->messages[0]));
	s->n_sums += p->n_sums;
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- Looking ---- */

static bool copy_head(struct gpu_comm *comm, uint32_t i)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	struct comm_watch *w = comm->watch;
	struct gpu_rt *rt = &comm->ranks[i]->rt;
	size_t n = gk_comm_head_bytes();
	int r = 0;

	/* After one that did not come, its memory may still be written. */
	if (w->is_lost[i] || !w->heads[i])
		return false;
	if (gpu_rt_copy_rows(rt, w->streams[i], true, w->heads[i], n, comm->kernel[i].spaces[i], n, n, 1) < 0 ||
	    gpu_rt_event_record_on(rt, w->streams[i], w->events[i]) < 0)
		return false;
	for (int ms = 0; ms < ANSWER_MS && (r = gpu_rt_event_done(rt, w->events[i])) == 0; ms++)
		(void)nanosleep(&nap, NULL);
	w->is_lost[i] = r == 0;
	return r > 0;
}

static void look_at(struct gpu_comm *comm, uint32_t i, struct sight *ret)
{
	struct comm_rank *s = &comm->state[i];

	memset(ret, 0, sizeof(*ret));
	(void)pthread_mutex_lock(&s->lock);
	ret->doing = s->doing;
	ret->since_ns = s->since_ns;
	ret->n_programs = s->n_programs;
	(void)pthread_mutex_unlock(&s->lock);
	if (!comm->has_peers)
		return;
	ret->answers = !comm->ranks[i]->rt.stream || copy_head(comm, i);
	if (ret->answers)
		gk_comm_look(comm->ranks[i]->rt.stream ? comm->watch->heads[i] : comm->kernel[i].spaces[i], comm->n,
		             &ret->seen);
}

/* ---- Telling ---- */

static const char *const doings[] = { "does nothing", "is there before the others", "launches",
	                              "waits for its device" };

/* The sum that comes behind the last one that has ended. Locked. */
static void describe_sum(const struct comm_rank *s, uint32_t next, char *to, size_t size)
{
	const struct comm_run *run = NULL;
	const struct gpu_message *m;
	uint32_t at = 0, n;

	for (uint32_t i = 0; i < COMM_RUNS; i++) {
		const struct comm_run *r = &s->runs[i];

		if (r->number && (int32_t)(next - r->first_sum) >= 0 && (!run || r->number > run->number))
			run = r;
	}
	if ((int32_t)(next - s->n_sums) > 0 || !run) {
		(void)snprintf(to, size, "all that were launched");
		return;
	}
	n = run->n_messages < COMM_SHOWN ? run->n_messages : COMM_SHOWN;
	while (at + 1 < n && run->first_sum + run->messages[at + 1].sum <= next)
		at++;
	m = &run->messages[at];
	(void)snprintf(to, size, "next is message %u of %u, a %s of %u x %u %s, of program %llu (%s%s)", at + 1,
	               run->n_messages, m->kind == COMM_REDUCE ? "sum" : "gather", m->rows, m->dim,
	               m->elem == GK_F32 ? "float32" : "bfloat16", (unsigned long long)run->number,
	               run->is_graph ? "a graph" : "launched one by one",
	               run->by_library ? ", others by the library" : "");
}

static void tell(struct gpu_comm *comm, const struct sight *sights, uint64_t now)
{
	for (uint32_t i = 0; i < comm->n; i++) {
		const struct sight *g = &sights[i];
		char text[600], sum[200] = "", heard[200] = "";
		size_t n = 0;

		if (g->answers) {
			(void)pthread_mutex_lock(&comm->state[i].lock);
			describe_sum(&comm->state[i], g->seen.ended + 1, sum, sizeof(sum));
			(void)pthread_mutex_unlock(&comm->state[i].lock);
		}
		for (uint32_t r = 0; r < comm->n && g->answers && n < sizeof(heard); r++)
			n += (size_t)snprintf(heard + n, sizeof(heard) - n, " %u", g->seen.heard[r]);
		(void)snprintf(text, sizeof(text), "rank %u (device %d) %s for %.1f s, program %llu", i,
		               comm->ranks[i]->rt.device, doings[g->doing],
		               g->since_ns ? (double)(now - g->since_ns) * 1e-9 : 0, (unsigned long long)g->n_programs);
		n = strlen(text);
		if (g->answers)
			(void)snprintf(text + n, sizeof(text) - n, "; it has ended sum %u, %s; has heard of%s",
			               g->seen.ended, sum, heard);
		else if (comm->has_peers)
			(void)snprintf(text + n, sizeof(text) - n, "; the device does not answer");
		comm->note(comm->ranks[0]->ops.name, text);
	}
}

/* ---- The thread ---- */

/* False: it is time to stop. */
static bool sleep_for(struct comm_watch *w, uint32_t ms)
{
	struct timespec until;
	bool goes_on;
	int r = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_mutex_lock(&w->lock);
	while (!w->is_stopping && r == 0)
		r = pthread_cond_timedwait(&w->wake, &w->lock, &until);
	goes_on = !w->is_stopping;
	(void)pthread_mutex_unlock(&w->lock);
	return goes_on;
}

/* Since when the rank that has waited longest has. */
static uint64_t waits_since(struct gpu_comm *comm)
{
	uint64_t since = UINT64_MAX;

	for (uint32_t i = 0; i < comm->n; i++) {
		struct comm_rank *s = &comm->state[i];

		(void)pthread_mutex_lock(&s->lock);
		if (s->doing != COMM_IDLE && s->since_ns < since)
			since = s->since_ns;
		(void)pthread_mutex_unlock(&s->lock);
	}
	return since;
}

/* Nothing but waiting for devices, or for room to launch behind what they do, and they are where they were. */
static bool is_stuck(const struct gpu_comm *comm, const struct sight *before, const struct sight *now)
{
	bool waits = false;

	for (uint32_t i = 0; i < comm->n; i++) {
		if (now[i].doing == COMM_MEETS)
			return false;
		if (now[i].doing != before[i].doing || now[i].since_ns != before[i].since_ns ||
		    (now[i].answers && before[i].answers && now[i].seen.ended != before[i].seen.ended))
			return false;
		waits |= now[i].doing != COMM_IDLE;
	}
	return waits;
}

static void *look(void *arg)
{
	struct gpu_comm *comm = arg;
	struct comm_watch *w = comm->watch;
	struct sight before[KN_MAX_RANKS], now[KN_MAX_RANKS];
	uint64_t told = UINT64_MAX, stuck_since = 0;

	while (sleep_for(w, w->ms / LOOKS + 1)) {
		uint64_t since = waits_since(comm), at = now_ns();

		if (since == UINT64_MAX || at < since || (at - since) / 1000000 < w->ms || comm_is_broken(comm)) {
			told = UINT64_MAX;
			continue;
		}
		for (uint32_t i = 0; i < comm->n; i++)
			look_at(comm, i, &now[i]);
		if (told == UINT64_MAX || !is_stuck(comm, before, now))
			stuck_since = at;
		if (told != since && comm->note)
			tell(comm, now, at);
		told = since;
		memcpy(before, now, sizeof(now));
		if ((at - stuck_since) / 1000000 < (uint64_t)PATIENCE * w->ms)
			continue;
		if (comm->note)
			comm->note(comm->ranks[0]->ops.name,
			           "its devices wait for each other in vain: no further step is computed");
		gpu_comm_break(comm);
	}
	return NULL;
}

/* ---- Life ---- */

static void give_back(struct gpu_comm *comm, struct comm_watch *w)
{
	for (uint32_t i = 0; i < comm->n; i++) {
		struct gpu_rt *rt = &comm->ranks[i]->rt;

		gpu_rt_stream_free(rt, w->streams[i]);
		gpu_rt_event_free(rt, w->events[i]);
		if (w->heads[i])
			gpu_rt_host_free(rt, w->heads[i]);
	}
	(void)pthread_cond_destroy(&w->wake);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

static int make_ways(struct gpu_comm *comm, struct comm_watch *w)
{
	int r = 0;

	for (uint32_t i = 0; i < comm->n && r == 0 && comm->has_peers && comm->ranks[i]->rt.stream; i++) {
		struct gpu_rt *rt = &comm->ranks[i]->rt;

		w->heads[i] = gpu_rt_host_alloc(rt, gk_comm_head_bytes());
		r = w->heads[i] ? gpu_rt_stream_new(rt, &w->streams[i]) : -ENOMEM;
		r = r < 0 ? r : gpu_rt_event_new(rt, &w->events[i]);
	}
	return r;
}

void gpu_comm_watch_start(struct gpu_comm *comm, uint32_t ms)
{
	const char *text = getenv("OCAI_GPU_WATCH");
	struct comm_watch *w;
	pthread_condattr_t attr;

	/* What is no device only waits when a test has it do so. */
	if (ms == 0 && comm->ranks[0]->rt.stream)
		ms = text ? (uint32_t)(strtoul(text, NULL, 10) % 1000000 * 1000) : DEFAULT_MS;
	w = ms ? calloc(1, sizeof(*w)) : NULL;
	if (!w)
		return;
	w->ms = ms;
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	comm->watch = w;
	if (make_ways(comm, w) < 0 || pthread_create(&w->thread, NULL, look, comm) != 0) {
		comm->watch = NULL;
		give_back(comm, w);
		return;
	}
	(void)pthread_setname_np(w->thread, "gpu-watch");
}

void gpu_comm_watch_stop(struct gpu_comm *comm)
{
	struct comm_watch *w = comm->watch;

	if (!w)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->is_stopping = true;
	(void)pthread_cond_signal(&w->wake);
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->thread, NULL);
	comm->watch = NULL;
	give_back(comm, w);
}
