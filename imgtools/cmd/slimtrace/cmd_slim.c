/* slimtrace slim: an image or a root cut to what is needed, tried, and written. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image_progress.h"
#include "slim/advice.h"
#include "slim/report_html.h"
#include "slim_front.h"

const struct opt slim_opts[] = {
	SLIM_INPUT_OPTIONS,
	{ "out", 'o', OPT_STR, offsetof(struct slim_options, out), "IMAGE|DIR|FILE.tar", "where the result goes",
	  NULL },
	{ "check", 'c', OPT_LIST, offsetof(struct slim_options, checks), "COMMAND",
	  "run this in the image and in the result and compare; not traced; repeatable", NULL },
	{ "repair", 0, OPT_FLAG, offsetof(struct slim_options, repair), NULL, "add what a run missed, and try again",
	  NULL },
	{ "force", 0, OPT_FLAG, offsetof(struct slim_options, force), NULL,
	  "write the result although a run failed in it", NULL },
	{ "layers", 0, OPT_CHOICE, offsetof(struct slim_options, layers), "HOW",
	  "as in the image, planned by package and change rate, all in one [plan]", "keep,plan,one" },
	{ "pyc", 0, OPT_CHOICE, offsetof(struct slim_options, pyc), "HOW",
	  "byte code of Python sources: none, beside them, instead of them [no]", "no,beside,only" },
	{ "stub-unbound", 0, OPT_FLAG, offsetof(struct slim_options, stub_unbound), NULL,
	  "replace libraries that are loaded but not used (without --run: not referred to) by stubs", NULL },
	{ "gpu-arch", 0, OPT_STR, offsetof(struct slim_options, gpu_archs), "LIST",
	  "keep GPU code for these architectures only: sm_90,sm_100", NULL },
	{ "gpu-ptx", 0, OPT_CHOICE, offsetof(struct slim_options, gpu_ptx), "WHICH",
	  "PTX and IR to keep: the newest, or only where code is missing [one]", "one,needed" },
	{ "drop-ir", 0, OPT_FLAG, offsetof(struct slim_options, drop_ir), NULL,
	  "drop intermediate code for linking at run time too", NULL },
	{ "save-trace", 0, OPT_STR, offsetof(struct slim_options, save_trace), "FILE",
	  "write down what the runs touched", NULL },
	{ "html", 0, OPT_STR, offsetof(struct slim_options, html), "FILE", "write a report to look at", NULL },
	{ "compression", 0, OPT_CHOICE, offsetof(struct slim_options, compression), "HOW", "of layers [zstd]",
	  "zstd,gzip,none" },
	{ "level", 0, OPT_UINT, offsetof(struct slim_options, level), "LEVEL", "of compression [9, gzip 6]", NULL },
	{ 0 },
};

enum { FAILED_TRIAL = 3, ROWS = 12 };

static void print_trials(const struct img_job *j)
{
	char origin[512];

	for (size_t i = 0; i < j->n_trials; i++) {
		const struct img_trial *t = &j->trials[i];

		(void)printf("%s %s%s%s%s\n", t->passed ? "passed" : "FAILED",
		             t->is_check ? "check: " : "run:   ", t->text, t->verdict[0] ? ": " : "", t->verdict);
		for (size_t k = 0; !t->passed && k < t->n_missed && k < ROWS; k++)
			(void)printf("  missed %s, which %s (%s); --keep %s adds it\n", t->missed[k].path,
			             img_missing_why_text(t->missed[k].why),
			             img_advice_origin(j->packages, t->missed[k].path, origin, sizeof(origin)),
			             t->missed[k].path);
		if (!t->passed && t->n_missed > ROWS)
			(void)printf("  ... and %zu more\n", t->n_missed - ROWS);
	}
	for (size_t i = 0; i < j->n_repairs; i++)
		(void)printf("repaired %s (%s)\n", j->repairs[i],
		             img_advice_origin(j->packages, j->repairs[i], origin, sizeof(origin)));
}

static void print_extras(const struct img_job *j)
{
	char a[32], b[32];

	if (j->stubs.n_stubs)
		(void)printf("stubs     %" PRIu64 " of %" PRIu64 " loaded libraries are used by nobody: %s -> %s\n",
		             j->stubs.n_stubs, j->stubs.n_loaded, slim_front_size(j->stubs.bytes_before, a),
		             slim_front_size(j->stubs.bytes_after, b));
	if (j->stubs.n_refused)
		(void)printf("stubs     %" PRIu64 " libraries stay, no stub can be made: %s\n", j->stubs.n_refused,
		             j->stubs.first_refused);
	if (j->pyc.n_compiled)
		(void)printf("byte code %" PRIu64 " files, %s; %" PRIu64 " sources emptied, %s; %" PRIu64
		             " could not be compiled\n",
		             j->pyc.n_compiled, slim_front_size(j->pyc.bytes_pyc, a), j->pyc.n_emptied,
		             slim_front_size(j->pyc.bytes_emptied, b), j->pyc.n_failed);
	if (j->n_gpu_files)
		(void)printf("GPU code  %s left out of %" PRIu64 " files\n", slim_front_size(j->gpu_dropped_bytes, a),
		             j->n_gpu_files);
	if (j->rpmdb_bytes)
		(void)printf("database  %zu packages, %s\n", j->n_rpmdb, slim_front_size(j->rpmdb_bytes, a));
}

static void print_text(const struct img_job *j, const struct img_slim_sums *sums)
{
	uint64_t full_files, full_links, files, links;
	uint64_t full = img_tree_bytes(j->tree, &full_files, &full_links),
	         slim = img_tree_bytes(j->slim, &files, &links);
	char a[32], b[32];

	(void)printf("full      %s in %" PRIu64 " files, %" PRIu64 " links\n", slim_front_size(full, a), full_files,
	             full_links);
	(void)printf("slim      %s in %" PRIu64 " files, %" PRIu64 " links (%.1f %%)\n", slim_front_size(slim, a),
	             files, links, full ? 100.0 * (double)slim / (double)full : 0.0);
	(void)b;
	print_extras(j);
	if (j->written.n_layers)
		(void)printf("written   %s %s, %zu layers, %s packed\n", j->o.out, j->written.manifest_digest,
		             j->written.n_layers, slim_front_size(j->written.size, a));
	else if (j->o.out)
		(void)printf("written   %s\n", j->o.out);
	slim_front_print_sums(sums, ROWS, stdout);
	if (j->n_trials)
		(void)printf("\n");
	print_trials(j);
}

static json_t *trials_json(const struct img_job *j)
{
	json_t *list = json_array();
	char origin[512];

	for (size_t i = 0; i < j->n_trials; i++) {
		const struct img_trial *t = &j->trials[i];
		json_t *missed = json_array();

		for (size_t k = 0; k < t->n_missed; k++)
			(void)json_array_append_new(
			        missed, json_pack("{s:o,s:s,s:o}", "path", slim_front_text(t->missed[k].path), "why",
			                          img_missing_why_text(t->missed[k].why), "origin",
			                          slim_front_text(img_advice_origin(j->packages, t->missed[k].path,
			                                                            origin, sizeof(origin)))));
		(void)json_array_append_new(list, json_pack("{s:o,s:b,s:b,s:o,s:i,s:i,s:I,s:I,s:I,s:o}", "command",
		                                            slim_front_text(t->text), "is_check", t->is_check, "passed",
		                                            t->passed, "verdict", slim_front_text(t->verdict),
		                                            "full_exit_code", t->full.exit_code, "slim_exit_code",
		                                            t->slim.exit_code, "full_ns", (json_int_t)t->full.wall_ns,
		                                            "slim_ns", (json_int_t)t->slim.wall_ns, "rounds",
		                                            (json_int_t)t->n_rounds, "missed", missed));
	}
	return list;
}

static void print_json(const struct img_job *j, const struct img_slim_sums *sums)
{
	uint64_t full_files, full_links, files, links;
	uint64_t full = img_tree_bytes(j->tree, &full_files, &full_links),
	         slim = img_tree_bytes(j->slim, &files, &links);
	struct base_buf b = BASE_BUF_INIT(1u << 30);
	json_t *repairs = json_array(), *doc;

	for (size_t i = 0; i < j->n_repairs; i++)
		(void)json_array_append_new(repairs, slim_front_text(j->repairs[i]));
	doc = json_pack("{s:o,s:o,s:{s:I,s:I,s:I},s:{s:I,s:I,s:I},s:I,s:I,s:{s:I,s:I,s:I,s:I},s:{s:I,s:I},s:{s:s,s:I,s:"
	                "I},s:{s:I,s:I},s:o,s:"
	                "o,s:o}",
	                "input", slim_front_text(j->o.image ? j->o.image : j->o.root), "output",
	                slim_front_text(j->o.out ? j->o.out : ""), "full", "bytes", (json_int_t)full, "files",
	                (json_int_t)full_files, "links", (json_int_t)full_links, "slim", "bytes", (json_int_t)slim,
	                "files", (json_int_t)files, "links", (json_int_t)links, "rpmdb_bytes",
	                (json_int_t)j->rpmdb_bytes, "rpmdb_packages", (json_int_t)j->n_rpmdb, "stubs", "count",
	                (json_int_t)j->stubs.n_stubs, "loaded", (json_int_t)j->stubs.n_loaded, "bytes_before",
	                (json_int_t)j->stubs.bytes_before, "bytes_after", (json_int_t)j->stubs.bytes_after, "pyc",
	                "count", (json_int_t)j->pyc.n_compiled, "bytes", (json_int_t)j->pyc.bytes_pyc, "image",
	                "digest", j->written.manifest_digest, "layers", (json_int_t)j->written.n_layers, "packed_bytes",
	                (json_int_t)j->written.size, "gpu", "files", (json_int_t)j->n_gpu_files, "dropped_bytes",
	                (json_int_t)j->gpu_dropped_bytes, "sums", slim_front_sums_json(sums), "runs", trials_json(j),
	                "repairs", repairs);
	if (doc && base_json_append(&b, doc) == 0)
		(void)printf("%s\n", b.data);
	json_decref(doc);
	base_buf_done(&b);
}

/* Builds, tries, writes. Returns the exit code; *ret_failed: a trial did not pass. */
static int slim(struct img_job *j, const struct slim_options *o)
{
	struct img_slim_sums sums = { 0 };
	struct err err = { 0 };
	int r = img_job_build(j, &err), code = 0;

	if (r == 0)
		r = img_job_try(j, &err);
	image_progress_clear();
	if (r < 0)
		return slimtrace_fail(&err);
	if (r > 0)
		code = FAILED_TRIAL;
	if ((code == 0 || o->force) && img_job_write(j, &err) < 0) {
		image_progress_clear();
		return slimtrace_fail(&err);
	}
	image_progress_clear();
	if (code != 0 && !o->force)
		j->o.out = NULL; /* nothing that does not work is written */
	if (img_slim_sums(j->plan, j->slim, &sums) < 0) {
		(void)err_set(&err, -ENOMEM, "out of memory");
		return slimtrace_fail(&err);
	}
	if (o->html && img_report_html_write(j, &sums, o->html, &err) < 0)
		code = slimtrace_fail(&err);
	if (o->json)
		print_json(j, &sums);
	else
		print_text(j, &sums);
	if (code == FAILED_TRIAL && o->out && !o->force)
		(void)fprintf(stderr, "slimtrace: %s was not written: a run failed in the slim image%s\n", o->out,
		              o->repair ? "" : "; --repair adds what was missed");
	img_slim_sums_done(&sums);
	return code;
}

int cmd_slim(int argc, char **argv)
{
	struct slim_options o = { 0 };
	struct img_job *job = NULL;
	struct err err = { 0 };
	int n_args, code;

	code = slimtrace_options(argc, argv, &o, &n_args);
	if (code < 0 && n_args > 0) {
		(void)err_set(&err, -EINVAL, "%.100s: an argument without an option", argv[0]);
		code = slimtrace_usage("slim", &err);
	}
	if (code < 0)
		code = slim_front_open("slim", &o, &job);
	if (code < 0)
		code = slim(job, &o);
	img_job_close(job);
	slim_front_done(&o);
	return code;
}
