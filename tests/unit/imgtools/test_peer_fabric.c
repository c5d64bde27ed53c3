/* The way by libfabric: its messages, and both its ends over the loopback, by the tcp provider and by the old one for
 * sockets where that is here: what one of them lets pass another may not. A member of a cluster
 * (with HTTP beside it) is asked through the transport's table; test_peer_fabric_lies.c has what lies and breaks off.
 */
#include "fabric_test.h"

/* ---- Messages ---- */

static void messages_come_as_they_went_and_nothing_else_does(void **state)
{
	uint8_t nonce[PEER_NONCE] = { 1, 2, 3 }, out[PEER_MESSAGE_MAX];
	struct peer_head head = { 503, "a:1,b:2", "busy" }, got_head;
	const struct peer_message all[] = {
		{ .type = PEER_MSG_HELLO, .nonce = nonce },
		{ .type = PEER_MSG_JOIN,
		  .nonce = nonce,
		  .proof = nonce,
		  .key = 7,
		  .base = 9,
		  .slot_size = 4096,
		  .n_slots = 2 },
		{ .type = PEER_MSG_WELCOME, .proof = nonce },
		{ .type = PEER_MSG_REFUSE, .data = nonce, .size = 3 },
		{ .type = PEER_MSG_QUESTION, .question = 4, .total = 100, .at = 90, .data = nonce, .size = 10 },
		{ .type = PEER_MSG_HEAD, .question = 4, .head = &head },
		{ .type = PEER_MSG_DATA, .question = 4, .slot = 3, .size = 1000 },
		{ .type = PEER_MSG_INLINE, .question = 4, .data = nonce, .size = 32 },
		{ .type = PEER_MSG_TAKEN, .question = 4 },
		{ .type = PEER_MSG_END, .question = 4, .was_cut = true },
	};
	struct peer_seal to = { .is_on = true, .key = { 5 } }, from = to, other = { .is_on = true, .key = { 6 } };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct peer_message m;
		int n = peer_message_write(&all[i], &to, out);
		struct peer_seal late = from;

		assert_true(n > 0);
		other.number = from.number;
		assert_int_equal(peer_message_parse(out, (size_t)n, &other, &m, NULL), -EACCES);
		assert_int_equal(peer_message_parse(out, (size_t)n - 1, &from, &m, NULL), -EBADMSG);
		for (int k = 0; k < n; k++) { /* whichever bit is another, it is found */
			out[k] ^= 4;
			assert_true(peer_message_parse(out, (size_t)n, &from, &m, NULL) < 0);
			out[k] ^= 4;
		}
		assert_int_equal(peer_message_parse(out, (size_t)n, &from, &m, &got_head), 0);
		assert_int_equal(m.type, all[i].type);
		assert_int_equal(m.question, all[i].question);
		assert_int_equal(m.size, all[i].size);
		assert_int_equal(m.was_cut, all[i].was_cut);
		if (all[i].data)
			assert_memory_equal(m.data, all[i].data, m.size);
		late.number++;
		assert_int_equal(peer_message_parse(out, (size_t)n, &late, &m, NULL), -EBADMSG); /* said before */
	}
	assert_int_equal(got_head.status, 503);
	assert_string_equal(got_head.holders, "a:1,b:2");
	assert_string_equal(got_head.words, "busy");
}

static void questions_come_as_they_went(void **state)
{
	static const char *const headers[] = { "Flip-Auth: x y", "Range: bytes=0-9", "Flip-Peer: a:1", NULL };
	static const char *const unknown[] = { "Cookie: x", NULL };
	struct base_buf b = BASE_BUF_INIT(PEER_MAX_QUESTION);
	struct peer_fields f;

	assert_int_equal(peer_fields_write("/p", headers, &b), 0);
	for (size_t n = 0; n < b.len; n++) { /* cut anywhere but between fields */
		if (peer_fields_parse(b.data, n, &f) == 0)
			peer_fields_done(&f);
	}
	assert_int_equal(peer_fields_parse(b.data, b.len, &f), 0);
	assert_string_equal(peer_fields_path(&f), "/p");
	assert_string_equal(peer_fields_header(&f, "Range"), "bytes=0-9");
	assert_string_equal(peer_fields_header(&f, "Flip-Auth"), "x y");
	assert_string_equal(peer_fields_header(&f, "Flip-Grant"), "");
	peer_fields_done(&f);
	assert_int_equal(peer_fields_parse(b.data, b.len - 1, &f), -EBADMSG);
	assert_int_equal(peer_fields_write("/p", unknown, &b), -EINVAL);
	base_buf_done(&b);
}

/* ---- A member and an asker ---- */

static void bytes_of_any_size_arrive(void **state)
{
	static const size_t sizes[] = { 1,      4067,           PEER_MESSAGE_INLINE, PEER_MESSAGE_INLINE + 1, 4096,
		                        100000, PEER_SLOT_SIZE, PEER_SLOT_SIZE + 1,  4 * PEER_SLOT_SIZE + 17, CONTENT };
	struct flip_peers *p = start_member("fabric");
	uint32_t random = 12345;
	struct asker a;

	open_asker(&a);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		expect_bytes(&a, fabric_at, CONTENT - sizes[i], CONTENT - 1);
	for (int i = 0; i < 40; i++) {
		uint32_t first, n;

		random = random * 1664525u + 1013904223u;
		first = random % (CONTENT - 1);
		random = random * 1664525u + 1013904223u;
		n = 1 + (random >> 4) % (CONTENT - first);
		expect_bytes(&a, fabric_at, first, first + n - 1);
	}
	assert_int_equal(atomic_load(&a.counts.fell_back), 0);
	assert_int_equal(atomic_load(&a.counts.asked), 50);
	expect_bytes(&a, "", 0, 99); /* who has said nothing of libfabric is asked by HTTP */
	assert_int_equal(atomic_load(&a.counts.asked), 50);
	close_asker(&a);
	flip_peers_stop(p);
	flip_peers_free(p);
}

static void many_questions_at_once_beyond_the_connections_there_may_be(void **state)
{
	enum { N = 60 };
	static struct result x[N];
	struct flip_peers *p = start_member("fabric");
	struct asker a;
	uint64_t id;

	open_asker(&a);
	for (int i = 0; i < N; i++) {
		x[i] = (struct result)RESULT;
		x[i].slow_us = i % 7 * 100;
		begin(&a, &x[i], fabric_at, (uint64_t)i * 1000, (uint64_t)i * 1000 + 700000, &id);
	}
	for (int i = 0; i < N; i++) {
		await(&x[i]);
		assert_int_equal(x[i].r, 0);
		assert_int_equal(x[i].n, 700001);
		assert_memory_equal(x[i].bytes, content + (size_t)i * 1000, 700001);
		free(x[i].bytes);
	}
	close_asker(&a);
	flip_peers_stop(p);
	flip_peers_free(p);
}

static void what_is_cut_or_cancelled_ends_and_the_rest_goes_on(void **state)
{
	struct flip_peers *p = start_member("fabric");
	struct result cut = RESULT, cancelled = RESULT, stopped = RESULT;
	struct asker a;
	uint64_t id;

	open_asker(&a);
	cut.cut_at = 500000;
	begin(&a, &cut, fabric_at, 0, CONTENT - 1, &id);
	await(&cut);
	assert_int_equal(cut.r, -ECANCELED);
	cancelled.slow_us = 2000;
	begin(&a, &cancelled, fabric_at, 0, CONTENT - 1, &id);
	pthread_mutex_lock(&cancelled.lock);
	while (!cancelled.status)
		pthread_cond_wait(&cancelled.cond, &cancelled.lock);
	pthread_mutex_unlock(&cancelled.lock);
	peer_transport_fabric.cancel(a.way, id);
	peer_transport_fabric.cancel(a.way, 4711); /* nobody's */
	await(&cancelled);
	expect_bytes(&a, fabric_at, 5, 900000);
	stopped.slow_us = 2000;
	begin(&a, &stopped, fabric_at, 0, CONTENT - 1, &id);
	(void)usleep(3000);
	close_asker(&a);
	assert_true(stopped.has_ended);
	flip_peers_stop(p);
	flip_peers_free(p);
	free(cut.bytes);
	free(cancelled.bytes);
	free(stopped.bytes);
}

static void a_member_that_went_away_is_asked_anew(void **state)
{
	struct flip_peers *p = start_member("fabric");
	struct result x = RESULT;
	struct asker a;
	uint64_t id;

	open_asker(&a);
	expect_bytes(&a, fabric_at, 0, 99999);
	flip_peers_stop(p);
	flip_peers_free(p);
	p = start_member("fabric"); /* the connection that was kept leads nowhere */
	expect_bytes(&a, fabric_at, 0, 99999);
	assert_int_equal(atomic_load(&a.counts.fell_back), 0);
	flip_peers_stop(p);
	flip_peers_free(p);
	p = start_member("http"); /* it has no libfabric any more */
	expect_bytes(&a, fabric_at, 0, 99999);
	assert_int_equal(atomic_load(&a.counts.fell_back), 1);
	flip_peers_stop(p);
	flip_peers_free(p);
	begin(&a, &x, fabric_at, 0, 99, &id); /* nor anything */
	await(&x);
	assert_int_equal(x.r, -ECONNREFUSED);
	free(x.bytes);
	close_asker(&a);
}

/* ---- Opening ---- */

static void certificates_without_a_secret_are_refused_and_a_missing_provider_leaves_http(void **state)
{
	struct flip_peers_opts o = { .listen = http_at,
		                     .members = members,
		                     .transport = "fabric",
		                     .cert_file = "c",
		                     .key_file = "k",
		                     .ca_file = "a" };
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	struct flip_peers *p = NULL;
	struct err err = { 0 };

	assert_int_equal(flip_peers_new(&o, &p, &err), -EACCES);
	assert_non_null(strstr(err_text(&err), "token-file"));
	o = (struct flip_peers_opts){ .listen = http_at,
		                      .members = members,
		                      .token_file = token_file,
		                      .transport = "fabric",
		                      .fabric_provider = "carrier-pigeon" };
	assert_int_equal(flip_peers_new(&o, &p, NULL), 0);
	assert_int_equal(flip_peers_start(p, NULL), 0);
	assert_int_equal(flip_peers_stat(p, &b), 0);
	assert_non_null(strstr(base_buf_text(&b), "\"transport\":\"http\""));
	base_buf_done(&b);
	flip_peers_stop(p);
	flip_peers_free(p);
	o.transport = "pigeon";
	assert_int_equal(flip_peers_new(&o, &p, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest always[] = {
		cmocka_unit_test(messages_come_as_they_went_and_nothing_else_does),
		cmocka_unit_test(questions_come_as_they_went),
	};
	const struct CMUnitTest with_libfabric[] = {
		cmocka_unit_test(bytes_of_any_size_arrive),
		cmocka_unit_test(many_questions_at_once_beyond_the_connections_there_may_be),
		cmocka_unit_test(what_is_cut_or_cancelled_ends_and_the_rest_goes_on),
		cmocka_unit_test(a_member_that_went_away_is_asked_anew),
		cmocka_unit_test(certificates_without_a_secret_are_refused_and_a_missing_provider_leaves_http),
	};
	int r;

	own_network();
	base_log_set_level(BASE_LOG_ERROR);
	r = cmocka_run_group_tests(always, NULL, NULL);
	while (next_provider())
		r += cmocka_run_group_tests_name(provider, with_libfabric, prepare, tidy);
	return r;
}
