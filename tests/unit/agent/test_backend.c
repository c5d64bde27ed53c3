/* The API client against a server in this process, and starting an engine with a fake one. */
#include "fake_server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "agent.h"

static struct ag_backend *open_backend(struct fake_server *s, const char *suffix, const char *key_file,
                                       uint32_t timeout_ms)
{
	struct ag_backend *b = NULL;
	struct err err = { 0 };
	char url[128];

	(void)snprintf(url, sizeof(url), "%s%s", s->url, suffix);
	if (ag_backend_open(url, key_file, timeout_ms, &b, &err) < 0)
		fail_msg("%s", err_text(&err));
	return b;
}

/* Asks once; the result, the answer's text and the error's words. */
static int ask(const char *http_answer, char *text, size_t size, struct err *err, char *request, size_t request_size)
{
	const char *const answers[] = { http_answer, NULL };
	struct base_buf answer = BASE_BUF_INIT(4096);
	json_t *messages = ag_cmd_messages("m", "list files");
	struct ag_backend *b;
	static struct fake_server s;
	int r;

	fake_start(&s, answers);
	b = open_backend(&s, "/v1/", NULL, 2000);
	r = ag_backend_ask(b, "m\"1", messages, 64, &answer, err);
	ag_backend_close(b);
	fake_stop(&s);
	(void)snprintf(text, size, "%s", base_buf_text(&answer));
	if (request)
		(void)memcpy(request, s.requests[0], request_size < FAKE_REQUEST ? request_size : FAKE_REQUEST);
	base_buf_done(&answer);
	json_decref(messages);
	return r;
}

static void an_answer_arrives_and_the_request_is_greedy(void **state)
{
	char text[256];
	static char request[FAKE_REQUEST];
	struct err err = { 0 };

	(void)state;
	assert_int_equal(
	        ask(FAKE_JSON("200 OK", "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"ls -l\"}}]}"),
	            text, sizeof(text), &err, request, sizeof(request)),
	        0);
	assert_string_equal(text, "ls -l");
	assert_non_null(strstr(request, "POST /v1/chat/completions HTTP/1.1\r\n"));
	assert_non_null(strstr(request, "\"temperature\":0"));
	assert_non_null(strstr(request, "\"max_tokens\":64"));
	assert_non_null(strstr(request, "\"model\":\"m\\\"1\""));
	assert_non_null(strstr(request, "\"content\":\"list files\""));
	assert_null(strstr(request, "chat_template_kwargs")); /* not for servers of others */
}

static void failures_are_sentences_with_the_servers_words(void **state)
{
	static const struct {
		const char *answer, *words;
	} cases[] = {
		{ FAKE_JSON("400 Bad Request", "{\"error\":{\"message\":\"no such model\",\"type\":\"x\"}}"),
		  "answered with status 400: no such model" },
		{ FAKE_JSON("401 Unauthorized", "{\"error\":\"bad key\"}"), "status 401: bad key" },
		{ FAKE_JSON("500 Internal Server Error", "<html>"), "answered with status 500" },
		{ FAKE_JSON("200 OK", "not json"), "the answer is not JSON" },
		{ FAKE_JSON("200 OK", "{}"), "no choices[0].message.content" },
		{ FAKE_JSON("200 OK", "{\"choices\":[{\"message\":{\"content\":5}}]}"),
		  "no choices[0].message.content" },
		{ FAKE_JSON("200 OK", "[]"), "no choices[0].message.content" },
	};
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct err err = { 0 };
		int r = ask(cases[i].answer, text, sizeof(text), &err, NULL, 0);

		if (r >= 0 || !strstr(err_text(&err), cases[i].words))
			print_error("%s\n  -> %d %s\n", cases[i].answer, r, err_text(&err));
		assert_true(r < 0);
		assert_non_null(strstr(err_text(&err), cases[i].words));
		assert_string_equal(text, "");
	}
}

static void an_empty_answer_is_no_error_of_the_client(void **state)
{
	struct err err = { 0 };
	char text[256];

	(void)state;
	assert_int_equal(ask(FAKE_JSON("200 OK", "{\"choices\":[{\"message\":{\"content\":null}}]}"), text,
	                     sizeof(text), &err, NULL, 0),
	                 0);
	assert_string_equal(text, "");
}

static void the_first_model_is_found(void **state)
{
	static const char *const answers[] = { FAKE_JSON("200 OK",
		                                         "{\"data\":[{\"id\":\"ocai-mini\"},{\"id\":\"b\"}]}"),
		                               FAKE_JSON("200 OK", "{\"data\":[]}"), NULL };
	struct base_buf id = BASE_BUF_INIT(64);
	struct err err = { 0 };
	struct ag_backend *b;
	static struct fake_server s;

	(void)state;
	fake_start(&s, answers);
	b = open_backend(&s, "", NULL, 2000);
	assert_int_equal(ag_backend_model(b, &id, &err), 0);
	assert_string_equal(base_buf_text(&id), "ocai-mini");
	assert_int_equal(ag_backend_model(b, &id, &err), -EBADMSG);
	assert_non_null(strstr(err_text(&err), "serves no model"));
	ag_backend_close(b);
	fake_stop(&s);
	base_buf_done(&id);
}

static void health_tells_ready_loading_and_absent_apart(void **state)
{
	static const char *const answers[] = { FAKE_JSON("200 OK", "{}"), FAKE_JSON("503 Service Unavailable", "{}"),
		                               FAKE_JSON("404 Not Found", "{}"), NULL };
	struct err err = { 0 };
	struct ag_backend *b;
	static struct fake_server s;

	(void)state;
	fake_start(&s, answers);
	b = open_backend(&s, "", NULL, 2000);
	assert_int_equal(ag_backend_health(b, &err), 0);
	assert_int_equal(ag_backend_health(b, &err), -EAGAIN);
	assert_int_equal(ag_backend_health(b, &err), -EIO);
	fake_stop(&s);
	assert_int_equal(ag_backend_health(b, &err), -ECONNREFUSED);
	assert_non_null(strstr(err_text(&err), "no server answers at http://127.0.0.1:"));
	ag_backend_close(b);
	assert_int_equal(ag_backend_open("unix:/nonexistent/x.sock", NULL, 1000, &b, &err), 0);
	assert_int_equal(ag_backend_health(b, &err), -ECONNREFUSED);
	ag_backend_close(b);
}

static void a_silent_server_is_a_timeout(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct base_buf id = BASE_BUF_INIT(64);
	socklen_t len = sizeof(in);
	struct ag_backend *b = NULL;
	struct err err = { 0 };
	char url[64];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	assert_int_equal(listen(fd, 4), 0); /* the kernel accepts, nobody answers */
	(void)snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(in.sin_port));
	assert_int_equal(ag_backend_open(url, NULL, 100, &b, &err), 0);
	assert_int_equal(ag_backend_model(b, &id, &err), -ETIMEDOUT);
	assert_non_null(strstr(err_text(&err), "did not answer within 1 seconds"));
	ag_backend_close(b);
	base_buf_done(&id);
	(void)close(fd);
}

static void addresses_are_checked(void **state)
{
	static const char *const bad[] = { "localhost:8080", "ftp://x", "unix:relative", "" };
	struct ag_backend *b = NULL;
	struct err err = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(ag_backend_open(bad[i], NULL, 1000, &b, &err), -EINVAL);
	assert_null(b);
	assert_int_equal(ag_backend_open("http://x", "/nonexistent/key", 1000, &b, &err), -ENOENT);
}

/* ---- The engine of this user, with a script in its place ---------------------------------------------- */

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/ocai-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* An executable script; its path in a static buffer. */
static const char *script(const char *text)
{
	static char path[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/fake-engine", dir);
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fputs(text, f);
	assert_int_equal(fchmod(fileno(f), 0755), 0);
	assert_int_equal(fclose(f), 0);
	return path;
}

static int ensure(const char *program, const char *runtime, uint32_t timeout_ms, struct err *err)
{
	const struct ag_engine_options o = { .program = program,
		                             .runtime_dir = runtime,
		                             .start_timeout_ms = timeout_ms };
	struct base_buf url = BASE_BUF_INIT(4096);
	int r = ag_engine_ensure(&o, &url, err);

	base_buf_done(&url);
	return r;
}

static void a_missing_engine_is_named(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ensure("/nonexistent/ocai-engine", dir, 500, &err), -ENOENT);
	assert_string_equal(err_text(&err), "/nonexistent/ocai-engine: no such program");
}

static void an_engine_that_fails_is_reported_with_its_log(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ensure(script("#!/bin/sh\necho \"args: $*\"\necho 'cannot open the model' >&2\nexit 3\n"), dir,
	                        60000, &err),
	                 -ECHILD);
	assert_non_null(
	        strstr(err_text(&err), "the engine ended with status 3; its log ends: args: serve --host= --socket "));
	assert_non_null(strstr(err_text(&err), "/engine.sock --idle-exit 900 cannot open the model"));
}

static void an_engine_that_hangs_is_given_up_and_ended(void **state)
{
	char pid_file[128], line[32] = "";
	pid_t pid;
	struct err err = { 0 };
	char text[256];
	FILE *f;

	(void)state;
	(void)snprintf(pid_file, sizeof(pid_file), "%s/pid", dir);
	(void)snprintf(text, sizeof(text), "#!/bin/sh\necho $$ >%s\nexec sleep 600\n", pid_file);
	assert_int_equal(ensure(script(text), dir, 4000, &err), -ETIMEDOUT);
	assert_non_null(strstr(err_text(&err), "not ready in time"));
	f = fopen(pid_file, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	(void)fclose(f);
	pid = (pid_t)strtol(line, NULL, 10);
	for (int i = 0; i < 3000 && kill(pid, 0) == 0; i++) {
		(void)waitpid(pid, NULL, WNOHANG);
		(void)usleep(20000);
	}
	assert_int_equal(kill(pid, 0), -1);
}

/* An engine on its way out: says so to two callers, then there is nobody. */
static void *leave(void *arg)
{
	int listener = *(int *)arg;
	char request[4096], path[128];

	for (int i = 0; i < 2; i++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		fake_read(fd, request, sizeof(request));
		(void)!write(fd, FAKE_JSON("503 Unavailable", "{}"), sizeof(FAKE_JSON("503 Unavailable", "{}")) - 1);
		if (i == 1) {
			(void)snprintf(path, sizeof(path), "%s/engine.sock", dir);
			(void)unlink(path);
		}
		(void)close(fd);
	}
	(void)close(listener);
	return NULL;
}

static void an_engine_that_is_leaving_is_replaced(void **state)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct err err = { 0 };
	pthread_t thread;

	(void)state;
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s/engine.sock", dir);
	assert_int_equal(bind(listener, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(listener, 8), 0);
	assert_int_equal(pthread_create(&thread, NULL, leave, &listener), 0);
	/* That the next one fails is what tells that it was started. */
	assert_int_equal(ensure(script("#!/bin/sh\necho 'the next one' >&2\nexit 4\n"), dir, 60000, &err), -ECHILD);
	assert_non_null(strstr(err_text(&err), "ended with status 4; its log ends: the next one"));
	(void)pthread_join(thread, NULL);
}

static void a_program_that_cannot_be_executed_is_an_error(void **state)
{
	struct err err = { 0 };

	(void)state;
	assert_int_equal(ensure(script("#!/nonexistent/interpreter\n"), dir, 60000, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "fake-engine: No such file"));
}

static void folders_of_others_are_not_used(void **state)
{
	struct err err = { 0 };
	char path[256];

	(void)state;
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(ensure("/bin/true", dir, 500, &err), -EPERM);
	assert_non_null(strstr(err_text(&err), "others have access"));
	assert_int_equal(chmod(dir, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/link", dir);
	assert_int_equal(symlink(dir, path), 0);
	assert_int_equal(ensure("/bin/true", path, 500, &err), -ENOTDIR);
	(void)snprintf(path, sizeof(path), "%s/%060d/%040d", dir, 1, 1);
	assert_int_equal(ensure("/bin/true", path, 500, &err), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_arrives_and_the_request_is_greedy),
		cmocka_unit_test(failures_are_sentences_with_the_servers_words),
		cmocka_unit_test(an_empty_answer_is_no_error_of_the_client),
		cmocka_unit_test(the_first_model_is_found),
		cmocka_unit_test(health_tells_ready_loading_and_absent_apart),
		cmocka_unit_test(a_silent_server_is_a_timeout),
		cmocka_unit_test(addresses_are_checked),
		cmocka_unit_test_setup_teardown(a_missing_engine_is_named, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(an_engine_that_fails_is_reported_with_its_log, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(an_engine_that_hangs_is_given_up_and_ended, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(an_engine_that_is_leaving_is_replaced, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(a_program_that_cannot_be_executed_is_an_error, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(folders_of_others_are_not_used, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
