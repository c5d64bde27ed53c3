/* Contents that layers disagree about.
 *
 * A content that is arriving is verified chunk by chunk, against what a layer's table of contents says of it. That is
 * good enough for the layer's own image, not for another one that names the same content: a table may lie. So two
 * layers share what is arriving only when they say the same of its chunks. Where they do not (another tool or chunk
 * size, or a lie), nothing of the content is served before all of it is there and has the digest it is named by: it is
 * fetched whole when the second layer is made ready, and when one is opened later. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/sha256.h"
#include "node/node_internal.h"

enum { SPAN = 8 << 20 /* bytes of the blob in one read */ };

bool node_contents_agree(const struct flip_index *a, const struct flip_index_object *in_a, const struct flip_index *b,
                         const struct flip_index_object *in_b)
{
	/* A content of one chunk is hashed as a whole when it is written; none: it was unpacked, and is complete. */
	if (in_a->size != in_b->size)
		return false;
	if (in_a->n_chunks <= 1 && in_b->n_chunks <= 1)
		return true;
	if (in_a->n_chunks == 0 || in_b->n_chunks == 0)
		return true;
	if (in_a->n_chunks != in_b->n_chunks)
		return false;
	for (uint32_t i = 0; i < in_a->n_chunks; i++) {
		const struct flip_index_chunk *x = flip_index_chunk(a, in_a->first_chunk + i);
		const struct flip_index_chunk *y = flip_index_chunk(b, in_b->first_chunk + i);

		if (x->offset != y->offset || x->size != y->size ||
		    memcmp(x->digest, y->digest, sizeof(x->digest)) != 0)
			return false;
	}
	return true;
}

struct whole {
	struct node_layer *layer;
	struct base_sha256 *sum;
	int fd;
	uint8_t *packed, *plain;
	size_t plain_size;
};

static void whole_done(struct whole *w)
{
	base_sha256_free(w->sum);
	free(w->packed);
	free(w->plain);
	if (w->fd >= 0)
		(void)close(w->fd);
}

/* One chunk out of the bytes of the blob that begin at `at`. */
static int take_chunk(struct whole *w, const struct flip_index_chunk *c, uint64_t at, struct err *err)
{
	int r;

	if (c->size > w->plain_size) {
		uint8_t *p = realloc(w->plain, c->size);

		if (!p)
			return err_set(err, -ENOMEM, "out of memory");
		w->plain = p;
		w->plain_size = c->size;
	}
	r = flip_chunk_decode(flip_index_format(w->layer->index), c, w->packed + (c->blob_offset - at), c->blob_size,
	                      w->plain, err);
	if (r < 0)
		return r;
	base_sha256_update(w->sum, w->plain, c->size);
	if (pwrite(w->fd, w->plain, c->size, (off_t)c->offset) != (ssize_t)c->size)
		return err_set(err, errno ? -errno : -EIO, "writing a content: %s", strerror(errno));
	return 0;
}

/* Chunks [first, *ret_end) whose bytes lie within one span of the blob, as they do when it was written in order. */
static int take_span(struct whole *w, uint32_t first, uint32_t end, uint32_t *ret_end, struct err *err)
{
	const struct flip_index *ix = w->layer->index;
	uint64_t at = flip_index_chunk(ix, first)->blob_offset, last = at;
	uint32_t n = first;
	int r;

	for (; n < end; n++) {
		const struct flip_index_chunk *c = flip_index_chunk(ix, n);
		uint64_t c_end = c->blob_offset + c->blob_size;

		if (c->blob_offset < at || (n > first && c_end > at + SPAN))
			break;
		last = c_end > last ? c_end : last;
	}
	free(w->packed);
	w->packed = malloc(last - at);
	if (!w->packed)
		return err_set(err, -ENOMEM, "out of memory");
	r = flip_blob_read_wait(w->layer->blob, at, last - at, w->packed, FLIP_FOREGROUND, err);
	for (uint32_t i = first; r == 0 && i < n; i++)
		r = take_chunk(w, flip_index_chunk(ix, i), at, err);
	*ret_end = n;
	return r;
}

int node_fetch_whole(struct node_layer *layer, const struct flip_index_object *object, struct err *err)
{
	struct flip_node *node = layer->node;
	CLEANUP(whole_done) struct whole w = { .layer = layer, .fd = -1 };
	uint32_t next = object->first_chunk, end = object->first_chunk + object->n_chunks;
	uint8_t digest[FLIP_DIGEST_SIZE];
	char path[NODE_PATH + 64];
	bool was_there;
	int r;

	if (!layer->blob)
		return err_set(err, -ENOENT, "layer %s cannot be asked for a content by itself", layer->digest);
	r = flip_store_tmp(node->store, path, sizeof(path), err);
	if (r < 0)
		return r;
	w.fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w.fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	r = base_sha256_new(&w.sum);
	while (r == 0 && next < end)
		r = take_span(&w, next, end, &next, err);
	if (r == 0) {
		base_sha256_final(w.sum, digest);
		if (memcmp(digest, object->digest, sizeof(digest)) != 0)
			r = err_set(err, -EBADMSG, "layer %s: a content is not what its table of contents says",
			            layer->digest);
	}
	if (r == 0)
		r = flip_store_put_file(node->store, digest, path, &was_there, err);
	if (r < 0)
		(void)unlink(path);
	return r;
}

int node_settle_contested(struct node_layer *layer, struct err *err)
{
	size_t n = flip_index_n_objects(layer->index), n_whole = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct flip_index_object *o = flip_index_object(layer->index, i);

		if (o->n_chunks < 2 || flip_index_is_unverified(layer->index, o) ||
		    flip_store_has(layer->node->store, o->digest, NULL) ||
		    !node_object_is_contested(layer->node, o->digest))
			continue;
		r = node_fetch_whole(layer, o, err);
		n_whole++;
	}
	if (n_whole)
		base_log(BASE_LOG_INFO,
		         "layer %s: fetched %zu contents whole, another layer says otherwise of their chunks",
		         layer->digest, n_whole);
	return r;
}
