/* The client: the handshake, requests and their answers, over either transport.
 *
 * While an answer is awaited, the server may ask too: ping is answered, anything else refused (no capability was
 * offered); its notices and answers to what nobody asked are passed over. A request that times out or is cancelled is
 * taken back with notifications/cancelled, so that the server can stop working on it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/json.h"
#include "mcp/mcp_internal.h"

enum { MAX_PAGES = 64, CANCEL_GRACE_MS = 500 };

struct ag_mcp_client {
	struct ag_mcp_transport *transport;
	const struct ag_mcp_config *config;
	const char *revision;
	json_int_t last_id;
};

static int send_json(struct ag_mcp_client *c, json_t *message, int64_t deadline, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(AG_MCP_MAX_MESSAGE);
	int r = message ? base_json_append(&out, message) : -ENOMEM;

	json_decref(message);
	if (r < 0)
		return err_set(err, r, "%s: the request is too long or not valid text", c->config->name);
	return c->transport->send(c->transport, base_buf_text(&out), out.len, deadline, err);
}

json_t *ag_mcp_answer_to(const json_t *m)
{
	const json_t *id = json_object_get(m, "id");
	const char *method = json_string_value(json_object_get(m, "method"));

	if (!method || !id)
		return NULL;
	if (strcmp(method, "ping") == 0)
		return json_pack("{s:s, s:O, s:{}}", "jsonrpc", "2.0", "id", id, "result");
	return json_pack("{s:s, s:O, s:{s:i, s:s}}", "jsonrpc", "2.0", "id", id, "error", "code", -32601, "message",
	                 "not offered by this client");
}

/* 1 when m is the answer to id: *ret_result is set, or the error's words are. */
static int take_answer(struct ag_mcp_client *c, const json_t *m, json_int_t id, json_t **ret_result, struct err *err)
{
	const json_t *got = json_object_get(m, "id"), *error = json_object_get(m, "error");
	const char *words = json_string_value(json_object_get(error, "message"));
	json_t *result = json_object_get(m, "result");

	if (!json_is_integer(got) || json_integer_value(got) != id || json_object_get(m, "method"))
		return 0;
	if (error)
		return err_set(err, -EREMOTEIO, "%s: %s", c->config->name,
		               words ? words : "the server answered with an error");
	if (!json_is_object(result))
		return err_set(err, -EBADMSG, "%s: the answer has neither result nor error", c->config->name);
	*ret_result = json_incref(result);
	return 1;
}

static int look_at(struct ag_mcp_client *c, const json_t *m, json_int_t id, int64_t deadline, json_t **ret_result,
                   struct err *err)
{
	const json_t *one;
	size_t i;
	int r = 0;

	if (json_is_array(m)) { /* a batch */
		json_array_foreach(m, i, one)
		{
			if (r == 0 && json_is_object(one))
				r = look_at(c, one, id, deadline, ret_result, err);
		}
		return r;
	}
	if (!json_is_object(m))
		return err_set(err, -EBADMSG, "%s: not a JSON-RPC message", c->config->name);
	r = take_answer(c, m, id, ret_result, err);
	if (r == 0 && json_is_string(json_object_get(m, "method")) && json_object_get(m, "id"))
		r = send_json(c, ag_mcp_answer_to(m), deadline, err);
	return r;
}

static void take_back(struct ag_mcp_client *c, json_int_t id, const char *why)
{
	(void)send_json(c,
	                json_pack("{s:s, s:s, s:{s:I, s:s}}", "jsonrpc", "2.0", "method", "notifications/cancelled",
	                          "params", "requestId", id, "reason", why),
	                base_now_ms() + CANCEL_GRACE_MS, NULL);
}

/* params is taken. */
static int request(struct ag_mcp_client *c, const char *method, json_t *params, json_t **ret_result, struct err *err)
{
	int64_t deadline = base_now_ms() + c->config->timeout_ms;
	json_int_t id = ++c->last_id;
	int r;

	if (!params)
		return err_set(err, -ENOMEM, "%s: the request is not valid text", c->config->name);
	r = send_json(c,
	              json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id", id, "method", method, "params", params),
	              deadline, err);
	while (r == 0) {
		json_t *m = NULL;

		r = c->transport->receive(c->transport, deadline, &m, err);
		if (r == 0)
			r = look_at(c, m, id, deadline, ret_result, err);
		json_decref(m);
	}
	/* initialize must not be taken back, says the protocol */
	if ((r == -ETIMEDOUT || r == -ECANCELED) && strcmp(method, "initialize") != 0)
		take_back(c, id, r == -ETIMEDOUT ? "timeout" : "cancelled by the user");
	if (r == -ETIMEDOUT)
		return err_set(err, r, "%s: no answer to %s within %u seconds", c->config->name, method,
		               (unsigned)(c->config->timeout_ms + 999) / 1000);
	if (r == -ECANCELED)
		return err_set(err, r, "%s: cancelled", c->config->name);
	return r < 0 ? r : 0;
}

static int shake_hands(struct ag_mcp_client *c, struct err *err)
{
	json_t *result = NULL;
	const char *revision;
	int r = request(c, "initialize",
	                json_pack("{s:s, s:{}, s:{s:s, s:s}}", "protocolVersion", "2025-06-18", "capabilities",
	                          "clientInfo", "name", "ocai", "version", OCAI_VERSION),
	                &result, err);

	if (r < 0)
		return r;
	revision = json_string_value(json_object_get(result, "protocolVersion"));
	c->revision = ag_mcp_known_revision(revision);
	if (!c->revision)
		r = err_set(err, -EPROTO, "%s: speaks protocol revision %.40s, which is not known here",
		            c->config->name, revision ? revision : "(none)");
	json_decref(result);
	if (r < 0)
		return r;
	if (c->transport->agreed)
		c->transport->agreed(c->transport, c->revision);
	return send_json(c, json_pack("{s:s, s:s}", "jsonrpc", "2.0", "method", "notifications/initialized"),
	                 base_now_ms() + c->config->timeout_ms, err);
}

int ag_mcp_client_open(const struct ag_mcp_config *config, const volatile sig_atomic_t *cancel,
                       struct ag_mcp_client **ret_client, struct err *err)
{
	struct ag_mcp_client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->config = config;
	r = config->argv ? ag_mcp_stdio_open(config, cancel, &c->transport, err)
	                 : ag_mcp_http_open(config, cancel, &c->transport, err);
	if (r == 0)
		r = shake_hands(c, err);
	if (r < 0) {
		ag_mcp_client_close(c);
		return r;
	}
	*ret_client = c;
	return 0;
}

void ag_mcp_client_close(struct ag_mcp_client *client)
{
	if (!client)
		return;
	if (client->transport)
		client->transport->close(client->transport);
	free(client);
}

const char *ag_mcp_client_revision(const struct ag_mcp_client *client)
{
	return client->revision;
}

int ag_mcp_client_list(struct ag_mcp_client *client, json_t **ret_tools, struct err *err)
{
	json_t *tools = json_array(), *page = NULL;
	int r = tools ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (int i = 0; r == 0; i++) {
		json_t *cursor = json_object_get(page, "nextCursor"), *params = json_object(), *list;
		bool more = i == 0 || json_is_string(cursor);

		if (more && json_is_string(cursor))
			(void)json_object_set(params, "cursor", cursor);
		json_decref(page);
		page = NULL;
		if (!more) {
			json_decref(params);
			break;
		}
		if (i == MAX_PAGES) {
			json_decref(params);
			r = err_set(err, -EFBIG, "%s: tools/list has more than %d pages", client->config->name,
			            MAX_PAGES);
			break;
		}
		r = request(client, "tools/list", params, &page, err);
		if (r < 0)
			break;
		list = json_object_get(page, "tools");
		if (!json_is_array(list))
			r = err_set(err, -EBADMSG, "%s: tools/list: no array of tools", client->config->name);
		else
			r = json_array_extend(tools, list) < 0 ? err_set(err, -ENOMEM, "out of memory") : 0;
	}
	json_decref(page);
	if (r < 0) {
		json_decref(tools);
		return r;
	}
	*ret_tools = tools;
	return 0;
}

int ag_mcp_client_call(struct ag_mcp_client *client, const char *tool, const json_t *args, json_t **ret_result,
                       struct err *err)
{
	json_t *params = json_pack("{s:s}", "name", tool);

	if (params)
		(void)json_object_set_new(params, "arguments", args ? json_incref((json_t *)args) : json_object());
	return request(client, "tools/call", params, ret_result, err);
}

int ag_mcp_result_text(const json_t *result, struct base_buf *out)
{
	const json_t *part;
	size_t i;

	json_array_foreach(json_object_get(result, "content"), i, part)
	{
		const json_t *text = json_object_get(part, "text");
		const char *type = json_string_value(json_object_get(part, "type"));

		if (json_is_string(text))
			(void)base_buf_append(out, json_string_value(text), json_string_length(text));
		else
			(void)base_buf_printf(out, "[%s]", type ? type : "part without a type");
		if (out->len && out->data[out->len - 1] != '\n')
			(void)base_buf_putc(out, '\n');
	}
	return base_buf_error(out);
}
