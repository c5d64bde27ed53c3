/* The fetcher when answers are slow, cut short, wrong or refused, and when the registry wants to know who we are. */
#include <pthread.h>

#include "fetch_test.h"

/* ---- Answers that are not what they should be ---- */

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
	static const struct flip_fetch_opts soon = { .n_retries = 1, .retry_ms = 1, .stall_s = 3 };
	struct setting *x = begin(stall, NULL, &soon);

	(void)state;
	assert_int_equal(read_some(x, 100, 1000), -ETIMEDOUT);
	assert_int_equal(fake_count(&x->s, "/blobs/"), 2);
	assert_int_equal(fake_nth(&x->s, "/blobs/", 1).first, 150);
	end(x);
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

/* ---- Who we are ---- */

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

int main(void)
{
	static const struct CMUnitTest tests[] = {
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
	};

	fetch_test_begin();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
