/* What the tests of the way by libfabric share: a member of a cluster (with HTTP beside it) that has bytes, who asks
 * for them through the transport's table, and the providers that are here. */
#ifndef FABRIC_TEST_H
#define FABRIC_TEST_H

#include "test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
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

/* ---- A member ---- */

static inline int allow(void *arg, const struct flip_peer_ask *ask, struct err *err)
{
	return 0;
}

static inline int give_content(void *arg, const struct flip_peer_ask *ask, const char *name, uint64_t offset,
                               uint64_t size, int *ret_fd, uint64_t *ret_size, struct err *err)
{
	*ret_fd = dup(content_fd);
	*ret_size = CONTENT;
	return *ret_fd < 0 ? -errno : 0;
}

static inline struct flip_peers *start_member(const char *transport)
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

static inline bool tick(void *arg)
{
	return false;
}

static inline void open_asker(struct asker *a)
{
	struct peer_transport_opts o = { .o = &a->o, .token = token, .counts = &a->counts, .tick = tick };

	*a = (struct asker){ .o = { .fabric_provider = provider } };
	assert_int_equal(peer_transport_fabric.open(&o, &a->way, NULL), 0);
}

static inline void close_asker(struct asker *a)
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

static inline int on_head(void *arg, const struct peer_head *head)
{
	struct result *x = arg;

	pthread_mutex_lock(&x->lock);
	x->status = head->status;
	pthread_cond_signal(&x->cond);
	pthread_mutex_unlock(&x->lock);
	return 0;
}

static inline int on_data(void *arg, const void *data, size_t size)
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

static inline void on_end(void *arg, int r, const char *why)
{
	struct result *x = arg;

	pthread_mutex_lock(&x->lock);
	assert_false(x->has_ended);
	x->has_ended = true;
	x->r = r;
	pthread_cond_signal(&x->cond);
	pthread_mutex_unlock(&x->lock);
}

static inline void begin(struct asker *a, struct result *x, const char *fabric, uint64_t first, uint64_t last,
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

static inline void await(struct result *x)
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

static inline void expect_bytes(struct asker *a, const char *fabric, uint64_t first, uint64_t last)
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

/* ---- For groups of tests ---- */

static inline int prepare(void **state)
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

static inline int tidy(void **state)
{
	peer_token_free(token);
	free(content);
	(void)close(content_fd);
	return unlink(token_file);
}

/* Takes up the next provider that is here: tcp, and the old one for sockets. */
static inline bool next_provider(void)
{
	static const char *const providers[] = { "tcp", "sockets" };
	static size_t next;

	while (next < sizeof(providers) / sizeof(*providers)) {
		struct err err = { 0 };

		provider = providers[next++];
		if (peer_fabric_check(provider, &err) == 0)
			return true;
		print_message("%s: skipped: %s\n", provider, err_text(&err));
	}
	return false;
}

#endif
