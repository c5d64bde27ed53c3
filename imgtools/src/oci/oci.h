/* Images: read from where they are kept into a tree and a configuration, and written from them.
 *
 * An image has a name that says where it is:
 *   oci:DIR[:TAG]              an OCI image layout; no TAG when the index names only one image
 *   oci-archive:FILE[:TAG]     the same in a tar
 *   docker-archive:FILE[:REF]  what `docker save` writes and `docker load` reads
 *   docker://HOST/NAME[:TAG|@sha256:...]   a registry
 *
 * Nothing in an image is believed: digests and sizes are verified, entries that would leave the root, that go through a
 * symbolic link, that come twice or that are devices of the host end in an error that names the layer and the entry,
 * and while layers are decoded their bytes lie in files of our own naming. */
#ifndef IMG_OCI_H
#define IMG_OCI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "tree/tree.h"

enum { IMG_DIGEST_SIZE = 72 /* "sha256:", 64 hexadecimal digits, the NUL */ };

/* ---- Configuration ------------------------------------------------------------------------------------------- */

struct img_strings {
	char **items;
	size_t n;
};

struct img_label {
	char *name, *value;
};

struct img_history {
	char *created, *created_by, *author, *comment; /* NULL: not given */
	bool empty_layer;
};

/* What an image says of itself. NULL or empty: not given. All owned by the struct. */
struct img_config {
	char *created; /* RFC 3339 */
	char *author;
	char *arch, *os, *variant;
	char *user, *workdir, *stop_signal;
	struct img_strings env; /* "NAME=value" */
	struct img_strings entrypoint, cmd;
	struct img_strings exposed_ports, volumes; /* "80/tcp"; "/data" */
	struct img_label *labels;                  /* sorted by name */
	size_t n_labels;
	struct img_history *history;
	size_t n_history;
	struct img_strings diff_ids; /* digests of the layers uncompressed, lowest first */
	json_t *document;            /* as it was read; what is written is this with the fields above put into it */
};

struct img_config *img_config_new(void); /* this machine's architecture, linux; NULL when out of memory */
void img_config_free(struct img_config *c);
struct img_config *img_config_copy(const struct img_config *c); /* NULL when out of memory */
/* `where` names the document in errors. Refuses with -EBADMSG and the field. */
int img_config_parse(const void *data, size_t size, const char *where, struct img_config **ret_config, struct err *err);
int img_config_append(const struct img_config *c, struct base_buf *buf); /* JSON, unknown fields kept; same, same */

int img_strings_add(struct img_strings *s, const char *text); /* copies; -ENOMEM */
void img_strings_done(struct img_strings *s);
int img_config_set_label(struct img_config *c, const char *name, const char *value); /* replaces; NULL removes */
/* The value of NAME in env, borrowed; NULL: not there. */
const char *img_config_env(const struct img_config *c, const char *name);

/* ---- Reading --------------------------------------------------------------------------------------------------- */

struct img_layer {
	char digest[IMG_DIGEST_SIZE];  /* as it is stored; "" in a docker-archive */
	char diff_id[IMG_DIGEST_SIZE]; /* uncompressed */
	char *media_type;              /* may be NULL */
	uint64_t size;                 /* stored */
	uint64_t unpacked_size;        /* of the tar */
	char *created_by;              /* from the history; may be NULL */
};

struct img_image {
	char *name; /* as it was asked for */
	struct img_tree *tree;
	struct img_config *config;
	struct img_layer *layers; /* lowest first; node->layer is an index into it */
	size_t n_layers;
	char manifest_digest[IMG_DIGEST_SIZE]; /* "" in a docker-archive */
	char *work_dir;                        /* the bytes of the tree's files are below it */
	bool owns_work_dir;                    /* was made by img_image_open() and goes with img_image_close() */
};

struct img_progress {
	const char *what;     /* "pulling", "unpacking", "packing", "pushing" */
	uint64_t done, total; /* bytes; total 0: not known */
};
/* Called from any thread, one at a time, now and then; non-zero cancels (-ECANCELED). */
typedef int (*img_progress_fn)(const struct img_progress *p, void *arg);

struct img_limits {
	uint64_t max_bytes;   /* of all layers unpacked; 0: 256 GiB */
	uint64_t max_entries; /* of one layer; 0: 4 million */
	uint32_t max_ratio;   /* unpacked to packed, once a layer is over 1 GiB; 0: 500 */
	bool allow_devices;   /* also such as are more than null, zero, full, random, tty, ptmx, tun, fuse */
};

struct img_open_opts {
	const char *work_dir; /* an existing folder: the bytes lie in a new one in it; NULL: $TMPDIR, /var/tmp */
	const char *os, *arch, *variant; /* of an index, which image; NULL: linux, this machine's, any */
	struct img_limits limits;
	unsigned n_threads;       /* 0: one per core */
	const char *auth_file;    /* registry: docker's config.json; NULL: the usual places */
	bool insecure;            /* registry: plain HTTP, also beyond this host; TLS without verification */
	bool config_only;         /* no layers: tree is NULL */
	img_progress_fn progress; /* may be NULL */
	void *progress_arg;
};

/* o NULL: defaults. */
int img_image_open(const char *name, const struct img_open_opts *o, struct img_image **ret_image, struct err *err);
void img_image_close(struct img_image *image);

/* The image as a root that can be run: moves the files out of the work folder into `root` (no bytes are copied where
 * both are on one file system) and lets the tree's nodes point there. *ret_n_skipped as img_tree_write_dir(). */
int img_image_unpack(struct img_image *image, const char *root, size_t *ret_n_skipped, struct err *err);

/* Whether a name is one of an image ("oci:...", "docker://..."), not of a plain path. */
bool img_name_is_image(const char *name);

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

enum img_compression { IMG_ZSTD, IMG_GZIP, IMG_PLAIN };

struct img_layer_plan {
	const char *created_by; /* for the history; NULL: "slimtrace" */
	const char *comment;    /* may be NULL */
};

struct img_write_plan {
	struct img_tree *tree;
	/* Layer of a node, 0 the lowest; NULL: all in one. Links of one group go where the lowest of them goes, and
	 * directories also into every layer that has something below them. */
	int32_t (*layer_of)(const struct img_node *n, void *arg);
	void *layer_of_arg;
	const struct img_layer_plan *layers; /* n_layers of them, or NULL */
	size_t n_layers;                     /* 0: 1 */
	const struct img_config *config; /* diff_ids come from the layers. Its history stays when it tells of as many
	                                  * layers; else it is kept as entries of empty layers, ours follow */
	const struct img_label *annotations; /* of the manifest, sorted by name; a docker-archive has none */
	size_t n_annotations;
	enum img_compression compression;
	int level;          /* 0: 9 for zstd, 6 for gzip */
	unsigned n_threads; /* 0: one per core; does not change the bytes */
	int64_t epoch;      /* SOURCE_DATE_EPOCH: no time in the image is later, and it is when it was created; -1: the
	                     * times of the tree, and `created` of the configuration */
	const char *auth_file; /* registry */
	bool insecure;
	img_progress_fn progress;
	void *progress_arg;
};

struct img_write_result {
	char manifest_digest[IMG_DIGEST_SIZE]; /* "" for a docker-archive */
	char config_digest[IMG_DIGEST_SIZE];
	struct img_layer *layers; /* as stored; img_write_result_done() */
	size_t n_layers;
	uint64_t size;          /* of the layers as stored */
	uint64_t unpacked_size; /* of their tars */
};

/* Writes an image under its name: all of it or nothing. An existing layout keeps its other images. */
int img_image_write(const char *name, const struct img_write_plan *plan, struct img_write_result *ret_result,
                    struct err *err);
void img_write_result_done(struct img_write_result *r);

/* SOURCE_DATE_EPOCH of the environment; -1 when not set. -EINVAL for one that is no number. */
int img_source_date_epoch(int64_t *ret_epoch, struct err *err);

#endif
