/* Typed access to the fields of a request body; every refusal names the field and what was found. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "params.h"

int http_bad_field(struct http_error *e, const char *param, const char *fmt, ...)
{
	va_list ap;
	int n = 0;

	e->status = 400;
	e->type = "invalid_request_error";
	(void)snprintf(e->param, sizeof(e->param), "%s", param ? param : "");
	if (param)
		n = snprintf(e->message, sizeof(e->message), "%s: ", param);
	if (n < 0 || (size_t)n >= sizeof(e->message))
		n = 0;
	va_start(ap, fmt);
	(void)vsnprintf(e->message + n, sizeof(e->message) - (size_t)n, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

int http_parse_object(const char *data, size_t len, json_t **ret_body, struct http_error *e)
{
	struct err err = { 0 };
	json_t *v = NULL;

	if (len == 0)
		return http_bad_field(e, NULL, "the request body is empty, expected a JSON object");
	if (base_json_parse("request body", data, len, &v, &err) < 0)
		return http_bad_field(e, NULL, "%s", err_text(&err));
	if (!json_is_object(v)) {
		(void)http_bad_field(e, NULL, "request body: expected an object, got %s", base_json_type_name(v));
		json_decref(v);
		return -EINVAL;
	}
	*ret_body = v;
	return 0;
}

const json_t *http_field(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);

	return json_is_null(v) ? NULL : v;
}

int http_opt_bool(const json_t *obj, const char *key, bool *ret, struct http_error *e)
{
	const json_t *v = http_field(obj, key);

	if (!v)
		return 0;
	if (!json_is_boolean(v))
		return http_bad_field(e, key, "expected a boolean, got %s", base_json_type_name(v));
	*ret = json_is_true(v);
	return 1;
}

int http_opt_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret, struct http_error *e)
{
	const json_t *v = http_field(obj, key);
	double d;

	if (!v)
		return 0;
	if (!json_is_number(v))
		return http_bad_field(e, key, "expected an integer, got %s", base_json_type_name(v));
	d = json_number_value(v);
	/* 16.0 is an integer to many clients. */
	if (json_is_real(v) && (d != floor(d) || fabs(d) > 9e15))
		return http_bad_field(e, key, "expected an integer, got %g", d);
	*ret = json_is_real(v) ? (int64_t)d : (int64_t)json_integer_value(v);
	if (*ret < min || *ret > max)
		return http_bad_field(e, key, "must be from %lld to %lld, got %lld", (long long)min, (long long)max,
		                      (long long)*ret);
	return 1;
}

int http_opt_float(const json_t *obj, const char *key, double min, double max, float *ret, struct http_error *e)
{
	const json_t *v = http_field(obj, key);
	double d;

	if (!v)
		return 0;
	if (!json_is_number(v))
		return http_bad_field(e, key, "expected a number, got %s", base_json_type_name(v));
	d = json_number_value(v);
	if (!(d >= min && d <= max))
		return http_bad_field(e, key, "must be from %g to %g, got %g", min, max, d);
	*ret = (float)d;
	return 1;
}

int http_ids(const json_t *value, const char *param, int32_t **ret_ids, size_t *ret_n, struct http_error *e)
{
	size_t n = json_array_size(value);
	int32_t *ids;

	if (!json_is_array(value))
		return http_bad_field(e, param, "expected an array of token ids, got %s", base_json_type_name(value));
	ids = calloc(n ? n : 1, sizeof(*ids));
	if (!ids)
		return http_bad_field(e, param, "out of memory");
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(value, i);
		json_int_t id = json_integer_value(v);

		if (!json_is_integer(v) || id < 0 || id > INT32_MAX) {
			free(ids);
			return http_bad_field(e, param, "element %zu is not a token id", i);
		}
		ids[i] = (int32_t)id;
	}
	*ret_ids = ids;
	*ret_n = n;
	return 0;
}

void http_copy_field(json_t *dst, const char *to, const json_t *src, const char *from)
{
	json_t *v = (json_t *)http_field(src, from);

	if (v)
		(void)json_object_set(dst, to, v);
}
