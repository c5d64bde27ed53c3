/* See fabric_line.h. Of libfabric only five functions are symbols of the library; all others are reached through the
 * objects that these give, so that dlopen() is enough.
 *
 * Each line has an endpoint, a queue of completions and one of events of its own, and one block of memory:
 *
 *   messages that may come | messages that leave | slots (the asker's are written to by the other end)
 *
 * registered where the provider wants that (FI_MR_LOCAL), the slots in any case. Another end can write into the slots
 * of the line that it was told of, and nowhere else: each line registers its own. What lies in a slot is copied before
 * it is looked at twice.
 *
 * GPU-direct would be slots in the device's memory: their registration by FI_MR_DMABUF or FI_HMEM, and pieces that are
 * verified there. */
#include "peer/fabric_line.h"

#include <errno.h>
#include <netdb.h>
#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "base/library.h"
#include "base/log.h"
#include "peer/wire.h"

enum { MESSAGES_SIZE = PEER_LINE_MESSAGES * PEER_MESSAGE_MAX, SLOTS_SIZE = PEER_SLOTS * PEER_SLOT_SIZE };
#define VERSION FI_VERSION(1, 9)

/* ---- The library --------------------------------------------------------------------------------------------------
 */

static struct {
	pthread_mutex_t lock;
	bool is_loaded; /* protected by lock */
	int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags,
	               const struct fi_info *hints, struct fi_info **info);
	void (*freeinfo)(struct fi_info *info);
	struct fi_info *(*dupinfo)(const struct fi_info *info);
	int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
	const char *(*strerror)(int r);
} lib = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Once opened it stays: its providers have threads and handlers of their own. */
static int load(struct err *err)
{
	static const struct base_symbol symbols[] = { { "fi_getinfo", &lib.getinfo },
		                                      { "fi_freeinfo", &lib.freeinfo },
		                                      { "fi_dupinfo", &lib.dupinfo },
		                                      { "fi_fabric", &lib.fabric },
		                                      { "fi_strerror", &lib.strerror } };
	struct err why = { 0 };
	int r = 0;

	pthread_mutex_lock(&lib.lock);
	if (!lib.is_loaded) {
		r = base_library_load("libfabric.so.1", symbols, sizeof(symbols) / sizeof(*symbols), &why);
		lib.is_loaded = r == 0;
	}
	pthread_mutex_unlock(&lib.lock);
	return r < 0 ? err_set(err, -ENOSYS, "libfabric is not installed: %s", err_text(&why)) : 0;
}

/* libfabric's errors are errno's, and some beyond them. */
static int errno_of(int r)
{
	r = r < 0 ? -r : r;
	return r == 0 ? -EIO : r < FI_ERRNO_OFFSET ? -r : -EIO;
}

static struct fi_info *hints_of(const char *provider)
{
	struct fi_info *h = lib.dupinfo(NULL);

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
		lib.freeinfo(h);
		return NULL;
	}
	return h;
}

static int info_of(const char *provider, const char *host, const char *port, uint64_t flags, struct fi_info **ret,
                   struct err *err)
{
	struct fi_info *hints = hints_of(provider);
	int r;

	if (!hints)
		return err_set(err, -ENOMEM, "out of memory");
	r = lib.getinfo(VERSION, host, port, flags | FI_NUMERICHOST, hints, ret);
	lib.freeinfo(hints);
	if (r)
		return err_set(err, r == -FI_ENODATA ? -ENOSYS : errno_of(r), "libfabric: provider %s%s%s: %s",
		               provider, host ? " for " : "", host ? host : "",
		               r == -FI_ENODATA ? "is not here, or has no connected endpoints with remote writes"
		                                : lib.strerror(-r));
	return 0;
}

int peer_fabric_check(const char *provider, struct err *err)
{
	struct fi_info *info;
	int r = load(err);

	if (r == 0)
		r = info_of(provider, NULL, NULL, 0, &info, err);
	if (r == 0)
		lib.freeinfo(info);
	return r;
}

/* ---- Domains ------------------------------------------------------------------------------------------------------
 */

struct domain { /* a network card, or what the provider has in its place */
	struct domain *next;
	struct fid_fabric *fabric; /* who calls is of the one that we listen on */
	bool is_listening;
	struct fid_domain *domain;
	char *fabric_name, *name;
	uint64_t mr_mode;
	size_t key_size; /* bytes */
};

struct peer_fabric {
	char provider[32];
	struct peer_fabric_events events;
	void *arg;
	struct domain *domains;
	struct fid_fabric *listens_on;
	struct fid_pep *pep;
	struct fi_info *pep_info; /* some providers go on looking into it */
	struct fid_eq *pep_events;
	int wake, pep_fd;
	LIST_HEAD(, peer_line) lines;
	size_t n_lines;
	struct pollfd *polled;
	size_t cap_polled;
};

/* What an operation carries along. */
struct op {
	struct fi_context2 libfabrics;
	enum { RECEIVES, SENDS, WRITES } what;
	unsigned i; /* of the message's place, or of the slot */
};

struct peer_line {
	LIST_ENTRY(peer_line) in_lines;
	struct peer_fabric *f;
	void *arg;
	struct domain *domain;
	struct fid_ep *ep;
	struct fid_cq *completions;
	struct fid_eq *events;
	int completions_fd, events_fd; /* theirs; poll says when to look */
	struct fid_mr *messages_mr, *slots_mr;
	uint8_t *memory; /* messages that come, that leave, slots */
	struct op receives[PEER_LINE_MESSAGES], sends[PEER_LINE_MESSAGES], writes[PEER_SLOTS];
	unsigned free_sends[PEER_LINE_MESSAGES], n_free_sends;
	bool is_up, is_down, is_closed;
	char from[80];
};

static void domain_free(struct domain *d)
{
	if (d->domain)
		(void)fi_close(&d->domain->fid);
	if (d->fabric && !d->is_listening)
		(void)fi_close(&d->fabric->fid);
	free(d->fabric_name);
	free(d->name);
	free(d);
}

/* The one that a connection by this info is of: opened once. */
static int domain_of(struct peer_fabric *f, struct fi_info *info, bool is_asker, struct domain **ret, struct err *err)
{
	struct domain *d;
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
		r = is_asker ? lib.fabric(info->fabric_attr, &d->fabric, NULL) : 0;
		if (r == 0)
			r = fi_domain(d->fabric, info, &d->domain, NULL);
		if (r) {
			domain_free(d);
			return err_set(err, errno_of(r), "libfabric: %s: %s", info->domain_attr->name,
			               lib.strerror(-r));
		}
		d->mr_mode = (uint64_t)info->domain_attr->mr_mode;
		d->key_size = info->domain_attr->mr_key_size < 8 ? info->domain_attr->mr_key_size : 8;
		d->next = f->domains;
		f->domains = d;
	}
	*ret = d;
	return 0;
}

/* ---- Lines --------------------------------------------------------------------------------------------------------
 */

static uint8_t *coming(struct peer_line *l, unsigned i)
{
	return l->memory + (size_t)i * PEER_MESSAGE_MAX;
}

static uint8_t *leaving(struct peer_line *l, unsigned i)
{
	return l->memory + MESSAGES_SIZE + (size_t)i * PEER_MESSAGE_MAX;
}

uint8_t *peer_line_slot(struct peer_line *l, unsigned slot)
{
	return l->memory + 2 * MESSAGES_SIZE + (size_t)slot * PEER_SLOT_SIZE;
}

const char *peer_line_from(const struct peer_line *l)
{
	return l->from;
}

static void *desc(struct fid_mr *mr)
{
	return mr ? fi_mr_desc(mr) : NULL;
}

static void line_free(struct peer_line *l)
{
	/* The endpoint first: with it whatever is under way ends, and nobody writes here any more. */
	if (l->ep)
		(void)fi_close(&l->ep->fid);
	if (l->messages_mr)
		(void)fi_close(&l->messages_mr->fid);
	if (l->slots_mr)
		(void)fi_close(&l->slots_mr->fid);
	if (l->completions)
		(void)fi_close(&l->completions->fid);
	if (l->events)
		(void)fi_close(&l->events->fid);
	if (l->memory)
		(void)munmap(l->memory, 2 * MESSAGES_SIZE + SLOTS_SIZE);
	free(l);
}

/* Keys that we choose must be new in the domain, and not be guessed. Only an asker's slots can be written to from afar.
 */
static int register_one(struct peer_line *l, void *memory, size_t size, uint64_t access, struct fid_mr **ret)
{
	uint64_t key = 0;
	int r = -FI_ENOKEY;

	for (unsigned i = 0; r == -FI_ENOKEY && i < 8; i++) {
		if (RAND_bytes((uint8_t *)&key, (int)l->domain->key_size) != 1)
			return -FI_EOTHER;
		r = fi_mr_reg(l->domain->domain, memory, size, access, 0, key, 0, ret, NULL);
	}
	return r;
}

static int register_memory(struct peer_line *l, bool is_asker)
{
	int r = 0;

	if (l->domain->mr_mode & FI_MR_LOCAL)
		r = register_one(l, l->memory, 2 * MESSAGES_SIZE, FI_SEND | FI_RECV, &l->messages_mr);
	return r ? r
	         : register_one(l, peer_line_slot(l, 0), SLOTS_SIZE, is_asker ? FI_REMOTE_WRITE : FI_WRITE,
	                        &l->slots_mr);
}

static int post_receive(struct peer_line *l, unsigned i)
{
	return (int)fi_recv(l->ep, coming(l, i), PEER_MESSAGE_MAX, desc(l->messages_mr), 0, &l->receives[i]);
}

static int open_queues(struct peer_line *l)
{
	struct fi_cq_attr completions = { .size = 4 * PEER_LINE_MESSAGES,
		                          .format = FI_CQ_FORMAT_MSG,
		                          .wait_obj = FI_WAIT_FD };
	struct fi_eq_attr events = { .wait_obj = FI_WAIT_FD };
	int r = fi_eq_open(l->domain->fabric, &events, &l->events, NULL);

	if (r == 0)
		r = fi_cq_open(l->domain->domain, &completions, &l->completions, NULL);
	if (r == 0)
		r = fi_control(&l->events->fid, FI_GETWAIT, &l->events_fd);
	if (r == 0)
		r = fi_control(&l->completions->fid, FI_GETWAIT, &l->completions_fd);
	if (r == 0)
		r = fi_ep_bind(l->ep, &l->events->fid, 0);
	if (r == 0)
		r = fi_ep_bind(l->ep, &l->completions->fid, FI_TRANSMIT | FI_RECV);
	return r;
}

static int line_new(struct peer_fabric *f, struct fi_info *info, bool is_asker, struct peer_line **ret, struct err *err)
{
	struct peer_line *l = calloc(1, sizeof(*l));
	int r = l ? domain_of(f, info, is_asker, &l->domain, err) : err_set(err, -ENOMEM, "out of memory");

	if (r < 0) {
		free(l);
		return r;
	}
	l->f = f;
	l->memory =
	        mmap(NULL, 2 * MESSAGES_SIZE + SLOTS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l->memory == MAP_FAILED) {
		l->memory = NULL;
		r = -FI_ENOMEM;
	}
	for (unsigned i = 0; i < PEER_LINE_MESSAGES; i++) {
		l->receives[i] = (struct op){ .what = RECEIVES, .i = i };
		l->sends[i] = (struct op){ .what = SENDS, .i = i };
		l->free_sends[l->n_free_sends++] = i;
	}
	for (unsigned i = 0; i < PEER_SLOTS; i++)
		l->writes[i] = (struct op){ .what = WRITES, .i = i };
	if (r == 0)
		r = fi_endpoint(l->domain->domain, info, &l->ep, l);
	if (r == 0)
		r = open_queues(l);
	if (r == 0)
		r = register_memory(l, is_asker);
	if (r == 0)
		r = fi_enable(l->ep);
	for (unsigned i = 0; r == 0 && i < PEER_LINE_MESSAGES; i++)
		r = post_receive(l, i);
	if (r) {
		line_free(l);
		return err_set(err, errno_of(r), "libfabric: a connection: %s", lib.strerror(-r));
	}
	LIST_INSERT_HEAD(&f->lines, l, in_lines);
	f->n_lines++;
	*ret = l;
	return 0;
}

/* "host:port" -> both, the brackets of IPv6 taken off. */
static int split(const char *where, char host[FLIP_PEER_NAME], const char **ret_port, struct err *err)
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

int peer_line_connect(struct peer_fabric *f, const char *to, void *line_arg, struct peer_line **ret_line,
                      struct err *err)
{
	struct fi_info *info = NULL;
	struct peer_line *l = NULL;
	char host[FLIP_PEER_NAME];
	const char *port;
	int r = split(to, host, &port, err);

	if (r == 0)
		r = info_of(f->provider, host, port, 0, &info, err);
	if (r == 0)
		r = line_new(f, info, true, &l, err);
	if (r == 0) {
		r = fi_connect(l->ep, info->dest_addr, NULL, 0);
		if (r) {
			peer_line_close(l);
			r = err_set(err, errno_of(r), "%s: %s", to, lib.strerror(-r));
		}
	}
	if (info)
		lib.freeinfo(info);
	if (r < 0)
		return r;
	l->arg = line_arg;
	(void)snprintf(l->from, sizeof(l->from), "%s", to);
	*ret_line = l;
	return 0;
}

/* Taken away by the next step, for it may be in the middle of telling. */
void peer_line_close(struct peer_line *l)
{
	l->is_closed = true;
}

void peer_line_offer(const struct peer_line *l, uint64_t *ret_key, uint64_t *ret_base)
{
	*ret_key = fi_mr_key(l->slots_mr);
	*ret_base = l->domain->mr_mode & FI_MR_VIRT_ADDR ? (uint64_t)(uintptr_t)peer_line_slot((struct peer_line *)l, 0)
	                                                 : 0;
}

int peer_line_send(struct peer_line *l, const void *data, size_t size)
{
	unsigned i;
	ssize_t r;

	if (size > PEER_MESSAGE_MAX)
		return -EMSGSIZE;
	if (l->is_down)
		return -ENOTCONN;
	if (!l->n_free_sends)
		return -EAGAIN;
	i = l->free_sends[l->n_free_sends - 1];
	memcpy(leaving(l, i), data, size);
	r = fi_send(l->ep, leaving(l, i), size, desc(l->messages_mr), 0, &l->sends[i]);
	if (r)
		return r == -FI_EAGAIN ? -EAGAIN : errno_of((int)r);
	l->n_free_sends--;
	return 0;
}

int peer_line_write(struct peer_line *l, unsigned slot, size_t size, uint64_t key, uint64_t to)
{
	void *local = l->domain->mr_mode & FI_MR_LOCAL ? fi_mr_desc(l->slots_mr) : NULL;
	ssize_t r;

	if (l->is_down)
		return -ENOTCONN;
	r = fi_write(l->ep, peer_line_slot(l, slot), size, local, 0, to, key, &l->writes[slot]);
	return r == 0 ? 0 : r == -FI_EAGAIN ? -EAGAIN : errno_of((int)r);
}

/* ---- What happens -------------------------------------------------------------------------------------------------
 */

static void down(struct peer_line *l, int r, const char *why)
{
	if (l->is_down || l->is_closed)
		return;
	l->is_down = true;
	l->f->events.on_down(l->arg, r, why);
}

static void take_completion(struct peer_line *l, const struct fi_cq_msg_entry *e)
{
	const struct op *op = e->op_context;

	switch (op->what) {
	case RECEIVES:
		l->f->events.on_message(l->arg, coming(l, op->i), e->len);
		if (!l->is_closed && !l->is_down && post_receive(l, op->i))
			down(l, -EIO, "no message can be received");
		break;
	case SENDS:
		l->free_sends[l->n_free_sends++] = op->i;
		l->f->events.on_left(l->arg, -1);
		break;
	case WRITES:
		l->f->events.on_left(l->arg, (int)op->i);
		break;
	}
}

static bool take_completions(struct peer_line *l)
{
	struct fi_cq_msg_entry entries[16];
	ssize_t n = fi_cq_read(l->completions, entries, 16);

	if (n == -FI_EAGAIN || n == 0)
		return false;
	if (n == -FI_EAVAIL) {
		struct fi_cq_err_entry e = { 0 };

		if (fi_cq_readerr(l->completions, &e, 0) < 0)
			return false;
		/* Receives that a connection takes along when it ends tell nothing new. */
		if (e.err != FI_ECANCELED)
			down(l, errno_of(e.err), lib.strerror(e.err));
		return true;
	}
	if (n < 0) {
		down(l, errno_of((int)n), lib.strerror((int)-n));
		return false;
	}
	for (ssize_t i = 0; i < n && !l->is_closed && !l->is_down; i++)
		take_completion(l, &entries[i]);
	return true;
}

static bool take_events(struct peer_line *l)
{
	uint8_t room[sizeof(struct fi_eq_cm_entry) + 256];
	uint32_t event = 0;
	ssize_t n = fi_eq_read(l->events, &event, room, sizeof(room), 0);

	if (n == -FI_EAVAIL) {
		struct fi_eq_err_entry e = { 0 };

		if (fi_eq_readerr(l->events, &e, 0) < 0)
			return false;
		down(l, errno_of(e.err), lib.strerror(e.err));
		return true;
	}
	if (n < 0)
		return false;
	if (event == FI_CONNECTED && !l->is_up) {
		l->is_up = true;
		l->f->events.on_up(l->arg);
	} else if (event == FI_SHUTDOWN) {
		/* What came before it is told first. */
		while (!l->is_closed && !l->is_down && take_completions(l))
			;
		down(l, -ECONNRESET, "the connection was ended");
	}
	return true;
}

static void take_caller(struct peer_fabric *f, struct fi_info *info)
{
	struct peer_line *l = NULL;
	struct err err = { 0 };
	void *arg;

	if (line_new(f, info, false, &l, &err) < 0) {
		base_log(BASE_LOG_WARN, "peers: %s", err_text(&err));
		(void)fi_reject(f->pep, info->handle, NULL, 0);
		return;
	}
	if (info->dest_addr)
		(void)getnameinfo(info->dest_addr, (socklen_t)info->dest_addrlen, l->from, sizeof(l->from), NULL, 0,
		                  NI_NUMERICHOST);
	arg = f->events.on_line(f->arg, l);
	if (!arg || fi_accept(l->ep, NULL, 0)) {
		if (!arg)
			(void)fi_reject(f->pep, info->handle, NULL, 0);
		l->arg = arg;
		if (arg)
			down(l, -EIO, "cannot be accepted");
		else
			peer_line_close(l);
		return;
	}
	l->arg = arg;
}

static bool take_callers(struct peer_fabric *f)
{
	union {
		struct fi_eq_cm_entry entry;
		uint8_t room[sizeof(struct fi_eq_cm_entry) + 256];
	} e;
	uint32_t event = 0;
	ssize_t n;

	if (!f->pep_events)
		return false;
	n = fi_eq_read(f->pep_events, &event, &e, sizeof(e), 0);
	if (n == -FI_EAVAIL) {
		struct fi_eq_err_entry error = { 0 };

		return fi_eq_readerr(f->pep_events, &error, 0) >= 0;
	}
	if (n < (ssize_t)sizeof(e.entry))
		return false;
	if (event == FI_CONNREQ) {
		take_caller(f, e.entry.info);
		lib.freeinfo(e.entry.info);
	}
	return true;
}

static void reap(struct peer_fabric *f)
{
	struct peer_line *l, *next;

	for (l = LIST_FIRST(&f->lines); l; l = next) {
		next = LIST_NEXT(l, in_lines);
		if (!l->is_closed)
			continue;
		LIST_REMOVE(l, in_lines);
		f->n_lines--;
		line_free(l);
	}
}

/* ---- Sleeping -----------------------------------------------------------------------------------------------------
 */

static bool add_polled(struct peer_fabric *f, size_t *n, struct fid_fabric *fabric, struct fid *fid, int fd)
{
	if (fi_trywait(fabric, &fid, 1) != 0)
		return false;
	f->polled[(*n)++] = (struct pollfd){ .fd = fd, .events = POLLIN };
	return true;
}

/* False: something is there already, so that nobody may sleep. */
static bool gather(struct peer_fabric *f, size_t *ret_n)
{
	size_t n = 0, cap = 2 + 2 * f->n_lines;
	struct peer_line *l;

	if (cap > f->cap_polled) {
		struct pollfd *p = reallocarray(f->polled, cap * 2, sizeof(*p));

		if (!p)
			return false;
		f->polled = p;
		f->cap_polled = cap * 2;
	}
	f->polled[n++] = (struct pollfd){ .fd = f->wake, .events = POLLIN };
	if (f->pep_events && !add_polled(f, &n, f->listens_on, &f->pep_events->fid, f->pep_fd))
		return false;
	LIST_FOREACH(l, &f->lines, in_lines)
	{
		/* One that has gone down says so for ever. */
		if (!l->is_down && (!add_polled(f, &n, l->domain->fabric, &l->events->fid, l->events_fd) ||
		                    !add_polled(f, &n, l->domain->fabric, &l->completions->fid, l->completions_fd)))
			return false;
	}
	*ret_n = n;
	return true;
}

void peer_fabric_step(struct peer_fabric *f, int timeout_ms)
{
	struct peer_line *l;
	bool any = false;
	uint64_t count;
	size_t n;

	reap(f);
	while (take_callers(f))
		any = true;
	LIST_FOREACH(l, &f->lines, in_lines)
	{
		while (!l->is_closed && !l->is_down && take_events(l))
			any = true;
		while (!l->is_closed && !l->is_down && take_completions(l))
			any = true;
	}
	reap(f);
	if (any || !gather(f, &n))
		return;
	if (poll(f->polled, n, timeout_ms) > 0 && (f->polled[0].revents & POLLIN))
		(void)!read(f->wake, &count, sizeof(count));
}

void peer_fabric_wake(struct peer_fabric *f)
{
	static const uint64_t one = 1;

	(void)!write(f->wake, &one, sizeof(one));
}

/* ---- Opening ------------------------------------------------------------------------------------------------------
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
	int r = split(where, host, &port, err);

	if (r < 0)
		return r;
	is_any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
	r = info_of(f->provider, is_any ? NULL : host, port, FI_SOURCE, &info, err);
	if (r == 0)
		r = set_source(info, host, port, err);
	if (r < 0) {
		if (info)
			lib.freeinfo(info);
		return r;
	}
	r = lib.fabric(info->fabric_attr, &f->listens_on, NULL);
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
	return r ? err_set(err, errno_of(r), "libfabric: %s: %s", where, lib.strerror(-r)) : 0;
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
	reap(f);
	if (f->pep)
		(void)fi_close(&f->pep->fid);
	if (f->pep_events)
		(void)fi_close(&f->pep_events->fid);
	while (f->domains) {
		struct domain *d = f->domains;

		f->domains = d->next;
		domain_free(d);
	}
	if (f->listens_on)
		(void)fi_close(&f->listens_on->fid);
	if (f->pep_info)
		lib.freeinfo(f->pep_info);
	if (f->wake >= 0)
		(void)close(f->wake);
	free(f->polled);
	free(f);
}
