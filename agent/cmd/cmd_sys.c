/* ocai sys: facts about this machine and what slows it down. Reads only, changes nothing, asks no model. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "commands.h"
#include "sys/sys.h"

enum { MAX_OUTPUT = 64 << 20 };

struct settings {
	const char *owns, *verify, *root, *color, *lang;
	double seconds;
	bool json, updates;
};

const struct opt sys_opts[] = {
	{ "json", 0, OPT_FLAG, offsetof(struct settings, json), NULL, "print one JSON document", NULL },
	{ "seconds", 's', OPT_DOUBLE, offsetof(struct settings, seconds), "SECONDS",
	  "length of the sample of perf [10]", NULL },
	{ "owns", 0, OPT_STR, offsetof(struct settings, owns), "FILE", "which package owns this file", NULL },
	{ "verify", 0, OPT_STR, offsetof(struct settings, verify), "PACKAGE",
	  "compare the package's files with the database", NULL },
	{ "updates", 0, OPT_FLAG, offsetof(struct settings, updates), NULL,
	  "what an update of the packages would bring", NULL },
	{ "root", 0, OPT_STR, offsetof(struct settings, root), "DIR", "read the system below this folder", NULL },
	{ "lang", 0, OPT_CHOICE, offsetof(struct settings, lang), "LANGUAGE", "language of the text [the locale's]",
	  "en,zh" },
	{ "color", 0, OPT_CHOICE, offsetof(struct settings, color), "WHEN", "colours in the text [auto]",
	  "auto,always,never" },
	{ 0 }
};

static volatile sig_atomic_t cancelled;

static void on_interrupt(int number)
{
	(void)number;
	cancelled = 1;
}

static const char *nonempty_env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

static const char *locale_name(void)
{
	const char *v = nonempty_env("LC_ALL");

	if (!v)
		v = nonempty_env("LC_CTYPE");
	if (!v)
		v = nonempty_env("LANG");
	return v ? v : "C";
}

static unsigned terminal_width(void)
{
	const char *columns = nonempty_env("COLUMNS");
	struct winsize size;
	unsigned long v = 0;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	if (columns)
		v = strtoul(columns, NULL, 10);
	return v >= 40 && v <= 1000 ? (unsigned)v : 100;
}

static struct ag_sys_style style_for(const struct settings *s)
{
	const char *locale = locale_name(), *term = nonempty_env("TERM");
	bool terminal = isatty(STDOUT_FILENO) && !(term && strcmp(term, "dumb") == 0) && !nonempty_env("NO_COLOR");

	return (struct ag_sys_style){
		.chinese = s->lang ? strcmp(s->lang, "zh") == 0 : strncmp(locale, "zh", 2) == 0,
		.color = strcmp(s->color, "always") == 0 || (strcmp(s->color, "auto") == 0 && terminal),
		.ascii = !strcasestr(locale, "utf-8") && !strcasestr(locale, "utf8"),
		.width = terminal_width(),
	};
}

static int parse_sections(const struct settings *s, char **words, int n, unsigned *ret, struct err *err)
{
	unsigned bits = 0;

	for (int i = 0; i < n; i++) {
		unsigned one;
		int r = ag_sys_section_parse(words[i], &one, err);

		if (r < 0)
			return r;
		bits |= one;
	}
	if (s->owns || s->verify || s->updates)
		bits |= AG_SYS_PACKAGES;
	*ret = bits ? bits : AG_SYS_QUICK;
	return 0;
}

static int print_document(const json_t *document, const struct settings *s, struct err *err)
{
	CLEANUP(base_buf_done) struct base_buf out = BASE_BUF_INIT(MAX_OUTPUT);
	CLEANUP(freep) char *text = NULL;
	struct ag_sys_style style = style_for(s);
	int r;

	if (s->json) {
		text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
		if (!text)
			return err_set(err, -ENOMEM, "out of memory");
		(void)puts(text);
		return 0;
	}
	r = ag_sys_render(document, &style, &out);
	if (r < 0)
		return err_set(err, r, "the text is too long");
	(void)fputs(base_buf_text(&out), stdout);
	return 0;
}

int cmd_sys(int argc, char **argv)
{
	struct settings s = { .color = "auto", .seconds = 10 };
	struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESETHAND };
	struct ag_sys_options options;
	json_t *document = NULL;
	struct err err = { 0 };
	unsigned sections = 0;
	int n = 0, r;

	r = opt_parse(&ocai_program, ocai_command("sys"), argc, argv, &s, &n, &err);
	if (r == OPT_EXIT_OK)
		return 0;
	if (r == 0)
		r = parse_sections(&s, argv, n, &sections, &err);
	if (r == 0 && !(s.seconds >= 0.1 && s.seconds <= 3600))
		r = err_set(&err, -EINVAL, "--seconds is 0.1 to 3600");
	if (r < 0)
		return opt_usage_error(&ocai_program, ocai_command("sys"), &err);
	options = (struct ag_sys_options){ .root = s.root,
		                           .seconds = s.seconds,
		                           .owns = s.owns,
		                           .verify = s.verify,
		                           .updates = s.updates,
		                           .cancel = &cancelled };
	if (sections & AG_SYS_PERF) {
		/* The first Ctrl-C ends the sample early and shows what was measured, the second the program. */
		(void)sigaction(SIGINT, &action, NULL);
		if (isatty(STDERR_FILENO) && isatty(STDOUT_FILENO))
			(void)fprintf(stderr, "ocai: measuring for %g s (Ctrl-C ends it early)\n", s.seconds);
	}
	r = ag_sys_collect(sections, &options, &document, &err);
	if (r == 0)
		r = print_document(document, &s, &err);
	json_decref(document);
	if (r < 0)
		(void)fprintf(stderr, "ocai: %s\n", err_text(&err));
	return r < 0 ? 1 : 0;
}
