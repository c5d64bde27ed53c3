/* The parts that peers are made of: frames, ranges, signatures, members, amounts, what etcd says. */
#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/threadpool.h"
#include "peer/auth.h"
#include "peer/limit.h"
#include "peer/member.h"
#include "peer/membership.h"
#include "peer/wire.h"

/* ---- Frames ---- */

static int count_frames(void *arg, const struct peer_frame *f, const void *data)
{
	unsigned *n = arg;

	if (f->form == PEER_FRAME_PACKED) {
		assert_int_equal(f->size, 5);
		assert_int_equal(f->offset, 77);
		assert_memory_equal(data, "hello", 5);
	}
	(*n)++;
	return 0;
}

static size_t write_answer(uint8_t *out)
{
	peer_frame_write(&(struct peer_frame){ PEER_FRAME_WAITING, 0, 0, 0 }, out);
	peer_frame_write(&(struct peer_frame){ PEER_FRAME_PACKED, 5, 77, 0 }, out + PEER_FRAME_SIZE);
	memcpy(out + 2 * PEER_FRAME_SIZE, "hello", 5);
	peer_frame_write(&(struct peer_frame){ PEER_FRAME_END, 0, 0, 0 }, out + 2 * PEER_FRAME_SIZE + 5);
	return 3 * PEER_FRAME_SIZE + 5;
}

static void frames_come_in_pieces_of_any_size(void **state)
{
	uint8_t bytes[200];
	size_t size = write_answer(bytes);

	for (size_t step = 1; step <= size; step++) {
		struct peer_stream s;
		unsigned n = 0;

		peer_stream_init(&s, 100);
		for (size_t at = 0; at < size; at += step)
			assert_int_equal(
			        peer_stream_take(&s, bytes + at, size - at < step ? size - at : step, count_frames, &n),
			        0);
		assert_int_equal(n, 3);
		assert_true(s.has_ended);
		peer_stream_done(&s);
	}
}

static void more_bytes_than_were_asked_for_are_refused(void **state)
{
	uint8_t bytes[200];
	size_t size = write_answer(bytes);
	struct peer_stream s;
	unsigned n = 0;

	peer_stream_init(&s, 4);
	assert_int_equal(peer_stream_take(&s, bytes, size, count_frames, &n), -EBADMSG);
	peer_stream_done(&s);
}

static void nothing_may_follow_the_end(void **state)
{
	uint8_t bytes[200];
	size_t size = write_answer(bytes);
	struct peer_stream s;
	unsigned n = 0;

	peer_stream_init(&s, 100);
	assert_int_equal(peer_stream_take(&s, bytes, size, count_frames, &n), 0);
	assert_int_equal(peer_stream_take(&s, bytes, 1, count_frames, &n), -EBADMSG);
	peer_stream_done(&s);
}

static void ranges_are_in_order_or_refused(void **state)
{
	struct flip_range r[3];
	size_t n;

	assert_int_equal(peer_ranges_parse("bytes=0-9,20-29", r, 3, 1000, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(r[1].offset, 20);
	assert_int_equal(r[1].size, 10);
	assert_int_equal(peer_ranges_parse("bytes=20-29,0-9", r, 3, 1000, &n), -EBADMSG);
	assert_int_equal(peer_ranges_parse("bytes=0-9,5-29", r, 3, 1000, &n), -EBADMSG);
	assert_int_equal(peer_ranges_parse("bytes=9-0", r, 3, 1000, &n), -EBADMSG);
	assert_int_equal(peer_ranges_parse("bytes=0-9,", r, 3, 1000, &n), -EBADMSG);
	assert_int_equal(peer_ranges_parse("bytes=0-1000", r, 3, 1000, &n), -EBADMSG);
	assert_int_equal(peer_ranges_parse("bytes=0-1,3-4,6-7,9-9", r, 3, 1000, &n), -EBADMSG);
	assert_int_equal(peer_ranges_parse("0-1", r, 3, 1000, &n), -EBADMSG);
}

static void names_can_stand_in_a_url(void **state)
{
	assert_true(peer_name_is_valid("10.0.0.1:8422"));
	assert_true(peer_name_is_valid("[fe80::1]:1"));
	assert_true(peer_name_is_valid("node-1.example:65535"));
	assert_false(peer_name_is_valid("node"));
	assert_false(peer_name_is_valid("node:0"));
	assert_false(peer_name_is_valid("node:65536"));
	assert_false(peer_name_is_valid("a/b:1"));
	assert_false(peer_name_is_valid("a\r\nX:1"));
	assert_false(peer_name_is_valid("[]:1"));
	assert_false(peer_name_is_valid(":1"));
}

/* ---- Signatures ---- */

static struct peer_token *token_of(const char *text, mode_t mode, int expected)
{
	char path[] = "/tmp/test-token-XXXXXX";
	struct peer_token *t = NULL;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
	assert_int_equal(peer_token_load(path, &t, NULL), expected);
	assert_int_equal(unlink(path), 0);
	return t;
}

static void a_secret_that_others_may_read_is_refused(void **state)
{
	assert_null(token_of("0123456789abcdef", 0644, -EACCES));
	assert_null(token_of("0123456789abcdef", 0640, -EACCES));
	assert_null(token_of("short\n\n\n\n\n\n\n\n\n\n\n\n\n", 0600, -EINVAL));
	peer_token_free(token_of("0123456789abcdef\n", 0600, 0));
}

static void a_signature_is_of_its_question_its_secret_and_its_time(void **state)
{
	struct peer_token *a = token_of("0123456789abcdef\n", 0600, 0), *b = token_of("0123456789abcdeF", 0600, 0);
	struct peer_token *same = token_of("0123456789abcdef", 0400, 0);
	const char *const parts[] = { "/x", "bytes=0-1" }, *const other[] = { "/x", "bytes=0-2" };
	const char *const moved[] = { "/xbytes=0-1", "" };
	char value[PEER_AUTH_SIZE], again[PEER_AUTH_SIZE];

	assert_int_equal(peer_auth_sign(a, parts, 2, 1000, value), 0);
	assert_int_equal(peer_auth_sign(a, parts, 2, 1000, again), 0);
	assert_string_not_equal(value, again);
	assert_int_equal(peer_auth_check(a, value, parts, 2, 1000), 0);
	assert_int_equal(peer_auth_check(same, value, parts, 2, 1059), 0);
	assert_int_equal(peer_auth_check(b, value, parts, 2, 1000), -EACCES);
	assert_int_equal(peer_auth_check(a, value, other, 2, 1000), -EACCES);
	assert_int_equal(peer_auth_check(a, value, moved, 2, 1000), -EACCES);
	assert_int_equal(peer_auth_check(a, value, parts, 1, 1000), -EACCES);
	assert_int_equal(peer_auth_check(a, value, parts, 2, 1061), -EACCES);
	assert_int_equal(peer_auth_check(a, value, parts, 2, 900), -EACCES);
	value[strlen(value) - 1] ^= 1;
	assert_int_equal(peer_auth_check(a, value, parts, 2, 1000), -EACCES);
	assert_int_equal(peer_auth_check(a, "", parts, 2, 1000), -EACCES);
	peer_token_free(a);
	peer_token_free(b);
	peer_token_free(same);
}

/* ---- Members ---- */

enum { N_MEMBERS = 20, N_GROUPS = 4000 };

static void name_members(struct peer_named named[N_MEMBERS], unsigned n_zones)
{
	memset(named, 0, N_MEMBERS * sizeof(*named));
	for (unsigned i = 0; i < N_MEMBERS; i++) {
		(void)snprintf(named[i].name, sizeof(named[i].name), "10.0.0.%u:8422", i);
		(void)snprintf(named[i].zone, sizeof(named[i].zone), "z%u", i % n_zones);
	}
}

static uint32_t owner_of(const struct peer_members *m, uint64_t group, const char *zone)
{
	uint32_t owner = PEER_NOBODY;

	assert_int_equal(peer_rank(m, group, zone, 1, NULL, 0, &owner, 1), 1);
	return owner;
}

static uint64_t group_of(unsigned i)
{
	return peer_group_hash("sha256:0000000000000000000000000000000000000000000000000000000000000000",
	                       (uint64_t)i * FLIP_PEER_GROUP);
}

static void groups_are_shared_out_evenly(void **state)
{
	struct peer_named named[N_MEMBERS];
	struct peer_members m;
	unsigned n[N_MEMBERS] = { 0 };

	name_members(named, 1);
	assert_int_equal(peer_members_init(&m, named[0].name, "z0"), 0);
	assert_int_equal(peer_members_set(&m, named, N_MEMBERS), 0);
	for (unsigned g = 0; g < N_GROUPS; g++)
		n[owner_of(&m, group_of(g), NULL)]++;
	for (unsigned i = 0; i < N_MEMBERS; i++) {
		assert_true(n[i] > N_GROUPS / N_MEMBERS / 2);
		assert_true(n[i] < N_GROUPS / N_MEMBERS * 2);
	}
	peer_members_done(&m);
}

static void who_goes_takes_only_its_own_along(void **state)
{
	struct peer_named named[N_MEMBERS];
	struct peer_members m;
	uint32_t before[N_GROUPS];

	name_members(named, 1);
	assert_int_equal(peer_members_init(&m, named[0].name, "z0"), 0);
	assert_int_equal(peer_members_set(&m, named, N_MEMBERS), 0);
	for (unsigned g = 0; g < N_GROUPS; g++)
		before[g] = owner_of(&m, group_of(g), NULL);
	assert_int_equal(peer_members_set(&m, named, N_MEMBERS - 1), 0);
	for (unsigned g = 0; g < N_GROUPS; g++) {
		uint32_t now = owner_of(&m, group_of(g), NULL);

		if (before[g] != N_MEMBERS - 1)
			assert_int_equal(now, before[g]);
		else
			assert_int_not_equal(now, before[g]);
	}
	peer_members_done(&m);
}

static void order_of_names_does_not_matter(void **state)
{
	struct peer_named named[N_MEMBERS], turned[N_MEMBERS];
	struct peer_members a, b;

	name_members(named, 1);
	for (unsigned i = 0; i < N_MEMBERS; i++)
		turned[i] = named[N_MEMBERS - 1 - i];
	assert_int_equal(peer_members_init(&a, named[0].name, ""), 0);
	assert_int_equal(peer_members_init(&b, named[5].name, ""), 0);
	assert_int_equal(peer_members_set(&a, named, N_MEMBERS), 0);
	assert_int_equal(peer_members_set(&b, turned, N_MEMBERS), 0);
	for (unsigned g = 0; g < 500; g++)
		assert_string_equal(a.items[owner_of(&a, group_of(g), NULL)]->name,
		                    b.items[owner_of(&b, group_of(g), NULL)]->name);
	peer_members_done(&a);
	peer_members_done(&b);
}

static void a_zone_has_owners_of_its_own(void **state)
{
	struct peer_named named[N_MEMBERS];
	struct peer_members m;

	name_members(named, 4);
	assert_int_equal(peer_members_init(&m, named[1].name, "z1"), 0);
	assert_int_equal(peer_members_set(&m, named, N_MEMBERS), 0);
	assert_true(m.has_zones);
	for (unsigned g = 0; g < 500; g++)
		assert_int_equal(owner_of(&m, group_of(g), "z1") % 4, 1);
	peer_members_done(&m);
}

static void who_fails_is_left_out_longer_each_time(void **state)
{
	struct peer_named named[N_MEMBERS];
	struct peer_members m;
	struct peer_member *x;
	int64_t now = 1000000, first;

	name_members(named, 1);
	assert_int_equal(peer_members_init(&m, named[0].name, ""), 0);
	assert_int_equal(peer_members_set(&m, named, N_MEMBERS), 0);
	x = m.items[3];
	assert_true(peer_member_is_live(x, now));
	peer_member_failed(x, false, now, "test");
	assert_false(peer_member_is_live(x, now));
	first = x->bad_until_us - now;
	peer_member_failed(x, false, now, "test"); /* what was under way with it */
	assert_int_equal(x->bad_until_us - now, first);
	now = x->bad_until_us;
	assert_false(peer_member_is_live(x, now)); /* nothing depends on it until it has answered */
	assert_true(peer_member_awaits_trial(x, now));
	x->n_active = 1;
	assert_false(peer_member_awaits_trial(x, now));
	x->n_active = 0;
	peer_member_answered(x);
	assert_true(peer_member_is_live(x, now));
	peer_member_failed(x, false, now, "test");
	assert_int_equal(x->bad_until_us - now, 2 * first);
	peer_member_failed(x, true, now, "test"); /* garbage counts at once */
	assert_true(x->bad_until_us - now > 4 * first);
	peer_member_worked(x, now); /* an answer that came before it was found out */
	assert_false(peer_member_is_live(x, now));
	now = x->bad_until_us + 60000000;
	peer_member_worked(x, now);
	assert_int_equal(x->n_bad, 0);
	peer_members_done(&m);
}

/* Each member's share of a blob is the same but for a group or two, in every view of the same members; who leaves takes
 * few groups of others along. */
static void shares_are_equal(void **state)
{
	enum { N_GROUPS = 400 };
	struct peer_named named[N_MEMBERS], turned[N_MEMBERS];
	unsigned n[N_MEMBERS] = { 0 }, n_moved = 0;
	char before[N_GROUPS][FLIP_PEER_NAME];
	struct peer_members a, b;

	name_members(named, 1);
	for (unsigned i = 0; i < N_MEMBERS; i++)
		turned[i] = named[N_MEMBERS - 1 - i];
	assert_int_equal(peer_members_init(&a, named[0].name, ""), 0);
	assert_int_equal(peer_members_init(&b, named[5].name, ""), 0);
	assert_int_equal(peer_members_set(&a, named, N_MEMBERS), 0);
	assert_int_equal(peer_members_set(&b, turned, N_MEMBERS), 0);
	(void)peer_owner(&b, "sha256:aa", 7 * FLIP_PEER_GROUP); /* whatever was asked for first */
	for (unsigned g = 0; g < N_GROUPS; g++) {
		uint32_t owner = peer_owner(&a, "sha256:aa", g * (uint64_t)FLIP_PEER_GROUP);

		n[owner]++;
		assert_string_equal(a.items[owner]->name,
		                    b.items[peer_owner(&b, "sha256:aa", g * (uint64_t)FLIP_PEER_GROUP)]->name);
		memcpy(before[g], a.items[owner]->name, FLIP_PEER_NAME);
	}
	for (unsigned i = 0; i < N_MEMBERS; i++)
		assert_in_range(n[i], N_GROUPS / N_MEMBERS - 3, N_GROUPS / N_MEMBERS + 3);
	assert_int_equal(peer_members_set(&a, named, N_MEMBERS - 1), 0);
	for (unsigned g = 0; g < N_GROUPS; g++) {
		uint32_t owner = peer_owner(&a, "sha256:aa", g * (uint64_t)FLIP_PEER_GROUP);

		assert_true(a.items[owner]->is_named);
		n_moved += strcmp(before[g], a.items[owner]->name) != 0 &&
		           strcmp(before[g], named[N_MEMBERS - 1].name) != 0;
	}
	assert_true(n_moved < N_GROUPS / 2);
	peer_members_done(&a);
	peer_members_done(&b);
}

static void members_are_read_from_a_list(void **state)
{
	struct peer_named *named;
	size_t n;

	assert_int_equal(peer_list_parse("a:1@z, [::1]:2,,b.c:3", &named, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(named[0].name, "a:1");
	assert_string_equal(named[0].zone, "z");
	assert_string_equal(named[1].name, "[::1]:2");
	assert_string_equal(named[2].zone, "");
	free(named);
	assert_int_equal(peer_list_parse("a:1,b", &named, &n, NULL), -EINVAL);
	assert_int_equal(peer_list_parse("a:1@\"", &named, &n, NULL), -EINVAL);
	/* And where they listen for libfabric. */
	assert_int_equal(peer_list_parse("a:1+2@z, [::1]:2+3,b:1+10.1.0.5:4,c:3", &named, &n, NULL), 0);
	assert_int_equal(n, 4);
	assert_string_equal(named[0].name, "a:1");
	assert_string_equal(named[0].fabric, "a:2");
	assert_string_equal(named[0].zone, "z");
	assert_string_equal(named[1].fabric, "[::1]:3");
	assert_string_equal(named[2].fabric, "10.1.0.5:4");
	assert_string_equal(named[3].fabric, "");
	free(named);
	assert_int_equal(peer_list_parse("a:1+", &named, &n, NULL), -EINVAL);
	assert_int_equal(peer_list_parse("a:1+x", &named, &n, NULL), -EINVAL);
	assert_int_equal(peer_list_parse("a:1+2+3", &named, &n, NULL), -EINVAL);
	assert_int_equal(peer_list_parse("a:1@z+2", &named, &n, NULL), -EINVAL);
}

struct told {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_told; /* protected by lock */
	struct peer_named first;
};

static void take_first(void *arg, const struct peer_named *named, size_t n)
{
	struct told *t = arg;

	pthread_mutex_lock(&t->lock);
	if (n && !t->is_told)
		t->first = named[0];
	t->is_told = n > 0;
	pthread_cond_signal(&t->cond);
	pthread_mutex_unlock(&t->lock);
}

static void a_name_of_the_dns_stands_for_addresses_and_both_ports(void **state)
{
	struct told t = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	struct peer_membership_opts o = { .where = "127.0.0.1:8422+8423", .changed = take_first, .arg = &t };
	void *membership;

	assert_int_equal(peer_membership_dns.open(&o, &membership, NULL), 0);
	pthread_mutex_lock(&t.lock);
	while (!t.is_told)
		pthread_cond_wait(&t.cond, &t.lock);
	pthread_mutex_unlock(&t.lock);
	peer_membership_dns.close(membership);
	assert_string_equal(t.first.name, "127.0.0.1:8422");
	assert_string_equal(t.first.fabric, "127.0.0.1:8423");
	o.where = "localhost:1+";
	assert_int_equal(peer_membership_dns.open(&o, &membership, NULL), -EINVAL);
	o.where = "localhost:1+host:2";
	assert_int_equal(peer_membership_dns.open(&o, &membership, NULL), -EINVAL);
}

/* ---- etcd ---- */

static void etcd_tells_members_and_leases(void **state)
{
	/* As etcd 3.4 answers: keys /flip/peers/10.0.0.1:8422 and /flip/peers/x, value {"zone":"a"}. */
	static const char list[] = "{\"header\":{\"revision\":\"9007199254740993\"},\"kvs\":[{\"key\":"
	                           "\"L2ZsaXAvcGVlcnMvMTAuMC4wLjE6ODQyMg==\",\"value\":\"eyJ6b25lIjoiYSJ9\"},"
	                           "{\"key\":\"L2ZsaXAvcGVlcnMveA==\"}]}";
	/* The same key with {"zone":"","fabric":"8423"}. */
	static const char fabric[] = "{\"kvs\":[{\"key\":\"L2ZsaXAvcGVlcnMvMTAuMC4wLjE6ODQyMg==\",\"value\":"
	                             "\"eyJ6b25lIjoiIiwiZmFicmljIjoiODQyMyJ9\"}]}";
	static const char gone[] = "{\"result\":{\"events\":[{\"type\":\"DELETE\",\"kv\":{\"key\":"
	                           "\"L2ZsaXAvcGVlcnMvMTAuMC4wLjE6ODQyMg==\"}}]}}";
	static const char lease[] = "{\"ID\":\"7587862094069311754\",\"TTL\":\"10\"}";
	static const char error[] = "{\"error\":\"no such lease\",\"code\":5}";
	static const char bad_key[] = "{\"kvs\":[{\"key\":\"***\"}]}";
	struct etcd_answer a;

	assert_int_equal(etcd_answer_parse(list, strlen(list), &a, NULL), 0);
	assert_int_equal(a.n, 1);
	assert_string_equal(a.items[0].named.name, "10.0.0.1:8422");
	assert_string_equal(a.items[0].named.zone, "a");
	assert_false(a.items[0].is_deleted);
	assert_true(a.revision == INT64_C(9007199254740993));
	etcd_answer_done(&a);
	assert_int_equal(etcd_answer_parse(fabric, strlen(fabric), &a, NULL), 0);
	assert_string_equal(a.items[0].named.fabric, "10.0.0.1:8423");
	etcd_answer_done(&a);
	assert_int_equal(etcd_answer_parse(gone, strlen(gone), &a, NULL), 0);
	assert_int_equal(a.n, 1);
	assert_true(a.items[0].is_deleted);
	etcd_answer_done(&a);
	assert_int_equal(etcd_answer_parse(lease, strlen(lease), &a, NULL), 0);
	assert_true(a.lease == INT64_C(7587862094069311754));
	assert_int_equal(a.ttl, 10);
	etcd_answer_done(&a);
	assert_int_equal(etcd_answer_parse(error, strlen(error), &a, NULL), -EBADMSG);
	assert_int_equal(etcd_answer_parse(bad_key, strlen(bad_key), &a, NULL), -EBADMSG);
}

static void base64_is_the_standard_one(void **state)
{
	static const struct {
		const char *plain, *text;
	} cases[] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" }, { "foob", "Zm9vYg==" } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct base_buf b = BASE_BUF_INIT(100);

		assert_int_equal(etcd_base64(cases[i].plain, strlen(cases[i].plain), &b), 0);
		assert_string_equal(base_buf_text(&b), cases[i].text);
		base_buf_done(&b);
	}
}

/* ---- Amounts ---- */

static void a_bucket_holds_back_what_is_not_urgent(void **state)
{
	struct peer_bucket b;

	peer_bucket_init(&b, 1000000);
	assert_int_equal(peer_bucket_take(&b, 1000, FLIP_PREFETCH), 0);
	assert_true(peer_bucket_take(&b, 900000, FLIP_PREFETCH) > 500000);
	assert_true(peer_bucket_is_empty(&b, FLIP_PREFETCH));
	assert_int_equal(peer_bucket_take(&b, 1000, FLIP_FOREGROUND), 0); /* the urgent overdraw it */
	assert_true(peer_bucket_take(&b, 9000000, FLIP_FOREGROUND) > 0);  /* not without end */
	peer_bucket_done(&b);
	peer_bucket_init(&b, 0);
	assert_int_equal(peer_bucket_take(&b, SIZE_MAX / 2, FLIP_PREHEAT), 0);
	assert_false(peer_bucket_is_empty(&b, FLIP_PREHEAT));
	peer_bucket_done(&b);
}

static void a_bucket_leaves_something_to_those_above(void **state)
{
	struct peer_bucket b;

	peer_bucket_init(&b, 1000); /* slow, so that nothing of it comes back during the test */
	assert_int_equal(peer_bucket_take(&b, 120, FLIP_PREFETCH), 0); /* of 200 */
	assert_true(peer_bucket_is_empty(&b, FLIP_PREHEAT));
	assert_false(peer_bucket_is_empty(&b, FLIP_BACKGROUND));
	assert_int_equal(peer_bucket_take(&b, 60, FLIP_PREFETCH), 0);
	assert_true(peer_bucket_is_empty(&b, FLIP_BACKGROUND));
	assert_false(peer_bucket_is_empty(&b, FLIP_PREFETCH));
	assert_true(peer_bucket_take(&b, 1, FLIP_PREHEAT) > peer_bucket_take(&b, 1, FLIP_BACKGROUND));
	assert_int_equal(peer_bucket_take(&b, 1, FLIP_FOREGROUND), 0);
	peer_bucket_done(&b);
}

static void write_pressure(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	(void)fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

/* Whoever waits for a processor is left nearly all of it, however long he waits. */
static void processors_are_left_to_those_who_wait(void **state)
{
	char dir[] = "/tmp/test-psi-XXXXXX", path[256];
	struct peer_pressure p;
	int64_t now = 10000000;
	uint64_t own_us = 1000, total_us = 1;

	assert_non_null(mkdtemp(dir));
	peer_pressure_init(&p);
	for (int phase = 0; phase < 3;
	     phase++) { /* nobody waits; some do, and we take ten per cent; they do, and we take one */
		for (int i = 0; i < 10; i++) {
			char text[80];

			total_us += phase > 0 ? 900000 : 0;
			own_us += (phase == 2 ? 10000u : 100000u) * base_cpu_count();
			(void)snprintf(text, sizeof(text), "some avg10=0.00 avg60=0.00 avg300=0.00 total=%llu\n",
			               (unsigned long long)total_us);
			write_pressure(dir, "cpu", text);
			assert_true(peer_pressure_look(&p, dir, 20, now += 1000000, own_us));
		}
		if (phase == 0)
			assert_true(p.factor == 1);
		if (phase == 1)
			assert_true(p.factor == 0.02 && p.share > 9.9 && p.share < 10.1);
		if (phase == 2)
			assert_true(p.factor > 0.04 && p.factor < 0.1);
	}
	(void)snprintf(path, sizeof(path), "%s/cpu", dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void pressure_slows_down_at_once_and_lets_go_slowly(void **state)
{
	char dir[] = "/tmp/test-psi-XXXXXX", path[256];
	static const char *const names[] = { "cpu", "io", "memory" };
	struct peer_pressure p;
	int64_t now = 10000000;
	double low;

	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < 3; i++)
		write_pressure(dir, names[i], "some avg10=0.10 avg60=0.00 avg300=0.00 total=1\n");
	peer_pressure_init(&p);
	assert_true(peer_pressure_look(&p, dir, 20, now, 0));
	assert_true(p.factor == 1);
	assert_false(peer_pressure_look(&p, dir, 20, now + 1000, 0)); /* not so soon again */
	for (int i = 1; i <= 10; i++) { /* an eighth of the time, and the average says nothing yet */
		char text[80];

		(void)snprintf(text, sizeof(text), "some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n", 1 + i * 125000);
		write_pressure(dir, "memory", text);
		(void)peer_pressure_look(&p, dir, 20, now += 1000000, 0);
	}
	low = p.factor;
	assert_true(low <= 0.05 && low > 0);
	(void)peer_pressure_look(&p, dir, 20, now += 1000000, 0);
	assert_true(p.factor > low && p.factor < 0.2);
	for (int i = 0; i < 20; i++)
		(void)peer_pressure_look(&p, dir, 20, now += 1000000, 0);
	assert_true(p.factor == 1);
	for (size_t i = 0; i < 3; i++) { /* as a control group has them */
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		assert_int_equal(unlink(path), 0);
		(void)snprintf(path, sizeof(path), "%s.pressure", names[i]);
		write_pressure(dir, path, "some avg10=0.00 avg60=0.00 avg300=0.00 total=9000000000\n");
	}
	(void)peer_pressure_look(&p, dir, 20, now += 1000000, 0);
	assert_true(p.factor < 1);
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s.pressure", dir, names[i]);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_come_in_pieces_of_any_size),
		cmocka_unit_test(more_bytes_than_were_asked_for_are_refused),
		cmocka_unit_test(nothing_may_follow_the_end),
		cmocka_unit_test(ranges_are_in_order_or_refused),
		cmocka_unit_test(names_can_stand_in_a_url),
		cmocka_unit_test(a_secret_that_others_may_read_is_refused),
		cmocka_unit_test(a_signature_is_of_its_question_its_secret_and_its_time),
		cmocka_unit_test(groups_are_shared_out_evenly),
		cmocka_unit_test(who_goes_takes_only_its_own_along),
		cmocka_unit_test(order_of_names_does_not_matter),
		cmocka_unit_test(a_zone_has_owners_of_its_own),
		cmocka_unit_test(who_fails_is_left_out_longer_each_time),
		cmocka_unit_test(shares_are_equal),
		cmocka_unit_test(members_are_read_from_a_list),
		cmocka_unit_test(a_name_of_the_dns_stands_for_addresses_and_both_ports),
		cmocka_unit_test(etcd_tells_members_and_leases),
		cmocka_unit_test(base64_is_the_standard_one),
		cmocka_unit_test(a_bucket_holds_back_what_is_not_urgent),
		cmocka_unit_test(a_bucket_leaves_something_to_those_above),
		cmocka_unit_test(processors_are_left_to_those_who_wait),
		cmocka_unit_test(pressure_slows_down_at_once_and_lets_go_slowly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
