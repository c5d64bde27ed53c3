/* One installed manual page as plain text: found by name and section under MANPATH or the usual folders. */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "kb/kb_internal.h"

enum { MAX_PAGE = 4 << 20 };

static bool is_page_name(const char *name)
{
	if (!*name || strlen(name) > 200 || name[0] == '.')
		return false;
	for (const char *p = name; *p; p++) {
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
		      strchr("._-+:@", *p)))
			return false;
	}
	return true;
}

/* The first page of dir/man<section>/name.<section>*, in the order of sections. */
static int find_in(const char *dir, const char *name, const char *section, char *path, size_t size)
{
	static const char order[] = "1857623";
	char pattern[PATH_MAX];
	glob_t found;

	for (const char *s = section ? section : order; *s; s++) {
		int n = snprintf(pattern, sizeof(pattern), "%s/man%c*/%s.%c*", dir, *s, name, *s);

		if (n < 0 || (size_t)n >= sizeof(pattern))
			return -ENAMETOOLONG;
		if (glob(pattern, 0, NULL, &found) == 0) {
			n = snprintf(path, size, "%s", found.gl_pathv[0]);
			globfree(&found);
			return n >= 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
		}
		globfree(&found);
		if (section)
			break;
	}
	return -ENOENT;
}

/* The file of a page; *ret_dir_len is the length of the tree's own path, for ".so" pages. */
static int find_page(const char *name, const char *section, char *path, size_t size, size_t *ret_dir_len)
{
	const char *env = getenv("MANPATH");
	CLEANUP(freep) char *copy = strdup(env && *env ? env : "/usr/local/share/man:/usr/share/man");
	char *save = NULL, *rest = copy;

	if (!copy)
		return -ENOMEM;
	for (char *dir; (dir = strtok_r(rest, ":", &save)); rest = NULL) {
		if (strpbrk(dir, "*?[\\"))
			continue;
		if (find_in(dir, name, section, path, size) == 0) {
			*ret_dir_len = strlen(dir);
			return 0;
		}
	}
	return -ENOENT;
}

/* ".so man1/other.1": reads that one instead, once. */
static int follow_pointer(char *path, size_t size, size_t dir_len, struct base_buf *text, struct err *err)
{
	char target[256], suffixed[PATH_MAX];
	int n;

	if (text->len < 5 || memcmp(text->data, ".so ", 4) != 0)
		return 0;
	n = (int)strcspn(text->data + 4, " \r\n");
	if (n <= 0 || (size_t)n >= sizeof(target))
		return 0;
	memcpy(target, text->data + 4, (size_t)n);
	target[n] = '\0';
	if (strstr(target, "..") || target[0] == '/')
		return 0;
	for (int gz = 0; gz < 2; gz++) {
		n = snprintf(suffixed, sizeof(suffixed), "%.*s/%s%s", (int)dir_len, path, target, gz ? ".gz" : "");
		if (n < 0 || (size_t)n >= sizeof(suffixed) || access(suffixed, R_OK) < 0)
			continue;
		(void)snprintf(path, size, "%s", suffixed);
		base_buf_reset(text);
		return ag_kb_read_document(path, text, err);
	}
	return 0;
}

int ag_kb_man_text(const char *name, const char *section, struct base_buf *out, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_PAGE);
	CLEANUP(ag_kb_doc_done) struct ag_kb_doc doc;
	char path[PATH_MAX];
	size_t dir_len = 0;
	int r;

	ag_kb_doc_init(&doc, 3 * MAX_PAGE);
	if (!is_page_name(name))
		return err_set(err, -EINVAL, "not the name of a manual page");
	if (section && (section[0] < '1' || section[0] > '9' || section[1]))
		return err_set(err, -EINVAL, "a section is 1 to 9");
	r = find_page(name, section, path, sizeof(path), &dir_len);
	if (r < 0)
		return err_set(err, -ENOENT, "there is no manual page for %s%s%s", name, section ? " in section " : "",
		               section ? section : "");
	r = ag_kb_read_document(path, &text, err);
	if (r == 0)
		r = follow_pointer(path, sizeof(path), dir_len, &text, err);
	if (r < 0)
		return r;
	r = ag_kb_extract(AG_KB_ROFF, base_buf_text(&text), text.len, &doc);
	if (r < 0)
		return err_set(err, r, "%s: not a readable manual page", path);
	for (size_t i = 0; i < doc.n_lines; i++) {
		const struct ag_kb_line *l = &doc.lines[i];

		if (l->para && i)
			(void)base_buf_putc(out, '\n');
		(void)base_buf_append(out, doc.text.data + l->offset, l->len);
		(void)base_buf_putc(out, '\n');
	}
	return 0; /* what does not fit is cut: the caller sees it at the buffer's error */
}
