/* Trials: command lines split, run in the full tree for what they touch and bind to, compared with the slim one.
 *
 * The same exit code, output and files changed: passed. Output that differs while nothing was missed is told, but
 * passes: a listing of a folder is shorter. */
#include "slim/trial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/words.h"
#include "trace/tracer.h"

#define PLACE "/.slimtrace"

int img_trial_init(struct img_trial *t, const char *text, bool is_check, struct err *err)
{
	char **words = NULL;
	size_t n = 0;
	int r = base_words_split(text, &words, &n);

	if (r < 0 || n == 0)
		r = err_set(err, r < 0 ? r : -EINVAL, "\"%.200s\": %s", text,
		            r == -EINVAL ? "a quote is not closed"
		            : r < 0      ? strerror(-r)
		                         : "no command");
	else
		r = img_trial_init_words(t, words, n, err);
	base_words_free(words);
	if (r == 0) {
		t->is_check = is_check;
		free(t->text);
		t->text = strdup(text);
		r = t->text ? 0 : err_set(err, -ENOMEM, "out of memory");
	}
	return r;
}

int img_trial_init_words(struct img_trial *t, char *const *words, size_t n, struct err *err)
{
	size_t len = 1;

	*t = (struct img_trial){ .argv = calloc(n + 1, sizeof(*t->argv)) };
	for (size_t i = 0; i < n; i++)
		len += strlen(words[i]) + 1;
	t->text = calloc(len, 1);
	if (!t->argv || !t->text)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		size_t at = strlen(t->text);

		t->argv[i] = strdup(words[i]);
		if (!t->argv[i])
			return err_set(err, -ENOMEM, "out of memory");
		(void)snprintf(t->text + at, len - at, "%s%s", i ? " " : "", words[i]);
	}
	return 0;
}

static struct img_run make_run(const struct img_trial *t, const struct img_trial_place *p)
{
	return (struct img_run){ .argv = (const char *const *)t->argv,
		                 .env = p->env,
		                 .cwd = p->cwd,
		                 .user = p->user,
		                 .roots = &p->root,
		                 .n_roots = 1,
		                 .timeout_ms = p->timeout_ms,
		                 .capture = true,
		                 .null_stdin = true,
		                 .want_changes = true };
}

int img_trial_run_full(struct img_trial *t, const struct img_trial_place *p, struct err *err)
{
	struct img_run run = make_run(t, p);
	int r = t->is_check ? img_run(&run, &t->full, err)
	                    : img_trace_run(&run, IMG_TRACE_PTRACE, &t->trace, &t->full, err);

	if (r < 0)
		return err_prefix(err, r, "\"%.100s\" in the full image: ", t->text);
	if (t->full.timed_out)
		return err_set(err, -ETIMEDOUT, "\"%.200s\" did not end in the full image in time", t->text);
	return 0;
}

int img_trial_bindings(struct img_trial *t, const struct img_trial_place *p, const char *work, struct img_bindings *b,
                       struct err *err)
{
	struct img_run run = make_run(t, p);
	struct img_run_mount mount = { .target = PLACE };
	struct img_run_result result = { 0 };
	CLEANUP(freep) const char **env = NULL;
	char dir[IMG_PATH_MAX];
	size_t n = 0;
	int r;

	(void)snprintf(dir, sizeof(dir), "%s/ld", work);
	if ((mkdir(dir, 01777) < 0 && errno != EEXIST) || chmod(dir, 01777) < 0)
		return err_set(err, -errno, "%s: %s", dir, strerror(errno));
	while (p->env && p->env[n])
		n++;
	env = calloc(n + 3, sizeof(*env));
	if (!env)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		env[i] = p->env[i];
	env[n++] = "LD_DEBUG=bindings,files";
	env[n++] = "LD_DEBUG_OUTPUT=" PLACE "/b";
	mount.source = dir;
	run.env = env;
	run.mounts = &mount;
	run.n_mounts = 1;
	run.want_changes = false;
	r = img_run(&run, &result, err);
	if (r == 0)
		r = img_bindings_read_dir(b, dir, "b.", err);
	img_run_result_done(&result);
	return r;
}

/* ---- Comparison ---------------------------------------------------------------------------------------------- */

static void forget(struct img_trial *t)
{
	for (size_t i = 0; i < t->n_missed; i++)
		free(t->missed[i].path);
	free(t->missed);
	t->missed = NULL;
	t->n_missed = 0;
}

void img_trial_done(struct img_trial *t)
{
	for (size_t i = 0; t->argv && t->argv[i]; i++)
		free(t->argv[i]);
	forget(t);
	free(t->argv);
	free(t->text);
	img_run_result_done(&t->full);
	img_run_result_done(&t->slim);
	img_trace_free(t->trace);
	*t = (struct img_trial){ 0 };
}

static void judge(struct img_trial *t, const struct img_comparison *c)
{
	const char *text = base_buf_text(&c->differences);
	size_t n_needed = 0;

	(void)snprintf(t->verdict, sizeof(t->verdict), "%s", text);
	for (char *p = t->verdict; *p; p++) {
		if (*p == '\n')
			*p = p[1] ? ';' : 0;
	}
	for (size_t i = 0; i < c->n_missing; i++)
		n_needed += c->missing[i].why <= IMG_MISSING_LOOKED;
	/* wall_ns is 0 when it could not even be started */
	t->passed = c->is_equal || (c->slim.wall_ns > 0 && c->full.exit_code == c->slim.exit_code &&
	                            c->slim.signal == c->full.signal && !c->slim.timed_out && n_needed == 0);
}

int img_trial_compare(struct img_trial *t, const struct img_trial_place *p, const char *slim_root, struct err *err)
{
	struct img_run run = make_run(t, p);
	struct img_comparison c;
	int r = img_compare(&run, p->root, slim_root, &c, err);

	if (r < 0)
		return err_prefix(err, r, "\"%.100s\": ", t->text);
	forget(t);
	t->n_rounds++;
	judge(t, &c);
	/* the results and the list become the trial's */
	img_run_result_done(&t->full);
	img_run_result_done(&t->slim);
	t->full = c.full;
	t->slim = c.slim;
	c.full = c.slim = (struct img_run_result){ 0 };
	t->missed = c.missing;
	t->n_missed = c.n_missing;
	c.missing = NULL;
	c.n_missing = 0;
	img_comparison_done(&c);
	return 0;
}
