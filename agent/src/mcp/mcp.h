/* The Model Context Protocol, revisions 2024-11-05, 2025-03-26 and 2025-06-18: our tools offered over stdio, and the
 * tools of other servers used, over a child's stdio or HTTP (JSON and event-stream answers).
 *
 * Messages are JSON-RPC 2.0; over stdio one per line. Nothing a peer sends ends this program. */
#ifndef AGENT_MCP_H
#define AGENT_MCP_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "tools/tools.h"

enum { AG_MCP_MAX_MESSAGE = 4 << 20 }; /* bytes of one message, both ways */

/* ---- Server ------------------------------------------------------------------------------------------ */

struct ag_mcp_server; /* the state of one connection */

/* context is borrowed while the server lives. */
int ag_mcp_server_new(const struct ag_tools_context *context, struct ag_mcp_server **ret_server);
void ag_mcp_server_free(struct ag_mcp_server *server);
/* Takes one message; appends the answer's line, with its newline, or nothing when none is due. Only a lack of memory
 * is an error: whatever the bytes are, the peer is told. */
int ag_mcp_server_handle(struct ag_mcp_server *server, const char *data, size_t len, struct base_buf *out);
/* Reads lines of `in` and answers on `out` until the end of input or *cancel. */
int ag_mcp_serve(int in, int out, const struct ag_tools_context *context, struct err *err);

/* ---- Client ------------------------------------------------------------------------------------------ */

/* A server of the configuration (mcp.conf): one section for each. Either command or url. */
struct ag_mcp_config {
	char *name;
	char **argv; /* command and arguments, NULL-terminated; NULL: url */
	char **env;  /* NAME=value added to the child's environment, NULL-terminated; or NULL */
	char *url;
	char *token_file;    /* its first line is sent as a bearer token; or NULL */
	char **allow;        /* names of tools that a model may call unasked, "*" for all, NULL-terminated; or NULL */
	uint32_t timeout_ms; /* for one request; 30 s unless given */
};

struct ag_mcp_configs {
	struct ag_mcp_config *items;
	size_t n;
};

/* Adds a file's sections; a later section of the same name replaces the earlier one. A missing file is fine. */
int ag_mcp_configs_read(struct ag_mcp_configs *configs, const char *path, struct err *err);
/* /usr/lib/ocai/mcp.conf, /etc/ocai/mcp.conf, $XDG_CONFIG_HOME/ocai/mcp.conf. */
int ag_mcp_configs_load(struct ag_mcp_configs *configs, struct err *err);
const struct ag_mcp_config *ag_mcp_configs_find(const struct ag_mcp_configs *configs, const char *name);
void ag_mcp_configs_done(struct ag_mcp_configs *configs);
bool ag_mcp_config_allows(const struct ag_mcp_config *config, const char *tool);

struct ag_mcp_client; /* one connection; one thread */

/* Starts or reaches the server and shakes hands. config is borrowed while the client lives. The child's standard error
 * goes to no terminal: its end is quoted when the child fails. cancel: non-zero ends the call that waits, with
 * -ECANCELED, after telling the server; or NULL. */
int ag_mcp_client_open(const struct ag_mcp_config *config, const volatile sig_atomic_t *cancel,
                       struct ag_mcp_client **ret_client, struct err *err);
void ag_mcp_client_close(struct ag_mcp_client *client);
/* The protocol revision that was agreed on. */
const char *ag_mcp_client_revision(const struct ag_mcp_client *client);
/* All pages of tools/list: an array of tools, the caller's. */
int ag_mcp_client_list(struct ag_mcp_client *client, json_t **ret_tools, struct err *err);
/* tools/call: the result object ({"content": [...], "isError": ...}), the caller's. -ETIMEDOUT, -ECANCELED, -EFBIG,
 * -EBADMSG, -EPIPE (the server ended), -EREMOTEIO (it answered with an error; its words). */
int ag_mcp_client_call(struct ag_mcp_client *client, const char *tool, const json_t *args, json_t **ret_result,
                       struct err *err);
/* The text parts of a result, joined; other parts are named. */
int ag_mcp_result_text(const json_t *result, struct base_buf *out);

/* Decodes an event stream piece by piece: calls fn with each event's data. Bounded by AG_MCP_MAX_MESSAGE. */
struct ag_mcp_sse {
	struct base_buf line, data;
	int last_was_cr; /* a line feed after it belongs to it */
};
void ag_mcp_sse_init(struct ag_mcp_sse *sse);
void ag_mcp_sse_done(struct ag_mcp_sse *sse);
/* 0, -EFBIG, -ENOMEM, or fn's non-zero return, which ends it. */
int ag_mcp_sse_feed(struct ag_mcp_sse *sse, const char *bytes, size_t len,
                    int (*fn)(void *arg, const char *data, size_t len), void *arg);

#endif
