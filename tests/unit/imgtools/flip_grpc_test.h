/* What the tests of gRPC share: a server with a handful of handlers at a socket of its own, a client of it. */
#ifndef FLIP_GRPC_TEST_H
#define FLIP_GRPC_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "test.h"
#include "grpc/grpc.h"
#include "grpc/grpc_internal.h"

struct fixture {
	char dir[64], socket[96];
	struct flip_grpc_server *server;
	struct flip_grpc_client *client;
	atomic_uint n_started, n_ended, n_canceled, n_sent;
	atomic_bool may_go;
};

/* ---- Handlers ---- */

static inline int on_echo(struct flip_grpc_call *call, void *arg, struct err *err)
{
	size_t size;
	const void *data = flip_grpc_request(call, &size);

	(void)arg;
	(void)err;
	return flip_grpc_send(call, data, size);
}

static inline int on_fail(struct flip_grpc_call *call, void *arg, struct err *err)
{
	size_t size;
	const char *text = flip_grpc_request(call, &size);

	(void)arg;
	return err_set(err, -ENOENT, "100 %% of \"%.*s\" is gone", (int)size, text);
}

/* As many messages of 10,000 bytes as the request says, numbered. */
static inline int on_count(struct flip_grpc_call *call, void *arg, struct err *err)
{
	static const char zeros[10000];
	struct fixture *f = arg;
	char message[sizeof(zeros)] = "";
	unsigned n;
	size_t size;
	int r = 0;

	(void)err;
	(void)snprintf(message, sizeof(message), "%s", (const char *)flip_grpc_request(call, &size));
	n = (unsigned)strtoul(message, NULL, 10);
	for (unsigned i = 0; i < n && r == 0; i++) {
		(void)snprintf(message, sizeof(message), "%u", i);
		r = flip_grpc_send(call, message, sizeof(message));
		f->n_sent += r == 0;
	}
	f->n_canceled += r == -ECANCELED;
	f->n_ended++;
	return r;
}

static inline int on_half(struct flip_grpc_call *call, void *arg, struct err *err)
{
	(void)arg;
	(void)flip_grpc_send(call, "first", 5);
	return err_set(err, -EBUSY, "no second");
}

/* Until it is canceled or may go. */
static inline int on_wait(struct flip_grpc_call *call, void *arg, struct err *err)
{
	struct fixture *f = arg;

	(void)err;
	f->n_started++;
	while (!flip_grpc_is_canceled(call) && !f->may_go)
		(void)usleep(1000);
	f->n_canceled += flip_grpc_is_canceled(call);
	f->n_ended++;
	return flip_grpc_send(call, "waited", 6);
}

static const struct flip_grpc_method methods[] = {
	{ "/test/Echo", on_echo }, { "/test/Fail", on_fail }, { "/test/Count", on_count },
	{ "/test/Half", on_half }, { "/test/Wait", on_wait }, { 0 },
};

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/test_flip_grpc.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	(void)snprintf(f->socket, sizeof(f->socket), "%s/socket", f->dir);
	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 4, &f->server, NULL), 0);
	assert_int_equal(flip_grpc_connect(f->socket, &f->client, NULL), 0);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	f->may_go = true;
	flip_grpc_close(f->client);
	flip_grpc_stop(f->server);
	assert_int_equal(access(f->socket, F_OK), -1);
	(void)rmdir(f->dir);
	free(f);
	return 0;
}

static inline void wait_for(const atomic_uint *n, unsigned at_least)
{
	while (*n < at_least)
		(void)usleep(1000);
}

struct got {
	size_t n, size, stop_at;
	char last[64];
};

static inline int on_reply(void *arg, const void *data, size_t size)
{
	struct got *g = arg;

	g->n++;
	g->size = size;
	(void)snprintf(g->last, sizeof(g->last), "%.*s", (int)(size < 60 ? size : 60), (const char *)data);
	return g->stop_at && g->n == g->stop_at ? 77 : 0;
}

static inline int call(struct fixture *f, const char *path, const void *data, size_t size, struct got *got,
                       struct err *err)
{
	memset(got, 0, offsetof(struct got, stop_at));
	return flip_grpc_call(f->client, path, NULL, 0, data, size, 0, on_reply, got, err);
}

/* Handlers that began have ended, all of them canceled. */
static inline void assert_all_canceled(struct fixture *f)
{
	while (f->n_ended != f->n_started)
		(void)usleep(1000);
	assert_int_equal(f->n_canceled, f->n_started);
}

/* Messages of all sizes, by the fixture's client. */
static inline void assert_comes_back(struct fixture *f)
{
	static const size_t sizes[] = { 0, 1, 4, 5, 16384, 65535, 65536, 1000000, 4 << 20 };
	struct got got = { 0 };
	char *data = calloc(1, 4 << 20);

	assert_non_null(data);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		assert_int_equal(call(f, "/test/Echo", data, sizes[i], &got, NULL), 0);
		assert_int_equal(got.n, 1);
		assert_int_equal(got.size, sizes[i]);
	}
	free(data);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
