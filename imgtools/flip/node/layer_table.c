/* A layer's table of contents: of another member that is asked for it first, where the image says how it can be told
 * from a false one; else of the registry; and of whoever has it when the registry does not give it. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "node/node_internal.h"

enum { MAX_RANGE = 16 << 20 /* what flip_blob_read() takes */ };

bool node_table_can_be_lazy(const struct flip_toc *toc)
{
	if (toc->format == FLIP_PLAIN)
		return false;
	for (size_t i = 0; i < toc->n_contents; i++) {
		const struct flip_toc_content *c = &toc->contents[i];

		for (uint32_t k = 0; c->n_chunks > 1 && k < c->n_chunks; k++) {
			if (!toc->chunks[c->first_chunk + k].has_digest)
				return false;
		}
	}
	for (size_t i = 0; i < toc->n_chunks; i++) {
		if (toc->chunks[i].blob_size > MAX_RANGE)
			return false;
	}
	return true;
}

/* Whether the table that a peer gives could be told from another one. */
static bool table_is_named(const struct img_descriptor *d)
{
	for (size_t i = 0; i < d->n_annotations; i++) {
		if (strcmp(d->names[i], "containerd.io/snapshot/stargz/toc.digest") == 0 ||
		    strcmp(d->names[i], "io.github.containers.zstd-chunked.manifest-checksum") == 0)
			return true;
	}
	return false;
}

struct wanted_table {
	const struct flip_blob_desc *desc;
	struct node_tail *tail;
	struct flip_toc *toc;
};

static int table_is_of(void *arg, const struct base_buf *text, struct err *err)
{
	struct wanted_table *w = arg;
	struct flip_toc *toc = NULL;
	struct node_tail *tail = node_tail_new(NULL, w->desc->size);
	int r = tail ? node_tail_parse(tail, text->data, text->len, err) : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = flip_toc_read(w->desc, node_tail_read_at, tail, &toc, err);
	if (r == 0 && toc->format == FLIP_PLAIN) /* nobody is believed that there is none */
		r = err_set(err, -EBADMSG, "a table of contents that is none");
	if (r == 0) {
		w->tail = tail;
		w->toc = toc;
	} else {
		flip_toc_free(toc);
		node_tail_free(tail);
	}
	return r;
}

/* 0, or what the registry is to be asked instead for. */
static int of_peers(struct flip_node *node, const struct node_image *image, const struct flip_blob_desc *desc,
                    bool anyone, struct node_tail **ret_tail, struct flip_toc **ret_toc)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(256 << 20);
	struct wanted_table w = { .desc = desc };
	struct node_question q = { .kind = "layer",
		                   .digest = desc->digest,
		                   .document = "tail",
		                   .ref = image->ref,
		                   .manifest = image->manifest,
		                   .anyone = anyone,
		                   .check = table_is_of,
		                   .arg = &w };
	int r = node_peers_document(node, &q, &text, NULL);

	if (r == 0) {
		*ret_tail = w.tail;
		*ret_toc = w.toc;
	}
	return r;
}

int node_table_read(struct flip_node *node, const struct node_image *image, const struct img_descriptor *d,
                    struct flip_blob *blob, struct node_tail **ret_tail, struct flip_toc **ret_toc, struct err *err)
{
	struct flip_blob_desc desc = {
		d->digest,       d->media_type, d->size, (const char *const *)d->names, (const char *const *)d->values,
		d->n_annotations
	};
	bool is_named = node->peers && table_is_named(d);
	struct node_tail *tail;
	int r;

	if (is_named && of_peers(node, image, &desc, false, ret_tail, ret_toc) == 0)
		return 0;
	tail = node_tail_new(blob, d->size);
	if (!tail)
		return err_set(err, -ENOMEM, "out of memory");
	r = flip_toc_read(&desc, node_tail_read_at, tail, ret_toc, err);
	if (r == 0) {
		*ret_tail = tail;
		return 0;
	}
	node_tail_free(tail);
	if (!is_named || r == -EBADMSG || r == -ECANCELED)
		return r;
	return of_peers(node, image, &desc, true, ret_tail, ret_toc) == 0 ? 0 : r;
}
