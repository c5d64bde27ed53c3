/* Copies of K and V beside the steps: a stream each way, so that both directions of the link are in use (and one for
 * what comes from another device), and an event behind each copy. A page of a model is a piece per layer at equal
 * distances in the pool: such runs are one copy of rows each, which the device's copy engines make without a kernel and
 * the host begins by one call.
 *
 * Nothing waits for the steps that are under way: what goes out of the device is complete, and what comes in goes into
 * pages that nobody has. Whoever gives a page to others before it is out asks for a fence before they write there, or
 * has what comes into it follow. */
#include <errno.h>

#include "gpu/backend.h"

static int open_copies(struct gpu_backend *be)
{
	struct gpu_copies *c = &be->copies;
	int r = 0;

	if (c->is_open)
		return 0;
	for (int w = 0; w < N_WAYS && r == 0; w++) {
		if (!c->ways[w].stream)
			r = gpu_rt_stream_new(&be->rt, &c->ways[w].stream);
	}
	c->is_open = r == 0;
	return r;
}

void gpu_copies_close(struct gpu_backend *be)
{
	struct gpu_copies *c = &be->copies;

	for (int w = 0; w < N_WAYS; w++) {
		struct gpu_copy_way *way = &c->ways[w];

		while (way->n_done < way->n_begun)
			(void)gpu_rt_event_wait(&be->rt, way->events[way->n_done++ % MAX_COPIES]);
		for (int i = 0; i < MAX_COPIES; i++)
			gpu_rt_event_free(&be->rt, way->events[i]);
		gpu_rt_stream_free(&be->rt, way->stream);
	}
	*c = (struct gpu_copies){ 0 };
}

/* ---- Tickets: from 1 on, the way in the lowest bits ---- */

static uint64_t ticket_of(uint64_t n, enum kn_way way)
{
	return (n + 1) << 2 | (uint64_t)way;
}

static struct gpu_copy_way *way_of(struct gpu_backend *be, uint64_t ticket)
{
	return &be->copies.ways[ticket & 3];
}

static uint64_t number_of(uint64_t ticket)
{
	return (ticket >> 2) - 1;
}

/* Counts what has ended; those of a way end in their order. */
static void collect(struct gpu_backend *be, struct gpu_copy_way *way)
{
	while (way->n_done < way->n_begun && !way->error) {
		int r = gpu_rt_event_done(&be->rt, way->events[way->n_done % MAX_COPIES]);

		if (r < 0)
			way->error = r;
		if (r <= 0)
			return;
		way->n_done++;
	}
}

/* ---- The operations ---- */

static void *host_alloc(struct kn_backend *base, size_t bytes)
{
	return gpu_rt_host_alloc(&gpu_of(base)->rt, bytes);
}

static void host_free(struct kn_backend *base, void *p)
{
	gpu_rt_host_free(&gpu_of(base)->rt, p);
}

/* Pieces from the first one on that are rows: of one size, at equal distances on either side. */
static size_t run_of(const struct kn_piece *p, size_t n, size_t *ret_device_step, size_t *ret_host_step)
{
	size_t run = 1;

	*ret_device_step = *ret_host_step = p->bytes;
	if (n < 2 || p[1].bytes != p->bytes || (char *)p[1].device < (char *)p->device + p->bytes ||
	    (char *)p[1].host < (char *)p->host + p->bytes)
		return 1;
	*ret_device_step = (size_t)((char *)p[1].device - (char *)p->device);
	*ret_host_step = (size_t)((char *)p[1].host - (char *)p->host);
	while (run < n && p[run].bytes == p->bytes &&
	       (char *)p[run].device == (char *)p->device + run * *ret_device_step &&
	       (char *)p[run].host == (char *)p->host + run * *ret_host_step)
		run++;
	return run;
}

/* K and V are in allocations that no program keeps as anything but what they are. */
static int check(const struct gpu_backend *be, const struct kn_piece *pieces, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t a = gpu_heap_find(&be->heap, pieces[i].device);
		const struct gpu_alloc *alloc = a == UINT32_MAX ? NULL : &be->heap.allocs[a];

		if (!alloc || pieces[i].bytes > alloc->bytes ||
		    (size_t)((char *)pieces[i].device - alloc->base) > alloc->bytes - pieces[i].bytes)
			return -EFAULT;
		if (alloc->is_bf16 || alloc->home_ld)
			return -ENOTSUP;
	}
	return 0;
}

static int put(struct gpu_backend *be, enum kn_way to, const struct kn_piece *pieces, size_t n)
{
	void *stream = be->copies.ways[to].stream;
	int r = 0;

	for (size_t i = 0, run; i < n && r == 0; i += run) {
		const struct kn_piece *p = &pieces[i];
		size_t device_step, host_step;

		run = run_of(p, n - i, &device_step, &host_step);
		if (to == KN_FROM_PEER)
			r = gpu_rt_copy_peer(&be->rt, stream, be->copies.peer, p->device, device_step, p->host,
			                     host_step, p->bytes, run);
		else if (to == KN_TO_HOST)
			r = gpu_rt_copy_rows(&be->rt, stream, true, p->host, host_step, p->device, device_step,
			                     p->bytes, run);
		else
			r = gpu_rt_copy_rows(&be->rt, stream, false, p->device, device_step, p->host, host_step,
			                     p->bytes, run);
	}
	return r;
}

static int copy_begin(struct kn_backend *base, enum kn_way to, const struct kn_piece *pieces, size_t n,
                      uint64_t *ret_ticket)
{
	struct gpu_backend *be = gpu_of(base);
	struct gpu_copy_way *way = &be->copies.ways[to];
	void **event = &way->events[way->n_begun % MAX_COPIES];
	int r = open_copies(be);

	if (r == 0)
		r = way->error < 0 ? way->error : check(be, pieces, n);
	if (r < 0)
		return r;
	collect(be, way);
	if (way->n_begun - way->n_done == MAX_COPIES)
		return -EBUSY;
	if (!*event)
		r = gpu_rt_event_new(&be->rt, event);
	if (r < 0)
		return r;
	r = put(be, to, pieces, n);
	if (gpu_rt_event_record_on(&be->rt, way->stream, *event) < 0)
		way->error = -EIO; /* nobody would know when what was begun has ended */
	if (r < 0 && !way->error) {
		/* A part may be on its way: the caller takes the memory back as soon as this returns. */
		(void)gpu_rt_event_wait(&be->rt, *event);
		return r;
	}
	if (way->error)
		return way->error;
	*ret_ticket = ticket_of(way->n_begun++, to);
	return 0;
}

static int copy_poll(struct kn_backend *base, uint64_t ticket)
{
	struct gpu_backend *be = gpu_of(base);
	struct gpu_copy_way *way = way_of(be, ticket);

	collect(be, way);
	if (number_of(ticket) < way->n_done)
		return 1;
	return way->error;
}

static int copy_wait(struct kn_backend *base, uint64_t ticket)
{
	struct gpu_backend *be = gpu_of(base);
	struct gpu_copy_way *way = way_of(be, ticket);
	uint64_t n = number_of(ticket);

	if (n < way->n_done)
		return 0;
	if (!way->error)
		way->error = gpu_rt_event_wait(&be->rt, way->events[n % MAX_COPIES]);
	if (!way->error)
		way->n_done = n + 1;
	return way->error;
}

/* What is put on `stream` from now on waits for a copy. */
static int put_behind(struct gpu_backend *be, void *stream, uint64_t ticket)
{
	struct gpu_copy_way *way = way_of(be, ticket);
	uint64_t n = number_of(ticket);

	if (n < way->n_done || way->error)
		return way->error;
	return gpu_rt_stream_wait(&be->rt, stream, way->events[n % MAX_COPIES]);
}

static int copy_fence(struct kn_backend *base, uint64_t ticket)
{
	struct gpu_backend *be = gpu_of(base);

	gpu_flush(be); /* what was asked for before does not wait */
	return put_behind(be, NULL, ticket);
}

static int copy_follow(struct kn_backend *base, uint64_t ticket)
{
	struct gpu_backend *be = gpu_of(base);
	int r = open_copies(be);

	return r < 0 ? r : put_behind(be, be->copies.ways[KN_TO_DEVICE].stream, ticket);
}

/* What comes from devices that do not reach each other goes by way of host memory, which the runtime sees to. */
static int copy_from(struct kn_backend *base, struct kn_backend *other)
{
	struct gpu_backend *be = gpu_of(base);

	be->copies.peer = gpu_of(other)->rt.device;
	return gpu_rt_reach(&be->rt, be->copies.peer) == 0;
}

void gpu_copies_ops(struct kn_ops *ops)
{
	ops->host_alloc = host_alloc;
	ops->host_free = host_free;
	ops->copy_begin = copy_begin;
	ops->copy_poll = copy_poll;
	ops->copy_wait = copy_wait;
	ops->copy_fence = copy_fence;
	ops->copy_follow = copy_follow;
	ops->copy_from = copy_from;
}
