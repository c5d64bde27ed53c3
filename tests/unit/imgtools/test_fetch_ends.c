/* The fetcher sent elsewhere, with mirrors, and ended while ranges wait. */
#include <pthread.h>

#include "fetch_test.h"

/* ---- Elsewhere ---- */

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

/* ---- Mirrors ---- */

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

/* ---- Ends ---- */

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
	struct told t[1 + FLIP_N_PRIORITIES] = { TOLD_INIT, TOLD_INIT, TOLD_INIT, TOLD_INIT, TOLD_INIT };

	(void)state;
	for (size_t i = 0; i < 200; i++)
		many[i] = (struct flip_range){ 20000 * i, 100 };
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t[0]);
	fake_wait_for(&x->s, "/blobs/", 1);
	for (int i = 0; i < FLIP_N_PRIORITIES; i++)
		(void)ask(x->b, many, 200, (enum flip_priority)i, &t[1 + i]);
	flip_fetch_free(x->f);
	assert_all_told_once(&t[0], 1, -ECANCELED);
	for (int i = 1; i <= FLIP_N_PRIORITIES; i++) {
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

static void what_is_stopped_stays_valid(void **state)
{
	static const struct flip_range first = { 0, 1000 };
	struct setting *x = begin(hold_first, NULL, NULL);
	struct told t = TOLD_INIT;
	char *data = NULL, digest[72], type[128];
	size_t size;

	(void)state;
	(void)ask(x->b, &first, 1, FLIP_FOREGROUND, &t);
	fake_wait_for(&x->s, "/blobs/", 1);
	flip_fetch_stop(x->f);
	assert_all_told_once(&t, 1, -ECANCELED);
	flip_fetch_stop(x->f);
	assert_int_equal(read_some(x, 0, 10), -ECANCELED);
	assert_int_equal(flip_fetch_manifest(x->f, x->s.ref, "v1", &data, &size, digest, type, &x->err), -ECANCELED);
	flip_fetch_cancel(x->f, 1);
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
	while (stat.n_active[0] + stat.n_active[1] + stat.n_active[2] + stat.n_active[3] > 0);
	for (size_t i = 0; i < FLIP_N_PRIORITIES; i++)
		assert_int_equal(stat.n_queued[i], 0);
	end(x);
	free(t);
	free(ranges);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_place_is_remembered_until_it_refuses),
		cmocka_unit_test(a_place_that_never_serves_ends_in_words),
		cmocka_unit_test(a_mirror_is_asked_first_and_passed_over_when_it_fails),
		cmocka_unit_test(nobody_there_is_said_so),
		cmocka_unit_test(what_waits_can_be_canceled),
		cmocka_unit_test(an_end_tells_all_that_waits),
		cmocka_unit_test(what_is_stopped_stays_valid),
		cmocka_unit_test(a_callback_may_ask_for_more),
		cmocka_unit_test(a_rough_day_ends_well),
	};

	fetch_test_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
