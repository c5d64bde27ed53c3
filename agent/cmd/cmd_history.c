/* ocai history: list, show, search, rm, export. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "front.h"

enum { MAX_LINE = 64 << 20, SNIPPET_BYTES = 160 };

const struct opt history_opts[] = {
	{ "limit", 'n', OPT_UINT, offsetof(struct ag_settings, limit), "N", "at most so many; 0 for all [20]", NULL },
	{ "json", 0, OPT_FLAG, offsetof(struct ag_settings, json), NULL, "one JSON object per line", NULL },
	{ "all", 0, OPT_FLAG, offsetof(struct ag_settings, all), NULL, "rm, export: every session", NULL },
	{ 0 }
};

struct walk {
	struct ag_history *h;
	const struct ag_settings *s;
	struct ag_term_look look;
};

static int print_object(json_t *json)
{
	CLEANUP(base_buf_done) struct base_buf line = BASE_BUF_INIT(MAX_LINE);
	int r = json ? base_json_append(&line, json) : -EBADMSG;

	json_decref(json);
	if (r == 0)
		(void)puts(base_buf_text(&line));
	return r;
}

static void print_time(int64_t when)
{
	time_t t = (time_t)when;
	struct tm tm;
	char text[32] = "";

	if (localtime_r(&t, &tm))
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M", &tm);
	(void)printf("%s", text);
}

/* Text of the past is as little to be trusted as text of now. */
static void print_clean(const struct walk *w, const char *text, size_t len)
{
	CLEANUP(base_buf_done) struct base_buf clean = BASE_BUF_INIT(MAX_LINE);

	if (w->look.is_terminal)
		(void)ag_term_sanitize(&clean, text, len, w->look.ascii_only);
	else
		(void)base_buf_append(&clean, text, len);
	(void)fputs(base_buf_text(&clean), stdout);
}

static int print_session(void *arg, const struct ag_history_session *s)
{
	const struct walk *w = arg;

	if (w->s->json)
		return print_object(json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:I}", "id", (json_int_t)s->id, "kind",
		                              s->kind, "model", s->model, "title", s->title, "begun",
		                              (json_int_t)s->begun, "changed", (json_int_t)s->changed, "messages",
		                              (json_int_t)s->n_messages));
	(void)printf("%5lld  ", (long long)s->id);
	print_time(s->changed);
	(void)printf("  %-5s %3lld  ", s->kind, (long long)s->n_messages);
	print_clean(w, s->title, strlen(s->title));
	(void)putchar('\n');
	return 0;
}

static int print_message(void *arg, const struct ag_history_message *m)
{
	const struct walk *w = arg;

	if (w->s->json)
		return print_object(json_pack("{s:I, s:s, s:I, s:s}", "session", (json_int_t)m->session, "role",
		                              m->role, "when", (json_int_t)m->when, "content", m->text));
	(void)printf("%s%s%s\n", ag_term_sgr(&w->look, AG_TERM_HEADING), m->role, ag_term_sgr(&w->look, AG_TERM_RESET));
	print_clean(w, m->text, strlen(m->text));
	(void)printf("\n\n");
	return 0;
}

static int print_hit(void *arg, const struct ag_history_message *m)
{
	const struct walk *w = arg;
	size_t n = strcspn(m->text, "\r\n");

	if (w->s->json)
		return print_message(arg, m);
	if (n > SNIPPET_BYTES) {
		n = SNIPPET_BYTES;
		while (n && ((unsigned char)m->text[n] & 0xc0) == 0x80)
			n--;
	}
	(void)printf("%5lld  ", (long long)m->session);
	print_time(m->when);
	(void)printf("  %-9s ", m->role);
	print_clean(w, m->text, n);
	(void)putchar('\n');
	return 0;
}

static int export_one(struct walk *w, int64_t id, struct err *err)
{
	json_t *json = NULL;
	int r = ag_history_export(w->h, id, &json, err);

	return r < 0 ? r : print_object(json);
}

struct ids {
	int64_t *items;
	size_t n;
};

static int collect_id(void *arg, const struct ag_history_session *s)
{
	struct ids *ids = arg;
	int64_t *items = reallocarray(ids->items, ids->n + 1, sizeof(*items));

	if (!items)
		return -ENOMEM;
	items[ids->n++] = s->id;
	ids->items = items;
	return 0;
}

static int export_all(struct walk *w, struct err *err)
{
	struct ids ids = { 0 };
	int r = ag_history_list(w->h, 0, collect_id, &ids, err);

	for (size_t i = 0; i < ids.n && r >= 0; i++)
		r = export_one(w, ids.items[i], err);
	free(ids.items);
	return r;
}

static int with_id(struct walk *w, const char *verb, const char *word, struct err *err)
{
	char *end;
	long long id = strtoll(word, &end, 10);

	if (*end || end == word || id <= 0)
		return err_set(err, -EINVAL, "'%s' is not the number of a session", word);
	if (strcmp(verb, "show") == 0)
		return ag_history_show(w->h, id, print_message, w, err);
	if (strcmp(verb, "rm") == 0)
		return ag_history_remove(w->h, id, err);
	return export_one(w, id, err);
}

static int run_verb(struct walk *w, const char *verb, char **words, int n, struct front *f, struct err *err)
{
	int r = 0;

	if (strcmp(verb, "list") == 0)
		return ag_history_list(w->h, w->s->limit, print_session, w, err);
	if (strcmp(verb, "search") == 0) {
		for (int i = 0; i < n; i++)
			(void)base_buf_printf(&f->question, "%s%s", i ? " " : "", words[i]);
		return ag_history_search(w->h, base_buf_text(&f->question), w->s->limit, print_hit, w, err);
	}
	if (w->s->all && strcmp(verb, "rm") == 0)
		return ag_history_remove_all(w->h, err);
	if (w->s->all && strcmp(verb, "export") == 0)
		return export_all(w, err);
	for (int i = 0; i < n && r >= 0; i++)
		r = with_id(w, verb, words[i], err);
	return r;
}

int cmd_history(int argc, char **argv)
{
	static const char *const verbs[] = { "list", "show", "search", "rm", "export" };
	struct walk w = { 0 };
	struct err err = { 0 };
	struct front f;
	const char *verb;
	int code, r;
	size_t i;

	if (front_begin(&f, "history", argc, argv, &code))
		return code;
	verb = f.n_words ? argv[0] : "list";
	for (i = 0; i < sizeof(verbs) / sizeof(*verbs) && strcmp(verbs[i], verb) != 0; i++)
		;
	if (i == sizeof(verbs) / sizeof(*verbs))
		return front_end(&f, front_usage(&f, "expected list, show, search, rm or export"), NULL);
	if (i > 0 && f.n_words < 2 && !f.s.all)
		return front_end(&f, front_usage(&f, "which one? its number, or words, or --all, is missing"), NULL);
	w.s = &f.s;
	w.look = f.io.look;
	r = ag_history_open(NULL, &w.h, &f.input, &err);
	if (f.input.len)
		(void)fprintf(stderr, "ocai: %s\n", base_buf_text(&f.input));
	if (r == 0)
		r = run_verb(&w, verb, argv + 1, f.n_words - 1, &f, &err);
	ag_history_close(w.h);
	return front_end(&f, r < 0 ? r : 0, &err);
}
