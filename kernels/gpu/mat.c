/* Weights on the device: bytes as they are in files (source.c) or memory go through pinned memory to a buffer on the
 * device, where a kernel lays them out. Matrices share large pieces of memory, since a mixture of experts has tens of
 * thousands of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/backend.h"
#include "gpu/gemm.h"

enum { LEAST_CHUNK = 64 << 20, MOST_CHUNK = 1 << 30, SCALE_CHUNK = 1 << 20, RAW_BYTES = 64 << 20, ALIGN = 256 };
enum { LEAST_ROWS_OF_EIGHT_BITS = 8 };

static size_t align_up(size_t n)
{
	return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* ---- Pieces of device memory ---- */

static bool has_room(const struct gpu_chunk *c, size_t bytes)
{
	return c->base && c->bytes - c->used >= bytes;
}

/* As much as there is already, within limits: a small model takes little, a large one few pieces. */
static size_t chunk_bytes(const struct gpu_backend *be, size_t bytes)
{
	size_t total = LEAST_CHUNK;

	for (uint32_t i = 0; i < be->n_chunks; i++)
		total += be->chunks[i].bytes;
	total = total < MOST_CHUNK ? total : MOST_CHUNK;
	return total > bytes ? total : bytes;
}

static int chunk_new(struct gpu_backend *be, size_t bytes, uint32_t *ret_chunk)
{
	struct gpu_chunk *grown;
	uint32_t i = 0;
	char *base = gpu_rt_alloc(&be->rt, bytes);

	if (!base)
		return -ENOMEM;
	while (i < be->n_chunks && be->chunks[i].base)
		i++;
	if (i == be->n_chunks) {
		grown = realloc(be->chunks, (be->n_chunks + 1) * sizeof(*grown));
		if (!grown) {
			gpu_rt_free(&be->rt, base);
			return -ENOMEM;
		}
		be->chunks = grown;
		be->n_chunks++;
	}
	be->chunks[i] = (struct gpu_chunk){ .base = base, .bytes = bytes };
	*ret_chunk = i;
	return 0;
}

/* The caller knows no more than that there is none. */
static void tell_shortage(const struct gpu_backend *be, size_t bytes)
{
	uint64_t left = 0, total = 0;
	char text[256], why[128];

	(void)snprintf(why, sizeof(why), "%s", gpu_rt_error());
	(void)gpu_rt_memory((struct gpu_rt *)&be->rt, &left, &total);
	(void)snprintf(text, sizeof(text), "%s: device %d has %llu of %llu MiB left, %llu are wanted", why,
	               be->rt.device, (unsigned long long)(left >> 20), (unsigned long long)(total >> 20),
	               (unsigned long long)(bytes >> 20));
	be->on_failure(be->ops.name, "memory for weights", text);
}

/* Behind the matrix before where that is possible: those that are used together then lie together (gpu_join_outputs).
 */
static int chunk_with_room(struct gpu_backend *be, size_t bytes, uint32_t *ret_chunk)
{
	size_t size;
	int r;

	if (be->last_chunk < be->n_chunks && has_room(&be->chunks[be->last_chunk], bytes)) {
		*ret_chunk = be->last_chunk;
		return 0;
	}
	for (uint32_t i = 0; i < be->n_chunks; i++) {
		if (i != be->scale_chunk && has_room(&be->chunks[i], bytes)) {
			*ret_chunk = i;
			return 0;
		}
	}
	size = chunk_bytes(be, bytes);
	r = chunk_new(be, size, ret_chunk);
	if (r == -ENOMEM && size > bytes)
		r = chunk_new(be, bytes, ret_chunk); /* the last corner of the device */
	if (r == 0)
		be->last_chunk = *ret_chunk;
	else
		tell_shortage(be, bytes);
	return r;
}

static void chunk_unref(struct gpu_backend *be, uint32_t i)
{
	if (--be->chunks[i].n_mats > 0)
		return;
	gpu_rt_free(&be->rt, be->chunks[i].base);
	be->chunks[i] = (struct gpu_chunk){ 0 };
}

static void chunks_unref(struct gpu_backend *be, const struct gpu_mat *g)
{
	chunk_unref(be, g->chunk);
	if (g->scale_chunk != UINT32_MAX)
		chunk_unref(be, g->scale_chunk);
}

/* Scales of FP8, in memory of their own: behind those of the matrix before. */
static int place_scales(struct gpu_backend *be, struct gpu_mat *g)
{
	size_t line = gk_mat_scale_stride(&g->m) * sizeof(float), bytes = gk_mat_scale_lines(&g->m) * line;
	struct gpu_chunk *chunk;
	int r = 0;

	if (be->scale_chunk == UINT32_MAX || !has_room(&be->chunks[be->scale_chunk], bytes + line))
		r = chunk_new(be, bytes + line > SCALE_CHUNK ? bytes + line : SCALE_CHUNK, &be->scale_chunk);
	if (r < 0)
		return r;
	chunk = &be->chunks[be->scale_chunk];
	g->m.scales = chunk->base + chunk->used;
	g->scale_chunk = be->scale_chunk;
	chunk->used += bytes;
	chunk->n_mats++;
	return 0;
}

/* ---- Filling ---- */

int gpu_raw_room(struct gpu_backend *be, size_t bytes)
{
	int r;

	if (bytes <= be->raw_bytes)
		return 0;
	r = gpu_rt_sync(&be->rt); /* the one there is may be being read */
	if (r < 0)
		return r;
	gpu_rt_free(&be->rt, be->raw);
	be->raw_bytes = 0;
	be->raw = gpu_rt_alloc(&be->rt, bytes);
	if (!be->raw)
		return -ENOMEM;
	be->raw_bytes = bytes;
	return 0;
}

static int fill(struct gpu_backend *be, const struct kn_mat *m, const struct gk_mat *g)
{
	size_t row_bytes = kn_row_bytes(m->dtype, m->cols);
	bool as_is = kn_dtype_info(m->dtype)->block_elems == 1 && g->ld == g->cols;
	uint32_t step;
	int r;

	r = as_is ? gpu_source_copy(be, (char *)g->values, m->data, m->rows * row_bytes)
	          : gpu_source_pack(be, g, m->data, row_bytes);
	if (r != -ENOENT)
		return r;
	if (as_is)
		return gpu_send(be, (char *)g->values, m->data, m->rows * row_bytes);
	step = (uint32_t)(RAW_BYTES / row_bytes / GK_PACK_ROWS * GK_PACK_ROWS);
	step = step ? step : GK_PACK_ROWS;
	r = gpu_raw_room(be, (m->rows < step ? m->rows : step) * row_bytes);
	for (uint32_t row = 0; row < m->rows && r == 0; row += step) {
		uint32_t n = m->rows - row < step ? m->rows - row : step;

		r = gpu_send(be, be->raw, (const char *)m->data + row * row_bytes, n * row_bytes);
		r = r < 0 ? r : gk_mat_pack(&be->ctx, g, be->raw, row, n);
	}
	return r;
}

/* Lines of the caller's, each wider on the device. */
static int fill_scales(struct gpu_backend *be, const struct kn_mat *m, const struct gk_mat *g)
{
	size_t lines = gk_mat_scale_lines(g), stride = gk_mat_scale_stride(g), across = (m->cols + 127) / 128;
	float *wide = calloc(lines * stride, sizeof(*wide));
	int r;

	if (!wide)
		return -ENOMEM;
	for (size_t i = 0; i < lines; i++)
		memcpy(wide + i * stride, (const char *)m->scales + i * across * sizeof(*wide), across * sizeof(*wide));
	r = gpu_send(be, (char *)g->scales, (const char *)wide, lines * stride * sizeof(*wide));
	free(wide);
	return r;
}

/* ---- Matrices ---- */

static uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

int gpu_mat_init(struct kn_backend *base, struct kn_mat *m)
{
	struct gpu_backend *be = gpu_of(base);
	size_t bytes;
	struct gpu_mat *g;
	struct gpu_chunk *chunk;
	int r;

	if (kn_row_bytes(m->dtype, m->cols) == 0)
		return -EINVAL;
	bytes = align_up(m->dtype == KN_FP8_128 ? gk_mat_value_bytes(m->dtype, m->rows, m->cols)
	                                        : gk_mat_bytes(m->dtype, m->rows, m->cols));
	if (bytes == 0 || (m->dtype == KN_FP8_128 && (!m->scales || m->first_row >= 128 || m->first_row % 16)))
		return -EINVAL;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	r = chunk_with_room(be, bytes, &g->chunk);
	if (r < 0) {
		free(g);
		return r;
	}
	chunk = &be->chunks[g->chunk];
	chunk->n_mats++;
	r = gk_mat_describe(&g->m, m->dtype, m->rows, m->cols, chunk->base + chunk->used);
	chunk->used += bytes;
	g->m.first_row = m->first_row;
	g->scale_chunk = UINT32_MAX;
	r = r < 0 ? r : fill(be, m, &g->m);
	if (r == 0 && m->dtype == KN_FP8_128)
		r = place_scales(be, g);
	if (r == 0 && m->dtype == KN_FP8_128)
		r = fill_scales(be, m, &g->m);
	if (r < 0) {
		(void)gpu_sources_finish(be); /* nothing is on its way there any more */
		chunks_unref(be, g);
		free(g);
		return r;
	}
	/* The library has no products of fewer than four rows in eight bits, and those of eight are the quickest;
	 * without deterministic mode few rows are multiplied otherwise. */
	if (m->dtype == KN_FP8_128 && be->base.tells_prompts && be->gemm && gpu_gemm8_known(be->gemm))
		be->least_rows = LEAST_ROWS_OF_EIGHT_BITS;
	g->id = ++be->last_mat_id;
	m->packed = g;
	m->packed_bytes = bytes;
	be->limits.max_cols = max_u32(be->limits.max_cols, m->cols);
	be->limits.max_out = max_u32(be->limits.max_out, m->rows);
	return 0;
}

static void tables_free(struct gpu_backend *be)
{
	for (uint32_t i = 0; i < be->n_tables; i++) {
		free(be->tables[i].host);
		gpu_rt_free(&be->rt, be->tables[i].device);
	}
	be->n_tables = 0;
}

void gpu_mat_done(struct kn_backend *base, struct kn_mat *m)
{
	struct gpu_backend *be = gpu_of(base);
	struct gpu_mat *g = m->packed;

	if (!g)
		return;
	(void)gpu_sources_finish(be); /* nothing is on its way there any more */
	if (be->n_tables || be->n_words) {
		gpu_flush(be);
		(void)gpu_rt_sync(&be->rt);
		gpu_programs_forget(be);
		tables_free(be);
	}
	chunks_unref(be, g);
	free(g);
	m->packed = NULL;
	m->packed_bytes = 0;
}

void gpu_mats_close(struct gpu_backend *be)
{
	tables_free(be);
	free(be->tables);
	for (uint32_t i = 0; i < be->n_chunks; i++)
		gpu_rt_free(&be->rt, be->chunks[i].base);
	free(be->chunks);
	gpu_rt_free(&be->rt, be->raw);
}

/* ---- Tables ---- */

static uint64_t hash_mats(const struct gk_mat *mats, uint32_t n)
{
	uint64_t h = n;

	for (uint32_t i = 0; i < n; i++)
		h = (h ^ (uint64_t)(uintptr_t)mats[i].values) * 0x9e3779b97f4a7c15ull + (h >> 29);
	return h;
}

const struct gk_mat *gpu_mat_table(struct gpu_backend *be, const struct gk_mat *mats, uint32_t n)
{
	uint64_t hash = hash_mats(mats, n);
	struct gpu_table *t;

	for (uint32_t i = 0; i < be->n_tables; i++) {
		t = &be->tables[i];
		if (t->hash == hash && t->n == n && memcmp(t->host, mats, n * sizeof(*mats)) == 0)
			return t->device;
	}
	t = realloc(be->tables, (be->n_tables + 1) * sizeof(*t));
	if (!t)
		return NULL;
	be->tables = t;
	t += be->n_tables;
	*t = (struct gpu_table){ .hash = hash, .n = n };
	t->host = malloc(n * sizeof(*mats));
	t->device = gpu_rt_alloc(&be->rt, n * sizeof(*mats));
	if (!t->host || !t->device) {
		free(t->host);
		gpu_rt_free(&be->rt, t->device);
		return NULL;
	}
	memcpy(t->host, mats, n * sizeof(*mats));
	/* Host memory that stays; not pinned, so the copy is over when the call returns. */
	if (gpu_rt_to_device(&be->rt, t->device, t->host, n * sizeof(*mats)) < 0 || gpu_rt_sync(&be->rt) < 0) {
		free(t->host);
		gpu_rt_free(&be->rt, t->device);
		return NULL;
	}
	be->n_tables++;
	return t->device;
}

/* Each step asks for the same tables in the same order, a few for each layer: they are found without being made. */
const struct gk_mat *gpu_mat_table_of(struct gpu_backend *be, const struct kn_mat *mats, uint32_t n)
{
	uint64_t id = ((const struct gpu_mat *)mats[0].packed)->id;
	struct gk_mat host[KN_MAX_EXPERTS];
	const struct gk_mat *table;

	for (uint32_t i = 0; i < be->n_tables; i++) {
		uint32_t at = (be->next_table + i) % be->n_tables;
		const struct gpu_table *t = &be->tables[at];

		if (t->of == mats && t->of_id == id && t->n == n) {
			be->next_table = at + 1;
			return t->device;
		}
	}
	memset(host, 0, n * sizeof(*host));
	for (uint32_t i = 0; i < n; i++)
		memcpy(&host[i], &((const struct gpu_mat *)mats[i].packed)->m, sizeof(host[i]));
	table = gpu_mat_table(be, host, n);
	for (uint32_t i = 0; i < be->n_tables; i++) {
		if (be->tables[i].device == table) {
			be->tables[i].of = mats;
			be->tables[i].of_id = id;
		}
	}
	return table;
}
