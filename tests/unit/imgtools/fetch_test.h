/* What the tests of the fetcher share: who waits for ranges, a scripted registry with one blob, a fetcher of it. */
#ifndef FETCH_TEST_H
#define FETCH_TEST_H

#include <errno.h>

#include "fake_registry.h"
#include "fetch/fetch.h"
#include "tree_test.h"

enum { BLOB_SIZE = 4 << 20, MAX_TOLD = 4096 };
static uint8_t blob[BLOB_SIZE];

/* ---- Those who wait ---- */

struct told {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	const struct flip_range *ranges;
	size_t n_told;            /* protected by lock, with all below */
	unsigned times[MAX_TOLD]; /* each range was told */
	int r[MAX_TOLD];
	size_t order[MAX_TOLD];
	bool is_wrong; /* other bytes than the blob's */
	struct err err;
};

#define TOLD_INIT                                                                   \
	{                                                                           \
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER \
	}

static inline void on_range(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct told *t = arg;

	(void)pthread_mutex_lock(&t->lock);
	t->times[i]++;
	t->r[i] = r;
	t->order[t->n_told++] = i;
	if (r < 0)
		t->err = *err;
	else if (size != t->ranges[i].size || memcmp(data, blob + t->ranges[i].offset, size) != 0)
		t->is_wrong = true;
	(void)pthread_cond_broadcast(&t->cond);
	(void)pthread_mutex_unlock(&t->lock);
}

static inline void wait_told(struct told *t, size_t n)
{
	(void)pthread_mutex_lock(&t->lock);
	while (t->n_told < n)
		(void)pthread_cond_wait(&t->cond, &t->lock);
	(void)pthread_mutex_unlock(&t->lock);
}

static inline void assert_all_told_once(struct told *t, size_t n, int r)
{
	assert_int_equal(t->n_told, n);
	assert_false(t->is_wrong);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(t->times[i], 1);
		if (t->r[i] != r)
			fail_msg("range %zu: %d, %s", i, t->r[i], err_text(&t->err));
	}
}

static inline int64_t ask(struct flip_blob *b, const struct flip_range *ranges, size_t n, enum flip_priority priority,
                          struct told *t)
{
	struct err err = { 0 };
	int64_t number;

	t->ranges = ranges;
	number = flip_blob_read(b, ranges, n, priority, on_range, t, &err);
	if (number < 0)
		fail_msg("%s", err_text(&err));
	return number;
}

/* ---- A server, a fetcher, a blob ---- */

struct setting {
	struct fake s;
	struct flip_fetch *f;
	struct flip_blob *b;
	struct err err;
};

typedef void (*hook_fn)(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n);

static inline struct setting *begin(hook_fn hook, void *arg, const struct flip_fetch_opts *o)
{
	static const struct flip_fetch_opts quick = { .retry_ms = 1, .n_retries = 3 };
	struct setting *x = calloc(1, sizeof(*x));

	assert_non_null(x);
	fake_start(&x->s, blob, sizeof(blob));
	x->s.arg = arg;
	x->s.hook = hook;
	assert_int_equal(flip_fetch_new(o ? o : &quick, &x->f, &x->err), 0);
	if (flip_blob_open(x->f, x->s.ref, x->s.digest, sizeof(blob), &x->b, &x->err) < 0)
		fail_msg("%s", err_text(&x->err));
	return x;
}

static inline void end(struct setting *x)
{
	flip_blob_close(x->b);
	flip_fetch_free(x->f);
	fake_stop(&x->s);
	free(x);
}

static inline int read_some(struct setting *x, uint64_t offset, size_t size)
{
	uint8_t *data = malloc(size);
	int r;

	assert_non_null(data);
	x->err = (struct err){ 0 };
	r = flip_blob_read_wait(x->b, offset, size, data, FLIP_FOREGROUND, &x->err);
	if (r == 0)
		assert_memory_equal(data, blob + offset, size);
	free(data);
	return r;
}

static inline void assert_reads(struct setting *x, uint64_t offset, size_t size)
{
	if (read_some(x, offset, size) != 0)
		fail_msg("%zu at %llu: %s", size, (unsigned long long)offset, err_text(&x->err));
}

static inline void assert_says(const struct setting *x, const char *words)
{
	if (!strstr(err_text(&x->err), words))
		fail_msg("\"%s\" is not in: %s", words, err_text(&x->err));
}

static inline bool is_blob(const struct fake_request *q)
{
	return strstr(q->path, "/blobs/") != NULL;
}

static inline void assert_range(const struct fake_request *q, size_t first, size_t last)
{
	assert_true(q->has_range);
	assert_int_equal(q->first, first);
	assert_int_equal(q->last, last);
}

/* The first request for the blob waits at the gate, so that what comes meanwhile is queued. */
static inline void hold_first(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	a->waits = is_blob(q) && q->first == 0;
}

static inline void cut_each(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	if (is_blob(q) && a->size > 100000)
		a->cut = 100000;
}

struct refusals {
	int status, times;
	const char *headers, *body;
};

static inline void refuse(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	struct refusals *r = s->arg;
	int times = __atomic_load_n(&r->times, __ATOMIC_RELAXED);

	(void)n;
	/* Connections have threads of their own. */
	do {
		if (!is_blob(q) || times == 0)
			return;
	} while (!__atomic_compare_exchange_n(&r->times, &times, times - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	a->status = r->status;
	(void)snprintf(a->headers, sizeof(a->headers), "%s", r->headers ? r->headers : "");
	a->body = r->body ? r->body : "";
	a->size = strlen(a->body);
}

static inline void all_of_it(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)n;
	if (!is_blob(q))
		return;
	a->status = 200;
	a->headers[0] = '\0';
	a->body = s->blob;
	a->size = s->size;
}

/* Tokens that each last for a few requests. */
struct tokens {
	struct fake *s;
	unsigned n_given, n_used, lasts;
	char challenge[300], given[64];
	bool never;
};

static inline void ask_for_token(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	struct tokens *t = s->arg;
	char expected[64];

	(void)n;
	(void)pthread_mutex_lock(&s->lock);
	(void)snprintf(expected, sizeof(expected), "Bearer token-%u", t->n_given);
	if (strncmp(q->path, "/token", 6) == 0) {
		t->n_used = 0;
		t->n_given++;
		a->status = 200;
		a->size = (size_t)snprintf(a->own, sizeof(a->own), "{\"token\":\"token-%u\"}", t->n_given);
		a->body = a->own;
	} else if (is_blob(q) && (t->never || strcmp(q->authorization, expected) != 0 || t->n_used++ >= t->lasts)) {
		a->status = 401;
		a->size = 0;
		(void)snprintf(a->headers, sizeof(a->headers),
		               "WWW-Authenticate: Bearer "
		               "realm=\"%s/token\",service=\"s\",scope=\"repository:team/app:pull\"\r\n",
		               s->base);
	}
	(void)pthread_mutex_unlock(&s->lock);
}

/* The blob, and nobody's own credentials: first thing in main(). */
static inline void fetch_test_begin(void)
{
	(void)unsetenv("REGISTRY_AUTH_FILE");
	(void)unsetenv("DOCKER_CONFIG");
	(void)unsetenv("XDG_RUNTIME_DIR");
	(void)setenv("HOME", "/no/such/home", 1);
	for (uint32_t i = 0, v = 1; i < sizeof(blob); i++) {
		v = v * 1664525 + 1013904223;
		blob[i] = (uint8_t)(v >> 24);
	}
}

#endif
