/* GGUF, versions 2 and 3, little endian:
 *
 *   "GGUF"  u32 version  u64 n_tensors  u64 n_kv
 *   n_kv times:       string key, u32 type, value     (string: u64 length, bytes; array: u32 element
 *                                                      type, u64 count, elements; arrays may nest)
 *   n_tensors times:  string name, u32 n_dims, u64 dims[] fastest first, u32 ggml type, u64 offset
 *   padding to general.alignment (32), then the data that offsets count from
 *
 * A split set is NAME-00001-of-0000N.gguf ...: each part has its tensors and split.no, split.count,
 * split.tensors.count; the first has the model's metadata. Nothing is trusted: counts are checked against
 * the bytes that are left before anything is allocated for them. */
#include "weights/weights_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

enum {
	HEADER_BYTES = 24,
	MIN_KV_BYTES = 8 + 1 + 4 + 1,
	MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8,
	MAX_DIMS = 4,
	MAX_NESTING = 8,
	MAX_NAME = 1024,
	DEFAULT_ALIGNMENT = 32,
	MAX_ALIGNMENT = 1 << 20,
};

/* Every ggml type that a file may hold, so that one tensor of a type we do not compute with does not
 * hide what the rest of the file is. Numbers 4, 5 and 31-33, 36-38 were given up upstream. */
static const struct ggml_type {
	const char *name;
	uint32_t block_elems, block_bytes;
	enum kn_dtype dtype;
} ggml_types[] = {
	[0] = { "F32", 1, 4, KN_F32 },
	[1] = { "F16", 1, 2, KN_F16 },
	[2] = { "Q4_0", 32, 18, KN_Q4_0 },
	[3] = { "Q4_1", 32, 20, KN_Q4_1 },
	[6] = { "Q5_0", 32, 22, KN_Q5_0 },
	[7] = { "Q5_1", 32, 24, KN_Q5_1 },
	[8] = { "Q8_0", 32, 34, KN_Q8_0 },
	[9] = { "Q8_1", 32, 36, KN_N_DTYPES },
	[10] = { "Q2_K", 256, 84, KN_N_DTYPES },
	[11] = { "Q3_K", 256, 110, KN_N_DTYPES },
	[12] = { "Q4_K", 256, 144, KN_Q4_K },
	[13] = { "Q5_K", 256, 176, KN_Q5_K },
	[14] = { "Q6_K", 256, 210, KN_Q6_K },
	[15] = { "Q8_K", 256, 292, KN_N_DTYPES },
	[16] = { "IQ2_XXS", 256, 66, KN_N_DTYPES },
	[17] = { "IQ2_XS", 256, 74, KN_N_DTYPES },
	[18] = { "IQ3_XXS", 256, 98, KN_N_DTYPES },
	[19] = { "IQ1_S", 256, 50, KN_N_DTYPES },
	[20] = { "IQ4_NL", 32, 18, KN_N_DTYPES },
	[21] = { "IQ3_S", 256, 110, KN_N_DTYPES },
	[22] = { "IQ2_S", 256, 82, KN_N_DTYPES },
	[23] = { "IQ4_XS", 256, 136, KN_N_DTYPES },
	[24] = { "I8", 1, 1, KN_N_DTYPES },
	[25] = { "I16", 1, 2, KN_N_DTYPES },
	[26] = { "I32", 1, 4, KN_N_DTYPES },
	[27] = { "I64", 1, 8, KN_N_DTYPES },
	[28] = { "F64", 1, 8, KN_N_DTYPES },
	[29] = { "IQ1_M", 256, 56, KN_N_DTYPES },
	[30] = { "BF16", 1, 2, KN_BF16 },
	[34] = { "TQ1_0", 256, 54, KN_N_DTYPES },
	[35] = { "TQ2_0", 256, 66, KN_N_DTYPES },
	[39] = { "MXFP4", 32, 17, KN_N_DTYPES },
};

size_t eng_gguf_type_size(uint32_t type)
{
	static const uint8_t sizes[ENG_GGUF_N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

	return type < ENG_GGUF_N_TYPES ? sizes[type] : 0;
}

const char *eng_gguf_type_name(uint32_t type)
{
	static const char *const names[ENG_GGUF_N_TYPES] = { "uint8",  "int8",    "uint16", "int16",  "uint32",
		                                             "int32",  "float32", "bool",   "string", "array",
		                                             "uint64", "int64",   "float64" };

	return type < ENG_GGUF_N_TYPES ? names[type] : "unknown";
}

/* ---- Bounded reading --------------------------------------------------------------------------------- */

struct cursor {
	const struct eng_part *part;
	const uint8_t *p, *end;
	struct err *err;
};

static size_t left(const struct cursor *c)
{
	return (size_t)(c->end - c->p);
}

static int truncated(const struct cursor *c)
{
	return err_set(c->err, -EBADMSG, "%s: truncated at byte %zu, inside the header", c->part->path,
	               (size_t)(c->p - c->part->data));
}

static int read_uint(struct cursor *c, size_t size, uint64_t *ret)
{
	uint64_t v = 0;

	if (left(c) < size)
		return truncated(c);
	for (size_t i = 0; i < size; i++)
		v |= (uint64_t)c->p[i] << (8 * i);
	c->p += size;
	*ret = v;
	return 0;
}

static int read_u32(struct cursor *c, uint32_t *ret)
{
	uint64_t v = 0;
	int r = read_uint(c, 4, &v);

	*ret = (uint32_t)v;
	return r;
}

static int read_string(struct cursor *c, const char **ret_text, size_t *ret_len)
{
	uint64_t len = 0;
	int r = read_uint(c, 8, &len);

	if (r < 0)
		return r;
	if (len > left(c))
		return truncated(c);
	*ret_text = (const char *)c->p;
	*ret_len = (size_t)len;
	c->p += len;
	return 0;
}

/* A key or tensor name. */
static int read_name(struct cursor *c, const char *kind, uint64_t i, const char **ret_text, size_t *ret_len)
{
	int r = read_string(c, ret_text, ret_len);

	if (r < 0)
		return r;
	if (*ret_len == 0 || *ret_len > MAX_NAME || !eng_name_is_printable(*ret_text, *ret_len))
		return err_set(c->err, -EBADMSG, "%s: %s %llu: bad name", c->part->path, kind, (unsigned long long)i);
	return 0;
}

/* ---- Metadata ---------------------------------------------------------------------------------------- */

static int kv_error(const struct cursor *c, const struct eng_gguf_kv *kv, const char *what)
{
	return err_set(c->err, -EBADMSG, "%s: key '%.*s': %s", c->part->path, (int)kv->key_len, kv->key, what);
}

/* Moves past n values of a type, checking that they are complete. */
static int skip_values(struct cursor *c, const struct eng_gguf_kv *kv, uint32_t type, uint64_t n, int depth)
{
	size_t size = eng_gguf_type_size(type), len;
	const char *text;
	uint64_t bytes;
	int r = 0;

	if (type >= ENG_GGUF_N_TYPES)
		return kv_error(c, kv, "unknown value type");
	if (size) {
		if (__builtin_mul_overflow(n, (uint64_t)size, &bytes) || bytes > left(c))
			return truncated(c);
		c->p += bytes;
		return 0;
	}
	if (type == ENG_GGUF_ARRAY && depth == MAX_NESTING)
		return kv_error(c, kv, "arrays nested too deeply");
	/* Each string or array takes eight bytes at least, so n is bounded by what is left. */
	if (n > left(c) / 8)
		return truncated(c);
	for (uint64_t i = 0; r == 0 && i < n; i++) {
		uint32_t inner = 0;
		uint64_t count = 0;

		if (type == ENG_GGUF_STRING) {
			r = read_string(c, &text, &len);
			continue;
		}
		r = read_u32(c, &inner);
		if (r == 0)
			r = read_uint(c, 8, &count);
		if (r == 0)
			r = skip_values(c, kv, inner, count, depth + 1);
	}
	return r;
}

static int read_kv(struct cursor *c, uint64_t i, struct eng_gguf_kv *kv)
{
	int r;

	r = read_name(c, "key", i, &kv->key, &kv->key_len);
	if (r == 0)
		r = read_u32(c, &kv->type);
	if (r < 0)
		return r;
	kv->n = 1;
	kv->is_array = kv->type == ENG_GGUF_ARRAY;
	if (kv->is_array) {
		r = read_u32(c, &kv->type);
		if (r == 0)
			r = read_uint(c, 8, &kv->n);
		if (r < 0)
			return r;
	}
	kv->value = c->p;
	r = skip_values(c, kv, kv->type, kv->n, kv->is_array ? 1 : 0);
	kv->size = (size_t)(c->p - kv->value);
	return r;
}

/* What a part must say of itself, wherever its metadata is kept. */
struct part_header {
	uint64_t n_tensors, n_kv;
	uint64_t alignment;
	uint64_t split_no, split_count, split_tensors;
};

static bool kv_is(const struct eng_gguf_kv *kv, const char *key)
{
	return kv->key_len == strlen(key) && memcmp(kv->key, key, kv->key_len) == 0;
}

/* An unsigned integer of any width. */
static int kv_uint(const struct cursor *c, const struct eng_gguf_kv *kv, uint64_t *ret)
{
	struct cursor at = { .part = c->part, .p = kv->value, .end = c->end, .err = c->err };
	size_t size = eng_gguf_type_size(kv->type);
	uint64_t v = 0;

	if (kv->is_array || size == 0 || kv->type == ENG_GGUF_F32 || kv->type == ENG_GGUF_F64 ||
	    kv->type == ENG_GGUF_BOOL || read_uint(&at, size, &v) < 0)
		return kv_error(c, kv, "expected an integer");
	if ((kv->type == ENG_GGUF_I8 || kv->type == ENG_GGUF_I16 || kv->type == ENG_GGUF_I32 ||
	     kv->type == ENG_GGUF_I64) &&
	    v >> (8 * size - 1))
		return kv_error(c, kv, "negative");
	*ret = v;
	return 0;
}

static int note_kv(const struct cursor *c, const struct eng_gguf_kv *kv, struct part_header *h)
{
	if (kv_is(kv, "split.no"))
		return kv_uint(c, kv, &h->split_no);
	if (kv_is(kv, "split.count"))
		return kv_uint(c, kv, &h->split_count);
	if (kv_is(kv, "split.tensors.count"))
		return kv_uint(c, kv, &h->split_tensors);
	if (!kv_is(kv, "general.alignment"))
		return 0;
	if (kv_uint(c, kv, &h->alignment) < 0)
		return -EBADMSG;
	if (h->alignment == 0 || h->alignment > MAX_ALIGNMENT || (h->alignment & (h->alignment - 1)))
		return kv_error(c, kv, "not a power of two");
	return 0;
}

static int read_metadata(struct cursor *c, struct eng_weights *w, bool keep, struct part_header *h)
{
	int r = 0;

	if (h->n_kv > left(c) / MIN_KV_BYTES)
		return err_set(c->err, -EBADMSG, "%s: %llu keys in %zu bytes", c->part->path,
		               (unsigned long long)h->n_kv, left(c));
	if (keep) {
		w->kvs = calloc(h->n_kv ? h->n_kv : 1, sizeof(*w->kvs));
		if (!w->kvs)
			return err_set(c->err, -ENOMEM, "%s: out of memory", c->part->path);
	}
	for (uint64_t i = 0; r == 0 && i < h->n_kv; i++) {
		struct eng_gguf_kv kv = { 0 };

		r = read_kv(c, i, &kv);
		if (r == 0)
			r = note_kv(c, &kv, h);
		if (r < 0 || !keep)
			continue;
		r = eng_names_add(&w->kv_names, kv.key, kv.key_len, (uint32_t)i);
		if (r == -EEXIST)
			return kv_error(c, &kv, "appears twice");
		if (r < 0)
			return err_set(c->err, r, "%s: out of memory", c->part->path);
		w->kvs[w->n_kvs++] = kv;
	}
	return r;
}

/* ---- Tensors ----------------------------------------------------------------------------------------- */

static int tensor_error(const struct cursor *c, const char *name, const char *what)
{
	return err_set(c->err, -EBADMSG, "%s: tensor '%s': %s", c->part->path, name, what);
}

static int read_shape(struct cursor *c, struct eng_tensor *t)
{
	uint32_t n_dims;
	int r = read_u32(c, &n_dims);

	if (r < 0)
		return r;
	if (n_dims > MAX_DIMS)
		return tensor_error(c, t->name, "more than four dimensions");
	t->n_dims = n_dims;
	for (uint32_t d = 0; r == 0 && d < n_dims; d++)
		r = read_uint(c, 8, &t->shape[n_dims - 1 - d]);
	return r;
}

static int size_tensor(const struct cursor *c, struct eng_tensor *t, uint32_t type)
{
	const struct ggml_type *g;
	uint64_t n;

	g = type < sizeof(ggml_types) / sizeof(ggml_types[0]) ? &ggml_types[type] : NULL;
	if (!g || !g->name)
		return err_set(c->err, -EBADMSG, "%s: tensor '%s': unknown type %u", c->part->path, t->name, type);
	if (eng_tensor_elements(t, &n) < 0 ||
	    __builtin_mul_overflow(n / g->block_elems, (uint64_t)g->block_bytes, &t->size_bytes))
		return tensor_error(c, t->name, "shape overflows");
	if ((t->n_dims ? t->shape[t->n_dims - 1] : 1) % g->block_elems)
		return err_set(c->err, -EBADMSG, "%s: tensor '%s': rows of %llu values are not whole %s blocks of %u",
		               c->part->path, t->name, (unsigned long long)(t->n_dims ? t->shape[t->n_dims - 1] : 1),
		               g->name, g->block_elems);
	t->dtype = g->dtype;
	t->dtype_name = g->name;
	return 0;
}

/* Adds the tensor with its offset in place of a pointer: the data section is not known yet. */
static int read_tensor(struct cursor *c, struct eng_weights *w, uint64_t i, uint64_t alignment)
{
	struct eng_tensor t = { 0 };
	uint64_t offset = 0;
	const char *name;
	uint32_t type;
	size_t len;
	int r;

	r = read_name(c, "tensor", i, &name, &len);
	if (r < 0)
		return r;
	t.name = eng_arena_copy(&w->arena, name, len);
	if (!t.name)
		return err_set(c->err, -ENOMEM, "%s: out of memory", c->part->path);
	r = read_shape(c, &t);
	if (r == 0)
		r = read_u32(c, &type);
	if (r == 0)
		r = read_uint(c, 8, &offset);
	if (r == 0)
		r = size_tensor(c, &t, type);
	if (r < 0)
		return r;
	/* The file ends somewhere; nothing beyond its size can be a valid offset. */
	if (offset % alignment || offset > c->part->size)
		return err_set(c->err, -EBADMSG,
		               "%s: tensor '%s': offset %llu is outside the file or not aligned to %llu", c->part->path,
		               t.name, (unsigned long long)offset, (unsigned long long)alignment);
	t.data = c->part->data + offset;
	return eng_weights_add_tensor(w, c->part, &t, c->err);
}

static int place_tensors(struct cursor *c, struct eng_weights *w, size_t first, uint64_t alignment)
{
	uint64_t start = (uint64_t)(c->p - c->part->data), size;

	if (w->n_tensors == first)
		return 0;
	start = (start + alignment - 1) / alignment * alignment;
	size = start <= c->part->size ? c->part->size - start : 0;
	for (size_t i = first; i < w->n_tensors; i++) {
		struct eng_tensor *t = &w->tensors[i];
		uint64_t offset = (uint64_t)((const uint8_t *)t->data - c->part->data);

		if (offset > size || t->size_bytes > size - offset)
			return err_set(c->err, -EBADMSG,
			               "%s: tensor '%s': its %llu bytes at %llu are beyond the end "
			               "of the file: truncated",
			               c->part->path, t->name, (unsigned long long)t->size_bytes,
			               (unsigned long long)(start + offset));
		t->data = c->part->data + start + offset;
	}
	return eng_weights_check_layout(w, first, c->part, c->part->data + start, size, false, c->err);
}

/* ---- One part, and split sets ------------------------------------------------------------------------ */

static int read_version(struct cursor *c)
{
	uint32_t version = 0;
	int r = read_u32(c, &version);

	if (r < 0)
		return r;
	if (version == 2 || version == 3)
		return 0;
	if (version != 0 && (version & 0xffff) == 0)
		return err_set(c->err, -EBADMSG, "%s: big-endian GGUF is not supported", c->part->path);
	return err_set(c->err, -EBADMSG, "%s: GGUF version %u is not supported (2 and 3 are)", c->part->path, version);
}

static int read_part(struct eng_weights *w, const struct eng_part *part, bool with_metadata, struct part_header *h,
                     struct err *err)
{
	struct cursor c = { .part = part, .err = err };
	size_t first = w->n_tensors;
	int r;

	*h = (struct part_header){ .alignment = DEFAULT_ALIGNMENT };
	w->is_gguf = true;
	if (part->size < HEADER_BYTES || memcmp(part->data, "GGUF", 4) != 0)
		return err_set(err, -EBADMSG, "%s: not a GGUF file", part->path);
	c.p = part->data + 4;
	c.end = part->data + part->size;
	r = read_version(&c);
	if (r == 0)
		r = read_uint(&c, 8, &h->n_tensors);
	if (r == 0)
		r = read_uint(&c, 8, &h->n_kv);
	if (r == 0)
		r = read_metadata(&c, w, with_metadata, h);
	if (r < 0)
		return r;
	if (h->n_tensors > left(&c) / MIN_TENSOR_BYTES)
		return err_set(err, -EBADMSG, "%s: %llu tensors in %zu bytes", part->path,
		               (unsigned long long)h->n_tensors, left(&c));
	for (uint64_t i = 0; r == 0 && i < h->n_tensors; i++)
		r = read_tensor(&c, w, i, h->alignment);
	return r < 0 ? r : place_tensors(&c, w, first, h->alignment);
}

int eng_gguf_read(struct eng_weights *w, const struct eng_part *part, bool with_metadata, struct err *err)
{
	struct part_header h;
	int r = read_part(w, part, with_metadata, &h, err);

	if (r == 0 && h.split_count > 1)
		return err_set(err, -EBADMSG, "%s: one of a set of %llu, but not named NAME-00001-of-%05llu.gguf",
		               part->path, (unsigned long long)h.split_count, (unsigned long long)h.split_count);
	return r;
}

/* Splits "NAME-00002-of-00003.gguf" into the length of NAME and the numbers. */
static bool split_name(const char *path, size_t *ret_stem, unsigned *ret_no, unsigned *ret_count)
{
	static const char form[] = "-ddddd-of-ddddd.gguf";
	size_t n = strlen(path), m = sizeof(form) - 1;
	const char *p = path + n - m;

	if (n <= m)
		return false;
	for (size_t i = 0; i < m; i++) {
		if (i > 0 && form[i] == 'd' ? p[i] < '0' || p[i] > '9' : p[i] != form[i])
			return false;
	}
	*ret_stem = n - m;
	*ret_no = (unsigned)strtoul(p + 1, NULL, 10);
	*ret_count = (unsigned)strtoul(p + 10, NULL, 10);
	return *ret_no >= 1 && *ret_no <= *ret_count;
}

static int check_split(const struct eng_part *part, const struct part_header *h, unsigned no, unsigned count,
                       struct err *err)
{
	if (h->split_count != count || h->split_no != no - 1)
		return err_set(err, -EBADMSG, "%s: named part %u of %u, but split.no is %llu and split.count %llu",
		               part->path, no, count, (unsigned long long)h->split_no,
		               (unsigned long long)h->split_count);
	return 0;
}

int eng_gguf_open(struct eng_weights *w, const char *path, struct err *err)
{
	uint64_t promised = 0;
	unsigned no, count;
	size_t stem;
	int r;

	if (!split_name(path, &stem, &no, &count) || count == 1) {
		r = eng_weights_add_part(w, path, err);
		return r < 0 ? r : eng_gguf_read(w, &w->parts[0], true, err);
	}
	for (no = 1; no <= count; no++) {
		CLEANUP(freep) char *name = NULL;
		struct part_header h;

		if (asprintf(&name, "%.*s-%05u-of-%05u.gguf", (int)stem, path, no, count) < 0) {
			name = NULL;
			return err_set(err, -ENOMEM, "%s: out of memory", path);
		}
		r = eng_weights_add_part(w, name, err);
		if (r == 0)
			r = read_part(w, &w->parts[w->n_parts - 1], no == 1, &h, err);
		if (r == 0)
			r = check_split(&w->parts[w->n_parts - 1], &h, no, count, err);
		if (r < 0)
			return r;
		promised = no == 1 ? h.split_tensors : promised;
	}
	if (promised && promised != w->n_tensors)
		return err_set(err, -EBADMSG, "%s: the set has %zu tensors where split.tensors.count is %llu", path,
		               w->n_tensors, (unsigned long long)promised);
	return 0;
}
