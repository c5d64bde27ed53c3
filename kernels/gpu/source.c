/* Weights straight from their files: threads read pieces into pinned memory, several at a time, while earlier ones are
 * copied to the device and packed there. What the page cache has comes from there, the rest past it (O_DIRECT): weights
 * that live on the device are not wanted in the host's memory twice, and one thread that faults pages in does not keep
 * a fast disk busy.
 *
 *   main thread   put() a piece -> queue -> ... -> issue(): copy, pack, event   (in the order in which they were put)
 *   readers       take the next piece of the queue, fill its slot
 *
 * A slot belongs to its reader until `ready`, then to the main thread, then to the device until its event. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gpu/backend.h"

enum {
	N_SLOTS = 16,
	N_READERS = 8,
	SLOT_BYTES = 8 << 20,
	BLOCK = 4096, /* what direct reads begin at, and are a multiple of */
	MAX_SOURCES = 1024,
};

struct source {
	const char *data;
	size_t bytes;
	int fd, direct_fd; /* direct_fd -1: the file system has no such thing */
};

struct slot {
	char *buf; /* pinned, SLOT_BYTES and a block at either end */
	void *copied;
	/* The piece: */
	const struct source *from;
	uint64_t off;
	size_t bytes, skip; /* its bytes begin at buf + skip */
	char *dst;          /* NULL: to be packed */
	struct gk_mat mat;
	uint32_t row, n_rows;
	bool ready;
	int error;
};

struct gpu_sources {
	struct source sources[MAX_SOURCES];
	uint32_t n_sources;
	struct slot slots[N_SLOTS];
	bool has_slots;
	pthread_t readers[N_READERS];
	unsigned n_readers;
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	/* Pieces so far; piece i is in slot i % N_SLOTS. issued <= taken <= put. */
	uint64_t put, taken, issued;
	bool stops;
	int error; /* the first one, of any piece */
};

/* ---- Reading ---- */

/* Whether the page cache has it, by a look at both ends and the middle. */
static bool is_cached(const struct source *s, uint64_t off, size_t bytes)
{
	const uint64_t at[] = { off, off + bytes / 2, off + bytes - 1 };
	char byte;

	for (int i = 0; i < 3; i++) {
		const struct iovec v = { &byte, 1 };

		if (preadv2(s->fd, &v, 1, (off_t)at[i], RWF_NOWAIT) != 1)
			return false;
	}
	return true;
}

/* Bytes read from `off` on: `bytes`, or fewer at the end of the file, or -errno. */
static ssize_t read_at(int fd, char *buf, size_t bytes, uint64_t off)
{
	size_t n = 0;

	while (n < bytes) {
		ssize_t r = pread(fd, buf + n, bytes - n, (off_t)(off + n));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		n += (size_t)r;
	}
	return (ssize_t)n;
}

static int read_piece(struct slot *p)
{
	const struct source *s = p->from;
	uint64_t begin = p->off / BLOCK * BLOCK, end = (p->off + p->bytes + BLOCK - 1) / BLOCK * BLOCK;
	ssize_t n;

	if (s->direct_fd >= 0 && !is_cached(s, p->off, p->bytes)) {
		p->skip = (size_t)(p->off - begin);
		n = read_at(s->direct_fd, p->buf, (size_t)(end - begin), begin);
		if (n >= (ssize_t)(p->skip + p->bytes))
			return 0;
	} /* a file system that wants larger blocks, or a file that ends where none of its blocks does: as usual */
	p->skip = 0;
	n = read_at(s->fd, p->buf, p->bytes, p->off);
	return n == (ssize_t)p->bytes ? 0 : n < 0 ? (int)n : -EIO;
}

static void *reader(void *arg)
{
	struct gpu_sources *q = arg;

	(void)pthread_mutex_lock(&q->lock);
	for (;;) {
		struct slot *p;
		int r;

		while (q->taken == q->put && !q->stops)
			(void)pthread_cond_wait(&q->work, &q->lock);
		if (q->taken == q->put)
			break;
		p = &q->slots[q->taken++ % N_SLOTS];
		(void)pthread_mutex_unlock(&q->lock);
		r = read_piece(p);
		(void)pthread_mutex_lock(&q->lock);
		p->error = r;
		p->ready = true;
		(void)pthread_cond_signal(&q->done);
	}
	(void)pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* ---- Setting up, given back when the last file is withdrawn ---- */

static int open_slots(struct gpu_backend *be, struct gpu_sources *q)
{
	for (int i = 0; i < N_SLOTS; i++) {
		struct slot *p = &q->slots[i];
		int r;

		p->buf = gpu_rt_host_alloc(&be->rt, SLOT_BYTES + 2 * BLOCK);
		r = p->buf ? gpu_rt_event_new(&be->rt, &p->copied) : -ENOMEM;
		r = r < 0 ? r : gpu_rt_event_record(&be->rt, p->copied);
		if (r < 0)
			return r;
	}
	q->has_slots = true;
	return 0;
}

static int start_readers(struct gpu_sources *q)
{
	while (q->n_readers < N_READERS) {
		if (pthread_create(&q->readers[q->n_readers], NULL, reader, q) != 0)
			break;
		q->n_readers++;
	}
	return q->n_readers ? 0 : -EAGAIN;
}

static void give_back(struct gpu_backend *be, struct gpu_sources *q)
{
	(void)pthread_mutex_lock(&q->lock);
	q->stops = true;
	(void)pthread_cond_broadcast(&q->work);
	(void)pthread_mutex_unlock(&q->lock);
	for (unsigned i = 0; i < q->n_readers; i++)
		(void)pthread_join(q->readers[i], NULL);
	if (q->has_slots)
		(void)gpu_rt_sync(&be->rt);
	for (int i = 0; i < N_SLOTS; i++) {
		gpu_rt_host_free(&be->rt, q->slots[i].buf);
		gpu_rt_event_free(&be->rt, q->slots[i].copied);
	}
	for (uint32_t i = 0; i < q->n_sources; i++) {
		(void)close(q->sources[i].fd);
		if (q->sources[i].direct_fd >= 0)
			(void)close(q->sources[i].direct_fd);
	}
	(void)pthread_mutex_destroy(&q->lock);
	(void)pthread_cond_destroy(&q->work);
	(void)pthread_cond_destroy(&q->done);
	free(q);
	be->sources = NULL;
}

/* ---- Pieces ---- */

/* The oldest piece, when its bytes are there or `waits`: to the device. false: not yet. */
static bool issue(struct gpu_backend *be, struct gpu_sources *q, bool waits)
{
	struct slot *p = &q->slots[q->issued % N_SLOTS];
	bool is_ready;
	int r;

	(void)pthread_mutex_lock(&q->lock);
	while (!p->ready && waits)
		(void)pthread_cond_wait(&q->done, &q->lock);
	is_ready = p->ready;
	(void)pthread_mutex_unlock(&q->lock);
	if (!is_ready)
		return false;
	r = p->error;
	r = r < 0 ? r : gpu_rt_to_device(&be->rt, p->dst ? p->dst : be->raw, p->buf + p->skip, p->bytes);
	if (r == 0 && !p->dst)
		r = gk_mat_pack(&be->ctx, &p->mat, be->raw, p->row, p->n_rows);
	r = r < 0 ? r : gpu_rt_event_record(&be->rt, p->copied);
	if (q->error == 0)
		q->error = r;
	q->issued++;
	return true;
}

/* piece: from, off, bytes, and where to. */
static int put(struct gpu_backend *be, struct gpu_sources *q, const struct slot *piece)
{
	struct slot *p = &q->slots[q->put % N_SLOTS];
	int r;

	while (q->issued < q->put && issue(be, q, false))
		;
	if (q->put - q->issued == N_SLOTS)
		(void)issue(be, q, true);
	r = q->error < 0 ? q->error : gpu_rt_event_wait(&be->rt, p->copied);
	if (r < 0)
		return r;
	p->from = piece->from;
	p->off = piece->off;
	p->bytes = piece->bytes;
	p->dst = piece->dst;
	p->mat = piece->mat;
	p->row = piece->row;
	p->n_rows = piece->n_rows;
	p->ready = false;
	(void)pthread_mutex_lock(&q->lock);
	q->put++;
	(void)pthread_cond_signal(&q->work);
	(void)pthread_mutex_unlock(&q->lock);
	return 0;
}

int gpu_sources_finish(struct gpu_backend *be)
{
	struct gpu_sources *q = be->sources;

	if (!q)
		return 0;
	while (q->issued < q->put)
		(void)issue(be, q, true);
	return q->error;
}

static const struct source *source_of(const struct gpu_backend *be, const void *data, size_t bytes)
{
	const struct gpu_sources *q = be->sources;

	for (uint32_t i = 0; q && i < q->n_sources; i++) {
		const struct source *s = &q->sources[i];
		uintptr_t at = (uintptr_t)data, begin = (uintptr_t)s->data;

		if (at >= begin && at - begin < s->bytes && bytes <= s->bytes - (at - begin))
			return s;
	}
	return NULL;
}

int gpu_source_copy(struct gpu_backend *be, char *dst, const void *src, size_t bytes)
{
	struct slot piece = { .from = source_of(be, src, bytes) };
	int r = 0;

	if (!piece.from)
		return -ENOENT;
	piece.off = (uint64_t)((const char *)src - piece.from->data);
	for (size_t done = 0; done < bytes && r == 0; done += piece.bytes) {
		piece.bytes = bytes - done < SLOT_BYTES ? bytes - done : SLOT_BYTES;
		piece.dst = dst + done;
		r = put(be, be->sources, &piece);
		piece.off += piece.bytes;
	}
	return r;
}

int gpu_source_pack(struct gpu_backend *be, const struct gk_mat *mat, const void *src, size_t row_bytes)
{
	uint32_t step = (uint32_t)(SLOT_BYTES / row_bytes / GK_PACK_ROWS * GK_PACK_ROWS);
	struct slot piece = { .from = source_of(be, src, mat->rows * row_bytes), .mat = *mat };
	int r;

	if (!piece.from || step == 0)
		return -ENOENT;
	r = gpu_raw_room(be, SLOT_BYTES);
	piece.off = (uint64_t)((const char *)src - piece.from->data);
	for (uint32_t row = 0; row < mat->rows && r == 0; row += step) {
		piece.row = row;
		piece.n_rows = mat->rows - row < step ? mat->rows - row : step;
		piece.bytes = piece.n_rows * row_bytes;
		r = put(be, be->sources, &piece);
		piece.off += piece.bytes;
	}
	return r;
}

/* ---- Files ---- */

/* Both descriptors; the file must still be the one that is mapped. */
static int open_source(const char *path, const struct kn_source *of, struct source *ret)
{
	struct stat st;
	int r;

	*ret = (struct source){ .data = of->data, .bytes = of->bytes, .direct_fd = -1 };
	ret->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (ret->fd < 0)
		return -errno;
	r = fstat(ret->fd, &st) < 0 ? -errno : 0;
	if (r == 0 &&
	    ((uint64_t)st.st_dev != of->dev || (uint64_t)st.st_ino != of->ino || (size_t)st.st_size < of->bytes))
		r = -ESTALE;
	if (r < 0) {
		(void)close(ret->fd);
		return r;
	}
	ret->direct_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_DIRECT);
	/* So that looking whether a piece is cached does not begin to read it. */
	if (ret->direct_fd >= 0)
		(void)posix_fadvise(ret->fd, 0, 0, POSIX_FADV_RANDOM);
	return 0;
}

static int add(struct gpu_backend *be, const struct kn_source *of)
{
	struct gpu_sources *q = be->sources;
	int r = 0;

	if (!q) {
		q = calloc(1, sizeof(*q));
		if (!q)
			return -ENOMEM;
		(void)pthread_mutex_init(&q->lock, NULL);
		(void)pthread_cond_init(&q->work, NULL);
		(void)pthread_cond_init(&q->done, NULL);
		be->sources = q;
		r = open_slots(be, q);
		r = r < 0 ? r : start_readers(q);
	}
	if (r == 0 && q->n_sources == MAX_SOURCES)
		r = -ENOSPC;
	r = r < 0 ? r : open_source(of->path, of, &q->sources[q->n_sources]);
	if (r == 0)
		q->n_sources++;
	if (q->n_sources == 0)
		give_back(be, q);
	return r;
}

int gpu_source(struct kn_backend *base, const struct kn_source *source)
{
	struct gpu_backend *be = gpu_of(base);
	int r;

	if (source)
		return add(be, source);
	r = gpu_sources_finish(be);
	if (be->sources)
		give_back(be, be->sources);
	return r;
}
