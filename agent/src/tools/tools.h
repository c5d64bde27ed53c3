/* The assistant's read-only tools: one table, each row a name, its words for the model, a JSON schema and a function.
 *
 * A row is offered alike by `ocai mcp serve` and by the assistant's own loop. Tools change nothing, run no program and
 * bound their output; arguments come from a model and are checked as outside bytes. To add tools, add rows to
 * tools.c. */
#ifndef AGENT_TOOLS_H
#define AGENT_TOOLS_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

enum { AG_TOOLS_MAX_OUTPUT = 64 << 10 }; /* bytes of text a tool may return */

struct ag_tools_context {
	const char *kb_path;                 /* database of kb_search; NULL: the user's */
	const char *root;                    /* prefix of what the system tools read, for tests; NULL: this machine */
	bool chinese;                        /* language of words around the facts */
	const volatile sig_atomic_t *cancel; /* or NULL */
};

struct ag_tool {
	const char *name;
	const char *title;
	const char *description_en, *description_zh;
	const char *schema; /* JSON schema of the arguments, an object */
	/* Appends plain text to out. A negative errno with words is the tool's own failure, told to the model. */
	int (*run)(const struct ag_tools_context *context, const json_t *args, struct base_buf *out, struct err *err);
};

size_t ag_tools_count(void);
const struct ag_tool *ag_tools_at(size_t i);
const struct ag_tool *ag_tools_find(const char *name); /* NULL when there is none */

/* Finds, checks the arguments against the schema (required, types, unknown names) and runs. -ENOENT: no such tool;
 * -EINVAL: bad arguments. out should have the ceiling AG_TOOLS_MAX_OUTPUT; text beyond is cut with a remark. */
int ag_tools_run(const struct ag_tools_context *context, const char *name, const json_t *args, struct base_buf *out,
                 struct err *err);

/* Files that are never shown or indexed: password hashes, private keys, credentials. `path` is absolute and resolved.
 */
bool ag_tools_is_secret_path(const char *path);
/* The bytes hold a private key. */
bool ag_tools_is_secret_text(const char *data, size_t len);

#endif
