/* The fetcher against the real registry: plain, by TLS with many streams on few connections, with a password, and while
 * it goes away and comes back. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "base/json.h"
#include "fetch/fetch.h"
#include "oci_test.h"
#include "real_registry.h"
#include "registry/registry.h"

enum { BLOB_SIZE = 8 << 20, N_RANGES = 200 };
static uint8_t blob[BLOB_SIZE];
static char digest[72];

/* ---- What passes between client and registry, and how many connections that takes ---- */

struct relay {
	unsigned port, to;
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	unsigned n; /* protected by lock, with threads */
	pthread_t threads[64];
};

struct pair {
	struct relay *relay;
	int fd;
};

static int connect_to(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		                 .sin_port = htons((uint16_t)port),
		                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static bool pass_on(int from, int to)
{
	char buf[65536];
	ssize_t n = recv(from, buf, sizeof(buf), 0), sent = 0;

	while (n > 0 && sent < n) {
		ssize_t k = send(to, buf + sent, (size_t)(n - sent), MSG_NOSIGNAL);

		if (k <= 0)
			return false;
		sent += k;
	}
	return n > 0;
}

static void *relay_pair(void *arg)
{
	struct pair p = *(struct pair *)arg;
	int far = connect_to(p.relay->to);
	struct pollfd fds[2] = { { .fd = p.fd, .events = POLLIN }, { .fd = far, .events = POLLIN } };
	bool goes_on = far >= 0;

	free(arg);
	while (goes_on && poll(fds, 2, -1) > 0) {
		if (fds[0].revents)
			goes_on = pass_on(p.fd, far);
		if (goes_on && fds[1].revents)
			goes_on = pass_on(far, p.fd);
	}
	(void)close(p.fd);
	if (far >= 0)
		(void)close(far);
	return NULL;
}

static void *relay_accept(void *arg)
{
	struct relay *r = arg;
	int fd;

	while ((fd = accept(r->fd, NULL, NULL)) >= 0) {
		struct pair *p = malloc(sizeof(*p));

		*p = (struct pair){ .relay = r, .fd = fd };
		(void)pthread_mutex_lock(&r->lock);
		assert_true(r->n < 64);
		assert_int_equal(pthread_create(&r->threads[r->n++], NULL, relay_pair, p), 0);
		(void)pthread_mutex_unlock(&r->lock);
	}
	return NULL;
}

static void relay_start(struct relay *r, unsigned to)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	*r = (struct relay){ .to = to, .lock = PTHREAD_MUTEX_INITIALIZER };
	r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(r->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(r->fd, 64), 0);
	assert_int_equal(getsockname(r->fd, (struct sockaddr *)&a, &len), 0);
	r->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&r->thread, NULL, relay_accept, r), 0);
}

/* After the client has gone. */
static unsigned relay_stop(struct relay *r)
{
	(void)shutdown(r->fd, SHUT_RDWR);
	assert_int_equal(pthread_join(r->thread, NULL), 0);
	for (unsigned i = 0; i < r->n; i++)
		assert_int_equal(pthread_join(r->threads[i], NULL), 0);
	(void)close(r->fd);
	return r->n;
}

/* ---- A registry with a blob ---- */

struct place {
	char *dir;
	unsigned port;
	pid_t pid;
	char http[5000], rest[5000], ref[64];
};

static bool place_start(struct place *p)
{
	if (system("command -v docker-registry >/dev/null") != 0)
		return false;
	p->dir = temp_dir();
	p->port = own_port();
	(void)snprintf(p->ref, sizeof(p->ref), "localhost:%u/team/app", p->port);
	return true;
}

static void place_run(struct place *p)
{
	p->pid = start_registry(p->dir, p->port, p->http, p->rest);
	wait_for_port(p->port);
}

static void put(const struct place *p, const char *auth_file)
{
	struct img_registry_opts o = { .insecure = true, .auth_file = auth_file };
	struct img_registry *r = NULL;
	struct err err = { 0 };
	int fd = open(in_dir(p->dir, "blob"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, blob, sizeof(blob)), sizeof(blob));
	if (img_registry_open(p->ref, &o, &r, &err) < 0 ||
	    img_registry_put_blob(r, fd, sizeof(blob), digest, NULL, NULL, &err) < 0)
		fail_msg("%s", err_text(&err));
	img_registry_close(r);
	(void)close(fd);
}

static void place_end(struct place *p)
{
	stop_registry(p->pid);
	drop_dir(p->dir);
}

struct told {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct flip_range ranges[N_RANGES];
	size_t n, n_wrong; /* protected by lock, with err */
	struct err err;
};

static void on_range(void *arg, size_t i, int r, const void *data, size_t size, const struct err *err)
{
	struct told *t = arg;
	bool is_right = r == 0 && size == t->ranges[i].size && memcmp(data, blob + t->ranges[i].offset, size) == 0;

	(void)pthread_mutex_lock(&t->lock);
	t->n++;
	t->n_wrong += !is_right;
	if (r < 0)
		t->err = *err;
	(void)pthread_cond_signal(&t->cond);
	(void)pthread_mutex_unlock(&t->lock);
}

static void ask(struct told *t, struct flip_blob *b, enum flip_priority priority)
{
	*t = (struct told){ .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	for (size_t i = 0; i < N_RANGES; i++)
		t->ranges[i] = (struct flip_range){ (BLOB_SIZE / N_RANGES) * ((i * 77) % N_RANGES), 5000 };
	assert_true(flip_blob_read(b, t->ranges, N_RANGES, priority, on_range, t, &t->err) > 0);
}

static void wait_right(struct told *t)
{
	(void)pthread_mutex_lock(&t->lock);
	while (t->n < N_RANGES)
		(void)pthread_cond_wait(&t->cond, &t->lock);
	(void)pthread_mutex_unlock(&t->lock);
	if (t->n_wrong)
		fail_msg("%zu ranges: %s", t->n_wrong, err_text(&t->err));
}

static int compare(void *arg, const void *data, size_t size, struct err *err)
{
	size_t *at = arg;

	assert_memory_equal(data, blob + *at, size);
	*at += size;
	(void)err;
	return 0;
}

/* Ranges of every priority, and all of it. */
static void read_everything(struct flip_fetch *f, const struct place *p)
{
	struct told *t = malloc(FLIP_N_PRIORITIES * sizeof(*t));
	struct flip_blob *b = NULL;
	struct err err = { 0 };
	size_t at = 0;

	assert_non_null(t);
	if (flip_blob_open(f, p->ref, digest, sizeof(blob), &b, &err) < 0)
		fail_msg("%s", err_text(&err));
	for (int i = FLIP_N_PRIORITIES; i-- > 0;)
		ask(&t[i], b, (enum flip_priority)i);
	for (int i = 0; i < FLIP_N_PRIORITIES; i++)
		wait_right(&t[i]);
	if (flip_blob_stream(b, FLIP_FOREGROUND, compare, &at, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_int_equal(at, sizeof(blob));
	flip_blob_close(b);
	free(t);
}

/* ---- Tests ---- */

static void an_image_is_fetched_from_its_tag_to_its_layer(void **state)
{
	struct place p = { 0 };
	struct img_tree *tree = img_tree_new();
	struct img_write_plan plan = { .tree = tree, .epoch = 0, .compression = IMG_GZIP };
	struct flip_fetch *f = NULL;
	char name[200], *data = NULL, found[72], type[128], *config = NULL;
	const char *config_digest;
	struct err err = { 0 };
	json_t *doc;
	size_t size;

	(void)state;
	if (!place_start(&p)) {
		img_tree_free(tree);
		skip();
	}
	place_run(&p);
	add_file(tree, "/etc/name", "pushed");
	(void)snprintf(name, sizeof(name), "docker://%s:v1", p.ref);
	assert_int_equal(img_image_write(name, &plan, NULL, &err), 0);
	put(&p, NULL);
	assert_int_equal(flip_fetch_new(NULL, &f, &err), 0);
	if (flip_fetch_manifest(f, p.ref, "v1", &data, &size, found, type, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_string_equal(type, "application/vnd.oci.image.manifest.v1+json");
	doc = json_loads(data, 0, NULL);
	config_digest = json_string_value(json_object_get(json_object_get(doc, "config"), "digest"));
	if (flip_fetch_manifest(f, p.ref, config_digest, &config, &size, found, type, &err) < 0)
		fail_msg("%s", err_text(&err));
	assert_string_equal(found, config_digest);
	assert_non_null(strstr(config, "rootfs"));
	read_everything(f, &p);
	flip_fetch_free(f);
	json_decref(doc);
	free(data);
	free(config);
	img_tree_free(tree);
	place_end(&p);
}

static void many_streams_share_two_connections(void **state)
{
	struct place p = { 0 };
	struct relay relay;
	char command[10000], ca[4200], endpoint[64];
	struct flip_mirror mirror = { NULL, endpoint };
	struct flip_fetch_opts o = { .mirrors = &mirror, .n_mirrors = 1, .ca_file = ca, .max_coalesce_gap = 1 };
	struct flip_fetch_stat stat;
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	struct err err = { 0 };
	uint8_t data[10];

	(void)state;
	if (!place_start(&p))
		skip();
	(void)snprintf(command, sizeof(command),
	               "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext "
	               "subjectAltName=DNS:localhost -keyout %s/key -out %s/cert >/dev/null 2>&1",
	               p.dir, p.dir);
	assert_int_equal(system(command), 0);
	(void)snprintf(ca, sizeof(ca), "%s/cert", p.dir);
	(void)snprintf(p.http, sizeof(p.http), ", tls: {certificate: %s/cert, key: %s/key}", p.dir, p.dir);
	place_run(&p);
	put(&p, NULL);
	relay_start(&relay, p.port);
	(void)snprintf(endpoint, sizeof(endpoint), "https://localhost:%u", relay.port);
	assert_int_equal(flip_fetch_new(&o, &f, &err), 0);
	read_everything(f, &p);
	flip_fetch_stat(f, &stat);
	assert_true(stat.n_requests > N_RANGES);
	flip_fetch_free(f);
	assert_int_equal(relay_stop(&relay), 2); /* the foreground has its own */
	/* Without its certificate nothing is believed. */
	o.ca_file = NULL;
	(void)snprintf(endpoint, sizeof(endpoint), "https://localhost:%u", p.port);
	assert_int_equal(flip_fetch_new(&o, &f, &err), 0);
	assert_int_equal(flip_blob_open(f, p.ref, digest, sizeof(blob), &b, &err), 0);
	assert_int_equal(flip_blob_read_wait(b, 0, 10, data, FLIP_FOREGROUND, &err), -EACCES);
	assert_non_null(strstr(err_text(&err), "certificate"));
	flip_blob_close(b);
	flip_fetch_free(f);
	place_end(&p);
}

static void a_password_opens_the_real_one(void **state)
{
	struct place p = { 0 };
	char text[200], file[4200];
	struct flip_fetch_opts o = { .retry_ms = 1 };
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	struct err err = { 0 };
	uint8_t data[10];

	(void)state;
	if (!place_start(&p))
		skip();
	/* me:pwd, bcrypt */
	write_text(in_dir(p.dir, "htpasswd"), "me:$2y$05$abcdefghijklmnopqrstuuFMuuBkQrGrwRDUZ30QUNSIGd5YWq3IC\n");
	(void)snprintf(p.rest, sizeof(p.rest), "auth: {htpasswd: {realm: test, path: %s/htpasswd}}\n", p.dir);
	place_run(&p);
	(void)snprintf(text, sizeof(text), "{\"auths\":{\"localhost:%u\":{\"auth\":\"bWU6cHdk\"}}}", p.port);
	(void)snprintf(file, sizeof(file), "%s/config.json", p.dir);
	write_text(file, text);
	put(&p, file);
	assert_int_equal(flip_fetch_new(&o, &f, &err), 0);
	assert_int_equal(flip_blob_open(f, p.ref, digest, sizeof(blob), &b, &err), 0);
	assert_int_equal(flip_blob_read_wait(b, 0, 10, data, FLIP_FOREGROUND, &err), -EACCES);
	flip_blob_close(b);
	flip_fetch_free(f);
	o.auth_file = file;
	assert_int_equal(flip_fetch_new(&o, &f, &err), 0);
	read_everything(f, &p);
	flip_fetch_free(f);
	place_end(&p);
}

static void a_registry_that_comes_back_is_waited_for(void **state)
{
	static const struct flip_fetch_opts o = { .retry_ms = 20, .n_retries = 1000, .max_coalesce_gap = 1 };
	struct place p = { 0 };
	struct flip_fetch *f = NULL;
	struct flip_blob *b = NULL;
	struct told *t = malloc(sizeof(*t));
	struct err err = { 0 };
	uint8_t data[10];

	(void)state;
	assert_non_null(t);
	if (!place_start(&p)) {
		free(t);
		skip();
	}
	place_run(&p);
	put(&p, NULL);
	assert_int_equal(flip_fetch_new(&o, &f, &err), 0);
	assert_int_equal(flip_blob_open(f, p.ref, digest, sizeof(blob), &b, &err), 0);
	assert_int_equal(flip_blob_read_wait(b, 0, 10, data, FLIP_FOREGROUND, &err), 0);
	stop_registry(p.pid);
	ask(t, b, FLIP_FOREGROUND);
	(void)usleep(200000);
	place_run(&p);
	wait_right(t);
	flip_blob_close(b);
	flip_fetch_free(f);
	free(t);
	place_end(&p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_is_fetched_from_its_tag_to_its_layer),
		cmocka_unit_test(many_streams_share_two_connections),
		cmocka_unit_test(a_password_opens_the_real_one),
		cmocka_unit_test(a_registry_that_comes_back_is_waited_for),
	};

	own_network();
	/* Nobody's own credentials. */
	(void)unsetenv("REGISTRY_AUTH_FILE");
	(void)unsetenv("DOCKER_CONFIG");
	(void)unsetenv("XDG_RUNTIME_DIR");
	(void)setenv("HOME", "/no/such/home", 1);
	for (uint32_t i = 0, v = 1; i < sizeof(blob); i++) {
		v = v * 1664525 + 1013904223;
		blob[i] = (uint8_t)(v >> 24);
	}
	(void)snprintf(digest, sizeof(digest), "%s", digest_of(blob, sizeof(blob)));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
