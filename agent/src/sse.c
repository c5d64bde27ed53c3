/* Server-sent events: lines end in CR, LF or CRLF; "data: text" lines gather until an empty line ends the event.
 * An event that no empty line ended is not one: it was cut off. */
#include "sse.h"

#include <errno.h>
#include <string.h>

void ag_sse_init(struct ag_sse *s, size_t max_event_bytes)
{
	*s = (struct ag_sse){ .line = BASE_BUF_INIT(max_event_bytes), .data = BASE_BUF_INIT(max_event_bytes) };
}

void ag_sse_done(struct ag_sse *s)
{
	base_buf_done(&s->line);
	base_buf_done(&s->data);
}

/* One whole line: gathers data, or hands the event over. */
static int take_line(struct ag_sse *s, ag_sse_fn on_event, void *arg)
{
	const char *line = base_buf_text(&s->line), *value;
	size_t len = s->line.len;
	int r = 0;

	if (!s->past_first && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
		line += 3;
		len -= 3;
	}
	s->past_first = true;
	if (len == 0) {
		if (s->has_data) {
			s->n_events++;
			r = on_event(arg, base_buf_text(&s->data), s->data.len);
		}
		base_buf_reset(&s->data);
		s->has_data = false;
		return r;
	}
	if (len < 4 || memcmp(line, "data", 4) != 0 || (len > 4 && line[4] != ':'))
		return 0; /* a comment, or another field */
	value = line + 4 + (len > 4);
	len -= 4 + (len > 4);
	if (len && *value == ' ') {
		value++;
		len--;
	}
	if (s->has_data)
		(void)base_buf_putc(&s->data, '\n');
	s->has_data = true;
	(void)base_buf_append(&s->data, value, len);
	return base_buf_error(&s->data);
}

int ag_sse_feed(struct ag_sse *s, const char *bytes, size_t n, ag_sse_fn on_event, void *arg)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		size_t begin = i;

		if (s->skip_newline && bytes[i] == '\n') {
			s->skip_newline = false;
			continue;
		}
		s->skip_newline = false;
		while (i < n && bytes[i] != '\n' && bytes[i] != '\r')
			i++;
		r = base_buf_append(&s->line, bytes + begin, i - begin);
		if (r < 0 || i == n)
			break;
		s->skip_newline = bytes[i] == '\r';
		r = take_line(s, on_event, arg);
		base_buf_reset(&s->line);
	}
	return r;
}
