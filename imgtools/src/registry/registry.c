/* The registry's side of the distribution protocol: finding it, asking with authorization and patience, manifests and
 * blobs. */
#include "registry/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/sha256.h"
#include "registry_internal.h"

enum { DEFAULT_RETRIES = 5, DEFAULT_RETRY_MS = 500, MAX_PAUSE_MS = 60000 };

static const char accept_manifests[] =
        "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
        "application/vnd.docker.distribution.manifest.list.v2+json, "
        "application/vnd.docker.distribution.manifest.v2+json";

/* ---- Asking ----------------------------------------------------------------------------------------------------- */

uint32_t img_retry_pause_ms(uint32_t first_ms, unsigned attempt, uint32_t asked_s)
{
	uint64_t ms = (uint64_t)first_ms << (attempt < 10 ? attempt : 10);
	uint32_t chance = 0;

	(void)!getrandom(&chance, sizeof(chance), 0);
	ms = ms / 2 + chance % (ms / 2 + 1);
	if ((uint64_t)asked_s * 1000 > ms)
		ms = (uint64_t)asked_s * 1000;
	return ms < MAX_PAUSE_MS ? (uint32_t)ms : MAX_PAUSE_MS;
}

/* In short steps: who is canceled does not sleep on. */
static void pause_before(const struct img_registry *r, unsigned attempt, uint32_t asked_s)
{
	uint32_t ms = img_retry_pause_ms(r->opts.retry_ms ? r->opts.retry_ms : DEFAULT_RETRY_MS, attempt, asked_s);

	while (ms && (!r->opts.is_canceled || r->opts.is_canceled(r->opts.is_canceled_arg) == 0)) {
		uint32_t step = ms < 100 ? ms : 100;

		(void)nanosleep(&(struct timespec){ .tv_nsec = (long)step * 1000000 }, NULL);
		ms -= step;
	}
}

static bool may_pass(int r, long status)
{
	if (r < 0)
		return r == -ECONNREFUSED || r == -ETIMEDOUT || r == -EIO || r == -EHOSTUNREACH;
	return status == 408 || status == 429 || status == 500 || (status >= 502 && status <= 504);
}

void img_registry_message(const void *body, size_t body_size, char *out, size_t size)
{
	json_t *doc = NULL, *first;
	const char *text;

	out[0] = '\0';
	if (!body_size || base_json_parse("answer", body, body_size, &doc, NULL) < 0)
		return;
	first = json_array_get(json_object_get(doc, "errors"), 0);
	text = json_string_value(json_object_get(first, "message"));
	if (text && text[0])
		(void)snprintf(out, size, ": %.150s", text);
	json_decref(doc);
}

static int explain(const struct img_registry *r, const struct img_exchange *x, const char *what, struct err *err)
{
	char message[200];

	img_registry_message(x->body.data, x->body.len, message, sizeof(message));
	switch (x->status) {
	case 401:
	case 403:
		return err_set(err, -EACCES, "%s: %s: not allowed (%ld)%s; credentials are taken from %s", r->ref.host,
		               what, x->status, message,
		               r->auth_path ? r->auth_path : "docker's config.json, and there is none");
	case 404:
		return err_set(err, -ENOENT, "%s: %s: not there (404)%s", r->ref.host, what, message);
	case 429:
		return err_set(err, -EBUSY, "%s: %s: too many requests (429)%s; try again later", r->ref.host, what,
		               message);
	default:
		return err_set(err, -EIO, "%s: %s: the registry answered %ld%s", r->ref.host, what, x->status, message);
	}
}

/* One attempt, and a second one when the first is asked who we are. */
static int ask(struct img_registry *r, struct img_exchange *x, struct err *err)
{
	bool is_second = false;

	for (;;) {
		char challenge[sizeof(x->challenge)];
		unsigned generation;
		CLEANUP(freep) char *authorization = img_registry_authorization(r, &generation);
		int res;

		/* Uploads may be sent elsewhere by the registry; our token is for the registry. */
		x->authorization = strncmp(x->url, r->base, strlen(r->base)) == 0 ? authorization : NULL;
		x->verify_off = r->opts.insecure;
		x->http_allowed = strncmp(r->base, "http://", 7) == 0;
		x->ca_file = r->ca_file;
		x->stall_s = r->opts.stall_s;
		x->is_canceled = r->opts.is_canceled;
		x->is_canceled_arg = r->opts.is_canceled_arg;
		res = img_exchange_run(x, err);
		x->authorization = NULL;
		if (res < 0 || x->status != 401 || is_second || !x->challenge[0])
			return res;
		(void)snprintf(challenge, sizeof(challenge), "%s", x->challenge);
		img_exchange_done(x);
		res = img_registry_authorize(r, challenge, generation, err);
		if (res < 0)
			return res;
		is_second = true;
	}
}

int img_registry_request(struct img_registry *r, struct img_exchange *x, const char *what,
                         int (*again)(struct img_exchange *x, void *arg, struct err *err), void *arg, struct err *err)
{
	unsigned n_retries = r->opts.n_retries ? r->opts.n_retries : DEFAULT_RETRIES;
	int res = 0;

	for (unsigned attempt = 0;; attempt++) {
		if (attempt) {
			img_exchange_done(x);
			pause_before(r, attempt - 1, x->retry_after_s);
			res = again ? again(x, arg, err) : 0;
			if (res < 0)
				return res;
		}
		res = ask(r, x, err);
		if (res == 0 && x->status >= 200 && x->status <= 299)
			return 0;
		if (attempt >= n_retries || !may_pass(res, x->status))
			break;
	}
	if (res == 0)
		res = explain(r, x, what, err);
	img_exchange_done(x);
	return res;
}

/* ---- Finding the registry ---- */

static int try_scheme(struct img_registry *r, const char *scheme, struct err *err)
{
	struct img_exchange x = { .method = "GET",
		                  .verify_off = r->opts.insecure,
		                  .http_allowed = strcmp(scheme, "http") == 0,
		                  .ca_file = r->ca_file,
		                  .stall_s = r->opts.stall_s,
		                  .is_canceled = r->opts.is_canceled,
		                  .is_canceled_arg = r->opts.is_canceled_arg };
	char *url = NULL;
	int res;

	free(r->base);
	r->base = NULL;
	if (asprintf(&r->base, "%s://%s", scheme, r->ref.host) < 0 || asprintf(&url, "%s/v2/", r->base) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	x.url = url;
	res = img_exchange_run(&x, err);
	/* Anything but "this is TLS" counts: what is wrong shows at the first real request. */
	if (res == 0 && x.status == 400)
		res = err_set(err, -EPROTO, "%s: the registry answered 400", url);
	img_exchange_done(&x);
	free(url);
	return res;
}

static int find_scheme(struct img_registry *r, struct err *err)
{
	const char *first = img_is_loopback(r->ref.host) ? "http" : "https";
	bool may_fall_back = r->opts.insecure || img_is_loopback(r->ref.host);
	unsigned n_retries = r->opts.n_retries ? r->opts.n_retries : DEFAULT_RETRIES;
	struct err other = { 0 };
	int res = 0;

	for (unsigned attempt = 0; attempt <= n_retries; attempt++) {
		if (attempt)
			pause_before(r, attempt - 1, 0);
		res = try_scheme(r, first, err);
		if (res == 0)
			return 0;
		if (may_fall_back) {
			int second = try_scheme(r, first[4] ? "http" : "https", &other);

			if (second == 0)
				return 0;
			if (res == -EPROTO) { /* someone is there, and it speaks the other one */
				if (err)
					*err = other;
				return second;
			}
		}
		if (!may_pass(res, 0))
			break;
	}
	return res;
}

static bool endpoint_is_valid(const char *endpoint)
{
	const char *host = strstr(endpoint, "://");

	return (strncmp(endpoint, "https://", 8) == 0 || strncmp(endpoint, "http://", 7) == 0) && host[3] &&
	       strlen(endpoint) < 1024 && !strpbrk(host + 3, "/?#@ \r\n\t");
}

/* Who is spoken to is the mirror, whose credentials are its own. */
static int use_endpoint(struct img_registry *r, const char *endpoint, struct err *err)
{
	char *host, *base;

	if (!endpoint_is_valid(endpoint))
		return err_set(err, -EINVAL, "%s: not the address of a mirror (http[s]://HOST[:PORT])", endpoint);
	host = strdup(strstr(endpoint, "://") + 3);
	base = strdup(endpoint);
	if (!host || !base) {
		free(host);
		free(base);
		return err_set(err, -ENOMEM, "out of memory");
	}
	free(r->ref.host);
	r->ref.host = host;
	r->base = base;
	return 0;
}

int img_registry_prepare(const char *text, const char *endpoint, const struct img_registry_opts *o,
                         struct img_registry **ret_registry, struct err *err)
{
	struct img_registry *r = calloc(1, sizeof(*r));
	int res;

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&r->lock, NULL);
	if (o)
		r->opts = *o;
	r->auth_path = img_registry_find_auth_file(r->opts.auth_file);
	r->ca_file = r->opts.ca_file ? strdup(r->opts.ca_file) : NULL;
	res = r->opts.ca_file && !r->ca_file ? err_set(err, -ENOMEM, "out of memory") : 0;
	r->opts.auth_file = r->opts.ca_file = NULL;
	if (res == 0)
		res = img_reference_parse(text, &r->ref, err);
	if (res == 0 && endpoint)
		res = use_endpoint(r, endpoint, err);
	/* Elsewhere than here there is nothing to find out. */
	if (res == 0 && !endpoint && !r->opts.insecure && !img_is_loopback(r->ref.host) &&
	    asprintf(&r->base, "https://%s", r->ref.host) < 0) {
		r->base = NULL;
		res = err_set(err, -ENOMEM, "out of memory");
	}
	if (res < 0) {
		img_registry_close(r);
		return res;
	}
	*ret_registry = r;
	return 0;
}

const char *img_registry_base(const struct img_registry *r)
{
	return r->base;
}

int img_registry_find(struct img_registry *r, struct err *err)
{
	return find_scheme(r, err);
}

int img_registry_open(const char *text, const struct img_registry_opts *o, struct img_registry **ret_registry,
                      struct err *err)
{
	struct img_registry *r = NULL;
	int res = img_registry_prepare(text, NULL, o, &r, err);

	if (res < 0)
		return res;
	res = find_scheme(r, err);
	if (res < 0) {
		img_registry_close(r);
		return res;
	}
	*ret_registry = r;
	return 0;
}

void img_registry_close(struct img_registry *r)
{
	if (!r)
		return;
	img_reference_done(&r->ref);
	free(r->base);
	free(r->ca_file);
	free(r->auth_path);
	if (r->authorization)
		explicit_bzero(r->authorization, strlen(r->authorization));
	free(r->authorization);
	(void)pthread_mutex_destroy(&r->lock);
	free(r);
}

const struct img_reference *img_registry_reference(const struct img_registry *r)
{
	return &r->ref;
}

/* ---- Manifests ---- */

static void digest_text(const uint8_t digest[BASE_SHA256_SIZE], char ret[72])
{
	memcpy(ret, "sha256:", 7);
	base_sha256_hex(digest, ret + 7);
}

static const char *own_name(const struct img_registry *r, const char *tag_or_digest)
{
	return tag_or_digest ? tag_or_digest : r->ref.digest ? r->ref.digest : r->ref.tag;
}

int img_registry_get_manifest(struct img_registry *r, const char *tag_or_digest, char **ret_data, size_t *ret_size,
                              char ret_digest[72], struct err *err)
{
	const char *which = own_name(r, tag_or_digest);
	char url[IMG_REG_MAX_URL], what[512], digest[72];
	struct img_exchange x = { .method = "GET", .url = url, .headers = { accept_manifests } };
	uint8_t sum[BASE_SHA256_SIZE];
	int res;

	(void)snprintf(url, sizeof(url), "%s/v2/%s/manifests/%s", r->base, r->ref.name, which);
	(void)snprintf(what, sizeof(what), "%.300s%s%.128s", r->ref.name, strchr(which, ':') ? "@" : ":", which);
	res = img_registry_request(r, &x, what, NULL, NULL, err);
	if (res < 0)
		return res;
	if (base_sha256_bytes(base_buf_text(&x.body), x.body.len, sum) < 0)
		res = err_set(err, -ENOMEM, "out of memory");
	digest_text(sum, digest);
	if (res == 0 && strchr(which, ':') && strcmp(digest, which) != 0)
		res = err_set(err, -EBADMSG, "%s: %s: digest mismatch, the content is %s", r->ref.host, what, digest);
	if (res == 0) {
		*ret_size = x.body.len;
		*ret_data = base_buf_take(&x.body);
		memcpy(ret_digest, digest, sizeof(digest));
		if (!*ret_data)
			res = err_set(err, -ENOMEM, "out of memory");
	}
	img_exchange_done(&x);
	return res;
}

int img_registry_put_manifest(struct img_registry *r, const char *tag_or_digest, const char *media_type,
                              const void *data, size_t size, struct err *err)
{
	const char *which = own_name(r, tag_or_digest);
	char url[IMG_REG_MAX_URL], type[256], what[512];
	struct img_exchange x = { .method = "PUT", .url = url, .headers = { type }, .data = data, .data_size = size };
	int res;

	(void)snprintf(url, sizeof(url), "%s/v2/%s/manifests/%s", r->base, r->ref.name, which);
	(void)snprintf(type, sizeof(type), "Content-Type: %s", media_type);
	(void)snprintf(what, sizeof(what), "%.300s:%.128s", r->ref.name, which);
	res = img_registry_request(r, &x, what, NULL, NULL, err);
	if (res == 0)
		img_exchange_done(&x);
	return res;
}

/* ---- Blobs in ---- */

/* A blob on its way into a file; what came before a break stays and is not asked for again. */
struct download {
	int fd;
	uint64_t size, done;
	struct base_sha256 *sum;
	char range[64];
	img_registry_progress progress;
	void *arg;
	int error;
};

static int restart(struct download *d)
{
	base_sha256_free(d->sum);
	d->sum = NULL;
	d->done = 0;
	return base_sha256_new(&d->sum);
}

/* A server that sends all of it although a part was asked for is taken at its word. */
static void on_status(long status, void *arg)
{
	struct download *d = arg;

	if (status == 200 && d->done)
		d->error = restart(d);
}

static int on_bytes(const void *data, size_t size, void *arg)
{
	struct download *d = arg;
	const char *p = data;

	if (d->error == 0 && size > d->size - d->done)
		d->error = -EFBIG;
	if (d->error)
		return -1;
	base_sha256_update(d->sum, data, size);
	while (size) {
		ssize_t n = pwrite(d->fd, p, size, (off_t)d->done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			d->error = -errno;
			return -1;
		}
		p += n;
		size -= (size_t)n;
		d->done += (uint64_t)n;
	}
	if (d->progress && d->progress((uint64_t)(p - (const char *)data), d->arg) != 0)
		d->error = -ECANCELED;
	return d->error;
}

static void ask_for_rest(struct download *d, struct img_exchange *x)
{
	x->headers[0] = NULL;
	if (!d->done)
		return;
	(void)snprintf(d->range, sizeof(d->range), "Range: bytes=%llu-", (unsigned long long)d->done);
	x->headers[0] = d->range;
}

static int again(struct img_exchange *x, void *arg, struct err *err)
{
	(void)err;
	ask_for_rest(arg, x);
	return 0;
}

/* Attempts until all bytes are there: an answer that ends early counts as one. */
static int download(struct img_registry *r, const char *digest, struct download *d, struct err *err)
{
	unsigned n_retries = r->opts.n_retries ? r->opts.n_retries : DEFAULT_RETRIES;
	char url[IMG_REG_MAX_URL];
	int res = 0;

	(void)snprintf(url, sizeof(url), "%s/v2/%s/blobs/%s", r->base, r->ref.name, digest);
	for (unsigned attempt = 0; attempt <= n_retries && d->done < d->size; attempt++) {
		struct img_exchange x = {
			.method = "GET", .url = url, .sink = on_bytes, .on_status = on_status, .sink_arg = d
		};

		ask_for_rest(d, &x);
		res = img_registry_request(r, &x, digest, again, d, err);
		if (res == 0)
			img_exchange_done(&x);
		if (d->error == -EFBIG)
			return err_set(err, -EBADMSG, "%s: %s: longer than its %llu bytes", r->ref.host, digest,
			               (unsigned long long)d->size);
		if (d->error)
			return err_set(err, d->error, "%s: %s", digest, strerror(-d->error));
		if (res < 0 && x.status == 416 && d->done) /* it does not know ranges as we do: from the start */
			res = restart(d);
		if (res < 0)
			return res;
	}
	if (d->done < d->size)
		return err_set(err, -EIO, "%s: %s: only %llu of %llu bytes came", r->ref.host, digest,
		               (unsigned long long)d->done, (unsigned long long)d->size);
	return 0;
}

int img_registry_get_blob(struct img_registry *r, const char *digest, uint64_t size, const char *path,
                          img_registry_progress progress, void *arg, struct err *err)
{
	struct download d = { .size = size, .progress = progress, .arg = arg };
	uint8_t sum[BASE_SHA256_SIZE];
	char found[72];
	int res;

	d.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (d.fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	res = restart(&d) < 0 ? err_set(err, -ENOMEM, "out of memory") : download(r, digest, &d, err);
	if (res == 0) {
		base_sha256_final(d.sum, sum);
		digest_text(sum, found);
		if (strcmp(found, digest) != 0)
			res = err_set(err, -EBADMSG, "%s: %s: digest mismatch, the content is %s", r->ref.host, digest,
			              found);
	}
	base_sha256_free(d.sum);
	(void)close(d.fd);
	if (res < 0)
		(void)unlink(path);
	return res;
}

/* ---- Blobs out ---- */

int img_registry_has_blob(struct img_registry *r, const char *digest, struct err *err)
{
	char url[IMG_REG_MAX_URL];
	struct img_exchange x = { .method = "HEAD", .url = url };
	int res;

	(void)snprintf(url, sizeof(url), "%s/v2/%s/blobs/%s", r->base, r->ref.name, digest);
	res = img_registry_request(r, &x, digest, NULL, NULL, err);
	if (res == 0)
		img_exchange_done(&x);
	return res == 0 ? 1 : res == -ENOENT ? 0 : res;
}

int img_registry_present(struct img_registry *r, const char *authorization, struct err *err)
{
	char *copy = strdup(authorization);

	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_lock(&r->lock);
	free(r->authorization);
	r->authorization = copy;
	r->generation++;
	(void)pthread_mutex_unlock(&r->lock);
	return 0;
}

int img_registry_may_pull(struct img_registry *r, const char *digest, bool is_manifest, struct err *err)
{
	char url[IMG_REG_MAX_URL];
	struct img_exchange x = { .method = "HEAD", .url = url };
	int res;

	(void)snprintf(url, sizeof(url), "%s/v2/%s/%s/%s", r->base, r->ref.name, is_manifest ? "manifests" : "blobs",
	               digest);
	x.headers[0] = is_manifest ? "Accept: application/vnd.oci.image.manifest.v1+json, "
	                             "application/vnd.oci.image.index.v1+json, "
	                             "application/vnd.docker.distribution.manifest.v2+json, "
	                             "application/vnd.docker.distribution.manifest.list.v2+json"
	                           : NULL;
	res = img_registry_request(r, &x, digest, NULL, NULL, err);
	if (res == 0)
		img_exchange_done(&x);
	return res;
}

/* "Location" may be relative to the registry. */
static int upload_url(const struct img_registry *r, const char *location, const char *digest, char *url, size_t size,
                      struct err *err)
{
	bool is_relative = location[0] == '/';
	int n = snprintf(url, size, "%s%s%cdigest=%s", is_relative ? r->base : "", location,
	                 strchr(location, '?') ? '&' : '?', digest);

	if (!location[0] || n < 0 || (size_t)n >= size)
		return err_set(err, -EBADMSG, "%s: says no place to send a blob to", r->ref.host);
	return 0;
}

/* One upload: a place asked for, everything sent to it. */
static int upload(struct img_registry *r, int fd, uint64_t size, const char *digest, img_registry_progress progress,
                  void *arg, long *ret_status, struct err *err)
{
	char url[IMG_REG_MAX_URL], place[IMG_REG_MAX_URL];
	struct img_exchange start = { .method = "POST", .url = url };
	struct img_exchange x = { .method = "PUT",
		                  .url = place,
		                  .headers = { "Content-Type: application/octet-stream" },
		                  .fd = fd,
		                  .sends_file = true,
		                  .fd_size = size,
		                  .progress = progress,
		                  .progress_arg = arg };
	int res;

	(void)snprintf(url, sizeof(url), "%s/v2/%s/blobs/uploads/", r->base, r->ref.name);
	res = img_registry_request(r, &start, r->ref.name, NULL, NULL, err);
	if (res < 0)
		return res;
	res = upload_url(r, start.location, digest, place, sizeof(place), err);
	img_exchange_done(&start);
	if (res == 0)
		res = ask(r, &x, err);
	*ret_status = x.status;
	if (res == 0 && (x.status < 200 || x.status > 299))
		res = explain(r, &x, digest, err);
	img_exchange_done(&x);
	return res;
}

int img_registry_put_blob(struct img_registry *r, int fd, uint64_t size, const char *digest,
                          img_registry_progress progress, void *arg, struct err *err)
{
	unsigned n_retries = r->opts.n_retries ? r->opts.n_retries : DEFAULT_RETRIES;
	int res = img_registry_has_blob(r, digest, err);

	if (res != 0)
		return res < 0 ? res : 0;
	for (unsigned attempt = 0;; attempt++) {
		long status = 0;

		res = upload(r, fd, size, digest, progress, arg, &status, err);
		if (res == 0 || attempt >= n_retries || !(status ? may_pass(0, status) : may_pass(res, 0)))
			return res;
		pause_before(r, attempt, 0);
	}
}
