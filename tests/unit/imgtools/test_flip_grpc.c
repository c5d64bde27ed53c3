/* gRPC over unix sockets: our client with our server, and the small encodings. */
#include "flip_grpc_test.h"

/* ---- Client and server ---- */

static void a_message_comes_back_whatever_its_size(void **state)
{
	assert_comes_back(*state);
}

static void a_request_beyond_four_mebibytes_is_refused(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };
	struct err err = { 0 };
	size_t size = (4 << 20) + 1;
	char *data = calloc(1, size);

	assert_int_equal(call(f, "/test/Echo", data, size, &got, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "4 MiB"));
	assert_int_equal(call(f, "/test/Echo", "x", 1, &got, NULL), 0); /* the connection goes on */
	free(data);
}

static void an_error_comes_with_its_words(void **state)
{
	static const char name[] = "\xc3\xa4\xe5\x90\x8d%41";
	struct fixture *f = *state;
	struct got got = { 0 };
	struct err err = { 0 };

	assert_int_equal(call(f, "/test/Fail", name, strlen(name), &got, &err), -ENOENT);
	assert_string_equal(err.msg, "100 % of \"\xc3\xa4\xe5\x90\x8d%41\" is gone");
	assert_int_equal(got.n, 0);
}

static void an_error_may_follow_a_message(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };
	struct err err = { 0 };

	assert_int_equal(call(f, "/test/Half", "", 0, &got, &err), -EBUSY);
	assert_string_equal(err.msg, "no second");
	assert_string_equal(got.last, "first");
}

static void an_unknown_method_is_unimplemented(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };

	assert_int_equal(call(f, "/test/None", "", 0, &got, NULL), -ENOTSUP);
	assert_int_equal(call(f, "/test/Echo/", "", 0, &got, NULL), -ENOTSUP);
}

static void a_stream_of_messages_arrives_in_order(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };

	assert_int_equal(call(f, "/test/Count", "1500", 5, &got, NULL), 0);
	assert_int_equal(got.n, 1500);
	assert_string_equal(got.last, "1499");
	assert_int_equal(call(f, "/test/Count", "0", 2, &got, NULL), 0);
	assert_int_equal(got.n, 0);
}

static void a_stream_that_is_stopped_cancels_its_handler(void **state)
{
	struct fixture *f = *state;
	struct got got = { .stop_at = 3 };

	assert_int_equal(call(f, "/test/Count", "100000", 7, &got, NULL), 77);
	wait_for(&f->n_ended, 1);
	assert_int_equal(f->n_canceled, 1);
	got.stop_at = 0;
	assert_int_equal(call(f, "/test/Echo", "x", 1, &got, NULL), 0);
}

static void a_handler_sleeps_while_the_peer_does_not_read(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_stream *st;
	const void *data;
	size_t size, n = 0;
	unsigned sent;

	assert_int_equal(flip_grpc_stream_open(f->client, "/test/Count", NULL, 0, 0, &st, NULL), 0);
	assert_int_equal(flip_grpc_stream_send(st, "5000", 5, true, NULL), 0);
	assert_int_equal(flip_grpc_stream_receive(st, &data, &size, NULL), 1);
	do { /* until it stands still */
		sent = f->n_sent;
		(void)usleep(50000);
	} while (sent != f->n_sent);
	assert_true(sent < 2500); /* windows and buffers are below 25 MB together */
	while (flip_grpc_stream_receive(st, &data, &size, NULL) == 1)
		n++;
	assert_int_equal(n + 1, 5000);
	flip_grpc_stream_close(st);
}

static void a_call_that_takes_too_long_is_canceled(void **state)
{
	struct fixture *f = *state;

	/* On a busy machine the time may be over before a handler has begun. */
	for (uint32_t ms = 50; f->n_started == 0; ms *= 2) {
		struct err err = { 0 };

		assert_int_equal(flip_grpc_call(f->client, "/test/Wait", NULL, 0, "", 0, ms, NULL, NULL, &err),
		                 -ETIMEDOUT);
		assert_true(strlen(err.msg) > 0);
	}
	assert_all_canceled(f);
}

static void what_waits_for_a_handler_can_be_canceled(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_client *others[4];
	struct flip_grpc_stream *streams[4];

	for (int i = 0; i < 4; i++) { /* all four handlers are busy */
		assert_int_equal(flip_grpc_connect(f->socket, &others[i], NULL), 0);
		assert_int_equal(flip_grpc_stream_open(others[i], "/test/Wait", NULL, 0, 0, &streams[i], NULL), 0);
		assert_int_equal(flip_grpc_stream_send(streams[i], "", 0, true, NULL), 0);
	}
	wait_for(&f->n_started, 4);
	assert_int_equal(flip_grpc_call(f->client, "/test/Wait", NULL, 0, "", 0, 50, NULL, NULL, NULL), -ETIMEDOUT);
	for (int i = 0; i < 4; i++) {
		flip_grpc_stream_close(streams[i]);
		flip_grpc_close(others[i]);
	}
	wait_for(&f->n_ended, 4);
	assert_int_equal(f->n_started, 4); /* the fifth never began */
}

static void *many_calls(void *arg)
{
	struct fixture *f = arg;
	struct flip_grpc_client *c;
	struct got got = { 0 };
	char text[32];

	assert_int_equal(flip_grpc_connect(f->socket, &c, NULL), 0);
	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(text, sizeof(text), "%u of %p", i, (void *)&got);
		assert_int_equal(flip_grpc_call(c, "/test/Echo", NULL, 0, text, strlen(text), 0, on_reply, &got, NULL),
		                 0);
		assert_string_equal(got.last, text);
	}
	flip_grpc_close(c);
	return NULL;
}

static void many_clients_are_served_at_a_time(void **state)
{
	struct fixture *f = *state;
	pthread_t threads[8];

	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many_calls, f), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void a_client_finds_a_server_that_was_started_again(void **state)
{
	struct fixture *f = *state;
	struct got got = { 0 };

	assert_int_equal(call(f, "/test/Echo", "a", 1, &got, NULL), 0);
	flip_grpc_stop(f->server);
	assert_int_equal(call(f, "/test/Echo", "b", 1, &got, NULL), -ENOENT);
	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 4, &f->server, NULL), 0);
	assert_int_equal(call(f, "/test/Echo", "c", 1, &got, NULL), 0);
	assert_string_equal(got.last, "c");
}

static void *stop_server(void *arg)
{
	flip_grpc_stop(((struct fixture *)arg)->server);
	return NULL;
}

static void stopping_ends_the_calls_that_run(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_stream *st;
	struct err err = { 0 };
	pthread_t thread;
	const void *data;
	size_t size;
	int r;

	assert_int_equal(flip_grpc_stream_open(f->client, "/test/Wait", NULL, 0, 0, &st, NULL), 0);
	assert_int_equal(flip_grpc_stream_send(st, "", 0, true, NULL), 0);
	wait_for(&f->n_started, 1);
	assert_int_equal(pthread_create(&thread, NULL, stop_server, f), 0);
	r = flip_grpc_stream_receive(st, &data, &size, &err);
	assert_int_equal(pthread_join(thread, NULL), 0);
	f->server = NULL;
	assert_int_equal(r, -EAGAIN);
	assert_string_equal(err.msg, "the server stops");
	assert_int_equal(f->n_ended, 1); /* its handler was waited for */
	assert_int_equal(f->n_canceled, 1);
	flip_grpc_stream_close(st);
	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 4, &f->server, NULL), 0);
}

static void a_socket_is_taken_over_only_from_the_dead(void **state)
{
	struct fixture *f = *state;
	struct flip_grpc_server *s = NULL;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char path[sizeof(a.sun_path)], too_long[200];
	struct stat st;
	int fd;

	assert_int_equal(flip_grpc_serve(f->socket, methods, f, 1, &s, NULL), -EADDRINUSE);
	assert_int_equal(stat(f->socket, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);

	(void)snprintf(path, sizeof(path), "%s/dead", f->dir);
	memcpy(a.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	(void)close(fd);
	assert_int_equal(flip_grpc_serve(path, methods, f, 1, &s, NULL), 0);
	flip_grpc_stop(s);

	fd = creat(path, 0600);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(flip_grpc_serve(path, methods, f, 1, &s, NULL), -EEXIST);
	assert_int_equal(unlink(path), 0);

	memset(too_long, 'a', sizeof(too_long));
	too_long[sizeof(too_long) - 1] = '\0';
	assert_int_equal(flip_grpc_serve(too_long, methods, f, 1, &s, NULL), -ENAMETOOLONG);
}

/* ---- The small encodings ---- */

static void timeouts_are_read(void **state)
{
	static const struct {
		const char *text;
		uint64_t ns; /* 0: refused */
	} cases[] = {
		{ "1n", 1 },
		{ "5u", 5000 },
		{ "7m", 7000000 },
		{ "2S", 2000000000 },
		{ "1M", 60000000000 },
		{ "1H", 3600000000000 },
		{ "99999999H", UINT64_MAX / 4 },
		{ "", 0 },
		{ "m", 0 },
		{ "1", 0 },
		{ "1x", 0 },
		{ "-1m", 0 },
		{ "123456789m", 0 },
		{ " 1m", 0 },
	};
	uint64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		ns = 0;
		assert_int_equal(flip_grpc_timeout_parse(cases[i].text, strlen(cases[i].text), &ns),
		                 cases[i].ns ? 0 : -EBADMSG);
		assert_true(ns == cases[i].ns);
	}
}

static void messages_are_escaped_and_cut_at_an_escape(void **state)
{
	char text[32], back[32];

	(void)state;
	flip_grpc_percent_encode("a\n%\xc3\xa4 z", text, sizeof(text));
	assert_string_equal(text, "a%0A%25%C3%A4 z");
	flip_grpc_percent_decode(text, strlen(text), back, sizeof(back));
	assert_string_equal(back, "a\n%\xc3\xa4 z");
	flip_grpc_percent_encode("abc\n", text, 6); /* no room for three more */
	assert_string_equal(text, "abc");
	flip_grpc_percent_decode("%4%zz%", 6, back, sizeof(back));
	assert_string_equal(back, "%4%zz%");
}

static void errnos_become_statuses_and_come_back(void **state)
{
	static const int errors[] = { -EEXIST, -ENOENT, -EINVAL, -EBUSY, -ENOTSUP, -ECANCELED, -ETIMEDOUT, -EAGAIN };

	(void)state;
	assert_int_equal(flip_grpc_status_of(0), FLIP_GRPC_OK);
	assert_int_equal(flip_grpc_status_of(-EEXIST), FLIP_GRPC_ALREADY_EXISTS);
	assert_int_equal(flip_grpc_status_of(-EBUSY), FLIP_GRPC_FAILED_PRECONDITION);
	assert_int_equal(flip_grpc_status_of(-EXDEV), FLIP_GRPC_UNKNOWN);
	assert_int_equal(flip_grpc_errno_of(99), -EIO);
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		assert_int_equal(flip_grpc_errno_of(flip_grpc_status_of(errors[i])), errors[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(a_message_comes_back_whatever_its_size),
		T(a_request_beyond_four_mebibytes_is_refused),
		T(an_error_comes_with_its_words),
		T(an_error_may_follow_a_message),
		T(an_unknown_method_is_unimplemented),
		T(a_stream_of_messages_arrives_in_order),
		T(a_stream_that_is_stopped_cancels_its_handler),
		T(a_handler_sleeps_while_the_peer_does_not_read),
		T(a_call_that_takes_too_long_is_canceled),
		T(what_waits_for_a_handler_can_be_canceled),
		T(many_clients_are_served_at_a_time),
		T(a_client_finds_a_server_that_was_started_again),
		T(stopping_ends_the_calls_that_run),
		T(a_socket_is_taken_over_only_from_the_dead),
		cmocka_unit_test(timeouts_are_read),
		cmocka_unit_test(messages_are_escaped_and_cut_at_an_escape),
		cmocka_unit_test(errnos_become_statuses_and_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
