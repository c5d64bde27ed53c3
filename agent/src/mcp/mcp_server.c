/* The server: JSON-RPC 2.0 in, answers out.
 *
 * The revision agreed on is the client's when it is known here, the newest otherwise. Batches (arrays) belong to the
 * two older revisions. Before initialize only ping is answered. A tool's own failure is a result with isError, so that
 * the model may read it; a call that cannot be made at all is a JSON-RPC error. Tools are quick and run one after the
 * other: a notice of cancellation can only come too late and is ignored, as the protocol allows. */
#include "mcp/mcp.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "mcp/mcp_internal.h"

enum { PARSE_ERROR = -32700, INVALID_REQUEST = -32600, NO_METHOD = -32601, INVALID_PARAMS = -32602, INTERNAL = -32603 };
enum { MAX_BATCH = 100 };

static const char *const revisions[] = { "2025-06-18", "2025-03-26", "2024-11-05", NULL };

struct ag_mcp_server {
	const struct ag_tools_context *context;
	const char *revision; /* NULL: not yet initialized */
};

const char *ag_mcp_known_revision(const char *wanted)
{
	for (size_t i = 0; wanted && revisions[i]; i++) {
		if (strcmp(revisions[i], wanted) == 0)
			return revisions[i];
	}
	return NULL;
}

int ag_mcp_server_new(const struct ag_tools_context *context, struct ag_mcp_server **ret_server)
{
	struct ag_mcp_server *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->context = context;
	*ret_server = s;
	return 0;
}

void ag_mcp_server_free(struct ag_mcp_server *server)
{
	free(server);
}

static json_t *error_object(int code, const char *words)
{
	return json_pack("{s:i, s:s%}", "code", code, "message", words, strlen(words));
}

/* Takes result or error (either may be NULL on lack of memory). */
static json_t *answer(const json_t *id, json_t *result, json_t *error)
{
	json_t *a = json_pack("{s:s, s:O}", "jsonrpc", "2.0", "id", id);

	if (!a || !(result || error) ||
	    json_object_set_new(a, result ? "result" : "error", result ? result : error) < 0) {
		json_decref(a);
		return NULL;
	}
	return a;
}

static json_t *failure(const json_t *id, int code, const char *words)
{
	json_t *null = json_null();

	return answer(id ? id : null, NULL, error_object(code, words));
}

static json_t *on_initialize(struct ag_mcp_server *s, const json_t *id, const json_t *params)
{
	const char *wanted = json_string_value(json_object_get(params, "protocolVersion"));
	json_t *info;

	if (!wanted)
		return failure(id, INVALID_PARAMS, "initialize: protocolVersion is missing");
	s->revision = ag_mcp_known_revision(wanted);
	if (!s->revision)
		s->revision = revisions[0];
	info = json_pack("{s:s, s:{s:{s:b}}, s:{s:s, s:s}, s:s}", "protocolVersion", s->revision, "capabilities",
	                 "tools", "listChanged", 0, "serverInfo", "name", "ocai", "version", OCAI_VERSION,
	                 "instructions",
	                 s->context->chinese ? "这些工具只读取本机的信息，不作任何修改。"
	                                     : "These tools read facts of this machine and change nothing.");
	return answer(id, info, NULL);
}

static json_t *tool_json(const struct ag_mcp_server *s, const struct ag_tool *t)
{
	json_t *schema = json_loads(t->schema, 0, NULL);
	json_t *tool = json_pack("{s:s, s:s, s:o}", "name", t->name, "description",
	                         s->context->chinese ? t->description_zh : t->description_en, "inputSchema", schema);
	bool newest = strcmp(s->revision, "2025-06-18") == 0;

	if (tool && newest)
		(void)json_object_set_new(tool, "title", json_string(t->title));
	if (tool && strcmp(s->revision, "2024-11-05") != 0)
		(void)json_object_set_new(tool, "annotations",
		                          json_pack("{s:s, s:b, s:b, s:b}", "title", t->title, "readOnlyHint", 1,
		                                    "destructiveHint", 0, "openWorldHint", 0));
	return tool;
}

static json_t *on_list(const struct ag_mcp_server *s, const json_t *id, const json_t *params)
{
	json_t *tools;

	/* All fit on one page: no cursor was ever given out. */
	if (json_object_get(params, "cursor") && !json_is_null(json_object_get(params, "cursor")))
		return failure(id, INVALID_PARAMS, "tools/list: unknown cursor");
	tools = json_array();
	for (size_t i = 0; tools && i < ag_tools_count(); i++)
		(void)json_array_append_new(tools, tool_json(s, ag_tools_at(i)));
	return answer(id, json_pack("{s:o}", "tools", tools), NULL);
}

/* Text as a JSON string, whatever bytes a tool met. */
static json_t *text_json(const char *text, size_t len)
{
	CLEANUP(base_buf_done) struct base_buf quoted = BASE_BUF_INIT(8 * AG_TOOLS_MAX_OUTPUT + 64);

	if (base_json_append_string(&quoted, text, len) < 0)
		return NULL;
	return json_loadb(quoted.data, quoted.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

static json_t *on_call(const struct ag_mcp_server *s, const json_t *id, const json_t *params)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(AG_TOOLS_MAX_OUTPUT);
	const char *name = json_string_value(json_object_get(params, "name"));
	const json_t *args = json_object_get(params, "arguments");
	struct err err = { 0 };
	int r;

	if (!name)
		return failure(id, INVALID_PARAMS, "tools/call: name is missing");
	if (args && !json_is_object(args) && !json_is_null(args))
		return failure(id, INVALID_PARAMS, "tools/call: arguments is not an object");
	if (!ag_tools_find(name)) {
		(void)err_set(&err, -ENOENT, "tools/call: unknown tool '%s'", name);
		return failure(id, INVALID_PARAMS, err_text(&err));
	}
	r = ag_tools_run(s->context, name, json_is_object(args) ? args : NULL, &out, &err);
	if (r < 0) {
		base_buf_reset(&out);
		(void)base_buf_puts(&out, err_text(&err));
	}
	return answer(id,
	              json_pack("{s:[{s:s, s:o}], s:b}", "content", "type", "text", "text",
	                        text_json(base_buf_text(&out), out.len), "isError", r < 0),
	              NULL);
}

static json_t *on_request(struct ag_mcp_server *s, const char *method, const json_t *id, const json_t *params)
{
	if (strcmp(method, "ping") == 0)
		return answer(id, json_object(), NULL);
	if (strcmp(method, "initialize") == 0)
		return on_initialize(s, id, params);
	if (!s->revision)
		return failure(id, INVALID_REQUEST, "the connection is not initialized");
	if (strcmp(method, "tools/list") == 0)
		return on_list(s, id, params);
	if (strcmp(method, "tools/call") == 0)
		return on_call(s, id, params);
	return failure(id, NO_METHOD, "there is no such method here");
}

/* One message: *ret_answer is NULL when none is due. */
static int on_message(struct ag_mcp_server *s, const json_t *m, json_t **ret_answer)
{
	const json_t *id = json_object_get(m, "id"), *params = json_object_get(m, "params");
	const char *version = json_string_value(json_object_get(m, "jsonrpc"));
	const char *method = json_string_value(json_object_get(m, "method"));
	json_t *a;

	*ret_answer = NULL;
	if (json_is_object(m) && id && !json_object_get(m, "method") &&
	    (json_object_get(m, "result") || json_object_get(m, "error")))
		return 0; /* an answer: nothing was asked here */
	if (!json_is_object(m) || !version || strcmp(version, "2.0") != 0 || !method)
		a = failure(json_is_string(id) || json_is_integer(id) ? id : NULL, INVALID_REQUEST,
		            "not a JSON-RPC 2.0 message");
	else if (!id)
		return 0; /* a notification */
	else if (!json_is_string(id) && !json_is_integer(id))
		a = failure(NULL, INVALID_REQUEST, "an id is a string or an integer");
	else if (params && !json_is_object(params))
		a = failure(id, INVALID_PARAMS, "params is not an object");
	else
		a = on_request(s, method, id, params);
	*ret_answer = a;
	return a ? 0 : -ENOMEM;
}

static int on_batch(struct ag_mcp_server *s, const json_t *batch, json_t **ret_answer)
{
	json_t *answers, *m;
	size_t i;
	int r = 0;

	*ret_answer = NULL;
	if (json_array_size(batch) == 0 || json_array_size(batch) > MAX_BATCH ||
	    (s->revision && strcmp(s->revision, "2025-06-18") == 0)) {
		*ret_answer = failure(NULL, INVALID_REQUEST, "a batch is not accepted here");
		return *ret_answer ? 0 : -ENOMEM;
	}
	answers = json_array();
	json_array_foreach(batch, i, m)
	{
		json_t *a = NULL;

		if (r == 0)
			r = on_message(s, m, &a);
		if (a && json_array_append_new(answers, a) < 0)
			r = -ENOMEM;
	}
	if (r == 0 && json_array_size(answers))
		*ret_answer = json_incref(answers);
	json_decref(answers);
	return r;
}

int ag_mcp_server_handle(struct ag_mcp_server *s, const char *data, size_t len, struct base_buf *out)
{
	json_t *m = NULL, *a = NULL;
	struct err err = { 0 };
	int r;

	if (len > AG_MCP_MAX_MESSAGE)
		a = failure(NULL, INVALID_REQUEST, "the message is too long");
	else if (base_json_parse("message", data, len, &m, &err) < 0)
		a = failure(NULL, PARSE_ERROR, err_text(&err));
	r = !m ? (a ? 0 : -ENOMEM) : json_is_array(m) ? on_batch(s, m, &a) : on_message(s, m, &a);
	if (r == 0 && a) {
		r = base_json_append(out, a);
		if (r == 0)
			r = base_buf_putc(out, '\n');
	}
	json_decref(a);
	json_decref(m);
	return r;
}

/* ---- The loop ------------------------------------------------------------------------------------------- */

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			(void)poll(&p, 1, -1);
			continue;
		}
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int handle_line(struct ag_mcp_server *s, int fd, const char *line, size_t len)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(64 << 20);
	int r;

	while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	if (len == 0)
		return 0;
	r = ag_mcp_server_handle(s, line, len, &out);
	return r < 0 ? r : write_all(fd, base_buf_text(&out), out.len);
}

/* Handles the whole lines of what has arrived. */
static int handle_lines(struct ag_mcp_server *s, int fd, struct ag_mcp_lines *lines)
{
	const char *line;
	size_t len;
	int r = 0;

	while (r == 0 && ag_mcp_lines_next(lines, &line, &len))
		r = handle_line(s, fd, line, len);
	return r;
}

int ag_mcp_serve(int in, int out, const struct ag_tools_context *context, struct err *err)
{
	struct ag_mcp_server *s = NULL;
	struct ag_mcp_lines lines;
	char piece[32768];
	ssize_t n = 0;
	int r = ag_mcp_server_new(context, &s);

	ag_mcp_lines_init(&lines);
	while (r == 0 && !(context->cancel && *context->cancel)) {
		n = read(in, piece, sizeof(piece));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		r = ag_mcp_lines_add(&lines, piece, (size_t)n);
		if (r == 0)
			r = handle_lines(s, out, &lines);
	}
	if (n < 0)
		r = -errno;
	if (r == 0 && n == 0 && lines.buf.len > lines.pos) /* the last line needs no newline */
		r = handle_line(s, out, lines.buf.data + lines.pos, lines.buf.len - lines.pos);
	ag_mcp_lines_done(&lines);
	ag_mcp_server_free(s);
	if (r == -EFBIG)
		return err_set(err, r, "a message is longer than %d bytes", AG_MCP_MAX_MESSAGE);
	return r < 0 ? err_set(err, r, "%s", strerror(-r)) : 0;
}
