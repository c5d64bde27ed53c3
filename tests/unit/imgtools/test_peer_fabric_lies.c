/* Who lies or breaks off on the way by libfabric, over the loopback by each provider that is here: played by bare
 * connections, while a member and its asker get along without. */
#include "fabric_test.h"

/* ---- Members that lie -------------------------------------------------------------------------------------------- */

enum lie {
	LIE_NOISE,                /* what is no message */
	LIE_NO_PROOF,             /* does not know the secret */
	LIE_MUTE,                 /* says nothing at all */
	LIE_NO_HEAD,              /* data before a head */
	LIE_WRONG_SLOT,           /* data in a slot whose turn it is not */
	LIE_TOO_LARGE,            /* more than a slot holds */
	LIE_UNSEALED,             /* messages without a MAC */
	LIE_GONE,                 /* ends when it was asked */
	N_BEFORE,                 /* all of these: HTTP is asked in its place */
	LIE_GONE_LATE = N_BEFORE, /* ends in the middle of an answer */
	LIE_CUT,                  /* says that it could not go on */
	N_LIES
};

struct liar {
	enum lie how;
	struct peer_fabric *f;
	struct peer_line *l;
	struct peer_seal in, out;
	struct peer_message offered; /* its nonce is not kept */
	uint8_t nonce[PEER_NONCE];
	_Atomic bool stops;
	bool has_answered;
	pthread_t thread;
};

static void say(struct liar *x, const struct peer_message *m)
{
	uint8_t out[PEER_MESSAGE_MAX];
	int n = peer_message_write(m, &x->out, out);

	assert_true(n > 0);
	(void)peer_line_send(x->l, out, (size_t)n);
}

static void *liar_line(void *arg, struct peer_line *l)
{
	struct liar *x = arg;

	x->l = l;
	x->in = x->out = (struct peer_seal){ .number = 0 };
	x->has_answered = false;
	return x;
}

static void liar_up(void *arg)
{
	struct liar *x = arg;
	struct peer_message m = { .type = PEER_MSG_HELLO, .nonce = x->nonce };

	if (x->how == LIE_NOISE)
		(void)peer_line_send(x->l, "HTTP/1.1 200 OK\r\n\r\n and so on", 30);
	else if (x->how != LIE_MUTE)
		say(x, &m);
}

static void liar_answers(struct liar *x, uint32_t question)
{
	struct peer_head head = { .status = 200 };
	struct peer_message h = { .type = PEER_MSG_HEAD, .question = question, .head = &head };
	struct peer_message d = { .type = PEER_MSG_DATA, .question = question, .size = 100 };
	struct peer_message e = { .type = PEER_MSG_END, .question = question, .was_cut = true };

	if (x->how == LIE_GONE) {
		peer_line_close(x->l);
		return;
	}
	if (x->how == LIE_UNSEALED)
		x->out.is_on = false;
	if (x->how == LIE_WRONG_SLOT)
		d.slot = 3;
	if (x->how == LIE_TOO_LARGE)
		d.size = PEER_SLOT_SIZE + 1;
	if (x->how == LIE_GONE_LATE || x->how == LIE_CUT || x->how == LIE_UNSEALED)
		say(x, &h);
	assert_int_equal(peer_line_write(x->l, 0, 100, x->offered.key, x->offered.base), 0);
	say(x, &d);
	if (x->how == LIE_CUT)
		say(x, &e);
}

static void liar_message(void *arg, const void *data, size_t size)
{
	struct liar *x = arg;
	struct peer_session session;
	struct peer_message m, w = { .type = PEER_MSG_WELCOME, .proof = session.welcome_proof };

	if (peer_message_parse(data, size, &x->in, &m, NULL) < 0)
		return;
	if (m.type == PEER_MSG_JOIN) {
		assert_int_equal(peer_session_make(token, x->nonce, m.nonce, &m, &session), 0);
		assert_true(peer_proof_is(session.join_proof, m.proof));
		x->offered = m;
		if (x->how == LIE_NO_PROOF)
			session.welcome_proof[5] ^= 1;
		say(x, &w);
		memcpy(x->in.key, session.of_asker, 32);
		memcpy(x->out.key, session.of_asked, 32);
		x->in.is_on = x->out.is_on = true;
	} else if (m.type == PEER_MSG_QUESTION && !x->has_answered) {
		x->has_answered = true;
		liar_answers(x, m.question);
	} else if (m.type == PEER_MSG_TAKEN && x->how == LIE_GONE_LATE) {
		peer_line_close(x->l);
	}
}

static void liar_left(void *arg, int slot)
{
}

static void liar_down(void *arg, int r, const char *why)
{
	peer_line_close(((struct liar *)arg)->l);
}

static const struct peer_fabric_events liar_events = { liar_line, liar_up, liar_message, liar_left, liar_down };

static void *play(void *arg)
{
	struct liar *x = arg;

	while (!atomic_load(&x->stops))
		peer_fabric_step(x->f, 100);
	return NULL;
}

static void members_that_lie_are_asked_by_http_or_end_the_question(void **state)
{
	struct flip_peers *p = start_member("http");

	for (int how = 0; how < N_LIES; how++) {
		struct liar liar = { .how = (enum lie)how };
		struct asker a;

		assert_int_equal(peer_fabric_open(provider, other_at, &liar_events, &liar, &liar.f, NULL), 0);
		assert_int_equal(pthread_create(&liar.thread, NULL, play, &liar), 0);
		open_asker(&a);
		if (how == LIE_GONE_LATE || how == LIE_CUT) {
			struct result x = RESULT;
			uint64_t id;

			begin(&a, &x, other_at, 0, 99, &id);
			await(&x);
			assert_true(x.r < 0 && x.r != -ECANCELED);
			assert_int_equal(x.n, 100);
			free(x.bytes);
		} else if (how == LIE_NO_HEAD || how == LIE_WRONG_SLOT || how == LIE_TOO_LARGE || how == LIE_UNSEALED) {
			expect_bytes(&a, other_at, 0, 999);
			assert_int_equal(atomic_load(&a.counts.fell_back), 1);
		} else {
			expect_bytes(&a, other_at, 0, 999);
			expect_bytes(&a, other_at, 1000, 1999); /* it is not asked by libfabric again */
			assert_int_equal(atomic_load(&a.counts.fell_back), 1);
		}
		close_asker(&a);
		atomic_store(&liar.stops, true);
		peer_fabric_wake(liar.f);
		assert_int_equal(pthread_join(liar.thread, NULL), 0);
		peer_fabric_close(liar.f);
	}
	flip_peers_stop(p);
	flip_peers_free(p);
}

/* ---- Askers that lie --------------------------------------------------------------------------------------------- */

enum asker_lie {
	ASK_NOISE,
	ASK_ANOTHER_SECRET,
	ASK_NO_SLOTS,
	ASK_BEFORE_JOINING,
	ASK_UNSEALED,
	ASK_PARTS_OUT_OF_ORDER,
	ASK_TAKES_WHAT_WAS_NOT_SENT,
	ASK_JOINS_TWICE,
	N_ASKER_LIES
};

struct bad_asker {
	enum asker_lie how;
	struct peer_line *l;
	struct peer_seal in, out;
	struct peer_session session;
	bool was_refused, is_down;
};

static void put(struct bad_asker *x, const struct peer_message *m)
{
	uint8_t out[PEER_MESSAGE_MAX];
	int n = peer_message_write(m, &x->out, out);

	assert_true(n > 0);
	(void)peer_line_send(x->l, out, (size_t)n);
}

static void bad_up(void *arg)
{
	struct bad_asker *x = arg;

	if (x->how == ASK_NOISE)
		(void)peer_line_send(x->l, "GET / HTTP/1.1\r\n\r\n", 18);
}

static void bad_message(void *arg, const void *data, size_t size)
{
	static const uint8_t nonce[PEER_NONCE] = { 9 };
	struct bad_asker *x = arg;
	struct peer_message m,
	        part = { .type = PEER_MSG_QUESTION, .question = 1, .total = 20, .at = 5, .data = nonce, .size = 5 };
	struct peer_message join = { .type = PEER_MSG_JOIN, .nonce = nonce, .slot_size = 4096, .n_slots = 1 };
	struct peer_message taken = { .type = PEER_MSG_TAKEN, .question = 1 };

	if (peer_message_parse(data, size, &x->in, &m, NULL) < 0) {
		x->was_refused = true;
		return;
	}
	if (m.type == PEER_MSG_REFUSE)
		x->was_refused = true;
	if (m.type == PEER_MSG_HELLO && x->how == ASK_BEFORE_JOINING) {
		put(x, &part);
	} else if (m.type == PEER_MSG_HELLO) {
		assert_int_equal(peer_session_make(token, m.nonce, nonce, &join, &x->session), 0);
		x->session.join_proof[0] ^= x->how == ASK_ANOTHER_SECRET;
		join.proof = x->session.join_proof;
		join.n_slots = x->how == ASK_NO_SLOTS ? 0 : 1;
		put(x, &join);
	} else if (m.type == PEER_MSG_WELCOME) {
		memcpy(x->out.key, x->session.of_asker, 32);
		memcpy(x->in.key, x->session.of_asked, 32);
		x->out.is_on = x->how != ASK_UNSEALED;
		x->in.is_on = true;
		join.proof = x->session.join_proof;
		if (x->how == ASK_TAKES_WHAT_WAS_NOT_SENT) {
			part.at = 0;
			part.total = 5;
			part.data = (const uint8_t *)"\1\1\0\0/";
			put(x, &part);
		}
		put(x, x->how == ASK_JOINS_TWICE ? &join : x->how == ASK_TAKES_WHAT_WAS_NOT_SENT ? &taken : &part);
	}
}

static void bad_left(void *arg, int slot)
{
}

static void bad_down(void *arg, int r, const char *why)
{
	((struct bad_asker *)arg)->is_down = true;
}

static void askers_that_lie_are_refused_and_others_served(void **state)
{
	static const struct peer_fabric_events events = { NULL, bad_up, bad_message, bad_left, bad_down };
	struct flip_peers *p = start_member("fabric");

	for (int how = 0; how < N_ASKER_LIES; how++) {
		struct bad_asker bad = { .how = (enum asker_lie)how };
		int64_t until = peer_now_us() + 20000000;
		struct peer_fabric *f;
		struct asker a;

		assert_int_equal(peer_fabric_open(provider, NULL, &events, NULL, &f, NULL), 0);
		assert_int_equal(peer_line_connect(f, fabric_at, &bad, &bad.l, NULL), 0);
		while (!bad.was_refused && !bad.is_down && peer_now_us() < until)
			peer_fabric_step(f, 50);
		/* Of an answer that has ended in the meantime it may say what it likes. */
		assert_true(bad.was_refused || bad.is_down || how == ASK_TAKES_WHAT_WAS_NOT_SENT);
		peer_fabric_close(f);
		open_asker(&a);
		expect_bytes(&a, fabric_at, 0, 99999);
		assert_int_equal(atomic_load(&a.counts.fell_back), 0);
		close_asker(&a);
	}
	flip_peers_stop(p);
	flip_peers_free(p);
}

int main(void)
{
	const struct CMUnitTest with_libfabric[] = {
		cmocka_unit_test(members_that_lie_are_asked_by_http_or_end_the_question),
		cmocka_unit_test(askers_that_lie_are_refused_and_others_served),
	};
	int r = 0;

	own_network();
	base_log_set_level(BASE_LOG_ERROR);
	while (next_provider())
		r += cmocka_run_group_tests_name(provider, with_libfabric, prepare, tidy);
	return r;
}
