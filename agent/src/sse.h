/* Server-sent events, taken apart as the bytes arrive (WHATWG HTML, section 9.2.6).
 *
 * Only what a streamed answer needs: the data of each event; names, ids and retry times are skipped. */
#ifndef AGENT_SSE_H
#define AGENT_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* One event's data, NUL-terminated, its lines joined by newlines. Non-zero stops the parser. */
typedef int (*ag_sse_fn)(void *arg, const char *data, size_t len);

struct ag_sse {
	struct base_buf line, data;
	bool has_data;     /* a data field came since the last event */
	bool skip_newline; /* the line ended with a carriage return: a newline now belongs to it */
	bool past_first;   /* a byte order mark is dropped before */
	size_t n_events;
};

void ag_sse_init(struct ag_sse *s, size_t max_event_bytes);
void ag_sse_done(struct ag_sse *s);
/* 0; what on_event returned when that was not 0; -EFBIG for an event beyond the ceiling; -ENOMEM. */
int ag_sse_feed(struct ag_sse *s, const char *bytes, size_t n, ag_sse_fn on_event, void *arg);

#endif
