/* What happens on a fabric's lines (fabric_line.h), told one after the other by the thread that calls
 * peer_fabric_step(): who connects, what has come and left, who has gone. When nothing has happened it sleeps on the
 * descriptors of all queues, which libfabric has to agree to (fi_trywait()). */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include <rdma/fi_cm.h>
#include <rdma/fi_errno.h>

#include "base/log.h"
#include "peer/fabric_internal.h"

/* ---- What happens ---- */

static void down(struct peer_line *l, int r, const char *why)
{
	if (l->is_down || l->is_closed)
		return;
	l->is_down = true;
	l->f->events.on_down(l->arg, r, why);
}

static void take_completion(struct peer_line *l, const struct fi_cq_msg_entry *e)
{
	const struct peer_op *op = e->op_context;

	switch (op->what) {
	case PEER_OP_RECEIVE:
		l->f->events.on_message(l->arg, peer_line_coming(l, op->i), e->len);
		if (!l->is_closed && !l->is_down && peer_line_receive(l, op->i))
			down(l, -EIO, "no message can be received");
		break;
	case PEER_OP_SEND:
		l->free_sends[l->n_free_sends++] = op->i;
		l->f->events.on_left(l->arg, -1);
		break;
	case PEER_OP_WRITE:
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
			down(l, peer_fabric_errno(e.err), peer_libfabric.strerror(e.err));
		return true;
	}
	if (n < 0) {
		down(l, peer_fabric_errno((int)n), peer_libfabric.strerror((int)-n));
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
		down(l, peer_fabric_errno(e.err), peer_libfabric.strerror(e.err));
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

	if (peer_line_new(f, info, false, &l, &err) < 0) {
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
		peer_libfabric.freeinfo(e.entry.info);
	}
	return true;
}

void peer_fabric_reap(struct peer_fabric *f)
{
	struct peer_line *l, *next;

	for (l = LIST_FIRST(&f->lines); l; l = next) {
		next = LIST_NEXT(l, in_lines);
		if (!l->is_closed)
			continue;
		LIST_REMOVE(l, in_lines);
		f->n_lines--;
		peer_line_free(l);
	}
}

/* ---- Sleeping ---- */

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

	peer_fabric_reap(f);
	while (take_callers(f))
		any = true;
	LIST_FOREACH(l, &f->lines, in_lines)
	{
		while (!l->is_closed && !l->is_down && take_events(l))
			any = true;
		while (!l->is_closed && !l->is_down && take_completions(l))
			any = true;
	}
	peer_fabric_reap(f);
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
