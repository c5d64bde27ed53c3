/* An image converted: read, its layers made anew side by side, its documents written with what came out. */
#include "convert/convert.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/threadpool.h"
#include "job.h"

enum {
	GZIP_LEVEL = 6,
	GZIP_MAX_LEVEL = 12,
	ZSTD_LEVEL = 9,
	ZSTD_MAX_LEVEL = 19,    /* beyond, windows larger than chunks buy nothing */
	CHUNK_BYTES = 64 << 10, /* measured: docs/lazy-images.md */
	MAX_MEMORY = 256 << 20,
	LAYER_OVERHEAD = 8 << 20, /* what one layer needs beside its segments: feed, table, file buffers */
	WORKER_OVERHEAD = 2 << 20,
	IN_FLIGHT = 64 << 20, /* of one layer; more makes nothing faster */
	MIN_IN_FLIGHT = 8,    /* chunks of a layer, so that all workers have something */
};

/* ---- Layers ---- */

struct side_by_side {
	struct flip_job *j;
	unsigned n_workers;
	size_t max_memory; /* of each */
};

static int check_source(struct flip_job_layer *l, const char *label)
{
	const char *want = l->desc.digest[0] ? l->desc.digest : l->made.source_is_plain ? l->want_diff_id : "";

	if (want[0] && strcmp(want, l->made.source_digest) != 0)
		return err_set(&l->err, -EBADMSG, "layer %s: digest mismatch, the content is %s", label,
		               l->made.source_digest);
	return 0;
}

static int convert_layer(const struct side_by_side *s, size_t i)
{
	struct flip_job *j = s->j;
	struct flip_job_layer *l = &j->layers[i];
	const char *source = l->desc.digest[0] ? l->desc.digest : l->want_diff_id;
	char label[IMG_DIGEST_SIZE + 32];
	struct flip_layer_plan plan = { .blob = &l->blob,
		                        .label = label,
		                        .format = j->set.format,
		                        .level = j->set.level,
		                        .chunk_bytes = j->set.chunk_bytes,
		                        .prefetch = j->prefetch,
		                        .n_workers = s->n_workers,
		                        .max_memory = s->max_memory,
		                        .temp_dir = j->dest.temp_dir,
		                        .meter = &j->meter };
	int r = flip_cache_get(j, source, &l->made, &l->err);

	if (r != 0) {
		l->from_cache = r > 0;
		(void)img_meter_add(&j->meter, l->desc.size);
		return r < 0 ? r : 0;
	}
	(void)snprintf(label, sizeof(label), "%.19s (%zu of %zu)", source, i + 1, j->n_layers);
	if (j->source.ops && !l->blob.path && !l->blob.data)
		r = j->source.ops->blob(j->source.state, &l->desc, &l->blob, &l->err);
	if (r == 0)
		r = flip_layer_convert(&plan, &l->made, &l->err);
	if (r == 0)
		r = check_source(l, label);
	if (r == 0)
		flip_cache_put(j, &l->made);
	return r;
}

static void convert_some(void *arg, size_t begin, size_t end, unsigned worker)
{
	const struct side_by_side *s = arg;

	(void)worker;
	for (size_t i = begin; i < end; i++)
		s->j->layers[i].r = convert_layer(s, i);
}

/* As many at a time as memory allows; each uses all threads, so that the last, largest one is not left alone. */
static int convert_layers(struct flip_job *j)
{
	struct side_by_side s = { .j = j, .n_workers = j->set.n_threads };
	uint64_t each = LAYER_OVERHEAD + (uint64_t)s.n_workers * WORKER_OVERHEAD +
	                (uint64_t)MIN_IN_FLIGHT * j->set.chunk_bytes * 2,
	         total = 0, fixed;
	uint64_t n_side = j->set.max_memory / each;
	struct base_threadpool *pool = NULL;
	int r;

	n_side = n_side < 1 ? 1 : n_side > s.n_workers ? s.n_workers : n_side;
	n_side = n_side > j->n_layers ? j->n_layers : n_side;
	if (!n_side)
		return 0;
	fixed = LAYER_OVERHEAD + (uint64_t)s.n_workers * WORKER_OVERHEAD;
	s.max_memory = (size_t)(j->set.max_memory / n_side > 2 * fixed ? j->set.max_memory / n_side - fixed : fixed);
	/* Half of what is left: allocators keep about as much again. */
	s.max_memory /= 2;
	if (s.max_memory > IN_FLIGHT && s.max_memory > (size_t)s.n_workers * 4 * j->set.chunk_bytes)
		s.max_memory = IN_FLIGHT > (size_t)s.n_workers * 4 * j->set.chunk_bytes
		                       ? IN_FLIGHT
		                       : (size_t)s.n_workers * 4 * j->set.chunk_bytes;
	for (size_t i = 0; i < j->n_layers; i++)
		total += j->layers[i].desc.size;
	r = base_threadpool_new((unsigned)n_side, &pool, j->err);
	if (r < 0)
		return r;
	img_meter_init(&j->meter, "converting", total, j->o->progress, j->o->progress_arg);
	base_threadpool_for(pool, j->n_layers, 1, convert_some, &s);
	base_threadpool_free(pool);
	img_meter_done(&j->meter);
	for (size_t i = 0; i < j->n_layers; i++) {
		if (j->layers[i].r < 0) {
			if (j->err)
				*j->err = j->layers[i].err;
			return j->layers[i].r;
		}
	}
	return 0;
}

/* ---- Places ---- */

static int open_source(struct flip_job *j)
{
	struct img_open_opts o = { .auth_file = j->o->auth_file,
		                   .insecure = j->o->insecure,
		                   .progress = j->o->progress,
		                   .progress_arg = j->o->progress_arg };

	switch (j->from.place) {
	case IMG_PLACE_LAYOUT:
		return img_source_layout_open(&j->from, &j->source, j->err);
	case IMG_PLACE_OCI_ARCHIVE:
		return img_source_oci_archive_open(&j->from, j->work.path, &j->source, j->err);
	case IMG_PLACE_REGISTRY:
		return img_source_registry_open(&j->from, j->work.path, &o, &j->source, j->err);
	default:
		return img_docker_archive_open(&j->from, j->work.path, &j->docker, j->err);
	}
}

static int open_dest(struct flip_job *j)
{
	const struct img_config *c = j->index ? NULL : &j->dest_config;
	struct img_write_plan plan = { .auth_file = j->o->auth_file,
		                       .insecure = j->o->insecure,
		                       .progress = j->o->progress,
		                       .progress_arg = j->o->progress_arg };
	const json_t *config = j->images[0].config;

	j->dest_config.arch = (char *)json_string_value(json_object_get(config, "architecture"));
	j->dest_config.os = (char *)json_string_value(json_object_get(config, "os"));
	j->dest_config.variant = (char *)json_string_value(json_object_get(config, "variant"));
	switch (j->to.place) {
	case IMG_PLACE_LAYOUT:
		return img_dest_layout_open(&j->to, c, &j->dest, j->err);
	case IMG_PLACE_REGISTRY:
		return img_dest_registry_open(&j->to, &plan, &j->dest, j->err);
	case IMG_PLACE_OCI_ARCHIVE:
		return img_dest_archive_open(&j->to, c, &j->dest, j->err);
	default:
		return err_set(j->err, -ENOTSUP, "a docker-archive takes only uncompressed layers");
	}
}

/* ---- The whole ---- */

static int set_options(struct flip_job *j)
{
	struct flip_convert_opts *s = &j->set;
	bool is_gzip = j->o->format == FLIP_ESTARGZ;

	*s = *j->o;
	if (!is_gzip && s->format != FLIP_ZSTD_CHUNKED)
		return err_set(j->err, -EINVAL, "neither eStargz nor zstd:chunked");
	if (!s->level)
		s->level = is_gzip ? GZIP_LEVEL : ZSTD_LEVEL;
	if (s->level < 1 || s->level > (is_gzip ? GZIP_MAX_LEVEL : ZSTD_MAX_LEVEL))
		return err_set(j->err, -EINVAL, "level %d: expected 1 to %d", s->level,
		               is_gzip ? GZIP_MAX_LEVEL : ZSTD_MAX_LEVEL);
	if (!s->chunk_bytes)
		s->chunk_bytes = CHUNK_BYTES;
	if (s->chunk_bytes < FLIP_MIN_CHUNK || s->chunk_bytes > FLIP_MAX_CHUNK)
		return err_set(j->err, -EINVAL, "chunks of %u bytes: expected 4 KiB to 64 MiB", s->chunk_bytes);
	if (!s->n_threads)
		s->n_threads = base_cpu_count();
	if (!s->max_memory)
		s->max_memory = MAX_MEMORY;
	return 0;
}

static int fill_result(struct flip_job *j, struct flip_convert_result *res)
{
	res->layers = calloc(j->n_layers + 1, sizeof(*res->layers));
	if (!res->layers)
		return err_set(j->err, -ENOMEM, "out of memory");
	res->n_layers = j->n_layers;
	for (size_t i = 0; i < j->n_layers; i++) {
		const struct flip_layer_made *m = &j->layers[i].made;
		struct flip_convert_layer *l = &res->layers[i];

		memcpy(l->digest, m->digest, sizeof(l->digest));
		memcpy(l->diff_id, m->diff_id, sizeof(l->diff_id));
		memcpy(l->source_digest, m->source_digest, sizeof(l->source_digest));
		l->size = m->size;
		l->source_size = j->layers[i].desc.size;
		l->unpacked_size = m->unpacked_size;
		l->n_chunks = m->n_chunks;
		l->from_cache = j->layers[i].from_cache;
	}
	return 0;
}

static int run(struct flip_job *j, struct flip_convert_result *res)
{
	int r = set_options(j);

	if (r == 0)
		r = flip_work_dir_make(&j->work, j->err);
	if (r == 0)
		r = open_source(j);
	if (r == 0)
		r = flip_job_read(j);
	if (r < 0)
		return r;
	if (!j->o->no_prefetch)
		j->prefetch = j->o->prefetch;
	if (!j->o->no_prefetch && !j->prefetch) {
		r = flip_job_closure(j);
		j->prefetch = j->closure.n ? &j->closure : NULL;
	}
	if (r == 0)
		r = open_dest(j);
	if (r == 0)
		r = convert_layers(j);
	if (r == 0)
		r = fill_result(j, res);
	return r == 0 ? flip_job_send(j, res->manifest_digest) : r;
}

static void job_done(struct flip_job *j)
{
	for (size_t i = 0; i < j->n_layers; i++) {
		img_temp_drop(&j->layers[i].made.file);
		img_blob_done(&j->layers[i].blob);
	}
	free(j->layers);
	if (j->dest.ops)
		j->dest.ops->close(j->dest.state);
	flip_job_images_done(j);
	if (j->source.ops)
		j->source.ops->close(j->source.state);
	img_docker_archive_done(&j->docker);
	flip_prefetch_done(&j->closure);
	flip_work_dir_done(&j->work);
	img_name_done(&j->from);
	img_name_done(&j->to);
}

int flip_convert(const char *source, const char *dest, const struct flip_convert_opts *o,
                 struct flip_convert_result *ret_result, struct err *err)
{
	struct flip_job j = { .o = o, .err = err, .work = { .fd = -1 } };
	struct flip_convert_result res = { 0 };
	int r = img_name_parse(source, &j.from, err);

	if (r == 0)
		r = img_name_parse(dest, &j.to, err);
	if (r == 0) {
		r = run(&j, &res);
		if (r < 0)
			(void)err_prefix(err, r, "%s: ", source);
	}
	job_done(&j);
	if (r < 0) {
		flip_convert_result_done(&res);
		return r;
	}
	if (ret_result)
		*ret_result = res;
	else
		flip_convert_result_done(&res);
	return 0;
}

void flip_convert_result_done(struct flip_convert_result *r)
{
	free(r->layers);
	*r = (struct flip_convert_result){ 0 };
}
