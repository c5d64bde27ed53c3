/* The simple ones: a list that is told once, and what is looked at again every few seconds: a name of the DNS, a file
 * that somebody else writes. */
#include "peer/membership.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "peer/wire.h"

enum { DNS_EVERY_S = 5, FILE_EVERY_S = 2, MAX_FILE = 8 << 20 };

const struct peer_membership_ops *peer_membership_choose(const char *members, const char **ret_where, struct err *err)
{
	static const struct peer_membership_ops *const all[] = { &peer_membership_static, &peer_membership_dns,
		                                                 &peer_membership_etcd, &peer_membership_file };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		size_t n = strlen(all[i]->scheme);

		if (strncmp(members, all[i]->scheme, n) == 0 && members[n] == ':') {
			*ret_where = members + n + 1;
			return all[i];
		}
	}
	(void)err_set(err, -EINVAL,
	              "peers.members: \"%.100s\" begins with none of static:, dns:, etcd:, file:", members);
	return NULL;
}

int peer_fabric_parse(const char *name, const char *text, char ret[FLIP_PEER_NAME])
{
	char whole[FLIP_PEER_NAME];
	const char *colon = strrchr(name, ':');
	int n = strchr(text, ':') || !colon
	                ? snprintf(whole, sizeof(whole), "%s", text)
	                : snprintf(whole, sizeof(whole), "%.*s:%s", (int)(colon - name), name, text);

	if (n < 0 || (size_t)n >= sizeof(whole) || !peer_name_is_valid(whole))
		return -EBADMSG;
	memcpy(ret, whole, sizeof(whole));
	return 0;
}

int peer_named_parse(const char *text, size_t size, struct peer_named *ret)
{
	static const char zone_set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	const char *at = memchr(text, '@', size);
	size_t n = at ? (size_t)(at - text) : size, n_zone = at ? size - n - 1 : 0;
	const char *plus = memchr(text, '+', n);
	size_t n_fabric = plus ? n - (size_t)(plus - text) - 1 : 0;
	struct peer_named named = { .zone = "" };
	char fabric[FLIP_PEER_NAME] = "";

	n -= plus ? n_fabric + 1 : 0;
	if (n >= sizeof(named.name) || n_zone >= sizeof(named.zone) || n_fabric >= sizeof(fabric))
		return -EBADMSG;
	if (plus)
		memcpy(fabric, plus + 1, n_fabric);
	memcpy(named.name, text, n);
	if (n_zone)
		memcpy(named.zone, at + 1, n_zone);
	if (strlen(named.zone) != n_zone || strspn(named.zone, zone_set) != n_zone)
		return -EBADMSG;
	if (strlen(named.name) != n || !peer_name_is_valid(named.name))
		return -EBADMSG;
	if (strlen(fabric) != n_fabric || (plus && peer_fabric_parse(named.name, fabric, named.fabric) < 0))
		return -EBADMSG;
	*ret = named;
	return 0;
}

int peer_list_parse(const char *text, struct peer_named **ret_named, size_t *ret_n, struct err *err)
{
	struct peer_named *named = NULL;
	size_t n = 0;

	for (;;) {
		size_t size;
		struct peer_named *p;

		text += strspn(text, ", \t\r\n");
		if (!*text)
			break;
		size = strcspn(text, ", \t\r\n");
		p = n < PEER_MAX_MEMBERS ? reallocarray(named, n + 1, sizeof(*p)) : NULL;
		if (!p) {
			free(named);
			return err_set(err, -ENOMEM, "too many members");
		}
		named = p;
		if (peer_named_parse(text, size, &named[n]) < 0) {
			free(named);
			return err_set(err, -EINVAL, "peers.members: \"%.*s\" is not HOST:PORT[+FABRIC][@ZONE]",
			               (int)(size < 100 ? size : 100), text);
		}
		n++;
		text += size;
	}
	*ret_named = named;
	*ret_n = n;
	return 0;
}

/* ---- A list --------------------------------------------------------------------------------------------------- */

static int static_open(const struct peer_membership_opts *o, void **ret, struct err *err)
{
	struct peer_named *named;
	size_t n;
	int r = peer_list_parse(o->where, &named, &n, err);

	if (r < 0)
		return r;
	o->changed(o->arg, named, n);
	free(named);
	*ret = NULL;
	return 0;
}

static void static_close(void *membership)
{
	(void)membership;
}

const struct peer_membership_ops peer_membership_static = { "static", static_open, static_close };

/* ---- A name --------------------------------------------------------------------------------------------------- */

struct poll {
	struct peer_membership_opts o;
	char *host, *port; /* of a name; and of libfabric, or NULL */
	char *fabric;
	char *path, *last; /* of a file, and what was in it */
	unsigned every_s;
	void (*look)(struct poll *d);
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stops; /* protected by lock */
};

static int one_address(const struct addrinfo *a, const struct poll *d, struct peer_named *ret)
{
	char host[64], text[FLIP_PEER_NAME];

	if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0)
		return -EBADMSG;
	(void)snprintf(text, sizeof(text), strchr(host, ':') ? "[%.60s]:%.5s%s%.5s" : "%.60s:%.5s%s%.5s", host, d->port,
	               d->fabric ? "+" : "", d->fabric ? d->fabric : "");
	return peer_named_parse(text, strlen(text), ret);
}

static void resolve(struct poll *d)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct peer_named *named = NULL;
	size_t n = 0, cap = 0;
	int r = getaddrinfo(d->host, d->port, &hints, &list);

	if (r != 0) { /* what was known stays */
		base_log(BASE_LOG_DEBUG, "peers: %s: %s", d->host, gai_strerror(r));
		return;
	}
	for (const struct addrinfo *a = list; a; a = a->ai_next)
		cap++;
	named = calloc(cap ? cap : 1, sizeof(*named));
	for (const struct addrinfo *a = list; named && a; a = a->ai_next)
		n += one_address(a, d, &named[n]) == 0;
	if (named && n)
		d->o.changed(d->o.arg, named, n);
	free(named);
	freeaddrinfo(list);
}

static void *poll(void *arg)
{
	struct poll *d = arg;

	pthread_mutex_lock(&d->lock);
	while (!d->stops) {
		struct timespec until;

		pthread_mutex_unlock(&d->lock);
		d->look(d);
		pthread_mutex_lock(&d->lock);
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += d->every_s;
		if (!d->stops)
			(void)pthread_cond_timedwait(&d->wake, &d->lock, &until);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

static void poll_free(struct poll *d)
{
	free(d->host);
	free(d->path);
	free(d->last);
	free(d);
}

static int poll_start(struct poll *d, void **ret, struct err *err)
{
	int r;

	(void)pthread_mutex_init(&d->lock, NULL);
	(void)pthread_cond_init(&d->wake, NULL);
	r = pthread_create(&d->thread, NULL, poll, d);
	if (r) {
		poll_free(d);
		return err_set(err, -r, "a thread: %s", strerror(r));
	}
	*ret = d;
	return 0;
}

static int dns_open(const struct peer_membership_opts *o, void **ret, struct err *err)
{
	struct poll *d = calloc(1, sizeof(*d));

	if (!d || !(d->host = strdup(o->where))) {
		free(d);
		return err_set(err, -ENOMEM, "out of memory");
	}
	d->o = *o;
	d->every_s = DNS_EVERY_S;
	d->look = resolve;
	d->fabric = strchr(d->host, '+');
	if (d->fabric)
		*d->fabric++ = '\0';
	d->port = strrchr(d->host, ':');
	if ((d->fabric && (!*d->fabric || strspn(d->fabric, "0123456789") != strlen(d->fabric))) || !d->port ||
	    d->port == d->host || !peer_name_is_valid(d->host)) {
		poll_free(d);
		return err_set(err, -EINVAL, "peers.members: \"dns:%.100s\" is not dns:NAME:PORT[+PORT]", o->where);
	}
	*d->port++ = '\0';
	return poll_start(d, ret, err);
}

static void poll_close(void *membership)
{
	struct poll *d = membership;

	pthread_mutex_lock(&d->lock);
	d->stops = true;
	pthread_cond_signal(&d->wake);
	pthread_mutex_unlock(&d->lock);
	(void)pthread_join(d->thread, NULL);
	(void)pthread_mutex_destroy(&d->lock);
	(void)pthread_cond_destroy(&d->wake);
	poll_free(d);
}

const struct peer_membership_ops peer_membership_dns = { "dns", dns_open, poll_close };

/* ---- A file ---------------------------------------------------------------------------------------------------- */

static char *read_text(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t size = 0;
	ssize_t n = f ? getdelim(&text, &size, '\0', f) : -1;

	if (f)
		(void)fclose(f);
	if (n < 0 || n > MAX_FILE) {
		free(text);
		return NULL;
	}
	return text;
}

/* One that is missing, empty or half written changes nothing. */
static void read_list(struct poll *d)
{
	char *text = read_text(d->path);
	struct peer_named *named = NULL;
	struct err err = { 0 };
	size_t n = 0;

	if (!text || (d->last && strcmp(text, d->last) == 0)) {
		free(text);
		return;
	}
	if (peer_list_parse(text, &named, &n, &err) < 0)
		base_log(BASE_LOG_WARN, "%s: %s; going on with the members that are known", d->path, err_text(&err));
	else if (n)
		d->o.changed(d->o.arg, named, n);
	free(named);
	free(d->last);
	d->last = text;
}

static int file_open(const struct peer_membership_opts *o, void **ret, struct err *err)
{
	struct poll *d = calloc(1, sizeof(*d));

	if (!d || !(d->path = strdup(o->where))) {
		free(d);
		return err_set(err, -ENOMEM, "out of memory");
	}
	if (d->path[0] != '/') {
		poll_free(d);
		return err_set(err, -EINVAL, "peers.members: \"file:%.100s\" is not an absolute path", o->where);
	}
	d->o = *o;
	d->every_s = FILE_EVERY_S;
	d->look = read_list;
	return poll_start(d, ret, err);
}

const struct peer_membership_ops peer_membership_file = { "file", file_open, poll_close };
