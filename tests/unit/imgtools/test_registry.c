/* Registries: names, a scripted server that misbehaves, and the real one. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "oci_test.h"
#include "real_registry.h"
#include "registry/registry.h"

/* ---- A server that answers what it is told to ------------------------------------------------------------------ */

/* The answer to the first request that begins with `match` and holds `holds`; each is used `times` times (0: always).
 */
struct rule {
	const char *match, *holds;
	const char *answer; /* status line and headers without Content-Length, or with: sent as they are */
	const char *body;
	int times;
	size_t cut; /* the connection is closed after so many bytes of the body; 0: all is sent */
};

struct server {
	struct rule *rules;
	size_t n;
	int fd;
	unsigned port;
	pthread_t thread;
	struct base_buf log; /* requests, one after the other */
};

static void answer(struct server *s, int fd, const char *request)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);

	for (size_t i = 0; i < s->n; i++) {
		struct rule *r = &s->rules[i];
		size_t len;

		if (r->times < 0 || strncmp(request, r->match, strlen(r->match)) != 0 ||
		    (r->holds && !strstr(request, r->holds)))
			continue;
		if (r->times > 0 && --r->times == 0)
			r->times = -1;
		len = strlen(r->body ? r->body : "");
		(void)base_buf_printf(&b, "HTTP/1.1 %s\r\n", r->answer);
		if (!strstr(r->answer, "Content-Length"))
			(void)base_buf_printf(&b, "Content-Length: %zu\r\n", len);
		(void)base_buf_puts(&b, "Connection: close\r\n\r\n");
		if (strncmp(request, "HEAD", 4) != 0)
			(void)base_buf_append(&b, r->body ? r->body : "", r->cut ? r->cut : len);
		break;
	}
	if (!b.len)
		(void)base_buf_puts(&b, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
	(void)send(fd, b.data, b.len, MSG_NOSIGNAL);
	base_buf_done(&b);
}

static void *serve(void *arg)
{
	struct server *s = arg;
	int fd;

	while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
		struct base_buf request = BASE_BUF_INIT(1 << 20);
		char buf[4096], *end, *length;
		ssize_t n;

		while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
			(void)base_buf_append(&request, buf, (size_t)n);
			end = strstr(request.data, "\r\n\r\n");
			length = strcasestr(request.data, "Content-Length: ");
			if (end && request.len >= (size_t)(end + 4 - request.data) +
			                                  (length ? strtoul(length + 16, NULL, 10) : 0))
				break;
		}
		(void)base_buf_append(&s->log, base_buf_text(&request), request.len);
		answer(s, fd, base_buf_text(&request));
		base_buf_done(&request);
		(void)shutdown(fd, SHUT_WR);
		(void)close(fd);
	}
	return NULL;
}

static void start(struct server *s, struct rule *rules, size_t n)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	*s = (struct server){ .rules = rules, .n = n, .log = BASE_BUF_INIT(1 << 20) };
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(s->fd, 16), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
	s->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct server *s)
{
	(void)shutdown(s->fd, SHUT_RDWR);
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	(void)close(s->fd);
	base_buf_done(&s->log);
}

static size_t count(const struct server *s, const char *text)
{
	size_t n = 0;

	for (const char *p = base_buf_text(&s->log); (p = strstr(p, text)); p++)
		n++;
	return n;
}

static const struct img_registry_opts quick = { .n_retries = 3, .retry_ms = 1 };

static struct img_registry *connect_to(const struct server *s, const struct img_registry_opts *o)
{
	struct img_registry *r = NULL;
	struct err err = { 0 };
	char name[64];

	(void)snprintf(name, sizeof(name), "127.0.0.1:%u/team/app:v1", s->port);
	if (img_registry_open(name, o, &r, &err) < 0)
		fail_msg("%s", err_text(&err));
	return r;
}

#define RULES(...)                             \
	struct rule rules[] = { __VA_ARGS__ }; \
	struct server s;                       \
	struct err err = { 0 };                \
	struct img_registry *r;                \
	(void)state;                           \
	start(&s, rules, sizeof(rules) / sizeof(*rules))

static const struct rule ping = { .match = "GET /v2/ ", .answer = "200 OK" };

/* ---- Names ------------------------------------------------------------------------------------------------------- */

static void names_are_taken_apart_as_docker_does(void **state)
{
	static const struct {
		const char *text, *host, *name, *tag;
	} good[] = {
		{ "debian", "registry-1.docker.io", "library/debian", "latest" },
		{ "docker.io/debian:12", "registry-1.docker.io", "library/debian", "12" },
		{ "org/app:1", "registry-1.docker.io", "org/app", "1" },
		{ "ghcr.io/org/sub/app", "ghcr.io", "org/sub/app", "latest" },
		{ "localhost/x", "localhost", "x", "latest" },
		{ "localhost:5000/x:y", "localhost:5000", "x", "y" },
		{ "[::1]:5000/x:y", "[::1]:5000", "x", "y" },
	};
	static const char *const bad[] = { "",           "UPPER",       "a/../b",           "ghcr.io/",   "ghcr.io/a b",
		                           "ghcr.io/a:", "x@sha256:12", "ghcr.io/a:t/../u", "host.x/a?b", "host.x/a..b",
		                           "a//b",       "ghcr.io/-a",  "evil.x\r\nA: b/c" };
	struct img_reference ref;
	struct err err = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(img_reference_parse(good[i].text, &ref, &err), 0);
		assert_string_equal(ref.host, good[i].host);
		assert_string_equal(ref.name, good[i].name);
		assert_string_equal(ref.tag, good[i].tag);
		img_reference_done(&ref);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(img_reference_parse(bad[i], &ref, &err), -EINVAL);
}

/* ---- The scripted server ---- */

static void a_token_is_fetched_when_asked_for(void **state)
{
	char dir[4096], *auth, realm[64];
	struct img_registry_opts o = quick;
	char *data = NULL, digest[72];
	size_t size = 0;
	char challenge[300] = "";
	RULES(ping,
	      { .match = "GET /v2/team/app/manifests/v1",
	        .holds = "Bearer secret-token",
	        .answer = "200 OK",
	        .body = "{}" },
	      { .match = "GET /v2/team/app/manifests/v1", .answer = challenge },
	      { .match = "GET /token?service=the%20registry&scope=repository%3Ateam%2Fapp%3Apull",
	        .holds = "Basic bWU6cHdk",
	        .answer = "200 OK",
	        .body = "{\"token\":\"secret-token\"}" });

	auth = temp_dir();
	(void)snprintf(realm, sizeof(realm), "http://127.0.0.1:%u/token", s.port);
	(void)snprintf(challenge, sizeof(challenge),
	               "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"%s\",service=\"the registry\","
	               "scope=\"repository:team/app:pull\"",
	               realm);
	(void)snprintf(dir, sizeof(dir), "{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"bWU6cHdk\"}}}", s.port);
	write_text(in_dir(auth, "config.json"), dir);
	o.auth_file = in_dir(auth, "config.json");
	r = connect_to(&s, &o);
	if (img_registry_get_manifest(r, NULL, &data, &size, digest, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_string_equal(data, "{}");
	free(data);
	/* The token is kept for the next request. */
	assert_int_equal(img_registry_get_manifest(r, NULL, &data, &size, digest, &err), 0);
	free(data);
	assert_int_equal(count(&s, "GET /token"), 1);
	img_registry_close(r);
	stop(&s);
	drop_dir(auth);
}

static void a_user_and_password_are_sent_when_asked_for(void **state)
{
	char text[200], *dir;
	struct img_registry_opts o = quick;
	RULES(ping,
	      { .match = "HEAD /v2/team/app/blobs/", .holds = "Authorization: Basic aGVscGVyOnM=", .answer = "200 OK" },
	      { .match = "HEAD /v2/team/app/blobs/",
	        .answer = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"" });

	/* By a credential helper this time. */
	dir = temp_dir();
	write_text(in_dir(dir, "docker-credential-testing"),
	           "#!/bin/sh\nread host\ncase $host in 127.0.0.1:*) echo "
	           "'{\"Username\":\"helper\",\"Secret\":\"s\"}';; *) exit 1;; esac\n");
	assert_int_equal(chmod(in_dir(dir, "docker-credential-testing"), 0755), 0);
	(void)snprintf(text, sizeof(text), "{\"credHelpers\":{\"127.0.0.1:%u\":\"testing\"}}", s.port);
	write_text(in_dir(dir, "config.json"), text);
	{
		char path[8192];

		(void)snprintf(path, sizeof(path), "%s:%s", dir, getenv("PATH"));
		assert_int_equal(setenv("PATH", path, 1), 0);
	}
	o.auth_file = in_dir(dir, "config.json");
	r = connect_to(&s, &o);
	assert_int_equal(img_registry_has_blob(r, "sha256:00", &err), 1);
	img_registry_close(r);
	stop(&s);
	drop_dir(dir);
}

static void refusals_are_explained(void **state)
{
	static const struct {
		const char *answer, *body, *words;
		int r;
	} cases[] = {
		{ "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", "", "user name and password", -EACCES },
		{ "403 Forbidden", "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"pay first\"}]}", "pay first",
		  -EACCES },
		{ "404 Not Found", "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"unknown tag\"}]}",
		  "team/app:v1", -ENOENT },
		{ "429 Too Many Requests", "", "too many requests", -EBUSY },
		{ "418 I'm a teapot", "", "418", -EIO },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *data = NULL, digest[72];
		size_t size = 0;
		RULES(ping,
		      { .match = "GET /v2/team/app/manifests/v1", .answer = cases[i].answer, .body = cases[i].body });

		r = connect_to(&s, &quick);
		assert_int_equal(img_registry_get_manifest(r, NULL, &data, &size, digest, &err), cases[i].r);
		if (!strstr(err_text(&err), cases[i].words))
			fail_msg("%s", err_text(&err));
		assert_null(data);
		img_registry_close(r);
		stop(&s);
	}
}

static void what_may_pass_is_tried_again(void **state)
{
	char *data = NULL, digest[72];
	size_t size = 0;
	RULES(ping, { .match = "GET /v2/team/app/manifests/v1", .answer = "503 Busy", .times = 1 },
	      { .match = "GET /v2/team/app/manifests/v1", .answer = "429 Slow", .times = 1 },
	      { .match = "GET /v2/team/app/manifests/v1",
	        .answer = "200 OK\r\nContent-Length: 10",
	        .body = "half",
	        .times = 1 },
	      { .match = "GET /v2/team/app/manifests/v1", .answer = "200 OK", .body = "whole" });

	r = connect_to(&s, &quick);
	assert_int_equal(img_registry_get_manifest(r, NULL, &data, &size, digest, &err), 0);
	assert_string_equal(data, "whole");
	assert_int_equal(count(&s, "GET /v2/team/app/manifests/v1"), 4);
	free(data);
	img_registry_close(r);
	stop(&s);
}

static const char blob_text[] = "0123456789abcdefghijklmnopqrstuvwxyz";

static void a_broken_download_goes_on_where_it_was(void **state)
{
	char *dir = temp_dir(), *text;
	RULES(ping,
	      { .match = "GET /v2/team/app/blobs/",
	        .holds = "Range: bytes=20-",
	        .answer = "206 Partial",
	        .body = blob_text + 20 },
	      { .match = "GET /v2/team/app/blobs/",
	        .holds = "Range: bytes=10-",
	        .answer = "206 Partial\r\nContent-Length: 26",
	        .body = blob_text + 10,
	        .cut = 10 },
	      { .match = "GET /v2/team/app/blobs/", .answer = "200 OK", .body = blob_text, .cut = 10 });

	r = connect_to(&s, &quick);
	if (img_registry_get_blob(r, digest_of(blob_text, 36), 36, in_dir(dir, "b"), NULL, NULL, &err) < 0)
		fail_msg("%s", err_text(&err));
	text = read_text(in_dir(dir, "b"));
	assert_string_equal(text, blob_text);
	free(text);
	img_registry_close(r);
	stop(&s);
	drop_dir(dir);
}

static void a_server_without_ranges_is_read_from_the_start(void **state)
{
	char *dir = temp_dir(), *text;
	RULES(ping,
	      { .match = "GET /v2/team/app/blobs/", .answer = "200 OK", .body = blob_text, .cut = 30, .times = 1 },
	      { .match = "GET /v2/team/app/blobs/", .answer = "200 OK", .body = blob_text });

	r = connect_to(&s, &quick);
	assert_int_equal(img_registry_get_blob(r, digest_of(blob_text, 36), 36, in_dir(dir, "b"), NULL, NULL, &err), 0);
	text = read_text(in_dir(dir, "b"));
	assert_string_equal(text, blob_text);
	free(text);
	img_registry_close(r);
	stop(&s);
	drop_dir(dir);
}

static void a_blob_that_is_not_what_it_says_leaves_no_file(void **state)
{
	char *dir = temp_dir();
	RULES(ping, { .match = "GET /v2/team/app/blobs/", .answer = "200 OK", .body = blob_text });

	r = connect_to(&s, &quick);
	assert_int_equal(img_registry_get_blob(r, digest_of("x", 1), 36, in_dir(dir, "b"), NULL, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err_text(&err), "digest mismatch"));
	assert_int_equal(img_registry_get_blob(r, digest_of(blob_text, 36), 30, in_dir(dir, "b"), NULL, NULL, &err),
	                 -EBADMSG);
	assert_non_null(strstr(err_text(&err), "longer than its 30 bytes"));
	assert_int_equal(img_registry_get_blob(r, digest_of(blob_text, 36), 40, in_dir(dir, "b"), NULL, NULL, &err),
	                 -EIO);
	assert_int_equal(access(in_dir(dir, "b"), F_OK), -1);
	img_registry_close(r);
	stop(&s);
	drop_dir(dir);
}

static void a_token_does_not_follow_a_redirect_to_another_host(void **state)
{
	char place[200] = "", *dir = temp_dir(), text[200];
	struct img_registry_opts o = quick;
	struct server other;
	struct rule elsewhere[] = { { .match = "GET /stored", .answer = "200 OK", .body = blob_text } };
	RULES(ping, { .match = "GET /v2/team/app/blobs/", .holds = "Authorization: Basic", .answer = place },
	      { .match = "GET /v2/team/app/blobs/", .answer = "401 No\r\nWWW-Authenticate: Basic realm=\"x\"" });

	start(&other, elsewhere, 1);
	(void)snprintf(place, sizeof(place), "307 Elsewhere\r\nLocation: http://localhost:%u/stored", other.port);
	(void)snprintf(text, sizeof(text), "{\"auths\":{\"127.0.0.1:%u\":{\"auth\":\"bWU6cHdk\"}}}", s.port);
	write_text(in_dir(dir, "config.json"), text);
	o.auth_file = in_dir(dir, "config.json");
	r = connect_to(&s, &o);
	if (img_registry_get_blob(r, digest_of(blob_text, 36), 36, in_dir(dir, "b"), NULL, NULL, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_int_equal(count(&other, "GET /stored"), 1);
	assert_int_equal(count(&other, "Authorization"), 0);
	img_registry_close(r);
	stop(&s);
	stop(&other);
	drop_dir(dir);
}

static void a_server_that_is_not_there_is_named(void **state)
{
	struct img_registry *r = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(img_registry_open("127.0.0.1:1/x", &quick, &r, &err), -ECONNREFUSED);
	assert_non_null(strstr(err_text(&err), "127.0.0.1:1"));
	assert_null(r);
}

/* ---- The real one ---- */

static void images_go_to_a_real_registry_and_come_back(void **state)
{
	char *dir = temp_dir(), name[200], command[400];
	unsigned port = own_port();
	struct img_tree *t = img_tree_new();
	struct img_write_plan plan = { .tree = t, .epoch = 0, .compression = IMG_GZIP };
	struct img_image *image = NULL;
	struct err err = { 0 };
	pid_t pid;

	(void)state;
	if (system("command -v docker-registry >/dev/null") != 0) {
		img_tree_free(t);
		drop_dir(dir);
		skip();
	}
	pid = start_registry(dir, port, "", "");
	wait_for_port(port);
	add_file(t, "/etc/name", "pushed");
	add_dir(t, "/empty");
	(void)snprintf(name, sizeof(name), "docker://localhost:%u/team/app:v1", port);
	if (img_image_write(name, &plan, NULL, &err) < 0 || img_image_write(name, &plan, NULL, &err) < 0)
		fail_msg("%s", err_text(&err));
	if (img_image_open(name, NULL, &image, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_text_is(image->tree, "/etc/name", "pushed");
	(void)snprintf(name, sizeof(name), "docker://localhost:%u/team/app@%.72s", port, image->manifest_digest);
	img_image_close(image);
	image = open_image(name);
	assert_non_null(img_tree_find(image->tree, "/empty"));
	img_image_close(image);
	(void)snprintf(name, sizeof(name), "docker://localhost:%u/team/app:v2", port);
	assert_int_equal(img_image_open(name, NULL, &image, &err), -ENOENT);
	assert_non_null(strstr(err_text(&err), "404"));
	if (system("command -v skopeo >/dev/null") == 0) {
		(void)snprintf(command, sizeof(command),
		               "skopeo inspect --tls-verify=false docker://localhost:%u/team/app:v1 >/dev/null", port);
		assert_int_equal(system(command), 0);
	}
	stop_registry(pid);
	img_tree_free(t);
	drop_dir(dir);
}

static void a_certificate_is_checked_unless_told_not_to(void **state)
{
	char *dir = temp_dir(), name[200], tls[10000], command[10000];
	unsigned port = own_port();
	struct img_tree *t = img_tree_new();
	struct img_write_plan plan = { .tree = t, .epoch = 0 };
	struct img_open_opts opts = { 0 };
	struct img_image *image = NULL;
	struct err err = { 0 };
	pid_t pid;

	(void)state;
	(void)snprintf(command, sizeof(command),
	               "command -v docker-registry >/dev/null && openssl req -x509 -newkey rsa:2048 -nodes -days 1 "
	               "-subj /CN=localhost "
	               "-keyout %s/key -out %s/cert >/dev/null 2>&1",
	               dir, dir);
	if (system(command) != 0) {
		img_tree_free(t);
		drop_dir(dir);
		skip();
	}
	(void)snprintf(tls, sizeof(tls), ", tls: {certificate: %s/cert, key: %s/key}", dir, dir);
	pid = start_registry(dir, port, tls, "");
	wait_for_port(port);
	add_file(t, "/f", "by TLS");
	(void)snprintf(name, sizeof(name), "docker://localhost:%u/app:v1", port);
	assert_int_equal(img_image_write(name, &plan, NULL, &err), -EACCES);
	assert_non_null(strstr(err_text(&err), "certificate"));
	plan.insecure = opts.insecure = true;
	if (img_image_write(name, &plan, NULL, &err) < 0 || img_image_open(name, &opts, &image, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_text_is(image->tree, "/f", "by TLS");
	img_image_close(image);
	stop_registry(pid);
	img_tree_free(t);
	drop_dir(dir);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_taken_apart_as_docker_does),
		cmocka_unit_test(a_token_is_fetched_when_asked_for),
		cmocka_unit_test(a_user_and_password_are_sent_when_asked_for),
		cmocka_unit_test(refusals_are_explained),
		cmocka_unit_test(what_may_pass_is_tried_again),
		cmocka_unit_test(a_broken_download_goes_on_where_it_was),
		cmocka_unit_test(a_server_without_ranges_is_read_from_the_start),
		cmocka_unit_test(a_blob_that_is_not_what_it_says_leaves_no_file),
		cmocka_unit_test(a_token_does_not_follow_a_redirect_to_another_host),
		cmocka_unit_test(a_server_that_is_not_there_is_named),
		cmocka_unit_test(a_certificate_is_checked_unless_told_not_to),
		cmocka_unit_test(images_go_to_a_real_registry_and_come_back),
	};

	own_network();
	/* Nobody's own credentials. */
	(void)unsetenv("REGISTRY_AUTH_FILE");
	(void)unsetenv("DOCKER_CONFIG");
	(void)unsetenv("XDG_RUNTIME_DIR");
	(void)setenv("HOME", "/no/such/home", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
