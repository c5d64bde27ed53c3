/* tar archives as streams of entries: the writer and the reader behind trees, layers and docker archives. Both know
 * ustar and pax (POSIX.1-2001); the reader also the long names of GNU tar and of old tars. */
#ifndef IMG_TAR_H
#define IMG_TAR_H

#include "tree/tree.h"

/* ---- Writing ----------------------------------------------------------------------------------------------- */

struct img_tar_out {
	img_sink sink;
	void *arg;
	uint64_t offset; /* bytes written so far */
};

/* One entry with its bytes. `link_to`: the path of the name that this one is a hard link to, else NULL. Names in the
 * archive are relative ("usr/bin/sh"), directories end in '/', the root is "./". Names of users and groups, when not
 * NULL, go beside the numbers. Sockets are left out, as tar has no type for them. */
int img_tar_write_node(struct img_tar_out *out, const struct img_node *n, const char *link_to, const char *uname,
                       const char *gname, const struct img_write_opts *o, struct err *err);
/* The same in parts, for bytes that are in no node: the headers, then n->size bytes to the sink by the caller (who adds
 * them to out->offset), then the padding. */
int img_tar_write_header(struct img_tar_out *out, const struct img_node *n, const char *link_to, const char *uname,
                         const char *gname, const struct img_write_opts *o, struct err *err);
int img_tar_write_padding(struct img_tar_out *out, struct err *err);
int img_tar_write_end(struct img_tar_out *out, struct err *err);

/* The nodes of a tree that `is_wanted` picks (NULL: all; i: their position in the order), in order, with hard links
 * after the first of their group that is wanted, and the end of the archive. */
int img_tar_write_some(struct img_tree *t, const struct img_write_opts *o,
                       bool (*is_wanted)(size_t i, const struct img_node *n, void *arg), void *wanted_arg,
                       img_sink sink, void *arg, struct err *err);

/* ---- Reading ----------------------------------------------------------------------------------------------- */

enum {
	IMG_TAR_MAX_PAX = 4 << 20, /* bytes of one extended header */
	IMG_TAR_MAX_XATTRS = 256,  /* of one entry */
	IMG_TAR_BLOCK = 512,
};

/* At most `size` bytes; 0 at the end, a negative errno with err set. */
typedef ssize_t (*img_source)(void *buf, size_t size, void *arg, struct err *err);

struct img_tar_entry {
	const char *name;     /* as it stands in the archive: not normal, not safe */
	const char *linkname; /* hard and symbolic links; else "" */
	bool is_hardlink;     /* node.type is IMG_FILE then */
	struct img_node node; /* all but path, target, source, data: type, mode, owner, times, xattrs, size, device */
	uint64_t offset;      /* of its first header in the archive */
	uint64_t data_offset; /* of its bytes */
};

/* Moves `n` bytes on without reading them; -EBADMSG when there are fewer. */
typedef int (*img_source_skip)(uint64_t n, void *arg, struct err *err);

struct img_tar_in;

/* Reads from `source`; `arg` is borrowed. */
int img_tar_in_new(img_source source, void *arg, struct img_tar_in **ret_in);
void img_tar_in_set_skip(struct img_tar_in *in, img_source_skip skip); /* of a source that can */
void img_tar_in_free(struct img_tar_in *in);

/* The next entry: 1, 0 at the end of the archive, negative: -EBADMSG for what is no tar, naming the entry. What was
 * not read of the last one is passed over. *ret_entry is valid until the next call. */
int img_tar_next(struct img_tar_in *in, const struct img_tar_entry **ret_entry, struct err *err);
/* Bytes of the current entry: 0 at its end. */
ssize_t img_tar_read(struct img_tar_in *in, void *buf, size_t size, struct err *err);

#endif
