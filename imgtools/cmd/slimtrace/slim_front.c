/* Shared by the subcommands slim, why and report. */
#include "slim_front.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image_progress.h"

enum { CHAIN_MAX = 256 };

static void on_step(const char *text, void *arg)
{
	(void)arg;
	image_progress_clear();
	(void)fprintf(stderr, "slimtrace: %s\n", text);
}

static enum img_pyc pyc_mode(const char *word)
{
	return !word || strcmp(word, "no") == 0 ? IMG_PYC_NO
	       : strcmp(word, "only") == 0      ? IMG_PYC_ONLY
	                                        : IMG_PYC_BESIDE;
}

static struct img_job_opts job_options(const struct slim_options *o)
{
	double timeout = o->timeout_s > 0 ? o->timeout_s : 300;

	return (struct img_job_opts){
		.image = o->image,
		.root = o->root,
		.out = o->out,
		.policy = o->policy,
		.settings = o->settings.items,
		.n_settings = o->settings.n,
		.keep = o->keep.items,
		.n_keep = o->keep.n,
		.drop = o->drop.items,
		.n_drop = o->drop.n,
		.entries = o->entries.items,
		.n_entries = o->entries.n,
		.traces = o->traces.items,
		.n_traces = o->traces.n,
		.runs = o->runs.items,
		.n_runs = o->runs.n,
		.checks = o->checks.items,
		.n_checks = o->checks.n,
		.env = o->env.items,
		.n_env = o->env.n,
		.user = o->user,
		.cwd = o->cwd,
		.save_trace = o->save_trace,
		.gpu_archs = o->gpu_archs ? &o->archs : NULL,
		.layers = o->layers,
		.work_dir = o->work_dir,
		.pyc = pyc_mode(o->pyc),
		.stub_unbound = o->stub_unbound,
		.repair = o->repair,
		.timeout_ms = timeout < 1e9 ? (uint64_t)(timeout * 1000) : UINT64_C(1000000000000),
		.level = (int)o->level,
		.compression = o->compression,
		.auth_file = o->auth_file,
		.insecure = o->insecure,
		.on_step = o->quiet ? NULL : on_step,
	};
}

int slim_front_open(const char *command, struct slim_options *o, struct img_job **ret_job)
{
	struct img_job_opts jo;
	struct img_job *job = NULL;
	struct err err = { 0 };
	int r;

	if (o->gpu_archs && img_gpu_archs_parse(o->gpu_archs, &o->archs, &err) < 0) {
		(void)err_prefix(&err, -EINVAL, "--gpu-arch: ");
		return slimtrace_usage(command, &err);
	}
	o->archs.ptx = o->gpu_ptx && strcmp(o->gpu_ptx, "needed") == 0 ? IMG_GPU_PTX_NEEDED : IMG_GPU_PTX_ONE;
	o->archs.drop_ir = o->drop_ir;
	jo = job_options(o);

	if (!o->image == !o->root) {
		(void)err_set(&err, -EINVAL, "either --image or --root says what is looked at");
		return slimtrace_usage(command, &err);
	}
	if (o->level > 22) {
		(void)err_set(&err, -EINVAL, "--level: at most 22");
		return slimtrace_usage(command, &err);
	}
	jo.progress = image_progress();
	r = img_job_open(&jo, &job, &err);
	if (r == 0)
		r = img_job_plan(job, &err);
	if (r < 0) {
		img_job_close(job);
		image_progress_clear();
		return slimtrace_fail(&err);
	}
	image_progress_clear();
	*ret_job = job;
	return -1;
}

void slim_front_done(struct slim_options *o)
{
	opt_list_done(&o->keep);
	opt_list_done(&o->drop);
	opt_list_done(&o->entries);
	opt_list_done(&o->traces);
	opt_list_done(&o->runs);
	opt_list_done(&o->checks);
	opt_list_done(&o->env);
	opt_list_done(&o->settings);
}

/* Paths are bytes: what is not UTF-8 becomes U+FFFD. */
json_t *slim_front_text(const char *text)
{
	struct base_buf b = BASE_BUF_INIT(1 << 20);
	json_t *value = json_string(text);

	if (!value && base_json_append_string(&b, text, strlen(text)) == 0)
		value = json_loadb(b.data, b.len, JSON_DECODE_ANY, NULL);
	base_buf_done(&b);
	return value ? value : json_string("");
}

/* ---- Sums ---------------------------------------------------------------------------------------------------- */

const char *slim_front_size(uint64_t bytes, char buf[32])
{
	if (bytes < 1000)
		(void)snprintf(buf, 32, "%" PRIu64 " B", bytes);
	else if (bytes < 1000000)
		(void)snprintf(buf, 32, "%.1f kB", (double)bytes / 1e3);
	else if (bytes < 1000000000)
		(void)snprintf(buf, 32, "%.2f MB", (double)bytes / 1e6);
	else
		(void)snprintf(buf, 32, "%.3f GB", (double)bytes / 1e9);
	return buf;
}

static void print_rows(const struct img_slim_sum *rows, size_t n, size_t limit, const char *title, FILE *out)
{
	char kept[32], dropped[32];

	(void)fprintf(out, "\n%-28s %12s %8s   %12s %8s\n", title, "kept", "files", "dropped", "files");
	for (size_t i = 0; i < n && i < limit; i++)
		(void)fprintf(out, "%-28.28s %12s %8" PRIu64 "   %12s %8" PRIu64 "\n", rows[i].name,
		              slim_front_size(rows[i].kept_bytes, kept), rows[i].n_kept,
		              slim_front_size(rows[i].dropped_bytes, dropped), rows[i].n_dropped);
	if (n > limit)
		(void)fprintf(out, "... and %zu more\n", n - limit);
}

void slim_front_print_sums(const struct img_slim_sums *s, size_t limit, FILE *out)
{
	print_rows(s->categories, s->n_categories, limit, "kind", out);
	print_rows(s->packages, s->n_packages, limit, "package", out);
}

static json_t *sum_json(const struct img_slim_sum *s)
{
	return json_pack("{s:o,s:I,s:I,s:I,s:I}", "name", slim_front_text(s->name), "kept_bytes",
	                 (json_int_t)s->kept_bytes, "kept_files", (json_int_t)s->n_kept, "dropped_bytes",
	                 (json_int_t)s->dropped_bytes, "dropped_files", (json_int_t)s->n_dropped);
}

static json_t *rows_json(const struct img_slim_sum *rows, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(list, sum_json(&rows[i]));
	return list;
}

json_t *slim_front_sums_json(const struct img_slim_sums *s)
{
	return json_pack("{s:o,s:o,s:o,s:I}", "all", sum_json(&s->all), "categories",
	                 rows_json(s->categories, s->n_categories), "packages", rows_json(s->packages, s->n_packages),
	                 "folders", (json_int_t)s->n_dirs);
}

/* ---- Chains -------------------------------------------------------------------------------------------------- */

/* Edges from the root down to the node. */
static size_t chain(const struct img_slim_plan *p, uint32_t node, const struct img_edge *ret[CHAIN_MAX])
{
	const struct img_edge *up[CHAIN_MAX], *e = img_graph_via(p->graph, node);
	size_t n = 0;

	for (; e && n < CHAIN_MAX; e = e->from == IMG_GRAPH_ROOT ? NULL : img_graph_via(p->graph, e->from))
		up[n++] = e;
	for (size_t i = 0; i < n; i++)
		ret[i] = up[n - 1 - i];
	return n;
}

void slim_front_print_chain(const struct img_slim_plan *p, uint32_t node, FILE *out)
{
	const struct img_edge *edges[CHAIN_MAX];
	size_t n = chain(p, node, edges);

	for (size_t i = 0; i < n; i++) {
		const struct img_edge *e = edges[i];

		(void)fprintf(out, "%*s%s   [%s: %s]\n", (int)(2 * i), "", img_graph_node(p->graph, e->to)->path,
		              img_reason_name(e->reason), img_graph_what(p->graph, e));
	}
}

json_t *slim_front_chain_json(const struct img_slim_plan *p, uint32_t node)
{
	const struct img_edge *edges[CHAIN_MAX];
	size_t n = chain(p, node, edges);
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		(void)json_array_append_new(list,
		                            json_pack("{s:o,s:s,s:o}", "path",
		                                      slim_front_text(img_graph_node(p->graph, edges[i]->to)->path),
		                                      "reason", img_reason_name(edges[i]->reason), "what",
		                                      slim_front_text(img_graph_what(p->graph, edges[i]))));
	}
	return list;
}
