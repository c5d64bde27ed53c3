/* gzip: RFC 1952 by ISA-L's inflate, which checks each member's CRC and length. zstd: RFC 8878 by libzstd, skippable
 * frames are passed over by the library itself. */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "stream/decode.h"

enum { IN_SIZE = 256 << 10, MAX_RATIO = 40000, MAX_STEP = 1 << 30 };
static const uint64_t ratio_matters_from = 1u << 30; /* bytes out */

enum kind { KIND_PLAIN, KIND_GZIP, KIND_ZSTD };

struct flip_decoder {
	flip_source source;
	void *arg;
	enum kind kind;
	bool source_ended;
	bool is_inside; /* a member or frame has begun and not ended */
	uint64_t n_consumed, n_produced;
	size_t at, n; /* bytes of `in` that are not decoded yet: [at, n) */
	struct inflate_state *gzip;
	ZSTD_DStream *zstd;
	uint8_t in[IN_SIZE];
};

/* More input behind what is left. 1, 0 at the end. */
static int refill(struct flip_decoder *d, struct err *err)
{
	ssize_t n;

	if (d->source_ended)
		return 0;
	if (d->at) {
		memmove(d->in, d->in + d->at, d->n - d->at);
		d->n -= d->at;
		d->at = 0;
	}
	n = d->source(d->arg, d->in + d->n, IN_SIZE - d->n, err);
	if (n < 0)
		return (int)n;
	d->source_ended = n == 0;
	d->n += (size_t)n;
	d->n_consumed += (uint64_t)n;
	return n > 0;
}

static bool begins_with(const struct flip_decoder *d, const char *magic, size_t n)
{
	return d->n >= n && memcmp(d->in, magic, n) == 0;
}

static int begin(struct flip_decoder *d, struct err *err)
{
	int r = 1;

	while (r > 0 && d->n < 6)
		r = refill(d, err);
	if (r < 0)
		return r;
	if (begins_with(d, "\x1f\x8b", 2)) {
		d->kind = KIND_GZIP;
		d->gzip = malloc(sizeof(*d->gzip));
		if (!d->gzip)
			return err_set(err, -ENOMEM, "out of memory");
	} else if (begins_with(d, "\x28\xb5\x2f\xfd", 4) ||
	           (d->n >= 4 && (d->in[0] & 0xf0) == 0x50 && memcmp(d->in + 1, "\x2a\x4d\x18", 3) == 0)) {
		d->kind = KIND_ZSTD; /* the second begins with a skippable frame */
		d->zstd = ZSTD_createDStream();
		if (!d->zstd)
			return err_set(err, -ENOMEM, "out of memory");
	} else if (begins_with(d, "\xfd\x37zXZ", 6) || begins_with(d, "BZh", 3)) {
		return err_set(err, -ENOTSUP, "compressed by xz or bzip2, which image layers are not");
	} else {
		d->kind = KIND_PLAIN;
	}
	return 0;
}

/* One step: what is there of the input into what fits of the output, either of which may be nothing. Decoders may hold
 * output back while all input is taken, so a step without input is a step, too. */
static ssize_t step_gzip(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	int r;

	if (!d->is_inside) {
		/* Zeros behind the last member are padding, as of tapes. */
		while (d->at < d->n && d->in[d->at] == 0)
			d->at++;
		if (d->at == d->n)
			return 0;
		isal_inflate_init(d->gzip);
		d->gzip->crc_flag = ISAL_GZIP;
		d->is_inside = true;
	}
	d->gzip->next_in = d->in + d->at;
	d->gzip->avail_in = (uint32_t)(d->n - d->at);
	d->gzip->next_out = buf;
	d->gzip->avail_out = (uint32_t)size;
	r = isal_inflate(d->gzip);
	d->at = d->n - d->gzip->avail_in;
	if (r != ISAL_DECOMP_OK)
		return err_set(err, -EBADMSG, "gzip: damaged data (%d)", r);
	if (d->gzip->block_state == ISAL_BLOCK_FINISH)
		d->is_inside = false;
	return (ssize_t)(size - d->gzip->avail_out);
}

static ssize_t step_zstd(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	ZSTD_outBuffer out = { buf, size, 0 };
	ZSTD_inBuffer in = { d->in, d->n, d->at };
	size_t r = ZSTD_decompressStream(d->zstd, &out, &in);

	if (ZSTD_isError(r))
		return err_set(err, -EBADMSG, "zstd: %s", ZSTD_getErrorName(r));
	d->at = in.pos;
	d->is_inside = r != 0;
	return (ssize_t)out.pos;
}

static ssize_t read_packed(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	for (;;) {
		ssize_t n = 0;
		int r;

		if (d->at < d->n || d->is_inside)
			n = d->kind == KIND_GZIP ? step_gzip(d, buf, size, err) : step_zstd(d, buf, size, err);
		if (n != 0)
			return n;
		if (d->at < d->n)
			continue;
		r = refill(d, err);
		if (r < 0)
			return r;
		if (r == 0 && d->is_inside)
			return err_set(err, -EBADMSG, "the compressed data end too early");
		if (r == 0)
			return 0;
	}
}

static ssize_t read_plain(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	size_t n;

	if (d->at == d->n) {
		int r = refill(d, err);

		if (r <= 0)
			return r;
	}
	n = d->n - d->at < size ? d->n - d->at : size;
	memcpy(buf, d->in + d->at, n);
	d->at += n;
	return (ssize_t)n;
}

ssize_t flip_decoder_read(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	ssize_t n;

	if (!size)
		return 0;
	if (size > MAX_STEP)
		size = MAX_STEP;
	n = d->kind == KIND_PLAIN ? read_plain(d, buf, size, err) : read_packed(d, buf, size, err);
	if (n > 0)
		d->n_produced += (uint64_t)n;
	if (d->n_produced > ratio_matters_from && d->n_produced / MAX_RATIO > d->n_consumed)
		return err_set(err, -EFBIG, "%llu bytes out of %llu: no layer is packed so well",
		               (unsigned long long)d->n_produced, (unsigned long long)d->n_consumed);
	return n;
}

bool flip_decoder_is_plain(const struct flip_decoder *d)
{
	return d->kind == KIND_PLAIN;
}

int flip_decoder_new(flip_source source, void *arg, struct flip_decoder **ret_decoder, struct err *err)
{
	struct flip_decoder *d = malloc(sizeof(*d));
	int r;

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	memset(d, 0, offsetof(struct flip_decoder, in));
	d->source = source;
	d->arg = arg;
	r = begin(d, err);
	if (r < 0) {
		flip_decoder_free(d);
		return r;
	}
	*ret_decoder = d;
	return 0;
}

void flip_decoder_free(struct flip_decoder *d)
{
	if (!d)
		return;
	free(d->gzip);
	(void)ZSTD_freeDStream(d->zstd);
	free(d);
}

uint64_t flip_decoder_consumed(const struct flip_decoder *d)
{
	return d->n_consumed;
}
