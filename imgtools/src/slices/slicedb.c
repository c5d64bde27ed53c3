/* The text database of slices: written once for a repository, read instead of looking into its packages again. One fact
 * a line, fields separated by tabs, in an order that does not depend on anything but the packages, so that the
 * differences of two versions read as what changed. docs/formats/slices.md is its description.
 *
 *   slimtrace-slices 1
 *   package NAME EVR ARCH
 *   slice ROLE FILES BYTES GROUP
 *   file PATH                            of the slice above
 *   need|want KIND PACKAGE PATH WHAT     of the file above
 *   needs|wants KIND SLICE WHAT
 *   missing KIND WHAT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/mapfile.h"
#include "slices_internal.h"

/* ---- Text ------------------------------------------------------------------------------------------------- */

/* Tabs, newlines and backslashes as \t, \n, \\; the rest is bytes. */
static void put_field(struct base_buf *out, const char *s)
{
	(void)base_buf_putc(out, '\t');
	for (; *s; s++) {
		if (*s == '\t')
			(void)base_buf_puts(out, "\\t");
		else if (*s == '\n')
			(void)base_buf_puts(out, "\\n");
		else if (*s == '\\')
			(void)base_buf_puts(out, "\\\\");
		else
			(void)base_buf_putc(out, *s);
	}
}

/* Undoes put_field() in place; -EINVAL for another escape. */
static int unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (*s != '\\') {
			*out++ = *s;
			continue;
		}
		s++;
		if (*s == 't')
			*out++ = '\t';
		else if (*s == 'n')
			*out++ = '\n';
		else if (*s == '\\')
			*out++ = '\\';
		else
			return -EINVAL;
	}
	*out = 0;
	return 0;
}

/* ---- Writing ---------------------------------------------------------------------------------------------- */

/* Slices of all packages as a graph, to name the groups that need each other. */
struct graph {
	struct img_world *w;
	struct img_rpm *const *packages;
	size_t n;
	const char ***roles; /* [package][file]: the slice of each file; NULL: dropped */
	uint32_t **slice;    /* [package][file]: its number */
	size_t *where;       /* by index of the set: position in packages + 1 */
	size_t n_slices;
	uint32_t *from, *to; /* edges */
	size_t n_edges, cap_edges;
	uint32_t *group;
	uint32_t n_groups;
	bool *is_cycle;       /* by group: more than one slice */
	uint32_t at;          /* slice whose edges are collected */
	struct base_buf *out; /* while writing */
};

static int on_edge(const struct img_file_need *n, void *arg, struct err *err)
{
	struct graph *g = arg;
	size_t k;

	(void)err;
	if (!n->to.package || n->is_weak || !g->where[n->to.package->index])
		return 0;
	k = g->where[n->to.package->index] - 1;
	if (!g->roles[k][n->to.file])
		return 0;
	if (g->n_edges == g->cap_edges) {
		const size_t cap = g->cap_edges ? g->cap_edges * 2 : 1024;
		uint32_t *from = reallocarray(g->from, cap, sizeof(*from)), *to;

		if (from)
			g->from = from;
		to = from ? reallocarray(g->to, cap, sizeof(*to)) : NULL;
		if (!to)
			return -ENOMEM;
		g->to = to;
		g->cap_edges = cap;
	}
	g->from[g->n_edges] = g->at;
	g->to[g->n_edges++] = g->slice[k][n->to.file];
	return 0;
}

/* Numbers the slices of a package in the order of the roles' names. */
static int number_slices(struct graph *g, size_t k)
{
	const struct img_rpm *p = g->packages[k];

	g->roles[k] = calloc(p->n_files + 1, sizeof(const char *));
	g->slice[k] = calloc(p->n_files + 1, sizeof(uint32_t));
	if (!g->roles[k] || !g->slice[k])
		return -ENOMEM;
	for (uint32_t f = 0; f < p->n_files; f++) {
		uint32_t number = UINT32_MAX;

		if (!(p->files[f].flags & IMG_RPMFILE_GHOST))
			g->roles[k][f] = img_world_slice(g->w, (struct img_file_id){ g->packages[k], f });
		for (uint32_t e = 0; g->roles[k][f] && e < f && number == UINT32_MAX; e++) {
			if (g->roles[k][e] && strcmp(g->roles[k][e], g->roles[k][f]) == 0)
				number = g->slice[k][e];
		}
		if (g->roles[k][f])
			g->slice[k][f] = number != UINT32_MAX ? number : (uint32_t)g->n_slices++;
	}
	return 0;
}

static int find_groups(struct graph *g, struct err *err)
{
	CLEANUP(freep) size_t *first = NULL;
	CLEANUP(freep) uint32_t *edges = NULL, *sizes = NULL;
	int r = 0;

	for (size_t k = 0; r == 0 && k < g->n; k++)
		r = number_slices(g, k);
	for (size_t k = 0; r == 0 && k < g->n; k++) {
		for (uint32_t f = 0; r == 0 && f < g->packages[k]->n_files; f++) {
			g->at = g->slice[k][f];
			if (g->roles[k][f])
				r = img_world_needs(g->w, (struct img_file_id){ g->packages[k], f }, on_edge, g, err);
		}
	}
	first = calloc(g->n_slices + 2, sizeof(*first));
	edges = calloc(g->n_edges + 1, sizeof(*edges));
	g->group = calloc(g->n_slices + 1, sizeof(*g->group));
	sizes = calloc(g->n_slices + 1, sizeof(*sizes));
	g->is_cycle = calloc(g->n_slices + 1, 1);
	if (r < 0 || !first || !edges || !g->group || !sizes || !g->is_cycle)
		return r < 0 ? r : -ENOMEM;
	/* Edges by source: counted, summed, placed. */
	for (size_t i = 0; i < g->n_edges; i++)
		first[g->from[i] + 2]++;
	for (size_t i = 2; i < g->n_slices + 2; i++)
		first[i] += first[i - 1];
	for (size_t i = 0; i < g->n_edges; i++)
		edges[first[g->from[i] + 1]++] = g->to[i];
	r = img_scc(g->n_slices, first, edges, g->group, &g->n_groups);
	for (size_t i = 0; r == 0 && i < g->n_slices; i++)
		g->is_cycle[g->group[i]] = ++sizes[g->group[i]] > 1;
	return r;
}

static int put_need(const struct img_file_need *n, void *arg, struct err *err)
{
	struct graph *g = arg;

	(void)err;
	(void)base_buf_puts(g->out, n->is_missing ? "missing"
	                            : n->slice    ? (n->is_weak ? "wants" : "needs")
	                            : n->is_weak  ? "want"
	                                          : "need");
	put_field(g->out, n->kind);
	if (n->is_missing) {
		put_field(g->out, n->what);
	} else if (n->slice) {
		put_field(g->out, n->slice);
		put_field(g->out, n->what);
	} else {
		put_field(g->out, n->to.package->name);
		put_field(g->out, n->to.package->files[n->to.file].path);
		put_field(g->out, n->what);
	}
	return base_buf_putc(g->out, '\n');
}

static int put_slice(struct graph *g, size_t k, const char *role, uint32_t number, struct err *err)
{
	const struct img_rpm *p = g->packages[k];
	uint64_t bytes = 0;
	size_t n = 0;
	int r = 0;

	for (uint32_t f = 0; f < p->n_files; f++) {
		if (!g->roles[k][f] || strcmp(g->roles[k][f], role) != 0)
			continue;
		n++;
		if (p->files[f].type == IMG_FILE && (!p->files[f].link_group || p->files[f].link_group == f + 1))
			bytes += p->files[f].size;
	}
	(void)base_buf_puts(g->out, "slice");
	put_field(g->out, role);
	(void)base_buf_printf(g->out, "\t%zu\t%llu\t", n, (unsigned long long)bytes);
	/* Slices that need each other share a number; most are alone. */
	if (g->is_cycle[g->group[number]])
		(void)base_buf_printf(g->out, "%u\n", g->group[number]);
	else
		(void)base_buf_puts(g->out, "-\n");
	for (uint32_t f = 0; r == 0 && f < p->n_files; f++) {
		if (!g->roles[k][f] || strcmp(g->roles[k][f], role) != 0)
			continue;
		(void)base_buf_puts(g->out, "file");
		put_field(g->out, p->files[f].path);
		(void)base_buf_putc(g->out, '\n');
		r = img_world_needs(g->w, (struct img_file_id){ g->packages[k], f }, put_need, g, err);
	}
	return r;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int put_package(struct graph *g, size_t k, struct err *err)
{
	const struct img_rpm *p = g->packages[k];
	CLEANUP(freep) const char **roles = calloc(p->n_files + 1, sizeof(const char *));
	size_t n = 0;
	char evr[256];
	int r = roles ? 0 : -ENOMEM;

	img_slice_evr(p, evr);
	(void)base_buf_printf(g->out, "package\t%s\t%s\t%s\n", p->name, evr, p->arch);
	for (uint32_t f = 0; r == 0 && f < p->n_files; f++) {
		size_t i = 0;

		while (g->roles[k][f] && i < n && strcmp(roles[i], g->roles[k][f]) != 0)
			i++;
		if (g->roles[k][f] && i == n)
			roles[n++] = g->roles[k][f];
	}
	if (n)
		qsort(roles, n, sizeof(*roles), by_text);
	for (size_t i = 0; r == 0 && i < n; i++) {
		uint32_t number = 0;

		for (uint32_t f = 0; f < p->n_files; f++) {
			if (g->roles[k][f] && strcmp(g->roles[k][f], roles[i]) == 0)
				number = g->slice[k][f];
		}
		r = put_slice(g, k, roles[i], number, err);
	}
	return r;
}

int img_slices_write(struct img_world *w, struct img_rpm *const *packages, size_t n, struct base_buf *out,
                     struct err *err)
{
	struct graph g = { .w = w, .packages = packages, .n = n, .out = out };
	int r = 0;

	g.roles = calloc(n + 1, sizeof(const char **));
	g.slice = calloc(n + 1, sizeof(uint32_t *));
	g.where = calloc(img_rpm_set_count(img_world_set(w)) + 1, sizeof(*g.where));
	if (!g.roles || !g.slice || !g.where)
		r = -ENOMEM;
	for (size_t k = 0; r == 0 && k < n; k++)
		g.where[packages[k]->index] = k + 1;
	if (r == 0)
		r = find_groups(&g, err);
	(void)base_buf_puts(out, "slimtrace-slices 1\n");
	for (size_t k = 0; r == 0 && k < n; k++)
		r = put_package(&g, k, err);
	if (r == 0)
		r = base_buf_error(out);
	for (size_t k = 0; k < n; k++) {
		if (g.roles)
			free(g.roles[k]);
		if (g.slice)
			free(g.slice[k]);
	}
	free(g.roles);
	free(g.slice);
	free(g.where);
	free(g.from);
	free(g.to);
	free(g.group);
	free(g.is_cycle);
	return r;
}

/* ---- Reading ---------------------------------------------------------------------------------------------- */

struct package {
	const char *name, *evr;
	size_t first_file, n_files;
};

struct img_slices {
	char *text;
	struct package *packages;
	size_t n_packages, cap_packages;
	struct img_slices_file *files; /* sorted by package, then by path within each */
	size_t n_files, cap_files;
	struct img_slices_need *needs;
	size_t n_needs, cap_needs;
	size_t *first_need; /* of files, while the array of needs still moves */
	size_t cap_first;
	const char *role;
};

enum { MAX_FIELDS = 6, MAX_ITEMS = 1 << 26 };

static int grow(void **array, size_t *cap, size_t n, size_t size)
{
	const size_t new_cap = *cap ? *cap * 2 : 256;
	void *grown;

	if (n < *cap)
		return 0;
	if (new_cap > MAX_ITEMS)
		return -E2BIG;
	grown = reallocarray(*array, new_cap, size);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*cap = new_cap;
	return 0;
}

static int on_package(struct img_slices *s, char **f)
{
	int r = grow((void **)&s->packages, &s->cap_packages, s->n_packages, sizeof(*s->packages));

	if (r < 0)
		return r;
	if (s->n_packages && strcmp(s->packages[s->n_packages - 1].name, f[1]) >= 0)
		return -EINVAL; /* sorted, each once: what look-ups rely on */
	s->packages[s->n_packages++] = (struct package){ f[1], f[2], s->n_files, 0 };
	s->role = NULL;
	return 0;
}

static int on_slice(struct img_slices *s, char **f)
{
	if (!s->n_packages)
		return -EINVAL;
	s->role = f[1];
	return 0;
}

static int on_file(struct img_slices *s, char **f)
{
	int r = grow((void **)&s->files, &s->cap_files, s->n_files, sizeof(*s->files));

	if (r == 0)
		r = grow((void **)&s->first_need, &s->cap_first, s->n_files, sizeof(*s->first_need));
	if (r < 0)
		return r;
	if (!s->role || f[1][0] != '/')
		return -EINVAL;
	s->first_need[s->n_files] = s->n_needs;
	s->files[s->n_files++] = (struct img_slices_file){ .path = f[1], .slice = s->role };
	s->packages[s->n_packages - 1].n_files++;
	return 0;
}

static int add_need(struct img_slices *s, struct img_slices_need n)
{
	int r = grow((void **)&s->needs, &s->cap_needs, s->n_needs, sizeof(*s->needs));

	if (r < 0)
		return r;
	if (!s->role || !s->packages[s->n_packages - 1].n_files)
		return -EINVAL;
	s->needs[s->n_needs++] = n;
	s->files[s->n_files - 1].n_needs++;
	return 0;
}

static int on_need(struct img_slices *s, char **f)
{
	if (f[3][0] != '/')
		return -EINVAL;
	return add_need(s,
	                (struct img_slices_need){
	                        .kind = f[1], .package = f[2], .path = f[3], .what = f[4], .is_weak = f[0][0] == 'w' });
}

static int on_needs(struct img_slices *s, char **f)
{
	return add_need(
	        s, (struct img_slices_need){ .kind = f[1], .slice = f[2], .what = f[3], .is_weak = f[0][0] == 'w' });
}

static int on_missing(struct img_slices *s, char **f)
{
	return add_need(s, (struct img_slices_need){ .kind = f[1], .what = f[2], .is_missing = true });
}

static const struct {
	const char *word;
	size_t n_fields;
	int (*take)(struct img_slices *s, char **fields);
} lines[] = { { "package", 4, on_package }, { "slice", 5, on_slice },    { "file", 2, on_file },
	      { "need", 5, on_need },       { "want", 5, on_need },      { "needs", 4, on_needs },
	      { "wants", 4, on_needs },     { "missing", 3, on_missing } };

static int parse_line(struct img_slices *s, char *line)
{
	char *fields[MAX_FIELDS];
	size_t n = 0;

	if (!*line || *line == '#')
		return 0;
	while (line && n < MAX_FIELDS) {
		fields[n] = line;
		line = strchr(line, '\t');
		if (line)
			*line++ = 0;
		if (unescape(fields[n++]) < 0)
			return -EINVAL;
	}
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		if (strcmp(lines[i].word, fields[0]) == 0)
			return !line && n == lines[i].n_fields ? lines[i].take(s, fields) : -EINVAL;
	}
	return -EINVAL;
}

static int compare_files(const void *a, const void *b)
{
	return strcmp(((const struct img_slices_file *)a)->path, ((const struct img_slices_file *)b)->path);
}

/* Needs are given to their files and files sorted, once no array moves any more. */
static void finish(struct img_slices *s)
{
	for (size_t i = 0; i < s->n_files; i++)
		s->files[i].needs = s->files[i].n_needs ? &s->needs[s->first_need[i]] : NULL;
	for (size_t i = 0; i < s->n_packages; i++) {
		if (s->packages[i].n_files)
			qsort(&s->files[s->packages[i].first_file], s->packages[i].n_files, sizeof(*s->files),
			      compare_files);
	}
}

int img_slices_parse(const char *name, const char *text, size_t size, struct img_slices **ret_s, struct err *err)
{
	static const char magic[] = "slimtrace-slices ";
	struct img_slices *s;
	size_t number = 1;
	char *line, *next;
	int r = 0;

	if (size < sizeof(magic) || memcmp(text, magic, sizeof(magic) - 1) != 0)
		return err_set(err, -EBADMSG, "%s: not a database of slices", name);
	if (text[sizeof(magic) - 1] != '1' || size < sizeof(magic) + 1 || text[sizeof(magic)] != '\n')
		return err_set(err, -EBADMSG, "%s: slices of a version that is not known here (1 is)", name);
	if (memchr(text, 0, size))
		return err_set(err, -EBADMSG, "%s: not a text", name);
	s = calloc(1, sizeof(*s));
	if (s)
		s->text = strndup(text, size);
	if (!s || !s->text) {
		img_slices_free(s);
		return -ENOMEM;
	}
	for (line = strchr(s->text, '\n') + 1; r == 0 && line; line = next) {
		number++;
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		r = parse_line(s, line);
	}
	if (r < 0) {
		img_slices_free(s);
		return err_set(err, r == -EINVAL ? -EBADMSG : r, "%s:%zu: %s", name, number,
		               r == -EINVAL ? "not a line that belongs here" : strerror(-r));
	}
	finish(s);
	*ret_s = s;
	return 0;
}

int img_slices_read(const char *path, struct img_slices **ret_s, struct err *err)
{
	struct base_buf buf = BASE_BUF_INIT((size_t)1 << 31);
	int r = base_read_file(path, &buf, err);

	if (r == 0)
		r = img_slices_parse(path, base_buf_text(&buf), buf.len, ret_s, err);
	base_buf_done(&buf);
	return r;
}

void img_slices_free(struct img_slices *s)
{
	if (!s)
		return;
	free(s->text);
	free(s->packages);
	free(s->files);
	free(s->needs);
	free(s->first_need);
	free(s);
}

static const struct package *find_package(const struct img_slices *s, const char *name)
{
	size_t lo = 0, hi = s->n_packages;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (strcmp(s->packages[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < s->n_packages && strcmp(s->packages[lo].name, name) == 0 ? &s->packages[lo] : NULL;
}

const struct img_slices_file *img_slices_file(const struct img_slices *s, const char *package, const char *path)
{
	const struct package *p = find_package(s, package);
	const struct img_slices_file key = { .path = path };

	return p && p->n_files ? bsearch(&key, &s->files[p->first_file], p->n_files, sizeof(key), compare_files) : NULL;
}

const char *img_slices_evr(const struct img_slices *s, const char *package)
{
	const struct package *p = find_package(s, package);

	return p ? p->evr : NULL;
}
