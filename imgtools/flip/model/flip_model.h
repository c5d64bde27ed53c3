/* Models: folders of files (Hugging Face layout, GGUF) as flip moves them.
 *
 * A model is a list of files, each with its size and SHA-256 and, where it is larger than a chunk, the SHA-256 of each
 * chunk, so that every part of it can be verified before it is served. The list comes from a manifest of ours
 * (docs/formats/model-manifest.md), from an artifact in a registry, or from a folder. On a node it becomes a layer like
 * any other, of contents that lie uncompressed: the same store, fetching, mounts and collection serve it. */
#ifndef FLIP_MODEL_H
#define FLIP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "lazy/toc.h"
#include "oci/places.h"

/* Of the document, of the artifact that `flip model push` makes, and of the row that a model has in the store. */
#define FLIP_MODEL_TYPE "application/vnd.ocai.flip.model.v1+json"
#define FLIP_MODEL_FILE_TYPE "application/vnd.ocai.flip.model.file.v1"

enum {
	FLIP_MODEL_CHUNK = 1 << 20, /* the usual size of a chunk */
	FLIP_MODEL_MIN_CHUNK = 64 << 10,
	FLIP_MODEL_MAX_CHUNK = 16 << 20,
	FLIP_MODEL_MAX_FILES = 1 << 16,
	FLIP_MODEL_MAX_URLS = 8,             /* of one file */
	FLIP_MODEL_MAX_DOCUMENT = 256 << 20, /* 4 TiB in chunks of 1 MiB */
	FLIP_MODEL_NAME_MAX = 128,
};

struct flip_model_file {
	char *path; /* relative and normal: "config.json", "onnx/model.onnx" */
	uint64_t size;
	uint8_t sha256[32];
	/* Of each chunk, the last one of what is left. NULL: the file is no larger than a chunk, or only the whole can
	 * be verified. */
	uint8_t (*chunks)[32];
	size_t n_chunks;
	char **urls; /* where it can be had, in order of preference; none: from the registry that the model is of */
	size_t n_urls;
};

struct flip_model {
	uint32_t chunk_size;
	struct flip_model_file *files; /* what is small first, weights behind, by path */
	size_t n_files;
};

void flip_model_free(struct flip_model *m);
/* "qwen3-0.6b": letters, digits, '.', '_' and '-', beginning with a letter or digit. */
bool flip_model_name_is_valid(const char *name);
uint64_t flip_model_size(const struct flip_model *m); /* bytes of all files */

/* ---- manifest.c ----------------------------------------------------------------------------------------------- */

/* `base_url` is where the document came from, for files that say no place of their own; NULL: those have none. Refuses
 * with -EBADMSG naming `where`, file and field. */
int flip_model_parse(const void *data, size_t size, const char *where, const char *base_url,
                     struct flip_model **ret_model, struct err *err);
/* The document; the same model gives the same bytes. Without places it is what the model's digest is of. */
int flip_model_append(const struct flip_model *m, bool with_urls, struct base_buf *buf);
int flip_model_digest(const struct flip_model *m, char ret_digest[IMG_DIGEST_SIZE], struct err *err);
/* Files into their order, and checked against each other: no path twice or below a file, one size and one set of chunks
 * for one digest. Whoever makes a model by hand calls it before anything else. */
int flip_model_settle(struct flip_model *m, const char *where, struct err *err);
/* Room for one more file, zeroed; NULL: out of memory or too many. Its path is `path` made normal; -EBADMSG. */
int flip_model_add(struct flip_model *m, const char *path, struct flip_model_file **ret_file, struct err *err);
/* Every file at `base` and its path below it, behind the places that it has. */
int flip_model_add_base(struct flip_model *m, const char *base, struct err *err);

/* ---- artifact.c ----------------------------------------------------------------------------------------------- */

/* A manifest of a registry as a model: files are layers, named by annotations (OCI's title, the ModelPack
 * specification's file path) or by what their media types say (Docker's model artifacts). Layers that are archives are
 * none of the model's files: they are unpacked like an image's. */
struct flip_artifact {
	struct flip_model *model; /* without chunks unless ours; no file where all are archives */
	bool is_ours;             /* the configuration is a manifest of ours: the files' chunks are in it */
	size_t *archives;         /* numbers of the manifest's layers, lowest first */
	size_t n_archives;
};
int flip_artifact_read(const struct img_manifest *doc, const char *where, struct flip_artifact *ret_artifact,
                       struct err *err);
/* The manifest of ours that came as configuration takes the place of the layers' list. -EBADMSG: it names a file that
 * the artifact has no layer of. */
int flip_artifact_set_manifest(struct flip_artifact *a, struct flip_model *model_take, const char *where,
                               struct err *err);
void flip_artifact_done(struct flip_artifact *a);

/* ---- folder.c --------------------------------------------------------------------------------------------------- */

/* A folder's files with their digests, read on `n_threads` (0: one per core). Hidden files and folders (".git",
 * ".cache") are left out, links are followed when they stay files. progress gets the bytes read so far, now and then,
 * on any thread; non-zero ends with -ECANCELED. */
typedef int (*flip_model_progress)(void *arg, uint64_t n_bytes, uint64_t n_total);
int flip_model_of_folder(const char *dir, uint32_t chunk_size, unsigned n_threads, flip_model_progress progress,
                         void *arg, struct flip_model **ret_model, struct err *err);

/* ---- push.c ---- */

struct flip_model_push {
	const char *auth_file;        /* docker's config.json; NULL: the usual places */
	bool insecure;                /* plain HTTP beyond this host, TLS without verification */
	flip_model_progress progress; /* bytes sent, or found there; any thread */
	void *arg;
};
/* The folder's files to "HOST/NAME:TAG" as an artifact: a layer for each content, the manifest as configuration. The
 * tag is set when all of it is there. ret_digest: the artifact's. */
int flip_model_push(const char *dir, const struct flip_model *m, const char *ref, const struct flip_model_push *o,
                    char ret_digest[IMG_DIGEST_SIZE], struct err *err);

/* ---- serve.c ---- */

/* The folder's files over HTTP, by ranges, and its manifest as "model.json" beside them: for other nodes to pull from.
 * Who reaches the port may read them; `secret`, when not NULL, is a first folder of the addresses. */
struct flip_model_server;
int flip_model_serve_start(const char *dir, const struct flip_model *m, const char *listen, const char *secret,
                           struct flip_model_server **ret_server, struct err *err);
unsigned flip_model_serve_port(const struct flip_model_server *s);
void flip_model_serve_stop(struct flip_model_server *s);

/* ---- layer.c ---------------------------------------------------------------------------------------------------- */

/* The model as a layer's table of contents: FLIP_RAW, its distinct contents one behind the other as if they were one
 * blob. A file without chunk digests gets chunks that cannot be verified by themselves. */
int flip_model_to_toc(const struct flip_model *m, struct flip_toc **ret_toc, struct err *err);
uint64_t flip_model_blob_size(const struct flip_model *m);
/* The distinct contents in the order of the table: the file that each is first the content of. *ret_files is the
 * caller's, *ret_n of them; empty files are none. */
int flip_model_contents(const struct flip_model *m, const struct flip_model_file ***ret_files, size_t *ret_n);

#endif
