/* The fetcher against a scripted registry: what travels together and in which order, what happens when answers are
 * slow, cut short, wrong or refused, and that every range is told exactly once. */
#include <errno.h>

#include "fake_registry.h"
#include "fetch/fetch.h"
#include "tree_test.h"

enum { BLOB_SIZE = 4 << 20, MAX_TOLD = 4096 };
static uint8_t blob[BLOB_SIZE];

/* ---- Those who wait -----------------------------------------------------------------------------------------------
 */

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

static void on_range(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
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

static void wait_told(struct told *t, size_t n)
{
	(void)pthread_mutex_lock(&t->lock);
	while (t->n_told < n)
		(void)pthread_cond_wait(&t->cond, &t->lock);
	(void)pthread_mutex_unlock(&t->lock);
}

static void assert_all_told_once(struct told *t, size_t n, int r)
{
	assert_int_equal(t->n_told, n);
	assert_false(t->is_wrong);
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(t->times[i], 1);
		if (t->r[i] != r)
			fail_msg("range %zu: %d, %s", i, t->r[i], err_text(&t->err));
	}
}

static int64_t ask(struct flip_blob *b, const struct flip_range *ranges, size_t n, enum flip_priority priority,
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

/* ---- A server, a fetcher, a blob ----------------------------------------------------------------------------------
 */

struct setting {
	struct fake s;
	struct flip_fetch *f;
	struct flip_blob *b;
	struct err err;
};

typedef void (*hook_fn)(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n);

static struct setting *begin(hook_fn hook, void *arg, const struct flip_fetch_opts *o)
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

static void end(struct setting *x)
{
	flip_blob_close(x->b);
	flip_fetch_free(x->f);
	fake_stop(&x->s);
	free(x);
}

static int read_some(struct setting *x, uint64_t offset, size_t size)
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

static void assert_reads(struct setting *x, uint64_t offset, size_t size)
{
	if (read_some(x, offset, size) != 0)
		fail_msg("%zu at %llu: %s", size, (unsigned long long)offset, err_text(&x->err));
}

static void assert_says(const struct setting *x, const char *words)
{
	if (!strstr(err_text(&x->err), words))
		fail_msg("\"%s\" is not in: %s", words, err_text(&x->err));
}

static bool is_blob(const struct fake_request *q)
{
	return strstr(q->path, "/blobs/") != NULL;
}

static void assert_range(const struct fake_request *q, size_t first, size_t last)
{
	assert_true(q->has_range);
	assert_int_equal(q->first, first);
	assert_int_equal(q->last, last);
}

/* ---- Ranges -------------------------------------------------------------------------------------------------------
 */

static void a_range_is_what_the_blob_has(void **state)
{
	static const struct {
		uint64_t offset;
		size_t size;
	} cases[] = { { 0, 1 }, { 0, 65536 }, { BLOB_SIZE - 1, 1 }, { 12345, 777777 }, { 0, BLOB_SIZE } };
	struct setting *x = begin(NULL, NULL, NULL);
	struct flip_fetch_stat stat;
	unsigned connections;

	(void)state;
	assert_int_equal(flip_blob_size(x->b), BLOB_SIZE);
	assert_int_equal(fake_count(&x->s, "/"), 0); /* nothing is asked before the first range */
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_reads(x, cases[i].offset, cases[i].size);
	assert_int_equal(flip_blob_read_wait(x->b, 5, 0, NULL, FLIP_FOREGROUND, &x->err), 0);
	flip_fetch_stat(x->f, &stat);
	assert_int_equal(stat.n_requests, 5);
	assert_int_equal(stat.n_ranges, 5);
	assert_int_equal(stat.wire_bytes, 1 + 65536 + 1 + 777777 + BLOB_SIZE);
	assert_int_equal(stat.gap_bytes, 0);
	assert_true(stat.rtt_us > 0);
	(void)pthread_mutex_lock(&x->s.lock);
	connections = x->s.n_connections;
	(void)pthread_mutex_unlock(&x->s.lock);
	assert_int_equal(connections, 2); /* one to find out the scheme, one kept for all ranges */
	end(x);
}

static void what_is_no_range_of_the_blob_is_refused(void **state)
{
	static const struct flip_range bad[] = {
		{ 0, 0 }, { BLOB_SIZE, 1 }, { 1, BLOB_SIZE }, { UINT64_MAX, 2 }, { 0, (16 << 20) + 1 }
	};
	struct setting *x = begin(NULL, NULL, NULL);
	struct told t = TOLD_INIT;
	struct flip_blob *b = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(flip_blob_read(x->b, &bad[i], 1, FLIP_FOREGROUND, on_range, &t, &x->err), -EINVAL);
	assert_int_equal(flip_blob_open(x->f, "UPPER", x->s.digest, 1, &b, &x->err), -EINVAL);
	assert_int_equal(flip_blob_open(x->f, x->s.ref, "sha256:../x", 1, &b, &x->err), -EINVAL);
	assert_null(b);
	assert_int_equal(t.n_told, 0);
	flip_fetch_raise(x->f, 99, FLIP_FOREGROUND); /* no such numbers */
	flip_fetch_cancel(x->f, -1);
	assert_reads(x, 0, 10);
	end(x);
}

/* ---- Order and company --------------------------------------------------------------------------------------------
 */

/* The first request for the blob waits at the gate, so that what comes meanwhile is queued. */
static void hold_first(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	a->waits = is_blob(q) && q->first == 0;
}

static void the_urgent_goes_first(void **state)
{
	static const struct flip_fetch_opts one = { .n_connections = 1, .retry_ms = 1, .max_coalesce_gap = 1 };
	static const struct flip_range first = { 0, 100 }, low[] = { { 900000, 10 }, { 800000, 10 } },
	                               middle[] = { { 700000, 10 }, { 600000, 10 } }, high[] = { { 500000, 10 } };
	struct setting *x = begin(hold_first, NULL, &one);
	struct told t[4] = { TOLD_INIT, TOLD_INIT, TOLD_INIT, TOLD_INIT };
	static const size_t order[] = { 0, 500000, 700000, 600000, 900000, 800000 };

	(void)state;
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	(void)ask(x->b, low, 2, FLIP_BACKGROUND, &t[1]);
	(void)ask(x->b, middle, 2, FLIP_PREFETCH, &t[2]);
	(void)ask(x->b, high, 1, FLIP_FOREGROUND, &t[3]);
	fake_open_gate(&x->s);
	wait_told(&t[1], 2);
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(fake_nth(&x->s, "/blobs/", (unsigned)i).first, order[i]);
	assert_all_told_once(&t[2], 2, 0);
	assert_all_told_once(&t[3], 1, 0);
	end(x);
}

static void what_is_raised_goes_first(void **state)
{
	static const struct flip_fetch_opts one = { .n_connections = 1, .retry_ms = 1, .max_coalesce_gap = 1 };
	static const struct flip_range first = { 0, 100 }, a[] = { { 900000, 10 }, { 800000, 10 } },
	                               b[] = { { 700000, 10 } };
	struct setting *x = begin(hold_first, NULL, &one);
	struct told t[3] = { TOLD_INIT, TOLD_INIT, TOLD_INIT };
	struct flip_fetch_stat stat;
	int64_t number;

	(void)state;
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	(void)ask(x->b, a, 2, FLIP_PREFETCH, &t[1]);
	number = ask(x->b, b, 1, FLIP_BACKGROUND, &t[2]);
	flip_fetch_raise(x->f, number, FLIP_FOREGROUND);
	fake_open_gate(&x->s);
	wait_told(&t[1], 2);
	wait_told(&t[2], 1);
	assert_int_equal(fake_nth(&x->s, "/blobs/", 1).first, 700000);
	flip_fetch_stat(x->f, &stat);
	for (size_t i = 0; i < FLIP_N_PRIORITIES; i++)
		assert_int_equal(stat.n_queued[i], 0);
	end(x);
}

static void neighbours_travel_together(void **state)
{
	static const struct flip_fetch_opts one = { .n_connections = 1, .retry_ms = 1, .max_coalesce_gap = 4096 };
	static const struct flip_range first = { 0, 100 };
	/* Out of order, doubled, overlapping, with gaps of 1000; the last one is too far away. */
	static const struct flip_range near[] = { { 104000, 1000 }, { 100000, 1000 }, { 102000, 1000 },
		                                  { 102000, 1000 }, { 102500, 2500 }, { 200000, 10 } };
	struct setting *x = begin(hold_first, NULL, &one);
	struct told t[2] = { TOLD_INIT, TOLD_INIT };
	struct flip_fetch_stat stat;
	struct fake_request q;

	(void)state;
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	(void)ask(x->b, near, 6, FLIP_PREFETCH, &t[1]);
	fake_open_gate(&x->s);
	wait_told(&t[1], 6);
	assert_all_told_once(&t[1], 6, 0);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 3);
	q = fake_nth(&x->s, "/blobs/", 1);
	assert_range(&q, 100000, 104999);
	q = fake_nth(&x->s, "/blobs/", 2);
	assert_range(&q, 200000, 200009);
	flip_fetch_stat(x->f, &stat);
	assert_int_equal(stat.gap_bytes, 1000);
	assert_int_equal(stat.n_ranges, 7);
	end(x);
}

static void a_foreground_range_takes_what_touches_it(void **state)
{
	static const struct flip_fetch_opts one = { .n_connections = 1, .retry_ms = 1, .max_coalesce_gap = 4096 };
	static const struct flip_range first = { 0, 100 }, urgent = { 101000, 1000 };
	static const struct flip_range later[] = {
		{ 100000, 1000 }, { 102000, 1000 }, { 103000, 500 }, { 104000, 10 }
	};
	struct setting *x = begin(hold_first, NULL, &one);
	struct told t[3] = { TOLD_INIT, TOLD_INIT, TOLD_INIT };
	struct fake_request q;

	(void)state;
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	(void)ask(x->b, later, 4, FLIP_BACKGROUND, &t[1]);
	(void)ask(x->b, &urgent, 1, FLIP_FOREGROUND, &t[2]);
	fake_open_gate(&x->s);
	wait_told(&t[1], 4);
	q = fake_nth(&x->s, "/blobs/", 1);
	assert_range(&q, 101000, 103499); /* nothing in front, no gap */
	assert_all_told_once(&t[1], 4, 0);
	assert_all_told_once(&t[2], 1, 0);
	end(x);
}

static void connections_are_limited_and_some_kept_for_the_foreground(void **state)
{
	static const struct flip_fetch_opts four = { .n_connections = 4, .retry_ms = 1, .max_coalesce_gap = 1 };
	static const struct flip_range first = { 1, 100 };
	struct flip_range many[64];
	struct setting *x = begin(NULL, NULL, &four);
	struct told t[2] = { TOLD_INIT, TOLD_INIT };

	(void)state;
	for (size_t i = 0; i < 64; i++)
		many[i] = (struct flip_range){ 50000 + 10000 * i, 100 };
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	wait_told(&t[0], 1);
	(void)ask(x->b, many, 64, FLIP_PREFETCH, &t[1]);
	wait_told(&t[1], 64);
	assert_all_told_once(&t[1], 64, 0);
	assert_true(x->s.n_most <= 3);
	end(x);
}

static void the_ceiling_for_memory_holds(void **state)
{
	static const struct flip_fetch_opts tight = {
		.n_connections = 8, .retry_ms = 1, .max_coalesce_gap = 1, .max_queued = 100000
	};
	struct flip_range many[32];
	struct setting *x = begin(NULL, NULL, &tight);
	struct told t = TOLD_INIT;

	(void)state;
	for (size_t i = 0; i < 32; i++)
		many[i] = (struct flip_range){ 100000 * i, 60000 };
	(void)ask(x->b, many, 32, FLIP_FOREGROUND, &t);
	wait_told(&t, 32);
	assert_all_told_once(&t, 32, 0);
	assert_int_equal(x->s.n_most, 1); /* two of them do not fit */
	assert_reads(x, 0, 200000);       /* what is larger goes alone */
	end(x);
}

/* The background's answer waits in its middle, the foreground's does not. */
static void hold_middle(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	if (is_blob(q) && q->first == 1 << 20)
		a->gate_at = 300000;
}

static void the_background_goes_on_after_the_foreground(void **state)
{
	static const struct flip_range low[] = { { 1 << 20, 1 << 20 }, { 3 << 20, 1000 } };
	static const struct flip_range middle[] = { { 0, 10 }, { 900000, 10 } };
	struct setting *x = begin(hold_middle, NULL, NULL);
	struct told t[2] = { TOLD_INIT, TOLD_INIT };
	struct flip_fetch_stat stat;

	(void)state;
	(void)ask(x->b, low, 2, FLIP_BACKGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	for (int i = 0; i < 20; i++) { /* each one stops the background and lets it go on */
		assert_reads(x, 1000 * (uint64_t)i, 500);
		flip_fetch_stat(x->f, &stat);
		assert_true(stat.n_active[FLIP_BACKGROUND] > 0);
	}
	(void)ask(x->b, middle, 2, FLIP_PREFETCH, &t[1]);
	wait_told(&t[1], 2);
	fake_open_gate(&x->s);
	wait_told(&t[0], 2);
	assert_all_told_once(&t[0], 2, 0);
	assert_all_told_once(&t[1], 2, 0);
	end(x);
}

static void a_large_read_is_not_starved_of_memory(void **state)
{
	static const struct flip_fetch_opts tight = {
		.n_connections = 4, .retry_ms = 1, .max_coalesce_gap = 1, .max_queued = 1 << 20
	};
	static const struct flip_range large = { 0, 1 << 20 };
	struct flip_range many[500];
	struct setting *x = begin(NULL, NULL, &tight);
	struct told t[2] = { TOLD_INIT, TOLD_INIT };

	(void)state;
	for (size_t i = 0; i < 500; i++)
		many[i] = (struct flip_range){ 8000 * i, 4000 };
	(void)ask(x->b, many, 500, FLIP_PREFETCH, &t[0]);
	wait_told(&t[0], 10);
	(void)ask(x->b, &large, 1, FLIP_FOREGROUND, &t[1]);
	wait_told(&t[1], 1);
	wait_told(&t[0], 500);
	assert_all_told_once(&t[0], 500, 0);
	assert_all_told_once(&t[1], 1, 0);
	end(x);
}

static void a_rate_limit_spares_the_foreground(void **state)
{
	static const struct flip_fetch_opts slow = { .retry_ms = 1, .max_rate = 100 };
	static const struct flip_range low[] = { { 0, 100000 }, { 1000000, 100000 } };
	struct setting *x = begin(NULL, NULL, &slow);
	struct told t = TOLD_INIT;

	(void)state;
	(void)ask(x->b, low, 2, FLIP_PREFETCH, &t);
	wait_told(&t, 1); /* the bucket was full; now it is in debt for a quarter of an hour */
	assert_reads(x, 2000000, 2000000);
	flip_fetch_free(x->f);
	x->f = NULL;
	wait_told(&t, 2);
	assert_int_equal(t.r[t.order[0]], 0);
	assert_int_equal(t.r[t.order[1]], -ECANCELED);
	end(x);
}

/* ---- Answers that are not what they should be ---------------------------------------------------------------------
 */

static void cut_each(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	if (is_blob(q) && a->size > 100000)
		a->cut = 100000;
}

static void a_cut_answer_goes_on_where_it_ended(void **state)
{
	struct setting *x = begin(cut_each, NULL, NULL);
	struct fake_request q;
	struct flip_fetch_stat stat;

	(void)state;
	assert_reads(x, 1000, 450000);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 5);
	for (unsigned i = 0; i < 5; i++) {
		q = fake_nth(&x->s, "/blobs/", i);
		assert_range(&q, 1000 + 100000 * i, 450999);
	}
	flip_fetch_stat(x->f, &stat);
	assert_int_equal(stat.wire_bytes, 450000);
	assert_int_equal(stat.n_retries, 4);
	end(x);
}

static void other_part(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)n;
	if (is_blob(q))
		(void)snprintf(a->headers, sizeof(a->headers), "Content-Range: bytes %s\r\n", (const char *)s->arg);
}

static void another_part_than_asked_for_is_not_taken(void **state)
{
	static const char *const parts[] = { "0-99/4194304", "100-299/4194304", "100-199/77", "x",
		                             "100-199",      "200-100/4194304" };

	(void)state;
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		struct setting *x = begin(other_part, (void *)parts[i], NULL);

		assert_int_equal(read_some(x, 100, 100), -EIO);
		assert_says(x, "another part");
		assert_int_equal(fake_count(&x->s, "/blobs/"), 1);
		end(x);
	}
}

static void stall(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	if (!is_blob(q))
		return;
	a->stalls = true;
	a->cut = 50;
}

static void a_stalled_answer_ends(void **state)
{
	static const struct flip_fetch_opts soon = { .n_retries = 1, .retry_ms = 1, .stall_s = 1 };
	struct setting *x = begin(stall, NULL, &soon);

	(void)state;
	assert_int_equal(read_some(x, 100, 1000), -ETIMEDOUT);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 2);
	assert_int_equal(fake_nth(&x->s, "/blobs/", 1).first, 150);
	end(x);
}

struct refusals {
	int status, times;
	const char *headers, *body;
};

static void refuse(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	struct refusals *r = s->arg;

	(void)n;
	if (!is_blob(q) || r->times == 0)
		return;
	r->times--;
	a->status = r->status;
	(void)snprintf(a->headers, sizeof(a->headers), "%s", r->headers ? r->headers : "");
	a->body = r->body ? r->body : "";
	a->size = strlen(a->body);
}

static void what_may_pass_is_tried_again(void **state)
{
	static const int passing[] = { 408, 429, 500, 502, 503, 504 };

	(void)state;
	for (size_t i = 0; i < sizeof(passing) / sizeof(*passing); i++) {
		struct refusals r = { .status = passing[i], .times = 2, .headers = "Retry-After: 0\r\n" };
		struct setting *x = begin(refuse, &r, NULL);

		assert_reads(x, 7, 1000);
		assert_int_equal(fake_count(&x->s, "/blobs/"), 3);
		end(x);
	}
}

static void a_refusal_is_told_with_its_words(void **state)
{
	static const struct {
		struct refusals r;
		int code;
		unsigned n_requests;
		const char *words;
	} cases[] = {
		{ { .status = 503, .times = -1 }, -EIO, 4, "503" },
		{ { .status = 404, .times = -1, .body = "{\"errors\":[{\"message\":\"blob unknown\"}]}" },
		  -ENOENT,
		  1,
		  "blob unknown" },
		{ { .status = 403, .times = -1 }, -EACCES, 1, "not allowed" },
		{ { .status = 401, .times = -1 }, -EACCES, 1, "not allowed" },
		{ { .status = 416, .times = -1 }, -EIO, 1, "does not have the range" },
		{ { .status = 418, .times = -1 }, -EIO, 1, "418" },
		{ { .status = 307, .times = -1, .headers = "Location: file:///etc/passwd\r\n" }, -EIO, 4, "rotocol" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct refusals r = cases[i].r;
		struct setting *x = begin(refuse, &r, NULL);

		assert_int_equal(read_some(x, 7, 1000), cases[i].code);
		assert_says(x, cases[i].words);
		assert_says(x, x->s.ref + strlen(x->s.ref) - 8);
		assert_int_equal(fake_count(&x->s, "/blobs/"), cases[i].n_requests);
		end(x);
	}
}

static void who_is_told_to_wait_waits(void **state)
{
	struct refusals r = { .status = 429, .times = 1, .headers = "Retry-After: 3600\r\n" };
	static const struct flip_range some[] = { { 0, 10 }, { 1000000, 10 }, { 2000000, 10 }, { 3000000, 10 } };
	struct setting *x = begin(refuse, &r, NULL);
	struct fake *other = calloc(1, sizeof(*other));
	struct flip_blob *b = NULL;
	struct told t[2] = { TOLD_INIT, TOLD_INIT };
	struct flip_fetch_stat stat;

	(void)state;
	assert_non_null(other);
	fake_start(other, blob, sizeof(blob));
	(void)ask(x->b, some, 4, FLIP_FOREGROUND, &t[0]);
	do
		flip_fetch_stat(x->f, &stat);
	while (stat.n_retries == 0);
	/* Another host is not concerned. */
	assert_int_equal(flip_blob_open(x->f, other->ref, other->digest, sizeof(blob), &b, &x->err), 0);
	(void)ask(b, some, 4, FLIP_FOREGROUND, &t[1]);
	wait_told(&t[1], 4);
	assert_all_told_once(&t[1], 4, 0);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 1);
	flip_blob_close(b);
	flip_fetch_free(x->f);
	x->f = NULL;
	assert_all_told_once(&t[0], 4, -ECANCELED);
	end(x);
	fake_stop(other);
	free(other);
}

static void all_of_it(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)n;
	if (!is_blob(q))
		return;
	a->status = 200;
	a->headers[0] = '\0';
	a->body = s->blob;
	a->size = s->size;
}

static void a_server_without_ranges_serves_too(void **state)
{
	static const struct flip_range some[] = { { 3000000, 1000 }, { 100, 70000 }, { 1500000, 100 } };
	struct setting *x = begin(all_of_it, NULL, NULL);
	struct told t = TOLD_INIT;
	struct flip_fetch_stat stat;

	(void)state;
	assert_reads(x, 1000000, 500000);
	flip_fetch_stat(x->f, &stat);
	assert_true(stat.gap_bytes >= 1000000);
	(void)ask(x->b, some, 3, FLIP_PREFETCH, &t);
	wait_told(&t, 3);
	assert_all_told_once(&t, 3, 0);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 2); /* as it all comes anyway, the three come at once */
	end(x);
}

static void short_blob(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	all_of_it(s, q, a, n);
	if (is_blob(q))
		a->size -= 1000;
}

static void a_blob_of_another_size_is_refused(void **state)
{
	struct setting *x = begin(short_blob, NULL, NULL);

	(void)state;
	assert_int_equal(read_some(x, 100, 100), -EIO);
	assert_says(x, "4193304 bytes");
	end(x);
}

/* ---- Who we are ---------------------------------------------------------------------------------------------------
 */

/* Tokens that each last for a few requests. */
struct tokens {
	struct fake *s;
	unsigned n_given, n_used, lasts;
	char challenge[300], given[64];
	bool never;
};

static void ask_for_token(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
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

static void a_token_that_ends_is_renewed_once_for_all(void **state)
{
	struct tokens tokens = { .lasts = 40 };
	static const struct flip_fetch_opts o = { .retry_ms = 1, .max_coalesce_gap = 1 };
	struct flip_range many[100];
	struct setting *x = begin(ask_for_token, &tokens, &o);
	struct told t = TOLD_INIT;

	(void)state;
	for (size_t i = 0; i < 100; i++)
		many[i] = (struct flip_range){ 40000 * i, 100 };
	(void)ask(x->b, many, 100, FLIP_FOREGROUND, &t);
	wait_told(&t, 100);
	assert_all_told_once(&t, 100, 0);
	assert_int_equal(fake_count(&x->s, "/token?"), 3);
	/* Nobody but the first came without one. */
	assert_string_equal(fake_nth(&x->s, "/blobs/", 0).authorization, "");
	for (unsigned i = 1; i < 100; i++)
		assert_string_not_equal(fake_nth(&x->s, "/blobs/", i).authorization, "");
	end(x);
}

static void a_token_that_does_not_help_is_no_endless_matter(void **state)
{
	struct tokens tokens = { .never = true };
	struct setting *x = begin(ask_for_token, &tokens, NULL);

	(void)state;
	assert_int_equal(read_some(x, 0, 100), -EACCES);
	assert_says(x, "not allowed (401)");
	assert_int_equal(fake_count(&x->s, "/token?"), 2);
	end(x);
}

static void want_password(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	if (!is_blob(q) || strcmp(q->authorization, "Basic bWU6cHdk") == 0)
		return;
	*a = (struct fake_answer){ .status = 401,
		                   .headers = "WWW-Authenticate: Basic realm=\"x\"\r\n",
		                   .cut = SIZE_MAX };
}

static void a_password_comes_from_the_file(void **state)
{
	char *dir = temp_dir(), text[200];
	struct setting *x = begin(want_password, NULL, NULL);
	struct flip_fetch_opts o = { .retry_ms = 1 };
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	uint8_t data[10];

	(void)state;
	assert_int_equal(read_some(x, 0, 100), -EACCES);
	assert_says(x, "user name and password");
	(void)snprintf(text, sizeof(text), "{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"bWU6cHdk\"}}}", x->s.port);
	write_text(in_dir(dir, "config.json"), text);
	o.auth_file = in_dir(dir, "config.json");
	assert_int_equal(flip_fetch_new(&o, &f, &x->err), 0);
	assert_int_equal(flip_blob_open(f, x->s.ref, x->s.digest, BLOB_SIZE, &b, &x->err), 0);
	assert_int_equal(flip_blob_read_wait(b, 90, 10, data, FLIP_FOREGROUND, &x->err), 0);
	assert_memory_equal(data, blob + 90, 10);
	flip_blob_close(b);
	flip_fetch_free(f);
	end(x);
	drop_dir(dir);
}

static void a_helper_that_hangs_holds_up_no_end(void **state)
{
	char *dir = temp_dir(), text[200], path[8192], *old = strdup(getenv("PATH"));
	struct setting *x = begin(want_password, NULL, NULL);
	struct flip_fetch_opts o = { .retry_ms = 1 };
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	static const struct flip_range some = { 0, 100 };
	struct told t = TOLD_INIT;

	(void)state;
	write_text(in_dir(dir, "docker-credential-hanging"), "#!/bin/sh\necho >$0.started\nexec sleep 1000\n");
	assert_int_equal(chmod(in_dir(dir, "docker-credential-hanging"), 0755), 0);
	(void)snprintf(text, sizeof(text), "{\"credHelpers\":{\"127.0.0.1:%u\":\"hanging\"}}", x->s.port);
	write_text(in_dir(dir, "config.json"), text);
	(void)snprintf(path, sizeof(path), "%s:%s", dir, old);
	assert_int_equal(setenv("PATH", path, 1), 0);
	o.auth_file = in_dir(dir, "config.json");
	assert_int_equal(flip_fetch_new(&o, &f, &x->err), 0);
	assert_int_equal(flip_blob_open(f, x->s.ref, x->s.digest, BLOB_SIZE, &b, &x->err), 0);
	(void)ask(b, &some, 1, FLIP_FOREGROUND, &t);
	while (access(in_dir(dir, "docker-credential-hanging.started"), F_OK) != 0)
		(void)usleep(1000);
	flip_fetch_free(f);
	assert_all_told_once(&t, 1, -ECANCELED);
	flip_blob_close(b);
	assert_int_equal(setenv("PATH", old, 1), 0);
	free(old);
	end(x);
	drop_dir(dir);
}

/* ---- Elsewhere ----------------------------------------------------------------------------------------------------
 */

struct elsewhere {
	char location[300];
	struct tokens tokens;
};

static void send_elsewhere(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	struct elsewhere *e = s->arg;

	s->arg = &e->tokens;
	ask_for_token(s, q, a, n);
	s->arg = e;
	if (!is_blob(q) || a->status == 401)
		return;
	a->status = 307;
	a->size = 0;
	(void)snprintf(a->headers, sizeof(a->headers), "Location: %s\r\n", e->location);
}

/* Each address serves three times. */
static void expire(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)q;
	if (n % 4 == 3)
		*a = (struct fake_answer){ .status = 403, .cut = SIZE_MAX };
}

static void another_place_is_remembered_until_it_refuses(void **state)
{
	struct elsewhere e = { .tokens = { .lasts = 1000 } };
	struct setting *x = begin(send_elsewhere, &e, NULL);
	struct fake *other = calloc(1, sizeof(*other));

	(void)state;
	assert_non_null(other);
	fake_start(other, blob, sizeof(blob));
	other->hook = expire;
	(void)snprintf(e.location, sizeof(e.location), "http://localhost:%u/stored/%s?sig=1", other->port, x->s.digest);
	for (unsigned i = 0; i < 7; i++)
		assert_reads(x, 1000 * i, 500);
	assert_int_equal(fake_count(other, "/stored/"), 9); /* two of them refused */
	assert_int_equal(fake_count(&x->s, "/blobs/"), 1 + 3);
	for (unsigned i = 0; i < 9; i++)
		assert_string_equal(fake_nth(other, "/stored/", i).authorization, "");
	end(x);
	fake_stop(other);
	free(other);
}

static void a_place_that_never_serves_ends_in_words(void **state)
{
	struct elsewhere e = { .tokens = { .lasts = 1000 } };
	struct setting *x = begin(send_elsewhere, &e, NULL);

	(void)state;
	(void)snprintf(e.location, sizeof(e.location), "/elsewhere");
	assert_int_equal(read_some(x, 0, 10), -ENOENT);
	(void)snprintf(e.location, sizeof(e.location), "/v2/team/app/blobs/%s", x->s.digest);
	assert_int_equal(read_some(x, 0, 10), -EIO);
	assert_says(x, "from place to place");
	end(x);
}

/* ---- Mirrors ------------------------------------------------------------------------------------------------------
 */

static void a_mirror_is_asked_first_and_passed_over_when_it_fails(void **state)
{
	struct setting *x = begin(NULL, NULL, NULL);
	struct refusals r = { .status = 500, .times = -1 };
	struct fake *mirror = calloc(1, sizeof(*mirror));
	struct flip_mirror mirrors[] = { { "other.example", "http://127.0.0.1:2" },
		                         { NULL, "http://127.0.0.1:1" },
		                         { x->s.ref, NULL } };
	struct flip_fetch_opts o = { .retry_ms = 1, .mirrors = mirrors, .n_mirrors = 3 };
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	char host[64];
	uint8_t data[10];

	(void)state;
	assert_non_null(mirror);
	fake_start(mirror, blob, sizeof(blob));
	(void)snprintf(host, sizeof(host), "127.0.0.1:%u", x->s.port);
	mirrors[2] = (struct flip_mirror){ host, mirror->base };
	assert_int_equal(flip_fetch_new(&o, &f, &x->err), 0);
	assert_int_equal(flip_blob_open(f, x->s.ref, x->s.digest, BLOB_SIZE, &b, &x->err), 0);
	assert_int_equal(flip_blob_read_wait(b, 90, 10, data, FLIP_FOREGROUND, &x->err), 0);
	assert_int_equal(fake_count(mirror, "/blobs/"), 1);
	assert_non_null(strstr(fake_nth(mirror, "/blobs/", 0).path, "?ns=127.0.0.1:"));
	assert_int_equal(fake_count(&x->s, "/blobs/"), 0);
	/* It begins to fail: one more attempt there, then the registry, which also has the next one. */
	mirror->arg = &r;
	mirror->hook = refuse;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(flip_blob_read_wait(b, 95, 10, data, FLIP_FOREGROUND, &x->err), 0);
		assert_memory_equal(data, blob + 95, 10);
	}
	assert_int_equal(fake_count(mirror, "/blobs/"), 3);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 3);
	flip_blob_close(b);
	flip_fetch_free(f);
	fake_stop(mirror);
	free(mirror);
	end(x);
}

static void nobody_there_is_said_so(void **state)
{
	struct setting *x = begin(NULL, NULL, NULL);
	struct flip_blob *b = NULL;
	uint8_t data[10];

	(void)state;
	assert_int_equal(flip_blob_open(x->f, "127.0.0.1:1/x", x->s.digest, BLOB_SIZE, &b, &x->err), 0);
	assert_int_equal(flip_blob_read_wait(b, 0, 10, data, FLIP_FOREGROUND, &x->err), -ENETUNREACH);
	assert_says(x, "127.0.0.1:1");
	flip_blob_close(b);
	assert_reads(x, 0, 10);
	end(x);
}

/* ---- Ends ---------------------------------------------------------------------------------------------------------
 */

static void what_waits_can_be_canceled(void **state)
{
	static const struct flip_fetch_opts one = { .n_connections = 1, .retry_ms = 1, .max_coalesce_gap = 1 };
	static const struct flip_range first[] = { { 0, 100 }, { 500000, 100 } },
	                               more[] = { { 700000, 10 }, { 900000, 10 } };
	struct setting *x = begin(hold_first, NULL, &one);
	struct told t[2] = { TOLD_INIT, TOLD_INIT };
	int64_t a, b;

	(void)state;
	a = ask(x->b, first, 2, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	b = ask(x->b, more, 2, FLIP_FOREGROUND, &t[1]);
	flip_fetch_cancel(x->f, a);
	flip_fetch_cancel(x->f, b);
	wait_told(&t[0], 1);
	wait_told(&t[1], 2);
	fake_open_gate(&x->s);
	wait_told(&t[0], 2);
	assert_int_equal(t[0].r[0], 0); /* was under way */
	assert_int_equal(t[0].r[1], -ECANCELED);
	assert_all_told_once(&t[1], 2, -ECANCELED);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 1);
	end(x);
}

static void an_end_tells_all_that_waits(void **state)
{
	struct setting *x = begin(hold_first, NULL, NULL);
	struct flip_range many[200];
	static const struct flip_range first = { 0, 1000 };
	struct told t[4] = { TOLD_INIT, TOLD_INIT, TOLD_INIT, TOLD_INIT };

	(void)state;
	for (size_t i = 0; i < 200; i++)
		many[i] = (struct flip_range){ 20000 * i, 100 };
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	for (int i = 0; i < FLIP_N_PRIORITIES; i++)
		(void)ask(x->b, many, 200, (enum flip_priority)i, &t[1 + i]);
	flip_fetch_free(x->f);
	assert_all_told_once(&t[0], 1, -ECANCELED);
	for (int i = 1; i < 4; i++) {
		assert_int_equal(t[i].n_told, 200);
		assert_false(t[i].is_wrong);
		for (size_t k = 0; k < 200; k++)
			assert_int_equal(t[i].times[k], 1);
	}
	/* The blob is still the caller's, and says what is the matter. */
	assert_int_equal(flip_blob_read(x->b, &first, 1, FLIP_FOREGROUND, on_range, &t[0], &x->err), -ECANCELED);
	x->f = NULL;
	end(x);
}

struct chain {
	struct told told;
	struct setting *x;
	unsigned left;
};

static const struct flip_range link_of_chain = { 4096, 100 };

/* From within a callback more may be asked for. */
static void on_link(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct chain *c = arg;

	if (r == 0 && --c->left)
		r = (int)flip_blob_read(c->x->b, &link_of_chain, 1, FLIP_FOREGROUND, on_link, c, NULL);
	if (c->left == 0 || r < 0)
		on_range(&c->told, i, r < 0 ? r : 0, data, size, err);
}

static void a_callback_may_ask_for_more(void **state)
{
	struct setting *x = begin(NULL, NULL, NULL);
	struct chain c = { .told = TOLD_INIT, .x = x, .left = 20 };

	(void)state;
	c.told.ranges = &link_of_chain;
	assert_true(flip_blob_read(x->b, &link_of_chain, 1, FLIP_FOREGROUND, on_link, &c, &x->err) > 0);
	wait_told(&c.told, 1);
	assert_all_told_once(&c.told, 1, 0);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 20);
	end(x);
}

/* Every second request is answered badly, in one of many ways. */
static void rough(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	uint32_t chance = n * 2654435761u;

	if (!is_blob(q))
		return;
	switch (chance >> 28) {
	case 0:
	case 1:
		*a = (struct fake_answer){ .status = 503, .cut = SIZE_MAX };
		break;
	case 2:
		*a = (struct fake_answer){ .status = 429, .headers = "Retry-After: 0\r\n", .cut = SIZE_MAX };
		break;
	case 3:
		all_of_it(s, q, a, n);
		break;
	case 4:
	case 5:
	case 6:
		a->cut = (chance >> 8) % (a->size + 1);
		break;
	case 7:
		*a = (struct fake_answer){ .status = 307, .cut = SIZE_MAX };
		(void)snprintf(a->headers, sizeof(a->headers), "Location: %s\r\n", q->path);
		break;
	default:
		break;
	}
}

static void a_rough_day_ends_well(void **state)
{
	static const struct flip_fetch_opts o = { .n_retries = 100000, .retry_ms = 1, .max_queued = 300000 };
	enum { N_BATCHES = 30, N_EACH = 20 };
	struct setting *x = begin(rough, NULL, &o);
	struct told *t = calloc(N_BATCHES, sizeof(*t));
	struct flip_range(*ranges)[N_EACH] = calloc(N_BATCHES, sizeof(*ranges));
	struct flip_fetch_stat stat;
	int64_t numbers[N_BATCHES];
	uint32_t v = 7;

	(void)state;
	assert_true(t && ranges);
	for (size_t i = 0; i < N_BATCHES; i++) {
		t[i] = (struct told)TOLD_INIT;
		for (size_t k = 0; k < N_EACH; k++) {
			v = v * 1664525 + 1013904223;
			ranges[i][k].offset = (v >> 8) % (BLOB_SIZE - 40000);
			v = v * 1664525 + 1013904223;
			ranges[i][k].size = 1 + (v >> 8) % 40000;
		}
		numbers[i] = ask(x->b, ranges[i], N_EACH, (enum flip_priority)(i % 3), &t[i]);
	}
	for (size_t i = 0; i < N_BATCHES; i += 5) {
		flip_fetch_raise(x->f, numbers[i], FLIP_FOREGROUND);
		flip_fetch_cancel(x->f, numbers[i + 1]);
	}
	for (size_t i = 0; i < N_BATCHES; i++)
		wait_told(&t[i], N_EACH);
	for (size_t i = 0; i < N_BATCHES; i++) {
		assert_int_equal(t[i].n_told, N_EACH);
		assert_false(t[i].is_wrong);
		for (size_t k = 0; k < N_EACH; k++)
			assert_true(t[i].r[k] == 0 || (t[i].r[k] == -ECANCELED && i % 5 == 1));
	}
	/* The requests that brought them may still be cut off. */
	do
		flip_fetch_stat(x->f, &stat);
	while (stat.n_active[0] + stat.n_active[1] + stat.n_active[2] > 0);
	for (size_t i = 0; i < FLIP_N_PRIORITIES; i++)
		assert_int_equal(stat.n_queued[i], 0);
	end(x);
	free(t);
	free(ranges);
}

/* ---- Whole blobs and documents ------------------------------------------------------------------------------------
 */

struct sunk {
	size_t n;
	int r;
};

static int sink(void *arg, const void *data, size_t size, struct err *err)
{
	struct sunk *s = arg;

	assert_memory_equal(data, blob + s->n, size);
	s->n += size;
	return s->r && s->n > BLOB_SIZE / 2 ? err_set(err, s->r, "no room") : 0;
}

static void a_blob_streams_in_order(void **state)
{
	struct setting *x = begin(cut_each, NULL, NULL);
	struct sunk all = { 0 }, half = { .r = -ENOSPC };

	(void)state;
	if (flip_blob_stream(x->b, FLIP_FOREGROUND, sink, &all, &x->err) != 0)
		fail_msg("%s", err_text(&x->err));
	assert_int_equal(all.n, BLOB_SIZE);
	assert_int_equal(flip_blob_stream(x->b, FLIP_PREFETCH, sink, &half, &x->err), -ENOSPC);
	assert_says(x, "no room");
	end(x);
}

static int ignore(void *arg, const void *data, size_t size, struct err *err)
{
	(void)arg;
	(void)data;
	(void)size;
	(void)err;
	return 0;
}

static uint8_t zeros[BLOB_SIZE];

static void corrupt(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	(void)s;
	(void)n;
	if (is_blob(q) && q->first > 1000000)
		a->body = zeros;
}

static void a_corrupt_stream_is_found_out(void **state)
{
	struct setting *x = begin(corrupt, NULL, NULL);
	struct refusals gone = { .status = 404, .times = -1 };

	(void)state;
	assert_int_equal(flip_blob_stream(x->b, FLIP_FOREGROUND, ignore, NULL, &x->err), -EBADMSG);
	assert_says(x, "digest mismatch");
	x->s.arg = &gone;
	x->s.hook = refuse;
	assert_int_equal(flip_blob_stream(x->b, FLIP_FOREGROUND, ignore, NULL, &x->err), -ENOENT);
	end(x);
}

static const char manifest[] = "{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"}";

static void documents(struct fake *s, const struct fake_request *q, struct fake_answer *a, unsigned n)
{
	const char *place = s->arg;

	(void)n;
	if (!strstr(q->path, place))
		return;
	*a = (struct fake_answer){ .status = 200, .body = manifest, .size = sizeof(manifest) - 1, .cut = SIZE_MAX };
	if (strstr(q->path, "typed"))
		(void)snprintf(a->headers, sizeof(a->headers), "Content-Type: text/x; charset=utf-8\r\n");
}

static void documents_are_fetched_and_verified(void **state)
{
	struct setting *x = begin(documents, (void *)"/manifests/", NULL);
	char *data = NULL, digest[72], type[128], other[72];
	uint8_t sum[BASE_SHA256_SIZE];
	size_t size = 0;

	(void)state;
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, "v1", &data, &size, digest, type, &x->err), 0);
	assert_string_equal(data, manifest);
	assert_int_equal(size, sizeof(manifest) - 1);
	assert_int_equal(base_sha256_bytes(manifest, size, sum), 0);
	base_sha256_hex(sum, other);
	assert_string_equal(digest + 7, other);
	assert_string_equal(type, "application/vnd.oci.image.manifest.v1+json");
	free(data);
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, "typed", &data, &size, digest, type, &x->err), 0);
	assert_string_equal(type, "text/x");
	free(data);
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, digest, &data, &size, digest, type, &x->err), 0);
	free(data);
	data = NULL;
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, x->s.digest, &data, &size, digest, type, &x->err),
	                 -EBADMSG);
	assert_says(x, "digest mismatch");
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, "../x", &data, &size, digest, type, &x->err), -EINVAL);
	assert_null(data);
	/* A configuration lies among the blobs. */
	x->s.arg = (void *)"/blobs/";
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, digest, &data, &size, digest, type, &x->err), 0);
	free(data);
	data = NULL;
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, "v2", &data, &size, digest, type, &x->err), -ENOENT);
	assert_null(data);
	end(x);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_range_is_what_the_blob_has),
		cmocka_unit_test(what_is_no_range_of_the_blob_is_refused),
		cmocka_unit_test(the_urgent_goes_first),
		cmocka_unit_test(what_is_raised_goes_first),
		cmocka_unit_test(neighbours_travel_together),
		cmocka_unit_test(a_foreground_range_takes_what_touches_it),
		cmocka_unit_test(connections_are_limited_and_some_kept_for_the_foreground),
		cmocka_unit_test(the_ceiling_for_memory_holds),
		cmocka_unit_test(the_background_goes_on_after_the_foreground),
		cmocka_unit_test(a_large_read_is_not_starved_of_memory),
		cmocka_unit_test(a_rate_limit_spares_the_foreground),
		cmocka_unit_test(a_cut_answer_goes_on_where_it_ended),
		cmocka_unit_test(another_part_than_asked_for_is_not_taken),
		cmocka_unit_test(a_stalled_answer_ends),
		cmocka_unit_test(what_may_pass_is_tried_again),
		cmocka_unit_test(a_refusal_is_told_with_its_words),
		cmocka_unit_test(who_is_told_to_wait_waits),
		cmocka_unit_test(a_server_without_ranges_serves_too),
		cmocka_unit_test(a_blob_of_another_size_is_refused),
		cmocka_unit_test(a_token_that_ends_is_renewed_once_for_all),
		cmocka_unit_test(a_token_that_does_not_help_is_no_endless_matter),
		cmocka_unit_test(a_password_comes_from_the_file),
		cmocka_unit_test(a_helper_that_hangs_holds_up_no_end),
		cmocka_unit_test(another_place_is_remembered_until_it_refuses),
		cmocka_unit_test(a_place_that_never_serves_ends_in_words),
		cmocka_unit_test(a_mirror_is_asked_first_and_passed_over_when_it_fails),
		cmocka_unit_test(nobody_there_is_said_so),
		cmocka_unit_test(what_waits_can_be_canceled),
		cmocka_unit_test(an_end_tells_all_that_waits),
		cmocka_unit_test(a_callback_may_ask_for_more),
		cmocka_unit_test(a_rough_day_ends_well),
		cmocka_unit_test(a_blob_streams_in_order),
		cmocka_unit_test(a_corrupt_stream_is_found_out),
		cmocka_unit_test(documents_are_fetched_and_verified),
	};

	/* Nobody's own credentials. */
	(void)unsetenv("REGISTRY_AUTH_FILE");
	(void)unsetenv("DOCKER_CONFIG");
	(void)unsetenv("XDG_RUNTIME_DIR");
	(void)setenv("HOME", "/no/such/home", 1);
	for (uint32_t i = 0, v = 1; i < sizeof(blob); i++) {
		v = v * 1664525 + 1013904223;
		blob[i] = (uint8_t)(v >> 24);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
