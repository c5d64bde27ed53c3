/* A table of contents as a document: entries into a tree, their chunks into one array.
 *
 * Two dialects of one format: eStargz (stargz-snapshotter, docs/estargz.md) and zstd:chunked (containers/storage,
 * pkg/chunked/toc). What a file's first entry says ("reg") is followed by a "chunk" for each further chunk. A member's
 * end stands nowhere in eStargz: it is where the next one begins; zstd:chunked (and we, in both) adds "endOffset" for
 * the end of a file's last chunk.
 *
 * Nothing in it is believed: paths must be normal and come once, chunks must fill their file from 0 to its size and lie
 * in the blob without sharing bytes. */
#include "lazy/toc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "toc_internal.h"

enum {
	MAX_ENTRIES = 8 << 20,      /* chunks included */
	MAX_CHUNK = 1 << 30,        /* bytes of one chunk: it must fit into memory */
	MAX_MEMBER = 1 << 30,       /* of what must be fetched for it */
	MAX_INNER_OFFSET = 1 << 30, /* of a chunk in its member */
};

static char explicit_mark; /* node->user of what an entry stood for, while parsing */

int flip_toc_bad(const struct flip_toc_parser *p, struct err *err, const char *field, const char *what)
{
	const struct flip_toc_entry *e = &p->entry;

	if (!p->n_entries)
		return err_set(err, -EBADMSG, "%s: table of contents: %s: %s", p->where, field, what);
	return err_set(err, -EBADMSG, "%s: table of contents: entry %zu (%s): %s: %s", p->where, p->n_entries - 1,
	               e->has_name ? e->name : "no name", field, what);
}

static int no_memory(const struct flip_toc_parser *p, struct err *err)
{
	return err_set(err, -ENOMEM, "%s: table of contents: out of memory", p->where);
}

/* ---- Files and their chunks ------------------------------------------------------------------------------------ */

static int add_raw_chunk(struct flip_toc_parser *p, const struct flip_raw_chunk *c, struct err *err)
{
	if (p->n_chunks == p->cap_chunks) {
		size_t cap = p->cap_chunks ? p->cap_chunks * 2 : 256;
		struct flip_raw_chunk *chunks = realloc(p->chunks, cap * sizeof(*chunks));

		if (!chunks)
			return no_memory(p, err);
		p->chunks = chunks;
		p->cap_chunks = cap;
	}
	p->chunks[p->n_chunks++] = *c;
	return 0;
}

/* The chunk that the entry at hand stands for, of the file that is being read. */
static int take_chunk(struct flip_toc_parser *p, struct err *err)
{
	const struct flip_toc_entry *e = &p->entry;
	struct flip_raw_chunk c = { .end = e->end_offset };
	uint64_t left = p->file_size - p->file_done, size = e->chunk_size;

	if (e->chunk_offset != p->file_done)
		return flip_toc_bad(p, err, "chunkOffset",
		                    "chunks do not follow each other from the beginning of the file");
	if (left == 0)
		return flip_toc_bad(p, err, "chunkOffset", "a chunk behind the end of the file");
	if (size == 0)
		size = left;
	if (size > left)
		return flip_toc_bad(p, err, "chunkSize", "the chunk goes beyond the end of the file");
	if (size > MAX_CHUNK)
		return flip_toc_bad(p, err, "chunkSize", "a chunk larger than is taken");
	if (e->offset >= p->blob_size)
		return flip_toc_bad(p, err, "offset", "outside the blob");
	if (e->inner_offset > MAX_INNER_OFFSET)
		return flip_toc_bad(p, err, "innerOffset", "larger than is taken");
	if (e->end_offset && (e->end_offset <= e->offset || e->end_offset > p->blob_size))
		return flip_toc_bad(p, err, "endOffset", "not behind the chunk, or outside the blob");
	c.c.offset = e->chunk_offset;
	c.c.size = (uint32_t)size;
	c.c.blob_offset = e->offset;
	c.c.inner_offset = e->inner_offset;
	c.c.has_digest = e->has_chunk_digest;
	memcpy(c.c.digest, e->chunk_digest, sizeof(c.c.digest));
	p->file_done += size;
	return add_raw_chunk(p, &c, err);
}

/* All chunks of the file at hand have been read: it becomes a content. */
static int finish_file(struct flip_toc_parser *p, struct err *err)
{
	struct flip_raw_content *c;
	size_t n = p->n_chunks - p->file_first;

	if (!p->file)
		return 0;
	if (p->file_done != p->file_size)
		return err_set(err, -EBADMSG, "%s: table of contents: %s: its chunks have %llu bytes, its size is %llu",
		               p->where, p->file->path, (unsigned long long)p->file_done,
		               (unsigned long long)p->file_size);
	if (p->n_contents == p->cap_contents) {
		size_t cap = p->cap_contents ? p->cap_contents * 2 : 256;
		struct flip_raw_content *list = realloc(p->contents, cap * sizeof(*list));

		if (!list)
			return no_memory(p, err);
		p->contents = list;
		p->cap_contents = cap;
	}
	c = &p->contents[p->n_contents++];
	*c = (struct flip_raw_content){ .node = p->file };
	c->c.size = p->file_size;
	c->c.first_chunk = (uint32_t)p->file_first;
	c->c.n_chunks = (uint32_t)n;
	memcpy(c->c.digest, p->file_digest, sizeof(c->c.digest));
	if (n == 1 && !p->chunks[p->file_first].c.has_digest) {
		struct flip_toc_chunk *only = &p->chunks[p->file_first].c;

		memcpy(only->digest, c->c.digest, sizeof(only->digest));
		only->has_digest = true;
	}
	p->file = NULL;
	return 0;
}

/* The file of one byte that ends what the maker of the layer wanted fetched first. It is no content of the image. */
static bool take_landmark(struct flip_toc_parser *p, const char *path)
{
	if (strcmp(path, "/" FLIP_LANDMARK) != 0 && strcmp(path, "/" FLIP_NO_LANDMARK) != 0)
		return false;
	if (strcmp(path, "/" FLIP_LANDMARK) == 0 && p->entry.offset < p->blob_size)
		p->prefetch_end = p->entry.offset;
	return true;
}

static int begin_file(struct flip_toc_parser *p, struct img_node *node, struct err *err)
{
	const struct flip_toc_entry *e = &p->entry;

	if (e->size == 0 || take_landmark(p, node->path))
		return 0;
	if (!e->has_digest)
		return flip_toc_bad(p, err, "digest", "missing: the content cannot be named");
	p->file = node;
	p->file_size = e->size;
	p->file_done = 0;
	p->file_first = p->n_chunks;
	memcpy(p->file_digest, e->digest, sizeof(p->file_digest));
	return take_chunk(p, err);
}

/* ---- Nodes ------------------------------------------------------------------------------------------------------- */

static int type_of(const char *type, enum img_type *ret)
{
	static const struct {
		const char *name;
		enum img_type type;
	} types[] = { { "reg", IMG_FILE },    { "dir", IMG_DIR },   { "symlink", IMG_SYMLINK }, { "char", IMG_CHAR },
		      { "block", IMG_BLOCK }, { "fifo", IMG_FIFO }, { "hardlink", IMG_FILE } };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (strcmp(types[i].name, type) == 0) {
			*ret = types[i].type;
			return 0;
		}
	}
	return -EBADMSG;
}

static int add_node(struct flip_toc_parser *p, const struct img_node *n, struct img_node **ret_node, struct err *err)
{
	struct img_node *old = img_tree_find(p->tree, n->path);
	struct err why = { 0 };
	int r;

	if (old && (old->user || old->type != IMG_DIR || n->type != IMG_DIR))
		return flip_toc_bad(p, err, "name", "comes twice, or stands where a directory is");
	r = img_tree_add(p->tree, n, ret_node, &why);
	if (r == -ENOMEM)
		return no_memory(p, err);
	if (r < 0)
		return flip_toc_bad(p, err, "name", err_text(&why));
	return 0;
}

static int add_link(struct flip_toc_parser *p, const char *path, struct err *err)
{
	char target[IMG_PATH_MAX];
	struct img_node *of, copy, *node;
	struct flip_raw_link *links;
	int r;

	if (img_path_normalize(p->entry.link, target) < 0)
		return flip_toc_bad(p, err, "linkName", "not a path within the layer");
	of = img_tree_find(p->tree, target);
	if (!of || !of->user || of->type == IMG_DIR)
		return flip_toc_bad(p, err, "linkName", "names no file that came before");
	if (of->type == IMG_FILE && !of->link_group)
		of->link_group = ++p->last_group;
	copy = *of;
	copy.path = path;
	r = add_node(p, &copy, &node, err);
	if (r < 0 || of->type != IMG_FILE)
		return r;
	if ((p->n_links & (p->n_links - 1)) == 0) {
		links = realloc(p->links, (p->n_links ? p->n_links * 2 : 1) * sizeof(*links));
		if (!links)
			return no_memory(p, err);
		p->links = links;
	}
	p->links[p->n_links++] = (struct flip_raw_link){ node, of };
	return 0;
}

static int take_node(struct flip_toc_parser *p, struct err *err)
{
	struct flip_toc_entry *e = &p->entry;
	char path[IMG_PATH_MAX];
	struct img_node n = { .path = path,
		              .mode = e->mode & 07777,
		              .uid = e->uid,
		              .gid = e->gid,
		              .size = e->size,
		              .mtime_s = e->mtime_s,
		              .mtime_ns = e->mtime_ns,
		              .major = e->major,
		              .minor = e->minor,
		              .xattrs = e->xattrs,
		              .n_xattrs = e->n_xattrs,
		              .package = -1,
		              .layer = -1,
		              .user = &explicit_mark },
	                *node;
	int r;

	if (type_of(e->type, &n.type) < 0)
		return flip_toc_bad(p, err, "type", "not one that is known");
	if (!e->has_name || img_path_normalize(e->name, path) < 0)
		return flip_toc_bad(p, err, "name", "not a path within the layer");
	if (strcmp(e->type, "hardlink") == 0)
		return add_link(p, path, err);
	if (n.type == IMG_SYMLINK) {
		if (!e->link[0])
			return flip_toc_bad(p, err, "linkName", "missing");
		n.target = e->link;
	}
	r = add_node(p, &n, &node, err);
	return r < 0 || n.type != IMG_FILE ? r : begin_file(p, node, err);
}

int flip_toc_take_entry(struct flip_toc_parser *p, struct err *err)
{
	int r;

	if (p->n_entries > MAX_ENTRIES)
		return flip_toc_bad(p, err, "entries", "more than are taken");
	if (strcmp(p->entry.type, "chunk") == 0) {
		/* The landmark and empty files have no chunks beyond their own entry. */
		if (!p->file)
			return flip_toc_bad(p, err, "type", "a chunk of no file");
		return take_chunk(p, err);
	}
	r = finish_file(p, err);
	return r < 0 ? r : take_node(p, err);
}

/* ---- The whole ---- */

struct place {
	uint64_t offset, inner;
	uint32_t chunk;
};

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->inner < y->inner ? -1 : x->inner > y->inner;
}

/* Members end where the next begins. Also shows whether two chunks share bytes. */
static int find_member_ends(struct flip_toc_parser *p, struct err *err)
{
	CLEANUP(freep) struct place *places = malloc((p->n_chunks + 1) * sizeof(*places));
	uint64_t next = p->blob_size;

	if (!places)
		return no_memory(p, err);
	for (size_t i = 0; i < p->n_chunks; i++) {
		const struct flip_toc_chunk *c = &p->chunks[i].c;

		places[i] = (struct place){ c->blob_offset, c->inner_offset, (uint32_t)i };
	}
	if (p->n_chunks)
		qsort(places, p->n_chunks, sizeof(*places), compare_places);
	for (size_t i = p->n_chunks; i-- > 0;) {
		struct flip_raw_chunk *c = &p->chunks[places[i].chunk];
		uint64_t end;

		if (i + 1 < p->n_chunks && places[i + 1].offset == places[i].offset) {
			if (places[i].inner + c->c.size > places[i + 1].inner)
				return err_set(err, -EBADMSG,
				               "%s: table of contents: offset: two chunks have the same bytes at %llu",
				               p->where, (unsigned long long)c->c.blob_offset);
		} else if (i + 1 < p->n_chunks) {
			next = places[i + 1].offset;
		}
		end = c->end && c->end < next ? c->end : next;
		/* The landmark's member stands alone, and what is before it may be asked for as a whole. */
		if (p->prefetch_end > c->c.blob_offset && p->prefetch_end < end)
			end = p->prefetch_end;
		if (end - c->c.blob_offset > MAX_MEMBER)
			return err_set(err, -EBADMSG,
			               "%s: table of contents: offset: the member at %llu is larger than is taken",
			               p->where, (unsigned long long)c->c.blob_offset);
		c->c.blob_size = (uint32_t)(end - c->c.blob_offset);
	}
	return 0;
}

static int compare_contents(const void *a, const void *b)
{
	const struct flip_raw_content *x = *(const struct flip_raw_content *const *)a,
	                              *y = *(const struct flip_raw_content *const *)b;
	int c = memcmp(x->c.digest, y->c.digest, sizeof(x->c.digest));

	return c ? c : x < y ? -1 : x > y;
}

/* Contents that come several times are kept once, with the chunks of the first. Their order stays that of the table. */
static int unite_contents(struct flip_toc_parser *p, struct err *err)
{
	CLEANUP(freep) struct flip_raw_content **sorted = malloc((p->n_contents + 1) * sizeof(*sorted));

	if (!sorted)
		return no_memory(p, err);
	for (size_t i = 0; i < p->n_contents; i++) {
		sorted[i] = &p->contents[i];
		p->contents[i].same_as = i;
	}
	if (p->n_contents)
		qsort(sorted, p->n_contents, sizeof(*sorted), compare_contents);
	for (size_t i = 1; i < p->n_contents; i++) {
		struct flip_raw_content *a = sorted[i - 1], *b = sorted[i];

		if (memcmp(a->c.digest, b->c.digest, sizeof(a->c.digest)) != 0)
			continue;
		if (a->c.size != b->c.size)
			return err_set(err, -EBADMSG,
			               "%s: table of contents: %s and %s: digest: the same, but their sizes differ",
			               p->where, a->node->path, b->node->path);
		b->same_as = a->same_as;
	}
	return 0;
}

/* The arrays in their final form. */
static int fill(struct flip_toc_parser *p, struct flip_toc *toc, struct err *err)
{
	size_t n = 0, n_chunks = 0;

	toc->contents = calloc(p->n_contents + 1, sizeof(*toc->contents));
	toc->chunks = calloc(p->n_chunks + 1, sizeof(*toc->chunks));
	if (!toc->contents || !toc->chunks)
		return no_memory(p, err);
	for (size_t i = 0; i < p->n_contents; i++) {
		struct flip_raw_content *c = &p->contents[i];

		if (c->same_as == i) {
			toc->contents[n] = c->c;
			toc->contents[n].first_chunk = (uint32_t)n_chunks;
			for (size_t k = 0; k < c->c.n_chunks; k++)
				toc->chunks[n_chunks++] = p->chunks[c->c.first_chunk + k].c;
			c->place = n++;
		}
		c->node->user = &toc->contents[p->contents[c->same_as].place];
	}
	toc->n_contents = n;
	toc->n_chunks = n_chunks;
	return 0;
}

/* Marks go; links get what they are links to. */
static int set_users(struct flip_toc_parser *p, struct err *err)
{
	for (size_t i = 0; i < p->n_links; i++)
		p->links[i].node->user = p->links[i].of->user;
	for (size_t i = 0; i < img_tree_count(p->tree); i++) {
		struct img_node *n = img_tree_at(p->tree, i);

		if (!n)
			return no_memory(p, err);
		if (n->user == &explicit_mark)
			n->user = NULL;
	}
	return 0;
}

/* Paths and ranges of our own list into numbers of chunks, each once. Paths that are not there are passed over. */
static int fill_prefetch(const struct flip_toc_parser *p, struct flip_toc *toc, struct err *err)
{
	CLEANUP(freep) bool *seen = NULL;

	if (!p->prefetch.n)
		return 0;
	seen = calloc(toc->n_chunks + 1, sizeof(*seen));
	toc->prefetch = calloc(toc->n_chunks + 1, sizeof(*toc->prefetch));
	if (!seen || !toc->prefetch)
		return no_memory(p, err);
	for (size_t i = 0; i < p->prefetch.n; i++) {
		const struct flip_prefetch_item *it = &p->prefetch.items[i];
		const struct img_node *n = img_tree_find(toc->tree, it->path);
		const struct flip_toc_content *c = n && n->type == IMG_FILE ? n->user : NULL;

		for (size_t k = 0; c && k < c->n_chunks; k++) {
			const struct flip_toc_chunk *chunk = &toc->chunks[c->first_chunk + k];

			if (chunk->offset + chunk->size <= it->offset || seen[c->first_chunk + k])
				continue;
			if (it->size != UINT64_MAX && chunk->offset >= it->offset + it->size)
				break;
			seen[c->first_chunk + k] = true;
			toc->prefetch[toc->n_prefetch++] = c->first_chunk + (uint32_t)k;
		}
	}
	return 0;
}

static int finish(struct flip_toc_parser *p, struct flip_toc *toc, struct err *err)
{
	int r = finish_file(p, err);

	if (r == 0)
		r = find_member_ends(p, err);
	if (r == 0)
		r = unite_contents(p, err);
	if (r == 0)
		r = fill(p, toc, err);
	if (r == 0)
		r = set_users(p, err);
	if (r < 0)
		return r;
	toc->tree = p->tree;
	p->tree = NULL;
	toc->prefetch_end = p->prefetch_end;
	return fill_prefetch(p, toc, err);
}

static void parser_done(struct flip_toc_parser *p)
{
	flip_toc_entry_reset(&p->entry);
	img_tree_free(p->tree);
	free(p->chunks);
	free(p->contents);
	free(p->links);
	flip_prefetch_done(&p->prefetch);
	flip_json_done(&p->json);
}

int flip_toc_parse(enum flip_format format, const void *json, size_t size, uint64_t blob_size, const char *where,
                   struct flip_toc **ret_toc, struct err *err)
{
	struct flip_toc_parser *p = calloc(1, sizeof(*p)); /* holds buffers for paths: too large for a stack */
	struct flip_toc *toc = calloc(1, sizeof(*toc));
	int r = -ENOMEM;

	if (p && toc) {
		p->where = where;
		p->blob_size = blob_size;
		p->tree = img_tree_new();
		flip_json_init(&p->json, json, size);
		toc->format = format;
	}
	if (!p || !toc || !p->tree || base_sha256_bytes(json, size, toc->toc_digest) < 0)
		r = err_set(err, r, "%s: table of contents: out of memory", where);
	else
		r = flip_toc_document(p, err);
	if (r == 0)
		r = finish(p, toc, err);
	if (p)
		parser_done(p);
	free(p);
	if (r < 0) {
		flip_toc_free(toc);
		return r;
	}
	*ret_toc = toc;
	return 0;
}

void flip_toc_free(struct flip_toc *toc)
{
	if (!toc)
		return;
	img_tree_free(toc->tree);
	free(toc->contents);
	free(toc->chunks);
	free(toc->prefetch);
	free(toc);
}
