/* Chat templates: the model's own Jinja, run by a small sandboxed interpreter with step, depth, time
 * and output limits. An unsupported construct is -ENOTSUP at parse time, naming it and its line. */
#ifndef ENG_TEMPLATE_H
#define ENG_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

struct eng_template; /* parsed, immutable, shareable between threads */

/* Whitespace control as chat templates expect: trim_blocks and lstrip_blocks on,
 * keep_trailing_newline off. */
int eng_template_parse(const char *where, const char *source, size_t len, struct eng_template **ret_tmpl,
                       struct err *err);
void eng_template_free(struct eng_template *tmpl);

/* Renders with the members of `context` (an object: messages, tools, add_generation_prompt, bos_token,
 * eos_token, and whatever chat_template_kwargs brought) as globals. raise_exception() in the template
 * is -EINVAL with its message; exceeded limits are -E2BIG. strftime_now() uses local time. */
int eng_template_render(const struct eng_template *tmpl, const json_t *context, struct base_buf *out, struct err *err);

#endif
