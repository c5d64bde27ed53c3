/* The index file (docs/formats/layer-index.md): a header, then four arrays that are used as they lie.
 *
 *   objects   sorted by digest         owners    of each chunk, which object
 *   chunks    in the order of the table  prefetch  numbers of chunks
 *
 * Numbers are in the machine's order: the file is made and read on one node, a foreign one fails at the magic. */
#include "lazy/index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "base/sha256.h"
#include "lazy_internal.h"

enum { VERSION = 1, DIGEST_TEXT = 72 };
static const uint64_t magic = 0x3158444950494c46u; /* "FLIPIDX1" read as a little-endian number */

struct header {
	uint64_t magic;
	uint32_t version, format;
	uint64_t file_size, blob_size, prefetch_end;
	uint32_t n_objects, n_chunks, n_prefetch, has_list;
	char blob[DIGEST_TEXT];
};
static_assert(sizeof(struct header) == 128, "the header is 128 bytes");
static_assert(sizeof(struct flip_index_object) == 48, "an object is 48 bytes");
static_assert(sizeof(struct flip_index_chunk) == 64, "a chunk is 64 bytes");

struct flip_index {
	struct base_mapfile map;
	const struct header *head;
	const struct flip_index_object *objects;
	const struct flip_index_chunk *chunks;
	const uint32_t *owners, *prefetch;
};

struct layout {
	size_t objects, chunks, owners, prefetch, end;
};

static struct layout layout_of(size_t n_objects, size_t n_chunks, size_t n_prefetch)
{
	struct layout l = { .objects = sizeof(struct header) };

	/* Counts are below 2^32: no overflow in 64 bits. */
	l.chunks = l.objects + n_objects * sizeof(struct flip_index_object);
	l.owners = l.chunks + n_chunks * sizeof(struct flip_index_chunk);
	l.prefetch = l.owners + n_chunks * sizeof(uint32_t);
	l.end = l.prefetch + n_prefetch * sizeof(uint32_t);
	return l;
}

/* ---- Writing ---- */

static int compare_objects(const void *a, const void *b)
{
	return memcmp(((const struct flip_index_object *)a)->digest, ((const struct flip_index_object *)b)->digest, 32);
}

/* Without a list of ours: the chunks in front of the landmark, in the order of the blob. */
struct placed {
	uint64_t offset, inner;
	uint32_t chunk;
};

static int compare_placed(const void *a, const void *b)
{
	const struct placed *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->inner < y->inner ? -1 : x->inner > y->inner;
}

static int prefetch_of(const struct flip_toc *toc, uint32_t **ret_list, size_t *ret_n)
{
	CLEANUP(freep) struct placed *placed = calloc(toc->n_chunks + 1, sizeof(*placed));
	uint32_t *list = calloc(toc->n_chunks + toc->n_prefetch + 1, sizeof(*list));
	size_t n = 0;

	if (!placed || !list) {
		free(list);
		return -ENOMEM;
	}
	if (toc->prefetch) {
		n = toc->n_prefetch;
		memcpy(list, toc->prefetch, n * sizeof(*list));
	} else {
		for (size_t i = 0; i < toc->n_chunks; i++) {
			const struct flip_toc_chunk *c = &toc->chunks[i];

			if (c->blob_offset < toc->prefetch_end)
				placed[n++] = (struct placed){ c->blob_offset, c->inner_offset, (uint32_t)i };
		}
		qsort(placed, n, sizeof(*placed), compare_placed);
		for (size_t i = 0; i < n; i++)
			list[i] = placed[i].chunk;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

static void fill(const struct flip_toc *toc, uint8_t *file, const struct layout *l)
{
	struct flip_index_object *objects = (void *)(file + l->objects);
	struct flip_index_chunk *chunks = (void *)(file + l->chunks);
	uint32_t *owners = (void *)(file + l->owners);

	for (size_t i = 0; i < toc->n_contents; i++) {
		const struct flip_toc_content *c = &toc->contents[i];

		memcpy(objects[i].digest, c->digest, 32);
		objects[i].size = c->size;
		objects[i].first_chunk = c->first_chunk;
		objects[i].n_chunks = c->n_chunks;
	}
	qsort(objects, toc->n_contents, sizeof(*objects), compare_objects);
	for (size_t i = 0; i < toc->n_contents; i++) {
		for (size_t k = 0; k < objects[i].n_chunks; k++)
			owners[objects[i].first_chunk + k] = (uint32_t)i;
	}
	for (size_t i = 0; i < toc->n_chunks; i++) {
		const struct flip_toc_chunk *c = &toc->chunks[i];

		chunks[i].offset = c->offset;
		chunks[i].blob_offset = c->blob_offset;
		chunks[i].inner_offset = c->inner_offset;
		chunks[i].size = c->size;
		chunks[i].blob_size = c->blob_size;
		if (c->has_digest)
			memcpy(chunks[i].digest, c->digest, 32);
	}
}

static int check(struct flip_index *ix, const char *path, struct err *err);

int flip_index_write(const struct flip_toc *toc, const char *blob_digest, uint64_t blob_size, const char *path,
                     struct err *err)
{
	CLEANUP(freep) uint32_t *prefetch = NULL;
	CLEANUP(freep) uint8_t *file = NULL;
	size_t n_prefetch = 0;
	struct flip_index ix = { 0 };
	struct header *h;
	struct layout l;
	int r;

	if (strlen(blob_digest) >= DIGEST_TEXT || toc->n_chunks >= UINT32_MAX || toc->n_contents >= UINT32_MAX)
		return err_set(err, -EINVAL, "%s: not a layer that an index can hold", blob_digest);
	if (prefetch_of(toc, &prefetch, &n_prefetch) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	l = layout_of(toc->n_contents, toc->n_chunks, n_prefetch);
	file = calloc(1, l.end);
	if (!file)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	h = (struct header *)file;
	h->magic = magic;
	h->version = VERSION;
	h->format = (uint32_t)toc->format;
	h->file_size = l.end;
	h->blob_size = blob_size;
	h->prefetch_end = toc->prefetch_end;
	h->n_objects = (uint32_t)toc->n_contents;
	h->n_chunks = (uint32_t)toc->n_chunks;
	h->n_prefetch = (uint32_t)n_prefetch;
	h->has_list = toc->prefetch != NULL;
	memcpy(h->blob, blob_digest, strlen(blob_digest));
	fill(toc, file, &l);
	if (n_prefetch)
		memcpy(file + l.prefetch, prefetch, n_prefetch * sizeof(*prefetch));
	ix.map = (struct base_mapfile){ .data = file, .size_bytes = l.end };
	r = check(&ix, path, err);
	return r < 0 ? r : base_write_file_atomic(path, file, l.end, 0644, err);
}

/* ---- Reading ---- */

static int bad(const char *path, struct err *err, const char *what)
{
	return err_set(err, -EBADMSG, "%s: not an index of a layer: %s", path, what);
}

static int check_header(struct flip_index *ix, const char *path, struct err *err)
{
	const struct header *h = (const void *)ix->map.data;
	struct layout l;

	if (ix->map.size_bytes < sizeof(*h))
		return bad(path, err, "too short");
	if (h->magic != magic || h->version != VERSION)
		return bad(path, err, "magic or version");
	if (h->format > FLIP_RAW)
		return bad(path, err, "format");
	l = layout_of(h->n_objects, h->n_chunks, h->n_prefetch);
	if (h->file_size != ix->map.size_bytes || l.end != ix->map.size_bytes)
		return bad(path, err, "file_size");
	if (!memchr(h->blob, 0, sizeof(h->blob)))
		return bad(path, err, "blob");
	ix->head = h;
	ix->objects = (const void *)(ix->map.data + l.objects);
	ix->chunks = (const void *)(ix->map.data + l.chunks);
	ix->owners = (const void *)(ix->map.data + l.owners);
	ix->prefetch = (const void *)(ix->map.data + l.prefetch);
	return 0;
}

/* The chunks of one object fill it without gaps, lie in the blob, and are its own. */
static const char *fault_in_object(const struct flip_index *ix, size_t i)
{
	const struct flip_index_object *o = &ix->objects[i];
	uint64_t done = 0;

	if (i && memcmp(o[-1].digest, o->digest, 32) >= 0)
		return "objects are not in order";
	/* What was unpacked from an ordinary layer has no place in the blob. */
	if (o->n_chunks == 0 && ix->head->format == FLIP_PLAIN)
		return NULL;
	if (o->size == 0 || o->n_chunks == 0 || o->first_chunk > ix->head->n_chunks ||
	    o->n_chunks > ix->head->n_chunks - o->first_chunk)
		return "chunks of an object";
	for (size_t k = o->first_chunk; k < (size_t)o->first_chunk + o->n_chunks; k++) {
		const struct flip_index_chunk *c = &ix->chunks[k];

		if (ix->owners[k] != i)
			return "owner of a chunk";
		if (c->offset != done || c->size == 0 || c->size > o->size - done)
			return "offset or size of a chunk";
		if (c->blob_size == 0 || c->blob_offset > ix->head->blob_size ||
		    c->blob_size > ix->head->blob_size - c->blob_offset)
			return "place of a chunk in the blob";
		if (c->inner_offset > UINT32_MAX || (ix->head->format == FLIP_RAW && c->inner_offset))
			return "inner offset of a chunk";
		if (ix->head->format == FLIP_RAW && c->blob_size != c->size)
			return "size of a chunk in the blob";
		done += c->size;
	}
	return done == o->size ? NULL : "size of an object";
}

static int check(struct flip_index *ix, const char *path, struct err *err)
{
	uint64_t n = 0;
	int r = check_header(ix, path, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ix->head->n_objects; i++) {
		const char *fault = fault_in_object(ix, i);

		if (fault)
			return bad(path, err, fault);
		n += ix->objects[i].n_chunks;
	}
	if (n != ix->head->n_chunks)
		return bad(path, err, "chunks that belong to nothing");
	for (size_t i = 0; i < ix->head->n_prefetch; i++) {
		if (ix->prefetch[i] >= ix->head->n_chunks)
			return bad(path, err, "prefetch");
	}
	return 0;
}

int flip_index_open(const char *path, struct flip_index **ret_index, struct err *err)
{
	struct flip_index *ix = calloc(1, sizeof(*ix));
	int r;

	if (!ix)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	r = base_mapfile_open(path, &ix->map, err);
	if (r == 0)
		r = check(ix, path, err);
	if (r < 0) {
		flip_index_close(ix);
		return r;
	}
	*ret_index = ix;
	return 0;
}

void flip_index_cool(const struct flip_index *ix)
{
	base_mapfile_cool(&ix->map);
}

void flip_index_close(struct flip_index *ix)
{
	if (!ix)
		return;
	base_mapfile_close(&ix->map);
	free(ix);
}

enum flip_format flip_index_format(const struct flip_index *ix)
{
	return (enum flip_format)ix->head->format;
}

const char *flip_index_blob(const struct flip_index *ix)
{
	return ix->head->blob;
}

uint64_t flip_index_blob_size(const struct flip_index *ix)
{
	return ix->head->blob_size;
}

size_t flip_index_n_objects(const struct flip_index *ix)
{
	return ix->head->n_objects;
}

size_t flip_index_n_chunks(const struct flip_index *ix)
{
	return ix->head->n_chunks;
}

const struct flip_index_object *flip_index_object(const struct flip_index *ix, size_t i)
{
	return &ix->objects[i];
}

const struct flip_index_chunk *flip_index_chunk(const struct flip_index *ix, size_t i)
{
	return &ix->chunks[i];
}

const struct flip_index_object *flip_index_find(const struct flip_index *ix, const uint8_t digest[32])
{
	size_t low = 0, high = ix->head->n_objects;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = memcmp(ix->objects[mid].digest, digest, 32);

		if (c == 0)
			return &ix->objects[mid];
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

const struct flip_index_object *flip_index_chunk_object(const struct flip_index *ix, size_t chunk)
{
	return &ix->objects[ix->owners[chunk]];
}

size_t flip_index_prefetch(const struct flip_index *ix, const uint32_t **ret_chunks)
{
	*ret_chunks = ix->prefetch;
	return ix->head->n_prefetch;
}

/* ---- Chunks ---- */

static bool has_digest(const struct flip_index_chunk *chunk)
{
	static const uint8_t unknown[32];

	return memcmp(chunk->digest, unknown, sizeof(unknown)) != 0;
}

bool flip_index_is_unverified(const struct flip_index *ix, const struct flip_index_object *object)
{
	return object->n_chunks > 1 && !has_digest(flip_index_chunk(ix, object->first_chunk));
}

int flip_chunk_verify(const struct flip_index_chunk *chunk, const void *data, struct err *err)
{
	uint8_t digest[32];

	if (!has_digest(chunk))
		return 0;
	if (base_sha256_bytes(data, chunk->size, digest) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	if (memcmp(digest, chunk->digest, sizeof(digest)) != 0)
		return err_set(err, -EBADMSG, "chunk at %llu of the blob: not what its digest says",
		               (unsigned long long)chunk->blob_offset);
	return 0;
}

int flip_chunk_decode(enum flip_format format, const struct flip_index_chunk *chunk, const void *data, size_t size,
                      void *out, struct err *err)
{
	int r = -EBADMSG;

	if (size >= chunk->blob_size && format == FLIP_RAW) {
		memcpy(out, data, chunk->size);
		r = 0;
	} else if (size >= chunk->blob_size && format != FLIP_PLAIN) {
		r = flip_unpack_part(format, data, chunk->blob_size, chunk->inner_offset, out, chunk->size);
	}
	if (r < 0)
		return err_set(err, r, "chunk at %llu of the blob: %s", (unsigned long long)chunk->blob_offset,
		               r == -ENOMEM ? "out of memory" : "cannot be decompressed, or too short");
	return flip_chunk_verify(chunk, out, err);
}
