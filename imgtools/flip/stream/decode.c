/* gzip: RFC 1952 by ISA-L's inflate, which checks each member's CRC and length. zstd: RFC 8878 by libzstd, skippable
 * frames are passed over by the library itself. */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "stream/decode.h"

enum { IN_SIZE = 256 << 10 };

enum kind { KIND_UNKNOWN, KIND_PLAIN, KIND_GZIP, KIND_ZSTD };

struct flip_decoder {
	flip_source source;
	void *arg;
	enum kind kind;
	bool source_ended;
	bool is_inside; /* a member or frame has begun and not ended */
	uint64_t n_consumed;
	size_t at, n; /* bytes of `in` that are not decoded yet: [at, n) */
	struct inflate_state *gzip;
	ZSTD_DStream *zstd;
	uint8_t in[IN_SIZE];
};

int flip_decoder_new(flip_source source, void *arg, struct flip_decoder **ret_decoder, struct err *err)
{
	struct flip_decoder *d = malloc(sizeof(*d));

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	memset(d, 0, offsetof(struct flip_decoder, in));
	d->source = source;
	d->arg = arg;
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

static int begin(struct flip_decoder *d, struct err *err)
{
	int r = 1;

	while (r > 0 && d->n < 4)
		r = refill(d, err);
	if (r < 0)
		return r;
	if (d->n >= 2 && d->in[0] == 0x1f && d->in[1] == 0x8b) {
		d->kind = KIND_GZIP;
		d->gzip = malloc(sizeof(*d->gzip));
		if (!d->gzip)
			return err_set(err, -ENOMEM, "out of memory");
	} else if (d->n >= 4 && d->in[1] == 0xb5 && d->in[2] == 0x2f && d->in[3] == 0xfd && d->in[0] == 0x28) {
		d->kind = KIND_ZSTD;
	} else if (d->n >= 4 && (d->in[0] & 0xf0) == 0x50 && d->in[1] == 0x2a && d->in[2] == 0x4d && d->in[3] == 0x18) {
		d->kind = KIND_ZSTD; /* begins with a skippable frame */
	} else {
		d->kind = KIND_PLAIN;
	}
	if (d->kind == KIND_ZSTD && !(d->zstd = ZSTD_createDStream()))
		return err_set(err, -ENOMEM, "out of memory");
	return 0;
}

static ssize_t read_gzip(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	size_t want = size < UINT32_MAX ? size : UINT32_MAX;

	for (;;) {
		int r;

		if (d->at == d->n) {
			r = refill(d, err);
			if (r < 0)
				return r;
			if (r == 0 && d->is_inside)
				return err_set(err, -EBADMSG, "the gzip stream ends too early");
			if (r == 0)
				return 0;
		}
		if (!d->is_inside) {
			/* Zeros behind the last member are padding, as of tapes. */
			while (d->at < d->n && d->in[d->at] == 0)
				d->at++;
			if (d->at == d->n)
				continue;
			isal_inflate_init(d->gzip);
			d->gzip->crc_flag = ISAL_GZIP;
			d->is_inside = true;
		}
		d->gzip->next_in = d->in + d->at;
		d->gzip->avail_in = (uint32_t)(d->n - d->at);
		d->gzip->next_out = buf;
		d->gzip->avail_out = (uint32_t)want;
		r = isal_inflate(d->gzip);
		d->at = d->n - d->gzip->avail_in;
		if (r != ISAL_DECOMP_OK)
			return err_set(err, -EBADMSG, "the gzip stream is damaged (%d)", r);
		if (d->gzip->block_state == ISAL_BLOCK_FINISH)
			d->is_inside = false;
		if (d->gzip->avail_out < want)
			return (ssize_t)(want - d->gzip->avail_out);
	}
}

static ssize_t read_zstd(struct flip_decoder *d, void *buf, size_t size, struct err *err)
{
	ZSTD_outBuffer out = { buf, size, 0 };

	for (;;) {
		ZSTD_inBuffer in = { d->in, d->n, d->at };
		size_t r;

		if (d->at == d->n) {
			int k = refill(d, err);

			if (k < 0)
				return k;
			if (k == 0 && d->is_inside)
				return err_set(err, -EBADMSG, "the zstd stream ends too early");
			if (k == 0)
				return 0;
			in = (ZSTD_inBuffer){ d->in, d->n, d->at };
		}
		r = ZSTD_decompressStream(d->zstd, &out, &in);
		if (ZSTD_isError(r))
			return err_set(err, -EBADMSG, "the zstd stream is damaged: %s", ZSTD_getErrorName(r));
		d->at = in.pos;
		d->is_inside = r != 0;
		if (out.pos)
			return (ssize_t)out.pos;
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
	if (d->kind == KIND_UNKNOWN) {
		int r = begin(d, err);

		if (r < 0)
			return r;
	}
	if (!size)
		return 0;
	return d->kind == KIND_GZIP   ? read_gzip(d, buf, size, err)
	       : d->kind == KIND_ZSTD ? read_zstd(d, buf, size, err)
	                              : read_plain(d, buf, size, err);
}
