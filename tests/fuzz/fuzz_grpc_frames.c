/* Any bytes as what a peer sends to the gRPC server: the first byte says whether the preface of HTTP/2 is put in front
 * and how large the pieces are. Handlers answer at once, fail, or send until they are canceled. */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grpc/grpc_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_echo(struct flip_grpc_call *call, void *arg, struct err *err)
{
	size_t size;
	const void *data = flip_grpc_request(call, &size);

	return flip_grpc_send(call, data, size);
}

static int on_fail(struct flip_grpc_call *call, void *arg, struct err *err)
{
	return err_set(err, -ENOENT, "nothing\xff");
}

static int on_flood(struct flip_grpc_call *call, void *arg, struct err *err)
{
	static const char zeros[5000];
	int r = 0;

	for (int i = 0; i < 100 && r == 0; i++)
		r = flip_grpc_send(call, zeros, sizeof(zeros));
	return r;
}

static const struct flip_grpc_method methods[] = {
	{ "/a/Echo", on_echo }, { "/a/Fail", on_fail }, { "/a/Flood", on_flood }, { 0 }
};

/* What the session has to say; its length is all that matters. */
static int drain(struct flip_grpc_session *s)
{
	const uint8_t *out;
	size_t n = 1;
	int r = 0;

	while (r == 0 && n > 0)
		r = flip_grpc_session_take(s, &out, &n);
	return r;
}

static int feed(struct flip_grpc_session *s, const uint8_t *data, size_t size, size_t piece)
{
	int r = 0;

	for (size_t at = 0, n; at < size && r == 0; at += n) {
		n = size - at < piece ? size - at : piece;
		r = flip_grpc_session_feed(s, data + at, n);
		if (r == 0)
			r = drain(s);
	}
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
	struct flip_grpc_server *server = NULL;
	struct flip_grpc_session *s = NULL;
	int r = 0;

	if (size == 0)
		return 0;
	if (flip_grpc_server_new(methods, NULL, 2, &server, NULL) < 0)
		return 0;
	if (flip_grpc_session_new(server, &s, NULL) < 0)
		abort();
	if (data[0] & 1)
		r = feed(s, (const uint8_t *)preface, sizeof(preface) - 1, SIZE_MAX);
	if (r == 0)
		r = feed(s, data + 1, size - 1, data[0] & 2 ? 7 : SIZE_MAX);
	/* Answers are on their way: they are taken, once with the calls running and once with all of them ended. */
	for (int i = 0; i < 2 && r == 0; i++) {
		struct pollfd p = { .fd = flip_grpc_server_wake_fd(server), .events = POLLIN };

		(void)poll(&p, 1, 1);
		flip_grpc_server_pump(server);
		(void)flip_grpc_session_expire(s, i ? UINT64_MAX - 1 : flip_grpc_now_ns());
		r = drain(s);
	}
	if (r == 0) {
		flip_grpc_session_goaway(s);
		(void)drain(s);
		(void)flip_grpc_session_is_over(s);
	}
	flip_grpc_session_free(s);
	flip_grpc_server_free(server);
	return 0;
}
