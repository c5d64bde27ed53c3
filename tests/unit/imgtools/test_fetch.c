/* The fetcher against a scripted registry: what travels together and in which order, and that every range is told
 * exactly once. Whole blobs and documents. */
#include "fetch_test.h"

/* ---- Ranges ---- */

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

/* ---- Order and company ---- */

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

/* Others fetch what lies between, over the same link. */
static void a_registry_that_is_shared_is_asked_for_nothing_else(void **state)
{
	static const struct flip_fetch_opts one = { .n_connections = 1, .retry_ms = 1, .max_coalesce_gap = 8192 };
	struct flip_range many[32];
	struct setting *x = begin(NULL, NULL, &one);
	struct told t[2] = { TOLD_INIT, TOLD_INIT };
	struct flip_fetch_stat alone, shared;

	(void)state;
	for (size_t i = 0; i < 32; i++) /* 5 KiB apart: more than a packet or two bring along */
		many[i] = (struct flip_range){ 50000 + 5220 * i, 100 };
	(void)ask(x->b, many, 32, FLIP_PREFETCH, &t[0]);
	wait_told(&t[0], 32);
	assert_reads(x, 0, 100); /* a request is counted when it has ended: before the next one begins */
	flip_fetch_stat(x->f, &alone);
	assert_true(alone.gap_bytes > 0);
	flip_fetch_share(x->f, 7);
	(void)ask(x->b, many, 32, FLIP_PREFETCH, &t[1]);
	wait_told(&t[1], 32);
	assert_all_told_once(&t[1], 32, 0);
	assert_reads(x, 0, 100);
	flip_fetch_stat(x->f, &shared);
	assert_int_equal(shared.gap_bytes, alone.gap_bytes);
	assert_int_equal(shared.n_requests - alone.n_requests, 33);
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

/* ---- Whole blobs and documents ---- */

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
		cmocka_unit_test(a_registry_that_is_shared_is_asked_for_nothing_else),
		cmocka_unit_test(the_ceiling_for_memory_holds),
		cmocka_unit_test(the_background_goes_on_after_the_foreground),
		cmocka_unit_test(a_large_read_is_not_starved_of_memory),
		cmocka_unit_test(a_rate_limit_spares_the_foreground),
		cmocka_unit_test(a_blob_streams_in_order),
		cmocka_unit_test(a_corrupt_stream_is_found_out),
		cmocka_unit_test(documents_are_fetched_and_verified),
	};

	fetch_test_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
