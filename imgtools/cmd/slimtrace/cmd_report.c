/* slimtrace report: what a slim image would hold and what it would not, on the terminal or as a page. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "slim/report_html.h"
#include "slim_front.h"

const struct opt report_opts[] = {
	SLIM_INPUT_OPTIONS,
	{ "html", 0, OPT_STR, offsetof(struct slim_options, html), "FILE", "write a page with a map of all files",
	  NULL },
	{ "limit", 'n', OPT_UINT, offsetof(struct slim_options, limit), "COUNT", "rows of each table [20]", NULL },
	{ 0 },
};

static void print_reasons(const struct img_slim_plan *p)
{
	uint64_t n[IMG_N_REASONS] = { 0 }, bytes[IMG_N_REASONS] = { 0 };
	size_t count = img_tree_count(p->o.tree);
	char size[32];

	for (size_t i = 0; i < count; i++) {
		const struct img_edge *e = img_graph_via(p->graph, (uint32_t)i);
		const struct img_node *node = img_graph_node(p->graph, (uint32_t)i);

		if (!e || node->type == IMG_DIR)
			continue;
		n[e->reason]++;
		bytes[e->reason] += node->type == IMG_FILE ? node->size : 0;
	}
	(void)printf("\n%-28s %12s %8s\n", "nearest reason", "bytes", "files");
	for (unsigned int i = 0; i < IMG_N_REASONS; i++) {
		if (n[i])
			(void)printf("%-28s %12s %8" PRIu64 "\n", img_reason_name((uint8_t)i),
			             slim_front_size(bytes[i], size), n[i]);
	}
}

static void print_text(const struct img_job *j, const struct img_slim_sums *s, size_t limit)
{
	char a[32], b[32];

	(void)printf("%s: %s stay in %" PRIu64 " files and links, %s go with %" PRIu64 "\n",
	             j->o.image ? j->o.image : j->o.root, slim_front_size(s->all.kept_bytes, a), s->all.n_kept,
	             slim_front_size(s->all.dropped_bytes, b), s->all.n_dropped);
	slim_front_print_sums(s, limit, stdout);
	print_reasons(j->plan);
	if (img_graph_notes(j->plan->graph)[0])
		(void)printf("\nnot looked into:\n%s", img_graph_notes(j->plan->graph));
}

static void print_json(const struct img_job *j, const struct img_slim_sums *s)
{
	struct base_buf b = BASE_BUF_INIT(1u << 30);
	json_t *doc = json_pack("{s:o,s:o}", "input", slim_front_text(j->o.image ? j->o.image : j->o.root), "sums",
	                        slim_front_sums_json(s));

	if (doc && base_json_append(&b, doc) == 0)
		(void)printf("%s\n", b.data);
	json_decref(doc);
	base_buf_done(&b);
}

int cmd_report(int argc, char **argv)
{
	struct slim_options o = { 0 };
	struct img_slim_sums sums = { 0 };
	struct img_job *job = NULL;
	struct err err = { 0 };
	int n_args, code, r;

	code = slimtrace_options(argc, argv, &o, &n_args);
	if (code < 0 && n_args > 0) {
		(void)err_set(&err, -EINVAL, "%.100s: an argument without an option", argv[0]);
		code = slimtrace_usage("report", &err);
	}
	if (code < 0)
		code = slim_front_open("report", &o, &job);
	if (code < 0) {
		r = img_job_build(job, &err);
		if (r == 0 && img_slim_sums(job->plan, job->slim, &sums) < 0)
			r = err_set(&err, -ENOMEM, "out of memory");
		if (r == 0 && o.html)
			r = img_report_html_write(job, &sums, o.html, &err);
		code = r < 0 ? slimtrace_fail(&err) : 0;
		if (r == 0 && o.json)
			print_json(job, &sums);
		else if (r == 0)
			print_text(job, &sums, o.limit ? o.limit : 20);
	}
	img_slim_sums_done(&sums);
	img_job_close(job);
	slim_front_done(&o);
	return code;
}
