/* The calls of tools in a model's answer, put together from the pieces of a stream.
 *
 * Three forms are understood: "tool_calls" of a streamed delta (pieces, told apart by index), "tool_calls" of a whole
 * message, and <tool_call>{"name": ..., "arguments": ...}</tool_call> within the text, which is what several families
 * of open models write and servers without a parser pass on. Nothing here judges a name or an argument. */
#ifndef AGENT_CALLS_H
#define AGENT_CALLS_H

#include <jansson.h>
#include <stddef.h>

#include "agent.h"
#include "base/buf.h"
#include "base/err.h"

enum { AG_CALLS_MAX = 16, AG_CALLS_MAX_ARGS = 256 << 10 };

struct ag_calls {
	struct {
		json_int_t index; /* the server's, or -1 */
		struct base_buf id, name, args;
	} items[AG_CALLS_MAX];
	size_t n;
};

void ag_calls_init(struct ag_calls *c);
void ag_calls_done(struct ag_calls *c);
/* The array "tool_calls" of a delta or a message; anything else is nothing. -EFBIG beyond the limits. */
int ag_calls_add(struct ag_calls *c, const json_t *tool_calls, struct err *err);
/* As the assistant's message carries them: an array of {"id", "type", "function": {"name", "arguments"}} in the order
 * of their beginning, the caller's; *ret_calls is NULL when there is none. */
int ag_calls_take(struct ag_calls *c, json_t **ret_calls);

/* Takes <tool_call> blocks out of streamed text; the rest goes on at once, but for what may be the beginning of a mark.
 */
struct ag_call_filter {
	struct ag_calls *calls;
	ag_text_fn on_text;
	void *arg;
	struct base_buf held; /* a mark's beginning, or a block */
	bool is_inside;
	struct err *err;
};

void ag_call_filter_init(struct ag_call_filter *f, struct ag_calls *calls, ag_text_fn on_text, void *arg,
                         struct err *err);
int ag_call_filter_text(void *filter, const char *text, size_t len); /* an ag_text_fn */
int ag_call_filter_finish(struct ag_call_filter *f);                 /* a block that was not closed counts too */
void ag_call_filter_done(struct ag_call_filter *f);

#endif
