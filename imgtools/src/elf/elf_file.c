/* ELF files that are nodes of a tree, and the names of libraries among their strings. */
#include "elf/elf.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"

enum { MAX_NAMES = 1 << 16 };

bool img_elf_is(const struct img_node *n)
{
	char magic[SELFMAG];

	return n->type == IMG_FILE && n->size >= EI_NIDENT &&
	       img_node_read(n, magic, sizeof(magic), 0, NULL) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

/* The bytes of a node: those it holds, or its file mapped. */
static int map_node(const struct img_node *n, struct base_mapfile *ret_map, const uint8_t **ret_bytes, size_t *ret_size,
                    struct err *err)
{
	int r;

	if (n->data || !n->source) {
		*ret_bytes = n->data;
		*ret_size = n->data ? n->size : 0;
		return 0;
	}
	r = base_mapfile_open(n->source, ret_map, err);
	if (r < 0)
		return r;
	*ret_bytes = ret_map->data;
	*ret_size = ret_map->size_bytes;
	return 0;
}

int img_elf_read(const struct img_node *n, unsigned int parts, struct img_elf **ret_elf, struct err *err)
{
	CLEANUP(base_mapfile_close) struct base_mapfile map = { 0 };
	const uint8_t *bytes;
	size_t size;
	int r = map_node(n, &map, &bytes, &size, err);

	return r < 0 ? r : img_elf_parse(bytes, size, n->path, parts, ret_elf, err);
}

/* ---- Names of libraries among the strings ---- */

static bool is_name_byte(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
	       c == '-' || c == '+' || c == '/' || c == '$' || c == '{' || c == '}';
}

/* "libssl.so.3", "/usr/lib64/libcuda.so.1", "engines-3/afalg.so"; not ".so" alone, nor "%s.so". */
static bool is_library_name(const char *s, size_t len)
{
	const char *so = memmem(s, len, ".so", 3), *base = memrchr(s, '/', len);

	base = base ? base + 1 : s;
	if (!so || so < base + 2)
		return false;
	for (const char *p = so + 3; p < s + len; p++) {
		if (*p != '.' && (*p < '0' || *p > '9'))
			return false;
	}
	return s[len - 1] != '.';
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
	char **v;
	size_t n, cap;
};

static void names_done(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
}

static int names_add(struct names *l, const uint8_t *s, size_t len)
{
	if (l->n == l->cap) {
		char **more = reallocarray(l->v, 2 * l->cap + 16, sizeof(*more));

		if (!more)
			return -ENOMEM;
		l->v = more;
		l->cap = 2 * l->cap + 16;
	}
	l->v[l->n] = strndup((const char *)s, len);
	return l->v[l->n++] ? 0 : (l->n--, -ENOMEM);
}

int img_elf_library_strings(const struct img_node *n, int (*on_string)(const char *s, void *arg), void *arg,
                            struct err *err)
{
	CLEANUP(base_mapfile_close) struct base_mapfile map = { 0 };
	CLEANUP(names_done) struct names list = { 0 };
	const uint8_t *bytes, *p, *end;
	size_t size;
	int r = map_node(n, &map, &bytes, &size, err);

	if (r < 0)
		return r;
	/* Each ".so" in the file is the middle of a candidate: grow it to both sides as far as names go. */
	end = bytes + size;
	for (p = bytes; p && p < end && (p = memmem(p, (size_t)(end - p), ".so", 3)); p += 3) {
		const uint8_t *from = p, *to = p + 3;

		while (from > bytes && is_name_byte(from[-1]) && p - from < 255)
			from--;
		while (to < end && is_name_byte(*to) && to - p < 255)
			to++;
		if (to == end || *to != 0 || (from > bytes && from[-1] != 0) ||
		    !is_library_name((const char *)from, (size_t)(to - from)))
			continue;
		if (list.n < MAX_NAMES && names_add(&list, from, (size_t)(to - from)) < 0)
			return err_set(err, -ENOMEM, "%s: out of memory", n->path);
	}
	if (list.n)
		qsort(list.v, list.n, sizeof(*list.v), compare_strings);
	for (size_t i = 0; i < list.n; i++) {
		r = i > 0 && strcmp(list.v[i], list.v[i - 1]) == 0 ? 0 : on_string(list.v[i], arg);
		if (r < 0)
			return r;
	}
	return 0;
}
