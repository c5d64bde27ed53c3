/* A model as a layer: its distinct contents one behind the other, as if they were one blob, which the node asks its
 * parts for (fetch.h: flip_blob_join). Contents of one digest are one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "model/flip_model.h"

/* Chunks that nothing verifies by themselves: their size is ours to choose. */
enum { PLAIN_CHUNK = 4 << 20 };

static int by_digest(const void *a, const void *b)
{
	const struct flip_model_file *x = *(const struct flip_model_file *const *)a,
	                             *y = *(const struct flip_model_file *const *)b;
	int d = memcmp(x->sha256, y->sha256, 32);

	return d ? d : x < y ? -1 : x > y; /* the first in the model's order in front */
}

static int by_place(const void *a, const void *b)
{
	const struct flip_model_file *x = *(const struct flip_model_file *const *)a,
	                             *y = *(const struct flip_model_file *const *)b;

	return x < y ? -1 : x > y;
}

int flip_model_contents(const struct flip_model *m, const struct flip_model_file ***ret_files, size_t *ret_n)
{
	const struct flip_model_file **files = calloc(m->n_files + 1, sizeof(*files));
	size_t n = 0, n_distinct = 0;

	if (!files)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_files; i++) {
		if (m->files[i].size)
			files[n++] = &m->files[i];
	}
	qsort(files, n, sizeof(*files), by_digest);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || memcmp(files[n_distinct - 1]->sha256, files[i]->sha256, 32) != 0)
			files[n_distinct++] = files[i];
	}
	qsort(files, n_distinct, sizeof(*files), by_place);
	*ret_files = files;
	*ret_n = n_distinct;
	return 0;
}

uint64_t flip_model_blob_size(const struct flip_model *m)
{
	CLEANUP(freep) const struct flip_model_file **files = NULL;
	uint64_t n = 0;
	size_t n_files;

	if (flip_model_contents(m, &files, &n_files) < 0)
		return flip_model_size(m);
	for (size_t i = 0; i < n_files; i++)
		n += files[i]->size;
	return n;
}

static uint32_t chunk_size_of(const struct flip_model *m, const struct flip_model_file *f)
{
	return f->n_chunks || f->size <= m->chunk_size ? m->chunk_size : PLAIN_CHUNK;
}

static void fill_content(const struct flip_model *m, const struct flip_model_file *f, uint64_t at, struct flip_toc *toc)
{
	uint32_t size = chunk_size_of(m, f);
	struct flip_toc_content *c = &toc->contents[toc->n_contents++];

	*c = (struct flip_toc_content){ .size = f->size, .first_chunk = (uint32_t)toc->n_chunks };
	memcpy(c->digest, f->sha256, 32);
	for (uint64_t offset = 0; offset < f->size; offset += size) {
		uint32_t n = f->size - offset < size ? (uint32_t)(f->size - offset) : size;
		struct flip_toc_chunk *k = &toc->chunks[toc->n_chunks++];

		*k = (struct flip_toc_chunk){ .offset = offset, .size = n, .blob_offset = at + offset, .blob_size = n };
		k->has_digest = f->n_chunks || f->size <= size;
		if (k->has_digest)
			memcpy(k->digest, f->n_chunks ? f->chunks[c->n_chunks] : f->sha256, 32);
		c->n_chunks++;
	}
}

/* By digest, to find a file's content. */
static int content_by_digest(const void *a, const void *b)
{
	return memcmp((*(const struct flip_toc_content *const *)a)->digest,
	              (*(const struct flip_toc_content *const *)b)->digest, 32);
}

static const struct flip_toc_content *find(const struct flip_toc_content *const *sorted, size_t n,
                                           const struct flip_model_file *f)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int d = memcmp(sorted[mid]->digest, f->sha256, 32);

		if (d == 0)
			return sorted[mid];
		if (d < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL; /* an empty file */
}

static int add_node(struct flip_toc *toc, const struct flip_model_file *f, const struct flip_toc_content *content,
                    struct err *err)
{
	struct img_node node = {
		.type = IMG_FILE, .mode = 0444, .size = f->size, .package = -1, .layer = -1, .user = (void *)content
	};
	struct img_node *added;
	char path[IMG_PATH_MAX + 1];

	(void)snprintf(path, sizeof(path), "/%s", f->path);
	node.path = path;
	return img_tree_add(toc->tree, &node, &added, err);
}

int flip_model_to_toc(const struct flip_model *m, struct flip_toc **ret_toc, struct err *err)
{
	CLEANUP(freep) const struct flip_model_file **contents = NULL;
	CLEANUP(freep) const struct flip_toc_content **sorted = NULL;
	struct flip_toc *toc = calloc(1, sizeof(*toc));
	size_t n = 0, n_chunks = 0;
	uint64_t at = 0;
	int r = toc && flip_model_contents(m, &contents, &n) == 0 ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (size_t i = 0; r == 0 && i < n; i++) {
		uint32_t size = chunk_size_of(m, contents[i]);

		n_chunks += (size_t)(contents[i]->size / size + (contents[i]->size % size != 0));
		if (n_chunks > UINT32_MAX / 2)
			r = err_set(err, -EFBIG, "a model of more than %u chunks", UINT32_MAX / 2);
	}
	if (r == 0) {
		toc->format = FLIP_RAW;
		toc->tree = img_tree_new();
		toc->contents = calloc(n + 1, sizeof(*toc->contents));
		toc->chunks = calloc(n_chunks + 1, sizeof(*toc->chunks));
		sorted = calloc(n + 1, sizeof(*sorted));
		r = toc->tree && toc->contents && toc->chunks && sorted ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		fill_content(m, contents[i], at, toc);
		sorted[i] = &toc->contents[i];
		at += contents[i]->size;
	}
	if (r == 0)
		qsort(sorted, n, sizeof(*sorted), content_by_digest);
	for (size_t i = 0; r == 0 && i < m->n_files; i++)
		r = add_node(toc, &m->files[i], find(sorted, n, &m->files[i]), err);
	if (r < 0) {
		flip_toc_free(toc);
		return r;
	}
	*ret_toc = toc;
	return 0;
}
