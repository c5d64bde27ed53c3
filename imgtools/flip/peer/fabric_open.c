/* libfabric is found and opened here, when it is first needed: the library, what one of its providers offers, the
 * domains (cards), and the endpoint that listens. A fabric owns its domains and its lines (fabric_line.h). */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rdma/fi_cm.h>
#include <rdma/fi_errno.h>

#include "base/library.h"
#include "peer/fabric_internal.h"
#include "peer/wire.h"

#define VERSION FI_VERSION(1, 9)

/* ---- The library ---- */

struct peer_libfabric peer_libfabric;

/* Once opened it stays: its providers have threads and handlers of their own. */
static int load(struct err *err)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static bool is_loaded; /* protected by lock */
	static const struct base_symbol symbols[] = { { "fi_getinfo", &peer_libfabric.getinfo },
		                                      { "fi_freeinfo", &peer_libfabric.freeinfo },
		                                      { "fi_dupinfo", &peer_libfabric.dupinfo },
		                                      { "fi_fabric", &peer_libfabric.fabric },
		                                      { "fi_strerror", &peer_libfabric.strerror } };
	struct err why = { 0 };
	int r = 0;

	pthread_mutex_lock(&lock);
	if (!is_loaded) {
		r = base_library_load("libfabric.so.1", symbols, sizeof(symbols) / sizeof(*symbols), &why);
		is_loaded = r == 0;
	}
	pthread_mutex_unlock(&lock);
	return r < 0 ? err_set(err, -ENOSYS, "libfabric is not installed: %s", err_text(&why)) : 0;
}

int peer_fabric_errno(int r)
{
	r = r < 0 ? -r : r;
	return r == 0 ? -EIO : r < FI_ERRNO_OFFSET ? -r : -EIO;
}

static struct fi_info *hints_of(const char *provider)
{
	struct fi_info *h = peer_libfabric.dupinfo(NULL);

	if (!h)
		return NULL;
	h->caps = FI_MSG | FI_RMA;
	h->mode = FI_CONTEXT | FI_CONTEXT2 | FI_RX_CQ_DATA;
	h->addr_format = FI_SOCKADDR;
	h->ep_attr->type = FI_EP_MSG;
	h->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	/* A message after a write: what it tells of is there. */
	h->tx_attr->msg_order = h->rx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	h->fabric_attr->prov_name = strdup(provider);
	if (!h->fabric_attr->prov_name) {
		peer_libfabric.freeinfo(h);
		return NULL;
	}
	return h;
}

int peer_fabric_info(const char *provider, const char *host, const char *port, uint64_t flags, struct fi_info **ret,
                     struct err *err)
{
	struct fi_info *hints = hints_of(provider);
	int r;

	if (!hints)
		return err_set(err, -ENOMEM, "out of memory");
	r = peer_libfabric.getinfo(VERSION, host, port, flags | FI_NUMERICHOST, hints, ret);
	peer_libfabric.freeinfo(hints);
	if (r)
		return err_set(err, r == -FI_ENODATA ? -ENOSYS : peer_fabric_errno(r), "libfabric: provider %s%s%s: %s",
		               provider, host ? " for " : "", host ? host : "",
		               r == -FI_ENODATA ? "is not here, or has no connected endpoints with remote writes"
		                                : peer_libfabric.strerror(-r));
	return 0;
}

int peer_fabric_check(const char *provider, struct err *err)
{
	struct fi_info *info;
	int r = load(err);

	if (r == 0)
		r = peer_fabric_info(provider, NULL, NULL, 0, &info, err);
	if (r == 0)
		peer_libfabric.freeinfo(info);
	return r;
}

int peer_fabric_split(const char *where, char host[FLIP_PEER_NAME], const char **ret_port, struct err *err)
{
	const char *colon = strrchr(where, ':');
	size_t n;

	if (!peer_name_is_valid(where))
		return err_set(err, -EINVAL, "\"%.100s\" is not HOST:PORT", where);
	n = (size_t)(colon - where);
	if (*where == '[') {
		where++;
		n -= 2;
	}
	memcpy(host, where, n);
	host[n] = '\0';
	*ret_port = colon + 1;
	return 0;
}

/* ---- Domains -------------------------------------------------------------------------------------------------- */

static void domain_free(struct peer_domain *d)
{
	if (d->domain)
		(void)fi_close(&d->domain->fid);
	if (d->fabric && !d->is_listening)
		(void)fi_close(&d->fabric->fid);
	free(d->fabric_name);
	free(d->name);
	free(d);
}

int peer_domain_of(struct peer_fabric *f, struct fi_info *info, bool is_asker, struct peer_domain **ret,
                   struct err *err)
{
	struct peer_domain *d;
	int r;

	for (d = f->domains; d; d = d->next) {
		if (strcmp(d->fabric_name, info->fabric_attr->name) == 0 &&
		    strcmp(d->name, info->domain_attr->name) == 0)
			break;
	}
	if (!d) {
		d = calloc(1, sizeof(*d));
		if (!d || !(d->fabric_name = strdup(info->fabric_attr->name)) ||
		    !(d->name = strdup(info->domain_attr->name))) {
			if (d)
				domain_free(d);
			return err_set(err, -ENOMEM, "out of memory");
		}
		d->is_listening = !is_asker;
		d->fabric = is_asker ? NULL : f->listens_on;
		r = is_asker ? peer_libfabric.fabric(info->fabric_attr, &d->fabric, NULL) : 0;
		if (r == 0)
			r = fi_domain(d->fabric, info, &d->domain, NULL);
		if (r) {
			domain_free(d);
			return err_set(err, peer_fabric_errno(r), "libfabric: %s: %s", info->domain_attr->name,
			               peer_libfabric.strerror(-r));
		}
		d->mr_mode = (uint64_t)info->domain_attr->mr_mode;
		d->key_size = info->domain_attr->mr_key_size < 8 ? info->domain_attr->mr_key_size : 8;
		d->next = f->domains;
		f->domains = d;
	}
	*ret = d;
	return 0;
}

/* ---- Opening
 * ------------------------------------------------------------------------------------------------------
 */

/* A wildcard stays one: providers would take the first interface's address in its place. */
static int set_source(struct fi_info *info, const char *host, const char *port, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV };
	struct addrinfo *list;
	int r = getaddrinfo(host, port, &hints, &list);
	void *copy;

	if (r)
		return err_set(err, -EINVAL, "%s: %s", host, gai_strerror(r));
	copy = malloc(list->ai_addrlen);
	if (copy) {
		memcpy(copy, list->ai_addr, list->ai_addrlen);
		free(info->src_addr);
		info->src_addr = copy;
		info->src_addrlen = list->ai_addrlen;
		info->addr_format = list->ai_family == AF_INET6 ? FI_SOCKADDR_IN6 : FI_SOCKADDR_IN;
	}
	freeaddrinfo(list);
	return copy ? 0 : err_set(err, -ENOMEM, "out of memory");
}

static int listen_at(struct peer_fabric *f, const char *where, struct err *err)
{
	struct fi_eq_attr events = { .wait_obj = FI_WAIT_FD };
	struct fi_info *info = NULL;
	char host[FLIP_PEER_NAME];
	const char *port;
	bool is_any;
	int r = peer_fabric_split(where, host, &port, err);

	if (r < 0)
		return r;
	is_any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
	r = peer_fabric_info(f->provider, is_any ? NULL : host, port, FI_SOURCE, &info, err);
	if (r == 0)
		r = set_source(info, host, port, err);
	if (r < 0) {
		if (info)
			peer_libfabric.freeinfo(info);
		return r;
	}
	r = peer_libfabric.fabric(info->fabric_attr, &f->listens_on, NULL);
	if (r == 0)
		r = fi_eq_open(f->listens_on, &events, &f->pep_events, NULL);
	if (r == 0)
		r = fi_control(&f->pep_events->fid, FI_GETWAIT, &f->pep_fd);
	if (r == 0)
		r = fi_passive_ep(f->listens_on, info, &f->pep, NULL);
	if (r == 0)
		r = fi_pep_bind(f->pep, &f->pep_events->fid, 0);
	if (r == 0)
		r = fi_listen(f->pep);
	f->pep_info = info;
	return r ? err_set(err, peer_fabric_errno(r), "libfabric: %s: %s", where, peer_libfabric.strerror(-r)) : 0;
}

int peer_fabric_open(const char *provider, const char *listen, const struct peer_fabric_events *events, void *arg,
                     struct peer_fabric **ret_fabric, struct err *err)
{
	struct peer_fabric *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	LIST_INIT(&f->lines);
	f->events = *events;
	f->arg = arg;
	(void)snprintf(f->provider, sizeof(f->provider), "%s", provider);
	f->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = f->wake < 0 ? err_set(err, -errno, "an eventfd: %s", strerror(errno)) : peer_fabric_check(provider, err);
	if (r == 0 && listen)
		r = listen_at(f, listen, err);
	if (r < 0) {
		peer_fabric_close(f);
		return r;
	}
	*ret_fabric = f;
	return 0;
}

void peer_fabric_close(struct peer_fabric *f)
{
	struct peer_line *l;

	if (!f)
		return;
	LIST_FOREACH(l, &f->lines, in_lines)
	{
		peer_line_close(l);
	}
	peer_fabric_reap(f);
	if (f->pep)
		(void)fi_close(&f->pep->fid);
	if (f->pep_events)
		(void)fi_close(&f->pep_events->fid);
	while (f->domains) {
		struct peer_domain *d = f->domains;

		f->domains = d->next;
		domain_free(d);
	}
	if (f->listens_on)
		(void)fi_close(&f->listens_on->fid);
	if (f->pep_info)
		peer_libfabric.freeinfo(f->pep_info);
	if (f->wake >= 0)
		(void)close(f->wake);
	free(f->polled);
	free(f);
}
