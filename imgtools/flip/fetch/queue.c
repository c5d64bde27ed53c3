/* Ranges that wait. Each blob has them twice: by priority in the order in which they came (a prefetch list is in the
 * order of need, so that is the order to fetch in), and by offset, so that the neighbours of the one whose turn it is
 * travel along. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fetch_internal.h"

static uint64_t range_end(const struct fetch_range *r)
{
	return r->offset + r->size;
}

static int compare_offsets(const void *a, const void *b)
{
	const struct fetch_range *x = *(struct fetch_range *const *)a, *y = *(struct fetch_range *const *)b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The first place whose range does not lie before r. */
static size_t find_place(const struct flip_blob *b, const struct fetch_range *r)
{
	size_t low = 0, high = b->n_sorted;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (compare_offsets(&b->sorted[mid], &r) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int reserve(struct flip_blob *b, size_t n)
{
	size_t size = b->sorted_size ? b->sorted_size : 16;
	struct fetch_range **p;

	if (b->n_sorted + n <= b->sorted_size)
		return 0;
	while (size < b->n_sorted + n)
		size *= 2;
	p = realloc(b->sorted, size * sizeof(struct fetch_range *));
	if (!p)
		return -ENOMEM;
	b->sorted = p;
	b->sorted_size = size;
	return 0;
}

/* A few are put in their places; many are sorted with all. */
static void insert_sorted(struct flip_blob *b, struct fetch_batch *batch)
{
	size_t old = b->n_sorted;

	if (batch->n <= 16) {
		for (size_t i = 0; i < batch->n; i++) {
			size_t at = find_place(b, &batch->ranges[i]);

			memmove(&b->sorted[at + 1], &b->sorted[at], (b->n_sorted - at) * sizeof(*b->sorted));
			b->sorted[at] = &batch->ranges[i];
			b->n_sorted++;
		}
		return;
	}
	for (size_t i = 0; i < batch->n; i++)
		b->sorted[b->n_sorted++] = &batch->ranges[i];
	qsort(b->sorted + old, batch->n, sizeof(*b->sorted), compare_offsets);
	if (old && compare_offsets(&b->sorted[old - 1], &b->sorted[old]) > 0)
		qsort(b->sorted, b->n_sorted, sizeof(*b->sorted), compare_offsets);
}

int flip_queue_add(struct flip_fetch *f, struct fetch_batch *batch)
{
	struct flip_blob *b = batch->blob;
	struct fetch_batch **chain = &f->numbers[batch->number & (FETCH_N_NUMBERS - 1)];

	if (reserve(b, batch->n) < 0)
		return -ENOMEM;
	batch->next_of_number = *chain;
	*chain = batch;
	for (size_t i = 0; i < batch->n; i++) {
		struct fetch_range *r = &batch->ranges[i];

		r->seq = ++f->last_seq;
		TAILQ_INSERT_TAIL(&b->fifo[r->priority], r, in_fifo);
		b->waiting_bytes += r->size;
		f->counts.n_queued[r->priority]++;
	}
	insert_sorted(b, batch);
	if (!b->is_queued)
		TAILQ_INSERT_TAIL(&f->queued, b, in_queued);
	b->is_queued = true;
	return 0;
}

static void leave_fifo(struct flip_fetch *f, struct fetch_range *r)
{
	struct flip_blob *b = r->batch->blob;

	TAILQ_REMOVE(&b->fifo[r->priority], r, in_fifo);
	b->waiting_bytes -= r->size;
	f->counts.n_queued[r->priority]--;
}

static void cut_sorted(struct flip_fetch *f, struct flip_blob *b, size_t at, size_t n)
{
	b->n_sorted -= n;
	memmove(&b->sorted[at], &b->sorted[at + n], (b->n_sorted - at) * sizeof(*b->sorted));
	if (!b->n_sorted && b->is_queued) {
		TAILQ_REMOVE(&f->queued, b, in_queued);
		b->is_queued = false;
	}
}

void flip_queue_remove(struct flip_fetch *f, struct fetch_range *r)
{
	leave_fifo(f, r);
	cut_sorted(f, r->batch->blob, find_place(r->batch->blob, r), 1);
}

void flip_queue_raise(struct flip_fetch *f, struct fetch_range *r, enum flip_priority priority)
{
	struct flip_blob *b = r->batch->blob;

	if (r->priority <= priority)
		return;
	TAILQ_REMOVE(&b->fifo[r->priority], r, in_fifo);
	f->counts.n_queued[r->priority]--;
	r->priority = (uint8_t)priority;
	TAILQ_INSERT_TAIL(&b->fifo[priority], r, in_fifo);
	f->counts.n_queued[priority]++;
}

/* ---- What travels together ---- */

struct span {
	size_t first, last; /* in sorted */
	uint64_t start, end;
};

/* Those behind. What is less urgent comes along only where it touches: nobody waits for it, so no gap is paid for it.
 */
static void grow_behind(const struct flip_blob *b, const struct fetch_range *seed, uint64_t gap, uint64_t max,
                        struct span *s)
{
	uint64_t passed_end = s->end; /* of those that were passed over, which lie between */

	for (size_t i = s->last + 1; i < b->n_sorted && b->sorted[i]->offset <= s->end + gap; i++) {
		const struct fetch_range *r = b->sorted[i];

		passed_end = passed_end > range_end(r) ? passed_end : range_end(r);
		if (passed_end - s->start > max && passed_end > s->end)
			break;
		if (r->priority > seed->priority && r->offset > s->end)
			continue;
		s->last = i;
		s->end = passed_end;
	}
}

/* Those in front, of the same urgency: they were to come anyway. Bytes in front would delay a foreground range. */
static void grow_in_front(const struct flip_blob *b, const struct fetch_range *seed, uint64_t gap, uint64_t max,
                          struct span *s)
{
	while (s->first > 0) {
		const struct fetch_range *r = b->sorted[s->first - 1];
		uint64_t end = range_end(r) > s->end ? range_end(r) : s->end;

		if (r->priority > seed->priority || range_end(r) + gap < s->start || end - r->offset > max)
			return;
		s->first--;
		s->start = r->offset;
		s->end = end;
	}
}

static int compare_ends(const void *a, const void *b)
{
	uint64_t x = range_end(*(struct fetch_range *const *)a), y = range_end(*(struct fetch_range *const *)b);

	return x < y ? -1 : x > y;
}

/* Bytes of a span that lie in none of its ranges, which are in order. */
static uint64_t count_gaps(struct fetch_range *const *ranges, size_t n)
{
	uint64_t end = ranges[0]->offset, gaps = 0;

	for (size_t i = 0; i < n; i++) {
		gaps += ranges[i]->offset > end ? ranges[i]->offset - end : 0;
		end = range_end(ranges[i]) > end ? range_end(ranges[i]) : end;
	}
	return gaps;
}

size_t flip_queue_take(struct flip_fetch *f, struct fetch_range *seed, uint64_t gap, uint64_t max,
                       struct fetch_span *ret_span)
{
	struct flip_blob *b = seed->batch->blob;
	size_t at = find_place(b, seed), n;
	struct span s = { .first = at, .last = at, .start = seed->offset, .end = range_end(seed) };
	struct fetch_range **ranges;

	grow_behind(b, seed, gap, max, &s);
	if (seed->priority != FLIP_FOREGROUND)
		grow_in_front(b, seed, gap, max, &s);
	n = s.last - s.first + 1;
	ranges = malloc(n * sizeof(struct fetch_range *));
	if (!ranges)
		return 0;
	memcpy(ranges, &b->sorted[s.first], n * sizeof(*ranges));
	for (size_t i = 0; i < n; i++)
		leave_fifo(f, ranges[i]);
	cut_sorted(f, b, s.first, n);
	*ret_span = (struct fetch_span){
		.ranges = ranges, .n = n, .start = s.start, .end = s.end, .gaps = count_gaps(ranges, n)
	};
	qsort(ranges, n, sizeof(*ranges), compare_ends);
	return n;
}

/* ---- Batches ---- */

struct fetch_batch *flip_batch_find(struct flip_fetch *f, int64_t number)
{
	struct fetch_batch *batch = f->numbers[number & (FETCH_N_NUMBERS - 1)];

	while (batch && batch->number != number)
		batch = batch->next_of_number;
	return batch;
}

static void batch_end(struct flip_fetch *f, struct fetch_batch *batch)
{
	struct fetch_batch **p = &f->numbers[batch->number & (FETCH_N_NUMBERS - 1)];

	while (*p && *p != batch)
		p = &(*p)->next_of_number;
	if (*p)
		*p = batch->next_of_number;
	(void)pthread_mutex_lock(&f->lock);
	f->n_ranges -= batch->n;
	(void)pthread_mutex_unlock(&f->lock);
	flip_blob_unref(batch->blob);
	free(batch);
}

void flip_range_end(struct flip_fetch *f, struct fetch_range *r, int res, const void *data, const struct err *err)
{
	struct fetch_batch *batch = r->batch;

	r->is_done = true;
	r->job = NULL;
	if (res == 0)
		f->counts.n_ranges++;
	batch->done(batch->arg, (size_t)(r - batch->ranges), res, res == 0 ? data : NULL, res == 0 ? r->size : 0,
	            res == 0 ? NULL : err);
	if (--batch->n_left == 0)
		batch_end(f, batch);
}
