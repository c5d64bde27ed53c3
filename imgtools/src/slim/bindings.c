/* What the dynamic linker says of a run (LD_DEBUG=bindings,files): which file took which symbol from which, and which
 * files were opened by dlopen(). Lines look like
 *
 *       4711:	binding file /usr/lib/liba.so [0] to /lib/libc.so.6 [0]: normal symbol `memcpy' [GLIBC_2.14]
 *       4711:	file=/usr/lib/mod.so [0];  dynamically loaded by /lib/libc.so.6 [0]
 *       4711:	calling init: /lib/libz.so.1
 *
 * The program itself goes by argv[0], which need not be a path. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "slim/bindings.h"

enum { WORDS_MAX = 1u << 26, TEXT_MAX = 1u << 30, FILES_MAX = 4096 };

struct img_bindings *img_bindings_new(void)
{
	struct img_bindings *b = calloc(1, sizeof(*b));

	if (b)
		base_buf_init(&b->text, TEXT_MAX);
	return b;
}

void img_bindings_free(struct img_bindings *b)
{
	if (!b)
		return;
	base_buf_done(&b->text);
	free(b->table);
	free(b->uses);
	free(b->opened);
	free(b->loaded);
	free(b);
}

size_t img_bindings_count(const struct img_bindings *b)
{
	return b->n_uses;
}

static uint32_t hash_bytes(const char *s, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)s[i]) * 16777619u;
	return h ^ h >> 15;
}

static int grow(struct img_bindings *b)
{
	size_t cap = b->table_cap ? 2 * b->table_cap : 4096;
	uint32_t *table = cap <= WORDS_MAX ? calloc(cap, sizeof(*table)) : NULL;

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < b->table_cap; i++) {
		const char *s = b->text.data + b->table[i] - 1;
		size_t at;

		if (!b->table[i])
			continue;
		at = hash_bytes(s, strlen(s)) & (cap - 1);
		while (table[at])
			at = (at + 1) & (cap - 1);
		table[at] = b->table[i];
	}
	free(b->table);
	b->table = table;
	b->table_cap = cap;
	return 0;
}

/* The same text has the same number. */
static int word(struct img_bindings *b, const char *s, size_t len, uint32_t *ret)
{
	size_t at;
	int r;

	if (2 * b->n_words >= b->table_cap && (r = grow(b)) < 0)
		return r;
	at = hash_bytes(s, len) & (b->table_cap - 1);
	for (; b->table[at]; at = (at + 1) & (b->table_cap - 1)) {
		const char *have = b->text.data + b->table[at] - 1;

		if (strncmp(have, s, len) == 0 && have[len] == 0) {
			*ret = b->table[at] - 1;
			return 0;
		}
	}
	*ret = (uint32_t)b->text.len;
	r = base_buf_append(&b->text, s, len);
	if (r == 0)
		r = base_buf_append(&b->text, "", 1);
	if (r < 0)
		return r;
	b->table[at] = *ret + 1;
	b->n_words++;
	return 0;
}

static int push(uint32_t **list, size_t *n, uint32_t value)
{
	if ((*n & (*n + 1)) == 0) {
		uint32_t *more = reallocarray(*list, 2 * *n + 2, sizeof(*more));

		if (!more)
			return -ENOMEM;
		*list = more;
	}
	(*list)[(*n)++] = value;
	return 0;
}

static int add_use(struct img_bindings *b, uint32_t from, uint32_t to, uint32_t symbol)
{
	if (b->n_uses == b->uses_cap) {
		size_t cap = 2 * b->uses_cap + 1024;
		struct img_binding *more = reallocarray(b->uses, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		b->uses = more;
		b->uses_cap = cap;
	}
	b->uses[b->n_uses++] = (struct img_binding){ from, to, symbol };
	return 0;
}

int img_bindings_add(struct img_bindings *b, const char *from, const char *to, const char *symbol)
{
	uint32_t f, t, s;
	int r = word(b, from, strlen(from), &f);

	if (r == 0)
		r = word(b, to, strlen(to), &t);
	if (r == 0)
		r = word(b, symbol, strlen(symbol), &s);
	return r < 0 ? r : add_use(b, f, t, s);
}

int img_bindings_add_opened(struct img_bindings *b, const char *path)
{
	uint32_t w;
	int r = word(b, path, strlen(path), &w);

	return r < 0 ? r : push(&b->opened, &b->n_opened, w);
}

int img_bindings_add_loaded(struct img_bindings *b, const char *path)
{
	uint32_t w;
	int r = word(b, path, strlen(path), &w);

	return r < 0 ? r : push(&b->loaded, &b->n_loaded, w);
}

static const char *find(const char *line, const char *end, const char *text)
{
	return memmem(line, (size_t)(end - line), text, strlen(text));
}

/* "binding file FROM [0] to TO [0]: normal symbol `NAME'" */
static int binding_line(struct img_bindings *b, const char *at, const char *end)
{
	const char *from = at + strlen("binding file "), *from_end = find(from, end, " ["), *to, *to_end, *name,
	           *name_end;
	uint32_t f, t, s;
	int r;

	to = from_end ? find(from_end, end, "] to ") : NULL;
	to = to ? to + strlen("] to ") : NULL;
	to_end = to ? find(to, end, " [") : NULL;
	name = to_end ? find(to_end, end, "symbol `") : NULL;
	name = name ? name + strlen("symbol `") : NULL;
	name_end = name ? memchr(name, '\'', (size_t)(end - name)) : NULL;
	if (!name_end)
		return 0;
	if (to_end - to == from_end - from && memcmp(from, to, (size_t)(to_end - to)) == 0)
		return 0; /* its own */
	r = word(b, from, (size_t)(from_end - from), &f);
	if (r == 0)
		r = word(b, to, (size_t)(to_end - to), &t);
	if (r == 0)
		r = word(b, name, (size_t)(name_end - name), &s);
	return r < 0 ? r : add_use(b, f, t, s);
}

static int one_line(struct img_bindings *b, const char *line, const char *end)
{
	const char *at = find(line, end, "binding file "), *by;
	uint32_t w;
	int r;

	if (at)
		return binding_line(b, at, end);
	at = find(line, end, "calling init: ");
	if (at) {
		at += strlen("calling init: ");
		r = word(b, at, (size_t)(end - at), &w);
		return r < 0 ? r : push(&b->loaded, &b->n_loaded, w);
	}
	at = find(line, end, "file=");
	by = at ? find(at, end, "dynamically loaded by") : NULL;
	if (!by)
		return 0;
	at += strlen("file=");
	by = find(at, end, " [");
	r = by ? word(b, at, (size_t)(by - at), &w) : 0;
	return r < 0 || !by ? r : push(&b->opened, &b->n_opened, w);
}

int img_bindings_parse(struct img_bindings *b, const char *text, size_t size)
{
	const char *end = text + size;

	while (text < end) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		int r;

		eol = eol ? eol : end;
		r = memchr(text, 0, (size_t)(eol - text)) ? 0 : one_line(b, text, eol);
		if (r < 0)
			return r;
		text = eol + 1;
	}
	return 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int img_bindings_read_dir(struct img_bindings *b, const char *dir, const char *prefix, struct err *err)
{
	struct dirent **names;
	int n = scandir(dir, &names, NULL, compare_names), r = 0;

	if (n < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	for (int i = 0; i < n; i++) {
		struct base_mapfile map;
		char path[4096];

		if (r == 0 && i < FILES_MAX && strncmp(names[i]->d_name, prefix, strlen(prefix)) == 0 &&
		    snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name) < (int)sizeof(path) &&
		    base_mapfile_open(path, &map, NULL) == 0) {
			r = img_bindings_parse(b, (const char *)map.data, map.size_bytes);
			base_mapfile_close(&map);
		}
		free(names[i]);
	}
	free(names);
	return r < 0 ? err_set(err, r, "%s: %s", dir, strerror(-r)) : 0;
}
