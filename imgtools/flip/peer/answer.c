/* One answer of ours: a queue of pieces that the provider fills, from whatever thread, and the server's thread empties,
 * at the pace that limits allow. Pieces that lie in the store are read when their turn comes, few at a time for the
 * whole server (disk_queue), and compressed when the asker can undo it and the link is slower than zstd. While nothing
 * is ready a frame says every half second that somebody is still here, so that the asker can tell a slow origin from a
 * dead peer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "peer_internal.h"

enum { WAITING_MS = 500, ZSTD_LEVEL = 1, MIN_PACKED = 512 };
#define SLOW_LINK (UINT64_C(600) << 20) /* bytes a second: beyond it the processor is the narrower way */

struct item {
	STAILQ_ENTRY(item) in_queue;
	struct peer_frame frame;
	struct kept_piece *piece; /* PACKED: a reference */
	int fd;                   /* PLAIN */
	uint64_t at;
	size_t size;
	void (*release)(void *arg);
	void *arg;
};

struct flip_peer_answer {
	_Atomic unsigned n_refs; /* the server's, the provider's during serve(), each promise's */
	struct flip_peers *p;
	char digest[72], asker[FLIP_PEER_NAME];
	uint32_t member; /* the asker among members, or PEER_NOBODY */
	enum flip_priority priority;
	bool may_compress;
	uint64_t *groups; /* that it was asked for, for the holders' list */
	size_t n_groups;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	STAILQ_HEAD(, item) queue; /* protected by lock, as all up to has_gone */
	unsigned n_promised;
	bool is_served, has_gone, has_missing;
	/* The server's thread's: */
	uint8_t *out; /* of the frame at hand: its head, and its bytes unless they are piece's */
	size_t n_out, at_out, cap_out;
	struct kept_piece *piece;
	size_t at_piece;
	bool has_ended;
	int64_t given_us; /* the last piece, or the beginning */
};

static void item_free(struct item *i)
{
	kept_piece_unref(i->piece);
	if (i->release)
		i->release(i->arg);
	free(i);
}

struct flip_peer_answer *peer_answer_new(struct flip_peers *p, const struct flip_peer_ask *ask, const char *asker,
                                         uint32_t member, bool zstd)
{
	struct flip_peer_answer *a = calloc(1, sizeof(*a));

	if (!a || !(a->groups = calloc(ask->n_ranges, sizeof(*a->groups)))) {
		free(a);
		return NULL;
	}
	atomic_init(&a->n_refs, 2);
	a->p = p;
	a->member = member;
	a->priority = ask->priority;
	a->may_compress = zstd && (!p->o.link || p->o.link < SLOW_LINK);
	a->given_us = peer_now_us();
	(void)snprintf(a->digest, sizeof(a->digest), "%s", ask->digest);
	(void)snprintf(a->asker, sizeof(a->asker), "%s", asker);
	for (size_t i = 0; i < ask->n_ranges; i++) {
		uint64_t g = peer_group_hash(ask->digest, ask->ranges[i].offset);

		if (!a->n_groups || a->groups[a->n_groups - 1] != g)
			a->groups[a->n_groups++] = g;
	}
	STAILQ_INIT(&a->queue);
	(void)pthread_mutex_init(&a->lock, NULL);
	(void)pthread_cond_init(&a->changed, NULL);
	return a;
}

static void answer_unref(struct flip_peer_answer *a)
{
	if (atomic_fetch_sub(&a->n_refs, 1) > 1)
		return;
	while (!STAILQ_EMPTY(&a->queue)) {
		struct item *i = STAILQ_FIRST(&a->queue);

		STAILQ_REMOVE_HEAD(&a->queue, in_queue);
		item_free(i);
	}
	kept_piece_unref(a->piece);
	(void)pthread_mutex_destroy(&a->lock);
	(void)pthread_cond_destroy(&a->changed);
	free(a->groups);
	free(a->out);
	free(a);
}

/* ---- The provider's side ---------------------------------------------------------------------------------------- */

int flip_peer_promise(struct flip_peer_answer *a, unsigned n)
{
	int r = 0;

	pthread_mutex_lock(&a->lock);
	if (a->has_gone) {
		r = -ECANCELED;
	} else {
		a->n_promised += n;
		atomic_fetch_add(&a->n_refs, n);
	}
	pthread_mutex_unlock(&a->lock);
	return r;
}

void flip_peer_settle(struct flip_peer_answer *a)
{
	pthread_mutex_lock(&a->lock);
	a->n_promised--;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	answer_unref(a);
}

void peer_answer_served(struct flip_peer_answer *a)
{
	pthread_mutex_lock(&a->lock);
	a->is_served = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	answer_unref(a);
}

static void add(struct flip_peer_answer *a, const struct item *what)
{
	struct item *i = malloc(sizeof(*i));

	if (!i) { /* the end will say that it did not come */
		kept_piece_unref(what->piece);
		if (what->release)
			what->release(what->arg);
		return;
	}
	*i = *what;
	pthread_mutex_lock(&a->lock);
	a->has_missing = a->has_missing || what->frame.form == PEER_FRAME_MISSING;
	STAILQ_INSERT_TAIL(&a->queue, i, in_queue);
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

void flip_peer_give_plain(struct flip_peer_answer *a, uint64_t offset, uint64_t inner, int fd, uint64_t file_offset,
                          size_t size, void (*release)(void *arg), void *arg)
{
	struct item i = { .frame = { PEER_FRAME_PLAIN, (uint32_t)size, offset, inner },
		          .fd = fd,
		          .at = file_offset,
		          .size = size,
		          .release = release,
		          .arg = arg };

	if (size == 0 || size > FLIP_PEER_MAX_PIECE) {
		i.frame.form = PEER_FRAME_MISSING;
		i.frame.size = 0;
	}
	add(a, &i);
}

int flip_peer_give_remembered(struct flip_peer_answer *a, uint64_t offset)
{
	struct item i = { .frame = { PEER_FRAME_PACKED, 0, offset, 0 }, .fd = -1 };

	i.piece = kept_get(a->p->kept, a->digest, offset);
	if (!i.piece)
		return 0;
	i.frame.size = (uint32_t)i.piece->size;
	add(a, &i);
	return 1;
}

void flip_peer_refuse(struct flip_peer_answer *a, uint64_t offset, uint64_t inner)
{
	struct item i = { .frame = { PEER_FRAME_MISSING, 0, offset, inner }, .fd = -1 };

	atomic_fetch_add(&a->p->counts.missing, 1);
	add(a, &i);
}

/* ---- The server's side ------------------------------------------------------------------------------------------ */

static int reserve(struct flip_peer_answer *a, size_t size)
{
	uint8_t *p = size > a->cap_out ? realloc(a->out, size) : a->out;

	if (!p)
		return -ENOMEM;
	a->cap_out = size > a->cap_out ? size : a->cap_out;
	a->out = p;
	return 0;
}

static int read_file(struct flip_peers *p, int fd, void *data, size_t size, uint64_t at)
{
	ssize_t n;

	pthread_mutex_lock(&p->disk_lock);
	while (p->n_disk >= p->o.disk_queue)
		pthread_cond_wait(&p->disk_free, &p->disk_lock);
	p->n_disk++;
	pthread_mutex_unlock(&p->disk_lock);
	do
		n = pread(fd, data, size, (off_t)at);
	while (n < 0 && errno == EINTR);
	pthread_mutex_lock(&p->disk_lock);
	p->n_disk--;
	pthread_cond_signal(&p->disk_free);
	pthread_mutex_unlock(&p->disk_lock);
	return n == (ssize_t)size ? 0 : -EIO;
}

/* Compressed in place of the plain bytes, when that makes them smaller. */
static void compress(struct flip_peer_answer *a, struct peer_frame *f)
{
	size_t bound = ZSTD_compressBound(f->size), n;
	uint8_t *packed;

	if (!a->may_compress || f->size < MIN_PACKED || atomic_load(&a->p->pace_percent) < 50)
		return;
	packed = malloc(bound);
	n = packed ? ZSTD_compress(packed, bound, a->out + PEER_FRAME_SIZE, f->size, ZSTD_LEVEL) : 0;
	if (packed && !ZSTD_isError(n) && n < f->size - f->size / 8) {
		memcpy(a->out + PEER_FRAME_SIZE, packed, n);
		f->form = PEER_FRAME_ZSTD;
		f->size = (uint32_t)n;
	}
	free(packed);
}

static int load_plain(struct flip_peer_answer *a, struct item *i)
{
	struct flip_peers *p = a->p;

	if (reserve(a, PEER_FRAME_SIZE + i->size) < 0)
		return -ENOMEM;
	if (read_file(p, i->fd, a->out + PEER_FRAME_SIZE, i->size, i->at) < 0) {
		i->frame.form = PEER_FRAME_MISSING;
		i->frame.size = 0;
	} else {
		compress(a, &i->frame);
		atomic_fetch_add(i->frame.form == PEER_FRAME_ZSTD ? &p->counts.served_zstd : &p->counts.served_plain,
		                 1);
	}
	a->n_out = PEER_FRAME_SIZE + i->frame.size;
	return 0;
}

static int load(struct flip_peer_answer *a, struct item *i)
{
	int r = 0;

	a->at_out = 0;
	if (i->frame.form == PEER_FRAME_PLAIN) {
		r = load_plain(a, i);
	} else {
		r = reserve(a, PEER_FRAME_SIZE);
		a->n_out = PEER_FRAME_SIZE;
		a->piece = i->piece;
		i->piece = NULL;
		a->at_piece = 0;
		if (a->piece)
			atomic_fetch_add(&a->p->counts.served_packed, 1);
	}
	if (r == 0)
		peer_frame_write(&i->frame, a->out);
	item_free(i);
	return r;
}

static void note_holders(struct flip_peer_answer *a)
{
	for (size_t i = 0; i < a->n_groups && !a->has_missing; i++)
		kept_note_holder(a->p->kept, a->groups[i], a->asker);
}

/* Waits for the next frame. 1: it is at hand; 0: that was the last; negative: cut the answer. */
static int next_frame(struct flip_peer_answer *a)
{
	struct peer_frame f = { .form = PEER_FRAME_WAITING };
	struct item *i = NULL;
	struct timespec until;
	bool is_over, stops;

	kept_piece_unref(a->piece);
	a->piece = NULL;
	a->n_out = a->at_out = 0;
	if (a->has_ended)
		return 0;
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAITING_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&a->lock);
	for (;;) {
		i = STAILQ_FIRST(&a->queue);
		is_over = !i && a->is_served && !a->n_promised;
		stops = atomic_load(&a->p->server_stops);
		if (i || is_over || stops || pthread_cond_timedwait(&a->changed, &a->lock, &until) == ETIMEDOUT)
			break;
	}
	if (i)
		STAILQ_REMOVE_HEAD(&a->queue, in_queue);
	pthread_mutex_unlock(&a->lock);
	if (i) {
		a->given_us = peer_now_us();
		return load(a, i) < 0 ? -ENOMEM : 1;
	}
	if (stops || (!is_over && peer_now_us() - a->given_us > 2 * PEER_PATIENCE * (int64_t)PEER_PIECE_US))
		return -ETIMEDOUT;
	if (is_over) {
		f.form = PEER_FRAME_END;
		a->has_ended = true;
		note_holders(a);
	}
	if (reserve(a, PEER_FRAME_SIZE) < 0)
		return -ENOMEM;
	peer_frame_write(&f, a->out);
	a->n_out = PEER_FRAME_SIZE;
	return 1;
}

void peer_pace(struct flip_peers *p, size_t n, enum flip_priority priority)
{
	/* Each thread adds what it has taken since it came by last. */
	static _Thread_local uint64_t counted_us;
	uint64_t taken_us = peer_thread_cpu_us();
	int64_t wait;

	pthread_mutex_lock(&p->pressure_lock);
	p->own_us += taken_us - counted_us;
	counted_us = taken_us;
	if (peer_pressure_look(&p->pressure, p->o.pressure_dir, p->o.psi_percent, peer_now_us(), p->own_us)) {
		peer_bucket_throttle(&p->up, p->pressure.factor);
		atomic_store(&p->pace_percent, (unsigned)(p->pressure.factor * 100));
	}
	pthread_mutex_unlock(&p->pressure_lock);
	wait = peer_bucket_take(&p->up, n, priority);
	/* No longer than an asker is patient; what is owed is paid by the next. */
	wait = wait > 1000000 ? 1000000 : wait;
	if (wait > 0)
		(void)usleep((useconds_t)wait);
}

ssize_t peer_answer_read(struct flip_peer_answer *a, void *to, size_t max)
{
	char *buf = to;
	size_t n = 0;

	while (n < max) {
		size_t left_out = a->n_out - a->at_out;
		size_t left_piece = a->piece ? a->piece->size - a->at_piece : 0, k;

		if (!left_out && !left_piece) {
			bool is_ready;
			int r;

			/* What is at hand goes out before we wait for more. */
			pthread_mutex_lock(&a->lock);
			is_ready = !STAILQ_EMPTY(&a->queue);
			pthread_mutex_unlock(&a->lock);
			if (n && !is_ready)
				break;
			r = next_frame(a);
			if (r < 0)
				return r;
			if (r == 0)
				break;
			continue;
		}
		if (left_out) {
			k = left_out < max - n ? left_out : max - n;
			memcpy(buf + n, a->out + a->at_out, k);
			a->at_out += k;
		} else {
			k = left_piece < max - n ? left_piece : max - n;
			memcpy(buf + n, a->piece->data + a->at_piece, k);
			a->at_piece += k;
		}
		n += k;
	}
	if (n == 0)
		return 0;
	peer_pace(a->p, n, a->priority);
	atomic_fetch_add(&a->p->counts.served_bytes, n);
	return (ssize_t)n;
}

void peer_answer_gone(struct flip_peer_answer *a)
{
	pthread_mutex_lock(&a->lock);
	a->has_gone = true;
	pthread_mutex_unlock(&a->lock);
	peer_answer_left(a->p, a->member);
	answer_unref(a);
}
