/* A compressed stream decoded as it comes: gzip (by ISA-L, some three times zlib's speed), zstd, or neither; told by
 * its first bytes. Several members or frames one behind the other are one stream. */
#ifndef FLIP_DECODE_H
#define FLIP_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* At most `size` bytes; 0 at the end, a negative errno with err set. */
typedef ssize_t (*flip_source)(void *arg, void *buf, size_t size, struct err *err);

struct flip_decoder;

/* Reads the first bytes. -ENOTSUP for what no image layer is. */
int flip_decoder_new(flip_source source, void *arg, struct flip_decoder **ret_decoder, struct err *err);
void flip_decoder_free(struct flip_decoder *d);
/* Decoded bytes: 0 at the end; -EBADMSG for what is damaged or ends too early, -EFBIG for a bomb. */
ssize_t flip_decoder_read(struct flip_decoder *d, void *buf, size_t size, struct err *err);
bool flip_decoder_is_plain(const struct flip_decoder *d);
uint64_t flip_decoder_consumed(const struct flip_decoder *d); /* bytes taken from the source so far */

#endif
