/* Segments compressed side by side and written in order.
 *
 * Two streams are written at once, as files come in the order of the source: what goes before the landmark and the
 * rest. Hashes of the rest are taken as if nothing were first, which is what most layers are like; the moment something
 * is first that is given up, and in the end the rest is copied behind it, decoded again to be hashed (on all cores,
 * about a tenth of what compressing costs). So a layer is read once, and never lies anywhere uncompressed. */
#include <errno.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "lazy/lazy_internal.h"
#include "layer.h"
#include "tree/tar.h"

enum { OUT_SIZE = 256 << 10, ZSTD_HEADER = 8, ZSTD_FOOTER = 40, TAR_END = 1024 };

/* A file being written, with the hashes of what is in it. */
struct stream {
	struct img_temp file;
	char *buf;
	size_t n_buf;
	uint64_t n_packed, n_raw;
	struct base_sha256 *packed, *raw; /* NULL: given up */
};

/* What is where in the rest, in case it is to be copied. */
struct placed {
	uint32_t n_packed, n_raw;
};

struct flip_packer {
	const struct flip_layer_plan *plan;
	struct flip_line *line;
	struct stream streams[FLIP_N_STREAMS];
	struct placed *placed; /* of the rest; the taker's */
	size_t n_placed, cap_placed;
	struct stream *out; /* the one that is the layer in the end */
};

struct worker {
	struct libdeflate_compressor *gzip;
	ZSTD_CCtx *zstd;
};

void flip_segment_free(struct flip_line_item *item)
{
	struct flip_segment *s = (struct flip_segment *)item;

	if (!s)
		return;
	free(s->raw);
	free(s->packed);
	free(s);
}

/* ---- Files ---- */

static int stream_open(struct flip_packer *p, struct stream *s, struct err *err)
{
	s->buf = malloc(OUT_SIZE);
	if (!s->buf || base_sha256_new(&s->packed) < 0 || base_sha256_new(&s->raw) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	return img_temp_open(p->plan->temp_dir, &s->file, err);
}

static void forget_hashes(struct stream *s)
{
	base_sha256_free(s->packed);
	base_sha256_free(s->raw);
	s->packed = s->raw = NULL;
}

static void stream_done(struct stream *s)
{
	forget_hashes(s);
	free(s->buf);
	img_temp_drop(&s->file);
}

static int stream_flush(struct stream *s, struct err *err)
{
	int r = img_write_all(s->file.fd, s->buf, s->n_buf, err);

	s->n_buf = 0;
	return r;
}

static int stream_write(struct stream *s, const void *packed, size_t n_packed, const void *raw, size_t n_raw,
                        struct err *err)
{
	int r = 0;

	if (s->packed) {
		base_sha256_update(s->packed, packed, n_packed);
		base_sha256_update(s->raw, raw, n_raw);
	}
	s->n_packed += n_packed;
	s->n_raw += n_raw;
	if (s->n_buf + n_packed > OUT_SIZE)
		r = stream_flush(s, err);
	if (r < 0)
		return r;
	if (n_packed > OUT_SIZE)
		return img_write_all(s->file.fd, packed, n_packed, err);
	memcpy(s->buf + s->n_buf, packed, n_packed);
	s->n_buf += n_packed;
	return 0;
}

/* ---- The line ---- */

static void worker_free(void *arg)
{
	struct worker *w = arg;

	if (w->gzip)
		libdeflate_free_compressor(w->gzip);
	(void)ZSTD_freeCCtx(w->zstd);
	free(w);
}

static void *worker_new(void *arg)
{
	const struct flip_layer_plan *plan = ((struct flip_packer *)arg)->plan;
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	if (plan->format == FLIP_ESTARGZ) {
		w->gzip = libdeflate_alloc_compressor(plan->level);
	} else {
		w->zstd = ZSTD_createCCtx();
		if (w->zstd)
			(void)ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, plan->level);
	}
	if (!w->gzip && !w->zstd) {
		worker_free(w);
		return NULL;
	}
	return w;
}

/* One member or frame; *ret_packed is the caller's. */
static int compress(struct worker *w, const void *raw, size_t n, uint8_t **ret_packed, size_t *ret_n)
{
	size_t bound = w->gzip ? libdeflate_gzip_compress_bound(w->gzip, n) : ZSTD_compressBound(n);
	uint8_t *packed = malloc(bound);
	size_t size;

	if (!packed)
		return -ENOMEM;
	size = w->gzip ? libdeflate_gzip_compress(w->gzip, raw, n, packed, bound)
	               : ZSTD_compress2(w->zstd, packed, bound, raw, n);
	if (size == 0 || (w->zstd && ZSTD_isError(size))) {
		free(packed);
		return -ENOMEM; /* the only way to fail with room enough */
	}
	*ret_packed = packed;
	*ret_n = size;
	return 0;
}

static int work(void *arg, void *worker, struct flip_line_item *item, struct err *err)
{
	struct flip_segment *s = (struct flip_segment *)item;
	int r = 0;

	(void)arg;
	if (s->chunk)
		r = base_sha256_bytes(s->raw, s->chunk->size, s->chunk->digest);
	if (r == 0)
		r = compress(worker, s->raw, s->n, &s->packed, &s->n_packed);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

static int note_place(struct flip_packer *p, const struct flip_segment *s)
{
	if (p->n_placed == p->cap_placed) {
		size_t cap = p->cap_placed ? p->cap_placed * 2 : 1024;
		struct placed *list = realloc(p->placed, cap * sizeof(*list));

		if (!list)
			return -ENOMEM;
		p->placed = list;
		p->cap_placed = cap;
	}
	p->placed[p->n_placed++] = (struct placed){ (uint32_t)s->n_packed, (uint32_t)s->n };
	return 0;
}

static int take(void *arg, struct flip_line_item *item, struct err *err)
{
	struct flip_segment *s = (struct flip_segment *)item;
	struct flip_packer *p = arg;
	struct stream *out = &p->streams[s->stream];
	int r = 0;

	if (s->stream == FLIP_FIRST && !out->buf) {
		r = stream_open(p, out, err);
		forget_hashes(&p->streams[FLIP_REST]);
	} else if (s->stream == FLIP_REST && note_place(p, s) < 0) {
		r = err_set(err, -ENOMEM, "out of memory");
	}
	if (r < 0)
		return r;
	if (s->chunk) {
		s->chunk->offset = out->n_packed;
		s->chunk->packed = (uint32_t)s->n_packed;
	}
	return stream_write(out, s->packed, s->n_packed, s->raw, s->n, err);
}

static const struct flip_line_ops pack_ops = { worker_new, worker_free, work, take, flip_segment_free };

int flip_packer_new(const struct flip_layer_plan *plan, struct flip_packer **ret_packer, struct err *err)
{
	struct flip_packer *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->plan = plan;
	for (size_t i = 0; i < FLIP_N_STREAMS; i++)
		p->streams[i].file.fd = -1;
	r = stream_open(p, &p->streams[FLIP_REST], err);
	if (r == 0)
		r = flip_line_new(&pack_ops, p, plan->n_workers, plan->max_memory, &p->line, err);
	if (r < 0) {
		flip_packer_free(p);
		return r;
	}
	*ret_packer = p;
	return 0;
}

void flip_packer_free(struct flip_packer *p)
{
	if (!p)
		return;
	(void)flip_line_finish(p->line, NULL);
	for (size_t i = 0; i < FLIP_N_STREAMS; i++)
		stream_done(&p->streams[i]);
	free(p->placed);
	free(p);
}

int flip_packer_push(struct flip_packer *p, struct flip_segment *s, struct err *err)
{
	/* What it takes now and, at most, packed. */
	return flip_line_push(p->line, &s->item, sizeof(*s) + s->cap + s->n + s->n / 8 + 1024, err);
}

/* ---- Joining ---- */

static void *no_state(void *arg)
{
	return arg;
}

static void keep_state(void *worker)
{
	(void)worker;
}

static int unpack(void *arg, void *worker, struct flip_line_item *item, struct err *err)
{
	struct flip_segment *s = (struct flip_segment *)item;
	struct flip_packer *p = arg;

	(void)worker;
	if (flip_unpack_part(p->plan->format, s->packed, s->n_packed, 0, s->raw, s->n) < 0)
		return err_set(err, -EIO, "what was packed cannot be unpacked again");
	return 0;
}

static int append(void *arg, struct flip_line_item *item, struct err *err)
{
	struct flip_segment *s = (struct flip_segment *)item;
	struct flip_packer *p = arg;

	return stream_write(&p->streams[FLIP_FIRST], s->packed, s->n_packed, s->raw, s->n, err);
}

static const struct flip_line_ops join_ops = { no_state, keep_state, unpack, append, flip_segment_free };

static int read_back(int fd, void *data, size_t size, uint64_t offset, struct err *err)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)data + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_set(err, n < 0 ? -errno : -EIO, "cannot read back what was written");
		done += (size_t)n;
	}
	return 0;
}

static struct flip_segment *segment_for(const struct placed *place)
{
	struct flip_segment *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->n = place->n_raw;
	s->n_packed = place->n_packed;
	s->raw = malloc(s->n ? s->n : 1);
	s->packed = malloc(s->n_packed);
	if (!s->raw || !s->packed) {
		flip_segment_free(&s->item);
		return NULL;
	}
	return s;
}

/* The rest, from its segment n_lead on, behind what is first. */
static int append_rest(struct flip_packer *p, size_t n_lead, uint64_t offset, struct err *err)
{
	struct flip_line *line = NULL;
	int r = flip_line_new(&join_ops, p, p->plan->n_workers, p->plan->max_memory, &line, err), r2;

	for (size_t i = n_lead; r == 0 && i < p->n_placed; i++) {
		struct flip_segment *s = segment_for(&p->placed[i]);

		if (!s) {
			r = err_set(err, -ENOMEM, "out of memory");
			break;
		}
		r = read_back(p->streams[FLIP_REST].file.fd, s->packed, s->n_packed, offset, err);
		offset += s->n_packed;
		if (r < 0)
			flip_segment_free(&s->item);
		else
			r = flip_line_push(line, &s->item, sizeof(*s) + s->n + s->n_packed, err);
	}
	r2 = flip_line_finish(line, err);
	return r < 0 ? r : r2;
}

int flip_packer_join(struct flip_packer *p, size_t n_lead, uint64_t ret_base[FLIP_N_STREAMS], struct err *err)
{
	struct stream *first = &p->streams[FLIP_FIRST], *rest = &p->streams[FLIP_REST];
	uint64_t lead = 0;
	int r = flip_line_finish(p->line, err);

	p->line = NULL;
	if (r < 0)
		return r;
	p->out = first->buf ? first : rest;
	ret_base[FLIP_FIRST] = ret_base[FLIP_REST] = 0;
	if (p->out == rest)
		return 0;
	for (size_t i = 0; i < n_lead; i++)
		lead += p->placed[i].n_packed;
	ret_base[FLIP_REST] = first->n_packed - lead; /* may wrap; the sum does not */
	r = stream_flush(rest, err);
	if (r == 0)
		r = append_rest(p, n_lead, lead, err);
	stream_done(rest);
	*rest = (struct stream){ .file = { .fd = -1 } };
	return r;
}

/* ---- Table and footer ---- */

static int to_buf(const void *data, size_t size, void *arg, struct err *err)
{
	(void)err;
	return base_buf_append(arg, data, size);
}

/* The last entry of the tar, the end of the tar, and the member whose extra field says where they are. */
static int finish_estargz(struct flip_packer *p, const struct base_buf *toc, struct worker *w, struct err *err)
{
	struct base_buf tar = BASE_BUF_INIT(toc->len + (64 << 10));
	struct img_tar_out out = { to_buf, &tar, 0 };
	struct img_node n = { .path = "/stargz.index.json", .type = IMG_FILE, .mode = 0444, .size = toc->len };
	struct img_write_opts o = { .clamp_mtime = -1, .numeric_only = true };
	uint64_t at = p->out->n_packed;
	char footer[52] = "\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16";
	uint8_t *packed = NULL;
	size_t n_packed = 0;
	int r = img_tar_write_header(&out, &n, NULL, NULL, NULL, &o, err);

	(void)base_buf_append(&tar, toc->data, toc->len);
	out.offset += toc->len;
	if (r == 0)
		r = img_tar_write_padding(&out, err);
	if (r == 0)
		r = img_tar_write_end(&out, err);
	if (r == 0 && (base_buf_error(&tar) || compress(w, tar.data, tar.len, &packed, &n_packed) < 0))
		r = err_set(err, -ENOMEM, "out of memory");
	if (r == 0)
		r = stream_write(p->out, packed, n_packed, tar.data, tar.len, err);
	base_buf_done(&tar);
	free(packed);
	(void)snprintf(footer + 16, sizeof(footer) - 16, "%016llxSTARGZ", (unsigned long long)at);
	memcpy(footer + 38, "\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
	return r < 0 ? r : stream_write(p->out, footer, 51, NULL, 0, err);
}

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static void put_skippable(uint8_t *p, size_t size)
{
	put_le(p, 0x184d2a50, 4);
	put_le(p + 4, size, 4);
}

/* The end of the tar as a frame of its own; then what decoders pass over: the packed table, and where it is. */
static int finish_zstd(struct flip_packer *p, const struct base_buf *toc, struct worker *w,
                       struct flip_layer_made *made, struct err *err)
{
	static const uint8_t zeros[TAR_END];
	uint8_t head[ZSTD_HEADER], footer[ZSTD_HEADER + ZSTD_FOOTER], *packed = NULL;
	size_t n_packed = 0;
	uint64_t at;
	int r = compress(w, zeros, sizeof(zeros), &packed, &n_packed);

	r = r < 0 ? err_set(err, r, "out of memory")
	          : stream_write(p->out, packed, n_packed, zeros, sizeof(zeros), err);
	free(packed);
	packed = NULL;
	if (r == 0 && compress(w, toc->data, toc->len, &packed, &n_packed) < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r < 0)
		return r;
	img_digest_of(packed, n_packed, made->checksum);
	put_skippable(head, n_packed);
	r = stream_write(p->out, head, sizeof(head), NULL, 0, err);
	at = p->out->n_packed;
	if (r == 0)
		r = stream_write(p->out, packed, n_packed, NULL, 0, err);
	free(packed);
	(void)snprintf(made->position, sizeof(made->position), "%llu:%zu:%zu:1", (unsigned long long)at, n_packed,
	               toc->len);
	put_skippable(footer, ZSTD_FOOTER);
	put_le(footer + 8, at, 8);
	put_le(footer + 16, n_packed, 8);
	put_le(footer + 24, toc->len, 8);
	put_le(footer + 32, 1, 8);
	memcpy(footer + 40, "GnUlInUx", 8);
	return r < 0 ? r : stream_write(p->out, footer, sizeof(footer), NULL, 0, err);
}

int flip_packer_finish(struct flip_packer *p, const struct base_buf *toc, struct flip_layer_made *made, struct err *err)
{
	struct worker *w = worker_new(p);
	uint8_t digest[BASE_SHA256_SIZE];
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	r = p->plan->format == FLIP_ESTARGZ ? finish_estargz(p, toc, w, err) : finish_zstd(p, toc, w, made, err);
	worker_free(w);
	if (r == 0)
		r = stream_flush(p->out, err);
	if (r < 0)
		return r;
	base_sha256_final(p->out->packed, digest);
	img_digest_set(made->digest, digest);
	base_sha256_final(p->out->raw, digest);
	img_digest_set(made->diff_id, digest);
	img_digest_of(toc->data, toc->len, made->toc_digest);
	made->size = p->out->n_packed;
	made->unpacked_size = p->out->n_raw;
	made->file = p->out->file;
	p->out->file = (struct img_temp){ .fd = -1 };
	return 0;
}
