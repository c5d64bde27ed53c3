/* The way to a model: which profile, whether it may be remote, and what is sent there.
 *
 * Order of choice: --url, --profile, the assistant's profile, [backend] profile, [backend] url, this user's engine. A
 * host that is not loopback is asked only when the configuration says allow-remote for it, and secrets are masked in
 * everything that goes there. A key is sent only to the address that it was configured with. */
#include "flow/flow.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

enum { URL_BYTES = 8192, MASKED_BYTES = 4 << 20, DEFAULT_CONTEXT = 4096 };

static const char *nonempty(const char *s)
{
	return s && *s ? s : NULL;
}

int ag_url_remote_host(const char *url, char *host, size_t size)
{
	const char *p = strstr(url, "://"), *end, *at;
	struct in_addr v4;
	size_t n;

	host[0] = '\0';
	if (strncmp(url, "unix:", 5) == 0 || !p)
		return 0;
	p += 3;
	n = strcspn(p, "/?#\\");
	at = memrchr(p, '@', n); /* what stands before it is a name and a password */
	if (at) {
		n -= (size_t)(at + 1 - p);
		p = at + 1;
	}
	end = *p == '[' ? memchr(p, ']', n) : memchr(p, ':', n);
	if (end)
		n = (size_t)(end - p) + (*p == '[');
	(void)snprintf(host, size, "%.*s", (int)(n < size ? n : size - 1), p);
	if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
	    (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127)) {
		host[0] = '\0';
		return 0;
	}
	return 1;
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
		name = nonempty(s->profile_of[ag_assistant_index(a)]);
	if (!name)
		name = nonempty(s->profile);
	*ret = (struct ag_profile){ .url = nonempty(s->url),
		                    .model = nonempty(s->model),
		                    .api_key_file = nonempty(s->api_key_file),
		                    .allow_remote = s->allow_remote,
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

static int open_engine(struct ag_link *link, struct err *err)
{
	const struct ag_settings *s = link->settings;
	CLEANUP(base_buf_done) struct base_buf url = BASE_BUF_INIT(URL_BYTES);
	const struct ag_engine_options engine = { .program = nonempty(s->engine),
		                                  .model = nonempty(s->engine_model),
		                                  .start_timeout_ms = s->start_timeout_s * 1000,
		                                  .idle_exit_s = s->idle_exit_s };
	int r = ag_engine_ensure(&engine, &url, err);

	return r < 0 ? r : ag_backend_open(base_buf_text(&url), NULL, s->timeout_s * 1000, &link->backend, err);
}

static int is_interrupted(void *arg)
{
	return ag_term_interrupt_asked();
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

/* A copy with secrets masked: the caller's. */
static json_t *masked_copy(const json_t *messages, struct err *err)
{
	json_t *copy = json_deep_copy(messages), *message;
	size_t i;

	json_array_foreach(copy, i, message)
	{
		CLEANUP(base_buf_done) struct base_buf text = BASE_BUF_INIT(MASKED_BYTES);
		const json_t *content = json_object_get(message, "content");

		if (ag_gate_mask(json_string_value(content), json_string_length(content), &text) < 0 ||
		    json_object_set_new(message, "content", json_stringn(base_buf_text(&text), text.len)) < 0) {
			json_decref(copy);
			(void)err_set(err, -ENOMEM, "the message cannot be masked, so it was not sent");
			return NULL;
		}
	}
	return copy;
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

int ag_link_stream(struct ag_link *link, const json_t *messages, uint32_t max_tokens, ag_text_fn on_text, void *arg,
                   struct err *err)
{
	struct unthink u = { .on_text = on_text, .arg = arg };
	json_t *masked = NULL;
	int r;

	if (link->host[0]) {
		masked = masked_copy(messages, err);
		if (!masked)
			return -ENOMEM;
		messages = masked;
	}
	r = ag_backend_stream(link->backend, base_buf_text(&link->model), messages, max_tokens, unthink_text, &u, err);
	if (r == -ECONNREFUSED && link->host[0] == '\0') {
		bool is_engine = false;

		ag_backend_close(link->backend);
		link->backend = NULL;
		r = connect_link(link, &is_engine, err);
		if (r == 0)
			r = ag_backend_stream(link->backend, base_buf_text(&link->model), messages, max_tokens,
			                      unthink_text, &u, err);
	}
	if (u.state == START && u.n_held)
		(void)on_text(arg, u.held, u.n_held);
	json_decref(masked);
	return r;
}
