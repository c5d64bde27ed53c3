/* Who we are to a registry: docker's config.json, its credential helpers, and the token that a challenge asks for
 * (the distribution project's token authentication specification; RFC 6750, RFC 7617). Passwords and tokens are in no
 * message and in no log. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "registry_internal.h"

enum { MAX_CONFIG = 4 << 20, MAX_HELPER_OUTPUT = 1 << 16, MAX_FIELD = 2048, HELPER_TIMEOUT_S = 120 };

struct credentials {
	char user[MAX_FIELD], secret[16384];
	bool is_identity_token; /* secret is a refresh token */
};

extern char **environ;

/* ---- base64 (RFC 4648) ----------------------------------------------------------------------------------------- */

static int base64_value(char c)
{
	return c >= 'A' && c <= 'Z'   ? c - 'A'
	       : c >= 'a' && c <= 'z' ? c - 'a' + 26
	       : c >= '0' && c <= '9' ? c - '0' + 52
	       : c == '+' || c == '-' ? 62
	       : c == '/' || c == '_' ? 63
	                              : -1;
}

static int base64_decode(const char *text, char *out, size_t size)
{
	uint32_t bits = 0;
	size_t n = 0, n_bits = 0;

	for (; *text && *text != '='; text++) {
		int v = base64_value(*text);

		if (v < 0)
			return -EBADMSG;
		bits = bits << 6 | (uint32_t)v;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			if (n + 1 >= size)
				return -EFBIG;
			out[n++] = (char)(bits >> n_bits & 0xff);
		}
	}
	out[n] = '\0';
	return 0;
}

static int base64_append(struct base_buf *b, const char *data, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)(unsigned char)data[i] << 16;

		v |= i + 1 < len ? (uint32_t)(unsigned char)data[i + 1] << 8 : 0;
		v |= i + 2 < len ? (uint32_t)(unsigned char)data[i + 2] : 0;
		(void)base_buf_putc(b, digits[v >> 18 & 63]);
		(void)base_buf_putc(b, digits[v >> 12 & 63]);
		(void)base_buf_putc(b, i + 1 < len ? digits[v >> 6 & 63] : '=');
		(void)base_buf_putc(b, i + 2 < len ? digits[v & 63] : '=');
	}
	return base_buf_error(b);
}

/* ---- Credentials ---- */

char *img_registry_find_auth_file(const char *given)
{
	const struct {
		const char *variable, *rest;
	} places[] = { { "REGISTRY_AUTH_FILE", "" },
		       { "DOCKER_CONFIG", "/config.json" },
		       { "HOME", "/.docker/config.json" },
		       { "XDG_RUNTIME_DIR", "/containers/auth.json" } };
	char *path = NULL;

	if (given)
		return strdup(given);
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		const char *base = getenv(places[i].variable);

		if (!base || !base[0] || asprintf(&path, "%s%s", base, places[i].rest) < 0)
			continue;
		if (access(path, R_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}

/* The keys that a host may have in the file, docker.io's old ones included. */
static json_t *entry_for(json_t *object, const char *host)
{
	static const char *const docker[] = { "https://index.docker.io/v1/", "index.docker.io", "docker.io", NULL };
	char key[600];
	json_t *entry = json_object_get(object, host);
	const char *forms[] = { "https://%s", "http://%s", "https://%s/v2/", "https://%s/v1/" };

	for (size_t i = 0; !entry && i < sizeof(forms) / sizeof(*forms); i++) {
		const char *percent = strchr(forms[i], '%');

		(void)snprintf(key, sizeof(key), "%.*s%s%s", (int)(percent - forms[i]), forms[i], host, percent + 2);
		entry = json_object_get(object, key);
	}
	for (size_t i = 0; !entry && strcmp(host, "registry-1.docker.io") == 0 && docker[i]; i++)
		entry = json_object_get(object, docker[i]);
	return entry;
}

/* All that a helper says, as long as somebody still wants to know. */
static int read_helper(const struct img_registry *r, int fd, struct base_buf *out)
{
	struct timespec begun, now;
	int res = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &begun);
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		char buf[4096];
		ssize_t n;

		if (r->opts.is_canceled && r->opts.is_canceled(r->opts.is_canceled_arg) != 0)
			return -ECANCELED;
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - begun.tv_sec > HELPER_TIMEOUT_S)
			return -ETIMEDOUT;
		if (poll(&p, 1, 100) <= 0)
			continue;
		n = read(fd, buf, sizeof(buf));
		if (n <= 0)
			return n < 0 && errno != EINTR ? -errno : 0;
		res = base_buf_append(out, buf, (size_t)n);
		if (res < 0)
			return res;
	}
}

static int spawn_helper(char *program, int in, int out, pid_t *ret_pid)
{
	char *argv[] = { program, (char *)"get", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int r;

	(void)sigemptyset(&none);
	(void)posix_spawnattr_init(&attributes);
	(void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	(void)posix_spawnattr_setsigmask(&attributes, &none); /* this thread may have blocked some */
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawn_file_actions_adddup2(&actions, in, 0);
	(void)posix_spawn_file_actions_adddup2(&actions, out, 1);
	r = posix_spawnp(ret_pid, program, &actions, &attributes, argv, environ) == 0 ? 0 : -ENOENT;
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	return r;
}

/* Runs docker-credential-NAME get with the host on its standard input. The name is a word, not a path. */
static int run_helper(const struct img_registry *registry, const char *name, const char *host, struct base_buf *out)
{
	char program[256];
	int in[2], from[2], r, status = 0;
	pid_t pid = -1;

	if (strchr(name, '/') ||
	    snprintf(program, sizeof(program), "docker-credential-%s", name) >= (int)sizeof(program))
		return -EINVAL;
	/* A socket: a helper that does not listen must not end us with SIGPIPE. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) < 0)
		return -errno;
	if (pipe2(from, O_CLOEXEC) < 0) {
		(void)close(in[0]);
		(void)close(in[1]);
		return -errno;
	}
	r = spawn_helper(program, in[0], from[1], &pid);
	(void)close(in[0]);
	(void)close(from[1]);
	/* The name of a host fits into its buffer whether or not it is read; who does not want it may still answer. */
	if (r == 0)
		(void)send(in[1], host, strlen(host), MSG_NOSIGNAL);
	(void)close(in[1]);
	if (r == 0)
		r = read_helper(registry, from[0], out);
	(void)close(from[0]);
	if (r < 0 && pid > 0)
		(void)kill(pid, SIGKILL);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && (!WIFEXITED(status) || WEXITSTATUS(status) != 0) && r == 0)
		r = -ENOENT;
	return r;
}

static int ask_helper(const struct img_registry *registry, const char *name, struct credentials *c)
{
	const char *host = registry->ref.host;
	struct base_buf out = BASE_BUF_INIT(MAX_HELPER_OUTPUT);
	const char *server = strcmp(host, "registry-1.docker.io") == 0 ? "https://index.docker.io/v1/" : host;
	const char *user, *secret;
	json_t *doc = NULL;
	int r = run_helper(registry, name, server, &out);

	if (r == 0)
		r = base_json_parse("credential helper", out.data, out.len, &doc, NULL);
	base_buf_done(&out);
	if (r < 0)
		return r;
	user = json_string_value(json_object_get(doc, "Username"));
	secret = json_string_value(json_object_get(doc, "Secret"));
	if (!user || !secret || strlen(user) >= sizeof(c->user) || strlen(secret) >= sizeof(c->secret)) {
		r = -ENOENT;
	} else {
		(void)snprintf(c->user, sizeof(c->user), "%s", user);
		(void)snprintf(c->secret, sizeof(c->secret), "%s", secret);
		c->is_identity_token = strcmp(user, "<token>") == 0;
	}
	json_decref(doc);
	return r;
}

static int read_entry(const json_t *entry, struct credentials *c)
{
	const char *auth = json_string_value(json_object_get(entry, "auth"));
	const char *token = json_string_value(json_object_get(entry, "identitytoken"));
	char text[sizeof(c->user) + sizeof(c->secret)], *colon;

	if (auth && auth[0]) {
		if (base64_decode(auth, text, sizeof(text)) < 0 || !(colon = strchr(text, ':')) ||
		    (size_t)(colon - text) >= sizeof(c->user) || strlen(colon + 1) >= sizeof(c->secret))
			return -EBADMSG;
		*colon = '\0';
		(void)memcpy(c->user, text, strlen(text) + 1);
		(void)memcpy(c->secret, colon + 1, strlen(colon + 1) + 1);
	}
	if (token && token[0]) {
		if (strlen(token) >= sizeof(c->secret))
			return -EBADMSG;
		(void)memcpy(c->secret, token, strlen(token) + 1);
		c->is_identity_token = true;
	}
	return c->secret[0] ? 0 : -ENOENT;
}

/* 1: found, 0: none for this host. */
static int find_credentials(const struct img_registry *r, struct credentials *c, struct err *err)
{
	const char *helper;
	json_t *doc = NULL, *entry;
	int res = -ENOENT;

	memset(c, 0, sizeof(*c));
	if (!r->auth_path)
		return 0;
	if (base_json_read_file(r->auth_path, MAX_CONFIG, &doc, err) < 0)
		return err_prefix(err, -EINVAL, "credentials: "); /* the image is not what is missing */
	helper = json_string_value(entry_for(json_object_get(doc, "credHelpers"), r->ref.host));
	entry = entry_for(json_object_get(doc, "auths"), r->ref.host);
	if (helper)
		res = ask_helper(r, helper, c);
	if (res < 0 && entry)
		res = read_entry(entry, c);
	if (res == -EBADMSG)
		(void)err_set(err, res, "%s: the entry of %s cannot be read", r->auth_path, r->ref.host);
	helper = json_string_value(json_object_get(doc, "credsStore"));
	if (res == -ENOENT && helper)
		res = ask_helper(r, helper, c);
	json_decref(doc);
	return res == -EBADMSG ? res : res == 0;
}

/* ---- Challenges ---- */

/* The value of a parameter of 'Bearer realm="...",service="...",scope="..."'. */
static bool challenge_parameter(const char *challenge, const char *name, char *out, size_t size)
{
	size_t len = strlen(name), n = 0;
	const char *p = challenge;

	while ((p = strstr(p, name))) {
		bool starts = p == challenge || p[-1] == ' ' || p[-1] == ',';

		if (starts && p[len] == '=')
			break;
		p += len;
	}
	if (!p)
		return false;
	p += len + 1;
	if (*p == '"') {
		for (p++; *p && *p != '"' && n + 1 < size; p++) {
			if (*p == '\\' && p[1])
				p++;
			out[n++] = *p;
		}
	} else {
		while (*p && *p != ',' && *p != ' ' && n + 1 < size)
			out[n++] = *p++;
	}
	out[n] = '\0';
	return true;
}

static void append_escaped(struct base_buf *b, const char *text)
{
	for (; *text; text++) {
		if (isalnum((unsigned char)*text) || strchr("-._~", *text))
			(void)base_buf_putc(b, *text);
		else
			(void)base_buf_printf(b, "%%%02X", (unsigned char)*text);
	}
}

static int basic_value(const struct credentials *c, char **ret)
{
	struct base_buf plain = BASE_BUF_INIT(1 << 16), b = BASE_BUF_INIT(1 << 16);

	(void)base_buf_printf(&plain, "%s:%s", c->user, c->secret);
	(void)base_buf_puts(&b, "Basic ");
	(void)base64_append(&b, base_buf_text(&plain), plain.len);
	base_buf_done(&plain);
	*ret = base_buf_take(&b);
	return *ret ? 0 : -ENOMEM;
}

/* GET REALM?service=...&scope=..., or POST with a refresh token. */
static int make_token_request(const struct img_registry *r, const char *challenge, const struct credentials *c,
                              struct base_buf *url, struct base_buf *form, struct err *err)
{
	char realm[MAX_FIELD], service[MAX_FIELD] = "", scope[MAX_FIELD] = "";

	if (!challenge_parameter(challenge, "realm", realm, sizeof(realm)))
		return err_set(err, -EBADMSG, "%s: a challenge without a realm", r->ref.host);
	/* The password goes there: where the registry is spoken to safely, so must this be. */
	if (strncmp(realm, "https://", 8) != 0 &&
	    (strncmp(realm, "http://", 7) != 0 || strncmp(r->base, "http://", 7) != 0))
		return err_set(err, -EACCES, "%s: its token service %.200s is no https address", r->ref.host, realm);
	(void)challenge_parameter(challenge, "service", service, sizeof(service));
	(void)challenge_parameter(challenge, "scope", scope, sizeof(scope));
	(void)base_buf_puts(url, realm);
	if (c && c->is_identity_token) {
		(void)base_buf_puts(form, "grant_type=refresh_token&client_id=slimtrace&refresh_token=");
		append_escaped(form, c->secret);
	} else {
		(void)base_buf_putc(url, strchr(realm, '?') ? '&' : '?');
		form = url;
	}
	(void)base_buf_puts(form, form == url ? "service=" : "&service=");
	append_escaped(form, service);
	if (scope[0]) {
		(void)base_buf_puts(form, "&scope=");
		append_escaped(form, scope);
	}
	return base_buf_error(url) || base_buf_error(form) ? err_set(err, -ENOMEM, "out of memory") : 0;
}

static int take_token(const struct img_registry *r, const struct img_exchange *x, char **ret, struct err *err)
{
	const char *token;
	json_t *doc = NULL;
	int res = base_json_parse("token service", x->body.data, x->body.len, &doc, err);

	if (res < 0)
		return res;
	token = json_string_value(json_object_get(doc, "token"));
	if (!token)
		token = json_string_value(json_object_get(doc, "access_token"));
	if (!token || strpbrk(token, "\r\n"))
		res = err_set(err, -EBADMSG, "%s: its token service gave no token", r->ref.host);
	else if (asprintf(ret, "Bearer %s", token) < 0)
		res = err_set(err, -ENOMEM, "out of memory");
	json_decref(doc);
	return res;
}

static int fetch_token(const struct img_registry *r, const char *challenge, const struct credentials *c, char **ret,
                       struct err *err)
{
	struct base_buf url = BASE_BUF_INIT(IMG_REG_MAX_URL), form = BASE_BUF_INIT(1 << 16);
	CLEANUP(freep) char *basic = NULL;
	struct img_exchange x = { .method = "GET",
		                  .verify_off = r->opts.insecure,
		                  .http_allowed = strncmp(r->base, "http://", 7) == 0,
		                  .ca_file = r->ca_file,
		                  .stall_s = r->opts.stall_s,
		                  .is_canceled = r->opts.is_canceled,
		                  .is_canceled_arg = r->opts.is_canceled_arg };
	int res = make_token_request(r, challenge, c, &url, &form, err);

	x.url = base_buf_text(&url);
	if (form.len) {
		x.method = "POST";
		x.data = form.data;
		x.data_size = form.len;
	} else if (res == 0 && c) {
		res = basic_value(c, &basic);
		x.authorization = basic;
	}
	if (res == 0)
		res = img_exchange_run(&x, err);
	if (res == 0 && (x.status == 401 || x.status == 403))
		res = err_set(err, -EACCES, "%s: the token service refuses %s", r->ref.host,
		              c ? "the user name or password" : "anonymous access");
	else if (res == 0 && x.status != 200)
		res = err_set(err, -EIO, "%s: the token service answered %ld", r->ref.host, x.status);
	if (res == 0)
		res = take_token(r, &x, ret, err);
	img_exchange_done(&x);
	base_buf_done(&url);
	base_buf_done(&form);
	return res;
}

int img_registry_authorize(struct img_registry *r, const char *challenge, unsigned seen, struct err *err)
{
	struct credentials *c = malloc(sizeof(*c));
	char *value = NULL;
	int found, res = 0;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_lock(&r->lock);
	if (r->generation == seen) { /* else someone was faster */
		found = find_credentials(r, c, err);
		if (found < 0)
			res = found;
		else if (strncasecmp(challenge, "Bearer ", 7) == 0)
			res = fetch_token(r, challenge, found ? c : NULL, &value, err);
		else if (strncasecmp(challenge, "Basic", 5) == 0 && found)
			res = basic_value(c, &value);
		else
			res = err_set(err, -EACCES, "%s: asks for a user name and password; there are none in %s",
			              r->ref.host, r->auth_path ? r->auth_path : "any docker config.json");
		if (res == 0) {
			free(r->authorization);
			r->authorization = value;
			r->generation++;
		}
	}
	(void)pthread_mutex_unlock(&r->lock);
	explicit_bzero(c, sizeof(*c));
	free(c);
	return res;
}

char *img_registry_authorization(struct img_registry *r, unsigned *ret_generation)
{
	char *copy;

	(void)pthread_mutex_lock(&r->lock);
	copy = r->authorization ? strdup(r->authorization) : NULL;
	*ret_generation = r->generation;
	(void)pthread_mutex_unlock(&r->lock);
	return copy;
}
