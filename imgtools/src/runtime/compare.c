/* Full against slim (compare.h). The cheap path is two runs and a comparison; only when that finds a difference is the
 * full root asked again (what differs there too is no fault of the slim one), and only when a difference is left are
 * both traced: the trace of the full root says what the command needs, that of the slim one what it looked for in vain.
 */
#include "compare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "trace/tracer.h"

enum { MAX_MISSING = 4096, SHOWN_BYTES = 160 };
static const size_t MAX_TEXT = 64u << 20;

/* One comparison. */
struct job {
	struct img_run run;
	const char *full, *slim;
	struct img_comparison *c;
	struct img_run_result again; /* the second run in the full root */
	bool has_again;
	struct err *err;
};

const char *img_missing_why_text(enum img_missing_why why)
{
	static const char *const texts[] = { "was looked for and is used in the full root",
		                             "was looked for and is there in the full root",
		                             "is used in the full root, later",
		                             "was looked for; the full root has it, but does not use it" };

	return (unsigned)why < 4 ? texts[why] : "unknown";
}

static int run_in(const struct job *j, const char *root, struct img_run_result *ret, struct err *err)
{
	struct img_run run = j->run;

	run.roots = &root;
	run.n_roots = 1;
	return img_run(&run, ret, err);
}

/* ---- Text --------------------------------------------------------------------------------------------------- */

static void differ(struct job *j, const char *what, const char *full, size_t full_len, const char *slim,
                   size_t slim_len)
{
	(void)base_buf_printf(&j->c->differences, "%s: \"%.*s\" in the full root, \"%.*s\" in the slim one\n", what,
	                      (int)(full_len < SHOWN_BYTES ? full_len : SHOWN_BYTES), full,
	                      (int)(slim_len < SHOWN_BYTES ? slim_len : SHOWN_BYTES), slim);
}

/* The next line of a text; false at its end. */
static bool next_line(const char **at, const char **ret_line, size_t *ret_len)
{
	if (!**at)
		return false;
	*ret_line = *at;
	*ret_len = strcspn(*at, "\n");
	*at += *ret_len + ((*at)[*ret_len] == '\n');
	return true;
}

static size_t count_lines(const char *text)
{
	const char *line;
	size_t len, n = 0;

	while (next_line(&text, &line, &len))
		n++;
	return n;
}

/* Masked texts; `again` NULL: not asked twice. Tells the first line that differs. */
static void compare_text(struct job *j, const char *what, const char *full, const char *slim, const char *again)
{
	const char *f = full, *s = slim, *a = again ? again : "", *fl = "", *sl = "", *al = "";
	size_t f_len = 0, s_len = 0, a_len = 0;
	bool has_f, has_s, has_a;

	if (strcmp(full, slim) == 0)
		return;
	/* Not even as many lines twice in the same root: there is nothing to hold on to. */
	if (again && count_lines(full) != count_lines(again))
		return;
	for (;;) {
		has_f = next_line(&f, &fl, &f_len);
		has_s = next_line(&s, &sl, &s_len);
		has_a = next_line(&a, &al, &a_len);
		if (!has_f && !has_s)
			return;
		if (has_f && has_s && f_len == s_len && memcmp(fl, sl, f_len) == 0)
			continue;
		if (has_f && has_s && has_a && (f_len != a_len || memcmp(fl, al, f_len) != 0))
			continue;
		differ(j, what, has_f ? fl : "", has_f ? f_len : 0, has_s ? sl : "", has_s ? s_len : 0);
		return;
	}
}

static int compare_output(struct job *j, const char *what, size_t offset)
{
	const struct base_buf *in[3];
	struct base_buf masked[3];
	int r = 0;

	in[0] = (const struct base_buf *)((const char *)&j->c->full + offset);
	in[1] = (const struct base_buf *)((const char *)&j->c->slim + offset);
	in[2] = (const struct base_buf *)((const char *)&j->again + offset);
	for (int i = 0; i < 3; i++) {
		base_buf_init(&masked[i], MAX_TEXT);
		if (r == 0 && (i < 2 || j->has_again))
			r = img_volatile_mask(base_buf_text(in[i]), in[i]->len, &masked[i]);
	}
	if (r == 0)
		compare_text(j, what, base_buf_text(&masked[0]), base_buf_text(&masked[1]),
		             j->has_again ? base_buf_text(&masked[2]) : NULL);
	for (int i = 0; i < 3; i++)
		base_buf_done(&masked[i]);
	return r;
}

/* ---- Files -------------------------------------------------------------------------------------------------- */

static const struct img_change *find_change(const struct img_run_result *r, const char *path)
{
	size_t lo = 0, hi = r->n_changes;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(r->changes[mid].path, path);

		if (c == 0)
			return &r->changes[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/* Whether it is a file of the same kind is told apart from what is in it. Added where the other modified: a slim root
 * may lack what is overwritten anyway. */
static bool same_change(const struct img_change *a, const struct img_change *b)
{
	if ((a->kind == IMG_CHANGE_DELETED) != (b->kind == IMG_CHANGE_DELETED))
		return false;
	if (a->kind == IMG_CHANGE_DELETED)
		return true;
	if ((a->mode & S_IFMT) != (b->mode & S_IFMT) || !a->target != !b->target ||
	    (a->target && strcmp(a->target, b->target) != 0))
		return false;
	return !S_ISREG(a->mode) || memcmp(a->sha256, b->sha256, sizeof(a->sha256)) == 0;
}

static void compare_change(struct job *j, const struct img_change *full)
{
	const struct img_change *slim = find_change(&j->c->slim, full->path), *again;

	if (img_volatile_path(full->path) || (slim && same_change(full, slim)))
		return;
	if (j->has_again) {
		again = find_change(&j->again, full->path);
		if (!again || !same_change(full, again))
			return;
	}
	(void)base_buf_printf(&j->c->differences, "%s: %s in the full root, %s in the slim one\n", full->path,
	                      img_change_kind_name(full->kind),
	                      !slim                      ? "not changed"
	                      : slim->kind == full->kind ? "differently"
	                                                 : img_change_kind_name(slim->kind));
}

static void compare_changes(struct job *j)
{
	for (size_t i = 0; i < j->c->full.n_changes; i++)
		compare_change(j, &j->c->full.changes[i]);
	for (size_t i = 0; i < j->c->slim.n_changes; i++) {
		const struct img_change *c = &j->c->slim.changes[i];

		/* Deleted in one, never there in the other: the same in the end. */
		if (img_volatile_path(c->path) || find_change(&j->c->full, c->path) ||
		    (j->has_again && find_change(&j->again, c->path)))
			continue;
		(void)base_buf_printf(&j->c->differences, "%s: %s only in the slim root\n", c->path,
		                      img_change_kind_name(c->kind));
	}
}

static int compare_results(struct job *j)
{
	struct img_comparison *c = j->c;
	int r;

	base_buf_reset(&c->differences);
	if (c->full.exit_code != c->slim.exit_code || c->full.timed_out != c->slim.timed_out)
		(void)base_buf_printf(&c->differences, "exit status: %d%s in the full root, %d%s in the slim one\n",
		                      c->full.exit_code, c->full.timed_out ? " (after the time-out)" : "",
		                      c->slim.exit_code, c->slim.timed_out ? " (after the time-out)" : "");
	r = compare_output(j, "output", offsetof(struct img_run_result, out));
	if (r == 0)
		r = compare_output(j, "errors", offsetof(struct img_run_result, errors));
	if (r == 0)
		compare_changes(j);
	if (r == 0)
		r = base_buf_error(&c->differences);
	c->is_equal = r == 0 && c->differences.len == 0;
	return r < 0 ? err_set(j->err, r, "comparing the runs: %s", strerror(-r)) : 0;
}

/* ---- What is missing ------------------------------------------------------------------------------------------ */

static bool exists_in(int root_fd, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	CLEANUP(close_fdp) int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

	return fd >= 0;
}

static int add_missing(struct job *j, const char *path, enum img_missing_why why)
{
	struct img_comparison *c = j->c;
	struct img_missing *list;

	for (size_t i = 0; i < c->n_missing; i++) {
		if (strcmp(c->missing[i].path, path) == 0)
			return 0;
	}
	if (c->n_missing == MAX_MISSING)
		return 0;
	list = realloc(c->missing, (c->n_missing + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	c->missing = list;
	list[c->n_missing].path = strdup(path);
	list[c->n_missing].why = why;
	return list[c->n_missing].path ? (c->n_missing++, 0) : -ENOMEM;
}

/* What the command did to a path in the full root: 2: opened, executed; 1: otherwise touched. By path. */
struct use {
	const char *path;
	int use;
};

static int by_path(const void *a, const void *b)
{
	const struct use *x = a, *y = b;
	int c = strcmp(x->path, y->path);

	return c ? c : y->use - x->use; /* the stronger first */
}

static int list_uses(const struct img_trace *full, struct use **ret, size_t *ret_n)
{
	struct use *uses = calloc(img_trace_count(full) + 1, sizeof(*uses));
	size_t n = 0, n_kept = 0;

	if (!uses)
		return -ENOMEM;
	for (size_t i = 0; i < img_trace_count(full); i++) {
		const struct img_trace_record *r = img_trace_at(full, i);
		bool is_read =
		        r->access == IMG_ACCESS_OPEN || r->access == IMG_ACCESS_EXEC || r->access == IMG_ACCESS_KERNEL;

		if (r->access != IMG_ACCESS_MISS && r->access != IMG_ACCESS_CREATE)
			uses[n++] = (struct use){ r->path, is_read ? 2 : 1 };
	}
	qsort(uses, n, sizeof(*uses), by_path);
	for (size_t i = 0; i < n; i++) {
		if (n_kept == 0 || strcmp(uses[n_kept - 1].path, uses[i].path) != 0)
			uses[n_kept++] = uses[i];
	}
	*ret = uses;
	*ret_n = n_kept;
	return 0;
}

static int only_path(const void *a, const void *b)
{
	return strcmp(((const struct use *)a)->path, ((const struct use *)b)->path);
}

/* The two roots and what the traces say of them. */
struct search {
	struct job *j;
	struct img_trace *full, *slim;
	int full_fd, slim_fd;
	struct use *uses;
	size_t n_uses;
};

static int use_of(const struct search *s, const char *path)
{
	struct use key = { path, 0 }, *found = bsearch(&key, s->uses, s->n_uses, sizeof(key), only_path);

	return found ? found->use : 0;
}

/* The last misses are the likeliest: a command seldom lives long after the one that kills it. */
static int add_misses(struct search *s, int want, enum img_missing_why why)
{
	int r = 0;

	for (size_t i = s->slim ? img_trace_count(s->slim) : 0; i-- > 0 && r == 0;) {
		const struct img_trace_record *rec = img_trace_at(s->slim, i);

		if (rec->access == IMG_ACCESS_MISS && !img_volatile_path(rec->path) && use_of(s, rec->path) == want &&
		    !exists_in(s->slim_fd, rec->path) && exists_in(s->full_fd, rec->path))
			r = add_missing(s->j, rec->path, why);
	}
	return r;
}

/* What the full root was asked for, in its order, as far as the slim one lacks it. */
static int add_next(struct search *s)
{
	int r = 0;

	for (size_t i = 0; i < img_trace_count(s->full) && r == 0; i++) {
		const struct img_trace_record *rec = img_trace_at(s->full, i);

		if (rec->access == IMG_ACCESS_MISS || rec->access == IMG_ACCESS_CREATE || img_volatile_path(rec->path))
			continue;
		if (!exists_in(s->slim_fd, rec->path) && exists_in(s->full_fd, rec->path))
			r = add_missing(s->j, rec->path, IMG_MISSING_NEXT);
	}
	return r;
}

static int trace_in(const struct job *j, const char *root, struct img_trace **ret, struct err *err)
{
	struct img_run_result result = { 0 };
	struct img_run run = j->run;
	int r;

	run.roots = &root;
	run.n_roots = 1;
	run.want_changes = false;
	r = img_trace_run(&run, IMG_TRACE_PTRACE, ret, &result, err);
	if (r == 0)
		img_run_result_done(&result);
	return r;
}

static int search_all(struct search *s)
{
	int r = list_uses(s->full, &s->uses, &s->n_uses);

	if (r == 0)
		r = add_misses(s, 2, IMG_MISSING_USED);
	if (r == 0)
		r = add_misses(s, 1, IMG_MISSING_LOOKED);
	if (r == 0)
		r = add_next(s);
	if (r == 0)
		r = add_misses(s, 0, IMG_MISSING_EXISTS);
	return r < 0 ? err_set(s->j->err, r, "finding what is missing: %s", strerror(-r)) : 0;
}

static int find_missing(struct job *j)
{
	CLEANUP(close_fdp) int full_fd = open(j->full, O_PATH | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(close_fdp) int slim_fd = open(j->slim, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct search s = { .j = j, .full_fd = full_fd, .slim_fd = slim_fd };
	int r;

	if (full_fd < 0 || slim_fd < 0)
		return err_set(j->err, -errno, "%s, %s: %s", j->full, j->slim, strerror(errno));
	r = trace_in(j, j->full, &s.full, j->err);
	if (r < 0)
		return r;
	/* A command that cannot even be executed leaves no trace; what the full root needs is told all the same. */
	(void)trace_in(j, j->slim, &s.slim, NULL);
	r = search_all(&s);
	free(s.uses);
	img_trace_free(s.full);
	img_trace_free(s.slim);
	return r;
}

/* ---- All of it ------------------------------------------------------------------------------------------------- */

static int compare_runs(struct job *j)
{
	struct err err = { 0 };
	int r = run_in(j, j->full, &j->c->full, j->err);

	if (r < 0)
		return err_prefix(j->err, r, "in the full root: ");
	r = run_in(j, j->slim, &j->c->slim, &err);
	if (r == -ENOENT || r == -EACCES || r == -ENOEXEC || r == -ENOTDIR) {
		(void)base_buf_printf(&j->c->differences, "%s, in the slim root\n", err_text(&err));
		return find_missing(j);
	}
	if (r < 0)
		return err_set(j->err, r, "in the slim root: %s", err_text(&err));
	r = compare_results(j);
	if (r < 0 || j->c->is_equal)
		return r;
	r = run_in(j, j->full, &j->again, j->err);
	if (r < 0)
		return err_prefix(j->err, r, "in the full root, again: ");
	j->has_again = true;
	r = compare_results(j);
	if (r == 0 && !j->c->is_equal)
		r = find_missing(j);
	return r;
}

int img_compare(const struct img_run *run, const char *full_root, const char *slim_root, struct img_comparison *ret,
                struct err *err)
{
	struct img_comparison c = { .differences = BASE_BUF_INIT(MAX_TEXT) };
	struct job j = { .run = *run, .full = full_root, .slim = slim_root, .c = &c, .err = err };
	int r;

	j.run.capture = true;
	j.run.null_stdin = true;
	j.run.want_changes = true;
	r = compare_runs(&j);
	img_run_result_done(&j.again);
	if (r < 0) {
		img_comparison_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

void img_comparison_done(struct img_comparison *c)
{
	base_buf_done(&c->differences);
	img_run_result_done(&c->full);
	img_run_result_done(&c->slim);
	for (size_t i = 0; i < c->n_missing; i++)
		free(c->missing[i].path);
	free(c->missing);
	*c = (struct img_comparison){ 0 };
}
