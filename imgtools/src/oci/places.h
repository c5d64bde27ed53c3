/* Where images are kept, as documents and blobs: for whoever rewrites an image without unpacking it into a tree. Names,
 * JSON documents, sources that blobs are read from, destinations that they are written to, progress. */
#ifndef IMG_OCI_PLACES_H
#define IMG_OCI_PLACES_H

#include <pthread.h>

#include "oci/oci.h"

#define IMG_TYPE_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define IMG_TYPE_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define IMG_TYPE_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define IMG_TYPE_OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define IMG_TYPE_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define IMG_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define IMG_REF_NAME "org.opencontainers.image.ref.name"

enum {
	IMG_MAX_JSON = 16 << 20, /* of an index, a manifest, a configuration */
	IMG_MAX_LAYERS = 1024,
	IMG_MAX_INDEX_DEPTH = 4, /* an index of indexes */
};

/* ---- Names and digests (name.c) -------------------------------------------------------------------------------- */

enum img_place { IMG_PLACE_LAYOUT, IMG_PLACE_OCI_ARCHIVE, IMG_PLACE_DOCKER_ARCHIVE, IMG_PLACE_REGISTRY };

struct img_name {
	enum img_place place;
	char *path; /* of the folder or the archive; for a registry what follows "docker://" */
	char *tag;  /* NULL: none given; unused for a registry */
};

int img_name_parse(const char *text, struct img_name *ret_name, struct err *err);
void img_name_done(struct img_name *name);
bool img_digest_is_valid(const char *digest); /* "sha256:" and 64 lower-case hexadecimal digits */
void img_digest_set(char ret_digest[IMG_DIGEST_SIZE], const uint8_t sha256[32]);
void img_digest_of(const void *data, size_t size, char ret_digest[IMG_DIGEST_SIZE]);

/* ---- JSON documents (document.c) -------------------------------------------------------------------------------- */

struct img_descriptor {
	char *media_type; /* NULL: not given */
	char digest[IMG_DIGEST_SIZE];
	uint64_t size;
	char **names, **values; /* annotations, all of them */
	size_t n_annotations;
	char *ref_name;            /* one of them, a copy; NULL */
	char *os, *arch, *variant; /* platform; NULL */
};

struct img_index {
	struct img_descriptor *list;
	size_t n;
};

struct img_manifest {
	struct img_descriptor config;
	struct img_descriptor *layers;
	size_t n_layers;
};

/* What a document says it is: an index (or manifest list), or a manifest. `media_type` from outside wins when known. */
enum img_document { IMG_DOC_INDEX, IMG_DOC_MANIFEST };
int img_document_kind(const void *data, size_t size, const char *where, enum img_document *ret_kind, struct err *err);
int img_index_parse(const void *data, size_t size, const char *where, struct img_index *ret_index, struct err *err);
void img_index_done(struct img_index *index);
int img_manifest_parse(const void *data, size_t size, const char *where, struct img_manifest *ret_manifest,
                       struct err *err);
void img_manifest_done(struct img_manifest *m);
/* The image for a platform: exact variant first, then any; -ENOENT names those there are. */
int img_index_choose(const struct img_index *index, const char *os, const char *arch, const char *variant,
                     const char *where, const struct img_descriptor **ret_desc, struct err *err);
const char *img_host_arch(void);

/* ---- Blobs (source_*.c) ---------------------------------------------------------------------------------------------
 */

/* Bytes that lie on this host: a range of a file, or memory. */
struct img_blob {
	char *path; /* owned; NULL: `data` */
	const void *data;
	uint64_t offset, size;
};

/* Where an image is read from. */
struct img_source_ops;
struct img_blob_source {
	const struct img_source_ops *ops;
	void *state;
};

struct img_source_ops {
	/* The image: its manifest (or index), its digest when it has one; *ret_data is the caller's. */
	int (*root)(void *state, char **ret_data, size_t *ret_size, char ret_digest[IMG_DIGEST_SIZE], struct err *err);
	/* A small document by digest, verified. */
	int (*document)(void *state, const struct img_descriptor *d, char **ret_data, size_t *ret_size,
	                struct err *err);
	/* A layer, to be read where it lies; a registry fetches it first. */
	int (*blob)(void *state, const struct img_descriptor *d, struct img_blob *ret_blob, struct err *err);
	void (*close)(void *state);
};

int img_source_layout_open(const struct img_name *name, struct img_blob_source *ret, struct err *err);
int img_source_oci_archive_open(const struct img_name *name, const char *work_dir, struct img_blob_source *ret,
                                struct err *err);
int img_source_registry_open(const struct img_name *name, const char *work_dir, const struct img_open_opts *o,
                             struct img_blob_source *ret, struct err *err);

/* A tar on this host whose members are read where they lie (archive.c). A compressed one is unpacked into work_dir
 * first. */
struct img_archive;
int img_archive_open(const char *path, const char *work_dir, struct img_archive **ret_archive, struct err *err);
void img_archive_close(struct img_archive *a);
/* A member by its name, links followed; -ENOENT. */
int img_archive_find(const struct img_archive *a, const char *name, struct img_blob *ret_blob, struct err *err);
void img_blob_done(struct img_blob *b);

/* From the text of an index.json, the image that a tag names; -ENOENT names those there are. */
int img_index_by_tag(const struct img_index *index, const char *tag, const char *where,
                     const struct img_descriptor **ret_desc, struct err *err);
/* What was read is what the descriptor says. */
int img_descriptor_check(const struct img_descriptor *d, const void *data, size_t size, struct err *err);

/* A docker-archive has no manifest of that kind: configuration and layers directly. */
struct img_docker_archive {
	char *config;
	size_t config_size;
	struct img_blob *layers;
	size_t n_layers;
};
int img_docker_archive_open(const struct img_name *name, const char *work_dir, struct img_docker_archive *ret,
                            struct err *err);
void img_docker_archive_done(struct img_docker_archive *a);

/* Reads a whole blob of at most IMG_MAX_JSON bytes, 0-terminated. */
int img_blob_read(const struct img_blob *b, char **ret_data, size_t *ret_size, struct err *err);

/* ---- Progress ---- */

struct img_meter {
	img_progress_fn fn;
	void *arg;
	pthread_mutex_t lock;
	struct img_progress now; /* protected by lock, as the rest */
	int64_t last_ms;
	bool is_canceled;
};
void img_meter_init(struct img_meter *m, const char *what, uint64_t total, img_progress_fn fn, void *arg);
void img_meter_done(struct img_meter *m);
int img_meter_add(struct img_meter *m, uint64_t n); /* -ECANCELED when someone said so; m may be NULL */

/* ---- Places that images are written to (dest_*.c) ------------------------------------------------------------- */

/* A file that has no name until it is whole: O_TMPFILE where the file system knows it. */
struct img_temp {
	int fd;
	char *path; /* of a named one, for file systems without O_TMPFILE; NULL */
};
int img_temp_open(const char *dir, struct img_temp *ret_temp, struct err *err);
/* Gives it its name. What has the name already is kept when keep_old, else replaced. Closes t either way. */
int img_temp_publish(struct img_temp *t, const char *path, bool keep_old, struct err *err);
void img_temp_drop(struct img_temp *t);

/* Where an image is written to. Layers come as files and are complete before any of these is called. */
struct img_dest_ops {
	int (*layer)(void *state, struct img_temp *file, const struct img_layer *layer, struct err *err);
	int (*config)(void *state, const void *data, size_t size, const char *digest, struct err *err);
	/* A manifest that the last one, an index, names. NULL: images of several platforms cannot lie there. */
	int (*part)(void *state, const void *data, size_t size, const char *digest, struct err *err);
	/* The last step; makes the image visible. An index where the configuration given at first is NULL. */
	int (*manifest)(void *state, const void *data, size_t size, const char *digest, struct err *err);
	void (*close)(void *state); /* without manifest() before: leaves nothing visible */
};
struct img_dest {
	const struct img_dest_ops *ops;
	void *state;
	const char *temp_dir; /* where its layers are best made; owned by the state */
	bool is_plain;        /* takes layers uncompressed only */
};
int img_dest_layout_open(const struct img_name *name, const struct img_config *c, struct img_dest *ret,
                         struct err *err);
int img_dest_archive_open(const struct img_name *name, const struct img_config *c, struct img_dest *ret,
                          struct err *err); /* both kinds */
int img_dest_registry_open(const struct img_name *name, const struct img_write_plan *plan, struct img_dest *ret,
                           struct err *err);

int img_write_all(int fd, const void *data, size_t size, struct err *err);

#endif
