/* safetensors: 8 bytes of little-endian header length N, N bytes of JSON, then the data.
 *
 *   { "__metadata__": { "format": "pt", ... },
 *     "name": { "dtype": "BF16", "shape": [640, 64], "data_offsets": [0, 81920] }, ... }
 *
 * Offsets count from the first byte after the header. As the format's own reader does, N is limited to
 * 100 MB, and the data must be covered by tensors without holes or overlap: nothing may hide in a file.
 * The header may be padded with spaces. A shard index is JSON with "weight_map": { name: file }. */
#include "weights/weights_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "weights/jsonscan.h"

enum { LENGTH_BYTES = 8, MAX_HEADER = 100000000, MAX_INDEX = 100000000 };

static const struct st_dtype {
	const char *name;
	uint32_t bits;
	enum kn_dtype dtype;
} dtypes[] = {
	{ "BF16", 16, KN_BF16 },       { "F16", 16, KN_F16 },         { "F32", 32, KN_F32 },
	{ "F64", 64, KN_N_DTYPES },    { "F8_E4M3", 8, KN_N_DTYPES }, { "F8_E5M2", 8, KN_N_DTYPES },
	{ "F8_E8M0", 8, KN_N_DTYPES }, { "F4", 4, KN_N_DTYPES },      { "BOOL", 8, KN_N_DTYPES },
	{ "U8", 8, KN_N_DTYPES },      { "I8", 8, KN_N_DTYPES },      { "U16", 16, KN_N_DTYPES },
	{ "I16", 16, KN_N_DTYPES },    { "U32", 32, KN_N_DTYPES },    { "I32", 32, KN_N_DTYPES },
	{ "U64", 64, KN_N_DTYPES },    { "I64", 64, KN_N_DTYPES },
};

static const struct st_dtype *find_dtype(const char *name)
{
	for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
		if (strcmp(name, dtypes[i].name) == 0)
			return &dtypes[i];
	}
	return NULL;
}

static int tensor_error(const struct eng_part *part, const char *name, const char *what, struct err *err)
{
	return err_set(err, -EBADMSG, "%s: tensor '%s': %s", part->path, name, what);
}

static int scan_shape(struct eng_scan *s, const struct eng_part *part, struct eng_tensor *t)
{
	bool first = true;
	int r;

	r = eng_scan_expect(s, '[');
	while (r == 0 && (r = eng_scan_next(s, ']', &first)) > 0) {
		if (t->n_dims == ENG_TENSOR_MAX_DIMS)
			return tensor_error(part, t->name, "too many dimensions", s->err);
		r = eng_scan_u64(s, &t->shape[t->n_dims++]);
	}
	return r;
}

static int scan_offsets(struct eng_scan *s, uint64_t offsets[2])
{
	int r = eng_scan_expect(s, '[');

	if (r == 0)
		r = eng_scan_u64(s, &offsets[0]);
	if (r == 0)
		r = eng_scan_expect(s, ',');
	if (r == 0)
		r = eng_scan_u64(s, &offsets[1]);
	if (r == 0)
		r = eng_scan_expect(s, ']');
	return r;
}

enum { HAS_DTYPE = 1u << 0, HAS_SHAPE = 1u << 1, HAS_OFFSETS = 1u << 2, HAS_ALL = 7 };

/* One member of a tensor's object; *seen collects HAS_ bits. */
static int scan_member(struct eng_scan *s, const struct eng_part *part, struct eng_tensor *t, uint64_t offsets[2],
                       unsigned *seen)
{
	const char *key, *text;
	unsigned bit;
	int r;

	r = eng_scan_string(s, &key, NULL);
	if (r == 0)
		r = eng_scan_expect(s, ':');
	if (r < 0)
		return r;
	bit = strcmp(key, "dtype") == 0          ? HAS_DTYPE
	      : strcmp(key, "shape") == 0        ? HAS_SHAPE
	      : strcmp(key, "data_offsets") == 0 ? HAS_OFFSETS
	                                         : 0;
	if (*seen & bit)
		return tensor_error(part, t->name, "a member appears twice", s->err);
	*seen |= bit;
	if (bit == HAS_SHAPE)
		return scan_shape(s, part, t);
	if (bit == HAS_OFFSETS)
		return scan_offsets(s, offsets);
	if (!bit)
		return eng_scan_skip(s);
	r = eng_scan_string(s, &text, NULL);
	if (r == 0)
		t->dtype_name = text;
	return r;
}

/* Type, shape and offsets must tell the same size. */
static int check_tensor(const struct eng_part *part, struct eng_tensor *t, const uint64_t offsets[2],
                        const uint8_t *data, uint64_t data_size, struct err *err)
{
	const struct st_dtype *dt = find_dtype(t->dtype_name);
	uint64_t n, bits;

	if (!dt)
		return err_set(err, -EBADMSG, "%s: tensor '%s': unknown dtype '%s'", part->path, t->name,
		               t->dtype_name);
	if (eng_tensor_elements(t, &n) < 0 || __builtin_mul_overflow(n, (uint64_t)dt->bits, &bits) || bits % 8)
		return tensor_error(part, t->name, "shape overflows", err);
	if (offsets[0] > offsets[1] || offsets[1] > data_size)
		return err_set(err, -EBADMSG,
		               "%s: tensor '%s': data_offsets [%llu, %llu] outside the %llu bytes of data", part->path,
		               t->name, (unsigned long long)offsets[0], (unsigned long long)offsets[1],
		               (unsigned long long)data_size);
	if (offsets[1] - offsets[0] != bits / 8)
		return err_set(err, -EBADMSG, "%s: tensor '%s': %llu bytes where its shape needs %llu", part->path,
		               t->name, (unsigned long long)(offsets[1] - offsets[0]), (unsigned long long)(bits / 8));
	t->dtype = dt->dtype;
	t->dtype_name = dt->name;
	t->data = data + offsets[0];
	t->size_bytes = bits / 8;
	return 0;
}

static int scan_tensor(struct eng_scan *s, struct eng_weights *w, const struct eng_part *part, const char *name,
                       const uint8_t *data, uint64_t data_size)
{
	struct eng_tensor t = { .name = name };
	uint64_t offsets[2] = { 0, 0 };
	unsigned seen = 0;
	bool first = true;
	int r;

	r = eng_scan_expect(s, '{');
	while (r == 0 && (r = eng_scan_next(s, '}', &first)) > 0)
		r = scan_member(s, part, &t, offsets, &seen);
	if (r < 0)
		return r;
	if (seen != HAS_ALL)
		return tensor_error(part, name,
		                    !(seen & HAS_DTYPE)   ? "dtype is missing"
		                    : !(seen & HAS_SHAPE) ? "shape is missing"
		                                          : "data_offsets is missing",
		                    s->err);
	r = check_tensor(part, &t, offsets, data, data_size, s->err);
	return r < 0 ? r : eng_weights_add_tensor(w, part, &t, s->err);
}

static int scan_header(struct eng_scan *s, struct eng_weights *w, const struct eng_part *part, const uint8_t *data,
                       uint64_t data_size)
{
	bool first = true;
	int r;

	r = eng_scan_expect(s, '{');
	while (r == 0 && (r = eng_scan_next(s, '}', &first)) > 0) {
		const char *name;
		size_t len;

		r = eng_scan_string(s, &name, &len);
		if (r == 0)
			r = eng_scan_expect(s, ':');
		if (r < 0)
			return r;
		if (strcmp(name, "__metadata__") == 0)
			r = eng_scan_skip(s);
		else if (len == 0)
			r = err_set(s->err, -EBADMSG, "%s: a tensor has no name", part->path);
		else
			r = scan_tensor(s, w, part, name, data, data_size);
	}
	return r < 0 ? r : eng_scan_end(s);
}

int eng_safetensors_read(struct eng_weights *w, const struct eng_part *part, struct err *err)
{
	CLEANUP(freep) char *where = NULL;
	size_t first = w->n_tensors, data_size;
	struct eng_scan s;
	uint64_t n = 0;
	int r;

	if (part->size < LENGTH_BYTES)
		return err_set(err, -EBADMSG, "%s: %zu bytes are too few for a safetensors file", part->path,
		               part->size);
	for (int i = 0; i < LENGTH_BYTES; i++)
		n |= (uint64_t)part->data[i] << (8 * i);
	if (n > MAX_HEADER)
		return err_set(err, -EBADMSG,
		               "%s: not a safetensors file, or its header of %llu bytes is beyond 100 MB", part->path,
		               (unsigned long long)n);
	if (n > part->size - LENGTH_BYTES)
		return err_set(err, -EBADMSG, "%s: header of %llu bytes in a file of %zu: truncated", part->path,
		               (unsigned long long)n, part->size);
	if (asprintf(&where, "%s: header", part->path) < 0) {
		where = NULL;
		return err_set(err, -ENOMEM, "%s: out of memory", part->path);
	}
	s = (struct eng_scan){
		.where = where,
		.begin = (const char *)part->data + LENGTH_BYTES,
		.p = (const char *)part->data + LENGTH_BYTES,
		.end = (const char *)part->data + LENGTH_BYTES + n,
		.arena = &w->arena,
		.err = err,
	};
	data_size = part->size - LENGTH_BYTES - (size_t)n;
	r = scan_header(&s, w, part, (const uint8_t *)s.end, data_size);
	if (r < 0)
		return r;
	return eng_weights_check_layout(w, first, part, (const uint8_t *)s.end, data_size, true, err);
}

/* ---- Shard index ------------------------------------------------------------------------------------- */

struct shards {
	struct eng_weights *w;
	const char *index_path;
	size_t dir_len;           /* of index_path, with the slash */
	struct eng_names files;   /* shard file name to part number */
	struct eng_names entries; /* tensor name to part number */
	struct err *err;
};

static void shards_done(struct shards *s)
{
	eng_names_done(&s->files);
	eng_names_done(&s->entries);
}

static int open_shard(struct shards *s, const char *file, size_t len, const char *tensor, uint32_t *ret_part)
{
	CLEANUP(freep) char *path = NULL;
	int r;

	if (eng_names_find(&s->files, file, len, ret_part))
		return 0;
	if (len == 0 || file[0] == '.' || strchr(file, '/') || strchr(file, '\\'))
		return err_set(s->err, -EBADMSG, "%s: weight_map: tensor '%s': '%s' is not a plain file name",
		               s->index_path, tensor, file);
	if (asprintf(&path, "%.*s%s", (int)s->dir_len, s->index_path, file) < 0) {
		path = NULL;
		return err_set(s->err, -ENOMEM, "%s: out of memory", s->index_path);
	}
	*ret_part = (uint32_t)s->w->n_parts;
	r = eng_weights_add_part(s->w, path, s->err);
	if (r < 0)
		return err_prefix(s->err, r, "%s: weight_map: tensor '%s': ", s->index_path, tensor);
	r = eng_safetensors_read(s->w, &s->w->parts[*ret_part], s->err);
	if (r < 0)
		return r;
	r = eng_names_add(&s->files, file, len, *ret_part);
	return r < 0 ? err_set(s->err, r, "%s: out of memory", s->index_path) : 0;
}

/* The part whose bytes a tensor lies in. */
static const struct eng_part *part_of(const struct eng_weights *w, const struct eng_tensor *t)
{
	for (size_t i = 0; i < w->n_parts; i++) {
		const struct eng_part *p = &w->parts[i];

		if ((const uint8_t *)t->data >= p->data && (const uint8_t *)t->data <= p->data + p->size)
			return p;
	}
	return NULL;
}

/* An entry of the map: its shard is opened at once, and must hold the tensor. */
static int check_entry(struct shards *s, const char *tensor, size_t tensor_len, const char *file, size_t file_len)
{
	const struct eng_part *part, *holder;
	const struct eng_tensor *t;
	uint32_t i;
	int r;

	r = open_shard(s, file, file_len, tensor, &i);
	if (r < 0)
		return r;
	part = &s->w->parts[i];
	r = eng_names_add(&s->entries, tensor, tensor_len, i);
	if (r == -EEXIST)
		return err_set(s->err, -EBADMSG, "%s: weight_map: tensor '%s': appears twice", s->index_path, tensor);
	if (r < 0)
		return err_set(s->err, r, "%s: out of memory", s->index_path);
	t = eng_weights_find(s->w, tensor);
	if (!t)
		return err_set(s->err, -EBADMSG, "%s: tensor '%s': not in this shard, where the index has it",
		               part->path, tensor);
	if ((const uint8_t *)t->data >= part->data && (const uint8_t *)t->data <= part->data + part->size)
		return 0;
	holder = part_of(s->w, t);
	return err_set(s->err, -EBADMSG, "%s: tensor '%s': the index has it here, but it is in %s", part->path, tensor,
	               holder ? holder->path : "another shard");
}

static int scan_weight_map(struct eng_scan *scan, struct shards *s)
{
	bool first = true;
	int r = eng_scan_expect(scan, '{');

	while (r == 0 && (r = eng_scan_next(scan, '}', &first)) > 0) {
		const char *tensor, *file;
		size_t tensor_len, file_len;

		r = eng_scan_string(scan, &tensor, &tensor_len);
		if (r == 0)
			r = eng_scan_expect(scan, ':');
		if (r == 0)
			r = eng_scan_string(scan, &file, &file_len);
		if (r == 0)
			r = check_entry(s, tensor, tensor_len, file, file_len);
	}
	return r;
}

int eng_safetensors_open_index(struct eng_weights *w, const char *index_path, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(MAX_INDEX);
	CLEANUP(shards_done) struct shards shards = { .w = w, .index_path = index_path, .err = err };
	const char *slash = strrchr(index_path, '/'), *key;
	struct eng_scan s;
	bool first = true, found = false;
	int r;

	shards.dir_len = slash ? (size_t)(slash - index_path) + 1 : 0;
	r = base_read_file(index_path, &buf, err);
	if (r < 0)
		return r;
	s = (struct eng_scan){ .where = index_path, .arena = &w->arena, .err = err };
	s.begin = s.p = base_buf_text(&buf);
	s.end = s.begin + buf.len;
	r = eng_scan_expect(&s, '{');
	while (r == 0 && (r = eng_scan_next(&s, '}', &first)) > 0) {
		r = eng_scan_string(&s, &key, NULL);
		if (r == 0)
			r = eng_scan_expect(&s, ':');
		if (r < 0)
			return r;
		if (strcmp(key, "weight_map") != 0) {
			r = eng_scan_skip(&s);
			continue;
		}
		if (found)
			return err_set(err, -EBADMSG, "%s: weight_map appears twice", index_path);
		found = true;
		r = scan_weight_map(&s, &shards);
	}
	if (r == 0)
		r = eng_scan_end(&s);
	if (r < 0)
		return r;
	return found ? 0 : err_set(err, -EBADMSG, "%s: no weight_map", index_path);
}
