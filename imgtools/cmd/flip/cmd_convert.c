/* flip convert: an ordinary image made lazily loadable. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "commands.h"
#include "convert/convert.h"
#include "image_progress.h"

struct options {
	const char *format, *prefetch, *cache, *platform, *auth_file;
	uint32_t level, n_threads;
	uint64_t chunk_bytes, max_memory;
	bool no_prefetch, insecure, json;
};

const struct opt convert_opts[] = {
	{ "format", 'f', OPT_CHOICE, offsetof(struct options, format), "FORMAT", "of the result [estargz]",
	  "estargz,zstd-chunked" },
	{ "level", 'l', OPT_UINT, offsetof(struct options, level), "LEVEL",
	  "of compression [6 for estargz, 9 for zstd-chunked]", NULL },
	{ "chunk-size", 0, OPT_SIZE, offsetof(struct options, chunk_bytes), "SIZE",
	  "pieces that files are cut into [64K]", NULL },
	{ "prefetch", 'p', OPT_STR, offsetof(struct options, prefetch), "FILE",
	  "what a start reads: a prefetch list, or a trace of slimtrace [what the entrypoint loads]", NULL },
	{ "no-prefetch", 0, OPT_FLAG, offsetof(struct options, no_prefetch), NULL, "nothing goes first", NULL },
	{ "platform", 0, OPT_STR, offsetof(struct options, platform), "OS/ARCH", "only this image of an index [all]",
	  NULL },
	{ "cache", 0, OPT_STR, offsetof(struct options, cache), "DIR",
	  "keep converted layers here, and take them from here", NULL },
	{ "threads", 't', OPT_UINT, offsetof(struct options, n_threads), "N", "compress on so many [one per core]",
	  NULL },
	{ "max-memory", 0, OPT_SIZE, offsetof(struct options, max_memory), "SIZE", "use no more than this [256M]",
	  NULL },
	{ "auth-file", 0, OPT_STR, offsetof(struct options, auth_file), "FILE",
	  "docker's config.json with the credentials of registries", NULL },
	{ "insecure", 0, OPT_FLAG, offsetof(struct options, insecure), NULL,
	  "registries: plain HTTP, certificates not verified", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct options, json), NULL, "print the result as JSON", NULL },
	{ 0 },
};

enum { MAX_LIST = 256 << 20 };

/* A list says so in its first line; everything else is taken for a trace. */
static int read_prefetch(const char *path, struct flip_prefetch *list, struct err *err)
{
	static const char head[] = "flip-prefetch ";
	struct base_buf b = BASE_BUF_INIT(MAX_LIST);
	int r = base_read_file(path, &b, err);

	if (r == 0 && b.len >= sizeof(head) - 1 && memcmp(b.data, head, sizeof(head) - 1) == 0)
		r = flip_prefetch_parse(b.data, b.len, path, list, err);
	else if (r == 0)
		r = flip_prefetch_from_trace(path, list, err);
	base_buf_done(&b);
	return r;
}

static void print_text(const struct flip_convert_result *res, const char *dest)
{
	uint64_t size = 0, source = 0;
	char a[16], b[16];

	for (size_t i = 0; i < res->n_layers; i++) {
		const struct flip_convert_layer *l = &res->layers[i];

		(void)printf("layer     %.19s -> %.19s  %s -> %s, %" PRIu64 " chunks%s\n", l->source_digest, l->digest,
		             image_size_text(l->source_size, a), image_size_text(l->size, b), l->n_chunks,
		             l->from_cache ? ", from the cache" : "");
		size += l->size;
		source += l->source_size;
	}
	(void)printf("written   %s %s, %zu layers, %s (%s before)\n", dest, res->manifest_digest, res->n_layers,
	             image_size_text(size, a), image_size_text(source, b));
}

static void print_json(const struct flip_convert_result *res, const char *dest)
{
	struct base_buf b = BASE_BUF_INIT(64u << 20);
	json_t *layers = json_array(), *doc;

	for (size_t i = 0; i < res->n_layers; i++) {
		const struct flip_convert_layer *l = &res->layers[i];

		(void)json_array_append_new(
		        layers, json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:b}", "source", l->source_digest, "digest",
		                          l->digest, "diff_id", l->diff_id, "source_bytes", (json_int_t)l->source_size,
		                          "bytes", (json_int_t)l->size, "unpacked_bytes", (json_int_t)l->unpacked_size,
		                          "chunks", (json_int_t)l->n_chunks, "from_cache", l->from_cache));
	}
	doc = json_pack("{s:s,s:s,s:o}", "image", dest, "digest", res->manifest_digest, "layers", layers);
	if (doc && base_json_append(&b, doc) == 0)
		(void)printf("%s\n", b.data);
	json_decref(doc);
	base_buf_done(&b);
}

static int convert(const struct options *o, const char *source, const char *dest)
{
	struct flip_convert_opts c = { .format = o->format && strcmp(o->format, "zstd-chunked") == 0 ? FLIP_ZSTD_CHUNKED
		                                                                                     : FLIP_ESTARGZ,
		                       .level = (int)o->level,
		                       .chunk_bytes = (uint32_t)o->chunk_bytes,
		                       .no_prefetch = o->no_prefetch,
		                       .n_threads = o->n_threads,
		                       .max_memory = o->max_memory,
		                       .cache_dir = o->cache,
		                       .platform = o->platform,
		                       .auth_file = o->auth_file,
		                       .insecure = o->insecure,
		                       .progress = image_progress() };
	struct flip_convert_result res = { 0 };
	struct flip_prefetch list = { 0 };
	struct err err = { 0 };
	int r = o->prefetch ? read_prefetch(o->prefetch, &list, &err) : 0;

	if (o->prefetch)
		c.prefetch = &list;
	if (r == 0)
		r = flip_convert(source, dest, &c, &res, &err);
	image_progress_clear();
	flip_prefetch_done(&list);
	if (r < 0)
		return flip_fail(&err);
	if (o->json)
		print_json(&res, dest);
	else
		print_text(&res, dest);
	flip_convert_result_done(&res);
	return 0;
}

int cmd_convert(int argc, char **argv)
{
	struct options o = { 0 };
	struct err err = { 0 };
	int n_args, code;

	code = flip_options(argc, argv, &o, &n_args);
	if (code >= 0)
		return code;
	if (n_args != 2)
		(void)err_set(&err, -EINVAL, "expected the names of two images, got %d", n_args);
	else if (o.chunk_bytes > UINT32_MAX || o.level > 100)
		(void)err_set(&err, -EINVAL, "a chunk size or a level that no format has");
	else
		return convert(&o, argv[0], argv[1]);
	return flip_usage("convert", &err);
}
