/* One line (fabric_line.h). It has an endpoint, a queue of completions and one of events of its own, and one block of
 * memory:
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
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <rdma/fi_cm.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "peer/fabric_internal.h"

enum { MESSAGES_SIZE = PEER_LINE_MESSAGES * PEER_MESSAGE_MAX, SLOTS_SIZE = PEER_SLOTS * PEER_SLOT_SIZE };

uint8_t *peer_line_coming(struct peer_line *l, unsigned i)
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

void peer_line_free(struct peer_line *l)
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

int peer_line_receive(struct peer_line *l, unsigned i)
{
	return (int)fi_recv(l->ep, peer_line_coming(l, i), PEER_MESSAGE_MAX, desc(l->messages_mr), 0, &l->receives[i]);
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

int peer_line_new(struct peer_fabric *f, struct fi_info *info, bool is_asker, struct peer_line **ret, struct err *err)
{
	struct peer_line *l = calloc(1, sizeof(*l));
	int r = l ? peer_domain_of(f, info, is_asker, &l->domain, err) : err_set(err, -ENOMEM, "out of memory");

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
		l->receives[i] = (struct peer_op){ .what = PEER_OP_RECEIVE, .i = i };
		l->sends[i] = (struct peer_op){ .what = PEER_OP_SEND, .i = i };
		l->free_sends[l->n_free_sends++] = i;
	}
	for (unsigned i = 0; i < PEER_SLOTS; i++)
		l->writes[i] = (struct peer_op){ .what = PEER_OP_WRITE, .i = i };
	if (r == 0)
		r = fi_endpoint(l->domain->domain, info, &l->ep, l);
	if (r == 0)
		r = open_queues(l);
	if (r == 0)
		r = register_memory(l, is_asker);
	if (r == 0)
		r = fi_enable(l->ep);
	for (unsigned i = 0; r == 0 && i < PEER_LINE_MESSAGES; i++)
		r = peer_line_receive(l, i);
	if (r) {
		peer_line_free(l);
		return err_set(err, peer_fabric_errno(r), "libfabric: a connection: %s", peer_libfabric.strerror(-r));
	}
	LIST_INSERT_HEAD(&f->lines, l, in_lines);
	f->n_lines++;
	*ret = l;
	return 0;
}

int peer_line_connect(struct peer_fabric *f, const char *to, void *line_arg, struct peer_line **ret_line,
                      struct err *err)
{
	struct fi_info *info = NULL;
	struct peer_line *l = NULL;
	char host[FLIP_PEER_NAME];
	const char *port;
	int r = peer_fabric_split(to, host, &port, err);

	if (r == 0)
		r = peer_fabric_info(f->provider, host, port, 0, &info, err);
	if (r == 0)
		r = peer_line_new(f, info, true, &l, err);
	if (r == 0) {
		r = fi_connect(l->ep, info->dest_addr, NULL, 0);
		if (r) {
			peer_line_close(l);
			r = err_set(err, peer_fabric_errno(r), "%s: %s", to, peer_libfabric.strerror(-r));
		}
	}
	if (info)
		peer_libfabric.freeinfo(info);
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
		return r == -FI_EAGAIN ? -EAGAIN : peer_fabric_errno((int)r);
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
	return r == 0 ? 0 : r == -FI_EAGAIN ? -EAGAIN : peer_fabric_errno((int)r);
}
