/* What etcd's JSON gateway answers (etcd v3.3 and later): numbers of 64 bits are strings, keys and values base64. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "peer/membership.h"

enum { MAX_ITEMS = PEER_MAX_MEMBERS };

int etcd_base64(const void *data, size_t size, struct base_buf *buf)
{
	static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *p = data;

	for (size_t i = 0; i < size; i += 3) {
		uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < size ? (uint32_t)p[i + 1] << 8 : 0) |
		             (i + 2 < size ? p[i + 2] : 0);

		(void)base_buf_putc(buf, set[v >> 18]);
		(void)base_buf_putc(buf, set[v >> 12 & 63]);
		(void)base_buf_putc(buf, i + 1 < size ? set[v >> 6 & 63] : '=');
		(void)base_buf_putc(buf, i + 2 < size ? set[v & 63] : '=');
	}
	return base_buf_error(buf);
}

static int value_of(char c)
{
	return c >= 'A' && c <= 'Z'   ? c - 'A'
	       : c >= 'a' && c <= 'z' ? c - 'a' + 26
	       : c >= '0' && c <= '9' ? c - '0' + 52
	       : c == '+'             ? 62
	       : c == '/'             ? 63
	                              : -1;
}

/* The bytes as 0-terminated text; NULL when it is not base64 or holds a 0. */
static char *from_base64(const char *text)
{
	size_t n = strlen(text), used = 0;
	char *out = n % 4 == 0 ? malloc(n / 4 * 3 + 1) : NULL;

	for (size_t i = 0; out && i < n; i += 4) {
		int a = value_of(text[i]), b = value_of(text[i + 1]);
		bool last = i + 4 == n, pad1 = last && text[i + 3] == '=', pad2 = pad1 && text[i + 2] == '=';
		int c = pad2 ? 0 : value_of(text[i + 2]), d = pad1 ? 0 : value_of(text[i + 3]);

		if (a < 0 || b < 0 || c < 0 || d < 0) {
			free(out);
			return NULL;
		}
		out[used++] = (char)(a << 2 | b >> 4);
		if (!pad2)
			out[used++] = (char)(b << 4 | c >> 2);
		if (!pad1)
			out[used++] = (char)(c << 6 | d);
	}
	if (!out)
		return NULL;
	out[used] = '\0';
	if (strlen(out) != used) {
		free(out);
		return NULL;
	}
	return out;
}

/* "123", or 123. */
static int64_t number_of(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);
	char *end;
	long long n;

	if (json_is_integer(v))
		return json_integer_value(v);
	if (!json_is_string(v) || !*json_string_value(v))
		return 0;
	errno = 0;
	n = strtoll(json_string_value(v), &end, 10);
	return *end || errno ? 0 : n;
}

static void take_value(const char *value, struct peer_named *named)
{
	json_t *doc = NULL;
	const char *zone = NULL, *fabric = NULL;
	char text[FLIP_PEER_NAME + PEER_ZONE];
	struct peer_named both;

	if (base_json_parse("member", value, strlen(value), &doc, NULL) == 0) {
		zone = json_string_value(json_object_get(doc, "zone"));
		fabric = json_string_value(json_object_get(doc, "fabric"));
	}
	if (zone && *zone && (size_t)snprintf(text, sizeof(text), "%s@%s", named->name, zone) < sizeof(text) &&
	    peer_named_parse(text, strlen(text), &both) == 0)
		*named = both;
	if (fabric)
		(void)peer_fabric_parse(named->name, fabric, named->fabric);
	json_decref(doc);
}

static int take_kv(struct etcd_answer *a, const json_t *kv, bool is_deleted)
{
	const char *key = json_string_value(json_object_get(kv, "key"));
	const char *value = json_string_value(json_object_get(kv, "value"));
	struct etcd_kv item = { .is_deleted = is_deleted }, *p;
	const char *slash;
	char *text;

	if (!key || !(item.key = from_base64(key)))
		return -EBADMSG;
	slash = strrchr(item.key, '/');
	slash = slash ? slash + 1 : item.key;
	if (peer_named_parse(slash, strlen(slash), &item.named) < 0) {
		free(item.key);
		return 0;
	}
	text = value ? from_base64(value) : NULL;
	if (text)
		take_value(text, &item.named);
	free(text);
	p = a->n < MAX_ITEMS ? reallocarray(a->items, a->n + 1, sizeof(*p)) : NULL;
	if (!p) {
		free(item.key);
		return -ENOMEM;
	}
	a->items = p;
	a->items[a->n++] = item;
	return 0;
}

int etcd_answer_parse(const void *data, size_t size, struct etcd_answer *ret, struct err *err)
{
	struct etcd_answer a = { 0 };
	json_t *doc = NULL, *list;
	const json_t *top, *inner;
	size_t i;
	json_t *item;
	int r = base_json_parse("etcd", data, size, &doc, err);

	if (r < 0)
		return r;
	inner = json_object_get(doc, "result"); /* of what streams */
	top = json_is_object(inner) ? inner : doc;
	if (!json_is_object(top) || json_object_get(doc, "error")) {
		const char *text = json_string_value(json_object_get(doc, "error"));

		r = err_set(err, -EBADMSG, "etcd: %.200s", text ? text : "an error");
		json_decref(doc);
		return r;
	}
	a.revision = number_of(json_object_get(top, "header"), "revision");
	a.lease = number_of(top, "ID");
	a.ttl = number_of(top, "TTL");
	a.is_canceled = json_is_true(json_object_get(top, "canceled"));
	list = json_object_get(top, "kvs");
	json_array_foreach(list, i, item)
	{
		r = r < 0 ? r : take_kv(&a, item, false);
	}
	list = json_object_get(top, "events");
	json_array_foreach(list, i, item)
	{
		const char *type = json_string_value(json_object_get(item, "type"));

		r = r < 0 ? r : take_kv(&a, json_object_get(item, "kv"), type && strcmp(type, "DELETE") == 0);
	}
	json_decref(doc);
	if (r < 0) {
		etcd_answer_done(&a);
		return err_set(err, r, "etcd: a key that is not base64");
	}
	*ret = a;
	return 0;
}

void etcd_answer_done(struct etcd_answer *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->items[i].key);
	free(a->items);
	*a = (struct etcd_answer){ 0 };
}
