/* A job's beginning and end: the input opened, trials run in it, traces read; all of it let go. */
#include "slim/job.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "slim/advice.h"
#include "slim/job_internal.h"

void img_job_say(const struct img_job *j, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!j->o.on_step)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	j->o.on_step(text, j->o.arg);
}

int img_job_go_on(const struct img_job *j, const char *what, struct err *err)
{
	struct img_progress p = { .what = what };

	return j->o.progress && j->o.progress(&p, j->o.arg) != 0 ? err_set(err, -ECANCELED, "interrupted") : 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void img_job_remove_dir(const char *path)
{
	(void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void img_job_close(struct img_job *j)
{
	if (!j)
		return;
	img_slim_plan_free(j->plan);
	img_tree_free(j->slim);
	for (size_t i = 0; i < j->n_trials; i++)
		img_trial_done(&j->trials[i]);
	free(j->trials);
	for (size_t i = 0; i < j->n_traces; i++)
		img_trace_free(j->traces[i]);
	free(j->traces);
	for (size_t i = 0; i < j->n_repairs; i++)
		free(j->repairs[i]);
	free(j->repairs);
	img_bindings_free(j->bindings);
	img_slim_layers_done(&j->layers);
	img_write_result_done(&j->written);
	img_policy_free(j->policy);
	img_rpm_set_free(j->packages);
	if (j->image) {
		img_image_close(j->image);
	} else {
		img_tree_free(j->tree);
		img_config_free(j->config);
	}
	if (j->owns_work)
		img_job_remove_dir(j->work);
	free(j->work);
	free(j->full_root);
	free(j);
}

/* ---- Opening ------------------------------------------------------------------------------------------------- */

static int open_work(struct img_job *j, struct err *err)
{
	const char *tmp = getenv("TMPDIR");

	if (j->o.work_dir) {
		j->work = realpath(j->o.work_dir, NULL);
		return j->work ? 0 : err_set(err, -errno, "%s: %s", j->o.work_dir, strerror(errno));
	}
	if (asprintf(&j->work, "%s/slimtrace-XXXXXX", tmp ? tmp : "/var/tmp") < 0) {
		j->work = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	if (!mkdtemp(j->work))
		return err_set(err, -errno, "%s: %s", j->work, strerror(errno));
	j->owns_work = true;
	return 0;
}

static int open_image(struct img_job *j, struct err *err)
{
	char dir[IMG_PATH_MAX];
	struct img_open_opts o = { .work_dir = dir,
		                   .auth_file = j->o.auth_file,
		                   .insecure = j->o.insecure,
		                   .progress = j->o.progress,
		                   .progress_arg = j->o.arg };
	int r;

	(void)snprintf(dir, sizeof(dir), "%s/image", j->work);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	r = img_image_open(j->o.image, &o, &j->image, err);
	if (r < 0)
		return r;
	j->tree = j->image->tree;
	j->config = j->image->config;
	return 0;
}

static int open_root(struct img_job *j, struct err *err)
{
	char real[IMG_PATH_MAX];

	if (!realpath(j->o.root, real))
		return err_set(err, -errno, "%s: %s", j->o.root, strerror(errno));
	j->full_root = strdup(real);
	j->config = img_config_new();
	if (!j->full_root || !j->config)
		return err_set(err, -ENOMEM, "out of memory");
	return img_tree_scan(real, &j->tree, err);
}

static int open_packages(struct img_job *j, struct err *err)
{
	struct err why = { 0 };
	int r = img_rpm_set_new(NULL, &j->packages);

	if (r < 0)
		return err_set(err, r, "%s", strerror(-r));
	r = img_rpm_set_add_tree(j->packages, j->tree, &why);
	if (r == 0)
		return 0;
	img_rpm_set_free(j->packages);
	j->packages = NULL;
	/* An image without packages is slimmed all the same; a database that cannot be read is told. */
	if (r != -ENOENT)
		img_job_say(j, "the package database is not used: %s", err_text(&why));
	return r == -ENOMEM ? err_set(err, r, "out of memory") : 0;
}

static int open_policy(struct img_job *j, struct err *err)
{
	int r = 0;

	j->policy = img_policy_new();
	if (!j->policy)
		return err_set(err, -ENOMEM, "out of memory");
	if (j->o.policy)
		r = img_policy_read(j->policy, j->o.policy, err);
	for (size_t i = 0; r == 0 && i < j->o.n_settings; i++) {
		const char *eq = strchr(j->o.settings[i], '=');
		char key[64];

		if (!eq || (size_t)(eq - j->o.settings[i]) >= sizeof(key))
			return err_set(err, -EINVAL, "\"%.64s\" is not KEY=VALUE", j->o.settings[i]);
		(void)snprintf(key, sizeof(key), "%.*s", (int)(eq - j->o.settings[i]), j->o.settings[i]);
		r = img_policy_set(j->policy, key, eq + 1, err);
	}
	for (size_t i = 0; r == 0 && i < j->o.n_drop; i++)
		r = img_policy_drop(j->policy, j->o.drop[i]);
	return r;
}

/* "/path", "/pattern", or a slice: "package_role" is every file of the package in that role, "package" all of it. */
static int open_keep(struct img_job *j, struct err *err)
{
	for (size_t i = 0; i < j->o.n_keep; i++) {
		const char *keep = j->o.keep[i];
		int r = keep[0] == '/' ? img_policy_keep(j->policy, keep)
		                       : img_advice_keep_slice(j->packages, keep, j->policy, err);

		if (r < 0)
			return r == -ENOMEM ? err_set(err, r, "out of memory") : r;
	}
	return 0;
}

static int add_trace(struct img_job *j, struct img_trace *t)
{
	struct img_trace **more = reallocarray(j->traces, j->n_traces + 1, sizeof(struct img_trace *));

	if (!more)
		return -ENOMEM;
	j->traces = more;
	j->traces[j->n_traces++] = t;
	return 0;
}

static int open_traces(struct img_job *j, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->o.n_traces; i++) {
		struct img_trace *t = NULL;

		r = img_trace_read(j->o.traces[i], &t, err);
		if (r == 0 && (r = add_trace(j, t)) < 0) {
			img_trace_free(t);
			(void)err_set(err, r, "out of memory");
		}
	}
	return r;
}

/* ---- Trials -------------------------------------------------------------------------------------------------- */

int img_job_need_root(struct img_job *j, struct err *err)
{
	size_t n_skipped;

	if (j->full_root)
		return 0;
	if (asprintf(&j->full_root, "%s/full", j->work) < 0) {
		j->full_root = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	return img_image_unpack(j->image, j->full_root, &n_skipped, err);
}

/* The environment of the image and what was asked for: ended by NULL, the caller's (the texts are borrowed). */
const char **img_job_env(const struct img_job *j)
{
	static const char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	const char **env = calloc(j->config->env.n + j->o.n_env + 2, sizeof(*env));
	size_t n = 0;

	if (!env)
		return NULL;
	/* the last of a name counts for a program only when it is the only one */
	for (size_t i = 0; i < j->config->env.n; i++) {
		const char *have = j->config->env.items[i];
		size_t len = strcspn(have, "="), k = 0;

		while (k < j->o.n_env && strncmp(j->o.env[k], have, len + 1) != 0)
			k++;
		if (k == j->o.n_env)
			env[n++] = have;
	}
	for (size_t i = 0; i < j->o.n_env; i++)
		env[n++] = j->o.env[i];
	for (size_t i = 0; i < n; i++) {
		if (strncmp(env[i], "PATH=", 5) == 0)
			return env;
	}
	env[n] = path;
	return env;
}

struct img_trial_place img_job_place(const struct img_job *j, const char *root, const char *const *env)
{
	const char *cwd = j->o.cwd ? j->o.cwd : j->config->workdir, *user = j->o.user ? j->o.user : j->config->user;

	return (struct img_trial_place){ .root = root,
		                         .env = env,
		                         .user = user && *user ? user : NULL,
		                         .cwd = cwd && *cwd ? cwd : NULL,
		                         .timeout_ms = j->o.timeout_ms };
}

/* "-" is the image's own entry point and command. */
static int init_trial(struct img_job *j, struct img_trial *t, const char *text, bool is_check, struct err *err)
{
	const struct img_config *c = j->config;
	char **words;
	size_t n = 0;
	int r;

	if (strcmp(text, "-") != 0)
		return img_trial_init(t, text, is_check, err);
	if (c->entrypoint.n + c->cmd.n == 0)
		return err_set(err, -EINVAL, "-: the image has no command of its own");
	words = calloc(c->entrypoint.n + c->cmd.n, sizeof(*words));
	if (!words)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < c->entrypoint.n; i++)
		words[n++] = c->entrypoint.items[i];
	for (size_t i = 0; i < c->cmd.n; i++)
		words[n++] = c->cmd.items[i];
	r = img_trial_init_words(t, words, n, err);
	t->is_check = is_check;
	free(words);
	return r;
}

static int save_trace(const struct img_job *j, struct err *err)
{
	struct img_trace *all = img_trace_new();
	int r = all ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (size_t i = 0; r == 0 && i < j->n_traces; i++)
		r = img_trace_merge(all, j->traces[i]);
	if (r == 0)
		r = img_trace_write(all, j->o.save_trace, err);
	img_trace_free(all);
	return r;
}

static int run_one(struct img_job *j, struct img_trial *t, const struct img_trial_place *place, struct err *err)
{
	int r = img_job_go_on(j, "running", err);

	if (r < 0)
		return r;
	if (!t->is_check) {
		img_job_say(j, "running in the full image: %s", t->text);
		r = img_trial_run_full(t, place, err);
		if (r < 0)
			return r;
		if (t->full.exit_code != 0)
			img_job_say(j, "it ended with exit code %d there; the slim image must do the same",
			            t->full.exit_code);
	}
	if (t->trace) {
		r = add_trace(j, t->trace);
		if (r < 0)
			return err_set(err, r, "out of memory");
		t->trace = NULL; /* now the job's */
	}
	if (!j->o.stub_unbound || t->is_check)
		return 0;
	img_job_say(j, "running once more to see which libraries it binds to");
	return img_trial_bindings(t, place, j->work, j->bindings, err);
}

static int run_trials(struct img_job *j, struct err *err)
{
	size_t n = j->o.n_runs + j->o.n_checks;
	struct img_trial_place place;
	const char **env;
	int r = 0;

	if (n == 0)
		return 0;
	r = img_job_need_root(j, err);
	if (r < 0)
		return r;
	j->trials = calloc(n, sizeof(*j->trials));
	j->bindings = img_bindings_new();
	env = img_job_env(j);
	if (!j->trials || !j->bindings || !env) {
		free(env);
		return err_set(err, -ENOMEM, "out of memory");
	}
	place = img_job_place(j, j->full_root, env);
	for (size_t i = 0; r == 0 && i < n; i++) {
		bool is_check = i >= j->o.n_runs;

		j->n_trials = i + 1;
		r = init_trial(j, &j->trials[i], is_check ? j->o.checks[i - j->o.n_runs] : j->o.runs[i], is_check, err);
		if (r == 0)
			r = run_one(j, &j->trials[i], &place, err);
	}
	free(env);
	return r < 0 || !j->o.save_trace ? r : save_trace(j, err);
}

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	while (dir && n < 3 && readdir(dir))
		n++;
	if (dir)
		(void)closedir(dir);
	return n <= 2; /* "." and ".." */
}

/* What would fail at the end fails at the beginning. */
static int check_out(const struct img_job_opts *o, struct err *err)
{
	struct stat st;
	size_t len = o->out ? strlen(o->out) : 0;

	if (!o->out || img_name_is_image(o->out) || (len > 4 && strcmp(o->out + len - 4, ".tar") == 0) ||
	    lstat(o->out, &st) < 0)
		return 0;
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: is there and is no folder", o->out);
	return st.st_nlink <= 2 && is_empty(o->out) ? 0 : err_set(err, -ENOTEMPTY, "%s: is not empty", o->out);
}

int img_job_open(const struct img_job_opts *o, struct img_job **ret_job, struct err *err)
{
	struct img_job *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return err_set(err, -ENOMEM, "out of memory");
	j->o = *o;
	r = img_source_date_epoch(&j->epoch, err);
	if (r >= 0)
		r = check_out(o, err);
	if (r >= 0)
		r = open_work(j, err);
	if (r >= 0)
		r = o->image ? open_image(j, err) : open_root(j, err);
	if (r >= 0)
		r = open_packages(j, err);
	if (r >= 0)
		r = open_policy(j, err);
	if (r >= 0)
		r = open_keep(j, err);
	if (r >= 0)
		r = open_traces(j, err);
	if (r >= 0)
		r = run_trials(j, err);
	if (r < 0) {
		img_job_close(j);
		return r;
	}
	*ret_job = j;
	return 0;
}
