/* Prefetch lists: their text (docs/formats/prefetch.md), and how they come out of a trace. */
#include "lazy/prefetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "trace/trace.h"
#include "tree/tree.h"

enum { MAX_ITEMS = 4 << 20 };
static const char head[] = "flip-prefetch 1";

static bool text_is_path(const char *path)
{
	return img_path_is_normal(path) && path[1] && !strchr(path, '\n');
}

int flip_prefetch_add(struct flip_prefetch *p, const char *path, uint64_t offset, uint64_t size)
{
	char *copy;

	if (!text_is_path(path) || size == 0 || (size != UINT64_MAX && size > UINT64_MAX - offset))
		return -EINVAL;
	if (p->n >= MAX_ITEMS)
		return -EINVAL;
	if ((p->n & (p->n - 1)) == 0) { /* a power of two: full */
		struct flip_prefetch_item *items = realloc(p->items, (p->n ? p->n * 2 : 1) * sizeof(*items));

		if (!items)
			return -ENOMEM;
		p->items = items;
	}
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	p->items[p->n++] = (struct flip_prefetch_item){ copy, offset, size };
	return 0;
}

void flip_prefetch_done(struct flip_prefetch *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->items[i].path);
	free(p->items);
	*p = (struct flip_prefetch){ 0 };
}

/* The number that ends the text [begin, *end), behind a space: *end moves in front of it. "-" is UINT64_MAX when
 * `has_dash`. */
static int last_number(const char *begin, const char **end, bool has_dash, uint64_t *ret)
{
	const char *p = *end;
	uint64_t v = 0;

	while (p > begin && p[-1] != ' ')
		p--;
	if (p <= begin || p == *end || *end - p > 19)
		return -EBADMSG;
	if (has_dash && *end - p == 1 && *p == '-') {
		v = UINT64_MAX;
	} else {
		for (const char *d = p; d < *end; d++) {
			if (*d < '0' || *d > '9')
				return -EBADMSG;
			v = v * 10 + (uint64_t)(*d - '0');
		}
	}
	*ret = v;
	*end = p - 1;
	return 0;
}

static int parse_line(struct flip_prefetch *list, const char *line, size_t len)
{
	const char *end = line + len;
	char path[IMG_PATH_MAX];
	uint64_t offset, size;

	if (last_number(line, &end, true, &size) < 0 || last_number(line, &end, false, &offset) < 0)
		return -EBADMSG;
	if ((size_t)(end - line) >= sizeof(path) || memchr(line, 0, len))
		return -EBADMSG;
	memcpy(path, line, (size_t)(end - line));
	path[end - line] = '\0';
	return flip_prefetch_add(list, path, offset, size);
}

static void prefetch_donep(struct flip_prefetch *p)
{
	flip_prefetch_done(p);
}

int flip_prefetch_parse(const void *data, size_t size, const char *where, struct flip_prefetch *ret_list,
                        struct err *err)
{
	CLEANUP(prefetch_donep) struct flip_prefetch list = { 0 };
	const char *p = data, *end = p + size;

	for (size_t n = 1; p < end; n++) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((eol ? eol : end) - p);
		int r = 0;

		if (n == 1 && (len != sizeof(head) - 1 || memcmp(p, head, len) != 0))
			return err_set(err, -EBADMSG, "%s:1: not a prefetch list: expected \"%s\"", where, head);
		if (n > 1 && len && *p != '#')
			r = parse_line(&list, p, len);
		if (r == -ENOMEM)
			return err_set(err, r, "%s: out of memory", where);
		if (r < 0)
			return err_set(err, -EBADMSG, "%s:%zu: expected a path, an offset and a size", where, n);
		p += len + (eol ? 1 : 0);
	}
	if (size == 0)
		return err_set(err, -EBADMSG, "%s: empty: expected \"%s\"", where, head);
	*ret_list = list;
	list = (struct flip_prefetch){ 0 };
	return 0;
}

int flip_prefetch_append(const struct flip_prefetch *p, struct base_buf *buf)
{
	(void)base_buf_printf(buf, "%s\n", head);
	for (size_t i = 0; i < p->n; i++) {
		const struct flip_prefetch_item *it = &p->items[i];

		(void)base_buf_puts(buf, it->path);
		if (it->size == UINT64_MAX)
			(void)base_buf_printf(buf, " %llu -\n", (unsigned long long)it->offset);
		else
			(void)base_buf_printf(buf, " %llu %llu\n", (unsigned long long)it->offset,
			                      (unsigned long long)it->size);
	}
	return base_buf_error(buf);
}

/* Opened, executed or loaded by the kernel; whole, because a trace knows no ranges. */
static bool is_read(const struct img_trace_record *r)
{
	return r->access == IMG_ACCESS_OPEN || r->access == IMG_ACCESS_EXEC || r->access == IMG_ACCESS_KERNEL;
}

struct reading {
	const char *path;
	size_t i; /* of its record: they are in the order of time */
};

static int compare_readings(const void *a, const void *b)
{
	const struct reading *x = a, *y = b;
	int c = strcmp(x->path, y->path);

	return c ? c : x->i < y->i ? -1 : x->i > y->i;
}

static int compare_times(const void *a, const void *b)
{
	const struct reading *x = a, *y = b;

	return x->i < y->i ? -1 : x->i > y->i;
}

/* What was read, each path once, in the order of the first time. */
static int readings_of(const struct img_trace *t, struct reading **ret_list, size_t *ret_n)
{
	struct reading *list = calloc(img_trace_count(t) + 1, sizeof(*list));
	size_t n = 0, kept = 0;

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < img_trace_count(t); i++) {
		const struct img_trace_record *r = img_trace_at(t, i);

		if (is_read(r) && text_is_path(r->path))
			list[n++] = (struct reading){ r->path, i };
	}
	qsort(list, n, sizeof(*list), compare_readings);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || strcmp(list[i].path, list[kept - 1].path) != 0)
			list[kept++] = list[i];
	}
	qsort(list, kept, sizeof(*list), compare_times);
	*ret_list = list;
	*ret_n = kept;
	return 0;
}

int flip_prefetch_from_trace(const char *path, struct flip_prefetch *ret_list, struct err *err)
{
	CLEANUP(prefetch_donep) struct flip_prefetch list = { 0 };
	CLEANUP(freep) struct reading *readings = NULL;
	struct img_trace *t = NULL;
	size_t n = 0;
	int r = img_trace_read(path, &t, err);

	if (r < 0)
		return r;
	r = readings_of(t, &readings, &n);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = flip_prefetch_add(&list, readings[i].path, 0, UINT64_MAX);
	img_trace_free(t);
	if (r < 0)
		return err_set(err, r, "%s: %s", path, strerror(-r));
	*ret_list = list;
	list = (struct flip_prefetch){ 0 };
	return 0;
}
