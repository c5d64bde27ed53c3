/* The way by libfabric: its messages, and both its ends over the loopback, by the tcp provider and by the old one for
 * sockets where that is here: what one of them lets pass another may not. A member of a cluster
 * (with HTTP beside it) is asked through the transport's table; what lies and breaks off is played by bare connections.
 */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "own_network.h"
#include "peer/fabric_line.h"
#include "peer/limit.h"
#include "peer/peer.h"

enum { CONTENT = 3 << 20 };
#define DIGEST "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define PATH "/flip/1/layer/" DIGEST "/content/" DIGEST

static char http_at[32], fabric_at[32], other_at[32]; /* the member's; a liar's */
static char token_file[32], members[128];
static struct peer_token *token;
static const char *provider;
static uint8_t *content;
static int content_fd;

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

/* ---- A member ---- */

static int allow(void *arg, const struct flip_peer_ask *ask, struct err *err)
{
	return 0;
}

static int give_content(void *arg, const struct flip_peer_ask *ask, const char *name, uint64_t offset, uint64_t size,
                        int *ret_fd, uint64_t *ret_size, struct err *err)
{
	*ret_fd = dup(content_fd);
	*ret_size = CONTENT;
	return *ret_fd < 0 ? -errno : 0;
}

static struct flip_peers *start_member(const char *transport)
{
	static const struct flip_peer_provider functions = { .allow = allow, .content = give_content };
	struct flip_peers_opts o = { .listen = http_at,
		                     .members = members,
		                     .token_file = token_file,
		                     .transport = transport,
		                     .fabric_provider = provider,
		                     .fabric_listen = fabric_at,
		                     .psi_percent = 100 };
	struct flip_peers *p;

	assert_int_equal(flip_peers_new(&o, &p, NULL), 0);
	assert_int_equal(flip_peers_provide(p, "layer", &functions, NULL), 0);
	assert_int_equal(flip_peers_start(p, NULL), 0);
	return p;
}

/* ---- An asker ---- */

struct asker {
	struct flip_peers_opts o;
	struct peer_fabric_counts counts;
	void *way;
};

static bool tick(void *arg)
{
	return false;
}

static void open_asker(struct asker *a)
{
	struct peer_transport_opts o = { .o = &a->o, .token = token, .counts = &a->counts, .tick = tick };

	*a = (struct asker){ .o = { .fabric_provider = provider } };
	assert_int_equal(peer_transport_fabric.open(&o, &a->way, NULL), 0);
}

static void close_asker(struct asker *a)
{
	peer_transport_fabric.stop(a->way);
	peer_transport_fabric.close(a->way);
}

struct result {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int status, r; /* protected by lock, as all */
	bool has_ended;
	uint8_t *bytes;
	size_t n, cut_at; /* where on_data cuts; 0: nowhere */
	unsigned slow_us;
};

static int on_head(void *arg, const struct peer_head *head)
{
	struct result *x = arg;

	pthread_mutex_lock(&x->lock);
	x->status = head->status;
	pthread_cond_signal(&x->cond);
	pthread_mutex_unlock(&x->lock);
	return 0;
}

static int on_data(void *arg, const void *data, size_t size)
{
	struct result *x = arg;
	int r;

	if (x->slow_us)
		(void)usleep(x->slow_us);
	pthread_mutex_lock(&x->lock);
	assert_true(x->n + size <= CONTENT);
	memcpy(x->bytes + x->n, data, size);
	x->n += size;
	r = x->cut_at && x->n >= x->cut_at;
	pthread_mutex_unlock(&x->lock);
	return r;
}

static void on_end(void *arg, int r, const char *why)
{
	struct result *x = arg;

	pthread_mutex_lock(&x->lock);
	assert_false(x->has_ended);
	x->has_ended = true;
	x->r = r;
	pthread_cond_signal(&x->cond);
	pthread_mutex_unlock(&x->lock);
}

static void begin(struct asker *a, struct result *x, const char *fabric, uint64_t first, uint64_t last,
                  uint64_t *ret_id)
{
	char range[64], auth[PEER_AUTH_SIZE], range_header[80], auth_header[PEER_AUTH_SIZE + 20];
	const char *const parts[] = { PATH, range, "", "", "", "" };
	const char *const headers[] = { range_header, auth_header, NULL };
	const struct peer_call call = { .to = http_at,
		                        .fabric = fabric,
		                        .path = PATH,
		                        .headers = headers,
		                        .on_head = on_head,
		                        .on_data = on_data,
		                        .on_end = on_end,
		                        .arg = x };

	x->bytes = malloc(CONTENT);
	assert_non_null(x->bytes);
	(void)snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)first, (unsigned long long)last);
	assert_int_equal(peer_auth_sign(token, parts, 6, (int64_t)time(NULL), auth), 0);
	(void)snprintf(range_header, sizeof(range_header), "Range: %s", range);
	(void)snprintf(auth_header, sizeof(auth_header), "Flip-Auth: %s", auth);
	assert_int_equal(peer_transport_fabric.ask(a->way, &call, ret_id), 0);
}

static void await(struct result *x)
{
	pthread_mutex_lock(&x->lock);
	while (!x->has_ended)
		pthread_cond_wait(&x->cond, &x->lock);
	pthread_mutex_unlock(&x->lock);
}

#define RESULT                                                                      \
	{                                                                           \
		.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER \
	}

static void expect_bytes(struct asker *a, const char *fabric, uint64_t first, uint64_t last)
{
	struct result x = RESULT;
	uint64_t id;

	begin(a, &x, fabric, first, last, &id);
	await(&x);
	assert_int_equal(x.r, 0);
	assert_int_equal(x.status, 206);
	assert_int_equal(x.n, last - first + 1);
	assert_memory_equal(x.bytes, content + first, x.n);
	free(x.bytes);
}

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

static int prepare(void **state)
{
	int fd;

	(void)snprintf(token_file, sizeof(token_file), "/tmp/test-fabric-XXXXXX");
	fd = mkstemp(token_file);
	own_address(http_at, sizeof(http_at));
	own_address(fabric_at, sizeof(fabric_at));
	own_address(other_at, sizeof(other_at));
	(void)snprintf(members, sizeof(members), "static:%s+%s", http_at, fabric_at);
	if (fd < 0 || write(fd, "a secret of the cluster", 23) != 23 || close(fd) < 0 ||
	    peer_token_load(token_file, &token, NULL) < 0)
		return -1;
	content = malloc(CONTENT);
	content_fd = memfd_create("content", MFD_CLOEXEC);
	for (size_t i = 0; content && i < CONTENT; i++)
		content[i] = (uint8_t)(i * 2654435761u >> 13);
	return content && content_fd >= 0 && write(content_fd, content, CONTENT) == CONTENT ? 0 : -1;
}

static int tidy(void **state)
{
	peer_token_free(token);
	free(content);
	(void)close(content_fd);
	return unlink(token_file);
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
		cmocka_unit_test(members_that_lie_are_asked_by_http_or_end_the_question),
		cmocka_unit_test(askers_that_lie_are_refused_and_others_served),
		cmocka_unit_test(certificates_without_a_secret_are_refused_and_a_missing_provider_leaves_http),
	};
	static const char *const providers[] = { "tcp", "sockets" };
	struct err err = { 0 };
	int r;

	own_network();
	base_log_set_level(BASE_LOG_ERROR);
	r = cmocka_run_group_tests(always, NULL, NULL);
	for (size_t i = 0; i < sizeof(providers) / sizeof(*providers); i++) {
		provider = providers[i];
		if (peer_fabric_check(provider, &err) < 0)
			print_message("%s: skipped: %s\n", provider, err_text(&err));
		else
			r += cmocka_run_group_tests_name(provider, with_libfabric, prepare, tidy);
	}
	return r;
}
