/* Glue over jansson: parsing with limits, and typed access whose errors name where and what.
 *
 * `where` in the getters is the place a person knows ("config.json", "request body"); errors read
 * "config.json: hidden_size: expected a number, got a string". Values returned are borrowed from the
 * object. Getters come in two kinds: _get_ fails when the key is missing (-ENOENT) or of the wrong
 * type (-EINVAL); _opt_ leaves *ret untouched and returns 0 when it is missing or null, 1 when read. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* Parses bytes that need not be NUL-terminated. Refuses trailing garbage, duplicate keys, invalid
 * UTF-8 and nesting deeper than 512 with -EBADMSG and line and column. Strings may hold U+0000. */
int base_json_parse(const char *where, const void *data, size_t len, json_t **ret_value, struct err *err);
int base_json_read_file(const char *path, size_t max_bytes, json_t **ret_value, struct err *err);

/* Appends compact JSON (UTF-8 kept, slashes not escaped). */
int base_json_append(struct base_buf *buf, const json_t *value);
/* Appends the text as a quoted JSON string; the text is UTF-8, invalid bytes become U+FFFD. */
int base_json_append_string(struct base_buf *buf, const char *text, size_t len);

int base_json_get_u32(const json_t *obj, const char *where, const char *key, uint32_t *ret, struct err *err);
int base_json_get_string(const json_t *obj, const char *where, const char *key, const char **ret, struct err *err);
int base_json_get_object(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err);
int base_json_get_array(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err);

int base_json_opt_u32(const json_t *obj, const char *where, const char *key, uint32_t *ret, struct err *err);
int base_json_opt_i64(const json_t *obj, const char *where, const char *key, int64_t *ret, struct err *err);
int base_json_opt_double(const json_t *obj, const char *where, const char *key, double *ret, struct err *err);
int base_json_opt_bool(const json_t *obj, const char *where, const char *key, bool *ret, struct err *err);
int base_json_opt_string(const json_t *obj, const char *where, const char *key, const char **ret, struct err *err);
int base_json_opt_object(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err);
int base_json_opt_array(const json_t *obj, const char *where, const char *key, json_t **ret, struct err *err);

/* "a string", "an object", ... for messages. */
const char *base_json_type_name(const json_t *value);

#endif
