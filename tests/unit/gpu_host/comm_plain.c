/* The launchers of kernels/gpu/comm.cu in plain loops; see launch_plain.c. One block, and one slot for each parity. */
#include "plain.h"

#include <errno.h>
#include <sched.h>

enum { HEAD_BYTES = 256 };

/* rt_host.c: NULL, or what a test has a rank do wherever it may be late. */
extern void (*gpu_rt_host_delay)(void);
/* This thread's launches are captured: no rank waits for another. */
extern _Thread_local bool gpu_rt_host_captures;

extern _Thread_local bool plain_launches_sum; /* this thread does, while it may be late */
_Thread_local bool plain_launches_sum;

static void plain_delay(void)
{
	plain_launches_sum = true;
	if (gpu_rt_host_delay)
		gpu_rt_host_delay();
	plain_launches_sum = false;
}

/* What a space begins with. */
struct head {
	uint32_t flags[KN_MAX_RANKS];
	uint32_t epoch;
};

size_t gk_comm_bytes(size_t slot_bytes)
{
	return HEAD_BYTES + 2 * slot_bytes;
}

uint32_t gk_comm_launches(size_t slot_bytes, uint32_t elem, uint32_t rows, uint32_t width)
{
	size_t most = slot_bytes / ((size_t)width * (elem == GK_F32 ? 4 : 2));

	return most ? (uint32_t)((rows + most - 1) / most) : 0;
}

size_t gk_comm_head_bytes(void)
{
	return sizeof(struct head);
}

void gk_comm_look(const char *head, uint32_t n_ranks, struct gk_comm_seen *ret)
{
	const struct head *h = (const struct head *)head;

	ret->ended = __atomic_load_n(&h->epoch, __ATOMIC_RELAXED);
	for (uint32_t r = 0; r < n_ranks; r++)
		ret->heard[r] = __atomic_load_n(&h->flags[r], __ATOMIC_RELAXED);
}

static size_t elem_bytes(const struct gk_view *v)
{
	return v->elem == GK_F32 ? 4 : 2;
}

static char *at(const struct gk_view *v, size_t row, size_t col)
{
	return (char *)v->p + (row * v->ld + col) * elem_bytes(v);
}

/* Slot of a rank in this epoch. */
static char *slot(const struct gk_comm *c, uint32_t rank, uint32_t epoch)
{
	return c->spaces[rank] + HEAD_BYTES + (epoch & 1) * c->slot_bytes;
}

/* false: the group is broken. */
static bool meet(const struct gk_comm *c, uint32_t epoch)
{
	for (uint32_t i = 0; i < c->n_ranks; i++)
		__atomic_store_n(&((struct head *)c->spaces[i])->flags[c->rank], epoch, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < c->n_ranks; i++) {
		const uint32_t *flag = &((struct head *)c->spaces[c->rank])->flags[i];

		while ((int32_t)(__atomic_load_n(flag, __ATOMIC_ACQUIRE) - epoch) < 0) {
			if (__atomic_load_n(c->broken, __ATOMIC_ACQUIRE))
				return false;
			(void)sched_yield();
		}
	}
	return true;
}

/* Rows [row0, row0 + n) of `width` columns from `first` on, to the slot. */
static uint32_t begin(const struct gk_comm *c, const struct gk_view *x, size_t row0, size_t n, size_t first,
                      size_t width, size_t line)
{
	struct head *own = (struct head *)c->spaces[c->rank];
	uint32_t epoch = own->epoch + 1;

	plain_delay();

	for (size_t i = 0; i < n; i++)
		memcpy(slot(c, c->rank, epoch) + i * line, at(x, row0 + i, first), width * elem_bytes(x));
	return epoch;
}

/* Counts the call. */
static void leave(const struct gk_comm *c, uint32_t epoch)
{
	__atomic_store_n(&((struct head *)c->spaces[c->rank])->epoch, epoch, __ATOMIC_RELAXED);
}

/* Of the rows that there are: from row0 on, at most `most`. */
static size_t rows_from(struct gk_rows rows, size_t row0, size_t most)
{
	size_t n = plain_rows(rows);

	return row0 >= n ? 0 : n - row0 < most ? n - row0 : most;
}

int gk_all_reduce(const struct gk_ctx *ctx, const struct gk_comm *c, struct gk_view x, struct gk_rows rows,
                  uint32_t dim)
{
	size_t line = dim * elem_bytes(&x), most = c->slot_bytes / line;

	(void)ctx;
	plain_n_launched++;
	if (gpu_rt_host_captures)
		return 0;
	if (most == 0)
		return -EINVAL;
	for (size_t row0 = 0; row0 < rows.bound; row0 += most) {
		size_t n = rows_from(rows, row0, most);
		uint32_t epoch = begin(c, &x, row0, n, 0, dim, line);

		if (!meet(c, epoch))
			return 0;
		for (size_t i = 0; i < n * dim; i++) {
			float sum = 0;

			for (uint32_t r = 0; r < c->n_ranks; r++) {
				const struct gk_view theirs = { slot(c, r, epoch), x.elem, dim };

				sum += plain_get(&theirs, 0, i);
			}
			plain_put(&x, row0 + i / dim, i % dim, sum);
		}
		leave(c, epoch);
	}
	return 0;
}

static uint32_t columns(uint32_t rank, uint32_t width, uint32_t total)
{
	uint32_t first = rank * width;

	return first >= total ? 0 : total - first < width ? total - first : width;
}

int gk_all_gather(const struct gk_ctx *ctx, const struct gk_comm *c, struct gk_view x, struct gk_rows rows,
                  uint32_t width, uint32_t total)
{
	size_t line = width * elem_bytes(&x), most = c->slot_bytes / line;

	(void)ctx;
	plain_n_launched++;
	if (gpu_rt_host_captures)
		return 0;
	if (most == 0)
		return -EINVAL;
	for (size_t row0 = 0; row0 < rows.bound; row0 += most) {
		size_t n = rows_from(rows, row0, most);
		uint32_t epoch = begin(c, &x, row0, n, (size_t)c->rank * width, columns(c->rank, width, total), line);

		if (!meet(c, epoch))
			return 0;
		for (uint32_t r = 0; r < c->n_ranks; r++) {
			for (size_t i = 0; i < n && r != c->rank; i++)
				memcpy(at(&x, row0 + i, (size_t)r * width), slot(c, r, epoch) + i * line,
				       columns(r, width, total) * elem_bytes(&x));
		}
		leave(c, epoch);
	}
	return 0;
}

int gk_clear(const struct gk_ctx *ctx, struct gk_view x, struct gk_rows rows, uint32_t dim)
{
	(void)ctx;
	plain_n_launched++;
	for (size_t i = 0; i < plain_rows(rows); i++)
		memset(at(&x, i, 0), 0, dim * elem_bytes(&x));
	return 0;
}
