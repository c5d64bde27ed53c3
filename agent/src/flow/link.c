/* The way to a model: which profile, whether it may be remote, and what is sent there.
 *
 * Order of choice: --url, --profile, the assistant's profile, [backend] profile, [backend] url, this user's engine. A
 * host that is not loopback is asked only when the configuration says allow-remote for it, and secrets are masked in
 * everything that goes there. A key is sent only to the address that it was configured with. */
#include "flow/flow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

enum { URL_BYTES = 8192, MASKED_BYTES = 4 << 20, DEFAULT_CONTEXT = 4096 };

static const char *nonempty(const char *s)
{
	return s && *s ? s : NULL;
}

static const struct ag_profile *find_profile(const struct ag_settings *s, const char *name)
{
	for (size_t i = 0; i < s->n_profiles; i++) {
		if (strcmp(s->profiles[i].name, name) == 0)
			return &s->profiles[i];
	}
	return NULL;
}

/* What the settings choose for this assistant, as one profile; url NULL: the engine of this user. */
static int choose(const struct ag_settings *s, const struct ag_assistant *a, struct ag_profile *ret, struct err *err)
{
	const char *name = nonempty(s->opt_profile);
	const struct ag_profile *p;

	if (!name)
		name = nonempty(a->profile);
	if (!name && ag_assistant_find(a->name))
		name = nonempty(s->profile_of[ag_assistant_index(ag_assistant_find(a->name))]);
	if (!name)
		name = nonempty(s->profile);
	*ret = (struct ag_profile){ .url = nonempty(s->url),
		                    .model = nonempty(s->model),
		                    .api_key_file = nonempty(s->api_key_file),
		                    .allow_remote = s->allow_remote,
		                    .has_tools = true,
		                    .context_tokens = s->context_tokens };
	if (name) {
		p = find_profile(s, name);
		if (!p)
			return err_set(err, -ENOENT, "there is no [profile %s] in the configuration", name);
		*ret = *p;
		ret->url = nonempty(p->url);
		ret->model = nonempty(p->model);
		ret->api_key_file = nonempty(p->api_key_file);
	}
	if (nonempty(s->opt_url)) {
		if (!ret->url || strcmp(ret->url, s->opt_url) != 0)
			ret->api_key_file = ret->url ? NULL : ret->api_key_file;
		ret->url = s->opt_url;
		ret->allow_remote = ret->allow_remote || s->allow_remote;
	}
	if (nonempty(s->opt_model))
		ret->model = s->opt_model;
	return 0;
}

static int open_url(struct ag_link *link, const struct ag_profile *p, struct err *err)
{
	const struct ag_settings *s = link->settings;

	if (ag_url_remote_host(p->url, link->host, sizeof(link->host)) && !p->allow_remote)
		return err_set(err, -EPERM,
		               "%s is not this machine, and nothing leaves it unless the configuration says "
		               "'allow-remote = true' in [%s]",
		               link->host, p->section[0] ? p->section : "backend");
	return ag_backend_open(p->url, p->api_key_file, s->timeout_s * 1000, &link->backend, err);
}

static int is_interrupted(void *arg)
{
	return ag_term_interrupt_asked();
}

static int open_engine(struct ag_link *link, struct err *err)
{
	const struct ag_settings *s = link->settings;
	CLEANUP(base_buf_done) struct base_buf url = BASE_BUF_INIT(URL_BYTES);
	const struct ag_engine_options engine = { .program = nonempty(s->engine),
		                                  .model = nonempty(s->engine_model),
		                                  .start_timeout_ms = s->start_timeout_s * 1000,
		                                  .idle_exit_s = s->idle_exit_s,
		                                  .is_canceled = is_interrupted };
	int r = ag_engine_ensure(&engine, &url, err);

	return r < 0 ? r : ag_backend_open(base_buf_text(&url), NULL, s->timeout_s * 1000, &link->backend, err);
}

static int connect_link(struct ag_link *link, bool *ret_is_engine, struct err *err)
{
	struct ag_profile p;
	uint32_t server_context;
	int r = choose(link->settings, link->assistant, &p, err);

	if (r < 0)
		return r;
	*ret_is_engine = p.url == NULL;
	r = p.url ? open_url(link, &p, err) : open_engine(link, err);
	if (r < 0)
		return r;
	ag_backend_set_cancel(link->backend, is_interrupted, NULL);
	base_buf_reset(&link->model);
	if (p.model)
		r = base_buf_puts(&link->model, p.model);
	else
		r = ag_backend_model(link->backend, &link->model, err);
	link->no_tools = !p.has_tools || !link->settings->tools_enabled;
	server_context = ag_backend_context_tokens(link->backend);
	link->context_tokens = p.context_tokens ? p.context_tokens : server_context ? server_context : DEFAULT_CONTEXT;
	return r;
}

int ag_link_open(const struct ag_settings *s, const struct ag_assistant *a, struct ag_link *ret_link, struct err *err)
{
	struct ag_link link = { .settings = s, .assistant = a, .model = BASE_BUF_INIT(URL_BYTES) };
	bool is_engine = false;
	int r = connect_link(&link, &is_engine, err);

	/* Our engine may have ended itself, idle, just before the question. */
	if (r == -ECONNREFUSED && is_engine) {
		ag_backend_close(link.backend);
		link.backend = NULL;
		r = connect_link(&link, &is_engine, err);
	}
	if (r < 0) {
		ag_link_close(&link);
		return r;
	}
	*ret_link = link;
	return 0;
}

void ag_link_close(struct ag_link *link)
{
	ag_backend_close(link->backend);
	base_buf_done(&link->model);
	link->backend = NULL;
}

/* ---- Streaming ----------------------------------------------------------------------------------------------- */

/* Identifiers, roles and names: masked, they would no longer say what they are. */
static bool is_plain_key(const char *key)
{
	static const char *const plain[] = { "role", "type", "id", "tool_call_id", "name" };

	for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++) {
		if (strcmp(key, plain[i]) == 0)
			return true;
	}
	return false;
}

/* A copy with the secrets of every string masked, however deep; the caller's, or NULL. */
static json_t *masked_value(const json_t *value)
{
	CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MASKED_BYTES);
	json_t *copy, *one;
	const char *key;
	size_t i;
	int r = 0;

	if (json_is_string(value))
		return ag_gate_mask(json_string_value(value), json_string_length(value), &text) < 0
		               ? NULL
		               : json_stringn(base_buf_text(&text), text.len);
	if (!json_is_array(value) && !json_is_object(value))
		return json_deep_copy(value);
	copy = json_is_array(value) ? json_array() : json_object();
	json_array_foreach(value, i, one) r |= json_array_append_new(copy, masked_value(one));
	json_object_foreach((json_t *)value, key, one) r |=
	        json_object_set_new(copy, key, is_plain_key(key) ? json_incref(one) : masked_value(one));
	if (r == 0)
		return copy;
	json_decref(copy);
	return NULL;
}

/* Drops a leading <think>...</think>; what might become one is held back until it is known. */
struct unthink {
	ag_text_fn on_text;
	void *arg;
	char held[16];
	size_t n_held;
	enum { START, THINKING, TEXT } state;
};

static int unthink_byte(struct unthink *u, char c)
{
	static const char open[] = "<think>", close[] = "</think>";
	const char *want = u->state == START ? open : close;
	int r = 0;

	if (u->state == START && u->n_held == 0 && strchr(" \n\r\t", c))
		return 0; /* blanks before the answer */
	u->held[u->n_held++] = c;
	if (memcmp(u->held, want, u->n_held) == 0) {
		if (want[u->n_held] == '\0') {
			u->state = u->state == START ? THINKING : START;
			u->n_held = 0;
		}
		return 0;
	}
	if (u->state == START) {
		u->state = TEXT;
		r = u->on_text(u->arg, u->held, u->n_held);
		u->n_held = 0;
	} else { /* a '<' may begin anew */
		u->held[0] = c;
		u->n_held = c == '<';
	}
	return r;
}

static int unthink_text(void *arg, const char *text, size_t len)
{
	struct unthink *u = arg;
	int r = 0;

	for (size_t i = 0; i < len && r == 0; i++) {
		if (u->state == TEXT)
			return u->on_text(u->arg, text + i, len - i);
		/* Characters stay whole: what is not ASCII begins the text. */
		if (u->state == START && (unsigned char)text[i] >= 0x80) {
			u->state = TEXT;
			if (u->n_held)
				r = u->on_text(u->arg, u->held, u->n_held);
			u->n_held = 0;
			i--;
			continue;
		}
		r = unthink_byte(u, text[i]);
	}
	return r;
}

struct heard { /* whether anything was said */
	ag_text_fn on_text;
	void *arg;
	bool any;
};

static int heard_text(void *arg, const char *text, size_t len)
{
	struct heard *h = arg;

	h->any = true;
	return h->on_text(h->arg, text, len);
}

/* One request; what might have been the beginning of a thought is handed over at its end. */
static int converse(struct ag_link *link, const struct ag_turn *turn, struct heard *h, json_t **ret_calls,
                    struct err *err)
{
	struct unthink u = { .on_text = heard_text, .arg = h };
	const struct ag_backend_request q = { .model = base_buf_text(&link->model),
		                              .messages = turn->messages,
		                              .tools = link->no_tools ? NULL : turn->tools,
		                              .no_calls = turn->no_calls,
		                              .max_tokens = turn->max_tokens };
	int r = ag_backend_converse(link->backend, &q, unthink_text, &u, ret_calls, err);

	if (u.state == START && u.n_held)
		(void)heard_text(h, u.held, u.n_held);
	return r;
}

/* A refusal (status 4xx or 5xx) whose words are about tools. */
static bool refuses_tools(int r, const struct err *err)
{
	const char *words = err_text(err);

	return r == -EIO && strstr(words, "answered with status") &&
	       (strcasestr(words, "tool") || strcasestr(words, "function"));
}

static int converse_stubbornly(struct ag_link *link, const struct ag_turn *turn, struct heard *h, json_t **ret_calls,
                               struct err *err)
{
	struct err words = { 0 };
	bool is_engine = false;
	int r = converse(link, turn, h, ret_calls, &words);

	/* Our engine may have ended itself, idle. */
	if (r == -ECONNREFUSED && link->host[0] == '\0') {
		ag_backend_close(link->backend);
		link->backend = NULL;
		memset(&words, 0, sizeof(words));
		r = connect_link(link, &is_engine, &words);
		if (r == 0)
			r = converse(link, turn, h, ret_calls, &words);
	}
	if (turn->tools && !link->no_tools && !h->any && refuses_tools(r, &words)) {
		link->no_tools = true;
		memset(&words, 0, sizeof(words));
		r = converse(link, turn, h, ret_calls, &words);
	}
	return r < 0 ? err_set(err, r, "%s", err_text(&words)) : r;
}

int ag_link_converse(struct ag_link *link, const struct ag_turn *turn, ag_text_fn on_text, void *arg,
                     json_t **ret_calls, struct err *err)
{
	struct heard h = { .on_text = on_text, .arg = arg };
	struct ag_turn sent = *turn;
	json_t *messages = NULL, *tools = NULL;
	int r;

	*ret_calls = NULL;
	if (link->host[0]) {
		messages = masked_value(turn->messages);
		tools = turn->tools ? masked_value(turn->tools) : NULL;
		if (!messages || (turn->tools && !tools)) {
			json_decref(messages);
			json_decref(tools);
			return err_set(err, -ENOMEM, "the message cannot be masked, so it was not sent");
		}
		sent.messages = messages;
		sent.tools = tools;
	}
	r = converse_stubbornly(link, &sent, &h, ret_calls, err);
	json_decref(messages);
	json_decref(tools);
	return r;
}

int ag_link_stream(struct ag_link *link, const json_t *messages, uint32_t max_tokens, ag_text_fn on_text, void *arg,
                   struct err *err)
{
	const struct ag_turn turn = { .messages = messages, .max_tokens = max_tokens };
	json_t *calls = NULL;
	int r = ag_link_converse(link, &turn, on_text, arg, &calls, err);

	json_decref(calls);
	return r;
}
