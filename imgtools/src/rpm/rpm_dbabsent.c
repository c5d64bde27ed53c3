/* What is not there of a package, told in words where its header lists only what is: the description, which `rpm -qi`
 * shows. One line says how many of the files were left out; each further one names a folder and what is missing in it:
 *
 *     284 of 291 files were left out:
 *     /usr/lib/x86_64-linux-gnu/ gconv/ libanl.so.1 libdl.so.2
 *     /usr/share/doc/ libc6/
 *
 * A name that ends in "/" is a folder of which the root has nothing: it stands for all that the package has there. In
 * arrays of the header each file would take some 37 bytes (rpm wants as many sizes, modes and times as names), here it
 * is the name, if that. Blanks, backslashes and control characters of names are written as \ooo. */
#include <errno.h>
#include <rpm/header.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "rpm_dbwrite_internal.h"

enum { MAX_TEXT_BYTES = 64 << 20 };

struct entry {
	const char *path;
	size_t folder_len; /* of the path, with the "/" behind it */
	bool is_there, is_folder;
};

/* Folders stand right before what is in them. */
static int compare_in_tree(const void *a, const void *b)
{
	const uint8_t *x = (const uint8_t *)((const struct entry *)a)->path;
	const uint8_t *y = (const uint8_t *)((const struct entry *)b)->path;

	while (*x && *x == *y) {
		x++;
		y++;
	}
	if (*x == '/' || *y == '/')
		return *x == *y ? 0 : !*x ? -1 : !*y ? 1 : *x == '/' ? -1 : 1;
	return (int)*x - (int)*y;
}

/* What is in one folder stands together. */
static int compare_by_folder(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	const size_t len = x->folder_len < y->folder_len ? x->folder_len : y->folder_len;
	const int r = memcmp(x->path, y->path, len);

	if (r != 0)
		return r;
	if (x->folder_len != y->folder_len)
		return x->folder_len < y->folder_len ? -1 : 1;
	return strcmp(x->path + len, y->path + len);
}

static bool is_below(const char *folder, size_t len, const char *path)
{
	return strncmp(folder, path, len) == 0 && path[len] == '/';
}

/* Leaves the absent entries, and of a folder without anything that is there only the folder. */
static size_t keep_absent(struct entry *v, size_t n)
{
	size_t out = 0;

	for (size_t i = 0; i < n;) {
		const size_t len = strlen(v[i].path);
		size_t end = i + 1;
		bool is_gone = v[i].is_folder && !v[i].is_there;

		for (; is_gone && end < n && is_below(v[i].path, len, v[end].path); end++)
			is_gone = !v[end].is_there;
		if (!v[i].is_there) {
			v[out] = v[i];
			v[out++].is_folder = is_gone;
		}
		i = is_gone ? end : i + 1;
	}
	return out;
}

static void put_name(struct base_buf *text, const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		const uint8_t c = (uint8_t)name[i];

		if (c <= ' ' || c == '\\' || c == 0x7f)
			(void)base_buf_printf(text, "\\%03o", c);
		else
			(void)base_buf_putc(text, (char)c);
	}
}

static void put_entries(struct base_buf *text, const struct entry *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const size_t len = v[i].folder_len;

		if (i == 0 || v[i - 1].folder_len != len || memcmp(v[i - 1].path, v[i].path, len) != 0) {
			(void)base_buf_putc(text, '\n');
			put_name(text, v[i].path, len);
		}
		(void)base_buf_putc(text, ' ');
		put_name(text, v[i].path + len, strlen(v[i].path + len));
		if (v[i].is_folder)
			(void)base_buf_putc(text, '/');
	}
}

int img_rpmdb_put_absent(const struct img_rpmdb_writer *w, const struct img_rpm *p, Header h)
{
	struct base_buf text = BASE_BUF_INIT(MAX_TEXT_BYTES);
	struct entry *v = calloc(p->n_files + 1, sizeof(*v));
	size_t n = 0, n_absent = 0;
	int r = v ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < p->n_files; i++) {
		const struct img_rpm_file *f = &p->files[i];
		const bool is_absent = img_rpmdb_state(w, p, i) == RPMFILE_STATE_NOTINSTALLED;

		/* %ghost is neither there nor left out. */
		if (!is_absent && !img_rpmdb_has(w, p, i))
			continue;
		n_absent += is_absent;
		v[n++] = (struct entry){ f->path, (size_t)(strrchr(f->path, '/') + 1 - f->path), !is_absent,
			                 f->type == IMG_DIR };
	}
	if (n_absent) {
		(void)base_buf_printf(&text, "%zu of %zu files were left out:", n_absent, n);
		qsort(v, n, sizeof(*v), compare_in_tree);
		n = keep_absent(v, n);
		qsort(v, n, sizeof(*v), compare_by_folder);
		put_entries(&text, v, n);
		r = base_buf_error(&text);
		if (r == 0)
			r = headerAddI18NString(h, RPMTAG_DESCRIPTION, base_buf_text(&text), "C") ? 0 : -ENOMEM;
	}
	free(v);
	base_buf_done(&text);
	return r;
}
