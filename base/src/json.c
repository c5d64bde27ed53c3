/* JSON glue over jansson. Depth is checked before parsing, on the bytes, because jansson's own limit is
 * deeper than a thread's stack should be trusted with. */
#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/chars.h"
#include "base/cleanup.h"
#include "base/mapfile.h"

enum { MAX_DEPTH = 512 };

/* 0, or -EBADMSG when brackets outside strings nest deeper than the limit. */
static int check_depth(const char *p, size_t len)
{
	bool in_string = false;
	int depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (in_string) {
			if (p[i] == '\\')
				i++;
			else if (p[i] == '"')
				in_string = false;
		} else if (p[i] == '"') {
			in_string = true;
		} else if (p[i] == '{' || p[i] == '[') {
			if (++depth > MAX_DEPTH)
				return -EBADMSG;
		} else if (p[i] == '}' || p[i] == ']') {
			depth--;
		}
	}
	return 0;
}

int base_json_parse(const char *where, const void *data, size_t len, json_t **ret_value, struct err *err)
{
	json_error_t e;
	json_t *v;

	if (check_depth(data, len) < 0)
		return err_set(err, -EBADMSG, "%s: nested deeper than %d levels", where, MAX_DEPTH);
	v = json_loadb(data, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
	/* tokenizer_config.json's model_max_length is 10^30 where there is no limit: integers beyond 64 bits make
	 * all numbers of the document reals, which the getters below take for integers when they are whole. */
	if (!v && json_error_code(&e) == json_error_numeric_overflow)
		v = json_loadb(data, len,
		               JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &e);
	if (!v)
		return err_set(err, -EBADMSG, "%s: line %d column %d: %s", where, e.line, e.column, e.text);
	*ret_value = v;
	return 0;
}

int base_json_read_file(const char *path, size_t max_bytes, json_t **ret_value, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf buf = BASE_BUF_INIT(max_bytes);
	int r;

	r = base_read_file(path, &buf, err);
	if (r < 0)
		return r;
	return base_json_parse(path, base_buf_text(&buf), buf.len, ret_value, err);
}

static int append_cb(const char *data, size_t len, void *arg)
{
	return base_buf_append(arg, data, len) < 0 ? -1 : 0;
}

int base_json_append(struct base_buf *buf, const json_t *value)
{
	if (json_dump_callback(value, append_cb, buf, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
		return base_buf_error(buf) ? base_buf_error(buf) : -EINVAL;
	return 0;
}

int base_json_append_string(struct base_buf *buf, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	uint32_t cp;
	size_t n;

	(void)base_buf_putc(buf, '"');
	for (size_t i = 0; i < len; i += n) {
		n = base_utf8_get(text + i, len - i, &cp);
		if (n == 0) {
			n = 1;
			(void)base_buf_puts(buf, "\xef\xbf\xbd");
		} else if (p[i] == '"' || p[i] == '\\') {
			(void)base_buf_putc(buf, '\\');
			(void)base_buf_putc(buf, (char)p[i]);
		} else if (p[i] == '\n') {
			(void)base_buf_puts(buf, "\\n");
		} else if (p[i] < 0x20 || p[i] == 0x7f) {
			(void)base_buf_printf(buf, "\\u%04x", p[i]);
		} else {
			(void)base_buf_append(buf, p + i, n);
		}
	}
	return base_buf_putc(buf, '"');
}

const char *base_json_type_name(const json_t *value)
{
	if (!value)
		return "nothing";
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something";
}

static int wrong_type(const char *where, const char *key, const char *expected, const json_t *v, struct err *err)
{
	return err_set(err, -EINVAL, "%s: %s: expected %s, got %s", where, key, expected, base_json_type_name(v));
}

/* The member, or NULL when it is missing or null. */
static json_t *member(const json_t *obj, const char *key)
{
	json_t *v = json_object_get(obj, key);

	return json_is_null(v) ? NULL : v;
}

static int missing(int r, const char *where, const char *key, struct err *err)
{
	return r == 0 ? err_set(err, -ENOENT, "%s: %s: missing", where, key) : r < 0 ? r : 0;
}

int base_json_opt_i64(const json_t *obj, const char *where, const char *key, int64_t *ret, struct err *err)
{
	json_t *v = member(obj, key);
	double d;

	if (!v)
		return 0;
	if (json_is_real(v)) {
		/* Clients of loosely typed languages send 64.0 for 64. */
		d = json_real_value(v);
		if (d != floor(d) || fabs(d) > 9e15)
			return wrong_type(where, key, "an integer", v, err);
		*ret = (int64_t)d;
		return 1;
	}
	if (!json_is_integer(v))
		return wrong_type(where, key, "an integer", v, err);
	*ret = json_integer_value(v);
	return 1;
}

int base_json_opt_u32(const json_t *obj, const char *where, const char *key, uint32_t *ret, struct err *err)
{
	int64_t i = 0;
	int r = base_json_opt_i64(obj, where, key, &i, err);

	if (r <= 0)
		return r;
	if (i < 0 || i > (int64_t)UINT32_MAX)
		return err_set(err, -ERANGE, "%s: %s: %lld is out of range", where, key, (long long)i);
	*ret = (uint32_t)i;
	return 1;
}

int base_json_opt_double(const json_t *obj, const char *where, const char *key, double *ret, struct err *err)
{
	json_t *v = member(obj, key);

	if (!v)
		return 0;
	if (!json_is_number(v))
		return wrong_type(where, key, "a number", v, err);
	*ret = json_number_value(v);
	return 1;
}

int base_json_opt_bool(const json_t *obj, const char *where, const char *key, bool *ret, struct err *err)
{
	json_t *v = member(obj, key);

	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return wrong_type(where, key, "true or false", v, err);
	*ret = json_is_true(v);
	return 1;
}

int base_json_opt_string(const json_t *obj, const char *where, const char *key, const char **ret, struct err *err)
{
	json_t *v = member(obj, key);

	if (!v)
		return 0;
	if (!json_is_string(v))
		return wrong_type(where, key, "a string", v, err);
	*ret = json_string_value(v);
	return 1;
}

int base_json_opt_object(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err)
{
	json_t *v = member(obj, key);

	if (!v)
		return 0;
	if (!json_is_object(v))
		return wrong_type(where, key, "an object", v, err);
	*ret = v;
	return 1;
}

int base_json_opt_array(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err)
{
	json_t *v = member(obj, key);

	if (!v)
		return 0;
	if (!json_is_array(v))
		return wrong_type(where, key, "an array", v, err);
	*ret = v;
	return 1;
}

int base_json_get_u32(const json_t *obj, const char *where, const char *key, uint32_t *ret, struct err *err)
{
	return missing(base_json_opt_u32(obj, where, key, ret, err), where, key, err);
}

int base_json_get_string(const json_t *obj, const char *where, const char *key, const char **ret, struct err *err)
{
	return missing(base_json_opt_string(obj, where, key, ret, err), where, key, err);
}

int base_json_get_object(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err)
{
	return missing(base_json_opt_object(obj, where, key, ret, err), where, key, err);
}

int base_json_get_array(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err)
{
	return missing(base_json_opt_array(obj, where, key, ret, err), where, key, err);
}
