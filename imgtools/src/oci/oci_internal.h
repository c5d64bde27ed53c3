/* What the files of this room share beyond oci/places.h: layers being decoded and encoded. */
#ifndef IMG_OCI_INTERNAL_H
#define IMG_OCI_INTERNAL_H

#include <stdatomic.h>

#include "oci/places.h"

/* ---- Layers in (decoder.c, layer_in.c, apply.c) ---- */

struct img_decoder;
/* gzip, zstd or a plain tar, told by its first bytes. The blob is borrowed. */
int img_decoder_open(const struct img_blob *b, uint32_t max_ratio, struct img_meter *meter, struct img_decoder **ret,
                     struct err *err);
ssize_t img_decoder_read(struct img_decoder *d, void *buf, size_t size, struct err *err);
/* Reads what is left and gives the digests of what was stored and of what came out. */
int img_decoder_finish(struct img_decoder *d, char ret_digest[IMG_DIGEST_SIZE], char ret_diff_id[IMG_DIGEST_SIZE],
                       uint64_t *ret_unpacked, struct err *err);
void img_decoder_close(struct img_decoder *d);

/* A decoder read by a thread of its own, some blocks ahead (read_ahead.c). From start to stop nothing else may use it.
 */
struct img_ahead;
int img_ahead_start(struct img_decoder *d, struct img_ahead **ret, struct err *err);
ssize_t img_ahead_read(struct img_ahead *a, void *buf, size_t size, struct err *err);
void img_ahead_stop(struct img_ahead *a); /* NULL does nothing */

enum img_entry_kind { IMG_ENTRY_NODE, IMG_ENTRY_HARDLINK, IMG_ENTRY_WHITEOUT, IMG_ENTRY_OPAQUE };

struct img_layer_entry {
	enum img_entry_kind kind;
	struct img_node node; /* its path too is owned here */
	char *link_to;        /* hard links: path of the other name */
};

struct img_layer_entries {
	struct img_layer_entry *list;
	size_t n, cap;
};

struct img_layer_job {
	struct img_blob blob;
	const char *label; /* for errors */
	const char *dir;   /* folder for the bytes; NULL: they are passed over */
	const struct img_limits *limits;
	_Atomic uint64_t *n_bytes; /* of all layers so far */
	struct img_meter *meter;
	bool reads_ahead;                                       /* by a second thread */
	char digest[IMG_DIGEST_SIZE], diff_id[IMG_DIGEST_SIZE]; /* found */
	uint64_t unpacked_size;
};

int img_layer_decode(struct img_layer_job *job, struct img_layer_entries *ret_entries, struct err *err);
void img_layer_entries_done(struct img_layer_entries *e);
/* Puts a layer on top of what is in the tree: its whiteouts first, then its entries. `next_group` numbers link groups
 * across layers and starts at 1. */
int img_layer_apply(struct img_tree *t, const struct img_layer_entries *e, int32_t layer, const char *label,
                    uint32_t *next_group, struct err *err);

/* ---- Images out (encoder.c, image_out.c, dest_*.c)
 * --------------------------------------------------------------------- */

struct img_encoder;
int img_encoder_new(int fd, enum img_compression c, int level, unsigned n_threads, struct img_encoder **ret,
                    struct err *err);
int img_encoder_sink(const void *data, size_t size, void *encoder, struct err *err);         /* an img_sink */
int img_encoder_finish(struct img_encoder *e, struct img_layer *ret_layer, struct err *err); /* digests and sizes */
void img_encoder_free(struct img_encoder *e);

/* A descriptor of the manifest for an index: tag NULL for none. NULL for a tag that is no text. */
json_t *img_manifest_descriptor(const char *digest, size_t size, const struct img_config *c, const char *tag);
const char *img_layer_media_type(enum img_compression c);

#endif
