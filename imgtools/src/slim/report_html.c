/* The page's data: one JSON document, in which no '<' stands, so that nothing of a path can end the script. */
#include "slim/report_html.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/mapfile.h"
#include "slim/report_page.h"

enum { PAGE_MAX = 256 << 20, FILES_MAX = 40000, CATEGORIES_MAX = 64 };

static void put_text(struct base_buf *b, const char *text)
{
	size_t from = b->len;

	(void)base_json_append_string(b, text, strlen(text));
	/* '<' would be read by the browser before the JSON is: as an escape it says the same */
	while (base_buf_error(b) == 0) {
		char *lt = b->data ? memchr(b->data + from, '<', b->len - from) : NULL;
		size_t at, rest;

		if (!lt)
			return;
		at = (size_t)(lt - b->data);
		rest = b->len - at - 1;
		if (base_buf_append(b, "12345", 5) < 0)
			return;
		memmove(b->data + at + 6, b->data + at + 1, rest);
		memcpy(b->data + at, "\\u003c", 6);
		from = at + 6;
	}
}

static size_t category_index(const char *names[CATEGORIES_MAX], size_t *n, const char *name)
{
	for (size_t i = 0; i < *n; i++) {
		if (strcmp(names[i], name) == 0)
			return i;
	}
	if (*n == CATEGORIES_MAX)
		return CATEGORIES_MAX - 1;
	names[*n] = name;
	return (*n)++;
}

static void put_why(struct base_buf *b, const struct img_slim_plan *p, uint32_t node)
{
	const struct img_edge *e = img_graph_via(p->graph, node);
	char text[2 * IMG_PATH_MAX];

	if (!e) {
		(void)base_buf_puts(b, "\"\"");
		return;
	}
	if (e->from == IMG_GRAPH_ROOT)
		(void)snprintf(text, sizeof(text), "%s: %.500s", img_reason_name(e->reason),
		               img_graph_what(p->graph, e));
	else
		(void)snprintf(text, sizeof(text), "%s: %.500s, by %s", img_reason_name(e->reason),
		               img_graph_what(p->graph, e), img_graph_node(p->graph, e->from)->path);
	put_text(b, text);
}

struct row {
	uint32_t node;
	uint64_t size;
};

static int by_size(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->size != y->size)
		return x->size < y->size ? 1 : -1;
	return x->node < y->node ? -1 : x->node > y->node;
}

/* The largest files, up to FILES_MAX, hard links once. */
static int put_files(struct base_buf *b, const struct img_job *j)
{
	size_t n = img_tree_count(j->tree), n_rows = 0, n_names = 0;
	CLEANUP(freep) struct row *rows = calloc(n + 1, sizeof(*rows));
	CLEANUP(freep) uint8_t *seen = NULL;
	const char *names[CATEGORIES_MAX];
	uint32_t max_group = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t group = img_graph_node(j->plan->graph, (uint32_t)i)->link_group;

		max_group = group > max_group ? group : max_group;
	}
	seen = calloc((size_t)max_group + 1, 1);
	if (!rows || !seen)
		return -ENOMEM;
	/* kept names of a group come first, so that the group shows as kept */
	for (int kept = 1; kept >= 0; kept--) {
		for (size_t i = 0; i < n; i++) {
			const struct img_node *node = img_graph_node(j->plan->graph, (uint32_t)i);

			if (node->type != IMG_FILE || img_graph_keeps(j->plan->graph, (uint32_t)i) != kept ||
			    (node->link_group && seen[node->link_group]))
				continue;
			seen[node->link_group] = 1;
			rows[n_rows++] = (struct row){ (uint32_t)i, node->size };
		}
	}
	qsort(rows, n_rows, sizeof(*rows), by_size);
	(void)base_buf_puts(b, "\"files\":[");
	for (size_t i = 0; i < n_rows && i < FILES_MAX; i++) {
		const struct img_node *node = img_graph_node(j->plan->graph, rows[i].node);
		const struct img_node *made = j->slim ? img_tree_find(j->slim, node->path) : NULL;
		uint64_t kept = made ? made->size : 0;

		(void)base_buf_puts(b, i ? ",\n[" : "[");
		put_text(b, node->path);
		(void)base_buf_printf(b, ",%" PRIu64 ",%" PRIu64 ",%zu,", node->size,
		                      kept > node->size ? node->size : kept,
		                      category_index(names, &n_names, img_slim_category(node)));
		put_why(b, j->plan, rows[i].node);
		(void)base_buf_puts(b, "]");
	}
	(void)base_buf_puts(b, "],\"categories\":[");
	for (size_t i = 0; i < n_names; i++) {
		(void)base_buf_puts(b, i ? "," : "");
		put_text(b, names[i]);
	}
	(void)base_buf_puts(b, "],");
	return 0;
}

static void put_sums(struct base_buf *b, const char *name, const struct img_slim_sum *rows, size_t n)
{
	(void)base_buf_printf(b, "\"%s\":[", name);
	for (size_t i = 0; i < n; i++) {
		(void)base_buf_puts(b, i ? ",{\"name\":" : "{\"name\":");
		put_text(b, rows[i].name);
		(void)base_buf_printf(b,
		                      ",\"kept_bytes\":%" PRIu64 ",\"kept_files\":%" PRIu64
		                      ",\"dropped_bytes\":%" PRIu64 ",\"dropped_files\":%" PRIu64 "}",
		                      rows[i].kept_bytes, rows[i].n_kept, rows[i].dropped_bytes, rows[i].n_dropped);
	}
	(void)base_buf_puts(b, "]");
}

static void put_runs(struct base_buf *b, const struct img_job *j)
{
	(void)base_buf_puts(b, "\"runs\":[");
	for (size_t i = 0; i < j->n_trials; i++) {
		const struct img_trial *t = &j->trials[i];

		(void)base_buf_puts(b, i ? ",{\"command\":" : "{\"command\":");
		put_text(b, t->text);
		(void)base_buf_puts(b, ",\"verdict\":");
		put_text(b, t->verdict);
		(void)base_buf_printf(b,
		                      ",\"tried\":%s,\"passed\":%s,\"exit_code\":%d,\"full_s\":%.3f,\"slim_s\":%.3f,"
		                      "\"missed\":[",
		                      t->n_rounds ? "true" : "false", t->passed ? "true" : "false", t->full.exit_code,
		                      (double)t->full.wall_ns / 1e9, (double)t->slim.wall_ns / 1e9);
		for (size_t k = 0; !t->passed && k < t->n_missed; k++) {
			(void)base_buf_puts(b, k ? "," : "");
			put_text(b, t->missed[k].path);
		}
		(void)base_buf_puts(b, "]}");
	}
	(void)base_buf_puts(b, "],");
}

static void put_fact(struct base_buf *b, const char *label, uint64_t value, bool is_first)
{
	(void)base_buf_printf(b, "%s[\"%s\",\"%" PRIu64 "\"]", is_first ? "" : ",", label, value);
}

static void put_facts(struct base_buf *b, const struct img_job *j, const struct img_slim_sums *s)
{
	(void)base_buf_puts(b, "\"facts\":[");
	put_fact(b, "files and links stay", s->all.n_kept, true);
	put_fact(b, "files and links go", s->all.n_dropped, false);
	if (j->packages)
		put_fact(b, "packages in the full image", img_rpm_set_count(j->packages), false);
	if (j->n_rpmdb)
		put_fact(b, "packages in the slim one", j->n_rpmdb, false);
	if (j->n_traces)
		put_fact(b, "traces", j->n_traces, false);
	if (j->stubs.n_stubs)
		put_fact(b, "libraries stubbed", j->stubs.n_stubs, false);
	if (j->written.n_layers)
		put_fact(b, "layers", j->written.n_layers, false);
	(void)base_buf_puts(b, "]");
}

int img_report_html_write(const struct img_job *j, const struct img_slim_sums *sums, const char *path, struct err *err)
{
	struct base_buf b = BASE_BUF_INIT(PAGE_MAX);
	uint64_t n_files, n_links;
	int r;

	(void)base_buf_puts(&b, img_report_head);
	(void)base_buf_puts(&b, "{\"name\":");
	put_text(&b, j->o.image ? j->o.image : j->o.root);
	(void)base_buf_printf(&b, ",\"full\":%" PRIu64 ",", img_tree_bytes(j->tree, &n_files, &n_links));
	(void)base_buf_printf(&b, "\"slim\":%" PRIu64 ",\n", img_tree_bytes(j->slim, &n_files, &n_links));
	r = put_files(&b, j);
	put_runs(&b, j);
	(void)base_buf_puts(&b, "\"sums\":{");
	put_sums(&b, "categories", sums->categories, sums->n_categories);
	(void)base_buf_puts(&b, ",");
	put_sums(&b, "packages", sums->packages, sums->n_packages);
	(void)base_buf_puts(&b, "},");
	put_facts(&b, j, sums);
	(void)base_buf_puts(&b, "}");
	(void)base_buf_puts(&b, img_report_tail);
	if (r == 0)
		r = base_buf_error(&b);
	if (r < 0)
		r = err_set(err, r, "%s: %s", path, strerror(-r));
	else
		r = base_write_file_atomic(path, b.data, b.len, 0644, err);
	base_buf_done(&b);
	return r;
}
