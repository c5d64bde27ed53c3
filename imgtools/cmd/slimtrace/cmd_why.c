/* slimtrace why, why-not: the shortest chain of reasons for a path; what would keep one that goes, and who had looked
 * for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "slim/advice.h"
#include "slim_front.h"

const struct opt why_opts[] = {
	SLIM_INPUT_OPTIONS,
	{ "limit", 'n', OPT_UINT, offsetof(struct slim_options, limit), "COUNT", "further reasons shown [10]", NULL },
	{ 0 },
};

/* A path of the tree as someone may write it. */
static struct img_node *find(const struct img_job *j, const char *text)
{
	char path[IMG_PATH_MAX];
	struct img_node *n;

	if (img_path_normalize(text, path) < 0)
		return NULL;
	n = img_tree_find(j->tree, path);
	if (!n && img_tree_resolve(j->tree, path, false, &n, NULL, NULL) < 0)
		return NULL;
	return n;
}

static void print_json(json_t *doc)
{
	struct base_buf b = BASE_BUF_INIT(1u << 30);

	if (doc && base_json_append(&b, doc) == 0)
		(void)printf("%s\n", b.data);
	base_buf_done(&b);
	json_decref(doc);
}

/* Edges that lead to a node from what stays, or from anything looked into: weak ones, else it would stay. */
static size_t tell_who_wants(const struct img_job *j, uint32_t node, size_t limit, json_t *list)
{
	const struct img_graph *g = j->plan->graph;
	size_t n = 0;

	for (size_t i = 0; i < img_graph_n_edges(g); i++) {
		const struct img_edge *e = img_graph_edge(g, i);
		const char *from = e->from == IMG_GRAPH_ROOT ? "a root" : img_graph_node(g, e->from)->path;

		if (e->to != node || e->reason == IMG_REASON_PARENT || n++ >= limit)
			continue;
		if (list)
			(void)json_array_append_new(list, json_pack("{s:o,s:s,s:o,s:b}", "path", slim_front_text(from),
			                                            "reason", img_reason_name(e->reason), "what",
			                                            slim_front_text(img_graph_what(g, e)), "is_weak",
			                                            e->is_weak));
		else
			(void)printf("  %s may need it   [%s: %s]\n", from, img_reason_name(e->reason),
			             img_graph_what(g, e));
	}
	return n;
}

static void tell_dropped(const struct img_job *j, const struct img_node *n, const struct slim_options *o)
{
	uint32_t node = img_graph_index(j->plan->graph, n);
	bool by_rule = img_policy_drops(j->policy, n->path);
	size_t limit = o->limit ? o->limit : 10, wanted;
	char origin[512], size[32];
	json_t *list = o->json ? json_array() : NULL;

	(void)img_advice_origin(j->packages, n->path, origin, sizeof(origin));
	if (!o->json)
		(void)printf("%s is dropped: %s, %s, %s\n", n->path, img_slim_category(n),
		             slim_front_size(n->size, size), origin);
	if (!o->json && by_rule)
		(void)printf("  a drop pattern says so\n");
	wanted = tell_who_wants(j, node, limit, list);
	if (o->json) {
		print_json(json_pack("{s:o,s:b,s:s,s:o,s:b,s:o,s:I}", "path", slim_front_text(n->path), "kept", 0,
		                     "category", img_slim_category(n), "origin", slim_front_text(origin),
		                     "drop_pattern", by_rule, "wanted_by", list, "size", (json_int_t)n->size));
		return;
	}
	if (wanted == 0)
		(void)printf("  nothing that stays names it, and no run touched it\n");
	else if (wanted > limit)
		(void)printf("  ... and %zu more\n", wanted - limit);
	if (wanted && !j->plan->follows_weak && !by_rule)
		(void)printf("  such needs count only with --set weak=yes, or when a traced run uses them\n");
	(void)printf("  to keep it: --keep %s\n", n->path);
	if (strncmp(origin, "package ", 8) == 0 && strstr(origin, ", slice "))
		(void)printf("  to keep its kind: --keep %s\n", strstr(origin, ", slice ") + strlen(", slice "));
}

/* Further reasons: edges from other files that stay. */
static void tell_also(const struct img_job *j, uint32_t node, size_t limit, json_t *list)
{
	const struct img_graph *g = j->plan->graph;
	const struct img_edge *via = img_graph_via(g, node);
	size_t n = 0;

	for (size_t i = 0; i < img_graph_n_edges(g); i++) {
		const struct img_edge *e = img_graph_edge(g, i);

		if (e->to != node || e == via || e->from == IMG_GRAPH_ROOT || e->is_weak ||
		    e->reason == IMG_REASON_PARENT || !img_graph_keeps(g, e->from) || n++ >= limit)
			continue;
		if (list)
			(void)json_array_append_new(list, json_pack("{s:o,s:s,s:o}", "path",
			                                            slim_front_text(img_graph_node(g, e->from)->path),
			                                            "reason", img_reason_name(e->reason), "what",
			                                            slim_front_text(img_graph_what(g, e))));
		else
			(void)printf("also for %s   [%s: %s]\n", img_graph_node(g, e->from)->path,
			             img_reason_name(e->reason), img_graph_what(g, e));
	}
	if (!list && n > limit)
		(void)printf("... and for %zu more\n", n - limit);
}

static void tell_kept(const struct img_job *j, const struct img_node *n, const struct slim_options *o)
{
	uint32_t node = img_graph_index(j->plan->graph, n);
	size_t limit = o->limit ? o->limit : 10;
	char origin[512];

	(void)img_advice_origin(j->packages, n->path, origin, sizeof(origin));
	if (o->json) {
		json_t *also = json_array();

		tell_also(j, node, SIZE_MAX, also);
		print_json(json_pack("{s:o,s:b,s:o,s:o,s:o}", "path", slim_front_text(n->path), "kept", 1, "origin",
		                     slim_front_text(origin), "chain", slim_front_chain_json(j->plan, node), "also",
		                     also));
		return;
	}
	(void)printf("%s stays (%s)\n", n->path, origin);
	slim_front_print_chain(j->plan, node, stdout);
	tell_also(j, node, limit, NULL);
}

/* Not in the image at all: did anybody look for it? */
static bool tell_absent(const struct img_job *j, const char *text, const struct slim_options *o)
{
	const struct img_graph *g = j->plan->graph;
	const char *slash = strrchr(text, '/'), *base = slash ? slash + 1 : text;
	json_t *list = json_array();
	size_t n = 0;

	for (size_t i = 0; i < img_graph_n_sought(g); i++) {
		const struct img_sought *m = img_graph_sought(g, i);
		const char *what = img_graph_text(g, m->what), *from;

		if (strcmp(what, text) != 0 && strcmp(what, base) != 0)
			continue;
		from = m->from == IMG_GRAPH_ROOT ? "a run" : img_graph_node(g, m->from)->path;
		n++;
		(void)json_array_append_new(list, json_pack("{s:o,s:s}", "path", slim_front_text(from), "reason",
		                                            img_reason_name(m->reason)));
	}
	if (o->json) {
		print_json(json_pack("{s:o,s:b,s:n,s:o}", "path", slim_front_text(text), "kept", 0, "category",
		                     "wanted_by", list));
		return n > 0;
	}
	(void)printf("%s is not in the image\n", text);
	for (size_t i = 0; i < json_array_size(list); i++)
		(void)printf("  %s looked for it   [%s]\n",
		             json_string_value(json_object_get(json_array_get(list, i), "path")),
		             json_string_value(json_object_get(json_array_get(list, i), "reason")));
	json_decref(list);
	return n > 0;
}

/* 0: what was asked holds (why: it stays; why-not: it does not); 1: the other way round. */
static int answer(const char *command, int argc, char **argv, bool asks_kept)
{
	struct slim_options o = { 0 };
	struct img_job *job = NULL;
	struct err err = { 0 };
	int n_args, code;

	code = slimtrace_options(argc, argv, &o, &n_args);
	if (code < 0 && n_args == 0) {
		(void)err_set(&err, -EINVAL, "no path");
		code = slimtrace_usage(command, &err);
	}
	if (code < 0)
		code = slim_front_open(command, &o, &job);
	if (code < 0) {
		code = 0;
		for (int i = 0; i < n_args; i++) {
			struct img_node *n = find(job, argv[i]);
			bool kept = n && img_graph_keeps(job->plan->graph, img_graph_index(job->plan->graph, n));

			if (!n)
				(void)tell_absent(job, argv[i], &o);
			else if (kept)
				tell_kept(job, n, &o);
			else
				tell_dropped(job, n, &o);
			code = code || kept != asks_kept;
		}
	}
	img_job_close(job);
	slim_front_done(&o);
	return code;
}

int cmd_why(int argc, char **argv)
{
	return answer("why", argc, argv, true);
}

int cmd_why_not(int argc, char **argv)
{
	return answer("why-not", argc, argv, false);
}
