/* ocai kb: the documents that answers may cite. Settings: kb.conf. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/config.h"
#include "base/json.h"
#include "commands.h"
#include "kb/kb.h"

enum { MAX_OUTPUT = 64 << 20, MAX_QUESTION = 32000 };

struct settings {
	const char *db, *color;
	struct ag_kb_config kb;
	uint32_t limit;
	bool json, quiet, full, show_config;
};

const struct opt kb_opts[] = {
	{ "json", 0, OPT_FLAG, offsetof(struct settings, json), NULL, "print one JSON document", NULL },
	{ "limit", 'n', OPT_UINT, offsetof(struct settings, limit), "COUNT", "passages to show [5]", NULL },
	{ "full", 0, OPT_FLAG, offsetof(struct settings, full), NULL, "show whole passages", NULL },
	{ "quiet", 'q', OPT_FLAG, offsetof(struct settings, quiet), NULL, "do not name skipped files", NULL },
	{ "db", 0, OPT_STR, offsetof(struct settings, db), "FILE", "database [$XDG_DATA_HOME/ocai/kb.sqlite]", NULL },
	{ "color", 0, OPT_CHOICE, offsetof(struct settings, color), "WHEN", "colour found words [auto]",
	  "auto,always,never" },
	{ "show-config", 0, OPT_FLAG, offsetof(struct settings, show_config), NULL,
	  "print the merged kb.conf and where each value came from", NULL },
	{ 0 }
};

static int kb_main(int argc, char **argv)
{
	return cmd_kb(argc, argv);
}

static const struct opt_command command[] = {
	{ "kb", "[OPTION]... add WHAT... | list | rm WHAT... | search QUESTION... | update",
	  "documents that answers may cite", kb_opts, kb_main },
	{ 0 }
};

static const struct opt_program program = { .name = "ocai", .summary = "", .commands = command };

static volatile sig_atomic_t cancelled;

static void on_signal(int number)
{
	(void)number;
	cancelled = 1;
}

static void catch_interrupt(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGTERM, &sa, NULL);
}

static void on_notice(void *arg, const char *line)
{
	const struct settings *s = arg;

	if (!s->quiet || strncmp(line, "skipped ", 8) != 0)
		(void)fprintf(stderr, "ocai: %s\n", line);
}

static int usage(const char *fmt, const char *word)
{
	struct err err = { 0 };

	(void)err_set(&err, -EINVAL, fmt, word); /* NOLINT: the formats are ours */
	return opt_usage_error(&program, command, &err);
}

static int failed(const struct err *err)
{
	(void)fprintf(stderr, "ocai: %s\n", err_text(err));
	return 1;
}

static int print_json(json_t *json)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(MAX_OUTPUT);
	int r = json ? base_json_append(&out, json) : -ENOMEM;

	json_decref(json);
	if (r < 0) {
		(void)fprintf(stderr, "ocai: out of memory\n");
		return 1;
	}
	(void)puts(base_buf_text(&out));
	return 0;
}

/* A path may be any bytes; JSON is UTF-8. */
static json_t *json_text(const char *text)
{
	CLEANUP(base_buf_done) struct base_buf quoted = BASE_BUF_INIT(MAX_OUTPUT);

	if (base_json_append_string(&quoted, text, strlen(text)) < 0)
		return NULL;
	return json_loadb(quoted.data, quoted.len, JSON_DECODE_ANY, NULL);
}

/* ---- add, update, rm ------------------------------------------------------------------------------------ */

static int print_counts(const struct settings *s, const struct ag_kb_counts *c)
{
	if (s->json)
		return print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "files", (json_int_t)c->n_files,
		                            "indexed", (json_int_t)c->n_new, "unchanged", (json_int_t)c->n_unchanged,
		                            "removed", (json_int_t)c->n_removed, "skipped", (json_int_t)c->n_skipped,
		                            "vectors", (json_int_t)c->n_vectors));
	(void)printf("%" PRIu64 " files: %" PRIu64 " indexed, %" PRIu64 " unchanged, %" PRIu64 " removed, %" PRIu64
	             " skipped",
	             c->n_files, c->n_new, c->n_unchanged, c->n_removed, c->n_skipped);
	if (c->n_vectors)
		(void)printf(", %" PRIu64 " vectors", c->n_vectors);
	(void)printf("\n");
	return 0;
}

static void sum_counts(struct ag_kb_counts *sum, const struct ag_kb_counts *c)
{
	sum->n_files += c->n_files;
	sum->n_new += c->n_new;
	sum->n_unchanged += c->n_unchanged;
	sum->n_removed += c->n_removed;
	sum->n_skipped += c->n_skipped;
	sum->n_vectors += c->n_vectors;
}

static int run_add(const struct settings *s, struct ag_kb *kb, char **what, int n)
{
	struct ag_kb_counts sum = { 0 };
	int status = 0, r = 0;

	for (int i = 0; i < n && r != -ECANCELED; i++) {
		struct ag_kb_counts c = { 0 };
		struct err err = { 0 };

		r = ag_kb_add(kb, what[i], &c, &err);
		sum_counts(&sum, &c);
		if (r < 0)
			status = failed(&err);
	}
	return print_counts(s, &sum) || status;
}

static int run_update(const struct settings *s, struct ag_kb *kb)
{
	struct ag_kb_counts c = { 0 };
	struct err err = { 0 };
	int r = ag_kb_update(kb, &c, &err), status = r < 0 ? failed(&err) : 0;

	return print_counts(s, &c) || status;
}

static int run_rm(struct ag_kb *kb, char **what, int n)
{
	int status = 0;

	for (int i = 0; i < n; i++) {
		struct err err = { 0 };

		if (ag_kb_remove(kb, what[i], &err) < 0)
			status = failed(&err);
	}
	return status;
}

/* ---- list -------------------------------------------------------------------------------------------------- */

static int list_json(void *arg, const struct ag_kb_source *src)
{
	json_t *array = arg;

	return json_array_append_new(array, json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "source", json_text(src->name),
	                                              "files", (json_int_t)src->n_files, "passages",
	                                              (json_int_t)src->n_passages, "bytes", (json_int_t)src->n_bytes,
	                                              "vectors", (json_int_t)src->n_vectors, "updated",
	                                              (json_int_t)src->updated));
}

static int list_line(void *arg, const struct ag_kb_source *src)
{
	char date[32] = "never";
	time_t t = (time_t)src->updated;
	struct tm tm;

	(void)arg;
	if (src->updated && localtime_r(&t, &tm))
		(void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
	(void)printf("%-16s  %8" PRIu64 " files  %9" PRIu64 " passages  %9" PRIu64 " KiB  %s\n", date, src->n_files,
	             src->n_passages, (src->n_bytes + 1023) / 1024, src->name);
	return 0;
}

static int run_list(const struct settings *s, struct ag_kb *kb)
{
	json_t *array = s->json ? json_array() : NULL;
	struct err err = { 0 };
	int r = ag_kb_each_source(kb, s->json ? list_json : list_line, array, &err);

	if (r < 0) {
		json_decref(array);
		return failed(&err);
	}
	return s->json ? print_json(json_pack("{s:o}", "sources", array)) : 0;
}

/* ---- search ------------------------------------------------------------------------------------------------ */

static void print_marked(const char *text, bool color)
{
	for (const char *p = text; *p; p++) {
		if (*p == '\x01')
			(void)fputs(color ? "\033[1;33m" : "", stdout);
		else if (*p == '\x02')
			(void)fputs(color ? "\033[0m" : "", stdout);
		else
			(void)putchar(*p);
	}
}

static json_t *hit_json(const struct ag_kb_hit *h)
{
	CLEANUP(base_buf_done) struct base_buf plain = BASE_BUF_INIT(MAX_OUTPUT);

	for (const char *p = h->snippet; *p; p++) {
		if (*p != '\x01' && *p != '\x02')
			(void)base_buf_putc(&plain, *p);
	}
	return json_pack("{s:o, s:I, s:o, s:o, s:o, s:f, s:b}", "path", json_text(h->path), "line", (json_int_t)h->line,
	                 "title", json_text(h->title), "snippet", json_text(base_buf_text(&plain)), "text",
	                 json_text(h->text), "score", h->score, "by_vector", h->by_vector);
}

static bool wants_color(const struct settings *s)
{
	const char *no = getenv("NO_COLOR");

	if (s->color && strcmp(s->color, "auto") != 0)
		return strcmp(s->color, "always") == 0;
	return isatty(STDOUT_FILENO) && !(no && *no);
}

static int print_hits(const struct settings *s, const char *question, const struct ag_kb_hits *hits)
{
	bool color = wants_color(s);

	if (s->json) {
		json_t *array = json_array();

		for (size_t i = 0; i < hits->n; i++)
			(void)json_array_append_new(array, hit_json(&hits->items[i]));
		return print_json(json_pack("{s:o, s:o}", "question", json_text(question), "hits", array));
	}
	for (size_t i = 0; i < hits->n; i++) {
		const struct ag_kb_hit *h = &hits->items[i];

		(void)printf("%s%s:%u%s  %s\n    ", color ? "\033[36m" : "", h->path, (unsigned)h->line,
		             color ? "\033[0m" : "", h->title);
		if (s->full) {
			for (const char *p = h->text; *p; p++)
				(void)fputs((const char[2]){ *p, 0 }, stdout),
				        *p == '\n' ? (void)fputs("    ", stdout) : (void)0;
		} else {
			print_marked(h->snippet, color);
		}
		(void)printf("\n");
	}
	return 0;
}

static int run_search(const struct settings *s, struct ag_kb *kb, char **words, int n)
{
	CLEANUP(base_buf_done) struct base_buf question = BASE_BUF_INIT(MAX_QUESTION);
	struct ag_kb_hits hits = { 0 };
	struct err err = { 0 };
	int r = 0;

	for (int i = 0; i < n; i++)
		(void)base_buf_printf(&question, "%s%s", i ? " " : "", words[i]);
	if (base_buf_error(&question))
		return usage("the question is too long%s", "");
	r = ag_kb_search(kb, base_buf_text(&question), s->limit, &hits, &err);
	if (r < 0)
		return failed(&err);
	r = print_hits(s, base_buf_text(&question), &hits);
	if (hits.n == 0) {
		if (!s->json)
			(void)fprintf(stderr, "ocai: nothing found\n");
		r = 1;
	}
	ag_kb_hits_done(&hits);
	return r;
}

/* ---- The command ------------------------------------------------------------------------------------------ */

static int check_words(const char *verb, int n, bool *ret_creates)
{
	bool add = strcmp(verb, "add") == 0;

	if (add || strcmp(verb, "rm") == 0 || strcmp(verb, "search") == 0) {
		if (n < 2)
			return usage("'kb %s' needs a word more", verb);
	} else if (strcmp(verb, "list") == 0 || strcmp(verb, "update") == 0) {
		if (n > 1)
			return usage("'kb %s' takes nothing more", verb);
	} else {
		return usage("unknown command 'kb %s'", verb);
	}
	*ret_creates = add;
	return 0;
}

static int run(const struct settings *s, char **words, int n)
{
	struct ag_kb_options options = { .path = s->db && *s->db ? s->db : NULL,
		                         .max_file_bytes = s->kb.max_file_bytes,
		                         .max_total_bytes = s->kb.max_total_bytes,
		                         .embedder = &s->kb.embedder,
		                         .cancel = &cancelled,
		                         .on_notice = on_notice,
		                         .on_notice_arg = (void *)s };
	struct ag_kb *kb = NULL;
	struct err err = { 0 };
	bool creates = false;
	int r = check_words(words[0], n, &creates);

	if (r)
		return r;
	if (s->limit < 1 || s->limit > 100)
		return usage("%s: 1 to 100 passages", "limit");
	options.must_exist = !creates;
	r = ag_kb_open(&options, &kb, &err);
	if (r < 0)
		return failed(&err);
	if (creates)
		r = run_add(s, kb, words + 1, n - 1);
	else if (strcmp(words[0], "update") == 0)
		r = run_update(s, kb);
	else if (strcmp(words[0], "rm") == 0)
		r = run_rm(kb, words + 1, n - 1);
	else if (strcmp(words[0], "list") == 0)
		r = run_list(s, kb);
	else
		r = run_search(s, kb, words + 1, n - 1);
	ag_kb_close(kb);
	return r;
}

int cmd_kb(int argc, char **argv)
{
	struct settings s = { .limit = 5, .color = "auto" };
	struct base_config *config = NULL;
	struct err err = { 0 };
	int n_words = 0, r;

	r = ag_kb_config_load(&s.kb, &config, &err);
	if (r < 0)
		return failed(&err);
	r = opt_parse(&program, command, argc, argv, &s, &n_words, &err);
	if (r < 0) {
		r = opt_usage_error(&program, command, &err);
	} else if (r == OPT_EXIT_OK) {
		r = 0;
	} else if (s.show_config) {
		base_config_show(config, &s.kb, stdout);
	} else if (n_words == 0) {
		r = usage("one of add, list, rm, search, update is missing%s", "");
	} else {
		catch_interrupt();
		r = run(&s, argv, n_words);
	}
	base_config_free(config);
	return r;
}
