/* An answer with tools as a scene: a scripted server that calls them, a scripted person who permits them or does not,
 * and what was shown and asked. The group's fixtures are make_dir() and own_home_remove(). */
#ifndef FLOW_SCENE_H
#define FLOW_SCENE_H

#include "fake_server.h"

#include <errno.h>

#include "base/json.h"
#include "flow/flow.h"
#include "own_home.h"

/* ---- The person ------------------------------------------------------------------------------------------------ */

struct person {
	const char *answers; /* of menus: n, y, a, c (cancel); '\0': no menu is expected */
	char asked[8192];    /* titles */
};

static inline int person_menu(void *arg, const struct ag_term_menu *m, struct err *err)
{
	struct person *p = arg;

	(void)err;
	(void)snprintf(p->asked + strlen(p->asked), sizeof(p->asked) - strlen(p->asked), "%s\n--\n", m->title);
	assert_int_equal(m->start, 0);
	assert_int_equal(m->items[0].key, 'n'); /* Enter is no */
	switch (*p->answers ? *p->answers++ : 0) {
	case 'n':
		return 0;
	case 'y':
		return 1;
	case 'a':
		assert_int_equal(m->n_items, 3);
		return 2;
	case 'c':
		return -ECANCELED;
	default:
		fail_msg("an unexpected question: %s", m->title);
		return 0;
	}
}

/* ---- The place --------------------------------------------------------------------------------------------------- */

static inline int make_dir(void **state)
{
	(void)state;
	return own_home_make("loop");
}

static inline void read_here(const char *name, struct base_buf *out)
{
	char path[256];
	FILE *f;
	int c;

	base_buf_reset(out);
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "re");
	while (f && (c = getc(f)) != EOF)
		(void)base_buf_putc(out, (char)c);
	if (f)
		(void)fclose(f);
}

struct scene {
	struct fake_server server;
	struct ag_settings s;
	struct ag_assistant assistant;
	struct person person;
	struct ag_ui ui;
	struct ag_io io;
	struct err error;
	char *out, *err;
	size_t out_len, err_len;
	json_t *requests[FAKE_MAX];
};

static inline struct scene *scene_new(const char *const *answers)
{
	struct scene *c = calloc(1, sizeof(*c));

	assert_non_null(c);
	fake_start(&c->server, answers);
	c->s = (struct ag_settings){ .opt_url = c->server.url,
		                     .timeout_s = 300,
		                     .max_tokens = 256,
		                     .context_tokens = 16384,
		                     .tools_enabled = true,
		                     .max_steps = 8,
		                     .tool_time_s = 60,
		                     .max_result_bytes = 4096,
		                     .no_history = true };
	c->assistant = *ag_assistant_find("chat");
	c->person = (struct person){ .answers = "" };
	c->ui = (struct ag_ui){ .arg = &c->person, .menu = person_menu };
	c->io = (struct ag_io){ .out = open_memstream(&c->out, &c->out_len),
		                .err = open_memstream(&c->err, &c->err_len),
		                .ui = &c->ui };
	return c;
}

/* What was shown, and the bodies of the requests for answers; how many there were. */
static inline int collect(struct scene *c)
{
	int n = 0;

	(void)fflush(c->io.out);
	(void)fflush(c->io.err);
	for (int i = 0; i < atomic_load(&c->server.n_requests); i++) {
		const char *body = strstr(c->server.requests[i], "\r\n\r\n");

		if (strncmp(c->server.requests[i], "POST", 4) != 0)
			continue;
		c->requests[n] = json_loads(body + 4, 0, NULL);
		assert_non_null(c->requests[n]);
		n++;
	}
	return n;
}

/* Asks; then the bodies of the requests for answers are in c->requests, and what was shown in c->out and c->err. */
static inline int ask(struct scene *c, const char *question)
{
	int r = ag_answer(&c->s, &c->assistant, &c->io, question, NULL, &c->error);

	(void)collect(c);
	return r;
}

static inline void scene_free(struct scene *c)
{
	fake_stop(&c->server);
	(void)fclose(c->io.out);
	(void)fclose(c->io.err);
	for (size_t i = 0; i < FAKE_MAX; i++)
		json_decref(c->requests[i]);
	free(c->out);
	free(c->err);
	free(c);
}

/* The content of the last message of the i-th request but `back`. */
static inline const char *message(const struct scene *c, size_t i, size_t back, const char *key)
{
	const json_t *all = json_object_get(c->requests[i], "messages");

	assert_true(json_array_size(all) > back);
	return json_string_value(json_object_get(json_array_get(all, json_array_size(all) - 1 - back), key));
}

static inline void assert_holds(const char *text, const char *part)
{
	if (!text || !strstr(text, part))
		print_error("expected \"%s\" in:\n%s\n", part, text ? text : "(null)");
	assert_non_null(text);
	assert_non_null(strstr(text, part));
}

#define PIECE(delta) "data: {\"choices\":[{\"delta\":" delta "}]}\n\n"
#define CALL_AT(index, id, name, args)                                                                                \
	PIECE("{\"tool_calls\":[{\"index\":" index ",\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":" \
	      "\"" name "\",\"arguments\":\"\"}}]}")                                                                  \
	PIECE("{\"tool_calls\":[{\"index\":" index ",\"function\":{\"arguments\":\"" args "\"}}]}")
#define ONE_CALL(name, args)              \
	FAKE_SSE(CALL_AT("0", "c1", name, \
	                 args) "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n" FAKE_DONE)
#define SAY(text) FAKE_SSE(FAKE_DELTA(text) FAKE_DONE)
#define ARG(key, value) "{\\\"" key "\\\":\\\"" value "\\\"}"

#endif
