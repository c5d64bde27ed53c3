/* Questions by HTTP/1.1 (or with TLS and a certificate of ours), through libcurl's multi interface: one thread,
 * kept-alive connections. What others ask is answered by server.c. */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "peer/transport.h"

enum { TICK_MS = 100, CONNECT_MS = 1500, MAX_IDLE = 64, MAX_CONNECTIONS = 256 };

struct call {
	LIST_ENTRY(call) in_all;
	struct call *next; /* while it is new */
	struct http *h;
	uint64_t id;
	char *url;
	struct curl_slist *headers;
	struct peer_call call; /* its functions and their argument */
	struct peer_head head;
	bool has_head, is_cut;
	CURL *easy;
	char why[CURL_ERROR_SIZE];
};

struct cancel {
	struct cancel *next;
	uint64_t id;
};

struct http {
	pthread_t thread;
	pthread_mutex_t lock;
	struct call *new_calls, **last_new; /* protected by lock, as all up to `stops` */
	struct cancel *cancels;
	uint64_t last_id;
	bool stops;
	CURLM *multi;
	LIST_HEAD(, call) all;
	CURL *idle[MAX_IDLE];
	unsigned n_idle;
	bool (*tick)(void *arg);
	void *arg;
	char *cert, *key, *ca;
};

static void call_free(struct call *c)
{
	curl_slist_free_all(c->headers);
	free(c->url);
	free(c);
}

/* ---- What libcurl tells --------------------------------------------------------------------------------------- */

static int tell_head(struct call *c)
{
	long status = 0;

	if (c->has_head)
		return 0;
	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	c->has_head = true;
	c->head.status = (int)status;
	return c->call.on_head(c->call.arg, &c->head);
}

static size_t on_header(char *data, size_t one, size_t n, void *arg)
{
	static const char name[] = "Flip-Holders:";
	struct call *c = arg;
	size_t size = one * n;

	if (size > sizeof(name) && strncasecmp(data, name, sizeof(name) - 1) == 0) {
		size_t k = size - (sizeof(name) - 1);

		k = k < sizeof(c->head.holders) - 1 ? k : sizeof(c->head.holders) - 1;
		memcpy(c->head.holders, data + sizeof(name) - 1, k);
		c->head.holders[k] = '\0';
		c->head.holders[strcspn(c->head.holders, "\r\n")] = '\0';
	}
	return size;
}

static void keep_words(struct call *c, const char *data, size_t size)
{
	size_t at = strlen(c->head.words), room = sizeof(c->head.words) - 1 - at;

	size = size < room ? size : room;
	for (size_t i = 0; i < size; i++)
		c->head.words[at + i] = data[i] >= ' ' && data[i] < 127 ? data[i] : ' ';
	c->head.words[at + size] = '\0';
}

static size_t on_body(char *data, size_t one, size_t n, void *arg)
{
	struct call *c = arg;

	long status = 0;

	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status / 100 != 2) { /* the head is told with them */
		keep_words(c, data, one * n);
		return one * n;
	}
	if (c->is_cut || tell_head(c) != 0)
		return 0;
	return c->call.on_data(c->call.arg, data, one * n) == 0 ? one * n : 0;
}

static int errno_of(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_WRITE_ERROR:
	case CURLE_ABORTED_BY_CALLBACK:
		return -ECANCELED;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CONNECT_ERROR:
		return -EACCES;
	default:
		return -EIO;
	}
}

/* ---- The thread ----------------------------------------------------------------------------------------------- */

static CURL *take_easy(struct http *h)
{
	return h->n_idle ? h->idle[--h->n_idle] : curl_easy_init();
}

static void give_easy(struct http *h, CURL *easy)
{
	if (h->n_idle == MAX_IDLE) {
		curl_easy_cleanup(easy);
		return;
	}
	curl_easy_reset(easy);
	h->idle[h->n_idle++] = easy;
}

static void end(struct call *c, int r)
{
	struct http *h = c->h;
	const char *why = r < 0 && r != -ECANCELED && c->why[0] ? c->why : NULL;

	if (c->easy) {
		(void)curl_multi_remove_handle(h->multi, c->easy);
		if (r == 0 && tell_head(c) != 0)
			r = -ECANCELED;
		give_easy(h, c->easy);
	}
	LIST_REMOVE(c, in_all);
	c->call.on_end(c->call.arg, r, why);
	call_free(c);
}

static void begin(struct call *c)
{
	struct http *h = c->h;
	CURL *e = c->easy = take_easy(h);

	LIST_INSERT_HEAD(&h->all, c, in_all);
	if (!e) {
		end(c, -ENOMEM);
		return;
	}
	(void)curl_easy_setopt(e, CURLOPT_URL, c->url);
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, c);
	(void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	(void)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 128L << 10);
	(void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	(void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->why);
	if (h->ca) {
		(void)curl_easy_setopt(e, CURLOPT_CAINFO, h->ca);
		(void)curl_easy_setopt(e, CURLOPT_SSLCERT, h->cert);
		(void)curl_easy_setopt(e, CURLOPT_SSLKEY, h->key);
#if LIBCURL_VERSION_NUM >= 0x075700
		/* The files may be replaced: each connection reads them. */
		(void)curl_easy_setopt(e, CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
	}
	if (curl_multi_add_handle(h->multi, e) != CURLM_OK)
		end(c, -ENOMEM);
}

static struct call *find(struct http *h, uint64_t id)
{
	struct call *c;

	LIST_FOREACH(c, &h->all, in_all)
	{
		if (c->id == id)
			return c;
	}
	return NULL;
}

/* False when it is time to end. */
static bool take_news(struct http *h)
{
	struct call *c, *next;
	struct cancel *x, *after;
	bool goes_on;

	pthread_mutex_lock(&h->lock);
	c = h->new_calls;
	h->new_calls = NULL;
	h->last_new = &h->new_calls;
	x = h->cancels;
	h->cancels = NULL;
	goes_on = !h->stops;
	pthread_mutex_unlock(&h->lock);
	for (; c; c = next) {
		next = c->next;
		begin(c);
	}
	for (; x; x = after) {
		struct call *found = find(h, x->id);

		after = x->next;
		if (found)
			end(found, -ECANCELED);
		free(x);
	}
	return goes_on;
}

static void *drive(void *arg)
{
	struct http *h = arg;

	while (take_news(h)) {
		bool goes_on;
		CURLMsg *m;
		int n;

		(void)curl_multi_perform(h->multi, &n);
		while ((m = curl_multi_info_read(h->multi, &n))) {
			struct call *c = NULL;
			CURLcode code = m->data.result;

			if (m->msg != CURLMSG_DONE)
				continue;
			(void)curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
			end(c, errno_of(code));
		}
		goes_on = h->tick(h->arg);
		(void)curl_multi_poll(h->multi, NULL, 0, LIST_EMPTY(&h->all) && !goes_on ? 3600000 : TICK_MS, NULL);
	}
	while (!LIST_EMPTY(&h->all))
		end(LIST_FIRST(&h->all), -ECANCELED);
	return NULL;
}

/* ---- The callers' side ---------------------------------------------------------------------------------------- */

static int http_ask(void *transport, const struct peer_call *call, uint64_t *ret_id)
{
	struct http *h = transport;
	struct call *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->h = h;
	c->call = *call;
	if (asprintf(&c->url, "%s://%s%s", h->ca ? "https" : "http", call->to, call->path) < 0) {
		free(c);
		return -ENOMEM;
	}
	for (size_t i = 0; call->headers[i]; i++) {
		struct curl_slist *s = curl_slist_append(c->headers, call->headers[i]);

		if (!s) {
			call_free(c);
			return -ENOMEM;
		}
		c->headers = s;
	}
	c->call.to = c->call.fabric = c->call.path = NULL;
	c->call.headers = NULL;
	pthread_mutex_lock(&h->lock);
	if (h->stops) {
		pthread_mutex_unlock(&h->lock);
		call_free(c);
		return -ECANCELED;
	}
	c->id = *ret_id = ++h->last_id;
	*h->last_new = c;
	h->last_new = &c->next;
	pthread_mutex_unlock(&h->lock);
	(void)curl_multi_wakeup(h->multi);
	return 0;
}

static void http_cancel(void *transport, uint64_t id)
{
	struct http *h = transport;
	struct cancel *x = malloc(sizeof(*x));

	if (!x)
		return; /* it ends by itself */
	x->id = id;
	pthread_mutex_lock(&h->lock);
	x->next = h->cancels;
	h->cancels = x;
	pthread_mutex_unlock(&h->lock);
	(void)curl_multi_wakeup(h->multi);
}

static void http_free(struct http *h)
{
	while (h->n_idle)
		curl_easy_cleanup(h->idle[--h->n_idle]);
	if (h->multi)
		(void)curl_multi_cleanup(h->multi);
	(void)pthread_mutex_destroy(&h->lock);
	free(h->cert);
	free(h->key);
	free(h->ca);
	free(h);
}

static void http_stop(void *transport)
{
	struct http *h = transport;

	pthread_mutex_lock(&h->lock);
	h->stops = true;
	pthread_mutex_unlock(&h->lock);
	(void)curl_multi_wakeup(h->multi);
	(void)pthread_join(h->thread, NULL);
}

static void http_close(void *transport)
{
	struct http *h = transport;

	while (h->cancels) {
		struct cancel *x = h->cancels;

		h->cancels = x->next;
		free(x);
	}
	http_free(h);
}

static int copy(const char *text, char **ret)
{
	*ret = text ? strdup(text) : NULL;
	return text && !*ret ? -ENOMEM : 0;
}

static int http_open(const struct peer_transport_opts *opts, void **ret, struct err *err)
{
	const struct flip_peers_opts *o = opts->o;
	struct http *h = calloc(1, sizeof(*h));
	int r = -ENOMEM;

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&h->lock, NULL);
	LIST_INIT(&h->all);
	h->last_new = &h->new_calls;
	h->tick = opts->tick;
	h->arg = opts->arg;
	h->multi = curl_multi_init();
	if (h->multi && copy(o->cert_file, &h->cert) == 0 && copy(o->key_file, &h->key) == 0 &&
	    copy(o->ca_file, &h->ca) == 0) {
		(void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)MAX_CONNECTIONS);
		r = -pthread_create(&h->thread, NULL, drive, h);
	}
	if (r < 0) {
		http_free(h);
		return err_set(err, r, "peers cannot be asked: %s", strerror(-r));
	}
	*ret = h;
	return 0;
}

const struct peer_transport_ops peer_transport_http = {
	"http", http_open, http_ask, http_cancel, http_stop, http_close
};
