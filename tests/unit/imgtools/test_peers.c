/* Members of one cluster in one process: who asks whom, what an owner relays, what becomes of those that fail. The blob
 * is of made-up bytes; the "origin" of an owner is a thread that gives them after a moment. All of it twice: by HTTP,
 * and by libfabric where that is here. */
#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "own_network.h"
#include "peer/fabric_line.h"
#include "peer/peer.h"

enum { N = 4, PIECE = 20000, N_PIECES = 200 };
#define DIGEST "sha256:1111111111111111111111111111111111111111111111111111111111111111"

static uint8_t byte_at(uint64_t at)
{
	return (uint8_t)(at * 2654435761u >> 11);
}

struct node {
	struct flip_peers *peers;
	char name[32];
	int fd;                     /* the whole blob, as a store would have it */
	_Atomic bool has[N_PIECES]; /* what of it is "here" */
	_Atomic unsigned from_origin, n_asked, n_later;
	bool forbids;
	char token[64];
};

struct later {
	struct node *node;
	struct flip_peer_answer *answer;
	unsigned piece;
};

static void give(struct node *n, struct flip_peer_answer *a, unsigned i)
{
	flip_peer_give_plain(a, (uint64_t)i * PIECE, 0, n->fd, (uint64_t)i * PIECE, PIECE, NULL, NULL);
}

static void *origin(void *arg)
{
	struct later *l = arg;

	(void)usleep(20000);
	atomic_fetch_add(&l->node->from_origin, 1);
	atomic_store(&l->node->has[l->piece], true);
	give(l->node, l->answer, l->piece);
	flip_peer_settle(l->answer);
	atomic_fetch_sub(&l->node->n_later, 1);
	free(l);
	return NULL;
}

static int allow(void *arg, const struct flip_peer_ask *ask, struct err *err)
{
	struct node *n = arg;

	atomic_fetch_add(&n->n_asked, 1);
	return n->forbids ? err_set(err, -EACCES, "not you") : 0;
}

static int serve(void *arg, const struct flip_peer_ask *ask, struct flip_peer_answer *answer, struct err *err)
{
	struct node *n = arg;

	for (size_t r = 0; r < ask->n_ranges; r++) {
		uint64_t end = ask->ranges[r].offset + ask->ranges[r].size;

		for (uint64_t at = ask->ranges[r].offset; at < end; at += PIECE) {
			unsigned i = (unsigned)(at / PIECE);
			struct later *l;
			pthread_t t;

			if (atomic_load(&n->has[i])) {
				give(n, answer, i);
				continue;
			}
			if (ask->role == FLIP_PEER_HOLDER || flip_peer_promise(answer, 1) < 0) {
				flip_peer_refuse(answer, at, 0);
				continue;
			}
			l = malloc(sizeof(*l));
			assert_non_null(l);
			*l = (struct later){ n, answer, i };
			atomic_fetch_add(&n->n_later, 1);
			assert_int_equal(pthread_create(&t, NULL, origin, l), 0);
			assert_int_equal(pthread_detach(t), 0);
		}
	}
	return 0;
}

static int document(void *arg, const struct flip_peer_ask *ask, const char *name, struct base_buf *ret, struct err *err)
{
	return strcmp(name, "tail") == 0 ? base_buf_puts(ret, "the tail") : err_set(err, -ENOENT, "none");
}

static void write_token(struct node *n, const char *secret)
{
	int fd;

	(void)snprintf(n->token, sizeof(n->token), "/tmp/test-peers-XXXXXX");
	fd = mkstemp(n->token);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, secret, strlen(secret)), (ssize_t)strlen(secret));
	assert_int_equal(close(fd), 0);
}

static const char *transport = "http";
static const char *fabric_of(const char *name);

static void start(struct node *n, const char *name, const char *members, const char *secret)
{
	static const struct flip_peer_provider provider = { .allow = allow, .serve = serve, .document = document };
	uint8_t *bytes = malloc(N_PIECES * PIECE);
	struct flip_peers_opts o = { .listen = name,
		                     .members = members,
		                     .transport = transport,
		                     .fabric_listen = fabric_of(name),
		                     .psi_percent = 100,
		                     /* Nobody says nothing here; a machine that stands still is no member that does. */
		                     .stall_ms = 60000 };

	memset(n, 0, sizeof(*n));
	(void)snprintf(n->name, sizeof(n->name), "%s", name);
	write_token(n, secret);
	o.token_file = n->token;
	n->fd = memfd_create("blob", MFD_CLOEXEC);
	assert_true(bytes && n->fd >= 0);
	for (size_t i = 0; i < N_PIECES * PIECE; i++)
		bytes[i] = byte_at(i);
	assert_int_equal(write(n->fd, bytes, N_PIECES * PIECE), N_PIECES * PIECE);
	free(bytes);
	assert_int_equal(flip_peers_new(&o, &n->peers, NULL), 0);
	assert_int_equal(flip_peers_provide(n->peers, "layer", &provider, n), 0);
	assert_int_equal(flip_peers_start(n->peers, NULL), 0);
}

static void end(struct node *n)
{
	flip_peers_stop(n->peers);
	while (atomic_load(&n->n_later)) /* threads that play the origin hold answers */
		(void)usleep(1000);
	flip_peers_free(n->peers);
	assert_int_equal(unlink(n->token), 0);
	assert_int_equal(close(n->fd), 0);
}

/* ---- Asking ---- */

struct result {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned n_left, n_right, n_wrong, n_failed;
	unsigned last_from;
};

static void done(void *arg, size_t i, int r, const struct flip_peer_bytes *bytes)
{
	struct result *x = arg;
	bool is_right = r == 0 && bytes->size == PIECE;

	for (size_t k = 0; is_right && k < PIECE; k++)
		is_right = ((const uint8_t *)bytes->data)[k] == byte_at(i * PIECE + k);
	pthread_mutex_lock(&x->lock);
	x->n_right += is_right;
	x->n_wrong += r == 0 && !is_right;
	x->n_failed += r < 0;
	if (r == 0)
		x->last_from = bytes->from;
	x->n_left--;
	pthread_cond_signal(&x->cond);
	pthread_mutex_unlock(&x->lock);
}

static const char *seeds; /* of the blob; NULL: it has another origin */

static void ask_all(struct node *n, enum flip_peer_role most, struct result *ret)
{
	const struct flip_peer_blob blob = { .kind = "layer", .digest = DIGEST, .image = "h/n:t", .seeds = seeds };
	struct flip_peer_piece pieces[N_PIECES];

	*ret = (struct result){ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, .n_left = N_PIECES };
	for (unsigned i = 0; i < N_PIECES; i++)
		pieces[i] = (struct flip_peer_piece){ (uint64_t)i * PIECE, PIECE, 0 };
	assert_int_equal(flip_peers_read(n->peers, &blob, pieces, N_PIECES, FLIP_FOREGROUND, most, NULL, done, ret), 0);
	pthread_mutex_lock(&ret->lock);
	while (ret->n_left)
		pthread_cond_wait(&ret->cond, &ret->lock);
	pthread_mutex_unlock(&ret->lock);
	assert_int_equal(ret->n_wrong, 0);
	assert_int_equal(ret->n_right + ret->n_failed, N_PIECES);
}

static unsigned owned_by(struct node *n)
{
	const struct flip_peer_blob blob = { .digest = DIGEST, .seeds = seeds };
	unsigned k = 0;

	for (unsigned i = 0; i < N_PIECES; i++)
		k += flip_peers_role(n->peers, &blob, (uint64_t)i * PIECE, FLIP_PEER_RELAY) == -EXDEV;
	return k;
}

static char names[N][24], fabrics[N][24], members[300], pair[150]; /* ports that nobody else has */

static const char *fabric_of(const char *name)
{
	for (unsigned i = 0; i < N; i++) {
		if (strcmp(names[i], name) == 0)
			return fabrics[i];
	}
	return NULL;
}

static void make_lists(void)
{
	size_t at = (size_t)snprintf(members, sizeof(members), "static:"), n = strlen(members);

	for (unsigned i = 0; i < N; i++) {
		at += (size_t)snprintf(members + at, sizeof(members) - at, "%s%s%s%s", i ? "," : "", names[i],
		                       strcmp(transport, "fabric") == 0 ? "+" : "",
		                       strcmp(transport, "fabric") == 0 ? fabrics[i] : "");
		n = i == 1 ? at : n;
	}
	(void)snprintf(pair, sizeof(pair), "%.*s", (int)n, members);
}

static int choose_ports(void **state)
{
	for (unsigned i = 0; i < N; i++) {
		own_address(names[i], sizeof(names[i]));
		own_address(fabrics[i], sizeof(fabrics[i]));
	}
	make_lists();
	return 0;
}

static const char secret[] = "a secret of the cluster";

static uint64_t count_of(struct node *n, const char *name)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	char line[80];
	const char *at;
	uint64_t v;

	(void)snprintf(line, sizeof(line), "\nflip_peer_%s_total ", name);
	assert_int_equal(flip_peers_metrics(n->peers, &b), 0);
	at = strstr(base_buf_text(&b), line);
	assert_non_null(at);
	v = strtoull(at + strlen(line), NULL, 10);
	base_buf_done(&b);
	return v;
}

static void owners_fetch_what_others_ask_for_and_each_piece_once(void **state)
{
	struct node nodes[N];
	struct result r;
	unsigned n_owned = 0, from_origin = 0;

	for (unsigned i = 0; i < N; i++)
		start(&nodes[i], names[i], members, secret);
	for (unsigned i = 0; i < N; i++)
		n_owned += owned_by(&nodes[i]);
	assert_int_equal(n_owned, N_PIECES); /* they agree */
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	assert_int_equal(r.n_failed, owned_by(&nodes[0])); /* ours to fetch */
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	for (unsigned i = 1; i < N; i++)
		from_origin += atomic_load(&nodes[i].from_origin);
	assert_int_equal(from_origin, N_PIECES - owned_by(&nodes[0]));
	assert_int_equal(atomic_load(&nodes[0].n_asked), 0);
	if (strcmp(transport, "fabric") == 0) { /* all of it, and nothing by the other way */
		/* The frame that ends a question comes, and is counted twice, when its pieces have been given already.
		 */
		for (int i = 0; i < 400 && count_of(&nodes[0], "fabric_received") != count_of(&nodes[0], "received");
		     i++)
			(void)usleep(5000);
		assert_int_equal(count_of(&nodes[0], "fabric_received"), count_of(&nodes[0], "received"));
		assert_true(count_of(&nodes[0], "fabric_asked") > 0);
	}
	assert_int_equal(count_of(&nodes[0], "fabric_fell_back"), 0);
	for (unsigned i = 0; i < N; i++)
		end(&nodes[i]);
}

static void who_is_gone_is_left_out_and_the_next_is_the_owner(void **state)
{
	struct node nodes[2];
	struct result r;
	unsigned owned;

	start(&nodes[0], names[0], members, secret);
	start(&nodes[1], names[1], members, secret);
	owned = owned_by(&nodes[0]);
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r); /* two of four answer nothing */
	assert_true(r.n_right > 0);
	assert_true(owned_by(&nodes[0]) > owned);
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	assert_int_equal(r.n_failed, owned_by(&nodes[0]));
	end(&nodes[0]);
	end(&nodes[1]);
}

static void another_secret_is_another_cluster(void **state)
{
	struct node nodes[2];
	struct result r;

	start(&nodes[0], names[0], pair, "another secret, not theirs");
	start(&nodes[1], names[1], pair, secret);
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	assert_int_equal(r.n_failed, N_PIECES);
	assert_int_equal(atomic_load(&nodes[1].n_asked), 0);
	end(&nodes[0]);
	end(&nodes[1]);
}

static void who_may_not_have_it_gets_nothing_and_goes_to_the_registry(void **state)
{
	struct node nodes[2];
	struct result r;

	start(&nodes[0], names[0], pair, secret);
	start(&nodes[1], names[1], pair, secret);
	nodes[1].forbids = true;
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	assert_int_equal(r.n_failed, N_PIECES);
	assert_int_equal(atomic_load(&nodes[1].from_origin), 0);
	end(&nodes[0]);
	end(&nodes[1]);
}

static void holders_give_what_they_have_and_fetch_nothing(void **state)
{
	struct node nodes[2];
	struct result r;

	start(&nodes[0], names[0], pair, secret);
	start(&nodes[1], names[1], pair, secret);
	for (unsigned i = 0; i < N_PIECES; i += 2)
		atomic_store(&nodes[1].has[i], true);
	ask_all(&nodes[0], FLIP_PEER_HOLDER, &r);
	assert_int_equal(r.n_right, N_PIECES / 2);
	assert_int_equal(atomic_load(&nodes[1].from_origin), 0);
	end(&nodes[0]);
	end(&nodes[1]);
}

static void blame_leaves_a_member_out_at_once(void **state)
{
	struct node nodes[2];
	struct result r;

	start(&nodes[0], names[0], pair, secret);
	start(&nodes[1], names[1], pair, secret);
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	assert_true(r.n_right > 0);
	flip_peers_blame(nodes[0].peers, r.last_from, "a test");
	assert_int_equal(owned_by(&nodes[0]), N_PIECES);
	ask_all(&nodes[0], FLIP_PEER_RELAY, &r);
	assert_int_equal(r.n_failed, N_PIECES);
	end(&nodes[0]);
	end(&nodes[1]);
}

static void documents_come_from_whoever_has_them(void **state)
{
	static const struct flip_peer_blob blob = { .kind = "layer", .digest = DIGEST };
	struct node nodes[2];
	struct base_buf b = BASE_BUF_INIT(100);
	unsigned from;

	start(&nodes[0], names[0], pair, secret);
	start(&nodes[1], names[1], pair, secret);
	assert_int_equal(flip_peers_document(nodes[0].peers, &blob, "tail", FLIP_PEER_HOLDER, &b, &from, NULL), 0);
	assert_string_equal(base_buf_text(&b), "the tail");
	assert_int_equal(flip_peers_document(nodes[0].peers, &blob, "nothing", FLIP_PEER_HOLDER, &b, &from, NULL),
	                 -ENOENT);
	base_buf_done(&b);
	end(&nodes[0]);
	end(&nodes[1]);
}

static void seeds_own_nothing_and_are_asked_in_the_origins_place(void **state)
{
	struct node nodes[N];
	struct result r;
	unsigned n_owned = 0;

	for (unsigned i = 0; i < N; i++)
		start(&nodes[i], names[i], members, secret);
	for (unsigned i = 0; i < N_PIECES; i++)
		atomic_store(&nodes[N - 1].has[i], true);
	seeds = names[N - 1];
	for (unsigned i = 0; i + 1 < N; i++)
		n_owned += owned_by(&nodes[i]);
	assert_int_equal(n_owned, N_PIECES); /* by those that are to get it */
	ask_all(&nodes[0], FLIP_PEER_HOLDER, &r);
	assert_int_equal(r.n_right, N_PIECES);
	assert_int_equal(atomic_load(&nodes[1].n_asked) + atomic_load(&nodes[2].n_asked), 0);
	seeds = NULL;
	for (unsigned i = 0; i < N; i++)
		end(&nodes[i]);
}

static void count_found(void *arg, const char *member, const char *text, size_t size)
{
	unsigned *n = arg;

	assert_true(strcmp(member, names[1]) == 0 || strcmp(member, names[2]) == 0);
	assert_int_equal(size, strlen("the tail"));
	assert_memory_equal(text, "the tail", size);
	(*n)++;
}

static void everyone_is_asked_and_who_is_gone_is_left_out(void **state)
{
	static const struct flip_peer_blob blob = { .kind = "layer", .digest = DIGEST };
	struct node nodes[3];
	unsigned n = 0;

	for (unsigned i = 0; i < 3; i++) /* the fourth of them is not there */
		start(&nodes[i], names[i], members, secret);
	assert_int_equal(flip_peers_everyone(nodes[0].peers, &blob, "tail", count_found, &n, NULL), 2);
	assert_int_equal(n, 2);
	assert_int_equal(flip_peers_everyone(nodes[0].peers, &blob, "nothing", count_found, &n, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		end(&nodes[i]);
}

static void stopping_ends_what_is_under_way(void **state)
{
	static const struct flip_peer_blob blob = { .kind = "layer", .digest = DIGEST };
	struct flip_peer_piece pieces[N_PIECES];
	struct node nodes[2];

	for (unsigned round = 0; round < 5; round++) {
		struct result r = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, .n_left = N_PIECES };

		start(&nodes[0], names[0], pair, secret);
		start(&nodes[1], names[1], pair, secret);
		for (unsigned i = 0; i < N_PIECES; i++)
			pieces[i] = (struct flip_peer_piece){ (uint64_t)i * PIECE, PIECE, 0 };
		assert_int_equal(flip_peers_read(nodes[0].peers, &blob, pieces, N_PIECES, FLIP_PREFETCH,
		                                 FLIP_PEER_RELAY, NULL, done, &r),
		                 0);
		(void)usleep(round * 3000);
		flip_peers_stop(nodes[0].peers);
		pthread_mutex_lock(&r.lock);
		assert_int_equal(r.n_left, 0); /* each was told, one way or the other */
		pthread_mutex_unlock(&r.lock);
		end(&nodes[0]);
		end(&nodes[1]);
	}
}

static void neither_secret_nor_certificates_is_refused(void **state)
{
	struct flip_peers_opts o = { .listen = names[0], .members = members };
	struct flip_peers *p = NULL;

	assert_int_equal(flip_peers_new(&o, &p, NULL), -EACCES);
	o.listen = "";
	assert_int_equal(flip_peers_new(&o, &p, NULL), 0);
	assert_null(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(owners_fetch_what_others_ask_for_and_each_piece_once),
		cmocka_unit_test(who_is_gone_is_left_out_and_the_next_is_the_owner),
		cmocka_unit_test(another_secret_is_another_cluster),
		cmocka_unit_test(who_may_not_have_it_gets_nothing_and_goes_to_the_registry),
		cmocka_unit_test(holders_give_what_they_have_and_fetch_nothing),
		cmocka_unit_test(blame_leaves_a_member_out_at_once),
		cmocka_unit_test(documents_come_from_whoever_has_them),
		cmocka_unit_test(seeds_own_nothing_and_are_asked_in_the_origins_place),
		cmocka_unit_test(everyone_is_asked_and_who_is_gone_is_left_out),
		cmocka_unit_test(stopping_ends_what_is_under_way),
		cmocka_unit_test(neither_secret_nor_certificates_is_refused),
	};

	struct err err = { 0 };
	int r;

	own_network();
	base_log_set_level(BASE_LOG_ERROR);
	r = cmocka_run_group_tests(tests, choose_ports, NULL);
	if (peer_fabric_check("tcp", &err) < 0) {
		print_message("by libfabric: skipped: %s\n", err_text(&err));
		return r;
	}
	transport = "fabric";
	return cmocka_run_group_tests(tests, choose_ports, NULL) + r;
}
