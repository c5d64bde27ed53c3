/* Where a repository is asked: its mirrors in the order given, then the registry itself; and how each of them was
 * lately. A mirror that fails is passed over for a while that doubles each time; the registry itself never is. What
 * blocks is done by a thread of its own, one at a time for a door: finding out whether it speaks TLS, and answering a
 * challenge, of which the registry room knows how. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fetch_internal.h"

enum { BAD_FIRST_MS = 5000, BAD_DOUBLINGS = 6, REFUSED_MS = 60000 };

static int is_canceled(void *arg)
{
	return atomic_load(&((struct flip_fetch *)arg)->is_stopping);
}

/* ---- Origins, repositories ---- */

/* Called with f->lock held. */
static struct fetch_origin *get_origin(struct flip_fetch *f, const char *name)
{
	struct fetch_origin *o;

	for (o = f->origins; o; o = o->next) {
		if (strcmp(o->name, name) == 0)
			return o;
	}
	o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->name = strdup(name);
	if (!o->name) {
		free(o);
		return NULL;
	}
	o->limit = f->o.n_connections;
	o->next = f->origins;
	f->origins = o;
	return o;
}

static void repo_free(struct fetch_repo *repo)
{
	for (unsigned i = 0; i < repo->n_doors; i++) {
		img_registry_close(repo->doors[i].registry);
		if (repo->doors[i].authorization)
			explicit_bzero(repo->doors[i].authorization, strlen(repo->doors[i].authorization));
		free(repo->doors[i].authorization);
		free(repo->doors[i].url);
		free(repo->doors[i].base);
	}
	free(repo->host);
	free(repo->name);
	free(repo->ns);
	free(repo);
}

static int add_door(struct flip_fetch *f, struct fetch_repo *repo, const char *ref, const char *endpoint,
                    struct err *err)
{
	struct img_registry_opts opts = { .auth_file = f->auth_file,
		                          .insecure = f->o.insecure,
		                          .n_retries = 1,
		                          .retry_ms = f->o.retry_ms,
		                          .stall_s = f->o.stall_s,
		                          .is_canceled = is_canceled,
		                          .is_canceled_arg = f,
		                          .ca_file = f->ca_file };
	struct fetch_door *d = &repo->doors[repo->n_doors];
	int r = img_registry_prepare(ref, endpoint, &opts, &d->registry, err);

	if (r < 0)
		return r;
	repo->n_doors++;
	d->is_mirror = endpoint != NULL;
	d->is_found = img_registry_base(d->registry) != NULL;
	d->origin = get_origin(f, endpoint ? endpoint : repo->host);
	return d->origin ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int make_repo(struct flip_fetch *f, const char *text, const struct img_reference *ref,
                     struct fetch_repo **ret_repo, struct err *err)
{
	struct fetch_repo *repo = calloc(1, sizeof(*repo));
	int r = 0;

	if (!repo)
		return err_set(err, -ENOMEM, "out of memory");
	repo->host = strdup(ref->host);
	repo->name = strdup(ref->name);
	repo->ns = strdup(strcmp(ref->host, "registry-1.docker.io") == 0 ? "docker.io" : ref->host);
	if (!repo->host || !repo->name || !repo->ns)
		r = err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < f->o.n_mirrors && repo->n_doors + 1 < FETCH_MAX_DOORS; i++) {
		const struct flip_mirror *m = &f->mirrors[i];

		if (!m->host || strcmp(m->host, repo->ns) == 0 || strcmp(m->host, repo->host) == 0)
			r = add_door(f, repo, text, m->endpoint, err);
	}
	if (r == 0)
		r = add_door(f, repo, text, NULL, err);
	if (r < 0) {
		repo_free(repo);
		return r;
	}
	*ret_repo = repo;
	return 0;
}

/* A place of one file: nothing to find out and no token to get. The last one is the one that counts, as the registry
 * itself is; those before it are left as soon as mirrors are. */
static int add_url(struct flip_fetch *f, struct fetch_repo *repo, const char *url, bool is_last, struct err *err)
{
	struct fetch_door *d = &repo->doors[repo->n_doors];
	const char *host = strstr(url, "://");
	int r;

	if (!host || (!flip_s3_is_url(url) && strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
		return err_set(err, -EINVAL, "%.200s: neither http, https nor s3", url);
	repo->n_doors++;
	d->is_s3 = flip_s3_is_url(url);
	if (d->is_s3) {
		r = flip_fetch_s3_address(f, url, &d->url, err);
		if (r < 0)
			return r;
		url = d->url;
		host = strstr(url, "://");
	} else {
		d->url = strdup(url);
	}
	d->base = strndup(url, (size_t)(host + 3 - url) + strcspn(host + 3, "/?#"));
	d->is_mirror = !is_last;
	d->is_found = true;
	d->origin = d->base ? get_origin(f, d->base) : NULL;
	return d->url && d->origin ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* Its name is what messages call it: the file's path at the last place. */
static int make_url_repo(struct flip_fetch *f, const char *const *urls, size_t n, const char *all,
                         struct fetch_repo **ret_repo, struct err *err)
{
	struct fetch_repo *repo = calloc(1, sizeof(*repo));
	const char *host = strstr(urls[n - 1], "://");
	int r = 0;

	if (!repo)
		return err_set(err, -ENOMEM, "out of memory");
	repo->host = strdup("");
	repo->ns = strdup(all);
	host = host ? host + 3 : urls[n - 1];
	host += strcspn(host, "/?#");
	repo->name = strndup(host, strcspn(host, "?#")); /* what follows may be a signature */
	if (!repo->host || !repo->name || !repo->ns)
		r = err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_url(f, repo, urls[i], i + 1 == n, err);
	if (r < 0) {
		repo_free(repo);
		return r;
	}
	*ret_repo = repo;
	return 0;
}

const char *flip_door_base(const struct fetch_door *d)
{
	return d->url ? d->base : img_registry_base(d->registry);
}

/* Tokens of repositories that nobody uses just now are worth keeping, but not all of them. f->lock is held. */
static void drop_idle(struct flip_fetch *f)
{
	struct fetch_repo **p = &f->repos;
	unsigned n = 0;

	while (*p) {
		struct fetch_repo *repo = *p;

		if (repo->refs == 0 && ++n > FETCH_MAX_IDLE_REPOS) {
			*p = repo->next;
			repo_free(repo);
		} else {
			p = &repo->next;
		}
	}
}

/* f->lock is held. */
static struct fetch_repo *use_repo(struct flip_fetch *f, struct fetch_repo *repo, bool is_new)
{
	if (is_new) {
		repo->next = f->repos;
		f->repos = repo;
	}
	repo->refs++;
	drop_idle(f);
	return repo;
}

int flip_repo_get(struct flip_fetch *f, const char *text, struct fetch_repo **ret_repo, struct err *err)
{
	struct img_reference ref;
	struct fetch_repo *repo;
	bool is_new;
	int r = img_reference_parse(text, &ref, err);

	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&f->lock);
	for (repo = f->repos; repo; repo = repo->next) {
		if (strcmp(repo->host, ref.host) == 0 && strcmp(repo->name, ref.name) == 0)
			break;
	}
	is_new = !repo;
	if (is_new)
		r = make_repo(f, text, &ref, &repo, err);
	if (r == 0)
		*ret_repo = use_repo(f, repo, is_new);
	(void)pthread_mutex_unlock(&f->lock);
	img_reference_done(&ref);
	return r;
}

int flip_repo_get_urls(struct flip_fetch *f, const char *const *urls, size_t n, struct fetch_repo **ret_repo,
                       struct err *err)
{
	struct base_buf all = BASE_BUF_INIT(1 << 20);
	struct fetch_repo *repo = NULL;
	bool is_new;
	int r;

	n = n < FETCH_MAX_DOORS ? n : FETCH_MAX_DOORS;
	for (size_t i = 0; i < n; i++)
		(void)base_buf_printf(&all, "%s%s", i ? " " : "", urls[i]);
	r = base_buf_error(&all);
	if (r < 0) {
		base_buf_done(&all);
		return err_set(err, r, "%.200s: the addresses are too long", urls[0]);
	}
	(void)pthread_mutex_lock(&f->lock);
	for (repo = f->repos; repo && (*repo->host || strcmp(repo->ns, base_buf_text(&all)) != 0); repo = repo->next)
		;
	is_new = !repo;
	if (is_new)
		r = make_url_repo(f, urls, n, base_buf_text(&all), &repo, err);
	if (r == 0)
		*ret_repo = use_repo(f, repo, is_new);
	(void)pthread_mutex_unlock(&f->lock);
	base_buf_done(&all);
	return r;
}

void flip_repo_put(struct flip_fetch *f, struct fetch_repo *repo)
{
	(void)pthread_mutex_lock(&f->lock);
	repo->refs--;
	(void)pthread_mutex_unlock(&f->lock);
}

void flip_repos_free(struct flip_fetch *f)
{
	while (f->repos) {
		struct fetch_repo *repo = f->repos;

		f->repos = repo->next;
		repo_free(repo);
	}
	while (f->origins) {
		struct fetch_origin *o = f->origins;

		f->origins = o->next;
		free(o->name);
		free(o);
	}
}

/* ---- Which one ---- */

/* The first that is worth asking; else one that was not asked for this job yet; -1: none is left. */
int flip_door_choose(struct flip_fetch *f, const struct fetch_repo *repo, const struct flip_blob *b, unsigned tried)
{
	int left = -1;

	for (unsigned i = 0; i < repo->n_doors; i++) {
		const struct fetch_door *d = &repo->doors[i];

		if (tried & 1u << i)
			continue;
		if (!d->is_mirror)
			return (int)i;
		if (b && b->is_missing[i])
			continue;
		if (d->origin->bad_until <= f->now && d->refused_until <= f->now)
			return (int)i;
		left = left < 0 ? (int)i : left;
	}
	return left;
}

/* How many below the foreground, which keeps a part of the connections to itself. Shared with others, as many as keep a
 * way of that length busy: on longer ones a request waits longer for its first byte. */
static unsigned low_limit(const struct flip_fetch *f, const struct fetch_origin *o)
{
	unsigned n_sharers = atomic_load(&f->n_sharers), all = o->limit - o->limit / 4, n, least;

	if (!n_sharers || o->is_h2)
		return all;
	n = o->limit / (1 + n_sharers);
	least = 2 + o->rtt_us / 5000;
	n = n > least ? n : least;
	return n < all ? n : all;
}

static bool has_room(const struct flip_fetch *f, const struct fetch_origin *o, enum flip_priority priority)
{
	bool is_low = priority != FLIP_FOREGROUND;

	/* The first one makes the connection that the others share. */
	if (o->is_h2 && !o->is_warm[is_low] && (is_low ? o->n_low : o->n_active - o->n_low) > 0)
		return false;
	return o->n_active < o->limit && (!is_low || o->n_low < low_limit(f, o));
}

bool flip_door_is_ready(struct flip_fetch *f, const struct fetch_repo *repo, const struct flip_blob *b, unsigned door,
                        enum flip_priority priority)
{
	const struct fetch_door *d = &repo->doors[door];

	if (d->origin->quiet_until > f->now) {
		flip_fetch_due(f, d->origin->quiet_until);
		return false;
	}
	/* What the first one finds (a token, another place) the others use. */
	if (!d->is_proven && d->n_knocking)
		return false;
	if (b && d->redirects && !b->target[door] && b->n_asking)
		return false;
	return has_room(f, d->origin, priority);
}

/* Whether so much was fetched along and thrown away that it is enough: the link is not ours alone, and somebody may pay
 * for each byte. A sixteenth of all bytes, more on long ways (a quarter at 20 ms), half at most. */
static bool has_wasted_enough(const struct flip_fetch *f, const struct fetch_origin *o)
{
	uint64_t per_mille = 62 + o->rtt_us / 100;

	per_mille = per_mille < 500 ? per_mille : 500;
	return f->counts.gap_bytes > (1 << 20) + f->counts.wire_bytes / 1000 * per_mille;
}

/* Bytes that cost no more than one more request: what the way moves during a stream's share of a round trip. */
uint64_t flip_door_gap(const struct flip_fetch *f, const struct fetch_door *d)
{
	const struct fetch_origin *o = d->origin;
	uint64_t rate = o->capacity > o->burst ? o->capacity : o->burst, gap;

	if (atomic_load(&f->n_sharers) && (!f->o.max_coalesce_gap || f->o.max_coalesce_gap > FETCH_SHARED_GAP))
		return FETCH_SHARED_GAP;
	if (f->o.max_coalesce_gap)
		return f->o.max_coalesce_gap;
	if (has_wasted_enough(f, o))
		return 0;
	if (!o->rtt_us || !rate)
		return FETCH_FIRST_GAP;
	gap = rate / 1000 * o->rtt_us / 1000 / o->limit;
	return gap < FETCH_MAX_GAP ? gap : FETCH_MAX_GAP;
}

/* ---- How it was ---- */

void flip_door_works(struct flip_fetch *f, struct fetch_door *d)
{
	(void)f;
	d->is_proven = true;
	d->refused_until = 0;
	d->origin->bad_until = 0;
	d->origin->n_bad = 0;
}

/* Refusals are of this repository, everything else is of the host. */
void flip_door_fails(struct flip_fetch *f, struct fetch_door *d, long status)
{
	struct fetch_origin *o = d->origin;

	d->is_proven = false;
	if (status == 401 || status == 403) {
		d->refused_until = f->now + (int64_t)REFUSED_MS * 1000;
	} else if (o->bad_until <= f->now) { /* else it is known already */
		unsigned times = o->n_bad < BAD_DOUBLINGS ? o->n_bad : BAD_DOUBLINGS;

		o->n_bad++;
		o->bad_until = f->now + (int64_t)img_retry_pause_ms(BAD_FIRST_MS, times, 0) * 1000;
	}
}

/* What a host can do is the best of the last ticks in which it did something; it fades by a fiftieth each. */
void flip_origin_bytes(struct flip_fetch *f, struct fetch_origin *o, size_t n)
{
	enum { TICK_US = 100000 };
	int64_t now = base_now_us(), time = now - o->tick_start;

	(void)f;
	if (!o->tick_start || time > 10 * TICK_US) { /* after a rest */
		o->tick_start = now;
		o->tick_bytes = 0;
	} else if (time > TICK_US) {
		uint64_t rate = o->tick_bytes * 1000000 / (uint64_t)time;
		uint64_t faded = o->capacity - o->capacity / 50;

		o->capacity = rate > faded ? rate : faded;
		o->tick_start = now;
		o->tick_bytes = 0;
	}
	o->tick_bytes += n;
}

/* ---- Tasks ---- */

static void *run_task(void *arg)
{
	struct fetch_task *t = arg;
	struct flip_fetch *f = t->f;

	t->r = t->challenge ? img_registry_authorize(t->door->registry, t->challenge, t->seen, &t->err)
	                    : img_registry_find(t->door->registry, &t->err);
	(void)pthread_mutex_lock(&f->lock);
	t->next = f->tasks_done;
	f->tasks_done = t;
	(void)pthread_mutex_unlock(&f->lock);
	flip_fetch_wake(f);
	return NULL;
}

int flip_door_start_task(struct flip_fetch *f, struct fetch_repo *repo, struct fetch_door *d, const char *challenge,
                         struct err *err)
{
	struct fetch_task *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	*t = (struct fetch_task){ .f = f, .repo = repo, .door = d, .seen = d->generation };
	t->challenge = challenge ? strdup(challenge) : NULL;
	r = challenge && !t->challenge ? ENOMEM : pthread_create(&t->thread, NULL, run_task, t);
	if (r != 0) {
		free(t->challenge);
		free(t);
		return err_set(err, -r, "no thread for a token: %s", strerror(r));
	}
	(void)pthread_mutex_lock(&f->lock);
	repo->refs++;
	(void)pthread_mutex_unlock(&f->lock);
	d->task = t;
	f->n_tasks++;
	return 0;
}

void flip_door_end_task(struct flip_fetch *f, struct fetch_task *t)
{
	struct fetch_door *d = t->door;

	(void)pthread_join(t->thread, NULL);
	f->n_tasks--;
	d->task = NULL;
	if (t->r == 0 && t->challenge) {
		char *value = img_registry_authorization(d->registry, &d->generation);

		if (d->authorization)
			explicit_bzero(d->authorization, strlen(d->authorization));
		free(d->authorization);
		d->authorization = value;
	} else if (t->r == 0) {
		d->is_found = true;
	}
	flip_repo_put(f, t->repo);
	free(t->challenge);
	free(t);
}
