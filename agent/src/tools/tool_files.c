/* Tools that show documents: passages, files, manual pages. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "kb/kb.h"
#include "tools/tools_internal.h"

enum { MAX_FILE = 16 << 20, MAX_LINES = 400, PROBE = 4096 };

int ag_tools_kb_search(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	const struct ag_kb_options options = { .path = c->kb_path, .must_exist = true, .cancel = c->cancel };
	const char *query = json_string_value(json_object_get(args, "query"));
	struct ag_kb_hits hits = { 0 };
	struct ag_kb *kb = NULL;
	uint32_t limit = 5;
	int r = base_json_opt_u32(args, "kb_search", "limit", &limit, err);

	if (r >= 0)
		r = ag_kb_open(&options, &kb, err);
	if (r == 0)
		r = ag_kb_search(kb, query, limit, &hits, err);
	if (r == 0 && hits.n == 0)
		(void)base_buf_puts(out, c->chinese ? "没有找到相关段落。\n" : "No passage was found.\n");
	else if (r == 0)
		r = ag_kb_cite(&hits, AG_TOOLS_MAX_OUTPUT - 256, out);
	ag_kb_hits_done(&hits);
	ag_kb_close(kb);
	return r < 0 ? r : 0;
}

/* Lines first..first+count-1, cleaned of control characters, and how to get more. */
static int put_lines(const char *s, size_t len, uint32_t first, uint32_t count, struct base_buf *out)
{
	const char *end = s + len;
	uint32_t line = 1;

	for (; s < end && line < first; line++) {
		const char *newline = memchr(s, '\n', (size_t)(end - s));

		s = newline ? newline + 1 : end;
	}
	for (; s < end && count; count--, line++) {
		const char *newline = memchr(s, '\n', (size_t)(end - s)), *stop = newline ? newline : end;

		for (; s < stop; s++)
			(void)base_buf_putc(out, (unsigned char)*s < 32 && *s != '\t' ? ' ' : *s);
		(void)base_buf_putc(out, '\n');
		s = newline ? newline + 1 : end;
	}
	if (s < end)
		(void)base_buf_printf(out, "[more follows: line %u]\n", (unsigned)line);
	return 0; /* what does not fit is cut by the caller */
}

/* Opened once and judged by what was opened: a link that changes meanwhile wins nothing. */
static int open_plain(const char *path, struct err *err)
{
	char link[64], resolved[PATH_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, resolved, sizeof(resolved) - 1);
	if (n > 0)
		resolved[n] = '\0';
	if (n <= 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)close(fd);
		return err_set(err, -EINVAL, "%s: not a regular file", path);
	}
	if (ag_tools_is_secret_path(path) || ag_tools_is_secret_path(resolved)) {
		(void)close(fd);
		return err_set(err, -EACCES, "%s: refused, it may hold secrets", path);
	}
	return fd;
}

static int read_all(int fd, struct base_buf *text)
{
	char piece[32768];
	ssize_t n;

	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		if (base_buf_append(text, piece, (size_t)n) < 0)
			break; /* the beginning of a large file is shown */
	}
	return n < 0 ? -errno : 0;
}

int ag_tools_read_file(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_FILE);
	const char *path = json_string_value(json_object_get(args, "path"));
	CLEANUP(close_fdp) int fd = -1;
	uint32_t first = 1, count = MAX_LINES;
	int r;

	(void)c;
	if (path[0] != '/')
		return err_set(err, -EINVAL, "%s: expected an absolute path", path);
	if ((r = base_json_opt_u32(args, "read_file", "line", &first, err)) < 0 ||
	    (r = base_json_opt_u32(args, "read_file", "count", &count, err)) < 0)
		return r;
	fd = open_plain(path, err);
	if (fd < 0)
		return fd;
	r = read_all(fd, &text);
	if (r < 0)
		return err_set(err, r, "%s: %s", path, strerror(-r));
	if (text.len && memchr(text.data, '\0', text.len < PROBE ? text.len : PROBE))
		return err_set(err, -EINVAL, "%s: not a text file", path);
	if (text.len && ag_tools_is_secret_text(text.data, text.len))
		return err_set(err, -EACCES, "%s: refused, it holds a private key", path);
	return put_lines(base_buf_text(&text), text.len, first, count, out);
}

int ag_tools_man_page(const struct ag_tools_context *c, const json_t *args, struct base_buf *out, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MAX_FILE);
	uint32_t first = 1;
	int r = base_json_opt_u32(args, "man_page", "line", &first, err);

	(void)c;
	if (r >= 0)
		r = ag_kb_man_text(json_string_value(json_object_get(args, "name")),
		                   json_string_value(json_object_get(args, "section")), &text, err);
	return r < 0 ? r : put_lines(base_buf_text(&text), text.len, first, MAX_LINES, out);
}
