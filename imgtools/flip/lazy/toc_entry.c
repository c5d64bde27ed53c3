/* The document of a table of contents, member by member: {"version": 1, "entries": [{...}, ...], "flipPrefetch":
 * [...]}. What is not known is passed over; null is as good as absent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "toc_internal.h"

enum { VERSION = 1, MAX_XATTR_NAME = 255, MAX_XATTR_SIZE = 64 << 10 };

void flip_toc_entry_reset(struct flip_toc_entry *e)
{
	for (size_t i = 0; i < e->n_xattrs; i++) {
		free(e->xattrs[i].name);
		free(e->xattrs[i].value);
	}
	free(e->xattrs);
	/* All but the long buffers, of which the first byte is enough. */
	e->name[0] = e->link[0] = e->type[0] = '\0';
	memset(&e->has_name, 0, sizeof(*e) - offsetof(struct flip_toc_entry, has_name));
}

static int bad_syntax(const struct flip_toc_parser *p, struct err *err)
{
	return err_set(err, -EBADMSG, "%s: table of contents: no proper JSON at byte %zu of it", p->where,
	               (size_t)(p->json.p - p->json.begin));
}

static bool is_null(struct flip_toc_parser *p)
{
	return flip_json_peek(&p->json) == 'n' && flip_json_skip(&p->json) == 0;
}

static int get_text(struct flip_toc_parser *p, const char *field, char *buf, size_t size, struct err *err)
{
	struct flip_text t;

	if (is_null(p))
		return 0;
	if (flip_json_string(&p->json, &t) < 0)
		return flip_toc_bad(p, err, field, "no proper text");
	if (t.n >= size || memchr(t.p, 0, t.n))
		return flip_toc_bad(p, err, field, "too long, or with a 0 byte");
	memcpy(buf, t.p, t.n);
	buf[t.n] = '\0';
	return 0;
}

static int get_number(struct flip_toc_parser *p, const char *field, uint64_t max, uint64_t *ret, struct err *err)
{
	if (is_null(p))
		return 0;
	if (flip_json_unsigned(&p->json, ret) < 0 || *ret > max)
		return flip_toc_bad(p, err, field, "no number of the kind expected");
	return 0;
}

static int get_u32(struct flip_toc_parser *p, const char *field, uint32_t *ret, struct err *err)
{
	uint64_t v = *ret;
	int r = get_number(p, field, UINT32_MAX, &v, err);

	*ret = (uint32_t)v;
	return r;
}

static int get_digest(struct flip_toc_parser *p, const char *field, uint8_t *digest, bool *has, struct err *err)
{
	struct flip_text t;

	if (is_null(p))
		return 0;
	if (flip_json_string(&p->json, &t) < 0 || (t.n && flip_digest_parse(t.p, t.n, digest) < 0))
		return flip_toc_bad(p, err, field, "no SHA-256 digest");
	*has = t.n != 0;
	return 0;
}

static int get_time(struct flip_toc_parser *p, struct err *err)
{
	struct flip_text t;

	if (is_null(p))
		return 0;
	if (flip_json_string(&p->json, &t) < 0 ||
	    (t.n && flip_time_parse(&t, &p->entry.mtime_s, &p->entry.mtime_ns) < 0))
		return flip_toc_bad(p, err, "modtime", "no time of RFC 3339");
	return 0;
}

static bool is_overlay_xattr(const struct flip_text *name)
{
	static const char *const prefixes[] = { "trusted.overlay.", "user.overlay." };

	for (size_t i = 0; i < 2; i++) {
		if (name->n >= strlen(prefixes[i]) && memcmp(name->p, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return false;
}

static int add_xattr(struct flip_toc_parser *p, const struct flip_text *name, struct err *err)
{
	struct flip_toc_entry *e = &p->entry;
	struct img_xattr x = { 0 };
	struct flip_text value;
	int r;

	if (!name->n || name->n > MAX_XATTR_NAME || memchr(name->p, 0, name->n))
		return flip_toc_bad(p, err, "xattrs", "one without a proper name");
	/* What overlayfs keeps for itself is no content: taken from a layer it could lead to other files of the store.
	 */
	if (is_overlay_xattr(name))
		return flip_json_skip(&p->json) < 0 ? bad_syntax(p, err) : 0;
	if (e->n_xattrs == FLIP_MAX_XATTRS)
		return flip_toc_bad(p, err, "xattrs", "too many");
	if (!e->xattrs)
		e->xattrs = calloc(FLIP_MAX_XATTRS, sizeof(*e->xattrs));
	x.name = strndup(name->p, name->n);
	if (!e->xattrs || !x.name) {
		free(x.name);
		return err_set(err, -ENOMEM, "%s: out of memory", p->where);
	}
	r = 0;
	if (!is_null(p)) {
		r = flip_json_string(&p->json, &value);
		if (r == 0)
			r = flip_base64_parse(&value, &x.value, &x.size);
	}
	if (r == 0 && x.size <= MAX_XATTR_SIZE) {
		e->xattrs[e->n_xattrs++] = x;
		return 0;
	}
	free(x.name);
	free(x.value);
	return flip_toc_bad(p, err, "xattrs", "a value that is no base 64, or too long");
}

static int get_xattrs(struct flip_toc_parser *p, struct err *err)
{
	struct flip_text name;
	bool first = true;
	int r;

	if (is_null(p))
		return 0;
	if (flip_json_open(&p->json, '{') < 0)
		return flip_toc_bad(p, err, "xattrs", "expected an object");
	while ((r = flip_json_member(&p->json, &first, &name)) > 0) {
		r = add_xattr(p, &name, err);
		if (r < 0)
			return r;
	}
	return r < 0 ? bad_syntax(p, err) : 0;
}

static int get_member(struct flip_toc_parser *p, const struct flip_text *key, struct err *err)
{
	static const struct {
		const char *name;
		size_t offset;
	} numbers[] = {
		{ "size", offsetof(struct flip_toc_entry, size) },
		{ "offset", offsetof(struct flip_toc_entry, offset) },
		{ "endOffset", offsetof(struct flip_toc_entry, end_offset) },
		{ "chunkOffset", offsetof(struct flip_toc_entry, chunk_offset) },
		{ "chunkSize", offsetof(struct flip_toc_entry, chunk_size) },
		{ "innerOffset", offsetof(struct flip_toc_entry, inner_offset) },
	}, small[] = {
		{ "mode", offsetof(struct flip_toc_entry, mode) },
		{ "uid", offsetof(struct flip_toc_entry, uid) },
		{ "gid", offsetof(struct flip_toc_entry, gid) },
		{ "devMajor", offsetof(struct flip_toc_entry, major) },
		{ "devMinor", offsetof(struct flip_toc_entry, minor) },
	};
	struct flip_toc_entry *e = &p->entry;
	int r;

	if (flip_text_is(key, "name")) {
		r = get_text(p, "name", e->name, sizeof(e->name), err);
		e->has_name = true;
		return r;
	}
	if (flip_text_is(key, "type"))
		return get_text(p, "type", e->type, sizeof(e->type), err);
	if (flip_text_is(key, "linkName"))
		return get_text(p, "linkName", e->link, sizeof(e->link), err);
	if (flip_text_is(key, "digest"))
		return get_digest(p, "digest", e->digest, &e->has_digest, err);
	if (flip_text_is(key, "chunkDigest"))
		return get_digest(p, "chunkDigest", e->chunk_digest, &e->has_chunk_digest, err);
	if (flip_text_is(key, "modtime"))
		return get_time(p, err);
	if (flip_text_is(key, "xattrs"))
		return get_xattrs(p, err);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (flip_text_is(key, numbers[i].name))
			return get_number(p, numbers[i].name, INT64_MAX, (uint64_t *)((char *)e + numbers[i].offset),
			                  err);
	}
	for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
		if (flip_text_is(key, small[i].name))
			return get_u32(p, small[i].name, (uint32_t *)((char *)e + small[i].offset), err);
	}
	return flip_json_skip(&p->json) < 0 ? bad_syntax(p, err) : 0;
}

static int get_entry(struct flip_toc_parser *p, struct err *err)
{
	struct flip_text key;
	bool first = true;
	int r;

	flip_toc_entry_reset(&p->entry);
	p->n_entries++;
	if (flip_json_open(&p->json, '{') < 0)
		return bad_syntax(p, err);
	while ((r = flip_json_member(&p->json, &first, &key)) > 0) {
		r = get_member(p, &key, err);
		if (r < 0)
			return r;
	}
	return r < 0 ? bad_syntax(p, err) : flip_toc_take_entry(p, err);
}

static int get_entries(struct flip_toc_parser *p, struct err *err)
{
	bool first = true;
	int r;

	if (is_null(p))
		return 0;
	if (flip_json_open(&p->json, '[') < 0)
		return flip_toc_bad(p, err, "entries", "expected an array");
	while ((r = flip_json_item(&p->json, &first)) > 0) {
		r = get_entry(p, err);
		if (r < 0)
			return r;
	}
	return r < 0 ? bad_syntax(p, err) : 0;
}

/* ["/usr/bin/x", 0, 65536]: path, offset, size; -EBADMSG for everything else. */
static int get_prefetch_item(struct flip_toc_parser *p)
{
	char path[IMG_PATH_MAX];
	struct flip_text t;
	uint64_t offset, size;
	bool first = true;

	if (flip_json_open(&p->json, '[') < 0 || flip_json_item(&p->json, &first) <= 0 ||
	    flip_json_string(&p->json, &t) < 0 || t.n >= sizeof(path) || memchr(t.p, 0, t.n))
		return -EBADMSG;
	memcpy(path, t.p, t.n);
	path[t.n] = '\0';
	if (flip_json_item(&p->json, &first) <= 0 || flip_json_unsigned(&p->json, &offset) < 0 ||
	    flip_json_item(&p->json, &first) <= 0 || flip_json_unsigned(&p->json, &size) < 0 ||
	    flip_json_item(&p->json, &first) != 0)
		return -EBADMSG;
	return flip_prefetch_add(&p->prefetch, path, offset, size);
}

static int get_prefetch(struct flip_toc_parser *p, struct err *err)
{
	bool first = true;
	int r;

	if (is_null(p))
		return 0;
	if (flip_json_open(&p->json, '[') < 0)
		return flip_toc_bad(p, err, "flipPrefetch", "expected an array");
	while ((r = flip_json_item(&p->json, &first)) > 0) {
		r = get_prefetch_item(p);
		if (r == -ENOMEM)
			return err_set(err, r, "%s: out of memory", p->where);
		if (r < 0)
			return err_set(err, -EBADMSG,
			               "%s: table of contents: flipPrefetch: item %zu: expected [path, offset, size]",
			               p->where, p->prefetch.n);
	}
	return r < 0 ? bad_syntax(p, err) : 0;
}

static int get_version(struct flip_toc_parser *p, struct err *err)
{
	uint64_t v = 0;

	if (flip_json_unsigned(&p->json, &v) < 0 || v != VERSION)
		return err_set(err, -EBADMSG, "%s: table of contents: version: only 1 is known", p->where);
	return 0;
}

int flip_toc_document(struct flip_toc_parser *p, struct err *err)
{
	bool first = true, has_entries = false;
	struct flip_text key;
	int r;

	if (flip_json_open(&p->json, '{') < 0)
		return bad_syntax(p, err);
	while ((r = flip_json_member(&p->json, &first, &key)) > 0) {
		if (flip_text_is(&key, "version")) {
			r = get_version(p, err);
		} else if (flip_text_is(&key, "entries")) {
			if (has_entries)
				return flip_toc_bad(p, err, "entries", "come twice");
			has_entries = true;
			r = get_entries(p, err);
		} else if (flip_text_is(&key, "flipPrefetch")) {
			r = get_prefetch(p, err);
		} else if (flip_json_skip(&p->json) < 0) {
			r = bad_syntax(p, err);
		}
		if (r < 0)
			return r;
	}
	if (r < 0 || flip_json_end(&p->json) < 0)
		return bad_syntax(p, err);
	if (!has_entries)
		return err_set(err, -EBADMSG, "%s: table of contents: entries: missing", p->where);
	return 0;
}
