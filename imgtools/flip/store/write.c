/* Bytes arriving for an object. Order is what makes a kill harmless: the bytes, then the bit in the map; all bits, then
 * the name in objects/. Both live in the page cache then, which outlives the process.
 *
 * A content that comes in one piece for an object without files takes the way of flip_store_put(): no map, one name. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/sha256.h"
#include "store/store_internal.h"

enum {
	MAX_EDGES = 1 << 16, /* per object; what is beyond is fetched again */
	WORDS_AT_ONCE = 256,
};

/* The map is emptied before the data file is made and gets its header after: old bits never meet new bytes. */
int flip_object_make_files(struct flip_object *o, struct err *err)
{
	CLEANUP(close_fdp) int data_fd = -1;
	CLEANUP(close_fdp) int map_fd = -1;
	CLEANUP(freep) uint64_t *words = calloc(1, (size_t)map_bits_size(o->n_blocks));
	struct map_head head = { .size = o->size, .n_blocks = o->n_blocks };
	char name[STORE_NAME_SIZE], map_name[STORE_NAME_SIZE + 4];
	const int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
	uint8_t header[MAP_HEADER_SIZE];
	struct flip_store *s = o->store;
	int r = 0;

	if (!words)
		return err_set(err, -ENOMEM, "out of memory");
	if (s->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", s->dir);
	flip_object_name(o->digest, name);
	(void)stpcpy(stpcpy(map_name, name), ".map");
	memcpy(head.digest, o->digest, FLIP_DIGEST_SIZE);
	memcpy(head.boot, s->boot, STORE_BOOT_SIZE);
	flip_map_format(&head, header);

	map_fd = openat(s->partial_fd, map_name, flags, 0600);
	data_fd = map_fd < 0 ? -1 : openat(s->partial_fd, name, flags, 0600);
	if (data_fd < 0 || ftruncate(data_fd, (off_t)o->size) < 0 ||
	    ftruncate(map_fd, (off_t)(MAP_HEADER_SIZE + 2 * map_bits_size(o->n_blocks))) < 0)
		r = -errno;
	if (r == 0)
		r = flip_store_write_at(map_fd, header, sizeof(header), 0);
	if (r < 0) {
		(void)unlinkat(s->partial_fd, map_name, 0);
		(void)unlinkat(s->partial_fd, name, 0);
		return flip_store_full(s, r, "making a file", err);
	}
	o->write_fd = data_fd;
	o->map_fd = map_fd;
	data_fd = map_fd = -1;
	__atomic_store_n(&o->bits, (_Atomic uint64_t *)words, __ATOMIC_RELEASE);
	words = NULL;
	return 0;
}

static void close_files(struct flip_object *o)
{
	if (o->n_writers > 0)
		return;
	close_fdp(&o->write_fd);
	close_fdp(&o->map_fd);
	o->write_fd = o->map_fd = -1;
}

/* Chunks were verified against what some table of contents says of them; the name says what the whole must be. Whoever
 * wrote the table may have lied: so nothing gets a name, which all images share, before all of it was hashed. */
static bool is_what_it_says(struct flip_object *o)
{
	uint8_t digest[FLIP_DIGEST_SIZE];
	struct stat st;

	return fstat(o->write_fd, &st) == 0 && (uint64_t)st.st_size == o->size &&
	       flip_sum_finish(o, o->write_fd, digest) == 0 && memcmp(digest, o->content, sizeof(digest)) == 0;
}

/* Nobody vouched for any part of it: it is begun anew by whoever opens it next. */
static int refuse_unverified(struct flip_object *o, struct err *err)
{
	struct shard *sh = shard_of(o->store, o->digest);

	pthread_mutex_lock(&sh->lock);
	flip_partial_forget(o->store, o->digest);
	flip_shard_unlist(sh, o);
	pthread_mutex_unlock(&sh->lock);
	o->is_refused = true;
	return err_set(err, -EBADMSG, "the content is not what its digest says");
}

/* Of one that gets another name both folders change; the one that comes first is locked first. */
static void lock_names(struct flip_object *o)
{
	struct shard *a = shard_of(o->store, o->digest), *b = shard_of(o->store, o->content);

	pthread_mutex_lock(a < b ? &a->lock : &b->lock);
	if (a != b)
		pthread_mutex_lock(a < b ? &b->lock : &a->lock);
}

static void unlock_names(struct flip_object *o)
{
	struct shard *a = shard_of(o->store, o->digest), *b = shard_of(o->store, o->content);

	pthread_mutex_unlock(&a->lock);
	if (a != b)
		pthread_mutex_unlock(&b->lock);
}

int flip_object_finish(struct flip_object *o, bool has_shard, struct err *err)
{
	char name[STORE_NAME_SIZE], map_name[STORE_NAME_SIZE + 4], final[STORE_NAME_SIZE];
	struct flip_store *s = o->store;
	int r;

	if (o->is_refused)
		return is_unverified(o) ? err_set(err, -EBADMSG, "the content is not what its digest says") : 0;
	if (is_unverified(o) && !is_what_it_says(o))
		return refuse_unverified(o, err);
	if (!is_unverified(o) && !is_what_it_says(o)) {
		/* Stays a partial one: readable, chunk by chunk, for those who trust the table; never shared. */
		o->is_refused = true;
		flip_object_name(o->digest, name);
		base_log(BASE_LOG_ERROR, "%s: all chunks are right and the whole is not: its table of contents lies",
		         name);
		return 0;
	}
	flip_object_name(o->digest, name);
	flip_object_name(o->content, final);
	(void)stpcpy(stpcpy(map_name, name), ".map");
	if (!has_shard)
		lock_names(o);
	r = flip_store_look(s, o->content, STORE_TOUCH_PUT_S, NULL);
	if (r == 1) { /* put by somebody else meanwhile; ours stays readable for those who hold it */
		(void)unlinkat(s->partial_fd, name, 0);
		r = 0;
	} else if (r == 0) {
		r = flip_store_stamp(s, o->write_fd, true);
		if (r == 0 && renameat(s->partial_fd, name, s->objects_fd, final) < 0)
			r = -errno;
		if (r == 0)
			flip_store_count(s, o->content, 1, (int64_t)o->size);
	}
	if (r == 0) {
		(void)unlinkat(s->partial_fd, map_name, 0);
		atomic_store_explicit(&o->is_complete, true, memory_order_release);
	}
	if (!has_shard)
		unlock_names(o);
	if (r < 0)
		return flip_store_full(s, r, "naming a complete object", err);
	close_files(o);
	return 0;
}

/* ---- Bits (all under o->lock) --------------------------------------------------------------------------------- */

static void forget_edges(struct flip_object *o, uint64_t first, uint64_t end)
{
	size_t n = 0;

	for (size_t i = 0; i < o->n_edges; i++) {
		uint64_t block = o->edges[i].begin / FLIP_STORE_BLOCK;

		if (block < first || block >= end)
			o->edges[n++] = o->edges[i];
	}
	o->n_edges = n;
}

/* Blocks [first, end): into the file, then for everybody to see. */
static int set_bits(struct flip_object *o, uint64_t first, uint64_t end)
{
	uint64_t disk[WORDS_AT_ONCE];
	bool is_new = false;

	for (uint64_t word = first / 64; word * 64 < end; word += WORDS_AT_ONCE) {
		uint64_t n = (end - 1) / 64 - word + 1;
		int r;

		n = n < WORDS_AT_ONCE ? n : WORDS_AT_ONCE;
		for (uint64_t i = 0; i < n; i++) {
			uint64_t low = (word + i) * 64, mask = ~UINT64_C(0);

			if (first > low)
				mask &= ~UINT64_C(0) << (first - low);
			if (end < low + 64)
				mask &= (UINT64_C(1) << (end - low)) - 1;
			disk[i] = htole64(atomic_load(&o->bits[word + i]) | mask);
		}
		r = flip_store_write_at(o->map_fd, disk, (size_t)n * 8, map_live_offset() + word * 8);
		if (r < 0)
			return r;
		for (uint64_t i = 0; i < n; i++) {
			uint64_t old = atomic_load(&o->bits[word + i]), now = le64toh(disk[i]);

			o->n_missing -= (uint64_t)__builtin_popcountll(now & ~old);
			is_new |= now != old;
			atomic_store_explicit(&o->bits[word + i], now, memory_order_release);
		}
	}
	if (is_new)
		flip_store_dirty(o);
	if (o->n_edges > 0)
		forget_edges(o, first, end);
	return 0;
}

/* Bytes [begin, end) of one block: joined with what is there of it; a full block gets its bit. Chunks of zstd:chunked
 * end where their content does, so that most of their borders lie within a block. */
static int add_edge(struct flip_object *o, uint64_t begin, uint64_t end)
{
	uint64_t block = begin / FLIP_STORE_BLOCK, low = block * FLIP_STORE_BLOCK;
	uint64_t high = low + FLIP_STORE_BLOCK < o->size ? low + FLIP_STORE_BLOCK : o->size;
	size_t at = 0, from, to;

	if (flip_map_has(o->bits, block, 1))
		return 0;
	for (size_t n = o->n_edges; at < n;) { /* the first that ends at or behind begin */
		size_t middle = at + (n - at) / 2;

		if (o->edges[middle].end < begin || o->edges[middle].begin < low)
			at = middle + 1;
		else
			n = middle;
	}
	from = to = at;
	while (to < o->n_edges && o->edges[to].begin <= end && o->edges[to].begin / FLIP_STORE_BLOCK == block) {
		begin = o->edges[to].begin < begin ? o->edges[to].begin : begin;
		end = o->edges[to].end > end ? o->edges[to].end : end;
		to++;
	}
	if (begin == low && end == high)
		return set_bits(o, block, block + 1);
	if (from == to) {
		if (o->n_edges == o->cap_edges) {
			size_t cap = o->cap_edges ? 2 * o->cap_edges : 8;
			struct edge *edges = cap > MAX_EDGES ? NULL : realloc(o->edges, cap * sizeof(struct edge));

			if (!edges)
				return 0;
			o->edges = edges;
			o->cap_edges = cap;
		}
		memmove(&o->edges[at + 1], &o->edges[at], (o->n_edges - at) * sizeof(struct edge));
		o->n_edges++;
	} else {
		memmove(&o->edges[at + 1], &o->edges[to], (o->n_edges - to) * sizeof(struct edge));
		o->n_edges -= to - at - 1;
	}
	o->edges[at] = (struct edge){ begin, end };
	return 0;
}

static int mark(struct flip_object *o, uint64_t begin, uint64_t end)
{
	uint64_t first = map_n_blocks(begin), last = end == o->size ? o->n_blocks : end / FLIP_STORE_BLOCK;
	int r = 0;

	if (first < last)
		r = set_bits(o, first, last);
	if (r == 0 && begin % FLIP_STORE_BLOCK != 0)
		r = add_edge(o, begin, end < first * FLIP_STORE_BLOCK ? end : first * FLIP_STORE_BLOCK);
	if (r == 0 && last >= first && last < o->n_blocks && end > last * FLIP_STORE_BLOCK)
		r = add_edge(o, last * FLIP_STORE_BLOCK, end);
	return r;
}

/* ---- Writing -------------------------------------------------------------------------------------------------- */

/* Without files yet, and nobody holds a descriptor of them: as a whole. */
static int write_whole(struct flip_object *o, const void *data, struct err *err)
{
	uint8_t digest[FLIP_DIGEST_SIZE];
	bool was_there;
	int r = base_sha256_bytes(data, (size_t)o->size, digest);

	if (r == 0 && memcmp(digest, o->content, sizeof(digest)) != 0)
		return err_set(err, -EBADMSG, "the content is not what its digest says");
	if (r == 0)
		r = flip_store_put_new(o->store, o->content, data, (size_t)o->size, &was_there, err);
	if (r == 0) {
		o->n_missing = 0;
		atomic_store_explicit(&o->is_complete, true, memory_order_release);
	}
	return r;
}

static int write_part(struct flip_object *o, const void *data, size_t size, uint64_t offset, struct err *err)
{
	int fd = o->write_fd, r;

	o->n_writers++;
	pthread_mutex_unlock(&o->lock);
	r = flip_store_write_at(fd, data, size, offset);
	pthread_mutex_lock(&o->lock);
	if (r == 0 && !flip_object_is_complete(o)) {
		flip_sum_overwritten(o, offset, size);
		r = mark(o, offset, offset + size);
	}
	if (r == 0 && !flip_object_is_complete(o) && o->n_missing > 0) { /* the last one hashes what is left */
		pthread_mutex_unlock(&o->lock);
		flip_sum_advance(o, fd, data, size, offset);
		pthread_mutex_lock(&o->lock);
	}
	o->n_writers--;
	if (r < 0)
		(void)flip_store_full(o->store, r, "writing", err);
	else if (!flip_object_is_complete(o) && o->n_missing == 0)
		r = flip_object_finish(o, false, err);
	if (flip_object_is_complete(o))
		close_files(o);
	return r;
}

static int write_once(struct flip_object *o, const void *data, size_t size, uint64_t offset, struct err *err)
{
	int r = 0;

	pthread_mutex_lock(&o->lock);
	if (flip_object_is_complete(o))
		;
	else if (o->n_missing == 0) /* only its name is missing: the disk was full */
		r = flip_object_finish(o, false, err);
	else if (o->write_fd < 0 && size == o->size)
		r = write_whole(o, data, err);
	else if (o->write_fd >= 0 || (r = flip_object_make_files(o, err)) == 0)
		r = write_part(o, data, size, offset, err);
	pthread_mutex_unlock(&o->lock);
	return r;
}

int flip_object_write(struct flip_object *o, const void *data, size_t size, uint64_t offset, bool keep_cached,
                      struct err *err)
{
	uint64_t missing, n_missing;
	int r;

	if (offset > o->size || size > o->size - offset)
		return err_set(err, -EINVAL, "%zu bytes at %llu of an object of %llu", size, (unsigned long long)offset,
		               (unsigned long long)o->size);
	if (size == 0 || flip_object_is_complete(o))
		return 0;
	if (o->store->opts.read_only)
		return err_set(err, -EROFS, "%s: opened for reading only", o->store->dir);
	if (flip_object_has(o, offset, size) && flip_object_next_missing(o, 0, &missing, &n_missing) == 1)
		return 0;
	(void)flip_store_make_room(o->store, size, false, NULL);
	r = write_once(o, data, size, offset, err);
	if (r == -ENOSPC && flip_store_emergency_gc(o->store) == 0)
		r = write_once(o, data, size, offset, err);
	/* What became complete was read once more, all of it, to be hashed. */
	if (r == 0 && !keep_cached && flip_object_is_complete(o))
		flip_drop_add(o, 0, o->size);
	else if (r == 0 && !keep_cached)
		flip_drop_add(o, offset, offset + size);
	return r;
}
