/* Pieces: lines out of a byte stream, and events out of an event stream (WHATWG HTML, server-sent events: only "data"
 * matters here; an event ends at an empty line). */
#include <errno.h>
#include <string.h>

#include "mcp/mcp_internal.h"

void ag_mcp_lines_init(struct ag_mcp_lines *lines)
{
	*lines = (struct ag_mcp_lines){ .buf = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE + 65536) };
}

void ag_mcp_lines_done(struct ag_mcp_lines *lines)
{
	base_buf_done(&lines->buf);
}

int ag_mcp_lines_add(struct ag_mcp_lines *lines, const char *data, size_t len)
{
	if (lines->pos) { /* what was taken makes room */
		memmove(lines->buf.data, lines->buf.data + lines->pos, lines->buf.len - lines->pos);
		lines->buf.len -= lines->pos;
		lines->seen -= lines->pos;
		lines->pos = 0;
	}
	return base_buf_append(&lines->buf, data, len);
}

bool ag_mcp_lines_next(struct ag_mcp_lines *lines, const char **ret_line, size_t *ret_len)
{
	const char *newline;

	if (lines->seen >= lines->buf.len)
		return false;
	newline = memchr(lines->buf.data + lines->seen, '\n', lines->buf.len - lines->seen);
	if (!newline) {
		lines->seen = lines->buf.len;
		return false;
	}
	*ret_line = lines->buf.data + lines->pos;
	*ret_len = (size_t)(newline - *ret_line);
	lines->pos += *ret_len + 1;
	lines->seen = lines->pos;
	return true;
}

void ag_mcp_sse_init(struct ag_mcp_sse *sse)
{
	*sse = (struct ag_mcp_sse){ .line = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE + 16),
		                    .data = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE) };
}

void ag_mcp_sse_done(struct ag_mcp_sse *sse)
{
	base_buf_done(&sse->line);
	base_buf_done(&sse->data);
}

static int end_line(struct ag_mcp_sse *sse, int (*fn)(void *arg, const char *data, size_t len), void *arg)
{
	const char *s = base_buf_text(&sse->line);
	size_t len = sse->line.len;
	int r = 0;

	if (len == 0) {
		/* every data line left a newline, the last one is not part of it */
		if (sse->data.len)
			r = fn(arg, sse->data.data, sse->data.len - 1);
		base_buf_reset(&sse->data);
	} else if (len >= 5 && memcmp(s, "data:", 5) == 0) {
		size_t skip = len > 5 && s[5] == ' ' ? 6 : 5;

		(void)base_buf_append(&sse->data, s + skip, len - skip);
		r = base_buf_putc(&sse->data, '\n');
	}
	base_buf_reset(&sse->line);
	return r;
}

int ag_mcp_sse_feed(struct ag_mcp_sse *sse, const char *bytes, size_t len,
                    int (*fn)(void *arg, const char *data, size_t len), void *arg)
{
	int r = 0;

	for (size_t i = 0; i < len && r == 0; i++) {
		char c = bytes[i];

		if (c == '\n' && sse->last_was_cr)
			sse->last_was_cr = 0;
		else if (c == '\n' || c == '\r') {
			sse->last_was_cr = c == '\r';
			r = end_line(sse, fn, arg);
		} else {
			sse->last_was_cr = 0;
			r = base_buf_putc(&sse->line, c);
		}
	}
	return r;
}
