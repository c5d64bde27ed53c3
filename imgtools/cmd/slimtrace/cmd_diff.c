/* slimtrace diff: what differs between two images or roots: sums by category, package and layer, and the files. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "commands.h"
#include "image_progress.h"
#include "inventory/inventory.h"

struct diff {
	const char *auth_file, *arch, *work_dir;
	bool json, all, times, insecure;
	uint32_t limit;
};

const struct opt diff_opts[] = {
	{ "all", 'a', OPT_FLAG, offsetof(struct diff, all), NULL, "list every file that differs", NULL },
	{ "limit", 'n', OPT_UINT, offsetof(struct diff, limit), "N", "list the N files that differ most in size [20]",
	  NULL },
	{ "times", 0, OPT_FLAG, offsetof(struct diff, times), NULL, "compare modification times too", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct diff, json), NULL, "one JSON document with all of it", NULL },
	{ "arch", 0, OPT_STR, offsetof(struct diff, arch), "ARCH", "of an image for several, which [this machine's]",
	  NULL },
	{ "work-dir", 0, OPT_STR, offsetof(struct diff, work_dir), "DIR",
	  "where layers are unpacked [$TMPDIR, /var/tmp]", NULL },
	{ "auth-file", 0, OPT_STR, offsetof(struct diff, auth_file), "FILE",
	  "registry credentials, as docker's config.json", NULL },
	{ "insecure", 0, OPT_FLAG, offsetof(struct diff, insecure), NULL,
	  "registry by plain HTTP or without verifying it", NULL },
	{ 0 },
};

/* One row of a table: what a category, a package or a layer has gained and lost. */
struct row {
	char name[160];
	uint64_t added, removed, changed; /* entries */
	int64_t a_bytes, b_bytes;         /* of those */
};

struct table {
	struct row *rows;
	size_t n;
};

struct sums {
	struct table categories, packages, layers;
	struct row total;
};

/* ---- Sums -------------------------------------------------------------------------------------------------------- */

static struct row *row_of(struct table *t, const char *name)
{
	struct row *p;

	for (size_t i = 0; i < t->n; i++) {
		if (strcmp(t->rows[i].name, name) == 0)
			return &t->rows[i];
	}
	p = reallocarray(t->rows, t->n + 1, sizeof(*p));
	if (!p)
		return NULL;
	t->rows = p;
	p += t->n++;
	*p = (struct row){ 0 };
	(void)snprintf(p->name, sizeof(p->name), "%s", name);
	return p;
}

static void count(struct row *r, const struct img_difference *d)
{
	if (!r)
		return;
	r->added += !d->a;
	r->removed += !d->b;
	r->changed += d->a && d->b;
	r->a_bytes += (int64_t)d->a_bytes;
	r->b_bytes += (int64_t)d->b_bytes;
}

static const char *package_of(const struct img_subject *s, const struct img_node *n)
{
	return s->packages && n && n->package >= 0 ? img_rpm_set_at(s->packages, (size_t)n->package)->name : NULL;
}

static void layer_name(const struct img_subject *s, const struct img_node *n, const char *side, char out[160])
{
	const struct img_layer *l = &s->image->layers[n->layer];

	(void)snprintf(out, 160, "%s %d %.19s %.100s", side, n->layer + 1, l->digest[0] ? l->digest : l->diff_id,
	               l->created_by ? l->created_by : "");
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int64_t dx = llabs(x->b_bytes - x->a_bytes), dy = llabs(y->b_bytes - y->a_bytes);

	return dx != dy ? (dx > dy ? -1 : 1) : strcmp(x->name, y->name);
}

static void sum_up(const struct img_subject *a, const struct img_subject *b, const struct img_diff *d, struct sums *s)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct img_difference *x = &d->list[i];
		const struct img_node *n = x->b ? x->b : x->a;
		const char *package = package_of(b, x->b) ? package_of(b, x->b) : package_of(a, x->a);
		char name[160];

		count(&s->total, x);
		count(row_of(&s->categories, img_category_name(img_category_of(n))), x);
		if (a->packages || b->packages)
			count(row_of(&s->packages, package ? package : "(no package)"), x);
		if (x->b && b->image && x->b->layer >= 0) {
			layer_name(b, x->b, "B", name);
			count(row_of(&s->layers, name), x);
		} else if (!x->b && a->image && x->a->layer >= 0) {
			layer_name(a, x->a, "A", name);
			count(row_of(&s->layers, name), x);
		}
	}
	if (s->categories.n)
		qsort(s->categories.rows, s->categories.n, sizeof(struct row), compare_rows);
	if (s->packages.n)
		qsort(s->packages.rows, s->packages.n, sizeof(struct row), compare_rows);
	if (s->layers.n)
		qsort(s->layers.rows, s->layers.n, sizeof(struct row), compare_rows);
}

/* ---- For people ---- */

static void print_delta(int64_t bytes, char out[20])
{
	char text[16];

	(void)snprintf(out, 20, "%s%s",
	               bytes < 0   ? "-"
	               : bytes > 0 ? "+"
	                           : "",
	               image_size_text((uint64_t)llabs(bytes), text));
}

static void print_table(const char *title, const struct table *t, size_t max)
{
	char a[16], b[16], delta[20];

	if (!t->n)
		return;
	(void)printf("\n%7s %7s %7s %10s %10s %11s  %s\n", "added", "removed", "changed", "A", "B", "B - A", title);
	for (size_t i = 0; i < t->n && i < max; i++) {
		const struct row *r = &t->rows[i];

		print_delta(r->b_bytes - r->a_bytes, delta);
		(void)printf("%7llu %7llu %7llu %10s %10s %11s  %.100s\n", (unsigned long long)r->added,
		             (unsigned long long)r->removed, (unsigned long long)r->changed,
		             image_size_text((uint64_t)r->a_bytes, a), image_size_text((uint64_t)r->b_bytes, b), delta,
		             r->name);
	}
	if (t->n > max)
		(void)printf("... and %zu more\n", t->n - max);
}

static const struct {
	unsigned change;
	const char *word;
} words[] = {
	{ IMG_CHANGE_TYPE, "type" },   { IMG_CHANGE_CONTENT, "content" }, { IMG_CHANGE_MODE, "mode" },
	{ IMG_CHANGE_OWNER, "owner" }, { IMG_CHANGE_XATTRS, "xattrs" },   { IMG_CHANGE_TIME, "time" },
};

static int compare_by_size(const void *a, const void *b)
{
	const struct img_difference *x = *(const struct img_difference *const *)a,
	                            *y = *(const struct img_difference *const *)b;
	int64_t dx = llabs((int64_t)x->b_bytes - (int64_t)x->a_bytes),
	        dy = llabs((int64_t)y->b_bytes - (int64_t)y->a_bytes);

	if (dx != dy)
		return dx > dy ? -1 : 1;
	return x < y ? -1 : x > y; /* by path */
}

/* A path is bytes: what would move the cursor is shown as '?'. */
static void print_path(const char *path)
{
	for (; *path; path++)
		(void)putchar((unsigned char)*path < ' ' || *path == 0x7f ? '?' : *path);
}

static void print_file(const struct img_difference *d)
{
	char delta[20];
	bool is_first = true;

	print_delta((int64_t)d->b_bytes - (int64_t)d->a_bytes, delta);
	(void)printf("%c %11s  ", !d->a ? '+' : !d->b ? '-' : '~', delta);
	print_path((d->b ? d->b : d->a)->path);
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (d->changes & words[i].change) {
			(void)printf("%s%s", is_first ? "  (" : ", ", words[i].word);
			is_first = false;
		}
	}
	(void)puts(is_first ? "" : ")");
}

static int print_files(const struct diff *o, const struct img_diff *d, struct err *err)
{
	CLEANUP(freep) const struct img_difference **order = calloc(d->n + 1, sizeof(*order));
	size_t n = o->all || d->n < o->limit ? d->n : o->limit;

	if (!order)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < d->n; i++)
		order[i] = &d->list[i];
	if (d->n && !o->all)
		qsort(order, d->n, sizeof(*order), compare_by_size);
	if (n)
		(void)printf("\n%s\n", o->all ? "files" : "files that differ most");
	for (size_t i = 0; i < n; i++)
		print_file(order[i]);
	if (n < d->n)
		(void)printf("... and %zu more (--all lists them)\n", d->n - n);
	return 0;
}

static int print_text(const struct diff *o, const struct img_subject *a, const struct img_subject *b,
                      const struct img_diff *d, const struct sums *s, struct err *err)
{
	char x[16], y[16], delta[20];

	print_delta((int64_t)d->b_bytes - (int64_t)d->a_bytes, delta);
	(void)printf(
	        "A  %10s  %s\nB  %10s  %s\n   %10s  B - A; %llu added, %llu removed, %llu changed, %llu the same\n",
	        image_size_text(d->a_bytes, x), a->name, image_size_text(d->b_bytes, y), b->name, delta,
	        (unsigned long long)s->total.added, (unsigned long long)s->total.removed,
	        (unsigned long long)s->total.changed, (unsigned long long)d->n_same);
	print_table("category", &s->categories, SIZE_MAX);
	print_table("package", &s->packages, o->all ? SIZE_MAX : o->limit);
	print_table("layer", &s->layers, SIZE_MAX);
	return print_files(o, d, err);
}

/* ---- For programs ---- */

static void append_path(struct base_buf *b, const char *text)
{
	(void)base_json_append_string(b, text, strlen(text));
}

static void append_row(struct base_buf *b, const struct row *r)
{
	(void)base_buf_printf(b, "\"added\":%llu,\"removed\":%llu,\"changed\":%llu,\"a_bytes\":%lld,\"b_bytes\":%lld",
	                      (unsigned long long)r->added, (unsigned long long)r->removed,
	                      (unsigned long long)r->changed, (long long)r->a_bytes, (long long)r->b_bytes);
}

static void append_table(struct base_buf *b, const char *name, const struct table *t)
{
	(void)base_buf_printf(b, ",\"%s\":[", name);
	for (size_t i = 0; i < t->n; i++) {
		(void)base_buf_puts(b, i ? ",{\"name\":" : "{\"name\":");
		append_path(b, t->rows[i].name);
		(void)base_buf_putc(b, ',');
		append_row(b, &t->rows[i]);
		(void)base_buf_putc(b, '}');
	}
	(void)base_buf_putc(b, ']');
}

static void append_node(struct base_buf *b, const char *side, const struct img_subject *s, const struct img_node *n,
                        uint64_t bytes)
{
	const char *package = package_of(s, n);

	if (!n)
		return;
	(void)base_buf_printf(b, ",\"%s\":{\"bytes\":%llu,\"mode\":\"%04o\",\"uid\":%u,\"gid\":%u", side,
	                      (unsigned long long)bytes, n->mode, n->uid, n->gid);
	if (n->layer >= 0)
		(void)base_buf_printf(b, ",\"layer\":%d", n->layer);
	if (package) {
		(void)base_buf_puts(b, ",\"package\":");
		append_path(b, package);
	}
	if (n->target) {
		(void)base_buf_puts(b, ",\"target\":");
		append_path(b, n->target);
	}
	(void)base_buf_putc(b, '}');
}

static void append_file(struct base_buf *b, const struct img_subject *sa, const struct img_subject *sb,
                        const struct img_difference *d)
{
	const struct img_node *n = d->b ? d->b : d->a;
	const char *separator = "";

	(void)base_buf_puts(b, "{\"path\":");
	append_path(b, n->path);
	(void)base_buf_printf(b, ",\"what\":\"%s\",\"category\":\"%s\",\"changes\":[",
	                      !d->a   ? "added"
	                      : !d->b ? "removed"
	                              : "changed",
	                      img_category_name(img_category_of(n)));
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (d->changes & words[i].change) {
			(void)base_buf_printf(b, "%s\"%s\"", separator, words[i].word);
			separator = ",";
		}
	}
	(void)base_buf_putc(b, ']');
	append_node(b, "a", sa, d->a, d->a_bytes);
	append_node(b, "b", sb, d->b, d->b_bytes);
	(void)base_buf_putc(b, '}');
}

static int print_json(const struct img_subject *a, const struct img_subject *b, const struct img_diff *d,
                      const struct sums *s, struct err *err)
{
	struct base_buf out = BASE_BUF_INIT((size_t)4 << 30);
	int r = 0;

	(void)base_buf_puts(&out, "{\"a\":{\"name\":");
	append_path(&out, a->name);
	(void)base_buf_printf(&out, ",\"bytes\":%llu},\"b\":{\"name\":", (unsigned long long)d->a_bytes);
	append_path(&out, b->name);
	(void)base_buf_printf(&out, ",\"bytes\":%llu},\"same\":%llu,", (unsigned long long)d->b_bytes,
	                      (unsigned long long)d->n_same);
	append_row(&out, &s->total);
	append_table(&out, "categories", &s->categories);
	append_table(&out, "packages", &s->packages);
	append_table(&out, "layers", &s->layers);
	(void)base_buf_puts(&out, ",\"files\":[");
	for (size_t i = 0; i < d->n; i++) {
		if (i)
			(void)base_buf_putc(&out, ',');
		append_file(&out, a, b, &d->list[i]);
	}
	(void)base_buf_puts(&out, "]}");
	if (base_buf_error(&out))
		r = err_set(err, base_buf_error(&out), "out of memory");
	else
		(void)puts(out.data);
	base_buf_done(&out);
	return r;
}

/* ---- The command ---- */

static int compare(const struct diff *o, char **names, struct err *err)
{
	struct img_open_opts oo = { .work_dir = o->work_dir,
		                    .arch = o->arch,
		                    .auth_file = o->auth_file,
		                    .insecure = o->insecure,
		                    .progress = image_progress() };
	const struct img_diff_opts dopts = { .with_times = o->times, .is_canceled = image_is_interrupted };
	struct img_subject a = { 0 }, b = { 0 };
	struct img_diff d = { 0 };
	struct sums s = { 0 };
	int r = img_subject_open(names[0], &oo, &a, err);

	if (r == 0)
		r = img_subject_open(names[1], &oo, &b, err);
	image_progress_clear();
	if (r == 0)
		r = img_diff_make(a.tree, b.tree, &dopts, &d, err);
	if (r == 0) {
		sum_up(&a, &b, &d, &s);
		r = o->json ? print_json(&a, &b, &d, &s, err) : print_text(o, &a, &b, &d, &s, err);
	}
	free(s.categories.rows);
	free(s.packages.rows);
	free(s.layers.rows);
	img_diff_done(&d);
	img_subject_close(&a);
	img_subject_close(&b);
	return r;
}

int cmd_diff(int argc, char **argv)
{
	struct diff o = { .limit = 20 };
	struct err err = { 0 };
	int n = 0, r = slimtrace_options(argc, argv, &o, &n);

	if (r >= 0)
		return r;
	if (n != 2) {
		(void)err_set(&err, -EINVAL, "diff wants two images or roots, not %d", n);
		return slimtrace_usage("diff", &err);
	}
	return compare(&o, argv, &err) < 0 ? slimtrace_fail(&err) : 0;
}
