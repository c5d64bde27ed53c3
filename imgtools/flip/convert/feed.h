/* A stored layer as the bytes of its tar: read, hashed and decompressed by a thread of its own, a few blocks ahead of
 * who takes them. */
#ifndef FLIP_FEED_H
#define FLIP_FEED_H

#include "oci/places.h"

struct flip_feed;

/* The blob is borrowed. The meter (may be NULL) is told of packed bytes. */
int flip_feed_open(const struct img_blob *blob, struct img_meter *meter, struct flip_feed **ret_feed, struct err *err);
/* Like read(): what there is, 0 at the end. */
ssize_t flip_feed_read(void *buf, size_t size, void *feed, struct err *err); /* an img_source */
bool flip_feed_is_plain(const struct flip_feed *f);                          /* stored as it is */
/* Passes over the rest and gives the digest of what was stored. */
int flip_feed_finish(struct flip_feed *f, char ret_digest[IMG_DIGEST_SIZE], struct err *err);
void flip_feed_close(struct flip_feed *f);

#endif
