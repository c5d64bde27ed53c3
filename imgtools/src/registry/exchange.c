/* One HTTP exchange by libcurl, which is loaded for the first one (base/library.h). Redirects are followed (registries
 * keep blobs elsewhere); libcurl takes our Authorization header off when the host changes. From https nothing is
 * redirected to http. */
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/library.h"

#include "registry_internal.h"

/* libcurl's functions, each by its name without "curl_". Filled once, by curl_load(). */
#define CURL_FUNCTIONS(X) \
	X(global_init)    \
	X(easy_init)      \
	X(easy_cleanup)   \
	X(easy_setopt)    \
	X(easy_getinfo)   \
	X(easy_perform)   \
	X(easy_strerror)  \
	X(slist_append)   \
	X(slist_free_all)
static struct {
#define X(f) __typeof__(&curl_##f) f;
	CURL_FUNCTIONS(X)
#undef X
	struct err failure; /* why there are none */
} curl;

enum { CONNECT_TIMEOUT_MS = 10000, DEFAULT_STALL_S = 60, MAX_REDIRECTS = 10 };

struct transfer {
	struct img_exchange *x;
	CURL *easy;
	uint64_t sent;
	bool status_told;
};

static void copy_header(const char *line, size_t len, const char *name, char *slot, size_t size)
{
	size_t n = strlen(name);

	if (len <= n || strncasecmp(line, name, n) != 0)
		return;
	line += n;
	len -= n;
	while (len && (*line == ' ' || *line == '\t')) {
		line++;
		len--;
	}
	while (len && (line[len - 1] == '\r' || line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	if (len >= size)
		len = 0; /* longer than anything sensible: as if it were not there */
	memcpy(slot, line, len);
	slot[len] = '\0';
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct img_exchange *x = ((struct transfer *)arg)->x;
	size_t len = size * n;
	char number[16] = "";

	if (len > 5 && strncmp(line, "HTTP/", 5) == 0) { /* another answer: after a redirect, or 100 */
		x->location[0] = x->challenge[0] = '\0';
		x->retry_after_s = 0;
	}
	copy_header(line, len, "Location:", x->location, sizeof(x->location));
	/* Of several challenges a bearer one is preferred. */
	if (!strstr(x->challenge, "Bearer "))
		copy_header(line, len, "WWW-Authenticate:", x->challenge, sizeof(x->challenge));
	copy_header(line, len, "Retry-After:", number, sizeof(number));
	if (number[0] >= '0' && number[0] <= '9')
		x->retry_after_s = (uint32_t)strtoul(number, NULL, 10);
	return len;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	struct img_exchange *x = t->x;
	size_t len = size * n;
	long status = 0;

	(void)curl.easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (!x->sink || status < 200 || status > 299)
		return base_buf_append(&x->body, data, len) < 0 ? CURL_WRITEFUNC_ERROR : len;
	if (!t->status_told && x->on_status)
		x->on_status(status, x->sink_arg);
	t->status_told = true;
	if (x->sink(data, len, x->sink_arg) == 0)
		return len;
	x->is_stopped = true;
	return CURL_WRITEFUNC_ERROR;
}

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	uint64_t left = t->x->fd_size - t->sent;
	size_t want = size * n < left ? size * n : (size_t)left;
	ssize_t got;

	do
		got = pread(t->x->fd, buf, want, (off_t)t->sent);
	while (got < 0 && errno == EINTR);
	if (got < 0 || (got == 0 && want))
		return CURL_READFUNC_ABORT;
	t->sent += (uint64_t)got;
	if (t->x->progress && t->x->progress((uint64_t)got, t->x->progress_arg) != 0) {
		t->x->is_stopped = true;
		return CURL_READFUNC_ABORT;
	}
	return (size_t)got;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct transfer *t = arg;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->x->fd_size)
		return CURL_SEEKFUNC_FAIL;
	t->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

static int on_time(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	struct img_exchange *x = ((struct transfer *)arg)->x;

	(void)a;
	(void)b;
	(void)c;
	(void)d;
	x->is_stopped = x->is_stopped || x->is_canceled(x->is_canceled_arg) != 0;
	return x->is_stopped;
}

static struct curl_slist *make_headers(const struct img_exchange *x)
{
	struct curl_slist *list = curl.slist_append(NULL, "Expect:"), *longer;

	for (size_t i = 0; list && i < 4 && x->headers[i]; i++) {
		longer = curl.slist_append(list, x->headers[i]);
		if (!longer)
			curl.slist_free_all(list);
		list = longer;
	}
	if (list && x->authorization) {
		struct base_buf b = BASE_BUF_INIT(1 << 16);

		longer = base_buf_printf(&b, "Authorization: %s", x->authorization) < 0
		                 ? NULL
		                 : curl.slist_append(list, b.data);
		if (!longer)
			curl.slist_free_all(list);
		list = longer;
		base_buf_done(&b);
	}
	return list;
}

static void set_method(CURL *easy, struct transfer *t)
{
	struct img_exchange *x = t->x;

	if (strcmp(x->method, "HEAD") == 0) {
		(void)curl.easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else if (x->sends_file) {
		(void)curl.easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		(void)curl.easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
		(void)curl.easy_setopt(easy, CURLOPT_READDATA, t);
		(void)curl.easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
		(void)curl.easy_setopt(easy, CURLOPT_SEEKDATA, t);
		(void)curl.easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->fd_size);
	} else if (strcmp(x->method, "GET") != 0) {
		(void)curl.easy_setopt(easy, CURLOPT_POST, 1L);
		(void)curl.easy_setopt(easy, CURLOPT_POSTFIELDS, x->data ? x->data : "");
		(void)curl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->data_size);
	}
	if (strcmp(x->method, "PUT") == 0)
		(void)curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PUT");
}

static int set_up(struct transfer *t, struct curl_slist *headers, char *message)
{
	CURL *easy = t->easy;
	const struct img_exchange *x = t->x;
	const char *protocols = x->http_allowed ? "http,https" : "https";

	if (curl.easy_setopt(easy, CURLOPT_URL, x->url) != CURLE_OK ||
	    curl.easy_setopt(easy, CURLOPT_HTTPHEADER, headers) != CURLE_OK ||
	    curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, protocols) != CURLE_OK ||
	    curl.easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, protocols) != CURLE_OK)
		return -ENOMEM;
	(void)curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl.easy_setopt(easy, CURLOPT_USERAGENT, "slimtrace/" OCAI_VERSION);
	(void)curl.easy_setopt(easy, CURLOPT_ERRORBUFFER, message);
	(void)curl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
	(void)curl.easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl.easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)(x->stall_s ? x->stall_s : DEFAULT_STALL_S));
	/* Only what is safe to repeat is followed; an upload is told where to go by its own Location. */
	(void)curl.easy_setopt(easy, CURLOPT_FOLLOWLOCATION, x->sends_file || x->data ? 0L : 1L);
	(void)curl.easy_setopt(easy, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
	(void)curl.easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl.easy_setopt(easy, CURLOPT_HEADERDATA, t);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEDATA, t);
	if (x->is_canceled) {
		(void)curl.easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
		(void)curl.easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_time);
		(void)curl.easy_setopt(easy, CURLOPT_XFERINFODATA, t);
	}
	if (x->verify_off) {
		(void)curl.easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		(void)curl.easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (x->ca_file)
		(void)curl.easy_setopt(easy, CURLOPT_CAINFO, x->ca_file);
	if (img_is_loopback(strstr(x->url, "://") ? strstr(x->url, "://") + 3 : ""))
		(void)curl.easy_setopt(easy, CURLOPT_PROXY, "");
	set_method(easy, t);
	return 0;
}

static void curl_load(void)
{
#define X(f) { "curl_" #f, &curl.f },
	static const struct base_symbol symbols[] = { CURL_FUNCTIONS(X) };
#undef X

	if (base_library_load("libcurl.so.4", symbols, sizeof(symbols) / sizeof(symbols[0]), &curl.failure) == 0)
		(void)curl.global_init(CURL_GLOBAL_DEFAULT);
}

static int verdict(const struct img_exchange *x, CURLcode code, const char *message, struct err *err)
{
	if (code == CURLE_OK)
		return 0;
	if (x->is_stopped)
		return err_set(err, -ECANCELED, "canceled");
	if (base_buf_error(&x->body) == -EFBIG)
		return err_set(err, -EFBIG, "%s: the answer is larger than is taken", x->url);
	if (code == CURLE_PEER_FAILED_VERIFICATION)
		return err_set(err, -EACCES, "%s: certificate: %s", x->url, message[0] ? message : "not trusted");
	return err_set(err,
	               code == CURLE_OUT_OF_MEMORY          ? -ENOMEM
	               : code == CURLE_OPERATION_TIMEDOUT   ? -ETIMEDOUT
	               : code == CURLE_COULDNT_CONNECT      ? -ECONNREFUSED
	               : code == CURLE_COULDNT_RESOLVE_HOST ? -EHOSTUNREACH
	                                                    : -EIO,
	               "%s: %s", x->url, message[0] ? message : curl.easy_strerror(code));
}

int img_exchange_run(struct img_exchange *x, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct transfer t = { .x = x };
	struct curl_slist *headers;
	char message[CURL_ERROR_SIZE] = "";
	CURLcode code = CURLE_OUT_OF_MEMORY;

	(void)pthread_once(&once, curl_load);
	base_buf_init(&x->body, IMG_REG_MAX_DOCUMENT);
	x->status = 0;
	x->location[0] = x->challenge[0] = '\0';
	x->retry_after_s = 0;
	x->is_stopped = false;
	if (curl.failure.code)
		return err_set(err, curl.failure.code, "%s", curl.failure.msg);
	t.easy = curl.easy_init();
	headers = make_headers(x);
	if (t.easy && headers && set_up(&t, headers, message) == 0) {
		code = curl.easy_perform(t.easy);
		(void)curl.easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &x->status);
	}
	curl.slist_free_all(headers);
	curl.easy_cleanup(t.easy);
	return verdict(x, code, message, err);
}

void img_exchange_done(struct img_exchange *x)
{
	base_buf_done(&x->body);
}
