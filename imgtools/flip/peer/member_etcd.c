/* Members in etcd, through the JSON gateway that it has beside gRPC: each member keeps a key PREFIX/HOST:PORT with a
 * lease of 10 s alive, reads all keys below the prefix, and watches them from that revision on.
 *
 * One thread keeps the lease, another one watches. Whatever fails is tried again at the next address after a pause.
 * While etcd is away nobody's list changes: leases end only when etcd is there to end them, and then those that are
 * alive are back within a second; a list that is empty, or has lost ourselves, is not believed until our own key is in
 * it again. */
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "peer/membership.h"

enum { LEASE_S = 10, KEEP_S = 3, MAX_ENDPOINTS = 8, MAX_LINE = 16 << 20, CALL_TIMEOUT_S = 4 };

struct etcd {
	struct peer_membership_opts o;
	char *text; /* o.where, cut up */
	char *ca_file;
	const char *endpoints[MAX_ENDPOINTS];
	unsigned n_endpoints;
	char prefix[256]; /* with a '/' at its end */
	pthread_t keeper, watcher;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stops;               /* protected by lock */
	int64_t lease;            /* the keeper's; 0: none */
	struct peer_named *known; /* the watcher's, with n_known */
	size_t n_known;
	bool is_away; /* the keeper's: said already */
};

static bool is_stopping(struct etcd *e)
{
	bool stops;

	pthread_mutex_lock(&e->lock);
	stops = e->stops;
	pthread_mutex_unlock(&e->lock);
	return stops;
}

/* False when it is time to end. */
static bool wait_ms(struct etcd *e, unsigned ms)
{
	struct timespec until;
	bool goes_on;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&e->lock);
	while (!e->stops && pthread_cond_timedwait(&e->wake, &e->lock, &until) != ETIMEDOUT)
		;
	goes_on = !e->stops;
	pthread_mutex_unlock(&e->lock);
	return goes_on;
}

/* ---- One exchange --------------------------------------------------------------------------------------------- */

static size_t take_body(char *data, size_t one, size_t n, void *arg)
{
	return base_buf_append(arg, data, one * n) < 0 ? 0 : one * n;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	return is_stopping(arg);
}

static CURL *prepare(struct etcd *e, const char *endpoint, const char *path, const char *body, char *url,
                     size_t url_size)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	(void)snprintf(url, url_size, "%s/v3/%s", endpoint, path);
	(void)curl_easy_setopt(c, CURLOPT_URL, url);
	(void)curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
	(void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 2L);
	(void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	(void)curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
	(void)curl_easy_setopt(c, CURLOPT_XFERINFODATA, e);
	(void)curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
	if (e->ca_file)
		(void)curl_easy_setopt(c, CURLOPT_CAINFO, e->ca_file);
	return c;
}

static int call(struct etcd *e, const char *path, const char *body, struct etcd_answer *ret, struct err *err)
{
	int r = err_set(err, -ENETUNREACH, "etcd: no address");

	for (unsigned i = 0; i < e->n_endpoints && r < 0 && !is_stopping(e); i++) {
		struct base_buf answer = BASE_BUF_INIT(MAX_LINE);
		char url[512];
		CURL *c = prepare(e, e->endpoints[i], path, body, url, sizeof(url));
		CURLcode code;

		if (!c)
			return err_set(err, -ENOMEM, "out of memory");
		(void)curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)CALL_TIMEOUT_S);
		(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
		(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, &answer);
		code = curl_easy_perform(c);
		curl_easy_cleanup(c);
		r = code == CURLE_OK ? etcd_answer_parse(answer.data, answer.len, ret, err)
		                     : err_set(err, -ENETUNREACH, "%s: %s", url, curl_easy_strerror(code));
		base_buf_done(&answer);
	}
	return r;
}

static int append_key(struct base_buf *b, const char *name, const char *key, const char *suffix, bool is_end)
{
	char text[512];
	size_t n = (size_t)snprintf(text, sizeof(text), "%s%s", key, suffix);

	if (is_end && n)
		text[n - 1]++; /* the first key behind those with the prefix */
	(void)base_buf_printf(b, "\"%s\":\"", name);
	(void)etcd_base64(text, n, b);
	return base_buf_putc(b, '"');
}

/* ---- The lease ------------------------------------------------------------------------------------------------ */

static int join(struct etcd *e, struct err *err)
{
	struct base_buf body = BASE_BUF_INIT(4096), value = BASE_BUF_INIT(1024);
	struct etcd_answer a = { 0 };
	char text[64];
	int r;

	(void)snprintf(text, sizeof(text), "{\"TTL\":\"%d\"}", LEASE_S);
	r = call(e, "lease/grant", text, &a, err);
	if (r == 0 && !a.lease)
		r = err_set(err, -EBADMSG, "etcd: a lease without a number");
	e->lease = r == 0 ? a.lease : 0;
	etcd_answer_done(&a);
	if (r < 0)
		return r;
	(void)base_buf_puts(&value, "{\"zone\":");
	(void)base_buf_printf(&value, "\"%s\",\"fabric\":\"%s\"}", e->o.zone ? e->o.zone : "",
	                      e->o.fabric ? e->o.fabric : "");
	(void)base_buf_putc(&body, '{');
	(void)append_key(&body, "key", e->prefix, e->o.self, false);
	(void)base_buf_puts(&body, ",\"value\":\"");
	(void)etcd_base64(value.data, value.len, &body);
	(void)base_buf_printf(&body, "\",\"lease\":\"%lld\"}", (long long)e->lease);
	r = base_buf_error(&body) ? -ENOMEM : call(e, "kv/put", base_buf_text(&body), &a, err);
	if (r == 0)
		etcd_answer_done(&a);
	else
		e->lease = 0;
	base_buf_done(&body);
	base_buf_done(&value);
	return r;
}

static int keep_alive(struct etcd *e, struct err *err)
{
	struct etcd_answer a = { 0 };
	char text[64];
	int r;

	(void)snprintf(text, sizeof(text), "{\"ID\":\"%lld\"}", (long long)e->lease);
	r = call(e, "lease/keepalive", text, &a, err);
	if (r == 0 && a.ttl <= 0)
		r = err_set(err, -ENOENT, "etcd: the lease has ended");
	if (r == 0)
		etcd_answer_done(&a);
	if (r == -ENOENT)
		e->lease = 0;
	return r;
}

static void *keep_lease(void *arg)
{
	struct etcd *e = arg;
	unsigned pause_ms;

	do {
		struct err err = { 0 };
		int r = e->lease ? keep_alive(e, &err) : join(e, &err);

		if (r < 0 && !e->is_away)
			base_log(BASE_LOG_WARN, "peers: %s; going on with the members that are known", err_text(&err));
		if (r == 0 && e->is_away)
			base_log(BASE_LOG_INFO, "peers: etcd is back");
		e->is_away = r < 0;
		pause_ms = r == 0 ? KEEP_S * 1000 : 500;
	} while (wait_ms(e, pause_ms));
	return NULL;
}

/* ---- The list ------------------------------------------------------------------------------------------------- */

static size_t place_of(const struct etcd *e, const char *name)
{
	size_t i = 0;

	while (i < e->n_known && strcmp(e->known[i].name, name) != 0)
		i++;
	return i;
}

static int apply(struct etcd *e, const struct etcd_answer *a)
{
	for (size_t i = 0; i < a->n; i++) {
		const struct etcd_kv *kv = &a->items[i];
		size_t at = place_of(e, kv->named.name);

		if (kv->is_deleted) {
			if (at < e->n_known)
				e->known[at] = e->known[--e->n_known];
			continue;
		}
		if (at == e->n_known) {
			struct peer_named *p = reallocarray(e->known, e->n_known + 1, sizeof(*p));

			if (!p)
				return -ENOMEM;
			e->known = p;
			e->n_known++;
		}
		e->known[at] = kv->named;
	}
	return 0;
}

/* After etcd was away its leases may all have ended before ours came back: such a list is not told. */
static void tell(struct etcd *e)
{
	if (place_of(e, e->o.self) < e->n_known)
		e->o.changed(e->o.arg, e->known, e->n_known);
}

static int read_all(struct etcd *e, int64_t *ret_revision, struct err *err)
{
	struct base_buf body = BASE_BUF_INIT(4096);
	struct etcd_answer a = { 0 };
	int r;

	(void)base_buf_putc(&body, '{');
	(void)append_key(&body, "key", e->prefix, "", false);
	(void)base_buf_putc(&body, ',');
	(void)append_key(&body, "range_end", e->prefix, "", true);
	(void)base_buf_putc(&body, '}');
	r = base_buf_error(&body) ? -ENOMEM : call(e, "kv/range", base_buf_text(&body), &a, err);
	base_buf_done(&body);
	if (r < 0)
		return r;
	e->n_known = 0;
	r = apply(e, &a);
	*ret_revision = a.revision;
	etcd_answer_done(&a);
	if (r == 0)
		tell(e);
	return r;
}

struct watching {
	struct etcd *e;
	struct base_buf line;
	bool is_over;
};

/* One JSON document in a line. */
static size_t take_lines(char *data, size_t one, size_t n, void *arg)
{
	struct watching *w = arg;

	for (size_t i = 0; i < one * n; i++) {
		struct etcd_answer a = { 0 };

		if (data[i] != '\n') {
			if (base_buf_putc(&w->line, data[i]) < 0)
				return 0;
			continue;
		}
		if (w->line.len && etcd_answer_parse(w->line.data, w->line.len, &a, NULL) == 0) {
			w->is_over = a.is_canceled || apply(w->e, &a) < 0;
			if (a.n)
				tell(w->e);
			etcd_answer_done(&a);
		} else if (w->line.len) {
			w->is_over = true;
		}
		base_buf_reset(&w->line);
		if (w->is_over)
			return 0;
	}
	return one * n;
}

/* Until the connection ends, which it does when etcd goes away; the list is read anew then. */
static void watch(struct etcd *e, unsigned endpoint, int64_t revision)
{
	struct base_buf body = BASE_BUF_INIT(4096);
	struct watching w = { .e = e, .line = BASE_BUF_INIT(MAX_LINE) };
	char url[512];
	CURL *c;

	(void)base_buf_puts(&body, "{\"create_request\":{");
	(void)append_key(&body, "key", e->prefix, "", false);
	(void)base_buf_putc(&body, ',');
	(void)append_key(&body, "range_end", e->prefix, "", true);
	(void)base_buf_printf(&body, ",\"start_revision\":\"%lld\"}}", (long long)revision + 1);
	c = base_buf_error(&body) ? NULL
	                          : prepare(e, e->endpoints[endpoint], "watch", base_buf_text(&body), url, sizeof(url));
	if (c) {
		/* A gateway that is cut off without a word: the kernel asks whether it is still there. */
		(void)curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
		(void)curl_easy_setopt(c, CURLOPT_TCP_KEEPIDLE, 10L);
		(void)curl_easy_setopt(c, CURLOPT_TCP_KEEPINTVL, 5L);
		(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_lines);
		(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, &w);
		(void)curl_easy_perform(c);
		curl_easy_cleanup(c);
	}
	base_buf_done(&body);
	base_buf_done(&w.line);
}

static void *watch_members(void *arg)
{
	struct etcd *e = arg;
	unsigned endpoint = 0;

	do {
		int64_t revision = 0;
		struct err err = { 0 };

		if (read_all(e, &revision, &err) == 0)
			watch(e, endpoint, revision);
		endpoint = (endpoint + 1) % e->n_endpoints;
	} while (wait_ms(e, 500));
	return NULL;
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

/* "http://a:2379,http://b:2379/PREFIX" */
static int cut_up(struct etcd *e, const char *where, struct err *err)
{
	char *p, *slash, *save = NULL;

	e->text = strdup(where);
	if (!e->text)
		return err_set(err, -ENOMEM, "out of memory");
	(void)snprintf(e->prefix, sizeof(e->prefix), "/flip/peers/");
	for (p = strtok_r(e->text, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
		if (e->n_endpoints == MAX_ENDPOINTS ||
		    (strncmp(p, "http://", 7) != 0 && strncmp(p, "https://", 8) != 0))
			return err_set(err, -EINVAL, "peers.members: etcd: \"%.100s\" is not http://HOST:PORT", p);
		slash = strchr(strstr(p, "//") + 2, '/');
		if (slash && slash[1]) {
			if (strlen(slash) + 2 > sizeof(e->prefix) || strpbrk(slash, "\"\\"))
				return err_set(err, -EINVAL, "peers.members: etcd: \"%.100s\" is no prefix", slash);
			(void)snprintf(e->prefix, sizeof(e->prefix), "%s%s", slash,
			               slash[strlen(slash) - 1] == '/' ? "" : "/");
		}
		if (slash)
			*slash = '\0';
		e->endpoints[e->n_endpoints++] = p;
	}
	return e->n_endpoints ? 0 : err_set(err, -EINVAL, "peers.members: etcd: no address");
}

static void etcd_free(struct etcd *e)
{
	(void)pthread_mutex_destroy(&e->lock);
	(void)pthread_cond_destroy(&e->wake);
	free(e->known);
	free(e->ca_file);
	free(e->text);
	free(e);
}

static void stop(struct etcd *e)
{
	pthread_mutex_lock(&e->lock);
	e->stops = true;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
}

static int etcd_open(const struct peer_membership_opts *o, void **ret, struct err *err)
{
	struct etcd *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return err_set(err, -ENOMEM, "out of memory");
	(void)pthread_mutex_init(&e->lock, NULL);
	(void)pthread_cond_init(&e->wake, NULL);
	e->o = *o;
	r = cut_up(e, o->where, err);
	if (r == 0 && o->ca_file && !(e->ca_file = strdup(o->ca_file)))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0 && (r = -pthread_create(&e->keeper, NULL, keep_lease, e)) < 0)
		(void)err_set(err, r, "a thread: %s", strerror(-r));
	if (r == 0 && (r = -pthread_create(&e->watcher, NULL, watch_members, e)) < 0) {
		stop(e);
		(void)pthread_join(e->keeper, NULL);
		(void)err_set(err, r, "a thread: %s", strerror(-r));
	}
	if (r < 0) {
		etcd_free(e);
		return r;
	}
	*ret = e;
	return 0;
}

static void etcd_close(void *membership)
{
	struct etcd *e = membership;
	char text[64];

	stop(e);
	(void)pthread_join(e->keeper, NULL);
	(void)pthread_join(e->watcher, NULL);
	if (e->lease) { /* so that nobody asks us any more: one attempt, not long */
		char url[512];
		struct base_buf answer = BASE_BUF_INIT(MAX_LINE);
		CURL *c;

		(void)snprintf(text, sizeof(text), "{\"ID\":\"%lld\"}", (long long)e->lease);
		c = prepare(e, e->endpoints[0], "lease/revoke", text, url, sizeof(url));
		if (c) {
			(void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 1L);
			(void)curl_easy_setopt(c, CURLOPT_TIMEOUT, 1L);
			(void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
			(void)curl_easy_setopt(c, CURLOPT_WRITEDATA, &answer);
			(void)curl_easy_perform(c);
			curl_easy_cleanup(c);
		}
		base_buf_done(&answer);
	}
	etcd_free(e);
}

const struct peer_membership_ops peer_membership_etcd = { "etcd", etcd_open, etcd_close };
