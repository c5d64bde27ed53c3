/* Which paths go first: those of the list, and every directory (or link) on the way to them, so that what is unpacked
 * in the order of the archive finds them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct flip_wanted_path *)a)->path, ((const struct flip_wanted_path *)b)->path);
}

static int add(struct flip_wanted *w, size_t *cap, const char *path, size_t len, bool is_file)
{
	if (w->n == *cap) {
		size_t n = *cap ? *cap * 2 : 64;
		struct flip_wanted_path *list = realloc(w->list, n * sizeof(*list));

		if (!list)
			return -ENOMEM;
		w->list = list;
		*cap = n;
	}
	w->list[w->n] = (struct flip_wanted_path){ strndup(path, len), is_file };
	return w->list[w->n++].path ? 0 : -ENOMEM;
}

/* Each path once. */
static void unite(struct flip_wanted *w)
{
	size_t n = 0;

	qsort(w->list, w->n, sizeof(*w->list), compare);
	for (size_t i = 0; i < w->n; i++) {
		if (n && strcmp(w->list[n - 1].path, w->list[i].path) == 0) {
			w->list[n - 1].is_file = w->list[n - 1].is_file || w->list[i].is_file;
			free(w->list[i].path);
		} else {
			w->list[n++] = w->list[i];
		}
	}
	w->n = n;
}

int flip_wanted_init(struct flip_wanted *w, const struct flip_prefetch *p)
{
	size_t cap = 0;
	int r = 0;

	*w = (struct flip_wanted){ 0 };
	for (size_t i = 0; r == 0 && i < p->n; i++) {
		const char *path = p->items[i].path, *slash = path;

		while (r == 0 && (slash = strchr(slash + 1, '/')))
			r = add(w, &cap, path, (size_t)(slash - path), false);
		if (r == 0)
			r = add(w, &cap, path, strlen(path), true);
	}
	if (r == 0 && w->n)
		r = add(w, &cap, "/", 1, false);
	if (r == 0 && w->n)
		unite(w);
	if (r < 0) {
		flip_wanted_done(w);
		return r;
	}
	return 0;
}

void flip_wanted_done(struct flip_wanted *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->list[i].path);
	free(w->list);
	*w = (struct flip_wanted){ 0 };
}

const struct flip_wanted_path *flip_wanted_find(const struct flip_wanted *w, const char *path)
{
	struct flip_wanted_path key = { (char *)path, false };

	return bsearch(&key, w->list, w->n, sizeof(*w->list), compare);
}
