/* gzip members and zstd frames decoded within bounds. What a chunk needs is often only the beginning of its member, as
 * the headers of the files behind it follow in the same one; so decoding stops where enough is there, and checksums of
 * the formats, which stand at the end, are not looked at: the SHA-256 of the chunk decides.
 *
 * Decoders are large (some 100 KiB of tables) and are kept per thread. */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "lazy_internal.h"

enum {
	SCRATCH_SIZE = 64 << 10,
	WINDOW_LOG_MAX = 26, /* memory that a frame may ask for: 64 MiB; compressors of layers use at most 8 */
	FIRST_GUESS = 6,     /* times as long as packed */
};

struct decoders {
	struct inflate_state *gzip;
	ZSTD_DCtx *zstd;
	uint8_t scratch[SCRATCH_SIZE];
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has_key;

static void decoders_free(void *p)
{
	struct decoders *d = p;

	if (!d)
		return;
	ZSTD_freeDCtx(d->zstd);
	free(d->gzip);
	free(d);
}

static void make_key(void)
{
	has_key = pthread_key_create(&key, decoders_free) == 0;
}

/* This thread's. */
static struct decoders *decoders_get(void)
{
	struct decoders *d;

	(void)pthread_once(&once, make_key);
	if (!has_key)
		return NULL;
	d = pthread_getspecific(key);
	if (d)
		return d;
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->gzip = malloc(sizeof(*d->gzip));
	d->zstd = ZSTD_createDCtx();
	if (!d->gzip || !d->zstd || pthread_setspecific(key, d) != 0) {
		decoders_free(d);
		return NULL;
	}
	(void)ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
	return d;
}

/* One stream being decoded from memory. */
struct unpacker {
	enum flip_format format;
	struct decoders *d;
	ZSTD_inBuffer in;
	bool at_end;
};

static int unpacker_init(struct unpacker *u, enum flip_format format, const void *data, size_t size)
{
	*u = (struct unpacker){ .format = format, .d = decoders_get(), .in = { data, size, 0 } };
	if (!u->d)
		return -ENOMEM;
	if (size > UINT32_MAX)
		return -EFBIG;
	if (format == FLIP_ZSTD_CHUNKED) {
		(void)ZSTD_DCtx_reset(u->d->zstd, ZSTD_reset_session_only);
	} else {
		isal_inflate_init(u->d->gzip);
		u->d->gzip->crc_flag = ISAL_GZIP;
		u->d->gzip->next_in = (uint8_t *)(uintptr_t)data; /* igzip only reads it */
		u->d->gzip->avail_in = (uint32_t)size;
	}
	return 0;
}

static int step_gzip(struct unpacker *u, uint8_t *out, size_t n_out, size_t *ret_n)
{
	struct inflate_state *g = u->d->gzip;
	uint32_t n = n_out > 1u << 30 ? 1u << 30 : (uint32_t)n_out;

	g->next_out = out;
	g->avail_out = n;
	if (isal_inflate(g) != ISAL_DECOMP_OK)
		return -EBADMSG;
	u->at_end = g->block_state == ISAL_BLOCK_FINISH;
	*ret_n = n - g->avail_out;
	return 0;
}

static int step_zstd(struct unpacker *u, uint8_t *out, size_t n_out, size_t *ret_n)
{
	ZSTD_outBuffer o = { out, n_out, 0 };
	size_t r = ZSTD_decompressStream(u->d->zstd, &o, &u->in);

	if (ZSTD_isError(r))
		return -EBADMSG;
	u->at_end = r == 0;
	*ret_n = o.pos;
	return 0;
}

/* As many bytes as fit; fewer only at the end. */
static int unpacker_read(struct unpacker *u, void *out, size_t n_out, size_t *ret_n)
{
	size_t done = 0, n;
	int r;

	while (done < n_out && !u->at_end) {
		r = u->format == FLIP_ZSTD_CHUNKED ? step_zstd(u, (uint8_t *)out + done, n_out - done, &n)
		                                   : step_gzip(u, (uint8_t *)out + done, n_out - done, &n);
		if (r < 0)
			return r;
		if (n == 0 && !u->at_end)
			return -EBADMSG; /* more is wanted than there is */
		done += n;
	}
	*ret_n = done;
	return 0;
}

int flip_unpack_all(enum flip_format format, const void *data, size_t size, size_t max, char **ret_data,
                    size_t *ret_size)
{
	CLEANUP(freep) char *buf = NULL;
	size_t cap = 0, len = 0, n;
	struct unpacker u;
	int r = unpacker_init(&u, format, data, size);

	if (r < 0)
		return r;
	while (!u.at_end) {
		if (len == cap) {
			char *p;

			if (cap > max)
				return -EFBIG;
			cap = cap ? cap * 2 : size < max / FIRST_GUESS ? size * FIRST_GUESS + SCRATCH_SIZE : max + 1;
			cap = cap > max + 1 ? max + 1 : cap;
			p = realloc(buf, cap);
			if (!p)
				return -ENOMEM;
			buf = p;
		}
		r = unpacker_read(&u, buf + len, cap - len, &n);
		if (r < 0)
			return r;
		len += n;
	}
	if (len > max)
		return -EFBIG;
	*ret_data = buf;
	*ret_size = len;
	buf = NULL;
	return 0;
}

int flip_unpack_part(enum flip_format format, const void *data, size_t size, uint64_t skip, void *out, size_t n_out)
{
	struct unpacker u;
	size_t n;
	int r = unpacker_init(&u, format, data, size);

	while (r == 0 && skip) {
		size_t want = skip < SCRATCH_SIZE ? (size_t)skip : SCRATCH_SIZE;

		r = unpacker_read(&u, u.d->scratch, want, &n);
		if (r == 0 && n < want)
			r = -EBADMSG;
		skip -= want;
	}
	if (r < 0)
		return r;
	r = unpacker_read(&u, out, n_out, &n);
	return r < 0 ? r : n < n_out ? -EBADMSG : 0;
}
