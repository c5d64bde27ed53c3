/* What the files of MCP share. */
#ifndef AGENT_MCP_INTERNAL_H
#define AGENT_MCP_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "mcp/mcp.h"

/* The revision's own string, or NULL when it is not one of the three. */
const char *ag_mcp_known_revision(const char *wanted);

/* What is said to a request of the server's own: ping is answered, the rest refused. NULL when m is none. */
json_t *ag_mcp_answer_to(const json_t *m);

/* Bytes that arrive in pieces, taken out in lines. */
struct ag_mcp_lines {
	struct base_buf buf;
	size_t pos;  /* taken so far */
	size_t seen; /* searched for a newline so far */
};
void ag_mcp_lines_init(struct ag_mcp_lines *lines);
void ag_mcp_lines_done(struct ag_mcp_lines *lines);
int ag_mcp_lines_add(struct ag_mcp_lines *lines, const char *data, size_t len); /* -EFBIG, -ENOMEM */
/* The next whole line, without its newline; borrowed until the next call. */
bool ag_mcp_lines_next(struct ag_mcp_lines *lines, const char **ret_line, size_t *ret_len);

/* How messages travel. send: one message without newline. receive: waits until deadline_ms (monotonic) for the next
 * one. For HTTP the answer belongs to the request: send keeps what came for receive. */
struct ag_mcp_transport {
	int (*send)(struct ag_mcp_transport *t, const char *data, size_t len, int64_t deadline_ms, struct err *err);
	int (*receive)(struct ag_mcp_transport *t, int64_t deadline_ms, json_t **ret_message, struct err *err);
	void (*agreed)(struct ag_mcp_transport *t, const char *revision); /* optional */
	void (*close)(struct ag_mcp_transport *t);
};
int ag_mcp_stdio_open(const struct ag_mcp_config *config, const volatile sig_atomic_t *cancel,
                      struct ag_mcp_transport **ret_transport, struct err *err);
int ag_mcp_http_open(const struct ag_mcp_config *config, const volatile sig_atomic_t *cancel,
                     struct ag_mcp_transport **ret_transport, struct err *err);

#endif
