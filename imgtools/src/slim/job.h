/* A slimming from beginning to end: an image or a root in, trials run in it, the plan, the slim tree, the trials run
 * again in that, an image, a root or a tar out. What the subcommands slim, why and report share. */
#ifndef IMG_JOB_H
#define IMG_JOB_H

#include "oci/oci.h"
#include "slim/slim.h"
#include "slim/trial.h"

struct img_job_opts {
	const char *image, *root;    /* one of them */
	const char *out;             /* an image's name, a .tar, a folder; NULL: nothing is written */
	const char *policy;          /* a file; NULL: none */
	const char *const *settings; /* "timezones=UTC" */
	size_t n_settings;
	const char *const *keep, *const *drop, *const *entries, *const *traces, *const *runs, *const *checks,
	                                                                                              *const *env;
	size_t n_keep, n_drop, n_entries, n_traces, n_runs, n_checks, n_env;
	const char *user, *cwd;                /* of the runs; NULL: the image's */
	const char *save_trace;                /* a file for what the runs touched; NULL: none */
	const struct img_gpu_archs *gpu_archs; /* NULL: all */
	const char *layers;                    /* "keep", "plan", "one" */
	const char *work_dir;                  /* an existing folder; NULL: a new one, which goes at the end */
	enum img_pyc pyc;
	bool stub_unbound, repair;
	uint64_t timeout_ms; /* of one run */
	int level;           /* of compression; 0: the default */
	const char *compression;
	const char *auth_file;
	bool insecure;
	/* Steps as sentences; may be NULL. */
	void (*on_step)(const char *text, void *arg);
	img_progress_fn progress;
	void *arg;
};

struct img_job {
	struct img_job_opts o;
	struct img_image *image; /* NULL: a root */
	struct img_tree *tree;   /* full */
	struct img_config *config;
	struct img_rpm_set *packages; /* NULL: no database in it */
	struct img_policy *policy;
	struct img_trace **traces;
	size_t n_traces;
	struct img_trial *trials;
	size_t n_trials;
	struct img_bindings *bindings;
	char **repairs;
	size_t n_repairs;
	struct img_slim_plan *plan;
	struct img_tree *slim;
	struct img_slim_layers layers;
	struct img_stub_result stubs;
	struct img_pyc_result pyc;
	uint64_t gpu_dropped_bytes, n_gpu_files;
	size_t n_rpmdb; /* packages told in the new database */
	uint64_t rpmdb_bytes;
	struct img_write_result written;
	int64_t epoch;
	char *work; /* folder for what lives as long as the job */
	bool owns_work;
	char *full_root; /* the full tree as a folder; NULL until one is needed */
};

int img_job_open(const struct img_job_opts *o, struct img_job **ret_job, struct err *err);
void img_job_close(struct img_job *j);

/* The plan; made anew when called again (after repairs were added). */
int img_job_plan(struct img_job *j, struct err *err);
/* The slim tree with all extras. */
int img_job_build(struct img_job *j, struct err *err);
/* Trials in the slim tree, repairs when asked for. 0: all passed; 1: some did not (trials say what). */
int img_job_try(struct img_job *j, struct err *err);
int img_job_write(struct img_job *j, struct err *err);

#endif
