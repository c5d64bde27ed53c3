/* Scripts: the interpreter of the first line, which the kernel opens, and the commands that a shell script runs. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analyze/analyze_internal.h"
#include "base/cleanup.h"

enum {
	FIRST_LINE_MAX = 256, /* the kernel reads no further */
	SCRIPT_MAX = 8 << 20,
};

/* Splits "#! /usr/bin/env -S python3 -s" at blanks; returns the count. */
static size_t split(char *line, char *ret_words[], size_t max)
{
	char *save = NULL;
	size_t n = 0;

	for (char *p = strtok_r(line, " \t", &save); p && n < max; p = strtok_r(NULL, " \t", &save))
		ret_words[n++] = p;
	return n;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* What `env` of the first line would run: the first word that is neither an option nor an assignment. */
static const char *command_of_env(char *words[], size_t n)
{
	for (size_t i = 1; i < n; i++) {
		if (words[i][0] != '-' && !strchr(words[i], '='))
			return words[i];
	}
	return NULL;
}

struct commands_arg {
	struct img_look *k;
	struct img_words seen;
};

static int on_command(const char *name, void *arg)
{
	struct commands_arg *x = arg;
	struct img_node *to;

	if (img_words_has(&x->seen, name))
		return 0;
	if (img_words_add(&x->seen, name, strlen(name)) < 0)
		return x->k->stopped = -ENOMEM;
	to = img_look_command(x->k, name, true);
	return to ? img_look_need(x->k, IMG_NEED_COMMAND, name, to, true) : x->k->stopped;
}

static int look_at_shell(struct img_look *k)
{
	CLEANUP(freep) char *text = NULL;
	struct commands_arg x = { .k = k };
	size_t size;

	text = img_look_text(k, SCRIPT_MAX, &size);
	if (!text)
		return k->stopped;
	(void)img_shell_commands(text, size, on_command, &x);
	img_words_done(&x.seen);
	return k->stopped;
}

static bool is_shell(const char *name)
{
	static const char *const shells[] = { "sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox" };

	for (size_t i = 0; i < sizeof(shells) / sizeof(*shells); i++) {
		if (strcmp(name, shells[i]) == 0)
			return true;
	}
	return false;
}

int img_analyze_script(struct img_look *k)
{
	char line[FIRST_LINE_MAX + 1], *words[8];
	const char *runs;
	ssize_t got = img_node_read(k->n, line, FIRST_LINE_MAX, 0, NULL);
	size_t n;
	struct img_node *to;

	if (got <= 2)
		return 0;
	line[got] = 0;
	line[strcspn(line, "\r\n")] = 0;
	n = split(line + 2, words, sizeof(words) / sizeof(*words));
	if (n == 0)
		return 0;
	runs = words[0];
	to = img_look_resolve(k, words[0], false);
	(void)img_look_need(k, IMG_NEED_SHEBANG, words[0], to, false);
	if (strcmp(base_name(words[0]), "env") == 0) {
		runs = command_of_env(words, n);
		if (!runs)
			return k->stopped;
		(void)img_look_need(k, IMG_NEED_SHEBANG, runs, img_look_command(k, runs, false), false);
	}
	if (is_shell(base_name(runs)))
		return look_at_shell(k);
	/* A file named *.py is looked at by its own row. */
	if (strncmp(base_name(runs), "python", 6) == 0 && fnmatch("*.py", k->n->path, 0) != 0)
		return img_analyze_python(k);
	return k->stopped;
}
