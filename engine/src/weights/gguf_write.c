/* Writing GGUF v3 (the layout is told in gguf.c). Metadata and tensor headers are collected in memory;
 * tensor data is borrowed or made on demand, so that a model larger than memory can be written. */
#include "weights/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "weights/weights_internal.h"

enum { VERSION = 3, ALIGNMENT = 32, MAX_DIMS = 4, MAX_HEADER = 1 << 30 };

struct out_tensor {
	enum kn_dtype dtype;
	uint64_t size, offset;
	const void *data;
	eng_gguf_make_fn make; /* or data */
	void *arg;
};

struct eng_gguf_writer {
	struct base_buf kvs, infos;
	uint64_t n_kvs, next_offset;
	struct out_tensor *tensors;
	size_t n_tensors;
	struct eng_arena arena;
	struct eng_names keys, names; /* seen already */
};

/* ggml's number of each type. */
static const uint8_t ggml_ids[KN_N_DTYPES] = {
	[KN_F32] = 0,  [KN_F16] = 1,  [KN_BF16] = 30, [KN_Q8_0] = 8,  [KN_Q4_0] = 2,  [KN_Q4_1] = 3,
	[KN_Q5_0] = 6, [KN_Q5_1] = 7, [KN_Q4_K] = 12, [KN_Q5_K] = 13, [KN_Q6_K] = 14,
};

int eng_gguf_writer_new(struct eng_gguf_writer **ret_writer)
{
	struct eng_gguf_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	base_buf_init(&w->kvs, MAX_HEADER);
	base_buf_init(&w->infos, MAX_HEADER);
	*ret_writer = w;
	return 0;
}

void eng_gguf_writer_free(struct eng_gguf_writer *w)
{
	if (!w)
		return;
	base_buf_done(&w->kvs);
	base_buf_done(&w->infos);
	free(w->tensors);
	eng_names_done(&w->keys);
	eng_names_done(&w->names);
	eng_arena_done(&w->arena);
	free(w);
}

static void put_uint(struct base_buf *b, uint64_t v, size_t size)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	(void)base_buf_append(b, bytes, size);
}

static void put_string(struct base_buf *b, const char *text, size_t len)
{
	put_uint(b, len, 8);
	(void)base_buf_append(b, text, len);
}

static void put_f32(struct base_buf *b, float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	put_uint(b, bits, 4);
}

/* Key and type; errors of the buffer are looked at once, when the value is in. */
static int begin_kv(struct eng_gguf_writer *w, const char *key, uint32_t type)
{
	const char *copy = eng_arena_copy(&w->arena, key, strlen(key));
	int r;

	if (!copy)
		return -ENOMEM;
	r = eng_names_add(&w->keys, copy, strlen(copy), 0);
	if (r < 0)
		return r;
	w->n_kvs++;
	put_string(&w->kvs, key, strlen(key));
	put_uint(&w->kvs, type, 4);
	return 0;
}

static int begin_array(struct eng_gguf_writer *w, const char *key, uint32_t type, uint64_t n)
{
	int r = begin_kv(w, key, ENG_GGUF_ARRAY);

	if (r < 0)
		return r;
	put_uint(&w->kvs, type, 4);
	put_uint(&w->kvs, n, 8);
	return 0;
}

static int add_uint(struct eng_gguf_writer *w, const char *key, uint32_t type, uint64_t value)
{
	int r = begin_kv(w, key, type);

	if (r < 0)
		return r;
	put_uint(&w->kvs, value, eng_gguf_type_size(type));
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_u32(struct eng_gguf_writer *w, const char *key, uint32_t value)
{
	return add_uint(w, key, ENG_GGUF_U32, value);
}

int eng_gguf_add_u64(struct eng_gguf_writer *w, const char *key, uint64_t value)
{
	return add_uint(w, key, ENG_GGUF_U64, value);
}

int eng_gguf_add_bool(struct eng_gguf_writer *w, const char *key, int value)
{
	return add_uint(w, key, ENG_GGUF_BOOL, value ? 1 : 0);
}

int eng_gguf_add_f32(struct eng_gguf_writer *w, const char *key, float value)
{
	int r = begin_kv(w, key, ENG_GGUF_F32);

	if (r < 0)
		return r;
	put_f32(&w->kvs, value);
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_string(struct eng_gguf_writer *w, const char *key, const char *text, size_t len)
{
	int r = begin_kv(w, key, ENG_GGUF_STRING);

	if (r < 0)
		return r;
	put_string(&w->kvs, text, len);
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_strings(struct eng_gguf_writer *w, const char *key, const char *const *texts, const size_t *lens,
                         uint64_t n)
{
	int r = begin_array(w, key, ENG_GGUF_STRING, n);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		put_string(&w->kvs, texts[i], lens[i]);
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_bools(struct eng_gguf_writer *w, const char *key, const bool *values, uint64_t n)
{
	int r = begin_array(w, key, ENG_GGUF_BOOL, n);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		put_uint(&w->kvs, values[i], 1);
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_u32s(struct eng_gguf_writer *w, const char *key, const uint32_t *values, uint64_t n)
{
	int r = begin_array(w, key, ENG_GGUF_U32, n);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		put_uint(&w->kvs, values[i], 4);
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_i32s(struct eng_gguf_writer *w, const char *key, const int32_t *values, uint64_t n)
{
	int r = begin_array(w, key, ENG_GGUF_I32, n);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		put_uint(&w->kvs, (uint32_t)values[i], 4);
	return base_buf_error(&w->kvs);
}

int eng_gguf_add_f32s(struct eng_gguf_writer *w, const char *key, const float *values, uint64_t n)
{
	int r = begin_array(w, key, ENG_GGUF_F32, n);

	if (r < 0)
		return r;
	for (uint64_t i = 0; i < n; i++)
		put_f32(&w->kvs, values[i]);
	return base_buf_error(&w->kvs);
}

static bool is_listed(const struct eng_gguf_kv *kv, const char *const *list)
{
	for (; *list; list++) {
		if (strlen(*list) == kv->key_len && memcmp(*list, kv->key, kv->key_len) == 0)
			return true;
	}
	return false;
}

int eng_gguf_add_copies(struct eng_gguf_writer *w, const struct eng_weights *weights, const char *const *without)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < weights->n_kvs; i++) {
		const struct eng_gguf_kv *kv = &weights->kvs[i];
		const char *key;

		if (is_listed(kv, without))
			continue;
		key = eng_arena_copy(&w->arena, kv->key, kv->key_len);
		if (!key)
			return -ENOMEM;
		r = kv->is_array ? begin_array(w, key, kv->type, kv->n) : begin_kv(w, key, kv->type);
		(void)base_buf_append(&w->kvs, kv->value, kv->size);
	}
	return r < 0 ? r : base_buf_error(&w->kvs);
}

/* ---- Tensors ----------------------------------------------------------------------------------------- */

static uint64_t padded(uint64_t size)
{
	return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int tensor_size(enum kn_dtype dtype, uint32_t n_dims, const uint64_t *shape, uint64_t *ret_size)
{
	uint64_t rows = 1, cols = n_dims ? shape[n_dims - 1] : 1, row_bytes;

	for (uint32_t i = 0; i + 1 < n_dims; i++) {
		if (__builtin_mul_overflow(rows, shape[i], &rows))
			return -EINVAL;
	}
	row_bytes = kn_row_bytes(dtype, cols);
	if (n_dims > MAX_DIMS || (cols && !row_bytes) || __builtin_mul_overflow(rows, row_bytes, ret_size) ||
	    *ret_size > UINT64_MAX / 2)
		return -EINVAL;
	return 0;
}

static int add_tensor(struct eng_gguf_writer *w, const char *name, uint32_t n_dims, const uint64_t *shape,
                      struct out_tensor t)
{
	struct out_tensor *p;
	const char *copy;
	int r;

	r = tensor_size(t.dtype, n_dims, shape, &t.size);
	if (r < 0)
		return r;
	copy = eng_arena_copy(&w->arena, name, strlen(name));
	p = reallocarray(w->tensors, w->n_tensors + 1, sizeof(*p));
	if (p)
		w->tensors = p;
	if (!copy || !p)
		return -ENOMEM;
	r = eng_names_add(&w->names, copy, strlen(copy), 0);
	if (r < 0)
		return r;
	t.offset = w->next_offset;
	w->next_offset += padded(t.size);
	w->tensors[w->n_tensors++] = t;
	put_string(&w->infos, name, strlen(name));
	put_uint(&w->infos, n_dims, 4);
	for (uint32_t i = n_dims; i-- > 0;)
		put_uint(&w->infos, shape[i], 8);
	put_uint(&w->infos, ggml_ids[t.dtype], 4);
	put_uint(&w->infos, t.offset, 8);
	return base_buf_error(&w->infos);
}

int eng_gguf_add_tensor(struct eng_gguf_writer *w, const char *name, enum kn_dtype dtype, uint32_t n_dims,
                        const uint64_t *shape, const void *data)
{
	return add_tensor(w, name, n_dims, shape, (struct out_tensor){ .dtype = dtype, .data = data });
}

int eng_gguf_add_tensor_made(struct eng_gguf_writer *w, const char *name, enum kn_dtype dtype, uint32_t n_dims,
                             const uint64_t *shape, eng_gguf_make_fn make, void *arg)
{
	return add_tensor(w, name, n_dims, shape, (struct out_tensor){ .dtype = dtype, .make = make, .arg = arg });
}

/* ---- The file ---------------------------------------------------------------------------------------- */

static int write_at(int fd, const void *data, uint64_t size, uint64_t offset)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = pwrite(fd, p, size < (1u << 30) ? (size_t)size : 1u << 30, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		size -= (uint64_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int write_header(const struct eng_gguf_writer *w, int fd, uint64_t *ret_data_start)
{
	CLEANUP(base_buf_done) struct base_buf head = BASE_BUF_INIT(64);
	uint64_t at = 0;
	int r;

	(void)base_buf_puts(&head, "GGUF");
	put_uint(&head, VERSION, 4);
	put_uint(&head, w->n_tensors, 8);
	put_uint(&head, w->n_kvs, 8);
	r = base_buf_error(&head);
	if (r == 0)
		r = write_at(fd, head.data, head.len, at);
	at += head.len;
	if (r == 0 && w->kvs.len)
		r = write_at(fd, w->kvs.data, w->kvs.len, at);
	at += w->kvs.len;
	if (r == 0 && w->infos.len)
		r = write_at(fd, w->infos.data, w->infos.len, at);
	*ret_data_start = padded(at + w->infos.len);
	return r;
}

static int write_tensors(const struct eng_gguf_writer *w, int fd, uint64_t start, struct err *err)
{
	CLEANUP(freep) void *made = NULL;
	uint64_t cap = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < w->n_tensors; i++) {
		const struct out_tensor *t = &w->tensors[i];
		const void *data = t->data;

		if (t->make) {
			if (t->size > cap) {
				free(made);
				cap = t->size;
				made = malloc(cap);
				if (!made)
					return -ENOMEM;
			}
			r = t->make(t->arg, made, t->size, err);
			data = made;
		}
		if (r == 0)
			r = write_at(fd, data, t->size, start + t->offset);
	}
	return r;
}

static int write_file(const struct eng_gguf_writer *w, int fd, struct err *err)
{
	uint64_t start;
	int r;

	if (base_buf_error(&w->kvs) || base_buf_error(&w->infos))
		return base_buf_error(&w->kvs) ? base_buf_error(&w->kvs) : base_buf_error(&w->infos);
	r = write_header(w, fd, &start);
	if (r == 0)
		r = write_tensors(w, fd, start, err);
	/* The last padding too: readers may expect whole aligned pieces. */
	if (r == 0 && ftruncate(fd, (off_t)(start + w->next_offset)) < 0)
		r = -errno;
	return r;
}

int eng_gguf_write(struct eng_gguf_writer *w, const char *path, struct err *err)
{
	CLEANUP(freep) char *tmp = NULL;
	CLEANUP(close_fdp) int fd = -1;
	struct err inner = { 0 };
	int r;

	if (asprintf(&tmp, "%s.XXXXXX", path) < 0) {
		tmp = NULL;
		return err_set(err, -ENOMEM, "%s: out of memory", path);
	}
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "%s: %s", tmp, strerror(errno));
	r = write_file(w, fd, &inner);
	if (r == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0))
		r = -errno;
	if (r == 0)
		return 0;
	(void)unlink(tmp);
	return err_set(err, r, "%s: %s", path, inner.code ? inner.msg : strerror(-r));
}
