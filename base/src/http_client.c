/* The HTTP client: one libcurl easy handle in a multi handle of its own.
 *
 * libcurl is loaded when the first client is made, not when the program starts (base/library.h).
 *
 * The multi handle is there for time: libcurl's own low-speed limit counts whole seconds, while callers ask for an
 * idle limit in milliseconds, so the loop here polls with the time that is left. It also keeps the connections
 * between requests. Redirects are not followed: whom the program talks to is for its configuration to say. */
#include "base/clock.h"
#include "base/http_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/library.h"

enum {
	DEFAULT_CONNECT_TIMEOUT_MS = 3000,
	DEFAULT_MAX_RESPONSE = 64 << 20,
	MAX_POLL_MS = 1000,
	CANCEL_POLL_MS = 50, /* how soon a cancelled transfer ends */
};

#define CURL_FUNCTIONS(X)      \
	X(global_init)         \
	X(easy_init)           \
	X(easy_cleanup)        \
	X(easy_reset)          \
	X(easy_setopt)         \
	X(easy_getinfo)        \
	X(easy_strerror)       \
	X(multi_init)          \
	X(multi_cleanup)       \
	X(multi_add_handle)    \
	X(multi_remove_handle) \
	X(multi_perform)       \
	X(multi_poll)          \
	X(multi_info_read)     \
	X(slist_append)        \
	X(slist_free_all)      \
	X(url)                 \
	X(url_set)             \
	X(url_get)             \
	X(url_cleanup)         \
	X(free)

/* libcurl's functions, each by its name without "curl_". Filled once, by curl_load(). */
static struct {
#define X(f) __typeof__(&curl_##f) f;
	CURL_FUNCTIONS(X)
#undef X
	struct err failure; /* why there are none */
} curl;

struct base_http {
	CURLM *multi;
	CURL *easy;
};

/* One request under way. */
struct transfer {
	CURL *easy;
	const struct base_http_request *req;
	struct base_buf body;
	char error[CURL_ERROR_SIZE];
	uint64_t n_bytes; /* seen in either direction: what the idle limit watches */
	bool canceled;
};

static void curl_load(void)
{
#define X(f) { "curl_" #f, &curl.f },
	static const struct base_symbol symbols[] = { CURL_FUNCTIONS(X) };
#undef X

	if (base_library_load("libcurl.so.4", symbols, sizeof(symbols) / sizeof(symbols[0]), &curl.failure) < 0)
		(void)err_prefix(&curl.failure, curl.failure.code, "HTTP client: ");
	else
		(void)curl.global_init(CURL_GLOBAL_DEFAULT);
}

int base_http_new(struct base_http **ret_http, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct base_http *http;

	(void)pthread_once(&once, curl_load);
	if (curl.failure.code)
		return err_set(err, curl.failure.code, "%s", curl.failure.msg);
	http = calloc(1, sizeof(*http));
	if (http) {
		http->multi = curl.multi_init();
		http->easy = curl.easy_init();
	}
	if (!http || !http->multi || !http->easy) {
		base_http_free(http);
		return err_set(err, -ENOMEM, "HTTP client: out of memory");
	}
	*ret_http = http;
	return 0;
}

void base_http_free(struct base_http *http)
{
	if (!http)
		return;
	if (http->easy)
		curl.easy_cleanup(http->easy);
	if (http->multi)
		(void)curl.multi_cleanup(http->multi);
	free(http);
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;

	t->n_bytes += size * n;
	if (t->req->on_header)
		t->req->on_header(t->req->on_header_arg, data, size * n);
	return size * n;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	size_t len = size * n;
	long status = 0;

	t->n_bytes += len;
	(void)curl.easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (t->req->on_body && status >= 200 && status < 300) {
		if (t->req->on_body(t->req->on_body_arg, data, len) != 0) {
			t->canceled = true;
			return CURL_WRITEFUNC_ERROR;
		}
		return len;
	}
	return base_buf_append(&t->body, data, len) < 0 ? CURL_WRITEFUNC_ERROR : len;
}

/* Whether the request goes over loopback or a unix socket, where a proxy of the environment has no business. */
static bool is_local(const struct base_http_request *req)
{
	CURLU *u = curl.url();
	char *host = NULL;
	struct in_addr v4;
	bool local = req->unix_socket != NULL;

	if (u && curl.url_set(u, CURLUPART_URL, req->url, 0) == CURLUE_OK &&
	    curl.url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
		if (inet_pton(AF_INET, host, &v4) == 1)
			local = local || ntohl(v4.s_addr) >> 24 == 127;
		else
			local = local || strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0;
	}
	curl.free(host);
	curl.url_cleanup(u);
	return local;
}

static int make_headers(const struct base_http_request *req, struct curl_slist **ret_list)
{
	/* No "Expect: 100-continue": it costs a round trip before every larger body. */
	struct curl_slist *list = curl.slist_append(NULL, "Expect:");

	for (const char *const *h = req->headers; list && h && *h; h++) {
		struct curl_slist *longer = curl.slist_append(list, *h);

		if (!longer)
			curl.slist_free_all(list);
		list = longer;
	}
	*ret_list = list;
	return list ? 0 : -ENOMEM;
}

static void set_method(CURL *easy, const struct base_http_request *req)
{
	bool is_get = strcmp(req->method, "GET") == 0;

	if (strcmp(req->method, "HEAD") == 0) {
		(void)curl.easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else if (req->body || strcmp(req->method, "POST") == 0) {
		(void)curl.easy_setopt(easy, CURLOPT_POST, 1L);
		(void)curl.easy_setopt(easy, CURLOPT_POSTFIELDS, req->body ? req->body : "");
		(void)curl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(req->body ? req->body_len : 0));
	}
	if (!is_get || req->body)
		(void)curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, req->method);
}

static int set_up(struct transfer *t, const struct curl_slist *headers, struct err *err)
{
	const struct base_http_request *req = t->req;
	CURL *easy = t->easy;
	uint32_t connect_ms = req->connect_timeout_ms ? req->connect_timeout_ms : DEFAULT_CONNECT_TIMEOUT_MS;

	curl.easy_reset(easy); /* options only: connections stay */
	if (curl.easy_setopt(easy, CURLOPT_URL, req->url) != CURLE_OK ||
	    curl.easy_setopt(easy, CURLOPT_HTTPHEADER, headers) != CURLE_OK ||
	    (req->unix_socket && curl.easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, req->unix_socket) != CURLE_OK) ||
	    (is_local(req) && curl.easy_setopt(easy, CURLOPT_PROXY, "") != CURLE_OK) ||
	    curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK)
		return err_set(err, -ENOMEM, "%s: cannot set up the request", req->url);
	set_method(easy, req);
	(void)curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
	(void)curl.easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
	(void)curl.easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl.easy_setopt(easy, CURLOPT_HEADERDATA, t);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEDATA, t);
	return 0;
}

static uint64_t bytes_moved(const struct transfer *t)
{
	curl_off_t sent = 0;

	(void)curl.easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	return t->n_bytes + (uint64_t)sent;
}

/* Drives the transfer to its end. Returns 1 with libcurl's verdict, or a negative errno. */
static int drive(struct base_http *http, struct transfer *t, CURLcode *ret_result)
{
	int64_t quiet_since = base_now_ms();
	uint64_t seen = 0;

	for (;;) {
		int running = 0, n_left = 0, poll_ms = t->req->is_canceled ? CANCEL_POLL_MS : MAX_POLL_MS;
		CURLMsg *msg;

		if (curl.multi_perform(http->multi, &running) != CURLM_OK)
			return -ENOMEM;
		while ((msg = curl.multi_info_read(http->multi, &n_left))) {
			if (msg->msg == CURLMSG_DONE) {
				*ret_result = msg->data.result;
				return 1;
			}
		}
		if (t->req->is_canceled && t->req->is_canceled(t->req->is_canceled_arg) != 0) {
			t->canceled = true;
			return -ECANCELED;
		}
		if (t->req->idle_timeout_ms) {
			int64_t now = base_now_ms(), left;

			if (bytes_moved(t) != seen) {
				seen = bytes_moved(t);
				quiet_since = now;
			}
			left = quiet_since + t->req->idle_timeout_ms - now;
			if (left <= 0)
				return -ETIMEDOUT;
			if (left < poll_ms)
				poll_ms = (int)left;
		}
		if (curl.multi_poll(http->multi, NULL, 0, poll_ms, NULL) != CURLM_OK)
			return -ENOMEM;
	}
}

static int connect_errno(CURL *easy)
{
	long os_errno = 0;

	(void)curl.easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
	/* A unix socket that is not there is a server that is not there. */
	return os_errno == 0 || os_errno == ECONNREFUSED || os_errno == ENOENT ? -ECONNREFUSED
	       : os_errno == ETIMEDOUT                                         ? -ETIMEDOUT
	                                                                       : -EIO;
}

/* Turns libcurl's verdict into ours, with words. */
static int verdict(const struct transfer *t, CURLcode result, struct err *err)
{
	const struct base_http_request *req = t->req;
	const char *words = t->error[0] ? t->error : curl.easy_strerror(result);
	int r = -EIO;

	if (result == CURLE_OK)
		return 0;
	if (t->canceled)
		return err_set(err, -ECANCELED, "%s %s: canceled", req->method, req->url);
	if (base_buf_error(&t->body) == -EFBIG)
		return err_set(err, -EFBIG, "%s %s: the answer is larger than %zu bytes", req->method, req->url,
		               t->body.max);
	if (result == CURLE_OUT_OF_MEMORY || base_buf_error(&t->body))
		r = -ENOMEM;
	else if (result == CURLE_OPERATION_TIMEDOUT)
		r = -ETIMEDOUT;
	else if (result == CURLE_COULDNT_CONNECT)
		r = connect_errno(t->easy);
	else if (result == CURLE_URL_MALFORMAT)
		r = -EINVAL;
	return err_set(err, r, "%s %s: %s", req->method, req->url, words);
}

int base_http_request(struct base_http *http, const struct base_http_request *req, struct base_http_response *resp,
                      struct err *err)
{
	struct transfer t = { .easy = http->easy, .req = req };
	struct curl_slist *headers = NULL;
	CURLcode result = CURLE_OK;
	const char *type = NULL;
	int r;

	if (strncasecmp(req->url, "http://", 7) != 0 && strncasecmp(req->url, "https://", 8) != 0)
		return err_set(err, -EINVAL, "%s: not an HTTP address", req->url);
	base_buf_init(&t.body, req->max_response_bytes ? req->max_response_bytes : DEFAULT_MAX_RESPONSE);
	r = make_headers(req, &headers);
	if (r < 0)
		return err_set(err, r, "%s: out of memory", req->url);
	r = set_up(&t, headers, err);
	if (r == 0 && curl.multi_add_handle(http->multi, http->easy) != CURLM_OK)
		r = err_set(err, -ENOMEM, "%s: out of memory", req->url);
	if (r == 0) {
		r = drive(http, &t, &result);
		if (r == -ETIMEDOUT)
			(void)err_set(err, r, "%s %s: nothing came for %u ms", req->method, req->url,
			              (unsigned)req->idle_timeout_ms);
		else if (r == -ECANCELED)
			(void)err_set(err, r, "%s %s: canceled", req->method, req->url);
		else if (r < 0)
			(void)err_set(err, r, "%s %s: out of memory", req->method, req->url);
		else
			r = verdict(&t, result, err);
		(void)curl.multi_remove_handle(http->multi, http->easy);
	}
	if (r == 0) {
		*resp = (struct base_http_response){ .body = t.body };
		(void)curl.easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &resp->status);
		(void)curl.easy_getinfo(http->easy, CURLINFO_CONTENT_TYPE, &type);
		(void)snprintf(resp->content_type, sizeof(resp->content_type), "%s", type ? type : "");
	} else {
		base_buf_done(&t.body);
	}
	(void)curl.easy_setopt(http->easy, CURLOPT_ERRORBUFFER, NULL);
	curl.easy_reset(http->easy); /* nothing of this request is pointed to any more */
	curl.slist_free_all(headers);
	return r;
}
