/* The tar of a layer cut into what becomes members of the blob.
 *
 * Bytes of the tar are kept as they are: headers (extended ones included), contents, padding; only their order changes,
 * where files come first, and the landmark and the table are added. A content begins a segment of its own, in pieces of
 * chunk_bytes. What stands between two contents (padding, the headers of what follows) goes at the end of the segment
 * before it in gzip, where a member more costs 20 bytes; in zstd:chunked it is a frame of its own, because readers of
 * that format take a whole frame for the content.
 *
 * What is in front of the landmark is in the order of the source, not of the list: a single pass, and an unpacker finds
 * directories before what is in them and files before their hard links. The list itself is in the table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "feed.h"
#include "layer.h"
#include "tree/tar.h"

enum {
	MAX_TOC = 1 << 30,
	MAX_ENTRIES = 8 << 20,
	MAX_TAIL = 1 << 20, /* headers without contents between them */
	MAX_HEADERS = 2 * (IMG_TAR_MAX_PAX + (64 << 10)),
	N_LEAD = 2, /* segments of the landmark that says: nothing first */
};

#define LANDMARK "/.prefetch.landmark"
#define NO_LANDMARK "/.no.prefetch.landmark"
#define TABLE "/stargz.index.json"

struct cutter {
	const struct flip_layer_plan *plan;
	struct flip_packer *packer;
	struct flip_feed *feed;
	struct img_tar_in *tar;
	struct flip_wanted wanted;
	bool has_wanted;
	struct flip_segment *open[FLIP_N_STREAMS]; /* to which headers and padding are still added */
	unsigned last_stream;                      /* of the entry before */
	bool is_dropped;                           /* it was not taken over */
	struct base_buf headers;                   /* bytes that passed while the next header was looked for */
	bool is_recording;
	struct flip_made_entry **entries;
	size_t n_entries, cap_entries;
	uint32_t *buckets; /* number of an entry + 1, by the hash of its path */
	size_t n_buckets;
	uint64_t n_chunks;
	bool has_first; /* something that was listed went first */
	struct base_sha256 *sha;
	struct err *err;
};

static int out_of_memory(struct cutter *c)
{
	return err_set(c->err, -ENOMEM, "out of memory");
}

/* ---- Entries ---------------------------------------------------------------------------------------------------- */

static size_t hash_of(const char *path)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */

	for (; *path; path++)
		h = (h ^ (unsigned char)*path) * 0x100000001b3u;
	return (size_t)(h ^ h >> 29);
}

static struct flip_made_entry *find_entry(const struct cutter *c, const char *path)
{
	if (!c->n_buckets)
		return NULL;
	for (size_t i = hash_of(path);; i++) {
		uint32_t k = c->buckets[i & (c->n_buckets - 1)];

		if (!k)
			return NULL;
		if (strcmp(c->entries[k - 1]->path, path) == 0)
			return c->entries[k - 1];
	}
}

static void put_bucket(struct cutter *c, size_t k)
{
	size_t i = hash_of(c->entries[k]->path);

	while (c->buckets[i & (c->n_buckets - 1)])
		i++;
	c->buckets[i & (c->n_buckets - 1)] = (uint32_t)k + 1;
}

static int grow(struct cutter *c)
{
	size_t cap = c->cap_entries ? c->cap_entries * 2 : 1024;
	struct flip_made_entry **list = realloc(c->entries, cap * sizeof(*list));
	uint32_t *buckets = calloc(cap * 2, sizeof(*buckets));

	if (list)
		c->entries = list;
	if (!list || !buckets) {
		free(buckets);
		return -ENOMEM;
	}
	free(c->buckets);
	c->buckets = buckets;
	c->n_buckets = cap * 2;
	c->cap_entries = cap;
	for (size_t i = 0; i < c->n_entries; i++)
		put_bucket(c, i);
	return 0;
}

static void entry_free(struct flip_made_entry *e)
{
	if (!e)
		return;
	free(e->path);
	free(e->json);
	free(e->chunks);
	free(e);
}

/* An entry of the table for a node; hardlink: the path that it is another name of. */
static int add_entry(struct cutter *c, const struct img_node *n, const char *path, const char *hardlink,
                     unsigned stream, struct flip_made_entry **ret_entry)
{
	const struct flip_made_entry *of;
	struct flip_made_entry *e;

	if (c->n_entries >= MAX_ENTRIES || n->size / c->plan->chunk_bytes > MAX_ENTRIES)
		return err_set(c->err, -EFBIG, "%s: more entries or chunks than are taken", path);
	if (c->n_entries == c->cap_entries && grow(c) < 0)
		return out_of_memory(c);
	e = calloc(1, sizeof(*e));
	if (!e)
		return out_of_memory(c);
	e->path = strdup(path);
	e->stream = stream;
	e->is_dir = n->type == IMG_DIR;
	e->size = n->type == IMG_FILE && !hardlink ? n->size : 0;
	of = hardlink ? find_entry(c, hardlink) : NULL;
	e->content_size = of ? of->content_size : e->size;
	e->n_chunks = (uint32_t)((e->size + c->plan->chunk_bytes - 1) / c->plan->chunk_bytes);
	e->chunks = calloc(e->n_chunks + 1, sizeof(*e->chunks));
	if (!e->path || !e->chunks || flip_entry_json(n, path, hardlink, &e->json) < 0) {
		entry_free(e);
		return out_of_memory(c);
	}
	c->entries[c->n_entries] = e;
	put_bucket(c, c->n_entries++);
	c->n_chunks += e->n_chunks;
	*ret_entry = e;
	return 0;
}

/* ---- Segments --------------------------------------------------------------------------------------------------- */

static struct flip_segment *segment_new(unsigned stream, size_t cap)
{
	struct flip_segment *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->stream = stream;
	s->cap = cap;
	s->raw = malloc(cap);
	if (!s->raw) {
		free(s);
		return NULL;
	}
	return s;
}

static int push(struct cutter *c, unsigned stream)
{
	struct flip_segment *s = c->open[stream];

	c->open[stream] = NULL;
	return s ? flip_packer_push(c->packer, s, c->err) : 0;
}

/* Headers and padding to the end of what is open. */
static int add_tail(struct cutter *c, unsigned stream, const void *data, size_t n)
{
	struct flip_segment *s = c->open[stream];
	int r;

	if (!n)
		return 0;
	if (s && s->n + n > MAX_TAIL + (s->chunk ? s->chunk->size : 0)) {
		r = push(c, stream);
		if (r < 0)
			return r;
		s = NULL;
	}
	if (!s) {
		s = c->open[stream] = segment_new(stream, n < 4096 ? 4096 : n);
		if (!s)
			return out_of_memory(c);
	}
	if (s->n + n > s->cap) {
		size_t cap = s->n + n + (s->n < 65536 ? 4096 : s->n / 4);
		uint8_t *raw = realloc(s->raw, cap);

		if (!raw)
			return out_of_memory(c);
		s->raw = raw;
		s->cap = cap;
	}
	memcpy(s->raw + s->n, data, n);
	s->n += n;
	return 0;
}

/* A segment for chunk i of an entry, open and empty. */
static int begin_chunk(struct cutter *c, struct flip_made_entry *e, uint32_t i)
{
	uint64_t left = e->size - (uint64_t)i * c->plan->chunk_bytes;
	uint32_t size = left < c->plan->chunk_bytes ? (uint32_t)left : c->plan->chunk_bytes;
	/* Room for the padding and the next headers. */
	struct flip_segment *s;
	int r = push(c, e->stream);

	if (r < 0)
		return r;
	s = c->open[e->stream] = segment_new(e->stream, size + 2048);
	if (!s)
		return out_of_memory(c);
	e->chunks[i].size = size;
	s->chunk = &e->chunks[i];
	return 0;
}

/* The content of the entry at hand. */
static int cut_content(struct cutter *c, struct flip_made_entry *e)
{
	int r;

	for (uint32_t i = 0; i < e->n_chunks; i++) {
		struct flip_segment *s;

		r = begin_chunk(c, e, i);
		if (r < 0)
			return r;
		s = c->open[e->stream];
		while (s->n < s->chunk->size) {
			ssize_t n = img_tar_read(c->tar, s->raw + s->n, s->chunk->size - s->n, c->err);

			if (n < 0)
				return (int)n;
			if (n == 0)
				return err_set(c->err, -EBADMSG, "%s: cut short", e->path);
			s->n += (size_t)n;
		}
		if (e->n_chunks > 1)
			base_sha256_update(c->sha, s->raw, s->n);
	}
	if (e->n_chunks > 1)
		base_sha256_final(c->sha, e->digest);
	return c->plan->format == FLIP_ZSTD_CHUNKED ? push(c, e->stream) : 0;
}

/* ---- Entries that are ours ---- */

static int to_buf(const void *data, size_t size, void *arg, struct err *err)
{
	(void)err;
	return base_buf_append(arg, data, size);
}

/* One byte, as the format wants it; content and value are the same in all images. */
static int add_landmark(struct cutter *c, const char *path, unsigned stream)
{
	static const char padding[IMG_TAR_BLOCK - 1];
	struct base_buf b = BASE_BUF_INIT(64 << 10);
	struct img_tar_out out = { to_buf, &b, 0 };
	struct img_node n = { .path = path, .type = IMG_FILE, .mode = 0444, .size = 1 };
	struct img_write_opts o = { .clamp_mtime = -1, .numeric_only = true };
	struct flip_made_entry *e;
	int r = add_entry(c, &n, path, NULL, stream, &e);

	if (r == 0)
		r = img_tar_write_header(&out, &n, NULL, NULL, NULL, &o, c->err);
	if (r == 0)
		r = base_buf_error(&b) ? out_of_memory(c) : add_tail(c, stream, b.data, b.len);
	base_buf_done(&b);
	if (r == 0)
		r = begin_chunk(c, e, 0);
	if (r < 0)
		return r;
	c->open[stream]->raw[c->open[stream]->n++] = 0x0f;
	if (c->plan->format == FLIP_ZSTD_CHUNKED)
		r = push(c, stream);
	if (r == 0)
		r = add_tail(c, stream, padding, sizeof(padding));
	return r == 0 ? push(c, stream) : r;
}

/* ---- Entries of the source ---- */

/* Everything that is read passes here; what is not content is kept. */
static ssize_t read_feed(void *buf, size_t size, void *arg, struct err *err)
{
	struct cutter *c = arg;
	ssize_t n = flip_feed_read(buf, size, c->feed, err);

	if (n > 0 && c->is_recording && base_buf_append(&c->headers, buf, (size_t)n) < 0)
		return err_set(err, -EBADMSG, "headers larger than are taken");
	return n;
}

/* First or not; with a hard link goes what it is a name of, else it stays. */
static unsigned stream_of(struct cutter *c, const struct img_tar_entry *te, const char *path, const char *target)
{
	const struct flip_wanted_path *w = c->has_wanted ? flip_wanted_find(&c->wanted, path) : NULL;
	const struct flip_made_entry *to;

	if (!w || (!w->is_file && te->node.type == IMG_FILE))
		return FLIP_REST;
	if (te->is_hardlink) {
		to = find_entry(c, target);
		if (!to || to->stream != FLIP_FIRST)
			return FLIP_REST;
	}
	return FLIP_FIRST;
}

static bool is_ours(const char *path)
{
	return strcmp(path, LANDMARK) == 0 || strcmp(path, NO_LANDMARK) == 0 || strcmp(path, TABLE) == 0;
}

/* Padding of the entry before, then the headers of this one. */
static int keep_headers(struct cutter *c, size_t n_before, unsigned stream)
{
	int r = c->is_dropped ? 0 : add_tail(c, c->last_stream, c->headers.data, n_before);

	return r < 0 ? r : add_tail(c, stream, c->headers.data + n_before, c->headers.len - n_before);
}

static int take_old_directory(struct cutter *c, struct flip_made_entry *e, const struct img_node *n)
{
	char *json;

	if (!e->is_dir || n->type != IMG_DIR)
		return err_set(c->err, -EBADMSG, "%s: comes twice", e->path);
	if (flip_entry_json(n, e->path, NULL, &json) < 0)
		return out_of_memory(c);
	free(e->json); /* who unpacks it sees the later one */
	e->json = json;
	return 0;
}

/* What an earlier conversion added; its content passes by without being kept. */
static int drop_entry(struct cutter *c, size_t n_before)
{
	int r = c->is_dropped ? 0 : add_tail(c, c->last_stream, c->headers.data, n_before);
	char buf[16 << 10];
	ssize_t n = r;

	c->is_dropped = true;
	while (r == 0 && (n = img_tar_read(c->tar, buf, sizeof(buf), c->err)) > 0)
		continue;
	return (int)n;
}

static int take_entry(struct cutter *c, const struct img_tar_entry *te, size_t n_before)
{
	char path[IMG_PATH_MAX], target[IMG_PATH_MAX] = "";
	struct flip_made_entry *e;
	struct img_node n = te->node;
	unsigned stream;
	int r = img_path_normalize(te->name, path);

	if (r == 0 && te->is_hardlink)
		r = img_path_normalize(te->linkname, target);
	if (r < 0)
		return err_set(c->err, -EBADMSG, "%s: its name or what it links to leads out of the layer", te->name);
	if (is_ours(path))
		return drop_entry(c, n_before);
	n.target = (char *)te->linkname;
	e = find_entry(c, path);
	if (e) {
		stream = e->stream;
		r = take_old_directory(c, e, &n);
	} else {
		stream = stream_of(c, te, path, target);
		r = add_entry(c, &n, path, te->is_hardlink ? target : NULL, stream, &e);
	}
	if (r == 0)
		r = keep_headers(c, n_before, stream);
	c->last_stream = stream;
	c->is_dropped = false;
	c->has_first = c->has_first || stream == FLIP_FIRST;
	return r < 0 ? r : cut_content(c, e);
}

static int cut(struct cutter *c)
{
	uint64_t end_of_last = 0; /* of its content */

	for (;;) {
		const struct img_tar_entry *te;
		size_t n_before;
		int r;

		base_buf_reset(&c->headers);
		c->is_recording = true;
		r = img_tar_next(c->tar, &te, c->err);
		c->is_recording = false;
		if (r < 0)
			return r;
		if (r == 0) { /* padding, then the zeros at the end, which are ours to write */
			n_before = (size_t)(-end_of_last % IMG_TAR_BLOCK);
			return c->is_dropped || n_before > c->headers.len
			               ? 0
			               : add_tail(c, c->last_stream, c->headers.data, n_before);
		}
		n_before = (size_t)(te->offset - end_of_last);
		if (n_before > c->headers.len)
			return err_set(c->err, -EBADMSG, "%s: headers that cannot be followed", te->name);
		r = take_entry(c, te, n_before);
		if (r < 0)
			return r;
		end_of_last = te->data_offset + te->node.size;
	}
}

/* ---- The whole ---- */

/* In the order of the blob: first, landmark, rest. */
static struct flip_made_entry **order_entries(const struct cutter *c, size_t *ret_n)
{
	struct flip_made_entry **list = malloc((c->n_entries + 1) * sizeof(struct flip_made_entry *));
	size_t n = 0;

	for (unsigned s = 0; list && s < FLIP_N_STREAMS; s++) {
		for (size_t i = 0; i < c->n_entries; i++) {
			if (c->entries[i]->stream == s &&
			    !(c->has_first && strcmp(c->entries[i]->path, NO_LANDMARK) == 0))
				list[n++] = c->entries[i];
		}
	}
	*ret_n = n;
	return list;
}

/* What is written must be what our own reader takes. */
static int check_table(const struct cutter *c, const struct base_buf *toc, uint64_t blob_size)
{
	struct flip_toc *parsed = NULL;
	int r = flip_toc_parse(c->plan->format, toc->data, toc->len, blob_size, "the layer", &parsed, c->err);

	flip_toc_free(parsed);
	return r;
}

static int write_table(struct cutter *c, const uint64_t base[FLIP_N_STREAMS], struct flip_layer_made *made)
{
	struct base_buf toc = BASE_BUF_INIT(MAX_TOC);
	size_t n = 0;
	CLEANUP(freep) struct flip_made_entry **entries = order_entries(c, &n);
	uint64_t end = 1;
	int r = 0;

	for (size_t i = 0; entries && i < n; i++) {
		for (uint32_t k = 0; k < entries[i]->n_chunks; k++) {
			struct flip_made_chunk *chunk = &entries[i]->chunks[k];

			chunk->offset += base[entries[i]->stream];
			end = chunk->offset + chunk->packed > end ? chunk->offset + chunk->packed : end;
		}
	}
	if (!entries || flip_toc_append(entries, n, c->plan->format, c->plan->chunk_bytes, c->plan->prefetch, &toc) < 0)
		r = out_of_memory(c);
	if (r == 0)
		r = check_table(c, &toc, end);
	if (r == 0)
		r = flip_packer_finish(c->packer, &toc, made, c->err);
	base_buf_done(&toc);
	return r;
}

static int convert(struct cutter *c, struct flip_layer_made *made)
{
	uint64_t base[FLIP_N_STREAMS];
	int r = add_landmark(c, NO_LANDMARK, FLIP_REST);

	if (r == 0)
		r = cut(c);
	if (r == 0)
		r = flip_feed_finish(c->feed, made->source_digest, c->err);
	if (r == 0 && c->has_first)
		r = add_landmark(c, LANDMARK, FLIP_FIRST);
	for (unsigned s = 0; r == 0 && s < FLIP_N_STREAMS; s++)
		r = push(c, s);
	/* zstd:chunked pushed the landmark's padding as a frame more. */
	if (r == 0)
		r = flip_packer_join(c->packer, N_LEAD + (c->plan->format == FLIP_ZSTD_CHUNKED), base, c->err);
	made->n_chunks = c->n_chunks;
	made->source_is_plain = flip_feed_is_plain(c->feed);
	return r < 0 ? r : write_table(c, base, made);
}

static void cutter_done(struct cutter *c)
{
	/* The packer's threads write to the chunks of entries: it goes first. */
	flip_packer_free(c->packer);
	for (unsigned s = 0; s < FLIP_N_STREAMS; s++)
		flip_segment_free(c->open[s] ? &c->open[s]->item : NULL);
	for (size_t i = 0; i < c->n_entries; i++)
		entry_free(c->entries[i]);
	free(c->entries);
	free(c->buckets);
	img_tar_in_free(c->tar);
	flip_feed_close(c->feed);
	flip_wanted_done(&c->wanted);
	base_buf_done(&c->headers);
	base_sha256_free(c->sha);
}

int flip_layer_convert(const struct flip_layer_plan *plan, struct flip_layer_made *made, struct err *err)
{
	struct cutter c = { .plan = plan, .err = err, .is_dropped = true };
	int r = 0;

	*made = (struct flip_layer_made){ .file = { .fd = -1 } };
	base_buf_init(&c.headers, MAX_HEADERS);
	if (plan->prefetch && flip_wanted_init(&c.wanted, plan->prefetch) < 0)
		r = out_of_memory(&c);
	c.has_wanted = c.wanted.n > 0;
	if (r == 0 && base_sha256_new(&c.sha) < 0)
		r = out_of_memory(&c);
	if (r == 0)
		r = flip_feed_open(plan->blob, plan->meter, &c.feed, err);
	if (r == 0 && img_tar_in_new(read_feed, &c, &c.tar) < 0)
		r = out_of_memory(&c);
	if (r == 0)
		r = flip_packer_new(plan, &c.packer, err);
	if (r == 0)
		r = convert(&c, made);
	cutter_done(&c);
	return r < 0 ? err_prefix(err, r, "layer %s: ", plan->label) : 0;
}
