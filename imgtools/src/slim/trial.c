/* Trials. The run in the slim tree is traced too: what it looked for in vain, and the full tree has, is what is
 * missing.
 *
 * The same exit code, the same output, the same files changed: passed. Output that differs while nothing was missed is
 * told, but passes: a listing of a folder is shorter, a time is another. */
#include "slim/trial.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "trace/tracer.h"

enum { WORDS_MAX = 4096, MISSED_MAX = 4096 };

#define PLACE "/.slimtrace"

void img_trial_done(struct img_trial *t)
{
	for (size_t i = 0; t->argv && t->argv[i]; i++)
		free(t->argv[i]);
	for (size_t i = 0; i < t->n_missed; i++)
		free(t->missed[i]);
	free(t->missed);
	free(t->argv);
	free(t->text);
	img_run_result_done(&t->full);
	img_run_result_done(&t->slim);
	img_trace_free(t->trace);
	*t = (struct img_trial){ 0 };
}

/* One word at *p into out (as long as the rest of the text); returns whether there was one, negative: open quote. */
static int next_word(const char **p, char *out)
{
	const char *s = *p + strspn(*p, " \t\n");
	size_t n = 0;
	char quote = 0;

	if (!*s)
		return 0;
	for (; *s && (quote || !isspace((unsigned char)*s)); s++) {
		if (quote ? *s == quote : *s == '\'' || *s == '"')
			quote = quote ? 0 : *s;
		else if (*s == '\\' && quote != '\'' && s[1] && (!quote || strchr("\"\\$`", s[1])))
			out[n++] = *++s;
		else
			out[n++] = *s;
	}
	out[n] = 0;
	*p = s;
	return quote ? -EINVAL : 1;
}

int img_trial_init(struct img_trial *t, const char *text, bool is_check, struct err *err)
{
	CLEANUP(freep) char *word = malloc(strlen(text) + 1);
	CLEANUP(freep) char **words = calloc(WORDS_MAX, sizeof(*words));
	const char *p = text;
	size_t n = 0;
	int r = word && words ? 1 : -ENOMEM;

	while (r > 0 && n < WORDS_MAX - 1) {
		r = next_word(&p, word);
		if (r > 0 && !(words[n++] = strdup(word)))
			r = -ENOMEM;
	}
	if (r >= 0 && n == 0)
		r = -EINVAL;
	if (r >= 0)
		r = img_trial_init_words(t, words, n, err);
	else
		(void)err_set(err, r, "\"%.200s\": %s", text, n ? "a quote is not closed" : "no command");
	for (size_t i = 0; i < n; i++)
		free(words[i]);
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
	t->has_run = true;
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

static bool in_tree(const struct img_tree *t, const char *path)
{
	struct img_node *n;

	return img_tree_resolve(t, path, true, &n, NULL, NULL) == 0;
}

static int add_missed(struct img_trial *t, const char *path)
{
	char **more;

	for (size_t i = 0; i < t->n_missed; i++) {
		if (strcmp(t->missed[i], path) == 0)
			return 0;
	}
	if (t->n_missed >= MISSED_MAX)
		return 0;
	more = reallocarray(t->missed, t->n_missed + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	t->missed = more;
	t->missed[t->n_missed] = strdup(path);
	return t->missed[t->n_missed] ? (t->n_missed++, 0) : -ENOMEM;
}

/* What was looked for in vain and is in the full tree. */
static int find_missed(struct img_trial *t, const struct img_trace *trace, const struct img_tree *full,
                       const struct img_tree *slim)
{
	int r = 0;

	for (size_t i = 0; i < t->n_missed; i++)
		free(t->missed[i]);
	t->n_missed = 0;
	for (size_t i = 0; r == 0 && i < img_trace_count(trace); i++) {
		const struct img_trace_record *rec = img_trace_at(trace, i);

		if (rec->access == IMG_ACCESS_MISS && !in_tree(slim, rec->path) && in_tree(full, rec->path))
			r = add_missed(t, rec->path);
	}
	return r;
}

static bool same_bytes(const struct base_buf *a, const struct base_buf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* Files that one run changed and the other did not, or otherwise. Byte code that Python caches is nobody's matter. */
static const char *different_change(const struct img_run_result *a, const struct img_run_result *b)
{
	for (size_t i = 0; i < a->n_changes; i++) {
		const struct img_change *x = &a->changes[i];
		bool found = strstr(x->path, "__pycache__") != NULL || S_ISDIR(x->mode);

		for (size_t k = 0; !found && k < b->n_changes; k++)
			found = strcmp(x->path, b->changes[k].path) == 0;
		if (!found)
			return x->path;
	}
	return NULL;
}

static void judge(struct img_trial *t, bool compare_files)
{
	const struct img_run_result *f = &t->full, *s = &t->slim;
	const char *path = compare_files ? different_change(f, s) : NULL;
	bool same_output = same_bytes(&f->out, &s->out);

	t->verdict[0] = 0;
	t->passed = true;
	if (s->timed_out || f->exit_code != s->exit_code) {
		t->passed = false;
		(void)snprintf(t->verdict, sizeof(t->verdict), "%s %d, was %d%s%.200s",
		               s->timed_out ? "ran out of time, exit code" : "exit code", s->exit_code, f->exit_code,
		               s->errors.len ? ": " : "", s->errors.len ? base_buf_text(&s->errors) : "");
	} else if (path) {
		t->passed = false;
		(void)snprintf(t->verdict, sizeof(t->verdict), "%.200s was changed in the full image only", path);
	} else if (!same_output) {
		t->passed = t->n_missed == 0;
		(void)snprintf(t->verdict, sizeof(t->verdict), "output differs (%zu bytes, was %zu)%s", s->out.len,
		               f->out.len, t->passed ? ", no file was missed" : "");
	}
	t->verdict[strcspn(t->verdict, "\n")] = 0;
}

int img_trial_run_slim(struct img_trial *t, const struct img_trial_place *p, struct img_tree *full,
                       struct img_tree *slim, struct err *err)
{
	struct img_run run = make_run(t, p);
	struct img_trace *trace = NULL;
	struct err why = { 0 };
	int r;

	img_run_result_done(&t->slim);
	t->slim = (struct img_run_result){ 0 };
	t->n_rounds++;
	r = img_trace_run(&run, IMG_TRACE_PTRACE, &trace, &t->slim, &why);
	if (r == -ENOMEM || r == -EPERM)
		return err_set(err, r, "%s", why.msg);
	if (r < 0) { /* the program itself, or its interpreter, is not there */
		t->passed = false;
		(void)snprintf(t->verdict, sizeof(t->verdict), "%s", why.msg);
		return t->argv[0][0] == '/' && !in_tree(slim, t->argv[0]) && in_tree(full, t->argv[0])
		               ? add_missed(t, t->argv[0])
		               : 0;
	}
	r = find_missed(t, trace, full, slim);
	img_trace_free(trace);
	if (r < 0)
		return err_set(err, r, "out of memory");
	judge(t, p->compare_files);
	return 0;
}
