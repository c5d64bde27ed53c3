/* Typed access to GGUF metadata. Values were checked to be complete when the file was opened. */
#include "weights/weights_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static int find(const struct eng_weights *w, const char *key, const struct eng_gguf_kv **ret, struct err *err)
{
	uint32_t i;

	if (!eng_names_find(&w->kv_names, key, strlen(key), &i))
		return err_set(err, -ENOENT, "%s: no key '%s'", w->n_parts ? w->parts[0].path : "weights", key);
	*ret = &w->kvs[i];
	return 0;
}

static int wrong_type(const struct eng_weights *w, const struct eng_gguf_kv *kv, const char *expected, struct err *err)
{
	return err_set(err, -EINVAL, "%s: key '%.*s': expected %s, got %s%s", w->parts[0].path, (int)kv->key_len,
	               kv->key, expected, kv->is_array ? "an array of " : "", eng_gguf_type_name(kv->type));
}

static uint64_t load(const uint8_t *p, size_t size)
{
	uint64_t v = 0;

	for (size_t i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static bool is_float(uint32_t type)
{
	return type == ENG_GGUF_F32 || type == ENG_GGUF_F64;
}

static bool is_signed(uint32_t type)
{
	return type == ENG_GGUF_I8 || type == ENG_GGUF_I16 || type == ENG_GGUF_I32 || type == ENG_GGUF_I64;
}

static bool is_number(uint32_t type)
{
	return eng_gguf_type_size(type) != 0;
}

/* Integer or bool; -ERANGE above INT64_MAX. */
static int load_int(uint32_t type, const uint8_t *p, int64_t *ret)
{
	size_t size = eng_gguf_type_size(type);
	uint64_t v = load(p, size);

	if (is_signed(type) && size < 8 && v >> (8 * size - 1))
		v |= ~(uint64_t)0 << (8 * size);
	if (type == ENG_GGUF_U64 && v > INT64_MAX)
		return -ERANGE;
	*ret = (int64_t)v;
	return 0;
}

static double load_real(uint32_t type, const uint8_t *p)
{
	uint64_t bits = load(p, eng_gguf_type_size(type));
	uint32_t bits32 = (uint32_t)bits;
	int64_t i = 0;
	double d;
	float f;

	if (type == ENG_GGUF_F64) {
		memcpy(&d, &bits, sizeof(d));
		return d;
	}
	if (type == ENG_GGUF_F32) {
		memcpy(&f, &bits32, sizeof(f));
		return (double)f;
	}
	if (load_int(type, p, &i) < 0)
		return (double)bits;
	return (double)i;
}

int eng_gguf_get_u32(const struct eng_weights *weights, const char *key, uint32_t *ret, struct err *err)
{
	const struct eng_gguf_kv *kv;
	int64_t i = 0;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (kv->is_array || !is_number(kv->type) || is_float(kv->type) || kv->type == ENG_GGUF_BOOL)
		return wrong_type(weights, kv, "an integer", err);
	if (load_int(kv->type, kv->value, &i) < 0 || i < 0 || i > (int64_t)UINT32_MAX)
		return err_set(err, -ERANGE, "%s: key '%s': value out of range", weights->parts[0].path, key);
	*ret = (uint32_t)i;
	return 0;
}

int eng_gguf_get_f32(const struct eng_weights *weights, const char *key, float *ret, struct err *err)
{
	const struct eng_gguf_kv *kv;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (kv->is_array || !is_number(kv->type) || kv->type == ENG_GGUF_BOOL)
		return wrong_type(weights, kv, "a number", err);
	*ret = (float)load_real(kv->type, kv->value);
	return 0;
}

int eng_gguf_get_bool(const struct eng_weights *weights, const char *key, bool *ret, struct err *err)
{
	const struct eng_gguf_kv *kv;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (kv->is_array || kv->type != ENG_GGUF_BOOL)
		return wrong_type(weights, kv, "a bool", err);
	*ret = kv->value[0] != 0;
	return 0;
}

static size_t load_string(const uint8_t *p, const char **ret_text)
{
	*ret_text = (const char *)p + 8;
	return (size_t)load(p, 8);
}

int eng_gguf_get_string(const struct eng_weights *weights, const char *key, const char **ret_text, size_t *ret_len,
                        struct err *err)
{
	const struct eng_gguf_kv *kv;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (kv->is_array || kv->type != ENG_GGUF_STRING)
		return wrong_type(weights, kv, "a string", err);
	*ret_len = load_string(kv->value, ret_text);
	return 0;
}

int eng_gguf_each_string(const struct eng_weights *weights, const char *key,
                         int (*fn)(void *arg, uint64_t i, const char *text, size_t len), void *arg, struct err *err)
{
	const struct eng_gguf_kv *kv;
	const uint8_t *p;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (!kv->is_array || kv->type != ENG_GGUF_STRING)
		return wrong_type(weights, kv, "an array of strings", err);
	p = kv->value;
	for (uint64_t i = 0; r == 0 && i < kv->n; i++) {
		const char *text;
		size_t len = load_string(p, &text);

		r = fn(arg, i, text, len);
		p += 8 + len;
	}
	return r;
}

int eng_gguf_get_i32_array(const struct eng_weights *weights, const char *key, int32_t **ret, uint64_t *ret_n,
                           struct err *err)
{
	CLEANUP(freep) int32_t *values = NULL;
	const struct eng_gguf_kv *kv;
	size_t size;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (!is_number(kv->type) || is_float(kv->type))
		return wrong_type(weights, kv, "an array of integers", err);
	values = calloc(kv->n ? kv->n : 1, sizeof(*values));
	if (!values)
		return err_set(err, -ENOMEM, "%s: key '%s': out of memory", weights->parts[0].path, key);
	size = eng_gguf_type_size(kv->type);
	for (uint64_t i = 0; i < kv->n; i++) {
		int64_t v = 0;

		if (load_int(kv->type, kv->value + i * size, &v) < 0 || v < INT32_MIN || v > INT32_MAX)
			return err_set(err, -ERANGE, "%s: key '%s': element %llu is out of range",
			               weights->parts[0].path, key, (unsigned long long)i);
		values[i] = (int32_t)v;
	}
	*ret = values;
	*ret_n = kv->n;
	values = NULL;
	return 0;
}

int eng_gguf_get_f32_array(const struct eng_weights *weights, const char *key, float **ret, uint64_t *ret_n,
                           struct err *err)
{
	const struct eng_gguf_kv *kv;
	float *values;
	size_t size;
	int r;

	r = find(weights, key, &kv, err);
	if (r < 0)
		return r;
	if (!is_number(kv->type) || kv->type == ENG_GGUF_BOOL)
		return wrong_type(weights, kv, "an array of numbers", err);
	values = calloc(kv->n ? kv->n : 1, sizeof(*values));
	if (!values)
		return err_set(err, -ENOMEM, "%s: key '%s': out of memory", weights->parts[0].path, key);
	size = eng_gguf_type_size(kv->type);
	for (uint64_t i = 0; i < kv->n; i++)
		values[i] = (float)load_real(kv->type, kv->value + i * size);
	*ret = values;
	*ret_n = kv->n;
	return 0;
}
