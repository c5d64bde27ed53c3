/* The life of two schedulers in one, and the front's side of it. What the front does for a request beside computing its
 * prompt: a passage is opened once it runs, told how far its K and V are whenever a step has landed, and given the
 * request itself when its first token is known. From then on the front only keeps the pages until they were read; they
 * stay in its tree like those of any request that ended.
 *
 * The front takes no more requests than max_running, those that wait on the other side included, so that first tokens
 * are not computed long before second ones can be. Whoever is set back on the other side is computed again in front, so
 * that no prompt, and none that grew by its answer, is computed beside answers. */
#include "sched/split.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "sched/sched_internal.h"

/* ---- Life ---- */

static int new_link(struct eng_sched *s, uint32_t n)
{
	struct sched_link *link = calloc(1, sizeof(*link));

	if (!link)
		return -ENOMEM;
	(void)pthread_mutex_init(&link->lock, NULL);
	link->passages = calloc(n, sizeof(*link->passages));
	link->n = n;
	s->split.link = link;
	return link->passages ? 0 : -ENOMEM;
}

static int check_sides(const struct eng_exec *a, const struct eng_exec *b, struct err *err)
{
	if (a->kv.n_states || b->kv.n_states)
		return err_set(err, -ENOTSUP, "scheduler: recurrent states are not handed over");
	if (!b->page_fetch || !b->copy_poll || !b->copy_wait)
		return err_set(err, -ENOTSUP, "scheduler: pages are not copied from backend to backend");
	if (a->n_vocab != b->n_vocab || a->kv.page_tokens != b->kv.page_tokens ||
	    a->kv.page_bytes != b->kv.page_bytes || a->tells_prompts != b->tells_prompts)
		return err_set(err, -EINVAL, "scheduler: prompts and answers are not computed alike");
	return 0;
}

int sched_split_open(struct eng_sched *s, const struct eng_sched_config *config, struct err *err)
{
	struct eng_sched_config other = *config;
	uint32_t n = s->config.max_running;
	int r = check_sides(&s->exec, config->answers, err);

	if (r < 0)
		return r;
	other.answers = NULL;
	other.front = s;
	other.cache = NULL; /* the front's */
	other.host_bytes = 0;
	if (new_link(s, n) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	r = eng_sched_new(config->answers, &other, &s->split.answers, err);
	if (r < 0)
		return r;
	if (s->n_ctx > s->split.answers->n_ctx)
		s->n_ctx = s->split.answers->n_ctx;
	return 0;
}

static void cancel(struct sreq *r, uint64_t id)
{
	if (r && (id == 0 || r->id == id))
		atomic_store(&r->cancelled, true);
}

void sched_split_cancel(struct eng_sched *s, uint64_t id)
{
	struct eng_sched *o = s->split.answers;
	struct sched_link *link = s->split.link;

	/* All at once: requests go from one to the other. */
	(void)pthread_mutex_lock(&s->lock);
	(void)pthread_mutex_lock(&o->lock);
	(void)pthread_mutex_lock(&link->lock);
	for (struct sreq *r = s->queue; r; r = r->next)
		cancel(r, id);
	for (uint32_t i = 0; i < s->n_running; i++)
		cancel(s->running[i], id);
	for (uint32_t i = 0; i < o->n_running; i++)
		cancel(o->running[i], id);
	for (uint32_t i = 0; i < link->n; i++)
		cancel(link->passages[i].r, id);
	s->wants_sweep = s->has_news = o->wants_sweep = o->has_news = true;
	(void)pthread_cond_signal(&s->wake);
	(void)pthread_cond_signal(&o->wake);
	(void)pthread_mutex_unlock(&link->lock);
	(void)pthread_mutex_unlock(&o->lock);
	(void)pthread_mutex_unlock(&s->lock);
}

void sched_split_close(struct eng_sched *s)
{
	struct sched_link *link = s->split.link;

	eng_sched_free(s->split.answers);
	s->split.answers = NULL;
	if (!link || s->split.front)
		return;
	(void)pthread_mutex_destroy(&link->lock);
	free(link->passages);
	free(link);
	s->split.link = NULL;
}

bool sched_split_is_busy(struct eng_sched *s)
{
	struct sched_link *link = s->split.link;
	bool busy = false;

	if (!s->split.front)
		return false;
	(void)pthread_mutex_lock(&link->lock);
	for (uint32_t i = 0; i < link->n; i++)
		busy = busy || link->passages[i].state == PASSAGE_OPEN;
	(void)pthread_mutex_unlock(&link->lock);
	return busy;
}

uint32_t sched_split_waiting(struct eng_sched *s)
{
	struct sched_link *link = s->split.link;
	uint32_t n = 0;

	(void)pthread_mutex_lock(&link->lock);
	for (uint32_t i = 0; i < link->n; i++)
		n += link->passages[i].r != NULL;
	(void)pthread_mutex_unlock(&link->lock);
	return n;
}

uint32_t sched_split_running_of(struct eng_sched *s, uint64_t client)
{
	struct eng_sched *o = s->split.answers;
	struct sched_link *link = s->split.link;
	uint32_t n = 0;

	if (!o)
		return 0;
	(void)pthread_mutex_lock(&o->lock);
	(void)pthread_mutex_lock(&link->lock);
	for (uint32_t i = 0; i < o->n_running; i++)
		n += o->running[i]->req.client == client;
	for (uint32_t i = 0; i < link->n; i++)
		n += link->passages[i].r && link->passages[i].r->req.client == client;
	(void)pthread_mutex_unlock(&link->lock);
	(void)pthread_mutex_unlock(&o->lock);
	return n;
}

/* ---- The front: opening ---- */

static void forget(struct passage *p)
{
	free(p->tokens);
	free(p->from);
	*p = (struct passage){ 0 };
}

static struct passage *free_passage(struct sched_link *link)
{
	struct passage *p = NULL;

	(void)pthread_mutex_lock(&link->lock);
	for (uint32_t i = 0; i < link->n && !p; i++)
		p = link->passages[i].state == PASSAGE_FREE ? &link->passages[i] : NULL;
	(void)pthread_mutex_unlock(&link->lock);
	return p; /* nobody else opens one */
}

/* -ENOSPC: later. */
static int open_passage(struct eng_sched *s, struct sreq *r)
{
	uint32_t page = s->exec.kv.page_tokens, n_pages = (r->n_tokens + page - 1) / page;
	struct passage *p = free_passage(s->split.link);

	if (!p)
		return -ENOSPC;
	p->tokens = calloc(r->n_tokens, sizeof(*p->tokens));
	p->from = calloc(n_pages, sizeof(*p->from));
	if (!p->tokens || !p->from) {
		forget(p);
		return -ENOMEM;
	}
	memcpy(p->tokens, r->tokens, r->n_tokens * sizeof(*p->tokens));
	p->n_tokens = r->n_tokens;
	p->n_prompt = r->n_prompt;
	p->family = r->req.adapter;
	sched_count_live(s, true);
	(void)pthread_mutex_lock(&s->split.link->lock);
	p->opened = ++s->split.link->n_opened;
	p->state = PASSAGE_OPEN;
	(void)pthread_mutex_unlock(&s->split.link->lock);
	r->passage = p;
	return 0;
}

/* What r has computed does not change any more: its full pages, and at the end the last one too. True: there is news.
 */
static bool tell(struct eng_sched *s, const struct sreq *r, bool is_all)
{
	struct passage *p = r->passage;
	uint32_t page = s->exec.kv.page_tokens, ready = is_all ? r->n_computed : r->n_computed / page * page;
	uint32_t first = p->n_ready / page, end = (ready + page - 1) / page;

	if (ready <= p->n_ready) /* this thread alone changes it */
		return false;
	if (end > first)
		memcpy(p->from + first, r->kv.pages + first, (end - first) * sizeof(*p->from));
	(void)pthread_mutex_lock(&s->split.link->lock);
	p->n_ready = ready;
	(void)pthread_mutex_unlock(&s->split.link->lock);
	return true;
}

/* ---- The front: handing over ---- */

/* Its next token needs nothing but K and V that are there. */
static bool can_go(const struct sreq *r)
{
	return r->n_flying == 0 && r->n_pending == 0 && sreq_is_decoding(r);
}

static void remove_running(struct eng_sched *s, uint32_t at)
{
	memmove(s->running + at, s->running + at + 1, (s->n_running - at - 1) * sizeof(*s->running));
	s->n_running--;
}

/* True: the at-th running request is the other side's. */
static bool hand_over(struct eng_sched *s, uint32_t at)
{
	struct sreq *r = s->running[at];
	struct passage *p = r->passage;
	struct eng_kv_seq kv = r->kv;
	bool goes;

	sched_say_one(s, r);
	if (r->is_done)
		return false;
	(void)tell(s, r, true);
	(void)pthread_mutex_lock(&s->lock);
	goes = !s->is_stopping && !s->is_paused; /* who pauses would not find it */
	if (goes) {
		p->held = kv;
		r->kv = (struct eng_kv_seq){ 0 };
		r->passage = NULL;
		remove_running(s, at);
		s->split.n_left++;
		(void)pthread_mutex_lock(&s->split.link->lock);
		p->handed = ++s->split.link->n_handed;
		p->handed_ns = (uint64_t)base_now_ns();
		p->r = r; /* from here on nothing of r may be looked at */
		(void)pthread_mutex_unlock(&s->split.link->lock);
	}
	(void)pthread_mutex_unlock(&s->lock);
	return goes;
}

/* With one token to come, it comes here. */
static bool goes_on_there(const struct sreq *r)
{
	return !r->is_done && r->req.kind == ENG_GENERATE && r->max_new - r->n_output > (r->n_output == 0);
}

static void go_on_front(struct eng_sched *s)
{
	bool news = false;

	for (uint32_t i = 0; i < s->n_running;) {
		struct sreq *r = s->running[i];
		int e = 0;

		if (!r->passage && goes_on_there(r)) {
			e = open_passage(s, r);
			news = news || e == 0;
		}
		if (e == -ENOMEM) {
			(void)err_set(&r->error, e, "%s", strerror(-e));
			sreq_end(r, ENG_FINISH_ERROR);
		}
		if (r->passage && !r->is_done) {
			news |= tell(s, r, false);
			if (can_go(r) && hand_over(s, i)) {
				news = true;
				continue;
			}
		}
		i++;
	}
	if (news)
		sched_cache_is_ready(s->split.answers);
}

void sched_split_leave(struct eng_sched *s, struct sreq *r)
{
	struct passage *p = r->passage;

	if (!p)
		return;
	r->passage = NULL;
	p->held = r->kv;
	r->kv = (struct eng_kv_seq){ 0 };
	s->split.n_left++;
	(void)pthread_mutex_lock(&s->split.link->lock);
	p->is_dropped = true;
	(void)pthread_mutex_unlock(&s->split.link->lock);
	sched_cache_is_ready(s->split.answers);
}

/* ---- The front: taking back ---- */

static void tend_front(struct eng_sched *s)
{
	struct sched_link *link = s->split.link;

	for (uint32_t i = 0; i < link->n; i++) {
		struct passage *p = &link->passages[i];
		bool is_over;

		(void)pthread_mutex_lock(&link->lock);
		is_over = p->state == PASSAGE_OVER;
		(void)pthread_mutex_unlock(&link->lock);
		if (!is_over)
			continue;
		eng_kv_seq_done(s->pool, &p->held);
		sched_count_pages(s);
		(void)pthread_mutex_lock(&link->lock);
		forget(p);
		(void)pthread_mutex_unlock(&link->lock);
		s->split.n_left--;
		sched_count_live(s, false);
	}
}

/* ---- Both ---- */

void sched_split_tend(struct eng_sched *s)
{
	if (s->split.answers)
		tend_front(s);
	else if (s->split.front)
		sched_split_tend_in(s);
}

void sched_split_go_on(struct eng_sched *s)
{
	if (s->split.answers)
		go_on_front(s);
	else if (s->split.front)
		sched_split_go_on_in(s);
}

void sched_split_settle(struct eng_sched *s)
{
	while (s->split.n_copies > 0) {
		/* What fails shows when it is taken. */
		(void)s->exec.copy_wait(s->exec.ctx, s->split.copies[s->split.first_copy].ticket);
		sched_split_take_copies(s);
	}
	sched_split_tend(s);
}

static void nap(void)
{
	const struct timespec ts = { .tv_nsec = 200000 };

	(void)nanosleep(&ts, NULL);
}

void sched_split_wait(struct eng_sched *s)
{
	bool has_queue, is_stopping;

	if (!s->split.link || s->n_running > 0)
		return;
	if (s->split.n_copies > 0) {
		(void)s->exec.copy_wait(s->exec.ctx, s->split.copies[s->split.first_copy].ticket);
		return;
	}
	(void)pthread_mutex_lock(&s->lock);
	has_queue = s->queue != NULL;
	is_stopping = s->is_stopping;
	(void)pthread_mutex_unlock(&s->lock);
	if (s->split.answers && is_stopping)
		nap(); /* until everybody has ended on the other side */
	else if (s->split.answers ? has_queue && sched_split_holds(&s->split) : sched_split_is_busy(s))
		sched_wait_for_news(s);
}
