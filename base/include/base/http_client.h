/* A small HTTP client over libcurl: one request at a time, whole or streamed body. */
#ifndef BASE_HTTP_CLIENT_H
#define BASE_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct base_http; /* keeps its connection alive between requests; one thread */

/* Called for each piece of the body as it arrives; a non-zero return stops the transfer, and
 * base_http_request() then returns -ECANCELED. */
typedef int (*base_http_body_fn)(void *arg, const char *data, size_t len);

/* Called for each header line of the answer, "Name: value\r\n", not NUL-terminated. */
typedef void (*base_http_header_fn)(void *arg, const char *line, size_t len);

struct base_http_request {
	const char *method;         /* "GET", "POST" */
	const char *url;            /* http://host:port/path; or with unix_socket set, any host */
	const char *unix_socket;    /* path, or NULL */
	const char *const *headers; /* NULL-terminated "Name: value", or NULL */
	const char *body;           /* or NULL */
	size_t body_len;
	uint32_t connect_timeout_ms; /* 0: 3000 */
	uint32_t idle_timeout_ms;    /* no byte for so long: -ETIMEDOUT; 0: never */
	size_t max_response_bytes;   /* ceiling for `response`; 0: 64 MiB */
	base_http_body_fn on_body;   /* set: streamed, `response` stays empty for 2xx answers */
	void *on_body_arg;
	/* Asked several times a second, also while the server is silent; non-zero stops the transfer like a
	 * non-zero on_body. NULL: never. */
	int (*is_canceled)(void *arg);
	void *is_canceled_arg;
	base_http_header_fn on_header; /* or NULL */
	void *on_header_arg;
};

struct base_http_response {
	long status; /* HTTP status */
	char content_type[128];
	struct base_buf body; /* whole body, or the error body when streaming; base_buf_done() it */
};

/* -ELIBACC when libcurl, which is loaded by the first call, cannot be used. */
int base_http_new(struct base_http **ret_http, struct err *err);
void base_http_free(struct base_http *http);

/* 0 when an HTTP answer of any status arrived: *resp is overwritten, its body the caller's. Otherwise *resp stays
 * untouched: -ECONNREFUSED (also a unix socket that is not there), -ETIMEDOUT, -ECANCELED, -EFBIG (larger than
 * max_response_bytes), -EINVAL (not an http or https address), -ENOMEM, -EIO for the rest. Redirects are not
 * followed; a proxy of the environment is not used for loopback addresses and unix sockets. */
int base_http_request(struct base_http *http, const struct base_http_request *req, struct base_http_response *resp,
                      struct err *err);

#endif
