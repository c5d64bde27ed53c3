/* Nodes are numbered in the order of the paths; what is known of each (entered by which edge, looked into or not) is in
 * arrays beside the tree. Words are kept once, in one text. */
#include "slim/graph.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum {
	NONE = UINT32_MAX,
	EDGES_MAX = 1u << 28,
	TEXT_MAX = 1u << 30,
	NOTES_MAX = 64u << 10,
};

struct img_graph {
	struct img_tree *tree;
	struct img_graph_opts o;
	struct img_analyze *analyze;
	struct img_node **nodes;
	uint32_t n_nodes;
	uint32_t *via;   /* per node: index of the edge it was entered by, or NONE */
	uint32_t *depth; /* per node, valid when entered */
	bool *is_traced; /* per node: a run touched it */
	uint32_t *queue; /* nodes in the order they were entered */
	uint32_t n_queue, n_done;
	struct img_edge *edges;
	size_t n_edges, edges_cap;
	size_t n_entered; /* edges of roots that have been looked at */
	struct img_sought *sought;
	size_t n_sought, sought_cap;
	struct base_buf text, notes;
	uint32_t *words; /* hash table of offsets in text, +1; 0: free */
	size_t n_words, words_cap;
	uint32_t from; /* whose needs are being told */
};

static const char *const own_names[] = {
	[IMG_REASON_ENTRY - IMG_REASON_ENTRY] = "entry point", [IMG_REASON_KEEP - IMG_REASON_ENTRY] = "asked for",
	[IMG_REASON_POLICY - IMG_REASON_ENTRY] = "policy",     [IMG_REASON_PARENT - IMG_REASON_ENTRY] = "folder of",
	[IMG_REASON_SAME - IMG_REASON_ENTRY] = "same file as", [IMG_REASON_PACKAGE - IMG_REASON_ENTRY] = "package says",
	[IMG_REASON_REPAIR - IMG_REASON_ENTRY] = "repaired",
};

const char *img_reason_name(uint8_t reason)
{
	if (reason < IMG_REASON_TRACE)
		return img_need_kind_name((enum img_need_kind)reason);
	if (reason < IMG_REASON_ENTRY)
		return img_access_name((enum img_access)(reason - IMG_REASON_TRACE));
	return reason < IMG_N_REASONS ? own_names[reason - IMG_REASON_ENTRY] : "unknown";
}

/* ---- Words --------------------------------------------------------------------------------------------------- */

static uint32_t hash_text(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h ^ h >> 15;
}

static int words_grow(struct img_graph *g)
{
	size_t cap = g->words_cap ? 2 * g->words_cap : 1024;
	uint32_t *words = calloc(cap, sizeof(*words));

	if (!words)
		return -ENOMEM;
	for (size_t i = 0; i < g->words_cap; i++) {
		size_t at;

		if (!g->words[i])
			continue;
		at = hash_text(g->text.data + g->words[i] - 1) & (cap - 1);
		while (words[at])
			at = (at + 1) & (cap - 1);
		words[at] = g->words[i];
	}
	free(g->words);
	g->words = words;
	g->words_cap = cap;
	return 0;
}

static int add_word(struct img_graph *g, const char *s, uint32_t *ret)
{
	size_t at;
	int r;

	if (2 * g->n_words >= g->words_cap && (r = words_grow(g)) < 0)
		return r;
	at = hash_text(s) & (g->words_cap - 1);
	for (; g->words[at]; at = (at + 1) & (g->words_cap - 1)) {
		if (strcmp(g->text.data + g->words[at] - 1, s) == 0) {
			*ret = g->words[at] - 1;
			return 0;
		}
	}
	*ret = (uint32_t)g->text.len;
	r = base_buf_append(&g->text, s, strlen(s) + 1);
	if (r < 0)
		return r;
	g->words[at] = *ret + 1;
	g->n_words++;
	return 0;
}

/* ---- Edges --------------------------------------------------------------------------------------------------- */

static int add_edge(struct img_graph *g, uint32_t from, uint32_t to, uint8_t reason, const char *what, bool is_weak)
{
	struct img_edge e = { .from = from, .to = to, .reason = reason, .is_weak = is_weak };
	int r = add_word(g, what, &e.what);

	if (r < 0)
		return r;
	if (g->n_edges == g->edges_cap) {
		size_t cap = 2 * g->edges_cap + 256;
		struct img_edge *more = cap <= EDGES_MAX ? reallocarray(g->edges, cap, sizeof(*more)) : NULL;

		if (!more)
			return -ENOMEM;
		g->edges = more;
		g->edges_cap = cap;
	}
	g->edges[g->n_edges++] = e;
	return 0;
}

static int add_sought(struct img_graph *g, uint32_t from, uint8_t reason, const char *what)
{
	struct img_sought m = { .from = from, .reason = reason };
	int r = add_word(g, what, &m.what);

	if (r < 0)
		return r;
	if (g->n_sought == g->sought_cap) {
		size_t cap = 2 * g->sought_cap + 64;
		struct img_sought *more = reallocarray(g->sought, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		g->sought = more;
		g->sought_cap = cap;
	}
	g->sought[g->n_sought++] = m;
	return 0;
}

static bool is_dropped(const struct img_graph *g, uint32_t node)
{
	return g->o.is_dropped && g->o.is_dropped(g->nodes[node], g->o.arg);
}

/* Enters the node that an edge leads to, when it is new. */
static void enter(struct img_graph *g, size_t edge)
{
	const struct img_edge *e = &g->edges[edge];

	if (g->via[e->to] != NONE || (e->is_weak && !g->o.follow_weak) || is_dropped(g, e->to))
		return;
	g->via[e->to] = (uint32_t)edge;
	g->depth[e->to] = e->from == IMG_GRAPH_ROOT ? 0 : g->depth[e->from] + 1;
	g->queue[g->n_queue++] = e->to;
}

/* ---- New and free -------------------------------------------------------------------------------------------- */

void img_graph_free(struct img_graph *g)
{
	if (!g)
		return;
	img_analyze_free(g->analyze);
	free(g->nodes);
	free(g->via);
	free(g->depth);
	free(g->is_traced);
	free(g->queue);
	free(g->edges);
	free(g->sought);
	free(g->words);
	base_buf_done(&g->text);
	base_buf_done(&g->notes);
	free(g);
}

int img_graph_new(struct img_tree *t, const struct img_graph_opts *o, struct img_graph **ret_g, struct err *err)
{
	struct img_graph *g = calloc(1, sizeof(*g));
	size_t n = img_tree_count(t);
	int r;

	if (!g)
		return err_set(err, -ENOMEM, "out of memory");
	g->tree = t;
	g->o = *o;
	g->n_nodes = (uint32_t)n;
	base_buf_init(&g->text, TEXT_MAX);
	base_buf_init(&g->notes, NOTES_MAX);
	g->nodes = calloc(n + 1, sizeof(struct img_node *));
	g->via = calloc(n + 1, sizeof(*g->via));
	g->depth = calloc(n + 1, sizeof(*g->depth));
	g->queue = calloc(n + 1, sizeof(*g->queue));
	g->is_traced = calloc(n + 1, sizeof(*g->is_traced));
	if (!g->is_traced || !g->nodes || !g->via || !g->depth || !g->queue) {
		img_graph_free(g);
		return err_set(err, -ENOMEM, "out of memory");
	}
	for (uint32_t i = 0; i < g->n_nodes; i++) {
		g->nodes[i] = img_tree_at(t, i);
		g->nodes[i]->user = (void *)(uintptr_t)i;
		g->via[i] = NONE;
	}
	r = img_analyze_new(t, &g->analyze, err);
	if (r < 0) {
		img_graph_free(g);
		return r;
	}
	*ret_g = g;
	return 0;
}

/* ---- Roots --------------------------------------------------------------------------------------------------- */

int img_graph_add_root(struct img_graph *g, const struct img_node *n, enum img_reason reason, const char *what)
{
	return add_edge(g, IMG_GRAPH_ROOT, img_graph_index(g, n), (uint8_t)reason, what, false);
}

struct link_arg {
	struct img_graph *g;
	enum img_reason reason;
	const char *what;
	int r;
};

static void on_link(struct img_node *link, void *arg)
{
	struct link_arg *x = arg;

	if (x->r == 0)
		x->r = img_graph_add_root(x->g, link, x->reason, x->what);
}

int img_graph_add_path(struct img_graph *g, const char *path, enum img_reason reason, const char *what)
{
	struct link_arg x = { g, reason, what, 0 };
	struct img_node *n;
	int r = img_tree_resolve(g->tree, path, true, &n, NULL, NULL);

	if (r < 0) {
		/* A link that leads nowhere may be what was asked for. */
		r = img_tree_resolve(g->tree, path, false, &n, on_link, &x);
		return r < 0 ? r : x.r < 0 ? x.r : img_graph_add_root(g, n, reason, what);
	}
	(void)img_tree_resolve(g->tree, path, true, &n, on_link, &x);
	return x.r < 0 ? x.r : img_graph_add_root(g, n, reason, what);
}

/* Made or written: the folder must be there; what is there already may be appended to. */
static int add_created(struct img_graph *g, const struct img_trace_record *rec, const char *what)
{
	char path[IMG_PATH_MAX];
	char *slash;
	size_t len = strlen(rec->path);

	if (len >= sizeof(path))
		return 0;
	memcpy(path, rec->path, len + 1);
	while ((slash = strrchr(path, '/')) && slash != path) {
		struct img_node *n;

		*slash = 0;
		n = img_tree_find(g->tree, path);
		if (n)
			return img_graph_add_root(g, n, IMG_REASON_TRACE + IMG_ACCESS_CREATE, what);
	}
	return 0;
}

int img_graph_add_trace(struct img_graph *g, const struct img_trace *trace, struct err *err)
{
	size_t n_processes = img_trace_n_processes(trace);
	int r = 0;

	for (size_t i = 0; r == 0 && i < img_trace_count(trace); i++) {
		const struct img_trace_record *rec = img_trace_at(trace, i);
		const char *what = "a run";
		struct img_node *n;

		for (size_t p = 0; p < n_processes; p++) {
			const struct img_trace_process *process = img_trace_process_at(trace, p);

			if (process->pid == rec->pid && process->program && process->program[0])
				what = process->program;
		}
		if (rec->access == IMG_ACCESS_MISS) {
			r = add_sought(g, IMG_GRAPH_ROOT, IMG_REASON_TRACE + IMG_ACCESS_MISS, rec->path);
			continue;
		}
		n = img_tree_find(g->tree, rec->path);
		if (n)
			g->is_traced[img_graph_index(g, n)] = true;
		if (n)
			r = img_graph_add_root(g, n, IMG_REASON_TRACE + rec->access, what);
		else if (img_tree_resolve(g->tree, rec->path, true, &n, NULL, NULL) == 0)
			r = img_graph_add_path(g, rec->path, IMG_REASON_TRACE + rec->access, what);
		else if (rec->access == IMG_ACCESS_CREATE)
			r = add_created(g, rec, what);
	}
	return r < 0 ? err_set(err, r, "%s", strerror(-r)) : 0;
}

/* ---- Closing ------------------------------------------------------------------------------------------------- */

/* What configuration names is loaded without a word in any code: it counts when it is there. What a file imports, and a
 * run that used the file did not touch, was not imported by it: the statement is in a branch, or the module is built
 * into the interpreter in another form (frozen). */
static bool is_weak(const struct img_graph *g, const struct img_need *need)
{
	if (need->kind == IMG_NEED_IMPORT && g->is_traced[g->from])
		return true;
	return need->is_weak && need->kind != IMG_NEED_CONFIG;
}

static int on_need(const struct img_need *need, void *arg)
{
	struct img_graph *g = arg;

	if (!need->to)
		return need->is_weak ? 0 : add_sought(g, g->from, (uint8_t)need->kind, need->what);
	if (img_graph_index(g, need->to) == g->from)
		return 0;
	return add_edge(g, g->from, img_graph_index(g, need->to), (uint8_t)need->kind, need->what, is_weak(g, need));
}

static int add_parent(struct img_graph *g, uint32_t node)
{
	const char *path = g->nodes[node]->path, *slash = strrchr(path, '/');
	char parent[IMG_PATH_MAX];
	const struct img_node *n;

	if (!path[1])
		return 0;
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = 0;
	n = img_tree_find(g->tree, slash == path ? "/" : parent);
	return n ? add_edge(g, node, img_graph_index(g, n), IMG_REASON_PARENT, path, false) : 0;
}

/* What the package says this file needs, as far as another file is named as the provider. */
static int add_package_needs(struct img_graph *g, uint32_t node, struct err *err)
{
	const char *path = g->nodes[node]->path;
	struct img_rpm *p;
	int32_t file, provider_file;
	int r = 0;

	if (!g->o.packages)
		return 0;
	p = img_rpm_set_owner(g->o.packages, path, &file, err);
	if (!p || file < 0 || (size_t)file >= p->n_files)
		return 0;
	for (uint32_t i = 0; r == 0 && i < p->files[file].n_deps; i++) {
		uint32_t dep = p->files[file].deps[i], at = dep & 0xffffff;
		const struct img_rpm_dep *d;
		struct img_rpm *provider;
		struct img_node *to;

		if (dep >> 24 != IMG_RPM_REQUIRES || at >= p->n_deps[IMG_RPM_REQUIRES])
			continue;
		d = &p->deps[IMG_RPM_REQUIRES][at];
		provider = img_rpm_set_provider(g->o.packages, d, &provider_file, err);
		if (!provider || provider_file < 0 || (size_t)provider_file >= provider->n_files)
			continue;
		to = img_tree_find(g->tree, provider->files[provider_file].path);
		if (to && img_graph_index(g, to) != node)
			r = add_edge(g, node, img_graph_index(g, to), IMG_REASON_PACKAGE, d->name, false);
	}
	return r;
}

static int look_into(struct img_graph *g, uint32_t node, struct err *err)
{
	const char *note;
	int r = add_parent(g, node);

	g->from = node;
	if (r == 0)
		r = img_analyze_file(g->analyze, g->nodes[node], on_need, g, &note, err);
	if (r == 0 && note)
		(void)base_buf_printf(&g->notes, "%s\n", note);
	if (r == 0)
		r = add_package_needs(g, node, err);
	return r;
}

int img_graph_close(struct img_graph *g, struct err *err)
{
	/* Roots of a later call go in behind what is there: their needs are walked from where the queue ended. */
	for (; g->n_entered < g->n_edges; g->n_entered++) {
		if (g->edges[g->n_entered].from == IMG_GRAPH_ROOT)
			enter(g, g->n_entered);
	}
	while (g->n_done < g->n_queue) {
		size_t first = g->n_edges;
		int r = look_into(g, g->queue[g->n_done++], err);

		if (r < 0)
			return r;
		for (size_t i = first; i < g->n_edges; i++)
			enter(g, i);
	}
	g->n_entered = g->n_edges;
	return 0;
}

/* ---- Answers ------------------------------------------------------------------------------------------------- */

uint32_t img_graph_index(const struct img_graph *g, const struct img_node *n)
{
	(void)g;
	return (uint32_t)(uintptr_t)n->user;
}

bool img_graph_keeps(const struct img_graph *g, uint32_t node)
{
	return g->via[node] != NONE;
}

uint32_t img_graph_depth(const struct img_graph *g, uint32_t node)
{
	return g->via[node] == NONE ? UINT32_MAX : g->depth[node];
}

const struct img_edge *img_graph_via(const struct img_graph *g, uint32_t node)
{
	return g->via[node] == NONE ? NULL : &g->edges[g->via[node]];
}

size_t img_graph_n_edges(const struct img_graph *g)
{
	return g->n_edges;
}

const struct img_edge *img_graph_edge(const struct img_graph *g, size_t i)
{
	return &g->edges[i];
}

const char *img_graph_text(const struct img_graph *g, uint32_t what)
{
	return g->text.data + what;
}

const char *img_graph_what(const struct img_graph *g, const struct img_edge *e)
{
	return img_graph_text(g, e->what);
}

struct img_node *img_graph_node(const struct img_graph *g, uint32_t node)
{
	return g->nodes[node];
}

size_t img_graph_n_sought(const struct img_graph *g)
{
	return g->n_sought;
}

const struct img_sought *img_graph_sought(const struct img_graph *g, size_t i)
{
	return &g->sought[i];
}

const char *img_graph_notes(const struct img_graph *g)
{
	return base_buf_text(&g->notes);
}
