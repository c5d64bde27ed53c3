/* The conversion of an image: what its files share. */
#ifndef FLIP_JOB_H
#define FLIP_JOB_H

#include "convert/convert.h"
#include "layer.h"

#define FLIP_ANNOTATION_TOC "containerd.io/snapshot/stargz/toc.digest"
#define FLIP_ANNOTATION_SIZE "io.containers.estargz.uncompressed-size"

/* One layer of the source, converted once however many images have it. */
struct flip_job_layer {
	struct img_descriptor desc;         /* borrowed texts; digest "" in a docker-archive */
	struct img_blob blob;               /* filled in when it is fetched */
	char want_diff_id[IMG_DIGEST_SIZE]; /* docker-archive: what it must be uncompressed */
	struct flip_layer_made made;
	bool from_cache, is_sent;
	int r;
	struct err err;
};

struct flip_job_image {
	struct img_manifest manifest;
	json_t *document, *config; /* as they were read */
	size_t *layers;            /* into flip_job.layers */
	size_t n_layers;
	char digest[IMG_DIGEST_SIZE];
	size_t size;
	json_t *index_entry; /* of the source's index, borrowed; NULL */
};

/* workdir.c: a folder of this conversion in $TMPDIR, else in /var/tmp. What killed conversions left there is removed.
 */
struct flip_work_dir {
	char *path;
	int fd; /* keeps its lock; -1 */
};
int flip_work_dir_make(struct flip_work_dir *ret_dir, struct err *err);
void flip_work_dir_done(struct flip_work_dir *d); /* only files lie in it */

struct flip_job {
	const struct flip_convert_opts *o;
	struct flip_convert_opts set; /* with all defaults filled in */
	struct flip_prefetch closure; /* when no list was given */
	const struct flip_prefetch *prefetch;
	struct img_name from, to;
	struct flip_work_dir work;
	struct img_blob_source source; /* ops NULL: a docker-archive */
	struct img_docker_archive docker;
	struct img_dest dest;
	struct img_config dest_config; /* platform of a single image; its texts are borrowed */
	json_t *index;                 /* of the source; NULL: a single image */
	struct flip_job_image *images;
	size_t n_images;
	struct flip_job_layer *layers;
	size_t n_layers;
	struct img_meter meter;
	struct err *err;
};

/* image.c: what the source has; documents of the result. */
int flip_job_read(struct flip_job *j);
int flip_job_send(struct flip_job *j, char ret_digest[IMG_DIGEST_SIZE]);
void flip_job_images_done(struct flip_job *j);

/* closure.c: what the entrypoints of the images need to start, into j->closure. */
int flip_job_closure(struct flip_job *j);

/* cache.c: 1 found, 0 not. Keys are made of the digest of the source and of all that the result depends on. */
int flip_cache_get(const struct flip_job *j, const char *source_digest, struct flip_layer_made *made, struct err *err);
/* A copy of what was made, for the next time; not being able to is no failure of the conversion. */
void flip_cache_put(const struct flip_job *j, const struct flip_layer_made *made);

#endif
