/* Opening weights of either format and looking things up in them. The readers (safetensors.c, gguf.c)
 * check every header completely, so that whatever is handed out here lies inside its file.
 *
 * Files are mapped shared and read-only: several engines share one copy in the page cache, and a model
 * larger than memory can still be opened. No advice on when they are read: on a 604 MB file, cold (0.21 to 0.28 s) and
 * warm (0.03 s), neither MADV_SEQUENTIAL nor MADV_WILLNEED changed the time of a first pass measurably, and the
 * latter would read in all experts of a model that does not fit. But in large pages, please: where the file system can,
 * what is not in the page cache yet is read in pieces of 2 MiB and mapped as such, and stays so for the next
 * process. Weights that are used in place are read faster then.
 *
 * A file that shrinks while it is mapped cannot be guarded against here (reads beyond its end raise
 * SIGBUS); replace model files by renaming, as packages do. */
#include "weights/weights_internal.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "weights/flip.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif
enum { HEAD_BYTES = 16 << 20, LARGE_PAGE = 2 << 20 };

static void weights_closep(struct eng_weights **w)
{
	eng_weights_close(*w);
}

int eng_tensor_elements(const struct eng_tensor *t, uint64_t *ret_n)
{
	uint64_t n = 1;

	for (uint32_t i = 0; i < t->n_dims; i++) {
		if (__builtin_mul_overflow(n, t->shape[i], &n))
			return -EBADMSG;
	}
	*ret_n = n;
	return 0;
}

static int new_part(struct eng_weights *w, const char *path, struct eng_part **ret_part)
{
	struct eng_part *p = realloc(w->parts, (w->n_parts + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	w->parts = p;
	p += w->n_parts;
	*p = (struct eng_part){ .path = strdup(path) };
	if (!p->path)
		return -ENOMEM;
	w->n_parts++;
	*ret_part = p;
	return 0;
}

/* Touches every page of [begin, begin + size) without being killed for those that cannot be read. Kernels before 5.14
 * do not know how: there the first use waits, or kills. */
static int populate(const struct eng_part *p, uint64_t begin, uint64_t size)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t first = begin / page * page;

	while (madvise((void *)(p->data + first), begin + size - first, MADV_POPULATE_READ) < 0) {
		if (errno == EFAULT)
			return -EIO;
		if (errno != EINTR && errno != EAGAIN)
			break;
	}
	return 0;
}

int eng_weights_await(const struct eng_weights *w, const struct eng_tensor *t, struct err *err)
{
	for (size_t i = 0; i < w->n_parts; i++) {
		const struct eng_part *p = &w->parts[i];
		const uint8_t *data = t->data;

		if (!p->may_arrive || t->size_bytes == 0 || data < p->data || data >= p->data + p->size)
			continue;
		if (populate(p, (uint64_t)(data - p->data), t->size_bytes) < 0)
			return err_set(err, -EIO, "%s: tensor '%s': its bytes do not come (flip model list tells why)",
			               p->path, t->name);
	}
	return 0;
}

/* Where the headers are. */
static int await_head(const struct eng_part *p, struct err *err)
{
	if (!p->may_arrive || p->size == 0 || populate(p, 0, p->size < HEAD_BYTES ? p->size : HEAD_BYTES) == 0)
		return 0;
	return err_set(err, -EIO, "%s: its first bytes do not come (flip model list tells why)", p->path);
}

int eng_weights_add_part(struct eng_weights *w, const char *path, struct err *err)
{
	struct base_mapfile map;
	struct eng_part *p;
	int r;

	r = base_mapfile_open(path, &map, err);
	if (r < 0)
		return r;
	r = new_part(w, path, &p);
	if (r < 0) {
		base_mapfile_close(&map);
		return err_set(err, r, "%s: out of memory", path);
	}
	p->map = map;
	p->data = map.data;
	p->size = map.size_bytes;
	p->owned = true;
	p->may_arrive = eng_flip_may_arrive(path);
	/* What is arriving would be waited for in pieces as large. */
	if (!p->may_arrive && p->size >= LARGE_PAGE)
		(void)madvise((void *)p->data, p->size, MADV_HUGEPAGE);
	return await_head(p, err);
}

int eng_weights_add_tensor(struct eng_weights *w, const struct eng_part *part, const struct eng_tensor *t,
                           struct err *err)
{
	int r;

	if (w->n_tensors == w->cap_tensors) {
		size_t cap = w->cap_tensors ? w->cap_tensors * 2 : 256;
		struct eng_tensor *p = cap < UINT32_MAX ? reallocarray(w->tensors, cap, sizeof(*p)) : NULL;

		if (!p)
			return err_set(err, -ENOMEM, "%s: out of memory", part->path);
		w->tensors = p;
		w->cap_tensors = cap;
	}
	r = eng_names_add(&w->tensor_names, t->name, strlen(t->name), (uint32_t)w->n_tensors);
	if (r == -EEXIST)
		return err_set(err, -EBADMSG, "%s: tensor '%s': appears twice", part->path, t->name);
	if (r < 0)
		return err_set(err, r, "%s: out of memory", part->path);
	w->tensors[w->n_tensors++] = *t;
	w->bytes += t->size_bytes;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct eng_tensor *x = *(const struct eng_tensor *const *)a, *y = *(const struct eng_tensor *const *)b;

	if (x->data != y->data)
		return (const char *)x->data < (const char *)y->data ? -1 : 1;
	return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

int eng_weights_check_layout(struct eng_weights *w, size_t first, const struct eng_part *part, const uint8_t *data,
                             size_t size, bool dense, struct err *err)
{
	CLEANUP(freep) const struct eng_tensor **order = NULL;
	size_t n = w->n_tensors - first;
	uint64_t end = 0;

	order = calloc(n ? n : 1, sizeof(*order));
	if (!order)
		return err_set(err, -ENOMEM, "%s: out of memory", part->path);
	for (size_t i = 0; i < n; i++)
		order[i] = &w->tensors[first + i];
	qsort(order, n, sizeof(*order), by_place);
	for (size_t i = 0; i < n; i++) {
		uint64_t begin = (uint64_t)((const uint8_t *)order[i]->data - data);

		if (begin < end)
			return err_set(err, -EBADMSG, "%s: tensor '%s': shares bytes with tensor '%s'", part->path,
			               order[i]->name, order[i - 1]->name);
		if (dense && begin > end)
			return err_set(err, -EBADMSG, "%s: tensor '%s': %llu bytes before it belong to no tensor",
			               part->path, order[i]->name, (unsigned long long)(begin - end));
		end = begin + order[i]->size_bytes;
	}
	if (dense && end != size)
		return err_set(err, -EBADMSG, "%s: %llu bytes at the end belong to no tensor", part->path,
		               (unsigned long long)(size - end));
	return 0;
}

/* ---- Opening --------------------------------------------------------------------------------------- */

static bool has_suffix(const char *text, const char *suffix)
{
	size_t n = strlen(text), m = strlen(suffix);

	return n >= m && strcmp(text + n - m, suffix) == 0;
}

static bool is_gguf_magic(const uint8_t *data, size_t size)
{
	return size >= 4 && memcmp(data, "GGUF", 4) == 0;
}

static int open_file(struct eng_weights *w, const char *path, struct err *err)
{
	int r;

	if (has_suffix(path, ".index.json"))
		return eng_safetensors_open_index(w, path, err);
	if (has_suffix(path, ".gguf"))
		return eng_gguf_open(w, path, err);
	r = eng_weights_add_part(w, path, err);
	if (r < 0)
		return r;
	if (is_gguf_magic(w->parts[0].data, w->parts[0].size))
		return eng_gguf_read(w, &w->parts[0], true, err);
	return eng_safetensors_read(w, &w->parts[0], err);
}

/* The one file of the folder that matches, or NULL. */
static char *single_match(const char *dir, const char *pattern)
{
	CLEANUP(freep) char *full = NULL;
	glob_t g = { 0 };
	char *found = NULL;

	if (asprintf(&full, "%s/%s", dir, pattern) < 0) {
		full = NULL;
		return NULL;
	}
	if (glob(full, GLOB_NOSORT, NULL, &g) == 0 && g.gl_pathc == 1)
		found = strdup(g.gl_pathv[0]);
	globfree(&g);
	return found;
}

static int open_folder(struct eng_weights *w, const char *dir, struct err *err)
{
	static const char *const names[] = { "model.safetensors", "model.safetensors.index.json" };
	static const char *const patterns[] = { "*.safetensors", "*-00001-of-[0-9]*.gguf", "*.gguf" };
	struct stat st;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		CLEANUP(freep) char *path = NULL;

		if (asprintf(&path, "%s/%s", dir, names[i]) < 0) {
			path = NULL;
			return err_set(err, -ENOMEM, "%s: out of memory", dir);
		}
		if (stat(path, &st) == 0)
			return open_file(w, path, err);
	}
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		CLEANUP(freep) char *path = single_match(dir, patterns[i]);

		if (path)
			return open_file(w, path, err);
	}
	return err_set(err, -ENOENT, "%s: neither model.safetensors, model.safetensors.index.json nor a single .gguf",
	               dir);
}

int eng_weights_open(const char *path, struct eng_weights **ret_weights, struct err *err)
{
	CLEANUP(weights_closep) struct eng_weights *w = calloc(1, sizeof(*w));
	struct stat st;
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	r = S_ISDIR(st.st_mode) ? open_folder(w, path, err) : open_file(w, path, err);
	if (r < 0)
		return r;
	*ret_weights = w;
	w = NULL;
	return 0;
}

int eng_weights_parse(const char *where, const void *data, size_t size, struct eng_weights **ret_weights,
                      struct err *err)
{
	CLEANUP(weights_closep) struct eng_weights *w = calloc(1, sizeof(*w));
	struct eng_part *p;
	int r;

	if (!w || new_part(w, where, &p) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", where);
	p->data = data;
	p->size = size;
	r = is_gguf_magic(data, size) ? eng_gguf_read(w, p, true, err) : eng_safetensors_read(w, p, err);
	if (r < 0)
		return r;
	*ret_weights = w;
	w = NULL;
	return 0;
}

void eng_weights_close(struct eng_weights *weights)
{
	if (!weights)
		return;
	for (size_t i = 0; i < weights->n_parts; i++) {
		if (weights->parts[i].owned)
			base_mapfile_close(&weights->parts[i].map);
		free(weights->parts[i].path);
	}
	free(weights->parts);
	free(weights->tensors);
	free(weights->kvs);
	eng_names_done(&weights->tensor_names);
	eng_names_done(&weights->kv_names);
	eng_arena_done(&weights->arena);
	free(weights);
}

/* ---- Looking up ------------------------------------------------------------------------------------ */

size_t eng_weights_count(const struct eng_weights *weights)
{
	return weights->n_tensors;
}

const struct eng_tensor *eng_weights_at(const struct eng_weights *weights, size_t i)
{
	return i < weights->n_tensors ? &weights->tensors[i] : NULL;
}

const struct eng_tensor *eng_weights_find(const struct eng_weights *weights, const char *name)
{
	uint32_t i;

	return eng_names_find(&weights->tensor_names, name, strlen(name), &i) ? &weights->tensors[i] : NULL;
}

void eng_weights_cool(const struct eng_weights *w, const void *data, size_t size)
{
	for (size_t i = 0; i < w->n_parts; i++) {
		const struct base_mapfile *map = &w->parts[i].map;
		uintptr_t at = (uintptr_t)data, begin = (uintptr_t)map->data;

		if (w->parts[i].owned && at >= begin && at - begin < map->size_bytes &&
		    size <= map->size_bytes - (at - begin))
			base_mapfile_cool_part(map, data, size);
	}
}

int eng_weights_tell_sources(const struct eng_weights *w, struct kn_backend *be, struct err *err)
{
	int r;

	if (!be->ops->source)
		return 0;
	for (size_t i = 0; w && i < w->n_parts; i++) {
		const struct eng_part *p = &w->parts[i];
		const struct kn_source source = {
			.data = p->data, .bytes = p->size, .path = p->path, .dev = p->map.dev, .ino = p->map.ino
		};

		/* What cannot be opened again is read where it is mapped. */
		if (p->owned && !p->may_arrive && p->size)
			(void)be->ops->source(be, &source);
	}
	r = w ? 0 : be->ops->source(be, NULL);
	return r < 0 ? err_set(err, r, "weights could not be read: %s", strerror(-r)) : 0;
}

uint64_t eng_weights_bytes(const struct eng_weights *weights)
{
	return weights->bytes;
}

bool eng_weights_is_gguf(const struct eng_weights *weights)
{
	return weights->is_gguf;
}

void eng_weights_fingerprint(const struct eng_weights *w, struct base_sha256 *sha)
{
	enum { HEAD = 64 << 10, SAMPLES = 64, SAMPLE = 512 };

	for (size_t i = 0; i < w->n_parts; i++) {
		const struct eng_part *p = &w->parts[i];
		uint64_t facts[3] = { p->size };
		struct stat st;

		if (p->owned && stat(p->path, &st) == 0) {
			facts[1] = (uint64_t)st.st_mtim.tv_sec;
			facts[2] = (uint64_t)st.st_mtim.tv_nsec;
		}
		base_sha256_update(sha, facts, sizeof(facts));
		base_sha256_update(sha, p->data, p->size < HEAD ? p->size : HEAD);
		for (uint64_t k = 0; k < SAMPLES && p->size > HEAD + SAMPLE; k++)
			base_sha256_update(sha, p->data + HEAD + (p->size - HEAD - SAMPLE) / SAMPLES * k, SAMPLE);
	}
}
