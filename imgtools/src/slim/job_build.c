/* Plan, slim tree, trials in it, and the result under its name. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "slim/advice.h"
#include "slim/job_internal.h"

enum { ROUNDS_MAX = 8 };

int img_job_plan(struct img_job *j, struct err *err)
{
	struct img_slim_opts o = { .tree = j->tree,
		                   .config = j->config,
		                   .packages = j->packages,
		                   .policy = j->policy,
		                   .traces = j->traces,
		                   .n_traces = j->n_traces,
		                   .entries = j->o.entries,
		                   .n_entries = j->o.n_entries,
		                   .repairs = (const char *const *)j->repairs,
		                   .n_repairs = j->n_repairs };

	img_slim_plan_free(j->plan);
	j->plan = NULL;
	return img_slim_plan_new(&o, &j->plan, err);
}

/* ---- Building ------------------------------------------------------------------------------------------------ */

static bool stub_is_kept(const struct img_node *n, void *arg)
{
	const struct img_job *j = arg;

	for (size_t i = 0; i < j->n_repairs; i++) {
		if (strcmp(j->repairs[i], n->path) == 0)
			return true;
	}
	return img_policy_keeps(j->policy, n->path);
}

/* By what runs bound to; without a run by who refers to whom, which keeps more. */
static int make_stubs(struct img_job *j, struct err *err)
{
	int r = 0;

	if (j->o.n_runs == 0) {
		img_bindings_free(j->bindings);
		j->bindings = img_bindings_new();
		r = j->bindings ? img_bindings_of_tree(j->bindings, j->slim, err)
		                : err_set(err, -ENOMEM, "out of memory");
		if (r == 0 && img_bindings_count(j->bindings) == 0)
			return 0; /* nothing is linked to anything */
	}
	return r < 0 ? r : img_slim_stub_unbound(j->slim, j->bindings, stub_is_kept, j, &j->stubs, err);
}

static int build_rpmdb(struct img_job *j, struct err *err)
{
	const char *mode = img_policy_get(j->policy, IMG_POLICY_RPMDB), *path;
	size_t len;
	int r;

	j->rpmdb_bytes = 0;
	path = j->packages ? img_rpm_set_db_path(j->packages) : NULL;
	if (!path || strcmp(mode, "no") == 0)
		return 0;
	len = strlen(path);
	if (strcmp(mode, "keep") == 0) {
		for (size_t i = 0; i < img_tree_count(j->tree); i++) {
			struct img_node copy = *img_tree_at(j->tree, i);

			if (strncmp(copy.path, path, len) != 0 || (copy.path[len] && copy.path[len] != '/'))
				continue;
			copy.link_group = 0;
			r = img_tree_add(j->slim, &copy, NULL, err);
			if (r < 0)
				return r;
		}
	} else {
		r = img_advice_rpmdb(j->slim, j->packages, mode, j->epoch, &j->n_rpmdb, err);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < img_tree_count(j->slim); i++) {
		const struct img_node *n = img_tree_at(j->slim, i);

		if (n->type == IMG_FILE && strncmp(n->path, path, len) == 0 && n->path[len] == '/')
			j->rpmdb_bytes += n->size;
	}
	return 0;
}

int img_job_build(struct img_job *j, struct err *err)
{
	int r;

	img_tree_free(j->slim);
	j->slim = NULL;
	r = img_job_go_on(j, "building", err);
	if (r < 0)
		return r;
	r = img_slim_tree(j->plan, &j->slim, err);
	if (r == 0 && j->o.stub_unbound)
		r = make_stubs(j, err);
	if (r == 0 && j->o.pyc != IMG_PYC_NO) {
		r = img_job_need_root(j, err);
		if (r == 0)
			r = img_slim_compile(j->slim, j->full_root, j->work, j->o.pyc, &j->pyc, err);
	}
	if (r == 0 && j->o.gpu_archs)
		r = img_slim_gpu(j->slim, j->o.gpu_archs, j->work, &j->gpu_dropped_bytes, &j->n_gpu_files, err);
	if (r == 0 && strcmp(img_policy_get(j->policy, IMG_POLICY_LOADER), "no") != 0 &&
	    img_tree_find(j->tree, "/etc/ld.so.cache"))
		r = img_advice_ldcache(j->slim, err);
	return r < 0 ? r : build_rpmdb(j, err);
}

/* ---- Trying -------------------------------------------------------------------------------------------------- */

static int add_repair(struct img_job *j, const char *path)
{
	char **more;

	for (size_t i = 0; i < j->n_repairs; i++) {
		if (strcmp(j->repairs[i], path) == 0)
			return 0;
	}
	more = reallocarray(j->repairs, j->n_repairs + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	j->repairs = more;
	j->repairs[j->n_repairs] = strdup(path);
	return j->repairs[j->n_repairs] ? (j->n_repairs++, 1) : -ENOMEM;
}

/* A stub that was called says which library it stands for: --keep PATH in its message. */
static int repair_stub(struct img_job *j, const struct img_trial *t)
{
	const char *text = base_buf_text(&t->slim.errors), *at = strstr(text, "\"--keep /");
	char path[IMG_PATH_MAX];
	size_t len;

	at = at ? at + strlen("\"--keep ") : NULL;
	len = at ? strcspn(at, "\"\n") : 0;
	if (!len || len >= sizeof(path))
		return 0;
	memcpy(path, at, len);
	path[len] = 0;
	return img_tree_find(j->tree, path) ? add_repair(j, path) : 0;
}

/* What was missed, the likeliest kind of it first: often nothing else is needed. Returns how many. */
static int repair_missed(struct img_job *j, const struct img_trial *t)
{
	int n = 0;

	for (int why = IMG_MISSING_USED; n == 0 && why <= IMG_MISSING_EXISTS; why++) {
		for (size_t k = 0; k < t->n_missed; k++) {
			int r = (int)t->missed[k].why == why ? add_repair(j, t->missed[k].path) : 0;

			if (r < 0)
				return r;
			n += r;
		}
	}
	return n;
}

static int write_trial_root(struct img_job *j, char root[IMG_PATH_MAX], struct err *err)
{
	struct img_write_opts wo = { .clamp_mtime = -1 };
	size_t n_skipped;

	(void)snprintf(root, IMG_PATH_MAX, "%s/slim", j->work);
	img_job_remove_dir(root);
	return img_tree_write_dir(j->slim, root, &wo, &n_skipped, err);
}

/* Runs all trials in the slim tree. Returns how many failed; repairs that are possible are counted. */
static int try_all(struct img_job *j, size_t *ret_n_repairs, struct err *err)
{
	CLEANUP(freep) const char **env = img_job_env(j);
	struct img_trial_place place;
	char root[IMG_PATH_MAX];
	int r = env ? write_trial_root(j, root, err) : err_set(err, -ENOMEM, "out of memory"), n_failed = 0;

	*ret_n_repairs = 0;
	if (r == 0)
		place = img_job_place(j, j->full_root, env);
	for (size_t i = 0; r >= 0 && i < j->n_trials; i++) {
		struct img_trial *t = &j->trials[i];

		img_job_say(j, "comparing the slim image with the full one: %s", t->text);
		r = img_job_go_on(j, "comparing", err);
		if (r == 0)
			r = img_trial_compare(t, &place, root, err);
		if (r < 0 || t->passed)
			continue;
		n_failed++;
		if (j->o.repair) {
			r = repair_missed(j, t);
			*ret_n_repairs += r > 0 ? (size_t)r : 0;
		}
		if (r >= 0 && j->o.repair) {
			r = repair_stub(j, t);
			*ret_n_repairs += r > 0;
		}
	}
	img_job_remove_dir(root);
	return r < 0 ? r : n_failed;
}

int img_job_try(struct img_job *j, struct err *err)
{
	int n_failed = 0;

	for (int round = 0; j->n_trials && round < ROUNDS_MAX; round++) {
		size_t n_repairs, before = j->n_repairs;
		int r;

		n_failed = try_all(j, &n_repairs, err);
		if (n_failed <= 0 || n_repairs == 0)
			return n_failed < 0 ? n_failed : n_failed > 0;
		for (size_t i = before; i < j->n_repairs; i++)
			img_job_say(j, "adding %s", j->repairs[i]);
		r = img_job_plan(j, err);
		if (r == 0)
			r = img_job_build(j, err);
		if (r < 0)
			return r;
	}
	return n_failed > 0;
}

/* ---- Writing ------------------------------------------------------------------------------------------------- */

static int32_t layer_of(const struct img_node *n, void *arg)
{
	(void)arg;
	return n->layer < 0 ? 0 : n->layer;
}

/* Layers that the history tells of. */
static size_t n_told(const struct img_config *c)
{
	size_t n = 0;

	for (size_t i = 0; c && i < c->n_history; i++)
		n += !c->history[i].empty_layer;
	return n;
}

static int write_image(struct img_job *j, struct err *err)
{
	CLEANUP(freep) struct img_layer_plan *layers = NULL;
	struct img_write_plan plan = { .tree = j->slim,
		                       .layer_of = layer_of,
		                       .config = j->config,
		                       .level = j->o.level,
		                       .epoch = j->epoch,
		                       .auth_file = j->o.auth_file,
		                       .insecure = j->o.insecure,
		                       .progress = j->o.progress,
		                       .progress_arg = j->o.arg };
	const char *mode = j->o.layers ? j->o.layers : "plan";
	int r;

	if (j->o.compression)
		plan.compression = strcmp(j->o.compression, "gzip") == 0   ? IMG_GZIP
		                   : strcmp(j->o.compression, "none") == 0 ? IMG_PLAIN
		                                                           : IMG_ZSTD;
	img_slim_layers_done(&j->layers);
	r = img_slim_layers(j->slim, j->packages,
	                    strcmp(mode, "keep") == 0   ? IMG_LAYERS_KEEP
	                    : strcmp(mode, "plan") == 0 ? IMG_LAYERS_PLAN
	                                                : IMG_LAYERS_ONE,
	                    j->image ? j->image->n_layers : 0, &j->layers, err);
	if (r < 0)
		return r;
	layers = calloc(j->layers.n, sizeof(*layers));
	if (!layers)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < j->layers.n; i++)
		layers[i] = (struct img_layer_plan){ .created_by = "slimtrace slim", .comment = j->layers.names[i] };
	/* Layers that are kept keep what the image tells of them. */
	plan.layers = strcmp(mode, "keep") == 0 && n_told(j->config) == j->layers.n ? NULL : layers;
	plan.n_layers = j->layers.n;
	return img_image_write(j->o.out, &plan, &j->written, err);
}

static int to_file(const void *data, size_t size, void *arg, struct err *err)
{
	return fwrite(data, 1, size, arg) == size ? 0 : err_set(err, -EIO, "%s", strerror(errno));
}

/* Under another name first: what has the final name is whole. */
static int write_tar(struct img_job *j, struct err *err)
{
	struct img_write_opts wo = { .clamp_mtime = j->epoch, .numeric_only = true };
	char partial[IMG_PATH_MAX];
	FILE *f;
	int r;

	if (snprintf(partial, sizeof(partial), "%s.partial-%ld", j->o.out, (long)getpid()) >= (int)sizeof(partial))
		return err_set(err, -ENAMETOOLONG, "%s: too long", j->o.out);
	f = fopen(partial, "wxe");
	if (!f)
		return err_set(err, -errno, "%s: %s", partial, strerror(errno));
	r = img_tree_write_tar(j->slim, &wo, to_file, f, err);
	if (r == 0 && (fflush(f) != 0 || fsync(fileno(f)) < 0))
		r = err_set(err, -errno, "%s: %s", partial, strerror(errno));
	if (fclose(f) != 0 && r == 0)
		r = err_set(err, -errno, "%s: %s", partial, strerror(errno));
	if (r == 0 && rename(partial, j->o.out) < 0)
		r = err_set(err, -errno, "%s: %s", j->o.out, strerror(errno));
	if (r < 0)
		(void)unlink(partial);
	return r;
}

static int write_root(struct img_job *j, struct err *err)
{
	struct img_write_opts wo = { .clamp_mtime = j->epoch };
	char partial[IMG_PATH_MAX];
	size_t n_skipped = 0;
	struct stat st;
	int r;

	/* an empty folder may stand there: rename() replaces it */
	if (stat(j->o.out, &st) == 0 && rmdir(j->o.out) < 0)
		return err_set(err, -errno, "%s: %s", j->o.out, strerror(errno));
	if (snprintf(partial, sizeof(partial), "%s.partial-%ld", j->o.out, (long)getpid()) >= (int)sizeof(partial))
		return err_set(err, -ENAMETOOLONG, "%s: too long", j->o.out);
	r = img_tree_write_dir(j->slim, partial, &wo, &n_skipped, err);
	if (r == 0)
		r = img_job_go_on(j, "writing", err);
	if (r == 0 && rename(partial, j->o.out) < 0)
		r = err_set(err, -errno, "%s: %s", j->o.out, strerror(errno));
	if (r < 0)
		img_job_remove_dir(partial);
	if (n_skipped)
		img_job_say(j, "%zu owners or devices could not be set without being root", n_skipped);
	return r;
}

int img_job_write(struct img_job *j, struct err *err)
{
	size_t len = j->o.out ? strlen(j->o.out) : 0;
	int r = img_job_go_on(j, "writing", err);

	if (r < 0 || !j->o.out)
		return r;
	if (img_name_is_image(j->o.out))
		return write_image(j, err);
	return len > 4 && strcmp(j->o.out + len - 4, ".tar") == 0 ? write_tar(j, err) : write_root(j, err);
}
